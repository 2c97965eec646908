//! How much of the headers of a message is handed on.

use std::fmt;

use super::table::{Entries, Entry, Fault};
use crate::policy::retry;

/// Most values in the headers of a message, those in tables and arrays included.
const MOST_VALUES: usize = 1000;
/// Most bytes of headers.
const MOST_BYTES: usize = 64 << 10;
/// What copies bear beyond those of their message: warrend's own headers, and the traces that the broker leaves on the delay
/// ladder. Without room of its own for them, a message could be within the bounds and its retry not.
const OWN_VALUES: usize = 500;
const OWN_BYTES: usize = 32 << 10;

/// What the headers of one message have used up.
#[derive(Default)]
pub(super) struct Bounds {
    foreign: Used,
    own: Used,
}

#[derive(Default)]
struct Used {
    values: usize,
    bytes: usize,
}

/// Why a header is not handed on.
pub(super) enum Wrong {
    Damaged(Fault),
    TooMany,
    TooLarge,
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Damaged(fault) => fault.fmt(f),
            Self::TooMany => write!(f, "is beyond the {MOST_VALUES} that are read"),
            Self::TooLarge => write!(f, "is beyond the {MOST_BYTES} bytes of headers that are read"),
        }
    }
}

impl Bounds {
    /// Whether a whole table is sound.
    pub(super) fn hold(mut self, table: &[u8]) -> bool {
        Entries(table).all(|entry| self.judge(&entry).is_none())
    }

    /// What is sound of a table.
    pub(super) fn sound(mut self, table: &[u8]) -> Vec<u8> {
        let sound = Entries(table).filter(|entry| self.judge(entry).is_none());
        sound.flat_map(|entry| entry.bytes).copied().collect()
    }

    /// What is wrong with the next header, if anything. One that is takes no room.
    pub(super) fn judge(&mut self, entry: &Entry<'_>) -> Option<Wrong> {
        if let Some(fault) = entry.fault {
            return Some(Wrong::Damaged(fault));
        }
        let is_own = std::str::from_utf8(entry.name).is_ok_and(retry::is_of_copy);
        let (used, most_values, most_bytes) =
            if is_own { (&mut self.own, OWN_VALUES, OWN_BYTES) } else { (&mut self.foreign, MOST_VALUES, MOST_BYTES) };
        if used.values + entry.values > most_values {
            return Some(Wrong::TooMany);
        }
        if used.bytes + entry.bytes.len() > most_bytes {
            return Some(Wrong::TooLarge);
        }
        used.values += entry.values;
        used.bytes += entry.bytes.len();
        None
    }
}
