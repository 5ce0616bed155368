//! What became of scripts that were run: a transaction is looked at again afterwards, and its scripts are not run twice.
//!
//! A wtxid commits to the witness and, by the outpoints, to the coins: so what was found for it stays true, whatever
//! happens to the chain. Bounded; what is forgotten is run again.

use std::collections::{BTreeMap, VecDeque};

use bitcoin::Wtxid;

use super::reject::Reject;

/// Transactions that are remembered: those of a full mempool, in some 10 MB.
const MAX_GOOD: usize = 100_000;
/// Those that failed, until whoever waits for the answer has it.
const MAX_BAD: usize = 1_000;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct ScriptResults {
    good: Oldest<()>,
    bad: Oldest<Reject>,
}

impl ScriptResults {
    pub(super) fn insert(&mut self, wtxid: Wtxid, result: Result<(), Reject>) {
        match result {
            Ok(()) => self.good.insert(wtxid, (), MAX_GOOD),
            Err(reject) => self.bad.insert(wtxid, reject, MAX_BAD),
        }
    }

    /// `None` where they were not run.
    pub(super) fn get(&self, wtxid: &Wtxid) -> Option<Result<(), &Reject>> {
        let bad = self.bad.known.get(wtxid).map(Err);
        bad.or_else(|| self.good.known.get(wtxid).map(|()| Ok(())))
    }
}

/// A map that forgets what it was told first.
#[derive(Debug)]
struct Oldest<T> {
    known: BTreeMap<Wtxid, T>,
    order: VecDeque<Wtxid>,
}

impl<T> Default for Oldest<T> {
    fn default() -> Self {
        Self { known: BTreeMap::new(), order: VecDeque::new() }
    }
}

impl<T> Oldest<T> {
    fn insert(&mut self, wtxid: Wtxid, value: T, limit: usize) {
        if self.known.insert(wtxid, value).is_some() {
            return;
        }
        self.order.push_back(wtxid);
        if self.order.len() > limit
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
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
        assert_eq!(results.bad.known.len(), MAX_BAD);
    }

    #[test]
    fn who_is_told_twice_is_kept_once() {
        let mut oldest = Oldest::default();
        for number in [1, 2, 1, 1, 3] {
            oldest.insert(wtxid(number), number, 2);
        }
        assert_eq!(oldest.order.len(), 2);
        assert!(!oldest.known.contains_key(&wtxid(1)) && oldest.known.contains_key(&wtxid(2)));
    }
}
