//! Wiring: starts every thread, waits, and ends them in the order that loses nothing.
//!
//! Start: the address of `[http]`, store, recorder, publisher, jobs, control socket, HTTP, then `READY`. Stop: the jobs drain
//! (they need recorder and publisher for it), then the publisher, HTTP and the control socket, and last the recorder. A store that fails ends everything
//! at once: what is not acknowledged comes again.

mod watch;

use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use log::{info, warn};

use crate::broker::publisher::{self, Publisher};
use crate::config::{self, Config};
use crate::control::Control;
use crate::handler;
use crate::job::{self, Command, JobHandle, Wiring};
use crate::panel::{Panel, PanelJob};
use crate::store::{Recorder, Store, StoreError};
use crate::web::{self, Web};
use watch::{Alive, Beats, Watchdog};

/// How often `run --until-empty` asks.
const EMPTY_POLL: Duration = Duration::from_millis(100);
/// How long systemd is told nothing while the jobs find their broker. `systemctl start` returns when it is told, and what follows
/// it in a script may publish to a queue that a job creates. A broker that is away longer is waited for afterwards.
const SETTLING: Duration = Duration::from_secs(3);
/// How often it is asked whether they have.
const SETTLING_POLL: Duration = Duration::from_millis(20);
/// How late at most it is told how often something was not told.
const LOG_POLL: Duration = Duration::from_secs(10);
/// After a drain's own deadlines: a thread that is not done by then never will be. The jobs have it first, then the publisher.
pub const JOIN_PATIENCE: Duration = Duration::from_secs(10);

/// Why the daemon ended with an error.
#[derive(Debug)]
pub enum DaemonError {
    /// The store.
    Store(StoreError),
    /// Another daemon answers on the control socket.
    SocketInUse(PathBuf),
    /// The address of `[http]` cannot be had.
    Address(SocketAddr, io::Error),
    /// The system refused something that is needed to start.
    System {
        /// What was tried.
        doing: &'static str,
        /// What the system said.
        error: io::Error,
    },
    /// A thread ended that must not: a bug.
    Ended(String),
    /// A thread did not end when it was told to.
    Hung(String),
}

impl std::fmt::Display for DaemonError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Store(error) => error.fmt(f),
            Self::SocketInUse(path) => {
                write!(f, "another warrend answers on {}: stop it, or set another control.socket", path.display())
            }
            Self::Address(listen, error) => {
                let mend = "stop what listens there, or set another http.listen";
                write!(f, "cannot listen on {listen} for HTTP: {error}; {mend}")
            }
            Self::System { doing, error } => write!(f, "cannot {doing}: {error}"),
            Self::Ended(thread) => write!(f, "the thread {thread} ended on its own, which is a bug; its log says why"),
            Self::Hung(thread) => {
                write!(f, "the thread {thread} did not end in time; nothing that was recorded is lost")
            }
        }
    }
}

impl std::error::Error for DaemonError {}

impl From<StoreError> for DaemonError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

fn system(doing: &'static str) -> impl FnOnce(io::Error) -> DaemonError {
    move |error| DaemonError::System { doing, error }
}

/// What `main` hears.
#[derive(Debug)]
pub enum Signal {
    /// SIGTERM or SIGINT.
    Stop,
    /// A thread ended.
    Gone(String),
}

/// Runs the daemon until it is told to stop; with `until_empty` until nothing is left to do.
pub fn run(config: Config, until_empty: bool) -> Result<(), DaemonError> {
    handler::raise_files();
    let (signals, inbox) = crossbeam_channel::bounded(64);
    let daemon = Daemon::start(config, &signals)?;
    watch::catch_signals(signals).map_err(system("catch signals"))?;
    daemon.serve(&inbox, until_empty)
}

fn panel_job(job: &JobHandle) -> PanelJob {
    PanelJob { name: Arc::clone(&job.name), id: job.id, commands: job.commands.clone() }
}

