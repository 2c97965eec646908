//! A daemon at work on a load whose every message has a known fate, and the judgement of what became of it.
//!
//! The tests of crashes and outages share it: whatever is done to daemon or broker in the middle, at the end nothing is
//! lost, nothing that was recorded ran again, and each message lies where its fate says.
//!
//! Three witnesses are compared that know nothing of each other: the journal, in which the handlers write down each run;
//! the store, read as a file after each crash and at the end; and the queues of the broker. A fourth sits on the wire in
//! every scene that does not say otherwise, and judges each frame that the daemon sends: see [`super::tap`].

mod verdict;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs;
use std::time::{Duration, Instant};

use amiquip::AmqpValue;

use super::broker::{Vhost, with_id};
use super::daemon::{DAEMON_TIMEOUT, Daemon};
use super::journal::{Journal, Run};
use super::records::Records;
use super::wait_until;
pub use verdict::Verdict;

/// The work queue.
pub const QUEUE: &str = "work";
/// Its dead-letter queue.
pub const DEAD: &str = "work.dead";
/// The attempts that a message gets.
const ATTEMPTS: u32 = 2;

/// What is to become of a message; its id begins with the name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Done by the first attempt.
    Plain,
    /// Fails once, and is done by the second attempt.
    Again,
    /// The handler rejects it: dead after one attempt.
    Rejected,
    /// Fails each time: dead after [`ATTEMPTS`].
    Failing,
}

impl Fate {
    /// Of so many messages each fate but the plain one has one.
    fn of(number: usize, cycle: usize) -> Self {
        match number % cycle {
            7 => Self::Again,
            8 => Self::Rejected,
            9 => Self::Failing,
            _ => Self::Plain,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Again => "again",
            Self::Rejected => "rejected",
            Self::Failing => "failing",
        }
    }

    /// The attempts that it takes.
    fn attempts(self) -> u32 {
        match self {
            Self::Plain | Self::Rejected => 1,
            Self::Again => 2,
            Self::Failing => ATTEMPTS,
        }
    }

    /// Whether it ends in the dead-letter queue.
    fn is_dead(self) -> bool {
        match self {
            Self::Plain | Self::Again => false,
            Self::Rejected | Self::Failing => true,
        }
    }
}

/// What the handler does once it has written its line, in shell.
pub const HANDLER: &str = r#"case "$WARREND_KEY" in
again-*) [ "$WARREND_ATTEMPT" -gt 1 ] || exit 75 ;;
rejected-*) exit 65 ;;
failing-*) exit 75 ;;
esac"#;

