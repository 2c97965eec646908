//! One queue of a session: its channel, its consumers, its open tags.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use amiquip::{Channel, Consumer, ConsumerMessage, ConsumerOptions, Delivery, Error, Result};
use crossbeam_channel::{Receiver, TryRecvError};

use super::convert::take_message;
use super::tokens::Tokens;
use crate::task::Message;

/// How long a cancelled consumer may take to say its last word, which is on its way.
const LAST_WORD: Duration = Duration::from_secs(1);

/// Each queue has a channel of its own, so that its prefetch counts alone and its tags run 1, 2, 3 ….
pub(super) struct Lane<'c> {
    /// Name of the queue.
    pub(super) queue: Arc<str>,
    channel: &'c Channel,
    /// The front one is read. A cancelled consumer stays until it is read empty; only the last can be a live one.
    consumers: VecDeque<Consumer<'c>>,
    subscribed: bool,
    tokens: Tokens<Delivery>,
}

/// What a lane's consumer had to say.
#[expect(
    clippy::large_enum_variant,
    reason = "nearly all of them are deliveries, and a box would cost each an allocation"
)]
pub(super) enum Heard<'c> {
    /// A message.
    Delivery(Delivery),
    /// The broker ended this consumer. Dropping it asks the broker once more, which can block.
    Cancelled(Consumer<'c>),
    /// The channel or the connection is over.
    Lost(Error),
}

impl<'c> Lane<'c> {
    pub(super) fn new(queue: &Arc<str>, channel: &'c Channel) -> Self {
        Self { queue: queue.clone(), channel, consumers: VecDeque::new(), subscribed: false, tokens: Tokens::new() }
    }

    pub(super) fn is_subscribed(&self) -> bool {
        self.subscribed
    }

    /// Blocks for two round trips. An error costs the channel.
    pub(super) fn subscribe(&mut self, prefetch: u16) -> Result<()> {
        // Per consumer, not global: quorum queues know no other.
        self.channel.qos(0, prefetch, false)?;
        let consumer = self.channel.basic_consume(&*self.queue, ConsumerOptions::default())?;
        self.consumers.push_back(consumer);
        self.subscribed = true;
        Ok(())
    }

    /// Blocks for one round trip. What was delivered before can still be heard.
    pub(super) fn unsubscribe(&mut self) -> Result<()> {
        match self.consumers.back() {
            Some(consumer) if self.subscribed => {
                self.subscribed = false;
                consumer.cancel()
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Ends all deliveries for good. Blocks for a round trip for each consumer that lives.
    ///
    /// Every consumer is read to its last word, which the library's thread says after the call that cancelled has returned:
    /// had its receiver gone before, that thread would end, and with it the connection and the acks of other queues.
    pub(super) fn end(self) {
        for consumer in &self.consumers {
            // Where the connection is over there is no last word, and the receiver is disconnected.
            let _ = consumer.cancel();
            while let Ok(ConsumerMessage::Delivery(_)) = consumer.receiver().recv_timeout(LAST_WORD) {}
        }
    }

    /// Becomes ready when there is something to hear; `None` while nothing can come.
    pub(super) fn receiver(&self) -> Option<&Receiver<ConsumerMessage>> {
        self.consumers.front().map(Consumer::receiver)
    }

    /// What there is to hear now. Never blocks.
    pub(super) fn hear(&mut self) -> Option<Heard<'c>> {
        loop {
            match self.receiver()?.try_recv() {
                Ok(ConsumerMessage::Delivery(delivery)) => return Some(Heard::Delivery(delivery)),
                Ok(ConsumerMessage::ClientCancelled) => drop(self.consumers.pop_front()),
                Ok(ConsumerMessage::ServerCancelled) => {
                    let ended = self.consumers.pop_front()?;
                    // An old consumer that we cancelled, while the broker did the same, is no news.
                    if self.subscribed && self.consumers.is_empty() {
                        self.subscribed = false;
                        return Some(Heard::Cancelled(ended));
                    }
                }
                Ok(ConsumerMessage::ServerClosedChannel(error) | ConsumerMessage::ServerClosedConnection(error)) => {
                    return Some(Heard::Lost(error));
                }
                Ok(ConsumerMessage::ClientClosedChannel) => {
                    return Some(Heard::Lost(Error::ClientClosedChannel));
                }
                Ok(ConsumerMessage::ClientClosedConnection) => {
                    return Some(Heard::Lost(Error::ClientClosedConnection));
                }
                Err(TryRecvError::Empty) => return None,
                // The last word of a consumer that we cancelled may have been overtaken by its end.
                Err(TryRecvError::Disconnected) if self.is_leftover() => {
                    drop(self.consumers.pop_front());
                }
                Err(TryRecvError::Disconnected) => {
                    return Some(Heard::Lost(Error::EventLoopDropped));
                }
            }
        }
    }

    /// Whether the consumer that is read is one that we cancelled.
    fn is_leftover(&self) -> bool {
        !self.subscribed || self.consumers.len() > 1
    }

    /// Takes a delivery apart: its tag and its message for the job, the rest as the token of the tag.
    pub(super) fn keep(&mut self, mut delivery: Delivery) -> (u64, Message) {
        let tag = delivery.delivery_tag();
        let message = take_message(&mut delivery);
        self.tokens.keep(tag, delivery);
        (tag, message)
    }

    /// Sends an ack without waiting.
    pub(super) fn ack(&mut self, tag: u64, multiple: bool) -> Result<()> {
        let token = if multiple { self.tokens.take_through(tag) } else { self.tokens.take(tag) };
        match token {
            Some(token) if multiple => token.ack_multiple(self.channel),
            Some(token) => token.ack(self.channel),
            None => self.not_open(tag),
        }
    }

    /// Sends a nack that puts the message back, without waiting.
    pub(super) fn hand_back(&mut self, tag: u64) -> Result<()> {
        match self.tokens.take(tag) {
            Some(token) => token.nack(self.channel, true),
            None => self.not_open(tag),
        }
    }

    /// An unknown tag would make the broker close the channel, so nothing is sent.
    fn not_open(&self, tag: u64) -> Result<()> {
        log::error!("internal error: tag {tag} of queue {:?} is settled and not open", self.queue);
        Ok(())
    }
}
