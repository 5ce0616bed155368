//! The chain at one tip: flat files and base below, deltas above.
//!
//! Both sides use it: the writer with the chain it stages, a snapshot with the one committed. Answers hold as long as
//! the files were not cut; the snapshot watches that.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};
use std::thread;

use bitcoin::block::Header;
use bitcoin::hashes::{Hash, sha256d};
use bitcoin::{BlockHash, OutPoint, Transaction, Txid};

use crate::base::{Base, BaseMark, Table};
use crate::delta::{CoinValue, Delta, DeltaHead, ScriptRows, outpoint_word, script_word, tx_prefix, tx_word};
use crate::deltas::Deltas;
use crate::error::Error;
use crate::files::{BlockRow, Files};
use crate::group::GroupCoin;
use crate::merkle;
use crate::outputs::TxPlace;
use crate::repair::name_block;
use crate::segments::BlockPos;
use crate::types::{Coin, Height, ScriptKey, Tip, TxNum};

/// Threads that look for the coins of one block.
pub(crate) static LOOKING_THREADS: LazyLock<usize> =
    LazyLock::new(|| thread::available_parallelism().map_or(1, usize::from).min(4));
/// Fewer are not worth a thread.
const LOOKS_OF_A_THREAD: usize = 256;

/// Block times of which the median counts (BIP113).
const MEDIAN_BLOCKS: u32 = 11;

/// The connected chain.
#[derive(Clone, Debug)]
pub(crate) struct View {
    pub(crate) files: Arc<Files>,
    /// How far the arrays go; the deltas begin above.
    pub(crate) base: BaseMark,
    /// The index of these blocks. Parts of it may go further while a merge is under way.
    pub(crate) index: Arc<Base>,
    /// For each block of the base, the number of transactions up to and including it.
    pub(crate) tx_ends: Arc<Vec<u32>>,
    /// The blocks above the base, lowest first.
    pub(crate) deltas: Deltas,
}

impl View {
    /// Connected blocks: the tip's height plus one.
    pub(crate) fn blocks(&self) -> u32 {
        self.base.blocks + self.deltas.len() as u32
    }

    pub(crate) fn tip(&self) -> Option<Tip> {
        let height = Height(self.blocks().checked_sub(1)?);
        let hash = self.deltas.last().map_or(self.base.hash, |delta| delta.hash);
        Some(Tip { height, hash })
    }

    /// Number of the next block's coinbase.
    pub(crate) fn end_tx(&self) -> u32 {
        self.deltas.last().map_or(self.base.txs, |delta| delta.end_tx())
    }

    /// The delta of a height; `None` below them and above the tip.
    fn delta(&self, height: u32) -> Option<&Arc<Delta>> {
        self.deltas.get(height.checked_sub(self.base.blocks)? as usize)
    }

    /// The delta that has a transaction number.
    fn delta_of_tx(&self, number: TxNum) -> Option<&Arc<Delta>> {
        let at = self.deltas.partition_point(|delta| delta.end_tx() <= number.0);
        self.deltas.get(at).filter(|delta| delta.head.first_tx <= number.0)
    }

    pub(crate) fn height_of(&self, number: TxNum) -> Option<Height> {
        if number.0 < self.base.txs {
            let height = self.tx_ends.partition_point(|end| *end <= number.0) as u32;
            return (height < self.base.blocks).then_some(Height(height));
        }
        self.delta_of_tx(number).map(|delta| delta.head.height)
    }

    /// Numbers of a block's transactions.
    pub(crate) fn txs_of(&self, height: Height) -> Option<std::ops::Range<u32>> {
        if height.0 < self.base.blocks {
            let start = height.prev().map_or(0, |below| self.tx_ends[below.0 as usize]);
            return Some(start..self.tx_ends[height.0 as usize]);
        }
        self.delta(height.0).map(|delta| delta.head.first_tx..delta.end_tx())
    }

