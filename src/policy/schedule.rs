//! Which buffered task runs next: by queue order, then message priority, then arrival.

use std::collections::{BTreeMap, VecDeque};

use crate::config::Order;
use crate::task::{QueueIndex, Ticket};

/// The tasks of one job that wait for a free worker.
///
/// Owned by the job thread. Holds tickets only; the tasks lie in the in-flight machine.
#[derive(Debug)]
pub struct Schedule {
    order: Order,
    queues: Vec<Lane>,
    /// The latest time at which a turn that was taken was due; see [`Schedule::next_by_weight`].
    now: u64,
}

/// The time between two turns of a queue of weight 1. A queue of weight 1000 has turns at 1/1000 of it, rounded by less
/// than a part in ten thousand; the sum does not overflow within 2^40 turns.
const TURN: u64 = 1 << 24;

/// How many turns a queue may catch up that it missed while it was empty here. A queue with messages on the broker runs
/// dry for a moment whenever acks and deliveries are on their way; without this it would lose its share.
const CATCH_UP: u64 = 16;

/// One queue's waiting tasks.
#[derive(Debug)]
struct Lane {
    /// `TURN / weight`
    step: u64,
    /// When its next turn is due; grows by `step` with each turn.
    due: u64,
    /// By priority; within one priority in order of arrival.
    waiting: BTreeMap<u8, VecDeque<Ticket>>,
}

impl Schedule {
    /// One lane per weight, in the order of the job's queues.
    pub fn new(order: Order, weights: impl IntoIterator<Item = u32>) -> Self {
        let lane = |weight| Lane { step: TURN / u64::from(weight), due: 0, waiting: BTreeMap::new() };
        Self { order, queues: weights.into_iter().map(lane).collect(), now: 0 }
    }

    /// Adds a task behind those of its queue and priority.
    pub fn push(&mut self, queue: QueueIndex, priority: u8, ticket: Ticket) {
        self.queues[queue].waiting.entry(priority).or_default().push_back(ticket);
    }

    /// Takes the task that runs next.
    pub fn pop(&mut self) -> Option<Ticket> {
        let lane = match self.order {
            Order::Strict => self.queues.iter_mut().find(|lane| !lane.waiting.is_empty())?,
            Order::Weighted => self.next_by_weight()?,
        };
        let mut highest = lane.waiting.last_entry()?;
        let ticket = highest.get_mut().pop_front();
        if highest.get().is_empty() {
            highest.remove();
        }
        ticket
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.queues.iter().all(|lane| lane.waiting.is_empty())
    }

    /// How many tasks wait.
    pub fn len(&self) -> usize {
        self.queues.iter().flat_map(|lane| lane.waiting.values()).map(VecDeque::len).sum()
    }

    /// Takes everything, in no special order: a drain hands it back, a disconnect forgets it.
    pub fn clear(&mut self) -> Vec<Ticket> {
        let lanes = self.queues.iter_mut().flat_map(|lane| std::mem::take(&mut lane.waiting));
        lanes.flat_map(|(_, tickets)| tickets).collect()
    }

    /// Stride scheduling (Waldspurger and Weihl, 1995): each turn of a lane is due `step` after the one before, and the
    /// turn that is due first is taken. Over any row of choices each lane that has work gets its share, spread evenly
    /// instead of in bursts. An empty lane lags behind, but by [`CATCH_UP`] turns at most, so it cannot save up and then
    /// starve the others.
    fn next_by_weight(&mut self) -> Option<&mut Lane> {
        let now = self.now;
        let ready = self.queues.iter_mut().filter(|lane| !lane.waiting.is_empty());
        // The first of equals wins, so the order of the configuration decides ties.
        let chosen = ready.min_by_key(|lane| lane.due_at(now))?;
        let due = chosen.due_at(now);
        chosen.due = due + chosen.step;
        self.now = now.max(due);
        Some(chosen)
    }
}

impl Lane {
    fn due_at(&self, now: u64) -> u64 {
        self.due.max(now.saturating_sub(CATCH_UP * self.step))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(order: Order, weights: &[u32], each: u64) -> Schedule {
        let mut schedule = Schedule::new(order, weights.iter().copied());
        for queue in 0..weights.len() {
            for n in 0..each {
                schedule.push(queue, 0, Ticket(queue as u64 * 1_000_000 + n));
            }
        }
        schedule
    }

    fn counts(schedule: &mut Schedule, lanes: usize, take: usize) -> Vec<usize> {
        let mut counts = vec![0; lanes];
        for _ in 0..take {
            let Ticket(n) = schedule.pop().expect("the schedule was filled");
            counts[usize::try_from(n / 1_000_000).unwrap()] += 1;
        }
        counts
    }

    #[test]
    fn weights_are_shares() {
        let mut schedule = filled(Order::Weighted, &[5, 3, 2], 1000);
        assert_eq!(counts(&mut schedule, 3, 1000), [500, 300, 200]);
    }

    #[test]
    fn shares_are_even_in_every_stretch() {
        let mut schedule = filled(Order::Weighted, &[5, 1], 1000);
        for _ in 0..50 {
            assert_eq!(counts(&mut schedule, 2, 6), [5, 1]);
        }
    }

    #[test]
    fn an_empty_queue_catches_up_a_few_turns_only() {
        let mut schedule = filled(Order::Weighted, &[1, 1], 0);
        (0..200).for_each(|n| schedule.push(0, 0, Ticket(n)));
        assert_eq!(counts(&mut schedule, 2, 50), [50, 0]);
        (0..100).for_each(|n| schedule.push(1, 0, Ticket(1_000_000 + n)));
        let few = usize::try_from(CATCH_UP).unwrap();
        assert_eq!(counts(&mut schedule, 2, 40 + few), [20, 20 + few]);
        assert_eq!(counts(&mut schedule, 2, 40), [20, 20]);
    }

    #[test]
    fn a_queue_that_runs_dry_now_and_then_keeps_its_share() {
        let mut schedule = filled(Order::Weighted, &[5, 3, 2], 0);
        let mut runs = [0; 3];
        let mut waits = false;
        for n in 0..1000 {
            // The heaviest has a task in ten of each sixteen choices, and needs eight turns for its share.
            if n % 16 < 10 && !waits {
                schedule.push(0, 0, Ticket(0));
                waits = true;
            }
            schedule.push(1, 0, Ticket(1));
            schedule.push(2, 0, Ticket(2));
            let Ticket(queue) = schedule.pop().expect("some wait");
            runs[usize::try_from(queue).unwrap()] += 1;
            waits &= queue != 0;
        }
        assert!(runs[0] >= 480, "{runs:?}");
    }

    #[test]
    fn strict_serves_the_first_queue_first() {
        let mut schedule = filled(Order::Strict, &[1, 9], 10);
        assert_eq!(counts(&mut schedule, 2, 12), [10, 2]);
    }

    #[test]
    fn priority_then_arrival() {
        let mut schedule = Schedule::new(Order::Weighted, [1]);
        for (priority, ticket) in [(0, 1), (9, 2), (0, 3), (255, 4), (9, 5)] {
            schedule.push(0, priority, Ticket(ticket));
        }
        let order: Vec<_> = std::iter::from_fn(|| schedule.pop()).map(|Ticket(n)| n).collect();
        assert_eq!(order, [4, 2, 5, 1, 3]);
        assert_eq!(schedule.pop(), None);
    }

    #[test]
    fn clear_gives_everything_once() {
        let mut schedule = filled(Order::Weighted, &[1, 2], 10);
        assert_eq!(schedule.clear().len(), 20);
        assert_eq!(schedule.pop(), None);
    }
}
