//! What nodes ask of an unconfirmed transaction's scripts beyond what a block may hold.
//!
//! Covered, with Core's reason and in Core's order: bare and P2SH, P2WSH and nested pay-to-key, pay-to-key-hash and
//! multisig, P2WPKH and P2SH-P2WPKH, taproot's key path (strict DER, low S, known hash types, compressed keys in a
//! witness, minimal pushes, an empty dummy, a clean stack, no witness that nobody asked for), and witness programs,
//! leaf versions and OP_SUCCESS that are kept for soft forks.
//!
//! Not covered, so that it is taken here and not by Core: in scripts with other operations MINIMALIF, NULLFAIL,
//! LOW_S and STRICTENC of the signatures they check, NOPs kept for soft forks, code separators, and in tapscript
//! kinds of keys kept for soft forks. Of all of these a block may hold any.
//! Source: Bitcoin Core `policy/policy.h` (`STANDARD_SCRIPT_VERIFY_FLAGS`), `validation.cpp` (`PolicyScriptChecks`).

use bitcoin::{Transaction, TxOut};

use super::error::{ScriptError, VerifyError};
use super::flags::Flags;
use super::template::{self, Rules};
use super::verifier::Prepared;

/// Looks for what keeps a transaction with valid scripts from being relayed, without running them.
///
/// `spent` has the output that each input spends. Signatures are verified only to tell the reason, where there is
/// one.
pub fn check_policy(tx: &Transaction, spent: &[TxOut]) -> Result<(), ScriptError> {
    (0..tx.input.len()).try_for_each(|input| check_input(tx, spent, input))
}

/// What Core's mempool asks of scripts: policy and then the rules, input by input. `raw` is `tx` as it is
/// serialized, witness included.
pub fn verify_standard(tx: &Transaction, raw: &[u8], spent: &[TxOut]) -> Result<(), VerifyError> {
    let prepared = Prepared::new(tx, raw, spent)?;
    for input in 0..tx.input.len() {
        check_input(tx, spent, input)?;
        prepared.run(input, Flags::ALL).map_err(|()| {
            let reason = template::why(tx, spent, input, Rules::standard());
            ScriptError { input, reason }
        })?;
    }
    Ok(())
}

fn check_input(tx: &Transaction, spent: &[TxOut], input: usize) -> Result<(), ScriptError> {
    match template::break_of_policy(tx, spent, input) {
        Some(reason) => Err(ScriptError { input, reason }),
        None => Ok(()),
    }
}
