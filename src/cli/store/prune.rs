//! `warrend store prune`.

use std::io::Write;

use super::{ask_daemon, failure, over, records};
use crate::cli::figures::size;
use crate::cli::{Exit, Failure};
use crate::config::Config;
use crate::control::Request;
use crate::report::Upkeep;
use crate::store;

/// Says what is over.
pub fn dry_run(config: &Config, out: &mut impl Write) -> Result<Exit, Failure> {
    let stats = store::stats(&config.store.path, &|job| over(config, job)).map_err(|error| failure(&error))?;
    let all: u64 = stats.jobs.values().map(|job| job.over).sum();
    let parts: Vec<String> = stats
        .jobs
        .iter()
        .filter(|(_, job)| job.over > 0)
        .map(|(name, job)| format!("\n  {name}: {}", records(job.over)))
        .collect();
    let free = size(stats.free_bytes);
    writeln!(
        out,
        "would forget {} of {}; {free} are free already{}",
        records(all),
        records(stats.attempts()),
        parts.concat()
    )
    .map_err(|error| Failure::print(&error))?;
    Ok(Exit::Done)
}

/// Forgets it, and gives the room back.
pub fn prune(config: &Config, out: &mut impl Write) -> Result<Exit, Failure> {
    let Upkeep { forgotten, given_back, .. } = match ask_daemon(config, &Request::Prune)? {
        Some(done) => done,
        None => {
            let (forgotten, given_back) =
                store::prune(&config.store, &retention(config)).map_err(|error| failure(&error))?;
            Upkeep { forgotten, given_back, finished: true }
        }
    };
    writeln!(out, "forgot {}, and gave {} back to the disk", records(forgotten), size(given_back))
        .map_err(|error| Failure::print(&error))?;
    Ok(Exit::Done)
}

/// What each job that runs keeps, by name.
fn retention(config: &Config) -> Vec<(&str, std::time::Duration)> {
    let jobs = config.jobs.iter().filter(|job| job.enabled);
    jobs.map(|job| (&*job.name, job.idempotency.retention)).collect()
}
