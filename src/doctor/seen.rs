//! What was seen of the broker, before anybody judges it. What could not be seen says so.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::broker::{BrokerError, Counts, Right};
use crate::config::BrokerHost;
use crate::management::Unseen;
use crate::tls::Validity;

/// One of the configured hosts.
#[derive(Debug)]
pub struct HostSeen {
    /// Which.
    pub host: BrokerHost,
    /// What came of a try to log in there.
    pub answer: Result<Greeting, BrokerError>,
}

/// What the broker told when we logged in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Greeting {
    /// Such as `RabbitMQ 3.10.8`.
    pub server: String,
    /// The version of TLS; `None`: not encrypted.
    pub tls: Option<&'static str>,
    /// Of the broker's certificates, that of the first to end.
    pub certificate: Option<Validity>,
}

/// What was seen over AMQP, where a host let us in.
#[derive(Debug, Default)]
pub struct Inside {
    /// Queues by name.
    pub queues: BTreeMap<String, QueueSeen>,
    /// Exchanges by name: whether they exist.
    pub exchanges: BTreeMap<String, bool>,
    /// Rights on queues that were asked for.
    pub rights: BTreeMap<(String, Right), bool>,
    /// Rights on a queue of a name that nobody uses.
    pub rights_on_nothing: Vec<Right>,
    /// What ended the asking before its time.
    pub cut_short: Option<BrokerError>,
}

/// One queue.
#[derive(Debug)]
pub struct QueueSeen {
    /// What AMQP says: `None` where there is no such queue, and the reason where it would not say.
    pub counts: Result<Option<Counts>, String>,
    /// What the management API says; `None` where it was not asked.
    pub details: Option<Result<Details, Unseen>>,
}

impl QueueSeen {
    /// Whether it is known to exist.
    pub fn exists(&self) -> bool {
        matches!(self.counts, Ok(Some(_)))
    }

    /// What the management API says, where it said something.
    pub fn details(&self) -> Option<&Details> {
        self.details.as_ref()?.as_ref().ok()
    }
}

/// What only the management API tells of a queue.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Details {
    /// `classic`, `quorum`, `stream`.
    pub kind: String,
    /// Whether it outlives a restart of the broker.
    pub durable: bool,
    /// Whether it is deleted with its last consumer.
    pub auto_delete: bool,
    /// Its x-arguments.
    pub arguments: Map<String, Value>,
    /// The names of the policies that apply.
    pub policies: Vec<String>,
    /// What those say, without `x-`.
    pub effective: Map<String, Value>,
    /// Who consumes it.
    pub consumers: Vec<ConsumerSeen>,
    /// Messages of a quorum queue that are over and not handed on yet (`messages_dlx`).
    pub leaving: u64,
    /// The node that leads a quorum queue.
    pub leader: Option<String>,
    /// Its nodes that are up.
    pub online: Vec<String>,
}

/// One consumer of a queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsumerSeen {
    /// Name of its connection, such as `127.0.0.1:41234 -> 127.0.0.1:5672`.
    pub connection: String,
    /// What its client calls the connection; `None` where it does not say, or where that cannot be seen.
    pub called: Option<String>,
}

impl Details {
    /// From an answer about one queue. The consumers' own names are asked for later.
    pub fn read(queue: &Value) -> Self {
        let text = |key: &str| queue[key].as_str().map(str::to_owned);
        let table = |key: &str| queue[key].as_object().cloned().unwrap_or_default();
        let consumers = queue["consumer_details"].as_array().into_iter().flatten().map(|consumer| {
            let connection = consumer["channel_details"]["connection_name"].as_str();
            ConsumerSeen { connection: connection.unwrap_or("an unknown connection").to_owned(), called: None }
        });
        let online = queue["online"].as_array().into_iter().flatten().filter_map(Value::as_str);
        let policies = [text("policy"), text("operator_policy")].into_iter().flatten().filter(|name| !name.is_empty());
        Self {
            kind: text("type").unwrap_or_else(|| "classic".to_owned()),
            durable: queue["durable"].as_bool().unwrap_or(true),
            auto_delete: queue["auto_delete"].as_bool().unwrap_or(false),
            arguments: table("arguments"),
            policies: policies.collect(),
            effective: table("effective_policy_definition"),
            consumers: consumers.collect(),
            leaving: queue["messages_dlx"].as_u64().unwrap_or(0),
            leader: text("leader"),
            online: online.map(str::to_owned).collect(),
        }
    }

    /// What holds for an option that arguments and policies may both set, by its name without `x-`. Of two numbers the
    /// smaller one holds (RabbitMQ's guide to policies); else the argument.
    pub fn holds(&self, name: &str) -> Option<Value> {
        let (argument, policy) = (self.arguments.get(&format!("x-{name}")), self.effective.get(name));
        match (argument, policy) {
            (Some(argument), Some(policy)) => match (argument.as_i64(), policy.as_i64()) {
                (Some(a), Some(b)) => Some(Value::from(a.min(b))),
                (Some(_) | None, _) => Some(argument.clone()),
            },
            (argument, policy) => argument.or(policy).cloned(),
        }
    }
}

/// What the management API told beside the queues.
#[derive(Debug)]
pub enum Office {
    /// No URL is configured.
    Unknown,
    /// It could not be asked, and why.
    Closed {
        /// Who asked.
        user: String,
        /// Why it did not answer.
        why: Unseen,
    },
    /// It answered.
    Open(Overview),
}

/// What the API tells of the broker as a whole.
#[derive(Debug)]
pub struct Overview {
    /// Seconds that the broker's clock is ahead of ours; negative: behind. To a second. `None` where it did not tell.
    pub ahead: Option<i64>,
    /// `/api/nodes`
    pub nodes: Result<Value, Unseen>,
    /// Tags of the user that AMQP logs in with, where they could be seen.
    pub tags: Option<Vec<String>>,
}
