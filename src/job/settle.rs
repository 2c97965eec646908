//! Steps 3 to 5: record, then publish the copy, then acknowledge. In this order, here and nowhere else.

use crossbeam_channel::TrySendError;
use log::{info, warn};

use super::{CREDIT, DEAF, Exit, Job};
use crate::broker::publisher::{PublishRequest, Published};
use crate::broker::{Body, Outgoing, Session};
use crate::failpoint;
use crate::policy::inflight::Demanded;
use crate::policy::{retry, topology};
use crate::store::{Batch, Request};
use crate::task::{Committed, Ticket};

impl Job {
    /// Restores the invariants after every event: what may run runs, then record, publish, acknowledge.
    pub(super) fn settle(&mut self, mut session: Option<&mut Session<'_>>) -> Result<(), Exit> {
        if self.gate.tick(self.now) {
            info!(job = &*self.config.name; "job {}: probing the handler with one message", self.config.name);
            self.subscriptions.start(self.now);
        }
        self.keep_phase();
        if let Some(session) = session.as_deref_mut() {
            self.keep_declared(session)?;
            self.keep_prefetch(session)?;
            self.keep_subscribed(session)?;
        } else {
            self.keep_linking();
        }
        self.judge_released()?;
        self.dispatch();
        if let Some(session) = session.as_deref_mut() {
            self.dispatch_forwards(session)?;
        }
        self.record();
        self.publish(session.as_deref_mut())?;
        match session {
            Some(session) => {
                self.acknowledge(session)?;
                // Last: it may wait for the broker, and it may end the session.
                self.keep_watch(session)
            }
            None => Ok(()),
        }
    }

    /// The disk is full. What ended waits for its record; nothing new is taken, so that no more runs are at stake.
    pub(super) fn on_full(&mut self, session: Option<&mut Session<'_>>) -> Result<(), Exit> {
        self.store_full = true;
        self.stop_taking(session)
    }

    pub(super) fn on_committed(&mut self, committed: &Committed) {
        self.recording = false;
        if std::mem::take(&mut self.store_full) {
            self.subscriptions.start(self.now);
        }
        for batch in std::mem::take(&mut self.starting) {
            self.run_started(batch);
        }
        self.machine.marked(std::mem::take(&mut self.marking));
        for demanded in self.machine.committed(self.now, committed) {
            self.send_copy(&demanded);
        }
    }

    pub(super) fn on_published(&mut self, published: Published) {
        self.publishing -= 1;
        if let Some(owed) = self.owed.remove(&published.ticket) {
            self.on_owed(published.ticket, owed, published.result);
            return;
        }
        match published.result {
            Ok(()) => {
                failpoint::hit("after-publish");
                self.marks.extend(self.machine.forwarded(self.now, published.ticket));
                for ticket in self.refusals.confirmed(published.ticket) {
                    self.owe_refused(ticket);
                }
            }
            Err(reason) => {
                let reason = format!("a copy could not be published: {reason}");
                self.counters.last_error = Some((self.at, reason.clone()));
                // One line when it begins, not one for every copy and every try.
                if self.refusals.refused(self.now, published.ticket, reason.clone()) {
                    warn!(job = &*self.config.name; "job {}: {reason}; trying again", self.config.name);
                }
            }
        }
    }

    pub(super) fn owe_copy(&mut self, ticket: Ticket) {
        if let Some(demanded) = self.machine.demanded(ticket) {
            self.send_copy(&demanded);
        }
    }

    /// A copy that was refused goes out again. Says whether it is still owed.
    fn owe_refused(&mut self, ticket: Ticket) -> bool {
        match self.machine.demanded(ticket) {
            Some(demanded) => {
                self.send_copy(&demanded);
                true
            }
            None => {
                self.refusals.forget(ticket);
                false
            }
        }
    }

    fn send_copy(&mut self, demanded: &Demanded) {
        let copy = retry::copy(&self.facts, demanded.ticket, &demanded.task, &demanded.failed);
        let (exchange, routing_key) = topology::route(&copy.to, self.ladder());
        let message = Outgoing { exchange, routing_key, properties: copy.properties, body: Body::Task(copy.task) };
        self.outbox.push_back((copy.ticket, message));
    }

