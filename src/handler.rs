//! What runs a task: one file per kind of handler.
//!
//! Each worker thread owns one [`Handler`] and calls [`Handler::run`] for one batch of tasks after another; a batch is one
//! task for all kinds but `worker`. The failure of a task is an [`Outcome`], never an error. Absent on purpose: the broker,
//! the store, and any decision about retries.

pub mod command;
pub mod http;
pub mod notice;
mod process;
pub mod worker;

use std::borrow::Cow;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

pub use self::process::exec::set_limits;
use crate::task::{Answer, Failure, JobName, Message, Outcome, Task};
use crate::{config, encoding};

/// The handler of one worker thread.
#[derive(Debug)]
pub enum Handler {
    /// A program run once for each task.
    Command(command::CommandHandler),
    /// A long-lived process that gets batches of tasks.
    Worker(Box<worker::WorkerHandler>),
    /// A POST for each task.
    Http(Box<http::HttpHandler>),
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

impl<'a> Input<'a> {
    /// Decodes the body of a task, or says why the task can never run.
    pub fn of(task: &'a Task, max_body: u64) -> Result<Self, Failure> {
        let Message { properties, body, .. } = &task.message;
        let body = encoding::decode(properties.content_encoding.as_deref(), body, max_body)?;
        Ok(Self { task, body })
    }

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
            config::Handler::Worker(config) => Self::Worker(Box::new(worker::WorkerHandler::new(config, context))),
            config::Handler::Http(config) => Self::Http(Box::new(http::HttpHandler::new(config, context))),
            config::Handler::Forward(_) | config::Handler::Discard => Self::None,
        }
    }

    /// Runs a batch of tasks to its end, and answers each, in their order; called by the worker thread that owns the
    /// handler.
    ///
    /// Blocks for at most the handler's `timeout` and `kill_grace`, and a few seconds more where the kernel is slow to
    /// end a killed process; returns early once `stop` is raised. A worker process that has to be started first may take
    /// ten seconds to say hello, and as many pass before one that failed is replaced.
    pub fn run(&mut self, tasks: &[Arc<Task>], stop: &Stop) -> Vec<Answer> {
        match self {
            Self::Command(handler) => {
                let max_body = handler.context.max_body;
                run_fit(tasks, max_body, |inputs| inputs.iter().map(|input| handler.run(input, stop)).collect())
            }
            Self::Worker(handler) => {
                let max_body = handler.context.max_body;
                run_fit(tasks, max_body, |inputs| handler.run(inputs, stop))
            }
            Self::Http(handler) => {
                let max_body = handler.context.max_body;
                run_fit(tasks, max_body, |inputs| inputs.iter().map(|input| handler.run(input, stop)).collect())
            }
            Self::None => tasks.iter().map(|_| Outcome::Done.into()).collect(),
        }
    }

    /// Why processes were replaced since this was last asked.
    pub fn take_restarts(&mut self) -> Vec<worker::Restart> {
        match self {
            Self::Worker(handler) => handler.take_restarts(),
            Self::Command(_) | Self::Http(_) | Self::None => Vec::new(),
        }
    }
}

/// Decodes the bodies of a batch, has `run` answer the tasks that can run, and answers all of them, in their order: one
/// whose body is broken, or larger than `max_body` bytes once it is decoded, is dead without a run, and costs its
/// neighbours nothing. `run` gives one answer for each of its inputs.
fn run_fit(tasks: &[Arc<Task>], max_body: u64, run: impl FnOnce(&[Input<'_>]) -> Vec<Answer>) -> Vec<Answer> {
    let mut inputs = Vec::with_capacity(tasks.len());
    let mut unfit = Vec::new();
    for (index, task) in tasks.iter().enumerate() {
        match Input::of(task, max_body) {
            Ok(input) => inputs.push(input),
            Err(failure) => unfit.push((index, failure)),
        }
    }
    let mut answers = if inputs.is_empty() { Vec::new() } else { run(&inputs) };
    // From the first on, each index is where its answer stands once those before it are in.
    for (index, failure) in unfit {
        answers.insert(index, Outcome::Dead(failure).into());
    }
    answers
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
        self.is_raised_within(Duration::ZERO)
    }

    /// Waits until it is raised, for that long at most, and says whether it was.
    pub fn is_raised_within(&self, patience: Duration) -> bool {
        let until = Instant::now() + patience;
        let mut raised = [PollFd::new(&*self.0, PollFlags::IN)];
        loop {
            let left = until.saturating_duration_since(Instant::now());
            match poll(&mut raised, Some(&Timespec::try_from(left).unwrap_or_default())) {
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
    use crate::encoding::Encoding;

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

    fn encoded(content_encoding: &str, body: &[u8]) -> Arc<Task> {
        let mut task = command::tests::task(body);
        task.message.properties.content_encoding = Some(content_encoding.to_owned());
        Arc::new(task)
    }

    #[test]
    fn a_body_that_cannot_be_decoded_is_dead_and_its_neighbours_run() {
        let gzip = |body: &[u8]| encoded("gzip", &Encoding::Gzip.encode(body).unwrap());
        let tasks = [
            encoded("gzip", b"no gzip"),
            gzip(b"a"),
            encoded("utf-8", b"b"),
            gzip(b"far too long"),
            encoded("zstd", b""),
            gzip(b"c"),
        ];
        let mut ran = Vec::new();
        let answers = run_fit(&tasks, 5, |inputs| {
            ran.extend(inputs.iter().map(|input| (input.body.to_vec(), input.content_encoding().map(str::to_owned))));
            let number = |(number, _)| Outcome::Broken(format!("answer {number}")).into();
            inputs.iter().enumerate().map(number).collect()
        });
        let utf8 = Some("utf-8".to_owned());
        assert_eq!(ran, [(b"a".to_vec(), None), (b"b".to_vec(), utf8), (b"c".to_vec(), None)]);
        let told = answers.iter().map(|answer| match &answer.outcome {
            Outcome::Dead(failure) => failure.class.as_str(),
            Outcome::Broken(number) => number,
            other @ (Outcome::Done | Outcome::Retry(_) | Outcome::Interrupted(_) | Outcome::NotBegun) => {
                panic!("{other:?}")
            }
        });
        let expect = ["undecodable", "answer 0", "answer 1", "oversize", "undecodable", "answer 2"];
        assert_eq!(told.collect::<Vec<_>>(), expect);
    }

    #[test]
    fn where_no_task_is_fit_nothing_runs() {
        let answers = run_fit(&[encoded("gzip", b"no gzip")], 5, |_| panic!("it ran"));
        assert!(matches!(&answers[..], [Answer { outcome: Outcome::Dead(_), .. }]));
    }
}
