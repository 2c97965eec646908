//! An event as a line: text, logfmt or JSON; nothing in it ends the line, or steers a terminal.

use std::fmt::Write as _;

use jiff::Timestamp;
use log::Level;
use log::kv::{self, VisitValue};
use serde_json::{Map, Value};

use super::{clean, json_line};
use crate::config::LogFormat;

/// Bytes of a sentence. What is escaped takes up to six times as many, and the journal cuts a line at 48 KiB (`LineMax=`):
/// its second half would be a line of its own.
const MAX_TEXT: usize = 5 * 1024;
/// Bytes of one field.
const MAX_FIELD: usize = 256;

/// Names and values, in the order in which they were given.
pub type Fields = Vec<(String, Value)>;

/// What is told.
#[derive(Debug)]
pub struct Event<'a> {
    /// When.
    pub at: Timestamp,
    /// How grave it is.
    pub level: Level,
    /// Who tells it.
    pub thread: Option<&'a str>,
    /// A sentence; it may hold anything.
    pub text: &'a str,
    /// The same for programs; values may hold anything, names are our own.
    pub fields: &'a Fields,
}

/// What all lines look like.
#[derive(Debug, Clone, Copy)]
pub struct Style {
    /// `log.format`
    pub format: LogFormat,
    /// The journal reads it: it takes the level from a number before the line (sd-daemon(3)), and has its own clock.
    pub journal: bool,
    /// Whether the level has a colour, in text.
    pub color: bool,
}

impl Style {
    /// The line with its end.
    pub fn line(self, event: &Event<'_>) -> String {
        let mut line = if self.journal { format!("<{}>", priority(event.level)) } else { String::new() };
        match self.format {
            LogFormat::Text => self.text(&mut line, event),
            LogFormat::Logfmt => {
                let pairs: Vec<String> = self.pairs(event).iter().map(|(name, value)| pair(name, value)).collect();
                line.push_str(&pairs.join(" "));
            }
            LogFormat::Json => line.push_str(&json(&self.pairs(event).into_iter().collect::<Map<String, Value>>())),
        }
        line.push('\n');
        line
    }

    fn text(self, line: &mut String, event: &Event<'_>) {
        if !self.journal {
            // Writing to a String cannot fail.
            let (start, end) = if self.color { (color(event.level), "\u{1b}[0m") } else { ("", "") };
            let _ = write!(line, "[{:.3} {start}{:<5}{end}] ", event.at, event.level);
        }
        line.push_str(&clean(&bounded(event.text, MAX_TEXT)));
    }

    /// All that stands in a line, by name.
    fn pairs(self, event: &Event<'_>) -> Fields {
        let mut pairs = Fields::new();
        if !self.journal {
            pairs.push(("ts".to_owned(), format!("{:.3}", event.at).into()));
        }
        pairs.push(("level".to_owned(), event.level.as_str().to_lowercase().into()));
        pairs.push(("msg".to_owned(), bounded(event.text, MAX_TEXT).into()));
        for (name, value) in event.fields {
            let value = value.as_str().map_or_else(|| value.clone(), |text| bounded(text, MAX_FIELD).into());
            pairs.push((name.clone(), value));
        }
        pairs.extend(event.thread.map(|thread| ("thread".to_owned(), bounded(thread, MAX_FIELD).into())));
        pairs
    }
}

/// syslog(3) has these numbers.
fn priority(level: Level) -> u8 {
    match level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    }
}

fn color(level: Level) -> &'static str {
    match level {
        Level::Error => "\u{1b}[1;31m",
        Level::Warn => "\u{1b}[33m",
        Level::Info => "\u{1b}[32m",
        Level::Debug => "\u{1b}[34m",
        Level::Trace => "\u{1b}[36m",
    }
}

/// Its beginning, if it is longer than so many bytes.
fn bounded(text: &str, most: usize) -> String {
    if text.len() <= most {
        return text.to_owned();
    }
    let mut end = most;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}…", &text[..end])
}

/// `name=value`; in quotes, as JSON has them, where the value would not be one word otherwise.
fn pair(name: &str, value: &Value) -> String {
    let is_word = |text: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_graphic() && !"\"=\\".contains(c));
    match value.as_str() {
        Some(text) if is_word(text) => format!("{name}={text}"),
        Some(_) | None => format!("{name}={}", json(value)),
    }
}

fn json(value: &impl serde::Serialize) -> String {
    json_line(value).expect("a JSON value can be written: the names in it are text")
}

/// Takes the value of one field.
#[derive(Debug, Default)]
pub struct ToJson(pub Value);

