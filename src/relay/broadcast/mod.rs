//! Wallets' transactions: to whom they are handed, and what is known of them afterwards.
//!
//! In: transactions that passed our own admission, peers and what they say of these transactions, the time. Out: `tx`
//! messages, questions, answers to wallets. A peer says nothing when it refuses a transaction, so it is asked: what it
//! gives back on `getdata` it has taken. Better still is an echo, an announcement by a peer that we did not send it to.
//!
//! To whom: the operator's own node, where there is one, as it relays ours like any other; else to strangers over
//! connections made for it alone, where a proxy can make them (`private`); else two peers at random, and two more when
//! these do not show it. Each peer that we push to may guess that we are the source, one alone may be deaf. Everybody
//! else hears of it like of any other transaction, once an echo shows that it is known. What goes over private
//! connections is a secret until then: no peer learns from us that we have it, and the echo is the transaction itself.
//!
//! Until an echo comes it is handed out again from time to time, then rarely (over private connections not at all), until
//! it is mined or out of the mempool.
//! Source: Bitcoin Core `net_processing.cpp` (FindTxForGetData, ReattemptInitialBroadcast), `wallet.cpp`
//! (MaybeResendWalletTxs).

mod record;
mod rounds;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bitcoin::Wtxid;
use bitcoin::hashes::{Hash, sha256d};

