//! Names and arguments of everything that warrend declares on the broker, as data.
//!
//! The session carries the [`Step`]s out, the publisher asks [`route`] where a copy goes. Nothing here talks to a broker.
//!
//! # The delay ladder
//!
//! A copy that has to wait takes the binary form of its delay as its way. Level L has a topic exchange and a queue, both
//! named `warrend.delay.LL`, and a message in that queue expires after 2^L seconds:
//!
//! ```text
//!   exchange 19 ── bit 19 is 1 ──► queue 19 (2^19 s) ──┐ expired
//!       └───────── bit 19 is 0 ────────────────────────┴──► exchange 18 ── … ──► exchange 00 ── … ──► deliver
//! ```
//!
//! The routing key is twenty words of one bit each, most significant first, and then the name of the work queue. Expiry
//! keeps the routing key, so one key carries a message through all levels. Each queue holds messages of one TTL only,
//! so none expires late behind a slower one, and there are twenty queues whatever the delays and their jitter are.
//!
//! A classic queue forgets an expired message before the next queue has it on the disk, and a broker that crashes loses
//! those on their way, up to all 2,000 of a trial; RabbitMQ's guide on dead lettering calls it at most once. So the
//! ladder's queues are quorum queues that dead-letter at least once: each keeps a message until the next has confirmed it.
//! The classic ladder (`warrend.delay.classic.LL`) has names of its own: what waits on one goes its way, whichever is in use.

use std::time::Duration;

use crate::config::{DeadLetter, Declare, Handler, Job, Queue, QueueKind};
use crate::task::{Destination, HeaderValue};

/// Number of levels: delays of up to 2^20 - 1 seconds, a little over 12 days.
const LEVELS: usize = 20;

/// The longest delay that the ladder holds; [`route`] cuts longer ones to it.
pub const MAX_DELAY: Duration = Duration::from_secs((1 << LEVELS) - 1);

/// The longest name of a work queue, in bytes, to which a copy can be delayed: a routing key has at most 255 bytes, and
/// the ladder's twenty bits with their dots take 40 of them.
#[cfg(test)]
const MAX_QUEUE_NAME: usize = 255 - 2 * LEVELS;

const DELIVERY_LIMIT: &str = "x-delivery-limit";

/// A ladder: the names of its queues and exchanges, and what they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ladder(QueueKind);

impl Ladder {
    /// `broker.delay_queues`
    pub fn new(kind: QueueKind) -> Self {
        Self(kind)
    }

    /// This ladder and the other one, in which messages may wait from before a change of `broker.delay_queues`.
    pub fn both(self) -> [Self; 2] {
        let other = match self.0 {
            QueueKind::Classic => QueueKind::Quorum,
            QueueKind::Quorum => QueueKind::Classic,
        };
        [self, Self(other)]
    }

    /// Its queues by level, for counting what waits; the exchanges have the same names.
    pub fn queues(self) -> impl DoubleEndedIterator<Item = String> {
        (0..LEVELS).map(move |level| self.level(level))
    }

    fn level(self, level: usize) -> String {
        self.named(&format!("{level:02}"))
    }

    /// The exchange at its end, to which every work queue is bound.
    pub fn deliver(self) -> String {
        self.named("deliver")
    }

    /// Where its end leaves a copy whose work queue is gone: a queue, and the exchange before it. RabbitMQ would drop such a
    /// copy without a word.
    pub fn stranded(self) -> String {
        self.named("stranded")
    }

    fn named(self, what: &str) -> String {
        match self.0 {
            QueueKind::Classic => format!("warrend.delay.classic.{what}"),
            QueueKind::Quorum => format!("warrend.delay.{what}"),
        }
    }

