//! What is wrong, in few lines: jobs with the same problem share one, and each has the command that helps next.

use super::line::{Line, Tone};
use super::text::wrap;
use crate::logging::clean;
use crate::report::{Finding, Status};

/// Jobs that are named where many have the same problem.
const NAMED: usize = 3;
/// Before a problem, and before what belongs to it.
const MARK: &str = "!  ";
const INDENT: &str = "   ";

/// How the daemon begins what it says of its publishing connection.
const PUBLISHER: &str = "publisher: ";

/// One problem, of one job or several.
struct Group<'s> {
    jobs: Vec<&'s str>,
    what: &'s str,
    /// Of the first job that has it; the others' differ by no more than the name.
    help: Option<&'s str>,
}

/// Each problem as a block of lines, those of the daemon itself first. A problem takes at most `longest` lines, without
/// the line of its command.
pub fn blocks(status: &Status, width: usize, longest: usize) -> Vec<Vec<Line>> {
    let mut groups = grouped(&status.findings);
    // A daemon of another version, or whoever tells of a problem in no more than a sentence.
    let told: Vec<String> = status.findings.iter().map(Finding::sentence).collect();
    let untold = status.problems.iter().filter(|problem| !told.contains(problem));
    groups.extend(untold.map(|problem| Group { jobs: Vec::new(), what: problem, help: None }));
    // What keeps the publisher from the broker is most often what keeps the jobs.
    let of_jobs: Vec<&str> = groups.iter().filter(|group| !group.jobs.is_empty()).map(|group| group.what).collect();
    groups.retain(|group| group.what.strip_prefix(PUBLISHER).is_none_or(|what| !of_jobs.contains(&what)));
    groups.sort_by_key(|group| !group.jobs.is_empty());
    groups.iter().map(|group| block(group, status.jobs.len(), width, longest)).collect()
}

fn grouped(findings: &[Finding]) -> Vec<Group<'_>> {
    let mut groups: Vec<Group<'_>> = Vec::new();
    for Finding { job, what, help } in findings {
        let known = groups.iter_mut().find(|group| group.what == what && group.jobs.is_empty() == job.is_none());
        match (known, job.as_deref()) {
            (Some(group), Some(job)) => group.jobs.push(job),
            (Some(_), None) => {}
            (None, job) => groups.push(Group { jobs: job.into_iter().collect(), what, help: help.as_deref() }),
        }
    }
    groups
}

fn block(group: &Group<'_>, all: usize, width: usize, longest: usize) -> Vec<Line> {
    let text = format!("{}{}", whose(&group.jobs, all), clean(group.what));
    let mut wrapped = wrap(&text, width.saturating_sub(INDENT.len()));
    if wrapped.len() > longest {
        wrapped.truncate(longest);
        if let Some(last) = wrapped.last_mut() {
            // There is room for it: it takes the place of the last word.
            let end = last.rfind(' ').unwrap_or(last.len());
            last.truncate(end);
            last.push_str(" ...");
        }
    }
    let mut lines: Vec<Line> = Vec::new();
    for (index, text) in wrapped.into_iter().enumerate() {
        let start = if index == 0 { (Tone::Bad, MARK) } else { (Tone::Plain, INDENT) };
        lines.push(Line::of(start.0, start.1).text(text));
    }
    if let Some(help) = group.help {
        let others = if group.jobs.len() > 1 && group.jobs.iter().any(|job| names(help, job)) {
            " (and so for the others)"
        } else {
            ""
        };
        lines.push(Line::plain(format!("{INDENT}try: ")).and(Tone::Command, clean(help)).and(Tone::Quiet, others));
    }
    lines
}

/// Whether the job is a word of the command.
fn names(command: &str, job: &str) -> bool {
    command.split_whitespace().any(|word| word == job)
}

fn whose(jobs: &[&str], all: usize) -> String {
    let named = |jobs: &[&str]| jobs.join(", ");
    match jobs {
        [] => String::new(),
        [job] => format!("job {job}: "),
        _ if jobs.len() == all => format!("all {all} jobs: "),
        _ if jobs.len() <= NAMED => format!("jobs {}: ", named(jobs)),
        _ => format!("jobs {} and {} more: ", named(&jobs[..NAMED]), jobs.len() - NAMED),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::status::tests::status;

    fn text(status: &Status) -> String {
        let lines = blocks(status, 60, 3).into_iter().flatten();
        lines.map(|line| line.print(false) + "\n").collect()
    }

    fn of(findings: Vec<Finding>, jobs: usize) -> Status {
        let mut status = status(jobs);
        status.problems = findings.iter().map(Finding::sentence).collect();
        status.findings = findings;
        status
    }

    #[test]
    fn each_problem_has_its_command() {
        let paused = Finding::of_job("mail", "paused by root").help("warrend resume mail");
        let full = Finding::of_daemon("the disk is full").help("df -h /var");
        assert_eq!(
            text(&of(vec![paused, full], 3)),
            "!  the disk is full\n   try: df -h /var\n!  job mail: paused by root\n   try: warrend resume mail\n"
        );
    }

    #[test]
    fn jobs_with_the_same_problem_share_its_lines() {
        let gone =
            |job: &str| Finding::of_job(job, "no connection to RabbitMQ yet").help(format!("warrend resume {job}"));
        let jobs = ["a", "b", "c", "d", "e"];
        let told = |n: usize, all| text(&of(jobs[..n].iter().map(|job| gone(job)).collect(), all));
        assert!(told(2, 9).starts_with("!  jobs a, b: no connection"), "{}", told(2, 9));
        assert!(told(5, 9).starts_with("!  jobs a, b, c and 2 more: no connection"), "{}", told(5, 9));
        assert!(told(5, 5).starts_with("!  all 5 jobs: no connection"), "{}", told(5, 5));
        assert!(told(5, 5).ends_with("try: warrend resume a (and so for the others)\n"), "{}", told(5, 5));
    }

    #[test]
    fn a_broker_that_is_gone_is_told_once() {
        let gone = "cannot reach RabbitMQ";
        let mut findings = vec![Finding::of_daemon(format!("publisher: {gone}"))];
        assert_eq!(text(&of(findings.clone(), 1)), "!  publisher: cannot reach RabbitMQ\n");
        findings.push(Finding::of_job("a", gone));
        findings.push(Finding::of_job("b", gone));
        assert_eq!(text(&of(findings, 2)), "!  all 2 jobs: cannot reach RabbitMQ\n");
    }

    #[test]
    fn what_is_told_in_a_sentence_alone_is_not_lost() {
        let mut status = of(vec![Finding::of_job("a", "x")], 2);
        status.problems.push("the last reload failed".to_owned());
        assert_eq!(text(&status), "!  the last reload failed\n!  job a: x\n");
    }

    #[test]
    fn a_long_problem_is_cut_and_steers_nothing() {
        let status = of(vec![Finding::of_job("a", format!("{} \u{1b}[2J\nFORGED", "word ".repeat(100)))], 2);
        let text = text(&status);
        assert_eq!(text.lines().count(), 3, "{text}");
        assert!(text.ends_with(" ...\n") && text.lines().all(|line| line.len() <= 60), "{text}");
    }
}
