//! One stream that a program writes: its tail, its log lines, and all of it where that is wanted.

use std::os::fd::OwnedFd;

use rustix::io::Errno;

use super::output::{Label, Lines, Tail, log_line};

/// Bytes read at one time.
const CHUNK: usize = 16 * 1024;
/// What is read of each stream after the program's end: all that a pipe can hold by default limits. A process that got
/// away may still be writing.
const MAX_LEFT: usize = 1024 * 1024;

/// What was kept of a stdout.
#[derive(Debug, PartialEq, Eq)]
pub enum Kept {
    /// It was not asked for.
    Nothing,
    /// All of it.
    All(Vec<u8>),
    /// It was longer than it may be.
    TooLong,
}

/// Bytes on their way out of the program.
#[derive(Debug)]
pub struct Stream {
    /// Absent at its end.
    pipe: Option<OwnedFd>,
    tail: Tail,
    /// What names the lines, and the lines; absent where nothing is logged.
    log: Option<((Label, &'static str), Lines)>,
    /// What came so far, and how much may come; absent where it is not wanted. One byte more shows that it was too much.
    kept: Option<(Vec<u8>, usize)>,
}

impl Stream {
    /// `label` names program and stream in the log; without it nothing is logged. `pipe` must not block.
    pub fn new(pipe: Option<OwnedFd>, label: Option<(Label, &'static str)>) -> Self {
        Self { pipe, tail: Tail::default(), log: label.map(|label| (label, Lines::default())), kept: None }
    }

    /// Keeps it, up to so many bytes. It is not logged then: it is the body of a message.
    pub fn keep(self, most: usize) -> Self {
        Self { log: None, kept: Some((Vec::new(), most)), ..self }
    }

    /// What to wait on; absent once the stream has ended.
    pub fn pipe(&self) -> Option<&OwnedFd> {
        self.pipe.as_ref()
    }

    /// Reads once. Says how many bytes came; 0 where nothing is there, or the stream is at its end.
    pub fn pull(&mut self) -> usize {
        let Some(pipe) = &self.pipe else { return 0 };
        let mut chunk = [0; CHUNK];
        let read = match rustix::io::read(pipe, &mut chunk) {
            Ok(read) => read,
            Err(Errno::INTR | Errno::AGAIN) => return 0,
            Err(_) => 0,
        };
        if read == 0 {
            self.pipe = None;
        }
        self.tail.feed(&chunk[..read]);
        if let Some((kept, most)) = &mut self.kept {
            let room = (*most + 1).saturating_sub(kept.len());
            kept.extend_from_slice(&chunk[..read.min(room)]);
        }
        if let Some(((label, name), lines)) = &mut self.log {
            lines.feed(&chunk[..read], |line| log_line(label, name, line));
        }
        read
    }

    /// Allows as many log lines again.
    pub fn renew(&mut self) {
        if let Some(((label, name), lines)) = &mut self.log {
            lines.renew(|line| log_line(label, name, line));
        }
    }

    /// Reads what is there, once the program has ended.
    pub fn drain(&mut self) {
        let mut left = MAX_LEFT;
        while left > 0 {
            match self.pull() {
                0 => return,
                read => left = left.saturating_sub(read),
            }
        }
    }

    /// Closes it; gives its tail, and what was kept.
    pub fn finish(self) -> (String, Kept) {
        if let Some(((label, name), lines)) = self.log {
            lines.finish(|line| log_line(&label, name, line));
        }
        let kept = match self.kept {
            None => Kept::Nothing,
            Some((kept, most)) if kept.len() > most => Kept::TooLong,
            Some((kept, _)) => Kept::All(kept),
        };
        (self.tail.text(), kept)
    }
}
