//! The only place that names rusqlite: open, migrate, record, look up.
//!
//! One process owns a store at a time, and in it one thread writes: the recorder. Every job thread has a read-only
//! [`Reader`] of its own. In WAL mode neither waits for the other.

mod audit;
mod backup;
mod check;
mod error;
mod filter;
mod history;
mod ledger;
mod lock;
mod look;
mod migrate;
mod place;
mod reader;
mod recent;
mod recorder;
mod stats;
mod upkeep;
mod verify;
mod walk;

use std::ffi::c_int;
use std::fs;
use std::io::ErrorKind;
use std::mem::ManuallyDrop;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};

use log::{info, warn};
use rusqlite::config::DbConfig;
use rusqlite::ffi::SQLITE_IOERR;
use rusqlite::hooks::Wal;
use rusqlite::wal::CheckpointMode;
use rusqlite::{Connection, ErrorCode, MAIN_DB, OptionalExtension as _};

use crate::config::{self, Synchronous};
use crate::task::UnixMillis;
pub use audit::{Act, Anchor, Broken, Deed, Row, list as list_audit, verify as verify_audit};
pub use backup::backup;
pub use error::StoreError;
pub use history::{Ended, History, Life};
use lock::Lock;
use place::Files;
pub use place::Place;
pub use reader::Reader;
pub use recorder::{Admission, Attempt, Batch, Recorder, Request, SPARE_JOBS, StoreReport, Upkeep, Written};
pub use stats::{JobStats, Stats, stats};
pub use upkeep::{forget, note, prune};
pub use verify::verify;

/// The version of SQLite that is built in.
pub fn sqlite_version() -> &'static str {
    rusqlite::version()
}

/// A job's number in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct JobId(i64);

/// A job that was paused by hand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pause {
    /// Why, as the one who did it said.
    pub reason: Option<String>,
    /// Who did it.
    pub by: String,
    /// When.
    pub since: UnixMillis,
}

/// An open store: the writing connection and the lock that keeps other instances out.
///
/// Dropped without [`Store::close`], it leaves the files as a crash would. Whoever drops it has met an error, and closing a
/// connection on a failing disk would write and sync once more, or take away the log of whatever lies in its place now.
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
    connection: ManuallyDrop<Connection>,
    recent: recent::Shared,
    files: Files,
    /// Pages of the log, as of the last commit.
    log_pages: Arc<AtomicI32>,
    /// The last checkpoint found no room in the file; commits still find it in the log.
    cramped: bool,
    lock: Lock,
}

impl Store {
    /// Locks, opens, checks and migrates the store, making its folder where it is missing.
    pub fn open(config: &config::Store) -> Result<Self, StoreError> {
        Self::lock_and_open(config).map_err(|error| {
            let doing = || format!("open {}", config.path.display());
            error.where_full_is_final(doing, "its disk is full: make room, and start again")
        })
    }

