//! A daemon at work on a load whose every message has a known fate, and the judgement of what became of it.
//!
//! The tests of crashes and outages share it: whatever is done to daemon or broker in the middle, at the end nothing is
//! lost, nothing that was recorded ran again, and each message lies where its fate says.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::support::broker::{Vhost, with_id};
use crate::support::daemon::{DAEMON_TIMEOUT, Daemon};
use crate::support::journal::{Journal, Run};
use crate::support::records::Records;
use crate::support::wait_until;

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
    /// Of ten messages seven are plain, and each other fate has one.
    fn of(number: usize) -> Self {
        match number % 10 {
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

/// How the daemon of a scene is configured.
pub struct Setup {
    /// Lines of `[broker]` after its URL.
    pub broker: &'static str,
    /// Lines of `[jobs.work]`.
    pub job: &'static str,
    /// Handlers at one time.
    pub concurrency: usize,
    /// What follows [`HANDLER`] in the handler's script.
    pub handler: &'static str,
}

impl Default for Setup {
    /// Reconnects quickly, so that tests of outages do.
    fn default() -> Self {
        Self {
            broker: "reconnect = { initial = \"50ms\", max = \"500ms\" }",
            job: "queue = \"work\"",
            concurrency: 4,
            handler: "",
        }
    }
}

/// One job, its daemon, and everything that was published to it.
pub struct Scene {
    pub daemon: Daemon,
    pub journal: Journal,
    pub vhost: Vhost,
    concurrency: usize,
    published: BTreeMap<String, Fate>,
    /// Dead letters that were taken out of their queue so far, by id.
    letters: BTreeMap<String, usize>,
    crashes: Crashes,
    outages: usize,
}

/// What the store held after each crash of the daemon.
#[derive(Default)]
struct Crashes {
    /// By crash: the attempts that had run, or begun to, without a record. They run again.
    in_vain: Vec<usize>,
    /// The journal's length at the last crash.
    runs: usize,
    /// By key: how many runs the journal held when the key was first seen done.
    done: BTreeMap<String, usize>,
    /// By key and attempt: the same for its record, whatever the outcome.
    ended: BTreeMap<(String, u32), usize>,
    /// Keys whose dead letter was owed at one of the crashes.
    owed_dead: BTreeSet<String>,
}

/// Figures of a scene that was judged and found right.
pub struct Verdict {
    pub messages: usize,
    pub crashes: usize,
    /// Runs of handlers, and how many of them a world without crashes would have spared.
    pub runs: usize,
    pub extra_runs: usize,
    /// Messages that lie in the dead-letter queue, and those of them that lie there twice.
    pub dead: usize,
    pub doubled: usize,
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { messages, crashes, runs, extra_runs, dead, doubled } = self;
        write!(
            f,
            "{messages} messages, {crashes} crashes, {runs} runs, {extra_runs} of them again, {dead} dead, {doubled} of them twice"
        )
    }
}

impl Scene {
    pub fn new(vhost: Vhost, setup: &Setup) -> Self {
        vhost.declare(QUEUE);
        let mut daemon = Daemon::new(&vhost, "");
        let journal = Journal::new(daemon.folder(), &format!("{HANDLER}\n{}", setup.handler));
        let broker = format!("urls = [{:?}]\n{}", vhost.url(), setup.broker);
        let job = format!(
            "[jobs.work]\n{}\nconcurrency = {}\n\
             [jobs.work.handler]\ncommand = {}\n\
             [jobs.work.retry]\nmax_attempts = {ATTEMPTS}\ninitial = \"1s\"\njitter = 0.0",
            setup.job,
            setup.concurrency,
            journal.command()
        );
        daemon.set_broker(&broker);
        daemon.set_jobs(&job);
        Self {
            daemon,
            journal,
            vhost,
            concurrency: setup.concurrency,
            published: BTreeMap::new(),
            letters: BTreeMap::new(),
            crashes: Crashes::default(),
            outages: 0,
        }
    }

    /// Publishes that many messages of all fates.
    pub fn publish(&mut self, count: usize) {
        let first = self.published.len();
        self.publish_fates((first..first + count).map(Fate::of));
    }

    /// Publishes a message of each of these fates.
    pub fn publish_fates(&mut self, fates: impl IntoIterator<Item = Fate>) {
        let messages: Vec<_> = fates
            .into_iter()
            .map(|fate| {
                let id = format!("{}-{}", fate.name(), self.published.len());
                self.published.insert(id.clone(), fate);
                (id.clone().into_bytes(), with_id(&id))
            })
            .collect();
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

    /// Call it when the daemon's connections are taken from it: a copy whose confirm was under way is published again.
    pub fn note_outage(&mut self) {
        self.outages += 1;
    }

    /// Waits until the daemon has run every attempt and dead-lettered what is to die.
    pub fn wait_until_settled(&mut self) {
        let runs = self.runs_needed();
        let letters = self.with_fate(Fate::is_dead).len() - self.letters.len();
        let (journal, vhost) = (&self.journal, &self.vhost);
        self.daemon.wait_until("all is done or dead", WORK_TIMEOUT, |daemon| {
            assert!(daemon.is_alive(), "it ended\n{}", daemon.log_tail());
            lines(journal).len() >= runs && vhost.ready(DEAD).is_some_and(|ready| ready as usize >= letters)
        });
    }

    /// Empties the dead-letter queue; what lay there is judged all the same.
    pub fn take_dead_letters(&mut self) {
        for letter in self.vhost.drain(DEAD) {
            let id = letter.properties.message_id().clone();
            *self.letters.entry(id.expect("ours have an id")).or_default() += 1;
        }
    }

    /// Call it when the daemon has crashed: notes what was recorded by then, and which runs were in vain.
    pub fn note_crash(&mut self) {
        wait_until("handlers end with their daemon", DAEMON_TIMEOUT, || !self.daemon.has_processes());
        let lines = lines(&self.journal);
        let runs = lines.len();
        let records = Records::read(self.daemon.store_path());
        let crashes = &mut self.crashes;
        let in_vain = lines[crashes.runs..]
            .iter()
            .filter(|(key, run)| !records.ended.contains(&(key.clone(), run.attempt)))
            .count();
        crashes.runs = runs;
        crashes.in_vain.push(in_vain);
        crashes.owed_dead.extend(records.owed_dead);
        for key in records.done {
            crashes.done.entry(key).or_insert(runs);
        }
        for attempt in records.ended {
            crashes.ended.entry(attempt).or_insert(runs);
        }
    }

    /// Stops the daemon in good order.
    pub fn stop(&mut self) {
        let status = self.daemon.terminate();
        assert_eq!(status.code(), Some(0), "{}", self.daemon.log_tail());
    }

    /// Lets a new daemon work until nothing is left to do.
    pub fn finish(&mut self) {
        self.daemon.spawn(&["--until-empty"]);
        let status = self.daemon.wait_exit(WORK_TIMEOUT);
        assert_eq!(status.code(), Some(0), "{}", self.daemon.log_tail());
    }

    /// Judges everything, once the daemon has ended. Takes the dead letters out of their queue.
    pub fn judge(&mut self) -> Verdict {
        self.judge_what_is_left();
        let (dead, doubled) = self.judge_dead_letters();
        self.judge_records();
        let (runs, extra_runs) = self.judge_runs();
        Verdict { messages: self.published.len(), crashes: self.crashes.in_vain.len(), runs, extra_runs, dead, doubled }
    }

    /// Nothing waits in the work queue or on the ladder.
    fn judge_what_is_left(&self) {
        for queue in self.vhost.queues() {
            if queue != DEAD {
                assert_eq!(self.vhost.ready(&queue), Some(0), "messages in {queue}");
            }
        }
    }

    /// Every message that is to die lies in the dead-letter queue, and no other. Twice lies at most one whose copy was
    /// owed when the daemon crashed, or was under way in an outage.
    fn judge_dead_letters(&mut self) -> (usize, usize) {
        self.take_dead_letters();
        let found = &self.letters;
        let dead: BTreeSet<_> = found.keys().cloned().collect();
        same("dead letters", &self.with_fate(Fate::is_dead), &dead);
        let doubled: Vec<_> = found.iter().filter(|(_, count)| **count > 1).collect();
        let may_double = |key: &String| self.outages > 0 || self.crashes.owed_dead.contains(key);
        let most = 1 + self.crashes.in_vain.len() + self.outages;
        let wrong: Vec<_> = doubled.iter().filter(|(key, count)| **count > most || !may_double(key)).collect();
        assert!(wrong.is_empty(), "dead letters too often: {wrong:?}");
        (dead.len(), doubled.len())
    }

    /// Every message that is to be done is recorded so, and no other.
    fn judge_records(&self) {
        let records = Records::read(self.daemon.store_path());
        same("done", &self.with_fate(|fate| !fate.is_dead()), &records.done);
        // The mark that a copy was confirmed may follow the ack; a crash in between loses it, and nothing else does.
        let unmarked: Vec<_> = records.owed_dead.difference(&self.crashes.owed_dead).collect();
        assert!(unmarked.is_empty(), "dead letters that the store does not know to be confirmed: {unmarked:?}");
    }

    /// Each attempt ran, none after its record, and not more of them twice than were running at the crashes.
    fn judge_runs(&self) -> (usize, usize) {
        let lines = lines(&self.journal);
        let mut seen = BTreeSet::new();
        for (number, (key, run)) in lines.iter().enumerate() {
            let attempt = (key.clone(), run.attempt);
            let recorded = [self.crashes.done.get(key), self.crashes.ended.get(&attempt)];
            for known in recorded.into_iter().flatten() {
                assert!(number < *known, "{key} (attempt {}) ran again after its record", run.attempt);
            }
            seen.insert(attempt);
        }
        let needed =
            self.published.iter().flat_map(|(key, fate)| (1..=fate.attempts()).map(|attempt| (key.clone(), attempt)));
        same("attempts that ran", &needed.collect(), &seen);
        let extra = lines.len() - self.runs_needed();
        let in_vain = &self.crashes.in_vain;
        assert_eq!(extra, in_vain.iter().sum::<usize>(), "runs that a crash explains");
        assert!(
            in_vain.iter().all(|runs| *runs <= self.concurrency),
            "more runs without a record than workers, by crash: {in_vain:?}"
        );
        (lines.len(), extra)
    }

    fn with_fate(&self, wanted: impl Fn(Fate) -> bool) -> BTreeSet<String> {
        self.published.iter().filter(|(_, fate)| wanted(**fate)).map(|(key, _)| key.clone()).collect()
    }
}

/// The runs of the scene's own messages: others have no id.
fn lines(journal: &Journal) -> Vec<(String, Run)> {
    let mut lines = journal.lines();
    lines.retain(|(key, _)| !key.is_empty());
    lines
}

/// How long a load may take on a busy machine.
pub const WORK_TIMEOUT: Duration = Duration::from_secs(120);

fn same<T: Ord + std::fmt::Debug>(what: &str, expected: &BTreeSet<T>, found: &BTreeSet<T>) {
    let some = |set: Vec<&T>| format!("{} such as {:?}", set.len(), &set[..set.len().min(5)]);
    let missing: Vec<_> = expected.difference(found).collect();
    let surplus: Vec<_> = found.difference(expected).collect();
    assert!(missing.is_empty() && surplus.is_empty(), "{what}: missing {}; too many {}", some(missing), some(surplus));
}

/// A number from the environment, for the long form of a test.
pub fn number_from(name: &str, default: usize) -> usize {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name} is no number: {text}")),
        Err(_) => default,
    }
}
