//! `warrend dead export`, `import` and `purge`.

use std::io::Write;
use std::path::{Path, PathBuf};

use super::trail::{Trail, meant};
use super::{YES_OR_DRY_RUN, failure, letters};
use crate::cli::terminal::{check_terminal, confirm};
use crate::cli::{Exit, Failure};
use crate::config::{Config, Job};
use crate::deadletters::{self, Filter, Import, Trouble};
use crate::store::Act;
use crate::task::UnixMillis;

/// Whether a question comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ask {
    /// It does.
    First,
    /// `--yes`
    Nothing,
    /// `--dry-run`: nothing is done.
    DryRun,
}

/// Writes what the filter means into a new file.
pub fn export(config: &Config, job: &Job, filter: &Filter, file: &Path, out: &mut impl Write) -> Result<Exit, Failure> {
    let trail = Trail::begin(config, job, [Act::Export, Act::Exported], into(file, filter));
    let count = ended(trail, deadletters::export(&config.broker, job, filter, file))?;
    writeln!(out, "wrote {} to {}", letters(count), file.display()).map_err(|error| Failure::print(&error))?;
    Ok(Exit::Done)
}

/// Publishes a file to the dead-letter queue, after a question unless `yes`.
pub fn import(config: &Config, job: &Job, file: &Path, yes: bool, out: &mut impl Write) -> Result<Exit, Failure> {
    if !yes {
        check_terminal(YES_OR_DRY_RUN)?;
    }
    let queue = &job.dead_letter.queue;
    let read = Import::check(file, job).map_err(|trouble| failure(&trouble))?;
    if !yes && !confirm(&format!("put {} into {queue}?", letters(read.count)))? {
        return Err(Failure::new(Exit::Failed, "nothing was done"));
    }
    let trail = Trail::begin(config, job, [Act::Import, Act::Imported], Some(format!("from {}", file.display())));
    let count = ended(trail, deadletters::import(&config.broker, job, &read))?;
    writeln!(out, "put {} into {queue}", letters(count)).map_err(|error| Failure::print(&error))?;
    Ok(Exit::Done)
}

/// Takes what the filter means out of the queue, into a file beside the store.
pub fn purge(config: &Config, job: &Job, filter: &Filter, ask: Ask, out: &mut impl Write) -> Result<Exit, Failure> {
    let mut filter = filter.clone();
    let mut most = None;
    let queue = &job.dead_letter.queue;
    if ask == Ask::First {
        check_terminal(YES_OR_DRY_RUN)?;
    }
    if ask != Ask::Nothing {
        let survey = deadletters::survey(&config.broker, job, &filter).map_err(|trouble| failure(&trouble))?;
        let (meant, lay) = (letters(survey.count), survey.lay);
        if ask == Ask::DryRun {
            writeln!(out, "would take {meant} of {lay} out of {queue}").map_err(|error| Failure::print(&error))?;
            return Ok(Exit::Done);
        }
        if survey.count > 0 && !confirm(&format!("take {meant} of {lay} out of {queue}?"))? {
            return Err(Failure::new(Exit::Failed, "nothing was done"));
        }
        // Not more than was asked about, whatever came since.
        filter.limit = Some(survey.count);
        most = Some(survey.lay);
    }
    let file = beside_store(config, job);
    let trail = Trail::begin(config, job, [Act::Purge, Act::Purged], into(&file, &filter));
    let count = ended(trail, deadletters::purge(&config.broker, job, &filter, most, &file))?;
    if count == 0 {
        writeln!(out, "no dead letter in {queue} is meant").map_err(|error| Failure::print(&error))?;
    } else {
        let file = file.display();
        writeln!(out, "took {} out of {queue}; they are in {file}", letters(count))
            .map_err(|error| Failure::print(&error))?;
    }
    Ok(Exit::Done)
}

/// The number of letters, once it is written down. Where the work ended early it is not known here.
fn ended(trail: Trail<'_>, count: Result<u64, Trouble>) -> Result<u64, Failure> {
    match &count {
        Ok(count) => trail.end(Some(*count), None),
        Err(trouble) => trail.end(None, Some(&trouble.to_string())),
    }
    count.map_err(|trouble| failure(&trouble))
}

/// Where the letters go, and which they are.
fn into(file: &Path, filter: &Filter) -> Option<String> {
    let which = meant(filter).map_or_else(String::new, |meant| format!(", {meant}"));
    Some(format!("into {}{which}", file.display()))
}

fn beside_store(config: &Config, job: &Job) -> PathBuf {
    let folder = config.store.path.parent().unwrap_or(Path::new("/"));
    let now = jiff::Timestamp::from_millisecond(UnixMillis::now().0).unwrap_or_default();
    // No colons, which not every tool takes in a name; milliseconds, so that two purges do not meet.
    let stamp: String = format!("{now:.3}").chars().filter(|c| !matches!(c, '-' | ':')).collect();
    folder.join(format!("dead-{}-{stamp}.ndjson", job.name))
}
