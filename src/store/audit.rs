//! The audit trail: who did what, in rows whose hashes form a chain.
//!
//! What a chain proves: a row that was changed, removed from the middle, moved or added is found, and so is every row after it,
//! by whoever computes the hashes again ([`verify`](verify())). What it cannot prove alone: that nobody who may write the file
//! has computed them all anew, or cut off its end together with `audit_ends`. For that, a hash must stand where he cannot
//! write. So the daemon logs each act with its [`Anchor`], which the journal keeps, and `warrend audit verify --expect` compares.
//!
//! The recorder appends, in the transaction of what the row is about; without a daemon, whoever holds the store's lock.

mod link;
mod list;
mod verify;

use std::fmt;

use rusqlite::types::{Value, ValueRef};
use rusqlite::{Connection, OptionalExtension as _, params_from_iter};
use serde::{Deserialize, Serialize};

use crate::task::{MessageKey, UnixMillis};
use crate::who::Who;

pub use link::Anchor;
pub use list::{Row, list};
pub use verify::{Broken, verify};

/// Rows of a chain that are kept. Those of dead letters take about 110 bytes each, acts with long details up to 2 KiB.
const KEPT: i64 = 100_000;
/// Rows that are dropped together, in some milliseconds.
const DROPPED_AT_ONCE: i64 = 1000;
/// Bytes of a text in a row, at most; longer ones are cut.
const LONGEST: usize = 1024;
/// All of a row that its hash covers, in this order. Of a job, a key, a count or a detail some are absent.
const FIELDS: &str = "chain, seq, at, by, uid, act, job, key, count, detail";
/// How many those are.
const FIELD_COUNT: usize = 10;

/// What was done. The infinitive is what somebody began, and the participle what he ended, with the number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Act {
    /// A job was paused by hand.
    Paused,
    /// It goes on.
    Resumed,
    /// A key of a job, or all of them, was forgotten.
    Forgot,
    /// What is over was forgotten before its time came.
    Pruned,
    /// A changed configuration was taken up.
    Reloaded,
    /// Dead letters are being brought back to work.
    Replay,
    /// So many were.
    Replayed,
    /// Dead letters are being taken out of their queue.
    Purge,
    /// So many were.
    Purged,
    /// Dead letters are being put into their queue.
    Import,
    /// So many were.
    Imported,
    /// Dead letters are being written into a file.
    Export,
    /// So many were.
    Exported,
    /// The daemon gave a message up.
    Dead,
    /// The daemon dropped the oldest rows of a chain.
    Dropped,
}

impl Act {
    /// The name that it has in the table.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Paused => "paused",
            Self::Resumed => "resumed",
            Self::Forgot => "forgot",
            Self::Pruned => "pruned",
            Self::Reloaded => "reloaded",
            Self::Replay => "replay",
            Self::Replayed => "replayed",
            Self::Purge => "purge",
            Self::Purged => "purged",
            Self::Import => "import",
            Self::Imported => "imported",
            Self::Export => "export",
            Self::Exported => "exported",
            Self::Dead => "dead",
            Self::Dropped => "dropped",
        }
    }

    /// Whether it is done on the broker alone, by a process that tells of it. All else is done by who writes the row.
    pub fn is_told(self) -> bool {
        match self {
            Self::Replay
            | Self::Replayed
            | Self::Purge
            | Self::Purged
            | Self::Import
            | Self::Imported
            | Self::Export
            | Self::Exported => true,
            Self::Paused
            | Self::Resumed
            | Self::Forgot
            | Self::Pruned
            | Self::Reloaded
            | Self::Dead
            | Self::Dropped => false,
        }
    }

    fn chain(self) -> Chain {
        if self == Self::Dead { Chain::Dead } else { Chain::Acts }
    }
}

/// Rows that are counted and chained together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Chain {
    /// What people did, and what was dropped of either chain.
    Acts = 1,
    /// The messages that the daemon gave up.
    Dead = 2,
}

impl Chain {
    const ALL: [Self; 2] = [Self::Acts, Self::Dead];

    /// As people see it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Acts => "acts",
            Self::Dead => "dead",
        }
    }

    fn from_text(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|chain| chain.as_str() == text)
    }

    fn from_number(number: i64) -> Option<Self> {
        Self::ALL.into_iter().find(|chain| *chain as i64 == number)
    }
}

/// What a row is to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deed {
    /// Who did it.
    pub by: Who,
    /// What.
    pub act: Act,
    /// To which job.
    pub job: Option<String>,
    /// To which message.
    pub key: Option<MessageKey>,
    /// To how many dead letters or records.
    pub count: Option<u64>,
    /// Why, or which; of a dead letter the class of its failure.
    pub detail: Option<String>,
}

impl Deed {
    /// Nothing is said but who did what.
    pub fn new(by: Who, act: Act) -> Self {
        Self { by, act, job: None, key: None, count: None, detail: None }
    }

    /// A key, or with none all of them.
    pub(super) fn forgot(by: Who, job: &str, key: Option<&MessageKey>) -> Self {
        let detail = key.is_none().then(|| "everything it had recorded".to_owned());
        Self { key: key.cloned(), detail, ..Self::new(by, Act::Forgot).to(job) }
    }

    /// To a job.
    pub fn to(self, job: &str) -> Self {
        Self { job: Some(job.to_owned()), ..self }
    }
}

impl fmt::Display for Deed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} by {}", self.act.as_str(), self.by)?;
        self.job.iter().try_for_each(|job| write!(f, ", job {job}"))?;
        self.key.iter().try_for_each(|key| write!(f, ", key {:?}", key.to_text()))?;
        self.count.iter().try_for_each(|count| write!(f, ", {count}"))?;
        self.detail.iter().try_for_each(|detail| write!(f, ", {detail}"))
    }
}

