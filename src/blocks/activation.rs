//! What becomes of a checked block: the chain's next, one that waits, or one of another branch.
//!
//! The connected chain is left only for a branch that is on disk as a whole and has more work, so a branch whose
//! blocks are withheld never takes the old tip away. Which branch is worth downloading is not decided here.
//! Source: Bitcoin Core `ActivateBestChain`, `FindMostWorkChain`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bitcoin::BlockHash;
use chainstore::Tip;

use super::Output;
use crate::headers::HeaderTree;
use crate::validate::CheckedBlock;

/// `Connect`s that the writer may have before it: enough to keep it busy, few enough to change course soon.
const MAX_OUTSTANDING: usize = 32;

/// What to do with a block that was just checked.
#[derive(Debug)]
pub(super) enum Placed {
    /// It waits here for its parent.
    Waiting,
    /// It belongs to another branch.
    Store(CheckedBlock),
    /// Its header was found invalid meanwhile.
    Useless(BlockHash),
}

#[derive(Debug)]
pub(super) struct Activation {
    /// Where the chain stands once all that was handed on is done.
    handed: Tip,
    /// `Connect`s whose event has not come yet.
    outstanding: VecDeque<Tip>,
    switching: bool,
    /// Checked blocks above `handed`, by their parent.
    waiting: BTreeMap<BlockHash, Vec<CheckedBlock>>,
    /// On disk, not connected.
    stored: BTreeSet<BlockHash>,
    /// Whether `stored` or the chain changed since branches were last compared.
    compare: bool,
}

impl Activation {
    pub fn new(connected: Tip, stored: Vec<Tip>) -> Self {
        Self {
            handed: connected,
            outstanding: VecDeque::new(),
            switching: false,
            waiting: BTreeMap::new(),
            stored: stored.into_iter().map(|tip| tip.hash).collect(),
            compare: true,
        }
    }

    pub fn handed(&self) -> Tip {
        self.handed
    }

    /// Nothing that was handed on is still to come back.
    pub fn is_drained(&self) -> bool {
        self.outstanding.is_empty() && !self.switching
    }

    pub fn is_stored(&self, hash: BlockHash) -> bool {
        self.stored.contains(&hash)
    }

    pub fn place(&mut self, block: CheckedBlock, tree: &HeaderTree) -> Placed {
        let hash = block.hash();
        if tree.is_invalid(hash) {
            return Placed::Useless(hash);
        }
        // While switching it is not known what `handed` will be; on disk the block is safe whatever comes.
        let above = !self.switching && tree.ancestor(hash, self.handed.height) == Some(self.handed.hash);
        if above {
            self.waiting.entry(block.block().header.prev_blockhash).or_default().push(block);
            Placed::Waiting
        } else {
            Placed::Store(block)
        }
    }

    pub fn connected(&mut self, tip: Tip) {
        if self.outstanding.front() == Some(&tip) {
            self.outstanding.pop_front();
        }
        self.compare = true;
    }

    pub fn stored(&mut self, hash: BlockHash) {
        self.stored.insert(hash);
        self.compare = true;
    }

    pub fn switched(&mut self, tip: Tip, tree: &HeaderTree) {
        let from = std::mem::replace(&mut self.handed, tip);
        self.switching = false;
        self.compare = true;
        // What was connected is now on disk only, and the other way round.
        if let Some(fork) = tree.fork_point(from.hash, tip.hash) {
            self.stored.extend(tree.path(fork.hash, from.hash).into_iter().flatten());
            for hash in tree.path(fork.hash, tip.hash).into_iter().flatten() {
                self.stored.remove(&hash);
            }
        }
    }

    /// Gives back the blocks that were on their way and are void now.
    pub fn failed(&mut self, hash: BlockHash, tip: Tip, tree: &HeaderTree) -> Vec<BlockHash> {
        let mut void: Vec<BlockHash> = self.outstanding.drain(..).map(|tip| tip.hash).collect();
        void.extend(std::mem::take(&mut self.waiting).into_values().flatten().map(|block| block.hash()));
        self.stored.remove(&hash);
        // A switch that failed half-way may have left the chain lower than it was.
        if self.switching && self.handed != tip {
            self.stored.extend(tree.path(tip.hash, self.handed.hash).into_iter().flatten());
        }
        self.handed = tip;
        self.switching = false;
        self.compare = true;
        void
    }

    /// Blocks on headers that turned out invalid are of no use any more; gives back those that waited.
    pub fn forget_invalid(&mut self, tree: &HeaderTree) -> Vec<BlockHash> {
        let mut forgotten = Vec::new();
        self.waiting.retain(|_, siblings| {
            let invalid = siblings.extract_if(.., |block| tree.is_invalid(block.hash()));
            forgotten.extend(invalid.map(|block| block.hash()));
            !siblings.is_empty()
        });
        self.stored.retain(|hash| !tree.is_invalid(*hash));
        self.compare = true;
        forgotten
    }

    /// Hands on all that can be handed on.
    pub fn advance(&mut self, tree: &HeaderTree, outputs: &mut VecDeque<Output>) {
        if self.switching {
            return;
        }
        while self.outstanding.len() < MAX_OUTSTANDING
            && let Some(mut siblings) = self.waiting.remove(&self.handed.hash)
        {
            let next = siblings.iter().position(|block| tree.is_best(block.hash())).unwrap_or(0);
            let block = siblings.swap_remove(next);
            // Of several on the same parent one is connected; the others and what builds on them are a branch.
            for sibling in siblings {
                self.store_with_descendants(sibling, outputs);
            }
            self.handed = Tip { height: block.height(), hash: block.hash() };
            self.outstanding.push_back(self.handed);
            outputs.push_back(Output::Connect(block));
        }
        if self.outstanding.is_empty() && std::mem::take(&mut self.compare) {
            self.switch_to_better(tree, outputs);
        }
    }

    fn store_with_descendants(&mut self, block: CheckedBlock, outputs: &mut VecDeque<Output>) {
        let mut branch = vec![block];
        while let Some(block) = branch.pop() {
            branch.extend(self.waiting.remove(&block.hash()).into_iter().flatten());
            outputs.push_back(Output::Store(block));
        }
    }

    /// The branch on disk with the most work, if that is more than the connected chain's.
    fn switch_to_better(&mut self, tree: &HeaderTree, outputs: &mut VecDeque<Output>) {
        let Some(mut best_work) = tree.info(self.handed.hash).map(|info| info.work) else { return };
        let mut best = None;
        for &hash in &self.stored {
            let Some(info) = tree.info(hash) else { continue };
            if info.work > best_work
                && !tree.is_invalid(hash)
                && let Some(branch) = self.branch_on_disk(hash, tree)
            {
                (best, best_work) = (Some(branch), info.work);
            }
        }
        let Some((fork, connect)) = best else { return };
        // Blocks that waited for a parent on the old branch must not be lost.
        let waiting = std::mem::take(&mut self.waiting).into_values().flatten();
        outputs.extend(waiting.map(Output::Store));
        self.switching = true;
        outputs.push_back(Output::Switch { fork, connect });
    }

    /// The blocks from where the branch leaves the connected chain up to `tip`; `None` if one is not on disk.
    fn branch_on_disk(&self, tip: BlockHash, tree: &HeaderTree) -> Option<(Tip, Vec<BlockHash>)> {
        let fork = tree.fork_point(self.handed.hash, tip)?;
        let branch = tree.path(fork.hash, tip)?;
        branch.iter().all(|hash| self.stored.contains(hash)).then_some((fork, branch))
    }
}
