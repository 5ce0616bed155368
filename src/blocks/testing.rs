//! Block sync among scripted peers: alice, bob and others, with real regtest blocks, a header tree, checkers that
//! answer at once and a `writer` that keeps its chain in a list. Every step is held to what must always be true.

mod writer;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bitcoin::p2p::ServiceFlags;
use bitcoin::{BlockHash, Network, Work, Wtxid};
use bytes::Bytes;
use chainstore::{Height, Tip};

use super::check::check_received;
use super::rebuild::{Partial, Rebuilt};
use super::sync::BlockSync;
use super::testing_forge::Forge;
use super::types::{Output, Progress};
use crate::headers::HeaderTree;
use crate::peer::{CompactBlock, Misbehavior, PeerId, PeerInfo, WireBlock};
use crate::time::{Instant, Now};
use crate::validate::{BlockContext, Params};
use writer::{Command, Writer};

/// Room for whatever a test asks, where memory is not its subject.
pub(super) const ENOUGH_BYTES: usize = 1 << 40;
/// A clock at which every block made here is old enough.
const NOW: u64 = 1_800_000_000;

#[derive(Debug, Default)]
struct ScriptedPeer {
    tip: Option<BlockHash>,
    owes: BTreeSet<BlockHash>,
    /// Asked for since the test last looked.
    asked: Vec<BlockHash>,
    /// Asked for as compact blocks since then.
    asked_compact: Vec<BlockHash>,
    /// The block that it was last asked for as a compact one.
    compact: Option<BlockHash>,
    /// The transactions of it that it owes.
    positions: Option<Vec<u16>>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Harness {
    pub sync: BlockSync,
    /// What compact blocks are filled from.
    pub pool: Vec<(Wtxid, Bytes)>,
    /// What was put together, in that order.
    pub rebuilt: Vec<Rebuilt>,
    pub tree: HeaderTree,
    pub forge: Forge,
    pub writer: Writer,
    pub now: Now,
    limit_bytes: usize,
    peers: BTreeMap<PeerId, ScriptedPeer>,
    next_peer: u64,
    dropped: Vec<(PeerId, Misbehavior)>,
    /// Blocks said to have been damaged on their way.
    pub damaged: Vec<(PeerId, BlockHash)>,
    /// Blocks told to be invalid.
    pub condemned: Vec<BlockHash>,
    /// Checks put out so far.
    pub checks: usize,
    /// Blocks that passed their check.
    passed: BTreeSet<BlockHash>,
    /// Good blocks that passed their check and stand on such, down to genesis or to what was connected at the start.
    whole: BTreeSet<BlockHash>,
}

impl Harness {
    pub fn new() -> Self {
        Self::with_memory(Forge::new(), ENOUGH_BYTES)
    }

    /// Nothing is connected but genesis.
    pub fn with_memory(forge: Forge, limit_bytes: usize) -> Self {
        let genesis = forge.genesis();
        Self::standing_on(forge, limit_bytes, genesis, &[])
    }

    /// As after a restart: the chain up to `tip` is connected, `stored` is on disk, and the headers of both are known.
    pub fn standing_on(forge: Forge, limit_bytes: usize, tip: BlockHash, stored: &[BlockHash]) -> Self {
        let mut chain = vec![forge.genesis()];
        chain.extend(forge.chain(tip));
        let on_disk: Vec<Tip> = stored.iter().map(|hash| forge.tip(*hash)).collect();
        let mut harness = Self {
            sync: BlockSync::new(limit_bytes, forge.tip(tip), on_disk),
            pool: Vec::new(),
            rebuilt: Vec::new(),
            tree: HeaderTree::new(Params::of(Network::Regtest)),
            writer: Writer {
                chain,
                disk: stored.iter().copied().collect(),
                queue: VecDeque::new(),
                damaged: BTreeSet::new(),
                repaired: Vec::new(),
                paused: false,
                switches: 0,
            },
            now: Now { instant: Instant::default(), unix: NOW },
            limit_bytes,
            peers: BTreeMap::new(),
            next_peer: 1,
            dropped: Vec::new(),
            damaged: Vec::new(),
            condemned: Vec::new(),
            checks: 0,
            passed: BTreeSet::new(),
            whole: BTreeSet::from([tip]),
            forge,
        };
        harness.learn(tip);
        stored.iter().for_each(|hash| harness.learn(*hash));
        harness.best_changed();
        harness
    }

    /// A peer that keeps the whole chain and ends at `tip`, whose headers are known from now on.
    pub fn connect(&mut self, tip: BlockHash) -> PeerId {
        let peer = self.connect_with(ServiceFlags::NETWORK | ServiceFlags::NETWORK_LIMITED);
        self.announce(peer, tip);
        peer
    }

