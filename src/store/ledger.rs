//! The tables of records: a commit appends to `recent`, and what has gathered there moves to a generation of `records`.
//!
//! Why not one table in the order of its keys: most keys are random, so each record would change a page of its own, and the
//! write-ahead log takes whole pages. Appending changes a page for every few dozen records, and a generation is written in
//! its own order, so that the cost of a record is the same whatever the size of the store. The price is paid by look-ups,
//! which search every generation; the filter of each reader spares nearly all of them.
//!
//! Every step is small and belongs to a transaction, so a crash costs nothing but the step: the rows of a move that was not
//! finished are deleted at the next start, and it begins again.

mod deeds;
mod forget;
mod generations;
mod prune;
mod retention;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rusqlite::{Connection, Transaction, TransactionBehavior};

use generations::{Generation, Stage};
use prune::Pruning;
use retention::Retention;

use super::recent::{Ended, Entry, Id, Outcome, Recent};
use super::recorder::{Attempt, Batch};
use super::{JobId, Store, StoreError};
use crate::task::{Demand, FailedAttempt, Failure, MessageKey, Record, Recorded, UnixMillis};

/// Records of a generation.
///
/// Their hash table has 2^16 places, of which seven in eight may be taken before it doubles.
const GENERATION: usize = 50_000;

/// The store's writing side.
#[derive(Debug)]
pub struct Ledger {
    store: Store,
    retention: Retention,
    next_seq: i64,
    /// Rows of `recent` up to this one are deleted.
    cleared_to: i64,
    generations: BTreeMap<i64, Generation>,
    /// Jobs that have, or had, rows in `starts`.
    starting: BTreeSet<JobId>,
    /// When the first of the young records is over, Unix milliseconds.
    young_until: i64,
    stage: Stage,
    /// Records of a generation that is whole. Freeing them takes milliseconds, so it is done little by little.
    moved: Vec<(Id, Entry)>,
    pruning: Option<Pruning>,
    /// Records that were pruned since the start.
    forgotten: u64,
    /// Young records that are enough for a generation.
    enough: usize,
    /// Rows that one pruning step looks at.
    pruned_at_once: usize,
}

impl Ledger {
    /// Takes over the store, whose jobs run on this host from now on.
    pub fn new(store: Store, retention: BTreeMap<JobId, Duration>, host: &str) -> Result<Self, StoreError> {
        let ledger = Self::on_behalf(store, retention)?;
        ledger.note_host(host).map_err(|error| StoreError::sqlite("note its host", &error))?;
        Ok(ledger)
    }

    /// The same where no job runs.
    pub fn on_behalf(store: Store, retention: BTreeMap<JobId, Duration>) -> Result<Self, StoreError> {
        let mut ledger = Self {
            store,
            retention: Retention::new(retention),
            next_seq: 1,
            cleared_to: 0,
            generations: BTreeMap::new(),
            starting: BTreeSet::new(),
            young_until: i64::MAX,
            stage: Stage::Resting,
            moved: Vec::new(),
            pruning: None,
            forgotten: 0,
            enough: GENERATION,
            pruned_at_once: prune::AT_ONCE,
        };
        ledger.load().map_err(|error| StoreError::sqlite("read its generations", &error))?;
        Ok(ledger)
    }

    fn load(&mut self) -> rusqlite::Result<()> {
        let connection = &self.store.connection;
        let number = |query| connection.query_row(query, [], |row| row.get::<_, i64>(0));
        self.cleared_to = number("SELECT coalesce(max(through), 0) FROM generations")?;
        self.next_seq = 1 + number("SELECT coalesce(max(seq), 0) FROM recent")?.max(self.cleared_to);
        let mut select = connection.prepare("SELECT id, rows FROM generations")?;
        // Nothing is known about the ages in them, so each is walked once.
        let found = select.query_map([], |row| Ok((row.get(0)?, Generation { rows: row.get(1)?, until: i64::MIN })))?;
        self.generations = found.collect::<rusqlite::Result<_>>()?;
        // What the broker never delivered again, because somebody else took it from its queue.
        for (job, kept) in self.retention.kept() {
            let since = UnixMillis::now().0.saturating_sub(i64::try_from(kept.as_millis()).unwrap_or(i64::MAX));
            connection.execute("DELETE FROM starts WHERE job = ?1 AND at < ?2", (job.0, since))?;
        }
        let mut select = connection.prepare("SELECT DISTINCT job FROM starts")?;
        self.starting = select.query_map([], |row| row.get(0).map(JobId))?.collect::<rusqlite::Result<_>>()?;
        self.young_until = self.first_young_end();
        Ok(())
    }

