//! What the recorder is asked for, and what it answers.

use std::path::PathBuf;
use std::time::Duration;

use crossbeam_channel::Sender;

use super::super::audit::Deed;
use super::super::{JobId, Pause, Reader, StoreError, recent};
use crate::histogram::Histogram;
use crate::policy::inflight::Mark;
use crate::task::{Committed, JobName, MessageKey, Record};
use crate::who::Who;

/// One job's records, to be committed together.
#[derive(Debug)]
pub struct Batch {
    /// Whose.
    pub job: JobId,
    /// What ended.
    pub records: Vec<Record>,
    /// Failed attempts whose copies are confirmed.
    pub marks: Vec<Mark>,
    /// Attempts that start once this is durable, of a job that asks for it.
    pub starts: Vec<Attempt>,
    /// Attempts that were to start and did not run after all.
    pub unstarted: Vec<Attempt>,
    /// Gets the proof, and before it at most one [`Written::Waits`]. A job has one batch under way at a time, so a bound of
    /// two never fills.
    pub reply: Sender<Written>,
}

/// What becomes of a batch.
#[derive(Debug)]
pub enum Written {
    /// It is durable.
    Committed(Committed),
    /// The disk is full: it is tried again until there is room, and then the proof follows.
    Waits,
}

/// One attempt of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// The key.
    pub key: MessageKey,
    /// The attempt.
    pub attempt: u32,
}

/// What the recorder can be asked.
#[derive(Debug)]
pub enum Request {
    /// Commit this.
    Commit(Batch),
    /// Remember that a job is paused by hand, or forget it, and who did it; the answer comes when that is durable.
    Pause(JobId, Option<Pause>, Deed, Sender<Result<(), StoreError>>),
    /// Forget a key of a job, or with none everything that the job has recorded so far, for somebody; how far that is, is asked
    /// with [`Request::Upkeep`].
    Forget(String, Option<MessageKey>, Who, Sender<Result<Upkeep, StoreError>>),
    /// Forget now what is over, and give room back, for somebody; without one only say how far that is. The answer is an error
    /// where the disk has no room for it.
    Upkeep(Option<Who>, Sender<Result<Upkeep, StoreError>>),
    /// Write down what somebody did; the answer comes when that is durable.
    Note(Deed, Sender<Result<(), StoreError>>),
    /// Make a job known that is about to start; the answer comes when that is durable.
    Admit(Admission, Sender<Result<Admitted, StoreError>>),
    /// Keep the records of a job for so long from now on; with `None` for good: it may come back.
    Retain(JobId, Option<Duration>),
    /// Say how it is.
    Inspect(Sender<StoreReport>),
    /// End, with what has come before this recorded: whoever could still send has nothing to record.
    End,
}

/// How far it is to forget and to give room back, where that was asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Upkeep {
    /// Records that are forgotten.
    pub forgotten: u64,
    /// Bytes that the disk has back.
    pub given_back: u64,
    /// Nothing is left to do.
    pub done: bool,
}

/// A job that is about to start while the recorder runs.
#[derive(Debug)]
pub struct Admission {
    /// Its name.
    pub name: JobName,
    /// How long its records are kept.
    pub retention: Duration,
    /// Whether it may run again what was running when a daemon died.
    pub forgets_starts: bool,
}

/// What a job that was admitted starts with.
#[derive(Debug)]
pub struct Admitted {
    /// Its number.
    pub id: JobId,
    /// Whether it is paused by hand.
    pub pause: Option<Pause>,
    pub(super) path: PathBuf,
    pub(super) recent: recent::Shared,
}

impl Admitted {
    /// A read-only handle. It reads the keys of the job once, a second or so for millions: not to be done by the recorder.
    pub fn reader(&self) -> Result<Reader, StoreError> {
        Reader::open(&self.path, self.id, self.recent.clone())
    }
}

/// Figures for `status`.
#[derive(Debug, Clone)]
pub struct StoreReport {
    /// The file.
    pub path: PathBuf,
    /// Rows of records.
    pub records: i64,
    /// Bytes of the file; `None` where it cannot be read.
    pub bytes: Option<u64>,
    /// Bytes of its write-ahead log; `None` where it cannot be read.
    pub wal_bytes: Option<u64>,
    /// Free on its file system, for users other than root, and the size of that; `None` where it cannot be asked.
    pub free_bytes: Option<u64>,
    /// See `free_bytes`.
    pub disk_bytes: Option<u64>,
    /// Commits since the start.
    pub commits: u64,
    /// What they took.
    pub commit_times: Histogram,
    /// How long the last one took; `None` before the first.
    pub last_commit: Option<Duration>,
    /// What keeps it from committing.
    pub problem: Option<String>,
}
