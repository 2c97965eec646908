//! The tap on the wire must be able to fail: each rule that it holds the daemon to is broken here by hand, frame by frame,
//! and the tap has to say so. What it judges by is a real store with the daemon's own schema.

use std::time::{Duration, Instant};

use rusqlite::Connection;
use tempfile::TempDir;

use crate::support::tap::{Tally, Tap};

/// The heartbeat that daemon and broker agree on, in seconds.
const HEARTBEAT: u16 = 10;
/// The largest frame that they agree on.
const FRAME_MAX: u32 = 4096;

/// The connections of a daemon: that of its job, and that of its publisher.
const JOB: u64 = 1;
const PUBLISHER: u64 = 2;

/// Outcomes as the store has them.
const FAILED: i64 = 1;
const DONE: i64 = 3;

/// Bytes of the small types.
fn short(text: &str) -> Vec<u8> {
    [&[u8::try_from(text.len()).expect("a short text")], text.as_bytes()].concat()
}

fn long(bytes: &[u8]) -> Vec<u8> {
    [&u32::try_from(bytes.len()).expect("it is short").to_be_bytes(), bytes].concat()
}

fn frame(kind: u8, channel: u16, payload: &[u8]) -> Vec<u8> {
    [&[kind][..], &channel.to_be_bytes(), &long(payload), &[0xCE]].concat()
}

fn method(channel: u16, class: u16, method: u16, arguments: &[&[u8]]) -> Vec<u8> {
    frame(1, channel, &[&class.to_be_bytes()[..], &method.to_be_bytes(), &arguments.concat()].concat())
}

fn ack(channel: u16, tag: u64, multiple: bool) -> Vec<u8> {
    method(channel, 60, 80, &[&tag.to_be_bytes(), &[multiple.into()]])
}

fn nack(channel: u16, tag: u64, flags: u8) -> Vec<u8> {
    method(channel, 60, 120, &[&tag.to_be_bytes(), &[flags]])
}

fn close(channel: u16, code: u16, class: u16, at: u16) -> Vec<u8> {
    let number = if channel == 0 { (10, 50) } else { (20, 40) };
    let arguments: [&[u8]; 4] = [&code.to_be_bytes(), &short("because"), &class.to_be_bytes(), &at.to_be_bytes()];
    method(channel, number.0, number.1, &arguments)
}

fn close_ok(channel: u16) -> Vec<u8> {
    let number = if channel == 0 { (10, 51) } else { (20, 41) };
    method(channel, number.0, number.1, &[])
}

fn declare(channel: u16, passive: bool) -> Vec<u8> {
    method(channel, 50, 10, &[&[0, 0], &short("work"), &[passive.into()], &long(&[])])
}

fn qos(prefetch: u16, global: bool) -> Vec<u8> {
    method(1, 60, 10, &[&[0; 4], &prefetch.to_be_bytes(), &[global.into()]])
}

fn consume(flags: u8) -> Vec<u8> {
    method(1, 60, 20, &[&[0, 0], &short("work"), &short(""), &[flags], &long(&[])])
}

fn consume_ok() -> Vec<u8> {
    method(1, 60, 21, &[&short("consumer")])
}

/// A copy's headers among others: of a job that knows `attempt`, in the queue `work`.
fn copy_headers(attempt: i64) -> Vec<u8> {
    let nested = [&short("inner")[..], b"F", &long(&[short("x"), b"V".to_vec()].concat())].concat();
    [
        &short("traceparent")[..],
        b"S",
        &long(b"00-1-2-3"),
        &short("deep"),
        b"A",
        &long(&[b"F", &long(&nested)[..]].concat()),
        &short("x-warrend-attempt"),
        b"l",
        &attempt.to_be_bytes(),
        &short("x-warrend-queue"),
        b"S",
        &long(b"work"),
        &short("flag"),
        b"t\x01",
    ]
    .concat()
}

/// What a message bears.
#[derive(Clone)]
struct Message {
    id: &'static str,
    headers: Vec<u8>,
    delivery_mode: u8,
    body: Vec<u8>,
}

