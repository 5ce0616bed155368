//! The chain moved: what a block confirms or contradicts leaves, what a disconnected block held comes back.
//!
//! Source: Bitcoin Core `txmempool.cpp` (`removeForBlock`, `UpdateTransactionsFromBlock`, `removeRecursive`),
//! `txgraph.cpp` (`Trim`), `validation.cpp` (`MaybeUpdateMempoolForReorg`).

use std::sync::Arc;

use bitcoin::{OutPoint, Txid};

use super::graph::{Found, Slot};
use super::stage::Stage;
use super::{Changes, Pool, Removal, oversized, plan, replace};
use crate::mempool::{ChainLimits, Entry, Reject, ReplacementRule};
use crate::time::Now;

impl Pool {
    /// A block was connected: its transactions leave, and with their descendants those that spend the same.
    pub fn connect_block<I: IntoIterator<Item = OutPoint>>(
        &mut self,
        now: Now,
        txs: impl IntoIterator<Item = (Txid, I)>,
    ) -> Changes {
        let changes = self.begin_block(now, txs);
        self.finish_block();
        changes
    }

    /// The same for views alone. The rest is done by [`Self::finish_block`], before anything but views is asked for: of a
    /// large mempool it takes longer than wallets should wait.
    pub fn begin_block<I: IntoIterator<Item = OutPoint>>(
        &mut self,
        now: Now,
        txs: impl IntoIterator<Item = (Txid, I)>,
    ) -> Changes {
        self.finish_block();
        let mut changes = self.settle_reorg();
        self.generation += 1;
        let mut found = Found::default();
        let mut out: Vec<(Slot, Removal)> = Vec::new();
        for (txid, outpoints) in txs {
            let confirmed = self.graph.by_txid(&txid);
            if let Some(slot) = confirmed.filter(|&slot| found.insert(slot)) {
                out.push((slot, Removal::Confirmed));
            }
            for outpoint in outpoints {
                let spender = self.graph.spender(&outpoint).filter(|&slot| Some(slot) != confirmed);
                let Some(spender) = spender.filter(|&slot| !found.contains(slot)) else { continue };
                for slot in self.graph.descendants(&[spender]) {
                    if found.insert(slot) {
                        out.push((slot, Removal::Conflict));
                    }
                }
            }
        }
        self.floor.block_connected(now);
        let mut flipped = Found::default();
        for &(slot, why) in &out {
            let node = self.graph.node(slot);
            changes.removed.push((Arc::clone(&node.entry), why));
            for &child in node.children.iter().filter(|&&child| !found.contains(child)) {
                let child_node = self.graph.node(child);
                if child_node.parents.iter().all(|&parent| found.contains(parent)) && flipped.insert(child) {
                    changes.flipped.push(Arc::clone(&child_node.entry));
                }
            }
        }
        let removed = changes.removed.len() - out.len();
        for (entry, _) in &changes.removed[removed..] {
            self.discount(entry);
        }
        self.maps.hide(changes.removed[removed..].iter().map(|(entry, _)| entry));
        self.leaving = out;
        changes
    }

    /// Takes out what left with the block that was begun.
    pub fn finish_block(&mut self) {
        let leaving = std::mem::take(&mut self.leaving);
        // What changed was said when the block came.
        let _ = self.change(&leaving, Vec::new());
    }

