//! One row: a fault, and what was measured of it.

use std::time::Duration;

use crate::support::scene::Verdict;

/// A fault that is injected again and again.
#[derive(Clone, Copy)]
pub struct Row {
    /// As `ROWS` selects it.
    pub name: &'static str,
    /// How it is injected: one sentence.
    pub fault: &'static str,
    /// The promises that it holds to: `"P1 P3"`.
    pub promises: &'static str,
    /// Faults in the short form; none leaves the row out of it.
    pub short: usize,
    /// Faults in the long form.
    pub long: usize,
    /// What the long form takes here, for each fault, in seconds.
    pub seconds: f64,
    /// Injects the faults, lets the daemon finish, judges. It may panic: that fails the row.
    pub run: fn(&Trial) -> Figures,
}

/// What a row is to do.
#[derive(Debug, Clone, Copy)]
pub struct Trial {
    /// Faults to inject.
    pub count: usize,
    /// Whether there is time for longer faults.
    pub long: bool,
    /// Its random choices come from this; `fastrand` of its thread is seeded with it.
    pub seed: u64,
}

/// What was measured.
#[derive(Debug, Default)]
pub struct Figures {
    /// Faults that were injected.
    pub faults: usize,
    /// Messages that were published and confirmed.
    pub messages: usize,
    /// Those that are neither done nor dead nor queued.
    pub lost: usize,
    /// Runs that a world without faults would have spared; each is explained by one.
    pub again: usize,
    /// Dead letters that lie twice in their queue.
    pub doubled: usize,
    /// The longest time from the end of a fault, or the start after it, to the next run.
    pub slowest: Option<Duration>,
    /// What else is worth a word in the table.
    pub note: String,
    /// One sentence for each thing that is not as it must be.
    pub wrong: Vec<String>,
}

impl Figures {
    /// Those of a scene.
    pub fn of(faults: usize, verdict: Verdict) -> Self {
        Self {
            faults,
            messages: verdict.messages,
            lost: verdict.lost,
            again: verdict.extra_runs,
            doubled: verdict.doubled,
            slowest: Some(verdict.slowest).filter(|time| !time.is_zero()),
            note: String::new(),
            wrong: verdict.wrong,
        }
    }
}

/// How a row ended.
pub struct Ended {
    /// Nothing where it panicked.
    pub figures: Option<Figures>,
    /// What its panic said.
    pub panic: Option<String>,
    pub trial: Trial,
    pub took: Duration,
}

impl Ended {
    /// Whether nothing was lost and nothing else is wrong.
    pub fn is_well(&self) -> bool {
        self.panic.is_none()
            && self.figures.as_ref().is_some_and(|figures| figures.lost == 0 && figures.wrong.is_empty())
    }
}
