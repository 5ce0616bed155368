//! Which parts there are: the row of parts in `tip.redb`, which says what files count.
//!
//! How far a part goes, and whether some of its rows are void since a deep undo, stands here and not in its file.

use super::bucket::MAX_BITS;
use crate::codec::{DecodeError, Reader, put_crc, put_u32, without_crc};

pub(crate) const DIR: &str = "base";

/// A table of the base.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Table {
    /// Script key -> history and unspent outputs.
    Scripts,
    /// Outpoint -> coin.
    Coins,
    /// Txid -> number.
    Txs,
}

impl Table {
    pub(crate) const ALL: [Self; 3] = [Self::Scripts, Self::Coins, Self::Txs];

    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Scripts => 0,
            Self::Coins => 1,
            Self::Txs => 2,
        }
    }
}

/// All keys that share their first `depth` bits, which are `index`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct KeyRange {
    index: u32,
    depth: u8,
}

/// First four bytes of a key, as a number.
pub(crate) fn head(key: &[u8]) -> u32 {
    key.iter().take(4).fold(0, |head, byte| head << 8 | u32::from(*byte))
}

impl KeyRange {
    /// All keys, as so many ranges that a power of two is.
    pub(crate) fn split_all(depth: u8) -> impl Iterator<Item = Self> {
        (0..1u32 << depth.min(16)).map(move |index| Self { index, depth: depth.min(16) })
    }

    /// The same keys as ranges of `more` more bits.
    pub(crate) fn split(self, more: u8) -> impl Iterator<Item = Self> {
        let depth = (self.depth + more).min(16);
        let more = depth - self.depth;
        (0..1u32 << more).map(move |low| Self { index: self.index << more | low, depth })
    }

    pub(crate) fn depth(self) -> u8 {
        self.depth
    }

    /// What the first `depth` bits of its keys are.
    pub(crate) fn index(self) -> u32 {
        self.index
    }

    /// The first head in it.
    pub(crate) fn first(self) -> u32 {
        self.index.checked_shl(32 - u32::from(self.depth)).unwrap_or(0)
    }

    /// The last head in it.
    pub(crate) fn last(self) -> u32 {
        self.first() | u32::MAX.checked_shr(u32::from(self.depth)).unwrap_or(0)
    }

    pub(crate) fn has(self, key: &[u8]) -> bool {
        (self.first()..=self.last()).contains(&head(key))
    }
}

/// How far a part goes: blocks, and the transactions in them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Reach {
    pub(crate) blocks: u32,
    pub(crate) txs: u32,
}

/// A part as the row of parts has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PartInfo {
    pub(crate) table: Table,
    pub(crate) range: KeyRange,
    /// The file's number.
    pub(crate) file: u32,
    /// Bits of a key that make the number of its bucket.
    pub(crate) bits: u8,
    pub(crate) entries: u64,
    /// Of all rows together, as they stand on disk.
    pub(crate) bytes: u64,
    pub(crate) reach: Reach,
    /// The file goes further: blocks above `reach` were undone, from this one on of those that are kept as undone.
    pub(crate) cut: Option<u32>,
}

impl PartInfo {
    pub(crate) fn name(&self) -> String {
        file_name(self.file)
    }
}

pub(crate) fn file_name(number: u32) -> String {
    format!("{DIR}/{number:06}.part")
}

/// Which parts there are, as a row.
///
/// ```text
/// row  | next file 4 | parts 4 | part, for each | crc32c of all before 4 |
/// part | table 1 | depth 1 | index 4 | file 4 | bits 1 | entries 8 | bytes 8 | blocks 4 | transactions 4 | cut 1 | from 4 |
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PartList {
    pub(crate) next_file: u32,
    pub(crate) parts: Vec<PartInfo>,
}

pub(crate) fn put_part(out: &mut Vec<u8>, part: &PartInfo) {
    out.push(part.table.code());
    out.push(part.range.depth);
    put_u32(out, part.range.index);
    put_u32(out, part.file);
    out.push(part.bits);
    out.extend_from_slice(&part.entries.to_le_bytes());
    out.extend_from_slice(&part.bytes.to_le_bytes());
    put_u32(out, part.reach.blocks);
    put_u32(out, part.reach.txs);
    out.push(u8::from(part.cut.is_some()));
    put_u32(out, part.cut.unwrap_or(0));
}

