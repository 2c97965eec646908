//! `warrend dead show`: one letter whole.

use std::io::{self, Write};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::{failure, letters, time};
use crate::cli::{Exit, Failure, life};
use crate::config::{Config, Job};
use crate::deadletters::{self, Filter, Found, header_json};
use crate::logging::clean;
use crate::policy::retry::header;
use crate::store::Life;
use crate::task::{HeaderValue, Message, Properties, UnixMillis};

/// Bytes of a body that are shown as hex.
const MOST_HEX: usize = 64 << 10;

/// Finds the letter and prints it.
pub fn show(
    config: &Config,
    job: &Job,
    id: Option<&str>,
    index: Option<u64>,
    as_json: bool,
    out: &mut impl Write,
) -> Result<Exit, Failure> {
    let filter = Filter { ids: id.map(str::to_owned).into_iter().collect(), ..Filter::default() };
    let found = deadletters::find(&config.broker, job, &filter, index).map_err(|trouble| failure(&trouble))?;
    let Some(found) = found else {
        let which = id.map_or_else(|| format!("at {}", index.unwrap_or_default()), |id| format!("with the id {id:?}"));
        let queue = &job.dead_letter.queue;
        return Err(Failure::new(Exit::Failed, format!("there is no dead letter {which} in queue {queue:?}")));
    };
    // Only of those that ran here, and only where the store can be read; the headers tell the rest.
    let recorded = deadletters::key(job, &found.message).and_then(|key| life::read(config, &job.name, &key).ok());
    let recorded = recorded.unwrap_or_default();
    let printed = if as_json {
        crate::logging::write_json(out, &to_json(job, &found, &recorded))
    } else {
        print(job, &found, &recorded, out)
    };
    printed.map_err(|error| Failure::print(&error))?;
    Ok(Exit::Done)
}

/// What the headers tell about the attempts.
struct History {
    /// Attempts that ended, over the whole life of the message.
    attempts: Option<i64>,
    /// Those since the last replay.
    since_replay: Option<i64>,
    crashes: Option<i64>,
    first_seen: Option<UnixMillis>,
    failed_at: Option<UnixMillis>,
    host: Option<String>,
}

impl History {
    fn of(message: &Message) -> Self {
        let headers = &message.properties.headers;
        let count = |name: &str| headers.get(name).and_then(HeaderValue::as_integer);
        let attempts = deadletters::attempts(message);
        let base = count(header::BASE).unwrap_or(0);
        Self {
            attempts,
            since_replay: attempts.map(|attempts| attempts.saturating_sub(base)),
            crashes: count(header::CRASHES),
            first_seen: count(header::FIRST_SEEN).map(UnixMillis),
            failed_at: deadletters::failed_at(message),
            host: headers.get(header::HOST).and_then(HeaderValue::as_text).map(str::to_owned),
        }
    }
}

/// The properties that are there, by their names in AMQP.
fn named(properties: &Properties) -> Vec<(&'static str, Value)> {
    // Taken apart by name, so that a property added to the type cannot be forgotten here.
    let Properties {
        content_type,
        content_encoding,
        headers: _,
        delivery_mode,
        priority,
        correlation_id,
        reply_to,
        expiration,
        message_id,
        timestamp,
        kind,
        user_id,
        app_id,
    } = properties;
    let all = [
        ("message_id", json!(message_id)),
        ("content_type", json!(content_type)),
        ("content_encoding", json!(content_encoding)),
        ("delivery_mode", json!(delivery_mode)),
        ("priority", json!(priority)),
        ("correlation_id", json!(correlation_id)),
        ("reply_to", json!(reply_to)),
        ("expiration", json!(expiration)),
        ("timestamp", json!(timestamp)),
        ("type", json!(kind)),
        ("user_id", json!(user_id)),
        ("app_id", json!(app_id)),
    ];
    all.into_iter().filter(|(_, value)| !value.is_null()).collect()
}

fn to_json(job: &Job, found: &Found, recorded: &Life) -> Value {
    let message = &found.message;
    let history = History::of(message);
    let headers = message.properties.headers.iter().map(|(name, value)| (name.clone(), header_json(value)));
    let properties = named(&message.properties).into_iter().map(|(name, value)| (name.to_owned(), value));
    let (body, body_base64) = match std::str::from_utf8(&message.body) {
        Ok(text) => (Some(text), None),
        Err(_) => (None, Some(STANDARD.encode(&message.body))),
    };
    json!({
        "schema": 1,
        "job": &*job.name,
        "queue": &*job.dead_letter.queue,
        "index": found.index,
        "id": deadletters::id(job, message),
        "class": deadletters::class(message),
        "error": deadletters::error(message),
        "attempts": history.attempts,
        "attempts_since_replay": history.since_replay,
        "crashes": history.crashes,
        "first_seen": history.first_seen.map(time),
        "failed_at": history.failed_at.map(time),
        "host": history.host,
        "history": life::objects(recorded),
        "properties": properties.collect::<serde_json::Map<_, _>>(),
        "headers": headers.collect::<serde_json::Map<_, _>>(),
        "size": message.body.len(),
        "body": body,
        "body_base64": body_base64,
    })
}

