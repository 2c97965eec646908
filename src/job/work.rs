//! Step 2: tasks go to free workers and come back with an outcome.

use std::borrow::Cow;

use log::{debug, error, info, warn};

use super::workers::{Batch, Finished};
use super::{Job, Phase, queue_name};
use crate::config::{Handler, InDoubt};
use crate::policy::gate::{Allowed, Turn};
use crate::policy::inflight::Ended;
use crate::policy::{reply, retry};
use crate::store::Attempt;
use crate::task::{Answer, Demand, ErrorClass, FailedAttempt, Failure, Outcome, Reply, Task, Ticket};

/// Tasks of one worker thread, of a handler that answers fast, that may wait for their record.
const UNRECORDED: usize = 16;
/// Why a request is not handled any more.
const EXPIRED: &str = "its expiration passed while it waited for a worker: nobody waits for the answer any more";

impl Job {
    /// Step 2: gives batches of tasks to idle workers.
    pub(super) fn dispatch(&mut self) {
        let most = match self.allowed() {
            Allowed::Everything => self.config.handler.batch(),
            Allowed::OneProbe => 1,
            Allowed::Nothing => 0,
        };
        while self.phase == Phase::Working && !self.lingers(most) {
            let batch = self.next_batch(most.min(self.room()));
            if batch.is_empty() {
                return;
            }
            match self.config.in_doubt {
                InDoubt::Dead => self.starts.push(batch.into_iter().map(|(ticket, _)| ticket).collect()),
                InDoubt::Run => self.workers.run(batch),
            }
        }
    }

    /// How many tasks may start now: none where no worker takes a batch.
    ///
    /// What ended counts until its record is durable. So a crash costs a job of commands at most `concurrency` runs, and a
    /// disk that takes no records soon stops all handlers. Workers and web services answer so fast that they would mostly
    /// wait for the disk; they go on, and a crash may repeat as much again, at least [`UNRECORDED`] for each thread.
    pub(super) fn room(&self) -> usize {
        let threads = self.config.concurrency;
        let limit = match (self.allowed(), &self.config.handler) {
            (Allowed::Nothing, _) => 0,
            (Allowed::OneProbe, _) => 1,
            (Allowed::Everything, Handler::Worker(worker)) => threads * (worker.batch + worker.batch.max(UNRECORDED)),
            (Allowed::Everything, Handler::Http(_)) => threads * (1 + UNRECORDED),
            (Allowed::Everything, Handler::Command(_) | Handler::Forward(_) | Handler::Discard) => threads,
        };
        // What waits for its start to be recorded has a worker already.
        let free = self.workers.free().saturating_sub(self.starts.len() + self.starting.len());
        let census = self.machine.census();
        // What only owes its reply has left its worker.
        let under_way = (census.running + census.recording).saturating_sub(self.owed.len());
        if free == 0 { 0 } else { limit.saturating_sub(under_way) }
    }

    /// Whether the next batch, which would not be full, still waits for more.
    fn lingers(&mut self, most: usize) -> bool {
        let linger = self.config.handler.linger();
        let waiting = self.schedule.len();
        if linger.is_zero() || waiting == 0 || waiting >= most || self.room() == 0 {
            self.lingering = None;
            return false;
        }
        let since = *self.lingering.get_or_insert(self.now);
        self.now < since + linger
    }

    fn next_batch(&mut self, most: usize) -> Batch {
        self.lingering = None;
        let mut batch = Vec::new();
        while batch.len() < most {
            let Some(ticket) = self.schedule.pop() else {
                break;
            };
            let Some(task) = self.machine.task(ticket) else {
                continue;
            };
            if task.deadline.is_some_and(|deadline| deadline <= self.at) {
                let failure = Failure { class: ErrorClass::Expired, error: EXPIRED.to_owned() };
                self.fail(ticket, &task, retry::judge_dead(failure, self.at));
                continue;
            }
            self.machine.start(ticket);
            self.timing.starts(self.now, &task);
            self.gate.started(ticket);
            batch.push((ticket, task));
        }
        batch
    }