/// Appends a row, in the caller's transaction.
pub(super) fn append(connection: &Connection, at: UnixMillis, deed: &Deed) -> rusqlite::Result<Anchor> {
    let chain = deed.act.chain();
    let mut ends = connection.prepare_cached("SELECT last, hash FROM audit_ends WHERE chain = ?1")?;
    let (last, previous): (i64, Vec<u8>) = ends.query_row([chain as i64], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let seq = last + 1;
    let text = |text: &str| Value::Text(cut(text).to_owned());
    let optional = |value: Option<Value>| value.unwrap_or(Value::Null);
    let Deed { by, act, job, key, count, detail } = deed;
    let fields: [Value; FIELD_COUNT] = [
        Value::Integer(chain as i64),
        Value::Integer(seq),
        Value::Integer(at.0),
        text(&by.name),
        optional(by.uid.map(|uid| Value::Integer(uid.into()))),
        text(act.as_str()),
        optional(job.as_deref().map(text)),
        optional(key.as_ref().map(|key| Value::Blob(key.as_bytes().to_vec()))),
        optional(count.map(|count| Value::Integer(i64::try_from(count).unwrap_or(i64::MAX)))),
        optional(detail.as_deref().map(text)),
    ];
    let hash = link::link(&previous, fields.iter().map(ValueRef::from));
    let insert = format!("INSERT INTO audit ({FIELDS}, hash) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)");
    let hashed = fields.into_iter().chain([Value::Blob(hash.to_vec())]);
    connection.prepare_cached(&insert)?.execute(params_from_iter(hashed))?;
    Ok(Anchor { chain, seq, hash })
}

/// The beginning of a text that fits into a row. SQLite keeps no more of a text than what stands before a NUL, for some of its
/// functions, so that ends it too.
fn cut(text: &str) -> &str {
    let text = text.split('\0').next().unwrap_or_default();
    &text[..text.floor_char_boundary(LONGEST)]
}

/// Drops the oldest rows of a chain that has grown too long, a few at a time, and tells of it in the trail itself. False where
/// none has.
pub(super) fn drop_oldest(connection: &Connection, at: UnixMillis) -> rusqlite::Result<bool> {
    drop_beyond(connection, at, KEPT, DROPPED_AT_ONCE)
}

fn drop_beyond(connection: &Connection, at: UnixMillis, kept: i64, at_once: i64) -> rusqlite::Result<bool> {
    for chain in Chain::ALL {
        let mut select = connection.prepare_cached("SELECT first, last FROM audit_ends WHERE chain = ?1")?;
        let (first, last): (i64, i64) = select.query_row([chain as i64], |row| Ok((row.get(0)?, row.get(1)?)))?;
        if last - first + 1 < kept + at_once {
            continue;
        }
        let through = first + at_once - 1;
        let select = "SELECT hash FROM audit WHERE chain = ?1 AND seq = ?2";
        let hash = connection.query_row(select, (chain as i64, through), |row| row.get::<_, Vec<u8>>(0)).optional()?;
        // A trail that was tampered with stays as it is, to be looked at.
        let Some(hash) = hash.and_then(|hash| link::Hash::try_from(hash).ok()) else { continue };
        let moved = "UPDATE audit_ends SET first = ?2, before = ?3 WHERE chain = ?1";
        connection.execute(moved, (chain as i64, through + 1, hash))?;
        connection.execute("DELETE FROM audit WHERE chain = ?1 AND seq <= ?2", (chain as i64, through))?;
        let detail = Some(format!("through {}", Anchor { chain, seq: through, hash }));
        let count = u64::try_from(at_once).ok();
        append(connection, at, &Deed { count, detail, ..Deed::new(Who::daemon(), Act::Dropped) })?;
        return Ok(true);
    }
    Ok(false)
}

/// Where the chains end now. Those without rows are left out.
pub(super) fn ends(connection: &Connection) -> rusqlite::Result<Vec<Anchor>> {
    let mut select = connection.prepare("SELECT chain, last, hash FROM audit_ends WHERE last > 0 ORDER BY chain")?;
    let ends = select.query_map([], |row| {
        let chain = Chain::from_number(row.get(0)?);
        Ok(chain.map(|chain| Ok::<_, rusqlite::Error>(Anchor { chain, seq: row.get(1)?, hash: row.get(2)? })))
    })?;
    ends.filter_map(|end| end.and_then(Option::transpose).transpose()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_act_has_the_same_name_on_the_socket_and_in_the_table() {
        let told = [Act::Replay, Act::Replayed, Act::Purge, Act::Purged, Act::Import, Act::Imported, Act::Export];
        let own = [Act::Paused, Act::Resumed, Act::Forgot, Act::Pruned, Act::Reloaded, Act::Dead, Act::Dropped];
        for act in told.into_iter().chain([Act::Exported]).chain(own) {
            assert_eq!(serde_json::to_value(act).unwrap(), act.as_str());
        }
        assert!(told.into_iter().all(Act::is_told) && !own.into_iter().any(Act::is_told));
    }

    #[test]
    fn a_deed_is_logged_in_words() {
        let by = Who { name: "anna".to_owned(), uid: Some(1000) };
        assert_eq!(Deed::new(by.clone(), Act::Pruned).to_string(), "pruned by anna");
        let deed =
            Deed { count: Some(3), detail: Some("to x".to_owned()), ..Deed::new(by.clone(), Act::Replayed).to("mail") };
        assert_eq!(deed.to_string(), "replayed by anna, job mail, 3, to x");
        let forgot = Deed::forgot(by, "mail", Some(&MessageKey::from_text("a\nb")));
        assert_eq!(forgot.to_string(), "forgot by anna, job mail, key \"a\\nb\"");
    }
}
