//! What header sync remembers of one peer.

use std::time::Duration;

use bitcoin::BlockHash;
use bitcoin::block::Header;

use super::presync::Presync;
use super::tree::HeaderTip;
use crate::time::{Instant, Now};

/// Longest wait before headers from the future are tried again, should our clock be set meanwhile.
const MAX_HOLD: Duration = Duration::from_secs(10 * 60);

/// How long an answer near the tip, which is a small one, is waited for before the same is asked once more.
pub(super) const REPEAT: Duration = Duration::from_secs(20);
/// The same for a peer that has announced a block since.
pub(super) const REPEAT_NEWS: Duration = Duration::from_secs(5);

/// One connected peer.
#[derive(Debug)]
pub(super) struct Peer {
    /// It has the whole chain: preferred for the first sync.
    pub serves_history: bool,
    /// When the getheaders was sent that it has not answered.
    pub in_flight: Option<Instant>,
    /// The same may be asked once more.
    pub may_repeat: bool,
    /// It let us wait long for an answer, and has not given one since.
    pub late: bool,
    /// What to ask it next, when its turn comes.
    pub want: Want,
    /// Its last answer was a short one, so it has told all it has.
    pub told_all: bool,
    /// The header with the most work that it is known to have.
    pub tip: Option<HeaderTip>,
    /// A block that it announced and whose header we lack, or cannot connect.
    pub announced: Option<BlockHash>,
    /// The chain whose work is still being counted.
    pub presync: Option<Box<Presync>>,
    /// Headers that our clock says are from the future.
    pub held: Option<Held>,
    /// Answer windows that passed in a row without an answer.
    pub strikes: u32,
    /// When it last sent headers, or connected.
    pub heard: Instant,
    /// The `sendheaders` is sent.
    pub prefers_headers: bool,
    /// How often it was the sync peer; the least often goes first.
    pub turns: u32,
    /// Settles the order among equals.
    pub lot: u32,
    /// The operator was told that its chain has too little work.
    pub warned_of_work: bool,
}

/// What a peer shall be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Want {
    /// Nothing: it will announce what is new.
    Nothing,
    /// What it has beyond our best header.
    News,
    /// What comes after this header, which ended a full answer.
    After(BlockHash),
}

/// Headers to try again.
#[derive(Debug)]
pub(super) struct Held {
    pub headers: Vec<Header>,
    /// There are more after them.
    pub full: bool,
    /// Unix second from which the first is acceptable.
    pub until: u64,
    /// When to look at the clock.
    pub due: Instant,
}

impl Peer {
    pub fn new(now: Now, serves_history: bool, lot: u32) -> Self {
        Self {
            serves_history,
            in_flight: None,
            may_repeat: false,
            late: false,
            want: Want::News,
            told_all: false,
            tip: None,
            announced: None,
            presync: None,
            held: None,
            strikes: 0,
            heard: now.instant,
            prefers_headers: false,
            turns: 0,
            lot,
            warned_of_work: false,
        }
    }

    /// Whether there is something to ask it, and it owes no answer.
    pub fn can_be_asked(&self) -> bool {
        self.in_flight.is_none() && self.want != Want::Nothing
    }

    /// When to ask it once more what it has not answered: a node that is still reading its own block files passes over
    /// the question without a word. One that announces blocks meanwhile has done so for certain, or is slow.
    pub fn repeat_due(&self) -> Option<Instant> {
        let sent = self.in_flight.filter(|_| self.may_repeat)?;
        Some(sent + if self.announced.is_some() { REPEAT_NEWS } else { REPEAT })
    }

    /// It announced a block whose header we lack, or cannot connect.
    pub fn announces(&mut self, hash: BlockHash) {
        self.announced = Some(hash);
        if self.want == Want::Nothing {
            self.want = Want::News;
        }
    }

    /// Records that the peer has `tip`; returns whether that is news.
    pub fn saw(&mut self, tip: HeaderTip) -> bool {
        let better = self.tip.is_none_or(|old| tip.work > old.work);
        if better {
            self.tip = Some(tip);
        }
        better
    }

    /// It answered: what it was asked is done.
    pub fn answered(&mut self, now: Now) {
        self.in_flight = None;
        self.may_repeat = false;
        self.late = false;
        self.strikes = 0;
        self.heard = now.instant;
    }
}

impl Held {
    pub fn new(now: Now, headers: Vec<Header>, full: bool, until: u64) -> Self {
        let wait = Duration::from_secs(until.saturating_sub(now.unix));
        Self { headers, full, until, due: now.instant + wait.min(MAX_HOLD) }
    }
}
