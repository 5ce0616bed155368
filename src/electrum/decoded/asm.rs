//! A script as text: numbers, data in hex and names of opcodes, with a space between them.
//!
//! Data of up to four bytes is a number, whatever it was meant to be, and what looks like a signature in an
//! input's script has the name of its hash type behind it. Source: Bitcoin Core, `ScriptToAsmStr`.

use std::fmt::Write as _;

use bitcoin::hex::DisplayHex;

use crate::solver::{OP_1, OP_16, OP_PUSHDATA4, OP_RESERVED, Op, Ops, Truncated};

const OP_1NEGATE: u8 = 0x4f;
const OP_RETURN: u8 = 0x6a;
/// Longer scripts fail before their first operation, so nothing in them is taken for a signature.
const MAX_SCRIPT_BYTES: usize = 10_000;
/// Most bytes of data that are a number.
const MAX_NUMBER_BYTES: usize = 4;

/// What to do with data that looks like a signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Signatures {
    /// Name the hash type in place of its byte: for scripts of inputs.
    Named,
    /// Leave it as it is: for scripts of outputs, which have no signatures.
    AsData,
}

/// The text; it ends in `[error]` where the script is cut off in a push.
pub(super) fn text(script: &[u8], signatures: Signatures) -> String {
    let runs = script.first() != Some(&OP_RETURN) && script.len() <= MAX_SCRIPT_BYTES;
    let signatures = if runs { signatures } else { Signatures::AsData };
    let mut out = String::new();
    for op in Ops::of(script) {
        if !out.is_empty() {
            out.push(' ');
        }
        match op {
            Ok(op) => write_op(&mut out, op, signatures),
            Err(Truncated) => out.push_str("[error]"),
        }
    }
    out
}

// Writing to a string cannot fail.
fn write_op(out: &mut String, Op { code, data }: Op<'_>, signatures: Signatures) {
    let _ = match code {
        ..=OP_PUSHDATA4 if data.len() <= MAX_NUMBER_BYTES => write!(out, "{}", number(data)),
        ..=OP_PUSHDATA4 => match (signatures, signature(data)) {
            (Signatures::Named, Some((der, hash_type))) => write!(out, "{}[{hash_type}]", der.as_hex()),
            _ => write!(out, "{}", data.as_hex()),
        },
        OP_1NEGATE => out.write_str("-1"),
        OP_1..=OP_16 => write!(out, "{}", code - OP_RESERVED),
        _ => out.write_str(name(code)),
    };
}

/// A number as scripts write it: little endian, the highest bit is the sign. 0 can be negative.
fn number(data: &[u8]) -> i64 {
    let mut magnitude = data.iter().rev().fold(0, |number, byte| number << 8 | i64::from(*byte));
    let Some(last) = data.last() else { return 0 };
    let sign = 0x80 << (8 * (data.len() - 1));
    if last & 0x80 == 0 {
        return magnitude;
    }
    magnitude &= !sign;
    -magnitude
}

/// The signature without its hash type, and the name of that; `None` for what is no signature.
fn signature(data: &[u8]) -> Option<(&[u8], &'static str)> {
    let (hash_type, der) = data.split_last()?;
    let name = match hash_type {
        0x01 => "ALL",
        0x02 => "NONE",
        0x03 => "SINGLE",
        0x81 => "ALL|ANYONECANPAY",
        0x82 => "NONE|ANYONECANPAY",
        0x83 => "SINGLE|ANYONECANPAY",
        _ => return None,
    };
    is_strict_der(der).then_some((der, name))
}

/// Whether bytes have the form of a signature (BIP66); the numbers may be any.
fn is_strict_der(der: &[u8]) -> bool {
    /// Two numbers of 33 bytes with what is around them.
    const MAX_BYTES: usize = 72;
    let [0x30, len, numbers @ ..] = der else { return false };
    let is_whole = der.len() <= MAX_BYTES && usize::from(*len) == numbers.len();
    is_whole && after_integer(numbers).and_then(after_integer).is_some_and(<[u8]>::is_empty)
}

/// What follows a positive number that is written as short as can be.
fn after_integer(bytes: &[u8]) -> Option<&[u8]> {
    let [0x02, len, rest @ ..] = bytes else { return None };
    let (number, rest) = rest.split_at_checked(usize::from(*len))?;
    let is_negative = *number.first()? >= 0x80;
    let is_padded = matches!(number, [0, second, ..] if *second < 0x80);
    (!is_negative && !is_padded).then_some(rest)
}

/// The name of an opcode above `OP_16`, and of `OP_RESERVED`.
fn name(code: u8) -> &'static str {
    match code {
        OP_RESERVED => "OP_RESERVED",
        FIRST_NAMED.. => NAMES.get(usize::from(code - FIRST_NAMED)).copied().unwrap_or(match code {
            0xff => "OP_INVALIDOPCODE",
            _ => "OP_UNKNOWN",
        }),
        // Pushes and small numbers are written otherwise.
        _ => "OP_UNKNOWN",
    }
}

const FIRST_NAMED: u8 = 0x61;

