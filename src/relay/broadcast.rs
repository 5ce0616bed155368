//! Wallets' transactions: to whom they are handed, and what is known of them afterwards.
//!
//! In: transactions that passed our own admission, peers and what they say of these transactions, the time. Out: `tx`
//! messages, questions, answers to wallets. A peer says nothing when it refuses a transaction, so it is asked: what it
//! gives back on `getdata` it has taken. Better still is an echo, an announcement by a peer that we did not send it to.
//!
//! To whom: the operator's own node, where there is one, as it relays ours like any other; else two peers at random,
//! and two more when these do not show it. Each peer that we push to may guess that we are the source, one alone may be
//! deaf. Everybody else hears of it like of any other transaction, once an echo shows that it is known. Between the
//! two ways would stand connections made for one transaction each (private broadcast): [`Broadcasts::choose`] is where
//! they belong once the dialler can make them.
//!
//! Until an echo comes it is handed out again from time to time, then rarely, until it is mined or out of the mempool.
//! Source: Bitcoin Core `net_processing.cpp` (FindTxForGetData, ReattemptInitialBroadcast), `wallet.cpp`
//! (MaybeResendWalletTxs).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bitcoin::Wtxid;
use bitcoin::hashes::{Hash, sha256d};

use super::types::{BroadcastError, BroadcastId, BroadcastReport, Evidence, Output};
use crate::mempool::{Entry, FeeRate};
use crate::peer::{Inventory, Message, PeerId};
use crate::time::Instant;

/// Peers to which a transaction is pushed at first: with one deaf peer in four, one in sixteen goes unheard.
pub(super) const FIRST_PEERS: usize = 2;
/// As many more when these did not show it after [`MORE_AFTER`]: four independent answers in all.
pub(super) const MORE_PEERS: usize = 2;
pub(super) const MORE_AFTER: Duration = Duration::from_secs(4);
/// A wallet waits ten seconds (Electrum: NetworkTimeout.Urgent).
pub(super) const ANSWER_WITHIN: Duration = Duration::from_secs(8);
/// The first question whether a peer took it; the next two come after twice the time each.
pub(super) const FIRST_PROBE: Duration = Duration::from_millis(500);
/// A peer shows what it took with its next `inv` to us: five seconds on average, seventeen were seen.
pub(super) const PROBE_FOR: Duration = Duration::from_secs(90);
/// A feefilter of so much is that of a node that syncs: it throws every transaction away (Core sends 9,936,506).
pub(super) const FEE_FILTER_OF_SYNC: FeeRate = FeeRate(9_900_000);
/// Until an echo: between ten and fifteen minutes (Core: ReattemptInitialBroadcast).
const RETRY_AFTER: Duration = Duration::from_secs(10 * 60);
const RETRY_SPREAD: Duration = Duration::from_secs(5 * 60);
/// After it: between twelve and thirty-six hours (Core: the wallet's resending).
const REMIND_AFTER: Duration = Duration::from_secs(12 * 60 * 60);
const REMIND_SPREAD: Duration = Duration::from_secs(24 * 60 * 60);
/// Core's private broadcast keeps as many (PrivateBroadcast::MAX_TRANSACTIONS).
const MAX_BROADCASTS: usize = 10_000;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Broadcasts {
    takers: BTreeMap<PeerId, Taker>,
    /// By the wtxid of the transaction, or of the child of a package.
    broadcasts: BTreeMap<Wtxid, Broadcast>,
    /// Both ids of each.
    by_id: BTreeMap<sha256d::Hash, Wtxid>,
    /// Parents in packages, each with the package.
    by_parent: BTreeSet<(Wtxid, Wtxid)>,
    pings: BTreeMap<(PeerId, u64), Wtxid>,
    timers: BTreeSet<(Instant, Wtxid)>,
    outputs: VecDeque<Output>,
    /// What was handed out or echoed, for the book of what peers know.
    pub sent: Vec<(PeerId, Arc<Entry>)>,
    pub echoed: Vec<Arc<Entry>>,
}

/// A peer that takes transactions.
#[derive(Clone, Copy, Debug)]
pub(super) struct Taker {
    pub is_trusted: bool,
    pub wtxid_relay: bool,
    pub fee_filter: FeeRate,
    /// Its chain lacks blocks that ours has: it cannot judge what spends them.
    pub is_behind: bool,
}

impl Taker {
    fn is_able(&self) -> bool {
        !self.is_behind && self.fee_filter < FEE_FILTER_OF_SYNC
    }
}

