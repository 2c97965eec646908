//! The loop of one job: the thread that owns everything about it.
//!
//! A message takes this way, and [`Job::settle`] is the one place where its last three steps happen, in this order:
//!
//! 1. arrive: [`Job::on_deliveries`] reads key and attempt and asks the store what it knows,
//! 2. run: [`Job::dispatch`] picks the next task for a free worker, [`Job::on_finished`] judges its outcome,
//! 3. record: the recorder commits, [`Job::on_committed`] learns of it,
//! 4. publish: failed attempts' copies go to the publisher, [`Job::on_published`] learns of the confirm,
//! 5. acknowledge.
//!
//! The loop is [`Job::next_event`], one wait over everything that can happen, then [`Job::on_event`], then `settle`,
//! which restores the invariants after every event. What may happen is decided in `policy`; this file carries it out.
//! The loop never blocks on a send: every channel that it sends on has room for all that its counterpart can owe.

mod counters;
mod inspect;
mod link;
mod subscribe;
mod workers;

use std::collections::VecDeque;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Select, Sender};
use log::{debug, error, info, warn};

use crate::broker::publisher::{PublishRequest, Published};
use crate::broker::{BrokerError, Incoming, Link, Session};
use crate::policy::arrive;
use crate::policy::gate::{Allowed, Gate};
use crate::policy::inflight::{AckPolicy, Arrived, Ended, InFlight, Mark, Released};
use crate::policy::retry::{self, CopyFacts};
use crate::policy::schedule::Schedule;
use crate::store::{Batch, JobId, Reader, Request};
use crate::task::{
    Committed, Copy, Demand, ErrorClass, FailedAttempt, Outcome, QueueIndex, Record, Recorded,
    Task, Ticket, UnixMillis,
};
use crate::{config, failpoint, report};
use counters::{Counters, Durations, Rate};
use link::Linking;
use subscribe::Subscriptions;
use workers::{Finished, Workers};

/// The loop wakes at least this often, to say that it lives.
const TICK: Duration = Duration::from_secs(1);
/// Deliveries taken in one go: they share one read transaction of the store.
const TAKE: usize = 256;
/// Copies that one job may have at the publisher; the reply channel has room for all of them.
pub const COPY_CREDIT: usize = 256;
/// Pause after the broker refused a copy.
const REFUSED_PAUSE: Duration = Duration::from_secs(2);
/// Beyond `shutdown.timeout`: what handlers get to die, and the last records and acks to go out.
pub const LAST_WORDS: Duration = Duration::from_secs(5);

/// What a job thread can be told or asked.
#[derive(Debug)]
pub enum Command {
    /// Say how it is.
    Inspect(Sender<Inspection>),
    /// Say whether nothing is left to do: queues, delay ladder and flight are empty.
    IsEmpty(Sender<bool>),
    /// Stop taking, let running handlers finish until then, give back the rest, end.
    Drain(Instant),
    /// End running handlers now; what is finished is still recorded.
    Hurry,
}

/// A job's answer to [`Command::Inspect`].
#[derive(Debug)]
pub struct Inspection {
    /// For `status`.
    pub report: report::Job,
    /// Its connection; absent while there is none.
    pub link: Option<LinkReport>,
    /// One sentence each.
    pub problems: Vec<String>,
}

/// A job's connection.
#[derive(Debug)]
pub struct LinkReport {
    /// `host:port`
    pub host: String,
    /// Virtual host.
    pub vhost: String,
    /// Product and version.
    pub server: String,
}

/// What a job needs from the daemon.
pub struct Wiring {
    /// `[broker]`
    pub broker: Arc<config::Broker>,
    /// The job's number in the store.
    pub id: JobId,
    /// Its own look at the store.
    pub reader: Reader,
    /// To the recorder.
    pub recorder: Sender<Request>,
    /// To the publisher.
    pub publisher: Sender<PublishRequest>,
    /// This host's name, for dead letters.
    pub host: String,
    /// Ticks at each turn of the loop, for the watchdog.
    pub beat: Box<dyn Fn() + Send>,
    /// Dropped when the thread ends.
    pub alive: Box<dyn Send>,
}

/// A running job thread.
#[derive(Debug)]
pub struct JobHandle {
    /// Its name.
    pub name: Arc<str>,
    /// Bounded; senders give up after a while.
    pub commands: Sender<Command>,
    /// Joins when the job has drained.
    pub thread: JoinHandle<()>,
}

