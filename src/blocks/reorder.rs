//! Blocks in memory, from their arrival until the chain's writer is done with them, and how much they take.
//!
//! Blocks arrive in any order; here they wait for their check, then for their parent. What is held never exceeds the
//! limit by more than one block, whatever peers send: what is expected to arrive is estimated by a moving average, and
//! what turns out larger than the room left is let go and asked for again later.
//! Which block is handed on is decided by `activation`.

use std::collections::{BTreeMap, BTreeSet};

use bitcoin::BlockHash;
use chainstore::Height;

use crate::peer::PeerId;
use crate::validate::CheckedBlock;

/// What a block is taken for before the first has arrived, in bytes: half a full one.
const FIRST_GUESS_BYTES: usize = 1_000_000;
/// Share of one block in the moving average.
const AVERAGE_OVER: usize = 16;

/// See the module.
#[derive(Debug)]
pub(super) struct Reorder {
    limit_bytes: usize,
    held_bytes: usize,
    average_bytes: usize,
    blocks: BTreeMap<BlockHash, Held>,
    /// Checked blocks by parent and own hash.
    ready: BTreeSet<(BlockHash, BlockHash)>,
}

#[derive(Debug)]
struct Held {
    len_bytes: usize,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// Its check is under way.
    Checking { height: Height, from: PeerId },
    /// It waits for its parent.
    Ready(CheckedBlock),
    /// The writer has it.
    Handed,
}

impl Reorder {
    pub fn new(limit_bytes: usize) -> Self {
        Self {
            limit_bytes,
            held_bytes: 0,
            average_bytes: FIRST_GUESS_BYTES,
            blocks: BTreeMap::new(),
            ready: BTreeSet::new(),
        }
    }

    /// Whether there will be room for one more block when the `in_flight` that were asked for have arrived. For one
    /// block alone there always is.
    pub fn fits(&self, in_flight: usize) -> bool {
        if self.blocks.is_empty() && in_flight == 0 {
            return true;
        }
        let expected = self.average_bytes.saturating_mul(in_flight.saturating_add(1));
        self.held_bytes.saturating_add(expected) <= self.limit_bytes
    }

    /// Whether all that is held waits for a parent, so that no room will be made before another block arrives.
    pub fn is_stuck(&self) -> bool {
        self.ready.len() == self.blocks.len()
    }

    /// Takes in a block that arrived; `false` when there is no room. Everything waits for the first missing block, so
    /// that one is let in over the limit, and so is a block that comes alone.
    pub fn arrived(
        &mut self,
        hash: BlockHash,
        height: Height,
        from: PeerId,
        len_bytes: usize,
        is_first: bool,
    ) -> bool {
        let fits = self.held_bytes.saturating_add(len_bytes) <= self.limit_bytes;
        let may_exceed = (is_first || self.blocks.is_empty()) && self.held_bytes <= self.limit_bytes;
        if !fits && !may_exceed {
            // Or it would be asked for again at once.
            self.average_bytes = self.average_bytes.max(len_bytes);
            return false;
        }
        self.average_bytes = (self.average_bytes * (AVERAGE_OVER - 1) + len_bytes).div_ceil(AVERAGE_OVER);
        self.held_bytes += len_bytes;
        self.blocks.insert(hash, Held { len_bytes, stage: Stage::Checking { height, from } });
        true
    }

    pub fn contains(&self, hash: &BlockHash) -> bool {
        self.blocks.contains_key(hash)
    }

    /// The block of a check that is under way: its height, and who sent it.
    pub fn checking(&self, hash: &BlockHash) -> Option<(Height, PeerId)> {
        match self.blocks.get(hash)?.stage {
            Stage::Checking { height, from } => Some((height, from)),
            Stage::Ready(_) | Stage::Handed => None,
        }
    }

    /// A block passed its check; one that is not being checked is ignored.
    pub fn passed(&mut self, block: CheckedBlock) {
        let hash = block.hash();
        if let Some(held) = self.blocks.get_mut(&hash)
            && let Stage::Checking { .. } = held.stage
        {
            self.ready.insert((block.header().prev_blockhash, hash));
            held.stage = Stage::Ready(block);
        }
    }

