//! One connection through the proxy: two sockets, two streams.

use std::io;
use std::net::TcpStream;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use rustix::event::PollFlags;
use rustix::net::sockopt::set_socket_linger;

use super::super::tap::Tap;
use super::stream::{Gave, Stream};
use super::{Faults, Way};

/// See the module's documentation.
pub struct Link {
    /// Counts the connections from 1.
    pub number: u64,
    daemon: TcpStream,
    broker: TcpStream,
    /// By way.
    pub streams: [Stream; 2],
}

/// What became of a connection.
#[derive(Debug, PartialEq, Eq)]
pub enum State {
    Stands,
    /// Both sides have said that they are done.
    Over,
    /// One side reset it, or vanished.
    Broken,
    /// The number of bytes is reached after which it is to be reset.
    Cut,
}

impl Link {
    /// Both sockets as the proxy needs them: nothing is held back by the kernel, and no call waits.
    pub fn new(number: u64, daemon: TcpStream, broker: TcpStream, cuts: [Option<u64>; 2]) -> io::Result<Self> {
        for socket in [&daemon, &broker] {
            socket.set_nodelay(true)?;
            socket.set_nonblocking(true)?;
        }
        Ok(Self { number, daemon, broker, streams: cuts.map(Stream::new) })
    }

    /// Reads what came, and passes on what may go. The tap hears what the daemon sent as soon as it is read, and what the
    /// daemon was given as soon as it is.
    pub fn pump(&mut self, faults: &[Faults; 2], now: Instant, tap: Option<&mut Tap>) -> State {
        match self.try_pump(faults, now, tap) {
            Ok(state) => state,
            Err(_) => State::Broken,
        }
    }

    fn try_pump(&mut self, faults: &[Faults; 2], now: Instant, mut tap: Option<&mut Tap>) -> io::Result<State> {
        let Self { number, daemon, broker, streams: [to_broker, to_daemon] } = self;
        if to_broker.is_open() {
            let sent = to_broker.take(daemon, &faults[0], now)?;
            if let Some(tap) = &mut tap {
                tap.sent(now, *number, sent);
                if to_broker.ended {
                    tap.left(*number);
                }
            }
        }
        if to_daemon.is_open() {
            to_daemon.take(broker, &faults[1], now)?;
        }
        let mut told = |bytes: &[u8]| {
            if let Some(tap) = &mut tap {
                tap.told(now, *number, bytes);
            }
        };
        let gave = [
            to_broker.give(broker, &faults[0], now, &mut |_| {})?,
            to_daemon.give(daemon, &faults[1], now, &mut told)?,
        ];
        if gave.contains(&Gave::Cut) {
            return Ok(State::Cut);
        }
        Ok(if self.streams.iter().all(Stream::is_over) { State::Over } else { State::Stands })
    }

    /// What to wait for: each socket with its flags. One on which nothing can happen any more is left out, as it would be
    /// ready for ever.
    pub fn interests(&self) -> impl Iterator<Item = (BorrowedFd<'_>, PollFlags)> {
        let [to_broker, to_daemon] = &self.streams;
        let sides = [(&self.daemon, to_broker, to_daemon), (&self.broker, to_daemon, to_broker)];
        sides.into_iter().filter_map(|(socket, source, sink)| {
            let mut flags = PollFlags::empty();
            flags.set(PollFlags::IN, source.is_open());
            flags.set(PollFlags::OUT, sink.blocked);
            let quiet = flags.is_empty() && source.ended;
            (!quiet).then(|| (std::os::fd::AsFd::as_fd(socket), flags))
        })
    }

    /// When there is something to do without being woken.
    pub fn due(&self, faults: &[Faults; 2]) -> Option<Instant> {
        let dues = self.streams.iter().zip(faults).filter(|(stream, _)| !stream.blocked);
        dues.filter_map(|(stream, faults)| stream.due(faults)).min()
    }

    /// Ends one way; the other goes on.
    pub fn half_close(&mut self, way: Way) {
        match way {
            Way::ToBroker => self.streams[0].end(&self.broker),
            Way::ToDaemon => self.streams[1].end(&self.daemon),
        }
    }

    /// Ends both sides with an RST.
    pub fn reset(self) {
        for socket in [&self.daemon, &self.broker] {
            // A socket that is gone already needs none.
            let _ = set_socket_linger(socket, Some(Duration::ZERO));
        }
    }
}
