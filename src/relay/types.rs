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
    /// The operator's own node (`--trust`): it may announce as much as it has, and is asked for its whole mempool.
    Trusted,
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

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    Send(PeerId, Message),
    /// To be judged; the answer comes back through `handle_verdict`, for each job, in any order.
    Admit(Job),
    /// Close the connection. The peer is forgotten here already.
    Drop {
        peer: PeerId,
        why: Misbehavior,
    },
}
