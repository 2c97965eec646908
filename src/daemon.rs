//! Wiring: starts every thread, waits, and ends them in the order that loses nothing.
//!
//! Start: the address of `[http]`, store, recorder, publisher, jobs, control socket, HTTP, then `READY`. Stop: the jobs drain
//! (they need recorder and publisher for it), then the publisher, HTTP and the control socket, and last the recorder (`end`). A store
//! that fails ends everything at once: what is not acknowledged comes again. In between `crew` keeps the jobs that are wanted running, and `reload`
//! changes which those are.

mod crew;
mod end;
mod reload;
mod watch;

use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::ThreadId;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, select};
use log::info;

use crate::alerts::Alerts;
use crate::config::{self, Config};
use crate::control::Control;
use crate::handler;
use crate::panel::{self, Order, Panel, Question, Roster};
use crate::store::{Recorder, Store, StoreError};
use crate::web::{self, Web};
use crate::who::Who;
use crew::{Crew, Memory};
pub use end::{ASKERS_PATIENCE, JOIN_PATIENCE};
use reload::{Judged, Reloads};
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
/// While jobs are on their way, `main` looks at least this often how far they are; mostly they tell.
const ON_THE_WAY: Duration = Duration::from_millis(500);
/// Questions to the alerts at one time: the control thread has one, and whoever else asks for the status.
const ASKED: usize = 16;
/// Questions to `main` at one time; whoever finds it full is told that it does not answer.
const QUESTIONS: usize = 64;
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
    /// SIGHUP.
    Reload,
    /// The files of the configuration were read.
    Judged(Box<Judged>),
    /// A thread ended.
    Gone {
        /// What it is called.
        name: String,
        /// Which of that name.
        thread: ThreadId,
    },
}

/// What `main` wakes up for.
enum Wake {
    Signal(Signal),
    Asked(Question),
    Time,
}

/// Runs the daemon of that file until it is told to stop; with `until_empty` until nothing is left to do.
pub fn run(file: &Path, config: Config, until_empty: bool) -> Result<(), DaemonError> {
    handler::set_limits();
    let (signals, inbox) = crossbeam_channel::bounded(64);
    let daemon = Daemon::start(file, config, signals.clone(), inbox)?;
    watch::catch_signals(signals).map_err(system("catch signals"))?;
    daemon.serve(until_empty)
}

struct Daemon {
    /// What is in force.
    config: Config,
    crew: Crew,
    reloads: Reloads,
    recorder: Recorder,
    control: Control,
    web: Option<Web>,
    alerts: Alerts,
    watchdog: Watchdog,
    stopping: bool,
    signals: Sender<Signal>,
    inbox: Receiver<Signal>,
    questions: Receiver<Question>,
}

impl Daemon {
    fn start(
        file: &Path,
        config: Config,
        signals: Sender<Signal>,
        inbox: Receiver<Signal>,
    ) -> Result<Self, DaemonError> {
        let started = Instant::now();
        let mut beats = Beats::new(started);
        let listener = config.http.listen.map(listen).transpose()?;
        let store = Store::open(&config.store)?;
        let mut jobs = Vec::new();
        let mut retention = BTreeMap::new();
        for job in config.jobs.iter().filter(|job| job.enabled) {
            let id = store.job_id(&job.name)?;
            if job.in_doubt == config::InDoubt::Run {
                store.forget_starts(id)?;
            }
            jobs.push((job.clone(), Memory { id, reader: store.reader(id)?, pause: store.pause(id)? }));
            retention.insert(id, job.idempotency.retention);
        }
        let beat = beats.add("recorder");
        let alive = Alive::new("recorder", &signals);
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let recorder = Recorder::spawn(store, retention, host.clone(), move || beat.tick(), alive)
            .map_err(system("start the recorder"))?;
        let (broker, requests) = (config.broker.clone(), recorder.requests.clone());
        let mut crew = Crew::new(broker, jobs.len(), requests.clone(), signals.clone(), host, &mut beats)?;
        let reloads = Reloads::new(file, jobs.len());
        for (job, memory) in jobs {
            crew.add(job, memory, &mut beats).map_err(system("start a job's threads"))?;
        }
        let (main, questions) = crossbeam_channel::bounded(QUESTIONS);
        let (alerts, asked) = crossbeam_channel::bounded(ASKED);
        let panel = Panel { main, recorder: requests, alerts, started };
        let alive = Alive::new("control", &signals);
        let control = Control::spawn(&config.control.socket, panel.clone(), alive).map_err(|error| {
            if error.kind() == io::ErrorKind::AddrInUse {
                DaemonError::SocketInUse(config.control.socket.clone())
            } else {
                DaemonError::System { doing: "open the control socket", error }
            }
        })?;
        let alive = Alive::new("alerts", &signals);
        let alerts = Alerts::spawn(config.alerts.clone(), panel.clone(), asked, alive)
            .map_err(system("start the thread of the alerts"))?;
        let web = listener.map(|listener| serve_http(listener, panel, &signals)).transpose()?;
        let watchdog = Watchdog::new(beats);
        let stopping = false;
        Ok(Self {
            config,
            crew,
            reloads,
            recorder,
            control,
            web,
            alerts,
            watchdog,
            stopping,
            signals,
            inbox,
            questions,
        })
    }

