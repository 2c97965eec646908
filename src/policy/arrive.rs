//! What a delivered message is to its job: its key, its attempt, its priority, or why it can never run.

use std::time::Instant;

use sha2::{Digest, Sha256};

use super::retry::header;
use crate::config::{Job, KeySource, OnMissing};
use crate::encoding;
use crate::task::{ErrorClass, Failure, HeaderValue, Message, MessageKey, Properties, QueueIndex, Task, UnixMillis};

/// An attempt number above this is no count of ours; it keeps all sums far from overflow.
const MAX_ATTEMPT: i64 = 1_000_000_000;

/// Reads a message as its job needs it.
pub fn read(job: &Job, queue: QueueIndex, mut message: Message, received: Instant, now: UnixMillis) -> Task {
    restore_origin(&mut message);
    let (lineage, strayed) = match Lineage::read(&message) {
        Ok(lineage) => (lineage, None),
        Err(error) => (Lineage::default(), Some(Failure { class: ErrorClass::Undecodable, error })),
    };
    let oversize = (message.body.len() as u64 > job.max_body).then(|| Failure {
        class: ErrorClass::Oversize,
        error: format!("the body has {} bytes, and max_body allows {}", message.body.len(), job.max_body),
    });
    let in_body = matches!(job.idempotency.key, KeySource::JsonPointer(_));
    // Nobody looks into a body that is too large.
    let (key, missing) = if in_body && oversize.is_some() { (None, None) } else { key(job, &message) };
    Task {
        // Where the attempt cannot be told, the key cannot be judged: nothing is recorded under it.
        key: key.filter(|_| strayed.is_none()),
        attempt: lineage.attempt,
        base: lineage.base,
        crashes: lineage.crashes,
        queue,
        priority: message.properties.priority.unwrap_or(0),
        first_seen: lineage.first_seen.unwrap_or(now),
        received,
        deadline: if job.reply { deadline(&message.properties, now) } else { None },
        unfit: damage(&message).or(strayed).or(oversize).or(missing),
        message,
    }
}

/// A timestamp later than this is no time of a publisher whose clock is a little ahead: some write milliseconds.
const TOO_LATE: i64 = 24 * 3600 * 1000;

/// When a message was published, as far as anybody said: its `timestamp`, which is in whole seconds and stays with its copies, or
/// else when it was first seen by a worker.
pub fn published(task: &Task, now: UnixMillis) -> UnixMillis {
    let said = task.message.properties.timestamp.filter(|seconds| *seconds > 0);
    let said = said.and_then(|seconds| i64::try_from(seconds).ok()?.checked_mul(1000));
    said.filter(|millis| *millis <= now.0.saturating_add(TOO_LATE)).map_or(task.first_seen, UnixMillis)
}

/// Longest account of what could not be decoded, in letters. A mark that somebody forged can hold anything.
const DAMAGE_ROOM: usize = 500;

/// Why parts of the message could not be decoded, where the guard on the wire had to leave some out. A replay is no exception:
/// what the guard says of this message it says of this arrival, since no copy bears its mark.
fn damage(message: &Message) -> Option<Failure> {
    let mark = message.properties.headers.get(header::UNDECODABLE)?;
    let words = mark.as_text().unwrap_or("the message says so itself");
    let words: String = words.chars().filter(|char| !char.is_control()).take(DAMAGE_ROOM).collect();
    Some(Failure { class: ErrorClass::Undecodable, error: format!("the message cannot be decoded: {words}") })
}

/// When nobody waits for the answer of a request any more: at the end of its `expiration`. That counts from the publishing,
/// which nobody knows here, so it is taken as the latest that it can be; a retry bears the deadline of the first attempt.
fn deadline(properties: &Properties, now: UnixMillis) -> Option<UnixMillis> {
    if let Some(deadline) = properties.headers.get(header::DEADLINE).and_then(integer) {
        return Some(UnixMillis(deadline));
    }
    let expiration: i64 = properties.expiration.as_ref()?.parse().ok()?;
    Some(UnixMillis(now.0.saturating_add(expiration)))
}

