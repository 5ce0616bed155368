//! The index of the blocks below the deltas: `base/00.000001.redb`.
//!
//! It says itself, in the transaction that writes its rows, up to which block they go. The writer changes it in a
//! merge (deltas are applied) or in a deep undo (rebuilt deltas are unapplied); readers hold a read transaction.
//! Keys of transactions and coins start with some bytes of a txid; whether it is the right txid is the caller's
//! to check.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::Receiver;

use bitcoin::hashes::Hash;
use bitcoin::{Amount, BlockHash};
use redb::{Database, ReadOnlyTable, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction};

use crate::codec::{DecodeError, Reader};
use crate::delta::{CoinValue, Delta, ScriptRows, TxPrefix};
use crate::delta_row::{class_code, class_of_code};
use crate::error::Error;
use crate::group::Group;
use crate::types::{ScriptKey, TxNum};

pub(crate) const FILE: &str = "base/00.000001.redb";

type CoinKey = [u8; 16];
type CoinRow = [u8; 25];
type TxKey = [u8; 12];

/// Bytes of rows that one transaction of a load puts: more would cost memory.
const LOAD_COMMIT_BYTES: usize = 1 << 30;

/// Script key -> group.
const SCRIPTS: TableDefinition<'_, &[u8; 16], &[u8]> = TableDefinition::new("scripts");
/// Txid prefix 8 ‖ vout 4 BE ‖ tx number 4 BE -> value 8 LE ‖ class 1 ‖ script key 16.
const COINS: TableDefinition<'_, &CoinKey, &CoinRow> = TableDefinition::new("coins");
/// Txid prefix 8 ‖ tx number 4 BE -> nothing.
const TXS: TableDefinition<'_, &TxKey, ()> = TableDefinition::new("txs");
/// "base" -> [`BaseMark`].
const MARK: TableDefinition<'_, &str, &[u8; 40]> = TableDefinition::new("mark");

/// How far the base goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BaseMark {
    /// Blocks in it: its height plus one.
    pub(crate) blocks: u32,
    /// Transactions in it: the number of the next.
    pub(crate) txs: u32,
    /// Hash of its last block, zeros when it has none.
    pub(crate) hash: BlockHash,
}

impl BaseMark {
    pub(crate) fn empty() -> Self {
        Self { blocks: 0, txs: 0, hash: BlockHash::all_zeros() }
    }

    pub(crate) fn encode(&self) -> [u8; 40] {
        let mut row = [0; 40];
        row[..4].copy_from_slice(&self.blocks.to_le_bytes());
        row[4..8].copy_from_slice(&self.txs.to_le_bytes());
        row[8..].copy_from_slice(self.hash.as_ref());
        row
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let (blocks, txs) = (reader.u32()?, reader.u32()?);
        Ok(Self { blocks, txs, hash: BlockHash::from_byte_array(reader.array()?) })
    }
}

/// The questions put to the base, answered by a read transaction or by the writer's open one.
pub(crate) trait BaseRead {
    fn group(&self, key: &ScriptKey) -> Result<Group, Error>;
    /// Coins under a txid prefix, of one output index or of all, by index, then transaction number.
    fn coins(&self, prefix: TxPrefix, vout: Option<u32>) -> Result<Vec<(u32, TxNum, CoinValue)>, Error>;
    /// Transactions under a txid prefix, ascending.
    fn numbers(&self, prefix: TxPrefix) -> Result<Vec<TxNum>, Error>;
}

/// The file.
#[derive(Debug)]
pub(crate) struct Base {
    db: Database,
    /// Bytes of a txid that keys keep; the rest of the eight is zero.
    prefix_len: u8,
}

fn error(source: impl Into<redb::Error>) -> Error {
    Error::index(FILE, source)
}

fn corrupt(what: impl Into<String>) -> Error {
    Error::corrupt(FILE, what)
}

/// Puts the tables into a new file.
pub(crate) fn create(db: &Database) -> Result<(), Error> {
    let txn = begin(db)?;
    txn.open_table(SCRIPTS).map_err(error)?;
    txn.open_table(COINS).map_err(error)?;
    txn.open_table(TXS).map_err(error)?;
    set_mark(&txn, &BaseMark::empty())?;
    txn.commit().map_err(error)
}

