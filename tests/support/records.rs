//! What a daemon's store holds, read as a file: after a crash it tells what had been recorded by then.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use rusqlite::{Connection, OpenFlags};

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
    /// Reads the store of a daemon that does not run. From a copy: what a crash left, such as a log to recover, stays for
    /// the daemon to find.
    pub fn read(store: &Path) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let copy = folder.path().join("store.db");
        for suffix in ["", "-wal"] {
            let mut source = store.as_os_str().to_owned();
            source.push(suffix);
            if Path::new(&source).exists() {
                let target = format!("{}{suffix}", copy.display());
                fs::copy(&source, target).expect("the store can be copied");
            }
        }
        if !copy.exists() {
            return Self::default();
        }
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE;
        Connection::open_with_flags(&copy, flags)
            .and_then(|connection| Self::query(&connection))
            .expect("the store can be read")
    }

    fn query(connection: &Connection) -> rusqlite::Result<Self> {
        let tables = "SELECT count(*) FROM sqlite_master WHERE name = 'outcomes'";
        // A daemon that was killed at its first start may not have made them.
        if connection.query_row(tables, [], |row| row.get::<_, i64>(0))? == 0 {
            return Ok(Self::default());
        }
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
