//! The headers beside the best chain: nodes linked to their parents, bounded in number.
//!
//! Which header is best is decided by `tree`; here is only which node would be, and which are not worth keeping.

use std::cmp::Reverse;

use bitcoin::{BlockHash, CompactTarget, Work};
use chainstore::{Height, Tip};
use hashbrown::HashMap;

use super::trunk::Popped;

/// All headers beside the trunk. Each is linked, node by node, down to the trunk.
#[derive(Debug)]
pub(super) struct Branches {
    nodes: HashMap<BlockHash, Node>,
    limit: usize,
    /// Rank of the next header seen, counting up.
    next_rank: i64,
    /// Rank of the next header that leaves the trunk, counting down: it goes before all that never were best.
    next_demoted_rank: i64,
}

/// A header beside the trunk. It is never genesis.
#[derive(Clone, Copy, Debug)]
pub(super) struct Node {
    pub height: Height,
    pub prev: BlockHash,
    /// Unix seconds.
    pub time: u32,
    pub bits: CompactTarget,
    /// Total work up to and including it.
    pub work: Work,
    /// Its block, or one below it, broke the rules.
    pub invalid: bool,
    /// Among equal work the lowest is best; given by [`Branches`].
    rank: i64,
}

impl Node {
    /// A header just seen; `rank` is given when it is put in.
    pub fn new(height: Height, prev: BlockHash, time: u32, bits: CompactTarget, work: Work) -> Self {
        Self { height, prev, time, bits, work, invalid: false, rank: 0 }
    }

    pub fn parent(&self) -> Tip {
        Tip { height: Height(self.height.0 - 1), hash: self.prev }
    }
}

impl Branches {
    pub fn new(limit: usize) -> Self {
        Self { nodes: HashMap::new(), limit, next_rank: 0, next_demoted_rank: -1 }
    }

    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    pub fn get(&self, hash: &BlockHash) -> Option<&Node> {
        self.nodes.get(hash)
    }

    pub fn remove(&mut self, hash: &BlockHash) -> Option<Node> {
        self.nodes.remove(hash)
    }

    /// Puts in a header just seen.
    pub fn insert(&mut self, hash: BlockHash, node: Node) {
        self.nodes.insert(hash, Node { rank: self.next_rank, ..node });
        self.next_rank += 1;
    }

    /// Puts in what was on the trunk.
    pub fn demote(&mut self, popped: Popped) {
        let Popped { height, hash, prev, time, bits, work } = popped;
        let rank = self.next_demoted_rank;
        self.next_demoted_rank -= 1;
        self.nodes.insert(hash, Node { rank, ..Node::new(height, prev, time, bits, work) });
    }

    /// Marks `root` and all that is built on it.
    pub fn mark_invalid(&mut self, root: BlockHash) {
        let Some(node) = self.nodes.get_mut(&root) else { return };
        node.invalid = true;
        let height = node.height;
        for (_, hash) in self.by_height(|node| node.height > height) {
            let parent = self.nodes.get(&hash).map(|node| node.prev);
            let doomed = parent.and_then(|parent| self.nodes.get(&parent)).is_some_and(|node| node.invalid);
            if doomed && let Some(node) = self.nodes.get_mut(&hash) {
                node.invalid = true;
            }
        }
    }

    /// The best valid header with more work than `than`.
    pub fn best(&self, than: Work) -> Option<BlockHash> {
        self.nodes
            .iter()
            .filter(|(_, node)| !node.invalid && node.work > than)
            .max_by_key(|(_, node)| (node.work, Reverse(node.rank)))
            .map(|(&hash, _)| hash)
    }

    /// Holds the bound: the branches with the least work go, invalid ones first. A tenth goes at once, so that the
    /// search pays.
    pub fn forget_weakest(&mut self) {
        if self.nodes.len() <= self.limit {
            return;
        }
        // A node is worth the most work that it leads to, so it never goes before its descendants.
        let mut worth: HashMap<BlockHash, Work> = HashMap::with_capacity(self.nodes.len());
        let order = self.by_height(|_| true);
        for (_, hash) in order.iter().rev() {
            let Some(node) = self.nodes.get(hash) else { continue };
            let own = if node.invalid { Work::from_be_bytes([0; 32]) } else { node.work };
            let led_to = worth.get(hash).map_or(own, |&best| best.max(own));
            worth.insert(*hash, led_to);
            let parent = worth.entry(node.prev).or_insert(led_to);
            *parent = led_to.max(*parent);
        }
        let mut order: Vec<_> = order
            .into_iter()
            .map(|(height, hash)| (worth.get(&hash).copied(), Reverse(height), hash))
            .collect();
        order.sort_unstable();
        let keep = self.limit - self.limit / 10;
        for (_, _, hash) in order.iter().take(self.nodes.len() - keep) {
            self.nodes.remove(hash);
        }
    }

    /// Nodes with their heights, parents first, in an order that does not depend on the hash table.
    fn by_height(&self, filter: impl Fn(&Node) -> bool) -> Vec<(Height, BlockHash)> {
        let mut nodes: Vec<_> = self
            .nodes
            .iter()
            .filter(|(_, node)| filter(node))
            .map(|(&hash, node)| (node.height, hash))
            .collect();
        nodes.sort_unstable();
        nodes
    }
}
