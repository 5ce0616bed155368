//! The stack machine, as far as usual scripts need it.

use bitcoin::hashes::{Hash, hash160};
use bitcoin::opcodes::Opcode;
use bitcoin::opcodes::all::{
    OP_CHECKMULTISIG, OP_CHECKMULTISIGVERIFY, OP_CHECKSIG, OP_CHECKSIGVERIFY, OP_DUP, OP_EQUAL,
    OP_EQUALVERIFY, OP_HASH160, OP_PUSHNUM_1, OP_PUSHNUM_16, OP_PUSHNUM_NEG1,
};
use bitcoin::script::{Builder, Instruction, PushBytesBuf};
use bitcoin::{Script, ScriptBuf};

use super::{Spend, Step, Stop, signatures, witness};
use crate::scripts::encoding;
use crate::scripts::error::Reason;
use crate::scripts::flags::Flags;

const MAX_SCRIPT_BYTES: usize = 10_000;
pub(super) const MAX_ELEMENT_BYTES: usize = 520;
const MAX_OPERATIONS: usize = 201;

pub(super) type Stack = Vec<Vec<u8>>;

/// Which scripts are run, and so what a signature signs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    Base,
    WitnessV0,
}

/// The whole input (`VerifyScript`).
pub(super) fn follow(spend: &Spend<'_>) -> Step<()> {
    let (script_sig, script) = (&*spend.input.script_sig, &*spend.output.script_pubkey);
    let (p2sh, segwit) = (spend.has(Flags::P2SH), spend.has(Flags::WITNESS));
    let mut stack = Stack::new();
    evaluate(spend, &mut stack, script_sig, Version::Base)?;
    let given = stack.clone();
    evaluate(spend, &mut stack, script, Version::Base)?;
    ends_true(&stack)?;
    let mut witness_used = false;
    if segwit && script.is_witness_program() {
        witness_used = true;
        if !script_sig.is_empty() {
            return Err(Reason::WitnessMalleated.into());
        }
        witness::follow(spend, script, false)?;
        stack.truncate(1);
    }
    if p2sh && script.is_p2sh() {
        if !script_sig.is_push_only() {
            return Err(Reason::SigPushOnly.into());
        }
        stack = given;
        let redeem = ScriptBuf::from(stack.pop().ok_or(Reason::EvalFalse)?);
        evaluate(spend, &mut stack, &redeem, Version::Base)?;
        ends_true(&stack)?;
        if segwit && redeem.is_witness_program() {
            witness_used = true;
            if script_sig.as_bytes() != push(redeem.as_bytes()) {
                return Err(Reason::WitnessMalleatedP2sh.into());
            }
            witness::follow(spend, &redeem, true)?;
            stack.truncate(1);
        }
    }
    if spend.rules.standard && stack.len() != 1 {
        return Err(Reason::CleanStack.into());
    }
    if segwit && !witness_used && !spend.input.witness.is_empty() {
        return Err(Reason::WitnessUnexpected.into());
    }
    Ok(())
}

impl Spend<'_> {
    pub(super) fn has(&self, flags: Flags) -> bool {
        self.rules.flags.contains(flags)
    }
}

/// One script on a stack (`EvalScript`).
pub(super) fn evaluate(spend: &Spend<'_>, stack: &mut Stack, script: &Script, version: Version) -> Step<()> {
    if script.len() > MAX_SCRIPT_BYTES {
        return Err(Reason::ScriptSize.into());
    }
    let mut operations = 0;
    for instruction in script.instruction_indices() {
        let (at, instruction) = instruction.map_err(|_| Reason::BadOpcode)?;
        match instruction {
            Instruction::PushBytes(bytes) => {
                let data = bytes.as_bytes();
                if data.len() > MAX_ELEMENT_BYTES {
                    return Err(Reason::PushSize.into());
                }
                let opcode = script.as_bytes().get(at).copied().unwrap_or_default();
                if spend.rules.standard && !encoding::is_minimal_push(opcode, data) {
                    return Err(Reason::MinimalData.into());
                }
                stack.push(data.to_vec());
            }
            Instruction::Op(op) => {
                if let Some(number) = small_number(op) {
                    stack.push(number);
                    continue;
                }
                operations += 1;
                if operations > MAX_OPERATIONS {
                    return Err(Stop::Unusual);
                }
                operate(spend, stack, script, version, op)?;
            }
        }
        if stack.len() > 1_000 {
            return Err(Stop::Unusual);
        }
    }
    Ok(())
}