impl Message {
    fn new(id: &'static str) -> Self {
        Self { id, headers: Vec::new(), delivery_mode: 2, body: b"a body".to_vec() }
    }

    /// The copy of the attempt before.
    fn copy(id: &'static str, attempt: i64) -> Self {
        Self { headers: copy_headers(attempt), ..Self::new(id) }
    }

    /// Content header and body, in frames of four bytes.
    fn frames(&self, channel: u16) -> Vec<u8> {
        // Headers, delivery mode, priority, message id.
        let flags: u16 = 1 << 13 | 1 << 12 | 1 << 11 | 1 << 7;
        let size = self.body.len() as u64;
        let payload = [
            &[0, 60, 0, 0][..],
            &size.to_be_bytes(),
            &flags.to_be_bytes(),
            &long(&self.headers),
            &[self.delivery_mode, 5],
            &short(self.id),
        ];
        let bodies = self.body.chunks(4).flat_map(|chunk| frame(3, channel, chunk));
        frame(2, channel, &payload.concat()).into_iter().chain(bodies).collect()
    }

    fn delivered(&self, tag: u64) -> Vec<u8> {
        let arguments: [&[u8]; 5] = [&short("consumer"), &tag.to_be_bytes(), &[0], &short(""), &short("work")];
        [method(1, 60, 60, &arguments), self.frames(1)].concat()
    }

    fn published(&self, exchange: &str, key: &str, flags: u8) -> Vec<u8> {
        let arguments: [&[u8]; 4] = [&[0, 0], &short(exchange), &short(key), &[flags]];
        [method(1, 60, 40, &arguments), self.frames(1)].concat()
    }

    fn returned(&self) -> Vec<u8> {
        let arguments: [&[u8]; 4] = [&312u16.to_be_bytes(), &short("NO_ROUTE"), &short(""), &short("work.dead")];
        [method(1, 60, 50, &arguments), self.frames(1)].concat()
    }
}

/// A daemon and a broker that say what they are told to.
struct Talk {
    tap: Tap,
    now: Instant,
    store: Connection,
    seq: i64,
    /// Bytes at a time.
    slice: usize,
    _folder: TempDir,
}

