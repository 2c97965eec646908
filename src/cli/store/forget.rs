//! `warrend store forget`.

use std::io::Write;

use serde_json::json;

use super::{ask_daemon, failure, records};
use crate::cli::life;
use crate::cli::terminal::{check_terminal, confirm};
use crate::cli::{Exit, Failure};
use crate::config::Config;
use crate::control::Request;
use crate::logging::{clean, write_json};
use crate::store::{self, History};
use crate::task::MessageKey;

/// What is to be forgotten.
pub struct What<'a> {
    /// The job.
    pub job: &'a str,
    /// The key; all of them where there is none.
    pub key: Option<&'a str>,
}

/// Forgets a key of a job, or with none all of them, after a question unless `yes`.
pub fn forget(
    config: &Config,
    what: &What<'_>,
    yes: bool,
    as_json: bool,
    out: &mut impl Write,
) -> Result<Exit, Failure> {
    let What { job, key } = *what;
    if !yes {
        check_terminal("give --yes, and the next delivery of what is forgotten runs again")?;
    }
    let question = match key {
        Some(key) => about_key(config, job, key)?,
        None => about_all(config, job)?,
    };
    if !yes && !confirm(&question)? {
        return Err(Failure::new(Exit::Failed, "nothing was done"));
    }
    let request = Request::Forget { job: job.to_owned(), key: key.map(str::to_owned) };
    let forgotten = match ask_daemon(config, &request)? {
        Some(done) => done.forgotten,
        None => store::forget(&config.store, job, key.map(MessageKey::from_display).as_ref())
            .map_err(|error| failure(&error))?,
    };
    let printed = if as_json {
        write_json(out, &json!({ "schema": 1, "job": job, "key": key, "forgotten": forgotten }))
    } else {
        let said = match key {
            Some(key) => format!("forgot {}: the next delivery of its message runs", clean(key)),
            None => format!("forgot {}: whatever of them is delivered again runs", records(forgotten)),
        };
        writeln!(out, "{said}")
    };
    printed.map_err(|error| Failure::print(&error))?;
    Ok(Exit::Done)
}

/// What is known of the key, as a question.
fn about_key(config: &Config, job: &str, key: &str) -> Result<String, Failure> {
    let history = History::open(&config.store.path).map_err(|error| failure(&error))?;
    let known = history.life(job, &MessageKey::from_display(key)).map_err(|error| failure(&error))?;
    let life = known.ok_or_else(|| unknown_job(&history, job))?;
    if life.ended.is_empty() && life.started.is_none() {
        let text = format!("job {job} does not remember {key:?}: the next delivery of its message runs as it is");
        return Err(Failure::new(Exit::Failed, text));
    }
    Ok(format!("{}forget this, so that the next delivery of {} in job {job} runs?", life::lines(&life), clean(key)))
}

fn about_all(config: &Config, job: &str) -> Result<String, Failure> {
    let stats = store::stats(&config.store.path, &|_| None).map_err(|error| failure(&error))?;
    let Some(counted) = stats.jobs.get(job) else {
        let history = History::open(&config.store.path).map_err(|error| failure(&error))?;
        return Err(unknown_job(&history, job));
    };
    let all = records(counted.records);
    Ok(format!("forget all {all} of job {job}, so that whatever of it is delivered again runs?"))
}

fn unknown_job(history: &History, job: &str) -> Failure {
    let known = history.jobs().unwrap_or_default().join(", ");
    Failure::new(Exit::Failed, format!("the store knows no job {job:?}; it has {known}"))
}
