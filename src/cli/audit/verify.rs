//! `warrend audit verify`.

use std::io::Write;
use std::path::Path;

use serde_json::json;

use crate::cli::figures::number;
use crate::cli::{Exit, Failure};
use crate::logging::{clean, write_json};
use crate::store::{self, Anchor, Broken};

/// Computes the hashes again, and compares them with those that were seen before.
pub fn verify(file: &Path, expected: &[Anchor], as_json: bool, out: &mut impl Write) -> Result<Exit, Failure> {
    let checked = store::verify_audit(file, expected)?;
    let path = file.display().to_string();
    let name = |broken: &Broken| format!("{}:{}", clean(&broken.chain), broken.seq);
    let printed = if as_json {
        let broken = |broken: &Broken| json!({ "chain": broken.chain, "row": broken.seq, "why": broken.why });
        let object = json!({
            "schema": 1,
            "path": path,
            "whole": checked.broken.is_empty(),
            "rows": checked.rows,
            "ends": checked.ends.iter().map(Anchor::to_string).collect::<Vec<_>>(),
            "broken": checked.broken.iter().map(broken).collect::<Vec<_>>(),
        });
        write_json(out, &object)
    } else if checked.broken.is_empty() {
        let ends = checked.ends.iter().map(|end| format!("\n  {end}")).collect::<String>();
        let kept = if ends.is_empty() { "" } else { "; to be kept elsewhere, for a later --expect:" };
        writeln!(out, "the audit trail is whole: {} rows{kept}{ends}", number(checked.rows))
    } else {
        checked.broken.iter().try_for_each(|broken| writeln!(out, "{} {}", name(broken), broken.why))
    };
    printed.map_err(|error| Failure::print(&error))?;
    let Some(first) = checked.broken.first() else {
        return Ok(Exit::Done);
    };
    let text = format!(
        "the audit trail of {} is not as it was written, from {} on: compare with the journal (`journalctl -u warrend`) \
         and with a backup",
        clean(&path),
        name(first)
    );
    Err(Failure::new(Exit::Failed, text))
}