    /// Hands on a block that waits; its bytes count until it is released.
    pub fn hand(&mut self, hash: &BlockHash) -> Option<CheckedBlock> {
        let held = self.blocks.get_mut(hash)?;
        match std::mem::replace(&mut held.stage, Stage::Handed) {
            Stage::Ready(block) => {
                self.ready.remove(&(block.header().prev_blockhash, *hash));
                Some(block)
            }
            stage @ (Stage::Checking { .. } | Stage::Handed) => {
                held.stage = stage;
                None
            }
        }
    }

    /// A block that waits for `parent`: `preferred` if that is one.
    pub fn child_of(&self, parent: BlockHash, preferred: Option<BlockHash>) -> Option<BlockHash> {
        if let Some(preferred) = preferred
            && self.ready.contains(&(parent, preferred))
        {
            return Some(preferred);
        }
        let mut children = self.ready.range((parent, lowest())..);
        children.next().filter(|(prev, _)| *prev == parent).map(|(_, hash)| *hash)
    }

    /// Blocks that wait for their parent.
    pub fn waiting(&self) -> Vec<BlockHash> {
        self.ready.iter().map(|(_, hash)| *hash).collect()
    }

    /// A block is connected, on disk or given up: it takes no more room.
    pub fn release(&mut self, hash: &BlockHash) {
        if let Some(held) = self.blocks.remove(hash) {
            self.held_bytes -= held.len_bytes;
            if let Stage::Ready(block) = held.stage {
                self.ready.remove(&(block.header().prev_blockhash, *hash));
            }
        }
    }

    /// The writer has lost all blocks that it was given.
    pub fn release_handed(&mut self) {
        self.blocks.retain(|_, held| {
            let is_handed = matches!(held.stage, Stage::Handed);
            self.held_bytes -= if is_handed { held.len_bytes } else { 0 };
            !is_handed
        });
    }

    /// Blocks in memory, the writer's included.
    pub fn len(&self) -> usize {
        self.blocks.len()
    }

    /// Bytes of the blocks in memory, the writer's included.
    pub fn held_bytes(&self) -> usize {
        self.held_bytes
    }
}

/// The first in the order of hashes.
fn lowest() -> BlockHash {
    use bitcoin::hashes::Hash;
    BlockHash::all_zeros()
}

#[cfg(test)]
mod tests {
    use bitcoin::hashes::Hash;

    use super::*;

    fn hash(n: u8) -> BlockHash {
        BlockHash::hash(&[n])
    }

    fn arrive(reorder: &mut Reorder, n: u8, len_bytes: usize, is_first: bool) -> bool {
        reorder.arrived(hash(n), Height(u32::from(n)), PeerId(1), len_bytes, is_first)
    }

    #[test]
    fn the_limit_is_exceeded_by_one_block_at_most() {
        let mut reorder = Reorder::new(1_000);
        assert!(arrive(&mut reorder, 2, 600, false));
        assert!(!arrive(&mut reorder, 3, 500, false), "it is not the one that all wait for");
        assert!(arrive(&mut reorder, 1, 500, true));
        assert!(!arrive(&mut reorder, 0, 500, true), "over the limit already");
        assert_eq!(reorder.held_bytes(), 1_100);

        reorder.release(&hash(1));
        assert!(arrive(&mut reorder, 4, 400, false));
        assert_eq!(reorder.held_bytes(), 1_000);
    }

    #[test]
    fn what_is_in_flight_is_expected_to_be_as_large_as_what_came() {
        let mut reorder = Reorder::new(10_000_000);
        assert!(reorder.fits(9) && !reorder.fits(10), "a guess at first");
        for n in 0..200 {
            assert!(arrive(&mut reorder, n, 1_000, false));
            reorder.release(&hash(n));
        }
        assert!(reorder.fits(9_000) && !reorder.fits(10_000));

        // One that had to be let go is not asked for again before there is room for it.
        assert!(arrive(&mut reorder, 1, 1_000, false));
        assert!(!arrive(&mut reorder, 2, 9_999_500, false));
        assert!(!reorder.fits(0));
        reorder.release(&hash(1));
        assert!(reorder.fits(0));
    }

    #[test]
    fn one_block_alone_is_always_let_in() {
        let mut reorder = Reorder::new(1_000);
        assert!(reorder.fits(0));
        assert!(arrive(&mut reorder, 1, 5_000, false));
        assert!(!reorder.fits(0));
        assert!(!arrive(&mut reorder, 2, 1, true));
    }
}
