//! Block sync as one machine: from the best header chain to blocks for the chain's writer, in chain order.
//!
//! In: peers that come and go, the blocks that they send, what checking and connecting said of them, a best header
//! chain that moves, the time. Out: what to ask of whom, blocks to check, commands for the writer, peers to drop.
//! What may be asked of whom is the scheduler's matter, what the writer is told is activation's; here they are tied
//! together, and every refusal is turned into what follows from it.
//! Source: Bitcoin Core `net_processing.cpp` (`ProcessBlock`, `BlockChecked`).

use std::collections::VecDeque;

use bitcoin::BlockHash;
use bitcoin::block::Header;
use bitcoin::consensus::deserialize;
use chainstore::{Height, Tip};

use super::activation::Activation;
use super::check::Refusal;
use super::compact::Compact;
use super::reorder::Reorder;
use super::repair::Repairs;
use super::scheduler::{Delivery, Purpose, Scheduler, Situation};
use super::types::{ChainEvent, Output, Progress};
use super::window::{WINDOW, Window};
use crate::headers::{HeaderTip, HeaderTree};
use crate::peer::{Misbehavior, PeerId, PeerInfo, WireBlock};
use crate::time::{Instant, Now};
use crate::validate::{CheckedBlock, Verdict};

/// Length of a serialized block header.
const HEADER_BYTES: usize = 80;

/// See the module.
#[derive(Debug)]
pub struct BlockSync {
    pub(super) scheduler: Scheduler,
    window: Window,
    pub(super) reorder: Reorder,
    pub(super) activation: Activation,
    pub(super) repairs: Repairs,
    pub(super) compact: Compact,
    /// When a block may be fetched again that was only just.
    repair_due: Option<Instant>,
    unasked: u64,
    pub(super) outputs: VecDeque<Output>,
}

impl BlockSync {
    /// `memory_bytes` bounds the blocks that are in memory or on their way, `connected` is the chain's tip, `stored`
    /// the blocks that are on disk without being connected.
    pub fn new(memory_bytes: usize, connected: Tip, stored: Vec<Tip>) -> Self {
        Self {
            scheduler: Scheduler::new(),
            window: Window::above(connected),
            reorder: Reorder::new(memory_bytes),
            activation: Activation::new(connected, stored.into_iter().map(|tip| tip.hash)),
            repairs: Repairs::default(),
            compact: Compact::default(),
            repair_due: None,
            unasked: 0,
            outputs: VecDeque::new(),
        }
    }

    /// Peers are reached through a proxy: they get more time before somebody else is asked.
    pub fn be_patient(&mut self) {
        self.scheduler.be_patient();
    }

    /// A peer's handshake is done. It is asked for nothing before its tip is known.
    pub fn handle_peer_ready(&mut self, peer: PeerId, info: &PeerInfo) {
        self.scheduler.add_peer(peer, info);
    }

    /// A connection ended: what the peer owed us is asked elsewhere at once. Harmless for one that was dropped.
    pub fn handle_peer_gone(&mut self, now: Now, peer: PeerId, tree: &HeaderTree) {
        if self.remove_peer(peer) {
            self.advance(now, tree);
        }
    }

    /// The best header that the peer is known to have.
    pub fn handle_peer_tip(&mut self, now: Now, peer: PeerId, tip: HeaderTip, tree: &HeaderTree) {
        self.scheduler.set_tip(peer, tip, tree);
        self.advance(now, tree);
    }

    /// The best valid header chain is another one, or longer; or headers were found invalid.
    pub fn handle_best_changed(&mut self, now: Now, tree: &HeaderTree) {
        self.scheduler.best_changed(tree);
        self.activation.best_changed();
        self.advance(now, tree);
    }

