//! Which of the deltas may know a transaction: one look instead of one into each of them.
//!
//! A slot for each of many values of a hash has a bit for each delta. Two slots are asked, as of the deltas one in
//! twenty has something in each. Only the writer has this, for the coins that a block spends: most of them are in
//! no delta, and to hear that from two hundred filters costs as many accesses to memory.

use std::sync::Arc;

use crate::delta::{Delta, TxPrefix};

const SLOT_BITS: u32 = 17;
/// Deltas that have a bit of their own; more share them.
const DELTAS: usize = 256;

type Bits = [u64; DELTAS / 64];

/// See the module.
#[derive(Default)]
pub(crate) struct Recent {
    slots: Vec<Bits>,
    deltas: Vec<Arc<Delta>>,
}

impl std::fmt::Debug for Recent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Recent").field("deltas", &self.deltas.len()).finish_non_exhaustive()
    }
}

fn slots_of(prefix: TxPrefix) -> [usize; 2] {
    let word = u64::from_le_bytes(prefix);
    [word, word >> SLOT_BITS].map(|word| (word & ((1 << SLOT_BITS) - 1)) as usize)
}

impl Recent {
    /// Makes it one of these deltas.
    pub(crate) fn follow(&mut self, deltas: &[Arc<Delta>]) {
        if self.slots.is_empty() {
            self.slots = vec![Bits::default(); 1 << SLOT_BITS];
        }
        let known = self.deltas.len();
        if known > deltas.len() || !self.follows(&deltas[..known]) {
            self.slots.fill(Bits::default());
            self.deltas.clear();
        }
        for delta in &deltas[self.deltas.len()..] {
            let bit = self.deltas.len() % DELTAS;
            for prefix in delta.tx_prefixes() {
                for slot in slots_of(prefix) {
                    self.slots[slot][bit / 64] |= 1 << (bit % 64);
                }
            }
            self.deltas.push(delta.clone());
        }
    }

    /// Whether it is of these deltas. A delta is above that below it, so the ends say it of all.
    pub(crate) fn follows(&self, deltas: &[Arc<Delta>]) -> bool {
        let same = |one: Option<&Arc<Delta>>, other: Option<&Arc<Delta>>| match (one, other) {
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            (one, other) => one.is_none() && other.is_none(),
        };
        self.deltas.len() == deltas.len()
            && same(self.deltas.first(), deltas.first())
            && same(self.deltas.last(), deltas.last())
    }

    /// The deltas, newest first, that may make or spend an output of a transaction.
    pub(crate) fn maybe(&self, prefix: TxPrefix) -> impl Iterator<Item = &Arc<Delta>> {
        let [one, other] = slots_of(prefix);
        let none = Bits::default();
        let one = self.slots.get(one).unwrap_or(&none);
        let other = self.slots.get(other).unwrap_or(&none);
        let mut both = *one;
        both.iter_mut().zip(other).for_each(|(bits, other)| *bits &= other);
        let any = both.iter().any(|bits| *bits != 0);
        let deltas = if any { self.deltas.as_slice() } else { &[] };
        deltas.iter().enumerate().rev().filter_map(move |(at, delta)| {
            let bit = at % DELTAS;
            (both[bit / 64] >> (bit % 64) & 1 == 1).then_some(delta)
        })
    }
}