    /// A store is rarely moved, and a host is rarely renamed: a row for each time says where every attempt ran.
    fn note_host(&self, host: &str) -> rusqlite::Result<()> {
        self.store.connection.execute(
            "INSERT OR REPLACE INTO hosts (since, name)
             SELECT ?1, ?2 WHERE ?2 IS NOT (SELECT name FROM hosts ORDER BY since DESC LIMIT 1)",
            (UnixMillis::now().0, host),
        )?;
        Ok(())
    }

    /// The file, for those who report on it.
    pub fn path(&self) -> &std::path::Path {
        &self.store.path
    }

    /// How many records there are.
    pub fn records(&self) -> i64 {
        let settled: i64 = self.generations.values().map(|generation| generation.rows).sum();
        settled + self.store.recent.read().len() as i64
    }

    /// The store below it.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// From now on the records of a job are kept for so long; with `None` for good.
    pub fn set_retention(&mut self, job: JobId, kept: Option<Duration>) {
        if !self.retention.set(job, kept) {
            return;
        }
        // What was known about the ends of records is no longer true; each generation is walked once, as after a start.
        self.pruning = None;
        self.generations.values_mut().for_each(|generation| generation.until = i64::MIN);
        self.young_until = self.first_young_end();
    }

    fn first_young_end(&self) -> i64 {
        let recent = self.store.recent.read();
        let ends = recent.each_young().map(|(job, entry)| self.retention.over_at(job, entry.at));
        ends.min().unwrap_or(i64::MAX)
    }

    /// Commits all batches in one transaction. An error means that nothing of it happened.
    pub fn commit(&mut self, batches: &[Batch]) -> Result<(), StoreError> {
        self.begin_move(self.enough);
        self.starting.extend(batches.iter().filter(|batch| !batch.starts.is_empty()).map(|batch| batch.job));
        let write = || {
            let transaction = begin(&self.store.connection)?;
            let appended = self.append(&transaction, batches)?;
            let step = self.step(&transaction)?;
            transaction.commit()?;
            Ok((appended, step))
        };
        let (appended, step) = write().map_err(|error| StoreError::sqlite("commit", &error))?;
        self.next_seq += appended.len() as i64;
        let mut recent = self.store.recent.write();
        for (id, entry) in appended {
            self.young_until = self.young_until.min(self.retention.over_at(id.0, entry.at));
            recent.insert(id, entry);
        }
        drop(recent);
        self.follow(step);
        // Before anybody gets a proof.
        self.check_place()
    }

    /// Whether the files are where they were opened. What is recorded in one that was deleted is recorded nowhere.
    pub fn check_place(&self) -> Result<(), StoreError> {
        self.store.files.check()
    }

    /// Brings the log into the file where it has grown long; after commits and their answers.
    pub fn shorten_log(&mut self) -> Result<(), StoreError> {
        self.store.shorten_log()
    }

    /// The same however long it is.
    pub fn empty_log(&mut self) -> Result<(), StoreError> {
        self.store.empty_log()
    }

    /// What keeps it from writing for long, though commits still succeed.
    pub fn problem(&self) -> Option<String> {
        self.store.cramped.then(|| StoreError::Full.to_string())
    }

    /// The end in good order.
    pub fn close(self) -> Result<(), StoreError> {
        self.store.close()
    }

