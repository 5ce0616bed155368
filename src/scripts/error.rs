//! Why a spend is refused, in Bitcoin Core's words.
//!
//! Source: Bitcoin Core `script/script_error.cpp`, `validation.cpp` (`CheckInputScripts`).

use bitcoin::Transaction;
use thiserror::Error;

/// What a script failed of; the text is what Core's `ScriptErrorString` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Error)]
pub enum Reason {
    #[error("Script evaluated without error but finished with a false/empty top stack element")]
    EvalFalse,
    #[error("Script failed an OP_EQUALVERIFY operation")]
    EqualVerify,
    #[error("Script failed an OP_CHECKSIGVERIFY operation")]
    CheckSigVerify,
    #[error("Script failed an OP_CHECKMULTISIGVERIFY operation")]
    CheckMultisigVerify,
    #[error("Script is too big")]
    ScriptSize,
    #[error("Push value size limit exceeded")]
    PushSize,
    #[error("Signature count negative or greater than pubkey count")]
    SigCount,
    #[error("Pubkey count negative or limit exceeded")]
    PubkeyCount,
    #[error("Opcode missing or not understood")]
    BadOpcode,
    #[error("Operation not valid with the current stack size")]
    InvalidStackOperation,
    #[error("Signature hash type missing or not understood")]
    SigHashType,
    #[error("Non-canonical DER signature")]
    SigDer,
    #[error("Data push larger than necessary")]
    MinimalData,
    #[error("Only push operators allowed in signatures")]
    SigPushOnly,
    #[error("Non-canonical signature: S value is unnecessarily high")]
    SigHighS,
    #[error("Dummy CHECKMULTISIG argument must be zero")]
    SigNullDummy,
    #[error("Signature must be zero for failed CHECK(MULTI)SIG operation")]
    SigNullFail,
    #[error("Witness version reserved for soft-fork upgrades")]
    UpgradableWitnessProgram,
    #[error("Taproot version reserved for soft-fork upgrades")]
    UpgradableTaprootVersion,
    #[error("OP_SUCCESSx reserved for soft-fork upgrades")]
    OpSuccess,
    #[error("Public key is neither compressed or uncompressed")]
    PubkeyType,
    #[error("Stack size must be exactly one after execution")]
    CleanStack,
    #[error("Witness program has incorrect length")]
    WitnessProgramWrongLength,
    #[error("Witness program was passed an empty witness")]
    WitnessProgramWitnessEmpty,
    #[error("Witness program hash mismatch")]
    WitnessProgramMismatch,
    #[error("Witness requires empty scriptSig")]
    WitnessMalleated,
    #[error("Witness requires only-redeemscript scriptSig")]
    WitnessMalleatedP2sh,
    #[error("Witness provided for non-witness script")]
    WitnessUnexpected,
    #[error("Using non-compressed keys in segwit")]
    WitnessPubkeyType,
    #[error("Invalid Schnorr signature size")]
    SchnorrSigSize,
    #[error("Invalid Schnorr signature hash type")]
    SchnorrSigHashType,
    #[error("Invalid Schnorr signature")]
    SchnorrSig,
    #[error("Invalid Taproot control block size")]
    TaprootWrongControlSize,
    #[error("Signature is found in scriptCode")]
    SigFindAndDelete,
    #[error("Script number overflowed or is non-minimally encoded")]
    ScriptNum,
    /// The interpreter could not be asked: the transaction and what it spends do not fit together.
    #[error("unknown error")]
    Unknown,
}

/// An input whose scripts failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("input {input}: {reason}")]
pub struct ScriptError {
    /// Which input, counting from 0.
    pub input: usize,
    pub reason: Reason,
}

impl ScriptError {
    /// Core's reject reason of an unconfirmed transaction. (Before version 30 it was
    /// `mandatory-script-verify-flag-failed` or `non-mandatory-script-verify-flag`.)
    pub fn mempool_reason(&self) -> String {
        format!("mempool-script-verify-flag-failed ({})", self.reason)
    }

    /// Core's reject reason of a block. (Before version 30 `mandatory-script-verify-flag-failed`.)
    pub fn block_reason(&self) -> String {
        format!("block-script-verify-flag-failed ({})", self.reason)
    }

    /// Core's debug message: which input of which transaction, and what it spends.
    pub fn details(&self, tx: &Transaction) -> String {
        let spent = tx.input.get(self.input).map(|input| input.previous_output).unwrap_or_default();
        let (txid, wtxid) = (tx.compute_txid(), tx.compute_wtxid());
        format!("input {} of {txid} (wtxid {wtxid}), spending {}:{}", self.input, spent.txid, spent.vout)
    }
}

/// Why a transaction's scripts are not known to be good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum VerifyError {
    #[error(transparent)]
    Script(#[from] ScriptError),
    /// Nothing was verified: this program was built without the feature `kernel`.
    #[error("this build cannot verify scripts")]
    Unavailable,
}
