//! Compact blocks: a new block at the tip is asked for without the transactions that are here already (BIP152,
//! version 2, low bandwidth).
//!
//! It is worth it where one block follows the tip, nothing else is on its way, and the mempool has most of what is
//! mined. The peer owes the block from the question on until it is whole, so whoever takes too long is hedged and
//! timed out as ever (`scheduler`); others are asked for the whole block. One is fetched so at a time, and each block
//! once: whatever goes wrong, the next question is for all of it.
//!
//! ```text
//! getdata -> cmpctblock -> filled from the pool, outside -> (getblocktxn -> blocktxn ->) check, as of any block
//! ```
//! What nobody asked for is passed over. Where the parts do not make up the block, short ids may have been equal:
//! the whole block is asked for, and nobody is to blame. Nor is anybody for what turns out invalid: a peer may pass a
//! compact block on before it has looked at all of it. `rebuild` puts the parts together.
//! Source: Bitcoin Core `net_processing.cpp` (`HeadersDirectFetchBlocks`, `CMPCTBLOCK`, `ProcessCompactBlockTxns`).

use bitcoin::BlockHash;
use bytes::Bytes;

use super::rebuild::{Partial, Rebuilt, Unfit};
use super::scheduler::{Delivery, Purpose};
use super::sync::BlockSync;
use super::types::Output;
use crate::headers::HeaderTree;
use crate::peer::{CompactBlock, Misbehavior, PeerId};
use crate::time::Now;

/// A tip that is older, in seconds, is far from the network's (Core: `CanDirectFetch`).
const RECENT: u64 = 20 * 10 * 60;

/// What came of compact blocks since the start, for the operator.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CompactFigures {
    /// Blocks that were asked for so.
    pub asked: u64,
    /// Blocks that were put together and good.
    pub rebuilt: u64,
    /// Blocks whose parts did not fit, and that were asked for whole.
    pub unfit: u64,
    /// Bytes that came for those that were rebuilt.
    pub received_bytes: u64,
    /// Bytes that they have beyond these.
    pub saved_bytes: u64,
    /// The newest of them.
    pub last: Option<Rebuilt>,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Compact {
    /// Whether new blocks are to be asked for so.
    wanted: bool,
    fetch: Option<Fetch>,
    /// The block that was last asked for so.
    tried: Option<BlockHash>,
    /// The block that was put together and is being checked.
    checking: Option<Rebuilt>,
    figures: CompactFigures,
}

/// The block that is on its way.
#[derive(Debug)]
struct Fetch {
    peer: PeerId,
    hash: BlockHash,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// The peer owes the compact block.
    Asked,
    /// It is being filled from the pool.
    Filling,
    /// The peer owes the transactions that are not here.
    Missing(Partial),
}

impl Compact {
    /// The peer is gone.
    pub fn forget_peer(&mut self, peer: PeerId) {
        self.fetch.take_if(|fetch| fetch.peer == peer);
    }

    /// The peer has not got the block.
    pub fn refused(&mut self, peer: PeerId, hash: &BlockHash) {
        self.fetch.take_if(|fetch| fetch.peer == peer && fetch.hash == *hash);
    }

    /// The block was delivered. Gives back who was asked for it so.
    pub fn delivered(&mut self, hash: &BlockHash) -> Option<PeerId> {
        self.fetch.take_if(|fetch| fetch.hash == *hash).map(|fetch| fetch.peer)
    }

    /// A block's check is done. Gives back what it was made of, if it was put together here.
    pub fn checked(&mut self, hash: &BlockHash) -> Option<Rebuilt> {
        self.checking.take_if(|rebuilt| rebuilt.hash == *hash)
    }

    /// The parts of a block were not its own.
    pub fn was_unfit(&mut self) {
        self.figures.unfit += 1;
    }

    fn ask(&mut self, peer: PeerId, hash: BlockHash) {
        self.fetch = Some(Fetch { peer, hash, stage: Stage::Asked });
        self.tried = Some(hash);
        self.figures.asked += 1;
    }

    /// What `peer` owes of the block, where that is so.
    fn stage_of(&mut self, peer: PeerId, hash: BlockHash) -> Option<&mut Stage> {
        self.fetch
            .as_mut()
            .filter(|fetch| (fetch.peer, fetch.hash) == (peer, hash))
            .map(|fetch| &mut fetch.stage)
    }
}

impl BlockSync {
    /// Whether new blocks are worth asking for as compact ones: whether the chain is in step with the peers, and the
    /// mempool has much of what is mined. They are not unless this was said.
    pub fn want_compact(&mut self, wanted: bool) {
        self.compact.wanted = wanted;
    }

    /// A peer says that it gives compact blocks (`sendcmpct`, version 2).
    pub fn handle_send_compact(&mut self, peer: PeerId) {
        self.scheduler.set_gives_compact(peer);
    }

