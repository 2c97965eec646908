//! Keeps one line to the broker: opens it, opens it again when it falls, and waits in between.

use std::mem;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, bounded};

use super::connect::connect;
use super::error::BrokerError;
use super::line::{Fallen, Line, Wire};
use super::outgoing::Outgoing;
use crate::config;
use crate::policy::backoff::Backoff;

/// When a connection that lived this long is lost, the next is tried at once. After a shorter life there is a wait, which
/// grows as long as no connection lives that long or gets a message through.
const GOOD_LIFE: Duration = Duration::from_secs(10);

/// The publisher's connection through all its lives. Never blocks on connecting.
pub(super) struct Uplink<T> {
    config: Arc<config::Broker>,
    state: State<T>,
    /// Grows with connections in a row that failed before they got anything through.
    backoff: Backoff,
    connects: u64,
}

enum State<T> {
    /// No connection; the next try is due then.
    Down { until: Instant },
    /// A thread of its own opens one; a fresh one is a new connection, the other a new channel on the old one.
    Opening { fresh: bool, lines: Receiver<Result<Line<T>, BrokerError>> },
    /// The line stands.
    Up { line: Box<Line<T>>, since: Instant },
}

/// What a line that fell leaves to its owner.
pub(super) struct Fall<T> {
    /// What was not confirmed, in the order of publishing.
    pub(super) unconfirmed: Vec<(Outgoing, T)>,
    /// Why the broker closed channel or connection, if it was because of something in those.
    pub(super) blame: Option<String>,
    /// One sentence.
    pub(super) error: String,
}

impl<T: Send + 'static> Uplink<T> {
    pub(super) fn new(config: Arc<config::Broker>) -> Self {
        let backoff = Backoff::new(config.reconnect.initial, config.reconnect.max);
        Self { config, state: State::Down { until: Instant::now() }, backoff, connects: 0 }
    }

    /// The line, while it stands.
    pub(super) fn line(&self) -> Option<&Line<T>> {
        match &self.state {
            State::Up { line, .. } => Some(line),
            State::Down { .. } | State::Opening { .. } => None,
        }
    }

    /// The line to send on, while it stands.
    pub(super) fn line_mut(&mut self) -> Option<&mut Line<T>> {
        match &mut self.state {
            State::Up { line, .. } => Some(line),
            State::Down { .. } | State::Opening { .. } => None,
        }
    }

    /// How often a connection was made after the first.
    pub(super) fn reconnects(&self) -> u64 {
        self.connects.saturating_sub(1)
    }

    /// When [`Self::open_when_due`] has something to do.
    pub(super) fn due(&self) -> Option<Instant> {
        match self.state {
            State::Down { until } => Some(until),
            State::Opening { .. } | State::Up { .. } => None,
        }
    }

    /// Where the result of an opening comes, for [`Self::opened`]; `None` while nothing is being opened.
    pub(super) fn opening(&self) -> Option<&Receiver<Result<Line<T>, BrokerError>>> {
        match &self.state {
            State::Opening { lines, .. } => Some(lines),
            State::Down { .. } | State::Up { .. } => None,
        }
    }

    /// Starts to connect when the wait is over.
    pub(super) fn open_when_due(&mut self) {
        if self.due().is_some_and(|due| Instant::now() >= due) {
            let config = self.config.clone();
            self.open(true, move || {
                let link = connect(&config, fastrand::usize(..), "publisher")?;
                Line::open(Wire::new(link)?)
            });
        }
    }

    /// Takes the result of an opening.
    pub(super) fn opened(&mut self, opened: Result<Line<T>, BrokerError>) -> Result<(), BrokerError> {
        match opened {
            Ok(line) => {
                if let State::Opening { fresh: true, .. } = self.state {
                    self.connects += 1;
                    log::info!("publishing through RabbitMQ at {}", line.wire().host());
                }
                self.state = State::Up { line: Box::new(line), since: Instant::now() };
                Ok(())
            }
            Err(error) => {
                let delay = error.delay(&mut self.backoff, fastrand::f64());
                self.wait(delay);
                Err(error)
            }
        }
    }

    /// Called when the line's confirms or notes have ended. Opens another one, at once or after a wait.
    pub(super) fn fell(&mut self) -> Option<Fall<T>> {
        let down = State::Down { until: Instant::now() };
        let (line, since) = match mem::replace(&mut self.state, down) {
            State::Up { line, since } => (line, since),
            // There is no line that could have fallen.
            other @ (State::Down { .. } | State::Opening { .. }) => {
                self.state = other;
                return None;
            }
        };
        let useful = line.is_useful();
        let (unconfirmed, fallen) = line.fell();
        let (blame, error) = match fallen {
            Fallen::Channel(why, wire) => {
                let error = format!("RabbitMQ at {} closed the publishing channel: {}", wire.host(), why.text);
                self.open(false, move || Line::open(*wire));
                (Some(why.text), error)
            }
            Fallen::Connection(error, why) => {
                let good = since.elapsed() >= GOOD_LIFE;
                if useful || good {
                    self.backoff.reset();
                }
                if !good {
                    let delay = error.delay(&mut self.backoff, fastrand::f64());
                    self.wait(delay);
                }
                (why.map(|why| why.text), error.to_string())
            }
        };
        Some(Fall { unconfirmed, blame, error })
    }

    /// Closes the line in good order. One that is still being opened is closed by its thread.
    pub(super) fn close(self) {
        match self.state {
            State::Up { line, .. } => line.close(),
            State::Down { .. } | State::Opening { .. } => {}
        }
    }

    fn wait(&mut self, delay: Duration) {
        self.state = State::Down { until: Instant::now() + delay };
    }

    /// Opens on a thread of its own, so that the owner stays awake.
    fn open(&mut self, fresh: bool, open: impl FnOnce() -> Result<Line<T>, BrokerError> + Send + 'static) {
        // One line; its sender never waits.
        let (done, lines) = bounded(1);
        let thread = thread::Builder::new().name("publisher-open".to_owned()).spawn(move || {
            // Fails when the owner has stopped. The line is then closed by being dropped.
            let _ = done.send(open());
        });
        match thread {
            Ok(_) => self.state = State::Opening { fresh, lines },
            Err(error) => {
                log::warn!("no thread to connect the publisher with: {error}");
                let delay = self.backoff.next(fastrand::f64());
                self.wait(delay);
            }
        }
    }
}