    fn lock_and_open(config: &config::Store) -> Result<Self, StoreError> {
        let path = config.path.clone();
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            fs::create_dir_all(folder)
                .map_err(|error| StoreError::system(format!("make its folder {}", folder.display()), &error))?;
        }
        let place = Place::of(&path);
        if let Some(why) = place.objection() {
            match place {
                Place::Remote(_) => return Err(StoreError::Unfit { path, why }),
                Place::Local | Place::Doubtful(_) => warn!("the store {} {why}", path.display()),
            }
        }
        let lock = Lock::take(&path)?;
        let is_new = fs::metadata(&path).map_or(true, |metadata| metadata.len() == 0);
        make_private(&path)?;
        let opening = |error: &rusqlite::Error| StoreError::sqlite(&format!("open {}", path.display()), error);
        let mut connection = ManuallyDrop::new(Connection::open(&path).map_err(|error| opening(&error))?);
        if connection.is_readonly(MAIN_DB).map_err(|error| opening(&error))? {
            let why = "can only be read: its file and its folder must be writable for the user that warrend runs as";
            return Err(StoreError::Unfit { path, why: why.to_owned() });
        }
        let log_pages = Arc::new(AtomicI32::new(0));
        set_up(&mut connection, is_new, config.synchronous, &log_pages).map_err(|error| opening(&error))?;
        migrate::judge(&connection, &path)?;
        if !is_new && !lock.was_clean() {
            check::after_a_crash(&mut connection, &path)?;
        }
        migrate::migrate(&mut connection, &path)?;
        let recent = recent::Shared::new(ledger::load_recent(&connection).map_err(|error| opening(&error))?);
        let files = Files::of(&path, lock.path());
        Ok(Self { path, connection, recent, files, log_pages, cramped: false, lock })
    }

    /// A stop in good order: everything is in the one file, and the next start need not check it.
    pub fn close(self) -> Result<(), StoreError> {
        self.files.check()?;
        match self.connection.wal_checkpoint_v2(None::<&str>, CheckpointMode::PASSIVE) {
            Ok(_) => {}
            // Somebody reads it, or there is no room: the log stays, and is as good.
            Err(error) if is_busy(&error) || error::is_full(&error) => info!("the store keeps its log: {error}"),
            Err(error) => return Err(StoreError::sqlite("bring its log into the file", &error)),
        }
        drop(ManuallyDrop::into_inner(self.connection));
        self.lock.mark_clean()
    }

    /// Brings the log into the file where it has grown long; after commits.
    fn shorten_log(&mut self) -> Result<(), StoreError> {
        if self.log_pages.load(Ordering::Relaxed) < CHECKPOINT { Ok(()) } else { self.empty_log() }
    }

    /// Brings the log into the file. Only that makes a file smaller whose pages were given back.
    fn empty_log(&mut self) -> Result<(), StoreError> {
        let done = self.connection.wal_checkpoint_v2(None::<&str>, CheckpointMode::PASSIVE);
        let cramped = done.as_ref().is_err_and(error::is_full);
        match done {
            Ok(_) => self.log_pages.store(0, Ordering::Relaxed),
            // The pages stay in the log, and the next commit tries again.
            Err(error) if cramped || is_busy(&error) => {}
            Err(error) => return Err(StoreError::sqlite("bring its log into the file", &error)),
        }
        if cramped && !self.cramped {
            warn!("{}: records still find room in its log, but not for long", StoreError::Full);
        }
        self.cramped = cramped;
        Ok(())
    }

    /// The number of a job, given at its first use.
    pub fn job_id(&self, name: &str) -> Result<JobId, StoreError> {
        let insert = "INSERT INTO jobs (name) VALUES (?1) ON CONFLICT (name) DO NOTHING";
        let found = self
            .connection
            .execute(insert, [name])
            .and_then(|_| self.connection.query_row("SELECT id FROM jobs WHERE name = ?1", [name], |row| row.get(0)));
        found.map(JobId).map_err(|error| StoreError::sqlite("register a job", &error))
    }

    /// The same of a job that need not be known.
    fn find_job(&self, name: &str) -> Result<Option<JobId>, StoreError> {
        let found = self.connection.query_row("SELECT id FROM jobs WHERE name = ?1", [name], |row| row.get(0));
        found.map(JobId).optional().map_err(|error| StoreError::sqlite("look up a job", &error))
    }

    /// Whether a job is paused by hand.
    pub fn pause(&self, job: JobId) -> Result<Option<Pause>, StoreError> {
        let select = "SELECT reason, by, since FROM pauses WHERE job = ?1";
        let found = self.connection.query_row(select, [job.0], |row| {
            Ok(Pause { reason: row.get(0)?, by: row.get(1)?, since: UnixMillis(row.get(2)?) })
        });
        found.optional().map_err(|error| StoreError::sqlite("read what is paused", &error))
    }

    /// Forgets which attempts of a job were running: it may run them again.
    pub fn forget_starts(&self, job: JobId) -> Result<(), StoreError> {
        let forgotten = self.connection.execute("DELETE FROM starts WHERE job = ?1", [job.0]);
        forgotten.map(|_| ()).map_err(|error| StoreError::sqlite("forget what was running", &error))
    }

    /// A read-only handle for one job.
    pub fn reader(&self, job: JobId) -> Result<Reader, StoreError> {
        Reader::open(&self.path, job, self.recent.clone())
    }
}

/// What the store holds is nobody else's business: message keys, error texts, who did what. SQLite would make a file that all
/// users can read; its log gets the same mode.
fn make_private(path: &Path) -> Result<(), StoreError> {
    match fs::OpenOptions::new().write(true).create_new(true).mode(PRIVATE).open(path) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => {
            Err(StoreError::system(format!("make {}", path.display()), &error))
        }
        Ok(_) | Err(_) => Ok(()),
    }
}

