//! A real client against a small real server on the loopback, which does what its script says.

mod answers;
mod connections;
mod sends;
mod server;
mod tls;

use std::collections::BTreeMap;
use std::time::Duration;

use self::server::{Seen, Server, Step};
use super::*;
use crate::handler::command::tests::{context, input, task};
use crate::task::{MessageKey, Task};

/// Above anything that happens here on a loaded machine.
const LONG: Duration = Duration::from_secs(60);

fn config(url: &str) -> config::Http {
    config::Http { url: url.to_owned(), timeout: LONG, headers: BTreeMap::new(), secret_file: None, ca_file: None }
}

/// A handler and the server that it sends to.
struct Setup {
    server: Server,
    config: config::Http,
    context: Context,
    stop: Stop,
}

impl Setup {
    fn new(script: Vec<Step>) -> Self {
        let server = Server::start(script);
        let config = config(&format!("http://{}/hook/s3cret?token=s3cret", server.address));
        Self { server, config, context: context(), stop: Stop::new().unwrap() }
    }

    fn handler(&self) -> HttpHandler {
        let Context { job, queues, max_attempts, max_body, reply } = &self.context;
        let (job, queues) = (Arc::clone(job), queues.clone());
        let context = Context { job, queues, max_attempts: *max_attempts, max_body: *max_body, reply: *reply };
        HttpHandler::new(&self.config, Arc::new(context))
    }

    /// Sends one task with a fresh handler.
    fn send(&self, task: &Task) -> Answer {
        self.handler().run(&input(task), &self.stop)
    }
}

/// A task with a key.
fn keyed(body: &[u8]) -> Task {
    Task { key: Some(MessageKey::from_text("order-42")), ..task(body) }
}

/// The error of an answer, with how it counts.
fn failure(answer: Answer) -> (&'static str, ErrorClass, String) {
    assert!(answer.exit.is_none() && answer.reply.is_none());
    match answer.outcome {
        Outcome::Retry(failure) => ("retry", failure.class, failure.error),
        Outcome::Dead(failure) => ("dead", failure.class, failure.error),
        outcome @ (Outcome::Done | Outcome::Broken(_) | Outcome::Interrupted(_)) => panic!("{outcome:?}"),
    }
}

/// What a broken handler says.
fn broken(answer: Answer) -> String {
    match answer.outcome {
        Outcome::Broken(why) => why,
        outcome @ (Outcome::Done | Outcome::Retry(_) | Outcome::Dead(_) | Outcome::Interrupted(_)) => {
            panic!("{outcome:?}")
        }
    }
}
