//! Whose turn it is to be asked for headers.
//!
//! While the best header is older than a day only one peer's full answers are followed up, so that a chain is not
//! downloaded from everyone at once; the turn passes on when that peer is done, or too slow while another waits. When
//! the best header is younger, or one peer has told all it has, every peer is asked. A peer owes one answer at a time; near
//! the tip, where answers are small, it is asked once more when it keeps silent.
//! *Hedge*: when the sync peer's answer takes long, one more peer is asked the same, and another each time twice as long
//! later; the first that brings something new is the sync peer from then on. So silence costs seconds, and the price is
//! one more answer at a time.
//!
//! Source: Bitcoin Core `net_processing.cpp` (`MaybeSendGetHeaders`, `SendMessages`), with a tighter rotation.

use std::cmp::Reverse;
use std::time::Duration;

use bitcoin::BlockHash;

use super::peer_state::{Held, Want};
use super::sync::{HeaderSync, Output};
use crate::peer::{Misbehavior, PeerId};
use crate::time::{Instant, Now};
use crate::validate::BLOCK_SPACING;

/// How long a peer may take for an answer (Core's `HEADERS_RESPONSE_TIME`).
pub(super) const ANSWER_WINDOW: Duration = Duration::from_secs(2 * 60);
/// Windows in a row without an answer after which a peer is of no use, if there is another.
const MAX_STRIKES: u32 = 2;
/// How long the sync peer may bring nothing new while another could be asked.
pub(super) const NO_PROGRESS: Duration = Duration::from_secs(60);
/// How long the sync peer's answer is waited for before one more peer is asked. Doubled by each such question, also for
/// the sync peer that follows: where our own link is slow, not everything shall come twice.
pub(super) const HEDGE_AFTER: Duration = Duration::from_secs(5);
/// How long an answer is waited for before we call ourselves caught up without it.
pub(super) const LATE: Duration = Duration::from_secs(20);
/// How long a peer may be the sync peer while another could be asked: this, and a millisecond for each header that
/// should be missing (Core's `HEADERS_DOWNLOAD_TIMEOUT_BASE` and `_PER_HEADER`).
const TURN: Duration = Duration::from_secs(15 * 60);
/// Age of the best header, in seconds, from which on we are only catching up.
pub(super) const RECENT: u64 = 24 * 60 * 60;
/// A peer that sent no header for so long is asked again: announcements get lost, and a node that catches up makes none.
pub(super) const ASK_AGAIN: Duration = Duration::from_secs(20 * 60);

/// The sync peer.
#[derive(Debug)]
pub(super) struct Turn {
    pub peer: PeerId,
    /// When it last brought something new.
    pub progress: Instant,
    deadline: Instant,
    /// Peers that were asked beside it since then, as its answer took long.
    hedges: Vec<PeerId>,
    hedged_at: Option<Instant>,
    /// How long the next answer is waited for.
    patience: Duration,
}

impl HeaderSync {
    /// Gives the turn if it is free or not used well, and asks whom there is something to ask.
    pub(super) fn ask(&mut self, now: Now) {
        let recent = self.is_recent(now);
        if recent {
            self.turn = None;
        } else {
            self.pass_turn_on(now);
        }
        let hedge = self.hedge(now);
        let turn = self.turn.as_ref().map(|turn| turn.peer);
        let asked_one = self.asked_one;
        let due: Vec<_> = self
            .peers
            .iter()
            .filter(|(id, peer)| {
                let may = recent
                    || turn == Some(**id)
                    || hedge == Some(**id)
                    || (asked_one && peer.want == Want::News);
                let again = peer.repeat_due().is_some_and(|due| due <= now.instant);
                again || (may && peer.can_be_asked())
            })
            .map(|(&id, _)| id)
            .collect();
        for id in due {
            let locator = self.locator_for(id);
            if let Some(peer) = self.peers.get_mut(&id) {
                peer.may_repeat = recent && peer.in_flight.is_none();
                // The answer is due by when it was first asked for.
                peer.in_flight = peer.in_flight.or(Some(now.instant));
                self.outputs.push_back(Output::GetHeaders { peer: id, locator });
            }
        }
    }

    /// Frees the turn if it is this peer's.
    pub(super) fn end_turn(&mut self, peer: PeerId) {
        if self.turn.as_ref().is_some_and(|turn| turn.peer == peer) {
            self.turn = None;
        }
    }

    /// Whether this peer was asked beside the sync peer.
    pub(super) fn is_hedge(&self, peer: PeerId) -> bool {
        self.turn.as_ref().is_some_and(|turn| turn.hedges.contains(&peer))
    }

    /// A peer brought something new. One that was asked beside the sync peer takes its place.
    pub(super) fn note_progress(&mut self, now: Now, from: PeerId) {
        let Some(turn) = &mut self.turn else { return };
        if turn.peer == from {
            turn.progress = now.instant;
            turn.hedges.clear();
        } else if turn.hedges.contains(&from) {
            let patience = turn.patience;
            self.give_turn(now, from, patience);
        }
    }

