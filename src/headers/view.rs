//! The chain below one header, as the header rules ask for it.
//!
//! On the trunk every height is an array access. Beside it headers are linked to their parents only, so the view
//! remembers how far down it walked: the rules mostly ask from the tip downwards.

use std::cell::Cell;

use bitcoin::{BlockHash, CompactTarget};
use chainstore::Height;

use super::branches::Node;
use super::tree::HeaderTree;
use crate::validate::Ancestors;

/// A header of the tree with all that lies below it.
#[derive(Debug)]
pub struct Branch<'a> {
    tree: &'a HeaderTree,
    tip: (Height, BlockHash),
    /// Where the last walk ended: on or above the trunk.
    cursor: Cell<(Height, BlockHash)>,
}

impl<'a> Branch<'a> {
    /// `hash` must be in the tree, at `height`.
    pub(super) fn new(tree: &'a HeaderTree, height: Height, hash: BlockHash) -> Self {
        Self { tree, tip: (height, hash), cursor: Cell::new((height, hash)) }
    }

    /// Hash of the block at `height`; `None` above the tip.
    pub fn hash(&self, height: Height) -> Option<BlockHash> {
        if height > self.tip.0 {
            return None;
        }
        match self.node(height) {
            Some((hash, _)) => Some(hash),
            None => self.tree.hash_at(height),
        }
    }

    /// Walks down to the node at `height`, which is at most the tip's; `None` when that is on the trunk.
    fn node(&self, height: Height) -> Option<(BlockHash, &'a Node)> {
        let mut at = self.cursor.get();
        if at.0 < height {
            at = self.tip;
        }
        loop {
            self.cursor.set(at);
            let node = self.tree.branch_node(&at.1)?;
            if at.0 <= height {
                return Some((at.1, node));
            }
            at = (Height(at.0.0 - 1), node.prev);
        }
    }
}

impl Ancestors for Branch<'_> {
    fn tip_height(&self) -> Height {
        self.tip.0
    }

    fn time(&self, height: Height) -> u32 {
        match self.node(height) {
            Some((_, node)) => node.time,
            None => self.tree.trunk().time(height),
        }
    }

    fn bits(&self, height: Height) -> CompactTarget {
        match self.node(height) {
            Some((_, node)) => node.bits,
            None => self.tree.trunk().bits(height),
        }
    }
}
