//! `prefetch = "auto"`: as many messages as keep the workers busy, and few beyond that.
//!
//! What is prefetched cannot go to another consumer, and is overtaken by a more urgent message only here, not on the
//! broker; so the number stays small while a task takes longer than the way of an acknowledgement to the broker and of the
//! next message back. Where tasks are shorter than that, more must be here already when one ends. The job thread owns one
//! [`AutoPrefetch`] for all of its queues: at times all messages come from one of them.

use std::time::{Duration, Instant};

/// The most that is prefetched from a queue.
const MOST: usize = 2000;
/// Between two changes, since each costs a new subscription.
const CHANGE_INTERVAL: Duration = Duration::from_secs(5);
/// Batches that must have ended before their time counts.
const LEAST_SAMPLES: u32 = 8;
/// The weight of a new sample in a mean.
const WEIGHT: f64 = 1.0 / 8.0;
/// How many turnarounds the workers must get over: acknowledgements go out in batches, and messages come in bursts.
const TURNAROUNDS: f64 = 2.0;

/// The prefetch of one job, by measurement.
#[derive(Debug)]
pub struct AutoPrefetch {
    concurrency: usize,
    batch: usize,
    /// Mean seconds that a worker takes for a task.
    service: Option<f64>,
    samples: u32,
    /// Mean seconds from an acknowledgement to the delivery that it makes room for.
    turnaround: Option<f64>,
    current: u16,
    changed: Option<Instant>,
}

impl AutoPrefetch {
    /// Begins with the least that makes sense. Both numbers are at least 1.
    pub fn new(concurrency: usize, batch: usize) -> Self {
        let mut auto =
            Self { concurrency, batch, service: None, samples: 0, turnaround: None, current: 0, changed: None };
        auto.current = bounded(auto.least());
        auto
    }

    /// What is in force.
    pub fn current(&self) -> u16 {
        self.current
    }

    /// A worker was busy for so long with so many tasks, at least one.
    pub fn served(&mut self, busy: Duration, tasks: usize) {
        let each = busy.as_secs_f64() / tasks.max(1) as f64;
        self.service = Some(mean(self.service, each));
        self.samples = self.samples.saturating_add(1);
    }

    /// So long after an acknowledgement was due the delivery that it makes room for was here; how long acknowledgements
    /// wait for each other belongs to it.
    pub fn turned_around(&mut self, took: Duration) {
        self.turnaround = Some(mean(self.turnaround, took.as_secs_f64()));
    }

    /// The prefetch that is to be in force from now on, where that is another one than before.
    ///
    /// Grows where the workers could run dry, and shrinks where a quarter would do; not in between, and not within seconds
    /// of the last change.
    pub fn adjust(&mut self, now: Instant) -> Option<u16> {
        if self.changed.is_some_and(|changed| now.saturating_duration_since(changed) < CHANGE_INTERVAL) {
            return None;
        }
        let needed = self.needed()?;
        let current = usize::from(self.current);
        if needed <= current && needed * 4 >= current {
            return None;
        }
        // Half as much again, so that what swings does not change it again and again.
        let roomy = if needed == self.least() { needed } else { needed + needed / 2 };
        let next = bounded(roomy);
        if next == self.current {
            return None;
        }
        self.current = next;
        self.changed = Some(now);
        Some(next)
    }

    /// A batch for each worker, and one more task each to begin with when it is done.
    fn least(&self) -> usize {
        self.concurrency * (self.batch + 1)
    }

    /// A batch for each worker, and what all of them get done in the meantime; at most [`MOST`]. `None` until measured.
    fn needed(&self) -> Option<usize> {
        let service = self.service.filter(|_| self.samples >= LEAST_SAMPLES)?;
        let meantime = TURNAROUNDS * self.turnaround?;
        // A task that takes no time at all gives infinity, and none of both gives nothing; the bounds make numbers of them.
        let tasks = (meantime / service).clamp(1.0, MOST as f64);
        let tasks = if tasks.is_nan() { 1.0 } else { tasks };
        let beyond = (self.concurrency as f64 * tasks).ceil() as usize;
        Some((self.concurrency * self.batch + beyond).min(MOST))
    }
}

fn bounded(prefetch: usize) -> u16 {
    u16::try_from(prefetch.min(MOST)).expect("2000 fits 16 bits")
}