/// Gives a copy the exchange and the routing key of its original, which stand in its headers: it came through the delay
/// ladder, or out of the dead-letter queue, and a handler that goes by the routing key must not see theirs.
fn restore_origin(message: &mut Message) {
    let headers = &message.properties.headers;
    // Longer than AMQP allows is no name of the broker's.
    let name = |header: &str| {
        let name = headers.get(header)?.as_text()?;
        (name.len() <= 255).then(|| name.to_owned())
    };
    if let (Some(exchange), Some(routing_key)) = (name(header::EXCHANGE), name(header::ROUTING_KEY)) {
        (message.exchange, message.routing_key) = (exchange, routing_key);
    }
}

/// What the headers of a copy say about the attempts before.
#[derive(Debug, PartialEq)]
struct Lineage {
    attempt: u32,
    base: u32,
    crashes: u32,
    first_seen: Option<UnixMillis>,
}

impl Default for Lineage {
    fn default() -> Self {
        Self { attempt: 1, base: 0, crashes: 0, first_seen: None }
    }
}

impl Lineage {
    fn read(message: &Message) -> Result<Self, String> {
        let headers = &message.properties.headers;
        if headers.is_empty() {
            return Ok(Self::default());
        }
        let count = |name: &str, least: i64| match headers.get(name) {
            None => Ok(None),
            Some(value) => integer(value)
                .filter(|n| (least..=MAX_ATTEMPT).contains(n))
                .and_then(|n| u32::try_from(n).ok())
                .map(Some)
                .ok_or_else(|| format!("the header {name} is not a whole number from {least} to {MAX_ATTEMPT}")),
        };
        let attempt = count(header::ATTEMPT, 1)?.unwrap_or(1);
        let base = count(header::BASE, 0)?.unwrap_or(0);
        let crashes = count(header::CRASHES, 0)?.unwrap_or(0);
        let first_seen = headers.get(header::FIRST_SEEN).and_then(integer).map(UnixMillis);
        // Whoever moved a dead letter back replays it: its attempts go on, its budget starts anew.
        if headers.contains_key(header::DEAD) {
            return Ok(Self { attempt, base: attempt - 1, crashes: 0, first_seen });
        }
        if base >= attempt || crashes > attempt - 1 - base {
            return Err(format!("{} and {} do not fit {} = {attempt}", header::BASE, header::CRASHES, header::ATTEMPT));
        }
        Ok(Self { attempt, base, crashes, first_seen })
    }
}

/// A whole number; also as decimal text, which is what some tools make of it when they move a message.
fn integer(value: &HeaderValue) -> Option<i64> {
    value.as_integer().or_else(|| value.as_text()?.parse().ok())
}

/// The key by which a job knows a message; `None` where it keeps none, or the message bears none.
pub fn key_of(job: &Job, message: &Message) -> Option<MessageKey> {
    key(job, message).0
}

/// The key of a message, or why a message without one may not run.
///
/// A key within the body is read from the decoded body: it does not depend on how the publisher packs its messages. The
/// digest of a body is that of the body as it came.
fn key(job: &Job, message: &Message) -> (Option<MessageKey>, Option<Failure>) {
    let idempotency = &job.idempotency;
    let (found, what) = match &idempotency.key {
        KeySource::None => return (None, None),
        KeySource::Body => return (Some(body_key(&message.body)), None),
        KeySource::MessageId => (message.properties.message_id.clone(), "message id".to_owned()),
        KeySource::Header(name) => {
            (message.properties.headers.get(name).and_then(header_text), format!("header {name:?}"))
        }
        KeySource::JsonPointer(pointer) => {
            let content_encoding = message.properties.content_encoding.as_deref();
            match encoding::decode(content_encoding, &message.body, job.max_body) {
                Ok(body) => (json_text(&body, pointer), format!("text or number at {pointer:?} in its body")),
                Err(failure) => return (None, Some(failure)),
            }
        }
    };
    match found.filter(|text| !text.is_empty()) {
        Some(text) => (Some(MessageKey::from_text(&text)), None),
        // Its key may have been in what could not be decoded: another one would be wrong.
        None if damage(message).is_some() => (None, None),
        None => match idempotency.on_missing {
            OnMissing::Run => (None, None),
            OnMissing::Body => (Some(body_key(&message.body)), None),
            OnMissing::Dead => {
                (None, Some(Failure { class: ErrorClass::NoKey, error: format!("the message has no {what}") }))
            }
        },
    }
}

