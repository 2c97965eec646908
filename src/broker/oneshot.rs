//! Publishing once and waiting for every confirm, for the command line.

use std::fmt;
use std::time::Duration;

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
    let link = connect(config, fastrand::usize(..))?;
    with_session(link, 0, &[], |session| session.declare(steps))?
}

/// Publishes all messages over one connection, mandatory and confirmed, and gives their number once the broker has
/// confirmed the last one.
///
/// Nothing is tried again. After an error, messages that were under way may have arrived.
pub fn publish_all(config: &config::Broker, messages: impl IntoIterator<Item = Outgoing>) -> Result<u64, PublishError> {
    let link = connect(config, fastrand::usize(..))?;
    let mut line = Line::open(Wire::new(link)?)?;
    let mut confirmed = 0;
    let ended = publish_over(&mut line, messages, &mut confirmed);
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

/// Why publishing ended before its time.
enum End {
    Refused(String),
    Stalled,
    Fell,
}

fn publish_over(
    line: &mut Line<()>,
    messages: impl IntoIterator<Item = Outgoing>,
    confirmed: &mut u64,
) -> Result<(), End> {
    for outgoing in messages {
        outgoing.check().map_err(End::Refused)?;
        while !line.has_room(MAX_UNCONFIRMED) {
            await_word(line, confirmed)?;
        }
        line.publish(outgoing, ());
    }
    while line.unconfirmed() > 0 {
        await_word(line, confirmed)?;
    }
    Ok(())
}

/// Waits for the next word of the broker and counts what it confirms.
fn await_word(line: &mut Line<()>, confirmed: &mut u64) -> Result<(), End> {
    select! {
        recv(line.confirms()) -> confirm => {
            for settled in line.confirmed(confirm.map_err(|_| End::Fell)?) {
                settled.result.map_err(End::Refused)?;
                *confirmed += 1;
            }
        }
        recv(line.notes()) -> note => line.noted(note.map_err(|_| End::Fell)?),
        // Also for a broker that blocks: it may have room again before.
        default(STALL) => return Err(End::Stalled),
    }
    Ok(())
}
