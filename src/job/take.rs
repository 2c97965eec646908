//! Step 1: deliveries come in, and what the store and the flight know of each decides what becomes of it.

use std::sync::Arc;

use super::work::in_doubt;
use super::{DEAF, Exit, Job, Phase};
use crate::broker::{Incoming, Session};
use crate::config::Handler;
use crate::policy::arrive;
use crate::policy::gate::Allowed;
use crate::policy::inflight::{Arrived, Ended, Released};
use crate::policy::retry;
use crate::task::{DeliveryTag, Recorded, Task};

/// Deliveries taken in one go: they share one read transaction of the store.
const TAKE: usize = 1024;

/// A delivery on its way into the machine.
type Arriving = (DeliveryTag, Arc<Task>);

impl Job {
    /// Takes what the session has, fairly over its queues.
    pub(super) fn on_session(&mut self, session: &mut Session<'_>) -> Result<(), Exit> {
        self.deaf_until = self.now + DEAF;
        for queue in 0..self.config.queues.len() {
            let mut arrivals = Vec::new();
            while arrivals.len() < TAKE {
                match session.next(queue) {
                    Some(Incoming::Arrival { tag, message }) => {
                        let task = arrive::read(&self.config, queue, message, self.now, self.at);
                        arrivals.push((tag, Arc::new(task)));
                    }
                    Some(Incoming::Cancelled(queue)) => self.on_cancelled(queue),
                    Some(Incoming::Lost(error)) => return Err(Exit::Lost(error)),
                    None => break,
                }
            }
            if !arrivals.is_empty() {
                self.stalls.arrived(queue, self.now);
                self.on_deliveries(arrivals)?;
            }
        }
        Ok(())
    }

    /// Step 1: what the store and the flight know of each message decides what becomes of it.
    pub(super) fn on_deliveries(&mut self, arrivals: Vec<Arriving>) -> Result<(), Exit> {
        self.last_delivery = self.now;
        let mut known = self.look_up(arrivals.iter().map(|(_, task)| task))?.into_iter();
        for (tag, task) in arrivals {
            self.counters.received += 1;
            let known = if task.key.is_some() { known.next().flatten() } else { None };
            let arrived = self.machine.delivered(self.now, tag, Arc::clone(&task), known.as_ref());
            self.on_arrived(arrived, &task);
        }
        Ok(())
    }

    pub(super) fn look_up<'t>(
        &self,
        tasks: impl Iterator<Item = &'t Arc<Task>>,
    ) -> Result<Vec<Option<Recorded>>, Exit> {
        let keys = tasks.filter_map(|task| Some((task.key.as_ref()?, task.attempt)));
        self.wiring.reader.look_up(keys).map_err(Exit::StoreFailed)
    }

    pub(super) fn on_arrived(&mut self, arrived: Arrived, task: &Arc<Task>) {
        match arrived {
            Arrived::Run(ticket) if !self.takes() => {
                self.counters.requeued += 1;
                self.machine.finished(ticket, Ended::HandedBack, self.at);
            }
            Arrived::Run(ticket) if self.is_in_doubt(task) => {
                let failure = in_doubt("the daemon or the machine died while this attempt ran");
                self.fail(ticket, task, retry::judge_dead(failure, self.at));
            }
            Arrived::Run(ticket) => match (&task.unfit, &self.config.handler) {
                (Some(failure), _) => self.fail(ticket, task, retry::judge_dead(failure.clone(), self.at)),
                (None, Handler::Discard) => {
                    self.timing.starts(self.now, task);
                    self.done(ticket, task, None);
                }
                (None, Handler::Command(_) | Handler::Worker(_) | Handler::Http(_) | Handler::Forward(_)) => {
                    self.schedule.push(task.queue, task.priority, ticket);
                }
            },
            Arrived::Forward(ticket) => self.owe_copy(ticket),
            Arrived::Duplicate | Arrived::Joined => self.counters.duplicates += 1,
            Arrived::Adopted | Arrived::Held => {}
        }
    }

    /// Whether messages may be taken: neither draining, nor paused, nor behind a closed gate.
    pub(super) fn takes(&self) -> bool {
        self.phase == Phase::Working && self.allowed() != Allowed::Nothing
    }

    /// What the gate allows, who paused the job by hand, and the disk.
    pub(super) fn allowed(&self) -> Allowed {
        if self.pause.is_some() || self.store_full { Allowed::Nothing } else { self.gate.allowed() }
    }

    fn is_in_doubt(&self, task: &Task) -> bool {
        task.key.as_ref().is_some_and(|key| self.wiring.reader.is_in_doubt(key, task.attempt))
    }

    /// Deliveries that waited for another attempt of their key.
    pub(super) fn judge_released(&mut self) -> Result<(), Exit> {
        for released in self.machine.released() {
            if !self.takes() {
                self.machine.hand_back_released(&released);
                continue;
            }
            let task = Arc::clone(&released.task);
            let known = self.look_up(std::iter::once(&task))?.pop().flatten();
            let Released { tag, task: held } = released;
            let arrived = self.machine.judge_again(self.now, Released { tag, task: held }, known.as_ref());
            self.on_arrived(arrived, &task);
        }
        Ok(())
    }
}
