//! What we announce to whom, and what we give out.
//!
//! In: transactions that the mempool took, what peers have and ask for, the time. Out: `inv` at random moments, so
//! that nobody can tell from the moment where a transaction came from, and the answers to `getdata`. Only what was
//! announced to a peer is given to it, and its unconfirmed parents, each once: a peer learns nothing about what else
//! we hold, and cannot make us send the same for ever. (Core gives whatever entered before its last `inv`.) A secret, and
//! what needs one, is neither said nor given.
//! Relaying what others gave is also what our own wallets' transactions hide among.
//! Source: Bitcoin Core `net_processing.cpp` (SendMessages, ProcessGetData).

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bitcoin::consensus::{deserialize, serialize};
use bitcoin::hashes::{Hash, sha256d};
use bitcoin::{Transaction, Txid, Wtxid};
use bytes::Bytes;

use super::filter::{Key, Recent};
use super::holdings::Holdings;
use crate::mempool::{Entry, FeeRate};
use crate::peer::{Inventory, InventoryKind, Message, PeerId};
use crate::time::Instant;

/// Mean wait between two `inv`s to a peer that we dialled (Core: OUTBOUND_INVENTORY_BROADCAST_INTERVAL).
pub(super) const MEAN_WAIT: Duration = Duration::from_secs(2);
/// Announcements of one `inv`, while few wait (Core: INVENTORY_BROADCAST_TARGET, 14 a second over five seconds).
pub(super) const TARGET: usize = 70;
/// For each thousand that wait there are five more of them.
const PER_THOUSAND: usize = 5;
/// And never more (Core: INVENTORY_BROADCAST_MAX).
const MAX: usize = 1_000;
/// What the peer is known to have (Core: m_tx_inventory_known_filter).
const KNOWN: usize = 50_000;
/// What the peer may still ask for. At the full rate this is half an hour.
const OFFERED: usize = 25_000;
/// Announcements that wait for one peer; it hears of no more until it has heard of some of these.
const MAX_QUEUED: usize = 50_000;

/// See the module.
#[derive(Debug)]
pub(super) struct Announcements {
    key: Key,
    listeners: BTreeMap<PeerId, Listener>,
}

/// A peer that wants announcements.
#[derive(Debug)]
struct Listener {
    wtxid_relay: bool,
    /// Satoshi per 1,000 virtual bytes below which it wants nothing (BIP133).
    fee_filter: FeeRate,
    /// Under the id by which transactions are announced to it.
    known: Recent,
    /// Under both ids.
    offered: Recent,
    queue: BTreeSet<Wtxid>,
    /// When the next `inv` is sent; `None` while there is nothing to say.
    due: Option<Instant>,
}

impl Announcements {
    pub fn new(key: Key) -> Self {
        Self { key, listeners: BTreeMap::new() }
    }

    pub fn add_peer(&mut self, peer: PeerId, wtxid_relay: bool) {
        let listener = Listener {
            wtxid_relay,
            fee_filter: FeeRate(0),
            known: Recent::new(self.key, KNOWN),
            offered: Recent::new(self.key, OFFERED),
            queue: BTreeSet::new(),
            due: None,
        };
        self.listeners.insert(peer, listener);
    }

    pub fn remove_peer(&mut self, peer: PeerId) {
        self.listeners.remove(&peer);
    }

    pub fn set_fee_filter(&mut self, peer: PeerId, fee_filter: FeeRate) {
        if let Some(listener) = self.listeners.get_mut(&peer) {
            listener.fee_filter = fee_filter;
        }
    }

    /// The peer has what goes by this id.
    pub fn known(&mut self, peer: PeerId, id: sha256d::Hash) {
        if let Some(listener) = self.listeners.get_mut(&peer) {
            listener.known.insert(id.as_byte_array());
        }
    }

    /// The peer was sent it, and may ask for it again, or for its parents.
    pub fn sent(&mut self, peer: PeerId, entry: &Entry, holdings: &Holdings) {
        if let Some(listener) = self.listeners.get_mut(&peer) {
            listener.known.insert(listener.id_of(entry).as_byte_array());
            listener.offer(entry, holdings);
        }
    }

    /// The mempool took it: whoever does not have it hears of it in time.
    pub fn queue(&mut self, now: Instant, entry: &Entry, rng: &mut fastrand::Rng) {
        for listener in self.listeners.values_mut() {
            if listener.queue.len() >= MAX_QUEUED
                || listener.known.contains(listener.id_of(entry).as_byte_array())
            {
                continue;
            }
            listener.queue.insert(entry.wtxid);
            // The process has no memory: beginning it when there is something to say is the same as letting it run.
            listener.due.get_or_insert_with(|| now + exponential(rng, MEAN_WAIT));
        }
    }

    /// The `inv`s that are due.
    pub fn take(
        &mut self,
        now: Instant,
        holdings: &Holdings,
        rng: &mut fastrand::Rng,
    ) -> Vec<(PeerId, Vec<Inventory>)> {
        let mut due = Vec::new();
        for (peer, listener) in &mut self.listeners {
            if listener.due.is_some_and(|due| due <= now) {
                let entries = listener.next_inv(holdings);
                listener.due = (!listener.queue.is_empty()).then(|| now + exponential(rng, MEAN_WAIT));
                if !entries.is_empty() {
                    due.push((*peer, entries));
                }
            }
        }
        due
    }

