//! A slab that grows by a chunk at a time.
//!
//! A vector that doubles would hold up to twice the memory that is used, and stop the node for as long as it takes
//! to copy a million sessions.

use std::ops::{Index, IndexMut};

/// Entries of a chunk.
const CHUNK: usize = 1_024;
/// No entry.
const NONE: u32 = u32::MAX;

#[derive(Debug)]
enum Entry<T> {
    /// With the next one that is.
    Vacant(u32),
    Occupied(T),
}

/// Entries under small numbers, which they keep.
#[derive(Debug)]
pub(super) struct Chunks<T> {
    chunks: Vec<Vec<Entry<T>>>,
    /// The first vacant entry.
    vacant: u32,
    len: usize,
}

impl<T> Chunks<T> {
    pub(super) fn new() -> Self {
        Chunks { chunks: Vec::new(), vacant: NONE, len: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// One more than the highest number that may be in use.
    pub(super) fn end(&self) -> usize {
        self.chunks.len() * CHUNK
    }

    pub(super) fn insert(&mut self, entry: T) -> usize {
        self.len += 1;
        let slot = self.vacant as usize;
        if let Some(place) = self.entry(slot) {
            if let Entry::Vacant(next) = std::mem::replace(place, Entry::Occupied(entry)) {
                self.vacant = next;
            }
            return slot;
        }
        if self.chunks.last().is_none_or(|chunk| chunk.len() == CHUNK) {
            self.chunks.push(Vec::with_capacity(CHUNK));
        }
        let number = self.chunks.len() - 1;
        self.chunks[number].push(Entry::Occupied(entry));
        number * CHUNK + self.chunks[number].len() - 1
    }

    pub(super) fn remove(&mut self, slot: usize) -> Option<T> {
        let vacant = self.vacant;
        let place = self.entry(slot).filter(|place| matches!(place, Entry::Occupied(_)))?;
        let Entry::Occupied(entry) = std::mem::replace(place, Entry::Vacant(vacant)) else {
            return None;
        };
        self.vacant = slot as u32;
        self.len -= 1;
        Some(entry)
    }

    pub(super) fn get(&self, slot: usize) -> Option<&T> {
        match self.chunks.get(slot / CHUNK)?.get(slot % CHUNK)? {
            Entry::Occupied(entry) => Some(entry),
            Entry::Vacant(_) => None,
        }
    }

    pub(super) fn get_mut(&mut self, slot: usize) -> Option<&mut T> {
        match self.entry(slot)? {
            Entry::Occupied(entry) => Some(entry),
            Entry::Vacant(_) => None,
        }
    }

    fn entry(&mut self, slot: usize) -> Option<&mut Entry<T>> {
        self.chunks.get_mut(slot / CHUNK)?.get_mut(slot % CHUNK)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (usize, &T)> {
        // Not to the end of a chunk that is nearly empty.
        (0..self.end()).filter_map(|slot| Some((slot, self.get(slot)?))).take(self.len())
    }
}

impl<T> Index<usize> for Chunks<T> {
    type Output = T;
    fn index(&self, slot: usize) -> &T {
        self.get(slot).expect("the slot is in use")
    }
}

impl<T> IndexMut<usize> for Chunks<T> {
    fn index_mut(&mut self, slot: usize) -> &mut T {
        self.get_mut(slot).expect("the slot is in use")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn behaves_like_a_map(ops in prop::collection::vec((any::<bool>(), 0usize..3_000), 1..16)) {
            let mut chunks = Chunks::new();
            let mut model = BTreeMap::new();
            for (insert, n) in ops {
                if insert {
                    for i in 0..n {
                        let slot = chunks.insert(i);
                        prop_assert!(model.insert(slot, i).is_none(), "in use");
                    }
                } else {
                    let slots: Vec<_> = model.keys().copied().step_by(n % 5 + 1).take(n).collect();
                    for slot in slots {
                        prop_assert_eq!(chunks.remove(slot), model.remove(&slot));
                        prop_assert_eq!(chunks.remove(slot), None);
                    }
                }
                prop_assert_eq!(chunks.len(), model.len());
                prop_assert!(model.keys().all(|slot| *slot < chunks.end()));
            }
            prop_assert!(chunks.iter().map(|(slot, i)| (slot, *i)).eq(model));
        }
    }
}
