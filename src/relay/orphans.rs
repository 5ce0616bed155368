//! Transactions whose parents are unknown, until these come.
//!
//! An orphan and nonsense look the same, so little is kept: what one announcement costs is counted as weight and as
//! work, each peer has its share of both, and when all together is too much, the oldest of the peer that exceeds its
//! share most go. So nobody can push out what another peer gave.
//! Source: Bitcoin Core `node/txorphanage.h`, `node/txorphanage.cpp`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bitcoin::hashes::Hash;
use bitcoin::{OutPoint, Transaction, Txid, Wtxid};

use crate::mempool::Unconfirmed;
use crate::peer::PeerId;

/// Weight units of orphans that each peer may have here (Core: DEFAULT_RESERVED_ORPHAN_WEIGHT_PER_PEER).
pub(super) const RESERVED_WEIGHT: u64 = 404_000;
/// Work of all orphans together, in announcements (Core: DEFAULT_MAX_ORPHANAGE_LATENCY_SCORE).
pub(super) const MAX_SCORE: u64 = 3_000;
/// Inputs that are as much work as one announcement.
const INPUTS_PER_SCORE: u64 = 10;
/// No orphan is larger (Core: MAX_STANDARD_TX_WEIGHT).
const MAX_WEIGHT: u64 = 400_000;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Orphans {
    orphans: BTreeMap<Wtxid, Orphan>,
    by_outpoint: BTreeMap<OutPoint, BTreeSet<Wtxid>>,
    peers: BTreeMap<PeerId, Usage>,
    sequence: u64,
    /// Weight of all, each counted once.
    weight: u64,
    /// What the inputs of all add to the score, each counted once.
    input_score: u64,
    announcements: u64,
}

#[derive(Debug)]
struct Orphan {
    tx: Arc<Unconfirmed>,
    /// The parents that were unknown when it came.
    missing: Box<[Txid]>,
    /// Who gave or announced it, with the order.
    announcers: BTreeMap<PeerId, u64>,
    /// On whose account it is tried again.
    retry: Option<PeerId>,
}

/// What one peer has here. Nobody who has nothing is listed.
#[derive(Debug, Default)]
struct Usage {
    weight: u64,
    score: u64,
    /// What is to be tried again last, else the oldest first: the order in which they go.
    order: BTreeSet<(bool, u64, Wtxid)>,
}

fn input_score(tx: &Unconfirmed) -> u64 {
    tx.tx().input.len() as u64 / INPUTS_PER_SCORE
}

impl Orphans {
    /// Keeps it on account of this peer too. One that is too large is not kept.
    pub fn add(&mut self, peer: PeerId, tx: &Arc<Unconfirmed>, missing: &[Txid]) {
        if tx.weight() > MAX_WEIGHT {
            return;
        }
        if !self.orphans.contains_key(&tx.wtxid()) {
            let orphan =
                Orphan { tx: tx.clone(), missing: missing.into(), announcers: BTreeMap::new(), retry: None };
            self.weight += tx.weight();
            self.input_score += input_score(tx);
            self.orphans.insert(tx.wtxid(), orphan);
            for input in &tx.tx().input {
                self.by_outpoint.entry(input.previous_output).or_default().insert(tx.wtxid());
            }
        }
        self.add_announcer(peer, tx.wtxid());
    }

    /// A peer has this orphan too.
    pub fn add_announcer(&mut self, peer: PeerId, wtxid: Wtxid) {
        let Some(orphan) = self.orphans.get_mut(&wtxid) else { return };
        if orphan.announcers.contains_key(&peer) {
            return;
        }
        self.sequence += 1;
        orphan.announcers.insert(peer, self.sequence);
        let usage = self.peers.entry(peer).or_default();
        usage.weight += orphan.tx.weight();
        usage.score += 1 + input_score(&orphan.tx);
        usage.order.insert((false, self.sequence, wtxid));
        self.announcements += 1;
        self.trim();
    }

