//! What hangs together by spending, in the order in which it would be mined.
//!
//! In: slots that came and that left. Out: clusters of at most 64, each linearized and cut into chunks, and the chunks
//! of all clusters from the best to the worst.
//!
//! A chunk that lost none of its transactions remains a chunk, whatever else left its cluster: what makes it one is
//! among its own. And a newcomer without children leaves better chunks than itself as they are. So a block or an
//! eviction costs next to nothing here, and a long chain grows cheaply.
//! Source: Bitcoin Core `txgraph.cpp`.

use std::cmp::Ordering;
use std::collections::BTreeSet;

use bitcoin::Txid;

use super::feefrac::FeeFrac;
use super::graph::{Graph, Slot};
use super::linearize::Piece;
use super::stage::{Stage, regroup};

/// One connected component.
#[derive(Debug, Default)]
pub struct Cluster {
    /// In mining order.
    pub order: Vec<Slot>,
    /// How `order` is cut.
    pub chunks: Vec<Piece>,
}

impl Cluster {
    /// The chunks with their transactions.
    pub fn pieces(&self) -> impl Iterator<Item = (&Piece, &[Slot])> {
        let mut start = 0;
        self.chunks.iter().map(move |piece| {
            let slots = &self.order[start..start + piece.len];
            start += piece.len;
            (piece, slots)
        })
    }
}

/// Place of a chunk among all: the best feerate first. Of equal ones that first which, with those before it in its
/// cluster, is smaller; then the smaller txid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Rank {
    frac: FeeFrac,
    equal_size: u64,
    last_txid: Txid,
    cluster: u32,
    chunk: u32,
}

impl Ord for Rank {
    fn cmp(&self, other: &Self) -> Ordering {
        let rate = other.frac.cmp_rate(self.frac);
        let ties = || (self.equal_size, self.last_txid, self.cluster, self.chunk);
        let others = || (other.equal_size, other.last_txid, other.cluster, other.chunk);
        rate.then_with(|| ties().cmp(&others()))
    }
}

impl PartialOrd for Rank {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// See the module.
#[derive(Debug, Default)]
pub struct Clusters {
    all: Vec<Cluster>,
    free: Vec<u32>,
    ranks: BTreeSet<Rank>,
}

impl Clusters {
    pub fn get(&self, cluster: u32) -> &Cluster {
        &self.all[cluster as usize]
    }

    /// Chunks from the best to the worst.
    pub fn chunks(&self) -> impl DoubleEndedIterator<Item = (FeeFrac, &[Slot])> {
        self.ranks.iter().map(|rank| {
            let found = self.get(rank.cluster).pieces().nth(rank.chunk as usize);
            (rank.frac, found.map_or(&[] as &[Slot], |(_, slots)| slots))
        })
    }

    /// Fees and weights of the same.
    pub fn fracs(&self) -> impl Iterator<Item = FeeFrac> {
        self.ranks.iter().map(|rank| rank.frac)
    }

    /// The clusters of some slots, each once.
    pub fn of(&self, graph: &Graph, slots: impl IntoIterator<Item = Slot>) -> Vec<u32> {
        let mut clusters: Vec<u32> = slots.into_iter().map(|slot| graph.node(slot).cluster).collect();
        clusters.sort_unstable();
        clusters.dedup();
        clusters
    }

    /// Makes clusters anew of what is left of `old` and of `new`, which came: all that hangs together with either.
    pub fn rebuild(&mut self, graph: &mut Graph, old: &[u32], new: &[Slot]) {
        let old: Vec<Cluster> = old.iter().map(|&cluster| self.take(cluster)).collect();
        let old: Vec<&Cluster> = old.iter().collect();
        for cluster in regroup(&Stage::of(graph), &old, new) {
            self.put(graph, cluster);
        }
    }

    fn take(&mut self, cluster: u32) -> Cluster {
        let taken = std::mem::take(&mut self.all[cluster as usize]);
        for rank in ranks(&taken, cluster) {
            self.ranks.remove(&rank);
        }
        self.free.push(cluster);
        taken
    }

    fn put(&mut self, graph: &mut Graph, cluster: Cluster) {
        let number = self.free.pop().unwrap_or_else(|| {
            self.all.push(Cluster::default());
            self.all.len() as u32 - 1
        });
        for &slot in &cluster.order {
            graph.node_mut(slot).cluster = number;
        }
        self.ranks.extend(ranks(&cluster, number));
        self.all[number as usize] = cluster;
    }
}

fn ranks(cluster: &Cluster, number: u32) -> impl Iterator<Item = Rank> {
    let (mut last, mut equal_size) = (FeeFrac::default(), 0);
    cluster.chunks.iter().enumerate().map(move |(chunk, piece)| {
        let is_equal = last.size > 0 && piece.frac.cmp_rate(last).is_eq();
        equal_size = if is_equal { equal_size } else { 0 } + piece.frac.size;
        last = piece.frac;
        Rank {
            frac: piece.frac,
            equal_size,
            last_txid: piece.last_txid,
            cluster: number,
            chunk: chunk as u32,
        }
    })
}
