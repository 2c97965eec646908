//! From a message to its copy and back: any headers, ours among them, and whatever others made of those.

use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::policy::retry::{self, CopyFacts};
use crate::task::{Demand, FailedAttempt, Headers, Ticket, any, table_size};

/// All the names that mean something to us or to the broker.
const NAMES: &[&str] = &[
    header::ATTEMPT,
    header::BASE,
    header::CRASHES,
    header::FIRST_SEEN,
    header::QUEUE,
    header::EXCHANGE,
    header::ROUTING_KEY,
    header::DEAD,
    header::JOB,
    header::ERROR,
    header::ERROR_CLASS,
    header::FAILED_AT,
    header::HOST,
    header::USER_ID,
    header::DEADLINE,
    header::HOPS,
    header::DROPPED,
    "x-death",
    "x-first-death-queue",
    "CC",
];
/// A content header travels in one frame of at most 128 KiB; the other properties take up to 11 x 256 bytes of it.
const FRAME: usize = 128 * 1024 - 11 * 256 - 64;

/// What happens to an attempt.
#[derive(Debug, Clone, Copy)]
enum Fate {
    Fails,
    Crashes,
    /// And its dead letter goes back to the work queue: by our own hand, or moved by others as it is.
    Rejected {
        by_us: bool,
    },
}

fn fate() -> impl Strategy<Value = Fate> {
    let rejected = any::<bool>().prop_map(|by_us| Fate::Rejected { by_us });
    prop_oneof![4 => Just(Fate::Fails), 2 => Just(Fate::Crashes), 1 => rejected]
}

fn patient() -> Job {
    let mut job = job();
    (job.retry.max_attempts, job.retry.max_crashes) = (3, 2);
    job
}

fn judge(job: &Job, task: &Task, fate: Fate, random: f64) -> FailedAttempt {
    let failure = |class| Failure { class, error: "no luck\0\u{2028}é".repeat(200) };
    let retried = |class| retry::judge_retry(&job.retry, task, failure(class), None, random, UnixMillis(99));
    match fate {
        Fate::Fails => retried(ErrorClass::Failed),
        Fate::Crashes => retried(ErrorClass::Crashed),
        Fate::Rejected { .. } => retry::judge_dead(failure(ErrorClass::Rejected), UnixMillis(99)),
    }
}

/// The copy that this attempt demands, as it comes back: along the ladder, or out of the dead-letter queue.
fn back(job: &Job, task: &Arc<Task>, failed: &FailedAttempt, fate: Fate) -> Message {
    let facts = CopyFacts {
        job: "j".into(),
        queues: job.queues.iter().map(|queue| Arc::clone(&queue.name)).collect(),
        dead_letter: "j.dead".into(),
        host: "h".to_owned(),
        header_room: retry::HEADER_ROOM,
    };
    let copy = retry::copy(&facts, Ticket(1), task, failed);
    let properties = match fate {
        Fate::Rejected { by_us: true } => retry::again(copy.properties),
        Fate::Rejected { by_us: false } | Fate::Fails | Fate::Crashes => copy.properties,
    };
    let exchange = "warrend.delay.deliver".to_owned();
    Message {
        exchange,
        routing_key: "0.1.q".to_owned(),
        redelivered: false,
        properties,
        body: task.message.body.clone(),
    }
}

/// What is nobody's but the publisher's.
fn own(headers: &Headers) -> String {
    let own = headers.iter().filter(|(name, _)| !NAMES.contains(&name.as_str()) && !retry::is_of_broker(name));
    // A NaN is not equal to itself, but reads the same.
    format!("{:?}", own.collect::<Vec<_>>())
}

