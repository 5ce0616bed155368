//! Which peer is asked for headers, and what is made of the answers.
//!
//! In: peers that come and go, their `headers` and block `inv`s, blocks found invalid. Out: `getheaders`, headers to
//! keep, the new best chain, peers to drop. An announced height is never believed, only headers with work.
//!
//! The first sync is from one peer at a time (`asking` gives and takes the turn, and goes round a silent one), later all
//! are asked. What arrives is
//! checked in `intake`. A chain with too little work is counted before it is kept (`presync`), so what is in the
//! tree has, or leads to, the work that the network or `--min-chain-work` demands.
//!
//! Source: Bitcoin Core `net_processing.cpp` (`ProcessHeadersMessage`, `SendMessages`); BIP130.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;

use bitcoin::block::Header;
use bitcoin::{BlockHash, Work};
use chainstore::{Height, Tip};
use fastrand::Rng;

use super::asking::Turn;
use super::peer_state::{Peer, Want};
use super::tree::{HeaderTip, HeaderTree};
use crate::peer::{Inventory, Misbehavior, PeerId, PeerInfo};
use crate::time::{Instant, Now};

/// Headers in a full answer; one that is full is followed by more.
pub const MAX_HEADERS: usize = 2_000;

/// See the module.
#[derive(Debug)]
pub struct HeaderSync {
    pub(super) tree: HeaderTree,
    /// Total work below which no chain is believed.
    pub(super) min_chain_work: Work,
    pub(super) peers: BTreeMap<PeerId, Peer>,
    /// The peer whose full answers are followed up while the best header is old.
    pub(super) turn: Option<Turn>,
    /// A sync peer has told all it has, so the others may be asked what they have.
    pub(super) asked_one: bool,
    pub(super) outputs: VecDeque<Output>,
    rng: Rng,
}

/// What shall be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Send `getheaders` with this locator and no stop hash.
    GetHeaders { peer: PeerId, locator: Vec<BlockHash> },
    /// Send `sendheaders` (BIP130).
    SendHeaders { peer: PeerId },
    /// Headers that entered the tree, parents first: write them down.
    Persist(Vec<(Height, Header)>),
    /// The best chain ends here now.
    BestChanged(Tip),
    /// More is known of what this peer has: see [`HeaderSync::peer_tip`].
    PeerTip { peer: PeerId },
    /// Close the connection. The peer is forgotten here already.
    Drop { peer: PeerId, why: Misbehavior },
    /// Something that only the operator can judge; once a connection each.
    Warn { peer: PeerId, what: Warning },
}

/// What an operator should know of a peer that broke no rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Warning {
    /// All that the peer has is less work than is asked for.
    TooLittleWork,
    /// The peer's headers are dated more than two hours ahead: one of the two clocks is wrong.
    FromTheFuture {
        /// Unix second at which they will be tried again.
        until: u64,
    },
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLittleWork => write!(f, "its chain has less work than the minimum"),
            Self::FromTheFuture { until } => {
                write!(f, "its headers are more than two hours ahead of our clock, held back until {until}")
            }
        }
    }
}

/// How far header sync is, for the operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    pub best: HeaderTip,
    /// The peer that the first sync is from.
    pub sync_peer: Option<PeerId>,
    /// How far the sync peer's chain is counted, while that is all that is done with it.
    pub counted: Option<Height>,
}

impl HeaderSync {
    /// Begins with what the tree knows. `min_chain_work` is the network's unless the operator set another; `rng_seed`
    /// decides the order among equal peers.
    pub fn new(tree: HeaderTree, min_chain_work: Work, rng_seed: u64) -> Self {
        Self {
            tree,
            min_chain_work,
            peers: BTreeMap::new(),
            turn: None,
            asked_one: false,
            outputs: VecDeque::new(),
            rng: Rng::with_seed(rng_seed),
        }
    }

    /// A peer's handshake is done.
    pub fn handle_peer_ready(&mut self, now: Now, peer: PeerId, info: &PeerInfo) {
        let lot = self.rng.u32(..);
        self.peers.insert(peer, Peer::new(now, info.serves_history(), lot));
        self.ask(now);
    }

    /// A connection ended; harmless for a peer that was dropped.
    pub fn handle_peer_gone(&mut self, now: Now, peer: PeerId) {
        self.forget(peer);
        self.ask(now);
    }

    /// A peer sent `headers`: an answer, or an announcement.
    pub fn handle_headers(&mut self, now: Now, from: PeerId, headers: Vec<Header>) {
        if self.peers.contains_key(&from) {
            self.take_headers(now, from, headers);
        }
        self.ask(now);
    }

