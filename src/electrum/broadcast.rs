//! What can be said of a transaction before any peer has seen it.
//!
//! Checks structure, finality and the confirmed coins that it spends; an input whose transaction is not in
//! the chain may be unconfirmed, and is left to the peers. Scripts and relay policy are not checked here.
//! Reasons are Bitcoin Core's words: Electrum shows a user only those it knows.
//! Source: Bitcoin Core `consensus/tx_check`, `consensus/tx_verify`, `MemPoolAccept::PreChecks`,
//! `node::BroadcastTransaction`.

use std::collections::BTreeSet;

use bitcoin::consensus::deserialize;
use bitcoin::hex::DisplayHex;
use bitcoin::locktime::absolute::LOCK_TIME_THRESHOLD;
use bitcoin::transaction::Transaction;
use bitcoin::{Amount, OutPoint, Sequence, Txid};
use bytes::Bytes;

use crate::query::{Error, View};

use super::error::RpcError;

/// Why the network would not take a transaction.
pub(super) type Reason = &'static str;

/// A transaction that may be shown to peers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Checked {
    pub(super) txid: Txid,
    pub(super) raw: Bytes,
}

/// Weight of a block, which no transaction exceeds even without its witness.
const MAX_WEIGHT: usize = 4_000_000;
const WITNESS_SCALE: usize = 4;
/// A transaction of 64 bytes could pass for an inner node of the merkle tree, so nodes relay none below this.
const MIN_RELAYED_BYTES: usize = 65;
/// Blocks until the output of a coinbase may be spent.
const COINBASE_MATURITY: u32 = 100;

/// The error of a rejected transaction, as ElectrumX puts it.
pub(super) fn rejected(reason: &str, raw: &[u8]) -> RpcError {
    RpcError::bad_request(format!(
        "the transaction was rejected by network rules.\n\n{reason}\n[{}]",
        raw.as_hex()
    ))
}

/// Checks what can be checked without a mempool, in Core's order.
pub(super) fn check(view: &View, raw: &[u8]) -> Result<Result<Checked, Reason>, Error> {
    let Ok(transaction) = deserialize::<Transaction>(raw) else {
        return Ok(Err("TX decode failed. Make sure the tx has at least one input."));
    };
    let txid = transaction.compute_txid();
    if view.has_transaction(&txid)? {
        return Ok(Err("Transaction outputs already in utxo set"));
    }
    if let Err(reason) = check_alone(&transaction) {
        return Ok(Err(reason));
    }
    let next_height = view.tip().map_or(0, |tip| tip.height.0.saturating_add(1));
    let median_time = view.median_time_past()?.unwrap_or(0);
    if !is_final(&transaction, next_height, median_time) {
        return Ok(Err("non-final"));
    }
    if let Err(reason) = check_inputs(view, &transaction, next_height)? {
        return Ok(Err(reason));
    }
    Ok(Ok(Checked { txid, raw: Bytes::copy_from_slice(raw) }))
}

/// What is wrong with a transaction whatever the chain (`CheckTransaction`, and what only blocks may hold).
fn check_alone(transaction: &Transaction) -> Result<(), Reason> {
    if transaction.input.is_empty() {
        return Err("bad-txns-vin-empty");
    }
    if transaction.output.is_empty() {
        return Err("bad-txns-vout-empty");
    }
    if transaction.base_size() * WITNESS_SCALE > MAX_WEIGHT {
        return Err("bad-txns-oversize");
    }
    let mut total = Amount::ZERO;
    for output in &transaction.output {
        if i64::try_from(output.value.to_sat()).is_err() {
            return Err("bad-txns-vout-negative");
        }
        if output.value > Amount::MAX_MONEY {
            return Err("bad-txns-vout-toolarge");
        }
        total = total
            .checked_add(output.value)
            .filter(|total| *total <= Amount::MAX_MONEY)
            .ok_or("bad-txns-txouttotal-toolarge")?;
    }
    let mut spent = BTreeSet::new();
    if !transaction.input.iter().all(|input| spent.insert(input.previous_output)) {
        return Err("bad-txns-inputs-duplicate");
    }
    if transaction.is_coinbase() {
        let script_len = transaction.input[0].script_sig.len();
        return Err(if (2..=100).contains(&script_len) { "coinbase" } else { "bad-cb-length" });
    }
    if transaction.input.iter().any(|input| input.previous_output.is_null()) {
        return Err("bad-txns-prevout-null");
    }
    if transaction.base_size() < MIN_RELAYED_BYTES {
        return Err("tx-size-small");
    }
    Ok(())
}

/// Whether the next block may hold it (`IsFinalTx`, with the median time of BIP113).
fn is_final(transaction: &Transaction, next_height: u32, median_time: u32) -> bool {
    let lock = transaction.lock_time.to_consensus_u32();
    let reached = if lock < LOCK_TIME_THRESHOLD { next_height } else { median_time };
    lock < reached || lock == 0 || transaction.input.iter().all(|input| input.sequence == Sequence::MAX)
}

/// Whether confirmed coins are there, ripe and worth the outputs (`CheckTxInputs`).
fn check_inputs(
    view: &View,
    transaction: &Transaction,
    next_height: u32,
) -> Result<Result<(), Reason>, Error> {
    let mut total = Some(Amount::ZERO);
    let mut is_unripe = false;
    for input in &transaction.input {
        match view.coin(&input.previous_output)? {
            Some(coin) => {
                is_unripe |=
                    coin.is_coinbase && next_height.saturating_sub(coin.height.0) < COINBASE_MATURITY;
                total = total.and_then(|total| total.checked_add(coin.value));
            }
            None if is_in_chain(view, &input.previous_output)? => {
                return Ok(Err("bad-txns-inputs-missingorspent"));
            }
            // Perhaps unconfirmed: what it is worth is not known here.
            None => total = None,
        }
    }
    if is_unripe {
        return Ok(Err("bad-txns-premature-spend-of-coinbase"));
    }
    let spent: Amount = transaction.output.iter().map(|output| output.value).sum();
    Ok(if total.is_some_and(|total| total < spent) { Err("bad-txns-in-belowout") } else { Ok(()) })
}

/// Whether the chain knows the transaction of an outpoint that is no coin: then it was spent, or never was.
fn is_in_chain(view: &View, outpoint: &OutPoint) -> Result<bool, Error> {
    Ok(view.has_transaction(&outpoint.txid)? || view.is_genesis_coinbase(&outpoint.txid)?)
}
