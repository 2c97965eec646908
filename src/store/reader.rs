//! Look-ups of one job thread.

use std::collections::HashSet;
use std::path::Path;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, OptionalExtension as _};

use super::filter::KeyFilter;
use super::recent::{Ended, Entry, Outcome, Shared};
use super::{JobId, StoreError};
use crate::task::{Demand, ErrorClass, FailedAttempt, Failure, MessageKey, Recorded, UnixMillis};

/// A read-only connection, owned by one job thread.
#[derive(Debug)]
pub struct Reader {
    connection: Connection,
    job: JobId,
    recent: Shared,
    /// Attempts that were running when the last daemon died.
    in_doubt: HashSet<(MessageKey, u32)>,
    /// Every key of the job that is in the store or on its way there, and others that were.
    keys: KeyFilter,
    /// Once so many keys were put into the filter it is made anew.
    renewal: usize,
}

impl Reader {
    pub(super) fn open(path: &Path, job: JobId, recent: Shared) -> Result<Self, StoreError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let open = || {
            let connection = Connection::open_with_flags(path, flags)?;
            connection.busy_timeout(Duration::from_secs(10))?;
            // Kibibytes of page cache: each commit empties it anyway.
            connection.pragma_update(None, "cache_size", -1024)?;
            // Or each look-up is planned anew, in case its key had deserved a plan of its own.
            connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
            let keys = stored_keys(&connection, job)?;
            let in_doubt = in_doubt(&connection, job)?;
            let renewal = renewal(&keys);
            Ok(Self { connection, job, recent, in_doubt, keys, renewal })
        };
        match open() {
            Ok(reader) => Ok(reader),
            Err(error) => Err(StoreError::sqlite("open for reading", &error)),
        }
    }

    /// Must be told of each key before its record goes to the recorder.
    pub fn expect(&mut self, key: &MessageKey) {
        self.keys.insert(key);
    }

    /// Lets go of keys that the store has forgotten, once that is worth a pass over those that it has: a third of a second for a
    /// million. `coming` are the keys that were expected and are not in the store yet. While there are some the job has work to
    /// do, and the pass waits longer for a better moment; but a job may never be idle.
    ///
    /// Without it the filter of a daemon that runs for long would grow to its limit, and then take ever more keys for known.
    pub fn tidy<'k>(&mut self, coming: impl Iterator<Item = &'k MessageKey>) -> Result<(), StoreError> {
        let mut coming = coming.peekable();
        let patience = if coming.peek().is_some() { 2 } else { 1 };
        if self.keys.added() < patience * self.renewal {
            return Ok(());
        }
        // Not again at once where it fails.
        self.renewal *= 2;
        let keys = stored_keys(&self.connection, self.job);
        self.keys = keys.map_err(|error| StoreError::sqlite("read its keys", &error))?;
        self.renewal = renewal(&self.keys);
        coming.for_each(|key| self.keys.insert(key));
        Ok(())
    }

    /// How many keys the filter holds when it is made anew in an idle moment.
    #[cfg(test)]
    pub(super) fn renewal(&self) -> usize {
        self.renewal
    }

    /// Whether a key is new beyond doubt.
    #[cfg(test)]
    pub(super) fn is_new(&self, key: &MessageKey) -> bool {
        !self.keys.may_hold(key)
    }

    /// Whether this attempt was running when the last daemon died. A job that is to run it again forgets it before:
    /// [`super::Store::forget_starts`].
    pub fn is_in_doubt(&self, key: &MessageKey, attempt: u32) -> bool {
        !self.in_doubt.is_empty() && self.in_doubt.contains(&(key.clone(), attempt))
    }

    /// A key, or with none every key, may run again: no attempt of it is in doubt any more. The filter keeps it, which only
    /// costs a look-up.
    pub fn forget(&mut self, key: Option<&MessageKey>) {
        self.in_doubt.retain(|(known, _)| key.is_some_and(|key| key != known));
    }

    /// How many attempts were running when the last daemon died.
    pub fn in_doubt(&self) -> usize {
        self.in_doubt.len()
    }

    /// What is recorded of each key and attempt, in order: `None` where nothing forbids a run.
    ///
    /// One read transaction serves all of them: it costs two system calls, and alone they would cost as much as a
    /// look-up. Keys that are new beyond doubt need none.
    pub fn look_up<'k>(
        &self,
        keys: impl IntoIterator<Item = (&'k MessageKey, u32)>,
    ) -> Result<Vec<Option<Recorded>>, StoreError> {
        let mut found = Vec::new();
        let mut asked = Vec::new();
        for (key, attempt) in keys {
            if self.keys.may_hold(key) {
                asked.push((found.len(), key, attempt));
            }
            found.push(None);
        }
        if !asked.is_empty() {
            self.ask(&asked, &mut found).map_err(|error| StoreError::sqlite("look up a key", &error))?;
        }
        Ok(found)
    }

    fn ask(&self, asked: &[(usize, &MessageKey, u32)], found: &mut [Option<Recorded>]) -> rusqlite::Result<()> {
        // Before the snapshot: what leaves memory for a generation in between is in the snapshot.
        let young: Vec<Vec<(u32, Entry)>> = {
            let recent = self.recent.read();
            asked.iter().map(|(_, key, _)| recent.of_key(self.job, key)).collect()
        };
        let snapshot = self.connection.unchecked_transaction()?;
        for ((index, key, attempt), young) in asked.iter().zip(young) {
            found[*index] = self.one(key, *attempt, young)?;
        }
        snapshot.finish()
    }

    fn one(&self, key: &MessageKey, attempt: u32, young: Vec<(u32, Entry)>) -> rusqlite::Result<Option<Recorded>> {
        let mut all = young;
        // A key that is done needs no search of the generations.
        if !all.iter().any(|(_, entry)| entry.outcome == Outcome::Done) {
            self.add_settled(key, &mut all)?;
        }
        if all.iter().any(|(_, entry)| entry.outcome == Outcome::Done) {
            return Ok(Some(Recorded::Done));
        }
        let same = all.into_iter().filter(|(other, _)| *other == attempt).map(|(_, entry)| entry);
        match same.max_by_key(|entry| entry.outcome) {
            Some(Entry { outcome: Outcome::Failed, at, .. }) => {
                Ok(self.failure(key, attempt, UnixMillis(at))?.map(Recorded::Failed))
            }
            Some(_) => Ok(Some(Recorded::Forwarded)),
            None => Ok(None),
        }
    }

    /// What the generations know of a key.
    fn add_settled(&self, key: &MessageKey, all: &mut Vec<(u32, Entry)>) -> rusqlite::Result<()> {
        let mut select = self.connection.prepare_cached(
            "SELECT attempt, outcome, at, ran, exit FROM generations CROSS JOIN records
             ON records.generation = generations.id AND job = ?1 AND key = ?2",
        )?;
        let mut rows = select.query((self.job.0, key.as_bytes()))?;
        while let Some(row) = rows.next()? {
            if let Some(outcome) = Outcome::from_code(row.get(1)?) {
                all.push((
                    row.get(0)?,
                    Entry { outcome, at: row.get(2)?, ran: row.get(3)?, exit: Ended::from_column(row.get(4)?) },
                ));
            }
        }
        Ok(())
    }

    fn failure(&self, key: &MessageKey, attempt: u32, at: UnixMillis) -> rusqlite::Result<Option<FailedAttempt>> {
        let mut select = self.connection.prepare_cached(
            "SELECT class, error, delay_s FROM failures WHERE job = ?1 AND key = ?2 AND attempt = ?3",
        )?;
        let found = select.query_row((self.job.0, key.as_bytes(), attempt), |row| {
            let class: String = row.get(0)?;
            let demand = match row.get::<_, Option<u32>>(2)? {
                Some(seconds) => Demand::Retry { delay: Duration::from_secs(seconds.into()) },
                None => Demand::Dead,
            };
            // A class of a newer version reads as the general one; its text says the rest.
            let class = ErrorClass::from_wire(&class).unwrap_or(ErrorClass::Failed);
            Ok(FailedAttempt { failure: Failure { class, error: row.get(1)? }, demand, at })
        });
        found.optional()
    }
}

