//! The loop of one job: the thread that owns everything about it.
//!
//! A message takes this way:
//!
//! 1. arrive (`take`): read key and attempt, ask the store what it knows,
//! 2. run (`work`): the next task goes to a free worker, its outcome is judged,
//! 3. record, 4. publish the copy of a failed attempt, 5. acknowledge (`settle`).
//!
//! The loop is [`Job::next_event`], one wait over everything that can happen, then [`Job::on_event`], then
//! [`Job::settle`], which restores the invariants after every event. What may happen is decided in `policy`; this file carries it out.
//! The loop never blocks on a send: every channel that it sends on has room for all that its counterpart can owe.

mod counters;
mod declare;
mod drain;
mod handle;
mod inspect;
mod link;
mod owed;
mod prefetch;
mod settle;
mod stall;
mod subscribe;
mod take;
mod timing;
mod work;
mod workers;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Select, Sender};
use log::error;

use crate::broker::publisher::Published;
use crate::broker::{BrokerError, Link, Outgoing, Session};
use crate::config;
use crate::policy::gate::Gate;
use crate::policy::inflight::{InFlight, Mark};
use crate::policy::refusal::Refusals;
use crate::policy::retry::{CopyFacts, HEADER_ROOM};
use crate::policy::schedule::Schedule;
use crate::policy::stall::StallWatch;
use crate::store::{Attempt, Pause, Reader, StoreError, Written};
use crate::task::{QueueIndex, Record, Ticket, UnixMillis};
use counters::{Counters, Rate};
use declare::Declared;
pub use drain::LAST_WORDS;
pub use handle::{Command, Figures, Inspection, JobHandle, LinkReport, Wiring, spawn};
use link::Linking;
use owed::Owed;
use prefetch::Prefetch;
use subscribe::Subscriptions;
#[cfg(test)]
pub use timing::Histograms;
use timing::Timing;
use workers::{Finished, Workers};

/// The loop wakes at least this often, to say that it lives.
const TICK: Duration = Duration::from_secs(1);
/// How long deliveries are left alone while a batch is being committed: short against a commit, long against a message.
const DEAF: Duration = Duration::from_millis(2);
/// Messages that one job may have at the publisher; the reply channel has room for all of them.
pub const CREDIT: usize = 256;

/// Everything that can happen to a job.
enum Event {
    /// The session has something to say.
    Session,
    /// Batches that ended.
    Finished(Vec<Vec<Finished>>),
    Written(Written),
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
    /// The connection stands, and a queue stalls on it: make a new one.
    Stalled,
    /// The store cannot be read.
    StoreFailed(StoreError),
    /// A worker thread died with its batch: a bug. What it held comes again once the daemon is started anew.
    LostWorker,
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
    /// A drain that waits for running handlers as long as they take.
    patient: bool,

    machine: InFlight,
    schedule: Schedule,
    /// Since when a batch that is not full waits for more tasks.
    lingering: Option<Instant>,
    gate: Gate,
    /// Paused by hand.
    pause: Option<Pause>,
    /// The recorder has no room for what ended here.
    store_full: bool,
    declared: Declared,
    subscriptions: Subscriptions,
    prefetch: Prefetch,
    stalls: StallWatch,
    linking: Linking,

    /// What the next batch for the recorder will hold, and whether one is under way.
    records: Vec<Record>,
    marks: Vec<Mark>,
    recording: bool,
    /// With `in_doubt = "dead"`: what starts once that is recorded, in the next batch and in the one under way, and what was
    /// to start and did not run.
    starts: Vec<Vec<Ticket>>,
    starting: Vec<Vec<Ticket>>,
    unstarted: Vec<Attempt>,
    /// The marks of the one under way.
    marking: Vec<Mark>,
    /// Until then deliveries may be left alone; see [`Job::listens`].
    deaf_until: Instant,
    proofs: Sender<Written>,
    written: Receiver<Written>,

