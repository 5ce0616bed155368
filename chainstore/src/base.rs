//! The index of the blocks below the deltas: `base/00.000001.redb`.
//!
//! It says itself, in the transaction that writes its rows, up to which block they go. The writer changes it in a
//! merge (deltas are applied) or in a deep undo (rebuilt deltas are unapplied); readers hold a read transaction.
//! Keys of transactions and coins start with some bytes of a txid; whether it is the right txid is the caller's
//! to check.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::Receiver;

use bitcoin::BlockHash;
use bitcoin::hashes::Hash;
use redb::{Database, ReadOnlyTable, ReadableDatabase, TableDefinition, WriteTransaction};

use crate::base_rows::{
    CoinKey, CoinRow, Editor, Table32, TxKey, coin_key, coin_row, corrupt, cut, error, fault, read_coins,
    read_group, read_numbers, tx_key,
};
use crate::bucket::{MAX_BITS, MIN_BITS, Rows, Shape, bits_for};
use crate::codec::{DecodeError, Reader};
use crate::delta::{CoinValue, Delta, ScriptRows, TxPrefix};
use crate::error::Error;
use crate::group::Group;
use crate::types::{ScriptKey, TxNum};

/// Bytes of rows that one transaction of a load puts: more would cost memory.
const LOAD_COMMIT_BYTES: usize = 1 << 30;

type Buckets = TableDefinition<'static, u32, &'static [u8]>;
type ReadBuckets = ReadOnlyTable<u32, &'static [u8]>;

/// Script key -> group.
const SCRIPTS: Buckets = TableDefinition::new("scripts");
/// Txid prefix 8 ‖ vout 4 BE ‖ tx number 4 BE -> value 8 LE ‖ class 1 ‖ script key 16.
const COINS: Buckets = TableDefinition::new("coins");
/// Txid prefix 8 ‖ tx number 4 BE -> nothing.
const TXS: Buckets = TableDefinition::new("txs");
/// "base" -> [`BaseMark`].
const MARK: TableDefinition<'_, &str, &[u8; 40]> = TableDefinition::new("mark");
/// "bits" -> those of scripts, coins, txs.
const BITS: TableDefinition<'_, &str, &[u8; 3]> = TableDefinition::new("bits");

/// How the keys of the three tables make buckets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shapes {
    pub(crate) scripts: Shape<16>,
    pub(crate) coins: Shape<16>,
    pub(crate) txs: Shape<12>,
}

impl Shapes {
    /// For tables of so many entries.
    pub(crate) fn for_entries(scripts: u64, coins: u64, txs: u64) -> Self {
        Self::new([scripts, coins, txs].map(bits_for))
    }

    fn new([scripts, coins, txs]: [u8; 3]) -> Self {
        Self {
            scripts: Shape { bits: scripts, content_bytes: None },
            coins: Shape { bits: coins, content_bytes: Some(size_of::<CoinRow>()) },
            txs: Shape { bits: txs, content_bytes: Some(0) },
        }
    }

    fn bits(&self) -> [u8; 3] {
        [self.scripts.bits, self.coins.bits, self.txs.bits]
    }
}

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
    shapes: Shapes,
    /// Bytes of a txid that keys keep; the rest of the eight is zero.
    prefix_len: u8,
}

/// Puts the tables into a new file, for so many rows as `shapes` is made for.
pub(crate) fn create(db: &Database, shapes: &Shapes) -> Result<(), Error> {
    let txn = begin(db)?;
    for table in [SCRIPTS, COINS, TXS] {
        txn.open_table(table).map_err(error)?;
    }
    txn.open_table(BITS).map_err(error)?.insert("bits", &shapes.bits()).map_err(error)?;
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

/// A table of the base.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Table {
    Scripts,
    Coins,
    Txs,
}

