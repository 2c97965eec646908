//! Looking at the broker: every question is asked here, each with a deadline, and none of them changes anything.

use std::collections::BTreeSet;
use std::time::{SystemTime, UNIX_EPOCH};

use super::permissions;
use super::queues::targets;
use super::seen::{Details, Greeting, HostSeen, Inside, Office, Overview, QueueSeen};
use crate::broker::{self, BrokerError, Probe, Right, with_probe};
use crate::config::{self, Config, Handler, Login};
use crate::management::{Management, Unseen};
use crate::policy::topology::{self, Ladder, Step};

/// Nobody has a queue of this name.
const NOBODYS_QUEUE: &str = "warrend-check.a-queue-that-nobody-has";

/// Everything that was seen of the broker.
pub struct Seen {
    /// By host, in the order of the file.
    pub hosts: Vec<HostSeen>,
    /// Over AMQP, at the first host that let us in.
    pub inside: Inside,
    /// The management API.
    pub office: Office,
}

/// Logs in to each host in turn, and asks the first one that lets us in.
pub fn look(config: &Config) -> Seen {
    let mut inside = None;
    let mut hosts = Vec::new();
    let management = office(&config.broker);
    for host in &config.broker.hosts {
        let single = config::Broker { hosts: vec![host.clone()], ..config.broker.clone() };
        let answer = broker::connect(&single, 0, "check").map(|link| {
            let greeting = Greeting { server: link.server.clone(), tls: link.tls, certificate: link.certificate };
            // A second connection is only to see that it comes about.
            with_probe(link, |probe| {
                inside.get_or_insert_with(|| look_inside(config, probe, management.as_ref().ok().map(|(it, _)| it)));
            });
            greeting
        });
        hosts.push(HostSeen { host: host.clone(), answer });
    }
    let office = match management {
        Ok((_, overview)) => Office::Open(overview),
        Err(office) => office,
    };
    Seen { hosts, inside: inside.unwrap_or_default(), office }
}

/// The management API, where it lets us in.
fn office(config: &config::Broker) -> Result<(Management, Overview), Office> {
    let closed = |user: &str, why| Office::Closed { user: user.to_owned(), why };
    if config.management.is_none() {
        return Err(Office::Unknown);
    }
    // One that cannot be read is told by AMQP.
    let password = broker::password(config).unwrap_or_default();
    let management = match Management::of(config, &password) {
        None => return Err(Office::Unknown),
        Some(Err(why)) => return Err(closed("", Unseen::Failed(why))),
        Some(Ok(management)) => management,
    };
    let asked = management.get(&["overview"]).map_err(|why| closed(&management.user, why))?;
    let ahead = asked.date.map(ahead);
    let user = config.hosts[0].user.as_str();
    let tags = match config.tls.login {
        Login::Certificate => None,
        Login::Password => tags(&management.as_user(user, &password)),
    };
    let nodes = management.get(&["nodes"]).map(|answer| answer.value);
    Ok((management, Overview { ahead, nodes, tags }))
}

/// Seconds that a clock is ahead of ours. It told whole seconds, so half of one is added.
fn ahead(date: SystemTime) -> i64 {
    let millis = |time: SystemTime| {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
    };
    (millis(date) + 500 - millis(SystemTime::now())) / 1000
}

/// The tags of a user, as the API tells himself. One without any may not even ask.
fn tags(own: &Management) -> Option<Vec<String>> {
    match own.get(&["whoami"]) {
        // An array since RabbitMQ 3.9, a text with commas before.
        Ok(answer) => Some(match answer.value["tags"].as_array() {
            Some(tags) => tags.iter().filter_map(|tag| tag.as_str().map(str::to_owned)).collect(),
            None => answer.value["tags"].as_str().unwrap_or_default().split(',').map(str::to_owned).collect(),
        }),
        Err(Unseen::Forbidden(why)) if why.contains("Not management user") => Some(Vec::new()),
        Err(Unseen::Forbidden(_) | Unseen::Missing | Unseen::Failed(_)) => None,
    }
}

/// Asks for everything that the jobs need. What ends the connection ends the asking.
fn look_inside(config: &Config, probe: &mut Probe<'_>, management: Option<&Management>) -> Inside {
    let mut inside = Inside::default();
    if let Err(error) = ask_all(config, probe, management, &mut inside) {
        inside.cut_short = Some(error);
    }
    inside
}

fn ask_all(
    config: &Config,
    probe: &mut Probe<'_>,
    management: Option<&Management>,
    inside: &mut Inside,
) -> Result<(), BrokerError> {
    let (queues, mut exchanges) = names(config);
    let vhost = config.broker.hosts[0].vhost.as_str();
    for name in queues {
        let counts = match probe.queue(&name) {
            Ok(counts) => Ok(counts),
            Err(BrokerError::Topology { reason, .. }) => Err(reason),
            Err(error) => return Err(error),
        };
        let exists = matches!(counts, Ok(Some(_)));
        let details = management.filter(|_| exists).map(|management| details(management, vhost, &name));
        if let Some(Ok(details)) = &details {
            let dead = details.holds("dead-letter-exchange");
            exchanges.extend(dead.and_then(|exchange| exchange.as_str().map(str::to_owned)));
        }
        inside.queues.insert(name, QueueSeen { counts, details });
    }
    for name in exchanges {
        match probe.exchange(&name) {
            Ok(exists) => drop(inside.exchanges.insert(name, exists)),
            Err(BrokerError::Topology { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    for need in permissions::needs(config) {
        let may = probe.may(need.right, &need.queue)?;
        inside.rights.insert((need.queue, need.right), may);
    }
    for right in [Right::Configure, Right::Write, Right::Read] {
        if probe.may(right, NOBODYS_QUEUE)? {
            inside.rights_on_nothing.push(right);
        }
    }
    Ok(())
}

/// Names of all queues and exchanges that the jobs have to do with.
fn names(config: &Config) -> (BTreeSet<String>, BTreeSet<String>) {
    let (mut queues, mut exchanges) = (BTreeSet::new(), BTreeSet::new());
    for job in config.jobs.iter().filter(|job| job.enabled) {
        for step in topology::job_steps(job, Ladder::new(config.broker.delay_queues)) {
            match step {
                Step::Queue { name, .. } => drop(queues.insert(name)),
                // Those of the ladder go with its queues.
                Step::Exchange { .. } | Step::BindQueue { .. } | Step::BindExchange { .. } => {}
            }
        }
        if let Handler::Forward(forward) = &job.handler {
            for target in targets(forward) {
                match target.exchange.literal() {
                    Some(exchange) if exchange.is_empty() => queues.extend(target.routing_key.literal()),
                    exchange => exchanges.extend(exchange),
                }
            }
        }
    }
    (queues, exchanges)
}

/// A queue as the management API tells it, with the names that its consumers' connections have.
fn details(management: &Management, vhost: &str, name: &str) -> Result<Details, Unseen> {
    let mut details = Details::read(&management.get(&["queues", vhost, name])?.value);
    for consumer in &mut details.consumers {
        // A connection that ended meanwhile, or one that we may not see, has no name.
        if let Ok(answer) = management.get(&["connections", &consumer.connection]) {
            consumer.called = answer.value["user_provided_name"].as_str().map(str::to_owned);
        }
    }
    Ok(details)
}
