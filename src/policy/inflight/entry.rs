//! What the machine keeps for one message.

use std::sync::Arc;
use std::time::Duration;

use super::{Ended, Released};
use crate::task::{DeliveryTag, Exit, FailedAttempt, Task, UnixMillis};

/// One message from its delivery to its ack, or to the loss of its connection.
#[derive(Debug)]
pub(super) struct Entry {
    pub task: Arc<Task>,
    /// The deliveries of this attempt on the present session; none after a disconnect.
    pub tags: Vec<DeliveryTag>,
    pub stage: Stage,
    /// How long it ran, and how its process ended.
    pub ran: Duration,
    pub exit: Option<Exit>,
    /// Deliveries of other attempts of this key, which wait for this one to settle.
    pub held: Vec<Released>,
}

/// How far it came.
#[derive(Debug)]
pub(super) enum Stage {
    Queued,
    Running,
    /// Waits in `finished` for the next batch of records.
    Finished(Ended, UnixMillis),
    /// Sent to the recorder.
    Recording(Ended),
    /// Committed; waits for the confirm of its copy.
    Forwarding(FailedAttempt),
}

impl Entry {
    pub fn new(task: Arc<Task>, tag: DeliveryTag, stage: Stage) -> Self {
        Self { task, tags: vec![tag], stage, ran: Duration::ZERO, exit: None, held: Vec::new() }
    }
}

impl Stage {
    /// What an entry is at, to go after "is".
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Queued => "waiting for a worker",
            Self::Running => "running",
            Self::Finished(..) | Self::Recording(_) => "being recorded",
            Self::Forwarding(_) => "waiting for the broker to confirm its copy",
        }
    }
}
