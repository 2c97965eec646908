//! A seeded simulator of broker, store, publisher and crashes around the in-flight machine.
//!
//! Each seed is one history: messages are published, some twice; runs succeed, fail, crash; the consumer's connection
//! drops; the publisher's connection drops between a publish and its confirm; the daemon dies at any point, with or
//! without its last commit. Then comes a tail without faults, in which everything must settle. Bugs hide until a
//! history has such a tail.
//!
//! What is checked at every step: no ack before its record and its confirmed copy, none twice, none that reaches an
//! open delivery; no run of what is recorded; no attempt run twice unless a crash cut the first. And at the end:
//! every message is done or dead, none is both, none is anywhere else.
//!
//! `cargo test sim` runs [`SEEDS`] histories; `SEED=n cargo test sim -- --nocapture` replays one and prints its steps.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::inflight::{AckPolicy, Arrived, Ended, InFlight, Mark, Released};
use super::retry::{self, CopyFacts, header};
use super::{arrive, retry::tests::job};
use crate::config::Job;
use crate::task::{
    Committed, Copy, DeliveryTag, Demand, Destination, ErrorClass, Failure, HeaderValue, Message, MessageKey, Record,
    Recorded, Task, Ticket, UnixMillis,
};

/// Histories in one `cargo test`.
const SEEDS: u64 = 4000;
/// Steps with faults, before the tail.
const FAULTY_STEPS: usize = 400;
const PREFETCH: usize = 6;
const CONCURRENCY: usize = 3;
const QUEUES: usize = 2;

#[test]
fn every_history_settles() {
    if let Some(seed) = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()) {
        World::new(seed, true).history();
        return;
    }
    let mut coverage = Coverage::default();
    for seed in 0..SEEDS {
        let world = std::panic::catch_unwind(|| World::new(seed, false).history());
        coverage.add(&world.unwrap_or_else(|_| panic!("history {seed} failed; SEED={seed} replays it")));
    }
    coverage.check();
}

/// A simulator that never reaches a path proves nothing about it.
#[derive(Debug, Default, Clone)]
struct Coverage {
    seen: BTreeMap<&'static str, usize>,
}

impl Coverage {
    fn count(&mut self, what: &'static str) {
        *self.seen.entry(what).or_default() += 1;
    }

    fn add(&mut self, other: &Self) {
        for (what, n) in &other.seen {
            *self.seen.entry(what).or_default() += n;
        }
    }

    fn check(&self) {
        for what in [
            "run",
            "forward",
            "duplicate",
            "joined",
            "adopted",
            "held",
            "crash",
            "crash-after-commit",
            "disconnect",
            "publisher-lost",
            "publish-refused",
            "handed-back",
            "replay",
            "multiple-ack",
            "single-ack",
            "dead",
            "done",
        ] {
            assert!(self.seen.get(what).is_some_and(|n| *n > 100), "too few histories with {what}: {self:?}");
        }
    }
}

/// The broker's side of a message: where it is, it is only there.
#[derive(Debug, Clone)]
struct Stored {
    id: u32,
    message: Message,
}

struct World {
    random: fastrand::Rng,
    verbose: bool,
    coverage: Coverage,
    job: Job,
    facts: CopyFacts,
    start: Instant,
    now: Duration,
    faults: bool,

    // The broker.
    ready: Vec<VecDeque<Stored>>,
    unacked: BTreeMap<(usize, u64), Stored>,
    ladder: Vec<(Duration, usize, Stored)>,
    dead: Vec<Stored>,
    next_tag: Vec<u64>,

    // The store: what is durable, and what the recorder has in hand.
    rows: HashMap<(MessageKey, u32), Recorded>,
    recording: Vec<Record>,
    marks: Vec<Mark>,

    // The publisher: copies it was given, and those that the broker has but did not confirm.
    publishing: Vec<Copy>,
    unconfirmed: Vec<Copy>,
    refused: Vec<Ticket>,

