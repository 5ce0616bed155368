//! Every header we know: the best chain on the trunk, all else as nodes beside it.
//!
//! Best is the valid chain with the most work; of equals, the one that was best before, else the one seen first.
//! Headers enter when they pass the header rules, so what is in the tree and not marked invalid is valid as far as
//! headers can tell. The nodes beside the trunk are bounded: past [`MAX_BRANCH_HEADERS`] the branches with the
//! least work are forgotten, the invalid ones first, and asked for again should they ever matter.
//!
//! Whether a branch has enough work to be kept at all is `sync`'s question.
//! Source: Bitcoin Core `validation.cpp` (`AcceptBlockHeader`, `InvalidateBlock`).

use std::collections::BTreeSet;

use bitcoin::block::Header;
use bitcoin::{BlockHash, CompactTarget, Work};
use chainstore::{Height, Tip};
use thiserror::Error;

use super::branches::{Branches, Node};
use super::trunk::Trunk;
use super::view::Branch;
use crate::validate::{HeaderError, Params, check_header, check_proof_of_work, median_time_past, work_of};

/// Headers kept beside the trunk: room for forks of two years, in about 20 MB.
pub const MAX_BRANCH_HEADERS: usize = 100_000;

/// The end of a chain, with the work that is in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeaderTip {
    pub height: Height,
    pub hash: BlockHash,
    /// Total work from genesis on.
    pub work: Work,
}

impl HeaderTip {
    /// The same without the work.
    pub fn tip(&self) -> Tip {
        Tip { height: self.height, hash: self.hash }
    }
}

/// What is known of a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeaderInfo {
    pub height: Height,
    /// All zeros for genesis.
    pub prev: BlockHash,
    /// Unix seconds.
    pub time: u32,
    pub bits: CompactTarget,
    /// Total work from genesis on.
    pub work: Work,
    /// Its block, or one below it, broke the rules.
    pub invalid: bool,
}

/// What became of a header that passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inserted {
    /// It was there.
    Known,
    /// It is beside the best chain.
    SideBranch,
    /// The best chain is one longer.
    Extended,
    /// It ends another chain, which has become the best; the old one is left at `fork`.
    Reorganized { fork: Tip },
}

/// Why a header did not enter the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum InsertError {
    #[error(transparent)]
    Rule(#[from] HeaderError),
    #[error("its parent {prev} is not known")]
    Orphan { prev: BlockHash },
    #[error("{hash} is on a chain with an invalid block")]
    InvalidChain { hash: BlockHash },
}

/// See the module.
#[derive(Debug)]
pub struct HeaderTree {
    params: Params,
    trunk: Trunk,
    branches: Branches,
    /// Headers whose own block broke the rules, also such as were forgotten.
    condemned: BTreeSet<BlockHash>,
}

impl HeaderTree {
    /// A tree that knows genesis only.
    pub fn new(params: Params) -> Self {
        Self::with_branch_limit(params, MAX_BRANCH_HEADERS)
    }

    /// The same with another bound on the headers beside the best chain.
    pub fn with_branch_limit(params: Params, max_branch_headers: usize) -> Self {
        let genesis = params.genesis.header;
        Self {
            trunk: Trunk::new(genesis.block_hash(), genesis.time, genesis.bits),
            params,
            branches: Branches::new(max_branch_headers),
            condemned: BTreeSet::new(),
        }
    }

    /// The rules by which headers enter.
    pub fn params(&self) -> &Params {
        &self.params
    }

    /// Takes a header in if it passes rungs 0 and 1. `now_unix` is our clock, in seconds.
    pub fn insert(&mut self, header: Header, now_unix: u64) -> Result<Inserted, InsertError> {
        self.insert_checked(header, |tree, parent, hash| {
            check_header(&header, &tree.branch_at(parent, hash), now_unix, &tree.params)
        })
    }

    /// Takes in a header that entered once before and was kept since: its proof of work and its link are checked
    /// again, as they cost nothing beside its hash, and the other rules are not.
    ///
    /// Parents come before children; invalid marks come after both, by [`Self::mark_invalid`].
    pub fn insert_stored(&mut self, header: Header) -> Result<Inserted, InsertError> {
        self.insert_checked(header, |_, _, _| Ok(()))
    }

