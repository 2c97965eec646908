//! `[jobs.NAME]`, judged by itself. What takes several jobs to see is in `load`.

use std::sync::Arc;
use std::time::Duration;

use super::general::{ABOVE_ZERO, at_least};
use super::handler;
use super::item::{Item, Limits};
use super::mask;
use super::place::Place;
use super::queue::{self, Queues};
use super::section::{Got, Section};
use super::shape;
use super::sketch::Want;
use super::value::{days, millis, secs, show_duration};
use super::{
    Ack, Binding, DeadLetter, Handler, Idempotency, InDoubt, Job, KeySource, KillSwitch, OnMissing, Order, Prefetch,
    QueueKind, Retry, Store,
};

/// Longest name of a job: threads, logs and the default dead-letter queue bear it.
const LONGEST_NAME: usize = 100;
/// The same and the letters of it, for the schema.
pub const NAME_FORM: &str = "^[A-Za-z0-9._-]{1,100}$";
/// What the delay ladder can count: whole seconds up to 12 days.
const RETRY_DELAY: Limits = Limits::new(secs(1), days(12)).whole_seconds();
/// An ack that waits longer than this helps nobody.
const ACK_INTERVAL: Limits = Limits::new(secs(0), secs(10));
/// What a kill switch counts over, and how long its first pause may be.
const KILL_SWITCH_TIME: Limits = Limits::new(secs(1), secs(3_600));
/// The most that a default prefetch takes.
const MOST_PREFETCH: usize = 2000;
/// The default prefetch of a handler that takes no time.
const DISCARD_PREFETCH: u16 = 200;

/// A job, and the places that checks across jobs need.
pub struct Draft {
    /// The job; not to be used where anything was noted about it.
    pub job: Job,
    /// Where its name stands.
    pub place: Place,
    /// Where the names of its queues stand, in their order.
    pub queue_places: Vec<Place>,
    /// Its bindings, and where their exchanges stand.
    pub exchanges: Vec<(Binding, Place)>,
}

/// Reads one job.
pub fn read(name: &str, item: &Item<'_>, store: &Store) -> Option<Draft> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if name.is_empty() || name.len() > LONGEST_NAME || !name.chars().all(allowed) {
        let message = format!("`{}` cannot be the name of a job", mask::quote(name));
        item.reader().error(item.key_place, message, "allowed: letters, digits, `-`, `_` and `.`, at most 100");
    }
    let section = item.section(&shape::JOB)?;
    let orders = [("weighted", Order::Weighted), ("strict", Order::Strict)];
    let queues = queue::read(&section, name);
    let handler = handler::read(&section, name, &queues);
    let Queues { queues, exchanges } = queues;
    let (queues, queue_places): (Vec<_>, Vec<_>) = queues.into_iter().unzip();
    let (dead_letter, kept) = dead_letter(&section, name, &queues);
    let concurrency = section.get("concurrency", 4, |item| item.integer(1..=1024));
    let idempotency = idempotency(&section.section("idempotency", &shape::IDEMPOTENCY), store, &kept);
    let in_doubt = in_doubt(&section, &idempotency, handler.as_ref());
    let job = Job {
        name: Arc::from(name),
        enabled: section.get("enabled", true, |item| item.boolean()).value,
        concurrency: concurrency.value,
        reply: reply(&section, handler.as_ref()),
        prefetch: prefetch(&section, &handler, &concurrency, queues.len()),
        order: section.get("order", Order::Weighted, |item| item.choice(&orders)).value,
        max_body: section.get("max_body", 16 << 20, |item| item.size()).value,
        dead_letter,
        queues,
        kill_switch: kill_switch(&section, handler.as_ref()),
        handler: handler.unwrap_or(Handler::Discard),
        ack: ack(&section.section("ack", &shape::ACK)),
        idempotency,
        in_doubt,
        retry: retry(&section.section("retry", &shape::RETRY)),
    };
    Some(Draft { job, place: section.place, queue_places, exchanges })
}