    /// The txid of a number below [`View::end_tx`].
    pub(crate) fn txid(&self, number: TxNum) -> Result<Option<Txid>, Error> {
        if number.0 < self.base.txs {
            return self.files.txids.read(number.0).map(|bytes| Some(Txid::from_byte_array(bytes)));
        }
        let delta = self.delta_of_tx(number);
        Ok(delta.map(|delta| delta.head.txids[(number.0 - delta.head.first_tx) as usize]))
    }

    /// Txid and height of each of these numbers, which ascend.
    pub(crate) fn places(&self, numbers: &[TxNum]) -> Result<Vec<(Txid, Height)>, Error> {
        let (below, above) = numbers.split_at(numbers.partition_point(|number| number.0 < self.base.txs));
        let below: Vec<u32> = below.iter().map(|number| number.0).collect();
        let missing = |number: u32| Error::corrupt("base", format!("no transaction {number}"));
        let mut places = Vec::with_capacity(numbers.len());
        let mut height = 0;
        for (number, txid) in below.iter().zip(self.files.txids.read_scattered(&below)?) {
            if self.tx_ends.get(height).is_none_or(|end| end <= number) {
                height += self.tx_ends[height..].partition_point(|end| end <= number);
            }
            if height >= self.tx_ends.len() {
                return Err(missing(*number));
            }
            places.push((Txid::from_byte_array(txid), Height(height as u32)));
        }
        for number in above {
            let delta = self.delta_of_tx(*number).ok_or_else(|| missing(number.0))?;
            places.push((delta.head.txids[(number.0 - delta.head.first_tx) as usize], delta.head.height));
        }
        Ok(places)
    }

    fn is_txid(&self, number: TxNum, txid: &Txid) -> Result<bool, Error> {
        Ok(self.txid(number)?.as_ref() == Some(txid))
    }

    pub(crate) fn block_txids(&self, height: Height) -> Result<Option<Vec<Txid>>, Error> {
        if let Some(delta) = self.delta(height.0) {
            return Ok(Some(delta.head.txids.clone()));
        }
        let Some(numbers) = self.txs_of(height) else { return Ok(None) };
        let rows = self.files.txids.read_many(numbers.start, numbers.len() as u32)?;
        Ok(Some(rows.into_iter().map(Txid::from_byte_array).collect()))
    }

    /// Some ids of a block's transactions, in its order; fewer where the block ends.
    fn txids_from(&self, height: Height, from: usize, count: usize) -> Result<Vec<Txid>, Error> {
        if let Some(delta) = self.delta(height.0) {
            return Ok(delta.head.txids.iter().skip(from).take(count).copied().collect());
        }
        let Some(numbers) = self.txs_of(height) else { return Ok(Vec::new()) };
        let count = count.min(numbers.len().saturating_sub(from));
        let rows = self.files.txids.read_many(numbers.start + from as u32, count as u32)?;
        Ok(rows.into_iter().map(Txid::from_byte_array).collect())
    }

    /// Siblings of a block's transaction and of the nodes above it, deepest first; `None` where there is none.
    pub(crate) fn merkle_branch(
        &self,
        height: Height,
        pos: usize,
    ) -> Result<Option<Vec<sha256d::Hash>>, Error> {
        let count = self.txs_of(height).map_or(0, |numbers| numbers.len());
        if pos >= count {
            return Ok(None);
        }
        let leaves = |txids: Vec<Txid>| txids.into_iter().map(|txid| txid.to_raw_hash()).collect();
        if count <= merkle::LEAVES {
            return Ok(merkle::branch(leaves(self.txids_from(height, 0, count)?), pos));
        }
        let first = pos - pos % merkle::LEAVES;
        let below: Vec<_> = leaves(self.txids_from(height, first, merkle::LEAVES)?);
        let Some(mut branch) = merkle::lower_branch(&below, pos - first) else { return Ok(None) };
        let hash = self.hash_of(height)?.ok_or(Error::NoTip)?;
        let rows = self.files.merkle.rows(hash, || self.txids_from(height, 0, count))?;
        let nodes = count.div_ceil(merkle::LEAVES);
        branch.extend(merkle::upper_branch(&rows, nodes, pos / merkle::LEAVES));
        Ok(Some(branch))
    }

