//! How signatures and keys are written in scripts before taproot: what a block may hold, and what is relayed.
//!
//! Source: Bitcoin Core `script/interpreter.cpp` (`CheckSignatureEncoding`, `CheckPubKeyEncoding`,
//! `CheckMinimalPush`); BIP66, BIP62, BIP143.

use bitcoin::secp256k1::ecdsa;

use super::error::Reason;

/// Bytes of the shortest and of the longest signature with its hash type.
const SIGNATURE_BYTES: std::ops::RangeInclusive<usize> = 9..=73;
const ANYONE_CAN_PAY: u8 = 0x80;

/// A signature with its hash type. An empty one is no signature, and is written well.
pub(super) fn check_signature(signature: &[u8], strict_der: bool, standard: bool) -> Result<(), Reason> {
    let Some((hash_type, der)) = signature.split_last() else { return Ok(()) };
    if (strict_der || standard) && !is_strict_der(signature) {
        return Err(Reason::SigDer);
    }
    if standard && has_high_s(der) {
        return Err(Reason::SigHighS);
    }
    if standard && !matches!(hash_type & !ANYONE_CAN_PAY, 1..=3) {
        return Err(Reason::SigHashType);
    }
    Ok(())
}

/// A key, as it is relayed.
pub(super) fn check_pubkey(key: &[u8], in_witness: bool) -> Result<(), Reason> {
    match (key.first(), key.len()) {
        (Some(2 | 3), 33) => Ok(()),
        (Some(4), 65) if in_witness => Err(Reason::WitnessPubkeyType),
        (Some(4), 65) => Ok(()),
        (_, _) => Err(Reason::PubkeyType),
    }
}

/// BIP66: `30 length 02 length R 02 length S type`, both numbers positive and as short as they can be.
fn is_strict_der(signature: &[u8]) -> bool {
    let inner = || {
        let (_hash_type, der) = signature.split_last()?;
        let (&[0x30, length], numbers) = der.split_first_chunk()? else { return None };
        if usize::from(length) != numbers.len() {
            return None;
        }
        let rest = take_number(numbers)?;
        take_number(rest)?.is_empty().then_some(())
    };
    SIGNATURE_BYTES.contains(&signature.len()) && inner().is_some()
}

/// What is behind the number at the start.
fn take_number(bytes: &[u8]) -> Option<&[u8]> {
    let (&[0x02, length], rest) = bytes.split_first_chunk()? else { return None };
    let (number, rest) = rest.split_at_checked(usize::from(length))?;
    let is_negative = number.first()? & 0x80 != 0;
    let is_padded = matches!(number, [0, next, ..] if next & 0x80 == 0);
    (!is_negative && !is_padded).then_some(rest)
}

/// Whether S is in the upper half of the curve's order. A number that is not below the order is read as 0, as
/// libsecp256k1 does.
fn has_high_s(der: &[u8]) -> bool {
    let Ok(signature) = ecdsa::Signature::from_der_lax(der) else { return true };
    let mut low = signature;
    low.normalize_s();
    low != signature
}

/// Whether `data` is pushed by the shortest of the opcodes that can.
pub(super) fn is_minimal_push(opcode: u8, data: &[u8]) -> bool {
    let shortest = match (data, data.len()) {
        ([], _) => 0,
        // A single opcode pushes these, and it is none of those that push bytes.
        ([1..=16 | 0x81], _) => return false,
        (_, 1..=75) => data.len() as u8,
        (_, 76..=255) => 0x4c,
        (_, 256..=0xffff) => 0x4d,
        (_, _) => 0x4e,
    };
    opcode == shortest
}

#[cfg(test)]
mod tests {
    use bitcoin::hex::FromHex;

    use super::*;

    const GOOD: &str = "3044022057292e2d4dfe775becdd0a9e6547997c728cdf35390f6a017da56d654d374e49\
                        02206b643be2fc53763b4e284845bfea2c597d2dc7759941dce937636c9d341b71ed01";

    fn good() -> Vec<u8> {
        Vec::from_hex(GOOD).unwrap()
    }