    /// Does a little of what can wait: moves, forgets. False once nothing is left to do for now.
    pub fn tend(&mut self, now: UnixMillis) -> Result<bool, StoreError> {
        if self.young_until <= now.0 {
            self.begin_move(1);
        }
        let tended = if matches!(self.stage, Stage::Resting) {
            self.prune(now.0).and_then(|more| Ok(more || self.drop_deeds()?))
        } else {
            self.tend_stage()
        };
        // Deleting needs room too.
        tended.map_err(|error| StoreError::sqlite("move or forget records", &error))
    }

    /// Appends what ended to `recent`; returns what must stand in memory once it is durable.
    fn append(&self, transaction: &Transaction<'_>, batches: &[Batch]) -> rusqlite::Result<Vec<(Id, Entry)>> {
        let mut appended = Vec::with_capacity(batches.iter().map(|batch| batch.records.len()).sum());
        let mut insert = transaction.prepare_cached(
            "INSERT INTO recent (seq, job, key, attempt, outcome, at, ran, exit) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        )?;
        let mut put = |id: Id, entry: Entry| -> rusqlite::Result<()> {
            let seq = self.next_seq + appended.len() as i64;
            let Entry { outcome, at, ran, exit } = entry;
            insert.execute((seq, id.0.0, id.1.as_bytes(), id.2, outcome.code(), at, ran, exit.column()))?;
            appended.push((id, entry));
            Ok(())
        };
        for batch in batches {
            if self.starting.contains(&batch.job) {
                self.note_starts(transaction, batch)?;
            }
            for record in &batch.records {
                self.note_dead(transaction, batch.job, record)?;
                let Some(key) = &record.key else { continue };
                if let Recorded::Failed(failed) = &record.what {
                    self.add_failure(transaction, batch.job, key, record, failed)?;
                }
                let ran = u32::try_from(record.ran.as_millis()).unwrap_or(u32::MAX);
                let (outcome, exit) = (Outcome::of(&record.what), Ended::of(record.exit));
                let entry = Entry { outcome, at: record.at.0, ran, exit };
                put((batch.job, key.clone(), record.attempt), entry)?;
            }
            for mark in &batch.marks {
                let entry = Entry { outcome: Outcome::Forwarded, at: UnixMillis::now().0, ran: 0, exit: Ended::NONE };
                put((batch.job, mark.key.clone(), mark.attempt), entry)?;
            }
        }
        Ok(appended)
    }

    fn add_failure(
        &self,
        transaction: &Transaction<'_>,
        job: JobId,
        key: &MessageKey,
        record: &Record,
        failed: &FailedAttempt,
    ) -> rusqlite::Result<()> {
        let delay = match failed.demand {
            Demand::Retry { delay } => Some(delay.as_secs() as i64),
            Demand::Dead => None,
        };
        let mut insert = transaction.prepare_cached(
            "INSERT INTO failures (job, key, attempt, class, error, delay_s, first_seen)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT DO NOTHING",
        )?;
        let Failure { class, error } = &failed.failure;
        let (key, first_seen) = (key.as_bytes(), record.first_seen.0);
        insert.execute((job.0, key, record.attempt, class.as_str(), error, delay, first_seen))?;
        Ok(())
    }

    /// Keeps `starts` to what may be running: adds what starts now, deletes what has ended or will not run.
    fn note_starts(&self, transaction: &Transaction<'_>, batch: &Batch) -> rusqlite::Result<()> {
        let mut insert = transaction.prepare_cached(
            "INSERT INTO starts (job, key, attempt, at) VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO NOTHING",
        )?;
        let now = UnixMillis::now().0;
        for Attempt { key, attempt } in &batch.starts {
            insert.execute((batch.job.0, key.as_bytes(), attempt, now))?;
        }
        let mut delete =
            transaction.prepare_cached("DELETE FROM starts WHERE job = ?1 AND key = ?2 AND attempt = ?3")?;
        let ended = batch.records.iter().filter_map(|record| Some((record.key.as_ref()?, record.attempt)));
        let unstarted = batch.unstarted.iter().map(|Attempt { key, attempt }| (key, *attempt));
        for (key, attempt) in ended.chain(unstarted) {
            delete.execute((batch.job.0, key.as_bytes(), attempt))?;
        }
        Ok(())
    }
}

fn begin(connection: &Connection) -> rusqlite::Result<Transaction<'_>> {
    Transaction::new_unchecked(connection, TransactionBehavior::Immediate)
}

