//! One worker process: its start, waiting on it, and its end.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::param::page_size;
use serde::Deserialize;

use super::lines::{Filled, Lines};
use super::logs::Logs;
use super::results::{object, quote};
use crate::handler::process::group::Group;
use crate::handler::process::output::{Label, Source};
use crate::handler::process::spawn::{Program, pipe_in, pipe_out};
use crate::handler::process::{output, with_stderr};
use crate::handler::{Context, Stop};

/// The version of the protocol.
const PROTOCOL: u64 = 1;
/// A hello is a short line, in bytes.
const MAX_HELLO: usize = 64 * 1024;
/// How long a process that closed a pipe may take to be gone, where that was a part of its end.
const EXIT_LAG: Duration = Duration::from_secs(1);
/// From the end of its requests to TERM, and from TERM to KILL, when the daemon itself must end.
pub const STOP_GRACE: Duration = Duration::from_secs(1);

/// A process that said hello.
#[derive(Debug)]
pub struct Process {
    group: Group,
    /// Absent once it gets no more.
    requests: Option<OwnedFd>,
    /// What it answers.
    pub answers: Lines,
    logs: Logs,
    started: Instant,
    /// Tasks that it was given.
    pub tasks: u64,
}

/// Why there is no process.
#[derive(Debug)]
pub enum NoStart {
    /// It cannot work: one sentence.
    Broken(String),
    /// The daemon must end.
    Stopped,
}

/// How a process ended.
#[derive(Debug)]
pub struct Ended {
    /// Absent where it cannot be had.
    pub status: Option<ExitStatus>,
    /// The end of its stderr.
    pub stderr: String,
}

/// What can be done with a process now.
#[derive(Debug, Clone, Copy, Default)]
pub struct Ready {
    /// Answers can be read, or their pipe was closed.
    pub answers: bool,
    /// It takes more of the request, or will never again.
    pub requests: bool,
    /// It has ended.
    pub ended: bool,
    /// The daemon must end.
    pub stopped: bool,
    /// Nothing of it: time is up.
    pub late: bool,
}

#[derive(Deserialize)]
struct Hello {
    warrend: u64,
}

impl Process {
    /// Starts the program and waits for its hello. Called by the worker thread: the process dies with the thread that
    /// made it.
    pub fn start(program: &Program, context: &Context, within: Duration, stop: &Stop) -> Result<Self, NoStart> {
        let mut process = Self::spawn(program, context)?;
        let until = Instant::now() + within;
        let (name, said) = (
            &program.name,
            loop {
                match process.hello() {
                    Some(Ok(())) => return Ok(process),
                    Some(Err(wrong)) => break wrong,
                    None => {}
                }
                let ready = process.wait(Some(stop), false, until);
                if ready.stopped {
                    process.part(Instant::now() + STOP_GRACE, STOP_GRACE, None, |_| true);
                    return Err(NoStart::Stopped);
                }
                let filled = if ready.answers { process.answers.fill() } else { Filled::Nothing };
                match filled {
                    Filled::Some | Filled::All => {}
                    Filled::Nothing if ready.late => break format!("gave no hello within {within:?}"),
                    Filled::Nothing if ready.ended => break "gave no hello".to_owned(),
                    Filled::Nothing => {}
                    Filled::End if process.ends_now() => break "gave no hello".to_owned(),
                    Filled::End => break "gave no hello, but closed its descriptor 4".to_owned(),
                }
            },
        );
        let by_itself = process.has_ended();
        let ended = process.end();
        let status = ended.status.filter(|_| by_itself).map(|status| format!("{status}, "));
        let reason = format!("worker `{name}` cannot work ({}{said})", status.unwrap_or_default());
        Err(NoStart::Broken(with_stderr(&reason, &ended.stderr)))
    }