fn prefetch(section: &Section<'_>, handler: &Option<Handler>, concurrency: &Got<usize>, queues: usize) -> Prefetch {
    let batch = handler.as_ref().map_or(1, Handler::batch);
    let no_workers = handler.as_ref().is_some_and(|handler| !handler.has_workers());
    let default = if no_workers {
        DISCARD_PREFETCH
    } else {
        u16::try_from((2 * concurrency.value * batch).min(MOST_PREFETCH)).expect("2000 fits 16 bits")
    };
    let got = section.get("prefetch", Prefetch::Fixed(default), |item| number_or_auto(&item));
    let fixed = match got.value {
        Prefetch::Fixed(prefetch) => prefetch,
        Prefetch::Auto if !no_workers => return Prefetch::Auto,
        Prefetch::Auto => {
            let place = got.at.unwrap_or(section.place);
            let message = "`prefetch` has nothing to measure here: this handler has no workers to keep busy";
            section.reader().warn(place, message, format!("leave the key out: the default is {DISCARD_PREFETCH}"));
            return Prefetch::Fixed(DISCARD_PREFETCH);
        }
    };
    let (most, handlers) = (usize::from(fixed) * queues, concurrency.value);
    if let Some(place) = got.at.filter(|_| got.both(concurrency) && queues > 0) {
        let help = "raise it to `concurrency` x `batch` at least, or leave the key out";
        if most < handlers {
            let message = format!("this prefetch keeps at most {most} of {handlers} handlers busy");
            section.reader().warn(place, message, help);
        } else if most < handlers * batch {
            let message = format!("this prefetch leaves the batches of {handlers} x {batch} with at most {most} tasks");
            section.reader().warn(place, message, help);
        }
    }
    got.value
}

fn number_or_auto(item: &Item<'_>) -> Option<Prefetch> {
    item.want(Want::Words(vec!["auto".to_owned()]));
    let allowed = "allowed: \"auto\", or a number from 1 to 65535 without quotes";
    if item.value().is_str() {
        let text = item.text()?;
        if text.value == "auto" {
            return Some(Prefetch::Auto);
        }
        let meant = shape::nearest(&text.value, &["auto"]);
        let meant = meant.map_or_else(String::new, |meant| format!("did you mean \"{meant}\"? "));
        return item.error(format!("`prefetch` cannot be \"{}\"", text.shown()), format!("{meant}{allowed}"));
    }
    if item.value().as_integer().is_some_and(|integer| integer.as_str() == "0") {
        let help = "allowed: 1 to 65535; to RabbitMQ 0 is no limit, and a whole queue would come into memory at once";
        return item.error("`prefetch` cannot be 0", help);
    }
    item.integer(1..=65_535).map(Prefetch::Fixed)
}

fn reply(section: &Section<'_>, handler: Option<&Handler>) -> bool {
    let got = section.get("reply", false, |item| item.boolean());
    if let (Some(place), true, Some(handler)) = (got.at, got.value, handler)
        && !handler.has_workers()
    {
        let help = "remove it, or choose a `command`, `worker` or `http` handler: what that answers is the reply";
        section.reader().error(place, "this handler has nothing to reply with", help);
    }
    got.value
}

