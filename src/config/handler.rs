//! `[jobs.NAME.handler]`: exactly one kind, and the keys that belong to it. One file a kind reads what is its own.

mod forward;
pub(super) mod http;
pub mod kinds;
pub(super) mod program;
mod worker;

use super::item::Item;
use super::mask;
use super::queue::Queues;
use super::section::Section;
use super::shape;
use super::sketch::Rule;
use super::{Command, Handler, Http, Worker};

/// The kinds, each named by its key.
const KINDS: [&str; 5] = ["command", "worker", "http", "forward", "discard"];
/// The keys beside those, and the kinds that have them.
const BELONGS: [(&str, &[&str]); 12] = [
    ("timeout", &["command", "worker", "http"]),
    ("kill_grace", &["command", "worker"]),
    ("env", &["command", "worker"]),
    ("cwd", &["command", "worker"]),
    ("batch", &["worker"]),
    ("linger", &["worker"]),
    ("max_tasks", &["worker"]),
    ("max_memory", &["worker"]),
    ("max_age", &["worker"]),
    ("headers", &["http"]),
    ("secret_file", &["http"]),
    ("ca_file", &["http"]),
];

/// Reads the handler of a job; `None` where it cannot be said which it is, which is noted. `queues`: those of the job.
pub fn read(job: &Section<'_>, name: &str, queues: &Queues) -> Option<Handler> {
    let section = job.section("handler", &shape::HANDLER);
    job.rule(Rule::One(&["handler"]));
    section.rule(Rule::One(&KINDS));
    BELONGS.iter().for_each(|(key, kinds)| section.rule(Rule::Beside(key, kinds)));
    let mut found = kinds(&section, queues);
    found.sort_by_key(|(item, _)| item.key_place);
    let mut found = found.into_iter();
    let Some((first, handler)) = found.next() else {
        if section.good && !section.misspells(&KINDS) {
            let help = format!(
                "add [jobs.{}.handler] with command = [\"PROGRAM\", \"ARGUMENT\"], or another of: {}",
                mask::quote(name),
                KINDS.join(", ")
            );
            job.lacks(&["handler"], section.place, "this job has no handler", help);
        }
        return None;
    };
    let mut only = true;
    for (second, _) in found {
        let message = format!("{} is a second handler", second.name());
        let also = (first.key_place, "the first stands here");
        job.reader().clash(second.key_place, message, format!("a job has exactly one of: {}", KINDS.join(", ")), also);
        only = false;
    }
    if only {
        foreign_keys(&section, &first);
    }
    handler.filter(|_| only)
}

/// Every kind that the table names, with its key. All that stands in the table is read, whatever the kind, so that each
/// error is found at once.
fn kinds<'a>(section: &Section<'a>, queues: &Queues) -> Vec<(Item<'a>, Option<Handler>)> {
    let settings = program::settings(section);
    let limits = worker::limits(section);
    let request = http::request(section, settings.timeout);
    let mut found = Vec::new();
    if let Some(item) = section.item("command") {
        let argv = program::argv(&item);
        found.push((item, argv.map(|argv| Handler::Command(Command { argv, ..settings.clone() }))));
    }
    if let Some(item) = section.item("worker") {
        let argv = program::argv(&item);
        let worker = |argv| Handler::Worker(Worker { program: Command { argv, ..settings }, ..limits });
        found.push((item, argv.map(worker)));
    }
    if let Some(item) = section.item("http") {
        let url = http::url(&item, section, "the messages of this job");
        found.push((item, url.map(|url| Handler::Http(Http { url, ..request }))));
    }
    if let Some(item) = section.item("forward") {
        found.push((item, forward::read(&item, queues).map(Handler::Forward)));
    }
    if let Some(item) = section.item("discard") {
        let stands = item.boolean();
        if stands == Some(false) {
            item.reader().error(item.place, "`discard` cannot be false", "write discard = true, or remove the key");
        }
        found.push((item, stands.map(|_| Handler::Discard)));
    }
    found
}

/// Notes the keys that belong to another kind than the one that stands there.
fn foreign_keys(section: &Section<'_>, kind: &Item<'_>) {
    for (key, kinds) in BELONGS.iter().filter(|(_, kinds)| !kinds.contains(&kind.key())) {
        if let Some(item) = section.item(key) {
            let message = format!("{} {} handler has no {}", article(kind.key()), kind.name(), item.name());
            let kinds: Vec<String> = kinds.iter().map(|kind| format!("`{kind}`")).collect();
            let help = format!("remove it: it belongs to a {} handler", kinds.join(" or "));
            item.reader().error(item.key_place, message, help);
        }
    }
}

fn article(kind: &str) -> &'static str {
    if kind == "http" { "an" } else { "a" }
}
