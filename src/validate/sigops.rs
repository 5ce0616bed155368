//! Signature operations: what a block may ask of everyone who verifies it.
//!
//! Counted by looking at scripts, not by running them. A legacy operation costs four, one in a witness one.
//! Source: Bitcoin Core `script/script.cpp` (`GetSigOpCount`), `script/interpreter.cpp` (`CountWitnessSigOps`),
//! `consensus/tx_verify.cpp` (`GetTransactionSigOpCost`); BIP16, BIP54, BIP141.

use bitcoin::opcodes::Opcode;
use bitcoin::opcodes::all::{
    OP_CHECKMULTISIG, OP_CHECKMULTISIGVERIFY, OP_CHECKSIG, OP_CHECKSIGVERIFY, OP_PUSHNUM_1, OP_PUSHNUM_16,
};
use bitcoin::script::Instruction;
use bitcoin::{Script, Transaction, TxIn};
use chainstore::ScriptClass;

/// What a block's signature operations may cost in all.
pub const MAX_BLOCK_SIGOPS_COST: u64 = 80_000;
/// Cost of one outside a witness.
pub(super) const WITNESS_SCALE: u64 = 4;

/// Keys of a multisig at most.
const MULTISIG_KEYS: u64 = 20;

/// Which counts apply (`GetBlockScriptFlags`: both, but for a few old blocks).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Counted {
    pub p2sh: bool,
    pub witness: bool,
}

/// Operations in the transaction's own scripts, each multisig counted as twenty.
pub(super) fn legacy(tx: &Transaction) -> u64 {
    let inputs: u64 = tx.input.iter().map(|input| count(&input.script_sig, Multisig::Twenty)).sum();
    let outputs: u64 = tx.output.iter().map(|output| count(&output.script_pubkey, Multisig::Twenty)).sum();
    inputs + outputs
}

/// Cost of what an input's redeem script and witness add, given the class of the output that it spends.
pub(super) fn spending_cost(input: &TxIn, class: ScriptClass, counted: Counted) -> u64 {
    let mut cost = 0;
    let mut program = class;
    if class == ScriptClass::P2sh {
        let redeem_script = last_push(&input.script_sig);
        if counted.p2sh {
            cost += count(redeem_script, Multisig::AsSaid) * WITNESS_SCALE;
        }
        program = ScriptClass::of(redeem_script);
    }
    if counted.witness {
        cost += match program {
            ScriptClass::P2wpkh => 1,
            ScriptClass::P2wsh => {
                let script = input.witness.last().map(Script::from_bytes);
                script.map_or(0, |script| count(script, Multisig::AsSaid))
            }
            ScriptClass::P2sh | ScriptClass::Other => 0,
        };
    }
    cost
}

/// Cost of a whole transaction that no block has yet; `spent` is the script of the output that each input spends.
pub fn transaction_sigops_cost<'a>(tx: &Transaction, spent: impl Iterator<Item = &'a Script>) -> u64 {
    let all = Counted { p2sh: true, witness: true };
    let spending = tx.input.iter().zip(spent);
    let spending: u64 =
        spending.map(|(input, script)| spending_cost(input, ScriptClass::of(script), all)).sum();
    legacy(tx) * WITNESS_SCALE + spending
}

/// Operations outside the witness that one input may execute, those of the spent output's script among them (BIP54).
pub fn executed_legacy_sigops(input: &TxIn, spent: &Script) -> u64 {
    let executed = if spent.is_p2sh() { last_push(&input.script_sig) } else { spent };
    script_sigops(&input.script_sig) + script_sigops(executed)
}

/// Operations in a script, each multisig counted by the number of keys that stands before it.
pub fn script_sigops(script: &Script) -> u64 {
    count(script, Multisig::AsSaid)
}

/// How many signatures a multisig counts for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Multisig {
    /// As many as it could have keys.
    Twenty,
    /// As many as the number right before it, if that is one of 1 to 16; else twenty.
    AsSaid,
}

/// Operations in a script, up to where it cannot be read.
///
/// Not `Script::count_sigops`: that takes the last number for a multisig's own even when another signature
/// operation stands between them, and so counts fewer than the network does.
fn count(script: &Script, multisig: Multisig) -> u64 {
    let mut operations = 0;
    let mut said = None;
    for instruction in script.instructions() {
        let op = match instruction {
            Ok(Instruction::Op(op)) => Some(op),
            Ok(Instruction::PushBytes(_)) => None,
            Err(_) => break,
        };
        operations += match op {
            Some(OP_CHECKSIG | OP_CHECKSIGVERIFY) => 1,
            Some(OP_CHECKMULTISIG | OP_CHECKMULTISIGVERIFY) if multisig == Multisig::AsSaid => {
                said.unwrap_or(MULTISIG_KEYS)
            }
            Some(OP_CHECKMULTISIG | OP_CHECKMULTISIGVERIFY) => MULTISIG_KEYS,
            Some(_) | None => 0,
        };
        said = op.and_then(small_number);
    }
    operations
}

