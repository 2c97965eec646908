//! `warrend status`: one screen, health and problems first.
//!
//! What the daemon says goes through `screen`, which gives lines; they are printed once, again and again into a pipe, or
//! drawn by `watch`.

pub mod jobs;
mod last;
pub mod line;
pub mod notes;
pub mod problems;
pub mod screen;
pub mod table;
pub mod text;

use std::io::{self, IsTerminal as _, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use crate::cli::client::ask_status;
use crate::cli::{Exit, Failure};
use crate::config::{Config, parse_duration};
use crate::report::Status;
use crate::task::UnixMillis;
use screen::Paper;
use text::Glyphs;

/// The arguments of `status`.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// As one JSON object; with --watch one a line, again and again
    #[arg(long)]
    json: bool,
    /// Tell every job, problem and note, whatever the height of the terminal
    #[arg(long)]
    all: bool,
    /// Go on until stopped: on a terminal in place and with keys, which "?" explains; else one screen after another
    #[arg(long)]
    watch: bool,
    /// How often --watch looks
    #[arg(long, value_name = "DURATION", default_value = "1s", requires = "watch", value_parser = parse_interval)]
    interval: Duration,
}

/// What a terminal has that does not say.
const COMMON_SIZE: (usize, usize) = (80, 24);
/// Less is not worth the effort.
const SMALLEST_SIZE: (usize, usize) = (40, 12);

/// Asks the daemon of this configuration and prints what it says.
pub fn status(config: &Config, options: &Options, color: bool, out: &mut impl Write) -> Result<Exit, Failure> {
    let socket = &config.control.socket;
    if options.watch && !options.json && can_be_drawn_on() {
        return crate::cli::watch::watch(config, options.interval, color, out);
    }
    if options.watch {
        return repeat(socket, options, color, out);
    }
    let status =
        ask_status(socket).map_err(|failure| last::tell(config, failure, options.json, paper(options.all), out))?;
    print(&status, options, color, out)?;
    Ok(if status.healthy { Exit::Done } else { Exit::Failed })
}

/// Whether there is a terminal at both ends that obeys.
fn can_be_drawn_on() -> bool {
    let obeys = std::env::var_os("TERM").is_some_and(|kind| !kind.is_empty() && kind != "dumb");
    obeys && io::stdin().is_terminal() && io::stdout().is_terminal()
}

/// One screen after another, for what is no terminal. Ends when nobody reads any more.
fn repeat(socket: &Path, options: &Options, color: bool, out: &mut impl Write) -> Result<Exit, Failure> {
    let mut due = Instant::now();
    let mut first = true;
    loop {
        let asked = ask_status(socket);
        if !options.json {
            let blank = if first { "" } else { "\n" };
            let now = jiff::Timestamp::from_millisecond(UnixMillis::now().0).unwrap_or_default();
            writeln!(out, "{blank}{now:.0}").map_err(|error| Failure::print(&error))?;
        }
        first = false;
        match asked {
            Ok(status) => print(&status, options, color, out)?,
            // It may come back: that is what somebody watches for.
            Err(failure) if options.json => {
                let gone = serde_json::json!({ "schema": crate::report::SCHEMA, "error": failure.text });
                crate::logging::write_json(out, &gone).map_err(|error| Failure::print(&error))?;
            }
            Err(failure) => writeln!(out, "{}", failure.text).map_err(|error| Failure::print(&error))?,
        }
        out.flush().map_err(|error| Failure::print(&error))?;
        // A look that took longer than the interval is followed by the next one at once, and by no more.
        due = (due + options.interval).max(Instant::now());
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
    }
}

fn print(status: &Status, options: &Options, color: bool, out: &mut impl Write) -> Result<(), Failure> {
    let printed = if options.json {
        crate::logging::write_json(out, status)
    } else {
        let lines = screen::compose(status, UnixMillis::now().0, paper(options.all || options.watch));
        let text: String = lines.iter().map(|line| line.print(color) + "\n").collect();
        out.write_all(text.as_bytes())
    };
    printed.map_err(|error| Failure::print(&error))
}

/// What standard output is. Into a pipe goes everything, and names are whole: who searches it must find them.
fn paper(everything: bool) -> Paper {
    let terminal = io::stdout().is_terminal();
    let (width, height) = size(terminal);
    // The prompt that follows needs a line too.
    let height = height.saturating_sub(1).max(SMALLEST_SIZE.1);
    Paper {
        width: width.max(SMALLEST_SIZE.0),
        height: (terminal && !everything).then_some(height),
        piped: !terminal,
        glyphs: glyphs(),
    }
}

