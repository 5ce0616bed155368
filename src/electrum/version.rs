//! The protocol versions that are spoken here, and which of them a session speaks.
//!
//! Source: electrum-protocol, "Version Negotiation". There is no 1.5: the number was skipped.

use std::cmp::Ordering;
use std::fmt;

/// A version of the Electrum protocol that this server speaks, oldest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ProtocolVersion {
    V1_0,
    V1_1,
    V1_2,
    V1_3,
    V1_4,
    V1_4_1,
    V1_4_2,
    V1_4_3,
    V1_6,
    V1_7,
}

impl ProtocolVersion {
    /// All, oldest first.
    pub const ALL: [Self; 10] = [
        Self::V1_0,
        Self::V1_1,
        Self::V1_2,
        Self::V1_3,
        Self::V1_4,
        Self::V1_4_1,
        Self::V1_4_2,
        Self::V1_4_3,
        Self::V1_6,
        Self::V1_7,
    ];
    pub const MIN: Self = Self::V1_0;
    pub const MAX: Self = Self::V1_7;
    /// What is spoken with a wallet that has not said what it speaks: the oldest that is still in use.
    pub const UNSAID: Self = Self::V1_4;

    fn parts(self) -> &'static [u32] {
        match self {
            Self::V1_0 => &[1, 0],
            Self::V1_1 => &[1, 1],
            Self::V1_2 => &[1, 2],
            Self::V1_3 => &[1, 3],
            Self::V1_4 => &[1, 4],
            Self::V1_4_1 => &[1, 4, 1],
            Self::V1_4_2 => &[1, 4, 2],
            Self::V1_4_3 => &[1, 4, 3],
            Self::V1_6 => &[1, 6],
            Self::V1_7 => &[1, 7],
        }
    }

    fn number(self) -> Number {
        let mut number = [0; 4];
        number.iter_mut().zip(self.parts()).for_each(|(part, given)| *part = *given);
        Number(number)
    }

    /// The newest version in the wallet's range, which is given in words such as "1.4" and "1.6".
    ///
    /// `None` when there is none, or when the words are no version numbers.
    pub fn negotiate(min: &str, max: &str) -> Option<Self> {
        let (min, max) = (Number::parse(min)?, Number::parse(max)?);
        let in_range = |version: &Self| min <= version.number() && version.number() <= max;
        Self::ALL.into_iter().rev().find(in_range)
    }
}

impl fmt::Display for ProtocolVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts: Vec<String> = self.parts().iter().map(u32::to_string).collect();
        f.write_str(&parts.join("."))
    }
}

/// A version number of up to four parts; missing ones are 0, so "1.4" is "1.4.0".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Number([u32; 4]);

impl Number {
    fn parse(text: &str) -> Option<Self> {
        let mut parts = [0; 4];
        for (index, word) in text.split('.').enumerate() {
            let digits_only = !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit());
            if !digits_only {
                return None;
            }
            *parts.get_mut(index)? = word.parse().ok()?;
        }
        Some(Self(parts))
    }
}

impl PartialOrd for Number {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.0.cmp(&other.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_version_inside_both_ranges_is_spoken() {
        use ProtocolVersion::{V1_0, V1_1, V1_2, V1_3, V1_4, V1_4_1, V1_4_2, V1_4_3, V1_6, V1_7};
        let cases = [
            // Electrum 4.8, Sparrow, BlueWallet, BDK.
            (("1.4", "1.6"), Some(V1_6)),
            (("1.3", "1.4.2"), Some(V1_4_2)),
            (("1.4", "1.4"), Some(V1_4)),
            (("1.4.0", "1.4.0"), Some(V1_4)),
            (("1.4", "1.5"), Some(V1_4_3)),
            (("1.4.1", "1.4.1"), Some(V1_4_1)),
            (("0", "99"), Some(V1_7)),
            (("1.6", "1.7"), Some(V1_7)),
            (("1.6", "1.6.9"), Some(V1_6)),
            (("1.4.4", "1.5.9"), None),
            (("1.5", "1.5"), None),
            (("1.0", "1.3"), Some(V1_3)),
            (("1.0", "1.0"), Some(V1_0)),
            (("0.9", "1.1"), Some(V1_1)),
            (("1.1", "1.2.5"), Some(V1_2)),
            (("1.7", "2.0"), Some(V1_7)),
            (("1.8", "2.0"), None),
            (("0.10", "0.10"), None),
            (("1.6", "1.4"), None),
            (("", "1.6"), None),
            (("1.4", "1.6."), None),
            (("1.4", "+1.6"), None),
            (("1.4", "1.99999999999"), None),
            (("1.4", "1.6.0.0.0"), None),
            (("one", "two"), None),
        ];
        for ((min, max), expected) in cases {
            assert_eq!(ProtocolVersion::negotiate(min, max), expected, "{min} to {max}");
        }
    }

    #[test]
    fn every_version_negotiates_itself() {
        for version in ProtocolVersion::ALL {
            let name = version.to_string();
            assert_eq!(ProtocolVersion::negotiate(&name, &name), Some(version));
        }
    }
}
