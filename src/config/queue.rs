//! `[[jobs.NAME.queues]]`: work queues, their arguments and bindings; and what a queue may be called.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::task::HeaderValue;

use super::item::{Item, Limits};
use super::mask;
use super::place::Place;
use super::section::{Got, Section};
use super::shape;
use super::sketch::{Rule, Want};
use super::value::{days, millis};
use super::{Binding, Declare, Queue, QueueKind};

/// Longest name of a queue, in bytes. On the delay ladder the routing key holds 20 binary digits with their dots and the
/// name, and AMQP allows 255 bytes.
const LONGEST_NAME: usize = 200;
/// What can be seen of that and of the rest in [`name_fault`], for the schema.
const NAME_FORM: &str = r"^(?!amq\.|warrend\.delay\.).{1,200}$";
/// Longest exchange name, routing key or name of an argument, in bytes: what AMQP calls a short string.
const LONGEST_SHORT: usize = 255;
/// RabbitMQ refuses a time to live above ten years (`rabbit_misc:check_expiry/1`); at zero it would drop each message that
/// is not consumed at once.
pub const TIME_TO_LIVE: Limits = Limits::new(millis(1), days(3650));
/// What a queue can be.
pub const QUEUE_KINDS: [(&str, QueueKind); 2] = [("classic", QueueKind::Classic), ("quorum", QueueKind::Quorum)];
/// Arguments that have a key of their own.
const OWN_KEYS: [(&str, &str); 5] = [
    ("x-max-priority", "max_priority"),
    ("x-message-ttl", "message_ttl"),
    ("x-max-length", "max_length"),
    ("x-expires", "expires"),
    ("x-queue-type", "type"),
];

/// The queues of a job with the places of their names, and those of its bindings' exchanges.
#[derive(Default)]
pub struct Queues {
    /// Those whose names are good, and the places of the names.
    pub queues: Vec<(Queue, Place)>,
    /// Each binding's place, in the order of the queues and their bindings.
    pub exchanges: Vec<(Binding, Place)>,
}

/// Reads `queue` or `queues` of a job.
pub fn read(job: &Section<'_>, name: &str) -> Queues {
    let mut read = Queues::default();
    let (short, long) = (job.item("queue"), job.item("queues"));
    job.rule(Rule::One(&["queue", "queues"]));
    match (&short, &long) {
        (None, None) => {
            let help = format!("add queue = \"NAME\", or a table [[jobs.{}.queues]] for each", mask::quote(name));
            job.lacks(&["queue", "queues"], job.place, "this job has no queue", help);
        }
        (Some(short), Some(long)) => {
            let help = "`queue` is short for one entry of `queues`: keep one of them";
            let also = (short.key_place, "`queue` stands here");
            job.reader().clash(long.key_place, "this job has both `queue` and `queues`", help, also);
        }
        (Some(_), None) | (None, Some(_)) => {}
    }
    if let Some(item) = short
        && let Some(name) = queue_name(&item)
    {
        read.queues.push((plain(name), item.place));
    }
    if let Some(item) = long {
        let entries = item.array("a table [[jobs.NAME.queues]] for each queue").unwrap_or_default();
        if entries.is_empty() && item.value().is_array() {
            job.reader().error(item.place, "`queues` is empty", "give at least one queue");
        }
        for section in entries.iter().filter_map(|entry| entry.section(&shape::QUEUE)) {
            one(&section, &mut read);
        }
    }
    unique(job, &read.queues);
    read
}

