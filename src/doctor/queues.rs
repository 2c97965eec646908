//! The queues of the jobs: whether they are there, whether they are what the file says, and what else happens to their
//! messages. warrend uses a queue as it stands, so nothing here keeps it from starting but what is missing.

mod arguments;
mod consumers;
mod ladder;
mod limits;

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::Value;

use super::finding::{Area, Finding, Level, pattern_of};
use super::seen::{Details, Inside, QueueSeen};
use crate::config::{Config, Declare, Forward, Handler, Job, Queue, QueueKind, Target, show_duration};
use crate::management::Unseen;
use crate::policy::topology::{self, Ladder, Step};
use crate::task::HeaderValue;

/// What the judgement of queues rests on.
pub struct Scene<'s> {
    /// The configuration.
    pub config: &'s Config,
    /// What was seen.
    pub inside: &'s Inside,
    /// Major and minor version of the broker, where it is RabbitMQ.
    pub version: Option<(u32, u32)>,
    /// This machine, as our connections name it.
    pub machine: &'s str,
    /// The queues that the daemon of this configuration consumes, as it says itself; `None` where none answers.
    pub own: Option<BTreeSet<String>>,
}

fn finding(level: Level, code: &'static str, text: impl Into<String>) -> Finding {
    Finding::new(Area::Queues, level, code, text)
}

impl Scene<'_> {
    fn vhost(&self) -> &str {
        &self.config.broker.hosts[0].vhost
    }

    /// A policy that gives this queue, and no other, an option.
    fn with_policy(&self, told: Finding, queue: &str, option: &str, value: &Value) -> Finding {
        let (name, pattern) = (format!("warrend-{queue}"), format!("^{}$", pattern_of(queue)));
        let definition = serde_json::json!({ option: value }).to_string();
        let vhost = self.vhost();
        told.run(&["rabbitmqctl", "set_policy", "--vhost", vhost, "--apply-to", "queues", &name, &pattern, &definition])
    }

    /// Deleting a queue that holds nothing, so that the next start makes it anew.
    fn by_making_anew(&self, told: Finding, queue: &str) -> Finding {
        told.run(&["rabbitmqctl", "delete_queue", "--vhost", self.vhost(), queue, "--if-empty", "--if-unused"])
    }
}

/// Judges all queues of all jobs that run.
pub fn judge(scene: &Scene<'_>) -> Vec<Finding> {
    let jobs = scene.config.jobs.iter().filter(|job| job.enabled);
    let mut findings: Vec<Finding> = jobs.flat_map(|job| judge_job(scene, job)).collect();
    findings.extend(limits::judge_unseen(scene));
    findings.extend(ladder::judge(scene));
    findings
}

fn judge_job(scene: &Scene<'_>, job: &Job) -> Vec<Finding> {
    let steps = topology::job_steps(job, Ladder::new(scene.config.broker.delay_queues));
    let wanted = |name: &str| {
        let found = steps.iter().find_map(|step| match step {
            Step::Queue { name: other, arguments, .. } if other == name => Some(arguments.as_slice()),
            Step::Queue { .. } | Step::Exchange { .. } | Step::BindQueue { .. } | Step::BindExchange { .. } => None,
        });
        found.unwrap_or_default()
    };
    let mut findings = Vec::new();
    for queue in &job.queues {
        if let Some(seen) = scene.inside.queues.get(&*queue.name) {
            let found = judge_work(scene, job, queue, wanted(&queue.name), seen);
            conclude(&mut findings, found, || ok_line(&format!("queue {:?} of job {}", queue.name, job.name), seen));
        }
    }
    let letters = &*job.dead_letter.queue;
    if let Some(seen) = scene.inside.queues.get(letters) {
        let found = judge_letters(scene, job, wanted(letters), seen);
        conclude(&mut findings, found, || ok_line(&format!("dead-letter queue {letters:?} of job {}", job.name), seen));
    }
    findings.extend(limits::judge_holding(scene, job));
    findings.extend(judge_targets(scene, job));
    findings
}

/// Where nothing was found, the one line that says so.
fn conclude(findings: &mut Vec<Finding>, found: Vec<Finding>, ok: impl FnOnce() -> Finding) {
    if found.iter().all(|found| found.level <= Level::Note) {
        findings.push(ok());
    }
    findings.extend(found);
}

fn ok_line(what: &str, seen: &QueueSeen) -> Finding {
    let Ok(Some(counts)) = seen.counts else {
        return finding(Level::Ok, "queue", format!("{what} is not there yet: warrend makes it when it starts"));
    };
    let known = match seen.details() {
        Some(details) => format!("{}, as configured", details.kind),
        None => "is there".to_owned(),
    };
    let plural = if counts.consumers == 1 { "" } else { "s" };
    let text = format!("{what}: {known}, {} ready, {} consumer{plural}", counts.ready, counts.consumers);
    finding(Level::Ok, "queue", text)
}

