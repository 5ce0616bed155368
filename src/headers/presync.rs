//! A chain is first counted, then kept: nobody fills our memory with headers that cost him nothing.
//!
//! Far below the best chain, or below the network's minimum of work, a header is cheap to make. So such a chain is
//! asked for twice. The first time every rule is checked, the work added up, and nothing kept but the last hash of each
//! answer and one retarget period of times and bits. Once the work suffices the chain is asked for again, and an answer
//! is kept when it leads to the hash that was noted: a hash names all that lies below it, so these are the same
//! headers.
//!
//! Source: Bitcoin Core `headerssync.cpp`, which notes a salted bit every few hundred headers instead.

use std::collections::VecDeque;

use bitcoin::block::Header;
use bitcoin::{BlockHash, CompactTarget, Work};
use chainstore::Height;

use super::tree::{HeaderTip, HeaderTree};
use super::view::Branch;
use crate::validate::{Ancestors, HeaderError, RETARGET_INTERVAL, check_header, work_of};

/// Answers counted of one chain, 32 bytes each: twenty million headers, four times the longest chain there is.
const MAX_MARKS: usize = 10_000;
/// Headers that may wait for their mark: answers may be cut differently the second time.
const MAX_BUFFERED: usize = 4_000;

/// The two passes through one peer's chain.
#[derive(Debug)]
pub(super) struct Presync {
    /// The known header on which the chain stands.
    start: HeaderTip,
    /// Last hash of each answer of the first pass.
    marks: VecDeque<BlockHash>,
    /// Time and bits of the newest counted headers, lowest first.
    window: VecDeque<(u32, CompactTarget)>,
    tip: HeaderTip,
    pass: Pass,
}

#[derive(Debug)]
enum Pass {
    /// Counting.
    First,
    /// Taking: headers after the last mark met.
    Second { buffer: Vec<Header> },
}

/// What an answer led to.
#[derive(Debug)]
pub(super) enum Step {
    /// More is needed.
    Continue,
    /// These may enter the tree, and more is needed.
    Keep(Vec<Header>),
    /// These may enter the tree; they end what had to be counted, and the rest of the chain needs no second look.
    Done(Vec<Header>),
    /// The chain is not worth more questions.
    GiveUp,
    /// A header breaks a rule.
    Bad(HeaderError),
}

impl Presync {
    /// Begins on top of a header of the tree.
    pub fn new(tree: &HeaderTree, start: BlockHash) -> Option<Self> {
        let info = tree.info(start)?;
        let start = HeaderTip { height: info.height, hash: start, work: info.work };
        Some(Self { start, marks: VecDeque::new(), window: VecDeque::new(), tip: start, pass: Pass::First })
    }

    /// Whether an answer that starts on `prev` is the one that is waited for.
    pub fn expects(&self, prev: BlockHash) -> bool {
        match &self.pass {
            Pass::First => prev == self.tip.hash,
            Pass::Second { buffer } => prev == buffer.last().map_or(self.tip.hash, Header::block_hash),
        }
    }

    /// How far the first pass has counted, while it lasts.
    pub fn counted(&self) -> Option<Height> {
        match self.pass {
            Pass::First => Some(self.tip.height),
            Pass::Second { .. } => None,
        }
    }

    /// What to ask next, highest first.
    pub fn locator(&self, tree: &HeaderTree) -> Vec<BlockHash> {
        let mut locator = Vec::new();
        match &self.pass {
            Pass::First => locator.push(self.tip.hash),
            Pass::Second { buffer } => {
                locator.extend(buffer.last().map(Header::block_hash));
                locator.push(self.tip.hash);
            }
        }
        locator.extend(tree.locator(self.start.hash));
        locator.dedup();
        locator
    }

    /// Takes an answer whose proofs of work and links are checked and which [`Self::expects`] accepted. `full`: the
    /// peer has more. `enough` is the work from which a chain is kept.
    pub fn take(
        &mut self,
        tree: &HeaderTree,
        headers: Vec<Header>,
        full: bool,
        enough: Work,
        now_unix: u64,
    ) -> Step {
        match &mut self.pass {
            Pass::First => self.count(tree, &headers, full, enough, now_unix),
            Pass::Second { buffer } => {
                buffer.extend(headers);
                self.release(full)
            }
        }
    }

    fn count(
        &mut self,
        tree: &HeaderTree,
        headers: &[Header],
        full: bool,
        enough: Work,
        now_unix: u64,
    ) -> Step {
        for header in headers {
            let Some(base) = tree.branch(self.start.hash) else { return Step::GiveUp };
            let below = Counted { base, window: &self.window, tip: self.tip.height };
            if let Err(error) = check_header(header, &below, now_unix, tree.params()) {
                return if error.retry_at().is_some() { Step::GiveUp } else { Step::Bad(error) };
            }
            if self.window.len() == RETARGET_INTERVAL as usize {
                self.window.pop_front();
            }
            self.window.push_back((header.time, header.bits));
            self.tip = HeaderTip {
                height: self.tip.height.next(),
                hash: header.block_hash(),
                work: self.tip.work + work_of(header.bits),
            };
        }
        self.marks.push_back(self.tip.hash);
        if self.tip.work >= enough {
            self.tip = self.start;
            self.window = VecDeque::new();
            self.pass = Pass::Second { buffer: Vec::new() };
            return Step::Continue;
        }
        if full && self.marks.len() < MAX_MARKS { Step::Continue } else { Step::GiveUp }
    }

    /// Gives out what the next marks vouch for.
    fn release(&mut self, full: bool) -> Step {
        let Pass::Second { buffer } = &mut self.pass else { return Step::GiveUp };
        let mut vouched = 0;
        for (index, header) in buffer.iter().enumerate() {
            let hash = header.block_hash();
            if self.marks.front() == Some(&hash) {
                self.marks.pop_front();
                vouched = index + 1;
                self.tip.hash = hash;
            }
        }
        if self.marks.is_empty() {
            return Step::Done(std::mem::take(buffer));
        }
        let rest = buffer.split_off(vouched);
        let keep = std::mem::replace(buffer, rest);
        if !keep.is_empty() {
            Step::Keep(keep)
        } else if full && buffer.len() < MAX_BUFFERED {
            Step::Continue
        } else {
            Step::GiveUp
        }
    }
}

/// The headers below the next one to count: the newest from the window, all below its start from the tree.
struct Counted<'a> {
    base: Branch<'a>,
    window: &'a VecDeque<(u32, CompactTarget)>,
    tip: Height,
}

impl Counted<'_> {
    /// The counted header at `height`. The window holds a whole retarget period, further down no rule looks.
    fn counted(&self, height: Height) -> Option<(u32, CompactTarget)> {
        let depth = (self.tip.0 - height.0) as usize;
        let index = self.window.len().checked_sub(depth + 1)?;
        self.window.get(index).copied()
    }
}

impl Ancestors for Counted<'_> {
    fn tip_height(&self) -> Height {
        self.tip
    }

    fn time(&self, height: Height) -> u32 {
        self.counted(height).map_or_else(|| self.base.time(height), |(time, _)| time)
    }

    fn bits(&self, height: Height) -> CompactTarget {
        self.counted(height).map_or_else(|| self.base.bits(height), |(_, bits)| bits)
    }
}
