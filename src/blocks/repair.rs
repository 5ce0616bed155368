//! Blocks that are damaged on our own disk and are asked of peers again.
//!
//! They are no part of the window and move no tip: each is asked of any peer that has it (`scheduler`), checked like
//! every block, and handed to the writer, which puts it in the place of the damaged one. A peer that does not answer
//! is hedged and one that lies is dropped, as for the block that all others wait for.
//! Few are wanted at once, whatever wallets ask for; the others are named again when somebody meets them. A block that
//! was put in place and cannot be read again tells of a failing disk: it is not fetched again for a while.

use std::collections::BTreeMap;
use std::time::Duration;

use bitcoin::BlockHash;
use chainstore::{Height, Tip};

use super::check::Refusal;
use super::sync::BlockSync;
use super::types::Output;
use crate::headers::HeaderTree;
use crate::peer::{Misbehavior, PeerId, WireBlock};
use crate::time::{Instant, Now};
use crate::validate::{CheckedBlock, Verdict};

/// Blocks wanted at once. Each may be in memory with its four megabytes, and four times that while it is checked.
pub const MAX_REPAIRS: usize = 8;
/// How long a block that nobody can be asked for stays wanted when others are damaged too.
const GIVE_WAY: Duration = Duration::from_secs(60);
/// How long a block that was fetched again is not fetched another time.
const REPAIR_AGAIN: Duration = Duration::from_secs(10 * 60);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Repairs {
    wanted: BTreeMap<BlockHash, Wanted>,
    /// When blocks were put in place, those of the last ten minutes.
    repaired: BTreeMap<BlockHash, Instant>,
}

#[derive(Debug)]
struct Wanted {
    height: Height,
    since: Instant,
    not_before: Instant,
    /// A switch waits for it.
    blocks_switch: bool,
    stage: Stage,
}

/// A block that is to be asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Missing {
    pub height: Height,
    pub hash: BlockHash,
    /// Also of peers whose chain has another block there: it may be of a branch that all have left, and they may
    /// have kept it.
    pub anywhere: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Missing,
    Checking {
        from: PeerId,
    },
    /// The writer has it.
    Handed,
}

impl Repairs {
    /// Returns whether that is news.
    fn want(&mut self, now: Now, block: Tip) -> bool {
        self.repaired.retain(|_, at| now.instant < *at + REPAIR_AGAIN);
        let not_before = self.repaired.get(&block.hash).map_or(now.instant, |at| *at + REPAIR_AGAIN);
        let wanted = Wanted {
            height: block.height,
            since: now.instant,
            not_before,
            blocks_switch: false,
            stage: Stage::Missing,
        };
        let is_news = !self.wanted.contains_key(&block.hash);
        self.wanted.entry(block.hash).or_insert(wanted);
        is_news
    }

    /// Whether a block was put in place in the last ten minutes.
    fn is_recent(&self, now: Now, hash: &BlockHash) -> bool {
        self.repaired.get(hash).is_some_and(|at| now.instant < *at + REPAIR_AGAIN)
    }

    /// What is to be asked for now.
    pub fn missing(&self, now: Now) -> Vec<Missing> {
        let due = |wanted: &Wanted| wanted.stage == Stage::Missing && wanted.not_before <= now.instant;
        let missing = self.wanted.iter().filter(|(_, wanted)| due(wanted));
        missing
            .map(|(&hash, wanted)| Missing { height: wanted.height, hash, anywhere: wanted.blocks_switch })
            .collect()
    }

    /// When there is more to ask for although nothing happened.
    pub fn next_due(&self, now: Now) -> Option<Instant> {
        self.wanted.values().map(|wanted| wanted.not_before).filter(|due| *due > now.instant).min()
    }

    /// Who sent a block whose check is under way.
    pub fn checking(&self, hash: &BlockHash) -> Option<PeerId> {
        match self.wanted.get(hash)?.stage {
            Stage::Checking { from } => Some(from),
            Stage::Missing | Stage::Handed => None,
        }
    }

    /// The stage after what happened to a block, if it is still wanted.
    fn moves(&mut self, hash: &BlockHash, from: Stage, to: Stage) -> bool {
        let wanted = self.wanted.get_mut(hash).filter(|wanted| wanted.stage == from);
        wanted.is_some_and(|wanted| {
            wanted.stage = to;
            true
        })
    }
}

