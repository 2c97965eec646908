//! `command`: a program that is run once for each task.
//!
//! The body is its stdin; what is known about the message is in its environment and on descriptor 3 (see `metadata`); its
//! exit status is the outcome. It is executed by argv, never through a shell, and neither body nor metadata enter argv.
//!
//! | Exit status | Outcome |
//! | --- | --- |
//! | 0 | done |
//! | 65 | dead: this message must not be tried again |
//! | 75, and any other | retry |
//! | 78 | broken: the program cannot work at all |
//!
//! Ended by a signal: a crash. Over `timeout`: TERM, after `kill_grace` KILL, to all of it; a retry. Does not start:
//! broken. When a run has ended, whatever way, nothing of its process group lives.
//!
//! A background process that a program leaves behind in its group is killed with the group. If the daemon itself is
//! killed, the kernel kills the program; what the program started is then up to the control group of the service.

mod exec;
mod group;
mod metadata;
mod output;
mod pump;
mod spawn;
#[cfg(test)]
pub(super) mod tests;

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::Arc;

use signal_hook::low_level::signal_name;

use self::pump::{Ending, Limits, Run};
use self::spawn::Program;
use super::{Context, Stop};
use crate::config;
use crate::task::{ErrorClass, Failure, Outcome, Task};

/// Exit status: dead-letter now (`EX_DATAERR` of sysexits.h).
const REJECTED: i32 = 65;
/// Exit status: the program cannot work (`EX_CONFIG`).
const BROKEN: i32 = 78;

/// Runs a program for each task of one worker thread.
#[derive(Debug)]
pub struct CommandHandler {
    context: Arc<Context>,
    /// Or what is wrong with its configuration, said at each run.
    program: Result<Program, String>,
    limits: Limits,
}

impl CommandHandler {
    /// Prepares what is the same for every run.
    pub fn new(config: &config::Command, context: Arc<Context>) -> Self {
        let limits = Limits { timeout: config.timeout, kill_grace: config.kill_grace };
        Self { context, program: Program::new(config), limits }
    }

    /// Runs the program for one task; see [`super::Handler::run`].
    pub fn run(&mut self, task: &Task, stop: &Stop) -> Outcome {
        self.run_labelled(task, stop, output::is_logged().then(|| self.label(task)))
    }

    /// `label` names the run in the log; without it nothing is logged, and stdout is not even read.
    fn run_labelled(&self, task: &Task, stop: &Stop, label: Option<String>) -> Outcome {
        let program = match &self.program {
            Ok(program) => program,
            Err(error) => return Outcome::Broken(error.clone()),
        };
        if stop.is_raised() {
            return Outcome::Interrupted;
        }
        let metadata = metadata::json(&self.context, task);
        let variables = metadata::variables(&self.context, task);
        let process = match program.start(variables, label.is_some()) {
            Ok(process) => process,
            Err(error) => return Outcome::Broken(program.explain(&error)),
        };
        let run = Run::new(process, &task.message.body, &metadata, self.limits, stop, label);
        match run.attend() {
            Ok((Ending::Exited(status), stderr)) => judge(&program.name, status, &stderr),
            Ok((Ending::Overran, stderr)) => failure(
                Outcome::Retry,
                ErrorClass::Timeout,
                &format!("no end within {:?}", self.limits.timeout),
                &stderr,
            ),
            Ok((Ending::Stopped, _)) => Outcome::Interrupted,
            Err(error) => Outcome::Broken(format!("lost track of `{}`: {error}", program.name)),
        }
    }

    /// Names a run in the log.
    fn label(&self, task: &Task) -> String {
        let key = task.key.as_ref().map_or_else(|| "-".to_owned(), |key| output::escape(&key.to_text()));
        format!("job {}, key {key}", self.context.job)
    }
}

/// The outcome of a program that ended by itself.
fn judge(program: &str, status: ExitStatus, stderr: &str) -> Outcome {
    let said = format!("exit status {}", status.code().unwrap_or_default());
    match status.code() {
        Some(0) => Outcome::Done,
        Some(REJECTED) => failure(Outcome::Dead, ErrorClass::Rejected, &said, stderr),
        Some(BROKEN) => Outcome::Broken(with_stderr(&format!("`{program}` says that it cannot work ({said})"), stderr)),
        // 75 (`EX_TEMPFAIL`) is the one to use; a program that knows nothing of warrend means the same with any other.
        Some(_) => failure(Outcome::Retry, ErrorClass::Failed, &said, stderr),
        None => failure(Outcome::Retry, ErrorClass::Crashed, &killed_by(status), stderr),
    }
}

fn killed_by(status: ExitStatus) -> String {
    let number = status.signal().unwrap_or_default();
    let name = signal_name(number).unwrap_or("a signal");
    let note = if status.core_dumped() {
        ", core dumped"
    } else if number == libc::SIGKILL {
        ", not by warrend; the machine may have run out of memory"
    } else {
        ""
    };
    format!("killed by {name} (signal {number}){note}")
}

fn failure(outcome: fn(Failure) -> Outcome, class: ErrorClass, what: &str, stderr: &str) -> Outcome {
    outcome(Failure { class, error: with_stderr(what, stderr) })
}

fn with_stderr(what: &str, stderr: &str) -> String {
    if stderr.is_empty() { what.to_owned() } else { format!("{what}: {stderr}") }
}
