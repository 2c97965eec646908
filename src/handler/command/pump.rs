//! One run from its start to its end: a single `poll` loop over the pipes, the processes and the stop.
//!
//! Nothing here blocks but that `poll`, and it has a deadline. So it does not matter whether a program reads its stdin,
//! closes it, writes without end, or leaves its pipes to others: it ends by itself, or it is ended.

use std::ffi::CString;
use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use crate::handler::Stop;
use crate::handler::process::exec::StartError;
use crate::handler::process::group::Group;
use crate::handler::process::output::Label;
use crate::handler::process::spawn::{Program, pipe_in, pipe_out};
use crate::handler::process::stream::{Kept, Stream};

/// From TERM to KILL when the daemon itself must end.
const STOP_GRACE: Duration = Duration::from_secs(1);

/// A program that runs, and our ends of its pipes, none of which blocks.
#[derive(Debug)]
pub struct Process {
    /// The processes.
    pub group: Group,
    /// Takes the body.
    stdin: OwnedFd,
    /// Takes the metadata.
    metadata: OwnedFd,
    /// Absent where nobody wants to see it; the program then writes to /dev/null.
    stdout: Option<OwnedFd>,
    /// Gives the error text.
    stderr: OwnedFd,
}

impl Process {
    /// Starts a program with a pipe each for body, metadata, stderr, and for stdout where somebody wants it.
    pub fn start(program: &Program, variables: Vec<CString>, with_stdout: bool) -> Result<Self, StartError> {
        let (its_stdin, stdin) = pipe_in()?;
        let (stdout, its_stdout) = if with_stdout {
            let (stdout, its_stdout) = pipe_out()?;
            (Some(stdout), its_stdout)
        } else {
            (None, OpenOptions::new().write(true).open("/dev/null")?.into())
        };
        let (stderr, its_stderr) = pipe_out()?;
        let (its_metadata, metadata) = pipe_in()?;
        let its = [&its_stdin, &its_stdout, &its_stderr, &its_metadata].map(AsFd::as_fd);
        let group = program.start(variables, its)?;
        Ok(Self { group, stdin, metadata, stdout, stderr })
    }
}

/// What bounds a run.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// How long it may take.
    pub timeout: Duration,
    /// From TERM to KILL after that.
    pub kill_grace: Duration,
}

/// Why a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// The program ended by itself.
    Exited(ExitStatus),
    /// It ran too long and was ended. What its exit status says came after that and does not count.
    Overran,
    /// It was ended because the daemon must end. A status of 0 does not count either: many programs exit with 0 when
    /// they get TERM, whether their work was done or not.
    Stopped,
}

/// How a run went.
#[derive(Debug)]
pub struct Attended {
    /// Why it ended.
    pub ending: Ending,
    /// The end of its stderr.
    pub stderr: String,
    /// All of its stdout, where it was to be kept.
    pub kept: Kept,
}

/// Where a run stands.
#[derive(Debug, Clone, Copy)]
enum Phase {
    /// The program may work.
    Running,
    /// TERM was sent; KILL follows at the deadline.
    Terminating(Cause),
}

#[derive(Debug, Clone, Copy)]
enum Cause {
    Overrun,
    Stop,
}

/// One run, from the moment that its program has started.
#[derive(Debug)]
pub struct Run<'a> {
    group: Group,
    stdin: Feed<'a>,
    metadata: Feed<'a>,
    stdout: Stream,
    stderr: Stream,
    /// Absent once it was noticed: it stays readable.
    stop: Option<&'a Stop>,
    kill_grace: Duration,
    phase: Phase,
    /// The end of the phase.
    deadline: Instant,
}

impl<'a> Run<'a> {
    /// `label` names the run in the log; without it nothing is logged.
    pub fn new(
        process: Process,
        body: &'a [u8],
        metadata: &'a [u8],
        limits: Limits,
        stop: &'a Stop,
        label: Option<Label>,
    ) -> Self {
        Self {
            group: process.group,
            stdin: Feed { pipe: Some(process.stdin), rest: body },
            metadata: Feed { pipe: Some(process.metadata), rest: metadata },
            stdout: Stream::new(process.stdout, label.clone().map(|label| (label, "stdout"))),
            stderr: Stream::new(Some(process.stderr), label.map(|label| (label, "stderr"))),
            stop: Some(stop),
            kill_grace: limits.kill_grace,
            phase: Phase::Running,
            deadline: Instant::now() + limits.timeout,
        }
    }

    /// Keeps stdout, up to so many bytes. It is not logged then: it is the body of a message.
    pub fn keep_stdout(mut self, most: usize) -> Self {
        self.stdout = self.stdout.keep(most);
        self
    }

