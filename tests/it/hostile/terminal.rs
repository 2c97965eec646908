//! What is printed of others' text: a line stays one line, and no terminal obeys it.

use amiquip::{AmqpProperties, AmqpValue};

use crate::amqp::{long_text, with_headers};
use crate::support::broker::{Vhost, with_id};
use crate::support::daemon::{DAEMON_TIMEOUT, Daemon};
use crate::support::journal::Journal;

/// Begins a line of its own, clears the screen (in two ways), rings, goes back, and turns the direction of writing.
const ODD: &str = "x\nFORGED \u{1b}[2J\u{9b}2J\u{7}\r\u{8}\u{7f}\u{85}\u{202e}y";

fn odd_message() -> AmqpProperties {
    let nested = AmqpValue::FieldArray(vec![long_text(ODD)]);
    with_headers(
        ODD,
        &[
            (ODD, long_text(ODD)),
            ("nested", nested),
            ("x-warrend-exchange", long_text(ODD)),
            ("x-warrend-routing-key", long_text(ODD)),
        ],
    )
    .with_content_type(ODD.to_owned())
    .with_content_encoding(ODD.to_owned())
    .with_type_(ODD.to_owned())
    .with_app_id(ODD.to_owned())
    .with_correlation_id(ODD.to_owned())
}

#[track_caller]
fn assert_harmless(what: &str, text: &str) {
    super::assert_plain(text);
    assert!(!text.contains('\u{202e}'), "{what}: {text}");
    assert!(!text.lines().any(|line| line.starts_with("FORGED")), "{what}: {text}");
}

#[test]
fn no_text_of_others_steers_a_terminal_or_forges_a_line() {
    let vhost = Vhost::new();
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    // The handler repeats all of it, and more, in its output, its error and its environment.
    let run =
        "printf '%s' \"$WARREND_MESSAGE_ID$WARREND_ROUTING_KEY\" >&2\nprintf '%s\\n' \"$WARREND_MESSAGE_ID\"\nexit 65";
    let journal = Journal::new(folder.path(), run);
    let queue =
        "{ name = \"work\", bindings = [{ exchange = \"amq.fanout\", type = \"fanout\", routing_key = \"\" }] }";
    let job = format!("[jobs.work]\nqueues = [{queue}]\nhandler.command = {}\n", journal.command());
    let mut daemon = Daemon::new(&vhost, &job);
    daemon.env("RUST_LOG", "debug");
    daemon.start();
    vhost.publish("work", ODD, odd_message());
    daemon.wait_until("it is dead", DAEMON_TIMEOUT, |_| vhost.ready("work.dead") == Some(1));
    // A name that does not choose the queue may be anything.
    vhost.publish_to("amq.fanout", ODD, [(b"routed".to_vec(), with_id("routed"))]);
    daemon.wait_until("it is dead too", DAEMON_TIMEOUT, |_| vhost.ready("work.dead") == Some(2));
    assert_eq!(daemon.run(&["pause", "work", "--reason", ODD]).status.code(), Some(0));

    let commands: [&[&str]; 18] = [
        &["status"],
        &["explain", ODD],
        &["explain", ODD, "--json"],
        &["dead", "list", "work"],
        &["dead", "list", "work", "--json"],
        &["dead", "show", "work", "--id", ODD],
        &["dead", "show", "work", "--index", "1"],
        &["dead", "show", "work", "--id", "routed"],
        &["explain", "routed"],
        &["dead", "replay", "work", "--dry-run", "--to", ODD],
        &["dead", "show", "work", "--id", "y\nFORGED"],
        &["pause", ODD],
        &["audit", "list"],
        &["audit", "list", "--json"],
        &["store", "verify", ODD],
        &["store", "forget", ODD, "x", "--yes"],
        &["store", "forget", "work", "y\nFORGED", "--yes"],
        &["store", "forget", "work", ODD, "--yes"],
    ];
    let mut seen = 0;
    for command in commands {
        let output = daemon.run(command);
        for stream in [output.stdout, output.stderr] {
            let text = String::from_utf8(stream).expect("the commands print UTF-8");
            seen += text.matches("FORGED").count();
            assert_harmless(&format!("{command:?}"), &text);
        }
    }
    assert!(seen >= 16, "they print it: {seen}");
    let resumed = daemon.run(&["resume", "work"]);
    assert_eq!(resumed.status.code(), Some(0), "{resumed:?}");
    let log = daemon.log();
    assert!(log.contains("FORGED"), "{log}");
    assert_harmless("the log", &log);
    assert!(log.lines().all(|line| line.starts_with('[')), "{log}");
    assert!(daemon.terminate().success());
}
