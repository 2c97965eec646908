//! What is known without a daemon: what its store remembers. Marked as such, because nothing of it is of now.

use std::io::Write;
use std::time::Duration;

use serde_json::{Value, json};

use super::line::{Line, Tone};
use super::screen::Paper;
use super::table::{self, Column, Row};
use super::text::{ago, number};
use crate::cli::{Exit, Failure};
use crate::config::Config;
use crate::logging::clean;
use crate::report::SCHEMA;
use crate::store::{self, JobStats, Stats};
use crate::task::UnixMillis;

/// How long the store may be counted: millions of records take a while, and somebody waits.
const PATIENCE: Duration = Duration::from_secs(3);

const COLUMNS: [Column; 5] = [
    Column { head: "DONE", rank: 5, left: false },
    Column { head: "RETRIED", rank: 3, left: false },
    Column { head: "DEAD", rank: 4, left: false },
    Column { head: "LAST RECORD", rank: 2, left: true },
    Column { head: "", rank: 1, left: true },
];

/// Tells what the store knows of a daemon that does not run. Gives back the failure, which says that it does not.
pub fn tell(config: &Config, failure: Failure, as_json: bool, paper: Paper, out: &mut impl Write) -> Failure {
    if failure.exit != Exit::NotRunning {
        return failure;
    }
    let counted = count(config);
    let printed = if as_json {
        crate::logging::write_json(out, &to_json(config, &failure.text, &counted))
    } else {
        let lines = lines(config, &counted, UnixMillis::now().0, paper);
        let text: String = lines.iter().map(|line| line.print(false) + "\n").collect();
        out.write_all(text.as_bytes())
    };
    printed.err().map_or(failure, |error| Failure::print(&error))
}

/// Everything that was recorded, or why it is not known.
fn count(config: &Config) -> Result<Stats, String> {
    let path = config.store.path.clone();
    if !path.exists() {
        return Err(format!("there is no store at {} (or it is not yours to see)", path.display()));
    }
    let (counts, counted) = crossbeam_channel::bounded(1);
    let thread = std::thread::Builder::new().name("count".to_owned()).spawn(move || {
        // Where it takes too long nobody listens any more.
        let _ = counts.send(store::stats(&path, &|_| None).map_err(|error| error.to_string()));
    });
    thread.map_err(|error| format!("cannot start a thread: {error}"))?;
    let late = "it holds more than can be counted in a moment; `warrend store stats` takes its time";
    counted.recv_timeout(PATIENCE).unwrap_or_else(|_| Err(late.to_owned()))
}

fn newest(stats: &Stats) -> Option<UnixMillis> {
    stats.jobs.values().filter_map(|job| job.newest).max()
}

fn lines(config: &Config, counted: &Result<Stats, String>, now_ms: i64, paper: Paper) -> Vec<Line> {
    let path = clean(&config.store.path.display().to_string());
    let stats = match counted {
        Ok(stats) => stats,
        Err(why) => return vec![Line::plain(format!("the last totals are not known: {}", clean(why)))],
    };
    let Some(newest) = newest(stats) else {
        return vec![Line::plain(format!("the store {path} has no record yet"))];
    };
    let mut lines = vec![
        Line::plain(format!(
            "warrend is not running; last known totals, of {} ({})",
            time(newest),
            ago(now_ms, newest.0)
        )),
        Line::plain(format!("from the store {path}, as far back as it remembers")),
        Line::default(),
    ];
    let row = |(name, job): (&String, &JobStats)| {
        let plain = |text: String| (Tone::Plain, text);
        let at = job.newest.map_or_else(|| "-".to_owned(), time);
        let age = job.newest.map_or_else(String::new, |newest| ago(now_ms, newest.0));
        let cells =
            vec![plain(number(job.done)), plain(number(job.retried)), plain(number(job.dead)), plain(at), plain(age)];
        Row { name: plain(clean(name)), cells }
    };
    let rows: Vec<Row> = stats.jobs.iter().map(row).collect();
    lines.extend(table::lines("JOB", &COLUMNS, &rows, paper.width, paper.piped, paper.glyphs));
    lines
}

/// Of the shape of a status, as far as that is known; `last_known` is nothing that a running daemon has.
fn to_json(config: &Config, why: &str, counted: &Result<Stats, String>) -> Value {
    let jobs = |stats: &Stats| -> serde_json::Map<String, Value> {
        let job = |(name, job): (&String, &JobStats)| {
            let told = json!({
                "done": job.done,
                "retried": job.retried,
                "dead": job.dead,
                "newest_ms": job.newest.map(|at| at.0),
            });
            (name.clone(), told)
        };
        stats.jobs.iter().map(job).collect()
    };
    let known = counted.as_ref().ok().map(|stats| {
        json!({
            "store": config.store.path.display().to_string(),
            "newest_ms": newest(stats).map(|at| at.0),
            "jobs": jobs(stats),
        })
    });
    json!({
        "schema": SCHEMA,
        "state": "stopped",
        "healthy": false,
        "problems": [why],
        "last_known": known,
        "last_known_error": counted.as_ref().err(),
    })
}

fn time(at: UnixMillis) -> String {
    jiff::Timestamp::from_millisecond(at.0).map_or_else(|_| "-".to_owned(), |time| format!("{time:.0}"))
}
