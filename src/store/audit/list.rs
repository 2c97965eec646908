//! The audit trail as it stands there, for `warrend audit list`.

use std::path::Path;

use super::super::{StoreError, look};
use super::{Anchor, Chain, FIELDS};
use crate::task::{MessageKey, UnixMillis};

/// A row. What stands in it is the trail's word; only [`verify`](super::verify()) says whether it is what was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Its chain, its number and its hash.
    pub anchor: Anchor,
    /// When it was written.
    pub at: UnixMillis,
    /// Who did it.
    pub by: String,
    /// His number; none where it was the daemon.
    pub uid: Option<u32>,
    /// What; one of [`Act`](super::Act), or one that a newer version knows.
    pub act: String,
    /// To which job.
    pub job: Option<String>,
    /// To which message.
    pub key: Option<MessageKey>,
    /// To how many.
    pub count: Option<u64>,
    /// Why, or which.
    pub detail: Option<String>,
}

/// Gives every row since that time, and of that job where one is named, in the order of their times.
pub fn list<E: From<StoreError>>(
    path: &Path,
    since: Option<UnixMillis>,
    job: Option<&str>,
    each: &mut dyn FnMut(Row) -> Result<(), E>,
) -> Result<(), E> {
    let connection = look::open(path)?;
    let failed = |error: &rusqlite::Error| StoreError::sqlite("list its audit trail", error);
    let select =
        format!("SELECT {FIELDS}, hash FROM audit WHERE at >= ?1 AND (?2 IS NULL OR job = ?2) ORDER BY at, chain, seq");
    let mut select = connection.prepare(&select).map_err(|error| failed(&error))?;
    let since = since.map_or(i64::MIN, |since| since.0);
    let mut rows = select.query((since, job)).map_err(|error| failed(&error))?;
    while let Some(row) = rows.next().map_err(|error| failed(&error))? {
        if let Some(row) = read(row).map_err(|error| failed(&error))? {
            each(row)?;
        }
    }
    Ok(())
}

/// A row of a chain that is known here.
fn read(row: &rusqlite::Row<'_>) -> rusqlite::Result<Option<Row>> {
    let Some(chain) = Chain::from_number(row.get(0)?) else {
        return Ok(None);
    };
    Ok(Some(Row {
        anchor: Anchor { chain, seq: row.get(1)?, hash: row.get(10)? },
        at: UnixMillis(row.get(2)?),
        by: row.get(3)?,
        uid: row.get(4)?,
        act: row.get(5)?,
        job: row.get(6)?,
        key: row.get::<_, Option<Vec<u8>>>(7)?.map(|key| MessageKey::from_bytes(&key)),
        count: row.get::<_, Option<i64>>(8)?.and_then(|count| u64::try_from(count).ok()),
        detail: row.get(9)?,
    }))
}
