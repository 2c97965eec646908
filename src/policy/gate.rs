//! Whether a job may consume: a broken handler, or an outage behind it, closes the gate, and one message at a time probes
//! it.
//!
//! A broken handler costs no attempt. An outage is judged by the kill switch, if the job has one: then the attempts that
//! failed are spent, a probe's too, but no more than a few are.

use std::time::{Duration, Instant};

use super::backoff::Backoff;
use super::kill_switch::KillSwitch;
use crate::config;
use crate::task::{Outcome, Ticket};

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

/// What the end of a run did to the gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// Nothing.
    None,
    /// It closed: nothing may start, and what has not started goes back.
    Closed,
    /// It opened: the probe went well.
    Opened,
}

/// Why a gate is not open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// The handler cannot work at all.
    Broken,
    /// Too many attempts failed.
    Outage,
}

impl Cause {
    /// As the middle of a sentence about the job.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Broken => "its handler is broken",
            Self::Outage => "its kill switch tripped",
        }
    }
}

/// The gate of one job, owned by its thread.
#[derive(Debug)]
pub struct Gate {
    broken: Backoff,
    outage: Option<Outage>,
    state: State,
}

/// What a job with a kill switch has.
#[derive(Debug)]
struct Outage {
    switch: KillSwitch,
    pauses: Backoff,
}

#[derive(Debug)]
enum State {
    Open,
    Closed {
        cause: Cause,
        reason: String,
        until: Instant,
    },
    /// Runs that began before the gate closed may still end: only the probe opens it.
    Probing {
        cause: Cause,
        reason: String,
        probe: Option<Ticket>,
    },
}

impl Gate {
    /// An open gate; without a kill switch only a broken handler closes it.
    pub fn new(kill_switch: Option<config::KillSwitch>, now: Instant) -> Self {
        let outage = kill_switch.map(|config| Outage {
            switch: KillSwitch::new(config, now),
            pauses: Backoff::new(config.restart_after, LONGEST_PAUSE.max(config.restart_after)),
        });
        Self { broken: Backoff::new(FIRST_PAUSE, LONGEST_PAUSE), outage, state: State::Open }
    }

    /// A run begins. While probing, it is the probe.
    pub fn started(&mut self, ticket: Ticket) {
        if let State::Probing { probe, .. } = &mut self.state {
            *probe = Some(ticket);
        }
    }

    /// A run ended.
    pub fn ended(&mut self, now: Instant, ticket: Ticket, outcome: &Outcome) -> Turn {
        match &self.state {
            State::Open => self.ended_open(now, outcome),
            // Several workers may report the same break; only the first of them lengthens the pause.
            State::Closed { .. } => Turn::None,
            State::Probing { cause, probe, .. } => {
                let (cause, is_probe) = (*cause, *probe == Some(ticket));
                self.ended_probing(now, cause, is_probe, outcome)
            }
        }
    }

    fn ended_open(&mut self, now: Instant, outcome: &Outcome) -> Turn {
        match outcome {
            Outcome::Broken(reason) => self.close(now, Cause::Broken, reason.clone()),
            Outcome::Interrupted(_) | Outcome::NotBegun => Turn::None,
            // A handler that rejects a message on purpose has judged it: nothing behind it is out of order.
            Outcome::Done | Outcome::Dead(_) => {
                if let Some(outage) = &mut self.outage {
                    outage.switch.well(now);
                }
                Turn::None
            }
            Outcome::Retry(failure) => match self.outage.as_mut().and_then(|outage| outage.switch.failed(now)) {
                Some(share) => self.close(now, Cause::Outage, format!("{share}, the last one: {}", failure.error)),
                None => Turn::None,
            },
        }
    }

