//! The thread that publishes what jobs owe: the copies of failed attempts, forwarded messages, replies.
//!
//! It owns its own connection, and all that is unconfirmed on it. It waits on one `select!`:
//!
//! 1. A request comes in only while there is room for it: while the connection is down or blocked, requests stay in their
//!    bounded channel, and the jobs notice that it is full.
//! 2. It is published as mandatory, up to [`MAX_UNCONFIRMED`] at a time.
//! 3. The broker's confirm answers it, by [`Published`] on the channel that came with the request.
//! 4. When the connection is lost, what is unconfirmed is published again on the next one. A doubled copy is harmless:
//!    the job that gets it drops it as a duplicate. A forwarded message or a reply may arrive twice so.
//!
//! A message can be at fault itself (its exchange is missing, it is too large), and then the broker closes the channel for
//! all that are under way. They become suspects, and each suspect is published alone: whose channel is closed again has
//! failed, and is answered so.
//!
//! What is absent: a limit to the wait for a confirm. A quorum queue without its majority confirms when the majority is
//! back; failing the copy before would only publish it twice.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle, ThreadId};
use std::time::{Duration, Instant};

use amiquip::{Confirm, ConnectionBlockedNotification};
use crossbeam_channel::{Receiver, Sender, bounded, never, select};

use super::error::BrokerError;
use super::line::Line;
use super::outgoing::Outgoing;
use super::uplink::Uplink;
use crate::task::Ticket;
use crate::{config, failpoint};

/// Unconfirmed publishes at a time: enough to fill the way to a broker and back, and more than a few jobs may have under way
/// together, so that one whose target does not confirm leaves room to the others.
const MAX_UNCONFIRMED: usize = 1024;

/// The longest wait for anything to happen.
const TICK: Duration = Duration::from_secs(2);

/// A message to publish, and where the answer goes.
#[derive(Debug)]
pub struct PublishRequest {
    /// The in-flight entry that waits for the answer.
    pub ticket: Ticket,
    /// The message.
    pub message: Outgoing,
    /// Gets exactly one answer for each request. The publisher never waits for it: the job bounds this channel by the number
    /// of copies that it has under way, and an answer that finds it full is lost.
    pub reply: Sender<Published>,
}

/// The broker's verdict on one message.
#[derive(Debug)]
pub struct Published {
    /// Its in-flight entry.
    pub ticket: Ticket,
    /// The error is a sentence for people. The message is then in no queue, or in rare cases (see `Window`) may be in one.
    pub result: Result<(), String>,
}

/// The publisher at one moment, for `status`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PublisherReport {
    /// Whether its connection stands.
    pub connected: bool,
    /// Whether the broker has asked publishers to stop.
    pub blocked: bool,
    /// How often a connection was made after the first.
    pub reconnects: u64,
    /// `host:port`, while connected.
    pub host: Option<String>,
    /// Messages that were taken from the requests and are not answered yet.
    pub unconfirmed: usize,
    /// For how long the oldest of those under way waits for its confirm.
    pub oldest: Option<Duration>,
    /// The last failure of a connection or of a message; stays when things are well again.
    pub last_error: Option<String>,
}

/// Asks the publisher for a report.
pub type Inspector = Sender<Sender<PublisherReport>>;

/// The running publisher.
pub struct Publisher {
    /// Messages to publish. Bounded; use `try_send`.
    pub requests: Sender<PublishRequest>,
    /// Asks for a report; the answer is sent with `try_send`, so bring a channel with room for one.
    pub inspect: Inspector,
    stop: Sender<Instant>,
    thread: JoinHandle<()>,
}

impl Publisher {
    /// Its thread.
    pub fn thread(&self) -> ThreadId {
        self.thread.thread().id()
    }

    /// Lets the publisher finish what it has and what waits in `requests`, until `deadline` at the latest, then closes its
    /// connection (at most 2 s more) and waits for the thread. What is not confirmed by then gets no answer.
    pub fn stop(self, deadline: Instant) {
        let Self { requests, stop, thread, .. } = self;
        drop(requests);
        // Fails only if the thread has ended already.
        let _ = stop.send(deadline);
        if thread.join().is_err() {
            log::error!("internal error: the publisher's thread had panicked");
        }
    }
}