fn print(job: &Job, found: &Found, recorded: &Life, out: &mut impl Write) -> io::Result<()> {
    let message = &found.message;
    let id = deadletters::id(job, message).map_or_else(|| "-".to_owned(), |id| clean(&id));
    writeln!(out, "{id}, number {} of {} in {}", found.index, letters(found.lay), clean(&job.dead_letter.queue))?;
    print_history(message, out)?;
    write!(out, "{}", life::lines(recorded))?;
    writeln!(out, "\nproperties")?;
    for (name, value) in named(&message.properties) {
        let text = value.as_str().map_or_else(|| value.to_string(), clean);
        writeln!(out, "  {name}: {text}")?;
    }
    writeln!(out, "\nheaders")?;
    for (name, value) in &message.properties.headers {
        writeln!(out, "  {}: {}", clean(name), header_text(value))?;
    }
    print_body(message, out)
}

fn print_history(message: &Message, out: &mut impl Write) -> io::Result<()> {
    let history = History::of(message);
    let at = |time_of: Option<UnixMillis>| time_of.map_or_else(|| "-".to_owned(), time);
    let number = |n: Option<i64>| n.map_or_else(|| "-".to_owned(), |n| n.to_string());
    writeln!(out, "  class       {}", clean(deadletters::class(message)))?;
    for (index, line) in deadletters::error(message).lines().enumerate() {
        writeln!(out, "  {:<10}  {}", if index == 0 { "error" } else { "" }, clean(line))?;
    }
    writeln!(out, "  first seen  {}", at(history.first_seen))?;
    let host = history.host.map_or_else(|| "-".to_owned(), |host| clean(&host));
    writeln!(out, "  failed at   {} on {host}", at(history.failed_at))?;
    writeln!(
        out,
        "  attempts    {}, of them {} since the last replay, {} crashes",
        number(history.attempts),
        number(history.since_replay),
        number(history.crashes)
    )
}

fn header_text(value: &HeaderValue) -> String {
    if let Some(text) = value.as_text() {
        return clean(text);
    }
    let typed = header_json(value);
    match typed.get("value") {
        Some(value) if value.is_number() || value.is_boolean() => value.to_string(),
        Some(_) | None => clean(&typed.to_string()),
    }
}

fn print_body(message: &Message, out: &mut impl Write) -> io::Result<()> {
    let properties = &message.properties;
    let kind = properties.content_type.as_deref().map_or_else(|| "unknown type".to_owned(), clean);
    let encoding = properties.content_encoding.as_deref().map(|encoding| format!(", {}", clean(encoding)));
    writeln!(out, "\nbody ({} bytes, {kind}{})", message.body.len(), encoding.unwrap_or_default())?;
    match std::str::from_utf8(&message.body) {
        Ok(text) if text.chars().all(is_printable) => {
            out.write_all(text.as_bytes())?;
            if text.ends_with('\n') || text.is_empty() { Ok(()) } else { writeln!(out) }
        }
        Ok(_) | Err(_) => hex_dump(&message.body, out),
    }
}

fn is_printable(c: char) -> bool {
    !c.is_control() || matches!(c, '\n' | '\t')
}

fn hex_dump(body: &[u8], out: &mut impl Write) -> io::Result<()> {
    for (row, bytes) in body[..body.len().min(MOST_HEX)].chunks(16).enumerate() {
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x} ")).collect();
        let text: String =
            bytes.iter().map(|byte| if (0x20..0x7f).contains(byte) { char::from(*byte) } else { '.' }).collect();
        writeln!(out, "{:08x}  {hex:<48} {text}", row * 16)?;
    }
    match body.len().checked_sub(MOST_HEX) {
        Some(more @ 1..) => writeln!(out, "and {more} bytes more: use --json, or dead export"),
        Some(0) | None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_body(body: &[u8], expect: &str) {
        let mut out = Vec::new();
        print_body(&Message { body: body.to_vec(), ..Message::default() }, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert_eq!(text.split_once('\n').unwrap().1.split_once('\n').unwrap().1, expect);
    }

    #[test]
    fn text_is_shown_as_it_is_and_anything_else_as_hex() {
        check_body(b"", "");
        check_body("Grüße\tan\nalle".as_bytes(), "Grüße\tan\nalle\n");
        check_body(b"line\n", "line\n");
        let hex = "00000000  1b 5b 32 4a                                      .[2J\n";
        check_body(b"\x1b[2J", hex);
        check_body(&[0xff], "00000000  ff                                               .\n");
    }

    #[test]
    fn a_long_dump_is_cut() {
        let mut out = Vec::new();
        hex_dump(&vec![0; MOST_HEX + 3], &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert_eq!(text.lines().count(), MOST_HEX / 16 + 1);
        assert!(text.ends_with("and 3 bytes more: use --json, or dead export\n"));
    }
}
