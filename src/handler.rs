//! What runs a task: one file per kind of handler.
//!
//! Each worker thread owns one [`Handler`] and calls [`Handler::run`] for one batch of tasks after another; a batch is one
//! task for all kinds but `worker`. The failure of a task is an [`Outcome`], never an error. Absent on purpose: the broker,
//! the store, and any decision about retries.

pub mod command;
pub mod http;

use std::borrow::Cow;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

use crate::config;
use crate::task::{Answer, JobName, Outcome, Task};

/// The handler of one worker thread.
#[derive(Debug)]
pub enum Handler {
    /// A program run once for each task.
    Command(command::CommandHandler),
    /// A POST for each task.
    Http(http::HttpHandler),
    /// Not for worker threads: the job thread does it.
    None,
}

/// What every run of a job has in common: metadata that is not in the task.
#[derive(Debug)]
pub struct Context {
    /// The job.
    pub job: JobName,
    /// The names of its queues; a task's `queue` is a position in this list.
    pub queues: Vec<Arc<str>>,
    /// `retry.max_attempts`
    pub max_attempts: u32,
    /// Bytes; no body is larger when it is decoded, and no reply.
    pub max_body: u64,
    /// Whether what a handler answers is wanted.
    pub reply: bool,
}

/// A task as a handler gets it.
#[derive(Debug)]
pub struct Input<'a> {
    /// The attempt, with its message as it came.
    pub task: &'a Task,
    /// The body, decoded where the message names an encoding that is known here.
    pub body: Cow<'a, [u8]>,
}

impl Input<'_> {
    /// The encoding that the body still has.
    pub fn content_encoding(&self) -> Option<&str> {
        match self.body {
            Cow::Borrowed(_) => self.task.message.properties.content_encoding.as_deref(),
            Cow::Owned(_) => None,
        }
    }
}

impl Handler {
    /// Prepares what is the same for every run. A handler that cannot work says so at its first run, as
    /// [`Outcome::Broken`].
    pub fn new(config: &config::Handler, context: Arc<Context>) -> Self {
        match config {
            config::Handler::Command(config) => Self::Command(command::CommandHandler::new(config, context)),
            config::Handler::Http(config) => Self::Http(http::HttpHandler::new(config, context)),
            config::Handler::Worker(_) | config::Handler::Forward(_) | config::Handler::Discard => Self::None,
        }
    }

    /// Runs a batch of tasks to its end, and answers each, in their order; called by the worker thread that owns the
    /// handler.
    ///
    /// Blocks for at most the handler's `timeout` and `kill_grace`, and a few seconds more where the kernel is slow to
    /// end a killed process; returns early once `stop` is raised.
    pub fn run(&mut self, tasks: &[Arc<Task>], stop: &Stop) -> Vec<Answer> {
        tasks.iter().map(|task| self.run_one(&Input { task, body: Cow::Borrowed(&task.message.body) }, stop)).collect()
    }

    fn run_one(&mut self, input: &Input<'_>, stop: &Stop) -> Answer {
        match self {
            Self::Command(handler) => handler.run(input, stop),
            Self::Http(handler) => handler.run(input, stop),
            Self::None => Outcome::Done.into(),
        }
    }
}

/// Raised once, by the job thread, when running handlers must end now. Any number of workers wait on it.
///
/// It is a descriptor (an eventfd that stays readable), so that a worker can wait on it together with its process.
#[derive(Debug, Clone)]
pub struct Stop(Arc<OwnedFd>);

impl Stop {
    /// A stop that is not raised. Fails where the process has no descriptor left.
    pub fn new() -> io::Result<Self> {
        Ok(Self(Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?)))
    }

    /// Raises it for good; raising it again changes nothing.
    pub fn raise(&self) {
        // The one possible failure is a counter that is full, and then it is raised.
        let _ = rustix::io::write(&*self.0, &1_u64.to_ne_bytes());
    }

    /// Whether it was raised.
    pub fn is_raised(&self) -> bool {
        let mut raised = [PollFd::new(&*self.0, PollFlags::IN)];
        loop {
            match poll(&mut raised, Some(&Timespec::default())) {
                Ok(ready) => return ready > 0,
                Err(rustix::io::Errno::INTR) => {}
                Err(_) => return false,
            }
        }
    }
}

impl AsFd for Stop {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_raised_stop_is_seen_by_every_clone_and_stays_raised() {
        let stop = Stop::new().unwrap();
        let clone = stop.clone();
        assert!(!clone.is_raised());
        stop.raise();
        stop.raise();
        assert!(clone.is_raised() && clone.is_raised() && stop.is_raised());
    }

    #[test]
    fn each_kind_runs_its_tasks() {
        let context = Arc::new(command::tests::context());
        let config = config::Command {
            argv: vec!["/bin/sh".into(), "-c".into(), "read line; exit $line".into()],
            timeout: std::time::Duration::from_secs(60),
            kill_grace: std::time::Duration::ZERO,
            env: std::collections::BTreeMap::new(),
            cwd: None,
        };
        let stop = Stop::new().unwrap();
        let mut command = Handler::new(&config::Handler::Command(config), context);
        let run = |handler: &mut Handler, body: &[u8]| {
            let answers = handler.run(&[Arc::new(command::tests::task(body))], &stop);
            answers.into_iter().map(|answer| answer.outcome).collect::<Vec<_>>()
        };
        for body in [b"75\n", b"65\n"] {
            assert_ne!(run(&mut command, body), [Outcome::Done]);
        }
        assert_eq!(run(&mut command, b"0\n"), [Outcome::Done]);
    }
}