    /// Ends what waited too long.
    pub(super) fn expire(&mut self, now: Now) {
        let mut silent = Vec::new();
        for (&id, peer) in &mut self.peers {
            if peer.in_flight.is_some_and(|sent| now.instant >= sent + ANSWER_WINDOW) {
                peer.in_flight = None;
                peer.may_repeat = false;
                peer.strikes += 1;
                if peer.strikes >= MAX_STRIKES {
                    silent.push(id);
                }
            }
            peer.late |= peer.in_flight.is_some_and(|sent| now.instant >= sent + LATE);
            if peer.want == Want::Nothing && now.instant >= peer.heard + ASK_AGAIN {
                peer.heard = now.instant;
                peer.want = Want::News;
            }
        }
        for id in silent {
            // Not the last one, though: a silent peer may yet speak, none cannot.
            if self.peers.len() > 1 {
                self.drop_peer(id, Misbehavior::Stalled);
            }
        }
    }

    /// Moments at which `expire`, the turn or a held header may need us.
    pub(super) fn deadlines(&self) -> impl Iterator<Item = Instant> {
        let peers = self.peers.values().flat_map(|peer| {
            let answer = peer.in_flight.map(|sent| sent + ANSWER_WINDOW);
            let again = (peer.want == Want::Nothing).then(|| peer.heard + ASK_AGAIN);
            let held = peer.held.as_ref().map(|held: &Held| held.due);
            let late = peer.in_flight.filter(|_| !peer.late).map(|sent| sent + LATE);
            [answer, again, held, late, peer.repeat_due()].into_iter().flatten()
        });
        let turn = self.turn.as_ref().filter(|_| self.next_in_line().is_some());
        let hedge = turn.and_then(|turn| self.hedge_due(turn));
        peers.chain(turn.map(Turn::ends)).chain(hedge)
    }

    /// Whether the best header is young enough that all peers are asked.
    fn is_recent(&self, now: Now) -> bool {
        u64::from(self.tree.best_time()) + RECENT > now.unix
    }

    fn pass_turn_on(&mut self, now: Now) {
        if self.turn.as_ref().is_some_and(|turn| now.instant < turn.ends()) {
            return;
        }
        // Nobody else waits: a slow peer is better than none.
        let Some(next) = self.next_in_line() else { return };
        self.give_turn(now, next, HEDGE_AFTER);
    }

    fn give_turn(&mut self, now: Now, to: PeerId, patience: Duration) {
        if let Some(peer) = self.peers.get_mut(&to) {
            peer.turns += 1;
        }
        let missing = now.unix.saturating_sub(u64::from(self.tree.best_time())) / u64::from(BLOCK_SPACING);
        let deadline = now.instant + TURN + Duration::from_millis(missing);
        self.turn = Some(Turn {
            peer: to,
            progress: now.instant,
            deadline,
            hedges: Vec::new(),
            hedged_at: None,
            patience,
        });
    }

    /// The peer that is to be asked beside the sync peer now.
    fn hedge(&mut self, now: Now) -> Option<PeerId> {
        let turn = self.turn.as_ref()?;
        self.hedge_due(turn).filter(|due| *due <= now.instant)?;
        let next = self.next_in_line()?;
        let turn = self.turn.as_mut()?;
        turn.hedges.push(next);
        turn.hedged_at = Some(now.instant);
        turn.patience = (turn.patience * 2).min(NO_PROGRESS);
        Some(next)
    }

    /// When one more peer is to be asked; `None` while the sync peer owes nothing.
    fn hedge_due(&self, turn: &Turn) -> Option<Instant> {
        let asked = self.peers.get(&turn.peer)?.in_flight?;
        Some(asked.max(turn.hedged_at.unwrap_or_default()) + turn.patience)
    }

    /// The peer that gets the turn next, other than the one that has it.
    fn next_in_line(&self) -> Option<PeerId> {
        let current = self.turn.as_ref().map(|turn| turn.peer);
        self.peers
            .iter()
            .filter(|(id, peer)| Some(**id) != current && peer.can_be_asked())
            .min_by_key(|(id, peer)| (peer.strikes, peer.turns, Reverse(peer.serves_history), peer.lot, **id))
            .map(|(&id, _)| id)
    }

    /// Where the next answer shall begin.
    fn locator_for(&self, id: PeerId) -> Vec<BlockHash> {
        let best = self.tree.best();
        let peer = self.peers.get(&id);
        if let Some(presync) = peer.and_then(|peer| peer.presync.as_ref()) {
            return presync.locator(&self.tree);
        }
        // One below the best, so that a peer that has just that still answers something.
        let below = best.height.prev().and_then(|height| self.tree.hash_at(height)).unwrap_or(best.hash);
        match peer.map_or(Want::News, |peer| peer.want) {
            Want::After(last) if !self.tree.is_best(last) => self.tree.locator(last),
            // Others may have brought us further along the same chain; `last` stays in, so that it goes on from there
            // at least.
            Want::After(last) => {
                let mut locator = self.tree.locator(below);
                let height = self.tree.height(last);
                let at = locator.partition_point(|&hash| self.tree.height(hash) > height);
                if locator.get(at) != Some(&last) {
                    locator.insert(at, last);
                }
                locator
            }
            Want::News | Want::Nothing => self.tree.locator(below),
        }
    }
}

impl Turn {
    /// When it ends if another peer waits for it.
    fn ends(&self) -> Instant {
        (self.progress + NO_PROGRESS).min(self.deadline)
    }
}