/// Fills the tables of a new file with rows in their order, and marks how far they go.
pub(crate) fn load(db: &Database, chunks: Receiver<(Table, Rows)>, mark: &BaseMark) -> Result<(), Error> {
    let mut chunks = chunks.into_iter().peekable();
    while chunks.peek().is_some() {
        let txn = begin(db)?;
        let mut bytes = 0;
        while bytes < LOAD_COMMIT_BYTES
            && let Some((table, rows)) = chunks.next()
        {
            let table = match table {
                Table::Scripts => SCRIPTS,
                Table::Coins => COINS,
                Table::Txs => TXS,
            };
            let mut table = txn.open_table(table).map_err(error)?;
            let mut start = 0;
            for (bucket, end) in rows.ends {
                table.insert(bucket, &rows.bytes[start..end]).map_err(error)?;
                start = end;
            }
            bytes += start;
        }
        txn.commit().map_err(error)?;
    }
    let txn = begin(db)?;
    set_mark(&txn, mark)?;
    txn.commit().map_err(error)
}

impl Base {
    pub(crate) fn open(db: Database, prefix_len: u8) -> Result<Self, Error> {
        let table = db.begin_read().map_err(error)?.open_table(BITS).map_err(error)?;
        let bits = table.get("bits").map_err(error)?.map(|row| *row.value());
        let bits = bits.filter(|bits| bits.iter().all(|bits| (MIN_BITS..=MAX_BITS).contains(bits)));
        let shapes = Shapes::new(bits.ok_or_else(|| corrupt("no numbers of bits"))?);
        Ok(Self { db, shapes, prefix_len })
    }

    /// Opens the committed rows for reading.
    pub(crate) fn reader(&self) -> Result<Arc<BaseReader>, Error> {
        let txn = self.db.begin_read().map_err(error)?;
        Ok(Arc::new(BaseReader {
            scripts: txn.open_table(SCRIPTS).map_err(error)?,
            coins: txn.open_table(COINS).map_err(error)?,
            txs: txn.open_table(TXS).map_err(error)?,
            mark: txn.open_table(MARK).map_err(error)?,
            shapes: self.shapes,
            prefix_len: self.prefix_len,
        }))
    }

    /// Begins a change; until it is committed or dropped no other may begin.
    pub(crate) fn change(&self) -> Result<BaseChange, Error> {
        Ok(BaseChange { txn: begin(&self.db)?, shapes: self.shapes, prefix_len: self.prefix_len })
    }
}

/// Who is shown the entries of a table: key and content of each.
pub(crate) type EachRow<'a> = dyn FnMut(&[u8], &[u8]) -> Result<(), Error> + 'a;

/// Committed rows at one moment.
pub(crate) struct BaseReader {
    scripts: ReadBuckets,
    coins: ReadBuckets,
    txs: ReadBuckets,
    mark: ReadOnlyTable<&'static str, &'static [u8; 40]>,
    shapes: Shapes,
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
        BaseMark::read(&mut Reader::new(row.value())).map_err(fault)
    }

    /// Each entry of a table in order: its key and its content.
    pub(crate) fn walk(&self, table: Table, each: &mut EachRow<'_>) -> Result<(), Error> {
        match table {
            Table::Scripts => dump(&self.scripts, self.shapes.scripts, |key, content| each(&key, content)),
            Table::Coins => dump(&self.coins, self.shapes.coins, |key, content| each(&key, content)),
            Table::Txs => dump(&self.txs, self.shapes.txs, |key, content| each(&key, content)),
        }
    }

    /// All entries in order, for tests that compare two stores.
    #[cfg(any(test, feature = "sim"))]
    pub(crate) fn dump(&self, out: &mut Vec<String>) -> Result<(), Error> {
        out.push(format!("base {:?}", self.mark()?));
        dump(&self.scripts, self.shapes.scripts, |key, content| {
            out.push(format!("script {key:02x?} {:?}", crate::base_rows::decode_group(content)?));
            Ok(())
        })?;
        dump(&self.coins, self.shapes.coins, |key, content| {
            out.push(format!("coin {key:02x?} {content:02x?}"));
            Ok(())
        })?;
        dump(&self.txs, self.shapes.txs, |key, _| {
            out.push(format!("tx {key:02x?}"));
            Ok(())
        })
    }
}