    /// A peer sent `inv`: its blocks are answered with `getheaders`, all else is not for us.
    pub fn handle_inv(&mut self, now: Now, from: PeerId, inventory: &[Inventory]) {
        let Some(peer) = self.peers.get_mut(&from) else { return };
        // The last is the highest, and having its header means having those below.
        let Some(hash) = inventory.iter().rev().find_map(Inventory::block) else { return };
        if self.tree.contains(hash) {
            self.peer_has(from, hash);
        } else {
            peer.announces(hash);
        }
        self.ask(now);
    }

    /// A block broke the rules: no chain with it is best again, and peers on such a chain go.
    pub fn mark_invalid(&mut self, now: Now, hash: BlockHash) {
        let changed = self.tree.mark_invalid(hash);
        for peer in self.peers_where(|sync, peer| peer.tip.is_some_and(|tip| sync.tree.is_invalid(tip.hash)))
        {
            self.drop_peer(peer, Misbehavior::InvalidChain);
        }
        if changed {
            self.outputs.push_back(Output::BestChanged(self.tree.best().tip()));
            // Somebody may know a better one than is left to us.
            for peer in self.peers.values_mut().filter(|peer| peer.want == Want::Nothing) {
                peer.want = Want::News;
            }
        }
        self.ask(now);
    }

    /// To be called when [`Self::next_timeout`] has come; at other times it does no harm.
    pub fn handle_timeout(&mut self, now: Now) {
        self.expire(now);
        self.retry_held(now);
        self.ask(now);
    }

    /// Call until `None` after each of the above.
    pub fn poll(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// What is known.
    pub fn tree(&self) -> &HeaderTree {
        &self.tree
    }

    /// Whether the best chain is all that our peers can tell: it has the minimum of work, there are peers, and each
    /// has told all it has or follows less work. New blocks do not change that, a new peer may until it answered or is
    /// late with it.
    pub fn is_caught_up(&self) -> bool {
        let best = self.tree.best();
        let has_no_more = |peer: &Peer| peer.told_all || peer.tip.is_some_and(|tip| tip.work < best.work);
        best.work >= self.min_chain_work
            && self.peers.values().any(has_no_more)
            && self.peers.values().all(|peer| has_no_more(peer) || peer.late)
    }

    /// The best header that a peer is known to have.
    pub fn peer_tip(&self, peer: PeerId) -> Option<HeaderTip> {
        self.peers.get(&peer)?.tip
    }

    /// How far the sync is.
    pub fn progress(&self) -> Progress {
        let sync_peer = self.turn.as_ref().map(|turn| turn.peer);
        let presync = sync_peer.and_then(|peer| self.peers.get(&peer)?.presync.as_ref());
        Progress { best: self.tree.best(), sync_peer, counted: presync.and_then(|presync| presync.counted()) }
    }

    /// When [`Self::handle_timeout`] is next due; `None` while nothing is waited for.
    pub fn next_timeout(&self) -> Option<Instant> {
        self.deadlines().min()
    }

    /// Records that a peer has a header of the tree, and tells those whom that concerns.
    pub(super) fn peer_has(&mut self, from: PeerId, hash: BlockHash) {
        let (Some(info), Some(peer)) = (self.tree.info(hash), self.peers.get_mut(&from)) else { return };
        if info.invalid {
            self.drop_peer(from, Misbehavior::InvalidChain);
            return;
        }
        if peer.saw(HeaderTip { height: info.height, hash, work: info.work }) {
            self.outputs.push_back(Output::PeerTip { peer: from });
        }
        if info.work >= self.min_chain_work && !peer.prefers_headers {
            peer.prefers_headers = true;
            self.outputs.push_back(Output::SendHeaders { peer: from });
        }
    }

    pub(super) fn drop_peer(&mut self, peer: PeerId, why: Misbehavior) {
        self.forget(peer);
        self.outputs.push_back(Output::Drop { peer, why });
    }

    pub(super) fn peers_where(&self, filter: impl Fn(&Self, &Peer) -> bool) -> Vec<PeerId> {
        self.peers.iter().filter(|(_, peer)| filter(self, peer)).map(|(&id, _)| id).collect()
    }

    fn forget(&mut self, peer: PeerId) {
        self.peers.remove(&peer);
        self.end_turn(peer);
    }
}

#[cfg(test)]
#[path = "sync_tests.rs"]
mod tests;
