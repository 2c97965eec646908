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

/// Batches that are faster than this wait at their threads already when one ends. Slower ones are held back, so that a more
/// urgent message can still overtake them.
const FAST: Duration = Duration::from_millis(2);

/// Acks a second that need not wait for others.
const MOST_PROMPT_ACKS: f64 = 500.0;

/// Address space that must be free before a thread is started. The standard library maps a small stack for signals in a thread
/// that has been started already, and ends the process where it cannot. Before that the thread may map an arena of the
/// allocator, for a moment of 128 MiB; so much has to be free beside the thread's own stack. An allocation of this size is a
/// mapping of its own, which leaves nothing behind (mallopt(3)).
const ROOM: usize = 160 << 20;

/// What a thread reports.
#[derive(Debug)]
enum Report {
    /// A batch, and the processes that were replaced meanwhile.
    Ended { finished: Vec<Finished>, restarts: Vec<Restart> },
    /// It panicked outside of its handler, and is gone with its batch.
    Died,
}

/// The threads and the channels to them; owned by the job thread.
#[derive(Debug)]
pub struct Workers {
    /// Room for two batches a thread, of which one may run. The job sends no more than that, so it never waits.
    batches: Sender<Batch>,
    /// Room for two reports a thread, so no worker waits to report.
    reports: Receiver<Report>,
    /// Keeps `reports` connected where there are no threads: a disconnected channel is always ready.
    _outbox: Sender<Report>,
    /// Processes that were replaced, in the order of [`Restart::ALL`].
    restarts: [u64; Restart::ALL.len()],
    /// Batches that are with the threads.
    under_way: usize,
    /// Whether a thread is gone that must not be.
    pub lost_one: bool,
    /// What a batch takes, as a mean that follows soon.
    pace: Option<Duration>,
    /// Raised when running handlers must end.
    pub stop: Stop,
    threads: Vec<JoinHandle<()>>,
}

impl Workers {
    /// Starts `job.concurrency` threads named `work:<job>:<n>`; none for a handler that has nothing to run.
    pub fn spawn(job: &config::Job) -> std::io::Result<Self> {
        let (batches, inbox) = crossbeam_channel::bounded::<Batch>(2 * job.concurrency);
        let (outbox, reports) = crossbeam_channel::bounded(2 * job.concurrency);
        let stop = Stop::new()?;
        let context = Arc::new(Context {
            job: Arc::clone(&job.name),
            queues: job.queues.iter().map(|queue| Arc::clone(&queue.name)).collect(),
            max_attempts: job.retry.max_attempts,
            max_body: job.max_body,
            reply: job.reply,
        });
        let mut threads = Vec::new();
        let (begun, begins) = crossbeam_channel::bounded(1);
        let count = if job.handler.has_workers() { job.concurrency } else { 0 };
        for n in 1..=count {
            let (config, context) = (job.handler.clone(), Arc::clone(&context));
            let handler = Handler::new(&config, Arc::clone(&context));
            let (inbox, outbox, stop) = (inbox.clone(), outbox.clone(), stop.clone());
            let worker = Worker { handler, config, context, inbox, outbox, stop };
            look_for_room()?;
            let begun = begun.clone();
            let thread = std::thread::Builder::new().name(format!("work:{}:{n}", job.name)).spawn(move || {
                // There is room for it, and nobody waits for it but the one who started it.
                let _ = begun.send(());
                worker.work();
            });
            threads.push(thread?);
            // One at a time: the room that the next one finds is not what this one still needs.
            begins.recv().map_err(std::io::Error::other)?;
        }
        let restarts = [0; Restart::ALL.len()];
        Ok(Self {
            batches,
            reports,
            _outbox: outbox,
            restarts,
            under_way: 0,
            lost_one: false,
            pace: None,
            stop,
            threads,
        })
    }

    /// How many batches the threads take: one each, and where batches are fast another one, so that no thread waits for the
    /// job between two.
    pub fn free(&self) -> usize {
        let each = if self.pace.is_some_and(|pace| pace < FAST) { 2 } else { 1 };
        (each * self.threads.len()).saturating_sub(self.under_way)
    }

