//! `[broker]` and `[broker.tls]`: how to reach the broker, and what has to fit together for that.

use std::path::PathBuf;

use super::broker_url::{self, Password};
use super::general::{ABOVE_ZERO, at_least};
use super::host::is_this_machine;
use super::item::{Item, Limits};
use super::management_url;
use super::place::Place;
use super::queue::QUEUE_KINDS;
use super::section::{Got, Section};
use super::sketch::{Rule, Want};
use super::value::{millis, secs};
use super::{Backoff, Broker, BrokerHost, Identity, Login, Management, QueueKind, Tls, files, shape};

/// AMQP counts heartbeats in seconds, in 16 bits.
const HEARTBEAT: Limits = Limits::new(secs(0), secs(65_535)).whole_seconds();

/// Reads `[broker]`, the only table that must be there.
pub fn broker(root: &Section<'_>) -> Broker {
    let section = root.section("broker", &shape::BROKER);
    let password_file = section.get("password_file", None, |item| item.path().map(Some));
    let urls = section.item("urls");
    section.rule(Rule::One(&["urls"]));
    if urls.is_none() && section.good && !root.misspells(&["broker"]) {
        let place = if root.item("broker").is_some() { section.place } else { Place::whole(root.place.file) };
        let help = "write urls = [\"amqp://guest:guest@127.0.0.1:5672/%2f\"] in [broker]";
        section.lacks(&["urls"], place, "there are no broker URLs", help);
    }
    let security = section.section("tls", &shape::TLS);
    let choices = [("plain", Login::Password), ("external", Login::Certificate)];
    let login = security.get("auth", Login::Password, |item| item.choice(&choices));
    let password = match login.value {
        Login::Certificate => Password::Never,
        Login::Password if password_file.at.is_some() => Password::Elsewhere,
        Login::Password => Password::Here,
    };
    let hosts = urls.map_or_else(Vec::new, |item| hosts(&item, password));
    if let (Login::Certificate, Some(place)) = (login.value, password_file.at) {
        let help = "with auth = \"external\" the broker takes the user from the certificate; remove one of the two";
        section.reader().warn(place, "`password_file` has no effect", help);
    }
    judge_encryption(&section, &hosts, &login);
    let tls = tls(&security, &hosts, &login);
    Broker {
        hosts: hosts.into_iter().map(|(host, _)| host).collect(),
        password_file: password_file.value,
        heartbeat: section.get("heartbeat", secs(15), |item| item.duration(HEARTBEAT)).value,
        connect_timeout: section.get("connect_timeout", secs(10), |item| item.duration(ABOVE_ZERO)).value,
        reconnect: reconnect(&section.section("reconnect", &shape::RECONNECT)),
        delay_queues: section.get("delay_queues", QueueKind::Quorum, |item| item.choice(&QUEUE_KINDS)).value,
        management: section.get("management_url", None, |item| management(&item, login.value).map(Some)).value,
        tls,
    }
}

fn hosts(urls: &Item<'_>, password: Password) -> Vec<(BrokerHost, Place)> {
    let items = urls.array("[\"amqp://guest:guest@127.0.0.1:5672/%2f\"]").unwrap_or_default();
    if items.is_empty() && urls.value().is_array() {
        urls.reader().error(urls.place, "`urls` is empty", "give at least one URL");
    }
    let mut hosts: Vec<(BrokerHost, Place)> = Vec::new();
    for item in items {
        item.want(Want::Form("^amqps?://"));
        let Some(text) = item.text() else { continue };
        match broker_url::parse(&text.value, password) {
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
    hosts
}

fn management(item: &Item<'_>, login: Login) -> Option<Management> {
    item.want(Want::Form("^https?://"));
    let (found, host) = match management_url::parse(&item.text()?.value) {
        Ok(found) => found,
        Err((message, help)) => return item.error(message, help),
    };
    if found.login.is_none() && login == Login::Certificate {
        let help = "write http://USER:PASSWORD@HOST:15672: the certificate logs in to AMQP only";
        return item.error("this URL needs a user and a password", help);
    }
    if found.url.starts_with("http://") && !is_this_machine(&host) {
        let help = "write https://; plain http:// is for addresses of this machine";
        item.reader().warn(item.place, "the management password crosses the network unencrypted", help);
    }
    Some(found)
}

/// Notes where a URL would send over a network what must not be read there.
fn judge_encryption(section: &Section<'_>, hosts: &[(BrokerHost, Place)], login: &Got<Login>) {
    let reader = section.reader();
    let encrypted = hosts.iter().find(|(host, _)| host.tls);
    for (host, place) in hosts.iter().filter(|(host, _)| !host.tls) {
        if login.value == Login::Certificate {
            let help = "write amqps://: a certificate is shown in TLS only";
            reader.error(*place, "auth = \"external\" takes an amqps:// URL", help);
        } else if is_this_machine(&host.host) {
            // What crosses no network needs no encryption.
        } else if let Some((_, encrypted)) = encrypted {
            let help =
                "who blocks the encrypted ways would get the password: write amqps:// for all hosts but this machine";
            reader.clash(*place, "this URL is not encrypted, another one is", help, (*encrypted, "encrypted"));
        } else {
            let help = "write amqps://, see docs/TLS.md; plain amqp:// is for addresses of this machine";
            reader.warn(*place, "the password and all messages cross the network unencrypted", help);
        }
    }
}

fn tls(section: &Section<'_>, hosts: &[(BrokerHost, Place)], login: &Got<Login>) -> Tls {
    let path = |key| section.get::<Option<PathBuf>>(key, None, |item| item.path().map(Some));
    let (ca_file, cert_file, key_file) = (path("ca_file"), path("cert_file"), path("key_file"));
    let reader = section.reader();
    section.rule(Rule::Beside("cert_file", &["key_file"]));
    section.rule(Rule::Beside("key_file", &["cert_file"]));
    if let (Some(place), None) = (cert_file.at, key_file.at) {
        reader.error(place, "`cert_file` without `key_file`", "add the key that belongs to the certificate");
    }
    if let (None, Some(place)) = (cert_file.at, key_file.at) {
        reader.error(place, "`key_file` without `cert_file`", "add the certificate that belongs to the key");
    }
    if let (Login::Certificate, Some(place), None) = (login.value, login.at, cert_file.at.or(key_file.at)) {
        let help = "add cert_file and key_file: the broker takes the user from the certificate";
        reader.error(place, "auth = \"external\" without a certificate", help);
    }
    if !hosts.is_empty() && hosts.iter().all(|(host, _)| !host.tls) {
        let is_default = |key: &str| key == "auth" && login.value == Login::Password;
        for item in shape::TLS.keys.iter().filter(|key| !is_default(key)).filter_map(|key| section.item(key)) {
            let message = format!("{} has no effect without an amqps:// URL", item.name());
            reader.warn(item.key_place, message, "write amqps:// in broker.urls, or remove the key");
        }
    }
    if reader.inspects_files {
        files::judge_tls(reader, &ca_file, &cert_file, &key_file);
    }
    let identity = cert_file.value.zip(key_file.value).map(|(cert_file, key_file)| Identity { cert_file, key_file });
    Tls { ca_file: ca_file.value, identity, login: login.value }
}

fn reconnect(section: &Section<'_>) -> Backoff {
    let initial = section.get("initial", millis(500), |item| item.duration(ABOVE_ZERO));
    let max = section.get("max", secs(30), |item| item.duration(ABOVE_ZERO));
    at_least(section, ("max", &max), ("initial", &initial));
    Backoff { initial: initial.value, max: max.value }
}
