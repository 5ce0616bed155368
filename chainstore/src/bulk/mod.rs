//! Indexing a long chain in bulk: nothing is inserted at random into a large tree.
//!
//! A block's coins are joined and checked as it comes, so what is connected is valid; but its rows go to memory,
//! from there as sorted runs to disk, and when the bulk ends, some blocks below the best header, the parts of the base
//! are written anew from what they were and the runs, each in its order, in one pass. Memory is bounded by a setting.
//! A flush makes everything so far durable: arrays and runs first, then the bulk row that names them. What was not
//! flushed is fetched again after a crash.
//! What a wallet may ask is answered from what was committed before: while a bulk goes on nobody is served.

mod coins;
mod load;
mod rows;
mod run;
mod state;

use std::sync::Arc;

use bitcoin::hashes::Hash;
use bitcoin::{BlockHash, OutPoint};

use self::coins::Coins;
use self::rows::{CoinKey, CoinRow, HistoryRow, MAX_OUTPUTS, NewCoin, TxRow};
use self::run::write_sorted;
use crate::base::BaseMark;
use crate::delta::{Delta, tx_prefix};
use crate::disk::{Disk, remove_unnamed, sync_dir};
use crate::error::Error;
use crate::files::{BlockRow, Files};
use crate::outputs::TxPlace;
use crate::segments::BlockPos;
use crate::store::NewBlock;
use crate::types::{Coin, Height, ScriptClass, Tip, TxNum, has_history, is_unspendable};
use crate::view::View;

