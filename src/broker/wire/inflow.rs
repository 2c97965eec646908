//! The way in: bytes of the broker, cut anywhere, to frames that the library may read.
//!
//! Frames with methods and content headers are held until they are whole and have been judged. Bodies, which are most of
//! the bytes, pass as they come. What passes is copied once, out of the one buffer that a connection has.

use std::ops::Range;

use super::Violation;
use crate::broker::connect::FRAME_MAX;
use crate::broker::error::{Closed, one_line};

/// Bytes of a frame before its payload: type, channel, size.
const HEAD: usize = 7;
/// Bytes around a payload: those, and the one that ends the frame.
const AROUND: usize = HEAD + 1;
/// What ends each frame.
const FRAME_END: u8 = 0xCE;
/// The largest payload. Generous by what is around it, which not all brokers count alike.
const LARGEST: usize = FRAME_MAX as usize;
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
    closed: Option<Closed>,
    violation: Option<Violation>,
}

impl Inflow {
    pub(super) fn new() -> Self {
        let buffer = vec![0; ROOM].into_boxed_slice();
        Self { buffer, start: 0, cleared: 0, end: 0, passing: 0, closed: None, violation: None }
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
        self.look();
    }

    /// Hands out as much as there is and fits; 0 where more has to come first.
    pub(super) fn give(&mut self, out: &mut [u8]) -> Result<usize, Violation> {
        if self.start == self.cleared
            && let Some(violation) = &self.violation
        {
            return Err(violation.clone());
        }
        let size = out.len().min(self.cleared - self.start);
        out[..size].copy_from_slice(&self.buffer[self.start..][..size]);
        self.start += size;
        Ok(size)
    }

    /// The goodbye of the broker, if it has just come.
    pub(super) fn take_closed(&mut self) -> Option<Closed> {
        self.closed.take()
    }

    /// Clears what can be cleared.
    fn look(&mut self) {
        while self.violation.is_none() {
            let passed = self.passing.min(self.end - self.cleared);
            self.cleared += passed;
            self.passing -= passed;
            let came = &self.buffer[self.cleared..self.end];
            let Some((head, rest)) = came.split_first_chunk::<HEAD>() else { return };
            let [kind, _, _, size @ ..] = *head;
            let size = u32::from_be_bytes(size) as usize;
            let known = matches!(kind, METHOD | HEADER | BODY | HEARTBEAT);
            if !known || size > LARGEST {
                self.violation = Some(if known { Violation::Large { size } } else { no_frame(came) });
            } else if kind == BODY || kind == HEARTBEAT {
                // The library looks for the end of these itself.
                self.passing = size + AROUND;
            } else if let Some(end) = rest.get(size) {
                let payload = self.cleared + HEAD..self.cleared + HEAD + size;
                if *end == FRAME_END {
                    self.judge(payload);
                    self.cleared += size + AROUND;
                } else {
                    self.violation = Some(Violation::WrongEnd);
                }
            } else {
                return;
            }
        }
    }

    fn judge(&mut self, payload: Range<usize>) {
        let payload = &self.buffer[payload];
        if let Some([code @ .., length]) =
            payload.strip_prefix(&[0, 10, 0, 50]).and_then(|rest| rest.first_chunk::<3>())
            && let Some(text) = payload.get(7..7 + usize::from(*length))
        {
            let text = one_line(&String::from_utf8_lossy(text));
            self.closed = Some(Closed { code: u16::from_be_bytes(*code), text });
        }
    }
}

fn no_frame(came: &[u8]) -> Violation {
    let mut bytes = [0; 8];
    bytes.iter_mut().zip(came).for_each(|(byte, came)| *byte = *came);
    Violation::NoFrame(bytes)
}
