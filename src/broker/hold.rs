//! Reading a queue without taking anything from it: for the command line's work on dead letters.
//!
//! Every message is delivered on one channel and stays unacknowledged, so that RabbitMQ puts all of them back in their
//! places when the channel is done, whatever becomes of this process. What is to leave the queue is acknowledged one by
//! one; the rest is handed back at the end with a single nack, which no broker counts as a failed delivery.
//!
//! A prefetch bounds what is unacknowledged, and here that is everything. So the queue is read in windows: a consumer with
//! a prefetch of the window's size gets exactly that many, is cancelled, and the next consumer gets the next ones. What
//! waits in our memory is one window; what is unacknowledged costs the broker, not us.

use std::collections::VecDeque;
use std::mem;
use std::thread;
use std::time::{Duration, Instant};

use amiquip::{Channel, Consumer, ConsumerMessage, ConsumerOptions, Delivery, Error};
use crossbeam_channel::RecvTimeoutError;

use super::connect::{Link, close, connect};
use super::convert::take_message;
use super::deadline::cut_after;
use super::error::{BrokerError, NO_ANSWER, NOT_FOUND, channel_closed, describe};
use crate::config;
use crate::task::Message;

/// How long one question to the broker may take.
const CALL_LIMIT: Duration = Duration::from_secs(10);
/// How long closing may take. It waits for all acks and nacks before it, which can be many.
const CLOSE_LIMIT: Duration = Duration::from_secs(30);
/// How long nothing may come before the broker is asked whether anything is left.
const QUIET: Duration = Duration::from_millis(200);
/// How long nothing may come while messages are left.
const STALL: Duration = Duration::from_secs(30);

/// How often a count is looked at that may still grow.
const LOOK: Duration = Duration::from_millis(20);
/// How long a count may stand still before it is taken for the last word.
const STILL: Duration = Duration::from_secs(1);

/// Messages in the first window: their sizes are not known yet.
const FIRST_WINDOW: usize = 8;
/// Messages in the largest window.
const LARGEST_WINDOW: usize = 1000;
/// Bytes of bodies that a window aims at.
const WINDOW_BYTES: usize = 8 << 20;

/// A queue under reading; see [`with_hold`].
pub struct Hold<'c> {
    queue: &'c str,
    host: &'c str,
    link: &'c std::net::TcpStream,
    channel: &'c Channel,
    probe: &'c Channel,
    consumer: Option<Consumer<'c>>,
    /// Of the window: its size, how many are still to come, the largest body so far.
    window: usize,
    coming: usize,
    largest: usize,
    /// What came beyond the window, because an ack made room for it.
    early: VecDeque<Delivery>,
    /// The queue turned out to be empty: what the cancelled consumer still has is the rest.
    ending: bool,
    /// Messages in the queue at the beginning, those of them that are read, those that are not read yet.
    count: u64,
    lay: u64,
    left: u64,
    acked: u64,
    since: Instant,
    /// The youngest message that stays in the queue.
    youngest_left: Option<Delivery>,
}

/// One message of the queue, unacknowledged.
pub struct Held {
    /// The message.
    pub message: Message,
    /// To be given to [`Hold::ack`] or [`Hold::leave`].
    pub token: Token,
}

/// What acknowledging one message takes. Dropped, the message goes back to its queue when the hold ends.
#[derive(Debug)]
pub struct Token(Delivery);

