//! What each quantity is, taken from a status.
//!
//! Rates and ratios are counted here, over the alert's window: what happened since the first look, if that was later. So
//! `>` holds as soon as it is true, and `<` is not judged before a whole window has been seen.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::Sight;
use crate::config::{Condition, Quantity, Side, Unit};
use crate::report::Job;

/// Attempts that must have ended within the window before a ratio of them says anything. Below that an alert does not hold: one
/// that fires clears when a job has little to do, or it would fire until it has much.
const MIN_ATTEMPTS: u64 = 10;
/// Counts that are kept of a window, evenly over it.
const KEPT: u32 = 60;
/// What a job that does not answer is said to be.
const SILENT: &str = "silent";

/// What was measured.
#[derive(Debug, Clone, PartialEq)]
pub enum Reading {
    /// It cannot be known now.
    Unknown,
    /// Too few attempts ended for a ratio of them: it does not hold.
    Few,
    /// It is so, or not.
    Is {
        /// Whether it is.
        holds: bool,
        /// The first reason, where there is one to tell.
        why: Option<String>,
    },
    /// In the unit of its quantity: a count, events a second, a ratio, seconds, bytes.
    Number {
        /// The number.
        value: f64,
        /// Whether it was counted over all of its window.
        whole: bool,
    },
}

/// What a look gave.
#[derive(Debug, Clone, Copy)]
pub struct Seen<'a> {
    /// All of it.
    pub sight: &'a Sight<'a>,
    /// The job, for a quantity of jobs.
    pub job: Option<&'a Job>,
}

impl Reading {
    fn number(value: Option<f64>) -> Self {
        value.map_or(Self::Unknown, |value| Self::Number { value, whole: true })
    }

    fn is(holds: bool) -> Self {
        Self::Is { holds, why: None }
    }

    /// Whether it sets an alert off; `None` where that cannot be said.
    pub fn sets_off(&self, when: &Condition) -> Option<bool> {
        match (self, when.bound) {
            (Self::Is { holds, .. }, _) => Some(*holds),
            (Self::Few, _) => Some(false),
            (Self::Number { value, whole }, Some(bound)) => match bound.side {
                Side::Above => Some(*value > bound.value),
                Side::Below => whole.then_some(*value < bound.value),
            },
            (Self::Unknown, _) | (Self::Number { .. }, None) => None,
        }
    }

    /// As a number; 1 and 0 for what is so or not.
    pub fn value(&self) -> Option<f64> {
        match self {
            Self::Unknown | Self::Few => None,
            Self::Is { holds, .. } => Some(f64::from(u8::from(*holds))),
            Self::Number { value, .. } => Some(*value),
        }
    }

    /// For people, in the unit that the expression has.
    pub fn shown(&self, when: &Condition) -> Option<String> {
        let value = match self {
            Self::Unknown | Self::Few => return None,
            Self::Is { holds: true, .. } => return Some("yes".to_owned()),
            Self::Is { holds: false, .. } => return Some("no".to_owned()),
            Self::Number { value, .. } => *value,
        };
        Some(match when.quantity.unit() {
            Unit::Count | Unit::State => format!("{value:.0}"),
            Unit::Ratio => format!("{value:.2}"),
            Unit::Duration => time(value),
            Unit::Size => size(value),
            Unit::Rate => {
                let per = when.bound.map_or(1, |bound| bound.per);
                let unit = match per {
                    60 => "m",
                    3600 => "h",
                    _ => "s",
                };
                let count = format!("{:.2}", value * f64::from(per));
                format!("{}/{unit}", count.trim_end_matches('0').trim_end_matches('.'))
            }
        })
    }
}

fn time(seconds: f64) -> String {
    let whole = seconds as u64;
    match whole {
        0..120 => format!("{seconds:.0}s"),
        120..7200 => format!("{}m", whole / 60),
        _ => format!("{}h", whole / 3600),
    }
}