impl Talk {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let path = folder.path().join("store.db");
        let store = Connection::open(&path).expect("a store can be made");
        store.pragma_update(None, "journal_mode", "wal").expect("it can be WAL");
        store.execute_batch(include_str!("../../migrations/0001_initial.sql")).expect("the schema is right");
        store.execute("INSERT INTO jobs (id, name) VALUES (7, 'mail')", []).expect("a job can be added");
        let tap = Tap::new(&path).job("mail", "work");
        Self { tap, now: Instant::now(), store, seq: 0, slice: usize::MAX, _folder: folder }
    }

    /// The connection of a job with a consumer, and that of a publisher.
    fn connected(prefetch: u16) -> Self {
        let mut talk = Self::new();
        talk.connect();
        talk.consume(prefetch);
        talk
    }

    fn connect(&mut self) {
        for line in [JOB, PUBLISHER] {
            self.tap.opened(self.now, line);
            self.daemon(line, b"AMQP\0\0\x09\x01");
            let tune: [&[u8]; 3] = [&[0, 0], &FRAME_MAX.to_be_bytes(), &HEARTBEAT.to_be_bytes()];
            self.broker(line, &method(0, 10, 30, &tune));
            self.daemon(line, &method(0, 10, 31, &tune));
            self.daemon(line, &method(1, 20, 10, &[&short("")]));
            self.broker(line, &method(1, 20, 11, &[&long(&[])]));
        }
        self.daemon(PUBLISHER, &method(1, 85, 10, &[&[0]]));
        self.broker(PUBLISHER, &method(1, 85, 11, &[]));
    }

    fn consume(&mut self, prefetch: u16) {
        self.daemon(JOB, &qos(prefetch, false));
        self.daemon(JOB, &consume(0));
        self.broker(JOB, &consume_ok());
    }

    fn daemon(&mut self, line: u64, bytes: &[u8]) {
        for part in bytes.chunks(self.slice) {
            self.tap.sent(self.now, line, part);
        }
    }

    fn broker(&mut self, line: u64, bytes: &[u8]) {
        for part in bytes.chunks(self.slice) {
            self.tap.told(self.now, line, part);
        }
    }

    fn deliver(&mut self, tag: u64, message: &Message) {
        self.broker(JOB, &message.delivered(tag));
    }

    fn record(&mut self, key: &str, attempt: u32, outcome: i64) {
        self.seq += 1;
        let key = [b"\0", key.as_bytes()].concat();
        self.store
            .execute(
                "INSERT INTO recent (seq, job, key, attempt, outcome, at, ran) VALUES (?1, 7, ?2, ?3, ?4, 0, 0)",
                (self.seq, key, attempt, outcome),
            )
            .expect("a record can be added");
    }

    /// A dead letter or a retry, mandatory.
    fn publish(&mut self, copy: &Message) {
        self.daemon(PUBLISHER, &copy.published("", "work.dead", 1));
    }

    fn later(&mut self, seconds: u64) {
        // In steps, as the proxy's loop is never away for long.
        for _ in 0..2 * seconds {
            self.now += Duration::from_millis(500);
            self.tap.tick(self.now);
        }
    }

    #[track_caller]
    fn is_clean(&mut self) -> Tally {
        self.tap.verdict().unwrap_or_else(|why| panic!("{why}"))
    }

    /// The first violation says that.
    #[track_caller]
    fn violates(&mut self, expected: &str) {
        assert!(self.tap.untold().is_some_and(|why| why.contains(expected)), "nobody was told");
        assert_eq!(self.tap.untold(), None, "somebody was told");
        let why = self.tap.verdict().expect_err(expected);
        let first = why.lines().next().unwrap_or_default();
        assert!(first.contains(expected), "expected {expected:?}: {why}");
        assert!(why.contains("the last frames before it") && why.contains("daemon: "), "a trace is shown: {why}");
    }
}

/// Everything that a daemon does in good order.
fn good_day(talk: &mut Talk) {
    talk.connect();
    talk.daemon(JOB, &declare(1, true));
    talk.consume(4);
    // A success.
    talk.deliver(1, &Message::new("a"));
    talk.record("a", 1, DONE);
    talk.daemon(JOB, &ack(1, 1, false));
    // A failure; its copy comes back as the second attempt and is done.
    talk.deliver(2, &Message::new("b"));
    talk.record("b", 1, FAILED);
    talk.publish(&Message::copy("b", 2));
    talk.broker(PUBLISHER, &ack(1, 1, false));
    talk.daemon(JOB, &ack(1, 2, false));
    // That and two others with one ack; one of them comes a second time under the same id.
    talk.deliver(3, &Message::copy("b", 2));
    talk.deliver(4, &Message::new("c"));
    talk.deliver(5, &Message::new("a"));
    talk.deliver(6, &Message::new("d"));
    talk.record("b", 2, DONE);
    talk.record("c", 1, DONE);
    talk.daemon(JOB, &ack(1, 5, true));
    talk.daemon(JOB, &nack(1, 6, 2));
    // Several copies confirmed at once, and a reply straight to its caller.
    talk.deliver(7, &Message::new("e"));
    talk.deliver(8, &Message::new("f"));
    talk.record("e", 1, FAILED);
    talk.record("f", 1, FAILED);
    talk.publish(&Message::copy("e", 2));
    talk.daemon(PUBLISHER, &Message::new("reply").published("", "amq.rabbitmq.reply-to.x", 0));
    talk.publish(&Message::copy("f", 2));
    talk.broker(PUBLISHER, &ack(1, 4, true));
    talk.daemon(JOB, &ack(1, 8, true));
    talk.later(15);
    talk.daemon(JOB, &frame(8, 0, &[]));
    talk.daemon(PUBLISHER, &frame(8, 0, &[]));
    talk.later(15);
    for line in [JOB, PUBLISHER] {
        talk.daemon(line, &close(1, 200, 0, 0));
        talk.broker(line, &close_ok(1));
        talk.daemon(line, &close(0, 200, 0, 0));
        talk.broker(line, &close_ok(0));
        talk.tap.closed(line);
    }
}

