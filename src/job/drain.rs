//! What the job is told and asked, and its orderly end.

use std::time::{Duration, Instant};

use log::debug;

use super::{Command, Exit, Job, Phase};
use crate::broker::Session;
use crate::task::MessageKey;

/// Beyond `shutdown.timeout`: what handlers get to die, and the last records and acks to go out.
pub const LAST_WORDS: Duration = Duration::from_secs(5);

/// Beyond `shutdown.timeout`: what the last copies get to be confirmed.
const LAST_COPIES: Duration = Duration::from_secs(2);

impl Job {
    /// The end of a drain: at its deadline running handlers are ended, and soon after that it is over.
    pub(super) fn keep_phase(&mut self) {
        if let Phase::Draining(until) = &mut self.phase
            && self.patient
        {
            // Each handler has its own timeout. What ran must be recorded too, or the next one of this job would run it again.
            let census = self.machine.census();
            let runs = (census.running + census.recording).saturating_sub(self.owed.len());
            if runs > 0 || self.recording {
                *until = (*until).max(self.now + LAST_WORDS);
            }
        }
        if let Phase::Draining(until) = self.phase
            && self.now >= until
            && !self.workers.stop.is_raised()
        {
            self.workers.stop.raise();
        }
        if let Phase::Draining(until) = self.phase
            && self.now >= until + LAST_COPIES
        {
            self.give_up_replies();
        }
    }

    pub(super) fn check_drained(&mut self) -> Result<(), Exit> {
        let Phase::Draining(until) = self.phase else {
            return Ok(());
        };
        let census = self.machine.census();
        let works = census.queued + census.running + census.recording;
        let recorded = works == 0
            && !self.recording
            && self.records.is_empty()
            && self.marks.is_empty()
            && self.unstarted.is_empty();
        // A copy that cannot be published soon after the deadline stays owed: its message goes back to its queue, and the
        // record makes the next start publish it.
        let forwarded = census.forwarding == 0 || self.now >= until + LAST_COPIES;
        if (recorded && forwarded) || self.now >= until + LAST_WORDS {
            debug!(job = &*self.config.name; "job {}: drained, {census:?}", self.config.name);
            return Err(Exit::Drained);
        }
        Ok(())
    }

    pub(super) fn on_command(&mut self, command: Command, session: Option<&mut Session<'_>>) -> Result<(), Exit> {
        match command {
            Command::Inspect(reply) => {
                // An asker that gave up has dropped its end.
                let _ = reply.try_send(self.inspect(session));
            }
            Command::IsEmpty(reply) => {
                let _ = reply.try_send(self.is_empty(session)?);
            }
            Command::Find(key, reply) => {
                let _ = reply.try_send(self.machine.find(&key));
            }
            Command::Forget(key, reply) => {
                let _ = reply.try_send(self.forget(key.as_ref()));
            }
            Command::Pause(pause) => {
                self.pause = pause;
                if self.pause.is_some() {
                    self.stop_taking(session)?;
                } else {
                    self.subscriptions.start(self.now);
                }
            }
            Command::Drain(until) => self.drain(until, false, session)?,
            Command::Retire(until) => self.drain(until, true, session)?,
            Command::Hurry => {
                if self.phase == Phase::Working {
                    self.hand_back_queued();
                }
                (self.phase, self.patient) = (Phase::Draining(self.now), false);
                self.workers.stop.raise();
            }
        }
        Ok(())
    }

    /// How many messages in flight stand against forgetting a key, or all keys.
    fn forget(&mut self, key: Option<&MessageKey>) -> usize {
        let in_flight = match key {
            Some(key) => usize::from(self.machine.find(key).is_some()),
            None => self.machine.census().total(),
        };
        if in_flight == 0 {
            self.wiring.reader.forget(key);
        }
        in_flight
    }

    fn drain(&mut self, until: Instant, patient: bool, session: Option<&mut Session<'_>>) -> Result<(), Exit> {
        (self.phase, self.patient) = (Phase::Draining(until), patient);
        self.subscriptions.lost();
        self.stop_taking(session)
    }

    /// What waits goes back, and nothing more is delivered.
    pub(super) fn stop_taking(&mut self, session: Option<&mut Session<'_>>) -> Result<(), Exit> {
        self.hand_back_queued();
        session.map_or(Ok(()), |session| self.unsubscribe_all(session))
    }
}
