//! Connections that are made for wallets' transactions: how many, when, and what goes over which.
//!
//! In: transactions to send and those that the network has, how far connections got, the time. Out: connections to make,
//! and what to give to one that is ready. A transaction goes to three strangers, each over a connection that carries
//! nothing else; when a connection ends without a receipt another is made, and when no echo comes, one more from time
//! to time. Which transaction a connection carries is decided when it is ready: the one that was sent least.
//! Whom to dial is decided elsewhere, and what is said over the connection in `peer::private`.
//! Source: Bitcoin Core `private_broadcast.cpp`, `net.cpp` (ThreadPrivateBroadcast), `net_processing.cpp`
//! (ReattemptPrivateBroadcast, FinalizeNode).

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bitcoin::Wtxid;

use super::types::{PrivateEvent, PrivateId, PrivateState};
use crate::time::Instant;

/// Connections for a transaction at first (Core: NUM_PRIVATE_BROADCAST_PER_TX).
pub(super) const PER_TRANSACTION: usize = 3;
/// Connections at once (Core: MAX_PRIVATE_BROADCAST_CONNECTIONS).
pub(super) const MAX_CONNECTIONS: usize = 64;
/// Of them those that the proxy has not made yet. Core dials one after the other.
pub(super) const MAX_DIALS: usize = 12;
/// Without a receipt for so long, one more connection is made (Core: INITIAL_STALE_DURATION).
pub(super) const STALE_UNSENT: Duration = Duration::from_secs(5 * 60);
/// The same without an echo, from the last receipt on (Core: STALE_DURATION).
pub(super) const STALE_SENT: Duration = Duration::from_secs(60);
/// How often that is looked for: every two to three minutes (Core: ReattemptPrivateBroadcast).
pub(super) const CHECK_AFTER: Duration = Duration::from_secs(2 * 60);
pub(super) const CHECK_SPREAD: Duration = Duration::from_secs(60);
/// The pause after a dial that failed (Core: 100 ms), doubled with each further one up to the second.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const MAX_PAUSE: Duration = Duration::from_secs(30);

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Dial(PrivateId),
    /// Hand this over, or hang up.
    Give(PrivateId, Option<Wtxid>),
}

