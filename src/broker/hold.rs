//! Reading a queue without taking anything from it: for the command line's work on dead letters.
//!
//! Every message is delivered on one channel and stays unacknowledged, so that RabbitMQ puts all of them back in their
//! places when the channel is done, whatever becomes of this process. What is to leave the queue is acknowledged one by
//! one; the rest is handed back at the end with a single nack, which no broker counts as a failed delivery.
//!
//! A prefetch bounds what is unacknowledged, and here that is everything. So the queue is read in windows: a consumer with
//! a prefetch of the window's size gets exactly that many, is cancelled, and the next consumer gets the next ones. What
//! waits in our memory is one window; what is unacknowledged costs the broker, not us.

use std::mem;
use std::time::{Duration, Instant};

use amiquip::{AmqpProperties, Channel, Consumer, ConsumerMessage, ConsumerOptions, Delivery, Error};
use crossbeam_channel::{RecvTimeoutError, TryRecvError};

use super::connect::{Link, close, connect};
use super::convert::from_amqp;
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
    /// The queue turned out to be empty: what the cancelled consumer still has is the rest.
    ending: bool,
    lay: u64,
    left: u64,
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
    let Link { mut connection, socket, host, .. } = connect(config, fastrand::usize(..))?;
    let (opened, overdue) = cut_after(&socket, CALL_LIMIT, || {
        let (channel, probe) = (connection.open_channel(None)?, connection.open_channel(None)?);
        let count = probe.queue_declare_passive(queue)?.declared_message_count().unwrap_or(0);
        Ok((channel, probe, u64::from(count)))
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
        ending: false,
        lay,
        left: lay,
        since: Instant::now(),
        youngest_left: None,
    };
    let result = body(&mut hold);
    hold.release();
    let (closed, _) = cut_after(&socket, CLOSE_LIMIT, || {
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

    /// How long the oldest of them has been unacknowledged. RabbitMQ closes a channel for that after 30 minutes.
    pub fn age(&self) -> Duration {
        self.since.elapsed()
    }

    /// The next message, in the order of the queue; `None` after the last.
    pub fn next(&mut self) -> Result<Option<Held>, BrokerError> {
        if self.consumer.is_none() {
            if self.left == 0 {
                return Ok(None);
            }
            self.open_window()?;
        }
        let Some(mut delivery) = self.receive()? else {
            self.left = 0;
            self.consumer = None;
            return Ok(None);
        };
        self.left -= 1;
        self.coming -= 1;
        self.largest = self.largest.max(delivery.body.len());
        if self.coming == 0 {
            self.close_window()?;
        }
        let message = Message {
            exchange: mem::take(&mut delivery.exchange),
            routing_key: mem::take(&mut delivery.routing_key),
            redelivered: delivery.redelivered,
            properties: from_amqp(&delivery.properties),
            body: mem::take(&mut delivery.body),
        };
        delivery.properties = AmqpProperties::default();
        Ok(Some(Held { message, token: Token(delivery) }))
    }

    /// Takes one message out of the queue. Sent without waiting; the end of [`with_hold`] waits for it.
    pub fn ack(&mut self, token: Token) -> Result<(), BrokerError> {
        token.0.ack(self.channel).map_err(|error| self.failed(&error, false))
    }

    /// Takes this message out of the queue and all that were read before it. The caller has left none of them.
    pub fn ack_through(&mut self, token: Token) -> Result<(), BrokerError> {
        token.0.ack_multiple(self.channel).map_err(|error| self.failed(&error, false))
    }

    /// Says that this message stays in its queue.
    pub fn leave(&mut self, token: Token) {
        let younger = self.youngest_left.as_ref().is_none_or(|known| known.delivery_tag() < token.0.delivery_tag());
        if younger {
            self.youngest_left = Some(token.0);
        }
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
        self.consumer = None;
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
            let wait = if self.ending { Duration::ZERO } else { QUIET };
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

    fn ready(&self) -> Result<u32, BrokerError> {
        let (channel, queue) = (self.probe, self.queue);
        let (asked, overdue) =
            cut_after(self.link, CALL_LIMIT, || Ok(channel.queue_declare_passive(queue)?.declared_message_count()));
        Ok(asked.map_err(|error| self.failed(&error, overdue))?.unwrap_or(0))
    }

    /// Hands everything back that was not acknowledged. A failure changes nothing: the end of the channel does the same.
    fn release(mut self) {
        if self.cancel().is_err() {
            return;
        }
        if let Some(consumer) = self.consumer.take() {
            loop {
                match consumer.receiver().try_recv() {
                    Ok(ConsumerMessage::Delivery(delivery)) => self.leave(Token(delivery)),
                    Ok(_) | Err(TryRecvError::Empty | TryRecvError::Disconnected) => break,
                }
            }
        }
        let nacked = self.youngest_left.take().map(|delivery| delivery.nack_multiple(self.channel, true));
        if let Some(Err(error)) = nacked {
            log::debug!("nothing was handed back by a nack: {}", describe(&error));
        }
    }

    fn failed(&self, error: &Error, overdue: bool) -> BrokerError {
        translate(error, overdue, self.host, self.queue)
    }

    fn topology(&self, reason: String) -> BrokerError {
        BrokerError::Topology { host: self.host.to_owned(), reason }
    }
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
