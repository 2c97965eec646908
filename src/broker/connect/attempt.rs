//! One try at one host: dial, encrypt, log in.

use std::net::TcpStream;
use std::time::Instant;

use amiquip::{Auth, Connection, ConnectionOptions, Error, IoStream};

use super::{FRAME_MAX, Link, dial, server_name, tuning};
use crate::broker::deadline::cut_after;
use crate::broker::error::{ACCESS_REFUSED, BrokerError, connection_closed, describe, system};
use crate::broker::secure::{Security, TlsStream, validity, version};
use crate::broker::socket::prepare;
use crate::broker::wire::{Ending, Guarded, Violation};
use crate::config::{self, BrokerHost, Login};

/// AMQP reply code of a virtual host that is missing, forbidden or full.
const NOT_ALLOWED: u16 = 530;

/// What a host is tried with.
pub(super) struct Attempt<'a> {
    pub(super) config: &'a config::Broker,
    pub(super) host: &'a BrokerHost,
    pub(super) password: &'a str,
    /// Only where the host has TLS.
    pub(super) security: Option<&'a Security>,
    /// What the connection is for, in a few words.
    pub(super) purpose: &'a str,
}

impl Attempt<'_> {
    pub(super) fn open(&self) -> Result<Link, BrokerError> {
        let timeout = self.config.connect_timeout;
        // A tenth is kept for the rest of us, so that a stalled handshake too is told within `connect_timeout`.
        let deadline = Instant::now() + timeout - timeout / 10;
        let socket = dial(self.host, timeout).map_err(|reason| self.unreachable(reason))?;
        prepare(&socket, self.config.heartbeat).map_err(|error| self.unreachable(system(&error)))?;
        let Some(security) = self.security else {
            let stream = self.stream(&socket)?;
            return self.log_in(socket, stream, deadline);
        };
        let tls = security.handshake(&socket, self.host, deadline, timeout)?;
        let (version, certificate) = (version(&tls), validity(&tls));
        let stream = TlsStream::new(self.stream(&socket)?, tls);
        Ok(Link { tls: Some(version), certificate, ..self.log_in(socket, stream, deadline)? })
    }

    /// The socket for the library. It does not block from here on.
    fn stream(&self, socket: &TcpStream) -> Result<mio::net::TcpStream, BrokerError> {
        let stream = socket.try_clone().and_then(mio::net::TcpStream::from_stream);
        stream.map_err(|error| self.unreachable(system(&error)))
    }

    /// The AMQP handshake. `socket` is the one below `stream`.
    fn log_in(&self, socket: TcpStream, stream: impl IoStream, deadline: Instant) -> Result<Link, BrokerError> {
        let (host, timeout) = (self.host, self.config.connect_timeout);
        // No timeout of the library's own: it looks at the clock only while nothing arrives, and it reports a timeout
        // during the login as a wrong password.
        let options = ConnectionOptions::default()
            .auth(match self.config.tls.login {
                Login::Password => Auth::Plain { username: host.user.clone(), password: self.password.to_owned() },
                Login::Certificate => Auth::External,
            })
            .virtual_host(host.vhost.as_str())
            .heartbeat(u16::try_from(self.config.heartbeat.as_secs()).unwrap_or(u16::MAX))
            .frame_max(FRAME_MAX);
        let left = deadline.saturating_duration_since(Instant::now());
        let (stream, seen) = Guarded::new(stream, &connection_name(self.purpose));
        let (opened, overdue) =
            cut_after(&socket, left, || Connection::insecure_open_stream(stream, options, tuning()));
        match opened {
            Ok(connection) if !overdue => Ok(Link {
                server: server_name(connection.server_properties()),
                connection,
                socket,
                host: host.to_string(),
                vhost: host.vhost.clone(),
                frame_max: seen.frame_max(),
                tls: None,
                certificate: None,
            }),
            Err(error) if !overdue => Err(self.failed(&error, seen.ending())),
            Err(Error::InvalidCredentials) => {
                Err(self.unreachable(format!("no answer to the login of {} within {timeout:?}", self.user())))
            }
            Ok(_) | Err(_) => Err(self.unreachable(format!(
                "the AMQP handshake was not finished within {timeout:?}; is this the broker's AMQP port?"
            ))),
        }
    }

    fn unreachable(&self, reason: String) -> BrokerError {
        BrokerError::Unreachable { host: self.host.to_string(), reason }
    }

    fn refused(&self, reason: String) -> BrokerError {
        BrokerError::Refused { host: self.host.to_string(), reason }
    }

    /// Who logs in.
    fn user(&self) -> String {
        match self.config.tls.login {
            Login::Password => format!("the user {:?}", self.host.user),
            Login::Certificate => "the user of our certificate".to_owned(),
        }
    }

    /// What a failed handshake means: what TLS says, what the library says, and what was seen on the wire. The password
    /// appears nowhere.
    fn failed(&self, error: &Error, seen: Option<Ending>) -> BrokerError {
        if let Error::IoErrorReadingSocket { source } | Error::IoErrorWritingSocket { source } = error
            && let Some(told) = self.security.and_then(|security| security.explain(self.host, source))
        {
            return told;
        }
        // Only a goodbye after the login reaches us through the library.
        if let Some(closed) = connection_closed(error) {
            return if closed.code == NOT_ALLOWED || closed.code == ACCESS_REFUSED {
                let (vhost, user) = (&self.host.vhost, self.user());
                self.refused(format!("the virtual host {vhost:?} to {user}: {}", closed.text))
            } else {
                self.unreachable(format!("it ended the handshake: {}", closed.text))
            };
        }
        match seen {
            Some(Ending::Closed(closed)) if closed.code == ACCESS_REFUSED => return self.login_refused(),
            Some(Ending::Closed(closed)) => {
                return self.unreachable(format!("it ended the handshake: {}", closed.text));
            }
            Some(Ending::Violated(violation @ Violation::NoFrame(_))) => {
                return self.unreachable(format!("{violation}; is this the broker's AMQP port?"));
            }
            // RabbitMQ says what it does not like; one that shuts down, and other brokers, may not.
            Some(Ending::HungUp | Ending::Failed(_)) if matches!(error, Error::InvalidCredentials) => {
                return self.unreachable(format!(
                    "it ended the connection during the login of {}, without a word; if that stays so, check {}",
                    self.user(),
                    match self.config.tls.login {
                        Login::Password => "user name and password",
                        Login::Certificate => "that the broker knows that user",
                    }
                ));
            }
            Some(Ending::HungUp | Ending::Failed(_) | Ending::Violated(_)) | None => {}
        }
        if matches!(error, Error::UnexpectedSocketClose | Error::MalformedFrame | Error::IoErrorReadingSocket { .. }) {
            let port = if self.host.tls {
                "is this the broker's AMQP port?"
            } else {
                "is this the broker's AMQP port, without TLS? its TLS port takes amqps://"
            };
            return self.unreachable(format!("the AMQP handshake failed, {}; {port}", describe(error)));
        }
        if matches!(error, Error::UnsupportedAuthMechanism { .. }) && self.config.tls.login == Login::Certificate {
            let reason = "the connection: it offers no logins by certificate (EXTERNAL); enable its plugin \
                          rabbitmq_auth_mechanism_ssl, and EXTERNAL in its auth_mechanisms";
            return self.refused(reason.to_owned());
        }
        if matches!(
            error,
            Error::UnsupportedAuthMechanism { .. }
                | Error::UnsupportedLocale { .. }
                | Error::FrameMaxTooSmall { .. }
                | Error::SaslSecureNotSupported
        ) {
            return self.refused(format!("the connection: {}", describe(error)));
        }
        self.unreachable(format!("the AMQP handshake failed: {}", describe(error)))
    }

    fn login_refused(&self) -> BrokerError {
        let (host, user) = (&self.host.host, &self.host.user);
        self.refused(match self.config.tls.login {
            Login::Password => {
                let near = matches!(host.as_str(), "localhost" | "127.0.0.1" | "::1");
                let only =
                    if user == "guest" && !near { " (guest may log in from the broker's machine only)" } else { "" };
                format!("the user {user:?}: check user name and password{only}")
            }
            Login::Certificate => "the user of our certificate: make a user of the name that the broker takes from it \
                                   (ssl_cert_login_from there)"
                .to_owned(),
        })
    }
}

/// What the broker's log and management page call a connection.
fn connection_name(purpose: &str) -> String {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    format!("warrend@{host}:{} {purpose}", std::process::id())
}
