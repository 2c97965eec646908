//! Our side: what `job`, the recorder and the publisher do, with nothing between them.

use super::*;

impl World {
    pub(super) fn on_arrived(&mut self, arrived: Arrived) {
        match arrived {
            Arrived::Run(ticket) => self.queued.push_back(ticket),
            Arrived::Forward(ticket) => {
                self.coverage.count("forward");
                let demanded = self.machine.demanded(ticket).expect("a forward is owed");
                self.publishing.push(retry::copy(&self.facts, ticket, &demanded.task, &demanded.failed));
            }
            Arrived::Duplicate => self.coverage.count("duplicate"),
            Arrived::Joined => self.coverage.count("joined"),
            Arrived::Adopted => self.coverage.count("adopted"),
            Arrived::Held => self.coverage.count("held"),
        }
    }

    pub(super) fn look_up(&self, task: &Task) -> Option<Recorded> {
        let key = task.key.as_ref()?;
        let done = self.rows.iter().any(|((row, _), what)| row == key && *what == Recorded::Done);
        if done { Some(Recorded::Done) } else { self.rows.get(&(key.clone(), task.attempt)).cloned() }
    }

    pub(super) fn start_run(&mut self) {
        if self.running.len() >= CONCURRENCY {
            return;
        }
        let Some(ticket) = self.queued.pop_front() else {
            return;
        };
        let task = self.machine.start(ticket).expect("a queued task is in flight");
        let run = (id(&task), task.attempt);
        self.say(|| format!("run {run:?}"));
        self.coverage.count("run");
        if task.key.is_some() {
            assert_eq!(self.look_up(&task), None, "{run:?} runs although it is recorded");
            let runs = self.runs.entry(run).or_default();
            *runs += 1;
            let cut = self.cut.get(&run).copied().unwrap_or(0);
            assert!(*runs <= 1 + cut, "{run:?} runs {runs} times with {cut} runs cut by a crash");
        }
        self.running.push((ticket, task));
    }

    pub(super) fn end_run(&mut self) {
        if self.running.is_empty() {
            return;
        }
        let (ticket, task) = self.running.swap_remove(self.random.usize(0..self.running.len()));
        let failure = |class| Failure { class, error: "simulated".to_owned() };
        let random = self.random.f64();
        let ended = match self.random.u32(0..10) {
            0..5 => Ended::Done,
            5..7 => Ended::Failed(retry::judge_retry(
                &self.job.retry,
                &task,
                failure(ErrorClass::Failed),
                None,
                random,
                self.at(),
            )),
            7 => Ended::Failed(retry::judge_retry(
                &self.job.retry,
                &task,
                failure(ErrorClass::Crashed),
                None,
                random,
                self.at(),
            )),
            8 => Ended::Failed(retry::judge_dead(failure(ErrorClass::Rejected), self.at())),
            _ => {
                // A run that does not count may run again.
                *self.cut.entry((id(&task), task.attempt)).or_default() += 1;
                Ended::HandedBack
            }
        };
        self.say(|| format!("end of {} attempt {}: {ended:?}", id(&task), task.attempt));
        if !self.up {
            self.coverage.count("end-without-session");
        }
        if ended == Ended::Done && task.key.is_none() {
            self.completing.insert(ticket, id(&task));
        }
        self.machine.finished(ticket, ended, self.at());
    }

    /// A pause: what waits goes back.
    pub(super) fn hand_back(&mut self) {
        for ticket in std::mem::take(&mut self.queued) {
            self.coverage.count("handed-back");
            self.machine.finished(ticket, Ended::HandedBack, self.at());
        }
    }

    pub(super) fn commit(&mut self) {
        let tickets = self.write();
        if tickets.is_empty() {
            return;
        }
        self.say(|| format!("commit of {} records", tickets.len()));
        self.completed.extend(tickets.iter().filter_map(|ticket| self.completing.remove(ticket)));
        for demanded in self.machine.committed(self.now(), &Committed::attest(tickets)) {
            self.publishing.push(retry::copy(&self.facts, demanded.ticket, &demanded.task, &demanded.failed));
        }
    }

