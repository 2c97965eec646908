//! Content headers: the properties and headers of a message, judged before the library sees them.
//!
//! A sound one passes as it is. In any other the damaged properties and headers are replaced by two headers of ours, which
//! say what was wrong and what stood there; everything that is sound stays. So the message arrives, is recognised by
//! `policy::arrive` and dead-lettered, and its body is not touched.
//!
//! A publisher may send these headers too: then its message is dead-lettered as if it were damaged, and no other.

use super::Violation;
use super::bounds::Bounds;
use super::method::Flaw;
use super::printable::{quoted, raw, text};
use super::table::{Entries, Entry};
use crate::policy::retry::header;

/// The largest body that a message may announce: the library reserves as much memory at once. RabbitMQ allows no more than
/// 512 MiB, and before 3.8 no more than this.
const LARGEST_BODY: u64 = i32::MAX as u64;

/// Longest account of one damaged part, and of all.
const PART_ROOM: usize = 1024;
const KEPT_ROOM: usize = 8 << 10;
/// Longest name in a sentence.
const NAME_ROOM: usize = 64;

/// Bytes before the properties: class, weight, size of the body; then the flags.
const FIXED: usize = 12;

/// The properties in the order of their flags, from the highest bit (AMQP 0-9-1, class `basic`).
const PROPERTIES: [(&str, Kind); 14] = [
    ("content_type", Kind::Text),
    ("content_encoding", Kind::Text),
    ("headers", Kind::Table),
    ("delivery_mode", Kind::Number(1)),
    ("priority", Kind::Number(1)),
    ("correlation_id", Kind::Text),
    ("reply_to", Kind::Text),
    ("expiration", Kind::Text),
    ("message_id", Kind::Text),
    ("timestamp", Kind::Number(8)),
    ("type", Kind::Text),
    ("user_id", Kind::Text),
    ("app_id", Kind::Text),
    ("cluster_id", Kind::Text),
];
/// Where the header table stands among them, and its bit.
const HEADERS_AT: usize = 2;
const HEADERS: u16 = 1 << (15 - HEADERS_AT);
/// The bits that are no property: one is not assigned, the other says that more flags follow, which nobody has ever defined.
const NO_PROPERTY: u16 = 0b11;

#[derive(Clone, Copy)]
enum Kind {
    /// A short string.
    Text,
    /// A header table.
    Table,
    /// So many bytes.
    Number(usize),
}

/// What becomes of a content header. `flaws` is what was wrong with the method frame before it.
///
/// `None`: it passes as it is. Otherwise the payload that takes its place.
pub(super) fn judge(payload: &[u8], flaws: &[Flaw]) -> Result<Option<Vec<u8>>, Violation> {
    let (fixed, rest) = payload.split_at_checked(FIXED).ok_or(Violation::CutFrame)?;
    let (flags, rest) = rest.split_first_chunk().ok_or(Violation::CutFrame)?;
    let flags = u16::from_be_bytes(*flags);
    let size = fixed[4..].iter().fold(0, |size, byte| size << 8 | u64::from(*byte));
    if size > LARGEST_BODY {
        return Err(Violation::LargeBody { size });
    }
    if flaws.is_empty() && flags & NO_PROPERTY == 0 && properties(flags, rest).all(|property| property.is_sound()) {
        return Ok(None);
    }
    Ok(Some(Mended::new(flags, rest, flaws).payload(fixed)))
}

/// One property that the flags say is there.
struct Property<'p> {
    at: usize,
    /// With its length, where it has one.
    bytes: &'p [u8],
    /// Whether all of it is there.
    whole: bool,
}

/// The properties that the flags announce. One that is cut off is the last.
fn properties(flags: u16, mut rest: &[u8]) -> impl Iterator<Item = Property<'_>> {
    let announced = (0..PROPERTIES.len()).filter(move |at| flags & (1 << (15 - at)) != 0);
    let mut cut = false;
    announced.map_while(move |at| {
        if cut {
            return None;
        }
        let size = match PROPERTIES[at].1 {
            Kind::Text => rest.first().map(|length| 1 + usize::from(*length)),
            Kind::Table => rest.first_chunk().map(|length| 4 + u32::from_be_bytes(*length) as usize),
            Kind::Number(size) => Some(size),
        };
        let split = size.and_then(|size| rest.split_at_checked(size));
        cut = split.is_none();
        let (bytes, after) = split.unwrap_or((rest, &[]));
        rest = after;
        Some(Property { at, bytes, whole: !cut })
    })
}

impl<'p> Property<'p> {
    fn is_sound(&self) -> bool {
        self.whole
            && match PROPERTIES[self.at].1 {
                Kind::Text => std::str::from_utf8(&self.bytes[1..]).is_ok(),
                Kind::Table => Bounds::default().hold(&self.bytes[4..]),
                Kind::Number(_) => true,
            }
    }

