//! CHECKSIG and CHECKMULTISIG, before taproot.

use bitcoin::script::Instruction;
use bitcoin::secp256k1::{Message, PublicKey, Secp256k1, ecdsa};
use bitcoin::sighash::{EcdsaSighashType, SighashCache};
use bitcoin::{Script, Transaction};

use super::evaluate::{Stack, Version, pop, push};
use super::{Signatures, Spend, Step, Stop};
use crate::scripts::encoding;
use crate::scripts::error::Reason;
use crate::scripts::flags::Flags;

const MAX_KEYS: usize = 20;
/// Bytes of a number that a script may count with.
const NUMBER_BYTES: usize = 4;

/// Takes key and signature off the stack; whether they fit.
pub(super) fn check(spend: &Spend<'_>, stack: &mut Stack, script: &Script, version: Version) -> Step<bool> {
    let (key, signature) = (stack.pop(), stack.pop());
    let (Some(key), Some(signature)) = (key, signature) else {
        return Err(Reason::InvalidStackOperation.into());
    };
    no_separator(script)?;
    not_in_script(spend, script, version, &signature)?;
    let good = check_pair(spend, script, version, &signature, &key)?;
    if !good && spend.rules.standard && !signature.is_empty() {
        return Err(Reason::SigNullFail.into());
    }
    Ok(good)
}

/// Takes `dummy signature... m key... n` off the stack; whether each signature is of a key, in the same order.
pub(super) fn check_multisig(
    spend: &Spend<'_>,
    stack: &mut Stack,
    script: &Script,
    version: Version,
) -> Step<bool> {
    let mut keys = counted(spend, stack, MAX_KEYS, Reason::PubkeyCount)?;
    let mut signatures = counted(spend, stack, keys.len(), Reason::SigCount)?;
    // Taken off the stack they are in reverse, which is the order in which they are looked at.
    let given = signatures.clone();
    no_separator(script)?;
    for signature in &signatures {
        not_in_script(spend, script, version, signature)?;
    }
    if spend.signatures == Signatures::Assumed {
        // Which keys are looked at depends on whose the signatures are.
        keys.iter().try_for_each(|key| check_key(spend, version, key))?;
    }
    (keys, signatures) = (keys.into_iter().rev().collect(), signatures.into_iter().rev().collect());
    while let Some(signature) = signatures.last() {
        if signatures.len() > keys.len() {
            break;
        }
        let Some(key) = keys.pop() else { break };
        if check_pair(spend, script, version, signature, &key)? {
            signatures.pop();
        }
    }
    let good = signatures.is_empty();
    if !good && spend.rules.standard && given.iter().any(|signature| !signature.is_empty()) {
        return Err(Reason::SigNullFail.into());
    }
    let dummy = pop(stack)?;
    if !dummy.is_empty() && spend.has(Flags::NULLDUMMY) {
        return Err(Reason::SigNullDummy.into());
    }
    Ok(good)
}

/// A number, and so many items below it, the topmost first.
fn counted(spend: &Spend<'_>, stack: &mut Stack, most: usize, reason: Reason) -> Step<Vec<Vec<u8>>> {
    let count = pop(stack)?;
    if count.len() > NUMBER_BYTES {
        return Err(Reason::ScriptNum.into());
    }
    let count = match (count.as_slice(), spend.rules.standard) {
        ([], _) => 0,
        ([byte @ 1..=0x7f], _) => usize::from(*byte),
        // Padded with zeros, or negative: no usual script counts so.
        (_, _) => return Err(Stop::Unusual),
    };
    if count > most {
        return Err(reason.into());
    }
    (0..count).map(|_| pop(stack)).collect()
}

/// `EvalChecksigPreTapscript`, but for what follows from a failure.
fn check_pair(
    spend: &Spend<'_>,
    script: &Script,
    version: Version,
    signature: &[u8],
    key: &[u8],
) -> Step<bool> {
    encoding::check_signature(signature, spend.has(Flags::DERSIG), spend.rules.standard)?;
    check_key(spend, version, key)?;
    let Some((hash_type, der)) = signature.split_last() else { return Ok(false) };
    match spend.signatures {
        Signatures::Assumed => Ok(true),
        Signatures::Verified => verify(spend, script, version, *hash_type, der, key),
    }
}

fn check_key(spend: &Spend<'_>, version: Version, key: &[u8]) -> Step<()> {
    if spend.rules.standard {
        encoding::check_pubkey(key, version == Version::WitnessV0)?;
    }
    Ok(())
}

/// `CheckECDSASignature`.
fn verify(
    spend: &Spend<'_>,
    script: &Script,
    version: Version,
    hash_type: u8,
    der: &[u8],
    key: &[u8],
) -> Step<bool> {
    let (Ok(key), Ok(mut signature)) = (PublicKey::from_slice(key), ecdsa::Signature::from_der_lax(der))
    else {
        return Ok(false);
    };
    // Consensus takes both halves of the curve; libsecp256k1 verifies only the lower.
    signature.normalize_s();
    let message = message(spend.tx, spend, script, version, hash_type)?;
    Ok(Secp256k1::verification_only().verify_ecdsa(&message, &signature, &key).is_ok())
}

fn message(
    tx: &Transaction,
    spend: &Spend<'_>,
    script: &Script,
    version: Version,
    hash_type: u8,
) -> Step<Message> {
    let mut cache = SighashCache::new(tx);
    let number = spend.number;
    match version {
        Version::Base => {
            let hash = cache.legacy_signature_hash(number, script, u32::from(hash_type));
            hash.map(Message::from).map_err(|_| Stop::Unusual)
        }
        Version::WitnessV0 => {
            let known = EcdsaSighashType::from_standard(u32::from(hash_type)).map_err(|_| Stop::Unusual)?;
            let hash = cache.p2wsh_signature_hash(number, script, spend.output.value, known);
            hash.map(Message::from).map_err(|_| Stop::Unusual)
        }
    }
}

/// A code separator anywhere changes what is signed.
fn no_separator(script: &Script) -> Step<()> {
    let separator = bitcoin::opcodes::all::OP_CODESEPARATOR;
    let mut instructions = script.instructions().map_while(Result::ok);
    let found = instructions.any(|instruction| matches!(instruction, Instruction::Op(op) if op == separator));
    if found { Err(Stop::Unusual) } else { Ok(()) }
}

/// Before segwit a signature is taken out of the script that it signs, which no usual script has need of.
fn not_in_script(spend: &Spend<'_>, script: &Script, version: Version, signature: &[u8]) -> Step<()> {
    let pushed = push(signature);
    let starts = |at: usize| script.as_bytes().get(at..).is_some_and(|rest| rest.starts_with(&pushed));
    let mut indices = script.instruction_indices().map_while(Result::ok);
    if version != Version::Base || !indices.any(|(at, _)| starts(at)) {
        return Ok(());
    }
    Err(if spend.rules.standard { Stop::Fails(Reason::SigFindAndDelete) } else { Stop::Unusual })
}
