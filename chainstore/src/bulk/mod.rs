//! Indexing a long chain in bulk: nothing is inserted at random into a large tree.
//!
//! A block's coins are joined and checked as it comes, so what is connected is valid; but its rows go to memory,
//! from there as sorted runs to disk, and when the bulk ends, some blocks below the best header, the parts of the base
//! are written anew from what they were and the runs, each in its order, in one pass. Memory is bounded by a setting.
//! A flush makes everything so far durable: arrays and runs first, then the bulk row that names them. What was not
//! flushed is fetched again after a crash.
//! What a wallet may ask is answered from what was committed before: while a bulk goes on nobody is served.

mod blocks;
mod coins;
mod hash;
mod load;
mod rows;
mod run;
mod state;

use std::sync::Arc;

use bitcoin::hashes::Hash;
use bitcoin::{BlockHash, OutPoint};

use self::blocks::Blocks;
use self::coins::Coins;
use self::hash::OutpointHash;
use self::rows::{CoinKey, CoinRow, HistoryRow, MAX_OUTPUTS, NewCoin, TxRow};
use self::run::write_sorted;
use crate::base::BaseMark;
use crate::delta::{Delta, tx_prefix};
use crate::disk::{Disk, remove_unnamed, sync_dir};
use crate::error::Error;
use crate::files::{BlockRow, Files};
use crate::outline::{Outline, OutputKind};
use crate::outputs::TxPlace;
use crate::segments::BlockPos;
use crate::store::NewBlock;
use crate::types::{Coin, Height, ScriptKey, Tip, TxNum};
use crate::view::View;

pub(crate) use self::hash::Secret;
pub(crate) use self::load::{Load, load};
pub(crate) use self::run::{DIR, Kind, RunInfo};
pub(crate) use self::state::BulkState;

/// Array records that wait for their file, in bytes of txids.
const ARRAY_BYTES: usize = 1024 * 1024;

/// A bulk sync that goes on.
#[derive(Debug)]
pub(crate) struct Bulk {
    disk: Arc<dyn Disk>,
    files: Arc<Files>,
    /// The base on which it began, without what is above.
    below: View,
    /// How far it came.
    mark: BaseMark,
    blocks: Blocks,
    /// Of each block.
    times: Vec<u32>,
    hash: OutpointHash,
    coins: Coins,
    history: Vec<HistoryRow>,
    txs: Vec<TxRow>,
    rows_limit: usize,
    blockpos: Vec<[u8; 16]>,
    txids: Vec<[u8; 32]>,
    txpos: Vec<[u8; 4]>,
    /// What the next block will spend, already taken from the coins.
    taken: Vec<Taken>,
    scratch: Scratch,
    /// As the bulk row has it.
    durable: BulkState,
}

/// An outpoint with the coin that was there.
#[derive(Clone, Copy, Debug)]
struct Taken {
    outpoint: OutPoint,
    row: Option<CoinRow>,
}

/// What is gathered of one block, kept for its room.
#[derive(Debug, Default)]
struct Scratch {
    /// What it makes and does not spend itself.
    made: Vec<CoinRow>,
    /// Of each input after the coinbase, the script of what it spends.
    spent: Vec<ScriptKey>,
    /// Of each output, whether the block spends it itself.
    is_spent: Vec<bool>,
}

impl Bulk {
    /// A new one, or the one that `durable` names.
    pub(crate) fn open(
        disk: Arc<dyn Disk>,
        below: View,
        durable: BulkState,
        memory_bytes: usize,
    ) -> Result<Self, Error> {
        let files = below.files.clone();
        let below = View { deltas: crate::deltas::Deltas::default(), ..below };
        let runs = durable.runs_of(Kind::Coins);
        let coins = Coins::open(&disk, memory_bytes / 10 * 7, &runs, below.base.blocks > 0)?;
        let tx_ends = files.tx_ends(durable.mark.blocks)?;
        let mut times = Vec::with_capacity(tx_ends.len());
        for height in 0..durable.mark.blocks {
            let header = files.headers.read(height)?;
            times.push(crate::view::decode_header(&header)?.time);
        }
        // Two rows of history for each that names a transaction, and more.
        let rows_limit = (memory_bytes / 5 / size_of::<HistoryRow>()).max(16);
        Ok(Self {
            disk,
            files,
            below,
            mark: durable.mark,
            blocks: Blocks::new(tx_ends),
            times,
            hash: OutpointHash::new(durable.secret),
            coins,
            history: Vec::new(),
            txs: Vec::new(),
            rows_limit,
            blockpos: Vec::new(),
            txids: Vec::new(),
            txpos: Vec::new(),
            taken: Vec::new(),
            scratch: Scratch::default(),
            durable,
        })
    }

