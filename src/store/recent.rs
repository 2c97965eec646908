//! The records that are too young for a generation, by key: what the table `recent` holds, in memory.

use std::collections::{HashMap, hash_map};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::JobId;
use crate::task::{Exit, MessageKey, Recorded};

/// How an attempt ended, as it is stored. The greater one counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    Failed,
    Forwarded,
    Done,
}

impl Outcome {
    pub fn of(recorded: &Recorded) -> Self {
        match recorded {
            Recorded::Done => Self::Done,
            Recorded::Failed(_) => Self::Failed,
            Recorded::Forwarded => Self::Forwarded,
        }
    }

    /// The number in the tables; the greater one counts there too.
    pub fn code(self) -> i64 {
        match self {
            Self::Failed => 1,
            Self::Forwarded => 2,
            Self::Done => 3,
        }
    }

    pub fn from_code(code: i64) -> Option<Self> {
        [Self::Failed, Self::Forwarded, Self::Done].into_iter().find(|outcome| outcome.code() == code)
    }
}

/// Job, key and attempt: what a record is about. Ordered as the primary key of the table `records` is.
pub type Id = (JobId, MessageKey, u32);

/// What is recorded of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    pub outcome: Outcome,
    /// When it ended, Unix milliseconds.
    pub at: i64,
    /// How long it ran, milliseconds; saturates at seven weeks.
    pub ran: u32,
    /// How its process ended.
    pub exit: Ended,
}

/// How a process ended, as it is stored: the exit code, or the number of a signal below zero. Two bytes: tens of thousands
/// of records are in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended(i16);

impl Ended {
    /// No process ended.
    pub const NONE: Self = Self(i16::MIN);

    pub fn of(exit: Option<Exit>) -> Self {
        let number = match exit {
            Some(Exit::Code(code)) => i16::try_from(code).ok(),
            Some(Exit::Signal(signal)) => i16::try_from(-signal).ok(),
            None => None,
        };
        number.map_or(Self::NONE, Self)
    }

    /// What the column holds.
    pub fn column(self) -> Option<i16> {
        Some(self.0).filter(|_| self != Self::NONE)
    }

    /// What the column held.
    pub fn from_column(number: Option<i16>) -> Self {
        number.map_or(Self::NONE, Self)
    }

    /// What it means.
    pub fn exit(self) -> Option<Exit> {
        let number = i32::from(self.column()?);
        Some(if number < 0 { Exit::Signal(-number) } else { Exit::Code(number) })
    }
}

/// The attempts of one key. Nearly always there is one.
#[derive(Debug)]
struct Attempts {
    first: (u32, Entry),
    others: Vec<(u32, Entry)>,
}

impl Attempts {
    fn iter(&self) -> impl Iterator<Item = (u32, Entry)> {
        std::iter::once(self.first).chain(self.others.iter().copied())
    }

    fn raise(&mut self, attempt: u32, entry: Entry) -> bool {
        let known = std::iter::once(&mut self.first).chain(&mut self.others).find(|(known, _)| *known == attempt);
        match known {
            Some((_, known)) => {
                if known.outcome < entry.outcome {
                    // A confirm says nothing of the run.
                    let run = if entry.outcome == Outcome::Forwarded { *known } else { entry };
                    *known = Entry { outcome: entry.outcome, ..run };
                }
                false
            }
            None => {
                self.others.push((attempt, entry));
                true
            }
        }
    }
}

/// Written by the recorder when a commit is durable, read by the job threads. Lost with the process and read again from the
/// store at the next start.
#[derive(Debug, Default)]
pub struct Recent {
    /// A table of hashes, not a tree: a tree would compare a dozen keys, each somewhere else in memory, for every record.
    young: HashMap<(JobId, MessageKey), Attempts>,
    /// Records in `young`.
    count: usize,
    /// Those that are moving to a generation, in order. They stay here until it is whole.
    moving: Vec<(Id, Entry)>,
}

impl Recent {
    /// How many records there are.
    pub fn len(&self) -> usize {
        self.count + self.moving.len()
    }

    /// How many of them no generation takes in yet.
    pub fn young(&self) -> usize {
        self.count
    }

    /// What no generation takes in yet, in no order.
    pub fn each_young(&self) -> impl Iterator<Item = (JobId, Entry)> {
        self.young.iter().flat_map(|((job, _), attempts)| attempts.iter().map(|(_, entry)| (*job, entry)))
    }

    /// Those that are moving to a generation, in order.
    pub fn moving(&self) -> &[(Id, Entry)] {
        &self.moving
    }

    /// Adds a record, or raises one.
    pub fn insert(&mut self, (job, key, attempt): Id, entry: Entry) {
        let added = match self.young.entry((job, key)) {
            hash_map::Entry::Occupied(mut known) => known.get_mut().raise(attempt, entry),
            hash_map::Entry::Vacant(place) => {
                place.insert(Attempts { first: (attempt, entry), others: Vec::new() });
                true
            }
        };
        self.count += usize::from(added);
    }

    /// Forgets a key. Nothing may be moving.
    pub fn forget(&mut self, job: JobId, key: &MessageKey) {
        debug_assert!(self.moving.is_empty(), "what moves would come back");
        if let Some(attempts) = self.young.remove(&(job, key.clone())) {
            self.count -= attempts.iter().count();
        }
    }

    /// All attempts of a key; one attempt may come twice, once from each part.
    pub fn of_key(&self, job: JobId, key: &MessageKey) -> Vec<(u32, Entry)> {
        let id = (job, key.clone());
        let from = self.moving.partition_point(|((job, key, _), _)| (job, key) < (&id.0, &id.1));
        let moving = self.moving[from..].iter().take_while(|((job, key, _), _)| (job, key) == (&id.0, &id.1));
        let moving = moving.map(|((_, _, attempt), entry)| (*attempt, *entry));
        self.young.get(&id).into_iter().flat_map(Attempts::iter).chain(moving).collect()
    }

    /// From here on, what is young now moves. What moved before must have arrived.
    pub fn begin_move(&mut self) {
        debug_assert!(self.moving.is_empty(), "one generation at a time");
        let mut moving = Vec::with_capacity(self.count);
        for ((job, key), attempts) in self.young.drain() {
            moving.extend(attempts.iter().map(|(attempt, entry)| ((job, key.clone(), attempt), entry)));
        }
        // By the beginnings of the keys, each looked up once: comparing whole keys would visit all of memory again and again.
        // Those that begin alike are put in order after that.
        moving.sort_by_cached_key(|((job, key, _), _)| (*job, beginning(key)));
        if !moving.is_sorted_by(|(left, _), (right, _)| left <= right) {
            moving.sort_by(|(left, _), (right, _)| left.cmp(right));
        }
        self.moving = moving;
        self.count = 0;
    }

    /// The generation is whole: its records are forgotten here.
    pub fn end_move(&mut self) -> Vec<(Id, Entry)> {
        std::mem::take(&mut self.moving)
    }
}

/// The first bytes of a key, ordered as the keys are.
fn beginning(key: &MessageKey) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes.iter_mut().zip(key.as_bytes()).for_each(|(to, from)| *to = *from);
    bytes
}

/// One [`Recent`] for the recorder and all readers. Every change is a single call, so a panic elsewhere spoils nothing.
#[derive(Debug, Clone, Default)]
pub struct Shared(Arc<RwLock<Recent>>);

impl Shared {
    pub fn new(recent: Recent) -> Self {
        Self(Arc::new(RwLock::new(recent)))
    }

    pub fn read(&self) -> RwLockReadGuard<'_, Recent> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn write(&self) -> RwLockWriteGuard<'_, Recent> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}
