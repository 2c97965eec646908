//! `warrend status`: one screen, problems first.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::path::Path;

use crate::cli::client::{ask, misunderstood};
use crate::cli::figures::{number, size, span};
use crate::cli::{Exit, Failure};
use crate::control::{Answer, Request};
use crate::logging::clean;
use crate::report::{Job, Percentiles, Status};

/// Asks the daemon behind `socket` and prints what it says.
pub fn status(socket: &Path, json: bool, color: bool, out: &mut impl Write) -> Result<Exit, Failure> {
    let Answer::Status(status) = ask(socket, &Request::Status)? else {
        return Err(misunderstood());
    };
    print(&status, json, color, out).map_err(|error| Failure::new(Exit::Failed, format!("cannot print: {error}")))?;
    Ok(if status.healthy { Exit::Done } else { Exit::Failed })
}

fn print(status: &Status, json: bool, color: bool, out: &mut impl Write) -> io::Result<()> {
    if json {
        return crate::logging::write_json(out, status);
    }
    out.write_all(render(status, color).as_bytes())
}

/// The text form, at most 80 columns wide where names are short.
fn render(status: &Status, color: bool) -> String {
    let paint = |code: &str, text: &str| {
        if color { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    };
    let mut text = String::new();
    let health = if status.healthy { paint("1;32", "healthy") } else { paint("1;31", "degraded") };
    let up = span(status.uptime_s);
    let _ = writeln!(text, "warrend {}   {health}, {}   up {up}   pid {}", status.version, status.state, status.pid);
    for problem in &status.problems {
        let _ = writeln!(text, "{}  {}", paint("31", "!"), clean(problem));
    }
    let _ = writeln!(text);
    broker(&mut text, status);
    store(&mut text, status);
    let _ = writeln!(text);
    let jobs: Vec<_> = status.jobs.iter().map(|(name, job)| job_cells(name, job)).collect();
    let head = ["JOB", "STATE", "READY", "RUN", "BUF", "DONE", "DUP", "RETRY", "DEAD", "RATE/s", "p50/p99"];
    table(&mut text, &head, &jobs, |line| paint("1", line));
    details(&mut text, status);
    text
}

fn broker(text: &mut String, status: &Status) {
    let broker = &status.broker;
    let host = broker.host.as_deref().unwrap_or("-");
    let vhost = broker.vhost.as_deref().map_or_else(|| "-".to_owned(), clean);
    let server = broker.server.as_deref().map_or_else(|| "-".to_owned(), clean);
    let state = match (broker.connected, broker.blocked) {
        (true, false) => "connected",
        (true, true) => "connected, publishing blocked",
        (false, _) => "not connected",
    };
    let tls = broker.tls.as_deref().map_or_else(String::new, |tls| format!(", {tls}"));
    let reconnects = broker.reconnects;
    let _ = writeln!(text, "broker  {server} at {host}, vhost {vhost}: {state}{tls}, {reconnects} reconnects");
}

fn store(text: &mut String, status: &Status) {
    let store = &status.store;
    let count = |n: Option<u64>| n.map_or_else(|| "-".to_owned(), number);
    let records = store.records.and_then(|n| u64::try_from(n).ok());
    let size = store.bytes.map_or_else(|| "-".to_owned(), |bytes| size(bytes + store.wal_bytes.unwrap_or(0)));
    let commit = store.last_commit_ms.map_or_else(|| "-".to_owned(), |ms| format!("{ms:.1} ms"));
    let commits = count(store.commits);
    let _ = writeln!(text, "store   {}", clean(&store.path));
    let _ = writeln!(text, "        {} records, {size}, {commits} commits, the last in {commit}", count(records));
}

fn job_cells(name: &str, job: &Job) -> Vec<String> {
    if job.state == "silent" {
        let mut cells = vec![name.to_owned(), job.state.clone()];
        cells.resize(11, "-".to_owned());
        return cells;
    }
    let ready: Option<u64> = job.queues.values().map(|queue| queue.ready.map(u64::from)).sum();
    vec![
        name.to_owned(),
        job.state.clone(),
        ready.map_or_else(|| "-".to_owned(), number),
        job.running.to_string(),
        number(job.buffered as u64),
        number(job.done),
        number(job.duplicates),
        number(job.retried),
        number(job.dead),
        format!("{:.1}", job.rate_1m),
        times(job.run_ms),
    ]
}

/// What a line a job has no room for: its queues where there are several, its dead letters, its last error.
fn details(text: &mut String, status: &Status) {
    for (name, job) in &status.jobs {
        let mut lines = Vec::new();
        if job.queues.len() > 1 {
            let queue = |(queue, counts): (&String, &crate::report::Queue)| {
                let ready = counts.ready.map_or_else(|| "-".to_owned(), |n| number(n.into()));
                format!("{} {ready} ready", clean(queue))
            };
            lines.push(job.queues.iter().map(queue).collect::<Vec<_>>().join(", "));
        }
        let restarts: u64 = job.worker_restarts.values().sum();
        if restarts > 0 {
            let reasons = job.worker_restarts.iter().filter(|(_, count)| **count > 0);
            let reasons: Vec<_> =
                reasons.map(|(reason, count)| format!("{} {}", clean(reason), number(*count))).collect();
            let what = if restarts == 1 { "process was" } else { "processes were" };
            lines.push(format!("{} worker {what} replaced: {}", number(restarts), reasons.join(", ")));
        }
        if job.stalls > 0 {
            let times = if job.stalls == 1 { "once".to_owned() } else { format!("{} times", number(job.stalls)) };
            lines.push(format!("connected anew {times} because a queue delivered nothing"));
        }
        if job.prefetch_auto {
            lines.push(format!("prefetch {} by measurement", number(job.prefetch.into())));
        }
        if job.in_doubt > 0 {
            let what = if job.in_doubt == 1 { "attempt was" } else { "attempts were" };
            lines.push(format!("{} {what} in doubt when the daemon started", number(job.in_doubt as u64)));
        }
        if let Some(ready @ 1..) = job.dead_letter.ready {
            let what = if ready == 1 { "dead letter" } else { "dead letters" };
            lines.push(format!("{} {what} in {}", number(ready.into()), clean(&job.dead_letter.queue)));
        }
        if let Some(error) = &job.last_error {
            let error: String = clean(error).chars().take(100).collect();
            lines.push(format!("last error: {error}"));
        }
        if !lines.is_empty() {
            let _ = writeln!(text, "\n{name}");
            for line in lines {
                let _ = writeln!(text, "  {line}");
            }
        }
    }
}

fn table(text: &mut String, head: &[&str], rows: &[Vec<String>], paint: impl Fn(&str) -> String) {
    let head: Vec<String> = head.iter().map(|cell| (*cell).to_owned()).collect();
    let width = |column: usize| {
        rows.iter().chain(std::iter::once(&head)).map(|row| row[column].chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<_> = (0..head.len()).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).enumerate().map(|(column, (cell, width))| match column {
            // Names to the left, numbers to the right.
            0 | 1 => format!("{cell:<width$}"),
            _ => format!("{cell:>width$}"),
        });
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    let _ = writeln!(text, "{}", paint(&line(&head)));
    for row in rows {
        let _ = writeln!(text, "{}", line(row));
    }
}

fn times(percentiles: Percentiles) -> String {
    match (percentiles.p50, percentiles.p99) {
        (Some(p50), Some(p99)) => format!("{}/{}", millis(p50), millis(p99)),
        _ => "-".to_owned(),
    }
}

fn millis(ms: f64) -> String {
    match ms {
        _ if ms < 10.0 => format!("{ms:.1}ms"),
        _ if ms < 1000.0 => format!("{ms:.0}ms"),
        _ if ms < 100_000.0 => format!("{:.1}s", ms / 1000.0),
        _ => format!("{:.0}s", ms / 1000.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{self, DeadLetter, Queue};

    fn sample() -> Status {
        let job = Job {
            state: "running".to_owned(),
            running: 4,
            buffered: 12,
            received: 12_345,
            done: 12_000,
            duplicates: 300,
            retried: 40,
            dead: 5,
            worker_restarts: [("crashed".to_owned(), 2), ("exited".to_owned(), 0), ("max_age".to_owned(), 11)].into(),
            rate_1m: 201.46,
            run_ms: Percentiles { p50: Some(1.25), p95: Some(3.0), p99: Some(1250.0) },
            queues: [
                ("urgent".to_owned(), Queue { ready: Some(0), consumers: Some(1) }),
                ("bulk".to_owned(), Queue { ready: Some(1500), consumers: Some(1) }),
            ]
            .into(),
            dead_letter: DeadLetter { queue: "mail.dead".to_owned(), ready: Some(5) },
            last_error: Some("exit status 1: no \u{1b}[31mluck\nat all".to_owned()),
            ..Job::default()
        };
        Status {
            schema: report::SCHEMA,
            version: "0.1.0".to_owned(),
            pid: 7,
            uptime_s: 3_725,
            state: "running".to_owned(),
            healthy: false,
            problems: vec!["job other has no connection to RabbitMQ yet".to_owned()],
            broker: report::Broker::default(),
            store: report::Store { path: "/var/lib/warrend/warrend.db".to_owned(), ..report::Store::default() },
            jobs: [
                ("mail".to_owned(), job),
                ("other".to_owned(), Job { state: "silent".to_owned(), ..Job::default() }),
            ]
            .into(),
        }
    }

    #[test]
    fn one_screen_of_eighty_columns() {
        let text = render(&sample(), false);
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        assert!(text.lines().count() <= 24, "{text}");
        assert!(text.starts_with("warrend 0.1.0   degraded, running   up 1 h 2 min   pid 7\n!  job other"), "{text}");
        assert!(text.contains("5 dead letters in mail.dead"), "{text}");
        assert!(text.contains("13 worker processes were replaced: crashed 2, max_age 11\n"), "{text}");
        assert!(!text.contains('\u{1b}'), "what others wrote cannot steer the terminal: {text}");
        assert!(render(&sample(), true).contains("\u{1b}[1;31mdegraded"));
    }

    #[test]
    fn unknown_is_a_dash() {
        let mut status = sample();
        status.jobs.retain(|name, _| name == "other");
        let text = render(&status, false);
        assert!(text.contains("other  silent"), "{text}");
        assert!(
            !text.contains('0')
                || text.lines().filter(|line| line.starts_with("other")).all(|line| !line.contains('0'))
        );
    }
}
