//! What goes in and out of the node.

use std::sync::Arc;
use std::time::Duration;

use bitcoin::{BlockHash, Wtxid};
use chainstore::{Height, Tip};

use super::chain::{Command, Event};
use super::compact::Fill;
use super::keeper;
use crate::addresses::Source;
use crate::blocks::{Partial, Rebuilt, Refusal, Unfit};
use crate::mempool::{Entry, Outcome, Submission};
use crate::peer::{Address, CloseReason, Message, Misbehavior, PeerId, PeerInfo, WireBlock};
use crate::query::{Touched, View};
use crate::relay::{BroadcastReport, KeptState, PrivateEvent, PrivateId, PrivateState, Role};
use crate::validate::{BlockContext, CheckedBlock};

/// What one wallet handed in, numbered by the shell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SubmissionId(pub u64);

/// What happened outside.
#[derive(Debug)]
pub enum Input {
    /// A handshake was done.
    PeerReady(PeerId, PeerInfo, Role),
    PeerMessage(PeerId, Message),
    PeerGone(PeerId, CloseReason),
    /// What came of a block that was put out as `Output::Check`.
    Checked {
        hash: BlockHash,
        result: Result<CheckedBlock, Refusal>,
    },
    /// What came of a compact block that was put out as `Output::Fill`.
    Filled {
        peer: PeerId,
        hash: BlockHash,
        result: Result<Partial, Unfit>,
    },
    /// What became of a command to the chain's writer.
    Chain(Event),
    /// What became of a command to the mempool's keeper.
    Mempool(keeper::Event),
    /// What was put out as `Output::KeepBroadcast` is on disk.
    BroadcastKept(Wtxid),
    /// Where a peer that is ready was dialled, and whether that is an onion service.
    PeerFrom(PeerId, Source, bool),
    /// What came of an `Output::DialPrivate`.
    Private(PrivateId, PrivateEvent),
    /// What a wallet handed in.
    Submit {
        id: SubmissionId,
        what: Submission,
    },
}

/// What is to be done outside.
#[derive(Debug)]
pub enum Output {
    Send(PeerId, Message),
    Drop(PeerId, Misbehavior),
    /// Run `blocks::check_received`; the answer comes back as `Input::Checked`.
    Check {
        hash: BlockHash,
        block: WireBlock,
        context: BlockContext,
    },
    /// Run it; the answer comes back as `Input::Filled`.
    Fill(Fill),
    /// For the chain's writer, in this order.
    Chain(Command),
    /// For the mempool's keeper, in this order.
    Mempool(keeper::Command),
    /// Put a wallet's transactions on disk; `Input::BroadcastKept` follows.
    KeepBroadcast {
        wtxid: Wtxid,
        transactions: Vec<Arc<Entry>>,
    },
    /// Note this with them there.
    NoteBroadcast {
        wtxid: Wtxid,
        kept: KeptState,
    },
    /// Connect to a stranger through the proxy; `Input::Private` says what comes of it.
    DialPrivate {
        connection: PrivateId,
        address: Address,
    },
    /// Hand these over there, parents first; hang up if there are none.
    GivePrivate {
        connection: PrivateId,
        transactions: Vec<Arc<Entry>>,
    },
    /// They are not needed there any more.
    ForgetBroadcast {
        wtxid: Wtxid,
    },
    /// Wallets are answered from this view from now on.
    Publish(Publication),
    /// What became of a submission.
    Submitted {
        id: SubmissionId,
        outcome: Outcome,
    },
    Notice(Notice),
}

/// A new view, and the scripts whose history it changed.
#[derive(Clone, Debug)]
pub struct Publication {
    pub view: Arc<View>,
    pub touched: Arc<Touched>,
}

/// What the operator should read; one log line each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    TipChanged(Tip),
    Reorg {
        from: Tip,
        to: Tip,
    },
    /// The first moment at which wallets are served.
    Synced(Tip),
    PeerReady(PeerId, PeerInfo),
    PeerGone(PeerId, CloseReason),
    /// No connected peer has, or will give us, the block that comes next.
    NoSource {
        missing: Height,
    },
    InvalidBlock {
        hash: BlockHash,
        reason: String,
    },
    /// A stored block cannot be read, and will be fetched again.
    Damaged {
        block: Tip,
        what: String,
    },
    /// It was fetched again.
    Repaired(Tip),
    /// The newest block is old: the peers may be cut off, or our clock wrong.
    OldTip {
        tip: Tip,
        age: Duration,
    },
    /// The store could not be read; what wallets were told last stands.
    StoreFailed(String),
    /// Whether wallets' transactions can go over connections of their own.
    Private(PrivateState),
    /// No peer shows a wallet's transaction.
    Unseen(BroadcastReport),
    /// A block was put together from what was here.
    Rebuilt(Rebuilt),
    /// Something about one peer.
    Peer(PeerId, String),
}