const GOOD_DAY: Tally = Tally {
    connections: 2,
    deliveries: 8,
    acks: 4,
    acked: 7,
    done: 4,
    copied: 3,
    unjudged: 0,
    handed_back: 1,
    publishes: 4,
    confirms: 4,
    returns: 0,
    refusals: 0,
    heartbeats: 2,
    absent: 0,
};

#[test]
fn a_good_day_is_clean_and_counted() {
    let mut talk = Talk::new();
    good_day(&mut talk);
    assert_eq!(talk.is_clean(), GOOD_DAY);
}

#[test]
fn it_reads_the_same_from_any_slices() {
    for slice in [1, 2, 3, 5, 7, 11, 64] {
        let mut talk = Talk { slice, ..Talk::new() };
        good_day(&mut talk);
        assert_eq!(talk.is_clean(), GOOD_DAY, "{slice} bytes at a time");
    }
}

#[test]
fn an_ack_before_its_record() {
    let mut talk = Talk::connected(4);
    talk.deliver(1, &Message::new("a"));
    talk.daemon(JOB, &ack(1, 1, false));
    talk.violates("connection 1, channel 1: acks tag 1: attempt 1 of \"a\" has no record");
}

#[test]
fn an_ack_while_its_record_is_being_committed() {
    let mut talk = Talk::connected(4);
    talk.deliver(1, &Message::new("a"));
    talk.store.execute_batch("BEGIN IMMEDIATE").expect("a transaction can be begun");
    talk.record("a", 1, DONE);
    talk.daemon(JOB, &ack(1, 1, false));
    talk.store.execute_batch("COMMIT").expect("it can be committed");
    talk.violates("attempt 1 of \"a\" has no record");
}

/// Rows of `recent` are deleted once a generation has them, and ids of the usual spellings are packed.
#[test]
fn a_record_that_has_moved_on_is_one() {
    let id = "a3bb189e-8bf9-3888-9912-ace4e6543002";
    let packed = id.replace('-', "");
    let mut stored = vec![1];
    stored.extend((0..32).step_by(2).map(|at| u8::from_str_radix(&packed[at..at + 2], 16).expect("hexadecimal")));
    for outcome in [0, DONE] {
        let mut talk = Talk::connected(4);
        let add =
            "INSERT INTO records (generation, job, key, attempt, outcome, at, ran) VALUES (1, 7, ?1, 1, ?2, 0, 0)";
        talk.store.execute("INSERT INTO generations VALUES (1, 1, 5)", []).expect("a generation can be added");
        if outcome == DONE {
            talk.store.execute(add, (&stored, outcome)).expect("a record can be added");
        }
        talk.deliver(1, &Message::new(id));
        talk.daemon(JOB, &ack(1, 1, false));
        if outcome == DONE {
            talk.is_clean();
        } else {
            talk.violates("has no record");
        }
    }
}

#[test]
fn an_ack_with_the_record_of_another_attempt_or_key() {
    let mut talk = Talk::connected(4);
    talk.record("a", 1, FAILED);
    talk.record("b", 2, DONE);
    talk.deliver(1, &Message::copy("a", 2));
    talk.daemon(JOB, &ack(1, 1, false));
    talk.violates("attempt 2 of \"a\" has no record");
}

#[test]
fn an_ack_that_reaches_past_an_open_delivery() {
    let mut talk = Talk::connected(4);
    for (tag, id) in [(1, "a"), (2, "b"), (3, "c")] {
        talk.deliver(tag, &Message::new(id));
    }
    talk.record("a", 1, DONE);
    talk.record("c", 1, DONE);
    talk.daemon(JOB, &ack(1, 3, true));
    talk.violates("acks all up to tag 3, with it 2, which is open: attempt 1 of \"b\" has no record");
}

