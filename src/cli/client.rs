//! One question to the running daemon, and what to tell the person where it cannot be asked.

use std::path::Path;

use crate::cli::{Exit, Failure};
use crate::control::{self, Answer, AskError, Request};
use crate::report::Status;

/// Asks the daemon behind `socket`. What it refuses is a failure with its sentence.
pub fn ask(socket: &Path, request: &Request) -> Result<Answer, Failure> {
    let path = socket.display();
    let not_running = || Failure::new(Exit::NotRunning, format!("warrend is not running: nobody answers on {path}"));
    ask_if_running(socket, request)?.ok_or_else(not_running)
}

/// The same for what can be done without a daemon too: `None` where none runs.
pub fn ask_if_running(socket: &Path, request: &Request) -> Result<Option<Answer>, Failure> {
    let path = socket.display();
    match control::ask(socket, request) {
        Ok(Answer::Error { error, store }) => Err(Failure::new(if store { Exit::Store } else { Exit::Failed }, error)),
        Ok(answer) => Ok(Some(answer)),
        Err(AskError::NotRunning) => Ok(None),
        Err(AskError::Forbidden) => {
            Err(Failure::new(Exit::Failed, format!("no permission to use {path}: run as root or as the daemon's user")))
        }
        Err(AskError::Failed(reason)) => {
            Err(Failure::new(Exit::Failed, format!("the daemon on {path} did not answer: {reason}")))
        }
    }
}

/// What the daemon is doing.
pub fn ask_status(socket: &Path) -> Result<Box<Status>, Failure> {
    let Answer::Status(status) = ask(socket, &Request::Status)? else { return Err(misunderstood()) };
    Ok(status)
}

/// For a request that changes something.
pub fn tell(socket: &Path, request: &Request) -> Result<(), Failure> {
    let Answer::Done { .. } = ask(socket, request)? else { return Err(misunderstood()) };
    Ok(())
}

/// For an answer of another kind than the question: a daemon of another version.
pub fn misunderstood() -> Failure {
    Failure::new(Exit::Failed, "the daemon's answer is of another kind: is it another version?")
}
