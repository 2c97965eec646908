//! What a failed attempt costs, and the copy that it demands.

use std::sync::Arc;
use std::time::Duration;

use crate::config;
use crate::task::{
    Copy, Demand, Destination, ErrorClass, FailedAttempt, Failure, HeaderValue, Headers, Message, Properties, Task,
    Ticket, UnixMillis, entry_size,
};

/// The headers that warrend sets on copies.
pub mod header {
    /// The attempt that this copy will be.
    pub const ATTEMPT: &str = "x-warrend-attempt";
    /// Attempts before the last replay.
    pub const BASE: &str = "x-warrend-base";
    /// Attempts since the base that ended in a crash.
    pub const CRASHES: &str = "x-warrend-crashes";
    /// When any worker first saw the message, Unix milliseconds.
    pub const FIRST_SEEN: &str = "x-warrend-first-seen";
    /// The work queue that the message failed in.
    pub const QUEUE: &str = "x-warrend-queue";
    /// The exchange of the original.
    pub const EXCHANGE: &str = "x-warrend-exchange";
    /// The routing key of the original.
    pub const ROUTING_KEY: &str = "x-warrend-routing-key";
    /// Marks a dead letter; in a work queue it marks a replay.
    pub const DEAD: &str = "x-warrend-dead";
    /// The job that failed.
    pub const JOB: &str = "x-warrend-job";
    /// What went wrong, for people.
    pub const ERROR: &str = "x-warrend-error";
    /// What went wrong, for programs.
    pub const ERROR_CLASS: &str = "x-warrend-error-class";
    /// When it failed for good, Unix milliseconds.
    pub const FAILED_AT: &str = "x-warrend-failed-at";
    /// The host that it failed on.
    pub const HOST: &str = "x-warrend-host";
    /// The `user_id` of the original: the broker refuses a message whose `user_id` is not its publisher's.
    pub const USER_ID: &str = "x-warrend-user-id";
    /// When the answer to a request is no longer waited for, Unix milliseconds. Retries bear it in place of `expiration`.
    pub const DEADLINE: &str = "x-warrend-deadline";
    /// How often the message was forwarded.
    pub const HOPS: &str = "x-warrend-hops";
    /// How many headers of the original were left out to fit the broker's frame.
    pub const DROPPED: &str = "x-warrend-headers-dropped";
    /// Says that properties or headers could not be decoded, and why. Set when such a message arrives; no copy bears it.
    pub const UNDECODABLE: &str = "x-warrend-undecodable";
    /// What stood in those properties and headers, as far as it can be printed. Stays on the dead letter.
    pub const UNDECODABLE_PARTS: &str = "x-warrend-undecodable-parts";
}

/// Only dead letters bear these.
const DEAD_ONLY: [&str; 6] =
    [header::DEAD, header::JOB, header::ERROR, header::ERROR_CLASS, header::FAILED_AT, header::HOST];

/// All copies bear these. With those above they are what [`copy`] sets, each of bounded size; whatever else bears our
/// prefix came with the message.
const ALWAYS: [&str; 7] = [
    header::ATTEMPT,
    header::BASE,
    header::CRASHES,
    header::FIRST_SEEN,
    header::QUEUE,
    header::EXCHANGE,
    header::ROUTING_KEY,
];

/// The broker's own traces of dead-lettering, and the routing headers `CC` and `BCC`. A copied `x-death` trips the
/// broker's cycle detection, which drops the message; a copied `CC` would send the copy to other queues as well.
const BROKER_HEADERS: [&str; 3] = ["x-death", "CC", "BCC"];
const BROKER_PREFIXES: [&str; 2] = ["x-first-death-", "x-last-death-"];

/// Bytes for the headers of a copy. A content header travels in one frame, and RabbitMQ's default `frame_max` is 128 KiB:
/// copies stay well below.
pub const HEADER_ROOM: usize = 120 * 1024;

/// What else a content header may hold: eleven texts of 255 bytes, numbers, flags, and the frame around all of it.
const BESIDE_HEADERS: usize = 3 * 1024;

