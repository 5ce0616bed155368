//! Keys and rows of the base's tables: how they are read, and how entries are changed.
//!
//! Whether a txid that begins as a key does is the right one is the caller's to check.

use bitcoin::Amount;
use redb::ReadableTable;

use crate::bucket::{Open, Shape};
use crate::codec::{DecodeError, Reader};
use crate::delta::{CoinValue, TxPrefix};
use crate::delta_row::{class_code, class_of_code};
use crate::error::Error;
use crate::group::Group;
use crate::types::{ScriptKey, TxNum};

pub(crate) const FILE: &str = "base/00.000001.redb";

pub(crate) type CoinKey = [u8; 16];
pub(crate) type CoinRow = [u8; 25];
pub(crate) type TxKey = [u8; 12];

pub(crate) fn error(source: impl Into<redb::Error>) -> Error {
    Error::index(FILE, source)
}

pub(crate) fn corrupt(what: impl Into<String>) -> Error {
    Error::corrupt(FILE, what)
}

pub(crate) fn fault(fault: DecodeError) -> Error {
    corrupt(fault.to_string())
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

pub(crate) fn decode_coin(row: &[u8]) -> Result<CoinValue, Error> {
    let mut reader = Reader::new(row);
    let value = Amount::from_sat(u64::from_le_bytes(reader.array().map_err(fault)?));
    let class = class_of_code(reader.u8().map_err(fault)?).ok_or_else(|| corrupt("unknown script class"))?;
    Ok(CoinValue { value, class, script_key: ScriptKey(reader.array().map_err(fault)?) })
}

pub(crate) fn decode_group(row: &[u8]) -> Result<Group, Error> {
    Group::decode(row).map_err(|fault| corrupt(format!("group: {fault}")))
}

pub(crate) type Table32<'t> = redb::Table<'t, u32, &'static [u8]>;

/// Changes entries in any order; a bucket is read and written once as long as its keys come together.
pub(crate) struct Editor<'t, const N: usize> {
    table: Table32<'t>,
    shape: Shape<N>,
    open: Option<Open<N>>,
}

impl<'t, const N: usize> Editor<'t, N> {
    pub(crate) fn new(table: Table32<'t>, shape: Shape<N>) -> Self {
        Self { table, shape, open: None }
    }

    fn open(&mut self, key: &[u8; N]) -> Result<&mut Open<N>, Error> {
        let number = self.shape.bucket(key);
        if self.open.as_ref().is_none_or(|open| open.number != number) {
            self.write()?;
            let row = self.table.get(number).map_err(error)?;
            let row = row.as_ref().map_or(&[][..], |row| row.value());
            self.open = Some(Open::decode(self.shape, number, row).map_err(fault)?);
        }
        self.open.as_mut().ok_or_else(|| corrupt("a bucket that is not open"))
    }

    /// Whether the key was there.
    pub(crate) fn set(&mut self, key: [u8; N], content: Option<Vec<u8>>) -> Result<bool, Error> {
        Ok(self.open(&key)?.set(key, content))
    }

    fn write(&mut self) -> Result<(), Error> {
        let Some(open) = self.open.take() else { return Ok(()) };
        let row = open.encode();
        if row.is_empty() {
            self.table.remove(open.number).map_err(error)?;
        } else {
            self.table.insert(open.number, row.as_slice()).map_err(error)?;
        }
        Ok(())
    }

    pub(crate) fn finish(mut self) -> Result<(), Error> {
        self.write()
    }
}

impl Editor<'_, 16> {
    /// Changes the group of a script. An empty one is no entry.
    pub(crate) fn change_group(
        &mut self,
        key: &ScriptKey,
        change: impl FnOnce(&mut Group) -> Result<(), &'static str>,
    ) -> Result<(), Error> {
        let open = self.open(&key.0)?;
        let mut group = open.get(&key.0).map_or_else(|| Ok(Group::default()), decode_group)?;
        change(&mut group).map_err(|what| corrupt(format!("{key:02x?}: {what}")))?;
        open.set(key.0, (!group.is_empty()).then(|| group.encode()));
        Ok(())
    }
}

pub(crate) fn read_group(
    table: &impl ReadableTable<u32, &'static [u8]>,
    shape: Shape<16>,
    key: &ScriptKey,
) -> Result<Group, Error> {
    let row = table.get(shape.bucket(&key.0)).map_err(error)?;
    let Some(row) = row else { return Ok(Group::default()) };
    let content = shape.find(row.value(), &key.0).map_err(fault)?;
    content.map_or_else(|| Ok(Group::default()), decode_group)
}

pub(crate) fn read_coins(
    table: &impl ReadableTable<u32, &'static [u8]>,
    shape: Shape<16>,
    prefix: TxPrefix,
    vout: Option<u32>,
) -> Result<Vec<(u32, TxNum, CoinValue)>, Error> {
    let from = coin_key(prefix, vout.unwrap_or(0), TxNum(0));
    let to = coin_key(prefix, vout.unwrap_or(u32::MAX), TxNum(u32::MAX));
    let mut coins = Vec::new();
    let row = table.get(shape.bucket(&from)).map_err(error)?;
    let Some(row) = row else { return Ok(coins) };
    let mut entries = shape.entries_from(row.value(), &from).map_err(fault)?;
    while let Some((key, content)) = entries.next().map_err(fault)?
        && key <= to
    {
        let mut place = Reader::new(&key[8..]);
        let mut number = || place.array().map(u32::from_be_bytes).map_err(fault);
        coins.push((number()?, TxNum(number()?), decode_coin(content)?));
    }
    Ok(coins)
}

pub(crate) fn read_numbers(
    table: &impl ReadableTable<u32, &'static [u8]>,
    shape: Shape<12>,
    prefix: TxPrefix,
) -> Result<Vec<TxNum>, Error> {
    let (from, to) = (tx_key(prefix, 0), tx_key(prefix, u32::MAX));
    let mut numbers = Vec::new();
    let row = table.get(shape.bucket(&from)).map_err(error)?;
    let Some(row) = row else { return Ok(numbers) };
    let mut entries = shape.entries_from(row.value(), &from).map_err(fault)?;
    while let Some((key, _)) = entries.next().map_err(fault)?
        && key <= to
    {
        let number = Reader::new(&key[8..]).array().map_err(fault)?;
        numbers.push(TxNum(u32::from_be_bytes(number)));
    }
    Ok(numbers)
}
