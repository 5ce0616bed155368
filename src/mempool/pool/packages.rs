//! Order and limits without clusters: each entry with its descendants, as before Bitcoin Core 31.
//!
//! What hangs together has no bound here, so nothing is linearized ahead: the worst entry is the one that pays least
//! with all that descends from it, and chunks are worked out when somebody asks.
//! Source: Bitcoin Core 29 `txmempool.h` (`CompareTxMemPoolEntryByDescendantScore`), `txmempool.cpp`
//! (`CalculateAncestorsAndCheckLimits`, `UpdateForDescendants`).

use std::cmp::Ordering;
use std::collections::{BTreeSet, HashMap};

use bitcoin::Txid;

use super::clusters::Cluster;
use super::feefrac::FeeFrac;
use super::graph::{Found, Graph, Slot};
use super::linearize::MAX_CLUSTER;
use super::stage::{Stage, regroup};

/// An entry with its descendants: how many, their fees, their virtual bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Family {
    count: usize,
    total: FeeFrac,
}

/// Place among all, the worst first: what it pays alone or with its descendants, whichever is better. Of equal ones
/// the younger is the worse.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Score {
    rate: FeeFrac,
    unix: u64,
    seq: u64,
    slot: Slot,
}

impl Ord for Score {
    fn cmp(&self, other: &Self) -> Ordering {
        self.rate.cmp_rate(other.rate).then_with(|| (other.unix, other.seq).cmp(&(self.unix, self.seq)))
    }
}

impl PartialOrd for Score {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// See the module.
#[derive(Debug, Default)]
pub struct Packages {
    families: HashMap<Slot, Family>,
    scores: BTreeSet<Score>,
}

/// Fee and virtual bytes.
fn alone(graph: &Graph, slot: Slot) -> FeeFrac {
    let entry = &graph.node(slot).entry;
    FeeFrac::new(entry.fee.to_sat(), entry.vsize.max(1))
}

fn score(graph: &Graph, slot: Slot, family: Family) -> Score {
    let node = graph.node(slot);
    let alone = alone(graph, slot);
    let rate = if family.total.cmp_rate(alone).is_gt() { family.total } else { alone };
    Score { rate, unix: node.entry.unix, seq: node.seq, slot }
}

impl Packages {
    /// An entry came, with its links.
    pub fn add(&mut self, graph: &Graph, slot: Slot) {
        self.count_anew(graph, slot);
        for ancestor in graph.ancestors(&graph.node(slot).parents) {
            self.count_anew(graph, ancestor);
        }
    }

    /// An entry will leave.
    pub fn remove(&mut self, graph: &Graph, slot: Slot) {
        let gone = alone(graph, slot);
        for ancestor in graph.ancestors(&graph.node(slot).parents) {
            let Some(&family) = self.families.get(&ancestor) else { continue };
            let total = FeeFrac {
                fee: family.total.fee.saturating_sub(gone.fee),
                size: family.total.size.saturating_sub(gone.size),
            };
            self.put(graph, ancestor, Family { count: family.count.saturating_sub(1), total });
        }
        if let Some(family) = self.families.remove(&slot) {
            self.scores.remove(&score(graph, slot, family));
        }
    }

    /// Sums up an entry's descendants.
    pub fn count_anew(&mut self, graph: &Graph, slot: Slot) {
        let all = graph.descendants(&[slot]);
        let total = all.iter().map(|&slot| alone(graph, slot)).sum();
        self.put(graph, slot, Family { count: all.len(), total });
    }

    fn put(&mut self, graph: &Graph, slot: Slot, family: Family) {
        if let Some(before) = self.families.insert(slot, family) {
            self.scores.remove(&score(graph, slot, before));
        }
        self.scores.insert(score(graph, slot, family));
    }

    /// Who is evicted first, with the fees and virtual bytes of it and its descendants.
    pub fn worst(&self) -> Option<(Slot, FeeFrac)> {
        let slot = self.scores.first()?.slot;
        Some((slot, self.families.get(&slot)?.total))
    }

    /// Whether `count` newcomers of `vsize` together may come below `parents`: neither too many ancestors nor too many
    /// descendants for one of those. The error is Core's text.
    pub fn check(
        &self,
        graph: &Graph,
        parents: &[Slot],
        newcomers: (usize, u64),
        limits: Limits,
    ) -> Result<(), String> {
        let (count, vsize) = newcomers;
        let Limits { ancestors, ancestor_vsize, descendants, descendant_vsize } = limits;
        if parents.len() + 1 > ancestors {
            return Err(format!("too many unconfirmed parents [limit: {ancestors}]"));
        }
        let named = |slot: Slot| (graph.node(slot).entry.txid, slot);
        let mut staged: BTreeSet<(Txid, Slot)> = parents.iter().map(|&slot| named(slot)).collect();
        let mut found: BTreeSet<Slot> = BTreeSet::new();
        let mut total = vsize;
        while let Some((txid, slot)) = staged.pop_first() {
            found.insert(slot);
            total += graph.node(slot).entry.vsize;
            let family = self.families.get(&slot).copied().unwrap_or_default();
            if family.total.size + vsize > descendant_vsize {
                return Err(format!(
                    "exceeds descendant size limit for tx {txid} [limit: {descendant_vsize}]"
                ));
            }
            if family.count + count > descendants {
                return Err(format!("too many descendants for tx {txid} [limit: {descendants}]"));
            }
            if total > ancestor_vsize {
                return Err(format!("exceeds ancestor size limit [limit: {ancestor_vsize}]"));
            }
            for &parent in &graph.node(slot).parents {
                if !found.contains(&parent) {
                    staged.insert(named(parent));
                }
                if staged.len() + found.len() + count > ancestors {
                    return Err(format!("too many unconfirmed ancestors [limit: {ancestors}]"));
                }
            }
        }
        Ok(())
    }

