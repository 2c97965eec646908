//! Settings as text, key by key, to compare and to show.
//!
//! Each function takes its table apart field by field, so that one that is added is thought of here. A value that may hold a
//! secret is compared and never shown: variables and headers of handlers, arguments, passwords, what follows the host of a
//! webhook.

use std::collections::BTreeMap;
use std::fmt::{Debug, Display};
use std::path::PathBuf;
use std::time::Duration;

use super::super::handler::kinds::{Command, Forward, Handler, Http, Worker};
use super::super::mask::quote;
use super::super::value::{show_duration, show_size};
use super::super::{
    Ack, Backoff, Binding, Broker, BrokerHost, Control, DeadLetter, Idempotency, Job, KeySource, KillSwitch, Log,
    Login, Prefetch, Queue, Retry, Shutdown, Store, Tls, Web,
};
use crate::report::Change;

/// One setting.
#[derive(Debug, PartialEq)]
struct Fact {
    /// The whole value, which may be secret.
    value: String,
    /// What may be shown of it.
    shown: String,
}

/// The settings of a table and those below it, by their keys. What is not set is absent.
#[derive(Debug, Default)]
pub struct Facts {
    prefix: String,
    found: BTreeMap<String, Fact>,
}

impl Facts {
    /// What cannot change while the daemon runs.
    pub fn fixed(store: &Store, control: &Control, http: &Web, log: &Log) -> Self {
        let (Store { path, synchronous, retention: _ }, Control { socket }) = (store, control);
        let Web { listen } = http;
        let mut facts = Self::default();
        facts.path("store.path", Some(path));
        facts.word("store.synchronous", synchronous);
        facts.path("control.socket", Some(socket));
        facts.maybe("http.listen", listen.as_ref());
        let Log { format, level } = log;
        facts.word("log.format", format);
        facts.word("log.level", level);
        facts
    }

    /// What is in force as soon as it is read.
    pub fn at_once(store: &Store, shutdown: &Shutdown) -> Self {
        let (Store { path: _, synchronous: _, retention }, Shutdown { timeout }) = (store, shutdown);
        let mut facts = Self::default();
        facts.time("store.retention", *retention);
        facts.time("shutdown.timeout", *timeout);
        facts
    }

    /// `[broker]`
    pub fn broker(broker: &Broker) -> Self {
        // The management API is for `check --online`, which reads the files itself.
        let Broker { hosts, password_file, heartbeat, connect_timeout, reconnect, delay_queues, tls, management: _ } =
            broker;
        let mut facts = Self { prefix: "broker".to_owned(), ..Self::default() };
        let passwords: Vec<&str> = hosts.iter().map(|host| &*host.password).collect();
        let shown: Vec<String> = hosts.iter().map(show_host).collect();
        facts.secret("urls", format!("{shown:?} {passwords:?}"), shown.join(", "));
        facts.path("password_file", password_file.as_ref());
        facts.time("heartbeat", *heartbeat);
        facts.time("connect_timeout", *connect_timeout);
        let Backoff { initial, max } = reconnect;
        facts.time("reconnect.initial", *initial);
        facts.time("reconnect.max", *max);
        facts.word("delay_queues", delay_queues);
        let Tls { ca_file, identity, login } = tls;
        facts.path("tls.ca_file", ca_file.as_ref());
        facts.path("tls.cert_file", identity.as_ref().map(|identity| &identity.cert_file));
        facts.path("tls.key_file", identity.as_ref().map(|identity| &identity.key_file));
        let login = match login {
            Login::Password => "plain",
            Login::Certificate => "external",
        };
        facts.plain("tls.auth", login);
        facts
    }

