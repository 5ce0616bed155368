//! Sends wallets' transactions to peers, in the plainest form.
//!
//! In: a transaction that passed our own checks, the peers that are connected. Out: `tx` messages and an
//! answer. A peer says nothing when it refuses a transaction (BIP61 is gone), so the answer tells no more than
//! that somebody who relays was handed it; the acceptance probe comes with the mempool.

use std::collections::{BTreeMap, VecDeque};

use bitcoin::Transaction;
use bitcoin::consensus::serialize;

use crate::peer::{Message, PeerId, PeerInfo};

/// A feefilter at or above this, in satoshi per 1,000 vB, is what a node in initial download sends: it drops
/// every transaction without a word.
const FEE_FILTER_OF_INITIAL_DOWNLOAD: u64 = 9_900_000;

/// One wallet's request, numbered by the shell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BroadcastId(pub u64);

/// Why nothing was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BroadcastError {
    #[error("no peers to broadcast to")]
    NoPeers,
}

/// Which peers take transactions.
#[derive(Debug, Default)]
pub(super) struct Broadcasts {
    takers: BTreeMap<PeerId, Taker>,
    outputs: VecDeque<(PeerId, Message)>,
}

#[derive(Debug, Default)]
struct Taker {
    fee_filter: u64,
}

impl Broadcasts {
    /// A peer without relay (a node with `-blocksonly`) hangs up on whoever sends it a transaction.
    pub fn peer_ready(&mut self, peer: PeerId, info: &PeerInfo) {
        if info.relay {
            self.takers.insert(peer, Taker::default());
        }
    }

    pub fn peer_gone(&mut self, peer: PeerId) {
        self.takers.remove(&peer);
    }

    pub fn fee_filter(&mut self, peer: PeerId, sat_per_kvb: u64) {
        if let Some(taker) = self.takers.get_mut(&peer) {
            taker.fee_filter = sat_per_kvb;
        }
    }

    /// Hands the transaction to every peer that takes it; `Ok` where there was one.
    pub fn send(&mut self, tx: &Transaction) -> Result<(), BroadcastError> {
        let raw = bytes::Bytes::from(serialize(tx));
        let able = self.takers.iter().filter(|(_, taker)| taker.fee_filter < FEE_FILTER_OF_INITIAL_DOWNLOAD);
        let before = self.outputs.len();
        self.outputs.extend(able.map(|(peer, _)| (*peer, Message::Tx(raw.clone()))));
        if self.outputs.len() > before { Ok(()) } else { Err(BroadcastError::NoPeers) }
    }

    pub fn poll(&mut self) -> Option<(PeerId, Message)> {
        self.outputs.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use bitcoin::absolute::LockTime;
    use bitcoin::p2p::ServiceFlags;
    use bitcoin::transaction::Version;

    use super::*;

    fn peer(relay: bool) -> PeerInfo {
        PeerInfo {
            version: 70016,
            services: ServiceFlags::NETWORK | ServiceFlags::WITNESS,
            user_agent: "/alice:1/".into(),
            start_height: 0,
            relay,
            wtxid_relay: true,
        }
    }

    fn tx() -> Transaction {
        Transaction { version: Version::TWO, lock_time: LockTime::ZERO, input: vec![], output: vec![] }
    }

    #[test]
    fn only_peers_that_take_transactions_are_sent_one() {
        let mut broadcasts = Broadcasts::default();
        let (alice, blocks_only, syncing) = (PeerId(1), PeerId(2), PeerId(3));
        broadcasts.peer_ready(alice, &peer(true));
        broadcasts.peer_ready(blocks_only, &peer(false));
        broadcasts.peer_ready(syncing, &peer(true));
        broadcasts.fee_filter(syncing, 9_936_506);
        broadcasts.fee_filter(alice, 1000);

        assert_eq!(broadcasts.send(&tx()), Ok(()));

        assert!(matches!(broadcasts.poll(), Some((to, Message::Tx(_))) if to == alice));
        assert!(broadcasts.poll().is_none());
    }

    #[test]
    fn without_a_taker_the_wallet_is_told() {
        let mut broadcasts = Broadcasts::default();
        broadcasts.peer_ready(PeerId(1), &peer(true));
        broadcasts.peer_gone(PeerId(1));

        assert_eq!(broadcasts.send(&tx()), Err(BroadcastError::NoPeers));
    }
}