    fn ended_probing(&mut self, now: Instant, cause: Cause, is_probe: bool, outcome: &Outcome) -> Turn {
        match (outcome, cause) {
            (Outcome::Broken(reason), _) => self.close(now, Cause::Broken, reason.clone()),
            (Outcome::Interrupted(_) | Outcome::NotBegun, _) => Turn::None,
            (Outcome::Done | Outcome::Dead(_) | Outcome::Retry(_), _) if !is_probe => Turn::None,
            (Outcome::Retry(failure), Cause::Outage) => {
                self.close(now, cause, format!("the probe failed: {}", failure.error))
            }
            // A handler that was broken and now says that a message failed works again.
            (Outcome::Retry(_), Cause::Broken) | (Outcome::Done | Outcome::Dead(_), _) => self.open(),
        }
    }

    fn close(&mut self, now: Instant, cause: Cause, reason: String) -> Turn {
        let pauses = match (cause, &mut self.outage) {
            (Cause::Outage, Some(outage)) => &mut outage.pauses,
            (Cause::Broken | Cause::Outage, _) => &mut self.broken,
        };
        self.state = State::Closed { cause, reason, until: now + pauses.next_bound() };
        Turn::Closed
    }

    fn open(&mut self) -> Turn {
        self.state = State::Open;
        self.broken.reset();
        if let Some(outage) = &mut self.outage {
            outage.pauses.reset();
            outage.switch.clear();
        }
        Turn::Opened
    }

