//! What a job says of itself. It answers from its own state, so `status` is the truth.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::{Exit, Figures, Inspection, Job, LinkReport, Phase};
use crate::broker::{BrokerError, Counts, Session};
use crate::policy::gate::{Allowed, Cause};
use crate::policy::topology::Ladder;
use crate::report::{DOCTOR, Finding};
use crate::task::UnixMillis;
use crate::{config, report};

/// Queue counts are asked of the broker at most this often, however many ask us.
const FRESH: Duration = Duration::from_millis(500);
/// A job that received nothing for this long may be empty; asking sooner would only disturb a busy one.
const QUIET: Duration = Duration::from_millis(50);

/// The broker's counts of the job's queues, as of the last time somebody asked.
#[derive(Debug, Default)]
pub struct Counted {
    at: Option<Instant>,
    queues: Vec<Option<Counts>>,
    dead_letter: Option<Counts>,
}

impl Job {
    pub(super) fn inspect(&mut self, session: Option<&mut Session<'_>>) -> Inspection {
        let now = Instant::now();
        let mut consumed = vec![false; self.config.queues.len()];
        let link = session.map(|session| {
            self.count(session, now);
            consumed.iter_mut().enumerate().for_each(|(queue, consumed)| *consumed = session.is_subscribed(queue));
            LinkReport {
                host: session.host().to_owned(),
                vhost: session.vhost().to_owned(),
                server: session.server().to_owned(),
                tls: session.tls(),
            }
        });
        if link.is_none() {
            self.counts = Counted::default();
        }
        let findings = self.findings();
        Inspection { report: self.report(now, &consumed), link, findings, figures: self.figures() }
    }

    fn figures(&self) -> Figures {
        let cause = self.gate.cause();
        Figures {
            connected: self.linking.is_connected(),
            histograms: self.timing.histograms.clone(),
            pauses: [
                ("operator", self.pause.is_some()),
                ("broken", cause == Some(Cause::Broken)),
                ("outage", cause == Some(Cause::Outage)),
                ("disk_full", self.store_full),
            ],
            quoted: self.gate.reason().map(str::to_owned),
        }
    }

    fn report(&mut self, now: Instant, consumed: &[bool]) -> report::Job {
        let census = self.machine.census();
        let counters = &self.counters;
        let queues = self.config.queues.iter().enumerate().map(|(index, queue)| {
            let counts = self.counts.queues.get(index).copied().flatten();
            let counts = report::Queue {
                ready: counts.map(|counts| counts.ready),
                consumers: counts.map(|counts| counts.consumers),
                consumed: consumed[index],
            };
            (queue.name.to_string(), counts)
        });
        let by_class = counters.dead_by_class().filter(|(_, count)| *count > 0);
        let by_class = by_class.map(|(class, count)| (class.as_str().to_owned(), count));
        report::Job {
            state: self.state().to_owned(),
            reason: self.reason(),
            paused: self.pause.clone().map(|pause| report::Paused {
                reason: pause.reason,
                by: pause.by,
                since_ms: pause.since.0,
            }),
            prefetch: self.prefetch.get(),
            prefetch_auto: self.config.prefetch == config::Prefetch::Auto,
            probe_ms: self.gate.deadline().map(|at| {
                let left = at.saturating_duration_since(now).as_millis();
                UnixMillis::now().0.saturating_add(i64::try_from(left).unwrap_or(i64::MAX))
            }),
            in_doubt: self.wiring.reader.in_doubt(),
            running: census.running.saturating_sub(self.owed.len()),
            concurrency: Some(self.config.concurrency),
            owing: self.owed.len(),
            replies: counters.replies,
            replies_lost: counters.replies_lost,
            buffered: census.queued + census.held,
            in_flight: (0..self.config.queues.len()).map(|queue| self.machine.unacked(queue)).sum(),
            received: counters.received,
            done: counters.done,
            duplicates: counters.duplicates,
            retried: counters.retried,
            dead: counters.dead.iter().sum(),
            dead_by_class: by_class.collect(),
            requeued: counters.requeued,
            crashed: counters.crashed,
            worker_restarts: self.worker_restarts(),
            acks: counters.acks,
            rate_1m: (self.rate.per_second(now) * 100.0).round() / 100.0,
            run_ms: self.timing.run.percentiles(now),
            wait_ms: self.timing.wait.percentiles(now),
            queues: queues.collect::<BTreeMap<_, _>>(),
            dead_letter: report::DeadLetter {
                queue: self.config.dead_letter.queue.to_string(),
                ready: self.counts.dead_letter.map(|counts| counts.ready),
            },
            last_error: counters.last_error.as_ref().map(|(_, text)| text.clone()),
            last_error_ms: counters.last_error.as_ref().map(|(at, _)| at.0),
            forwarding: census.forwarding,
            reconnects: self.linking.sessions.saturating_sub(1),
            stalls: counters.stalls,
            stalled: self.stalls.seen().next().is_some(),
            oldest_wait_ms: self.oldest_wait(now),
        }
    }

    /// Messages come in the order of their queue, so the oldest that waits is one of those that are here.
    fn oldest_wait(&self, now: Instant) -> Option<f64> {
        let at = UnixMillis::now();
        let oldest = self.machine.waiting().map(|task| task.waited(now, at)).max();
        let none_ready = || self.counts.queues.iter().all(|counts| counts.is_some_and(|counts| counts.ready == 0));
        let nothing_waits = || !self.counts.queues.is_empty() && none_ready();
        let oldest = oldest.or_else(|| nothing_waits().then_some(Duration::ZERO));
        oldest.map(|oldest| oldest.as_secs_f64() * 1e3)
    }

