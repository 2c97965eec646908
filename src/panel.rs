//! The daemon's instruments: asks every thread how it is and puts the answers together.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};

use crate::broker::publisher::PublisherReport;
use crate::job::{Command, Inspection};
use crate::report::{self, Status};
use crate::store;

/// How long a thread may take to answer. A job that waits for its broker cannot; it is shown as silent.
const PATIENCE: Duration = Duration::from_secs(2);

/// Handles to every thread that can be asked. Cheap to clone; holds no state of its own.
#[derive(Debug, Clone)]
pub struct Panel {
    /// In the order of the configuration.
    pub jobs: Vec<(Arc<str>, Sender<Command>)>,
    /// The recorder.
    pub recorder: Sender<store::Request>,
    /// The publisher.
    pub publisher: Sender<Sender<PublisherReport>>,
    /// Start of the daemon.
    pub started: Instant,
    /// Raised when the daemon drains.
    pub stopping: Arc<AtomicBool>,
}

impl Panel {
    /// The whole status, measured now. All threads are asked first and then waited for, so that the slowest alone
    /// decides how long it takes.
    pub fn status(&self) -> Status {
        let until = Instant::now() + PATIENCE;
        let jobs: Vec<_> = self.jobs.iter().map(|(name, job)| (name, ask(job, Command::Inspect))).collect();
        let store = ask(&self.recorder, store::Request::Inspect);
        let publisher = ask(&self.publisher, |reply| reply);

        let mut status = self.blank();
        for (name, answer) in jobs {
            add_job(&mut status, name, wait(&answer, until));
        }
        add_publisher(&mut status, wait(&publisher, until));
        add_store(&mut status, wait(&store, until));
        status.healthy = status.problems.is_empty();
        status
    }

    /// Whether every job says that nothing is left to do.
    pub fn is_empty(&self) -> bool {
        let until = Instant::now() + PATIENCE;
        let answers: Vec<_> = self.jobs.iter().map(|(_, job)| ask(job, Command::IsEmpty)).collect();
        answers.iter().all(|answer| wait(answer, until) == Some(true))
    }

    fn blank(&self) -> Status {
        let stopping = self.stopping.load(Ordering::Relaxed);
        Status {
            schema: report::SCHEMA,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            uptime_s: self.started.elapsed().as_secs(),
            state: if stopping { "stopping" } else { "running" }.to_owned(),
            healthy: false,
            problems: Vec::new(),
            broker: report::Broker { connected: true, ..report::Broker::default() },
            store: report::Store::default(),
            jobs: std::collections::BTreeMap::new(),
        }
    }
}

/// Sends a question; never waits, not even for room.
fn ask<Q, A>(asked: &Sender<Q>, question: impl FnOnce(Sender<A>) -> Q) -> Receiver<A> {
    let (reply, answer) = crossbeam_channel::bounded(1);
    // Where it cannot be sent, the reply's end is dropped and the wait ends at once.
    let _ = asked.try_send(question(reply));
    answer
}

fn wait<A>(answer: &Receiver<A>, until: Instant) -> Option<A> {
    answer.recv_deadline(until).ok()
}

fn add_job(status: &mut Status, name: &str, answer: Option<Inspection>) {
    let Some(inspection) = answer else {
        status.broker.connected = false;
        status.problems.push(format!("job {name} does not answer: it waits for RabbitMQ or for the disk"));
        let silent = report::Job { state: "silent".to_owned(), ..report::Job::default() };
        status.jobs.insert(name.to_owned(), silent);
        return;
    };
    status.problems.extend(inspection.problems);
    status.broker.reconnects += inspection.report.reconnects;
    match inspection.link {
        Some(link) if status.broker.host.is_none() => {
            status.broker.host = Some(link.host);
            status.broker.vhost = Some(link.vhost);
            status.broker.server = Some(link.server);
        }
        Some(_) => {}
        None => status.broker.connected = false,
    }
    status.jobs.insert(name.to_owned(), inspection.report);
}

fn add_publisher(status: &mut Status, answer: Option<PublisherReport>) {
    let Some(publisher) = answer else {
        status.broker.connected = false;
        status.problems.push("the publisher does not answer: it waits for RabbitMQ".to_owned());
        return;
    };
    status.broker.connected &= publisher.connected;
    status.broker.blocked = publisher.blocked;
    status.broker.reconnects += publisher.reconnects;
    if publisher.blocked {
        let problem = "RabbitMQ takes no messages for now (memory or disk alarm): copies of failed attempts wait";
        status.problems.push(problem.to_owned());
    }
    if !publisher.connected {
        let reason = publisher.last_error.unwrap_or_else(|| "not connected yet".to_owned());
        status.problems.push(format!("publisher: {reason}"));
    }
}

fn add_store(status: &mut Status, answer: Option<store::StoreReport>) {
    let Some(store) = answer else {
        status.problems.push("the recorder does not answer: it waits for the disk".to_owned());
        return;
    };
    status.problems.extend(store.problem);
    status.store = report::Store {
        path: store.path.display().to_string(),
        records: Some(store.records),
        bytes: store.bytes,
        wal_bytes: store.wal_bytes,
        commits: Some(store.commits),
        last_commit_ms: store.last_commit.map(|took| (took.as_secs_f64() * 1e6).round() / 1e3),
    };
}