    /// Virtual bytes of an entry with its descendants.
    pub fn family_vsize(&self, slot: Slot) -> u64 {
        self.families.get(&slot).map_or(0, |family| family.total.size)
    }

    /// Count of an entry and its descendants.
    pub fn family_count(&self, slot: Slot) -> usize {
        self.families.get(&slot).map_or(0, |family| family.count)
    }
}

/// How many ancestors and descendants there may be, each with the entry itself, and how large they are together.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub ancestors: usize,
    pub ancestor_vsize: u64,
    pub descendants: usize,
    pub descendant_vsize: u64,
}

/// All chunks, the best first. What is larger than a cluster may be is cut along its order of arrival.
pub fn chunks(graph: &Graph) -> Vec<(FeeFrac, Vec<Slot>)> {
    let mut found = Found::default();
    let mut chunks = Vec::new();
    for (slot, _) in graph.slots() {
        if found.contains(slot) {
            continue;
        }
        let component = component(graph, slot);
        chunks.extend(chunks_of(graph, &component));
        component.into_iter().for_each(|slot| {
            found.insert(slot);
        });
    }
    chunks.sort_by(|(a, _), (b, _)| b.cmp_rate(*a));
    chunks
}

/// All that hangs together with an entry.
fn component(graph: &Graph, slot: Slot) -> Vec<Slot> {
    let mut found = Found::default();
    found.insert(slot);
    let mut all = vec![slot];
    let mut at = 0;
    while let Some(&slot) = all.get(at) {
        at += 1;
        let node = graph.node(slot);
        all.extend(node.parents.iter().chain(&node.children).copied().filter(|&near| found.insert(near)));
    }
    all
}

fn chunks_of(graph: &Graph, component: &[Slot]) -> Vec<(FeeFrac, Vec<Slot>)> {
    let stage = Stage::of(graph);
    let ordered = parents_first(graph, component);
    let mut chunks: Vec<(FeeFrac, Vec<Slot>)> = Vec::new();
    for part in ordered.chunks(MAX_CLUSTER) {
        let mut clusters = regroup(&stage, &[], part);
        // Where a part is not connected in itself, the best of its clusters are no later than the worst.
        let mut pieces: Vec<(FeeFrac, Vec<Slot>)> = Vec::new();
        for cluster in &mut clusters {
            pieces.extend(cluster.pieces().map(|(piece, slots)| (piece.frac, slots.to_vec())));
        }
        pieces.sort_by(|(a, _), (b, _)| b.cmp_rate(*a));
        for (mut frac, mut slots) in pieces {
            // A better one after a worse one lifts it.
            while let Some((last, before)) = chunks.pop_if(|(last, _)| last.cmp_rate(frac).is_lt()) {
                frac = last + frac;
                slots = before.into_iter().chain(slots).collect();
            }
            chunks.push((frac, slots));
        }
    }
    chunks
}

/// In order of arrival, but for parents that came back from a block after their children.
fn parents_first(graph: &Graph, component: &[Slot]) -> Vec<Slot> {
    let mut left: HashMap<Slot, usize> =
        component.iter().map(|&slot| (slot, graph.node(slot).parents.len())).collect();
    let ready = component.iter().filter(|&&slot| graph.node(slot).parents.is_empty());
    let mut ready: BTreeSet<(u64, Slot)> = ready.map(|&slot| (graph.node(slot).seq, slot)).collect();
    let mut ordered = Vec::with_capacity(component.len());
    while let Some((_, slot)) = ready.pop_first() {
        ordered.push(slot);
        for child in &graph.node(slot).children {
            if let Some(left) = left.get_mut(child) {
                *left -= 1;
                if *left == 0 {
                    ready.insert((graph.node(*child).seq, *child));
                }
            }
        }
    }
    ordered
}

/// Fees and weights of the chunks of all that hangs together with some slots; `None` where that is too large.
pub fn components(graph: &Graph, slots: &[Slot]) -> Option<(Vec<Cluster>, Vec<Slot>)> {
    let mut found = Found::default();
    let mut all = Vec::new();
    for &slot in slots {
        if !found.contains(slot) {
            let component = component(graph, slot);
            if component.len() > MAX_CLUSTER {
                return None;
            }
            all.extend(component.into_iter().filter(|&slot| found.insert(slot)));
        }
    }
    Some((regroup(&Stage::of(graph), &[], &all), all))
}
