//! What a daemon's store holds, read as a file: after a crash it tells what had been recorded by then.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::Path;
use std::sync::{PoisonError, RwLock, RwLockReadGuard};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

/// Held for reading by who looks into the store of a daemon that may run, for writing by who looks into what a crash left.
static READERS: RwLock<()> = RwLock::new(());

/// Keep it as long as a connection to the store of a daemon that may run: what a crash left is not read meanwhile.
///
/// A daemon that is killed between the write of its log and the publication of what it wrote leaves records that are
/// durable, and that the next daemon finds, because SQLite mends the log's index for the first who opens the store. For
/// who opens it beside another reader it does not, and those records would be missing.
pub fn beside_the_daemon() -> RwLockReadGuard<'static, ()> {
    READERS.read().unwrap_or_else(PoisonError::into_inner)
}

/// The records of all jobs of a store. Only keys that came as text are told apart from others.
#[derive(Debug, Default)]
pub struct Records {
    /// Keys that are done.
    pub done: BTreeSet<String>,
    /// Every key and attempt that has a record, whatever its outcome.
    pub ended: BTreeSet<(String, u32)>,
    /// Keys that failed for good, and whose dead letter the store does not know to be confirmed: only these may be
    /// dead-lettered once more.
    pub owed_dead: BTreeSet<String>,
}

impl Records {
    /// Reads the whole store of a daemon that does not run.
    pub fn read(store: &Path) -> Self {
        Self::with_store(store, Self::query)
    }

    /// What the store of a daemon that does not run has about these attempts. Costs little, however full it is.
    pub fn of(store: &Path, attempts: &HashSet<(String, u32)>) -> Self {
        Self::with_store(store, |connection| Self::look_up(connection, attempts))
    }

    /// What a crash left, such as a log to recover, stays for the daemon to find: nothing is written.
    fn with_store(store: &Path, read: impl FnOnce(&Connection) -> rusqlite::Result<Self>) -> Self {
        let _alone = READERS.write().unwrap_or_else(PoisonError::into_inner);
        if !store.exists() {
            return Self::default();
        }
        let query = |connection: Connection| {
            connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
            let tables = "SELECT count(*) FROM sqlite_master WHERE name = 'outcomes'";
            // A daemon that was killed at its first start may not have made them.
            if connection.query_row(tables, [], |row| row.get::<_, i64>(0))? == 0 {
                return Ok(Self::default());
            }
            read(&connection)
        };
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE;
        Connection::open_with_flags(store, flags).and_then(query).expect("the store can be read")
    }

    fn look_up(connection: &Connection, attempts: &HashSet<(String, u32)>) -> rusqlite::Result<Self> {
        // `recent` is in the order of time and has no other; it is short.
        let mut recent: HashMap<(String, u32), i64> = HashMap::new();
        let mut select = connection.prepare("SELECT key, attempt, outcome FROM recent")?;
        let mut rows = select.query([])?;
        while let Some(row) = rows.next()? {
            let id = (text(row.get_ref(0)?.as_blob()?), row.get(1)?);
            let outcome = recent.entry(id).or_default();
            *outcome = row.get::<_, i64>(2)?.max(*outcome);
        }
        let mut moved = connection.prepare(
            "SELECT max(outcome) FROM jobs CROSS JOIN generations CROSS JOIN records
             WHERE generation = generations.id AND job = jobs.id AND key = ?1 AND attempt = ?2",
        )?;
        let mut owed =
            connection.prepare("SELECT count(*) FROM failures WHERE key = ?1 AND attempt = ?2 AND delay_s IS NULL")?;
        let mut records = Self::default();
        for id in attempts {
            let of = (blob(&id.0), id.1);
            let moved: Option<i64> = moved.query_row((&of.0, of.1), |row| row.get(0))?;
            let Some(outcome) = moved.max(recent.get(id).copied()) else { continue };
            if outcome == 3 {
                records.done.insert(id.0.clone());
            } else if outcome == 1 && owed.query_row(of, |row| row.get::<_, i64>(0))? > 0 {
                records.owed_dead.insert(id.0.clone());
            }
            records.ended.insert(id.clone());
        }
        Ok(records)
    }

    fn query(connection: &Connection) -> rusqlite::Result<Self> {
        let mut records = Self::default();
        let mut select = connection.prepare(
            "SELECT key, attempt, max(outcome), class IS NOT NULL AND delay_s IS NULL
             FROM outcomes LEFT JOIN failures USING (job, key, attempt) GROUP BY job, key, attempt",
        )?;
        let mut rows = select.query([])?;
        while let Some(row) = rows.next()? {
            let key = text(row.get_ref(0)?.as_blob()?);
            match row.get::<_, i64>(2)? {
                3 => drop(records.done.insert(key.clone())),
                1 if row.get(3)? => drop(records.owed_dead.insert(key.clone())),
                _ => {}
            }
            records.ended.insert((key, row.get(1)?));
        }
        Ok(records)
    }
}

/// The first byte says what the others are; 0 stands before text.
fn text(key: &[u8]) -> String {
    match key.split_first() {
        Some((0, text)) => String::from_utf8_lossy(text).into_owned(),
        _ => format!("{key:02x?}"),
    }
}

/// The reverse.
fn blob(key: &str) -> Vec<u8> {
    [&[0], key.as_bytes()].concat()
}
