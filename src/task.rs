//! The nouns: what a message, a task, an attempt and an outcome are.
//!
//! Everything else in warrend moves these values around. They hold no behaviour beyond their own shape, no clock,
//! no IO, and no type of the broker library: the `broker` module converts at its edge.

mod headers;

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

pub use headers::{HeaderValue, Headers, entry_size, table_size};

/// The name of a job, as in `[jobs.NAME]`. Cheap to clone.
pub type JobName = Arc<str>;

/// Position of a queue in its job's `queues` list; also the position of its channel in the job's session.
pub type QueueIndex = usize;

/// Milliseconds since the Unix epoch: the form in which times are stored and sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct UnixMillis(pub i64);

impl UnixMillis {
    /// The wall clock. Only the outer layers call this; `policy` takes times as arguments.
    pub fn now() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }
}

/// The idempotency key of a message within its job, in its stored form.
///
/// The first byte says what the rest is, so that two different ids never share a key: 0 = the text itself,
/// 1 = a UUID in its canonical lower-case form packed into 16 bytes, 2 = 32 lower-case hex digits packed into
/// 16 bytes, 3 = the SHA-256 of the body. Short keys keep the store's tree shallow: the packed form costs about
/// a quarter less per record than text.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MessageKey(Arc<[u8]>);

impl MessageKey {
    /// Packs an id that came as text.
    pub fn from_text(text: &str) -> Self {
        let packed = match text.len() {
            36 => uuid::Uuid::try_parse(text).ok().filter(|id| {
                let mut canonical = [0; 36];
                *id.hyphenated().encode_lower(&mut canonical) == *text
            }),
            32 => uuid::Uuid::try_parse(text).ok().filter(|id| {
                let mut canonical = [0; 32];
                *id.simple().encode_lower(&mut canonical) == *text
            }),
            _ => None,
        };
        match packed {
            Some(id) => {
                let mut bytes = [0; 17];
                bytes[0] = if text.len() == 36 { 1 } else { 2 };
                bytes[1..].copy_from_slice(id.as_bytes());
                Self(Arc::from(&bytes[..]))
            }
            None => {
                let mut bytes = Vec::with_capacity(text.len() + 1);
                bytes.push(0);
                bytes.extend_from_slice(text.as_bytes());
                Self(Arc::from(bytes))
            }
        }
    }

    /// The key of a body by its SHA-256.
    pub fn from_digest(digest: [u8; 32]) -> Self {
        let mut bytes = [3; 33];
        bytes[1..].copy_from_slice(&digest);
        Self(Arc::from(&bytes[..]))
    }

    /// The stored form.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The stored form read back.
    pub fn from_bytes(bytes: &[u8]) -> Self {
        Self(Arc::from(bytes))
    }

    /// The key that a person means: the inverse of [`MessageKey::to_text`].
    pub fn from_display(text: &str) -> Self {
        let digest = text.strip_prefix("sha256:").filter(|hex| hex.len() == 64 && hex.is_ascii());
        let byte = |hex: &str, at: usize| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).ok();
        let digest = digest.and_then(|hex| {
            let bytes: Option<Vec<u8>> = (0..32).map(|at| byte(hex, at)).collect();
            <[u8; 32]>::try_from(bytes?).ok()
        });
        digest.map_or_else(|| Self::from_text(text), Self::from_digest)
    }

    /// What a person or a handler sees: the id as it came, or `sha256:` and 64 hex digits.
    pub fn to_text(&self) -> String {
        let rest = &self.0[1.min(self.0.len())..];
        match (self.0.first(), <[u8; 16]>::try_from(rest)) {
            (Some(1), Ok(id)) => uuid::Uuid::from_bytes(id).hyphenated().to_string(),
            (Some(2), Ok(id)) => uuid::Uuid::from_bytes(id).simple().to_string(),
            (Some(3), _) => rest.iter().fold("sha256:".to_owned(), |text, byte| format!("{text}{byte:02x}")),
            (_, _) => String::from_utf8_lossy(rest).into_owned(),
        }
    }
}

/// Names one delivery on one channel of one session.
///
/// The session number keeps a tag of a dead connection from ever reaching a new one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct DeliveryTag {
    /// Number of the session, growing with each connection of the job.
    pub session: u64,
    /// The queue, and with it the channel.
    pub queue: QueueIndex,
    /// What the broker counted, from 1 on each channel.
    pub tag: u64,
}

