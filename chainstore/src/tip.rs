//! `tip.redb`: the state row, which is the truth, the deltas, and what lies off the connected chain.
//!
//! Small, so that a commit costs one fsync whatever the chain's length. Tables:
//! - `state`: `state` and, while a deep undo is under way, `next`: the state once the base has followed.
//! - `deltas`: height and part -> one block's rows, from the base's end to the tip. `pending`: those of `next`.
//! - `side`: hash -> height and header off the header chain. `invalid`: hashes of blocks that break the rules.
//! - `stored`: hash -> height and position of blocks that are kept and not connected.
//! - `moved`: place in the block files -> where its block lies since it was fetched again.

use std::collections::{BTreeMap, BTreeSet};

use bitcoin::BlockHash;
use bitcoin::block::Header;
use bitcoin::hashes::Hash;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction};

use crate::base::BaseMark;
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
const PENDING: TableDefinition<'_, (u32, u16), &[u8]> = TableDefinition::new("pending");
const SIDE: TableDefinition<'_, &[u8; 32], &[u8; 84]> = TableDefinition::new("side");
const INVALID: TableDefinition<'_, &[u8; 32], ()> = TableDefinition::new("invalid");
const STORED: TableDefinition<'_, &[u8; 32], &[u8; 16]> = TableDefinition::new("stored");
const MOVED: TableDefinition<'_, Place, Place> = TableDefinition::new("moved");

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

fn decode_delta((height, _, row): (u32, u16, Vec<u8>)) -> Result<Delta, Error> {
    let height = Height(height);
    let delta = delta_row::decode(height, &row);
    delta.map_err(|fault| Error::corrupt(FILE, format!("delta of height {height}: {fault}")))
}

/// A delta's row in parts.
fn put_parts(table: &mut redb::Table<'_, (u32, u16), &[u8]>, delta: &Delta) -> Result<(), Error> {
    for (bytes, part) in delta_row::encode(delta).chunks(PART_BYTES).zip(0u16..) {
        table.insert((delta.head.height.0, part), bytes).map_err(error)?;
    }
    Ok(())
}

/// Puts the tables into a new file.
pub(crate) fn create(db: &Database) -> Result<(), Error> {
    let change = TipChange::begin(db)?;
    for table in [DELTAS, PENDING] {
        change.txn.open_table(table).map_err(error)?;
    }
    change.txn.open_table(SIDE).map_err(error)?;
    change.txn.open_table(INVALID).map_err(error)?;
    change.txn.open_table(STORED).map_err(error)?;
    change.txn.open_table(BULK).map_err(error)?;
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

    /// The state row and, when a deep undo was interrupted, the one it was going to.
    pub(crate) fn state(&self) -> Result<(State, Option<State>), Error> {
        let table = self.db.begin_read().map_err(error)?.open_table(STATE).map_err(error)?;
        let row = |name: &str| match table.get(name).map_err(error)? {
            Some(row) => State::decode(row.value()).map(Some).map_err(fault),
            None => Ok(None),
        };
        match row("state")? {
            Some(state) => Ok((state, row("next")?)),
            None => Err(Error::corrupt(FILE, "no state row")),
        }
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
        let mut whole: Option<(u32, u16, Vec<u8>)> = None;
        for row in table.iter().map_err(error)? {
            let (key, bytes) = row.map_err(error)?;
            let (height, part) = key.value();
            match &mut whole {
                Some((at, parts, row)) if *at == height && *parts == part => {
                    row.extend_from_slice(bytes.value());
                    *parts += 1;
                }
                _ if part != 0 => {
                    return Err(Error::corrupt(FILE, format!("delta of height {height}: a part is missing")));
                }
                _ => {
                    deltas.extend(whole.take().map(decode_delta).transpose()?);
                    whole = Some((height, 1, bytes.value().to_vec()));
                }
            }
        }
        deltas.extend(whole.map(decode_delta).transpose()?);
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

    /// Announces a deep undo: what will be true once the base goes no further than `next` says.
    pub(crate) fn set_next<'a>(
        &self,
        next: &State,
        deltas: impl Iterator<Item = &'a Delta>,
    ) -> Result<(), Error> {
        self.txn.open_table(STATE).map_err(error)?.insert("next", &next.encode()).map_err(error)?;
        let mut table = self.txn.open_table(PENDING).map_err(error)?;
        for delta in deltas {
            put_parts(&mut table, delta)?;
        }
        Ok(())
    }

    /// Puts what was announced in the place of what was, or forgets it.
    pub(crate) fn end_next(&self, happened: bool) -> Result<(), Error> {
        self.txn.open_table(STATE).map_err(error)?.remove("next").map_err(error)?;
        let mut pending = self.txn.open_table(PENDING).map_err(error)?;
        if happened {
            let mut deltas = self.txn.open_table(DELTAS).map_err(error)?;
            deltas.retain(|_, _| false).map_err(error)?;
            for row in pending.iter().map_err(error)? {
                let (key, bytes) = row.map_err(error)?;
                deltas.insert(key.value(), bytes.value()).map_err(error)?;
            }
        }
        pending.retain(|_, _| false).map_err(error)
    }

    pub(crate) fn put_delta(&self, delta: &Delta) -> Result<(), Error> {
        let mut table = self.txn.open_table(DELTAS).map_err(error)?;
        put_parts(&mut table, delta)?;
        Ok(())
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
