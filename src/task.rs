//! The nouns: what a message, a task, an attempt and an outcome are.
//!
//! Everything else in warrend moves these values around. They hold no behaviour beyond their own shape, no clock,
//! no IO, and no type of the broker library: the `broker` module converts at its edge.
//!
//! What a message is stands here, in `headers` and in `key`, how an attempt ended in `outcome`, and what is recorded and owed
//! for it in `record`.

#[cfg(test)]
pub mod any;
mod headers;
mod key;
mod outcome;
mod record;

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

pub use headers::{HeaderValue, Headers, entry_size, table_size};
pub use key::MessageKey;
pub use outcome::{Answer, ErrorClass, Exit, Failure, Outcome, Reply};
pub use record::{Committed, Copy, Demand, Destination, FailedAttempt, Record, Recorded, Ticket};

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

impl Task {
    /// How long the message has waited at least: here, or since its publisher's timestamp. A later attempt waited on the
    /// ladder, so of that the time here alone counts. A timestamp has whole seconds; the second that it may lack is not counted.
    pub fn waited(&self, now: Instant, at: UnixMillis) -> Duration {
        let here = now.saturating_duration_since(self.received);
        let published = self.message.properties.timestamp.filter(|_| self.attempt == 1);
        let published = published.and_then(|seconds| i64::try_from(seconds).ok()?.checked_add(1)?.checked_mul(1000));
        let since = published.and_then(|millis| u64::try_from(at.0.checked_sub(millis)?).ok());
        here.max(since.map_or(Duration::ZERO, Duration::from_millis))
    }
}
