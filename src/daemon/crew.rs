//! The jobs that run, and those that should: it lets the ones that are not wanted as they are drain, and starts what is
//! missing, until both agree.
//!
//! A job that changes ends before it starts anew: two of a name would run the same message at one time. What is in its
//! handlers goes on under the old settings and is waited for; nothing is ended for a reload. Whatever comes in between (another
//! reload, a thread that cannot be started) only changes what is wanted, or is tried again: there is no half-way to undo.
//!
//! A publisher belongs to the broker of its jobs. After a change of the broker the next ones get a new one, and the old one
//! stays until its last job has ended and with it the last copy that it owes.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::thread::ThreadId;
use std::time::{Duration, Instant};

use crossbeam_channel::{Sender, TrySendError};
use log::{info, warn};

use super::watch::{Alive, Beats};
use super::{DaemonError, Signal};
use crate::broker::publisher::{self, Publisher};
use crate::config::{self, InDoubt};
use crate::job::{self, Command, JobHandle, Wiring};
use crate::panel::PanelJob;
use crate::report::Finding;
use crate::store::{Admission, JobId, Pause, Reader, Request};
use crate::task::JobName;

/// How long the recorder may take to know a job that starts.
const ADMISSION: Duration = Duration::from_secs(2);
/// Until a start that failed is tried again.
const START_PAUSE: Duration = Duration::from_secs(5);
/// Jobs for whose copies a publisher has room beside those that it was started for. With more they take turns.
const SPARE_CREDIT: usize = 4;
/// What a publisher gets to close whose jobs have all ended.
const LAST_CONFIRMS: Duration = Duration::from_secs(5);

/// Owned by `main`.
pub struct Crew {
    members: Vec<Member>,
    wanted: Vec<config::Job>,
    /// The last is the one that jobs start with.
    lines: Vec<Line>,
    /// Publishers so far.
    opened: usize,
    /// What a job that ended leaves to the next of its name.
    readers: BTreeMap<JobName, (InDoubt, Reader)>,
    /// Why a job could not be started, and when that is tried again.
    failed: BTreeMap<JobName, (String, Instant)>,
    recorder: Sender<Request>,
    signals: Sender<Signal>,
    host: String,
}

struct Member {
    config: config::Job,
    handle: JobHandle,
    broker: Arc<config::Broker>,
    /// Since when it has drained for another one, or for none.
    leaving: Option<Instant>,
    /// At the end of the daemon: whether it knows.
    told: bool,
}

struct Line {
    name: String,
    broker: Arc<config::Broker>,
    publisher: Publisher,
}

/// What a job starts with from the store.
pub struct Memory {
    /// Its number.
    pub id: JobId,
    /// Its look.
    pub reader: Reader,
    /// Whether it is paused by hand.
    pub pause: Option<Pause>,
}

impl Crew {
    /// Nobody yet, and a publisher for so many.
    pub fn new(
        broker: config::Broker,
        jobs: usize,
        recorder: Sender<Request>,
        signals: Sender<Signal>,
        host: String,
        beats: &mut Beats,
    ) -> Result<Self, DaemonError> {
        let mut crew = Self {
            members: Vec::new(),
            wanted: Vec::new(),
            lines: Vec::new(),
            opened: 0,
            readers: BTreeMap::new(),
            failed: BTreeMap::new(),
            recorder,
            signals,
            host,
        };
        crew.open_line(Arc::new(broker), jobs, beats).map_err(super::system("start the publisher"))?;
        Ok(crew)
    }

    /// Starts a job of the daemon's own start.
    pub fn add(&mut self, job: config::Job, memory: Memory, beats: &mut Beats) -> io::Result<()> {
        self.wanted.push(job.clone());
        self.spawn(job, memory, beats)
    }

