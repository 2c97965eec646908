//! One request and its answer, over a connection that is kept for the next.
//!
//! Between two requests a server may close the connection. ureq looks before it sends, but the close can be under way at
//! that moment: then a request ends without any answer, and nobody can tell whether it was read. It is sent once more, on
//! a new connection, if it bears an `Idempotency-Key` (the rule of Go's HTTP client; RFC 9110, section 9.2.2): so a server
//! that closes idle connections costs no attempts.

use std::io::{self, Read};
use std::time::Duration;

use ureq::http::header::{CONTENT_ENCODING, CONTENT_TYPE, LOCATION, RETRY_AFTER};
use ureq::http::{HeaderMap, HeaderName, StatusCode};
use ureq::unversioned::transport::{Connector, DefaultConnector};
use ureq::{Agent, Body};

use super::names::{Fresh, Names};
use super::request::{Request, Target};
use super::trust::Trust;
use crate::task::ErrorClass;

/// Bytes that are kept of an answer that is no reply: for the error text.
pub const EXCERPT: usize = 1024;
/// Bytes that are read of such an answer, so that its connection can be used again; of a longer one it is closed.
const MAX_DRAINED: u64 = 64 * 1024;
/// How long reading such an answer may take: its status has said what counts.
const MAX_DRAINING: Duration = Duration::from_secs(2);
/// Bytes of a connection's buffers, each way.
const BUFFER: usize = 32 * 1024;
/// Bytes of an answer's header, at most. Less than a buffer: ureq takes a full one for the connection's end.
const MAX_HEADER: usize = 24 * 1024;

/// What bounds an exchange.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// For all of it.
    pub timeout: Duration,
    /// Bytes of a reply, at most; `None` where no reply is wanted.
    pub reply: Option<usize>,
}

/// What came back.
#[derive(Debug)]
pub struct Received {
    /// Its status.
    pub status: StatusCode,
    /// The header of that name, where it is there and is text.
    pub retry_after: Option<String>,
    /// Where a redirect leads.
    pub location: Option<String>,
    /// MIME type of the body.
    pub content_type: Option<String>,
    /// What encoding the body has, though none was asked for.
    pub content_encoding: Option<String>,
    /// The body, or the begin of it.
    pub body: Vec<u8>,
    /// What is missing of the body.
    pub missing: Missing,
}

/// What of a body was not read.
#[derive(Debug)]
pub enum Missing {
    /// Nothing.
    Nothing,
    /// What is beyond the bound.
    Rest,
    /// What could not be had.
    Lost(Lost),
}

/// Why there is no answer, or not all of it.
#[derive(Debug)]
pub struct Lost {
    /// Timeout or failed.
    pub class: ErrorClass,
    /// One lowercase sentence.
    pub why: String,
}

/// How an exchange ended.
pub type Exchanged = Result<Received, Lost>;

/// The client of one worker thread; owned by its companion.
#[derive(Debug)]
pub struct Client {
    agent: Agent,
    target: Target,
    limits: Limits,
    names: Names,
    fresh: Fresh,
}

/// Ends a client's connections from another thread.
#[derive(Debug)]
pub struct Closer(Agent);

impl Closer {
    /// Ends what it is sending or receiving, and every later request.
    pub fn close(&self) {
        self.0.clone().shutdown();
    }
}

impl Client {
    /// Connects to nothing yet.
    pub fn new(target: Target, limits: Limits, trust: &Trust) -> Self {
        let config = Agent::config_builder()
            .tls_config(trust.tls())
            .proxy(None)
            .http_status_as_error(false)
            .max_redirects(0)
            .timeout_global(Some(limits.timeout))
            .timeout_recv_body(limits.reply.is_none().then_some(MAX_DRAINING))
            .user_agent(concat!("warrend/", env!("CARGO_PKG_VERSION")))
            .accept_encoding("identity")
            .input_buffer_size(BUFFER)
            .output_buffer_size(BUFFER)
            .max_response_header_size(MAX_HEADER)
            .max_idle_connections(1)
            .build();
        let (names, fresh) = (Names::default(), Fresh::default());
        let connector = DefaultConnector::default().chain(fresh.clone());
        let agent = Agent::with_parts(config, connector, names.clone());
        Self { agent, target, limits, names, fresh }
    }