    /// What waits for credit, and how much is at the publisher.
    outbox: VecDeque<(Ticket, Outgoing)>,
    publishing: usize,
    /// What must be confirmed before its attempt is recorded.
    owed: HashMap<Ticket, Owed>,
    /// When an exchange was looked for, and why it was not found.
    exchanges: HashMap<String, (Instant, Option<String>)>,
    refusals: Refusals,
    confirms: Sender<Published>,
    published: Receiver<Published>,

    counters: Counters,
    rate: Rate,
    timing: Timing,
    counts: inspect::Counted,
    last_delivery: Instant,
    /// What is wrong with the connection or a consumer, for `status`; until a queue is consumed.
    trouble: Option<String>,

    /// The time of this turn of the loop. Read once, when the wait ends: a clock read for each message would cost more
    /// than its place in the schedule.
    now: Instant,
    at: UnixMillis,
}

impl Job {
    fn new(config: config::Job, wiring: Wiring, workers: Workers, commands: Receiver<Command>) -> Self {
        let now = Instant::now();
        // One batch at a time, so one proof at a time, and that it waits.
        let (proofs, written) = crossbeam_channel::bounded(2);
        let (confirms, published) = crossbeam_channel::bounded(CREDIT);
        let facts = CopyFacts {
            job: Arc::clone(&config.name),
            queues: config.queues.iter().map(|queue| Arc::clone(&queue.name)).collect(),
            dead_letter: Arc::clone(&config.dead_letter.queue),
            host: wiring.host.clone(),
            header_room: HEADER_ROOM,
        };
        let prefetch = Prefetch::new(&config, now);
        let policy = prefetch::ack_policy(&config, prefetch.get());
        Self {
            facts,
            commands,
            workers,
            phase: Phase::Working,
            patient: false,
            machine: InFlight::new(config.queues.len(), policy),
            schedule: Schedule::new(config.order, config.queues.iter().map(|queue| queue.weight)),
            lingering: None,
            gate: Gate::new(config.kill_switch, now),
            declared: Declared::new(wiring.broker.reconnect),
            subscriptions: Subscriptions::new(config.queues.len(), wiring.broker.reconnect),
            prefetch,
            stalls: StallWatch::new(&config.queues, wiring.broker.heartbeat),
            linking: Linking::new(&wiring.broker),
            records: Vec::new(),
            marks: Vec::new(),
            marking: Vec::new(),
            recording: false,
            starts: Vec::new(),
            starting: Vec::new(),
            unstarted: Vec::new(),
            pause: wiring.pause.clone(),
            store_full: false,
            deaf_until: now,
            proofs,
            written,
            outbox: VecDeque::new(),
            publishing: 0,
            owed: HashMap::new(),
            exchanges: HashMap::new(),
            refusals: Refusals::default(),
            confirms,
            published,
            counters: Counters::default(),
            rate: Rate::new(now),
            timing: Timing::new(now),
            counts: inspect::Counted::default(),
            last_delivery: now,
            trouble: None,
            now,
            at: UnixMillis::now(),
            config,
            wiring,
        }
    }