/// The same where the broker takes frames of so many bytes, which it can be told to make smaller.
pub fn header_room(frame_max: usize) -> usize {
    HEADER_ROOM.min(frame_max.saturating_sub(BESIDE_HEADERS))
}

/// Longest error text on a copy and in the store, in bytes.
const ERROR_ROOM: usize = 1024;

/// What is the same for all copies of a job.
#[derive(Debug)]
pub struct CopyFacts {
    /// The job's name.
    pub job: Arc<str>,
    /// Its work queues, by index.
    pub queues: Vec<Arc<str>>,
    /// Its dead-letter queue.
    pub dead_letter: Arc<str>,
    /// This host's name.
    pub host: String,
    /// See [`header_room`]. A copy for which it is too small would be refused for ever.
    pub header_room: usize,
}

/// Judges a failed attempt: another one after a delay, or dead. `asked` is the delay that the handler asked for; `random`
/// is drawn evenly from 0 to 1.
pub fn judge_retry(
    policy: &config::Retry,
    task: &Task,
    failure: Failure,
    asked: Option<Duration>,
    random: f64,
    at: UnixMillis,
) -> FailedAttempt {
    let since_replay = task.attempt - task.base;
    let spent = if failure.class == ErrorClass::Crashed {
        task.crashes + 1 >= policy.max_crashes
    } else {
        since_replay - task.crashes >= policy.max_attempts
    };
    if spent {
        return judge_dead(failure, at);
    }
    let delay = asked.map_or_else(|| delay(policy, since_replay, random), |asked| whole_seconds(asked.min(policy.max)));
    if task.deadline.is_some_and(|deadline| deadline.0 <= at.0.saturating_add_unsigned(delay.as_secs() * 1000)) {
        let error = format!("nobody waits for the answer of another attempt; {}", failure.error);
        return judge_dead(Failure { class: ErrorClass::Expired, error }, at);
    }
    FailedAttempt { failure: shortened(failure), demand: Demand::Retry { delay }, at }
}

/// Rounded up, so that no attempt comes earlier than it was asked for, and at least one.
fn whole_seconds(delay: Duration) -> Duration {
    Duration::from_secs((delay.as_secs() + u64::from(delay.subsec_nanos() > 0)).max(1))
}

/// A failure that no further attempt can mend.
pub fn judge_dead(failure: Failure, at: UnixMillis) -> FailedAttempt {
    FailedAttempt { failure: shortened(failure), demand: Demand::Dead, at }
}

/// The delay after the `n`-th failed attempt since the last replay, in whole seconds, at least one.
pub fn delay(policy: &config::Retry, n: u32, random: f64) -> Duration {
    let grown = policy.initial.as_secs_f64() * policy.multiplier.powi(i32::try_from(n).unwrap_or(i32::MAX) - 1);
    let capped = grown.min(policy.max.as_secs_f64());
    let spread = 1.0 - policy.jitter + 2.0 * policy.jitter * random.clamp(0.0, 1.0);
    // `max` bounds what is waited, jitter included; a ladder step is a second.
    let seconds = (capped * spread).min(policy.max.as_secs_f64()).round().max(1.0);
    Duration::from_secs_f64(seconds)
}

