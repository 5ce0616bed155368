//! Where we stand, said to a peer in as few hashes as lets it find our last common block.
//!
//! Source: Bitcoin Core `chain.cpp` (`LocatorEntries`).

use bitcoin::BlockHash;
use chainstore::Height;

use super::tree::HeaderTree;
use crate::validate::Ancestors;

/// Hashes one by one before the steps double.
const DENSE: usize = 11;

impl HeaderTree {
    /// `hash` and the ten blocks below it, then doubling steps down to genesis: never more than 43 hashes, where
    /// peers allow 101. An unknown hash gives genesis alone.
    pub fn locator(&self, hash: BlockHash) -> Vec<BlockHash> {
        let Some(branch) = self.branch(hash) else { return vec![self.genesis_hash()] };
        let mut locator = Vec::with_capacity(32);
        let mut height = branch.tip_height().0;
        let mut step = 1;
        loop {
            locator.extend(branch.hash(Height(height)));
            if height == 0 {
                return locator;
            }
            if locator.len() >= DENSE {
                step *= 2;
            }
            height = height.saturating_sub(step);
        }
    }
}