/// One transaction of a wallet, or a package.
#[derive(Debug)]
struct Broadcast {
    /// Parents before the child, which is the last.
    entries: Vec<Arc<Entry>>,
    /// Who waits for an answer, and until when.
    ids: Vec<(BroadcastId, Instant)>,
    /// It is on disk.
    is_kept: bool,
    /// When it was last handed out.
    began: Instant,
    /// Peers that are connected and were sent it.
    contacts: BTreeMap<PeerId, Contact>,
    /// Peers that announced it though we had not sent it to them.
    announcers: BTreeSet<PeerId>,
    /// Whether somebody said in this round that it arrived.
    is_delivered: bool,
    is_accepted: bool,
    is_echoed: bool,
    /// When more peers are sent it.
    more_at: Option<Instant>,
    /// When the operator is told that nobody shows it.
    unseen_at: Option<Instant>,
    next_round: Instant,
    report: BroadcastReport,
    /// Where it stands among the timers.
    timer: Option<Instant>,
}

#[derive(Clone, Copy, Debug)]
struct Contact {
    since: Instant,
    /// The nonce of the ping that went after it.
    ping: u64,
    is_delivered: bool,
    is_asking: bool,
    is_accepted: bool,
    probes: u32,
    /// When it is asked whether it took it.
    next_probe: Option<Instant>,
}

impl Broadcast {
    fn evidence(&self) -> Option<Evidence> {
        if self.is_echoed { Some(Evidence::Echo) } else { self.is_accepted.then_some(Evidence::Probe) }
    }

    fn due(&self) -> Instant {
        let probes = self.contacts.values().filter_map(|contact| contact.next_probe);
        let answers = self.ids.iter().map(|(_, by)| *by);
        probes.chain(answers).chain(self.more_at).chain(self.unseen_at).fold(self.next_round, Instant::min)
    }
}

impl Broadcasts {
    pub fn add_peer(&mut self, peer: PeerId, taker: Taker) {
        self.takers.insert(peer, taker);
    }

    pub fn set_taker(&mut self, peer: PeerId, change: impl FnOnce(&mut Taker)) {
        if let Some(taker) = self.takers.get_mut(&peer) {
            change(taker);
        }
    }

    /// What it was sent and nobody else is sent at once to others.
    pub fn remove_peer(&mut self, now: Instant, peer: PeerId, rng: &mut fastrand::Rng) {
        if self.takers.remove(&peer).is_none() {
            return;
        }
        self.pings.retain(|(of, _), _| *of != peer);
        let keys: Vec<Wtxid> = self.broadcasts.keys().copied().collect();
        for key in keys {
            let Some(broadcast) = self.broadcasts.get_mut(&key) else { continue };
            broadcast.announcers.remove(&peer);
            let was_sent = broadcast.contacts.remove(&peer).is_some();
            if was_sent && broadcast.contacts.is_empty() && !broadcast.ids.is_empty() {
                self.send(now, key, FIRST_PEERS, rng);
            }
            self.settle(now, key);
        }
    }

    /// Whether there is a peer to which a transaction can be handed.
    pub fn has_taker(&self) -> bool {
        self.takers.values().any(Taker::is_able)
    }

    /// Hands out what passed our own admission: a transaction, or parents before their child.
    pub fn begin(&mut self, now: Instant, id: BroadcastId, entries: &[Arc<Entry>], rng: &mut fastrand::Rng) {
        let Some(last) = entries.last() else { return };
        let key = last.wtxid;
        let is_known = self.broadcasts.contains_key(&key);
        let refusal = if !self.has_taker() {
            Some(BroadcastError::NoPeers)
        } else {
            (!is_known && self.broadcasts.len() >= MAX_BROADCASTS).then_some(BroadcastError::TooMany)
        };
        if let Some(error) = refusal {
            self.outputs.push_back(Output::Broadcast { id, result: Err(error) });
            return;
        }
        if !is_known {
            self.insert(now, entries, false);
            self.outputs.push_back(Output::Keep { wtxid: key, transactions: entries.to_vec() });
        }
        let Some(broadcast) = self.broadcasts.get_mut(&key) else { return };
        broadcast.ids.push((id, now + ANSWER_WITHIN));
        let is_fresh = is_known && now < broadcast.began + ANSWER_WITHIN;
        if broadcast.evidence().is_none() && !is_fresh {
            self.begin_round(now, key, rng);
        }
        self.settle(now, key);
    }

