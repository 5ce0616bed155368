//! What each peer can give, and how well it does.
//!
//! A pruned peer is asked only for blocks near its own tip: a Core node hangs up on whoever asks deeper. A peer that
//! claims the whole history and does not deliver it is used for the tip alone. Which block it is asked for, and when
//! it has taken too long, is the scheduler's work.
//! Source: Bitcoin Core `net_processing.cpp` (`ProcessGetBlockData`, `FindNextBlocks`); BIP159; bitcoin#11037.

use std::collections::{BTreeMap, BTreeSet};

use bitcoin::BlockHash;
use chainstore::Height;

use crate::headers::{HeaderTip, HeaderTree};
use crate::peer::PeerInfo;
use crate::time::Instant;

/// Blocks one peer may owe us (Core: `MAX_BLOCKS_IN_TRANSIT_PER_PEER`).
pub(super) const MAX_IN_FLIGHT: usize = 16;
/// How far below its own tip a pruned peer is asked. It serves 290 deep, and its tip may move while our question is
/// on its way; Core asks no deeper than 288 less 2 of that.
const PRUNED_DEPTH: u32 = 286;
/// Below this depth a block is history, which not every peer that claims it delivers.
const HISTORY_DEPTH: u32 = 288;
/// Timeouts on history, with none delivered in between, after which a peer is asked for recent blocks only.
const MAX_HISTORY_LAPSES: u32 = 2;
/// Timeouts, with nothing delivered in between, after which a peer is asked only for what no other peer has.
const MAX_LAPSES: u32 = 2;
/// Blocks in a row that arrive damaged, after which the connection is of no use, or the peer no friend.
const MAX_DAMAGED: u32 = 3;
/// Blocks remembered of one peer that it refused, or still owes after others delivered them.
const MAX_REMEMBERED: usize = 64;

/// What a peer says it keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Serves {
    Nothing,
    /// At least the newest 288 blocks (NODE_NETWORK_LIMITED).
    Recent,
    /// The whole chain (NODE_NETWORK).
    All,
}

/// One peer, as far as blocks go.
#[derive(Debug)]
pub(super) struct Peer {
    serves: Serves,
    /// Whether it said that it gives compact blocks.
    pub gives_compact: bool,
    /// The best header that it is known to have.
    tip: Option<HeaderTip>,
    /// The highest block of the best chain that is in its chain too.
    shared: Option<Height>,
    /// Blocks that it owes us.
    in_flight: usize,
    /// Since when it owes us the block that it should deliver next. Means nothing while nothing is in flight.
    busy_since: Instant,
    /// When it last delivered a block that we asked for.
    pub last_delivery: Option<Instant>,
    /// Timeouts since its last delivery.
    lapses: u32,
    /// Blocks in a row that were damaged on their way from it.
    damaged: u32,
    /// Timeouts on history since it last delivered some.
    history_lapses: u32,
    /// Blocks of which it said that it has not got them.
    refused: BTreeSet<BlockHash>,
    /// Blocks that it was asked for and that came from somebody else: they may still arrive.
    late: BTreeMap<BlockHash, Height>,
}

impl Peer {
    pub fn new(info: &PeerInfo) -> Self {
        let serves = match (info.serves_history(), info.serves_recent()) {
            (true, _) => Serves::All,
            (false, true) => Serves::Recent,
            (false, false) => Serves::Nothing,
        };
        Self {
            serves,
            gives_compact: false,
            tip: None,
            shared: None,
            in_flight: 0,
            busy_since: Instant::default(),
            last_delivery: None,
            lapses: 0,
            damaged: 0,
            history_lapses: 0,
            refused: BTreeSet::new(),
            late: BTreeMap::new(),
        }
    }

    pub fn set_tip(&mut self, tip: HeaderTip, tree: &HeaderTree) {
        self.tip = Some(tip);
        self.compare(tree);
    }

    /// The best chain is another one, or longer.
    pub fn compare(&mut self, tree: &HeaderTree) {
        let best = tree.best().hash;
        self.shared = self.tip.and_then(|tip| tree.fork_point(tip.hash, best)).map(|fork| fork.height);
    }

    /// The highest block of the best chain that it has; `None` while its chain is not known.
    pub fn shared(&self) -> Option<Height> {
        self.shared
    }

    /// The end of its chain, where that is beside the best one.
    pub fn side_tip(&self) -> Option<HeaderTip> {
        self.tip.filter(|tip| self.shared.is_none_or(|shared| shared < tip.height))
    }

    /// It serves blocks, and which ones it has is not known yet.
    pub fn is_undecided(&self) -> bool {
        self.serves != Serves::Nothing && self.tip.is_none()
    }

