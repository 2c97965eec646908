//! What is sent: the body, and what is known about the message in headers.
//!
//! | Header | Value |
//! | --- | --- |
//! | `Content-Type` | the message's; `application/octet-stream` where it has none |
//! | `Content-Encoding` | the message's, where the body still has it |
//! | `Idempotency-Key` | the key, the same over all attempts |
//! | `traceparent`, `tracestate` | the message's headers of these names |
//! | `Warrend-*` | as the environment of a `command` has it, and `Warrend-Type` and `Warrend-App-Id` |
//! | `webhook-id`, `-timestamp`, `-signature` | with `secret_file`: Standard Webhooks |
//!
//! Absent is what the message lacks. A configured header wins over the one here; the configuration refuses those that must
//! stay what they are. The message's other headers are not sent:
//! they come from a publisher, and could change what a request means.
//!
//! The `Idempotency-Key` is not in quotes. The IETF draft (draft-ietf-httpapi-idempotency-key-header) makes it a quoted
//! string, but the services that have had the header for years (Stripe and those after it) take the value as it stands,
//! and would take the quotes for a part of the key.
//!
//! Values are percent-encoded where they hold anything but printable ASCII, a `%`, or a space at either end: two different
//! keys never look the same, and any URL decoder gives back the text.

use std::borrow::Cow;
use std::fmt::Write as _;

use sha2::{Digest, Sha256};
use ureq::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use ureq::http::{Method, Uri};
use url::Url;

use super::secret::Secret;
use crate::config;
use crate::handler::{Context, Input};
use crate::task::{self, UnixMillis};

/// The type of a body of which nothing is known.
const OCTETS: HeaderValue = HeaderValue::from_static("application/octet-stream");
/// Bytes of one value that come from the message. Servers refuse headers of some 8 KiB, and a key can be any text.
const MAX_VALUE: usize = 1024;

/// Where requests go.
#[derive(Debug, Clone)]
pub struct Target {
    /// As it was configured.
    url: Url,
    /// The same in the form that the client takes.
    uri: Uri,
    /// For people: host and port. Path and query can hold tokens and are never shown.
    pub host: String,
}

impl Target {
    /// Reads the configured URL.
    fn new(url: &str) -> Result<Self, String> {
        // The errors of the parsers are not told: they could show the URL.
        let wrong = || "the url of the http handler is not an http:// or https:// URL".to_owned();
        let url = Url::parse(url).map_err(|_| wrong())?;
        let uri = Uri::try_from(url.as_str()).map_err(|_| wrong())?;
        let (Some(host), Some(port)) = (url.host_str(), url.port_or_known_default()) else {
            return Err(wrong());
        };
        let host = format!("{host}:{port}");
        if matches!(url.scheme(), "http" | "https") { Ok(Self { url, uri, host }) } else { Err(wrong()) }
    }

    /// Whether connections are encrypted.
    pub fn is_tls(&self) -> bool {
        self.url.scheme() == "https"
    }

    /// Scheme, host and port of what a `Location` names, seen from here.
    pub fn origin_of(&self, location: &str) -> Option<String> {
        let url = self.url.join(location).ok()?;
        url.has_host().then(|| url.origin().ascii_serialization())
    }
}

/// One request, ready to be sent.
#[derive(Debug)]
pub struct Request {
    uri: Uri,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Request {
    /// In the form that the client takes; made anew for each time that it is sent.
    pub fn to_send(&self) -> ureq::http::Request<&[u8]> {
        let mut request = ureq::http::Request::new(&*self.body);
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = self.headers.clone();
        request
    }

    /// Whether the receiver can tell that it got this request twice.
    pub fn has_key(&self) -> bool {
        self.headers.contains_key("idempotency-key")
    }
}

/// What is the same for every request.
#[derive(Debug)]
pub struct Template {
    target: Target,
    /// Configured headers.
    headers: HeaderMap,
}

impl Template {
    /// An error is a sentence without the value of any header.
    pub fn new(config: &config::Http) -> Result<Self, String> {
        let mut headers = HeaderMap::new();
        for (name, value) in &config.headers {
            let shown = name.escape_debug();
            let header: HeaderName =
                name.parse().map_err(|_| format!("the configured header `{shown}` has no valid name"))?;
            let mut value = HeaderValue::from_str(value)
                .map_err(|_| format!("the configured header `{shown}` has a value that no header can have"))?;
            // It is not printed then, whoever prints the map.
            value.set_sensitive(true);
            headers.insert(header, value);
        }
        Ok(Self { target: Target::new(&config.url)?, headers })
    }

