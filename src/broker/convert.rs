//! Properties and headers between our types and the library's.
//!
//! The library hands its properties out by reference only, so text is copied once on the way in; the body, the exchange
//! and the routing key are moved.

use std::mem;

use amiquip::{AmqpProperties, AmqpValue, Delivery, FieldTable};
use amq_protocol_types::DecimalValue;

use crate::task::{HeaderValue, Headers, Message, Properties};

/// The properties of a message that was delivered or returned.
pub(super) fn from_amqp(properties: &AmqpProperties) -> Properties {
    Properties {
        content_type: properties.content_type().clone(),
        content_encoding: properties.content_encoding().clone(),
        headers: properties.headers().as_ref().map(headers_from_amqp).unwrap_or_default(),
        delivery_mode: *properties.delivery_mode(),
        priority: *properties.priority(),
        correlation_id: properties.correlation_id().clone(),
        reply_to: properties.reply_to().clone(),
        expiration: properties.expiration().clone(),
        message_id: properties.message_id().clone(),
        timestamp: *properties.timestamp(),
        kind: properties.type_().clone(),
        user_id: properties.user_id().clone(),
        app_id: properties.app_id().clone(),
    }
}

/// Takes the message out of a delivery. What is left is small and serves to acknowledge it.
pub(super) fn take_message(delivery: &mut Delivery) -> Message {
    let properties = mem::take(&mut delivery.properties);
    Message {
        exchange: mem::take(&mut delivery.exchange),
        routing_key: mem::take(&mut delivery.routing_key),
        redelivered: delivery.redelivered,
        properties: from_amqp(&properties),
        body: mem::take(&mut delivery.body),
    }
}

/// The properties of a message to publish.
pub(super) fn to_amqp(properties: &Properties) -> AmqpProperties {
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
    } = properties;
    type Setter<T> = fn(AmqpProperties, T) -> AmqpProperties;
    fn set<T: Clone>(to: AmqpProperties, value: &Option<T>, with: Setter<T>) -> AmqpProperties {
        match value {
            Some(value) => with(to, value.clone()),
            None => to,
        }
    }
    let mut to = AmqpProperties::default();
    to = set(to, content_type, AmqpProperties::with_content_type);
    to = set(to, content_encoding, AmqpProperties::with_content_encoding);
    if !headers.is_empty() {
        to = to.with_headers(headers_to_amqp(headers));
    }
    to = set(to, delivery_mode, AmqpProperties::with_delivery_mode);
    to = set(to, priority, AmqpProperties::with_priority);
    to = set(to, correlation_id, AmqpProperties::with_correlation_id);
    to = set(to, reply_to, AmqpProperties::with_reply_to);
    to = set(to, expiration, AmqpProperties::with_expiration);
    to = set(to, message_id, AmqpProperties::with_message_id);
    to = set(to, timestamp, AmqpProperties::with_timestamp);
    to = set(to, kind, AmqpProperties::with_type_);
    to = set(to, user_id, AmqpProperties::with_user_id);
    set(to, app_id, AmqpProperties::with_app_id)
}

/// The x-arguments of a queue.
pub(super) fn arguments_to_amqp(arguments: &[(String, HeaderValue)]) -> FieldTable {
    arguments.iter().map(|(name, value)| (name.clone(), value_to_amqp(value))).collect()
}

fn headers_from_amqp(table: &FieldTable) -> Headers {
    table.iter().map(|(name, value)| (name.clone(), value_from_amqp(value))).collect()
}

fn headers_to_amqp(headers: &Headers) -> FieldTable {
    headers.iter().map(|(name, value)| (name.clone(), value_to_amqp(value))).collect()
}

fn value_from_amqp(value: &AmqpValue) -> HeaderValue {
    match value {
        AmqpValue::Boolean(is) => HeaderValue::Bool(*is),
        AmqpValue::ShortShortInt(n) => HeaderValue::I8(*n),
        AmqpValue::ShortShortUInt(n) => HeaderValue::U8(*n),
        AmqpValue::ShortInt(n) => HeaderValue::I16(*n),
        AmqpValue::ShortUInt(n) => HeaderValue::U16(*n),
        AmqpValue::LongInt(n) => HeaderValue::I32(*n),
        AmqpValue::LongUInt(n) => HeaderValue::U32(*n),
        AmqpValue::LongLongInt(n) => HeaderValue::I64(*n),
        AmqpValue::Float(n) => HeaderValue::F32(*n),
        AmqpValue::Double(n) => HeaderValue::F64(*n),
        AmqpValue::DecimalValue(n) => HeaderValue::Decimal { scale: n.scale, value: n.value },
        AmqpValue::LongString(text) => HeaderValue::Text(text.clone()),
        AmqpValue::FieldArray(values) => HeaderValue::Array(values.iter().map(value_from_amqp).collect()),
        AmqpValue::Timestamp(seconds) => HeaderValue::Timestamp(*seconds),
        AmqpValue::FieldTable(table) => HeaderValue::Table(headers_from_amqp(table)),
        AmqpValue::ByteArray(bytes) => HeaderValue::Bytes(bytes.clone()),
        AmqpValue::Void => HeaderValue::Void,
    }
}