    /// The best chain's end; genesis at first.
    pub fn best(&self) -> HeaderTip {
        HeaderTip {
            height: self.trunk.tip_height(),
            hash: self.trunk.tip_hash(),
            work: self.trunk.tip_work(),
        }
    }

    /// Time of the best chain's last header, in Unix seconds.
    pub fn best_time(&self) -> u32 {
        self.trunk.time(self.trunk.tip_height())
    }

    /// Hash of the first block.
    pub fn genesis_hash(&self) -> BlockHash {
        self.params.genesis_hash()
    }

    /// The block of the best chain at `height`; `None` above its tip.
    pub fn hash_at(&self, height: Height) -> Option<BlockHash> {
        self.trunk.hash(height)
    }

    /// Whether the header is in the tree, valid or not.
    pub fn contains(&self, hash: BlockHash) -> bool {
        self.height(hash).is_some()
    }

    /// Whether the header is in the best chain.
    pub fn is_best(&self, hash: BlockHash) -> bool {
        self.trunk.height_of(&hash).is_some()
    }

    /// Height of a known header.
    pub fn height(&self, hash: BlockHash) -> Option<Height> {
        match self.branches.get(&hash) {
            Some(node) => Some(node.height),
            None => self.trunk.height_of(&hash),
        }
    }

    /// All about a known header. In the best chain its work is a sum of up to 2,015 parts: microseconds, so not for
    /// loops; [`Self::height`] is cheap.
    pub fn info(&self, hash: BlockHash) -> Option<HeaderInfo> {
        if let Some(node) = self.branches.get(&hash) {
            let Node { height, prev, time, bits, work, invalid, .. } = *node;
            return Some(HeaderInfo { height, prev, time, bits, work, invalid });
        }
        let height = self.trunk.height_of(&hash)?;
        let prev = height.prev().and_then(|below| self.trunk.hash(below));
        Some(HeaderInfo {
            height,
            prev: prev.unwrap_or(self.params.genesis.header.prev_blockhash),
            time: self.trunk.time(height),
            bits: self.trunk.bits(height),
            work: self.trunk.work(height),
            invalid: false,
        })
    }

    /// Whether its block, or one below it, broke the rules.
    pub fn is_invalid(&self, hash: BlockHash) -> bool {
        self.branches.get(&hash).is_some_and(|node| node.invalid) || self.condemned.contains(&hash)
    }

