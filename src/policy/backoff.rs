//! Growing delays with full jitter.

use std::time::Duration;

/// The longest delay while nobody answers: a try then costs the broker nothing, and work is to go on within seconds of its
/// return.
const UNANSWERED: Duration = Duration::from_secs(2);

/// Delays that double from `initial` up to `max`, each drawn from zero to that bound.
///
/// Full jitter spreads a fleet that lost its broker at one moment better than equal steps do (AWS Architecture Blog,
/// "Exponential Backoff And Jitter").
#[derive(Debug, Clone)]
pub struct Backoff {
    initial: Duration,
    max: Duration,
    failures: u32,
}

impl Backoff {
    /// Starts over with no failure counted.
    pub fn new(initial: Duration, max: Duration) -> Self {
        Self { initial, max, failures: 0 }
    }

    /// The delay before the next try. `random` is drawn evenly from 0 to 1.
    pub fn next(&mut self, random: f64) -> Duration {
        self.next_bound().mul_f64(random.clamp(0.0, 1.0))
    }

    /// The same after a try that nobody answered. Such delays stay below 2 s (or `initial`, if that is longer), however long
    /// it lasts; once somebody answers and fails us, they grow on from there.
    pub fn next_unanswered(&mut self, random: f64) -> Duration {
        let longest = UNANSWERED.max(self.initial);
        let bound = self.bound();
        if bound < longest {
            self.failures = self.failures.saturating_add(1);
        }
        bound.min(longest).mul_f64(random.clamp(0.0, 1.0))
    }

    /// [`Backoff::next`] without jitter, for a wait that nobody else shares.
    pub fn next_bound(&mut self) -> Duration {
        let bound = self.bound();
        self.failures = self.failures.saturating_add(1);
        bound
    }

    fn bound(&self) -> Duration {
        self.initial.saturating_mul(2_u32.saturating_pow(self.failures)).min(self.max)
    }

    /// The last try went well.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_up_to_the_bound_and_starts_over() {
        let mut backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(30));
        let bounds: Vec<_> = (0..8).map(|_| backoff.next(1.0).as_millis()).collect();
        assert_eq!(bounds, [500, 1000, 2000, 4000, 8000, 16000, 30000, 30000]);
        backoff.reset();
        assert_eq!(backoff.next(0.5), Duration::from_millis(250));
    }

    #[test]
    fn stays_short_while_nobody_answers() {
        let mut backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(30));
        let bounds: Vec<_> = (0..50).map(|_| backoff.next_unanswered(1.0).as_millis()).collect();
        assert_eq!(bounds[..4], [500, 1000, 2000, 2000]);
        assert_eq!(bounds[49], 2000);
        assert_eq!(backoff.next(1.0), Duration::from_secs(2), "the outage does not count");
        assert_eq!(backoff.next(1.0), Duration::from_secs(4));
        assert_eq!(backoff.next_unanswered(0.5), Duration::from_secs(1));
        let mut quick = Backoff::new(Duration::from_millis(5), Duration::from_millis(20));
        assert!((0..50).all(|_| quick.next_unanswered(1.0) <= Duration::from_millis(20)), "`max` holds too");
        let mut slow = Backoff::new(Duration::from_secs(10), Duration::from_secs(60));
        assert!((0..50).all(|_| slow.next_unanswered(1.0) == Duration::from_secs(10)));
    }

    #[test]
    fn never_overflows() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(9));
        for _ in 0..100 {
            assert!(backoff.next(1.0) <= Duration::from_secs(9));
        }
    }
}
