//! Knows, for nearly every new key, that the store has never seen it.

use fastbloom::BloomFilter;

use crate::task::MessageKey;

/// Keys of the first filter, at least; each further one holds [`GROWTH`] times as many.
const FIRST: usize = 1 << 16;
const GROWTH: usize = 4;
/// The share of new keys that one filter takes for known. A key is asked of all of them, and one that is taken for known is
/// searched in every generation of the store, which takes as long as a hundred messages.
const FALSE_POSITIVES: f64 = 0.0002;
/// Keys of the largest filter, in about 35 MiB. Beyond those more and more new keys are looked up, and nothing else changes.
const LIMIT: usize = 1 << 24;

/// A superset of the keys that one job has in the store.
///
/// A key that it does not hold is new, without a doubt; one that it holds may be new, and is looked up. That spares a
/// stream of new keys nearly all look-ups, which cost as much as everything else that the job thread does for a message,
/// because each commit empties the reader's page cache. Keys are never removed: once many have come, whoever owns the filter
/// makes it anew of what the store still has.
///
/// A row of Bloom filters that grow in size (Almeida and others, "Scalable Bloom Filters", 2007).
#[derive(Debug)]
pub struct KeyFilter {
    filters: Vec<BloomFilter>,
    /// Keys put into the last filter, and how many it is made for.
    held: usize,
    room: usize,
    /// Keys put in since it was made, and made for.
    added: usize,
    capacity: usize,
}

impl Default for KeyFilter {
    fn default() -> Self {
        Self::for_keys(0)
    }
}

impl KeyFilter {
    /// Empty, with room for so many keys and some more in a single filter.
    pub fn for_keys(keys: usize) -> Self {
        let room = (keys + keys / 4).clamp(FIRST, LIMIT);
        Self { filters: vec![filter(room)], held: 0, room, added: 0, capacity: room + next(room) }
    }

    /// How many keys were put in, those that came twice counted twice.
    pub fn added(&self) -> usize {
        self.added
    }

    /// How many keys it takes before it grows for the second time, which costs more memory than all before.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Adds a key; called before its record can be committed.
    pub fn insert(&mut self, key: &MessageKey) {
        if self.held >= self.room && self.room < LIMIT {
            self.room = next(self.room);
            self.held = 0;
            self.filters.push(filter(self.room));
        }
        if let Some(last) = self.filters.last_mut() {
            last.insert(key.as_bytes());
        }
        self.held += 1;
        self.added += 1;
    }

    /// False: the key was never inserted. True: it may have been.
    pub fn may_hold(&self, key: &MessageKey) -> bool {
        self.filters.iter().rev().any(|filter| filter.contains(key.as_bytes()))
    }
}

/// The room of the filter after one of so much.
fn next(room: usize) -> usize {
    (GROWTH * room).min(LIMIT)
}

fn filter(keys: usize) -> BloomFilter {
    // A fixed seed: whoever chooses keys that collide only has them looked up.
    BloomFilter::with_false_pos(FALSE_POSITIVES).seed(&0).expected_items(keys)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holds_all_that_was_put_in_and_little_else() {
        let key = |n: u32| MessageKey::from_text(&format!("message-{n}"));
        let mut filter = KeyFilter::default();
        let inserted = 3 * FIRST as u32;
        (0..inserted).for_each(|n| filter.insert(&key(n)));
        assert!(filter.filters.len() > 1, "it has grown");
        let mut sized = KeyFilter::for_keys(inserted as usize);
        (0..inserted).for_each(|n| sized.insert(&key(n)));
        assert_eq!(sized.filters.len(), 1);
        for filter in [filter, sized] {
            assert!((0..inserted).all(|n| filter.may_hold(&key(n))));
            let wrong = (inserted..2 * inserted).filter(|n| filter.may_hold(&key(*n))).count();
            assert!(wrong < inserted as usize / 1000, "{wrong} of {inserted} unknown keys are taken for known");
        }
    }
}
