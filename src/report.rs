//! What a running daemon says of itself: the shape of `status --json`, and of the answers on the control socket.
//!
//! Every number is measured. What is not known is absent (`null`), never guessed.

mod alert;
mod reload;
mod system;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use alert::{Alert, Alerts, Notified, Tested};
pub use reload::{Change, Reload, Reloading};
pub use system::{Host, ProcessUse, System};

/// The version of this shape. It grows by fields; an incompatible change would count it up.
pub const SCHEMA: u32 = 1;

/// The whole status.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Status {
    /// [`SCHEMA`]
    pub schema: u32,
    /// Of the program.
    pub version: String,
    /// Process id.
    pub pid: u32,
    /// Whole seconds since the start.
    pub uptime_s: u64,
    /// `running` or `stopping`.
    pub state: String,
    /// Whether there is no problem.
    pub healthy: bool,
    /// One sentence each: what is wrong and what to do.
    pub problems: Vec<String>,
    /// The same in parts, for those who group them or offer the command.
    #[serde(default)]
    pub findings: Vec<Finding>,
    /// The connections.
    pub broker: Broker,
    /// The SQLite file.
    pub store: Store,
    /// By name.
    pub jobs: BTreeMap<String, Job>,
    /// The process and the machine.
    #[serde(default)]
    pub system: System,
    /// The last time that the configuration was read anew; absent where it never was.
    #[serde(default)]
    pub reload: Option<Reloading>,
    /// `[[alerts]]`, each for each of its jobs; absent where it is not known how they are.
    #[serde(default)]
    pub alerts: Option<Vec<Alert>>,
}

/// The command that helps where RabbitMQ does not do what is asked of it: it says why, and what mends it.
pub const DOCTOR: &str = "warrend check --online";

/// Something that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// The job that it is about; absent where it is about the daemon.
    pub job: Option<String>,
    /// What is wrong, without the name of the job.
    pub what: String,
    /// The command that helps next, where there is one.
    pub help: Option<String>,
}

impl Finding {
    /// About a job.
    pub fn of_job(job: &str, what: impl Into<String>) -> Self {
        Self { job: Some(job.to_owned()), what: what.into(), help: None }
    }

    /// About the daemon.
    pub fn of_daemon(what: impl Into<String>) -> Self {
        Self { job: None, what: what.into(), help: None }
    }

    /// With the command that helps next.
    pub fn help(self, command: impl Into<String>) -> Self {
        Self { help: Some(command.into()), ..self }
    }

    /// All of it, as it stands in [`Status::problems`].
    pub fn sentence(&self) -> String {
        let Self { job, what, help } = self;
        let whose = job.as_ref().map_or_else(String::new, |job| format!("job {job}: "));
        let help = help.as_ref().map_or_else(String::new, |help| format!("; try `{help}`"));
        format!("{whose}{what}{help}")
    }
}

/// The broker as the daemon's connections see it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Broker {
    /// Whether every connection stands.
    pub connected: bool,
    /// `host:port` of the first job's connection.
    pub host: Option<String>,
    /// Virtual host.
    pub vhost: Option<String>,
    /// Product and version.
    pub server: Option<String>,
    /// The version of TLS on that connection, such as `TLSv1.3`; absent where it is not encrypted, or not there.
    #[serde(default)]
    pub tls: Option<String>,
    /// Whether the broker refuses to take copies for now (a resource alarm).
    pub blocked: bool,
    /// Connections that were lost and made again, over all jobs and the publisher.
    pub reconnects: u64,
}

/// The store.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Store {
    /// The file.
    pub path: String,
    /// Remembered attempts.
    pub records: Option<i64>,
    /// Bytes of the file.
    pub bytes: Option<u64>,
    /// Bytes of its write-ahead log.
    pub wal_bytes: Option<u64>,
    /// Free on its file system, for users other than root.
    #[serde(default)]
    pub free_bytes: Option<u64>,
    /// The size of that file system.
    #[serde(default)]
    pub disk_bytes: Option<u64>,
    /// Commits since the start.
    pub commits: Option<u64>,
    /// Milliseconds of the last commit.
    pub last_commit_ms: Option<f64>,
}

