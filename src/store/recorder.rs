//! The one writer: commits what finished, in groups, and proves it.

mod requests;

use std::collections::BTreeMap;
use std::path::Path;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use log::{error, info, warn};

use super::audit::{Act, Deed};
use super::ledger::Ledger;
use super::{JobId, Store, StoreError};
use crate::histogram::{COMMITS, Histogram};
use crate::task::{Committed, MessageKey, Ticket, UnixMillis};
use crate::who::Who;
use crate::{background, failpoint};
pub use requests::{Admission, Admitted, Attempt, Batch, Request, StoreReport, Upkeep, Written};

/// The recorder wakes at least this often, to say that it lives.
const TICK: Duration = Duration::from_secs(1);
/// How long a full disk is left alone before the commit is tried again.
const FULL_PAUSE: Duration = Duration::from_secs(1);
/// Between two steps of moving and forgetting while there is nothing to commit: below one percent of a core.
const TEND_PAUSE: Duration = Duration::from_millis(100);
/// Until it is looked again whether something is over.
const TEND_REST: Duration = Duration::from_secs(60);

/// Jobs that may start beside those that the recorder was started for: its inbox has room for a batch of each.
pub const SPARE_JOBS: usize = 256;

/// The running recorder thread. It ends once every sender of requests is gone, or with [`Request::End`].
#[derive(Debug)]
pub struct Recorder {
    /// Bounded: each job has at most one batch in it.
    pub requests: Sender<Request>,
    /// Joins with the error that ended it.
    pub thread: JoinHandle<Result<(), StoreError>>,
}

impl Recorder {
    /// Starts the thread. `retention` says for each job how long its keys are remembered; `beat` is called at least
    /// every few seconds while the recorder lives; `alive` is dropped when it ends for whatever reason.
    pub fn spawn(
        store: Store,
        retention: BTreeMap<JobId, Duration>,
        host: String,
        beat: impl Fn() + Send + 'static,
        alive: impl Send + 'static,
    ) -> std::io::Result<Self> {
        // One batch for each job, also for those that come later, and room for inspections.
        let (requests, inbox) = crossbeam_channel::bounded(retention.len() + SPARE_JOBS + 4);
        let thread = std::thread::Builder::new().name("recorder".to_owned()).spawn(move || {
            let _alive = alive;
            background::enter();
            let result = Ledger::new(store, retention, &host).and_then(|ledger| {
                let mut writer = Writer::new(ledger);
                writer.run(&inbox, &beat)?;
                writer.ledger.tell_ends()?;
                writer.ledger.close()
            });
            if let Err(error) = &result {
                error!("{error}");
            }
            result
        })?;
        Ok(Self { requests, thread })
    }
}

/// The time by which records are forgotten: that of the start, and what passed since. The system's clock may be set while
/// the daemon runs, even by years and back again, and what was forgotten meanwhile would run again.
struct SteadyClock {
    at: UnixMillis,
    since: Instant,
}

impl SteadyClock {
    fn start() -> Self {
        Self { at: UnixMillis::now(), since: Instant::now() }
    }

    fn now(&self) -> UnixMillis {
        let passed = i64::try_from(self.since.elapsed().as_millis()).unwrap_or(i64::MAX);
        UnixMillis(self.at.0.saturating_add(passed))
    }
}

struct Writer {
    ledger: Ledger,
    commits: u64,
    last_commit: Option<Duration>,
    commit_times: Histogram,
    problem: Option<String>,
    tend_at: Instant,
    clock: SteadyClock,
    /// What was asked for last, and how many records were forgotten before.
    upkeep: Upkeep,
    forgotten_before: u64,
    /// It ended early, because the disk is full.
    cut_short: bool,
    /// It was told to end.
    ending: bool,
}

impl Writer {
    fn new(ledger: Ledger) -> Self {
        Self {
            ledger,
            commits: 0,
            last_commit: None,
            commit_times: Histogram::new(&COMMITS),
            problem: None,
            tend_at: Instant::now(),
            clock: SteadyClock::start(),
            upkeep: Upkeep { done: true, ..Upkeep::default() },
            forgotten_before: 0,
            cut_short: false,
            ending: false,
        }
    }