    /// What was kept before the last start, and passed admission again. It is handed out after the usual wait.
    pub fn restore(&mut self, now: Instant, entries: &[Arc<Entry>], rng: &mut fastrand::Rng) {
        let Some(last) = entries.last() else { return };
        if self.broadcasts.contains_key(&last.wtxid) || self.broadcasts.len() >= MAX_BROADCASTS {
            return;
        }
        self.insert(now, entries, true);
        if let Some(broadcast) = self.broadcasts.get_mut(&last.wtxid) {
            broadcast.next_round = now + RETRY_AFTER + RETRY_SPREAD.mul_f64(rng.f64());
        }
        self.settle(now, last.wtxid);
    }

    /// It is on disk: the wallet may be told.
    pub fn kept(&mut self, now: Instant, wtxid: Wtxid) {
        if let Some(broadcast) = self.broadcasts.get_mut(&wtxid) {
            broadcast.is_kept = true;
            self.settle(now, wtxid);
        }
    }

    /// It left the mempool: mined, conflicted, replaced, evicted or expired.
    pub fn removed(&mut self, wtxid: Wtxid) {
        if let Some(gone) = self.broadcasts.remove(&wtxid) {
            gone.timer.map(|timer| self.timers.remove(&(timer, wtxid)));
            self.by_id.remove(&gone.report.txid.to_raw_hash());
            self.by_id.remove(&wtxid.to_raw_hash());
            for (peer, contact) in &gone.contacts {
                self.pings.remove(&(*peer, contact.ping));
            }
            for parent in gone.entries.iter().filter(|entry| entry.wtxid != wtxid) {
                self.by_parent.remove(&(parent.wtxid, wtxid));
            }
            self.outputs.push_back(Output::Forget { wtxid });
            // Mined or not, what was known when it left is what can be said.
            let result = match gone.evidence() {
                Some(evidence) if gone.is_kept => Ok(evidence),
                Some(_) | None => Err(BroadcastError::Gone),
            };
            let answers = gone.ids.iter().map(|(id, _)| Output::Broadcast { id: *id, result });
            self.outputs.extend(answers);
        }
        // A parent of a package needs no more sending, its child may.
        let children = (wtxid, Wtxid::all_zeros())..=(wtxid, Wtxid::from_byte_array([0xff; 32]));
        let children: Vec<Wtxid> = self.by_parent.range(children).map(|(_, key)| *key).collect();
        for key in children {
            self.by_parent.remove(&(wtxid, key));
            if let Some(broadcast) = self.broadcasts.get_mut(&key) {
                broadcast.entries.retain(|entry| entry.wtxid != wtxid);
            }
        }
    }

    /// A peer announced these.
    pub fn announced(&mut self, now: Instant, peer: PeerId, id: sha256d::Hash, rng: &mut fastrand::Rng) {
        let Some(&key) = self.by_id.get(&id) else { return };
        let Some(broadcast) = self.broadcasts.get_mut(&key) else { return };
        // Who was sent it would announce it only to mislead us.
        if broadcast.contacts.contains_key(&peer) || !broadcast.announcers.insert(peer) {
            return;
        }
        broadcast.report.announced += 1;
        if !broadcast.is_echoed {
            broadcast.is_echoed = true;
            broadcast.next_round = now + REMIND_AFTER + REMIND_SPREAD.mul_f64(rng.f64());
            self.echoed.extend(broadcast.entries.iter().cloned());
        }
        self.settle(now, key);
    }

    /// A peer sent a transaction: the answer to a probe, or an echo.
    pub fn received(&mut self, now: Instant, peer: PeerId, wtxid: Wtxid, rng: &mut fastrand::Rng) {
        let Some(broadcast) = self.broadcasts.get_mut(&wtxid) else { return };
        match broadcast.contacts.get_mut(&peer) {
            Some(contact) if contact.probes > 0 => {
                if !contact.is_accepted {
                    contact.is_accepted = true;
                    broadcast.is_accepted = true;
                    broadcast.report.accepted += 1;
                }
                self.settle(now, wtxid);
            }
            // Sent back unasked, it proves nothing.
            Some(_) => {}
            None => self.announced(now, peer, wtxid.to_raw_hash(), rng),
        }
    }

    /// A peer was given it because it asked for it.
    pub fn asked(&mut self, now: Instant, peer: PeerId, wtxid: Wtxid) {
        let Some(broadcast) = self.broadcasts.get_mut(&wtxid) else { return };
        if let Some(contact) = broadcast.contacts.get_mut(&peer)
            && !contact.is_asking
        {
            contact.is_asking = true;
            broadcast.report.asked += 1;
            broadcast.is_delivered = true;
            self.settle(now, wtxid);
        }
    }