    /// From now on these should run, on that broker. Fails where it takes a new publisher that cannot be started; then nothing
    /// has changed.
    pub fn want(&mut self, broker: &config::Broker, jobs: Vec<config::Job>, beats: &mut Beats) -> io::Result<()> {
        if !self.line().broker.is_reached_like(broker) {
            self.open_line(Arc::new(broker.clone()), jobs.len(), beats)?;
        }
        self.wanted = jobs;
        self.failed.clear();
        Ok(())
    }

    /// Lets go what is not wanted, and starts what is missing. Called after whatever may have changed one of them.
    pub fn keep(&mut self, until: Instant, beats: &mut Beats) {
        self.dismiss(until);
        let began = Instant::now();
        let here: BTreeSet<JobName> = self.members.iter().map(|member| member.handle.name.clone()).collect();
        let waits = |name: &JobName| self.failed.get(name).is_some_and(|(_, until)| began < *until);
        let missing = self.wanted.iter().filter(|job| !here.contains(&job.name) && !waits(&job.name));
        for job in missing.cloned().collect::<Vec<_>>() {
            let name = job.name.clone();
            match self.start(job, beats) {
                Ok(()) => {
                    info!("job {name} starts");
                    self.failed.remove(&name);
                }
                Err(why) => {
                    // One line when it begins, not one for every try.
                    if self.failed.get(&name).is_none_or(|(before, _)| *before != why) {
                        warn!("job {name} cannot be started: {why}; trying again");
                    }
                    self.failed.insert(name, (why, Instant::now() + START_PAUSE));
                }
            }
            // Whoever waits for `main`, systemd too, does not wait for a slow disk as often as there are jobs.
            if began.elapsed() >= ADMISSION {
                break;
            }
        }
        self.close_idle_lines(beats);
    }

    /// Tells those that are not wanted as they are to drain.
    fn dismiss(&mut self, until: Instant) {
        let broker = Arc::clone(&self.line().broker);
        for member in self.members.iter_mut().filter(|member| member.leaving.is_none()) {
            let wanted = self.wanted.iter().find(|job| job.name == member.config.name);
            let agrees = wanted.is_some_and(|job| config::same_work(&member.config, job));
            if agrees && Arc::ptr_eq(&member.broker, &broker) {
                retain(&self.recorder, member, wanted);
                continue;
            }
            // Full only for a moment, when many ask it something: then it is told at the next turn.
            if member.handle.commands.try_send(Command::Retire(until)).is_ok() {
                let then = if wanted.is_some() { "starts anew" } else { "ends" };
                info!("job {} {then} once its running handlers have ended", member.config.name);
                member.leaving = Some(Instant::now());
            }
        }
    }

    fn start(&mut self, job: config::Job, beats: &mut Beats) -> Result<(), String> {
        let (reply, answer) = crossbeam_channel::bounded(1);
        let forgets_starts = job.in_doubt == InDoubt::Run;
        let admission = Admission { name: job.name.clone(), retention: job.idempotency.retention, forgets_starts };
        let silent = |_| "the recorder does not answer: it waits for the disk".to_owned();
        let until = Instant::now() + ADMISSION;
        self.recorder.send_deadline(Request::Admit(admission, reply), until).map_err(|_| silent(()))?;
        let admitted = answer.recv_deadline(until).map_err(|_| silent(()))?;
        let admitted = admitted.map_err(|error| error.to_string())?;
        let reader = match self.readers.remove(&job.name) {
            Some((in_doubt, reader)) if in_doubt == job.in_doubt => reader,
            Some(_) | None => admitted.reader().map_err(|error| error.to_string())?,
        };
        let memory = Memory { id: admitted.id, reader, pause: admitted.pause };
        self.spawn(job, memory, beats).map_err(|error| format!("its threads cannot be started: {error}"))
    }