/// Starts the thread `job:<name>` and its workers.
pub fn spawn(config: config::Job, wiring: Wiring) -> std::io::Result<JobHandle> {
    let name = Arc::clone(&config.name);
    // Commands are rare: a few inspections at once, a drain, a hurry.
    let (commands, inbox) = crossbeam_channel::bounded(16);
    let workers = Workers::spawn(&config)?;
    let job = Job::new(config, wiring, workers, inbox);
    let thread = std::thread::Builder::new()
        .name(format!("job:{name}"))
        .spawn(move || job.run())?;
    Ok(JobHandle {
        name,
        commands,
        thread,
    })
}

/// Everything that can happen to a job.
enum Event {
    /// The session has something to say.
    Session,
    Finished(Finished),
    Committed(Committed),
    Published(Published),
    Command(Command),
    Linked(link::Linked),
    /// A deadline passed.
    Time,
}

/// Why the loop leaves a session, or waits without one no longer.
enum Exit {
    /// The connection is gone or useless: make a new one.
    Lost(BrokerError),
    /// A connection was made.
    Linked(Box<Link>),
    /// The store cannot be read.
    StoreFailed(String),
    /// Nothing is left to do.
    Drained,
}

/// Whether the job takes messages at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Working,
    /// Until then running handlers may finish.
    Draining(Instant),
}

/// The state of one job; its thread owns it and nobody else sees it.
struct Job {
    config: config::Job,
    facts: CopyFacts,
    wiring: Wiring,
    commands: Receiver<Command>,
    workers: Workers,
    phase: Phase,

    machine: InFlight,
    schedule: Schedule,
    gate: Gate,
    subscriptions: Subscriptions,
    linking: Linking,

    /// What the next batch for the recorder will hold, and whether one is under way.
    records: Vec<Record>,
    marks: Vec<Mark>,
    recording: bool,
    proofs: Sender<Committed>,
    committed: Receiver<Committed>,

    /// Copies that wait for credit, how many are at the publisher, and those that the broker refused.
    copies: VecDeque<Copy>,
    publishing: usize,
    refused: Vec<Ticket>,
    refused_until: Option<Instant>,
    confirms: Sender<Published>,
    published: Receiver<Published>,

    counters: Counters,
    rate: Rate,
    run_time: Durations,
    wait_time: Durations,
    counts: inspect::Counted,
    last_delivery: Instant,
    /// What is wrong with the broker or the topology, for `status`.
    trouble: Option<String>,
}

impl Job {
    fn new(
        config: config::Job,
        wiring: Wiring,
        workers: Workers,
        commands: Receiver<Command>,
    ) -> Self {
        let now = Instant::now();
        // One batch at a time, so one proof at a time.
        let (proofs, committed) = crossbeam_channel::bounded(1);
        let (confirms, published) = crossbeam_channel::bounded(COPY_CREDIT);
        let facts = CopyFacts {
            job: Arc::clone(&config.name),
            queues: config
                .queues
                .iter()
                .map(|queue| Arc::clone(&queue.name))
                .collect(),
            dead_letter: Arc::clone(&config.dead_letter.queue),
            host: wiring.host.clone(),
        };
        // Acks must be sent well before the prefetch is used up, or the broker would pause for them. What runs takes its
        // part of it; of the rest, half may wait for its ack while the other half waits to run.
        let spare = usize::from(config.prefetch).saturating_sub(config.concurrency);
        let batch = config.ack.batch.min(spare.div_ceil(2).max(1));
        let policy = AckPolicy {
            batch,
            interval: config.ack.interval,
        };
        Self {
            facts,
            commands,
            workers,
            phase: Phase::Working,
            machine: InFlight::new(config.queues.len(), policy),
            schedule: Schedule::new(config.order, config.queues.iter().map(|queue| queue.weight)),
            gate: Gate::default(),
            subscriptions: Subscriptions::new(config.queues.len(), wiring.broker.reconnect),
            linking: Linking::new(&wiring.broker),
            records: Vec::new(),
            marks: Vec::new(),
            recording: false,
            proofs,
            committed,
            copies: VecDeque::new(),
            publishing: 0,
            refused: Vec::new(),
            refused_until: None,
            confirms,
            published,
            counters: Counters::default(),
            rate: Rate::new(now),
            run_time: Durations::new(now),
            wait_time: Durations::new(now),
            counts: inspect::Counted::default(),
            last_delivery: now,
            trouble: None,
            config,
            wiring,
        }
    }

