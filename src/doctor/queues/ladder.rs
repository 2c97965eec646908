//! The delay ladder, on which retries wait.

use super::arguments::to_json;
use super::{Scene, finding};
use crate::config::Handler;
use crate::doctor::finding::{Finding, Level};
use crate::doctor::seen::{Details, QueueSeen};
use crate::policy::topology::{self, Ladder, Step};

/// Whether any job that runs can fail.
pub fn is_needed(scene: &Scene<'_>) -> bool {
    scene.config.jobs.iter().filter(|job| job.enabled).any(|job| match job.handler {
        Handler::Discard => false,
        Handler::Command(_) | Handler::Worker(_) | Handler::Http(_) | Handler::Forward(_) => true,
    })
}

/// Judges the ladder's queues, and the one where stranded retries lie.
pub fn judge(scene: &Scene<'_>) -> Vec<Finding> {
    if !is_needed(scene) {
        return Vec::new();
    }
    let ladder = Ladder::new(scene.config.broker.delay_queues);
    let mut findings = Vec::new();
    let (mut there, mut all, mut seen_whole) = (0, 0, true);
    for step in topology::delay_steps("any", ladder) {
        let Step::Queue { name, arguments, .. } = step else { continue };
        let Some(seen) = scene.inside.queues.get(&name) else { continue };
        all += 1;
        there += usize::from(seen.exists());
        let Some(details) = seen.details().filter(|_| seen.exists()) else {
            seen_whole &= !seen.exists();
            continue;
        };
        findings.extend(leaving(scene, &name, details));
        let differs =
            arguments.iter().find(|(argument, wanted)| details.arguments.get(argument) != Some(&to_json(wanted)));
        let strange = details.arguments.keys().find(|argument| !arguments.iter().any(|(name, _)| name == *argument));
        if let Some(argument) = differs.map(|(argument, _)| argument).or(strange) {
            let has = details.arguments.get(argument).map_or("none".to_owned(), ToString::to_string);
            let text = format!("the ladder's queue {name:?} was not made by warrend: its {argument} is {has}");
            let told = finding(Level::Error, "ladder", text)
                .why("warrend does not use it: retries that would pass it stay unacknowledged. All names warrend.delay.* are its own.");
            findings.push(scene.by_making_anew(told, &name));
        }
    }
    findings.extend(stranded(scene, ladder));
    if findings.is_empty() && all > 0 {
        let text = match (there, seen_whole) {
            (0, _) => "the delay ladder is not there yet: warrend makes it when it starts".to_owned(),
            (there, _) if there < all => {
                format!("the delay ladder has {there} of its {all} queues: warrend makes the others")
            }
            (_, true) => format!("the delay ladder has its {all} queues, as warrend makes them"),
            (_, false) => format!("the delay ladder has its {all} queues"),
        };
        findings.push(finding(Level::Ok, "ladder", text));
    }
    findings
}

/// Retries whose time is up, and that the next level has not taken. In good order they are on their way for milliseconds, and
/// one look cannot tell them from those that stay.
fn leaving(scene: &Scene<'_>, name: &str, details: &Details) -> Option<Finding> {
    let number = Some(details.leaving).filter(|number| *number > 0)?;
    let plural = if number == 1 { "retry waits" } else { "retries wait" };
    let told = finding(Level::Warning, "ladder-leaving", format!("{number} {plural} to be handed on in {name:?}"))
        .why("If this stays, the level is stuck: what they go to takes nothing, or RabbitMQ lost the process that hands them on: when the queue's leader moved (rabbitmq-server#7677), or for a whole node, where a queue like these or a virtual host with one was deleted while it was being declared (rabbitmq-server#16652). They are safe, and go on when the leader moves to another node, or these processes are begun anew.");
    let Some(leader) = &details.leader else { return Some(told) };
    Some(match details.online.iter().find(|node| *node != leader) {
        Some(other) => {
            // As RabbitMQ names the members of a quorum queue.
            let vhost = if scene.vhost() == "/" { "%2F" } else { scene.vhost() };
            let queue = atom(&format!("{vhost}_{name}"));
            let (leader, other) = (atom(leader), atom(other));
            let call = format!("ra:transfer_leadership({{{queue}, {leader}}}, {{{queue}, {other}}}).");
            told.run(&["rabbitmqctl", "eval", &call])
        }
        None => told
            .run(&["rabbitmqctl", "-n", leader, "eval", WORKERS_ANEW])
            .or(format!("restart {leader}, which is alone with it")),
    })
}

/// Begins the supervisor of these processes anew where it has ended, and each process that its queue lacks; others stay.
const WORKERS_ANEW: &str = "supervisor:restart_child(rabbit_sup, rabbit_fifo_dlx_sup), \
    [ra:cast_aux_command(amqqueue:get_pid(Queue), {dlx, setup}) || Queue <- rabbit_amqqueue:list_local_quorum_queues()].";

/// A name as Erlang writes it.
fn atom(name: &str) -> String {
    format!("'{}'", name.replace('\\', r"\\").replace('\'', r"\'"))
}

fn stranded(scene: &Scene<'_>, ladder: Ladder) -> Option<Finding> {
    let name = ladder.stranded();
    let seen: &QueueSeen = scene.inside.queues.get(&name)?;
    let Ok(Some(counts)) = seen.counts else { return None };
    let ready = Some(counts.ready).filter(|ready| *ready > 0)?;
    let plural = if ready == 1 { "retry lies" } else { "retries lie" };
    let source = format!("src-queue={name}");
    Some(
        finding(Level::Warning, "stranded", format!("{ready} {plural} in {name:?}"))
            .why("Their work queues were gone when their delay ended. They stay there until somebody moves them.")
            .run(&["rabbitmqadmin", &format!("--vhost={}", scene.vhost()), "get", &format!("queue={name}"), "count=10"])
            .or(format!("make their queues again, then move them there with a shovel ({source})")),
    )
}
