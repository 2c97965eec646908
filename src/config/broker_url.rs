//! A broker URL taken apart: `amqp://user:password@host:port/vhost`.
//!
//! Without user and password they are `guest` and `guest`, without a port it is 5672, for `amqps://` 5671, and without a
//! virtual host (or with nothing but the slash) it is `/`, which is written `%2f`. No message here repeats any part of the URL but the
//! scheme: the rest may hold a secret, even misplaced.

use url::{Host, ParseError, Url};

use super::BrokerHost;
use crate::tls;

/// What every message that cannot be more exact gives as the mend.
const FORM: &str = "write amqp://USER:PASSWORD@HOST:PORT/VHOST, or amqps:// for TLS; all but the host may be left out, and / is written %2f";
/// The longest user name, password or virtual host: what AMQP 0-9-1 calls a short string.
const LONGEST: usize = 255;
const PLAIN_PORT: u16 = 5672;
const TLS_PORT: u16 = 5671;

/// What is wrong with a URL, and how to mend it.
pub type Fault = (&'static str, &'static str);

/// Where the password stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Password {
    /// In the URL.
    Here,
    /// In a file, which makes up for a missing one.
    Elsewhere,
    /// There is none, and no user: a certificate takes their place.
    Never,
}

/// Takes a URL apart.
pub fn parse(text: &str, password: Password) -> Result<BrokerHost, Fault> {
    if text.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err(("this URL holds a blank or a control character", "remove it, or write it percent-encoded"));
    }
    let url = Url::parse(text).map_err(|error| not_a_url(text, error))?;
    let (tls, default_port) = match url.scheme() {
        "amqp" => (false, PLAIN_PORT),
        "amqps" => (true, TLS_PORT),
        _ => return Err(("this is no AMQP URL", FORM)),
    };
    if url.query().is_some() {
        return Err((
            "a broker URL has no parameters here",
            "remove what follows the `?`: heartbeat and timeouts are keys of [broker]; a `?` in a password is written %3F",
        ));
    }
    if url.fragment().is_some() {
        return Err(("a broker URL has no `#`", "a `#` in a password is written %23"));
    }
    let (user, password) = credentials(&url, password)?;
    let host = host(&url)?;
    if tls && tls::server_name(&host).is_none() {
        return Err((
            "the host of this URL cannot stand in a certificate",
            "write it as the broker's certificate has it",
        ));
    }
    Ok(BrokerHost {
        host,
        tls,
        port: match url.port() {
            Some(0) => return Err(("the port of this URL is 0", "allowed: 1 to 65535")),
            Some(port) => port,
            None => default_port,
        },
        user,
        password,
        vhost: vhost(&url, text)?,
    })
}

fn not_a_url(text: &str, error: ParseError) -> Fault {
    if !text.contains("://") {
        return ("this is no AMQP URL", FORM);
    }
    // A `/`, `?` or `#` in a password ends the host early, and what stands before it is taken for a port.
    let authority = text.split("://").nth(1).unwrap_or_default();
    let early_end = authority.find(['/', '?', '#']).zip(authority.rfind('@')).is_some_and(|(end, at)| end < at);
    if early_end {
        return (
            "the user or password of this URL holds a plain `/`, `?` or `#`",
            "write it percent-encoded: / is %2F, ? is %3F, # is %23",
        );
    }
    if error == ParseError::InvalidPort {
        ("the port of this URL is not a number from 1 to 65535", FORM)
    } else if error == ParseError::EmptyHost {
        ("this URL has no host", FORM)
    } else if error == ParseError::InvalidIpv6Address {
        ("the host of this URL is no IPv6 address", "write it as in amqp://[::1]:5672")
    } else {
        ("this is no AMQP URL", FORM)
    }
}

fn host(url: &Url) -> Result<String, Fault> {
    match url.host() {
        None => Err(("this URL has no host", FORM)),
        Some(Host::Ipv4(address)) => Ok(address.to_string()),
        Some(Host::Ipv6(address)) => Ok(address.to_string()),
        Some(Host::Domain(name)) => {
            let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
            let fault =
                ("the host of this URL is no name and no address", "allowed: letters, digits, `.`, `-` and `_`");
            if name.chars().all(plain) { Ok(name.to_owned()) } else { Err(fault) }
        }
    }
}

