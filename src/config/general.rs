//! `[broker]`, `[store]`, `[control]` and `[shutdown]`.

use std::path::PathBuf;

use super::broker_url;
use super::item::{Item, Limits};
use super::place::Place;
use super::queue::QUEUE_KINDS;
use super::section::{Got, Section};
use super::shape;
use super::sketch::{Rule, Want};
use super::value::{LONGEST, days, millis, secs};
use super::{Backoff, Broker, BrokerHost, Control, QueueKind, Shutdown, Store, Synchronous};

/// AMQP counts heartbeats in seconds, in 16 bits.
const HEARTBEAT: Limits = Limits::new(secs(0), secs(65_535)).whole_seconds();
/// Any duration above zero.
pub const ABOVE_ZERO: Limits = Limits::new(millis(1), LONGEST);
/// Any duration, zero too.
pub const ANY: Limits = Limits::new(secs(0), LONGEST);
/// Longest path of a Unix socket: `sun_path` has 108 bytes, the last of which is zero.
const SOCKET_PATH: usize = 107;

/// Reads `[broker]`, the only table that must be there.
pub fn broker(root: &Section<'_>) -> Broker {
    let section = root.section("broker", &shape::BROKER);
    let password_file = section.get("password_file", None, |item| item.path().map(Some));
    let urls = section.item("urls");
    section.rule(Rule::One(&["urls"]));
    if urls.is_none() && section.good {
        let place = if root.item("broker").is_some() { section.place } else { Place::whole(root.place.file) };
        let help = "write urls = [\"amqp://guest:guest@127.0.0.1:5672/%2f\"] in [broker]";
        section.reader().missing(place, "there are no broker URLs", help);
    }
    Broker {
        hosts: urls.map_or_else(Vec::new, |item| hosts(&item, password_file.at.is_some())),
        password_file: password_file.value,
        heartbeat: section.get("heartbeat", secs(15), |item| item.duration(HEARTBEAT)).value,
        connect_timeout: section.get("connect_timeout", secs(10), |item| item.duration(ABOVE_ZERO)).value,
        reconnect: reconnect(&section.section("reconnect", &shape::RECONNECT)),
        delay_queues: section.get("delay_queues", QueueKind::Quorum, |item| item.choice(&QUEUE_KINDS)).value,
    }
}

fn hosts(urls: &Item<'_>, password_elsewhere: bool) -> Vec<BrokerHost> {
    let items = urls.array("[\"amqp://guest:guest@127.0.0.1:5672/%2f\"]").unwrap_or_default();
    if items.is_empty() && urls.value().is_array() {
        urls.reader().error(urls.place, "`urls` is empty", "give at least one URL");
    }
    let mut hosts: Vec<(BrokerHost, Place)> = Vec::new();
    for item in items {
        item.want(Want::Form("^amqps?://"));
        let Some(text) = item.text() else { continue };
        match broker_url::parse(&text.value, password_elsewhere) {
            Ok(host) => hosts.push((host, item.place)),
            Err((message, help)) => item.reader().error(item.place, message, help),
        }
    }
    if let Some(((first, first_place), others)) = hosts.split_first() {
        for (_, place) in others.iter().filter(|(host, _)| host.vhost != first.vhost) {
            let help = "all URLs are ways to one broker: they must name the same virtual host";
            let also = (*first_place, "the first URL");
            urls.reader().clash(*place, "this URL names another virtual host than the first", help, also);
        }
    }
    hosts.into_iter().map(|(host, _)| host).collect()
}

fn reconnect(section: &Section<'_>) -> Backoff {
    let initial = section.get("initial", millis(500), |item| item.duration(ABOVE_ZERO));
    let max = section.get("max", secs(30), |item| item.duration(ABOVE_ZERO));
    at_least(section, ("max", &max), ("initial", &initial));
    Backoff { initial: initial.value, max: max.value }
}

/// Notes where the greatest of two durations is below the first.
pub fn at_least(
    section: &Section<'_>,
    (max_name, max): (&str, &Got<std::time::Duration>),
    (initial_name, initial): (&str, &Got<std::time::Duration>),
) {
    let Some(place) = max.at.or(initial.at) else {
        return;
    };
    if max.both(initial) && max.value < initial.value {
        let show = super::value::show_duration;
        section.reader().error(
            place,
            format!("`{max_name}` is below `{initial_name}`"),
            format!("`{initial_name}` is \"{}\", `{max_name}` is \"{}\"", show(initial.value), show(max.value)),
        );
    }
}

/// Reads `[store]`.
pub fn store(section: &Section<'_>) -> Store {
    let modes = [("full", Synchronous::Full), ("normal", Synchronous::Normal)];
    Store {
        path: section.get("path", PathBuf::from("/var/lib/warrend/warrend.db"), |item| item.path()).value,
        synchronous: section.get("synchronous", Synchronous::Full, |item| item.choice(&modes)).value,
        retention: section.get("retention", days(14), |item| item.duration(ABOVE_ZERO)).value,
    }
}

/// Reads `[control]`.
pub fn control(section: &Section<'_>) -> Control {
    Control { socket: section.get("socket", PathBuf::from("/run/warrend/warrend.sock"), socket).value }
}

fn socket(item: Item<'_>) -> Option<PathBuf> {
    let path = item.path()?;
    let length = path.as_os_str().len();
    if length > SOCKET_PATH {
        let message = format!("the path of the socket has {length} bytes");
        return item.error(message, format!("a Unix socket's path has at most {SOCKET_PATH}; choose a shorter one"));
    }
    Some(path)
}

/// Reads `[shutdown]`.
pub fn shutdown(section: &Section<'_>) -> Shutdown {
    Shutdown { timeout: section.get("timeout", secs(25), |item| item.duration(ANY)).value }
}