#[test]
fn a_tag_that_is_settled_twice_or_was_never_there() {
    let settle: [fn() -> Vec<u8>; 3] = [|| ack(1, 1, false), || ack(1, 1, true), || nack(1, 1, 2)];
    for (first, second) in settle.iter().flat_map(|first| settle.iter().map(move |second| (first, second))) {
        let mut talk = Talk::connected(4);
        talk.deliver(1, &Message::new("a"));
        talk.record("a", 1, DONE);
        talk.daemon(JOB, &first());
        talk.is_clean();
        talk.daemon(JOB, &second());
        talk.violates("it was settled before on this channel");
    }
    let mut talk = Talk::connected(4);
    talk.daemon(JOB, &ack(1, 1, false));
    talk.violates("acks tag 1: it was never delivered on this channel");
}

/// A tag of a channel that is gone must never reach its successor.
#[test]
fn a_tag_of_another_session() {
    let mut talk = Talk::connected(4);
    talk.deliver(1, &Message::new("a"));
    talk.record("a", 1, DONE);
    talk.daemon(JOB, &close(1, 200, 0, 0));
    talk.broker(JOB, &close_ok(1));
    talk.daemon(JOB, &method(1, 20, 10, &[&short("")]));
    talk.daemon(JOB, &ack(1, 1, false));
    talk.violates("acks tag 1: it was never delivered on this channel");
}

/// A failed attempt whose copy is on its way, and what the broker says of it before the ack.
fn check_copy(broker: &[Vec<u8>], clean: bool) {
    let mut talk = Talk::connected(4);
    talk.deliver(1, &Message::new("a"));
    talk.record("a", 1, FAILED);
    talk.publish(&Message::copy("a", 2));
    for bytes in broker {
        talk.broker(PUBLISHER, bytes);
    }
    talk.is_clean();
    talk.daemon(JOB, &ack(1, 1, false));
    if clean {
        talk.is_clean();
    } else {
        talk.violates("acks tag 1: attempt 1 of \"a\" failed, and the broker has not confirmed its copy");
    }
}

#[test]
fn an_ack_of_a_failed_attempt_before_the_confirm_of_its_copy() {
    check_copy(&[ack(1, 1, false)], true);
    check_copy(&[], false);
    let half = ack(1, 1, false)[..10].to_vec();
    check_copy(&[half], false);
    check_copy(&[nack(1, 1, 0)], false);
    check_copy(&[Message::copy("a", 2).returned(), ack(1, 1, false)], false);
    check_copy(&[Message::copy("b", 2).returned(), ack(1, 1, false)], true);
}

#[test]
fn a_mark_in_the_store_is_no_confirm() {
    let mut talk = Talk::connected(4);
    talk.deliver(1, &Message::new("a"));
    talk.record("a", 1, FAILED);
    talk.record("a", 1, 2);
    talk.daemon(JOB, &ack(1, 1, false));
    talk.violates("the broker has not confirmed its copy");
}

#[test]
fn the_copy_of_another_message_or_attempt() {
    for copy in [Message::copy("b", 2), Message::copy("a", 3), Message::new("a")] {
        let mut talk = Talk::connected(4);
        talk.deliver(1, &Message::new("a"));
        talk.record("a", 1, FAILED);
        talk.record("a", 2, FAILED);
        talk.record("b", 1, FAILED);
        talk.publish(&copy);
        talk.broker(PUBLISHER, &ack(1, 1, false));
        talk.is_clean();
        talk.daemon(JOB, &ack(1, 1, false));
        talk.violates("the broker has not confirmed its copy");
    }
}

#[test]
fn a_copy_before_its_record() {
    let mut talk = Talk::connected(4);
    talk.deliver(1, &Message::new("a"));
    talk.publish(&Message::copy("a", 2));
    talk.violates("connection 2, channel 1: a copy of \"a\" is published, and its attempt 1 has no record");
}