fn begin(db: &Database) -> Result<WriteTransaction, Error> {
    let mut txn = db.begin_write().map_err(error)?;
    txn.set_quick_repair(true);
    Ok(txn)
}

fn set_mark(txn: &WriteTransaction, mark: &BaseMark) -> Result<(), Error> {
    txn.open_table(MARK).map_err(error)?.insert("base", &mark.encode()).map_err(error)?;
    Ok(())
}

/// Rows of one table, in its order.
#[derive(Debug)]
pub(crate) enum Chunk {
    Coins(Vec<(CoinKey, CoinRow)>),
    Txs(Vec<TxKey>),
    /// Groups one behind the other, and where each ends.
    Scripts {
        keys: Vec<[u8; 16]>,
        rows: Vec<u8>,
        ends: Vec<usize>,
    },
}

/// Fills the tables of a new file in their order, and marks how far they go.
pub(crate) fn load(db: &Database, chunks: Receiver<Chunk>, mark: &BaseMark) -> Result<(), Error> {
    let mut chunks = chunks.into_iter().peekable();
    while chunks.peek().is_some() {
        let txn = begin(db)?;
        let mut bytes = 0;
        while bytes < LOAD_COMMIT_BYTES
            && let Some(chunk) = chunks.next()
        {
            bytes += put_chunk(&txn, chunk)?;
        }
        txn.commit().map_err(error)?;
    }
    let txn = begin(db)?;
    set_mark(&txn, mark)?;
    txn.commit().map_err(error)
}

/// How many bytes it put.
fn put_chunk(txn: &WriteTransaction, chunk: Chunk) -> Result<usize, Error> {
    match chunk {
        Chunk::Coins(rows) => {
            let mut table = txn.open_table(COINS).map_err(error)?;
            for (key, row) in &rows {
                table.insert(key, row).map_err(error)?;
            }
            Ok(rows.len() * size_of::<(CoinKey, CoinRow)>())
        }
        Chunk::Txs(keys) => {
            let mut table = txn.open_table(TXS).map_err(error)?;
            for key in &keys {
                table.insert(key, ()).map_err(error)?;
            }
            Ok(keys.len() * size_of::<TxKey>())
        }
        Chunk::Scripts { keys, rows, ends } => {
            let mut table = txn.open_table(SCRIPTS).map_err(error)?;
            let mut start = 0;
            for (key, end) in keys.iter().zip(ends) {
                table.insert(key, &rows[start..end]).map_err(error)?;
                start = end;
            }
            Ok(rows.len() + keys.len() * 16)
        }
    }
}

impl Base {
    pub(crate) fn new(db: Database, prefix_len: u8) -> Self {
        Self { db, prefix_len }
    }

    /// Opens the committed rows for reading.
    pub(crate) fn reader(&self) -> Result<Arc<BaseReader>, Error> {
        let txn = self.db.begin_read().map_err(error)?;
        Ok(Arc::new(BaseReader {
            scripts: txn.open_table(SCRIPTS).map_err(error)?,
            coins: txn.open_table(COINS).map_err(error)?,
            txs: txn.open_table(TXS).map_err(error)?,
            mark: txn.open_table(MARK).map_err(error)?,
            prefix_len: self.prefix_len,
        }))
    }

    /// Begins a change; until it is committed or dropped no other may begin.
    pub(crate) fn change(&self) -> Result<BaseChange, Error> {
        Ok(BaseChange { txn: begin(&self.db)?, prefix_len: self.prefix_len })
    }
}

/// Committed rows at one moment.
pub(crate) struct BaseReader {
    scripts: ReadOnlyTable<&'static [u8; 16], &'static [u8]>,
    coins: ReadOnlyTable<&'static CoinKey, &'static CoinRow>,
    txs: ReadOnlyTable<&'static TxKey, ()>,
    mark: ReadOnlyTable<&'static str, &'static [u8; 40]>,
    prefix_len: u8,
}

