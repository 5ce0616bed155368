//! The clusters as they would be: without some entries, and with others that have no slot yet.

use std::collections::HashMap;
use std::sync::Arc;

use bitcoin::Txid;

use super::clusters::Cluster;
use super::feefrac::FeeFrac;
use super::graph::{Found, Graph, Slot};
use super::linearize::{MAX_CLUSTER, Member, linearize};
use crate::mempool::Entry;

/// Slots from here on are those of a stage's newcomers.
const STAGED: Slot = Slot::MAX - 1_000;

/// An entry that may come.
#[derive(Clone, Debug)]
pub struct Newcomer {
    pub entry: Arc<Entry>,
    pub frac: FeeFrac,
    /// Slots of entries that stay, and of newcomers before it.
    pub parents: Vec<Slot>,
}

/// See the module.
#[derive(Debug)]
pub struct Stage<'a> {
    pub graph: &'a Graph,
    /// Who leaves.
    pub without: Found,
    pub newcomers: Vec<Newcomer>,
}

impl<'a> Stage<'a> {
    /// The graph as it is.
    pub fn of(graph: &'a Graph) -> Self {
        Self { graph, without: Found::default(), newcomers: Vec::new() }
    }

    /// Adds a newcomer below its parents; returns its slot on this stage.
    pub fn add(&mut self, entry: &Arc<Entry>, frac: FeeFrac) -> Slot {
        let mut parents: Vec<Slot> =
            self.graph.parents_of(entry).into_iter().filter(|&slot| !self.without.contains(slot)).collect();
        let before = self.newcomers.iter().enumerate();
        parents.extend(before.filter_map(|(i, newcomer)| {
            let is_parent = entry.inputs.iter().any(|input| input.outpoint.txid == newcomer.entry.txid);
            is_parent.then_some(STAGED + i as Slot)
        }));
        self.newcomers.push(Newcomer { entry: Arc::clone(entry), frac, parents });
        STAGED + self.newcomers.len() as Slot - 1
    }

    pub fn stays(&self, slot: Slot) -> bool {
        self.newcomer(slot).is_some() || self.graph.find(slot).is_some() && !self.without.contains(slot)
    }

    fn newcomer(&self, slot: Slot) -> Option<&Newcomer> {
        self.newcomers.get(slot.checked_sub(STAGED)? as usize)
    }

    fn parents(&self, slot: Slot) -> &[Slot] {
        self.newcomer(slot).map_or_else(|| &self.graph.node(slot).parents[..], |new| &new.parents)
    }

    pub fn frac(&self, slot: Slot) -> FeeFrac {
        self.newcomer(slot).map_or_else(|| self.graph.node(slot).frac, |new| new.frac)
    }

    fn txid(&self, slot: Slot) -> Txid {
        self.newcomer(slot).map_or_else(|| self.graph.node(slot).entry.txid, |new| new.entry.txid)
    }

    /// The slots of all newcomers.
    pub fn new_slots(&self) -> Vec<Slot> {
        (0..self.newcomers.len() as Slot).map(|i| STAGED + i).collect()
    }

    /// How many hang together with `slot`, and their fees and weight; stops counting at more than `count` or `weight`.
    pub fn component(&self, slot: Slot, count: usize, weight: u64) -> (usize, FeeFrac) {
        let mut found = Found::default();
        found.insert(slot);
        let mut all = vec![slot];
        let mut total = FeeFrac::default();
        let mut at = 0;
        while let Some(&slot) = all.get(at) {
            at += 1;
            total += self.frac(slot);
            if all.len() > count || total.size > weight {
                break;
            }
            let staged = self.newcomers.iter().enumerate().filter(|(_, new)| new.parents.contains(&slot));
            let staged: Vec<Slot> = staged.map(|(i, _)| STAGED + i as Slot).collect();
            let here = self.newcomer(slot).is_none().then(|| &self.graph.node(slot).children[..]);
            let near = self.parents(slot).iter().chain(here.unwrap_or_default()).chain(&staged);
            for &near in near {
                if self.stays(near) && found.insert(near) {
                    all.push(near);
                }
            }
        }
        (all.len(), total)
    }
}

/// One part of what clusters are made of: a chunk that lost nothing, or a transaction alone.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    /// Of a chunk, with a number.
    Whole(usize),
    /// Of a chunk that lost others.
    Fragment,
    New,
}