/// Half of what the filter takes in good order, as a job that is never idle waits twice as long; and at least twice what the store
/// had on top of that: so the passes cost less for each key than its record.
fn renewal(stored: &KeyFilter) -> usize {
    (stored.capacity() / 2).max(3 * stored.added())
}

fn in_doubt(connection: &Connection, job: JobId) -> rusqlite::Result<HashSet<(MessageKey, u32)>> {
    let mut select = connection.prepare("SELECT key, attempt FROM starts WHERE job = ?1")?;
    let rows =
        select.query_map([job.0], |row| Ok((MessageKey::from_bytes(row.get_ref(0)?.as_blob()?), row.get(1)?)))?;
    rows.collect()
}

/// All keys of a job: one pass over its part of each generation, and over what is young. Where the store has other jobs, one
/// before it to count them.
fn stored_keys(connection: &Connection, job: JobId) -> rusqlite::Result<KeyFilter> {
    let is_alone = "SELECT NOT EXISTS (SELECT 1 FROM jobs WHERE id <> ?1)";
    let count = if connection.query_row(is_alone, [job.0], |row| row.get(0))? {
        "SELECT coalesce(sum(rows), 0) FROM generations WHERE ?1 IS NOT NULL"
    } else {
        "SELECT count(*) FROM outcomes WHERE job = ?1"
    };
    let count: i64 = connection.query_row(count, [job.0], |row| row.get(0))?;
    let mut keys = KeyFilter::for_keys(usize::try_from(count).unwrap_or(0));
    let mut select = connection.prepare("SELECT key FROM outcomes WHERE job = ?1")?;
    let mut rows = select.query([job.0])?;
    while let Some(row) = rows.next()? {
        keys.insert(&MessageKey::from_bytes(row.get_ref(0)?.as_blob()?));
    }
    Ok(keys)
}
