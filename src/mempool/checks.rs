//! What is asked of a transaction before it is compared with others: first by itself, then with the coins that it
//! spends, in Bitcoin Core's order.
//!
//! Source: Bitcoin Core `validation.cpp` (`MemPoolAccept::PreChecks`, `CheckFeeRate`).

use bitcoin::Amount;
use chainstore::{ScriptHash, is_unspendable};

use crate::time::Now;

use super::coins::{ChainState, SpentCoin};
use super::entry::{Entry, Input, Output};
use super::policy::{FeeRate, Policy};
use super::reject::{Reject, RejectKind};
use super::standard::check_standard;
use super::transaction::Unconfirmed;
use super::{dust, inputs, witness};

/// Transaction version of the restricted kind (BIP431).
const TRUC_VERSION: i32 = 3;

/// What needs no coin.
pub fn check_alone(tx: &Unconfirmed, chain: &dyn ChainState, policy: &Policy) -> Result<(), Reject> {
    check_standard(tx, policy)?;
    inputs::check_final(tx.tx(), chain)
}

/// What needs the coins, one for each input; the transaction passed [`check_alone`]. The entry that it would be.
pub fn check_spending(
    tx: &Unconfirmed,
    coins: &[SpentCoin],
    chain: &dyn ChainState,
    policy: &Policy,
    now: Now,
) -> Result<Entry, Reject> {
    inputs::check_sequence_locks(tx.tx(), coins, chain)?;
    let fee = inputs::check_amounts(tx.tx(), coins, chain.height())?;
    inputs::check_inputs_standard(tx.tx(), coins, policy)?;
    witness::check_witness_standard(tx, coins)?;
    let sigops_cost = inputs::sigops_cost(tx.tx(), coins);
    dust::check_pays_nothing(tx.tx(), fee, policy.dust_relay)?;
    inputs::check_sigops_cost(sigops_cost)?;
    let vsize = inputs::virtual_size(tx.weight(), sigops_cost, policy);
    Ok(entry(tx, coins, Paid { fee, vsize, sigops_cost }, chain, policy, now))
}

/// The fee is enough for that many virtual bytes: for this mempool, which may be full, and for relay at all.
pub fn check_feerate(fee: Amount, vsize: u64, min: FeeRate, policy: &Policy) -> Result<(), Reject> {
    let fee = fee.to_sat();
    for (rate, reason) in [(min, "mempool min fee not met"), (policy.min_relay, "min relay fee not met")] {
        let needed = rate.fee(vsize);
        if fee < needed {
            let reject = Reject::new(RejectKind::Reconsiderable, reason);
            return Err(reject.with(format!("{fee} < {needed}")));
        }
    }
    Ok(())
}

struct Paid {
    fee: Amount,
    vsize: u64,
    sigops_cost: u64,
}

fn entry(
    tx: &Unconfirmed,
    coins: &[SpentCoin],
    paid: Paid,
    chain: &dyn ChainState,
    policy: &Policy,
    now: Now,
) -> Entry {
    let inputs = tx.tx().input.iter().zip(coins).map(|(input, coin)| Input {
        outpoint: input.previous_output,
        value: coin.output.value,
        script: ScriptHash::of(&coin.output.script_pubkey).key(),
    });
    let outputs = tx.tx().output.iter().map(|output| Output {
        value: output.value,
        script: ScriptHash::of(&output.script_pubkey).key(),
        is_unspendable: is_unspendable(&output.script_pubkey),
    });
    Entry {
        txid: tx.txid(),
        wtxid: tx.wtxid(),
        raw: tx.raw().clone(),
        inputs: inputs.collect(),
        outputs: outputs.collect(),
        fee: paid.fee,
        weight: tx.weight(),
        vsize: paid.vsize,
        sigops_cost: paid.sigops_cost,
        dust: dust::outputs(tx.tx(), policy.dust_relay).next(),
        is_truc: tx.tx().version.0 == TRUC_VERSION,
        spends_coinbase: coins.iter().any(SpentCoin::is_coinbase),
        at: now.instant,
        unix: now.unix,
        height: chain.height(),
    }
}