/// Also gives how long a dead letter is kept, with its place.
fn dead_letter(job: &Section<'_>, name: &str, queues: &[super::Queue]) -> (DeadLetter, Got<Option<Duration>>) {
    let section = job.section("dead_letter", &shape::DEAD_LETTER);
    let default: Arc<str> = Arc::from(format!("{name}.dead"));
    let queue = section.get("queue", default, |item| queue::queue_name(&item));
    let place = queue.at.unwrap_or(job.place);
    if queue.at.is_none()
        && let Some((message, _)) = queue::name_fault(&queue.value)
    {
        let message =
            format!("the dead-letter queue of this job would be called `{}`: {message}", mask::quote(&queue.value));
        job.reader().error(place, message, "set dead_letter.queue, or rename the job");
    }
    if queue.good && queues.iter().any(|work| work.name == queue.value) {
        let message = "the dead-letter queue of this job is one of its work queues";
        job.reader().error(place, message, "set dead_letter.queue to another: what failed for good would run again");
    }
    let kept = queue::time_to_live(&section, "message_ttl");
    let like_work = queues.first().map_or(QueueKind::Classic, |work| work.kind);
    let kind = section.get("type", like_work, |item| item.choice(&queue::QUEUE_KINDS)).value;
    (DeadLetter { queue: queue.value, kind, message_ttl: kept.value }, kept)
}

fn ack(section: &Section<'_>) -> Ack {
    Ack {
        batch: section.get("batch", 64, |item| item.integer(1..=65_535)).value,
        interval: section.get("interval", millis(20), |item| item.duration(ACK_INTERVAL)).value,
    }
}

fn idempotency(section: &Section<'_>, store: &Store, kept: &Got<Option<Duration>>) -> Idempotency {
    let answers = [("run", OnMissing::Run), ("dead", OnMissing::Dead), ("body", OnMissing::Body)];
    let key = section.get("key", KeySource::MessageId, |item| key_source(&item));
    let on_missing = section.get("on_missing", OnMissing::Run, |item| item.choice(&answers));
    let retention = section.get("retention", store.retention, |item| item.duration(ABOVE_ZERO));
    let (never_missing, never_kept) = match key.value {
        KeySource::MessageId | KeySource::Header(_) | KeySource::JsonPointer(_) => (false, false),
        KeySource::Body => (true, false),
        KeySource::None => (true, true),
    };
    let warn = |place, message: &str| {
        section.reader().warn(place, message, "remove it, or choose another `key`");
    };
    if let Some(place) = on_missing.at.filter(|_| never_missing) {
        warn(place, "`on_missing` has no effect with this `key`: it is never missing");
    }
    if let Some(place) = retention.at.filter(|_| never_kept) {
        warn(place, "`retention` has no effect with this `key`: none is kept");
    }
    // A dead letter without a TTL outlives every retention: that is the default, and said where it is explained.
    if let Some(ttl) = kept.value.filter(|ttl| key.good && retention.good && !never_kept && retention.value < *ttl)
        && let Some(place) = retention.at.or(kept.at)
    {
        let message = format!(
            "a key of this job is forgotten after {}, its dead letters are kept for {}",
            show_duration(retention.value),
            show_duration(ttl)
        );
        let help = "a dead letter that is replayed after that may run beside another copy of it that is done; let \
                    idempotency.retention be at least dead_letter.message_ttl";
        section.reader().warn(place, message, help);
    }
    Idempotency { key: key.value, on_missing: on_missing.value, retention: retention.value }
}

fn key_source(item: &Item<'_>) -> Option<KeySource> {
    item.want(Want::Form("^(message_id|body|none|header:.{1,255}|json:(/.*)?)$"));
    let plain = [("message_id", KeySource::MessageId), ("body", KeySource::Body), ("none", KeySource::None)];
    let text = item.text()?;
    if let Some((_, source)) = plain.iter().find(|(word, _)| *word == text.value) {
        return Some(source.clone());
    }
    if let Some(name) = text.value.strip_prefix("header:") {
        if name.is_empty() || name.len() > 255 {
            return item.error("the header's name is missing or too long", "write \"header:NAME\", at most 255 bytes");
        }
        return Some(KeySource::Header(name.to_owned()));
    }
    if let Some(pointer) = text.value.strip_prefix("json:") {
        return json_pointer(item, pointer);
    }
    let words = ["message_id", "body", "none"];
    let meant = super::shape::nearest(&text.value, &words);
    let meant = meant.map_or_else(String::new, |meant| format!("did you mean \"{meant}\"? "));
    let allowed = "allowed: \"message_id\", \"header:NAME\", \"json:/POINTER\", \"body\", \"none\"";
    item.error(format!("`key` cannot be \"{}\"", text.shown()), format!("{meant}{allowed}"))
}

