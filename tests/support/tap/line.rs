//! One connection: its frames, its channels, its heartbeats.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::book::Book;
use super::channel::Channel;
use super::content::Content;
use super::method::Method;
use super::trace::{Side, Trace, What};
use super::wire::{Frame, Frames, Kind};

/// Beyond two heartbeats: what a busy machine may take to run a thread.
const GRACE: Duration = Duration::from_millis(500);

/// See the module's documentation.
#[derive(Debug)]
pub struct Line {
    number: u64,
    daemon: Half,
    broker: Half,
    channels: BTreeMap<u16, Channel>,
    /// As agreed; zero before that, and where there are none.
    heartbeat: Duration,
    frame_max: usize,
    /// When the daemon sent anything for the last time.
    heard: Instant,
    state: State,
    role: Role,
}

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// It has not come so far.
    Unknown,
    /// It declares and consumes.
    Job,
    /// It publishes.
    Publisher,
}

#[derive(Debug, PartialEq, Eq, Clone, Copy)]
enum State {
    Open,
    /// The daemon has asked to close it.
    Closing,
    /// The daemon has agreed to close it: it may send nothing more.
    Closed,
}

/// What comes from one side.
#[derive(Debug)]
struct Half {
    frames: Frames,
    /// By channel: a message whose header or body is to come.
    partial: BTreeMap<u16, Partial>,
    /// Something could not be read, and after that nothing can.
    lost: bool,
}

#[derive(Debug)]
enum Partial {
    Header(Method),
    Body(u64),
}

/// What a frame completes.
enum Whole {
    Method(Method),
    Message(Method, Content),
    Part,
    Heartbeat,
}

impl Half {
    fn new(frames: Frames) -> Self {
        Self { frames, partial: BTreeMap::new(), lost: false }
    }

    fn next(&mut self) -> Option<Result<Frame, String>> {
        if self.lost { None } else { self.frames.next() }
    }

    fn read(&mut self, frame: &Frame) -> Result<Whole, String> {
        match (frame.kind, self.partial.remove(&frame.channel)) {
            (Kind::Heartbeat, partial) => {
                self.partial.extend(partial.map(|partial| (frame.channel, partial)));
                Ok(Whole::Heartbeat)
            }
            (Kind::Method, None) => {
                let method = Method::read(&frame.payload)?;
                if method.bears_content() {
                    self.partial.insert(frame.channel, Partial::Header(method));
                    return Ok(Whole::Part);
                }
                Ok(Whole::Method(method))
            }
            (Kind::Method, Some(_)) => {
                let method = Method::read(&frame.payload)?;
                // Whoever is not to go on ends a message where it is.
                let ends = matches!(method, Method::ChannelClose(_) | Method::ChannelCloseOk);
                if ends { Ok(Whole::Method(method)) } else { Err(format!("{method} in the middle of a message")) }
            }
            (Kind::Content, Some(Partial::Header(method))) => {
                let content = Content::read(&frame.payload)?;
                if content.size > 0 {
                    self.partial.insert(frame.channel, Partial::Body(content.size));
                }
                Ok(Whole::Message(method, content))
            }
            (Kind::Body, Some(Partial::Body(left))) => {
                let left = left
                    .checked_sub(frame.payload.len() as u64)
                    .ok_or_else(|| "a body that is longer than its header says".to_owned())?;
                if left > 0 {
                    self.partial.insert(frame.channel, Partial::Body(left));
                }
                Ok(Whole::Part)
            }
            (kind, partial) => Err(format!("a frame of kind {kind:?} where {partial:?} was begun")),
        }
    }
}

impl Line {
    pub fn new(number: u64, now: Instant) -> Self {
        Self {
            number,
            daemon: Half::new(Frames::of_daemon()),
            broker: Half::new(Frames::of_broker()),
            channels: BTreeMap::new(),
            heartbeat: Duration::ZERO,
            frame_max: usize::MAX,
            heard: now,
            state: State::Open,
            role: Role::Unknown,
        }
    }

    /// The daemon has sent this.
    pub fn sent(&mut self, now: Instant, bytes: &[u8], book: &mut Book, trace: &mut Trace) {
        book.place = (self.number, 0);
        self.check_heartbeat(now, book);
        self.heard = now;
        self.daemon.frames.push(bytes);
        while let Some(frame) = self.daemon.next() {
            let read = frame.and_then(|frame| {
                let whole = self.daemon.read(&frame)?;
                Ok((frame, whole))
            });
            match read {
                Ok((frame, whole)) => {
                    book.place = (self.number, frame.channel);
                    note(trace, now, self.number, Side::Daemon, &frame, &whole);
                    self.on_sent(&frame, whole, book);
                }
                Err(why) => {
                    self.daemon.lost = true;
                    book.violation(format!("the daemon sends {why}"));
                }
            }
        }
    }

