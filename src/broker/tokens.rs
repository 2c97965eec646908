//! The deliveries of one channel that are not acknowledged yet.

use std::collections::VecDeque;

/// What each open tag of a channel needs to be acknowledged.
///
/// The library acknowledges a message only in exchange for its `Delivery`, which cannot be made by hand. So each delivery
/// is kept here, emptied of all that is large, until its tag is acknowledged or handed back.
///
/// Tags of a channel are 1, 2, 3 …, and most are acknowledged in nearly that order: a ring that is indexed by the
/// distance to its oldest tag needs no hashing.
#[derive(Debug)]
pub(super) struct Tokens<T> {
    /// How many tags left the ring at its front. The tag at index 0 is one more.
    gone: u64,
    /// `None` where the token was taken already, out of order. The first is never `None`.
    ring: VecDeque<Option<T>>,
}

impl<T> Tokens<T> {
    /// For a new channel.
    pub(super) fn new() -> Self {
        Self { gone: 0, ring: VecDeque::new() }
    }

    /// Keeps the token of a tag. Tags come in order; where some are left out, they count as not open.
    pub(super) fn keep(&mut self, tag: u64, token: T) {
        match self.index(tag) {
            Some(index) if index >= self.ring.len() => {
                self.ring.resize_with(index, || None);
                self.ring.push_back(Some(token));
                self.shrink();
            }
            Some(_) | None => log::error!("internal error: delivery tag {tag} came twice"),
        }
    }

    /// Takes the token of one tag. `None`: it is not open.
    pub(super) fn take(&mut self, tag: u64) -> Option<T> {
        let index = self.index(tag)?;
        let token = self.ring.get_mut(index)?.take();
        self.shrink();
        token
    }

    /// Takes all tokens up to and including `tag`, and gives the youngest of them: acknowledging it as multiple
    /// acknowledges them all. `None`: none of them is open.
    pub(super) fn take_through(&mut self, tag: u64) -> Option<T> {
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Tokens 1 to 6, each its own tag.
    fn six() -> Tokens<u64> {
        let mut tokens = Tokens::new();
        (1..=6).for_each(|tag| tokens.keep(tag, tag));
        tokens
    }

    #[test]
    fn a_token_is_given_once() {
        let mut tokens = six();
        for tag in [3, 1, 6, 2, 5, 4] {
            assert_eq!(tokens.take(tag), Some(tag));
            assert_eq!(tokens.take(tag), None);
        }
        for tag in [0, 7, u64::MAX] {
            assert_eq!(tokens.take(tag), None);
        }
        assert!(tokens.ring.is_empty());
        tokens.keep(7, 7);
        assert_eq!(tokens.take(7), Some(7));
    }

    #[test]
    fn many_are_given_by_their_youngest() {
        let mut tokens = six();
        assert_eq!(tokens.take(4), Some(4));
        assert_eq!(tokens.take_through(4), Some(3));
        assert_eq!(tokens.take_through(4), None);
        assert_eq!(tokens.take(2), None);
        assert_eq!(tokens.take_through(100), Some(6));
        assert!(tokens.ring.is_empty());
        tokens.keep(7, 7);
        assert_eq!(tokens.take_through(7), Some(7));
    }

    #[test]
    fn a_hole_in_the_middle_stays_closed() {
        let mut tokens = six();
        assert_eq!(tokens.take(5), Some(5));
        assert_eq!(tokens.take_through(3), Some(3));
        assert_eq!(tokens.take_through(5), Some(4));
        assert_eq!(tokens.take(6), Some(6));
    }

    #[test]
    fn tags_that_were_left_out_are_not_open() {
        let mut tokens = Tokens::new();
        tokens.keep(3, "three");
        tokens.keep(5, "five");
        assert_eq!((tokens.take(1), tokens.take(4)), (None, None));
        assert_eq!(tokens.take_through(4), Some("three"));
        assert_eq!(tokens.take(5), Some("five"));
    }
}
