//! A request and its reply, for the command line: RabbitMQ's direct reply-to.
//!
//! The pseudo-queue `amq.rabbitmq.reply-to` is consumed, and the request published, on one channel: the broker puts an
//! address into the request's `reply_to` that leads back to this channel and ends with it. No queue is declared, and a reply
//! that comes too late is dropped by the broker.

use std::fmt;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use amiquip::{
    Channel, Confirm, ConnectionBlockedNotification, Consumer, ConsumerMessage, ConsumerOptions, Delivery, Error,
    Publish, Return,
};
use crossbeam_channel::{Receiver, select};

use super::connect::{Link, close, connect};
use super::convert::{from_amqp, to_amqp};
use super::deadline::cut_after;
use super::error::{BrokerError, NO_ANSWER, channel_closed, describe};
use super::outgoing::Outgoing;
use super::window::unroutable;
use crate::config;
use crate::task::Properties;

/// The name that stands for a channel's own replies.
const REPLY_TO: &str = "amq.rabbitmq.reply-to";

/// How long one question to the broker may take.
const CALL_LIMIT: Duration = Duration::from_secs(10);
/// How long closing may take before the socket is cut. A person waits, and nothing can be lost any more.
const CLOSE_LIMIT: Duration = Duration::from_secs(1);

/// What came back.
#[derive(Debug)]
pub struct Reply {
    /// Its properties and headers.
    pub properties: Properties,
    /// Its body, as it came.
    pub body: Vec<u8>,
}

/// Why there is no reply.
#[derive(Debug)]
pub enum CallError {
    /// There was no connection, or it was lost.
    Broker(BrokerError),
    /// The request can reach no queue, or the broker would not take it: a sentence that says why.
    Refused(String),
    /// The broker did not take the request in time.
    Untaken {
        /// Whether it said that it blocks publishers.
        blocked: bool,
    },
    /// Nobody answered in time.
    Unanswered,
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Broker(error) => error.fmt(f),
            Self::Refused(reason) => f.write_str(reason),
            Self::Untaken { blocked: true } => f.write_str(
                "RabbitMQ blocks publishers: it is short of memory or disk; the request may still be handled",
            ),
            Self::Untaken { blocked: false } => {
                f.write_str("RabbitMQ did not confirm the request in time; it may still be handled")
            }
            Self::Unanswered => f.write_str("nobody answered in time"),
        }
    }
}

impl std::error::Error for CallError {}

/// Publishes a request, mandatory and confirmed, and waits for its reply until `timeout` after that, which is also the time
/// after which the request expires in its queue. Connecting takes its own time before.
///
/// Sets `reply_to`, `correlation_id` and `expiration`; a reply that does not bear that correlation id is not ours. Nothing
/// is tried again.
pub fn call(config: &config::Broker, mut request: Outgoing, timeout: Duration) -> Result<Reply, CallError> {
    let correlation_id = uuid::Uuid::now_v7().to_string();
    request.properties.reply_to = Some(REPLY_TO.to_owned());
    request.properties.correlation_id = Some(correlation_id.clone());
    request.properties.expiration = Some(timeout.as_millis().max(1).to_string());
    request.check().map_err(CallError::Refused)?;

    let Link { mut connection, socket, host, .. } =
        connect(config, fastrand::usize(..), "call").map_err(CallError::Broker)?;
    let (opened, overdue) = cut_after(&socket, CALL_LIMIT, || {
        let notes = connection.listen_for_connection_blocked()?;
        Ok((connection.open_channel(None)?, notes))
    });
    let ended = match opened {
        Ok((channel, notes)) => {
            let ended = exchange(&channel, &notes, &socket, &request, &correlation_id, timeout);
            if let (Err(error), _) = cut_after(&socket, CLOSE_LIMIT, || channel.close()) {
                log::debug!("the channel of the request was not closed in order: {}", describe(&error));
            }
            ended
        }
        Err(error) => Err(End::Lost(error, overdue)),
    };
    let last = close(connection, &socket, CLOSE_LIMIT);
    ended.map_err(|end| end.tell(host, last.as_ref()))
}

/// How an exchange ended without a reply.
enum End {
    /// As the caller is to be told.
    Told(CallError),
    /// By an error of the library; whether a call had to be cut.
    Lost(Error, bool),
}

impl End {
    /// `last` is what ended the connection, where it was over before it was closed.
    fn tell(self, host: String, last: Option<&Error>) -> CallError {
        match self {
            Self::Told(error) => error,
            Self::Lost(_, true) => CallError::Broker(BrokerError::Lost { host, reason: NO_ANSWER.to_owned() }),
            Self::Lost(error, false) => match channel_closed(&error) {
                Some(why) => CallError::Refused(why.text),
                None => CallError::Broker(BrokerError::Lost { host, reason: describe(last.unwrap_or(&error)) }),
            },
        }
    }
}

