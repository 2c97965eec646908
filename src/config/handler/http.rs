//! The keys of an `http` handler. No message here repeats any part of the URL or of a header's value: webhooks have
//! their secrets in the path, in the query, or in a header.

use std::collections::BTreeMap;
use std::time::Duration;

use url::{Host, ParseError, Url};

use crate::config::Http;
use crate::config::host::is_this_machine;
use crate::config::item::Item;
use crate::config::section::Section;
use crate::config::sketch::Want;

/// What every message that cannot be more exact gives as the mend.
const FORM: &str = "write https://HOST:PORT/PATH; the port and the path may be left out";

/// Headers that warrend sets itself, or that frame the request: sent twice, or wrong, they would break it.
const OWN_HEADERS: [&str; 13] = [
    "connection",
    "content-encoding",
    "content-length",
    "expect",
    "host",
    "idempotency-key",
    "keep-alive",
    "proxy-connection",
    "te",
    "traceparent",
    "trailer",
    "transfer-encoding",
    "upgrade",
];
/// And all that begin so.
const OWN_PREFIXES: [&str; 2] = ["warrend-", "webhook-"];

/// All but the URL, which is still empty here.
pub fn request(section: &Section<'_>, timeout: Duration) -> Http {
    Http {
        url: String::new(),
        timeout,
        headers: section.get("headers", BTreeMap::new(), |item| headers(&item)).value,
        secret_file: section.get("secret_file", None, |item| item.path().map(Some)).value,
        ca_file: section.get("ca_file", None, |item| item.path().map(Some)).value,
    }
}

/// The URL, as the URL standard writes it. `section`: the table it stands in. `what` would be sent there, for a warning.
pub fn url(item: &Item<'_>, section: &Section<'_>, what: &str) -> Option<String> {
    item.want(Want::Form("^https?://"));
    let url = match parse(&item.filled_text()?.value) {
        Ok(url) => url,
        Err((message, help)) => return item.error(message, help),
    };
    if url.scheme() == "http" {
        if !url.host_str().is_some_and(is_this_machine) {
            let help = "write https://; plain http:// is for addresses of this machine";
            item.reader().warn(item.place, format!("{what} would cross the network unencrypted"), help);
        }
        if let Some(ca_file) = section.item("ca_file") {
            let help = "certificates are those of https://";
            item.reader().warn(ca_file.key_place, "`ca_file` has no effect with an http:// URL", help);
        }
    }
    Some(url.into())
}

fn parse(text: &str) -> Result<Url, (&'static str, &'static str)> {
    if text.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err(("this URL holds a blank or a control character", "remove it, or write it percent-encoded"));
    }
    let url = Url::parse(text).map_err(|error| {
        if error == ParseError::InvalidPort {
            ("the port of this URL is not a number from 1 to 65535", FORM)
        } else if error == ParseError::EmptyHost {
            ("this URL has no host", FORM)
        } else {
            ("this is no URL", FORM)
        }
    })?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(("this is no http:// or https:// URL", FORM));
    }
    if !url.username().is_empty() || url.password().is_some() {
        let help = "send them as a header, headers = { Authorization = \"${NAME}\" }, or sign with secret_file";
        return Err(("this URL holds a user or a password", help));
    }
    if url.fragment().is_some() {
        return Err(("this URL holds a `#`", "remove it and what follows: it is never sent; a plain # is written %23"));
    }
    if url.port() == Some(0) {
        return Err(("the port of this URL is 0", "allowed: 1 to 65535"));
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    match url.host() {
        Some(Host::Domain(name)) if !name.chars().all(plain) => {
            Err(("the host of this URL is no name and no address", "allowed: letters, digits, `.`, `-` and `_`"))
        }
        Some(Host::Domain(_) | Host::Ipv4(_) | Host::Ipv6(_)) => Ok(url),
        None => Err(("this URL has no host", FORM)),
    }
}

fn headers(item: &Item<'_>) -> Option<BTreeMap<String, String>> {
    let mut headers: BTreeMap<String, String> = BTreeMap::new();
    item.names("^[A-Za-z0-9!#$%&'*+.^_`|~-]+$");
    for (name, value) in item.entries()? {
        let lower = name.to_ascii_lowercase();
        let error = |message: &str, help: &str| value.reader().error(value.key_place, message, help);
        if name.is_empty() || !name.bytes().all(is_token) {
            error("this is no name of a header", "allowed: letters, digits and !#$%&'*+-.^_`|~");
        } else if OWN_HEADERS.contains(&&*lower) || OWN_PREFIXES.iter().any(|prefix| lower.starts_with(prefix)) {
            error(&format!("warrend sets the header {} itself", value.name()), "remove it");
        } else if headers.keys().any(|other| other.eq_ignore_ascii_case(name)) {
            error(
                &format!("the header {} stands here twice", value.name()),
                "in the names of headers case is the same",
            );
        } else if let Some(value) = header_value(&value) {
            headers.insert(name.to_owned(), value);
        }
    }
    Some(headers)
}

/// RFC 9110, section 5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// RFC 9110, section 5.5: what every server takes.
fn header_value(item: &Item<'_>) -> Option<String> {
    let text = item.text()?.value;
    if !text.bytes().all(|byte| byte == b'\t' || (b' '..=b'~').contains(&byte)) {
        let help = "allowed: visible ASCII characters, blanks and tabs; no line breaks";
        return item.error(format!("{} holds what no header can", item.name()), help);
    }
    if text.trim() != text {
        let help = "remove them: a server does not see them";
        return item.error(format!("{} begins or ends with a blank", item.name()), help);
    }
    Some(text)
}
