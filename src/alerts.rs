//! The thread `alerts`: looks at the status every few seconds, and has told what `policy/alerts.rs` finds.
//!
//! It asks the panel as `warrend status` does, so an alert knows what a person would see. Where no alerts are configured it
//! only waits for a reload that brings some. Whoever is told has a thread for each alert (`notify`), so one that hangs delays no other alert, and
//! nothing of the daemon's work waits for any of them. A stop ends what is being told.

pub mod message;
pub mod notify;

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TrySendError, select};
use log::{Level, error, log};

use crate::config::{Alert, Severity};
use crate::failpoint;
use crate::handler::Stop;
use crate::panel::{AlertsRequest, Panel};
use crate::policy::alerts::watch::Change;
use crate::policy::alerts::{Board, Notice, Sight, sentence};
use crate::report::{Notified, Tested};
use crate::task::UnixMillis;
use message::Message;
use notify::{Notifier, Order, Told};

/// Between two looks. An alert with a shorter `for` or `clear_for` is looked at more often.
const INTERVAL: Duration = Duration::from_secs(5);
/// And at the most so often: each look asks the broker for its counts.
const SHORTEST: Duration = Duration::from_secs(1);
/// Tests whose answers are kept.
const TESTS: usize = 16;
/// Without alerts it only waits to be asked.
const IDLE: Duration = Duration::from_secs(3600);
/// Answers on their way; each notifier has one at a time.
const ANSWERS: usize = 256;

/// The running thread.
#[derive(Debug)]
pub struct Alerts {
    stop: Stop,
    /// Room for one: there is one stop.
    stopping: Sender<()>,
    /// Room for one: the newest wish replaces one that was not taken up yet.
    wishes: Sender<Vec<Alert>>,
    outdated: Receiver<Vec<Alert>>,
    thread: JoinHandle<()>,
}

impl Alerts {
    /// Starts it, and a thread for each alert that tells anybody. `inbox` is what the panel sends to; `alive` is dropped when
    /// the thread ends, for whatever reason.
    pub fn spawn(
        alerts: Vec<Alert>,
        panel: Panel,
        inbox: Receiver<AlertsRequest>,
        alive: impl Send + 'static,
    ) -> io::Result<Self> {
        let stop = Stop::new()?;
        let (stopping, stopped) = crossbeam_channel::bounded(1);
        let (wishes, wanted) = crossbeam_channel::bounded(1);
        let (answers, told) = crossbeam_channel::bounded(ANSWERS);
        let mut desk = Desk {
            board: Board::default(),
            interval: INTERVAL,
            notifiers: BTreeMap::new(),
            leaving: Vec::new(),
            panel,
            stop: stop.clone(),
            answers,
            tests: BTreeMap::new(),
        };
        let ears = Ears { inbox, told, wanted: wanted.clone(), stopped };
        let thread = std::thread::Builder::new().name("alerts".to_owned()).spawn(move || {
            let _alive = alive;
            desk.want(alerts);
            desk.run(&ears);
        })?;
        Ok(Self { stop, stopping, wishes, outdated: wanted, thread })
    }

    /// From now on these are watched. One that is as before goes on as it is. Never waits.
    pub fn set(&self, alerts: Vec<Alert>) {
        let mut wish = alerts;
        // Both ends are in this hand or in the thread's, which takes and never puts: the second try finds room.
        while let Err(TrySendError::Full(again)) = self.wishes.try_send(wish) {
            let _ = self.outdated.try_recv();
            wish = again;
        }
    }

    /// Tells the thread and its notifiers to end; what they are telling is given up.
    pub fn end(&self) {
        self.stop.raise();
        // Full only where it was told already.
        let _ = self.stopping.try_send(());
    }

    /// The thread, to be waited for once it was told; it waits for its notifiers.
    pub fn into_thread(self) -> JoinHandle<()> {
        self.thread
    }
}

fn interval(alerts: &[Arc<Alert>]) -> Duration {
    let shortest = alerts.iter().map(|alert| alert.hold.min(alert.clear_for)).min();
    shortest.map_or(INTERVAL, |shortest| (shortest / 3).clamp(SHORTEST, INTERVAL))
}

/// What the thread hears.
struct Ears {
    inbox: Receiver<AlertsRequest>,
    told: Receiver<Told>,
    wanted: Receiver<Vec<Alert>>,
    stopped: Receiver<()>,
}

/// What the thread owns.
struct Desk {
    board: Board,
    interval: Duration,
    /// By the alert's name; absent where it tells nobody.
    notifiers: BTreeMap<Arc<str>, Notifier>,
    /// Those of alerts that are gone; they tell what they have begun to.
    leaving: Vec<Notifier>,
    panel: Panel,
    stop: Stop,
    answers: Sender<Told>,
    /// By number, counted from 1.
    tests: BTreeMap<u64, Tested>,
}

impl Desk {
    fn run(mut self, ears: &Ears) {
        let mut next = Instant::now();
        loop {
            let patience = if self.board.is_empty() { IDLE } else { next.saturating_duration_since(Instant::now()) };
            select! {
                recv(ears.stopped) -> _ => break,
                recv(ears.inbox) -> request => if let Ok(request) = request {
                    self.on_request(request);
                },
                recv(ears.told) -> told => if let Ok(told) = told {
                    self.on_told(told);
                },
                recv(ears.wanted) -> alerts => if let Ok(alerts) = alerts {
                    self.want(alerts);
                    next = Instant::now();
                },
                default(patience) => {}
            }
            if Instant::now() >= next && !self.board.is_empty() {
                self.look();
                next = Instant::now() + self.interval;
            }
        }
        for notifier in self.notifiers.into_values().chain(self.leaving) {
            notifier.join();
        }
    }