/// A queue with nothing but its name.
fn plain(name: Arc<str>) -> Queue {
    Queue {
        name,
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

fn one(section: &Section<'_>, read: &mut Queues) {
    let declares = [("create", Declare::Create), ("passive", Declare::Passive)];
    let kind = section.get("type", QueueKind::Classic, |item| item.choice(&QUEUE_KINDS));
    let max_priority = section.get("max_priority", None, |item| item.integer(1..=255).map(Some));
    if let Some(place) = max_priority.at.filter(|_| kind.value == QueueKind::Quorum) {
        let help = "remove it, or use type = \"classic\"; a quorum queue sorts into two priorities by itself";
        section.reader().error(place, "a quorum queue has no `max_priority`", help);
    }
    let bindings = section.get("bindings", Vec::new(), bindings).value;
    let item = section.item("name");
    section.rule(Rule::One(&["name"]));
    if item.is_none() {
        section.lacks(&["name"], section.place, "this queue has no name", "add name = \"NAME\"");
    }
    let queue = Queue {
        weight: section.get("weight", 1, |item| item.integer(1..=1000)).value,
        declare: section.get("declare", Declare::Create, |item| item.choice(&declares)).value,
        kind: kind.value,
        max_priority: max_priority.value,
        message_ttl: time_to_live(section, "message_ttl").value,
        max_length: section.get("max_length", None, |item| item.integer(1..=i64::MAX).map(Some)).value,
        expires: time_to_live(section, "expires").value,
        arguments: section.get("arguments", BTreeMap::new(), arguments).value,
        bindings: bindings.iter().map(|(binding, _)| binding.clone()).collect(),
        ..plain(Arc::from(""))
    };
    read.exchanges.extend(bindings);
    if let Some(item) = item
        && let Some(name) = queue_name(&item)
    {
        read.queues.push((Queue { name, ..queue }, item.place));
    }
}

/// A time that RabbitMQ counts in milliseconds; absent where the key is.
pub fn time_to_live<'a>(section: &Section<'a>, key: &'a str) -> Got<Option<Duration>> {
    section.get(key, None, |item| item.duration(TIME_TO_LIVE).map(Some))
}

fn unique(job: &Section<'_>, queues: &[(Queue, Place)]) {
    for (index, (queue, place)) in queues.iter().enumerate() {
        if let Some((_, first)) = queues[..index].iter().find(|(other, _)| other.name == queue.name) {
            let also = (*first, "first named here");
            job.reader().clash(*place, "this job names a queue twice", "keep one of them", also);
        }
    }
}

/// The name of a queue.
pub fn queue_name(item: &Item<'_>) -> Option<Arc<str>> {
    item.want(Want::Form(NAME_FORM));
    let text = item.text()?;
    match name_fault(&text.value) {
        None => Some(Arc::from(text.value)),
        Some((message, help)) => item.error(message, help),
    }
}

/// Why a text cannot be the name of a queue, and what to do.
pub fn name_fault(name: &str) -> Option<(&'static str, &'static str)> {
    if name.is_empty() {
        Some(("a queue needs a name", "allowed: 1 to 200 bytes"))
    } else if name.len() > LONGEST_NAME {
        Some((
            "the name of this queue is too long",
            "allowed: 1 to 200 bytes, so that it fits the routing keys of the delay ladder",
        ))
    } else if name.starts_with("amq.") {
        Some(("a queue's name cannot begin with `amq.`", "RabbitMQ keeps these names for itself: choose another"))
    } else if name.starts_with("warrend.delay.") {
        Some((
            "a queue's name cannot begin with `warrend.delay.`",
            "these are the queues of the delay ladder: choose another",
        ))
    } else if name.split('.').any(|word| word == "*" || word == "#") {
        Some((
            "a word of this queue's name is `*` or `#`",
            "in the bindings of the delay ladder these words stand for any: choose another name",
        ))
    } else {
        None
    }
}

fn arguments(item: Item<'_>) -> Option<BTreeMap<String, HeaderValue>> {
    let mut arguments = BTreeMap::new();
    item.names("^x-");
    for (name, value) in item.entries()? {
        if let Some((_, key)) = OWN_KEYS.iter().find(|(argument, _)| *argument == name) {
            let help = format!("write the key `{key}` of this queue instead");
            value.reader().error(value.key_place, format!("`{name}` has a key of its own"), help);
        } else if !name.starts_with("x-") || name.len() > LONGEST_SHORT {
            let help = "the name of an argument begins with `x-` and has at most 255 bytes";
            value.reader().error(value.key_place, "RabbitMQ has no such queue argument", help);
        } else if let Some(value) = header_value(&value) {
            arguments.insert(name.to_owned(), value);
        }
    }
    Some(arguments)
}

/// A value as RabbitMQ takes it: whole numbers as 64 bits, fractions as doubles. TOML nests at most 80 deep.
fn header_value(item: &Item<'_>) -> Option<HeaderValue> {
    item.want(Want::Anything)?;
    let value = item.value();
    if let Some(boolean) = value.as_bool() {
        Some(HeaderValue::Bool(boolean))
    } else if value.is_integer() {
        item.integer(i64::MIN..=i64::MAX).map(HeaderValue::I64)
    } else if value.is_float() {
        item.number(f64::MIN..=f64::MAX).map(HeaderValue::F64)
    } else if value.is_str() {
        item.text().map(|text| HeaderValue::Text(text.value))
    } else if value.is_array() {
        let items = item.array("[...]")?;
        Some(HeaderValue::Array(items.iter().filter_map(header_value).collect()))
    } else if value.is_table() {
        let mut table = BTreeMap::new();
        for (name, value) in item.entries()? {
            if name.len() > LONGEST_SHORT {
                value.reader().error(value.key_place, "this name is too long", "allowed: at most 255 bytes");
            } else if let Some(value) = header_value(&value) {
                table.insert(name.to_owned(), value);
            }
        }
        Some(HeaderValue::Table(table))
    } else {
        item.wrong_type("what RabbitMQ takes", "allowed: booleans, numbers, strings, arrays, tables")
    }
}

fn bindings(item: Item<'_>) -> Option<Vec<(Binding, Place)>> {
    let example = "[ { exchange = \"media\", type = \"topic\", routing_key = \"image.*\" } ]";
    let sections = item.array(example)?.into_iter().filter_map(|entry| entry.section(&shape::BINDING));
    Some(sections.filter_map(|section| binding(&section)).collect())
}

fn binding(section: &Section<'_>) -> Option<(Binding, Place)> {
    for (key, help) in [
        ("exchange", "add exchange = \"NAME\""),
        ("type", "add type = \"topic\", or what the exchange is: it is created where missing"),
    ] {
        section.rule(Rule::One(if key == "type" { &["type"] } else { &["exchange"] }));
        if section.item(key).is_none() {
            section.reader().missing(section.place, format!("this binding has no `{key}`"), help);
        }
    }
    let routing_key = section.get("routing_key", String::new(), |item| short_text(&item)).value;
    let exchange = section.item("exchange")?;
    let kind = section.item("type").and_then(|item| exchange_kind(&item));
    let name = exchange.filled_text().map(|text| text.value).filter(|name| fits(&exchange, name))?;
    Some((Binding { exchange: name, kind: kind?, routing_key }, exchange.place))
}

fn exchange_kind(item: &Item<'_>) -> Option<String> {
    let kinds = ["direct", "fanout", "topic", "headers"].map(|kind| (kind, kind));
    item.want(Want::Form("^x-"));
    let plugin = item.value().as_str().is_some_and(|text| text.starts_with("x-"));
    if plugin { short_text(item) } else { item.choice(&kinds).map(str::to_owned) }
}

fn short_text(item: &Item<'_>) -> Option<String> {
    item.text().map(|text| text.value).filter(|text| fits(item, text))
}

fn fits(item: &Item<'_>, text: &str) -> bool {
    let fits = text.len() <= LONGEST_SHORT;
    if !fits {
        item.reader().error(item.place, format!("{} is too long", item.name()), "allowed: at most 255 bytes");
    }
    fits
}
