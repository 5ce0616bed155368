//! The import as one machine: blocks of the files, in the order of the best chain, to the chain's writer.
//!
//! In: the chain as it stands, the header tree, where the blocks lie; blocks as they are read, what checking and
//! connecting said of them. Out: blocks to read, to check, commands for the writer. The files play the part of a peer
//! for `blocks::BlockSync`, which bounds memory, puts blocks in order and changes branches as it does for real ones.
//! A block whose bytes are not what its header was made for is the file's fault: its next copy is read, and where there
//! is none the import ends below it, and peers are asked later. A block that breaks a rule is marked invalid.
//! This peer is never late, so the clock stands still here.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bitcoin::BlockHash;
use bitcoin::block::Header;
use bitcoin::consensus::deserialize;
use bitcoin::p2p::ServiceFlags;
use bytes::Bytes;
use chainstore::{Height, Tip};

use super::catalog::{Catalog, Place};
use crate::blocks::{self, BlockSync, ChainEvent, Refusal};
use crate::headers::HeaderTree;
use crate::node::chain::{Command, Scripts};
use crate::peer::{PeerId, PeerInfo, WireBlock};
use crate::time::Now;
use crate::validate::{BlockContext, CheckedBlock, Verdict};

const HEADER_BYTES: usize = 80;
/// Reports of damaged and invalid blocks that are kept; more are counted.
const MAX_REPORTS: usize = 64;

/// What is to be done.
#[derive(Debug)]
pub enum Output {
    /// Read this block; the answer comes back through [`Session::handle_read`].
    Read { ticket: Ticket, place: Place },
    /// Run `blocks::check_received`; the answer comes back through [`Session::handle_checked`].
    Check { hash: BlockHash, block: WireBlock, context: BlockContext },
    /// For the chain's writer, in this order.
    Chain(Command),
    /// The operator should know.
    Report(Report),
}

/// What to give back with a block that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    peer: PeerId,
    hash: BlockHash,
}

/// A block that was not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    pub hash: BlockHash,
    pub height: Option<Height>,
    pub place: Option<Place>,
    /// Whether the block breaks a rule, and is not only damaged.
    pub invalid: bool,
    pub reason: String,
}

/// See the module.
#[derive(Debug)]
pub struct Session {
    tree: HeaderTree,
    blocks: BlockSync,
    catalog: Catalog,
    /// Blocks that the store keeps without having connected them.
    stored: BTreeSet<BlockHash>,
    /// The files as a peer: a new one each time that what they have turned out to be less.
    peer: PeerId,
    /// The last block of the best chain up to which the files have all.
    reach: Height,
    connected: Tip,
    reads: usize,
    /// Where the blocks came from that are being checked.
    checks: BTreeMap<BlockHash, Option<Place>>,
    /// What the files have must be looked at again.
    rejoin: bool,
    done_bytes: u64,
    total_bytes: u64,
    imported: u64,
    damaged: u64,
    invalid: u64,
    outputs: VecDeque<Output>,
}

impl Session {
    /// `memory_bytes` bounds the blocks in memory, `connected` is the chain's tip, `stored` the blocks that the store
    /// keeps beside it.
    pub fn new(
        tree: HeaderTree,
        catalog: Catalog,
        memory_bytes: usize,
        connected: Tip,
        stored: Vec<Tip>,
    ) -> Self {
        let mut session = Self {
            stored: stored.iter().map(|tip| tip.hash).collect(),
            blocks: BlockSync::new(memory_bytes, connected, stored),
            tree,
            catalog,
            peer: PeerId(0),
            reach: connected.height,
            connected,
            reads: 0,
            checks: BTreeMap::new(),
            rejoin: true,
            done_bytes: 0,
            total_bytes: 0,
            imported: 0,
            damaged: 0,
            invalid: 0,
            outputs: VecDeque::new(),
        };
        session.blocks.handle_best_changed(Now::default(), &session.tree);
        session.route();
        session
    }

