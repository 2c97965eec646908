//! `warrend store`: what people do with the SQLite file. The work itself is in `store`, and in the daemon where one runs.

mod copy;
mod forget;
mod prune;
mod stats;

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use clap::Subcommand;

use crate::cli::client::{ask, ask_if_running, misunderstood};
use crate::cli::figures::number;
use crate::cli::{Exit, Failure};
use crate::config::Config;
use crate::control::{Answer, Request};
use crate::logging::clean;
use crate::report::Upkeep;
use crate::store::StoreError;
use crate::task::UnixMillis;

/// The subcommands of `store`.
#[derive(Debug, Subcommand)]
pub enum Store {
    /// Count what is remembered, and what it takes on the disk
    ///
    /// It reads the whole store, beside a daemon that runs, which takes some seconds for millions of keys.
    Stats {
        /// As one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Forget now what is older than its retention, and give the room back to the disk
    ///
    /// A running daemon forgets by itself, a little at a time, and uses the room again. This is for the disk that is
    /// nearly full, and after a retention was shortened. It asks the daemon where one runs.
    Prune {
        /// Say what would be forgotten, and do nothing
        #[arg(long)]
        dry_run: bool,
        /// As one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Copy the store into a file, as of one moment, also while the daemon runs
    ///
    /// To go back to a copy: stop the daemon, remove the store and the files beside it (-wal, -shm), put the copy in its
    /// place, start. Messages that were handled since then run again if they come again.
    Backup {
        /// The copy
        file: PathBuf,
        /// Replace the file if it is there
        #[arg(long)]
        force: bool,
        /// As one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Check that the store, or a copy of it, is whole and does not contradict itself; exits 74 where it is not
    Verify {
        /// The file [default: store.path]
        file: Option<PathBuf>,
        /// As one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Forget a key, so that the next delivery of its message runs again
    ///
    /// It asks the daemon where one runs, and is refused while the message is in flight there.
    Forget {
        /// The job; it need not be configured any more
        job: String,
        /// The key: the message id, or whatever `idempotency.key` names
        #[arg(required_unless_present = "all")]
        key: Option<String>,
        /// Everything that the job has recorded so far
        #[arg(long, conflicts_with = "key")]
        all: bool,
        /// Do not ask
        #[arg(long)]
        yes: bool,
        /// As one JSON object
        #[arg(long)]
        json: bool,
    },
}

/// Runs what was asked for.
pub fn store(config: &Config, command: &Store, out: &mut impl Write) -> Result<Exit, Failure> {
    match command {
        Store::Stats { json } => stats::stats(config, *json, out),
        Store::Prune { dry_run: true, json } => prune::dry_run(config, *json, out),
        Store::Prune { dry_run: false, json } => prune::prune(config, *json, out),
        Store::Backup { file, force, json } => copy::backup(config, file, *force, *json, out),
        Store::Verify { file, json } => copy::verify(file.as_deref().unwrap_or(&config.store.path), *json, out),
        Store::Forget { job, key, all: _, yes, json } => {
            let what = forget::What { job, key: key.as_deref() };
            forget::forget(config, &what, *yes, *json, out)
        }
    }
}

/// What the store did not do.
fn failure(error: &StoreError) -> Failure {
    Failure::new(Exit::of_store(error), clean(&error.to_string()))
}

/// When what is over by now ended at the latest; `None` for a job that forgets nothing by itself.
fn over(config: &Config, job: &str) -> Option<UnixMillis> {
    let job = config.jobs.iter().find(|known| known.enabled && *known.name == *job)?;
    let kept = i64::try_from(job.idempotency.retention.as_millis()).unwrap_or(i64::MAX);
    Some(UnixMillis(UnixMillis::now().0.saturating_sub(kept)))
}

/// Has the daemon do it, and waits for the end. `None` where none runs.
fn ask_daemon(config: &Config, request: &Request) -> Result<Option<Upkeep>, Failure> {
    /// How often it is asked how far it is.
    const POLL: Duration = Duration::from_millis(200);
    let socket = &config.control.socket;
    let Some(mut answer) = ask_if_running(socket, request)? else {
        return Ok(None);
    };
    loop {
        let Answer::Upkeep(upkeep) = answer else { return Err(misunderstood()) };
        if upkeep.finished {
            return Ok(Some(upkeep));
        }
        std::thread::sleep(POLL);
        answer = ask(socket, &Request::Pruning)?;
    }
}

/// `1 record`, `2 records`.
fn records(count: u64) -> String {
    format!("{} record{}", number(count), if count == 1 { "" } else { "s" })
}
