//! Bad input: whatever a message is like, it ends done or dead with a clear class, and its neighbours are unharmed.
//!
//! Here is what any library can publish (`cases`): each alone with a neighbour, and all of them together, failing. What no
//! library would send is in `frames`, what is said of all that in `terminal`, bad keys in `keys`, and bad clients of the
//! control socket in `control`. Compressed bodies have a place of their own: `crate::compress`.

mod cases;
mod control;
mod frames;
mod keys;
mod narrow;
mod terminal;

use std::collections::BTreeMap;
use std::time::Duration;

use amiquip::{AmqpProperties, AmqpValue, Delivery};

use crate::amqp::{headers, text, with_headers};
use crate::support::broker::{Vhost, with_id};
use crate::support::daemon::{DAEMON_TIMEOUT, Daemon};
use crate::support::journal::Journal;
use cases::cases;

/// The header of a dead letter that holds what could not be decoded.
const PARTS: &str = "x-warrend-undecodable-parts";

/// How a case ends where its handler would say "done".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Done,
    Dead(&'static str),
}

struct Case {
    name: &'static str,
    body: Vec<u8>,
    properties: AmqpProperties,
    end: End,
}

fn case(name: &'static str, body: impl Into<Vec<u8>>, properties: AmqpProperties, end: End) -> Case {
    Case { name, body: body.into(), properties, end }
}

/// A case whose headers are what is odd about it.
fn odd_headers(name: &'static str, headers: &[(&str, AmqpValue)], end: End) -> Case {
    case(name, name, with_headers(name, headers), end)
}

fn handled(daemon: &Daemon, job: &str) -> u64 {
    daemon.counter(job, "done") + daemon.counter(job, "dead")
}

/// Whether a message is the one of this case: not all of them have an id.
fn is_of(letter: &Delivery, case: &Case) -> bool {
    letter.body == case.body && letter.properties.message_id() == case.properties.message_id()
}

#[test]
fn odd_messages_end_done_or_dead_and_the_next_one_is_handled() {
    let vhost = Vhost::new();
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    // As odd keys do not fit its lines, this journal is only counted.
    let neighbour_is_unharmed = r#"case "$WARREND_KEY" in "after "*) [ "$(cat)" = normal ];; esac"#;
    let journal = Journal::new(folder.path(), neighbour_is_unharmed);
    let job = format!("[jobs.work]\nqueue = \"work\"\nconcurrency = 1\nhandler.command = {}\n", journal.command());
    let mut daemon = Daemon::new(&vhost, &job);
    daemon.start();
    let mut expect = 0;
    for case in cases() {
        let (done, dead) = (daemon.counter("work", "done"), daemon.counter("work", "dead"));
        let normal = with_id(&format!("after {}", case.name));
        let messages = [(case.body.clone(), case.properties.clone()), (b"normal".to_vec(), normal)];
        vhost.publish_all("work", messages);
        expect += 2;
        let what = format!("{:?} and its neighbour are handled", case.name);
        daemon.wait_until(&what, DAEMON_TIMEOUT, |daemon| handled(daemon, "work") == expect);
        let ended = (daemon.counter("work", "done") - done, daemon.counter("work", "dead") - dead);
        match case.end {
            End::Done => assert_eq!(ended, (2, 0), "{}", case.name),
            End::Dead(class) => {
                assert_eq!(ended, (1, 1), "{}", case.name);
                let letter = crate::amqp::take(&vhost, "work.dead");
                assert!(is_of(&letter, &case), "{}", case.name);
                assert_eq!(text(&letter, "x-warrend-error-class"), class, "{}", case.name);
                let error = text(&letter, "x-warrend-error");
                assert!(error.len() > 10 && !error.contains('\n'), "{error:?}");
            }
        }
    }
    let status = daemon.status().expect("the daemon runs");
    assert_eq!(status["healthy"], true, "{status:#}");
    assert_eq!(status["broker"]["reconnects"], 0, "no case costs the connection");
    assert!(daemon.terminate().success());
    assert_eq!(vhost.ready("work"), Some(0));
    assert_plain(&daemon.log());
}