/// The properties of a message, as AMQP 0-9-1 has them (class `basic`). Absent is `None`, and in JSON it
/// is left out; the headers stand apart from the rest there.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Properties {
    /// MIME type of the body.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// Encoding of the body, such as `gzip`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_encoding: Option<String>,
    /// The header table; absent and empty are the same to us.
    #[serde(skip)]
    pub headers: Headers,
    /// 1 = transient, 2 = persistent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delivery_mode: Option<u8>,
    /// 0 to 255; higher is more urgent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority: Option<u8>,
    /// Ties a reply to its request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub correlation_id: Option<String>,
    /// Where an answer goes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reply_to: Option<String>,
    /// Time to live in milliseconds, as decimal text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expiration: Option<String>,
    /// The publisher's id of the message.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message_id: Option<String>,
    /// Seconds since the Unix epoch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<u64>,
    /// The publisher's type name.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// The publishing user; the broker checks it against the connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_id: Option<String>,
    /// The publishing application.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub app_id: Option<String>,
}

/// A message as it was delivered.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Message {
    /// The exchange that it was published to; empty for the default exchange.
    pub exchange: String,
    /// The routing key that it was published with.
    pub routing_key: String,
    /// Whether the broker delivered it before.
    pub redelivered: bool,
    /// Its properties and headers.
    pub properties: Properties,
    /// Its body.
    pub body: Vec<u8>,
}

/// One attempt at one message, as a worker sees it.
#[derive(Debug)]
pub struct Task {
    /// The idempotency key; `None` where the job keeps none or the message bears none.
    pub key: Option<MessageKey>,
    /// This attempt, counted from 1 over the whole life of the message.
    pub attempt: u32,
    /// Attempts before the last replay: the retry budget counts from here.
    pub base: u32,
    /// Attempts since `base` that ended in a crash.
    pub crashes: u32,
    /// The queue it came from.
    pub queue: QueueIndex,
    /// Its priority; 0 where the message has none.
    pub priority: u8,
    /// When the message was first seen by any worker, for `x-warrend-first-seen`.
    pub first_seen: UnixMillis,
    /// When it arrived here.
    pub received: Instant,
    /// For a request to a job that replies: when nobody waits for the answer any more.
    pub deadline: Option<UnixMillis>,
    /// Why it must be dead-lettered without a run.
    pub unfit: Option<Failure>,
    /// The message itself.
    pub message: Message,
}

/// Why an attempt failed: the value of `x-warrend-error-class`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ErrorClass {
    /// The handler failed, and the budget of attempts is used up.
    Failed,
    /// The handler said that the message must not be tried again.
    Rejected,
    /// The handler ran longer than its `timeout`.
    Timeout,
    /// The handler was ended by a signal.
    Crashed,
    /// The body is larger than `max_body`.
    Oversize,
    /// The message cannot be read as its job needs it.
    Undecodable,
    /// The message bears no key, and the job says that it must.
    NoKey,
    /// The daemon or the machine died while the attempt ran, and the job says that it must not run again.
    InDoubt,
    /// The message is a request, and nobody waits for its answer any more.
    Expired,
}

impl ErrorClass {
    /// All classes, for tests and tables.
    pub const ALL: [Self; 9] = [
        Self::Failed,
        Self::Rejected,
        Self::Timeout,
        Self::Crashed,
        Self::Oversize,
        Self::Undecodable,
        Self::NoKey,
        Self::InDoubt,
        Self::Expired,
    ];

    /// The wire and display form.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Rejected => "rejected",
            Self::Timeout => "timeout",
            Self::Crashed => "crashed",
            Self::Oversize => "oversize",
            Self::Undecodable => "undecodable",
            Self::NoKey => "no-key",
            Self::InDoubt => "in-doubt",
            Self::Expired => "expired",
        }
    }

    /// The class of that wire form.
    pub fn from_wire(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|class| class.as_str() == text)
    }
}

/// How a failed attempt failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The class; decides between the budgets of attempts and of crashes.
    pub class: ErrorClass,
    /// What to tell people: one line or a few, at most about a kibibyte, never a secret.
    pub error: String,
}