/// Connects and lends the queue to `body`, from its oldest message to the last one that lay there at this moment, or to
/// the `most`-th where that is less. Afterwards everything that was not acknowledged is back in its place.
///
/// A queue that does not exist is a [`BrokerError::Topology`].
pub fn with_hold<R>(
    config: &config::Broker,
    queue: &str,
    most: Option<u64>,
    body: impl FnOnce(&mut Hold<'_>) -> R,
) -> Result<R, BrokerError> {
    let Link { mut connection, socket, host, .. } = connect(config, fastrand::usize(..), &format!("reading:{queue}"))?;
    let (opened, overdue) = cut_after(&socket, CALL_LIMIT, || {
        let (channel, probe) = (connection.open_channel(None)?, connection.open_channel(None)?);
        let count = count_settled(&probe, queue)?;
        Ok((channel, probe, count))
    });
    let (channel, probe, count) = match opened {
        Ok(opened) => opened,
        Err(error) => {
            let told = translate(&error, overdue, &host, queue);
            close(connection, &socket, CALL_LIMIT);
            return Err(told);
        }
    };
    let lay = most.map_or(count, |most| most.min(count));
    let mut hold = Hold {
        queue,
        host: &host,
        link: &socket,
        channel: &channel,
        probe: &probe,
        consumer: None,
        window: FIRST_WINDOW,
        coming: 0,
        largest: 0,
        early: VecDeque::new(),
        ending: false,
        count,
        lay,
        left: lay,
        acked: 0,
        since: Instant::now(),
        youngest_left: None,
    };
    let result = body(&mut hold);
    let expected = hold.release();
    let (closed, _) = cut_after(&socket, CLOSE_LIMIT, || {
        await_return(&probe, queue, expected)?;
        drop(probe);
        // Waits until the broker has taken all acks before it.
        channel.close()
    });
    if let Err(error) = closed {
        log::debug!("the channel of queue {queue:?} was not closed in order: {}", describe(&error));
    }
    close(connection, &socket, CALL_LIMIT);
    Ok(result)
}

impl<'c> Hold<'c> {
    /// How many messages are read at most: those that lay there when the reading began.
    pub fn lay(&self) -> u64 {
        self.lay
    }

    /// How many lay there, read or not.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// How long the oldest of them has been unacknowledged. RabbitMQ closes a channel for that after 30 minutes.
    pub fn age(&self) -> Duration {
        self.since.elapsed()
    }

    /// The next message, in the order of the queue; `None` after the last.
    pub fn next(&mut self) -> Result<Option<Held>, BrokerError> {
        if self.left == 0 {
            return Ok(None);
        }
        let Some(mut delivery) = self.take_next()? else {
            self.left = 0;
            return Ok(None);
        };
        self.left -= 1;
        let message = take_message(&mut delivery);
        Ok(Some(Held { message, token: Token(delivery) }))
    }

    /// Takes one message out of the queue. Sent without waiting; the end of [`with_hold`] waits for it.
    pub fn ack(&mut self, token: Token) -> Result<(), BrokerError> {
        self.acked += 1;
        token.0.ack(self.channel).map_err(|error| self.failed(&error, false))
    }

    /// Takes this message out of the queue and all that were read before it. The caller has left none of them, and
    /// acknowledged none.
    pub fn ack_through(&mut self, token: Token) -> Result<(), BrokerError> {
        // Tags of a channel count from 1, and this is the first acknowledgement on it.
        self.acked = token.0.delivery_tag();
        token.0.ack_multiple(self.channel).map_err(|error| self.failed(&error, false))
    }

    /// Says that this message stays in its queue.
    pub fn leave(&mut self, token: Token) {
        let younger = self.youngest_left.as_ref().is_none_or(|known| known.delivery_tag() < token.0.delivery_tag());
        if younger {
            self.youngest_left = Some(token.0);
        }
    }

    fn take_next(&mut self) -> Result<Option<Delivery>, BrokerError> {
        if let Some(early) = self.early.pop_front() {
            return Ok(Some(early));
        }
        if self.consumer.is_none() {
            self.open_window()?;
        }
        let Some(delivery) = self.receive()? else { return Ok(None) };
        self.coming -= 1;
        self.largest = self.largest.max(delivery.body.len());
        if self.coming == 0 {
            self.close_window()?;
        }
        Ok(Some(delivery))
    }

    fn open_window(&mut self) -> Result<(), BrokerError> {
        let size = self.window.min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let (channel, queue) = (self.channel, self.queue);
        let (opened, overdue) = cut_after(self.link, CALL_LIMIT, || {
            channel.qos(0, u16::try_from(size).unwrap_or(u16::MAX), false)?;
            channel.basic_consume(queue, ConsumerOptions::default())
        });
        self.consumer = Some(opened.map_err(|error| self.failed(&error, overdue))?);
        (self.coming, self.largest) = (size, 0);
        Ok(())
    }

    fn close_window(&mut self) -> Result<(), BrokerError> {
        self.cancel()?;
        let consumer = self.consumer.take();
        self.early.extend(consumer.iter().flat_map(unread));
        self.window = (self.window * 4).min(WINDOW_BYTES / self.largest.max(1)).clamp(1, LARGEST_WINDOW);
        Ok(())
    }

    /// Ends the deliveries; what came before can still be received.
    fn cancel(&self) -> Result<(), BrokerError> {
        let Some(consumer) = &self.consumer else { return Ok(()) };
        let (cancelled, overdue) = cut_after(self.link, CALL_LIMIT, || consumer.cancel());
        cancelled.map_err(|error| self.failed(&error, overdue))
    }

    /// The next delivery of the window; `None` where the queue has fewer than it had at the beginning: its messages
    /// expired, or somebody else took them.
    fn receive(&mut self) -> Result<Option<Delivery>, BrokerError> {
        let begun = Instant::now();
        loop {
            let Some(consumer) = &self.consumer else { return Ok(None) };
            let wait = if self.ending { CALL_LIMIT } else { QUIET };
            match consumer.receiver().recv_timeout(wait) {
                Ok(ConsumerMessage::Delivery(delivery)) => return Ok(Some(delivery)),
                Ok(ConsumerMessage::ClientCancelled) => return Ok(None),
                Ok(ConsumerMessage::ServerCancelled) => {
                    return Err(self.topology(format!("queue {:?} was deleted while it was read", self.queue)));
                }
                Ok(ConsumerMessage::ServerClosedChannel(error) | ConsumerMessage::ServerClosedConnection(error)) => {
                    return Err(self.failed(&error, false));
                }
                Ok(ConsumerMessage::ClientClosedChannel | ConsumerMessage::ClientClosedConnection)
                | Err(RecvTimeoutError::Disconnected) => return Err(self.failed(&Error::EventLoopDropped, false)),
                Err(RecvTimeoutError::Timeout) if self.ending => return Ok(None),
                Err(RecvTimeoutError::Timeout) => {
                    if self.ready()? == 0 {
                        self.ending = true;
                        self.cancel()?;
                    } else if begun.elapsed() >= STALL {
                        return Err(self.topology(format!("queue {:?} gives nothing for {STALL:?}", self.queue)));
                    }
                }
            }
        }
    }

    fn ready(&self) -> Result<u64, BrokerError> {
        let (asked, overdue) = cut_after(self.link, CALL_LIMIT, || look(self.probe, self.queue));
        asked.map_err(|error| self.failed(&error, overdue))
    }

    /// Hands everything back that was not acknowledged, and says how many messages the queue must have then. A failure
    /// changes nothing: the end of the channel does the same.
    fn release(mut self) -> u64 {
        if self.cancel().is_err() {
            return 0;
        }
        let consumer = self.consumer.take();
        let unread = mem::take(&mut self.early).into_iter().chain(consumer.iter().flat_map(unread));
        unread.for_each(|delivery| self.leave(Token(delivery)));
        let nacked = self.youngest_left.take().map(|delivery| delivery.nack_multiple(self.channel, true));
        if let Some(Err(error)) = nacked {
            log::debug!("nothing was handed back by a nack: {}", describe(&error));
        }
        self.count.saturating_sub(self.acked)
    }

    fn failed(&self, error: &Error, overdue: bool) -> BrokerError {
        translate(error, overdue, self.host, self.queue)
    }

    fn topology(&self, reason: String) -> BrokerError {
        BrokerError::Topology { host: self.host.to_owned(), reason }
    }
}

/// What a cancelled consumer has received and nobody has read.
///
/// It is read to its last word, which the library's thread says after the call that cancelled has returned: had its
/// receiver gone before, that thread would end, and the connection with it.
fn unread<'r>(consumer: &'r Consumer<'_>) -> impl Iterator<Item = Delivery> + use<'r> {
    std::iter::from_fn(|| match consumer.receiver().recv_timeout(CALL_LIMIT) {
        Ok(ConsumerMessage::Delivery(delivery)) => Some(delivery),
        Ok(_) | Err(_) => None,
    })
}

/// How many messages are ready in a queue, once that no longer grows. RabbitMQ answers this question before the work that
/// waits for the queue, so whatever another reader has just handed back comes in bit by bit.
fn count_settled(probe: &Channel, queue: &str) -> amiquip::Result<u64> {
    let mut known = look(probe, queue)?;
    // A queue that is published to may grow for ever; what came since the beginning is not waited for.
    for _ in 0..10 {
        thread::sleep(LOOK);
        let now = look(probe, queue)?;
        if now == known {
            break;
        }
        known = now;
    }
    Ok(known)
}

/// Waits until a queue has so many messages, for whoever looks at it next. Others may take them meanwhile, so a count that
/// stands still is enough.
fn await_return(probe: &Channel, queue: &str, expected: u64) -> amiquip::Result<()> {
    let (mut known, mut since) = (look(probe, queue)?, Instant::now());
    while known < expected && since.elapsed() < STILL {
        thread::sleep(LOOK);
        let now = look(probe, queue)?;
        if now != known {
            (known, since) = (now, Instant::now());
        }
    }
    Ok(())
}

fn look(probe: &Channel, queue: &str) -> amiquip::Result<u64> {
    Ok(probe.queue_declare_passive(queue)?.declared_message_count().unwrap_or(0).into())
}

fn translate(error: &Error, overdue: bool, host: &str, queue: &str) -> BrokerError {
    let host = host.to_owned();
    match channel_closed(error) {
        _ if overdue => BrokerError::Lost { host, reason: NO_ANSWER.to_owned() },
        Some(why) if why.code == NOT_FOUND => {
            BrokerError::Topology { host, reason: format!("queue {queue:?} does not exist") }
        }
        Some(why) => BrokerError::Topology { host, reason: format!("cannot read queue {queue:?}: {}", why.text) },
        None => BrokerError::Lost { host, reason: describe(error) },
    }
}