/// Bytes of the daemon on the publisher's connection, and what is wrong with them.
#[test]
fn what_must_not_be_published() {
    let copy = Message::copy("a", 2);
    let lightly = Message { delivery_mode: 1, ..copy.clone() };
    let cases = [
        (copy.published("", "work.dead", 0), "with routing key \"work.dead\" and is not mandatory"),
        (copy.published("x", "amq.rabbitmq.reply-to.x", 0), "and is not mandatory"),
        (copy.published("", "work.dead", 3), "as immediate"),
        (lightly.published("", "work.dead", 1), "is not persistent"),
    ];
    for (bytes, expected) in cases {
        let mut talk = Talk::connected(4);
        talk.record("a", 1, FAILED);
        talk.daemon(PUBLISHER, &bytes);
        talk.violates(expected);
    }
    let mut talk = Talk::connected(4);
    talk.daemon(JOB, &Message::new("a").published("", "work", 1));
    talk.violates(
        "connection 1, channel 1: a message is published to exchange \"\" with routing key \"work\" on a channel",
    );
}

#[test]
fn a_confirm_of_what_was_not_sent() {
    let mut talk = Talk::connected(4);
    talk.broker(PUBLISHER, &ack(1, 1, false));
    talk.violates("the broker confirms publish 1, and 0 were sent");
}

#[test]
fn more_deliveries_than_the_prefetch() {
    let mut talk = Talk::connected(2);
    for (tag, id) in [(1, "a"), (2, "b")] {
        talk.deliver(tag, &Message::new(id));
    }
    talk.record("a", 1, DONE);
    talk.daemon(JOB, &ack(1, 1, false));
    talk.deliver(3, &Message::new("c"));
    talk.is_clean();
    talk.deliver(4, &Message::new("d"));
    talk.violates("3 deliveries of work are unacknowledged, and the prefetch is 2");
}

#[test]
fn what_must_not_be_consumed() {
    let cases: [(&[Vec<u8>], &str); 4] = [
        (&[consume(0)], "work is consumed without a prefetch"),
        (&[qos(0, false), consume(0)], "work is consumed without a prefetch"),
        (&[qos(5, false), consume(2)], "work is consumed without acknowledgements"),
        (&[qos(5, true)], "a prefetch for the whole channel"),
    ];
    for (frames, expected) in cases {
        let mut talk = Talk::new();
        talk.connect();
        for bytes in frames {
            talk.daemon(JOB, bytes);
        }
        talk.violates(expected);
    }
}

/// On a channel with one open delivery.
#[test]
fn what_is_never_sent() {
    let cases = [
        (nack(1, 1, 0), "hands tag 1 back without requeueing it"),
        (method(1, 60, 90, &[&1u64.to_be_bytes(), &[1]]), "Reject is sent"),
        (method(1, 60, 70, &[&[0, 0], &short("work"), &[0]]), "Get is sent"),
        (method(1, 60, 110, &[&[1]]), "Recover is sent"),
        (close(1, 541, 0, 0), "the daemon closes a channel: 541"),
        (close(0, 505, 0, 0), "the daemon closes the connection: 505"),
        (frame(3, 1, b"body"), "the daemon sends a frame of kind Body where None was begun"),
        (frame(9, 0, b""), "the daemon sends a frame of type 9"),
        (frame(1, 1, &[0, 60, 0, 80, 1]), "the daemon sends a method that ends too soon"),
        (frame(3, 1, &[0; 5000]), "where None was begun"),
    ];
    for (bytes, expected) in cases {
        let mut talk = Talk::connected(4);
        talk.deliver(1, &Message::new("a"));
        talk.daemon(JOB, &bytes);
        talk.violates(expected);
    }
    let mut talk = Talk::connected(4);
    let mut broken = frame(8, 0, &[]);
    broken[7] = 0;
    talk.daemon(JOB, &broken);
    talk.violates("a frame that ends with 0x00");
    let mut talk = Talk::new();
    talk.tap.opened(talk.now, JOB);
    talk.daemon(JOB, b"GET / HTTP/1.1\r\n");
    let why = talk.tap.verdict().expect_err("it is no AMQP");
    assert!(why.contains("a connection begins with"), "{why}");
}