    fn spawn(program: &Program, context: &Context) -> Result<Self, NoStart> {
        let io = |error: io::Error| NoStart::Broken(format!("cannot start `{}`: {error}", program.name));
        let logged = output::is_logged();
        let null = OpenOptions::new().read(true).write(true).open("/dev/null").map_err(io)?;
        let (stdout, its_stdout) = if logged {
            let (stdout, its_stdout) = pipe_out().map_err(io)?;
            (Some(stdout), its_stdout)
        } else {
            (None, null.try_clone().map_err(io)?.into())
        };
        let (stderr, its_stderr) = pipe_out().map_err(io)?;
        let (its_requests, requests) = pipe_in().map_err(io)?;
        let (answers, its_answers) = pipe_out().map_err(io)?;
        let its = [null.as_fd(), its_stdout.as_fd(), its_stderr.as_fd(), its_requests.as_fd(), its_answers.as_fd()];
        let variables = std::ffi::CString::new(format!("WARREND_JOB={}", context.job));
        let group =
            program.start(variables.into_iter().collect(), its).map_err(|e| NoStart::Broken(program.explain(&e)))?;
        let worker = group.leader().as_raw_nonzero().get().unsigned_abs();
        let label = Label { job: context.job.clone(), source: Source::Worker(worker) };
        Ok(Self {
            logs: Logs::start(logged.then_some(&label), stdout, stderr).map_err(io)?,
            group,
            requests: Some(requests),
            answers: Lines::new(answers),
            started: Instant::now(),
            tasks: 0,
        })
    }

    /// Judges what came so far of the hello.
    fn hello(&mut self) -> Option<Result<(), String>> {
        let wrong = |line: &[u8]| Some(Err(format!("instead of its hello it said {}", quote(line))));
        let too_long = self.answers.waiting() > MAX_HELLO;
        match self.answers.next() {
            None if too_long => Some(Err("gave no hello, but an endless line".to_owned())),
            None => None,
            Some(line) => match object::<Hello>(line) {
                Ok(Hello { warrend: PROTOCOL }) => Some(Ok(())),
                Ok(Hello { warrend }) => {
                    Some(Err(format!("it speaks version {warrend} of the protocol, not {PROTOCOL}")))
                }
                Err(_) => wrong(line),
            },
        }
    }

