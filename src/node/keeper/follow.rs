//! The chain moves, and the mempool with it.

use std::sync::Arc;

use bitcoin::Txid;
use chainstore::{Snapshot, Tip};

use super::judge::{Restored, Task};
use super::reader::Reader;
use super::way::{KnownBlock, Way};
use super::{Event, Keeper};
use crate::mempool::{BlockFees, Covered, Entry, Unconfirmed};
use crate::node::tip_of;
use crate::time::Now;

/// A block that views are without, and the pool's books not yet.
#[derive(Debug)]
pub(super) struct OpenBlock {
    block: Arc<KnownBlock>,
    fees: Option<BlockFees>,
}

/// A way of more blocks is not followed block by block: what waits is judged anew on the new tip.
const MAX_WAY: u32 = 30;

impl Keeper {
    /// A block is on its way into the chain: it is read and hashed while others write it. That it cannot be read is said
    /// when it is there.
    pub(super) fn prepare(&mut self, at: Tip, raw: &[u8], txids: Vec<Txid>) {
        if self.started {
            self.coming = KnownBlock::of(at, raw, txids).ok().map(Arc::new);
        }
    }

    /// The chain moved.
    pub(super) fn follow(&mut self, now: Now, snapshot: Arc<Snapshot>, fees: Vec<BlockFees>) {
        let before = std::mem::replace(&mut self.snapshot, snapshot.clone());
        self.reader = Reader::new(snapshot.clone());
        self.is_urgent = true;
        if tip_of(&before) == tip_of(&snapshot) || !self.started {
            for fees in fees {
                self.learn(now, fees, Covered::default());
            }
            return;
        }
        let coming = self.coming.take();
        match Way::between(&before, &snapshot, MAX_WAY, coming.as_ref()) {
            Ok(Some(way)) => self.follow_blocks(now, way, &fees),
            Ok(None) => self.judge_anew(now),
            Err(error) => {
                self.events.push_back(Event::Failed(error));
                self.judge_anew(now);
            }
        }
    }

    fn follow_blocks(&mut self, now: Now, way: Way, fees: &[BlockFees]) {
        let is_usual = way.left.is_empty() && way.connected.len() == 1;
        for block in &way.left {
            let raw = block.block.txdata.iter().map(bitcoin::consensus::serialize);
            let transactions = raw.filter_map(|raw| Unconfirmed::parse(&raw).ok()).map(Arc::new);
            self.mempool.disconnect_block(transactions.collect());
            self.estimator.block_disconnected(&block.at.hash);
        }
        for block in &way.connected {
            // Coverage is counted before they leave the pool's books.
            self.mempool.begin_block(now, block.txids.iter().copied().zip(&block.block.txdata));
            let fees = fees.iter().find(|fees| fees.hash == block.at.hash).cloned();
            self.open_block = Some(OpenBlock { block: block.clone(), fees });
            if !is_usual {
                self.finish_block(now);
            }
        }
        if !is_usual {
            self.mempool.tip_changed(&self.reader, now);
        }
        self.events.push_back(Event::Followed { left: way.left, connected: way.connected });
    }

    /// Does what a block costs the mempool and the estimator, if that was put off for wallets to hear of the tip first.
    pub(super) fn finish_block(&mut self, now: Now) {
        let Some(OpenBlock { block, fees }) = self.open_block.take() else { return };
        let transactions = block.block.txdata.iter().zip(&block.txids);
        let covered = Covered::of(transactions, |txid| self.mempool.get(txid).is_some());
        self.mempool.finish_block();
        if let Some(fees) = fees {
            self.learn(now, fees, covered);
            self.is_news = true;
        }
    }

    /// Tells the estimator of a block, and what the pool had of it.
    fn learn(&mut self, now: Now, fees: BlockFees, covered: Covered) {
        let chunks = self.mempool.pool().chunk_fees();
        self.estimator.block_connected(now.instant, fees, covered, chunks);
    }

    /// All transactions are judged again on the new tip: too many blocks lie between, or they cannot be read. Scripts are
    /// not run again.
    fn judge_anew(&mut self, now: Now) {
        let (view, _) = self.view(now);
        self.mempool.clear();
        let mut left: Vec<Arc<Entry>> = view.entries().cloned().collect();
        left.sort_by_key(|entry| entry.at);
        let anew = left.iter().map(|entry| Task::Restored(Restored::new(entry.raw.clone(), entry.unix)));
        let before = std::mem::take(&mut self.restored);
        self.restored = anew.chain(before).collect();
        // Whose parents were gone on the old tip may have them on this one.
        self.some_came = true;
    }
}
