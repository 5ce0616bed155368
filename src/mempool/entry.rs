//! A transaction that was taken. It never changes: what depends on others (its cluster, its chunk) the pool keeps.

use bitcoin::{Amount, OutPoint, Txid, Wtxid};
use bytes::Bytes;
use chainstore::{Height, ScriptKey};

use crate::time::Instant;

/// One transaction of the mempool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub txid: Txid,
    pub wtxid: Wtxid,
    /// As it goes over the wire, witness included.
    pub raw: Bytes,
    /// Of each input the outpoint, and what the coin there is worth and whose it is.
    pub inputs: Box<[Input]>,
    /// Of each output the value and the script.
    pub outputs: Box<[Output]>,
    pub fee: Amount,
    /// Weight units (BIP141).
    pub weight: u64,
    /// Virtual bytes, with what its signature operations add (`GetVirtualTransactionSize`).
    pub vsize: u64,
    /// Cost of its signature operations.
    pub sigops_cost: u64,
    /// The output that is dust, of which there is one at most: whoever spends another must spend it too.
    pub dust: Option<u32>,
    /// Transaction version 3 (BIP431).
    pub is_truc: bool,
    /// Whether an input is a coinbase's output: a reorganisation may make it unripe.
    pub spends_coinbase: bool,
    /// When it came.
    pub at: Instant,
    /// The same as Unix time, which is what a dump keeps.
    pub unix: u64,
    /// Height of the tip at which it came.
    pub height: Height,
}

impl Entry {
    /// Whose coins it spends and whom it pays, some perhaps twice. An output that nobody can spend pays nobody: its
    /// script has no history, as in the index.
    pub fn scripts(&self) -> impl Iterator<Item = ScriptKey> {
        let outputs = self.outputs.iter().filter(|output| !output.is_unspendable);
        self.inputs.iter().map(|input| input.script).chain(outputs.map(|output| output.script))
    }
}

/// What an entry spends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Input {
    pub outpoint: OutPoint,
    pub value: Amount,
    pub script: ScriptKey,
}

/// What an entry makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Output {
    pub value: Amount,
    pub script: ScriptKey,
    /// Whether it can never be spent, and so is no coin.
    pub is_unspendable: bool,
}
