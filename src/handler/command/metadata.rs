//! What a program learns about its message: the environment for the common part, JSON on descriptor 3 for all of it.
//!
//! Header values on descriptor 3: booleans, integers, text, arrays and tables are what JSON calls them. Floats are
//! numbers, and the text `NaN`, `Infinity` or `-Infinity` where JSON has no number for them. A decimal is text with all
//! its digits (`"12.50"`), a timestamp is whole seconds since the Unix epoch, bytes are `{"base64": "…"}`, void is null.

use std::collections::BTreeMap;
use std::ffi::CString;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Serialize, Serializer};

use crate::handler::{Context, Input};
use crate::task::{HeaderValue, Headers, Task};

/// Longer values are left out of the environment: Linux refuses a variable above 128 KiB, and nothing in a message may
/// keep its program from starting. Only a key or a `traceparent` can be that long; every property is at most 255 bytes.
const MAX_VARIABLE: usize = 32 * 1024;

/// The variables that come from the message, as `NAME=value`.
///
/// What the message lacks is absent, and so is a value that an environment cannot hold (a NUL byte, or more than
/// 32 KiB); descriptor 3 has those too.
pub fn variables(context: &Context, task: &Task) -> Vec<CString> {
    let message = &task.message;
    let properties = &message.properties;
    let mut variables = Variables(Vec::with_capacity(16));
    variables.set("WARREND_JOB", &context.job);
    variables.set("WARREND_QUEUE", &context.queues[task.queue]);
    variables.set("WARREND_ATTEMPT", &task.attempt.to_string());
    variables.set("WARREND_MAX_ATTEMPTS", &context.max_attempts.to_string());
    variables.set("WARREND_REDELIVERED", if message.redelivered { "1" } else { "0" });
    variables.set("WARREND_PRIORITY", &task.priority.to_string());
    variables.set("WARREND_EXCHANGE", &message.exchange);
    variables.set("WARREND_ROUTING_KEY", &message.routing_key);
    variables.set_some("WARREND_KEY", task.key.as_ref().map(|key| key.to_text()).as_deref());
    variables.set_some("WARREND_MESSAGE_ID", properties.message_id.as_deref());
    variables.set_some("WARREND_CONTENT_TYPE", properties.content_type.as_deref());
    variables.set_some("WARREND_CORRELATION_ID", properties.correlation_id.as_deref());
    variables.set_some("WARREND_REPLY_TO", properties.reply_to.as_deref());
    variables.set_some("WARREND_TIMESTAMP", properties.timestamp.map(|seconds| seconds.to_string()).as_deref());
    variables.set_some("TRACEPARENT", properties.headers.get("traceparent").and_then(HeaderValue::as_text));
    variables.0
}

/// An environment under construction.
struct Variables(Vec<CString>);

impl Variables {
    fn set(&mut self, name: &str, value: &str) {
        if value.len() <= MAX_VARIABLE
            && let Ok(variable) = CString::new(format!("{name}={value}"))
        {
            self.0.push(variable);
        }
    }

    fn set_some(&mut self, name: &str, value: Option<&str>) {
        if let Some(value) = value {
            self.set(name, value);
        }
    }
}

/// The JSON object for descriptor 3, one line. Every field is always there; null is what the message lacks.
pub fn json(context: &Context, input: &Input<'_>) -> Vec<u8> {
    let task = input.task;
    let message = &task.message;
    let properties = &message.properties;
    let metadata = Metadata {
        job: &context.job,
        queue: &context.queues[task.queue],
        key: task.key.as_ref().map(|key| key.to_text()),
        attempt: task.attempt,
        max_attempts: context.max_attempts,
        redelivered: message.redelivered,
        priority: task.priority,
        exchange: &message.exchange,
        routing_key: &message.routing_key,
        message_id: properties.message_id.as_deref(),
        content_type: properties.content_type.as_deref(),
        content_encoding: input.content_encoding(),
        correlation_id: properties.correlation_id.as_deref(),
        reply_to: properties.reply_to.as_deref(),
        expiration: properties.expiration.as_deref(),
        timestamp: properties.timestamp,
        kind: properties.kind.as_deref(),
        user_id: properties.user_id.as_deref(),
        app_id: properties.app_id.as_deref(),
        delivery_mode: properties.delivery_mode,
        headers: Table(&properties.headers),
    };
    let mut line = serde_json::to_vec(&metadata).expect("text, numbers and text-keyed maps always have a JSON form");
    line.push(b'\n');
    line
}

