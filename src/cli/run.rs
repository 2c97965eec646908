//! `warrend run`: the daemon in the foreground.

use std::path::Path;

use crate::cli::{Exit, Failure};
use crate::config::Config;
use crate::daemon::{self, DaemonError};

/// Runs until a signal ends it, or until everything is empty.
pub fn run(file: &Path, config: Config, until_empty: bool) -> Result<Exit, Failure> {
    match daemon::run(file, config, until_empty) {
        Ok(()) => Ok(Exit::Done),
        Err(error) => Err(Failure::new(exit(&error), error.to_string())),
    }
}

fn exit(error: &DaemonError) -> Exit {
    match error {
        DaemonError::Store(error) => Exit::of_store(error),
        DaemonError::SocketInUse(_) => Exit::Locked,
        DaemonError::Address(..) | DaemonError::System { .. } | DaemonError::Hung(_) => Exit::Failed,
        DaemonError::Ended(_) => Exit::Internal,
    }
}
