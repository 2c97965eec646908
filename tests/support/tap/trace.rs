//! The last frames of all connections, to be shown with a violation.

use std::collections::VecDeque;
use std::fmt;
use std::time::{Duration, Instant};

use super::content::Content;
use super::method::Method;

/// Frames that are remembered.
const LAST: usize = 60;

/// Who sent a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Daemon,
    Broker,
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Trace {
    began: Instant,
    last: VecDeque<Entry>,
}

#[derive(Debug)]
struct Entry {
    at: Duration,
    link: u64,
    side: Side,
    channel: u16,
    what: What,
}

/// What a frame completed. It is put into words only where somebody reads them.
#[derive(Debug, Clone)]
pub enum What {
    Method(Method),
    Message(Method, Content),
    Heartbeat,
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Method(method) => method.fmt(f),
            Self::Message(method, content) => write!(f, "{method} {content:?}"),
            Self::Heartbeat => f.write_str("a heartbeat"),
        }
    }
}

impl Trace {
    pub fn new(now: Instant) -> Self {
        Self { began: now, last: VecDeque::new() }
    }

    pub fn note(&mut self, now: Instant, link: u64, side: Side, channel: u16, what: What) {
        if self.last.len() == LAST {
            self.last.pop_front();
        }
        let at = now.saturating_duration_since(self.began);
        self.last.push_back(Entry { at, link, side, channel, what });
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Entry { at, link, side, channel, what } in &self.last {
            let from = match side {
                Side::Daemon => "daemon",
                Side::Broker => "broker",
            };
            writeln!(f, "{:>9.3}s connection {link}, channel {channel}, {from}: {what}", at.as_secs_f64())?;
        }
        Ok(())
    }
}
