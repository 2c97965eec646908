//! One dead letter as one line of JSON, from which it can be restored exactly.
//!
//! ```json
//! {"schema":1,"id":"7","body":"text","properties":{"message_id":"7"},"headers":{"x-n":{"type":"i64","value":1}}}
//! ```
//!
//! A body that is not UTF-8 stands as `body_base64`. Each header bears its AMQP type, because JSON's own types would make a
//! 64-bit number of every integer. Floats stand as text, which reads back to the last bit.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use crate::task::{HeaderValue, Headers, Message, Properties};

/// The version of the form. It grows only when a reader of the old one would go wrong.
const SCHEMA: u32 = 1;

/// A dead letter in its file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Line {
    schema: u32,
    /// For people; an import does not read it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    body: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    body_base64: Option<String>,
    #[serde(default)]
    properties: Fields,
    #[serde(default)]
    headers: BTreeMap<String, Typed>,
}

/// All properties but the headers; absent is absent.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Fields {
    #[serde(skip_serializing_if = "Option::is_none")]
    content_type: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content_encoding: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    delivery_mode: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    priority: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    correlation_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reply_to: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expiration: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timestamp: Option<u64>,
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    kind: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    app_id: Option<String>,
}

/// A header value that says what it is.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "type", content = "value", rename_all = "lowercase", deny_unknown_fields)]
enum Typed {
    Bool(bool),
    I8(i8),
    U8(u8),
    I16(i16),
    U16(u16),
    I32(i32),
    U32(u32),
    I64(i64),
    F32(String),
    F64(String),
    Decimal {
        scale: u8,
        value: u32,
    },
    Text(String),
    /// Base64.
    Bytes(String),
    Timestamp(u64),
    Array(Vec<Typed>),
    Table(BTreeMap<String, Typed>),
    Void,
}

impl Line {
    /// Of a letter, with the id that people know it by.
    pub fn of(id: Option<String>, message: &Message) -> Self {
        // Taken apart by name, so that a property added to the type cannot be forgotten here.
        let Properties {
            content_type,
            content_encoding,
            headers,
            delivery_mode,
            priority,
            correlation_id,
            reply_to,
            expiration,
            message_id,
            timestamp,
            kind,
            user_id,
            app_id,
        } = message.properties.clone();
        let (body, body_base64) = match std::str::from_utf8(&message.body) {
            Ok(text) => (Some(text.to_owned()), None),
            Err(_) => (None, Some(STANDARD.encode(&message.body))),
        };
        let properties = Fields {
            content_type,
            content_encoding,
            delivery_mode,
            priority,
            correlation_id,
            reply_to,
            expiration,
            message_id,
            timestamp,
            kind,
            user_id,
            app_id,
        };
        Self { schema: SCHEMA, id, body, body_base64, properties, headers: typed_table(&headers) }
    }

    /// Reads one line back: properties and body. The error is the end of a sentence.
    pub fn read(line: &[u8]) -> Result<(Properties, Vec<u8>), String> {
        let line: Self = serde_json::from_slice(line).map_err(|error| format!("it is no dead letter: {error}"))?;
        if line.schema != SCHEMA {
            return Err(format!("its schema is {}, and this warrend reads {SCHEMA}", line.schema));
        }
        let body = match (line.body, line.body_base64) {
            (Some(text), None) => text.into_bytes(),
            (None, Some(text)) => {
                STANDARD.decode(text).map_err(|error| format!("its body_base64 is broken: {error}"))?
            }
            (Some(_), Some(_)) | (None, None) => return Err("it needs one of body and body_base64".to_owned()),
        };
        let headers = untyped_table(line.headers)?;
        let Fields {
            content_type,
            content_encoding,
            delivery_mode,
            priority,
            correlation_id,
            reply_to,
            expiration,
            message_id,
            timestamp,
            kind,
            user_id,
            app_id,
        } = line.properties;
        let properties = Properties {
            content_type,
            content_encoding,
            headers,
            delivery_mode,
            priority,
            correlation_id,
            reply_to,
            expiration,
            message_id,
            timestamp,
            kind,
            user_id,
            app_id,
        };
        Ok((properties, body))
    }
}

