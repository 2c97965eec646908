//! A guard on the wire, between the socket and the AMQP library.
//!
//! The library trusts its peer: it decodes nested header tables recursively and without bound, drops what is not UTF-8 in
//! silence together with whatever comes after it, reserves as much memory as a frame says that it needs, and reports every
//! failure during the login as a wrong password. So it gets to read only what it reads well. [`Guarded`] is its stream:
//!
//! - `inflow` splits what comes from the broker into frames, whose methods (`method`) and content headers (`content`) are
//!   judged. Most pass as they are. What the library would misread is replaced by something safe, and the message that it
//!   belongs to is marked, so that it ends in the dead-letter queue and not in the log of a crash.
//! - `greeting` puts our own words into the login.
//!
//! All of that is free of IO: it is handed bytes that are cut anywhere.
//!
//! What is absent: knowledge of channels and consumers. The library itself ends a connection over frames that do not fit
//! what it asked for, and that is right: it is the broker that is not well then, not a message.

mod bounds;
mod content;
mod greeting;
mod inflow;
mod method;
mod printable;
mod table;
mod violation;

use std::io::{self, ErrorKind, Read, Write};

use amiquip::IoStream;
use crossbeam_channel::{Receiver, Sender};
use mio::event::Evented;
use mio::{Poll, PollOpt, Ready, Token};

use super::connect::FRAME_MAX;
use super::error::{Closed, system};
use greeting::Greeting;
use inflow::Inflow;
pub(super) use violation::Violation;

/// A transport, watched. The library's thread owns it.
pub(super) struct Guarded<S> {
    stream: S,
    inflow: Inflow,
    greeting: Greeting,
    /// Takes what is seen first; see [`Ending`].
    endings: Sender<Ending>,
    frame_max: Sender<u32>,
}

/// What was seen on a wire, which the library does not tell.
pub(super) struct Seen {
    endings: Receiver<Ending>,
    frame_max: Receiver<u32>,
}

impl Seen {
    /// The first thing that ended the connection, once there is one.
    pub(super) fn ending(&self) -> Option<Ending> {
        self.endings.try_recv().ok()
    }

    /// The largest frame that both sides take, once the handshake is over; in bytes, with all that is around its payload.
    pub(super) fn frame_max(&self) -> usize {
        // 0: of any size.
        let theirs = self.frame_max.try_recv().ok().filter(|size| *size > 0);
        theirs.map_or(FRAME_MAX, |theirs| theirs.min(FRAME_MAX)) as usize
    }
}

/// Why a connection ended, as seen on the wire: the library does not tell it of the login.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// The broker said goodbye, and why.
    Closed(Closed),
    /// The broker hung up without a word.
    HungUp,
    /// The system's error, as the end of a sentence.
    Failed(String),
    /// What came is not what a broker sends.
    Violated(Violation),
}

impl<S: IoStream> Guarded<S> {
    /// Guards a fresh connection. `name` is what the broker will show as its name.
    pub(super) fn new(stream: S, name: &str) -> (Self, Seen) {
        // What comes after the first is its consequence and finds no room.
        let (endings, first) = crossbeam_channel::bounded(1);
        let (frame_max, tuned) = crossbeam_channel::bounded(1);
        let seen = Seen { endings: first, frame_max: tuned };
        (Self { stream, inflow: Inflow::new(), greeting: Greeting::new(name), endings, frame_max }, seen)
    }

    fn ends(&self, ending: Ending) {
        // Full, or the handshake is over and nobody asks any more.
        let _ = self.endings.try_send(ending);
    }
}

impl<S: IoStream> Read for Guarded<S> {
    /// Gives all that has come before it says `WouldBlock`: the library is woken only by what comes afterwards.
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if out.is_empty() {
            return Ok(0);
        }
        loop {
            let given = self.inflow.give(out);
            if let Some(closed) = self.inflow.take_closed() {
                self.ends(Ending::Closed(closed));
            }
            if let Some(size) = self.inflow.take_tuned() {
                // Said once in a connection, during its handshake.
                let _ = self.frame_max.try_send(size);
            }
            match given {
                Ok(0) => {}
                Ok(given) => return Ok(given),
                Err(violation) => {
                    self.ends(Ending::Violated(violation.clone()));
                    return Err(io::Error::new(ErrorKind::InvalidData, violation));
                }
            }
            match self.stream.read(self.inflow.room()) {
                Ok(0) => {
                    self.ends(Ending::HungUp);
                    return Ok(0);
                }
                Ok(came) => self.inflow.came(came),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => {
                    if error.kind() != ErrorKind::WouldBlock {
                        self.ends(Ending::Failed(system(&error)));
                    }
                    return Err(error);
                }
            }
        }
    }
}

impl<S: IoStream> Write for Guarded<S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match self.greeting.write(&mut self.stream, bytes) {
                // The library would try again for ever.
                Ok(0) if !bytes.is_empty() => return Err(ErrorKind::WriteZero.into()),
                Ok(written) => return Ok(written),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

impl<S: IoStream> Evented for Guarded<S> {
    fn register(&self, poll: &Poll, token: Token, interest: Ready, options: PollOpt) -> io::Result<()> {
        self.stream.register(poll, token, interest, options)
    }

    fn reregister(&self, poll: &Poll, token: Token, interest: Ready, options: PollOpt) -> io::Result<()> {
        self.stream.reregister(poll, token, interest, options)
    }

    fn deregister(&self, poll: &Poll) -> io::Result<()> {
        self.stream.deregister(poll)
    }
}

impl<S: IoStream> IoStream for Guarded<S> {}

#[cfg(test)]
mod tests;
