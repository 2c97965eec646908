//! `[[alerts]]`: what is looked at, when it is told, and to whom.

mod expression;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

#[cfg(test)]
pub use expression::parse as parse_condition;
pub use expression::{Condition, Quantity, Side, Unit};

use super::general::ANY;
use super::handler::{http, program};
use super::item::{Item, Limits};
use super::mask;
use super::place::Place;
use super::section::Section;
use super::shape::{self, nearest};
use super::sketch::{Rule, Want};
use super::value::{days, secs};
use super::{Command, Http};
use crate::task::JobName;

/// What a schema can see of an expression.
const WHEN_FORM: &str = r"^\s*[a-z_]+\s*([<>]\s*[0-9].*)?$";
/// Longest name of an alert, in bytes.
const LONGEST_NAME: usize = 200;
/// Counting over less says nothing, and over more than a day takes memory for little.
const WINDOW: Limits = Limits::new(secs(10), days(1));
/// Telling somebody more often helps nobody.
const REPEAT: Limits = Limits::new(secs(60), days(365));
/// Whoever is told may take so long.
const TIMEOUT: Limits = Limits::new(secs(1), secs(60));
/// From TERM to KILL for a command that overran.
const KILL_GRACE: Duration = secs(1);
/// What stands only beside `webhook`.
const OF_WEBHOOKS: [&str; 3] = ["headers", "secret_file", "ca_file"];

/// One alert. For a quantity of jobs it watches each of them apart.
#[derive(Debug, Clone, PartialEq)]
pub struct Alert {
    /// How it is called; what its `when` says by default. No two have the same.
    pub name: Arc<str>,
    /// What sets it off.
    pub when: Condition,
    /// Which jobs it watches; `All` for a quantity of the daemon too.
    pub jobs: Watched,
    /// Over what time a rate or ratio is counted.
    pub window: Duration,
    /// `for`: how long it must hold before the alert fires.
    pub hold: Duration,
    /// How long it must not hold before the alert clears.
    pub clear_for: Duration,
    /// How often it is told again while it fires; never where absent.
    pub repeat: Option<Duration>,
    /// How grave it is.
    pub severity: Severity,
    /// A program that is told.
    pub command: Option<Command>,
    /// A URL that is told.
    pub webhook: Option<Http>,
}

/// `jobs`
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Watched {
    /// All that run.
    All,
    /// These.
    Only(Vec<JobName>),
}

/// `severity`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// Worth a line; no problem in `status`.
    Info,
    /// A problem.
    Warning,
    /// A problem that cannot wait.
    Critical,
}

