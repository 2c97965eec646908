//! The one writer: commits what finished, in groups, and proves it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use log::{debug, error, info, warn};
use rusqlite::{Connection, TransactionBehavior};

use super::{JobId, Store, StoreError};
use crate::failpoint;
use crate::policy::inflight::Mark;
use crate::task::{Committed, Demand, MessageKey, Record, Recorded, Ticket, UnixMillis};

pub(super) const DONE: i64 = 1;
pub(super) const FAILED: i64 = 2;
pub(super) const FORWARDED: i64 = 3;

/// The recorder wakes at least this often, to say that it lives and to prune.
const TICK: Duration = Duration::from_secs(1);
/// How long a full disk is left alone before the commit is tried again.
const FULL_PAUSE: Duration = Duration::from_secs(1);
/// Rows that one pruning step looks at: about a millisecond of work, so that records never wait long behind it.
const PRUNE_ROWS: usize = 1000;
/// Rest between two rounds of pruning over the whole store.
const PRUNE_REST: Duration = Duration::from_secs(60);

/// One job's records, to be committed together.
#[derive(Debug)]
pub struct Batch {
    /// Whose.
    pub job: JobId,
    /// What ended.
    pub records: Vec<Record>,
    /// Failed attempts whose copies are confirmed.
    pub marks: Vec<Mark>,
    /// Gets the proof. A job has one batch under way at a time, so a bound of one never fills.
    pub reply: Sender<Committed>,
}

/// What the recorder can be asked.
#[derive(Debug)]
pub enum Request {
    /// Commit this.
    Commit(Batch),
    /// Say how it is.
    Inspect(Sender<StoreReport>),
}

/// Figures for `status`.
#[derive(Debug, Clone)]
pub struct StoreReport {
    /// The file.
    pub path: PathBuf,
    /// Rows of records.
    pub records: i64,
    /// Bytes of the file; `None` where it cannot be read.
    pub bytes: Option<u64>,
    /// Bytes of its write-ahead log; `None` where it cannot be read.
    pub wal_bytes: Option<u64>,
    /// Commits since the start.
    pub commits: u64,
    /// How long the last one took; `None` before the first.
    pub last_commit: Option<Duration>,
    /// What keeps it from committing.
    pub problem: Option<String>,
}

/// The running recorder thread. It ends once every sender of requests is gone.
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
        beat: impl Fn() + Send + 'static,
        alive: impl Send + 'static,
    ) -> std::io::Result<Self> {
        // One batch for each job, and room for inspections.
        let (requests, inbox) = crossbeam_channel::bounded(retention.len() + 4);
        let thread = std::thread::Builder::new().name("recorder".to_owned()).spawn(move || {
            let _alive = alive;
            let result = Writer::new(store, retention).and_then(|mut writer| writer.run(&inbox, &beat));
            if let Err(error) = &result {
                error!("{error}");
            }
            result
        })?;
        Ok(Self { requests, thread })
    }
}

struct Writer {
    store: Store,
    retention: BTreeMap<JobId, Duration>,
    records: i64,
    commits: u64,
    last_commit: Option<Duration>,
    problem: Option<String>,
    pruned_to: Option<(i64, MessageKey, u32)>,
    prune_at: Instant,
}

impl Writer {
    fn new(store: Store, retention: BTreeMap<JobId, Duration>) -> Result<Self, StoreError> {
        let records = store
            .connection
            .query_row("SELECT value FROM totals WHERE name = 'records'", [], |row| row.get(0))
            .map_err(|error| StoreError::sqlite("read its totals", &error))?;
        Ok(Self {
            store,
            retention,
            records,
            commits: 0,
            last_commit: None,
            problem: None,
            pruned_to: None,
            prune_at: Instant::now(),
        })
    }