fn credentials(url: &Url, place: Password) -> Result<(String, String), Fault> {
    let user = decode(url.username()).ok_or(("the user of this URL is not percent-encoded text", FORM))?;
    let password = decode(url.password().unwrap_or_default())
        .ok_or(("the password of this URL is not percent-encoded text", "a plain `%` is written %25"))?;
    if place == Password::Never {
        let none = user.is_empty() && password.is_empty();
        let help = "remove user and password: with auth = \"external\" the broker takes the user from the certificate";
        return if none {
            Ok((user, password))
        } else {
            Err(("this URL has a user, and so has the certificate", help))
        };
    }
    match (user.is_empty(), password.is_empty()) {
        (true, true) => Ok(("guest".to_owned(), "guest".to_owned())),
        (true, false) => Err(("this URL has a password but no user", FORM)),
        (false, true) if place == Password::Here => {
            Err(("this URL has a user but no password", "add the password, or set broker.password_file"))
        }
        (false, _) => Ok((user, password)),
    }
}

fn vhost(url: &Url, text: &str) -> Result<String, Fault> {
    // Dots as path segments are resolved by the URL standard, and other characters encoded: then the paths differ.
    let written = text.split_once("://").and_then(|(_, rest)| rest.find('/').map(|slash| &rest[slash..]));
    if written.unwrap_or_default() != url.path() {
        return Err(("the virtual host of this URL is not percent-encoded", "write what is special in it as %XX"));
    }
    let path = url.path().strip_prefix('/').unwrap_or_default();
    if path.contains('/') {
        return Err(("the virtual host of this URL holds a plain `/`", "write each / of its name as %2f"));
    }
    if path.contains('@') {
        return Err((
            "the virtual host of this URL holds a plain `@`",
            "a / in a password is written %2F; an @ in a virtual host %40",
        ));
    }
    if path.is_empty() {
        return Ok("/".to_owned());
    }
    decode(path).ok_or(("the virtual host of this URL is not percent-encoded text", "a plain `%` is written %25"))
}