    /// A pruned peer that ends at `tip`.
    pub fn connect_pruned(&mut self, tip: BlockHash) -> PeerId {
        let peer = self.connect_with(ServiceFlags::NETWORK_LIMITED);
        self.announce(peer, tip);
        peer
    }

    /// New blocks are asked for as compact ones from now on, as their time is now.
    pub fn want_compact(&mut self, tip: BlockHash) {
        self.now.unix = u64::from(self.forge.header(tip).time);
        self.sync.want_compact(true);
    }

    /// A peer that keeps the whole chain and gives compact blocks.
    pub fn connect_compact(&mut self, tip: BlockHash) -> PeerId {
        let peer = self.connect(tip);
        self.sync.handle_send_compact(peer);
        peer
    }

    /// A peer of whose chain nothing is known yet.
    pub fn connect_with(&mut self, services: ServiceFlags) -> PeerId {
        let peer = PeerId(self.next_peer);
        self.next_peer += 1;
        let info = PeerInfo {
            version: 70016,
            services: services | ServiceFlags::WITNESS,
            user_agent: "/test/".to_owned(),
            start_height: 1_000_000,
            relay: true,
            wtxid_relay: true,
        };
        self.peers.insert(peer, ScriptedPeer::default());
        self.sync.handle_peer_ready(peer, &info);
        self.perform();
        peer
    }

    /// A peer sends the headers up to `tip`.
    pub fn announce(&mut self, peer: PeerId, tip: BlockHash) {
        let best = self.tree.best().hash;
        self.learn(tip);
        if self.tree.best().hash != best {
            self.best_changed();
        }
        let (Some(info), Some(state)) = (self.tree.info(tip), self.peers.get_mut(&peer)) else { return };
        state.tip = Some(tip);
        if info.invalid {
            self.disconnect(peer);
            return;
        }
        let tip = crate::headers::HeaderTip { height: info.height, hash: tip, work: info.work };
        self.sync.handle_peer_tip(self.now, peer, tip, &self.tree);
        self.perform();
    }

    pub fn disconnect(&mut self, peer: PeerId) {
        self.peers.remove(&peer);
        self.sync.handle_peer_gone(self.now, peer, &self.tree);
        self.perform();
    }

    /// A peer sends a block, asked for or not.
    pub fn deliver(&mut self, from: PeerId, hash: BlockHash) {
        self.deliver_raw(from, hash, self.forge.raw(hash));
    }

    /// A peer sends a block of which one bit turns on the way.
    pub fn deliver_damaged(&mut self, from: PeerId, hash: BlockHash) {
        let sent = WireBlock::new(self.forge.raw(hash));
        self.deliver_block(from, hash, WireBlock { bytes: self.forge.mutated(hash), ..sent });
    }

    /// A peer sends bytes that begin with the header of `hash`.
    pub fn deliver_raw(&mut self, from: PeerId, hash: BlockHash, raw: Bytes) {
        self.deliver_block(from, hash, WireBlock::new(raw));
    }

    fn deliver_block(&mut self, from: PeerId, hash: BlockHash, block: WireBlock) {
        if let Some(peer) = self.peers.get_mut(&from) {
            peer.owes.remove(&hash);
        }
        self.sync.handle_block(self.now, from, block, &self.tree);
        self.perform();
    }

    /// A peer sends a compact block. Whether it was asked for.
    pub fn deliver_compact(&mut self, from: PeerId, block: CompactBlock) -> bool {
        let hash = block.header.block_hash();
        if let Some(peer) = self.peers.get_mut(&from) {
            peer.owes.remove(&hash);
        }
        let was_asked = self.sync.handle_compact_block(from, block);
        self.perform();
        was_asked
    }

    /// A peer sends transactions of a block.
    pub fn deliver_transactions(&mut self, from: PeerId, hash: BlockHash, transactions: &[Bytes]) {
        if let Some(peer) = self.peers.get_mut(&from) {
            peer.positions = None;
        }
        self.sync.handle_block_transactions(self.now, from, hash, transactions, &self.tree);
        self.perform();
    }

    /// What it owes of a compact block: which, and the transactions that it was asked for.
    pub fn positions(&self, peer: PeerId) -> Option<(BlockHash, Vec<u16>)> {
        let peer = self.peers.get(&peer)?;
        peer.compact.zip(peer.positions.clone())
    }

    /// The compact block that it owes.
    pub fn owes_compact(&self, peer: PeerId) -> Option<BlockHash> {
        let peer = self.peers.get(&peer)?;
        peer.compact.filter(|hash| peer.owes.contains(hash))
    }

