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
    let until = began + PATIENCE;
    let failed = |error: &rusqlite::Error| StoreError::sqlite(&format!("check {}", path.display()), error);
    connection.progress_handler(STEPS, Some(move || Instant::now() >= until)).map_err(|error| failed(&error))?;
    let found = damage(connection, "quick_check", 1);
    connection.progress_handler(0, None::<fn() -> bool>).map_err(|error| failed(&error))?;
    match found.as_deref() {
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

/// What SQLite's own check finds, at most so many lines.
pub(super) fn damage(connection: &Connection, check: &str, most: u32) -> rusqlite::Result<Vec<String>> {
    let mut select = connection.prepare(&format!("PRAGMA {check}({most})"))?;
    let lines = select.query_map([], |row| row.get::<_, String>(0))?;
    // "ok" says that nothing was found; a finding may begin with a heading on a line of its own.
    let told = lines.filter(|line| !matches!(line.as_deref(), Ok("ok")));
    told.map(|line| line.map(|line| line.replace('\n', " "))).collect()
}