/// Builds the copy that a failed attempt demands. The same record always gives the same copy.
pub fn copy(facts: &CopyFacts, ticket: Ticket, task: &Arc<Task>, failed: &FailedAttempt) -> Copy {
    let queue = &facts.queues[task.queue];
    let mut headers = carried(&task.message.properties.headers);
    let crashed = u32::from(failed.failure.class == ErrorClass::Crashed);
    let mut set = |name: &str, value: HeaderValue| headers.insert(name.to_owned(), value);
    set(header::ATTEMPT, HeaderValue::I64((task.attempt + 1).into()));
    set(header::BASE, HeaderValue::I64(task.base.into()));
    set(header::CRASHES, HeaderValue::I64((task.crashes + crashed).into()));
    set(header::FIRST_SEEN, HeaderValue::I64(task.first_seen.0));
    if let Some(user) = &task.message.properties.user_id {
        set(header::USER_ID, HeaderValue::Text(user.clone()));
    }
    let to = match failed.demand {
        Demand::Retry { delay } => {
            if let Some(deadline) = task.deadline {
                set(header::DEADLINE, HeaderValue::I64(deadline.0));
            }
            Destination::Delay { queue: Arc::clone(queue), delay }
        }
        Demand::Dead => {
            set(header::DEAD, HeaderValue::I64(1));
            set(header::JOB, HeaderValue::Text(facts.job.to_string()));
            set(header::ERROR, HeaderValue::Text(failed.failure.error.clone()));
            set(header::ERROR_CLASS, HeaderValue::Text(failed.failure.class.as_str().to_owned()));
            set(header::FAILED_AT, HeaderValue::I64(failed.at.0));
            set(header::HOST, HeaderValue::Text(facts.host.clone()));
            Destination::Queue(Arc::clone(&facts.dead_letter))
        }
    };
    set(header::QUEUE, HeaderValue::Text(queue.to_string()));
    // Those of the original also where this is a copy of a copy: see `arrive`.
    let Message { exchange, routing_key, .. } = &task.message;
    set(header::EXCHANGE, HeaderValue::Text(exchange.clone()));
    set(header::ROUTING_KEY, HeaderValue::Text(routing_key.clone()));
    fit(&mut headers, facts.header_room);
    Copy { ticket, to, properties: carried_properties(&task.message.properties, headers), task: Arc::clone(task) }
}

