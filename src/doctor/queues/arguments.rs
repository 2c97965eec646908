//! The arguments of a queue that stands, against those of the file.

use std::time::Duration;

use serde_json::{Map, Value};

use super::{Scene, by_policy, finding, kind_word};
use crate::config::{QueueKind, show_duration};
use crate::doctor::finding::{Finding, Level};
use crate::doctor::seen::Details;
use crate::task::HeaderValue;

/// Arguments that have a key of their own in the file, whether they are a time, and what it means to have less.
const KEYS: [(&str, &str, bool); 4] = [
    ("x-max-priority", "max_priority", false),
    ("x-message-ttl", "message_ttl", true),
    ("x-max-length", "max_length", false),
    ("x-expires", "expires", true),
];
/// Those that a policy can give to a queue that stands.
const BY_POLICY: [&str; 9] = [
    "x-message-ttl",
    "x-max-length",
    "x-max-length-bytes",
    "x-expires",
    "x-overflow",
    "x-dead-letter-exchange",
    "x-dead-letter-routing-key",
    "x-delivery-limit",
    "x-consumer-timeout",
];

/// A value as the management API writes it. What JSON does not have is text there too.
pub fn to_json(value: &HeaderValue) -> Value {
    if let Some(integer) = value.as_integer() {
        return Value::from(integer);
    }
    match value {
        HeaderValue::Bool(bool) => Value::from(*bool),
        HeaderValue::F32(float) => Value::from(*float),
        HeaderValue::F64(float) => Value::from(*float),
        HeaderValue::Text(text) => Value::from(text.as_str()),
        HeaderValue::Array(values) => values.iter().map(to_json).collect(),
        HeaderValue::Table(table) => {
            Value::Object(table.iter().map(|(name, value)| (name.clone(), to_json(value))).collect::<Map<_, _>>())
        }
        HeaderValue::I8(_)
        | HeaderValue::U8(_)
        | HeaderValue::I16(_)
        | HeaderValue::U16(_)
        | HeaderValue::I32(_)
        | HeaderValue::U32(_)
        | HeaderValue::I64(_)
        | HeaderValue::Decimal { .. }
        | HeaderValue::Bytes(_)
        | HeaderValue::Timestamp(_)
        | HeaderValue::Void => Value::Null,
    }
}

/// Judges a queue that may have been made by somebody else. `place`: where the file has its keys.
pub fn judge(
    scene: &Scene<'_>,
    name: &str,
    place: &str,
    wanted: &[(String, HeaderValue)],
    details: &Details,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    let is_quorum = wanted.iter().any(|(name, value)| name == "x-queue-type" && value.as_text() == Some("quorum"));
    let kind = kind_word(if is_quorum { QueueKind::Quorum } else { QueueKind::Classic });
    if details.kind != kind {
        let text = format!("queue {name:?} is a {} queue, the file says {kind}", details.kind);
        let told = finding(Level::Warning, "queue-type", text).why(why_type(&details.kind));
        let told = told.or(format!("in {place}: type = {:?}", details.kind));
        findings.push(scene.by_making_anew(told, name));
    }
    for (argument, wanted) in wanted {
        let ours = argument == "x-delivery-limit" && wanted.as_integer() == Some(i32::MAX.into());
        let wanted = to_json(wanted);
        // The limit that we give to queues that we make is nobody's wish; it is judged by itself.
        if argument == "x-queue-type"
            || ours
            || details.holds(argument.trim_start_matches("x-")).as_ref() == Some(&wanted)
        {
            continue;
        }
        findings.push(differs(scene, name, place, argument, &wanted, details));
    }
    findings
}

fn why_type(has: &str) -> &'static str {
    match has {
        "quorum" => {
            "warrend uses it as it is. A quorum queue has no priorities before RabbitMQ 4, and counts deliveries."
        }
        "stream" => "A stream is no work queue: nothing leaves it, and it wants another kind of consumer.",
        _ => "warrend uses it as it is: it lives on one node, and is gone while that is down.",
    }
}

fn differs(scene: &Scene<'_>, name: &str, place: &str, argument: &str, wanted: &Value, details: &Details) -> Finding {
    let option = argument.trim_start_matches("x-");
    let has = details.holds(option);
    let source = by_policy(details, option);
    let text = match &has {
        Some(has) => format!("queue {name:?} has {argument} = {has}{source}, the file says {wanted}"),
        None => format!("queue {name:?} has no {argument}, the file says {wanted}"),
    };
    let told = finding(Level::Warning, "queue-argument", text).why(why_argument(argument, has.as_ref()));
    let told = match (&has, key_of(argument)) {
        (Some(has), Some((key, is_time))) => told.or(format!("in {place}: {key} = {}", in_file(has, is_time))),
        (None, Some((key, _))) => told.or(format!("in {place}: remove {key}")),
        (Some(has), None) => told.or(format!("in {place}: arguments = {{ {argument} = {has} }}")),
        (None, None) => told.or(format!("in {place}: remove {argument} from arguments")),
    };
    // A policy only where it does not stand against an argument or hide another policy.
    let free = !details.arguments.contains_key(argument) && details.policies.is_empty();
    if free && BY_POLICY.contains(&argument) {
        return scene.with_policy(told, name, option, wanted);
    }
    scene.by_making_anew(told, name)
}

fn key_of(argument: &str) -> Option<(&'static str, bool)> {
    KEYS.iter().find(|(name, ..)| *name == argument).map(|(_, key, is_time)| (*key, *is_time))
}

/// A value as the file writes it.
fn in_file(value: &Value, is_time: bool) -> String {
    match value.as_u64().filter(|_| is_time) {
        Some(time) => format!("{:?}", show_duration(Duration::from_millis(time))),
        None => value.to_string(),
    }
}

fn why_argument(argument: &str, has: Option<&Value>) -> String {
    let what = match (argument, has) {
        ("x-max-priority", None) => ": without priorities, messages come in the order of their arrival.".to_owned(),
        ("x-max-priority", Some(has)) => format!(": priorities above {has} count as {has}."),
        ("x-message-ttl", None) => ": messages wait there for ever.".to_owned(),
        ("x-max-length", None) => ": it grows without a bound.".to_owned(),
        (_, _) => ".".to_owned(),
    };
    format!("warrend uses the queue as it is{what} Arguments of a queue that stands cannot be changed.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_compared_as_json() {
        let check = |value: HeaderValue, expect: &str| assert_eq!(to_json(&value).to_string(), expect);
        check(HeaderValue::I64(5), "5");
        check(HeaderValue::U8(5), "5");
        check(HeaderValue::Bool(true), "true");
        check(HeaderValue::Text("a".to_owned()), "\"a\"");
        check(HeaderValue::Array(vec![HeaderValue::I64(1), HeaderValue::Void]), "[1,null]");
        check(HeaderValue::Table([("a".to_owned(), HeaderValue::F64(1.5))].into()), "{\"a\":1.5}");
        assert_eq!(in_file(&Value::from(3_600_000), true), "\"1h\"");
        assert_eq!(in_file(&Value::from(7), false), "7");
    }
}
