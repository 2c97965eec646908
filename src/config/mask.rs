//! Keeps secrets out of what is shown: the lines of a report, and its messages.
//!
//! A secret is the password of anything that looks like a URL, every string of `urls`, what follows the host of a URL of
//! the web (a webhook's path may be one), every value of `headers`, and every value whose key is named after a
//! password, a secret or a token. Comments, and all lines of a file that is not valid TOML, are judged by
//! eye, and more is masked in them than is needed. Nothing here changes what the configuration means.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// What TOML writes around strings.
const QUOTES: [char; 2] = ['"', '\''];

/// What stands in place of a secret, whatever its length.
const MASK: &str = "***";

/// The secret parts of a file, sorted and apart from each other.
///
/// `broken`: the file has syntax errors, so the tree may lack or misplace strings.
pub fn secrets(text: &str, tree: &DeTable<'_>, broken: bool) -> Vec<Range<usize>> {
    let mut search = Search { text, found: Vec::new(), read: Vec::new() };
    search.table(tree, Kind::Plain);
    search.read.sort_by_key(|span| span.start);
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        let end = start + line.trim_end().len();
        let unread = if broken { Some(start) } else { search.comment(start..end) };
        if let Some(from) = unread {
            search.found.extend(by_eye(&text[from..end]).map(|range| from + range.start..from + range.end));
        }
        start += line.len();
    }
    let mut found = search.found;
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
pub fn masked(text: &str, line: Range<usize>, caret: Range<usize>, secrets: &[Range<usize>]) -> (String, Range<usize>) {
    let mut shown = String::with_capacity(line.len());
    let mut moved = caret.start.clamp(line.start, line.end)..caret.end.clamp(line.start, line.end);
    let (from, to) = (moved.start, moved.end);
    moved.start -= line.start;
    moved.end -= line.start;
    let mut copied = line.start;
    for secret in secrets.iter().filter(|secret| secret.start < line.end && secret.end > line.start) {
        let secret = secret.start.max(line.start)..secret.end.min(line.end);
        shown.push_str(&text[copied..secret.start]);
        let mask_start = shown.len();
        shown.push_str(MASK);
        copied = secret.end;
        if from > secret.start {
            moved.start = if from < secret.end { mask_start } else { shown.len() + from - secret.end };
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
    let mut quote: String = shown.chars().take(LONGEST_QUOTE).flat_map(char::escape_debug).collect();
    if shown.chars().nth(LONGEST_QUOTE).is_some() {
        quote.push_str("...");
    }
    quote
}

/// A value is secret where its key holds one of these.
const SECRET_WORDS: [&str; 8] =
    ["password", "passwd", "secret", "token", "authorization", "cookie", "api_key", "api-key"];

/// What the key above a value says of it.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    /// Nothing: only what looks like a URL is masked.
    Plain,
    /// Each string is a URL, even one that does not look like it.
    Url,
    /// Each string is the URL of a webhook: all but scheme and host is secret.
    Webhook,
    /// All of it is secret.
    Secret,
}

impl Kind {
    fn of(key: &str) -> Self {
        let key = key.to_lowercase();
        if key.ends_with("_file") {
            Self::Plain
        } else if key == "headers" || SECRET_WORDS.iter().any(|word| key.contains(word)) {
            Self::Secret
        } else if key == "http" || key == "webhook" {
            Self::Webhook
        } else if key == "url" || key == "urls" || key == "management_url" {
            Self::Url
        } else {
            Self::Plain
        }
    }
}

/// A walk through the tree of a file.
struct Search<'a> {
    text: &'a str,
    /// The secret parts.
    found: Vec<Range<usize>>,
    /// Where keys and values stand that are no tables or arrays.
    read: Vec<Range<usize>>,
}

