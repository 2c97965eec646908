//! `warrend audit list`.

use std::fmt::Write as _;
use std::io::Write;

use serde_json::json;

use crate::cli::figures::number;
use crate::cli::life::time;
use crate::cli::{Exit, Failure};
use crate::config::Config;
use crate::logging::{clean, write_json};
use crate::store::{self, Row};
use crate::task::UnixMillis;

/// Which rows.
pub struct What<'a> {
    /// Since that time.
    pub since: Option<UnixMillis>,
    /// Of that job.
    pub job: Option<&'a str>,
}

/// A line for each row.
pub fn as_text(config: &Config, what: &What<'_>, out: &mut impl Write) -> Result<Exit, Failure> {
    let mut found = false;
    store::list_audit(&config.store.path, what.since, what.job, &mut |row| {
        if !found {
            found = true;
            print(out, &format!("{:<24}  {:<16}  {:<8}  {}", "TIME", "WHO", "ACT", "WHAT"))?;
        }
        print(out, &line(&row))
    })?;
    if !found {
        print(out, "nothing was done that is known of")?;
    }
    Ok(Exit::Done)
}

/// One object; a row at a time, since there may be many.
pub fn as_json(config: &Config, what: &What<'_>, out: &mut impl Write) -> Result<Exit, Failure> {
    // Written once the store is open: nothing is printed where it cannot be.
    let mut separator = "{\"schema\":1,\"rows\":[";
    store::list_audit(&config.store.path, what.since, what.job, &mut |row| -> Result<(), Failure> {
        let object = json!({
            "id": row.anchor.to_string(),
            "at_ms": row.at.0,
            "by": row.by,
            "uid": row.uid,
            "act": row.act,
            "job": row.job,
            "key": row.key.map(|key| key.to_text()),
            "count": row.count,
            "detail": row.detail,
        });
        write!(out, "{separator}").and_then(|()| write_json(out, &object)).map_err(|error| Failure::print(&error))?;
        separator = ",";
        Ok(())
    })?;
    print(out, &format!("{}]}}", if separator == "," { "" } else { separator }))?;
    Ok(Exit::Done)
}

fn print(out: &mut impl Write, line: &str) -> Result<(), Failure> {
    writeln!(out, "{line}").map_err(|error| Failure::print(&error))
}

fn line(row: &Row) -> String {
    let mut what = clean(row.job.as_deref().unwrap_or("-"));
    if let Some(key) = &row.key {
        let _ = write!(what, "  {}", clean(&key.to_text()));
    }
    if let Some(count) = row.count {
        let _ = write!(what, "  {}", number(count));
    }
    if let Some(detail) = &row.detail {
        let _ = write!(what, "  {}", clean(detail));
    }
    format!("{}  {:<16}  {:<8}  {what}", time(row.at), clean(&row.by), clean(&row.act))
}