impl BlockSync {
    /// A block of the chain, or one that is kept, cannot be read. Returns whether it will be fetched: not if it is
    /// wanted already, or was put in place just now, or if too many are wanted. Then it is to be named again later.
    pub fn handle_damaged(&mut self, now: Now, block: Tip, tree: &HeaderTree) -> bool {
        if self.repairs.wanted.contains_key(&block.hash) || self.repairs.is_recent(now, &block.hash) {
            return false;
        }
        if self.repairs.wanted.len() >= MAX_REPAIRS {
            self.give_way(now);
        }
        let is_news = self.repairs.wanted.len() < MAX_REPAIRS && self.repairs.want(now, block);
        if is_news {
            self.advance(now, tree);
        }
        is_news
    }

    /// Forgets one that nobody could be asked for: pruned peers have some blocks and not others.
    fn give_way(&mut self, now: Now) {
        let idle = self.repairs.wanted.iter().find(|(hash, wanted)| {
            let waits = wanted.stage == Stage::Missing && now.instant >= wanted.since + GIVE_WAY;
            waits && !wanted.blocks_switch && !self.scheduler.is_asked(hash)
        });
        if let Some(hash) = idle.map(|(hash, _)| *hash) {
            self.repairs.wanted.remove(&hash);
        }
    }

    /// Blocks that are damaged on disk and of which no connected peer has a whole one.
    pub fn unrepairable(&self, tree: &HeaderTree) -> Option<Height> {
        let missing = self.repairs.wanted.iter().filter(|(_, wanted)| wanted.stage == Stage::Missing);
        missing
            .map(|(hash, wanted)| (wanted.height, *hash))
            .find(|(height, hash)| !self.scheduler.has_source(*height, *hash, tree))
            .map(|(height, _)| height)
    }

    /// The writer could not go on, as it cannot read a block. It is told to again once the block is there.
    pub(super) fn blocked_by(&mut self, now: Now, block: Tip) {
        self.activation.wait_for(block.hash);
        // The best chain waits for it, so it is taken in whatever else is wanted.
        self.repairs.want(now, block);
        if let Some(wanted) = self.repairs.wanted.get_mut(&block.hash) {
            wanted.blocks_switch = true;
        }
    }

    /// The writer is done with a block that was handed to it.
    pub(super) fn repaired(&mut self, now: Now, hash: BlockHash) {
        if self.repairs.wanted.remove(&hash).is_some() {
            self.repairs.repaired.insert(hash, now.instant);
        }
        self.activation.waited_for(hash);
    }

    /// A block that was asked for to be put in place.
    pub(super) fn take_repair(&mut self, from: PeerId, height: Height, hash: BlockHash, block: WireBlock) {
        // One that comes for the window as well is not there: it is in its place on disk.
        if !self.reorder.contains(&hash)
            && self.repairs.moves(&hash, Stage::Missing, Stage::Checking { from })
        {
            self.outputs.push_back(Output::Check { hash, height, block });
        }
    }

    pub(super) fn repair_checked(
        &mut self,
        now: Now,
        hash: BlockHash,
        from: PeerId,
        result: Result<CheckedBlock, Refusal>,
    ) {
        let checking = Stage::Checking { from };
        match result {
            Ok(block) => {
                self.scheduler.sound(from);
                self.repairs.moves(&hash, checking, Stage::Handed);
                self.outputs.push_back(Output::Repair(block));
            }
            Err(Refusal::Damaged) => {
                self.repairs.moves(&hash, checking, Stage::Missing);
                self.damaged(from, hash);
            }
            Err(Refusal::Refused(error)) if error.verdict() == Verdict::Mutated => {
                self.repairs.moves(&hash, checking, Stage::Missing);
                self.drop_peer(from, Misbehavior::BadBlock(error.to_string()));
            }
            // It was connected once, so the rules have changed: nobody's fault, and every peer would send the same.
            Err(Refusal::Refused(_)) => {
                self.repairs.moves(&hash, checking, Stage::Missing);
                if let Some(wanted) = self.repairs.wanted.get_mut(&hash) {
                    wanted.not_before = now.instant + REPAIR_AGAIN;
                }
            }
        }
    }
}
