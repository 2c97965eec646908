//! Reading the configuration anew while the daemon runs.
//!
//! 1. A thread of its own reads and judges the files, as `warrend check` does: they may lie on a disk that hangs. One at a time,
//!    so that whoever came last is judged by what the files said last.
//! 2. `main` compares them with what is in force. Faulty ones change nothing, and so do sound ones that change what the daemon
//!    stands on (its store, its socket): what runs is always what one state of the files says, never a mixture of two.
//! 3. The crew is told what is wanted from now on, and the reload is over when that runs. Meanwhile another one may come;
//!    it only changes what is wanted.
//!
//! `${NAME}` in the files is what it was in the environment that the daemon was started with.

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::time::Instant;

use crossbeam_channel::Sender;
use log::{error, info, warn};

use super::{Daemon, Signal};
use crate::config::{self, Config, Diff, Loaded, Report};
use crate::panel::Order;
use crate::report::{self, Finding, Reloading};
use crate::store::{self, Act, Deed, SPARE_JOBS};
use crate::task::UnixMillis;
use crate::who::{ACTS, Who};

/// What the judging thread found.
#[derive(Debug)]
pub struct Judged {
    order: Order,
    /// Absent where the thread panicked.
    loaded: Option<Result<Loaded, Report>>,
}

/// The reloads of a daemon.
#[derive(Debug)]
pub struct Reloads {
    /// As it was given, but absolute.
    file: PathBuf,
    /// Whether the files are being judged.
    judging: bool,
    /// Who wants them to be judged next. Bounded: each asker waits for its answer, and those who wait for none are one.
    waiting: VecDeque<Order>,
    last: Option<Last>,
    /// systemd waits to hear that it is over.
    announced: bool,
    /// The most jobs that the recorder has room for.
    capacity: usize,
}

/// The last time that somebody wanted the files to be in force.
#[derive(Debug)]
struct Last {
    number: u64,
    began: Instant,
    at: UnixMillis,
    by: String,
    state: State,
}

#[derive(Debug, PartialEq)]
enum State {
    /// What runs is not yet what the files say.
    UnderWay,
    Done,
    /// The files were not taken up.
    Refused(String),
    /// They were, and not all of it could be started so far.
    Lacking(String),
}

impl Reloads {
    /// None yet, of a daemon that was started with that file and so many jobs.
    pub fn new(file: &Path, jobs: usize) -> Self {
        // A daemon may change its folder; the file stays where it is.
        let file = std::path::absolute(file).unwrap_or_else(|_| file.to_path_buf());
        Self {
            file,
            judging: false,
            waiting: VecDeque::new(),
            last: None,
            announced: false,
            capacity: jobs + SPARE_JOBS,
        }
    }

    /// Whether it is still to be told that what runs is what the files say.
    pub fn is_under_way(&self) -> bool {
        let state = self.last.as_ref().map(|last| &last.state);
        matches!(state, Some(State::UnderWay | State::Lacking(_)))
    }

    /// The same with the command that says more.
    pub fn finding(&self) -> Option<Finding> {
        let finding = Finding::of_daemon(self.problem()?);
        match &self.last.as_ref()?.state {
            State::Refused(_) => Some(finding.help("warrend reload --check")),
            State::UnderWay | State::Done | State::Lacking(_) => Some(finding),
        }
    }

    /// What `status` says until one goes well.
    pub fn problem(&self) -> Option<String> {
        let last = self.last.as_ref()?;
        let at = jiff::Timestamp::from_millisecond(last.at.0).unwrap_or_default();
        last.state.reason().map(|reason| format!("the reload by {} at {at:.0} failed: {reason}", last.by))
    }

    /// Where the last one stands, while these jobs are waited for.
    pub fn report(&self, waits_for: Vec<String>) -> Option<Reloading> {
        let last = self.last.as_ref()?;
        let state = match last.state {
            State::UnderWay => "under way",
            State::Done => "done",
            State::Refused(_) | State::Lacking(_) => "failed",
        };
        Some(Reloading {
            number: last.number,
            at_ms: last.at.0,
            by: last.by.clone(),
            state: state.to_owned(),
            reason: last.state.reason().map(str::to_owned),
            waits_for,
        })
    }

    fn begin(&mut self, by: &Who, state: State) {
        let number = self.last.as_ref().map_or(1, |last| last.number + 1);
        self.last = Some(Last { number, began: Instant::now(), at: UnixMillis::now(), by: by.to_string(), state });
    }
}