    fn run(&mut self, inbox: &Receiver<Request>, beat: &impl Fn()) -> Result<(), StoreError> {
        loop {
            beat();
            match inbox.recv_timeout(self.patience()) {
                // Whatever waits by now goes into the same commit: the busier the jobs, the larger the group.
                Ok(first) => {
                    let batches = self.sort(std::iter::once(first).chain(inbox.try_iter()))?;
                    if !batches.is_empty() {
                        self.commit(batches, inbox, beat)?;
                    }
                    if self.ending {
                        return Ok(());
                    }
                }
                Err(RecvTimeoutError::Timeout) => self.ledger.check_place()?,
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            }
            if !self.upkeep.done {
                self.keep_up()?;
            } else if Instant::now() >= self.tend_at {
                let more = match self.ledger.tend(self.clock.now()) {
                    // A full disk is told when a commit meets it.
                    Err(StoreError::Full) => false,
                    tended => tended?,
                };
                self.tend_at = Instant::now() + if more { TEND_PAUSE } else { TEND_REST };
            }
            self.ledger.shorten_log()?;
        }
    }

    fn admit(&mut self, job: &Admission) -> Result<Admitted, StoreError> {
        let store = self.ledger.store();
        let id = store.job_id(&job.name)?;
        if job.forgets_starts {
            store.forget_starts(id)?;
        }
        let (pause, path, recent) = (store.pause(id)?, store.path.clone(), store.recent.clone());
        self.ledger.set_retention(id, Some(job.retention));
        Ok(Admitted { id, pause, path, recent })
    }

    fn patience(&self) -> Duration {
        if !self.upkeep.done {
            return Duration::ZERO;
        }
        self.tend_at.saturating_duration_since(Instant::now()).min(TICK)
    }

    /// Carries out what is small, and gathers batches.
    fn sort(&mut self, requests: impl Iterator<Item = Request>) -> Result<Vec<Batch>, StoreError> {
        let mut batches = Vec::new();
        for request in requests {
            match request {
                Request::Commit(batch) => batches.push(batch),
                Request::Pause(job, pause, deed, reply) => {
                    let done = self.ledger.set_pause(job, pause.as_ref(), &deed);
                    answer(&reply, done)?;
                }
                Request::Forget(job, key, by, reply) => {
                    let done = self.forget(&job, key.as_ref(), by);
                    answer(&reply, done)?;
                }
                Request::Upkeep(by, reply) => {
                    let begun = by.map_or(Ok(()), |by| self.prune(by));
                    let far = begun.and(if self.cut_short { Err(StoreError::Full) } else { Ok(self.upkeep) });
                    answer(&reply, far)?;
                }
                Request::Note(deed, reply) => {
                    let done = self.ledger.note(&deed);
                    answer(&reply, done)?;
                }
                Request::Admit(job, reply) => {
                    let done = self.admit(&job);
                    answer(&reply, done)?;
                }
                Request::Retain(job, kept) => {
                    self.ledger.set_retention(job, kept);
                    self.tend_at = Instant::now();
                }
                Request::Inspect(reply) => {
                    // An asker that gave up has dropped its end.
                    let _ = reply.try_send(self.report());
                }
                Request::End => self.ending = true,
            }
        }
        Ok(batches)
    }

    fn forget(&mut self, job: &str, key: Option<&MessageKey>, by: Who) -> Result<Upkeep, StoreError> {
        let Some(id) = self.ledger.find_job(job)? else {
            return Ok(Upkeep { done: true, ..Upkeep::default() });
        };
        let deed = Deed::forgot(by, job, key);
        match key {
            Some(key) => Ok(Upkeep { forgotten: self.ledger.forget_key(id, key, &deed)?, given_back: 0, done: true }),
            None => {
                self.ledger.forget_all(id, &deed)?;
                self.begin_upkeep();
                Ok(self.upkeep)
            }
        }
    }

    fn prune(&mut self, by: Who) -> Result<(), StoreError> {
        self.ledger.note(&Deed::new(by, Act::Pruned))?;
        if self.upkeep.done {
            self.begin_upkeep();
        }
        Ok(())
    }

    fn begin_upkeep(&mut self) {
        self.forgotten_before = self.ledger.forgotten();
        self.upkeep = Upkeep::default();
        self.cut_short = false;
    }

