//! `warrend store backup` and `warrend store verify`.

use std::io::Write;
use std::path::Path;

use serde_json::json;

use super::failure;
use crate::cli::figures::{number, size};
use crate::cli::{Exit, Failure};
use crate::config::Config;
use crate::logging::{clean, write_json};
use crate::store;

/// Copies the store.
pub fn backup(config: &Config, file: &Path, force: bool, as_json: bool, out: &mut impl Write) -> Result<Exit, Failure> {
    let bytes = store::backup(&config.store.path, file, force).map_err(|error| failure(&error))?;
    let path = file.display().to_string();
    let printed = if as_json {
        write_json(out, &json!({ "schema": 1, "path": path, "bytes": bytes }))
    } else {
        writeln!(out, "wrote {} to {}", size(bytes), clean(&path))
    };
    printed.map_err(|error| Failure::print(&error))?;
    Ok(Exit::Done)
}

/// Checks a store or a copy of one.
pub fn verify(file: &Path, as_json: bool, out: &mut impl Write) -> Result<Exit, Failure> {
    let verified = store::verify(file).map_err(|error| failure(&error))?;
    let (findings, path) = (&verified.findings, file.display().to_string());
    let printed = if as_json {
        let object = json!({
            "schema": 1,
            "path": path,
            "sound": findings.is_empty(),
            "keys": verified.keys,
            "attempts": verified.attempts,
            "findings": findings,
        });
        write_json(out, &object)
    } else if findings.is_empty() {
        let (keys, attempts) = (number(verified.keys), number(verified.attempts));
        writeln!(out, "{} is sound: {keys} keys, {attempts} attempts", clean(&path))
    } else {
        findings.iter().try_for_each(|finding| writeln!(out, "{}", clean(finding)))
    };
    printed.map_err(|error| Failure::print(&error))?;
    if findings.is_empty() {
        return Ok(Exit::Done);
    }
    let text = format!(
        "{} is not sound: stop the daemon, and go back to a copy that is (`warrend store backup --help`)",
        clean(&path)
    );
    Err(Failure::new(Exit::Store, text))
}
