//! What readers see: the chain at one tip.
//!
//! A snapshot holds the deltas of its tip, the parts of the base, and the flat files. Deltas and parts do not
//! change; of the files only an undo below the deltas touches what a snapshot reads, and then it answers
//! [`Error::SnapshotGone`].

use std::sync::atomic::Ordering;

use bitcoin::block::Header;
use bitcoin::hashes::{Hash, sha256d};
use bitcoin::{Amount, OutPoint, Txid};

use crate::error::Error;
use crate::group::GroupCoin;
use crate::mmr;
use crate::repair::Damaged;
use crate::types::{Coin, Height, HistoryEntry, ScriptHash, ScriptKey, Tip, TxNum, Unspent};
use crate::view::{View, decode_header};

/// The committed chain at one tip. Reads take no lock and never wait for the writer.
#[derive(Debug)]
pub struct Snapshot {
    view: View,
    /// Headers in the array when this was taken.
    headers: u32,
    header_cuts: u64,
    base_cuts: u64,
}

/// Where a transaction is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TxLocation {
    pub tx_num: TxNum,
    pub height: Height,
    /// Position within its block; the coinbase is 0.
    pub pos: u32,
}

/// A transaction as it stands in its block, witness included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawTx {
    pub bytes: Vec<u8>,
    pub height: Height,
}

/// What was found out about who spends an output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spender {
    /// `None` when it is unspent.
    pub entry: Option<HistoryEntry>,
    /// Transactions that were read for that.
    pub read: usize,
}

/// That a header is one of those up to a checkpoint height: hashes in computing order, deepest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderProof {
    pub branch: Vec<sha256d::Hash>,
    pub root: sha256d::Hash,
}

impl Snapshot {
    pub(crate) fn new(view: View, headers: u32) -> Self {
        view.files.note_base(view.base.blocks);
        let header_cuts = view.files.header_cuts.load(Ordering::SeqCst);
        let base_cuts = view.files.base_cuts.load(Ordering::SeqCst);
        Self { view, headers, header_cuts, base_cuts }
    }

    /// Whether the header array is as it was.
    fn headers_stand(&self) -> bool {
        self.view.files.header_cuts.load(Ordering::SeqCst) == self.header_cuts
    }

    /// An answer, if nothing it may have read was cut meanwhile. An error of a cut file is no corruption.
    fn stands<T>(&self, answer: Result<T, Error>) -> Result<T, Error> {
        if self.view.files.base_cuts.load(Ordering::SeqCst) == self.base_cuts {
            answer
        } else {
            Err(Error::SnapshotGone)
        }
    }

    /// An answer for which blocks are read: those that cannot be are remembered.
    pub(crate) fn read<T>(&self, read: impl FnOnce(&View) -> Result<T, Error>) -> Result<T, Error> {
        let repairs = self.view.files.blocks.repairs();
        let moves = repairs.moves();
        let answer = self.stands(read(&self.view));
        repairs.note(&answer, moves);
        answer
    }

    /// The highest connected block; `None` before genesis is connected.
    pub fn tip(&self) -> Option<Tip> {
        self.view.tip()
    }

    /// Headers in the header chain, which runs on above the tip while blocks are being fetched.
    pub fn header_count(&self) -> u32 {
        self.headers.max(self.view.blocks())
    }

    /// The header at a height: of the connected chain up to the tip, of the header chain above.
    ///
    /// Above the tip it is [`Error::SnapshotGone`] after the header chain has switched.
    pub fn header(&self, height: Height) -> Result<Option<Header>, Error> {
        if height.0 < self.view.blocks() {
            return self.stands(self.view.header(height));
        }
        if height.0 >= self.headers {
            return Ok(None);
        }
        let header = self.view.files.headers.read(height.0).and_then(|bytes| decode_header(&bytes));
        if self.headers_stand() { header.map(Some) } else { Err(Error::SnapshotGone) }
    }

    /// Up to `count` headers of 80 bytes from `from` on, one after another; fewer at the end of the chain.
    pub fn headers(&self, from: Height, count: u32) -> Result<Vec<u8>, Error> {
        let end = from.0.saturating_add(count).min(self.header_count());
        if from.0 >= end {
            return Ok(Vec::new());
        }
        let mut bytes = Vec::with_capacity((end - from.0) as usize * 80);
        // One read for what lies below the deltas, where the chain cannot change under this snapshot.
        let deep = end.min(self.view.base.blocks);
        if from.0 < deep {
            let rows = self.view.files.headers.read_many(from.0, deep - from.0);
            bytes.extend_from_slice(self.stands(rows)?.as_flattened());
        }
        for height in from.0.max(deep)..end {
            match self.header(Height(height))? {
                Some(header) => bytes.extend_from_slice(&bitcoin::consensus::serialize(&header)),
                None => break,
            }
        }
        Ok(bytes)
    }