    /// The receipt of what was sent before the ping.
    pub fn pong(&mut self, now: Instant, peer: PeerId, nonce: u64) {
        let Some(key) = self.pings.remove(&(peer, nonce)) else { return };
        let Some(broadcast) = self.broadcasts.get_mut(&key) else { return };
        if let Some(contact) = broadcast.contacts.get_mut(&peer)
            && !contact.is_delivered
        {
            contact.is_delivered = true;
            broadcast.report.delivered += 1;
            broadcast.is_delivered = true;
            self.settle(now, key);
        }
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant, rng: &mut fastrand::Rng) {
        while let Some(&(at, key)) = self.timers.first()
            && at <= now
        {
            self.timers.pop_first();
            let Some(broadcast) = self.broadcasts.get_mut(&key) else { continue };
            broadcast.timer = None;
            if broadcast.more_at.is_some_and(|at| at <= now) {
                broadcast.more_at = None;
                if broadcast.evidence().is_none() {
                    self.send(now, key, MORE_PEERS, rng);
                }
            }
            self.tell_unseen(now, key);
            if self.broadcasts.get(&key).is_some_and(|broadcast| broadcast.next_round <= now) {
                self.begin_round(now, key, rng);
            }
            self.probe(now, key);
            self.settle(now, key);
        }
    }

    pub fn next_timeout(&self) -> Option<Instant> {
        self.timers.first().map(|(at, _)| *at)
    }