fn operate(spend: &Spend<'_>, stack: &mut Stack, script: &Script, version: Version, op: Opcode) -> Step<()> {
    match op {
        OP_DUP => {
            let top = stack.last().ok_or(Reason::InvalidStackOperation)?.clone();
            stack.push(top);
        }
        OP_HASH160 => {
            let top = pop(stack)?;
            stack.push(hash160::Hash::hash(&top).to_byte_array().to_vec());
        }
        OP_EQUAL | OP_EQUALVERIFY => {
            let (one, other) = (stack.pop(), stack.pop());
            let (Some(one), Some(other)) = (one, other) else {
                return Err(Reason::InvalidStackOperation.into());
            };
            finish(stack, one == other, op == OP_EQUALVERIFY, Reason::EqualVerify)?;
        }
        OP_CHECKSIG | OP_CHECKSIGVERIFY => {
            let good = signatures::check(spend, stack, script, version)?;
            finish(stack, good, op == OP_CHECKSIGVERIFY, Reason::CheckSigVerify)?;
        }
        OP_CHECKMULTISIG | OP_CHECKMULTISIGVERIFY => {
            let good = signatures::check_multisig(spend, stack, script, version)?;
            finish(stack, good, op == OP_CHECKMULTISIGVERIFY, Reason::CheckMultisigVerify)?;
        }
        _ => return Err(Stop::Unusual),
    }
    Ok(())
}

/// Leaves the outcome on the stack, or demands that it is true.
fn finish(stack: &mut Stack, outcome: bool, verify: bool, reason: Reason) -> Step<()> {
    match (verify, outcome) {
        (false, _) => stack.push(if outcome { vec![1] } else { Vec::new() }),
        (true, true) => {}
        (true, false) => return Err(reason.into()),
    }
    Ok(())
}

pub(super) fn pop(stack: &mut Stack) -> Step<Vec<u8>> {
    stack.pop().ok_or(Stop::Fails(Reason::InvalidStackOperation))
}

/// What OP_1NEGATE and OP_1 to OP_16 push.
fn small_number(op: Opcode) -> Option<Vec<u8>> {
    let (op, one) = (op.to_u8(), OP_PUSHNUM_1.to_u8());
    if op == OP_PUSHNUM_NEG1.to_u8() {
        return Some(vec![0x81]);
    }
    (one..=OP_PUSHNUM_16.to_u8()).contains(&op).then(|| vec![op - one + 1])
}

/// Whether a script was successful so far: its last item is neither zero nor negative zero.
pub(super) fn ends_true(stack: &Stack) -> Step<()> {
    let is_true = |item: &Vec<u8>| match item.split_last() {
        Some((last, rest)) => rest.iter().any(|byte| *byte != 0) || (*last != 0 && *last != 0x80),
        None => false,
    };
    if stack.last().is_some_and(is_true) { Ok(()) } else { Err(Reason::EvalFalse.into()) }
}

/// The script that pushes this, as a wallet writes it (`CScript() << bytes`).
pub(super) fn push(bytes: &[u8]) -> Vec<u8> {
    match PushBytesBuf::try_from(bytes.to_vec()) {
        Ok(bytes) => Builder::new().push_slice(bytes).into_bytes(),
        Err(_) => Vec::new(),
    }
}
