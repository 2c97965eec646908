//! One dead letter as one line of JSON, from which it can be restored exactly.
//!
//! ```json
//! {"schema":1,"id":"7","body":"text","properties":{"message_id":"7"},"headers":{"x-n":{"type":"i64","value":1}}}
//! ```
//!
//! A body that is not UTF-8 stands as `body_base64`. Each header bears its AMQP type, see [`HeaderValue`].

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
    properties: Properties,
    #[serde(default)]
    headers: Headers,
}

impl Line {
    /// Of a letter, with the id that people know it by.
    pub fn of(id: Option<String>, message: &Message) -> Self {
        let (body, body_base64) = match std::str::from_utf8(&message.body) {
            Ok(text) => (Some(text.to_owned()), None),
            Err(_) => (None, Some(STANDARD.encode(&message.body))),
        };
        let mut properties = message.properties.clone();
        let headers = std::mem::take(&mut properties.headers);
        Self { schema: SCHEMA, id, body, body_base64, properties, headers }
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
        let properties = Properties { headers: line.headers, ..line.properties };
        Ok((properties, body))
    }
}

/// A header value in its typed JSON form.
pub fn header_json(value: &HeaderValue) -> serde_json::Value {
    serde_json::to_value(value).expect("numbers, text and text-keyed maps always have a JSON form")
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

    /// Any letter there can be, and any line that a person may bring.
    mod fuzz {
        use proptest::prelude::*;

        use super::*;
        use crate::task::any;

        proptest! {
            #[test]
            fn a_letter_comes_back_to_the_last_bit(message in any::message(&["x-warrend-dead"]), id in any::<Option<String>>()) {
                let line = serde_json::to_vec(&Line::of(id, &message)).unwrap();
                prop_assert!(!line.contains(&b'\n') && !line.contains(&b'\r'));
                let (properties, body) = Line::read(&line).unwrap();
                prop_assert_eq!(&body, &message.body);
                // A NaN is not equal to itself, but is written the same.
                let again = Line::of(None, &Message { properties, body, ..Message::default() });
                let first = Line::of(None, &message);
                prop_assert_eq!(serde_json::to_string(&again).unwrap(), serde_json::to_string(&first).unwrap());
            }

            #[test]
            fn a_line_that_was_changed_is_read_or_refused(
                message in any::message(&[]),
                changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..3_u8), 1..6),
            ) {
                let mut line = serde_json::to_vec(&Line::of(None, &message)).unwrap();
                for (at, byte, how) in changes {
                    let at = at.index(line.len());
                    match how {
                        0 => line[at] = byte,
                        1 => line.insert(at, byte),
                        _ => line.truncate(at + 1),
                    }
                }
                if let Err(why) = Line::read(&line) {
                    prop_assert!(!why.is_empty() && !why.contains('\n'), "{}", why);
                }
            }

            #[test]
            fn any_bytes_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
                prop_assert!(Line::read(&bytes).is_err());
            }
        }

        /// Far deeper than a letter of ours: the reader stops before its stack does.
        #[test]
        fn headers_nested_without_end_are_refused() {
            let deep = format!("{{\"type\":\"array\",\"value\":[{}", "{\"type\":\"array\",\"value\":[".repeat(100_000));
            let line = format!("{{\"schema\":1,\"body\":\"\",\"headers\":{{\"x\":{deep}");
            let why = Line::read(line.as_bytes()).unwrap_err();
            assert!(why.contains("recursion limit"), "{why}");
        }
    }
}
