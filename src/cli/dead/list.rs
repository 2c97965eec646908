//! `warrend dead list`: how many letters, of what they died, since when.

use std::io::{self, Write};

use serde_json::{Value, json};

use super::{failure, letters, time};
use crate::cli::terminal::clean;
use crate::cli::{Exit, Failure};
use crate::config::{Config, Job};
use crate::deadletters::{self, Filter, Fingerprint, Group, Survey};

/// The error of a line of the table, in characters.
const ERROR_WIDTH: usize = 100;

/// Counts and prints.
pub fn list(config: &Config, job: &Job, as_json: bool, out: &mut impl Write) -> Result<Exit, Failure> {
    let survey = deadletters::survey(&config.broker, job, &Filter::default()).map_err(|trouble| failure(&trouble))?;
    let printed = if as_json { writeln!(out, "{}", to_json(job, &survey)) } else { print(job, &survey, out) };
    printed.map_err(|error| Failure::print(&error))?;
    Ok(Exit::Done)
}

/// The largest groups first, equal ones in the order of their names.
fn by_size(survey: &Survey) -> Vec<(&Fingerprint, &Group)> {
    let mut groups: Vec<_> = survey.groups.iter().collect();
    groups.sort_by_key(|(_, group)| std::cmp::Reverse(group.count));
    groups
}

fn to_json(job: &Job, survey: &Survey) -> Value {
    let groups = by_size(survey).into_iter().map(|(fingerprint, group)| {
        json!({
            "class": fingerprint.class,
            "error": fingerprint.error,
            "count": group.count,
            "oldest": group.span.oldest.map(time),
            "newest": group.span.newest.map(time),
            "example_id": group.example,
        })
    });
    json!({
        "schema": 1,
        "job": &*job.name,
        "queue": &*job.dead_letter.queue,
        "count": survey.count,
        "oldest": survey.span.oldest.map(time),
        "newest": survey.span.newest.map(time),
        "groups": groups.collect::<Vec<_>>(),
        "others": survey.others,
    })
}

fn print(job: &Job, survey: &Survey, out: &mut impl Write) -> io::Result<()> {
    let queue = clean(&job.dead_letter.queue);
    write!(out, "{} in {queue}", letters(survey.count))?;
    match (survey.span.oldest, survey.span.newest) {
        (Some(oldest), Some(newest)) => writeln!(out, ", failed from {} to {}", time(oldest), time(newest))?,
        (Some(_) | None, _) => writeln!(out)?,
    }
    if survey.groups.is_empty() {
        return Ok(());
    }
    writeln!(out, "\n{:>8}  {:<11}  {:<20}  ERROR", "COUNT", "CLASS", "NEWEST")?;
    for (fingerprint, group) in by_size(survey) {
        let newest = group.span.newest.map_or_else(|| "-".to_owned(), time);
        let error: String = clean(&fingerprint.error).chars().take(ERROR_WIDTH).collect();
        writeln!(out, "{:>8}  {:<11}  {newest:<20}  {error}", group.count, clean(&fingerprint.class))?;
    }
    if survey.others > 0 {
        writeln!(out, "{:>8}  of further kinds", survey.others)?;
    }
    Ok(())
}
