//! Messages as no library would publish them, sent byte for byte. What the broker itself refuses never arrives.

use amiquip::Delivery;

use super::{PARTS, handled};
use crate::amqp::{headers, take, text};
use crate::support::broker::{BROKER_TIMEOUT, Vhost, with_id};
use crate::support::daemon::{DAEMON_TIMEOUT, Daemon};
use crate::support::journal::Journal;
use crate::support::raw::{Raw, RawProperties, entry, long, nested_entry, text_entry};

/// A message, and what is told of it: what was wrong, and the part that could not be decoded. Nothing is told of one that is
/// sound.
struct Frame {
    name: String,
    /// A fanout exchange, or the default one.
    exchange: &'static [u8],
    routing_key: &'static [u8],
    properties: RawProperties,
    told: Option<(String, String)>,
}

impl Frame {
    fn new(name: &str, properties: RawProperties, told: Option<(&str, &str)>) -> Self {
        let told = told.map(|(wrong, part)| (wrong.to_owned(), part.to_owned()));
        Self { name: name.to_owned(), exchange: b"", routing_key: b"work", properties, told }
    }

    /// One that comes by another way.
    fn by(self, exchange: &'static [u8], routing_key: &'static [u8]) -> Self {
        Self { exchange, routing_key, ..self }
    }
}

/// Properties that are sound: the first, the last but two, and an id between them.
fn sound(name: &str) -> RawProperties {
    RawProperties::default().text(15, b"text/plain").text(7, name.as_bytes()).text(3, b"app")
}

fn frames() -> Vec<Frame> {
    let mut frames = Vec::new();
    for kind in [b'A', b'F'] {
        for depth in [1, 2, 31, 32, 33, 34, 100, 1000, 10_000, 20_000, 25_000] {
            // A frame holds no more tables than this.
            let depth = if kind == b'F' { depth.min(21_000) } else { depth };
            let name = format!("{depth} of {}", char::from(kind));
            let part = format!("header \"deep\" = {}", char::from(kind));
            let told = (depth > 32).then_some(("the header \"deep\" nests tables more than 32 deep", part.as_str()));
            let table = [nested_entry(b"deep", kind, depth), text_entry(b"after", b"v")].concat();
            frames.push(Frame::new(&name, sound(&name).headers(&table), told));
        }
    }
    frames.extend(not_text());
    frames.extend(odd_structure());
    frames
}

