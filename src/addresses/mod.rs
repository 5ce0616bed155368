//! WHERE: addresses of other peers, learnt from those that we are connected to.
//!
//! In: what peers say of others, whether an address could be reached, the time. Out: an address to dial. It is the
//! forerunner of an address manager, and bounded: a peer is heard so often and no more, and what peers of one source
//! said takes one part of the room at most. An address is drawn network by network, then source by source, so that
//! whoever names a thousand addresses is drawn no more often than who names ten. As a text it outlives a stop.
//! Source: Bitcoin Core `net_processing.cpp` (ProcessAddrs), `addrman.cpp` (IsTerrible).

use core::net::IpAddr;
use std::collections::{BTreeMap, BTreeSet};

use crate::peer::{Address, Gossip, Host, PeerId, serves_witnesses};
use crate::time::{Instant, Now};

/// Addresses in all.
pub const MAX_ADDRESSES: usize = 8_192;
/// Addresses of one source.
pub const MAX_OF_SOURCE: usize = 1_024;
/// Addresses that a peer may tell each second, and at once (Core: MAX_ADDR_RATE_PER_SECOND,
/// MAX_ADDR_PROCESSING_TOKEN_BUCKET).
const PER_SECOND: f64 = 0.1;
const MAX_AT_ONCE: f64 = 1_000.0;
/// What a peer may tell more, once it was asked (Core: MAX_ADDR_TO_SEND).
const ASKED_FOR: f64 = 1_000.0;

/// Seconds by which a clock may be ahead of ours.
const MAX_AHEAD: u64 = 10 * 60;
/// A time before this is none at all.
const FIRST_TIME: u32 = 100_000_000;
/// What is taken for a time that cannot be true.
const UNTRUE_AGE: u64 = 5 * 24 * 60 * 60;
/// Peers boast: what they say was seen now, was seen earlier.
const PENALTY: u64 = 2 * 60 * 60;
/// Older than this, an address is not worth a dial (Core: ADDRMAN_HORIZON).
const MAX_AGE: u64 = 30 * 24 * 60 * 60;
/// Dials in a row that failed, after which it is forgotten (Core: ADDRMAN_RETRIES).
const MAX_FAILURES: u8 = 3;

/// Peers that may well be the same person: of one /16, one /32 of IPv6, or one name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Source(String);

impl Source {
    /// Of the host as the operator named it.
    pub fn of(host: &str) -> Self {
        Self(match host.parse::<IpAddr>() {
            Ok(IpAddr::V4(address)) => {
                let [a, b, ..] = address.octets();
                format!("{a}.{b}")
            }
            Ok(IpAddr::V6(address)) => {
                let [a, b, ..] = address.segments();
                format!("{a:x}:{b:x}")
            }
            Err(_) => host.to_ascii_lowercase(),
        })
    }
}

/// The networks that can be reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reach {
    pub onion: bool,
    pub clearnet: bool,
}

impl Reach {
    fn covers(self, host: &Host) -> bool {
        if host.is_onion() { self.onion } else { self.clearnet }
    }
}

/// See the module.
#[derive(Debug)]
pub struct Addresses {
    rng: fastrand::Rng,
    known: BTreeMap<Address, Known>,
    /// The same, the longest unseen first.
    by_source: BTreeMap<Source, BTreeSet<(u64, Address)>>,
    tellers: BTreeMap<PeerId, Teller>,
}

#[derive(Clone, Debug)]
struct Known {
    /// Who told of it first.
    source: Source,
    /// When it was last seen: Unix time in seconds.
    seen: u64,
    failures: u8,
}

/// A connected peer.
#[derive(Debug)]
struct Teller {
    source: Source,
    tokens: f64,
    at: Instant,
}

impl Addresses {
    pub fn new(seed: u64) -> Self {
        Self {
            rng: fastrand::Rng::with_seed(seed),
            known: BTreeMap::new(),
            by_source: BTreeMap::new(),
            tellers: BTreeMap::new(),
        }
    }

    /// A peer is connected, and asked for addresses.
    pub fn handle_peer_asked(&mut self, now: Now, peer: PeerId, source: Source) {
        self.tellers.insert(peer, Teller { source, tokens: 1.0 + ASKED_FOR, at: now.instant });
    }

    pub fn handle_peer_gone(&mut self, peer: PeerId) {
        self.tellers.remove(&peer);
    }

    /// A peer tells of others.
    pub fn handle_gossip(&mut self, now: Now, peer: PeerId, mut entries: Vec<Gossip>) {
        let Some(teller) = self.tellers.get_mut(&peer) else { return };
        if teller.tokens < MAX_AT_ONCE {
            let earned = now.instant.saturating_since(teller.at).as_secs_f64() * PER_SECOND;
            teller.tokens = (teller.tokens + earned).min(MAX_AT_ONCE);
        }
        teller.at = now.instant;
        let source = teller.source.clone();
        // Which of them are passed over when there are too many is not for the peer to say.
        self.rng.shuffle(&mut entries);
        entries.truncate(teller.tokens.max(0.0) as usize);
        teller.tokens -= entries.len() as f64;
        for entry in entries {
            self.add(now, &source, &entry);
        }
    }

