//! What the daemon's store holds at this moment, for a reader beside it: all that is committed, and nothing else.

use std::collections::{HashMap, VecDeque};
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags, Result};

use crate::support::records;

/// How far an attempt is, as a reader of the store sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recorded {
    Nothing,
    /// It failed.
    Failed,
    /// It, or another attempt of the same key, is done.
    Done,
}

/// The number of a success in the tables.
const DONE: i64 = 3;

/// Attempts that are remembered: many more than can be unacknowledged. Older ones are looked up again.
const MOST: usize = 200_000;

/// It remembers what it has seen: records are appended, so each look reads only what is new.
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
    /// The last row of `recent` that was read.
    seen: i64,
    ended: HashMap<Name, Vec<(u32, i64)>>,
    /// What is in `ended`, the oldest first.
    order: VecDeque<Name>,
}

/// Job and key.
type Name = (String, String);

impl Store {
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), seen: 0, ended: HashMap::new(), order: VecDeque::new() }
    }

    /// What is committed of an attempt now.
    pub fn recorded(&mut self, job: &str, key: &str, attempt: u32) -> Result<Recorded> {
        let name = (job.to_owned(), key.to_owned());
        // A success stays one.
        if self.known(&name, attempt) != Recorded::Done {
            self.look(&name, attempt)?;
        }
        Ok(self.known(&name, attempt))
    }

    fn known(&self, name: &Name, attempt: u32) -> Recorded {
        let known = self.ended.get(name).map(Vec::as_slice).unwrap_or_default();
        if known.iter().any(|(_, outcome)| *outcome == DONE) {
            Recorded::Done
        } else if known.iter().any(|(ended, _)| *ended == attempt) {
            Recorded::Failed
        } else {
            Recorded::Nothing
        }
    }

    /// Reads what was committed since the last look.
    ///
    /// It opens the store and closes it again: with a reader that stays, SQLite would not mend what a crash leaves, and
    /// what the daemon had written in its last moment would count for this reader and not for the next daemon.
    fn look(&mut self, name: &Name, attempt: u32) -> Result<()> {
        // Made by the daemon before it connects.
        if !self.path.exists() {
            return Ok(());
        }
        // Locals are dropped in the reverse order: the connection is closed first.
        let _beside = records::beside_the_daemon();
        let connection = Connection::open_with_flags(&self.path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        let new = "SELECT seq, name, key, attempt, outcome FROM recent JOIN jobs ON jobs.id = recent.job
                   WHERE seq > ?1 ORDER BY seq";
        let mut select = connection.prepare(new)?;
        let mut rows = select.query([self.seen])?;
        while let Some(row) = rows.next()? {
            self.seen = row.get(0)?;
            let name = (row.get(1)?, text(row.get_ref(2)?.as_blob()?));
            self.note(name, row.get(3)?, row.get(4)?);
        }
        if self.known(name, attempt) == Recorded::Nothing {
            self.look_back(&connection, name)?;
        }
        Ok(())
    }

    /// Reads all that the store has of a key, also what was forgotten here, and what moved on before it was seen.
    fn look_back(&mut self, connection: &Connection, name: &Name) -> Result<()> {
        let all = "SELECT attempt, outcome FROM outcomes JOIN jobs ON jobs.id = outcomes.job
                   WHERE name = ?1 AND key IN (?2, ?3, ?4)";
        let [plain, hyphenated, simple] = forms(&name.1);
        let mut select = connection.prepare(all)?;
        let mut rows = select.query((&name.0, plain, hyphenated, simple))?;
        while let Some(row) = rows.next()? {
            self.note(name.clone(), row.get(0)?, row.get(1)?);
        }
        Ok(())
    }

    fn note(&mut self, name: Name, attempt: u32, outcome: i64) {
        let attempts = self.ended.entry(name.clone()).or_default();
        if attempts.is_empty() {
            self.order.push_back(name);
        }
        attempts.push((attempt, outcome));
        if self.order.len() > MOST
            && let Some(oldest) = self.order.pop_front()
        {
            self.ended.remove(&oldest);
        }
    }
}

/// The forms in which a key may be stored: as text, or packed where it is an id of either spelling.
fn forms(key: &str) -> [Option<Vec<u8>>; 3] {
    let packed = |first: u8, length| {
        let id = uuid::Uuid::try_parse(key).ok().filter(|_| key.len() == length)?;
        Some([&[first], &id.as_bytes()[..]].concat())
    };
    [Some([&[0], key.as_bytes()].concat()), packed(1, 36), packed(2, 32)]
}

/// A stored key as the publisher wrote it: the first byte says what the others are.
fn text(key: &[u8]) -> String {
    let uuid = |bytes: &[u8]| uuid::Uuid::from_slice(bytes).expect("a packed id has 16 bytes");
    match key.split_first() {
        Some((0, text)) => String::from_utf8_lossy(text).into_owned(),
        Some((1, id)) => uuid(id).hyphenated().to_string(),
        Some((2, id)) => uuid(id).simple().to_string(),
        _ => format!("{key:02x?}"),
    }
}
