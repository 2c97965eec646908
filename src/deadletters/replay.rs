//! Bringing dead letters back to work.
//!
//! For each letter: publish its copy, mandatory; wait for the confirm; acknowledge the letter. A crash between the two
//! leaves the letter beside its copy, at most [`MOST_UNCONFIRMED`] of them, and the next replay publishes them again. Both
//! copies are the same attempt, so the daemon runs one of them and drops the other as a duplicate.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Filter, Trouble, home};
use crate::broker::oneshot::{End, Outbox};
use crate::broker::{Body, BrokerError, Held, Hold, Outgoing, Token, with_hold};
use crate::config::{self, Job};
use crate::failpoint;
use crate::policy::{retry, topology};
use crate::task::Message;

/// Copies under way at a time: those that a crash can double.
const MOST_UNCONFIRMED: usize = 64;

/// How long letters may lie unacknowledged here. RabbitMQ's limit is 30 minutes, and a slow replay of many takes longer:
/// it gives back what it holds then, and begins again at the front.
const LONGEST_HOLD: Duration = Duration::from_secs(15 * 60);

/// What to replay, and how.
#[derive(Debug, Clone, Copy)]
pub struct Replay<'a> {
    /// The broker.
    pub broker: &'a config::Broker,
    /// Whose dead letters.
    pub job: &'a Job,
    /// Which of them.
    pub filter: &'a Filter,
    /// The queue that they are brought to, instead of those that they failed in.
    pub to: Option<&'a str>,
    /// Letters a second.
    pub rate: Option<f64>,
    /// Only the first so many letters of the queue are looked at.
    pub most: Option<u64>,
}

/// How far a replay is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// Letters that have left the dead-letter queue: their copies are confirmed.
    pub moved: u64,
    /// Letters that were looked at, the moved ones among them.
    pub read: u64,
    /// Letters that lay there at the beginning.
    pub lay: u64,
}

/// Replays. The progress is right also after an error, and says what was done.
pub fn replay(plan: &Replay<'_>, tell: &mut dyn FnMut(&Progress)) -> (Progress, Result<(), Trouble>) {
    let mut run = Run { plan, tell, progress: Progress::default(), sent: 0, due: Instant::now() };
    let mut most = plan.most;
    loop {
        match run.turn(most) {
            Ok(Turn::Finished) => return (run.progress, Ok(())),
            // Those that left are no longer at the front; those that came since are at the end, and not meant.
            Ok(Turn::Pause) => most = Some(run.progress.lay - run.progress.moved),
            Err(trouble) => return (run.progress, Err(trouble)),
        }
    }
}

struct Run<'a, 'b> {
    plan: &'a Replay<'a>,
    tell: &'b mut dyn FnMut(&Progress),
    progress: Progress,
    /// Copies that were sent; those refused among them.
    sent: u64,
    /// When the next copy may go out.
    due: Instant,
}

enum Turn {
    Finished,
    /// The hold is old.
    Pause,
}

/// What ended the sending early.
enum Stop {
    Reading(BrokerError),
    Publishing(End),
}

impl From<BrokerError> for Stop {
    fn from(error: BrokerError) -> Self {
        Self::Reading(error)
    }
}

impl From<End> for Stop {
    fn from(end: End) -> Self {
        Self::Publishing(end)
    }
}

impl Run<'_, '_> {
    /// One hold of the queue, from its front.
    fn turn(&mut self, most: Option<u64>) -> Result<Turn, Trouble> {
        let mut outbox = Outbox::open(self.plan.broker, MOST_UNCONFIRMED)?;
        with_hold(self.plan.broker, &self.plan.job.dead_letter.queue, most, |hold| {
            if self.progress.lay == 0 {
                self.progress.lay = hold.lay();
            }
            // A second look at what stays is no progress.
            self.progress.read = self.progress.moved;
            let (turn, sent) = match self.send_all(hold, &mut outbox) {
                Ok(turn) => (Ok(turn), Ok(())),
                Err(Stop::Publishing(end)) => (Ok(Turn::Finished), Err(end)),
                Err(Stop::Reading(error)) => (Err(error), Ok(())),
            };
            let mut confirmed = Vec::new();
            let closed = outbox.close(sent, &mut |token| confirmed.push(token));
            // Where reading failed, the channel is gone, and acks with it.
            let turn = turn?;
            self.settle(hold, &mut confirmed)?;
            closed?;
            Ok(turn)
        })?
    }

    fn send_all(&mut self, hold: &mut Hold<'_>, outbox: &mut Outbox<Token>) -> Result<Turn, Stop> {
        let (mut confirmed, before) = (Vec::new(), self.sent);
        while !self.plan.filter.is_full(self.sent) {
            // Without any to send, the way to the first of them is longer than a hold: another one would get no further.
            if hold.age() >= LONGEST_HOLD && self.sent > before {
                return Ok(Turn::Pause);
            }
            let Some(Held { message, token }) = hold.next()? else { break };
            self.progress.read += 1;
            if self.plan.filter.matches(self.plan.job, &message) {
                let attended = outbox.attend(self.due, &mut |token| confirmed.push(token));
                let sent =
                    attended.and_then(|()| outbox.send(self.copy(message), token, &mut |token| confirmed.push(token)));
                self.settle(hold, &mut confirmed)?;
                sent?;
                self.count_sent();
            } else {
                hold.leave(token);
            }
            (self.tell)(&self.progress);
        }
        Ok(Turn::Finished)
    }

    fn count_sent(&mut self) {
        self.sent += 1;
        if let Some(rate) = self.plan.rate {
            // A broker that was slow for a while is not overrun afterwards.
            self.due = self.due.max(Instant::now() - Duration::from_millis(100)) + Duration::from_secs_f64(1.0 / rate);
        }
    }

    /// Takes the letters out of their queue whose copies are confirmed.
    fn settle(&mut self, hold: &mut Hold<'_>, confirmed: &mut Vec<Token>) -> Result<(), BrokerError> {
        for token in confirmed.drain(..) {
            failpoint::hit("replay-confirmed");
            hold.ack(token)?;
            self.progress.moved += 1;
        }
        (self.tell)(&self.progress);
        Ok(())
    }

    fn copy(&self, message: Message) -> Outgoing {
        let queue = self.plan.to.map_or_else(|| home(self.plan.job, &message), Arc::from);
        let (exchange, routing_key) = topology::to_queue(&queue);
        let mut properties = retry::again(message.properties);
        // The copy is the only trace of its message.
        properties.delivery_mode = Some(2);
        Outgoing { exchange, routing_key, properties, body: Body::Bytes(message.body.into()) }
    }
}
