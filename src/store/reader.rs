//! Look-ups of one job thread.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

use super::filter::KeyFilter;
use super::{JobId, StoreError, recorder};
use crate::task::{Demand, ErrorClass, FailedAttempt, Failure, MessageKey, Recorded, UnixMillis};

/// A read-only connection, owned by one job thread.
#[derive(Debug)]
pub struct Reader {
    connection: Connection,
    job: JobId,
    /// Every key of the job that is in the store or on its way there.
    keys: KeyFilter,
}

impl Reader {
    pub(super) fn open(path: &Path, job: JobId) -> Result<Self, StoreError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let open = || {
            let connection = Connection::open_with_flags(path, flags)?;
            connection.busy_timeout(Duration::from_secs(10))?;
            let keys = stored_keys(&connection, job)?;
            Ok(Self { connection, job, keys })
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
        let snapshot = self.connection.unchecked_transaction()?;
        for (index, key, attempt) in asked {
            found[*index] = self.one(key, *attempt)?;
        }
        snapshot.finish()
    }

    fn one(&self, key: &MessageKey, attempt: u32) -> rusqlite::Result<Option<Recorded>> {
        let mut select =
            self.connection.prepare_cached("SELECT attempt, outcome, at FROM records WHERE job = ?1 AND key = ?2")?;
        let mut rows = select.query((self.job.0, key.as_bytes()))?;
        let mut recorded = None;
        while let Some(row) = rows.next()? {
            let same = row.get::<_, u32>(0)? == attempt;
            match row.get::<_, i64>(1)? {
                recorder::DONE => return Ok(Some(Recorded::Done)),
                recorder::FORWARDED if same => recorded = Some(Recorded::Forwarded),
                recorder::FAILED if same => {
                    recorded = Some(Recorded::Failed(self.failure(key, attempt, UnixMillis(row.get(2)?))?));
                }
                _ => {}
            }
        }
        Ok(recorded)
    }

    fn failure(&self, key: &MessageKey, attempt: u32, at: UnixMillis) -> rusqlite::Result<FailedAttempt> {
        let mut select = self.connection.prepare_cached(
            "SELECT class, error, delay_s FROM failures WHERE job = ?1 AND key = ?2 AND attempt = ?3",
        )?;
        select.query_row((self.job.0, key.as_bytes(), attempt), |row| {
            let class: String = row.get(0)?;
            let demand = match row.get::<_, Option<u32>>(2)? {
                Some(seconds) => Demand::Retry { delay: Duration::from_secs(seconds.into()) },
                None => Demand::Dead,
            };
            // A class of a newer version reads as the general one; its text says the rest.
            let class = ErrorClass::from_wire(&class).unwrap_or(ErrorClass::Failed);
            Ok(FailedAttempt { failure: Failure { class, error: row.get(1)? }, demand, at })
        })
    }
}

/// All keys of a job: one pass over its part of the tree.
fn stored_keys(connection: &Connection, job: JobId) -> rusqlite::Result<KeyFilter> {
    let mut keys = KeyFilter::default();
    let mut select = connection.prepare("SELECT key FROM records WHERE job = ?1")?;
    let mut rows = select.query([job.0])?;
    while let Some(row) = rows.next()? {
        keys.insert(&MessageKey::from_bytes(row.get_ref(0)?.as_blob()?));
    }
    Ok(keys)
}
