//! Room and age: what leaves when memory runs out or time is up, and what newcomers must pay after that.
//!
//! Source: Bitcoin Core `txmempool.cpp` (`TrimToSize`, `GetMinFee`, `trackPackageRemoved`, `Expire`).

use std::time::Duration;

use super::graph::Slot;
use super::{Changes, Pool, Removal};
use crate::mempool::FeeRate;
use crate::time::{Instant, Now};

/// Time in which the floor falls to a half (`ROLLING_FEE_HALFLIFE`).
const HALF_LIFE: Duration = Duration::from_secs(12 * 60 * 60);
/// The floor is looked at no more often.
const STEP: Duration = Duration::from_secs(10);

/// The feerate below which nothing is taken: up with each eviction, down with time once a block came.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Floor {
    /// Satoshi per 1,000 virtual bytes.
    rate: f64,
    updated: Instant,
    /// Whether a block came since the rate last rose: before that it does not fall.
    may_fall: bool,
}

impl Floor {
    pub fn block_connected(&mut self, now: Now) {
        self.updated = now.instant;
        self.may_fall = true;
    }

    /// What was evicted paid `rate`, the margin included.
    fn raise(&mut self, rate: FeeRate) {
        if rate.0 as f64 > self.rate {
            self.rate = rate.0 as f64;
            self.may_fall = false;
        }
    }

    /// As it is now, and what newcomers must pay. With little in the pool it falls faster.
    fn at(mut self, now: Now, bytes: usize, max_bytes: usize, incremental: FeeRate) -> (Self, FeeRate) {
        if !self.may_fall || self.rate == 0.0 {
            return (self, FeeRate(self.rate.round() as u64));
        }
        let passed = now.instant.saturating_since(self.updated).as_secs();
        if passed > STEP.as_secs() {
            let faster = if bytes < max_bytes / 4 {
                4.0
            } else if bytes < max_bytes / 2 {
                2.0
            } else {
                1.0
            };
            self.rate /= (passed as f64 / (HALF_LIFE.as_secs_f64() / faster)).exp2();
            self.updated = now.instant;
            if self.rate < incremental.0 as f64 / 2.0 {
                self.rate = 0.0;
                return (self, FeeRate(0));
            }
        }
        (self, FeeRate(self.rate.round() as u64).max(incremental))
    }
}

impl Pool {
    /// What newcomers must pay for now; zero while there is room.
    pub fn min_fee(&self, now: Now) -> FeeRate {
        self.floor_at(now).1
    }

    fn floor_at(&self, now: Now) -> (Floor, FeeRate) {
        self.floor.at(now, self.bytes, self.policy.max_bytes, self.policy.incremental)
    }

    /// Evicts the worst chunks until the rest fits into memory, and raises the floor above them.
    ///
    /// Call it after each `commit`, and `expire` before it: together they are Core's `LimitMempoolSize`.
    pub fn trim(&mut self, now: Now) -> Changes {
        let mut changes = self.settle_reorg();
        self.floor = self.floor_at(now).0;
        while self.bytes > self.policy.max_bytes {
            let Some((paid, slots)) = self.worst() else { break };
            let out: Vec<(Slot, Removal)> = slots.into_iter().map(|slot| (slot, Removal::Evicted)).collect();
            self.floor.raise(FeeRate(paid.0.saturating_add(self.policy.incremental.0)));
            changes.merge(self.change(&out, Vec::new()));
        }
        changes
    }

    /// What is evicted next, and what it pays: the worst chunk, or whoever pays least with its descendants.
    fn worst(&self) -> Option<(FeeRate, Vec<Slot>)> {
        if let Some(packages) = &self.packages {
            let (slot, paid) = packages.worst()?;
            return Some((FeeRate::of(paid.fee, paid.size), self.graph.descendants(&[slot])));
        }
        let (paid, slots) = self.clusters.chunks().next_back()?;
        Some((FeeRate::of(paid.fee, paid.size.div_ceil(4)), slots.to_vec()))
    }

    /// Takes out what came too long ago, with its descendants.
    pub fn expire(&mut self, now: Now) -> Changes {
        let mut changes = self.settle_reorg();
        let until = now.unix.saturating_sub(self.policy.expiry.as_secs());
        let old: Vec<Slot> = self.ages.range(..(until, 0)).map(|(_, &slot)| slot).collect();
        changes.merge(self.remove_with_descendants(&old, Removal::Expired));
        changes
    }
}
