//! The deltas above the base, and which of them may know a hash: one look instead of one into each of them.
//!
//! A slot for each of many values of a hash has a bit for each delta. Two slots are asked; of two hundred deltas less
//! than one has something in each by chance. Whatever a block spends, and whatever a wallet asks, most of it is in none
//! of them, and to hear that from two hundred filters costs as many accesses to memory.
//!
//! The table of slots is large and blocks come one by one, so it is never copied for one more: a view and its copies
//! share it, and bits are only ever set. A bit of a delta that a copy does not have names one too many, which is then
//! asked in vain or, as it is not in the list, not at all.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::delta::Delta;

const SLOT_BITS: u32 = 19;
/// Deltas that have a bit of their own; more share them.
const BITS: usize = 256;
const WORDS: usize = BITS / 64;

type Slot = [u64; WORDS];
type SharedSlot = [AtomicU64; WORDS];

/// See the module. Lowest first.
#[derive(Clone, Default)]
pub(crate) struct Deltas {
    list: Vec<Arc<Delta>>,
    /// Empty until the first delta comes.
    slots: Arc<[SharedSlot]>,
}

impl std::fmt::Debug for Deltas {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Deltas").field("count", &self.list.len()).finish_non_exhaustive()
    }
}

impl Deref for Deltas {
    type Target = [Arc<Delta>];

    fn deref(&self) -> &Self::Target {
        &self.list
    }
}

impl FromIterator<Arc<Delta>> for Deltas {
    fn from_iter<I: IntoIterator<Item = Arc<Delta>>>(deltas: I) -> Self {
        let mut all = Self::default();
        deltas.into_iter().for_each(|delta| all.push(delta));
        all
    }
}

fn slots_of(hash: u64) -> [usize; 2] {
    [hash, hash >> SLOT_BITS].map(|word| (word & ((1 << SLOT_BITS) - 1)) as usize)
}

/// Heights follow each other, so as many deltas as there are bits share none.
fn bit_of(delta: &Delta) -> usize {
    delta.head.height.0 as usize % BITS
}

impl Deltas {
    /// Puts the delta of the block above.
    pub(crate) fn push(&mut self, delta: Arc<Delta>) {
        if self.slots.is_empty() {
            self.slots = (0..1 << SLOT_BITS).map(|_| SharedSlot::default()).collect();
        }
        let bit = bit_of(&delta);
        for slot in delta.hashes().flat_map(slots_of) {
            // Whoever is shown the delta is handed it through a lock or a channel, and the bits with it.
            self.slots[slot][bit / 64].fetch_or(1 << (bit % 64), Ordering::Relaxed);
        }
        self.list.push(delta);
    }

    /// Takes the highest.
    pub(crate) fn pop(&mut self) -> Option<Arc<Delta>> {
        self.list.pop()
    }

    /// Takes the lowest. Those that stay get a table of their own: so no bit lives longer than from merge to merge.
    pub(crate) fn take_lowest(&mut self, count: usize) -> Vec<Arc<Delta>> {
        let above = self.list.split_off(count);
        let below = std::mem::take(&mut self.list);
        *self = above.into_iter().collect();
        below
    }

    fn slot(&self, at: usize) -> Slot {
        let Some(slot) = self.slots.get(at) else { return Slot::default() };
        std::array::from_fn(|word| slot[word].load(Ordering::Relaxed))
    }

    /// Those that may know a hash: a txid by its first bytes, of a transaction that the block has, an outpoint that it
    /// spends ([`outpoint_word`](crate::delta::outpoint_word)), or a script key by its first bytes. Highest first.
    pub(crate) fn maybe(&self, hash: u64) -> impl Iterator<Item = &Arc<Delta>> {
        self.maybe_any([hash])
    }

    /// Those that may know one of some hashes, each once.
    pub(crate) fn maybe_any<const N: usize>(&self, hashes: [u64; N]) -> impl Iterator<Item = &Arc<Delta>> {
        let mut named = Slot::default();
        for hash in hashes {
            let [one, other] = slots_of(hash).map(|at| self.slot(at));
            let both = one.iter().zip(other).map(|(one, other)| one & other);
            named.iter_mut().zip(both).for_each(|(named, both)| *named |= both);
        }
        let lowest = self.list.first().map_or(0, |delta| bit_of(delta));
        let mut places: Vec<usize> = Vec::new();
        for (word, at) in named.iter_mut().zip((0..).step_by(64)) {
            while *word != 0 {
                let bit = at + word.trailing_zeros() as usize;
                *word &= *word - 1;
                // Which of those that share a bit is meant is not known: all are asked.
                places.extend(((bit + BITS - lowest) % BITS..self.list.len()).step_by(BITS));
            }
        }
        places.sort_unstable();
        places.into_iter().rev().filter_map(|at| self.list.get(at))
    }
}

#[cfg(test)]
mod tests {
    use bitcoin::Block;

    use super::*;
    use crate::Store;
    use crate::sim::SimDisk;
    use crate::tests::chain::{Forge, connect, small_options};

    #[test]
    fn it_names_the_deltas_that_know_a_transaction_newest_first() {
        let options = crate::Options { keep_deltas: 600, ..small_options() };
        let mut store = Store::open_on(Arc::new(SimDisk::new()), options).unwrap();
        let (mut forge, mut chain) = (Forge::new(3), Vec::<Block>::new());
        for count in [40, 560] {
            while chain.len() < count {
                // The last blocks are enough to build on, and to be quick.
                let block = forge.block(&chain[..chain.len().min(30)]);
                let parent = chain.last().map(|block| block.block_hash());
                let txdata = if chain.len() < 30 { block.txdata } else { block.txdata[..1].to_vec() };
                let block = match parent {
                    Some(parent) => forge.seal(parent, txdata),
                    None => forge.block(&[]),
                };
                connect(&mut store, &block).unwrap();
                chain.push(block);
            }
            let deltas = store.staged.view.deltas.clone();
            for delta in deltas.iter() {
                for prefix in delta.hashes() {
                    let heights: Vec<u32> = deltas.maybe(prefix).map(|delta| delta.head.height.0).collect();
                    assert!(heights.contains(&delta.head.height.0));
                    assert!(heights.is_sorted_by(|one, other| one > other), "{heights:?}");
                }
            }
            let mut lower = deltas.clone();
            while lower.len() > 10 {
                lower.pop().unwrap();
            }
            let (gone, kept) = (&deltas[10], &deltas[9]);
            let named = |hash| lower.maybe(hash).any(|delta| Arc::ptr_eq(delta, kept));
            assert!(kept.hashes().all(named));
            assert!(gone.hashes().all(|hash| !lower.maybe(hash).any(|delta| Arc::ptr_eq(delta, gone))));
            let taken = lower.take_lowest(9);
            assert_eq!((taken.len(), lower.len()), (9, 1));
            assert!(kept.hashes().all(|hash| lower.maybe(hash).any(|delta| Arc::ptr_eq(delta, kept))));
        }
    }
}
