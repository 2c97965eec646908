//! The daemon's instruments: asks every thread how it is and puts the answers together.

mod alerts;
mod orders;

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};

pub use alerts::AlertsRequest;
pub use orders::Refusal;

use crate::broker::publisher::{Inspector, PublisherReport};
use crate::job::{Command, Figures, Inspection};
use crate::report::{self, DOCTOR, Finding, Reloading, Status};
use crate::shell;
use crate::store::{self, JobId, StoreReport};
use crate::system::{self, journal};
use crate::task::MessageKey;
use crate::who::Who;

/// How long a thread may take to answer. A job that waits for its broker cannot; it is shown as silent.
const PATIENCE: Duration = Duration::from_secs(2);

/// How long `main` may take that is well: it waits for the recorder when it starts a job.
const MAIN_PATIENCE: Duration = Duration::from_secs(5);

/// The same for whoever asks again soon.
const GLANCE: Duration = Duration::from_millis(100);
const SILENT_RECORDER: &str = "the recorder does not answer: it waits for the disk";

/// A confirm takes longer than this only where something is wrong with the broker or one of its queues.
const UNCONFIRMED: Duration = Duration::from_secs(30);

/// What shows the end of this daemon's log; absent where the log does not go to the journal.
static LOG_COMMAND: LazyLock<Option<String>> = LazyLock::new(|| {
    if !journal::reads_stderr() {
        return None;
    }
    // The last part of the control group of a service is the name of its unit (systemd.exec(5), cgroups(7)).
    let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let mut units = groups.lines().filter_map(|line| line.rsplit('/').next()).filter(|unit| unit.ends_with(".service"));
    let whose = units.next_back().map_or_else(|| format!("_PID={}", std::process::id()), |unit| format!("-u {unit}"));
    Some(format!("journalctl {whose} -n 50"))
});

/// How to reach a job.
#[derive(Debug, Clone)]
pub struct PanelJob {
    /// Its name.
    pub name: Arc<str>,
    /// Its number in the store.
    pub id: JobId,
    /// To its thread.
    pub commands: Sender<Command>,
}

/// What `main` tells of what it owns.
#[derive(Debug)]
pub struct Roster {
    /// The jobs that run, in the order of their names.
    pub jobs: Vec<PanelJob>,
    /// To the publisher.
    pub publisher: Inspector,
    /// Whether the daemon drains.
    pub stopping: bool,
    /// The last reload.
    pub reload: Option<Reloading>,
    /// What is wrong with it.
    pub findings: Vec<Finding>,
}

/// Somebody wants the configuration to be read anew.
#[derive(Debug)]
pub struct Order {
    /// Only to know what that would change.
    pub only_asks: bool,
    /// Who it is.
    pub by: Who,
    /// Gets at most one answer.
    pub reply: Option<Sender<report::Reload>>,
}

/// What `main` can be asked.
#[derive(Debug)]
pub enum Question {
    /// Which threads there are.
    Roster(Sender<Roster>),
    /// To read the configuration anew.
    Reload(Order),
    /// Which thread has not turned its loop for long.
    Hanging(Sender<Option<String>>),
}

/// The way to every thread that can be asked. Cheap to clone; holds no state of its own: jobs come and go, so `main`, which owns
/// them, is asked each time which there are.
#[derive(Debug, Clone)]
pub struct Panel {
    /// Bounded; nobody waits for room.
    pub main: Sender<Question>,
    /// The recorder.
    pub recorder: Sender<store::Request>,
    /// The alerts; bounded too.
    pub alerts: Sender<AlertsRequest>,
    /// Start of the daemon.
    pub started: Instant,
}

/// Everything that the threads answered at one time.
#[derive(Debug)]
pub struct Look {
    /// For people, and whoever reads JSON.
    pub status: Status,
    /// Of the jobs that answered, by name.
    pub jobs: BTreeMap<String, Figures>,
    /// Absent where the recorder did not answer.
    pub store: Option<StoreReport>,
    /// Absent where the publisher did not answer.
    pub publisher: Option<PublisherReport>,
    /// Whether it is known which jobs run.
    pub roster: bool,
}

