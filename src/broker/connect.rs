//! From the configured hosts to an open AMQP connection, or to one sentence that says why not.

use std::fs;
use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs};
use std::thread;
use std::time::{Duration, Instant};

use amiquip::{AmqpValue, Auth, Connection, ConnectionOptions, ConnectionTuning, Error, FieldTable};

use super::deadline::{cut, cut_after};
use super::error::{ACCESS_REFUSED, BrokerError, connection_closed, describe, system};
use super::socket::prepare;
use super::wire::{Ending, Guarded, Violation};
use crate::config::{self, BrokerHost};
use crate::failpoint;

/// The largest frame that we ask for, in bytes; the broker may settle for less. It is the broker's own default.
pub(super) const FRAME_MAX: u32 = 131_072;

/// AMQP reply code of a virtual host that is missing, forbidden or full.
const NOT_ALLOWED: u16 = 530;

/// An open connection without channels, ready for a session or a publisher. Can be sent to another thread.
///
/// Dropping it closes it and waits for the broker's answer.
pub struct Link {
    pub(super) connection: Connection,
    /// The same socket as the connection's, kept so that a hung connection can be cut.
    pub(super) socket: TcpStream,
    /// `host:port`
    pub host: String,
    /// The virtual host.
    pub vhost: String,
    /// What the broker calls itself, such as `RabbitMQ 3.10.8`.
    pub server: String,
}

/// Tries each host once, beginning with the one at `first % hosts.len()`, and opens a connection to the first that lets
/// us in.
///
/// The caller picks `first` at random, so that many workers spread over a cluster. Blocks for at most twice
/// `connect_timeout` a host. Where all fail, the error is the most telling one: a refusal before an unreachable host.
/// `purpose` says in a few words what the connection is for; the broker shows it, with this host and process.
pub fn connect(config: &config::Broker, first: usize, purpose: &str) -> Result<Link, BrokerError> {
    failpoint::hit("connect");
    let password = read_password(config)?;
    let count = config.hosts.len();
    let mut told: Option<BrokerError> = None;
    for turn in 0..count {
        let host = &config.hosts[(first % count + turn) % count];
        match open(config, host, password.as_deref().unwrap_or(&host.password), purpose) {
            Ok(link) => return Ok(link),
            Err(error) => {
                log::debug!("{error}");
                if !matches!(told, Some(BrokerError::Refused { .. })) || is_refusal(&error) {
                    told = Some(error);
                }
            }
        }
    }
    let told = told.expect("a checked configuration has at least one host");
    Err(if count > 1 { among(told, count) } else { told })
}

fn is_refusal(error: &BrokerError) -> bool {
    matches!(error, BrokerError::Refused { .. })
}

/// Says that the other hosts were tried too.
fn among(mut told: BrokerError, count: usize) -> BrokerError {
    match &mut told {
        BrokerError::Unreachable { reason, .. }
        | BrokerError::Refused { reason, .. }
        | BrokerError::Lost { reason, .. }
        | BrokerError::Topology { reason, .. }
        | BrokerError::PasswordFile { reason, .. } => {
            reason.push_str(&format!(" (none of the {count} hosts could be used)"));
        }
    }
    told
}

/// The content of `broker.password_file`, read again at each connect so that a rotated password needs no restart.
fn read_password(config: &config::Broker) -> Result<Option<String>, BrokerError> {
    let Some(path) = &config.password_file else {
        return Ok(None);
    };
    match fs::read_to_string(path) {
        Ok(text) => {
            let line = text.strip_suffix('\n').unwrap_or(&text);
            let line = line.strip_suffix('\r').unwrap_or(line);
            if line.is_empty() {
                return Err(BrokerError::PasswordFile { path: path.clone(), reason: "it is empty".to_owned() });
            }
            Ok(Some(line.to_owned()))
        }
        Err(error) => Err(BrokerError::PasswordFile { path: path.clone(), reason: system(&error) }),
    }
}