    /// Where requests go.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// The request for one task. `now` is the time of its signature.
    pub fn request(&self, context: &Context, input: &Input<'_>, secret: Option<&Secret>, now: UnixMillis) -> Request {
        let mut headers = Headers(HeaderMap::with_capacity(32));
        headers.describe(context, input);
        if let Some(secret) = secret {
            headers.sign(secret, &webhook_id(input), &input.body, now);
        }
        self.finish(headers, &input.body)
    }

    /// The request for a notification, which is JSON.
    pub fn notice(&self, id: &str, body: &[u8], secret: Option<&Secret>, now: UnixMillis) -> Request {
        let mut headers = Headers(HeaderMap::new());
        headers.0.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.set("idempotency-key", Some(id));
        if let Some(secret) = secret {
            headers.sign(secret, id, body, now);
        }
        self.finish(headers, body)
    }

    fn finish(&self, mut headers: Headers, body: &[u8]) -> Request {
        for (name, value) in &self.headers {
            headers.0.insert(name, value.clone());
        }
        Request { uri: self.target.uri.clone(), headers: headers.0, body: body.to_vec() }
    }
}

/// Headers under construction.
struct Headers(HeaderMap);

impl Headers {
    fn describe(&mut self, context: &Context, input: &Input<'_>) {
        let message = &input.task.message;
        let properties = &message.properties;
        let number = |n: Option<u64>| n.map(|n| n.to_string());
        let content_type = properties.content_type.as_deref().and_then(|text| HeaderValue::from_str(text).ok());
        self.0.insert(header::CONTENT_TYPE, content_type.unwrap_or(OCTETS));
        self.set_as_it_is("content-encoding", input.content_encoding());
        self.set_as_it_is("traceparent", properties.headers.get("traceparent").and_then(task::HeaderValue::as_text));
        self.set_as_it_is("tracestate", properties.headers.get("tracestate").and_then(task::HeaderValue::as_text));
        self.set("idempotency-key", input.task.key.as_ref().map(|key| short(key.to_text())).as_deref());
        self.set("warrend-job", Some(&context.job));
        self.set("warrend-queue", Some(&context.queues[input.task.queue]));
        self.set("warrend-attempt", number(Some(input.task.attempt.into())).as_deref());
        self.set("warrend-max-attempts", number(Some(context.max_attempts.into())).as_deref());
        self.set("warrend-redelivered", Some(if message.redelivered { "1" } else { "0" }));
        self.set("warrend-priority", number(Some(input.task.priority.into())).as_deref());
        self.set("warrend-exchange", Some(&message.exchange));
        self.set("warrend-routing-key", Some(&message.routing_key));
        self.set("warrend-message-id", properties.message_id.as_deref());
        self.set("warrend-correlation-id", properties.correlation_id.as_deref());
        self.set("warrend-reply-to", properties.reply_to.as_deref());
        self.set("warrend-timestamp", number(properties.timestamp).as_deref());
        self.set("warrend-type", properties.kind.as_deref());
        self.set("warrend-app-id", properties.app_id.as_deref());
    }

    /// <https://www.standardwebhooks.com>: the id stays the same over all attempts, the time is that of this one.
    fn sign(&mut self, secret: &Secret, id: &str, body: &[u8], now: UnixMillis) {
        // The signature covers `id.seconds.body`: an id with a full stop could be read as an id and a time.
        let id = encode(id).replace('.', "%2E");
        let seconds = now.0.div_euclid(1000);
        let signature = secret.sign(&id, seconds, body);
        self.set_as_it_is("webhook-id", Some(&id));
        self.set_as_it_is("webhook-timestamp", Some(&seconds.to_string()));
        self.set_as_it_is("webhook-signature", Some(&signature));
    }