    fn spawn(&mut self, job: config::Job, memory: Memory, beats: &mut Beats) -> io::Result<()> {
        let name = format!("job:{}", job.name);
        let beat = beats.add(&name);
        let Line { broker, publisher, .. } = self.line();
        let broker = Arc::clone(broker);
        let wiring = Wiring {
            broker: Arc::clone(&broker),
            id: memory.id,
            reader: memory.reader,
            pause: memory.pause,
            recorder: self.recorder.clone(),
            publisher: publisher.requests.clone(),
            host: self.host.clone(),
            beat: Box::new(move || beat.tick()),
            alive: Box::new(Alive::new(&name, &self.signals)),
        };
        match job::spawn(job.clone(), wiring) {
            Ok(handle) => {
                self.members.push(Member { config: job, handle, broker, leaving: None, told: false });
                Ok(())
            }
            Err(error) => {
                beats.remove(&name);
                Err(error)
            }
        }
    }

    /// Takes up the ends of jobs that were told to drain. An end that nobody asked for is given to the caller.
    pub fn reap(&mut self, beats: &mut Beats) -> Result<(), DaemonError> {
        while let Some(at) = self.members.iter().position(|member| member.handle.thread.is_finished()) {
            self.bury(at, beats)?;
        }
        Ok(())
    }

    /// A thread said its last; it is one of ours, or was.
    pub fn on_gone(&mut self, thread: ThreadId, beats: &mut Beats) -> Result<(), DaemonError> {
        let at = self.members.iter().position(|member| member.handle.thread.thread().id() == thread);
        at.map_or(Ok(()), |at| self.bury(at, beats))
    }

    fn bury(&mut self, at: usize, beats: &mut Beats) -> Result<(), DaemonError> {
        let Member { config, handle, leaving, .. } = self.members.remove(at);
        let name = format!("job:{}", config.name);
        beats.remove(&name);
        let Ok(ended) = handle.thread.join() else {
            return Err(DaemonError::Ended(name));
        };
        let reader = ended?;
        if leaving.is_none() {
            return Err(DaemonError::Ended(name));
        }
        info!("job {} has ended", config.name);
        if self.wanted.iter().any(|job| job.name == config.name) {
            self.readers.insert(config.name.clone(), (config.in_doubt, reader));
        } else {
            // It may come back, and its keys with it.
            let _ = self.recorder.try_send(Request::Retain(handle.id, None));
            self.readers.remove(&config.name);
        }
        Ok(())
    }

    fn line(&self) -> &Line {
        self.lines.last().expect("a crew has a publisher from its start to its end")
    }

    fn open_line(&mut self, broker: Arc<config::Broker>, jobs: usize, beats: &mut Beats) -> io::Result<()> {
        let name = match self.opened {
            0 => "publisher".to_owned(),
            before => format!("publisher {}", before + 1),
        };
        let beat = beats.add(&name);
        let capacity = (jobs + SPARE_CREDIT) * job::CREDIT + 1;
        let alive = Alive::new(&name, &self.signals);
        match publisher::spawn(Arc::clone(&broker), capacity, move || beat.tick(), alive) {
            Ok(publisher) => {
                self.opened += 1;
                self.lines.push(Line { name, broker, publisher });
                Ok(())
            }
            Err(error) => {
                beats.remove(&name);
                Err(error)
            }
        }
    }

    /// Ends the publishers of brokers that no job is at any more.
    fn close_idle_lines(&mut self, beats: &mut Beats) {
        let last = self.lines.len() - 1;
        let used = |line: &Line| self.members.iter().any(|member| Arc::ptr_eq(&member.broker, &line.broker));
        let idle: Vec<usize> = (0..last).filter(|at| !used(&self.lines[*at])).collect();
        for at in idle.into_iter().rev() {
            let Line { name, publisher, .. } = self.lines.remove(at);
            beats.remove(&name);
            // It owes nothing any more, but to close a connection may take seconds.
            let closing = std::thread::Builder::new().name("publisher-close".to_owned());
            let closed = closing.spawn(move || publisher.stop(Instant::now() + LAST_CONFIRMS));
            if let Err(error) = closed {
                // Without its handle it ends by itself.
                warn!("no thread to close a publisher with: {error}");
            }
        }
    }

    /// Whether that thread is the publisher of some job.
    pub fn publisher(&self, thread: ThreadId) -> bool {
        self.lines.iter().any(|line| line.publisher.thread() == thread)
    }

