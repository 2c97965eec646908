//! How long things take in a job, and how many messages an ack covers.

use std::time::{Duration, Instant};

use super::counters::Durations;
use crate::histogram::{AGES, BATCHES, Histogram, TIMES};
use crate::policy::arrive;
use crate::task::{Task, UnixMillis};

/// From the start of the daemon on, for `/metrics`.
#[derive(Debug, Clone)]
pub struct Histograms {
    /// In the handler.
    pub run: Histogram,
    /// From delivery to start.
    pub wait: Histogram,
    /// From the publishing to the end of the run that succeeded.
    pub age: Histogram,
    /// Messages of one ack frame.
    pub acks: Histogram,
}

/// The same, and the last minutes of it for `status`.
#[derive(Debug)]
pub struct Timing {
    /// In the handler.
    pub run: Durations,
    /// From delivery to start.
    pub wait: Durations,
    /// Since the start of the daemon.
    pub histograms: Histograms,
}

impl Timing {
    /// Nothing measured yet.
    pub fn new(now: Instant) -> Self {
        let histograms = Histograms {
            run: Histogram::new(&TIMES),
            wait: Histogram::new(&TIMES),
            age: Histogram::new(&AGES),
            acks: Histogram::new(&BATCHES),
        };
        Self { run: Durations::new(now), wait: Durations::new(now), histograms }
    }

    /// A run ended.
    pub fn ran(&mut self, now: Instant, ran: Duration) {
        self.run.add(now, ran);
        self.histograms.run.add_time(ran);
    }

    /// A task starts.
    pub fn starts(&mut self, now: Instant, task: &Task) {
        let waited = now.saturating_duration_since(task.received);
        self.wait.add(now, waited);
        self.histograms.wait.add_time(waited);
    }

    /// A task is done.
    pub fn done(&mut self, at: UnixMillis, task: &Task) {
        // A publisher whose clock is ahead of ours cannot make a message younger than new.
        let age = at.0.saturating_sub(arrive::published(task, at).0);
        self.histograms.age.add(u64::try_from(age).unwrap_or(0));
    }

    /// An ack frame is sent for so many messages.
    pub fn acknowledged(&mut self, messages: usize) {
        self.histograms.acks.add(messages as u64);
    }
}