    /// Somebody finds that a block on disk cannot be read; whether it will be fetched.
    pub fn find_damaged(&mut self, hash: BlockHash) -> bool {
        self.writer.damaged.insert(hash);
        let wanted = self.sync.handle_damaged(self.now, self.forge.tip(hash), &self.tree);
        self.perform();
        wanted
    }

    pub fn not_found(&mut self, from: PeerId, hash: BlockHash) {
        if let Some(peer) = self.peers.get_mut(&from) {
            peer.owes.remove(&hash);
        }
        self.sync.handle_not_found(self.now, from, hash, &self.tree);
        self.perform();
    }

    /// Lets these peers deliver all that they owe, until they are asked no more.
    pub fn serve(&mut self, peers: &[PeerId]) {
        while let Some((peer, hash)) = peers.iter().find_map(|peer| Some((*peer, *self.owes(*peer).first()?)))
        {
            self.deliver(peer, hash);
        }
    }

    /// What a peer was asked for since the test last looked, in that order.
    pub fn asked(&mut self, peer: PeerId) -> Vec<BlockHash> {
        self.peers.get_mut(&peer).map(|peer| std::mem::take(&mut peer.asked)).unwrap_or_default()
    }

    /// The same of compact blocks, which are no part of that.
    pub fn asked_compact(&mut self, peer: PeerId) -> Vec<BlockHash> {
        self.peers.get_mut(&peer).map(|peer| std::mem::take(&mut peer.asked_compact)).unwrap_or_default()
    }

    /// What a peer was asked for and did not deliver, lowest first.
    pub fn owes(&self, peer: PeerId) -> Vec<BlockHash> {
        let mut owes: Vec<_> =
            self.peers.get(&peer).into_iter().flat_map(|peer| &peer.owes).copied().collect();
        owes.sort_by_key(|hash| self.forge.height(*hash));
        owes
    }

    /// Peers dropped since the test last looked.
    pub fn dropped(&mut self) -> Vec<(PeerId, Misbehavior)> {
        std::mem::take(&mut self.dropped)
    }

    pub fn peers(&self) -> Vec<PeerId> {
        self.peers.keys().copied().collect()
    }

    pub fn peer_tip(&self, peer: PeerId) -> Option<BlockHash> {
        self.peers.get(&peer)?.tip
    }

    /// Moves the clock by `wait`, with every timer on the way.
    pub fn advance(&mut self, wait: Duration) {
        let end = self.now.after(wait);
        while let Some(due) = self.sync.next_timeout().filter(|due| *due <= end.instant) {
            self.now = self.now.after(due - self.now.instant);
            self.sync.handle_timeout(self.now, &self.tree);
            self.perform();
            let next = self.sync.next_timeout();
            assert!(next.is_none_or(|next| next > self.now.instant), "a timer that does not end");
        }
        self.now = self.now.after(end.instant - self.now.instant);
    }

    /// Where the writer stands.
    pub fn connected(&self) -> BlockHash {
        *self.writer.chain.last().unwrap()
    }

    pub fn progress(&self) -> Progress {
        self.sync.progress(&self.tree)
    }

    pub fn missing_source(&self) -> Option<Height> {
        self.sync.missing_source(&self.tree)
    }

    /// A header is found invalid by somebody else.
    pub fn mark_invalid(&mut self, hash: BlockHash) {
        self.tree.mark_invalid(hash);
        self.best_changed();
    }

    fn learn(&mut self, tip: BlockHash) {
        let unknown: Vec<_> =
            self.forge.chain(tip).into_iter().filter(|hash| !self.tree.contains(*hash)).collect();
        for hash in unknown {
            // What is built on an invalid block is refused, as it should be.
            let _ = self.tree.insert(self.forge.header(hash), NOW);
        }
    }

    fn best_changed(&mut self) {
        self.sync.handle_best_changed(self.now, &self.tree);
        self.perform();
    }

