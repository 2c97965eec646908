//! What failed attempts cost: retries with growing delays, dead letters and what is written on them, replays.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use amiquip::{AmqpValue, Delivery, ExchangeType};

use crate::amqp::{bind, exchange, headers, integer, long_text, take, text, user, with_headers};
use crate::support::broker::{Vhost, with_id};
use crate::support::daemon::{DAEMON_TIMEOUT, Daemon};
use crate::support::journal::Journal;

/// A second of the delay ladder is a real one, and the machine may be busy.
const LADDER_TIMEOUT: Duration = Duration::from_secs(40);

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    i64::try_from(since.expect("the clock is right").as_millis()).expect("it is not that late")
}

fn host_name() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname");
    name.expect("the kernel says it").trim().to_owned()
}

/// A job for the queue of the same name.
fn job(name: &str, journal: &Journal, more: &str) -> String {
    let command = journal.command();
    format!("[jobs.{name}]\nqueue = \"{name}\"\nhandler.command = {command}\n{more}\n")
}

/// One way to fail, and what must stand on the dead letter.
struct Way {
    job: &'static str,
    settings: &'static str,
    attempts: u32,
    crashes: i64,
    class: &'static str,
    error: &'static str,
    retried: u64,
    crashed: u64,
}

const WAYS: [Way; 5] = [
    Way {
        job: "fails",
        settings: "retry = { max_attempts = 3, initial = \"1s\", multiplier = 2.0, jitter = 0.0 }",
        attempts: 3,
        crashes: 0,
        class: "failed",
        error: "exit status 3: no luck today",
        retried: 2,
        crashed: 0,
    },
    Way {
        job: "rejects",
        settings: "",
        attempts: 1,
        crashes: 0,
        class: "rejected",
        error: "exit status 65: not for me",
        retried: 0,
        crashed: 0,
    },
    Way {
        job: "overruns",
        settings: "handler.timeout = \"200ms\"\nhandler.kill_grace = \"100ms\"\nretry.max_attempts = 1",
        attempts: 1,
        crashes: 0,
        class: "timeout",
        error: "no end within 200ms",
        retried: 0,
        crashed: 0,
    },
    Way {
        job: "crashes",
        settings: "retry = { max_crashes = 2, max_attempts = 1, initial = \"1s\", jitter = 0.0 }",
        attempts: 2,
        crashes: 2,
        class: "crashed",
        error: "killed by SIGSEGV (signal 11)",
        retried: 1,
        crashed: 2,
    },
    // Crash, failure, crash, failure: two of each, and only the failures use up the attempts.
    Way {
        job: "both",
        settings: "retry = { max_crashes = 3, max_attempts = 2, initial = \"1s\", multiplier = 1.0, jitter = 0.0 }",
        attempts: 4,
        crashes: 2,
        class: "failed",
        error: "exit status 1",
        retried: 3,
        crashed: 2,
    },
];

/// The handler of all ways. It writes down when each attempt began.
fn ways_script(times: &Path) -> String {
    format!(
        r#"printf '%s %s\n' "$WARREND_KEY" "$(date +%s%3N)" >>'{}'
case $WARREND_JOB in
fails) echo 'no luck today' >&2; exit 3 ;;
rejects) echo 'not for me' >&2; exit 65 ;;
overruns) exec sleep 60 ;;
crashes) kill -SEGV $$ ;;
both) [ $((WARREND_ATTEMPT % 2)) = 0 ] || kill -KILL $$; exit 1 ;;
esac"#,
        times.display()
    )
}