/// The clusters of what stays of `old` ones, and of `new` slots, which may be of old ones too if they were linked anew.
/// No more than [`MAX_CLUSTER`] may hang together.
pub fn regroup(stage: &Stage<'_>, old: &[&Cluster], new: &[Slot]) -> Vec<Cluster> {
    let fresh = Found::from_iter(new.iter().copied());
    let mut parts: Vec<(Slot, Part)> = Vec::new();
    for (chunk, (_, slots)) in old.iter().flat_map(|cluster| cluster.pieces()).enumerate() {
        let stays = |slot: &&Slot| stage.stays(**slot) && !fresh.contains(**slot);
        let is_whole = slots.iter().all(|slot| stays(&slot));
        let part = if is_whole { Part::Whole(chunk) } else { Part::Fragment };
        parts.extend(slots.iter().filter(stays).map(|&slot| (slot, part)));
    }
    parts.extend(new.iter().map(|&slot| (slot, Part::New)));
    components(stage, &parts).into_iter().map(|group| linearized(stage, &group)).collect()
}

/// Splits by who is connected, in the order given.
fn components(stage: &Stage<'_>, parts: &[(Slot, Part)]) -> Vec<Vec<(Slot, Part)>> {
    if parts.len() <= 1 {
        return if parts.is_empty() { Vec::new() } else { vec![parts.to_vec()] };
    }
    let index: HashMap<Slot, usize> = parts.iter().enumerate().map(|(i, &(slot, _))| (slot, i)).collect();
    let mut roots: Vec<usize> = (0..parts.len()).collect();
    fn root(roots: &mut [usize], mut at: usize) -> usize {
        while roots[at] != at {
            roots[at] = roots[roots[at]];
            at = roots[at];
        }
        at
    }
    for (i, &(slot, _)) in parts.iter().enumerate() {
        for parent in stage.parents(slot).iter().filter_map(|parent| index.get(parent)) {
            let (a, b) = (root(&mut roots, i), root(&mut roots, *parent));
            roots[a.max(b)] = a.min(b);
        }
    }
    let mut groups: Vec<Vec<(Slot, Part)>> = Vec::new();
    let mut group_of = vec![usize::MAX; parts.len()];
    for (i, part) in parts.iter().enumerate() {
        let root = root(&mut roots, i);
        if group_of[root] == usize::MAX {
            group_of[root] = groups.len();
            groups.push(Vec::new());
        }
        groups[group_of[root]].push(*part);
    }
    groups
}

/// One connected group as a cluster.
fn linearized(stage: &Stage<'_>, group: &[(Slot, Part)]) -> Cluster {
    debug_assert!(group.len() <= MAX_CLUSTER);
    let index = |slot: &Slot| group.iter().position(|(at, _)| at == slot);
    let members: Vec<Member> = group
        .iter()
        .map(|&(slot, _)| {
            let parents = stage.parents(slot).iter().filter_map(index).fold(0, |set, i| set | 1 << i);
            Member { frac: stage.frac(slot), parents, txid: stage.txid(slot) }
        })
        .collect();
    let found = linearize(&members, &kept(group, &members));
    Cluster { order: found.order.into_iter().map(|i| group[i].0).collect(), chunks: found.chunks }
}

/// Which chunks need no second look.
fn kept(group: &[(Slot, Part)], members: &[Member]) -> Vec<u64> {
    let (mut new, mut best_new) = (0u64, None::<FeeFrac>);
    for (i, (_, part)) in group.iter().enumerate() {
        match part {
            Part::Fragment => return Vec::new(),
            Part::New => {
                new |= 1 << i;
                let frac = members[i].frac;
                if best_new.is_none_or(|best| frac.cmp_rate(best).is_gt()) {
                    best_new = Some(frac);
                }
            }
            Part::Whole(_) => {}
        }
    }
    let above_new = |(i, member): (usize, &Member)| new & 1 << i == 0 && member.parents & new != 0;
    if members.iter().enumerate().any(above_new) {
        return Vec::new();
    }
    let mut chunks: Vec<(usize, u64, FeeFrac)> = Vec::new();
    for (i, &(_, part)) in group.iter().enumerate() {
        let Part::Whole(number) = part else { continue };
        match chunks.last_mut() {
            Some((last, set, frac)) if *last == number => {
                *set |= 1 << i;
                *frac += members[i].frac;
            }
            _ => chunks.push((number, 1 << i, members[i].frac)),
        }
    }
    let is_better = |frac: FeeFrac| best_new.is_none_or(|best| frac.cmp_rate(best).is_gt());
    chunks.into_iter().filter(|&(_, _, frac)| is_better(frac)).map(|(_, set, _)| set).collect()
}