/// Reads `recent` into memory, and deletes what an end in mid-move left behind.
pub fn load_recent(connection: &Connection) -> rusqlite::Result<Recent> {
    let transaction = begin(connection)?;
    transaction.execute("DELETE FROM records WHERE generation > (SELECT coalesce(max(id), 0) FROM generations)", [])?;
    transaction.execute("DELETE FROM recent WHERE seq <= (SELECT coalesce(max(through), 0) FROM generations)", [])?;
    let mut recent = Recent::default();
    {
        let mut select = transaction.prepare("SELECT job, key, attempt, outcome, at, ran, exit FROM recent")?;
        let mut rows = select.query([])?;
        while let Some(row) = rows.next()? {
            let id = (JobId(row.get(0)?), MessageKey::from_bytes(row.get_ref(1)?.as_blob()?), row.get(2)?);
            if let Some(outcome) = Outcome::from_code(row.get(3)?) {
                recent.insert(
                    id,
                    Entry { outcome, at: row.get(4)?, ran: row.get(5)?, exit: Ended::from_column(row.get(6)?) },
                );
            }
        }
    }
    transaction.commit()?;
    Ok(recent)
}

#[cfg(test)]
mod tests {
    use super::generations::MOVED_AT_ONCE;
    use super::*;
    use crate::config::{self, Synchronous};
    use crate::policy::inflight::Mark;
    use crate::store::audit::Deed;
    use crate::store::reader::Reader;
    use crate::store::walk::walk;
    use crate::task::{ErrorClass, Ticket};
    use crate::who::Who;

    /// A generation in these tests.
    const ENOUGH: usize = 50;

    struct Bench {
        folder: tempfile::TempDir,
    }

    fn deed(key: Option<&MessageKey>) -> Deed {
        Deed::forgot(Who::daemon(), "job", key)
    }

    impl Bench {
        fn new() -> Self {
            Self { folder: tempfile::tempdir().unwrap() }
        }

        /// A process that starts. Jobs 1 and 2 forget after a minute, others never.
        fn start(&self) -> Ledger {
            let config = config::Store {
                path: self.folder.path().join("warrend.db"),
                synchronous: Synchronous::Normal,
                retention: Duration::from_secs(60),
            };
            let retention = [1, 2].map(|job| (JobId(job), Duration::from_secs(60)));
            let mut ledger = Ledger::new(Store::open(&config).unwrap(), BTreeMap::from(retention), "host").unwrap();
            ledger.enough = ENOUGH;
            ledger
        }

        /// The process ends, and another one starts.
        fn restart(&self, ledger: Ledger) -> Ledger {
            drop(ledger);
            self.start()
        }
    }

    fn key(number: u64) -> MessageKey {
        MessageKey::from_text(&format!("message-{number}"))
    }

    fn batch(job: JobId, records: Vec<Record>, marks: Vec<Mark>) -> Batch {
        Batch { job, records, marks, starts: Vec::new(), unstarted: Vec::new(), reply: crossbeam_channel::bounded(1).0 }
    }

    fn record(key: MessageKey, attempt: u32, what: Recorded, at: i64) -> Record {
        Record {
            ticket: Ticket(0),
            key: Some(key),
            attempt,
            what,
            at: UnixMillis(at),
            ran: Duration::ZERO,
            exit: None,
            first_seen: UnixMillis(at),
        }
    }

    fn failed() -> Recorded {
        Recorded::Failed(FailedAttempt {
            failure: Failure { class: ErrorClass::Timeout, error: "late".to_owned() },
            demand: Demand::Dead,
            at: UnixMillis(0),
        })
    }

    fn count(ledger: &Ledger, table: &str) -> i64 {
        let count = format!("SELECT count(*) FROM {table}");
        ledger.store.connection.query_row(&count, [], |row| row.get(0)).unwrap()
    }

