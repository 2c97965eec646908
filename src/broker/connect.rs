//! From the configured hosts to an open AMQP connection, or to one sentence that says why not.

mod attempt;

use std::cmp::Reverse;
use std::fs;
use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs};
use std::thread;
use std::time::{Duration, Instant};

use amiquip::{AmqpValue, Connection, ConnectionTuning, Error, FieldTable};

use super::deadline::{cut, cut_after};
use super::error::{BrokerError, system};
use super::secure::Security;
use crate::config::{self, BrokerHost};
use crate::failpoint;
use crate::tls::Validity;
use attempt::Attempt;

/// The largest frame that we ask for, in bytes; the broker may settle for less. It is the broker's own default.
pub(super) const FRAME_MAX: u32 = 131_072;

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
    /// The version of TLS, such as `TLSv1.3`; `None`: the connection is not encrypted.
    pub tls: Option<&'static str>,
    /// The largest frame, in bytes.
    pub frame_max: usize,
    /// How long the broker's certificates are valid, where it showed some: that of the first to end.
    pub certificate: Option<Validity>,
}

/// Tries each host once, beginning with the one at `first % hosts.len()`, and opens a connection to the first that lets
/// us in.
///
/// The caller picks `first` at random, so that many workers spread over a cluster. Blocks for at most
/// `connect_timeout` a host, name, TLS and login in all. Where all fail, the error is the most telling one: a refusal before an unreachable host, and of
/// equal ones that of the host named first, as a new text is a new line in the log.
/// `purpose` says in a few words what the connection is for; the broker shows it, with this host and process.
pub fn connect(config: &config::Broker, first: usize, purpose: &str) -> Result<Link, BrokerError> {
    failpoint::hit("connect");
    let password = read_password(config)?;
    let any_tls = config.hosts.iter().any(|host| host.tls);
    let security = any_tls.then(|| Security::read(&config.tls)).transpose()?;
    let count = config.hosts.len();
    let mut failed: Vec<(usize, BrokerError)> = Vec::new();
    for turn in 0..count {
        let index = (first % count + turn) % count;
        let host = &config.hosts[index];
        let attempt = Attempt {
            config,
            host,
            password: password.as_deref().unwrap_or(&host.password),
            security: security.as_ref().filter(|_| host.tls),
            purpose,
        };
        match attempt.open() {
            Ok(link) => return Ok(link),
            Err(error) => {
                log::debug!("{error}");
                failed.push((index, error));
            }
        }
    }
    let told = failed.into_iter().min_by_key(|(index, error)| (Reverse(weight(error)), *index));
    let (_, told) = told.expect("a checked configuration has at least one host");
    Err(if count > 1 { among(told, count) } else { told })
}

/// How telling an error is: a broker that answers says more than none.
fn weight(error: &BrokerError) -> u8 {
    match error {
        BrokerError::Refused { .. } => 2,
        BrokerError::Tls { .. } => 1,
        BrokerError::Unreachable { .. }
        | BrokerError::Lost { .. }
        | BrokerError::Topology { .. }
        | BrokerError::PasswordFile { .. }
        | BrokerError::TlsFiles { .. } => 0,
    }
}

/// Says that the other hosts were tried too.
fn among(mut told: BrokerError, count: usize) -> BrokerError {
    match &mut told {
        BrokerError::Unreachable { reason, .. }
        | BrokerError::Refused { reason, .. }
        | BrokerError::Tls { reason, .. }
        | BrokerError::Lost { reason, .. }
        | BrokerError::Topology { reason, .. }
        | BrokerError::PasswordFile { reason, .. }
        | BrokerError::TlsFiles { reason } => {
            reason.push_str(&format!(" (none of the {count} hosts could be used)"));
        }
    }
    told
}

/// The password of AMQP logins: of the file where there is one, else of the first URL.
pub fn password(config: &config::Broker) -> Result<String, BrokerError> {
    Ok(read_password(config)?.unwrap_or_else(|| config.hosts[0].password.clone()))
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