#[derive(Serialize)]
struct Metadata<'a> {
    job: &'a str,
    queue: &'a str,
    key: Option<String>,
    attempt: u32,
    max_attempts: u32,
    redelivered: bool,
    priority: u8,
    exchange: &'a str,
    routing_key: &'a str,
    message_id: Option<&'a str>,
    content_type: Option<&'a str>,
    content_encoding: Option<&'a str>,
    correlation_id: Option<&'a str>,
    reply_to: Option<&'a str>,
    expiration: Option<&'a str>,
    timestamp: Option<u64>,
    #[serde(rename = "type")]
    kind: Option<&'a str>,
    user_id: Option<&'a str>,
    app_id: Option<&'a str>,
    delivery_mode: Option<u8>,
    headers: Table<'a>,
}

/// A header table in its JSON form. As deep as the message: the broker edge bounds that.
pub struct Table<'a>(pub &'a Headers);

impl Serialize for Table<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| (name, Value(value))))
    }
}

/// A header value in its JSON form.
struct Value<'a>(&'a HeaderValue);

impl Serialize for Value<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            HeaderValue::Bool(value) => serializer.serialize_bool(*value),
            HeaderValue::I8(value) => serializer.serialize_i8(*value),
            HeaderValue::U8(value) => serializer.serialize_u8(*value),
            HeaderValue::I16(value) => serializer.serialize_i16(*value),
            HeaderValue::U16(value) => serializer.serialize_u16(*value),
            HeaderValue::I32(value) => serializer.serialize_i32(*value),
            HeaderValue::U32(value) => serializer.serialize_u32(*value),
            HeaderValue::I64(value) => serializer.serialize_i64(*value),
            HeaderValue::F32(value) if value.is_finite() => serializer.serialize_f32(*value),
            HeaderValue::F32(value) => serializer.serialize_str(no_number((*value).into())),
            HeaderValue::F64(value) if value.is_finite() => serializer.serialize_f64(*value),
            HeaderValue::F64(value) => serializer.serialize_str(no_number(*value)),
            HeaderValue::Decimal { scale, value } => serializer.serialize_str(&decimal(*scale, *value)),
            HeaderValue::Text(text) => serializer.serialize_str(text),
            HeaderValue::Bytes(bytes) => BTreeMap::from([("base64", STANDARD.encode(bytes))]).serialize(serializer),
            HeaderValue::Timestamp(seconds) => serializer.serialize_u64(*seconds),
            HeaderValue::Array(values) => serializer.collect_seq(values.iter().map(Value)),
            HeaderValue::Table(table) => Table(table).serialize(serializer),
            HeaderValue::Void => serializer.serialize_unit(),
        }
    }
}

/// The name of a float that JSON has no number for, as JavaScript spells it.
fn no_number(value: f64) -> &'static str {
    match value {
        f64::INFINITY => "Infinity",
        f64::NEG_INFINITY => "-Infinity",
        _ => "NaN",
    }
}

