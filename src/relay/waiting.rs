//! Transactions that wait to be judged: a queue for each peer, and one turn after the other.
//!
//! What a peer sends waits behind what the same peer sent before, never behind a flood of another. Core judges where
//! it reads and so needs no queue; it too takes one message of each peer in turn.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bitcoin::hashes::sha256d;

use crate::mempool::Unconfirmed;
use crate::peer::PeerId;

/// Weight of what waits for one peer: a block's worth. More is thrown away, and asked of others if it was asked for.
pub(super) const MAX_WEIGHT: u64 = 4_000_000;
/// Above this the peer is asked for nothing.
const BUSY_WEIGHT: u64 = MAX_WEIGHT / 2;
/// What one transaction takes in memory beside its bytes, counted as weight.
const OVERHEAD: u64 = 1_000;

/// One that waits.
#[derive(Clone, Debug)]
pub(super) struct Waiter {
    pub tx: Arc<Unconfirmed>,
    /// Spends what `tx` makes: they are judged as a package.
    pub child: Option<Arc<Unconfirmed>>,
    /// The hashes under which it was asked for; they are held until it is judged.
    pub holds: Vec<sha256d::Hash>,
}

impl Waiter {
    fn weight(&self) -> u64 {
        let child = self.child.as_ref().map_or(0, |child| child.weight() + OVERHEAD);
        self.tx.weight() + OVERHEAD + child
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    peers: BTreeMap<PeerId, Queue>,
    /// Whose turn comes when. Everybody with a queue stands here once.
    turns: VecDeque<PeerId>,
}

#[derive(Debug, Default)]
struct Queue {
    waiters: VecDeque<Waiter>,
    weight: u64,
}

impl Waiting {
    pub fn add_peer(&mut self, peer: PeerId) {
        if self.peers.insert(peer, Queue::default()).is_none() {
            self.turns.push_back(peer);
        }
    }

    /// Gives back what waited.
    pub fn remove_peer(&mut self, peer: PeerId) -> VecDeque<Waiter> {
        self.turns.retain(|other| *other != peer);
        self.peers.remove(&peer).unwrap_or_default().waiters
    }

    /// Gives it back where there is no room.
    pub fn push(&mut self, peer: PeerId, waiter: Waiter) -> Result<(), Waiter> {
        let Some(queue) = self.peers.get_mut(&peer) else { return Err(waiter) };
        if queue.weight + waiter.weight() > MAX_WEIGHT {
            return Err(waiter);
        }
        queue.weight += waiter.weight();
        queue.waiters.push_back(waiter);
        Ok(())
    }

    /// Puts it before all others of the peer: it follows from one that had its turn.
    pub fn push_first(&mut self, peer: PeerId, waiter: Waiter) {
        if let Some(queue) = self.peers.get_mut(&peer) {
            queue.weight += waiter.weight();
            queue.waiters.push_front(waiter);
        }
    }

    pub fn is_busy(&self, peer: PeerId) -> bool {
        self.peers.get(&peer).is_some_and(|queue| queue.weight > BUSY_WEIGHT)
    }

    /// Transactions and packages that wait.
    pub fn len(&self) -> usize {
        self.peers.values().map(|queue| queue.waiters.len()).sum()
    }

    /// The peers in the order of their turns.
    pub fn turns(&self) -> impl Iterator<Item = PeerId> {
        self.turns.iter().copied()
    }

    /// What [`Self::pop`] would give.
    pub fn first(&self, peer: PeerId) -> Option<&Waiter> {
        self.peers.get(&peer)?.waiters.front()
    }

    pub fn pop(&mut self, peer: PeerId) -> Option<Waiter> {
        let queue = self.peers.get_mut(&peer)?;
        let waiter = queue.waiters.pop_front()?;
        queue.weight -= waiter.weight();
        Some(waiter)
    }

    /// The peer had its turn.
    pub fn took_turn(&mut self, peer: PeerId) {
        self.turns.retain(|other| *other != peer);
        self.turns.push_back(peer);
    }
}
