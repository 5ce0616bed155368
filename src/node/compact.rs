//! The node's ties between blocks and mempool: what may be in a compact block, and when one is worth asking for.
//!
//! A full pool is hashed for each block, so that is done outside the loop, on a state of the pool that was published
//! already. What left the pool without a block may be mined all the same, so the last hundred of those are kept too.
//! Source: Bitcoin Core `net_processing.cpp` (`AddToCompactExtraTransactions`).

use std::collections::VecDeque;

use bitcoin::Wtxid;
use bytes::Bytes;

use super::{Input, Node, Output};
use crate::blocks::{CompactFigures, Partial};
use crate::mempool::{Changes, MempoolView, Removal, Unconfirmed};
use crate::peer::{CompactBlock, Inventory, PeerId};
use crate::time::Now;

/// Transactions that are kept beside the pool (Core: DEFAULT_BLOCK_RECONSTRUCTION_EXTRA_TXN).
const MAX_SPARE: usize = 100;
/// Bytes from which on one is not kept.
const LONG: usize = 100_000;
/// Share of the last blocks that was here before they came, below which a compact block saves too little: it takes one
/// more answer to be whole.
const WARM: f64 = 0.5;

/// A compact block that is to be filled from the pool.
#[derive(Debug)]
pub struct Fill {
    peer: PeerId,
    block: CompactBlock,
    pool: MempoolView,
    spare: Vec<(Wtxid, Bytes)>,
}

impl Fill {
    /// Hashes all that the pool has.
    pub fn run(self) -> Input {
        let pool = self.pool.entries().map(|entry| (entry.wtxid, &entry.raw));
        let spare = self.spare.iter().map(|(wtxid, raw)| (*wtxid, raw));
        let result = Partial::of(&self.block, pool.chain(spare));
        Input::Filled { peer: self.peer, hash: self.block.header.block_hash(), result }
    }
}

/// Transactions that were refused, or left the pool without a block, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Spare(VecDeque<(Wtxid, Bytes)>);

impl Spare {
    pub fn left(&mut self, changes: &Changes) {
        for (entry, why) in &changes.removed {
            if matches!(why, Removal::Replaced | Removal::Evicted | Removal::Expired) {
                self.add(entry.wtxid, &entry.raw);
            }
        }
    }

    pub fn refused(&mut self, tx: &Unconfirmed) {
        self.add(tx.wtxid(), tx.raw());
    }

    fn add(&mut self, wtxid: Wtxid, raw: &Bytes) {
        if raw.len() >= LONG || self.0.iter().any(|(known, _)| *known == wtxid) {
            return;
        }
        if self.0.len() == MAX_SPARE {
            self.0.pop_front();
        }
        self.0.push_back((wtxid, raw.clone()));
    }
}

impl Node {
    /// A peer sent a compact block. One that nobody asked for is an announcement.
    pub(super) fn compact_block(&mut self, now: Now, from: PeerId, block: CompactBlock) {
        let announced = Inventory::compact_block(block.header.block_hash());
        if !self.blocks.handle_compact_block(from, block) {
            self.headers.handle_inv(now, from, &[announced]);
        }
    }

    pub(super) fn fill(&mut self, peer: PeerId, block: CompactBlock) {
        let pool = self.mempool.as_ref().map(|news| news.mempool.clone()).unwrap_or_default();
        let spare = self.spare.0.iter().cloned().collect();
        self.outputs.push_back(Output::Fill(Fill { peer, block, pool, spare }));
    }

    /// Compact blocks are asked for from the first sync on, unless blocks turned out to be full of what was not here.
    pub(super) fn note_warmth(&mut self) {
        let is_warm = self.coverage().is_none_or(|share| share >= WARM);
        self.blocks.want_compact(self.synced && is_warm && self.mempool.is_some());
    }

    /// What came of compact blocks.
    pub fn compact_figures(&self) -> CompactFigures {
        self.blocks.compact_figures()
    }
}

#[cfg(test)]
mod tests {
    use bitcoin::hashes::Hash;

    use super::*;

    #[test]
    fn the_newest_hundred_are_kept_each_once_and_none_that_is_long() {
        let wtxid = |number: u8| Wtxid::hash(&[number]);
        let mut spare = Spare::default();
        for number in (0..=MAX_SPARE as u8).chain([5, 50]) {
            spare.add(wtxid(number), &Bytes::from_static(b"raw"));
        }
        spare.add(wtxid(200), &vec![0; LONG].into());
        let kept: Vec<Wtxid> = spare.0.iter().map(|(wtxid, _)| *wtxid).collect();
        assert_eq!(kept, (1..=MAX_SPARE as u8).map(wtxid).collect::<Vec<_>>());
    }
}