    pub(crate) fn mark(&self) -> BaseMark {
        self.mark
    }

    pub(crate) fn state(&self) -> &BulkState {
        &self.durable
    }

    pub(crate) fn tip(&self) -> Option<Tip> {
        let height = Height(self.mark.blocks.checked_sub(1)?);
        Some(Tip { height, hash: self.mark.hash })
    }

    pub(crate) fn tx_ends(&self) -> &[u32] {
        self.blocks.ends()
    }

    /// Its state and its counts of transactions; all else, which takes memory, goes.
    pub(crate) fn end(self) -> (BulkState, Vec<u32>) {
        (self.durable, self.blocks.into_ends())
    }

    /// Time of the block at a height that it has.
    pub(crate) fn time(&self, height: u32) -> Option<u32> {
        self.times.get(height as usize).copied()
    }

    pub(crate) fn files(&self) -> &Arc<Files> {
        &self.files
    }

    /// Where the bytes of a transaction of the chain are; what of it waits for its file counts too.
    pub(crate) fn place_of(&self, number: TxNum) -> Result<TxPlace, Error> {
        let corrupt = |what: &str| Error::corrupt("txpos", format!("transaction {}: {what}", number.0));
        let height = self.blocks.of(number.0);
        let end_tx = *self.blocks.ends().get(height).ok_or_else(|| corrupt("no block has it"))?;
        let written = self.mark.txs - self.txids.len() as u32;
        let height = Height(height as u32);
        let pos = self.block_pos(height)?.ok_or_else(|| corrupt("its block has no position"))?;
        let offset = |number: u32| match number.checked_sub(written) {
            Some(at) => Ok(u32::from_le_bytes(self.txpos[at as usize])),
            None => self.files.txpos.read(number).map(u32::from_le_bytes),
        };
        let end = if number.0 + 1 < end_tx { offset(number.0 + 1)? } else { pos.length };
        let txid = match number.0.checked_sub(written) {
            Some(at) => self.txids[at as usize],
            None => self.files.txids.read(number.0)?,
        };
        let txid = bitcoin::Txid::from_byte_array(txid);
        Ok(TxPlace { txid, height, pos, start: offset(number.0)?, end })
    }

    /// Where a block of the chain lies; one whose row waits for its file counts too.
    pub(crate) fn block_pos(&self, height: Height) -> Result<Option<BlockPos>, Error> {
        let blocks = self.blocks.ends().len();
        if height.0 as usize >= blocks {
            return Ok(None);
        }
        let row = match (height.0 as usize).checked_sub(blocks - self.blockpos.len()) {
            Some(at) => self.blockpos[at],
            None => self.files.blockpos.read(height.0)?,
        };
        let row = BlockRow::decode(&row);
        row.map(|row| Some(row.pos)).map_err(|fault| Error::corrupt("blockpos", fault.to_string()))
    }

    pub(crate) fn coin(&self, outpoint: &OutPoint) -> Result<Option<Coin>, Error> {
        if let Some(row) =
            self.taken.iter().find(|taken| taken.outpoint == *outpoint).and_then(|taken| taken.row)
        {
            return Ok(Some(self.coin_of(&row)));
        }
        match self.coins.get(&self.hash.key(outpoint))? {
            Some(row) => Ok((!row.is_gone()).then(|| self.coin_of(&row))),
            None if self.below.base.blocks > 0 => self.below.coin(outpoint),
            None => Ok(None),
        }
    }

    /// The same, of coins that the next block will spend. They are taken already: so that block need not look for
    /// them again. If another thing is done instead, they are given back.
    pub(crate) fn fetch(&mut self, outpoints: &[OutPoint]) -> Result<Vec<Option<Coin>>, Error> {
        self.give_back();
        let keys: Vec<CoinKey> = outpoints.iter().map(|outpoint| self.hash.key(outpoint)).collect();
        let mut taken = std::mem::take(&mut self.taken);
        let result = self.coins.spend_all(&keys, |row| taken.push(Taken { outpoint: OutPoint::null(), row }));
        taken.iter_mut().zip(outpoints).for_each(|(taken, outpoint)| taken.outpoint = *outpoint);
        self.taken = taken;
        result?;
        let mut coins = Vec::with_capacity(outpoints.len());
        for (at, (outpoint, key)) in outpoints.iter().zip(keys).enumerate() {
            let row = match self.taken[at].row {
                Some(row) => Some(row),
                None => self.spend_below(outpoint, key)?,
            };
            self.taken[at].row = row;
            coins.push(row.map(|row| self.coin_of(&row)));
        }
        Ok(coins)
    }

