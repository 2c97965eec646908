//! What became of the messages of a scene.

use std::collections::BTreeSet;
use std::time::Duration;

use super::{DEAD, Fate, Scene};
use crate::support::records::Records;
use crate::support::tap::Tally;

/// Figures of a scene, and everything in it that is not as it must be.
#[derive(Debug, Default)]
pub struct Verdict {
    pub messages: usize,
    pub crashes: usize,
    /// Messages that are neither done nor dead nor in a queue.
    pub lost: usize,
    /// Runs of handlers, and how many of them a world without crashes would have spared.
    pub runs: usize,
    pub extra_runs: usize,
    /// Messages that lie in the dead-letter queue, and those of them that lie there twice.
    pub dead: usize,
    pub doubled: usize,
    /// The longest time from a start of the daemon to the first run after it.
    pub slowest: Duration,
    /// What the tap on the wire saw.
    pub tally: Tally,
    /// One sentence each; nothing where all is well.
    pub wrong: Vec<String>,
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { messages, crashes, lost, runs, extra_runs, dead, doubled, slowest: _, tally, wrong: _ } = self;
        write!(
            f,
            "{messages} messages, {crashes} crashes, {lost} lost, {runs} runs, {extra_runs} of them again, {dead} dead, \
             {doubled} of them twice; {tally}"
        )
    }
}

impl Scene {
    /// Judges everything, once the daemon has ended, and says what is wrong instead of failing.
    pub fn verdict(&mut self) -> Verdict {
        let mut records = Records::read(self.daemon.store_path());
        self.known.read(&self.journal);
        if self.setup.forgets {
            let alive = |(key, _): &&(String, u32)| self.published.get(key).is_some_and(|fate| !fate.is_dead());
            records.done.extend(self.known.ran.iter().filter(alive).map(|(key, _)| key.clone()));
        }
        let mut verdict = Verdict {
            messages: self.published.len(),
            crashes: self.known.in_vain.len(),
            slowest: self.slowest,
            ..Verdict::default()
        };
        self.take_dead_letters();
        self.judge_what_is_left(&records, &mut verdict);
        self.judge_dead_letters(&mut verdict);
        self.judge_records(&records, &mut verdict);
        self.judge_runs(&mut verdict);
        self.judge_wire(&mut verdict);
        self.judge_store(&mut verdict);
        // Such as a tag that is not of its session.
        if self.daemon.log().contains("internal error") {
            verdict.wrong.push(format!("the log tells of an internal error\n{}", self.daemon.log_tail()));
        }
        if !verdict.wrong.is_empty() {
            verdict.wrong.push(format!("store, log and journal are kept in {}", self.daemon.keep().display()));
        }
        verdict
    }

    /// Nothing waits in the work queue or on the ladder, and what is there no more is done or dead.
    fn judge_what_is_left(&self, records: &Records, verdict: &mut Verdict) {
        let mut queued = BTreeSet::new();
        for queue in self.vhost.queues() {
            // RabbitMQ 3.10 may leave a quorum queue without a leader when it starts again (rabbitmq-server issue 10070):
            // it still tells its length, and gives nothing. What it kept from us would count as lost.
            let empty = self.vhost.ready(&queue) == Some(0);
            let left = if queue == DEAD || empty { Vec::new() } else { self.take_all(&queue) };
            if !left.is_empty() {
                verdict.wrong.push(format!("{} messages in {queue}", left.len()));
            }
            queued.extend(left);
        }
        let known =
            |key: &&String| records.done.contains(*key) || self.letters.contains_key(*key) || queued.contains(*key);
        verdict.lost = self.published.len() - self.published.keys().filter(known).count();
    }

    /// Every message that is to die lies in the dead-letter queue, and no other. Twice may lie one whose copy was owed when
    /// the daemon crashed; and where connections were lost any, as copies under way are not known here.
    fn judge_dead_letters(&self, verdict: &mut Verdict) {
        let found = &self.letters;
        let dead: BTreeSet<_> = found.keys().cloned().collect();
        verdict.wrong.extend(same("dead letters", &self.with_fate(Fate::is_dead), &dead));
        let doubled: Vec<_> = found.iter().filter(|(_, count)| **count > 1).collect();
        let may_double = |key: &String| self.outages > 0 || self.known.owed_dead.contains(key);
        let most = 1 + self.known.in_vain.len() + self.outages;
        let wrong: Vec<_> = doubled.iter().filter(|(key, count)| **count > most || !may_double(key)).collect();
        if !wrong.is_empty() {
            verdict.wrong.push(format!("dead letters too often: {wrong:?}"));
        }
        (verdict.dead, verdict.doubled) = (dead.len(), doubled.len());
    }