/// Starts the publisher. It connects at once, and again for ever.
///
/// `capacity` bounds the requests that wait. `beat` is called at least every few seconds while all is well; `alive` is dropped when the thread ends, for whatever reason.
pub fn spawn(
    config: Arc<config::Broker>,
    capacity: usize,
    beat: impl Fn() + Send + 'static,
    alive: impl Send + 'static,
) -> io::Result<Publisher> {
    let (requests, waiting_requests) = bounded(capacity);
    // A few askers at a time; those that find it full ask again.
    let (inspect, inspections) = bounded(16);
    // One order to stop; its sender never waits.
    let (stop, stops) = bounded(1);
    let worker = Worker {
        uplink: Uplink::new(config),
        requests: waiting_requests,
        inspections,
        stops,
        beat: Box::new(beat),
        backlog: VecDeque::new(),
        alone: false,
        last_error: None,
        trouble: None,
        unneeded: false,
        deadline: None,
    };
    let thread = thread::Builder::new().name("publisher".to_owned()).spawn(move || {
        let _alive = alive;
        worker.run();
    })?;
    Ok(Publisher { requests, inspect, stop, thread })
}

/// Where an answer goes.
struct Order {
    ticket: Ticket,
    reply: Sender<Published>,
    taken: Instant,
    /// It was under way when the broker closed a channel or a connection because of something in it.
    suspect: bool,
}

impl Order {
    fn answer(self, result: Result<(), String>) {
        let Self { ticket, reply, .. } = self;
        if reply.try_send(Published { ticket, result }).is_err() {
            log::warn!("the answer for a published message ({ticket:?}) was not taken by its job");
        }
    }
}

/// The thread's own state.
struct Worker {
    uplink: Uplink<Order>,
    requests: Receiver<PublishRequest>,
    inspections: Receiver<Sender<PublisherReport>>,
    stops: Receiver<Instant>,
    /// Called at each turn of the loop, at least every 2 s.
    beat: Box<dyn Fn() + Send>,
    /// Taken and not sent, the oldest first: what a lost connection left behind.
    backlog: VecDeque<(Outgoing, Order)>,
    /// A suspect is under way, and nothing else may be.
    alone: bool,
    last_error: Option<String>,
    /// Why there is no connection, as it was told last.
    trouble: Option<String>,
    /// All that could send requests are gone.
    unneeded: bool,
    /// Set once the publisher is to stop.
    deadline: Option<Instant>,
}

/// What the thread can wake up for.
#[expect(clippy::large_enum_variant, reason = "made and consumed in one place, once a wake-up")]
enum Event {
    Request(PublishRequest),
    /// Nobody can send a request any more.
    Unneeded,
    Inspect(Sender<PublisherReport>),
    Stop(Instant),
    Opened(Result<Line<Order>, BrokerError>),
    Confirmed(Confirm),
    Noted(ConnectionBlockedNotification),
    Fell,
    Tick,
}

impl Worker {
    fn run(mut self) {
        while !self.is_finished() {
            (self.beat)();
            match self.next_event() {
                Event::Request(request) => {
                    failpoint::hit("before-publish");
                    self.on_request(request);
                }
                Event::Unneeded => self.unneeded = true,
                Event::Inspect(asker) => drop(asker.try_send(self.report())),
                Event::Stop(deadline) => self.deadline = Some(deadline),
                Event::Opened(opened) => self.on_opened(opened),
                Event::Confirmed(confirm) => self.on_confirmed(confirm),
                Event::Noted(note) => self.on_noted(note),
                Event::Fell => self.on_fell(),
                Event::Tick => {}
            }
            self.settle();
        }
        self.uplink.close();
    }

    fn is_finished(&self) -> bool {
        self.deadline.is_some_and(|deadline| {
            let idle = self.requests.is_empty() && self.unconfirmed() == 0;
            idle || Instant::now() >= deadline
        })
    }

    fn next_event(&self) -> Event {
        let (no_requests, no_stops) = (never(), never());
        let (no_lines, no_confirms, no_notes) = (never(), never(), never());
        let requests = Some(&self.requests).filter(|_| self.may_take());
        let requests = requests.unwrap_or(&no_requests);
        let stops = Some(&self.stops).filter(|_| self.deadline.is_none());
        let stops = stops.unwrap_or(&no_stops);
        let lines = self.uplink.opening().unwrap_or(&no_lines);
        let line = self.uplink.line();
        let confirms = line.map_or(&no_confirms, Line::confirms);
        let notes = line.map_or(&no_notes, Line::notes);
        let now = Instant::now();
        let waits = [self.uplink.due(), self.deadline].into_iter().flatten();
        let wait = waits.map(|at| at.saturating_duration_since(now)).fold(TICK, Duration::min);
        select! {
            recv(requests) -> request => request.map_or(Event::Unneeded, Event::Request),
            recv(self.inspections) -> asker => asker.map_or(Event::Stop(now), Event::Inspect),
            // Without an order to stop, the handle was dropped: nobody is left to wait for.
            recv(stops) -> deadline => Event::Stop(deadline.unwrap_or(now)),
            recv(lines) -> opened => Event::Opened(opened.unwrap_or_else(|_| {
                Err(BrokerError::Lost {
                    host: "any host".to_owned(),
                    reason: "the connecting thread died".to_owned(),
                })
            })),
            recv(confirms) -> confirm => confirm.map_or(Event::Fell, Event::Confirmed),
            recv(notes) -> note => note.map_or(Event::Fell, Event::Noted),
            default(wait) => Event::Tick,
        }
    }

