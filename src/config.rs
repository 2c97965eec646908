//! The checked configuration: what the rest of the program may rely on.
//!
//! `config::load` reads the TOML files, judges them whole and gives either a [`Config`] or every error found, each
//! with its place. A value of these types is possible by construction: nothing downstream checks a limit again.
//!
//! `load` finds, reads and parses the files; `general`, `job`, `queue`, `handler` and `alert` each read their tables by way of
//! `section` (a table) and `item` (a value); `shape` says which keys there are, `value` what durations and sizes look
//! like; `report` shows what was found, and `mask` keeps secrets out of it. `diff` compares two configurations. `schema` says the same to editors: `sketch` asks
//! the readers what they take, and `reference` takes the words that explain it from config/warrend.toml.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::task::{HeaderValue, JobName};

mod alert;
mod broker;
mod broker_url;
mod diff;
mod environment;
mod files;
mod general;
mod handler;
mod host;
mod item;
mod job;
mod load;
mod management_url;
mod mask;
mod place;
mod queue;
mod reference;
mod report;
mod schema;
mod section;
mod shape;
mod sketch;
mod syntax;
#[cfg(test)]
mod tests;
mod value;

pub use alert::{Alert, Condition, Quantity, Severity, Side, Unit};
#[cfg(test)]
pub use alert::{Watched, parse_condition};
pub use diff::{Diff, same_work};
pub use handler::kinds::{Command, Forward, Handler, Http, Part, Route, Target, Template, When, Worker};
pub use host::is_this_machine;
pub use load::{DEFAULT_PATH, Loaded, PATH_VARIABLE, check, control_socket, load, path, process_environment};
pub use reference::{Entry, reference};
pub use report::Report;
pub use schema::schema_text;
pub use value::{parse_duration, show_duration};

/// The whole configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// `[broker]`
    pub broker: Broker,
    /// `[store]`
    pub store: Store,
    /// `[control]`
    pub control: Control,
    /// `[http]`
    pub http: Web,
    /// `[shutdown]`
    pub shutdown: Shutdown,
    /// `[log]`
    pub log: Log,
    /// `[jobs.NAME]`, in the order of their names.
    pub jobs: Vec<Job>,
    /// `[[alerts]]`, in the order of the file.
    pub alerts: Vec<Alert>,
}

/// `[broker]`: how to reach RabbitMQ.
#[derive(Debug, Clone, PartialEq)]
pub struct Broker {
    /// At least one; tried in turn from a random one.
    pub hosts: Vec<BrokerHost>,
    /// Read again at each connect; wins over the passwords of the URLs.
    pub password_file: Option<PathBuf>,
    /// Whole seconds, 0 (off) to 65535.
    pub heartbeat: Duration,
    /// Bounds each of: name look-up, TCP connect and TLS handshake together; AMQP handshake.
    pub connect_timeout: Duration,
    /// Delay before the second try of a row of failed ones; grows from here, less while nobody answers.
    pub reconnect: Backoff,
    /// What the queues of the delay ladder are.
    pub delay_queues: QueueKind,
    /// The management API, for `check --online`.
    pub management: Option<Management>,
    /// For the hosts that have it.
    pub tls: Tls,
}

impl Broker {
    /// Whether a connection that was made for one does for the other too. The management API has no part in it.
    pub fn is_reached_like(&self, other: &Self) -> bool {
        let other = Self { management: self.management.clone(), ..other.clone() };
        *self == other
    }
}

/// `management_url`, taken apart.
#[derive(Clone, PartialEq, Eq)]
pub struct Management {
    /// `http://` or `https://`, the host and what follows it, up to `/api` and without it; no user, no password.
    pub url: String,
    /// User and password, where the URL has them; else they are those of AMQP.
    pub login: Option<(String, String)>,
}

impl std::fmt::Debug for Management {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Management({}, user {:?})", self.url, self.login.as_ref().map(|(user, _)| user))
    }
}

/// `[broker.tls]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// Certificates that are trusted in place of the system's.
    pub ca_file: Option<PathBuf>,
    /// What we show of ourselves.
    pub identity: Option<Identity>,
    /// How we log in.
    pub login: Login,
}

