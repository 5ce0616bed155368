//! What a wallet asks to be done with transactions of its own, and what it is told.
//!
//! The words are Bitcoin Core's, from `sendrawtransaction`, `submitpackage` and `testmempoolaccept`.

use bitcoin::{Amount, Txid, Wtxid};
use bytes::Bytes;

use super::FeeRate;

/// Transactions of a package at most (Core: `MAX_PACKAGE_COUNT`).
pub const MAX_PACKAGE: usize = 25;

/// What a wallet hands in. Nothing of it was read yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Submission {
    /// To be shown to the network.
    Transaction(Bytes),
    /// A child with all its unconfirmed parents before it.
    Package(Vec<Bytes>),
    /// Whether they would be taken; nothing is kept of them.
    Test(Vec<Bytes>),
}

/// What became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Peers have it.
    Sent(Txid),
    /// The rules forbid it, in Core's words.
    Rejected(String),
    /// The package was looked at; some of it may be refused.
    Package(PackageOutcome),
    /// In the order of what was asked.
    Tested(Vec<Tested>),
    /// It could not be done now, in words for a person.
    Unavailable(String),
}

/// What `submitpackage` says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PackageOutcome {
    /// `success`, or what was wrong in all.
    pub message: String,
    pub transactions: Vec<PackageMember>,
    /// Transactions whose place was taken.
    pub replaced: Vec<Txid>,
}

/// One transaction of a package.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackageMember {
    pub txid: Txid,
    pub wtxid: Wtxid,
    /// Another one that is here, and differs in its witness alone: this one was not looked at.
    pub other_wtxid: Option<Wtxid>,
    pub result: Result<Taken, String>,
}

/// A transaction that is in the mempool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    /// Virtual bytes.
    pub vsize: u64,
    pub fee: Amount,
    /// What counted where others paid for it, and who they are; `None` where it was here before.
    pub effective: Option<(FeeRate, Vec<Wtxid>)>,
}

/// What `testmempoolaccept` says of one transaction, as far as the Electrum protocol passes it on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tested {
    pub txid: Txid,
    pub wtxid: Wtxid,
    /// `None` where another one of the package failed first.
    pub allowed: Option<bool>,
    pub reason: Option<String>,
}
