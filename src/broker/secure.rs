//! From a TCP connection to an encrypted one, with a broker that has proved who it is, or to one sentence that says why not.
//!
//! With rustls, which the `http` handler has already, and not with the `native-tls` of the AMQP library: that would link
//! OpenSSL, whose error texts name no host and no date, and it hands out neither the version nor the reasons.
//!
//! The handshake runs on the socket while it still blocks, before the library has it: the library knows no limit of time,
//! and would take any end of it for a wrong password or a lost connection.

mod reason;
mod stream;
#[cfg(test)]
mod tests;

use std::io;
use std::net::TcpStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::client::Resumption;
use rustls::sign::SingleCertAndKey;
use rustls::{ClientConfig, ClientConnection, RootCertStore};

use super::deadline::cut_after;
use super::error::{BrokerError, system};
use crate::config::{self, BrokerHost};
use crate::tls::{self, Identity, Validity};
pub(super) use stream::TlsStream;

/// What TLS connections are made with. Read again for each connect, so that renewed certificates need no restart.
#[derive(Debug)]
pub(super) struct Security {
    client: Arc<ClientConfig>,
    /// For sentences: what the user can mend.
    ca_file: Option<PathBuf>,
    cert_file: Option<PathBuf>,
}

impl Security {
    /// Reads the files of `[broker.tls]`. TLS 1.2 at least; who the broker is, is always verified.
    pub(super) fn read(config: &config::Tls) -> Result<Self, BrokerError> {
        let unusable = |reason: String| BrokerError::TlsFiles { reason };
        let fault = |fault: tls::Fault| unusable(fault.to_string());
        let mut roots = RootCertStore::empty();
        let (usable, _) = roots.add_parsable_certificates(tls::authorities(config.ca_file.as_deref()).map_err(fault)?);
        if usable == 0 {
            let place = config
                .ca_file
                .as_ref()
                .map_or("the system".to_owned(), |path| format!("the ca_file {}", path.display()));
            return Err(unusable(format!("{place} holds no certificate that can be used")));
        }
        let builder = ClientConfig::builder_with_provider(tls::provider())
            .with_safe_default_protocol_versions()
            .expect("ring has ciphers for TLS 1.2 and 1.3")
            .with_root_certificates(roots);
        let mut client = match &config.identity {
            None => builder.with_no_client_auth(),
            Some(files) => {
                let identity = Identity::read(&files.cert_file, &files.key_file).map_err(fault)?;
                builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(identity.pair())))
            }
        };
        // The next connect is to show the certificates that lie there then.
        client.resumption = Resumption::disabled();
        let cert_file = config.identity.as_ref().map(|files| files.cert_file.clone());
        Ok(Self { client: Arc::new(client), ca_file: config.ca_file.clone(), cert_file })
    }

    /// The TLS handshake on a socket that blocks, until `deadline` at the latest, however slowly the peer answers.
    /// `patience` is what the user knows of that limit.
    pub(super) fn handshake(
        &self,
        socket: &TcpStream,
        host: &BrokerHost,
        deadline: Instant,
        patience: Duration,
    ) -> Result<ClientConnection, BrokerError> {
        let name = tls::server_name(&host.host).expect("a checked configuration has no other names");
        let connection = ClientConnection::new(Arc::clone(&self.client), name);
        let mut connection = connection.map_err(|error| self.refused(host, &error))?;
        let left = deadline.saturating_duration_since(Instant::now());
        let (done, overdue) = cut_after(socket, left, || {
            while connection.is_handshaking() || connection.wants_write() {
                connection.complete_io(&mut &*socket)?;
            }
            Ok(())
        });
        let unreachable = |reason| Err(BrokerError::Unreachable { host: host.to_string(), reason });
        match done {
            _ if overdue => unreachable(format!(
                "the TLS handshake was not finished in time (broker.connect_timeout is {patience:?}); is this the broker's \
                 TLS port?"
            )),
            Ok(()) => Ok(connection),
            Err(error) => self.explain(host, &error).map_or_else(
                || {
                    let hung_up = error.kind() == io::ErrorKind::UnexpectedEof;
                    let what = if hung_up { "it hung up".to_owned() } else { system(&error) };
                    unreachable(format!(
                        "{what} during the TLS handshake; is this the broker's TLS port? Its log says more"
                    ))
                },
                Err,
            ),
        }
    }

    /// What an error of an encrypted connection means, where TLS is the reason. In TLS 1.3 the broker judges our certificate
    /// when our side of the handshake is done already, so its refusal can come later than the handshake.
    pub(super) fn explain(&self, host: &BrokerHost, error: &io::Error) -> Option<BrokerError> {
        let error = error.get_ref()?.downcast_ref::<rustls::Error>()?;
        Some(self.refused(host, error))
    }

    fn refused(&self, host: &BrokerHost, error: &rustls::Error) -> BrokerError {
        BrokerError::Tls { host: host.to_string(), reason: self.reason(error) }
    }
}

/// The version as TLS itself writes it, such as `TLSv1.3`.
pub(super) fn version(connection: &ClientConnection) -> &'static str {
    match connection.protocol_version() {
        Some(rustls::ProtocolVersion::TLSv1_2) => "TLSv1.2",
        // There is no other one to agree on.
        _ => "TLSv1.3",
    }
}

/// How long the certificates are valid that the broker showed: that of the first to end.
pub(super) fn validity(connection: &ClientConnection) -> Option<Validity> {
    let shown = connection.peer_certificates().unwrap_or_default();
    shown.iter().filter_map(tls::validity).min_by_key(|valid| valid.until.unwrap_or(u64::MAX))
}
