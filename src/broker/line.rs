//! One channel in confirm mode on a connection of its own: the way out for the publisher's thread and for one-shot
//! publishing.

use std::time::Duration;

use amiquip::{Channel, Confirm, ConnectionBlockedNotification, Error, Publish, Return};
use crossbeam_channel::Receiver;

use super::connect::{Link, close};
use super::convert::to_amqp;
use super::deadline::cut_after;
use super::error::{BrokerError, CONNECTION_FORCED, Closed, NO_ANSWER, channel_closed, connection_closed, describe};
use super::outgoing::Outgoing;
use super::socket::wait_for_reader;
use super::window::{Settled, Window};

/// How long the broker may take to open a channel and to put it into confirm mode.
const OPEN_LIMIT: Duration = Duration::from_secs(10);
/// How long closing may take before the socket is cut.
const CLOSE_LIMIT: Duration = Duration::from_secs(1);

/// Unconfirmed bytes, beyond which nothing more is sent. A single larger message still goes out, alone.
const MAX_UNCONFIRMED_BYTES: usize = 8 << 20;

/// A connection that publishes, and whether the broker has asked it to stop. Outlives a channel that the broker closes.
pub(super) struct Wire {
    link: Link,
    notes: Receiver<ConnectionBlockedNotification>,
    blocked: bool,
}

/// A channel in confirm mode. `T` is remembered with each publish.
pub(super) struct Line<T> {
    // Before the wire, as it must be dropped before its connection.
    channel: Channel,
    confirms: Receiver<Confirm>,
    returns: Receiver<Return>,
    window: Window<T>,
    /// The first error of a publish. The library tells why a channel was closed only once, to whoever asks first.
    symptom: Option<Error>,
    /// Whether the broker has confirmed anything.
    useful: bool,
    wire: Wire,
}

/// What is left of a line that fell.
pub(super) enum Fallen {
    /// The broker closed the channel, for this reason; the connection still stands.
    Channel(Closed, Box<Wire>),
    /// The connection is over. The reason is there only if the broker closed it because of something that we sent.
    Connection(BrokerError, Option<Closed>),
}

impl Wire {
    pub(super) fn new(mut link: Link) -> Result<Self, BrokerError> {
        wait_for_reader(&link.socket);
        match link.connection.listen_for_connection_blocked() {
            Ok(notes) => Ok(Self { link, notes, blocked: false }),
            Err(error) => Err(Self::lost(link, &error, false)),
        }
    }

    pub(super) fn host(&self) -> &str {
        &self.link.host
    }

    /// Closes the connection and says why it was lost.
    fn lost(link: Link, symptom: &Error, overdue: bool) -> BrokerError {
        let last = close(link.connection, &link.socket, CLOSE_LIMIT);
        let reason = if overdue { NO_ANSWER.to_owned() } else { describe(last.as_ref().unwrap_or(symptom)) };
        BrokerError::Lost { host: link.host, reason }
    }
}

impl<T> Line<T> {
    /// Opens a channel on the wire and puts it into confirm mode. Blocks for a few round trips.
    pub(super) fn open(mut wire: Wire) -> Result<Self, BrokerError> {
        let connection = &mut wire.link.connection;
        let (opened, overdue) = cut_after(&wire.link.socket, OPEN_LIMIT, || {
            let channel = connection.open_channel(None)?;
            let returns = channel.listen_for_returns()?;
            let confirms = channel.listen_for_publisher_confirms()?;
            channel.enable_publisher_confirms()?;
            Ok((channel, confirms, returns))
        });
        match opened {
            Ok((channel, confirms, returns)) => {
                Ok(Self { channel, confirms, returns, window: Window::new(), symptom: None, useful: false, wire })
            }
            Err(error) => Err(Wire::lost(wire.link, &error, overdue)),
        }
    }

    pub(super) fn wire(&self) -> &Wire {
        &self.wire
    }

    /// Gives each confirm to [`Self::confirmed`]; disconnected once the line has fallen.
    pub(super) fn confirms(&self) -> &Receiver<Confirm> {
        &self.confirms
    }

    /// Gives each note to [`Self::noted`]; disconnected once the connection is over.
    pub(super) fn notes(&self) -> &Receiver<ConnectionBlockedNotification> {
        &self.wire.notes
    }