    /// These are watched from now on.
    fn want(&mut self, alerts: Vec<Alert>) {
        let alerts: Vec<_> = alerts.into_iter().map(Arc::new).collect();
        let (kept, gone) = std::mem::take(&mut self.notifiers)
            .into_iter()
            .partition(|(_, notifier)| alerts.iter().any(|alert| **alert == *notifier.alert));
        self.notifiers = kept;
        self.leaving.retain(|notifier| !notifier.has_ended());
        self.leaving.extend(BTreeMap::into_values(gone).map(Notifier::let_go));
        for alert in &alerts {
            if self.notifiers.contains_key(&alert.name) {
                continue;
            }
            match Notifier::spawn(alert, &self.stop, &self.answers) {
                Ok(None) => {}
                Ok(Some(notifier)) => drop(self.notifiers.insert(Arc::clone(&alert.name), notifier)),
                Err(error) => error!("alert {:?} tells nobody: no thread could be started: {error}", alert.name),
            }
        }
        self.interval = interval(&alerts);
        self.board.set(&alerts);
    }

    fn look(&mut self) {
        failpoint::hit("alerts-look");
        let look = self.panel.measure();
        let sight = Sight { status: &look.status, jobs: look.roster, publisher: look.publisher.is_some() };
        for notice in self.board.look(Instant::now(), UnixMillis::now(), &sight) {
            self.tell(notice);
        }
    }

    fn tell(&mut self, notice: Notice) {
        let text = sentence(&notice);
        let level = match (notice.change, notice.alert.severity) {
            (Change::Cleared, _) | (_, Severity::Info) => Level::Info,
            (Change::Fired | Change::Repeated, Severity::Warning) => Level::Warn,
            (Change::Fired | Change::Repeated, Severity::Critical) => Level::Error,
        };
        // With their fields, so that many that fire at one time do not hold each other back.
        let alert = &*notice.alert.name;
        match notice.job.as_deref() {
            Some(job) => log!(level, alert = alert, job = job; "{text}"),
            None => log!(level, alert = alert; "{text}"),
        }
        let message = Message::of(&notice, &text);
        let alert = Arc::clone(&notice.alert.name);
        self.order(Order { alert, job: notice.job, message, test: None });
    }

    fn order(&mut self, order: Order) {
        let Some(notifier) = self.notifiers.get(&order.alert) else { return };
        if let Err(lost) = notifier.tell(order) {
            error!("alert {:?}: {}", lost.alert, lost.notified.answer);
            self.on_told(*lost);
        }
    }

    fn on_told(&mut self, told: Told) {
        let Told { alert, job, test, notified } = told;
        match test {
            None => self.board.notified(&alert, job.as_ref(), notified),
            Some(test) => {
                if let Some(test) = self.tests.get_mut(&test) {
                    test.answers.push(notified);
                }
            }
        }
    }

    fn on_request(&mut self, request: AlertsRequest) {
        // Whoever asked may have gone.
        match request {
            AlertsRequest::Report(reply) => drop(reply.try_send(self.board.report())),
            AlertsRequest::Test(name, reply) => {
                let begun = self.test(&name);
                drop(reply.try_send(begun));
            }
            AlertsRequest::Tested(test, reply) => {
                let tested = self.tests.get(&test).cloned();
                drop(reply.try_send(tested.ok_or_else(|| format!("no test {test} is known here"))));
            }
        }
    }

    fn test(&mut self, name: &str) -> Result<Tested, String> {
        let Some(alert) = self.board.alerts().find(|alert| *alert.name == *name).map(Arc::clone) else {
            return Err(unknown(name, self.board.alerts().map(|alert| &*alert.name)));
        };
        let test = self.tests.last_key_value().map_or(1, |(last, _)| last + 1);
        let asked = if self.notifiers.contains_key(name) { notify::channels(&alert).len() } else { 0 };
        self.tests.insert(test, Tested { test, asked, answers: Vec::new() });
        while self.tests.len() > TESTS {
            self.tests.pop_first();
        }
        let message = Message::test(&alert);
        self.order(Order { alert: Arc::clone(&alert.name), job: None, message, test: Some(test) });
        Ok(self.tests[&test].clone())
    }
}

/// What to say of a name that no alert has.
pub fn unknown<'a>(name: &str, names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<String> = names.map(|name| format!("{name:?}")).collect();
    if names.is_empty() {
        return "no alerts are configured: add [[alerts]] with a `when`".to_owned();
    }
    format!("no alert is called {name:?}; there are: {}", names.join(", "))
}

/// Tells of a test without a daemon, once, and waits for the answers.
pub fn test_alone(alert: &Alert) -> io::Result<Vec<Notified>> {
    let stop = Stop::new()?;
    let message = Message::test(alert);
    let told = |channel| notify::tell_once(channel, &message, &stop, 1);
    Ok(notify::channels(alert).into_iter().map(told).collect())
}
