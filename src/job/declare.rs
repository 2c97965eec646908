//! Making sure of what the job needs on the broker: queues, exchanges and bindings.
//!
//! What cannot be had (a right is missing, a queue is on a node that is down) does not end the session: the queues that are
//! there are consumed, failures wait for their copies, and it is tried again with backoff.

use std::time::Instant;

use log::{info, warn};

use super::{Exit, Job, Phase};
use crate::broker::{BrokerError, Session};
use crate::config;
use crate::policy::backoff::Backoff;
use crate::policy::topology;

/// Whether all of it is there.
#[derive(Debug)]
pub struct Declared {
    backoff: Backoff,
    /// Not before then; `None` while nothing is lacking, or there is no session.
    due: Option<Instant>,
    /// The first thing that could not be had, and why.
    lacking: Option<String>,
}

impl Declared {
    /// Nothing is known to be lacking yet.
    pub fn new(reconnect: config::Backoff) -> Self {
        Self { backoff: Backoff::new(reconnect.initial, reconnect.max), due: None, lacking: None }
    }

    /// When the next try is due.
    pub fn deadline(&self) -> Option<Instant> {
        self.due
    }
}

impl Job {
    /// Makes sure of every queue, exchange and binding of the job, as far as they can be had.
    pub(super) fn declare(&mut self, session: &mut Session<'_>) -> Result<(), Exit> {
        let steps = topology::job_steps(&self.config, self.ladder());
        match session.declare(&steps) {
            Ok(()) => {
                let declared = &mut self.declared;
                declared.backoff.reset();
                declared.due = None;
                if declared.lacking.take().is_some() {
                    info!(job = &*self.config.name; "job {}: the broker has all that the job needs", self.config.name);
                    self.subscriptions.hasten(self.now);
                }
                Ok(())
            }
            Err(error @ BrokerError::Topology { .. }) => {
                let text = error.to_string();
                // One line when it begins, not one for every try.
                if self.declared.lacking.as_ref() != Some(&text) {
                    warn!(job = &*self.config.name; "job {}: {text}; trying again", self.config.name);
                }
                let pause = self.declared.backoff.next(fastrand::f64());
                (self.declared.lacking, self.declared.due) = (Some(text), Some(Instant::now() + pause));
                Ok(())
            }
            Err(error) => Err(Exit::Lost(error)),
        }
    }

    /// Tries again what could not be had.
    pub(super) fn keep_declared(&mut self, session: &mut Session<'_>) -> Result<(), Exit> {
        let due = self.declared.due.is_some_and(|due| due <= self.now);
        if due && self.phase == Phase::Working { self.declare(session) } else { Ok(()) }
    }

    /// What the job needs and could not have when it was last tried.
    pub(super) fn lacking(&self) -> Option<&String> {
        self.declared.lacking.as_ref()
    }
}
