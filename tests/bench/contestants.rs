//! Who takes part in the table, how its queue is filled, how it is started, and that nothing was lost.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use uuid::Uuid;

use crate::measure::{Measured, watch};
use crate::support::broker::{Vhost, with_id};
use crate::support::daemon::{DAEMON_TIMEOUT, Daemon};
use crate::support::{holds_within, random_uuid, wait_until};
use crate::{ACK_BATCH, BODY, NAME, text_from, tree};

/// Handlers of one time for everyone whose work is not one loop.
pub const CONCURRENCY: usize = 2;
/// How long a peer may take to stop.
const STOP: Duration = Duration::from_secs(20);

/// One row of the table.
#[derive(Debug)]
pub struct Contestant {
    /// As `ONLY` selects it.
    pub name: &'static str,
    /// Messages of one drain, for one of about five seconds on two cores.
    pub messages: u32,
    fill: Fill,
    consumers: u32,
    kind: Kind,
    /// Whether it is the build of `BASELINE` that runs.
    pub baseline: bool,
}

#[derive(Debug, Clone, Copy)]
enum Fill {
    /// A JSON body, and a message id in the order of time (UUIDv7).
    Ordered,
    /// The same with a random id (UUIDv4), as most publishers make them.
    Random,
    /// No body: amqp-consume dies of a program that does not read it.
    Empty,
    /// The peer publishes in a format of its own.
    Script(&'static str),
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Bare,
    /// What stands in the job's table, in that of its handler, and how many messages wait for one ack: so many fewer than
    /// the prefetch that the broker always has room to go on.
    Warrend {
        job: &'static str,
        handler: &'static str,
        ack: usize,
    },
    Pika,
    /// Pool and prefetch multiplier.
    Celery(&'static str, u32),
    /// Messages that a process holds; 0 is Dramatiq's own default.
    Dramatiq(u32),
    AmqpConsume(&'static [&'static str]),
}

/// In what order they stand in the table. The prefetches of the peers are the best of several that were tried.
pub const ALL: [Contestant; 18] = [
    Contestant::new("bare", 200_000, Fill::Random, Kind::Bare),
    Contestant::new(
        "discard-v7",
        200_000,
        Fill::Ordered,
        Kind::Warrend { job: LARGE, handler: "discard = true", ack: ACK_BATCH },
    ),
    Contestant::new(
        "discard-v4",
        200_000,
        Fill::Random,
        Kind::Warrend { job: LARGE, handler: "discard = true", ack: ACK_BATCH },
    ),
    Contestant::new(
        "baseline-v7",
        200_000,
        Fill::Ordered,
        Kind::Warrend { job: LARGE, handler: "discard = true", ack: ACK_BATCH },
    )
    .baseline(),
    Contestant::new(
        "baseline-v4",
        200_000,
        Fill::Random,
        Kind::Warrend { job: LARGE, handler: "discard = true", ack: ACK_BATCH },
    )
    .baseline(),
    Contestant::new("forward", 50_000, Fill::Random, Kind::Warrend { job: LARGE, handler: FORWARD, ack: ACK_BATCH }),
    Contestant::new(
        "worker-50",
        80_000,
        Fill::Random,
        Kind::Warrend { job: "prefetch = 400", handler: WORKER_50, ack: ACK_BATCH },
    ),
    Contestant::new("worker-1", 50_000, Fill::Random, Kind::Warrend { job: SMALL, handler: WORKER_1, ack: 20 }),
    Contestant::new("pika", 50_000, Fill::Random, Kind::Pika),
    Contestant::new("dramatiq", 40_000, Fill::Script("dramatiq_app.py"), Kind::Dramatiq(100)),
    Contestant::new("dramatiq-default", 20_000, Fill::Script("dramatiq_app.py"), Kind::Dramatiq(0)),
    Contestant::new("celery-threads", 12_000, Fill::Script("celery_app.py"), Kind::Celery("threads", 16)),
    Contestant::new("celery-prefork", 12_000, Fill::Script("celery_app.py"), Kind::Celery("prefork", 64)),
    Contestant::new("command-empty", 12_000, Fill::Empty, Kind::Warrend { job: SMALL, handler: COMMAND_TRUE, ack: 20 }),
    Contestant::new("amqp-consume-empty", 10_000, Fill::Empty, Kind::AmqpConsume(&["/bin/true"])),
    Contestant::new(
        "command-body",
        10_000,
        Fill::Random,
        Kind::Warrend { job: SMALL, handler: COMMAND_READER, ack: 20 },
    ),
    Contestant::new("amqp-consume-body", 8_000, Fill::Random, Kind::AmqpConsume(&READER)),
    Contestant::new("command-true", 12_000, Fill::Random, Kind::Warrend { job: SMALL, handler: COMMAND_TRUE, ack: 20 }),
];

/// The keys below `[jobs.bench]` beside its queue.
const LARGE: &str = "prefetch = 1000";
const SMALL: &str = "prefetch = 100";

const FORWARD: &str = "forward = { exchange = \"\", routing_key = \"out\" }";
const WORKER_1: &str = "worker = [\"PYTHON\", \"SCRIPTS/worker.py\"]";
const WORKER_50: &str = "worker = [\"PYTHON\", \"SCRIPTS/worker.py\"]\nbatch = 50";
const COMMAND_TRUE: &str = "command = [\"/bin/true\"]";
/// Reads its input, says nothing, and costs hardly more than `true`.
const READER: [&str; 3] = ["/bin/dd", "of=/dev/null", "status=none"];
const COMMAND_READER: &str = "command = [\"/bin/dd\", \"of=/dev/null\", \"status=none\"]";

impl Contestant {
    const fn new(name: &'static str, messages: u32, fill: Fill, kind: Kind) -> Self {
        let consumers = match kind {
            Kind::AmqpConsume(_) | Kind::Dramatiq(_) => CONCURRENCY as u32,
            Kind::Bare | Kind::Warrend { .. } | Kind::Pika | Kind::Celery(..) => 1,
        };
        Self { name, messages, fill, consumers, kind, baseline: false }
    }

