//! What each job answered.

use crate::job::Figures;
use crate::panel::Look;
use crate::report::Job;
use crate::task::ErrorClass;

use super::family::{Family, Value};

/// A job that answered.
#[derive(Clone, Copy)]
struct Known<'l> {
    name: &'l str,
    job: &'l Job,
    figures: &'l Figures,
}

/// The metrics with the label `job`.
pub fn families(look: &Look) -> Vec<Family> {
    let known: Vec<_> = look
        .status
        .jobs
        .iter()
        .filter_map(|(name, job)| Some(Known { name, job, figures: look.jobs.get(name)? }))
        .collect();
    let up = look.status.jobs.keys().fold(
        Family::gauge("warrend_job_up", "1 if the job answered; 0: it waits for RabbitMQ or for the disk."),
        |family, name| family.with([("job", name)], u64::from(look.jobs.contains_key(name))),
    );
    let mut families = vec![up];
    families.extend(state(&known));
    families.extend(counts(&known));
    families.extend(times(&known));
    families.extend(queues(&known));
    families
}

/// One sample for each job.
fn each<V: Into<Value>>(family: Family, known: &[Known<'_>], value: impl Fn(&Known<'_>) -> V) -> Family {
    known.iter().fold(family, |family, one| family.with([("job", one.name)], Some(value(one))))
}

fn state(known: &[Known<'_>]) -> Vec<Family> {
    let gauge = |name, help, value: fn(&Known<'_>) -> u64| each(Family::gauge(name, help), known, value);
    let mut paused = Family::gauge("warrend_job_paused", "1 for each reason for which the job takes no messages.");
    for one in known {
        for (reason, holds) in one.figures.pauses {
            paused = paused.with([("job", one.name), ("reason", reason)], u64::from(holds));
        }
    }
    vec![
        gauge("warrend_job_connected", "1 while its connection to RabbitMQ stands.", |one| {
            u64::from(one.figures.connected)
        }),
        gauge("warrend_job_consuming", "1 while it consumes all of its queues.", |one| {
            u64::from(one.job.is_consuming())
        }),
        paused,
        gauge("warrend_job_concurrency", "Handlers at one time, as configured.", |one| {
            one.job.concurrency.unwrap_or_default() as u64
        }),
        gauge("warrend_job_running", "Handlers at work.", |one| one.job.running as u64),
        gauge("warrend_job_prefetch", "Unacknowledged messages that each queue may have here.", |one| {
            u64::from(one.job.prefetch)
        }),
        gauge("warrend_job_in_flight_messages", "Messages received and not acknowledged.", |one| {
            one.job.in_flight as u64
        }),
        gauge("warrend_job_buffered_messages", "Messages received that wait for a worker.", |one| {
            one.job.buffered as u64
        }),
        gauge("warrend_job_owing_messages", "Forwarded messages and replies that wait for their confirm.", |one| {
            one.job.owing as u64
        }),
        gauge("warrend_job_forwarding_messages", "Failed attempts whose copy waits for its confirm.", |one| {
            one.job.forwarding as u64
        }),
        gauge("warrend_job_in_doubt_messages", "Attempts that were running when the last daemon died.", |one| {
            one.job.in_doubt as u64
        }),
    ]
}

fn counts(known: &[Known<'_>]) -> Vec<Family> {
    let counter = |name, help, value: fn(&Known<'_>) -> u64| each(Family::counter(name, help), known, value);
    let mut dead = Family::counter("warrend_messages_dead", "Messages dead-lettered, by the class of their error.");
    let mut restarts = Family::counter("warrend_worker_restarts", "Processes of worker handlers that were replaced.");
    for one in known {
        for class in ErrorClass::ALL {
            let count = one.job.dead_by_class.get(class.as_str()).copied().unwrap_or(0);
            dead = dead.with([("job", one.name), ("class", class.as_str())], count);
        }
        for (reason, count) in &one.job.worker_restarts {
            restarts = restarts.with([("job", one.name), ("reason", reason)], *count);
        }
    }
    vec![
        counter("warrend_messages_received", "Deliveries.", |one| one.job.received),
        counter("warrend_messages_done", "Tasks that a handler completed.", |one| one.job.done),
        counter("warrend_messages_duplicate", "Deliveries dropped because their key is done or in flight.", |one| {
            one.job.duplicates
        }),
        counter("warrend_messages_retried", "Failed attempts that will be tried again.", |one| one.job.retried),
        dead,
        counter("warrend_messages_requeued", "Deliveries handed back to their queue.", |one| one.job.requeued),
        counter("warrend_attempts_crashed", "Attempts ended by a signal.", |one| one.job.crashed),
        counter("warrend_replies", "Replies that RabbitMQ took.", |one| one.job.replies),
        counter("warrend_replies_lost", "Replies that reached nobody.", |one| one.job.replies_lost),
        counter("warrend_acks", "Ack frames sent.", |one| one.job.acks),
        restarts,
        counter("warrend_job_reconnects", "Connections that were lost and made again.", |one| one.job.reconnects),
        counter("warrend_job_stalls", "Connections given up because a queue delivered nothing on them.", |one| {
            one.job.stalls
        }),
    ]
}

fn times(known: &[Known<'_>]) -> Vec<Family> {
    let run = Family::histogram("warrend_run", "Time in the handler.").seconds();
    let wait = Family::histogram("warrend_wait", "Time from delivery to start.").seconds();
    let help = "Time from publishing to the end of the run that succeeded, to the second: by the timestamp of the message, \
                or else since it was first seen.";
    let age = Family::histogram("warrend_publish_to_done", help).seconds();
    let acks = Family::histogram("warrend_ack_messages", "Messages that one ack frame settled.");
    vec![
        each(run, known, |one| Value::from(&one.figures.histograms.run)),
        each(wait, known, |one| Value::from(&one.figures.histograms.wait)),
        each(age, known, |one| Value::from(&one.figures.histograms.age)),
        each(acks, known, |one| Value::from(&one.figures.histograms.acks)),
    ]
}

fn queues(known: &[Known<'_>]) -> Vec<Family> {
    let mut ready =
        Family::gauge("warrend_queue_ready_messages", "Messages ready for delivery, as RabbitMQ counts them.");
    let mut consumers = Family::gauge("warrend_queue_consumers", "Consumers of the queue, ours and others.");
    let mut consuming = Family::gauge("warrend_queue_consuming", "1 while this job consumes the queue.");
    let mut dead = Family::gauge("warrend_dead_letter_ready_messages", "Messages in the dead-letter queue of the job.");
    for one in known {
        for (name, queue) in &one.job.queues {
            let labels = [("job", one.name), ("queue", &**name)];
            ready = ready.with(labels, queue.ready.map(u64::from));
            consumers = consumers.with(labels, queue.consumers.map(u64::from));
            consuming = consuming.with(labels, u64::from(queue.consumed));
        }
        let letters = &one.job.dead_letter;
        dead = dead.with([("job", one.name), ("queue", &*letters.queue)], letters.ready.map(u64::from));
    }
    vec![ready, consumers, consuming, dead]
}
