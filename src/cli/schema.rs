//! `warrend config schema`: the JSON Schema of the configuration.

use std::io::Write;

use crate::cli::{Exit, Failure};
use crate::config;

/// Prints it.
pub fn print(out: &mut dyn Write) -> Result<Exit, Failure> {
    out.write_all(config::schema_text().as_bytes()).map_err(|error| Failure::print(&error))?;
    Ok(Exit::Done)
}
