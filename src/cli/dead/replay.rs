//! `warrend dead replay`: back to work.

use std::io::Write;

use super::trail::{Trail, meant};
use super::{YES_OR_DRY_RUN, failure, letters};
use crate::cli::terminal::{Bar, check_terminal, confirm};
use crate::cli::{Exit, Failure};
use crate::config::{Config, Job};
use crate::deadletters::{self, Filter, Survey};
use crate::logging::clean;
use crate::store::Act;

/// Replays what the arguments mean, after a question unless they say yes.
pub fn replay(config: &Config, job: &Job, args: &super::Replay, out: &mut impl Write) -> Result<Exit, Failure> {
    if args.to.as_deref() == Some(&*job.dead_letter.queue) {
        let text = format!("{:?} is the dead-letter queue itself: name another queue", job.dead_letter.queue);
        return Err(Failure::new(Exit::Usage, text));
    }
    let mut filter = args.filters.filter();
    let mut most = None;
    if !args.yes || args.dry_run {
        if !args.dry_run {
            check_terminal(YES_OR_DRY_RUN)?;
        }
        let survey = deadletters::survey(&config.broker, job, &filter).map_err(|trouble| failure(&trouble))?;
        let targets = targets(&survey, args.to.as_deref());
        if args.dry_run {
            let meant = letters(survey.count);
            writeln!(out, "would replay {meant} of {}{targets}", survey.lay).map_err(|error| Failure::print(&error))?;
            return Ok(Exit::Done);
        }
        let question = format!("replay {} of {}{targets}?", letters(survey.count), survey.lay);
        if survey.count > 0 && !confirm(&question)? {
            return Err(Failure::new(Exit::Failed, "nothing was done"));
        }
        // Not more than was asked about, whatever came since.
        filter.limit = Some(survey.count);
        most = Some(survey.lay);
    }
    carry_out(config, job, args, &filter, most, out)
}

fn carry_out(
    config: &Config,
    job: &Job,
    args: &super::Replay,
    filter: &Filter,
    most: Option<u64>,
    out: &mut impl Write,
) -> Result<Exit, Failure> {
    let plan =
        deadletters::Replay { broker: &config.broker, job, filter, to: args.to.as_deref(), rate: args.rate, most };
    let to = args.to.as_deref().map(|queue| format!("to {queue}"));
    let detail: Vec<String> = to.into_iter().chain(meant(filter)).collect();
    let detail = (!detail.is_empty()).then(|| detail.join(", "));
    let trail = Trail::begin(config, job, [Act::Replay, Act::Replayed], detail);
    let mut bar = Bar::new();
    let (progress, ended) = deadletters::replay(&plan, &mut |progress| {
        bar.draw(progress.read, progress.lay, &format!("{} replayed", progress.moved));
    });
    bar.clear();
    let trouble = ended.as_ref().err().map(ToString::to_string);
    trail.end(Some(progress.moved), trouble.as_deref());
    match ended {
        Ok(()) => {
            writeln!(out, "replayed {} of {}", letters(progress.moved), progress.lay)
                .map_err(|error| Failure::print(&error))?;
            Ok(Exit::Done)
        }
        Err(trouble) => {
            let Failure { exit, text } = failure(&trouble);
            let moved = letters(progress.moved);
            Err(Failure::new(exit, format!("{text}; {moved} were replayed before, the rest is in its place")))
        }
    }
}

/// ` to "work"`, or with numbers where there are several.
fn targets(survey: &Survey, to: Option<&str>) -> String {
    if let Some(queue) = to {
        return format!(" to {}", clean(queue));
    }
    let one = survey.homes.len() == 1;
    let parts: Vec<String> = survey
        .homes
        .iter()
        .map(|(queue, count)| if one { clean(queue) } else { format!("{} ({count})", clean(queue)) })
        .collect();
    if parts.is_empty() { String::new() } else { format!(" to {}", parts.join(", ")) }
}