/// `cert_file` and `key_file`; both are read again at each connect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// A certificate, and those that it takes to reach an authority.
    pub cert_file: PathBuf,
    /// The key that belongs to it.
    pub key_file: PathBuf,
}

/// `auth`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Login {
    /// With the user and password of the URL.
    Password,
    /// With the certificate: the broker takes the user from it. All hosts have TLS then, and there is a certificate.
    Certificate,
}

/// One broker URL, taken apart.
#[derive(Clone, PartialEq, Eq)]
pub struct BrokerHost {
    /// Name or address, without brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Whether the URL is `amqps://`.
    pub tls: bool,
    /// User name.
    pub user: String,
    /// Password; never printed.
    pub password: String,
    /// Virtual host.
    pub vhost: String,
}

impl std::fmt::Debug for BrokerHost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "BrokerHost({self}, vhost {:?}, user {:?})", self.vhost, self.user)
    }
}

impl std::fmt::Display for BrokerHost {
    /// `host:port`, with brackets around an IPv6 address; no secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// Growing delays: `initial`, doubled up to `max`; the user adds jitter.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Backoff {
    /// First delay, above zero.
    pub initial: Duration,
    /// Largest delay, at least `initial`.
    pub max: Duration,
}

/// `[store]`
#[derive(Debug, Clone, PartialEq)]
pub struct Store {
    /// The SQLite file; absolute.
    pub path: PathBuf,
    /// How a commit is made durable.
    pub synchronous: Synchronous,
    /// How long a key is remembered, unless its job says otherwise.
    pub retention: Duration,
}

/// `store.synchronous`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Synchronous {
    /// Each commit is on the disk before it returns: survives a power cut.
    Full,
    /// Survives a crash of the process, not a power cut.
    Normal,
}

/// `[control]`
#[derive(Debug, Clone, PartialEq)]
pub struct Control {
    /// The Unix socket; absolute, at most 107 bytes.
    pub socket: PathBuf,
}

/// `[http]`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Web {
    /// Where metrics and health are served; nowhere where absent.
    pub listen: Option<SocketAddr>,
}

/// `[shutdown]`
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Shutdown {
    /// How long running handlers may finish.
    pub timeout: Duration,
}

/// `[log]`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Log {
    /// What a line looks like.
    pub format: LogFormat,
    /// The least grave that is told, where the environment does not say otherwise.
    pub level: log::LevelFilter,
}

/// `log.format`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// A sentence, for people.
    Text,
    /// `name=value` for each field.
    Logfmt,
    /// An object.
    Json,
}

/// `[jobs.NAME]`
#[derive(Debug, Clone, PartialEq)]
pub struct Job {
    /// NAME: letters, digits, `-`, `_` and `.`.
    pub name: JobName,
    /// Whether it runs at all.
    pub enabled: bool,
    /// Handlers at one time, 1 to 1024.
    pub concurrency: usize,
    /// Unacknowledged messages per queue.
    pub prefetch: Prefetch,
    /// Whether what the handler answers goes to the message's `reply_to`.
    pub reply: bool,
    /// How the next task is chosen among the queues.
    pub order: Order,
    /// Bytes; a larger body is dead-lettered.
    pub max_body: u64,
    /// At least one; names are unique within the job.
    pub queues: Vec<Queue>,
    /// What runs a task.
    pub handler: Handler,
    /// When acks are sent.
    pub ack: Ack,
    /// Where the key comes from.
    pub idempotency: Idempotency,
    /// What becomes of an attempt that was running when the daemon died.
    pub in_doubt: InDoubt,
    /// What a failure costs.
    pub retry: Retry,
    /// When so many attempts fail that the job pauses itself; never where absent.
    pub kill_switch: Option<KillSwitch>,
    /// Where messages go that failed for good.
    pub dead_letter: DeadLetter,
}

/// `prefetch`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prefetch {
    /// 1 to 65535.
    Fixed(u16),
    /// As many as keep the handlers busy, measured while the job runs.
    Auto,
}

/// `in_doubt`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InDoubt {
    /// It runs again: at least once.
    Run,
    /// It is dead-lettered: at most once. Each start is then recorded before the handler starts.
    Dead,
}