    /// Lets the pause end. True where a probe may start now.
    pub fn tick(&mut self, now: Instant) -> bool {
        match &mut self.state {
            State::Closed { cause, reason, until } if *until <= now => {
                self.state = State::Probing { cause: *cause, reason: std::mem::take(reason), probe: None };
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

    /// What made it close, while it is not open.
    pub fn cause(&self) -> Option<Cause> {
        match &self.state {
            State::Closed { cause, .. } | State::Probing { cause, .. } => Some(*cause),
            State::Open => None,
        }
    }

    /// Why it is not open.
    pub fn reason(&self) -> Option<&str> {
        match &self.state {
            State::Closed { reason, .. } | State::Probing { reason, .. } => Some(reason),
            State::Open => None,
        }
    }

    /// The same as a part of a sentence about the job, with what is said of the handler.
    pub fn explain(&self) -> Option<String> {
        match &self.state {
            State::Closed { cause, reason, .. } | State::Probing { cause, reason, .. } => {
                Some(format!("{}: {reason}", cause.as_str()))
            }
            State::Open => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::kill_switch::tests::DEFAULTS;
    use super::*;
    use crate::task::{ErrorClass, Failure};

    const T: Ticket = Ticket(1);

    fn broken(reason: &str) -> Outcome {
        Outcome::Broken(reason.to_owned())
    }

    fn failed() -> Outcome {
        Outcome::Retry(Failure { class: ErrorClass::Timeout, error: "no answer".to_owned() })
    }

    fn rejected() -> Outcome {
        Outcome::Dead(Failure { class: ErrorClass::Rejected, error: "not for me".to_owned() })
    }

    /// Lets the pause end and starts that run as the probe.
    fn probe(gate: &mut Gate, ticket: Ticket) -> Instant {
        let until = gate.deadline().unwrap();
        assert!(gate.tick(until));
        assert_eq!(gate.allowed(), Allowed::OneProbe);
        gate.started(ticket);
        until
    }

    #[test]
    fn a_broken_handler_is_probed_with_growing_pauses_until_it_works() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut gate = Gate::new(None, start);
        assert_eq!(gate.allowed(), Allowed::Everything);

        assert_eq!(gate.ended(at(0), T, &broken("missing")), Turn::Closed);
        assert_eq!(gate.ended(at(0), T, &broken("missing, says another worker")), Turn::None);
        assert_eq!((gate.allowed(), gate.deadline(), gate.reason()), (Allowed::Nothing, Some(at(5)), Some("missing")));
        assert_eq!(gate.explain().as_deref(), Some("its handler is broken: missing"));
        assert_eq!(gate.ended(at(1), T, &Outcome::Done), Turn::None, "that run began before the break");
        assert!(!gate.tick(at(4)) && gate.tick(at(5)));
        assert_eq!(gate.allowed(), Allowed::OneProbe);

        gate.started(T);
        assert_eq!(gate.ended(at(6), T, &broken("still missing")), Turn::Closed);
        assert_eq!(gate.deadline(), Some(at(16)));
        probe(&mut gate, T);
        assert_eq!(gate.ended(at(17), T, &failed()), Turn::Opened, "a failure of the message proves the handler");
        assert_eq!((gate.allowed(), gate.reason()), (Allowed::Everything, None));

        gate.ended(at(20), T, &broken("again"));
        assert_eq!(gate.deadline(), Some(at(25)), "success starts the pauses over");
    }

    #[test]
    fn only_the_probe_opens() {
        let mut gate = Gate::new(Some(DEFAULTS), Instant::now());
        for reason in [broken("missing"), failed()] {
            while gate.allowed() == Allowed::Everything {
                gate.ended(Instant::now(), T, &reason);
            }
            let now = gate.deadline().unwrap();
            assert!(gate.tick(now));
            for late in [Outcome::Done, failed(), rejected(), Outcome::Interrupted("stopped")] {
                assert_eq!(gate.ended(now, Ticket(7), &late), Turn::None, "before the probe starts");
            }
            gate.started(T);
            assert_eq!(gate.ended(now, Ticket(7), &Outcome::Done), Turn::None, "while it runs");
            assert_eq!(gate.allowed(), Allowed::OneProbe);
            assert_eq!(gate.ended(now, T, &rejected()), Turn::Opened);
        }
    }

    #[test]
    fn pauses_stay_below_five_minutes() {
        let mut gate = Gate::new(Some(DEFAULTS), Instant::now());
        for outcome in [broken(""), failed()] {
            let mut now = Instant::now();
            while gate.allowed() == Allowed::Everything {
                gate.ended(now, T, &outcome);
            }
            for _ in 0..20 {
                assert!(gate.deadline().unwrap() <= now + LONGEST_PAUSE);
                now = probe(&mut gate, T);
                assert_eq!(gate.ended(now, T, &outcome), Turn::Closed);
            }
            assert_eq!(gate.deadline(), Some(now + LONGEST_PAUSE));
            now = probe(&mut gate, T);
            assert_eq!(gate.ended(now, T, &Outcome::Done), Turn::Opened);
        }
    }

    #[test]
    fn an_outage_closes_until_a_probe_goes_well_and_leaves_an_empty_window() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut gate = Gate::new(Some(DEFAULTS), start);
        for outcome in [Outcome::Interrupted("stopped"), broken("x")] {
            // Neither is an attempt; the second closes by itself.
            gate.ended(start, T, &outcome);
        }
        probe(&mut gate, T);
        assert_eq!(gate.ended(at(5), T, &Outcome::Done), Turn::Opened);

        for _ in 0..2 {
            assert!((0..19).all(|_| gate.ended(at(10), T, &failed()) == Turn::None));
            assert_eq!(gate.ended(at(10), T, &failed()), Turn::Closed);
            let reason = "20 of 20 attempts failed within 60s, the last one: no answer";
            assert_eq!((gate.reason(), gate.deadline()), (Some(reason), Some(at(40))));
            assert_eq!(gate.ended(at(11), T, &failed()), Turn::None);

            probe(&mut gate, T);
            assert_eq!(gate.ended(at(41), T, &failed()), Turn::Closed);
            assert_eq!(gate.explain().as_deref(), Some("its kill switch tripped: the probe failed: no answer"));
            assert_eq!(gate.deadline(), Some(at(41 + 60)), "the next pause is longer");
            probe(&mut gate, T);
            assert_eq!(gate.ended(at(101), T, &Outcome::Done), Turn::Opened);
        }
    }

    #[test]
    fn without_a_kill_switch_failures_close_nothing() {
        let now = Instant::now();
        let mut gate = Gate::new(None, now);
        assert!((0..1000).all(|_| gate.ended(now, T, &failed()) == Turn::None));
        let mut gate = Gate::new(Some(DEFAULTS), now);
        assert!((0..1000).all(|_| gate.ended(now, T, &rejected()) == Turn::None), "nor do rejections");
    }
}