    const fn baseline(self) -> Self {
        Self { baseline: true, ..self }
    }

    /// Fills a fresh queue and has it drained.
    pub fn run(&self, messages: u32) -> Measured {
        let vhost = Vhost::new();
        self.fill(&vhost, messages);
        let measured = match self.kind {
            Kind::Warrend { job, handler, ack } => self.run_warrend(&vhost, messages, (job, handler, ack)),
            Kind::Bare | Kind::Pika | Kind::Celery(..) | Kind::Dramatiq(_) | Kind::AmqpConsume(_) => {
                self.run_peer(&vhost, messages)
            }
        };
        tree::nothing_left();
        assert_eq!(vhost.ready(NAME), Some(0), "{} left messages behind", self.name);
        measured
    }

    fn fill(&self, vhost: &Vhost, messages: u32) {
        match self.fill {
            Fill::Ordered => fill(vhost, messages, Uuid::now_v7),
            Fill::Random => fill(vhost, messages, random_uuid),
            Fill::Empty => {
                vhost.declare(NAME);
                vhost.publish_all(NAME, (0..messages).map(|_| (Vec::new(), with_id(&random_uuid().to_string()))));
            }
            Fill::Script(script) => {
                let mut producer = self.python(vhost, &[script, &messages.to_string()]);
                assert!(producer.status().is_ok_and(|status| status.success()), "{script} failed: {}", peer_log());
            }
        }
        wait_until("the queue is filled", DAEMON_TIMEOUT, || vhost.ready(NAME) == Some(messages));
    }

    fn run_warrend(&self, vhost: &Vhost, messages: u32, (job, handler, ack): (&str, &str, usize)) -> Measured {
        if handler == FORWARD {
            vhost.declare("out");
        }
        let mut warrend =
            Warrend::new(vhost, &format!("concurrency = {CONCURRENCY}\n{job}"), handler, &format!("batch = {ack}"));
        if let Some(program) = baseline().filter(|_| self.baseline) {
            warrend.daemon.set_program(&program);
        }
        warrend.daemon.spawn(&[]);
        let measured = watch(vhost, messages, self.consumers, || warrend.is_alive());
        warrend.stop(messages);
        if handler == FORWARD {
            assert_eq!(vhost.ready("out"), Some(messages), "what was forwarded has arrived");
        }
        measured
    }

