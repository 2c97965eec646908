//! What each job did between two looks: the little bars.

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use crate::cli::status::text::Glyphs;
use crate::report::Status;

/// Looks that are remembered, and columns that they take.
pub const LOOKS: usize = 12;

/// Messages done a second between two looks, the newest last.
#[derive(Debug, Default)]
pub struct Rates {
    /// The process that it is about, and when it was looked at.
    last: Option<(u32, Instant)>,
    jobs: BTreeMap<String, Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    done: u64,
    rates: VecDeque<f64>,
}

impl Rates {
    /// Adds a look. What another process did before is no measure of this one.
    pub fn add(&mut self, status: &Status, now: Instant) {
        let last = self.last.replace((status.pid, now)).filter(|(pid, _)| *pid == status.pid);
        let Some((_, before)) = last else {
            let seen = |done| Seen { done, rates: VecDeque::new() };
            self.jobs = status.jobs.iter().map(|(name, job)| (name.clone(), seen(job.done))).collect();
            return;
        };
        let seconds = now.duration_since(before).as_secs_f64().max(0.001);
        self.jobs.retain(|name, _| status.jobs.contains_key(name));
        for (name, job) in &status.jobs {
            // A job that did not answer told no count, which is not zero.
            if job.state == "silent" {
                continue;
            }
            let seen = self.jobs.entry(name.clone()).or_insert(Seen { done: job.done, rates: VecDeque::new() });
            // A job that was started anew counts anew.
            seen.rates.push_back(job.done.saturating_sub(seen.done) as f64 / seconds);
            seen.done = job.done;
            while seen.rates.len() > LOOKS {
                seen.rates.pop_front();
            }
        }
    }

    /// A bar for each look, as high as its part of the highest; blank where there was none yet.
    pub fn bars(&self, job: &str, glyphs: Glyphs) -> String {
        let rates = self.jobs.get(job).map(|seen| &seen.rates);
        let most = rates.into_iter().flatten().copied().fold(0.0, f64::max);
        let bar = |rate: &f64| match *rate {
            rate if rate <= 0.0 => glyphs.nothing,
            // From 1 to 8: never nothing where there was something.
            rate => glyphs.bars[((rate / most * 8.0).ceil() as usize).clamp(1, 8) - 1],
        };
        let bars: String = rates.into_iter().flatten().map(bar).collect();
        let blanks = LOOKS - rates.map_or(0, VecDeque::len);
        " ".repeat(blanks) + &bars
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::cli::status::tests::status;

    #[test]
    fn bars_tell_what_was_done_between_looks() {
        let (mut rates, mut status, mut now) = (Rates::default(), status(1), Instant::now());
        let mut look = |status: &mut Status, more: u64| {
            status.jobs.values_mut().for_each(|job| job.done += more);
            now += Duration::from_secs(1);
            rates.add(status, now);
            rates.bars("job-00", Glyphs::UNICODE).trim_start().to_owned()
        };
        assert_eq!(look(&mut status, 0), "", "one look tells nothing");
        assert_eq!(look(&mut status, 800), "█");
        assert_eq!(look(&mut status, 0), "█·");
        assert_eq!(look(&mut status, 1), "█·▁");
        assert_eq!(look(&mut status, 400), "█·▁▄");
        status.pid += 1;
        assert_eq!(look(&mut status, 9), "", "it is another process");
        for _ in 0..2 * LOOKS {
            look(&mut status, 1);
        }
        assert_eq!(look(&mut status, 1), "█".repeat(LOOKS));
    }
}