    /// Proof for the header at `height` among those up to and including `cp_height`.
    ///
    /// `None` when `height > cp_height` or `cp_height` is beyond the headers.
    pub fn header_proof(&self, height: Height, cp_height: Height) -> Result<Option<HeaderProof>, Error> {
        if height > cp_height || cp_height.0 >= self.header_count() {
            return Ok(None);
        }
        let leaves = cp_height.0 + 1;
        let by_position = mmr::by_position(|at| self.view.files.hashes.read(at));
        let mut proof = mmr::prove(height.0, leaves, &by_position);
        if !self.headers_stand() {
            // A reorg has cut nodes over the deltas' headers: those are hashed from the deltas.
            let leaf = |at: u32| match self.header(Height(at))? {
                Some(header) => Ok(header.block_hash().to_byte_array()),
                None => Err(Error::SnapshotGone),
            };
            let kept = self.view.base.blocks;
            proof = mmr::prove(height.0, leaves, |level, index| {
                mmr::or_rehash(kept, level, index, &by_position, &leaf)
            });
        }
        let (branch, root) = self.stands(proof)?;
        let branch = branch.into_iter().map(sha256d::Hash::from_byte_array).collect();
        Ok(Some(HeaderProof { branch, root: sha256d::Hash::from_byte_array(root) }))
    }

    /// Median time past of the connected block at a height (BIP113), in Unix seconds; `None` above the tip.
    pub fn median_time_past(&self, height: Height) -> Result<Option<u32>, Error> {
        self.stands(self.view.median_time_past(height))
    }

    /// Confirmed transactions that pay to or spend from a script, in chain order.
    pub fn history(&self, script: &ScriptHash) -> Result<Vec<HistoryEntry>, Error> {
        self.history_entries(&self.history_numbers(script)?)
    }

    /// Numbers of the same transactions, which are much less to read.
    pub fn history_numbers(&self, script: &ScriptHash) -> Result<Vec<TxNum>, Error> {
        self.stands(self.view.history(&script.key()))
    }

    /// Those of them in blocks above a height, where that is known at once; `None` where all have to be asked for.
    pub fn history_numbers_above(
        &self,
        script: &ScriptHash,
        height: Height,
    ) -> Result<Option<Vec<TxNum>>, Error> {
        self.stands(Ok(self.view.history_above(&script.key(), height)))
    }

    /// The entries of some of these numbers, which ascend.
    pub fn history_entries(&self, numbers: &[TxNum]) -> Result<Vec<HistoryEntry>, Error> {
        let places = self.stands(self.view.places(numbers))?;
        let entries = numbers.iter().zip(places);
        Ok(entries.map(|(tx_num, (txid, height))| HistoryEntry { tx_num: *tx_num, txid, height }).collect())
    }

    /// The number that the first transaction after the tip will have.
    pub fn end_tx(&self) -> TxNum {
        TxNum(self.view.end_tx())
    }

    /// The transaction that spends an output of the chain.
    ///
    /// `script` is the output's, `funder` its transaction. Reads the script's transactions after `funder` one by one.
    pub fn spender(&self, outpoint: &OutPoint, script: &ScriptKey, funder: TxNum) -> Result<Spender, Error> {
        let (found, read) = self.read(|view| view.spender(outpoint, script, funder))?;
        let entry = found.and_then(|(tx_num, txid)| {
            self.view.height_of(tx_num).map(|height| HistoryEntry { tx_num, txid, height })
        });
        Ok(Spender { entry, read })
    }

    /// Unspent outputs of a script, by transaction number, then output index.
    pub fn unspent(&self, script: &ScriptHash) -> Result<Vec<Unspent>, Error> {
        let coins = self.stands(self.view.unspent(&script.key()))?;
        let numbers: Vec<TxNum> = coins.iter().map(|coin| coin.tx_num).collect();
        let places = self.stands(self.view.places(&numbers))?;
        let unspent = coins.into_iter().zip(places).map(|(coin, (txid, height))| {
            let GroupCoin { tx_num, vout, value } = coin;
            Unspent { tx_num, txid, vout, height, value }
        });
        Ok(unspent.collect())
    }

    /// Sum of the unspent outputs, and how many there are.
    pub fn balance(&self, script: &ScriptHash) -> Result<(Amount, usize), Error> {
        let coins = self.stands(self.view.unspent(&script.key()))?;
        let sum = coins.iter().try_fold(Amount::ZERO, |sum, coin| sum.checked_add(coin.value));
        let sum = sum.ok_or_else(|| Error::corrupt("base", format!("balance of {script:?} overflows")))?;
        Ok((sum, coins.len()))
    }

    /// The unspent output at `outpoint`.
    pub fn coin(&self, outpoint: &OutPoint) -> Result<Option<Coin>, Error> {
        self.stands(self.view.coin(outpoint))
    }

    /// The number of a transaction: of two with one txid (BIP30) the later, of the genesis coinbase none.
    pub fn tx_num(&self, txid: &Txid) -> Result<Option<TxNum>, Error> {
        self.stands(self.view.tx_num(txid, TxNum(u32::MAX)))
    }

