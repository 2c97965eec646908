//! What the histories met.

use std::collections::BTreeMap;

/// A simulator that never reaches a path proves nothing about it.
#[derive(Debug, Default, Clone)]
pub struct Coverage {
    seen: BTreeMap<&'static str, usize>,
}

impl Coverage {
    pub fn count(&mut self, what: &'static str) {
        *self.seen.entry(what).or_default() += 1;
    }

    pub fn add(&mut self, other: &Self) {
        for (what, n) in &other.seen {
            *self.seen.entry(what).or_default() += n;
        }
    }

    pub fn check(&self) {
        for what in [
            "run",
            "forward",
            "duplicate",
            "joined",
            "adopted",
            "held",
            "crash",
            "crash-after-commit",
            "disconnect",
            "end-without-session",
            "lost-before-nack",
            "lost-before-ack",
            "publisher-lost",
            "publish-refused",
            "handed-back",
            "replay",
            "multiple-ack",
            "single-ack",
            "dead",
            "done",
        ] {
            assert!(self.seen.get(what).is_some_and(|n| *n > 100), "too few histories with {what}: {self:?}");
        }
    }
}
