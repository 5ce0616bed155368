//! Who is asked for which block, and when somebody else is.
//!
//! In: the window of blocks that come next, blocks that arrive, peers that come and go, the time. Out: `getdata`,
//! peers that stall. Each block of the window is asked of one peer, lowest blocks first, the least busy peer first.
//! * *Hedge*: the first missing block, for which everything else waits, is asked of one more peer when it takes longer
//!   than the timeout (`patience`), and of another each time twice as long later. The first answer wins.
//! * *Stall*: when nothing can be asked because the window or memory is full, the peer that owes the first missing
//!   block has that timeout to deliver; then it is dropped and its blocks are asked elsewhere.
//! * *Slow*: a peer that delivers nothing that it owes for ten minutes, longer when others share our link, is dropped.
//! * *Repair*: a block that is damaged on our disk is asked for first, and hedged in the same way.
//! * *Withheld*: while nobody gives out the first missing block of the best chain, peers on other chains with more work
//!   than ours are asked for theirs: headers alone must not keep us from the best chain that can be had.
//!
//! `overdue` has what takes too long, `beside` what is withheld. Blocks in memory are `reorder`'s; here are only those
//! that did not arrive yet.
//! Source: Bitcoin Core `net_processing.cpp` (`FindNextBlocksToDownload`, `BLOCK_STALLING_TIMEOUT_*`,
//! `BLOCK_DOWNLOAD_TIMEOUT_*`).

mod beside;
mod overdue;

use std::collections::BTreeMap;
#[cfg(test)]
use std::collections::BTreeSet;
use std::time::Duration;

use bitcoin::BlockHash;
use chainstore::{Height, Tip};

use super::patience::Patience;
use super::peers::Peer;
use super::repair::Missing;
use super::window::Window;
use crate::headers::{HeaderTip, HeaderTree};
use crate::peer::{PeerId, PeerInfo};
use crate::time::{Instant, Now};
use overdue::Stall;

/// See the module.
#[derive(Debug)]
pub(super) struct Scheduler {
    peers: BTreeMap<PeerId, Peer>,
    requests: BTreeMap<BlockHash, Request>,
    patience: Patience,
    stall: Option<Stall>,
    /// When the next block is to be asked of one more peer.
    hedge_at: Option<Instant>,
}

/// A block that is in flight.
#[derive(Debug)]
struct Request {
    height: Height,
    purpose: Purpose,
    /// Who was asked for it, in that order; never empty.
    asks: Vec<Ask>,
}

/// What a block is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// It comes next on the best chain.
    Window,
    /// It is not of the best chain, but of one that a peer has while the best one is withheld.
    Side,
    /// Ours is damaged on disk.
    Repair,
}

#[derive(Clone, Copy, Debug)]
struct Ask {
    peer: PeerId,
    at: Instant,
    /// It took too long, and that was noted.
    lapsed: bool,
}

/// What the rest of the stage knows when blocks are to be asked for.
pub(super) struct Situation<'a> {
    pub window: &'a Window,
    pub tree: &'a HeaderTree,
    /// Where the chain will stand once the writer has done what it was told.
    pub handed: Tip,
    /// Whether there is room for one block more than so many in flight.
    pub fits: &'a dyn Fn(usize) -> bool,
    /// Nothing that is in memory can move before another block arrives.
    pub stuck: bool,
    /// Blocks that are damaged on disk.
    pub repairs: &'a [Missing],
    /// Whether a block is in memory, on disk, or never to be asked for again.
    pub is_settled: &'a dyn Fn(&BlockHash) -> bool,
}

/// What became of a block that a peer sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Delivery {
    /// This peer was asked for it. Somebody else may have been faster.
    Asked { height: Height, purpose: Purpose },
    /// Nobody asked this peer for it.
    Unasked,
}

