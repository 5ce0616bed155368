//! Who is asked for which block, and when somebody else is.
//!
//! In: the chain to fetch, blocks that arrive, peers that come and go. Out: `getdata`, peers to drop. Bytes that
//! wait anywhere between a peer and the disk are counted here, so that memory is bounded by one number.
//! Source: Bitcoin Core `net_processing.cpp` (download window, stall rule, `BLOCK_DOWNLOAD_TIMEOUT_*`).

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::time::Duration;

use bitcoin::BlockHash;
use chainstore::{Height, Tip};

use super::Output;
use super::peers::{BlockPeer, MAX_IN_FLIGHT};
use crate::headers::{HeaderTip, HeaderTree};
use crate::peer::{Misbehavior, PeerId, PeerInfo};
use crate::time::{Instant, Now};

/// How far past the last connected block we ask (Core: `BLOCK_DOWNLOAD_WINDOW`).
const WINDOW: u32 = 1024;
/// How long the first missing block may take before somebody else is asked, doubled for each peer that was
/// dropped over it, shortened by each block that connects (Core: `BLOCK_STALLING_TIMEOUT_*`).
const STALL_TIMEOUT: Duration = Duration::from_secs(2);
const STALL_TIMEOUT_MAX: Duration = Duration::from_secs(64);
const STALL_TIMEOUT_DECAY: f64 = 0.85;
/// Peers asked for one block at the same time, at most.
const MAX_ASKED: usize = 3;
/// The oldest block that a peer owes us, and how much longer for each other peer that shares our link.
const DOWNLOAD_TIMEOUT: Duration = Duration::from_secs(600);
const DOWNLOAD_TIMEOUT_PER_PEER: Duration = Duration::from_secs(300);
/// What a block is taken to weigh before the first has arrived; a full one.
const FIRST_GUESS_BYTES: usize = 2_000_000;

#[derive(Debug)]
enum State {
    /// Peers that were asked, in the order of asking.
    Asked { height: Height, by: Vec<(PeerId, Instant)> },
    /// It is being checked.
    Checking { from: PeerId, len_bytes: usize },
    /// It waits for its parent or for the writer.
    Held { len_bytes: usize },
}

#[derive(Debug)]
pub(super) struct Download {
    memory_bytes: usize,
    peers: BTreeMap<PeerId, BlockPeer>,
    blocks: HashMap<BlockHash, State>,
    /// Blocks of the best chain within the window that nobody has been asked for.
    wanted: BTreeMap<Height, BlockHash>,
    /// Best header and lowest block that `wanted` was filled from.
    best: Option<Tip>,
    base: Option<Tip>,
    /// Everything up to here is in `wanted`, in `blocks`, or done.
    filled_to: Height,
    /// Bytes that arrived and are not yet connected or stored.
    held_bytes: usize,
    average_bytes: usize,
    /// Blocks in the state `Asked`, lowest first.
    asked: BTreeSet<(Height, BlockHash)>,
    /// When the first missing block is to be asked of somebody else; `None` where there is nobody.
    hedge_at: Option<Instant>,
    stall_timeout: Duration,
}

impl Download {
    pub fn new(memory_bytes: usize) -> Self {
        Self {
            memory_bytes,
            peers: BTreeMap::new(),
            blocks: HashMap::new(),
            wanted: BTreeMap::new(),
            best: None,
            base: None,
            filled_to: Height::GENESIS,
            held_bytes: 0,
            average_bytes: FIRST_GUESS_BYTES,
            asked: BTreeSet::new(),
            hedge_at: None,
            stall_timeout: STALL_TIMEOUT,
        }
    }

    pub fn add_peer(&mut self, peer: PeerId, info: &PeerInfo) {
        self.peers.insert(peer, BlockPeer::new(info));
    }

    pub fn set_peer_tip(&mut self, peer: PeerId, tip: HeaderTip) {
        if let Some(peer) = self.peers.get_mut(&peer) {
            peer.tip = Some(tip);
        }
    }

    pub fn remove_peer(&mut self, peer: PeerId, tree: &HeaderTree) {
        let owed = self.peers.remove(&peer).map(|peer| peer.in_flight).unwrap_or_default();
        for hash in owed.into_keys() {
            self.unask(peer, hash, tree);
        }
    }

    pub fn not_found(&mut self, peer: PeerId, hash: BlockHash, tree: &HeaderTree) {
        if let Some(state) = self.peers.get_mut(&peer)
            && state.in_flight.remove(&hash).is_some()
        {
            if let Some(height) = tree.height(hash) {
                state.timed_out(height);
            }
            self.unask(peer, hash, tree);
        }
    }