impl VisitValue<'_> for ToJson {
    fn visit_any(&mut self, value: kv::Value<'_>) -> Result<(), kv::Error> {
        self.0 = value.to_string().into();
        Ok(())
    }

    fn visit_u64(&mut self, value: u64) -> Result<(), kv::Error> {
        self.0 = value.into();
        Ok(())
    }

    fn visit_i64(&mut self, value: i64) -> Result<(), kv::Error> {
        self.0 = value.into();
        Ok(())
    }

    fn visit_f64(&mut self, value: f64) -> Result<(), kv::Error> {
        // JSON has no word for what is no number.
        self.0 = if value.is_finite() { value.into() } else { value.to_string().into() };
        Ok(())
    }

    fn visit_bool(&mut self, value: bool) -> Result<(), kv::Error> {
        self.0 = value.into();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FORMATS: [LogFormat; 3] = [LogFormat::Text, LogFormat::Logfmt, LogFormat::Json];

    fn line_of(format: LogFormat, journal: bool, text: &str, fields: &[(&str, Value)]) -> String {
        let fields = fields.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        let at = Timestamp::from_millisecond(1_700_000_000_123).unwrap();
        let event = Event { at, level: Level::Warn, thread: Some("job:mail"), text, fields: &fields };
        Style { format, journal, color: false }.line(&event)
    }

    #[test]
    fn the_three_formats() {
        let fields = [("job", "mail".into()), ("key", "a \"b\"".into()), ("attempt", 2.into()), ("last", true.into())];
        let check = |format, journal, expect: &str| {
            assert_eq!(line_of(format, journal, "job mail: it failed", &fields), format!("{expect}\n"));
        };
        check(LogFormat::Text, false, "[2023-11-14T22:13:20.123Z WARN ] job mail: it failed");
        check(LogFormat::Text, true, "<4>job mail: it failed");
        check(
            LogFormat::Logfmt,
            false,
            r#"ts=2023-11-14T22:13:20.123Z level=warn msg="job mail: it failed" job=mail key="a \"b\"" attempt=2 last=true thread=job:mail"#,
        );
        check(
            LogFormat::Logfmt,
            true,
            r#"<4>level=warn msg="job mail: it failed" job=mail key="a \"b\"" attempt=2 last=true thread=job:mail"#,
        );
        check(
            LogFormat::Json,
            false,
            r#"{"ts":"2023-11-14T22:13:20.123Z","level":"warn","msg":"job mail: it failed","job":"mail","key":"a \"b\"","attempt":2,"last":true,"thread":"job:mail"}"#,
        );
        check(
            LogFormat::Json,
            true,
            r#"<4>{"level":"warn","msg":"job mail: it failed","job":"mail","key":"a \"b\"","attempt":2,"last":true,"thread":"job:mail"}"#,
        );
    }

    /// Begins lines of its own, ends the quotes, clears the screen, and turns the direction of writing.
    const ODD: &str = "x\n<0>FORGED level=error \"}{\\ \u{1b}[2J\u{9b}\r\t\u{0}\u{7f}\u{85}\u{2028}\u{202e}\u{200f}y";

    #[test]
    fn nothing_in_a_line_ends_it_or_steers_a_terminal() {
        for (format, journal) in FORMATS.into_iter().flat_map(|format| [(format, false), (format, true)]) {
            let line = line_of(format, journal, ODD, &[("key", ODD.into())]);
            let body = line.strip_suffix('\n').unwrap();
            assert!(!body.chars().any(super::super::is_obeyed), "{body:?}");
        }
        let line = line_of(LogFormat::Json, true, ODD, &[("key", ODD.into())]);
        let json: Value = serde_json::from_str(line.strip_prefix("<4>").unwrap()).unwrap();
        assert_eq!((json["msg"].as_str(), json["key"].as_str()), (Some(ODD), Some(ODD)));
        // What is in quotes can be read as JSON reads it.
        let line = line_of(LogFormat::Logfmt, true, "m", &[("key", ODD.into())]);
        let quoted = line.split_once(" key=").unwrap().1.rsplit_once(" thread=").unwrap().0;
        assert_eq!(serde_json::from_str::<String>(quoted).unwrap(), ODD);
    }

    #[test]
    fn a_line_fits_the_journal() {
        let text = "\u{1b}".repeat(100_000);
        let fields = ["job", "queue", "key", "class"].map(|name| (name, Value::from(text.clone())));
        for format in FORMATS {
            let length = line_of(format, true, &text, &fields).len();
            assert!((30_000..48 * 1024).contains(&length), "{format:?}: {length}");
        }
        assert_eq!(bounded("€€", 4), "€…");
        assert_eq!(bounded("€€", 6), "€€");
    }

    #[test]
    fn a_level_has_a_colour_where_it_is_wanted() {
        let fields = Fields::new();
        let event = Event { at: Timestamp::UNIX_EPOCH, level: Level::Info, thread: None, text: "a", fields: &fields };
        let style = Style { format: LogFormat::Text, journal: false, color: true };
        assert_eq!(style.line(&event), "[1970-01-01T00:00:00.000Z \u{1b}[32mINFO \u{1b}[0m] a\n");
    }
}