impl State {
    fn reason(&self) -> Option<&str> {
        match self {
            Self::UnderWay | Self::Done => None,
            Self::Refused(reason) | Self::Lacking(reason) => Some(reason),
        }
    }
}

/// Reads and judges the files, and tells `main`.
fn judge(file: PathBuf, order: Order, signals: Sender<Signal>) -> io::Result<()> {
    let judging = std::thread::Builder::new().name("judge".to_owned());
    let judging = judging.spawn(move || {
        // Without an answer nobody could reload any more.
        let loaded =
            std::panic::catch_unwind(AssertUnwindSafe(|| config::check(&file, &config::process_environment))).ok();
        // A daemon that has ended meanwhile needs it no more.
        let _ = signals.send(Signal::Judged(Box::new(Judged { order, loaded })));
    });
    judging.map(|_| ())
}

impl Daemon {
    /// Somebody wants the files to be read.
    pub(super) fn on_order(&mut self, order: Order) {
        if !order.only_asks {
            info!("reading {} anew, for {}", self.reloads.file.display(), order.by);
        }
        self.announce(&order);
        // Whoever sends the signal twice is served by one reading that begins after both.
        let is_told_nothing = |order: &Order| order.reply.is_none();
        if !is_told_nothing(&order) || !self.reloads.waiting.iter().any(is_told_nothing) {
            self.reloads.waiting.push_back(order);
        }
        self.judge_next();
    }

    fn judge_next(&mut self) {
        while !self.reloads.judging
            && let Some(order) = self.reloads.waiting.pop_front()
        {
            let by = order.by.clone();
            match judge(self.reloads.file.clone(), order, self.signals.clone()) {
                Ok(()) => self.reloads.judging = true,
                Err(error) => self.fail(&by, format!("no thread to read the configuration with: {error}")),
            }
        }
    }

    /// The files were read.
    pub(super) fn on_judged(&mut self, judged: Judged) {
        let Judged { order, loaded } = judged;
        self.reloads.judging = false;
        let mut answer = report::Reload {
            schema: report::SCHEMA,
            verdict: String::new(),
            reason: None,
            file: self.reloads.file.display().to_string(),
            changes: Vec::new(),
            findings: serde_json::Value::Null,
            findings_text: String::new(),
            patience_ms: u64::try_from(self.config.shutdown.timeout.as_millis()).unwrap_or(u64::MAX),
            reload: None,
        };
        match loaded {
            None => {
                let reason = "the files could not be judged, which is a bug: the log says why; nothing has changed";
                (answer.verdict, answer.reason) = ("refused".to_owned(), Some(reason.to_owned()));
                if !order.only_asks {
                    self.fail(&order.by, reason.to_owned());
                }
            }
            Some(Err(report)) => self.refuse_bad(&order, &report, &mut answer),
            Some(Ok(Loaded { config, warnings, files: _ })) => {
                (answer.findings, answer.findings_text) = (warnings.to_json(), warnings.render(false));
                self.compare(&order, config, &warnings, &mut answer);
            }
        }
        if !order.only_asks {
            answer.reload = self.reloads.report(self.crew.waits_for());
        }
        if let Some(reply) = order.reply {
            // An asker that gave up has dropped its end.
            let _ = reply.try_send(answer);
        }
        self.judge_next();
    }

    fn refuse_bad(&mut self, order: &Order, report: &Report, answer: &mut report::Reload) {
        (answer.findings, answer.findings_text) = (report.to_json(), report.render(false));
        answer.verdict = "bad".to_owned();
        let errors = report.errors();
        let plural = if errors == 1 { "" } else { "s" };
        let reason = format!(
            "the configuration has {errors} error{plural}, see `warrend check`; the settings before it stay in force"
        );
        answer.reason = Some(reason.clone());
        if !order.only_asks {
            report.lines().iter().for_each(|line| error!(target: ACTS, "{line}"));
            self.fail(&order.by, reason);
        }
    }

