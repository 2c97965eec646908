//! A line for each job: which columns there are, what they say, and which jobs come first.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use super::line::Tone;
use super::table::{Column, Row};
use super::text::{millis, or_dash, rate, short};
use crate::report::{Job, Status};

/// What is told of each job. [`HELP`] explains it.
pub const COLUMNS: [Column; 13] = [
    Column { head: "STATE", rank: 100, left: true },
    Column { head: "READY", rank: 90, left: false },
    Column { head: "RUN", rank: 80, left: false },
    Column { head: "BUF", rank: 40, left: false },
    Column { head: "RATE/s", rank: 85, left: false },
    Column { head: "DONE", rank: 70, left: false },
    Column { head: "RETRY", rank: 35, left: false },
    Column { head: "DUP", rank: 20, left: false },
    Column { head: "CRASH", rank: 25, left: false },
    Column { head: "DEAD", rank: 95, left: false },
    Column { head: "RUN p95", rank: 60, left: false },
    Column { head: "WAIT p95", rank: 50, left: false },
    Column { head: "RUN p99", rank: 10, left: false },
];

/// What the columns mean, for those who ask.
pub const HELP: [(&str, &str); 13] = [
    ("STATE", "running, connecting, paused, probing, draining, or silent (no answer)"),
    ("READY", "messages that wait in the job's queues on the broker"),
    ("RUN", "handlers at work / at most"),
    ("BUF", "messages received that wait for a handler"),
    ("RATE/s", "messages done a second, over the last minute"),
    ("DONE", "messages done since the daemon started"),
    ("RETRY", "failed attempts that are tried again, since the start"),
    ("DUP", "messages dropped because they were done before, since the start"),
    ("CRASH", "attempts ended by a signal, since the start"),
    ("DEAD", "dead letters that lie in the dead-letter queue now"),
    ("RUN p95", "95 of 100 handlers took no longer, over the last minutes"),
    ("WAIT p95", "95 of 100 messages waited here no longer for a handler"),
    ("RUN p99", "99 of 100 handlers took no longer"),
];

/// [`HELP`] for the command line.
pub fn explain() -> String {
    let lines = HELP.map(|(head, what)| format!("  {head:<8}  {what}"));
    format!("The columns, of which a narrow terminal shows fewer:\n{}", lines.join("\n"))
}

/// The row of a job.
pub fn row(name: &str, job: &Job) -> Row {
    let name = (Tone::Plain, name.to_owned());
    let state = (state_tone(job), or_dash(Some(&job.state)));
    if job.state == "silent" {
        let mut cells = vec![state];
        cells.resize(COLUMNS.len(), (Tone::Plain, "-".to_owned()));
        return Row { name, cells };
    }
    let plain = |text: String| (Tone::Plain, text);
    let time = |ms: Option<f64>| plain(ms.map_or_else(|| "-".to_owned(), millis));
    let waiting = ready(job);
    let waiting_tone = if waiting.is_some_and(|ready| ready > 0) && job.running == 0 { Tone::Odd } else { Tone::Plain };
    let dead_tone = if dead(job) > 0 { Tone::Odd } else { Tone::Plain };
    let handlers = job.concurrency.map_or_else(String::new, |most| format!("/{most}"));
    let cells = vec![
        state,
        (waiting_tone, waiting.map_or_else(|| "-".to_owned(), short)),
        plain(format!("{}{handlers}", job.running)),
        plain(short(job.buffered as u64)),
        plain(rate(job.rate_1m)),
        plain(short(job.done)),
        plain(short(job.retried)),
        plain(short(job.duplicates)),
        plain(short(job.crashed)),
        (dead_tone, job.dead_letter.ready.map_or_else(|| "-".to_owned(), |ready| short(ready.into()))),
        time(job.run_ms.p95),
        time(job.wait_ms.p95),
        time(job.run_ms.p99),
    ];
    Row { name, cells }
}

/// Messages that wait on the broker; absent where one of its queues is not known.
pub fn ready(job: &Job) -> Option<u64> {
    job.queues.values().map(|queue| queue.ready.map(u64::from)).sum()
}

fn dead(job: &Job) -> u32 {
    job.dead_letter.ready.unwrap_or(0)
}

fn state_tone(job: &Job) -> Tone {
    match job.state.as_str() {
        "running" => Tone::Plain,
        "paused" | "probing" | "draining" => Tone::Odd,
        // Among them states of a newer daemon.
        _ => Tone::Bad,
    }
}

/// The jobs, those in trouble first. Where not all of them are shown, the busiest of the others follow.
pub fn in_order(status: &Status, by_business: bool) -> Vec<(&str, &Job)> {
    let in_trouble: BTreeSet<&str> = status.findings.iter().filter_map(|finding| finding.job.as_deref()).collect();
    let mut jobs: Vec<_> = status.jobs.iter().map(|(name, job)| (name.as_str(), job)).collect();
    // Stable: what is equal stays in the order of the names.
    jobs.sort_by_key(|(name, job)| {
        let well = !in_trouble.contains(name) && job.state == "running";
        let business = (dead(job) > 0, (job.rate_1m * 100.0) as u64, ready(job).unwrap_or(0), job.running);
        (well, Reverse(if by_business { business } else { Default::default() }))
    });
    jobs
}
