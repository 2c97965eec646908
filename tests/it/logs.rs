//! What the daemon tells: in which form, for whom, and how often.

use std::fs;
use std::os::unix::fs::MetadataExt as _;

use serde_json::Value;

use crate::support::broker::{Vhost, with_id};
use crate::support::daemon::{DAEMON_TIMEOUT, Daemon};

/// Something that only stands in bodies.
const BODY: &str = "body-of-a-message-91c4";
/// A key that would end a line, and one that a program would take for other fields.
const KEYS: [&str; 2] = ["k\n<0>FORGED level=error", "k\" level=error msg=\"FORGED"];

/// A job in which every message fails for good, and its log. A warning stands in the configuration too.
fn job(log: &str) -> String {
    let program = "cat >/dev/null; echo 'no luck' >&2; exit 75";
    format!(
        "[log]\n{log}\n[jobs.work]\nqueue = \"work\"\nretry.max_attempts = 1\n\
         handler.command = [\"/bin/sh\", \"-c\", \"{program}\"]\n\
         idempotency.retention = \"1h\"\ndead_letter.message_ttl = \"2h\"\n"
    )
}

/// Runs the daemon over two messages and gives the lines of its log.
fn lines_of(daemon: &mut Daemon, vhost: &Vhost) -> Vec<String> {
    daemon.start();
    vhost.publish_all("work", KEYS.map(|key| (BODY.into(), with_id(key))));
    daemon.wait_until("both are dead", DAEMON_TIMEOUT, |_| vhost.ready("work.dead") == Some(2));
    assert!(daemon.terminate().success());
    let log = daemon.log();
    assert!(!log.contains(BODY), "{log}");
    assert!(!log.contains(|c: char| c.is_control() && c != '\n'), "{log:?}");
    log.lines().map(str::to_owned).collect()
}