/// One host: dial, then the AMQP handshake.
fn open(config: &config::Broker, host: &BrokerHost, password: &str, purpose: &str) -> Result<Link, BrokerError> {
    let timeout = config.connect_timeout;
    let unreachable = |reason| BrokerError::Unreachable { host: host.to_string(), reason };
    let socket = dial(host, timeout).map_err(unreachable)?;
    let prepared = prepare(&socket, config.heartbeat).and_then(|()| Ok((socket.try_clone()?, socket)));
    let (socket, stream) = prepared.map_err(|error| unreachable(system(&error)))?;
    let stream = mio::net::TcpStream::from_stream(stream).map_err(|error| unreachable(system(&error)))?;
    // No timeout of the library's own: it looks at the clock only while nothing arrives, and it reports a timeout
    // during the login as a wrong password.
    let options = ConnectionOptions::default()
        .auth(Auth::Plain { username: host.user.clone(), password: password.to_owned() })
        .virtual_host(host.vhost.as_str())
        .heartbeat(u16::try_from(config.heartbeat.as_secs()).unwrap_or(u16::MAX))
        .frame_max(FRAME_MAX);
    let (stream, endings) = Guarded::new(stream, &connection_name(purpose));
    let (opened, overdue) = cut_after(&socket, timeout, || Connection::insecure_open_stream(stream, options, tuning()));
    match opened {
        Ok(connection) if !overdue => Ok(Link {
            server: server_name(connection.server_properties()),
            connection,
            socket,
            host: host.to_string(),
            vhost: host.vhost.clone(),
        }),
        Err(error) if !overdue => Err(handshake_error(host, &error, endings.try_recv().ok())),
        Err(Error::InvalidCredentials) => {
            Err(unreachable(format!("no answer to the login of the user {:?} within {timeout:?}", host.user)))
        }
        Ok(_) | Err(_) => Err(unreachable(format!(
            "the AMQP handshake was not finished within {timeout:?}; is this the broker's AMQP port?"
        ))),
    }
}

/// What the broker's log and management page call a connection.
fn connection_name(purpose: &str) -> String {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    format!("warrend@{host}:{} {purpose}", std::process::id())
}

/// How much the library may hold between us and the socket.
///
/// It would stop listening to us once 16 MiB wait to be written, and then a publish to a broker that has stopped reading
/// would block our thread. All that we send is bounded before it is sent: acks by the prefetch, publishes by the window
/// of unconfirmed ones.
fn tuning() -> ConnectionTuning {
    ConnectionTuning::default().buffered_writes_high_water(usize::MAX).mem_channel_bound(64)
}

/// A TCP connection to one of the host's addresses, within `timeout` in all.
fn dial(host: &BrokerHost, timeout: Duration) -> Result<TcpStream, String> {
    let deadline = Instant::now() + timeout;
    let addresses = resolve(host, timeout)?;
    let mut reason = "its name has no address; check broker.urls".to_owned();
    for (index, address) in addresses.iter().enumerate() {
        // An equal share of the time that is left, so that a first address that swallows packets leaves some for the
        // second.
        let left = deadline.saturating_duration_since(Instant::now());
        let others = u32::try_from(addresses.len() - index).unwrap_or(u32::MAX);
        let share = (left / others).max(Duration::from_millis(1));
        match TcpStream::connect_timeout(address, share) {
            Ok(socket) => return Ok(socket),
            Err(error) => {
                reason = format!("{}; check that the broker runs and that broker.urls is right", system(&error));
            }
        }
    }
    Err(reason)
}

/// The addresses of a host. The system's resolver cannot be interrupted, so it runs on a thread that is left behind when
/// it takes too long, and ends when the resolver gives up.
fn resolve(host: &BrokerHost, timeout: Duration) -> Result<Vec<SocketAddr>, String> {
    if let Ok(address) = host.host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(address, host.port)]);
    }
    // One answer; its sender never waits.
    let (answers, answer) = crossbeam_channel::bounded(1);
    let (name, port) = (host.host.clone(), host.port);
    thread::Builder::new()
        .name("resolve".to_owned())
        .spawn(move || {
            let found = (name.as_str(), port).to_socket_addrs().map(Vec::from_iter);
            // Nobody listens any more when the time was up.
            let _ = answers.send(found);
        })
        .map_err(|error| system(&error))?;
    match answer.recv_timeout(timeout) {
        Ok(Ok(addresses)) => Ok(addresses),
        Ok(Err(error)) => Err(format!("{}; check broker.urls", system(&error))),
        Err(_) => Err(format!("its name was not resolved within {timeout:?}")),
    }
}

