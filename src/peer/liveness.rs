//! Whether the peer is still worth its connection: pings, silence, messages that do not end.
//!
//! In: that bytes came, what is unfinished, pongs. Out: when to ping, and when to give the peer up.
//! It begins after the handshake, which has a deadline of its own. It neither reads nor sends messages.
//! Source: Bitcoin Core `net_processing.cpp` (MaybeSendPing), `net.cpp` (InactivityCheck); that a message must end
//! in time is our own rule.

use std::time::Duration;

use crate::time::Instant;

use super::types::{CloseReason, Misbehavior};
use super::wire::{Command, Pending};

/// Core: TIMEOUT_INTERVAL; for silence and for a ping without answer.
const INACTIVITY_TIMEOUT: Duration = Duration::from_secs(20 * 60);
/// Core: PING_INTERVAL.
const PING_INTERVAL: Duration = Duration::from_secs(2 * 60);
/// A message that takes longer holds our memory for nothing; blocks have a rule of their own.
const MESSAGE_TIMEOUT: Duration = Duration::from_secs(60);
/// A block must bring `MIN_BLOCK_RATE` in each such time: four megabytes over Tor may well take minutes.
const BLOCK_WINDOW: Duration = Duration::from_secs(2 * 60);
/// Bytes a second.
const MIN_BLOCK_RATE: usize = 1_000;

/// What is due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// Send a ping with this nonce.
    Ping(u64),
    Close(CloseReason),
}

#[derive(Clone, Copy, Debug)]
enum Ping {
    /// To be sent then.
    Due(Instant),
    /// Sent then, not answered.
    Sent { nonce: u64, at: Instant },
}

/// Since when a message is unfinished, or its last window began, and how much of its payload was there before.
#[derive(Clone, Copy, Debug)]
struct Partial {
    since: Instant,
    received: usize,
}

/// The timers of one connection; `pending` is everywhere the message that has begun and not ended.
#[derive(Debug)]
pub(super) struct Liveness {
    last_receive: Instant,
    ping: Ping,
    partial: Option<Partial>,
}

impl Liveness {
    /// The handshake is done: from now on the peer is watched.
    pub(super) fn new(now: Instant) -> Self {
        Self { last_receive: now, ping: Ping::Due(now + PING_INTERVAL), partial: None }
    }

    /// Bytes came. `completed`: a message ended with them, so that `pending` is another than before.
    pub(super) fn handle_bytes(&mut self, now: Instant, completed: bool, pending: Option<Pending>) {
        self.last_receive = now;
        let before = if completed { None } else { self.partial };
        self.partial = pending.map(|_| before.unwrap_or(Partial { since: now, received: 0 }));
    }

    /// Says whether it answers a ping of ours here.
    pub(super) fn handle_pong(&mut self, answered: u64) -> bool {
        match self.ping {
            Ping::Sent { nonce, at } if nonce == answered => {
                self.ping = Ping::Due(at + PING_INTERVAL);
                true
            }
            Ping::Sent { .. } | Ping::Due(_) => false,
        }
    }

    /// We did not read until now: all that the peer owes is due as if it had been asked now.
    pub(super) fn handle_resume(&mut self, now: Instant, pending: Option<Pending>) {
        self.last_receive = now;
        self.partial = pending.map(|pending| Partial { since: now, received: pending.received });
        if let Ping::Sent { at, .. } = &mut self.ping {
            *at = now;
        }
    }

    pub(super) fn handle_timeout(
        &mut self,
        now: Instant,
        pending: Option<Pending>,
        rng: &mut fastrand::Rng,
    ) -> Option<Due> {
        if now >= self.inactive_at() {
            return Some(Due::Close(CloseReason::Inactive));
        }
        if self.is_overdue(now, pending) {
            return Some(Due::Close(CloseReason::Misbehaved(Misbehavior::Stalled)));
        }
        match self.ping {
            Ping::Due(at) if now >= at => {
                let nonce = rng.u64(1..);
                self.ping = Ping::Sent { nonce, at: now };
                Some(Due::Ping(nonce))
            }
            Ping::Due(_) | Ping::Sent { .. } => None,
        }
    }

    pub(super) fn next_timeout(&self, pending: Option<Pending>) -> Instant {
        let ping = match self.ping {
            Ping::Due(at) => at,
            Ping::Sent { .. } => self.inactive_at(),
        };
        let first = self.inactive_at().min(ping);
        self.partial.map_or(first, |partial| first.min(partial.since + time_for(pending)))
    }

    fn inactive_at(&self) -> Instant {
        let since = match self.ping {
            Ping::Due(_) => self.last_receive,
            Ping::Sent { at, .. } => self.last_receive.min(at),
        };
        since + INACTIVITY_TIMEOUT
    }

    /// Whether the unfinished message takes too long; a block that flows is given another window.
    fn is_overdue(&mut self, now: Instant, pending: Option<Pending>) -> bool {
        let (Some(partial), Some(message)) = (self.partial, pending) else { return false };
        let waited = now.saturating_since(partial.since);
        if waited < time_for(pending) {
            return false;
        }
        let wanted = MIN_BLOCK_RATE.saturating_mul(waited.as_secs() as usize);
        if !is_block(pending) || message.received - partial.received < wanted {
            return true;
        }
        self.partial = Some(Partial { since: now, received: message.received });
        false
    }
}

fn time_for(pending: Option<Pending>) -> Duration {
    if is_block(pending) { BLOCK_WINDOW } else { MESSAGE_TIMEOUT }
}

fn is_block(pending: Option<Pending>) -> bool {
    pending.and_then(|pending| pending.command) == Some(Command::BLOCK)
}
