//! The consuming side of one connection: deliveries in, acknowledgements out.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use amiquip::{Channel, Connection, ConnectionBlockedNotification, Error};
use crossbeam_channel::{Receiver, Select, TryRecvError};

use super::connect::{Link, close};
use super::deadline::cut_after;
use super::declare::{self, Trouble};
use super::error::{
    BrokerError, CONNECTION_FORCED, NO_ANSWER, NOT_FOUND, PRECONDITION_FAILED, channel_closed, connection_closed,
    describe,
};
use super::lane::{Heard, Lane};
use crate::config;
use crate::policy::topology::Step;
use crate::task::{DeliveryTag, Message, QueueIndex};

/// How long one question to the broker may take before the connection counts as lost.
const CALL_LIMIT: Duration = Duration::from_secs(10);
/// The same for a whole topology, which can be some hundred questions on a first start.
const DECLARE_LIMIT: Duration = Duration::from_secs(20);
/// How long closing may take before the socket is cut.
const CLOSE_LIMIT: Duration = Duration::from_secs(2);

/// What a queue of the session had to say.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "nearly all of them are arrivals, and a box would cost each an allocation"
)]
pub enum Incoming {
    /// A message, unacknowledged until its tag is given to [`Session::ack`] or [`Session::hand_back`].
    Arrival {
        /// Names this delivery.
        tag: DeliveryTag,
        /// The message, moved out of it.
        message: Message,
    },
    /// The broker ended the consumer: the queue was deleted, or its leader moved. The session lives on; subscribe again,
    /// with backoff. The queue's open tags may still be acknowledged, in vain where the queue is gone.
    Cancelled(QueueIndex),
    /// The session is over. Nothing else follows.
    Lost(BrokerError),
}

/// What a queue held at the moment of asking.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// Messages that wait for a consumer; not those that are delivered and unacknowledged.
    pub ready: u32,
    /// Consumers on all connections.
    pub consumers: u32,
}

impl Counts {
    /// Asks the broker with a passive declaration, which takes no right.
    pub(super) fn ask(channel: &Channel, queue: &str) -> Result<Self, Error> {
        let found = channel.queue_declare_passive(queue)?;
        Ok(Self {
            ready: found.declared_message_count().unwrap_or(0),
            consumers: found.declared_consumer_count().unwrap_or(0),
        })
    }
}

/// Opens a channel for each queue and lends the session to `body`. Nothing is declared or consumed yet.
///
/// `number` goes into each delivery tag; the caller gives every session of a job a new one. Afterwards consumers are
/// cancelled and channels and connection closed, in good order, so that acks which were sent before have reached the
/// broker; if that takes longer than 2 s, the socket is cut. Unacknowledged messages go back to their queues.
pub fn with_session<R>(
    link: Link,
    number: u64,
    queues: &[config::Queue],
    body: impl FnOnce(&mut Session<'_>) -> R,
) -> Result<R, BrokerError> {
    let Link { mut connection, socket, host, vhost, server, tls, certificate: _, frame_max: _ } = link;
    let (opened, overdue) = cut_after(&socket, CALL_LIMIT, || {
        let alive = connection.listen_for_connection_blocked()?;
        let channels: Result<Vec<_>, Error> = queues.iter().map(|_| connection.open_channel(None)).collect();
        Ok((channels?, alive))
    });
    let (channels, alive) = match opened {
        Ok(opened) => opened,
        Err(error) => {
            let last = close(connection, &socket, CLOSE_LIMIT).unwrap_or(error);
            let reason = if overdue { NO_ANSWER.to_owned() } else { describe(&last) };
            return Err(BrokerError::Lost { host, reason });
        }
    };
    let lanes = queues.iter().zip(&channels).map(|(queue, channel)| Lane::new(&queue.name, channel));
    let mut session = Session {
        lanes: lanes.collect(),
        probe: None,
        alive,
        connection: Some(connection),
        socket,
        lost: None,
        number,
        host,
        vhost,
        server,
        tls,
    };
    let result = body(&mut session);
    let end = Instant::now() + CLOSE_LIMIT;
    let left = || end.saturating_duration_since(Instant::now());
    let (connection, socket) = session.end(left());
    // Before the connection, because its closing would overtake acks that still wait in the library.
    cut_after(&socket, left(), || drop(channels));
    if let Some(connection) = connection {
        close(connection, &socket, left());
    }
    Ok(result)
}

/// One connection of one job, for as long as it lasts. Owned by the job's thread.
///
/// After an error other than [`BrokerError::Topology`] the session is over: everything that follows fails with the same
/// error, and the caller leaves the closure of [`with_session`].
pub struct Session<'c> {
    // The order of these three is that in which they must be dropped when a panic unwinds.
    lanes: Vec<Lane<'c>>,
    probe: Option<Channel>,
    connection: Option<Connection>,
    /// Disconnected when the library's thread has ended or is about to. What comes through it does not matter here: a
    /// broker that blocks publishers goes on delivering to this connection.
    alive: Receiver<ConnectionBlockedNotification>,
    socket: TcpStream,
    lost: Option<BrokerError>,
    number: u64,
    host: String,
    vhost: String,
    server: String,
    tls: Option<&'static str>,
}