/// What is to be sent, and what stands in the way.
#[derive(Debug, Default)]
pub(super) struct Asked {
    /// One `getdata` each.
    pub requests: BTreeMap<PeerId, Vec<BlockHash>>,
    /// Memory is full of blocks of a withheld chain, while another chain could be downloaded.
    pub starved: bool,
}

impl Scheduler {
    pub fn new() -> Self {
        Self {
            peers: BTreeMap::new(),
            requests: BTreeMap::new(),
            patience: Patience::new(),
            stall: None,
            hedge_at: None,
        }
    }

    /// Peers are reached through a proxy, which takes its time.
    pub fn be_patient(&mut self) {
        self.patience = Patience::slow();
    }

    pub fn add_peer(&mut self, peer: PeerId, info: &PeerInfo) {
        self.peers.insert(peer, Peer::new(info));
    }

    pub fn set_tip(&mut self, peer: PeerId, tip: HeaderTip, tree: &HeaderTree) {
        if let Some(peer) = self.peers.get_mut(&peer) {
            peer.set_tip(tip, tree);
        }
        self.retract(tree);
    }

    /// The best chain is another one, or longer.
    pub fn best_changed(&mut self, tree: &HeaderTree) {
        self.peers.values_mut().for_each(|peer| peer.compare(tree));
        self.retract(tree);
    }

    /// Who has left the chain of a block owes it no more. A node that found the block invalid never sends it nor says
    /// so, and if it is the only one, nothing else would be asked of it for ten minutes.
    fn retract(&mut self, tree: &HeaderTree) {
        let peers = &mut self.peers;
        self.requests.retain(|hash, request| {
            if request.purpose == Purpose::Repair {
                // Asked of whoever may have kept it.
                return true;
            }
            request.asks.retain(|ask| {
                let Some(peer) = peers.get_mut(&ask.peer) else { return false };
                let still_has = peer.has(request.height, *hash, tree);
                if !still_has {
                    peer.relieved();
                }
                still_has
            });
            !request.asks.is_empty()
        });
    }

    /// Forgets a peer; what only it was asked for is to be asked anew. Returns whether it was known.
    pub fn remove_peer(&mut self, peer: PeerId) -> bool {
        self.requests.retain(|_, request| {
            request.asks.retain(|ask| ask.peer != peer);
            !request.asks.is_empty()
        });
        self.peers.remove(&peer).is_some()
    }

    /// A peer said that it gives compact blocks.
    pub fn set_gives_compact(&mut self, peer: PeerId) {
        if let Some(peer) = self.peers.get_mut(&peer) {
            peer.gives_compact = true;
        }
    }

    pub fn gives_compact(&self, peer: PeerId) -> bool {
        self.peers.get(&peer).is_some_and(|peer| peer.gives_compact)
    }

    pub fn has_peer(&self, peer: PeerId) -> bool {
        self.peers.contains_key(&peer)
    }

    /// A peer sent a block.
    pub fn delivered(&mut self, now: Now, from: PeerId, hash: BlockHash) -> Delivery {
        let Some(sender) = self.peers.get_mut(&from) else { return Delivery::Unasked };
        let late = sender.owed_late(&hash);
        let ask =
            self.requests.get(&hash).and_then(|request| request.asks.iter().find(|ask| ask.peer == from));
        if let Some(ask) = ask {
            self.patience.delivered(now.instant - ask.at);
            sender.relieved();
        } else if late.is_none() {
            return Delivery::Unasked;
        }
        let request = self.requests.remove(&hash);
        let Some(height) = request.as_ref().map(|request| request.height).or(late) else {
            return Delivery::Unasked;
        };
        sender.delivered(now.instant, height);
        let beaten = request.iter().flat_map(|request| &request.asks).filter(|ask| ask.peer != from);
        for ask in beaten {
            if let Some(peer) = self.peers.get_mut(&ask.peer) {
                peer.beaten(height, hash);
            }
        }
        Delivery::Asked { height, purpose: request.map_or(Purpose::Window, |request| request.purpose) }
    }

