//! Which keys each table has, and which one a misspelt key meant.
//!
//! These lists are the only place that says what is known: a key that is not here is an error everywhere.
//! A test compares them with `config/warrend.toml`, so that each key is documented there.

/// A kind of table.
#[derive(Debug, PartialEq, Eq)]
pub struct Shape {
    /// How messages name it, with `NAME` for the job.
    pub name: &'static str,
    /// Its keys, in the order of the documentation.
    pub keys: &'static [&'static str],
}

/// The file itself.
pub const ROOT: Shape =
    Shape { name: "the main file", keys: &["broker", "store", "control", "http", "shutdown", "log", "alerts", "jobs"] };
/// A file of `jobs.d`.
pub const JOBS_FILE: Shape = Shape { name: "a file in jobs.d", keys: &["jobs"] };
/// `[broker]`
pub const BROKER: Shape = Shape {
    name: "[broker]",
    keys: &[
        "urls",
        "password_file",
        "heartbeat",
        "connect_timeout",
        "reconnect",
        "delay_queues",
        "management_url",
        "tls",
    ],
};
/// `reconnect = { ... }`
pub const RECONNECT: Shape = Shape { name: "[broker.reconnect]", keys: &["initial", "max"] };
/// `[broker.tls]`
pub const TLS: Shape = Shape { name: "[broker.tls]", keys: &["ca_file", "cert_file", "key_file", "auth"] };
/// `[store]`
pub const STORE: Shape = Shape { name: "[store]", keys: &["path", "synchronous", "retention"] };
/// `[control]`
pub const CONTROL: Shape = Shape { name: "[control]", keys: &["socket"] };
/// `[http]`
pub const HTTP: Shape = Shape { name: "[http]", keys: &["listen"] };
/// `[shutdown]`
pub const SHUTDOWN: Shape = Shape { name: "[shutdown]", keys: &["timeout"] };
/// `[log]`
pub const LOG: Shape = Shape { name: "[log]", keys: &["format", "level"] };
/// `[[alerts]]`
pub const ALERT: Shape = Shape {
    name: "[[alerts]]",
    keys: &[
        "name",
        "when",
        "jobs",
        "window",
        "for",
        "clear_for",
        "repeat",
        "severity",
        "command",
        "timeout",
        "webhook",
        "headers",
        "secret_file",
        "ca_file",
    ],
};
/// `[jobs.NAME]`
pub const JOB: Shape = Shape {
    name: "[jobs.NAME]",
    keys: &[
        "queue",
        "queues",
        "concurrency",
        "prefetch",
        "order",
        "max_body",
        "in_doubt",
        "reply",
        "enabled",
        "handler",
        "ack",
        "idempotency",
        "retry",
        "kill_switch",
        "dead_letter",
    ],
};
/// `[[jobs.NAME.queues]]`
pub const QUEUE: Shape = Shape {
    name: "[[jobs.NAME.queues]]",
    keys: &[
        "name",
        "weight",
        "declare",
        "type",
        "max_priority",
        "message_ttl",
        "max_length",
        "expires",
        "arguments",
        "bindings",
    ],
};
/// An entry of `bindings`.
pub const BINDING: Shape = Shape { name: "an entry of `bindings`", keys: &["exchange", "type", "routing_key"] };
/// `[jobs.NAME.handler]`
pub const HANDLER: Shape = Shape {
    name: "[jobs.NAME.handler]",
    keys: &[
        "command",
        "timeout",
        "kill_grace",
        "env",
        "cwd",
        "worker",
        "batch",
        "linger",
        "max_tasks",
        "max_memory",
        "max_age",
        "http",
        "headers",
        "secret_file",
        "ca_file",
        "forward",
        "discard",
    ],
};
/// `forward = { ... }`
pub const FORWARD: Shape = Shape { name: "`forward`", keys: &["exchange", "routing_key", "routes", "otherwise"] };
/// An entry of `routes`.
pub const ROUTE: Shape =
    Shape { name: "an entry of `routes`", keys: &["match", "header", "value", "exchange", "routing_key"] };
/// `otherwise = { ... }`
pub const TARGET: Shape = Shape { name: "`otherwise`", keys: &["exchange", "routing_key"] };
/// `[jobs.NAME.ack]`
pub const ACK: Shape = Shape { name: "[jobs.NAME.ack]", keys: &["batch", "interval"] };
/// `[jobs.NAME.idempotency]`
pub const IDEMPOTENCY: Shape = Shape { name: "[jobs.NAME.idempotency]", keys: &["key", "on_missing", "retention"] };
/// `[jobs.NAME.retry]`
pub const RETRY: Shape = Shape {
    name: "[jobs.NAME.retry]",
    keys: &["max_attempts", "initial", "multiplier", "max", "jitter", "max_crashes"],
};
/// `[jobs.NAME.kill_switch]`
pub const KILL_SWITCH: Shape =
    Shape { name: "[jobs.NAME.kill_switch]", keys: &["ratio", "min_samples", "window", "restart_after"] };
/// `[jobs.NAME.dead_letter]`
pub const DEAD_LETTER: Shape = Shape { name: "[jobs.NAME.dead_letter]", keys: &["queue", "type", "message_ttl"] };

/// All of them, for finding where a misplaced key belongs.
pub const ALL: [&Shape; 22] = [
    &ROOT,
    &BROKER,
    &RECONNECT,
    &TLS,
    &STORE,
    &CONTROL,
    &HTTP,
    &SHUTDOWN,
    &LOG,
    &ALERT,
    &JOB,
    &QUEUE,
    &BINDING,
    &HANDLER,
    &FORWARD,
    &ROUTE,
    &TARGET,
    &ACK,
    &IDEMPOTENCY,
    &RETRY,
    &KILL_SWITCH,
    &DEAD_LETTER,
];

