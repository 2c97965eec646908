//! The header table of a message, how many bytes it takes, and its form in JSON.

use serde::{Deserialize, Serialize};

/// A value in a header table, with the types that RabbitMQ knows, so that a copy keeps what it was given.
///
/// In JSON it is `{"type":"i64","value":1}`, because JSON's own types would make a 64-bit number of every integer. Floats
/// stand as text, which reads back to the last bit, and bytes as base64.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", content = "value", rename_all = "lowercase", deny_unknown_fields)]
pub enum HeaderValue {
    /// `t`
    Bool(bool),
    /// `b`
    I8(i8),
    /// `B`
    U8(u8),
    /// `s`
    I16(i16),
    /// `u`
    U16(u16),
    /// `I`
    I32(i32),
    /// `i`
    U32(u32),
    /// `l`
    I64(i64),
    /// `f`
    F32(#[serde(with = "exact::f32")] f32),
    /// `d`
    F64(#[serde(with = "exact::f64")] f64),
    /// `D`: the value divided by ten to the power of the scale.
    Decimal {
        /// Number of decimal places.
        scale: u8,
        /// The digits.
        value: u32,
    },
    /// `S`
    Text(String),
    /// `x`
    Bytes(#[serde(with = "exact::base64")] Vec<u8>),
    /// `T`: seconds since the Unix epoch.
    Timestamp(u64),
    /// `A`
    Array(Vec<HeaderValue>),
    /// `F`
    Table(Headers),
    /// `V`
    Void,
}

impl HeaderValue {
    /// The value as a whole number, where it is one of the integer types.
    pub fn as_integer(&self) -> Option<i64> {
        match *self {
            Self::I8(n) => Some(n.into()),
            Self::U8(n) => Some(n.into()),
            Self::I16(n) => Some(n.into()),
            Self::U16(n) => Some(n.into()),
            Self::I32(n) => Some(n.into()),
            Self::U32(n) => Some(n.into()),
            Self::I64(n) => Some(n),
            Self::Bool(_)
            | Self::F32(_)
            | Self::F64(_)
            | Self::Decimal { .. }
            | Self::Text(_)
            | Self::Bytes(_)
            | Self::Timestamp(_)
            | Self::Array(_)
            | Self::Table(_)
            | Self::Void => None,
        }
    }

    /// The value as text, where it is text.
    pub fn as_text(&self) -> Option<&str> {
        if let Self::Text(text) = self { Some(text) } else { None }
    }
}

/// A header table, sorted by name (the broker library does not keep the sent order).
pub type Headers = std::collections::BTreeMap<String, HeaderValue>;

/// Bytes of a header table on the wire (AMQP 0-9-1, section 4.2.5), its length field included.
pub fn table_size(headers: &Headers) -> usize {
    4 + headers.iter().map(|(name, value)| entry_size(name, value)).sum::<usize>()
}

/// Bytes of one header in its table on the wire.
pub fn entry_size(name: &str, value: &HeaderValue) -> usize {
    1 + name.len() + value_size(value)
}

/// Bytes of a value on the wire, its type letter included.
fn value_size(value: &HeaderValue) -> usize {
    1 + match value {
        HeaderValue::Void => 0,
        HeaderValue::Bool(_) | HeaderValue::I8(_) | HeaderValue::U8(_) => 1,
        HeaderValue::I16(_) | HeaderValue::U16(_) => 2,
        HeaderValue::I32(_) | HeaderValue::U32(_) | HeaderValue::F32(_) => 4,
        HeaderValue::Decimal { .. } => 5,
        HeaderValue::I64(_) | HeaderValue::F64(_) | HeaderValue::Timestamp(_) => 8,
        HeaderValue::Text(text) => 4 + text.len(),
        HeaderValue::Bytes(bytes) => 4 + bytes.len(),
        HeaderValue::Array(values) => 4 + values.iter().map(value_size).sum::<usize>(),
        HeaderValue::Table(table) => table_size(table),
    }
}

/// JSON forms that lose nothing.
mod exact {
    /// A float as text. A NaN has bits of its own, which its name does not tell: they stand in hexadecimal.
    macro_rules! float {
        ($float:ident, $bits:ident) => {
            pub mod $float {
                use std::borrow::Cow;

                use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

                pub fn serialize<S: Serializer>(n: &$float, to: S) -> Result<S::Ok, S::Error> {
                    match n.is_nan() {
                        true => to.collect_str(&format_args!("NaN:{:x}", n.to_bits())),
                        false => to.collect_str(n),
                    }
                }

                pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<$float, D::Error> {
                    let text = Cow::<str>::deserialize(from)?;
                    let read = match text.strip_prefix("NaN:") {
                        Some(bits) => $bits::from_str_radix(bits, 16).ok().map($float::from_bits),
                        None => text.parse().ok(),
                    };
                    read.ok_or_else(|| D::Error::custom(format_args!("{text:?} is no number")))
                }
            }
        };
    }

    float!(f32, u32);
    float!(f64, u64);

    /// Bytes.
    pub mod base64 {
        use std::borrow::Cow;

        use base64::Engine as _;
        use base64::engine::general_purpose::STANDARD;
        use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

        pub fn serialize<S: Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
            to.serialize_str(&STANDARD.encode(bytes))
        }

        pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
            STANDARD.decode(&*Cow::<str>::deserialize(from)?).map_err(D::Error::custom)
        }
    }
}
