//! Transaction relay as one machine.
//!
//! In: peers that come and go and what they say of transactions, what the mempool said of those that came, blocks, the
//! time. Out: messages, jobs for the mempool, peers to drop. While we sync, nothing is asked for: nothing could be
//! judged.
//! Source: Bitcoin Core `net_processing.cpp` (INV, TX, NOTFOUND, GETDATA, FEEFILTER).

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bitcoin::Wtxid;
use bytes::Bytes;

use super::announce::Announcements;
use super::broadcast::{Broadcasts, Taker};
use super::download::Download;
use super::fee_filter::FeeFilters;
use super::filter::Key;
use super::holdings::Holdings;
use super::types::{BroadcastId, BroadcastReport, Confirmed, JobId, KeptState, Load, Output, Role, Verdict};
use crate::mempool::{Changes, Entry, FeeRate, Policy, Unconfirmed};
use crate::peer::{Inventory, Message, Misbehavior, PeerId, PeerInfo};
use crate::time::{Instant, Now};

/// Entries of one `getdata` (Core: MAX_GETDATA_SZ).
const MAX_GET_DATA: usize = 1_000;
/// No transaction with more bytes is relayed, as each weighs one unit at least (Core: MAX_STANDARD_TX_WEIGHT); it is
/// not even read.
const MAX_TX_BYTES: usize = 400_000;

/// See the module.
#[derive(Debug)]
pub struct Relay {
    rng: fastrand::Rng,
    is_synced: bool,
    peers: BTreeMap<PeerId, Peer>,
    download: Download,
    holdings: Holdings,
    pub(super) announcements: Announcements,
    fee_filters: FeeFilters,
    pub(super) broadcasts: Broadcasts,
    outputs: VecDeque<Output>,
}

#[derive(Clone, Copy, Debug)]
struct Peer {
    role: Role,
    wtxid_relay: bool,
}

