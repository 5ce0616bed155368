//! The transactions that were taken, what hangs together among them, and which of them go first when room is short.
//!
//! In: entries that passed every check of their own, blocks, the time. Out: whether an entry fits beside the others
//! (`plan`), and what changed (`Changes`). Nothing here reads scripts or coins.
//! In the order of the work: `feefrac` compares feerates, `graph` knows who spends whom, `linearize` cuts one cluster
//! into chunks, whose order is `sequence`, `clusters` keeps all of them, `stage` is what they would be, `diagram` compares
//! two states; `plan` with `truc`, `replace` and `package` decides on newcomers, `block` follows the chain, `limit` makes
//! room.
//! Source: Bitcoin Core `txmempool.cpp`, `txgraph.cpp`, and what `validation.cpp` asks of them.

mod block;
mod change;
mod clusters;
mod diagram;
mod feefrac;
mod graph;
mod limit;
mod linearize;
mod oversized;
mod package;
mod packages;
mod plan;
mod replace;
mod sequence;
mod stage;
mod truc;

#[cfg(test)]
mod linearize_tests;
#[cfg(test)]
mod model_tests;
#[cfg(test)]
mod room_tests;
#[cfg(test)]
mod rules_tests;
#[cfg(test)]
mod testing;

use std::collections::BTreeMap;
use std::sync::Arc;

use bitcoin::{OutPoint, Txid, Wtxid};

use self::clusters::Clusters;
use self::feefrac::FeeFrac;
use self::graph::{Graph, Node, Slot};
use self::limit::Floor;
use self::packages::Packages;
use super::view::{Figures, Maps, MempoolView};
use super::{ChainLimits, Entry, Policy};
use crate::time::Now;

pub use change::{Changes, Removal};
pub use package::PackageRefusal;
pub use plan::Plan;

/// How many of the newest a view names.
const RECENT: usize = 10;

/// Transactions that are mined together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Satoshi.
    pub fee: u64,
    /// Weight units, with what signature operations add.
    pub weight: u64,
    /// Parents before children.
    pub txids: Vec<Txid>,
}

impl Chunk {
    /// Virtual bytes.
    pub fn vsize(&self) -> u64 {
        self.weight.div_ceil(4)
    }
}

/// See the module.
#[derive(Debug)]
pub struct Pool {
    policy: Policy,
    graph: Graph,
    clusters: Clusters,
    /// Instead of clusters, where ancestors and descendants are limited.
    packages: Option<Packages>,
    maps: Maps,
    /// By when they came (Unix seconds) and their sequence number.
    ages: BTreeMap<(u64, u64), Slot>,
    floor: Floor,
    /// Counts changes: a plan is for one state only.
    generation: u64,
    vsize: u64,
    fees: u64,
    bytes: usize,
    /// Came back from blocks, and are not linked to what spends them yet: slot and sequence number.
    unlinked: Vec<(Slot, u64)>,
    /// A block has them or contradicts them; only views know it yet.
    leaving: Vec<(Slot, Removal)>,
    /// Left with a block and seen by nobody, but still named by the maps: with their sequence numbers.
    leftovers: Vec<(Arc<Entry>, u64)>,
}

impl Pool {
    /// An empty pool with the limits of `policy`.
    pub fn new(policy: &Policy) -> Self {
        Self {
            policy: policy.clone(),
            graph: Graph::default(),
            clusters: Clusters::default(),
            packages: matches!(policy.limits, ChainLimits::Ancestors { .. }).then(Packages::default),
            maps: Maps::default(),
            ages: BTreeMap::new(),
            floor: Floor::default(),
            generation: 0,
            vsize: 0,
            fees: 0,
            bytes: 0,
            unlinked: Vec::new(),
            leaving: Vec::new(),
            leftovers: Vec::new(),
        }
    }

    pub fn get(&self, txid: &Txid) -> Option<&Arc<Entry>> {
        Some(&self.graph.node(self.graph.by_txid(txid)?).entry)
    }

    pub fn by_wtxid(&self, wtxid: &Wtxid) -> Option<&Arc<Entry>> {
        Some(&self.graph.node(self.graph.by_wtxid(wtxid)?).entry)
    }

    /// Who spends that output.
    pub fn spender(&self, outpoint: &OutPoint) -> Option<&Arc<Entry>> {
        Some(&self.graph.node(self.graph.spender(outpoint)?).entry)
    }

    pub fn len(&self) -> usize {
        self.graph.len()
    }

