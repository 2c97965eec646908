//! Telling: a thread for each alert that tells anybody, so that what it tells comes in its order, and waits for no other.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, TrySendError};
use log::{debug, error, warn};

use super::message::Message;
use crate::config::{Alert, Command, Http};
use crate::handler::{Stop, notice};
use crate::report::Notified;
use crate::task::UnixMillis;

/// What may wait for an alert's thread. Whoever is told so much at once reads `status` instead.
const WAITING: usize = 64;
/// Between two tries: three more than the first.
const PAUSES: [Duration; 3] = [Duration::from_secs(1), Duration::from_secs(5), Duration::from_secs(20)];

/// Something to be told.
#[derive(Debug)]
pub struct Order {
    /// The alert's name.
    pub alert: Arc<str>,
    /// Its job.
    pub job: Option<String>,
    /// What is told.
    pub message: Message,
    /// The number of the test, where it is one: then it is tried once.
    pub test: Option<u64>,
}

/// How it went.
#[derive(Debug)]
pub struct Told {
    /// As in the order.
    pub alert: Arc<str>,
    /// As in the order.
    pub job: Option<String>,
    /// As in the order.
    pub test: Option<u64>,
    /// The rest.
    pub notified: Notified,
}

/// One of those who are told.
#[derive(Debug, Clone, Copy)]
pub enum Channel<'a> {
    /// A program.
    Command(&'a Command),
    /// A URL.
    Webhook(&'a Http),
}

impl Channel<'_> {
    fn as_str(self) -> &'static str {
        match self {
            Self::Command(_) => "command",
            Self::Webhook(_) => "webhook",
        }
    }
}

/// All who are told of an alert.
pub fn channels(alert: &Alert) -> Vec<Channel<'_>> {
    let command = alert.command.iter().map(Channel::Command);
    command.chain(alert.webhook.iter().map(Channel::Webhook)).collect()
}

/// The thread of one alert.
#[derive(Debug)]
pub struct Notifier {
    /// The alert.
    pub alert: Arc<Alert>,
    /// Absent once it was let go.
    orders: Option<Sender<Order>>,
    thread: JoinHandle<()>,
}

impl Notifier {
    /// Starts it, unless the alert tells nobody.
    pub fn spawn(alert: &Arc<Alert>, stop: &Stop, answers: &Sender<Told>) -> io::Result<Option<Self>> {
        if channels(alert).is_empty() {
            return Ok(None);
        }
        let (orders, inbox) = crossbeam_channel::bounded(WAITING);
        let (its, stop, answers) = (Arc::clone(alert), stop.clone(), answers.clone());
        let thread = std::thread::Builder::new().name(format!("notify:{}", alert.name));
        let thread = thread.spawn(move || serve(&its, &inbox, &stop, &answers))?;
        Ok(Some(Self { alert: Arc::clone(alert), orders: Some(orders), thread }))
    }

    /// Has it told as soon as its turn comes. Where that cannot be, says so.
    pub fn tell(&self, order: Order) -> Result<(), Box<Told>> {
        let Some(orders) = &self.orders else { return Ok(()) };
        let (order, why) = match orders.try_send(order) {
            Ok(()) => return Ok(()),
            Err(TrySendError::Full(order)) => (order, format!("not told: {WAITING} notifications of it wait already")),
            Err(TrySendError::Disconnected(order)) => {
                (order, "not told: its thread ended, which is a bug; the log says why".to_owned())
            }
        };
        let Order { alert, job, message, test } = order;
        let notified = Notified {
            event: message.event.to_owned(),
            through: "none".to_owned(),
            taken: false,
            answer: why,
            tries: 0,
            at_ms: UnixMillis::now().0,
        };
        Err(Box::new(Told { alert, job, test, notified }))
    }

    /// Gets no more orders: it ends when it has told what it has.
    pub fn let_go(self) -> Self {
        Self { orders: None, ..self }
    }

    /// Whether it has.
    pub fn has_ended(&self) -> bool {
        self.thread.is_finished()
    }

    /// Waits for its end, once the stop is raised.
    pub fn join(self) {
        drop(self.orders);
        // One that panicked has told of it.
        let _ = self.thread.join();
    }
}

fn serve(alert: &Alert, inbox: &Receiver<Order>, stop: &Stop, answers: &Sender<Told>) {
    while let Ok(order) = inbox.recv() {
        let Order { alert: name, job, message, test } = order;
        for channel in channels(alert) {
            if stop.is_raised() {
                warn!("alert {:?}: nobody is told any more that it {}: the daemon stops", alert.name, message.event);
                return;
            }
            let notified = match test {
                Some(_) => tell_once(channel, &message, stop, 1),
                None => tell(alert, channel, &message, stop),
            };
            // Nobody is there to hear it at the end; the log has it.
            let _ = answers.try_send(Told { alert: Arc::clone(&name), job: job.clone(), test, notified });
        }
    }
}

/// Tries until it is taken, or for the last time.
fn tell(alert: &Alert, channel: Channel<'_>, message: &Message, stop: &Stop) -> Notified {
    let name = &alert.name;
    let mut pauses = PAUSES.iter();
    let mut tries = 0;
    loop {
        tries += 1;
        let notified = tell_once(channel, message, stop, tries);
        let Notified { event, through, taken, answer, .. } = &notified;
        if *taken {
            debug!("alert {name:?}: the {through} was told that it {event}: {answer}");
            return notified;
        }
        match pauses.next() {
            Some(pause) => {
                warn!(
                    "alert {name:?}: the {through} was not told that it {event}, again in {} s: {answer}",
                    pause.as_secs()
                );
                if stop.is_raised_within(*pause) {
                    return notified;
                }
            }
            None => {
                error!("alert {name:?}: the {through} was not told that it {event}, after {tries} tries: {answer}");
                return notified;
            }
        }
    }
}

/// Tries once.
pub fn tell_once(channel: Channel<'_>, message: &Message, stop: &Stop, tries: u32) -> Notified {
    let answer = match channel {
        Channel::Command(command) => notice::run(command, &message.variables, &message.body, stop),
        Channel::Webhook(http) => notice::post(http, &message.id, &message.body, stop),
    };
    Notified {
        event: message.event.to_owned(),
        through: channel.as_str().to_owned(),
        taken: answer.is_ok(),
        answer: answer.unwrap_or_else(|error| error),
        tries,
        at_ms: UnixMillis::now().0,
    }
}
