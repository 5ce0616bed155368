//! A writer that keeps its chain in a list, and holds what it is told to what must always be true.

use std::collections::{BTreeSet, VecDeque};

use bitcoin::BlockHash;
use chainstore::Tip;

use super::super::testing_forge::Fault;
use super::super::types::ChainEvent;
use super::Harness;
use crate::validate::CheckedBlock;

/// The chain's writer: what is connected, and what is on disk.
#[derive(Debug)]
pub(in crate::blocks) struct Writer {
    /// From genesis on.
    pub chain: Vec<BlockHash>,
    pub disk: BTreeSet<BlockHash>,
    pub(super) queue: VecDeque<Command>,
    /// Blocks that cannot be read: no switch that needs one is made.
    pub damaged: BTreeSet<BlockHash>,
    /// Blocks put in the place of damaged ones.
    pub repaired: Vec<BlockHash>,
    /// Answers only when told to.
    pub paused: bool,
    /// Switches done.
    pub switches: usize,
}

#[derive(Debug)]
pub(super) enum Command {
    Connect(CheckedBlock),
    Store(BlockHash),
    Repair(BlockHash),
    Switch { fork: Tip, connect: Vec<BlockHash> },
}

impl Harness {
    /// The paused writer does and answers its next command; `false` when there is none.
    pub fn write_one(&mut self) -> bool {
        let Some(event) = self.execute() else { return false };
        if let Some(event) = event {
            self.sync.handle_chain_event(self.now, event, &self.tree);
        }
        self.perform();
        true
    }

    pub(super) fn write_quietly(&mut self) -> bool {
        let Some(event) = self.execute() else { return false };
        if let Some(event) = event {
            self.sync.handle_chain_event(self.now, event, &self.tree);
        }
        true
    }

    /// Does the writer's next command. The event is `None` for a `Connect` that is void.
    fn execute(&mut self) -> Option<Option<ChainEvent>> {
        let command = self.writer.queue.pop_front()?;
        let tip = self.forge.tip(self.connected());
        Some(match command {
            Command::Connect(block) if block.header().prev_blockhash != tip.hash => {
                assert!(!self.condemned.is_empty(), "a block was not connected in chain order");
                None
            }
            Command::Connect(block) if !self.connects(block.hash()) => Some(failed(block.hash(), tip)),
            Command::Connect(block) => {
                self.writer.chain.push(block.hash());
                Some(ChainEvent::Connected(self.forge.tip(block.hash())))
            }
            Command::Store(hash) => {
                assert!(self.writer.disk.insert(hash), "stored twice");
                Some(ChainEvent::Stored(hash))
            }
            Command::Repair(hash) => {
                let moved = self.writer.damaged.remove(&hash);
                self.writer.repaired.push(hash);
                Some(ChainEvent::Repaired { block: self.forge.tip(hash), moved })
            }
            Command::Switch { fork, connect } => Some(self.switch(fork, &connect)),
        })
    }

    fn switch(&mut self, fork: Tip, connect: &[BlockHash]) -> ChainEvent {
        let old = self.forge.tip(self.connected());
        assert_eq!(self.writer.chain.get(fork.height.0 as usize), Some(&fork.hash), "no fork point");
        let mut above = fork.hash;
        for hash in connect {
            assert_eq!(self.forge.parent(*hash), above, "the branch has a gap");
            assert!(self.writer.disk.contains(hash), "{hash} is not on disk");
            above = *hash;
        }
        let left = &self.writer.chain[fork.height.0 as usize + 1..];
        if let Some(damaged) = left.iter().chain(connect).find(|hash| self.writer.damaged.contains(*hash)) {
            let damaged = self.forge.tip(*damaged);
            return ChainEvent::Blocked { damaged, what: String::new(), tip: old };
        }
        let work = |hash| self.tree.info(hash).map(|info| info.work);
        assert!(work(above) > work(old.hash) || self.tree.is_invalid(old.hash), "the switch wins nothing");
        if let Some(bad) = connect.iter().find(|hash| !self.connects(**hash)) {
            return failed(*bad, old);
        }
        let left = self.writer.chain.split_off(fork.height.0 as usize + 1);
        self.writer.disk.extend(left);
        self.writer.chain.extend(connect);
        connect.iter().for_each(|hash| assert!(self.writer.disk.remove(hash)));
        self.writer.switches += 1;
        ChainEvent::Switched(self.forge.tip(above))
    }

    pub(super) fn connects(&self, hash: BlockHash) -> bool {
        self.forge.fault(hash) != Fault::Spend
    }
}

fn failed(hash: BlockHash, tip: Tip) -> ChainEvent {
    ChainEvent::Failed { hash, reason: "bad-txns-inputs-missingorspent".to_owned(), tip }
}