    // The daemon.
    machine: InFlight,
    session: u64,
    queued: VecDeque<Ticket>,
    running: Vec<(Ticket, Arc<Task>)>,

    // The oracle.
    published: u32,
    keyless: HashSet<u32>,
    completed: HashSet<u32>,
    /// Successes without a key that wait for their commit.
    completing: HashMap<Ticket, u32>,
    runs: HashMap<(u32, u32), usize>,
    cut: HashMap<(u32, u32), usize>,
    accepted: HashSet<(u32, u32)>,
    replayed: HashSet<u32>,
    /// Messages whose copy the broker may have had without our knowing it for good: published again, it is doubled.
    may_double: HashSet<u32>,
}

impl World {
    fn new(seed: u64, verbose: bool) -> Self {
        let mut job = job();
        job.queues =
            (0..QUEUES).map(|n| crate::config::Queue { name: name(n).into(), ..job.queues[0].clone() }).collect();
        job.retry.max_attempts = 3;
        job.retry.max_crashes = 2;
        let facts = CopyFacts {
            job: "j".into(),
            queues: job.queues.iter().map(|queue| Arc::clone(&queue.name)).collect(),
            dead_letter: "j.dead".into(),
            host: String::new(),
        };
        Self {
            random: fastrand::Rng::with_seed(seed),
            verbose,
            coverage: Coverage::default(),
            job,
            facts,
            start: Instant::now(),
            now: Duration::ZERO,
            faults: true,
            ready: vec![VecDeque::new(); QUEUES],
            unacked: BTreeMap::new(),
            ladder: Vec::new(),
            dead: Vec::new(),
            next_tag: vec![1; QUEUES],
            rows: HashMap::new(),
            recording: Vec::new(),
            marks: Vec::new(),
            publishing: Vec::new(),
            unconfirmed: Vec::new(),
            refused: Vec::new(),
            machine: machine(),
            session: 0,
            queued: VecDeque::new(),
            running: Vec::new(),
            published: 0,
            keyless: HashSet::new(),
            completed: HashSet::new(),
            completing: HashMap::new(),
            runs: HashMap::new(),
            cut: HashMap::new(),
            accepted: HashSet::new(),
            replayed: HashSet::new(),
            may_double: HashSet::new(),
        }
    }

    fn history(mut self) -> Coverage {
        for _ in 0..FAULTY_STEPS {
            self.step();
            self.settle();
        }
        self.faults = false;
        for _ in 0..20_000 {
            if self.at_rest() {
                break;
            }
            self.step();
            self.settle();
        }
        self.check_end();
        self.coverage
    }

    fn say(&self, what: impl FnOnce() -> String) {
        if self.verbose {
            println!("{:>8} ms  {}", self.now.as_millis(), what());
        }
    }

    fn now(&self) -> Instant {
        self.start + self.now
    }

    fn at(&self) -> UnixMillis {
        UnixMillis(i64::try_from(self.now.as_millis()).unwrap())
    }

    fn step(&mut self) {
        self.now += Duration::from_millis(self.random.u64(0..12));
        // The tail only lets things happen; the faulty part also breaks them.
        match self.random.u32(0..if self.faults { 100 } else { 80 }) {
            0..20 => self.deliver(),
            20..34 => self.start_run(),
            34..50 => self.end_run(),
            50..60 => self.commit(),
            60..66 => self.take_publish(),
            66..72 => self.confirm(),
            72..77 => self.climb(),
            77..80 => self.publish_again_refused(),
            80..88 => self.publish(),
            88..90 => self.resend(),
            90..91 => self.replay(),
            91..93 => self.hand_back(),
            93..95 => self.disconnect(),
            95..96 => self.publisher_lost(),
            96..98 => self.refuse(),
            _ => self.crash(),
        }
    }

    // ---- Outside the daemon ---------------------------------------------------------------------------------