    /// An address that can be reached and is none of `except`.
    pub fn choose(&mut self, now: Now, reach: Reach, except: &BTreeSet<Address>) -> Option<Address> {
        let mut networks: BTreeMap<u8, BTreeMap<&Source, Vec<Address>>> = BTreeMap::new();
        for (address, known) in &self.known {
            if reach.covers(&address.host) && is_fresh(now, known) && !except.contains(address) {
                let of_network = networks.entry(network_of(&address.host)).or_default();
                of_network.entry(&known.source).or_default().push(*address);
            }
        }
        let sources = self.rng.choice(networks.values())?;
        let addresses = self.rng.choice(sources.values())?;
        self.rng.choice(addresses).copied()
    }

    /// Whether there is any that can be reached.
    pub fn has_any(&self, now: Now, reach: Reach) -> bool {
        self.known.iter().any(|(address, known)| reach.covers(&address.host) && is_fresh(now, known))
    }

    /// It could be dialled, or could not.
    pub fn handle_dialled(&mut self, address: &Address, is_reached: bool) {
        let Some(known) = self.known.get_mut(address) else { return };
        known.failures = if is_reached { 0 } else { known.failures + 1 };
        if known.failures >= MAX_FAILURES {
            self.remove(address);
        }
    }

    /// What is known, a line each: when it was seen, host, port, source.
    pub fn to_text(&self) -> String {
        let line = |(address, known): (&Address, &Known)| {
            format!("{} {} {} {}\n", known.seen, address.host, address.port, known.source.0)
        };
        self.known.iter().map(line).collect()
    }

    /// Takes in such a text. What cannot be read is passed over.
    pub fn restore(&mut self, now: Now, text: &str) {
        for line in text.lines() {
            let mut words = line.split(' ');
            let mut next = || words.next();
            let (Some(seen), Some(host), Some(port), Some(source)) = (next(), next(), next(), next()) else {
                continue;
            };
            let (Ok(seen), Ok(host), Ok(port)) = (seen.parse(), host.parse(), port.parse()) else { continue };
            let known = Known { source: Source(source.to_owned()), seen, failures: 0 };
            self.insert(now, Address { host, port }, known);
        }
    }

    pub fn len(&self) -> usize {
        self.known.len()
    }

    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    fn add(&mut self, now: Now, source: &Source, entry: &Gossip) {
        let Gossip { time, services, address } = entry;
        if !serves_witnesses(*services) {
            return;
        }
        let is_true = *time > FIRST_TIME && u64::from(*time) <= now.unix + MAX_AHEAD;
        let seen = if is_true { u64::from(*time) } else { now.unix.saturating_sub(UNTRUE_AGE) };
        let known = Known { source: source.clone(), seen: seen.saturating_sub(PENALTY), failures: 0 };
        self.insert(now, *address, known);
    }

    fn insert(&mut self, now: Now, address: Address, new: Known) {
        if address.port == 0 || !address.host.is_routable() || !is_fresh(now, &new) {
            return;
        }
        if let Some(mut known) = self.remove(&address) {
            known.seen = known.seen.max(new.seen);
            self.put(address, known);
            return;
        }
        let crowded = if self.by_source.get(&new.source).is_some_and(|of_it| of_it.len() >= MAX_OF_SOURCE) {
            self.by_source.get(&new.source)
        } else if self.known.len() >= MAX_ADDRESSES {
            self.by_source.values().max_by_key(|of_it| of_it.len())
        } else {
            None
        };
        if let Some((seen, oldest)) = crowded.and_then(BTreeSet::first).copied() {
            if seen >= new.seen && self.known.get(&oldest).is_some_and(|known| known.source == new.source) {
                return;
            }
            self.remove(&oldest);
        }
        self.put(address, new);
    }

    fn put(&mut self, address: Address, known: Known) {
        self.by_source.entry(known.source.clone()).or_default().insert((known.seen, address));
        self.known.insert(address, known);
    }

    fn remove(&mut self, address: &Address) -> Option<Known> {
        let known = self.known.remove(address)?;
        if let Some(of_it) = self.by_source.get_mut(&known.source) {
            of_it.remove(&(known.seen, *address));
            if of_it.is_empty() {
                self.by_source.remove(&known.source);
            }
        }
        Some(known)
    }
}

fn is_fresh(now: Now, known: &Known) -> bool {
    now.unix.saturating_sub(known.seen) <= MAX_AGE
}

fn network_of(host: &Host) -> u8 {
    match host {
        Host::V4(_) => 1,
        Host::V6(_) => 2,
        Host::Onion(_) => 4,
    }
}

#[cfg(test)]
mod tests;
