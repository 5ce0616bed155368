//! The way from a transaction up to its block's merkle root.
//!
//! Hashing a whole block for one proof costs a third of a millisecond. So the third row of each block that was asked
//! for, and all above it, are kept for a while: a quarter of what its txids take. A proof then hashes four nodes
//! below, and reads the rest.
//! Source: Bitcoin Core `consensus/merkle` (`TransactionMerklePath`).

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use bitcoin::hashes::{Hash, sha256d};
use bitcoin::{BlockHash, Txid};

/// Rows below the lowest that is kept, and the leaves that one of its nodes stands for.
const KEPT_ROW: usize = 3;
pub(crate) const LEAVES: usize = 1 << KEPT_ROW;
/// Nodes that are kept, of 32 bytes each.
const MAX_NODES: usize = 1024 * 1024;

/// Siblings of the leaf at `pos` and of its parents, deepest first; `None` when there is no such leaf.
///
/// Where a row ends without a pair, its last node is its own sibling.
pub(crate) fn branch(leaves: Vec<sha256d::Hash>, pos: usize) -> Option<Vec<sha256d::Hash>> {
    leaves.get(pos)?;
    let mut branch = Vec::new();
    let (mut row, mut index) = (leaves, pos);
    while row.len() > 1 {
        branch.push(row[(index ^ 1).min(row.len() - 1)]);
        climb(&mut row);
        index /= 2;
    }
    Some(branch)
}

/// The part of a branch below the kept rows: `leaves` are those of one of its nodes.
pub(crate) fn lower_branch(leaves: &[sha256d::Hash], pos: usize) -> Option<Vec<sha256d::Hash>> {
    leaves.get(pos)?;
    let mut branch = Vec::with_capacity(16);
    branch.extend((0..KEPT_ROW).map(|row| node(leaves, row, (pos >> row) ^ 1)));
    Some(branch)
}

/// The node at a place of a row above these leaves, which are some; past the end of the row its last.
fn node(leaves: &[sha256d::Hash], row: usize, index: usize) -> sha256d::Hash {
    let index = index.min((leaves.len() - 1) >> row);
    match row.checked_sub(1) {
        None => leaves[index],
        Some(below) => parent(node(leaves, below, 2 * index), node(leaves, below, 2 * index + 1)),
    }
}

/// Puts the row above in the place of one.
fn climb(row: &mut Vec<sha256d::Hash>) {
    for at in 0..row.len().div_ceil(2) {
        let right = (2 * at + 1).min(row.len() - 1);
        row[at] = parent(row[2 * at], row[right]);
    }
    row.truncate(row.len().div_ceil(2));
}

/// The part of a branch in the kept rows, of which the lowest has `nodes`, from a node of that on.
pub(crate) fn upper_branch(rows: &[sha256d::Hash], nodes: usize, mut index: usize) -> Vec<sha256d::Hash> {
    let (mut row, mut rest) = rows.split_at(nodes.min(rows.len()));
    let mut branch = Vec::with_capacity(16);
    while row.len() > 1 {
        branch.extend(row.get((index ^ 1).min(row.len() - 1)));
        index /= 2;
        let above = row.len().div_ceil(2);
        (row, rest) = rest.split_at(above.min(rest.len()));
    }
    branch
}

/// The third row above these leaves, which are more than one of its nodes has, then the row above that, up to the root.
fn kept_rows(leaves: Vec<Txid>) -> Arc<[sha256d::Hash]> {
    let mut row: Vec<_> = leaves.into_iter().map(Txid::to_raw_hash).collect();
    (0..KEPT_ROW).for_each(|_| climb(&mut row));
    let mut rows = row.clone();
    while row.len() > 1 {
        climb(&mut row);
        rows.extend_from_slice(&row);
    }
    rows.into()
}

fn parent(left: sha256d::Hash, right: sha256d::Hash) -> sha256d::Hash {
    let mut pair = [0; 64];
    pair[..32].copy_from_slice(left.as_byte_array());
    pair[32..].copy_from_slice(right.as_byte_array());
    sha256d::Hash::hash(&pair)
}