    /// How to reach those that run, in the order of their names.
    pub fn reach(&self) -> Vec<PanelJob> {
        let reach = |Member { handle, .. }: &Member| PanelJob {
            name: Arc::clone(&handle.name),
            id: handle.id,
            commands: handle.commands.clone(),
        };
        let mut jobs: Vec<_> = self.members.iter().map(reach).collect();
        jobs.sort_by(|a, b| a.name.cmp(&b.name));
        jobs
    }

    /// To the publisher that jobs start with.
    pub fn inspect_publisher(&self) -> publisher::Inspector {
        self.line().publisher.inspect.clone()
    }

    /// How many should run.
    pub fn size(&self) -> usize {
        self.wanted.len()
    }

    /// Those that are still to end or to start; nothing once what runs is what is wanted.
    pub fn waits_for(&self) -> Vec<String> {
        let broker = &self.line().broker;
        let stays = |member: &Member| member.leaving.is_none() && Arc::ptr_eq(&member.broker, broker);
        let here = |job: &&config::Job| self.members.iter().any(|member| stays(member) && member.config == **job);
        let missing = self.wanted.iter().filter(|job| !here(job)).map(|job| &job.name);
        let wanted = |member: &&Member| self.wanted.iter().any(|job| job.name == member.config.name);
        let unwanted = self.members.iter().filter(|member| !wanted(member)).map(|member| &member.config.name);
        let mut names: Vec<String> = missing.chain(unwanted).map(ToString::to_string).collect();
        names.sort();
        names
    }

    /// Why jobs could not be started.
    pub fn failures(&self) -> Vec<String> {
        self.failed.iter().map(|(name, (why, _))| format!("job {name} cannot be started: {why}")).collect()
    }

    /// Jobs that drain for longer than that.
    pub fn lingering(&self, patience: Duration) -> Vec<Finding> {
        let long = self.members.iter().filter_map(|member| {
            let since = member.leaving?.elapsed();
            let wanted = self.wanted.iter().any(|job| job.name == member.config.name);
            let then = if wanted { "starts with its new settings" } else { "ends" };
            let seconds = since.as_secs();
            let what = format!("has taken no messages for {seconds} s: it {then} once its running handlers have ended");
            (since > patience).then(|| Finding::of_job(&member.config.name, what))
        });
        long.collect()
    }

    /// Nothing is wanted any more, and each end is welcome. What follows is said anew to all.
    pub fn disband(&mut self) {
        self.wanted.clear();
        for member in &mut self.members {
            member.leaving.get_or_insert_with(Instant::now);
            member.told = false;
        }
    }

    /// Tells each job once. The inbox of one that is with its broker may be full of questions: it is told at a later turn.
    pub fn tell(&mut self, command: impl Fn() -> Command) {
        for member in self.members.iter_mut().filter(|member| !member.told) {
            let sent = member.handle.commands.try_send(command());
            // One that is ending has dropped its inbox; one that hangs is found by the deadline.
            member.told = !matches!(sent, Err(TrySendError::Full(_)));
        }
    }

    /// One that still runs.
    pub fn straggler(&self) -> Option<String> {
        self.members.first().map(|member| format!("job:{}", member.config.name))
    }

    /// Ends the publishers, once all jobs have ended.
    pub fn close(self, deadline: Instant) {
        for line in self.lines {
            line.publisher.stop(deadline);
        }
    }
}

/// A job that goes on may be told to keep its keys for another time; the store does that for it.
fn retain(recorder: &Sender<Request>, member: &mut Member, wanted: Option<&config::Job>) {
    let Some(wanted) = wanted.filter(|wanted| **wanted != member.config) else {
        return;
    };
    let kept = wanted.idempotency.retention;
    // Else it is told at the next turn.
    if recorder.try_send(Request::Retain(member.handle.id, Some(kept))).is_ok() {
        member.config = wanted.clone();
    }
}
