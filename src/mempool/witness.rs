//! How large and of what form a witness may be to be relayed.
//!
//! Source: Bitcoin Core `policy/policy.cpp` (`IsWitnessStandard`, `SpendsNonAnchorWitnessProg`).

use bitcoin::{Script, TxIn, TxOut, Witness};

use crate::solver::ScriptType;

use super::coins::SpentCoin;
use super::redeem::last_pushed;
use super::reject::{Reject, RejectKind};
use super::transaction::Unconfirmed;

/// P2WSH: bytes of the witness script, items beside it, bytes of such an item.
const MAX_WITNESS_SCRIPT_BYTES: usize = 3_600;
const MAX_STACK_ITEMS: usize = 100;
const MAX_STACK_ITEM_BYTES: usize = 80;
/// Tapscript: bytes of an item beside script and control block.
const MAX_TAPSCRIPT_ITEM_BYTES: usize = 80;
/// First byte of an annex (BIP341).
const ANNEX_TAG: u8 = 0x50;
/// The part of a control block's first byte that says the leaf's version, and that of tapscript (BIP341, BIP342).
const LEAF_VERSION_MASK: u8 = 0xfe;
const TAPSCRIPT: u8 = 0xc0;

/// `coins` has one for each input.
pub fn check_witness_standard(tx: &Unconfirmed, coins: &[SpentCoin]) -> Result<(), Reject> {
    let mut inputs = tx.tx().input.iter().zip(coins);
    if inputs.all(|(input, coin)| input.witness.is_empty() || is_standard(input, &coin.output.script_pubkey))
    {
        Ok(())
    } else {
        Err(Reject::new(RejectKind::WitnessMutated, "bad-witness-nonstandard"))
    }
}

fn is_standard(input: &TxIn, spent: &Script) -> bool {
    if ScriptType::of(spent.as_bytes()) == ScriptType::Anchor {
        return false;
    }
    let is_nested = spent.is_p2sh();
    let program = if is_nested { last_pushed(&input.script_sig) } else { Ok(Some(spent)) };
    let Ok(Some(program)) = program else { return false };
    match ScriptType::of(program.as_bytes()) {
        ScriptType::WitnessV0ScriptHash => is_standard_p2wsh(&input.witness),
        // Inside P2SH it is a program without a meaning.
        ScriptType::WitnessV1Taproot(_) => is_nested || is_standard_taproot(&input.witness),
        // Nothing else asks for a witness.
        _ => program.is_witness_program(),
    }
}

fn is_standard_p2wsh(witness: &Witness) -> bool {
    let others = witness.len().saturating_sub(1);
    witness.last().is_none_or(|script| script.len() <= MAX_WITNESS_SCRIPT_BYTES)
        && others <= MAX_STACK_ITEMS
        && witness.iter().take(others).all(|item| item.len() <= MAX_STACK_ITEM_BYTES)
}

fn is_standard_taproot(witness: &Witness) -> bool {
    let len = witness.len();
    if len < 2 {
        // One item is a key's signature; none was let through before.
        return true;
    }
    let Some(control_block) = witness.last() else { return false };
    match control_block.first() {
        // What is taken for an annex here would be the last item but for it.
        Some(&ANNEX_TAG) => false,
        Some(version) if version & LEAF_VERSION_MASK == TAPSCRIPT => {
            witness.iter().take(len - 2).all(|item| item.len() <= MAX_TAPSCRIPT_ITEM_BYTES)
        }
        Some(_) => true,
        None => false,
    }
}

/// Whether an input spends a witness program that asks for a witness: then a transaction without any failed for want
/// of it, and whoever relayed it may have taken it away. `spent` has the output that each input spends.
pub fn spends_witness_program(tx: &Unconfirmed, spent: &[TxOut]) -> bool {
    tx.tx().input.iter().zip(spent).any(|(input, output)| {
        let script = &output.script_pubkey;
        if script.is_p2sh() {
            return last_pushed(&input.script_sig)
                .is_ok_and(|redeem_script| redeem_script.is_some_and(Script::is_witness_program));
        }
        script.is_witness_program() && ScriptType::of(script.as_bytes()) != ScriptType::Anchor
    })
}
