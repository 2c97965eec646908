//! `warrend publish`: puts messages in, confirmed; for trying things out and for scripts.

use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;

use crate::broker::oneshot::{self, PublishError};
use crate::broker::{Body, BrokerError, Outgoing};
use crate::cli::{Exit, Failure, Publish};
use crate::config::Config;
use crate::encoding::Encoding;
use crate::policy::topology::{self, Ladder};
use crate::task::{Destination, Properties};

/// Publishes and prints how many messages the broker confirmed.
pub fn publish(config: &Config, args: &Publish, out: &mut impl std::io::Write) -> Result<Exit, Failure> {
    let encoding = encoding(args);
    let body: Arc<[u8]> = encode(encoding, read_body(args.file.as_deref())?)?.into();
    let queue: Arc<str> = args.queue.as_str().into();
    let ladder = Ladder::new(config.broker.delay_queues);
    let (exchange, routing_key) = match (args.post.route(), args.delay) {
        (Some(route), _) => route,
        (None, Some(delay)) => topology::route(&Destination::Delay { queue: Arc::clone(&queue), delay }, ladder),
        (None, None) => topology::to_queue(&queue),
    };
    let messages = (1..=args.count).map(|n| Outgoing {
        exchange: exchange.clone(),
        routing_key: routing_key.clone(),
        properties: properties(args, encoding, n),
        body: Body::Bytes(Arc::clone(&body)),
    });
    if args.delay.is_some() {
        let declared = oneshot::declare(&config.broker, &topology::delay_steps(&queue, ladder));
        declared.map_err(|error| Failure::new(exit(&error), error.to_string()))?;
    }
    let confirmed = oneshot::publish_all(&config.broker, messages).map_err(|error| {
        let exit = match &error {
            PublishError::Broker(error) => exit(error),
            PublishError::Refused { .. } | PublishError::Stalled { .. } => Exit::Failed,
        };
        Failure::new(exit, error.to_string())
    })?;
    let plural = if confirmed == 1 { "" } else { "s" };
    let printed = writeln!(out, "{confirmed} message{plural} confirmed");
    printed.map_err(|error| Failure::new(Exit::Failed, format!("cannot print: {error}")))?;
    Ok(Exit::Done)
}

/// A queue that is missing is the caller's affair; everything else is the broker's.
pub fn exit(error: &BrokerError) -> Exit {
    match error {
        BrokerError::Topology { .. } => Exit::Failed,
        BrokerError::Unreachable { .. }
        | BrokerError::Refused { .. }
        | BrokerError::Lost { .. }
        | BrokerError::Tls { .. }
        | BrokerError::TlsFiles { .. }
        | BrokerError::PasswordFile { .. } => Exit::NoBroker,
    }
}

fn properties(args: &Publish, encoding: Option<Encoding>, n: u64) -> Properties {
    let id = match &args.id {
        Some(id) if args.count > 1 => format!("{id}-{n}"),
        Some(id) => id.clone(),
        // Of version 7, whose order in time keeps the store's tree compact.
        None => uuid::Uuid::now_v7().to_string(),
    };
    Properties {
        message_id: Some(id),
        delivery_mode: Some(2),
        priority: args.post.priority,
        content_type: args.content_type.clone(),
        content_encoding: encoding.map(|encoding| encoding.name().to_owned()),
        headers: args.post.headers(),
        ..Properties::default()
    }
}

/// Of the two flags the command line allows one.
fn encoding(args: &Publish) -> Option<Encoding> {
    let gzip = args.gzip.then_some(Encoding::Gzip);
    gzip.or(args.zstd.then_some(Encoding::Zstd))
}

fn encode(encoding: Option<Encoding>, body: Vec<u8>) -> Result<Vec<u8>, Failure> {
    let Some(encoding) = encoding else { return Ok(body) };
    let failed = |error| Failure::new(Exit::Failed, format!("cannot compress the body: {error}"));
    encoding.encode(&body).map_err(failed)
}

/// The body of a message: a file's content, or what comes on standard input where its name is `-`.
pub fn read_body(file: Option<&Path>) -> Result<Vec<u8>, Failure> {
    let mut body = Vec::new();
    let read = match file {
        None => Ok(0),
        Some(path) if path == Path::new("-") => std::io::stdin().lock().read_to_end(&mut body),
        Some(path) => std::fs::File::open(path).and_then(|mut file| file.read_to_end(&mut body)),
    };
    let name = file.unwrap_or(Path::new("-")).display();
    read.map_err(|error| Failure::new(Exit::Failed, format!("cannot read the body from {name}: {error}")))?;
    Ok(body)
}
