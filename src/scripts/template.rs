//! The usual scripts, followed step by step as the interpreter does, to say what a spend fails of.
//!
//! Usual is what pushes, compares hashes and checks signatures: pay to key, to key hash and multisig, bare or behind
//! a hash, and taproot's key path. At any other operation nothing more is said. This never makes a spend valid where
//! the interpreter can be asked.
//! Source: Bitcoin Core `script/interpreter.cpp` (`VerifyScript`, `VerifyWitnessProgram`, `EvalScript`).

mod evaluate;
mod signatures;
mod witness;

use bitcoin::opcodes::all::{OP_CHECKMULTISIG, OP_CHECKMULTISIGVERIFY, OP_CHECKSIG, OP_CHECKSIGVERIFY};
use bitcoin::script::Instruction;
use bitcoin::{Script, Transaction, TxIn, TxOut};

use super::error::Reason;
use super::flags::Flags;

/// The rules by which a spend is followed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    flags: Flags,
    /// And those of policy.
    standard: bool,
}

impl Rules {
    pub(super) fn consensus(flags: Flags) -> Self {
        Self { flags, standard: false }
    }

    pub(super) fn standard() -> Self {
        Self { flags: Flags::ALL, standard: true }
    }
}

/// What is thought of signatures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Signatures {
    /// All that are there are good.
    Assumed,
    Verified,
}

/// Why following ended before the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stop {
    Fails(Reason),
    /// Something that is not usual.
    Unusual,
}

impl From<Reason> for Stop {
    fn from(reason: Reason) -> Self {
        Self::Fails(reason)
    }
}

type Step<T> = Result<T, Stop>;

/// One input, with all that its scripts may ask for.
#[derive(Clone, Copy, Debug)]
struct Spend<'a> {
    tx: &'a Transaction,
    spent: &'a [TxOut],
    number: usize,
    input: &'a TxIn,
    output: &'a TxOut,
    rules: Rules,
    signatures: Signatures,
}

impl<'a> Spend<'a> {
    fn new(
        tx: &'a Transaction,
        spent: &'a [TxOut],
        number: usize,
        rules: Rules,
        signatures: Signatures,
    ) -> Option<Self> {
        let (input, output) = (tx.input.get(number)?, spent.get(number)?);
        Some(Self { tx, spent, number, input, output, rules, signatures })
    }

    fn follow(&self) -> Step<()> {
        evaluate::follow(self)
    }
}

/// Whether an input may spend what it spends; `None` where its scripts are not usual ones. For a build that has no
/// interpreter: whoever has one asks that.
pub fn verify_template(
    tx: &Transaction,
    spent: &[TxOut],
    input: usize,
    flags: Flags,
) -> Option<Result<(), Reason>> {
    let spend = Spend::new(tx, spent, input, Rules::consensus(flags), Signatures::Verified)?;
    match spend.follow() {
        Ok(()) => Some(Ok(())),
        Err(Stop::Fails(reason)) => Some(Err(reason)),
        Err(Stop::Unusual) => None,
    }
}

/// What an input fails of that the interpreter refused.
pub(super) fn why(tx: &Transaction, spent: &[TxOut], input: usize, rules: Rules) -> Reason {
    let Some(spend) = Spend::new(tx, spent, input, rules, Signatures::Verified) else {
        return Reason::Unknown;
    };
    match spend.follow() {
        Err(Stop::Fails(reason)) => reason,
        Ok(()) | Err(Stop::Unusual) => likely(&spend),
    }
}

/// What of policy an input with valid scripts breaks.
pub(super) fn break_of_policy(tx: &Transaction, spent: &[TxOut], input: usize) -> Option<Reason> {
    let spend = Spend::new(tx, spent, input, Rules::standard(), Signatures::Assumed)?;
    match spend.follow() {
        Ok(()) | Err(Stop::Unusual) => None,
        // Which signature comes first to be looked at may depend on which are good.
        Err(Stop::Fails(_)) => match (Spend { signatures: Signatures::Verified, ..spend }).follow() {
            Err(Stop::Fails(reason)) => Some(reason),
            Ok(()) | Err(Stop::Unusual) => None,
        },
    }
}

/// What most spends of unusual scripts fail of: a signature.
fn likely(spend: &Spend<'_>) -> Reason {
    if spend.output.script_pubkey.is_p2tr() {
        return Reason::SchnorrSig;
    }
    let last_push = spend.input.script_sig.instructions().last().and_then(|last| match last {
        Ok(Instruction::PushBytes(bytes)) => Some(Script::from_bytes(bytes.as_bytes())),
        Ok(Instruction::Op(_)) | Err(_) => None,
    });
    let scripts =
        [Some(&*spend.output.script_pubkey), last_push, spend.input.witness.last().map(Script::from_bytes)];
    let checks = |script: &Script| script.instructions().map_while(Result::ok).any(is_signature_check);
    if spend.rules.standard && scripts.into_iter().flatten().any(checks) {
        Reason::SigNullFail
    } else {
        Reason::EvalFalse
    }
}

fn is_signature_check(instruction: Instruction<'_>) -> bool {
    matches!(
        instruction,
        Instruction::Op(OP_CHECKSIG | OP_CHECKSIGVERIFY | OP_CHECKMULTISIG | OP_CHECKMULTISIGVERIFY)
    )
}
