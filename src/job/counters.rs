//! What a job counts, for `status`.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::report::Percentiles;
use crate::task::{ErrorClass, UnixMillis};

/// Counts since the start of the daemon; see [`crate::report::Job`] for what each means.
#[derive(Debug, Default)]
pub struct Counters {
    /// Deliveries.
    pub received: u64,
    /// Completed tasks.
    pub done: u64,
    /// Dropped deliveries.
    pub duplicates: u64,
    /// Failed attempts to be tried again.
    pub retried: u64,
    /// Dead-lettered messages, in the order of [`ErrorClass::ALL`].
    pub dead: [u64; ErrorClass::ALL.len()],
    /// Deliveries handed back.
    pub requeued: u64,
    /// Attempts ended by a signal.
    pub crashed: u64,
    /// Replies that the broker took.
    pub replies: u64,
    /// Replies that could not be delivered.
    pub replies_lost: u64,
    /// Sessions made anew because a queue stalled.
    pub stalls: u64,
    /// Ack frames.
    pub acks: u64,
    /// The last failure's text, and when it happened.
    pub last_error: Option<(UnixMillis, String)>,
}

impl Counters {
    /// Dead-lettered messages by their class.
    pub fn dead_by_class(&self) -> impl Iterator<Item = (ErrorClass, u64)> {
        ErrorClass::ALL.into_iter().zip(self.dead)
    }
}

/// Events a second over the last minute.
#[derive(Debug)]
pub struct Rate {
    start: Instant,
    /// The second that `slots` was last brought up to, counted from `start`.
    second: u64,
    /// One slot a second, by second modulo length. One more than a minute, so that the running second stands apart.
    slots: [u64; 61],
}

impl Rate {
    /// Nothing counted yet.
    pub fn new(now: Instant) -> Self {
        Self { start: now, second: 0, slots: [0; 61] }
    }

    /// Counts `n` events.
    pub fn add(&mut self, now: Instant, n: u64) {
        self.advance(now);
        self.slots[self.slot()] += n;
    }

    /// Mean over the last whole minute, or over the time since the start where that is shorter.
    pub fn per_second(&mut self, now: Instant) -> f64 {
        self.advance(now);
        let since_start = now.duration_since(self.start).as_secs_f64();
        let sum: u64 = self.slots.iter().sum();
        let span = if since_start < 60.0 { since_start.max(1.0) } else { 60.0 + since_start.fract() };
        sum as f64 / span
    }

    fn slot(&self) -> usize {
        (self.second % 61) as usize
    }

    fn advance(&mut self, now: Instant) {
        let second = now.duration_since(self.start).as_secs();
        for _ in 0..second.saturating_sub(self.second).min(61) {
            self.second += 1;
            let slot = self.slot();
            self.slots[slot] = 0;
        }
        self.second = second;
    }
}

/// Durations over the last one to two minutes, to about one percent.
#[derive(Debug)]
pub struct Durations {
    since: Instant,
    current: Histogram<u32>,
    previous: Histogram<u32>,
}

const GENERATION: Duration = Duration::from_secs(60);
/// A day, in microseconds: longer ones count as a day.
const LONGEST: u64 = 86_400_000_000;

impl Durations {
    /// Nothing measured yet.
    pub fn new(now: Instant) -> Self {
        let empty =
            || Histogram::new_with_bounds(1, LONGEST, 2).expect("the bounds are constants that the library accepts");
        Self { since: now, current: empty(), previous: empty() }
    }

    /// Adds one.
    pub fn add(&mut self, now: Instant, duration: Duration) {
        self.turn(now);
        let micros = u64::try_from(duration.as_micros()).unwrap_or(LONGEST);
        self.current.saturating_record(micros.max(1));
    }

    /// In milliseconds; absent without samples.
    pub fn percentiles(&mut self, now: Instant) -> Percentiles {
        self.turn(now);
        let mut both = self.current.clone();
        if both.add(&self.previous).is_err() || both.is_empty() {
            return Percentiles::default();
        }
        let millis = |quantile| Some(both.value_at_quantile(quantile) as f64 / 1000.0);
        Percentiles { p50: millis(0.5), p95: millis(0.95), p99: millis(0.99) }
    }

    fn turn(&mut self, now: Instant) {
        let age = now.duration_since(self.since);
        if age >= GENERATION {
            std::mem::swap(&mut self.current, &mut self.previous);
            self.current.reset();
            if age >= 2 * GENERATION {
                self.previous.reset();
            }
            self.since = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_forgets_after_a_minute() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut rate = Rate::new(start);
        for second in 0..30 {
            rate.add(at(second), 10);
        }
        assert_eq!(rate.per_second(at(30)).round(), 10.0);
        assert_eq!(rate.per_second(at(60)).round(), 5.0);
        assert_eq!(rate.per_second(at(95)), 0.0);
        assert_eq!(rate.per_second(at(100_000)), 0.0);
    }

    #[test]
    fn percentiles_are_of_the_last_minutes_and_absent_without_samples() {
        let start = Instant::now();
        let mut durations = Durations::new(start);
        assert!(durations.percentiles(start).p50.is_none());
        for millis in 1..=100 {
            durations.add(start, Duration::from_millis(millis));
        }
        let found = durations.percentiles(start + GENERATION);
        assert!((found.p50.unwrap() - 50.0).abs() < 1.0, "{found:?}");
        assert!((found.p99.unwrap() - 99.0).abs() < 1.5, "{found:?}");
        assert!(durations.percentiles(start + 3 * GENERATION).p50.is_none());
    }
}
