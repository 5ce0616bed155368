//! Whether a block's scripts are known to be good: an ancestor of the assumed-valid block, far below the best header.
//!
//! Everything else about such a block is checked all the same. Without the distance whoever mines could press for a
//! setting that makes their bad block pass; without the minimum of work a chain that only looks like the known one,
//! fed to a node that is cut off, would.
//! Source: Bitcoin Core `ConnectBlock` (`script_check_reason`), `GetBlockProofEquivalentTime`.

use bitcoin::{BlockHash, Work};

use super::tree::HeaderTree;
use crate::validate::{BLOCK_SPACING, work_of};

/// How much later than a block the best header must be, in seconds of work at the best header's difficulty.
const BURIED_SECS: u32 = 14 * 24 * 60 * 60;

impl HeaderTree {
    /// Whether the scripts of a known block need not be run.
    pub fn assumes_scripts_of(&self, hash: BlockHash) -> bool {
        let Some(assumed) = self.params().assume_valid else { return false };
        let best = self.best();
        // The best chain's headers are asked first: it is cheap, and no block of another chain passes.
        let Some(info) = self.info(hash).filter(|_| self.is_best(hash)) else { return false };
        self.ancestor(assumed, info.height) == Some(hash)
            && best.work >= self.params().min_chain_work
            && self.info(best.hash).is_some_and(|tip| is_buried(info.work, best.work, work_of(tip.bits)))
    }
}

/// Whether the work above a block would take the last block's miners longer than that.
fn is_buried(below: Work, best: Work, last_block: Work) -> bool {
    best > below && times(best - below, BLOCK_SPACING) >= times(last_block, BURIED_SECS + 1)
}

/// Work as so many blocks; no chain has so much that this could overflow.
fn times(work: Work, count: u32) -> Work {
    let zero = Work::from_be_bytes([0; 32]);
    // By doubling, from the highest bit down.
    (0..u32::BITS).rev().fold(zero, |sum, bit| {
        let doubled = sum + sum;
        if count >> bit & 1 == 1 { doubled + work } else { doubled }
    })
}

#[cfg(test)]
mod tests {
    use bitcoin::block::Header;

    use super::super::testing::{NOW, chain, genesis, hashes, regtest};
    use super::*;
    use crate::validate::Params;

    fn work(number: u64) -> Work {
        let mut bytes = [0; 32];
        bytes[24..].copy_from_slice(&number.to_be_bytes());
        Work::from_be_bytes(bytes)
    }

    #[test]
    fn two_weeks_of_work_are_2016_blocks_and_a_little() {
        assert_eq!(times(work(7), BLOCK_SPACING), work(4_200));
        assert_eq!(times(work(1 << 30), 1_209_601), work((1 << 30) * 1_209_601));
        assert_eq!(times(work(7), 0), work(0));
        assert!(!is_buried(work(100), work(100 + 2_016 * 5), work(5)));
        assert!(is_buried(work(100), work(100 + 2_017 * 5), work(5)));
        assert!(!is_buried(work(100), work(90), work(5)));
    }

    fn tree(headers: &[&[Header]], change: impl FnOnce(&mut Params)) -> HeaderTree {
        let mut params = regtest().params().clone();
        change(&mut params);
        let mut tree = HeaderTree::new(params);
        for header in headers.iter().flat_map(|chain| chain.iter()) {
            tree.insert(*header, NOW).unwrap();
        }
        tree
    }

    #[test]
    fn scripts_are_assumed_below_the_known_block_and_far_below_the_best() {
        let long = chain(&genesis(), 0, 2_100);
        let names = hashes(&long);
        let assumed = |tree: &HeaderTree| names.iter().filter(|hash| tree.assumes_scripts_of(**hash)).count();
        let known = |at: usize| {
            let hash = names[at - 1];
            move |params: &mut Params| params.assume_valid = Some(hash)
        };
        assert_eq!(assumed(&tree(&[&long], |_| {})), 0, "nothing is known");
        assert_eq!(assumed(&tree(&[&long], known(50))), 50);
        // 2,017 blocks above it there is the best header.
        assert_eq!(assumed(&tree(&[&long], known(2_100))), 83);
        assert_eq!(assumed(&tree(&[&long[..2_050]], known(2_100))), 0, "the known block is not there");
        let poor = tree(&[&long], |params| {
            known(50)(params);
            params.min_chain_work = work(2 * 2_101 + 1);
        });
        assert_eq!(assumed(&poor), 0, "too little work in all");

        // A known block beside the best chain vouches for what it shares with it.
        let beside = chain(&long[29], 1, 10);
        let tree = tree(&[&long, &beside], |params| params.assume_valid = Some(hashes(&beside)[9]));
        assert_eq!(assumed(&tree), 30);
        assert!(hashes(&beside).iter().all(|hash| !tree.assumes_scripts_of(*hash)));
    }
}
