//! Copies that the broker refused, and when they are tried again.
//!
//! What refuses one copy mostly refuses them all: a full dead-letter queue, a ladder that is gone, a right that was taken
//! away. Some of that costs the publisher its channel, and with it a round trip for whatever else is under way. So after a
//! pause one copy goes first, as a probe, each time another one; the others follow once the broker has taken it.

use std::collections::{HashSet, VecDeque};
use std::time::{Duration, Instant};

use crate::task::Ticket;

/// From a refusal to the next try.
const PAUSE: Duration = Duration::from_secs(2);

/// The refused copies of a job.
#[derive(Debug, Default)]
pub struct Refusals {
    /// To be sent again, in this order.
    waiting: VecDeque<Ticket>,
    /// The one that is under way before the others.
    probe: Option<Ticket>,
    due: Option<Instant>,
    /// All that were refused and are not confirmed, waiting or under way.
    open: HashSet<Ticket>,
    reason: Option<String>,
}

impl Refusals {
    /// The broker refused this copy. Says whether the reason is news.
    pub fn refused(&mut self, now: Instant, ticket: Ticket, reason: String) -> bool {
        if self.probe == Some(ticket) {
            self.probe = None;
        }
        self.open.insert(ticket);
        self.waiting.push_back(ticket);
        self.due.get_or_insert(now + PAUSE);
        let news = self.reason.as_ref() != Some(&reason);
        self.reason = Some(reason);
        news
    }

    /// The broker took this copy. Gives those that may follow it.
    pub fn confirmed(&mut self, ticket: Ticket) -> Vec<Ticket> {
        let follow = self.probe == Some(ticket);
        self.forget(ticket);
        if !follow {
            return Vec::new();
        }
        self.due = None;
        self.waiting.drain(..).collect()
    }

    /// This copy is owed no more.
    pub fn forget(&mut self, ticket: Ticket) {
        if self.probe == Some(ticket) {
            self.probe = None;
        }
        self.open.remove(&ticket);
        if self.open.is_empty() {
            self.reason = None;
        }
    }

    /// When the next probe is due.
    pub fn deadline(&self) -> Option<Instant> {
        self.due.filter(|_| self.probe.is_none())
    }

    /// Whether it is.
    pub fn is_due(&self, now: Instant) -> bool {
        self.deadline().is_some_and(|due| due <= now)
    }

    /// The copy that goes first.
    pub fn probe(&mut self) -> Option<Ticket> {
        self.due = None;
        self.probe = self.waiting.pop_front();
        self.probe
    }

    /// Why copies are refused; until none of them is left.
    pub fn reason(&self) -> Option<&String> {
        self.reason.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Ticket = Ticket(1);
    const B: Ticket = Ticket(2);
    const C: Ticket = Ticket(3);

    fn full() -> String {
        "it is full".to_owned()
    }

    #[test]
    fn one_goes_first_and_the_others_follow_it() {
        let start = Instant::now();
        let mut refusals = Refusals::default();
        assert_eq!((refusals.deadline(), refusals.reason()), (None, None));
        assert!(refusals.refused(start, A, full()));
        assert!(!refusals.refused(start + PAUSE / 2, B, full()), "the reason is known");
        assert_eq!(refusals.deadline(), Some(start + PAUSE));
        assert!(refusals.confirmed(C).is_empty(), "another copy says nothing of these");
        assert!(!refusals.is_due(start) && refusals.is_due(start + PAUSE));

        assert_eq!(refusals.probe(), Some(A));
        assert!(!refusals.refused(start + 2 * PAUSE, C, full()));
        assert_eq!(refusals.deadline(), None, "nothing more before the probe is answered");
        assert!(!refusals.refused(start + 2 * PAUSE, A, full()));
        assert_eq!(refusals.deadline(), Some(start + 3 * PAUSE));

        assert_eq!(refusals.probe(), Some(B), "another one each time");
        assert_eq!(refusals.confirmed(B), [C, A]);
        assert_eq!((refusals.deadline(), refusals.reason()), (None, Some(&full())));
        assert!(refusals.confirmed(C).is_empty() && refusals.confirmed(A).is_empty());
        assert_eq!(refusals.reason(), None);
    }

    #[test]
    fn a_copy_that_is_owed_no_more_holds_up_nothing() {
        let now = Instant::now();
        let mut refusals = Refusals::default();
        refusals.refused(now, A, full());
        refusals.refused(now, B, full());
        assert_eq!(refusals.probe(), Some(A));
        refusals.forget(A);
        assert_eq!(refusals.probe(), Some(B));
        refusals.forget(B);
        assert_eq!((refusals.probe(), refusals.deadline(), refusals.reason()), (None, None, None));
        assert!(refusals.refused(now, C, full()), "a new refusal is news");
    }
}