    fn publish(&mut self) {
        let id = self.published;
        self.published += 1;
        let keyless = self.random.u32(0..8) == 0;
        let mut message = Message { body: id.to_le_bytes().to_vec(), ..Message::default() };
        if keyless {
            self.keyless.insert(id);
        } else {
            message.properties.message_id = Some(id.to_string());
        }
        let queue = self.random.usize(0..QUEUES);
        self.put(queue, Stored { id, message });
    }

    /// A publisher that lost its confirm sends a message again.
    fn resend(&mut self) {
        let id = self.random.u32(0..self.published.max(1));
        if id < self.published && !self.keyless.contains(&id) {
            let mut message = Message { body: id.to_le_bytes().to_vec(), ..Message::default() };
            message.properties.message_id = Some(id.to_string());
            let queue = self.random.usize(0..QUEUES);
            self.put(queue, Stored { id, message });
        }
    }

    /// Somebody moves a dead letter back to its queue.
    fn replay(&mut self) {
        if let Some(stored) = self.dead.pop() {
            self.coverage.count("replay");
            self.say(|| format!("replay {}", stored.id));
            self.replayed.insert(stored.id);
            self.put(0, stored);
        }
    }

    fn put(&mut self, queue: usize, stored: Stored) {
        self.say(|| format!("message {} in queue {queue}", stored.id));
        self.ready[queue].push_back(stored);
    }

    /// Copies whose delay is over leave the ladder.
    fn climb(&mut self) {
        if !self.faults && self.idle_but_for_the_ladder() {
            self.now = self.ladder.iter().map(|(due, ..)| *due).min().unwrap_or(self.now).max(self.now);
        }
        let now = self.now;
        for (_, queue, stored) in self.ladder.extract_if(.., |(due, ..)| *due <= now).collect::<Vec<_>>() {
            self.put(queue, stored);
        }
    }

    fn take_publish(&mut self) {
        if self.publishing.is_empty() {
            return;
        }
        let copy = self.publishing.remove(0);
        let (id, failed) = (id(&copy.task), copy.task.attempt);
        self.accepted.insert((id, failed));
        let message =
            Message { properties: copy.properties.clone(), body: copy.task.message.body.clone(), ..Message::default() };
        match &copy.to {
            Destination::Delay { queue, delay } => {
                self.say(|| format!("copy of {id} after attempt {failed} on the ladder"));
                let queue = (0..QUEUES).find(|n| name(*n) == **queue).expect("copies go back to their own queue");
                self.ladder.push((self.now + *delay, queue, Stored { id, message }));
            }
            Destination::Queue(queue) => {
                assert_eq!(**queue, *"j.dead");
                self.say(|| format!("copy of {id} after attempt {failed} is dead"));
                self.coverage.count("dead");
                self.dead.push(Stored { id, message });
            }
        }
        self.unconfirmed.push(copy);
    }

    fn confirm(&mut self) {
        if self.unconfirmed.is_empty() {
            return;
        }
        let copy = self.unconfirmed.remove(self.random.usize(0..self.unconfirmed.len()));
        self.say(|| format!("confirm of the copy of {}", id(&copy.task)));
        self.marks.extend(self.machine.forwarded(self.now(), copy.ticket));
    }

    /// The publisher's connection is lost: what is not confirmed is published again.
    fn publisher_lost(&mut self) {
        if !self.unconfirmed.is_empty() {
            self.coverage.count("publisher-lost");
            self.say(|| "the publisher lost its connection".to_owned());
            self.may_double.extend(self.unconfirmed.iter().map(|copy| id(&copy.task)));
            self.publishing.append(&mut self.unconfirmed);
        }
    }

    /// The broker refuses a copy (unroutable, or nacked): it is owed still.
    fn refuse(&mut self) {
        if !self.publishing.is_empty() {
            self.coverage.count("publish-refused");
            let copy = self.publishing.remove(0);
            self.refused.push(copy.ticket);
        }
    }

    fn publish_again_refused(&mut self) {
        for ticket in std::mem::take(&mut self.refused) {
            let demanded = self.machine.demanded(ticket).expect("a refused copy is still owed");
            self.publishing.push(retry::copy(&self.facts, ticket, &demanded.task, &demanded.failed));
        }
    }

