//! Young records become a generation: a little with each commit, or while nothing is to be committed.

use rusqlite::Transaction;

use super::{Ledger, begin};

/// Records that one commit moves besides: less than a millisecond of work, so that those who wait for the commit hardly
/// wait longer.
pub(super) const MOVED_AT_ONCE: usize = 512;
/// Rows of `recent` that one commit deletes besides; nearly ten cost what one costs to move.
const CLEARED_AT_ONCE: i64 = 4096;

#[derive(Debug)]
pub(super) struct Generation {
    pub(super) rows: i64,
    /// No record of it is over before that time, Unix milliseconds.
    pub(super) until: i64,
}

/// Where the records of the last generation stand.
#[derive(Debug)]
pub(super) enum Stage {
    Resting,
    Moving {
        generation: i64,
        through: i64,
        /// So many of them have moved.
        moved: usize,
    },
    /// The generation is whole, and its rows of `recent` are being deleted.
    Clearing {
        through: i64,
    },
}

/// What a transaction did to the stage; true once it is durable.
pub(super) enum Step {
    None,
    Moved(usize),
    Whole,
    Cleared { to: i64 },
}

impl Ledger {
    /// Begins a generation where none is under way and there are enough records for one.
    pub(super) fn begin_move(&mut self, enough: usize) {
        let mut recent = self.store.recent.write();
        if matches!(self.stage, Stage::Resting) && recent.young() >= enough {
            recent.begin_move();
            self.young_until = i64::MAX;
            let generation = self.generations.last_key_value().map_or(1, |(last, _)| last + 1);
            self.stage = Stage::Moving { generation, through: self.next_seq - 1, moved: 0 };
        }
    }

    /// A little of the work of the stage, in the caller's transaction.
    pub(super) fn step(&self, transaction: &Transaction<'_>) -> rusqlite::Result<Step> {
        match &self.stage {
            Stage::Resting => Ok(Step::None),
            Stage::Moving { generation, through, moved } => {
                let mut insert = transaction.prepare_cached(
                    "INSERT INTO records (generation, job, key, attempt, outcome, at, ran, exit)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
                )?;
                let recent = self.store.recent.read();
                let to = (moved + MOVED_AT_ONCE).min(recent.moving().len());
                for ((job, key, attempt), entry) in &recent.moving()[*moved..to] {
                    insert.execute((
                        generation,
                        job.0,
                        key.as_bytes(),
                        attempt,
                        entry.outcome.code(),
                        entry.at,
                        entry.ran,
                        entry.exit.column(),
                    ))?;
                }
                if to < recent.moving().len() {
                    return Ok(Step::Moved(to));
                }
                // An empty generation is kept only while it is the last, for what `through` says.
                transaction.execute("DELETE FROM generations WHERE rows = 0", [])?;
                let rows = recent.moving().len() as i64;
                transaction.execute(
                    "INSERT INTO generations (id, rows, through) VALUES (?1, ?2, ?3)",
                    (generation, rows, through),
                )?;
                Ok(Step::Whole)
            }
            Stage::Clearing { through } => {
                let to = (self.cleared_to + CLEARED_AT_ONCE).min(*through);
                transaction.prepare_cached("DELETE FROM recent WHERE seq <= ?1")?.execute([to])?;
                Ok(Step::Cleared { to })
            }
        }
    }

    /// Memory follows what is durable.
    pub(super) fn follow(&mut self, step: Step) {
        match (step, &mut self.stage) {
            (Step::Moved(to), Stage::Moving { moved, .. }) => *moved = to,
            (Step::Whole, Stage::Moving { generation, through, .. }) => {
                let moved = self.store.recent.write().end_move();
                let until = moved.iter().map(|((job, _, _), entry)| self.retention.over_at(*job, entry.at)).min();
                self.generations.retain(|_, generation| generation.rows > 0);
                let rows = moved.len() as i64;
                self.generations.insert(*generation, Generation { rows, until: until.unwrap_or(i64::MAX) });
                self.moved = moved;
                self.stage = Stage::Clearing { through: *through };
            }
            (Step::Cleared { to }, Stage::Clearing { through }) => {
                self.cleared_to = to;
                self.moved.truncate(self.moved.len().saturating_sub(CLEARED_AT_ONCE as usize));
                if to == *through {
                    self.moved = Vec::new();
                    self.stage = Stage::Resting;
                }
            }
            (Step::None | Step::Moved(_) | Step::Whole | Step::Cleared { .. }, _) => {}
        }
    }

    /// A step of the stage while nothing is to be committed.
    pub(super) fn tend_stage(&mut self) -> rusqlite::Result<bool> {
        let transaction = begin(&self.store.connection)?;
        let step = self.step(&transaction)?;
        transaction.commit()?;
        self.follow(step);
        Ok(true)
    }
}
