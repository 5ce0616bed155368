//! Where the chain stands, and what its writer is told next.
//!
//! A block whose parent was handed on is connected; all others are kept on disk until their branch, as far as it is
//! there without a gap, has more work than the connected chain: then the writer switches to it, all or nothing. So a
//! branch whose blocks are withheld never takes the old tip away, and of a branch that turns out invalid the part
//! below the bad block is followed if that is the best there is.
//! `Connect`s are pipelined; a switch waits until all of them are answered, and they wait for the switch.
//! Source: Bitcoin Core `ActivateBestChain`, `FindMostWorkChain`.

use std::collections::{BTreeSet, VecDeque};

use bitcoin::BlockHash;
use chainstore::Tip;

use super::reorder::Reorder;
use super::shelf::Shelf;
use super::types::Output;
use crate::headers::HeaderTree;

/// `Connect`s that the writer may have before it: enough to keep it busy, few enough to change course soon.
const MAX_CONNECTING: usize = 64;
/// Blocks connected by one switch, unless it takes more to beat the old chain: it is one transaction of the store.
const MAX_SWITCH: usize = 256;

/// See the module.
#[derive(Debug)]
pub(super) struct Activation {
    /// Where the writer says that the chain stands.
    connected: Tip,
    /// `Connect`s that are not answered yet, each on top of the one before it.
    connecting: VecDeque<Tip>,
    /// A `Switch` is not answered yet.
    switching: bool,
    /// A block without which the writer cannot go on: it is damaged on disk.
    blocked_by: Option<BlockHash>,
    /// `Store`s that are not answered yet.
    storing: BTreeSet<BlockHash>,
    shelf: Shelf,
    /// Blocks that broke the rules or cannot be checked here, also while the header tree does not know it yet.
    barred: BTreeSet<BlockHash>,
    /// The shelf must be sorted anew before it is used.
    unsorted: bool,
    /// Some block that waits for its parent may wait for one that will not be connected next.
    unplaced: bool,
}

impl Activation {
    pub fn new(connected: Tip, stored: impl IntoIterator<Item = BlockHash>) -> Self {
        Self {
            connected,
            connecting: VecDeque::new(),
            switching: false,
            blocked_by: None,
            storing: BTreeSet::new(),
            shelf: Shelf::new(stored),
            barred: BTreeSet::new(),
            unsorted: true,
            unplaced: false,
        }
    }

    /// Where the chain stands.
    pub fn connected(&self) -> Tip {
        self.connected
    }

    /// Where the chain will stand once all `Connect`s are answered.
    pub fn handed(&self) -> Tip {
        self.connecting.back().copied().unwrap_or(self.connected)
    }

    /// `Connect`s that are not answered yet.
    pub fn connecting(&self) -> u32 {
        self.connecting.len() as u32
    }

    /// Whether the writer has nothing to do.
    pub fn is_idle(&self) -> bool {
        self.connecting.is_empty() && self.storing.is_empty() && !self.switching
    }

    /// Whether a block beside the connected chain is on disk, or on its way there.
    pub fn is_on_disk(&self, hash: &BlockHash) -> bool {
        self.shelf.contains(hash) || self.storing.contains(hash)
    }

    /// Whether a block is never to be asked for again.
    pub fn is_barred(&self, hash: &BlockHash) -> bool {
        self.barred.contains(hash)
    }

    /// Never asks for this block again, nor follows what builds on it.
    pub fn bar(&mut self, hash: BlockHash) {
        self.barred.insert(hash);
        (self.unsorted, self.unplaced) = (true, true);
    }

    /// The header tree has another best chain, and perhaps found headers invalid.
    pub fn best_changed(&mut self) {
        (self.unsorted, self.unplaced) = (true, true);
    }

    /// A block passed its check and waits now.
    pub fn block_ready(&mut self, hash: BlockHash, tree: &HeaderTree) {
        self.unplaced |= !self.is_above_handed(hash, tree);
    }

    /// Gives back the `Connect`s that are void.
    pub fn block_connected(&mut self, tip: Tip, tree: &HeaderTree) -> Vec<Tip> {
        if self.connecting.front() != Some(&tip) {
            // Not as we think it stands; what the writer says is true.
            return self.failed(tip, tree);
        }
        self.connecting.pop_front();
        self.connected = tip;
        let barred = &self.barred;
        self.shelf.connected(tip, tree, |hash| barred.contains(hash));
        Vec::new()
    }

    pub fn block_stored(&mut self, hash: BlockHash, tree: &HeaderTree) {
        self.storing.remove(&hash);
        let barred = &self.barred;
        self.shelf.add(hash, self.connected, tree, |hash| barred.contains(hash));
    }

    pub fn switched(&mut self, tip: Tip, tree: &HeaderTree) {
        self.switching = false;
        self.move_to(tip, tree);
    }

    /// The writer forgot all that it was told and stands at `connected`, with these blocks on disk.
    pub fn restored(&mut self, connected: Tip, stored: impl IntoIterator<Item = BlockHash>) {
        let barred = std::mem::take(&mut self.barred);
        *self = Self { barred, unplaced: true, ..Self::new(connected, stored) };
    }

