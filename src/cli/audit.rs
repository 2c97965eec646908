//! `warrend audit`: who did what, and whether the trail of it is whole.

mod list;
mod verify;

use std::io::Write;
use std::path::PathBuf;

use clap::Subcommand;

use crate::cli::dead::parse_time;
use crate::cli::{Exit, Failure};
use crate::config::Config;
use crate::logging::clean;
use crate::store::{Anchor, StoreError};
use crate::task::UnixMillis;

/// The subcommands of `audit`.
#[derive(Debug, Subcommand)]
pub enum Audit {
    /// Show who did what: by hand, and which messages the daemon gave up
    ///
    /// People pause and resume jobs, reload, forget, prune, and replay, purge, import and export dead letters; of these four the
    /// infinitive stands for the beginning and the participle for the end, with the number of letters. Of dead letters and of
    /// the rest, the newest 100000 rows each are kept.
    List {
        /// Since this time (2026-01-31T12:00:00Z), or so long ago (2h)
        #[arg(long, value_name = "TIME", value_parser = parse_time)]
        since: Option<UnixMillis>,
        /// Only what was done to this job
        #[arg(long)]
        job: Option<String>,
        /// As one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Check that no row was changed, removed or added by hand; exits 1 where one was, and names the first
    ///
    /// Each row holds a hash of itself and of the row before it. Who may write the file could compute all of them anew, or take
    /// rows away at the end: hold against that what he cannot write. The daemon logs the hash of every act, unless log.level
    /// is above info, and of both ends when it stops; this command prints the ends too, also those of acts without a daemon.
    Verify {
        /// The store, or a copy of it [default: store.path]
        file: Option<PathBuf>,
        /// A row that was seen before, as the log or this command printed it; can be given several times
        #[arg(long, value_name = "CHAIN:ROW:HASH")]
        expect: Vec<Anchor>,
        /// As one JSON object
        #[arg(long)]
        json: bool,
    },
}

/// Runs what was asked for.
pub fn audit(config: &Config, command: &Audit, out: &mut impl Write) -> Result<Exit, Failure> {
    match command {
        Audit::List { since, job, json } => {
            let what = list::What { since: *since, job: job.as_deref() };
            if *json { list::as_json(config, &what, out) } else { list::as_text(config, &what, out) }
        }
        Audit::Verify { file, expect, json } => {
            verify::verify(file.as_deref().unwrap_or(&config.store.path), expect, *json, out)
        }
    }
}

/// What the store did not do.
impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::new(Exit::of_store(&error), clean(&error.to_string()))
    }
}
