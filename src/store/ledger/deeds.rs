//! The audit trail beside the records: what people did, and which messages were given up.

use log::info;
use rusqlite::{OptionalExtension as _, Transaction};

use super::super::audit::{self, Act, Deed};
use super::super::{JobId, Pause, StoreError};
use super::{Ledger, begin};
use crate::task::{Demand, FailedAttempt, Record, Recorded, UnixMillis};
use crate::who::{ACTS, Who};

impl Ledger {
    /// Writes down what somebody did, or is about to do.
    pub fn note(&self, deed: &Deed) -> Result<(), StoreError> {
        self.change(deed, |_| Ok(())).map_err(|error| StoreError::sqlite("write into its audit trail", &error))
    }

    /// Remembers that a job is paused by hand, or forgets it.
    pub fn set_pause(&self, job: JobId, pause: Option<&Pause>, deed: &Deed) -> Result<(), StoreError> {
        let change = |transaction: &Transaction<'_>| match pause {
            Some(Pause { reason, by, since }) => transaction.execute(
                "INSERT OR REPLACE INTO pauses (job, reason, by, since) VALUES (?1, ?2, ?3, ?4)",
                (job.0, reason, by, since.0),
            ),
            None => transaction.execute("DELETE FROM pauses WHERE job = ?1", [job.0]),
        };
        let changed = self.change(deed, |transaction| change(transaction).map(|_| ()));
        changed.map_err(|error| StoreError::sqlite("remember what is paused", &error))
    }

    /// Does something and writes it down, both or nothing.
    pub(super) fn change<T>(
        &self,
        deed: &Deed,
        change: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<T> {
        let transaction = begin(&self.store.connection)?;
        let changed = change(&transaction)?;
        let anchor = audit::append(&transaction, UnixMillis::now(), deed)?;
        transaction.commit()?;
        // The journal keeps the hash where who may write the store cannot reach it.
        info!(target: ACTS, "audit {anchor}: {deed}");
        Ok(changed)
    }

    /// Writes down that a message was given up, in the transaction of its record.
    pub(super) fn note_dead(&self, transaction: &Transaction<'_>, job: JobId, record: &Record) -> rusqlite::Result<()> {
        let Recorded::Failed(FailedAttempt { failure, demand: Demand::Dead, .. }) = &record.what else {
            return Ok(());
        };
        let mut name = transaction.prepare_cached("SELECT name FROM jobs WHERE id = ?1")?;
        let job = name.query_row([job.0], |row| row.get(0)).optional()?;
        let (key, detail) = (record.key.clone(), Some(failure.class.as_str().to_owned()));
        let deed = Deed { job, key, detail, ..Deed::new(Who::daemon(), Act::Dead) };
        audit::append(transaction, record.at, &deed).map(|_| ())
    }

    /// Drops the oldest rows where there are too many. False where there are not.
    pub(super) fn drop_deeds(&self) -> rusqlite::Result<bool> {
        let transaction = begin(&self.store.connection)?;
        let dropped = audit::drop_oldest(&transaction, UnixMillis::now())?;
        transaction.commit()?;
        Ok(dropped)
    }

    /// Where the trail ends, for the log: a row that is missing at its end is missed by who has seen it.
    pub fn tell_ends(&self) -> Result<(), StoreError> {
        let ends = audit::ends(&self.store.connection);
        for end in ends.map_err(|error| StoreError::sqlite("read its audit trail", &error))? {
            info!(target: ACTS, "audit {end}: the end of its chain for now");
        }
        Ok(())
    }
}