impl Search<'_> {
    fn table(&mut self, table: &DeTable<'_>, kind: Kind) {
        for (key, value) in table {
            self.read.push(key.span());
            // A value may have come to stand where its key should.
            if url_password(key.get_ref(), false).is_some() {
                self.found.push(key.span());
            }
            self.value(value, if kind == Kind::Secret { kind } else { Kind::of(key.get_ref()) });
        }
    }

    fn value(&mut self, value: &Spanned<DeValue<'_>>, kind: Kind) {
        if let Some(table) = value.get_ref().as_table() {
            self.table(table, kind);
        } else if let Some(array) = value.get_ref().as_array() {
            for value in array {
                self.value(value, kind);
            }
        } else {
            self.read.push(value.span());
            self.found.extend(self.in_scalar(value, kind));
        }
    }

    /// The secret part of a string, or of another value where all of it is secret.
    fn in_scalar(&self, value: &Spanned<DeValue<'_>>, kind: Kind) -> Option<Range<usize>> {
        let span = value.span();
        let token = self.text.get(span.clone())?;
        let opening = token.len() - token.trim_start_matches(QUOTES).len();
        let inner = &token[opening..];
        // In a broken file a string may lack its end.
        let closing = opening.min(inner.len() - inner.trim_end_matches(QUOTES).len());
        let inner = &inner[..inner.len() - closing];
        let start = span.start + opening;
        let all = start..start + inner.len();
        if kind == Kind::Secret {
            return (!all.is_empty()).then_some(all);
        }
        let decoded = value.get_ref().as_str()?;
        let secret_part = |text: &str| match kind {
            Kind::Webhook => beyond_host(text),
            Kind::Plain | Kind::Url | Kind::Secret => {
                url_password(text, kind == Kind::Url).or_else(|| misplaced_webhook(text))
            }
        };
        secret_part(decoded)?;
        if inner.contains('\\') {
            // An escape may hide the marks that the password stands between.
            return Some(all);
        }
        secret_part(inner).map(|range| start + range.start..start + range.end)
    }

    /// Where the comment of a line begins: at the first `#` that is in no key and no value.
    fn comment(&self, line: Range<usize>) -> Option<usize> {
        let marks = self.text[line.clone()].match_indices('#').map(|(at, _)| line.start + at);
        let is_read = |mark: usize| {
            let after = self.read.partition_point(|span| span.start <= mark);
            self.read[..after].last().is_some_and(|span| span.end > mark)
        };
        marks.into_iter().find(|mark| !is_read(*mark))
    }
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
    let secret = match (rest.rfind('@'), rest.find(':')) {
        (Some(at), Some(colon)) if colon < at => colon + 1..at,
        // A user alone, or a password that lost its user.
        (Some(at), _) if always => 0..at,
        (Some(_), _) => return None,
        (None, _) => without_user(rest)?,
    };
    (!secret.is_empty()).then(|| start + secret.start..start + secret.end)
}

/// All of a webhook's URL but its scheme and host; all of it where it is not clear what these are.
fn beyond_host(text: &str) -> Option<Range<usize>> {
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    let start = match rest {
        Some(rest) if !rest.contains('@') => {
            let host = text.len() - rest.len();
            rest.find(['/', '?', '#']).map_or(text.len(), |end| host + end + 1)
        }
        Some(_) | None => 0,
    };
    (start < text.len()).then_some(start..text.len())
}

/// The same of a webhook's URL that begins anywhere in a text: its key may be misspelt.
fn misplaced_webhook(text: &str) -> Option<Range<usize>> {
    let start = text.find("https://").or_else(|| text.find("http://"))?;
    let found = beyond_host(&text[start..]).filter(|_| !text[start..].contains('@'))?;
    Some(start + found.start..start + found.end)
}

/// What may be a password in a URL without an `@`: what stands where the port should and is none.
fn without_user(rest: &str) -> Option<Range<usize>> {
    let address = if rest.starts_with('[') { rest.find(']').unwrap_or(0) } else { 0 };
    let colon = address + rest[address..].find(':')?;
    let path = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let port = rest.get(colon + 1..path)?;
    let is_port = port.len() <= 5 && port.bytes().all(|byte| byte.is_ascii_digit());
    (!is_port).then(|| colon + 1..rest.len())
}

/// Whether the key at the end of this text, which begins anywhere before it, is that of a secret.
fn names_secret(text: &str) -> bool {
    let text = text.trim_end();
    let key = text.rsplit(|c: char| !c.is_alphanumeric() && c != '_' && c != '-').find(|word| !word.is_empty());
    match Kind::of(key.unwrap_or_default()) {
        Kind::Secret | Kind::Webhook => true,
        Kind::Plain | Kind::Url => Kind::of(text) == Kind::Secret,
    }
}

/// The secret part of a comment, or of a line of a file that is not valid TOML.
fn by_eye(line: &str) -> Option<Range<usize>> {
    let mut key_start = 0;
    for (equals, _) in line.match_indices('=') {
        let start = equals + 1;
        if start < line.len() && names_secret(&line[key_start..equals]) {
            let before = password_by_eye(&line[..start]);
            return Some(before.map_or(start, |range| range.start)..line.len());
        }
        key_start = start;
    }
    password_by_eye(line)
}