    /// What became of a read: the bytes, or why there are none.
    pub fn handle_read(&mut self, ticket: Ticket, place: Place, result: Result<Bytes, String>) {
        self.reads = self.reads.saturating_sub(1);
        let Ticket { peer, hash } = ticket;
        let result = result.and_then(|raw| match hash_of(&raw) {
            Some(found) if found == hash => Ok(raw),
            Some(_) | None => Err("another block is there now".into()),
        });
        match result {
            Ok(raw) if peer == self.peer => {
                self.blocks.handle_block(Now::default(), peer, WireBlock::unsummed(raw), &self.tree);
            }
            // It was asked again since.
            Ok(_) => {}
            Err(reason) => {
                self.strike_out(hash, place, reason);
                self.rejoin = true;
            }
        }
        self.route();
    }

    /// What `validate::check_block` said.
    pub fn handle_checked(&mut self, hash: BlockHash, result: Result<CheckedBlock, Refusal>) {
        let place = self.checks.remove(&hash).flatten();
        if let (Err(Refusal::Refused(error)), Some(place)) = (&result, place)
            && error.verdict() != Verdict::Invalid
        {
            self.strike_out(hash, place, error.to_string());
        }
        self.blocks.handle_checked(Now::default(), hash, result, &self.tree);
        self.route();
    }

    /// What became of a command to the chain's writer.
    pub fn handle_chain_event(&mut self, event: ChainEvent) {
        match &event {
            ChainEvent::Connected(tip) => {
                self.connected = *tip;
                self.imported += 1;
                self.done_bytes += self.length(&tip.hash);
            }
            ChainEvent::Switched(tip) | ChainEvent::Failed { tip, .. } | ChainEvent::Blocked { tip, .. } => {
                self.connected = *tip;
            }
            ChainEvent::Stored(_) | ChainEvent::Repaired { .. } => {}
        }
        self.blocks.handle_chain_event(Now::default(), event, &self.tree);
        self.route();
    }