    fn run(&mut self, inbox: &Receiver<Request>, beat: &impl Fn()) -> Result<(), StoreError> {
        loop {
            beat();
            match inbox.recv_timeout(self.patience()) {
                // Whatever waits by now goes into the same commit: the busier the jobs, the larger the group.
                Ok(first) => {
                    let batches = self.sort(std::iter::once(first).chain(inbox.try_iter()));
                    if !batches.is_empty() {
                        self.commit(batches, inbox, beat)?;
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            }
            if Instant::now() >= self.prune_at {
                self.prune()?;
            }
        }
    }

    fn patience(&self) -> Duration {
        self.prune_at.saturating_duration_since(Instant::now()).min(TICK)
    }

    /// Answers inspections and gathers batches.
    fn sort(&self, requests: impl Iterator<Item = Request>) -> Vec<Batch> {
        requests
            .filter_map(|request| match request {
                Request::Commit(batch) => Some(batch),
                Request::Inspect(reply) => {
                    // An asker that gave up has dropped its end.
                    let _ = reply.try_send(self.report());
                    None
                }
            })
            .collect()
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
        loop {
            let began = Instant::now();
            failpoint::hit("before-commit");
            match self.write(&batches) {
                Ok(added) => {
                    failpoint::hit("after-commit");
                    self.records += added;
                    self.commits += 1;
                    self.last_commit = Some(began.elapsed());
                    if self.problem.take().is_some() {
                        info!("the store has room again");
                    }
                    for batch in batches {
                        let tickets = batch.records.iter().map(|record| record.ticket).collect::<Vec<Ticket>>();
                        // A job that ended has dropped its end; its messages come again and are found recorded.
                        let _ = batch.reply.try_send(Committed::attest(tickets));
                    }
                    return Ok(());
                }
                Err(StoreError::Full) => {
                    if self.problem.is_none() {
                        warn!("{}", StoreError::Full);
                    }
                    self.problem = Some(StoreError::Full.to_string());
                    batches.extend(self.wait(FULL_PAUSE, inbox, beat));
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Waits, still answering inspections.
    fn wait(&self, pause: Duration, inbox: &Receiver<Request>, beat: &impl Fn()) -> Vec<Batch> {
        let until = Instant::now() + pause;
        let mut batches = Vec::new();
        while let Ok(request) = inbox.recv_deadline(until) {
            batches.extend(self.sort(std::iter::once(request)));
        }
        // With every sender gone `recv_deadline` returns at once; the pause still has to pass.
        std::thread::sleep(until.saturating_duration_since(Instant::now()));
        beat();
        batches
    }

    /// One transaction over all batches; returns how many rows of records were added.
    fn write(&self, batches: &[Batch]) -> Result<i64, StoreError> {
        let write = || {
            let transaction =
                rusqlite::Transaction::new_unchecked(&self.store.connection, TransactionBehavior::Immediate)?;
            let mut added = 0;
            for batch in batches {
                // Neighbours in the tree are written one after the other: fewer pages are searched and changed.
                let mut keyed: Vec<_> =
                    batch.records.iter().filter_map(|r| r.key.as_ref().map(|key| (key, r))).collect();
                keyed.sort_unstable_by_key(|(key, _)| *key);
                for (key, record) in keyed {
                    added += insert(&transaction, batch.job, key, record)?;
                }
                for mark in &batch.marks {
                    set_forwarded(&transaction, batch.job, mark)?;
                }
            }
            if added > 0 {
                add_to_total(&transaction, added)?;
            }
            transaction.commit()?;
            Ok(added)
        };
        write().map_err(|error| StoreError::sqlite("commit", &error))
    }

    /// Looks at the next rows of the store and deletes what its job need not remember any longer.
    fn prune(&mut self) -> Result<(), StoreError> {
        let rows = self.next_rows().map_err(|error| StoreError::sqlite("prune", &error))?;
        let whole = rows.len() == PRUNE_ROWS;
        let now = UnixMillis::now().0;
        let old: Vec<_> = rows.iter().filter(|row| self.is_over(row, now)).collect();
        if !old.is_empty() {
            let delete = || {
                let transaction =
                    rusqlite::Transaction::new_unchecked(&self.store.connection, TransactionBehavior::Immediate)?;
                for row in &old {
                    delete(&transaction, row)?;
                }
                add_to_total(&transaction, -(old.len() as i64))?;
                transaction.commit()
            };
            match delete().map_err(|error: rusqlite::Error| StoreError::sqlite("prune", &error)) {
                Ok(()) => {
                    self.records -= old.len() as i64;
                    debug!("forgot {} records whose retention is over", old.len());
                }
                // Deleting needs room too; a full disk is told when a commit meets it.
                Err(StoreError::Full) => {}
                Err(error) => return Err(error),
            }
        }
        self.pruned_to = rows.into_iter().last().filter(|_| whole).map(|row| (row.job, row.key, row.attempt));
        // A tenth of a second between steps keeps pruning below one percent of a core.
        self.prune_at = Instant::now() + if whole { Duration::from_millis(100) } else { PRUNE_REST };
        Ok(())
    }

    fn is_over(&self, row: &Row, now: i64) -> bool {
        // A job that is no longer configured keeps its keys: it may come back.
        let retention = self.retention.get(&JobId(row.job));
        retention.is_some_and(|kept| row.at < now.saturating_sub(i64::try_from(kept.as_millis()).unwrap_or(i64::MAX)))
    }

    fn next_rows(&self) -> rusqlite::Result<Vec<Row>> {
        let (job, key, attempt) = match &self.pruned_to {
            Some((job, key, attempt)) => (*job, key.as_bytes(), *attempt),
            None => (0, &[][..], 0),
        };
        let mut select = self.store.connection.prepare_cached(
            "SELECT job, key, attempt, at FROM records WHERE (job, key, attempt) > (?1, ?2, ?3)
             ORDER BY job, key, attempt LIMIT ?4",
        )?;
        let rows = select.query_map((job, key, attempt, PRUNE_ROWS as i64), |row| {
            let key = MessageKey::from_bytes(row.get_ref(1)?.as_blob()?);
            Ok(Row { job: row.get(0)?, key, attempt: row.get(2)?, at: row.get(3)? })
        })?;
        rows.collect()
    }

    fn report(&self) -> StoreReport {
        let size = |path: &Path| std::fs::metadata(path).ok().map(|metadata| metadata.len());
        let mut wal = self.store.path.clone().into_os_string();
        wal.push("-wal");
        StoreReport {
            path: self.store.path.clone(),
            records: self.records,
            bytes: size(&self.store.path),
            wal_bytes: size(Path::new(&wal)),
            commits: self.commits,
            last_commit: self.last_commit,
            problem: self.problem.clone(),
        }
    }
}

struct Row {
    job: i64,
    key: MessageKey,
    attempt: u32,
    at: i64,
}

/// Inserts a record; 1 where the row is new. A success overwrites what stood there, nothing overwrites a success.
fn insert(connection: &Connection, job: JobId, key: &MessageKey, record: &Record) -> rusqlite::Result<i64> {
    let outcome = match &record.what {
        Recorded::Done => DONE,
        Recorded::Failed(_) => FAILED,
        Recorded::Forwarded => FORWARDED,
    };
    let mut statement = connection.prepare_cached(
        "INSERT INTO records (job, key, attempt, outcome, at) VALUES (?1, ?2, ?3, ?4, ?5)
         ON CONFLICT DO NOTHING",
    )?;
    let added = statement.execute((job.0, key.as_bytes(), record.attempt, outcome, record.at.0))?;
    if added == 0 && outcome == DONE {
        let mut statement =
            connection.prepare_cached("UPDATE records SET outcome = 1 WHERE job = ?1 AND key = ?2 AND attempt = ?3")?;
        statement.execute((job.0, key.as_bytes(), record.attempt))?;
    }
    if let Recorded::Failed(failed) = &record.what {
        let delay = match failed.demand {
            Demand::Retry { delay } => Some(delay.as_secs() as i64),
            Demand::Dead => None,
        };
        let mut statement = connection.prepare_cached(
            "INSERT INTO failures (job, key, attempt, class, error, delay_s) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
             ON CONFLICT DO NOTHING",
        )?;
        let class = failed.failure.class.as_str();
        statement.execute((job.0, key.as_bytes(), record.attempt, class, &failed.failure.error, delay))?;
    }
    Ok(added as i64)
}

fn set_forwarded(connection: &Connection, job: JobId, mark: &Mark) -> rusqlite::Result<()> {
    let mut statement = connection.prepare_cached(
        "UPDATE records SET outcome = 3 WHERE job = ?1 AND key = ?2 AND attempt = ?3 AND outcome = 2",
    )?;
    statement.execute((job.0, mark.key.as_bytes(), mark.attempt)).map(|_| ())
}

fn add_to_total(connection: &Connection, added: i64) -> rusqlite::Result<()> {
    let mut statement = connection.prepare_cached("UPDATE totals SET value = value + ?1 WHERE name = 'records'")?;
    statement.execute([added]).map(|_| ())
}

fn delete(connection: &Connection, row: &Row) -> rusqlite::Result<()> {
    for table in ["records", "failures"] {
        let sql = format!("DELETE FROM {table} WHERE job = ?1 AND key = ?2 AND attempt = ?3");
        connection.prepare_cached(&sql)?.execute((row.job, row.key.as_bytes(), row.attempt))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, Synchronous};
    use crate::task::{ErrorClass, FailedAttempt, Failure};

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

        /// A reader that starts now: it knows the keys that are there.
        fn reader(&self, job: JobId) -> super::super::Reader {
            super::super::Reader::open(&self.folder.path().join("warrend.db"), job).unwrap()
        }

        fn recorder(&self) -> (Recorder, JobId) {
            let store = self.store();
            let job = store.job_id("j").unwrap();
            let retention = BTreeMap::from([(job, Duration::from_secs(60))]);
            (Recorder::spawn(store, retention, || {}, ()).unwrap(), job)
        }
    }

    fn key(text: &str) -> MessageKey {
        MessageKey::from_text(text)
    }

    fn record(ticket: u64, text: &str, attempt: u32, what: Recorded) -> Record {
        Record { ticket: Ticket(ticket), key: Some(key(text)), attempt, what, at: UnixMillis::now() }
    }

    fn failed(demand: Demand) -> FailedAttempt {
        FailedAttempt {
            failure: Failure { class: ErrorClass::Timeout, error: "late".to_owned() },
            demand,
            at: UnixMillis(5),
        }
    }

    fn commit(recorder: &Recorder, job: JobId, records: Vec<Record>, marks: Vec<Mark>) -> Vec<Ticket> {
        let (reply, committed) = crossbeam_channel::bounded(1);
        recorder.requests.send(Request::Commit(Batch { job, records, marks, reply })).unwrap();
        committed.recv_timeout(Duration::from_secs(10)).unwrap().tickets().to_vec()
    }

    fn report(recorder: &Recorder) -> StoreReport {
        let (reply, report) = crossbeam_channel::bounded(1);
        recorder.requests.send(Request::Inspect(reply)).unwrap();
        report.recv_timeout(Duration::from_secs(10)).unwrap()
    }

    #[test]
    fn what_is_committed_is_found_by_any_reader() {
        let bench = Bench::new();
        let (recorder, job) = bench.recorder();
        let mut retry = failed(Demand::Retry { delay: Duration::from_secs(9) });
        let records = vec![
            record(1, "done", 2, Recorded::Done),
            record(2, "retry", 1, Recorded::Failed(retry.clone())),
            record(3, "dead", 1, Recorded::Failed(failed(Demand::Dead))),
        ];
        retry.at = records[1].at;
        assert_eq!(commit(&recorder, job, records, Vec::new()), [Ticket(1), Ticket(2), Ticket(3)]);
        let keys = ["done", "retry", "dead", "new"].map(key);
        let found = bench.reader(job).look_up(keys.iter().map(|key| (key, 1))).unwrap();
        assert_eq!(found[0], Some(Recorded::Done), "done at any attempt is done");
        assert_eq!(found[1], Some(Recorded::Failed(retry)));
        assert!(matches!(&found[2], Some(Recorded::Failed(failed)) if failed.demand == Demand::Dead));
        assert_eq!(found[3], None);
        assert_eq!(
            bench.reader(job).look_up([(&keys[1], 2)]).unwrap(),
            [None],
            "another attempt of a failed key may run"
        );

        commit(&recorder, job, Vec::new(), vec![Mark { key: keys[1].clone(), attempt: 1 }]);
        assert_eq!(bench.reader(job).look_up([(&keys[1], 1)]).unwrap(), [Some(Recorded::Forwarded)]);
        let report = report(&recorder);
        assert_eq!((report.records, report.commits, report.problem), (3, 2, None));
    }

    #[test]
    fn a_reader_finds_what_was_committed_after_it_began() {
        let bench = Bench::new();
        let (recorder, job) = bench.recorder();
        let mut reader = bench.reader(job);
        assert_eq!(reader.look_up([(&key("a"), 1)]).unwrap(), [None]);
        reader.expect(&key("a"));
        commit(&recorder, job, vec![record(1, "a", 1, Recorded::Done)], Vec::new());
        assert_eq!(reader.look_up([(&key("b"), 1), (&key("a"), 1)]).unwrap(), [None, Some(Recorded::Done)]);
    }

    #[test]
    fn nothing_overwrites_a_success() {
        let bench = Bench::new();
        let (recorder, job) = bench.recorder();
        commit(&recorder, job, vec![record(1, "a", 1, Recorded::Done)], Vec::new());
        commit(&recorder, job, vec![record(2, "a", 1, Recorded::Failed(failed(Demand::Dead)))], Vec::new());
        commit(&recorder, job, Vec::new(), vec![Mark { key: key("a"), attempt: 1 }]);
        assert_eq!(bench.reader(job).look_up([(&key("a"), 1)]).unwrap(), [Some(Recorded::Done)]);
        commit(&recorder, job, vec![record(3, "b", 1, Recorded::Failed(failed(Demand::Dead)))], Vec::new());
        commit(&recorder, job, vec![record(4, "b", 1, Recorded::Done)], Vec::new());
        assert_eq!(bench.reader(job).look_up([(&key("b"), 1)]).unwrap(), [Some(Recorded::Done)]);
        assert_eq!(report(&recorder).records, 2);
    }

    #[test]
    fn jobs_do_not_share_keys_and_a_restart_keeps_them() {
        let bench = Bench::new();
        let (recorder, job) = bench.recorder();
        commit(&recorder, job, vec![record(1, "a", 1, Recorded::Done)], Vec::new());
        drop(recorder.requests);
        recorder.thread.join().unwrap().unwrap();
        let store = bench.store();
        let other = store.job_id("other").unwrap();
        let look = |job| store.reader(job).unwrap().look_up([(&key("a"), 1)]).unwrap().remove(0);
        assert_eq!((look(job), look(other)), (Some(Recorded::Done), None));
    }

    #[test]
    fn pruning_forgets_what_is_over_in_small_steps() {
        let bench = Bench::new();
        let store = bench.store();
        let (kept, pruned) = (store.job_id("kept").unwrap(), store.job_id("pruned").unwrap());
        let retention = BTreeMap::from([(kept, Duration::from_secs(3600)), (pruned, Duration::from_secs(60))]);
        let mut writer = Writer::new(store, retention).unwrap();
        let old = UnixMillis(UnixMillis::now().0 - 120_000);
        let batch = |job, name: &str, at| Batch {
            job,
            records: (0..1500)
                .map(|n| Record { at, ..record(n, &format!("{name}{n}"), 1, Recorded::Failed(failed(Demand::Dead))) })
                .collect(),
            marks: Vec::new(),
            reply: crossbeam_channel::bounded(1).0,
        };
        let batches = [batch(kept, "k", old), batch(pruned, "old", old), batch(pruned, "new", UnixMillis::now())];
        writer.records = writer.write(&batches).unwrap();
        assert_eq!(writer.records, 4500);
        let mut steps = 0;
        while steps == 0 || writer.pruned_to.is_some() {
            writer.prune().unwrap();
            steps += 1;
        }
        assert_eq!(writer.records, 3000);
        assert_eq!(steps, 5, "4500 rows in steps of 1000");
        let found = bench.reader(pruned).look_up([(&key("old7"), 1), (&key("new7"), 1)]).unwrap();
        assert!(found[0].is_none() && found[1].is_some());
        let failures: i64 =
            writer.store.connection.query_row("SELECT count(*) FROM failures", [], |row| row.get(0)).unwrap();
        assert_eq!(failures, 3000, "no failure outlives its record");
    }
}
