//! Publishing once and waiting for every confirm, for the command line.

use std::fmt;
use std::time::{Duration, Instant};

use crossbeam_channel::select;

use super::connect::connect;
use super::error::BrokerError;
use super::line::{Fallen, Line, Wire};
use super::outgoing::Outgoing;
use super::session::with_session;
use crate::config;
use crate::policy::topology::Step;

/// Unconfirmed publishes at a time.
const MAX_UNCONFIRMED: usize = 500;

/// How long the broker may confirm nothing while something is unconfirmed. A person waits for the command.
const STALL: Duration = Duration::from_secs(30);

/// Why not everything was published.
#[derive(Debug)]
pub enum PublishError {
    /// There was no connection, or it was lost.
    Broker(BrokerError),
    /// A message was refused: it cannot be routed, or the broker would not take it.
    Refused {
        /// How many messages the broker had confirmed before.
        confirmed: u64,
        /// A sentence that names the exchange and the routing key.
        reason: String,
    },
    /// The broker does not confirm.
    Stalled {
        /// How many messages the broker had confirmed before.
        confirmed: u64,
        /// Whether it said that it blocks publishers.
        blocked: bool,
    },
}

impl fmt::Display for PublishError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Broker(error) => error.fmt(f),
            Self::Refused { confirmed: 0, reason } => f.write_str(reason),
            Self::Refused { confirmed, reason } => {
                write!(f, "{reason} ({confirmed} messages were confirmed before)")
            }
            Self::Stalled { confirmed, blocked: true } => write!(
                f,
                "RabbitMQ blocks publishers: it is short of memory or disk ({confirmed} messages were confirmed before)"
            ),
            Self::Stalled { confirmed, blocked: false } => {
                write!(f, "RabbitMQ confirmed nothing for {STALL:?} ({confirmed} messages were confirmed before)")
            }
        }
    }
}

impl std::error::Error for PublishError {}

impl From<BrokerError> for PublishError {
    fn from(error: BrokerError) -> Self {
        Self::Broker(error)
    }
}

/// Makes sure of queues, exchanges and bindings over one connection.
pub fn declare(config: &config::Broker, steps: &[Step]) -> Result<(), BrokerError> {
    let link = connect(config, fastrand::usize(..), "declare")?;
    with_session(link, 0, &[], |session| session.declare(steps))?
}

/// Publishes all messages over one connection, mandatory and confirmed, and gives their number once the broker has
/// confirmed the last one.
///
/// Nothing is tried again. After an error, messages that were under way may have arrived.
pub fn publish_all(config: &config::Broker, messages: impl IntoIterator<Item = Outgoing>) -> Result<u64, PublishError> {
    let mut outbox = Outbox::open(config, MAX_UNCONFIRMED)?;
    let sent = messages.into_iter().try_for_each(|outgoing| outbox.send(outgoing, (), &mut drop));
    outbox.close(sent, &mut drop)
}

/// A connection that publishes, mandatory and confirmed. `T` is remembered with each message, and handed out once the
/// broker has confirmed it, to the `done` of whichever call is waiting then.
pub struct Outbox<T> {
    line: Line<T>,
    most: usize,
    confirmed: u64,
}

/// Why publishing ended before its time; [`Outbox::close`] makes an error of it.
#[derive(Debug)]
pub enum End {
    /// A message was refused.
    Refused(String),
    /// Nothing was confirmed for too long.
    Stalled,
    /// The channel or the connection is gone.
    Fell,
}

impl<T> Outbox<T> {
    /// Connects. At most `most` messages are unconfirmed at a time.
    pub fn open(config: &config::Broker, most: usize) -> Result<Self, PublishError> {
        let line = Line::open(Wire::new(connect(config, fastrand::usize(..), "publish")?)?)?;
        Ok(Self { line, most, confirmed: 0 })
    }

    /// Sends a message once there is room for it.
    pub fn send(&mut self, outgoing: Outgoing, item: T, done: &mut impl FnMut(T)) -> Result<(), End> {
        outgoing.check().map_err(End::Refused)?;
        while !self.line.has_room(self.most) {
            self.await_word(STALL, done)?.ok_or(End::Stalled)?;
        }
        self.line.publish(outgoing, item);
        Ok(())
    }

    /// Takes what the broker confirms until `until`, and at least what it has confirmed already.
    pub fn attend(&mut self, until: Instant, done: &mut impl FnMut(T)) -> Result<(), End> {
        while self.await_word(until.saturating_duration_since(Instant::now()), done)?.is_some() {}
        Ok(())
    }

    /// Waits for the last confirm, also after a refusal, so that as little as possible stays in doubt, and closes the
    /// connection. Gives the number of all confirmed messages.
    pub fn close(mut self, sent: Result<(), End>, done: &mut impl FnMut(T)) -> Result<u64, PublishError> {
        let mut ended = sent;
        while self.line.unconfirmed() > 0 && !matches!(ended, Err(End::Stalled | End::Fell)) {
            match self.await_word(STALL, done).and_then(|word| word.ok_or(End::Stalled)) {
                Ok(()) => {}
                Err(end) if ended.is_ok() => ended = Err(end),
                // The first refusal is the one that is told.
                Err(End::Refused(_)) => {}
                Err(End::Stalled | End::Fell) => break,
            }
        }
        let Self { line, confirmed, .. } = self;
        let blocked = line.is_blocked();
        if let Err(End::Fell) = ended {
            let (_, fallen) = line.fell();
            return Err(match fallen {
                Fallen::Channel(why, _) => PublishError::Refused { confirmed, reason: why.text },
                Fallen::Connection(error, _) => error.into(),
            });
        }
        line.close();
        match ended {
            Ok(()) => Ok(confirmed),
            Err(End::Refused(reason)) => Err(PublishError::Refused { confirmed, reason }),
            Err(End::Stalled | End::Fell) => Err(PublishError::Stalled { confirmed, blocked }),
        }
    }

    /// Waits for the next word of the broker and counts what it confirms; `None`: there was none in time.
    fn await_word(&mut self, limit: Duration, done: &mut impl FnMut(T)) -> Result<Option<()>, End> {
        let mut refused = None;
        select! {
            recv(self.line.confirms()) -> confirm => {
                for settled in self.line.confirmed(confirm.map_err(|_| End::Fell)?) {
                    match settled.result {
                        Ok(()) => {
                            self.confirmed += 1;
                            done(settled.item);
                        }
                        Err(reason) => drop(refused.get_or_insert(reason)),
                    }
                }
            }
            recv(self.line.notes()) -> note => self.line.noted(note.map_err(|_| End::Fell)?),
            // Also for a broker that blocks: it may have room again before.
            default(limit) => return Ok(None),
        }
        refused.map_or(Ok(Some(())), |reason| Err(End::Refused(reason)))
    }
}