    /// The thread: session after session until the job has drained.
    fn run(mut self) {
        loop {
            let exit = match self.turn(None) {
                Exit::Linked(link) => self.run_session(*link),
                exit @ (Exit::Lost(_) | Exit::StoreFailed(_) | Exit::Drained) => exit,
            };
            match exit {
                Exit::Drained => break,
                Exit::Lost(error) => self.on_lost(&error),
                Exit::StoreFailed(reason) => {
                    // The recorder meets the same disk; without look-ups nothing may run.
                    error!("job {}: {reason}", self.config.name);
                    break;
                }
                Exit::Linked(_) => unreachable!("a session does not connect"),
            }
        }
        let Self {
            workers, wiring, ..
        } = self;
        workers.stop.raise();
        workers.join();
        drop(wiring.alive);
    }

    /// Turns the loop, with or without a session, until there is a reason to leave.
    fn turn(&mut self, mut session: Option<&mut Session<'_>>) -> Exit {
        loop {
            let step = self.settle(session.as_deref_mut()).and_then(|()| {
                self.check_drained()?;
                let event = self.next_event(session.as_deref());
                self.on_event(event, session.as_deref_mut())
            });
            if let Err(exit) = step {
                return exit;
            }
        }
    }

    /// Waits for whatever comes first, at most until the next deadline.
    fn next_event(&mut self, session: Option<&Session<'_>>) -> Event {
        (self.wiring.beat)();
        let mut select = Select::new();
        select.recv(&self.commands);
        select.recv(&self.workers.finished);
        select.recv(&self.committed);
        select.recv(&self.published);
        select.recv(self.linking.linked());
        if let Some(session) = session {
            session.watch(&mut select);
        }
        let ready = select.ready_deadline(self.deadline(session.is_some()));
        let event = match ready {
            Err(_) => None,
            Ok(0) => self.commands.try_recv().ok().map(Event::Command),
            Ok(1) => self.workers.finished.try_recv().ok().map(Event::Finished),
            Ok(2) => self.committed.try_recv().ok().map(Event::Committed),
            Ok(3) => self.published.try_recv().ok().map(Event::Published),
            Ok(4) => self.linking.linked().try_recv().ok().map(Event::Linked),
            Ok(_) => Some(Event::Session),
        };
        event.unwrap_or(Event::Time)
    }

    /// When something is due that no message announces.
    fn deadline(&self, connected: bool) -> Instant {
        let tick = Some(Instant::now() + TICK);
        let drain = match self.phase {
            Phase::Working => None,
            Phase::Draining(until) => Some(until),
        };
        let only_connected = if connected {
            [self.machine.ack_deadline(), self.subscriptions.deadline()]
        } else {
            [None, None]
        };
        let link = if self.phase == Phase::Working && !connected {
            self.linking.deadline()
        } else {
            None
        };
        let always = [tick, drain, link, self.gate.deadline(), self.refused_until];
        let now = Instant::now();
        // A deadline that has passed and changed nothing must not make the loop spin: it waits at least a millisecond.
        let soonest = always.into_iter().chain(only_connected).flatten().min();
        soonest.map_or(now + TICK, |at| at.max(now + Duration::from_millis(1)))
    }

    fn on_event(&mut self, event: Event, session: Option<&mut Session<'_>>) -> Result<(), Exit> {
        match event {
            Event::Session => session.map_or(Ok(()), |session| self.on_session(session)),
            Event::Finished(finished) => {
                self.on_finished(finished);
                Ok(())
            }
            Event::Committed(committed) => {
                self.on_committed(&committed);
                Ok(())
            }
            Event::Published(published) => {
                self.on_published(published);
                Ok(())
            }
            Event::Command(command) => self.on_command(command, session),
            Event::Linked(linked) => self.on_linked(linked),
            Event::Time => Ok(()),
        }
    }

    /// Takes what the session has, fairly over its queues.
    fn on_session(&mut self, session: &mut Session<'_>) -> Result<(), Exit> {
        for queue in 0..self.config.queues.len() {
            let mut arrivals = Vec::new();
            while arrivals.len() < TAKE {
                match session.next(queue) {
                    Some(Incoming::Arrival { tag, message }) => {
                        let (task, failure) = arrive::read(
                            &self.config,
                            queue,
                            message,
                            Instant::now(),
                            UnixMillis::now(),
                        );
                        arrivals.push((tag, Arc::new(task), failure));
                    }
                    Some(Incoming::Cancelled(queue)) => self.on_cancelled(queue),
                    Some(Incoming::Lost(error)) => return Err(Exit::Lost(error)),
                    None => break,
                }
            }
            if !arrivals.is_empty() {
                self.on_deliveries(arrivals)?;
            }
        }
        Ok(())
    }

