//! Transactions whose scripts were run and found good, so that they are not run again in their block.
//!
//! A wtxid commits to all that scripts see: to the outputs that are spent through the ids of the transactions that
//! made them. So what was once verified by a set of rules stays so.
//! Source: Bitcoin Core `ValidationCache` (`m_script_execution_cache`), which forgets at random where this forgets
//! the oldest.

use bitcoin::Wtxid;

use super::flags::Flags;
use crate::oldest::Oldest;

/// Transactions that are remembered: about what a mempool holds, in some 12 MB.
const MAX_VERIFIED: usize = 100_000;

/// See the module.
#[derive(Clone, Debug)]
pub struct VerifiedScripts(Oldest<(Wtxid, Flags)>);

impl Default for VerifiedScripts {
    fn default() -> Self {
        Self::with_limit(MAX_VERIFIED)
    }
}

impl VerifiedScripts {
    /// One that remembers at most so many.
    pub fn with_limit(limit: usize) -> Self {
        Self(Oldest::with_limit(limit))
    }

    /// All scripts of this transaction are good by these rules.
    pub fn insert(&mut self, wtxid: Wtxid, flags: Flags) {
        self.0.insert((wtxid, flags), ());
    }

    /// Whether that is known.
    pub fn contains(&self, wtxid: Wtxid, flags: Flags) -> bool {
        self.0.contains(&(wtxid, flags))
    }
}

#[cfg(test)]
mod tests {
    use bitcoin::hashes::Hash;

    use super::*;

    #[test]
    fn the_newest_are_known_and_only_by_their_own_rules() {
        let wtxid = |n: u8| Wtxid::from_byte_array([n; 32]);
        let mut verified = VerifiedScripts::with_limit(3);
        for n in 0..5 {
            verified.insert(wtxid(n), Flags::ALL);
            verified.insert(wtxid(n), Flags::ALL);
        }
        let known: Vec<u8> = (0..5).filter(|n| verified.contains(wtxid(*n), Flags::ALL)).collect();
        assert_eq!(known, [2, 3, 4]);
        assert!(!verified.contains(wtxid(4), Flags::P2SH));
    }
}
