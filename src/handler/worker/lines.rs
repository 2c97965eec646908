//! Lines out of a pipe, with a bound on their length.

use std::os::fd::OwnedFd;

use rustix::buffer::spare_capacity;
use rustix::io::{Errno, read};

/// The least room that a read gets, in bytes.
const CHUNK: usize = 16 * 1024;
/// A buffer above this is given back once it is empty.
const KEPT: usize = 1024 * 1024;

/// What one read brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filled {
    /// Bytes; there may be more.
    Some,
    /// All that was there.
    All,
    /// Nothing, for now.
    Nothing,
    /// Nothing for ever: nobody has the other end.
    End,
}

/// Reads lines from a pipe that does not block.
#[derive(Debug)]
pub struct Lines {
    pipe: OwnedFd,
    buffer: Vec<u8>,
    /// Where the first line that was not yet taken begins.
    start: usize,
    /// Up to where no newline is.
    scanned: usize,
}

impl Lines {
    /// Of this pipe, of which nothing was read yet.
    pub fn new(pipe: OwnedFd) -> Self {
        Self { pipe, buffer: Vec::new(), start: 0, scanned: 0 }
    }

    /// What to wait on.
    pub fn pipe(&self) -> &OwnedFd {
        &self.pipe
    }

    /// Reads once. Called after all whole lines were taken, so that the buffer holds at most the beginning of one.
    pub fn fill(&mut self) -> Filled {
        self.buffer.drain(..self.start);
        self.scanned -= self.start;
        self.start = 0;
        // Doubles, so that a long line is not copied at each read.
        self.buffer.reserve(CHUNK);
        let room = self.buffer.capacity() - self.buffer.len();
        match read(&self.pipe, spare_capacity(&mut self.buffer)) {
            Ok(0) => Filled::End,
            Ok(read) if read < room => Filled::All,
            Ok(_) => Filled::Some,
            Err(Errno::AGAIN | Errno::INTR) => Filled::Nothing,
            Err(_) => Filled::End,
        }
    }

    /// The next whole line, without its newline.
    pub fn next(&mut self) -> Option<&[u8]> {
        let Some(length) = self.buffer[self.scanned..].iter().position(|byte| *byte == b'\n') else {
            self.scanned = self.buffer.len();
            return None;
        };
        let line = self.start..self.scanned + length;
        self.start = line.end + 1;
        self.scanned = self.start;
        Some(&self.buffer[line])
    }

    /// Bytes that were read and not taken.
    pub fn waiting(&self) -> usize {
        self.buffer.len() - self.start
    }

    /// Lets a large buffer go that holds nothing. Called between two batches.
    pub fn shrink(&mut self) {
        if self.waiting() == 0 && self.buffer.capacity() > KEPT {
            (self.buffer, self.start, self.scanned) = (Vec::new(), 0, 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::handler::process::spawn::pipe_out;

    #[test]
    fn lines_come_whole_whatever_the_reads() {
        let (ours, its) = pipe_out().unwrap();
        let mut its = std::fs::File::from(its);
        let mut lines = Lines::new(ours);
        assert_eq!(lines.fill(), Filled::Nothing);
        its.write_all(b"one\n\ntw").unwrap();
        assert_eq!(lines.fill(), Filled::All);
        assert_eq!(lines.next(), Some(&b"one"[..]));
        assert_eq!(lines.next(), Some(&b""[..]));
        assert_eq!(lines.next(), None);
        assert_eq!(lines.waiting(), 2);
        its.write_all(b"o\n").unwrap();
        assert_eq!(lines.fill(), Filled::All);
        assert_eq!((lines.next().map(<[u8]>::to_vec), lines.next()), (Some(b"two".to_vec()), None));
        drop(its);
        assert_eq!((lines.fill(), lines.waiting()), (Filled::End, 0));
    }

    #[test]
    fn a_long_line_takes_a_buffer_that_is_given_back() {
        let (ours, its) = pipe_out().unwrap();
        let mut lines = Lines::new(ours);
        let long = vec![b'x'; 3 * KEPT];
        std::thread::scope(|scope| {
            scope.spawn(|| std::fs::File::from(its).write_all(&[&long[..], b"\n"].concat()).unwrap());
            while lines.next().is_none() {
                assert_ne!(lines.fill(), Filled::End);
                assert!(lines.buffer.capacity() <= 2 * (3 * KEPT + CHUNK));
                std::thread::yield_now();
            }
        });
        lines.shrink();
        assert_eq!(lines.buffer.capacity(), 0);
    }
}
