//! The descriptor of an output's script, as it can be told from the script alone.
//!
//! A hash does not show what was hashed, so most are `addr()`; keys that stand in the script are named. Never
//! finds out more than Core does without a wallet. Source: Bitcoin Core, `InferDescriptor`; BIP380 and after.

use bitcoin::XOnlyPublicKey;
use bitcoin::hex::DisplayHex;

use crate::solver::ScriptType;

/// The descriptor with its checksum.
pub(super) fn of(script: &[u8], kind: &ScriptType<'_>, address: Option<&str>) -> String {
    let descriptor = of_keys(kind)
        .or_else(|| address.map(|address| format!("addr({address})")))
        .unwrap_or_else(|| format!("raw({:x})", script.as_hex()));
    let checksum = checksum(&descriptor);
    descriptor + "#" + &checksum
}

/// Where the script shows keys, and all can be used.
fn of_keys(kind: &ScriptType<'_>) -> Option<String> {
    match kind {
        ScriptType::PubKey(key) => is_plain(key).then(|| format!("pk({:x})", key.as_hex())),
        ScriptType::MultiSig { required, keys } => keys.iter().all(|key| is_plain(key)).then(|| {
            let keys: String = keys.iter().map(|key| format!(",{:x}", key.as_hex())).collect();
            format!("multi({required}{keys})")
        }),
        // The one place where Core asks whether a key is a point of the curve.
        ScriptType::WitnessV1Taproot(key) => {
            XOnlyPublicKey::from_slice(&key[..]).is_ok().then(|| format!("rawtr({:x})", key.as_hex()))
        }
        ScriptType::NonStandard
        | ScriptType::Anchor
        | ScriptType::PubKeyHash
        | ScriptType::ScriptHash
        | ScriptType::NullData
        | ScriptType::WitnessV0KeyHash
        | ScriptType::WitnessV0ScriptHash
        | ScriptType::WitnessUnknown => None,
    }
}

/// Descriptors know no hybrid keys (first byte 6 or 7).
fn is_plain(key: &[u8]) -> bool {
    matches!(key.first(), Some(2..=4))
}

/// The eight characters behind `#` (BIP380): a code that finds up to four wrong characters.
///
/// Each character is five bits of its place among `KNOWN`; the rest of the places of three characters is one
/// more symbol. What is not in the alphabet does not come from here, and counts as its first.
fn checksum(descriptor: &str) -> String {
    const KNOWN: &str = "0123456789()[],'/*abcdefgh@:$%{}IJKLMNOPQRSTUVWXYZ&+-.;<=>?!^_|~\
                         ijklmnopqrstuvwxyzABCDEFGH`#\"\\ ";
    /// Those of bech32 addresses.
    const SYMBOLS: [u8; 32] = *b"qpzry9x8gf2tvdw0s3jn54khce6mua7l";
    /// Symbols of the checksum.
    const LEN: u32 = 8;

    let places: Vec<usize> =
        descriptor.chars().map(|character| KNOWN.find(character).unwrap_or_default()).collect();
    let mut remainder = 1;
    for three in places.chunks(3) {
        for place in three {
            remainder = shift_in(remainder, (place % 32) as u64);
        }
        remainder = shift_in(remainder, three.iter().fold(0, |groups, place| groups * 3 + place / 32) as u64);
    }
    remainder = (0..LEN).fold(remainder, |remainder, _| shift_in(remainder, 0)) ^ 1;
    (0..LEN).rev().map(|index| char::from(SYMBOLS[(remainder >> (5 * index)) as usize % 32])).collect()
}

/// One step of the division by the code's generator: 40 bits of remainder, five of them shifted out and in.
fn shift_in(remainder: u64, symbol: u64) -> u64 {
    const GENERATOR: [u64; 5] =
        [0xf5_dee5_1989, 0xa9_fdca_3312, 0x1b_ab10_e32d, 0x37_06b1_677a, 0x64_4d62_6ffd];
    let out = remainder >> 35;
    let shifted = (remainder & 0x7_ffff_ffff) << 5 ^ symbol;
    let hit = GENERATOR.iter().enumerate().filter(|(bit, _)| out >> bit & 1 == 1);
    hit.fold(shifted, |remainder, (_, generator)| remainder ^ generator)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_that_of_bip_380() {
        assert_eq!(checksum("raw(deadbeef)"), "89f8spxm");
        assert_eq!(
            checksum("pk(0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798)"),
            "gn28ywm7"
        );
    }

    #[test]
    fn a_hybrid_key_has_no_descriptor_of_its_own() {
        let script = [&[65, 6][..], &[9; 64], &[0xac]].concat();
        let kind = ScriptType::of(&script);
        assert_eq!(kind.name(), "pubkey");
        assert!(of(&script, &kind, None).starts_with("raw(4106"));
    }

    #[test]
    fn an_output_key_that_is_no_point_has_only_an_address() {
        let script = [&[0x51, 32][..], &[0xff; 32]].concat();
        let kind = ScriptType::of(&script);
        assert_eq!(kind.name(), "witness_v1_taproot");
        assert!(of(&script, &kind, Some("bcrt1p")).starts_with("addr(bcrt1p)#"));
    }
}