/// What a failed handshake means: what the library says, and what was seen on the wire. The password appears nowhere.
fn handshake_error(host: &BrokerHost, error: &Error, seen: Option<Ending>) -> BrokerError {
    let (user, vhost) = (&host.user, &host.vhost);
    let refused = |reason| BrokerError::Refused { host: host.to_string(), reason };
    let unreachable = |reason| BrokerError::Unreachable { host: host.to_string(), reason };
    // Only a goodbye after the login reaches us through the library.
    if let Some(closed) = connection_closed(error) {
        return if closed.code == NOT_ALLOWED || closed.code == ACCESS_REFUSED {
            refused(format!("the virtual host {vhost:?} to the user {user:?}: {}", closed.text))
        } else {
            unreachable(format!("it ended the handshake: {}", closed.text))
        };
    }
    match seen {
        Some(Ending::Closed(closed)) if closed.code == ACCESS_REFUSED => {
            let near = matches!(host.host.as_str(), "localhost" | "127.0.0.1" | "::1");
            let only = if user == "guest" && !near { " (guest may log in from the broker's machine only)" } else { "" };
            return refused(format!("the user {user:?}: check user name and password{only}"));
        }
        Some(Ending::Closed(closed)) => return unreachable(format!("it ended the handshake: {}", closed.text)),
        Some(Ending::Violated(violation @ Violation::NoFrame(_))) => {
            return unreachable(format!("{violation}; is this the broker's AMQP port?"));
        }
        // RabbitMQ says what it does not like; one that shuts down, and other brokers, may not.
        Some(Ending::HungUp | Ending::Failed(_)) if matches!(error, Error::InvalidCredentials) => {
            return unreachable(format!(
                "it ended the connection during the login of the user {user:?}, without a word; if that stays so, check \
                 user name and password"
            ));
        }
        Some(Ending::HungUp | Ending::Failed(_) | Ending::Violated(_)) | None => {}
    }
    if matches!(error, Error::UnexpectedSocketClose | Error::MalformedFrame | Error::IoErrorReadingSocket { .. }) {
        return unreachable(format!(
            "the AMQP handshake failed, {}; is this the broker's AMQP port, without TLS?",
            describe(error)
        ));
    }
    if matches!(
        error,
        Error::UnsupportedAuthMechanism { .. }
            | Error::UnsupportedLocale { .. }
            | Error::FrameMaxTooSmall { .. }
            | Error::SaslSecureNotSupported
    ) {
        return refused(format!("the connection: {}", describe(error)));
    }
    unreachable(format!("the AMQP handshake failed: {}", describe(error)))
}

/// Product and version from what the broker said at the handshake.
fn server_name(properties: &FieldTable) -> String {
    let text = |name: &str| match properties.get(name) {
        Some(AmqpValue::LongString(text)) => Some(text.as_str()),
        Some(_) | None => None,
    };
    match (text("product"), text("version")) {
        (Some(product), Some(version)) => format!("{product} {version}"),
        (Some(product), None) => product.to_owned(),
        (None, _) => "unknown".to_owned(),
    }
}

/// Closes a connection in good order, or cuts it after `limit`. Gives the error that ended it, if it was over before.
pub(super) fn close(connection: Connection, socket: &TcpStream, limit: Duration) -> Option<Error> {
    let (closed, overdue) = cut_after(socket, limit, || connection.close());
    if overdue {
        log::debug!("the broker did not answer the closing of a connection within {limit:?}");
    }
    // The library's thread has dropped its socket, but ours is a second handle to it: without this the broker would go on
    // seeing a living connection, and would keep its unacknowledged messages.
    cut(socket);
    closed.err()
}

#[cfg(test)]
mod tests;