#[test]
fn every_way_to_fail_ends_in_the_dead_letter_queue_with_its_class() {
    let vhost = Vhost::new();
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let times = folder.path().join("times");
    let journal = Journal::new(folder.path(), &ways_script(&times));
    let jobs: String = WAYS.iter().map(|way| job(way.job, &journal, way.settings)).collect();
    let mut daemon = Daemon::new(&vhost, &jobs);
    daemon.start();
    let began = now_ms();
    for way in &WAYS {
        vhost.publish(way.job, format!("body of {}", way.job), with_id(way.job));
    }
    daemon.wait_until("all are dead", LADDER_TIMEOUT, |daemon| {
        WAYS.iter().all(|way| daemon.counter(way.job, "dead") == 1)
    });
    for way in &WAYS {
        let letter = take(&vhost, &format!("{}.dead", way.job));
        check_dead_letter(way, &letter, began);
        let attempts: Vec<u32> = (1..=way.attempts).collect();
        assert_eq!(journal.attempts(way.job), attempts, "{}", way.job);
        let counted = ["retried", "crashed", "done", "duplicates"].map(|name| daemon.counter(way.job, name));
        assert_eq!(counted, [way.retried, way.crashed, 0, 0], "{}", way.job);
    }
    let began = starts(&times);
    let fails = &began["fails"];
    assert!(fails[1] - fails[0] >= 1000, "after the first: {fails:?}");
    assert!(fails[2] - fails[1] >= 2000, "after the second: {fails:?}");
    let both = &began["both"];
    let waits = both.windows(2).map(|pair| pair[1] - pair[0]);
    assert!(waits.clone().all(|wait| wait >= 1000), "{both:?}");
}

/// When each run of each key began, in milliseconds.
fn starts(times: &Path) -> BTreeMap<String, Vec<i64>> {
    let mut starts: BTreeMap<String, Vec<i64>> = BTreeMap::new();
    for line in fs::read_to_string(times).expect("it was written").lines() {
        let (key, at) = line.split_once(' ').expect("a key and a time");
        let at = at.parse().expect("the handler wrote milliseconds");
        starts.entry(key.to_owned()).or_default().push(at);
    }
    starts
}

fn check_dead_letter(way: &Way, letter: &Delivery, began: i64) {
    let name = way.job;
    assert_eq!(letter.body, format!("body of {name}").into_bytes());
    let properties = &letter.properties;
    assert_eq!(properties.message_id().as_deref(), Some(name));
    assert_eq!(*properties.delivery_mode(), Some(2), "{name}");
    let expect_numbers = [
        ("x-warrend-attempt", i64::from(way.attempts) + 1),
        ("x-warrend-base", 0),
        ("x-warrend-crashes", way.crashes),
        ("x-warrend-dead", 1),
    ];
    for (header, value) in expect_numbers {
        assert_eq!(integer(letter, header), value, "{header} of {name}");
    }
    let host = host_name();
    let expect_texts = [
        ("x-warrend-queue", name),
        ("x-warrend-exchange", ""),
        ("x-warrend-routing-key", name),
        ("x-warrend-job", name),
        ("x-warrend-error-class", way.class),
        ("x-warrend-host", &host),
    ];
    for (header, value) in expect_texts {
        assert_eq!(text(letter, header), value, "{header} of {name}");
    }
    let error = text(letter, "x-warrend-error");
    assert!(error.starts_with(way.error), "{error:?} of {name}");
    let first_seen = integer(letter, "x-warrend-first-seen");
    let failed_at = integer(letter, "x-warrend-failed-at");
    assert!(
        began <= first_seen && first_seen <= failed_at && failed_at <= now_ms(),
        "{began} {first_seen} {failed_at}"
    );
    assert_eq!(headers(letter).len(), 13, "no other headers: {:?}", headers(letter));
}