    fn tend_to_the_end(ledger: &mut Ledger, now: i64) -> usize {
        (0..).take_while(|_| ledger.tend(UnixMillis(now)).unwrap()).count()
    }

    /// What a look from outside sees: the greatest outcome of each attempt.
    fn seen_from_outside(ledger: &Ledger) -> BTreeMap<Id, Outcome> {
        let connection = super::super::look::open(ledger.path()).unwrap();
        let mut seen = BTreeMap::new();
        let mut last = None;
        let counted = walk(&connection.unchecked_transaction().unwrap(), &mut |job, bytes, attempts| {
            let next = Some((job, bytes.to_vec()));
            assert!(next > last, "each key comes once, in order");
            last = next;
            for attempt in attempts {
                let outcome = attempt.records.iter().map(|(outcome, _)| outcome.unwrap()).max();
                let id = (JobId(job), MessageKey::from_bytes(bytes), attempt.attempt);
                seen.insert(id, outcome.expect("a failure has its record"));
            }
        });
        assert!(counted.unwrap().iter().all(|counted| counted.rows == counted.found));
        seen
    }

    /// Random commits, moves, starts and forgotten keys, against a plain map of what must be known.
    #[test]
    fn whatever_moves_and_whenever_it_starts_the_same_is_known() {
        for seed in 0..20 {
            let mut random = fastrand::Rng::with_seed(seed);
            let bench = Bench::new();
            let mut ledger = bench.start();
            let mut model: BTreeMap<Id, Outcome> = BTreeMap::new();
            for _ in 0..200 {
                let job = JobId(random.i64(1..=2));
                let ids: Vec<_> = (0..random.u64(0..20)).map(|_| (key(random.u64(..300)), random.u32(1..=3))).collect();
                match random.u8(..11) {
                    0 => {
                        drop(ledger);
                        ledger = bench.start();
                    }
                    1..=3 => assert!(ledger.tend(UnixMillis(0)).is_ok()),
                    10 => {
                        let forgotten = key(random.u64(..300));
                        let records = ledger.forget_key(job, &forgotten, &deed(Some(&forgotten))).unwrap();
                        let before = model.len();
                        model.retain(|(of, key, _), _| *of != job || *key != forgotten);
                        assert!(records >= (before - model.len()) as u64, "seed {seed}: {records} records");
                    }
                    kind => {
                        let mut batch = batch(job, Vec::new(), Vec::new());
                        for (key, attempt) in ids {
                            let outcome = match kind {
                                4 => {
                                    batch.marks.push(Mark { key: key.clone(), attempt });
                                    Outcome::Forwarded
                                }
                                5 | 6 => {
                                    batch.records.push(record(key.clone(), attempt, failed(), 0));
                                    Outcome::Failed
                                }
                                _ => {
                                    batch.records.push(record(key.clone(), attempt, Recorded::Done, 0));
                                    Outcome::Done
                                }
                            };
                            let known = model.entry((job, key, attempt)).or_insert(outcome);
                            *known = outcome.max(*known);
                        }
                        ledger.commit(&[batch]).unwrap();
                    }
                }
            }
            for job in [JobId(1), JobId(2)] {
                let reader = ledger.store.reader(job).unwrap();
                let asked: Vec<_> = (0..300).flat_map(|n| (1..=3).map(move |attempt| (key(n), attempt))).collect();
                let found = reader.look_up(asked.iter().map(|(key, attempt)| (key, *attempt))).unwrap();
                for ((key, attempt), found) in asked.into_iter().zip(found) {
                    let done = (1..=3).any(|any| model.get(&(job, key.clone(), any)) == Some(&Outcome::Done));
                    let same = model.get(&(job, key.clone(), attempt)).copied();
                    let expected = if done { Some(Outcome::Done) } else { same };
                    let found = found.as_ref().map(Outcome::of);
                    assert_eq!(found, expected, "seed {seed}, {job:?}, {}, attempt {attempt}", key.to_text());
                }
            }
            assert!(ledger.generations.len() > 3, "seed {seed}: it has moved");
            assert!(count(&ledger, "outcomes") >= model.len() as i64);
            assert!(seen_from_outside(&ledger) == model, "seed {seed}: a walk sees the same");
            assert!(seen_from_outside(&bench.restart(ledger)) == model, "seed {seed}: and after a start");
        }
    }

