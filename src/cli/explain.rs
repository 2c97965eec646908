//! `warrend explain`: the whole life of one key.

use std::fmt::Write as _;
use std::io::Write;
use std::time::Duration;

use serde_json::{Value, json};

use crate::cli::{Exit, Failure};
use crate::config::{Config, Job};
use crate::control::{self, Answer, Request};
use crate::report::Found;
use crate::store::{Ended, History, Life, StoreError};
use crate::task::{MessageKey, UnixMillis};

/// Tells what the store and the running daemon know of `id`, in one job or in all of them. Exits 1 where it is unknown.
pub fn explain(
    config: &Config,
    id: &str,
    job: Option<&str>,
    as_json: bool,
    out: &mut impl Write,
) -> Result<Exit, Failure> {
    if let Some(name) = job
        && !config.jobs.iter().any(|job| *job.name == *name)
    {
        return Err(Failure::new(Exit::Failed, format!("no job {name:?} is configured")));
    }
    let key = MessageKey::from_display(id);
    let history =
        if config.store.path.exists() { Some(History::open(&config.store.path).map_err(store)?) } else { None };
    let flying = in_flight(config, &key);
    let mut lives = Vec::new();
    for job in config.jobs.iter().filter(|known| job.is_none_or(|name| *known.name == *name)) {
        let life = match &history {
            Some(history) => history.life(&job.name, &key).map_err(store)?,
            None => None,
        };
        let life = life.unwrap_or(Life { ended: Vec::new(), started: None });
        let found = flying.iter().find(|found| *found.job == *job.name);
        if !life.ended.is_empty() || life.started.is_some() || found.is_some() {
            lives.push((job, life, found));
        }
    }
    let printed = if as_json {
        let keys: Vec<_> = lives.iter().map(|(job, life, found)| as_object(job, life, *found)).collect();
        writeln!(out, "{}", json!({ "schema": 1, "id": id, "jobs": keys }))
    } else if lives.is_empty() {
        writeln!(out, "{id} is unknown here: no job of this daemon has run it, or it is forgotten (retention)")
    } else {
        out.write_all(lives.iter().map(|(job, life, found)| text(id, job, life, *found)).collect::<String>().as_bytes())
    };
    printed.map_err(|error| Failure::new(Exit::Failed, format!("cannot print: {error}")))?;
    Ok(if lives.is_empty() { Exit::Failed } else { Exit::Done })
}

#[expect(clippy::needless_pass_by_value, reason = "it is handed to map_err")]
fn store(error: StoreError) -> Failure {
    Failure::new(Exit::Store, error.to_string())
}

/// Where a running daemon has it. One that does not run has nothing in flight.
fn in_flight(config: &Config, key: &MessageKey) -> Vec<Found> {
    match control::ask(&config.control.socket, &Request::Find { key: key.to_text() }) {
        Ok(Answer::Found(found)) => found.found,
        Ok(Answer::Status(_) | Answer::Done { .. } | Answer::Error { .. }) | Err(_) => Vec::new(),
    }
}

/// Where the message is, as far as it is known here: a word, and a sentence.
fn place(job: &Job, life: &Life, found: Option<&Found>) -> (&'static str, String) {
    if let Some(found) = found {
        return ("in-flight", format!("attempt {} is {}", found.attempt, found.stage));
    }
    let doubtful = life.started.filter(|(attempt, _)| life.ended.iter().all(|ended| ended.attempt != *attempt));
    if let Some((attempt, since)) = doubtful {
        let text = format!("attempt {attempt} was started {} and never ended: its daemon died", time(since));
        return ("in-doubt", text);
    }
    let Some(last) = life.ended.last() else {
        return ("unknown", "nothing is known".to_owned());
    };
    if let Some(done) = life.ended.iter().find(|ended| ended.failure.is_none()) {
        return ("done", format!("done {}; a resend of it is dropped", time(done.at)));
    }
    let told = last.failure.as_ref().expect("no attempt is done");
    let owed = if told.confirmed { "" } else { " (the broker has not confirmed it yet)" };
    match told.delay {
        None => ("dead", format!("in the dead-letter queue {} since {}{owed}", job.dead_letter.queue, time(last.at))),
        Some(delay) => {
            let until = UnixMillis(last.at.0 + i64::try_from(delay.as_millis()).unwrap_or(i64::MAX));
            if until > UnixMillis::now() {
                ("waiting", format!("on the delay ladder until {}{owed}", time(until)))
            } else {
                ("due", format!("its delay ended {}: in its work queue, or with another worker{owed}", time(until)))
            }
        }
    }
}

fn first_seen(life: &Life) -> Option<UnixMillis> {
    let told = life.ended.iter().filter_map(|ended| ended.failure.as_ref()).map(|told| told.first_seen);
    told.chain(life.ended.first().map(started)).min()
}

fn started(ended: &Ended) -> UnixMillis {
    UnixMillis(ended.at.0 - i64::try_from(ended.ran.as_millis()).unwrap_or(0))
}

fn text(id: &str, job: &Job, life: &Life, found: Option<&Found>) -> String {
    let mut text = String::new();
    let (word, now) = place(job, life, found);
    let _ = writeln!(text, "{id} in job {}: {word}", job.name);
    if let Some(seen) = first_seen(life) {
        let _ = writeln!(text, "  first seen  {}", time(seen));
    }
    for ended in &life.ended {
        let ran = span(ended.ran);
        let _ = write!(text, "  attempt {:<3} {}  ran {ran}  ", ended.attempt, time(started(ended)));
        let _ = match &ended.failure {
            None => writeln!(text, "done"),
            Some(told) => {
                let next = told.delay.map_or_else(|| "dead".to_owned(), |delay| format!("again in {}", span(delay)));
                let error = told.error.escape_debug();
                writeln!(text, "{} on {}, {next}: {error}", told.class, told.host)
            }
        };
    }
    let _ = writeln!(text, "  now         {now}");
    text
}

fn as_object(job: &Job, life: &Life, found: Option<&Found>) -> Value {
    let (word, now) = place(job, life, found);
    let attempts: Vec<_> = life
        .ended
        .iter()
        .map(|ended| {
            let told = ended.failure.as_ref();
            json!({
                "attempt": ended.attempt,
                "outcome": told.map_or("done", |told| told.class.as_str()),
                "started_ms": started(ended).0,
                "ended_ms": ended.at.0,
                "ran_ms": u64::try_from(ended.ran.as_millis()).unwrap_or(u64::MAX),
                "error": told.map(|told| &told.error),
                "host": told.map(|told| &told.host),
                "retry_after_s": told.and_then(|told| told.delay).map(|delay| delay.as_secs()),
                "confirmed": told.map(|told| told.confirmed),
            })
        })
        .collect();
    json!({
        "job": &*job.name,
        "state": word,
        "now": now,
        "first_seen_ms": first_seen(life).map(|at| at.0),
        "attempts": attempts,
    })
}

fn time(at: UnixMillis) -> String {
    jiff::Timestamp::from_millisecond(at.0).map_or_else(|_| format!("{} ms", at.0), |at| format!("{at:.3}"))
}

fn span(span: Duration) -> String {
    match span.as_millis() {
        ms @ ..1000 => format!("{ms} ms"),
        ms @ 1000..60_000 => format!("{:.1} s", ms as f64 / 1e3),
        ms => format!("{} s", ms / 1000),
    }
}
