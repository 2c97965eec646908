//! Walks header tables without recursion: finds each entry and says what is wrong with it.
//!
//! The types are those that the library knows, which are RabbitMQ's (its "AMQP 0-9-1 errata" page) and not quite those of the
//! specification: `s` is a 16-bit integer, and so is `U`. For a type that the library does not know it would silently drop
//! the entry and all that follow.

use std::fmt;

/// How deep tables and arrays may lie in one another. The library decodes, clones and drops them by recursion.
pub(super) const DEEPEST: usize = 32;

/// Why an entry cannot be handed on. Prints the end of a sentence that began with the entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// A text or a name that is not UTF-8.
    NotUtf8,
    /// Of no type that we know.
    UnknownType(u8),
    /// It ends before it is whole.
    Cut,
    /// More than [`DEEPEST`] tables or arrays in one another.
    TooDeep,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotUtf8 => f.write_str("is not UTF-8"),
            Self::UnknownType(letter) => write!(f, "has the unknown type '{}'", letter.escape_ascii()),
            Self::Cut => f.write_str("is cut off"),
            Self::TooDeep => write!(f, "nests tables more than {DEEPEST} deep"),
        }
    }
}

/// One entry of a table, wherever it ends.
pub(super) struct Entry<'t> {
    /// All of it: length and bytes of the name, type, value.
    pub(super) bytes: &'t [u8],
    /// Its name, as it came; what is left of it where it is cut off.
    pub(super) name: &'t [u8],
    /// Type and value.
    pub(super) value: &'t [u8],
    /// Values in it, itself included.
    pub(super) values: usize,
    pub(super) fault: Option<Fault>,
}

/// The entries of a table, in their order; made of its bytes without their length. Where the end of an entry cannot be told,
/// all the rest belongs to it.
pub(super) struct Entries<'t>(pub(super) &'t [u8]);

impl<'t> Iterator for Entries<'t> {
    type Item = Entry<'t>;

    fn next(&mut self) -> Option<Entry<'t>> {
        let table = self.0;
        let (length, rest) = table.split_first()?;
        let Some((name, rest)) = rest.split_at_checked(usize::from(*length)) else {
            self.0 = &[];
            return Some(Entry { bytes: table, name: rest, value: &[], values: 1, fault: Some(Fault::Cut) });
        };
        let (value, after, values, fault) = match content(rest) {
            Ok((_, content)) => {
                let (value, after) = rest.split_at(1 + content);
                let (values, fault) = inspect(value);
                (value, after, values, fault)
            }
            Err(fault) => (rest, &rest[rest.len()..], 1, Some(fault)),
        };
        self.0 = after;
        let bytes = &table[..table.len() - after.len()];
        let fault = if std::str::from_utf8(name).is_err() { Some(Fault::NotUtf8) } else { fault };
        Some(Entry { bytes, name, value, values, fault })
    }
}

/// A table or an array that is being walked.
#[derive(Clone, Copy, Default)]
struct Open {
    end: usize,
    is_table: bool,
}

/// Walks a value whose end is known, and gives the number of values in it, up to the first fault.
fn inspect(value: &[u8]) -> (usize, Option<Fault>) {
    // Nearly every header is one plain value.
    match value[0] {
        b'A' | b'F' => walk(value),
        b'S' if std::str::from_utf8(&value[5..]).is_err() => (1, Some(Fault::NotUtf8)),
        _ => (1, None),
    }
}

/// The same for a value that may hold others.
fn walk(value: &[u8]) -> (usize, Option<Fault>) {
    let (mut open, mut depth) = ([Open::default(); DEEPEST], 0);
    let (mut at, mut values) = (0, 0);
    loop {
        while depth > 0 && at == open[depth - 1].end {
            depth -= 1;
        }
        if depth == 0 && values > 0 {
            return (values, None);
        }
        let around = if depth > 0 { open[depth - 1] } else { Open { end: value.len(), is_table: false } };
        let mut rest = &value[at..around.end];
        if around.is_table {
            // Not empty: a container that has ended was left above.
            let (name, after) = match rest[1..].split_at_checked(usize::from(rest[0])) {
                Some(parts) => parts,
                None => return (values + 1, Some(Fault::Cut)),
            };
            if std::str::from_utf8(name).is_err() {
                return (values + 1, Some(Fault::NotUtf8));
            }
            rest = after;
        }
        values += 1;
        let (letter, content) = match content(rest) {
            Ok(found) => found,
            Err(fault) => return (values, Some(fault)),
        };
        at = around.end - rest.len() + 1;
        match letter {
            b'A' | b'F' => {
                let Some(inner) = open.get_mut(depth) else { return (values, Some(Fault::TooDeep)) };
                *inner = Open { end: at + content, is_table: letter == b'F' };
                depth += 1;
                at += 4;
            }
            b'S' if std::str::from_utf8(&rest[5..1 + content]).is_err() => return (values, Some(Fault::NotUtf8)),
            _ => at += content,
        }
    }
}

/// The type at the beginning of `bytes`, and how many bytes its content has, all of which are there.
pub(super) fn content(bytes: &[u8]) -> Result<(u8, usize), Fault> {
    let (letter, rest) = bytes.split_first().ok_or(Fault::Cut)?;
    let size = match letter {
        b'V' => 0,
        b't' | b'b' | b'B' => 1,
        b's' | b'U' | b'u' => 2,
        b'I' | b'i' | b'f' => 4,
        b'D' => 5,
        b'L' | b'l' | b'd' | b'T' => 8,
        b'S' | b'x' | b'A' | b'F' => {
            let length = rest.first_chunk().ok_or(Fault::Cut)?;
            4 + u32::from_be_bytes(*length) as usize
        }
        unknown => return Err(Fault::UnknownType(*unknown)),
    };
    if size <= rest.len() { Ok((*letter, size)) } else { Err(Fault::Cut) }
}
