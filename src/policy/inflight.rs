//! The in-flight machine: what may happen to a message between its delivery and its ack.
//!
//! One machine per job, owned by the job thread. It holds every delivery that the broker has not been told about and
//! answers each event with what that event may cause, one kind of effect per method:
//!
//! | event | method | may cause |
//! | --- | --- | --- |
//! | a delivery came | [`InFlight::delivered`] | a run, a copy, or nothing |
//! | a run ended | [`InFlight::finished`] | nothing yet |
//! | | [`InFlight::due`] | records to commit |
//! | records are durable | [`InFlight::committed`] | copies to publish |
//! | a copy is confirmed | [`InFlight::forwarded`] | a mark in the store |
//! | that mark is durable | [`InFlight::marked`] | nothing |
//! | | [`InFlight::acks`] | ack frames |
//! | | [`InFlight::hand_backs`] | nacks |
//! | the connection is gone | [`InFlight::disconnected`] | nothing |
//!
//! The order record, publish, acknowledge (promise P2) follows from the stages of an entry: a tag is settled only by
//! `committed` of a success and by `forwarded` of a failure, and `committed` asks for a value that only the store makes.

mod census;
mod entry;
mod kinds;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::ack::{AckFrame, AckWindow};
use crate::task::{Committed, DeliveryTag, Exit, MessageKey, QueueIndex, Record, Recorded, Task, Ticket, UnixMillis};
pub use census::Census;
use entry::{Entry, Stage};
pub use kinds::{AckPolicy, Arrived, Demanded, Ended, Mark, Released};

/// See the module's documentation.
#[derive(Debug)]
pub struct InFlight {
    policy: AckPolicy,
    session: u64,
    /// By queue; one channel each.
    windows: Vec<AckWindow>,
    entries: HashMap<Ticket, Entry>,
    by_key: HashMap<MessageKey, Ticket>,
    /// Attempts whose copy is confirmed, which the store does not know yet.
    unmarked: HashSet<(MessageKey, u32)>,
    census: Census,
    finished: Vec<Ticket>,
    hand_backs: Vec<DeliveryTag>,
    released: Vec<Released>,
    /// When the oldest settled delivery that waits for its ack was settled.
    settled_since: Option<Instant>,
    last_ticket: u64,
}

impl InFlight {
    /// A machine for a job with this many queues; no session yet.
    pub fn new(queues: usize, policy: AckPolicy) -> Self {
        Self {
            policy,
            session: 0,
            windows: (0..queues).map(|_| AckWindow::default()).collect(),
            entries: HashMap::new(),
            by_key: HashMap::new(),
            unmarked: HashSet::new(),
            census: Census::default(),
            finished: Vec::new(),
            hand_backs: Vec::new(),
            released: Vec::new(),
            settled_since: None,
            last_ticket: 0,
        }
    }

    /// From now on acks are sent by this policy.
    pub fn set_policy(&mut self, policy: AckPolicy) {
        self.policy = policy;
    }

    /// What waits for a worker, in no order.
    pub fn waiting(&self) -> impl Iterator<Item = &Task> {
        self.entries.values().filter(|entry| matches!(entry.stage, Stage::Queued)).map(|entry| &*entry.task)
    }

    /// A session begins; its deliveries bear this number.
    pub fn connected(&mut self, session: u64) {
        self.session = session;
    }

    /// A delivery came. `known` is what the store says of its key and attempt; `None` where it has no key.
    ///
    /// The look-up must have begun after every commit that this machine was told of, which holds when the job
    /// thread does both.
    pub fn delivered(&mut self, now: Instant, tag: DeliveryTag, task: Arc<Task>, known: Option<&Recorded>) -> Arrived {
        self.windows[tag.queue].delivered(tag.tag);
        self.judge(now, tag, task, known)
    }

    /// A held delivery is judged again.
    pub fn judge_again(&mut self, now: Instant, released: Released, known: Option<&Recorded>) -> Arrived {
        self.judge(now, released.tag, released.task, known)
    }

    fn judge(&mut self, now: Instant, tag: DeliveryTag, task: Arc<Task>, known: Option<&Recorded>) -> Arrived {
        let failed = match known {
            Some(Recorded::Done | Recorded::Forwarded) => {
                self.settle(now, tag);
                return Arrived::Duplicate;
            }
            // Its delivery was lost in a reconnect and its copy confirmed meanwhile, and it is back before the mark of that.
            Some(Recorded::Failed(_)) if self.is_unmarked(&task) => {
                self.settle(now, tag);
                return Arrived::Duplicate;
            }
            Some(Recorded::Failed(failed)) => Some(failed.clone()),
            None => None,
        };
        if let Some(ticket) = task.key.as_ref().and_then(|key| self.by_key.get(key)) {
            let entry = self.entries.get_mut(ticket).expect("by_key names living entries");
            if entry.task.attempt != task.attempt {
                self.census.held += 1;
                entry.held.push(Released { tag, task });
                return Arrived::Held;
            }
            let adopted = entry.tags.is_empty();
            entry.tags.push(tag);
            return if adopted { Arrived::Adopted } else { Arrived::Joined };
        }
        self.last_ticket += 1;
        let ticket = Ticket(self.last_ticket);
        if let Some(key) = &task.key {
            self.by_key.insert(key.clone(), ticket);
        }
        let (stage, arrived) = match failed {
            Some(failed) => (Stage::Forwarding(failed), Arrived::Forward(ticket)),
            None => (Stage::Queued, Arrived::Run(ticket)),
        };
        *self.census.count(&stage) += 1;
        self.entries.insert(ticket, Entry::new(task, tag, stage));
        arrived
    }

