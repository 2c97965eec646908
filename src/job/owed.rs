//! What a task owes somebody else before it is recorded: the message that it forwards, or the answer to a request.
//!
//! Both are confirmed by the broker before the record is made. A crash between the two sends them again, which a consumer
//! with idempotency drops; the other order would lose them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use log::warn;

use super::workers::Finished;
use super::{CREDIT, Exit, Job, Phase};
use crate::broker::{Body, BrokerError, Outgoing, Session};
use crate::config::{Forward, Handler};
use crate::policy::gate::Allowed;
use crate::policy::inflight::Ended;
use crate::policy::reply::Letter;
use crate::policy::route::{self, Routed};
use crate::policy::topology;
use crate::task::{ErrorClass, Failure, Outcome, Task, Ticket};

/// How long an exchange that was found is taken to stand, and one that was not found to be missing.
const STANDS: Duration = Duration::from_secs(30);
const MISSES: Duration = Duration::from_secs(2);
/// Exchanges that are remembered at one time.
const MOST_EXCHANGES: usize = 1024;

/// What waits for a confirm before its attempt can be recorded.
#[derive(Debug)]
pub enum Owed {
    /// The forwarded message, on its way since then.
    Forward(Instant),
    /// The answer to a request that ended so.
    Reply(Ended),
}

impl Job {
    /// Step 2 of a job that forwards: what waits goes on its way, as far as the publisher takes it.
    pub(super) fn dispatch_forwards(&mut self, session: &mut Session<'_>) -> Result<(), Exit> {
        let Handler::Forward(forward) = &self.config.handler else {
            return Ok(());
        };
        if self.schedule.is_empty() {
            return Ok(());
        }
        let forward = forward.clone();
        while self.phase == Phase::Working {
            let limit = match self.allowed() {
                Allowed::Everything => CREDIT,
                Allowed::OneProbe => 1,
                Allowed::Nothing => 0,
            };
            if self.owed.len() >= limit {
                break;
            }
            let Some(ticket) = self.schedule.pop() else { break };
            if let Some(task) = self.machine.start(ticket) {
                self.forward(session, ticket, &task, &forward)?;
            }
        }
        Ok(())
    }

    /// Sends a message on to where its job's routes say.
    fn forward(
        &mut self,
        session: &mut Session<'_>,
        ticket: Ticket,
        task: &Arc<Task>,
        forward: &Forward,
    ) -> Result<(), Exit> {
        self.gate.started(ticket);
        self.timing.starts(self.now, task);
        let routed = route::route(forward, &task.message);
        let routed = routed.and_then(|routed| match route::comes_back(&routed, &self.config.queues) {
            Some(failure) => Err(failure),
            None => Ok(routed),
        });
        let Routed { exchange, routing_key } = match routed {
            Ok(routed) => routed,
            Err(failure) => {
                self.on_forwarded(ticket, self.now, Outcome::Dead(failure));
                return Ok(());
            }
        };
        if let Some(error) = self.missing_exchange(session, &exchange)? {
            let failure = Failure { class: ErrorClass::Failed, error };
            self.on_forwarded(ticket, self.now, Outcome::Retry(failure));
            return Ok(());
        }
        let properties = route::forwarded(&task.message);
        let message = Outgoing { exchange, routing_key, properties, body: Body::Task(Arc::clone(task)) };
        self.owe(ticket, message, Owed::Forward(self.now));
        Ok(())
    }

    /// Why nothing can be published there. To publish to an exchange that is missing would cost the publisher its channel, and
    /// with it everything that is under way for all jobs.
    fn missing_exchange(&mut self, session: &mut Session<'_>, exchange: &str) -> Result<Option<String>, Exit> {
        if exchange.is_empty() {
            return Ok(None);
        }
        if let Some((at, known)) = self.exchanges.get(exchange)
            && self.now < *at + if known.is_none() { STANDS } else { MISSES }
        {
            return Ok(known.clone());
        }
        let known = match session.declare(&[topology::required_exchange(exchange)]) {
            Ok(()) => None,
            Err(error @ BrokerError::Topology { .. }) => Some(error.to_string()),
            Err(error) => return Err(Exit::Lost(error)),
        };
        // Their names may come from messages.
        if self.exchanges.len() >= MOST_EXCHANGES {
            self.exchanges.clear();
        }
        self.exchanges.insert(exchange.to_owned(), (self.now, known.clone()));
        Ok(known)
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
                match result {
                    Ok(()) => self.counters.replies += 1,
                    // Most often the caller has gone. Running the handler again would not bring it back.
                    Err(error) => {
                        self.counters.replies_lost += 1;
                        warn!(job = &*self.config.name; "job {}: a reply reached nobody: {error}", self.config.name);
                    }
                }
                self.machine.finished(ticket, ended, self.at);
            }
        }
    }

    /// At the end of a drain: replies that the broker does not take now are given up. Their requests are done, and must not
    /// run again for it.
    pub(super) fn give_up_replies(&mut self) {
        for (ticket, owed) in std::mem::take(&mut self.owed) {
            match owed {
                Owed::Forward(_) => {
                    self.owed.insert(ticket, owed);
                }
                Owed::Reply(_) => {
                    self.on_owed(ticket, owed, Err("its job ended before the broker took it".to_owned()));
                }
            }
        }
    }
}
