//! Whether the next block may hold a transaction, given the coins that it spends, and whether those are of kinds that
//! are relayed.
//!
//! Signatures are not looked at. Every function that takes coins is given one for each input.
//! Source: Bitcoin Core `validation.cpp` (`CheckFinalTxAtTip`, `CheckSequenceLocksAtTip`), `consensus/tx_verify.cpp`
//! (`CheckTxInputs`), `policy/policy.cpp` (`ValidateInputsStandardness`, `GetVirtualTransactionSize`); BIP54.

use bitcoin::{Amount, Script, Transaction};
use chainstore::Height;

use crate::solver::ScriptType;
use crate::validate::{
    InputError, MAX_BLOCK_SIGOPS_COST, SpentValue, check_inputs, executed_legacy_sigops, is_final,
    locks_passed, script_sigops, transaction_sigops_cost,
};

use super::coins::{ChainState, CoinSource, SpentCoin};
use super::policy::Policy;
use super::redeem::last_pushed;
use super::reject::{Reject, RejectKind, money};

/// Signature operations of a redeem script.
const MAX_P2SH_SIGOPS: u64 = 15;
/// Signature operations outside the witness that a transaction may execute (BIP54).
const MAX_LEGACY_SIGOPS: u64 = 2_500;
/// Cost of a transaction's signature operations: a fifth of a block's.
const MAX_SIGOPS_COST: u64 = MAX_BLOCK_SIGOPS_COST / 5;

/// The lock time allows it in the next block.
pub fn check_final(tx: &Transaction, chain: &dyn ChainState) -> Result<(), Reject> {
    let tip = chain.height();
    if is_final(tx, tip.next(), chain.median_time_past(tip)) {
        Ok(())
    } else {
        Err(Reject::new(RejectKind::Premature, "non-final"))
    }
}

/// The relative locks allow it in the next block (BIP68); unconfirmed coins count as if they were made there.
pub fn check_sequence_locks(
    tx: &Transaction,
    coins: &[SpentCoin],
    chain: &dyn ChainState,
) -> Result<(), Reject> {
    let tip = chain.height();
    let heights = coins.iter().map(|coin| coin.height(tip.next()));
    let mtp_at = |height| chain.median_time_past(height);
    if locks_passed(tx, heights, tip.next(), mtp_at(tip), &mtp_at) {
        Ok(())
    } else {
        Err(Reject::new(RejectKind::Premature, "non-BIP68-final"))
    }
}

/// The coins are ripe in the next block and worth the outputs; the fee.
pub fn check_amounts(tx: &Transaction, coins: &[SpentCoin], tip: Height) -> Result<Amount, Reject> {
    let values = coins.iter().map(|coin| SpentValue {
        value: coin.output.value,
        height: coin.height(tip.next()),
        is_coinbase: coin.is_coinbase(),
    });
    check_inputs(tx, values, tip.next()).map(Amount::from_sat).map_err(|error| {
        let (kind, details) = match error {
            InputError::Unripe { depth } => {
                (RejectKind::Premature, format!("tried to spend coinbase at depth {depth}"))
            }
            InputError::OutOfRange => (RejectKind::Consensus, String::new()),
            InputError::BelowOut { paid_in, paid_out } => {
                let details = format!("value in ({}) < value out ({})", money(paid_in), money(paid_out));
                (RejectKind::Consensus, details)
            }
        };
        Reject::new(kind, error.reason()).with(details)
    })
}

/// What the coins' scripts are, and how many signature operations they may ask for.
pub fn check_inputs_standard(tx: &Transaction, coins: &[SpentCoin], policy: &Policy) -> Result<(), Reject> {
    let unusual = |why| Reject::new(RejectKind::InputsNotStandard, "bad-txns-nonstandard-inputs").with(why);
    let spending = || tx.input.iter().zip(coins.iter().map(|coin| &*coin.output.script_pubkey));
    let executed: u64 = spending().map(|(input, script)| executed_legacy_sigops(input, script)).sum();
    if policy.limit_legacy_sigops && executed > MAX_LEGACY_SIGOPS {
        return Err(unusual("non-witness sigops exceed bip54 limit".to_owned()));
    }
    for (number, (input, script)) in spending().enumerate() {
        match ScriptType::of(script.as_bytes()) {
            ScriptType::NonStandard => return Err(unusual(format!("input {number} script unknown"))),
            ScriptType::WitnessUnknown => {
                return Err(unusual(format!("input {number} witness program is undefined")));
            }
            ScriptType::ScriptHash => {
                check_redeem_script(&input.script_sig, number).map_err(unusual)?;
            }
            ScriptType::Anchor
            | ScriptType::PubKey(_)
            | ScriptType::PubKeyHash
            | ScriptType::MultiSig { .. }
            | ScriptType::NullData
            | ScriptType::WitnessV0KeyHash
            | ScriptType::WitnessV0ScriptHash
            | ScriptType::WitnessV1Taproot(_) => {}
        }
    }
    Ok(())
}

/// Of the input with that number; the error is Core's debug message.
fn check_redeem_script(script_sig: &Script, number: usize) -> Result<(), String> {
    let redeem_script = last_pushed(script_sig)
        .map_err(|error| format!("p2sh scriptsig malformed (input {number}: {error})"))?
        .ok_or_else(|| format!("input {number} P2SH redeemscript missing"))?;
    let sigops = script_sigops(redeem_script);
    if sigops > MAX_P2SH_SIGOPS {
        let limit = MAX_P2SH_SIGOPS;
        return Err(format!("p2sh redeemscript sigops exceed limit (input {number}: {sigops} > {limit})"));
    }
    Ok(())
}

/// What the transaction's signature operations cost.
pub fn sigops_cost(tx: &Transaction, coins: &[SpentCoin]) -> u64 {
    transaction_sigops_cost(tx, coins.iter().map(|coin| &*coin.output.script_pubkey))
}

/// A transaction may only ask for so many.
pub fn check_sigops_cost(cost: u64) -> Result<(), Reject> {
    if cost > MAX_SIGOPS_COST {
        let reject = Reject::new(RejectKind::NotStandard, "bad-txns-too-many-sigops");
        return Err(reject.with(cost.to_string()));
    }
    Ok(())
}

/// Virtual bytes of a weight, or more where signature operations are dense.
pub fn virtual_size(weight: u64, sigops_cost: u64, policy: &Policy) -> u64 {
    weight.max(sigops_cost * policy.bytes_per_sigop).div_ceil(4)
}

impl SpentCoin {
    /// Of the block that made it; `next` stands for the one that may.
    fn height(&self, next: Height) -> Height {
        match self.source {
            CoinSource::Block { height, .. } => height,
            CoinSource::Mempool => next,
        }
    }

    pub fn is_coinbase(&self) -> bool {
        matches!(self.source, CoinSource::Block { is_coinbase: true, .. })
    }
}