    pub fn contains(&self, wtxid: Wtxid) -> bool {
        self.orphans.contains_key(&wtxid)
    }

    pub fn has_from(&self, wtxid: Wtxid, peer: PeerId) -> bool {
        self.orphans.get(&wtxid).is_some_and(|orphan| orphan.announcers.contains_key(&peer))
    }

    /// The parents that were unknown when it came.
    pub fn missing(&self, wtxid: Wtxid) -> Option<&[Txid]> {
        self.orphans.get(&wtxid).map(|orphan| &*orphan.missing)
    }

    /// A parent was taken: its children are tried again.
    pub fn parent_came(&mut self, txid: Txid, rng: &mut fastrand::Rng) {
        let spent = OutPoint { txid, vout: 0 }..=OutPoint { txid, vout: u32::MAX };
        let children: BTreeSet<Wtxid> =
            self.by_outpoint.range(spent).flat_map(|(_, wtxids)| wtxids.iter().copied()).collect();
        children.into_iter().for_each(|wtxid| self.retry(wtxid, rng));
    }

    /// Tries it again, on account of one of its peers, by chance: none of them can make sure to be the one that leaves.
    pub fn retry(&mut self, wtxid: Wtxid, rng: &mut fastrand::Rng) {
        let Some(orphan) = self.orphans.get_mut(&wtxid) else { return };
        if orphan.retry.is_some() || orphan.announcers.is_empty() {
            return;
        }
        let nth = rng.usize(..orphan.announcers.len());
        let Some((&peer, &sequence)) = orphan.announcers.iter().nth(nth) else { return };
        orphan.retry = Some(peer);
        if let Some(usage) = self.peers.get_mut(&peer) {
            usage.order.remove(&(false, sequence, wtxid));
            usage.order.insert((true, sequence, wtxid));
        }
    }

    /// The next that is to be tried again on this peer's account. It stays here until it is removed.
    pub fn next_retry(&mut self, peer: PeerId) -> Option<Arc<Unconfirmed>> {
        let usage = self.peers.get_mut(&peer)?;
        let &(retry, sequence, wtxid) = usage.order.range((true, 0, Wtxid::all_zeros())..).next()?;
        usage.order.remove(&(retry, sequence, wtxid));
        usage.order.insert((false, sequence, wtxid));
        let orphan = self.orphans.get_mut(&wtxid)?;
        orphan.retry = None;
        Some(orphan.tx.clone())
    }

    /// What of this peer spends an output of that transaction, the newest first.
    pub fn children(&self, parent: Txid, peer: PeerId) -> impl Iterator<Item = &Arc<Unconfirmed>> {
        let order = self.peers.get(&peer).into_iter().flat_map(|usage| usage.order.iter().rev());
        order.filter_map(move |(_, _, wtxid)| {
            let tx = &self.orphans.get(wtxid)?.tx;
            tx.tx().input.iter().any(|input| input.previous_output.txid == parent).then_some(tx)
        })
    }

    pub fn remove(&mut self, wtxid: Wtxid) {
        let announcers = self.orphans.get(&wtxid).map(|orphan| orphan.announcers.clone());
        for peer in announcers.into_iter().flatten().map(|(peer, _)| peer) {
            self.remove_announcer(wtxid, peer);
        }
        self.trim();
    }

    pub fn remove_peer(&mut self, peer: PeerId) {
        let Some(usage) = self.peers.get(&peer) else { return };
        let all: Vec<Wtxid> = usage.order.iter().map(|(_, _, wtxid)| *wtxid).collect();
        all.into_iter().for_each(|wtxid| self.remove_announcer(wtxid, peer));
        self.trim();
    }

    /// A block holds this transaction: it, and whatever else spends the same, is none any more.
    pub fn confirmed(&mut self, tx: &Transaction) {
        for input in &tx.input {
            for wtxid in self.by_outpoint.get(&input.previous_output).cloned().unwrap_or_default() {
                self.remove(wtxid);
            }
        }
    }

