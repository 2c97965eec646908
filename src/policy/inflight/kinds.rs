//! What goes into the machine and what comes out of it.

use std::sync::Arc;
use std::time::Duration;

use crate::task::{DeliveryTag, FailedAttempt, MessageKey, Task, Ticket};

/// When acks are sent; see `[jobs.NAME.ack]`.
#[derive(Debug, Clone, Copy)]
pub struct AckPolicy {
    /// Sent once this many settled deliveries of a queue wait.
    pub batch: usize,
    /// And at the latest this long after the first of them.
    pub interval: Duration,
}

/// What a delivery leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrived {
    /// A new attempt: run it.
    Run(Ticket),
    /// This attempt failed before, and its copy may not have been published: publish it, do not run.
    Forward(Ticket),
    /// The key is done, or the copy of this attempt is confirmed: nothing but an ack.
    Duplicate,
    /// A second copy of an attempt that is in flight here; it shares that one's fate.
    Joined,
    /// The attempt in flight here had lost its tag in a reconnect and goes on with this one.
    Adopted,
    /// Another attempt of the key is in flight; this one is judged again when that has settled.
    Held,
}

/// How a run ended, as judged by the retry policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// Handled.
    Done,
    /// Failed; the copy goes where the record says.
    Failed(FailedAttempt),
    /// Not a run that counts: the message goes back to its queue.
    HandedBack,
}

/// A committed failure whose copy is to be published.
#[derive(Debug, Clone)]
pub struct Demanded {
    /// The entry.
    pub ticket: Ticket,
    /// The message.
    pub task: Arc<Task>,
    /// What the record says.
    pub failed: FailedAttempt,
}

/// The failed attempt whose copy the broker has confirmed; stored so that a later twin of it is known as one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    /// The key.
    pub key: MessageKey,
    /// The attempt that failed.
    pub attempt: u32,
}

/// A delivery that had to wait for another attempt of its key, to be judged again with a fresh look at the store.
#[derive(Debug)]
pub struct Released {
    /// Its tag.
    pub tag: DeliveryTag,
    /// Its task.
    pub task: Arc<Task>,
}