#[test]
fn a_frame_that_is_larger_than_agreed() {
    let fits = FRAME_MAX as usize - 8;
    for (size, clean) in [(fits, true), (fits + 1, false)] {
        let mut talk = Talk::connected(4);
        let message = Message { body: vec![0; size], ..Message::new("a") };
        let arguments: [&[u8]; 4] = [&[0, 0], &short(""), &short("work"), &[1]];
        talk.daemon(PUBLISHER, &method(1, 60, 40, &arguments));
        // Its frames but with the body in one piece.
        let header = Message { body: Vec::new(), ..message.clone() }.frames(1);
        let mut header = header;
        // The size of the body in the content header.
        header[11..19].copy_from_slice(&(size as u64).to_be_bytes());
        talk.daemon(PUBLISHER, &header);
        talk.daemon(PUBLISHER, &frame(3, 1, &message.body));
        if clean {
            talk.is_clean();
        } else {
            talk.violates("the daemon sends a frame of 4097 bytes, and 4096 were agreed");
        }
    }
}

#[test]
fn a_channel_error_of_our_making() {
    // Reply code, class and method at fault, whether the declaration before only looked.
    let cases = [
        ((404, 50, 10, true), None),
        ((404, 50, 10, false), Some("the broker closes the channel: 404")),
        ((404, 60, 40, true), Some("the broker closes the channel: 404")),
        ((406, 50, 10, true), Some("the broker closes the channel: 406")),
        ((406, 60, 80, true), Some("the broker closes the channel: 406")),
        ((320, 0, 0, true), Some("the broker closes the channel: 320")),
    ];
    for ((code, class, at, passive), expected) in cases {
        let mut talk = Talk::connected(4);
        talk.daemon(JOB, &declare(1, passive));
        talk.broker(JOB, &close(1, code, class, at));
        match expected {
            Some(expected) => talk.violates(expected),
            None => assert_eq!(talk.is_clean().absent, 1),
        }
    }
    let mut talk = Talk::connected(4);
    talk.tap.expect_close(406);
    talk.broker(JOB, &close(1, 406, 50, 10));
    talk.is_clean();
}

#[test]
fn a_connection_that_is_closed_for_our_fault() {
    for (code, clean) in [(320, true), (501, false), (505, false), (530, false)] {
        let mut talk = Talk::connected(4);
        talk.broker(JOB, &close(0, code, 0, 0));
        if clean {
            talk.is_clean();
        } else {
            talk.violates(&format!("connection 1, channel 0: the broker closes the connection: {code}"));
        }
    }
}

#[test]
fn anything_on_what_is_closed() {
    let cases: [(&[Vec<u8>], &str); 5] = [
        (&[close(1, 200, 0, 0), ack(1, 1, false)], "is sent on a channel that is being closed"),
        (&[close_ok(1), ack(1, 1, false)], "is sent on a channel that is not open"),
        (
            &[ack(2, 1, false)],
            "connection 1, channel 2: Ack { tag: 1, multiple: false } is sent on a channel that is not open",
        ),
        (&[close(0, 200, 0, 0), ack(1, 1, false)], "a frame on a connection that it has closed"),
        (&[close_ok(0), frame(8, 0, &[])], "a frame on a connection that it has closed"),
    ];
    for (frames, expected) in cases {
        let mut talk = Talk::connected(4);
        talk.deliver(1, &Message::new("a"));
        talk.record("a", 1, DONE);
        for bytes in frames {
            talk.daemon(JOB, bytes);
        }
        talk.violates(expected);
    }
}

#[test]
fn a_daemon_that_is_silent_for_two_heartbeats() {
    let mut talk = Talk::connected(4);
    talk.later(20);
    talk.is_clean();
    talk.later(1);
    talk.violates("connection 1, channel 0: the daemon was silent for 21s, and the heartbeat is 10s");

    let mut talk = Talk::connected(4);
    talk.tap.excuse_silence(true);
    talk.later(60);
    talk.tap.excuse_silence(false);
    talk.is_clean();

    // The loop that feeds the tap was away itself.
    let mut talk = Talk::connected(4);
    talk.now += Duration::from_secs(60);
    talk.tap.tick(talk.now);
    talk.is_clean();
}
