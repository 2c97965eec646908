//! Looks at queues from which nothing comes, and makes the session anew where one has stalled.

use std::time::Instant;

use log::warn;

use super::{Exit, Job, Phase, queue_name};
use crate::broker::{BrokerError, Session};
use crate::policy::gate::Allowed;
use crate::policy::stall::{Seen, Sight, Stall};
use crate::task::QueueIndex;

/// Sessions made anew in vain after which something else may be the cause.
const IN_VAIN: u32 = 3;

impl Job {
    /// One look a turn, so that a look that has to wait for the broker is followed by whatever else happened.
    pub(super) fn keep_watch(&mut self, session: &mut Session<'_>) -> Result<(), Exit> {
        if self.phase != Phase::Working {
            return Ok(());
        }
        let Some(queue) = self.stalls.due(self.now) else {
            return Ok(());
        };
        let counts = match session.counts(queue_name(&self.config, queue)) {
            // A queue that is gone ends its consumer, and one that may not be looked at tells nothing.
            Ok(counts) => counts,
            Err(BrokerError::Topology { .. }) => None,
            Err(error) => return Err(Exit::Lost(error)),
        };
        let room = self.has_room(queue);
        let sight = counts.map(|counts| Sight { ready: counts.ready, consumers: counts.consumers, room });
        if self.stalls.saw(queue, self.now, sight).is_none() {
            return Ok(());
        }
        for problem in self.stall_problems() {
            warn!(job = &*self.config.name; "job {}: {problem}", self.config.name);
        }
        Err(Exit::Stalled)
    }

    /// Whether the broker may send another message of the queue.
    fn has_room(&self, queue: QueueIndex) -> bool {
        let most = match self.allowed() {
            Allowed::Everything => self.prefetch.get(),
            Allowed::OneProbe => 1,
            Allowed::Nothing => 0,
        };
        self.machine.unacked(queue) < usize::from(most)
    }

    /// One sentence for each queue that is not seen to be well since it stalled.
    pub(super) fn stall_problems(&self) -> Vec<String> {
        let now = Instant::now();
        self.stalls.seen().map(|(queue, seen)| tell(queue_name(&self.config, queue), seen, now)).collect()
    }
}

fn tell(queue: &str, seen: Seen, now: Instant) -> String {
    let Seen { stall, ready, since, rebuilds } = seen;
    let seconds = now.saturating_duration_since(since).as_secs();
    let what = match stall {
        Stall::Unconsumed => {
            format!("RabbitMQ has counted no consumer of queue {queue:?} for {seconds} s, though this job is one")
        }
        Stall::Starved => {
            let wait = if ready == 1 { "a message has".to_owned() } else { format!("{ready} messages have") };
            format!("{wait} waited in queue {queue:?} for {seconds} s and none comes, though there is room")
        }
    };
    let times = if rebuilds == 1 { "once".to_owned() } else { format!("{rebuilds} times") };
    let hint = match stall {
        Stall::Starved if rebuilds >= IN_VAIN => {
            "; if another consumer is its single active one, say so: arguments = { x-single-active-consumer = true }"
        }
        Stall::Starved | Stall::Unconsumed => "",
    };
    format!("{what}; connected anew {times}{hint}")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_stall_is_told_in_one_sentence() {
        let since = Instant::now();
        let now = since + Duration::from_secs(31);
        let told = |stall, ready, rebuilds| tell("mail", Seen { stall, ready, since, rebuilds }, now);
        assert_eq!(
            told(Stall::Unconsumed, 0, 1),
            "RabbitMQ has counted no consumer of queue \"mail\" for 31 s, though this job is one; connected anew once"
        );
        assert_eq!(
            told(Stall::Starved, 7, 2),
            "7 messages have waited in queue \"mail\" for 31 s and none comes, though there is room; connected anew 2 times"
        );
        assert!(told(Stall::Starved, 1, 2).starts_with("a message has waited in queue"));
        assert!(told(Stall::Starved, 1, 3).ends_with("arguments = { x-single-active-consumer = true }"));
    }
}