    fn run_peer(&self, vhost: &Vhost, messages: u32) -> Measured {
        // Two processes of amqp-consume, since one runs one program at a time.
        let many = if matches!(self.kind, Kind::AmqpConsume(_)) { CONCURRENCY } else { 1 };
        let start = || self.peer(vhost, messages).spawn();
        let started = (0..many).map(|_| start().unwrap_or_else(|error| panic!("{} cannot start: {error}", self.name)));
        let mut peers = Peers(started.collect());
        // A bare and a pika consumer end by themselves, in the moment of the last message.
        let alive = || peers.0.iter_mut().all(|peer| matches!(peer.try_wait(), Ok(None)));
        let measured = watch(vhost, messages, self.consumers, alive);
        peers.stop(matches!(self.kind, Kind::Bare | Kind::Pika));
        measured
    }

    fn peer(&self, vhost: &Vhost, messages: u32) -> Command {
        let (url, messages, two) = (vhost.url(), messages.to_string(), CONCURRENCY.to_string());
        let mut command = match self.kind {
            Kind::Bare => {
                let mut command = Command::new(std::env::current_exe().expect("this program has a path"));
                command.args(["bare", &url, NAME, &messages]);
                command
            }
            Kind::Warrend { .. } => unreachable!("it is no peer"),
            Kind::Pika => self.python(vhost, &["pika_consumer.py", &url, NAME, &messages]),
            Kind::Celery(pool, multiplier) => {
                let celery = ["-m", "celery", "-A", "celery_app", "worker", "-l", "ERROR", "-P", pool, "-c", &two];
                let mut command = self.python(vhost, &celery);
                command.args(["--without-gossip", "--without-mingle", "--without-heartbeat"]);
                command.env("BENCH_PREFETCH", multiplier.to_string());
                command
            }
            Kind::Dramatiq(prefetch) => {
                let mut command = self.python(vhost, &["-m", "dramatiq", "dramatiq_app", "-p", &two, "-t", "1"]);
                if prefetch > 0 {
                    command.env("dramatiq_queue_prefetch", prefetch.to_string());
                }
                command
            }
            Kind::AmqpConsume(program) => {
                let mut command = Command::new("amqp-consume");
                command.args(["-u", &url, "-q", NAME, "-p", "20"]).args(program);
                command
            }
        };
        let log = File::create(peer_log_path()).expect("the build's folder can be written");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        command
    }

    /// The interpreter with the peers, among the scripts.
    fn python(&self, vhost: &Vhost, arguments: &[&str]) -> Command {
        let mut command = Command::new(python());
        command.args(arguments).current_dir(scripts()).stdin(Stdio::null());
        command.env("BENCH_URL", vhost.url()).env("BENCH_QUEUE", NAME);
        // The sources' folder stays as it is.
        command.env("PYTHONPYCACHEPREFIX", temporary().join("pycache"));
        command
    }
}

/// Declares the queue and fills it with JSON messages of [`BODY`] bytes.
pub fn fill(vhost: &Vhost, messages: u32, id: impl Fn() -> Uuid) {
    vhost.declare(NAME);
    vhost.publish_all(
        NAME,
        (0..messages).map(|_| {
            let id = id().to_string();
            (body(&id, ""), with_id(&id))
        }),
    );
}

/// What a message holds: its id, `more` members, and JSON within the JSON, as publishers do.
pub fn body(id: &str, more: &str) -> Vec<u8> {
    let frame = format!(r#"{{"message_id": "{id}"{more}, "payload": "\"\""}}"#);
    let padding = "x".repeat(BODY.saturating_sub(frame.len()));
    format!(r#"{{"message_id": "{id}"{more}, "payload": "\"{padding}\""}}"#).into_bytes()
}

/// Another build of warrend to compare with, where `BASELINE` names one.
pub fn baseline() -> Option<PathBuf> {
    text_from("BASELINE").map(PathBuf::from)
}

/// Where Python stands with what `tests/bench/peers.sh` installed; the worker runs in it too.
pub fn python() -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("it lies in the target folder");
    target.join("bench-python/bin/python")
}

/// The folder of the scripts.
pub fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bench")
}

/// A folder on the build's disk.
pub fn temporary() -> &'static Path {
    Path::new(env!("CARGO_TARGET_TMPDIR"))
}