/// Rows of the blocks that were asked for last.
#[derive(Debug, Default)]
pub(crate) struct MerkleCache(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    rows: HashMap<BlockHash, Arc<[sha256d::Hash]>>,
    /// Oldest first.
    order: VecDeque<BlockHash>,
    nodes: usize,
}

impl MerkleCache {
    /// The kept rows of a block, made from its txids if they are not there.
    pub(crate) fn rows<E>(
        &self,
        block: BlockHash,
        txids: impl FnOnce() -> Result<Vec<Txid>, E>,
    ) -> Result<Arc<[sha256d::Hash]>, E> {
        let kept = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(row) = kept().rows.get(&block) {
            return Ok(row.clone());
        }
        // Not under the lock: others need not wait for it.
        let row = kept_rows(txids()?);
        let mut kept = kept();
        if kept.rows.insert(block, row.clone()).is_none() {
            kept.order.push_back(block);
            kept.nodes += row.len();
            while kept.nodes > MAX_NODES
                && let Some(oldest) = kept.order.pop_front()
            {
                kept.nodes -= kept.rows.remove(&oldest).map_or(0, |row| row.len());
            }
        }
        Ok(row)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaves(count: u32) -> Vec<sha256d::Hash> {
        (0..count).map(|index| sha256d::Hash::hash(&index.to_le_bytes())).collect()
    }

    /// What a wallet computes from a proof.
    fn root_by(leaf: sha256d::Hash, mut pos: usize, branch: &[sha256d::Hash]) -> sha256d::Hash {
        branch.iter().fold(leaf, |node, sibling| {
            let up = if pos.is_multiple_of(2) { parent(node, *sibling) } else { parent(*sibling, node) };
            pos /= 2;
            up
        })
    }

    #[test]
    fn every_leaf_of_every_block_size_climbs_to_the_same_root() {
        for count in 1..140 {
            let leaves = leaves(count);
            let root = bitcoin::merkle_tree::calculate_root(leaves.iter().copied()).unwrap();
            for (pos, leaf) in leaves.iter().enumerate() {
                let whole = branch(leaves.clone(), pos).unwrap();
                assert_eq!(root_by(*leaf, pos, &whole), root, "leaf {pos} of {count}");
                if leaves.len() > LEAVES {
                    let txids: Vec<Txid> = leaves.iter().map(|leaf| Txid::from_raw_hash(*leaf)).collect();
                    let chunk = leaves.chunks(LEAVES).nth(pos / LEAVES).unwrap().to_vec();
                    let mut parts = lower_branch(&chunk, pos % LEAVES).unwrap();
                    let nodes = leaves.len().div_ceil(LEAVES);
                    parts.extend(upper_branch(&kept_rows(txids), nodes, pos / LEAVES));
                    assert_eq!(parts, whole, "leaf {pos} of {count}");
                }
            }
        }
    }

    #[test]
    fn a_leaf_that_is_not_there_has_no_proof() {
        assert_eq!(branch(leaves(3), 3), None);
        assert_eq!(branch(leaves(0), 0), None);
        assert_eq!(lower_branch(&leaves(3), 3), None);
    }

    #[test]
    fn what_is_kept_is_bounded_and_the_oldest_goes() {
        let cache = MerkleCache::default();
        let txids: Vec<Txid> = leaves(64).into_iter().map(Txid::from_raw_hash).collect();
        let block = |number: u32| BlockHash::hash(&number.to_le_bytes());
        let mut made = 0;
        let mut ask = |number| {
            let rows = cache.rows::<()>(block(number), || {
                made += 1;
                Ok(txids.clone())
            });
            assert_eq!(rows.unwrap().len(), 8 + 4 + 2 + 1);
            made
        };
        let most = (MAX_NODES / 15) as u32;
        assert_eq!((ask(0), ask(0)), (1, 1));
        for number in 1..most {
            ask(number);
        }
        assert_eq!(ask(0), most);
        assert_eq!(ask(most), most + 1);
        assert_eq!(ask(0), most + 2);
    }
}