    /// A peer said that it has not got a block. Core never does, it stays silent.
    /// Returns whether it had been asked for it.
    pub fn refused(&mut self, from: PeerId, hash: BlockHash) -> bool {
        let Some(request) = self.requests.get_mut(&hash) else { return false };
        let asks = request.asks.len();
        request.asks.retain(|ask| ask.peer != from);
        if request.asks.len() == asks {
            return false;
        }
        if let Some(peer) = self.peers.get_mut(&from) {
            peer.relieved();
            peer.refused(request.height, hash);
        }
        if request.asks.is_empty() {
            self.requests.remove(&hash);
        }
        true
    }

    /// Somebody else was faster, and what this peer would have sent is not waited for any more: should the block be
    /// asked of it again, that is a new question.
    pub fn waive(&mut self, peer: PeerId, hash: &BlockHash) {
        if let Some(peer) = self.peers.get_mut(&peer) {
            peer.owed_late(hash);
        }
    }

    /// A block of this peer passed its check.
    pub fn sound(&mut self, from: PeerId) {
        if let Some(peer) = self.peers.get_mut(&from) {
            peer.sound();
        }
    }

    /// A block was damaged on its way from this peer. Returns whether the peer must be dropped for it.
    pub fn damaged(&mut self, from: PeerId) -> bool {
        self.peers.get_mut(&from).is_some_and(Peer::damaged)
    }

    /// A block was connected.
    pub fn connected(&mut self) {
        self.patience.connected();
    }

    /// Asks for all that may be asked for now.
    pub fn ask(&mut self, now: Now, situation: &Situation) -> Asked {
        let mut asked = Asked::default();
        self.hedge_at = None;
        self.ask_repairs(now, situation, &mut asked);
        let first = situation.window.first_missing();
        if let Some((_, hash)) = first {
            self.hedge(now, hash, situation.tree, &mut asked);
        }
        let full = self.fill(now, situation, &mut asked);
        if first.is_some_and(|(height, hash)| self.is_withheld(height, hash, situation.tree)) {
            self.ask_beside(now, situation, &mut asked);
        }
        self.stall = self.find_stall(now, full, situation);
        asked
    }

    /// Whether somebody was or can be asked for a block, or may turn out to have it.
    pub fn has_source(&self, height: Height, hash: BlockHash, tree: &HeaderTree) -> bool {
        self.requests.contains_key(&hash)
            || self.peers.values().any(|peer| peer.is_undecided() || peer.can_give(height, hash, tree))
    }

    /// Whether this block of the window is all that is on its way, and from one peer.
    pub fn is_all_in_flight(&self, hash: &BlockHash) -> bool {
        let request = self.requests.get(hash).filter(|_| self.requests.len() == 1);
        request.is_some_and(|request| request.purpose == Purpose::Window && request.asks.len() == 1)
    }

    pub fn is_asked(&self, hash: &BlockHash) -> bool {
        self.requests.contains_key(hash)
    }

    /// Blocks that were asked for and did not arrive yet.
    pub fn in_flight(&self) -> usize {
        self.requests.len()
    }

    /// What must always be true of who was asked for what.
    #[cfg(test)]
    pub fn hold_invariants(&self) {
        let mut in_flight: BTreeMap<PeerId, usize> = self.peers.keys().map(|peer| (*peer, 0)).collect();
        for (hash, request) in &self.requests {
            let asked: BTreeSet<PeerId> = request.asks.iter().map(|ask| ask.peer).collect();
            assert_eq!(asked.len(), request.asks.len(), "{hash} is asked twice of the same peer");
            assert!(!asked.is_empty(), "{hash} is in flight from nobody");
            for peer in asked {
                *in_flight.get_mut(&peer).expect("asked of a peer that is gone") += 1;
            }
        }
        for (id, peer) in &self.peers {
            assert_eq!(peer.room() + in_flight[id], super::peers::MAX_IN_FLIGHT, "{id}");
        }
    }