    /// Attends to the program until it has ended and nothing of it lives.
    ///
    /// An error means that the machine failed us, or that the exit status is unknown; nothing of the program lives then
    /// either.
    pub fn attend(mut self) -> io::Result<Attended> {
        self.metadata.push();
        self.stdin.push();
        let ending = loop {
            let stopped = self.turn()?;
            if self.group.living.is_empty() {
                break self.end()?;
            }
            let now = Instant::now();
            let over = now >= self.deadline;
            match self.phase {
                Phase::Running if stopped => {
                    self.terminate(Cause::Stop, now + self.kill_grace.min(STOP_GRACE));
                }
                Phase::Running if over => self.terminate(Cause::Overrun, now + self.kill_grace),
                Phase::Terminating(_) if stopped => {
                    self.deadline = self.deadline.min(now + STOP_GRACE);
                }
                Phase::Terminating(_) if over => break self.end()?,
                Phase::Running | Phase::Terminating(_) => {}
            }
        };
        self.stdout.drain();
        self.stderr.drain();
        let (_, kept) = self.stdout.finish();
        let (stderr, _) = self.stderr.finish();
        Ok(Attended { ending, stderr, kept })
    }

    fn terminate(&mut self, cause: Cause, kill_at: Instant) {
        self.group.terminate();
        self.phase = Phase::Terminating(cause);
        self.deadline = kill_at;
    }

    /// Ends what is left, by force.
    fn end(&mut self) -> io::Result<Ending> {
        match self.phase {
            Phase::Running => self.group.end().map(Ending::Exited),
            Phase::Terminating(cause) => {
                // However it ended now, it does not count; that it would not end is worth a line.
                if let Err(error) = self.group.kill() {
                    log::error!("cannot end a handler: {error}");
                }
                Ok(match cause {
                    Cause::Overrun => Ending::Overran,
                    Cause::Stop => Ending::Stopped,
                })
            }
        }
    }

    /// Waits until something can be done or the phase is over, and does it. Says whether the stop was noticed.
    fn turn(&mut self) -> io::Result<bool> {
        let Some(ready) = self.wait()? else {
            return Ok(false);
        };
        // In the order in which `wait` lists them.
        let mut ready = ready.into_iter();
        let mut next = || ready.next() == Some(true);
        self.group.living.retain(|_| !next());
        let stopped = self.stop.is_some() && next();
        if stopped {
            self.stop = None;
        }
        for feed in [&mut self.stdin, &mut self.metadata] {
            if feed.pipe.is_some() && next() {
                feed.push();
            }
        }
        for stream in [&mut self.stdout, &mut self.stderr] {
            if stream.pipe().is_some() && next() {
                stream.pull();
            }
        }
        Ok(stopped)
    }

    /// Which descriptors are ready: the processes, the stop, the feeds and the streams that are still there, in this
    /// order. Absent where a signal came between.
    fn wait(&self) -> io::Result<Option<Vec<bool>>> {
        let feeds = [&self.stdin.pipe, &self.metadata.pipe];
        let streams = [self.stdout.pipe(), self.stderr.pipe()];
        let mut fds: Vec<_> = self.group.living.iter().map(|pidfd| PollFd::new(pidfd, PollFlags::IN)).collect();
        fds.extend(self.stop.map(|stop| PollFd::new(stop, PollFlags::IN)));
        fds.extend(feeds.into_iter().flatten().map(|pipe| PollFd::new(pipe, PollFlags::OUT)));
        fds.extend(streams.into_iter().flatten().map(|pipe| PollFd::new(pipe, PollFlags::IN)));
        let left = self.deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).map_err(|_| Errno::INVAL)?;
        match poll(&mut fds, Some(&timeout)) {
            Ok(_) => Ok(Some(fds.iter().map(|fd| !fd.revents().is_empty()).collect())),
            Err(Errno::INTR) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

/// Bytes on their way into the program.
#[derive(Debug)]
struct Feed<'a> {
    /// Absent once all is written, or nobody reads any more.
    pipe: Option<OwnedFd>,
    rest: &'a [u8],
}

impl Feed<'_> {
    /// Writes what the pipe takes. A program that does not want its input is fine.
    fn push(&mut self) {
        while let Some(pipe) = &self.pipe {
            if self.rest.is_empty() {
                self.pipe = None;
                return;
            }
            match rustix::io::write(pipe, self.rest) {
                Ok(written) => self.rest = &self.rest[written..],
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                Err(_) => self.pipe = None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    #[test]
    fn what_was_written_before_the_end_is_read_after_it() {
        // More than one read takes, less than the pipe holds: it can end before anybody looks.
        let script = "head -c 50000 /dev/zero >&2; echo the end >&2; exit 3";
        let config = config::Command {
            argv: ["/bin/sh", "-c", script].map(str::to_owned).into(),
            timeout: Duration::from_secs(60),
            kill_grace: Duration::ZERO,
            env: std::collections::BTreeMap::new(),
            cwd: None,
        };
        let limits = Limits { timeout: config.timeout, kill_grace: config.kill_grace };
        let program = Program::new(&config, "command").unwrap();
        let process = Process::start(&program, Vec::new(), false).unwrap();
        let mut ended = [PollFd::new(&process.group.living[0], PollFlags::IN)];
        assert_eq!(poll(&mut ended, Some(&Timespec { tv_sec: 60, tv_nsec: 0 })), Ok(1));
        let stop = Stop::new().unwrap();
        let run = Run::new(process, b"body", b"{}", limits, &stop, None);
        let Attended { ending, stderr, .. } = run.attend().unwrap();
        assert!(matches!(ending, Ending::Exited(status) if status.code() == Some(3)));
        assert!(stderr.ends_with("the end"), "{stderr}");
    }
}
