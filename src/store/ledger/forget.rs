//! Forgetting because somebody said so, and giving back the room that it leaves.

use rusqlite::Transaction;

use super::super::audit::Deed;
use super::super::{JobId, StoreError};
use super::{Ledger, Stage, begin};
use crate::task::{MessageKey, UnixMillis};

/// Pages that are given back in one step: a mebibyte, in some milliseconds.
const GIVEN_AT_ONCE: u32 = 256;
/// What `PRAGMA auto_vacuum` says of a file that gives pages back when it is told to.
const INCREMENTAL: i64 = 2;

impl Ledger {
    /// The number of a job that has ever run with this store.
    pub fn find_job(&self, name: &str) -> Result<Option<JobId>, StoreError> {
        self.store.find_job(name)
    }

    /// Forgets a key: the next delivery of its message runs. Returns how many records that were.
    pub fn forget_key(&mut self, job: JobId, key: &MessageKey, deed: &Deed) -> Result<u64, StoreError> {
        let failed = |error: &rusqlite::Error| StoreError::sqlite("forget a key", error);
        // What is on its way to a generation stands in two places. Waiting for it takes a moment, and is rarely needed.
        while !matches!(self.stage, Stage::Resting) {
            self.tend_stage().map_err(|error| failed(&error))?;
        }
        let (records, settled) =
            self.change(deed, |transaction| self.delete(transaction, job, key)).map_err(|error| failed(&error))?;
        for (id, rows) in settled {
            if let Some(generation) = self.generations.get_mut(&id) {
                generation.rows -= rows;
            }
        }
        self.store.recent.write().forget(job, key);
        Ok(records)
    }

    /// Deletes a key. Returns its records, and how many of them each generation had.
    fn delete(
        &self,
        transaction: &Transaction<'_>,
        job: JobId,
        key: &MessageKey,
    ) -> rusqlite::Result<(u64, Vec<(i64, i64)>)> {
        let id = (job.0, key.as_bytes());
        let mut records = transaction.execute("DELETE FROM recent WHERE job = ?1 AND key = ?2", id)?;
        let mut settled = Vec::new();
        for generation in self.generations.keys() {
            let delete = "DELETE FROM records WHERE job = ?1 AND key = ?2 AND generation = ?3";
            let rows = transaction.execute(delete, (id.0, id.1, generation))?;
            if rows > 0 {
                let less = "UPDATE generations SET rows = rows - ?2 WHERE id = ?1";
                transaction.execute(less, (generation, rows as i64))?;
                settled.push((*generation, rows as i64));
                records += rows;
            }
        }
        for delete in
            ["DELETE FROM failures WHERE job = ?1 AND key = ?2", "DELETE FROM starts WHERE job = ?1 AND key = ?2"]
        {
            transaction.execute(delete, id)?;
        }
        Ok((records as u64, settled))
    }

    /// Declares everything over that a job has recorded up to now. [`Ledger::tend`] deletes it.
    pub fn forget_all(&mut self, job: JobId, deed: &Deed) -> Result<(), StoreError> {
        let forgotten =
            self.change(deed, |transaction| transaction.execute("DELETE FROM starts WHERE job = ?1", [job.0]));
        forgotten.map_err(|error| StoreError::sqlite("forget what was running", &error))?;
        self.retention.forget_until(job, UnixMillis::now().0);
        self.look_again();
        Ok(())
    }

    /// What [`Ledger::forget_all`] declared holds no longer: a clock that is set back must not make new records old.
    pub fn end_forgetting(&mut self) {
        self.retention.end_forgetting();
    }

    /// Nothing is known any longer about the ages of records: each is looked at once more.
    fn look_again(&mut self) {
        self.young_until = if self.store.recent.read().young() > 0 { i64::MIN } else { i64::MAX };
        self.generations.values_mut().for_each(|generation| generation.until = i64::MIN);
        self.pruning = None;
    }

    /// Records that were forgotten since the start.
    pub fn forgotten(&self) -> u64 {
        self.forgotten
    }

    /// Gives some of the room back to the disk that forgotten records leave. Returns the bytes; none are left to give where
    /// it is zero.
    pub fn give_back(&self) -> Result<u64, StoreError> {
        let step = || {
            let transaction = begin(&self.store.connection)?;
            let given = give_pages(&transaction, GIVEN_AT_ONCE)?;
            transaction.commit()?;
            Ok(given)
        };
        match step().map_err(|error| StoreError::sqlite("give room back", &error)) {
            // Moving pages needs room too.
            Err(StoreError::Full) => Ok(0),
            given => given,
        }
    }

    /// For a process that does nothing else: steps need not be small.
    pub fn hurry(&mut self) {
        self.pruned_at_once = 50_000;
    }
}

/// The bytes that up to so many pages have.
fn give_pages(transaction: &Transaction<'_>, most: u32) -> rusqlite::Result<u64> {
    let number = |pragma: &str| transaction.pragma_query_value(None, pragma, |row| row.get::<_, i64>(0));
    if number("auto_vacuum")? != INCREMENTAL || number("freelist_count")? == 0 {
        return Ok(0);
    }
    let before = number("page_count")?;
    let mut vacuum = transaction.prepare(&format!("PRAGMA incremental_vacuum({most})"))?;
    let mut rows = vacuum.query([])?;
    while rows.next()?.is_some() {}
    let given = before - number("page_count")?;
    Ok(u64::try_from(given * number("page_size")?).unwrap_or(0))
}