fn judge_work(
    scene: &Scene<'_>,
    job: &Job,
    queue: &Queue,
    wanted: &[(String, HeaderValue)],
    seen: &QueueSeen,
) -> Vec<Finding> {
    let name = &*queue.name;
    match &seen.counts {
        Err(why) => {
            return vec![finding(Level::Error, "queue-unseen", why.clone()).why("warrend cannot consume it either.")];
        }
        Ok(None) if queue.declare == Declare::Passive => return vec![missing(scene, queue, wanted)],
        Ok(None) => return Vec::new(),
        Ok(Some(_)) => {}
    }
    let mut findings = Vec::new();
    match &seen.details {
        None => {}
        Some(Err(why)) => findings.push(unseen(name, why)),
        Some(Ok(details)) => {
            let place = format!("[[jobs.{}.queues]] with name = {name:?}", job.name);
            findings.extend(arguments::judge(scene, name, &place, wanted, details));
            findings.extend(judge_life(scene, name, details));
            findings.extend(judge_leaving(scene, queue, details));
            findings.extend(limits::judge_limit(scene, job, name, details));
        }
    }
    findings.extend(consumers::judge(scene, job, name, seen));
    findings
}

fn unseen(name: &str, why: &Unseen) -> Finding {
    let why = match why {
        Unseen::Missing => "the management API does not know it".to_owned(),
        Unseen::Forbidden(why) | Unseen::Failed(why) => why.clone(),
    };
    finding(Level::Note, "queue-unseen", format!("queue {name:?}: arguments and policies were not seen: {why}"))
}

fn missing(scene: &Scene<'_>, queue: &Queue, wanted: &[(String, HeaderValue)]) -> Finding {
    let table: serde_json::Map<String, Value> =
        wanted.iter().map(|(name, value)| (name.clone(), arguments::to_json(value))).collect();
    let (vhost, name) = (format!("--vhost={}", scene.vhost()), format!("name={}", queue.name));
    let table = format!("arguments={}", Value::Object(table));
    finding(Level::Error, "queue-missing", format!("queue {:?} does not exist", queue.name))
        .why("declare = \"passive\": warrend does not make it, and waits until it is there.")
        .run(&["rabbitmqadmin", &vhost, "declare", "queue", &name, "durable=true", &table])
        .or("let warrend make it: declare = \"create\"")
}

/// What becomes of the queue itself.
fn judge_life(scene: &Scene<'_>, name: &str, details: &Details) -> Vec<Finding> {
    let mut findings = Vec::new();
    if !details.durable {
        let told = finding(
            Level::Warning,
            "queue-transient",
            format!("queue {name:?} does not outlive a restart of the broker"),
        );
        let told = told.why("It is not durable: its messages are gone then. RabbitMQ 4 has no such queues any more.");
        findings.push(scene.by_making_anew(told, name));
    }
    if details.auto_delete {
        let text = format!("queue {name:?} is deleted with its last consumer");
        let told = finding(Level::Warning, "queue-auto-delete", text);
        let told = told.why("Its messages are gone when warrend stops or loses its connection.");
        findings.push(scene.by_making_anew(told, name));
    }
    findings
}

/// How messages leave the queue but by way of warrend.
fn judge_leaving(scene: &Scene<'_>, queue: &Queue, details: &Details) -> Vec<Finding> {
    let name = &*queue.name;
    let mut findings = Vec::new();
    let exchange = details.holds("dead-letter-exchange").and_then(|it| it.as_str().map(str::to_owned));
    let leaves = match &exchange {
        Some(exchange) => format!("go to the exchange {exchange:?}, past warrend"),
        None => "are dropped".to_owned(),
    };
    if let Some(exchange) = &exchange
        && scene.inside.exchanges.get(exchange) == Some(&false)
    {
        let text = format!("queue {name:?} dead-letters to the exchange {exchange:?}, which does not exist");
        let vhost = format!("--vhost={}", scene.vhost());
        let told = finding(Level::Error, "dead-letter-exchange", text)
            .why("What expires, overflows or is refused there is dropped without a word. Make it, and bind a queue to it:")
            .run(&["rabbitmqadmin", &vhost, "declare", "exchange", &format!("name={exchange}"), "type=topic", "durable=true"]);
        findings.push(told.or("take dead-letter-exchange out of the policy, or make the queue anew without it"));
    }
    if let Some(ttl) = details.holds("message-ttl").and_then(|ttl| ttl.as_u64())
        && queue.message_ttl.is_none()
    {
        let ttl = show_duration(Duration::from_millis(ttl));
        let text =
            format!("messages that wait in {name:?} for more than {ttl} {leaves}{}", by_policy(details, "message-ttl"));
        findings.push(finding(Level::Note, "message-ttl", text));
    }
    let overflow = details.holds("overflow").and_then(|it| it.as_str().map(str::to_owned)).unwrap_or_default();
    let bounded = ["max-length", "max-length-bytes"].into_iter().find(|option| details.holds(option).is_some());
    if bounded.is_some() && overflow.starts_with("reject-publish") {
        let text = format!("queue {name:?} refuses messages when it is full (overflow {overflow})");
        findings.push(
            finding(Level::Warning, "overflow", text)
                .why("A retry whose work queue is full is tried again after three to six minutes, and 32 of them hold up all other retries of the virtual host.")
                .or(format!("take max-length or overflow away{}, or let it drop the oldest: overflow drop-head", by_policy(details, "overflow"))),
        );
    } else if let Some(option) = bounded
        && queue.max_length.is_none()
    {
        let text = format!(
            "the oldest messages of {name:?} {leaves} when it is full ({option}){}",
            by_policy(details, option)
        );
        findings.push(finding(Level::Note, "max-length", text));
    }
    findings
}

