//! One way of one connection: what was read and not passed on yet, and when it may be.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use super::Faults;

/// Bytes of one read.
const READ: usize = 64 << 10;
/// Bytes that are held, beyond which nothing more is read: the sender then finds the window closed.
const MOST_HELD: usize = 4 << 20;

/// See the module's documentation.
pub struct Stream {
    held: VecDeque<Piece>,
    held_bytes: usize,
    /// Bytes that were passed on.
    pub passed: u64,
    /// System calls that it took.
    pub writes: u64,
    /// The connection is reset when so many were passed on.
    pub cut: Option<u64>,
    /// No write before then: the rate.
    pause: Option<Instant>,
    /// The source has said that it is done.
    pub ended: bool,
    /// The sink was told so.
    pub shut: bool,
    /// The sink would not take more.
    pub blocked: bool,
}

/// What one read brought.
struct Piece {
    due: Instant,
    bytes: Vec<u8>,
    /// So many of them were passed on.
    gone: usize,
}

/// What an attempt to pass bytes on came to.
#[derive(Debug, PartialEq, Eq)]
pub enum Gave {
    /// All that may go now has gone.
    Enough,
    /// The number of bytes is reached after which the connection is to be reset.
    Cut,
}

impl Stream {
    pub fn new(cut: Option<u64>) -> Self {
        Self {
            held: VecDeque::new(),
            held_bytes: 0,
            passed: 0,
            writes: 0,
            cut,
            pause: None,
            ended: false,
            shut: false,
            blocked: false,
        }
    }

    /// Whether more is to be read.
    pub fn is_open(&self) -> bool {
        !self.ended && self.held_bytes < MOST_HELD
    }

    /// Whether nothing will go this way any more.
    pub fn is_over(&self) -> bool {
        self.ended && self.shut
    }

    /// Reads once, and gives what came.
    pub fn take(&mut self, source: &mut TcpStream, faults: &Faults, now: Instant) -> io::Result<&[u8]> {
        let mut bytes = vec![0; READ];
        let read = match source.read(&mut bytes) {
            Ok(0) => {
                self.ended = true;
                return Ok(&[]);
            }
            Ok(read) => read,
            Err(error) if is_wait(&error) => return Ok(&[]),
            Err(error) => return Err(error),
        };
        bytes.truncate(read);
        let jitter = faults.jitter.mul_f64(fastrand::f64());
        // Never before what was read before it.
        let after = self.held.back().map_or(now, |last| last.due);
        let due = (now + faults.latency + jitter).max(after);
        self.held_bytes += read;
        self.held.push_back(Piece { due, bytes, gone: 0 });
        Ok(self.held.back().map_or(&[], |piece| &piece.bytes))
    }

    /// Passes on what may go now; `seen` is shown each part that has gone.
    pub fn give(
        &mut self,
        sink: &mut TcpStream,
        faults: &Faults,
        now: Instant,
        seen: &mut impl FnMut(&[u8]),
    ) -> io::Result<Gave> {
        self.blocked = false;
        // The sink has been told that nothing more comes.
        if self.shut {
            self.forget();
        }
        loop {
            if self.cut.is_some_and(|cut| self.passed >= cut) {
                return Ok(Gave::Cut);
            }
            if self.due(faults).is_none_or(|due| due > now) {
                break;
            }
            let Some(piece) = self.held.front_mut() else { break };
            let waiting = &piece.bytes[piece.gone..];
            let until_cut = self.cut.map_or(usize::MAX, |cut| usize::try_from(cut - self.passed).unwrap_or(usize::MAX));
            // A hundredth of a second's worth at a time, so that what is slow is slow evenly.
            let by_rate = faults.rate.map_or(usize::MAX, |rate| (rate as usize / 100).max(1));
            let most = waiting.len().min(faults.slice.unwrap_or(usize::MAX)).min(by_rate).min(until_cut);
            let gone = match sink.write(&waiting[..most]) {
                Ok(gone) => gone,
                Err(error) if is_wait(&error) => {
                    self.blocked = true;
                    break;
                }
                Err(error) => return Err(error),
            };
            seen(&waiting[..gone]);
            piece.gone += gone;
            self.passed += gone as u64;
            self.writes += 1;
            self.held_bytes -= gone;
            if piece.gone == piece.bytes.len() {
                self.held.pop_front();
            }
            if let Some(rate) = faults.rate {
                let cost = Duration::from_secs_f64(gone as f64 / f64::from(rate.max(1)));
                self.pause = Some(self.pause.map_or(now, |pause| pause.max(now)) + cost);
            }
        }
        if self.ended && self.held.is_empty() && !self.shut && !faults.hole {
            self.shut = true;
            // A sink that is gone needs no word.
            let _ = sink.shutdown(std::net::Shutdown::Write);
        }
        Ok(Gave::Enough)
    }

    /// When there is something to pass on. `None`: nothing waits, or nothing may go.
    pub fn due(&self, faults: &Faults) -> Option<Instant> {
        let first = self.held.front().filter(|_| !faults.hole)?;
        let pause = self.pause.filter(|_| faults.rate.is_some());
        Some(pause.map_or(first.due, |pause| pause.max(first.due)))
    }

    /// What waits is forgotten, and the sink is told that nothing more comes.
    pub fn end(&mut self, sink: &TcpStream) {
        self.forget();
        self.shut = true;
        // A sink that is gone needs no word.
        let _ = sink.shutdown(std::net::Shutdown::Write);
    }

    fn forget(&mut self) {
        self.held.clear();
        self.held_bytes = 0;
    }
}

fn is_wait(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}
