//! What changed from one view to the next: scripts, and transactions that came or went.

use std::collections::BTreeSet;

use bitcoin::Txid;
use chainstore::ScriptKey;

use crate::mempool::Changes;

/// What may differ between two views.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Touched {
    /// Nobody kept count: all may have changed.
    Everything,
    Only {
        /// Scripts whose history may differ.
        scripts: BTreeSet<ScriptKey>,
        /// Transactions of the blocks that were connected or disconnected, and those that came to the mempool, left it, or
        /// have an unconfirmed parent where they had none, or the other way round.
        transactions: BTreeSet<Txid>,
    },
}

impl Default for Touched {
    /// Nothing changed.
    fn default() -> Self {
        Self::Only { scripts: BTreeSet::new(), transactions: BTreeSet::new() }
    }
}

impl From<chainstore::Commit> for Touched {
    fn from(commit: chainstore::Commit) -> Self {
        if commit.everything {
            return Self::Everything;
        }
        Self::Only {
            scripts: commit.touched.into_iter().collect(),
            transactions: commit.transactions.into_iter().collect(),
        }
    }
}

impl From<&Changes> for Touched {
    /// Without what was confirmed: the commit of its block names the same.
    fn from(changes: &Changes) -> Self {
        let entries = || changes.unconfirmed();
        Self::Only {
            scripts: entries().flat_map(|entry| entry.scripts()).collect(),
            transactions: entries().map(|entry| entry.txid).collect(),
        }
    }
}

impl Touched {
    /// Adds what a later view changed, for a reader that skips the view between.
    pub fn merge(&mut self, later: &Self) {
        match (&mut *self, later) {
            (
                Self::Only { scripts, transactions },
                Self::Only { scripts: more, transactions: more_transactions },
            ) => {
                add(scripts, more);
                add(transactions, more_transactions);
            }
            (Self::Everything | Self::Only { .. }, _) => *self = Self::Everything,
        }
    }

    pub fn has_script(&self, key: &ScriptKey) -> bool {
        match self {
            Self::Everything => true,
            Self::Only { scripts, .. } => scripts.contains(key),
        }
    }

    pub fn has_transaction(&self, txid: &Txid) -> bool {
        match self {
            Self::Everything => true,
            Self::Only { transactions, .. } => transactions.contains(txid),
        }
    }
}

/// Adds some to others. A block's thousands are not put in one by one.
fn add<T: Ord + Copy>(to: &mut BTreeSet<T>, more: &BTreeSet<T>) {
    if to.is_empty() {
        to.clone_from(more);
    } else if more.len() > to.len() / 16 {
        to.append(&mut more.clone());
    } else {
        to.extend(more);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_two_views_changed_is_what_either_changed() {
        let key = |byte| ScriptKey([byte; ScriptKey::LEN]);
        let only = |bytes: &[u8]| Touched::Only {
            scripts: bytes.iter().map(|byte| key(*byte)).collect(),
            transactions: BTreeSet::new(),
        };
        let mut touched = only(&[1, 2]);
        touched.merge(&only(&[2, 3]));
        assert_eq!(touched, only(&[1, 2, 3]));
        assert!(touched.has_script(&key(3)) && !touched.has_script(&key(4)));
        touched.merge(&Touched::Everything);
        touched.merge(&Touched::default());
        assert_eq!(touched, Touched::Everything);
        assert!(touched.has_script(&key(4)));
    }
}
