//! `warrend completions`: what a shell completes, from the definition of the command line.

use std::io::Write;

use clap::CommandFactory as _;
use clap_complete::{Shell, generate};

use crate::cli::{Cli, Exit, Failure};

/// Prints the file for a shell.
pub fn print(shell: Shell, out: &mut dyn Write) -> Result<Exit, Failure> {
    let mut text = Vec::new();
    generate(shell, &mut Cli::command(), "warrend", &mut text);
    out.write_all(&text).map_err(|error| Failure::print(&error))?;
    Ok(Exit::Done)
}