fn password_by_eye(line: &str) -> Option<Range<usize>> {
    if line.contains("://") {
        return url_password(line, false).or_else(|| misplaced_webhook(line));
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
        check(r#"urls = ["amqp://u:secret@h:5672/x"]"#, r#"urls = ["amqp://u:***@h:5672/x"]"#);
        check(r#"urls = ["amqp://u:a@h", 'amqp://u:b@h']"#, r#"urls = ["amqp://u:***@h", 'amqp://u:***@h']"#);
        check(r#"urls = ["amqp://u:s@cr/et#@h"]"#, r#"urls = ["amqp://u:***@h"]"#);
        check(r#"urls = ["amqp://u:${PW:-secret}@h"]"#, r#"urls = ["amqp://u:***@h"]"#);
        check(r#"urls = ["user:secret@h"]"#, r#"urls = ["user:***@h"]"#);
        check(r#"urls = ["user:secret"]"#, r#"urls = ["user:***"]"#);
        check(r#"urls = ["amqp://user:secret/vhost"]"#, r#"urls = ["amqp://user:***"]"#);
        check(r#"urls = ["amqp://u:s\u0040cret@h"]"#, r#"urls = ["***"]"#);
        check(r#"x.url = """amqp://u:secret@h""""#, r#"x.url = """amqp://u:***@h""""#);
        check(r#"command = ["curl", "http://u:secret@h/"]"#, r#"command = ["curl", "http://u:***@h/"]"#);
    }

    #[test]
    fn leaves_what_is_no_secret() {
        for text in [
            r#"urls = ["amqp://h:5672/x", "amqp://[::1]:5672/", "h"]"#,
            r#"command = ["mail", "someone@example.org", "a:b", "http://u@h/", "http://u@[::1]:80/"]"#,
            r#"password_file = "/run/secret""#,
            r#"a = 1"#,
        ] {
            check(text, text);
        }
    }

    #[test]
    fn masks_values_named_as_secrets() {
        check(r#"password = "a b""#, r#"password = "***""#);
        check(r#"env = { API_TOKEN = "x", OTHER = "y" }"#, r#"env = { API_TOKEN = "***", OTHER = "y" }"#);
        check("client_secret = 12345", "client_secret = ***");
    }

    #[test]
    fn masks_all_of_a_webhook_but_its_host() {
        check(r#"http = "https://h:8443/T0/secret""#, r#"http = "https://h:8443/***""#);
        check(r#"http = "http://h?key=secret""#, r#"http = "http://h?***""#);
        check(r#"http = "https://u:secret@h/x""#, r#"http = "***""#);
        check(r#"http = "h/secret""#, r#"http = "***""#);
        check(r#"http = "https://h/\u0073ecret""#, r#"http = "***""#);
        check(r#"http = ["https://h/secret"]"#, r#"http = ["https://h/***"]"#);
        check(r#"http = "https://[::1]:80""#, r#"http = "https://[::1]:80""#);
        check(r#"headers = { X-Key = "a", B = "b" }"#, r#"headers = { X-Key = "***", B = "***" }"#);
        check(r#"htp = "https://h/secret""#, r#"htp = "https://h/***""#);
        check(r#"command = ["curl", "https://h/secret"]"#, r#"command = ["curl", "https://h/***"]"#);
        check("htp = https://h/secret", "htp = https://h/***");
        check(r#"headers.X-Key = "a""#, r#"headers.X-Key = "***""#);
    }

    #[test]
    fn masks_comments_by_eye() {
        check("[a] # amqp://u:secret@h", "[a] # amqp://u:***@h");
        check("a = 'x#y' # password = secret", "a = 'x#y' # password =***");
        check("a = 1 # wants 2 #3", "a = 1 # wants 2 #3");
    }

    #[test]
    fn masks_broken_lines_by_eye() {
        check("a = '''amqp://u:secret@h/é", "a = '''amqp://u:***@h/é");
        check(r#"urls = ["amqp://u:secret@h"#, r#"urls = ["amqp://u:***@h"#);
        check("urls = [amqp://u:secret@h, amqp://u:b@h]", "urls = [amqp://u:***@h]");
        check("urls = [u:secret@h]", "urls = [u:***@h]");
        check("urls = [\"amqp://u\n:secret@h\"]", "urls = [\"amqp://u\n:***@h\"]");
        check("password = hunter 2", "password =***");
        check("handler = { http = \"https://h/secret", "handler = { http =***");
        check("handler = { env = { A = 1, \"A_TOKEN\" = secret", "handler = { env = { A = 1, \"A_TOKEN\" =***");
        check("headers.Authorization = \"secret", "headers.Authorization =***");
        check("x = { url = amqp://u:secret@h, token = 'secret", "x = { url = amqp://u:***");
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