/// How far a transaction came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// A peer was told of it.
    Offered,
    /// A peer asked for it and was sent it.
    Asked,
    /// A peer has received it.
    Delivered,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Private {
    state: PrivateState,
    /// Connections that are wanted and not open.
    to_open: usize,
    last_id: u64,
    connections: BTreeMap<PrivateId, Connection>,
    transactions: BTreeMap<Wtxid, Sending>,
    next_check: Option<Instant>,
    /// Dials in a row that brought nothing.
    failures: u32,
    dial_at: Instant,
    actions: VecDeque<Action>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Connection {
    Dialling,
    Open,
    /// Carries this; the receipt came or not.
    Given(Wtxid, bool),
}

#[derive(Clone, Copy, Debug)]
struct Sending {
    added: Instant,
    picked: usize,
    last_picked: Option<Instant>,
    confirmed: usize,
    last_confirmed: Option<Instant>,
}

impl Sending {
    /// The least goes first.
    fn priority(&self) -> (usize, usize, Option<Instant>, Option<Instant>) {
        (self.picked, self.confirmed, self.last_picked, self.last_confirmed)
    }

    fn is_stale(&self, now: Instant) -> bool {
        match self.last_confirmed {
            Some(at) => now > at + STALE_SENT,
            None => now > self.added + STALE_UNSENT,
        }
    }
}

impl Private {
    pub fn state(&self) -> PrivateState {
        self.state
    }

    pub fn set_state(&mut self, now: Instant, state: PrivateState) {
        self.state = state;
        self.dial(now);
    }

    /// To be sent until it is removed.
    pub fn add(&mut self, now: Instant, wtxid: Wtxid, rng: &mut fastrand::Rng) {
        if self.transactions.contains_key(&wtxid) {
            return;
        }
        let sending =
            Sending { added: now, picked: 0, last_picked: None, confirmed: 0, last_confirmed: None };
        self.transactions.insert(wtxid, sending);
        self.next_check.get_or_insert_with(|| next_check(now, rng));
        self.to_open += PER_TRANSACTION;
        self.dial(now);
    }

    /// The network has it, or it is worth nothing any more. What is under way goes on.
    pub fn remove(&mut self, wtxid: Wtxid) {
        let Some(gone) = self.transactions.remove(&wtxid) else { return };
        self.to_open = self.to_open.saturating_sub(PER_TRANSACTION.saturating_sub(gone.picked));
        if self.transactions.is_empty() {
            self.to_open = 0;
            self.next_check = None;
        }
    }

    /// Something came of a connection; says what that means for a transaction.
    pub fn handle(
        &mut self,
        now: Instant,
        id: PrivateId,
        event: PrivateEvent,
        rng: &mut fastrand::Rng,
    ) -> Option<(Wtxid, Step)> {
        let connection = self.connections.get(&id).copied()?;
        let step = match (event, connection) {
            (PrivateEvent::Opened, Connection::Dialling) => {
                self.connections.insert(id, Connection::Open);
                self.to_open = self.to_open.saturating_sub(1);
                None
            }
            (PrivateEvent::Ready, Connection::Open) => {
                self.failures = 0;
                let picked = self.pick(now, rng);
                if let Some(wtxid) = picked {
                    self.connections.insert(id, Connection::Given(wtxid, false));
                }
                self.actions.push_back(Action::Give(id, picked));
                picked.map(|wtxid| (wtxid, Step::Offered))
            }
            (PrivateEvent::Asked, Connection::Given(wtxid, _)) => Some((wtxid, Step::Asked)),
            (PrivateEvent::Delivered, Connection::Given(wtxid, false)) => {
                self.connections.insert(id, Connection::Given(wtxid, true));
                if let Some(sending) = self.transactions.get_mut(&wtxid) {
                    sending.confirmed += 1;
                    sending.last_confirmed = Some(now);
                }
                Some((wtxid, Step::Delivered))
            }
            (PrivateEvent::Failed { .. } | PrivateEvent::Closed, _) => {
                self.connections.remove(&id);
                self.ended(now, connection);
                None
            }
            // Not in this order.
            _ => None,
        };
        self.dial(now);
        step
    }

    pub fn handle_timeout(&mut self, now: Instant, rng: &mut fastrand::Rng) {
        if self.next_check.is_some_and(|at| at <= now) {
            self.next_check = Some(next_check(now, rng));
            let stale = self.transactions.values().filter(|sending| sending.is_stale(now)).count();
            // While nobody can be reached they do not add up.
            let enough = self.to_open.max(self.transactions.len() * PER_TRANSACTION);
            self.to_open = (self.to_open + stale).min(enough);
        }
        self.dial(now);
    }

    pub fn next_timeout(&self) -> Option<Instant> {
        let wants_to_dial = self.has_room() && self.wants_more();
        self.next_check.into_iter().chain(wants_to_dial.then_some(self.dial_at)).min()
    }

    pub fn poll(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// Whoever ends without a receipt is made up for.
    fn ended(&mut self, now: Instant, connection: Connection) {
        let is_wanted = match connection {
            Connection::Dialling => false,
            Connection::Open => !self.transactions.is_empty(),
            Connection::Given(wtxid, is_delivered) => !is_delivered && self.transactions.contains_key(&wtxid),
        };
        self.to_open += usize::from(is_wanted);
        if !matches!(connection, Connection::Given(..)) {
            let pause = FIRST_PAUSE.saturating_mul(2_u32.saturating_pow(self.failures)).min(MAX_PAUSE);
            self.failures = self.failures.saturating_add(1);
            self.dial_at = self.dial_at.max(now + pause);
        }
    }

    fn pick(&mut self, now: Instant, rng: &mut fastrand::Rng) -> Option<Wtxid> {
        let least = self.transactions.values().map(Sending::priority).min()?;
        let equal = self.transactions.iter().filter(|(_, sending)| sending.priority() == least);
        let wtxid = rng.choice(equal.map(|(wtxid, _)| *wtxid).collect::<Vec<_>>())?;
        let sending = self.transactions.get_mut(&wtxid)?;
        sending.picked += 1;
        sending.last_picked = Some(now);
        Some(wtxid)
    }

    fn dial(&mut self, now: Instant) {
        while self.dial_at <= now && self.has_room() && self.wants_more() {
            self.last_id += 1;
            let id = PrivateId(self.last_id);
            self.connections.insert(id, Connection::Dialling);
            self.actions.push_back(Action::Dial(id));
        }
    }

    fn dialling(&self) -> usize {
        self.connections.values().filter(|connection| **connection == Connection::Dialling).count()
    }

    fn wants_more(&self) -> bool {
        self.state == PrivateState::Ready && self.dialling() < self.to_open
    }

    fn has_room(&self) -> bool {
        self.connections.len() < MAX_CONNECTIONS && self.dialling() < MAX_DIALS
    }
}

fn next_check(now: Instant, rng: &mut fastrand::Rng) -> Instant {
    now + CHECK_AFTER + CHECK_SPREAD.mul_f64(rng.f64())
}

#[cfg(test)]
mod tests;
