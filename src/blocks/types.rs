//! What goes in and out of block sync, beside blocks and headers.

use std::time::Duration;

use bitcoin::BlockHash;
use chainstore::{Height, Tip};

use super::rebuild::Rebuilt;
use crate::peer::{CompactBlock, Misbehavior, PeerId, WireBlock};
use crate::validate::CheckedBlock;

/// What is to be done.
#[derive(Debug)]
pub enum Output {
    /// Ask for these blocks with one `getdata`, in this order.
    GetData { peer: PeerId, blocks: Vec<BlockHash> },
    /// Ask for this block as a compact one.
    GetCompact { peer: PeerId, block: BlockHash },
    /// Run [`Partial::of`](super::Partial::of) with what may be in the block; the answer comes back through
    /// [`BlockSync::handle_filled`](super::BlockSync::handle_filled).
    Fill { peer: PeerId, block: CompactBlock },
    /// Ask for the transactions at these positions of a compact block.
    GetTransactions { peer: PeerId, block: BlockHash, positions: Vec<u16> },
    /// A block was put together from these parts, and passed its check.
    Rebuilt(Rebuilt),
    /// Run `check_received`; the answer comes back through [`BlockSync::handle_checked`](super::BlockSync::handle_checked).
    Check { hash: BlockHash, height: Height, block: WireBlock },
    /// Connect this block on top of the one of the last `Connect`, or of the chain's tip.
    Connect(CheckedBlock),
    /// Keep this block on disk: it is not the chain's next.
    Store(CheckedBlock),
    /// Disconnect down to `fork`, then connect these kept blocks: all of it, or nothing. Where `fork` is the tip,
    /// nothing is to be disconnected.
    Switch { fork: Tip, connect: Vec<BlockHash> },
    /// Put this block in the place of the damaged one on disk.
    Repair(CheckedBlock),
    /// The block breaks a rule: its header and what builds on it are never to be followed. The header tree is to be
    /// told before anything else happens here; `handle_best_changed` follows.
    MarkInvalid { hash: BlockHash, reason: String },
    /// A block was damaged on its way from this peer, and is asked for again.
    Damaged { peer: PeerId, hash: BlockHash },
    /// Close the connection. The peer is forgotten here already.
    Drop { peer: PeerId, why: Misbehavior },
}

/// What became of `Connect`, `Store`, `Switch` and `Repair`, in their order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChainEvent {
    /// The chain's tip is this block now.
    Connected(Tip),
    /// The block is on disk.
    Stored(BlockHash),
    /// The chain's tip is this block now, on another branch.
    Switched(Tip),
    /// A block did not connect. The chain stands at `tip`; later `Connect`s that were on their way are void.
    Failed { hash: BlockHash, reason: String, tip: Tip },
    /// A switch was not made, or a block not connected, as this block cannot be read. The chain stands at `tip`.
    Blocked { damaged: Tip, what: String, tip: Tip },
    /// The block can be read, and was put in place if it had to be.
    Repaired { block: Tip, moved: bool },
}

/// How far block sync is, for the operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Where the chain stands.
    pub connected: Height,
    /// The end of the best header chain.
    pub target: Height,
    /// The lowest block of that chain that has not arrived.
    pub first_missing: Option<Height>,
    /// Blocks asked for and not yet here.
    pub in_flight: usize,
    /// Peers that owe us blocks.
    pub busy_peers: usize,
    /// Blocks here that are not yet connected or stored.
    pub in_memory: usize,
    /// Their bytes.
    pub held_bytes: usize,
    /// Blocks that nobody had asked for, since the start.
    pub unasked: u64,
    /// How long the first missing block may take before somebody else is asked for it too.
    pub stall_timeout: Duration,
}