#[test]
fn a_copy_keeps_what_the_message_had_and_drops_what_would_misroute_it() {
    let vhost = Vhost::new();
    exchange(&vhost, "media", ExchangeType::Topic);
    for (queue, key) in [("work", "image.*"), ("other", "image.*"), ("cc", "cc"), ("bcc", "bcc")] {
        vhost.declare(queue);
        bind(&vhost, queue, "media", key);
    }
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let seen = folder.path().join("seen");
    let journal = Journal::new(folder.path(), &format!("cat <&3 >>'{}'; exit 1", seen.display()));
    let retry = "retry = { max_attempts = 3, initial = \"1s\", multiplier = 1.0, jitter = 0.0 }";
    let mut daemon = Daemon::new(&vhost, &job("work", &journal, retry));
    daemon.start();
    let names = |queue: &str| AmqpValue::FieldArray(vec![long_text(queue)]);
    let mine = [("mine", long_text("kept")), ("number", AmqpValue::LongLongInt(7))];
    let trace = AmqpValue::FieldArray(vec![AmqpValue::FieldTable(
        [("queue".to_owned(), long_text("work"))].into_iter().collect(),
    )]);
    let brokers = [
        ("CC", names("cc")),
        ("BCC", names("bcc")),
        ("x-death", trace),
        ("x-first-death-queue", long_text("work")),
        ("x-last-death-reason", long_text("expired")),
    ];
    let properties = with_headers("a", &[&mine[..], &brokers[..]].concat())
        .with_content_type("image/png".to_owned())
        .with_content_encoding("identity".to_owned())
        .with_delivery_mode(1)
        .with_priority(7)
        .with_correlation_id("c-1".to_owned())
        .with_reply_to("answers".to_owned())
        .with_expiration("60000".to_owned())
        .with_timestamp(1_700_000_000)
        .with_type_("thumbnail".to_owned())
        .with_user_id(user(&vhost))
        .with_app_id("shop".to_owned());
    vhost.publish_to("media", "image.new", [(b"pixels".to_vec(), properties)]);
    daemon.wait_until("it is dead", LADDER_TIMEOUT, |daemon| daemon.counter("work", "dead") == 1);

    let letter = take(&vhost, "work.dead");
    assert_eq!(letter.body, b"pixels");
    let kept = with_id("a")
        .with_content_type("image/png".to_owned())
        .with_content_encoding("identity".to_owned())
        .with_priority(7)
        .with_correlation_id("c-1".to_owned())
        .with_reply_to("answers".to_owned())
        .with_timestamp(1_700_000_000)
        .with_type_("thumbnail".to_owned())
        .with_app_id("shop".to_owned());
    let table = letter.properties.headers().clone().unwrap_or_default();
    assert_eq!(letter.properties, kept.with_headers(table));
    assert_eq!(text(&letter, "x-warrend-user-id"), user(&vhost));
    assert_eq!(text(&letter, "x-warrend-exchange"), "media");
    assert_eq!(text(&letter, "x-warrend-routing-key"), "image.new");
    assert_eq!(text(&letter, "x-warrend-queue"), "work");
    let foreign: Vec<_> = headers(&letter).into_iter().filter(|(name, _)| !name.starts_with("x-warrend-")).collect();
    assert_eq!(foreign, mine.map(|(name, value)| (name.to_owned(), value)));

    for queue in ["other", "cc", "bcc"] {
        assert_eq!(vhost.ready(queue), Some(1), "{queue} got the original only");
    }
    check_metadata(&fs::read_to_string(&seen).expect("the handler wrote it"));
}

/// Each attempt is told the exchange and the routing key of the original, not those of the delay ladder.
fn check_metadata(seen: &str) {
    let attempts: Vec<serde_json::Value> =
        seen.lines().map(|line| serde_json::from_str(line).expect("descriptor 3 gives JSON")).collect();
    assert_eq!(attempts.len(), 3);
    for (n, metadata) in (1..).zip(&attempts) {
        assert_eq!(metadata["attempt"], n);
        assert_eq!(metadata["max_attempts"], 3);
        assert_eq!(metadata["exchange"], "media", "attempt {n}");
        assert_eq!(metadata["routing_key"], "image.new", "attempt {n}");
        assert_eq!(metadata["headers"]["mine"], "kept");
        assert_eq!(metadata["correlation_id"], "c-1");
    }
}

