//! `warrend store stats`.

use std::fmt::Write as _;
use std::io::Write;

use serde_json::{Value, json};

use super::{failure, over};
use crate::cli::figures::{number, size, span};
use crate::cli::life::time;
use crate::cli::{Exit, Failure};
use crate::config::Config;
use crate::logging::{clean, write_json};
use crate::store::{self, JobStats, Stats};

/// Counts and prints.
pub fn stats(config: &Config, as_json: bool, out: &mut impl Write) -> Result<Exit, Failure> {
    let stats = store::stats(&config.store.path, &|job| over(config, job)).map_err(|error| failure(&error))?;
    let printed = if as_json {
        write_json(out, &to_json(config, &stats))
    } else {
        out.write_all(text(config, &stats).as_bytes())
    };
    printed.map_err(|error| Failure::print(&error))?;
    Ok(Exit::Done)
}

/// Bytes of the used pages for each key; none without keys.
fn bytes_a_key(stats: &Stats) -> Option<u64> {
    stats.bytes.saturating_sub(stats.free_bytes).checked_div(stats.keys())
}

/// How long a job's keys are remembered; none for one that does not run with this configuration: it keeps them.
fn retention(config: &Config, job: &str) -> Option<u64> {
    let job = config.jobs.iter().find(|known| known.enabled && *known.name == *job)?;
    Some(job.idempotency.retention.as_secs())
}

fn to_json(config: &Config, stats: &Stats) -> Value {
    let job = |(name, job): (&String, &JobStats)| {
        let object = json!({
            "keys": job.keys,
            "attempts": job.attempts,
            "records": job.records,
            "done": job.done,
            "retried": job.retried,
            "dead": job.dead,
            "oldest_ms": job.oldest.map(|at| at.0),
            "newest_ms": job.newest.map(|at| at.0),
            "retention_s": retention(config, name),
            "over": job.over,
        });
        (name.clone(), object)
    };
    json!({
        "schema": 1,
        "path": stats.path.display().to_string(),
        "schema_version": stats.schema,
        "bytes": stats.bytes,
        "wal_bytes": stats.log_bytes,
        "free_bytes": stats.free_bytes,
        "page_bytes": stats.page_bytes,
        "bytes_per_key": bytes_a_key(stats),
        "generations": stats.generations,
        "young": stats.young,
        "jobs": stats.jobs.iter().map(job).collect::<serde_json::Map<_, _>>(),
    })
}

fn text(config: &Config, stats: &Stats) -> String {
    let mut text = format!("{}\n", clean(&stats.path.display().to_string()));
    let each = bytes_a_key(stats).map_or_else(String::new, |bytes| format!(", {} bytes a key", number(bytes)));
    let _ = writeln!(
        text,
        "  schema {}, {} of which {} are free, log {}{each}",
        stats.schema,
        size(stats.bytes),
        size(stats.free_bytes),
        size(stats.log_bytes)
    );
    let plural = if stats.generations == 1 { "" } else { "s" };
    let _ = writeln!(
        text,
        "  {} attempts of {} keys in {} generation{plural} and {} young records",
        number(stats.attempts()),
        number(stats.keys()),
        number(stats.generations as u64),
        number(stats.young)
    );
    if stats.jobs.is_empty() {
        return text;
    }
    let width = stats.jobs.keys().map(|name| clean(name).chars().count()).max().unwrap_or(0).max(3);
    let _ = writeln!(
        text,
        "\n{:<width$}  {:>11}  {:>11}  {:>9}  {:>9}  {:<20}  {:>9}  {:>9}",
        "JOB", "KEYS", "DONE", "RETRIED", "DEAD", "OLDEST", "RETENTION", "OVER"
    );
    for (name, job) in &stats.jobs {
        let oldest =
            job.oldest.map_or_else(|| "-".to_owned(), |at| time(at).chars().take(19).collect::<String>() + "Z");
        let retention = retention(config, name);
        // A job that is not configured keeps its keys, so nothing of it is over.
        let over = retention.map_or_else(|| "-".to_owned(), |_| number(job.over));
        let retention = retention.map_or_else(|| "-".to_owned(), span);
        let [keys, done, retried, dead] = [job.keys, job.done, job.retried, job.dead].map(number);
        let _ = writeln!(
            text,
            "{:<width$}  {keys:>11}  {done:>11}  {retried:>9}  {dead:>9}  {oldest:<20}  {retention:>9}  {over:>9}",
            clean(name)
        );
    }
    text
}
