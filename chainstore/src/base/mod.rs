//! The index of the blocks below the deltas: parts, each an immutable file with one table's rows over a range of keys.
//!
//! `list` is the row that says which of them count, `part` one of them as it is read, key by key or (`walk`) from its
//! start to its end, `write` as it is written. `bucket` and `rows` are what stands in them, `undone` is what is true of
//! those that a deep undo made void in part, `changes` and `rewrite` make new ones.
//! Here are the questions put to all of them together. Parts may go further than others while a merge writes them
//! anew: whoever asks leaves out the deltas of the blocks that the part has ([`Base::reach`]).

mod bucket;
mod changes;
mod list;
mod part;
mod rewrite;
mod rows;
#[cfg(test)]
pub(crate) mod tests;
mod undone;
mod walk;
mod write;

use std::sync::Arc;

use bitcoin::BlockHash;
use bitcoin::hashes::Hash;

pub(crate) use self::bucket::Shape;
pub(crate) use self::changes::{Change, DeltaChanges};
use self::list::head;
pub(crate) use self::list::{
    DIR, KeyRange, PartInfo, PartList, Reach, Table, file_name, put_part, read_part,
};
use self::part::Layout;
pub(crate) use self::part::{Part, coin_shape, script_shape, tx_shape};
use self::rewrite::walk;
pub(crate) use self::rewrite::{Plan, Valid, rewrite};
pub(crate) use self::rows::decode_coin;
pub(crate) use self::rows::{
    COIN_KEY, CoinContent, CoinKey, SCRIPT_KEY, TX_KEY, TxKey, coin_content, coin_key, cut, tx_key,
};
use self::rows::{coin_place, tx_number};
pub(crate) use self::undone::Undone;
use crate::codec::{DecodeError, Reader};
use crate::delta::{CoinValue, Delta, TxPrefix};
use crate::disk::Disk;
use crate::error::Error;
use crate::group::Group;
use crate::types::{ScriptKey, TxNum};