    /// What there is of it, without its length.
    fn content(&self) -> &'p [u8] {
        let length = match PROPERTIES[self.at].1 {
            Kind::Text => 1,
            Kind::Table => 4,
            Kind::Number(_) => 0,
        };
        self.bytes.get(length..).unwrap_or_default()
    }
}

/// A content header that is being mended.
struct Mended {
    flags: u16,
    /// What stands before the headers, the sound headers, and what stands behind them.
    before: Vec<u8>,
    headers: Vec<u8>,
    after: Vec<u8>,
    damage: Damage,
}

/// What is told of what was wrong.
#[derive(Default)]
struct Damage {
    /// The first fault, as a sentence, and how many there are.
    first: String,
    count: usize,
    kept: Vec<String>,
    size: usize,
}

impl Mended {
    fn new(flags: u16, rest: &[u8], flaws: &[Flaw]) -> Self {
        let (before, headers, after) = Default::default();
        let mut mended = Self { flags: HEADERS, before, headers, after, damage: Damage::default() };
        for flaw in flaws {
            let Flaw { what, bytes } = flaw;
            let text = || format!("{what} {}", quoted(bytes, PART_ROOM));
            mended.damage.add(|| format!("the {what} is not UTF-8"), text);
        }
        if flags & NO_PROPERTY != 0 {
            // More flags may follow, so that nobody knows where the properties begin.
            let what = || "its property flags are unknown".to_owned();
            mended.damage.add(what, || format!("properties {}", raw(rest, PART_ROOM)));
            return mended;
        }
        for property in properties(flags, rest) {
            mended.add(&property);
        }
        mended
    }

    fn add(&mut self, property: &Property<'_>) {
        let (name, kind) = PROPERTIES[property.at];
        let content = property.content();
        if let Kind::Table = kind {
            return self.add_headers(content, property.whole);
        }
        if property.is_sound() {
            self.flags |= 1 << (15 - property.at);
            let side = if property.at < HEADERS_AT { &mut self.before } else { &mut self.after };
            side.extend_from_slice(property.bytes);
            return;
        }
        let wrong = if property.whole { "is not UTF-8" } else { "is cut off" };
        self.damage.add(|| format!("the property {name} {wrong}"), || format!("{name} {}", quoted(content, PART_ROOM)));
    }

    fn add_headers(&mut self, table: &[u8], whole: bool) {
        let mut bounds = Bounds::default();
        for entry in Entries(table) {
            let Some(wrong) = bounds.judge(&entry) else {
                self.headers.extend_from_slice(entry.bytes);
                continue;
            };
            let told = || {
                let name = quoted(entry.name, NAME_ROOM);
                format!("the header {name} {wrong}")
            };
            self.damage.add(told, || shown(&entry));
        }
        if !whole && self.damage.count == 0 {
            self.damage.add(|| "its headers are cut off".to_owned(), String::new);
        }
    }

    fn payload(mut self, fixed: &[u8]) -> Vec<u8> {
        let Damage { first, count, kept, .. } = self.damage;
        let more = if count > 1 { format!(" (and {} more)", count - 1) } else { String::new() };
        put_text(&mut self.headers, header::UNDECODABLE, &format!("{first}{more}"));
        put_text(&mut self.headers, header::UNDECODABLE_PARTS, &kept.join("; "));
        let mut payload = fixed.to_vec();
        payload.extend(self.flags.to_be_bytes());
        payload.extend(self.before);
        payload.extend(length(&self.headers));
        payload.extend(self.headers);
        payload.extend(self.after);
        payload
    }
}

impl Damage {
    /// Notes something; the sentence is asked for the first only, the text as long as there is room.
    fn add(&mut self, sentence: impl FnOnce() -> String, text: impl FnOnce() -> String) {
        if self.count == 0 {
            self.first = sentence();
        }
        self.count += 1;
        if self.size < KEPT_ROOM {
            let text = text();
            self.size += text.len();
            self.kept.push(text);
        }
    }
}

/// A header as a person is to see it: a text in quotes, anything else as the bytes that came.
fn shown(entry: &Entry<'_>) -> String {
    let name = text(entry.name, NAME_ROOM * 4);
    match entry.value {
        [] => format!("header \"{name}\""),
        [b'S', value @ ..] if value.len() >= 4 => format!("header \"{name}\" = {}", quoted(&value[4..], PART_ROOM)),
        value => format!("header \"{name}\" = {}", raw(value, PART_ROOM)),
    }
}

fn put_text(table: &mut Vec<u8>, name: &str, text: &str) {
    table.push(u8::try_from(name.len()).expect("our own names are short"));
    table.extend_from_slice(name.as_bytes());
    table.push(b'S');
    table.extend(length(text.as_bytes()));
    table.extend_from_slice(text.as_bytes());
}

fn length(bytes: &[u8]) -> [u8; 4] {
    u32::try_from(bytes.len()).expect("less than a frame").to_be_bytes()
}