    /// The starts of a batch are durable: it runs, unless the job was told to stop meanwhile.
    pub(super) fn run_started(&mut self, tickets: Vec<Ticket>) {
        let mut batch = Vec::new();
        for ticket in tickets {
            match self.machine.task(ticket) {
                Some(task) if self.takes() => batch.push((ticket, task)),
                Some(_) | None => self.hand_back_unstarted(ticket),
            }
        }
        if !batch.is_empty() {
            self.workers.run(batch);
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

    pub(super) fn on_finished(&mut self, finished: Finished) {
        let Finished { ticket, answer, ran } = finished;
        let Answer { outcome, exit, reply, delay } = answer;
        self.timing.ran(self.now, ran);
        match self.gate.ended(self.now, ticket, &outcome) {
            Turn::None => {}
            Turn::Opened => {
                info!(job = &*self.config.name; "job {}: the handler works again", self.config.name);
                self.subscriptions.renew();
            }
            Turn::Closed => {
                error!(job = &*self.config.name; "job {} pauses, {}", self.config.name, self.gate.explain().unwrap_or_default());
                self.hand_back_queued();
            }
        }
        let Some(task) = self.machine.task(ticket) else {
            return;
        };
        self.machine.ran(ticket, ran, exit);
        match outcome {
            Outcome::Done => self.done(ticket, &task, reply),
            Outcome::Retry(failure) => {
                self.counters.crashed += u64::from(failure.class == ErrorClass::Crashed);
                let judged = retry::judge_retry(&self.config.retry, &task, failure, delay, fastrand::f64(), self.at);
                self.fail(ticket, &task, judged);
            }
            Outcome::Dead(failure) => {
                self.fail(ticket, &task, retry::judge_dead(failure, self.at));
            }
            Outcome::Broken(reason) => {
                self.counters.last_error = Some((self.at, reason));
                self.hand_back_unstarted(ticket);
            }
            Outcome::NotBegun => self.hand_back_unstarted(ticket),
            Outcome::Interrupted(why) => match self.config.in_doubt {
                InDoubt::Run => self.hand_back(ticket),
                InDoubt::Dead => {
                    let failure = in_doubt(why);
                    self.fail(ticket, &task, retry::judge_dead(failure, self.at));
                }
            },
        }
    }

    pub(super) fn done(&mut self, ticket: Ticket, task: &Task, reply: Option<Reply>) {
        let (job, attempt) = (&*self.config.name, task.attempt);
        debug!(
            job, queue = queue_name(&self.config, task.queue), key = key_text(task), attempt,
            duration_ms = self.duration_ms(ticket);
            "job {job}: attempt {attempt} of {} is done", key_text(task)
        );
        self.counters.done += 1;
        self.timing.done(self.at, task);
        self.rate.add(self.now, 1);
        let letter = if self.config.reply { reply::done(task, reply) } else { None };
        self.conclude(ticket, Ended::Done, letter);
    }

    pub(super) fn fail(&mut self, ticket: Ticket, task: &Task, failed: FailedAttempt) {
        self.log_failure(ticket, task, &failed);
        match failed.demand {
            Demand::Retry { .. } => self.counters.retried += 1,
            Demand::Dead => self.counters.dead[failed.failure.class as usize] += 1,
        }
        self.counters.last_error = Some((self.at, failed.failure.error.clone()));
        let is_last = self.config.reply && failed.demand == Demand::Dead;
        let letter = if is_last { reply::failed(task, &failed.failure) } else { None };
        self.conclude(ticket, Ended::Failed(failed), letter);
    }

    fn log_failure(&self, ticket: Ticket, task: &Task, failed: &FailedAttempt) {
        let (job, queue) = (&*self.config.name, queue_name(&self.config, task.queue));
        let (attempt, error, class) = (task.attempt, &failed.failure.error, failed.failure.class);
        let key = key_text(task);
        // "failed (failed)" would say nothing twice.
        let said = if class == ErrorClass::Failed { String::new() } else { format!(" ({})", class.as_str()) };
        let (class, duration_ms) = (class.as_str(), self.duration_ms(ticket));
        match failed.demand {
            Demand::Retry { delay } => {
                let delay_s = delay.as_secs();
                info!(
                    job, queue, key, attempt, class, duration_ms, delay_s;
                    "job {job}: attempt {attempt} of {key} failed{said}, again in {delay_s} s: {error}"
                );
            }
            Demand::Dead => {
                let to = &self.config.dead_letter.queue;
                warn!(
                    job, queue, key, attempt, class, duration_ms;
                    "job {job}: attempt {attempt} of {key} failed for good{said}, to {to}: {error}"
                );
            }
        }
    }

    /// How long it ran; 0 where it did not.
    fn duration_ms(&self, ticket: Ticket) -> u64 {
        self.machine.run_time(ticket).map_or(0, |ran| u64::try_from(ran.as_millis()).unwrap_or(u64::MAX))
    }

    pub(super) fn hand_back(&mut self, ticket: Ticket) {
        self.counters.requeued += 1;
        self.machine.finished(ticket, Ended::HandedBack, self.at);
    }

    pub(super) fn hand_back_queued(&mut self) {
        self.lingering = None;
        for ticket in std::mem::take(&mut self.starts).into_iter().flatten() {
            self.hand_back(ticket);
        }
        for ticket in self.schedule.clear() {
            self.hand_back(ticket);
        }
    }
}

/// The key for the log.
fn key_text(task: &Task) -> Cow<'_, str> {
    task.key.as_ref().map_or(Cow::Borrowed("-"), |key| key.to_text().into())
}

/// An attempt of which nobody knows how far it came.
pub(super) fn in_doubt(error: &str) -> Failure {
    Failure { class: ErrorClass::InDoubt, error: error.to_owned() }
}
