//! `tip.redb`: the state row, which is the truth, the deltas, and what lies off the connected chain.
//!
//! Small, so that a commit costs one fsync whatever the chain's length. Tables:
//! - `state`: one row. `parts`: which files the base is. `bulk`: how far a bulk sync is.
//! - `deltas`: height and part -> one block's rows, from the base's end to the tip.
//! - `undone`: number and part -> rows of a block that was undone below the deltas, until no part needs it.
//! - `side`: hash -> height and header off the header chain. `invalid`: hashes of blocks that break the rules.
//! - `stored`: hash -> height and position of blocks that are kept and not connected.
//! - `moved`: place in the block files -> where its block lies since it was fetched again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bitcoin::BlockHash;
use bitcoin::block::Header;
use bitcoin::hashes::Hash;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction};

use crate::base::{BaseMark, PartList, Undone};
use crate::bulk::BulkState;
use crate::codec::{DecodeError, Reader};
use crate::delta::Delta;
use crate::delta_row;
use crate::error::Error;
use crate::repair::Place;
use crate::segments::{BlockPos, SegmentEnd};
use crate::types::Height;

pub(crate) const FILE: &str = "tip.redb";

const STATE: TableDefinition<'_, &str, &[u8; STATE_LEN]> = TableDefinition::new("state");
const DELTAS: TableDefinition<'_, (u32, u16), &[u8]> = TableDefinition::new("deltas");
/// Number of an undone block, part -> height 4 LE and the rows of its delta.
const UNDONE: TableDefinition<'_, (u32, u16), &[u8]> = TableDefinition::new("undone");
const SIDE: TableDefinition<'_, &[u8; 32], &[u8; 84]> = TableDefinition::new("side");
const INVALID: TableDefinition<'_, &[u8; 32], ()> = TableDefinition::new("invalid");
const STORED: TableDefinition<'_, &[u8; 32], &[u8; 16]> = TableDefinition::new("stored");
const MOVED: TableDefinition<'_, Place, Place> = TableDefinition::new("moved");

/// "parts" -> [`PartList`].
const PARTS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("parts");
/// "bulk" -> [`BulkState`]: there while a bulk sync goes on.
const BULK: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("bulk");

/// Bytes of one part of a delta's row. redb gives a long value a power of two of pages: a part fills one, with what
/// redb puts beside it, and only the last part leaves some of its pages empty.
const PART_BYTES: usize = 64 * 1024 - 128;

/// Bytes of the state row.
pub(crate) const STATE_LEN: usize = 88;

/// What is true of the folder. Lengths of all arrays follow from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct State {
    /// Connected blocks: the tip's height plus one.
    pub(crate) blocks: u32,
    /// The tip, zeros when there is none.
    pub(crate) tip: BlockHash,
    pub(crate) end: SegmentEnd,
    /// Headers in the array. Fewer than `blocks` only between the two commits of a reorg: the others are in deltas.
    pub(crate) headers: u32,
    pub(crate) base: BaseMark,
}

impl State {
    pub(crate) fn empty() -> Self {
        let base = BaseMark::empty();
        Self { blocks: 0, tip: BlockHash::all_zeros(), end: SegmentEnd::default(), headers: 0, base }
    }

    pub(crate) fn encode(&self) -> [u8; STATE_LEN] {
        let mut row = [0; STATE_LEN];
        row[..4].copy_from_slice(&self.blocks.to_le_bytes());
        row[4..36].copy_from_slice(self.tip.as_ref());
        row[36..40].copy_from_slice(&self.end.segment.to_le_bytes());
        row[40..44].copy_from_slice(&self.end.offset.to_le_bytes());
        row[44..48].copy_from_slice(&self.headers.to_le_bytes());
        row[48..].copy_from_slice(&self.base.encode());
        row
    }

    pub(crate) fn decode(row: &[u8; STATE_LEN]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(row);
        Ok(Self {
            blocks: reader.u32()?,
            tip: BlockHash::from_byte_array(reader.array()?),
            end: SegmentEnd { segment: reader.u32()?, offset: reader.u32()? },
            headers: reader.u32()?,
            base: BaseMark::read(&mut reader)?,
        })
    }
}

/// A kept block off the connected chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stored {
    pub(crate) height: Height,
    pub(crate) pos: BlockPos,
}

