//! Connecting: endless, with jittered backoff, in a thread of its own, so that the job goes on answering, running and
//! recording while no broker can be reached.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};
use log::{info, warn};

use super::{Exit, Job, Phase};
use crate::broker::{self, BrokerError, Link};
use crate::config;
use crate::policy::backoff::Backoff;
use crate::policy::retry;

/// After a session that lived this long the next is made soon.
const GOOD_LIFE: Duration = Duration::from_secs(10);

/// What the connecting thread brings.
pub type Linked = Result<Box<Link>, BrokerError>;

/// Where the job is with its next connection.
#[derive(Debug)]
pub struct Linking {
    backoff: Backoff,
    state: State,
    /// One connecting thread at a time, so one result at a time.
    results: Sender<Linked>,
    linked: Receiver<Linked>,
    /// Sessions so far; each gets the next number.
    pub sessions: u64,
    /// When the last one began, and whether it has acknowledged anything.
    since: Instant,
    useful: bool,
    /// What is to be said of it once it is good for something.
    news: Option<String>,
}

#[derive(Debug)]
enum State {
    /// Not before then.
    Waiting(Instant),
    /// A thread is at it.
    Trying,
    /// A session runs.
    Connected,
}

impl Linking {
    /// Connects at once.
    pub fn new(config: &config::Broker) -> Self {
        let (results, linked) = crossbeam_channel::bounded(1);
        let backoff = Backoff::new(config.reconnect.initial, config.reconnect.max);
        let now = Instant::now();
        let state = State::Waiting(now);
        Self { backoff, state, results, linked, sessions: 0, since: now, useful: false, news: None }
    }

    /// Where the result comes from.
    pub fn linked(&self) -> &Receiver<Linked> {
        &self.linked
    }

    /// When the next try is due.
    pub fn deadline(&self) -> Option<Instant> {
        match self.state {
            State::Waiting(until) => Some(until),
            State::Trying | State::Connected => None,
        }
    }

    /// Whether a session runs.
    pub fn is_connected(&self) -> bool {
        matches!(self.state, State::Connected)
    }

    /// The session has acknowledged something.
    pub fn has_worked(&mut self) {
        self.useful = true;
    }

    /// A session begins; gives its number.
    fn begin(&mut self) -> u64 {
        (self.state, self.since, self.useful) = (State::Connected, Instant::now(), false);
        self.sessions += 1;
        self.sessions
    }

    /// The session that began last is over. One that was good for something is followed soon; where each is lost as soon as
    /// it stands, the waits grow.
    fn end(&mut self) {
        if self.useful || self.since.elapsed() >= GOOD_LIFE {
            self.backoff.reset();
        }
    }

    fn wait(&mut self, delay: Duration) {
        self.state = State::Waiting(Instant::now() + delay);
    }

    fn wait_after(&mut self, error: &BrokerError) {
        let delay = error.delay(&mut self.backoff, fastrand::f64());
        self.wait(delay);
    }
}

impl Job {
    /// Starts the next try when it is due. While draining, only what runs is waited for: records need no broker.
    pub(super) fn keep_linking(&mut self) {
        if self.phase != Phase::Working || self.linking.deadline().is_none_or(|due| due > self.now) {
            return;
        }
        let (config, results) = (std::sync::Arc::clone(&self.wiring.broker), self.linking.results.clone());
        let purpose = format!("job:{}", self.config.name);
        let thread = std::thread::Builder::new().name(format!("connect:{}", self.config.name));
        let spawned = thread.spawn(move || {
            let first = fastrand::usize(0..config.hosts.len());
            // A panic is a try that failed: the job waits for what this thread says, and for nothing else.
            let link = catch_unwind(AssertUnwindSafe(|| broker::connect(&config, first, &purpose)));
            let link = link.unwrap_or_else(|_| {
                let reason = "the connecting thread died, which is a bug; its log says where".to_owned();
                Err(BrokerError::Lost { host: "any host".to_owned(), reason })
            });
            // The job may have ended meanwhile; then the link is dropped, which closes it.
            let _ = results.send(link.map(Box::new));
        });
        match spawned {
            Ok(_) => self.linking.state = State::Trying,
            Err(error) => {
                warn!(job = &*self.config.name; "job {}: cannot start a thread to connect: {error}", self.config.name);
                let delay = self.linking.backoff.next(fastrand::f64());
                self.linking.wait(delay);
            }
        }
    }

    pub(super) fn on_linked(&mut self, linked: Linked) -> Result<(), Exit> {
        match linked {
            Ok(link) => Err(Exit::Linked(link)),
            Err(error) => {
                self.tell_trouble(&error);
                self.linking.wait_after(&error);
                Ok(())
            }
        }
    }

    /// One session from its first declaration to its end.
    pub(super) fn run_session(&mut self, link: Link) -> Exit {
        let number = self.linking.begin();
        self.machine.connected(number);
        self.facts.header_room = retry::header_room(link.frame_max);
        let queues = self.config.queues.clone();
        let (host, server) = (link.host.clone(), link.server.clone());
        let exit = broker::with_session(link, number, &queues, |session| {
            if let Err(exit) = self.declare(session) {
                return exit;
            }
            self.linking.news = Some(format!("connected to {server} at {host}"));
            // Due at once: nobody is told of a running job whose queues are declared and not yet consumed.
            self.now = Instant::now();
            self.subscriptions.start(self.now);
            self.turn(Some(session))
        });
        exit.unwrap_or_else(Exit::Lost)
    }

    /// Told once the connection is good for what it was made for: where each is lost as soon as it stands, the log says why
    /// and not, again and again, that there is one.
    pub(super) fn tell_connected(&mut self) {
        if let Some(news) = self.linking.news.take() {
            info!(job = &*self.config.name; "job {}: {news}", self.config.name);
        }
    }

    pub(super) fn on_lost(&mut self, error: &BrokerError) {
        self.tell_trouble(error);
        self.leave_session();
        self.linking.wait_after(error);
    }

    /// A queue stalled on a connection that stands. The watch has waited before it said so: the next one is made at once.
    pub(super) fn on_stalled(&mut self) {
        self.counters.stalls += 1;
        self.leave_session();
        self.linking.wait(Duration::ZERO);
    }

    /// The session is over: the broker has every unacknowledged message back, and what waited here is forgotten.
    fn leave_session(&mut self) {
        self.machine.disconnected();
        self.schedule.clear();
        self.subscriptions.lost();
        self.stalls.lost();
        self.linking.end();
        self.linking.news = None;
    }

    pub(super) fn tell_trouble(&mut self, error: &BrokerError) {
        let text = error.to_string();
        // One line when it begins, not one for every try.
        if self.trouble.as_deref() != Some(&text) {
            warn!(job = &*self.config.name; "job {}: {text}; trying again", self.config.name);
        }
        self.trouble = Some(text);
    }
}
