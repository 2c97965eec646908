//! Methods: what a broker may send, and what becomes of texts and tables in it that the library could not read.

use super::Violation;
use super::bounds::Bounds;
use super::printable;
use crate::broker::error::{Closed, one_line};

/// Longest text in AMQP's short form, in bytes.
const SHORT: usize = 255;

/// One argument of a method, or a run of them that are numbers.
#[derive(Clone, Copy)]
enum Field {
    /// So many bytes.
    Bytes(usize),
    Short,
    /// A short string that belongs to the message which follows on the same channel.
    OfMessage(&'static str),
    Long,
    Table,
}

use Field::{Bytes, Long, OfMessage, Short, Table};

/// The arguments of each method that a broker sends to a client; `None` for all others. From the specification's XML
/// (amqp0-9-1.extended.xml).
fn arguments(class: u16, method: u16) -> Option<&'static [Field]> {
    const EXCHANGE: Field = OfMessage("exchange");
    const ROUTING_KEY: Field = OfMessage("routing key");
    Some(match (class, method) {
        // connection: start, secure, tune, open-ok, close, close-ok, blocked, unblocked
        (10, 10) => &[Bytes(2), Table, Long, Long],
        (10, 20) => &[Long],
        (10, 30) => &[Bytes(8)],
        (10, 41) => &[Short],
        (10, 50) => &[Bytes(2), Short, Bytes(4)],
        (10, 51 | 61) => &[],
        (10, 60) => &[Short],
        // channel: open-ok, flow and flow-ok, close, close-ok
        (20, 11) => &[Long],
        (20, 20 | 21) => &[Bytes(1)],
        (20, 40) => &[Bytes(2), Short, Bytes(4)],
        (20, 41) => &[],
        // exchange: declare-ok, delete-ok, bind-ok, unbind-ok
        (40, 11 | 21 | 31 | 51) => &[],
        // queue: declare-ok, bind-ok, purge-ok, delete-ok, unbind-ok
        (50, 11) => &[Short, Bytes(8)],
        (50, 21 | 51) => &[],
        (50, 31 | 41) => &[Bytes(4)],
        // basic: qos-ok, consume-ok, cancel, cancel-ok
        (60, 11) => &[],
        (60, 21 | 31) => &[Short],
        (60, 30) => &[Short, Bytes(1)],
        // basic: return, deliver, get-ok, get-empty
        (60, 50) => &[Bytes(2), Short, EXCHANGE, ROUTING_KEY],
        (60, 60) => &[Short, Bytes(9), EXCHANGE, ROUTING_KEY],
        (60, 71) => &[Bytes(9), EXCHANGE, ROUTING_KEY, Bytes(4)],
        (60, 72) => &[Short],
        // basic: ack, nack, recover-ok; confirm: select-ok
        (60, 80 | 120) => &[Bytes(9)],
        (60, 111) | (85, 11) => &[],
        _ => return None,
    })
}

/// A method frame after it was judged.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Judged {
    /// It passes as it is.
    Sound,
    /// This payload takes its place, and what was wrong with it belongs to the message that follows.
    Mended(Vec<u8>, Vec<Flaw>),
}

/// A name that came with a message and is not UTF-8.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Flaw {
    /// `exchange` or `routing key`.
    pub(super) what: &'static str,
    /// As it came.
    pub(super) bytes: Vec<u8>,
}

/// One argument, with its length where it has one.
struct Argument<'p> {
    field: Field,
    bytes: &'p [u8],
}

/// What becomes of a method.
pub(super) fn judge(payload: &[u8]) -> Result<Judged, Violation> {
    let mut all_sound = true;
    for argument in read(payload)? {
        all_sound &= argument?.is_sound();
    }
    if all_sound { Ok(Judged::Sound) } else { mended(payload) }
}

/// The largest frame that the broker takes, where it says that; 0: of any size.
pub(super) fn tuned(payload: &[u8]) -> Option<u32> {
    // Behind the most channels.
    payload.strip_prefix(&[0, 10, 0, 30])?.get(2..)?.first_chunk().map(|size| u32::from_be_bytes(*size))
}

/// Why the broker says goodbye, where that is what it does.
pub(super) fn closed(payload: &[u8]) -> Option<Closed> {
    let [code @ .., length] = payload.strip_prefix(&[0, 10, 0, 50])?.first_chunk::<3>()?;
    let text = payload.get(7..7 + usize::from(*length))?;
    Some(Closed { code: u16::from_be_bytes(*code), text: one_line(&String::from_utf8_lossy(text)) })
}

/// The arguments of a method, up to the first that is cut off.
fn read(payload: &[u8]) -> Result<impl Iterator<Item = Result<Argument<'_>, Violation>>, Violation> {
    let (ids, mut rest) = payload.split_first_chunk::<4>().ok_or(Violation::CutFrame)?;
    let [class, method] = [[ids[0], ids[1]], [ids[2], ids[3]]].map(u16::from_be_bytes);
    let fields = arguments(class, method).ok_or(Violation::UnknownMethod { class, method })?;
    Ok(fields.iter().map(move |field| {
        let size = match field {
            Bytes(size) => Some(*size),
            Short | OfMessage(_) => rest.first().map(|length| 1 + usize::from(*length)),
            Long | Table => rest.first_chunk().map(|length| 4 + u32::from_be_bytes(*length) as usize),
        };
        let (bytes, after) = size.and_then(|size| rest.split_at_checked(size)).ok_or(Violation::CutFrame)?;
        rest = after;
        Ok(Argument { field: *field, bytes })
    }))
}

impl Argument<'_> {
    fn is_sound(&self) -> bool {
        match self.field {
            Bytes(_) => true,
            Short | OfMessage(_) => std::str::from_utf8(&self.bytes[1..]).is_ok(),
            Long => std::str::from_utf8(&self.bytes[4..]).is_ok(),
            Table => Bounds::default().hold(&self.bytes[4..]),
        }
    }
}

/// The method with every text made printable, and every table without what is not sound.
fn mended(payload: &[u8]) -> Result<Judged, Violation> {
    let mut mended = payload[..4].to_vec();
    let mut flaws = Vec::new();
    for argument in read(payload)? {
        let Argument { field, bytes } = argument?;
        match field {
            Bytes(_) => mended.extend_from_slice(bytes),
            Short | OfMessage(_) => {
                let content = &bytes[1..];
                let text = printable_name(content);
                if let OfMessage(what) = field
                    && text.as_bytes() != content
                {
                    flaws.push(Flaw { what, bytes: content.to_vec() });
                }
                mended.push(u8::try_from(text.len()).expect("it was cut"));
                mended.extend_from_slice(text.as_bytes());
            }
            Long => {
                let text = String::from_utf8_lossy(&bytes[4..]);
                mended.extend(length(text.len()));
                mended.extend_from_slice(text.as_bytes());
            }
            Table => {
                let table = Bounds::default().sound(&bytes[4..]);
                mended.extend(length(table.len()));
                mended.extend(table);
            }
        }
    }
    Ok(Judged::Mended(mended, flaws))
}

/// The text as it came, where it is text.
fn printable_name(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => {
            let mut text = printable::text(bytes, usize::MAX);
            text.truncate(text.floor_char_boundary(SHORT));
            text
        }
    }
}

fn length(bytes: usize) -> [u8; 4] {
    u32::try_from(bytes).expect("a frame is small").to_be_bytes()
}
