//! The broker's management API: just enough HTTP to make vhosts, and to see and close connections.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::Value;

/// Where the API is and who asks.
#[derive(Clone)]
pub struct Management {
    /// `host:port` of each node; one of them answers for all.
    authorities: Vec<String>,
    user: String,
    password: String,
}

impl Management {
    /// `url` is `http://host:port`.
    pub fn new(url: &str, user: &str, password: &str) -> Result<Self, String> {
        let authority = url
            .strip_prefix("http://")
            .ok_or_else(|| format!("the management URL {url} does not start with http://"))?
            .trim_end_matches('/');
        Ok(Self { authorities: vec![authority.to_owned()], user: user.to_owned(), password: password.to_owned() })
    }

    /// The same API, at other nodes of the cluster too.
    pub fn and(mut self, other: &Self) -> Self {
        self.authorities.extend_from_slice(&other.authorities);
        self
    }

    /// The answer's JSON, `Null` where it is empty. A status other than 2xx is an error.
    pub fn call(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Value, String> {
        let failed = |why: String| format!("{method} http://{}{path}: {why}", self.authorities.join("|"));
        // The next one where a node is down.
        let tries = self.authorities.iter().map(|authority| self.exchange(authority, method, path, body));
        let mut failure = String::new();
        let answer = tries.filter_map(|tried| tried.map_err(|error| failure = error.to_string()).ok()).next();
        let answer = answer.ok_or_else(|| failed(failure))?;
        let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(|| failed("no HTTP answer".to_owned()))?;
        let status = head.split(' ').nth(1).unwrap_or_default();
        if !status.starts_with('2') {
            return Err(failed(format!("status {status}: {body}")));
        }
        if body.trim().is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_str(body).map_err(|error| failed(format!("not JSON ({error}): {body}")))
    }

    /// HTTP/1.0: the server closes the connection after the body and never sends it in chunks.
    fn exchange(&self, authority: &str, method: &str, path: &str, body: Option<&Value>) -> std::io::Result<String> {
        let mut stream = TcpStream::connect(authority)?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        stream.set_write_timeout(Some(Duration::from_secs(30)))?;
        let body = body.map(Value::to_string).unwrap_or_default();
        write!(
            stream,
            "{method} {path} HTTP/1.0\r\nHost: {}\r\nAuthorization: Basic {}\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            authority,
            BASE64.encode(format!("{}:{}", self.user, self.password)),
            body.len(),
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    }
}

/// A path segment with everything escaped that is not a letter or digit.
pub fn escape(segment: &str) -> String {
    segment.bytes().fold(String::new(), |text, byte| {
        if byte.is_ascii_alphanumeric() { format!("{text}{}", char::from(byte)) } else { format!("{text}%{byte:02X}") }
    })
}