/// RFC 6901: empty for the whole body, else steps that each begin with a slash.
fn json_pointer(item: &Item<'_>, pointer: &str) -> Option<KeySource> {
    if !pointer.is_empty() && !pointer.starts_with('/') {
        return item.error("a JSON pointer begins with `/`", "write it as in \"json:/order/id\"");
    }
    if pointer.split('~').skip(1).any(|rest| !rest.starts_with(['0', '1'])) {
        return item
            .error("a `~` of this JSON pointer means nothing", "in a pointer ~ is written ~0, and / in a name ~1");
    }
    Some(KeySource::JsonPointer(pointer.to_owned()))
}

fn retry(section: &Section<'_>) -> Retry {
    let most = i64::from(u32::MAX);
    let initial = section.get("initial", secs(5), |item| item.duration(RETRY_DELAY));
    let max = section.get("max", secs(3_600), |item| item.duration(RETRY_DELAY));
    at_least(section, ("max", &max), ("initial", &initial));
    Retry {
        max_attempts: section.get("max_attempts", 5, |item| item.integer(1..=most)).value,
        initial: initial.value,
        multiplier: section.get("multiplier", 3.0, |item| item.number(1.0..=1000.0)).value,
        max: max.value,
        jitter: section.get("jitter", 0.2, |item| item.number(0.0..=1.0)).value,
        max_crashes: section.get("max_crashes", 3, |item| item.integer(1..=most)).value,
    }
}

/// The switch is off unless its table stands, even an empty one.
fn in_doubt(section: &Section<'_>, idempotency: &Idempotency, handler: Option<&Handler>) -> InDoubt {
    let answers = [("run", InDoubt::Run), ("dead", InDoubt::Dead)];
    let got = section.get("in_doubt", InDoubt::Run, |item| item.choice(&answers));
    if let Some(place) = got.at.filter(|_| got.value == InDoubt::Dead && idempotency.key == KeySource::None) {
        let message = "`in_doubt` protects nothing here: without a key no attempt is known again";
        section.reader().warn(place, message, "set idempotency.key");
    }
    if let Some(place) = got.at.filter(|_| got.value == InDoubt::Dead) {
        match handler {
            Some(Handler::Forward(_) | Handler::Discard) => {
                let message = "`in_doubt` has no effect with this handler: nothing of it runs here";
                section.reader().warn(
                    place,
                    message,
                    "remove it; a message may be forwarded twice when the daemon is killed",
                );
            }
            Some(Handler::Worker(worker)) if worker.batch > 1 => {
                let message = "where a worker process dies, the rest of its batch is in doubt too, and goes to the dead-letter queue";
                section.reader().warn(place, message, "set batch = 1");
            }
            Some(Handler::Command(_) | Handler::Worker(_) | Handler::Http(_)) | None => {}
        }
    }
    got.value
}

fn kill_switch(job: &Section<'_>, handler: Option<&Handler>) -> Option<KillSwitch> {
    let item = job.item("kill_switch")?;
    let section = item.section(&shape::KILL_SWITCH)?;
    if handler == Some(&Handler::Discard) {
        let help = "remove it: the attempts of a `discard` handler do not fail";
        job.reader().warn(item.key_place, "`kill_switch` has no effect with this handler", help);
    }
    Some(KillSwitch {
        ratio: section.get("ratio", 0.5, |item| item.number(0.01..=1.0)).value,
        min_samples: section.get("min_samples", 20, |item| item.integer(1..=i64::from(u32::MAX))).value,
        window: section.get("window", secs(60), |item| item.duration(KILL_SWITCH_TIME)).value,
        restart_after: section.get("restart_after", secs(30), |item| item.duration(KILL_SWITCH_TIME)).value,
    })
}
