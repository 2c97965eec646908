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
}

/// One queue's waiting tasks.
#[derive(Debug)]
struct Lane {
    weight: i64,
    /// Smooth weighted round robin: grows by `weight` at each choice, shrinks by the total when chosen.
    credit: i64,
    /// By priority; within one priority in order of arrival.
    waiting: BTreeMap<u8, VecDeque<Ticket>>,
}

impl Schedule {
    /// One lane per weight, in the order of the job's queues.
    pub fn new(order: Order, weights: impl IntoIterator<Item = u32>) -> Self {
        let lane = |weight| Lane {
            weight: i64::from(weight),
            credit: 0,
            waiting: BTreeMap::new(),
        };
        Self {
            order,
            queues: weights.into_iter().map(lane).collect(),
        }
    }

    /// Adds a task behind those of its queue and priority.
    pub fn push(&mut self, queue: QueueIndex, priority: u8, ticket: Ticket) {
        self.queues[queue]
            .waiting
            .entry(priority)
            .or_default()
            .push_back(ticket);
    }

    /// Takes the task that runs next.
    pub fn pop(&mut self) -> Option<Ticket> {
        let lane = match self.order {
            Order::Strict => self
                .queues
                .iter_mut()
                .find(|lane| !lane.waiting.is_empty())?,
            Order::Weighted => self.next_by_weight()?,
        };
        let mut highest = lane.waiting.last_entry()?;
        let ticket = highest.get_mut().pop_front();
        if highest.get().is_empty() {
            highest.remove();
        }
        ticket
    }

    /// Takes everything, in no special order: a drain hands it back, a disconnect forgets it.
    pub fn clear(&mut self) -> Vec<Ticket> {
        let lanes = self
            .queues
            .iter_mut()
            .flat_map(|lane| std::mem::take(&mut lane.waiting));
        lanes.flat_map(|(_, tickets)| tickets).collect()
    }

    /// Smooth weighted round robin (nginx's): over any row of choices each lane that has work gets its share, spread
    /// evenly instead of in bursts. An empty lane keeps no credit, so it cannot save up and then starve the others.
    fn next_by_weight(&mut self) -> Option<&mut Lane> {
        let mut total = 0;
        for lane in &mut self.queues {
            if lane.waiting.is_empty() {
                lane.credit = 0;
            } else {
                lane.credit += lane.weight;
                total += lane.weight;
            }
        }
        // The first of equals wins, so the order of the configuration decides ties.
        let ready = self
            .queues
            .iter_mut()
            .rev()
            .filter(|lane| !lane.waiting.is_empty());
        let chosen = ready.max_by_key(|lane| lane.credit)?;
        chosen.credit -= total;
        Some(chosen)
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
    fn an_empty_queue_saves_no_credit() {
        let mut schedule = filled(Order::Weighted, &[1, 1], 0);
        (0..100).for_each(|n| schedule.push(0, 0, Ticket(n)));
        assert_eq!(counts(&mut schedule, 2, 50), [50, 0]);
        (0..100).for_each(|n| schedule.push(1, 0, Ticket(1_000_000 + n)));
        assert_eq!(counts(&mut schedule, 2, 40), [20, 20]);
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
        let order: Vec<_> = std::iter::from_fn(|| schedule.pop())
            .map(|Ticket(n)| n)
            .collect();
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