    /// A small step of what was asked for. Batches come between two of them, and wait no longer than for other work.
    fn keep_up(&mut self) -> Result<(), StoreError> {
        let more = match self.ledger.tend(self.clock.now()) {
            Err(StoreError::Full) => {
                self.cut_short = true;
                false
            }
            tended => tended?,
        };
        self.upkeep.forgotten = self.ledger.forgotten() - self.forgotten_before;
        if !more {
            let given_back = self.ledger.give_back()?;
            self.upkeep.given_back += given_back;
            self.upkeep.done = given_back == 0;
        }
        if self.upkeep.done {
            let Upkeep { forgotten, given_back, .. } = self.upkeep;
            let why = if self.cut_short { ", and then its disk was full" } else { "" };
            info!("the store has forgotten {forgotten} records, and gave {given_back} bytes back to the disk{why}");
            self.ledger.end_forgetting();
            self.ledger.empty_log()?;
        }
        Ok(())
    }

    /// Commits until it is done. A full disk is waited out, and meanwhile nothing is acknowledged, for nobody gets a
    /// proof; every other error ends the daemon, because a failed sync must never be tried again as if it had not
    /// happened.
    fn commit(
        &mut self,
        mut batches: Vec<Batch>,
        inbox: &Receiver<Request>,
        beat: &impl Fn(),
    ) -> Result<(), StoreError> {
        // So many of the batches belong to jobs that know that they wait.
        let mut told = 0;
        loop {
            let began = Instant::now();
            failpoint::hit("before-commit");
            match self.ledger.commit(&batches) {
                Ok(()) => {
                    failpoint::hit("after-commit");
                    self.commits += 1;
                    let took = began.elapsed();
                    self.last_commit = Some(took);
                    self.commit_times.add_time(took);
                    if self.problem.take().is_some() {
                        info!("the store has room again: what waited is recorded, and the jobs go on");
                    }
                    for batch in batches {
                        let tickets = batch.records.iter().map(|record| record.ticket).collect::<Vec<Ticket>>();
                        // A job that ended has dropped its end; its messages come again and are found recorded.
                        let _ = batch.reply.try_send(Written::Committed(Committed::attest(tickets)));
                    }
                    return Ok(());
                }
                Err(StoreError::Full) => {
                    if self.problem.is_none() {
                        warn!("{}; no job takes messages meanwhile", StoreError::Full);
                    }
                    self.problem = Some(StoreError::Full.to_string());
                    for batch in &batches[told..] {
                        let _ = batch.reply.try_send(Written::Waits);
                    }
                    told = batches.len();
                    batches.extend(self.wait(FULL_PAUSE, inbox, beat)?);
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Waits, still answering inspections. At the end there is nobody left to wait for.
    fn wait(&mut self, pause: Duration, inbox: &Receiver<Request>, beat: &impl Fn()) -> Result<Vec<Batch>, StoreError> {
        let until = Instant::now() + pause;
        let mut batches = Vec::new();
        loop {
            match inbox.recv_deadline(until) {
                Ok(request) => batches.extend(self.sort(std::iter::once(request))?),
                Err(RecvTimeoutError::Timeout) => break,
                Err(RecvTimeoutError::Disconnected) => self.ending = true,
            }
            if self.ending {
                let reason = "its disk is still full; those messages go back to their queues and run again";
                return Err(StoreError::failed("record what has finished", reason));
            }
        }
        beat();
        self.ledger.check_place()?;
        Ok(batches)
    }

    fn report(&self) -> StoreReport {
        let size = |path: &Path| std::fs::metadata(path).ok().map(|metadata| metadata.len());
        let mut wal = self.ledger.path().to_owned().into_os_string();
        wal.push("-wal");
        let disk = rustix::fs::statvfs(self.ledger.path()).ok();
        StoreReport {
            path: self.ledger.path().to_owned(),
            records: self.ledger.records(),
            bytes: size(self.ledger.path()),
            wal_bytes: size(Path::new(&wal)),
            free_bytes: disk.as_ref().map(|disk| disk.f_bavail.saturating_mul(disk.f_frsize)),
            disk_bytes: disk.as_ref().map(|disk| disk.f_blocks.saturating_mul(disk.f_frsize)),
            commits: self.commits,
            commit_times: self.commit_times.clone(),
            last_commit: self.last_commit,
            problem: self.problem.clone().or_else(|| self.ledger.problem()),
        }
    }
}

/// Passes on what came of a request. A full disk is the asker's to hear of; any other failure is everybody's.
fn answer<T>(reply: &Sender<Result<T, StoreError>>, done: Result<T, StoreError>) -> Result<(), StoreError> {
    let failed = done.as_ref().err().filter(|error| !matches!(error, StoreError::Full)).cloned();
    // An asker that gave up has dropped its end.
    let _ = reply.try_send(done);
    failed.map_or(Ok(()), Err)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::config::{self, Synchronous};
    use crate::policy::inflight::Mark;
    use crate::store::{Reader, list_audit, recent::Shared};
    use crate::task::{Demand, ErrorClass, FailedAttempt, Failure, MessageKey, Record, Recorded};

    struct Bench {
        folder: tempfile::TempDir,
    }

    impl Bench {
        fn new() -> Self {
            Self { folder: tempfile::tempdir().unwrap() }
        }

        fn store(&self) -> Store {
            Store::open(&config::Store {
                path: self.folder.path().join("warrend.db"),
                synchronous: Synchronous::Full,
                retention: Duration::from_secs(60),
            })
            .unwrap()
        }

        fn recorder(&self) -> Running {
            let store = self.store();
            let job = store.job_id("j").unwrap();
            let retention = BTreeMap::from([(job, Duration::from_secs(60))]);
            let (path, recent) = (store.path.clone(), store.recent.clone());
            Running {
                recorder: Recorder::spawn(store, retention, "host".to_owned(), || {}, ()).unwrap(),
                job,
                path,
                recent,
            }
        }
    }

    fn key(text: &str) -> MessageKey {
        MessageKey::from_text(text)
    }

    fn record(ticket: u64, text: &str, attempt: u32, what: Recorded) -> Record {
        let (at, ran) = (UnixMillis::now(), Duration::ZERO);
        Record { ticket: Ticket(ticket), key: Some(key(text)), attempt, what, at, ran, exit: None, first_seen: at }
    }

    fn failed(demand: Demand) -> FailedAttempt {
        FailedAttempt {
            failure: Failure { class: ErrorClass::Timeout, error: "late".to_owned() },
            demand,
            at: UnixMillis(5),
        }
    }

    struct Running {
        recorder: Recorder,
        job: JobId,
        path: PathBuf,
        recent: Shared,
    }

    impl Running {
        fn commit(&self, records: Vec<Record>, marks: Vec<Mark>) -> Vec<Ticket> {
            let (reply, committed) = crossbeam_channel::bounded(1);
            self.recorder
                .requests
                .send(Request::Commit(Batch {
                    job: self.job,
                    records,
                    marks,
                    starts: Vec::new(),
                    unstarted: Vec::new(),
                    reply,
                }))
                .unwrap();
            match committed.recv_timeout(Duration::from_secs(10)).unwrap() {
                Written::Committed(committed) => committed.tickets().to_vec(),
                Written::Waits => panic!("the disk of the tests has room"),
            }
        }

        fn report(&self) -> StoreReport {
            let (reply, report) = crossbeam_channel::bounded(1);
            self.recorder.requests.send(Request::Inspect(reply)).unwrap();
            report.recv_timeout(Duration::from_secs(10)).unwrap()
        }

        /// A reader that starts now: it knows the keys that are there.
        fn reader(&self) -> Reader {
            Reader::open(&self.path, self.job, self.recent.clone()).unwrap()
        }
    }

    #[test]
    fn what_is_committed_is_found_by_any_reader() {
        let bench = Bench::new();
        let running = bench.recorder();
        let mut retry = failed(Demand::Retry { delay: Duration::from_secs(9) });
        let records = vec![
            record(1, "done", 2, Recorded::Done),
            record(2, "retry", 1, Recorded::Failed(retry.clone())),
            record(3, "dead", 1, Recorded::Failed(failed(Demand::Dead))),
        ];
        retry.at = records[1].at;
        assert_eq!(running.commit(records, Vec::new()), [Ticket(1), Ticket(2), Ticket(3)]);
        let keys = ["done", "retry", "dead", "new"].map(key);
        let found = running.reader().look_up(keys.iter().map(|key| (key, 1))).unwrap();
        assert_eq!(found[0], Some(Recorded::Done), "done at any attempt is done");
        assert_eq!(found[1], Some(Recorded::Failed(retry)));
        assert!(matches!(&found[2], Some(Recorded::Failed(failed)) if failed.demand == Demand::Dead));
        assert_eq!(found[3], None);
        // Only what was given up is in the audit trail.
        let mut trail = Vec::new();
        list_audit::<StoreError>(&running.path, None, Some("j"), &mut |row| {
            trail.push((row.act, row.key, row.detail));
            Ok(())
        })
        .unwrap();
        assert_eq!(trail, [("dead".to_owned(), Some(keys[2].clone()), Some("timeout".to_owned()))]);
        assert_eq!(
            running.reader().look_up([(&keys[1], 2)]).unwrap(),
            [None],
            "another attempt of a failed key may run"
        );

        running.commit(Vec::new(), vec![Mark { key: keys[1].clone(), attempt: 1 }]);
        assert_eq!(running.reader().look_up([(&keys[1], 1)]).unwrap(), [Some(Recorded::Forwarded)]);
        let report = running.report();
        assert_eq!((report.records, report.commits, report.problem), (3, 2, None));
    }

    #[test]
    fn a_reader_finds_what_was_committed_after_it_began() {
        let bench = Bench::new();
        let running = bench.recorder();
        let mut reader = running.reader();
        assert_eq!(reader.look_up([(&key("a"), 1)]).unwrap(), [None]);
        reader.expect(&key("a"));
        running.commit(vec![record(1, "a", 1, Recorded::Done)], Vec::new());
        assert_eq!(reader.look_up([(&key("b"), 1), (&key("a"), 1)]).unwrap(), [None, Some(Recorded::Done)]);
    }

    #[test]
    fn nothing_overwrites_a_success() {
        let bench = Bench::new();
        let running = bench.recorder();
        running.commit(vec![record(1, "a", 1, Recorded::Done)], Vec::new());
        running.commit(vec![record(2, "a", 1, Recorded::Failed(failed(Demand::Dead)))], Vec::new());
        running.commit(Vec::new(), vec![Mark { key: key("a"), attempt: 1 }]);
        assert_eq!(running.reader().look_up([(&key("a"), 1)]).unwrap(), [Some(Recorded::Done)]);
        running.commit(vec![record(3, "b", 1, Recorded::Failed(failed(Demand::Dead)))], Vec::new());
        running.commit(vec![record(4, "b", 1, Recorded::Done)], Vec::new());
        assert_eq!(running.reader().look_up([(&key("b"), 1)]).unwrap(), [Some(Recorded::Done)]);
        assert_eq!(running.report().records, 2);
    }

    #[test]
    fn a_job_is_admitted_while_others_work() {
        let bench = Bench::new();
        let running = bench.recorder();
        running.commit(vec![record(1, "a", 1, Recorded::Done)], Vec::new());
        let admit = |name: &str| {
            let (reply, admitted) = crossbeam_channel::bounded(1);
            let job = Admission { name: name.into(), retention: Duration::from_secs(9), forgets_starts: true };
            running.recorder.requests.send(Request::Admit(job, reply)).unwrap();
            admitted.recv_timeout(Duration::from_secs(10)).unwrap().unwrap()
        };
        let known = admit("j");
        assert_eq!((known.id, known.pause.clone()), (running.job, None));
        assert_eq!(known.reader().unwrap().look_up([(&key("a"), 1)]).unwrap(), [Some(Recorded::Done)]);
        let new = admit("new");
        assert_ne!(new.id, running.job);
        assert_eq!(new.reader().unwrap().look_up([(&key("a"), 1)]).unwrap(), [None]);
    }

    #[test]
    fn what_is_kept_for_less_time_is_forgotten_soon() {
        let bench = Bench::new();
        let running = bench.recorder();
        running.commit(vec![record(1, "a", 1, Recorded::Done)], Vec::new());
        assert_eq!(running.report().records, 1);
        let until = Instant::now() + Duration::from_secs(10);
        while running.report().records > 0 {
            assert!(Instant::now() < until, "it is still kept");
            // A look that came before the millisecond was over would be the last one for a minute; each of these brings one.
            let shorter = Request::Retain(running.job, Some(Duration::from_millis(1)));
            running.recorder.requests.send(shorter).unwrap();
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    #[test]
    fn jobs_do_not_share_keys_and_a_restart_keeps_them() {
        let bench = Bench::new();
        let running = bench.recorder();
        running.commit(vec![record(1, "a", 1, Recorded::Done)], Vec::new());
        let job = running.job;
        drop(running.recorder.requests);
        running.recorder.thread.join().unwrap().unwrap();
        let store = bench.store();
        let other = store.job_id("other").unwrap();
        let look = |job| store.reader(job).unwrap().look_up([(&key("a"), 1)]).unwrap().remove(0);
        assert_eq!((look(job), look(other)), (Some(Recorded::Done), None));
    }
}
