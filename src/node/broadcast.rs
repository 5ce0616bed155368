//! Sends wallets' transactions to peers, in the plainest form.
//!
//! In: a transaction that passed our own checks, the peers that are connected. Out: `tx` messages and an
//! answer. A peer says nothing when it refuses a transaction (BIP61 is gone), so the answer tells no more than
//! that somebody who relays was handed it; the acceptance probe comes with the mempool.

use std::collections::{BTreeMap, VecDeque};

use crate::mempool::{Outcome, Submission, Unconfirmed};
use crate::peer::{Message, PeerId, PeerInfo};

/// A feefilter at or above this, in satoshi per 1,000 vB, is what a node in initial download sends: it drops
/// every transaction without a word.
const FEE_FILTER_OF_INITIAL_DOWNLOAD: u64 = 9_900_000;

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

    /// Hands a transaction to every peer that takes it.
    pub fn submit(&mut self, what: Submission) -> Outcome {
        let Submission::Transaction(raw) = what else {
            return Outcome::Unavailable("packages are not taken yet".into());
        };
        let Ok(tx) = Unconfirmed::parse(&raw) else {
            let words = "TX decode failed. Make sure the tx has at least one input.";
            return Outcome::Rejected(words.into());
        };
        let able = self.takers.iter().filter(|(_, taker)| taker.fee_filter < FEE_FILTER_OF_INITIAL_DOWNLOAD);
        let before = self.outputs.len();
        self.outputs.extend(able.map(|(peer, _)| (*peer, Message::Tx(raw.clone()))));
        if self.outputs.len() > before {
            Outcome::Sent(tx.txid())
        } else {
            Outcome::Unavailable("no peers to broadcast to".into())
        }
    }

    pub fn poll(&mut self) -> Option<(PeerId, Message)> {
        self.outputs.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use bitcoin::p2p::ServiceFlags;

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

    /// A transaction, and its id.
    fn payment() -> (Submission, Outcome) {
        let tx = bitcoin::constants::genesis_block(bitcoin::Network::Bitcoin).txdata.remove(0);
        let raw = bitcoin::consensus::serialize(&tx).into();
        (Submission::Transaction(raw), Outcome::Sent(tx.compute_txid()))
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

        let (tx, sent) = payment();
        assert_eq!(broadcasts.submit(tx), sent);

        assert!(matches!(broadcasts.poll(), Some((to, Message::Tx(_))) if to == alice));
        assert!(broadcasts.poll().is_none());
    }

    #[test]
    fn without_a_taker_the_wallet_is_told() {
        let mut broadcasts = Broadcasts::default();
        broadcasts.peer_ready(PeerId(1), &peer(true));
        broadcasts.peer_gone(PeerId(1));

        let outcome = broadcasts.submit(payment().0);
        assert_eq!(outcome, Outcome::Unavailable("no peers to broadcast to".into()));
    }
}