/// From `OP_NOP` on. Those that BIP65 and BIP112 gave a meaning have their new names.
#[rustfmt::skip]
static NAMES: [&str; 0xba - 0x60] = [
    "OP_NOP", "OP_VER", "OP_IF", "OP_NOTIF", "OP_VERIF", "OP_VERNOTIF", "OP_ELSE", "OP_ENDIF", "OP_VERIFY",
    "OP_RETURN",
    "OP_TOALTSTACK", "OP_FROMALTSTACK", "OP_2DROP", "OP_2DUP", "OP_3DUP", "OP_2OVER", "OP_2ROT", "OP_2SWAP",
    "OP_IFDUP", "OP_DEPTH", "OP_DROP", "OP_DUP", "OP_NIP", "OP_OVER", "OP_PICK", "OP_ROLL", "OP_ROT", "OP_SWAP",
    "OP_TUCK",
    "OP_CAT", "OP_SUBSTR", "OP_LEFT", "OP_RIGHT", "OP_SIZE",
    "OP_INVERT", "OP_AND", "OP_OR", "OP_XOR", "OP_EQUAL", "OP_EQUALVERIFY", "OP_RESERVED1", "OP_RESERVED2",
    "OP_1ADD", "OP_1SUB", "OP_2MUL", "OP_2DIV", "OP_NEGATE", "OP_ABS", "OP_NOT", "OP_0NOTEQUAL",
    "OP_ADD", "OP_SUB", "OP_MUL", "OP_DIV", "OP_MOD", "OP_LSHIFT", "OP_RSHIFT",
    "OP_BOOLAND", "OP_BOOLOR", "OP_NUMEQUAL", "OP_NUMEQUALVERIFY", "OP_NUMNOTEQUAL", "OP_LESSTHAN",
    "OP_GREATERTHAN", "OP_LESSTHANOREQUAL", "OP_GREATERTHANOREQUAL", "OP_MIN", "OP_MAX", "OP_WITHIN",
    "OP_RIPEMD160", "OP_SHA1", "OP_SHA256", "OP_HASH160", "OP_HASH256", "OP_CODESEPARATOR",
    "OP_CHECKSIG", "OP_CHECKSIGVERIFY", "OP_CHECKMULTISIG", "OP_CHECKMULTISIGVERIFY",
    "OP_NOP1", "OP_CHECKLOCKTIMEVERIFY", "OP_CHECKSEQUENCEVERIFY", "OP_NOP4", "OP_NOP5", "OP_NOP6", "OP_NOP7",
    "OP_NOP8", "OP_NOP9", "OP_NOP10",
    "OP_CHECKSIGADD",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_of_up_to_four_bytes_is_a_number() {
        for (data, expected) in [
            (&[][..], 0),
            (&[0], 0),
            (&[0x80], 0),
            (&[0x81], -1),
            (&[0xff], -127),
            (&[0xff, 0], 255),
            (&[0, 0x80], 0),
            (&[0xff, 0xff, 0xff, 0x7f], 0x7fff_ffff),
            (&[0xff, 0xff, 0xff, 0xff], -0x7fff_ffff),
        ] {
            assert_eq!(number(data), expected, "{data:x?}");
        }
        assert_eq!(text(&[1, 0x81, 0x4c, 1, 5, 0x55], Signatures::Named), "-1 5 5");
        assert_eq!(text(&[5, 1, 0, 0, 0, 0], Signatures::Named), "0100000000");
    }

    #[test]
    fn a_cut_off_push_ends_the_text() {
        assert_eq!(text(&[], Signatures::AsData), "");
        assert_eq!(text(&[0x4c], Signatures::AsData), "[error]");
        assert_eq!(
            text(&[0x76, 0xba, 0xbb, 0xff, 0x50, 2, 1], Signatures::AsData),
            "OP_DUP OP_CHECKSIGADD OP_UNKNOWN OP_INVALIDOPCODE OP_RESERVED [error]"
        );
    }

    /// The shortest signature: R and S are 1.
    const DER: [u8; 8] = [0x30, 6, 2, 1, 1, 2, 1, 1];

    #[test]
    fn only_what_has_the_form_of_a_signature_shows_a_hash_type() {
        let signed = |hash_type: u8| [&[9][..], &DER, &[hash_type]].concat();
        assert_eq!(text(&signed(0x83), Signatures::Named), "3006020101020101[SINGLE|ANYONECANPAY]");
        assert_eq!(text(&signed(0x83), Signatures::AsData), "300602010102010183");
        for no_type in [0, 4, 0x80, 0x84, 0xff] {
            assert_eq!(text(&signed(no_type), Signatures::Named), format!("3006020101020101{no_type:02x}"));
        }
        let returned = [&[OP_RETURN][..], &signed(1)].concat();
        assert_eq!(text(&returned, Signatures::Named), "OP_RETURN 300602010102010101");
        for (place, value) in
            [(0, 0x31), (1, 5), (2, 3), (3, 0), (3, 2), (4, 0x80), (5, 0), (6, 2), (7, 0xff)]
        {
            let mut other = DER;
            other[place] = value;
            assert!(!is_strict_der(&other), "{other:x?}");
        }
        assert!(is_strict_der(&DER));
        assert!(!is_strict_der(&[0x30, 7, 2, 2, 0, 1, 2, 1, 1]), "a zero too many");
        assert!(is_strict_der(&[0x30, 7, 2, 2, 0, 0x80, 2, 1, 0]), "a zero that keeps it positive, and zero");
    }
}