    /// What was taken for a block that did not come.
    fn give_back(&mut self) {
        self.taken.drain(..).filter_map(|taken| taken.row).for_each(|row| self.coins.put(row));
    }

    /// A coin of the base, which is in the table from then on.
    fn fetch_below(&mut self, key: CoinKey, outpoint: &OutPoint) -> Result<Option<CoinRow>, Error> {
        if self.below.base.blocks == 0 {
            return Ok(None);
        }
        let Some(coin) = self.below.coin(outpoint)? else { return Ok(None) };
        let Coin { value, tx_num, is_coinbase, class, script_key, .. } = coin;
        let coin = NewCoin { number: tx_num.0, vout: outpoint.vout, value, class, is_coinbase, script_key };
        let row = CoinRow::made(key, &coin).stored();
        self.coins.put(row);
        Ok(Some(row))
    }

    fn spend(&mut self, outpoint: &OutPoint) -> Result<Option<CoinRow>, Error> {
        let key = self.hash.key(outpoint);
        match self.coins.spend(&key)? {
            Some(row) => Ok(Some(row)),
            None => self.spend_below(outpoint, key),
        }
    }

    /// The same for one that neither table nor runs have as a coin.
    fn spend_below(&mut self, outpoint: &OutPoint, key: CoinKey) -> Result<Option<CoinRow>, Error> {
        if self.below.base.blocks == 0 || self.coins.get(&key)?.is_some() {
            return Ok(None);
        }
        self.fetch_below(key, outpoint)?;
        self.coins.spend(&key)
    }

    /// Whether the base has a transaction of a coinbase's id (BIP30): that is more than a bulk can take.
    pub(crate) fn repeats(&self, coinbase: &bitcoin::Txid) -> Result<bool, Error> {
        let below = &self.below;
        Ok(below.base.blocks > 0 && below.tx_num(coinbase, TxNum(u32::MAX))?.is_some())
    }

    fn coin_of(&self, row: &CoinRow) -> Coin {
        let height = self.blocks.of(row.number) as u32;
        Coin {
            value: row.value(),
            tx_num: TxNum(row.number),
            height: Height(height),
            is_coinbase: row.is_coinbase(),
            class: row.class(),
            script_key: row.script_key,
        }
    }

    /// Whether a flush is due before a block with so many outputs and inputs may be connected.
    pub(crate) fn is_full(&self) -> bool {
        // The largest block has fewer outputs and inputs together than this.
        const MOST_COINS: usize = 150_000;
        self.history.len() >= self.rows_limit || self.coins.is_full(MOST_COINS.min(self.rows_limit / 8))
    }