    /// Does what is put out, as the node and the shell would.
    fn perform(&mut self) {
        loop {
            let Some(output) = self.sync.poll() else {
                if self.writer.paused || !self.write_quietly() {
                    break;
                }
                continue;
            };
            match output {
                Output::GetData { peer, blocks } => self.take_request(peer, blocks, false),
                Output::GetCompact { peer, block } => self.take_request(peer, vec![block], true),
                Output::Fill { peer, block } => {
                    let result = Partial::of(&block, self.pool.iter().map(|(wtxid, raw)| (*wtxid, raw)));
                    let hash = block.header.block_hash();
                    self.sync.handle_filled(self.now, peer, hash, result, &self.tree);
                }
                Output::GetTransactions { peer, block, positions } => {
                    if let Some(state) = self.peers.get_mut(&peer) {
                        assert_eq!(state.compact, Some(block), "{peer} was not asked for it so");
                        state.positions = Some(positions);
                    }
                }
                Output::Rebuilt(rebuilt) => self.rebuilt.push(rebuilt),
                Output::Check { hash, height, block } => {
                    self.checks += 1;
                    let parent_mtp = self.tree.median_time_past(self.forge.parent(hash)).unwrap();
                    let context = BlockContext { height, parent_mtp };
                    let result = check_received(block, &context, &self.forge.params);
                    if result.is_ok() {
                        self.note_passed(hash);
                    }
                    self.sync.handle_checked(self.now, hash, result, &self.tree);
                }
                Output::Connect(block) => self.writer.queue.push_back(Command::Connect(block)),
                Output::Store(block) => self.writer.queue.push_back(Command::Store(block.hash())),
                Output::Repair(block) => self.writer.queue.push_back(Command::Repair(block.hash())),
                Output::Switch { fork, connect } => {
                    self.writer.queue.push_back(Command::Switch { fork, connect });
                }
                Output::MarkInvalid { hash, .. } => self.condemn(hash),
                Output::Damaged { peer, hash } => self.damaged.push((peer, hash)),
                Output::Drop { peer, why } => {
                    assert!(self.peers.remove(&peer).is_some(), "{peer} was gone already");
                    self.dropped.push((peer, why));
                    self.sync.handle_peer_gone(self.now, peer, &self.tree);
                }
            }
            self.hold_invariants();
        }
    }

    fn note_passed(&mut self, hash: BlockHash) {
        self.passed.insert(hash);
        let mut more = vec![hash];
        while let Some(hash) = more.pop() {
            if self.whole.contains(&self.forge.parent(hash)) && self.connects(hash) {
                self.whole.insert(hash);
                more.extend(self.passed.iter().filter(|child| self.forge.parent(**child) == hash));
            }
        }
    }

    /// The writer has done all it was told, so the connected chain is the best of all that arrived without a gap.
    pub fn hold_best(&self) {
        if self.writer.queue.is_empty() {
            let best = self.whole.iter().map(|hash| self.work(*hash)).max();
            assert_eq!(Some(self.work(self.connected())), best, "a better chain is there");
        }
    }

    /// As `HeaderSync` does: peers that follow an invalid chain go.
    fn condemn(&mut self, hash: BlockHash) {
        self.condemned.push(hash);
        self.tree.mark_invalid(hash);
        let followers: Vec<_> = self
            .peers
            .iter()
            .filter(|(_, peer)| peer.tip.is_some_and(|tip| self.tree.is_invalid(tip)))
            .map(|(id, _)| *id)
            .collect();
        self.sync.handle_best_changed(self.now, &self.tree);
        for peer in followers {
            self.peers.remove(&peer);
            self.dropped.push((peer, Misbehavior::InvalidChain));
            self.sync.handle_peer_gone(self.now, peer, &self.tree);
        }
    }

    fn take_request(&mut self, peer: PeerId, blocks: Vec<BlockHash>, is_compact: bool) {
        // It may have left while the question was on its way.
        let Some(state) = self.peers.get_mut(&peer) else { return };
        assert!(!blocks.is_empty());
        for hash in blocks {
            // A compact block that came elsewhere first is not waited for, so that is a new question.
            let waived = state.compact == Some(hash);
            assert!(state.owes.insert(hash) || waived, "{peer} was asked twice for {hash} at once");
            let has = state.tip.and_then(|tip| self.tree.ancestor(tip, self.forge.height(hash)));
            if !self.writer.damaged.contains(&hash) {
                assert_eq!(has, Some(hash), "{peer} was asked for what it has not got");
                assert!(!self.writer.disk.contains(&hash), "{hash} is on disk");
                assert!(!self.writer.chain.contains(&hash), "{hash} is connected");
            }
            if is_compact {
                (state.compact, state.positions) = (Some(hash), None);
                state.asked_compact.push(hash);
            } else {
                state.asked.push(hash);
            }
        }
    }

    fn hold_invariants(&self) {
        self.sync.hold_invariants();
        let progress = self.progress();
        let largest = self.forge.largest();
        assert!(progress.held_bytes <= self.limit_bytes.saturating_add(largest), "{progress:?}");
    }

    /// Work of a block that any peer announced.
    pub fn work(&self, hash: BlockHash) -> Work {
        self.tree.info(hash).map_or(Work::from_be_bytes([0; 32]), |info| info.work)
    }
}
