//! One alert for one job: pending, firing, clear.
//!
//! It fires once its condition has held without a break for `for`, and clears once it has not held without a break for
//! `clear_for`. So a value that swings about its bound sets an alert off once and keeps it on, and whoever is told is told
//! twice: there is no second bound to think of. What is unknown breaks both.

use std::time::{Duration, Instant};

use crate::config::Alert;

/// Where an alert is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It does not hold.
    Ok,
    /// It holds, not for long enough.
    Pending,
    /// It fires.
    Firing,
}

/// What became of it at a look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It fires from now on.
    Fired,
    /// It fires no more.
    Cleared,
    /// It still fires, and it is time to say so again.
    Repeated,
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct Watch {
    phase: Phase,
}

#[derive(Debug, Default)]
enum Phase {
    #[default]
    Ok,
    Pending {
        since: Instant,
    },
    Firing {
        told: Instant,
        /// Since when it does not hold.
        quiet: Option<Instant>,
    },
}

impl Watch {
    /// Where it is.
    pub fn state(&self) -> State {
        match self.phase {
            Phase::Ok => State::Ok,
            Phase::Pending { .. } => State::Pending,
            Phase::Firing { .. } => State::Firing,
        }
    }

    /// Takes whether its condition holds; `None` where that is unknown.
    pub fn saw(&mut self, now: Instant, holds: Option<bool>, alert: &Alert) -> Option<Change> {
        self.step(now, holds, alert.hold, alert.clear_for, alert.repeat)
    }

    fn step(
        &mut self,
        now: Instant,
        holds: Option<bool>,
        hold: Duration,
        clear_for: Duration,
        repeat: Option<Duration>,
    ) -> Option<Change> {
        let age = |since: Instant| now.saturating_duration_since(since);
        match (&mut self.phase, holds) {
            (Phase::Ok | Phase::Pending { .. }, Some(false) | None) => {
                self.phase = Phase::Ok;
                None
            }
            (Phase::Ok, Some(true)) if hold > Duration::ZERO => {
                self.phase = Phase::Pending { since: now };
                None
            }
            (Phase::Pending { since }, Some(true)) if age(*since) < hold => None,
            (Phase::Ok | Phase::Pending { .. }, Some(true)) => {
                self.phase = Phase::Firing { told: now, quiet: None };
                Some(Change::Fired)
            }
            (Phase::Firing { quiet, .. }, Some(false)) => {
                let cleared = age(*quiet.get_or_insert(now)) >= clear_for;
                cleared.then(|| {
                    self.phase = Phase::Ok;
                    Change::Cleared
                })
            }
            (Phase::Firing { told, quiet }, Some(true) | None) => {
                *quiet = None;
                // While nobody knows, or it is about to end, it is not said to last.
                let again = holds == Some(true) && repeat.is_some_and(|repeat| age(*told) >= repeat);
                again.then(|| {
                    *told = now;
                    Change::Repeated
                })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HOLD: Duration = Duration::from_secs(30);
    const CLEAR: Duration = Duration::from_secs(60);

    /// Takes what was seen every ten seconds (`+` holds, `-` does not, `?` unknown) and gives what became of it.
    fn run(seen: &str, repeat: Option<u64>) -> String {
        let start = Instant::now();
        let mut watch = Watch::default();
        let step = |(index, seen)| {
            let holds = match seen {
                '+' => Some(true),
                '-' => Some(false),
                _ => None,
            };
            let now = start + Duration::from_secs(10 * index as u64);
            match watch.step(now, holds, HOLD, CLEAR, repeat.map(Duration::from_secs)) {
                Some(Change::Fired) => 'F',
                Some(Change::Cleared) => 'C',
                Some(Change::Repeated) => 'R',
                None => watch.state().as_str().chars().next().unwrap(),
            }
        };
        seen.chars().enumerate().map(step).collect()
    }

    #[test]
    fn fires_and_clears_when_it_has_lasted() {
        let check = |seen: &str, expect: &str| assert_eq!(run(seen, None), expect, "{seen}");
        check("----", "oooo");
        check("++++", "pppF");
        // What swings about its bound is told once, and once that it ended.
        check("++-++++-+-+-+-------", "ppopppFffffffffffffC");
        check("+++?+++", "pppoppp");
        // Unknown neither fires nor clears.
        check("++++---?------", "pppFffffffffff");
        check("++++---?-------", "pppFffffffffffC");
        check("????", "oooo");
    }

    #[test]
    fn is_told_again_while_it_lasts() {
        assert_eq!(run("+++++++++++++++", Some(60)), "pppFfffffRfffff");
        // Not while it is about to end, nor while nobody knows.
        assert_eq!(run("++++-----+", Some(30)), "pppFfffffR");
        assert_eq!(run("++++?????+", Some(30)), "pppFfffffR");
    }

    #[test]
    fn without_a_time_it_fires_and_clears_at_once() {
        let mut watch = Watch::default();
        let now = Instant::now();
        let mut step = |holds| watch.step(now, Some(holds), Duration::ZERO, Duration::ZERO, None);
        assert_eq!(
            (step(true), step(true), step(false), step(false)),
            (Some(Change::Fired), None, Some(Change::Cleared), None)
        );
    }

    proptest! {
        /// Whatever is seen: it fires and clears in turns, never sooner than it may.
        #[test]
        fn firing_and_clearing_alternate(seen in "[+?-]{0,200}", repeat in proptest::option::of(60..600_u64)) {
            let told = run(&seen, repeat);
            let ends: Vec<(usize, char)> = told.char_indices().filter(|(_, c)| "FC".contains(*c)).collect();
            for (index, (at, end)) in ends.iter().enumerate() {
                prop_assert_eq!(*end, if index % 2 == 0 { 'F' } else { 'C' });
                let (needed, sign) = if *end == 'F' { (3, '+') } else { (6, '-') };
                prop_assert!(*at >= needed && seen[at - needed..=*at].chars().all(|c| c == sign), "{} {}", seen, told);
            }
            if repeat.is_none() {
                prop_assert!(!told.contains('R'));
            }
            // Two of them are never nearer than it takes for the one and the other.
            prop_assert!(ends.windows(2).all(|pair| pair[1].0 - pair[0].0 >= 3));
        }
    }
}