fn value_to_amqp(value: &HeaderValue) -> AmqpValue {
    match value {
        HeaderValue::Bool(is) => AmqpValue::Boolean(*is),
        HeaderValue::I8(n) => AmqpValue::ShortShortInt(*n),
        HeaderValue::U8(n) => AmqpValue::ShortShortUInt(*n),
        HeaderValue::I16(n) => AmqpValue::ShortInt(*n),
        HeaderValue::U16(n) => AmqpValue::ShortUInt(*n),
        HeaderValue::I32(n) => AmqpValue::LongInt(*n),
        HeaderValue::U32(n) => AmqpValue::LongUInt(*n),
        HeaderValue::I64(n) => AmqpValue::LongLongInt(*n),
        HeaderValue::F32(n) => AmqpValue::Float(*n),
        HeaderValue::F64(n) => AmqpValue::Double(*n),
        HeaderValue::Decimal { scale, value } => AmqpValue::DecimalValue(DecimalValue { scale: *scale, value: *value }),
        HeaderValue::Text(text) => AmqpValue::LongString(text.clone()),
        HeaderValue::Bytes(bytes) => AmqpValue::ByteArray(bytes.clone()),
        HeaderValue::Timestamp(seconds) => AmqpValue::Timestamp(*seconds),
        HeaderValue::Array(values) => AmqpValue::FieldArray(values.iter().map(value_to_amqp).collect()),
        HeaderValue::Table(table) => AmqpValue::FieldTable(headers_to_amqp(table)),
        HeaderValue::Void => AmqpValue::Void,
    }
}

/// Every type of header value and every property, for the tests of this module and its neighbours.
#[cfg(test)]
pub(super) fn full_properties() -> Properties {
    let text = |text: &str| HeaderValue::Text(text.to_owned());
    let scalars = [
        ("bool", HeaderValue::Bool(true)),
        ("i8", HeaderValue::I8(i8::MIN)),
        ("u8", HeaderValue::U8(u8::MAX)),
        ("i16", HeaderValue::I16(i16::MIN)),
        ("u16", HeaderValue::U16(u16::MAX)),
        ("i32", HeaderValue::I32(i32::MIN)),
        ("u32", HeaderValue::U32(u32::MAX)),
        ("i64", HeaderValue::I64(i64::MIN)),
        ("f32", HeaderValue::F32(1.5)),
        ("f64", HeaderValue::F64(-0.25)),
        ("decimal", HeaderValue::Decimal { scale: 2, value: 314 }),
        ("text", text("Straße\0\n")),
        ("bytes", HeaderValue::Bytes(vec![0, 255, 10])),
        ("timestamp", HeaderValue::Timestamp(1_700_000_000)),
        ("void", HeaderValue::Void),
        ("empty", text("")),
    ];
    let mut headers: Headers = scalars.map(|(name, value)| (name.to_owned(), value)).into();
    let table = HeaderValue::Table(headers.clone());
    headers.insert("array".to_owned(), HeaderValue::Array(vec![table.clone(), text("after it")]));
    headers.insert("table".to_owned(), table);
    headers.insert("no values".to_owned(), HeaderValue::Array(Vec::new()));
    Properties {
        content_type: Some("text/plain".to_owned()),
        content_encoding: Some("gzip".to_owned()),
        headers,
        delivery_mode: Some(2),
        priority: Some(255),
        correlation_id: Some("correlation".to_owned()),
        reply_to: Some("reply".to_owned()),
        expiration: Some("60000".to_owned()),
        message_id: Some("id".to_owned()),
        timestamp: Some(1_700_000_000),
        kind: Some("type".to_owned()),
        user_id: Some("guest".to_owned()),
        app_id: Some("app".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_property_and_header_type_comes_back_as_it_went() {
        for properties in [full_properties(), Properties::default()] {
            assert_eq!(from_amqp(&to_amqp(&properties)), properties);
        }
    }

    #[test]
    fn each_type_has_its_own_letter_on_the_wire() {
        // The test above would not see two conversions that are wrong in the same way.
        let sent = to_amqp(&full_properties());
        let table = sent.headers().clone().expect("there are headers");
        let letters: String = ["bool", "i8", "u8", "i16", "u16", "i32", "u32", "i64", "f32", "f64"]
            .into_iter()
            .chain(["decimal", "text", "bytes", "timestamp", "array", "table", "void"])
            .map(|name| table[name].get_type().get_id())
            .collect();
        assert_eq!(letters, "tbBsuIilfdDSxTAFV");
    }

    #[test]
    fn without_headers_no_table_is_sent() {
        assert_eq!(to_amqp(&Properties::default()), AmqpProperties::default());
    }
}
