//! Witness programs: versions 0 and 1, and what is kept for later ones.

use bitcoin::hashes::{Hash, sha256};
use bitcoin::opcodes::all::{OP_CHECKSIG, OP_DUP, OP_EQUALVERIFY, OP_HASH160};
use bitcoin::opcodes::{Class, ClassifyContext};
use bitcoin::script::{Builder, Instruction};
use bitcoin::secp256k1::{Message, Secp256k1, XOnlyPublicKey, schnorr};
use bitcoin::sighash::{Annex, Prevouts, SighashCache, TapSighashType};
use bitcoin::taproot::{ControlBlock, LeafVersion};
use bitcoin::{Script, ScriptBuf, WitnessVersion};

use super::evaluate::{MAX_ELEMENT_BYTES, Version, ends_true, evaluate};
use super::{Signatures, Spend, Step, Stop};
use crate::scripts::error::Reason;
use crate::scripts::flags::Flags;

const ANNEX_TAG: u8 = 0x50;
const CONTROL_BASE_BYTES: usize = 33;
const CONTROL_NODE_BYTES: usize = 32;
const CONTROL_MAX_BYTES: usize = CONTROL_BASE_BYTES + 128 * CONTROL_NODE_BYTES;
/// The program of pay to anchor.
const ANCHOR: [u8; 2] = [0x4e, 0x73];

/// Follows the witness program `script` (`VerifyWitnessProgram`).
pub(super) fn follow(spend: &Spend<'_>, script: &Script, in_p2sh: bool) -> Step<()> {
    // The version is one byte, the length another.
    let program = script.as_bytes().get(2..).unwrap_or_default();
    match (script.witness_version(), program.len()) {
        (Some(WitnessVersion::V0), 32) => script_hash(spend, program),
        (Some(WitnessVersion::V0), 20) => key_hash(spend, program),
        (Some(WitnessVersion::V0), _) => Err(Reason::WitnessProgramWrongLength.into()),
        (Some(WitnessVersion::V1), 32) if !in_p2sh => taproot(spend, program),
        (Some(WitnessVersion::V1), _) if !in_p2sh && program == ANCHOR => Ok(()),
        (_, _) if spend.rules.standard => Err(Reason::UpgradableWitnessProgram.into()),
        (_, _) => Ok(()),
    }
}

fn key_hash(spend: &Spend<'_>, program: &[u8]) -> Step<()> {
    let Ok(program) = <[u8; 20]>::try_from(program) else { return Err(Stop::Unusual) };
    if spend.input.witness.len() != 2 {
        return Err(Reason::WitnessProgramMismatch.into());
    }
    let script = Builder::new().push_opcode(OP_DUP).push_opcode(OP_HASH160).push_slice(program);
    let script = script.push_opcode(OP_EQUALVERIFY).push_opcode(OP_CHECKSIG).into_script();
    execute(spend, items(spend), &script)
}

fn script_hash(spend: &Spend<'_>, program: &[u8]) -> Step<()> {
    let mut items = items(spend);
    let script = ScriptBuf::from(items.pop().ok_or(Reason::WitnessProgramWitnessEmpty)?);
    if sha256::Hash::hash(script.as_bytes()).as_byte_array() != program {
        return Err(Reason::WitnessProgramMismatch.into());
    }
    execute(spend, items, &script)
}

fn items(spend: &Spend<'_>) -> Vec<Vec<u8>> {
    spend.input.witness.to_vec()
}

fn execute(spend: &Spend<'_>, mut stack: Vec<Vec<u8>>, script: &Script) -> Step<()> {
    if stack.iter().any(|item| item.len() > MAX_ELEMENT_BYTES) {
        return Err(Reason::PushSize.into());
    }
    evaluate(spend, &mut stack, script, Version::WitnessV0)?;
    if stack.len() != 1 {
        return Err(Reason::CleanStack.into());
    }
    ends_true(&stack)
}

fn taproot(spend: &Spend<'_>, program: &[u8]) -> Step<()> {
    if !spend.has(Flags::TAPROOT) {
        return Ok(());
    }
    let items: Vec<&[u8]> = spend.input.witness.iter().collect();
    let (annex, items) = match items.as_slice() {
        [items @ .., last] if !items.is_empty() && last.first() == Some(&ANNEX_TAG) => (Some(*last), items),
        items => (None, items),
    };
    match items {
        [] => Err(Reason::WitnessProgramWitnessEmpty.into()),
        [_] if spend.signatures == Signatures::Assumed => Ok(()),
        [signature] => key_path(spend, program, signature, annex),
        [_, script, control] | [.., _, script, control] => script_path(spend, program, script, control),
        [script, control] => script_path(spend, program, script, control),
    }
}

/// `CheckSchnorrSignature`.
fn key_path(spend: &Spend<'_>, program: &[u8], signature: &[u8], annex: Option<&[u8]>) -> Step<()> {
    let (signature, hash_type) = match signature.split_first_chunk::<64>() {
        Some((signature, [])) => (signature, TapSighashType::Default),
        Some((_, [0])) => return Err(Reason::SchnorrSigHashType.into()),
        Some((signature, [byte])) => {
            (signature, TapSighashType::from_consensus_u8(*byte).map_err(|_| Reason::SchnorrSigHashType)?)
        }
        Some(_) | None => return Err(Reason::SchnorrSigSize.into()),
    };
    let annex = annex.map(Annex::new).transpose().map_err(|_| Stop::Unusual)?;
    let hash = SighashCache::new(spend.tx)
        .taproot_signature_hash(spend.number, &Prevouts::All(spend.spent), annex, None, hash_type)
        .map_err(|_| Reason::SchnorrSigHashType)?;
    let key = XOnlyPublicKey::from_slice(program).map_err(|_| Reason::SchnorrSig)?;
    let signature = schnorr::Signature::from_slice(signature).map_err(|_| Reason::SchnorrSig)?;
    let message = Message::from(hash);
    let verified = Secp256k1::verification_only().verify_schnorr(&signature, &message, &key);
    verified.map_err(|_| Stop::Fails(Reason::SchnorrSig))
}

fn script_path(spend: &Spend<'_>, program: &[u8], script: &[u8], control: &[u8]) -> Step<()> {
    let nodes = control.len().checked_sub(CONTROL_BASE_BYTES).map(|bytes| bytes % CONTROL_NODE_BYTES);
    if nodes != Some(0) || control.len() > CONTROL_MAX_BYTES {
        return Err(Reason::TaprootWrongControlSize.into());
    }
    let script = Script::from_bytes(script);
    if spend.signatures == Signatures::Verified {
        let commits = |control: ControlBlock| {
            let key = XOnlyPublicKey::from_slice(program).ok()?;
            let secp = Secp256k1::verification_only();
            control.verify_taproot_commitment(&secp, key, script).then_some(())
        };
        ControlBlock::decode(control).ok().and_then(commits).ok_or(Reason::WitnessProgramMismatch)?;
    }
    let version = control.first().map(|first| first & 0xfe);
    if version != Some(LeafVersion::TapScript.to_consensus()) {
        return if spend.rules.standard { Err(Reason::UpgradableTaprootVersion.into()) } else { Ok(()) };
    }
    for instruction in script.instructions() {
        let instruction = instruction.map_err(|_| Reason::BadOpcode)?;
        if matches!(instruction, Instruction::Op(op) if op.classify(ClassifyContext::TapScript) == Class::SuccessOp)
        {
            return if spend.rules.standard { Err(Reason::OpSuccess.into()) } else { Ok(()) };
        }
    }
    Err(Stop::Unusual)
}