    /// A peer sent a compact block. Returns whether it was asked for it; if not, it is no more than an announcement.
    pub fn handle_compact_block(&mut self, from: PeerId, block: CompactBlock) -> bool {
        let hash = block.header.block_hash();
        match self.compact.stage_of(from, hash) {
            Some(stage @ Stage::Asked) => {
                *stage = Stage::Filling;
                self.outputs.push_back(Output::Fill { peer: from, block });
                true
            }
            Some(Stage::Filling | Stage::Missing(_)) | None => false,
        }
    }

    /// The answer to [`Output::Fill`].
    pub fn handle_filled(
        &mut self,
        now: Now,
        from: PeerId,
        hash: BlockHash,
        result: Result<Partial, Unfit>,
        tree: &HeaderTree,
    ) {
        let Some(stage @ Stage::Filling) = self.compact.stage_of(from, hash) else { return };
        match result {
            Ok(partial) if partial.missing().is_empty() => self.rebuild(now, from, partial, &[]),
            Ok(partial) => {
                let positions = partial.missing();
                *stage = Stage::Missing(partial);
                self.outputs.push_back(Output::GetTransactions { peer: from, block: hash, positions });
            }
            Err(unfit) => self.unfit(from, hash, unfit),
        }
        self.advance(now, tree);
    }

    /// A peer sent transactions of a block. Only the first answer to a question counts.
    pub fn handle_block_transactions(
        &mut self,
        now: Now,
        from: PeerId,
        hash: BlockHash,
        transactions: &[Bytes],
        tree: &HeaderTree,
    ) {
        let Some(Stage::Missing(_)) = self.compact.stage_of(from, hash) else { return };
        if let Some(Fetch { stage: Stage::Missing(partial), .. }) = self.compact.fetch.take() {
            self.rebuild(now, from, partial, transactions);
        }
        self.advance(now, tree);
    }

    /// What came of compact blocks so far.
    pub fn compact_figures(&self) -> CompactFigures {
        self.compact.figures
    }

    /// How a block is to be asked for that is all that `peer` is asked for now.
    pub(super) fn get_block(
        &mut self,
        now: Now,
        peer: PeerId,
        block: BlockHash,
        tree: &HeaderTree,
    ) -> Output {
        if self.is_worth_it(now, peer, block, tree) {
            self.compact.ask(peer, block);
            Output::GetCompact { peer, block }
        } else {
            Output::GetData { peer, blocks: vec![block] }
        }
    }

    /// A block that was put together passed its check.
    pub(super) fn count_rebuilt(&mut self, rebuilt: Rebuilt) {
        let figures = &mut self.compact.figures;
        figures.rebuilt += 1;
        figures.received_bytes += rebuilt.received_bytes as u64;
        figures.saved_bytes += rebuilt.bytes.saturating_sub(rebuilt.received_bytes) as u64;
        figures.last = Some(rebuilt);
        self.outputs.push_back(Output::Rebuilt(rebuilt));
    }

    fn is_worth_it(&self, now: Now, peer: PeerId, block: BlockHash, tree: &HeaderTree) -> bool {
        // Where nothing else is on its way, an earlier one is not waited for any more.
        let Compact { wanted, tried, checking, .. } = &self.compact;
        let tip = self.activation.connected().hash;
        *wanted
            && checking.is_none()
            && *tried != Some(block)
            && self.scheduler.gives_compact(peer)
            && self.scheduler.is_all_in_flight(&block)
            && tree.info(block).is_some_and(|info| info.prev == tip)
            && tree.info(tip).is_some_and(|info| u64::from(info.time) + RECENT > now.unix)
    }

    fn rebuild(&mut self, now: Now, from: PeerId, partial: Partial, missing: &[Bytes]) {
        let hash = partial.hash();
        let (block, rebuilt) = match partial.fill(missing) {
            Ok(whole) => whole,
            Err(unfit) => return self.unfit(from, hash, unfit),
        };
        self.compact.delivered(&hash);
        let Delivery::Asked { height, purpose } = self.scheduler.delivered(now, from, hash) else { return };
        if self.take(from, height, hash, purpose == Purpose::Side, block) {
            self.compact.checking = Some(rebuilt);
        }
    }

    /// The peer still owes the block, and has the time that is left.
    fn unfit(&mut self, from: PeerId, hash: BlockHash, why: Unfit) {
        self.compact.delivered(&hash);
        match why {
            Unfit::Forbidden(what) => self.drop_peer(from, Misbehavior::BadMessage(what.to_owned())),
            Unfit::Unlucky => {
                self.compact.was_unfit();
                self.outputs.push_back(Output::GetData { peer: from, blocks: vec![hash] });
            }
        }
    }
}

#[cfg(test)]
#[path = "compact_tests.rs"]
mod tests;