    /// A peer sent a block. One that was not asked for is dropped without a word: a lost race may bring it.
    pub fn handle_block(&mut self, now: Now, from: PeerId, block: WireBlock, tree: &HeaderTree) {
        if !self.scheduler.has_peer(from) {
            return;
        }
        let header = block.bytes.get(..HEADER_BYTES).and_then(|bytes| deserialize::<Header>(bytes).ok());
        let Some(hash) = header.map(|header| header.block_hash()) else {
            let what = format!("block of {} bytes", block.bytes.len());
            self.drop_peer(from, Misbehavior::BadMessage(what));
            self.advance(now, tree);
            return;
        };
        let delivery = self.scheduler.delivered(now, from, hash);
        if delivery != Delivery::Unasked
            && let Some(other) = self.compact.delivered(&hash)
        {
            self.scheduler.waive(other, &hash);
        }
        match delivery {
            Delivery::Asked { height, purpose: Purpose::Repair } => {
                self.take_repair(from, height, hash, block);
            }
            Delivery::Asked { height, purpose } => {
                self.take(from, height, hash, purpose == Purpose::Side, block);
            }
            Delivery::Unasked => {
                self.unasked = self.unasked.saturating_add(1);
                // Nothing has changed, and a flood of these must cost no more than it does.
                return;
            }
        }
        self.advance(now, tree);
    }

    /// A peer said that it has not got a block. Core never does.
    pub fn handle_not_found(&mut self, now: Now, from: PeerId, hash: BlockHash, tree: &HeaderTree) {
        if self.scheduler.refused(from, hash) {
            self.compact.refused(from, &hash);
            self.advance(now, tree);
        }
    }

    /// The answer to [`Output::Check`].
    pub fn handle_checked(
        &mut self,
        now: Now,
        hash: BlockHash,
        result: Result<CheckedBlock, Refusal>,
        tree: &HeaderTree,
    ) {
        let rebuilt = self.compact.checked(&hash);
        if let Some(from) = self.repairs.checking(&hash) {
            self.repair_checked(now, hash, from, result);
            self.advance(now, tree);
            return;
        }
        let Some((height, from)) = self.reorder.checking(&hash) else { return };
        match result {
            Ok(block) => {
                self.scheduler.sound(from);
                self.reorder.passed(block);
                self.activation.block_ready(hash, tree);
                rebuilt.into_iter().for_each(|rebuilt| self.count_rebuilt(rebuilt));
            }
            Err(Refusal::Damaged) => {
                self.reorder.release(&hash);
                self.window.set_held(height, hash, false);
                self.damaged(from, hash);
            }
            Err(Refusal::Refused(error)) => {
                self.reorder.release(&hash);
                let (reason, verdict) = (error.to_string(), error.verdict());
                match rebuilt {
                    // The pool may have had another transaction with the same short id.
                    Some(_) if verdict == Verdict::Mutated => self.compact.was_unfit(),
                    Some(_) => {}
                    None => self.drop_peer(from, Misbehavior::BadBlock(reason.clone())),
                }
                match verdict {
                    // Not what the header's work was done for: somebody else has the real one.
                    Verdict::Mutated => self.window.set_held(height, hash, false),
                    Verdict::Invalid => self.condemn(hash, reason),
                    // Every peer would send the same. The chain ends below it until a build that can check it.
                    Verdict::Unsupported => self.bar(hash),
                }
            }
        }
        self.advance(now, tree);
    }

    /// What became of a command to the chain's writer.
    pub fn handle_chain_event(&mut self, now: Now, event: ChainEvent, tree: &HeaderTree) {
        match event {
            ChainEvent::Connected(tip) => {
                self.scheduler.connected();
                self.reorder.release(&tip.hash);
                let void = self.activation.block_connected(tip, tree);
                self.release_void(&void);
            }
            ChainEvent::Stored(hash) => {
                self.reorder.release(&hash);
                self.activation.block_stored(hash, tree);
            }
            ChainEvent::Switched(tip) => self.activation.switched(tip, tree),
            ChainEvent::Failed { hash, reason, tip } => {
                let void = self.activation.failed(tip, tree);
                self.release_void(&void);
                self.condemn(hash, reason);
            }
            ChainEvent::Blocked { damaged, tip, .. } => {
                let void = self.activation.failed(tip, tree);
                self.release_void(&void);
                self.blocked_by(now, damaged);
            }
            ChainEvent::Repaired { block, .. } => self.repaired(now, block.hash),
        }
        self.advance(now, tree);
    }

