//! How long records are remembered.

use std::collections::BTreeMap;
use std::time::Duration;

use super::super::JobId;

/// What each job's records are kept for, and what was told to be forgotten before that.
#[derive(Debug, Default)]
pub(super) struct Retention {
    /// A job that is not in it keeps its keys: it may come back.
    kept: BTreeMap<JobId, Duration>,
    /// Everything of a job up to that time, Unix milliseconds, is over. Lost with the process: who asked for it waits for
    /// the end, and asks again where none came.
    forgotten: BTreeMap<JobId, i64>,
}

impl Retention {
    pub(super) fn new(kept: BTreeMap<JobId, Duration>) -> Self {
        Self { kept, forgotten: BTreeMap::new() }
    }

    /// Jobs that forget by themselves, and after what time.
    pub(super) fn kept(&self) -> impl Iterator<Item = (JobId, Duration)> {
        self.kept.iter().map(|(job, kept)| (*job, *kept))
    }

    /// From now on a job's records are kept for so long, with `None` for good. Says whether that is new.
    pub(super) fn set(&mut self, job: JobId, kept: Option<Duration>) -> bool {
        let before = match kept {
            Some(kept) => self.kept.insert(job, kept),
            None => self.kept.remove(&job),
        };
        before != kept
    }

    /// Whatever a job has recorded up to that time is over.
    pub(super) fn forget_until(&mut self, job: JobId, at: i64) {
        self.forgotten.insert(job, at);
    }

    /// What was told to be forgotten is, or will not be.
    pub(super) fn end_forgetting(&mut self) {
        self.forgotten.clear();
    }

    /// When a record is over, Unix milliseconds.
    pub(super) fn over_at(&self, job: JobId, at: i64) -> i64 {
        if self.forgotten.get(&job).is_some_and(|until| at <= *until) {
            return i64::MIN;
        }
        let kept = self.kept.get(&job).and_then(|kept| i64::try_from(kept.as_millis()).ok());
        kept.map_or(i64::MAX, |kept| at.saturating_add(kept))
    }
}