    /// The header of a connected block.
    pub(crate) fn header(&self, height: Height) -> Result<Option<Header>, Error> {
        if let Some(delta) = self.delta(height.0) {
            return Ok(Some(delta.head.header));
        }
        if height.0 >= self.base.blocks {
            return Ok(None);
        }
        self.files.headers.read(height.0).and_then(|bytes| decode_header(&bytes)).map(Some)
    }

    /// Median time past of the block at a height.
    pub(crate) fn median_time_past(&self, height: Height) -> Result<Option<u32>, Error> {
        median_time_past(height, |height| Ok(self.header(height)?.map(|header| header.time)))
    }

    /// Where a connected block lies.
    pub(crate) fn block_pos(&self, height: Height) -> Result<Option<BlockPos>, Error> {
        if let Some(delta) = self.delta(height.0) {
            return Ok(Some(delta.head.pos));
        }
        if height.0 >= self.base.blocks {
            return Ok(None);
        }
        let row = BlockRow::decode(&self.files.blockpos.read(height.0)?);
        row.map(|row| Some(row.pos)).map_err(|fault| Error::corrupt("blockpos", fault.to_string()))
    }

    /// The deltas that may know a hash and that a part which goes as far as `reach` has not, highest first.
    fn above(&self, hash: u64, reach: u32) -> impl Iterator<Item = &Arc<Delta>> {
        self.deltas.maybe(hash).take_while(move |delta| delta.head.height.0 >= reach)
    }

    /// The number of a transaction, of several with one txid the latest before `below`.
    pub(crate) fn tx_num(&self, txid: &Txid, below: TxNum) -> Result<Option<TxNum>, Error> {
        let prefix = tx_prefix(txid);
        for delta in self.above(tx_word(txid), self.index.reach(Table::Txs, &prefix)) {
            let number = delta.position_of(txid).map(|at| TxNum(delta.head.first_tx + at));
            if let Some(number) = number.filter(|number| *number < below) {
                return Ok(Some(number));
            }
        }
        for number in self.index.numbers(prefix)?.into_iter().rev() {
            if number < below && self.is_txid(number, txid)? {
                return Ok(Some(number));
            }
        }
        Ok(None)
    }

    /// The unspent output at `outpoint`.
    pub(crate) fn coin(&self, outpoint: &OutPoint) -> Result<Option<Coin>, Error> {
        let prefix = tx_prefix(&outpoint.txid);
        let reach = self.index.reach(Table::Coins, &prefix);
        let deltas = self.deltas.maybe_any([tx_word(&outpoint.txid), outpoint_word(outpoint)]);
        for delta in deltas.take_while(|delta| delta.head.height.0 >= reach) {
            // Made before spent: what a duplicate coinbase overwrites, it also makes.
            if let Some(at) = delta.position_of(&outpoint.txid)
                && let Some(CoinValue { value, class, script_key }) = delta.made(at, outpoint.vout)
            {
                let DeltaHead { height, first_tx, .. } = delta.head;
                let tx_num = TxNum(first_tx + at);
                return Ok(Some(Coin { value, tx_num, height, is_coinbase: at == 0, class, script_key }));
            }
            for number in delta.maybe_spent(outpoint) {
                if self.is_txid(number, &outpoint.txid)? {
                    return Ok(None);
                }
            }
        }
        for (number, coin) in self.index.coins(prefix, outpoint.vout)? {
            if self.is_txid(number, &outpoint.txid)? {
                return self.place(number, coin).map(Some);
            }
        }
        Ok(None)
    }