    /// Notes where the chain stands and where it should go: from `handed` to the best header.
    pub fn follow(&mut self, handed: Tip, tree: &HeaderTree, is_done: impl Fn(BlockHash) -> bool) {
        let best = tree.best().tip();
        let longer = self.best.is_some_and(|old| tree.hash_at(old.height) == Some(old.hash));
        let higher = self.base.is_some_and(|old| old.height <= handed.height);
        let base = match tree.hash_at(handed.height) {
            Some(hash) if hash == handed.hash => handed,
            _ => tree.fork_point(handed.hash, best.hash).unwrap_or(handed),
        };
        if !longer || !higher || self.base.is_none_or(|old| tree.hash_at(old.height) != Some(old.hash)) {
            self.wanted.clear();
            self.filled_to = base.height;
        }
        (self.best, self.base) = (Some(best), Some(base));
        self.filled_to = self.filled_to.max(base.height);
        self.wanted = self.wanted.split_off(&base.height.next());
        let end = Height(base.height.0.saturating_add(WINDOW)).min(best.height);
        while self.filled_to < end {
            self.filled_to = self.filled_to.next();
            if let Some(hash) = tree.hash_at(self.filled_to)
                && !self.blocks.contains_key(&hash)
                && !is_done(hash)
            {
                self.wanted.insert(self.filled_to, hash);
            }
        }
    }

    /// Asks peers for as much as they, the window and memory allow, lowest blocks first.
    ///
    /// The best header chain comes first. Peers on other chains that beat the connected one are asked for theirs:
    /// a chain of headers whose blocks nobody gives out must not keep us from the best that can be had.
    pub fn ask(
        &mut self,
        now: Now,
        handed: Tip,
        tree: &HeaderTree,
        is_done: impl Fn(BlockHash) -> bool,
        outputs: &mut VecDeque<Output>,
    ) {
        let mut requests: BTreeMap<PeerId, Vec<BlockHash>> = BTreeMap::new();
        let mut asked = Vec::new();
        let first_missing = self.first_missing(tree);
        for (&height, &hash) in &self.wanted {
            let in_flight = self.asked.len() + asked.len();
            let expected = self.held_bytes + (in_flight + 1) * self.average_bytes;
            // The first missing block may always be asked for: nothing moves without it.
            if expected > self.memory_bytes && first_missing != Some(hash) {
                break;
            }
            if !self.peers.values().any(|peer| peer.has_room() && !peer.is_late()) {
                break;
            }
            let able = self
                .peers
                .iter()
                .filter(|(_, peer)| peer.has_room() && !peer.is_late() && peer.can_serve(hash, height, tree));
            let Some((&peer, _)) = able.min_by_key(|(_, peer)| peer.in_flight.len()) else { continue };
            if let Some(state) = self.peers.get_mut(&peer) {
                state.in_flight.insert(hash, now.instant);
            }
            requests.entry(peer).or_default().push(hash);
            asked.push((height, hash, peer));
        }
        for (height, hash, peer) in asked {
            self.note_asked(now, height, hash, peer);
        }
        for peer in self.peers_on_other_chains(handed, tree) {
            for (height, hash) in self.branch_wanted(peer, handed, tree, &is_done) {
                if let Some(state) = self.peers.get_mut(&peer) {
                    state.in_flight.insert(hash, now.instant);
                }
                self.note_asked(now, height, hash, peer);
                requests.entry(peer).or_default().push(hash);
            }
        }
        outputs.extend(requests.into_iter().map(|(peer, blocks)| Output::GetData { peer, blocks }));
        self.hedge_at = self.hedges(tree).map(|hedge| hedge.asked_at + self.stall_timeout).min();
    }

    /// A block came; `true` when it was asked for and is the first copy.
    pub fn arrived(&mut self, now: Now, from: PeerId, hash: BlockHash, len_bytes: usize) -> bool {
        let asked_at = self.peers.get_mut(&from).and_then(|peer| {
            let asked_at = peer.in_flight.remove(&hash)?;
            peer.delivered();
            Some(asked_at)
        });
        let (Some(_), Some(State::Asked { height, by })) = (asked_at, self.blocks.get(&hash)) else {
            return false;
        };
        let (height, by) = (*height, by.clone());
        for (peer, since) in by {
            // Who was asked for good and lost anyway is slow or dead.
            let overdue = now.instant - since >= self.stall_timeout;
            if peer != from
                && overdue
                && let Some(peer) = self.peers.get_mut(&peer)
            {
                peer.lost_race(now.instant);
            }
        }
        self.asked.remove(&(height, hash));
        self.held_bytes += len_bytes;
        self.average_bytes = (self.average_bytes * 15 + len_bytes) / 16;
        self.blocks.insert(hash, State::Checking { from, len_bytes });
        true
    }

