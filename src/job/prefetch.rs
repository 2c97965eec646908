//! `prefetch = "auto"`: measures what a task and the way to the broker take, and subscribes anew when another prefetch is
//! better.

use std::time::{Duration, Instant};

use log::info;

use super::{Exit, Job};
use crate::broker::{BrokerError, Session};
use crate::config;
use crate::policy::gate::Allowed;
use crate::policy::inflight::AckPolicy;
use crate::policy::prefetch::AutoPrefetch;

/// Between two questions to the broker that are asked only for the time they take.
const MEASURE: Duration = Duration::from_secs(2);

/// The prefetch in force, and how it is found.
#[derive(Debug)]
pub struct Prefetch {
    now: u16,
    auto: Option<AutoPrefetch>,
    /// Not before then.
    measure: Instant,
    /// Whether a batch has ended since the last measurement: a job that is idle asks the broker nothing.
    served: bool,
}

impl Prefetch {
    /// As configured; "auto" begins with what is sure to be needed.
    pub fn new(config: &config::Job, now: Instant) -> Self {
        let auto = match config.prefetch {
            config::Prefetch::Fixed(_) => None,
            config::Prefetch::Auto => Some(AutoPrefetch::new(config.concurrency, config.handler.batch())),
        };
        let fixed = match config.prefetch {
            config::Prefetch::Fixed(prefetch) => prefetch,
            config::Prefetch::Auto => 1,
        };
        let in_force = auto.as_ref().map_or(fixed, AutoPrefetch::current);
        Self { now: in_force, auto, measure: now + MEASURE, served: false }
    }

    /// What is in force.
    pub fn get(&self) -> u16 {
        self.now
    }

    /// A batch of so many tasks took so long.
    pub fn served(&mut self, busy: Duration, tasks: usize) {
        if let Some(auto) = &mut self.auto {
            auto.served(busy, tasks);
            self.served = true;
        }
    }
}

/// Acks must be sent well before the prefetch is used up, or the broker would pause for them. What runs takes its part of
/// it; of the rest, half may wait for its ack while the other half waits to run.
pub fn ack_policy(config: &config::Job, prefetch: u16) -> AckPolicy {
    let spare = usize::from(prefetch).saturating_sub(config.concurrency * config.handler.batch());
    let batch = config.ack.batch.min(spare.div_ceil(2).max(1));
    AckPolicy { batch, interval: config.ack.interval }
}

impl Job {
    /// Measures now and then, and changes the prefetch where that pays.
    pub(super) fn keep_prefetch(&mut self, session: &mut Session<'_>) -> Result<(), Exit> {
        let Some(auto) = &mut self.prefetch.auto else {
            return Ok(());
        };
        if !self.prefetch.served || self.now < self.prefetch.measure || self.gate.allowed() != Allowed::Everything {
            return Ok(());
        }
        let began = Instant::now();
        match session.counts(&self.config.queues[0].name) {
            // A "no" is an answer too.
            Ok(_) | Err(BrokerError::Topology { .. }) => {}
            Err(error) => return Err(Exit::Lost(error)),
        }
        // An ack may wait so long for others before it goes that way.
        auto.turned_around(began.elapsed() + self.config.ack.interval);
        (self.prefetch.measure, self.prefetch.served) = (self.now + MEASURE, false);
        if let Some(prefetch) = auto.adjust(self.now) {
            info!(job = &*self.config.name; "job {}: prefetch {} instead of {}", self.config.name, prefetch, self.prefetch.now);
            self.prefetch.now = prefetch;
            self.machine.set_policy(ack_policy(&self.config, prefetch));
            self.subscriptions.renew();
        }
        Ok(())
    }
}