    // ---- The daemon's shell, as job.rs has it ------------------------------------------------------------------

    fn deliver(&mut self) {
        let queue = self.random.usize(0..QUEUES);
        let open = self.unacked.keys().filter(|(of, _)| *of == queue).count();
        if open >= PREFETCH {
            return;
        }
        if self.session == 0 {
            self.session += 1;
            self.machine.connected(self.session);
        }
        let Some(stored) = self.ready[queue].pop_front() else {
            return;
        };
        let tag = DeliveryTag { session: self.session, queue, tag: self.next_tag[queue] };
        self.next_tag[queue] += 1;
        self.unacked.insert((queue, tag.tag), stored.clone());
        let task = arrive::read(&self.job, queue, stored.message.clone(), self.now(), self.at());
        assert_eq!(task.unfit, None, "the simulator sends only sound messages");
        let task = Arc::new(task);
        let known = self.look_up(&task);
        let arrived = self.machine.delivered(self.now(), tag, Arc::clone(&task), known.as_ref());
        self.say(|| format!("delivery of {} attempt {} as {}: {arrived:?}", stored.id, task.attempt, tag.tag));
        self.on_arrived(arrived);
    }

    fn on_arrived(&mut self, arrived: Arrived) {
        match arrived {
            Arrived::Run(ticket) => self.queued.push_back(ticket),
            Arrived::Forward(ticket) => {
                self.coverage.count("forward");
                let demanded = self.machine.demanded(ticket).expect("a forward is owed");
                self.publishing.push(retry::copy(&self.facts, ticket, &demanded.task, &demanded.failed));
            }
            Arrived::Duplicate => self.coverage.count("duplicate"),
            Arrived::Joined => self.coverage.count("joined"),
            Arrived::Adopted => self.coverage.count("adopted"),
            Arrived::Held => self.coverage.count("held"),
        }
    }

    fn look_up(&self, task: &Task) -> Option<Recorded> {
        let key = task.key.as_ref()?;
        let done = self.rows.iter().any(|((row, _), what)| row == key && *what == Recorded::Done);
        if done { Some(Recorded::Done) } else { self.rows.get(&(key.clone(), task.attempt)).cloned() }
    }

    fn start_run(&mut self) {
        if self.running.len() >= CONCURRENCY {
            return;
        }
        let Some(ticket) = self.queued.pop_front() else {
            return;
        };
        let task = self.machine.start(ticket).expect("a queued task is in flight");
        let run = (id(&task), task.attempt);
        self.say(|| format!("run {run:?}"));
        self.coverage.count("run");
        if task.key.is_some() {
            assert_eq!(self.look_up(&task), None, "{run:?} runs although it is recorded");
            let runs = self.runs.entry(run).or_default();
            *runs += 1;
            let cut = self.cut.get(&run).copied().unwrap_or(0);
            assert!(*runs <= 1 + cut, "{run:?} runs {runs} times with {cut} runs cut by a crash");
        }
        self.running.push((ticket, task));
    }

    fn end_run(&mut self) {
        if self.running.is_empty() {
            return;
        }
        let (ticket, task) = self.running.swap_remove(self.random.usize(0..self.running.len()));
        let failure = |class| Failure { class, error: "simulated".to_owned() };
        let random = self.random.f64();
        let ended = match self.random.u32(0..10) {
            0..5 => Ended::Done,
            5..7 => Ended::Failed(retry::judge_retry(
                &self.job.retry,
                &task,
                failure(ErrorClass::Failed),
                None,
                random,
                self.at(),
            )),
            7 => Ended::Failed(retry::judge_retry(
                &self.job.retry,
                &task,
                failure(ErrorClass::Crashed),
                None,
                random,
                self.at(),
            )),
            8 => Ended::Failed(retry::judge_dead(failure(ErrorClass::Rejected), self.at())),
            _ => {
                // A run that does not count may run again.
                *self.cut.entry((id(&task), task.attempt)).or_default() += 1;
                Ended::HandedBack
            }
        };
        self.say(|| format!("end of {} attempt {}: {ended:?}", id(&task), task.attempt));
        if ended == Ended::Done && task.key.is_none() {
            self.completing.insert(ticket, id(&task));
        }
        self.machine.finished(ticket, ended, self.at());
    }

