//! Step 2: tasks go to free workers and come back with an outcome.

use log::{error, info, warn};

use super::workers::Finished;
use super::{Job, Phase};
use crate::config::InDoubt;
use crate::policy::gate::{Allowed, Turn};
use crate::policy::inflight::Ended;
use crate::policy::retry;
use crate::store::Attempt;
use crate::task::{Demand, ErrorClass, FailedAttempt, Failure, Outcome, Task, Ticket};

impl Job {
    /// Step 2: gives tasks to free workers.
    pub(super) fn dispatch(&mut self) {
        let limit = match self.allowed() {
            Allowed::Everything => self.config.concurrency,
            Allowed::OneProbe => 1,
            Allowed::Nothing => 0,
        };
        while self.phase == Phase::Working && self.busy() < limit {
            let Some(ticket) = self.schedule.pop() else {
                return;
            };
            let Some(task) = self.machine.start(ticket) else {
                continue;
            };
            self.wait_time.add(self.now, self.now - task.received);
            self.gate.started(ticket);
            match self.config.in_doubt {
                // Without a key nobody could know it again.
                InDoubt::Dead if task.key.is_some() => self.starts.push(ticket),
                InDoubt::Dead | InDoubt::Run => self.workers.run(ticket, task),
            }
        }
    }

    /// The start of an attempt is durable: it runs, unless the job was told to stop meanwhile.
    pub(super) fn run_started(&mut self, ticket: Ticket) {
        match self.machine.task(ticket) {
            Some(task) if self.takes() => self.workers.run(ticket, task),
            Some(_) | None => self.hand_back_unstarted(ticket),
        }
    }

    /// The key and attempt of an entry.
    pub(super) fn attempt(&self, ticket: Ticket) -> Option<Attempt> {
        let task = self.machine.task(ticket)?;
        Some(Attempt { key: task.key.clone()?, attempt: task.attempt })
    }

    /// Hands back what did not run. Where its start was recorded, that is taken back.
    fn hand_back_unstarted(&mut self, ticket: Ticket) {
        if self.config.in_doubt == InDoubt::Dead {
            self.unstarted.extend(self.attempt(ticket));
        }
        self.hand_back(ticket);
    }

    /// Workers that have no time. One counts as busy until the record of its last task is durable, so that a crash costs
    /// at most `concurrency` runs, and a disk that takes no records soon stops the handlers too.
    pub(super) fn busy(&self) -> usize {
        let census = self.machine.census();
        census.running + census.recording
    }

    pub(super) fn on_finished(&mut self, finished: Finished) {
        let Finished { ticket, outcome, ran } = finished;
        self.run_time.add(self.now, ran);
        match self.gate.ended(self.now, ticket, &outcome) {
            Turn::None => {}
            Turn::Opened => {
                info!("job {}: the handler works again", self.config.name);
                self.subscriptions.renew();
            }
            Turn::Closed => {
                error!("job {} pauses, {}", self.config.name, self.gate.explain().unwrap_or_default());
                self.hand_back_queued();
            }
        }
        let Some(task) = self.machine.task(ticket) else {
            return;
        };
        self.machine.ran(ticket, ran);
        match outcome {
            Outcome::Done => self.done(ticket),
            Outcome::Retry(failure) => {
                self.counters.crashed += u64::from(failure.class == ErrorClass::Crashed);
                let judged = retry::judge_retry(&self.config.retry, &task, failure, fastrand::f64(), self.at);
                self.fail(ticket, &task, judged);
            }
            Outcome::Dead(failure) => {
                self.fail(ticket, &task, retry::judge_dead(failure, self.at));
            }
            Outcome::Broken(reason) => {
                self.counters.last_error = Some(reason);
                self.hand_back_unstarted(ticket);
            }
            Outcome::Interrupted => match self.config.in_doubt {
                InDoubt::Run => self.hand_back(ticket),
                InDoubt::Dead => {
                    let failure = in_doubt("the handler was ended when the daemon stopped");
                    self.fail(ticket, &task, retry::judge_dead(failure, self.at));
                }
            },
        }
    }

    pub(super) fn done(&mut self, ticket: Ticket) {
        self.counters.done += 1;
        self.rate.add(self.now, 1);
        self.machine.finished(ticket, Ended::Done, self.at);
    }

    pub(super) fn fail(&mut self, ticket: Ticket, task: &Task, failed: FailedAttempt) {
        let (job, error) = (&self.config.name, failed.failure.error.escape_debug());
        let class = failed.failure.class;
        // "failed (failed)" would say nothing twice.
        let class = if class == ErrorClass::Failed { String::new() } else { format!(" ({})", class.as_str()) };
        let key = task.key.as_ref().map_or_else(|| "-".to_owned(), |key| key.to_text().escape_debug().to_string());
        match failed.demand {
            Demand::Retry { delay } => {
                self.counters.retried += 1;
                let delay = delay.as_secs();
                info!("job {job}: attempt {} of {key} failed{class}, again in {delay} s: {error}", task.attempt);
            }
            Demand::Dead => {
                self.counters.dead += 1;
                let queue = &self.config.dead_letter.queue;
                warn!("job {job}: attempt {} of {key} failed for good{class}, to {queue}: {error}", task.attempt);
            }
        }
        self.counters.last_error = Some(failed.failure.error.clone());
        self.machine.finished(ticket, Ended::Failed(failed), self.at);
    }

    pub(super) fn hand_back(&mut self, ticket: Ticket) {
        self.counters.requeued += 1;
        self.machine.finished(ticket, Ended::HandedBack, self.at);
    }

    pub(super) fn hand_back_queued(&mut self) {
        for ticket in std::mem::take(&mut self.starts) {
            self.hand_back(ticket);
        }
        for ticket in self.schedule.clear() {
            self.hand_back(ticket);
        }
    }
}

/// An attempt of which nobody knows how far it came.
pub(super) fn in_doubt(error: &str) -> Failure {
    Failure { class: ErrorClass::InDoubt, error: error.to_owned() }
}