fn dump<const N: usize>(
    table: &ReadBuckets,
    shape: Shape<N>,
    mut each: impl FnMut([u8; N], &[u8]) -> Result<(), Error>,
) -> Result<(), Error> {
    for row in redb::ReadableTable::iter(table).map_err(error)? {
        let (bucket, row) = row.map_err(error)?;
        let mut entries = shape.entries(bucket.value(), row.value());
        while let Some((key, content)) = entries.next().map_err(fault)? {
            each(key, content)?;
        }
    }
    Ok(())
}

impl BaseRead for BaseReader {
    fn group(&self, key: &ScriptKey) -> Result<Group, Error> {
        read_group(&self.scripts, self.shapes.scripts, key)
    }

    fn coins(&self, prefix: TxPrefix, vout: Option<u32>) -> Result<Vec<(u32, TxNum, CoinValue)>, Error> {
        read_coins(&self.coins, self.shapes.coins, cut(prefix, self.prefix_len), vout)
    }

    fn numbers(&self, prefix: TxPrefix) -> Result<Vec<TxNum>, Error> {
        read_numbers(&self.txs, self.shapes.txs, cut(prefix, self.prefix_len))
    }
}

/// An open change of the base; dropped without commit it never was.
pub(crate) struct BaseChange {
    txn: WriteTransaction,
    shapes: Shapes,
    prefix_len: u8,
}

impl std::fmt::Debug for BaseChange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BaseChange").finish_non_exhaustive()
    }
}

impl BaseRead for BaseChange {
    fn group(&self, key: &ScriptKey) -> Result<Group, Error> {
        read_group(&self.table(SCRIPTS)?, self.shapes.scripts, key)
    }

    fn coins(&self, prefix: TxPrefix, vout: Option<u32>) -> Result<Vec<(u32, TxNum, CoinValue)>, Error> {
        read_coins(&self.table(COINS)?, self.shapes.coins, cut(prefix, self.prefix_len), vout)
    }

    fn numbers(&self, prefix: TxPrefix) -> Result<Vec<TxNum>, Error> {
        read_numbers(&self.table(TXS)?, self.shapes.txs, cut(prefix, self.prefix_len))
    }
}

impl BaseChange {
    fn table(&self, table: Buckets) -> Result<Table32<'_>, Error> {
        self.txn.open_table(table).map_err(error)
    }

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
        let mut table = Editor::new(self.table(SCRIPTS)?, self.shapes.scripts);
        for (key, changes) in scripts {
            table.change_group(&key, |group| {
                changes.iter().try_for_each(|(rows, first_tx)| group.apply(rows, *first_tx))
            })?;
        }
        table.finish()?;
        self.write_coins(coins)?;
        let mut table = Editor::new(self.table(TXS)?, self.shapes.txs);
        for key in txs {
            table.set(key, Some(Vec::new()))?;
        }
        table.finish()
    }

    /// Undoes the newest block.
    pub(crate) fn unapply(&self, delta: &Delta) -> Result<(), Error> {
        let mut coins: BTreeMap<CoinKey, Option<CoinRow>> = BTreeMap::new();
        let mut table = Editor::new(self.table(SCRIPTS)?, self.shapes.scripts);
        for rows in delta.scripts() {
            table.change_group(&rows.key, |group| group.unapply(&rows, delta.head.first_tx))?;
            coins.extend(self.made_rows(delta, &rows).map(|(key, _)| (key, None)));
            coins.extend(self.spent_rows(&rows).map(|(key, row)| (key, Some(row))));
        }
        table.finish()?;
        self.write_coins(coins)?;
        let mut keys: Vec<TxKey> = self.tx_keys(delta).collect();
        keys.sort_unstable();
        let mut table = Editor::new(self.table(TXS)?, self.shapes.txs);
        for key in keys {
            table.set(key, None)?;
        }
        table.finish()
    }

    /// Puts coins that must not be there, and removes those that must.
    fn write_coins(&self, coins: BTreeMap<CoinKey, Option<CoinRow>>) -> Result<(), Error> {
        let mut table = Editor::new(self.table(COINS)?, self.shapes.coins);
        for (key, row) in coins {
            let was_there = table.set(key, row.map(|row| row.to_vec()))?;
            if was_there == row.is_some() {
                let what = if was_there { "is there already" } else { "is missing" };
                return Err(corrupt(format!("coin {key:02x?} {what}")));
            }
        }
        table.finish()
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
