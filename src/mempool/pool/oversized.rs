//! Which transactions leave when too much hangs together, as only a reorganisation can bring about.
//!
//! Transactions are let in one after the other, the best chunk first and none before its parents or before those that
//! precede it in its old cluster. One that would make its new cluster too large stays out, and so do all that need it.
//!
//! Who leaves is the same as in Core, unless chunks of different clusters have the same feerate and the same size: then
//! the smaller txid goes first here, while there it depends on what came and went before.
//! Source: Bitcoin Core `txgraph.cpp` (`Trim`).

use std::cmp::Ordering;
use std::collections::{BinaryHeap, HashMap};

use bitcoin::Txid;

use super::clusters::Clusters;
use super::feefrac::FeeFrac;
use super::graph::{Graph, Slot};
use super::linearize::MAX_CLUSTER;

/// One transaction of the clusters that grow together.
struct Waiting {
    slot: Slot,
    chunk: FeeFrac,
    weight: u64,
    txid: Txid,
    before: Vec<usize>,
    after: Vec<usize>,
    /// How many of `before` are not in yet.
    left: usize,
    is_in: bool,
}

/// Order of the heap: the best is the greatest.
#[derive(PartialEq, Eq)]
struct Ready {
    chunk: FeeFrac,
    txid: Txid,
    at: usize,
}

impl Ord for Ready {
    fn cmp(&self, other: &Self) -> Ordering {
        other.chunk.cmp_better_first(self.chunk).then_with(|| other.txid.cmp(&self.txid))
    }
}

impl PartialOrd for Ready {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Who leaves of the clusters `touched`, when `links` (parent and child) tie them together and no more than `count` of
/// `vsize` virtual bytes may hang together; none where all fits.
pub(super) fn worst(
    graph: &Graph,
    clusters: &Clusters,
    touched: &[u32],
    links: &[(Slot, Slot)],
    (count, vsize): (usize, u64),
) -> Vec<Slot> {
    let (count, weight) = (count.min(MAX_CLUSTER), vsize.saturating_mul(4));
    let mut all: Vec<Waiting> = Vec::new();
    let mut index: HashMap<Slot, usize> = HashMap::new();
    for &cluster in touched {
        let mut last = None;
        for (piece, slots) in clusters.get(cluster).pieces() {
            for &slot in slots {
                let at = all.len();
                let node = graph.node(slot);
                index.insert(slot, at);
                all.push(Waiting {
                    slot,
                    chunk: piece.frac,
                    weight: node.frac.size,
                    txid: node.entry.txid,
                    before: last.into_iter().collect(),
                    after: Vec::new(),
                    left: 0,
                    is_in: false,
                });
                last = Some(at);
            }
        }
    }
    for (parent, child) in links {
        if let (Some(&parent), Some(&child)) = (index.get(parent), index.get(child)) {
            all[child].before.push(parent);
        }
    }
    for at in 0..all.len() {
        all[at].left = all[at].before.len();
        for i in 0..all[at].before.len() {
            let before = all[at].before[i];
            all[before].after.push(at);
        }
    }
    if all_fit(&all, count, weight) {
        return Vec::new();
    }
    let ready = |at: usize, waiting: &Waiting| Ready { chunk: waiting.chunk, txid: waiting.txid, at };
    let mut heap: BinaryHeap<Ready> =
        all.iter().enumerate().filter(|(_, one)| one.left == 0).map(|(at, one)| ready(at, one)).collect();
    let mut groups = Groups::new(&all);
    while let Some(Ready { at, .. }) = heap.pop() {
        let mut joined: Vec<usize> = all[at].before.iter().map(|&before| groups.root(before)).collect();
        joined.sort_unstable();
        joined.dedup();
        let (mut new_count, mut new_weight) = (1, all[at].weight);
        for &root in &joined {
            new_count += groups.counts[root];
            new_weight += groups.weights[root];
        }
        if new_count > count || new_weight > weight {
            continue;
        }
        for root in joined {
            groups.join(at, root);
        }
        all[at].is_in = true;
        for i in 0..all[at].after.len() {
            let after = all[at].after[i];
            all[after].left -= 1;
            if all[after].left == 0 {
                heap.push(ready(after, &all[after]));
            }
        }
    }
    all.into_iter().filter(|one| !one.is_in).map(|one| one.slot).collect()
}

/// Whether no group of all that is tied together is too large. Each is looked at by itself in Core; here one that is
/// too large lets all be let in anew, which changes nothing for the others, as they fit.
fn all_fit(all: &[Waiting], count: usize, weight: u64) -> bool {
    let mut groups = Groups::new(all);
    for (at, one) in all.iter().enumerate() {
        for &before in &one.before {
            groups.join(at, before);
        }
    }
    (0..all.len()).all(|at| {
        let root = groups.root(at);
        groups.counts[root] <= count && groups.weights[root] <= weight
    })
}

/// Who is tied to whom (union-find), with what each group holds at its root.
struct Groups {
    parents: Vec<usize>,
    counts: Vec<usize>,
    weights: Vec<u64>,
}

impl Groups {
    fn new(all: &[Waiting]) -> Self {
        Self {
            parents: (0..all.len()).collect(),
            counts: vec![1; all.len()],
            weights: all.iter().map(|one| one.weight).collect(),
        }
    }

    fn root(&mut self, mut at: usize) -> usize {
        while self.parents[at] != at {
            self.parents[at] = self.parents[self.parents[at]];
            at = self.parents[at];
        }
        at
    }

    fn join(&mut self, a: usize, b: usize) {
        let (a, b) = (self.root(a), self.root(b));
        if a == b {
            return;
        }
        let (large, small) = if self.counts[a] < self.counts[b] { (b, a) } else { (a, b) };
        self.parents[small] = large;
        self.counts[large] += self.counts[small];
        self.weights[large] += self.weights[small];
    }
}
