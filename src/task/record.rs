//! What is recorded of an attempt, the proof that it is, and the copy that a failure owes.

use std::sync::Arc;
use std::time::Duration;

use super::{Exit, Failure, MessageKey, Properties, Task, UnixMillis};

/// What a failed attempt demands: the copy's destination, decided once and stored, so that a redelivery after a
/// crash publishes the same copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Demand {
    /// Another attempt after this delay.
    Retry {
        /// Whole seconds on the delay ladder.
        delay: Duration,
    },
    /// The dead-letter queue.
    Dead,
}

/// A failed attempt as it is stored: enough to build its copy again without running anything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailedAttempt {
    /// How it failed.
    pub failure: Failure,
    /// What it demands.
    pub demand: Demand,
    /// When it failed.
    pub at: UnixMillis,
}

/// What is committed about one finished attempt before anything is published or acknowledged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The in-flight entry that waits for the commit.
    pub ticket: Ticket,
    /// The key; a message without one leaves no row, but takes the same way.
    pub key: Option<MessageKey>,
    /// The attempt.
    pub attempt: u32,
    /// What is recorded of it.
    pub what: Recorded,
    /// When it ended.
    pub at: UnixMillis,
    /// How long it ran; zero where it did not.
    pub ran: Duration,
    /// How its process ended, where one ended.
    pub exit: Option<Exit>,
    /// When the message was first seen by any worker.
    pub first_seen: UnixMillis,
}

/// What the store knows, or is told, about one attempt of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Recorded {
    /// The key is done; no attempt of it runs again.
    Done,
    /// This attempt failed; its copy may not have been published.
    Failed(FailedAttempt),
    /// This attempt failed and the broker confirmed its copy.
    Forwarded,
}

/// Names one in-flight entry of one job for the life of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ticket(pub u64);

/// Proof that records are durable. Acknowledging asks for it, and only the store can make one.
///
/// A test reads the sources and keeps [`Committed::attest`] out of every module but the recorder (and the simulator's
/// store).
#[derive(Debug)]
pub struct Committed {
    tickets: Vec<Ticket>,
}

impl Committed {
    /// Called by the recorder once the commit of these tickets' records returned.
    pub fn attest(tickets: Vec<Ticket>) -> Self {
        Self { tickets }
    }

    /// The tickets whose records are durable.
    pub fn tickets(&self) -> &[Ticket] {
        &self.tickets
    }
}

/// Where a copy goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// The delay ladder, then the work queue of this name.
    Delay {
        /// The work queue that the copy returns to.
        queue: Arc<str>,
        /// Whole seconds, at least 1.
        delay: Duration,
    },
    /// A queue, through the default exchange.
    Queue(Arc<str>),
}

/// The message that a failed attempt puts on the ladder or into the dead-letter queue.
#[derive(Debug, Clone)]
pub struct Copy {
    /// The in-flight entry that waits for the confirm.
    pub ticket: Ticket,
    /// Where it goes.
    pub to: Destination,
    /// Its properties, with the headers of a copy.
    pub properties: Properties,
    /// The task whose body it carries.
    pub task: Arc<Task>,
}