    fn compare(&mut self, order: &Order, config: Config, warnings: &Report, answer: &mut report::Reload) {
        let diff = Diff::new(&self.config, &config);
        answer.changes.clone_from(&diff.changes);
        let reason = self.objection(&diff, &config);
        answer.verdict = match (&reason, diff.is_empty()) {
            (Some(_), _) => "refused",
            (None, true) => "unchanged",
            (None, false) => "accepted",
        }
        .to_owned();
        answer.reason.clone_from(&reason);
        if order.only_asks {
            return;
        }
        warnings.lines().iter().for_each(|line| warn!(target: ACTS, "{line}"));
        if let Some(reason) = reason {
            self.fail(&order.by, reason);
            return;
        }
        let jobs: Vec<_> = config.jobs.iter().filter(|job| job.enabled).cloned().collect();
        if let Err(error) = self.crew.want(&config.broker, jobs, &mut self.watchdog.beats) {
            let reason = format!("cannot start a publisher for the new broker: {error}; nothing has changed");
            (answer.verdict, answer.reason) = ("refused".to_owned(), Some(reason.clone()));
            self.fail(&order.by, reason);
            return;
        }
        if diff.changes.is_empty() {
            info!("the configuration is as it was");
        }
        diff.changes.iter().for_each(|change| info!(target: ACTS, "{change}"));
        self.alerts.set(config.alerts.clone());
        self.config = config;
        if !diff.changes.is_empty() {
            self.write_down(order.by.clone(), diff.changes.len());
        }
        self.reloads.begin(&order.by, State::UnderWay);
        self.keep_crew();
    }

    /// Into the audit trail. Nobody waits for it: a recorder that fails ends the daemon.
    fn write_down(&self, by: Who, changes: usize) {
        let deed = Deed { count: Some(changes as u64), ..Deed::new(by, Act::Reloaded) };
        let (reply, _) = crossbeam_channel::bounded(1);
        if self.recorder.requests.try_send(store::Request::Note(deed, reply)).is_err() {
            warn!("the reload is missing in the audit trail: the recorder has too much to do");
        }
    }

    /// What keeps a sound configuration from being taken up.
    fn objection(&self, diff: &Diff, config: &Config) -> Option<String> {
        if !diff.fixed.is_empty() {
            let (keys, verb) = (diff.fixed.join(", "), if diff.fixed.len() == 1 { "is" } else { "are" });
            return Some(format!(
                "{keys} {verb} not what warrend runs with, and that needs a restart; nothing has changed"
            ));
        }
        let old = self.config.jobs.iter().filter(|job| job.enabled).map(|job| &job.name);
        let new = config.jobs.iter().filter(|job| job.enabled).map(|job| &job.name);
        let (old, new): (BTreeSet<_>, BTreeSet<_>) = (old.collect(), new.collect());
        // Those that end still record beside those that start.
        (old.union(&new).count() > self.reloads.capacity).then(|| {
            format!("more than {SPARE_JOBS} jobs beside those of the start need a restart; nothing has changed")
        })
    }

    fn fail(&mut self, by: &Who, reason: String) {
        warn!("the reload by {by} failed: {reason}");
        // Jobs that are on their way to an earlier one go on.
        self.reloads.begin(by, State::Refused(reason));
        self.announce_end();
    }

    /// Brings what runs nearer to what is wanted, and says where that stands.
    pub(super) fn keep_crew(&mut self) {
        let patience = self.config.shutdown.timeout;
        self.crew.keep(Instant::now() + patience, &mut self.watchdog.beats);
        let (arrived, failures) = (self.crew.waits_for().is_empty(), self.crew.failures());
        let Some(last) = &mut self.reloads.last else { return };
        let took = last.began.elapsed();
        match &last.state {
            State::Done | State::Refused(_) => return,
            State::UnderWay | State::Lacking(_) if arrived => {
                info!("reloaded in {:.1} s: {} jobs run", took.as_secs_f64(), self.crew.size());
                last.state = State::Done;
            }
            State::UnderWay | State::Lacking(_) if !failures.is_empty() => {
                last.state = State::Lacking(format!("{}; it is tried again", failures.join("; ")));
            }
            // Handlers that take long are not waited for by others.
            State::UnderWay | State::Lacking(_) if took < patience => return,
            State::UnderWay | State::Lacking(_) => {}
        }
        self.announce_end();
    }

    fn announce(&mut self, order: &Order) {
        if !order.only_asks && !self.reloads.announced {
            self.reloads.announced = true;
            self.watchdog.reloading();
        }
    }

    /// Once for each [`Daemon::announce`], and not before all that was asked for is judged.
    fn announce_end(&mut self) {
        if self.reloads.announced && !self.reloads.judging && self.reloads.waiting.is_empty() {
            self.reloads.announced = false;
            let problem = self.reloads.problem();
            self.watchdog.reloaded(self.crew.size(), problem.as_deref());
        }
    }
}