    /// The thread: session after session until the job has drained, or the store cannot be read.
    fn run(mut self) -> Result<Reader, StoreError> {
        let ended = loop {
            let mut exit = self.turn(None);
            if let Exit::Linked(link) = exit {
                exit = self.run_session(*link);
            }
            match exit {
                Exit::Drained => break Ok(()),
                Exit::Lost(error) => self.on_lost(&error),
                Exit::Stalled => self.on_stalled(),
                Exit::StoreFailed(error) => {
                    // Without look-ups nothing may run.
                    error!(job = &*self.config.name; "job {}: {error}", self.config.name);
                    break Err(error);
                }
                Exit::LostWorker => {
                    error!(job = &*self.config.name; "job {}: one of its worker threads died, which is a bug", self.config.name);
                    break Ok(());
                }
                Exit::Linked(_) => unreachable!("a session does not connect"),
            }
        };
        let Self { workers, wiring, .. } = self;
        workers.stop.raise();
        workers.join();
        drop(wiring.alive);
        ended.map(|()| wiring.reader)
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
        self.workers.watch(&mut select);
        select.recv(&self.written);
        select.recv(&self.published);
        select.recv(self.linking.linked());
        if let Some(session) = session
            && self.listens()
        {
            session.watch(&mut select);
        }
        let ready = select.ready_deadline(self.deadline(session.is_some()));
        drop(select);
        self.now = Instant::now();
        self.at = UnixMillis::now();
        let event = match ready {
            Err(_) => None,
            Ok(0) => self.commands.try_recv().ok().map(Event::Command),
            Ok(1) => Some(Event::Finished(self.workers.take_finished())),
            Ok(2) => self.written.try_recv().ok().map(Event::Written),
            Ok(3) => self.published.try_recv().ok().map(Event::Published),
            Ok(4) => self.linking.linked().try_recv().ok().map(Event::Linked),
            Ok(_) => Some(Event::Session),
        };
        event.unwrap_or(Event::Time)
    }

    /// Whether deliveries are looked at now. While a batch is being committed and no worker waits for a task, they can
    /// wait a moment too: then many are taken in one go, with one wake-up, one read transaction and one next batch. That
    /// halves the cost of a message in a full flow.
    fn listens(&self) -> bool {
        let idle = self.config.handler.has_workers() && self.room() > 0;
        idle || !self.recording || self.now >= self.deaf_until
    }

    /// When something is due that no message announces.
    fn deadline(&self, connected: bool) -> Instant {
        let now = Instant::now();
        let working = self.phase == Phase::Working;
        let drain = match self.phase {
            Phase::Working => None,
            // What is due after that the tick finds.
            Phase::Draining(until) => Some(until).filter(|until| *until > now),
        };
        let only_connected = if connected {
            let declare = self.declared.deadline().filter(|_| working);
            [self.machine.ack_deadline(), self.subscriptions.deadline().filter(|_| working), declare]
        } else {
            [None, None, None]
        };
        let link = if working && !connected { self.linking.deadline() } else { None };
        let deaf = Some(self.deaf_until).filter(|at| connected && self.recording && *at > now);
        let linger = self.lingering.filter(|_| working).map(|since| since + self.config.handler.linger());
        let always = [Some(now + TICK), deaf, drain, linger, link, self.gate.deadline(), self.refusals.deadline()];
        // A deadline that has passed and changed nothing must not make the loop spin: it waits at least a millisecond.
        let soonest = always.into_iter().chain(only_connected).flatten().min();
        soonest.map_or(now + TICK, |at| at.max(now + Duration::from_millis(1)))
    }

    fn on_event(&mut self, event: Event, session: Option<&mut Session<'_>>) -> Result<(), Exit> {
        match event {
            Event::Session => session.map_or(Ok(()), |session| self.on_session(session)),
            Event::Finished(batches) => {
                for batch in batches {
                    if let Some(Finished { ran, .. }) = batch.first() {
                        self.prefetch.served(*ran, batch.len());
                    }
                    for finished in batch {
                        self.on_finished(finished);
                    }
                }
                if self.workers.lost_one { Err(Exit::LostWorker) } else { Ok(()) }
            }
            Event::Written(Written::Committed(committed)) => {
                self.on_committed(&committed);
                Ok(())
            }
            Event::Written(Written::Waits) => self.on_full(session),
            Event::Published(published) => {
                self.on_published(published);
                Ok(())
            }
            Event::Command(command) => self.on_command(command, session),
            Event::Linked(linked) => self.on_linked(linked),
            Event::Time => Ok(()),
        }
    }
}

/// The queue's name, for messages.
fn queue_name(config: &config::Job, queue: QueueIndex) -> &str {
    &config.queues[queue].name
}
