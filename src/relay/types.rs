//! What goes in and out of the relay.

use std::sync::Arc;

use bitcoin::{Transaction, Txid, Wtxid};

use crate::mempool::{Entry, Reject, Unconfirmed};
use crate::peer::{Message, Misbehavior, PeerId};

/// What kind of connection it is, by the operator's word and the dialler's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A stranger, with whom transactions are exchanged.
    Stranger,
    /// The operator's own node (`--trust`): it may announce as much as it has, and is the first to be handed what
    /// wallets send.
    Trusted {
        /// Ask it for all that its mempool holds (BIP35). A node that does not permit that hangs up.
        ask_mempool: bool,
    },
    /// A connection for blocks: a transaction on it is a breach.
    BlocksOnly,
}

/// Names one [`Job`] until its verdict has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobId(pub u64);

/// Something that the mempool shall judge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    pub id: JobId,
    pub tx: Arc<Unconfirmed>,
    /// Spends what `tx` makes, and may pay for it: the two are judged as a package.
    pub child: Option<Arc<Unconfirmed>>,
    /// Who sent it.
    pub from: PeerId,
}

/// What the mempool said of one transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is in the mempool now.
    Accepted(Arc<Entry>),
    /// These of its parents are neither in the mempool nor confirmed with an unspent output.
    MissingInputs { parents: Vec<Txid> },
    /// Any kind but `RejectKind::MissingInputs`.
    Rejected(Reject),
}

/// A transaction of a block, with its ids.
#[derive(Clone, Copy, Debug)]
pub struct Confirmed<'a> {
    pub tx: &'a Transaction,
    pub txid: Txid,
    pub wtxid: Wtxid,
}

/// How busy the relay is, for the operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    /// Transactions that were announced and have not come.
    pub wanted: usize,
    /// Transactions whose parents are unknown.
    pub orphans: usize,
    /// Transactions that wait to be judged.
    pub waiting: usize,
    /// Transactions that the mempool is judging.
    pub judging: usize,
}

/// One wallet's request, numbered by the shell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BroadcastId(pub u64);

/// One connection that is made for a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PrivateId(pub u64);

/// How far such a connection got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PrivateEvent {
    /// It could not be made: because of the proxy, or of the peer, or because there is nobody to dial.
    Failed { by_proxy: bool },
    /// It is open.
    Opened,
    /// The handshake is done: [`Output::Give`] follows.
    Ready,
    /// The peer asked for what it was told of, and was sent it.
    Asked,
    /// The peer has received it.
    Delivered,
    /// It ended; not said after `Failed`.
    Closed,
}

/// Whether connections can be made that tell nothing of us.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PrivateState {
    /// There is no proxy, or the operator does not want them.
    #[default]
    Off,
    /// No address is known to which the proxy could connect us.
    NoAddresses,
    Ready,
}

/// To whom a wallet's transaction is handed first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// To the operator's own node.
    Trusted,
    /// To strangers over connections made for it, through a proxy.
    Private,
    /// To some of the peers that we are connected to; hidden among what else we relay.
    Relay {
        /// The way would have been private if addresses were known.
        no_addresses: bool,
    },
}

/// How it is known that the network has a transaction, the best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Evidence {
    /// A peer announced it that was not sent it.
    Echo,
    /// A peer that was sent it gave it back when asked, so it is in that peer's mempool.
    Probe,
    /// A peer that takes transactions received it. Whether it was taken there is not known yet.
    Delivery,
    /// A peer that takes transactions was told of it, over a connection made for it. It has not asked for it yet, which
    /// takes some seconds.
    Offer,
}

/// Why a wallet is told that its transaction was not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BroadcastError {
    /// Nothing was sent or kept.
    #[error("no peers to broadcast to")]
    NoPeers,
    /// Nothing was sent or kept.
    #[error("too many transactions wait to be seen by the network")]
    TooMany,
    /// It was sent, and is sent again until somebody shows it.
    #[error("sent, but no peer confirmed it in time; it will be sent again")]
    NotDelivered,
    /// It was sent, but may be forgotten when the server stops.
    #[error("sent, but it could not be kept on disk in time")]
    NotKept,
    /// It left our mempool before anybody showed it.
    #[error("it was replaced, conflicted or mined before a peer confirmed it")]
    Gone,
}

/// What is known of a wallet's transaction. All numbers are of peers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BroadcastReport {
    pub txid: Txid,
    pub wtxid: Wtxid,
    /// `None` before it is handed out for the first time since the start.
    pub way: Option<Way>,
    /// It was sent to so many, or announced over connections made for it.
    pub sent: u32,
    /// So many answered the ping that followed it.
    pub delivered: u32,
    /// So many asked for it.
    pub asked: u32,
    /// So many announced it that were not sent it.
    pub announced: u32,
    /// So many gave it back when asked.
    pub accepted: u32,
    /// Whether a peer showed it that was not sent it: the network has it.
    pub is_echoed: bool,
    /// Nobody showed it within 90 seconds, and nobody has since.
    pub is_unseen: bool,
}

impl BroadcastReport {
    pub(super) fn new(txid: Txid, wtxid: Wtxid) -> Self {
        Self {
            txid,
            wtxid,
            way: None,
            sent: 0,
            delivered: 0,
            asked: 0,
            announced: 0,
            accepted: 0,
            is_echoed: false,
            is_unseen: false,
        }
    }
}

/// What is known of a kept transaction beyond a restart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeptState {
    /// It went over private connections, and must not be shown by others before the network does.
    pub is_private: bool,
    /// The network has it.
    pub is_echoed: bool,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    Send(PeerId, Message),
    /// To be judged; the answer comes back through `handle_verdict`, for each job, in any order.
    Admit(Job),
    /// The answer to a wallet.
    Broadcast {
        id: BroadcastId,
        result: Result<Evidence, BroadcastError>,
    },
    /// Put these on disk, parents before the child whose id it is; `handle_kept` follows, and the answer waits for it.
    Keep {
        wtxid: Wtxid,
        transactions: Vec<Arc<Entry>>,
    },
    /// Note this with what is kept under this id.
    Note {
        wtxid: Wtxid,
        kept: KeptState,
    },
    /// Make a connection through the proxy to a stranger.
    Dial(PrivateId),
    /// Hand these over, parents before the child; hang up if there are none.
    Give {
        connection: PrivateId,
        transactions: Vec<Arc<Entry>>,
    },
    /// What was kept under this id is not needed any more.
    Forget {
        wtxid: Wtxid,
    },
    /// For the operator: no peer shows a wallet's transaction.
    Unseen(BroadcastReport),
    /// Close the connection. The peer is forgotten here already.
    Drop {
        peer: PeerId,
        why: Misbehavior,
    },
}