    /// Sets a value, encoded; one that is too long is left out.
    fn set(&mut self, name: &'static str, value: Option<&str>) {
        let value = value.map(encode).filter(|value| value.len() <= MAX_VALUE);
        self.set_as_it_is(name, value.as_deref());
    }

    /// Sets a value that no header can have not at all.
    fn set_as_it_is(&mut self, name: &'static str, value: Option<&str>) {
        if let Some(value) = value.and_then(|value| HeaderValue::from_str(value).ok()) {
            self.0.insert(HeaderName::from_static(name), value);
        }
    }
}

/// The key; the message's own id where it has no key. Where it has neither: when it was first seen and the digest of its
/// body, which stay the same over its attempts and differ from those of another message with the same body.
fn webhook_id(input: &Input<'_>) -> String {
    let task = input.task;
    let key = task.key.as_ref().map(|key| key.to_text());
    match key.or_else(|| task.message.properties.message_id.clone()) {
        Some(id) => short(id),
        None => format!("{}-{}", task.first_seen.0, hex::encode(&Sha256::digest(&task.message.body)[..16])),
    }
}

/// A key that is too long for a header is replaced by its digest.
fn short(key: String) -> String {
    if encode(&key).len() <= MAX_VALUE / 2 { key } else { format!("sha256:{}", hex::encode(Sha256::digest(&key))) }
}

/// The text in a form that a header can hold; see the head of this file.
fn encode(text: &str) -> Cow<'_, str> {
    let last = text.len().saturating_sub(1);
    let plain = |at: usize, byte: u8| match byte {
        b'%' => false,
        b' ' => at != 0 && at != last,
        b'!'..=b'~' => true,
        0..=b' ' | 0x7f.. => false,
    };
    if text.bytes().enumerate().all(|(at, byte)| plain(at, byte)) {
        return Cow::Borrowed(text);
    }
    let mut encoded = String::with_capacity(2 * text.len());
    for (at, byte) in text.bytes().enumerate() {
        if plain(at, byte) {
            encoded.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    Cow::Owned(encoded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_encoded_so_that_none_looks_like_another() {
        let check = |text: &str, encoded: &str| assert_eq!(encode(text), encoded);
        check("", "");
        check("order.42/a b:c?\"", "order.42/a b:c?\"");
        check(" a ", "%20a%20");
        check(" ", "%20");
        check("50%", "50%25");
        check("ü\r\n\t\0\u{7f}", "%C3%BC%0D%0A%09%00%7F");
        check("%20a", "%2520a");
    }

    #[test]
    fn a_long_key_is_sent_as_its_digest() {
        assert_eq!(short("k".repeat(MAX_VALUE / 2)), "k".repeat(MAX_VALUE / 2));
        let digest = short("k".repeat(MAX_VALUE / 2 + 1));
        assert!(digest.starts_with("sha256:") && digest.len() == 71, "{digest}");
        assert_ne!(digest, short("k".repeat(MAX_VALUE / 2 + 2)));
    }

    #[test]
    fn only_what_leads_to_a_server_is_told_of_a_url() {
        let target = Target::new("https://hooks.example.org/in/s3cret?token=s3cret").unwrap();
        assert_eq!(target.host, "hooks.example.org:443");
        let origin = |location| target.origin_of(location);
        assert_eq!(origin("/login?s3cret").as_deref(), Some("https://hooks.example.org"));
        assert_eq!(origin("http://u:s3cret@[::1]:81/s3cret").as_deref(), Some("http://[::1]:81"));
        assert_eq!(origin("https://"), None);
        assert_eq!(origin("data:s3cret"), None);
        for wrong in ["", "s3cret", "ftp://s3cret/", "https://", "http:///s3cret"] {
            let told = Target::new(wrong).map(|target| target.host).map_err(|error| error.contains("s3cret"));
            assert!(told == Err(false) || wrong == "http:///s3cret", "{wrong}: {told:?}");
        }
    }
}
