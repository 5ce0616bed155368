//! A merkle tree over header hashes that only grows at its end: proofs up to any height in some twenty reads.
//!
//! The nodes of all *complete* subtrees lie in the order in which they become complete: leaf, then each parent
//! that this leaf completes. So `n` leaves have `2n - popcount(n)` nodes, the tree of fewer leaves is a prefix,
//! and appending never overwrites. Bitcoin's merkle tree pads an odd level with its last node; those nodes, one a
//! level at most, are hashed when a proof is made.
//! Source: Electrum protocol, `cp_height` of blockchain.block.header; ElectrumX computes the same roots.

use bitcoin::hashes::{Hash, HashEngine, sha256d};

use crate::error::Error;

/// Nodes that `leaves` leaves have.
pub(crate) fn node_count(leaves: u32) -> u32 {
    // 2^31 headers are forty thousand years away; the caller checks heights against the file's length.
    leaves.wrapping_mul(2).wrapping_sub(leaves.count_ones())
}

/// Place of the node that covers leaves `index << level` up to `(index + 1) << level`.
fn position(level: u32, index: u32) -> u32 {
    let last_leaf = ((index + 1) << level) - 1;
    node_count(last_leaf) + level
}

fn parent(left: &[u8; 32], right: &[u8; 32]) -> [u8; 32] {
    let mut engine = sha256d::Hash::engine();
    engine.input(left);
    engine.input(right);
    sha256d::Hash::from_engine(engine).to_byte_array()
}

/// The nodes that `hashes` add to a tree of `leaves` leaves; `read` gives a node already kept.
pub(crate) fn append(
    leaves: u32,
    hashes: impl IntoIterator<Item = [u8; 32]>,
    read: impl Fn(u32) -> Result<[u8; 32], Error>,
) -> Result<Vec<[u8; 32]>, Error> {
    let start = node_count(leaves);
    let mut nodes: Vec<[u8; 32]> = Vec::new();
    for (leaf, hash) in (leaves..).zip(hashes) {
        let mut node = hash;
        nodes.push(node);
        for level in 0..leaf.trailing_ones() {
            let place = position(level, (leaf >> level) - 1);
            let left = if place < start { read(place)? } else { nodes[(place - start) as usize] };
            node = parent(&left, &node);
            nodes.push(node);
        }
    }
    Ok(nodes)
}

/// Branch and root of leaf `index` in bitcoin's merkle tree over the first `leaves` leaves, `index < leaves`.
///
/// `read` gives the hash of a complete subtree by level and index.
pub(crate) fn prove(
    index: u32,
    leaves: u32,
    read: impl Fn(u32, u32) -> Result<[u8; 32], Error>,
) -> Result<(Vec<[u8; 32]>, [u8; 32]), Error> {
    let mut branch = Vec::new();
    let (mut level, mut here, mut last) = (0, index, leaves - 1);
    // The level's last node; when it is incomplete it was hashed from the level below, else it is read.
    let mut edge = read(0, last)?;
    while last > 0 {
        let sibling = (here ^ 1).min(last);
        branch.push(if sibling == last { edge } else { read(level, sibling)? });
        let left = if last % 2 == 1 { read(level, last - 1)? } else { edge };
        level += 1;
        here >>= 1;
        last >>= 1;
        let complete = u64::from(last + 1) << level <= u64::from(leaves);
        edge = if complete { read(level, last)? } else { parent(&left, &edge) };
    }
    Ok((branch, edge))
}

/// [`prove`]'s `read` over the nodes in their order.
pub(crate) fn by_position(
    read: impl Fn(u32) -> Result<[u8; 32], Error>,
) -> impl Fn(u32, u32) -> Result<[u8; 32], Error> {
    move |level, index| read(position(level, index))
}

/// [`prove`]'s `read` where only the nodes of the first `kept` leaves can be read; the others are hashed anew.
pub(crate) fn or_rehash(
    kept: u32,
    level: u32,
    index: u32,
    read: &dyn Fn(u32, u32) -> Result<[u8; 32], Error>,
    leaf: &dyn Fn(u32) -> Result<[u8; 32], Error>,
) -> Result<[u8; 32], Error> {
    if u64::from(index + 1) << level <= u64::from(kept) {
        read(level, index)
    } else if level == 0 {
        leaf(index)
    } else {
        let left = or_rehash(kept, level - 1, 2 * index, read, leaf)?;
        let right = or_rehash(kept, level - 1, 2 * index + 1, read, leaf)?;
        Ok(parent(&left, &right))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bitcoin's tree, level by level.
    fn naive(index: usize, leaves: &[[u8; 32]]) -> (Vec<[u8; 32]>, [u8; 32]) {
        let (mut level, mut here, mut branch) = (leaves.to_vec(), index, Vec::new());
        while level.len() > 1 {
            if level.len() % 2 == 1 {
                level.push(level[level.len() - 1]);
            }
            branch.push(level[here ^ 1]);
            here /= 2;
            level = level.as_chunks::<2>().0.iter().map(|[left, right]| parent(left, right)).collect();
        }
        (branch, level[0])
    }

    #[test]
    fn proofs_equal_those_of_the_whole_tree() {
        let leaves: Vec<[u8; 32]> = (0..70u8).map(|i| [i; 32]).collect();
        let mut nodes: Vec<[u8; 32]> = Vec::new();
        for (count, batch) in [(0, 1), (1, 5), (6, 2), (8, 29), (37, 33)] {
            let fresh =
                append(count, leaves[count as usize..][..batch].iter().copied(), |at| Ok(nodes[at as usize]))
                    .unwrap();
            nodes.extend(fresh);
            assert_eq!(nodes.len() as u32, node_count(count + batch as u32));
        }
        for count in 1..=70u32 {
            for index in 0..count {
                let wanted = naive(index as usize, &leaves[..count as usize]);
                let read = by_position(|at| Ok(nodes[at as usize]));
                assert_eq!(prove(index, count, &read).unwrap(), wanted, "{index} of {count}");
                for kept in [0, 1, 33, 64] {
                    let leaf = |at: u32| Ok(leaves[at as usize]);
                    let rehash = |level, index| or_rehash(kept, level, index, &read, &leaf);
                    assert_eq!(
                        prove(index, count, rehash).unwrap(),
                        wanted,
                        "{index} of {count}, {kept} kept"
                    );
                }
            }
        }
    }
}