    /// Whether it may have a block of the best chain at this height, and keep it: a first, quick look.
    pub fn may_have(&self, height: Height) -> bool {
        self.shared.is_some_and(|shared| height <= shared) && self.keeps(height)
    }

    /// Whether it has the block and will give it to us.
    pub fn can_give(&self, height: Height, hash: BlockHash, tree: &HeaderTree) -> bool {
        self.may_have_kept(height, hash) && self.has(height, hash, tree)
    }

    /// Whether it keeps blocks of that height, and has not said that it lacks this one. It may be of another chain.
    pub fn may_have_kept(&self, height: Height, hash: BlockHash) -> bool {
        self.keeps(height) && !self.refused.contains(&hash) && self.refused.len() < MAX_REMEMBERED
    }

    /// Whether it may be asked for one more.
    pub fn has_room(&self) -> bool {
        self.in_flight < MAX_IN_FLIGHT
    }

    /// Blocks that it may still be asked for.
    pub fn room(&self) -> usize {
        MAX_IN_FLIGHT.saturating_sub(self.in_flight)
    }

    /// Whether it has been silent so often that others come first, also when they are busy.
    pub fn is_unreliable(&self) -> bool {
        self.lapses >= MAX_LAPSES
    }

    /// Who is asked first: the lowest.
    pub fn burden(&self) -> (u32, usize) {
        (self.lapses + self.damaged, self.in_flight)
    }

    /// Since when it owes us its next block; `None` when it owes nothing.
    pub fn busy_since(&self) -> Option<Instant> {
        (self.in_flight > 0).then_some(self.busy_since)
    }

    pub fn asked(&mut self, now: Instant) {
        if self.in_flight == 0 {
            self.busy_since = now;
        }
        self.in_flight += 1;
    }

    /// A block of `height`, which it was asked for, arrived from it, first or late.
    pub fn delivered(&mut self, now: Instant, height: Height) {
        self.last_delivery = Some(now);
        self.busy_since = now;
        self.lapses = 0;
        if self.is_history(height) {
            self.history_lapses = 0;
        }
    }

    /// A block from it passed its check.
    pub fn sound(&mut self) {
        self.damaged = 0;
    }

    /// A block was damaged on its way from it; whether it was one too many.
    pub fn damaged(&mut self) -> bool {
        self.damaged += 1;
        self.damaged >= MAX_DAMAGED
    }

    /// A block that it was asked for took too long.
    pub fn lapsed(&mut self, height: Height) {
        self.lapses = self.lapses.saturating_add(1);
        if self.is_history(height) {
            self.history_lapses = self.history_lapses.saturating_add(1);
        }
    }

    /// It said that it has not got a block.
    pub fn refused(&mut self, height: Height, hash: BlockHash) {
        self.lapsed(height);
        self.refused.insert(hash);
    }

    /// It has as much time for its next block as if it were asked for it now.
    pub fn begin_anew(&mut self, now: Instant) {
        self.busy_since = now;
    }

    /// One block less is expected of it.
    pub fn relieved(&mut self) {
        self.in_flight = self.in_flight.saturating_sub(1);
    }

    /// Somebody else delivered what it was asked for.
    pub fn beaten(&mut self, height: Height, hash: BlockHash) {
        self.relieved();
        if self.late.len() >= MAX_REMEMBERED {
            self.late.pop_first();
        }
        self.late.insert(hash, height);
    }

    /// The height of a block that it was asked for and that somebody else delivered sooner; once each.
    pub fn owed_late(&mut self, hash: &BlockHash) -> Option<Height> {
        self.late.remove(hash)
    }

    fn is_history(&self, height: Height) -> bool {
        self.tip.is_some_and(|tip| tip.height.0.saturating_sub(height.0) > HISTORY_DEPTH)
    }

    /// Whether it serves blocks as deep below its tip as this height.
    fn keeps(&self, height: Height) -> bool {
        let Some(tip) = self.tip.filter(|tip| tip.height >= height) else { return false };
        let depth = tip.height.0 - height.0;
        match self.serves {
            Serves::Nothing => false,
            Serves::Recent => depth <= PRUNED_DEPTH,
            Serves::All => depth <= HISTORY_DEPTH || self.history_lapses < MAX_HISTORY_LAPSES,
        }
    }

    /// Whether the block is in its chain.
    pub fn has(&self, height: Height, hash: BlockHash, tree: &HeaderTree) -> bool {
        if self.shared.is_some_and(|shared| height <= shared) {
            return tree.hash_at(height) == Some(hash);
        }
        self.tip.is_some_and(|tip| tree.ancestor(tip.hash, height) == Some(hash))
    }
}
