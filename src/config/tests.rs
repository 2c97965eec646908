//! The configuration as a whole: from files to values, or to every error with its place.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;

use super::load::DEFAULT_PATH;
use super::*;

mod faults;
mod files;
mod fuzz;
mod handlers;
mod schema;
mod secrets;
mod security;
mod seeded;
mod shipped;

/// A folder with a main file and files in `jobs.d`.
struct Folder(TempDir);

impl Folder {
    fn new(main: &str) -> Self {
        let folder = Self(tempfile::tempdir().expect("a temporary folder"));
        folder.write("warrend.toml", main.as_bytes());
        folder
    }

    fn with(self, name: &str, text: &str) -> Self {
        self.write(name, text.as_bytes());
        self
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        let path = self.0.path().join(name);
        std::fs::create_dir_all(path.parent().expect("a file has a folder")).expect("a new folder");
        std::fs::write(path, bytes).expect("a writable temporary folder");
    }

    fn load(&self) -> Result<Loaded, Report> {
        load(&self.0.path().join("warrend.toml"), &environment)
    }

    /// What is good to `warrend check` is good to the schema.
    fn good(&self) -> Loaded {
        let loaded = self.load().unwrap_or_else(|report| panic!("{report}"));
        loaded.files.iter().for_each(|file| schema::accept(file));
        loaded
    }

    fn faulty(&self) -> Report {
        self.load().expect_err("a faulty configuration")
    }
}

/// The environment that these tests see.
fn environment(name: &str) -> Option<String> {
    match name {
        "NAME" => Some("value".to_owned()),
        "AMQP_PASSWORD" => Some("hunter2%2F".to_owned()),
        "BAD_URL" => Some("amqp://u:hunter2/@h".to_owned()),
        "WORD" => Some("hunter2".to_owned()),
        _ => None,
    }
}

/// A snippet made whole: what it lacks of a broker and a job follows it, so that its lines keep their numbers.
fn complete(snippet: &str) -> String {
    let mut text = snippet.to_owned();
    if !snippet.contains("broker") {
        text.push_str("\n[broker]\nurls = [\"amqp://127.0.0.1\"]\n");
    }
    if !snippet.contains("jobs") {
        text.push_str("\n[jobs.other]\nqueue = \"other\"\nhandler.discard = true\n");
    }
    text
}

/// A snippet of a job `j` made whole: a queue and a handler follow it.
fn job(snippet: &str) -> String {
    format!("[jobs.j]\n{snippet}\n[jobs.j.handler]\ndiscard = true\n")
}

/// Each entry as `line:column level message`, `file:line:column ...` where it is not in the main file.
fn outline(report: &Report) -> Vec<String> {
    let entries = report.entries.iter().map(|entry| {
        let file = Path::new(&entry.spot.file).file_name().expect("a file's name").to_string_lossy();
        let file = if file == "warrend.toml" { String::new() } else { format!("{file}:") };
        let (line, column) = entry.spot.line.as_ref().map_or((0, 0), |line| (line.line, line.column));
        format!("{file}{line}:{column} {}", entry.message)
    });
    entries.collect()
}

/// Loads the snippet, made whole, and expects exactly these entries: each a place, and a part of its message or help.
fn check(snippet: &str, expect: &[(&str, &str)]) {
    let folder = Folder::new(&complete(snippet));
    let report = match folder.load() {
        Ok(_) => folder.good().warnings,
        Err(report) => {
            schema::reject(&complete(snippet), &report);
            report
        }
    };
    let outline = outline(&report);
    assert_eq!(outline.len(), expect.len(), "{snippet}\n{outline:#?}");
    for ((outline, entry), (place, part)) in outline.iter().zip(report.entries).zip(expect) {
        assert!(outline.starts_with(&format!("{place} ")), "{snippet}\nexpected {place} {part}\n{outline}");
        let text = format!("{} | {}", entry.message, entry.help.as_deref().unwrap_or_default());
        assert!(text.contains(part), "{snippet}\nexpected {part}\n{text}");
    }
}

#[test]
fn variables_come_from_the_environment() {
    let text = r#"
broker.urls = ["amqp://bob:${AMQP_PASSWORD}@${HOST:-localhost}/${NAME}"]
[jobs.a]
queue = "${NAME}.queue"
[jobs.a.handler]
command = ["echo", "${NAME}", "$${NAME}", "$NAME"]
env = { A = "${GONE:-default}" }
"#;
    let config = Folder::new(text).good().config;
    let host = &config.broker.hosts[0];
    assert_eq!((&*host.host, &*host.password, &*host.vhost), ("localhost", "hunter2/", "value"));
    assert_eq!(&*config.jobs[0].queues[0].name, "value.queue");
    let Handler::Command(command) = &config.jobs[0].handler else { panic!("a command") };
    assert_eq!(command.argv, ["echo", "value", "${NAME}", "$NAME"]);
    assert_eq!(command.env["A"], "default");

    check("[store]\npath = \"${GONE}/x\"", &[("2:8", "the environment variable GONE is not set")]);
    check("[store]\npath = \"${GONE\"", &[("2:8", "without a `}`")]);
    check("[store]\npath = \"${A B}\"", &[("2:8", "no name of an environment variable")]);
}

