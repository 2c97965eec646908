//! `warrend explain`: the whole life of one key, from the store, the running daemon and the dead-letter queue.

use std::fmt::Write as _;
use std::io::Write;

use serde_json::{Value, json};

use crate::broker::BrokerError;
use crate::cli::life::{self, time};
use crate::cli::{Exit, Failure};
use crate::config::{Config, Job};
use crate::control::{self, Answer, Request};
use crate::deadletters::{self, Filter, Trouble};
use crate::logging::clean;
use crate::report::Found;
use crate::store;
use crate::task::{MessageKey, UnixMillis};

/// All that is known of a key in one job.
struct Life<'c> {
    job: &'c Job,
    recorded: store::Life,
    found: Option<Found>,
    letter: Letter,
}

/// What the dead-letter queue has of it.
enum Letter {
    /// Not looked at: by all that is known it cannot be there.
    Unasked,
    /// At this place of so many.
    At { index: u64, lay: u64 },
    /// It is not there.
    Gone,
    /// The broker could not be asked.
    Unknown(String),
}

/// Tells what is known of `id`, in one job or in all of them. Exits 1 where it is unknown.
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
    let flying = in_flight(config, &key);
    let mut lives = Vec::new();
    for job in config.jobs.iter().filter(|known| job.is_none_or(|name| *known.name == *name)) {
        let recorded = life::read(config, &job.name, &key);
        let recorded = recorded.map_err(|error| Failure::new(Exit::Store, error.to_string()))?;
        let found = flying.iter().find(|found| *found.job == *job.name).cloned();
        let known = !recorded.ended.is_empty() || recorded.started.is_some() || found.is_some();
        let letter = if may_be_dead(&recorded, found.as_ref()) { look_for(config, job, id) } else { Letter::Unasked };
        if known || matches!(letter, Letter::At { .. }) {
            lives.push(Life { job, recorded, found, letter });
        }
    }
    let printed = if as_json {
        let jobs: Vec<_> = lives.iter().map(as_object).collect();
        crate::logging::write_json(out, &json!({ "schema": 1, "id": id, "jobs": jobs }))
    } else if lives.is_empty() {
        writeln!(
            out,
            "{} is unknown here: no job of this daemon has ended an attempt of it, or it is forgotten (retention)",
            clean(id)
        )
    } else {
        out.write_all(lives.iter().map(|life| text(id, life)).collect::<String>().as_bytes())
    };
    printed.map_err(|error| Failure::print(&error))?;
    Ok(if lives.is_empty() { Exit::Failed } else { Exit::Done })
}

/// Where a running daemon has it. One that does not run has nothing in flight.
fn in_flight(config: &Config, key: &MessageKey) -> Vec<Found> {
    let answer = control::ask(&config.control.socket, &Request::Find { key: key.to_text() });
    if let Ok(Answer::Found(all)) = answer { all.found } else { Vec::new() }
}

/// Whether the dead-letter queue must be looked through, which takes a while where it is long.
fn may_be_dead(recorded: &store::Life, found: Option<&Found>) -> bool {
    let done = recorded.ended.iter().any(|ended| ended.failure.is_none());
    let waits = recorded.ended.last().and_then(|last| last.failure.as_ref()).is_some_and(|told| told.delay.is_some());
    found.is_none() && !done && !waits
}

fn look_for(config: &Config, job: &Job, id: &str) -> Letter {
    let filter = Filter { ids: vec![id.to_owned()], ..Filter::default() };
    match deadletters::find(&config.broker, job, &filter, None) {
        Ok(Some(found)) => Letter::At { index: found.index, lay: found.lay },
        // A queue that is not there holds nothing.
        Ok(None) | Err(Trouble::Broker(BrokerError::Topology { .. })) => Letter::Gone,
        Err(error) => Letter::Unknown(error.to_string()),
    }
}

impl Letter {
    fn tell(&self, queue: &str) -> String {
        match self {
            Self::Unasked | Self::Gone => {
                format!("no longer in the dead-letter queue {queue}: replayed, purged or expired")
            }
            Self::At { index, lay } => format!("number {index} of {lay} in the dead-letter queue {queue}"),
            Self::Unknown(reason) => {
                format!("whether it still is in the dead-letter queue {queue} is not known: {reason}")
            }
        }
    }
}

/// Where the message is, as far as it is known here: a word, and a sentence.
fn place(Life { job, recorded, found, letter }: &Life<'_>) -> (&'static str, String) {
    if let Some(found) = found {
        return ("in-flight", format!("attempt {} is {}", found.attempt, found.stage));
    }
    let queue = &job.dead_letter.queue;
    let unended = |attempt| recorded.ended.iter().all(|ended| ended.attempt != attempt);
    if let Some((attempt, since)) = recorded.started.filter(|(attempt, _)| unended(*attempt)) {
        let text = format!("attempt {attempt} was started {} and never ended: its daemon died", time(since));
        return ("in-doubt", text);
    }
    if let Some(done) = recorded.ended.iter().find(|ended| ended.failure.is_none()) {
        return ("done", format!("done {}; a resend of it is dropped", time(done.at)));
    }
    let last = recorded.ended.last().and_then(|last| Some((last.at, last.failure.as_ref()?)));
    let Some((at, told)) = last else {
        return ("dead", letter.tell(queue));
    };
    let owed = if told.confirmed { "" } else { " (the broker has not confirmed it yet)" };
    match told.delay {
        None => ("dead", format!("failed for good {}{owed}; {}", time(at), letter.tell(queue))),
        Some(delay) => {
            let until = UnixMillis(at.0 + i64::try_from(delay.as_millis()).unwrap_or(i64::MAX));
            if until > UnixMillis::now() {
                ("waiting", format!("on the delay ladder until {}{owed}", time(until)))
            } else {
                ("due", format!("its delay ended {}: in its work queue, or with another worker{owed}", time(until)))
            }
        }
    }
}

fn text(id: &str, life: &Life<'_>) -> String {
    let mut text = String::new();
    let (word, now) = place(life);
    let _ = writeln!(text, "{} in job {}: {word}", clean(id), life.job.name);
    if let Some(seen) = life::first_seen(&life.recorded) {
        let _ = writeln!(text, "  first seen  {}", time(seen));
    }
    text += &life::lines(&life.recorded);
    let _ = writeln!(text, "  now         {}", clean(&now));
    text
}

fn as_object(life: &Life<'_>) -> Value {
    let (word, now) = place(life);
    let index = if let Letter::At { index, .. } = life.letter { Some(index) } else { None };
    json!({
        "job": &*life.job.name,
        "state": word,
        "now": now,
        "first_seen_ms": life::first_seen(&life.recorded).map(|at| at.0),
        "dead_letter_index": index,
        "attempts": life::objects(&life.recorded),
    })
}
