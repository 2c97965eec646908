//! What can be done with the dead letters of a job: look at them, replay, export, import and purge them.
//!
//! All of it works on the broker alone; the daemon may run or not. A dead-letter queue is read without taking anything
//! from it ([`with_hold`](crate::broker::with_hold)): what is not meant stays in its place, whatever becomes of us. A
//! letter leaves its queue only after the broker has confirmed its copy ([`replay()`]) or its file is on the disk
//! ([`purge()`]), and never more of them than lay there at the beginning.
//!
//! What is absent: the terminal, which `cli` has, and the store. The daemon itself knows a replay by its headers.

mod export;
mod filter;
mod fingerprint;
mod line;
mod replay;
mod survey;

use std::fmt;
use std::sync::Arc;

use crate::broker::BrokerError;
use crate::broker::oneshot::PublishError;
use crate::config::Job;
use crate::policy::arrive;
use crate::policy::retry::header;
use crate::task::{HeaderValue, Message, MessageKey, UnixMillis};

pub use export::{Import, export, import, purge};
pub use filter::Filter;
pub use fingerprint::Fingerprint;
pub use line::header_json;
pub use replay::{Replay, replay};
pub use survey::{Entry, Found, Glance, Group, Survey, find, glance, survey};

/// Why something with dead letters ended before its time.
#[derive(Debug)]
pub enum Trouble {
    /// Reading their queue failed.
    Broker(BrokerError),
    /// Publishing failed.
    Publish(PublishError),
    /// A file is not as it must be, or cannot be read or written. A sentence.
    File(String),
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Broker(error) => error.fmt(f),
            Self::Publish(error) => error.fmt(f),
            Self::File(sentence) => f.write_str(sentence),
        }
    }
}

impl From<BrokerError> for Trouble {
    fn from(error: BrokerError) -> Self {
        Self::Broker(error)
    }
}

impl From<PublishError> for Trouble {
    fn from(error: PublishError) -> Self {
        Self::Publish(error)
    }
}

/// The class of a dead letter; `-` where it bears none, as one that somebody else put there.
pub fn class(message: &Message) -> &str {
    text(message, header::ERROR_CLASS).unwrap_or("-")
}

/// What went wrong, for people; empty where it is not known.
pub fn error(message: &Message) -> &str {
    text(message, header::ERROR).unwrap_or_default()
}

/// When it failed for good.
pub fn failed_at(message: &Message) -> Option<UnixMillis> {
    message.properties.headers.get(header::FAILED_AT).and_then(HeaderValue::as_integer).map(UnixMillis)
}

/// How many attempts it had, over the whole life of the message.
pub fn attempts(message: &Message) -> Option<i64> {
    let next = message.properties.headers.get(header::ATTEMPT).and_then(HeaderValue::as_integer);
    next.map(|next| next.saturating_sub(1))
}

/// The key of a dead letter; `None` where the job keeps no keys or it bears none.
pub fn key(job: &Job, message: &Message) -> Option<MessageKey> {
    arrive::key_of(job, message)
}

/// The key of a dead letter, or its message id where the job keeps no keys.
pub fn id(job: &Job, message: &Message) -> Option<String> {
    let key = key(job, message).map(|key| key.to_text());
    key.or_else(|| message.properties.message_id.clone())
}

/// The queue that a replay brings it to: that it failed in, and the job's first where this is not known.
fn home(job: &Job, message: &Message) -> Arc<str> {
    match text(message, header::QUEUE) {
        Some(queue) if queue != &*job.dead_letter.queue => Arc::from(queue),
        Some(_) | None => Arc::clone(&job.queues[0].name),
    }
}

fn text<'m>(message: &'m Message, name: &str) -> Option<&'m str> {
    message.properties.headers.get(name)?.as_text()
}
