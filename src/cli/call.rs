//! `warrend call`: sends a request to a queue and prints its reply; for trying out a job with `reply = true`, and for
//! scripts.

use std::io::Write;

use crate::broker::call::{self, CallError, Reply};
use crate::broker::{Body, Outgoing};
use crate::cli::publish::{exit, read_body};
use crate::cli::{Call, Exit, Failure};
use crate::config::{Config, show_duration};
use crate::encoding;
use crate::policy::retry::header;
use crate::policy::topology;
use crate::task::{HeaderValue, Properties};

/// The largest reply once it is decoded, in bytes: what RabbitMQ 3 allows a message to have.
const LARGEST_REPLY: u64 = 128 << 20;

/// Sends the request, and prints the body of its reply as it came, or decoded where its encoding is known.
pub fn call(config: &Config, args: &Call, out: &mut impl Write) -> Result<Exit, Failure> {
    let straight = || topology::to_queue(&args.queue);
    let (exchange, routing_key) = args.post.route().unwrap_or_else(straight);
    let body = Body::Bytes(read_body(args.file.as_deref())?.into());
    let request = Outgoing { exchange, routing_key, properties: properties(args), body };
    let reply = call::call(&config.broker, request, args.timeout).map_err(|error| tell(&error, args))?;
    print(&reply, out)
}

/// What is known of the request before it is sent. Persistent, as its dead letter would be.
fn properties(args: &Call) -> Properties {
    Properties {
        message_id: Some(args.id.clone().unwrap_or_else(|| uuid::Uuid::now_v7().to_string())),
        delivery_mode: Some(2),
        priority: args.post.priority,
        headers: args.post.headers(),
        ..Properties::default()
    }
}

fn tell(error: &CallError, args: &Call) -> Failure {
    match error {
        CallError::Broker(broker) => Failure::new(exit(broker), error.to_string()),
        CallError::Refused(_) | CallError::Untaken { .. } => Failure::new(Exit::Failed, error.to_string()),
        CallError::Unanswered => {
            let (queue, timeout) = (&args.queue, show_duration(args.timeout));
            let what = format!(
                "no reply within {timeout}: look with `warrend status` whether a job consumes {queue:?}, and in its \
                 configuration for `reply = true`; or give it longer with --timeout"
            );
            Failure::new(Exit::Failed, what)
        }
    }
}

fn print(reply: &Reply, out: &mut impl Write) -> Result<Exit, Failure> {
    let Reply { properties, body } = reply;
    if let Some(class) = properties.headers.get(header::ERROR_CLASS) {
        let text = |value: Option<&HeaderValue>| {
            let text = value.and_then(HeaderValue::as_text).unwrap_or("unknown");
            text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect::<String>()
        };
        let (class, error) = (text(Some(class)), text(properties.headers.get(header::ERROR)));
        return Err(Failure::new(Exit::Failed, format!("the request failed ({class}): {error}")));
    }
    let body = encoding::decode(properties.content_encoding.as_deref(), body, LARGEST_REPLY)
        .map_err(|failure| Failure::new(Exit::Failed, format!("the reply cannot be read: {}", failure.error)))?;
    out.write_all(&body).and_then(|()| out.flush()).map_err(|error| Failure::print(&error))?;
    Ok(Exit::Done)
}