    /// Takes out entries and all that descends from them.
    pub fn remove<'a>(&mut self, txids: impl IntoIterator<Item = &'a Txid>, why: Removal) -> Changes {
        let mut changes = self.settle_reorg();
        let from: Vec<Slot> = txids.into_iter().filter_map(|txid| self.graph.by_txid(txid)).collect();
        changes.merge(self.remove_with_descendants(&from, why));
        changes
    }

    /// Takes out all that descends from a transaction that is not here: one of a disconnected block that did not come
    /// back.
    pub fn remove_spenders(&mut self, txid: Txid, outputs: u32, why: Removal) -> Changes {
        let from = self.graph.spenders_of(txid, outputs);
        self.remove_with_descendants(&from, why)
    }

    pub(super) fn remove_with_descendants(&mut self, from: &[Slot], why: Removal) -> Changes {
        let all = self.graph.descendants(from);
        let out: Vec<(Slot, Removal)> = all.into_iter().map(|slot| (slot, why)).collect();
        self.change(&out, Vec::new())
    }

    /// A transaction of a disconnected block comes back, below what already spends it. Those of one reorganisation
    /// come in the order of their blocks; `settle_reorg` ends it.
    ///
    /// Neither the floor nor the rules of BIP431 or of dust are asked, as Core does not ask them. On an error, and for
    /// one that failed other checks, `remove_spenders` is to be called.
    pub fn insert_from_block(&mut self, entry: impl Into<Arc<Entry>>) -> Result<Changes, Reject> {
        let candidate = self.candidate(entry.into())?;
        self.check_families(&candidate, Some(&candidate.conflicts), &self.policy)?;
        let mut stage = Stage::of(&self.graph);
        let mut replaced = Vec::new();
        if !candidate.conflicts.is_empty() {
            replaced = replace::evicted(self, &candidate, false, &self.policy)?;
            stage.without = Found::from_iter(replaced.iter().copied());
        }
        let slot = stage.add(&candidate.entry, self.frac(&candidate.entry));
        self.check_limits(&stage, slot, &self.policy)?;
        if !replaced.is_empty() && matches!(self.policy.replacement, ReplacementRule::Diagram { .. }) {
            replace::check_diagram(self, &stage, &candidate.parents, &replaced)?;
        }
        plan::check_disjoint(self, &candidate)?;
        let txid = candidate.entry.txid;
        let out: Vec<(Slot, Removal)> = replaced.iter().map(|&slot| (slot, Removal::Replaced)).collect();
        let changes = self.change(&out, vec![candidate.entry]);
        if let Some(slot) = self.graph.by_txid(&txid) {
            self.unlinked.push((slot, self.graph.node(slot).seq));
        }
        Ok(changes)
    }

    /// Links what came back from blocks to what spends it. Where too much hangs together then, the worst of it leaves.
    pub fn settle_reorg(&mut self) -> Changes {
        let mut changes = Changes::default();
        let unlinked = std::mem::take(&mut self.unlinked);
        let is_here = |&(slot, seq): &(Slot, u64)| self.graph.find(slot).is_some_and(|node| node.seq == seq);
        let parents: Vec<Slot> = unlinked.into_iter().filter(is_here).map(|(slot, _)| slot).collect();
        if parents.is_empty() {
            return changes;
        }
        self.generation += 1;
        let mut links: Vec<(Slot, Slot)> = Vec::new();
        for &parent in &parents {
            let spenders = {
                let entry = &self.graph.node(parent).entry;
                self.graph.spenders_of(entry.txid, entry.outputs.len() as u32)
            };
            for &child in &spenders {
                if self.graph.node(child).parents.is_empty() {
                    changes.flipped.push(Arc::clone(&self.graph.node(child).entry));
                }
                links.push((parent, child));
            }
            self.graph.link(parent);
        }
        let ends = links.iter().flat_map(|&(parent, child)| [parent, child]);
        let clusters = self.clusters_of(ends.chain(parents.iter().copied()));
        let out = match self.policy.limits {
            ChainLimits::Cluster { count, vsize } => {
                oversized::worst(&self.graph, &self.clusters, &clusters, &links, (count, vsize))
            }
            ChainLimits::Ancestors { count, vsize } => self.with_many_ancestors(&parents, count, vsize),
        };
        // Sums with the new links, before what is too much goes from them.
        if let Some(packages) = &mut self.packages {
            for slot in self.graph.ancestors(&parents) {
                packages.count_anew(&self.graph, slot);
            }
        }
        let mut orphaned = Vec::new();
        for slot in out {
            orphaned.extend(self.take_out(slot, Removal::Evicted, &mut changes));
        }
        let parents: Vec<Slot> =
            parents.into_iter().filter(|&slot| self.graph.find(slot).is_some()).collect();
        self.rebuild(&clusters, &parents);
        changes.flipped.extend(self.without_parents(orphaned));
        let gone: std::collections::HashSet<Txid> =
            changes.removed.iter().map(|(entry, _)| entry.txid).collect();
        changes.flipped.retain(|entry| !gone.contains(&entry.txid));
        changes
    }

    /// The descendants of `from` that have too many ancestors, with their descendants.
    fn with_many_ancestors(&self, from: &[Slot], count: usize, vsize: u64) -> Vec<Slot> {
        let has_many = |slot: &Slot| {
            let ancestors = self.graph.ancestors(&[*slot]);
            let total: u64 = ancestors.iter().map(|&slot| self.graph.node(slot).entry.vsize).sum();
            ancestors.len() > count || total > vsize
        };
        let descendants = self.graph.descendants(from).into_iter();
        let many: Vec<Slot> = descendants.filter(|slot| !from.contains(slot)).filter(has_many).collect();
        self.graph.descendants(&many)
    }
}
