//! The deltas above the base, and which of them may know a hash: one look instead of one into each of them.
//!
//! A slot for each of many values of a hash has a bit for each delta. Two slots are asked; of a hundred deltas some
//! two have something in each by chance. Whatever a block spends, and whatever a wallet asks, most of it is in none of
//! them, and to hear that from a hundred filters costs as many accesses to memory.

use std::ops::Deref;
use std::sync::Arc;

use crate::delta::Delta;

const SLOT_BITS: u32 = 18;
/// Deltas that have a bit of their own; more share them.
const BITS: usize = 512;

type Slot = [u64; BITS / 64];

/// See the module. Lowest first.
#[derive(Clone, Default)]
pub(crate) struct Deltas {
    list: Vec<Arc<Delta>>,
    /// Shared by a view and its copies until one of them changes.
    slots: Arc<Vec<Slot>>,
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

fn set(slot: &mut Slot, bit: usize) {
    slot[bit / 64] |= 1 << (bit % 64);
}

/// Heights follow each other, so as many deltas as there are bits share none.
fn bit_of(delta: &Delta) -> usize {
    delta.head.height.0 as usize % BITS
}

impl Deltas {
    /// Puts the delta of the block above.
    pub(crate) fn push(&mut self, delta: Arc<Delta>) {
        let slots = Arc::make_mut(&mut self.slots);
        if slots.is_empty() {
            slots.resize(1 << SLOT_BITS, Slot::default());
        }
        let bit = bit_of(&delta);
        for slot in delta.hashes().flat_map(slots_of) {
            set(&mut slots[slot], bit);
        }
        self.list.push(delta);
    }

    /// Takes the highest.
    pub(crate) fn pop(&mut self) -> Option<Arc<Delta>> {
        let delta = self.list.pop()?;
        self.forget(std::slice::from_ref(&delta));
        Some(delta)
    }

    /// Takes the lowest.
    pub(crate) fn take_lowest(&mut self, count: usize) -> Vec<Arc<Delta>> {
        let above = self.list.split_off(count);
        let taken = std::mem::replace(&mut self.list, above);
        self.forget(&taken);
        taken
    }

    /// Clears the bits of what was taken, but for those that others share: such a bit names too many, never too few.
    fn forget(&mut self, taken: &[Arc<Delta>]) {
        let mut kept = Slot::default();
        let mut gone = Slot::default();
        self.list.iter().for_each(|delta| set(&mut kept, bit_of(delta)));
        taken.iter().for_each(|delta| set(&mut gone, bit_of(delta)));
        gone.iter_mut().zip(kept).for_each(|(gone, kept)| *gone &= !kept);
        for slot in Arc::make_mut(&mut self.slots) {
            slot.iter_mut().zip(gone).for_each(|(bits, gone)| *bits &= !gone);
        }
    }

    /// Those that may know a hash: a txid by its first bytes, of a transaction that the block has or of which it
    /// spends an output, or a script key by its first bytes. Highest first.
    pub(crate) fn maybe(&self, hash: u64) -> impl Iterator<Item = &Arc<Delta>> {
        let [one, other] = slots_of(hash);
        let none = Slot::default();
        let mut both = *self.slots.get(one).unwrap_or(&none);
        let other = self.slots.get(other).unwrap_or(&none);
        both.iter_mut().zip(other).for_each(|(bits, other)| *bits &= other);
        let lowest = self.list.first().map_or(0, |delta| bit_of(delta));
        let mut places: Vec<usize> = Vec::new();
        for (word, at) in both.iter_mut().zip((0..).step_by(64)) {
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