/// What lies off the connected chain, as it is kept in memory.
#[derive(Clone, Debug, Default)]
pub(crate) struct Aside {
    pub(crate) side: BTreeMap<BlockHash, (Height, Header)>,
    pub(crate) invalid: BTreeSet<BlockHash>,
    pub(crate) stored: BTreeMap<BlockHash, Stored>,
}

/// Changes of [`Aside`]; `None` removes.
#[derive(Clone, Debug, Default)]
pub(crate) struct AsideChange {
    pub(crate) side: BTreeMap<BlockHash, Option<(Height, Header)>>,
    pub(crate) invalid: BTreeSet<BlockHash>,
    pub(crate) stored: BTreeMap<BlockHash, Option<Stored>>,
}

impl AsideChange {
    pub(crate) fn is_empty(&self) -> bool {
        self.side.is_empty() && self.invalid.is_empty() && self.stored.is_empty()
    }

    pub(crate) fn apply(self, to: &mut Aside) {
        for (hash, header) in self.side {
            match header {
                Some(header) => to.side.insert(hash, header),
                None => to.side.remove(&hash),
            };
        }
        to.invalid.extend(self.invalid);
        for (hash, stored) in self.stored {
            match stored {
                Some(stored) => to.stored.insert(hash, stored),
                None => to.stored.remove(&hash),
            };
        }
    }
}

/// The file.
#[derive(Debug)]
pub(crate) struct TipFile {
    db: Database,
}

fn error(source: impl Into<redb::Error>) -> Error {
    Error::index(FILE, source)
}

fn fault(fault: DecodeError) -> Error {
    Error::corrupt(FILE, fault.to_string())
}

fn decode_delta(height: u32, row: &[u8]) -> Result<Delta, Error> {
    let height = Height(height);
    let delta = delta_row::decode(height, row);
    delta.map_err(|fault| Error::corrupt(FILE, format!("delta of height {height}: {fault}")))
}

/// A long row in parts.
fn put_parts(table: &mut redb::Table<'_, (u32, u16), &[u8]>, key: u32, row: &[u8]) -> Result<(), Error> {
    for (bytes, part) in row.chunks(PART_BYTES).zip(0u16..) {
        table.insert((key, part), bytes).map_err(error)?;
    }
    Ok(())
}

/// Calls `each` with key and row of each long row.
fn read_parts(
    table: &redb::ReadOnlyTable<(u32, u16), &[u8]>,
    mut each: impl FnMut(u32, &[u8]) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut whole: Option<(u32, u16, Vec<u8>)> = None;
    for row in table.iter().map_err(error)? {
        let (key, bytes) = row.map_err(error)?;
        let (key, part) = key.value();
        match &mut whole {
            Some((at, parts, row)) if *at == key && *parts == part => {
                row.extend_from_slice(bytes.value());
                *parts += 1;
            }
            _ if part != 0 => {
                return Err(Error::corrupt(FILE, format!("delta of height {key}: a part is missing")));
            }
            _ => {
                if let Some((key, _, row)) = whole.replace((key, 1, bytes.value().to_vec())) {
                    each(key, &row)?;
                }
            }
        }
    }
    whole.map_or(Ok(()), |(key, _, row)| each(key, &row))
}

/// Puts the tables into a new file.
pub(crate) fn create(db: &Database) -> Result<(), Error> {
    let change = TipChange::begin(db)?;
    for table in [DELTAS, UNDONE] {
        change.txn.open_table(table).map_err(error)?;
    }
    change.txn.open_table(SIDE).map_err(error)?;
    change.txn.open_table(INVALID).map_err(error)?;
    change.txn.open_table(STORED).map_err(error)?;
    change.txn.open_table(BULK).map_err(error)?;
    change.set_parts(&PartList::default())?;
    change.txn.open_table(MOVED).map_err(error)?;
    change.set_state(&State::empty())?;
    change.commit()
}

impl TipFile {
    pub(crate) fn new(db: Database) -> Self {
        Self { db }
    }

    /// Gives back what the file no longer needs: rows of deltas come and go.
    pub(crate) fn compact(&mut self) -> Result<(), Error> {
        self.db.compact().map_err(error)?;
        Ok(())
    }

    /// Damages the file, for a test.
    #[cfg(test)]
    pub(crate) fn remove_part(&self, height: u32, part: u16) -> Result<(), Error> {
        let change = self.change()?;
        change.txn.open_table(DELTAS).map_err(error)?.remove((height, part)).map_err(error)?;
        change.commit()
    }