    /// The chain that ends at a known header.
    pub fn branch(&self, hash: BlockHash) -> Option<Branch<'_>> {
        Some(self.branch_at(self.height(hash)?, hash))
    }

    /// The block at `height` of the chain that ends at `hash`; `None` when `hash` is unknown or lower.
    pub fn ancestor(&self, hash: BlockHash, height: Height) -> Option<BlockHash> {
        self.branch(hash)?.hash(height)
    }

    /// Median time past of a known header: that of the eleven blocks up to and including it, in Unix seconds.
    pub fn median_time_past(&self, hash: BlockHash) -> Option<u32> {
        Some(median_time_past(&self.branch(hash)?))
    }

    /// The last block that the chains of `a` and `b` share; `None` when one is unknown.
    pub fn fork_point(&self, a: BlockHash, b: BlockHash) -> Option<Tip> {
        let mut a = Tip { height: self.height(a)?, hash: a };
        let mut b = Tip { height: self.height(b)?, hash: b };
        while a.hash != b.hash {
            match (self.branches.get(&a.hash), self.branches.get(&b.hash)) {
                // On the trunk the lower one is an ancestor of the higher.
                (None, None) => return Some(if a.height < b.height { a } else { b }),
                (Some(node), None) => a = node.parent(),
                (Some(node), Some(_)) if a.height >= b.height => a = node.parent(),
                (None | Some(_), Some(node)) => b = node.parent(),
            }
        }
        Some(a)
    }

    /// The blocks above `from` up to and including `to`, lowest first; `None` when one is unknown or `from` is not in
    /// the chain of `to`.
    pub fn path(&self, from: BlockHash, to: BlockHash) -> Option<Vec<BlockHash>> {
        let from_height = self.height(from)?;
        let mut path = Vec::new();
        let mut at = Tip { height: self.height(to)?, hash: to };
        while at.height > from_height
            && let Some(node) = self.branches.get(&at.hash)
        {
            path.push(at.hash);
            at = node.parent();
        }
        // The walk ended at the height of `from`, or on the trunk above it.
        let met = if at.height > from_height { self.trunk.hash(from_height) } else { Some(at.hash) };
        if met != Some(from) {
            return None;
        }
        let on_trunk = (from_height.0 + 1..=at.height.0).rev();
        path.extend(on_trunk.filter_map(|height| self.trunk.hash(Height(height))));
        path.reverse();
        Some(path)
    }

    /// Headers kept beside the best chain.
    pub fn branch_headers(&self) -> usize {
        self.branches.len()
    }

    /// Records that the block `hash` broke the rules, so it and what is built on it never are best. Returns whether
    /// the best chain changed. An unknown hash is remembered; genesis is valid by definition.
    pub fn mark_invalid(&mut self, hash: BlockHash) -> bool {
        if hash == self.genesis_hash() {
            return false;
        }
        self.condemned.insert(hash);
        let Some(height) = self.height(hash) else { return false };
        let was_best = self.is_best(hash);
        if was_best {
            self.demote_above(Height(height.0 - 1));
        }
        self.branches.mark_invalid(hash);
        if was_best {
            if let Some(best) = self.branches.best(self.trunk.tip_work()) {
                self.switch_to(best);
            }
            self.branches.forget_weakest();
        }
        was_best
    }

    pub(super) fn trunk(&self) -> &Trunk {
        &self.trunk
    }

    pub(super) fn branch_node(&self, hash: &BlockHash) -> Option<&Node> {
        self.branches.get(hash)
    }

    fn branch_at(&self, height: Height, hash: BlockHash) -> Branch<'_> {
        Branch::new(self, height, hash)
    }

    /// `check` is given the parent.
    fn insert_checked(
        &mut self,
        header: Header,
        check: impl FnOnce(&Self, Height, BlockHash) -> Result<(), HeaderError>,
    ) -> Result<Inserted, InsertError> {
        let hash = header.block_hash();
        if self.is_invalid(hash) {
            return Err(InsertError::InvalidChain { hash });
        }
        if self.contains(hash) {
            return Ok(Inserted::Known);
        }
        check_proof_of_work(&header, hash, &self.params)?;
        let prev = header.prev_blockhash;
        if self.is_invalid(prev) {
            return Err(InsertError::InvalidChain { hash });
        }
        let parent = self.height(prev).ok_or(InsertError::Orphan { prev })?;
        check(self, parent, prev)?;

        if prev == self.trunk.tip_hash() {
            self.trunk.push(hash, header.time, header.bits);
            return Ok(Inserted::Extended);
        }
        let below = match self.branches.get(&prev) {
            Some(node) => node.work,
            None => self.trunk.work(parent),
        };
        let work = below + work_of(header.bits);
        let node = Node::new(parent.next(), prev, header.time, header.bits, work);
        self.branches.insert(hash, node);
        let inserted = if work > self.trunk.tip_work() {
            Inserted::Reorganized { fork: self.switch_to(hash) }
        } else {
            Inserted::SideBranch
        };
        self.branches.forget_weakest();
        Ok(inserted)
    }

    /// Makes the chain of a node beside the trunk the trunk; returns where the two part.
    fn switch_to(&mut self, tip: BlockHash) -> Tip {
        let mut path = Vec::new();
        let mut at = tip;
        while let Some(node) = self.branches.remove(&at) {
            path.push((at, node));
            at = node.prev;
        }
        let fork = self.trunk.height_of(&at).expect("every branch starts on the trunk");
        self.demote_above(fork);
        for (hash, node) in path.into_iter().rev() {
            self.trunk.push(hash, node.time, node.bits);
        }
        Tip { height: fork, hash: at }
    }

    /// Takes all above `keep` off the trunk and puts it beside. The bound is held by the caller when all is linked
    /// again, as a branch may hang on any of it.
    fn demote_above(&mut self, keep: Height) {
        while self.trunk.tip_height() > keep
            && let Some(popped) = self.trunk.pop()
        {
            self.branches.demote(popped);
        }
    }
}

#[cfg(test)]
#[path = "tree_tests.rs"]
mod tests;