fn size(bytes: f64) -> String {
    let units = [("GiB", 1_u64 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    let unit = units.into_iter().find(|(_, scale)| bytes >= *scale as f64);
    unit.map_or_else(|| format!("{bytes:.0}B"), |(name, scale)| format!("{:.1}{name}", bytes / scale as f64))
}

/// Measures one quantity of one subject.
#[derive(Debug)]
pub struct Meter {
    window: Option<Window>,
}

impl Meter {
    /// Nothing was counted yet.
    pub fn new(quantity: Quantity, window: Duration) -> Self {
        Self { window: quantity.is_counted().then(|| Window::new(window)) }
    }

    /// What it is now.
    pub fn read(&mut self, now: Instant, quantity: Quantity, seen: &Seen<'_>) -> Reading {
        let Seen { sight, job } = *seen;
        let status = sight.status;
        match quantity {
            Quantity::Disconnected => Reading::is(!status.broker.connected),
            Quantity::Blocked if sight.publisher => Reading::is(status.broker.blocked),
            Quantity::Blocked => Reading::Unknown,
            Quantity::Degraded => {
                Reading::Is { holds: !status.problems.is_empty(), why: status.problems.first().cloned() }
            }
            Quantity::DiskFree => Reading::number(status.store.free_bytes.map(|bytes| bytes as f64)),
            Quantity::StoreBytes => {
                let both = status.store.bytes.map(|bytes| bytes + status.store.wal_bytes.unwrap_or(0));
                Reading::number(both.map(|bytes| bytes as f64))
            }
            Quantity::Ready
            | Quantity::DeadReady
            | Quantity::Rate
            | Quantity::RetriedRate
            | Quantity::DeadRate
            | Quantity::ErrorRatio
            | Quantity::OldestWait
            | Quantity::Paused
            | Quantity::Stalled
            | Quantity::NoConsumers => match job.filter(|job| job.state != SILENT) {
                Some(job) => self.of_job(now, quantity, job),
                None => Reading::Unknown,
            },
        }
    }

    fn of_job(&mut self, now: Instant, quantity: Quantity, job: &Job) -> Reading {
        match quantity {
            Quantity::Ready => {
                let sum: Option<u64> = job.queues.values().map(|queue| queue.ready.map(u64::from)).sum();
                Reading::number(sum.map(|ready| ready as f64))
            }
            Quantity::DeadReady => Reading::number(job.dead_letter.ready.map(f64::from)),
            Quantity::Rate => self.rate(now, job.done),
            Quantity::RetriedRate => self.rate(now, job.retried),
            Quantity::DeadRate => self.rate(now, job.dead),
            Quantity::ErrorRatio => self.ratio(now, job),
            Quantity::OldestWait => Reading::number(job.oldest_wait_ms.map(|millis| millis / 1000.0)),
            Quantity::Paused => Reading::is(job.state == "paused" || job.state == "probing"),
            Quantity::Stalled => Reading::is(job.stalled),
            Quantity::NoConsumers => {
                let counts = job.queues.values().map(|queue| queue.consumers);
                if counts.clone().any(|count| count == Some(0)) {
                    Reading::is(true)
                } else if counts.clone().all(|count| count.is_some()) {
                    Reading::is(false)
                } else {
                    Reading::Unknown
                }
            }
            Quantity::Disconnected
            | Quantity::Blocked
            | Quantity::Degraded
            | Quantity::DiskFree
            | Quantity::StoreBytes => Reading::Unknown,
        }
    }

    fn rate(&mut self, now: Instant, count: u64) -> Reading {
        let Some(window) = &mut self.window else { return Reading::Unknown };
        let ([events, _], age) = window.over(now, [count, 0]);
        // What was last seen long ago, as before a sleep of the machine, did not all happen within the window.
        let over = age.max(window.length);
        Reading::Number { value: events as f64 / over.as_secs_f64(), whole: age >= window.length }
    }

    fn ratio(&mut self, now: Instant, job: &Job) -> Reading {
        let Some(window) = &mut self.window else { return Reading::Unknown };
        let failed = job.retried + job.dead;
        let ([failed, ended], age) = window.over(now, [failed, failed + job.done]);
        if ended < MIN_ATTEMPTS {
            return Reading::Few;
        }
        Reading::Number { value: failed as f64 / ended as f64, whole: age >= window.length }
    }
}

/// How far counters came within a time.
#[derive(Debug)]
struct Window {
    length: Duration,
    /// From the oldest; the first is the youngest that is at least as old as the window, where there is one.
    kept: VecDeque<(Instant, [u64; 2])>,
}

impl Window {
    fn new(length: Duration) -> Self {
        Self { length, kept: VecDeque::new() }
    }

    /// How far they came, and within which time: of the window, or less where it has not been seen whole yet, or more where
    /// there was no look for so long.
    fn over(&mut self, now: Instant, counts: [u64; 2]) -> ([u64; 2], Duration) {
        // A job that was started anew counts from nothing.
        if self.kept.back().is_some_and(|(_, last)| last[0] > counts[0] || last[1] > counts[1]) {
            self.kept.clear();
        }
        let age = |at: Instant| now.saturating_duration_since(at);
        while self.kept.get(1).is_some_and(|(at, _)| age(*at) >= self.length) {
            self.kept.pop_front();
        }
        if self.kept.back().is_none_or(|(at, _)| age(*at) >= self.length / KEPT) {
            self.kept.push_back((now, counts));
        }
        let (at, base) = self.kept.front().copied().unwrap_or((now, counts));
        ([counts[0] - base[0], counts[1] - base[1]], age(at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_forgets() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let age = Duration::from_secs;
        let mut window = Window::new(Duration::from_secs(60));
        assert_eq!(window.over(at(0), [5, 5]), ([0, 0], age(0)));
        assert_eq!(window.over(at(5), [7, 9]), ([2, 4], age(5)));
        assert_eq!(window.over(at(59), [7, 9]), ([2, 4], age(59)));
        assert_eq!(window.over(at(60), [7, 9]), ([2, 4], age(60)));
        assert_eq!(window.over(at(65), [7, 9]), ([0, 0], age(60)));
        assert_eq!(window.over(at(70), [8, 9]), ([1, 0], age(65)));
        // It was started anew.
        assert_eq!(window.over(at(75), [3, 3]), ([0, 0], age(0)));
        for second in 0..10_000 {
            window.over(at(75) + Duration::from_millis(100 * second), [3 + second, 3]);
        }
        assert!(window.kept.len() <= KEPT as usize + 2, "{}", window.kept.len());
        let ([events, _], since) = window.over(at(75 + 1000), [10_003, 3]);
        assert!(since >= age(60) && (600..=610).contains(&events), "{events}");
    }

    #[test]
    fn numbers_are_shown_in_the_unit_of_the_expression() {
        let check = |when: &str, value: f64, expect: &str| {
            let when = Condition { text: when.to_owned(), ..crate::config::parse_condition(when).unwrap() };
            let reading = Reading::Number { value, whole: true };
            assert_eq!(reading.shown(&when).as_deref(), Some(expect));
        };
        check("ready > 1", 1500.0, "1500");
        check("rate > 1/s", 1.5, "1.5/s");
        check("dead_rate > 1/m", 0.05, "3/m");
        check("dead_rate > 1/h", 1.0 / 3600.0, "1/h");
        check("error_ratio > 0.2", 0.25, "0.25");
        check("oldest_wait > 5m", 61.4, "61s");
        check("oldest_wait > 5m", 312.0, "5m");
        check("oldest_wait > 5m", 7300.0, "2h");
        check("disk_free < 1GiB", 512.0, "512B");
        check("disk_free < 1GiB", 1.5 * 1_073_741_824.0, "1.5GiB");
    }
}
