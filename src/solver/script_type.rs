//! What kind of output a script is.
//!
//! Told by its form alone: nothing is run, and of a key only the first byte and the length are looked at.
//! Source: Bitcoin Core, `Solver`.

use super::ops::{OP_1, OP_16, OP_RESERVED, Op, Ops};

const OP_RETURN: u8 = 0x6a;
const OP_DUP: u8 = 0x76;
const OP_EQUAL: u8 = 0x87;
const OP_EQUALVERIFY: u8 = 0x88;
const OP_HASH160: u8 = 0xa9;
const OP_CHECKSIG: u8 = 0xac;
const OP_CHECKMULTISIG: u8 = 0xae;
/// Most keys of a bare multisig.
const MAX_MULTISIG_KEYS: u8 = 20;

/// Core's kinds, with the parts of those that a descriptor names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ScriptType<'a> {
    NonStandard,
    /// Pay to anchor: a witness program of version 1 that anyone can spend.
    Anchor,
    PubKey(&'a [u8]),
    PubKeyHash,
    ScriptHash,
    MultiSig {
        required: u8,
        keys: Vec<&'a [u8]>,
    },
    /// `OP_RETURN` and nothing but pushes.
    NullData,
    WitnessV0KeyHash,
    WitnessV0ScriptHash,
    /// With the output key, of which only the length is known to be right.
    WitnessV1Taproot(&'a [u8; 32]),
    /// A witness program that has no meaning yet.
    WitnessUnknown,
}

impl<'a> ScriptType<'a> {
    pub fn of(script: &'a [u8]) -> Self {
        match script {
            [OP_HASH160, 20, hash @ .., OP_EQUAL] if hash.len() == 20 => return Self::ScriptHash,
            [version @ (0 | OP_1..=OP_16), len @ 2..=40, program @ ..]
                if program.len() == usize::from(*len) =>
            {
                return Self::of_witness_program(*version, program);
            }
            [OP_RETURN, data @ ..] if is_push_only(data) => return Self::NullData,
            [65, key @ .., OP_CHECKSIG] if key.len() == 65 && is_key(key) => return Self::PubKey(key),
            [33, key @ .., OP_CHECKSIG] if key.len() == 33 && is_key(key) => return Self::PubKey(key),
            [OP_DUP, OP_HASH160, 20, hash @ .., OP_EQUALVERIFY, OP_CHECKSIG] if hash.len() == 20 => {
                return Self::PubKeyHash;
            }
            _ => {}
        }
        multisig(script).unwrap_or(Self::NonStandard)
    }

    fn of_witness_program(version: u8, program: &'a [u8]) -> Self {
        match (version, program) {
            (0, program) if program.len() == 20 => Self::WitnessV0KeyHash,
            (0, program) if program.len() == 32 => Self::WitnessV0ScriptHash,
            (0, _) => Self::NonStandard,
            (OP_1, [0x4e, 0x73]) => Self::Anchor,
            (OP_1, program) => program.try_into().map_or(Self::WitnessUnknown, Self::WitnessV1Taproot),
            _ => Self::WitnessUnknown,
        }
    }

    /// Core's name for the kind.
    pub fn name(&self) -> &'static str {
        match self {
            Self::NonStandard => "nonstandard",
            Self::Anchor => "anchor",
            Self::PubKey(_) => "pubkey",
            Self::PubKeyHash => "pubkeyhash",
            Self::ScriptHash => "scripthash",
            Self::MultiSig { .. } => "multisig",
            Self::NullData => "nulldata",
            Self::WitnessV0KeyHash => "witness_v0_keyhash",
            Self::WitnessV0ScriptHash => "witness_v0_scripthash",
            Self::WitnessV1Taproot(_) => "witness_v1_taproot",
            Self::WitnessUnknown => "witness_unknown",
        }
    }
}

/// Whether data has a length that its first byte allows: a compressed key, an uncompressed or a hybrid one.
fn is_key(data: &[u8]) -> bool {
    match data.first() {
        Some(2 | 3) => data.len() == 33,
        Some(4 | 6 | 7) => data.len() == 65,
        _ => false,
    }
}