    pub fn poll(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// What is known of each, for the operator.
    pub fn report(&self) -> Vec<BroadcastReport> {
        self.broadcasts.values().map(|broadcast| broadcast.report).collect()
    }

    fn insert(&mut self, now: Instant, entries: &[Arc<Entry>], is_kept: bool) {
        let Some(last) = entries.last() else { return };
        let broadcast = Broadcast {
            entries: entries.to_vec(),
            ids: Vec::new(),
            is_kept,
            began: now,
            contacts: BTreeMap::new(),
            announcers: BTreeSet::new(),
            is_delivered: false,
            is_accepted: false,
            is_echoed: false,
            more_at: None,
            unseen_at: None,
            next_round: now + RETRY_AFTER,
            report: BroadcastReport::new(last.txid, last.wtxid),
            timer: None,
        };
        self.by_id.insert(last.txid.to_raw_hash(), last.wtxid);
        self.by_id.insert(last.wtxid.to_raw_hash(), last.wtxid);
        let parents = entries.iter().filter(|entry| entry.wtxid != last.wtxid);
        self.by_parent.extend(parents.map(|parent| (parent.wtxid, last.wtxid)));
        self.broadcasts.insert(last.wtxid, broadcast);
    }

    /// Hands it out, to others than before where there are any.
    fn begin_round(&mut self, now: Instant, key: Wtxid, rng: &mut fastrand::Rng) {
        let Some(broadcast) = self.broadcasts.get_mut(&key) else { return };
        broadcast.began = now;
        broadcast.is_delivered = false;
        let (wait, spread) =
            if broadcast.is_echoed { (REMIND_AFTER, REMIND_SPREAD) } else { (RETRY_AFTER, RETRY_SPREAD) };
        broadcast.next_round = now + wait + spread.mul_f64(rng.f64());
        if broadcast.evidence().is_none() {
            broadcast.more_at = Some(now + MORE_AFTER);
            broadcast.unseen_at = Some(now + PROBE_FOR);
        }
        self.send(now, key, FIRST_PEERS, rng);
    }

    /// The next peers, in the order of how little it tells about us.
    fn choose(&self, broadcast: &Broadcast, count: usize, rng: &mut fastrand::Rng) -> Vec<PeerId> {
        let able = || self.takers.iter().filter(|(_, taker)| taker.is_able());
        let is_new = |peer: &PeerId| !broadcast.contacts.contains_key(peer);
        let trusted: Vec<PeerId> =
            able().filter(|(peer, taker)| taker.is_trusted && is_new(peer)).map(|(peer, _)| *peer).collect();
        if !trusted.is_empty() {
            return trusted;
        }
        let mut strangers: Vec<PeerId> =
            able().filter(|(peer, taker)| !taker.is_trusted && is_new(peer)).map(|(peer, _)| *peer).collect();
        if strangers.is_empty() {
            // All had it before; a node that was restarted may have lost it.
            strangers = able().map(|(peer, _)| *peer).collect();
        }
        rng.shuffle(&mut strangers);
        let pays = |peer: &PeerId| {
            let filter = self.takers.get(peer).map_or(FeeRate(0), |taker| taker.fee_filter);
            broadcast.entries.iter().all(|entry| entry.fee.to_sat() >= filter.fee(entry.vsize))
        };
        // A peer whose filter it does not pass would likely refuse it.
        strangers.sort_by_key(|peer| !pays(peer));
        strangers.truncate(count);
        strangers
    }

    fn send(&mut self, now: Instant, key: Wtxid, count: usize, rng: &mut fastrand::Rng) {
        let Some(broadcast) = self.broadcasts.get(&key) else { return };
        let chosen = self.choose(broadcast, count, rng);
        let Some(broadcast) = self.broadcasts.get_mut(&key) else { return };
        for peer in chosen {
            for entry in &broadcast.entries {
                self.outputs.push_back(Output::Send(peer, Message::Tx(entry.raw.clone())));
                self.sent.push((peer, entry.clone()));
            }
            let ping = rng.u64(1..);
            self.outputs.push_back(Output::Send(peer, Message::Ping(ping)));
            self.pings.insert((peer, ping), key);
            let before = broadcast.contacts.insert(
                peer,
                Contact {
                    since: now,
                    ping,
                    is_delivered: false,
                    is_asking: false,
                    is_accepted: false,
                    probes: 0,
                    next_probe: Some(now + FIRST_PROBE),
                },
            );
            match before {
                Some(before) => {
                    self.pings.remove(&(peer, before.ping));
                }
                None => broadcast.report.sent += 1,
            }
        }
    }

    /// Asks those who are due whether they took it.
    fn probe(&mut self, now: Instant, key: Wtxid) {
        let Some(broadcast) = self.broadcasts.get_mut(&key) else { return };
        let Some(last) = broadcast.entries.last() else { return };
        for (peer, contact) in &mut broadcast.contacts {
            if contact.next_probe.is_none_or(|at| at > now) {
                continue;
            }
            let by_wtxid = self.takers.get(peer).is_some_and(|taker| taker.wtxid_relay);
            let asked =
                if by_wtxid { Inventory::wtxid(last.wtxid) } else { Inventory::witness_tx(last.txid) };
            self.outputs.push_back(Output::Send(*peer, Message::GetData(vec![asked])));
            contact.probes += 1;
            let next = now + FIRST_PROBE * (1 << contact.probes.min(2));
            contact.next_probe = (next < contact.since + PROBE_FOR).then_some(next);
        }
    }

    fn tell_unseen(&mut self, now: Instant, key: Wtxid) {
        let Some(broadcast) = self.broadcasts.get_mut(&key) else { return };
        if broadcast.unseen_at.is_none_or(|at| at > now) {
            return;
        }
        broadcast.unseen_at = None;
        if broadcast.evidence().is_none() && !broadcast.report.is_unseen {
            broadcast.report.is_unseen = true;
            self.outputs.push_back(Output::Unseen(broadcast.report));
        }
    }

    /// Answers what can be answered, and sets the timer.
    fn settle(&mut self, now: Instant, key: Wtxid) {
        let Some(broadcast) = self.broadcasts.get_mut(&key) else { return };
        let evidence = broadcast.evidence();
        if evidence.is_some() {
            broadcast.more_at = None;
            broadcast.unseen_at = None;
            broadcast.report.is_unseen = false;
        }
        for contact in broadcast.contacts.values_mut() {
            if contact.is_accepted || broadcast.is_echoed {
                contact.next_probe = None;
            }
        }
        let (is_kept, is_delivered) = (broadcast.is_kept, broadcast.is_delivered);
        broadcast.ids.retain(|(id, by)| {
            let result = match evidence {
                Some(evidence) if is_kept => Ok(evidence),
                _ if *by > now => return true,
                _ if !is_kept => Err(BroadcastError::NotKept),
                _ if is_delivered => Ok(Evidence::Delivery),
                _ => Err(BroadcastError::NotDelivered),
            };
            self.outputs.push_back(Output::Broadcast { id: *id, result });
            false
        });
        if let Some(timer) = broadcast.timer.take() {
            self.timers.remove(&(timer, key));
        }
        let due = broadcast.due();
        broadcast.timer = Some(due);
        self.timers.insert((due, key));
    }
}

#[cfg(test)]
mod tests;