struct Daemon {
    shutdown: config::Shutdown,
    panel: Panel,
    recorder: Recorder,
    publisher: Publisher,
    jobs: Vec<JobHandle>,
    control: Control,
    web: Option<Web>,
    watchdog: Watchdog,
}

impl Daemon {
    fn start(config: Config, signals: &Sender<Signal>) -> Result<Self, DaemonError> {
        let started = Instant::now();
        let mut beats = Beats::new(started);
        let listener = config.http.listen.map(listen).transpose()?;
        let store = Store::open(&config.store)?;
        let jobs: Vec<_> = config.jobs.into_iter().filter(|job| job.enabled).collect();
        let mut ids = Vec::new();
        let mut retention = BTreeMap::new();
        for job in &jobs {
            let id = store.job_id(&job.name)?;
            if job.in_doubt == config::InDoubt::Run {
                store.forget_starts(id)?;
            }
            ids.push((id, store.reader(id)?, store.pause(id)?));
            retention.insert(id, job.idempotency.retention);
        }
        let broker = Arc::new(config.broker);
        let beat = beats.add("recorder");
        let alive = Alive::new("recorder", signals);
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let recorder = Recorder::spawn(store, retention, host.clone(), move || beat.tick(), alive)
            .map_err(system("start the recorder"))?;
        let capacity = jobs.len() * job::CREDIT + 1;
        let beat = beats.add("publisher");
        let alive = Alive::new("publisher", signals);
        let publisher = publisher::spawn(Arc::clone(&broker), capacity, move || beat.tick(), alive)
            .map_err(system("start the publisher"))?;
        let mut handles = Vec::new();
        for (job, (id, reader, pause)) in jobs.into_iter().zip(ids) {
            let name = format!("job:{}", job.name);
            let beat = beats.add(&name);
            let wiring = Wiring {
                broker: Arc::clone(&broker),
                id,
                reader,
                pause,
                recorder: recorder.requests.clone(),
                publisher: publisher.requests.clone(),
                host: host.clone(),
                beat: Box::new(move || beat.tick()),
                alive: Box::new(Alive::new(&name, signals)),
            };
            handles.push(job::spawn(job, wiring).map_err(system("start a job's threads"))?);
        }
        let panel = Panel {
            jobs: handles.iter().map(panel_job).collect(),
            recorder: recorder.requests.clone(),
            publisher: publisher.inspect.clone(),
            started,
            stopping: Arc::new(AtomicBool::new(false)),
        };
        let alive = Alive::new("control", signals);
        let control = Control::spawn(&config.control.socket, panel.clone(), alive).map_err(|error| {
            if error.kind() == io::ErrorKind::AddrInUse {
                DaemonError::SocketInUse(config.control.socket.clone())
            } else {
                DaemonError::System { doing: "open the control socket", error }
            }
        })?;
        let web = listener.map(|listener| serve_http(listener, &panel, &beats, signals)).transpose()?;
        let watchdog = Watchdog::new(beats);
        Ok(Self { shutdown: config.shutdown, panel, recorder, publisher, jobs: handles, control, web, watchdog })
    }

