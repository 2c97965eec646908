//! The worker threads of one job: each runs one batch at a time, which for most handlers is one task.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Select, Sender};

use crate::handler::worker::Restart;
use crate::handler::{Context, Handler, Stop};
use crate::task::{Answer, ErrorClass, Failure, Outcome, Task, Ticket};
use crate::{config, failpoint};

/// What one thread gets at a time; never empty.
pub type Batch = Vec<(Ticket, Arc<Task>)>;

/// A task that ended.
#[derive(Debug)]
pub struct Finished {
    /// Its entry.
    pub ticket: Ticket,
    /// What became of it.
    pub answer: Answer,
    /// How long the handler ran, for the whole batch.
    pub ran: Duration,
}

/// What a thread reports of one batch.
#[derive(Debug)]
struct Report {
    finished: Vec<Finished>,
    /// Processes that were replaced meanwhile.
    restarts: Vec<Restart>,
}

/// The threads and the channels to them; owned by the job thread.
#[derive(Debug)]
pub struct Workers {
    /// Room for one batch a thread. The job sends one only while a thread is idle, so it never waits.
    batches: Sender<Batch>,
    /// Room for one report a thread, so no worker waits to report.
    reports: Receiver<Report>,
    /// Keeps `reports` connected where there are no threads: a disconnected channel is always ready.
    _outbox: Sender<Report>,
    /// Processes that were replaced, in the order of [`Restart::ALL`].
    restarts: [u64; Restart::ALL.len()],
    /// Threads that have a batch.
    busy: usize,
    /// Raised when running handlers must end.
    pub stop: Stop,
    threads: Vec<JoinHandle<()>>,
}

impl Workers {
    /// Starts `job.concurrency` threads named `work:<job>:<n>`; none for a handler that has nothing to run.
    pub fn spawn(job: &config::Job) -> std::io::Result<Self> {
        let (batches, inbox) = crossbeam_channel::bounded::<Batch>(job.concurrency);
        let (outbox, reports) = crossbeam_channel::bounded(job.concurrency);
        let stop = Stop::new()?;
        let context = Arc::new(Context {
            job: Arc::clone(&job.name),
            queues: job.queues.iter().map(|queue| Arc::clone(&queue.name)).collect(),
            max_attempts: job.retry.max_attempts,
            max_body: job.max_body,
            reply: job.reply,
        });
        let mut threads = Vec::new();
        let count = if job.handler.has_workers() { job.concurrency } else { 0 };
        for n in 1..=count {
            let handler = Handler::new(&job.handler, Arc::clone(&context));
            let worker = Worker { handler, inbox: inbox.clone(), outbox: outbox.clone(), stop: stop.clone() };
            let thread = std::thread::Builder::new().name(format!("work:{}:{n}", job.name));
            threads.push(thread.spawn(move || worker.work())?);
        }
        let restarts = [0; Restart::ALL.len()];
        Ok(Self { batches, reports, _outbox: outbox, restarts, busy: 0, stop, threads })
    }

    /// Threads without a batch.
    pub fn idle(&self) -> usize {
        self.threads.len() - self.busy
    }

    /// Gives a batch to an idle thread.
    pub fn run(&mut self, batch: Batch) {
        self.busy += 1;
        let sent = self.batches.try_send(batch);
        debug_assert!(sent.is_ok(), "the job runs no more batches than it has threads");
    }

    /// Has `select` wait for a batch that ends.
    pub fn watch<'a>(&'a self, select: &mut Select<'a>) {
        select.recv(&self.reports);
    }

    /// A batch that ended, if one did.
    pub fn take_finished(&mut self) -> Option<Vec<Finished>> {
        let Report { finished, restarts } = self.reports.try_recv().ok()?;
        self.busy -= 1;
        for restart in restarts {
            self.restarts[restart as usize] += 1;
        }
        Some(finished)
    }

    /// How many processes were replaced, by the reason.
    pub fn restarts(&self) -> impl Iterator<Item = (Restart, u64)> {
        Restart::ALL.into_iter().zip(self.restarts)
    }

    /// Lets the threads end and waits for them; each is at most at the end of its task.
    pub fn join(self) {
        drop(self.batches);
        for thread in self.threads {
            // A worker catches the panics of its handler; one of its own has been printed.
            let _ = thread.join();
        }
    }
}

struct Worker {
    handler: Handler,
    inbox: Receiver<Batch>,
    outbox: Sender<Report>,
    stop: Stop,
}

impl Worker {
    fn work(mut self) {
        while let Ok(batch) = self.inbox.recv() {
            failpoint::hit("before-run");
            let (tickets, tasks): (Vec<_>, Vec<_>) = batch.into_iter().unzip();
            let began = Instant::now();
            let run = catch_unwind(AssertUnwindSafe(|| self.handler.run(&tasks, &self.stop)));
            let answers = run.unwrap_or_else(|_| {
                let error = "warrend itself failed while it ran the handler; its log says where".to_owned();
                let outcome = Outcome::Retry(Failure { class: ErrorClass::Failed, error });
                vec![outcome.into(); tasks.len()]
            });
            debug_assert_eq!(answers.len(), tickets.len(), "a handler answers each of its tasks");
            failpoint::hit("after-run");
            let ran = began.elapsed();
            let finished = tickets.into_iter().zip(answers);
            let finished = finished.map(|(ticket, answer)| Finished { ticket, answer, ran }).collect();
            let report = Report { finished, restarts: self.handler.take_restarts() };
            if self.outbox.send(report).is_err() {
                return;
            }
        }
    }
}