impl Session<'_> {
    /// `host:port` of the broker.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// What the broker calls itself, such as `RabbitMQ 3.10.8`.
    pub fn server(&self) -> &str {
        &self.server
    }

    /// The version of TLS, such as `TLSv1.3`; `None`: the connection is not encrypted.
    pub fn tls(&self) -> Option<&'static str> {
        self.tls
    }

    /// The virtual host.
    pub fn vhost(&self) -> &str {
        &self.vhost
    }

    /// Makes the topology exist: see [`Step`] for what is looked up and what is created.
    ///
    /// Takes some hundred round trips where everything is missing, and otherwise one for each work queue, dead-letter queue
    /// and configured exchange, and two more.
    pub fn declare(&mut self, steps: &[Step]) -> Result<(), BrokerError> {
        self.check_lost()?;
        let Some(connection) = &mut self.connection else {
            return Ok(());
        };
        let (declared, overdue) = cut_after(&self.socket, DECLARE_LIMIT, || declare::declare(connection, steps));
        let error = match declared {
            Ok(()) => return Ok(()),
            Err(Trouble::Missing(reason)) => return Err(self.topology(reason)),
            Err(Trouble::Broker(error)) => error,
        };
        // An exchange of an unknown type costs the whole connection.
        let hung_up = || connection_closed(&error).filter(|why| why.code != CONNECTION_FORCED);
        match channel_closed(&error).or_else(hung_up) {
            Some(why) => {
                let hint = match why.code {
                    PRECONDITION_FAILED => {
                        "; the names warrend.delay.* are warrend's own: delete what has them with other arguments, or set \
                         broker.delay_queues = \"classic\" for a broker without quorum queues"
                    }
                    _ => "",
                };
                let text = why.text;
                Err(self.topology(format!("cannot declare what the job needs: {text}{hint}")))
            }
            None => Err(self.lose(&error, overdue)),
        }
    }

    /// Starts the deliveries of a queue, at most `prefetch` of them unacknowledged at a time. A second call changes
    /// nothing. A queue that does not exist is a [`BrokerError::Topology`].
    pub fn subscribe(&mut self, queue: QueueIndex, prefetch: u16) -> Result<(), BrokerError> {
        self.check_lost()?;
        if self.is_subscribed(queue) {
            return Ok(());
        }
        // Consuming from a missing queue would cost the channel, and with it the session, so a probe goes first.
        let name = self.lanes[queue].queue.clone();
        if self.counts(&name)?.is_none() {
            return Err(self.topology(format!("queue {name:?} does not exist")));
        }
        let lane = &mut self.lanes[queue];
        let (subscribed, overdue) = cut_after(&self.socket, CALL_LIMIT, || lane.subscribe(prefetch));
        subscribed.map_err(|error| self.lose(&error, overdue))
    }

    /// Ends the deliveries of a queue. What came before the broker's confirmation can still be read by [`Self::next`], and
    /// all open tags stay valid.
    pub fn unsubscribe(&mut self, queue: QueueIndex) -> Result<(), BrokerError> {
        self.check_lost()?;
        let lane = &mut self.lanes[queue];
        let (cancelled, overdue) = cut_after(&self.socket, CALL_LIMIT, || lane.unsubscribe());
        cancelled.map_err(|error| self.lose(&error, overdue))
    }

    /// Whether the queue's deliveries are running.
    pub fn is_subscribed(&self, queue: QueueIndex) -> bool {
        self.lanes[queue].is_subscribed()
    }

    /// Adds to `select` everything that makes [`Self::next`] worth calling. When one of them becomes ready, call `next` for
    /// every queue until it gives `None`.
    pub fn watch<'s>(&'s self, select: &mut Select<'s>) {
        for receiver in self.lanes.iter().filter_map(Lane::receiver) {
            select.recv(receiver);
        }
        select.recv(&self.alive);
    }

    /// What a queue has to say next; `None` when there is nothing now. Never blocks on deliveries; the end of a consumer
    /// costs one round trip.
    ///
    /// Once it gave [`Incoming::Lost`], every further call gives it again.
    pub fn next(&mut self, queue: QueueIndex) -> Option<Incoming> {
        if let Some(error) = &self.lost {
            return Some(Incoming::Lost(error.clone()));
        }
        match self.lanes[queue].hear() {
            Some(Heard::Delivery(delivery)) => {
                let (tag, message) = self.lanes[queue].keep(delivery);
                let tag = DeliveryTag { session: self.number, queue, tag };
                Some(Incoming::Arrival { tag, message })
            }
            Some(Heard::Cancelled(consumer)) => {
                cut_after(&self.socket, CALL_LIMIT, || drop(consumer));
                Some(Incoming::Cancelled(queue))
            }
            Some(Heard::Lost(error)) => Some(Incoming::Lost(self.lose(&error, false))),
            None => self.check_alive().map(Incoming::Lost),
        }
    }

    /// Acknowledges a delivery, or with `multiple` all open ones of its channel up to and including it. Sent without
    /// waiting; a failure means that the session is lost and the broker delivers again.
    pub fn ack(&mut self, tag: DeliveryTag, multiple: bool) -> Result<(), BrokerError> {
        self.release(tag, |lane| lane.ack(tag.tag, multiple))
    }

    /// Gives a delivery back to its queue for anybody. As a nack, which no broker counts as a failed delivery, where a
    /// reject counts from RabbitMQ 4.3 on.
    pub fn hand_back(&mut self, tag: DeliveryTag) -> Result<(), BrokerError> {
        self.release(tag, |lane| lane.hand_back(tag.tag))
    }

    /// What the broker counts for any queue, ours or not; `None` if it does not exist.
    pub fn counts(&mut self, queue: &str) -> Result<Option<Counts>, BrokerError> {
        self.check_lost()?;
        let (asked, overdue) = self.look(&[queue]);
        asked.into_iter().next().map_or(Ok(None), |asked| self.counted(queue, asked, overdue))
    }

    /// The same for several queues in one go; `None` also for one that cannot be looked at.
    pub fn counts_of(&mut self, queues: &[&str]) -> Vec<Option<Counts>> {
        if self.lost.is_some() {
            return vec![None; queues.len()];
        }
        let (asked, overdue) = self.look(queues);
        let mut asked = asked.into_iter();
        // Whoever comes after the one that lost the connection was not asked.
        let count = |queue: &&str| self.counted(queue, asked.next()?, overdue).ok().flatten();
        queues.iter().map(count).collect()
    }

    /// Asks the broker, up to the first that ends the connection. Says also whether time was up.
    fn look(&mut self, queues: &[&str]) -> (Vec<Result<Counts, Error>>, bool) {
        let Self { connection: Some(connection), probe, socket, .. } = self else { return (Vec::new(), false) };
        cut_after(socket, CALL_LIMIT, || {
            let mut answers = Vec::new();
            for queue in queues {
                let answer = counts(connection, probe, queue);
                let goes_on = answer.as_ref().map_or_else(|error| channel_closed(error).is_some(), |_| true);
                answers.push(answer);
                if !goes_on {
                    break;
                }
            }
            answers
        })
    }

    fn counted(
        &mut self,
        queue: &str,
        asked: Result<Counts, Error>,
        overdue: bool,
    ) -> Result<Option<Counts>, BrokerError> {
        match asked {
            Ok(counts) => Ok(Some(counts)),
            Err(error) => match channel_closed(&error) {
                Some(why) if why.code == NOT_FOUND => Ok(None),
                Some(why) => Err(self.topology(format!("cannot look at {queue:?}: {}", why.text))),
                None => Err(self.lose(&error, overdue)),
            },
        }
    }

    /// Settles a tag on its lane. One of another session would settle a stranger here, so nothing is sent for it.
    fn release(
        &mut self,
        tag: DeliveryTag,
        send: impl FnOnce(&mut Lane<'_>) -> Result<(), Error>,
    ) -> Result<(), BrokerError> {
        self.check_lost()?;
        match self.lanes.get_mut(tag.queue) {
            Some(lane) if tag.session == self.number => send(lane).map_err(|error| self.lose(&error, false)),
            Some(_) | None => {
                log::error!("internal error: {tag:?} is not of session {}", self.number);
                Ok(())
            }
        }
    }

    /// Notices the end of the connection also while nothing is subscribed.
    fn check_alive(&mut self) -> Option<BrokerError> {
        loop {
            match self.alive.try_recv() {
                Ok(_) => {}
                Err(TryRecvError::Empty) => return None,
                Err(TryRecvError::Disconnected) => {
                    return Some(self.lose(&Error::EventLoopDropped, false));
                }
            }
        }
    }

    /// Ends everything that borrows the channels.
    fn end(self, limit: Duration) -> (Option<Connection>, TcpStream) {
        cut_after(&self.socket, limit, || {
            self.lanes.into_iter().for_each(Lane::end);
            drop(self.probe);
        });
        (self.connection, self.socket)
    }

    fn check_lost(&self) -> Result<(), BrokerError> {
        self.lost.clone().map_or(Ok(()), Err)
    }

    fn topology(&self, reason: String) -> BrokerError {
        BrokerError::Topology { host: self.host.clone(), reason }
    }

    /// Marks the session as lost and finds out why: most symptoms say only that the library's thread has ended, and closing
    /// the connection gives its last words.
    fn lose(&mut self, symptom: &Error, overdue: bool) -> BrokerError {
        if let Some(known) = &self.lost {
            return known.clone();
        }
        let reason = if overdue {
            NO_ANSWER.to_owned()
        } else if channel_closed(symptom).is_some() {
            describe(symptom)
        } else {
            let last = self.connection.take().and_then(|it| close(it, &self.socket, CLOSE_LIMIT));
            describe(last.as_ref().unwrap_or(symptom))
        };
        let lost = BrokerError::Lost { host: self.host.clone(), reason };
        self.lost = Some(lost.clone());
        lost
    }
}

/// Looks at one queue, through a channel that is kept for the next one. The broker closes it over a queue that it does not let
/// us look at.
fn counts(connection: &mut Connection, probe: &mut Option<Channel>, queue: &str) -> Result<Counts, Error> {
    let channel = match probe.take() {
        Some(channel) => channel,
        None => connection.open_channel(None)?,
    };
    let counts = Counts::ask(&channel, queue)?;
    *probe = Some(channel);
    Ok(counts)
}
