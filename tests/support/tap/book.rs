//! What the connections share: the records, the copies that were confirmed, the figures, the violations.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::path::Path;

use super::content::Content;
use super::method::Reason;
use super::store::{Recorded, Store};

/// Violations that are told; the first says most.
const MOST_TOLD: usize = 20;
/// The broker closes a connection because somebody asked it to, or because it stops.
const CONNECTION_FORCED: u16 = 320;
/// What a passive declaration asks about is not there.
const NOT_FOUND: u16 = 404;
/// Classes and methods of the declarations.
const DECLARE: [(u16, u16); 2] = [(40, 10), (50, 10)];

/// Figures of what the tap saw.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    pub connections: u64,
    pub deliveries: u64,
    /// Frames, and the deliveries that they acknowledged.
    pub acks: u64,
    pub acked: u64,
    /// Of those acknowledged: successes with their record, and failures with record and confirmed copy.
    pub done: u64,
    pub copied: u64,
    /// Of those acknowledged: without a key, or from a queue that is no job's.
    pub unjudged: u64,
    pub handed_back: u64,
    pub publishes: u64,
    pub confirms: u64,
    pub returns: u64,
    pub refusals: u64,
    pub heartbeats: u64,
    /// Channels that the broker closed because something that was asked about is not there.
    pub absent: u64,
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { connections, deliveries, acks, acked, done, copied, publishes, confirms, handed_back, .. } = self;
        write!(
            f,
            "{connections} connections, {deliveries} deliveries, {acks} acks of {acked} ({done} with a record, {copied} \
             with a record and a confirmed copy), {handed_back} handed back, {publishes} publishes, {confirms} confirms"
        )
    }
}

/// Names an attempt: job, key, number.
type Attempt = (String, String, u32);

/// See the module's documentation.
#[derive(Debug)]
pub struct Book {
    /// Jobs by work queue.
    pub jobs: BTreeMap<String, String>,
    /// Reply codes with which the broker may close a channel or a connection in this test.
    pub expected: Vec<u16>,
    /// The daemon may be stopped or starved: it owes no heartbeats.
    pub hangs: bool,
    store: Store,
    /// Failed attempts whose copy is confirmed.
    copies: HashSet<Attempt>,
    pub tally: Tally,
    /// Connection and channel of the frame that is judged.
    pub place: (u64, u16),
    pub violations: Vec<String>,
}

impl Book {
    /// For a store that was moved before its first use.
    pub fn read_from(&mut self, store: &Path) {
        self.store = Store::new(store);
    }

    pub fn new(store: &Path) -> Self {
        Self {
            jobs: BTreeMap::new(),
            expected: Vec::new(),
            hangs: false,
            store: Store::new(store),
            copies: HashSet::new(),
            tally: Tally::default(),
            place: (0, 0),
            violations: Vec::new(),
        }
    }

    pub fn violation(&mut self, mut what: String) {
        if self.violations.len() < MOST_TOLD {
            let (line, channel) = self.place;
            what.insert_str(0, &format!("connection {line}, channel {channel}: "));
            self.violations.push(what);
        }
    }

    fn recorded(&mut self, job: &str, key: &str, attempt: u32) -> Recorded {
        self.store.recorded(job, key, attempt).unwrap_or_else(|error| {
            self.violation(format!("the store cannot be read: {error}"));
            Recorded::Nothing
        })
    }

    /// A delivery is being acknowledged: its record must be there, and for a failure its copy confirmed.
    pub fn judge_ack(&mut self, queue: &str, content: &Content, what: &str) {
        self.tally.acked += 1;
        let attempt = content.attempt();
        let (Some(job), Some(key)) = (self.jobs.get(queue).cloned(), key(content)) else {
            self.tally.unjudged += 1;
            return;
        };
        match self.recorded(&job, key, attempt) {
            Recorded::Done => self.tally.done += 1,
            Recorded::Failed if self.copies.contains(&(job, key.to_owned(), attempt)) => self.tally.copied += 1,
            Recorded::Failed => self.violation(format!(
                "{what}: attempt {attempt} of {key:?} failed, and the broker has not confirmed its copy"
            )),
            Recorded::Nothing => {
                self.violation(format!("{what}: attempt {attempt} of {key:?} has no record that a reader can see"));
            }
        }
    }

    /// The failed attempt that a publish is the copy of.
    fn failed(&self, content: &Content) -> Option<Attempt> {
        let job = self.jobs.get(content.queue.as_ref()?)?;
        Some((job.clone(), key(content)?.to_owned(), content.attempt?.checked_sub(1)?))
    }

    /// A copy is being published: the record of what failed must be there, and the copy must survive a restart of the
    /// broker.
    pub fn judge_copy(&mut self, content: &Content) {
        let Some((job, key, attempt)) = self.failed(content) else { return };
        if self.recorded(&job, &key, attempt) == Recorded::Nothing {
            self.violation(format!(
                "a copy of {key:?} is published, and its attempt {attempt} has no record that a reader can see"
            ));
        }
        if content.delivery_mode != Some(2) {
            self.violation(format!("a copy of {key:?} is published that is not persistent"));
        }
    }

    /// The broker has confirmed a publish that it did not return.
    pub fn note_confirmed(&mut self, content: &Content) {
        self.copies.extend(self.failed(content));
    }

    /// The broker has closed a channel or a connection.
    pub fn judge_close(&mut self, whole: bool, why: &Reason, asked_passively: bool) {
        let absent = why.code == NOT_FOUND && asked_passively && DECLARE.contains(&why.method);
        let forced = why.code == CONNECTION_FORCED && whole;
        if absent {
            self.tally.absent += 1;
        } else if !forced && !self.expected.contains(&why.code) {
            let what = if whole { "connection" } else { "channel" };
            self.violation(format!("the broker closes the {what}: {why}"));
        }
    }
}

/// The key of a message in a job that goes by message ids.
fn key(content: &Content) -> Option<&str> {
    content.message_id.as_deref().filter(|id| !id.is_empty())
}
