//! How many messages are in flight, by what they wait for.

use super::Stage;

/// Entries by what they wait for; the parts of "in flight".
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Census {
    /// For a worker.
    pub queued: usize,
    /// For the handler.
    pub running: usize,
    /// For the commit of their record.
    pub recording: usize,
    /// For the confirm of their copy.
    pub forwarding: usize,
    /// For another attempt of their key.
    pub held: usize,
    /// Settled deliveries that wait for their ack.
    pub acking: usize,
}

impl Census {
    /// Whether nothing is in flight.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Messages in flight.
    pub fn total(&self) -> usize {
        let Self { queued, running, recording, forwarding, held, acking } = self;
        queued + running + recording + forwarding + held + acking
    }

    pub(super) fn count(&mut self, stage: &Stage) -> &mut usize {
        match stage {
            Stage::Queued => &mut self.queued,
            Stage::Running => &mut self.running,
            Stage::Finished(..) | Stage::Recording(_) => &mut self.recording,
            Stage::Forwarding(_) => &mut self.forwarding,
        }
    }

    pub(super) fn shift(&mut self, stage: &mut Stage, to: Stage) {
        *self.count(stage) -= 1;
        *stage = to;
        *self.count(stage) += 1;
    }
}