    /// A block was checked; gives back who sent it. A good one is held until `release`.
    pub fn checked(&mut self, hash: BlockHash, good: bool) -> Option<PeerId> {
        let Some(State::Checking { from, len_bytes }) = self.blocks.get(&hash) else { return None };
        let (from, len_bytes) = (*from, *len_bytes);
        if good {
            self.blocks.insert(hash, State::Held { len_bytes });
        } else {
            self.blocks.remove(&hash);
            self.held_bytes -= len_bytes;
        }
        Some(from)
    }

    /// Asks for a block anew that came damaged.
    pub fn want_again(&mut self, hash: BlockHash, tree: &HeaderTree) {
        if let Some(height) = tree.height(hash)
            && tree.hash_at(height) == Some(hash)
            && height <= self.filled_to
            && self.base.is_some_and(|base| base.height < height)
        {
            self.wanted.insert(height, hash);
        }
    }

    /// A block is connected, stored or given up: it takes no more memory.
    pub fn release(&mut self, hash: BlockHash) {
        if let Some(State::Held { len_bytes }) = self.blocks.get(&hash) {
            self.held_bytes -= len_bytes;
            self.blocks.remove(&hash);
        }
    }

    /// A block connected: peers are given a little less time again.
    pub fn connected(&mut self) {
        self.stall_timeout = self.stall_timeout.mul_f64(STALL_TIMEOUT_DECAY).max(STALL_TIMEOUT);
    }

    /// Asks a second peer for the first missing block when the first one takes too long, and gives back the peers
    /// that are to be dropped.
    pub fn handle_timeout(
        &mut self,
        now: Now,
        tree: &HeaderTree,
        outputs: &mut VecDeque<Output>,
    ) -> Vec<(PeerId, Misbehavior)> {
        self.hedge(now, tree, outputs);
        let (limit, stall) = (self.download_timeout(), self.stall_timeout);
        let mut dropped = Vec::new();
        for (&id, peer) in &mut self.peers {
            let too_old = peer.oldest().is_some_and(|oldest| now.instant - oldest >= limit);
            if too_old || peer.dead_at(stall).is_some_and(|at| at <= now.instant) {
                dropped.push((id, Misbehavior::Stalled));
            }
        }
        if !dropped.is_empty() {
            self.stall_timeout = (self.stall_timeout * 2).min(STALL_TIMEOUT_MAX);
        }
        dropped
    }

    /// When `handle_timeout` is next due.
    pub fn next_timeout(&self) -> Option<Instant> {
        let limit = self.download_timeout();
        let of_peers = self.peers.values().filter_map(|peer| Some(peer.oldest()? + limit));
        let dead = self.peers.values().filter_map(|peer| peer.dead_at(self.stall_timeout));
        of_peers.chain(dead).chain(self.hedge_at).min()
    }

    pub fn missing_source(&self, tree: &HeaderTree) -> Option<Height> {
        let (&height, &hash) = self.wanted.first_key_value()?;
        let nobody = !self.peers.values().any(|peer| peer.can_serve(hash, height, tree));
        nobody.then_some(height)
    }

    /// Nothing is on its way from a peer to the disk.
    pub fn is_idle(&self) -> bool {
        self.blocks.is_empty()
    }

    /// `peer` will not deliver this block: somebody else must, unless somebody else was asked already.
    fn unask(&mut self, peer: PeerId, hash: BlockHash, tree: &HeaderTree) {
        let Some(State::Asked { by, height }) = self.blocks.get_mut(&hash) else { return };
        by.retain(|(asked, _)| *asked != peer);
        if by.is_empty() {
            self.asked.remove(&(*height, hash));
            self.blocks.remove(&hash);
            self.want_again(hash, tree);
        }
    }

    fn download_timeout(&self) -> Duration {
        let downloading = self.peers.values().filter(|peer| !peer.in_flight.is_empty()).count();
        DOWNLOAD_TIMEOUT + DOWNLOAD_TIMEOUT_PER_PEER * downloading.saturating_sub(1) as u32
    }

    /// The lowest block of the window that has not arrived.
    fn first_missing(&self, tree: &HeaderTree) -> Option<BlockHash> {
        let wanted = self.wanted.first_key_value().map(|(height, hash)| (*height, *hash));
        wanted.into_iter().chain(self.first_asked(tree)).min().map(|(_, hash)| hash)
    }