proptest! {
    /// Attempts, base and crashes go on from copy to copy, whatever is between them; the message stays what it was.
    #[test]
    fn a_lineage_only_grows(
        message in any::message(&[]),
        fates in prop::collection::vec((fate(), 0.0..1.0_f64), 1..12),
    ) {
        let job = patient();
        let (first, _) = read_with(&job, message);
        let (origin, body) = ((first.message.exchange.clone(), first.message.routing_key.clone()), first.message.body.clone());
        let (headers, key) = (own(&first.message.properties.headers), first.key.clone());
        let mut task = Arc::new(first);
        for (fate, random) in fates {
            let failed = judge(&job, &task, fate, random);
            let (next, unfit) = read_with(&job, back(&job, &task, &failed, fate));
            prop_assert_eq!(unfit.map(|failure| failure.error), None);
            prop_assert_eq!(next.attempt, task.attempt + 1);
            let crashed = u32::from(matches!(fate, Fate::Crashes));
            let lineage = match failed.demand {
                Demand::Dead => (task.attempt, 0),
                Demand::Retry { delay } => {
                    prop_assert!(delay >= Duration::from_secs(1) && delay <= job.retry.max);
                    (task.base, task.crashes + crashed)
                }
            };
            prop_assert_eq!((next.base, next.crashes), lineage);
            prop_assert_eq!(next.first_seen, task.first_seen);
            prop_assert_eq!((&next.message.exchange, &next.message.routing_key), (&origin.0, &origin.1));
            prop_assert_eq!((&next.message.body, own(&next.message.properties.headers)), (&body, headers.clone()));
            prop_assert_eq!(&next.key, &key);
            let tried = next.attempt - next.base - 1;
            prop_assert!(tried - next.crashes < job.retry.max_attempts && next.crashes < job.retry.max_crashes);
            task = Arc::new(next);
        }
    }

    /// Where others wrote into our headers, the message is either read as one of ours or dead for good, and its copy is ours
    /// again.
    #[test]
    fn any_headers_give_a_sound_task(message in any::message(NAMES), fate in fate(), random in 0.0..1.0_f64) {
        let job = Job { reply: true, ..patient() };
        let (task, unfit) = read_with(&job, message);
        prop_assert!(task.attempt >= 1 && task.base < task.attempt && task.crashes <= task.attempt - 1 - task.base);
        let fate = match &unfit {
            Some(failure) => {
                prop_assert!(task.key.is_none() || failure.class != ErrorClass::Undecodable, "nothing is recorded under it");
                Fate::Rejected { by_us: false }
            }
            None => fate,
        };
        let task = Arc::new(task);
        let failed = judge(&job, &task, fate, random);
        let copied = back(&job, &task, &failed, fate);
        prop_assert!(copied.properties.headers.keys().all(|name| !retry::is_of_broker(name)));
        prop_assert_eq!((&copied.properties.expiration, &copied.properties.user_id), (&None, &None));
        let (next, unfit) = read_with(&job, copied);
        if i64::from(task.attempt) < MAX_ATTEMPT {
            prop_assert!(next.attempt > task.attempt);
            prop_assert_eq!(unfit.map(|failure| failure.error), None);
        }
    }

    /// However many and however large, ours among them: the copy fits a frame and keeps what we go by.
    #[test]
    fn a_copy_fits_its_frame(
        message in any::message(NAMES),
        large in prop::collection::vec((any::short_text(), 0..150_000_usize), 0..4),
        ours in prop::sample::select(NAMES),
        fate in fate(),
    ) {
        let job = patient();
        let mut message = message;
        let block = |size: usize| HeaderValue::Bytes(vec![7; size]);
        if let Some((_, size)) = large.first() {
            message.properties.headers.insert(ours.to_owned(), block(*size));
        }
        message.properties.headers.extend(large.into_iter().map(|(name, size)| (name, block(size))));
        let (task, unfit) = read_with(&job, message);
        let fate = if unfit.is_some() { Fate::Rejected { by_us: true } } else { fate };
        let task = Arc::new(task);
        let failed = judge(&job, &task, fate, 0.5);
        let copied = back(&job, &task, &failed, fate);
        prop_assert!(table_size(&copied.properties.headers) <= FRAME, "{}", table_size(&copied.properties.headers));
        let (next, _) = read_with(&job, copied);
        prop_assert_eq!((&next.message.exchange, &next.message.routing_key), (&task.message.exchange, &task.message.routing_key));
        prop_assert!(next.attempt > task.attempt || i64::from(task.attempt) >= MAX_ATTEMPT);
    }
}
