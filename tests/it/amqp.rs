//! What only the behaviour tests do on the broker: exchanges, bindings, unacknowledged messages, headers.

use amiquip::{AmqpProperties, AmqpValue, Delivery, ExchangeDeclareOptions, ExchangeType};
use amiquip::{FieldTable, Result};

use url::Url;

use crate::support::broker::{BROKER_TIMEOUT, Vhost, with_id};
use crate::support::wait_until;

/// Declares a durable exchange.
pub fn exchange(vhost: &Vhost, name: &str, kind: ExchangeType) {
    let options = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    done(vhost.with_channel(|channel| channel.exchange_declare(kind, name, options).map(drop)));
}

/// Binds a queue to an exchange.
pub fn bind(vhost: &Vhost, queue: &str, exchange: &str, routing_key: &str) {
    done(vhost.with_channel(|channel| channel.queue_bind(queue, exchange, routing_key, FieldTable::new())));
}

fn done(result: Result<()>) {
    result.expect("the broker does it");
}

/// The user of the tests.
pub fn user(vhost: &Vhost) -> String {
    let url = url(vhost);
    if url.username().is_empty() { "guest".to_owned() } else { url.username().to_owned() }
}

/// The password of the tests' user.
pub fn password(vhost: &Vhost) -> String {
    url(vhost).password().unwrap_or("guest").to_owned()
}

/// The URL into the vhost for another user, escaped as URLs need it.
pub fn url_as(vhost: &Vhost, user: &str, password: Option<&str>) -> String {
    let mut url = url(vhost);
    let set = url.set_username(user).and_then(|()| url.set_password(password));
    set.expect("the URL has a host");
    url.into()
}

fn url(vhost: &Vhost) -> Url {
    Url::parse(&vhost.url()).expect("it is one")
}

/// Delivered and not acknowledged, as the broker counts them: up to a second late. (Without the two parameters the
/// management API answers from statistics that lag by five.)
pub fn unacknowledged(vhost: &Vhost, queue: &str) -> Option<u64> {
    let path = format!("/api/queues/{}?disable_stats=true&enable_queue_totals=true", vhost.name());
    let found = vhost.broker().management().call("GET", &path, None).ok()?;
    let found = found.as_array()?.iter().find(|one| one["name"] == queue)?;
    found["messages_unacknowledged"].as_u64()
}

/// Waits for a message in the queue and takes it out.
pub fn take(vhost: &Vhost, queue: &str) -> Delivery {
    let mut taken = None;
    wait_until(&format!("a message in {queue}"), BROKER_TIMEOUT, || {
        // A queue that is missing yet would be an error to get from.
        taken = vhost.ready(queue).and_then(|_| vhost.get(queue));
        taken.is_some()
    });
    taken.expect("the wait ended with one")
}

/// The headers of a message, sorted by name.
pub fn headers(delivery: &Delivery) -> std::collections::BTreeMap<String, AmqpValue> {
    let table = delivery.properties.headers().clone().unwrap_or_default();
    table.into_iter().collect()
}

/// A header whose value must be a `l`, the 64-bit integer.
pub fn integer(delivery: &Delivery, name: &str) -> i64 {
    match headers(delivery).get(name) {
        Some(AmqpValue::LongLongInt(value)) => *value,
        other => panic!("the header {name} is {other:?}, not a 64-bit integer"),
    }
}

/// A header whose value must be text.
pub fn text(delivery: &Delivery, name: &str) -> String {
    match headers(delivery).remove(name) {
        Some(AmqpValue::LongString(value)) => value,
        other => panic!("the header {name} is {other:?}, not text"),
    }
}

/// The properties of a persistent message with this id and these headers.
pub fn with_headers(id: &str, headers: &[(&str, AmqpValue)]) -> AmqpProperties {
    let table: FieldTable = headers.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
    with_id(id).with_headers(table)
}

/// A text value.
pub fn long_text(text: impl Into<String>) -> AmqpValue {
    AmqpValue::LongString(text.into())
}