    /// From its end upwards, so that nothing is bound to what does not exist yet. The work queues come first among what is
    /// bound: a level that cannot be had costs the delays that pass it, and no others.
    fn steps<'q>(self, queues: impl Iterator<Item = &'q str>, steps: &mut Vec<Step>) {
        let (stranded, deliver) = (self.stranded(), self.deliver());
        let exchange = |name: &str, kind: &str, alternate| Step::Exchange {
            name: name.to_owned(),
            kind: kind.to_owned(),
            alternate,
            presence: Presence::Ours,
        };
        steps.push(exchange(&stranded, "fanout", None));
        steps.push(Step::Queue {
            name: stranded.clone(),
            arguments: kind_argument(self.0).into_iter().chain(no_delivery_limit(self.0)).collect(),
            presence: Presence::Ours,
        });
        steps.push(Step::BindQueue { queue: stranded.clone(), exchange: stranded.clone(), routing_key: String::new() });
        steps.push(exchange(&deliver, "topic", Some(stranded)));
        steps.extend(queues.map(|queue| Step::BindQueue {
            queue: queue.to_owned(),
            exchange: deliver.clone(),
            routing_key: delivery_pattern(queue),
        }));
        let mut below = deliver;
        for (level, name) in self.queues().enumerate() {
            // The words before this level's bit. Their number must be exact: `#` would find the bit anywhere.
            let before = "*.".repeat(LEVELS - 1 - level);
            steps.push(exchange(&name, "topic", None));
            steps.push(Step::Queue {
                name: name.clone(),
                arguments: self.level_arguments(level, &below),
                presence: Presence::Ours,
            });
            steps.push(Step::BindQueue {
                queue: name.clone(),
                exchange: name.clone(),
                routing_key: format!("{before}1.#"),
            });
            steps.push(Step::BindExchange {
                destination: below,
                source: name.clone(),
                routing_key: format!("{before}0.#"),
            });
            below = name;
        }
    }

    fn level_arguments(self, level: usize, below: &str) -> Vec<(String, HeaderValue)> {
        let mut arguments =
            vec![millis("x-message-ttl", Duration::from_secs(1 << level)), text("x-dead-letter-exchange", below)];
        arguments.extend(kind_argument(self.0));
        match self.0 {
            QueueKind::Classic => {}
            QueueKind::Quorum => {
                arguments.push(text("x-dead-letter-strategy", "at-least-once"));
                // RabbitMQ falls back to at-most-once without it. The queue has no limit that could overflow.
                arguments.push(text("x-overflow", "reject-publish"));
            }
        }
        arguments
    }
}

/// One thing to have on the broker. The session performs them in order.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// A durable exchange.
    Exchange {
        /// Its name.
        name: String,
        /// Its type, such as `topic`.
        kind: String,
        /// The exchange that gets what finds no binding here.
        alternate: Option<String>,
        /// What happens where it is missing.
        presence: Presence,
    },
    /// A durable queue.
    Queue {
        /// Its name.
        name: String,
        /// Its x-arguments.
        arguments: Vec<(String, HeaderValue)>,
        /// What happens where it is missing.
        presence: Presence,
    },
    /// A binding from an exchange to a queue. Making one that stands changes nothing.
    BindQueue {
        /// The queue, which gets the messages.
        queue: String,
        /// The exchange, which routes them.
        exchange: String,
        /// Routing key or pattern.
        routing_key: String,
    },
    /// A binding from one exchange to another.
    BindExchange {
        /// The exchange that gets the messages.
        destination: String,
        /// The exchange that routes them.
        source: String,
        /// Routing key or pattern.
        routing_key: String,
    },
}

/// How a queue or an exchange comes to be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// It must be there already, whatever its arguments; missing is an error.
    Required,
    /// Looked up first and left as it is, whatever its arguments; created only where missing.
    Wanted,
    /// Ours: no one else uses the name, so it is declared without looking. One that stands with other arguments is an
    /// error, because the ladder would delay wrongly with it.
    Ours,
}

/// All that a job needs on the broker: its queues, exchanges and bindings, its dead-letter queue, and the ladder unless
/// its handler cannot fail.
pub fn job_steps(job: &Job, ladder: Ladder) -> Vec<Step> {
    let mut steps = Vec::new();
    for queue in &job.queues {
        work_queue(queue, &mut steps);
    }
    steps.push(Step::Queue {
        name: job.dead_letter.queue.to_string(),
        arguments: dead_letter_arguments(&job.dead_letter),
        presence: Presence::Wanted,
    });
    match job.handler {
        Handler::Discard => {}
        Handler::Command(_) | Handler::Worker(_) | Handler::Http(_) | Handler::Forward(_) => {
            ladder.steps(job.queues.iter().map(|queue| &*queue.name), &mut steps);
        }
    }
    steps
}

/// That an exchange stands which others made, whatever its type.
pub fn required_exchange(name: &str) -> Step {
    let (name, kind) = (name.to_owned(), "topic".to_owned());
    Step::Exchange { name, kind, alternate: None, presence: Presence::Required }
}

