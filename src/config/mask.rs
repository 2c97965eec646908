//! Keeps secrets out of what is shown: the lines of a report, and its messages.
//!
//! A secret is the password of anything that looks like a URL, every string of `urls`, and every value whose key is
//! named after a password, a secret or a token. Where a file is not valid TOML its lines are judged by eye, and more is
//! masked than is needed. Nothing here changes what the configuration means.

use std::ops::Range;

use toml::de::{DeTable, DeValue};

/// What stands in place of a secret, whatever its length.
const MASK: &str = "***";

/// The secret parts of a file, sorted and apart from each other.
///
/// `broken`: the file has syntax errors, so the tree may lack or misplace strings.
pub fn secrets(text: &str, tree: &DeTable<'_>, broken: bool) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    for (key, value) in tree {
        search(text, value, Kind::of(key.get_ref()), &mut found);
    }
    if broken {
        let mut start = 0;
        for line in text.split_inclusive('\n') {
            found.extend(
                by_eye(line.trim_end()).map(|range| start + range.start..start + range.end),
            );
            start += line.len();
        }
    }
    found.sort_by_key(|range| range.start);
    let mut apart: Vec<Range<usize>> = Vec::new();
    for range in found {
        match apart.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => apart.push(range),
        }
    }
    apart
}

/// The line `line` of `text` as it may be shown, and where `caret` stands in it then.
pub fn masked(
    text: &str,
    line: Range<usize>,
    caret: Range<usize>,
    secrets: &[Range<usize>],
) -> (String, Range<usize>) {
    let mut shown = String::with_capacity(line.len());
    let mut moved = caret.start.clamp(line.start, line.end)..caret.end.clamp(line.start, line.end);
    let (from, to) = (moved.start, moved.end);
    moved.start -= line.start;
    moved.end -= line.start;
    let mut copied = line.start;
    for secret in secrets
        .iter()
        .filter(|secret| secret.start < line.end && secret.end > line.start)
    {
        let secret = secret.start.max(line.start)..secret.end.min(line.end);
        shown.push_str(&text[copied..secret.start]);
        let mask_start = shown.len();
        shown.push_str(MASK);
        copied = secret.end;
        if from > secret.start {
            moved.start = if from < secret.end {
                mask_start
            } else {
                shown.len() + from - secret.end
            };
        }
        if to > secret.start {
            moved.end = shown.len() + to.saturating_sub(secret.end);
        }
    }
    shown.push_str(&text[copied..line.end]);
    (shown, moved)
}

/// Longest part of a file that a message repeats, in characters.
const LONGEST_QUOTE: usize = 80;

/// A part of a file as a message may repeat it: on one line, not too long, without the password of a URL that found
/// its way to where a key or a word was expected.
pub fn quote(text: &str) -> String {
    let shown = match url_password(text, false) {
        Some(range) => format!("{}{MASK}{}", &text[..range.start], &text[range.end..]),
        None => text.to_owned(),
    };
    let mut quote: String = shown
        .chars()
        .take(LONGEST_QUOTE)
        .flat_map(char::escape_debug)
        .collect();
    if shown.chars().nth(LONGEST_QUOTE).is_some() {
        quote.push_str("...");
    }
    quote
}

/// What the key above a value says of it.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    /// Nothing: only what looks like a URL is masked.
    Plain,
    /// Each string is a URL, even one that does not look like it.
    Url,
    /// All of it is secret.
    Secret,
}

impl Kind {
    fn of(key: &str) -> Self {
        let key = key.to_lowercase();
        if key.ends_with("_file") {
            Self::Plain
        } else if ["password", "passwd", "secret", "token"]
            .iter()
            .any(|word| key.contains(word))
        {
            Self::Secret
        } else if key == "url" || key == "urls" {
            Self::Url
        } else {
            Self::Plain
        }
    }
}