    /// The same of many, on several threads: each look waits for memory, or for the disk.
    pub(crate) fn coins(&self, outpoints: &[OutPoint]) -> Result<Vec<Option<Coin>>, Error> {
        let some = |outpoints: &[OutPoint]| -> Result<Vec<Option<Coin>>, Error> {
            outpoints.iter().map(|outpoint| self.coin(outpoint)).collect()
        };
        if outpoints.len() < LOOKS_OF_A_THREAD * 2 {
            return some(outpoints);
        }
        let each = outpoints.len().div_ceil(*LOOKING_THREADS).max(LOOKS_OF_A_THREAD);
        thread::scope(|scope| {
            let rest = outpoints[each..].chunks(each);
            let rest: Vec<_> = rest.map(|outpoints| scope.spawn(move || some(outpoints))).collect();
            let mut coins = some(&outpoints[..each])?;
            for found in rest {
                let panicked = |_| Err(Error::corrupt("base", "a thread that looked for coins panicked"));
                coins.extend(found.join().unwrap_or_else(panicked)?);
            }
            Ok(coins)
        })
    }

    fn place(&self, tx_num: TxNum, coin: CoinValue) -> Result<Coin, Error> {
        let height = self.height_of(tx_num);
        let height =
            height.ok_or_else(|| Error::corrupt("blockpos", format!("no block has number {}", tx_num.0)))?;
        let is_coinbase = self.txs_of(height).is_some_and(|numbers| numbers.start == tx_num.0);
        let CoinValue { value, class, script_key } = coin;
        Ok(Coin { value, tx_num, height, is_coinbase, class, script_key })
    }

    /// What the deltas do to a script, lowest first, each with the number of its coinbase.
    fn recent_rows(&self, key: &ScriptKey) -> Vec<(u32, ScriptRows<'_>)> {
        let deltas = self.above(script_word(key), self.index.reach(Table::Scripts, &key.0));
        let mut rows: Vec<_> =
            deltas.filter_map(|delta| Some((delta.head.first_tx, delta.script(key)?))).collect();
        rows.reverse();
        rows
    }

    /// Numbers of the transactions of a script, ascending.
    pub(crate) fn history(&self, key: &ScriptKey) -> Result<Vec<TxNum>, Error> {
        let mut history = self.index.group(key)?.history;
        for (first_tx, rows) in self.recent_rows(key) {
            history.retain(|number| rows.replaced.binary_search(number).is_err());
            history.extend(rows.history.iter().map(|at| TxNum(first_tx + at)));
        }
        Ok(history)
    }

    /// What blocks above a height added to that, without a look at what it was before. `None` where the base has some of
    /// them already, or where they took something away.
    pub(crate) fn history_above(&self, key: &ScriptKey, height: Height) -> Option<Vec<TxNum>> {
        let from = height.0.checked_add(1)?;
        if self.index.reach(Table::Scripts, &key.0) > from {
            return None;
        }
        let mut added = Vec::new();
        for delta in self.above(script_word(key), from) {
            let Some(rows) = delta.script(key) else { continue };
            if !rows.replaced.is_empty() {
                return None;
            }
            added.extend(rows.history.iter().rev().map(|at| TxNum(delta.head.first_tx + at)));
        }
        added.reverse();
        Some(added)
    }

    /// Which transaction of a script's history after `funder` spends an output of it, and how many were read to
    /// find that out.
    pub(crate) fn spender(
        &self,
        outpoint: &OutPoint,
        key: &ScriptKey,
        funder: TxNum,
    ) -> Result<(Option<(TxNum, Txid)>, usize), Error> {
        let history = self.history(key)?;
        let later = &history[history.partition_point(|number| *number <= funder)..];
        for (number, read) in later.iter().zip(1..) {
            let tx = self.tx(*number)?;
            if tx.input.iter().any(|input| input.previous_output == *outpoint) {
                return Ok((Some((*number, tx.compute_txid())), read));
            }
        }
        Ok((None, later.len()))
    }

    /// Unspent outputs of a script, by number, then output index.
    pub(crate) fn unspent(&self, key: &ScriptKey) -> Result<Vec<GroupCoin>, Error> {
        let coins = self.index.group(key)?.unspent;
        let recent = self.recent_rows(key);
        if recent.is_empty() {
            return Ok(coins);
        }
        let mut unspent: BTreeMap<(TxNum, u32), GroupCoin> =
            coins.into_iter().map(|coin| ((coin.tx_num, coin.vout), coin)).collect();
        for (first_tx, rows) in recent {
            for spent in rows.spent {
                unspent.remove(&(spent.tx_num, spent.vout));
            }
            for made in rows.made {
                let coin =
                    GroupCoin { tx_num: TxNum(first_tx + made.tx), vout: made.vout, value: made.value };
                unspent.insert((coin.tx_num, coin.vout), coin);
            }
        }
        Ok(unspent.into_values().collect())
    }

