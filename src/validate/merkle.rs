//! Merkle roots of transaction and witness ids, and whether the list of leaves was tampered with.
//!
//! A list that ends in a repeated part hashes to the same root as the list without it (CVE-2012-2459), so equal
//! neighbours at any level mark a list as mutated: it says nothing about the header that commits to the root.
//! Source: Bitcoin Core `consensus/merkle.cpp`.

use bitcoin::hashes::{Hash, HashEngine, sha256d};

/// Root of `leaves`, and whether two equal hashes stand beside each other at any level.
///
/// The root of no leaves is all zeros, as in Core.
pub(super) fn root(mut leaves: Vec<sha256d::Hash>) -> (sha256d::Hash, bool) {
    let mut mutated = false;
    while leaves.len() > 1 {
        mutated |= leaves.chunks_exact(2).any(|pair| pair[0] == pair[1]);
        let parents = leaves.len().div_ceil(2);
        for parent in 0..parents {
            let left = leaves[2 * parent];
            let right = leaves.get(2 * parent + 1).copied().unwrap_or(left);
            leaves[parent] = join(left, right);
        }
        leaves.truncate(parents);
    }
    (leaves.first().copied().unwrap_or_else(sha256d::Hash::all_zeros), mutated)
}

fn join(left: sha256d::Hash, right: sha256d::Hash) -> sha256d::Hash {
    let mut engine = sha256d::Hash::engine();
    engine.input(left.as_byte_array());
    engine.input(right.as_byte_array());
    sha256d::Hash::from_engine(engine)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaves(numbers: &[u8]) -> Vec<sha256d::Hash> {
        numbers.iter().map(|number| sha256d::Hash::hash(&[*number])).collect()
    }

    #[test]
    fn a_repeated_tail_has_the_same_root_and_is_found_out() {
        for (plain, repeated) in [
            (&[1, 2, 3][..], &[1, 2, 3, 3][..]),
            (&[1, 2, 3, 4, 5, 6], &[1, 2, 3, 4, 5, 6, 5, 6]),
            (&[1, 2, 3, 4, 5], &[1, 2, 3, 4, 5, 5]),
        ] {
            let (root_of_plain, plain_mutated) = root(leaves(plain));
            let (root_of_repeated, repeated_mutated) = root(leaves(repeated));
            assert_eq!(root_of_plain, root_of_repeated);
            assert_eq!((plain_mutated, repeated_mutated), (false, true), "{plain:?}");
        }
    }

    #[test]
    fn one_leaf_is_its_own_root() {
        let leaf = sha256d::Hash::hash(b"coinbase");
        assert_eq!(root(vec![leaf]), (leaf, false));
        assert_eq!(root(vec![]), (sha256d::Hash::all_zeros(), false));
    }
}
