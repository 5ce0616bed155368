//! Outputs that are worth less than spending them would cost, and the one such output that is allowed: made by a
//! transaction without a fee.
//!
//! Source: Bitcoin Core `policy/policy.cpp` (`GetDustThreshold`), `policy/ephemeral_policy.cpp`.

use bitcoin::{Amount, Transaction, TxOut};
use chainstore::is_unspendable;

use super::policy::FeeRate;
use super::reject::{Reject, RejectKind};

/// Bytes of an input that spends a key's hash: outpoint, length, signature with key, sequence.
const INPUT_BYTES: u64 = 32 + 4 + 1 + 107 + 4;
/// The same with signature and key in the witness, where a byte weighs a fourth.
const WITNESS_INPUT_BYTES: u64 = 32 + 4 + 1 + 107 / 4 + 4;

/// What an output must be worth, in satoshi, not to be dust.
pub fn threshold(output: &TxOut, rate: FeeRate) -> u64 {
    let script = &output.script_pubkey;
    if is_unspendable(script) {
        return 0;
    }
    let spent_with = if script.is_witness_program() { WITNESS_INPUT_BYTES } else { INPUT_BYTES };
    rate.fee(output.size() as u64 + spent_with)
}

fn is_dust(output: &TxOut, rate: FeeRate) -> bool {
    output.value.to_sat() < threshold(output, rate)
}

/// The numbers of the outputs that are dust.
pub fn outputs(tx: &Transaction, rate: FeeRate) -> impl Iterator<Item = u32> {
    (0..).zip(&tx.output).filter(move |(_, output)| is_dust(output, rate)).map(|(vout, _)| vout)
}

/// A transaction that makes dust pays no fee, so that nobody gains by mining it without the child that spends the dust
/// (`PreCheckEphemeralTx`).
pub fn check_pays_nothing(tx: &Transaction, fee: Amount, rate: FeeRate) -> Result<(), Reject> {
    if fee > Amount::ZERO && outputs(tx, rate).next().is_some() {
        let reject = Reject::new(RejectKind::NotStandard, "dust");
        return Err(reject.with("tx with dust output must be 0-fee"));
    }
    Ok(())
}
