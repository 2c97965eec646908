//! `warrend check`: judges the configuration and says what it would run, without a broker; `--online` looks at that too.

mod online;

use std::io::{self, Write};
use std::path::Path;

use crate::config::{self, Forward, Handler, Job, Loaded, Prefetch, Report, Retry, Target, When, show_duration};
use crate::doctor;
use crate::policy::retry;
use crate::store::Place;

/// Exit code for a configuration that cannot be used (`EX_CONFIG` of sysexits.h).
pub const EXIT_CONFIG: i32 = 78;

/// Delays that a retry plan shows.
const MOST_DELAYS: u32 = 8;

/// How the findings are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// For people; in colour where the terminal takes it.
    Text {
        /// Whether errors are coloured.
        color: bool,
        /// Whether what goes to standard output is.
        out_color: bool,
    },
    /// For programs: see [`Report::to_json`].
    Json,
}

/// Judges the configuration at `path` and gives the exit code: 0 or [`EXIT_CONFIG`]; `online`: then the broker, the store and
/// the unit, with an exit code as `online::exit` says.
///
/// As text, a summary goes to `out` and every finding to `err`; as JSON, the array of findings goes to `out`, and an
/// empty one means that all is well. Online the text goes on with what was found, and the array is a part of an object.
/// Fails only where `out` or `err` cannot be written.
pub fn check(
    path: &Path,
    env: &dyn Fn(&str) -> Option<String>,
    format: Format,
    online: bool,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> io::Result<i32> {
    let mut result = config::check(path, env);
    if let Ok(loaded) = &mut result {
        judge_place(loaded);
    }
    let report = match &result {
        Ok(loaded) => &loaded.warnings,
        Err(report) => report,
    };
    match (format, &result) {
        (Format::Json, Ok(loaded)) if online => {
            let diagnosis = doctor::examine(&loaded.config, path);
            crate::logging::write_json(out, &online::to_json(&diagnosis, &report.to_json()))?;
            return Ok(online::exit(&diagnosis) as i32);
        }
        (Format::Json, _) => writeln!(out, "{:#}", report.to_json())?,
        (Format::Text { color, out_color }, Ok(loaded)) => {
            write!(err, "{}", report.render(color))?;
            summary(loaded, out)?;
            if online {
                // What is known already need not wait for the broker.
                out.flush()?;
                let diagnosis = doctor::examine(&loaded.config, path);
                write!(out, "{}", online::render(&diagnosis, out_color))?;
                return Ok(online::exit(&diagnosis) as i32);
            }
        }
        (Format::Text { color, .. }, Err(report)) => {
            write!(err, "{}\n{}\n", report.render(color), verdict(report))?;
        }
    }
    Ok(if result.is_ok() { 0 } else { EXIT_CONFIG })
}

/// Warns of a store on a file system that a start would refuse, as far as this machine's mounts tell.
fn judge_place(loaded: &mut Loaded) {
    let store = &loaded.config.store.path;
    let Some(why) = Place::of(store).objection() else {
        return;
    };
    loaded.warnings.warn(&loaded.files[0], format!("the store {} {why}", store.display()));
}

/// The last line after errors.
fn verdict(report: &Report) -> String {
    let errors = report.errors();
    let plural = if errors == 1 { "" } else { "s" };
    format!("the configuration has {errors} error{plural}")
}

fn summary(loaded: &Loaded, out: &mut dyn Write) -> io::Result<()> {
    let jobs = &loaded.config.jobs;
    let queues: usize = jobs.iter().map(|job| job.queues.len()).sum();
    writeln!(
        out,
        "ok: {}, {}, {}",
        count(loaded.files.len(), "file"),
        count(jobs.len(), "job"),
        count(queues, "queue")
    )?;
    for file in &loaded.files {
        writeln!(out, "  file {}", file.display())?;
    }
    for job in jobs {
        writeln!(out, "  job {}", describe(job))?;
        match &job.handler {
            Handler::Command(_) | Handler::Worker(_) | Handler::Http(_) | Handler::Forward(_) => {
                writeln!(out, "    {}", retry_plan(&job.retry))?;
            }
            // It does not fail.
            Handler::Discard => {}
        }
    }
    Ok(())
}

fn count(number: usize, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {noun}{plural}")
}

/// One line about a job.
fn describe(job: &Job) -> String {
    let disabled = if job.enabled { "" } else { " (disabled)" };
    let queues: Vec<&str> = job.queues.iter().map(|queue| &*queue.name).collect();
    let prefetch = match job.prefetch {
        Prefetch::Fixed(prefetch) => prefetch.to_string(),
        Prefetch::Auto => "auto".to_owned(),
    };
    let replies = if job.reply { ", replies" } else { "" };
    format!(
        "{}{disabled}: {} -> {}{replies}, concurrency {}, prefetch {prefetch}, dead letters to {}",
        job.name,
        queues.join(", "),
        describe_handler(&job.handler),
        job.concurrency,
        job.dead_letter.queue,
    )
}

/// Arguments, and the path and query of a URL, stay out: they may hold secrets.
fn describe_handler(handler: &Handler) -> String {
    match handler {
        Handler::Command(command) => command.argv.first().cloned().unwrap_or_default(),
        Handler::Worker(worker) => {
            let program = worker.program.argv.first().map_or("", String::as_str);
            let batches = if worker.batch > 1 { format!(" in batches of {}", worker.batch) } else { String::new() };
            format!("worker {program}{batches}")
        }
        Handler::Http(http) => format!("POST to {}", http.origin()),
        Handler::Forward(forward) => describe_forward(forward),
        Handler::Discard => "discard".to_owned(),
    }
}

fn describe_forward(forward: &Forward) -> String {
    if let [route] = &forward.routes[..]
        && route.when == When::Always
    {
        return format!("forward to {}", describe_target(&route.to));
    }
    let otherwise = forward.otherwise.as_ref().map_or("dead".to_owned(), describe_target);
    format!("forward by {}, otherwise {otherwise}", count(forward.routes.len(), "route"))
}

fn describe_target(target: &Target) -> String {
    let Target { exchange, routing_key } = target;
    if exchange.literal().as_deref() == Some("") {
        return routing_key.to_string();
    }
    format!("exchange {exchange} with key {routing_key}")
}

/// How often a message runs that always fails, and when: what a mistake in `retry` would cost.
fn retry_plan(policy: &Retry) -> String {
    let (attempts, crashes) = (policy.max_attempts, policy.max_crashes);
    let delays = attempts.min(MOST_DELAYS + 1);
    // In the middle of the jitter.
    let delays: Vec<String> = (1..delays).map(|n| show_duration(retry::delay(policy, n, 0.5))).collect();
    let more =
        if attempts > MOST_DELAYS + 1 { format!(", ... up to {}", show_duration(policy.max)) } else { String::new() };
    let jitter = if policy.jitter > 0.0 { format!(" (±{:.0} %)", policy.jitter * 100.0) } else { String::new() };
    let failing = match attempts {
        1 => "a message that fails runs once".to_owned(),
        _ => format!("a message that fails runs {attempts} times, again after {}{more}{jitter}", delays.join(", ")),
    };
    // The last one uses up one budget, those before it all but one of both.
    let most = u64::from(attempts) + u64::from(crashes) - 1;
    let most = if most == 1 { "once".to_owned() } else { format!("{most} times") };
    format!("{failing}; with crashes between (dead after {crashes}) at most {most}")
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::task::{Demand, ErrorClass, Failure, Message, Task, UnixMillis};

    /// Runs the check on a file of this text; gives exit code, standard output and standard error, with the folder of the
    /// file cut out of both.
    fn run(text: &str, format: Format) -> (i32, String, String) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("warrend.toml");
        std::fs::write(&path, text).expect("a writable temporary folder");
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let code = check(&path, &|_| None, format, false, &mut out, &mut err).expect("memory takes all");
        let text = |bytes| {
            let text = String::from_utf8(bytes).expect("UTF-8");
            text.replace(&format!("{}/", folder.path().display()), "")
        };
        (code, text(out), text(err))
    }

    const PLAIN: Format = Format::Text { color: false, out_color: false };

    #[test]
    fn a_good_file_is_summed_up() {
        let text = "
[broker]
urls = [\"amqp://127.0.0.1\"]
[jobs.thumbnails]
queues = [{ name = \"urgent\" }, { name = \"rest\" }]
handler.command = [\"/bin/thumb\", \"--key\", \"secret\"]
[jobs.audit]
queue = \"audit\"
enabled = false
handler.discard = true
";
        let expect = "\
ok: 1 file, 2 jobs, 3 queues
  file warrend.toml
  job audit (disabled): audit -> discard, concurrency 4, prefetch 200, dead letters to audit.dead
  job thumbnails: urgent, rest -> /bin/thumb, concurrency 4, prefetch 8, dead letters to thumbnails.dead
    a message that fails runs 5 times, again after 5s, 15s, 45s, 135s (±20 %); with crashes between (dead after 3) at most 7 times
";
        assert_eq!(run(text, PLAIN), (0, expect.to_owned(), String::new()));
        assert_eq!(run(text, Format::Json), (0, "[]\n".to_owned(), String::new()));
    }

    #[test]
    fn every_kind_of_handler_has_its_line_without_secrets() {
        let handlers = [
            ("worker = [\"python3\", \"secret.py\"]", "worker python3, concurrency 4, prefetch 8,"),
            ("worker = [\"a\"]\nbatch = 50", "worker a in batches of 50, concurrency 4, prefetch 400,"),
            ("http = \"https://example.org:8443/secret\"", "POST to https://example.org:8443, concurrency 4"),
            ("http = \"https://example.org?secret\"", "POST to https://example.org, concurrency 4"),
            ("forward = { routing_key = \"x.{type}\" }", "forward to x.{type}, concurrency 4, prefetch 200,"),
            ("forward = { exchange = \"{{e\" }", "forward to exchange {{e with key {routing_key}, concurrency"),
            (
                "forward = { routes = [{ match = \"#\", routing_key = \"a\" }] }",
                "forward by 1 route, otherwise dead, concurrency",
            ),
            (
                "forward = { routes = [{ header = \"a\", exchange = \"e\" }], otherwise = { routing_key = \"o\" } }",
                "forward by 1 route, otherwise o, concurrency",
            ),
        ];
        for (handler, expect) in handlers {
            let text = format!(
                "[broker]\nurls = [\"amqp://localhost\"]\n[jobs.j]\nqueue = \"q\"\n[jobs.j.handler]\n{handler}\n"
            );
            let (code, out, err) = run(&text, PLAIN);
            assert_eq!((code, &*err), (0, ""), "{handler}");
            assert!(out.contains(&format!("  job j: q -> {expect}")), "{handler}\n{out}");
            assert!(!out.contains("secret"), "{out}");
        }
        let text = "[broker]\nurls = [\"amqp://localhost\"]\n[jobs.j]\nqueue = \"q\"\nreply = true\nprefetch = \"auto\"\n\
                    handler.worker = [\"a\"]\n";
        let (_, out, _) = run(text, PLAIN);
        assert!(out.contains("-> worker a, replies, concurrency 4, prefetch auto, dead"), "{out}");
    }

    #[test]
    fn a_retry_plan_counts_every_run() {
        let policy = |max_attempts, max_crashes, jitter| Retry {
            max_attempts,
            initial: Duration::from_secs(60),
            multiplier: 2.0,
            max: Duration::from_secs(3600),
            jitter,
            max_crashes,
        };
        let once = "a message that fails runs once; with crashes between (dead after 1) at most once";
        assert_eq!(retry_plan(&policy(1, 1, 0.0)), once);
        let twice =
            "a message that fails runs 2 times, again after 1m; with crashes between (dead after 2) at most 3 times";
        assert_eq!(retry_plan(&policy(2, 2, 0.0)), twice);
        let nine = "runs 9 times, again after 1m, 2m, 4m, 8m, 16m, 32m, 1h, 1h (±5 %); with";
        assert!(retry_plan(&policy(9, 1, 0.05)).contains(nine), "{}", retry_plan(&policy(9, 1, 0.05)));
        let endless = retry_plan(&policy(u32::MAX, u32::MAX, 0.0));
        assert!(
            endless.contains("32m, 1h, 1h, ... up to 1h;") && endless.ends_with(" at most 8589934589 times"),
            "{endless}"
        );
    }

    /// The plan and what decides over a retry agree: a message that fails in the dearest order runs so often.
    #[test]
    fn the_worst_case_is_what_the_policy_allows() {
        let policy = Retry {
            max_attempts: 4,
            initial: Duration::from_secs(1),
            multiplier: 1.0,
            max: Duration::from_secs(1),
            jitter: 0.0,
            max_crashes: 3,
        };
        let mut runs = 0;
        let mut crashes = 0;
        let dead = loop {
            runs += 1;
            let class = if crashes + 1 < policy.max_crashes { ErrorClass::Crashed } else { ErrorClass::Failed };
            let task = Task {
                key: None,
                attempt: runs,
                base: 0,
                crashes,
                queue: 0,
                priority: 0,
                first_seen: UnixMillis(0),
                received: Instant::now(),
                deadline: None,
                unfit: None,
                message: Message::default(),
            };
            crashes += u32::from(class == ErrorClass::Crashed);
            let failure = Failure { class, error: String::new() };
            match retry::judge_retry(&policy, &task, failure, None, 0.5, UnixMillis(0)).demand {
                Demand::Retry { .. } => {}
                Demand::Dead => break runs,
            }
        };
        assert!(retry_plan(&policy).ends_with(&format!(" at most {dead} times")), "{dead}");
    }

    #[test]
    fn a_retention_below_the_life_of_dead_letters_is_warned_of() {
        let text = "
[broker]
urls = [\"amqp://127.0.0.1\"]
[jobs.a]
queue = \"a\"
handler.command = [\"a\"]
idempotency.retention = \"7d\"
dead_letter.message_ttl = \"30d\"
";
        let (code, out, err) = run(text, PLAIN);
        assert_eq!(code, 0);
        assert!(out.starts_with("ok: 1 file, 1 job"), "{out}");
        let expect = "warning: a key of this job is forgotten after 7d, its dead letters are kept for 30d\n --> warrend.toml:7:25";
        assert!(err.starts_with(expect), "{err}");
        let (code, out, err) = run(text, Format::Json);
        let json: serde_json::Value = serde_json::from_str(&out).expect("JSON");
        let found = (json[0]["level"].as_str(), json[0]["line"].as_u64(), json[0]["column"].as_u64());
        assert_eq!((code, found, &*err), (0, (Some("warning"), Some(7), Some(25)), ""));
    }

    #[test]
    fn a_warning_leaves_the_exit_code() {
        let text = "
[broker]
urls = [\"amqp://127.0.0.1\"]
[jobs.a]
queue = \"a\"
handler.command = [\"a\"]
handler.timeout = \"30m\"
";
        let (code, out, err) = run(text, PLAIN);
        assert_eq!(code, 0);
        assert!(out.starts_with("ok: 1 file, 1 job, 1 queue\n"), "{out}");
        assert!(err.starts_with("warning: this handler may run longer"), "{err}");
        let (code, out, err) = run(text, Format::Json);
        let json: serde_json::Value = serde_json::from_str(&out).expect("JSON");
        assert_eq!(
            (code, json[0]["level"].as_str(), json[0]["line"].as_u64(), &*err),
            (0, Some("warning"), Some(7), "")
        );
    }

    #[test]
    fn errors_go_to_standard_error_and_end_with_78() {
        let text = "
[broker]
urls = [\"amqp://127.0.0.1\"]
[jobs.a]
queue = \"a\"
concurency = 4
handler.discard = true
";
        let expect = "\
error: unknown key `concurency`
 --> warrend.toml:6:1
  |
6 | concurency = 4
  | ^^^^^^^^^^
  |
  = help: did you mean `concurrency`?

the configuration has 1 error
";
        assert_eq!(run(text, PLAIN), (78, String::new(), expect.to_owned()));
        let (code, out, err) = run(text, Format::Json);
        let json: serde_json::Value = serde_json::from_str(&out).expect("JSON");
        let expect = serde_json::json!([{
            "level": "error", "file": json[0]["file"], "line": 6, "column": 1,
            "message": "unknown key `concurency`", "help": "did you mean `concurrency`?",
        }]);
        assert_eq!((code, json, &*err), (78, expect, ""));
    }

    #[test]
    fn a_missing_file_is_named() {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let path = Path::new("/nowhere/warrend.toml");
        let code = check(path, &|_| None, PLAIN, false, &mut out, &mut err).expect("memory takes all");
        let err = String::from_utf8(err).expect("UTF-8");
        assert_eq!(code, 78);
        assert!(err.contains("cannot read this file: No such file") && err.contains("/nowhere/warrend.toml"), "{err}");
    }
}
