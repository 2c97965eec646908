//! What can go wrong with the broker, in words of our own.
//!
//! Some texts of the library print the connection URL with its password, so none of them is ever formatted: each of its
//! errors is translated here.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use amiquip::Error;

use crate::policy::backoff::Backoff;

/// AMQP reply code of a connection that an operator closed, or a broker that shuts down.
pub(super) const CONNECTION_FORCED: u16 = 320;
/// AMQP reply code of what the user may not do.
pub(super) const ACCESS_REFUSED: u16 = 403;
/// AMQP reply code of a queue or exchange that is not there.
pub(super) const NOT_FOUND: u16 = 404;
/// AMQP reply code of arguments that differ from those that stand.
pub(super) const PRECONDITION_FAILED: u16 = 406;

/// The reason that is told where a call had to be cut.
pub(super) const NO_ANSWER: &str = "the broker did not answer in time";

/// Why the broker could not be used. Each variant is a branch of some caller; all of them can heal, so the daemon keeps
/// trying after every one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BrokerError {
    /// No broker answers there: not now, or not at this address.
    Unreachable {
        /// `host:port`
        host: String,
        /// What was seen.
        reason: String,
    },
    /// The broker answered and said no: a person has to mend credentials, permissions or a limit.
    Refused {
        /// `host:port`
        host: String,
        /// What was refused, and what to check.
        reason: String,
    },
    /// The connection stood, and is over. Unacknowledged messages go back to their queues.
    Lost {
        /// `host:port`
        host: String,
        /// What was seen last.
        reason: String,
    },
    /// A queue, exchange or binding is not as it is needed. The session lives on; trying again there can succeed.
    Topology {
        /// `host:port`
        host: String,
        /// Which one, and what to do.
        reason: String,
    },
    /// A broker answers there, and no TLS came about with it: we do not trust it, or it does not trust us.
    Tls {
        /// `host:port`
        host: String,
        /// What was seen, and what to check.
        reason: String,
    },
    /// A certificate, a key or an authority cannot be used. No broker was asked.
    TlsFiles {
        /// Which file, and what is wrong with it.
        reason: String,
    },
    /// The password file cannot be read. No broker was asked.
    PasswordFile {
        /// `broker.password_file`
        path: PathBuf,
        /// The system's error.
        reason: String,
    },
}

impl BrokerError {
    /// How long to wait before the next try to connect. `random` is drawn evenly from 0 to 1.
    pub fn delay(&self, backoff: &mut Backoff, random: f64) -> Duration {
        match self {
            Self::Unreachable { .. } => backoff.next_unanswered(random),
            Self::Refused { .. }
            | Self::Tls { .. }
            | Self::TlsFiles { .. }
            | Self::Lost { .. }
            | Self::Topology { .. }
            | Self::PasswordFile { .. } => backoff.next(random),
        }
    }
}

impl fmt::Display for BrokerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable { host, reason } => {
                write!(f, "cannot reach RabbitMQ at {host}: {reason}")
            }
            Self::Refused { host, reason } => write!(f, "RabbitMQ at {host} refused {reason}"),
            Self::Tls { host, reason } => write!(f, "no TLS with RabbitMQ at {host}: {reason}"),
            Self::TlsFiles { reason } => write!(f, "{reason}; check [broker.tls]"),
            Self::Lost { host, reason } => {
                write!(f, "lost the connection to RabbitMQ at {host}: {reason}")
            }
            Self::Topology { host, reason } => write!(f, "{reason} (RabbitMQ at {host})"),
            Self::PasswordFile { path, reason } => {
                write!(f, "cannot read the password file {}: {reason}; check broker.password_file", path.display())
            }
        }
    }
}

impl std::error::Error for BrokerError {}

/// Why the broker itself closed a channel or a connection: its reply code, and its words on one line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Closed {
    /// The AMQP reply code.
    pub(super) code: u16,
    /// Its text, such as `NOT_FOUND - no queue 'thumbs' in vhost '/'`.
    pub(super) text: String,
}

/// The reason that the broker gave for closing a channel, where that is what happened. The connection still stands.
pub(super) fn channel_closed(error: &Error) -> Option<Closed> {
    if let Error::ServerClosedChannel { code, message, .. } = error {
        Some(Closed { code: *code, text: one_line(message) })
    } else {
        None
    }
}

/// The reason that the broker gave for closing the whole connection, where it gave one.
pub(super) fn connection_closed(error: &Error) -> Option<Closed> {
    if let Error::ServerClosedConnection { code, message } = error {
        Some(Closed { code: *code, text: one_line(message) })
    } else {
        None
    }
}