    /// Every message that is to be done is recorded so, and no other.
    fn judge_records(&self, records: &Records, verdict: &mut Verdict) {
        verdict.wrong.extend(same("done", &self.with_fate(|fate| !fate.is_dead()), &records.done));
        // The mark that a copy was confirmed may follow the ack; a crash in between loses it, and nothing else does.
        let unmarked: Vec<_> = records.owed_dead.difference(&self.known.owed_dead).collect();
        if !unmarked.is_empty() {
            verdict.wrong.push(format!("dead letters that the store does not know to be confirmed: {unmarked:?}"));
        }
    }

    /// Each attempt ran, none after its record, and not more of them twice than were running at the crashes.
    fn judge_runs(&self, verdict: &mut Verdict) {
        let known = &self.known;
        if !known.again.is_empty() {
            verdict.wrong.push(format!("ran again after their record: {:?}", known.again));
        }
        self.judge_attempts(verdict);
        verdict.runs = known.runs;
        verdict.extra_runs = known.runs - known.ran.len();
        let explained: usize = known.in_vain.iter().sum();
        // What a killed process of a handler had taken beside the task it worked on is handed back, and runs again.
        let most = explained + self.spendable * self.setup.handler.open();
        if verdict.extra_runs < explained || verdict.extra_runs > most {
            let extra = verdict.extra_runs;
            verdict.wrong.push(format!("{extra} runs again, of which crashes explain {explained} to {most}"));
        }
        let bound = self.setup.concurrency * self.setup.handler.open();
        let beyond: Vec<_> = known.in_vain.iter().filter(|runs| **runs > bound).collect();
        if !beyond.is_empty() {
            verdict.wrong.push(format!("more runs without a record than {bound}, by crash: {beyond:?}"));
        }
    }

    /// The store is whole, and says nothing that contradicts itself.
    fn judge_store(&self, verdict: &mut Verdict) {
        let verified = self.daemon.run(&["store", "verify"]);
        if !verified.status.success() {
            let [findings, error] = [&verified.stdout, &verified.stderr].map(|text| String::from_utf8_lossy(text));
            verdict.wrong.push(format!("the store is not sound: {findings}{error}"));
        }
    }

    /// The daemon said nothing to the broker that it must not say.
    fn judge_wire(&self, verdict: &mut Verdict) {
        if !self.setup.tap {
            return;
        }
        match self.daemon.wire().verdict() {
            Ok(tally) => verdict.tally = tally,
            Err(why) => verdict.wrong.push(why),
        }
        // Each attempt came in a delivery of its own, or the tap has not seen what it judges.
        let (acked, needed) = (verdict.tally.done + verdict.tally.copied, self.runs_needed() as u64);
        if acked < needed {
            verdict.wrong.push(format!("the tap saw {acked} attempts that were acknowledged, and there were {needed}"));
        }
    }

    /// The attempts that ran are those that the fates ask for. Where processes of handlers were killed, a message may have
    /// spent some more, and one that was killed before it could write its line is missing in the journal.
    fn judge_attempts(&self, verdict: &mut Verdict) {
        let ran: BTreeSet<_> = self.known.ran.iter().cloned().collect();
        let needed =
            |(key, fate): (&String, &Fate)| (1..=fate.attempts()).map(|attempt| (key.clone(), attempt)).collect();
        let needed: BTreeSet<_> = self.published.iter().flat_map(|entry| -> Vec<_> { needed(entry) }).collect();
        if self.spendable == 0 {
            verdict.wrong.extend(same("attempts that ran", &needed, &ran));
            return;
        }
        let missing = needed.difference(&ran).count();
        let surplus = ran.difference(&needed).count();
        if missing > self.spendable || surplus > self.spendable {
            verdict.wrong.push(format!(
                "{missing} attempts did not run and {surplus} ran beside those needed, where {} can be explained",
                self.spendable
            ));
        }
    }
}

fn same<T: Ord + std::fmt::Debug>(what: &str, expected: &BTreeSet<T>, found: &BTreeSet<T>) -> Option<String> {
    let some = |set: Vec<&T>| format!("{} such as {:?}", set.len(), &set[..set.len().min(5)]);
    let missing: Vec<_> = expected.difference(found).collect();
    let surplus: Vec<_> = found.difference(expected).collect();
    let differ = !missing.is_empty() || !surplus.is_empty();
    differ.then(|| format!("{what}: missing {}; too many {}", some(missing), some(surplus)))
}