fn is_push_only(script: &[u8]) -> bool {
    Ops::of(script).all(|op| op.is_ok_and(|op| op.code <= OP_16))
}

/// `M key .. key N OP_CHECKMULTISIG`, keys pushed in any way.
fn multisig(script: &[u8]) -> Option<ScriptType<'_>> {
    if script.last() != Some(&OP_CHECKMULTISIG) {
        return None;
    }
    let mut ops = Ops::of(script);
    let required = count(ops.next()?.ok()?)?;
    let mut keys = Vec::new();
    let total = loop {
        let op = ops.next()?.ok()?;
        if !is_key(op.data) {
            break count(op)?;
        }
        keys.push(op.data);
    };
    let is_whole = ops.rest() == [OP_CHECKMULTISIG] && keys.len() == usize::from(total) && required <= total;
    is_whole.then_some(ScriptType::MultiSig { required, keys })
}

/// A number of keys, written as short as can be: an opcode up to 16, then one byte of data.
fn count(op: Op<'_>) -> Option<u8> {
    match op {
        Op { code: OP_1..=OP_16, .. } => Some(op.code - OP_RESERVED),
        Op { code: 1, data: &[number @ 17..=MAX_MULTISIG_KEYS] } => Some(number),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name_of(script: &[u8]) -> &'static str {
        ScriptType::of(script).name()
    }

    #[test]
    fn a_push_of_the_wrong_length_is_another_kind() {
        let program = |version: u8, len: u8| [&[version, len][..], &vec![7; len.into()]].concat();
        assert_eq!(name_of(&program(0, 20)), "witness_v0_keyhash");
        assert_eq!(name_of(&program(0, 32)), "witness_v0_scripthash");
        assert_eq!(name_of(&program(0, 21)), "nonstandard");
        assert_eq!(name_of(&program(OP_1, 32)), "witness_v1_taproot");
        assert_eq!(name_of(&program(OP_1, 2)), "witness_unknown");
        assert_eq!(name_of(&program(OP_16, 40)), "witness_unknown");
        assert_eq!(name_of(&program(OP_16, 41)), "nonstandard");
        assert_eq!(name_of(&program(OP_1, 1)), "nonstandard");
        assert_eq!(name_of(&[OP_1, 2, 0x4e, 0x73]), "anchor");
        assert_eq!(name_of(&[OP_1, 2, 0x4e]), "nonstandard");
    }

    #[test]
    fn op_return_with_anything_but_pushes_is_no_data() {
        assert_eq!(name_of(&[OP_RETURN]), "nulldata");
        assert_eq!(name_of(&[OP_RETURN, 0, OP_RESERVED, OP_16, 0x4c, 1, 9]), "nulldata");
        assert_eq!(name_of(&[OP_RETURN, 0x61]), "nonstandard");
        assert_eq!(name_of(&[OP_RETURN, 2, 9]), "nonstandard");
    }

    #[test]
    fn a_multisig_counts_its_keys() {
        let key = [&[33, 2][..], &[9; 32]].concat();
        let multisig = |required: &[u8], keys: usize, total: &[u8]| {
            name_of(&[required, &key.repeat(keys), total, &[OP_CHECKMULTISIG]].concat())
        };
        assert_eq!(multisig(&[OP_1], 1, &[OP_1]), "multisig");
        assert_eq!(multisig(&[1, 20], 20, &[1, 20]), "multisig");
        for (required, keys, total) in [
            (&[OP_1][..], 2, &[OP_1][..]),
            (&[0x52], 1, &[OP_1]),
            (&[0], 1, &[OP_1]),
            (&[OP_1], 0, &[0]),
            (&[1, 1], 1, &[OP_1]),
            (&[OP_1], 17, &[0x4c, 1, 17]),
            (&[OP_1], 21, &[1, 21]),
            (&[OP_1], 1, &[OP_1, 0x61]),
            (&[OP_1], 1, &[]),
        ] {
            assert_eq!(multisig(required, keys, total), "nonstandard", "{required:?} of {keys}, {total:?}");
        }
    }
}