    fn worker_restarts(&self) -> BTreeMap<String, u64> {
        match self.config.handler {
            config::Handler::Worker(_) => {
                self.workers.restarts().map(|(reason, count)| (reason.as_str().to_owned(), count)).collect()
            }
            config::Handler::Command(_)
            | config::Handler::Http(_)
            | config::Handler::Forward(_)
            | config::Handler::Discard => BTreeMap::new(),
        }
    }

    /// Why the job is not running, the weightiest reason first.
    fn reason(&self) -> Option<String> {
        let by_hand = self.pause.as_ref().map(|pause| {
            let reason = pause.reason.as_ref().map_or_else(String::new, |reason| format!(": {reason}"));
            format!("paused by {}{reason}", pause.by)
        });
        let full = || self.store_full.then(|| "the disk of the store is full".to_owned());
        let gate = || self.gate.reason().map(str::to_owned);
        by_hand
            .or_else(full)
            .or_else(gate)
            .or_else(|| self.trouble.clone())
            .or_else(|| self.lacking().cloned())
            .or_else(|| self.refusals.reason().cloned())
    }

    fn state(&self) -> &'static str {
        match (self.phase, self.allowed()) {
            (Phase::Draining(_), _) => "draining",
            (Phase::Working, Allowed::Nothing) => "paused",
            (Phase::Working, _) if !self.linking.is_connected() => "connecting",
            (Phase::Working, Allowed::OneProbe) => "probing",
            (Phase::Working, Allowed::Everything) => "running",
        }
    }

    fn findings(&self) -> Vec<Finding> {
        let name = &self.config.name;
        let unconnected = self.link_finding();
        let paused = self.gate.explain().map(|why| {
            let next = self.gate.deadline().map(|at| at.saturating_duration_since(Instant::now()).as_secs());
            let next = next.map_or_else(|| "with the next message".to_owned(), |seconds| format!("in {seconds} s"));
            Finding::of_job(name, format!("paused, {why}; it is probed {next}"))
        });
        let by_hand = self.pause.as_ref().map(|pause| {
            let reason = pause.reason.as_ref().map_or_else(String::new, |reason| format!(": {reason}"));
            let since = jiff::Timestamp::from_millisecond(pause.since.0).unwrap_or_default();
            let what = format!("paused by {} since {since:.0}{reason}", pause.by);
            Finding::of_job(name, what).help(format!("warrend resume {name}"))
        });
        // Without a connection it is not known whether it still lacks.
        let lacking = self.lacking().filter(|_| self.linking.is_connected());
        let trouble = self
            .trouble
            .iter()
            .chain(lacking)
            .chain(self.refusals.reason())
            .map(|trouble| Finding::of_job(name, trouble).help(DOCTOR));
        let stalls = self.stall_problems().into_iter().map(|stall| Finding::of_job(name, stall).help(DOCTOR));
        by_hand.into_iter().chain(paused).chain(trouble).chain(unconnected).chain(stalls).collect()
    }

    fn link_finding(&self) -> Option<Finding> {
        let silent = !self.linking.is_connected() && self.trouble.is_none();
        silent.then(|| Finding::of_job(&self.config.name, "no connection to RabbitMQ yet"))
    }

    /// Asks the broker for the counts of all queues, unless that was just done. What cannot be known stays unknown.
    fn count(&mut self, session: &mut Session<'_>, now: Instant) {
        if self.counts.at.is_some_and(|at| now - at < FRESH) {
            return;
        }
        // A session that dies over this is noticed by the loop.
        let queues = self.config.queues.iter().map(|queue| &*queue.name);
        let names: Vec<_> = queues.chain([&*self.config.dead_letter.queue]).collect();
        let mut queues = session.counts_of(&names);
        let dead_letter = queues.pop().flatten();
        self.counts = Counted { at: Some(now), queues, dead_letter };
    }

    /// Whether nothing is left to do: nothing in flight, nothing on the ladder, nothing in the queues. The ladder is
    /// asked first: what leaves it goes to a queue, so it cannot slip through between the two questions.
    pub(super) fn is_empty(&mut self, session: Option<&mut Session<'_>>) -> Result<bool, Exit> {
        // Of a job that is paused by hand only what is in flight counts: nobody takes the rest.
        if self.pause.is_some() {
            return Ok(self.machine.census().is_empty() && self.outbox.is_empty() && self.publishing == 0);
        }
        let Some(session) = session else {
            return Ok(false);
        };
        let idle = self.machine.census().is_empty() && self.outbox.is_empty() && self.publishing == 0;
        if !idle || self.lacking().is_some() || self.last_delivery.elapsed() < QUIET {
            return Ok(false);
        }
        for ladder in self.ladder().both() {
            // Asking for a queue that is missing costs a channel and a line in the broker's log; all of a ladder's stand
            // together. From the longest delay down, the way that the messages take.
            let stands = ladder.queues().next().is_some_and(|lowest| matches!(session.counts(&lowest), Ok(Some(_))));
            for name in ladder.queues().rev().filter(|_| stands) {
                if holds_messages(session, &name)? {
                    return Ok(false);
                }
            }
        }
        for queue in &self.config.queues {
            if holds_messages(session, &queue.name)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Where this daemon's delayed copies wait.
    pub(super) fn ladder(&self) -> Ladder {
        Ladder::new(self.wiring.broker.delay_queues)
    }
}

/// A queue that does not exist holds none; one that cannot be looked at may.
fn holds_messages(session: &mut Session<'_>, queue: &str) -> Result<bool, Exit> {
    match session.counts(queue) {
        Ok(counts) => Ok(counts.is_some_and(|counts| counts.ready > 0)),
        Err(BrokerError::Topology { .. }) => Ok(true),
        Err(error) => Err(Exit::Lost(error)),
    }
}