/// What a message needs to wait on the ladder and then reach one queue, which must exist.
pub fn delay_steps(queue: &str, ladder: Ladder) -> Vec<Step> {
    let mut steps = Vec::new();
    ladder.steps(std::iter::once(queue), &mut steps);
    steps
}

/// How a message goes straight to a queue: exchange and routing key.
pub fn to_queue(queue: &str) -> (String, String) {
    (String::new(), queue.to_owned())
}

/// Where a copy is published: exchange and routing key.
///
/// A delay counts in whole seconds, from 1 to [`MAX_DELAY`]; parts of a second are rounded up, so that no attempt comes
/// early. The copy enters at the exchange of its highest set bit: the levels above would only pass it down.
pub fn route(to: &Destination, ladder: Ladder) -> (String, String) {
    match to {
        Destination::Queue(name) => to_queue(name),
        Destination::Delay { queue, delay } => {
            let whole = delay.as_secs().saturating_add(u64::from(delay.subsec_nanos() > 0));
            let seconds = whole.clamp(1, MAX_DELAY.as_secs());
            let mut routing_key = String::with_capacity(2 * LEVELS + queue.len());
            for level in (0..LEVELS).rev() {
                routing_key.push_str(if seconds >> level & 1 == 1 { "1." } else { "0." });
            }
            routing_key.push_str(&final_words(queue));
            (ladder.level(seconds.ilog2() as usize), routing_key)
        }
    }
}

/// One work queue with its exchanges and bindings.
fn work_queue(queue: &Queue, steps: &mut Vec<Step>) {
    steps.push(Step::Queue {
        name: queue.name.to_string(),
        arguments: queue_arguments(queue),
        presence: match queue.declare {
            Declare::Create => Presence::Wanted,
            Declare::Passive => Presence::Required,
        },
    });
    for binding in &queue.bindings {
        // Every queue is bound to the default exchange by its name, and the broker refuses to bind it otherwise.
        if binding.exchange.is_empty() {
            continue;
        }
        // The broker made these itself and lets nobody declare them.
        if !binding.exchange.starts_with("amq.") {
            steps.push(Step::Exchange {
                name: binding.exchange.clone(),
                kind: binding.kind.clone(),
                alternate: None,
                presence: Presence::Wanted,
            });
        }
        steps.push(Step::BindQueue {
            queue: queue.name.to_string(),
            exchange: binding.exchange.clone(),
            routing_key: binding.routing_key.clone(),
        });
    }
}

/// The x-arguments of a work queue.
fn queue_arguments(queue: &Queue) -> Vec<(String, HeaderValue)> {
    let mut arguments = Vec::from_iter(kind_argument(queue.kind));
    if let Some(highest) = queue.max_priority {
        arguments.push(("x-max-priority".to_owned(), HeaderValue::I64(highest.into())));
    }
    if let Some(ttl) = queue.message_ttl {
        arguments.push(millis("x-message-ttl", ttl));
    }
    if let Some(length) = queue.max_length {
        arguments.push(("x-max-length".to_owned(), whole(length)));
    }
    if let Some(expires) = queue.expires {
        arguments.push(millis("x-expires", expires));
    }
    if !queue.arguments.contains_key(DELIVERY_LIMIT) {
        arguments.extend(no_delivery_limit(queue.kind));
    }
    arguments.extend(queue.arguments.iter().map(|(name, value)| (name.clone(), value.clone())));
    arguments
}

fn dead_letter_arguments(dead_letter: &DeadLetter) -> Vec<(String, HeaderValue)> {
    let mut arguments = Vec::from_iter(kind_argument(dead_letter.kind));
    arguments.extend(no_delivery_limit(dead_letter.kind));
    arguments.extend(dead_letter.message_ttl.map(|ttl| millis("x-message-ttl", ttl)));
    arguments
}

/// From RabbitMQ 4.0 on, a quorum queue drops a message after 20 deliveries that were not acknowledged, and each lost
/// connection counts as one. The attempts of a message are counted by us, so the queues that we make have a limit that is
/// never reached. (-1, which means none, is refused by RabbitMQ 3.)
fn no_delivery_limit(kind: QueueKind) -> Option<(String, HeaderValue)> {
    match kind {
        QueueKind::Classic => None,
        QueueKind::Quorum => Some((DELIVERY_LIMIT.to_owned(), HeaderValue::I64(i32::MAX.into()))),
    }
}