use super::private::{Action, Private, Step};
use super::types::{
    BroadcastError, BroadcastId, BroadcastReport, KeptState, Output, PrivateEvent, PrivateId, PrivateState,
    Way,
};
use crate::mempool::{Entry, FeeRate};
use crate::peer::{Inventory, Message, PeerId};
use crate::time::Instant;
use record::Broadcast;
pub(super) use record::Taker;

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
    private: Private,
    outputs: VecDeque<Output>,
    /// What was handed out or echoed, for the book of what peers know.
    pub sent: Vec<(PeerId, Arc<Entry>)>,
    pub echoed: Vec<Arc<Entry>>,
    /// What nobody may learn of from now on, or may again.
    pub secrets: Vec<(Wtxid, bool)>,
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
                self.hand_out(now, key, FIRST_PEERS, rng);
            }
            self.settle(now, key);
        }
    }

    /// Whether there is a peer to which a transaction can be handed.
    pub fn has_taker(&self) -> bool {
        self.private.state() == PrivateState::Ready || self.takers.values().any(Taker::is_able)
    }

    /// Whether private connections can be made.
    pub fn set_private(&mut self, now: Instant, state: PrivateState) {
        self.private.set_state(now, state);
    }

    /// Something came of a private connection.
    pub fn private_event(
        &mut self,
        now: Instant,
        id: PrivateId,
        event: PrivateEvent,
        rng: &mut fastrand::Rng,
    ) {
        let Some((key, step)) = self.private.handle(now, id, event, rng) else { return };
        let Some(broadcast) = self.broadcasts.get_mut(&key) else { return };
        match step {
            Step::Offered => broadcast.report.sent += 1,
            Step::Asked => broadcast.report.asked += 1,
            Step::Delivered => broadcast.report.delivered += 1,
        }
        broadcast.is_delivered |= step != Step::Offered;
        self.settle(now, key);
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
    pub fn restore(
        &mut self,
        now: Instant,
        entries: &[Arc<Entry>],
        kept: KeptState,
        rng: &mut fastrand::Rng,
    ) {
        let Some(last) = entries.last() else { return };
        if self.broadcasts.contains_key(&last.wtxid) || self.broadcasts.len() >= MAX_BROADCASTS {
            return;
        }
        self.insert(now, entries, true);
        if let Some(broadcast) = self.broadcasts.get_mut(&last.wtxid) {
            broadcast.report.way = kept.is_private.then_some(Way::Private);
            broadcast.report.is_echoed = kept.is_echoed;
            broadcast.next_round = now + next_wait(kept.is_echoed, rng);
            if broadcast.is_secret() {
                self.secrets.extend(broadcast.secrecy());
            }
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
            self.private.remove(wtxid);
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

    /// A peer announced these. Of a secret that proves nothing: it is asked for, as whoever has not got it would do.
    pub fn announced(&mut self, now: Instant, peer: PeerId, id: sha256d::Hash, rng: &mut fastrand::Rng) {
        let Some(&key) = self.by_id.get(&id) else { return };
        if self.broadcasts.get(&key).is_some_and(|broadcast| !broadcast.is_secret()) {
            self.echo(now, peer, key, rng);
        }
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
            None => self.echo(now, peer, wtxid, rng),
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
        self.private.handle_timeout(now, rng);
        while let Some(&(at, key)) = self.timers.first()
            && at <= now
        {
            self.timers.pop_first();
            let Some(broadcast) = self.broadcasts.get_mut(&key) else { continue };
            broadcast.timer = None;
            if broadcast.more_at.is_some_and(|at| at <= now) {
                broadcast.more_at = None;
                if broadcast.evidence().is_none() {
                    self.hand_out(now, key, MORE_PEERS, rng);
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
        self.timers.first().map(|(at, _)| *at).into_iter().chain(self.private.next_timeout()).min()
    }

    pub fn poll(&mut self) -> Option<Output> {
        let output = self.outputs.pop_front();
        output.or_else(|| {
            Some(match self.private.poll()? {
                Action::Dial(id) => Output::Dial(id),
                Action::Give(connection, picked) => {
                    let picked = picked.and_then(|wtxid| self.broadcasts.get(&wtxid));
                    let transactions = picked.map_or_else(Vec::new, |picked| picked.entries.clone());
                    Output::Give { connection, transactions }
                }
            })
        })
    }

    /// What is known of each, for the operator.
    pub fn report(&self) -> Vec<BroadcastReport> {
        self.broadcasts.values().map(|broadcast| broadcast.report).collect()
    }

    /// A peer shows that it has it.
    fn echo(&mut self, now: Instant, peer: PeerId, key: Wtxid, rng: &mut fastrand::Rng) {
        let Some(broadcast) = self.broadcasts.get_mut(&key) else { return };
        // Who was sent it would announce it only to mislead us.
        if broadcast.contacts.contains_key(&peer) || !broadcast.announcers.insert(peer) {
            return;
        }
        broadcast.report.announced += 1;
        if !broadcast.report.is_echoed {
            let was_secret = broadcast.is_secret();
            broadcast.report.is_echoed = true;
            broadcast.next_round = now + next_wait(true, rng);
            self.private.remove(key);
            if was_secret {
                self.secrets.extend(broadcast.secrecy());
            }
            self.echoed.extend(broadcast.entries.iter().cloned());
            self.outputs.push_back(Output::Note { wtxid: key, kept: broadcast.kept() });
        }
        self.settle(now, key);
    }

    fn insert(&mut self, now: Instant, entries: &[Arc<Entry>], is_kept: bool) {
        let Some(last) = entries.last() else { return };
        let Some(broadcast) = Broadcast::new(now, entries, is_kept) else { return };
        self.by_id.insert(last.txid.to_raw_hash(), last.wtxid);
        self.by_id.insert(last.wtxid.to_raw_hash(), last.wtxid);
        let parents = entries.iter().filter(|entry| entry.wtxid != last.wtxid);
        self.by_parent.extend(parents.map(|parent| (parent.wtxid, last.wtxid)));
        self.broadcasts.insert(last.wtxid, broadcast);
    }
}

/// How long it is left alone.
fn next_wait(is_echoed: bool, rng: &mut fastrand::Rng) -> Duration {
    let (wait, spread) = if is_echoed { (REMIND_AFTER, REMIND_SPREAD) } else { (RETRY_AFTER, RETRY_SPREAD) };
    wait + spread.mul_f64(rng.f64())
}

#[cfg(test)]
mod tests;
