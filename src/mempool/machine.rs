//! The mempool as one machine: what was taken, by which rules, and what of it others should be told.
//!
//! In: transactions (`admission`, `package`, `submit`), blocks that come and go (`reorg`), the time. Out: answers, and
//! what changed. It belongs to one thread; others read a [`MempoolView`].

use std::sync::Arc;

use bitcoin::{Txid, Wtxid};

use crate::time::Now;

use super::entry::Entry;
use super::policy::{FeeRate, Policy};
use super::pool::{Changes, Plan, Pool, Removal};
use super::reject::{Reject, RejectKind};
use super::reorg::Disconnected;
use super::verified::ScriptResults;
use super::view::MempoolView;

/// See the module.
#[derive(Debug)]
pub struct Mempool {
    pub(super) policy: Policy,
    pub(super) pool: Pool,
    pub(super) scripts: ScriptResults,
    pub(super) changes: Changes,
    pub(super) disconnected: Disconnected,
}

impl Mempool {
    /// An empty one.
    pub fn new(policy: Policy) -> Self {
        let pool = Pool::new(&policy);
        Self {
            policy,
            pool,
            scripts: ScriptResults::default(),
            changes: Changes::default(),
            disconnected: Disconnected::default(),
        }
    }

    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    pub fn get(&self, txid: &Txid) -> Option<&Arc<Entry>> {
        self.pool.get(txid)
    }

    pub fn by_wtxid(&self, wtxid: &Wtxid) -> Option<&Arc<Entry>> {
        self.pool.by_wtxid(wtxid)
    }

    /// All entries with their fees, and what hangs together among them.
    pub fn pool(&self) -> &Pool {
        &self.pool
    }

    /// What newcomers must pay: more than relay costs where the mempool is full.
    pub fn min_fee(&self, now: Now) -> FeeRate {
        self.pool.min_fee(now).max(self.policy.min_relay)
    }

    /// This state, for wallets.
    pub fn view(&self, now: Now) -> MempoolView {
        self.pool.view(now)
    }

    /// What changed since this was asked last.
    pub fn take_changes(&mut self) -> Changes {
        std::mem::take(&mut self.changes)
    }

    /// Everything leaves; what is known of scripts stays.
    pub fn clear(&mut self) {
        let txids: Vec<Txid> = self.pool.entries().map(|entry| entry.txid).collect();
        let removed = self.pool.remove(&txids, Removal::Reorg);
        self.changes.merge(removed);
    }

    /// Drops what waited too long, and the worst where memory runs out. Call it now and then.
    pub fn trim(&mut self, now: Now) {
        let expired = self.pool.expire(now);
        self.changes.merge(expired);
        let evicted = self.pool.trim(now);
        self.changes.merge(evicted);
    }

    /// Whether [`Self::sweep`] has something to do.
    pub fn has_leftovers(&self) -> bool {
        self.pool.has_leftovers()
    }

    /// Frees some of what left with a block, when there is time.
    pub fn sweep(&mut self, count: usize) {
        self.pool.sweep(count);
    }

    /// Takes in what was planned, without making room.
    pub(super) fn commit(&mut self, plan: Plan) {
        let changes = self.pool.commit(plan);
        self.changes.merge(changes);
    }

    /// Takes in the one transaction that was planned, and makes room; it may be the first to go again.
    pub(super) fn take(&mut self, plan: Plan, now: Now) -> Result<Arc<Entry>, Reject> {
        let entry = plan.entries().first().map(Arc::clone);
        self.commit(plan);
        self.trim(now);
        let entry = entry.filter(|entry| self.pool.get(&entry.txid).is_some());
        entry.ok_or_else(|| Reject::new(RejectKind::Reconsiderable, "mempool full"))
    }
}
