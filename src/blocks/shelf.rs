//! The blocks that lie on disk beside the connected chain, and the best chain that can be made of them.
//!
//! A block is *linked* when no block is missing between it and the connected chain. Only linked blocks can be switched
//! to. That there is a reason to switch, and when, is decided by `activation`.

use std::collections::{BTreeMap, BTreeSet};

use bitcoin::BlockHash;
use chainstore::Tip;

use crate::headers::{HeaderTip, HeaderTree};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Shelf {
    blocks: BTreeSet<BlockHash>,
    linked: BTreeSet<BlockHash>,
    /// Blocks whose parent is neither connected nor linked, by that parent.
    gaps: BTreeMap<BlockHash, Vec<BlockHash>>,
    /// The linked block with the most work; of equals the first.
    best: Option<HeaderTip>,
}

impl Shelf {
    /// `blocks` may be any that are on disk, also connected ones; [`Self::sort`] must follow.
    pub fn new(blocks: impl IntoIterator<Item = BlockHash>) -> Self {
        Self { blocks: blocks.into_iter().collect(), ..Self::default() }
    }

    pub fn contains(&self, hash: &BlockHash) -> bool {
        self.blocks.contains(hash)
    }

    /// The end of the best chain that can be switched to.
    pub fn best(&self) -> Option<HeaderTip> {
        self.best
    }

    /// Works out anew what is linked: the connected chain changed its course, or headers were found invalid.
    pub fn sort(&mut self, connected: Tip, tree: &HeaderTree, is_barred: impl Fn(&BlockHash) -> bool) {
        self.linked.clear();
        self.gaps.clear();
        self.best = None;
        let mut by_height: Vec<_> =
            self.blocks.iter().filter_map(|hash| Some((tree.height(*hash)?, *hash))).collect();
        by_height.sort_unstable();
        for (_, hash) in by_height {
            self.link(hash, connected, tree, &is_barred);
        }
    }

    /// A block was written to disk.
    pub fn add(
        &mut self,
        hash: BlockHash,
        connected: Tip,
        tree: &HeaderTree,
        is_barred: impl Fn(&BlockHash) -> bool,
    ) {
        if self.blocks.insert(hash) {
            self.link(hash, connected, tree, &is_barred);
        }
    }

    /// The chain grew by one block: what waited for it is linked now.
    pub fn connected(&mut self, tip: Tip, tree: &HeaderTree, is_barred: impl Fn(&BlockHash) -> bool) {
        self.blocks.remove(&tip.hash);
        self.linked.remove(&tip.hash);
        let children = self.gaps.remove(&tip.hash).unwrap_or_default();
        self.link_with_descendants(children, tree, &is_barred);
    }

    /// The chain was moved from `old` to `new`: what it left is on disk, what it took is not beside it any more.
    /// [`Self::sort`] must follow.
    pub fn moved(&mut self, old: Tip, new: Tip, tree: &HeaderTree) {
        let Some(fork) = tree.fork_point(old.hash, new.hash) else { return };
        self.blocks.extend(tree.path(fork.hash, old.hash).into_iter().flatten());
        for hash in tree.path(fork.hash, new.hash).into_iter().flatten() {
            self.blocks.remove(&hash);
        }
    }

    fn link(
        &mut self,
        hash: BlockHash,
        connected: Tip,
        tree: &HeaderTree,
        is_barred: &impl Fn(&BlockHash) -> bool,
    ) {
        let Some(info) = tree.info(hash) else { return };
        let on_chain = |height, hash| tree.ancestor(connected.hash, height) == Some(hash);
        if on_chain(info.height, hash) {
            return;
        }
        let parent_on_chain = info.height.prev().is_some_and(|below| on_chain(below, info.prev));
        if parent_on_chain || self.linked.contains(&info.prev) {
            self.link_with_descendants(vec![hash], tree, is_barred);
        } else {
            self.gaps.entry(info.prev).or_default().push(hash);
        }
    }

    /// A list and no recursion: as many blocks may hang on one as there are on disk.
    fn link_with_descendants(
        &mut self,
        mut blocks: Vec<BlockHash>,
        tree: &HeaderTree,
        is_barred: &impl Fn(&BlockHash) -> bool,
    ) {
        while let Some(hash) = blocks.pop() {
            let Some(info) = tree.info(hash).filter(|info| !info.invalid && !is_barred(&hash)) else {
                continue;
            };
            self.linked.insert(hash);
            if self.best.is_none_or(|best| best.work < info.work) {
                self.best = Some(HeaderTip { height: info.height, hash, work: info.work });
            }
            blocks.extend(self.gaps.remove(&hash).unwrap_or_default());
        }
    }
}
