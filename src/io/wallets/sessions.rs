//! Who is connected: a register of all sessions, from which one leaves by being dropped.
//!
//! It counts: at the limit the listeners close, and open again when a twentieth of the sessions has ended.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::lock;
use crate::electrum::transport::Origin;

/// What is logged of a request.
const LOGGED_BYTES: usize = 300;

/// What names a session while it lives; counted from 1 and never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub u64);

/// All sessions with wallets.
#[derive(Debug)]
pub struct Sessions {
    open: Mutex<Open>,
    limit: usize,
    /// Whether there is room for more.
    has_room: watch::Sender<bool>,
    /// Whether what new sessions ask is logged.
    log_new: AtomicBool,
}

#[derive(Debug, Default)]
struct Open {
    entries: BTreeMap<SessionId, Arc<Entry>>,
    /// Number of the newest session, so also how many there were.
    last: u64,
    /// Requests of those that have ended.
    past_requests: u64,
}

/// What is known of a session from outside.
#[derive(Debug)]
pub struct Entry {
    pub id: SessionId,
    pub since: Instant,
    /// Bytes of lines, without what carries them.
    received: AtomicU64,
    sent: AtomicU64,
    /// Whether what it asks is logged.
    logged: AtomicBool,
    known: Mutex<Known>,
    closing: CancellationToken,
}

/// What a session is learnt to be.
#[derive(Clone, Debug, PartialEq)]
pub struct Known {
    pub origin: Origin,
    /// The name that the wallet gives itself; empty until it has.
    pub client: String,
    /// The version that it speaks; empty until that is agreed.
    pub protocol: String,
    pub requests: u64,
    pub subscriptions: u64,
    /// What it asked for, in the units of limits.
    pub cost: f64,
}

/// A place among the sessions, free again when dropped.
#[derive(Debug)]
pub struct Seat {
    entry: Arc<Entry>,
    sessions: Arc<Sessions>,
}

impl Sessions {
    /// Room for `limit` sessions.
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self {
            open: Mutex::default(),
            limit,
            has_room: watch::Sender::new(true),
            log_new: AtomicBool::new(false),
        })
    }

    /// Takes a place for a new connection; `None` if there is none.
    pub fn admit(self: &Arc<Self>, origin: Origin) -> Option<Seat> {
        let mut open = lock(&self.open);
        if open.entries.len() >= self.limit {
            return None;
        }
        open.last += 1;
        let known = Known {
            origin,
            client: String::new(),
            protocol: String::new(),
            requests: 0,
            subscriptions: 0,
            cost: 0.0,
        };
        let entry = Arc::new(Entry {
            id: SessionId(open.last),
            since: Instant::now(),
            received: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            logged: AtomicBool::new(self.logs_new()),
            known: Mutex::new(known),
            closing: CancellationToken::new(),
        });
        open.entries.insert(entry.id, entry.clone());
        if open.entries.len() >= self.limit && self.has_room.send_replace(false) {
            info!(
                sessions = self.limit,
                reopen_at = self.reopen_at(),
                "the session limit is reached, closing the listeners"
            );
        }
        Some(Seat { entry, sessions: self.clone() })
    }

    /// Tells when listeners are to be open.
    pub fn room(&self) -> watch::Receiver<bool> {
        self.has_room.subscribe()
    }

    /// All that are open, oldest first.
    pub fn all(&self) -> Vec<Arc<Entry>> {
        lock(&self.open).entries.values().cloned().collect()
    }

    /// Asks a session to end, if there is one of this number.
    pub fn disconnect(&self, id: SessionId) {
        if let Some(entry) = lock(&self.open).entries.get(&id) {
            entry.closing.cancel();
        }
    }

    /// Logs from now on what a session asks, if there is one of this number, or no longer.
    pub fn log(&self, id: SessionId, logged: bool) {
        if let Some(entry) = lock(&self.open).entries.get(&id) {
            entry.logged.store(logged, Ordering::Relaxed);
        }
    }

    /// The same for sessions that are to come.
    pub fn log_new(&self, logged: bool) {
        self.log_new.store(logged, Ordering::Relaxed);
    }

    pub fn logs_new(&self) -> bool {
        self.log_new.load(Ordering::Relaxed)
    }

    pub fn limit(&self) -> usize {
        self.limit
    }

    /// How many sessions there were since the start, and how many requests those made that have ended.
    pub fn past(&self) -> (u64, u64) {
        let open = lock(&self.open);
        (open.last, open.past_requests)
    }

    /// 95 % of the limit, as in ElectrumX.
    fn reopen_at(&self) -> usize {
        self.limit * 19 / 20
    }

    fn leave(&self, id: SessionId) {
        let mut open = lock(&self.open);
        if let Some(entry) = open.entries.remove(&id) {
            open.past_requests += lock(&entry.known).requests;
        }
        if open.entries.len() <= self.reopen_at() && !self.has_room.send_replace(true) {
            info!(sessions = open.entries.len(), "opening the listeners again");
        }
    }
}

