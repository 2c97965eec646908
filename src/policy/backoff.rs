//! Growing delays with full jitter.

use std::time::Duration;

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

    /// The same without jitter, for a wait that nobody else shares.
    pub fn next_bound(&mut self) -> Duration {
        let doubled = self.initial.saturating_mul(2_u32.saturating_pow(self.failures));
        self.failures = self.failures.saturating_add(1);
        doubled.min(self.max)
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
    fn never_overflows() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(9));
        for _ in 0..100 {
            assert!(backoff.next(1.0) <= Duration::from_secs(9));
        }
    }
}
