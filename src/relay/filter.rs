//! What was seen of late, in bounded memory.
//!
//! Core keeps such things in rolling Bloom filters (`CRollingBloomFilter`). Here they are sets of eight-byte keyed
//! hashes in three generations: as bounded, empty while nothing happens, and wrong once in 10^13 instead of 10^6.

use bitcoin::hashes::siphash24;
use hashbrown::HashTable;

/// Generations that are kept; the oldest is forgotten when the newest is full.
const GENERATIONS: usize = 3;

/// The secret that turns hashes into entries: without it nobody can look for two that collide.
#[derive(Clone, Copy, Debug)]
pub(super) struct Key(u64, u64);

impl Key {
    pub fn new(rng: &mut fastrand::Rng) -> Self {
        Self(rng.u64(..), rng.u64(..))
    }

    /// The entry of these bytes.
    pub fn of(self, bytes: &[u8]) -> u64 {
        siphash24::Hash::hash_to_u64_with_keys(self.0, self.1, bytes)
    }
}

/// Remembers at least the last `capacity` that were put in, and at most half as many more.
#[derive(Debug)]
pub(super) struct Recent {
    key: Key,
    per_generation: usize,
    /// The newest first.
    generations: [HashTable<u64>; GENERATIONS],
}

impl Recent {
    pub fn new(key: Key, capacity: usize) -> Self {
        Self {
            key,
            per_generation: capacity.div_ceil(GENERATIONS - 1).max(1),
            generations: Default::default(),
        }
    }

    pub fn insert(&mut self, bytes: &[u8]) {
        let entry = self.key.of(bytes);
        if self.holds(entry) {
            return;
        }
        if self.generations[0].len() >= self.per_generation {
            self.generations.rotate_right(1);
            self.generations[0].clear();
        }
        self.generations[0].insert_unique(entry, entry, |entry| *entry);
    }

    /// Forgets one; says whether it was there.
    pub fn remove(&mut self, bytes: &[u8]) -> bool {
        let entry = self.key.of(bytes);
        let mut sets = self.generations.iter_mut();
        sets.any(|set| set.find_entry(entry, |other| *other == entry).map(|found| found.remove()).is_ok())
    }

    pub fn contains(&self, bytes: &[u8]) -> bool {
        self.holds(self.key.of(bytes))
    }

    /// Forgets everything, and gives the memory back.
    pub fn clear(&mut self) {
        self.generations = Default::default();
    }

    fn holds(&self, entry: u64) -> bool {
        self.generations.iter().any(|set| set.find(entry, |other| *other == entry).is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_ones_are_remembered_and_memory_is_bounded() {
        let mut recent = Recent::new(Key::new(&mut fastrand::Rng::with_seed(1)), 1_000);
        for number in 0..100_000_u32 {
            recent.insert(&number.to_le_bytes());
        }
        assert!((99_000..100_000_u32).all(|number| recent.contains(&number.to_le_bytes())));
        let remembered = (0..100_000_u32).filter(|number| recent.contains(&number.to_le_bytes())).count();
        assert!((1_000..=1_500).contains(&remembered), "{remembered}");
    }

    #[test]
    fn what_comes_twice_takes_one_place() {
        let mut recent = Recent::new(Key::new(&mut fastrand::Rng::with_seed(1)), 10);
        recent.insert(b"first");
        for _ in 0..1_000 {
            recent.insert(b"again");
        }
        assert!(recent.contains(b"first"));
        assert!(recent.remove(b"first") && !recent.remove(b"first") && recent.contains(b"again"));
        recent.clear();
        assert!(!recent.contains(b"first") && !recent.contains(b"again"));
    }
}
