//! The broker's management API: just enough HTTP to make vhosts, and to see and close connections.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::Value;

/// Where the API is and who asks.
#[derive(Clone)]
pub struct Management {
    /// `host:port`
    authority: String,
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
        Ok(Self {
            authority: authority.to_owned(),
            user: user.to_owned(),
            password: password.to_owned(),
        })
    }

    /// The answer's JSON, `Null` where it is empty. A status other than 2xx is an error.
    pub fn call(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Value, String> {
        let failed = |why: String| format!("{method} http://{}{path}: {why}", self.authority);
        let answer = self
            .exchange(method, path, body)
            .map_err(|error| failed(error.to_string()))?;
        let (head, body) = answer
            .split_once("\r\n\r\n")
            .ok_or_else(|| failed("no HTTP answer".to_owned()))?;
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
    fn exchange(&self, method: &str, path: &str, body: Option<&Value>) -> std::io::Result<String> {
        let mut stream = TcpStream::connect(&self.authority)?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        stream.set_write_timeout(Some(Duration::from_secs(30)))?;
        let body = body.map(Value::to_string).unwrap_or_default();
        write!(
            stream,
            "{method} {path} HTTP/1.0\r\nHost: {}\r\nAuthorization: Basic {}\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            self.authority,
            base64(format!("{}:{}", self.user, self.password).as_bytes()),
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
        if byte.is_ascii_alphanumeric() {
            format!("{text}{}", char::from(byte))
        } else {
            format!("{text}%{byte:02X}")
        }
    })
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let word = group
            .iter()
            .chain([0, 0].iter())
            .take(3)
            .fold(0, |word, &byte| word << 8 | usize::from(byte));
        for place in 0..4 {
            let digit = char::from(DIGITS[word >> (18 - 6 * place) & 63]);
            text.push(if place <= group.len() { digit } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_pads_as_rfc_4648_says() {
        let vectors = [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
        ];
        for (plain, encoded) in vectors {
            assert_eq!(base64(plain.as_bytes()), encoded);
        }
    }

    #[test]
    fn a_connection_name_is_one_path_segment() {
        assert_eq!(
            escape("127.0.0.1:1 -> [::1]:2/ü"),
            "127%2E0%2E0%2E1%3A1%20%2D%3E%20%5B%3A%3A1%5D%3A2%2F%C3%BC"
        );
    }
}