/// `order`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Each queue gets turns in proportion to its weight; none starves.
    Weighted,
    /// A queue is served only while those before it are empty.
    Strict,
}

/// `[[jobs.NAME.queues]]`
#[derive(Debug, Clone, PartialEq)]
pub struct Queue {
    /// Name on the broker.
    pub name: Arc<str>,
    /// Share under `order = "weighted"`, 1 to 1000.
    pub weight: u32,
    /// Whether a missing queue is created.
    pub declare: Declare,
    /// `x-queue-type`
    pub kind: QueueKind,
    /// `x-max-priority`, 1 to 255, classic queues only.
    pub max_priority: Option<u8>,
    /// `x-message-ttl`
    pub message_ttl: Option<Duration>,
    /// `x-max-length`
    pub max_length: Option<u64>,
    /// `x-expires`
    pub expires: Option<Duration>,
    /// Any other x-argument.
    pub arguments: BTreeMap<String, HeaderValue>,
    /// Bindings to make.
    pub bindings: Vec<Binding>,
}

/// `declare`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Declare {
    /// Looked up first, created only where missing.
    Create,
    /// Only looked up.
    Passive,
}

/// `type`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QueueKind {
    /// One node keeps it.
    Classic,
    /// Replicated by Raft.
    Quorum,
}

/// One entry of `bindings`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binding {
    /// The exchange; created where missing, durable.
    pub exchange: String,
    /// `direct`, `fanout`, `topic`, `headers`, or a plugin's type.
    pub kind: String,
    /// Routing key or pattern; empty by default.
    pub routing_key: String,
}

/// `[jobs.NAME.ack]`
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ack {
    /// Acks are sent once this many wait.
    pub batch: usize,
    /// And at the latest this long after the first of them.
    pub interval: Duration,
}

/// `[jobs.NAME.idempotency]`
#[derive(Debug, Clone, PartialEq)]
pub struct Idempotency {
    /// Where the key is read from.
    pub key: KeySource,
    /// What happens to a message without it.
    pub on_missing: OnMissing,
    /// How long a key is remembered.
    pub retention: Duration,
}

/// `key`
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySource {
    /// The `message_id` property.
    MessageId,
    /// `header:NAME`
    Header(String),
    /// `json:/pointer`: RFC 6901 into the body.
    JsonPointer(String),
    /// SHA-256 of the body.
    Body,
    /// No key: every delivery runs.
    None,
}

/// `on_missing`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnMissing {
    /// Run it without deduplication.
    Run,
    /// Dead-letter it as `no-key`.
    Dead,
    /// Take the body's SHA-256.
    Body,
}

/// `[jobs.NAME.retry]`
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Retry {
    /// Attempts that did not end in a crash, at least 1.
    pub max_attempts: u32,
    /// Delay after the first failed attempt; whole seconds, at least 1.
    pub initial: Duration,
    /// Factor from one delay to the next, 1 to 1000.
    pub multiplier: f64,
    /// Largest delay, whole seconds, from `initial` to 12 days.
    pub max: Duration,
    /// Share of the delay that is random, 0 to 1: the delay is drawn from `delay * (1 - jitter ..= 1 + jitter)`.
    pub jitter: f64,
    /// Attempts that ended in a crash, at least 1; dead after that many.
    pub max_crashes: u32,
}

/// `[jobs.NAME.kill_switch]`
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct KillSwitch {
    /// The share of attempts in the window that must have failed, 0.01 to 1.
    pub ratio: f64,
    /// Attempts that the window must hold, at least 1.
    pub min_samples: u32,
    /// How far it looks back, 1 s to 1 h.
    pub window: Duration,
    /// The first pause, 1 s to 1 h; it doubles while probes fail.
    pub restart_after: Duration,
}

/// `[jobs.NAME.dead_letter]`
#[derive(Debug, Clone, PartialEq)]
pub struct DeadLetter {
    /// Its name; `<job>.dead` by default.
    pub queue: Arc<str>,
    /// What it is created as; that of the job's first queue by default.
    pub kind: QueueKind,
    /// `x-message-ttl` of that queue; `None`: kept for ever.
    pub message_ttl: Option<Duration>,
}
