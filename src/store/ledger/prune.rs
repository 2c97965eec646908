//! Forgetting: records whose retention is over are deleted, a few at a time.

use log::debug;

use super::super::JobId;
use super::super::recent::Id;
use super::{Ledger, begin};
use crate::task::MessageKey;

/// Rows that one pruning step looks at: about a millisecond of work, so that records never wait long behind it.
pub(super) const AT_ONCE: usize = 1000;

/// A walk over a generation, to forget what is over.
#[derive(Debug)]
pub(super) struct Pruning {
    generation: i64,
    after: Option<Id>,
    /// When the first of those that stay is over.
    until: i64,
}

impl Ledger {
    /// Looks at the next rows of a generation in which something may be over, and deletes what its job need not remember any
    /// longer.
    pub(super) fn prune(&mut self, now: i64) -> rusqlite::Result<bool> {
        let Some(pruning) = self.pruning.take().or_else(|| self.next_to_prune(now)) else {
            return Ok(false);
        };
        let rows = self.rows_after(&pruning)?;
        let (old, kept): (Vec<_>, Vec<_>) = rows.iter().partition(|(_, until)| *until <= now);
        if !old.is_empty() {
            let transaction = begin(&self.store.connection)?;
            for ((job, key, attempt), _) in &old {
                for delete in [
                    "DELETE FROM records WHERE generation = ?4 AND job = ?1 AND key = ?2 AND attempt = ?3",
                    "DELETE FROM failures WHERE job = ?1 AND key = ?2 AND attempt = ?3 AND ?4",
                ] {
                    let mut delete = transaction.prepare_cached(delete)?;
                    delete.execute((job.0, key.as_bytes(), attempt, pruning.generation))?;
                }
            }
            let less = "UPDATE generations SET rows = rows - ?2 WHERE id = ?1";
            transaction.execute(less, (pruning.generation, old.len() as i64))?;
            transaction.commit()?;
            self.forgotten += old.len() as u64;
            debug!("forgot {} records whose retention is over", old.len());
        }
        let until = kept.iter().map(|(_, until)| *until).fold(pruning.until, i64::min);
        if let Some(generation) = self.generations.get_mut(&pruning.generation) {
            generation.rows -= old.len() as i64;
            if rows.len() < self.pruned_at_once {
                generation.until = until;
            }
        }
        let next = rows.into_iter().nth(self.pruned_at_once - 1);
        self.pruning = next.map(|(id, _)| Pruning { after: Some(id), until, ..pruning });
        Ok(true)
    }

    fn next_to_prune(&self, now: i64) -> Option<Pruning> {
        let (generation, _) = self.generations.iter().find(|(_, generation)| generation.until <= now)?;
        Some(Pruning { generation: *generation, after: None, until: i64::MAX })
    }

    /// The next rows of the walk, and when each is over.
    fn rows_after(&self, pruning: &Pruning) -> rusqlite::Result<Vec<(Id, i64)>> {
        let mut select = self.store.connection.prepare_cached(
            "SELECT job, key, attempt, at FROM records
             WHERE generation = ?1 AND (job, key, attempt) > (?2, ?3, ?4)
             ORDER BY job, key, attempt LIMIT ?5",
        )?;
        let (job, key, attempt) = match &pruning.after {
            Some((job, key, attempt)) => (job.0, key.as_bytes(), *attempt),
            None => (i64::MIN, &[][..], 0),
        };
        let rows = select.query_map((pruning.generation, job, key, attempt, self.pruned_at_once as i64), |row| {
            let (job, at) = (JobId(row.get(0)?), row.get(3)?);
            let id = (job, MessageKey::from_bytes(row.get_ref(1)?.as_blob()?), row.get(2)?);
            Ok((id, self.retention.over_at(job, at)))
        })?;
        rows.collect()
    }
}