/// Percent-decoded UTF-8 that fits AMQP; `None` where it is not that.
pub fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        rest = after;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let [high, low, after @ ..] = rest else {
            return None;
        };
        let digit = |byte: u8| char::from(byte).to_digit(16);
        bytes.push(u8::try_from(digit(*high)? * 16 + digit(*low)?).ok()?);
        rest = after;
    }
    String::from_utf8(bytes).ok().filter(|text| text.len() <= LONGEST && !text.contains('\0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_urls_apart() {
        let check = |text: &str, host: &str, user: &str, password: &str, vhost: &str| {
            let got = parse(text, Password::Here).expect(text);
            assert_eq!(got.to_string(), host, "{text}");
            assert_eq!((&*got.user, &*got.password, &*got.vhost), (user, password, vhost), "{text}");
        };
        check("amqp://h", "h:5672", "guest", "guest", "/");
        check("amqp://h/", "h:5672", "guest", "guest", "/");
        check("AMQP://h:1/%2f", "h:1", "guest", "guest", "/");
        check("amqp://h:1/%2F", "h:1", "guest", "guest", "/");
        check("amqp://u:p@h.example.org:65535/v", "h.example.org:65535", "u", "p", "v");
        check("amqp://u%40x:p%2f%25%C3%A9@10.0.0.1/a%2fb", "10.0.0.1:5672", "u@x", "p/%é", "a/b");
        check("amqp://u:p@ss@h", "h:5672", "u", "p@ss", "/");
        check("amqp://u:p:q@h", "h:5672", "u", "p:q", "/");
        check("amqp://[::1]:5673/x", "[::1]:5673", "guest", "guest", "x");
        check("amqp://my_rabbit-1/x.y", "my_rabbit-1:5672", "guest", "guest", "x.y");
        check("amqps://my_rabbit-1/x.y", "my_rabbit-1:5671", "guest", "guest", "x.y");
        check("amqps://u:p@[::1]", "[::1]:5671", "u", "p", "/");
        check("AMQPS://10.0.0.1:5672", "10.0.0.1:5672", "guest", "guest", "/");
        let is_tls = |text: &str| parse(text, Password::Here).expect(text).tls;
        assert!(is_tls("amqps://h:5672") && !is_tls("amqp://h:5671"), "the scheme says it, not the port");
    }

    #[test]
    fn a_certificate_takes_the_place_of_user_and_password() {
        let host = parse("amqps://h/v", Password::Never).expect("nobody is named");
        assert_eq!((&*host.user, &*host.password, &*host.vhost), ("", "", "v"));
        for url in ["amqps://bob@h", "amqps://bob:hunter2@h", "amqps://:hunter2@h"] {
            let (message, _) = parse(url, Password::Never).expect_err(url);
            assert!(message.contains("has a user"), "{message}");
        }
    }

    #[test]
    fn a_password_file_makes_up_for_the_password() {
        let host = parse("amqp://bob@h", Password::Elsewhere).expect("the password is in the file");
        assert_eq!((&*host.user, &*host.password), ("bob", ""));
        assert!(parse("amqp://bob@h", Password::Here).is_err());
    }

    #[test]
    fn says_what_is_wrong() {
        let check = |text: &str, part: &str| {
            let (message, _) = parse(text, Password::Here).expect_err(text);
            assert!(message.contains(part), "{text}: {message}");
        };
        check("", "no AMQP URL");
        check("localhost:5672", "no AMQP URL");
        check("u:p@h", "no AMQP URL");
        check("http://h", "no AMQP URL");
        check("amqp:h", "no host");
        check("amqp:/h", "no host");
        check("amqp://", "no host");
        check("amqp://:5672", "no host");
        check("amqps://a..b", "cannot stand in a certificate");
        check("amqp://h:0", "port");
        check("amqp://h:70000", "port");
        check("amqp://h:5x", "port");
        check("amqp://u:p/q@h", "plain `/`");
        check("amqp://u:12/q@h", "plain `@`");
        check("amqp://u:p#q@h", "plain `/`");
        check("amqp://u:12?q@h", "parameters");
        check("amqp://h?heartbeat=5", "parameters");
        check("amqp://h/v#x", "`#`");
        check("amqp://h/a/b", "plain `/`");
        check("amqp://h//", "plain `/`");
        check("amqp://h/a/../b", "percent-encoded");
        check("amqp://h/é", "percent-encoded");
        check("amqp://h/%zz", "percent-encoded");
        check("amqp://h/%ff", "percent-encoded");
        check("amqp://h/%", "percent-encoded");
        check("amqp://u:%@h", "password of this URL");
        check("amqp://:p@h", "no user");
        check("amqp://u:@h", "no password");
        check("amqp://h x", "blank");
        check(" amqp://h", "blank");
        check("amqp://h%20x", "no name and no address");
        check("amqp://hé", "no name and no address");
        check("amqp://[::1", "IPv6");
        check(&format!("amqp://h/{}", "v".repeat(256)), "percent-encoded text");
    }

    /// Any text, and any user, password and virtual host.
    mod fuzz {
        use proptest::prelude::*;

        use super::*;

        /// Every byte as `%XX`, or only what must be.
        fn encode(text: &str, all: bool) -> String {
            let plain = |byte: u8| !all && (byte.is_ascii_alphanumeric() || b"-._~".contains(&byte));
            text.bytes()
                .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02x}") })
                .collect()
        }

        fn name() -> impl Strategy<Value = String> {
            prop_oneof!["[^\0]{1,20}", "[%/@:?# é]{1,8}", "[a-z]{1,3}"]
        }

        proptest! {
            #[test]
            fn any_text_is_taken_apart_or_refused(text in prop_oneof![
                any::<String>(),
                "amqp://.{0,40}",
                "amqps?:/{0,3}[a-z%@:/?#\\[\\].0-9é\\\\-]{0,30}",
                "amqp://[^@]{0,10}:[^@]{0,10}@[a-z0-9.:\\[\\]%]{0,12}/.{0,10}",
            ], elsewhere: bool) {
                let password = if elsewhere { Password::Elsewhere } else { Password::Here };
                if let Ok(host) = parse(&text, password) {
                    prop_assert!(!host.host.is_empty() && host.port > 0, "{:?}", text);
                    prop_assert!(!host.user.is_empty() && !host.vhost.is_empty(), "{:?}", text);
                    for part in [&host.user, &host.password, &host.vhost] {
                        prop_assert!(part.len() <= LONGEST && !part.contains('\0'), "{:?}", text);
                    }
                    prop_assert!(host.to_string().chars().all(|c| !c.is_control() && !c.is_whitespace()), "{:?}", text);
                }
            }

            #[test]
            fn what_is_percent_encoded_is_what_was_meant(
                user in name(), password in name(), vhost in name(), all: bool, port in 1..=u16::MAX,
                host in "[a-z][a-z0-9-]{0,8}(\\.[a-z][a-z0-9]{0,5}){0,2}|127\\.0\\.0\\.1|\\[::1\\]",
            ) {
                let url = format!("amqp://{}:{}@{host}:{port}/{}", encode(&user, all), encode(&password, all), encode(&vhost, all));
                // A path of dots alone is no name to the URL standard, however it is written.
                prop_assume!(!matches!(&*vhost, "." | ".."));
                let got = parse(&url, Password::Here).map_err(|(why, _)| TestCaseError::fail(format!("{url}: {why}")))?;
                prop_assert_eq!((got.user, got.password, got.vhost, got.port), (user, password, vhost, port));
                prop_assert_eq!(got.host, host.trim_matches(['[', ']']));
            }
        }
    }
}