    /// For the thread that waits.
    pub fn closer(&self) -> Closer {
        Closer(self.agent.clone())
    }

    /// Sends one request and reads its answer; called by the companion.
    pub fn exchange(&mut self, request: Request) -> Exchanged {
        self.fresh.clear();
        let mut response = self.agent.run(request.to_send());
        if request.has_key() && !self.fresh.is_set() && response.as_ref().is_err_and(is_cut) {
            response = self.agent.run(request.to_send());
        }
        drop(request);
        let response = response.map_err(|error| self.lost(&error, "answered"))?;
        let (parts, body) = response.into_parts();
        let status = parts.status;
        let (body, missing) = match self.limits.reply.filter(|_| status.is_success()) {
            Some(most) => self.read(body, most, 0),
            None => self.read(body, EXCERPT, MAX_DRAINED),
        };
        Ok(Received {
            status,
            retry_after: text(&parts.headers, RETRY_AFTER),
            location: text(&parts.headers, LOCATION),
            content_type: text(&parts.headers, CONTENT_TYPE),
            content_encoding: text(&parts.headers, CONTENT_ENCODING),
            body,
            missing,
        })
    }

    /// Reads a body. Up to `most` bytes are kept; `drained` more are read where there are more, for the connection's sake.
    fn read(&self, body: Body, most: usize, drained: u64) -> (Vec<u8>, Missing) {
        let mut kept = Vec::new();
        let mut reader = body.into_reader();
        let more = (most as u64).saturating_add(1);
        let read = reader.by_ref().take(more).read_to_end(&mut kept);
        if kept.len() <= most {
            let missing = read.map_or_else(|error| self.lost_body(error), |_| Missing::Nothing);
            return (kept, missing);
        }
        kept.truncate(most);
        // One byte more than is wanted: the end of the body must be seen. What goes wrong here concerns nobody.
        let _ = io::copy(&mut reader.take(drained + 1), &mut io::sink());
        (kept, Missing::Rest)
    }

    fn lost_body(&self, error: io::Error) -> Missing {
        Missing::Lost(self.lost(&ureq::Error::from(error), "had answered all"))
    }

    fn lost(&self, error: &ureq::Error, until: &str) -> Lost {
        // Another address may do better.
        self.names.forget();
        let host = &self.target.host;
        if let ureq::Error::Timeout(_) = error {
            return Lost::late(&self.target, self.limits.timeout);
        }
        let why = if is_cut(error) {
            format!("{host} closed the connection before it {until}")
        } else if let ureq::Error::Protocol(error) = error {
            format!("{host} answered what is not http: {}", plain(error))
        } else if let ureq::Error::LargeResponseHeader(_, most) = error {
            format!("{host} answered with a header of more than {most} bytes")
        } else if let ureq::Error::Rustls(error) = error {
            format!("no TLS with {host}: {}", plain(error))
        } else if let ureq::Error::Io(error) = error {
            let tls = error.get_ref().is_some_and(|inner| inner.is::<rustls::Error>());
            format!("no {} {host}: {}", if tls { "TLS with" } else { "connection to" }, plain(error))
        } else {
            format!("no exchange with {host}: {}", plain(error))
        };
        Lost { class: ErrorClass::Failed, why }
    }
}

impl Lost {
    /// The timeout was over first.
    pub fn late(target: &Target, timeout: Duration) -> Self {
        Self { class: ErrorClass::Timeout, why: format!("no answer from {} within {timeout:?}", target.host) }
    }
}

/// Whether the other side ended the connection.
fn is_cut(error: &ureq::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    let ureq::Error::Io(error) = error else {
        return false;
    };
    [BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof].contains(&error.kind())
}

/// An error of a library as the end of a sentence.
fn plain(error: &impl ToString) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    // `failed to lookup address information` is the standard library's wording, with the reason after it.
    let text = text.strip_prefix("failed to lookup address information: ").unwrap_or(text);
    let mut chars = text.chars();
    let second = chars.clone().nth(1);
    match chars.next() {
        Some(first) if !second.is_some_and(char::is_uppercase) => first.to_lowercase().chain(chars).collect(),
        Some(_) | None => text.to_owned(),
    }
}

fn text(headers: &HeaderMap, name: HeaderName) -> Option<String> {
    headers.get(name)?.to_str().ok().map(str::to_owned)
}
