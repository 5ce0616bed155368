//! Transaction relay as one machine.
//!
//! In: peers that come and go and what they say of transactions, what the mempool said of those that came, blocks, the
//! time. Out: messages, jobs for the mempool, peers to drop. While we sync, nothing is asked for: nothing could be
//! judged.
//! Source: Bitcoin Core `net_processing.cpp` (INV, TX, NOTFOUND).

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;

use super::download::Download;
use super::filter::Key;
use super::holdings::Holdings;
use super::types::{Confirmed, JobId, Load, Output, Role, Verdict};
use crate::mempool::{Changes, Unconfirmed};
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
    outputs: VecDeque<Output>,
}

#[derive(Clone, Copy, Debug)]
struct Peer {
    role: Role,
    wtxid_relay: bool,
}

impl Relay {
    /// Nothing is relayed before `set_synced`.
    pub fn new(seed: u64) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let key = Key::new(&mut rng);
        Self {
            is_synced: false,
            peers: BTreeMap::new(),
            download: Download::new(key),
            holdings: Holdings::new(key),
            outputs: VecDeque::new(),
            rng,
        }
    }

    /// A peer's handshake is done.
    pub fn handle_peer_ready(&mut self, now: Now, peer: PeerId, info: &PeerInfo, role: Role) {
        self.peers.insert(peer, Peer { role, wtxid_relay: info.wtxid_relay });
        if role != Role::BlocksOnly {
            self.download.add_peer(peer, role, info.wtxid_relay);
        }
        self.settle(now);
    }

    /// A connection ended. Harmless for one that was dropped.
    pub fn handle_peer_gone(&mut self, now: Now, peer: PeerId) {
        if self.peers.remove(&peer).is_some() {
            self.download.remove_peer(peer);
            self.settle(now);
        }
    }

    /// Whether our chain is the network's. Before, what peers announce is passed over.
    pub fn set_synced(&mut self, now: Now, is_synced: bool) {
        self.is_synced = is_synced;
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
        let announced =
            entries.iter().filter(|entry| entry.is_transaction() && entry.by_wtxid().is_some() == by_wtxid);
        for entry in announced {
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
        if !self.is_synced || raw.len() > MAX_TX_BYTES {
            return;
        }
        let Ok(tx) = Unconfirmed::parse(raw) else { return };
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

    /// What the mempool said of a job: of its transaction, and of the child if it had one.
    pub fn handle_verdict(&mut self, now: Now, id: JobId, verdict: Verdict, child: Option<Verdict>) {
        self.download.judged(now.instant, id, verdict, child, &mut self.holdings, &mut self.rng);
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
        self.settle(now);
    }

    /// When [`Self::handle_timeout`] is next due; `None` while nothing is waited for.
    pub fn next_timeout(&self) -> Option<Instant> {
        self.download.next_timeout()
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
    }

    fn drop_peer(&mut self, now: Now, peer: PeerId, why: Misbehavior) {
        self.handle_peer_gone(now, peer);
        self.outputs.push_back(Output::Drop { peer, why });
    }
}

#[cfg(test)]
mod tests;