    #[test]
    fn a_filter_that_is_made_anew_knows_all_that_is_there() {
        let bench = Bench::new();
        let mut ledger = bench.start();
        let job = JobId(3);
        let mut reader = ledger.store.reader(job).unwrap();
        let mut commit = |reader: &mut Reader, numbers: std::ops::Range<u64>| {
            numbers.clone().for_each(|n| reader.expect(&key(n)));
            let records = numbers.map(|n| record(key(n), 1, Recorded::Done, UnixMillis::now().0)).collect();
            ledger.commit(&[batch(job, records, Vec::new())]).unwrap();
        };
        // Young ones, and those of a generation.
        commit(&mut reader, 0..2 * ENOUGH as u64);
        commit(&mut reader, 1000..1010);
        reader.tidy(std::iter::empty()).unwrap();
        let renewal = reader.renewal();
        let passed_by = (1_000_000..1_000_000 + renewal as u64).map(key).collect::<Vec<_>>();
        passed_by.iter().for_each(|key| reader.expect(key));
        let known = |reader: &Reader| passed_by.iter().filter(|key| !reader.is_new(key)).count();
        // A job that has work waits longer, and not for ever.
        let coming = [key(3000), key(3001)];
        coming.iter().for_each(|key| reader.expect(key));
        reader.tidy(coming.iter()).unwrap();
        assert_eq!(known(&reader), renewal);
        (2_000_000..2_000_000 + 2 * renewal as u64).for_each(|n| reader.expect(&key(n)));
        reader.tidy(coming.iter()).unwrap();
        assert!(known(&reader) < renewal / 1000, "it has let go of them");
        assert!(coming.iter().all(|key| !reader.is_new(key)), "and not of those that come");
        passed_by.iter().for_each(|key| reader.expect(key));
        reader.tidy(std::iter::empty()).unwrap();
        assert!(known(&reader) < renewal / 1000, "it has let go of them");
        commit(&mut reader, 2000..2010);
        for n in (0..2 * ENOUGH as u64).chain(1000..1010).chain(2000..2010) {
            assert_eq!(reader.look_up([(&key(n), 1)]).unwrap(), [Some(Recorded::Done)], "{n}");
        }
    }

    #[test]
    fn all_that_a_job_recorded_is_forgotten_and_nothing_that_comes_later() {
        for committed_before in [10, ENOUGH as u64, 3 * MOVED_AT_ONCE as u64] {
            let bench = Bench::new();
            let mut ledger = bench.start();
            let now = UnixMillis::now().0;
            let (forgets, keeps) = (JobId(3), JobId(4));
            let many = |at: i64| (0..committed_before).map(|n| record(key(n), 1, failed(), at)).collect();
            // The last commit begins a move where there is enough for one.
            for job in [forgets, keeps] {
                ledger.commit(&[batch(job, many(now - 1000), Vec::new())]).unwrap();
            }
            ledger.commit(&[]).unwrap();
            ledger.forget_all(forgets, &deed(None)).unwrap();
            tend_to_the_end(&mut ledger, now);
            assert_eq!(ledger.forgotten(), committed_before);
            assert_eq!((ledger.records(), count(&ledger, "failures")), [committed_before as i64; 2].into());
            ledger.end_forgetting();
            // Even where the clock was set back meanwhile.
            ledger.commit(&[batch(forgets, many(now - 2000), Vec::new())]).unwrap();
            tend_to_the_end(&mut ledger, now);
            assert_eq!(ledger.records(), 2 * committed_before as i64);
            let ledger = bench.restart(ledger);
            assert_eq!(ledger.records(), 2 * committed_before as i64);
        }
    }

