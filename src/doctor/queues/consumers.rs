//! Who else consumes a queue: what another daemon did is not in our store.

use std::collections::BTreeSet;

use super::{Scene, finding};
use crate::config::Job;
use crate::doctor::finding::{Finding, Level};
use crate::doctor::seen::QueueSeen;

/// What all of our connections are called first; see `broker::connect`.
const OURS: &str = "warrend@";

/// Judges the consumers of a queue.
pub fn judge(scene: &Scene<'_>, job: &Job, name: &str, seen: &QueueSeen) -> Option<Finding> {
    let Some(details) = seen.details() else { return by_number(scene, job, name, seen) };
    // A daemon is its machine and process: `warrend@HOST:PID job:NAME`.
    let daemons: BTreeSet<&str> = details
        .consumers
        .iter()
        .filter_map(|consumer| consumer.called.as_deref()?.strip_prefix(OURS)?.split(' ').next())
        .collect();
    let strangers: BTreeSet<&str> = details
        .consumers
        .iter()
        .filter(|consumer| consumer.called.as_deref().is_none_or(|called| !called.starts_with(OURS)))
        .map(|consumer| consumer.called.as_deref().unwrap_or(&consumer.connection))
        .collect();
    if !strangers.is_empty() {
        let who: Vec<String> = strangers.iter().take(3).map(|who| format!("{who:?}")).collect();
        let text = format!("queue {name:?} is also consumed by {}", who.join(", "));
        let told = finding(Level::Warning, "other-consumers", text)
            .why("The messages that it takes are neither deduplicated nor retried nor recorded by warrend.");
        return Some(told.run(&["rabbitmqctl", "list_consumers", "--vhost", scene.vhost()]));
    }
    if daemons.len() > 1 {
        let who: Vec<&str> = daemons.iter().copied().take(5).collect();
        let text = format!("queue {name:?} is consumed by {} daemons: {}", daemons.len(), who.join(", "));
        let why = "Each remembers in its own store what is done. A message that comes again may come to the other one, and run twice.";
        return Some(
            finding(Level::Warning, "other-daemons", text)
                .why(why)
                .or("stop all but one; or see to it that running twice does no harm (WARREND_KEY is the same)"),
        );
    }
    let elsewhere = daemons.first().filter(|daemon| !is_on(daemon, scene.machine))?;
    let text = format!("queue {name:?} is consumed by the daemon {elsewhere}, not on this machine ({})", scene.machine);
    Some(finding(Level::Note, "other-daemons", text).why(format!(
        "If job {} is started here too, neither knows what the other one did: a store remembers for itself.",
        job.name
    )))
}

/// `daemon`: `HOST:PID`
fn is_on(daemon: &str, machine: &str) -> bool {
    daemon.rsplit_once(':').is_some_and(|(host, _)| host == machine)
}

/// Without names there are only numbers: those of the queue, and our own.
fn by_number(scene: &Scene<'_>, job: &Job, name: &str, seen: &QueueSeen) -> Option<Finding> {
    let Ok(Some(counts)) = seen.counts else { return None };
    let own = scene.own.as_ref().map(|queues| queues.contains(name));
    let others = counts.consumers.saturating_sub(u32::from(own == Some(true)));
    if others == 0 {
        return None;
    }
    let plural = if others == 1 { "" } else { "s" };
    let daemon = match own {
        Some(true) => "beside the daemon here",
        Some(false) => "though the daemon here does not consume it now",
        None => "though no daemon answers here",
    };
    let text = format!("queue {name:?} has {others} consumer{plural} {daemon}");
    Some(
        finding(Level::Note, "other-consumers", text)
            .why(format!(
                "What another program or another daemon takes is not in the store of job {}. Whose they are is seen with management_url.",
                job.name
            ))
            .run(&["rabbitmqctl", "list_consumers", "--vhost", scene.vhost()]),
    )
}
