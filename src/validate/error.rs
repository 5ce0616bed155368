//! Why a block is refused, in Bitcoin Core's words, and whose fault that is.

use bitcoin::{OutPoint, Txid};
use thiserror::Error;

use crate::scripts::ScriptError;

/// What follows from a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// These bytes are not the block that the header's work was done for: the sender is at fault, the header
    /// stays valid, the block is to be asked elsewhere (Core: `BLOCK_MUTATED`).
    Mutated,
    /// The header's work was done for a block that breaks a rule: no chain with it will ever be followed.
    Invalid,
    /// The rules cannot be checked by this build.
    Unsupported,
}

/// Why a block is refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BlockError {
    #[error("undecodable block: {0}")]
    Undecodable(String),
    #[error("bad-txnmrklroot: the transactions do not hash to the merkle root")]
    BadMerkleRoot,
    #[error("bad-txns-duplicate: a part of the transactions is repeated")]
    DuplicateTail,
    #[error("bad-txns-inner-nodes: no coinbase, and a transaction of 64 bytes")]
    InnerNodes,
    #[error("bad-witness-merkle-match: the witnesses do not hash to the commitment")]
    BadWitnessMerkle,
    #[error("bad-witness-nonce-size: the coinbase's witness is not one item of 32 bytes")]
    BadWitnessNonce,
    #[error("unexpected-witness: a witness where none is committed to")]
    UnexpectedWitness,
    #[error("bad-blk-length: {0}")]
    BadLength(&'static str),
    #[error("bad-blk-weight: {weight} is over 4000000")]
    BadWeight { weight: u64 },
    #[error("bad-cb-missing: the first transaction is no coinbase")]
    CoinbaseMissing,
    #[error("bad-cb-multiple: transaction {position} is a coinbase too")]
    CoinbaseRepeated { position: usize },
    #[error("bad-cb-height: the coinbase does not begin with the height {height}")]
    BadCoinbaseHeight { height: u32 },
    #[error("{reason}: transaction {txid}")]
    BadTransaction { reason: &'static str, txid: Txid },
    #[error("bad-blk-sigops: {cost} is over 80000")]
    TooManySigops { cost: u64 },
    #[error("bad-signet-blksig: {0}")]
    BadSignetSolution(String),
    #[error("the signet's challenge needs a script verifier, which this build lacks")]
    UnsupportedChallenge,
    #[error("bad-txns-inputs-missingorspent: {outpoint}")]
    MissingInput { outpoint: OutPoint },
    #[error("bad-txns-BIP30: transaction {txid} exists and is not spent")]
    RepeatedTransaction { txid: Txid },
    #[error("bad-cb-amount: the coinbase pays {paid} sat, at most {allowed} are due")]
    BadCoinbaseAmount { paid: u64, allowed: u64 },
    /// With Core's debug message, which names input and transaction.
    #[error("{}: {details}", error.block_reason())]
    BadScript { error: ScriptError, details: String },
}

impl BlockError {
    /// Bitcoin Core's reject reason.
    pub fn reject_reason(&self) -> &'static str {
        match self {
            Self::Undecodable(_) => "block-undecodable",
            Self::BadMerkleRoot => "bad-txnmrklroot",
            Self::DuplicateTail => "bad-txns-duplicate",
            Self::InnerNodes => "bad-txns-inner-nodes",
            Self::BadWitnessMerkle => "bad-witness-merkle-match",
            Self::BadWitnessNonce => "bad-witness-nonce-size",
            Self::UnexpectedWitness => "unexpected-witness",
            Self::BadLength(_) => "bad-blk-length",
            Self::BadWeight { .. } => "bad-blk-weight",
            Self::CoinbaseMissing => "bad-cb-missing",
            Self::CoinbaseRepeated { .. } => "bad-cb-multiple",
            Self::BadCoinbaseHeight { .. } => "bad-cb-height",
            Self::BadTransaction { reason, .. } => reason,
            Self::TooManySigops { .. } => "bad-blk-sigops",
            Self::BadSignetSolution(_) => "bad-signet-blksig",
            Self::UnsupportedChallenge => "unsupported-signet-challenge",
            Self::MissingInput { .. } => "bad-txns-inputs-missingorspent",
            Self::RepeatedTransaction { .. } => "bad-txns-BIP30",
            Self::BadCoinbaseAmount { .. } => "bad-cb-amount",
            // Core adds what the script failed of, as the text of this error does.
            Self::BadScript { .. } => "block-script-verify-flag-failed",
        }
    }

    /// Whose fault it is.
    pub fn verdict(&self) -> Verdict {
        match self {
            // Bytes that hash to neither root, or could be replaced by others that hash to the same.
            Self::Undecodable(_)
            | Self::BadMerkleRoot
            | Self::DuplicateTail
            | Self::InnerNodes
            | Self::BadWitnessMerkle
            | Self::BadWitnessNonce
            | Self::UnexpectedWitness => Verdict::Mutated,
            Self::UnsupportedChallenge => Verdict::Unsupported,
            Self::BadLength(_)
            | Self::BadWeight { .. }
            | Self::CoinbaseMissing
            | Self::CoinbaseRepeated { .. }
            | Self::BadCoinbaseHeight { .. }
            | Self::BadTransaction { .. }
            | Self::TooManySigops { .. }
            | Self::BadSignetSolution(_)
            | Self::MissingInput { .. }
            | Self::RepeatedTransaction { .. }
            | Self::BadCoinbaseAmount { .. }
            | Self::BadScript { .. } => Verdict::Invalid,
        }
    }
}