    /// A block did not connect, and the chain stands at `tip`. Gives back the `Connect`s that are void with it.
    pub fn failed(&mut self, tip: Tip, tree: &HeaderTree) -> Vec<Tip> {
        self.switching = false;
        self.move_to(tip, tree);
        self.connecting.drain(..).collect()
    }

    /// Nothing is connected or switched to before this block can be read again.
    pub fn wait_for(&mut self, damaged: BlockHash) {
        self.blocked_by = Some(damaged);
    }

    /// A block can be read again, or it turned out that it always could.
    pub fn waited_for(&mut self, block: BlockHash) {
        self.blocked_by.take_if(|waiting| *waiting == block);
    }

    /// Tells the writer whatever can be told now.
    pub fn advance(&mut self, tree: &HeaderTree, reorder: &mut Reorder, outputs: &mut VecDeque<Output>) {
        if std::mem::take(&mut self.unsorted) {
            let barred = &self.barred;
            self.shelf.sort(self.connected, tree, |hash| barred.contains(hash));
        }
        if self.switching || self.blocked_by.is_some() {
            return;
        }
        self.connect(tree, reorder, outputs);
        if std::mem::take(&mut self.unplaced) {
            self.put_aside(tree, reorder, outputs);
        }
        if self.connecting.is_empty() {
            self.switch(tree, outputs);
        }
    }

    /// Writes all blocks that wait for their parent to disk, to make room for others.
    pub fn spill(&mut self, reorder: &mut Reorder, outputs: &mut VecDeque<Output>) {
        if self.switching {
            return;
        }
        for hash in reorder.waiting() {
            self.store(hash, reorder, outputs);
        }
    }

    fn connect(&mut self, tree: &HeaderTree, reorder: &mut Reorder, outputs: &mut VecDeque<Output>) {
        while self.connecting.len() < MAX_CONNECTING {
            let handed = self.handed();
            let next = tree.hash_at(handed.height.next()).filter(|_| tree.is_best(handed.hash));
            if next.is_some_and(|next| self.is_on_disk(&next)) {
                // From disk it comes by a switch.
                return;
            }
            let Some(hash) = reorder.child_of(handed.hash, next) else { return };
            if self.is_useless(hash, tree) {
                reorder.release(&hash);
            } else if let Some(block) = reorder.hand(&hash) {
                self.connecting.push_back(Tip { height: block.height(), hash });
                // Its siblings will not be next any more.
                self.unplaced |= next != Some(hash);
                outputs.push_back(Output::Connect(block));
            }
        }
    }

    /// Blocks that wait for a parent which will not be connected next go to disk.
    fn put_aside(&mut self, tree: &HeaderTree, reorder: &mut Reorder, outputs: &mut VecDeque<Output>) {
        for hash in reorder.waiting() {
            if self.is_useless(hash, tree) {
                reorder.release(&hash);
            } else if !self.is_above_handed(hash, tree) {
                self.store(hash, reorder, outputs);
            }
        }
    }

    fn store(&mut self, hash: BlockHash, reorder: &mut Reorder, outputs: &mut VecDeque<Output>) {
        if let Some(block) = reorder.hand(&hash) {
            self.storing.insert(hash);
            outputs.push_back(Output::Store(block));
        }
    }

    /// The best chain that is on disk without a gap is switched to, if it has more work than the connected one.
    fn switch(&mut self, tree: &HeaderTree, outputs: &mut VecDeque<Output>) {
        let here = self.connected.hash;
        let Some(info) = tree.info(here) else { return };
        let better = self.shelf.best().filter(|best| best.work > info.work).map(|best| best.hash);
        let to = match better {
            Some(better) => better,
            // The chain stands on a block that broke the rules: down from it, whatever is left.
            None if info.invalid => self.shelf.best().map_or(tree.best().hash, |best| best.hash),
            None => return,
        };
        let Some(fork) = tree.fork_point(here, to) else { return };
        let Some(path) = tree.path(fork.hash, to) else { return };
        let mut connect: Vec<_> = path.into_iter().take_while(|hash| self.shelf.contains(hash)).collect();
        let mut count = connect.len().min(MAX_SWITCH);
        while count < connect.len() && tree.info(connect[count - 1]).is_none_or(|at| at.work <= info.work) {
            count += 1;
        }
        connect.truncate(count);
        self.switching = true;
        outputs.push_back(Output::Switch { fork, connect });
    }

    fn move_to(&mut self, tip: Tip, tree: &HeaderTree) {
        let old = std::mem::replace(&mut self.connected, tip);
        self.shelf.moved(old, tip, tree);
        (self.unsorted, self.unplaced) = (true, true);
    }

    fn is_above_handed(&self, hash: BlockHash, tree: &HeaderTree) -> bool {
        let handed = self.handed();
        tree.ancestor(hash, handed.height) == Some(handed.hash)
    }

    fn is_useless(&self, hash: BlockHash, tree: &HeaderTree) -> bool {
        self.barred.contains(&hash) || tree.is_invalid(hash) || !tree.contains(hash)
    }
}