    /// The task of an entry that was queued, which now runs.
    pub fn start(&mut self, ticket: Ticket) -> Option<Arc<Task>> {
        let entry = self.entries.get_mut(&ticket)?;
        self.census.shift(&mut entry.stage, Stage::Running);
        Some(Arc::clone(&entry.task))
    }

    /// The task of an entry.
    pub fn task(&self, ticket: Ticket) -> Option<Arc<Task>> {
        self.entries.get(&ticket).map(|entry| Arc::clone(&entry.task))
    }

    /// The full name of a tag of the present session.
    pub fn tag(&self, queue: QueueIndex, tag: u64) -> DeliveryTag {
        DeliveryTag { session: self.session, queue, tag }
    }

    /// How long a run took, and how its process ended; told before [`InFlight::finished`].
    pub fn ran(&mut self, ticket: Ticket, ran: Duration, exit: Option<Exit>) {
        if let Some(entry) = self.entries.get_mut(&ticket) {
            (entry.ran, entry.exit) = (ran, exit);
        }
    }

    /// How long the run took, as far as that was told.
    pub fn run_time(&self, ticket: Ticket) -> Option<Duration> {
        self.entries.get(&ticket).map(|entry| entry.ran)
    }

    /// A run ended, or a queued task will never start.
    pub fn finished(&mut self, ticket: Ticket, ended: Ended, at: UnixMillis) {
        let Some(entry) = self.entries.get_mut(&ticket) else {
            return;
        };
        match ended {
            Ended::HandedBack => {
                let entry = self.remove(ticket);
                for tag in entry.tags {
                    self.hand_back(tag);
                }
            }
            ended @ (Ended::Done | Ended::Failed(_)) => {
                self.census.shift(&mut entry.stage, Stage::Finished(ended, at));
                self.finished.push(ticket);
            }
        }
    }

    /// The records of all runs that ended since the last call. They must be committed in one piece or not at all.
    pub fn due(&mut self) -> Vec<Record> {
        let tickets = std::mem::take(&mut self.finished);
        tickets.into_iter().filter_map(|ticket| self.record(ticket)).collect()
    }

    fn record(&mut self, ticket: Ticket) -> Option<Record> {
        let entry = self.entries.get_mut(&ticket)?;
        let Stage::Finished(ended, at) = &entry.stage else {
            return None;
        };
        let (ended, at) = (ended.clone(), *at);
        let what = match &ended {
            Ended::Done => Recorded::Done,
            Ended::Failed(failed) => Recorded::Failed(failed.clone()),
            Ended::HandedBack => return None,
        };
        self.census.shift(&mut entry.stage, Stage::Recording(ended));
        let task = &entry.task;
        Some(Record {
            ticket,
            key: task.key.clone(),
            attempt: task.attempt,
            what,
            at,
            ran: entry.ran,
            exit: entry.exit,
            first_seen: task.first_seen,
        })
    }

    /// Records are durable: successes are settled, failures demand their copies.
    ///
    /// A failure whose delivery is gone demands nothing: the message is back in its queue, and when it comes again
    /// the record makes it a [`Arrived::Forward`].
    pub fn committed(&mut self, now: Instant, committed: &Committed) -> Vec<Demanded> {
        let mut demanded = Vec::new();
        for &ticket in committed.tickets() {
            let Some(entry) = self.entries.get_mut(&ticket) else {
                continue;
            };
            let Stage::Recording(ended) = &entry.stage else {
                continue;
            };
            match ended {
                Ended::Failed(failed) if !entry.tags.is_empty() => {
                    let failed = failed.clone();
                    demanded.push(Demanded { ticket, task: Arc::clone(&entry.task), failed: failed.clone() });
                    self.census.shift(&mut entry.stage, Stage::Forwarding(failed));
                }
                Ended::Done | Ended::Failed(_) | Ended::HandedBack => {
                    for tag in self.remove(ticket).tags {
                        self.settle(now, tag);
                    }
                }
            }
        }
        demanded
    }

    /// The copy that an entry still owes; asked again when a publish failed.
    pub fn demanded(&self, ticket: Ticket) -> Option<Demanded> {
        let entry = self.entries.get(&ticket)?;
        let Stage::Forwarding(failed) = &entry.stage else {
            return None;
        };
        Some(Demanded { ticket, task: Arc::clone(&entry.task), failed: failed.clone() })
    }

