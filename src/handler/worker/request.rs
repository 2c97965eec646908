//! Writing a request: `{"id":7,"tasks":[{...},{...}]}` and a newline.
//!
//! | Field of a task | Holds |
//! | --- | --- |
//! | `key` | the idempotency key; null where there is none |
//! | `attempt`, `max_attempts` | this attempt, counted from 1; `retry.max_attempts` |
//! | `queue`, `exchange`, `routing_key` | where it came from, and how it was published |
//! | `priority`, `redelivered` | 0 where the message has no priority |
//! | `headers` | the header table, in the same form as on a command's descriptor 3 |
//! | `body` or `body_base64` | text where the body is UTF-8, else base64 |
//! | `message_id`, `content_type`, `content_encoding`, `correlation_id`, `reply_to`, `expiration`, `timestamp`, `type`, `user_id`, `app_id` | the properties that the message has |
//!
//! The tasks are written straight into one buffer that is used again, and only while little of it waits for the pipe: one
//! `write` for a request of usual size, and never all the bodies of a batch twice in memory.

use std::fmt::Display;
use std::os::fd::OwnedFd;

use base64::display::Base64Display;
use base64::engine::general_purpose::STANDARD;
use rustix::io::{Errno, ioctl_fionread, write};
use serde::{Serialize, Serializer};

use crate::handler::command::metadata::Table;
use crate::handler::{Context, Input};

/// Tasks are added to the buffer while it holds less, in bytes. As much as a pipe takes, by default.
const ENOUGH: usize = 64 * 1024;
/// What the pipe is enlarged to when a request does not fit. Not from the start: all pipes of a user share 64 MiB.
const PIPE_SIZE: usize = 256 * 1024;
/// A larger buffer is not kept for the next request, in bytes.
pub const KEPT: usize = 1024 * 1024;

/// A request on its way into a process.
#[derive(Debug)]
pub struct Request<'a> {
    context: &'a Context,
    /// Those that are not in the buffer yet.
    tasks: std::slice::Iter<'a, Input<'a>>,
    first: bool,
    /// Whether the end of the line is in the buffer.
    closed: bool,
    buffer: &'a mut Vec<u8>,
    /// Bytes of the buffer that are written.
    written: usize,
    /// Bytes written in all.
    total: u64,
    /// Whether it stopped because nobody reads any more.
    refused: bool,
}

/// How far a request came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pushed {
    /// All of it is in the pipe.
    All,
    /// The pipe is full.
    Full,
    /// Nobody reads any more.
    Refused,
}

impl<'a> Request<'a> {
    /// A request for these tasks. What the buffer held is forgotten.
    pub fn new(id: u64, tasks: &'a [Input<'a>], context: &'a Context, buffer: &'a mut Vec<u8>) -> Self {
        buffer.clear();
        buffer.extend_from_slice(format!("{{\"id\":{id},\"tasks\":[").as_bytes());
        let tasks = tasks.iter();
        Self { context, tasks, first: true, closed: false, buffer, written: 0, total: 0, refused: false }
    }

    /// Whether some of it is to be written.
    pub fn is_open(&self) -> bool {
        !self.refused && (!self.closed || self.written < self.buffer.len())
    }

    /// Writes what the pipe takes.
    pub fn push(&mut self, pipe: &OwnedFd) -> Pushed {
        let mut short = false;
        loop {
            self.refill();
            if !self.is_open() {
                return Pushed::All;
            }
            let rest = &self.buffer[self.written..];
            match write(pipe, rest) {
                Ok(written) => {
                    self.written += written;
                    self.total += written as u64;
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) if !short => {
                    short = true;
                    // May be refused; then it takes more turns.
                    let _ = rustix::pipe::fcntl_setpipe_size(pipe, PIPE_SIZE);
                }
                Err(Errno::AGAIN) => return Pushed::Full,
                Err(_) => {
                    self.refused = true;
                    return Pushed::Refused;
                }
            }
        }
    }

    /// Whether the process has read nothing of it, so that no task of it has begun.
    pub fn is_unread(&self, pipe: &OwnedFd) -> bool {
        ioctl_fionread(pipe).is_ok_and(|unread| unread >= self.total)
    }

    /// Adds tasks while the buffer holds little.
    fn refill(&mut self) {
        if self.closed || self.buffer.len() - self.written >= ENOUGH {
            return;
        }
        self.buffer.drain(..self.written);
        self.written = 0;
        while self.buffer.len() < ENOUGH {
            let Some(input) = self.tasks.next() else {
                self.buffer.extend_from_slice(b"]}\n");
                self.closed = true;
                return;
            };
            if !std::mem::take(&mut self.first) {
                self.buffer.push(b',');
            }
            serde_json::to_writer(&mut *self.buffer, &WireTask::new(self.context, input))
                .expect("text, numbers and text-keyed maps always have a JSON form, and a Vec takes all of it");
        }
    }
}

/// A task as the process gets it. Fields that most messages lack are absent then, to keep the line short.
#[derive(Serialize)]
struct WireTask<'a> {
    key: Option<String>,
    attempt: u32,
    max_attempts: u32,
    queue: &'a str,
    exchange: &'a str,
    routing_key: &'a str,
    priority: u8,
    redelivered: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    message_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content_type: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content_encoding: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    correlation_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reply_to: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expiration: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timestamp: Option<u64>,
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    kind: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    app_id: Option<&'a str>,
    headers: Table<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    body_base64: Option<Base64<'a>>,
}

impl<'a> WireTask<'a> {
    fn new(context: &'a Context, input: &'a Input<'a>) -> Self {
        let task = input.task;
        let message = &task.message;
        let properties = &message.properties;
        let body = std::str::from_utf8(&input.body).ok();
        Self {
            key: task.key.as_ref().map(|key| key.to_text()),
            attempt: task.attempt,
            max_attempts: context.max_attempts,
            queue: &context.queues[task.queue],
            exchange: &message.exchange,
            routing_key: &message.routing_key,
            priority: task.priority,
            redelivered: message.redelivered,
            message_id: properties.message_id.as_deref(),
            content_type: properties.content_type.as_deref(),
            content_encoding: input.content_encoding(),
            correlation_id: properties.correlation_id.as_deref(),
            reply_to: properties.reply_to.as_deref(),
            expiration: properties.expiration.as_deref(),
            timestamp: properties.timestamp,
            kind: properties.kind.as_deref(),
            user_id: properties.user_id.as_deref(),
            app_id: properties.app_id.as_deref(),
            headers: Table(&properties.headers),
            body,
            body_base64: body.is_none().then_some(Base64(&input.body)),
        }
    }
}

/// Bytes as base64, written without a copy.
struct Base64<'a>(&'a [u8]);

impl Serialize for Base64<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let text: &dyn Display = &Base64Display::new(self.0, &STANDARD);
        serializer.collect_str(text)
    }
}
