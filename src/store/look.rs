//! A store that is only looked at, from outside: whether or not a daemon runs, and also a copy of one.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::{StoreError, migrate};

/// Opens a store for reading; it must exist, and be of the schema that is known here.
pub fn open(path: &Path) -> Result<Connection, StoreError> {
    if !path.exists() {
        let why = "is not there: `warrend run` makes it when it starts for the first time".to_owned();
        return Err(StoreError::Unfit { path: path.to_owned(), why });
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).and_then(|connection| {
        connection.busy_timeout(Duration::from_secs(10))?;
        // The first question shows whether it is a database at all.
        connection.query_row("SELECT count(*) FROM sqlite_master", [], |_| Ok(()))?;
        Ok(connection)
    });
    let connection = connection.map_err(|error| cannot_open(path, &error))?;
    migrate::judge(&connection, path)?;
    if migrate::is_current(&connection).map_err(|error| cannot_open(path, &error))? {
        return Ok(connection);
    }
    let why =
        "is none of this version of warrend: if it is older, start `warrend run` once, which brings it up to date";
    Err(StoreError::Unfit { path: path.to_owned(), why: why.to_owned() })
}

fn cannot_open(path: &Path, error: &rusqlite::Error) -> StoreError {
    let doing = format!("open {} for reading", path.display());
    match error.sqlite_error_code() {
        Some(ErrorCode::CannotOpen | ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => {
            StoreError::failed(doing, format!("{error}; run this as root or as the daemon's user"))
        }
        _ => StoreError::sqlite(&doing, error),
    }
}