/// JSON lines as what they say.
fn parsed(lines: &[String]) -> Vec<Value> {
    lines.iter().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

#[test]
fn json_has_a_line_and_its_fields_for_each_event() {
    let vhost = Vhost::new();
    let mut daemon = Daemon::new(&vhost, &job("format = \"json\""));
    let events = parsed(&lines_of(&mut daemon, &vhost));
    for event in &events {
        assert!(event["ts"].as_str().is_some_and(|ts| ts.ends_with('Z') && ts.len() == 24), "{event}");
        assert!(["info", "warn"].contains(&event["level"].as_str().unwrap_or_default()), "{event}");
        assert!(event["msg"].as_str().is_some_and(|msg| !msg.is_empty()), "{event}");
        assert!(event["thread"].is_string(), "{event}");
    }
    let failed: Vec<&Value> = events.iter().filter(|event| event["class"] == "failed").collect();
    let mut keys: Vec<&str> = failed.iter().filter_map(|event| event["key"].as_str()).collect();
    keys.sort_unstable();
    assert_eq!(keys, KEYS, "{events:?}");
    for event in failed {
        assert_eq!(
            (&event["level"], &event["job"], &event["queue"], &event["attempt"]),
            (&"warn".into(), &"work".into(), &"work".into(), &1.into())
        );
        assert!(event["duration_ms"].is_u64(), "{event}");
        assert!(event["msg"].as_str().is_some_and(|msg| msg.contains("no luck")), "{event}");
    }
    // What is told of the configuration is an event too.
    let warned = events.iter().any(|event| event["msg"].as_str().is_some_and(|msg| msg.contains("warrend.toml:")));
    assert!(warned, "{events:?}");

    // And so is what ends the daemon.
    let mut second = Daemon::new(&vhost, &job("format = \"json\""));
    daemon.start();
    second.store_at(daemon.store_path().to_owned());
    second.spawn(&[]);
    assert_eq!(second.wait_exit(DAEMON_TIMEOUT).code(), Some(75));
    let told: Vec<String> = second.log().lines().map(str::to_owned).collect();
    let last = parsed(&told).pop().expect("it says why it ended");
    assert_eq!(last["level"], "error");
    assert!(last["msg"].as_str().is_some_and(|msg| msg.contains("process")), "{last}");
}

#[test]
fn logfmt_has_the_same_and_is_told_apart_by_its_quotes() {
    let vhost = Vhost::new();
    let mut daemon = Daemon::new(&vhost, &job("format = \"logfmt\""));
    let lines = lines_of(&mut daemon, &vhost);
    for line in &lines {
        assert!(line.starts_with("ts=2") && line.contains(" level=") && line.contains(" msg="), "{line}");
    }
    let failed: Vec<&String> = lines.iter().filter(|line| line.contains(" class=failed ")).collect();
    assert_eq!(failed.len(), 2, "{lines:?}");
    for line in &failed {
        assert!(line.contains(" level=warn ") && line.contains(" job=work queue=work key=\""), "{line}");
    }
    assert!(failed.iter().any(|line| line.contains(r#" key="k\n<0>FORGED level=error" "#)), "{failed:?}");
    assert!(failed.iter().any(|line| line.contains(r#" key="k\" level=error msg=\"FORGED" "#)), "{failed:?}");
}

#[test]
fn the_journal_gets_priorities_and_has_a_clock_of_its_own() {
    let vhost = Vhost::new();
    for format in ["text", "logfmt", "json"] {
        let mut daemon = Daemon::new(&vhost, &job(&format!("format = \"{format}\"")));
        let log = daemon.folder().join("log");
        let file = fs::File::create(&log).and_then(|file| file.metadata()).expect("the folder is writable");
        daemon.env("JOURNAL_STREAM", &format!("{}:{}", file.dev(), file.ino()));
        let lines = lines_of(&mut daemon, &vhost);
        for line in &lines {
            let rest = ["<4>", "<6>"].iter().find_map(|priority| line.strip_prefix(priority));
            let rest = rest.unwrap_or_else(|| panic!("no priority: {line}"));
            assert!(!rest.contains("ts=") && !rest.contains("\"ts\"") && !rest.starts_with('['), "{line}");
        }
        let failed = lines.iter().filter(|line| line.starts_with("<4>") && line.contains("failed for good")).count();
        assert_eq!(failed, 2, "{lines:?}");
        assert!(lines.iter().any(|line| line.starts_with("<6>") && line.contains("stopped")), "{lines:?}");
        vhost.drain("work.dead");
        // Inherited from a service, with stderr led elsewhere.
        fs::remove_file(&log).expect("it is there");
        daemon.env("JOURNAL_STREAM", &format!("{}:{}", file.dev(), file.ino() + 1));
        daemon.start();
        assert!(daemon.terminate().success());
        assert!(!daemon.log().lines().any(|line| line.starts_with('<')), "{}", daemon.log());
    }
}

#[test]
fn the_level_is_that_of_the_configuration_unless_the_environment_has_one() {
    let vhost = Vhost::new();
    let mut daemon = Daemon::new(&vhost, &job("level = \"error\""));
    let mut said = |directives: &str| {
        let before = daemon.log().len();
        daemon.env("RUST_LOG", directives);
        daemon.start();
        assert!(daemon.terminate().success());
        daemon.log()[before..].to_owned()
    };
    let quiet = said("");
    assert!(!quiet.contains("[2"), "{quiet}");
    assert!(said("info").contains("INFO ] stopped"));
    let misunderstood = said("warrend=loud");
    assert!(!misunderstood.contains("INFO"), "{misunderstood}");
    let told = said("trace");
    assert!(!told.contains("amiquip::"), "{told}");
}

/// As many as make no sense to read.
const MANY: usize = 300;

#[test]
fn what_repeats_is_counted_and_the_first_of_another_kind_is_told() {
    let vhost = Vhost::new();
    let jobs = job("format = \"json\"")
        + "[jobs.other]\nqueue = \"other\"\nretry.max_attempts = 1\nhandler.command = [\"/bin/sh\", \"-c\", \"exit 65\"]\n";
    let mut daemon = Daemon::new(&vhost, &jobs);
    daemon.start();
    vhost.publish_all("work", (0..MANY).map(|n| (BODY.into(), with_id(&n.to_string()))));
    daemon.wait_until("all are dead", DAEMON_TIMEOUT * 3, |_| vhost.ready("work.dead") == Some(MANY as u32));
    vhost.publish("other", BODY, with_id("one"));
    daemon.wait_until("it is dead too", DAEMON_TIMEOUT, |_| vhost.ready("other.dead") == Some(1));
    assert!(daemon.terminate().success());
    let lines: Vec<String> = daemon.log().lines().map(str::to_owned).collect();
    let events = parsed(&lines);
    let of = |job: &str, class: &str| -> Vec<&Value> {
        events.iter().filter(|event| event["job"] == job && event["class"] == class).collect()
    };
    let (same, other) = (of("work", "failed"), of("other", "rejected"));
    let repeated: u64 = same.iter().filter_map(|event| event["repeated"].as_u64()).sum();
    let told = same.iter().filter(|event| event["repeated"].is_null()).count();
    assert_eq!(told as u64 + repeated, MANY as u64, "each is told or counted: {same:?}");
    // Ten in a minute; on a slow machine it may take more than one.
    assert!((10..=40).contains(&told) && same.len() <= told + told / 10 + 1, "{told} told: {same:?}");
    let more = same.iter().find(|event| event["repeated"].is_u64()).expect("it is told how many more there were");
    assert!(more["msg"].as_str().is_some_and(|msg| msg.contains("more like it in")), "{more}");
    assert_eq!(more["level"], "warn");
    assert_eq!(other.len(), 1, "{other:?}");
}