    pub fn is_empty(&self) -> bool {
        self.graph.len() == 0
    }

    /// Bytes of memory that the entries take here and in a view.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Virtual bytes of all entries.
    pub fn vsize(&self) -> u64 {
        self.vsize
    }

    /// Fees of all entries, in satoshi.
    pub fn fees(&self) -> u64 {
        self.fees
    }

    /// All entries, in no order.
    pub fn entries(&self) -> impl Iterator<Item = &Arc<Entry>> {
        self.graph.slots().map(|(_, node)| &node.entry)
    }

    /// The entries whose outputs it spends.
    pub fn parents(&self, txid: &Txid) -> Vec<&Arc<Entry>> {
        self.near(txid, |_, node| node.parents.clone())
    }

    /// The entries that spend its outputs.
    pub fn children(&self, txid: &Txid) -> Vec<&Arc<Entry>> {
        self.near(txid, |_, node| node.children.clone())
    }

    /// Its parents, their parents and so on, without itself.
    pub fn ancestors(&self, txid: &Txid) -> Vec<&Arc<Entry>> {
        self.near(txid, |graph, node| graph.ancestors(&node.parents))
    }

    /// Its children, their children and so on, without itself.
    pub fn descendants(&self, txid: &Txid) -> Vec<&Arc<Entry>> {
        self.near(txid, |graph, node| graph.descendants(&node.children))
    }

    fn near(&self, txid: &Txid, which: impl Fn(&Graph, &Node) -> Vec<Slot>) -> Vec<&Arc<Entry>> {
        let node = self.graph.by_txid(txid).map(|slot| self.graph.node(slot));
        let slots = node.map_or_else(Vec::new, |node| which(&self.graph, node));
        slots.into_iter().map(|slot| &self.graph.node(slot).entry).collect()
    }

    /// Over all clusters, the best feerate first: what miners would take in that order.
    pub fn chunks(&self) -> impl Iterator<Item = Chunk> {
        let chunk = |frac: FeeFrac, slots: &[Slot]| {
            let txids = slots.iter().map(|&slot| self.graph.node(slot).entry.txid).collect();
            Chunk { fee: frac.fee, weight: frac.size, txids }
        };
        let made = self.packages.as_ref().map_or_else(Vec::new, |_| packages::chunks(&self.graph));
        let made = made.into_iter().map(move |(frac, slots)| chunk(frac, &slots));
        self.clusters.chunks().map(move |(frac, slots)| chunk(frac, slots)).chain(made)
    }

    /// Fee in satoshi and virtual bytes of each of [`Self::chunks`], in their order.
    pub fn chunk_fees(&self) -> impl Iterator<Item = (u64, u64)> {
        let made = self.packages.as_ref().map_or_else(Vec::new, |_| packages::chunks(&self.graph));
        let fracs = self.clusters.fracs().chain(made.into_iter().map(|(frac, _)| frac));
        fracs.map(|frac| (frac.fee, frac.size.div_ceil(4)))
    }

    /// This state, for wallets.
    pub fn view(&self, now: Now) -> MempoolView {
        let figures =
            Figures { vsize: self.vsize, bytes: self.bytes, fees: self.fees, min_fee: self.min_fee(now) };
        let newest = self.ages.values().rev().map(|&slot| &self.graph.node(slot).entry);
        let newest = newest.filter(|entry| !self.maps.is_hidden(&entry.txid)).take(RECENT);
        let recent = newest.map(Arc::clone).collect();
        MempoolView::new(self.maps.clone(), figures, recent)
    }

    /// Fee and adjusted weight, by which feerates are compared.
    fn frac(&self, entry: &Entry) -> FeeFrac {
        let adjusted = entry.sigops_cost.saturating_mul(self.policy.bytes_per_sigop);
        FeeFrac::new(entry.fee.to_sat(), entry.weight.max(adjusted).max(1))
    }

    /// Takes entries out and others in. `out` holds the descendants of whatever must not stay without its parents.
    fn change(&mut self, out: &[(Slot, Removal)], new: Vec<Arc<Entry>>) -> Changes {
        let mut changes = Changes::default();
        debug_assert!(self.leaving.is_empty(), "`finish_block` comes first");
        if out.is_empty() && new.is_empty() {
            return changes;
        }
        self.generation += 1;
        let mut old = self.clusters_of(out.iter().map(|&(slot, _)| slot));
        let mut orphaned = Vec::new();
        for &(slot, why) in out {
            orphaned.extend(self.take_out(slot, why, &mut changes));
        }
        let mut slots = Vec::with_capacity(new.len());
        for entry in new {
            let slot = self.admit(entry);
            slots.push(slot);
            let node = self.graph.node(slot);
            changes.added.push(Arc::clone(&node.entry));
            let parents: Vec<Slot> =
                node.parents.iter().copied().filter(|parent| !slots.contains(parent)).collect();
            old.extend(self.clusters_of(parents));
        }
        old.sort_unstable();
        old.dedup();
        self.rebuild(&old, &slots);
        changes.flipped.extend(self.without_parents(orphaned));
        changes
    }

