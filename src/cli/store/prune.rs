//! `warrend store prune`.

use std::io::Write;

use serde_json::json;

use super::{ask_daemon, failure, over, records};
use crate::cli::figures::size;
use crate::cli::{Exit, Failure};
use crate::config::Config;
use crate::control::Request;
use crate::logging::{clean, write_json};
use crate::report::Upkeep;
use crate::store;

/// Says what is over.
pub fn dry_run(config: &Config, as_json: bool, out: &mut impl Write) -> Result<Exit, Failure> {
    let stats = store::stats(&config.store.path, &|job| over(config, job)).map_err(|error| failure(&error))?;
    let jobs: Vec<_> =
        stats.jobs.iter().filter(|(_, job)| job.over > 0).map(|(name, job)| (name.as_str(), job.over)).collect();
    let all: u64 = jobs.iter().map(|(_, over)| over).sum();
    let printed = if as_json {
        let jobs: serde_json::Map<_, _> = jobs.iter().map(|(name, over)| ((*name).to_owned(), json!(over))).collect();
        let free = stats.free_bytes;
        write_json(out, &json!({ "schema": 1, "dry_run": true, "forgotten": all, "free_bytes": free, "jobs": jobs }))
    } else {
        let each: String = jobs.iter().map(|(name, over)| format!("\n  {}: {}", clean(name), records(*over))).collect();
        let (of, free) = (records(stats.records()), size(stats.free_bytes));
        writeln!(out, "would forget {} of {of}; {free} are free already{each}", records(all))
    };
    printed.map_err(|error| Failure::print(&error))?;
    Ok(Exit::Done)
}

/// Forgets it, and gives the room back.
pub fn prune(config: &Config, as_json: bool, out: &mut impl Write) -> Result<Exit, Failure> {
    let Upkeep { forgotten, given_back, .. } = match ask_daemon(config, &Request::Prune)? {
        Some(done) => done,
        None => {
            let (forgotten, given_back) =
                store::prune(&config.store, &retention(config)).map_err(|error| failure(&error))?;
            Upkeep { forgotten, given_back, finished: true }
        }
    };
    let printed = if as_json {
        let object = json!({ "schema": 1, "dry_run": false, "forgotten": forgotten, "given_back_bytes": given_back });
        write_json(out, &object)
    } else {
        writeln!(out, "forgot {}, and gave {} back to the disk", records(forgotten), size(given_back))
    };
    printed.map_err(|error| Failure::print(&error))?;
    Ok(Exit::Done)
}

/// What each job that runs keeps, by name.
fn retention(config: &Config) -> Vec<(&str, std::time::Duration)> {
    let jobs = config.jobs.iter().filter(|job| job.enabled);
    jobs.map(|job| (&*job.name, job.idempotency.retention)).collect()
}
