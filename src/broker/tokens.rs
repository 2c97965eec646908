//! The deliveries of one channel that are not acknowledged yet.

use std::collections::VecDeque;

use amiquip::Delivery;

/// The library acknowledges a message only in exchange for its `Delivery`, which cannot be made by hand. So each delivery
/// is kept here, emptied of all that is large, until its tag is acknowledged or handed back.
///
/// Tags of a channel are 1, 2, 3 …, and most are acknowledged in nearly that order: a ring that is indexed by the
/// distance to its oldest tag needs no hashing.
#[derive(Debug, Default)]
pub(super) struct Tokens {
    /// How many tags left the ring at its front. The tag at index 0 is one more.
    gone: u64,
    /// `None` where the tag was given out already, out of order.
    ring: VecDeque<Option<Delivery>>,
}

impl Tokens {
    /// Keeps an emptied delivery. Tags come in order; a gap stays a gap.
    pub(super) fn keep(&mut self, delivery: Delivery) {
        let tag = delivery.delivery_tag();
        match self.index(tag) {
            Some(index) if index >= self.ring.len() => {
                self.ring.resize_with(index, || None);
                self.ring.push_back(Some(delivery));
            }
            Some(_) | None => log::error!("internal error: delivery tag {tag} came twice"),
        }
    }

    /// Takes the token of one tag. `None`: it is not open.
    pub(super) fn take(&mut self, tag: u64) -> Option<Delivery> {
        let index = self.index(tag)?;
        let token = self.ring.get_mut(index)?.take();
        self.shrink();
        token
    }

    /// Takes all tokens up to and including `tag`, and gives the youngest of them: acknowledging it as multiple
    /// acknowledges them all. `None`: none of them is open.
    pub(super) fn take_through(&mut self, tag: u64) -> Option<Delivery> {
        let count = self.index(tag)?.saturating_add(1).min(self.ring.len());
        let token = self.ring.drain(..count).flatten().last();
        self.gone += count as u64;
        self.shrink();
        token
    }

    /// Where the tag stands in the ring, or would stand. `None`: it has left.
    fn index(&self, tag: u64) -> Option<usize> {
        usize::try_from(tag.checked_sub(self.gone + 1)?).ok()
    }

    fn shrink(&mut self) {
        while let Some(None) = self.ring.front() {
            self.ring.pop_front();
            self.gone += 1;
        }
    }
}
