//! A seeded simulator of broker, store, publisher and crashes around the in-flight machine.
//!
//! Each seed is one history: messages are published, some twice; runs succeed, fail, crash; the consumer's connection
//! drops, at any step or between two of its acks, and is away for a while; the publisher's connection drops between a
//! publish and its confirm; the daemon dies at any point, with or without its last commit. Then comes a tail without
//! faults, in which everything must settle. Bugs hide until a history has such a tail.
//!
//! What is checked at every step: no ack before its record and its confirmed copy, none twice, none that reaches an
//! open delivery; no run of what is recorded; no attempt run twice unless a crash cut the first. And at the end:
//! every message is done or dead, none is both, none is anywhere else.
//!
//! `cargo test sim` runs [`SEEDS`] histories; `SEED=n cargo test sim -- --nocapture` replays one and prints its steps.

mod broker;
mod coverage;
mod daemon;

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
use coverage::Coverage;

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
    /// The number of the present session, or of the last one, and whether it stands.
    session: u64,
    up: bool,
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
            header_room: retry::HEADER_ROOM,
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
            up: false,
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
            0..3 if !self.up => self.connect(),
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
            93..94 => self.disconnect(),
            94..95 => self.subscribe_anew(),
            95..96 => self.publisher_lost(),
            96..98 => self.refuse(),
            _ => self.crash(),
        }
    }

    // ---- Outside the daemon ---------------------------------------------------------------------------------

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

const POLICY: AckPolicy = AckPolicy { batch: 3, interval: Duration::from_millis(20) };

fn machine() -> InFlight {
    InFlight::new(QUEUES, POLICY)
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