fn peer_log_path() -> PathBuf {
    temporary().join("bench-peer.log")
}

fn peer_log() -> String {
    std::fs::read_to_string(peer_log_path()).unwrap_or_default()
}

/// A daemon whose store is on the disk where the build is: a commit into memory would cost nothing.
pub struct Warrend {
    /// Not started.
    pub daemon: Daemon,
    store: tempfile::TempDir,
}

impl Warrend {
    /// With the one job [`NAME`]; `PYTHON` and `SCRIPTS` in the handler are replaced.
    pub fn new(vhost: &Vhost, job: &str, handler: &str, ack: &str) -> Self {
        let handler = handler.replace("PYTHON", &python().to_string_lossy());
        let handler = handler.replace("SCRIPTS", &scripts().to_string_lossy());
        Self::with_jobs(
            vhost,
            &format!(
                "[jobs.{NAME}]\nqueue = \"{NAME}\"\n{job}\n\n\
                 [jobs.{NAME}.handler]\n{handler}\n\n[jobs.{NAME}.ack]\n{ack}\n"
            ),
        )
    }

    /// With those jobs.
    pub fn with_jobs(vhost: &Vhost, jobs: &str) -> Self {
        let mut daemon = Daemon::new(vhost, jobs);
        let store = tempfile::tempdir_in(temporary()).expect("the build's folder can be written");
        daemon.store_at(store.path().join("warrend.db"));
        Self { daemon, store }
    }

    /// True; a daemon that ended fails the run with the end of its log.
    pub fn is_alive(&mut self) -> bool {
        assert!(self.daemon.is_alive(), "the daemon ended\n{}", self.daemon.log_tail());
        true
    }

    /// The folder of its store.
    pub fn store(&self) -> &Path {
        self.store.path()
    }

    /// Checks that every message was done once, and ends it.
    pub fn stop(mut self, messages: u32) {
        let expected = u64::from(messages);
        self.daemon.wait_until("every message is counted as done", DAEMON_TIMEOUT, |daemon| {
            daemon.counter(NAME, "done") >= expected
        });
        let counted = |name| (name, self.daemon.counter(NAME, name));
        let counters = ["received", "done", "duplicates", "retried", "dead"].map(counted);
        let right = [("received", expected), ("done", expected), ("duplicates", 0), ("retried", 0), ("dead", 0)];
        assert_eq!(counters, right, "warrend's counters");
        self.end();
    }

    /// Ends it, whatever is left.
    pub fn end(mut self) {
        let status = self.daemon.terminate();
        assert!(status.success(), "warrend ended with {status}\n{}", self.daemon.log_tail());
    }
}

/// Processes that are killed if the run fails.
struct Peers(Vec<Child>);

impl Peers {
    fn stop(&mut self, by_themselves: bool) {
        if !by_themselves {
            for peer in &self.0 {
                kill_process(Pid::from_child(peer), Signal::TERM)
                    .expect("a child that was not waited for takes signals");
            }
        }
        let deadline = Instant::now() + STOP;
        for peer in &mut self.0 {
            let left = deadline.saturating_duration_since(Instant::now());
            let has_ended = holds_within(left, || !matches!(peer.try_wait(), Ok(None)));
            assert!(has_ended, "a peer does not stop: {}", peer_log());
            let status = peer.wait().expect("a child can be waited for");
            assert!(status.success() || !by_themselves, "a peer failed: {}", peer_log());
        }
        self.0.clear();
    }
}

impl Drop for Peers {
    fn drop(&mut self) {
        for peer in &mut self.0 {
            // One that ended by itself is as dead.
            let _ = peer.kill();
            let _ = peer.wait();
        }
    }
}