/// The headers of the original that a copy keeps.
fn carried(headers: &Headers) -> Headers {
    let left = [header::DEADLINE, header::UNDECODABLE];
    let kept = |name: &str| !DEAD_ONLY.contains(&name) && !left.contains(&name) && !is_of_broker(name);
    headers.iter().filter(|(name, _)| kept(name)).map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// Whether the broker wrote that header or goes by it: no copy may bear it.
pub(super) fn is_of_broker(name: &str) -> bool {
    BROKER_HEADERS.contains(&name) || BROKER_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// Whether a header is one that warrend or the broker adds to a message on its way.
pub fn is_of_copy(name: &str) -> bool {
    let sometimes = [header::USER_ID, header::DEADLINE, header::HOPS, header::DROPPED, header::UNDECODABLE_PARTS];
    ALWAYS.contains(&name) || DEAD_ONLY.contains(&name) || sometimes.contains(&name) || is_of_broker(name)
}

/// A dead letter as it is published again, to a work queue or to the dead-letter queue: as it is, but for what the broker
/// would refuse or act on. The marks of a dead letter stay, and in a work queue say that it is a replay.
pub fn again(mut properties: Properties) -> Properties {
    // One that was damaged when it was read is published as it was mended.
    properties.headers.retain(|name, _| !is_of_broker(name) && name != header::UNDECODABLE);
    if let Some(user) = properties.user_id.take() {
        properties.headers.insert(header::USER_ID.to_owned(), HeaderValue::Text(user));
    }
    properties
}

fn carried_properties(original: &Properties, headers: Headers) -> Properties {
    Properties {
        headers,
        // A copy is the only trace of its message: it must survive a restart of the broker.
        delivery_mode: Some(2),
        // It counted from the original's publishing; on the ladder it would cut the delay short.
        expiration: None,
        user_id: None,
        ..original.clone()
    }
}

/// Leaves out the largest foreign headers until the block fits a frame, and says how many.
pub(super) fn fit(headers: &mut Headers, room: usize) {
    let mut size: usize = headers.iter().map(|(name, value)| entry_size(name, value)).sum();
    let mut dropped = 0;
    while size > room {
        let is_ours = |name: &str| ALWAYS.contains(&name) || DEAD_ONLY.contains(&name) || name == header::DEADLINE;
        let foreign = headers.iter().filter(|(name, _)| !is_ours(name));
        let Some((name, largest)) =
            foreign.map(|(name, value)| (name.clone(), entry_size(name, value))).max_by_key(|(_, size)| *size)
        else {
            return;
        };
        headers.remove(&name);
        size -= largest;
        dropped += 1;
    }
    if dropped > 0 {
        headers.insert(header::DROPPED.to_owned(), HeaderValue::I64(dropped));
    }
}

fn shortened(mut failure: Failure) -> Failure {
    if failure.error.len() > ERROR_ROOM {
        failure.error.truncate(failure.error.floor_char_boundary(ERROR_ROOM));
    }
    failure
}

#[cfg(test)]
pub mod tests {
    use std::time::Instant;

    use super::*;
    use crate::config::*;
    use crate::task::HeaderValue as H;

    /// A job with the defaults and a `discard` handler, for the tests of this folder.
    pub fn job() -> Job {
        let queue = Queue {
            name: "q".into(),
            weight: 1,
            declare: Declare::Create,
            kind: QueueKind::Classic,
            max_priority: None,
            message_ttl: None,
            max_length: None,
            expires: None,
            arguments: std::collections::BTreeMap::new(),
            bindings: Vec::new(),
        };
        Job {
            name: "j".into(),
            enabled: true,
            concurrency: 4,
            prefetch: config::Prefetch::Fixed(8),
            reply: false,
            order: Order::Weighted,
            max_body: 16 << 20,
            in_doubt: InDoubt::Run,
            queues: vec![queue],
            handler: Handler::Discard,
            ack: Ack { batch: 64, interval: Duration::from_millis(20) },
            idempotency: Idempotency {
                key: KeySource::MessageId,
                on_missing: OnMissing::Run,
                retention: Duration::from_secs(14 * 86400),
            },
            retry: policy(),
            kill_switch: None,
            dead_letter: DeadLetter { queue: "j.dead".into(), kind: QueueKind::Classic, message_ttl: None },
        }
    }

    fn policy() -> Retry {
        Retry {
            max_attempts: 5,
            initial: Duration::from_secs(5),
            multiplier: 3.0,
            max: Duration::from_secs(3600),
            jitter: 0.2,
            max_crashes: 3,
        }
    }

    pub fn task(attempt: u32, base: u32, crashes: u32, message: Message) -> Arc<Task> {
        Arc::new(Task {
            key: None,
            attempt,
            base,
            crashes,
            queue: 0,
            priority: 0,
            first_seen: UnixMillis(1),
            received: Instant::now(),
            deadline: None,
            unfit: None,
            message,
        })
    }

    fn failed(class: ErrorClass) -> Failure {
        Failure { class, error: "no luck".to_owned() }
    }

    fn facts() -> CopyFacts {
        CopyFacts {
            job: "j".into(),
            queues: vec!["q".into()],
            dead_letter: "j.dead".into(),
            host: "h".to_owned(),
            header_room: HEADER_ROOM,
        }
    }

    #[test]
    fn delays_grow_and_stay_within_jitter_and_max() {
        let middle: Vec<_> = (1..=7).map(|n| delay(&policy(), n, 0.5).as_secs()).collect();
        assert_eq!(middle, [5, 15, 45, 135, 405, 1215, 3600]);
        assert_eq!((delay(&policy(), 1, 0.0).as_secs(), delay(&policy(), 1, 1.0).as_secs()), (4, 6));
        assert_eq!(delay(&policy(), 9, 1.0).as_secs(), 3600, "max holds with jitter");
        assert_eq!(delay(&policy(), u32::MAX, 0.5).as_secs(), 3600);
        let short = Retry { initial: Duration::from_secs(1), multiplier: 1.0, jitter: 1.0, ..policy() };
        assert_eq!(delay(&short, 1, 0.0).as_secs(), 1, "never less than one step of the ladder");
    }

    #[track_caller]
    fn check_budget(attempt: u32, base: u32, crashes: u32, class: ErrorClass, dead: bool) {
        let judged = judge_retry(
            &policy(),
            &task(attempt, base, crashes, Message::default()),
            failed(class),
            None,
            0.5,
            UnixMillis(0),
        );
        assert_eq!(judged.demand == Demand::Dead, dead, "attempt {attempt} base {base} crashes {crashes} {class:?}");
    }

    #[test]
    fn a_handler_may_ask_for_its_delay_within_the_longest() {
        let check = |asked_ms: u64, expect_s: u64| {
            let task = task(1, 0, 0, Message::default());
            let asked = Some(Duration::from_millis(asked_ms));
            let judged = judge_retry(&policy(), &task, failed(ErrorClass::Failed), asked, 0.5, UnixMillis(0));
            assert_eq!(judged.demand, Demand::Retry { delay: Duration::from_secs(expect_s) }, "{asked_ms} ms");
        };
        check(0, 1);
        check(1000, 1);
        check(1001, 2);
        check(10_000, 10);
        check(7_200_000, 3600);
    }

    #[test]
    fn a_request_is_not_tried_again_when_nobody_waits_for_its_answer() {
        let judge = |deadline: i64| {
            let mut task = task(1, 0, 0, Message::default());
            Arc::get_mut(&mut task).unwrap().deadline = Some(UnixMillis(deadline));
            let asked = Some(Duration::from_secs(2));
            let judged = judge_retry(&policy(), &task, failed(ErrorClass::Timeout), asked, 0.5, UnixMillis(1000));
            let copy = copy(&facts(), Ticket(0), &task, &judged);
            (judged.failure.class, copy.properties.headers.get(header::DEADLINE).cloned())
        };
        assert_eq!(judge(3000), (ErrorClass::Expired, None), "a dead letter that is replayed is no request any more");
        assert_eq!(judge(3001), (ErrorClass::Timeout, Some(H::I64(3001))));
    }

    #[test]
    fn budgets_of_attempts_and_crashes_are_apart() {
        check_budget(1, 0, 0, ErrorClass::Failed, false);
        check_budget(4, 0, 0, ErrorClass::Failed, false);
        check_budget(5, 0, 0, ErrorClass::Failed, true);
        check_budget(5, 0, 0, ErrorClass::Timeout, true);
        check_budget(6, 0, 2, ErrorClass::Failed, false);
        check_budget(7, 0, 2, ErrorClass::Failed, true);
        check_budget(6, 0, 1, ErrorClass::Crashed, false);
        check_budget(3, 0, 2, ErrorClass::Crashed, true);
        check_budget(9, 5, 0, ErrorClass::Failed, false);
        check_budget(10, 5, 0, ErrorClass::Failed, true);
    }

    #[test]
    fn a_retry_copy_keeps_the_message_and_drops_what_would_misroute_it() {
        let mut message =
            Message { exchange: "media".to_owned(), routing_key: "image.x".to_owned(), ..Message::default() };
        message.properties.expiration = Some("10".to_owned());
        message.properties.user_id = Some("app".to_owned());
        message.properties.correlation_id = Some("c".to_owned());
        message.properties.delivery_mode = Some(1);
        let original = ["mine", "CC", "BCC", "x-death", "x-first-death-queue", header::DEAD, header::ERROR];
        message.properties.headers = original.map(|name| (name.to_owned(), H::Void)).into();
        let task = task(2, 1, 0, message);
        let failed = judge_retry(&policy(), &task, failed(ErrorClass::Crashed), None, 0.5, UnixMillis(9));
        let copy = copy(&facts(), Ticket(3), &task, &failed);

        assert_eq!(copy.to, Destination::Delay { queue: "q".into(), delay: Duration::from_secs(5) });
        assert_eq!(copy.properties.expiration, None);
        assert_eq!(copy.properties.user_id, None);
        assert_eq!(copy.properties.correlation_id.as_deref(), Some("c"));
        assert_eq!(copy.properties.delivery_mode, Some(2));
        let expect = Headers::from([
            ("mine".to_owned(), H::Void),
            (header::ATTEMPT.to_owned(), H::I64(3)),
            (header::BASE.to_owned(), H::I64(1)),
            (header::CRASHES.to_owned(), H::I64(1)),
            (header::FIRST_SEEN.to_owned(), H::I64(1)),
            (header::QUEUE.to_owned(), H::Text("q".to_owned())),
            (header::EXCHANGE.to_owned(), H::Text("media".to_owned())),
            (header::ROUTING_KEY.to_owned(), H::Text("image.x".to_owned())),
            (header::USER_ID.to_owned(), H::Text("app".to_owned())),
        ]);
        assert_eq!(copy.properties.headers, expect);
    }

    #[test]
    fn a_dead_letter_says_what_happened_whatever_the_message_said() {
        let mut message = Message { exchange: "media".to_owned(), ..Message::default() };
        let forged = [header::EXCHANGE, header::ERROR, header::ATTEMPT, header::UNDECODABLE, header::UNDECODABLE_PARTS];
        message.properties.headers = forged.map(|name| (name.to_owned(), H::Void)).into();
        let task = task(2, 0, 0, message);
        let copy = copy(&facts(), Ticket(0), &task, &judge_dead(failed(ErrorClass::Rejected), UnixMillis(9)));
        assert_eq!(copy.to, Destination::Queue("j.dead".into()));
        let headers = &copy.properties.headers;
        assert_eq!(headers[header::EXCHANGE], H::Text("media".to_owned()));
        assert_eq!(headers[header::DEAD], H::I64(1));
        assert_eq!(headers[header::ERROR_CLASS], H::Text("rejected".to_owned()));
        assert_eq!(headers[header::FAILED_AT], H::I64(9));
        assert_eq!(headers[header::HOST], H::Text("h".to_owned()));
        assert_eq!(headers[header::JOB], H::Text("j".to_owned()));
        // What could not be decoded stays to be read; the mark would have the replay of the letter end here again.
        assert!(headers.contains_key(header::UNDECODABLE_PARTS) && !headers.contains_key(header::UNDECODABLE));
        assert!(
            !again(Properties { headers: headers.clone(), ..Properties::default() })
                .headers
                .contains_key(header::UNDECODABLE)
        );
    }

    #[test]
    fn a_broker_with_small_frames_gets_copies_that_fit() {
        for frame_max in [8192, 16_384, 65_536, 131_072, 1 << 30] {
            let mut message = Message::default();
            let headers = &mut message.properties.headers;
            for n in 0..120 {
                headers.insert(format!("header-{n}"), H::Text("x".repeat(1000)));
            }
            let facts = CopyFacts { header_room: header_room(frame_max), ..facts() };
            let failure = Failure { class: ErrorClass::Failed, error: "x".repeat(4000) };
            let copy = copy(&facts, Ticket(0), &task(1, 0, 0, message), &judge_dead(failure, UnixMillis(0)));
            let headers = &copy.properties.headers;
            let size: usize = headers.iter().map(|(name, value)| entry_size(name, value)).sum();
            assert!(size + 2048 < frame_max && size < 128 << 10, "{size} of {frame_max}");
            let kept = headers.keys().filter(|name| name.starts_with("header-")).count();
            assert!(kept >= (frame_max / 1024 - 6).min(110), "{kept} of {frame_max}");
            assert_eq!(headers[header::DROPPED], H::I64(120 - kept as i64));
        }
    }

    #[test]
    fn headers_and_errors_too_large_for_a_frame_are_cut() {
        let mut message = Message::default();
        let headers = &mut message.properties.headers;
        headers.insert("huge".to_owned(), H::Bytes(vec![0; 110 * 1024]));
        headers.insert("large".to_owned(), H::Text("x".repeat(12 * 1024)));
        headers.insert("small".to_owned(), H::Bool(true));
        headers.insert("x-warrend-like".to_owned(), H::Bytes(vec![0; 111 * 1024]));
        let task = task(1, 0, 0, message);
        let failure = Failure { class: ErrorClass::Failed, error: "é".repeat(4000) };
        let copy = copy(&facts(), Ticket(0), &task, &judge_dead(failure, UnixMillis(0)));
        let headers = &copy.properties.headers;
        assert!(
            !headers.contains_key("huge")
                && !headers.contains_key("x-warrend-like")
                && headers.contains_key("large")
                && headers.contains_key("small")
        );
        assert_eq!(headers[header::DROPPED], H::I64(2));
        assert_eq!(headers[header::ERROR].as_text().map(str::len), Some(ERROR_ROOM));
    }
}
