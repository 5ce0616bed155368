//! Signature operations: what a block may ask of everyone who verifies it.
//!
//! Counted by looking at scripts, not by running them. A legacy operation costs four, one in a witness one.
//! Source: Bitcoin Core `script/script.cpp` (`GetSigOpCount`), `script/interpreter.cpp` (`CountWitnessSigOps`),
//! `consensus/tx_verify.cpp` (`GetTransactionSigOpCost`); BIP16, BIP54, BIP141.

use bitcoin::opcodes::all::{
    OP_CHECKMULTISIG, OP_CHECKMULTISIGVERIFY, OP_CHECKSIG, OP_CHECKSIGVERIFY, OP_PUSHDATA1, OP_PUSHDATA2,
    OP_PUSHDATA4, OP_PUSHNUM_1, OP_PUSHNUM_16,
};
use bitcoin::{Script, Transaction, TxIn};
use chainstore::ScriptClass;

use super::transaction::TransactionParts;

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
pub(super) fn legacy(tx: &impl TransactionParts) -> u64 {
    let inputs: u64 = tx.inputs().map(|input| count(input.script_sig, Multisig::Twenty)).sum();
    let outputs: u64 = tx.outputs().map(|output| count(output.script, Multisig::Twenty)).sum();
    inputs + outputs
}

/// Cost of what an input's redeem script and witness add, by what it may turn out to spend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct SpendingCosts {
    p2sh: u32,
    p2wpkh: u32,
    p2wsh: u32,
}

impl SpendingCosts {
    /// `witness_script` is the last item of the witness.
    pub fn of(script_sig: &Script, witness_script: Option<&[u8]>, counted: Counted) -> Self {
        let mut costs = Self::default();
        // No script of a block's length owes more than this can hold.
        let number = |cost: u64| u32::try_from(cost).unwrap_or(u32::MAX);
        if counted.witness {
            costs.p2wpkh = 1;
            let script = witness_script.map(Script::from_bytes);
            costs.p2wsh = number(script.map_or(0, |script| count(script, Multisig::AsSaid)));
        }
        if !script_sig.is_empty() {
            let redeem_script = last_push(script_sig);
            costs.p2sh = match ScriptClass::of(redeem_script) {
                ScriptClass::P2wpkh => costs.p2wpkh,
                ScriptClass::P2wsh => costs.p2wsh,
                ScriptClass::P2sh | ScriptClass::Other => 0,
            };
            if counted.p2sh {
                let operations = count(redeem_script, Multisig::AsSaid) * WITNESS_SCALE;
                costs.p2sh = costs.p2sh.saturating_add(number(operations));
            }
        }
        costs
    }

    /// Given the class of the output that it spends.
    pub fn of_class(&self, class: ScriptClass) -> u64 {
        u64::from(match class {
            ScriptClass::P2sh => self.p2sh,
            ScriptClass::P2wpkh => self.p2wpkh,
            ScriptClass::P2wsh => self.p2wsh,
            ScriptClass::Other => 0,
        })
    }
}

/// Cost of what an input's redeem script and witness add, given the class of the output that it spends.
fn spending_cost(input: &TxIn, class: ScriptClass, counted: Counted) -> u64 {
    SpendingCosts::of(&input.script_sig, input.witness.last(), counted).of_class(class)
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
    for (op, _) in Operations(script.as_bytes()) {
        operations += match op {
            CHECKSIG | CHECKSIGVERIFY => 1,
            CHECKMULTISIG | CHECKMULTISIGVERIFY if multisig == Multisig::AsSaid => {
                said.unwrap_or(MULTISIG_KEYS)
            }
            CHECKMULTISIG | CHECKMULTISIGVERIFY => MULTISIG_KEYS,
            _ => 0,
        };
        // What OP_1 to OP_16 push.
        said = (NUMBER_1..=NUMBER_16).contains(&op).then(|| u64::from(op - NUMBER_1) + 1);
    }
    operations
}

/// What the last push of a script that only pushes puts on the stack; empty where there is none.
fn last_push(script_sig: &Script) -> &Script {
    let mut operations = Operations(script_sig.as_bytes());
    let mut last: &[u8] = &[];
    for (op, pushed) in operations.by_ref() {
        // Small numbers push too, but what they push is no script.
        if op > NUMBER_16 {
            return Script::new();
        }
        last = pushed;
    }
    if operations.0.is_empty() { Script::from_bytes(last) } else { Script::new() }
}

const CHECKSIG: u8 = OP_CHECKSIG.to_u8();
const CHECKSIGVERIFY: u8 = OP_CHECKSIGVERIFY.to_u8();
const CHECKMULTISIG: u8 = OP_CHECKMULTISIG.to_u8();
const CHECKMULTISIGVERIFY: u8 = OP_CHECKMULTISIGVERIFY.to_u8();
const NUMBER_1: u8 = OP_PUSHNUM_1.to_u8();
const NUMBER_16: u8 = OP_PUSHNUM_16.to_u8();
const DATA_1: u8 = OP_PUSHDATA1.to_u8();
const DATA_2: u8 = OP_PUSHDATA2.to_u8();
const DATA_4: u8 = OP_PUSHDATA4.to_u8();

/// The operations of a script with what they push; it stops before one that cannot be read.
struct Operations<'a>(&'a [u8]);

impl<'a> Iterator for Operations<'a> {
    type Item = (u8, &'a [u8]);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let (op, rest) = self.0.split_first()?;
        let (length, rest) = match *op {
            0..DATA_1 => (usize::from(*op), rest),
            DATA_1 => rest.split_first().map(|(length, rest)| (usize::from(*length), rest))?,
            DATA_2 => {
                rest.split_first_chunk().map(|(length, rest)| (u16::from_le_bytes(*length).into(), rest))?
            }
            DATA_4 => {
                let (length, rest) = rest.split_first_chunk()?;
                (usize::try_from(u32::from_le_bytes(*length)).ok()?, rest)
            }
            _ => (0, rest),
        };
        let (pushed, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some((*op, pushed))
    }
}

#[cfg(test)]
mod tests {
    use bitcoin::opcodes::all::{OP_DUP, OP_PUSHNUM_2};
    use bitcoin::script::{Builder, Instruction, PushBytesBuf};
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

    #[test]
    fn operations_are_those_of_the_library() {
        for seed in 0..20_000 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let mut bytes: Vec<u8> = (0..rng.usize(0..40)).map(|_| rng.u8(..)).collect();
            for _ in 0..rng.usize(0..4) {
                bytes.insert(
                    rng.usize(0..=bytes.len()),
                    *rng.choice(&[0, 0x4b, 0x4c, 0x4d, 0x4e, 0x60]).unwrap(),
                );
            }
            let mut operations = Operations(&bytes);
            let found: Vec<_> = operations.by_ref().map(|(op, pushed)| (op, pushed.to_vec())).collect();
            let mut wanted = Vec::new();
            let mut is_broken = false;
            for instruction in Script::from_bytes(&bytes).instruction_indices() {
                match instruction {
                    Ok((at, Instruction::PushBytes(pushed))) => {
                        wanted.push((bytes[at], pushed.as_bytes().to_vec()));
                    }
                    Ok((_, Instruction::Op(op))) => wanted.push((op.to_u8(), Vec::new())),
                    Err(_) => is_broken = true,
                }
            }
            assert_eq!((found, !operations.0.is_empty()), (wanted, is_broken), "seed {seed}");
        }
    }
}
