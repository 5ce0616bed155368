//! What each peer can serve, and what it owes us.
//!
//! A pruned peer is asked only for blocks near its own tip: a Core node hangs up on whoever asks deeper. A peer
//! that claims the whole history and does not deliver it is used for the tip alone.
//! Source: Bitcoin Core `net_processing.cpp` (`ProcessGetBlockData`, `FindNextBlocks`); BIP159.

use std::collections::BTreeMap;
use std::time::Duration;

use bitcoin::BlockHash;
use chainstore::Height;

use crate::headers::{HeaderTip, HeaderTree};
use crate::peer::PeerInfo;
use crate::time::Instant;

/// Blocks one peer may owe us (Core: `MAX_BLOCKS_IN_TRANSIT_PER_PEER`).
pub(super) const MAX_IN_FLIGHT: usize = 16;
/// How far below its tip a pruned peer is asked. It serves 290, and its tip may move while we ask; Core asks for
/// 288 less 2.
const PRUNED_DEPTH: u32 = 286;
/// Below this depth a block is history, which not every peer that claims it delivers.
const HISTORY_DEPTH: u32 = 288;
/// Timeouts on history after which a peer is not asked for history again.
const MAX_HISTORY_TIMEOUTS: u32 = 2;
/// How many stall timeouts a peer has to deliver anything, after somebody asked later was sooner.
const LATE_GRACE: u32 = 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Serves {
    Nothing,
    /// The newest blocks (NODE_NETWORK_LIMITED).
    Recent,
    All,
}

/// One peer, as far as blocks go.
#[derive(Debug)]
pub(super) struct BlockPeer {
    serves: Serves,
    /// The best header that it is known to have.
    pub tip: Option<HeaderTip>,
    /// What was asked for, and when.
    pub in_flight: BTreeMap<BlockHash, Instant>,
    history_timeouts: u32,
    /// Since when it owes us a block that somebody else, asked later, has delivered.
    late_since: Option<Instant>,
}

impl BlockPeer {
    pub fn new(info: &PeerInfo) -> Self {
        let serves = match (info.serves_history(), info.serves_recent()) {
            (true, _) => Serves::All,
            (false, true) => Serves::Recent,
            (false, false) => Serves::Nothing,
        };
        Self { serves, tip: None, in_flight: BTreeMap::new(), history_timeouts: 0, late_since: None }
    }

    /// Whether it should have this block and will give it to us.
    pub fn can_serve(&self, hash: BlockHash, height: Height, tree: &HeaderTree) -> bool {
        let Some(tip) = self.tip.filter(|tip| tip.height >= height) else { return false };
        let depth = tip.height.0 - height.0;
        let deep_enough = match self.serves {
            Serves::Nothing => false,
            Serves::Recent => depth <= PRUNED_DEPTH,
            Serves::All => depth <= HISTORY_DEPTH || self.history_timeouts < MAX_HISTORY_TIMEOUTS,
        };
        deep_enough && tree.ancestor(tip.hash, height) == Some(hash)
    }

    pub fn has_room(&self) -> bool {
        self.in_flight.len() < MAX_IN_FLIGHT
    }

    /// It delivered something that it was asked for.
    pub fn delivered(&mut self) {
        self.late_since = None;
    }

    /// Somebody who was asked later delivered first.
    pub fn lost_race(&mut self, now: Instant) {
        self.late_since.get_or_insert(now);
    }

    /// Whether it has something to make up for: it gets no more work meanwhile.
    pub fn is_late(&self) -> bool {
        self.late_since.is_some()
    }

    /// When it is given up, unless it delivers something.
    pub fn dead_at(&self, stall_timeout: Duration) -> Option<Instant> {
        self.late_since.map(|since| since + stall_timeout * LATE_GRACE)
    }

    /// It did not deliver a block of this height in time.
    pub fn timed_out(&mut self, height: Height) {
        if self.tip.is_some_and(|tip| tip.height.0.saturating_sub(height.0) > HISTORY_DEPTH) {
            self.history_timeouts += 1;
        }
    }

    /// When the oldest of what it owes us was asked for.
    pub fn oldest(&self) -> Option<Instant> {
        self.in_flight.values().min().copied()
    }
}