    /// Peers that owe us blocks.
    pub fn busy_peers(&self) -> usize {
        self.peers.values().filter(|peer| peer.busy_since().is_some()).count()
    }

    /// How long the first missing block may take.
    pub fn stall_timeout(&self) -> Duration {
        self.patience.timeout()
    }

    /// Asks for missing blocks of the window while there is room; returns whether room, and nothing else, was lacking.
    fn fill(&mut self, now: Now, situation: &Situation, asked: &mut Asked) -> bool {
        let Situation { window, tree, .. } = *situation;
        for (index, (height, hash)) in window.missing().enumerate() {
            if self.requests.contains_key(&hash) {
                continue;
            }
            // Nothing moves without the first one; but if something moves anyway, there will be room soon.
            let may_exceed = index == 0 && situation.stuck;
            if !(situation.fits)(self.requests.len()) && !may_exceed {
                return true;
            }
            if !self.peers.values().any(Peer::has_room) {
                return false;
            }
            // Cheap, and true of most blocks while most peers are busy.
            let hopeless = !self.peers.values().any(|peer| peer.has_room() && peer.may_have(height));
            if !hopeless && let Some(peer) = self.choose(height, hash, &[], tree) {
                self.send(now, peer, height, hash, Purpose::Window, asked);
            }
        }
        window.is_cut() && window.missing().all(|(_, hash)| self.requests.contains_key(&hash))
    }

    /// Asks for blocks that are damaged on disk: a wallet waits for each.
    fn ask_repairs(&mut self, now: Now, situation: &Situation, asked: &mut Asked) {
        for &Missing { height, hash, anywhere } in situation.repairs {
            if self.requests.contains_key(&hash) {
                self.hedge(now, hash, situation.tree, asked);
                continue;
            }
            let has_it = self.choose(height, hash, &[], situation.tree);
            let may_have_it = || anywhere.then(|| self.choose_any(height, hash)).flatten();
            if let Some(peer) = has_it.or_else(may_have_it) {
                self.send(now, peer, height, hash, Purpose::Repair, asked);
            }
        }
    }

    /// The peer that is asked for a block: one with room that was not asked yet. Peers that keep silent come last, and
    /// only if no other has the block at all.
    fn choose(&self, height: Height, hash: BlockHash, asks: &[Ask], tree: &HeaderTree) -> Option<PeerId> {
        let able = |(id, peer): &(&PeerId, &Peer)| {
            asks.iter().all(|ask| ask.peer != **id) && peer.can_give(height, hash, tree)
        };
        let any_good = self.peers.iter().filter(able).any(|(_, peer)| !peer.is_unreliable());
        let free = |(_, peer): &(&PeerId, &Peer)| peer.has_room() && !(any_good && peer.is_unreliable());
        let free = self.peers.iter().filter(free).filter(able);
        free.min_by_key(|(_, peer)| peer.burden()).map(|(id, _)| *id)
    }

    /// A peer that may have kept a block which is not of its chain.
    fn choose_any(&self, height: Height, hash: BlockHash) -> Option<PeerId> {
        let free = self.peers.iter().filter(|(_, peer)| peer.has_room() && peer.may_have_kept(height, hash));
        free.min_by_key(|(_, peer)| peer.burden()).map(|(id, _)| *id)
    }

    fn send(
        &mut self,
        now: Now,
        to: PeerId,
        height: Height,
        hash: BlockHash,
        purpose: Purpose,
        asked: &mut Asked,
    ) {
        let Some(peer) = self.peers.get_mut(&to) else { return };
        // What it owes us from before, though somebody else's copy came first, is on its way: no second question.
        let is_owed = peer.owed_late(&hash).is_some();
        peer.asked(now.instant);
        let ask = Ask { peer: to, at: now.instant, lapsed: false };
        let request = self.requests.entry(hash).or_insert(Request { height, purpose, asks: Vec::new() });
        request.asks.push(ask);
        if !is_owed {
            asked.requests.entry(to).or_default().push(hash);
        }
    }
}