#[test]
fn defaults_depend_on_what_is_given() {
    let text = |job: &str| {
        format!("broker.urls = [\"amqp://localhost\"]\nstore.retention = \"3d\"\n[jobs.a]\nqueue = \"q\"\n{job}")
    };
    let job = |rest: &str| Folder::new(&text(rest)).good().config.jobs.remove(0);
    assert_eq!(job("handler.discard = true").prefetch, Prefetch::Fixed(200));
    assert_eq!(job("handler.command = [\"a\"]\nconcurrency = 16").prefetch, Prefetch::Fixed(32));
    assert_eq!(job("handler.command = [\"a\"]\nconcurrency = 1024").prefetch, Prefetch::Fixed(2000));
    assert_eq!(job("handler.discard = true").idempotency.retention, Duration::from_secs(3 * 86_400));
    assert_eq!(&*job("handler.discard = true").dead_letter.queue, "a.dead");
}

#[test]
fn every_kind_of_value_arrives() {
    let text = r#"
[broker]
urls = ["amqp://localhost", "amqp://[::1]:5673"]
heartbeat = "0s"
[jobs.a]
order = "strict"
idempotency = { key = "json:/a~1b/0", on_missing = "dead" }
retry = { multiplier = 2, jitter = 0 }
dead_letter = { queue = "graves", message_ttl = "14d" }
kill_switch = { ratio = 1, min_samples = 3, window = "10s", restart_after = "1m" }
[[jobs.a.queues]]
name = "q"
type = "quorum"
declare = "passive"
message_ttl = "1500ms"
max_length = 7
expires = "2h"
bindings = [{ exchange = "e", type = "x-delayed-message" }]
[jobs.a.queues.arguments]
x-bool = true
x-int = 0x10
x-float = 1.5
x-text = "${NAME}"
x-array = [1, "a"]
x-table = { a = false }
[jobs.a.handler]
command = ["true"]
"#;
    let config = Folder::new(text).good().config;
    assert_eq!(config.broker.heartbeat, Duration::ZERO);
    assert_eq!(config.broker.hosts[1].to_string(), "[::1]:5673");
    let job = &config.jobs[0];
    assert_eq!(job.order, Order::Strict);
    assert_eq!(job.idempotency.key, KeySource::JsonPointer("/a~1b/0".to_owned()));
    assert_eq!(job.idempotency.on_missing, OnMissing::Dead);
    assert_eq!((job.retry.multiplier, job.retry.jitter), (2.0, 0.0));
    let grave = DeadLetter {
        queue: Arc::from("graves"),
        kind: QueueKind::Quorum,
        message_ttl: Some(Duration::from_secs(14 * 86_400)),
    };
    assert_eq!(job.dead_letter, grave);
    let (window, restart_after) = (Duration::from_secs(10), Duration::from_secs(60));
    assert_eq!(job.kill_switch, Some(KillSwitch { ratio: 1.0, min_samples: 3, window, restart_after }));
    let queue = &job.queues[0];
    assert_eq!((queue.kind, queue.declare), (QueueKind::Quorum, Declare::Passive));
    assert_eq!(queue.message_ttl, Some(Duration::from_millis(1500)));
    assert_eq!((queue.max_length, queue.expires), (Some(7), Some(Duration::from_secs(7200))));
    let binding =
        Binding { exchange: "e".to_owned(), kind: "x-delayed-message".to_owned(), routing_key: String::new() };
    assert_eq!(queue.bindings, [binding]);
    let arguments: Vec<_> = queue.arguments.iter().map(|(name, value)| (name.as_str(), value.clone())).collect();
    let text = |text: &str| HeaderValue::Text(text.to_owned());
    let expect = [
        ("x-array", HeaderValue::Array(vec![HeaderValue::I64(1), text("a")])),
        ("x-bool", HeaderValue::Bool(true)),
        ("x-float", HeaderValue::F64(1.5)),
        ("x-int", HeaderValue::I64(16)),
        ("x-table", HeaderValue::Table([("a".to_owned(), HeaderValue::Bool(false))].into())),
        ("x-text", text("value")),
    ];
    assert_eq!(arguments, expect);
}
