//! Which rules of scripts hold: each soft fork is a bit.
//!
//! Which of them hold in a block is `validate`'s knowledge (`Params::script_flags`).
//! Source: Bitcoin Core `script/interpreter.h`; the bits are those of its kernel's C interface.

use std::ops::BitOr;

/// A set of consensus rules for scripts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Flags(u32);

impl Flags {
    /// Those of the first blocks.
    pub const NONE: Self = Self(0);
    /// BIP16.
    pub const P2SH: Self = Self(1);
    /// BIP66: signatures are strict DER.
    pub const DERSIG: Self = Self(1 << 2);
    /// BIP147: the item that CHECKMULTISIG takes too many is empty.
    pub const NULLDUMMY: Self = Self(1 << 4);
    /// BIP65.
    pub const CHECKLOCKTIMEVERIFY: Self = Self(1 << 9);
    /// BIP112.
    pub const CHECKSEQUENCEVERIFY: Self = Self(1 << 10);
    /// BIP141 and BIP143. Never without [`Flags::P2SH`].
    pub const WITNESS: Self = Self(1 << 11);
    /// BIP341 and BIP342.
    pub const TAPROOT: Self = Self(1 << 17);
    /// All of them, as of every new block and of what waits for one.
    pub const ALL: Self = Self(
        Self::P2SH.0
            | Self::DERSIG.0
            | Self::NULLDUMMY.0
            | Self::CHECKLOCKTIMEVERIFY.0
            | Self::CHECKSEQUENCEVERIFY.0
            | Self::WITNESS.0
            | Self::TAPROOT.0,
    );

    /// Whether all of `other` hold.
    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// As the kernel takes them.
    #[cfg(feature = "kernel")]
    pub(super) fn bits(self) -> u32 {
        self.0
    }
}

impl BitOr for Flags {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}
