//! The worker threads of one job: each runs one task at a time.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};

use crate::handler::{Context, Handler, Stop};
use crate::task::{ErrorClass, Failure, Outcome, Task, Ticket};
use crate::{config, failpoint};

/// A task that ended.
#[derive(Debug)]
pub struct Finished {
    /// Its entry.
    pub ticket: Ticket,
    /// What became of it.
    pub outcome: Outcome,
    /// How long the handler ran.
    pub ran: Duration,
}

/// The threads and the channels to them; owned by the job thread.
#[derive(Debug)]
pub struct Workers {
    /// Room for one task a thread. The job sends one only while fewer tasks than threads run, so it never waits.
    tasks: Sender<(Ticket, Arc<Task>)>,
    /// Room for one result a thread, so no worker waits to report.
    pub finished: Receiver<Finished>,
    /// Keeps `finished` connected where there are no threads: a disconnected channel is always ready.
    _results: Sender<Finished>,
    /// Raised when running handlers must end.
    pub stop: Stop,
    threads: Vec<JoinHandle<()>>,
}

impl Workers {
    /// Starts `job.concurrency` threads named `work:<job>:<n>`; none for a handler that has nothing to run.
    pub fn spawn(job: &config::Job) -> std::io::Result<Self> {
        let (tasks, inbox) = crossbeam_channel::bounded::<(Ticket, Arc<Task>)>(job.concurrency);
        let (outbox, finished) = crossbeam_channel::bounded(job.concurrency);
        let stop = Stop::new()?;
        let context = Arc::new(Context {
            job: Arc::clone(&job.name),
            queues: job.queues.iter().map(|queue| Arc::clone(&queue.name)).collect(),
            max_attempts: job.retry.max_attempts,
        });
        let mut threads = Vec::new();
        let count = if job.handler == config::Handler::Discard { 0 } else { job.concurrency };
        for n in 1..=count {
            let handler = Handler::new(&job.handler, Arc::clone(&context));
            let worker = Worker { handler, inbox: inbox.clone(), outbox: outbox.clone(), stop: stop.clone() };
            let thread = std::thread::Builder::new().name(format!("work:{}:{n}", job.name));
            threads.push(thread.spawn(move || worker.work())?);
        }
        Ok(Self { tasks, finished, _results: outbox, stop, threads })
    }

    /// Gives a task to a free thread.
    pub fn run(&self, ticket: Ticket, task: Arc<Task>) {
        let sent = self.tasks.try_send((ticket, task));
        debug_assert!(sent.is_ok(), "the job runs no more tasks than it has threads");
    }

    /// Lets the threads end and waits for them; each is at most at the end of its task.
    pub fn join(self) {
        drop(self.tasks);
        for thread in self.threads {
            // A worker catches the panics of its handler; one of its own has been printed.
            let _ = thread.join();
        }
    }
}

struct Worker {
    handler: Handler,
    inbox: Receiver<(Ticket, Arc<Task>)>,
    outbox: Sender<Finished>,
    stop: Stop,
}

impl Worker {
    fn work(mut self) {
        while let Ok((ticket, task)) = self.inbox.recv() {
            failpoint::hit("before-run");
            let began = Instant::now();
            let run = catch_unwind(AssertUnwindSafe(|| self.handler.run(&task, &self.stop)));
            let outcome = run.unwrap_or_else(|_| {
                let error = "warrend itself failed while it ran the handler; its log says where".to_owned();
                Outcome::Retry(Failure { class: ErrorClass::Failed, error })
            });
            failpoint::hit("after-run");
            if self.outbox.send(Finished { ticket, outcome, ran: began.elapsed() }).is_err() {
                return;
            }
        }
    }
}
