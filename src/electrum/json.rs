//! Writes JSON text.
//!
//! Knows how this server writes values: amounts in BTC with eight decimals and never an exponent, hashes as
//! people see them, keys in the order given. Never reads JSON: `jsonrpc` and `params` do.

use std::fmt::{self, Display, Write as _};

use bitcoin::Amount;
use bitcoin::hashes::{Hash as _, sha256d};

/// One whole JSON value, written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Json(String);

impl Json {
    pub(super) fn null() -> Self {
        Self("null".to_owned())
    }

    pub(super) fn bool(value: bool) -> Self {
        Self(value.to_string())
    }

    pub(super) fn integer(value: impl Into<i128>) -> Self {
        Self(value.into().to_string())
    }

    /// An amount in BTC, as Bitcoin Core writes it.
    pub(super) fn btc(amount: Amount) -> Self {
        let sat = amount.to_sat();
        Self(format!("{}.{:08}", sat / 100_000_000, sat % 100_000_000))
    }

    pub(super) fn text(value: &str) -> Self {
        let mut out = String::with_capacity(value.len() + 2);
        write_text(&mut out, value);
        Self(out)
    }

    /// Bytes in the order given.
    pub(super) fn hex(bytes: &[u8]) -> Self {
        // By way of `Display` this was a third of what a transaction's answer took.
        let mut out = vec![b'"'; 2 * bytes.len() + 2];
        for (digits, byte) in out[1..].chunks_exact_mut(2).zip(bytes) {
            digits.copy_from_slice(&[hex_digit(byte >> 4), hex_digit(byte & 15)]);
        }
        Self(String::from_utf8(out).expect("digits are ASCII"))
    }

    /// Hashes as people see them, which is backwards.
    pub(super) fn hashes(hashes: &[sha256d::Hash]) -> Self {
        let mut out = Vec::with_capacity(hashes.len() * 67 + 2);
        out.push(b'[');
        for (index, hash) in hashes.iter().enumerate() {
            out.extend_from_slice(if index > 0 { b",\"" } else { b"\"" });
            let digits = |byte: &u8| [hex_digit(byte >> 4), hex_digit(byte & 15)];
            out.extend(hash.as_byte_array().iter().rev().flat_map(digits));
            out.push(b'"');
        }
        out.push(b']');
        Self(String::from_utf8(out).expect("digits are ASCII"))
    }

    /// A hash as people see it, which is backwards: txids, block hashes.
    pub(super) fn hash(hash: impl AsRef<[u8; 32]>) -> Self {
        Self::backwards(*hash.as_ref())
    }

    /// Hex of bytes whose last is shown first.
    pub(super) fn backwards(mut bytes: [u8; 32]) -> Self {
        bytes.reverse();
        Self::hex(&bytes)
    }

    pub(super) fn list(items: impl IntoIterator<Item = Self>) -> Self {
        let mut out = String::from("[");
        for (index, item) in items.into_iter().enumerate() {
            out.reserve(item.0.len() + 2);
            if index > 0 {
                out.push(',');
            }
            out.push_str(&item.0);
        }
        out.push(']');
        Self(out)
    }

    /// A list whose items are written in place: for histories of many thousand entries.
    pub(super) fn list_of<T>(items: &[T], mut write: impl FnMut(&mut String, &T)) -> Self {
        let mut out = String::from("[");
        for (index, item) in items.iter().enumerate() {
            if index > 0 {
                out.push(',');
            }
            write(&mut out, item);
        }
        out.push(']');
        Self(out)
    }

    /// One list after the other; both must be lists.
    pub(super) fn and(mut self, more: Self) -> Self {
        if more.0 == "[]" {
            return self;
        }
        if self.0 == "[]" {
            return more;
        }
        self.0.pop();
        self.0.push(',');
        self.0.push_str(&more.0[1..]);
        self
    }

    pub(super) fn object<'a>(fields: impl IntoIterator<Item = (&'a str, Self)>) -> Self {
        // Most have a hash or two and some numbers.
        let mut out = String::with_capacity(256);
        out.push('{');
        for (index, (key, value)) in fields.into_iter().enumerate() {
            out.reserve(key.len() + value.0.len() + 5);
            if index > 0 {
                out.push(',');
            }
            write_text(&mut out, key);
            out.push(':');
            out.push_str(&value.0);
        }
        out.push('}');
        Self(out)
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

fn hex_digit(value: u8) -> u8 {
    b"0123456789abcdef"[usize::from(value & 15)]
}

/// Appends `value` in quotes, escaped (RFC 8259, section 7).
pub(super) fn write_text(out: &mut String, value: &str) {
    out.push('"');
    // Nearly all that is ever said.
    if value.bytes().all(|byte| byte >= b' ' && byte != b'"' && byte != b'\\') {
        out.push_str(value);
        out.push('"');
        return;
    }
    for character in value.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            control if control < ' ' => {
                // Writing to a string cannot fail.
                let _ = write!(out, "\\u{:04x}", u32::from(control));
            }
            other => out.push(other),
        }
    }
    out.push('"');
}

impl Display for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pitfall_9_amounts_never_show_an_exponent() {
        let written = |sat| Json::btc(Amount::from_sat(sat)).to_string();
        assert_eq!(written(0), "0.00000000");
        assert_eq!(written(1), "0.00000001");
        assert_eq!(written(100), "0.00000100");
        assert_eq!(written(123_456_789), "1.23456789");
        assert_eq!(written(Amount::MAX_MONEY.to_sat()), "21000000.00000000");
    }

    #[test]
    fn any_text_is_read_back_as_it_was() {
        let all: String =
            (0..=0x200).chain([0x2028, 0xd7ff, 0xe000, 0x1f600]).filter_map(char::from_u32).collect();
        let written = Json::text(&all);
        assert_eq!(serde_json::from_str::<String>(written.as_str()).unwrap(), all);
        assert!(!written.as_str().contains('\n'), "a newline would end the message");
    }

    #[test]
    fn objects_keep_the_order_of_their_keys() {
        let object =
            Json::object([("z", Json::integer(-1)), ("a", Json::list([Json::null(), Json::bool(true)]))]);
        assert_eq!(object.as_str(), r#"{"z":-1,"a":[null,true]}"#);
    }
}
