//! Who spends whom: the entries in numbered slots, found by their ids and by what they spend.
//!
//! Clusters, order and limits are not known here.

use std::hash::BuildHasher;
use std::sync::Arc;

use bitcoin::{OutPoint, Txid, Wtxid};
use hashbrown::{DefaultHashBuilder, HashTable};

use super::feefrac::FeeFrac;
use crate::mempool::Entry;

/// Number of an entry while it is here; used again for others.
pub type Slot = u32;

/// An entry and what it hangs together with.
#[derive(Debug)]
pub struct Node {
    pub entry: Arc<Entry>,
    /// Counts up with each entry that comes: no two nodes ever have the same.
    pub seq: u64,
    /// Fee and adjusted weight.
    pub frac: FeeFrac,
    /// Each once.
    pub parents: Vec<Slot>,
    /// Each once.
    pub children: Vec<Slot>,
    /// Which cluster it is in.
    pub cluster: u32,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Graph {
    nodes: Vec<Option<Node>>,
    free: Vec<Slot>,
    by_txid: HashTable<Slot>,
    by_wtxid: HashTable<Slot>,
    /// Which input of which entry spends an outpoint.
    spends: HashTable<(Slot, u32)>,
    /// Keyed, as anyone can make ids that collide under a hash that is known.
    hasher: DefaultHashBuilder,
    next_seq: u64,
}

impl Graph {
    pub fn len(&self) -> usize {
        self.by_txid.len()
    }

    /// The node in a slot that is known to be filled.
    pub fn node(&self, slot: Slot) -> &Node {
        self.find(slot).expect("a slot that is named is filled")
    }

    pub fn node_mut(&mut self, slot: Slot) -> &mut Node {
        self.nodes.get_mut(slot as usize).and_then(Option::as_mut).expect("a slot that is named is filled")
    }

    pub fn find(&self, slot: Slot) -> Option<&Node> {
        self.nodes.get(slot as usize)?.as_ref()
    }

    pub fn by_txid(&self, txid: &Txid) -> Option<Slot> {
        let hash = self.hasher.hash_one(txid);
        self.by_txid.find(hash, |&slot| self.node(slot).entry.txid == *txid).copied()
    }

    pub fn by_wtxid(&self, wtxid: &Wtxid) -> Option<Slot> {
        let hash = self.hasher.hash_one(wtxid);
        self.by_wtxid.find(hash, |&slot| self.node(slot).entry.wtxid == *wtxid).copied()
    }

    pub fn spender(&self, outpoint: &OutPoint) -> Option<Slot> {
        let hash = self.hasher.hash_one(outpoint);
        let spends = |&(slot, input): &(Slot, u32)| outpoint_at(&self.nodes, slot, input) == *outpoint;
        self.spends.find(hash, spends).map(|&(slot, _)| slot)
    }

    /// The entries whose outputs `entry` spends, each once.
    pub fn parents_of(&self, entry: &Entry) -> Vec<Slot> {
        let mut parents: Vec<Slot> =
            entry.inputs.iter().filter_map(|input| self.by_txid(&input.outpoint.txid)).collect();
        sort_out(&mut parents);
        parents
    }

    /// The entries that spend outputs of a transaction with that many, each once.
    pub fn spenders_of(&self, txid: Txid, outputs: u32) -> Vec<Slot> {
        let mut spenders: Vec<Slot> =
            (0..outputs).filter_map(|vout| self.spender(&OutPoint { txid, vout })).collect();
        sort_out(&mut spenders);
        spenders
    }

    /// Adds an entry that is not here and that spends nothing which another here spends, below its parents. What
    /// spends its own outputs already is linked by `link`.
    pub fn add(&mut self, entry: Arc<Entry>, frac: FeeFrac) -> Slot {
        let parents = self.parents_of(&entry);
        let slot = self.free.pop().unwrap_or(self.nodes.len() as Slot);
        for &parent in &parents {
            self.node_mut(parent).children.push(slot);
        }
        let seq = self.next_seq;
        self.next_seq += 1;
        let (txid, wtxid) = (self.hasher.hash_one(entry.txid), self.hasher.hash_one(entry.wtxid));
        let outpoints: Vec<u64> =
            entry.inputs.iter().map(|input| self.hasher.hash_one(input.outpoint)).collect();
        let node = Node { entry, seq, frac, parents, children: Vec::new(), cluster: u32::MAX };
        if slot as usize == self.nodes.len() {
            self.nodes.push(Some(node));
        } else {
            self.nodes[slot as usize] = Some(node);
        }
        let (nodes, hasher) = (&self.nodes, &self.hasher);
        let entry_at =
            |slot: Slot| &nodes[slot as usize].as_ref().expect("a slot that is named is filled").entry;
        self.by_txid.insert_unique(txid, slot, |&slot| hasher.hash_one(entry_at(slot).txid));
        self.by_wtxid.insert_unique(wtxid, slot, |&slot| hasher.hash_one(entry_at(slot).wtxid));
        for (input, hash) in outpoints.into_iter().enumerate() {
            self.spends.insert_unique(hash, (slot, input as u32), |&(slot, input)| {
                hasher.hash_one(outpoint_at(nodes, slot, input))
            });
        }
        slot
    }

