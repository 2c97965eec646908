//! What a task owes somebody else before it is recorded: the message that it forwards, or the answer to a request.
//!
//! Both are confirmed by the broker before the record is made. A crash between the two sends them again, which a consumer
//! with idempotency drops; the other order would lose them.

use std::sync::Arc;
use std::time::Instant;

use log::warn;

use super::Job;
use super::workers::Finished;
use crate::broker::{Body, Outgoing};
use crate::config::Forward;
use crate::policy::inflight::Ended;
use crate::policy::reply::Letter;
use crate::policy::route::{self, Routed};
use crate::task::{ErrorClass, Failure, Outcome, Task, Ticket};

/// What waits for a confirm before its attempt can be recorded.
#[derive(Debug)]
pub enum Owed {
    /// The forwarded message, on its way since then.
    Forward(Instant),
    /// The answer to a request that ended so.
    Reply(Ended),
}

impl Job {
    /// Sends a message on to where its job's routes say.
    pub(super) fn forward(&mut self, ticket: Ticket, task: &Arc<Task>, forward: &Forward) {
        self.machine.start(ticket);
        self.gate.started(ticket);
        self.wait_time.add(self.now, self.now - task.received);
        let routed = route::route(forward, &task.message);
        let routed = routed.and_then(|routed| match route::comes_back(&routed, &self.config.queues) {
            Some(failure) => Err(failure),
            None => Ok(routed),
        });
        match routed {
            Ok(Routed { exchange, routing_key }) => {
                let properties = route::forwarded(&task.message);
                let message = Outgoing { exchange, routing_key, properties, body: Body::Task(Arc::clone(task)) };
                self.owe(ticket, message, Owed::Forward(self.now));
            }
            Err(failure) => self.on_forwarded(ticket, self.now, Outcome::Dead(failure)),
        }
    }

    fn on_forwarded(&mut self, ticket: Ticket, began: Instant, outcome: Outcome) {
        let ran = self.now.saturating_duration_since(began);
        self.on_finished(Finished { ticket, answer: outcome.into(), ran });
    }

    /// Ends an attempt for good; a request gets its answer first.
    pub(super) fn conclude(&mut self, ticket: Ticket, ended: Ended, letter: Option<Letter>) {
        let Some(Letter { to, properties, body }) = letter else {
            self.machine.finished(ticket, ended, self.at);
            return;
        };
        // It may have failed before it ran; it must not be forgotten with the session now.
        self.machine.start(ticket);
        let body = Body::Bytes(body.into());
        let message = Outgoing { exchange: String::new(), routing_key: to, properties, body };
        self.owe(ticket, message, Owed::Reply(ended));
    }

    fn owe(&mut self, ticket: Ticket, message: Outgoing, owed: Owed) {
        self.owed.insert(ticket, owed);
        self.outbox.push_back((ticket, message));
    }

    /// The broker's verdict on what was owed.
    pub(super) fn on_owed(&mut self, ticket: Ticket, owed: Owed, result: Result<(), String>) {
        match (owed, result) {
            (Owed::Forward(began), Ok(())) => self.on_forwarded(ticket, began, Outcome::Done),
            (Owed::Forward(began), Err(error)) => {
                let failure = Failure { class: ErrorClass::Failed, error };
                self.on_forwarded(ticket, began, Outcome::Retry(failure));
            }
            (Owed::Reply(ended), result) => {
                // Most often the caller has gone. Running the handler again would not bring it back.
                if let Err(error) = result {
                    warn!("job {}: a reply reached nobody: {error}", self.config.name);
                }
                self.machine.finished(ticket, ended, self.at);
            }
        }
    }
}
