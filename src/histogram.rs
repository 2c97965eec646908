//! Counts of measured values by fixed bounds, from the start of the daemon on: what Prometheus calls a histogram.
//!
//! Each belongs to the thread that measures, which adds to it without a lock and gives away copies.

/// Where the buckets end, and in which unit they and the values are.
#[derive(Debug, PartialEq)]
pub struct Scale {
    /// Upper bounds, inclusive, in growing order. What is above the last one has a bucket of its own.
    pub bounds: &'static [u64],
    /// So many of these units make one of the unit that is shown.
    pub per_unit: f64,
}

/// Times of handlers and waits, in microseconds, shown in seconds: from a millisecond, which is little for a process, to half
/// an hour, after which RabbitMQ ends a consumer.
pub const TIMES: Scale = Scale {
    bounds: &[
        1_000,
        5_000,
        10_000,
        25_000,
        50_000,
        100_000,
        250_000,
        500_000,
        1_000_000,
        2_500_000,
        5_000_000,
        10_000_000,
        30_000_000,
        60_000_000,
        300_000_000,
        1_800_000_000,
    ],
    per_unit: 1e6,
};

/// Commits, in microseconds, shown in seconds: from a disk with a memory of its own to one that fails.
pub const COMMITS: Scale = Scale {
    bounds: &[
        100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 5_000_000,
    ],
    per_unit: 1e6,
};

/// Ages of messages, in milliseconds, shown in seconds: what publishers say of the time is in whole seconds, and a retry may wait
/// for days.
pub const AGES: Scale = Scale {
    bounds: &[
        1_000,
        2_000,
        5_000,
        10_000,
        30_000,
        60_000,
        120_000,
        300_000,
        600_000,
        1_800_000,
        3_600_000,
        21_600_000,
        86_400_000,
        604_800_000,
    ],
    per_unit: 1e3,
};

/// Messages that one frame acknowledges; a channel has 65535 at most.
pub const BATCHES: Scale = Scale { bounds: &[1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 10_000], per_unit: 1.0 };

/// Values counted by the bounds of a scale.
#[derive(Debug, Clone, PartialEq)]
pub struct Histogram {
    scale: &'static Scale,
    /// One more than there are bounds.
    counts: Box<[u64]>,
    sum: u64,
}

impl Histogram {
    /// Nothing measured yet.
    pub fn new(scale: &'static Scale) -> Self {
        Self { scale, counts: vec![0; scale.bounds.len() + 1].into(), sum: 0 }
    }

    /// Adds a value, in the unit of the bounds.
    pub fn add(&mut self, value: u64) {
        let bucket = self.scale.bounds.partition_point(|bound| *bound < value);
        self.counts[bucket] += 1;
        self.sum = self.sum.saturating_add(value);
    }

    /// Adds a duration to a scale of microseconds.
    pub fn add_time(&mut self, time: std::time::Duration) {
        self.add(u64::try_from(time.as_micros()).unwrap_or(u64::MAX));
    }

    /// How many values there are.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Their sum, in the unit that is shown.
    pub fn sum(&self) -> f64 {
        self.sum as f64 / self.scale.per_unit
    }

    /// How many values lie in each bucket, with its upper bound in the unit that is shown; that of the last is infinite.
    pub fn buckets(&self) -> impl Iterator<Item = (f64, u64)> {
        let bounds = self.scale.bounds.iter().map(|bound| *bound as f64 / self.scale.per_unit);
        bounds.chain([f64::INFINITY]).zip(self.counts.iter().copied())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_bound_belongs_to_its_bucket() {
        let mut histogram = Histogram::new(&TIMES);
        for micros in [0, 1_000, 1_001, 5_000, 1_800_000_000, 1_800_000_001] {
            histogram.add_time(Duration::from_micros(micros));
        }
        let filled: Vec<_> = histogram.buckets().filter(|(_, count)| *count > 0).collect();
        assert_eq!(filled, [(0.001, 2), (0.005, 2), (1800.0, 1), (f64::INFINITY, 1)]);
        assert_eq!((histogram.count(), histogram.sum()), (6, 3600.007002));
    }

    #[test]
    fn no_value_is_too_large() {
        let mut histogram = Histogram::new(&AGES);
        histogram.add(u64::MAX);
        histogram.add(u64::MAX);
        assert_eq!(histogram.buckets().last(), Some((f64::INFINITY, 2)));
    }

    #[test]
    fn bounds_grow() {
        for scale in [&TIMES, &COMMITS, &AGES, &BATCHES] {
            assert!(scale.bounds.windows(2).all(|pair| pair[0] < pair[1]), "{scale:?}");
        }
    }
}
