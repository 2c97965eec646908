//! `warrend pause` and `warrend resume`.

use std::io::Write;
use std::path::Path;

use crate::cli::{Exit, Failure, client};
use crate::control::Request;

/// Stops a job's consuming until it is resumed.
pub fn pause(socket: &Path, job: &str, reason: Option<&str>, out: &mut impl Write) -> Result<Exit, Failure> {
    let request = Request::Pause { job: job.to_owned(), reason: reason.map(str::to_owned) };
    tell(socket, &request, &format!("{job} is paused; `warrend resume {job}` goes on"), out)
}

/// Lets it go on.
pub fn resume(socket: &Path, job: &str, out: &mut impl Write) -> Result<Exit, Failure> {
    tell(socket, &Request::Resume { job: job.to_owned() }, &format!("{job} goes on"), out)
}

fn tell(socket: &Path, request: &Request, done: &str, out: &mut impl Write) -> Result<Exit, Failure> {
    client::tell(socket, request)?;
    writeln!(out, "{done}").map_err(|error| Failure::new(Exit::Failed, format!("cannot print: {error}")))?;
    Ok(Exit::Done)
}