/// Of a file that the store makes, less what the umask takes: its owner's, and readable for his group.
const PRIVATE: u32 = 0o640;

/// Pages of the log that are brought into the file together: SQLite's own number.
const CHECKPOINT: c_int = 1000;

/// The pragmas, each with its reason.
fn set_up(
    connection: &mut Connection,
    is_new: bool,
    synchronous: Synchronous,
    log_pages: &Arc<AtomicI32>,
) -> rusqlite::Result<()> {
    if is_new {
        // What is forgotten can be given back to the disk little by little. Only a file without tables takes it up.
        connection.pragma_update(None, "auto_vacuum", "incremental")?;
    }
    // Readers and the writer do not wait for each other.
    use_log(connection)?;
    // FULL syncs the WAL at each commit: a record that was acknowledged survives a power cut.
    let synchronous = match synchronous {
        Synchronous::Full => "full",
        Synchronous::Normal => "normal",
    };
    connection.pragma_update(None, "synchronous", synchronous)?;
    // After a burst the WAL file shrinks again.
    connection.pragma_update(None, "journal_size_limit", 64 << 20)?;
    // Or a statement is planned anew whenever its parameters change, in case they deserve a plan of their own.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    // Kibibytes of page cache: the ends of the tables, where everything is written, and room for the steps of a failure.
    connection.pragma_update(None, "cache_size", -2048)?;
    // Another process may hold the file for a moment (a backup, a shell).
    connection.busy_timeout(std::time::Duration::from_secs(10))?;
    // In place of SQLite's own checkpoint, which keeps its errors to itself and syncs again after the next commit, as if a
    // failed sync had not happened.
    let log_pages = Arc::clone(log_pages);
    connection.wal_hook(Some(move |_: &mut Wal, pages: c_int| {
        log_pages.store(pages, Ordering::Relaxed);
        Ok(())
    }))
}

/// Switches to the write-ahead log. SQLite tells a failure by the mode that it stays in, or only once the statement has
/// run to its end.
fn use_log(connection: &Connection) -> rusqlite::Result<()> {
    let mut switch = connection.prepare("PRAGMA journal_mode = wal")?;
    let modes: Vec<String> = switch.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
    if modes == ["wal"] {
        return Ok(());
    }
    let text = "it cannot keep a write-ahead log there".to_owned();
    Err(rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(SQLITE_IOERR), Some(text)))
}

fn is_busy(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn config(folder: &tempfile::TempDir) -> config::Store {
        config::Store {
            path: folder.path().join("state/warrend.db"),
            synchronous: Synchronous::Full,
            retention: std::time::Duration::from_secs(60),
        }
    }

    #[test]
    fn a_job_keeps_its_number() {
        let folder = tempfile::tempdir().unwrap();
        let numbers = || {
            let store = Store::open(&config(&folder)).unwrap();
            (store.job_id("a").unwrap(), store.job_id("b").unwrap())
        };
        let first = numbers();
        assert_ne!(first.0, first.1);
        assert_eq!(first, numbers());
    }

    #[test]
    fn nobody_else_reads_what_it_holds() {
        let folder = tempfile::tempdir().unwrap();
        let config = config(&folder);
        let store = Store::open(&config).unwrap();
        let mode = |path: PathBuf| fs::metadata(path).unwrap().permissions().mode();
        let files = ["", "-wal", ".lock"].map(|end| PathBuf::from(format!("{}{end}", config.path.display())));
        for file in files {
            assert_eq!(mode(file.clone()) & 0o007, 0, "{}", file.display());
        }
        drop(store);
        fs::set_permissions(&config.path, fs::Permissions::from_mode(0o660)).unwrap();
        drop(Store::open(&config).unwrap());
        assert_eq!(mode(config.path) & 0o777, 0o660, "one that is there stays as it is");
    }

    #[test]
    fn a_file_that_is_no_store_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let config = config(&folder);
        fs::create_dir_all(config.path.parent().unwrap()).unwrap();
        fs::write(&config.path, "not a database, but long enough to be read as a header ".repeat(30)).unwrap();
        assert!(matches!(Store::open(&config), Err(StoreError::Failed { .. })));
    }
}