/// The pattern by which the end of the ladder finds a work queue.
///
/// Twenty `*` for the bits and then the name, not `#` and then the name: with `#.thumbs` a copy for the queue
/// `media.thumbs` would also reach the queue `thumbs`.
fn delivery_pattern(queue: &str) -> String {
    let mut pattern = "*.".repeat(LEVELS);
    pattern.push_str(&final_words(queue));
    pattern
}

/// A queue's name as the last words of a routing key. `*` and `#` would be wildcards in the binding, so they are
/// percent-encoded, in the key as in the pattern; nearly all names stay as they are.
fn final_words(queue: &str) -> String {
    queue.replace('%', "%25").replace('*', "%2A").replace('#', "%23")
}

/// What makes a queue what it is. A classic queue goes without `x-queue-type`, as classic is what the broker makes of a
/// queue without it, and queues that older clients declared have none.
fn kind_argument(kind: QueueKind) -> Option<(String, HeaderValue)> {
    match kind {
        QueueKind::Classic => None,
        QueueKind::Quorum => Some(text("x-queue-type", "quorum")),
    }
}

fn text(name: &str, value: &str) -> (String, HeaderValue) {
    (name.to_owned(), HeaderValue::Text(value.to_owned()))
}

/// An argument that is a time: the broker wants whole milliseconds.
fn millis(name: &str, time: Duration) -> (String, HeaderValue) {
    (name.to_owned(), whole(u64::try_from(time.as_millis()).unwrap_or(u64::MAX)))
}