    /// Takes a block that lies at `pos` and follows the last; its coins were checked.
    pub(crate) fn connect(&mut self, new: &NewBlock<'_>, pos: BlockPos) -> Result<(), Error> {
        let height = Height(self.mark.blocks);
        let (outline, bad) = (new.outline, |what| Error::BadInput { hash: new.hash, what });
        let count = u32::try_from(outline.txs().len()).map_err(|_| Error::TxNumOverflow { height })?;
        let first = self.mark.txs;
        let end = first.checked_add(count).ok_or(Error::TxNumOverflow { height })?;
        if outline.txs().is_empty() {
            return Err(bad("no transactions"));
        }
        if outline.outputs().len() >= MAX_OUTPUTS as usize {
            return Err(bad("more outputs than a block can have"));
        }
        let mut scratch = std::mem::take(&mut self.scratch);
        self.spend_all(outline, &mut scratch)
            .and_then(|is_whole| if is_whole { Ok(()) } else { Err(bad("coin missing or spent twice")) })?;
        let mut spent = scratch.spent.iter();
        for (position, (tx, number)) in outline.txs().iter().zip(first..).enumerate() {
            let history_from = self.history.len();
            for _ in outline.inputs_of(position) {
                self.history.extend(spent.next().map(|key| HistoryRow::new(key, number)));
            }
            // The genesis coinbase is not indexed, and its output is no coin.
            if height == Height::GENESIS {
                continue;
            }
            let of_tx = self.hash.of_tx(&tx.txid);
            for (place, vout) in outline.outputs_of(position).zip(0u32..) {
                let output = &outline.outputs()[place];
                if output.kind == OutputKind::Unindexed {
                    continue;
                }
                self.history.push(HistoryRow::new(&output.key, number));
                if let OutputKind::Coin(class) = output.kind
                    && !scratch.is_spent[place]
                {
                    let key = CoinKey::new(tx_prefix(&tx.txid), vout, of_tx.of_output(vout));
                    let (value, is_coinbase) = (output.value, position == 0);
                    let script_key = output.key;
                    let coin = NewCoin { number, vout, value, class, is_coinbase, script_key };
                    scratch.made.push(CoinRow::made(key, &coin));
                }
            }
            // A transaction's rows are few, and most scripts that repeat at all repeat side by side.
            dedup_from(&mut self.history, history_from);
            self.txs.push(TxRow::new(tx_prefix(&tx.txid), number));
        }
        self.coins.make_all(&scratch.made)?;
        self.scratch = scratch;
        let txids = outline.txids().map(|txid| txid.to_byte_array());
        let offsets = outline.txs().iter().map(|tx| tx.offset);
        self.append(txids, offsets, pos, end)?;
        self.advance(new.hash, new.header.time, end);
        Ok(())
    }

    /// Takes the coins that a block spends; `false` where one is missing. Which scripts they pay to, in the order of
    /// the inputs, and which of the block's own outputs they are goes to `scratch`.
    fn spend_all(&mut self, outline: &Outline, scratch: &mut Scratch) -> Result<bool, Error> {
        let Scratch { made, spent, is_spent } = scratch;
        made.clear();
        spent.clear();
        is_spent.clear();
        is_spent.resize(outline.outputs().len(), false);
        let from_chain = outline.inputs().iter().filter(|input| input.maker().is_none());
        if !self.taken.iter().map(|taken| taken.outpoint).eq(from_chain.map(|input| input.outpoint)) {
            self.give_back();
        }
        let mut all_taken = std::mem::take(&mut self.taken);
        let mut taken = all_taken.drain(..);
        for input in outline.inputs() {
            let Some(maker) = input.maker() else {
                let row = match taken.next() {
                    Some(taken) => taken.row,
                    None => self.spend(&input.outpoint)?,
                };
                let Some(row) = row else { return Ok(false) };
                spent.push(row.script_key);
                continue;
            };
            let Some(place) = outline.output_of(maker, input.outpoint.vout) else { return Ok(false) };
            let output = &outline.outputs()[place];
            // A coin of this block that it spends itself is none that the table ever has.
            let is_coin = matches!(output.kind, OutputKind::Coin(_));
            if !is_coin || std::mem::replace(&mut is_spent[place], true) {
                return Ok(false);
            }
            spent.push(output.key);
        }
        drop(taken);
        self.taken = all_taken;
        Ok(true)
    }

    /// Takes a block that was connected as a delta.
    pub(crate) fn absorb(&mut self, delta: &Delta) -> Result<(), Error> {
        let first = delta.head.first_tx;
        for rows in delta.scripts() {
            if !rows.replaced.is_empty() {
                // Two coinbases of one id so near each other: mainnet has none.
                return Err(Error::corrupt("tip.redb", "a repeated coinbase among the newest blocks"));
            }
            self.history.extend(rows.history.iter().map(|at| HistoryRow::new(&rows.key, first + at)));
            for spent in rows.spent {
                let txid = self.files_txid(spent.tx_num, delta)?;
                if self.spend(&OutPoint::new(txid, spent.vout))?.is_none() {
                    return Err(Error::corrupt("tip.redb", "a delta spends a coin that is not there"));
                }
            }
            for made in rows.made {
                let place = self.hash.key(&OutPoint::new(delta.head.txids[made.tx as usize], made.vout));
                let coin = NewCoin {
                    number: first + made.tx,
                    vout: made.vout,
                    value: made.value,
                    class: made.class,
                    is_coinbase: made.tx == 0,
                    script_key: rows.key,
                };
                self.coins.make(CoinRow::made(place, &coin))?;
            }
        }
        if delta.head.height != Height::GENESIS {
            let numbered = delta.head.txids.iter().zip(first..);
            self.txs.extend(numbered.map(|(txid, number)| TxRow::new(tx_prefix(txid), number)));
        }
        let txids = delta.head.txids.iter().map(|txid| txid.to_byte_array());
        let offsets = delta.head.offsets.iter().copied();
        self.append(txids, offsets, delta.head.pos, delta.end_tx())?;
        self.advance(delta.hash, delta.head.header.time, delta.end_tx());
        Ok(())
    }