/// All digits of a decimal: scale 2 and value 1250 are `12.50`.
fn decimal(scale: u8, value: u32) -> String {
    let scale = usize::from(scale);
    let digits = format!("{value:0>width$}", width = scale + 1);
    match scale {
        0 => digits,
        _ => {
            let (whole, fraction) = digits.split_at(digits.len() - scale);
            format!("{whole}.{fraction}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handler::command::tests::{context, task};
    use crate::task::MessageKey;

    fn as_text(variables: &[CString]) -> Vec<&str> {
        variables.iter().map(|variable| variable.to_str().unwrap()).collect()
    }

    #[test]
    fn every_property_has_its_variable() {
        let mut task = task(b"");
        task.key = Some(MessageKey::from_text("k=1\n2"));
        task.attempt = 3;
        task.priority = 7;
        task.message.redelivered = true;
        task.message.exchange = "media".into();
        task.message.routing_key = "image.new".into();
        let properties = &mut task.message.properties;
        properties.message_id = Some("m-1".into());
        properties.content_type = Some("image/png".into());
        properties.correlation_id = Some("c-1".into());
        properties.reply_to = Some("answers".into());
        properties.timestamp = Some(1_700_000_000);
        properties.headers.insert("traceparent".into(), HeaderValue::Text("00-aa-bb-01".into()));
        let mut found = variables(&context(), &task);
        found.sort();
        assert_eq!(
            as_text(&found),
            [
                "TRACEPARENT=00-aa-bb-01",
                "WARREND_ATTEMPT=3",
                "WARREND_CONTENT_TYPE=image/png",
                "WARREND_CORRELATION_ID=c-1",
                "WARREND_EXCHANGE=media",
                "WARREND_JOB=thumbnails",
                "WARREND_KEY=k=1\n2",
                "WARREND_MAX_ATTEMPTS=5",
                "WARREND_MESSAGE_ID=m-1",
                "WARREND_PRIORITY=7",
                "WARREND_QUEUE=thumbnails.urgent",
                "WARREND_REDELIVERED=1",
                "WARREND_REPLY_TO=answers",
                "WARREND_ROUTING_KEY=image.new",
                "WARREND_TIMESTAMP=1700000000",
            ]
        );
    }

    #[test]
    fn what_is_absent_or_no_variable_is_left_out() {
        let mut task = task(b"");
        task.message.routing_key = "nul\0inside".into();
        task.message.properties.message_id = Some("nul\0".into());
        task.key = Some(MessageKey::from_text(&"k".repeat(MAX_VARIABLE + 1)));
        task.message.properties.headers.insert("traceparent".into(), HeaderValue::I32(1));
        assert_eq!(
            as_text(&variables(&context(), &task)),
            [
                "WARREND_JOB=thumbnails",
                "WARREND_QUEUE=thumbnails.urgent",
                "WARREND_ATTEMPT=1",
                "WARREND_MAX_ATTEMPTS=5",
                "WARREND_REDELIVERED=0",
                "WARREND_PRIORITY=0",
                "WARREND_EXCHANGE=",
            ]
        );
    }

    #[test]
    fn every_header_type_has_one_json_form() {
        let table = |value: HeaderValue| Headers::from([("inner".to_owned(), value)]);
        let cases = [
            (HeaderValue::Bool(true), "true"),
            (HeaderValue::I8(-1), "-1"),
            (HeaderValue::U8(255), "255"),
            (HeaderValue::I16(-300), "-300"),
            (HeaderValue::U16(65535), "65535"),
            (HeaderValue::I32(i32::MIN), "-2147483648"),
            (HeaderValue::U32(u32::MAX), "4294967295"),
            (HeaderValue::I64(i64::MIN), "-9223372036854775808"),
            (HeaderValue::F32(0.1), "0.1"),
            (HeaderValue::F64(-2.5), "-2.5"),
            (HeaderValue::F32(f32::NAN), r#""NaN""#),
            (HeaderValue::F32(f32::NEG_INFINITY), r#""-Infinity""#),
            (HeaderValue::F64(f64::INFINITY), r#""Infinity""#),
            (HeaderValue::Decimal { scale: 0, value: 7 }, r#""7""#),
            (HeaderValue::Decimal { scale: 2, value: 1250 }, r#""12.50""#),
            (HeaderValue::Decimal { scale: 4, value: 5 }, r#""0.0005""#),
            (HeaderValue::Text("a\"\n\0é".into()), r#""a\"\n\u0000é""#),
            (HeaderValue::Bytes(vec![0, 255]), r#"{"base64":"AP8="}"#),
            (HeaderValue::Timestamp(u64::MAX), "18446744073709551615"),
            (HeaderValue::Array(vec![HeaderValue::Void, HeaderValue::I8(1)]), "[null,1]"),
            (HeaderValue::Table(table(HeaderValue::Bool(false))), r#"{"inner":false}"#),
            (HeaderValue::Void, "null"),
        ];
        for (value, expected) in cases {
            assert_eq!(serde_json::to_string(&Value(&value)).unwrap(), expected);
        }
    }
}