    /// The clusters of some, each once; none where there are none.
    fn clusters_of(&self, slots: impl IntoIterator<Item = Slot>) -> Vec<u32> {
        if self.packages.is_some() { Vec::new() } else { self.clusters.of(&self.graph, slots) }
    }

    /// Brings the order up to date after `old` clusters lost some, and `new` slots came or were linked.
    fn rebuild(&mut self, old: &[u32], new: &[Slot]) {
        match &mut self.packages {
            None => self.clusters.rebuild(&mut self.graph, old, new),
            Some(packages) => new.iter().for_each(|&slot| packages.add(&self.graph, slot)),
        }
    }

    /// Takes one entry out; returns its children, with their sequence numbers.
    fn take_out(&mut self, slot: Slot, why: Removal, changes: &mut Changes) -> Vec<(Slot, u64)> {
        if let Some(packages) = self.packages.as_mut().filter(|_| self.graph.find(slot).is_some()) {
            packages.remove(&self.graph, slot);
        }
        let Some(node) = self.graph.remove(slot) else { return Vec::new() };
        if self.maps.is_hidden(&node.entry.txid) {
            self.leftovers.push((Arc::clone(&node.entry), node.seq));
        } else {
            self.maps.remove(&node.entry, node.seq);
            self.discount(&node.entry);
        }
        self.ages.remove(&(node.entry.unix, node.seq));
        changes.removed.push((node.entry, why));
        node.children.iter().map(|&child| (child, self.graph.node(child).seq)).collect()
    }

    /// Takes an entry out of the sums.
    fn discount(&mut self, entry: &Entry) {
        self.vsize -= entry.vsize;
        self.fees = self.fees.saturating_sub(entry.fee.to_sat());
        self.bytes -= footprint(entry);
    }

    /// Those that are still here and lost their last parent.
    fn without_parents(&self, mut children: Vec<(Slot, u64)>) -> Vec<Arc<Entry>> {
        children.sort_unstable();
        children.dedup();
        let here = children.into_iter().filter_map(|(slot, seq)| {
            self.graph.find(slot).filter(|node| node.seq == seq && node.parents.is_empty())
        });
        here.map(|node| Arc::clone(&node.entry)).collect()
    }

    /// Whether [`Self::sweep`] has something to do.
    pub fn has_leftovers(&self) -> bool {
        !self.leftovers.is_empty()
    }

    /// Frees what so many of those that left with a block still hold. A block has thousands, and wallets are not to
    /// wait for that to hear of it; the next newcomer would.
    pub fn sweep(&mut self, count: usize) {
        let from = self.leftovers.len().saturating_sub(count);
        for (entry, seq) in self.leftovers.drain(from..) {
            self.maps.remove(&entry, seq);
        }
        if self.leftovers.is_empty() && self.leaving.is_empty() {
            self.maps.is_swept();
        }
    }

    fn admit(&mut self, entry: Arc<Entry>) -> Slot {
        // What is left of one that spent the same would be taken for the newcomer's.
        self.sweep(usize::MAX);
        self.vsize += entry.vsize;
        self.fees = self.fees.saturating_add(entry.fee.to_sat());
        self.bytes += footprint(&entry);
        let frac = self.frac(&entry);
        let slot = self.graph.add(entry, frac);
        let node = self.graph.node(slot);
        self.maps.add(&node.entry, node.seq);
        self.ages.insert((node.entry.unix, node.seq), slot);
        slot
    }
}

/// Bytes that an entry takes: itself, and its places in the pool's tables and in those of the view.
fn footprint(entry: &Entry) -> usize {
    const EACH: usize = 640;
    const INPUT: usize = size_of::<super::Input>() + 220;
    const OUTPUT: usize = size_of::<super::Output>() + 80;
    EACH + size_of::<Entry>() + entry.raw.len() + entry.inputs.len() * INPUT + entry.outputs.len() * OUTPUT
}
