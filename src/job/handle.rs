//! What the daemon sees of a job: how it is started, what it can be told and asked, and what it answers.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

use crossbeam_channel::Sender;

use super::Job;
use super::timing::Histograms;
use super::workers::Workers;
use crate::broker::publisher::PublishRequest;
use crate::store::{JobId, Pause, Reader, Request, StoreError};
use crate::task::MessageKey;
use crate::{background, config, report};

/// What a job thread can be told or asked.
#[derive(Debug)]
pub enum Command {
    /// Say how it is.
    Inspect(Sender<Inspection>),
    /// Say whether nothing is left to do: queues, delay ladder and flight are empty.
    IsEmpty(Sender<bool>),
    /// Say at which attempt a key is in flight here, and what it is at.
    Find(MessageKey, Sender<Option<(u32, &'static str)>>),
    /// Say whether a key, or with none any message, is in flight here; where not, what is remembered of it besides the
    /// records is forgotten. The answer is how many messages stand against that.
    Forget(Option<MessageKey>, Sender<usize>),
    /// Stop taking because somebody said so, or go on.
    Pause(Option<Pause>),
    /// Stop taking, let running handlers finish until then, give back the rest, end.
    Drain(Instant),
    /// The same, but running handlers have whatever time their own settings give them; until then copies may be confirmed.
    Retire(Instant),
    /// End running handlers now; what is finished is still recorded.
    Hurry,
}

/// A job's answer to [`Command::Inspect`].
#[derive(Debug)]
pub struct Inspection {
    /// For `status`.
    pub report: report::Job,
    /// Its connection; absent while there is none.
    pub link: Option<LinkReport>,
    /// What is wrong.
    pub findings: Vec<report::Finding>,
    /// For `/metrics`.
    pub figures: Figures,
}

/// What `status` shows otherwise, or not at all.
#[derive(Debug)]
pub struct Figures {
    /// Whether its connection stands.
    pub connected: bool,
    /// Times and batches since the start of the daemon.
    pub histograms: Histograms,
    /// Each reason that can keep the job from taking messages, and whether it does.
    pub pauses: [(&'static str, bool); 4],
    /// What the reason and the problems quote of a handler that failed.
    pub quoted: Option<String>,
}

/// A job's connection.
#[derive(Debug)]
pub struct LinkReport {
    /// `host:port`
    pub host: String,
    /// Virtual host.
    pub vhost: String,
    /// Product and version.
    pub server: String,
    /// The version of TLS, if any.
    pub tls: Option<&'static str>,
}

/// What a job needs from the daemon.
pub struct Wiring {
    /// `[broker]`
    pub broker: Arc<config::Broker>,
    /// The job's number in the store.
    pub id: JobId,
    /// Its own look at the store.
    pub reader: Reader,
    /// Whether it was paused by hand before.
    pub pause: Option<Pause>,
    /// To the recorder.
    pub recorder: Sender<Request>,
    /// To the publisher.
    pub publisher: Sender<PublishRequest>,
    /// This host's name, for dead letters.
    pub host: String,
    /// Ticks at each turn of the loop, for the watchdog.
    pub beat: Box<dyn Fn() + Send>,
    /// Dropped when the thread ends.
    pub alive: Box<dyn Send>,
}

/// A running job thread.
#[derive(Debug)]
pub struct JobHandle {
    /// Its name.
    pub name: Arc<str>,
    /// Its number in the store.
    pub id: JobId,
    /// Bounded; senders give up after a while.
    pub commands: Sender<Command>,
    /// Joins when the job has drained, with its look at the store for the one that follows it; or with the error of the store
    /// that ended it.
    pub thread: JoinHandle<Result<Reader, StoreError>>,
}

/// Starts the thread `job:<name>` and its workers.
pub fn spawn(config: config::Job, wiring: Wiring) -> std::io::Result<JobHandle> {
    let (name, id) = (Arc::clone(&config.name), wiring.id);
    // Commands are rare: a few inspections at once, a drain, a hurry.
    let (commands, inbox) = crossbeam_channel::bounded(16);
    let workers = Workers::spawn(&config)?;
    let job = Job::new(config, wiring, workers, inbox);
    let thread = std::thread::Builder::new().name(format!("job:{name}")).spawn(move || {
        background::enter();
        job.run()
    })?;
    Ok(JobHandle { name, id, commands, thread })
}
