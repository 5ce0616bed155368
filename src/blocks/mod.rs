//! FETCH: which peer is asked for which block, and which chain the blocks are put into.
//!
//! In path order: `peers` knows what each peer can serve and owes us, `download` asks for the blocks of the best
//! header chain and minds the clock, `activation` decides what becomes of a checked block: connect it, wait for
//! its parent, keep it on disk, or switch to its branch. `BlockSync` is the three as one machine.
//! Blocks are checked elsewhere (`validate`) and connected elsewhere (`node::chain`).

mod activation;
mod download;
mod peers;

#[cfg(test)]
mod tests;

use std::collections::VecDeque;

use bitcoin::BlockHash;
use bitcoin::block::Header;
use bitcoin::consensus::deserialize;
use bytes::Bytes;
use chainstore::{Height, Tip};

use crate::headers::{HeaderTip, HeaderTree};
use crate::peer::{Misbehavior, PeerId, PeerInfo};
use crate::time::{Instant, Now};
use crate::validate::{BlockError, CheckedBlock, Verdict};

use activation::{Activation, Placed};
use download::Download;

/// What is to be done.
#[derive(Debug)]
pub enum Output {
    /// Ask for these blocks with one `getdata`, in this order.
    GetData {
        peer: PeerId,
        blocks: Vec<BlockHash>,
    },
    /// Run rungs 3 and 4; the answer comes back through `handle_checked`.
    Check {
        hash: BlockHash,
        height: Height,
        raw: Bytes,
    },
    /// Connect this block on top of the one of the last `Connect`, or of the chain's tip.
    Connect(CheckedBlock),
    /// Keep this block, of another branch, on disk.
    Store(CheckedBlock),
    /// Disconnect down to `fork`, then connect these kept blocks: all of it, or nothing.
    Switch {
        fork: Tip,
        connect: Vec<BlockHash>,
    },
    /// The block breaks a rule: its header and what builds on it are never to be followed.
    MarkInvalid {
        hash: BlockHash,
        reason: String,
    },
    Drop {
        peer: PeerId,
        why: Misbehavior,
    },
}

/// What became of `Connect`, `Store` and `Switch`, in their order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChainEvent {
    Connected(Tip),
    Stored(BlockHash),
    Switched(Tip),
    /// A block did not connect. The chain now stands at `tip`; later `Connect`s that were on their way are void.
    Failed {
        hash: BlockHash,
        reason: String,
        tip: Tip,
    },
}

/// Fetches the blocks of the best header chain and puts them in order.
#[derive(Debug)]
pub struct BlockSync {
    download: Download,
    activation: Activation,
    outputs: VecDeque<Output>,
}

impl BlockSync {
    /// `memory_bytes` bounds what waits to be checked or connected, `connected` is the chain's tip, `stored` the
    /// blocks that are on disk without being connected.
    pub fn new(memory_bytes: usize, connected: Tip, stored: Vec<Tip>) -> Self {
        Self {
            download: Download::new(memory_bytes),
            activation: Activation::new(connected, stored),
            outputs: VecDeque::new(),
        }
    }

    pub fn handle_peer_ready(&mut self, peer: PeerId, info: &PeerInfo) {
        self.download.add_peer(peer, info);
    }

    /// What the peer owed us is asked elsewhere at once.
    pub fn handle_peer_gone(&mut self, now: Now, peer: PeerId, tree: &HeaderTree) {
        self.download.remove_peer(peer, tree);
        self.ask(now, tree);
    }

    /// The best header that the peer is known to have.
    pub fn handle_peer_tip(&mut self, now: Now, peer: PeerId, tip: HeaderTip, tree: &HeaderTree) {
        self.download.set_peer_tip(peer, tip);
        self.ask(now, tree);
    }

    /// The best valid header chain is another one, or longer.
    pub fn handle_best_changed(&mut self, now: Now, tree: &HeaderTree) {
        for hash in self.activation.forget_invalid(tree) {
            self.download.release(hash);
        }
        self.activate(now, tree);
    }

    /// A peer delivered a block. Unasked ones are dropped without a word: Core sends none, but a reconnect or a
    /// lost race may bring one.
    pub fn handle_block(&mut self, now: Now, from: PeerId, raw: Bytes, tree: &HeaderTree) {
        let Some(header) = raw.get(..80).and_then(|bytes| deserialize::<Header>(bytes).ok()) else {
            return self.drop_peer(from, Misbehavior::BadBlock("no header".into()), tree);
        };
        let hash = header.block_hash();
        let len_bytes = raw.len();
        if self.download.arrived(now, from, hash, len_bytes)
            && let Some(height) = tree.height(hash)
        {
            self.outputs.push_back(Output::Check { hash, height, raw });
        }
        self.ask(now, tree);
    }

