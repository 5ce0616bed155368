//! What a transaction must satisfy by itself, and whether it may be in a block yet.
//!
//! Source: Bitcoin Core `consensus/tx_check.cpp` (`CheckTransaction`), `consensus/tx_verify.cpp` (`IsFinalTx`).

use std::collections::HashSet;

use bitcoin::absolute::LOCK_TIME_THRESHOLD;
use bitcoin::{Amount, OutPoint, Transaction};
use chainstore::Height;

/// Weight of a block at most (BIP141).
pub(super) const MAX_BLOCK_WEIGHT: u64 = 4_000_000;
/// Bytes of a coinbase's script.
const COINBASE_SCRIPT_BYTES: std::ops::RangeInclusive<usize> = 2..=100;
const SEQUENCE_FINAL: u32 = 0xffff_ffff;

/// The rules that need nothing but the transaction; the error is Core's reject reason.
pub fn check_transaction(tx: &Transaction) -> Result<(), &'static str> {
    if tx.input.is_empty() {
        return Err("bad-txns-vin-empty");
    }
    if tx.output.is_empty() {
        return Err("bad-txns-vout-empty");
    }
    if tx.base_size() as u64 * 4 > MAX_BLOCK_WEIGHT {
        return Err("bad-txns-oversize");
    }
    let mut total = 0;
    for output in &tx.output {
        let value = output.value.to_sat();
        if value > i64::MAX as u64 {
            return Err("bad-txns-vout-negative");
        }
        if value > Amount::MAX_MONEY.to_sat() {
            return Err("bad-txns-vout-toolarge");
        }
        // Both are at most MAX_MONEY here, so the sum cannot overflow.
        total += value;
        if total > Amount::MAX_MONEY.to_sat() {
            return Err("bad-txns-txouttotal-toolarge");
        }
    }
    let mut seen = HashSet::with_capacity(tx.input.len());
    if !tx.input.iter().all(|input| seen.insert(input.previous_output)) {
        return Err("bad-txns-inputs-duplicate");
    }
    if is_coinbase(tx) {
        if !COINBASE_SCRIPT_BYTES.contains(&tx.input[0].script_sig.len()) {
            return Err("bad-cb-length");
        }
    } else if tx.input.iter().any(|input| input.previous_output == OutPoint::null()) {
        return Err("bad-txns-prevout-null");
    }
    Ok(())
}

/// One input, which spends nothing.
pub fn is_coinbase(tx: &Transaction) -> bool {
    matches!(&tx.input[..], [input] if input.previous_output == OutPoint::null())
}

/// Whether the lock time allows the transaction in a block at `height`, where `cutoff` is the block's time or,
/// since BIP113, the median time past of its parent.
pub fn is_final(tx: &Transaction, height: Height, cutoff: u32) -> bool {
    let lock_time = tx.lock_time.to_consensus_u32();
    let reached = if lock_time < LOCK_TIME_THRESHOLD { height.0 } else { cutoff };
    lock_time == 0
        || lock_time < reached
        || tx.input.iter().all(|input| input.sequence.to_consensus_u32() == SEQUENCE_FINAL)
}