fn search(
    text: &str,
    value: &toml::Spanned<DeValue<'_>>,
    kind: Kind,
    found: &mut Vec<Range<usize>>,
) {
    if let Some(table) = value.get_ref().as_table() {
        for (key, value) in table {
            let kind = if kind == Kind::Secret {
                kind
            } else {
                Kind::of(key.get_ref())
            };
            search(text, value, kind, found);
        }
    } else if let Some(array) = value.get_ref().as_array() {
        for value in array {
            search(text, value, kind, found);
        }
    } else if let Some(range) = in_scalar(text, value, kind) {
        found.push(range);
    }
}

/// The secret part of a string, or of another value where all of it is secret.
fn in_scalar(text: &str, value: &toml::Spanned<DeValue<'_>>, kind: Kind) -> Option<Range<usize>> {
    let span = value.span();
    let token = text.get(span.clone())?;
    let quotes = token.len() - token.trim_start_matches(['"', '\'']).len();
    let quotes = quotes.min(token.len() / 2);
    let all = span.start + quotes..span.end - quotes;
    if kind == Kind::Secret {
        return (!all.is_empty()).then_some(all);
    }
    let decoded = value.get_ref().as_str()?;
    url_password(decoded, kind == Kind::Url)?;
    if token.contains('\\') {
        // An escape may hide the marks that the password stands between.
        return Some(all);
    }
    let inner = &text[all.clone()];
    url_password(inner, kind == Kind::Url)
        .map(|range| all.start + range.start..all.start + range.end)
}

/// Where the password stands in a text that holds a URL; `always`: take the text for a URL even without `://`.
///
/// A password may hold anything, unescaped too, so it reaches to the last `@`. Without an `@` the text after the first
/// colon is taken for one unless it is a port.
fn url_password(text: &str, always: bool) -> Option<Range<usize>> {
    let start = match text.find("://") {
        Some(scheme) => scheme + 3,
        None if always => 0,
        None => return None,
    };
    let rest = &text[start..];
    let host_end = if rest.starts_with('[') {
        rest.find(']').unwrap_or(0)
    } else {
        0
    };
    let colon = host_end + rest[host_end..].find(':')?;
    let secret = match rest.rfind('@') {
        Some(at) if at > colon => colon + 1..at,
        Some(_) => return None,
        None => {
            let path = rest.find(['/', '?', '#']).unwrap_or(rest.len());
            let port = rest.get(colon + 1..path)?;
            if port.len() <= 5 && port.bytes().all(|b| b.is_ascii_digit()) {
                return None;
            }
            colon + 1..rest.len()
        }
    };
    (!secret.is_empty()).then(|| start + secret.start..start + secret.end)
}