    /// Waits for a reason to stop, then stops.
    fn serve(mut self, signals: &Receiver<Signal>, until_empty: bool) -> Result<(), DaemonError> {
        info!("warrend {} runs {} jobs", env!("CARGO_PKG_VERSION"), self.jobs.len());
        let mut settling = Some(Instant::now() + SETTLING);
        let mut empty = 0;
        loop {
            if settling.is_some_and(|until| Instant::now() >= until || self.panel.is_settled()) {
                settling = None;
                self.watchdog.ready(self.jobs.len());
            }
            let patience = match settling {
                Some(_) => SETTLING_POLL,
                None if until_empty => EMPTY_POLL,
                None => self.watchdog.interval().min(LOG_POLL),
            };
            match signals.recv_timeout(patience) {
                Ok(Signal::Stop) => break,
                Ok(Signal::Gone(thread)) => return Err(self.on_gone(thread)),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(DaemonError::Ended("signals".to_owned()));
                }
            }
            self.watchdog.feed();
            log::logger().flush();
            // Twice in a row: between two questions of the first time a message may have moved from one job's queue to
            // another's.
            empty = if until_empty && self.panel.is_empty() { empty + 1 } else { 0 };
            if empty == 2 {
                break;
            }
        }
        self.stop(signals)
    }

    /// A thread is gone without having been told to. The recorder says why, and so does a job that cannot read the store;
    /// anything else is a bug.
    fn on_gone(self, thread: String) -> DaemonError {
        let job = |job: &JobHandle| thread.strip_prefix("job:") == Some(&*job.name);
        let ended = if thread == "recorder" {
            Some(self.recorder.thread)
        } else {
            self.jobs.into_iter().find(job).map(|job| job.thread)
        };
        match ended.map(JoinHandle::join) {
            Some(Ok(Err(error))) => DaemonError::Store(error),
            Some(Ok(Ok(())) | Err(_)) | None => DaemonError::Ended(thread),
        }
    }

    fn stop(mut self, signals: &Receiver<Signal>) -> Result<(), DaemonError> {
        let until = Instant::now() + self.shutdown.timeout;
        self.panel.stopping.store(true, Ordering::Relaxed);
        self.watchdog.stopping();
        info!("stopping: running handlers have {} s to finish", self.shutdown.timeout.as_secs());
        for job in &self.jobs {
            tell(job, Command::Drain(until));
        }
        let mut until = until;
        for job in &self.jobs {
            while !job.thread.is_finished() {
                match signals.recv_timeout(Duration::from_millis(50)) {
                    Ok(Signal::Stop) => {
                        warn!("a second signal: running handlers are ended now");
                        until = Instant::now();
                        for job in &self.jobs {
                            tell(job, Command::Hurry);
                        }
                    }
                    Ok(Signal::Gone(thread)) if thread == "recorder" => {
                        return Err(self.on_gone(thread));
                    }
                    Ok(Signal::Gone(_)) | Err(_) => {}
                }
                self.watchdog.feed();
                if Instant::now() > until + job::LAST_WORDS + JOIN_PATIENCE {
                    return Err(DaemonError::Hung(format!("job:{}", job.name)));
                }
            }
        }
        self.publisher.stop(Instant::now() + JOIN_PATIENCE);
        self.control.stop();
        if let Some(web) = self.web {
            web.stop();
        }
        // With every sender gone the recorder commits what it has and ends.
        drop((self.panel, self.recorder.requests));
        for job in self.jobs {
            join(job.thread, &job.name)?;
        }
        match self.recorder.thread.join() {
            Ok(recorded) => recorded?,
            Err(_) => return Err(DaemonError::Ended("recorder".to_owned())),
        }
        info!("stopped");
        Ok(())
    }
}

fn listen(listen: SocketAddr) -> Result<TcpListener, DaemonError> {
    web::bind(listen).map_err(|error| DaemonError::Address(listen, error))
}

fn serve_http(
    listener: TcpListener,
    panel: &Panel,
    beats: &Beats,
    signals: &Sender<Signal>,
) -> Result<Web, DaemonError> {
    let beats = beats.clone();
    let hanging = Arc::new(move || beats.hanging().map(str::to_owned));
    Web::spawn(listener, panel.clone(), hanging, || Alive::new("web", signals)).map_err(system("start the HTTP server"))
}

fn tell(job: &JobHandle, command: Command) {
    // A job that is ending has dropped its inbox; one that hangs is found by the deadline.
    let _ = job.commands.send_timeout(command, Duration::from_secs(1));
}

fn join(thread: JoinHandle<Result<(), StoreError>>, name: &str) -> Result<(), DaemonError> {
    Ok(thread.join().map_err(|_| DaemonError::Ended(format!("job:{name}")))??)
}