/// The signs of this locale.
pub fn glyphs() -> Glyphs {
    Glyphs::of_locale(|name| std::env::var(name).ok())
}

fn size(terminal: bool) -> (usize, usize) {
    let known = terminal.then(|| rustix::termios::tcgetwinsize(io::stdout()).ok()).flatten();
    match known {
        Some(size) if size.ws_col > 0 && size.ws_row > 0 => (size.ws_col.into(), size.ws_row.into()),
        Some(_) | None => {
            let columns = std::env::var("COLUMNS").ok().and_then(|text| text.parse().ok());
            (columns.unwrap_or(COMMON_SIZE.0), COMMON_SIZE.1)
        }
    }
}

fn parse_interval(text: &str) -> Result<Duration, String> {
    let interval = parse_duration(text)?;
    let allowed = Duration::from_millis(100)..=Duration::from_secs(3600);
    if allowed.contains(&interval) { Ok(interval) } else { Err("from 100ms to 1h".to_owned()) }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::report::{self, DeadLetter, Finding, Job, Percentiles, Queue};

    const NOW: i64 = 1_700_000_100_000;

    /// Of a daemon in its best health with so many jobs, all of them at work.
    pub fn status(jobs: usize) -> Status {
        let job = |index: usize| Job {
            state: "running".to_owned(),
            running: 4,
            concurrency: Some(4),
            buffered: 12,
            received: 12_345,
            done: 12_000 + index as u64,
            duplicates: 300,
            retried: 40,
            rate_1m: 201.46,
            run_ms: Percentiles { p50: Some(1.25), p95: Some(3.0), p99: Some(1250.0) },
            wait_ms: Percentiles { p50: Some(1.25), p95: Some(31.0), p99: Some(50.0) },
            queues: [(format!("queue-{index}"), Queue { ready: Some(7), consumers: Some(1), ..Queue::default() })]
                .into(),
            dead_letter: DeadLetter { queue: format!("job-{index:02}.dead"), ready: Some(0) },
            ..Job::default()
        };
        let broker = report::Broker {
            connected: true,
            host: Some("127.0.0.1:5672".to_owned()),
            vhost: Some("/".to_owned()),
            server: Some("RabbitMQ 3.10.8".to_owned()),
            ..report::Broker::default()
        };
        Status {
            schema: report::SCHEMA,
            version: "0.1.0".to_owned(),
            pid: 7,
            uptime_s: 3_725,
            state: "running".to_owned(),
            healthy: true,
            problems: Vec::new(),
            findings: Vec::new(),
            broker,
            store: report::Store { path: "/var/lib/warrend/warrend.db".to_owned(), ..report::Store::default() },
            jobs: (0..jobs).map(|index| (format!("job-{index:02}"), job(index))).collect(),
            system: report::System::default(),
            reload: None,
            alerts: None,
        }
    }

    /// With a job of everything: a name that is long, several queues, dead letters, errors.
    fn troubled(jobs: usize) -> Status {
        let mut status = status(jobs);
        let worst = Job {
            state: "paused".to_owned(),
            dead: 5,
            worker_restarts: [("crashed".to_owned(), 2), ("exited".to_owned(), 0), ("max_age".to_owned(), 11)].into(),
            queues: [
                ("urgent".to_owned(), Queue { ready: Some(0), consumers: Some(1), ..Queue::default() }),
                ("bulk".to_owned(), Queue { ready: Some(150_000), consumers: Some(1), ..Queue::default() }),
            ]
            .into(),
            dead_letter: DeadLetter { queue: "mail.dead".to_owned(), ready: Some(5) },
            last_error: Some("exit status 1: no \u{1b}[31mluck\nat all".to_owned()),
            last_error_ms: Some(NOW - 180_000),
            ..status.jobs.values().next().cloned().unwrap_or_default()
        };
        status.jobs.insert("mail-to-everybody-in-the-world".to_owned(), worst);
        let silent = Job { state: "silent".to_owned(), ..Job::default() };
        status.jobs.insert("zzz".to_owned(), silent);
        status.findings = vec![
            Finding::of_job(
                "mail-to-everybody-in-the-world",
                "paused by root since 2023-11-14T22:13:20Z: the API is down",
            )
            .help("warrend resume mail-to-everybody-in-the-world"),
            Finding::of_job("zzz", "does not answer: it waits for RabbitMQ or for the disk"),
        ];
        status.problems = status.findings.iter().map(Finding::sentence).collect();
        status.healthy = false;
        status
    }

    fn on(status: &Status, width: usize, height: Option<usize>) -> String {
        let paper = Paper { width, height, piped: height.is_none(), glyphs: Glyphs::UNICODE };
        screen::compose(status, NOW, paper).iter().map(|line| line.print(false) + "\n").collect()
    }

    #[test]
    fn it_fits_any_terminal_whatever_there_is_to_tell() {
        for jobs in [0, 1, 3, 20, 50, 1000] {
            for (width, height) in [(80, 23), (40, 12), (120, 40), (200, 60)] {
                for status in [status(jobs), troubled(jobs)] {
                    let text = on(&status, width, Some(height));
                    assert!(text.lines().count() <= height, "{width} x {height}, {jobs} jobs:\n{text}");
                    let fits = |line: &str| text::width(line) <= width || line.starts_with("   try: ");
                    assert!(text.lines().all(fits), "{width} x {height}, {jobs} jobs:\n{text}");
                }
            }
        }
    }

    #[test]
    fn problems_come_first_with_the_command_that_helps() {
        let text = on(&troubled(3), 80, Some(23));
        let start = "warrend 0.1.0   degraded (2 problems), running   up 1 h 2 min   pid 7\n\
                     !  job mail-to-everybody-in-the-world: paused by root since\n";
        assert!(text.starts_with(start), "{text}");
        assert!(
            text.contains("\n   try: warrend resume mail-to-everybody-in-the-world\n!  job zzz: does not"),
            "{text}"
        );
        let rows: Vec<&str> = text.lines().skip_while(|line| !line.starts_with("JOB")).skip(1).take(5).collect();
        assert!(
            rows[0].starts_with("mail-to") && rows[1].starts_with("zzz") && rows[2].starts_with("job-00"),
            "{text}"
        );
        assert!(text.contains("5 dead letters: warrend dead list mail-to-everybody-in-the-world"), "{text}");
        assert!(text.contains("last error, 3 min ago: exit status 1: no"), "{text}");
        assert!(text.contains("13 worker processes were replaced: crashed 2, max_age 11\n"), "{text}");
        assert!(!text.contains('\u{1b}'), "what others wrote cannot steer the terminal: {text}");
    }

    #[test]
    fn of_many_jobs_the_unhealthy_and_the_busy_are_shown_and_the_rest_is_counted() {
        let mut status = troubled(50);
        if let Some(job) = status.jobs.get_mut("job-33") {
            job.rate_1m = 5000.0;
        }
        let text = on(&status, 80, Some(23));
        let rows: Vec<&str> = text.lines().skip_while(|line| !line.starts_with("JOB")).skip(1).collect();
        assert!(
            rows[0].starts_with("mail-to") && rows[1].starts_with("zzz") && rows[2].starts_with("job-33"),
            "{text}"
        );
        let shown = rows.iter().take_while(|row| !row.starts_with("and ")).count();
        assert_eq!(rows[shown], format!("and {} more: warrend status --all", 52 - shown), "{text}");
        let all = on(&status, 80, None);
        assert_eq!(all.lines().filter(|line| line.starts_with("job-")).count(), 50, "{all}");
        assert!(all.contains("\nmail-to-everybody-in-the-world  paused"), "no name is cut in a pipe: {all}");
    }

    #[test]
    fn a_wide_terminal_shows_more() {
        assert!(!on(&status(3), 80, Some(23)).contains("RUN p99"));
        let wide = on(&status(3), 160, Some(23));
        assert!(jobs::COLUMNS.iter().all(|column| wide.contains(column.head)), "{wide}");
    }

    #[test]
    fn unknown_is_a_dash() {
        let mut status = troubled(0);
        status.jobs.retain(|name, _| name == "zzz");
        let text = on(&status, 160, Some(23));
        let row = text.lines().find(|line| line.starts_with("zzz")).unwrap_or_default();
        assert!(row.starts_with("zzz  silent  ") && !row.contains('0'), "{text}");
        assert!(text.contains("- records, -, last commit -"), "{text}");
    }

    #[test]
    fn what_the_columns_mean_is_told_of_each() {
        let heads = jobs::COLUMNS.map(|column| column.head);
        assert_eq!(heads, jobs::HELP.map(|(head, _)| head));
    }

    #[test]
    fn an_interval_is_sensible() {
        assert_eq!(parse_interval("2s"), Ok(Duration::from_secs(2)));
        for bad in ["0s", "99ms", "2h", "2"] {
            assert!(parse_interval(bad).is_err(), "{bad}");
        }
    }
}