    /// Answers a `getdata`: what was offered is sent, the rest is named in `notfound`. A peer that wants no
    /// announcements gets no answer. The ids of what was sent come second.
    pub fn answer(
        &mut self,
        peer: PeerId,
        entries: &[Inventory],
        holdings: &Holdings,
    ) -> (Vec<Message>, Vec<Wtxid>) {
        let (mut messages, mut sent, mut missing) = (Vec::new(), Vec::new(), Vec::new());
        let Some(listener) = self.listeners.get_mut(&peer) else { return (messages, sent) };
        for asked in entries.iter().filter(|entry| entry.is_transaction()) {
            let found = holdings.find(asked).filter(|entry| holdings.is_public(entry)).and_then(|entry| {
                let raw =
                    if asked.kind == InventoryKind::Tx { stripped(&entry.raw)? } else { entry.raw.clone() };
                listener.offered.remove(asked.hash.as_byte_array()).then_some((entry, raw))
            });
            match found {
                Some((entry, raw)) => {
                    // Whoever gets a child may ask for the parents.
                    listener.offer_parents(entry, holdings);
                    messages.push(Message::Tx(raw));
                    sent.push(entry.wtxid);
                }
                None => missing.push(*asked),
            }
        }
        if !missing.is_empty() {
            messages.push(Message::NotFound(missing));
        }
        (messages, sent)
    }

    pub fn next_timeout(&self) -> Option<Instant> {
        self.listeners.values().filter_map(|listener| listener.due).min()
    }
}

impl Listener {
    /// The id by which it is announced to this peer.
    fn id_of(&self, entry: &Entry) -> sha256d::Hash {
        if self.wtxid_relay { entry.wtxid.to_raw_hash() } else { entry.txid.to_raw_hash() }
    }

    /// The best that wait, parents before children.
    fn next_inv(&mut self, holdings: &Holdings) -> Vec<Inventory> {
        let limit = MAX.min(TARGET + self.queue.len() / 1_000 * PER_THOUSAND);
        // What left the mempool, what the peer has by now, and what it does not want is not said any more.
        let (known, wtxid_relay, filter) = (&self.known, self.wtxid_relay, self.fee_filter);
        let id =
            |entry: &Entry| if wtxid_relay { entry.wtxid.to_raw_hash() } else { entry.txid.to_raw_hash() };
        self.queue.retain(|wtxid| {
            holdings.by_wtxid(wtxid).is_some_and(|entry| {
                !known.contains(id(entry).as_byte_array()) && entry.fee.to_sat() >= filter.fee(entry.vsize)
            })
        });
        // What may not be said yet waits here until it may.
        let held = self.queue.iter().filter_map(|wtxid| holdings.by_wtxid(wtxid));
        let mut best: Vec<&Arc<Entry>> = held.filter(|entry| holdings.is_public(entry)).collect();
        best.sort_unstable_by_key(|entry| {
            (Reverse(FeeRate::of(entry.fee.to_sat(), entry.vsize)), entry.wtxid)
        });
        let mut chosen = Vec::new();
        for entry in best {
            if chosen.len() >= limit {
                break;
            }
            self.choose(entry, holdings, &mut chosen);
        }
        chosen.truncate(limit);
        for entry in &chosen {
            self.queue.remove(&entry.wtxid);
            let id = self.id_of(entry);
            self.known.insert(id.as_byte_array());
            self.offer(entry, holdings);
        }
        let named = |entry: &Arc<Entry>| {
            if self.wtxid_relay { Inventory::wtxid(entry.wtxid) } else { Inventory::txid(entry.txid) }
        };
        chosen.iter().map(named).collect()
    }

    /// Chooses those of its ancestors that wait, and then itself.
    fn choose(&self, entry: &Arc<Entry>, holdings: &Holdings, chosen: &mut Vec<Arc<Entry>>) {
        let mut stack = vec![(entry.clone(), false)];
        while let Some((entry, parents_done)) = stack.pop() {
            if !self.queue.contains(&entry.wtxid) || chosen.iter().any(|one| one.wtxid == entry.wtxid) {
                continue;
            }
            if parents_done {
                chosen.push(entry);
            } else {
                let parents = parents(&entry, holdings).cloned().collect::<Vec<_>>();
                stack.push((entry, true));
                stack.extend(parents.into_iter().map(|parent| (parent, false)));
            }
        }
    }

    fn offer(&mut self, entry: &Entry, holdings: &Holdings) {
        self.offered.insert(entry.txid.as_byte_array());
        self.offered.insert(entry.wtxid.as_byte_array());
        self.offer_parents(entry, holdings);
    }

    /// A child may be worth more than its parent, of which the peer was not told: it asks for it by txid.
    fn offer_parents(&mut self, entry: &Entry, holdings: &Holdings) {
        for parent in parents(entry, holdings) {
            self.offered.insert(parent.txid.as_byte_array());
        }
    }
}

fn parents<'a>(entry: &'a Entry, holdings: &'a Holdings) -> impl Iterator<Item = &'a Arc<Entry>> {
    let txids: BTreeSet<Txid> = entry.inputs.iter().map(|input| input.outpoint.txid).collect();
    txids.into_iter().filter_map(|txid| holdings.by_txid(&txid))
}

/// Without its witness, as who asks by MSG_TX alone wants it.
fn stripped(raw: &Bytes) -> Option<Bytes> {
    let mut tx: Transaction = deserialize(raw).ok()?;
    tx.input.iter_mut().for_each(|input| input.witness.clear());
    Some(serialize(&tx).into())
}

/// A wait of a Poisson process.
pub(super) fn exponential(rng: &mut fastrand::Rng, mean: Duration) -> Duration {
    mean.mul_f64(-(1.0 - rng.f64()).ln())
}

#[cfg(test)]
mod tests;