    /// Whether the broker has asked publishers to stop, which it does when memory or disk run short.
    pub(super) fn is_blocked(&self) -> bool {
        self.wire.blocked
    }

    /// Whether this line has got a message through.
    pub(super) fn is_useful(&self) -> bool {
        self.useful
    }

    /// Publishes that are not confirmed yet.
    pub(super) fn unconfirmed(&self) -> usize {
        self.window.len()
    }

    /// What was published first of those.
    pub(super) fn oldest(&self) -> Option<&T> {
        self.window.oldest()
    }

    /// Whether another publish may go out now, with `most` unconfirmed ones at a time.
    pub(super) fn has_room(&self, most: usize) -> bool {
        !self.wire.blocked && self.window.len() < most && self.window.bytes() < MAX_UNCONFIRMED_BYTES
    }

    /// Sends a message that [`Outgoing::check`] let through. A failure shows as the end of [`Self::confirms`], with the
    /// message among the unconfirmed ones.
    pub(super) fn publish(&mut self, outgoing: Outgoing, item: T) {
        let outgoing = self.window.add(outgoing, item);
        let publish = Publish {
            body: outgoing.body.bytes(),
            routing_key: outgoing.routing_key.clone(),
            mandatory: outgoing.is_mandatory(),
            immediate: false,
            properties: to_amqp(&outgoing.properties),
        };
        let sent = self.channel.basic_publish(outgoing.exchange.as_str(), publish);
        if let Err(error) = sent {
            self.symptom.get_or_insert(error);
        }
    }

    /// What one confirm settles.
    pub(super) fn confirmed(&mut self, confirm: Confirm) -> Vec<Settled<T>> {
        self.useful = true;
        // All returns that came before this confirm are in by now: see `Window`.
        for came in self.returns.try_iter() {
            self.window.returned(&came);
        }
        match confirm {
            Confirm::Ack(what) => self.window.confirmed(what.delivery_tag, what.multiple, true),
            Confirm::Nack(what) => self.window.confirmed(what.delivery_tag, what.multiple, false),
        }
    }

    /// Takes a note of the broker about blocking.
    pub(super) fn noted(&mut self, note: ConnectionBlockedNotification) {
        match note {
            ConnectionBlockedNotification::Blocked(reason) => {
                log::warn!(
                    "RabbitMQ at {} blocks publishers ({reason:?}); copies wait until it has room again",
                    self.wire.host()
                );
                self.wire.blocked = true;
            }
            ConnectionBlockedNotification::Unblocked => {
                log::info!("RabbitMQ at {} lets publishers go on", self.wire.host());
                self.wire.blocked = false;
            }
        }
    }

    /// Called once when [`Self::confirms`] has ended: what was not confirmed, in order, and what is left of the line.
    pub(super) fn fell(self) -> (Vec<(Outgoing, T)>, Fallen) {
        let Self { channel, window, symptom, wire, .. } = self;
        let (closed, _) = cut_after(&wire.link.socket, CLOSE_LIMIT, || channel.close());
        let symptom = symptom.or(closed.err()).unwrap_or(Error::EventLoopDropped);
        let fallen = match channel_closed(&symptom) {
            Some(why) => Fallen::Channel(why, Box::new(wire)),
            None => {
                let Link { connection, socket, host, .. } = wire.link;
                let last = close(connection, &socket, CLOSE_LIMIT).unwrap_or(symptom);
                let why = connection_closed(&last).filter(|why| why.code != CONNECTION_FORCED);
                let reason = describe(&last);
                Fallen::Connection(BrokerError::Lost { host, reason }, why)
            }
        };
        (window.into_unconfirmed().collect(), fallen)
    }

    /// Closes channel and connection in good order, or cuts them after 1 s. What is unconfirmed is forgotten.
    pub(super) fn close(self) {
        let Self { channel, wire, .. } = self;
        let (closed, _) = cut_after(&wire.link.socket, CLOSE_LIMIT, || channel.close());
        if let Err(error) = closed {
            log::debug!("the publishing channel was not closed in order: {}", describe(&error));
        }
        close(wire.link.connection, &wire.link.socket, CLOSE_LIMIT);
    }
}
