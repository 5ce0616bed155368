//! From one tip of the chain to another: the blocks that were left, and those that were connected.

use std::sync::Arc;

use bitcoin::{Block, Txid, Wtxid};
use chainstore::{Error, Height, Snapshot, Tip};

/// A block of the chain with the ids of its transactions.
#[derive(Debug)]
pub struct KnownBlock {
    pub at: Tip,
    pub block: Block,
    pub txids: Vec<Txid>,
    pub wtxids: Vec<Wtxid>,
}

/// The way from one tip to another.
#[derive(Debug, Default)]
pub(super) struct Way {
    /// Newest first.
    pub(super) left: Vec<Arc<KnownBlock>>,
    /// Oldest first.
    pub(super) connected: Vec<Arc<KnownBlock>>,
}

impl KnownBlock {
    /// Decodes one. Witnesses are hashed here.
    pub fn of(at: Tip, raw: &[u8], txids: Vec<Txid>) -> Result<Self, Error> {
        let block: Block = bitcoin::consensus::deserialize(raw)
            .map_err(|error| corrupt(at.height, &format!("{error}: {} bytes", raw.len())))?;
        // Hashed only where they differ.
        let wtxid = |(tx, txid): (&bitcoin::Transaction, &Txid)| {
            let is_plain = tx.input.iter().all(|input| input.witness.is_empty());
            if is_plain { Wtxid::from(txid.to_raw_hash()) } else { tx.compute_wtxid() }
        };
        let wtxids = block.txdata.iter().zip(&txids).map(wtxid).collect();
        Ok(Self { at, block, txids, wtxids })
    }
}

impl Way {
    /// Reads the blocks between two tips, but for one that is known; `None` where there are more than `limit`.
    pub(super) fn between(
        from: &Snapshot,
        to: &Snapshot,
        limit: u32,
        known: Option<&Arc<KnownBlock>>,
    ) -> Result<Option<Self>, Error> {
        let (Some(old), Some(new)) = (from.tip(), to.tip()) else { return Ok(None) };
        let mut fork = old.height.min(new.height);
        let is_common = |height| Ok::<_, Error>(from.header(height)? == to.header(height)?);
        while fork > Height::GENESIS && !is_common(fork)? {
            if old.height.0 - fork.0 >= limit {
                return Ok(None);
            }
            fork = fork.prev().unwrap_or(Height::GENESIS);
        }
        if (old.height.0 - fork.0) + (new.height.0 - fork.0) > limit {
            return Ok(None);
        }
        let above =
            |snapshot, tip: Tip| (fork.0 + 1..=tip.height.0).map(move |at| read(snapshot, Height(at), known));
        let mut left = above(from, old).collect::<Result<Vec<_>, _>>()?;
        left.reverse();
        let connected = above(to, new).collect::<Result<_, _>>()?;
        Ok(Some(Self { left, connected }))
    }
}

fn read(
    snapshot: &Snapshot,
    height: Height,
    known: Option<&Arc<KnownBlock>>,
) -> Result<Arc<KnownBlock>, Error> {
    let header = snapshot.header(height)?.ok_or_else(|| corrupt(height, "no header"))?;
    let at = Tip { height, hash: header.block_hash() };
    if let Some(known) = known.filter(|known| known.at == at) {
        return Ok(known.clone());
    }
    let raw = snapshot.raw_block(height)?.ok_or_else(|| corrupt(height, "no block"))?;
    let txids = snapshot.block_txids(height)?.ok_or_else(|| corrupt(height, "no txids"))?;
    KnownBlock::of(at, &raw, txids).map(Arc::new)
}

fn corrupt(height: Height, what: &str) -> Error {
    Error::Corrupt { file: "blocks".into(), what: format!("height {height}: {what}") }
}