/// The secret part of a line of a file that is not valid TOML.
fn by_eye(line: &str) -> Option<Range<usize>> {
    let assigned = line
        .split_once('=')
        .filter(|(key, _)| Kind::of(key.trim_end()) == Kind::Secret);
    if let Some((key, value)) = assigned {
        let start = key.len() + 1;
        return (!value.is_empty()).then(|| start..start + value.len());
    }
    if line.contains("://") {
        return url_password(line, false);
    }
    let at = line.rfind('@')?;
    let start = line[..at].find(':').map_or(0, |colon| colon + 1);
    (start < at).then_some(start..at)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Masks a whole file and compares; `|` in neither.
    fn check(text: &str, expect: &str) {
        let (tree, errors) = DeTable::parse_recoverable(text);
        let secrets = secrets(text, tree.get_ref(), !errors.is_empty());
        let (shown, _) = masked(text, 0..text.len(), 0..0, &secrets);
        assert_eq!(shown, expect, "{text}");
    }

    #[test]
    fn masks_passwords_of_urls() {
        check(
            r#"urls = ["amqp://u:secret@h:5672/x"]"#,
            r#"urls = ["amqp://u:***@h:5672/x"]"#,
        );
        check(
            r#"urls = ["amqp://u:a@h", 'amqp://u:b@h']"#,
            r#"urls = ["amqp://u:***@h", 'amqp://u:***@h']"#,
        );
        check(
            r#"urls = ["amqp://u:s@cr/et#@h"]"#,
            r#"urls = ["amqp://u:***@h"]"#,
        );
        check(
            r#"urls = ["amqp://u:${PW:-secret}@h"]"#,
            r#"urls = ["amqp://u:***@h"]"#,
        );
        check(r#"urls = ["user:secret@h"]"#, r#"urls = ["user:***@h"]"#);
        check(r#"urls = ["user:secret"]"#, r#"urls = ["user:***"]"#);
        check(
            r#"urls = ["amqp://user:secret/vhost"]"#,
            r#"urls = ["amqp://user:***"]"#,
        );
        check(r#"urls = ["amqp://u:s\u0040cret@h"]"#, r#"urls = ["***"]"#);
        check(
            r#"x.url = """amqp://u:secret@h""""#,
            r#"x.url = """amqp://u:***@h""""#,
        );
        check(
            r#"command = ["curl", "http://u:secret@h/"]"#,
            r#"command = ["curl", "http://u:***@h/"]"#,
        );
    }

    #[test]
    fn leaves_what_is_no_secret() {
        for text in [
            r#"urls = ["amqp://h:5672/x", "amqp://[::1]:5672/", "amqp://u@h", "h", "amqp://u@[::1]:5672"]"#,
            r#"command = ["mail", "someone@example.org", "a:b"]"#,
            r#"password_file = "/run/secret""#,
            r#"a = 1"#,
        ] {
            check(text, text);
        }
    }

    #[test]
    fn masks_values_named_as_secrets() {
        check(r#"password = "a b""#, r#"password = "***""#);
        check(
            r#"env = { API_TOKEN = "x", OTHER = "y" }"#,
            r#"env = { API_TOKEN = "***", OTHER = "y" }"#,
        );
        check("client_secret = 12345", "client_secret = ***");
    }

    #[test]
    fn masks_broken_lines_by_eye() {
        check(
            r#"urls = ["amqp://u:secret@h"#,
            r#"urls = ["amqp://u:***@h"#,
        );
        check(
            "urls = [amqp://u:secret@h, amqp://u:b@h]",
            "urls = [amqp://u:***@h]",
        );
        check("urls = [u:secret@h]", "urls = [u:***@h]");
        check(
            "urls = [\"amqp://u\n:secret@h\"]",
            "urls = [\"amqp://u\n:***@h\"]",
        );
        check("password = hunter 2", "password =***");
    }

    #[test]
    fn quotes_on_one_line() {
        assert_eq!(quote("plain"), "plain");
        assert_eq!(quote("a\n\u{1b}[1m"), "a\\n\\u{1b}[1m");
        assert_eq!(quote("amqp://u:secret@h"), "amqp://u:***@h");
        assert_eq!(quote(&"x".repeat(500)), format!("{}...", "x".repeat(80)));
    }

    #[test]
    fn moves_the_caret_with_the_text() {
        let text = "u = 'amqp://u:secret@h' # t";
        let at = |part: &str| {
            let start = text.find(part).expect("the part is there");
            start..start + part.len()
        };
        let secret = at("secret");
        let check = |caret: Range<usize>, expect: &str| {
            let (shown, moved) = masked(text, 0..text.len(), caret, std::slice::from_ref(&secret));
            assert_eq!(&shown[moved], expect);
        };
        check(at("u = "), "u = ");
        check(at("secret"), "***");
        check(at("cre"), "***");
        check(at("u:sec"), "u:***");
        check(at("ret@h"), "***@h");
        check(at("t@h'"), "***@h'");
        check(at("@h'"), "@h'");
        check(at("# t"), "# t");
        check(at("'amqp://u:secret@h'"), "'amqp://u:***@h'");
        check(text.len()..text.len(), "");
    }
}
