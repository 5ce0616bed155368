//! Which transaction is asked of whom, and when.
//!
//! In: what peers announced, what they answered, the time. Out: what to ask of whom now. Of one hash only one request
//! is out at a time, no peer is asked for the same hash twice, and among those that could be asked chance decides, so
//! that nobody can make sure to be the one who does not answer.
//! Core also prefers outbound peers to inbound ones. All ours are outbound.
//! Source: Bitcoin Core `txrequest.h`, `txrequest.cpp`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bitcoin::hashes::sha256d;

use crate::peer::{Inventory, InventoryKind, PeerId};
use crate::time::Instant;

/// How long a peer may take to deliver before somebody else is asked (Core: GETDATA_TX_INTERVAL).
pub(super) const ANSWER_WITHIN: Duration = Duration::from_secs(60);
/// Requests that one peer may leave unanswered before it is asked for nothing more: one full `getdata`. Core has no
/// such limit, as what comes is judged at once there and waits here.
pub(super) const MAX_IN_FLIGHT: usize = 1_000;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Requests {
    wanted: BTreeMap<sha256d::Hash, Vec<Announcement>>,
    peers: BTreeMap<PeerId, Peer>,
    /// When a delayed announcement may be asked for, and when a request expires.
    timers: BTreeSet<(Instant, sha256d::Hash, PeerId)>,
    /// Hashes that are not asked for now, as what came under them is being judged: how often each is held.
    held: BTreeMap<sha256d::Hash, usize>,
    sequence: u64,
}

/// One peer has, or says that it has, one transaction.
#[derive(Debug)]
struct Announcement {
    peer: PeerId,
    /// How to ask for it: by wtxid, or by txid with its witness.
    kind: InventoryKind,
    /// Order of announcement.
    sequence: u64,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Not to be asked for before.
    Delayed(Instant),
    /// Can be asked for.
    Ready,
    /// Asked for; the answer is due then.
    Requested(Instant),
    /// Answered, refused, or let expire: kept so that the peer is not asked again.
    Done,
}

#[derive(Debug, Default)]
struct Peer {
    announced: BTreeSet<sha256d::Hash>,
    in_flight: usize,
    /// What can be asked of it now, in the order in which it announced.
    ready: BTreeMap<u64, sha256d::Hash>,
}

impl Requests {
    pub fn add_peer(&mut self, peer: PeerId) {
        self.peers.entry(peer).or_default();
    }

    /// What was asked of it is asked of others.
    pub fn remove_peer(&mut self, peer: PeerId) {
        let Some(gone) = self.peers.get(&peer) else { return };
        for hash in gone.announced.clone() {
            self.complete(peer, hash);
            if let Some(announcements) = self.wanted.get_mut(&hash) {
                announcements.retain(|announcement| announcement.peer != peer);
            }
        }
        self.peers.remove(&peer);
    }

    /// The peer says that it has this; it may be asked from `at` on. Said again, it changes nothing.
    pub fn announced(&mut self, peer: PeerId, entry: Inventory, at: Instant) {
        let Some(announcer) = self.peers.get_mut(&peer) else { return };
        if !announcer.announced.insert(entry.hash) {
            return;
        }
        self.sequence += 1;
        self.wanted.entry(entry.hash).or_default().push(Announcement {
            peer,
            kind: entry.kind,
            sequence: self.sequence,
            state: State::Delayed(at),
        });
        self.timers.insert((at, entry.hash, peer));
    }

    /// The peer answered, with the transaction or with `notfound`. Says whether it had been asked.
    pub fn answered(&mut self, peer: PeerId, hash: sha256d::Hash) -> bool {
        let announcements = self.wanted.get(&hash).map_or(&[][..], Vec::as_slice);
        let asked = announcements.iter().any(|announcement| {
            announcement.peer == peer && matches!(announcement.state, State::Requested(_))
        });
        self.complete(peer, hash);
        asked
    }

    /// Nobody needs to be asked for it any more.
    pub fn forget(&mut self, hash: sha256d::Hash) {
        for announcement in self.wanted.remove(&hash).unwrap_or_default() {
            match announcement.state {
                State::Delayed(at) | State::Requested(at) => {
                    self.timers.remove(&(at, hash, announcement.peer));
                }
                State::Ready | State::Done => {}
            }
            if let Some(peer) = self.peers.get_mut(&announcement.peer) {
                peer.announced.remove(&hash);
                peer.ready.remove(&announcement.sequence);
                peer.in_flight -= usize::from(matches!(announcement.state, State::Requested(_)));
            }
        }
    }

