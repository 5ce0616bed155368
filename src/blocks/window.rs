//! The blocks of the best header chain that come next, and which of them are still missing.
//!
//! It begins above the last block that was handed on or lies on disk, and is bounded in length. Who is asked for
//! what is missing is the scheduler's work; blocks beside the best chain are not seen here.

use std::collections::VecDeque;

use bitcoin::BlockHash;
use chainstore::{Height, Tip};

use crate::headers::HeaderTree;

/// How far past the last connected block we ask (Core: `BLOCK_DOWNLOAD_WINDOW`).
pub(super) const WINDOW: u32 = 1024;

/// See the module.
#[derive(Debug)]
pub(super) struct Window {
    /// The block below the first slot.
    below: Tip,
    slots: VecDeque<Slot>,
    /// The best chain goes on above the last slot.
    cut: bool,
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    hash: BlockHash,
    /// It arrived, or is on disk.
    held: bool,
}

impl Window {
    /// An empty window above `below`.
    pub fn above(below: Tip) -> Self {
        Self { below, slots: VecDeque::new(), cut: false }
    }

    /// Whether it lies on the best chain from end to end.
    pub fn is_on_best(&self, tree: &HeaderTree) -> bool {
        let last = self.slots.back().map_or(self.below.hash, |slot| slot.hash);
        tree.hash_at(self.below.height) == Some(self.below.hash) && tree.hash_at(self.last()) == Some(last)
    }

    /// Takes off the front what is done: up to `done`, and what follows while `is_done`.
    pub fn pass(&mut self, done: Height, is_done: impl Fn(&BlockHash) -> bool) {
        while let Some(slot) = self.slots.front()
            && (self.below.height < done || is_done(&slot.hash))
        {
            self.below = Tip { height: self.below.height.next(), hash: slot.hash };
            self.slots.pop_front();
        }
    }

    /// Grows along the best chain up to `limit`, but not past a block that `is_barred`.
    pub fn grow(
        &mut self,
        limit: Height,
        tree: &HeaderTree,
        is_held: impl Fn(&BlockHash) -> bool,
        is_barred: impl Fn(&BlockHash) -> bool,
    ) {
        self.cut = false;
        while let Some(hash) = tree.hash_at(self.last().next()) {
            if is_barred(&hash) {
                return;
            }
            if self.last() >= limit {
                self.cut = true;
                return;
            }
            self.slots.push_back(Slot { hash, held: is_held(&hash) });
        }
    }

    /// The first block of the window, held or not.
    pub fn first(&self) -> Height {
        self.below.height.next()
    }

    /// The last block of the window, or the one below it when it is empty.
    pub fn last(&self) -> Height {
        Height(self.below.height.0 + self.slots.len() as u32)
    }

    /// Whether the chain goes on above it.
    pub fn is_cut(&self) -> bool {
        self.cut
    }

    /// What has not arrived, lowest first.
    pub fn missing(&self) -> impl Iterator<Item = (Height, BlockHash)> {
        let numbered = (self.first().0..).map(Height).zip(&self.slots);
        numbered.filter(|(_, slot)| !slot.held).map(|(height, slot)| (height, slot.hash))
    }

    /// The lowest block that has not arrived.
    pub fn first_missing(&self) -> Option<(Height, BlockHash)> {
        self.missing().next()
    }

    pub fn contains(&self, height: Height, hash: BlockHash) -> bool {
        self.index(height).is_some_and(|index| self.slots[index].hash == hash)
    }

    /// Notes that a block arrived, or is gone again; one that is not in the window is ignored.
    pub fn set_held(&mut self, height: Height, hash: BlockHash, held: bool) {
        if self.contains(height, hash)
            && let Some(index) = self.index(height)
        {
            self.slots[index].held = held;
        }
    }

    fn index(&self, height: Height) -> Option<usize> {
        let index = height.0.checked_sub(self.first().0)? as usize;
        (index < self.slots.len()).then_some(index)
    }
}
