//! The attempts of a key as the store tells them, for `explain` and `dead show`.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Value, json};

use crate::config::Config;
use crate::store::{Ended, History, Life, StoreError};
use crate::task::{Exit, MessageKey, UnixMillis};

/// What the store knows of a key in a job; nothing where there is no store yet.
pub fn read(config: &Config, job: &str, key: &MessageKey) -> Result<Life, StoreError> {
    if !config.store.path.exists() {
        return Ok(Life::default());
    }
    Ok(History::open(&config.store.path)?.life(job, key)?.unwrap_or_default())
}

/// One line for each attempt.
pub fn lines(life: &Life) -> String {
    let mut text = String::new();
    for ended in &life.ended {
        let ran = span(ended.ran);
        let Ended { attempt, host, .. } = ended;
        let _ = write!(text, "  attempt {attempt:<3} {}  ran {ran} on {host}  ", time(started(ended)));
        let _ = match &ended.failure {
            None => {
                writeln!(text, "done{}", ended.exit.map_or_else(String::new, |exit| format!(" ({})", exit_text(exit))))
            }
            Some(told) => {
                let next = told.delay.map_or_else(|| "dead".to_owned(), |delay| format!("again in {}", span(delay)));
                let error = told.error.escape_debug();
                writeln!(text, "{}, {next}: {error}", told.class)
            }
        };
    }
    text
}

/// One object for each attempt.
pub fn objects(life: &Life) -> Vec<Value> {
    let object = |ended: &Ended| {
        let told = ended.failure.as_ref();
        json!({
            "attempt": ended.attempt,
            "outcome": told.map_or("done", |told| told.class.as_str()),
            "started_ms": started(ended).0,
            "ended_ms": ended.at.0,
            "ran_ms": u64::try_from(ended.ran.as_millis()).unwrap_or(u64::MAX),
            "error": told.map(|told| &told.error),
            "exit_code": exit_code(ended.exit),
            "signal": signal(ended.exit),
            "host": ended.host,
            "retry_after_s": told.and_then(|told| told.delay).map(|delay| delay.as_secs()),
            "confirmed": told.map(|told| told.confirmed),
        })
    };
    life.ended.iter().map(object).collect()
}

fn exit_code(exit: Option<Exit>) -> Option<i32> {
    match exit? {
        Exit::Code(code) => Some(code),
        Exit::Signal(_) => None,
    }
}

fn signal(exit: Option<Exit>) -> Option<String> {
    match exit? {
        Exit::Code(_) => None,
        Exit::Signal(signal) => {
            Some(signal_hook::low_level::signal_name(signal).map_or_else(|| signal.to_string(), str::to_owned))
        }
    }
}

fn exit_text(exit: Exit) -> String {
    match exit {
        Exit::Code(code) => format!("exit status {code}"),
        Exit::Signal(signal) => format!("signal {signal}"),
    }
}

/// When any worker saw the message first.
pub fn first_seen(life: &Life) -> Option<UnixMillis> {
    let told = life.ended.iter().filter_map(|ended| ended.failure.as_ref()).map(|told| told.first_seen);
    told.chain(life.ended.first().map(started)).min()
}

/// In UTC, to the millisecond.
pub fn time(at: UnixMillis) -> String {
    jiff::Timestamp::from_millisecond(at.0).map_or_else(|_| format!("{} ms", at.0), |at| format!("{at:.3}"))
}

fn started(ended: &Ended) -> UnixMillis {
    UnixMillis(ended.at.0 - i64::try_from(ended.ran.as_millis()).unwrap_or(0))
}

fn span(span: Duration) -> String {
    match span.as_millis() {
        ms @ ..1000 => format!("{ms} ms"),
        ms @ 1000..60_000 => format!("{:.1} s", ms as f64 / 1e3),
        ms => format!("{} s", ms / 1000),
    }
}