/// Bad UTF-8 in each text that a message has.
fn not_text() -> Vec<Frame> {
    let properties = [
        (15, "content_type"),
        (14, "content_encoding"),
        (10, "correlation_id"),
        (9, "reply_to"),
        (8, "expiration"),
        (7, "message_id"),
        (5, "type"),
        (4, "user_id"),
        (3, "app_id"),
        (2, "cluster_id"),
    ];
    let mut frames: Vec<_> = properties
        .iter()
        .map(|(bit, property)| {
            let name = format!("bad {property}");
            let mut properties = RawProperties::default().text(*bit, b"a\xff\nb").headers(&text_entry(b"good", b"v"));
            if *bit != 7 {
                properties = properties.text(7, name.as_bytes());
            }
            let (wrong, part) = (format!("the property {property} is not UTF-8"), format!("{property} \"a\\xff\\nb\""));
            Frame::new(&name, properties, Some((&wrong, &part)))
        })
        .collect();
    let bad_headers = [
        ("bad value", text_entry(b"h", b"caf\xe9"), "the header \"h\" is not UTF-8", r#"header "h" = "caf\xe9""#),
        ("bad name", text_entry(b"\xe9", b"v"), r#"the header "\xe9" is not UTF-8"#, r#"header "\xe9" = "v""#),
        (
            "bad inner value",
            entry(b"h", b'F', &long(&text_entry(b"k", b"\xe9"))),
            "the header \"h\" is not UTF-8",
            "= F",
        ),
        (
            "bad inner name",
            entry(b"h", b'F', &long(&text_entry(b"\xe9", b"v"))),
            "the header \"h\" is not UTF-8",
            "= F",
        ),
        (
            "bad in an array",
            entry(b"h", b'A', &long(&[&b"S"[..], &long(b"\xe9")].concat())),
            "the header \"h\" is not UTF-8",
            "= A",
        ),
    ];
    frames.extend(bad_headers.map(|(name, header, wrong, part)| {
        let table = [text_entry(b"good", b"v"), header, text_entry(b"last", b"v")].concat();
        Frame::new(name, sound(name).headers(&table), Some((wrong, part)))
    }));
    let way = |name: &str, wrong: &str, part: &str| Frame::new(name, sound(name), Some((wrong, part)));
    let wrong = "the routing key is not UTF-8";
    frames.push(way("bad routing key", wrong, r#"routing key "k\xff""#).by(b"fan", b"k\xff"));
    // RabbitMQ takes no such name; should another version, then this is what is told.
    let wrong = "the exchange is not UTF-8";
    frames.push(way("bad exchange", wrong, r#"exchange "fan\xe9""#).by(b"fan\xe9", b"work"));
    let (wrong, part) = ("the exchange is not UTF-8 (and 1 more)", r#"exchange "fan\xe9"; routing key "\xff""#);
    frames.push(way("bad exchange and routing key", wrong, part).by(b"fan\xe9", b"\xff"));
    frames
}

/// Lengths, types and flags that do not fit. RabbitMQ decodes what it takes in, so it refuses most of them.
fn odd_structure() -> Vec<Frame> {
    let headers = |name: &str, table: &[u8], wrong: &str| {
        let table = [&text_entry(b"good", b"v")[..], table].concat();
        Frame::new(name, sound(name).headers(&table), Some((wrong, "header \"h\" = ")))
    };
    let mut frames = vec![
        headers("a long value", &entry(b"h", b'S', &[0, 0, 1, 0, b'x']), "the header \"h\" is cut off"),
        headers("a long array", &entry(b"h", b'A', &[0, 0, 1, 0, b'V']), "the header \"h\" is cut off"),
        headers("a long inner value", &entry(b"h", b'A', &long(b"S\0\0\x01\0x")), "the header \"h\" is cut off"),
        headers("a long inner name", &entry(b"h", b'F', &long(b"\xc8x")), "the header \"h\" is cut off"),
        Frame::new("properties cut off", sound("properties cut off").part(6, vec![0; 3]), None),
    ];
    for bit in [0, 1] {
        let name = format!("flag {bit}");
        frames.push(Frame::new(&name, sound(&name).flag(bit), Some(("its property flags are unknown", "properties "))));
    }
    for letter in 0..=255 {
        let size = match letter {
            b'V' => 0,
            b't' | b'b' | b'B' => 1,
            b's' | b'u' | b'U' => 2,
            b'D' => 5,
            b'l' | b'L' | b'd' | b'T' => 8,
            _ => 4,
        };
        let name = format!("type {}", letter.escape_ascii());
        let known = b"tbBsUuIiLlfdDTVSxAF".contains(&letter);
        let wrong = format!("the header \"h\" has the unknown type '{}'", letter.escape_ascii());
        let table = [text_entry(b"good", b"v"), entry(b"h", letter, &vec![0; size])].concat();
        frames.push(Frame::new(&name, sound(&name).headers(&table), (!known).then_some((&wrong, "header \"h\" = "))));
    }
    frames
}

/// Publishes on one connection after the other: the broker ends one over what it refuses.
struct Publisher<'v> {
    vhost: &'v Vhost,
    raw: Option<Raw>,
    refused: Vec<String>,
}

impl<'v> Publisher<'v> {
    fn new(vhost: &'v Vhost) -> Self {
        Self { vhost, raw: None, refused: Vec::new() }
    }

    fn send(&mut self, frame: &Frame) -> bool {
        let raw = self.raw.get_or_insert_with(|| Raw::open(self.vhost));
        let way = if frame.exchange.is_empty() { Ok(()) } else { raw.bind(frame.exchange, b"work") };
        let mut publish = || raw.publish(frame.exchange, frame.routing_key, &frame.properties, frame.name.as_bytes());
        if let Err(why) = way.and_then(|()| publish()) {
            self.refused.push(format!("{}: {why}", frame.name));
            self.raw = None;
            return false;
        }
        true
    }
}

#[test]
fn what_cannot_be_decoded_is_dead_and_the_next_message_is_done() {
    let vhost = Vhost::new();
    vhost.declare("work");
    // Done is what has its own name in its body.
    let handler = r#"["sh", "-c", "[ \"$(cat)\" = \"$WARREND_KEY\" ]"]"#;
    let job = format!("[jobs.work]\nqueue = \"work\"\nconcurrency = 1\nhandler.command = {handler}\n");
    let mut daemon = Daemon::new(&vhost, &job);
    daemon.start();
    let mut publisher = Publisher::new(&vhost);
    let (mut done, mut dead) = (0, 0);
    for frame in frames() {
        if !publisher.send(&frame) {
            continue;
        }
        let neighbour = format!("after {}", frame.name);
        vhost.publish("work", neighbour.as_bytes(), with_id(&neighbour));
        (done, dead) = if frame.told.is_some() { (done + 1, dead + 1) } else { (done + 2, dead) };
        let what = format!("{:?} and its neighbour are handled", frame.name);
        daemon.wait_until(&what, DAEMON_TIMEOUT, |daemon| handled(daemon, "work") == done + dead);
        let counted = (daemon.counter("work", "done"), daemon.counter("work", "dead"));
        assert_eq!(counted, (done, dead), "{}", frame.name);
        if frame.told.is_some() {
            check_letter(&frame, &take(&vhost, "work.dead"));
        }
    }
    println!("{} done, {} dead; the broker refused {:#?}", done, dead, publisher.refused);
    assert!(dead >= 30, "the broker let them through");
    let status = daemon.status().expect("the daemon runs");
    assert_eq!(status["broker"]["reconnects"], 0, "no frame costs the connection");
    assert!(daemon.terminate().success());
    super::assert_plain(&daemon.log());
}

fn check_letter(frame: &Frame, letter: &Delivery) {
    let name = &frame.name;
    let (wrong, part) = frame.told.as_ref().expect("it is dead");
    assert_eq!(letter.body, name.as_bytes());
    assert_eq!(text(letter, "x-warrend-error-class"), "undecodable", "{name}");
    assert_eq!(text(letter, "x-warrend-error"), format!("the message cannot be decoded: {wrong}"));
    let parts = text(letter, PARTS);
    assert!(parts.contains(part.as_str()) && !parts.contains(char::is_control), "{name}: {parts}");
    assert!(parts.len() < 4096, "{name}: {} bytes", parts.len());
    let is = &letter.properties;
    if wrong != "its property flags are unknown" && !wrong.contains("message_id") {
        assert_eq!(is.message_id().as_deref(), Some(name.as_str()), "the key of {name} is recognised");
    }
    let kept = headers(letter);
    let expect = |header: &str| kept.contains_key(header) == frame.properties.has(header.as_bytes());
    assert!(expect("good") && expect("last") && expect("after"), "{name}: {kept:?}");
}

/// A replay brings back what was sound, and what was not as text: the handler may make something of it.
#[test]
fn a_replay_of_what_could_not_be_decoded_runs() {
    let vhost = Vhost::new();
    vhost.declare("work");
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let journal = Journal::new(folder.path(), &format!("cat <&3 >'{}/'\"$WARREND_KEY\"", folder.path().display()));
    let job = format!("[jobs.work]\nqueue = \"work\"\nhandler.command = {}\n", journal.command());
    let mut daemon = Daemon::new(&vhost, &job);
    daemon.start();
    let bad = |name: &str| {
        let table = [text_entry(b"good", b"v"), text_entry(b"h", b"caf\xe9")].concat();
        Frame::new(name, sound(name).headers(&table), None)
    };
    let mut publisher = Publisher::new(&vhost);
    assert!(publisher.send(&bad("through-the-job")));
    daemon.wait_until("it is dead", DAEMON_TIMEOUT, |_| vhost.ready("work.dead") == Some(1));
    // And one that somebody put there without us.
    let mut direct = bad("directly");
    direct.routing_key = b"work.dead";
    assert!(publisher.send(&direct));
    let deep = nested_entry(b"deep", b'A', 20_000);
    let mut direct = Frame::new("deep", sound("deep").headers(&deep), None);
    direct.routing_key = b"work.dead";
    assert!(publisher.send(&direct));

    let said = |arguments: &[&str]| {
        let output = daemon.run(&[&["dead"], arguments].concat());
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).expect("the command prints text")
    };
    assert!(said(&["list", "work"]).starts_with("3 dead letters in work.dead"));
    let shown = said(&["show", "work", "--id", "deep"]);
    assert!(shown.contains("nests tables more than 32 deep"), "{shown}");
    let file = folder.path().join("letters");
    said(&["export", "work", file.to_str().expect("it is UTF-8")]);
    assert_eq!(std::fs::read_to_string(&file).expect("it was written").lines().count(), 3);
    said(&["replay", "work", "--yes"]);

    daemon.wait_until("all of them are done", DAEMON_TIMEOUT, |daemon| daemon.counter("work", "done") == 3);
    assert_eq!(daemon.counter("work", "dead"), 1, "none of them is dead again");
    let metadata = |key: &str| -> serde_json::Value {
        let text = std::fs::read(folder.path().join(key)).expect("the handler wrote it");
        serde_json::from_slice(&text).expect("JSON")
    };
    for (key, attempt) in [("through-the-job", 2), ("directly", 1)] {
        let metadata = metadata(key);
        assert_eq!(metadata["headers"]["good"], "v", "{metadata:#}");
        assert_eq!(metadata["headers"][PARTS], r#"header "h" = "caf\xe9""#, "{metadata:#}");
        assert_eq!(metadata["attempt"], attempt, "{metadata:#}");
    }
    assert!(metadata("deep")["headers"]["deep"].is_null());
    daemon.wait_until("the queues are empty", BROKER_TIMEOUT, |_| {
        ["work", "work.dead"].map(|queue| vhost.ready(queue)) == [Some(0), Some(0)]
    });
}
