//! What the user may do on the broker, against what the jobs need.

use std::collections::BTreeSet;

use super::finding::{Area, Finding, Level, pattern_of};
use super::queues;
use super::seen::{Inside, Office};
use crate::broker::Right;
use crate::config::{self, Config, Declare, Handler, Login, is_this_machine};
use crate::policy::topology::Ladder;
use crate::shell;

/// The tag that may do everything.
const ADMINISTRATOR: &str = "administrator";

fn finding(level: Level, code: &'static str, text: impl Into<String>) -> Finding {
    Finding::new(Area::Permissions, level, code, text)
}

/// A right that a job needs on a queue.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Need {
    /// The queue.
    pub queue: String,
    /// The right.
    pub right: Right,
}

/// Every right on a queue that the jobs need. One level stands for the whole ladder.
pub fn needs(config: &Config) -> BTreeSet<Need> {
    let mut needs = BTreeSet::new();
    let mut add = |queue: &str, rights: &[Right]| {
        needs.extend(rights.iter().map(|right| Need { queue: queue.to_owned(), right: *right }));
    };
    for job in config.jobs.iter().filter(|job| job.enabled) {
        for queue in &job.queues {
            match queue.declare {
                Declare::Create => add(&queue.name, &[Right::Configure, Right::Write, Right::Read]),
                Declare::Passive => add(&queue.name, &[Right::Write, Right::Read]),
            }
        }
        add(&job.dead_letter.queue, &[Right::Configure, Right::Read]);
        match job.handler {
            Handler::Discard => {}
            Handler::Command(_) | Handler::Worker(_) | Handler::Http(_) | Handler::Forward(_) => {
                let level = Ladder::new(config.broker.delay_queues).queues().next().unwrap_or_default();
                add(&level, &[Right::Configure, Right::Write, Right::Read]);
            }
        }
    }
    needs
}

/// The three patterns that are enough, as `rabbitmqctl set_permissions` takes them.
fn patterns(config: &Config) -> [String; 3] {
    let mut names: [BTreeSet<String>; 3] = Default::default();
    let [configure, write, read] = &mut names;
    write.insert(r"amq\.default".to_owned());
    for job in config.jobs.iter().filter(|job| job.enabled) {
        for queue in &job.queues {
            let name = pattern_of(&queue.name);
            if queue.declare == Declare::Create {
                configure.insert(name.clone());
            }
            write.insert(name.clone());
            read.insert(name);
            for binding in queue.bindings.iter().filter(|binding| !binding.exchange.is_empty()) {
                read.insert(pattern_of(&binding.exchange));
                if !binding.exchange.starts_with("amq.") {
                    configure.insert(pattern_of(&binding.exchange));
                }
            }
        }
        for set in [&mut *configure, &mut *write, &mut *read] {
            set.insert(pattern_of(&job.dead_letter.queue));
            set.insert(r"warrend\.delay\..*".to_owned());
        }
        if let Handler::Forward(forward) = &job.handler {
            let exchanges = queues::targets(forward).map(|target| target.exchange.literal());
            // An exchange that a message names can be any.
            write.extend(exchanges.map(|name| name.map_or(".*".to_owned(), |name| pattern_of(&name))));
        }
    }
    write.remove("");
    names.map(|names| match names.contains(".*") {
        true => ".*".to_owned(),
        false => format!("^({})$", Vec::from_iter(names).join("|")),
    })
}