    /// A pause: what waits goes back.
    fn hand_back(&mut self) {
        for ticket in std::mem::take(&mut self.queued) {
            self.coverage.count("handed-back");
            self.machine.finished(ticket, Ended::HandedBack, self.at());
        }
    }

    fn commit(&mut self) {
        let tickets = self.write();
        if tickets.is_empty() {
            return;
        }
        self.say(|| format!("commit of {} records", tickets.len()));
        self.completed.extend(tickets.iter().filter_map(|ticket| self.completing.remove(ticket)));
        for demanded in self.machine.committed(self.now(), &Committed::attest(tickets)) {
            self.publishing.push(retry::copy(&self.facts, demanded.ticket, &demanded.task, &demanded.failed));
        }
    }

    /// The transaction itself.
    fn write(&mut self) -> Vec<Ticket> {
        for mark in &self.marks {
            self.rows.insert((mark.key.clone(), mark.attempt), Recorded::Forwarded);
        }
        self.machine.marked(std::mem::take(&mut self.marks));
        let records: Vec<_> = self.recording.drain(..).collect();
        for record in &records {
            if let Some(key) = &record.key {
                if let Recorded::Failed(failed) = &record.what {
                    assert!(matches!(failed.demand, Demand::Dead | Demand::Retry { .. }));
                }
                self.rows.entry((key.clone(), record.attempt)).or_insert_with(|| record.what.clone());
            }
        }
        records.iter().map(|record| record.ticket).collect()
    }

    /// What job.rs does after every event.
    fn settle(&mut self) {
        for Released { tag, task } in self.machine.released() {
            let known = self.look_up(&task);
            let arrived = self.machine.judge_again(self.now(), Released { tag, task }, known.as_ref());
            self.on_arrived(arrived);
        }
        self.recording.extend(self.machine.due());
        for tag in self.machine.hand_backs() {
            let stored = self.unacked.remove(&(tag.queue, tag.tag)).expect("a nack names an open delivery");
            self.ready[tag.queue].push_front(stored);
        }
        let full = self.random.bool().then_some(4);
        for (queue, frame) in self.machine.acks(self.now(), full) {
            self.ack(queue, frame.tag, frame.multiple);
        }
    }

    fn ack(&mut self, queue: usize, tag: u64, multiple: bool) {
        self.coverage.count(if multiple { "multiple-ack" } else { "single-ack" });
        assert!(self.unacked.contains_key(&(queue, tag)), "an ack names an open delivery");
        let lowest = if multiple { 0 } else { tag };
        let tags: Vec<_> = self.unacked.range((queue, lowest)..=(queue, tag)).map(|(tag, _)| *tag).collect();
        for tag in tags {
            let stored = self.unacked.remove(&tag).expect("just listed");
            let id = stored.id;
            let task = arrive::read(&self.job, queue, stored.message, self.now(), self.at());
            self.say(|| format!("ack of {id} attempt {}", task.attempt));
            let copied = self.accepted.contains(&(id, task.attempt));
            match &task.key {
                Some(key) => {
                    let done = self.rows.iter().any(|((row, _), what)| row == key && *what == Recorded::Done);
                    let recorded = self.rows.contains_key(&(key.clone(), task.attempt));
                    assert!(done || (recorded && copied), "{id} attempt {} is acknowledged too early", task.attempt);
                }
                None => assert!(copied || self.completed.contains(&id), "{id} is acknowledged too early"),
            }
        }
    }

