//! Whether the file is whole: in short after a crash, and in full for `warrend store verify`.

use std::path::Path;
use std::time::{Duration, Instant};

use log::{info, warn};
use rusqlite::wal::CheckpointMode;
use rusqlite::{Connection, ErrorCode};

use super::error::MEND;
use super::{StoreError, is_busy};

/// How long a start may check: less than a service manager waits for it. Enough for some ten million keys.
const PATIENCE: Duration = Duration::from_secs(10);
/// Steps of SQLite's machine between two looks at the clock.
const STEPS: i32 = 10_000;

/// Checks the structure of a store that no instance stopped in good order, and brings what its log holds into the file.
pub fn after_a_crash(connection: &mut Connection, path: &Path) -> Result<(), StoreError> {
    info!("checking the store, which was not stopped in good order");
    let began = Instant::now();
    let failed = |error: &rusqlite::Error| StoreError::sqlite(&format!("check {}", path.display()), error);
    match quick_check(connection, PATIENCE).as_deref() {
        Ok([]) => info!("the store is whole, which took {:.1} s", began.elapsed().as_secs_f64()),
        Ok([damage, ..]) => {
            return Err(StoreError::Unfit { path: path.to_owned(), why: format!("is damaged ({damage}): {MEND}") });
        }
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::OperationInterrupted) => {
            warn!(
                "the store is too large to be checked whole at a start: nothing was wrong within {} s; \
                 `warrend store verify` checks all of it",
                PATIENCE.as_secs()
            );
        }
        Err(error) => return Err(failed(error)),
    }
    // A commit whose sync failed may be read here without being on the disk. Written anew, it is there before anything
    // relies on it.
    match connection.wal_checkpoint_v2(None::<&str>, CheckpointMode::PASSIVE) {
        Ok(_) => Ok(()),
        Err(error) if is_busy(&error) => Ok(()),
        Err(error) => Err(failed(&error)),
    }
}

/// The first thing that is wrong, if any. Time that is up is `SQLITE_INTERRUPT`.
fn quick_check(connection: &mut Connection, patience: Duration) -> rusqlite::Result<Vec<String>> {
    let until = Instant::now() + patience;
    connection.progress_handler(STEPS, Some(move || Instant::now() >= until))?;
    let found = damage(connection, "quick_check", 1);
    connection.progress_handler(0, None::<fn() -> bool>)?;
    found
}

/// What SQLite's own check finds, at most so many lines.
pub(super) fn damage(connection: &Connection, check: &str, most: u32) -> rusqlite::Result<Vec<String>> {
    let mut select = connection.prepare(&format!("PRAGMA {check}({most})"))?;
    let lines = select.query_map([], |row| row.get::<_, String>(0))?;
    // "ok" says that nothing was found; a finding may begin with a heading on a line of its own.
    let told = lines.filter(|line| !matches!(line.as_deref(), Ok("ok")));
    told.map(|line| line.map(|line| line.replace('\n', " "))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_that_takes_too_long_is_cut_and_what_comes_after_it_is_not() {
        let mut connection = Connection::open_in_memory().unwrap();
        connection.execute_batch("CREATE TABLE numbers (n INTEGER PRIMARY KEY, text TEXT NOT NULL) STRICT").unwrap();
        let fill = "WITH RECURSIVE many(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM many WHERE n < 50000)
            INSERT INTO numbers SELECT n, 'text' FROM many";
        connection.execute_batch(fill).unwrap();
        let cut = quick_check(&mut connection, Duration::ZERO).unwrap_err();
        assert_eq!(cut.sqlite_error_code(), Some(ErrorCode::OperationInterrupted), "{cut}");
        assert_eq!(damage(&connection, "integrity_check", 1).unwrap(), [""; 0]);
        assert_eq!(quick_check(&mut connection, PATIENCE).unwrap(), [""; 0]);
    }
}
