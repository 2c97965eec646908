//! One batch: the request goes in, the results come out, in one `poll` loop over both pipes, the process and the stop.

use std::time::Instant;

use super::lines::{Filled, Lines};
use super::process::Process;
use super::request::{Pushed, Request};
use super::results::Results;
use crate::handler::Stop;

/// Reads once a process must end or has ended: all that its pipe can hold. One that got away may still be writing.
pub const LAST_READS: usize = 64;

/// Why a batch did not come to its end.
#[derive(Debug)]
pub enum Trouble {
    /// The process has ended by itself.
    Ended,
    /// It broke the protocol: what it did.
    Protocol(String),
    /// The results are not complete in time.
    Late,
    /// The daemon must end.
    Stopped,
}

/// A batch that is under way.
#[derive(Debug)]
pub struct Exchange<'a> {
    /// What the process is told.
    pub request: Request<'a>,
    /// What it has answered so far.
    pub results: Results<'a>,
}

impl Exchange<'_> {
    /// Attends to the batch until each task has its answer.
    pub fn attend(&mut self, process: &mut Process, deadline: Instant, stop: &Stop) -> Result<(), Trouble> {
        let mut writing = self.push(process)?;
        loop {
            let ready = process.wait(Some(stop), writing, deadline);
            if ready.answers {
                match self.pull(&mut process.answers, if ready.ended { LAST_READS } else { 1 })? {
                    Filled::End if !process.ends_now() => {
                        return Err(Trouble::Protocol("it closed its descriptor 4".to_owned()));
                    }
                    Filled::End => return Err(Trouble::Ended),
                    Filled::Some | Filled::All | Filled::Nothing => {}
                }
                if self.results.is_complete() {
                    return self.check_rest(process, writing);
                }
            }
            if ready.stopped {
                return Err(Trouble::Stopped);
            }
            if ready.ended {
                return Err(Trouble::Ended);
            }
            if ready.requests {
                writing = self.push(process)?;
            }
            if ready.late || Instant::now() >= deadline {
                return Err(Trouble::Late);
            }
        }
    }

    /// Takes what answers there are, in at most so many reads. An error ends the process.
    pub fn pull(&mut self, answers: &mut Lines, reads: usize) -> Result<Filled, Trouble> {
        let mut filled = Filled::Nothing;
        for _ in 0..reads {
            filled = answers.fill();
            while !self.results.is_complete()
                && let Some(line) = answers.next()
            {
                self.results.take(line).map_err(Trouble::Protocol)?;
            }
            if answers.waiting() > self.results.max_line() {
                let most = self.results.max_line();
                return Err(Trouble::Protocol(format!("it answered with a line of more than {most} bytes")));
            }
            match filled {
                Filled::Some => {}
                Filled::All | Filled::Nothing | Filled::End => break,
            }
        }
        Ok(filled)
    }

    /// Writes what the process takes. Says whether some of the request is left.
    fn push(&mut self, process: &Process) -> Result<bool, Trouble> {
        let pushed = process.requests().map_or(Pushed::Refused, |pipe| self.request.push(pipe));
        match pushed {
            Pushed::All => Ok(false),
            Pushed::Full => Ok(true),
            Pushed::Refused if process.ends_now() => {
                // What it answered before its end is taken by whoever ends it.
                Err(Trouble::Ended)
            }
            Pushed::Refused => Err(Trouble::Protocol("it closed its descriptor 3".to_owned())),
        }
    }

    /// After the last result nothing may follow, and the request must have been read.
    fn check_rest(&self, process: &Process, writing: bool) -> Result<(), Trouble> {
        if process.answers.waiting() > 0 {
            return Err(Trouble::Protocol("it answered more than it was asked".to_owned()));
        }
        if writing {
            return Err(Trouble::Protocol("it answered a request before it had read it".to_owned()));
        }
        Ok(())
    }
}