    /// The lowest block of the best chain that is in flight.
    fn first_asked(&self, tree: &HeaderTree) -> Option<(Height, BlockHash)> {
        let base = self.base?;
        let mut above = self.asked.iter().filter(|(height, _)| *height > base.height);
        above.find(|(height, hash)| tree.hash_at(*height) == Some(*hash)).copied()
    }

    fn note_asked(&mut self, now: Now, height: Height, hash: BlockHash, peer: PeerId) {
        if self.wanted.get(&height) == Some(&hash) {
            self.wanted.remove(&height);
        }
        self.asked.insert((height, hash));
        self.blocks.insert(hash, State::Asked { height, by: vec![(peer, now.instant)] });
    }

    /// Peers with room whose chain is not the best one, but has more work than the connected one.
    fn peers_on_other_chains(&self, handed: Tip, tree: &HeaderTree) -> Vec<PeerId> {
        let on_other_chain = |tip: &HeaderTip| tree.hash_at(tip.height) != Some(tip.hash);
        let ready = self.peers.iter().filter(|(_, peer)| peer.has_room() && !peer.is_late());
        let others: Vec<_> =
            ready.filter_map(|(id, peer)| Some((*id, peer.tip.filter(on_other_chain)?))).collect();
        if others.is_empty() {
            return Vec::new();
        }
        let work = tree.info(handed.hash).map(|info| info.work);
        others.into_iter().filter(|(_, tip)| Some(tip.work) > work).map(|(peer, _)| peer).collect()
    }

    /// What a peer on another chain can be asked for now.
    fn branch_wanted(
        &self,
        peer: PeerId,
        handed: Tip,
        tree: &HeaderTree,
        is_done: &impl Fn(BlockHash) -> bool,
    ) -> Vec<(Height, BlockHash)> {
        let Some((state, tip)) = self.peers.get(&peer).and_then(|state| Some((state, state.tip?))) else {
            return Vec::new();
        };
        let Some(fork) = tree.fork_point(handed.hash, tip.hash) else { return Vec::new() };
        let Some(branch) = tree.path(fork.hash, tip.hash) else { return Vec::new() };
        let room = MAX_IN_FLIGHT - state.in_flight.len();
        let memory = self.memory_bytes.saturating_sub(self.held_bytes) / self.average_bytes.max(1);
        let heights = (fork.height.0 + 1..).map(Height);
        heights
            .zip(branch)
            .take(WINDOW as usize)
            .filter(|(height, hash)| {
                !self.blocks.contains_key(hash) && !is_done(*hash) && state.can_serve(*hash, *height, tree)
            })
            .take(room.min(memory.saturating_sub(self.asked.len()).max(1)))
            .collect()
    }

    /// Blocks that may be asked of somebody else: the first missing one, and those of other chains.
    fn hedges(&self, tree: &HeaderTree) -> impl Iterator<Item = Hedge> {
        let first = self.first_asked(tree);
        let other = self.asked.iter().filter(|(height, hash)| tree.hash_at(*height) != Some(*hash)).copied();
        first.into_iter().chain(other).filter_map(|(height, hash)| self.second_source(height, hash, tree))
    }

    /// Who else can be asked for a block, and when the last one was.
    fn second_source(&self, height: Height, hash: BlockHash, tree: &HeaderTree) -> Option<Hedge> {
        let Some(State::Asked { by, .. }) = self.blocks.get(&hash) else { return None };
        let (_, asked_at) = *by.last().filter(|_| by.len() < MAX_ASKED)?;
        let able = self.peers.iter().filter(|(id, peer)| {
            peer.has_room()
                && !peer.is_late()
                && by.iter().all(|(asked, _)| asked != *id)
                && peer.can_serve(hash, height, tree)
        });
        let (peer, _) = able.min_by_key(|(_, peer)| peer.in_flight.len())?;
        Some(Hedge { hash, peer: *peer, asked_at })
    }

    fn hedge(&mut self, now: Now, tree: &HeaderTree, outputs: &mut VecDeque<Output>) {
        let due = self.hedges(tree).find(|hedge| now.instant - hedge.asked_at >= self.stall_timeout);
        let Some(Hedge { hash, peer, .. }) = due else { return };
        if let Some(state) = self.peers.get_mut(&peer) {
            state.in_flight.insert(hash, now.instant);
        }
        if let Some(State::Asked { by, .. }) = self.blocks.get_mut(&hash) {
            by.push((peer, now.instant));
        }
        outputs.push_back(Output::GetData { peer, blocks: vec![hash] });
    }
}

/// A block that could be asked of a second peer.
struct Hedge {
    hash: BlockHash,
    peer: PeerId,
    /// When the last peer was asked for it.
    asked_at: Instant,
}