impl std::fmt::Debug for BaseReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BaseReader").finish_non_exhaustive()
    }
}

impl BaseReader {
    pub(crate) fn mark(&self) -> Result<BaseMark, Error> {
        let row = self.mark.get("base").map_err(error)?.ok_or_else(|| corrupt("no mark"))?;
        BaseMark::read(&mut Reader::new(row.value())).map_err(|fault| corrupt(fault.to_string()))
    }

    /// All rows in order, for tests that compare two stores.
    #[cfg(any(test, feature = "sim"))]
    pub(crate) fn dump(&self, out: &mut Vec<String>) -> Result<(), Error> {
        out.push(format!("base {:?}", self.mark()?));
        for row in self.scripts.iter().map_err(error)? {
            let (key, group) = row.map_err(error)?;
            out.push(format!("script {:02x?} {:?}", key.value(), decode_group(group.value())?));
        }
        for row in self.coins.iter().map_err(error)? {
            let (key, coin) = row.map_err(error)?;
            out.push(format!("coin {:02x?} {:02x?}", key.value(), coin.value()));
        }
        for row in self.txs.iter().map_err(error)? {
            out.push(format!("tx {:02x?}", row.map_err(error)?.0.value()));
        }
        Ok(())
    }
}

impl BaseRead for BaseReader {
    fn group(&self, key: &ScriptKey) -> Result<Group, Error> {
        read_group(&self.scripts, key)
    }

    fn coins(&self, prefix: TxPrefix, vout: Option<u32>) -> Result<Vec<(u32, TxNum, CoinValue)>, Error> {
        read_coins(&self.coins, cut(prefix, self.prefix_len), vout)
    }

    fn numbers(&self, prefix: TxPrefix) -> Result<Vec<TxNum>, Error> {
        read_numbers(&self.txs, cut(prefix, self.prefix_len))
    }
}

/// An open change of the base; dropped without commit it never was.
pub(crate) struct BaseChange {
    txn: WriteTransaction,
    prefix_len: u8,
}

impl std::fmt::Debug for BaseChange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BaseChange").finish_non_exhaustive()
    }
}

impl BaseRead for BaseChange {
    fn group(&self, key: &ScriptKey) -> Result<Group, Error> {
        read_group(&self.txn.open_table(SCRIPTS).map_err(error)?, key)
    }

    fn coins(&self, prefix: TxPrefix, vout: Option<u32>) -> Result<Vec<(u32, TxNum, CoinValue)>, Error> {
        read_coins(&self.txn.open_table(COINS).map_err(error)?, cut(prefix, self.prefix_len), vout)
    }

    fn numbers(&self, prefix: TxPrefix) -> Result<Vec<TxNum>, Error> {
        read_numbers(&self.txn.open_table(TXS).map_err(error)?, cut(prefix, self.prefix_len))
    }
}

