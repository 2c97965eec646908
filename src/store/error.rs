//! Why the store cannot do its part.

use std::io;
use std::path::PathBuf;

use rusqlite::ErrorCode;
use rusqlite::ffi::SQLITE_IOERR_SHMSIZE;

/// Why the store cannot do its part. Everything but [`StoreError::Full`] ends the daemon.
#[derive(Debug, Clone)]
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
    /// The file, or its place, is not fit to be a store.
    Unfit {
        /// The store.
        path: PathBuf,
        /// What is wrong with it and what to do, to go after its path.
        why: String,
    },
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
            Self::Unfit { path, why } => write!(f, "the store {} {why}", path.display()),
            Self::Failed { doing, reason } => write!(f, "the store cannot {doing}: {reason}"),
        }
    }
}

impl std::error::Error for StoreError {}

/// What can be done about a damaged file.
pub(super) const MEND: &str = "`warrend store verify` tells the damage; where the disk itself is well, restore a backup, \
                               or move the file away, which forgets what has run";

impl StoreError {
    pub(super) fn failed(doing: impl Into<String>, reason: impl std::fmt::Display) -> Self {
        Self::Failed { doing: doing.into(), reason: reason.to_string() }
    }

    /// Of the system, about a file beside the store or the store as a whole.
    pub(super) fn system(doing: impl Into<String>, error: &io::Error) -> Self {
        let kind = error.kind();
        if kind == io::ErrorKind::StorageFull {
            return Self::Full;
        }
        let is_forbidden = kind == io::ErrorKind::PermissionDenied || kind == io::ErrorKind::ReadOnlyFilesystem;
        let hint = if is_forbidden { WRITABLE } else { FAILS };
        Self::failed(doing, format!("{error}; {hint}"))
    }

    pub(super) fn sqlite(doing: &str, error: &rusqlite::Error) -> Self {
        if is_full(error) {
            return Self::Full;
        }
        let hint = match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => MEND,
            Some(ErrorCode::ReadOnly | ErrorCode::CannotOpen | ErrorCode::PermissionDenied) => WRITABLE,
            Some(ErrorCode::SystemIoFailure) => FAILS,
            _ => return Self::failed(doing, error),
        };
        // The general text of an I/O error does not tell a failed sync from a failed read; this number does.
        let code = error.sqlite_error().map_or(0, |error| error.extended_code);
        Self::failed(doing, format!("{error} (SQLite's code {code}); {hint}"))
    }

    /// The same error of who wanted something forgotten. That needs some room too, and does not go on by itself once there is.
    pub fn while_forgetting(self) -> Self {
        self.where_full_is_final(|| "forget".to_owned(), "its disk is full: make a little room, and ask again")
    }

    /// The same error where nobody waits for room.
    pub(super) fn where_full_is_final(self, doing: impl FnOnce() -> String, reason: &str) -> Self {
        match self {
            Self::Full => Self::failed(doing(), reason),
            Self::Locked { .. } | Self::TooNew { .. } | Self::Unfit { .. } | Self::Failed { .. } => self,
        }
    }
}

const FAILS: &str = "the disk fails, or a quota is used up; the kernel's log may say more";
const WRITABLE: &str = "its file and its folder must be writable for the user that warrend runs as";

/// Whether it is only room that is missing. Writing may be tried again then; after any other failure of the disk nobody
/// knows what is on it.
pub(super) fn is_full(error: &rusqlite::Error) -> bool {
    let shared_memory = |error: &rusqlite::ffi::Error| error.extended_code == SQLITE_IOERR_SHMSIZE;
    // The index of the write-ahead log grows too, and says it in another way.
    error.sqlite_error_code() == Some(ErrorCode::DiskFull) || error.sqlite_error().is_some_and(shared_memory)
}
