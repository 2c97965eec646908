//! The other side: the broker and its publishers.

use super::*;

impl World {
    pub(super) fn publish(&mut self) {
        let id = self.published;
        self.published += 1;
        let keyless = self.random.u32(0..8) == 0;
        let mut message = Message { body: id.to_le_bytes().to_vec(), ..Message::default() };
        if keyless {
            self.keyless.insert(id);
        } else {
            message.properties.message_id = Some(id.to_string());
        }
        let queue = self.random.usize(0..QUEUES);
        self.put(queue, Stored { id, message });
    }

    /// A publisher that lost its confirm sends a message again.
    pub(super) fn resend(&mut self) {
        let id = self.random.u32(0..self.published.max(1));
        if id < self.published && !self.keyless.contains(&id) {
            let mut message = Message { body: id.to_le_bytes().to_vec(), ..Message::default() };
            message.properties.message_id = Some(id.to_string());
            let queue = self.random.usize(0..QUEUES);
            self.put(queue, Stored { id, message });
        }
    }

    /// Somebody moves a dead letter back to its queue.
    pub(super) fn replay(&mut self) {
        if let Some(stored) = self.dead.pop() {
            self.coverage.count("replay");
            self.say(|| format!("replay {}", stored.id));
            self.replayed.insert(stored.id);
            self.put(0, stored);
        }
    }

    pub(super) fn put(&mut self, queue: usize, stored: Stored) {
        self.say(|| format!("message {} in queue {queue}", stored.id));
        self.ready[queue].push_back(stored);
    }

    /// Copies whose delay is over leave the ladder.
    pub(super) fn climb(&mut self) {
        if !self.faults && self.idle_but_for_the_ladder() {
            self.now = self.ladder.iter().map(|(due, ..)| *due).min().unwrap_or(self.now).max(self.now);
        }
        let now = self.now;
        for (_, queue, stored) in self.ladder.extract_if(.., |(due, ..)| *due <= now).collect::<Vec<_>>() {
            self.put(queue, stored);
        }
    }

    pub(super) fn take_publish(&mut self) {
        if self.publishing.is_empty() {
            return;
        }
        let copy = self.publishing.remove(0);
        let (id, failed) = (id(&copy.task), copy.task.attempt);
        self.accepted.insert((id, failed));
        let message =
            Message { properties: copy.properties.clone(), body: copy.task.message.body.clone(), ..Message::default() };
        match &copy.to {
            Destination::Delay { queue, delay } => {
                self.say(|| format!("copy of {id} after attempt {failed} on the ladder"));
                let queue = (0..QUEUES).find(|n| name(*n) == **queue).expect("copies go back to their own queue");
                self.ladder.push((self.now + *delay, queue, Stored { id, message }));
            }
            Destination::Queue(queue) => {
                assert_eq!(**queue, *"j.dead");
                self.say(|| format!("copy of {id} after attempt {failed} is dead"));
                self.coverage.count("dead");
                self.dead.push(Stored { id, message });
            }
        }
        self.unconfirmed.push(copy);
    }

    pub(super) fn confirm(&mut self) {
        if self.unconfirmed.is_empty() {
            return;
        }
        let copy = self.unconfirmed.remove(self.random.usize(0..self.unconfirmed.len()));
        self.say(|| format!("confirm of the copy of {}", id(&copy.task)));
        self.marks.extend(self.machine.forwarded(self.now(), copy.ticket));
    }

    /// The publisher's connection is lost: what is not confirmed is published again.
    pub(super) fn publisher_lost(&mut self) {
        if !self.unconfirmed.is_empty() {
            self.coverage.count("publisher-lost");
            self.say(|| "the publisher lost its connection".to_owned());
            self.may_double.extend(self.unconfirmed.iter().map(|copy| id(&copy.task)));
            self.publishing.append(&mut self.unconfirmed);
        }
    }

    /// The broker refuses a copy (unroutable, or nacked): it is owed still.
    pub(super) fn refuse(&mut self) {
        if !self.publishing.is_empty() {
            self.coverage.count("publish-refused");
            let copy = self.publishing.remove(0);
            self.refused.push(copy.ticket);
        }
    }

    pub(super) fn publish_again_refused(&mut self) {
        for ticket in std::mem::take(&mut self.refused) {
            let demanded = self.machine.demanded(ticket).expect("a refused copy is still owed");
            self.publishing.push(retry::copy(&self.facts, ticket, &demanded.task, &demanded.failed));
        }
    }

    // ---- The daemon's shell, as job.rs has it ------------------------------------------------------------------

    pub(super) fn deliver(&mut self) {
        let queue = self.random.usize(0..QUEUES);
        let open = self.unacked.keys().filter(|(of, _)| *of == queue).count();
        if open >= PREFETCH {
            return;
        }
        if !self.up {
            return;
        }
        let Some(stored) = self.ready[queue].pop_front() else {
            return;
        };
        let tag = DeliveryTag { session: self.session, queue, tag: self.next_tag[queue] };
        self.next_tag[queue] += 1;
        self.unacked.insert((queue, tag.tag), stored.clone());
        let task = arrive::read(&self.job, queue, stored.message.clone(), self.now(), self.at());
        assert_eq!(task.unfit, None, "the simulator sends only sound messages");
        let task = Arc::new(task);
        let known = self.look_up(&task);
        let arrived = self.machine.delivered(self.now(), tag, Arc::clone(&task), known.as_ref());
        self.say(|| format!("delivery of {} attempt {} as {}: {arrived:?}", stored.id, task.attempt, tag.tag));
        self.on_arrived(arrived);
    }

    pub(super) fn ack(&mut self, queue: usize, tag: u64, multiple: bool) {
        self.coverage.count(if multiple { "multiple-ack" } else { "single-ack" });
        assert!(self.unacked.contains_key(&(queue, tag)), "an ack names an open delivery");
        let lowest = if multiple { 0 } else { tag };
        let tags: Vec<_> = self.unacked.range((queue, lowest)..=(queue, tag)).map(|(tag, _)| *tag).collect();
        for tag in tags {
            let stored = self.unacked.remove(&tag).expect("just listed");
            let id = stored.id;
            let task = arrive::read(&self.job, queue, stored.message, self.now(), self.at());
            self.say(|| format!("ack of {id} attempt {}", task.attempt));
            let copied = self.accepted.contains(&(id, task.attempt));
            match &task.key {
                Some(key) => {
                    let done = self.rows.iter().any(|((row, _), what)| row == key && *what == Recorded::Done);
                    let recorded = self.rows.contains_key(&(key.clone(), task.attempt));
                    assert!(done || (recorded && copied), "{id} attempt {} is acknowledged too early", task.attempt);
                }
                None => assert!(copied || self.completed.contains(&id), "{id} is acknowledged too early"),
            }
        }
    }

    pub(super) fn requeue_all(&mut self) {
        for ((queue, _), stored) in std::mem::take(&mut self.unacked).into_iter().rev() {
            self.ready[queue].push_front(stored);
        }
        self.next_tag.fill(1);
    }

    // ---- The end ----------------------------------------------------------------------------------------------
}