    /// Number, height and position of a transaction.
    pub fn tx_location(&self, txid: &Txid) -> Result<Option<TxLocation>, Error> {
        let Some(tx_num) = self.tx_num(txid)? else { return Ok(None) };
        let height = self.view.height_of(tx_num);
        let first = height.and_then(|height| self.view.txs_of(height)).map(|numbers| numbers.start);
        Ok(height.zip(first).map(|(height, first)| TxLocation { tx_num, height, pos: tx_num.0 - first }))
    }

    /// The id of the transaction with that number.
    pub fn txid(&self, tx_num: TxNum) -> Result<Option<Txid>, Error> {
        self.stands(self.view.txid(tx_num))
    }

    /// The height at which the transaction with that number is.
    pub fn height_of(&self, tx_num: TxNum) -> Option<Height> {
        self.view.height_of(tx_num)
    }

    /// A transaction's bytes.
    pub fn raw_tx(&self, txid: &Txid) -> Result<Option<RawTx>, Error> {
        let Some(TxLocation { tx_num, height, .. }) = self.tx_location(txid)? else { return Ok(None) };
        let bytes = self.read(|view| view.raw_tx(height, tx_num, *txid))?;
        Ok(Some(RawTx { bytes, height }))
    }

    /// A block's bytes.
    pub fn raw_block(&self, height: Height) -> Result<Option<Vec<u8>>, Error> {
        self.read(|view| view.raw_block(height))
    }

    /// Blocks that could not be read, by this snapshot or another, and were not put in place since; some of them
    /// where there are many, others each time.
    pub fn damaged_blocks(&self) -> Vec<Damaged> {
        self.view.files.blocks.repairs().tell()
    }

    /// Ids of all transactions of a block, in its order.
    pub fn block_txids(&self, height: Height) -> Result<Option<Vec<Txid>>, Error> {
        self.stands(self.view.block_txids(height))
    }

    /// Position of a transaction in the block at a height; `None` when it is not there.
    pub fn position(&self, height: Height, txid: &Txid) -> Result<Option<u32>, Error> {
        let Some(numbers) = self.view.txs_of(height) else { return Ok(None) };
        if let Some(number) = self.tx_num(txid)?.filter(|number| numbers.contains(&number.0)) {
            return Ok(Some(number.0 - numbers.start));
        }
        // The number is that of the later of two with one id (BIP30); genesis has one that is not found by its id.
        let txids = self.block_txids(height)?.unwrap_or_default();
        Ok(txids.iter().zip(0..).find_map(|(other, at)| (other == txid).then_some(at)))
    }

    /// Siblings of the transaction at a position of a block and of the nodes above it, deepest first, up to the
    /// merkle root; `None` where there is none.
    pub fn merkle_branch(&self, height: Height, pos: usize) -> Result<Option<Vec<sha256d::Hash>>, Error> {
        self.stands(self.view.merkle_branch(height, pos))
    }

    /// The id of one transaction of a block.
    pub fn txid_at(&self, height: Height, pos: u32) -> Result<Option<Txid>, Error> {
        let numbers = self.view.txs_of(height);
        let number = numbers
            .and_then(|numbers| numbers.start.checked_add(pos).filter(|number| numbers.contains(number)));
        self.stands(number.map_or(Ok(None), |number| self.view.txid(TxNum(number))))
    }

    /// All rows of chain and base in order, for tests that compare two stores. Places in block files, which
    /// depend on what else was stored, stand as checksums of the blocks.
    #[cfg(any(test, feature = "sim"))]
    pub fn dump(&self) -> Result<Vec<String>, Error> {
        let mut out = vec![format!("tip {:?} headers {}", self.tip(), self.header_count())];
        for height in 0..self.view.blocks() {
            let height = Height(height);
            let block = self.raw_block(height)?.unwrap_or_default();
            let (txids, numbers) = (self.block_txids(height)?, self.view.txs_of(height));
            out.push(format!("block {height} {:08x} {numbers:?} {txids:?}", crc32c::crc32c(&block)));
        }
        for number in 0..self.view.end_tx() {
            let bytes = bitcoin::consensus::serialize(&self.view.tx(TxNum(number))?);
            out.push(format!("bytes {number} {:08x}", crc32c::crc32c(&bytes)));
        }
        for height in 0..self.headers {
            out.push(format!("header {height} {:?}", self.header(Height(height))?));
        }
        for at in 0..mmr::node_count(self.headers) {
            out.push(format!("node {at} {:02x?}", self.view.files.hashes.read(at)?));
        }
        out.push(format!("base {:?}", self.view.base));
        self.view.index.dump(&mut out)?;
        for delta in self.view.deltas.iter() {
            let (hash, first) = (delta.hash, delta.head.first_tx);
            out.push(format!("delta {} {hash} {first} {:?}", delta.head.height, delta.head.offsets));
            out.extend(delta.scripts().map(|rows| format!("{rows:02x?}")));
        }
        Ok(out)
    }
}