fn exchange(
    channel: &Channel,
    notes: &Receiver<ConnectionBlockedNotification>,
    socket: &TcpStream,
    request: &Outgoing,
    correlation_id: &str,
    timeout: Duration,
) -> Result<Reply, End> {
    let (opened, overdue) = cut_after(socket, CALL_LIMIT, || {
        let (returns, confirms) = (channel.listen_for_returns()?, channel.listen_for_publisher_confirms()?);
        channel.enable_publisher_confirms()?;
        let options = ConsumerOptions { no_ack: true, ..ConsumerOptions::default() };
        Ok((channel.basic_consume(REPLY_TO, options)?, returns, confirms))
    });
    let (consumer, returns, confirms) = opened.map_err(|error| End::Lost(error, overdue))?;
    let waiting = Waiting { consumer: &consumer, returns, confirms, notes, request };
    let ended = waiting.publish(channel).and_then(|()| waiting.wait(correlation_id, Instant::now() + timeout));
    cut_after(socket, CLOSE_LIMIT, || cancel(&consumer));
    ended
}

/// Ends a consumer and hears it out: its last word comes after the call that cancelled has returned, and had its receiver
/// gone before, the library's thread would end, and the connection with it, which the broker's log would call a failure.
fn cancel(consumer: &Consumer<'_>) {
    if consumer.cancel().is_ok() {
        while let Ok(ConsumerMessage::Delivery(late)) = consumer.receiver().recv_timeout(CLOSE_LIMIT) {
            log::debug!("a reply came too late: {:?}", late.properties.correlation_id());
        }
    }
}

/// A request under way, and where word of it comes from.
struct Waiting<'w, 'c> {
    consumer: &'w Consumer<'c>,
    returns: Receiver<Return>,
    confirms: Receiver<Confirm>,
    notes: &'w Receiver<ConnectionBlockedNotification>,
    request: &'w Outgoing,
}

impl Waiting<'_, '_> {
    fn publish(&self, channel: &Channel) -> Result<(), End> {
        let publish = Publish {
            body: self.request.body.bytes(),
            routing_key: self.request.routing_key.clone(),
            mandatory: true,
            immediate: false,
            properties: to_amqp(&self.request.properties),
        };
        channel.basic_publish(self.request.exchange.as_str(), publish).map_err(|error| End::Lost(error, false))
    }

    fn wait(&self, correlation_id: &str, deadline: Instant) -> Result<Reply, End> {
        let (mut taken, mut blocked) = (false, false);
        loop {
            select! {
                recv(self.consumer.receiver()) -> heard => {
                    if let Some(reply) = reply_in(heard.ok(), correlation_id)? {
                        return Ok(reply);
                    }
                }
                recv(self.returns) -> came => match came {
                    Ok(came) => return Err(refused(unroutable(&came))),
                    Err(_) => return self.read_last_words(correlation_id),
                },
                recv(self.confirms) -> confirm => match confirm {
                    Ok(Confirm::Ack(_)) => taken = true,
                    Ok(Confirm::Nack(_)) => return Err(refused(self.not_taken())),
                    Err(_) => return self.read_last_words(correlation_id),
                },
                recv(self.notes) -> note => match note {
                    Ok(note) => blocked = matches!(note, ConnectionBlockedNotification::Blocked(_)),
                    Err(_) => return self.read_last_words(correlation_id),
                },
                default(deadline.saturating_duration_since(Instant::now())) => {
                    let told = if taken { CallError::Unanswered } else { CallError::Untaken { blocked } };
                    return Err(End::Told(told));
                }
            }
        }
    }

    /// The channel is over: what the consumer still has is the reply, or the reason.
    fn read_last_words(&self, correlation_id: &str) -> Result<Reply, End> {
        loop {
            let heard = self.consumer.receiver().recv_timeout(CLOSE_LIMIT).ok();
            if let Some(reply) = reply_in(heard, correlation_id)? {
                return Ok(reply);
            }
        }
    }

    fn not_taken(&self) -> String {
        let Outgoing { exchange, routing_key, .. } = self.request;
        format!(
            "the broker would not take the request for exchange {exchange:?} and routing key {routing_key:?} (negative \
             confirm): a queue may be full"
        )
    }
}

fn refused(reason: String) -> End {
    End::Told(CallError::Refused(reason))
}

/// The reply, if that is what a consumer's word is; an error once no other will come.
fn reply_in(heard: Option<ConsumerMessage>, correlation_id: &str) -> Result<Option<Reply>, End> {
    let error = match heard {
        Some(ConsumerMessage::Delivery(Delivery { properties, body, .. })) => {
            let ours = properties.correlation_id().as_deref() == Some(correlation_id);
            return Ok(ours.then(|| Reply { properties: from_amqp(&properties), body }));
        }
        Some(ConsumerMessage::ServerClosedChannel(error) | ConsumerMessage::ServerClosedConnection(error)) => error,
        Some(
            ConsumerMessage::ClientCancelled
            | ConsumerMessage::ServerCancelled
            | ConsumerMessage::ClientClosedChannel
            | ConsumerMessage::ClientClosedConnection,
        )
        | None => Error::EventLoopDropped,
    };
    Err(End::Lost(error, false))
}
