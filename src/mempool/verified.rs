//! What became of scripts that were run: a transaction is looked at again afterwards, and its scripts are not run twice.
//!
//! A wtxid commits to the witness and, by the outpoints, to the coins: so what was found for it stays true, whatever
//! happens to the chain. Bounded; what is forgotten is run again.

use bitcoin::Wtxid;

use super::reject::Reject;
use crate::oldest::Oldest;

/// Transactions that are remembered: those of a full mempool, in some 10 MB.
const MAX_GOOD: usize = 100_000;
/// Those that failed, until whoever waits for the answer has it.
const MAX_BAD: usize = 1_000;

/// See the module.
#[derive(Debug)]
pub(super) struct ScriptResults {
    good: Oldest<Wtxid>,
    bad: Oldest<Wtxid, Reject>,
}

impl Default for ScriptResults {
    fn default() -> Self {
        Self { good: Oldest::with_limit(MAX_GOOD), bad: Oldest::with_limit(MAX_BAD) }
    }
}

impl ScriptResults {
    pub(super) fn insert(&mut self, wtxid: Wtxid, result: Result<(), Reject>) {
        match result {
            Ok(()) => self.good.insert(wtxid, ()),
            Err(reject) => self.bad.insert(wtxid, reject),
        }
    }

    /// `None` where they were not run.
    pub(super) fn get(&self, wtxid: &Wtxid) -> Option<Result<(), &Reject>> {
        let bad = self.bad.get(wtxid).map(Err);
        bad.or_else(|| self.good.get(wtxid).map(|()| Ok(())))
    }
}

#[cfg(test)]
mod tests {
    use bitcoin::hashes::Hash;

    use super::super::reject::RejectKind;
    use super::*;

    fn wtxid(number: usize) -> Wtxid {
        Wtxid::hash(&number.to_le_bytes())
    }

    #[test]
    fn the_oldest_are_forgotten() {
        let mut results = ScriptResults::default();
        let bad = Reject::new(RejectKind::Consensus, "mempool-script-verify-flag-failed");
        for number in 0..MAX_BAD + 1 {
            results.insert(wtxid(number), Err(bad.clone()));
        }
        results.insert(wtxid(MAX_BAD + 1), Ok(()));

        assert_eq!(results.get(&wtxid(0)), None);
        assert_eq!(results.get(&wtxid(1)), Some(Err(&bad)));
        assert_eq!(results.get(&wtxid(MAX_BAD + 1)), Some(Ok(())));
    }
}