/// What became of one attempt. The failure of a task is a value, not an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Handled; never run again.
    Done,
    /// Failed; to be tried again while the budget lasts.
    Retry(Failure),
    /// Failed for good.
    Dead(Failure),
    /// The handler is broken, not the message: it costs no attempt, and the job pauses.
    Broken(String),
    /// The run was ended, or never begun, for a reason that is not the message's: it costs no attempt, and the message goes
    /// back. The reason begins with what was ended.
    Interrupted(&'static str),
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// By itself, with this exit code.
    Code(i32),
    /// By this signal.
    Signal(i32),
}

/// What a handler said of one task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// What became of it.
    pub outcome: Outcome,
    /// How its process ended, where one ended.
    pub exit: Option<Exit>,
    /// What to send to the message's `reply_to`, where the job replies.
    pub reply: Option<Reply>,
    /// With [`Outcome::Retry`]: how long to wait, where the handler said so; as it said, unbounded.
    pub delay: Option<Duration>,
}

impl From<Outcome> for Answer {
    fn from(outcome: Outcome) -> Self {
        Self { outcome, exit: None, reply: None, delay: None }
    }
}

/// The answer to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// Its body.
    pub body: Vec<u8>,
    /// MIME type of the body, where it is known.
    pub content_type: Option<String>,
}

/// What a failed attempt demands: the copy's destination, decided once and stored, so that a redelivery after a
/// crash publishes the same copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Demand {
    /// Another attempt after this delay.
    Retry {
        /// Whole seconds on the delay ladder.
        delay: Duration,
    },
    /// The dead-letter queue.
    Dead,
}

/// A failed attempt as it is stored: enough to build its copy again without running anything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailedAttempt {
    /// How it failed.
    pub failure: Failure,
    /// What it demands.
    pub demand: Demand,
    /// When it failed.
    pub at: UnixMillis,
}

/// What is committed about one finished attempt before anything is published or acknowledged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The in-flight entry that waits for the commit.
    pub ticket: Ticket,
    /// The key; a message without one leaves no row, but takes the same way.
    pub key: Option<MessageKey>,
    /// The attempt.
    pub attempt: u32,
    /// What is recorded of it.
    pub what: Recorded,
    /// When it ended.
    pub at: UnixMillis,
    /// How long it ran; zero where it did not.
    pub ran: Duration,
    /// How its process ended, where one ended.
    pub exit: Option<Exit>,
    /// When the message was first seen by any worker.
    pub first_seen: UnixMillis,
}

/// What the store knows, or is told, about one attempt of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Recorded {
    /// The key is done; no attempt of it runs again.
    Done,
    /// This attempt failed; its copy may not have been published.
    Failed(FailedAttempt),
    /// This attempt failed and the broker confirmed its copy.
    Forwarded,
}

/// Names one in-flight entry of one job for the life of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ticket(pub u64);

/// Proof that records are durable. Acknowledging asks for it, and only the store can make one.
///
/// A test reads the sources and keeps [`Committed::attest`] out of every module but the recorder (and the simulator's
/// store).
#[derive(Debug)]
pub struct Committed {
    tickets: Vec<Ticket>,
}

impl Committed {
    /// Called by the recorder once the commit of these tickets' records returned.
    pub fn attest(tickets: Vec<Ticket>) -> Self {
        Self { tickets }
    }

    /// The tickets whose records are durable.
    pub fn tickets(&self) -> &[Ticket] {
        &self.tickets
    }
}

/// Where a copy goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// The delay ladder, then the work queue of this name.
    Delay {
        /// The work queue that the copy returns to.
        queue: Arc<str>,
        /// Whole seconds, at least 1.
        delay: Duration,
    },
    /// A queue, through the default exchange.
    Queue(Arc<str>),
}

/// The message that a failed attempt puts on the ladder or into the dead-letter queue.
#[derive(Debug, Clone)]
pub struct Copy {
    /// The in-flight entry that waits for the confirm.
    pub ticket: Ticket,
    /// Where it goes.
    pub to: Destination,
    /// Its properties, with the headers of a copy.
    pub properties: Properties,
    /// The task whose body it carries.
    pub task: Arc<Task>,
}
