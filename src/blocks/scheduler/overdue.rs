//! What takes too long: a block is asked of one more peer, and a peer is given up.

use std::collections::BTreeSet;
use std::time::Duration;

use bitcoin::BlockHash;

use super::{Asked, Scheduler, Situation};
use crate::headers::HeaderTree;
use crate::peer::PeerId;
use crate::time::{Instant, Now};

/// A peer that owes us blocks has this long for the next one (Core: `BLOCK_DOWNLOAD_TIMEOUT_BASE`).
const DOWNLOAD_TIMEOUT: Duration = Duration::from_secs(10 * 60);
/// And this much more for each other peer that is busy for us too (Core: `BLOCK_DOWNLOAD_TIMEOUT_PER_PEER`).
const DOWNLOAD_TIMEOUT_PER_PEER: Duration = Duration::from_secs(5 * 60);

/// A peer that everything waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stall {
    peer: PeerId,
    hash: BlockHash,
    since: Instant,
}

impl Scheduler {
    /// Peers that have had their time. They must be removed.
    pub fn expired(&mut self, now: Now) -> BTreeSet<PeerId> {
        let stalled = self.stalled_at().filter(|(_, at)| *at <= now.instant).map(|(peer, _)| peer);
        let limit = self.download_timeout();
        let slow = self
            .peers
            .iter()
            .filter(|(_, peer)| peer.busy_since().is_some_and(|since| since + limit <= now.instant));
        let expired: BTreeSet<PeerId> = slow.map(|(id, _)| *id).chain(stalled).collect();
        if stalled.is_some() {
            self.patience.evicted();
        }
        if !expired.is_empty() {
            // With fewer peers the time is shorter, but then our link is freer too: they begin anew.
            self.peers.values_mut().for_each(|peer| peer.begin_anew(now.instant));
        }
        expired
    }

    /// When [`Self::expired`] or [`Self::ask`] has something to do although nothing happened.
    pub fn next_timeout(&self) -> Option<Instant> {
        let limit = self.download_timeout();
        let slow = self.peers.values().filter_map(|peer| Some(peer.busy_since()? + limit));
        slow.chain(self.stalled_at().map(|(_, at)| at)).chain(self.hedge_at).min()
    }

    /// Asks one more peer for a block that takes too long.
    pub(super) fn hedge(&mut self, now: Now, hash: BlockHash, tree: &HeaderTree, asked: &mut Asked) {
        let timeout = self.patience.timeout();
        let Some(request) = self.requests.get_mut(&hash) else { return };
        let times_asked = request.asks.len();
        let Some(last) = request.asks.last_mut() else { return };
        let (height, purpose) = (request.height, request.purpose);
        let due = last.at + timeout * (1 << (times_asked - 1).min(8));
        if now.instant < due {
            self.hedge_at = Some(self.hedge_at.map_or(due, |at| at.min(due)));
            return;
        }
        if !std::mem::replace(&mut last.lapsed, true)
            && let Some(peer) = self.peers.get_mut(&last.peer)
        {
            peer.lapsed(height);
        }
        let asks = request.asks.clone();
        if let Some(peer) = self.choose(height, hash, &asks, tree) {
            self.send(now, peer, height, hash, purpose, asked);
            // It has its time too.
            let due = now.instant + timeout * (1 << times_asked.min(8));
            self.hedge_at = Some(self.hedge_at.map_or(due, |at| at.min(due)));
        }
    }

    /// Who keeps everything waiting: see the module.
    pub(super) fn find_stall(&self, now: Now, full: bool, situation: &Situation) -> Option<Stall> {
        let Situation { window, tree, stuck, .. } = *situation;
        let (height, hash) = window.first_missing().filter(|(height, _)| *height == window.first())?;
        let peer = self.requests.get(&hash)?.asks.first()?.peer;
        let others = self.peers.iter().any(|(id, other)| *id != peer && other.can_give(height, hash, tree));
        if !full || !stuck || !others {
            return None;
        }
        let same = self.stall.filter(|stall| (stall.peer, stall.hash) == (peer, hash));
        Some(same.unwrap_or(Stall { peer, hash, since: now.instant }))
    }

    /// Who is dropped for stalling, and when. A peer that delivers something has its time again, as in Core.
    fn stalled_at(&self) -> Option<(PeerId, Instant)> {
        let Stall { peer, since, .. } = self.stall?;
        let delivered = self.peers.get(&peer)?.last_delivery.unwrap_or(since);
        Some((peer, since.max(delivered) + self.patience.timeout()))
    }

    fn download_timeout(&self) -> Duration {
        DOWNLOAD_TIMEOUT + DOWNLOAD_TIMEOUT_PER_PEER * self.busy_peers().saturating_sub(1) as u32
    }
}