    /// `[jobs.NAME]`; of its queues those in full that the `other` has too.
    pub fn job(job: &Job, other: &Job) -> Self {
        let Job {
            name,
            enabled,
            concurrency,
            prefetch,
            reply,
            order,
            max_body,
            queues,
            handler,
            ack,
            idempotency,
            in_doubt,
            retry,
            kill_switch,
            dead_letter,
        } = job;
        let mut facts = Self { prefix: format!("jobs.{name}"), ..Self::default() };
        facts.plain("enabled", enabled);
        facts.plain("concurrency", concurrency);
        match prefetch {
            Prefetch::Fixed(prefetch) => facts.plain("prefetch", prefetch),
            Prefetch::Auto => facts.plain("prefetch", "auto"),
        }
        facts.plain("reply", reply);
        facts.word("order", order);
        facts.plain("max_body", show_size(*max_body));
        facts.word("in_doubt", in_doubt);
        let names: Vec<String> = queues.iter().map(|queue| format!("\"{}\"", quote(&queue.name))).collect();
        facts.plain("queues", names.join(", "));
        for queue in queues.iter().filter(|queue| other.queues.iter().any(|other| other.name == queue.name)) {
            facts.queue(queue);
        }
        facts.handler(handler);
        let Ack { batch, interval } = ack;
        facts.plain("ack.batch", batch);
        facts.time("ack.interval", *interval);
        facts.idempotency(idempotency);
        facts.retry(retry);
        facts.kill_switch(kill_switch.as_ref());
        let DeadLetter { queue, kind, message_ttl } = dead_letter;
        facts.text("dead_letter.queue", queue);
        facts.word("dead_letter.type", kind);
        facts.maybe_time("dead_letter.message_ttl", *message_ttl);
        facts
    }

    /// What differs from `after`, in the order of the keys.
    pub fn differences(&self, after: &Self, effect: &str) -> Vec<Change> {
        let mut keys: Vec<&String> = self.found.keys().chain(after.found.keys()).collect();
        keys.sort();
        keys.dedup();
        let change = |key: &String| {
            let (old, new) = (self.found.get(key), after.found.get(key));
            if old == new {
                return None;
            }
            let shown = |fact: Option<&Fact>| fact.map(|fact| fact.shown.clone());
            let (old, new, effect) = (shown(old), shown(new), effect.to_owned());
            // Only the secret part differs.
            let hidden = old == new;
            let key = key.clone();
            Some(if hidden {
                Change { key, old: None, new: None, hidden, effect }
            } else {
                Change { key, old, new, hidden, effect }
            })
        };
        keys.into_iter().filter_map(change).collect()
    }

    fn queue(&mut self, queue: &Queue) {
        let Queue { name, weight, declare, kind, max_priority, message_ttl, max_length, expires, arguments, bindings } =
            queue;
        let key = |key: &str| format!("queues.{}.{key}", quote(name));
        self.plain(&key("weight"), weight);
        self.word(&key("declare"), declare);
        self.word(&key("type"), kind);
        self.maybe(&key("max_priority"), max_priority.as_ref());
        self.maybe_time(&key("message_ttl"), *message_ttl);
        self.maybe(&key("max_length"), max_length.as_ref());
        self.maybe_time(&key("expires"), *expires);
        for (argument, value) in arguments {
            self.plain(&key(&format!("arguments.{}", quote(argument))), quote(&format!("{value:?}")));
        }
        let binding = |Binding { exchange, kind, routing_key }: &Binding| {
            quote(&format!("{exchange} ({kind}) with {routing_key:?}"))
        };
        if !bindings.is_empty() {
            self.plain(&key("bindings"), bindings.iter().map(binding).collect::<Vec<_>>().join(", "));
        }
    }

    fn handler(&mut self, handler: &Handler) {
        match handler {
            Handler::Command(command) => self.command("command", command),
            Handler::Worker(worker) => {
                let Worker { program, batch, linger, max_tasks, max_memory, max_age } = worker;
                self.command("worker", program);
                self.plain("handler.batch", batch);
                self.time("handler.linger", *linger);
                self.maybe("handler.max_tasks", max_tasks.as_ref());
                self.maybe("handler.max_memory", max_memory.map(show_size).as_ref());
                self.maybe_time("handler.max_age", *max_age);
            }
            Handler::Http(http) => {
                let Http { url, timeout, headers, secret_file, ca_file } = http;
                self.secret("handler.http", url.clone(), format!("{}/***", http.origin()));
                self.time("handler.timeout", *timeout);
                for (name, value) in headers {
                    self.secret(&format!("handler.headers.{}", quote(name)), value.clone(), "***".to_owned());
                }
                self.path("handler.secret_file", secret_file.as_ref());
                self.path("handler.ca_file", ca_file.as_ref());
            }
            Handler::Forward(Forward { routes, otherwise }) => {
                let shown =
                    if let [_] = routes[..] { "1 route".to_owned() } else { format!("{} routes", routes.len()) };
                self.secret("handler.forward", format!("{routes:?} {otherwise:?}"), shown);
            }
            Handler::Discard => self.plain("handler.discard", true),
        }
    }