impl Relay {
    /// Nothing is relayed before `set_synced`.
    pub fn new(seed: u64, policy: &Policy) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let key = Key::new(&mut rng);
        Self {
            is_synced: false,
            peers: BTreeMap::new(),
            download: Download::new(key),
            holdings: Holdings::new(key),
            announcements: Announcements::new(key),
            fee_filters: FeeFilters::new(policy.min_relay, policy.incremental),
            broadcasts: Broadcasts::default(),
            outputs: VecDeque::new(),
            rng,
        }
    }

    /// A peer's handshake is done.
    pub fn handle_peer_ready(&mut self, now: Now, peer: PeerId, info: &PeerInfo, role: Role) {
        self.peers.insert(peer, Peer { role, wtxid_relay: info.wtxid_relay });
        if role != Role::BlocksOnly {
            self.download.add_peer(peer, role, info.wtxid_relay);
            self.fee_filters.add_peer(now.instant, peer);
        }
        // Who wants no transactions hangs up on who sends one.
        if role != Role::BlocksOnly && info.relay {
            self.announcements.add_peer(peer, info.wtxid_relay);
            let taker = Taker {
                is_trusted: matches!(role, Role::Trusted { .. }),
                wtxid_relay: info.wtxid_relay,
                fee_filter: FeeRate(0),
                is_behind: false,
            };
            self.broadcasts.add_peer(peer, taker);
        }
        self.settle(now);
        self.ask_mempool(peer);
    }

    /// A connection ended. Harmless for one that was dropped.
    pub fn handle_peer_gone(&mut self, now: Now, peer: PeerId) {
        if self.peers.remove(&peer).is_some() {
            self.download.remove_peer(peer);
            self.fee_filters.remove_peer(peer);
            self.announcements.remove_peer(peer);
            self.broadcasts.remove_peer(now.instant, peer, &mut self.rng);
            self.settle(now);
        }
    }

    /// Whether our chain is the network's. Before, what peers announce is passed over.
    pub fn set_synced(&mut self, now: Now, is_synced: bool) {
        let was_synced = std::mem::replace(&mut self.is_synced, is_synced);
        self.fee_filters.set_synced(now.instant, is_synced);
        if is_synced && !was_synced {
            // What we take goes first: the node tells only of that.
            self.settle(now);
            let peers: Vec<PeerId> = self.peers.keys().copied().collect();
            peers.into_iter().for_each(|peer| self.ask_mempool(peer));
        }
        self.settle(now);
    }

    /// Whether transactions are still to be judged that were here before. Until then nothing is asked for: it may be one
    /// of them, as all are that the operator's own node announces after a restart.
    pub fn set_restoring(&mut self, now: Now, is_restoring: bool) {
        self.download.set_restoring(is_restoring);
        self.settle(now);
    }

    /// A peer announced this; blocks among it are passed over.
    pub fn handle_inv(&mut self, now: Now, from: PeerId, entries: &[Inventory]) {
        let Some(peer) = self.peers.get(&from) else { return };
        if !self.is_synced || peer.role == Role::BlocksOnly {
            return;
        }
        let by_wtxid = peer.wtxid_relay;
        // Who agreed on wtxids announces nothing else.
        let agreed = |entry: &&Inventory| entry.is_transaction() && entry.by_wtxid().is_some() == by_wtxid;
        for entry in entries.iter().filter(agreed) {
            self.announcements.known(from, entry.hash);
            self.broadcasts.announced(now.instant, from, entry.hash, &mut self.rng);
        }
        for entry in entries.iter().filter(agreed) {
            let asked = entry.by_txid().map_or(*entry, Inventory::witness_tx);
            if !self.download.announced(now.instant, from, asked, &self.holdings) {
                break;
            }
        }
        self.settle(now);
    }

    /// A peer sent a transaction. What is none, or too large, is passed over, as Core does with the first.
    pub fn handle_tx(&mut self, now: Now, from: PeerId, raw: &Bytes) {
        let Some(peer) = self.peers.get(&from) else { return };
        if peer.role == Role::BlocksOnly {
            self.drop_peer(now, from, Misbehavior::BadMessage("tx, although we asked for none".to_owned()));
            return;
        }
        let by_wtxid = peer.wtxid_relay;
        if !self.is_synced || raw.len() > MAX_TX_BYTES {
            return;
        }
        let Ok(tx) = Unconfirmed::parse(raw) else { return };
        self.look_for_secrets(now, from, &tx);
        let id = if by_wtxid { tx.wtxid().to_raw_hash() } else { tx.txid().to_raw_hash() };
        self.announcements.known(from, id);
        self.broadcasts.received(now.instant, from, tx.wtxid(), &mut self.rng);
        self.download.received(from, Arc::new(tx), &self.holdings);
        self.settle(now);
    }

    /// A peer has not got what it was asked for.
    pub fn handle_not_found(&mut self, now: Now, from: PeerId, entries: &[Inventory]) {
        for entry in entries.iter().filter(|entry| entry.is_transaction()) {
            self.download.not_found(from, entry.hash);
        }
        self.settle(now);
    }

    /// A peer asks for transactions. Blocks are not served.
    pub fn handle_get_data(&mut self, now: Now, from: PeerId, entries: &[Inventory]) {
        let (messages, sent) = self.announcements.answer(from, entries, &self.holdings);
        self.outputs.extend(messages.into_iter().map(|message| Output::Send(from, message)));
        for wtxid in sent {
            self.broadcasts.asked(now.instant, from, wtxid);
        }
        self.settle(now);
    }

    /// A peer wants nothing below this rate, in satoshi per 1,000 virtual bytes (BIP133).
    pub fn handle_fee_filter(&mut self, from: PeerId, sat_per_kvb: u64) {
        self.announcements.set_fee_filter(from, FeeRate(sat_per_kvb));
        self.broadcasts.set_taker(from, |taker| taker.fee_filter = FeeRate(sat_per_kvb));
    }

    /// A peer answered a ping that was not the session's.
    pub fn handle_pong(&mut self, now: Now, from: PeerId, nonce: u64) {
        self.broadcasts.pong(now.instant, from, nonce);
        self.settle(now);
    }

    /// Whether a peer's chain lacks blocks that ours has: wallets' transactions are not handed to it then.
    pub fn set_behind(&mut self, peer: PeerId, is_behind: bool) {
        self.broadcasts.set_taker(peer, |taker| taker.is_behind = is_behind);
    }

    /// What the mempool takes at least: peers are told.
    pub fn set_fee_floor(&mut self, now: Now, floor: FeeRate) {
        self.fee_filters.set_floor(now.instant, floor, &mut self.rng);
        self.settle(now);
    }

    /// Whether there is a peer to which a wallet's transaction can be handed. To be asked before it is admitted: what
    /// cannot be sent is not to stay in the mempool.
    pub fn can_broadcast(&self) -> bool {
        self.broadcasts.has_taker()
    }

    /// Hands out a wallet's transaction that is in the mempool now, or a package, parents before their child. The
    /// answer is [`Output::Broadcast`].
    pub fn broadcast(&mut self, now: Now, id: BroadcastId, transactions: &[Arc<Entry>]) {
        for entry in transactions {
            self.holdings.add(entry);
            self.download.accepted(entry, &mut self.rng);
        }
        self.broadcasts.begin(now.instant, id, transactions, &mut self.rng);
        self.settle(now);
    }

    /// What [`Output::Keep`] asked for is done.
    pub fn handle_kept(&mut self, now: Now, wtxid: Wtxid) {
        self.broadcasts.kept(now.instant, wtxid);
        self.settle(now);
    }

    /// What was kept together before the last start and is in the mempool again. The shell forgets by itself what was
    /// refused.
    pub fn restore_broadcast(&mut self, now: Now, transactions: &[Arc<Entry>], kept: KeptState) {
        transactions.iter().for_each(|entry| self.holdings.add(entry));
        self.broadcasts.restore(now.instant, transactions, kept, &mut self.rng);
        self.settle(now);
    }

    /// What is known of each transaction of a wallet that is not mined yet.
    pub fn report(&self) -> Vec<BroadcastReport> {
        self.broadcasts.report()
    }

    /// What the mempool said of a job: of its transaction, and of the child if it had one.
    pub fn handle_verdict(&mut self, now: Now, id: JobId, verdict: Verdict, child: Option<Verdict>) {
        if let (Some(from), Verdict::MissingInputs { parents }) = (self.download.sender(id), &verdict) {
            // Who gave a child has its parents.
            parents.iter().for_each(|parent| self.announcements.known(from, parent.to_raw_hash()));
        }
        let accepted =
            self.download.judged(now.instant, id, verdict, child, &mut self.holdings, &mut self.rng);
        for entry in accepted {
            self.announcements.queue(now.instant, &entry, &mut self.rng);
        }
        self.settle(now);
    }

    /// What came to the mempool and left it, for whatever reason; in the order in which verdicts are given. What a
    /// verdict told already may be told again.
    pub fn handle_mempool(&mut self, now: Now, changes: &Changes) {
        for entry in &changes.added {
            self.holdings.add(entry);
            self.download.accepted(entry, &mut self.rng);
        }
        for (entry, _) in &changes.removed {
            self.holdings.remove(entry);
            self.broadcasts.removed(entry.wtxid);
        }
        self.settle(now);
    }

    /// A block was connected to the chain.
    pub fn handle_block_connected(&mut self, now: Now, transactions: &[Confirmed<'_>]) {
        self.download.confirmed(transactions, &mut self.rng);
        self.settle(now);
    }

    /// A block was taken off the chain.
    pub fn handle_block_disconnected(&mut self, now: Now) {
        self.download.disconnected();
        self.settle(now);
    }

    /// The chain's tip is another one, after all blocks of the change were told.
    pub fn handle_tip_changed(&mut self, now: Now) {
        self.download.tip_changed();
        self.settle(now);
    }

    /// To be called when [`Self::next_timeout`] has come; at other times it does no harm.
    pub fn handle_timeout(&mut self, now: Now) {
        self.broadcasts.handle_timeout(now.instant, &mut self.rng);
        self.settle(now);
    }

    /// When [`Self::handle_timeout`] is next due; `None` while nothing is waited for.
    pub fn next_timeout(&self) -> Option<Instant> {
        [
            self.download.next_timeout(),
            self.announcements.next_timeout(),
            self.fee_filters.next_timeout(),
            self.broadcasts.next_timeout(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Call until `None` after each of the above.
    pub fn poll(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// How busy the relay is.
    pub fn load(&self) -> Load {
        self.download.load()
    }

    /// What must always be true.
    #[cfg(test)]
    pub(super) fn hold_invariants(&self) {
        self.download.hold_invariants();
    }

    /// Puts out whatever is due.
    fn settle(&mut self, now: Now) {
        for (peer, entries) in self.download.requests(now.instant, &self.holdings, &mut self.rng) {
            for chunk in entries.chunks(MAX_GET_DATA) {
                self.outputs.push_back(Output::Send(peer, Message::GetData(chunk.to_vec())));
            }
        }
        while let Some(job) = self.download.next_job(&self.holdings) {
            self.outputs.push_back(Output::Admit(job));
        }
        self.outputs.extend(std::iter::from_fn(|| self.broadcasts.poll()));
        for (wtxid, is_secret) in self.broadcasts.secrets.drain(..) {
            self.holdings.set_secret(wtxid, is_secret);
        }
        for (peer, entry) in self.broadcasts.sent.drain(..) {
            self.announcements.sent(peer, &entry, &self.holdings);
        }
        for entry in self.broadcasts.echoed.drain(..) {
            self.announcements.queue(now.instant, &entry, &mut self.rng);
        }
        for (peer, entries) in self.announcements.take(now.instant, &self.holdings, &mut self.rng) {
            self.outputs.push_back(Output::Send(peer, Message::Inv(entries)));
        }
        for (peer, rate) in self.fee_filters.take(now.instant, &mut self.rng) {
            self.outputs.push_back(Output::Send(peer, Message::FeeFilter(rate.0)));
        }
    }

    /// Asks the operator's own node for all that its mempool holds (BIP35).
    fn ask_mempool(&mut self, peer: PeerId) {
        let role = self.peers.get(&peer).map(|peer| peer.role);
        if self.is_synced && role == Some(Role::Trusted { ask_mempool: true }) {
            self.outputs.push_back(Output::Send(peer, Message::Mempool));
        }
    }

    fn drop_peer(&mut self, now: Now, peer: PeerId, why: Misbehavior) {
        self.handle_peer_gone(now, peer);
        self.outputs.push_back(Output::Drop { peer, why });
    }
}

mod private;

#[cfg(test)]
mod tests;