    pub(crate) fn change(&self) -> Result<TipChange, Error> {
        TipChange::begin(&self.db)
    }

    pub(crate) fn state(&self) -> Result<State, Error> {
        let table = self.db.begin_read().map_err(error)?.open_table(STATE).map_err(error)?;
        let row = table.get("state").map_err(error)?;
        let row = row.ok_or_else(|| Error::corrupt(FILE, "no state row"))?;
        State::decode(row.value()).map_err(fault)
    }

    /// The parts of the base.
    pub(crate) fn parts(&self) -> Result<PartList, Error> {
        let table = self.db.begin_read().map_err(error)?.open_table(PARTS).map_err(error)?;
        let row = table.get("parts").map_err(error)?;
        let row = row.ok_or_else(|| Error::corrupt(FILE, "no row of parts"))?;
        PartList::decode(row.value()).map_err(fault)
    }

    /// The blocks that were undone below the deltas and that some part still has.
    pub(crate) fn undone(&self) -> Result<Undone, Error> {
        let table = self.db.begin_read().map_err(error)?.open_table(UNDONE).map_err(error)?;
        let mut undone = Undone::default();
        read_parts(&table, |number, row| {
            let mut reader = Reader::new(row);
            let height = reader.u32().map_err(fault)?;
            undone.push(number, Arc::new(decode_delta(height, &row[reader.position()..])?));
            Ok(())
        })?;
        Ok(undone)
    }

    /// How far a bulk sync is durable, when one goes on.
    pub(crate) fn bulk(&self) -> Result<Option<BulkState>, Error> {
        let table = self.db.begin_read().map_err(error)?.open_table(BULK).map_err(error)?;
        let row = table.get("bulk").map_err(error)?;
        row.map(|row| BulkState::decode(row.value()).map_err(fault)).transpose()
    }

    /// The deltas, by height.
    pub(crate) fn deltas(&self) -> Result<Vec<Delta>, Error> {
        let table = self.db.begin_read().map_err(error)?.open_table(DELTAS).map_err(error)?;
        let mut deltas = Vec::new();
        read_parts(&table, |height, row| {
            deltas.push(decode_delta(height, row)?);
            Ok(())
        })?;
        Ok(deltas)
    }

    /// Where blocks lie that were fetched again, by the place that the other files name.
    pub(crate) fn moved(&self) -> Result<BTreeMap<Place, Place>, Error> {
        let table = match self.db.begin_read().map_err(error)?.open_table(MOVED) {
            Ok(table) => table,
            // The file was made when there was no such table.
            Err(redb::TableError::TableDoesNotExist(_)) => return Ok(BTreeMap::new()),
            Err(failure) => return Err(error(failure)),
        };
        let mut moved = BTreeMap::new();
        for row in table.iter().map_err(error)? {
            let (from, to) = row.map_err(error)?;
            moved.insert(from.value(), to.value());
        }
        Ok(moved)
    }

    pub(crate) fn aside(&self) -> Result<Aside, Error> {
        let txn = self.db.begin_read().map_err(error)?;
        let mut aside = Aside::default();
        for row in txn.open_table(SIDE).map_err(error)?.iter().map_err(error)? {
            let (hash, row) = row.map_err(error)?;
            let mut reader = Reader::new(row.value());
            let height = Height(reader.u32().map_err(fault)?);
            let header = bitcoin::consensus::deserialize(&reader.array::<80>().map_err(fault)?);
            let header = header.map_err(|_| Error::corrupt(FILE, "side header does not decode"))?;
            aside.side.insert(BlockHash::from_byte_array(*hash.value()), (height, header));
        }
        for row in txn.open_table(INVALID).map_err(error)?.iter().map_err(error)? {
            aside.invalid.insert(BlockHash::from_byte_array(*row.map_err(error)?.0.value()));
        }
        for row in txn.open_table(STORED).map_err(error)?.iter().map_err(error)? {
            let (hash, row) = row.map_err(error)?;
            let mut reader = Reader::new(row.value());
            let mut number = || reader.u32().map_err(fault);
            let height = Height(number()?);
            let pos = BlockPos { segment: number()?, offset: number()?, length: number()? };
            aside.stored.insert(BlockHash::from_byte_array(*hash.value()), Stored { height, pos });
        }
        Ok(aside)
    }
}

/// A change of `tip.redb`; dropped without commit it never was.
pub(crate) struct TipChange {
    txn: WriteTransaction,
}