/// Where `main` hangs, nothing is known of what it owns.
const SILENT: &str = "warrend's main thread does not answer: it is busy starting or ending jobs";

impl Panel {
    /// The whole status, measured now.
    pub fn status(&self) -> Status {
        self.look().status
    }

    /// Everything, measured now, with the alerts.
    pub fn look(&self) -> Look {
        // Asked before anything is measured: they measure the same, so they answer at the latest when that is done.
        let asked = ask(&self.alerts, AlertsRequest::Report);
        let mut look = self.measure();
        alerts::add(&mut look.status, wait(&asked, Instant::now() + GLANCE));
        look
    }

    /// Everything but the alerts, which look at this. All threads are asked first and then waited for, so that the slowest
    /// alone decides how long it takes.
    pub fn measure(&self) -> Look {
        let store = ask(&self.recorder, store::Request::Inspect);
        let roster = self.roster();
        let until = Instant::now() + PATIENCE;
        let mut status = self.blank();
        status.system = system::system();
        let mut figures = BTreeMap::new();
        let mut publisher = None;
        let known = roster.is_some();
        match roster {
            None => {
                status.broker.connected = false;
                status.findings.push(Finding::of_daemon(SILENT));
            }
            Some(roster) => {
                let ask_job = |job: PanelJob| (job.name, ask(&job.commands, Command::Inspect));
                let jobs: Vec<_> = roster.jobs.into_iter().map(ask_job).collect();
                let asked = ask(&roster.publisher, |reply| reply);
                if roster.stopping {
                    "stopping".clone_into(&mut status.state);
                }
                status.reload = roster.reload;
                status.findings.extend(roster.findings);
                for (name, answer) in jobs {
                    let answer = add_job(&mut status, &name, wait(&answer, until));
                    figures.extend(answer.map(|answer| (name.to_string(), answer)));
                }
                publisher = wait(&asked, until);
                add_publisher(&mut status, publisher.as_ref());
            }
        }
        let store = wait(&store, until);
        add_store(&mut status, store.as_ref());
        // Where a command helps that is more to the point than the log, it is there already.
        for finding in &mut status.findings {
            finding.help = finding.help.take().or_else(|| LOG_COMMAND.clone());
        }
        status.problems.extend(status.findings.iter().map(Finding::sentence));
        status.healthy = status.problems.is_empty();
        Look { status, jobs: figures, store, publisher, roster: known }
    }

    /// What `main` owns now.
    fn roster(&self) -> Option<Roster> {
        let answer = ask(&self.main, Question::Roster);
        wait(&answer, Instant::now() + PATIENCE)
    }

    /// Which thread has not turned its loop for long, if any.
    pub fn hanging(&self) -> Option<String> {
        let answer = ask(&self.main, Question::Hanging);
        wait(&answer, Instant::now() + MAIN_PATIENCE).unwrap_or_else(|| Some("main".to_owned()))
    }

    fn jobs(&self) -> Result<Vec<PanelJob>, String> {
        self.roster().map(|roster| roster.jobs).ok_or_else(|| SILENT.to_owned())
    }

    /// The jobs that have a key in flight.
    pub fn find(&self, key: &MessageKey) -> Vec<report::Found> {
        let jobs = self.jobs().unwrap_or_default();
        let until = Instant::now() + PATIENCE;
        let ask_job = |job: &PanelJob| ask(&job.commands, |reply| Command::Find(key.clone(), reply));
        let answers: Vec<_> = jobs.iter().map(|job| (job, ask_job(job))).collect();
        let found = answers.iter().filter_map(|(job, answer)| {
            let (attempt, stage) = wait(answer, until)??;
            Some(report::Found { job: job.name.to_string(), attempt, stage: stage.to_owned() })
        });
        found.collect()
    }

    fn blank(&self) -> Status {
        Status {
            schema: report::SCHEMA,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            uptime_s: self.started.elapsed().as_secs(),
            state: "running".to_owned(),
            healthy: false,
            problems: Vec::new(),
            findings: Vec::new(),
            broker: report::Broker { connected: true, ..report::Broker::default() },
            store: report::Store::default(),
            jobs: BTreeMap::new(),
            system: report::System::default(),
            reload: None,
            alerts: None,
        }
    }
}

