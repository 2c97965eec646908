//! `broker.management_url` taken apart: `http://user:password@host:port/prefix`.
//!
//! No message here repeats any part of the URL: it may hold a password, even misplaced.

use url::Url;

use super::Management;
use super::broker_url;

/// What is wrong with a URL, and how to mend it.
pub type Fault = (&'static str, &'static str);

/// What every message that cannot be more exact gives as the mend.
const FORM: &str = "write http://HOST:15672, or https://HOST:15671 for TLS; USER:PASSWORD@ before the host if they are not those of AMQP";

/// Takes a URL apart, and gives its host too.
pub fn parse(text: &str) -> Result<(Management, String), Fault> {
    if text.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err(("this URL holds a blank or a control character", "remove it, or write it percent-encoded"));
    }
    let mut url = Url::parse(text).map_err(|_| ("this is no URL of the management API", FORM))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(("this is no URL of the management API", FORM));
    }
    if url.query().is_some() || url.fragment().is_some() {
        let help = "remove what follows the `?` or `#`; in a password they are written %3F and %23";
        return Err(("the URL of the management API has no parameters", help));
    }
    let host = url.host_str().ok_or(("this URL has no host", FORM))?.to_owned();
    let decode = |text: &str| {
        let decoded = broker_url::decode(text);
        decoded.ok_or(("user or password of this URL is not percent-encoded text", "a plain `%` is written %25"))
    };
    let (user, password) = (decode(url.username())?, url.password().map(decode).transpose()?);
    let login = match (user.is_empty(), password) {
        (true, None) => None,
        (false, Some(password)) if !password.is_empty() => Some((user, password)),
        (true | false, _) => return Err(("this URL needs both a user and a password, or neither", FORM)),
    };
    let plain = url.set_username("").and_then(|()| url.set_password(None));
    plain.map_err(|()| ("this URL has no host", FORM))?;
    let path = url.path().trim_end_matches('/');
    let path = path.strip_suffix("/api").unwrap_or(path).to_owned();
    url.set_path(&path);
    Ok((Management { url: url.as_str().trim_end_matches('/').to_owned(), login }, host))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_urls_apart() {
        let check = |text: &str, url: &str, login: Option<(&str, &str)>| {
            let (found, _) = parse(text).expect(text);
            let login = login.map(|(user, password)| (user.to_owned(), password.to_owned()));
            assert_eq!((&*found.url, &found.login), (url, &login), "{text}");
            assert!(!format!("{found:?}").contains("p/w"), "{found:?}");
        };
        check("http://127.0.0.1:15672", "http://127.0.0.1:15672", None);
        check("http://localhost:15672/", "http://localhost:15672", None);
        check("https://rabbit.example.org/api/", "https://rabbit.example.org", None);
        check("https://h:15671/mq/api", "https://h:15671/mq", None);
        check("http://ops:p%2fw@[::1]:15672", "http://[::1]:15672", Some(("ops", "p/w")));
    }

    #[test]
    fn says_what_is_wrong() {
        for (text, part) in [
            ("localhost:15672", "no URL"),
            ("amqp://localhost", "no URL"),
            ("http://", "no URL"),
            ("http://ops@h", "both a user and a password"),
            ("http://:p@h", "both a user and a password"),
            ("http://o:%zz@h", "percent-encoded"),
            ("http://h/?x=1", "no parameters"),
            ("http://h x", "blank"),
        ] {
            let (message, _) = parse(text).expect_err(text);
            assert!(message.contains(part), "{text}: {message}");
        }
    }
}
