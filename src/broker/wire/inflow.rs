//! The way in: bytes of the broker, cut anywhere, to frames that the library may read.
//!
//! Frames with methods and content headers are held until they are whole and have been judged. Bodies, which are most of
//! the bytes, pass as they come. What passes is copied once, out of the one buffer that a connection has.
//!
//! A content header may be larger than what was agreed: RabbitMQ sends it in one frame, however large its publisher's frames
//! were allowed to be. Ending the connection would bring it back for ever. So its beginning is taken for the whole of it,
//! which makes a message of it that is cut off.

use std::collections::HashMap;

use super::method::{Flaw, Judged};
use super::{Violation, content, method};
use crate::broker::connect::FRAME_MAX;
use crate::broker::error::Closed;

/// Bytes of a frame before its payload: type, channel, size.
const HEAD: usize = 7;
/// Bytes around a payload: those, and the one that ends the frame.
const AROUND: usize = HEAD + 1;
/// What ends each frame.
const FRAME_END: u8 = 0xCE;
/// The largest payload. Generous by what is around it, which not all brokers count alike.
pub(super) const LARGEST: usize = FRAME_MAX as usize;
/// The buffer: any frame fits that has to be whole to be judged.
const ROOM: usize = LARGEST + AROUND;

/// Frame types.
const METHOD: u8 = 1;
const HEADER: u8 = 2;
const BODY: u8 = 3;
const HEARTBEAT: u8 = 8;

/// What came and has not been handed out.
pub(super) struct Inflow {
    /// `start..cleared` may be handed out, `cleared..end` has not been looked at or is not whole.
    buffer: Box<[u8]>,
    start: usize,
    cleared: usize,
    end: usize,
    /// So many bytes after `cleared` may be handed out as they come.
    passing: usize,
    /// A frame that is handed out instead of the `skipping` bytes after `cleared`, and how much of it has been.
    mended: Vec<u8>,
    given: usize,
    skipping: usize,
    /// By channel: what was wrong with the method whose content header comes next.
    flaws: HashMap<u16, Vec<Flaw>>,
    closed: Option<Closed>,
    tuned: Option<u32>,
    violation: Option<Violation>,
}

impl Inflow {
    pub(super) fn new() -> Self {
        Self {
            buffer: vec![0; ROOM].into_boxed_slice(),
            start: 0,
            cleared: 0,
            end: 0,
            passing: 0,
            mended: Vec::new(),
            given: 0,
            skipping: 0,
            flaws: HashMap::new(),
            closed: None,
            tuned: None,
            violation: None,
        }
    }

    /// Where the next bytes are to be written. Never empty after [`Self::give`] had nothing.
    pub(super) fn room(&mut self) -> &mut [u8] {
        self.buffer.copy_within(self.start..self.end, 0);
        self.cleared -= self.start;
        self.end -= self.start;
        self.start = 0;
        &mut self.buffer[self.end..]
    }

    /// So many bytes were written there.
    pub(super) fn came(&mut self, bytes: usize) {
        self.end += bytes;
    }

    /// Hands out what there is and fits; 0 where more has to come first. What came before a violation is handed out before it
    /// is told, and after that nothing is.
    pub(super) fn give(&mut self, out: &mut [u8]) -> Result<usize, Violation> {
        if self.start == self.cleared && self.given == self.mended.len() {
            self.look();
        }
        let (from, given) = if self.start < self.cleared {
            (&self.buffer[self.start..self.cleared], &mut self.start)
        } else if self.given < self.mended.len() {
            (&self.mended[self.given..], &mut self.given)
        } else {
            return self.violation.clone().map_or(Ok(0), Err);
        };
        let size = out.len().min(from.len());
        out[..size].copy_from_slice(&from[..size]);
        *given += size;
        Ok(size)
    }

    /// The goodbye of the broker, if it has just come.
    pub(super) fn take_closed(&mut self) -> Option<Closed> {
        self.closed.take()
    }

    /// The largest frame that the broker takes, if it has just said so; 0: of any size.
    pub(super) fn take_tuned(&mut self) -> Option<u32> {
        self.tuned.take()
    }

    /// Clears what has come, up to the first frame that has to be mended. Called when nothing is left to give.
    fn look(&mut self) {
        let skipped = self.skipping.min(self.end - self.cleared);
        self.skipping -= skipped;
        self.cleared += skipped;
        self.start = self.cleared;
        (self.mended, self.given) = (Vec::new(), 0);
        let mut goes_on = self.skipping == 0 && self.violation.is_none();
        while goes_on {
            let passed = self.passing.min(self.end - self.cleared);
            self.cleared += passed;
            self.passing -= passed;
            match self.step() {
                Ok(step) => goes_on = step,
                Err(violation) => (goes_on, self.violation) = (false, Some(violation)),
            }
        }
    }

    /// Looks at the next frame. Says whether the one after it can be looked at too.
    fn step(&mut self) -> Result<bool, Violation> {
        let came = &self.buffer[self.cleared..self.end];
        let Some((head, rest)) = came.split_first_chunk::<HEAD>() else { return Ok(false) };
        let [kind, channel_high, channel_low, size @ ..] = *head;
        let channel = u16::from_be_bytes([channel_high, channel_low]);
        let size = u32::from_be_bytes(size) as usize;
        let mended = match kind {
            BODY | HEARTBEAT if size <= LARGEST => {
                // The library looks for the ends of these itself.
                self.passing = size + AROUND;
                return Ok(true);
            }
            METHOD if size <= LARGEST => {
                let Some(payload) = payload(rest, size)? else { return Ok(false) };
                self.closed = method::closed(payload).or(self.closed.take());
                self.tuned = method::tuned(payload).or(self.tuned.take());
                // A method whose content header never came had flaws of its own.
                if !self.flaws.is_empty() {
                    self.flaws.remove(&channel);
                }
                match method::judge(payload)? {
                    Judged::Sound => None,
                    Judged::Mended(payload, flaws) => {
                        if !flaws.is_empty() {
                            self.flaws.insert(channel, flaws);
                        }
                        Some(payload)
                    }
                }
            }
            HEADER => {
                let Some(payload) = payload(rest, size)? else { return Ok(false) };
                let flaws = if self.flaws.is_empty() { None } else { self.flaws.remove(&channel) };
                let mended = content::judge(payload, &flaws.unwrap_or_default())?;
                // The part that there is of one that is too large.
                mended.or_else(|| (size > LARGEST).then(|| payload.to_vec()))
            }
            METHOD | BODY | HEARTBEAT => return Err(Violation::Large { size }),
            _ => return Err(Violation::NoFrame(*head)),
        };
        match mended {
            None => self.cleared += size + AROUND,
            Some(payload) => {
                self.mended = frame(kind, channel, &payload);
                self.skipping = size + AROUND;
            }
        }
        Ok(self.mended.is_empty())
    }
}

/// The payload of a frame, once it and its end are there; of a frame that is too large, its beginning.
fn payload(rest: &[u8], size: usize) -> Result<Option<&[u8]>, Violation> {
    let Some(end) = rest.get(size.min(LARGEST)) else { return Ok(None) };
    if size <= LARGEST && *end != FRAME_END {
        return Err(Violation::WrongEnd);
    }
    Ok(Some(&rest[..size.min(LARGEST)]))
}

fn frame(kind: u8, channel: u16, payload: &[u8]) -> Vec<u8> {
    let size = u32::try_from(payload.len()).expect("no longer than what came and our two headers");
    [&[kind][..], &channel.to_be_bytes(), &size.to_be_bytes(), payload, &[FRAME_END]].concat()
}