    /// The transaction itself.
    pub(super) fn write(&mut self) -> Vec<Ticket> {
        for mark in &self.marks {
            self.rows.insert((mark.key.clone(), mark.attempt), Recorded::Forwarded);
        }
        self.machine.marked(std::mem::take(&mut self.marks));
        let records: Vec<_> = self.recording.drain(..).collect();
        for record in &records {
            if let Some(key) = &record.key {
                if let Recorded::Failed(failed) = &record.what {
                    assert!(matches!(failed.demand, Demand::Dead | Demand::Retry { .. }));
                }
                self.rows.entry((key.clone(), record.attempt)).or_insert_with(|| record.what.clone());
            }
        }
        records.iter().map(|record| record.ticket).collect()
    }

    /// What job.rs does after every event.
    pub(super) fn settle(&mut self) {
        for Released { tag, task } in self.machine.released() {
            let known = self.look_up(&task);
            let arrived = self.machine.judge_again(self.now(), Released { tag, task }, known.as_ref());
            self.on_arrived(arrived);
        }
        self.recording.extend(self.machine.due());
        if self.up {
            self.tell_the_broker();
        }
    }

    /// The nacks and acks that are due, which count as sent once the machine has named them. The connection may be lost before
    /// any of them, and may have been lost before the machine was asked.
    fn tell_the_broker(&mut self) {
        let mut lost = || self.faults && self.random.u32(0..50) == 0;
        for tag in self.machine.hand_backs() {
            if lost() {
                self.coverage.count("lost-before-nack");
                return self.disconnect();
            }
            assert_eq!(tag.session, self.session, "a nack names a tag of this session");
            let stored = self.unacked.remove(&(tag.queue, tag.tag)).expect("a nack names an open delivery");
            self.ready[tag.queue].push_front(stored);
        }
        let full = self.random.bool().then_some(4);
        for (queue, frame) in self.machine.acks(self.now(), full) {
            if self.faults && self.random.u32(0..100) == 0 {
                self.coverage.count("lost-before-ack");
                return self.disconnect();
            }
            assert_eq!(self.machine.tag(queue, frame.tag).session, self.session, "an ack names a tag of this session");
            self.ack(queue, frame.tag, frame.multiple);
        }
    }

    /// Another prefetch, or a consumer made anew on the same channel: its tags go on.
    pub(super) fn subscribe_anew(&mut self) {
        let batch = self.random.usize(1..5);
        self.machine.set_policy(AckPolicy { batch, ..POLICY });
    }

    pub(super) fn connect(&mut self) {
        self.up = true;
        self.session += 1;
        self.machine.connected(self.session);
    }

    pub(super) fn disconnect(&mut self) {
        if !self.up {
            return;
        }
        self.coverage.count("disconnect");
        self.say(|| "the consumer lost its connection".to_owned());
        self.up = false;
        self.machine.disconnected();
        self.queued.clear();
        // Without a key a redelivery cannot be recognised: it runs again.
        self.requeue_all();
    }

    pub(super) fn crash(&mut self) {
        self.coverage.count("crash");
        let copies = self.publishing.iter().chain(&self.unconfirmed);
        self.may_double.extend(copies.map(|copy| id(&copy.task)));
        self.may_double.extend(self.marks.iter().map(|mark| id_of(&mark.key)));
        if self.random.bool() {
            self.coverage.count("crash-after-commit");
            self.write();
        }
        self.say(|| "the daemon dies".to_owned());
        // The broker may have what the publisher had written to its socket.
        while self.random.bool() && !self.publishing.is_empty() {
            self.take_publish();
        }
        for (_, task) in std::mem::take(&mut self.running) {
            *self.cut.entry((id(&task), task.attempt)).or_default() += 1;
        }
        for record in self.recording.drain(..) {
            // It ended, but nobody will ever know.
            if let Some(key) = record.key {
                *self.cut.entry((id_of(&key), record.attempt)).or_default() += 1;
            }
        }
        self.completing.clear();
        self.marks.clear();
        self.publishing.clear();
        self.unconfirmed.clear();
        self.refused.clear();
        self.queued.clear();
        self.machine = machine();
        self.up = false;
        self.requeue_all();
    }
}
