//! The flat files, as writer and readers share them, and the counters by which a reader sees that one was cut.
//!
//! The writer counts up before it cuts. A reader compares after it has read: if the count is that of its snapshot,
//! what it read was not touched. Bytes that only grow need no more than that, and no lock.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::array::Array;
use crate::base::BaseMark;
use crate::codec::{DecodeError, Reader};
use crate::disk::{Disk, NamedFile};
use crate::error::Error;
use crate::merkle::MerkleCache;
use crate::mmr;
use crate::segments::{BlockPos, Segments};

/// The arrays by name. What each holds is drawn in `docs/format.md`.
const NAMES: [&str; 5] = ["headers", "hashes", "txids", "txpos", "blockpos"];

/// Arrays and block files.
#[derive(Debug)]
pub(crate) struct Files {
    pub(crate) blocks: Segments,
    /// Of merkle trees that were asked for.
    pub(crate) merkle: MerkleCache,
    /// Headers by height: the connected chain, then the best headers above it.
    pub(crate) headers: Array<80>,
    /// Merkle nodes over the header hashes.
    pub(crate) hashes: Array<32>,
    /// Txids by number, of the base's blocks.
    pub(crate) txids: Array<32>,
    /// Start of each transaction within its block, by number.
    pub(crate) txpos: Array<4>,
    /// [`BlockRow`] by height.
    pub(crate) blockpos: Array<16>,
    /// How often headers were cut.
    pub(crate) header_cuts: AtomicU64,
    /// How often anything below the deltas was undone.
    pub(crate) base_cuts: AtomicU64,
    /// The highest base, in blocks, that a snapshot reads.
    base_top: AtomicU32,
}

/// A record of `blockpos`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BlockRow {
    pub(crate) pos: BlockPos,
    /// Number of the next block's coinbase.
    pub(crate) end_tx: u32,
}

impl BlockRow {
    pub(crate) fn encode(&self) -> [u8; 16] {
        let BlockPos { segment, offset, length } = self.pos;
        let mut row = [0; 16];
        row.copy_from_slice([segment, offset, length, self.end_tx].map(u32::to_le_bytes).as_flattened());
        row
    }

    pub(crate) fn decode(row: &[u8; 16]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(row);
        let pos = BlockPos { segment: reader.u32()?, offset: reader.u32()?, length: reader.u32()? };
        Ok(Self { pos, end_tx: reader.u32()? })
    }
}

impl Files {
    /// Makes the empty arrays of a new folder.
    pub(crate) fn create(disk: &dyn Disk) -> Result<(), Error> {
        for name in NAMES {
            NamedFile::create(disk, name)?;
        }
        Ok(())
    }

    /// Opens the arrays and cuts them: the headers to `header_count`, the others to what `base` names.
    pub(crate) fn open(
        disk: &Arc<dyn Disk>,
        magic: [u8; 4],
        header_count: u32,
        base: &BaseMark,
    ) -> Result<Self, Error> {
        let [headers, hashes, txids, txpos, blockpos] = NAMES;
        let files = Self {
            blocks: Segments::new(disk.clone(), magic),
            merkle: MerkleCache::default(),
            headers: Array::open(&**disk, headers)?,
            hashes: Array::open(&**disk, hashes)?,
            txids: Array::open(&**disk, txids)?,
            txpos: Array::open(&**disk, txpos)?,
            blockpos: Array::open(&**disk, blockpos)?,
            header_cuts: AtomicU64::new(0),
            base_cuts: AtomicU64::new(0),
            base_top: AtomicU32::new(0),
        };
        files.cut_headers(header_count)?;
        files.cut_base(base)?;
        Ok(files)
    }

    /// A snapshot over a base of `blocks` blocks begins.
    pub(crate) fn note_base(&self, blocks: u32) {
        self.base_top.fetch_max(blocks, Ordering::SeqCst);
    }

    /// Cuts the headers to `count`, which the state row names already.
    ///
    /// A snapshot takes the headers above its base from the deltas, those below from the array: a cut below its
    /// base ends it like an undoing of the base.
    pub(crate) fn cut_headers(&self, count: u32) -> Result<(), Error> {
        self.header_cuts.fetch_add(1, Ordering::SeqCst);
        if count < self.base_top.load(Ordering::SeqCst) {
            self.base_cuts.fetch_add(1, Ordering::SeqCst);
            self.base_top.store(count, Ordering::SeqCst);
        }
        self.headers.cut_to(count)?;
        self.hashes.cut_to(mmr::node_count(count))
    }

    /// Cuts the base's arrays to what `base` names.
    pub(crate) fn cut_base(&self, base: &BaseMark) -> Result<(), Error> {
        self.base_cuts.fetch_add(1, Ordering::SeqCst);
        self.blockpos.cut_to(base.blocks)?;
        self.txids.cut_to(base.txs)?;
        self.txpos.cut_to(base.txs)
    }

    /// Cuts what a store left that stopped between an append and its commit, as [`Files::open`] does, but under the
    /// snapshots of it that are still read.
    pub(crate) fn reopen(&self, header_count: u32, base: &BaseMark) -> Result<(), Error> {
        self.cut_headers(header_count)?;
        if base.blocks < self.base_top.load(Ordering::SeqCst) {
            return self.cut_base(base);
        }
        self.blockpos.cut_to(base.blocks)?;
        self.txids.cut_to(base.txs)?;
        self.txpos.cut_to(base.txs)
    }

    /// Appends headers behind the first `count`, and makes them durable.
    pub(crate) fn append_headers(&self, count: u32, headers: &[bitcoin::block::Header]) -> Result<(), Error> {
        use bitcoin::hashes::Hash;
        if headers.is_empty() {
            return Ok(());
        }
        let mut rows = Vec::with_capacity(headers.len());
        for header in headers {
            let mut row = [0; 80];
            row.copy_from_slice(&bitcoin::consensus::serialize(header));
            rows.push(row);
        }
        let hashes = headers.iter().map(|header| header.block_hash().to_byte_array());
        let nodes = mmr::append(count, hashes, |at| self.hashes.read(at))?;
        self.headers.append(count, &rows)?;
        self.hashes.append(mmr::node_count(count), &nodes)?;
        self.headers.sync()?;
        self.hashes.sync()
    }

    /// Cumulative transaction counts of the first `blocks` blocks.
    pub(crate) fn tx_ends(&self, blocks: u32) -> Result<Vec<u32>, Error> {
        let mut ends = Vec::with_capacity(blocks as usize);
        // A bounded number of records at a time.
        for from in (0..blocks).step_by(4096) {
            for row in self.blockpos.read_many(from, (blocks - from).min(4096))? {
                let row =
                    BlockRow::decode(&row).map_err(|fault| Error::corrupt("blockpos", fault.to_string()))?;
                if ends.last().is_some_and(|before| *before >= row.end_tx) {
                    let what = format!("transaction count does not grow at height {}", ends.len());
                    return Err(Error::corrupt("blockpos", what));
                }
                ends.push(row.end_tx);
            }
        }
        Ok(ends)
    }
}