    fn disconnect(&mut self) {
        self.coverage.count("disconnect");
        self.say(|| "the consumer lost its connection".to_owned());
        self.machine.disconnected();
        self.queued.clear();
        self.requeue_all();
        // Without a key a redelivery cannot be recognised: it runs again.
        self.session += 1;
        self.machine.connected(self.session);
    }

    fn crash(&mut self) {
        self.coverage.count("crash");
        let copies = self.publishing.iter().chain(&self.unconfirmed);
        self.may_double.extend(copies.map(|copy| id(&copy.task)));
        self.may_double.extend(self.marks.iter().map(|mark| id_of(&mark.key)));
        if self.random.bool() {
            self.coverage.count("crash-after-commit");
            self.write();
        }
        self.say(|| "the daemon dies".to_owned());
        // The broker may have what the publisher had written to its socket.
        while self.random.bool() && !self.publishing.is_empty() {
            self.take_publish();
        }
        for (_, task) in std::mem::take(&mut self.running) {
            *self.cut.entry((id(&task), task.attempt)).or_default() += 1;
        }
        for record in self.recording.drain(..) {
            // It ended, but nobody will ever know.
            if let Some(key) = record.key {
                *self.cut.entry((id_of(&key), record.attempt)).or_default() += 1;
            }
        }
        self.completing.clear();
        self.marks.clear();
        self.publishing.clear();
        self.unconfirmed.clear();
        self.refused.clear();
        self.queued.clear();
        self.machine = machine();
        self.requeue_all();
        self.session += 1;
        self.machine.connected(self.session);
    }

    fn requeue_all(&mut self) {
        for ((queue, _), stored) in std::mem::take(&mut self.unacked).into_iter().rev() {
            self.ready[queue].push_front(stored);
        }
        self.next_tag.fill(1);
    }

    // ---- The end ----------------------------------------------------------------------------------------------

    fn idle_but_for_the_ladder(&self) -> bool {
        self.ready.iter().all(VecDeque::is_empty)
            && self.unacked.is_empty()
            && self.publishing.is_empty()
            && self.unconfirmed.is_empty()
            && self.refused.is_empty()
    }

    fn at_rest(&self) -> bool {
        self.idle_but_for_the_ladder() && self.ladder.is_empty() && self.machine.census().is_empty()
    }

    fn check_end(&mut self) {
        assert!(
            self.at_rest(),
            "something never settles: ready {:?}, unacked {:?}, ladder {}, publishing {}, {:?}",
            self.ready,
            self.unacked,
            self.ladder.len(),
            self.publishing.len(),
            self.machine.census()
        );
        let mut dead: HashMap<u32, usize> = HashMap::new();
        for stored in &self.dead {
            assert_eq!(stored.message.properties.headers.get(header::DEAD), Some(&HeaderValue::I64(1)));
            *dead.entry(stored.id).or_default() += 1;
        }
        for id in 0..self.published {
            let key = MessageKey::from_text(&id.to_string());
            let done = self.rows.iter().any(|((row, _), what)| *row == key && *what == Recorded::Done);
            let dead = dead.get(&id).copied().unwrap_or(0);
            if self.keyless.contains(&id) {
                assert!(self.completed.contains(&id) || dead > 0 || self.replayed.contains(&id), "{id} is lost");
                continue;
            }
            if done {
                self.coverage.count("done");
            }
            assert!(done || dead > 0, "{id} is lost");
            assert!(!(done && dead > 0) || self.replayed.contains(&id), "{id} is both done and dead");
            assert!(dead < 2 || self.may_double.contains(&id), "{id} is dead {dead} times without a fault");
        }
    }
}

fn machine() -> InFlight {
    InFlight::new(QUEUES, AckPolicy { batch: 3, interval: Duration::from_millis(20) })
}

fn name(queue: usize) -> String {
    format!("q{queue}")
}

fn id(task: &Task) -> u32 {
    u32::from_le_bytes(task.message.body[..].try_into().expect("bodies are four bytes"))
}

fn id_of(key: &MessageKey) -> u32 {
    key.to_text().parse().expect("the simulator's keys are numbers")
}