/// Where an option comes from, if a policy sets it.
fn by_policy(details: &Details, option: &str) -> String {
    if details.effective.contains_key(option) {
        format!(" (policy {})", details.policies.join(", "))
    } else {
        String::new()
    }
}

fn judge_letters(scene: &Scene<'_>, job: &Job, wanted: &[(String, HeaderValue)], seen: &QueueSeen) -> Vec<Finding> {
    let name = &*job.dead_letter.queue;
    let details = match (&seen.counts, &seen.details) {
        (Err(why), _) => {
            return vec![
                finding(Level::Error, "queue-unseen", why.clone()).why("What fails for good cannot be laid there."),
            ];
        }
        (Ok(None), _) | (Ok(Some(_)), None) => return Vec::new(),
        (Ok(Some(_)), Some(Err(why))) => return vec![unseen(name, why)],
        (Ok(Some(_)), Some(Ok(details))) => details,
    };
    let place = format!("[jobs.{}.dead_letter]", job.name);
    let mut findings: Vec<Finding> = arguments::judge(scene, name, &place, wanted, details);
    findings.extend(judge_life(scene, name, details));
    let drops = details.holds("overflow").is_none_or(|overflow| overflow == "drop-head");
    if let Some(option) = ["max-length", "max-length-bytes"].into_iter().find(|option| details.holds(option).is_some())
        && drops
    {
        let text = format!("the dead-letter queue {name:?} drops its oldest letters when it is full ({option})");
        let told = finding(Level::Warning, "letters-dropped", text)
            .why("They are lost: nothing else has a copy. With reject-publish warrend waits until there is room.");
        findings.push(scene.with_policy(told, name, "overflow", &Value::from("reject-publish")));
    }
    if let Some(ttl) = details.holds("message-ttl").and_then(|ttl| ttl.as_u64())
        && job.dead_letter.message_ttl.is_none()
    {
        let ttl = show_duration(Duration::from_millis(ttl));
        let text =
            format!("the dead-letter queue {name:?} drops letters after {ttl}{}", by_policy(details, "message-ttl"));
        let told = finding(Level::Warning, "letters-dropped", text).why("The file keeps them for ever.");
        findings.push(scene.by_making_anew(told.or(format!("in {place}: message_ttl = {ttl:?}")), name));
    }
    findings
}

/// Where the job forwards to, as far as the file says it.
pub fn targets(forward: &Forward) -> impl Iterator<Item = &Target> {
    forward.routes.iter().map(|route| &route.to).chain(&forward.otherwise)
}

fn judge_targets(scene: &Scene<'_>, job: &Job) -> Vec<Finding> {
    let Handler::Forward(forward) = &job.handler else { return Vec::new() };
    let mut findings = Vec::new();
    for target in targets(forward) {
        let Some(exchange) = target.exchange.literal() else { continue };
        let vhost = format!("--vhost={}", scene.vhost());
        let (what, name, mend) = if exchange.is_empty() {
            let Some(queue) = target.routing_key.literal() else { continue };
            if scene.inside.queues.get(&queue).is_none_or(QueueSeen::exists) {
                continue;
            }
            let named = format!("name={queue}");
            ("queue", queue, vec!["declare".to_owned(), "queue".to_owned(), named, "durable=true".to_owned()])
        } else if scene.inside.exchanges.get(&exchange) == Some(&false) {
            let named = format!("name={exchange}");
            let words = ["declare", "exchange", &named, "type=topic", "durable=true"].map(str::to_owned);
            ("exchange", exchange, words.to_vec())
        } else {
            continue;
        };
        let text = format!("job {} forwards to the {what} {name:?}, which does not exist", job.name);
        let words: Vec<&str> = ["rabbitmqadmin", &vhost].into_iter().chain(mend.iter().map(String::as_str)).collect();
        let told = finding(Level::Error, "forward-target", text)
            .why("Each message for it fails, and is dead-lettered in the end.");
        findings.push(told.run(&words));
    }
    findings
}

/// What the file calls a kind.
fn kind_word(kind: QueueKind) -> &'static str {
    match kind {
        QueueKind::Classic => "classic",
        QueueKind::Quorum => "quorum",
    }
}

#[cfg(test)]
mod tests;