    /// The chain's writer has lost whatever it was told and had not made durable: it stands at `connected` now, with
    /// `stored` on disk, and knows of no earlier command. The blocks that it had are asked for again.
    pub fn handle_restored(&mut self, now: Now, connected: Tip, stored: Vec<Tip>, tree: &HeaderTree) {
        self.reorder.release_handed();
        self.activation.restored(connected, stored.into_iter().map(|tip| tip.hash));
        self.window = Window::above(connected);
        self.advance(now, tree);
    }

    /// To be called when [`Self::next_timeout`] has come; at other times it does no harm.
    pub fn handle_timeout(&mut self, now: Now, tree: &HeaderTree) {
        for peer in self.scheduler.expired(now) {
            self.drop_peer(peer, Misbehavior::Stalled);
        }
        self.advance(now, tree);
    }

    /// When [`Self::handle_timeout`] is next due; `None` while nothing is waited for.
    pub fn next_timeout(&self) -> Option<Instant> {
        self.scheduler.next_timeout().into_iter().chain(self.repair_due).min()
    }

    /// Call until `None` after each of the above.
    pub fn poll(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// The next block of the best chain, if no connected peer can be asked for it.
    pub fn missing_source(&self, tree: &HeaderTree) -> Option<Height> {
        let (height, hash) = self.window.first_missing()?;
        (!self.scheduler.has_source(height, hash, tree)).then_some(height)
    }

    /// How far the sync is.
    pub fn progress(&self, tree: &HeaderTree) -> Progress {
        Progress {
            connected: self.activation.connected().height,
            target: tree.best().height,
            first_missing: self.window.first_missing().map(|(height, _)| height),
            in_flight: self.scheduler.in_flight(),
            busy_peers: self.scheduler.busy_peers(),
            in_memory: self.reorder.len(),
            held_bytes: self.reorder.held_bytes(),
            unasked: self.unasked,
            stall_timeout: self.scheduler.stall_timeout(),
        }
    }

    /// Whether the writer has answered all that it was told.
    pub fn is_drained(&self) -> bool {
        self.activation.is_idle()
    }

    /// Whether nothing is asked for, in memory, or with the writer: no block comes before something else happens.
    pub fn is_idle(&self) -> bool {
        self.is_drained() && self.scheduler.in_flight() == 0 && self.reorder.len() == 0
    }

    /// What must always be true.
    #[cfg(test)]
    pub(super) fn hold_invariants(&self) {
        self.scheduler.hold_invariants();
    }

    /// Takes in a block that was asked for, if it is still wanted and there is room for it. A second copy is not.
    /// Returns whether it was taken in.
    pub(super) fn take(
        &mut self,
        from: PeerId,
        height: Height,
        hash: BlockHash,
        side: bool,
        block: WireBlock,
    ) -> bool {
        let settled =
            is_settled(&hash, &self.reorder, &self.activation) || self.repairs.checking(&hash).is_some();
        if settled || !(side || self.window.contains(height, hash)) {
            return false;
        }
        let is_first = self.window.first_missing() == Some((height, hash));
        if !self.reorder.arrived(hash, height, from, block.bytes.len(), is_first) {
            return false;
        }
        self.window.set_held(height, hash, true);
        self.outputs.push_back(Output::Check { hash, height, block });
        true
    }

    /// These were handed on and will not be connected; should they matter again, they are fetched again.
    fn release_void(&mut self, void: &[Tip]) {
        void.iter().for_each(|block| self.reorder.release(&block.hash));
        if !void.is_empty() {
            self.window = Window::above(self.activation.connected());
        }
    }

    fn condemn(&mut self, hash: BlockHash, reason: String) {
        self.bar(hash);
        self.outputs.push_back(Output::MarkInvalid { hash, reason });
    }

    /// Nothing from this block on is fetched any more.
    fn bar(&mut self, hash: BlockHash) {
        self.activation.bar(hash);
        self.window = Window::above(self.activation.connected());
    }

    /// One such message is the line's fault; a peer, or a line, that only sends such is of no use.
    pub(super) fn damaged(&mut self, from: PeerId, hash: BlockHash) {
        if self.scheduler.damaged(from) {
            let what = "one block after the other does not match its checksum".to_owned();
            self.drop_peer(from, Misbehavior::BadMessage(what));
        } else {
            self.outputs.push_back(Output::Damaged { peer: from, hash });
        }
    }

    pub(super) fn drop_peer(&mut self, peer: PeerId, why: Misbehavior) {
        // One that went while its block was being checked needs no second goodbye.
        if self.remove_peer(peer) {
            self.outputs.push_back(Output::Drop { peer, why });
        }
    }

    fn remove_peer(&mut self, peer: PeerId) -> bool {
        self.compact.forget_peer(peer);
        self.scheduler.remove_peer(peer)
    }

    /// Hands on what can be handed on, then asks for more.
    pub(super) fn advance(&mut self, now: Now, tree: &HeaderTree) {
        self.activation.advance(tree, &mut self.reorder, &mut self.outputs);
        self.move_window(tree);
        let repairs = self.repairs.missing(now);
        self.repair_due = self.repairs.next_due(now);
        let asked = {
            let (reorder, activation) = (&self.reorder, &self.activation);
            let fits = |in_flight| reorder.fits(in_flight);
            let is_settled = |hash: &BlockHash| is_settled(hash, reorder, activation);
            self.scheduler.ask(
                now,
                &Situation {
                    window: &self.window,
                    tree,
                    handed: activation.handed(),
                    fits: &fits,
                    stuck: activation.is_idle() && reorder.is_stuck(),
                    repairs: &repairs,
                    is_settled: &is_settled,
                },
            )
        };
        for (peer, blocks) in asked.requests {
            let output = match blocks[..] {
                [block] => self.get_block(now, peer, block, tree),
                _ => Output::GetData { peer, blocks },
            };
            self.outputs.push_back(output);
        }
        if asked.starved {
            self.activation.spill(&mut self.reorder, &mut self.outputs);
        }
    }

    /// Lets the window begin above what is done, and reach as far as it may.
    fn move_window(&mut self, tree: &HeaderTree) {
        let handed = self.activation.handed();
        let best = tree.best().hash;
        // The store keeps the headers of its chain, so there is such a point.
        let Some(below) = tree.fork_point(handed.hash, best) else { return };
        if !self.window.is_on_best(tree) || self.window.last() < below.height {
            self.window = Window::above(below);
        }
        let (reorder, activation) = (&self.reorder, &self.activation);
        loop {
            let first = self.window.first();
            let limit = (first.0 - 1).saturating_sub(activation.connecting()).saturating_add(WINDOW);
            self.window.grow(
                Height(limit),
                tree,
                |hash| is_settled(hash, reorder, activation),
                |hash| activation.is_barred(hash),
            );
            self.window.pass(below.height, |hash| activation.is_on_disk(hash));
            if self.window.first() == first {
                return;
            }
        }
    }
}

/// Whether a block is in memory, on disk, or never to be asked for again.
fn is_settled(hash: &BlockHash, reorder: &Reorder, activation: &Activation) -> bool {
    reorder.contains(hash) || activation.is_on_disk(hash) || activation.is_barred(hash)
}