/// A header value in its typed JSON form.
pub fn header_json(value: &HeaderValue) -> serde_json::Value {
    serde_json::to_value(typed(value)).expect("numbers, text and text-keyed maps always have a JSON form")
}

fn typed_table(headers: &Headers) -> BTreeMap<String, Typed> {
    headers.iter().map(|(name, value)| (name.clone(), typed(value))).collect()
}

fn typed(value: &HeaderValue) -> Typed {
    match value {
        HeaderValue::Bool(is) => Typed::Bool(*is),
        HeaderValue::I8(n) => Typed::I8(*n),
        HeaderValue::U8(n) => Typed::U8(*n),
        HeaderValue::I16(n) => Typed::I16(*n),
        HeaderValue::U16(n) => Typed::U16(*n),
        HeaderValue::I32(n) => Typed::I32(*n),
        HeaderValue::U32(n) => Typed::U32(*n),
        HeaderValue::I64(n) => Typed::I64(*n),
        // A NaN has bits of its own, which its name does not tell.
        HeaderValue::F32(n) if n.is_nan() => Typed::F32(format!("NaN:{:08x}", n.to_bits())),
        HeaderValue::F32(n) => Typed::F32(n.to_string()),
        HeaderValue::F64(n) if n.is_nan() => Typed::F64(format!("NaN:{:016x}", n.to_bits())),
        HeaderValue::F64(n) => Typed::F64(n.to_string()),
        HeaderValue::Decimal { scale, value } => Typed::Decimal { scale: *scale, value: *value },
        HeaderValue::Text(text) => Typed::Text(text.clone()),
        HeaderValue::Bytes(bytes) => Typed::Bytes(STANDARD.encode(bytes)),
        HeaderValue::Timestamp(seconds) => Typed::Timestamp(*seconds),
        HeaderValue::Array(values) => Typed::Array(values.iter().map(typed).collect()),
        HeaderValue::Table(table) => Typed::Table(typed_table(table)),
        HeaderValue::Void => Typed::Void,
    }
}

fn untyped_table(table: BTreeMap<String, Typed>) -> Result<Headers, String> {
    table.into_iter().map(|(name, value)| Ok((name, untyped(value)?))).collect()
}

