//! Counting dead letters and finding one, without keeping their bodies.

use std::collections::BTreeMap;

use super::{Filter, Fingerprint, Trouble, attempts, failed_at, home, id};
use crate::broker::with_hold;
use crate::config::{self, Job};
use crate::task::{Message, UnixMillis};

/// Kinds of errors that are told apart: a hundred screens, and a bound on memory.
const MOST_GROUPS: usize = 2000;

/// The dead letters that a filter means, counted.
#[derive(Debug, Default)]
pub struct Survey {
    /// How many letters lay in the queue.
    pub lay: u64,
    /// How many of them were meant.
    pub count: u64,
    /// When the first and the last of those failed, where they say so.
    pub span: Span,
    /// By what they died of.
    pub groups: BTreeMap<Fingerprint, Group>,
    /// Letters of so many kinds that they are not told apart.
    pub others: u64,
    /// By the queue that a replay would bring them to.
    pub homes: BTreeMap<String, u64>,
}

/// Dead letters that died of the same.
#[derive(Debug, Default)]
pub struct Group {
    /// How many.
    pub count: u64,
    /// When the first and the last failed.
    pub span: Span,
    /// The id of the first in the queue, to look at.
    pub example: Option<String>,
}

/// A first and a last time.
#[derive(Debug, Default, Clone, Copy)]
pub struct Span {
    /// The first.
    pub oldest: Option<UnixMillis>,
    /// The last.
    pub newest: Option<UnixMillis>,
}

impl Span {
    fn add(&mut self, at: Option<UnixMillis>) {
        let Some(at) = at else { return };
        self.oldest = Some(self.oldest.map_or(at, |known| known.min(at)));
        self.newest = Some(self.newest.map_or(at, |known| known.max(at)));
    }
}

/// Counts the letters that the filter means. The queue is afterwards as it was.
pub fn survey(broker: &config::Broker, job: &Job, filter: &Filter) -> Result<Survey, Trouble> {
    let mut survey = Survey::default();
    with_hold(broker, &job.dead_letter.queue, None, |hold| {
        survey.lay = hold.lay();
        while !filter.is_full(survey.count) {
            let Some(held) = hold.next()? else { break };
            hold.leave(held.token);
            if filter.matches(job, &held.message) {
                survey.add(job, &held.message);
            }
        }
        Ok(survey)
    })?
}

/// One letter in short.
#[derive(Debug)]
pub struct Entry {
    /// Its place in the queue, from 1.
    pub index: u64,
    /// Its key or message id.
    pub id: Option<String>,
    /// What it died of.
    pub fingerprint: Fingerprint,
    /// When.
    pub failed_at: Option<UnixMillis>,
    /// How many attempts it had.
    pub attempts: Option<i64>,
    /// The size of its body.
    pub bytes: usize,
}

/// The first letters of a queue, counted and one by one.
#[derive(Debug)]
pub struct Glance {
    /// Their queue.
    pub queue: String,
    /// How many lie there.
    pub lies: u64,
    /// Of those that were read.
    pub survey: Survey,
    /// The same ones in their order.
    pub entries: Vec<Entry>,
}

/// Looks at the first `most` letters. The queue is afterwards as it was.
pub fn glance(broker: &config::Broker, job: &Job, most: u64) -> Result<Glance, Trouble> {
    with_hold(broker, &job.dead_letter.queue, Some(most), |hold| {
        let queue = job.dead_letter.queue.to_string();
        let survey = Survey { lay: hold.lay(), ..Survey::default() };
        let mut glance = Glance { queue, lies: hold.count(), survey, entries: Vec::new() };
        while let Some(held) = hold.next()? {
            hold.leave(held.token);
            let message = &held.message;
            glance.survey.add(job, message);
            glance.entries.push(Entry {
                index: glance.entries.len() as u64 + 1,
                id: id(job, message),
                fingerprint: Fingerprint::of(message),
                failed_at: failed_at(message),
                attempts: attempts(message),
                bytes: message.body.len(),
            });
        }
        Ok(glance)
    })?
}

impl Survey {
    fn add(&mut self, job: &Job, message: &Message) {
        let at = failed_at(message);
        self.count += 1;
        self.span.add(at);
        *self.homes.entry(home(job, message).to_string()).or_default() += 1;
        let fingerprint = Fingerprint::of(message);
        if self.groups.len() >= MOST_GROUPS && !self.groups.contains_key(&fingerprint) {
            self.others += 1;
            return;
        }
        let group = self.groups.entry(fingerprint).or_default();
        if group.count == 0 {
            group.example = id(job, message);
        }
        group.count += 1;
        group.span.add(at);
    }
}

/// One dead letter.
#[derive(Debug)]
pub struct Found {
    /// Its place in the queue, from 1.
    pub index: u64,
    /// How many lay in the queue.
    pub lay: u64,
    /// The letter.
    pub message: Message,
}

/// The first letter that the filter means, or with `index` that at this place, from 1. The queue is afterwards as it was.
pub fn find(broker: &config::Broker, job: &Job, filter: &Filter, index: Option<u64>) -> Result<Option<Found>, Trouble> {
    with_hold(broker, &job.dead_letter.queue, None, |hold| {
        let mut place = 0;
        while let Some(held) = hold.next()? {
            hold.leave(held.token);
            place += 1;
            let is_meant = index.map_or_else(|| filter.matches(job, &held.message), |index| index == place);
            if is_meant {
                return Ok(Some(Found { index: place, lay: hold.lay(), message: held.message }));
            }
        }
        Ok(None)
    })?
}
