//! How often, and for how long, the broker lets us have a message.

use std::time::Duration;

use serde_json::Value;

use super::{Scene, finding};
use crate::config::{Handler, Job, Prefetch, Queue, show_duration};
use crate::doctor::finding::{Finding, Level};
use crate::doctor::seen::{Details, QueueSeen};

/// How long a delivery may stay unacknowledged where nothing else is said: RabbitMQ's `consumer_timeout`.
const CONSUMER_TIMEOUT: Duration = Duration::from_secs(30 * 60);
/// What RabbitMQ's guide advises not to go below: held for less, a message is safe with every setting that makes sense.
const LEAST_TIMEOUT: Duration = Duration::from_secs(5 * 60);
/// What asks the broker for it.
const ASK_TIMEOUT: [&str; 3] = ["rabbitmqctl", "eval", "application:get_env(rabbit, consumer_timeout)."];
/// What RabbitMQ 4 takes for a delivery limit where nothing else is said.
const DEFAULT_LIMIT: i64 = 20;
/// Fewer hand-backs than this come together in a bad week of restarts.
const AMPLE: i64 = 100;

/// How often the broker hands out a message of a quorum queue before it gives it up.
pub fn judge_limit(scene: &Scene<'_>, job: &Job, name: &str, details: &Details) -> Option<Finding> {
    if details.kind != "quorum" {
        return None;
    }
    let set = details.holds("delivery-limit").and_then(|limit| limit.as_i64());
    let is_new = scene.version.is_some_and(|version| version >= (4, 0));
    let limit = set.or(is_new.then_some(DEFAULT_LIMIT)).filter(|limit| *limit >= 0)?;
    let budget = i64::from(job.retry.max_attempts).saturating_add(job.retry.max_crashes.into());
    let level = if limit < budget {
        Level::Warning
    } else if limit < AMPLE {
        Level::Note
    } else {
        return None;
    };
    let leaves = match details.holds("dead-letter-exchange").and_then(|it| it.as_str().map(str::to_owned)) {
        Some(exchange) => format!("sends it to the exchange {exchange:?}"),
        None => "drops it".to_owned(),
    };
    let (attempts, crashes) = (job.retry.max_attempts, job.retry.max_crashes);
    let source = if set.is_none() { ", RabbitMQ's own" } else { "" };
    let text = format!(
        "queue {name:?} gives a message up after {limit} deliveries{source}; job {} tries it {attempts} times and {crashes} crashes",
        job.name
    );
    let told = finding(level, "delivery-limit", text)
        .why(format!("Each lost connection, pause and restart hands messages back, which counts too. Past the limit RabbitMQ {leaves}, and warrend does not learn of it."));
    let ours = Value::from(i32::MAX);
    Some(if details.arguments.contains_key("x-delivery-limit") {
        scene.by_making_anew(told, name)
    } else {
        scene.with_policy(told, name, "delivery-limit", &ours)
    })
}

/// How long a job holds a message.
struct Holding {
    /// One run.
    run: Duration,
    /// Runs that the last of the prefetched messages waits for, its own among them.
    rounds: usize,
    /// All of them.
    longest: Duration,
    /// What the broker allows, and whether that is known of the queue.
    limit: Duration,
    known: bool,
}

/// `None` for a job that holds nothing for long.
fn holding(scene: &Scene<'_>, job: &Job) -> Option<Holding> {
    let (timeout, grace) = match &job.handler {
        Handler::Command(command) => (command.timeout, command.kill_grace),
        Handler::Worker(worker) => (worker.program.timeout, worker.program.kill_grace),
        Handler::Http(http) => (http.timeout, Duration::ZERO),
        Handler::Forward(_) | Handler::Discard => return None,
    };
    let of_queue = |queue: &Queue| {
        let details = scene.inside.queues.get(&*queue.name).and_then(QueueSeen::details)?;
        details.holds("consumer-timeout")?.as_u64().map(Duration::from_millis)
    };
    let limits = job.queues.iter().map(|queue| of_queue(queue).map_or((CONSUMER_TIMEOUT, false), |set| (set, true)));
    let (limit, known) = limits.min()?;
    let run = timeout.saturating_add(grace);
    let rounds = match job.prefetch {
        Prefetch::Fixed(prefetch) => {
            let held = usize::from(prefetch) * job.queues.len();
            held.div_ceil(job.concurrency * job.handler.batch()).max(1)
        }
        // It holds as many as keep the handlers busy.
        Prefetch::Auto => 1,
    };
    let longest = run.saturating_mul(u32::try_from(rounds).unwrap_or(u32::MAX));
    Some(Holding { run, rounds, longest, limit, known })
}

/// What rabbitmq.conf says is told by the broker's own tools alone. It matters where a message is held for longer than anybody
/// would set it, and where what RabbitMQ takes by itself is no trouble already.
pub fn judge_unseen(scene: &Scene<'_>) -> Option<Finding> {
    let jobs = scene.config.jobs.iter().filter(|job| job.enabled);
    let held = jobs.filter_map(|job| holding(scene, job).map(|holding| (job, holding)));
    let held = held.filter(|(_, it)| !it.known && it.longest > LEAST_TIMEOUT && it.longest < it.limit);
    let (job, Holding { longest, .. }) = held.max_by_key(|(_, holding)| holding.longest)?;
    let text = format!(
        "consumer_timeout of rabbitmq.conf was not seen; job {} holds messages for up to {}",
        job.name,
        minutes(longest)
    );
    Some(
        finding(Level::Note, "consumer-timeout-unseen", text)
            .why(format!(
                "Neither AMQP nor the management API tells it. RabbitMQ's own is {}; with a shorter one it closes the channel of a job that holds a message for longer. This tells it:",
                show_duration(CONSUMER_TIMEOUT)
            ))
            .run(&ASK_TIMEOUT),
    )
}

/// To the minute: a sum of many runs is no exact number.
fn minutes(time: Duration) -> String {
    show_duration(Duration::from_secs(time.as_secs().div_ceil(60).saturating_mul(60)))
}

/// How long a message may lie with us unacknowledged, against what the broker allows.
pub fn judge_holding(scene: &Scene<'_>, job: &Job) -> Option<Finding> {
    let Holding { run, rounds, longest, limit, known } = holding(scene, job)?;
    let shown = show_duration(limit);
    let about = minutes(longest);
    let source = if known { "of its queue" } else { "(RabbitMQ's own, unless rabbitmq.conf says otherwise)" };
    if longest < limit {
        return None;
    }
    let why = "RabbitMQ then closes the channel: all of its messages come again, and those that run may run twice.";
    let (level, text) = if run >= limit {
        (
            Level::Error,
            format!("job {}: a run may take {}, consumer_timeout is {shown} {source}", job.name, show_duration(run)),
        )
    } else {
        let text = format!(
            "job {}: the last of {rounds} rounds of prefetched messages may wait {about}, consumer_timeout is {shown} {source}",
            job.name
        );
        (Level::Warning, text)
    };
    let fitting =
        (limit.as_secs() / run.as_secs().max(1)).saturating_sub(1) * (job.concurrency * job.handler.batch()) as u64;
    let told = finding(level, "consumer-timeout", text).why(why);
    let told = match fitting / job.queues.len() as u64 {
        0 => told.or(format!("in [jobs.{}.handler]: a timeout below {shown}", job.name)),
        fitting => {
            told.or(format!("in [jobs.{}]: prefetch = {fitting}, or \"auto\"; or a shorter handler.timeout", job.name))
        }
    };
    Some(told.run(&ASK_TIMEOUT))
}