pub(crate) fn read_part(reader: &mut Reader<'_>) -> Result<PartInfo, DecodeError> {
    let table = match reader.u8()? {
        0 => Table::Scripts,
        1 => Table::Coins,
        2 => Table::Txs,
        _ => return reader.fail("unknown table"),
    };
    let depth = reader.u8()?;
    let index = reader.u32()?;
    if depth > 16 || index >= 1 << depth {
        return reader.fail("no range of keys");
    }
    let (file, bits) = (reader.u32()?, reader.u8()?);
    if !(depth..=MAX_BITS).contains(&bits) {
        return reader.fail("no number of bits");
    }
    let (entries, bytes) = (u64::from_le_bytes(reader.array()?), u64::from_le_bytes(reader.array()?));
    let reach = Reach { blocks: reader.u32()?, txs: reader.u32()? };
    let (is_cut, from) = (reader.u8()?, reader.u32()?);
    let cut = (is_cut != 0).then_some(from);
    Ok(PartInfo { table, range: KeyRange { depth, index }, file, bits, entries, bytes, reach, cut })
}

impl PartList {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(12 + self.parts.len() * 40);
        put_u32(&mut out, self.next_file);
        put_u32(&mut out, self.parts.len() as u32);
        self.parts.iter().for_each(|part| put_part(&mut out, part));
        put_crc(&mut out);
        out
    }

    pub(crate) fn decode(row: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(without_crc(row)?);
        let (next_file, count) = (reader.u32()?, reader.u32()?);
        let mut parts = Vec::new();
        for _ in 0..count {
            parts.push(read_part(&mut reader)?);
        }
        reader.finish()?;
        let list = Self { next_file, parts };
        if Table::ALL.into_iter().all(|table| list.is_whole(table)) {
            Ok(list)
        } else {
            Err(DecodeError { what: "parts of a table leave keys out or overlap", at: row.len() })
        }
    }

    /// Whether a table has no part, or each key one. Parts of a table stand in the order of their keys.
    fn is_whole(&self, table: Table) -> bool {
        let mut next = Some(0);
        let mut any = false;
        for part in self.parts.iter().filter(|part| part.table == table) {
            if next != Some(part.range.first()) {
                return false;
            }
            any = true;
            next = part.range.last().checked_add(1);
        }
        !any || next.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(table: Table, range: KeyRange, file: u32) -> PartInfo {
        let reach = Reach { blocks: 7, txs: 70 };
        PartInfo { table, range, file, bits: 20, entries: 5, bytes: 9, reach, cut: Some(3) }
    }

    #[test]
    fn ranges_split_into_all_of_their_keys() {
        let all: Vec<_> = KeyRange::split_all(0).collect();
        assert_eq!(all.len(), 1);
        assert_eq!((all[0].first(), all[0].last()), (0, u32::MAX));
        let quarters: Vec<_> = all[0].split(1).flat_map(|half| half.split(1)).collect();
        assert_eq!(quarters, KeyRange::split_all(2).collect::<Vec<_>>());
        assert_eq!((quarters[3].first(), quarters[3].last()), (0xc000_0000, u32::MAX));
        assert!(quarters[1].has(&[0x7f, 255, 255, 255, 255]) && !quarters[1].has(&[0x80, 0, 0, 0]));
        let deepest: Vec<_> = quarters[0].split(200).collect();
        assert_eq!(deepest.len(), 1 << 14);
    }

    #[test]
    fn the_row_of_parts_comes_back_and_one_with_a_gap_is_refused() {
        let halves: Vec<_> = KeyRange::split_all(1).collect();
        let mut list = PartList { next_file: 9, parts: Vec::new() };
        assert_eq!(PartList::decode(&list.encode()).as_ref(), Ok(&list));
        list.parts.push(part(Table::Scripts, halves[0], 1));
        list.parts.extend(halves[1].split(1).map(|range| part(Table::Scripts, range, 2)));
        list.parts.extend(KeyRange::split_all(0).map(|range| part(Table::Txs, range, 3)));
        let row = list.encode();
        assert_eq!(PartList::decode(&row).as_ref(), Ok(&list));
        for at in 0..row.len() {
            let mut damaged = row.clone();
            damaged[at] ^= 1;
            assert!(PartList::decode(&damaged).is_err());
            assert!(PartList::decode(&row[..at]).is_err());
        }
        list.parts.remove(1);
        assert!(PartList::decode(&list.encode()).is_err());
    }
}
