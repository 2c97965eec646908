//! Any header, property and message that there can be, for tests that try many.

use std::collections::BTreeMap;

use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;

use super::{HeaderValue, Headers, Message, Properties};

/// Any value that a header table can hold, a few levels deep.
pub fn header_value() -> impl Strategy<Value = HeaderValue> {
    let leaf = prop_oneof![
        any::<bool>().prop_map(HeaderValue::Bool),
        any::<i8>().prop_map(HeaderValue::I8),
        any::<u8>().prop_map(HeaderValue::U8),
        any::<i16>().prop_map(HeaderValue::I16),
        any::<u16>().prop_map(HeaderValue::U16),
        any::<i32>().prop_map(HeaderValue::I32),
        any::<u32>().prop_map(HeaderValue::U32),
        prop_oneof![-3_i64..10, any::<i64>()].prop_map(HeaderValue::I64),
        // By their bits, so that no NaN is left out.
        any::<u32>().prop_map(|bits| HeaderValue::F32(f32::from_bits(bits))),
        any::<u64>().prop_map(|bits| HeaderValue::F64(f64::from_bits(bits))),
        (any::<u8>(), any::<u32>()).prop_map(|(scale, value)| HeaderValue::Decimal { scale, value }),
        prop_oneof![any::<String>(), "[0-9]{1,25}", "-?[0-9]"].prop_map(HeaderValue::Text),
        vec(any::<u8>(), 0..40).prop_map(HeaderValue::Bytes),
        any::<u64>().prop_map(HeaderValue::Timestamp),
        Just(HeaderValue::Void),
    ];
    leaf.prop_recursive(4, 24, 5, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..5).prop_map(HeaderValue::Array),
            btree_map(short_text(), inner, 0..5).prop_map(HeaderValue::Table),
        ]
    })
}

/// What AMQP calls a short string: text of at most 255 bytes.
pub fn short_text() -> impl Strategy<Value = String> {
    prop_oneof![any::<String>(), "[a-z.]{0,12}", ".{200,300}"].prop_map(|mut text| {
        text.truncate(text.floor_char_boundary(255));
        text
    })
}

/// A header table in which each of `names` stands every other time, and which has others besides.
pub fn headers(names: &'static [&'static str]) -> impl Strategy<Value = Headers> {
    let named = names.iter().map(|name| option::of(header_value().prop_map(|value| ((*name).to_owned(), value))));
    let others = btree_map(short_text(), header_value(), 0..5);
    (named.collect::<Vec<_>>(), others).prop_map(|(named, mut others): (Vec<_>, BTreeMap<_, _>)| {
        others.extend(named.into_iter().flatten());
        others
    })
}

/// A message with any properties and such headers.
pub fn message(names: &'static [&'static str]) -> impl Strategy<Value = Message> {
    let text = || option::of(short_text());
    let texts = (text(), text(), text(), text(), text(), text(), text(), text(), text());
    let numbers = (option::of(any::<u8>()), option::of(any::<u8>()), option::of(any::<u64>()));
    let places = (short_text(), short_text(), any::<bool>());
    let body = prop_oneof![vec(any::<u8>(), 0..100), any::<String>().prop_map(String::into_bytes)];
    (texts, numbers, headers(names), places, body).prop_map(|(texts, numbers, headers, places, body)| {
        let (content_type, content_encoding, correlation_id, reply_to, expiration, ..) = texts.clone();
        let (.., message_id, kind, user_id, app_id) = texts;
        let (delivery_mode, priority, timestamp) = numbers;
        let (exchange, routing_key, redelivered) = places;
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
        Message { exchange, routing_key, redelivered, properties, body }
    })
}