impl BaseChange {
    /// Applies the next blocks, oldest first. Each row is written once, whatever the number of blocks.
    pub(crate) fn apply(&self, deltas: &[Arc<Delta>]) -> Result<(), Error> {
        let mut scripts: BTreeMap<ScriptKey, Vec<(ScriptRows<'_>, u32)>> = BTreeMap::new();
        let mut coins: BTreeMap<CoinKey, Option<CoinRow>> = BTreeMap::new();
        let mut txs: Vec<TxKey> = Vec::new();
        for delta in deltas {
            let first_tx = delta.head.first_tx;
            for rows in delta.scripts() {
                scripts.entry(rows.key).or_default().push((rows, first_tx));
                for (key, _) in self.spent_rows(&rows) {
                    // Made by one of these blocks and spent by a later one: it never reaches the table.
                    if coins.remove(&key).is_none() {
                        coins.insert(key, None);
                    }
                }
                coins.extend(self.made_rows(delta, &rows).map(|(key, row)| (key, Some(row))));
            }
            txs.extend(self.tx_keys(delta));
        }
        txs.sort_unstable();
        let mut table = self.txn.open_table(SCRIPTS).map_err(error)?;
        for (key, changes) in scripts {
            let mut group = read_group(&table, &key)?;
            for (rows, first_tx) in changes {
                group.apply(&rows, first_tx).map_err(|what| corrupt(format!("{key:02x?}: {what}")))?;
            }
            write_group(&mut table, &key, &group)?;
        }
        let mut table = self.txn.open_table(COINS).map_err(error)?;
        for (key, row) in coins {
            write_coin(&mut table, &key, row.as_ref())?;
        }
        let mut table = self.txn.open_table(TXS).map_err(error)?;
        for key in txs {
            table.insert(&key, ()).map_err(error)?;
        }
        Ok(())
    }

    /// Undoes the newest block.
    pub(crate) fn unapply(&self, delta: &Delta) -> Result<(), Error> {
        let mut groups = self.txn.open_table(SCRIPTS).map_err(error)?;
        let mut coins = self.txn.open_table(COINS).map_err(error)?;
        for rows in delta.scripts() {
            let mut group = read_group(&groups, &rows.key)?;
            let undone = group.unapply(&rows, delta.head.first_tx);
            undone.map_err(|what| corrupt(format!("{:02x?}: {what}", rows.key)))?;
            write_group(&mut groups, &rows.key, &group)?;
            for (key, _) in self.made_rows(delta, &rows) {
                write_coin(&mut coins, &key, None)?;
            }
            for (key, row) in self.spent_rows(&rows) {
                write_coin(&mut coins, &key, Some(&row))?;
            }
        }
        let mut txs = self.txn.open_table(TXS).map_err(error)?;
        for key in self.tx_keys(delta) {
            txs.remove(&key).map_err(error)?;
        }
        Ok(())
    }

    /// Makes the change durable, with how far the base goes now.
    pub(crate) fn commit(self, mark: &BaseMark) -> Result<(), Error> {
        set_mark(&self.txn, mark)?;
        self.txn.commit().map_err(error)
    }

    fn tx_keys(&self, delta: &Delta) -> impl Iterator<Item = TxKey> {
        let first = delta.head.first_tx;
        let len = self.prefix_len;
        // The genesis coinbase, number 0, is not found by its id.
        let numbered = delta.head.txids.iter().zip(first..).filter(|(_, number)| *number > 0);
        numbered.map(move |(txid, number)| tx_key(cut(crate::delta::tx_prefix(txid), len), number))
    }

    fn made_rows<'a>(
        &self,
        delta: &'a Delta,
        rows: &ScriptRows<'a>,
    ) -> impl Iterator<Item = (CoinKey, CoinRow)> + 'a {
        let (len, script_key) = (self.prefix_len, rows.key);
        rows.made.iter().map(move |made| {
            let prefix = crate::delta::tx_prefix(&delta.head.txids[made.tx as usize]);
            let tx_num = TxNum(delta.head.first_tx + made.tx);
            let value = CoinValue { value: made.value, class: made.class, script_key };
            (coin_key(cut(prefix, len), made.vout, tx_num), coin_row(&value))
        })
    }

    fn spent_rows<'a>(&self, rows: &ScriptRows<'a>) -> impl Iterator<Item = (CoinKey, CoinRow)> + 'a {
        let (len, script_key) = (self.prefix_len, rows.key);
        rows.spent.iter().map(move |spent| {
            let value = CoinValue { value: spent.value, class: spent.class, script_key };
            (coin_key(cut(spent.prefix, len), spent.vout, spent.tx_num), coin_row(&value))
        })
    }
}

pub(crate) fn cut(mut prefix: TxPrefix, len: u8) -> TxPrefix {
    prefix[usize::from(len).min(8)..].fill(0);
    prefix
}

pub(crate) fn tx_key(prefix: TxPrefix, number: u32) -> TxKey {
    let mut key = [0; 12];
    key[..8].copy_from_slice(&prefix);
    key[8..].copy_from_slice(&number.to_be_bytes());
    key
}

pub(crate) fn coin_key(prefix: TxPrefix, vout: u32, tx_num: TxNum) -> CoinKey {
    let mut key = [0; 16];
    key[..8].copy_from_slice(&prefix);
    key[8..12].copy_from_slice(&vout.to_be_bytes());
    key[12..].copy_from_slice(&tx_num.0.to_be_bytes());
    key
}

