//! What the forge knows of the chain that it made: one JSON object a line in `truth.jsonl`.
//!
//! The first line is the `Summary`, then come scripts and transactions in no order that matters. Only samples: all
//! scripts with long histories, and some ten thousand of the others.

use serde::{Deserialize, Serialize};

/// One line of the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Line {
    Summary(Summary),
    Script(Script),
    Transaction(Transaction),
}

/// The chain as a whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// Height of the last block; the first is regtest's genesis, at 0.
    pub height: u32,
    /// Hash of the last block, as people see it.
    pub tip: String,
    /// Of all blocks, headers and counts included.
    pub bytes: u64,
    pub transactions: u64,
    pub outputs: u64,
    pub inputs: u64,
    /// Distinct locking scripts that have a history.
    pub scripts: u64,
    pub unspent: u64,
}

/// A locking script and all that a wallet may ask of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Script {
    /// As in the Electrum protocol: SHA-256 of the script, reversed, hex.
    pub scripthash: String,
    /// Height and txid, in chain order.
    pub history: Vec<(u32, String)>,
    /// Txid, output, height, satoshi; in chain order.
    pub unspent: Vec<(String, u32, u32, u64)>,
}

/// A transaction and where it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transaction {
    pub txid: String,
    pub height: u32,
    /// Place in its block.
    pub position: u32,
    /// Offset of its first byte in `blocks.dat`, and its length.
    pub offset: u64,
    pub length: u32,
}