    /// A transaction by its number, which must be of this chain; it is checked against its id.
    pub(crate) fn tx(&self, number: TxNum) -> Result<Transaction, Error> {
        let nowhere = || Error::corrupt("txpos", format!("transaction {}: no block has it", number.0));
        let height = self.height_of(number).ok_or_else(nowhere)?;
        let txid = self.txid(number)?.ok_or_else(nowhere)?;
        self.tx_place(height, number, txid)?.read(&self.files, |height| self.hash_of(height))
    }

    /// The bytes of one whose height and id are known, checked in the same way.
    pub(crate) fn raw_tx(&self, height: Height, number: TxNum, txid: Txid) -> Result<Vec<u8>, Error> {
        self.tx_place(height, number, txid)?.read_bytes(&self.files, |height| self.hash_of(height))
    }

    fn tx_place(&self, height: Height, number: TxNum, txid: Txid) -> Result<TxPlace, Error> {
        let (pos, start, end) = self.tx_range(height, number)?;
        Ok(TxPlace { txid, height, pos, start, end })
    }

    /// Its block's place, and where in the block it begins and ends.
    pub(crate) fn tx_range(&self, height: Height, number: TxNum) -> Result<(BlockPos, u32, u32), Error> {
        let corrupt = |what: &str| Error::corrupt("txpos", format!("transaction {}: {what}", number.0));
        let numbers = self.txs_of(height).ok_or_else(|| corrupt("no block has it"))?;
        let pos = self.block_pos(height)?.ok_or_else(|| corrupt("its block has no position"))?;
        let (start, end) = match self.delta(height.0) {
            Some(delta) => delta.tx_range(number.0 - numbers.start)?,
            None => {
                let count = (numbers.end - number.0).min(2);
                let rows = self.files.txpos.read_many(number.0, count)?;
                let offset = |at: usize| rows.get(at).map(|row| u32::from_le_bytes(*row));
                (offset(0).unwrap_or(0), offset(1).unwrap_or(pos.length))
            }
        };
        Ok((pos, start, end))
    }

    /// The block at a height, its checksum verified.
    pub(crate) fn raw_block(&self, height: Height) -> Result<Option<Vec<u8>>, Error> {
        let Some(pos) = self.block_pos(height)? else { return Ok(None) };
        match self.files.blocks.read(pos) {
            Ok(raw) => Ok(Some(raw)),
            Err(error) => {
                let hash = self.hash_of(height)?.ok_or(Error::NoTip)?;
                Err(name_block(error, height, hash))
            }
        }
    }

    pub(crate) fn hash_of(&self, height: Height) -> Result<Option<BlockHash>, Error> {
        match self.delta(height.0) {
            Some(delta) => Ok(Some(delta.hash)),
            None => Ok(self.header(height)?.map(|header| header.block_hash())),
        }
    }
}

/// Median of the times of up to eleven blocks, the highest at `height`.
pub(crate) fn median_time_past(
    height: Height,
    time: impl Fn(Height) -> Result<Option<u32>, Error>,
) -> Result<Option<u32>, Error> {
    let mut times = Vec::new();
    for height in height.0.saturating_sub(MEDIAN_BLOCKS - 1)..=height.0 {
        match time(Height(height))? {
            Some(time) => times.push(time),
            None => return Ok(None),
        }
    }
    times.sort_unstable();
    Ok(times.get(times.len() / 2).copied())
}

pub(crate) fn decode_header(bytes: &[u8; 80]) -> Result<Header, Error> {
    bitcoin::consensus::deserialize(bytes).map_err(|_| Error::corrupt("headers", "a header does not decode"))
}