    fn command(&mut self, kind: &str, command: &Command) {
        let Command { argv, timeout, kill_grace, env, cwd } = command;
        let program = argv.first().map_or("", String::as_str);
        let arguments = match argv.len().saturating_sub(1) {
            0 => String::new(),
            1 => " and 1 argument".to_owned(),
            more => format!(" and {more} arguments"),
        };
        self.secret(&format!("handler.{kind}"), format!("{argv:?}"), format!("\"{}\"{arguments}", quote(program)));
        self.time("handler.timeout", *timeout);
        self.time("handler.kill_grace", *kill_grace);
        for (name, value) in env {
            self.secret(&format!("handler.env.{}", quote(name)), value.clone(), "***".to_owned());
        }
        self.path("handler.cwd", cwd.as_ref());
    }

    fn idempotency(&mut self, idempotency: &Idempotency) {
        let Idempotency { key, on_missing, retention } = idempotency;
        let key = match key {
            KeySource::MessageId => "message_id".to_owned(),
            KeySource::Header(name) => format!("header:{}", quote(name)),
            KeySource::JsonPointer(pointer) => format!("json:{}", quote(pointer)),
            KeySource::Body => "body".to_owned(),
            KeySource::None => "none".to_owned(),
        };
        self.plain("idempotency.key", key);
        self.word("idempotency.on_missing", on_missing);
        self.time("idempotency.retention", *retention);
    }

    fn retry(&mut self, retry: &Retry) {
        let Retry { max_attempts, initial, multiplier, max, jitter, max_crashes } = retry;
        self.plain("retry.max_attempts", max_attempts);
        self.time("retry.initial", *initial);
        self.plain("retry.multiplier", multiplier);
        self.time("retry.max", *max);
        self.plain("retry.jitter", jitter);
        self.plain("retry.max_crashes", max_crashes);
    }

    /// One that comes or goes is told in one line.
    fn kill_switch(&mut self, switch: Option<&KillSwitch>) {
        let Some(KillSwitch { ratio, min_samples, window, restart_after }) = switch else {
            return;
        };
        let value = format!("{ratio} {min_samples} {window:?} {restart_after:?}");
        self.secret("kill_switch", value, "on".to_owned());
    }

    fn add(&mut self, key: &str, value: String, shown: String) {
        let key = if self.prefix.is_empty() { key.to_owned() } else { format!("{}.{key}", self.prefix) };
        self.found.insert(key, Fact { value, shown });
    }

    fn secret(&mut self, key: &str, value: String, shown: String) {
        self.add(key, value, shown);
    }

    fn plain(&mut self, key: &str, value: impl Display) {
        self.add(key, value.to_string(), value.to_string());
    }

    fn maybe(&mut self, key: &str, value: Option<&impl Display>) {
        if let Some(value) = value {
            self.plain(key, value);
        }
    }

    fn text(&mut self, key: &str, text: &str) {
        self.add(key, text.to_owned(), format!("\"{}\"", quote(text)));
    }

    fn path(&mut self, key: &str, path: Option<&PathBuf>) {
        if let Some(path) = path {
            self.text(key, &path.to_string_lossy());
        }
    }

    fn time(&mut self, key: &str, time: Duration) {
        self.plain(key, show_duration(time));
    }

    fn maybe_time(&mut self, key: &str, time: Option<Duration>) {
        if let Some(time) = time {
            self.time(key, time);
        }
    }

    /// One of a few words; the variants are called as the words in the file.
    fn word(&mut self, key: &str, word: &impl Debug) {
        self.plain(key, format!("{word:?}").to_lowercase());
    }
}

/// The URL without its password.
fn show_host(host: &BrokerHost) -> String {
    let BrokerHost { host: _, port: _, tls, user, password: _, vhost } = host;
    let scheme = if *tls { "amqps" } else { "amqp" };
    format!("{scheme}://{}@{host}, vhost \"{}\"", quote(user), quote(vhost))
}
