//! The broker's management API, read only: what AMQP does not tell.
//!
//! There is no way here to send anything but GET, so nothing on the broker can be changed by mistake. Used by
//! `check --online` alone: the daemon works without it.

use std::fmt::Write as _;
use std::path::Path;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use ureq::Agent;
use ureq::tls::{Certificate, RootCerts, TlsConfig};

use crate::config;
use crate::tls;

/// Bytes of an answer, at most. The largest is that about a queue with some thousand consumers.
const LARGEST: u64 = 16 << 20;

/// A client of the API for one user.
pub struct Management {
    agent: Agent,
    url: String,
    authorization: String,
    /// Who asks.
    pub user: String,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unseen {
    /// There is no such thing.
    Missing,
    /// The user may not see it; what the broker says about that.
    Forbidden(String),
    /// The API could not be asked.
    Failed(String),
}

/// An answer, and the broker's clock.
#[derive(Debug)]
pub struct Answer {
    /// The body.
    pub value: Value,
    /// When the broker answered, to the second, by its own clock.
    pub date: Option<SystemTime>,
}

impl Management {
    /// Connects to nothing yet. The error is a sentence about the certificates.
    pub fn new(
        url: &str,
        (user, password): (&str, &str),
        ca_file: Option<&Path>,
        timeout: Duration,
    ) -> Result<Self, String> {
        let mut config = Agent::config_builder()
            .proxy(None)
            .http_status_as_error(false)
            .max_redirects(0)
            .timeout_global(Some(timeout))
            .user_agent(concat!("warrend/", env!("CARGO_PKG_VERSION")));
        if url.starts_with("https://") {
            let roots = tls::authorities(ca_file).map_err(|fault| fault.to_string())?;
            let roots = roots.iter().map(|root| Certificate::from_der(root).to_owned()).collect::<Vec<_>>();
            let builder = TlsConfig::builder().unversioned_rustls_crypto_provider(tls::provider());
            config = config.tls_config(builder.root_certs(RootCerts::from(roots)).build());
        }
        Ok(Self {
            agent: Agent::new_with_config(config.build()),
            url: url.to_owned(),
            authorization: format!("Basic {}", STANDARD.encode(format!("{user}:{password}"))),
            user: user.to_owned(),
        })
    }

    /// For `[broker]`: with the URL's own user, else with that of AMQP. `None` where no URL is configured.
    pub fn of(broker: &config::Broker, password: &str) -> Option<Result<Self, String>> {
        let at = broker.management.as_ref()?;
        let own = at.login.as_ref().map(|(user, password)| (user.as_str(), password.as_str()));
        let login = own.unwrap_or((&broker.hosts[0].user, password));
        Some(Self::new(&at.url, login, broker.tls.ca_file.as_deref(), broker.connect_timeout))
    }

    /// The same API for another user.
    pub fn as_user(&self, user: &str, password: &str) -> Self {
        Self {
            agent: self.agent.clone(),
            url: self.url.clone(),
            authorization: format!("Basic {}", STANDARD.encode(format!("{user}:{password}"))),
            user: user.to_owned(),
        }
    }

    /// Asks for `/api/` and these segments, which are escaped here.
    pub fn get(&self, segments: &[&str]) -> Result<Answer, Unseen> {
        let path: String = segments.iter().fold(String::new(), |path, segment| path + "/" + &escape(segment));
        let sent =
            self.agent.get(format!("{}/api{path}", self.url)).header("Authorization", &self.authorization).call();
        let mut response = sent.map_err(|error| Unseen::Failed(self.failed(&error)))?;
        let status = response.status().as_u16();
        let date = response.headers().get("date").and_then(|date| date.to_str().ok());
        let date = date.and_then(|date| httpdate::parse_http_date(date).ok());
        let body = response.body_mut().with_config().limit(LARGEST).read_to_vec();
        let body = body.map_err(|error| Unseen::Failed(self.failed(&error)))?;
        let value = serde_json::from_slice::<Value>(&body);
        match (status, value) {
            (200, Ok(value)) => Ok(Answer { value, date }),
            (404, Ok(_)) => Err(Unseen::Missing),
            (401 | 403, Ok(value)) => {
                let why = value["reason"].as_str().unwrap_or("not authorised").to_owned();
                Err(Unseen::Forbidden(plain(&why)))
            }
            (status, _) => {
                let why = format!("{} answers {status}, which is no management API; check the port (15672)", self.url);
                Err(Unseen::Failed(why))
            }
        }
    }

    fn failed(&self, error: &ureq::Error) -> String {
        let text = error.to_string();
        let text = text.split(" (os error").next().unwrap_or_default().to_lowercase();
        format!("no answer from {}: {}", self.url, plain(text.strip_prefix("io: ").unwrap_or(&text)))
    }
}

/// Words of a stranger on one line.
fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(200).collect()
}

/// A path segment with everything escaped that is not a letter or digit.
fn escape(segment: &str) -> String {
    segment.bytes().fold(String::new(), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => write!(text, "{}", char::from(byte)),
            0..=b',' | b'/' | b':'..=b'@' | b'['..=b'^' | b'`' | b'{'..=0xff => write!(text, "%{byte:02X}"),
        };
        text
    })
}