/// A block, as the last of those that something has.
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

    pub(crate) fn reach(&self) -> Reach {
        Reach { blocks: self.blocks, txs: self.txs }
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

/// A part, and what of it counts.
#[derive(Clone, Debug)]
pub(crate) struct Placed {
    pub(crate) info: PartInfo,
    pub(crate) part: Arc<Part>,
}

/// All parts. A copy is cheap to make, and stays as it is.
#[derive(Clone, Debug)]
pub(crate) struct Base {
    /// By table, then by key.
    parts: Vec<Placed>,
    undone: Arc<Undone>,
    /// Bytes of a txid that keys keep; the rest of the prefix is zero.
    prefix_len: u8,
}

impl Base {
    /// Opens the parts of a list, but for those that `kept` has open; `directory_bytes` as in the options.
    pub(crate) fn open(
        disk: &dyn Disk,
        list: &PartList,
        undone: Undone,
        directory_bytes: u64,
        prefix_len: u8,
        kept: Option<&Self>,
    ) -> Result<Self, Error> {
        let keeps = keeps_directories(&list.parts, directory_bytes);
        let open = |file: u32| kept?.parts.iter().find(|placed| placed.part.number == file);
        let place = |info: &PartInfo| -> Result<Placed, Error> {
            let part = match open(info.file) {
                Some(placed) => placed.part.clone(),
                None => Part::open(disk, info, keeps && info.table == Table::Coins)?,
            };
            Ok(Placed { info: *info, part })
        };
        let mut parts: Vec<Placed> = list.parts.iter().map(place).collect::<Result<_, _>>()?;
        parts.sort_unstable_by_key(|placed| (placed.info.table, placed.info.range.first()));
        Ok(Self { parts, undone: Arc::new(undone), prefix_len })
    }

    pub(crate) fn parts(&self) -> &[Placed] {
        &self.parts
    }

    pub(crate) fn undone(&self) -> &Arc<Undone> {
        &self.undone
    }

    pub(crate) fn prefix_len(&self) -> u8 {
        self.prefix_len
    }

    /// Whether a part of a table that is made anew keeps its directory in memory.
    pub(crate) fn keeps_directory(&self, table: Table, directory_bytes: u64) -> bool {
        let infos = self.parts.iter().map(|placed| &placed.info);
        table == Table::Coins && keeps_directories(infos, directory_bytes)
    }

    pub(crate) fn list(&self, next_file: u32) -> PartList {
        PartList { next_file, parts: self.parts.iter().map(|placed| placed.info).collect() }
    }

    /// The part that would have a key.
    fn part_of(&self, table: Table, key: &[u8]) -> Option<&Placed> {
        let head = head(key);
        let after = self
            .parts
            .partition_point(|placed| (placed.info.table, placed.info.range.first()) <= (table, head));
        self.parts.get(after.checked_sub(1)?).filter(|placed| placed.info.table == table)
    }

    /// Of how many blocks a table has the rows of a key.
    pub(crate) fn reach(&self, table: Table, key: &[u8]) -> u32 {
        self.part_of(table, key).map_or(0, |placed| placed.info.reach.blocks)
    }

    /// Whether any part has a block's rows.
    pub(crate) fn covers(&self, height: u32) -> bool {
        self.parts.iter().any(|placed| placed.info.reach.blocks > height)
    }

    /// Whether all parts go exactly as far as is said, and nothing in them is void.
    pub(crate) fn is_level(&self, blocks: u32) -> bool {
        let level = |placed: &Placed| placed.info.reach.blocks == blocks && placed.info.cut.is_none();
        self.parts.iter().all(level) && self.undone.is_empty()
    }

    /// Makes the rows of the top block void, in the parts that have them.
    pub(crate) fn undo(&mut self, delta: &Arc<Delta>) {
        let (height, first_tx) = (delta.head.height.0, delta.head.first_tx);
        let number = self.undone.next();
        Arc::make_mut(&mut self.undone).push(number, delta.clone());
        for placed in self.parts.iter_mut().filter(|placed| placed.info.reach.blocks > height) {
            placed.info.reach = Reach { blocks: height, txs: first_tx };
            placed.info.cut.get_or_insert(number);
        }
    }

    /// Says that all parts go elsewhere than they do.
    #[cfg(test)]
    pub(crate) fn pretend(&mut self, reach: Reach) {
        self.parts.iter_mut().for_each(|placed| placed.info.reach = reach);
    }

    /// Forgets what was undone, when no part needs it.
    pub(crate) fn forget_undone(&mut self) -> bool {
        let needed = self.parts.iter().any(|placed| placed.info.cut.is_some());
        let forgets = !needed && !self.undone.is_empty();
        if forgets {
            self.undone = Arc::default();
        }
        forgets
    }

    /// Puts new parts in the place of the one with the keys of all of them, or where the table had none.
    pub(crate) fn replace(&mut self, old: Option<u32>, new: impl IntoIterator<Item = Placed>) {
        self.parts.retain(|placed| Some(placed.info.file) != old);
        self.parts.extend(new);
        self.parts.sort_unstable_by_key(|placed| (placed.info.table, placed.info.range.first()));
    }

    /// History and unspent outputs of a script.
    pub(crate) fn group(&self, key: &ScriptKey) -> Result<Group, Error> {
        let Some(Placed { info, part }) = self.part_of(Table::Scripts, &key.0) else {
            return Ok(Group::default());
        };
        let mut group = Group::default();
        part.each(script_shape(info.bits), &key.0, &key.0, |_, content| {
            group = Group::decode(content)?;
            Ok(())
        })?;
        if let Some(from) = info.cut {
            self.undone.restore(key, &mut group, from, info.reach.txs);
        }
        Ok(group)
    }

    /// Coins under a txid prefix at one output index.
    pub(crate) fn coins(&self, prefix: TxPrefix, vout: u32) -> Result<Vec<(TxNum, CoinValue)>, Error> {
        let first = coin_key(cut(prefix, self.prefix_len), vout, TxNum(0));
        let last = coin_key(cut(prefix, self.prefix_len), vout, TxNum(u32::MAX));
        let mut coins = Vec::new();
        let Some(Placed { info, part }) = self.part_of(Table::Coins, &first) else { return Ok(coins) };
        part.each(coin_shape(info.bits), &first, &last, |key, content| {
            coins.push((coin_place(key).1, decode_coin(content)?));
            Ok(())
        })?;
        if let Some(from) = info.cut {
            coins.retain(|(number, _)| number.0 < info.reach.txs);
            let keys = Undone::keys_of(prefix, Some(vout));
            for (key, coin) in self.undone.coins(from, info.reach.txs, keys) {
                let number = coin_place(key).1;
                if !coins.iter().any(|(other, _)| *other == number) {
                    coins.push((number, *coin));
                }
            }
        }
        Ok(coins)
    }

    /// Transactions under a txid prefix, ascending.
    pub(crate) fn numbers(&self, prefix: TxPrefix) -> Result<Vec<TxNum>, Error> {
        let prefix = cut(prefix, self.prefix_len);
        let (first, last) = (tx_key(prefix, 0), tx_key(prefix, u32::MAX));
        let mut numbers = Vec::new();
        let Some(Placed { info, part }) = self.part_of(Table::Txs, &first) else { return Ok(numbers) };
        part.each(tx_shape(info.bits), &first, &last, |key, _| {
            numbers.push(tx_number(key));
            Ok(())
        })?;
        if info.cut.is_some() {
            numbers.retain(|number| number.0 < info.reach.txs);
        }
        Ok(numbers)
    }

    /// Shows each entry of a table in order: its key and its content. The base must be level.
    pub(crate) fn walk(&self, table: Table, each: &mut EachEntry<'_>) -> Result<(), Error> {
        for placed in self.parts.iter().filter(|placed| placed.info.table == table) {
            let bits = placed.info.bits;
            match table {
                Table::Scripts => walk(placed, script_shape(bits), |key, content| each(&key, content))?,
                Table::Coins => walk(placed, coin_shape(bits), |key, content| each(&key, content))?,
                Table::Txs => walk(placed, tx_shape(bits), |key, content| each(&key, content))?,
            }
        }
        Ok(())
    }

    /// All entries in order, for tests that compare two stores.
    #[cfg(any(test, feature = "sim"))]
    pub(crate) fn dump(&self, out: &mut Vec<String>) -> Result<(), Error> {
        self.walk(Table::Scripts, &mut |key, content| {
            let group = Group::decode(content).map_err(|fault| Error::corrupt(DIR, fault.to_string()))?;
            out.push(format!("script {key:02x?} {group:?}"));
            Ok(())
        })?;
        for table in [Table::Coins, Table::Txs] {
            self.walk(table, &mut |key, content| {
                out.push(format!("{table:?} {key:02x?} {content:02x?}"));
                Ok(())
            })?;
        }
        Ok(())
    }
}

/// Who is shown the entries of a table: key and content of each.
pub(crate) type EachEntry<'a> = dyn FnMut(&[u8], &[u8]) -> Result<(), Error> + 'a;

/// Whether the directories of all parts of coins take no more than so many bytes. Each block looks for thousands of
/// coins, and a chain has few unspent: the other tables' directories are many times as large, and wallets ask one by
/// one.
fn keeps_directories<'a>(parts: impl IntoIterator<Item = &'a PartInfo>, most: u64) -> bool {
    let coins = parts.into_iter().filter(|info| info.table == Table::Coins);
    coins.map(|info| Layout::of(info).directory_bytes()).sum::<u64>() <= most
}
