//! Bad input: whatever a message is like, it ends done or dead with a clear class, and its neighbours are unharmed.

use std::collections::BTreeMap;
use std::time::Duration;

use amiquip::{AmqpProperties, AmqpValue, Delivery, FieldTable};
use amq_protocol_types::DecimalValue;

use crate::amqp::{headers, long_text, text, with_headers};
use crate::support::broker::{Vhost, with_id};
use crate::support::daemon::{DAEMON_TIMEOUT, Daemon};
use crate::support::journal::Journal;

const MIB: usize = 1 << 20;

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

fn cases() -> Vec<Case> {
    let mut cases = odd_bodies();
    cases.extend(odd_properties());
    cases.extend(odd_attempts());
    cases.extend(large_headers());
    cases
}

fn odd_bodies() -> Vec<Case> {
    let every_byte: Vec<u8> = (0..=255).collect();
    let one_more = vec![b'x'; 16 * MIB + 1];
    let zeros = vec![0; 16 * MIB];
    let plain = AmqpProperties::default;
    vec![
        case("empty", "", with_id("empty"), End::Done),
        case("nothing at all", "", plain(), End::Done),
        case("16 MiB", zeros, with_id("16 MiB"), End::Done),
        case("a byte more", one_more, with_id("a byte more"), End::Dead("oversize")),
        case("not UTF-8", every_byte, with_id("not UTF-8"), End::Done),
    ]
}

fn odd_properties() -> Vec<Case> {
    let mut odd_id = "\n\r\t\u{1b}[31m'\"\\$(reboot)`;&|é漢\u{202e}\u{fffd}=%s".to_owned();
    odd_id.extend(std::iter::repeat_n('-', 255 - odd_id.len()));
    let longest = "x".repeat(255);
    let every_property = with_id("every property")
        .with_content_type(longest.clone())
        .with_content_encoding(longest.clone())
        .with_correlation_id(longest.clone())
        .with_reply_to(longest.clone())
        .with_type_(longest.clone())
        .with_app_id(longest)
        .with_timestamp(u64::MAX)
        .with_delivery_mode(1)
        .with_priority(255);
    vec![
        case("an odd id", "", with_id(&odd_id), End::Done),
        case("a NUL in the id", "", with_id("a\0b"), End::Done),
        case("an empty id", "", with_id(""), End::Done),
        case("every property", "", every_property, End::Done),
        case("expiration 0", "", with_id("expiration 0").with_expiration("0".to_owned()), End::Done),
        odd_headers("headers of every type", &every_type(), End::Done),
    ]
}

fn every_type() -> Vec<(&'static str, AmqpValue)> {
    let scalars = vec![
        ("bool", AmqpValue::Boolean(true)),
        ("i8", AmqpValue::ShortShortInt(i8::MIN)),
        ("u8", AmqpValue::ShortShortUInt(u8::MAX)),
        ("i16", AmqpValue::ShortInt(i16::MIN)),
        ("u16", AmqpValue::ShortUInt(u16::MAX)),
        ("i32", AmqpValue::LongInt(i32::MIN)),
        ("u32", AmqpValue::LongUInt(u32::MAX)),
        ("i64", AmqpValue::LongLongInt(i64::MIN)),
        ("f32", AmqpValue::Float(f32::MIN)),
        ("f64", AmqpValue::Double(-0.0)),
        ("decimal", AmqpValue::DecimalValue(DecimalValue { scale: 255, value: u32::MAX })),
        ("text", long_text("NUL \0, escape \u{1b}, newline \n, quote \"")),
        ("empty text", long_text("")),
        ("bytes", AmqpValue::ByteArray(vec![0, 255, 10])),
        ("timestamp", AmqpValue::Timestamp(u64::MAX)),
        ("void", AmqpValue::Void),
        ("traceparent", AmqpValue::LongInt(1)),
        ("a name with \n \0 =", AmqpValue::Void),
    ];
    let table: FieldTable = scalars.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
    let nested = AmqpValue::FieldArray(vec![
        AmqpValue::FieldTable(table.clone()),
        AmqpValue::FieldArray(vec![AmqpValue::Void, AmqpValue::FieldTable(FieldTable::new())]),
    ]);
    let mut all = scalars;
    all.push(("table", AmqpValue::FieldTable(table)));
    all.push(("array", nested));
    all
}

fn odd_attempts() -> Vec<Case> {
    use AmqpValue::{FieldTable as Table, LongLongInt as Long, Void};
    let (attempt, base) = ("x-warrend-attempt", "x-warrend-base");
    let (crashes, dead) = ("x-warrend-crashes", "x-warrend-dead");
    let broken = End::Dead("undecodable");
    vec![
        odd_headers("attempt as text", &[(attempt, long_text("2"))], End::Done),
        odd_headers("attempt soon", &[(attempt, long_text("soon"))], broken),
        odd_headers("attempt negative", &[(attempt, Long(-1))], broken),
        odd_headers("attempt zero", &[(attempt, Long(0))], broken),
        odd_headers("attempt huge", &[(attempt, Long(i64::MAX))], broken),
        odd_headers("attempt a table", &[(attempt, Table(FieldTable::new()))], broken),
        odd_headers("attempt large", &[(attempt, Long(1_000_000_000))], End::Done),
        odd_headers("base text", &[(base, long_text("nonsense"))], broken),
        odd_headers("base too large", &[(base, Long(7))], broken),
        odd_headers("crashes too many", &[(crashes, Long(7))], broken),
        odd_headers("first seen nonsense", &[("x-warrend-first-seen", long_text("then"))], End::Done),
        odd_headers("dead nonsense", &[(dead, Table(FieldTable::new()))], End::Done),
        odd_headers("dead, base nonsense", &[(dead, Void), (base, Long(7))], End::Done),
        odd_headers("dead, attempt nonsense", &[(dead, Void), (attempt, Long(-7))], broken),
        odd_headers("origin nonsense", &[("x-warrend-exchange", Void), ("x-warrend-queue", Long(1))], End::Done),
    ]
}

fn large_headers() -> Vec<Case> {
    let many: Vec<(String, AmqpValue)> =
        (0..1000).map(|n| (format!("header-{n}"), long_text("v".repeat(85)))).collect();
    let many: Vec<(&str, AmqpValue)> = many.iter().map(|(name, value)| (name.as_str(), value.clone())).collect();
    let filled = || long_text("x".repeat(130_000));
    vec![
        odd_headers("100 KB of headers", &many, End::Done),
        odd_headers("a header of 100 KB", &[("h", long_text("x".repeat(100_000)))], End::Done),
        odd_headers("a frame of headers", &[("h", filled())], End::Done),
        odd_headers("a frame of our own", &[("x-warrend-routing-key", filled())], End::Done),
        odd_headers("a frame like ours", &[("x-warrend-foo", filled())], End::Done),
    ]
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
    let journal = Journal::new(folder.path(), "");
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
    if name == "a frame of headers" {
        assert!(foreign(headers(letter)).is_empty(), "it cannot be kept");
        assert_eq!(headers(letter)["x-warrend-headers-dropped"], AmqpValue::LongLongInt(1));
    } else {
        assert_eq!(foreign(headers(letter)), foreign(sent), "{name}");
    }
}

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