    /// The broker confirmed the copy of a failed attempt: its deliveries are settled.
    pub fn forwarded(&mut self, now: Instant, ticket: Ticket) -> Option<Mark> {
        if !matches!(self.entries.get(&ticket)?.stage, Stage::Forwarding(_)) {
            return None;
        }
        let entry = self.remove(ticket);
        for tag in entry.tags {
            self.settle(now, tag);
        }
        let key = entry.task.key.clone()?;
        self.unmarked.insert((key.clone(), entry.task.attempt));
        Some(Mark { key, attempt: entry.task.attempt })
    }

    /// These marks are durable: from here on the store knows what they say.
    pub fn marked(&mut self, marks: Vec<Mark>) {
        for Mark { key, attempt } in marks {
            self.unmarked.remove(&(key, attempt));
        }
    }

    fn is_unmarked(&self, task: &Task) -> bool {
        !self.unmarked.is_empty()
            && task.key.as_ref().is_some_and(|key| self.unmarked.contains(&(key.clone(), task.attempt)))
    }

    /// Held deliveries whose time has come; each goes to [`InFlight::judge_again`].
    pub fn released(&mut self) -> Vec<Released> {
        std::mem::take(&mut self.released)
    }

    /// Gives back a delivery that was released while the job drains.
    pub fn hand_back_released(&mut self, released: &Released) {
        self.hand_back(released.tag);
    }

    /// The deliveries to nack with requeue; they count as sent.
    pub fn hand_backs(&mut self) -> Vec<DeliveryTag> {
        std::mem::take(&mut self.hand_backs)
    }

    /// The ack frames that are due by count, by time or because nothing is left to run; they count as sent. With `full`, also
    /// those of a queue that has so many deliveries unacknowledged: the broker waits for them.
    pub fn acks(&mut self, now: Instant, full: Option<usize>) -> Vec<(QueueIndex, AckFrame)> {
        let idle = self.census.queued + self.census.running + self.census.recording == 0;
        let late = self.settled_since.is_some_and(|since| now >= since + self.policy.interval);
        let mut frames = Vec::new();
        for (queue, window) in self.windows.iter_mut().enumerate() {
            let awaited = || full.is_some_and(|full| window.waiting() > 0 && window.unacked() >= full);
            if idle || late || window.waiting() >= self.policy.batch || awaited() {
                frames.extend(window.flush().into_iter().map(|frame| (queue, frame)));
            }
        }
        self.census.acking = self.windows.iter().map(AckWindow::waiting).sum();
        if self.census.acking == 0 {
            self.settled_since = None;
        }
        frames
    }

    /// When [`InFlight::acks`] has something by time.
    pub fn ack_deadline(&self) -> Option<Instant> {
        self.settled_since.map(|since| since + self.policy.interval)
    }

    /// The session is gone and its tags with it: the broker has put every unacknowledged delivery back.
    ///
    /// What waits to run is forgotten, for it will come again. What runs goes on and adopts its redelivery.
    pub fn disconnected(&mut self) {
        self.windows.fill_with(AckWindow::default);
        self.hand_backs.clear();
        self.released.clear();
        self.settled_since = None;
        self.census.acking = 0;
        self.census.held = 0;
        let (by_key, census) = (&mut self.by_key, &mut self.census);
        self.entries.retain(|_, entry| {
            entry.tags.clear();
            entry.held.clear();
            let queued = matches!(entry.stage, Stage::Queued);
            if queued {
                census.queued -= 1;
                if let Some(key) = &entry.task.key {
                    by_key.remove(key);
                }
            }
            !queued
        });
    }

    /// At which attempt a key is in flight, and what it is at, to go after "is".
    pub fn find(&self, key: &MessageKey) -> Option<(u32, &'static str)> {
        let entry = self.entries.get(self.by_key.get(key)?)?;
        Some((entry.task.attempt, entry.stage.as_str()))
    }

    /// Deliveries of a queue that the broker still counts as ours.
    pub fn unacked(&self, queue: QueueIndex) -> usize {
        self.windows[queue].unacked()
    }

    /// How many entries wait for what.
    pub fn census(&self) -> Census {
        self.census
    }

    fn settle(&mut self, now: Instant, tag: DeliveryTag) {
        if tag.session == self.session {
            self.windows[tag.queue].settle(tag.tag);
            self.census.acking += 1;
            self.settled_since.get_or_insert(now);
        }
    }

    fn hand_back(&mut self, tag: DeliveryTag) {
        if tag.session == self.session && self.windows[tag.queue].hand_back(tag.tag) {
            self.hand_backs.push(tag);
        }
    }

    fn remove(&mut self, ticket: Ticket) -> Entry {
        let mut entry = self.entries.remove(&ticket).expect("callers have looked the entry up");
        *self.census.count(&entry.stage) -= 1;
        if let Some(key) = &entry.task.key {
            self.by_key.remove(key);
        }
        self.census.held -= entry.held.len();
        self.released.append(&mut entry.held);
        entry
    }
}