    /// What came under this hash is being judged: nobody else is asked meanwhile.
    pub fn hold(&mut self, hash: sha256d::Hash) {
        *self.held.entry(hash).or_default() += 1;
        self.unqueue(hash);
    }

    /// It was judged; if the hash is still wanted, others may be asked.
    pub fn release(&mut self, hash: sha256d::Hash) {
        if let Some(count) = self.held.get_mut(&hash) {
            *count -= 1;
            if *count == 0 {
                self.held.remove(&hash);
                self.queue(hash);
            }
        }
    }

    /// Who announced it and has not failed to deliver (`GetCandidatePeers`).
    pub fn candidates(&self, hash: sha256d::Hash) -> impl Iterator<Item = PeerId> {
        let announcements = self.wanted.get(&hash).map_or(&[][..], Vec::as_slice);
        announcements.iter().filter(|announcement| announcement.state != State::Done).map(|one| one.peer)
    }

    /// What is to be asked of whom now. A peer that is `busy` is not asked; what `is_needless` is forgotten.
    pub fn take(
        &mut self,
        now: Instant,
        rng: &mut fastrand::Rng,
        busy: impl Fn(PeerId) -> bool,
        is_needless: impl Fn(&Inventory) -> bool,
    ) -> BTreeMap<PeerId, Vec<Inventory>> {
        self.expire(now);
        let mut requests = BTreeMap::<PeerId, Vec<Inventory>>::new();
        let asking: Vec<PeerId> =
            self.peers.iter().filter(|(_, peer)| !peer.ready.is_empty()).map(|(id, _)| *id).collect();
        for first in asking {
            while let Some((_, &hash)) = self.peers.get(&first).and_then(|peer| peer.ready.first_key_value())
            {
                let able: Vec<Inventory> = self.ready(hash, &busy).map(|(_, entry)| entry).collect();
                if able.iter().any(&is_needless) {
                    self.forget(hash);
                    continue;
                }
                if busy(first) || self.in_flight(first) >= MAX_IN_FLIGHT {
                    break;
                }
                let chosen =
                    if able.is_empty() { None } else { self.ready(hash, &busy).nth(rng.usize(..able.len())) };
                let Some((peer, entry)) = chosen else { break };
                self.requested(peer, hash, now + ANSWER_WITHIN);
                requests.entry(peer).or_default().push(entry);
            }
        }
        requests
    }

    /// When `take` has something new to say, if nothing else happens.
    pub fn next_timeout(&self) -> Option<Instant> {
        self.timers.first().map(|(at, ..)| *at)
    }

    /// Transactions that are wanted.
    pub fn len(&self) -> usize {
        self.wanted.len()
    }

    /// Announcements of the peer that are remembered.
    pub fn announcements(&self, peer: PeerId) -> usize {
        self.peers.get(&peer).map_or(0, |peer| peer.announced.len())
    }

    /// Requests that the peer has not answered.
    pub fn in_flight(&self, peer: PeerId) -> usize {
        self.peers.get(&peer).map_or(0, |peer| peer.in_flight)
    }

    /// Who can be asked for it now.
    fn ready(
        &self,
        hash: sha256d::Hash,
        busy: &impl Fn(PeerId) -> bool,
    ) -> impl Iterator<Item = (PeerId, Inventory)> {
        let announcements = self.wanted.get(&hash).map_or(&[][..], Vec::as_slice);
        announcements
            .iter()
            .filter(|one| {
                one.state == State::Ready && !busy(one.peer) && self.in_flight(one.peer) < MAX_IN_FLIGHT
            })
            .map(move |one| (one.peer, Inventory { kind: one.kind, hash }))
    }

    /// Moves on what waited for this moment.
    fn expire(&mut self, now: Instant) {
        while let Some(&(at, hash, peer)) = self.timers.first()
            && at <= now
        {
            self.timers.pop_first();
            let announcement = self.announcement(peer, hash);
            match announcement.as_ref().map(|announcement| announcement.state) {
                Some(State::Delayed(_)) => {
                    self.set_state(peer, hash, State::Ready);
                    self.queue(hash);
                }
                Some(State::Requested(_)) => self.complete(peer, hash),
                Some(State::Ready | State::Done) | None => {}
            }
        }
    }