    /// Step 3. One batch at a time: while it is being committed, the next one grows.
    pub(super) fn record(&mut self) {
        let due = self.machine.due();
        for key in due.iter().filter_map(|record| record.key.as_ref()) {
            self.wiring.reader.expect(key);
        }
        self.records.extend(due);
        if self.recording {
            return;
        }
        // Whatever else was expected is committed.
        let coming = self.records.iter().filter_map(|record| record.key.as_ref());
        if let Err(error) = self.wiring.reader.tidy(coming) {
            warn!(job = &*self.config.name; "job {}: its filter of known keys stays as it is: {error}", self.config.name);
        }
        if self.records.is_empty() && self.marks.is_empty() && self.starts.is_empty() && self.unstarted.is_empty() {
            return;
        }
        self.starting = std::mem::take(&mut self.starts);
        self.marking.clone_from(&self.marks);
        let batch = Batch {
            job: self.wiring.id,
            records: std::mem::take(&mut self.records),
            marks: std::mem::take(&mut self.marks),
            starts: self.starting.iter().flatten().filter_map(|ticket| self.attempt(*ticket)).collect(),
            unstarted: std::mem::take(&mut self.unstarted),
            reply: self.proofs.clone(),
        };
        // The recorder's inbox has room for a batch of every job, but questions may take it while the disk stands still. Then
        // it is tried again at the next turn. A recorder that is gone ends the daemon.
        match self.wiring.recorder.try_send(Request::Commit(batch)).map_err(TrySendError::into_inner) {
            Err(Request::Commit(unsent)) => {
                (self.records, self.marks, self.unstarted) = (unsent.records, unsent.marks, unsent.unstarted);
                self.starts = std::mem::take(&mut self.starting);
                self.marking.clear();
            }
            Ok(()) | Err(_) => {
                self.recording = true;
                self.deaf_until = self.now + DEAF;
            }
        }
    }

    /// Step 4.
    pub(super) fn publish(&mut self, session: Option<&mut Session<'_>>) -> Result<(), Exit> {
        if self.refusals.is_due(self.now) {
            // Most often a queue of the ladder or the dead-letter queue is gone: make sure of them first.
            if let Some(session) = session {
                self.declare(session)?;
            }
            while let Some(ticket) = self.refusals.probe() {
                if self.owe_refused(ticket) {
                    break;
                }
            }
        }
        while self.publishing < CREDIT {
            let Some((ticket, message)) = self.outbox.pop_front() else {
                break;
            };
            let request = PublishRequest { ticket, message, reply: self.confirms.clone() };
            // The publisher's inbox has room for the credit of the jobs that it was made for and some more. Where more have come,
            // it goes out at the next turn; when the publisher is gone, the daemon is ending.
            if let Err(unsent) = self.wiring.publisher.try_send(request) {
                let PublishRequest { ticket, message, .. } = unsent.into_inner();
                self.outbox.push_front((ticket, message));
                break;
            }
            self.publishing += 1;
        }
        Ok(())
    }

    /// Step 5, and the only place that acknowledges or hands back.
    pub(super) fn acknowledge(&mut self, session: &mut Session<'_>) -> Result<(), Exit> {
        for tag in self.machine.hand_backs() {
            session.hand_back(tag).map_err(Exit::Lost)?;
        }
        // While handlers are slow, acks are few and cost nothing; held back, they would keep the next message waiting, which
        // may be more urgent than all that are here.
        let full = self.workers.are_slow().then_some(usize::from(self.prefetch.get()));
        let frames = self.machine.acks(self.now, full);
        if frames.is_empty() {
            return Ok(());
        }
        failpoint::hit("before-ack");
        self.counters.acks += frames.len() as u64;
        for (queue, frame) in frames {
            let tag = self.machine.tag(queue, frame.tag);
            session.ack(tag, frame.multiple).map_err(Exit::Lost)?;
            self.timing.acknowledged(frame.covers);
        }
        failpoint::hit("after-ack");
        self.linking.has_worked();
        Ok(())
    }
}
