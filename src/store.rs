//! The only place that names rusqlite: open, migrate, record, look up.
//!
//! One process owns a store at a time, and in it one thread writes: the recorder. Every job thread has a read-only
//! [`Reader`] of its own. In WAL mode neither waits for the other.

mod filter;
mod history;
mod ledger;
mod migrate;
mod reader;
mod recent;
mod recorder;

use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OptionalExtension as _};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};

use crate::config::{self, Synchronous};
use crate::task::UnixMillis;
pub use history::{Ended, History, Life};
pub use reader::Reader;
pub use recorder::{Attempt, Batch, Recorder, Request, StoreReport};

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

/// Why the store cannot do its part.
#[derive(Debug)]
pub enum StoreError {
    /// Another instance holds the store.
    Locked {
        /// The lock file.
        path: PathBuf,
        /// What stands in the lock file: the other instance's process id, where it could be read.
        pid: String,
    },
    /// The file was written by a newer version.
    TooNew {
        /// The store.
        path: PathBuf,
        /// Its schema version.
        found: i64,
        /// The newest that this version knows.
        known: i64,
    },
    /// The disk is full: nothing was committed, and it may work later.
    Full,
    /// Anything else: stop, and let the supervisor restart.
    Failed {
        /// What was tried.
        doing: String,
        /// What SQLite or the system said.
        reason: String,
    },
}

impl std::fmt::Display for StoreError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Locked { path, pid } => {
                write!(f, "another warrend holds the store (process {pid}, lock {}): stop it first", path.display())
            }
            Self::TooNew { path, found, known } => write!(
                f,
                "the store {} has schema version {found}, and this version of warrend knows up to {known}: \
                 install the newer version again",
                path.display()
            ),
            Self::Full => f.write_str("the disk of the store is full: make room, and the work goes on by itself"),
            Self::Failed { doing, reason } => write!(f, "the store cannot {doing}: {reason}"),
        }
    }
}

impl std::error::Error for StoreError {}

impl StoreError {
    fn failed(doing: impl Into<String>, reason: impl std::fmt::Display) -> Self {
        Self::Failed { doing: doing.into(), reason: reason.to_string() }
    }

    fn sqlite(doing: &str, error: &rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(rusqlite::ErrorCode::DiskFull) => Self::Full,
            _ => Self::failed(doing, error),
        }
    }
}

/// An open store: the writing connection and the lock that keeps other instances out.
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
    connection: Connection,
    recent: recent::Shared,
    /// Held for the life of the process; the kernel releases it, also after `kill -9`.
    _lock: File,
}

impl Store {
    /// Locks, opens and migrates the store, making its folder where it is missing.
    pub fn open(config: &config::Store) -> Result<Self, StoreError> {
        let path = config.path.clone();
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            fs::create_dir_all(folder)
                .map_err(|error| StoreError::failed(format!("make its folder {}", folder.display()), error))?;
        }
        let lock = lock(&path)?;
        let opening = |error: &rusqlite::Error| StoreError::sqlite(&format!("open {}", path.display()), error);
        let mut connection = Connection::open(&path).map_err(|error| opening(&error))?;
        set_up(&connection, config.synchronous).map_err(|error| opening(&error))?;
        migrate::migrate(&mut connection, &path)?;
        let recent = ledger::load_recent(&connection).map_err(|error| opening(&error))?;
        Ok(Self { recent: recent::Shared::new(recent), path, connection, _lock: lock })
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

/// The pragmas, each with its reason.
fn set_up(connection: &Connection, synchronous: Synchronous) -> rusqlite::Result<()> {
    // Readers and the writer do not wait for each other.
    connection.pragma_update(None, "journal_mode", "wal")?;
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
    connection.busy_timeout(std::time::Duration::from_secs(10))
}

/// How long the lock of a daemon that is dead may outlive it.
const LINGER: Duration = Duration::from_secs(2);

/// Takes the lock beside the store; a file of its own, because SQLite's locks on the store do not last.
fn lock(store: &Path) -> Result<File, StoreError> {
    let mut path = store.as_os_str().to_owned();
    path.push(".lock");
    let path = PathBuf::from(path);
    let failed = |error: &dyn std::fmt::Display| StoreError::failed(format!("lock {}", path.display()), error);
    let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
    let file = file.as_mut().map_err(|error| failed(error))?;
    let until = Instant::now() + LINGER;
    while let Err(error) = flock(&*file, FlockOperation::NonBlockingLockExclusive) {
        if error != Errno::WOULDBLOCK {
            return Err(failed(&error));
        }
        let holder = holder(file);
        // A process that a crashed daemon was just starting has its descriptors, and with them the lock, a moment longer.
        if holder.is_none_or(|pid| test_kill_process(pid) != Err(Errno::SRCH)) || Instant::now() >= until {
            let pid = holder.map_or_else(|| "unknown".to_owned(), |pid| pid.to_string());
            return Err(StoreError::Locked { path, pid });
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let write = file.set_len(0).and_then(|()| file.rewind()).and_then(|()| writeln!(file, "{}", std::process::id()));
    write.map_err(|error| failed(&error))?;
    file.try_clone().map_err(|error| failed(&error))
}

/// Who holds the lock, by what stands in its file. The other instance may not have written it yet.
fn holder(file: &mut File) -> Option<Pid> {
    let mut pid = String::new();
    file.rewind().ok()?;
    file.read_to_string(&mut pid).ok()?;
    pid.trim().parse().ok().and_then(Pid::from_raw)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(folder: &tempfile::TempDir) -> config::Store {
        config::Store {
            path: folder.path().join("state/warrend.db"),
            synchronous: Synchronous::Full,
            retention: std::time::Duration::from_secs(60),
        }
    }

    #[test]
    fn a_second_instance_is_refused_and_told_the_pid() {
        let folder = tempfile::tempdir().unwrap();
        let first = Store::open(&config(&folder)).unwrap();
        let refused = Store::open(&config(&folder)).unwrap_err().to_string();
        assert!(refused.contains(&format!("process {}", std::process::id())), "{refused}");
        drop(first);
        Store::open(&config(&folder)).unwrap();
    }

    #[test]
    fn a_lock_that_outlives_its_daemon_for_a_moment_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        drop(Store::open(&config(&folder)).unwrap());
        let path = folder.path().join("state/warrend.db.lock");
        // No process of Linux has so large an id.
        fs::write(&path, i32::MAX.to_string()).unwrap();
        let lingering = File::open(&path).unwrap();
        flock(&lingering, FlockOperation::NonBlockingLockExclusive).unwrap();
        let last_process = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(100));
            drop(lingering);
        });
        Store::open(&config(&folder)).unwrap();
        last_process.join().unwrap();
    }

    #[test]
    fn a_newer_schema_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&config(&folder)).unwrap();
        store.connection.pragma_update(None, "user_version", 99).unwrap();
        drop(store);
        let refused = Store::open(&config(&folder)).unwrap_err();
        assert!(matches!(refused, StoreError::TooNew { found: 99, .. }), "{refused}");
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
    fn a_file_that_is_no_store_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let config = config(&folder);
        fs::create_dir_all(config.path.parent().unwrap()).unwrap();
        fs::write(&config.path, "not a database, but long enough to be read as a header ".repeat(30)).unwrap();
        assert!(matches!(Store::open(&config), Err(StoreError::Failed { .. })));
    }
}