/// A number as an argument. The broker refuses what it finds too large.
fn whole(number: u64) -> HeaderValue {
    HeaderValue::I64(i64::try_from(number).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use crate::config::{Ack, Binding, Command, Idempotency, KeySource, OnMissing, Order, Retry};

    /// Whether a topic pattern matches a routing key, after the AMQP 0-9-1 specification, section 3.1.3.3.
    fn matches(pattern: &[&str], key: &[&str]) -> bool {
        match (pattern.split_first(), key.split_first()) {
            (None, None) => true,
            (Some((&"#", rest)), _) => matches(rest, key) || (!key.is_empty() && matches(pattern, &key[1..])),
            (Some((&"*", rest)), Some((_, key))) => matches(rest, key),
            (Some((word, rest)), Some((first, key))) => word == first && matches(rest, key),
            (Some(_), None) | (None, Some(_)) => false,
        }
    }

    const LADDERS: [Ladder; 2] = [Ladder(QueueKind::Classic), Ladder(QueueKind::Quorum)];

    /// Just enough of a broker to follow a copy: topic exchanges, the default exchange, and queues that expire.
    #[derive(Default)]
    struct Broker {
        /// Bindings by exchange: pattern, destination, and whether that is a queue.
        bindings: BTreeMap<String, Vec<(String, String, bool)>>,
        /// Queues with their TTL in ms and the exchange of their dead letters, where they have one.
        queues: BTreeMap<String, (i64, Option<String>)>,
    }

    impl Broker {
        fn new(jobs: &[Job]) -> Self {
            let mut broker = Self::default();
            // Both on one broker: a copy stays on its own.
            for step in jobs.iter().flat_map(|job| LADDERS.map(|ladder| job_steps(job, ladder))).flatten() {
                broker.perform(step);
            }
            broker
        }

        fn perform(&mut self, step: Step) {
            match step {
                Step::Exchange { name, .. } => {
                    self.bindings.entry(name).or_default();
                }
                Step::Queue { name, arguments, .. } => {
                    let get = |wanted| arguments.iter().find(|(name, _)| name == wanted);
                    let ttl = get("x-message-ttl").and_then(|(_, ttl)| ttl.as_integer());
                    let next = get("x-dead-letter-exchange").and_then(|(_, to)| to.as_text());
                    self.queues.insert(name, (ttl.unwrap_or(0), next.map(str::to_owned)));
                }
                Step::BindQueue { queue, exchange, routing_key } => {
                    assert!(self.queues.contains_key(&queue), "{queue} is bound before it is there");
                    let bindings = self.bindings.get_mut(&exchange).expect("the exchange is there");
                    bindings.push((routing_key, queue, true));
                }
                Step::BindExchange { destination, source, routing_key } => {
                    assert!(self.bindings.contains_key(&destination), "{destination} is missing");
                    let bindings = self.bindings.get_mut(&source).expect("the exchange is there");
                    bindings.push((routing_key, destination, false));
                }
            }
        }

        /// The queues that a publish reaches; one that is reached twice gets the message once.
        fn routed(&self, exchange: &str, key: &str, reached: &mut BTreeSet<String>) {
            if exchange.is_empty() {
                reached.extend(self.queues.contains_key(key).then(|| key.to_owned()));
                return;
            }
            let words: Vec<_> = key.split('.').collect();
            for (pattern, destination, is_queue) in &self.bindings[exchange] {
                if !matches(&pattern.split('.').collect::<Vec<_>>(), &words) {
                } else if *is_queue {
                    reached.insert(destination.clone());
                } else {
                    self.routed(destination, key, reached);
                }
            }
        }

        /// Every queue in which the message comes to rest, with the time that it took in ms.
        fn follow(&self, exchange: &str, key: &str, waited: i64) -> Vec<(String, i64)> {
            let mut reached = BTreeSet::new();
            self.routed(exchange, key, &mut reached);
            let mut rest = Vec::new();
            for queue in reached {
                match &self.queues[&queue] {
                    (ttl, Some(next)) => rest.extend(self.follow(next, key, waited + ttl)),
                    (_, None) => rest.push((queue, waited)),
                }
            }
            rest
        }
    }

    fn queue(name: &str) -> Queue {
        Queue {
            name: name.into(),
            weight: 1,
            declare: Declare::Create,
            kind: QueueKind::Classic,
            max_priority: None,
            message_ttl: None,
            max_length: None,
            expires: None,
            arguments: BTreeMap::new(),
            bindings: Vec::new(),
        }
    }

    fn job(queues: Vec<Queue>, handler: Handler) -> Job {
        let second = Duration::from_secs(1);
        Job {
            name: "thumbnails".into(),
            enabled: true,
            concurrency: 1,
            prefetch: crate::config::Prefetch::Fixed(1),
            reply: false,
            order: Order::Strict,
            max_body: 1,
            in_doubt: crate::config::InDoubt::Run,
            queues,
            handler,
            ack: Ack { batch: 1, interval: second },
            idempotency: Idempotency { key: KeySource::MessageId, on_missing: OnMissing::Run, retention: second },
            retry: Retry {
                max_attempts: 1,
                initial: second,
                multiplier: 1.0,
                max: second,
                jitter: 0.0,
                max_crashes: 1,
            },
            kill_switch: None,
            dead_letter: DeadLetter { queue: "thumbnails.dead".into(), kind: QueueKind::Classic, message_ttl: None },
        }
    }

    fn command() -> Handler {
        Handler::Command(Command {
            argv: vec!["true".to_owned()],
            timeout: Duration::from_secs(1),
            kill_grace: Duration::from_secs(1),
            env: BTreeMap::new(),
            cwd: None,
        })
    }

    fn check_delay(broker: &Broker, name: &str, delay: Duration, seconds: u64) {
        for ladder in LADDERS {
            let (exchange, key) = route(&Destination::Delay { queue: name.into(), delay }, ladder);
            assert!(key.len() <= 255, "{key} is too long for a routing key");
            let expected = vec![(name.to_owned(), i64::try_from(seconds).unwrap() * 1000)];
            assert_eq!(broker.follow(&exchange, &key, 0), expected, "{name} after {delay:?} by {exchange}");
        }
    }

    #[test]
    fn every_delay_arrives_once_and_on_the_second() {
        let broker = Broker::new(&[job(vec![queue("thumbs")], command())]);
        for seconds in (1..=2000).chain([4095, 4096, 86_400, 604_800, 1_036_800, 1_048_575]) {
            check_delay(&broker, "thumbs", Duration::from_secs(seconds), seconds);
        }
    }

    #[test]
    fn a_delay_is_rounded_up_and_kept_within_the_ladder() {
        let broker = Broker::new(&[job(vec![queue("thumbs")], command())]);
        for (delay, seconds) in [
            (Duration::ZERO, 1),
            (Duration::from_millis(1), 1),
            (Duration::from_millis(1001), 2),
            (MAX_DELAY, 1_048_575),
            (MAX_DELAY + Duration::from_nanos(1), 1_048_575),
            (Duration::MAX, 1_048_575),
        ] {
            check_delay(&broker, "thumbs", delay, seconds);
        }
    }

    #[test]
    fn a_copy_reaches_no_queue_but_its_own() {
        let names = [
            "thumbs",
            "media.thumbs",
            "1.media.thumbs",
            "0.0.thumbs",
            "*",
            "#",
            "*.thumbs",
            "media.#",
            "%2A",
            "%2A.thumbs",
            "",
            "...",
            ".thumbs",
            "thumbs.",
            "1",
            "0.1",
            &"q".repeat(MAX_QUEUE_NAME),
        ];
        let jobs =
            [job(names.into_iter().map(queue).collect(), command()), job(vec![queue("of another job")], command())];
        let broker = Broker::new(&jobs);
        for name in names {
            for seconds in [1, 2, 3, 5, 7, 1000, 1_048_575] {
                check_delay(&broker, name, Duration::from_secs(seconds), seconds);
            }
        }
    }

    #[test]
    fn a_dead_copy_goes_to_its_queue_through_the_default_exchange() {
        let broker = Broker::new(&[job(vec![queue("thumbs")], Handler::Discard)]);
        let (exchange, key) = route(&Destination::Queue("thumbnails.dead".into()), LADDERS[0]);
        assert_eq!(broker.follow(&exchange, &key, 0), [("thumbnails.dead".to_owned(), 0)]);
    }

    #[test]
    fn a_job_that_cannot_fail_makes_no_ladder() {
        assert_eq!(
            job_steps(&job(vec![queue("thumbs")], Handler::Discard), LADDERS[1]),
            [
                Step::Queue { name: "thumbs".to_owned(), arguments: Vec::new(), presence: Presence::Wanted },
                Step::Queue { name: "thumbnails.dead".to_owned(), arguments: Vec::new(), presence: Presence::Wanted },
            ]
        );
    }

    #[test]
    fn a_queue_is_declared_as_configured() {
        let mut configured = queue("thumbs");
        configured.kind = QueueKind::Quorum;
        configured.max_priority = Some(10);
        configured.message_ttl = Some(Duration::from_secs(3600));
        configured.max_length = Some(100_000);
        configured.expires = Some(Duration::from_millis(7));
        configured.arguments = BTreeMap::from([("x-single-active-consumer".to_owned(), HeaderValue::Bool(true))]);
        configured.declare = Declare::Passive;
        let expected: Vec<(String, HeaderValue)> = vec![
            ("x-queue-type".to_owned(), HeaderValue::Text("quorum".to_owned())),
            ("x-max-priority".to_owned(), HeaderValue::I64(10)),
            ("x-message-ttl".to_owned(), HeaderValue::I64(3_600_000)),
            ("x-max-length".to_owned(), HeaderValue::I64(100_000)),
            ("x-expires".to_owned(), HeaderValue::I64(7)),
            ("x-delivery-limit".to_owned(), HeaderValue::I64(2_147_483_647)),
            ("x-single-active-consumer".to_owned(), HeaderValue::Bool(true)),
        ];
        assert_eq!(
            job_steps(&job(vec![configured], Handler::Discard), LADDERS[1])[0],
            Step::Queue { name: "thumbs".to_owned(), arguments: expected, presence: Presence::Required }
        );
    }

    #[test]
    fn exchanges_of_the_broker_itself_are_bound_and_not_declared() {
        let mut bound = queue("thumbs");
        bound.bindings = ["media", "amq.topic", ""]
            .map(|exchange| Binding {
                exchange: exchange.to_owned(),
                kind: "topic".to_owned(),
                routing_key: "image.*".to_owned(),
            })
            .into();
        let binding = |exchange: &str| Step::BindQueue {
            queue: "thumbs".to_owned(),
            exchange: exchange.to_owned(),
            routing_key: "image.*".to_owned(),
        };
        assert_eq!(
            job_steps(&job(vec![bound], Handler::Discard), LADDERS[1])[1..4],
            [
                Step::Exchange {
                    name: "media".to_owned(),
                    kind: "topic".to_owned(),
                    alternate: None,
                    presence: Presence::Wanted,
                },
                binding("media"),
                binding("amq.topic"),
            ]
        );
    }

    #[test]
    fn the_dead_letter_queue_keeps_its_messages_as_long_as_configured() {
        let mut with_ttl = job(vec![queue("thumbs")], Handler::Discard);
        with_ttl.dead_letter.message_ttl = Some(Duration::from_secs(60));
        assert_eq!(
            job_steps(&with_ttl, LADDERS[1])[1],
            Step::Queue {
                name: "thumbnails.dead".to_owned(),
                arguments: vec![("x-message-ttl".to_owned(), HeaderValue::I64(60_000))],
                presence: Presence::Wanted
            }
        );
    }
}
