//! Signals, signs of life, and what systemd is told.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use log::{error, warn};
use sd_notify::NotifyState;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::Signal;

/// A thread that has not turned its loop for this long hangs. Longer than a silent broker takes to be noticed: a broker
/// that hangs is no reason to restart.
const HANGS: Duration = Duration::from_secs(90);

/// How long a thread that ends tries to say so.
const TELLING: Duration = Duration::from_secs(5);

/// Starts the thread `signals`. SIGHUP has two meanings: read the configuration anew, and, where the daemon was started in a
/// terminal, that this one was closed. Then it ends, as orderly as by the others.
pub fn catch_signals(inbox: Sender<Signal>) -> io::Result<()> {
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP])?;
    let had_terminal = has_terminal();
    let thread = std::thread::Builder::new().name("signals".to_owned());
    thread.spawn(move || {
        for signal in &mut signals {
            let closed = signal == SIGHUP && had_terminal && !has_terminal();
            let told = if signal == SIGHUP && !closed { Signal::Reload } else { Signal::Stop };
            if inbox.send(told).is_err() {
                return;
            }
        }
    })?;
    Ok(())
}

/// Whether this process has a controlling terminal; the system takes it away before it tells of its end.
fn has_terminal() -> bool {
    std::fs::File::open("/dev/tty").is_ok()
}

/// Tells `main` when the thread that owns it ends, for whatever reason.
#[derive(Debug)]
pub struct Alive {
    thread: String,
    gone: Sender<Signal>,
}

impl Alive {
    /// For the thread of that name.
    pub fn new(thread: &str, gone: &Sender<Signal>) -> Self {
        Self { thread: thread.to_owned(), gone: gone.clone() }
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        let thread = std::thread::current().id();
        let gone = Signal::Gone { name: std::mem::take(&mut self.thread), thread };
        // Full only where many end while `main` is busy. Where it is not read any more, `main` waits for this thread.
        let _ = self.gone.send_timeout(gone, TELLING);
    }
}

/// One thread's sign of life: the milliseconds since the start at which it last turned its loop.
#[derive(Debug, Clone)]
pub struct Beat {
    started: Instant,
    at: Arc<AtomicU64>,
}

impl Beat {
    /// The thread lives.
    pub fn tick(&self) {
        let millis = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.at.store(millis, Ordering::Relaxed);
    }

    fn age(&self) -> Duration {
        self.started.elapsed().saturating_sub(Duration::from_millis(self.at.load(Ordering::Relaxed)))
    }
}

/// The signs of life of all threads.
#[derive(Debug, Clone)]
pub struct Beats {
    started: Instant,
    threads: Vec<(String, Beat)>,
}

impl Beats {
    /// None yet.
    pub fn new(started: Instant) -> Self {
        Self { started, threads: Vec::new() }
    }

    /// One more thread.
    pub fn add(&mut self, thread: &str) -> Beat {
        let beat = Beat { started: self.started, at: Arc::new(AtomicU64::new(0)) };
        beat.tick();
        self.threads.push((thread.to_owned(), beat.clone()));
        beat
    }

    /// That thread has ended.
    pub fn remove(&mut self, thread: &str) {
        self.threads.retain(|(name, _)| name != thread);
    }

    /// A thread that has not turned its loop for long.
    pub fn hanging(&self) -> Option<&str> {
        let hangs = self.threads.iter().find(|(_, beat)| beat.age() > HANGS);
        hangs.map(|(thread, _)| thread.as_str())
    }
}

/// What systemd hears. Without systemd every message goes nowhere.
#[derive(Debug)]
pub struct Watchdog {
    /// Threads come and go.
    pub(super) beats: Beats,
    /// `WatchdogSec=` of the unit.
    period: Option<Duration>,
    fed: Instant,
}

impl Watchdog {
    /// Reads what systemd set in the environment.
    pub fn new(beats: Beats) -> Self {
        Self { beats, period: sd_notify::watchdog_enabled(), fed: Instant::now() }
    }

    /// How long `main` may sleep.
    pub fn interval(&self) -> Duration {
        self.period.map_or(Duration::from_secs(3600), |period| period / 3)
    }

    /// The daemon is up; it may not have reached its broker.
    pub fn ready(&self, jobs: usize) {
        notify(&[NotifyState::Ready, NotifyState::Status(&format!("running {jobs} jobs"))]);
    }

    /// The configuration is being read anew. Units of `Type=notify-reload` want to know since when.
    pub fn reloading(&self) {
        match NotifyState::monotonic_usec_now() {
            Ok(now) => notify(&[NotifyState::Reloading, now]),
            Err(error) => warn!("no time to tell systemd: {error}"),
        }
    }

    /// That is over.
    pub fn reloaded(&self, jobs: usize, problem: Option<&str>) {
        let problem = problem.map_or_else(String::new, |problem| format!("; {problem}"));
        notify(&[NotifyState::Ready, NotifyState::Status(&format!("running {jobs} jobs{problem}"))]);
    }

    /// The daemon drains.
    pub fn stopping(&self) {
        notify(&[NotifyState::Stopping, NotifyState::Status("stopping: running handlers may finish")]);
    }

    /// Says that all is well, if it is: every job thread and the recorder must have turned their loops.
    pub fn feed(&mut self) {
        let Some(period) = self.period else { return };
        if self.fed.elapsed() < period / 4 {
            return;
        }
        self.fed = Instant::now();
        match self.beats.hanging() {
            None => notify(&[NotifyState::Watchdog]),
            Some(thread) => error!("the thread {thread} hangs; the watchdog is not fed, and systemd will restart us"),
        }
    }
}

fn notify(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        warn!("cannot notify systemd: {error}");
    }
}
