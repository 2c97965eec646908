//! The files that come with warrend.

use std::collections::BTreeSet;

use super::super::shape;
use super::{Folder, outline};

const WHOLE: &str = include_str!("../../../config/warrend.toml");
const MINIMAL: &str = include_str!("../../../config/minimal.toml");
const EXAMPLE: &str = include_str!("../../../config/jobs.d/mail.toml.example");

#[test]
fn the_whole_file_says_what_the_defaults_are() {
    let (whole, minimal) = (Folder::new(WHOLE).good(), Folder::new(MINIMAL).good());
    assert_eq!(MINIMAL.lines().filter(|line| !line.starts_with("#:schema")).count(), 5);
    assert_eq!(whole.config.broker, minimal.config.broker);
    assert_eq!(whole.config.store, minimal.config.store);
    assert_eq!(whole.config.control, minimal.config.control);
    assert_eq!(whole.config.shutdown, minimal.config.shutdown);
    assert_eq!(whole.config.log, minimal.config.log);
    assert_eq!(whole.config.jobs, minimal.config.jobs);
    assert!(whole.warnings.entries.is_empty() && minimal.warnings.entries.is_empty());
}

#[test]
fn the_example_of_a_job_is_good() {
    let loaded = Folder::new(MINIMAL).with("jobs.d/mail.toml", EXAMPLE).good();
    assert_eq!(loaded.config.jobs.len(), 2);
    assert!(loaded.warnings.entries.is_empty(), "{}", loaded.warnings);
}

/// It waits for its first job; the one in its comments is good.
#[test]
fn the_file_that_is_installed_lacks_but_a_job() {
    let text = include_str!("../../../config/installed.toml");
    let report = Folder::new(text).faulty();
    assert_eq!(outline(&report), ["0:0 there is no job"]);
    let with_job: String = text
        .lines()
        .map(|line| line.strip_prefix('#').filter(|rest| rest.starts_with(['[', 'q', 'c'])).unwrap_or(line))
        .flat_map(|line| [line, "\n"])
        .collect();
    assert_eq!(Folder::new(&with_job).good().config.jobs.len(), 1);
    assert!(text.contains("/run/credentials/warrend.service/amqp-password"));
}

/// The keys of a command, as the file has them.
const COMMAND: [&str; 4] = ["command", "timeout = \"30s\"", "kill_grace", "env"];

/// A line such as `#key = value` is an example; prose begins with a blank after its `#`.
#[test]
fn the_examples_in_comments_are_good() {
    let mut tried = 0;
    for (index, line) in WHOLE.lines().enumerate() {
        let Some(example) = line.strip_prefix('#').filter(|rest| rest.starts_with(char::is_alphabetic)) else {
            continue;
        };
        let key = example.split(" =").next().expect("a split gives something");
        let mut lines: Vec<&str> = WHOLE.lines().collect();
        lines[index] = example;
        let line_of = |table: &str| WHOLE.lines().position(|line| line == table).expect("it has this table");
        let of_alert = (line_of("[[alerts]]")..line_of("[jobs.thumbnails]")).contains(&index);
        // What the example stands for in place of what the file has.
        let replaced: &[&str] = match key {
            _ if of_alert => &[],
            "queue" => &["[[jobs.", "name", "weight", "declare", "type", "arguments", "bindings"],
            "prefetch" => &["prefetch = 8"],
            "worker" | "batch" | "linger" | "max_tasks" | "max_memory" | "max_age" => &COMMAND[..1],
            "http" | "headers" | "secret_file" | "ca_file" | "forward" | "discard" => &COMMAND,
            _ => &[],
        };
        // What it stands beside.
        let beside = match key {
            "headers" | "secret_file" | "ca_file" if of_alert => "#webhook",
            "batch" | "linger" | "max_tasks" | "max_memory" | "max_age" => "#worker",
            "headers" | "secret_file" | "ca_file" => "#http",
            "cert_file" => "#key_file",
            "key_file" => "#cert_file",
            _ => "",
        };
        for line in lines.iter_mut().filter(|line| !beside.is_empty() && line.starts_with(beside)) {
            *line = &line[1..];
        }
        for (at, line) in lines.iter_mut().enumerate() {
            if at != index
                && !of_alert
                && (line.starts_with(&format!("{key} = [")) || replaced.iter().any(|part| line.starts_with(part)))
            {
                *line = "";
            }
        }
        Folder::new(&lines.join("\n")).good();
        tried += 1;
    }
    assert_eq!(tried, 37, "the examples were found");
}

/// A table that is off unless it stands has its defaults in a comment.
#[test]
fn the_kill_switch_in_its_comment_says_what_the_defaults_are() {
    let with = |table: &str| {
        let text = WHOLE.replacen("#kill_switch = {", table, 1);
        Folder::new(&text).good().config.jobs[0].kill_switch
    };
    assert_eq!(with("#"), None);
    assert_eq!(with("kill_switch = {}\n#"), with("kill_switch = {"));
    assert!(with("kill_switch = {}\n#").is_some());
}

#[test]
fn the_keys_of_a_worker_in_their_comments_say_what_the_defaults_are() {
    let job = |text: &str| Folder::new(text).good().config.jobs.remove(0);
    let worker = WHOLE.replacen("\ncommand =", "\n#command =", 1).replacen("\n#worker =", "\nworker =", 1);
    let written = worker.replacen("\n#batch =", "\nbatch =", 1).replacen("\n#linger =", "\nlinger =", 1);
    assert!(written.contains("\nworker =") && written.contains("\nbatch =") && written.contains("\nlinger ="));
    assert_eq!(job(&worker), job(&written));
}

/// The one that stands there says what the defaults are.
#[test]
fn the_alert_says_what_the_defaults_are() {
    let alerts = |text: &str| Folder::new(text).good().config.alerts;
    let bare = format!("[[alerts]]\nwhen = \"ready > 1000\"\n{MINIMAL}");
    assert_eq!(alerts(WHOLE), alerts(&bare.replacen("broker.urls", "[broker]\nurls", 1)));
    assert_eq!((alerts(WHOLE).len(), alerts(MINIMAL).len()), (1, 0));
}

#[test]
fn every_key_is_documented() {
    let mut documented = BTreeSet::new();
    let examples = WHOLE.lines().filter_map(|line| line.strip_prefix('#'));
    let examples = examples.filter(|rest| rest.starts_with(char::is_alphabetic));
    for text in std::iter::once(WHOLE).chain(examples) {
        let (tree, _) = toml::de::DeTable::parse_recoverable(text);
        collect(&toml::de::DeValue::Table(tree.into_inner()), &mut documented);
    }
    documented.extend(["exchange", "type", "routing_key"].map(str::to_owned));
    for shape in shape::ALL {
        for key in shape.keys {
            assert!(documented.contains(*key), "{key} of {} is not in config/warrend.toml", shape.name);
        }
    }
}

fn collect(value: &toml::de::DeValue<'_>, keys: &mut BTreeSet<String>) {
    for (key, value) in value.as_table().into_iter().flatten() {
        keys.insert(key.get_ref().to_string());
        collect(value.get_ref(), keys);
    }
    for value in value.as_array().into_iter().flatten() {
        collect(value.get_ref(), keys);
    }
}