    /// Step 1: what the store and the flight know of each message decides what becomes of it.
    fn on_deliveries(&mut self, arrivals: Vec<Arriving>) -> Result<(), Exit> {
        let now = Instant::now();
        self.last_delivery = now;
        let mut known = self
            .look_up(arrivals.iter().map(|(_, task, _)| task))?
            .into_iter();
        for (tag, task, failure) in arrivals {
            self.counters.received += 1;
            let known = if task.key.is_some() {
                known.next().flatten()
            } else {
                None
            };
            let arrived = self
                .machine
                .delivered(now, tag, Arc::clone(&task), known.as_ref());
            match (arrived, failure) {
                (Arrived::Run(ticket), Some(failure)) => {
                    self.fail(ticket, &task, retry::judge_dead(failure, UnixMillis::now()));
                }
                (arrived, _) => self.on_arrived(arrived, &task),
            }
        }
        Ok(())
    }

    fn look_up<'t>(
        &self,
        tasks: impl Iterator<Item = &'t Arc<Task>>,
    ) -> Result<Vec<Option<Recorded>>, Exit> {
        let keys = tasks.filter_map(|task| Some((task.key.as_ref()?, task.attempt)));
        self.wiring
            .reader
            .look_up(keys)
            .map_err(|error| Exit::StoreFailed(error.to_string()))
    }

    fn on_arrived(&mut self, arrived: Arrived, task: &Task) {
        match arrived {
            Arrived::Run(ticket) if !self.takes() => {
                self.counters.requeued += 1;
                self.machine
                    .finished(ticket, Ended::HandedBack, UnixMillis::now());
            }
            Arrived::Run(ticket) => match self.config.handler {
                config::Handler::Discard => {
                    self.wait_time
                        .add(self.last_delivery, self.last_delivery - task.received);
                    self.done(ticket);
                }
                config::Handler::Command(_) => {
                    self.schedule.push(task.queue, task.priority, ticket);
                }
            },
            Arrived::Forward(ticket) => self.owe_copy(ticket),
            Arrived::Duplicate | Arrived::Joined => self.counters.duplicates += 1,
            Arrived::Adopted | Arrived::Held => {}
        }
    }

    /// Whether messages may be taken: neither draining nor behind a closed gate.
    fn takes(&self) -> bool {
        self.phase == Phase::Working && self.gate.allowed() != Allowed::Nothing
    }

    /// Step 2: gives tasks to free workers.
    fn dispatch(&mut self) {
        let limit = match self.gate.allowed() {
            Allowed::Everything => self.config.concurrency,
            Allowed::OneProbe => 1,
            Allowed::Nothing => 0,
        };
        while self.phase == Phase::Working && self.machine.census().running < limit {
            let Some(ticket) = self.schedule.pop() else {
                return;
            };
            let Some(task) = self.machine.start(ticket) else {
                continue;
            };
            let now = Instant::now();
            self.wait_time.add(now, now - task.received);
            self.workers.run(ticket, task);
        }
    }

    fn on_finished(&mut self, finished: Finished) {
        let Finished {
            ticket,
            outcome,
            ran,
        } = finished;
        let now = Instant::now();
        self.run_time.add(now, ran);
        if !matches!(outcome, Outcome::Broken(_) | Outcome::Interrupted) && self.gate.works() {
            info!("job {}: the handler works again", self.config.name);
            self.subscriptions.renew();
        }
        let Some(task) = self.machine.task(ticket) else {
            return;
        };
        match outcome {
            Outcome::Done => self.done(ticket),
            Outcome::Retry(failure) => {
                self.counters.crashed += u64::from(failure.class == ErrorClass::Crashed);
                let judged = retry::judge_retry(
                    &self.config.retry,
                    &task,
                    failure,
                    fastrand::f64(),
                    UnixMillis::now(),
                );
                self.fail(ticket, &task, judged);
            }
            Outcome::Dead(failure) => {
                self.fail(ticket, &task, retry::judge_dead(failure, UnixMillis::now()))
            }
            Outcome::Broken(reason) => {
                if self.gate.allowed() != Allowed::Nothing {
                    error!(
                        "job {}: the handler is broken, the job pauses: {reason}",
                        self.config.name
                    );
                }
                self.counters.last_error = Some(reason.clone());
                self.gate.broken(now, reason);
                self.hand_back(ticket);
                self.hand_back_queued();
            }
            Outcome::Interrupted => self.hand_back(ticket),
        }
    }

    fn done(&mut self, ticket: Ticket) {
        self.counters.done += 1;
        self.rate.add(self.last_delivery.max(Instant::now()), 1);
        self.machine
            .finished(ticket, Ended::Done, UnixMillis::now());
    }

    fn fail(&mut self, ticket: Ticket, task: &Task, failed: FailedAttempt) {
        let (job, error) = (&self.config.name, failed.failure.error.escape_debug());
        let class = failed.failure.class.as_str();
        let key = task.key.as_ref().map_or_else(
            || "-".to_owned(),
            |key| key.to_text().escape_debug().to_string(),
        );
        match failed.demand {
            Demand::Retry { delay } => {
                self.counters.retried += 1;
                let delay = delay.as_secs();
                info!(
                    "job {job}: attempt {} of {key} failed ({class}), again in {delay} s: {error}",
                    task.attempt
                );
            }
            Demand::Dead => {
                self.counters.dead += 1;
                let queue = &self.config.dead_letter.queue;
                warn!(
                    "job {job}: attempt {} of {key} failed for good ({class}), to {queue}: {error}",
                    task.attempt
                );
            }
        }
        self.counters.last_error = Some(failed.failure.error.clone());
        self.machine
            .finished(ticket, Ended::Failed(failed), UnixMillis::now());
    }

    fn hand_back(&mut self, ticket: Ticket) {
        self.counters.requeued += 1;
        self.machine
            .finished(ticket, Ended::HandedBack, UnixMillis::now());
    }

    fn hand_back_queued(&mut self) {
        for ticket in self.schedule.clear() {
            self.hand_back(ticket);
        }
    }

    fn on_committed(&mut self, committed: &Committed) {
        self.recording = false;
        for demanded in self.machine.committed(Instant::now(), committed) {
            let copy = retry::copy(
                &self.facts,
                demanded.ticket,
                &demanded.task,
                &demanded.failed,
            );
            self.copies.push_back(copy);
        }
    }

    fn on_published(&mut self, published: Published) {
        self.publishing -= 1;
        match published.result {
            Ok(()) => {
                failpoint::hit("after-publish");
                self.marks
                    .extend(self.machine.forwarded(Instant::now(), published.ticket));
            }
            Err(reason) => {
                let reason = format!("a copy could not be published: {reason}");
                warn!("job {}: {reason}", self.config.name);
                self.counters.last_error = Some(reason.clone());
                self.trouble = Some(reason);
                self.refused.push(published.ticket);
                self.refused_until
                    .get_or_insert(Instant::now() + REFUSED_PAUSE);
            }
        }
    }

    fn owe_copy(&mut self, ticket: Ticket) {
        if let Some(demanded) = self.machine.demanded(ticket) {
            self.copies.push_back(retry::copy(
                &self.facts,
                ticket,
                &demanded.task,
                &demanded.failed,
            ));
        }
    }

    /// Restores the invariants after every event: what may run runs, then record, publish, acknowledge.
    fn settle(&mut self, mut session: Option<&mut Session<'_>>) -> Result<(), Exit> {
        let now = Instant::now();
        if self.gate.tick(now) {
            info!(
                "job {}: probing the handler with one message",
                self.config.name
            );
            self.subscriptions.start(now);
        }
        self.keep_phase(now);
        if let Some(session) = session.as_deref_mut() {
            self.keep_subscribed(session, now)?;
        } else {
            self.keep_linking(now);
        }
        self.judge_released(now)?;
        self.dispatch();
        self.record();
        self.publish(session.as_deref_mut(), now)?;
        match session {
            Some(session) => self.acknowledge(session, now),
            None => Ok(()),
        }
    }

    /// Deliveries that waited for another attempt of their key.
    fn judge_released(&mut self, now: Instant) -> Result<(), Exit> {
        for released in self.machine.released() {
            if !self.takes() {
                self.machine.hand_back_released(&released);
                continue;
            }
            let task = Arc::clone(&released.task);
            let known = self.look_up(std::iter::once(&task))?.pop().flatten();
            let Released { tag, task: held } = released;
            let arrived =
                self.machine
                    .judge_again(now, Released { tag, task: held }, known.as_ref());
            self.on_arrived(arrived, &task);
        }
        Ok(())
    }

    /// Step 3. One batch at a time: while it is being committed, the next one grows.
    fn record(&mut self) {
        self.records.append(&mut self.machine.due());
        if self.recording || (self.records.is_empty() && self.marks.is_empty()) {
            return;
        }
        let batch = Batch {
            job: self.wiring.id,
            records: std::mem::take(&mut self.records),
            marks: std::mem::take(&mut self.marks),
            reply: self.proofs.clone(),
        };
        // The recorder's inbox has room for a batch of every job. A recorder that is gone ends the daemon.
        self.recording = self
            .wiring
            .recorder
            .try_send(Request::Commit(batch))
            .is_ok();
    }

    /// Step 4.
    fn publish(&mut self, session: Option<&mut Session<'_>>, now: Instant) -> Result<(), Exit> {
        if self.refused_until.is_some_and(|until| until <= now) {
            self.refused_until = None;
            // Most often a queue of the ladder or the dead-letter queue is gone: make sure of them first.
            if let Some(session) = session {
                self.declare(session)?;
            }
            for ticket in std::mem::take(&mut self.refused) {
                self.owe_copy(ticket);
            }
        }
        while self.publishing < COPY_CREDIT {
            let Some(copy) = self.copies.pop_front() else {
                break;
            };
            let ticket = copy.ticket;
            let request = PublishRequest {
                copy,
                reply: self.confirms.clone(),
            };
            // The publisher's inbox has room for every job's credit; when it is gone, the daemon is ending.
            if self.wiring.publisher.try_send(request).is_err() {
                self.refused.push(ticket);
                self.refused_until.get_or_insert(now + REFUSED_PAUSE);
                break;
            }
            self.publishing += 1;
        }
        Ok(())
    }

    /// Step 5, and the only place that acknowledges or hands back.
    fn acknowledge(&mut self, session: &mut Session<'_>, now: Instant) -> Result<(), Exit> {
        for tag in self.machine.hand_backs() {
            session.hand_back(tag).map_err(Exit::Lost)?;
        }
        let frames = self.machine.acks(now);
        if frames.is_empty() {
            return Ok(());
        }
        failpoint::hit("before-ack");
        self.counters.acks += frames.len() as u64;
        for (queue, frame) in frames {
            let tag = self.machine.tag(queue, frame.tag);
            session.ack(tag, frame.multiple).map_err(Exit::Lost)?;
        }
        failpoint::hit("after-ack");
        Ok(())
    }

    /// The end of a drain: at its deadline running handlers are ended, and soon after that it is over.
    fn keep_phase(&mut self, now: Instant) {
        if let Phase::Draining(until) = self.phase
            && now >= until
            && !self.workers.stop.is_raised()
        {
            self.workers.stop.raise();
        }
    }

    fn check_drained(&mut self) -> Result<(), Exit> {
        let Phase::Draining(until) = self.phase else {
            return Ok(());
        };
        let now = Instant::now();
        let census = self.machine.census();
        let works = census.queued + census.running + census.recording;
        let recorded =
            works == 0 && !self.recording && self.records.is_empty() && self.marks.is_empty();
        // A copy that cannot be published by the deadline stays owed: its message goes back to its queue, and the
        // record makes the next start publish it.
        let forwarded = census.forwarding == 0 || now >= until;
        if (recorded && forwarded) || now >= until + LAST_WORDS {
            debug!("job {}: drained, {census:?}", self.config.name);
            return Err(Exit::Drained);
        }
        Ok(())
    }

    fn on_command(
        &mut self,
        command: Command,
        session: Option<&mut Session<'_>>,
    ) -> Result<(), Exit> {
        match command {
            Command::Inspect(reply) => {
                // An asker that gave up has dropped its end.
                let _ = reply.try_send(self.inspect(session));
            }
            Command::IsEmpty(reply) => {
                let _ = reply.try_send(self.is_empty(session)?);
            }
            Command::Drain(until) => {
                self.phase = Phase::Draining(until);
                self.subscriptions.lost();
                self.hand_back_queued();
                if let Some(session) = session {
                    self.unsubscribe_all(session)?;
                }
            }
            Command::Hurry => {
                let now = Instant::now();
                if self.phase == Phase::Working {
                    self.hand_back_queued();
                }
                self.phase = Phase::Draining(now);
                self.workers.stop.raise();
            }
        }
        Ok(())
    }
}

/// A delivery on its way into the machine, with the reason if it can never run.
type Arriving = (
    crate::task::DeliveryTag,
    Arc<Task>,
    Option<crate::task::Failure>,
);

/// The queue's name, for messages.
fn queue_name(config: &config::Job, queue: QueueIndex) -> &str {
    &config.queues[queue].name
}