/// What OP_1 to OP_16 push.
fn small_number(op: Opcode) -> Option<u64> {
    (OP_PUSHNUM_1.to_u8()..=OP_PUSHNUM_16.to_u8())
        .contains(&op.to_u8())
        .then(|| u64::from(op.to_u8() - OP_PUSHNUM_1.to_u8()) + 1)
}

/// What the last push of a script that only pushes puts on the stack; empty where there is none.
fn last_push(script_sig: &Script) -> &Script {
    let mut last: &[u8] = &[];
    for instruction in script_sig.instructions() {
        last = match instruction {
            Ok(Instruction::PushBytes(bytes)) => bytes.as_bytes(),
            // Small numbers push too, but what they push is no script.
            Ok(Instruction::Op(op)) if op.to_u8() <= OP_PUSHNUM_16.to_u8() => &[],
            Ok(Instruction::Op(_)) | Err(_) => return Script::new(),
        };
    }
    Script::from_bytes(last)
}

#[cfg(test)]
mod tests {
    use bitcoin::opcodes::all::{OP_DUP, OP_PUSHNUM_2};
    use bitcoin::script::{Builder, PushBytesBuf};
    use bitcoin::{ScriptBuf, Witness};

    use super::*;

    const ALL: Counted = Counted { p2sh: true, witness: true };

    fn push(script: &Script) -> ScriptBuf {
        Builder::new().push_slice(PushBytesBuf::try_from(script.to_bytes()).unwrap()).into_script()
    }

    fn multisig() -> ScriptBuf {
        Builder::new().push_opcode(OP_PUSHNUM_2).push_opcode(OP_CHECKMULTISIG).into_script()
    }

    fn input(script_sig: ScriptBuf, witness: &[&[u8]]) -> TxIn {
        TxIn { script_sig, witness: Witness::from_slice(witness), ..TxIn::default() }
    }

    #[test]
    fn a_redeem_script_counts_what_its_multisig_says() {
        let spend = input(push(&multisig()), &[]);
        assert_eq!(spending_cost(&spend, ScriptClass::P2sh, ALL), 8);
        assert_eq!(spending_cost(&spend, ScriptClass::P2sh, Counted { p2sh: false, witness: false }), 0);
        assert_eq!(spending_cost(&spend, ScriptClass::Other, ALL), 0);
    }

    #[test]
    fn a_number_counts_only_for_the_multisig_right_after_it() {
        // OP_2 0x52, a push of one byte 0x01, OP_CHECKSIG 0xac, OP_CHECKMULTISIG 0xae and its VERIFY 0xaf.
        let counts: [(&[u8], u64, u64); 10] = [
            (&[0x52, 0xae], 2, 20),
            (&[0x60, 0xaf], 16, 20),
            (&[0x52, 0xae, 0xae], 22, 40),
            (&[0x52, 0xac, 0xae], 21, 21),
            (&[0x52, 0x61, 0xae], 20, 20),
            (&[0x52, 0x01, 0x03, 0xae], 20, 20),
            (&[0x00, 0xae], 20, 20),
            (&[0x50, 0xae], 20, 20),
            (&[0xad, 0xac, 0xae], 22, 22),
            // A push that runs over the end hides what follows it.
            (&[0xac, 0x05, 0xac, 0xac], 1, 1),
        ];
        for (script, as_said, twenty) in counts {
            let script = Script::from_bytes(script);
            assert_eq!(count(script, Multisig::AsSaid), as_said, "{script}");
            assert_eq!(count(script, Multisig::Twenty), twenty, "{script}");
        }
    }

    #[test]
    fn a_script_sig_that_does_more_than_push_has_no_redeem_script() {
        let mut script_sig = Builder::new().push_opcode(OP_DUP).into_bytes();
        script_sig.extend(push(&multisig()).into_bytes());
        assert_eq!(spending_cost(&input(script_sig.into(), &[]), ScriptClass::P2sh, ALL), 0);
        let small_number_last = [push(&multisig()).into_bytes(), vec![0x52]].concat();
        assert_eq!(spending_cost(&input(small_number_last.into(), &[]), ScriptClass::P2sh, ALL), 0);
    }

    #[test]
    fn witness_operations_cost_one_also_inside_p2sh() {
        let script = Builder::new().push_opcode(OP_CHECKSIG).push_opcode(OP_CHECKSIG).into_script();
        let nested = push(&script.to_p2wsh());
        assert_eq!(spending_cost(&input(ScriptBuf::new(), &[script.as_bytes()]), ScriptClass::P2wsh, ALL), 2);
        assert_eq!(spending_cost(&input(nested, &[script.as_bytes()]), ScriptClass::P2sh, ALL), 2);
        assert_eq!(spending_cost(&input(ScriptBuf::new(), &[]), ScriptClass::P2wpkh, ALL), 1);
    }
}
