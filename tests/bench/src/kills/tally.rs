//! What the kills hit.

use std::collections::BTreeMap;
use std::fmt;

/// Where a kill hit, as it is told.
pub const HITS: [&str; 10] = [
    "opening the store",
    "store opened, not at the tip yet",
    "bulk: fetching and joining",
    "end of the bulk: the index being written",
    "the newest blocks after a bulk, one by one",
    "at the tip: a block on its way",
    "at the tip: nothing on its way",
    "merge of deltas into the base",
    "reorg: the branch being fetched",
    "reorg: blocks being disconnected and connected",
];

/// Kills by what they hit.
#[derive(Clone, Debug, Default)]
pub struct Tally(BTreeMap<usize, u32>);

impl Tally {
    pub fn add(&mut self, hit: usize) {
        *self.0.entry(hit).or_default() += 1;
    }

    pub fn total(&self) -> u32 {
        self.0.values().sum()
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (hit, name) in HITS.iter().enumerate() {
            writeln!(f, "{:>6}  {name}", self.0.get(&hit).copied().unwrap_or(0))?;
        }
        Ok(())
    }
}
