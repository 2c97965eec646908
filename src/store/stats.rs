//! What a store holds, for `warrend store stats` and for those who ask before they forget. Looked at from outside.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rusqlite::Connection;

use super::recent::Outcome;
use super::walk::{Seen, walk};
use super::{StoreError, look};
use crate::task::UnixMillis;

/// Everything that can be counted.
#[derive(Debug)]
pub struct Stats {
    /// The file.
    pub path: PathBuf,
    /// Its schema version.
    pub schema: i64,
    /// Bytes of the file, of its log, and of the pages in the file that nothing uses.
    pub bytes: u64,
    /// See `bytes`; none where there is no log.
    pub log_bytes: u64,
    /// See `bytes`.
    pub free_bytes: u64,
    /// Bytes of a page.
    pub page_bytes: u64,
    /// Generations of records.
    pub generations: usize,
    /// Rows that wait to become one.
    pub young: u64,
    /// By name: every job that ever ran with this store.
    pub jobs: BTreeMap<String, JobStats>,
}

/// One job.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct JobStats {
    /// Messages that are remembered.
    pub keys: u64,
    /// Their attempts that have ended.
    pub attempts: u64,
    /// Rows about them: a failed attempt has a second one once its copy is confirmed.
    pub records: u64,
    /// Attempts that were successes.
    pub done: u64,
    /// Attempts that failed and were tried again.
    pub retried: u64,
    /// Attempts that failed for good.
    pub dead: u64,
    /// When the first and the last of them ended.
    pub oldest: Option<UnixMillis>,
    /// See `oldest`.
    pub newest: Option<UnixMillis>,
    /// Records up to the time asked about.
    pub over: u64,
}

impl Stats {
    /// Messages of all jobs.
    pub fn keys(&self) -> u64 {
        self.jobs.values().map(|job| job.keys).sum()
    }

    /// Their attempts.
    pub fn attempts(&self) -> u64 {
        self.jobs.values().map(|job| job.attempts).sum()
    }

    /// And the rows about these.
    pub fn records(&self) -> u64 {
        self.jobs.values().map(|job| job.records).sum()
    }
}

/// Counts what is in a store. `over` gives for a job the time up to which its records may be forgotten.
pub fn stats(path: &Path, over: &dyn Fn(&str) -> Option<UnixMillis>) -> Result<Stats, StoreError> {
    let connection = look::open(path)?;
    read(&connection, path, over)
        .map_err(|error| StoreError::sqlite(&format!("count what is in {}", path.display()), &error))
}

fn read(connection: &Connection, path: &Path, over: &dyn Fn(&str) -> Option<UnixMillis>) -> rusqlite::Result<Stats> {
    let snapshot = connection.unchecked_transaction()?;
    let number = |query: &str| snapshot.query_row(query, [], |row| row.get::<_, i64>(0));
    let mut select = snapshot.prepare("SELECT id, name FROM jobs")?;
    let names = select.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let names: BTreeMap<i64, String> = names.collect::<rusqlite::Result<_>>()?;
    let until: BTreeMap<i64, UnixMillis> = names.iter().filter_map(|(id, name)| Some((*id, over(name)?))).collect();
    let mut jobs: BTreeMap<i64, JobStats> = names.keys().map(|id| (*id, JobStats::default())).collect();
    let counted = walk(&snapshot, &mut |job, _, attempts| {
        jobs.entry(job).or_default().add(attempts, until.get(&job).copied());
    })?;
    let page_bytes = number("PRAGMA page_size")?.unsigned_abs();
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    let size = |path: &Path| std::fs::metadata(path).map_or(0, |metadata| metadata.len());
    let named =
        jobs.into_iter().map(|(id, job)| (names.get(&id).cloned().unwrap_or_else(|| format!("number {id}")), job));
    Ok(Stats {
        path: path.to_owned(),
        schema: number("PRAGMA user_version")?,
        bytes: size(path),
        log_bytes: size(Path::new(&log)),
        free_bytes: page_bytes * number("PRAGMA freelist_count")?.unsigned_abs(),
        page_bytes,
        generations: counted.len(),
        young: number("SELECT count(*) FROM recent WHERE seq > (SELECT coalesce(max(through), 0) FROM generations)")?
            .unsigned_abs(),
        jobs: named.collect(),
    })
}

impl JobStats {
    fn add(&mut self, attempts: &[Seen], until: Option<UnixMillis>) {
        self.keys += u64::from(attempts.iter().any(|seen| !seen.records.is_empty()));
        for seen in attempts {
            let Some(outcome) = seen.records.iter().map(|(outcome, _)| *outcome).max() else { continue };
            self.attempts += 1;
            match (outcome, seen.failure) {
                (Some(Outcome::Done), _) => self.done += 1,
                (Some(Outcome::Failed | Outcome::Forwarded), Some(true)) => self.dead += 1,
                (Some(Outcome::Failed | Outcome::Forwarded), Some(false) | None) | (None, _) => self.retried += 1,
            }
            for (_, at) in &seen.records {
                let at = UnixMillis(*at);
                self.oldest = Some(self.oldest.map_or(at, |oldest| oldest.min(at)));
                self.newest = Some(self.newest.map_or(at, |newest| newest.max(at)));
                self.over += u64::from(until.is_some_and(|until| at <= until));
            }
            self.records += seen.records.len() as u64;
        }
    }
}
