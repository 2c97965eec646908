//! Consuming: which queues deliver to us, and what is done when one does not.

use std::time::Instant;

use log::{info, warn};

use super::{Exit, Job, Phase, queue_name};
use crate::broker::{BrokerError, Session};
use crate::config;
use crate::policy::backoff::Backoff;
use crate::policy::gate::Allowed;
use crate::task::QueueIndex;

/// The wish and the state of each queue's consumer.
#[derive(Debug)]
pub struct Subscriptions {
    queues: Vec<Subscription>,
    /// Consumers must be made anew because their prefetch changes.
    renew: bool,
}

#[derive(Debug)]
struct Subscription {
    backoff: Backoff,
    /// Not before then; `None` while consuming or without a session.
    due: Option<Instant>,
    /// The queue and its bindings may not be what we declared.
    doubtful: bool,
}

impl Subscriptions {
    /// None yet.
    pub fn new(queues: usize, reconnect: config::Backoff) -> Self {
        let backoff = Backoff::new(reconnect.initial, reconnect.max);
        let queues = (0..queues).map(|_| Subscription { backoff: backoff.clone(), due: None, doubtful: false });
        Self { queues: queues.collect(), renew: false }
    }

    /// A session begins: all are due.
    pub fn start(&mut self, now: Instant) {
        self.renew = false;
        for queue in &mut self.queues {
            queue.due = Some(now);
        }
    }

    /// The session is over, or nothing may be consumed: none is due.
    pub fn lost(&mut self) {
        self.queues.iter_mut().for_each(|queue| queue.due = None);
    }

    /// The prefetch changes.
    pub fn renew(&mut self) {
        self.renew = true;
    }

    /// What could not be consumed may be there now.
    pub fn hasten(&mut self, now: Instant) {
        self.queues.iter_mut().filter_map(|queue| queue.due.as_mut()).for_each(|due| *due = now);
    }

    /// When the next subscription is due.
    pub fn deadline(&self) -> Option<Instant> {
        self.queues.iter().filter_map(|queue| queue.due).min()
    }

    fn fail(&mut self, queue: QueueIndex) {
        let queue = &mut self.queues[queue];
        queue.due = Some(Instant::now() + queue.backoff.next(fastrand::f64()));
    }
}

impl Job {
    /// Makes the consumers agree with what is allowed: all, one message at a time, or none.
    pub(super) fn keep_subscribed(&mut self, session: &mut Session<'_>) -> Result<(), Exit> {
        if self.phase != Phase::Working {
            return Ok(());
        }
        let prefetch = match self.allowed() {
            Allowed::Nothing => {
                self.tell_connected();
                self.subscriptions.lost();
                return self.unsubscribe_all(session);
            }
            Allowed::OneProbe => 1,
            Allowed::Everything => self.prefetch.get(),
        };
        if self.subscriptions.renew {
            self.unsubscribe_all(session)?;
            self.subscriptions.start(self.now);
        }
        for queue in 0..self.config.queues.len() {
            if self.subscriptions.queues[queue].due.is_some_and(|due| due <= self.now) {
                self.subscribe(session, queue, prefetch)?;
            }
        }
        Ok(())
    }

    fn subscribe(&mut self, session: &mut Session<'_>, queue: QueueIndex, prefetch: u16) -> Result<(), Exit> {
        // A queue whose consumer ended may be gone, or be another one of the same name that lacks our bindings: it would be
        // consumed, but every retry would be lost at the end of its delay.
        if self.subscriptions.queues[queue].doubtful {
            self.declare(session)?;
        }
        match session.subscribe(queue, prefetch) {
            Ok(()) => {
                let subscription = &mut self.subscriptions.queues[queue];
                (subscription.due, subscription.doubtful) = (None, false);
                subscription.backoff.reset();
                self.stalls.subscribed(queue, self.now, fastrand::f64());
                self.trouble = None;
                self.tell_connected();
                Ok(())
            }
            Err(error @ BrokerError::Topology { .. }) => {
                // A queue that could not be declared is told of already.
                if self.lacking().is_none() {
                    self.tell_trouble(&error);
                }
                self.subscriptions.queues[queue].doubtful = true;
                self.subscriptions.fail(queue);
                Ok(())
            }
            Err(error) => Err(Exit::Lost(error)),
        }
    }

    /// The broker ended a consumer: the queue was deleted, or its leader moved. That is normal life.
    pub(super) fn on_cancelled(&mut self, queue: QueueIndex) {
        let (job, name) = (&*self.config.name, queue_name(&self.config, queue));
        warn!(job, queue = name; "job {job}: the broker ended the consumer of {name}");
        let subscription = &mut self.subscriptions.queues[queue];
        (subscription.due, subscription.doubtful) = (Some(Instant::now()), true);
        self.stalls.unsubscribed(queue);
    }

    pub(super) fn unsubscribe_all(&mut self, session: &mut Session<'_>) -> Result<(), Exit> {
        for queue in 0..self.config.queues.len() {
            if session.is_subscribed(queue) {
                session.unsubscribe(queue).map_err(Exit::Lost)?;
                self.stalls.unsubscribed(queue);
                let (job, name) = (&*self.config.name, queue_name(&self.config, queue));
                info!(job, queue = name; "job {job}: stopped consuming {name}");
            }
        }
        // What came before the broker confirmed is handed back as it is read.
        self.on_session(session)
    }
}
