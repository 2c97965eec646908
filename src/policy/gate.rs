//! Whether a job may consume: a broken handler closes the gate, and one message at a time probes it.

use std::time::{Duration, Instant};

use super::backoff::Backoff;

/// First and longest pause after a broken handler.
const FIRST_PAUSE: Duration = Duration::from_secs(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// What a job may do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Allowed {
    /// Consume as configured.
    Everything,
    /// Take one message and see.
    OneProbe,
    /// Take nothing.
    Nothing,
}

/// The gate of one job, owned by its thread.
#[derive(Debug)]
pub struct Gate {
    backoff: Backoff,
    state: State,
}

#[derive(Debug)]
enum State {
    Open,
    Closed { reason: String, until: Instant },
    Probing { reason: String },
}

impl Default for Gate {
    fn default() -> Self {
        Self { backoff: Backoff::new(FIRST_PAUSE, LONGEST_PAUSE), state: State::Open }
    }
}

impl Gate {
    /// The handler is broken: nothing runs until the pause is over. Several workers may report the same break; only
    /// the first of them lengthens the pause.
    pub fn broken(&mut self, now: Instant, reason: String) {
        match self.state {
            State::Open | State::Probing { .. } => {
                let until = now + self.backoff.next_bound();
                self.state = State::Closed { reason, until };
            }
            State::Closed { .. } => {}
        }
    }

    /// A run ended with an outcome of its own: the handler works. True where that opens the gate.
    pub fn works(&mut self) -> bool {
        let probing = matches!(self.state, State::Probing { .. });
        if probing {
            self.state = State::Open;
            self.backoff.reset();
        }
        probing
    }

    /// Lets the pause end. True where a probe may start now.
    pub fn tick(&mut self, now: Instant) -> bool {
        match &mut self.state {
            State::Closed { reason, until } if *until <= now => {
                self.state = State::Probing { reason: std::mem::take(reason) };
                true
            }
            State::Open | State::Closed { .. } | State::Probing { .. } => false,
        }
    }

    /// What is allowed.
    pub fn allowed(&self) -> Allowed {
        match self.state {
            State::Open => Allowed::Everything,
            State::Closed { .. } => Allowed::Nothing,
            State::Probing { .. } => Allowed::OneProbe,
        }
    }

    /// When [`Gate::tick`] has something to do.
    pub fn deadline(&self) -> Option<Instant> {
        match self.state {
            State::Closed { until, .. } => Some(until),
            State::Open | State::Probing { .. } => None,
        }
    }

    /// Why it is not open.
    pub fn reason(&self) -> Option<&str> {
        match &self.state {
            State::Closed { reason, .. } | State::Probing { reason } => Some(reason),
            State::Open => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broken_handler_is_probed_with_growing_pauses_until_it_works() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut gate = Gate::default();
        assert_eq!(gate.allowed(), Allowed::Everything);

        gate.broken(at(0), "missing".to_owned());
        gate.broken(at(0), "missing, says another worker".to_owned());
        assert_eq!((gate.allowed(), gate.deadline(), gate.reason()), (Allowed::Nothing, Some(at(5)), Some("missing")));
        assert!(!gate.works(), "a run that began before the break does not open the gate");
        assert!(!gate.tick(at(4)) && gate.tick(at(5)));
        assert_eq!(gate.allowed(), Allowed::OneProbe);

        gate.broken(at(6), "still missing".to_owned());
        assert_eq!(gate.deadline(), Some(at(16)));
        assert!(gate.tick(at(16)) && gate.works());
        assert_eq!((gate.allowed(), gate.reason()), (Allowed::Everything, None));

        gate.broken(at(20), "again".to_owned());
        assert_eq!(gate.deadline(), Some(at(25)), "success starts the pauses over");
    }

    #[test]
    fn pauses_stay_below_five_minutes() {
        let now = Instant::now();
        let mut gate = Gate::default();
        for _ in 0..20 {
            gate.broken(now, String::new());
            let until = gate.deadline().unwrap();
            assert!(until <= now + LONGEST_PAUSE);
            assert!(gate.tick(until));
        }
    }
}