    fn requested(&mut self, peer: PeerId, hash: sha256d::Hash, until: Instant) {
        self.unqueue(hash);
        self.set_state(peer, hash, State::Requested(until));
        self.timers.insert((until, hash, peer));
    }

    /// The peer will not be asked for it again. Once that is true of all who announced it, it is forgotten.
    fn complete(&mut self, peer: PeerId, hash: sha256d::Hash) {
        let Some(announcement) = self.announcement(peer, hash) else { return };
        let (state, sequence) = (announcement.state, announcement.sequence);
        match state {
            State::Delayed(at) | State::Requested(at) => {
                self.timers.remove(&(at, hash, peer));
            }
            State::Ready => {
                if let Some(peer) = self.peers.get_mut(&peer) {
                    peer.ready.remove(&sequence);
                }
            }
            State::Done => return,
        }
        self.set_state(peer, hash, State::Done);
        let announcements = self.wanted.get(&hash).map_or(&[][..], Vec::as_slice);
        if announcements.iter().all(|one| one.state == State::Done) {
            self.forget(hash);
        } else if matches!(state, State::Requested(_)) {
            self.queue(hash);
        }
    }

    fn announcement(&mut self, peer: PeerId, hash: sha256d::Hash) -> Option<&mut Announcement> {
        self.wanted.get_mut(&hash)?.iter_mut().find(|announcement| announcement.peer == peer)
    }

    /// Sets the state and the peer's count of what it owes.
    fn set_state(&mut self, peer: PeerId, hash: sha256d::Hash, state: State) {
        let Some(announcement) = self.announcement(peer, hash) else { return };
        let before = std::mem::replace(&mut announcement.state, state);
        if let Some(peer) = self.peers.get_mut(&peer) {
            peer.in_flight += usize::from(matches!(state, State::Requested(_)));
            peer.in_flight -= usize::from(matches!(before, State::Requested(_)));
        }
    }

    /// Whoever is ready can be asked, unless somebody is being asked or what came is being judged.
    fn queue(&mut self, hash: sha256d::Hash) {
        let Some(announcements) = self.wanted.get(&hash) else { return };
        let is_asked = announcements.iter().any(|one| matches!(one.state, State::Requested(_)));
        if is_asked || self.held.contains_key(&hash) {
            return;
        }
        for one in announcements.iter().filter(|one| one.state == State::Ready) {
            if let Some(peer) = self.peers.get_mut(&one.peer) {
                peer.ready.insert(one.sequence, hash);
            }
        }
    }

    fn unqueue(&mut self, hash: sha256d::Hash) {
        let Some(announcements) = self.wanted.get(&hash) else { return };
        for one in announcements {
            if let Some(peer) = self.peers.get_mut(&one.peer) {
                peer.ready.remove(&one.sequence);
            }
        }
    }

    /// What must always be true.
    #[cfg(test)]
    pub fn hold_invariants(&self) {
        for (hash, announcements) in &self.wanted {
            let of =
                |wanted: fn(State) -> bool| announcements.iter().filter(move |one| wanted(one.state)).count();
            let requested = of(|state| matches!(state, State::Requested(_)));
            assert!(requested <= 1, "one request at a time");
            assert!(of(|state| state != State::Done) > 0, "what everybody failed at is forgotten");
            let is_free = requested == 0 && !self.held.contains_key(hash);
            for one in announcements {
                let peer = &self.peers[&one.peer];
                assert!(peer.announced.contains(hash));
                assert_eq!(
                    peer.ready.get(&one.sequence),
                    (is_free && one.state == State::Ready).then_some(hash)
                );
                let timer = match one.state {
                    State::Delayed(at) | State::Requested(at) => Some((at, *hash, one.peer)),
                    State::Ready | State::Done => None,
                };
                assert!(timer.is_none_or(|timer| self.timers.contains(&timer)));
            }
        }
        let all: usize = self.wanted.values().map(Vec::len).sum();
        assert_eq!(all, self.peers.values().map(|peer| peer.announced.len()).sum::<usize>());
        let waiting =
            self.wanted.values().flatten().filter(|one| !matches!(one.state, State::Ready | State::Done));
        assert_eq!(waiting.count(), self.timers.len());
        for (id, peer) in &self.peers {
            let owed = self.wanted.values().flatten();
            let owed = owed.filter(|one| one.peer == *id && matches!(one.state, State::Requested(_))).count();
            assert_eq!(owed, peer.in_flight);
        }
    }
}

#[cfg(test)]
mod tests;