pub(crate) use self::coins::Secret;
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
    /// Of each block, the number of transactions up to and including it, and its time.
    tx_ends: Vec<u32>,
    times: Vec<u32>,
    coins: Coins,
    history: Vec<HistoryRow>,
    txs: Vec<TxRow>,
    rows_limit: usize,
    blockpos: Vec<[u8; 16]>,
    txids: Vec<[u8; 32]>,
    txpos: Vec<[u8; 4]>,
    /// As the bulk row has it.
    durable: BulkState,
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
        let coins = Coins::open(&disk, durable.secret, memory_bytes / 10 * 7, &runs, below.base.blocks > 0)?;
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
            tx_ends,
            times,
            coins,
            history: Vec::new(),
            txs: Vec::new(),
            rows_limit,
            blockpos: Vec::new(),
            txids: Vec::new(),
            txpos: Vec::new(),
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
        &self.tx_ends
    }

    /// Its state and its counts of transactions; all else, which takes memory, goes.
    pub(crate) fn end(self) -> (BulkState, Vec<u32>) {
        (self.durable, self.tx_ends)
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
        let height = self.tx_ends.partition_point(|end| *end <= number.0);
        let end_tx = *self.tx_ends.get(height).ok_or_else(|| corrupt("no block has it"))?;
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
        let blocks = self.tx_ends.len();
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
        match self.coins.get(&self.coins.secret().key(outpoint))? {
            Some(row) => Ok((!row.is_gone()).then(|| self.coin_of(&row))),
            None if self.below.base.blocks > 0 => self.below.coin(outpoint),
            None => Ok(None),
        }
    }

    /// The same, of a coin that will be spent.
    pub(crate) fn fetch(&mut self, outpoint: &OutPoint) -> Result<Option<Coin>, Error> {
        let key = self.coins.secret().key(outpoint);
        let row = match self.coins.fetch(&key)? {
            Some(row) => Some(row),
            None => self.fetch_below(key, outpoint)?,
        };
        Ok(row.filter(|row| !row.is_gone()).map(|row| self.coin_of(&row)))
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
        let key = self.coins.secret().key(outpoint);
        if let Some(row) = self.coins.spend(&key)? {
            return Ok(Some(row));
        }
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
        let height = self.tx_ends.partition_point(|end| *end <= row.number) as u32;
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

    /// Takes a block that lies at `pos` and follows the last; its coins were checked. `offsets` are where its
    /// transactions start.
    pub(crate) fn connect(
        &mut self,
        new: &NewBlock<'_>,
        pos: BlockPos,
        offsets: &[u32],
    ) -> Result<(), Error> {
        let height = Height(self.mark.blocks);
        let bad = |what| Error::BadInput { hash: new.hash, what };
        let count = u32::try_from(new.txids.len()).map_err(|_| Error::TxNumOverflow { height })?;
        let first = self.mark.txs;
        let end = first.checked_add(count).ok_or(Error::TxNumOverflow { height })?;
        if new.txids.len() != new.block.txdata.len() || new.txids.is_empty() {
            return Err(bad("not one txid for each transaction"));
        }
        if new.script_keys.len() >= MAX_OUTPUTS as usize {
            return Err(bad("more outputs than a block can have"));
        }
        let secret = self.coins.secret();
        let mut script_keys = new.script_keys.iter();
        for ((tx, txid), number) in new.block.txdata.iter().zip(new.txids).zip(first..) {
            let is_coinbase = number == first;
            let history_from = self.history.len();
            if !is_coinbase {
                for input in &tx.input {
                    let coin = self.spend(&input.previous_output)?;
                    let coin = coin.ok_or_else(|| bad("coin missing or spent twice"))?;
                    self.history.push(HistoryRow::new(&coin.script_key, number));
                }
            }
            for (output, vout) in tx.output.iter().zip(0u32..) {
                let key = script_keys.next().ok_or_else(|| bad("not one script key for each output"))?;
                let script = &output.script_pubkey;
                // The genesis coinbase is not indexed, and its output is no coin.
                if height == Height::GENESIS || !has_history(script) {
                    continue;
                }
                self.history.push(HistoryRow::new(key, number));
                if !is_unspendable(script) {
                    let place = secret.key(&OutPoint::new(*txid, vout));
                    let (class, value) = (ScriptClass::of(script), output.value);
                    let coin = NewCoin { number, vout, value, class, is_coinbase, script_key: *key };
                    self.coins.make(CoinRow::made(place, &coin))?;
                }
            }
            // A transaction's rows are few, and most scripts that repeat at all repeat side by side.
            dedup_from(&mut self.history, history_from);
            if height != Height::GENESIS {
                self.txs.push(TxRow::new(tx_prefix(txid), number));
            }
        }
        self.append(new.txids.iter().map(|txid| txid.to_byte_array()), offsets, pos, end)?;
        self.advance(new.hash, new.block.header.time, end);
        Ok(())
    }

    /// Takes a block that was connected as a delta.
    pub(crate) fn absorb(&mut self, delta: &Delta) -> Result<(), Error> {
        let first = delta.head.first_tx;
        let secret = self.coins.secret();
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
                let place = secret.key(&OutPoint::new(delta.head.txids[made.tx as usize], made.vout));
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
        self.append(txids, &delta.head.offsets, delta.head.pos, delta.end_tx())?;
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
        offsets: &[u32],
        pos: BlockPos,
        end_tx: u32,
    ) -> Result<(), Error> {
        self.txids.extend(txids);
        self.txpos.extend(offsets.iter().map(|offset| offset.to_le_bytes()));
        self.blockpos.push(BlockRow { pos, end_tx }.encode());
        if self.txids.len() * 32 >= ARRAY_BYTES { self.write_arrays(end_tx) } else { Ok(()) }
    }

    /// Hands the waiting records to their files; durable after a sync.
    fn write_arrays(&mut self, end_tx: u32) -> Result<(), Error> {
        let first = end_tx - self.txids.len() as u32;
        let blocks = self.tx_ends.partition_point(|end| *end <= first) as u32;
        self.files.txids.append(first, &self.txids)?;
        self.files.txpos.append(first, &self.txpos)?;
        self.files.blockpos.append(blocks, &self.blockpos)?;
        self.txids.clear();
        self.txpos.clear();
        self.blockpos.clear();
        Ok(())
    }

    fn advance(&mut self, hash: BlockHash, time: u32, end_tx: u32) {
        self.tx_ends.push(end_tx);
        self.times.push(time);
        self.mark = BaseMark { blocks: self.mark.blocks + 1, txs: end_tx, hash };
    }

    /// Makes arrays and runs durable. What comes back is for the bulk row, and the runs that are of no use once
    /// that is written.
    pub(crate) fn flush(&mut self) -> Result<(BulkState, Vec<RunInfo>), Error> {
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