pub(crate) fn coin_row(coin: &CoinValue) -> CoinRow {
    let mut row = [0; 25];
    row[..8].copy_from_slice(&coin.value.to_sat().to_le_bytes());
    row[8] = class_code(coin.class);
    row[9..].copy_from_slice(&coin.script_key.0);
    row
}

fn decode_coin(row: &CoinRow) -> Result<CoinValue, Error> {
    let mut reader = Reader::new(row);
    let fault = |fault: DecodeError| corrupt(fault.to_string());
    let value = Amount::from_sat(u64::from_le_bytes(reader.array().map_err(fault)?));
    let class = class_of_code(reader.u8().map_err(fault)?).ok_or_else(|| corrupt("unknown script class"))?;
    Ok(CoinValue { value, class, script_key: ScriptKey(reader.array().map_err(fault)?) })
}

fn decode_group(row: &[u8]) -> Result<Group, Error> {
    Group::decode(row).map_err(|fault| corrupt(format!("group: {fault}")))
}

fn read_group(
    table: &impl ReadableTable<&'static [u8; 16], &'static [u8]>,
    key: &ScriptKey,
) -> Result<Group, Error> {
    match table.get(&key.0).map_err(error)? {
        Some(row) => decode_group(row.value()),
        None => Ok(Group::default()),
    }
}

fn write_group(
    table: &mut redb::Table<'_, &'static [u8; 16], &'static [u8]>,
    key: &ScriptKey,
    group: &Group,
) -> Result<(), Error> {
    if group.is_empty() {
        table.remove(&key.0).map_err(error)?;
    } else {
        table.insert(&key.0, group.encode().as_slice()).map_err(error)?;
    }
    Ok(())
}

/// Inserts a coin that must not be there, or removes one that must.
fn write_coin(
    table: &mut redb::Table<'_, &'static CoinKey, &'static CoinRow>,
    key: &CoinKey,
    row: Option<&CoinRow>,
) -> Result<(), Error> {
    let was_there = match row {
        Some(row) => table.insert(key, row).map_err(error)?.is_some(),
        None => table.remove(key).map_err(error)?.is_some(),
    };
    if was_there == row.is_some() {
        let what = if was_there { "is there already" } else { "is missing" };
        return Err(corrupt(format!("coin {key:02x?} {what}")));
    }
    Ok(())
}

fn read_coins(
    table: &impl ReadableTable<&'static CoinKey, &'static CoinRow>,
    prefix: TxPrefix,
    vout: Option<u32>,
) -> Result<Vec<(u32, TxNum, CoinValue)>, Error> {
    let from = coin_key(prefix, vout.unwrap_or(0), TxNum(0));
    let to = coin_key(prefix, vout.unwrap_or(u32::MAX), TxNum(u32::MAX));
    let mut coins = Vec::new();
    for row in table.range::<&CoinKey>(&from..=&to).map_err(error)? {
        let (key, coin) = row.map_err(error)?;
        let mut place = Reader::new(&key.value()[8..]);
        let mut number = || place.array().map(u32::from_be_bytes).map_err(|fault| corrupt(fault.to_string()));
        coins.push((number()?, TxNum(number()?), decode_coin(coin.value())?));
    }
    Ok(coins)
}

fn read_numbers(
    table: &impl ReadableTable<&'static TxKey, ()>,
    prefix: TxPrefix,
) -> Result<Vec<TxNum>, Error> {
    let (from, to) = (tx_key(prefix, 0), tx_key(prefix, u32::MAX));
    let mut numbers = Vec::new();
    for row in table.range::<&TxKey>(&from..=&to).map_err(error)? {
        let (key, ()) = row.map(|(key, _)| (key, ())).map_err(error)?;
        let number = Reader::new(&key.value()[8..]).array().map_err(|fault| corrupt(fault.to_string()))?;
        numbers.push(TxNum(u32::from_be_bytes(number)));
    }
    Ok(numbers)
}