/// Nothing that a terminal would obey, or that would look like a line of the daemon's own.
fn assert_plain(text: &str) {
    let odd = text.lines().find(|line| line.contains(|char: char| char.is_control()));
    assert_eq!(odd, None);
    assert!(!text.lines().any(|line| line.starts_with('\'')), "a message id began a line of its own");
}

/// The same messages, each failing twice: its copies go through the ladder and into the dead-letter queue.
#[test]
fn odd_messages_that_fail_are_copied_whole() {
    let vhost = Vhost::new();
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let journal = Journal::new(folder.path(), "head -c 1048576 /dev/urandom >&2; exit 1");
    // All of them at one time, so that `expiration` 0 finds a consumer that is ready.
    let job = format!(
        "[jobs.work]\nqueue = \"work\"\nprefetch = 200\nhandler.command = {}\n\
         retry = {{ max_attempts = 2, initial = \"1s\", multiplier = 1.0, jitter = 0.0 }}\n",
        journal.command()
    );
    let mut daemon = Daemon::new(&vhost, &job);
    daemon.start();
    let cases = cases();
    let messages = cases.iter().map(|case| (case.body.clone(), case.properties.clone()));
    vhost.publish_all("work", messages);
    let all = cases.len() as u64;
    daemon.wait_until("all are dead", Duration::from_secs(60), |daemon| daemon.counter("work", "dead") == all);
    daemon.wait_until("all copies are there", DAEMON_TIMEOUT, |_| vhost.ready("work.dead") == u32::try_from(all).ok());
    let mut letters = vhost.drain("work.dead");
    for case in cases {
        let at = letters.iter().position(|letter| is_of(letter, &case));
        let letter = letters.swap_remove(at.unwrap_or_else(|| panic!("{:?} is lost", case.name)));
        check_copy(&case, &letter);
    }
    assert_plain(&daemon.log());
    assert_plain(&String::from_utf8_lossy(&daemon.run(&["status"]).stdout));
    assert_eq!(vhost.ready("work"), Some(0));
}

fn check_copy(case: &Case, letter: &Delivery) {
    let name = case.name;
    let class = text(letter, "x-warrend-error-class");
    match case.end {
        End::Done => assert_eq!(class, "failed", "{name}"),
        End::Dead(expect) => assert_eq!(class, expect, "{name}"),
    }
    let error = text(letter, "x-warrend-error");
    assert!((10..=1024).contains(&error.len()), "{name}: {error:?}");
    let (sent, kept) = (&case.properties, &letter.properties);
    assert_eq!(kept.priority(), sent.priority(), "{name}");
    assert_eq!(kept.content_type(), sent.content_type(), "{name}");
    assert_eq!(kept.app_id(), sent.app_id(), "{name}");
    assert_eq!(*kept.expiration(), None, "{name}");
    let foreign = |headers: BTreeMap<String, AmqpValue>| -> BTreeMap<String, AmqpValue> {
        let foreign = headers.into_iter();
        foreign.filter(|(name, _)| !name.starts_with("x-warrend-")).collect()
    };
    let sent: BTreeMap<_, _> = sent.headers().clone().unwrap_or_default().into_iter().collect();
    let (sent, kept) = (foreign(sent), foreign(headers(letter)));
    if headers(letter).contains_key(PARTS) {
        // What was beyond the bounds stands there as text, as far as there is room.
        assert!((20..12 << 10).contains(&text(letter, PARTS).len()), "{name}");
        assert!(kept.len() < sent.len() || sent.is_empty(), "{name}");
        assert!(kept.iter().all(|(name, value)| sent.get(name) == Some(value)), "{name}");
    } else {
        assert_eq!(kept, sent, "{name}");
    }
    assert!(!headers(letter).contains_key("x-warrend-undecodable"), "{name}");
}