    /// What is to be done; call until `None` after each of the above.
    pub fn poll(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Whether all is done that can be: nothing more will happen.
    pub fn is_done(&self) -> bool {
        self.reads == 0 && self.checks.is_empty() && self.blocks.is_drained() && self.outputs.is_empty()
    }

    /// Where the chain stands.
    pub fn connected(&self) -> Tip {
        self.connected
    }

    /// The end of the best chain of headers.
    pub fn target(&self) -> Height {
        self.tree.best().height
    }

    /// Up to where the files have all of that chain.
    pub fn reach(&self) -> Height {
        self.reach
    }

    /// Bytes of the blocks that were connected, and of all that shall be.
    pub fn bytes(&self) -> (u64, u64) {
        (self.done_bytes, self.total_bytes.max(self.done_bytes))
    }

    /// Blocks that were connected in the order in which they came.
    pub fn imported(&self) -> u64 {
        self.imported
    }

    /// Copies of blocks that are not there or not as they should be.
    pub fn damaged(&self) -> u64 {
        self.damaged
    }

    /// Blocks that broke a rule.
    pub fn invalid(&self) -> u64 {
        self.invalid
    }

    /// What the machine puts out, translated, until it is quiet.
    fn route(&mut self) {
        loop {
            while let Some(output) = self.blocks.poll() {
                self.take(output);
            }
            if !std::mem::take(&mut self.rejoin) {
                return;
            }
            self.join();
        }
    }

    fn take(&mut self, output: blocks::Output) {
        match output {
            blocks::Output::GetData { peer, blocks } => {
                blocks.into_iter().for_each(|hash| self.read(peer, hash));
            }
            blocks::Output::Check { hash, height, block } => {
                let parent = self.tree.info(hash).map(|info| info.prev);
                let parent_mtp = parent.and_then(|parent| self.tree.median_time_past(parent)).unwrap_or(0);
                let context = BlockContext { height, parent_mtp };
                self.checks.insert(hash, self.catalog.place(&hash));
                self.outputs.push_back(Output::Check { hash, block, context });
            }
            blocks::Output::Connect(block) => {
                let scripts = Scripts::of(&self.tree, block.hash());
                self.command(Command::Connect(block, scripts));
            }
            blocks::Output::Store(block) => self.command(Command::Store(block)),
            blocks::Output::Switch { fork, connect } => {
                let tree = &self.tree;
                let connect = connect.into_iter().map(|hash| (hash, Scripts::of(tree, hash))).collect();
                self.command(Command::Switch { fork, connect });
            }
            blocks::Output::MarkInvalid { hash, reason } => self.mark_invalid(hash, reason),
            blocks::Output::Repair(block) => self.command(Command::Repair(block)),
            // A check failed, and said why.
            // No block of a file is a new one.
            blocks::Output::GetCompact { .. }
            | blocks::Output::Fill { .. }
            | blocks::Output::GetTransactions { .. }
            | blocks::Output::Rebuilt(_) => {}
            blocks::Output::Drop { .. } | blocks::Output::Damaged { .. } => self.rejoin = true,
        }
    }

    fn command(&mut self, command: Command) {
        self.outputs.push_back(Output::Chain(command));
    }

    fn read(&mut self, peer: PeerId, hash: BlockHash) {
        match self.catalog.place(&hash) {
            Some(place) if peer == self.peer => {
                self.reads += 1;
                self.outputs.push_back(Output::Read { ticket: Ticket { peer, hash }, place });
            }
            Some(_) | None => {
                // What the store keeps is never asked for, and what is not there is beyond our reach.
                self.blocks.handle_not_found(Now::default(), peer, hash, &self.tree);
            }
        }
    }

    fn mark_invalid(&mut self, hash: BlockHash, reason: String) {
        self.invalid += 1;
        self.report(hash, self.catalog.place(&hash), true, reason);
        self.tree.mark_invalid(hash);
        self.command(Command::MarkInvalid(hash));
        self.blocks.handle_best_changed(Now::default(), &self.tree);
        self.rejoin = true;
    }

    fn strike_out(&mut self, hash: BlockHash, place: Place, reason: String) {
        self.catalog.strike_out(&hash, place);
        self.damaged += 1;
        self.report(hash, Some(place), false, reason);
    }

    fn report(&mut self, hash: BlockHash, place: Option<Place>, invalid: bool, reason: String) {
        if self.damaged + self.invalid <= MAX_REPORTS as u64 {
            let height = self.tree.height(hash);
            self.outputs.push_back(Output::Report(Report { hash, height, place, invalid, reason }));
        }
    }

    /// The files come as a new peer, with what they have now.
    fn join(&mut self) {
        self.blocks.handle_peer_gone(Now::default(), self.peer, &self.tree);
        self.peer = PeerId(self.peer.0 + 1);
        self.measure();
        let info = PeerInfo {
            version: 70_016,
            services: ServiceFlags::NETWORK | ServiceFlags::WITNESS,
            user_agent: String::new(),
            start_height: 0,
            relay: false,
            wtxid_relay: false,
        };
        self.blocks.handle_peer_ready(self.peer, &info);
        let tip = self.tree.hash_at(self.reach).and_then(|hash| Some((hash, self.tree.info(hash)?)));
        if let Some((hash, info)) = tip {
            let tip = crate::headers::HeaderTip { height: info.height, hash, work: info.work };
            self.blocks.handle_peer_tip(Now::default(), self.peer, tip, &self.tree);
        }
    }

    /// How far the files reach above the connected chain without a gap, and how many bytes that is.
    fn measure(&mut self) {
        let best = self.tree.best();
        let fork = self.tree.fork_point(self.connected.hash, best.hash);
        let mut reach = fork.map_or(Height::GENESIS, |fork| fork.height);
        let mut left_bytes = 0;
        while let Some(hash) = self.tree.hash_at(reach.next())
            && (self.stored.contains(&hash) || self.catalog.place(&hash).is_some())
        {
            left_bytes += self.length(&hash);
            reach = reach.next();
        }
        self.reach = reach;
        self.total_bytes = self.done_bytes + left_bytes;
    }

    fn length(&self, hash: &BlockHash) -> u64 {
        self.catalog.place(hash).map_or(0, |place| u64::from(place.length))
    }
}

fn hash_of(raw: &[u8]) -> Option<BlockHash> {
    let header: Header = deserialize(raw.get(..HEADER_BYTES)?).ok()?;
    Some(header.block_hash())
}

#[cfg(test)]
#[path = "session_tests.rs"]
mod tests;
