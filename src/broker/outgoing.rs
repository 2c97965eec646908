//! A message on its way out, and what is refused before it is sent.

use std::sync::Arc;

use super::connect::FRAME_MAX;
use crate::task::{HeaderValue, Headers, Properties, Task, table_size};

/// A message to publish.
#[derive(Debug, Clone)]
pub struct Outgoing {
    /// Empty for the default exchange.
    pub exchange: String,
    /// The name of the queue, for the default exchange.
    pub routing_key: String,
    /// Properties and headers.
    pub properties: Properties,
    /// The body.
    pub body: Body,
}

/// Where the bytes of a body live. Neither kind is copied before it is sent.
#[derive(Debug, Clone)]
pub enum Body {
    /// The body of a task.
    Task(Arc<Task>),
    /// Bytes of their own.
    Bytes(Arc<[u8]>),
}

impl Body {
    pub(super) fn bytes(&self) -> &[u8] {
        match self {
            Self::Task(task) => &task.message.body,
            Self::Bytes(bytes) => bytes,
        }
    }
}

/// Longest text in AMQP's short form, in bytes: names, keys and all text properties.
const SHORT: usize = 255;

/// Bytes around the properties in a content header frame: the frame's own 8, class, weight, body size, property flags.
const HEADER_FRAME: usize = 8 + 2 + 2 + 8 + 2;

/// How the name of a queue begins that stands for the connection of somebody who waits for a reply.
const DIRECT_REPLY: &str = "amq.rabbitmq.reply-to.";

impl Outgoing {
    /// Whether the broker must give the message back where no queue takes it. A reply straight to its caller is for no queue
    /// at all: RabbitMQ would give every one back (its guide on direct reply-to says so).
    pub(super) fn is_mandatory(&self) -> bool {
        !(self.exchange.is_empty() && self.routing_key.starts_with(DIRECT_REPLY))
    }

    /// Whether the message fits into frames. One that does not would cost the whole connection: the library writes the
    /// length of a short text modulo 256, and the broker hangs up on a content header that is larger than a frame.
    ///
    /// The error is a sentence for people. A broker that has settled for frames smaller than its default refuses more; the
    /// copies of a job keep to that: see [`crate::policy::retry::header_room`].
    pub fn check(&self) -> Result<(), String> {
        let properties = &self.properties;
        let short_texts = [
            ("the exchange", Some(&self.exchange)),
            ("the routing key", Some(&self.routing_key)),
            ("content_type", properties.content_type.as_ref()),
            ("content_encoding", properties.content_encoding.as_ref()),
            ("correlation_id", properties.correlation_id.as_ref()),
            ("reply_to", properties.reply_to.as_ref()),
            ("expiration", properties.expiration.as_ref()),
            ("message_id", properties.message_id.as_ref()),
            ("type", properties.kind.as_ref()),
            ("user_id", properties.user_id.as_ref()),
            ("app_id", properties.app_id.as_ref()),
        ];
        let mut size = HEADER_FRAME;
        for (name, text) in short_texts {
            let length = text.map_or(0, |text| text.len());
            if length > SHORT {
                return Err(format!("{name} has {length} bytes, and AMQP allows {SHORT}"));
            }
            size += 1 + length;
        }
        if let Some(name) = long_header_name(&properties.headers) {
            let length = name.len();
            return Err(format!("a header's name has {length} bytes, and AMQP allows {SHORT}"));
        }
        // Delivery mode, priority, timestamp; absent properties are counted too, which errs on the safe side.
        size += 1 + 1 + 8 + table_size(&properties.headers);
        if size > FRAME_MAX as usize {
            return Err(format!("its properties and headers take {size} bytes, and a frame holds {FRAME_MAX}"));
        }
        Ok(())
    }
}

fn long_header_name(headers: &Headers) -> Option<&String> {
    headers.iter().find_map(|(name, value)| if name.len() > SHORT { Some(name) } else { long_name_within(value) })
}

fn long_name_within(value: &HeaderValue) -> Option<&String> {
    if let HeaderValue::Table(headers) = value {
        return long_header_name(headers);
    }
    let HeaderValue::Array(values) = value else { return None };
    values.iter().find_map(long_name_within)
}

#[cfg(test)]
mod tests {
    use amq_protocol_types::generation::gen_field_table;

    use super::*;
    use crate::broker::convert::{full_properties, to_amqp};

    fn outgoing(properties: Properties) -> Outgoing {
        Outgoing {
            exchange: String::new(),
            routing_key: "thumbs".to_owned(),
            properties,
            body: Body::Bytes(Arc::from(&b"body"[..])),
        }
    }

    fn check(change: impl FnOnce(&mut Outgoing), expected: Result<(), &str>) {
        let mut message = outgoing(full_properties());
        change(&mut message);
        assert_eq!(message.check().as_ref().map_err(String::as_str).copied(), expected);
    }

    #[test]
    fn the_size_of_a_table_is_what_the_library_writes() {
        let sent = to_amqp(&full_properties());
        let table = sent.headers().clone().unwrap();
        let mut buffer = vec![0; 4096];
        let (_, written) = gen_field_table((&mut buffer, 0), &table).unwrap();
        assert_eq!(table_size(&full_properties().headers), written);
    }

    #[test]
    fn what_fits_is_let_through() {
        check(|_| {}, Ok(()));
        check(|message| message.routing_key = "k".repeat(255), Ok(()));
        let text = HeaderValue::Text("x".repeat(100_000));
        check(|message| drop(message.properties.headers.insert("x".to_owned(), text)), Ok(()));
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        check(
            |message| message.routing_key = "k".repeat(256),
            Err("the routing key has 256 bytes, and AMQP allows 255"),
        );
        check(
            |message| message.properties.message_id = Some("ü".repeat(150)),
            Err("message_id has 300 bytes, and AMQP allows 255"),
        );
        let inner = Headers::from([("n".repeat(300), HeaderValue::Void)]);
        let nested = HeaderValue::Array(vec![HeaderValue::Table(inner)]);
        check(
            |message| drop(message.properties.headers.insert("x".to_owned(), nested)),
            Err("a header's name has 300 bytes, and AMQP allows 255"),
        );
    }

    #[test]
    fn headers_larger_than_a_frame_are_refused_to_the_byte() {
        let mut message = outgoing(Properties::default());
        let empty = HEADER_FRAME + 11 + "thumbs".len() + 10 + 4;
        // A header of a name of one byte and a text: 2 for the name, 5 for the text's type and length.
        let room = FRAME_MAX as usize - empty - 7;
        for (length, fits) in [(room, true), (room + 1, false)] {
            let text = HeaderValue::Text("x".repeat(length));
            message.properties.headers.insert("x".to_owned(), text);
            assert_eq!(message.check().is_ok(), fits, "{length} bytes of text");
        }
    }
}