/// An exponentially weighted mean.
fn mean(before: Option<f64>, sample: f64) -> f64 {
    before.map_or(sample, |before| before + WEIGHT * (sample - before))
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn millis(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    /// A job whose batches all take `busy` and whose turnarounds all take `turnaround`; gives what was in force after each
    /// of a hundred looks, ten seconds and twenty batches apart, without repetitions.
    fn history(auto: &mut AutoPrefetch, start: Instant, busy: Duration, turnaround: Duration) -> Vec<u16> {
        let mut found = vec![auto.current()];
        for look in 0..100 {
            for _ in 0..20 {
                auto.served(busy, auto.batch);
                auto.turned_around(turnaround);
            }
            let changed = auto.adjust(start + Duration::from_secs(10 * look));
            found.extend(changed);
            assert_eq!(auto.current(), *found.last().expect("it has a first"));
        }
        found
    }

    #[test]
    fn the_prefetch_follows_the_handler() {
        let check = |(concurrency, batch), busy: Duration, expect: &[u16]| {
            let mut auto = AutoPrefetch::new(concurrency, batch);
            assert_eq!(history(&mut auto, Instant::now(), busy, millis(20)), expect, "{concurrency} {batch} {busy:?}");
        };
        // Slow ones have one task each that waits.
        check((1, 1), Duration::from_secs(30), &[2]);
        check((4, 1), Duration::from_secs(1), &[8]);
        check((4, 1), millis(40), &[8]);
        check((4, 50), Duration::from_secs(5), &[204]);
        // 4 x (1 + 2 x 20 / 20), and half of that.
        check((4, 1), millis(20), &[8, 18]);
        check((4, 1), millis(2), &[8, 126]);
        // A batch of 50 takes 10 ms: 200 + 4 x 2 x 20 / 0.2 = 1000.
        check((4, 50), millis(10), &[204, 1500]);
        check((4, 1), Duration::from_micros(10), &[8, 2000]);
        check((4, 1), Duration::ZERO, &[8, 2000]);
        check((1024, 1000), Duration::ZERO, &[2000]);
    }

    #[test]
    fn a_handler_that_becomes_fast_or_slow_is_followed() {
        let (mut auto, start) = (AutoPrefetch::new(2, 1), Instant::now());
        let after = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(history(&mut auto, start, millis(500), millis(10)), [4]);
        let grown = history(&mut auto, after(1000), millis(1), millis(10));
        assert_eq!(grown.first(), Some(&4));
        assert!(grown.is_sorted() && grown.len() <= 4, "few changes: {grown:?}");
        // 2 x (1 + 2 x 10 / 1) = 42 is the need.
        assert!((42..=63).contains(&auto.current()), "{grown:?}");
        let shrunk = history(&mut auto, after(2000), millis(500), millis(10));
        assert_eq!(shrunk.last(), Some(&4), "{shrunk:?}");
        assert!(shrunk.len() <= 3, "{shrunk:?}");
    }

    #[test]
    fn what_swings_changes_nothing() {
        let (mut auto, start) = (AutoPrefetch::new(4, 1), Instant::now());
        history(&mut auto, start, millis(5), millis(20));
        let settled = auto.current();
        for round in 0..1000 {
            auto.served(if round % 2 == 0 { millis(4) } else { millis(6) }, 1);
            auto.turned_around(if round % 3 == 0 { millis(15) } else { millis(22) });
            assert_eq!(auto.adjust(start + Duration::from_secs(1000 + 10 * round)), None);
        }
        assert_eq!(auto.current(), settled);
    }

    #[test]
    fn a_change_waits_for_measures_and_for_the_last_one() {
        let (mut auto, start) = (AutoPrefetch::new(4, 1), Instant::now());
        assert_eq!(auto.adjust(start), None, "nothing is known");
        for _ in 0..LEAST_SAMPLES {
            assert_eq!(auto.adjust(start), None, "too little is known");
            auto.served(millis(10), 1);
        }
        assert_eq!(auto.adjust(start), None, "no turnaround is known");
        auto.turned_around(millis(20));
        // 4 x (1 + 2 x 20 / 10) = 20, and half of that.
        assert_eq!(auto.adjust(start), Some(30));
        for _ in 0..100 {
            auto.served(millis(1), 1);
        }
        assert_eq!(auto.adjust(start + CHANGE_INTERVAL - millis(1)), None, "too soon");
        let grown = auto.adjust(start + CHANGE_INTERVAL).expect("it may grow now");
        assert!((240..=250).contains(&grown), "4 x (1 + 2 x 20 / 1), and half of that: {grown}");
        assert_eq!(auto.adjust(start + CHANGE_INTERVAL * 2), None, "it is enough");
    }
}