    /// Whether a request may be taken: only what can be sent at once.
    fn may_take(&self) -> bool {
        !self.unneeded && self.backlog.is_empty() && self.may_publish()
    }

    fn may_publish(&self) -> bool {
        let next_is_suspect = self.backlog.front().is_some_and(|(_, order)| order.suspect);
        let most = if self.alone || next_is_suspect { 1 } else { MAX_UNCONFIRMED };
        self.uplink.line().is_some_and(|line| line.has_room(most))
    }

    fn on_request(&mut self, request: PublishRequest) {
        let PublishRequest { ticket, message, reply } = request;
        let order = Order { ticket, reply, taken: Instant::now(), suspect: false };
        match message.check() {
            Ok(()) => self.backlog.push_back((message, order)),
            Err(why) => self.fail(order, format!("the message cannot be sent: {why}")),
        }
    }

    fn on_confirmed(&mut self, confirm: Confirm) {
        let Some(line) = self.uplink.line_mut() else {
            return;
        };
        for settled in line.confirmed(confirm) {
            match settled.result {
                Ok(()) => settled.item.answer(Ok(())),
                Err(why) => self.fail(settled.item, why),
            }
        }
    }

    fn on_noted(&mut self, note: ConnectionBlockedNotification) {
        if let Some(line) = self.uplink.line_mut() {
            line.noted(note);
        }
    }

    fn on_opened(&mut self, opened: Result<Line<Order>, BrokerError>) {
        match self.uplink.opened(opened) {
            Ok(()) => self.trouble = None,
            Err(error) => {
                let why = error.to_string();
                // One line when it begins, not one for every try.
                if self.trouble.as_ref() != Some(&why) {
                    log::warn!("publisher: {why}; trying again");
                }
                self.trouble = Some(why.clone());
                self.last_error = Some(why);
            }
        }
    }

    /// The channel or the whole connection is gone.
    fn on_fell(&mut self) {
        if let Some(fall) = self.uplink.fell() {
            // Where the broker closed it over a copy, the job hears of that copy and tells it.
            let level = if fall.blame.is_some() { log::Level::Debug } else { log::Level::Warn };
            log::log!(level, "publisher: {}", fall.error);
            self.last_error = Some(fall.error);
            self.take_back(fall.unconfirmed, fall.blame);
        }
    }

    /// Puts what was under way back to be sent again, before what waits already. With a reason from the broker, the single
    /// one that was under way is the one at fault, and several are suspects.
    fn take_back(&mut self, mut unconfirmed: Vec<(Outgoing, Order)>, why: Option<String>) {
        if let Some(why) = why {
            if unconfirmed.len() == 1 {
                for (outgoing, order) in unconfirmed.drain(..) {
                    let Outgoing { exchange, routing_key, .. } = outgoing;
                    self.fail(
                        order,
                        format!("publishing to exchange {exchange:?} with routing key {routing_key:?} failed: {why}"),
                    );
                }
            }
            unconfirmed.iter_mut().for_each(|(_, order)| order.suspect = true);
        }
        for waiting in unconfirmed.into_iter().rev() {
            self.backlog.push_front(waiting);
        }
    }

    /// The job that hears of it tells it: a full dead-letter queue can refuse hundreds of copies, again and again.
    fn fail(&mut self, order: Order, why: String) {
        log::debug!("publisher: {why}");
        self.last_error = Some(why.clone());
        order.answer(Err(why));
    }

    /// After each event: connect when it is time, and send what may be sent.
    fn settle(&mut self) {
        self.uplink.open_when_due();
        while self.may_publish() {
            let Some(line) = self.uplink.line_mut() else {
                break;
            };
            let Some((outgoing, order)) = self.backlog.pop_front() else {
                break;
            };
            self.alone = order.suspect;
            line.publish(outgoing, order);
        }
    }

    fn unconfirmed(&self) -> usize {
        self.backlog.len() + self.uplink.line().map_or(0, Line::unconfirmed)
    }

    fn report(&self) -> PublisherReport {
        let line = self.uplink.line();
        PublisherReport {
            connected: line.is_some(),
            blocked: line.is_some_and(Line::is_blocked),
            reconnects: self.uplink.reconnects(),
            host: line.map(|line| line.wire().host().to_owned()),
            unconfirmed: self.unconfirmed(),
            oldest: line.and_then(Line::oldest).map(|order| order.taken.elapsed()),
            last_error: self.last_error.clone(),
        }
    }
}