/// What other programs of this kind call a thing, where they would write it, and what we do.
const FOREIGN: [(&[&str], &[&Shape], &str); 7] = [
    (&["retries", "max_retries", "attempts", "tries"], &[&ROOT, &JOB, &HANDLER], "`max_attempts` in [jobs.NAME.retry]"),
    (&["workers", "threads", "processes", "parallelism"], &[&ROOT, &JOB, &HANDLER], "`concurrency` in [jobs.NAME]"),
    (
        &["host", "hostname", "port", "user", "username", "vhost"],
        &[&ROOT, &BROKER],
        "urls = [\"amqp://USER:PASSWORD@HOST:PORT/VHOST\"] in [broker]",
    ),
    (
        &["dlq", "dlx", "dead_letter_queue", "dead_letter_exchange"],
        &[&JOB, &QUEUE],
        "`queue` in [jobs.NAME.dead_letter]",
    ),
    (&["delay", "backoff", "retry_delay"], &[&JOB, &HANDLER, &RETRY], "`initial` in [jobs.NAME.retry]"),
    (
        &["log", "logging", "log_level", "loglevel"],
        &[&ROOT],
        "nothing here: the environment variable RUST_LOG says what is logged",
    ),
    (&["database", "db", "sqlite"], &[&ROOT, &STORE], "`path` in [store]"),
];

impl Shape {
    /// What to say about a key that this table does not have.
    pub fn mend(&self, key: &str) -> String {
        if let Some(meant) = nearest(key, self.keys) {
            return format!("did you mean `{meant}`?");
        }
        let in_job = |name: &str| name.contains("jobs.");
        let mut homes: Vec<&str> =
            ALL.iter().filter(|shape| shape.keys.contains(&key)).map(|shape| shape.name).collect();
        if in_job(self.name) && homes.iter().any(|name| in_job(name)) {
            homes.retain(|name| in_job(name));
        }
        let foreign = FOREIGN.iter().find(|(words, places, _)| words.contains(&key) && places.contains(&self));
        if let (true, Some((.., ours))) = (homes.is_empty(), foreign) {
            format!("write {ours}")
        } else if homes.is_empty() {
            format!("allowed in {}: {}", self.name, self.keys.join(", "))
        } else {
            format!("`{key}` belongs in {}", homes.join(" or "))
        }
    }
}

/// The candidate that is so near to `text` that it was probably meant.
pub fn nearest<'a>(text: &str, candidates: &[&'a str]) -> Option<&'a str> {
    let text: Vec<char> = text.chars().take(64).flat_map(char::to_lowercase).collect();
    let near = candidates.iter().filter_map(|candidate| {
        let other: Vec<char> = candidate.chars().collect();
        let allowed = (text.len().max(other.len()) / 3).clamp(1, 3);
        let distance = edit_distance(&text, &other);
        // Two one-letter words are one edit apart and have nothing in common.
        (distance <= allowed && distance < other.len()).then_some((distance, *candidate))
    });
    let near = near.min_by_key(|(distance, _)| *distance).map(|(_, candidate)| candidate);
    near.or_else(|| candidates.iter().copied().find(|candidate| extends(&text, candidate)))
}

/// Whether one text is the other with more words at its end, as in `password` and `password_file`.
fn extends(text: &[char], candidate: &str) -> bool {
    let text: String = text.iter().collect();
    let longer =
        |long: &str, short: &str| short.len() > 3 && long.strip_prefix(short).is_some_and(|rest| rest.starts_with('_'));
    longer(candidate, &text) || longer(&text, candidate)
}

/// Insertions, deletions, replacements and swaps of neighbours from one text to the other (optimal string alignment).
fn edit_distance(a: &[char], b: &[char]) -> usize {
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for (i, row) in rows.iter_mut().enumerate() {
        row[0] = i;
    }
    rows[0] = (0..=b.len()).collect();
    for i in 1..=a.len() {
        for j in 1..=b.len() {
            let replaced = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut least = replaced.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                least = least.min(rows[i - 2][j - 2] + 1);
            }
            rows[i][j] = least;
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_was_meant() {
        let check = |text: &str, expect: Option<&str>| {
            assert_eq!(nearest(text, &["full", "normal", "urls", "concurrency", "max"]), expect, "{text}");
        };
        check("url", Some("urls"));
        check("FULL", Some("full"));
        check("fulll", Some("full"));
        check("concurency", Some("concurrency"));
        check("concurrencie", Some("concurrency"));
        check("concurrency_limit", Some("concurrency"));
        check("maximum", None);
        check("nromal", Some("normal"));
        check("threads", None);
        check("", None);
        check("x", None);
    }

    #[test]
    fn a_misplaced_key_is_sent_home() {
        assert_eq!(RETRY.mend("prefetch"), "`prefetch` belongs in [jobs.NAME]");
        assert_eq!(JOB.mend("timeout"), "`timeout` belongs in [jobs.NAME.handler]");
        assert_eq!(STORE.mend("timeout"), "`timeout` belongs in [shutdown] or [[alerts]] or [jobs.NAME.handler]");
        assert_eq!(JOB.mend("retries"), "write `max_attempts` in [jobs.NAME.retry]");
        assert_eq!(BROKER.mend("port"), "write urls = [\"amqp://USER:PASSWORD@HOST:PORT/VHOST\"] in [broker]");
        assert_eq!(HTTP.mend("port"), "allowed in [http]: listen");
        assert_eq!(ACK.mend("flush"), "allowed in [jobs.NAME.ack]: batch, interval");
    }
}