    /// A peer said that it has not got a block (Core never does).
    pub fn handle_not_found(&mut self, now: Now, from: PeerId, hash: BlockHash, tree: &HeaderTree) {
        self.download.not_found(from, hash, tree);
        self.ask(now, tree);
    }

    /// The answer to `Output::Check`.
    pub fn handle_checked(
        &mut self,
        now: Now,
        hash: BlockHash,
        result: Result<CheckedBlock, BlockError>,
        tree: &HeaderTree,
    ) {
        let Some(sender) = self.download.checked(hash, result.is_ok()) else { return };
        match result {
            Ok(block) => self.place(block, tree),
            Err(error) => {
                let reason = error.to_string();
                match error.verdict() {
                    // Not what the header's work was done for: somebody else has the real one.
                    Verdict::Mutated => self.download.want_again(hash, tree),
                    Verdict::Invalid => {
                        self.outputs.push_back(Output::MarkInvalid { hash, reason: reason.clone() });
                    }
                    // Asking another peer would bring the same bytes.
                    Verdict::Unsupported => {}
                }
                self.drop_peer(sender, Misbehavior::BadBlock(reason), tree);
            }
        }
        self.activate(now, tree);
    }

    /// What became of a command to the chain's writer.
    pub fn handle_chain_event(&mut self, now: Now, event: ChainEvent, tree: &HeaderTree) {
        match event {
            ChainEvent::Connected(tip) => {
                self.download.connected();
                self.download.release(tip.hash);
                self.activation.connected(tip);
            }
            ChainEvent::Stored(hash) => {
                self.download.release(hash);
                self.activation.stored(hash);
            }
            ChainEvent::Switched(tip) => self.activation.switched(tip, tree),
            ChainEvent::Failed { hash, reason, tip } => {
                for void in self.activation.failed(hash, tip, tree) {
                    self.download.release(void);
                }
                self.outputs.push_back(Output::MarkInvalid { hash, reason });
            }
        }
        self.activate(now, tree);
    }

    pub fn handle_timeout(&mut self, now: Now, tree: &HeaderTree) {
        for (peer, why) in self.download.handle_timeout(now, tree, &mut self.outputs) {
            self.drop_peer(peer, why, tree);
        }
        self.ask(now, tree);
    }

    /// When `handle_timeout` is next due; `None` while nothing is in flight.
    pub fn next_timeout(&self) -> Option<Instant> {
        self.download.next_timeout()
    }

    /// Call until `None` after each of the above.
    pub fn poll(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// The next block that we need, if no connected peer can be asked for it.
    pub fn missing_source(&self, tree: &HeaderTree) -> Option<Height> {
        self.download.missing_source(tree)
    }

    /// Nothing that was handed on is still to come back.
    pub fn is_drained(&self) -> bool {
        self.activation.is_drained()
    }

    /// Nothing is asked for, checked, waiting or handed on.
    pub fn is_idle(&self) -> bool {
        self.is_drained() && self.download.is_idle()
    }

    /// Nothing is asked of it any more, even before the shell has closed the connection.
    fn drop_peer(&mut self, peer: PeerId, why: Misbehavior, tree: &HeaderTree) {
        self.download.remove_peer(peer, tree);
        self.outputs.push_back(Output::Drop { peer, why });
    }

    fn place(&mut self, block: CheckedBlock, tree: &HeaderTree) {
        match self.activation.place(block, tree) {
            Placed::Waiting => {}
            Placed::Store(block) => self.outputs.push_back(Output::Store(block)),
            Placed::Useless(hash) => self.download.release(hash),
        }
    }

    /// Hands on what can be handed on, then asks for more.
    fn activate(&mut self, now: Now, tree: &HeaderTree) {
        self.activation.advance(tree, &mut self.outputs);
        self.ask(now, tree);
    }

    fn ask(&mut self, now: Now, tree: &HeaderTree) {
        self.download.follow(self.activation.handed(), tree, |hash| self.activation.is_stored(hash));
        let is_stored = |hash| self.activation.is_stored(hash);
        self.download.ask(now, self.activation.handed(), tree, is_stored, &mut self.outputs);
    }
}