/// Whether every job says that nothing is left to do.
pub fn is_empty(jobs: &[PanelJob]) -> bool {
    let until = Instant::now() + PATIENCE;
    let answers: Vec<_> = jobs.iter().map(|job| ask(&job.commands, Command::IsEmpty)).collect();
    answers.iter().all(|answer| wait(answer, until) == Some(true))
}

/// Whether every job has found its broker, and consumes unless it is paused.
pub fn is_settled(jobs: &[PanelJob]) -> bool {
    let until = Instant::now() + GLANCE;
    let answers: Vec<_> = jobs.iter().map(|job| ask(&job.commands, Command::Inspect)).collect();
    let mut answers = answers.iter().map(|answer| wait(answer, until));
    answers.all(|answer| answer.is_some_and(|inspection| inspection.report.state != "connecting"))
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

fn add_job(status: &mut Status, name: &str, answer: Option<Inspection>) -> Option<Figures> {
    let Some(inspection) = answer else {
        status.broker.connected = false;
        status.findings.push(Finding::of_job(name, "does not answer: it waits for RabbitMQ or for the disk"));
        let silent = report::Job { state: "silent".to_owned(), ..report::Job::default() };
        status.jobs.insert(name.to_owned(), silent);
        return None;
    };
    status.findings.extend(inspection.findings);
    status.broker.reconnects += inspection.report.reconnects;
    match inspection.link {
        Some(link) if status.broker.host.is_none() => {
            status.broker.host = Some(link.host);
            status.broker.vhost = Some(link.vhost);
            status.broker.server = Some(link.server);
            status.broker.tls = link.tls.map(str::to_owned);
        }
        Some(_) => {}
        None => status.broker.connected = false,
    }
    status.jobs.insert(name.to_owned(), inspection.report);
    Some(inspection.figures)
}

fn add_publisher(status: &mut Status, answer: Option<&PublisherReport>) {
    let Some(publisher) = answer else {
        status.broker.connected = false;
        status.findings.push(Finding::of_daemon("the publisher does not answer: it waits for RabbitMQ"));
        return;
    };
    status.broker.connected &= publisher.connected;
    status.broker.blocked = publisher.blocked;
    status.broker.reconnects += publisher.reconnects;
    if publisher.blocked {
        let problem = "RabbitMQ takes no messages for now (memory or disk alarm): copies of failed attempts wait";
        status.findings.push(Finding::of_daemon(problem).help("rabbitmq-diagnostics alarms"));
    }
    if let Some(oldest) = publisher.oldest.filter(|oldest| *oldest >= UNCONFIRMED && !publisher.blocked) {
        let problem = format!(
            "RabbitMQ has not confirmed {} messages, the oldest for {} s; a quorum queue without a leader takes none: see \
             `rabbitmq-queues quorum_status NAME` for the dead-letter queues and warrend.delay.*",
            publisher.unconfirmed,
            oldest.as_secs()
        );
        status.findings.push(Finding::of_daemon(problem).help("rabbitmqctl list_queues name type state"));
    }
    if !publisher.connected {
        let reason = publisher.last_error.as_deref().unwrap_or("not connected yet");
        status.findings.push(Finding::of_daemon(format!("publisher: {reason}")).help(DOCTOR));
    }
}

fn add_store(status: &mut Status, answer: Option<&StoreReport>) {
    let Some(store) = answer else {
        status.findings.push(Finding::of_daemon(SILENT_RECORDER));
        return;
    };
    let folder = store.path.parent().unwrap_or(&store.path).display().to_string();
    let help = format!("df -h {}", shell::word(&folder));
    status.findings.extend(store.problem.clone().map(|problem| Finding::of_daemon(problem).help(help)));
    status.store = report::Store {
        path: store.path.display().to_string(),
        records: Some(store.records),
        bytes: store.bytes,
        wal_bytes: store.wal_bytes,
        free_bytes: store.free_bytes,
        disk_bytes: store.disk_bytes,
        commits: Some(store.commits),
        last_commit_ms: store.last_commit.map(|took| (took.as_secs_f64() * 1e6).round() / 1e3),
    };
}
