//! `warrend reload`: has the running daemon read its configuration anew, says what changes, and waits until it is in force.
//!
//! The daemon reads the files, with its own environment; this side only needs to know where it listens, which it finds also
//! in a file that is faulty otherwise.

use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::cli::client::{ask, ask_status, misunderstood};
use crate::cli::{Exit, Failure};
use crate::config;
use crate::control::{Answer, Request};
use crate::logging::{clean, write_json};
use crate::report::{Reload, Reloading};

/// How often it is asked whether it is over.
const POLL: Duration = Duration::from_millis(100);

/// What was asked for.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Only to say what would change.
    pub only_asks: bool,
    /// As one JSON object.
    pub json: bool,
}

/// Asks the daemon of the configuration at `path`. What it finds wrong goes to `err`, what changes to `out`.
pub fn reload(
    path: &Path,
    env: &dyn Fn(&str) -> Option<String>,
    options: Options,
    out: &mut impl Write,
    err: &mut impl Write,
) -> Result<Exit, Failure> {
    let socket = config::control_socket(path, env);
    let answer = ask(&socket, &Request::Reload { check: options.only_asks });
    let answer = answer.map_err(|failure| with_own_judgement(failure, path, env, err))?;
    let Answer::Reload(mut reload) = answer else {
        return Err(misunderstood());
    };
    let print_error = |error| Failure::print(&error);
    if !options.json {
        write!(err, "{}", reload.findings_text).map_err(print_error)?;
        for change in &reload.changes {
            writeln!(out, "{}", clean(&change.to_string())).map_err(print_error)?;
        }
        // Before it is waited for.
        out.flush().map_err(print_error)?;
    }
    let waited = wait(&socket, &mut reload);
    if options.json {
        write_json(out, &*reload).map_err(print_error)?;
    }
    waited?;
    let verdict = verdict(&reload, options.only_asks)?;
    if !options.json {
        writeln!(out, "{verdict}").map_err(print_error)?;
    }
    Ok(Exit::Done)
}

/// Where nobody listens, a faulty file is the better reason: it may be why.
fn with_own_judgement(
    failure: Failure,
    path: &Path,
    env: &dyn Fn(&str) -> Option<String>,
    err: &mut impl Write,
) -> Failure {
    if failure.exit != Exit::NotRunning {
        return failure;
    }
    let Err(report) = config::check(path, env) else {
        return failure;
    };
    // With stderr gone there is nobody left to tell.
    let _ = write!(err, "{report}\n\n");
    Failure::new(Exit::Config, failure.text)
}

/// Waits until it is in force, or has failed; at most as long as the daemon waits for handlers.
fn wait(socket: &Path, reload: &mut Reload) -> Result<(), Failure> {
    let Some(number) = reload.reload.as_ref().map(|reload| reload.number) else {
        return Ok(());
    };
    let until = Instant::now() + Duration::from_millis(reload.patience_ms);
    while reload.reload.as_ref().is_some_and(is_under_way) && Instant::now() < until {
        std::thread::sleep(POLL);
        let status = ask_status(socket)?;
        // Where another one has followed, it is that which is waited for.
        reload.reload = status.reload.filter(|now| now.number >= number).or_else(|| reload.reload.take());
    }
    Ok(())
}

fn is_under_way(reload: &Reloading) -> bool {
    reload.state == "under way"
}

/// The last line, or why it failed.
fn verdict(reload: &Reload, only_asks: bool) -> Result<String, Failure> {
    let (file, reason) = (clean(&reload.file), reload.reason.clone().unwrap_or_default());
    match (&*reload.verdict, &reload.reload) {
        ("bad", _) => Err(Failure::new(Exit::Config, reason)),
        ("refused", _) => Err(Failure::new(Exit::Failed, reason)),
        ("unchanged", None) => Ok(format!("{file} says what is in force already")),
        (_, None) if only_asks => Ok(format!("{file} can be reloaded")),
        (_, None) => Ok(format!("{file} is reloaded")),
        (_, Some(reload)) if is_under_way(reload) => {
            let jobs = reload.waits_for.join(", ");
            Ok(format!(
                "accepted; still waiting for running handlers of: {jobs}; `warrend status` says when it is over"
            ))
        }
        (_, Some(reload)) if reload.state == "failed" => {
            Err(Failure::new(Exit::Failed, reload.reason.clone().unwrap_or_default()))
        }
        ("unchanged", Some(_)) => Ok(format!("{file} says what is in force already")),
        (_, Some(_)) => Ok(format!("{file} is reloaded")),
    }
}
