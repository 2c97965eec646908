//! Keys that are missing, and keys that are used again.

use amiquip::{AmqpProperties, AmqpValue};

use crate::amqp::{long_text, text, with_headers};
use crate::support::broker::{Vhost, with_id};
use crate::support::daemon::{DAEMON_TIMEOUT, Daemon};
use crate::support::journal::Journal;

/// Jobs that demand a key of their messages.
#[test]
fn a_message_without_its_key_runs_or_is_dead_as_the_job_says() {
    let vhost = Vhost::new();
    let jobs = [
        ("id-dead", "on_missing = \"dead\""),
        ("id-body", "on_missing = \"body\""),
        ("json-dead", "key = \"json:/order/id\", on_missing = \"dead\""),
        ("header-dead", "key = \"header:order\", on_missing = \"dead\""),
        ("none", "key = \"none\""),
    ];
    let text_of = |(name, idempotency): (&str, &str)| {
        format!("[jobs.{name}]\nqueue = \"{name}\"\nidempotency = {{ {idempotency} }}\nhandler.discard = true\n")
    };
    let mut daemon = Daemon::new(&vhost, &jobs.map(text_of).concat());
    daemon.start();
    let keyed = with_headers("id", &[("order", long_text("7"))]);
    let messages: [(&[u8], AmqpProperties); 6] = [
        (br#"{"order":{"id":7}}"#, keyed.clone()),
        (br#"{"order":{"id":7}}"#, keyed),
        (br#"{"order":{"id":"#, AmqpProperties::default()),
        (b"\xff\xfe not JSON", AmqpProperties::default()),
        (b"", AmqpProperties::default()),
        (br#"{"order":{"id":null}}"#, with_headers("", &[("order", AmqpValue::Void)])),
    ];
    for (job, _) in jobs {
        let messages = messages.iter().map(|(body, is)| (body.to_vec(), is.clone()));
        vhost.publish_all(job, messages);
    }
    let expect = [
        ("id-dead", [1, 1, 4]),
        ("id-body", [5, 1, 0]),
        ("json-dead", [1, 1, 4]),
        ("header-dead", [1, 1, 4]),
        ("none", [6, 0, 0]),
    ];
    for (job, counts) in expect {
        daemon.wait_until(&format!("{job} ends as {counts:?}"), DAEMON_TIMEOUT, |daemon| {
            ["done", "duplicates", "dead"].map(|name| daemon.counter(job, name)) == counts
        });
        for letter in vhost.drain(&format!("{job}.dead")) {
            assert_eq!(text(&letter, "x-warrend-error-class"), "no-key");
        }
    }
}

/// The key says what a message is, not its body: a publisher that uses an id again sends the same message again.
#[test]
fn the_same_id_with_another_body_is_the_same_message() {
    let vhost = Vhost::new();
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let bodies = folder.path().join("bodies");
    let journal = Journal::new(folder.path(), &format!("cat >>'{}'", bodies.display()));
    let job = format!("[jobs.work]\nqueue = \"work\"\nhandler.command = {}\n", journal.command());
    let mut daemon = Daemon::new(&vhost, &job);
    daemon.start();
    let message = |body: &str| (body.as_bytes().to_vec(), with_id("a"));
    vhost.publish_all("work", [message("first ")]);
    daemon.wait_until("the first is done", DAEMON_TIMEOUT, |daemon| daemon.counter("work", "done") == 1);
    vhost.publish_all("work", [message("second "), message(""), message("first ")]);
    daemon.wait_until("the others are the same", DAEMON_TIMEOUT, |daemon| daemon.counter("work", "duplicates") == 3);
    assert_eq!(daemon.counter("work", "done"), 1);
    assert_eq!(std::fs::read_to_string(bodies).expect("the handler wrote it"), "first ");
}

/// What an environment cannot hold is left out of it; descriptor 3 has it.
#[test]
fn values_with_nul_and_equals_reach_the_handler() {
    let vhost = Vhost::new();
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let dump = folder.path().display();
    let run = format!("file='{dump}/'$(cat)\n/usr/bin/env -0 >\"$file.env\"\ncat <&3 >\"$file.json\"");
    let journal = Journal::new(folder.path(), &run);
    let job = format!("[jobs.work]\nqueue = \"work\"\nhandler.command = {}\n", journal.command());
    let mut daemon = Daemon::new(&vhost, &job);
    daemon.start();
    let odd = |id: &str, kind: &str| {
        with_headers(id, &[("traceparent", long_text(kind))])
            .with_content_type(kind.to_owned())
            .with_reply_to("=".to_owned())
    };
    vhost.publish_all(
        "work",
        [
            (b"equals".to_vec(), odd("=a=b=", "PATH=/nowhere")),
            (b"nul".to_vec(), odd("a\0WARREND_JOB=forged", "a\0b")),
            (b"lines".to_vec(), odd("a\nWARREND_JOB=forged", "a\nPATH=/nowhere")),
        ],
    );
    daemon.wait_until("all are done", DAEMON_TIMEOUT, |daemon| daemon.counter("work", "done") == 3);
    let check = |name: &str, variables: [Option<&str>; 2], id: &str| {
        let text = std::fs::read_to_string(folder.path().join(format!("{name}.env"))).expect("the handler wrote it");
        let found = |name: &str| -> Vec<&str> {
            text.split('\0').filter_map(|variable| variable.strip_prefix(name)?.strip_prefix('=')).collect()
        };
        assert_eq!(found("WARREND_JOB"), ["work"], "{name}: {text:?}");
        assert_eq!(found("WARREND_MESSAGE_ID"), Vec::from_iter(variables[0]), "{name}: {text:?}");
        assert_eq!(found("WARREND_CONTENT_TYPE"), Vec::from_iter(variables[1]), "{name}: {text:?}");
        assert_eq!(found("WARREND_REPLY_TO"), ["="]);
        let json = std::fs::read(folder.path().join(format!("{name}.json"))).expect("the handler wrote it");
        let json: serde_json::Value = serde_json::from_slice(&json).expect("JSON");
        assert_eq!(json["message_id"], id);
    };
    check("equals", [Some("=a=b="), Some("PATH=/nowhere")], "=a=b=");
    check("nul", [None, None], "a\0WARREND_JOB=forged");
    check("lines", [Some("a\nWARREND_JOB=forged"), Some("a\nPATH=/nowhere")], "a\nWARREND_JOB=forged");
}
