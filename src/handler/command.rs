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
//! Where the job replies, what a program that is done wrote to stdout is the reply.
//!
//! Ended by a signal: a crash. Over `timeout`: TERM, after `kill_grace` KILL, to all of it; a retry. Does not start:
//! broken. When a run has ended, whatever way, nothing of its process group lives.
//!
//! A background process that a program leaves behind in its group is killed with the group. If the daemon itself is
//! killed, the kernel kills the program; what the program started is then up to the control group of the service.

pub(super) mod metadata;
pub(super) mod pump;
#[cfg(test)]
pub(super) mod tests;

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::Arc;

use self::pump::{Attended, Ending, Limits, Process, Run};
use super::process::output::{Label, Source};
use super::process::spawn::Program;
use super::process::stream::Kept;
use super::process::{BROKEN, STOPPED, killed_by, output, with_stderr};
use super::{Context, Input, Stop};
use crate::task::{Answer, ErrorClass, Exit, Failure, Outcome, Reply, Task};
use crate::{config, failpoint};

/// Exit status: dead-letter now (`EX_DATAERR` of sysexits.h).
const REJECTED: i32 = 65;

/// Runs a program for each task of one worker thread.
#[derive(Debug)]
pub struct CommandHandler {
    pub(super) context: Arc<Context>,
    /// Or what is wrong with its configuration, said at each run.
    program: Result<Program, String>,
    limits: Limits,
}

impl CommandHandler {
    /// Prepares what is the same for every run.
    pub fn new(config: &config::Command, context: Arc<Context>) -> Self {
        let limits = Limits { timeout: config.timeout, kill_grace: config.kill_grace };
        Self { context, program: Program::new(config, "command"), limits }
    }

    /// Runs the program for one task; see [`super::Handler::run`].
    pub fn run(&mut self, input: &Input<'_>, stop: &Stop) -> Answer {
        self.run_labelled(input, stop, output::is_logged().then(|| self.label(input.task)))
    }

    /// `label` names the run in the log; without it nothing is logged, and stdout is not even read.
    fn run_labelled(&self, input: &Input<'_>, stop: &Stop, label: Option<Label>) -> Answer {
        let program = match &self.program {
            Ok(program) => program,
            Err(error) => return Outcome::Broken(error.clone()).into(),
        };
        if stop.is_raised() {
            return Outcome::NotBegun.into();
        }
        let metadata = metadata::json(&self.context, input);
        let variables = metadata::variables(&self.context, input.task);
        let process = match Process::start(program, variables, label.is_some() || self.context.reply) {
            Ok(process) => process,
            Err(error) => return Outcome::Broken(program.explain(&error)).into(),
        };
        failpoint::hit("command-started");
        let mut run = Run::new(process, &input.body, &metadata, self.limits, stop, label);
        if self.context.reply {
            run = run.keep_stdout(usize::try_from(self.context.max_body).unwrap_or(usize::MAX));
        }
        match run.attend() {
            Ok(attended) => self.judge(program, attended),
            Err(error) => Outcome::Broken(format!("lost track of `{}`: {error}", program.name)).into(),
        }
    }

    fn judge(&self, program: &Program, attended: Attended) -> Answer {
        let Attended { ending, stderr, kept } = attended;
        let status = match ending {
            Ending::Exited(status) => status,
            Ending::Overran => {
                let said = format!("no end within {:?}", self.limits.timeout);
                return failure(Outcome::Retry, ErrorClass::Timeout, &said, &stderr).into();
            }
            Ending::Stopped => return Outcome::Interrupted(STOPPED).into(),
        };
        let exit = status.code().map(Exit::Code).or(status.signal().map(Exit::Signal));
        let (outcome, reply) = match (judge(&program.name, status, &stderr), kept) {
            (Outcome::Done, Kept::TooLong) => {
                let said = format!("it wrote more to stdout than a reply may have ({} bytes)", self.context.max_body);
                (failure(Outcome::Dead, ErrorClass::Oversize, &said, &stderr), None)
            }
            (Outcome::Done, Kept::All(body)) => (Outcome::Done, Some(Reply { body, content_type: None })),
            (outcome, Kept::Nothing | Kept::All(_) | Kept::TooLong) => (outcome, None),
        };
        Answer { outcome, exit, reply, delay: None }
    }

    /// Names a run in the log.
    fn label(&self, task: &Task) -> Label {
        let key = task.key.as_ref().map(|key| output::escape(&key.to_text()));
        Label { job: self.context.job.clone(), source: Source::Message(key) }
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

fn failure(outcome: fn(Failure) -> Outcome, class: ErrorClass, what: &str, stderr: &str) -> Outcome {
    outcome(Failure { class, error: with_stderr(what, stderr) })
}