/// What an error of a standing connection means, as the end of a sentence.
pub(super) fn describe(error: &Error) -> String {
    let fixed = match error {
        Error::ServerClosedConnection { message, .. } => {
            return format!("the broker closed it: {}", one_line(message));
        }
        Error::ServerClosedChannel { message, .. } => {
            return format!("the broker closed the channel: {}", one_line(message));
        }
        Error::IoErrorReadingSocket { source } => {
            return format!("reading failed: {}", system(source));
        }
        Error::IoErrorWritingSocket { source } => {
            return format!("writing failed: {}", system(source));
        }
        Error::CreatePollHandle { source }
        | Error::RegisterWithPollHandle { source }
        | Error::DeregisterWithPollHandle { source }
        | Error::FailedToPoll { source }
        | Error::ForkFailed { source } => {
            return format!("the system refused a resource: {}", system(source));
        }
        Error::UnexpectedSocketClose => "it was closed without a word",
        Error::MissedServerHeartbeats => "no sign of life for two heartbeats",
        Error::MalformedFrame => "what came is not AMQP 0-9-1",
        Error::FrameUnexpected
        | Error::ClientException
        | Error::ReceivedFrameWithBogusChannelId { .. }
        | Error::DuplicateConsumerTag { .. }
        | Error::UnknownConsumerTag { .. } => "the broker sent what was not expected",
        Error::ConnectionTimeout => "the handshake took too long",
        Error::ClientClosedConnection | Error::ClientClosedChannel => "it was closed from here",
        Error::ExhaustedChannelIds | Error::UnavailableChannelId { .. } => "the broker allows no more channels on it",
        Error::UnsupportedAuthMechanism { .. } => "the broker does not offer PLAIN logins",
        Error::UnsupportedLocale { .. } => "the broker does not offer the locale en_US",
        Error::FrameMaxTooSmall { .. } => "the broker's frame_max is below 4096",
        Error::SaslSecureNotSupported => "the broker asked for a challenge that PLAIN does not have",
        Error::InvalidCredentials => "the broker hung up after the login",
        Error::EventLoopClientDropped | Error::EventLoopDropped => "its thread ended",
        Error::IoThreadPanic => "its thread panicked",
        // Errors of the library's own URL and TLS code, which is never called. They would print the URL.
        Error::UrlParseError { .. }
        | Error::TlsFeatureNotEnabled
        | Error::InsecureUrl { .. }
        | Error::UrlNoSocketAddrs { .. }
        | Error::ResolveUrlToSocketAddr { .. }
        | Error::FailedToConnect { .. }
        | Error::SpecifyUrlPort { .. }
        | Error::InvalidUrlScheme { .. }
        | Error::UrlMissingDomain { .. }
        | Error::ExtraUrlPathSegments { .. }
        | Error::UrlParseHeartbeat { .. }
        | Error::UrlParseChannelMax { .. }
        | Error::UrlParseConnectionTimeout { .. }
        | Error::UrlInvalidAuthMechanism { .. }
        | Error::UrlUnsupportedParameter { .. }
        | Error::__Nonexhaustive => "an internal error of the AMQP library",
    };
    fixed.to_owned()
}

/// A system error as the end of a sentence: lower case, without its number.
pub(super) fn system(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut letters = text.chars();
    letters.next().map(|first| first.to_lowercase().chain(letters).collect()).unwrap_or_default()
}

/// Words of the broker, made fit for one line of a log: names in them can hold anything.
pub(super) fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(500).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_the_broker_stay_on_one_line() {
        let error = Error::ServerClosedChannel {
            channel_id: 1,
            code: NOT_FOUND,
            message: "NOT_FOUND - no queue 'a\nb\u{1b}[31m' in vhost '/'".to_owned(),
        };
        let text = "NOT_FOUND - no queue 'a b [31m' in vhost '/'".to_owned();
        assert_eq!(describe(&error), format!("the broker closed the channel: {text}"));
        assert_eq!(channel_closed(&error), Some(Closed { code: NOT_FOUND, text }));
    }

    #[test]
    fn urls_in_errors_of_the_library_are_not_printed() {
        let url = url::Url::parse("amqp://user:secret@host/").unwrap();
        assert!(!describe(&Error::InsecureUrl { url }).contains("secret"));
    }

    #[test]
    fn system_errors_end_a_sentence() {
        let refused = io::Error::from_raw_os_error(111);
        assert_eq!(system(&refused), "connection refused");
    }
}