    /// Waits for a reason to stop, then stops.
    fn serve(mut self, until_empty: bool) -> Result<(), DaemonError> {
        info!("warrend {} runs {} jobs", env!("CARGO_PKG_VERSION"), self.crew.size());
        let mut settling = Some(Instant::now() + SETTLING);
        let mut empty = 0;
        loop {
            if settling.is_some_and(|until| Instant::now() >= until || panel::is_settled(&self.crew.reach())) {
                settling = None;
                self.watchdog.ready(self.crew.size());
            }
            let on_the_way = self.reloads.is_under_way() || !self.crew.waits_for().is_empty();
            let patience = match settling {
                Some(_) => SETTLING_POLL,
                None if until_empty => EMPTY_POLL,
                None if on_the_way => ON_THE_WAY.min(self.watchdog.interval()),
                None => self.watchdog.interval().min(LOG_POLL),
            };
            match self.wake(patience) {
                Wake::Signal(Signal::Stop) => break,
                Wake::Signal(Signal::Reload) => {
                    self.on_order(Order { only_asks: false, by: Who::signal("SIGHUP"), reply: None });
                }
                Wake::Signal(Signal::Judged(judged)) => self.on_judged(*judged),
                Wake::Signal(Signal::Gone { name, thread }) => {
                    if let Some(error) = self.on_gone(&name, thread) {
                        return Err(self.tell_end(error));
                    }
                }
                Wake::Asked(question) => self.on_question(question),
                Wake::Time => {}
            }
            self.crew.reap(&mut self.watchdog.beats)?;
            if self.reloads.is_under_way() || !self.crew.waits_for().is_empty() {
                self.keep_crew();
            }
            self.watchdog.feed();
            log::logger().flush();
            // Twice in a row: between two questions of the first time a message may have moved from one job's queue to
            // another's.
            let is_empty = until_empty && self.crew.waits_for().is_empty() && panel::is_empty(&self.crew.reach());
            empty = if is_empty { empty + 1 } else { 0 };
            if empty == 2 {
                break;
            }
        }
        self.stop()
    }

    fn wake(&self, patience: Duration) -> Wake {
        select! {
            // Both have senders for as long as `main` runs: it has one, and the control thread the other.
            recv(self.inbox) -> signal => signal.map_or(Wake::Time, Wake::Signal),
            recv(self.questions) -> question => question.map_or(Wake::Time, Wake::Asked),
            default(patience) => Wake::Time,
        }
    }

    fn on_question(&mut self, question: Question) {
        match question {
            Question::Roster(reply) => {
                let patience = self.config.shutdown.timeout;
                let lingering = if self.stopping { Vec::new() } else { self.crew.lingering(patience) };
                let roster = Roster {
                    jobs: self.crew.reach(),
                    publisher: self.crew.inspect_publisher(),
                    stopping: self.stopping,
                    reload: self.reloads.report(self.crew.waits_for()),
                    findings: self.reloads.finding().into_iter().chain(lingering).collect(),
                };
                // An asker that gave up has dropped its end.
                let _ = reply.try_send(roster);
            }
            // Its reply is dropped, and that is an answer.
            Question::Reload(_) if self.stopping => {}
            Question::Reload(order) => self.on_order(order),
            Question::Hanging(reply) => {
                let _ = reply.try_send(self.watchdog.beats.hanging().map(str::to_owned));
            }
        }
    }

    /// A thread is gone. That is an error unless it was told to, as jobs are that change, and publishers that nobody needs.
    fn on_gone(&mut self, name: &str, thread: ThreadId) -> Option<DaemonError> {
        if ["recorder", "control", "web", "alerts"].contains(&name) || self.crew.publisher(thread) {
            return Some(DaemonError::Ended(name.to_owned()));
        }
        self.crew.on_gone(thread, &mut self.watchdog.beats).err()
    }

    /// The recorder says itself why it ended.
    fn tell_end(self, error: DaemonError) -> DaemonError {
        if !matches!(&error, DaemonError::Ended(name) if name == "recorder") {
            return error;
        }
        match self.recorder.thread.join() {
            Ok(Err(why)) => DaemonError::Store(why),
            Ok(Ok(())) | Err(_) => error,
        }
    }
}

fn listen(listen: SocketAddr) -> Result<TcpListener, DaemonError> {
    web::bind(listen).map_err(|error| DaemonError::Address(listen, error))
}

fn serve_http(listener: TcpListener, panel: Panel, signals: &Sender<Signal>) -> Result<Web, DaemonError> {
    let asked = panel.clone();
    let hanging = Arc::new(move || asked.hanging());
    Web::spawn(listener, panel, hanging, || Alive::new("web", signals)).map_err(system("start the HTTP server"))
}