    #[test]
    fn a_crash_in_mid_move_or_while_clearing_costs_nothing() {
        let bench = Bench::new();
        let mut ledger = bench.start();
        let all = 2 * MOVED_AT_ONCE as u64 + 500;
        let done = |range: std::ops::Range<u64>| range.map(|n| record(key(n), 1, Recorded::Done, 0)).collect();
        ledger.enough = usize::MAX;
        ledger.commit(&[batch(JobId(1), done(0..all), Vec::new())]).unwrap();
        ledger.enough = ENOUGH;
        // What each step leaves: two parts of the move, the whole, the cleared table.
        for (step, (moved, whole, recent)) in [
            (MOVED_AT_ONCE as i64, 0, all as i64 + 1),
            (2 * MOVED_AT_ONCE as i64, 0, all as i64 + 2),
            (all as i64, 1, all as i64 + 3),
        ]
        .into_iter()
        .enumerate()
        {
            ledger.commit(&[batch(JobId(2), done(step as u64..step as u64 + 1), Vec::new())]).unwrap();
            assert_eq!(count(&ledger, "records"), moved);
            assert_eq!(count(&ledger, "generations"), whole);
            assert_eq!(count(&ledger, "recent"), recent);
            let copy = Bench::new();
            ledger
                .store
                .connection
                .execute("VACUUM INTO ?1", [copy.folder.path().join("warrend.db").to_str()])
                .unwrap();
            let mut after_crash = copy.start();
            for _ in 0..2 {
                assert_eq!(after_crash.records(), all as i64 + step as i64 + 1);
                assert_eq!(count(&after_crash, "outcomes"), all as i64 + step as i64 + 1);
                let found = after_crash.store.reader(JobId(1)).unwrap();
                let keys: Vec<_> = (0..all).map(key).collect();
                let found = found.look_up(keys.iter().map(|key| (key, 1))).unwrap();
                assert!(found.iter().all(|found| *found == Some(Recorded::Done)));
                after_crash.commit(&[]).unwrap();
                tend_to_the_end(&mut after_crash, 0);
            }
            assert!(count(&after_crash, "recent") < ENOUGH as i64);
        }
    }

    #[test]
    fn what_is_over_is_forgotten_in_small_steps_and_the_rest_is_left_alone() {
        let bench = Bench::new();
        let mut ledger = bench.start();
        let (pruned, kept) = (JobId(1), JobId(3));
        let many = |from: u64, at: i64| (from..from + 1500).map(|n| record(key(n), 1, failed(), at)).collect();
        ledger.enough = usize::MAX;
        let minute = 60_000;
        let old = [batch(kept, many(0, 0), Vec::new()), batch(pruned, many(0, 0), Vec::new())];
        ledger.commit(&old).unwrap();
        ledger.commit(&[batch(pruned, many(2000, minute), Vec::new())]).unwrap();
        assert_eq!(tend_to_the_end(&mut ledger, minute - 1), 0, "nothing is over");
        assert_eq!(count(&ledger, "recent"), 4500);

        // Steps that move, two that clear; then 4500 rows in steps of 1000.
        assert_eq!(tend_to_the_end(&mut ledger, minute), 4500_usize.div_ceil(MOVED_AT_ONCE) + 2 + 5);
        assert_eq!((ledger.records(), count(&ledger, "records"), count(&ledger, "recent")), (3000, 3000, 0));
        assert_eq!(count(&ledger, "failures"), 3000, "no failure outlives its record");
        let keys = [key(7), key(2007)];
        let found = ledger.store.reader(pruned).unwrap().look_up(keys.iter().map(|key| (key, 1))).unwrap();
        assert!(found[0].is_none() && found[1].is_some());
        assert_eq!(tend_to_the_end(&mut ledger, 2 * minute - 1), 0, "it is known when the next is over");
        tend_to_the_end(&mut ledger, 2 * minute);
        assert_eq!((ledger.records(), count(&ledger, "failures")), (1500, 1500));

        // A later start knows nothing of the ages and looks at every row once.
        drop(ledger);
        let mut ledger = bench.start();
        assert_eq!(tend_to_the_end(&mut ledger, 9 * minute), 2);
        assert_eq!(ledger.records(), 1500, "a job without a retention keeps its keys");
    }
}