/// One job. Counts are since the start of the daemon.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Job {
    /// `running`, `connecting`, `paused`, `probing`, `draining` or `silent` (it did not answer in time).
    pub state: String,
    /// Why it is not running.
    pub reason: Option<String>,
    /// Whether it was paused by hand.
    #[serde(default)]
    pub paused: Option<Paused>,
    /// Unacknowledged messages that each queue may have here: the value in force.
    #[serde(default)]
    pub prefetch: u16,
    /// Whether that is measured (`prefetch = "auto"`).
    #[serde(default)]
    pub prefetch_auto: bool,
    /// When the handler of a job that paused itself is probed next, Unix milliseconds.
    #[serde(default)]
    pub probe_ms: Option<i64>,
    /// Attempts that were running when the last daemon died, with `in_doubt = "dead"`.
    #[serde(default)]
    pub in_doubt: usize,
    /// Handlers at work.
    pub running: usize,
    /// How many may be at work at a time.
    #[serde(default)]
    pub concurrency: Option<usize>,
    /// Messages that are forwarded, and requests whose answer is on its way: the broker has not confirmed them yet.
    #[serde(default)]
    pub owing: usize,
    /// Answers to requests that the broker took.
    #[serde(default)]
    pub replies: u64,
    /// Answers that could not be delivered: most often the caller had gone.
    #[serde(default)]
    pub replies_lost: u64,
    /// Messages received that wait for a worker.
    pub buffered: usize,
    /// Everything received that is not acknowledged.
    #[serde(default)]
    pub in_flight: usize,
    /// Deliveries.
    pub received: u64,
    /// Tasks that a handler completed.
    pub done: u64,
    /// Deliveries that were dropped because their key is done or in flight.
    pub duplicates: u64,
    /// Failed attempts that will be tried again.
    pub retried: u64,
    /// Messages dead-lettered.
    pub dead: u64,
    /// The same by their error class, as far as there were any.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub dead_by_class: BTreeMap<String, u64>,
    /// Deliveries handed back to their queue.
    pub requeued: u64,
    /// Attempts ended by a signal.
    pub crashed: u64,
    /// With a `worker` handler: processes that were replaced, by the reason; empty for other handlers.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub worker_restarts: BTreeMap<String, u64>,
    /// Ack frames sent.
    pub acks: u64,
    /// Completed tasks a second, over the last minute.
    pub rate_1m: f64,
    /// Milliseconds in the handler.
    pub run_ms: Percentiles,
    /// Milliseconds from delivery to start.
    pub wait_ms: Percentiles,
    /// By name.
    pub queues: BTreeMap<String, Queue>,
    /// Where its failures go.
    pub dead_letter: DeadLetter,
    /// The last failure's text.
    pub last_error: Option<String>,
    /// When it happened, Unix milliseconds.
    #[serde(default)]
    pub last_error_ms: Option<i64>,
    /// Messages whose copy waits for the broker's confirm.
    pub forwarding: usize,
    /// Connections that were lost and made again.
    pub reconnects: u64,
    /// How many of them were given up because a queue delivered nothing, though the connection stood.
    #[serde(default)]
    pub stalls: u64,
    /// Whether one of its queues is not seen to be well since.
    #[serde(default)]
    pub stalled: bool,
    /// Milliseconds that the oldest message has waited that is here and has not begun, since its publisher's timestamp where it
    /// has one; 0 where none waits anywhere, absent where some wait in the queues alone.
    #[serde(default)]
    pub oldest_wait_ms: Option<f64>,
}

impl Job {
    /// Whether it takes messages from all of its queues as it is configured to.
    pub fn is_consuming(&self) -> bool {
        self.state == "running" && self.queues.values().all(|queue| queue.consumed)
    }
}

/// Where a key is in flight.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct FoundAll {
    /// By job; empty where nobody has it.
    pub found: Vec<Found>,
}

/// A key in flight in one job.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Found {
    /// The job.
    pub job: String,
    /// The attempt.
    pub attempt: u32,
    /// What it is at, to go after "is".
    pub stage: String,
}

/// How far the store is with forgetting.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Upkeep {
    /// Records that are forgotten.
    pub forgotten: u64,
    /// Bytes that the disk has back.
    pub given_back: u64,
    /// Nothing is left to do.
    pub finished: bool,
}

/// A pause by hand.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Paused {
    /// Why, where it was said.
    pub reason: Option<String>,
    /// Who did it.
    pub by: String,
    /// When, Unix milliseconds.
    pub since_ms: i64,
}

/// Over the last one to two minutes; absent without samples.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct Percentiles {
    /// Median.
    pub p50: Option<f64>,
    /// 95th percentile.
    pub p95: Option<f64>,
    /// 99th percentile.
    pub p99: Option<f64>,
}

/// A work queue, as the broker counts it.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct Queue {
    /// Messages ready for delivery.
    pub ready: Option<u32>,
    /// Consumers, ours and others'.
    pub consumers: Option<u32>,
    /// Whether this job consumes it now.
    #[serde(default)]
    pub consumed: bool,
}

/// A dead-letter queue.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct DeadLetter {
    /// Its name.
    pub queue: String,
    /// Messages in it.
    pub ready: Option<u32>,
}

#[cfg(test)]
mod tests;