    /// Links an entry to those here that spend its outputs; returns those.
    pub fn link(&mut self, slot: Slot) -> Vec<Slot> {
        let entry = &self.node(slot).entry;
        let children = self.spenders_of(entry.txid, entry.outputs.len() as u32);
        for &child in &children {
            let parents = &mut self.node_mut(child).parents;
            if !parents.contains(&slot) {
                parents.push(slot);
            }
        }
        self.node_mut(slot).children.clone_from(&children);
        children
    }

    /// Takes an entry out, and out of its parents' and children's lists.
    pub fn remove(&mut self, slot: Slot) -> Option<Node> {
        self.find(slot)?;
        self.forget_ids(slot);
        let node = self.nodes[slot as usize].take()?;
        self.free.push(slot);
        for &parent in &node.parents {
            self.node_mut(parent).children.retain(|&child| child != slot);
        }
        for &child in &node.children {
            self.node_mut(child).parents.retain(|&parent| parent != slot);
        }
        Some(node)
    }

    fn forget_ids(&mut self, slot: Slot) {
        let entry = Arc::clone(&self.node(slot).entry);
        if let Ok(found) = self.by_txid.find_entry(self.hasher.hash_one(entry.txid), |&at| at == slot) {
            found.remove();
        }
        if let Ok(found) = self.by_wtxid.find_entry(self.hasher.hash_one(entry.wtxid), |&at| at == slot) {
            found.remove();
        }
        for (input, spent) in entry.inputs.iter().enumerate() {
            let hash = self.hasher.hash_one(spent.outpoint);
            if let Ok(found) = self.spends.find_entry(hash, |&at| at == (slot, input as u32)) {
                found.remove();
            }
        }
    }

    /// All that `next` leads to from `from`, those included, each once; parents and children stay near each other.
    pub fn closure(&self, from: &[Slot], next: impl Fn(&Node) -> &[Slot]) -> Vec<Slot> {
        let mut found = Found::default();
        let mut all: Vec<Slot> = from.iter().copied().filter(|&slot| found.insert(slot)).collect();
        let mut at = 0;
        while let Some(&slot) = all.get(at) {
            at += 1;
            for &to in next(self.node(slot)) {
                if found.insert(to) {
                    all.push(to);
                }
            }
        }
        all
    }

    /// Descendants of some, themselves included.
    pub fn descendants(&self, from: &[Slot]) -> Vec<Slot> {
        self.closure(from, |node| &node.children)
    }

    /// Ancestors of some, themselves included.
    pub fn ancestors(&self, from: &[Slot]) -> Vec<Slot> {
        self.closure(from, |node| &node.parents)
    }

    pub fn slots(&self) -> impl Iterator<Item = (Slot, &Node)> {
        let numbered = self.nodes.iter().enumerate();
        numbered.filter_map(|(slot, node)| Some((slot as Slot, node.as_ref()?)))
    }
}

/// Slots that were met. A list while they are few.
#[derive(Debug, Default)]
pub struct Found {
    few: Vec<Slot>,
    many: hashbrown::HashSet<Slot>,
}

impl Found {
    /// More are looked up faster in a hash set.
    const FEW: usize = 32;

    /// Whether it is new.
    pub fn insert(&mut self, slot: Slot) -> bool {
        if self.many.is_empty() {
            if self.few.contains(&slot) {
                return false;
            }
            self.few.push(slot);
            if self.few.len() > Self::FEW {
                self.many.extend(self.few.drain(..));
            }
            return true;
        }
        self.many.insert(slot)
    }

    pub fn contains(&self, slot: Slot) -> bool {
        if self.many.is_empty() { self.few.contains(&slot) } else { self.many.contains(&slot) }
    }
}

impl FromIterator<Slot> for Found {
    fn from_iter<I: IntoIterator<Item = Slot>>(slots: I) -> Self {
        let mut found = Self::default();
        for slot in slots {
            found.insert(slot);
        }
        found
    }
}

fn sort_out(slots: &mut Vec<Slot>) {
    slots.sort_unstable();
    slots.dedup();
}

fn outpoint_at(nodes: &[Option<Node>], slot: Slot, input: u32) -> OutPoint {
    let node = nodes[slot as usize].as_ref().expect("a slot that is named is filled");
    node.entry.inputs[input as usize].outpoint
}