impl TipChange {
    fn begin(db: &Database) -> Result<Self, Error> {
        let mut txn = db.begin_write().map_err(error)?;
        // Opening after a crash takes no walk through the file; the commit syncs twice, and its slot is whole.
        txn.set_quick_repair(true);
        txn.set_two_phase_commit(true);
        Ok(Self { txn })
    }

    pub(crate) fn commit(self) -> Result<(), Error> {
        self.txn.commit().map_err(error)
    }

    pub(crate) fn set_state(&self, state: &State) -> Result<(), Error> {
        self.txn.open_table(STATE).map_err(error)?.insert("state", &state.encode()).map_err(error)?;
        Ok(())
    }

    pub(crate) fn put_moved(&self, from: Place, to: Place) -> Result<(), Error> {
        self.txn.open_table(MOVED).map_err(error)?.insert(from, to).map_err(error)?;
        Ok(())
    }

    pub(crate) fn set_bulk(&self, bulk: Option<&BulkState>) -> Result<(), Error> {
        let mut table = self.txn.open_table(BULK).map_err(error)?;
        match bulk {
            Some(bulk) => table.insert("bulk", bulk.encode().as_slice()).map_err(error)?,
            None => table.remove("bulk").map_err(error)?,
        };
        Ok(())
    }

    pub(crate) fn remove_all_deltas(&self) -> Result<(), Error> {
        self.txn.open_table(DELTAS).map_err(error)?.retain(|_, _| false).map_err(error)
    }

    pub(crate) fn set_parts(&self, parts: &PartList) -> Result<(), Error> {
        let mut table = self.txn.open_table(PARTS).map_err(error)?;
        table.insert("parts", parts.encode().as_slice()).map_err(error)?;
        Ok(())
    }

    /// Keeps the undone blocks from number `from` on; none where there are none.
    pub(crate) fn set_undone(&self, undone: &Undone, from: u32) -> Result<(), Error> {
        let mut table = self.txn.open_table(UNDONE).map_err(error)?;
        if undone.is_empty() {
            return table.retain(|_, _| false).map_err(error);
        }
        for (number, delta) in undone.deltas().filter(|(number, _)| *number >= from) {
            let mut row = delta.head.height.0.to_le_bytes().to_vec();
            row.extend_from_slice(&delta_row::encode(delta));
            put_parts(&mut table, number, &row)?;
        }
        Ok(())
    }

    pub(crate) fn put_delta(&self, delta: &Delta) -> Result<(), Error> {
        let mut table = self.txn.open_table(DELTAS).map_err(error)?;
        put_parts(&mut table, delta.head.height.0, &delta_row::encode(delta))
    }

    pub(crate) fn remove_deltas(&self, heights: std::ops::Range<u32>) -> Result<(), Error> {
        let mut table = self.txn.open_table(DELTAS).map_err(error)?;
        let last = heights.end.saturating_sub(1);
        let keys = (heights.start, 0)..=(last, u16::MAX);
        if heights.start < heights.end {
            table.retain_in(keys, |_, _| false).map_err(error)?;
        }
        Ok(())
    }

    pub(crate) fn put_aside(&self, change: &AsideChange) -> Result<(), Error> {
        let mut table = self.txn.open_table(SIDE).map_err(error)?;
        for (hash, header) in &change.side {
            if let Some((height, header)) = header {
                let mut row = [0; 84];
                row[..4].copy_from_slice(&height.0.to_le_bytes());
                row[4..].copy_from_slice(&bitcoin::consensus::serialize(header));
                table.insert(hash.as_byte_array(), &row).map_err(error)?;
            } else {
                table.remove(hash.as_byte_array()).map_err(error)?;
            }
        }
        let mut table = self.txn.open_table(INVALID).map_err(error)?;
        for hash in &change.invalid {
            table.insert(hash.as_byte_array(), ()).map_err(error)?;
        }
        let mut table = self.txn.open_table(STORED).map_err(error)?;
        for (hash, stored) in &change.stored {
            if let Some(Stored { height, pos }) = stored {
                let numbers = [height.0, pos.segment, pos.offset, pos.length].map(u32::to_le_bytes);
                let mut row = [0; 16];
                row.copy_from_slice(numbers.as_flattened());
                table.insert(hash.as_byte_array(), &row).map_err(error)?;
            } else {
                table.remove(hash.as_byte_array()).map_err(error)?;
            }
        }
        Ok(())
    }
}