    #[test]
    fn strict_der_is_left_by_any_byte_of_its_frame() {
        assert!(is_strict_der(&good()));
        for (at, value) in [
            (0, 0x31),
            (1, 0x45),
            (1, 0x43),
            (2, 3),
            (3, 0x21),
            (3, 0xff),
            (4, 0xd7),
            (36, 1),
            (37, 0),
            (38, 0xeb),
        ] {
            let mut bad = good();
            bad[at] = value;
            assert!(!is_strict_der(&bad), "byte {at}");
        }
        for cut in 0..good().len() {
            assert!(!is_strict_der(&good()[..cut]), "{cut} bytes");
        }
        // A zero before a byte that needs none, and an empty number.
        assert!(!is_strict_der(&[0x30, 7, 2, 2, 0, 1, 2, 1, 1, 1]));
        assert!(is_strict_der(&[0x30, 7, 2, 2, 0, 0x81, 2, 1, 1, 1]));
        assert!(!is_strict_der(&[0x30, 5, 2, 0, 2, 1, 1, 1, 1]));
        assert!(is_strict_der(&[0x30, 6, 2, 1, 0, 2, 1, 0, 1]), "zero is a number");
    }

    #[test]
    fn what_is_relayed_has_low_s_and_a_known_hash_type() {
        assert_eq!(check_signature(&good(), true, true), Ok(()));
        assert_eq!(check_signature(&[], true, true), Ok(()));
        for (hash_type, known) in [(0, false), (1, true), (3, true), (4, false), (0x80, false), (0x83, true)]
        {
            let mut signature = good();
            *signature.last_mut().unwrap() = hash_type;
            let expected = if known { Ok(()) } else { Err(Reason::SigHashType) };
            assert_eq!(check_signature(&signature, true, true), expected, "{hash_type:#x}");
            assert_eq!(check_signature(&signature, true, false), Ok(()));
        }
        assert_eq!(check_signature(&[1, 2, 3], false, false), Ok(()));
        assert_eq!(check_signature(&[1, 2, 3], true, false), Err(Reason::SigDer));
        // Half of the order is low, one more is high; the order itself is read as 0.
        let half = "7fffffffffffffffffffffffffffffff5d576e7357a4501ddfe92f46681b20a0";
        let more = "7fffffffffffffffffffffffffffffff5d576e7357a4501ddfe92f46681b20a1";
        let order = "00fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141";
        for (s, high) in [(half, false), (more, true), (order, false)] {
            let s = Vec::from_hex(s).unwrap();
            let mut der = vec![0x30, (s.len() + 5) as u8, 2, 1, 1, 2, s.len() as u8];
            der.extend(s);
            assert_eq!(has_high_s(&der), high);
        }
    }

    #[test]
    fn keys_are_of_two_kinds_and_of_one_in_a_witness() {
        let key = |first: u8, len: usize| [vec![first], vec![7; len - 1]].concat();
        assert_eq!(check_pubkey(&key(2, 33), true), Ok(()));
        assert_eq!(check_pubkey(&key(3, 33), false), Ok(()));
        assert_eq!(check_pubkey(&key(4, 65), false), Ok(()));
        assert_eq!(check_pubkey(&key(4, 65), true), Err(Reason::WitnessPubkeyType));
        for bad in [key(6, 65), key(2, 65), key(4, 33), key(2, 32), Vec::new()] {
            assert_eq!(check_pubkey(&bad, true), Err(Reason::PubkeyType));
        }
    }

    #[test]
    fn the_shortest_push_of_each_length() {
        assert!(is_minimal_push(0, &[]) && !is_minimal_push(0x4c, &[]));
        assert!(!is_minimal_push(1, &[16]) && is_minimal_push(1, &[17]) && !is_minimal_push(1, &[0x81]));
        assert!(is_minimal_push(1, &[0]), "a byte of zero is not the empty push");
        assert!(is_minimal_push(75, &[7; 75]) && !is_minimal_push(0x4c, &[7; 75]));
        assert!(is_minimal_push(0x4c, &[7; 76]) && is_minimal_push(0x4d, &[7; 256]));
        assert!(!is_minimal_push(0x4d, &[7; 255]) && is_minimal_push(0x4e, &[7; 65_536]));
    }
}
