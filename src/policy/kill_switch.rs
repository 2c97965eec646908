//! How many of the last attempts failed: the sign of an outage behind the handler.

use std::time::Instant;

use crate::config;

/// The window slides in steps of this share of its length, so that its memory does not grow with the traffic.
const STEPS: u32 = 30;

/// Attempts that ended in one step of the window.
#[derive(Debug, Clone, Copy, Default)]
struct Step {
    attempts: u64,
    failed: u64,
}

/// The attempts of one job within the window of its kill switch; owned by its gate.
#[derive(Debug)]
pub struct KillSwitch {
    config: config::KillSwitch,
    /// Slot by number of the step modulo [`STEPS`]: the running step and those before it, so that nothing older than the
    /// window counts.
    steps: [Step; STEPS as usize],
    /// The number of the running step, counted from `start`.
    running: u64,
    start: Instant,
}

impl KillSwitch {
    /// With an empty window.
    pub fn new(config: config::KillSwitch, now: Instant) -> Self {
        Self { config, steps: [Step::default(); STEPS as usize], running: 0, start: now }
    }

    /// Counts an attempt that did not fail.
    pub fn well(&mut self, now: Instant) {
        self.step(now).attempts += 1;
    }

    /// Counts an attempt that failed. Where that is one too many, it gives the share that failed, as a text for people.
    pub fn failed(&mut self, now: Instant) -> Option<String> {
        let step = self.step(now);
        step.attempts += 1;
        step.failed += 1;
        let attempts: u64 = self.steps.iter().map(|step| step.attempts).sum();
        let failed: u64 = self.steps.iter().map(|step| step.failed).sum();
        let enough = attempts >= u64::from(self.config.min_samples);
        let too_many = failed as f64 >= self.config.ratio * attempts as f64;
        let window = self.config.window;
        (enough && too_many).then(|| format!("{failed} of {attempts} attempts failed within {window:?}"))
    }

    /// Forgets all attempts.
    pub fn clear(&mut self) {
        self.steps = [Step::default(); STEPS as usize];
    }

    /// The running step, after emptying those that left the window.
    fn step(&mut self, now: Instant) -> &mut Step {
        let length = (self.config.window / STEPS).as_nanos().max(1);
        let number = now.saturating_duration_since(self.start).as_nanos() / length;
        // Not before the running one: the clock of the job does not go back, and if it did, nothing would be forgotten.
        let number = u64::try_from(number).unwrap_or(u64::MAX).max(self.running);
        for _ in 0..(number - self.running).min(STEPS.into()) {
            self.running += 1;
            self.steps[slot(self.running)] = Step::default();
        }
        self.running = number;
        &mut self.steps[slot(number)]
    }
}

fn slot(number: u64) -> usize {
    (number % u64::from(STEPS)) as usize
}

#[cfg(test)]
pub mod tests {
    use std::time::Duration;

    use super::*;

    /// The defaults of the table.
    pub const DEFAULTS: config::KillSwitch = config::KillSwitch {
        ratio: 0.5,
        min_samples: 20,
        window: Duration::from_secs(60),
        restart_after: Duration::from_secs(30),
    };

    #[test]
    fn it_takes_enough_samples_and_the_ratio() {
        let now = Instant::now();
        let mut switch = KillSwitch::new(DEFAULTS, now);
        assert!((0..19).all(|_| switch.failed(now).is_none()));
        assert_eq!(switch.failed(now).as_deref(), Some("20 of 20 attempts failed within 60s"));
        switch.clear();
        (0..21).for_each(|_| switch.well(now));
        assert!((0..20).all(|_| switch.failed(now).is_none()), "less than half of them");
        assert_eq!(switch.failed(now).as_deref(), Some("21 of 42 attempts failed within 60s"));
        let one = config::KillSwitch { ratio: 1.0, min_samples: 1, ..DEFAULTS };
        let mut switch = KillSwitch::new(one, now);
        assert!(switch.failed(now).is_some());
        switch.well(now);
        assert!(switch.failed(now).is_none(), "not all of them");
    }

    #[test]
    fn the_window_slides() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut switch = KillSwitch::new(DEFAULTS, start);
        // Four failures a minute never make twenty, however long it lasts.
        assert!((0..1000).all(|n| switch.failed(at(n * 15_000)).is_none()));
        let begin = 20_000_000;
        assert!((0..19).all(|n| switch.failed(at(begin + n * 1000)).is_none()));
        assert!(switch.failed(at(begin + 57_000)).is_some(), "the first is 57 s old");
        assert!(switch.failed(at(begin + 60_000)).is_none(), "the first two left");
        assert!(switch.failed(at(begin + 500_000)).is_none() && switch.failed(at(0)).is_none());
    }
}