fn untyped(value: Typed) -> Result<HeaderValue, String> {
    let no_number = |text: &str| format!("{text:?} is no number");
    Ok(match value {
        Typed::Bool(is) => HeaderValue::Bool(is),
        Typed::I8(n) => HeaderValue::I8(n),
        Typed::U8(n) => HeaderValue::U8(n),
        Typed::I16(n) => HeaderValue::I16(n),
        Typed::U16(n) => HeaderValue::U16(n),
        Typed::I32(n) => HeaderValue::I32(n),
        Typed::U32(n) => HeaderValue::U32(n),
        Typed::I64(n) => HeaderValue::I64(n),
        Typed::F32(text) => HeaderValue::F32(match text.strip_prefix("NaN:") {
            Some(bits) => f32::from_bits(u32::from_str_radix(bits, 16).map_err(|_| no_number(&text))?),
            None => text.parse().map_err(|_| no_number(&text))?,
        }),
        Typed::F64(text) => HeaderValue::F64(match text.strip_prefix("NaN:") {
            Some(bits) => f64::from_bits(u64::from_str_radix(bits, 16).map_err(|_| no_number(&text))?),
            None => text.parse().map_err(|_| no_number(&text))?,
        }),
        Typed::Decimal { scale, value } => HeaderValue::Decimal { scale, value },
        Typed::Text(text) => HeaderValue::Text(text),
        Typed::Bytes(text) => {
            HeaderValue::Bytes(STANDARD.decode(text).map_err(|error| format!("a header of bytes is broken: {error}"))?)
        }
        Typed::Timestamp(seconds) => HeaderValue::Timestamp(seconds),
        Typed::Array(values) => HeaderValue::Array(values.into_iter().map(untyped).collect::<Result<_, _>>()?),
        Typed::Table(table) => HeaderValue::Table(untyped_table(table)?),
        Typed::Void => HeaderValue::Void,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full() -> Message {
        let text = |text: &str| Some(text.to_owned());
        let values = [
            HeaderValue::Bool(true),
            HeaderValue::I8(i8::MIN),
            HeaderValue::U8(u8::MAX),
            HeaderValue::I16(i16::MIN),
            HeaderValue::U16(u16::MAX),
            HeaderValue::I32(i32::MIN),
            HeaderValue::U32(u32::MAX),
            HeaderValue::I64(i64::MIN),
            HeaderValue::F32(0.1),
            HeaderValue::F32(f32::NEG_INFINITY),
            HeaderValue::F64(f64::MIN_POSITIVE),
            HeaderValue::F64(5e-324),
            HeaderValue::F64(1.797_693_134_862_315_7e308),
            HeaderValue::Decimal { scale: 2, value: 314 },
            HeaderValue::Text("Straße\0\n".to_owned()),
            HeaderValue::Bytes(vec![0, 255, 10]),
            HeaderValue::Timestamp(u64::MAX),
            HeaderValue::Void,
            HeaderValue::Array(vec![]),
        ];
        let mut headers: Headers =
            values.into_iter().enumerate().map(|(index, value)| (index.to_string(), value)).collect();
        let table = HeaderValue::Table(headers.clone());
        headers.insert("array".to_owned(), HeaderValue::Array(vec![table.clone(), HeaderValue::Void]));
        headers.insert("table".to_owned(), table);
        Message {
            properties: Properties {
                content_type: text("text/plain"),
                content_encoding: text("gzip"),
                headers,
                delivery_mode: Some(2),
                priority: Some(255),
                correlation_id: text("correlation"),
                reply_to: text("reply"),
                expiration: text("60000"),
                message_id: text("id"),
                timestamp: Some(u64::MAX),
                kind: text("type"),
                user_id: text("guest"),
                app_id: text("app"),
            },
            body: "a body\n\u{2028}".into(),
            ..Message::default()
        }
    }

    #[test]
    fn a_letter_comes_back_as_it_was() {
        let binary = Message { body: vec![0, 159, 146, 150], ..Message::default() };
        for message in [full(), binary, Message::default()] {
            let line = serde_json::to_vec(&Line::of(None, &message)).unwrap();
            assert!(!line.contains(&b'\n'));
            assert_eq!(Line::read(&line), Ok((message.properties, message.body)));
        }
    }

    #[test]
    fn a_nan_keeps_its_bits() {
        let bits = 0x7ff8_0000_dead_beef;
        let headers = Headers::from([("nan".to_owned(), HeaderValue::F64(f64::from_bits(bits)))]);
        let message = Message { properties: Properties { headers, ..Properties::default() }, ..Message::default() };
        let line = serde_json::to_vec(&Line::of(None, &message)).unwrap();
        let headers = Line::read(&line).unwrap().0.headers;
        let HeaderValue::F64(back) = headers["nan"] else { panic!("{headers:?}") };
        assert_eq!(back.to_bits(), bits);
    }

    #[test]
    fn what_is_no_letter_is_refused() {
        let check = |line: &str, part: &str| {
            let error = Line::read(line.as_bytes()).expect_err(line);
            assert!(error.contains(part), "{line}: {error}");
        };
        check("", "no dead letter");
        check("{}", "schema");
        check(r#"{"schema":2,"body":""}"#, "its schema is 2");
        check(r#"{"schema":1}"#, "one of body");
        check(r#"{"schema":1,"body":"","body_base64":""}"#, "one of body");
        check(r#"{"schema":1,"body":"","surprise":1}"#, "surprise");
        check(r#"{"schema":1,"body":"","properties":{"ttl":1}}"#, "ttl");
        check(r#"{"schema":1,"body":"","headers":{"x":1}}"#, "no dead letter");
        check(r#"{"schema":1,"body":"","headers":{"x":{"type":"i8","value":300}}}"#, "no dead letter");
        check(r#"{"schema":1,"body":"","headers":{"x":{"type":"f64","value":"soon"}}}"#, "is no number");
        check(r#"{"schema":1,"body_base64":"%"}"#, "body_base64 is broken");
    }
}
