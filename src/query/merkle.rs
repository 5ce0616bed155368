//! The way from a transaction up to its block's merkle root.
//!
//! Takes the ids of a whole block that was parsed and checked, so the leaves are transactions and no inner nodes
//! (CVE-2017-12842), and no list that ends in copies of itself (CVE-2012-2459).
//! Source: Bitcoin Core `consensus/merkle` (`TransactionMerklePath`).

use bitcoin::hashes::{Hash as _, HashEngine as _, sha256d};

/// Siblings of the leaf at `pos` and of its parents, deepest first; `None` when there is no such leaf.
///
/// Where a row ends without a pair, its last node is its own sibling.
pub fn merkle_branch(leaves: &[sha256d::Hash], pos: usize) -> Option<Vec<sha256d::Hash>> {
    leaves.get(pos)?;
    let mut branch = Vec::new();
    let (mut row, mut index) = (leaves.to_vec(), pos);
    while row.len() > 1 {
        let sibling = (index ^ 1).min(row.len() - 1);
        branch.push(row[sibling]);
        row = row.chunks(2).map(|pair| parent(pair[0], pair[pair.len() - 1])).collect();
        index /= 2;
    }
    Some(branch)
}

fn parent(left: sha256d::Hash, right: sha256d::Hash) -> sha256d::Hash {
    let mut engine = sha256d::Hash::engine();
    engine.input(left.as_byte_array());
    engine.input(right.as_byte_array());
    sha256d::Hash::from_engine(engine)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaves(count: u32) -> Vec<sha256d::Hash> {
        (0..count).map(|index| sha256d::Hash::hash(&index.to_le_bytes())).collect()
    }

    /// What a wallet computes from a proof.
    fn climb(leaf: sha256d::Hash, mut pos: usize, branch: &[sha256d::Hash]) -> sha256d::Hash {
        branch.iter().fold(leaf, |node, sibling| {
            let up = if pos.is_multiple_of(2) { parent(node, *sibling) } else { parent(*sibling, node) };
            pos /= 2;
            up
        })
    }

    #[test]
    fn every_leaf_of_every_block_size_climbs_to_the_same_root() {
        for count in 1..70 {
            let leaves = leaves(count);
            let root = bitcoin::merkle_tree::calculate_root(leaves.iter().copied()).unwrap();
            for (pos, leaf) in leaves.iter().enumerate() {
                let branch = merkle_branch(&leaves, pos).unwrap();
                assert_eq!(climb(*leaf, pos, &branch), root, "leaf {pos} of {count}");
            }
        }
    }

    #[test]
    fn there_is_no_branch_to_a_leaf_that_is_not_there() {
        assert_eq!(merkle_branch(&leaves(3), 3), None);
        assert_eq!(merkle_branch(&[], 0), None);
        assert_eq!(merkle_branch(&leaves(1), 0), Some(Vec::new()));
    }
}
