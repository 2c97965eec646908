//! The command line: exit codes, what is printed where, and that no secret is.

use std::fs;
use std::net::TcpListener;
use std::process::Output;
use std::time::{Duration, Instant};

use amiquip::{AmqpValue, ExchangeType};

use crate::amqp::{bind, exchange, headers, long_text, password, take, url_as, user};
use crate::support::broker::{Vhost, with_id};
use crate::support::daemon::{DAEMON_TIMEOUT, Daemon};

const SECRET: &str = "s3cret-7f3a";

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// One lowercase sentence on one line of stderr, after the program's name.
#[track_caller]
fn assert_one_sentence(output: &Output, exit: i32) -> String {
    assert_eq!(output.status.code(), Some(exit), "{output:?}");
    let text = stderr(output);
    let sentence = text.strip_prefix("warrend: ").unwrap_or_default();
    assert_eq!(sentence.lines().count(), 1, "{text:?}");
    assert!(!text.contains(SECRET) && !text.contains("panicked"), "{text}");
    sentence.to_owned()
}

/// A job that runs nothing that a test could need.
const JOB: &str = "[jobs.work]\nqueue = \"work\"\nhandler.discard = true\n";

#[test]
fn check_tells_all_six_errors_with_their_places() {
    let broker = "urls = [\"http://user:s3cret-7f3a@127.0.0.1\"]";
    let jobs = "\
[jobs.a]
queue = \"a\"
concurrency = \"four\"
handler.discard = true
[jobs.b]
queue = \"b\"
prefetchh = 3
handler.discard = true
[jobs.c]
queue = \"c\"
[jobs.d]
queue = \"d\"
handler = { command = [\"d\"], discard = true }
[jobs.e]
queue = \"e\"
handler.command = [\"e\"]
handler.timeout = \"30 parsecs\"
";
    let daemon = Daemon::with_broker(broker, jobs);
    // What is marked on each faulty line, and a word of the text.
    let faults = [
        ("urls = ", "\"http://", "amqp"),
        ("concurrency", "\"four\"", "integer"),
        ("prefetchh", "prefetchh", "did you mean `prefetch`"),
        ("[jobs.c]", "c]", "handler"),
        ("handler = { command", "", "one"),
        ("handler.timeout", "\"30 parsecs\"", "duration"),
    ];
    let output = daemon.run(&["check"]);
    let text = stderr(&output);
    assert_eq!(output.status.code(), Some(78), "{text}");
    assert_eq!(stdout(&output), "");
    assert!(text.ends_with("the configuration has 6 errors\n"), "{text}");
    assert!(!text.contains(SECRET), "{text}");
    let path = daemon.config_path();
    let config = fs::read_to_string(&path).expect("it was written");
    let findings: Vec<&str> = text.split("\nerror: ").collect();
    assert_eq!(findings.len(), 6, "{text}");
    for (line_start, mark, word) in faults {
        let line = 1 + config.lines().position(|line| line.starts_with(line_start)).expect("the line is in the file");
        let place = format!("--> {}:{line}:", path.display());
        let finding = findings.iter().find(|finding| finding.contains(&place));
        let finding = finding.unwrap_or_else(|| panic!("no finding at {place}\n{text}"));
        assert!(finding.contains(word) && finding.contains('^'), "{finding}");
        let source = config.lines().nth(line - 1).unwrap_or_default();
        let column = 1 + source.find(mark).expect("the mark is on the line");
        if !mark.is_empty() {
            assert!(finding.contains(&format!("{place}{column}\n")), "{column}: {finding}");
        }
    }

    let json = daemon.run(&["check", "--format", "json"]);
    assert_eq!(json.status.code(), Some(78));
    let found: serde_json::Value = serde_json::from_slice(&json.stdout).expect("JSON");
    assert_eq!(found.as_array().map(Vec::len), Some(6), "{found:#}");
    assert_eq!(stderr(&json), "");
    let run = daemon.run(&["run"]);
    assert_eq!(run.status.code(), Some(78));
    assert_eq!(stderr(&run).matches("error: ").count(), 6);
    assert!(!stderr(&run).contains(SECRET));
}

#[test]
fn status_exits_with_what_it_says() {
    let vhost = Vhost::new();
    let jobs = "[jobs.work]\nqueues = [{ name = \"work\", declare = \"passive\" }]\nhandler.discard = true\n";
    let mut daemon = Daemon::new(&vhost, jobs);
    let gone = daemon.run(&["status"]);
    let sentence = assert_one_sentence(&gone, 3);
    assert!(sentence.starts_with("warrend is not running"), "{sentence}");
    assert!(stdout(&gone).contains("the last totals are not known: there is no store at"), "{gone:?}");
    assert!(!daemon.store_path().exists(), "a look makes no store");
    assert_eq!(daemon.run(&["status", "--json"]).status.code(), Some(3));

    daemon.spawn(&[]);
    daemon.wait_until("it is degraded", DAEMON_TIMEOUT, |daemon| daemon.run(&["status"]).status.code() == Some(1));
    vhost.declare("work");
    daemon.wait_until("it is healthy", DAEMON_TIMEOUT, |daemon| daemon.run(&["status"]).status.code() == Some(0));
    let text = daemon.run(&["status"]);
    assert!(stdout(&text).contains("healthy, running"), "{text:?}");
    assert!(!stdout(&text).contains('\u{1b}'), "no colour without a terminal");
    let json = daemon.run(&["status", "--json"]);
    let status: serde_json::Value = serde_json::from_slice(&json.stdout).expect("JSON");
    assert_eq!(status["schema"], 1);
    assert_eq!(status["pid"], daemon.pid().expect("it runs"));
    assert!(status["broker"]["server"].as_str().is_some_and(|server| server.starts_with("RabbitMQ ")), "{status:#}");
    assert_eq!(status["broker"]["vhost"], vhost.name());
    daemon.wait_until("our consumer is counted", DAEMON_TIMEOUT, |daemon| {
        daemon.status().is_some_and(|status| status["jobs"]["work"]["queues"]["work"]["consumers"] == 1)
    });

    daemon.kill9();
    let gone = daemon.run(&["status"]);
    assert_one_sentence(&gone, 3);
    assert!(stdout(&gone).ends_with("has no record yet\n"), "{gone:?}");
}

#[test]
fn without_a_daemon_the_last_totals_are_told_and_marked_as_such() {
    let vhost = Vhost::new();
    let jobs = "[jobs.work]\nqueue = \"work\"\nretry = { max_attempts = 2, initial = \"1s\", jitter = 0.0 }\n\
                [jobs.work.handler]\ncommand = [\"sh\", \"-c\", '[ \"$WARREND_KEY\" = good ]']\n";
    let mut daemon = Daemon::new(&vhost, jobs);
    daemon.start();
    vhost.publish("work", "", with_id("good"));
    vhost.publish("work", "", with_id("bad"));
    daemon.wait_until("both are settled", DAEMON_TIMEOUT, |daemon| {
        daemon.counter("work", "done") == 1 && vhost.ready("work.dead") == Some(1)
    });
    daemon.kill9();
    let gone = daemon.run(&["status"]);
    assert_one_sentence(&gone, 3);
    let text = stdout(&gone);
    assert!(
        text.starts_with("warrend is not running; last known totals, of 2") && text.contains("from the store "),
        "{text}"
    );
    let row: Vec<&str> = text.lines().last().unwrap_or_default().split_whitespace().collect();
    assert_eq!(row[..4], ["work", "1", "1", "1"], "done, retried, dead: {text}");
    let json = daemon.run(&["status", "--json"]);
    assert_eq!(json.status.code(), Some(3));
    let told: serde_json::Value = serde_json::from_slice(&json.stdout).expect("JSON");
    assert_eq!((&told["schema"], &told["state"], &told["healthy"]), (&1.into(), &"stopped".into(), &false.into()));
    let work = &told["last_known"]["jobs"]["work"];
    assert_eq!((&work["done"], &work["retried"], &work["dead"]), (&1.into(), &1.into(), &1.into()), "{told}");
    assert!(work["newest_ms"].as_i64() > Some(1_700_000_000_000) && told["jobs"].is_null(), "{told}");
}

#[test]
fn publish_puts_in_what_it_is_told() {
    let vhost = Vhost::new();
    let daemon = Daemon::new(&vhost, JOB);
    vhost.declare("work");
    exchange(&vhost, "media", ExchangeType::Topic);
    bind(&vhost, "work", "media", "image.*");
    let publish = |arguments: &[&str]| {
        let output = daemon.run(&[&["publish", "work"], arguments].concat());
        assert!(output.status.success(), "{output:?}");
        stdout(&output)
    };
    let delayed = Instant::now();
    assert_eq!(publish(&["--delay", "2s", "--id", "late"]), "1 message confirmed\n");

    publish(&["--id", "a", "--priority", "7", "--header", "x=1=2", "--header", "y=", "--content-type", "text/plain"]);
    let full = take(&vhost, "work");
    assert_eq!(full.body, b"");
    assert_eq!(full.properties.message_id().as_deref(), Some("a"));
    assert_eq!(*full.properties.priority(), Some(7));
    assert_eq!(*full.properties.delivery_mode(), Some(2));
    assert_eq!(full.properties.content_type().as_deref(), Some("text/plain"));
    let expect: [(String, AmqpValue); 2] = [("x".to_owned(), long_text("1=2")), ("y".to_owned(), long_text(""))];
    assert_eq!(headers(&full), expect.into());

    let file = daemon.folder().join("body");
    fs::write(&file, b"from a file\0\xff").expect("the folder is writable");
    publish(&[&file.display().to_string()]);
    let from_file = take(&vhost, "work");
    assert_eq!(from_file.body, b"from a file\0\xff");
    let own = from_file.properties.message_id().clone().unwrap_or_default();
    assert!(uuid::Uuid::try_parse(&own).is_ok(), "{own:?}");

    let piped = daemon.run_with_input(&["publish", "work", "-"], b"from a pipe");
    assert!(piped.status.success(), "{piped:?}");
    assert_eq!(take(&vhost, "work").body, b"from a pipe");

    publish(&["--exchange", "media", "--routing-key", "image.png"]);
    assert_eq!(take(&vhost, "work").routing_key, "image.png");

    assert_eq!(publish(&["--count", "1500", "--id", "n"]), "1500 messages confirmed\n");
    let ids = vhost.drain("work").into_iter().filter_map(|one| one.properties.message_id().clone());
    let ids: std::collections::BTreeSet<String> = ids.filter(|id| id != "late").collect();
    assert_eq!(ids, (1..=1500).map(|n| format!("n-{n}")).collect());
    if delayed.elapsed() < Duration::from_secs(2) {
        let late = take(&vhost, "work");
        assert!(delayed.elapsed() >= Duration::from_secs(2), "it came early");
        assert_eq!(late.properties.message_id().as_deref(), Some("late"));
    }
}

#[test]
fn a_publish_that_fails_says_why_in_one_sentence() {
    let vhost = Vhost::new();
    let mut daemon = Daemon::new(&vhost, JOB);
    exchange(&vhost, "media", ExchangeType::Topic);
    let unroutable = assert_one_sentence(&daemon.run(&["publish", "nowhere"]), 1);
    assert!(unroutable.contains("nowhere"), "{unroutable}");
    let to = |exchange| ["publish", "any", "--exchange", exchange, "--routing-key", "image.png"];
    let unbound = assert_one_sentence(&daemon.run(&to("media")), 1);
    assert!(unbound.contains("media") && unbound.contains("image.png"), "{unbound}");
    let missing = assert_one_sentence(&daemon.run(&to("missing")), 1);
    assert!(missing.contains("missing"), "{missing}");
    let no_queue = assert_one_sentence(&daemon.run(&["publish", "nowhere", "--delay", "1s"]), 1);
    assert!(no_queue.contains("nowhere"), "{no_queue}");
    let no_file = assert_one_sentence(&daemon.run(&["publish", "work", "/nowhere/body"]), 1);
    assert!(no_file.contains("/nowhere/body"), "{no_file}");

    daemon.set_broker(&format!("urls = [\"amqp://user:{SECRET}@127.0.0.1:{}\"]", closed_port()));
    let sentence = assert_one_sentence(&daemon.run(&["publish", "work"]), 69);
    assert!(sentence.starts_with("cannot reach RabbitMQ at 127.0.0.1:"), "{sentence}");
    let wrong = url_as(&vhost, &user(&vhost), Some(SECRET));
    let elsewhere = vhost.url().replacen(vhost.name(), "no-such-vhost", 1);
    daemon.set_broker(&format!("urls = [\"{elsewhere}\"]"));
    let sentence = assert_one_sentence(&daemon.run(&["publish", "work"]), 69);
    assert!(sentence.contains("virtual host \"no-such-vhost\""), "{sentence}");
    daemon.set_broker(&format!("urls = [\"{wrong}\"]"));
    let sentence = assert_one_sentence(&daemon.run(&["publish", "work"]), 69);
    assert!(sentence.contains("check user name and password"), "{sentence}");
}

/// A port where nobody listens. Below the range that the kernel gives out by itself would be safer, but nobody is asked.
fn closed_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    listener.local_addr().expect("it is bound").port()
}

#[test]
fn usage_errors_exit_with_2() {
    let vhost = Vhost::new();
    let daemon = Daemon::new(&vhost, JOB);
    let wrong: [&[&str]; 7] = [
        &["frobnicate"],
        &[],
        &["run", "--forever"],
        &["publish"],
        &["publish", "work", "--delay", "0s"],
        &["publish", "work", "--count", "0"],
        &["publish", "work", "--exchange", "media"],
    ];
    for arguments in wrong {
        let output = daemon.run(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {output:?}");
        assert_eq!(stdout(&output), "", "{arguments:?}");
    }
    assert!(stdout(&daemon.run(&["--help"])).contains("Exit codes"));
    let version = format!("warrend {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(stdout(&daemon.run(&["--version"])), version);
}

/// Lines of the log that contain both.
fn lines(daemon: &Daemon, level: &str, text: &str) -> usize {
    let log = daemon.log();
    let matches = |line: &&str| line.contains(level) && line.contains(text);
    log.lines().filter(matches).count()
}

/// Waits until connecting has failed so often, which debug lines tell, and checks what is told above debug: one sentence by
/// the job, and one by the publisher.
fn check_failing(daemon: &mut Daemon, sentence: &str, tries: usize) {
    daemon
        .wait_until("it tries again and again", DAEMON_TIMEOUT * 2, |daemon| lines(daemon, "DEBUG", sentence) >= tries);
    assert_eq!(lines(daemon, "WARN", sentence), 2, "{}", daemon.log_tail());
    assert_eq!(lines(daemon, "ERROR", ""), 0, "{}", daemon.log_tail());
    let status = daemon.run(&["status"]);
    assert_eq!(status.status.code(), Some(1));
    assert!(stdout(&status).contains(sentence), "{status:?}");
    let json = daemon.status().expect("it answers without a broker");
    assert_eq!(json["broker"]["connected"], false);
    assert_eq!(json["jobs"]["work"]["state"], "connecting");
    let everything = format!("{}{json}{}", daemon.log(), stdout(&status));
    assert!(!everything.contains(SECRET), "{everything}");
    let check = daemon.run(&["check"]);
    assert!(check.status.success());
    assert!(!format!("{check:?}").contains(SECRET));
}

fn check_connects(daemon: &mut Daemon) {
    daemon.wait_until("it connects by itself", DAEMON_TIMEOUT, |daemon| daemon.run(&["status"]).status.success());
}

#[test]
fn a_wrong_password_is_told_once_and_the_right_one_needs_no_restart() {
    let vhost = Vhost::new();
    let url = url_as(&vhost, &user(&vhost), None);
    let mut daemon = Daemon::with_broker("urls = []", JOB);
    let file = daemon.folder().join("password");
    fs::write(&file, format!("{SECRET}\n")).expect("the folder is writable");
    let broker =
        format!("urls = [\"{url}\"]\npassword_file = {file:?}\nreconnect = {{ initial = \"50ms\", max = \"100ms\" }}");
    daemon.set_broker(&broker);
    daemon.env("RUST_LOG", "trace");
    daemon.spawn(&[]);
    check_failing(&mut daemon, "check user name and password", 4);
    fs::remove_file(&file).expect("it is there");
    daemon.wait_until("a missing file is told", DAEMON_TIMEOUT, |daemon| {
        lines(daemon, "WARN", "cannot read the password file") == 2
    });
    fs::write(&file, format!("{}\n", password(&vhost))).expect("the folder is writable");
    check_connects(&mut daemon);
    assert!(!daemon.log().contains(SECRET));
    assert!(daemon.terminate().success());
}

#[test]
fn an_unreachable_host_is_told_once_and_waited_for() {
    let vhost = Vhost::new();
    let port = closed_port();
    let url = format!("amqp://guest:{SECRET}@127.0.0.1:{port}/{}", vhost.name());
    let broker = |url: &str| format!("urls = [\"{url}\"]\nreconnect = {{ initial = \"10ms\", max = \"20ms\" }}");
    let mut daemon = Daemon::with_broker(&broker(&url), JOB);
    daemon.env("RUST_LOG", "debug");
    daemon.spawn(&[]);
    check_failing(&mut daemon, "cannot reach RabbitMQ", 10);
    assert!(daemon.terminate().success(), "a drain needs no broker");
    daemon.set_broker(&broker(&vhost.url()));
    daemon.start();
}