impl Entry {
    pub fn known(&self) -> Known {
        lock(&self.known).clone()
    }

    pub fn is_logged(&self) -> bool {
        self.logged.load(Ordering::Relaxed)
    }

    pub fn received_bytes(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    pub fn sent_bytes(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }
}

impl Seat {
    pub fn id(&self) -> SessionId {
        self.entry.id
    }

    pub fn origin(&self) -> Origin {
        lock(&self.entry.known).origin
    }

    /// Logs a request, if the operator wants to see it.
    pub fn show(&self, line: &[u8]) {
        if self.entry.is_logged() {
            let start = String::from_utf8_lossy(&line[..line.len().min(LOGGED_BYTES)]);
            // As a literal: a request must not look like a line of the log.
            info!(session = self.entry.id.0, request = ?start, "asked");
        }
    }

    /// Writes down what was learnt of the session.
    pub fn learn(&self, learn: impl FnOnce(&mut Known)) {
        learn(&mut lock(&self.entry.known));
    }

    pub fn received(&self, bytes: usize) {
        self.entry.received.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub fn sent(&self, bytes: usize) {
        self.entry.sent.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Waits until somebody wants this session to end.
    pub async fn unwanted(&self) {
        self.entry.closing.cancelled().await;
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.sessions.leave(self.entry.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::electrum::transport::Transport;

    const ORIGIN: Origin = Origin { address: None, transport: Transport::Tcp };

    #[test]
    fn listeners_close_at_the_limit_and_open_at_95_percent() {
        let sessions = Sessions::new(40);
        let room = sessions.room();
        let mut seats: Vec<Seat> = (0..39).map(|_| sessions.admit(ORIGIN).unwrap()).collect();
        assert!(*room.borrow());
        seats.push(sessions.admit(ORIGIN).unwrap());
        assert!(!*room.borrow() && sessions.admit(ORIGIN).is_none());
        seats.pop();
        assert!(!*room.borrow(), "39 are more than 95 %");
        // Whoever was accepted just before the listener closed may still take the place.
        seats.push(sessions.admit(ORIGIN).unwrap());
        seats.truncate(38);
        assert!(*room.borrow());
        assert_eq!(sessions.all().len(), 38);
    }

    #[test]
    fn one_place_is_enough_to_open_again() {
        let sessions = Sessions::new(1);
        let seat = sessions.admit(ORIGIN).unwrap();
        assert!(!*sessions.room().borrow());
        drop(seat);
        assert!(*sessions.room().borrow());
    }

    #[tokio::test]
    async fn a_session_is_told_that_it_is_not_wanted() {
        let sessions = Sessions::new(3);
        let (alice, bob) = (sessions.admit(ORIGIN).unwrap(), sessions.admit(ORIGIN).unwrap());
        sessions.disconnect(alice.id());
        alice.unwanted().await;
        assert!(!bob.entry.closing.is_cancelled());
        let id = alice.id();
        drop(alice);
        sessions.disconnect(id);
        assert!(sessions.admit(ORIGIN).unwrap().id() > bob.id());
    }
}