/// Judges the rights that were seen.
pub fn judge(config: &Config, inside: &Inside, office: &Office) -> Vec<Finding> {
    let host = &config.broker.hosts[0];
    let [configure, write, read] = patterns(config);
    let user = match config.broker.tls.login {
        Login::Password => host.user.as_str(),
        Login::Certificate => "USER",
    };
    let narrow = |told: Finding| {
        told.run(&["rabbitmqctl", "set_permissions", "--vhost", &host.vhost, user, &configure, &write, &read])
    };
    let mut findings = Vec::new();
    let lacking = lacking(config, inside);
    if !lacking.is_empty() {
        let text = format!("the user {user:?} lacks {}", lacking.join(", "));
        let told = finding(Level::Error, "rights-lacking", text);
        findings.push(narrow(told.why("What the job needs is not made, not bound or not consumed.")));
    }
    let tags = tags(office);
    if user == "guest" {
        findings
            .extend(judge_guest(host, inside).map(|told| narrow_for_new_user(told, host, [&configure, &write, &read])));
    } else {
        if !inside.rights_on_nothing.is_empty() {
            let words: Vec<&str> = inside.rights_on_nothing.iter().map(|right| word(*right)).collect();
            let text = format!("the user {user:?} may {} every queue of the virtual host", words.join(", "));
            let why = "Who gets hold of its password, or of the machine, has the messages of all others too. These are enough:";
            findings.push(narrow(finding(Level::Warning, "rights-wide", text).why(why)));
        }
        if tags.is_some_and(|tags| tags.iter().any(|tag| tag == ADMINISTRATOR)) {
            let text = format!("the user {user:?} is an {ADMINISTRATOR} of the broker");
            let told = finding(Level::Warning, "administrator", text);
            let told = told.why("It may delete users, queues and virtual hosts; a worker consumes and publishes.");
            // Without any tag, where somebody else asks the management API.
            let own = config.broker.management.as_ref().is_some_and(|at| at.login.is_none());
            let words = ["rabbitmqctl", "set_user_tags", user, "management"];
            findings.push(told.run(if own { &words } else { &words[..3] }));
        }
    }
    if findings.is_empty() && inside.cut_short.is_none() {
        let seen = if tags.is_some() { "" } else { "; its tags were not seen" };
        let text = format!("the user {user:?} may do what the jobs need, and no more with other queues{seen}");
        findings.push(finding(Level::Ok, "rights", text));
    }
    findings
}

fn lacking(config: &Config, inside: &Inside) -> Vec<String> {
    let asked = |need: &Need| inside.rights.get(&(need.queue.clone(), need.right)) == Some(&false);
    needs(config).into_iter().filter(asked).map(|need| format!("{} on {:?}", name_of(need.right), need.queue)).collect()
}

/// `guest` may do everything everywhere: one line for all of that.
fn judge_guest(host: &config::BrokerHost, inside: &Inside) -> Option<Finding> {
    if inside.rights_on_nothing.is_empty() {
        return None;
    }
    let near = is_this_machine(&host.host);
    let level = if near { Level::Note } else { Level::Warning };
    let why = if near {
        "Good for trying things out. For more, make a user, and name it in broker.urls:"
    } else {
        "Everybody knows its password. Make a user, and name it in broker.urls:"
    };
    Some(finding(level, "guest", "warrend logs in as guest, who may do everything on the broker").why(why))
}

fn narrow_for_new_user(told: Finding, host: &config::BrokerHost, [configure, write, read]: [&str; 3]) -> Finding {
    let set = ["rabbitmqctl", "set_permissions", "--vhost", &host.vhost, "warrend", configure, write, read];
    let set: Vec<String> = set.iter().map(|word| shell::word(word)).collect();
    told.paste(format!("rabbitmqctl add_user warrend && {}", set.join(" ")))
}

fn tags(office: &Office) -> Option<&[String]> {
    match office {
        Office::Open(overview) => overview.tags.as_deref(),
        Office::Unknown | Office::Closed { .. } => None,
    }
}

fn word(right: Right) -> &'static str {
    match right {
        Right::Configure => "make and delete",
        Right::Write => "bind",
        Right::Read => "consume",
    }
}

fn name_of(right: Right) -> &'static str {
    match right {
        Right::Configure => "configure",
        Right::Write => "write",
        Right::Read => "read",
    }
}