/// The same for worker processes, which take tasks in batches and answer each batch at once.
const WORKER: &str = r#"#!/usr/bin/env python3
import json, os, sys, time
requests, answers = open(3, "rb"), open(4, "wb", buffering=0)
journal = os.open(os.path.dirname(__file__) + "/journal", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
pid, pause = os.getpid(), float(sys.argv[1])
def result(task):
    key, attempt = task["key"], task["attempt"]
    os.write(journal, b"%s %d %d\n" % (key.encode(), attempt, pid))
    if pause: time.sleep(pause)
    fate = key.split("-")[0]
    if fate == "failing" or fate == "again" and attempt == 1: return {"status": "retry", "error": "busy"}
    return {"status": "dead" if fate == "rejected" else "done"}
answers.write(b'{"warrend":1}\n')
for line in requests:
    request = json.loads(line)
    answer = {"id": request["id"], "results": [result(task) for task in request["tasks"]]}
    answers.write(json.dumps(answer).encode() + b"\n")
"#;

/// Tasks that have ended and are not recorded, for each thread of a handler that need not wait for the disk.
const UNRECORDED: usize = 16;

/// How the messages of a scene are handled.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    /// A program for each; what follows [`HANDLER`] in its script.
    Command(&'static str),
    /// Processes that take so many at a time, with a pause after each task.
    Worker(usize, Duration),
}

impl Kind {
    /// The most runs of a thread that a crash of the daemon may leave without a record.
    fn open(self) -> usize {
        match self {
            Self::Command(_) => 1,
            Self::Worker(batch, _) => batch + batch.max(UNRECORDED),
        }
    }
}

/// How the daemon of a scene is configured.
#[derive(Clone, Copy)]
pub struct Setup {
    /// Lines of `[broker]` after its URL.
    pub broker: &'static str,
    /// Lines of `[jobs.work]`.
    pub job: &'static str,
    /// Lines of `[jobs.work.retry]`.
    pub retry: &'static str,
    /// How long a retry waits; whole seconds.
    pub delay: &'static str,
    /// Handlers at one time.
    pub concurrency: usize,
    pub handler: Kind,
    /// Of so many messages each fate but the plain one has one; at least ten.
    pub cycle: usize,
    /// Records are forgotten before the end, so that the journal alone tells what is done. Not for daemons that crash.
    pub forgets: bool,
    /// The work queue is a quorum queue.
    pub quorum: bool,
    /// A tap judges every frame. Not where the daemon has several hosts, or where another reader would disturb the store.
    pub tap: bool,
}

impl Default for Setup {
    /// Reconnects quickly, so that tests of outages do.
    fn default() -> Self {
        Self {
            broker: "reconnect = { initial = \"50ms\", max = \"500ms\" }",
            job: "queue = \"work\"",
            retry: "",
            delay: "1s",
            concurrency: 4,
            handler: Kind::Command(""),
            cycle: 10,
            forgets: false,
            quorum: false,
            tap: true,
        }
    }
}

/// One job, its daemon, and everything that was published to it.
pub struct Scene {
    pub daemon: Daemon,
    pub journal: Journal,
    pub vhost: Vhost,
    setup: Setup,
    published: BTreeMap<String, Fate>,
    /// Dead letters that were taken out of their queue so far, by id.
    letters: BTreeMap<String, usize>,
    known: Known,
    outages: usize,
    /// Attempts that messages may have lost to what was done to their handlers.
    spendable: usize,
    /// The longest time from a start of the daemon to the first run after it.
    slowest: Duration,
}

/// What journal and store said up to the last crash of the daemon.
#[derive(Default)]
struct Known {
    /// By crash: runs, or beginnings of them, that had no record. They run again.
    in_vain: Vec<usize>,
    /// How much of the journal was read, in bytes and in runs.
    journal: u64,
    runs: usize,
    /// Every attempt that ran.
    ran: HashSet<(String, u32)>,
    /// Keys that were done, and attempts that had a record, at one of the crashes.
    done: HashSet<String>,
    ended: HashSet<(String, u32)>,
    /// Keys whose dead letter was owed at one of the crashes.
    owed_dead: BTreeSet<String>,
    /// Runs of what had a record: there must be none.
    again: Vec<(String, u32)>,
}

impl Known {
    /// Takes the runs that came since the last time; none of them may have had a record then.
    fn read(&mut self, journal: &Journal) -> Vec<(String, u32)> {
        let (lines, bytes) = journal.lines_after(self.journal);
        self.journal = bytes;
        // Messages that are not the scene's have no id.
        let lines = lines.into_iter().filter(|(key, _)| !key.is_empty());
        let runs: Vec<_> = lines.map(|(key, Run { attempt, .. })| (key, attempt)).collect();
        self.runs += runs.len();
        self.ran.extend(runs.iter().cloned());
        let recorded = |run: &&(String, u32)| self.done.contains(&run.0) || self.ended.contains(*run);
        self.again.extend(runs.iter().filter(recorded).cloned());
        runs
    }
}

impl Scene {
    pub fn new(vhost: Vhost, setup: &Setup) -> Self {
        let mut daemon = Daemon::new(&vhost, "");
        let arguments = setup.quorum.then(|| ("x-queue-type".to_owned(), AmqpValue::LongString("quorum".to_owned())));
        vhost.declare_with(QUEUE, arguments.into_iter().collect());
        let then = match setup.handler {
            Kind::Command(then) => then,
            Kind::Worker(..) => "",
        };
        let journal = Journal::new(daemon.folder(), &format!("{HANDLER}\n{then}"));
        let broker = format!("urls = {:?}\n{}", vhost.urls(), setup.broker);
        let handler = match setup.handler {
            Kind::Command(_) => format!("command = {}", journal.command()),
            Kind::Worker(batch, pause) => {
                let program = daemon.folder().join("worker.py");
                fs::write(&program, WORKER).expect("the folder is writable");
                let pause = pause.as_secs_f64().to_string();
                format!("worker = [\"python3\", {program:?}, {pause:?}]\nbatch = {batch}")
            }
        };
        let job = format!(
            "[jobs.work]\n{}\nconcurrency = {}\n[jobs.work.handler]\n{handler}\n\
             [jobs.work.retry]\nmax_attempts = {ATTEMPTS}\ninitial = {:?}\njitter = 0.0\n{}",
            setup.job, setup.concurrency, setup.delay, setup.retry,
        );
        daemon.set_broker(&broker);
        daemon.set_jobs(&job);
        if setup.tap {
            daemon.tapped(&vhost, &[("work", QUEUE)]);
        }
        Self {
            daemon,
            journal,
            vhost,
            setup: *setup,
            published: BTreeMap::new(),
            letters: BTreeMap::new(),
            known: Known::default(),
            outages: 0,
            spendable: 0,
            slowest: Duration::ZERO,
        }
    }

    /// Publishes that many messages of all fates.
    pub fn publish(&mut self, count: usize) {
        let (first, cycle) = (self.published.len(), self.setup.cycle);
        self.publish_fates((first..first + count).map(|number| Fate::of(number, cycle)));
    }

    /// Publishes a message of each of these fates.
    pub fn publish_fates(&mut self, fates: impl IntoIterator<Item = Fate>) {
        let published = &mut self.published;
        let messages = fates.into_iter().map(|fate| {
            let id = format!("{}-{}", fate.name(), published.len());
            published.insert(id.clone(), fate);
            (id.clone().into_bytes(), with_id(&id))
        });
        self.vhost.publish_all(QUEUE, messages);
    }

    /// How many runs the published messages take in a world without crashes.
    pub fn runs_needed(&self) -> usize {
        self.published.values().map(|fate| fate.attempts() as usize).sum()
    }

    /// Waits until the journal has grown by about that many runs, or all that is needed have run, or the daemon ended.
    pub fn wait_for_runs(&mut self, runs: u64) {
        // "plain-1234 1 56789\n"
        const LINE: u64 = 19;
        let enough = self.journal.bytes() + runs * LINE;
        let (journal, all) = (&self.journal, self.runs_needed());
        self.daemon.wait_until("handlers run", WORK_TIMEOUT, |daemon| {
            journal.bytes() >= enough || journal.len() >= all || !daemon.is_alive()
        });
    }

    /// Starts the daemon, and returns once it works, or there is nothing left that it has to run.
    pub fn spawn(&mut self) {
        let started = Instant::now();
        let before = self.journal.len();
        self.daemon.spawn(&[]);
        self.wait_for_runs(1);
        if self.journal.len() > before {
            self.slowest = self.slowest.max(started.elapsed());
        }
    }

    /// Call it when the daemon's connections are taken from it: a copy whose confirm was under way is published again.
    pub fn note_outage(&mut self) {
        self.outages += 1;
    }

    /// Call it before something happens to handlers that may spend so many attempts of messages that did nothing wrong.
    pub fn note_spent(&mut self, attempts: usize) {
        self.spendable += attempts;
    }

    /// Publishes copies of that many plain messages, as a publisher does that saw no confirm. All must be done.
    pub fn publish_again(&self, count: usize) -> usize {
        let plain = self.published.iter().filter(|(_, fate)| **fate == Fate::Plain).take(count);
        let copies: Vec<_> = plain.map(|(id, _)| (id.clone().into_bytes(), with_id(id))).collect();
        let count = copies.len();
        self.vhost.publish_all(QUEUE, copies);
        count
    }

    /// How long it took from `since` to the next run.
    pub fn wait_for_work(&mut self, since: Instant) {
        let (journal, before) = (&self.journal, self.journal.bytes());
        self.daemon.wait_until("work resumes", WORK_TIMEOUT, |_| journal.bytes() > before);
        self.note_resumed(since.elapsed());
    }

    /// It took so long until what a fault had stopped went on.
    pub fn note_resumed(&mut self, took: Duration) {
        self.slowest = self.slowest.max(took);
    }

    /// How many of the messages are to be done.
    pub fn to_be_done(&self) -> usize {
        self.published.len() - self.with_fate(Fate::is_dead).len()
    }

    /// Waits until the daemon has run every attempt and dead-lettered what is to die.
    pub fn wait_until_settled(&mut self) {
        let runs = self.runs_needed();
        let letters = self.with_fate(Fate::is_dead).len() - self.letters.len();
        let (journal, vhost, patience) = (&self.journal, &self.vhost, self.patience());
        let own_runs = || journal.lines().iter().filter(|(key, _)| !key.is_empty()).count();
        self.daemon.wait_until("all is done or dead", patience, |daemon| {
            assert!(daemon.is_alive(), "it ended\n{}", daemon.log_tail());
            own_runs() >= runs && vhost.ready(DEAD).is_some_and(|ready| ready as usize >= letters)
        });
    }

    /// Waits until the daemon has counted as many successes as there are messages to be done, and the dead letters are there.
    /// Not for daemons that were started anew: they count from nothing.
    pub fn wait_until_counted(&mut self) {
        let dead = self.with_fate(Fate::is_dead).len() - self.letters.len();
        let done = self.to_be_done() as u64;
        let (vhost, patience) = (&self.vhost, self.patience());
        self.daemon.wait_until("all is done or dead", patience, |daemon| {
            assert!(daemon.is_alive(), "it ended\n{}", daemon.log_tail());
            let counted = daemon.counter("work", "done");
            assert!(counted <= done, "{counted} successes of {done} messages\n{}", daemon.log_tail());
            counted == done && vhost.ready(DEAD).is_some_and(|ready| ready as usize >= dead)
        });
    }

    /// The slowest handlers do a hundred or two in a second, and half of that on a busy machine.
    fn patience(&self) -> Duration {
        WORK_TIMEOUT + Duration::from_millis(20 * self.published.len() as u64)
    }

    /// Empties the dead-letter queue; what lay there is judged all the same.
    pub fn take_dead_letters(&mut self) {
        for id in self.take_all(DEAD) {
            *self.letters.entry(id).or_default() += 1;
        }
    }

    /// The ids of everything that lies in the queue, which is empty then.
    fn take_all(&self, queue: &str) -> Vec<String> {
        let id = |letter: amiquip::Delivery| letter.properties.message_id().clone().expect("ours have an id");
        self.vhost.drain(queue).into_iter().map(id).collect()
    }

    /// Call it when the daemon has crashed: notes what was recorded by then, and which runs were in vain.
    pub fn note_crash(&mut self) {
        wait_until("handlers end with their daemon", DAEMON_TIMEOUT, || !self.daemon.has_processes());
        let runs = self.known.read(&self.journal);
        let records = Records::of(self.daemon.store_path(), &runs.iter().cloned().collect());
        self.known.in_vain.push(runs.iter().filter(|run| !records.ended.contains(*run)).count());
        self.known.done.extend(records.done);
        self.known.ended.extend(records.ended);
        self.known.owed_dead.extend(records.owed_dead);
    }

    /// Kills the daemon as the kernel does when memory runs out.
    pub fn kill9(&mut self) {
        self.daemon.kill9();
        self.note_crash();
    }

    /// Stops the daemon in good order.
    pub fn stop(&mut self) {
        let status = self.daemon.terminate();
        assert_eq!(status.code(), Some(0), "{}", self.daemon.log_tail());
    }

    /// The same, in the middle of work: what ran must have been recorded, or is found by the next start as in a crash.
    pub fn stop_at_work(&mut self) {
        self.stop();
        self.note_crash();
        let in_vain = self.known.in_vain.pop().expect("it was just noted");
        assert_eq!(in_vain, 0, "runs without a record after a stop in good order\n{}", self.daemon.log_tail());
    }

    /// Lets a new daemon work until nothing is left to do.
    pub fn finish(&mut self) {
        let patience = self.patience();
        self.daemon.spawn(&["--until-empty"]);
        let status = self.daemon.wait_exit(patience);
        assert_eq!(status.code(), Some(0), "{}", self.daemon.log_tail());
    }

    /// Judges everything, once the daemon has ended: see [`Verdict`]. Takes the messages out of all queues. Fails where
    /// something is wrong.
    pub fn judge(&mut self) -> Verdict {
        let verdict = self.verdict();
        assert!(verdict.wrong.is_empty(), "{verdict}\n{}", verdict.wrong.join("\n"));
        verdict
    }

    fn with_fate(&self, wanted: impl Fn(Fate) -> bool) -> BTreeSet<String> {
        self.published.iter().filter(|(_, fate)| wanted(**fate)).map(|(key, _)| key.clone()).collect()
    }
}

/// How long a load may take on a busy machine.
pub const WORK_TIMEOUT: Duration = Duration::from_secs(120);
