//! The writer: stages blocks and headers, makes them durable in one commit, publishes a snapshot.

use std::path::Path;
use std::sync::Arc;

use bitcoin::block::Header;
use bitcoin::{Block, BlockHash, Network, OutPoint, Txid};

use crate::error::Error;
use crate::snapshot::Snapshot;
use crate::types::{Coin, Height, ScriptKey, Tip};

/// What a store is opened with; `Options::new(network)` has what operators want.
#[derive(Clone, Debug)]
pub struct Options {
    pub network: Network,
    /// Newest blocks kept as deltas: what a reorg can undo without touching the base.
    pub keep_deltas: usize,
    /// Deltas beyond `keep_deltas` at which a merge is due.
    pub merge_batch: usize,
    /// Length of a block file, in bytes, at which the next one is begun.
    pub segment_bytes: u32,
    /// Bytes of redb's cache for the base and for `tip.redb`.
    pub base_cache_bytes: usize,
    pub tip_cache_bytes: usize,
    /// Bytes of a txid in the keys of the index, 1 to 8; tests shorten it to force collisions.
    pub txid_prefix: u8,
}

impl Options {
    /// The options of a server on `network`.
    pub fn new(network: Network) -> Self {
        Self {
            network,
            keep_deltas: 300,
            merge_batch: 100,
            segment_bytes: 128 << 20,
            base_cache_bytes: 192 << 20,
            tip_cache_bytes: 32 << 20,
            txid_prefix: 8,
        }
    }
}

/// A checked block with the coins that it spends.
#[derive(Clone, Copy, Debug)]
pub struct NewBlock<'a> {
    pub raw: &'a [u8],
    pub block: &'a Block,
    pub hash: BlockHash,
    pub txids: &'a [Txid],
    /// One for each input of each transaction after the coinbase, in block order. For outputs made in this
    /// block the entry is there but not looked at.
    pub spent: &'a [Coin],
}

/// What a commit changed.
#[derive(Clone, Debug)]
pub struct Commit {
    pub snapshot: Arc<Snapshot>,
    /// Scripts whose history or coins changed, sorted, each once; also those of disconnected blocks.
    pub touched: Vec<ScriptKey>,
}

/// All headers that the store knows, to rebuild the header tree from.
#[derive(Clone, Debug, Default)]
pub struct LoadedHeaders {
    /// The header chain from genesis on; its start is the connected chain.
    pub chain: Vec<Header>,
    /// Headers off that chain, parents before children.
    pub side: Vec<(Height, Header)>,
    /// Blocks marked invalid.
    pub invalid: Vec<BlockHash>,
}

/// The one writer of a data folder; dropping it frees the folder.
#[derive(Debug)]
pub struct Store {}

impl Store {
    /// Opens or creates the store in `dir`: takes the lock, checks `MANIFEST`, recovers from a crash.
    ///
    /// A fresh store has connected nothing; genesis is connected by the caller like any block.
    pub fn open(_dir: &Path, _options: Options) -> Result<Self, Error> {
        unimplemented!()
    }

    /// The staged tip.
    pub fn tip(&self) -> Option<Tip> {
        unimplemented!()
    }

    /// The chain as last committed.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        unimplemented!()
    }

    /// The unspent coins at `outpoints` as of the staged tip, in their order.
    pub fn coins(&self, _outpoints: &[OutPoint]) -> Result<Vec<Option<Coin>>, Error> {
        unimplemented!()
    }

    /// Whether a transaction of that id has an unspent output at the staged tip (BIP30).
    pub fn has_unspent(&self, _txid: &Txid) -> Result<bool, Error> {
        unimplemented!()
    }

    /// Median time past of the block at a height of the staged chain (BIP113); an error above its tip.
    pub fn median_time_past(&self, _height: Height) -> Result<u32, Error> {
        unimplemented!()
    }

    /// Stages a block on top of the staged tip.
    pub fn connect(&mut self, _block: &NewBlock<'_>) -> Result<(), Error> {
        unimplemented!()
    }

    /// Stages the undoing of the tip's block, which stays findable by hash; returns the block undone.
    pub fn disconnect(&mut self) -> Result<Tip, Error> {
        unimplemented!()
    }

    /// Stages the keeping of a block off the connected chain. Storing it twice is one storing.
    pub fn store_block(&mut self, _height: Height, _hash: BlockHash, _raw: &[u8]) -> Result<(), Error> {
        unimplemented!()
    }

    /// A block that is kept and not connected, staged ones included.
    pub fn stored_block(&self, _hash: &BlockHash) -> Result<Option<Vec<u8>>, Error> {
        unimplemented!()
    }

    /// Heights and hashes of the blocks that are kept and not connected, by height.
    pub fn stored_blocks(&self) -> Vec<Tip> {
        unimplemented!()
    }

    /// Stages accepted headers, parents first: what continues the header chain is appended to it, anything
    /// else is kept as a side header.
    pub fn put_headers(&mut self, _headers: &[(Height, Header)]) -> Result<(), Error> {
        unimplemented!()
    }

    /// Stages a switch of the header chain above the tip: from `from` on it is `headers`; those displaced
    /// become side headers.
    pub fn follow_headers(&mut self, _from: Height, _headers: &[Header]) -> Result<(), Error> {
        unimplemented!()
    }

    /// Stages a mark that a block breaks the rules.
    pub fn mark_invalid(&mut self, _hash: BlockHash) -> Result<(), Error> {
        unimplemented!()
    }

    /// All headers as staged.
    pub fn headers(&self) -> Result<LoadedHeaders, Error> {
        unimplemented!()
    }

    /// Makes all that is staged durable at once, then visible.
    pub fn commit(&mut self) -> Result<Commit, Error> {
        unimplemented!()
    }

    /// Forgets all that is staged.
    pub fn rollback(&mut self) -> Result<(), Error> {
        unimplemented!()
    }

    /// Whether enough deltas lie deeper than `keep_deltas` to move them into the base.
    pub fn merge_due(&self) -> bool {
        unimplemented!()
    }

    /// Moves the deltas deeper than `keep_deltas` into the base; the tip stays.
    pub fn merge(&mut self) -> Result<Arc<Snapshot>, Error> {
        unimplemented!()
    }
}