#[test]
fn a_dead_letter_that_is_moved_back_goes_on_with_a_fresh_budget() {
    let vhost = Vhost::new();
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let mended = folder.path().join("mended");
    let journal = Journal::new(folder.path(), &format!("[ -e '{}' ]", mended.display()));
    let retry = "retry = { max_attempts = 2, initial = \"1s\", jitter = 0.0 }";
    let mut daemon = Daemon::new(&vhost, &job("work", &journal, retry));
    daemon.start();
    vhost.publish("work", "body", with_id("a"));
    let first_seen = {
        daemon.wait_until("it is dead", LADDER_TIMEOUT, |_| vhost.ready("work.dead") == Some(1));
        let letter = take(&vhost, "work.dead");
        assert_eq!(integer(&letter, "x-warrend-attempt"), 3);
        assert_eq!(integer(&letter, "x-warrend-base"), 0);
        vhost.publish("work", letter.body.clone(), letter.properties.clone());
        integer(&letter, "x-warrend-first-seen")
    };

    // The budget is two attempts again, and the attempts go on counting.
    daemon.wait_until("it is dead again", LADDER_TIMEOUT, |_| vhost.ready("work.dead") == Some(1));
    assert_eq!(journal.attempts("a"), [1, 2, 3, 4]);
    let letter = take(&vhost, "work.dead");
    assert_eq!(integer(&letter, "x-warrend-attempt"), 5);
    assert_eq!(integer(&letter, "x-warrend-base"), 2);
    assert_eq!(integer(&letter, "x-warrend-first-seen"), first_seen);

    // Twice, as a clumsy operator does it: the second copy is a duplicate, while it runs and after it is done.
    fs::write(&mended, "").expect("the folder is writable");
    let twin = (letter.body.clone(), letter.properties);
    vhost.publish_all("work", [twin.clone(), twin.clone()]);
    daemon.wait_until("it is done", DAEMON_TIMEOUT, |daemon| {
        daemon.counter("work", "done") == 1 && daemon.counter("work", "duplicates") == 1
    });
    vhost.publish_all("work", [twin]);
    daemon.wait_until("a third one is a duplicate", DAEMON_TIMEOUT, |daemon| daemon.counter("work", "duplicates") == 2);
    assert_eq!(journal.attempts("a"), [1, 2, 3, 4, 5]);
    assert_eq!(vhost.ready("work.dead"), Some(0));
}

#[test]
fn queues_whose_names_end_alike_get_only_their_own_copies() {
    let vhost = Vhost::new();
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let queues = ["thumbs", "media.thumbs", "new.media.thumbs"];
    let journal = Journal::new(
        folder.path(),
        "[ \"$WARREND_QUEUE $WARREND_KEY\" = \"$WARREND_KEY $WARREND_QUEUE\" ] && [ \"$WARREND_ATTEMPT\" = 2 ]",
    );
    let jobs: String = (0..)
        .zip(queues)
        .map(|(n, queue)| {
            format!(
                "[jobs.j{n}]\nqueue = \"{queue}\"\nretry.initial = \"1s\"\nretry.jitter = 0.0\nhandler.command = {}\n",
                journal.command()
            )
        })
        .collect();
    let mut daemon = Daemon::new(&vhost, &jobs);
    daemon.start();
    for queue in queues {
        vhost.publish(queue, "", with_id(queue));
    }
    daemon.wait_until("all are done", LADDER_TIMEOUT, |daemon| {
        (0..queues.len()).all(|n| daemon.counter(&format!("j{n}"), "done") == 1)
    });
    for (n, queue) in queues.into_iter().enumerate() {
        assert_eq!(journal.attempts(queue), [1, 2]);
        let job = format!("j{n}");
        let counted = ["received", "duplicates", "dead"].map(|name| daemon.counter(&job, name));
        assert_eq!(counted, [2, 0, 0], "{queue}");
    }
}