    /// The daemon was told this.
    pub fn told(&mut self, now: Instant, bytes: &[u8], book: &mut Book, trace: &mut Trace) {
        book.place = (self.number, 0);
        self.broker.frames.push(bytes);
        while let Some(frame) = self.broker.next() {
            let read = frame.and_then(|frame| {
                let whole = self.broker.read(&frame)?;
                Ok((frame, whole))
            });
            match read {
                Ok((frame, whole)) => {
                    book.place = (self.number, frame.channel);
                    note(trace, now, self.number, Side::Broker, &frame, &whole);
                    self.on_told(frame.channel, whole, book);
                }
                Err(why) => {
                    self.broker.lost = true;
                    book.violation(format!("the broker sends {why}"));
                }
            }
        }
    }

    /// Time has passed.
    pub fn check_heartbeat(&mut self, now: Instant, book: &mut Book) {
        let silent = now.saturating_duration_since(self.heard);
        let owed = !self.heartbeat.is_zero() && self.state == State::Open && !book.hangs;
        if owed && silent > 2 * self.heartbeat + GRACE {
            book.place = (self.number, 0);
            book.violation(format!("the daemon was silent for {silent:?}, and the heartbeat is {:?}", self.heartbeat));
            self.heard = now;
        }
    }

    /// The tap itself was not at work: what came meanwhile came late.
    pub fn excuse(&mut self, now: Instant) {
        self.heard = now;
    }

    /// The daemon owes nothing more.
    pub fn left(&mut self) {
        self.state = State::Closed;
    }

    /// What it is for.
    pub fn role(&self) -> Role {
        self.role
    }

    fn on_sent(&mut self, frame: &Frame, whole: Whole, book: &mut Book) {
        if frame.size() > self.frame_max {
            book.violation(format!(
                "the daemon sends a frame of {} bytes, and {} were agreed",
                frame.size(),
                self.frame_max
            ));
        }
        let is_close_ok = matches!(whole, Whole::Method(Method::ConnectionCloseOk));
        let allowed = match self.state {
            State::Open => true,
            State::Closing => is_close_ok || matches!(whole, Whole::Heartbeat),
            State::Closed => false,
        };
        if !allowed {
            book.violation("the daemon sends a frame on a connection that it has closed".to_owned());
        }
        let (method, content) = match whole {
            Whole::Heartbeat => {
                book.tally.heartbeats += 1;
                return;
            }
            Whole::Method(method) if frame.channel == 0 => return self.on_sent_of_connection(method, book),
            Whole::Method(method) => (Some(method), None),
            Whole::Message(method, content) => (Some(method), Some(content)),
            Whole::Part => (None, None),
        };
        let channel = self.channels.entry(frame.channel).or_default();
        if let Err(why) = channel.may_send(method.as_ref()) {
            book.violation(why);
        }
        let Some(method) = method else { return };
        if method == Method::ConfirmSelect {
            self.role = Role::Publisher;
        } else if matches!(method, Method::QueueDeclare { .. } | Method::Consume { .. }) {
            self.role = Role::Job;
        }
        match content {
            Some(content) => channel.sent_message(method, content, book),
            None => channel.sent(method, book),
        }
    }

    fn on_sent_of_connection(&mut self, method: Method, book: &mut Book) {
        if let Method::TuneOk { frame_max, heartbeat } = method {
            self.heartbeat = Duration::from_secs(heartbeat.into());
            self.frame_max = if frame_max == 0 { usize::MAX } else { frame_max as usize };
        } else if let Method::ConnectionClose(why) = method {
            self.state = State::Closing;
            if why.is_trouble() {
                book.violation(format!("the daemon closes the connection: {why}"));
            }
        } else if method == Method::ConnectionCloseOk {
            self.state = State::Closed;
        }
    }

    fn on_told(&mut self, channel: u16, whole: Whole, book: &mut Book) {
        match whole {
            Whole::Method(Method::ConnectionClose(why)) => book.judge_close(true, &why, false),
            Whole::Method(method) if channel != 0 => self.channels.entry(channel).or_default().told(method, book),
            Whole::Message(method, content) => {
                self.channels.entry(channel).or_default().told_message(method, content, book);
            }
            Whole::Method(_) | Whole::Part | Whole::Heartbeat => {}
        }
    }
}

fn note(trace: &mut Trace, now: Instant, line: u64, side: Side, frame: &Frame, whole: &Whole) {
    let what = match whole {
        Whole::Method(method) => What::Method(method.clone()),
        Whole::Message(method, content) => What::Message(method.clone(), content.clone()),
        Whole::Heartbeat => What::Heartbeat,
        Whole::Part => return,
    };
    trace.note(now, line, side, frame.channel, what);
}