impl Severity {
    const ALL: [(&'static str, Self); 3] =
        [("info", Self::Info), ("warning", Self::Warning), ("critical", Self::Critical)];

    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

impl Watched {
    /// Whether a job is one of them.
    pub fn has(&self, job: &str) -> bool {
        match self {
            Self::All => true,
            Self::Only(jobs) => jobs.iter().any(|other| **other == *job),
        }
    }
}

/// Reads all of them. `jobs`: the names of those that the files define.
pub fn read(root: &Section<'_>, jobs: &[JobName]) -> Vec<Alert> {
    let Some(item) = root.item("alerts") else {
        return Vec::new();
    };
    let entries = item.array("a table [[alerts]] for each alert").unwrap_or_default();
    let sections = entries.iter().filter_map(|entry| entry.section(&shape::ALERT));
    let alerts: Vec<_> = sections.filter_map(|section| one(&section, jobs)).collect();
    for (index, (alert, place)) in alerts.iter().enumerate() {
        if let Some((_, first)) = alerts[..index].iter().find(|(other, _)| other.name == alert.name) {
            let message = format!("two alerts are called `{}`", mask::quote(&alert.name));
            root.reader().clash(*place, message, "give one of them another `name`", (*first, "the other stands here"));
        }
    }
    alerts.into_iter().map(|(alert, _)| alert).collect()
}

/// One of them, and where its name stands.
fn one(section: &Section<'_>, jobs: &[JobName]) -> Option<(Alert, Place)> {
    section.rule(Rule::One(&["when"]));
    OF_WEBHOOKS.iter().for_each(|key| section.rule(Rule::Beside(key, &["webhook"])));
    let when = section.item("when");
    if when.is_none() {
        let help = "add when = \"ready > 1000\", or another expression";
        section.reader().missing(section.place, "this alert has no `when`", help);
    }
    let condition = when.and_then(|item| condition(&item));
    let name = section.get("name", None, |item| name(&item).map(Some));
    let watched = watched(section, condition.as_ref(), jobs);
    let window = window(section, condition.as_ref());
    let alert = |condition: Condition| Alert {
        name: name.value.clone().unwrap_or_else(|| Arc::from(condition.text.as_str())),
        when: condition,
        jobs: watched,
        window,
        hold: section.get("for", secs(60), |item| item.duration(ANY)).value,
        clear_for: section.get("clear_for", secs(60), |item| item.duration(ANY)).value,
        repeat: section.get("repeat", None, |item| item.duration(REPEAT).map(Some)).value,
        severity: section.get("severity", Severity::Warning, |item| item.choice(&Severity::ALL)).value,
        command: None,
        webhook: None,
    };
    // Everything is read whatever is wrong with `when`, so that each error is found at once.
    let stand_in = Condition { quantity: Quantity::Degraded, bound: None, text: String::new() };
    let good = condition.is_some();
    let mut alert = alert(condition.unwrap_or(stand_in));
    (alert.command, alert.webhook) = told(section);
    let place = name.at.or(when.map(|item| item.place)).unwrap_or(section.place);
    good.then_some((alert, place))
}

fn condition(item: &Item<'_>) -> Option<Condition> {
    item.want(Want::Form(WHEN_FORM));
    let text = item.text()?;
    match expression::parse(&text.value) {
        Ok(condition) => Some(condition),
        Err(fault) => {
            item.reader().error(item.within(&text, fault.at), fault.message, fault.help);
            None
        }
    }
}

fn name(item: &Item<'_>) -> Option<Arc<str>> {
    let name = item.filled_text()?.value;
    if name.len() > LONGEST_NAME || name.chars().any(char::is_control) || name.trim() != name {
        let help = format!("allowed: at most {LONGEST_NAME} bytes on one line, without blanks at its ends");
        return item.error("this cannot be the name of an alert", help);
    }
    Some(Arc::from(name))
}

fn watched(section: &Section<'_>, condition: Option<&Condition>, jobs: &[JobName]) -> Watched {
    let got = section.get("jobs", Watched::All, |item| names(&item, jobs));
    if let (Some(place), Some(condition)) = (got.at, condition)
        && !condition.quantity.is_of_jobs()
    {
        let message = format!("`{}` is of the whole daemon, not of a job", condition.quantity.as_str());
        section.reader().error(place, message, "remove `jobs`");
    }
    got.value
}

fn names(item: &Item<'_>, jobs: &[JobName]) -> Option<Watched> {
    if item.value().is_str() {
        return item.choice(&[("all", ())]).map(|()| Watched::All);
    }
    let items = item.array("\"all\", or a list: [\"NAME\"]")?;
    if items.is_empty() {
        return item.error("`jobs` is empty", "name at least one job, or write jobs = \"all\"");
    }
    let known: Vec<&str> = jobs.iter().map(|job| &**job).collect();
    let named = items.iter().map(|item| {
        let text = item.text()?;
        if let Some(job) = jobs.iter().find(|job| ***job == *text.value) {
            return Some(Arc::clone(job));
        }
        let help = match nearest(&text.value, &known) {
            Some(meant) => format!("did you mean `{meant}`?"),
            None => format!("there are: {}", known.join(", ")),
        };
        item.error(format!("there is no job `{}`", text.shown()), help)
    });
    // All are judged, so that each error is found at once.
    let named: Vec<_> = named.collect();
    named.into_iter().collect::<Option<_>>().map(Watched::Only)
}

fn window(section: &Section<'_>, condition: Option<&Condition>) -> Duration {
    let natural = condition.map_or(60, Condition::natural_window);
    let got = section.get("window", secs(natural.into()), |item| item.duration(WINDOW));
    if let (Some(place), Some(condition)) = (got.at, condition)
        && !condition.quantity.is_counted()
    {
        let message = format!("`window` has no effect: `{}` is not counted over a time", condition.quantity.as_str());
        section.reader().warn(place, message, "remove it; `for` says how long it must last");
    }
    got.value
}

/// Who is told.
fn told(section: &Section<'_>) -> (Option<Command>, Option<Http>) {
    let timeout = section.get("timeout", secs(10), |item| item.duration(TIMEOUT)).value;
    let command = section.get("command", None, |item| program::argv(&item).map(Some)).value;
    let command =
        command.map(|argv| Command { argv, timeout, kill_grace: KILL_GRACE, env: BTreeMap::new(), cwd: None });
    let request = http::request(section, timeout);
    let item = section.item("webhook");
    if item.is_none() {
        for other in OF_WEBHOOKS.iter().filter_map(|key| section.item(key)) {
            let message = format!("{} without `webhook`", other.name());
            section.reader().error(other.key_place, message, "add webhook = \"https://HOST/PATH\", or remove it");
        }
    }
    let url = item.and_then(|item| http::url(&item, section, "what this alert tells"));
    (command, url.map(|url| Http { url, ..request }))
}
