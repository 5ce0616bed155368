//! What a call changed in the pool.

use std::sync::Arc;

use crate::mempool::Entry;

/// Why a transaction left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Removal {
    /// A block has it.
    Confirmed,
    /// A block spends what it spends, or what it descends from spends.
    Conflict,
    /// Another transaction took its place.
    Replaced,
    /// There was no room: it was among the worst, or too much hung together after a reorganisation.
    Evicted,
    /// It waited too long.
    Expired,
    /// After a reorganisation it is not valid any more.
    Reorg,
}

/// What came, what left, and whose confirmation now looks different.
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct Changes {
    /// Parents before children.
    pub added: Vec<Arc<Entry>>,
    pub removed: Vec<(Arc<Entry>, Removal)>,
    /// Still there, but now with an unconfirmed parent where there was none, or the other way round.
    pub flipped: Vec<Arc<Entry>>,
}

impl Changes {
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.removed.is_empty() && self.flipped.is_empty()
    }

    /// This, and then `later`. What flipped twice is named twice.
    pub fn merge(&mut self, later: Self) {
        self.added.extend(later.added);
        self.removed.extend(later.removed);
        self.flipped.extend(later.flipped);
    }

    /// All that is named here, but what a block has.
    pub fn unconfirmed(&self) -> impl Iterator<Item = &Arc<Entry>> {
        let removed =
            self.removed.iter().filter(|(_, why)| *why != Removal::Confirmed).map(|(entry, _)| entry);
        self.added.iter().chain(removed).chain(&self.flipped)
    }
}
