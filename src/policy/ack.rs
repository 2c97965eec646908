//! Which acks to send for one channel: `multiple` over the settled prefix, single acks for the rest.

use std::collections::VecDeque;

/// The deliveries of one channel that the broker has not been told about.
///
/// The broker counts delivery tags 1, 2, 3 … on each channel, so the window is a queue of states from the lowest tag
/// that is still open. `multiple = true` would also acknowledge every open delivery below it; therefore it is only
/// used up to the first tag that is not settled (promise P4).
#[derive(Debug, Default)]
pub struct AckWindow {
    /// The tag of the first state in `states`.
    first: u64,
    states: VecDeque<State>,
    /// States that are `Open`, and that are `Settled`.
    open: usize,
    settled: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Delivered, not settled: no ack may reach it.
    Open,
    /// Settled, the ack not sent.
    Settled,
    /// The broker was told, by an ack or a nack.
    Gone,
}

/// One ack to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AckFrame {
    /// The delivery tag on this channel.
    pub tag: u64,
    /// Whether it covers all open deliveries below.
    pub multiple: bool,
    /// How many deliveries it settles.
    pub covers: usize,
}

impl AckWindow {
    /// A delivery arrived. Tags come in order and without gaps; a gap left by a lost frame would be a broken
    /// connection, and is filled with tags that no ack touches.
    pub fn delivered(&mut self, tag: u64) {
        if self.states.is_empty() {
            self.first = tag;
        }
        while self.first + (self.states.len() as u64) < tag {
            self.states.push_back(State::Gone);
        }
        self.states.push_back(State::Open);
        self.open += 1;
    }

    /// A delivery is recorded, and its copy confirmed where it demanded one: it may be acknowledged.
    pub fn settle(&mut self, tag: u64) {
        if let Some(state @ State::Open) = self.state(tag) {
            *state = State::Settled;
            self.open -= 1;
            self.settled += 1;
        }
    }

    /// A delivery is handed back with a nack; true where it was open, and so the nack may be sent.
    pub fn hand_back(&mut self, tag: u64) -> bool {
        if let Some(state @ State::Open) = self.state(tag) {
            *state = State::Gone;
            self.open -= 1;
            return true;
        }
        false
    }

    /// Settled deliveries whose ack was not sent.
    pub fn waiting(&self) -> usize {
        self.settled
    }

    /// Deliveries that the broker still counts as ours.
    pub fn unacked(&self) -> usize {
        debug_assert_eq!(self.states.iter().filter(|state| **state == State::Open).count(), self.open);
        self.open + self.settled
    }

    /// The fewest frames that acknowledge all that is settled and nothing else; they count as sent.
    pub fn flush(&mut self) -> Vec<AckFrame> {
        let mut frames = Vec::new();
        if self.settled == 0 {
            return frames;
        }
        let mut last_settled = None;
        let mut settled_in_prefix = 0;
        while let Some(state @ (State::Settled | State::Gone)) = self.states.front() {
            if *state == State::Settled {
                last_settled = Some(self.first);
                settled_in_prefix += 1;
            }
            self.states.pop_front();
            self.first += 1;
        }
        if let Some(tag) = last_settled {
            frames.push(AckFrame { tag, multiple: settled_in_prefix > 1, covers: settled_in_prefix });
        }
        self.settled -= settled_in_prefix;
        for (tag, state) in (self.first..).zip(&mut self.states) {
            if self.settled == 0 {
                break;
            }
            if *state == State::Settled {
                *state = State::Gone;
                self.settled -= 1;
                frames.push(AckFrame { tag, multiple: false, covers: 1 });
            }
        }
        frames
    }

    fn state(&mut self, tag: u64) -> Option<&mut State> {
        let index = tag.checked_sub(self.first)?;
        self.states.get_mut(usize::try_from(index).ok()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `.` leaves a delivery open, `s` settles it, `b` hands it back; the frames are written `7` or `7+` (multiple).
    #[track_caller]
    fn check(deliveries: &str, expect: &str) {
        let mut window = AckWindow::default();
        for (tag, _) in (1..).zip(deliveries.chars()) {
            window.delivered(tag);
        }
        for (tag, what) in (1..).zip(deliveries.chars()) {
            match what {
                's' => window.settle(tag),
                'b' => assert!(window.hand_back(tag)),
                _ => {}
            }
        }
        let frames = window.flush();
        assert_eq!(write(&frames), expect, "{deliveries}");
        let covered: usize = frames.iter().map(|frame| frame.covers).sum();
        assert_eq!(covered, deliveries.matches('s').count(), "{deliveries}");
        assert_eq!(window.waiting(), 0);
        assert_eq!(window.unacked(), deliveries.matches('.').count());
        assert!(window.flush().is_empty(), "nothing is acknowledged twice");
    }

    fn write(frames: &[AckFrame]) -> String {
        let write = |frame: &AckFrame| format!("{}{}", frame.tag, if frame.multiple { "+" } else { "" });
        frames.iter().map(write).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn multiple_covers_the_settled_prefix_only() {
        check("", "");
        check("...", "");
        check("s", "1");
        check("ssss", "4+");
        check("ss.s", "2+ 4");
        check(".sss", "2 3 4");
        check("s.s.s", "1 3 5");
    }

    #[test]
    fn a_handed_back_tag_is_neither_acked_nor_in_the_way() {
        check("bs", "2");
        check("sbs", "3+");
        check("ssb", "2+");
        check("b.s", "3");
        check("bb", "");
    }

    #[test]
    fn later_flushes_go_on_where_the_last_ended() {
        let mut window = AckWindow::default();
        (1..=6).for_each(|tag| window.delivered(tag));
        [2, 3].into_iter().for_each(|tag| window.settle(tag));
        assert_eq!(write(&window.flush()), "2 3");
        [1, 4].into_iter().for_each(|tag| window.settle(tag));
        assert_eq!(write(&window.flush()), "4+");
        window.delivered(7);
        [5, 6, 7].into_iter().for_each(|tag| window.settle(tag));
        assert_eq!(write(&window.flush()), "7+");
        assert_eq!(window.unacked(), 0);
    }

    #[test]
    fn settling_twice_or_out_of_range_changes_nothing() {
        let mut window = AckWindow::default();
        window.delivered(1);
        window.settle(1);
        window.settle(1);
        window.settle(2);
        window.settle(0);
        assert_eq!(window.waiting(), 1);
        assert!(!window.hand_back(1), "a settled delivery is not handed back");
    }
}