fn body_key(body: &[u8]) -> MessageKey {
    MessageKey::from_digest(Sha256::digest(body).into())
}

/// A header as text, where it is text or a whole number.
pub(super) fn header_text(value: &HeaderValue) -> Option<String> {
    match value.as_text() {
        Some(text) => Some(text.to_owned()),
        None => value.as_integer().map(|n| n.to_string()),
    }
}

fn json_text(body: &[u8], pointer: &str) -> Option<String> {
    let document: serde_json::Value = serde_json::from_slice(body).ok()?;
    let value = document.pointer(pointer)?;
    match value.as_str() {
        Some(text) => Some(text.to_owned()),
        None => value.is_number().then(|| value.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encoding::Encoding;
    use crate::policy::retry::tests::job;

    mod fuzz;

    fn message(headers: &[(&str, HeaderValue)]) -> Message {
        let mut message = Message::default();
        message.properties.message_id = Some("a".to_owned());
        message.properties.headers = headers.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        message
    }

    fn read_with(job: &Job, message: Message) -> (Task, Option<Failure>) {
        let mut task = read(job, 0, message, Instant::now(), UnixMillis(77));
        let unfit = task.unfit.take();
        (task, unfit)
    }

    #[track_caller]
    fn check_lineage(headers: &[(&str, HeaderValue)], expect: Result<(u32, u32, u32), &str>) {
        let (task, failure) = read_with(&job(), message(headers));
        match expect {
            Ok(counts) => {
                assert_eq!(failure, None);
                assert_eq!((task.attempt, task.base, task.crashes), counts);
                assert!(task.key.is_some());
            }
            Err(part) => {
                let failure = failure.expect("the header is damaged");
                assert_eq!(failure.class, ErrorClass::Undecodable);
                assert!(failure.error.contains(part), "{}", failure.error);
                assert_eq!(task.key, None, "nothing is recorded for an attempt that cannot be told");
            }
        }
    }

    #[test]
    fn a_message_is_as_old_as_somebody_said() {
        let now = UnixMillis(1_700_000_000_000);
        let check = |timestamp: Option<u64>, expect: i64| {
            let mut message = message(&[(header::FIRST_SEEN, HeaderValue::I64(1_699_999_000_123))]);
            message.properties.timestamp = timestamp;
            let (task, _) = read_with(&job(), message);
            assert_eq!(published(&task, now), UnixMillis(expect), "{timestamp:?}");
        };
        let seen = 1_699_999_000_123;
        check(None, seen);
        check(Some(1_699_000_000), 1_699_000_000_000);
        // A clock that is ahead, and one that counts milliseconds.
        check(Some(1_700_000_100), 1_700_000_100_000);
        check(Some(1_699_000_000_000), seen);
        check(Some(0), seen);
        check(Some(u64::MAX), seen);
    }

    #[test]
    fn attempts_come_from_the_headers() {
        let (i, text) = (HeaderValue::I64, |text: &str| HeaderValue::Text(text.to_owned()));
        check_lineage(&[], Ok((1, 0, 0)));
        check_lineage(&[("other", i(-5))], Ok((1, 0, 0)));
        check_lineage(&[(header::ATTEMPT, HeaderValue::U8(3))], Ok((3, 0, 0)));
        check_lineage(&[(header::ATTEMPT, text("3"))], Ok((3, 0, 0)));
        check_lineage(&[(header::ATTEMPT, i(5)), (header::BASE, i(3)), (header::CRASHES, i(1))], Ok((5, 3, 1)));
        check_lineage(&[(header::ATTEMPT, i(0))], Err(header::ATTEMPT));
        check_lineage(&[(header::ATTEMPT, i(-1))], Err(header::ATTEMPT));
        check_lineage(&[(header::ATTEMPT, i(i64::MAX))], Err(header::ATTEMPT));
        check_lineage(&[(header::ATTEMPT, text("soon"))], Err(header::ATTEMPT));
        check_lineage(&[(header::ATTEMPT, HeaderValue::Void)], Err(header::ATTEMPT));
        check_lineage(&[(header::ATTEMPT, i(2)), (header::BASE, i(2))], Err(header::BASE));
        check_lineage(&[(header::ATTEMPT, i(2)), (header::CRASHES, i(2))], Err(header::CRASHES));
    }

    #[test]
    fn what_could_not_be_decoded_is_dead_under_the_key_that_it_bears() {
        let mut job = job();
        job.idempotency.on_missing = OnMissing::Body;
        let mark = |value: HeaderValue| [(header::UNDECODABLE, value), (header::DEAD, HeaderValue::I64(1))];
        let check = |message: Message, key: Option<&str>, error: &str| {
            let (task, failure) = read_with(&job, message);
            assert_eq!(task.key.map(|key| key.to_text()).as_deref(), key);
            assert_eq!(failure, Some(Failure { class: ErrorClass::Undecodable, error: error.to_owned() }));
        };
        let told = HeaderValue::Text("the header \"h\" is not UTF-8".to_owned());
        let error = "the message cannot be decoded: the header \"h\" is not UTF-8";
        check(message(&mark(told.clone())), Some("a"), error);
        let mut without = message(&mark(told));
        without.properties.message_id = None;
        check(without, None, error);
        let forged = HeaderValue::Text(format!("a\n\u{1b}[31m{}", "x".repeat(100_000)));
        let error = format!("the message cannot be decoded: a[31m{}", "x".repeat(DAMAGE_ROOM - 5));
        check(message(&mark(forged)), Some("a"), &error);
        check(
            message(&mark(HeaderValue::Void)),
            Some("a"),
            "the message cannot be decoded: the message says so itself",
        );
    }

    #[test]
    fn a_dead_letter_in_a_work_queue_is_a_replay() {
        let i = HeaderValue::I64;
        let dead = [(header::ATTEMPT, i(6)), (header::BASE, i(1)), (header::CRASHES, i(2)), (header::DEAD, i(1))];
        check_lineage(&dead, Ok((6, 5, 0)));
    }

    #[test]
    fn a_copy_is_a_message_of_its_original_exchange() {
        let text = |text: &str| HeaderValue::Text(text.to_owned());
        let check = |headers: &[(&str, HeaderValue)], expect: (&str, &str)| {
            let copy = Message {
                exchange: "warrend.delay.deliver".to_owned(),
                routing_key: "0.1.q".to_owned(),
                ..message(headers)
            };
            let (task, _) = read_with(&job(), copy);
            let Message { exchange, routing_key, .. } = &task.message;
            assert_eq!((exchange.as_str(), routing_key.as_str()), expect);
        };
        let ladder = ("warrend.delay.deliver", "0.1.q");
        let (exchange, key) = (header::EXCHANGE, header::ROUTING_KEY);
        check(&[(exchange, text("media")), (key, text("image.x"))], ("media", "image.x"));
        check(&[(exchange, text("")), (key, text("q"))], ("", "q"));
        check(&[], ladder);
        check(&[(exchange, text("media"))], ladder);
        check(&[(exchange, HeaderValue::Void), (key, text("image.x"))], ladder);
        check(&[(exchange, text("media")), (key, text(&"x".repeat(256)))], ladder);
    }

    #[track_caller]
    fn check_key(source: KeySource, on_missing: OnMissing, message: Message, expect: Result<Option<&str>, ErrorClass>) {
        let mut job = job();
        job.idempotency.key = source;
        job.idempotency.on_missing = on_missing;
        let (task, failure) = read_with(&job, message);
        match expect {
            Ok(key) => {
                assert_eq!(failure, None);
                assert_eq!(task.key.map(|key| key.to_text()).as_deref(), key);
            }
            Err(class) => assert_eq!(failure.map(|failure| failure.class), Some(class)),
        }
    }

    #[test]
    fn keys_come_from_where_the_job_says() {
        let with_body = |body: &str| Message { body: body.as_bytes().to_vec(), ..message(&[]) };
        let pointer = || KeySource::JsonPointer("/order/id".to_owned());
        let order = || KeySource::Header("order".to_owned());
        let empty = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        check_key(KeySource::MessageId, OnMissing::Dead, message(&[]), Ok(Some("a")));
        check_key(KeySource::MessageId, OnMissing::Dead, Message::default(), Err(ErrorClass::NoKey));
        check_key(KeySource::MessageId, OnMissing::Run, Message::default(), Ok(None));
        check_key(KeySource::MessageId, OnMissing::Body, Message::default(), Ok(Some(empty)));
        check_key(KeySource::Body, OnMissing::Dead, Message::default(), Ok(Some(empty)));
        check_key(KeySource::None, OnMissing::Dead, message(&[]), Ok(None));
        check_key(order(), OnMissing::Run, message(&[("order", HeaderValue::I32(-7))]), Ok(Some("-7")));
        check_key(order(), OnMissing::Dead, message(&[("order", HeaderValue::Void)]), Err(ErrorClass::NoKey));
        check_key(pointer(), OnMissing::Dead, with_body(r#"{"order":{"id":"x"}}"#), Ok(Some("x")));
        check_key(pointer(), OnMissing::Dead, with_body(r#"{"order":{"id":12}}"#), Ok(Some("12")));
        check_key(pointer(), OnMissing::Dead, with_body(r#"{"order":{"id":{}}}"#), Err(ErrorClass::NoKey));
        check_key(pointer(), OnMissing::Dead, with_body("no json"), Err(ErrorClass::NoKey));
    }

    #[test]
    fn a_key_within_the_body_is_read_from_the_decoded_one() {
        let order = br#"{"order":{"id":"x"}}"#;
        let zipped = Encoding::Gzip.encode(order).unwrap();
        let encoded = |name: &str, body: &[u8]| {
            let mut message = Message { body: body.to_vec(), ..message(&[]) };
            message.properties.content_encoding = Some(name.to_owned());
            message
        };
        let pointer = || KeySource::JsonPointer("/order/id".to_owned());
        check_key(pointer(), OnMissing::Dead, encoded("gzip", &zipped), Ok(Some("x")));
        check_key(pointer(), OnMissing::Dead, encoded("utf-8", order), Ok(Some("x")));
        for on_missing in [OnMissing::Run, OnMissing::Body, OnMissing::Dead] {
            check_key(pointer(), on_missing, encoded("gzip", order), Err(ErrorClass::Undecodable));
        }
        // Whose key does not need the body, that body is only looked into by its handler.
        check_key(KeySource::MessageId, OnMissing::Dead, encoded("gzip", order), Ok(Some("a")));
        let digest = body_key(&zipped).to_text();
        check_key(KeySource::Body, OnMissing::Dead, encoded("gzip", &zipped), Ok(Some(&digest)));

        let mut job = job();
        job.idempotency.key = pointer();
        let zipped = Encoding::Gzip.encode(&[b'a'; 2000]).unwrap();
        job.max_body = zipped.len() as u64;
        assert_eq!(read_with(&job, encoded("gzip", &zipped)).1.unwrap().class, ErrorClass::Oversize);
    }

    #[test]
    fn a_request_expires_and_its_retries_with_it() {
        let mut job = job();
        let mut request = message(&[]);
        request.properties.expiration = Some("1000".to_owned());
        assert_eq!(read_with(&job, request.clone()).0.deadline, None, "to a job that does not reply it is no request");
        job.reply = true;
        assert_eq!(read_with(&job, request.clone()).0.deadline, Some(UnixMillis(1077)));
        let retry = message(&[(header::DEADLINE, HeaderValue::I64(900))]);
        assert_eq!(read_with(&job, retry).0.deadline, Some(UnixMillis(900)));
        request.properties.expiration = Some("soon".to_owned());
        assert_eq!(read_with(&job, request).0.deadline, None);
    }

    #[test]
    fn a_body_over_the_limit_never_runs() {
        let mut job = job();
        job.max_body = 10;
        let with_body = |len| Message { body: vec![0; len], ..message(&[]) };
        assert_eq!(read_with(&job, with_body(10)).1, None);
        assert_eq!(read_with(&job, with_body(11)).1.unwrap().class, ErrorClass::Oversize);
    }
}