    pub fn len(&self) -> usize {
        self.orphans.len()
    }

    fn score(&self) -> u64 {
        self.announcements + self.input_score
    }

    fn needs_trim(&self) -> bool {
        let peers = self.peers.len().max(1) as u64;
        self.score() > MAX_SCORE || self.weight > RESERVED_WEIGHT * peers
    }

    /// Takes from the worst peer until all fits (`LimitOrphans`).
    fn trim(&mut self) {
        if !self.needs_trim() {
            return;
        }
        // As both shares are the same for all, comparing over the common denominator is comparing the ratios.
        let score_share = (MAX_SCORE / self.peers.len().max(1) as u64).max(1);
        let excess = |usage: &Usage| (usage.score * RESERVED_WEIGHT).max(usage.weight * score_share);
        while self.needs_trim() {
            let worst = self.peers.iter().max_by_key(|(peer, usage)| (excess(usage), **peer));
            let oldest =
                worst.and_then(|(peer, usage)| usage.order.first().map(|(_, _, wtxid)| (*wtxid, *peer)));
            let Some((wtxid, peer)) = oldest else { break };
            self.remove_announcer(wtxid, peer);
        }
    }

    fn remove_announcer(&mut self, wtxid: Wtxid, peer: PeerId) {
        let Some(orphan) = self.orphans.get_mut(&wtxid) else { return };
        let Some(sequence) = orphan.announcers.remove(&peer) else { return };
        if orphan.retry == Some(peer) {
            orphan.retry = None;
        }
        self.announcements -= 1;
        if let Some(usage) = self.peers.get_mut(&peer) {
            usage.weight -= orphan.tx.weight();
            usage.score -= 1 + input_score(&orphan.tx);
            usage.order.remove(&(true, sequence, wtxid));
            usage.order.remove(&(false, sequence, wtxid));
            if usage.order.is_empty() {
                self.peers.remove(&peer);
            }
        }
        if orphan.announcers.is_empty()
            && let Some(orphan) = self.orphans.remove(&wtxid)
        {
            self.weight -= orphan.tx.weight();
            self.input_score -= input_score(&orphan.tx);
            for input in &orphan.tx.tx().input {
                if let Some(wtxids) = self.by_outpoint.get_mut(&input.previous_output) {
                    wtxids.remove(&wtxid);
                    if wtxids.is_empty() {
                        self.by_outpoint.remove(&input.previous_output);
                    }
                }
            }
        }
    }

    /// What must always be true.
    #[cfg(test)]
    pub fn hold_invariants(&self) {
        assert!(!self.needs_trim());
        let announcements: usize = self.orphans.values().map(|orphan| orphan.announcers.len()).sum();
        assert_eq!(announcements as u64, self.announcements);
        assert_eq!(self.weight, self.orphans.values().map(|orphan| orphan.tx.weight()).sum::<u64>());
        assert_eq!(
            self.input_score,
            self.orphans.values().map(|orphan| input_score(&orphan.tx)).sum::<u64>()
        );
        for (peer, usage) in &self.peers {
            let own = || self.orphans.values().filter(|orphan| orphan.announcers.contains_key(peer));
            assert_eq!(usage.order.len(), own().count());
            assert_eq!(usage.weight, own().map(|orphan| orphan.tx.weight()).sum::<u64>());
            assert_eq!(usage.score, own().map(|orphan| 1 + input_score(&orphan.tx)).sum::<u64>());
        }
        let outpoints: BTreeSet<OutPoint> = self
            .orphans
            .values()
            .flat_map(|orphan| orphan.tx.tx().input.iter().map(|input| input.previous_output))
            .collect();
        assert!(outpoints.iter().eq(self.by_outpoint.keys()));
    }
}

#[cfg(test)]
mod tests;
