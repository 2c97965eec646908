//! `warrend dead`: what people do with dead letters. The work itself is in `deadletters`.

mod files;
mod list;
mod replay;
mod show;
mod trail;

use std::io::Write;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use regex::Regex;

use crate::broker::BrokerError;
use crate::broker::oneshot::PublishError;
use crate::cli::Exit;
pub use crate::cli::Failure;
use crate::config::{Config, Job, parse_duration};
use crate::deadletters::{self, Filter, Glance, Trouble};
use crate::task::{ErrorClass, UnixMillis};

/// Where there is no terminal to ask on.
const YES_OR_DRY_RUN: &str = "give --yes, or --dry-run to see what would be done";

/// The subcommands of `dead`.
#[derive(Debug, Subcommand)]
pub enum Dead {
    /// Count dead letters by what they died of; nothing leaves the queue
    List {
        /// The job
        job: String,
        /// As one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Show one dead letter whole; nothing leaves the queue
    Show {
        /// The job
        job: String,
        /// The key or message id; of several letters the first
        #[arg(long, required_unless_present = "index")]
        id: Option<String>,
        /// The place in the queue, from 1
        #[arg(long, value_name = "N", conflicts_with = "id", value_parser = clap::value_parser!(u64).range(1..))]
        index: Option<u64>,
        /// As one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Bring dead letters back to the queues that they failed in; their retry budget starts anew
    Replay(Replay),
    /// Write dead letters into a file, one JSON object a line; nothing leaves the queue
    Export {
        /// The job
        job: String,
        /// A new file
        file: PathBuf,
        /// Which letters
        #[command(flatten)]
        filters: Filters,
    },
    /// Put the dead letters of a file back into the dead-letter queue
    Import {
        /// The job
        job: String,
        /// A file that `export` or `purge` wrote
        file: PathBuf,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
    /// Take dead letters out of their queue, into a file beside the store first
    Purge {
        /// The job
        job: String,
        /// Which letters
        #[command(flatten)]
        filters: Filters,
        /// Say what would be done, and do nothing
        #[arg(long)]
        dry_run: bool,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
}

/// The arguments of `dead replay`.
#[derive(Debug, Args)]
pub struct Replay {
    /// The job
    job: String,
    /// Which letters
    #[command(flatten)]
    filters: Filters,
    /// At most so many a second, such as 50/s
    #[arg(long, value_name = "N/s", value_parser = parse_rate)]
    rate: Option<f64>,
    /// Bring them to this queue instead
    #[arg(long, value_name = "QUEUE")]
    to: Option<String>,
    /// Say what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

/// Which dead letters are meant: all conditions must hold.
#[derive(Debug, Args)]
pub struct Filters {
    /// The key or message id; can be given several times
    #[arg(long = "id", value_name = "ID")]
    ids: Vec<String>,
    /// The class of the failure
    #[arg(long, value_parser = parse_class)]
    class: Option<ErrorClass>,
    /// A regular expression that is found in the error text
    #[arg(long, value_name = "REGEX")]
    error: Option<Regex>,
    /// Failed for good before this time (2026-01-31T12:00:00Z), or so long ago (2h)
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    before: Option<UnixMillis>,
    /// At most so many, the oldest first
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
}

impl Filters {
    fn filter(&self) -> Filter {
        let Self { ids, class, error, before, limit } = self;
        Filter { ids: ids.clone(), class: *class, error: error.clone(), before: *before, limit: *limit }
    }
}

/// Runs what was asked for.
pub fn dead(config: &Config, command: &Dead, out: &mut impl Write) -> Result<Exit, Failure> {
    match command {
        Dead::List { job, json } => list::list(config, job_of(config, job)?, *json, out),
        Dead::Show { job, id, index, json } => {
            show::show(config, job_of(config, job)?, id.as_deref(), *index, *json, out)
        }
        Dead::Replay(args) => replay::replay(config, job_of(config, &args.job)?, args, out),
        Dead::Export { job, file, filters } => {
            files::export(config, job_of(config, job)?, &filters.filter(), file, out)
        }
        Dead::Import { job, file, yes } => files::import(config, job_of(config, job)?, file, *yes, out),
        Dead::Purge { job, filters, dry_run, yes } => {
            let ask = if *dry_run {
                files::Ask::DryRun
            } else if *yes {
                files::Ask::Nothing
            } else {
                files::Ask::First
            };
            files::purge(config, job_of(config, job)?, &filters.filter(), ask, out)
        }
    }
}

/// Letters that are read for somebody who looks at them: more than anybody goes through.
const MOST_LETTERS: u64 = 5000;

/// The first letters of a job in short, for `status --watch`.
pub fn read_letters(config: &Config, job: &str) -> Result<Glance, Failure> {
    deadletters::glance(&config.broker, job_of(config, job)?, MOST_LETTERS).map_err(|trouble| failure(&trouble))
}

/// The text of `dead show`, for the same.
pub fn read_letter(config: &Config, job: &str, id: Option<&str>, index: Option<u64>) -> Result<String, Failure> {
    let mut text = Vec::new();
    show::show(config, job_of(config, job)?, id, index, false, &mut text)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

fn job_of<'c>(config: &'c Config, name: &str) -> Result<&'c Job, Failure> {
    config.jobs.iter().find(|job| *job.name == *name).ok_or_else(|| {
        let names: Vec<&str> = config.jobs.iter().map(|job| &*job.name).collect();
        Failure::new(Exit::Usage, format!("there is no job {name:?} in the configuration; it has {}", names.join(", ")))
    })
}

/// The exit code of what ended the work.
fn failure(trouble: &Trouble) -> Failure {
    let exit = match trouble {
        Trouble::Broker(error) | Trouble::Publish(PublishError::Broker(error)) => match error {
            BrokerError::Topology { .. } => Exit::Failed,
            BrokerError::Unreachable { .. }
            | BrokerError::Refused { .. }
            | BrokerError::Lost { .. }
            | BrokerError::Tls { .. }
            | BrokerError::TlsFiles { .. }
            | BrokerError::PasswordFile { .. } => Exit::NoBroker,
        },
        Trouble::Publish(PublishError::Refused { .. } | PublishError::Stalled { .. }) | Trouble::File(_) => {
            Exit::Failed
        }
    };
    Failure::new(exit, trouble.to_string())
}

/// `1 dead letter`, `2 dead letters`.
fn letters(count: u64) -> String {
    format!("{count} dead letter{}", if count == 1 { "" } else { "s" })
}

/// A time in UTC, as RFC 3339 writes it.
fn time(at: UnixMillis) -> String {
    jiff::Timestamp::from_millisecond(at.0).map_or_else(|_| "-".to_owned(), |time| format!("{time:.0}"))
}

fn parse_rate(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix("/s").unwrap_or(text);
    let rate = number.parse().ok().filter(|rate: &f64| (0.001..=1e6).contains(rate));
    rate.ok_or_else(|| "a rate is written N/s, such as 50/s".to_owned())
}

fn parse_class(text: &str) -> Result<ErrorClass, String> {
    ErrorClass::from_wire(text).ok_or_else(|| format!("one of {}", ErrorClass::ALL.map(ErrorClass::as_str).join(", ")))
}

/// A time, or how long ago.
pub fn parse_time(text: &str) -> Result<UnixMillis, String> {
    if let Ok(time) = text.parse::<jiff::Timestamp>() {
        return Ok(UnixMillis(time.as_millisecond()));
    }
    let ago = parse_duration(text).map_err(|_| "a time (2026-01-31T12:00:00Z) or a duration (2h)".to_owned())?;
    Ok(UnixMillis(UnixMillis::now().0 - i64::try_from(ago.as_millis()).unwrap_or(i64::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_numbers_a_second() {
        assert_eq!(parse_rate("500/s"), Ok(500.0));
        assert_eq!(parse_rate("0.5"), Ok(0.5));
        for bad in ["", "/s", "0/s", "-1/s", "5/m", "inf", "NaN"] {
            assert!(parse_rate(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn times_are_absolute_or_ago() {
        assert_eq!(parse_time("1970-01-01T00:00:01Z"), Ok(UnixMillis(1000)));
        assert_eq!(parse_time("1970-01-01T01:00:00+01:00"), Ok(UnixMillis(0)));
        let ago = UnixMillis::now().0 - parse_time("2h").unwrap().0;
        assert!((7_200_000 - 1..7_200_000 + 60_000).contains(&ago), "{ago}");
        for bad in ["", "yesterday", "2", "1970-01-01"] {
            assert!(parse_time(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn times_are_shown_as_they_are_read() {
        assert_eq!(time(UnixMillis(1_700_000_000_123)), "2023-11-14T22:13:20Z");
        assert_eq!(time(UnixMillis(i64::MAX)), "-");
    }
}