    /// Waits until something can be done, or until that time. `writing`: whether there is something to write.
    pub fn wait(&self, stop: Option<&Stop>, writing: bool, until: Instant) -> Ready {
        let answers = PollFd::new(self.answers.pipe(), PollFlags::IN);
        let requests = self.requests.as_ref().filter(|_| writing).map(|pipe| PollFd::new(pipe, PollFlags::OUT));
        let leader = self.group.living.first().map(|pidfd| PollFd::new(pidfd, PollFlags::IN));
        let stop = stop.map(|stop| PollFd::new(stop, PollFlags::IN));
        let there = [true, requests.is_some(), leader.is_some(), stop.is_some()];
        // The answers stand in for what is not waited for.
        let or_answers = |fd: Option<_>| fd.unwrap_or_else(|| answers.clone());
        let mut fds = [answers.clone(), or_answers(requests), or_answers(leader), or_answers(stop)];
        let left = until.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).expect("a hundred years fit");
        let late = match poll(&mut fds, Some(&timeout)) {
            Ok(found) => found == 0,
            // A poll that cannot be done at all must not become a loop without an end.
            Err(error) => error != Errno::INTR,
        };
        let mut ready = fds.iter().zip(there).map(|(fd, there)| there && !fd.revents().is_empty());
        let mut next = || ready.next() == Some(true);
        Ready { answers: next(), requests: next(), ended: next(), stopped: next(), late }
    }

    /// Where its requests go; absent once it gets no more.
    pub fn requests(&self) -> Option<&OwnedFd> {
        self.requests.as_ref()
    }

    /// Lets it know that no request follows; a worker ends then.
    pub fn close_requests(&mut self) {
        self.requests = None;
    }

    /// Whether it has ended by itself.
    pub fn has_ended(&self) -> bool {
        self.wait(None, false, Instant::now()).ended
    }

    /// Whether it has ended by itself, or does so within a moment. Asked when it closed a pipe, which the kernel does for
    /// a process that ends, shortly before its end can be seen.
    pub fn ends_now(&self) -> bool {
        let until = Instant::now() + EXIT_LAG;
        let Some(leader) = self.group.living.first() else { return true };
        loop {
            let left = Timespec::try_from(until.saturating_duration_since(Instant::now())).expect("a second fits");
            match poll(&mut [PollFd::new(leader, PollFlags::IN)], Some(&left)) {
                Ok(found) => return found > 0,
                Err(Errno::INTR) => {}
                Err(_) => return false,
            }
        }
    }

    /// Its process id.
    #[cfg(test)]
    pub fn leader(&self) -> rustix::process::Pid {
        self.group.leader()
    }

    /// How long it lives.
    pub fn age(&self) -> Duration {
        self.started.elapsed()
    }

    /// Bytes that are resident, of the process itself: its children come and go, and finding them costs milliseconds.
    /// Absent where the kernel does not say.
    pub fn resident(&self) -> Option<u64> {
        // Nobody else can have the number: it is reaped only by `end` and `part`.
        let statm = std::fs::read_to_string(format!("/proc/{}/statm", self.group.leader().as_raw_nonzero())).ok()?;
        let pages: u64 = statm.split_ascii_whitespace().nth(1)?.parse().ok()?;
        Some(pages.saturating_mul(page_size() as u64))
    }

    /// Ends what is left of it, by force.
    pub fn end(mut self) -> Ended {
        self.requests = None;
        let status = self.group.end().map_err(|error| log::error!("cannot end a worker: {error}")).ok();
        Ended { status, stderr: self.logs.finish() }
    }

    /// Ends it and gives it the chance to end well: no request follows, TERM comes at `term_at`, KILL when `grace` is over
    /// then. A stop that is raised meanwhile makes it short. Nothing of it lives afterwards.
    ///
    /// `on_answers` is called while there is something to read, until it says that it wants no more.
    pub fn part(
        mut self,
        term_at: Instant,
        grace: Duration,
        mut stop: Option<&Stop>,
        mut on_answers: impl FnMut(&mut Lines) -> bool,
    ) -> Ended {
        self.requests = None;
        let (mut grace, mut deadline) = (grace, term_at);
        let (mut terminated, mut listening) = (false, true);
        while !self.group.living.is_empty() {
            let now = Instant::now();
            match (now >= deadline, terminated) {
                (false, _) => {}
                (true, false) => {
                    terminated = true;
                    deadline = now + grace;
                    self.group.terminate();
                }
                (true, true) => break,
            }
            let (answers, stopped) = self.wait_for_all(stop, listening, deadline);
            listening = listening && (!answers || on_answers(&mut self.answers));
            if stopped {
                stop = None;
                grace = grace.min(STOP_GRACE);
                deadline = if terminated { deadline.min(Instant::now() + grace) } else { Instant::now() };
            }
        }
        // What it said last.
        if listening {
            on_answers(&mut self.answers);
        }
        let ended = if terminated { self.group.kill() } else { self.group.end() };
        let status = ended.map_err(|error| log::error!("cannot end a worker: {error}")).ok();
        Ended { status, stderr: self.logs.finish() }
    }

    /// Waits for the ends of all processes that are known, an answer or a stop; forgets those that ended.
    fn wait_for_all(&mut self, stop: Option<&Stop>, listening: bool, until: Instant) -> (bool, bool) {
        let mut fds: Vec<_> = self.group.living.iter().map(|pidfd| PollFd::new(pidfd, PollFlags::IN)).collect();
        fds.extend(stop.map(|stop| PollFd::new(stop, PollFlags::IN)));
        fds.extend(listening.then(|| PollFd::new(self.answers.pipe(), PollFlags::IN)));
        let left = until.saturating_duration_since(Instant::now());
        let found = poll(&mut fds, Some(&Timespec::try_from(left).expect("a hundred years fit")));
        let ready: Vec<bool> = fds.iter().map(|fd| found.is_ok() && !fd.revents().is_empty()).collect();
        let mut ready = ready.into_iter();
        let mut next = || ready.next() == Some(true);
        self.group.living.retain(|_| !next());
        let stopped = stop.is_some() && next();
        (listening && next(), stopped)
    }
}
