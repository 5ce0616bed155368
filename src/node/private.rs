//! The node's ties between private connections and the addresses to which they are made.

use std::collections::{BTreeMap, BTreeSet};

use bitcoin::Wtxid;

use super::{Node, Notice, Output};
use crate::addresses::{Addresses, MAX_ADDRESSES, Reach, Source};
use crate::peer::{Address, Gossip, Message, PeerId};
use crate::relay::{KeptState, PrivateEvent, PrivateId, PrivateState};
use crate::time::Now;

/// What is remembered of private connections beside what the relay knows.
#[derive(Debug)]
pub(super) struct PrivateTies {
    /// Whether there is a proxy, and the operator wants it so.
    is_on: bool,
    addresses: Addresses,
    /// Whether a peer with an onion address was reached: then the proxy is Tor, and can be trusted to hide from
    /// others where we are (Core: m_outbound_tor_ok_at_least_once).
    tor_works: bool,
    /// What the relay was told last.
    told: PrivateState,
    targets: BTreeMap<PrivateId, Address>,
    /// Addresses that were dialled already; others go first.
    used: BTreeSet<Address>,
    /// What was noted of transactions before the last stop.
    kept: BTreeMap<Wtxid, KeptState>,
}

impl PrivateTies {
    pub fn new(seed: u64) -> Self {
        Self {
            is_on: false,
            addresses: Addresses::new(seed),
            tor_works: false,
            told: PrivateState::Off,
            targets: BTreeMap::new(),
            used: BTreeSet::new(),
            kept: BTreeMap::new(),
        }
    }

    fn reach(&self) -> Reach {
        Reach { onion: true, clearnet: self.tor_works }
    }

    fn state(&self, now: Now) -> PrivateState {
        match self.is_on {
            false => PrivateState::Off,
            true if self.addresses.has_any(now, self.reach()) => PrivateState::Ready,
            true => PrivateState::NoAddresses,
        }
    }

    /// Whom to dial: nobody twice while there are others.
    fn choose(&mut self, now: Now) -> Option<Address> {
        let busy: BTreeSet<Address> = self.targets.values().copied().collect();
        if self.used.len() > MAX_ADDRESSES {
            self.used.clear();
        }
        let fresh = self.addresses.choose(now, self.reach(), &self.used.union(&busy).copied().collect());
        fresh.or_else(|| {
            self.used.clear();
            self.addresses.choose(now, self.reach(), &busy)
        })
    }
}

impl Node {
    /// Peers are reached through a proxy.
    pub fn be_patient(&mut self) {
        self.blocks.be_patient();
    }

    /// From now on wallets' transactions may go over private connections: there is a proxy.
    pub fn enable_private(&mut self, now: Now) {
        self.private.is_on = true;
        self.refresh_private(now);
    }

    /// What was noted of a transaction that is kept; to be said before it is restored.
    pub fn note_kept(&mut self, wtxid: Wtxid, kept: KeptState) {
        self.private.kept.insert(wtxid, kept);
    }

    /// Addresses that were known before the last stop, and are now.
    pub fn restore_addresses(&mut self, now: Now, text: &str) {
        self.private.addresses.restore(now, text);
        self.refresh_private(now);
    }

    pub fn addresses(&self) -> String {
        self.private.addresses.to_text()
    }

    pub(super) fn take_kept(&mut self, wtxid: &Wtxid) -> KeptState {
        self.private.kept.remove(wtxid).unwrap_or_default()
    }

    /// A peer that is connected can be asked for addresses.
    pub(super) fn peer_from(&mut self, now: Now, peer: PeerId, source: Source, is_onion: bool) {
        if self.private.is_on && self.peers.contains_key(&peer) {
            self.private.tor_works |= is_onion;
            self.private.addresses.handle_peer_asked(now, peer, source);
            self.outputs.push_back(Output::Send(peer, Message::GetAddr));
            self.refresh_private(now);
        }
    }

    pub(super) fn addresses_told(&mut self, now: Now, peer: PeerId, entries: Vec<Gossip>) {
        self.private.addresses.handle_gossip(now, peer, entries);
        self.refresh_private(now);
    }

    pub(super) fn teller_gone(&mut self, peer: PeerId) {
        self.private.addresses.handle_peer_gone(peer);
    }

    /// Whether there are addresses changes by the minute.
    pub(super) fn refresh_private(&mut self, now: Now) {
        let state = self.private.state(now);
        if state != self.private.told {
            self.private.told = state;
            self.relay.set_private(now, state);
            self.notice(Notice::Private(state));
        }
    }

    pub(super) fn dial_private(&mut self, now: Now, connection: PrivateId) {
        match self.private.choose(now) {
            Some(address) => {
                self.private.targets.insert(connection, address);
                self.private.used.insert(address);
                self.outputs.push_back(Output::DialPrivate { connection, address });
            }
            None => self.relay.handle_private(now, connection, PrivateEvent::Failed { by_proxy: false }),
        }
    }

    pub(super) fn private_event(&mut self, now: Now, connection: PrivateId, event: PrivateEvent) {
        if let Some(address) = self.private.targets.get(&connection).copied() {
            match event {
                PrivateEvent::Failed { by_proxy: true } => {}
                PrivateEvent::Failed { by_proxy: false } => {
                    self.private.addresses.handle_dialled(&address, false);
                }
                PrivateEvent::Opened => self.private.addresses.handle_dialled(&address, true),
                PrivateEvent::Ready => self.private.tor_works |= address.host.is_onion(),
                PrivateEvent::Asked | PrivateEvent::Delivered | PrivateEvent::Closed => {}
            }
        }
        if matches!(event, PrivateEvent::Failed { .. } | PrivateEvent::Closed) {
            self.private.targets.remove(&connection);
        }
        self.relay.handle_private(now, connection, event);
        self.refresh_private(now);
    }
}