    /// The id of a transaction that this bulk has, written or waiting.
    fn files_txid(&self, number: TxNum, above: &Delta) -> Result<bitcoin::Txid, Error> {
        if let Some(at) = number.0.checked_sub(above.head.first_tx) {
            return Ok(above.head.txids[at as usize]);
        }
        let written = self.mark.txs - self.txids.len() as u32;
        let bytes = match number.0.checked_sub(written) {
            Some(at) => self.txids[at as usize],
            None => self.files.txids.read(number.0)?,
        };
        Ok(bitcoin::Txid::from_byte_array(bytes))
    }

    fn append(
        &mut self,
        txids: impl Iterator<Item = [u8; 32]>,
        offsets: impl Iterator<Item = u32>,
        pos: BlockPos,
        end_tx: u32,
    ) -> Result<(), Error> {
        self.txids.extend(txids);
        self.txpos.extend(offsets.map(u32::to_le_bytes));
        self.blockpos.push(BlockRow { pos, end_tx }.encode());
        if self.txids.len() * 32 >= ARRAY_BYTES { self.write_arrays(end_tx) } else { Ok(()) }
    }

    /// Hands the waiting records to their files; durable after a sync.
    fn write_arrays(&mut self, end_tx: u32) -> Result<(), Error> {
        let first = end_tx - self.txids.len() as u32;
        let blocks = self.blocks.of(first) as u32;
        self.files.txids.append(first, &self.txids)?;
        self.files.txpos.append(first, &self.txpos)?;
        self.files.blockpos.append(blocks, &self.blockpos)?;
        self.txids.clear();
        self.txpos.clear();
        self.blockpos.clear();
        Ok(())
    }

    fn advance(&mut self, hash: BlockHash, time: u32, end_tx: u32) {
        self.blocks.push(end_tx);
        self.times.push(time);
        self.mark = BaseMark { blocks: self.mark.blocks + 1, txs: end_tx, hash };
    }

    /// Makes arrays and runs durable. What comes back is for the bulk row, and the runs that are of no use once
    /// that is written.
    pub(crate) fn flush(&mut self) -> Result<(BulkState, Vec<RunInfo>), Error> {
        self.give_back();
        let mut state = BulkState { mark: self.mark, ..self.durable.clone() };
        self.write_arrays(self.mark.txs)?;
        let disk = self.disk.clone();
        let next = &mut state.next_run;
        if !self.history.is_empty() {
            state.runs.push(write_sorted(&*disk, Kind::History, *next, &mut self.history)?);
            *next += 1;
        }
        if !self.txs.is_empty() {
            state.runs.push(write_sorted(&*disk, Kind::Txs, *next, &mut self.txs)?);
            *next += 1;
        }
        self.history.clear();
        self.txs.clear();
        let removed = self.coins.flush(&disk, next)?;
        state.runs.retain(|run| run.kind != Kind::Coins);
        state.runs.extend(self.coins.runs());
        self.files.blockpos.sync()?;
        self.files.txids.sync()?;
        self.files.txpos.sync()?;
        sync_dir(&*disk, DIR)?;
        Ok((state, removed))
    }

    /// The bulk row was written.
    pub(crate) fn flushed(&mut self, state: BulkState) {
        self.durable = state;
    }
}

/// Removes what repeats within a few rows at the end.
fn dedup_from(rows: &mut Vec<HistoryRow>, from: usize) {
    rows[from..].sort_unstable();
    let mut kept = from;
    for at in from..rows.len() {
        if at == from || rows[at] != rows[kept - 1] {
            rows[kept] = rows[at];
            kept += 1;
        }
    }
    rows.truncate(kept);
}

/// Removes the runs that `state` does not name, all of them without a state.
pub(crate) fn remove_leftovers(disk: &dyn Disk, state: Option<&BulkState>) -> Result<(), Error> {
    remove_unnamed(disk, DIR, |name| {
        state.is_some_and(|state| state.runs.iter().any(|run| run.name() == name))
    })
}