    /// Whether they are so slow that it costs nothing to acknowledge what they do at once.
    pub fn are_slow(&self) -> bool {
        self.pace.is_some_and(|pace| self.threads.len() as f64 <= MOST_PROMPT_ACKS * pace.as_secs_f64())
    }

    /// Gives a batch to the threads, while some are [`Workers::free`].
    pub fn run(&mut self, batch: Batch) {
        self.under_way += 1;
        let sent = self.batches.try_send(batch);
        debug_assert!(sent.is_ok(), "the job sends no more batches than the threads take");
    }

    /// Has `select` wait for a batch that ends.
    pub fn watch<'a>(&'a self, select: &mut Select<'a>) {
        select.recv(&self.reports);
    }

    /// The batches that have ended.
    pub fn take_finished(&mut self) -> Vec<Vec<Finished>> {
        let mut ended = Vec::new();
        while let Ok(report) = self.reports.try_recv() {
            self.under_way -= 1;
            let Report::Ended { finished, restarts } = report else {
                self.lost_one = true;
                continue;
            };
            for restart in restarts {
                self.restarts[restart as usize] += 1;
            }
            if let Some(Finished { ran, .. }) = finished.first() {
                self.pace = Some(self.pace.map_or(*ran, |pace| (3 * pace + *ran) / 4));
            }
            ended.push(finished);
        }
        ended
    }

    /// How many processes were replaced, by the reason.
    pub fn restarts(&self) -> impl Iterator<Item = (Restart, u64)> {
        Restart::ALL.into_iter().zip(self.restarts)
    }

    /// Lets the threads end and waits for them; each is at most at the end of its task.
    pub fn join(self) {
        drop(self.batches);
        for thread in self.threads {
            // One that panicked has been printed and reported.
            let _ = thread.join();
        }
    }
}

struct Worker {
    handler: Handler,
    config: config::Handler,
    context: Arc<Context>,
    inbox: Receiver<Batch>,
    outbox: Sender<Report>,
    stop: Stop,
}

/// An error where there is no [`ROOM`] for another thread. The memory is asked for, never touched, and given back at once.
fn look_for_room() -> std::io::Result<()> {
    let mut room = Vec::<u8>::new();
    room.try_reserve_exact(ROOM).map_err(|_| std::io::ErrorKind::OutOfMemory)?;
    // Or the compiler would leave out an allocation that nobody uses.
    std::hint::black_box(room);
    Ok(())
}

impl Worker {
    fn work(mut self) {
        while let Ok(batch) = self.inbox.recv() {
            failpoint::hit("before-run");
            let (tickets, tasks): (Vec<_>, Vec<_>) = batch.into_iter().unzip();
            let began = Instant::now();
            let run = catch_unwind(AssertUnwindSafe(|| self.handler.run(&tasks, &self.stop)));
            let answers = run.unwrap_or_else(|_| {
                // Nobody knows what state a panic left it in. Dropped, it ends its process before the tasks are answered.
                self.handler = Handler::new(&self.config, Arc::clone(&self.context));
                let error = "warrend itself failed while it ran the handler; its log says where".to_owned();
                let outcome = Outcome::Retry(Failure { class: ErrorClass::Failed, error });
                vec![outcome.into(); tasks.len()]
            });
            debug_assert_eq!(answers.len(), tickets.len(), "a handler answers each of its tasks");
            failpoint::hit("after-run");
            let ran = began.elapsed();
            let finished = tickets.into_iter().zip(answers);
            let finished = finished.map(|(ticket, answer)| Finished { ticket, answer, ran }).collect();
            let report = Report::Ended { finished, restarts: self.handler.take_restarts() };
            if self.outbox.send(report).is_err() {
                return;
            }
        }
    }
}

impl Drop for Worker {
    /// A job that goes on without one of its threads would hold that thread's batch for ever.
    fn drop(&mut self) {
        if std::thread::panicking() {
            // There is room: the thread has not reported the batch that it took.
            let _ = self.outbox.try_send(Report::Died);
        }
    }
}
