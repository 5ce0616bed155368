//! Many small rows as one: what a part keeps under a bucket's number.
//!
//! A bucket is all keys that share their first bits. Its entries stand in key order, each without the whole bytes
//! that the number says already. A dozen entries share a checksum and a place in the directory.
//!
//! ```text
//! row   | entry, for each |
//! entry | key, without its first ⌊bits / 8⌋ bytes | length of what follows, varint, where that differs | content |
//! piece | bytes of the row, for each, at most 4,092 | crc32c of the bucket 4, of the number of the piece 4, and of them 4 |
//! ```
//! On disk a row is one piece after another, so that a long one need not be read whole: the outputs of one transaction
//! are in one bucket, and may be a hundred thousand. Entries of one size are never cut in two by pieces.

use std::ops::Range;

use crate::codec::{DecodeError, Reader, put_varint};

/// Buckets are never more than this, as a power of two.
pub(crate) const MAX_BITS: u8 = 32;
/// Entries that a bucket has on the average, where there are many.
const ENTRIES: u64 = 16;
/// Bytes of a whole piece, and of its checksum.
const PIECE_BYTES: usize = 4096;
const CRC_BYTES: usize = 4;

/// How a table's rows are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape<const N: usize> {
    /// Bits of a key that make the number of its bucket.
    pub(crate) bits: u8,
    /// Bytes of an entry's content, where all have the same.
    pub(crate) content_bytes: Option<usize>,
}

/// The bits for so many entries whose keys have their first `depth` bits in common.
pub(crate) fn bits_for(entries: u64, depth: u8) -> u8 {
    let buckets = entries / ENTRIES;
    let bits = buckets.checked_ilog2().unwrap_or(0) as u8 + depth;
    bits.min(MAX_BITS)
}

/// What a piece ends with. That of another place is not taken for it.
fn checksum(bucket: u32, piece: usize, bytes: &[u8]) -> u32 {
    let place = u64::from(bucket) | (piece as u64) << 32;
    crc32c::crc32c_append(crc32c::crc32c(&place.to_le_bytes()), bytes)
}

impl<const N: usize> Shape<N> {
    /// The bucket of a key.
    pub(crate) fn bucket(&self, key: &[u8; N]) -> u32 {
        let start = key.iter().take(4).fold(0u64, |start, byte| start << 8 | u64::from(*byte));
        (start >> (MAX_BITS - self.bits)) as u32
    }

    fn skipped(&self) -> usize {
        usize::from(self.bits / 8)
    }

    /// Bytes of a whole piece without its checksum.
    fn piece_bytes(&self) -> usize {
        let most = PIECE_BYTES - CRC_BYTES;
        self.content_bytes.map_or(most, |content| {
            let entry = N - self.skipped() + content;
            (most / entry).max(1) * entry
        })
    }

    /// Appends a row as it stands on disk.
    pub(crate) fn put_pieces(&self, out: &mut Vec<u8>, bucket: u32, row: &[u8]) {
        for (at, bytes) in row.chunks(self.piece_bytes()).enumerate() {
            out.extend_from_slice(bytes);
            out.extend_from_slice(&checksum(bucket, at, bytes).to_le_bytes());
        }
    }

    /// How many pieces a row of so many bytes on disk has.
    pub(crate) fn pieces(&self, disk_bytes: u32) -> usize {
        (disk_bytes as usize).div_ceil(self.piece_bytes() + CRC_BYTES)
    }

    /// Which bytes on disk one of them is, of a row of so many.
    pub(crate) fn piece(&self, disk_bytes: u32, at: usize) -> Range<u32> {
        let whole = self.piece_bytes() + CRC_BYTES;
        let place = |at: usize| at.saturating_mul(whole).min(disk_bytes as usize) as u32;
        place(at)..place(at + 1)
    }

    /// The bytes of one piece, its checksum verified.
    pub(crate) fn open_piece<'a>(
        &self,
        bucket: u32,
        at: usize,
        piece: &'a [u8],
    ) -> Result<&'a [u8], DecodeError> {
        let short = DecodeError { what: "row ends early", at: piece.len() };
        let (bytes, crc) = piece.split_last_chunk::<CRC_BYTES>().ok_or(short)?;
        if checksum(bucket, at, bytes) == u32::from_le_bytes(*crc) {
            Ok(bytes)
        } else {
            Err(DecodeError { what: "checksum of a row does not match", at: at * PIECE_BYTES })
        }
    }

    /// The row that stands on disk so, all checksums verified; `room` is used where it has several pieces.
    pub(crate) fn open_row<'a>(
        &self,
        bucket: u32,
        on_disk: &'a [u8],
        room: &'a mut Vec<u8>,
    ) -> Result<&'a [u8], DecodeError> {
        let whole = self.piece_bytes() + CRC_BYTES;
        if on_disk.len() <= whole {
            return if on_disk.is_empty() { Ok(on_disk) } else { self.open_piece(bucket, 0, on_disk) };
        }
        room.clear();
        for (at, piece) in on_disk.chunks(whole).enumerate() {
            room.extend_from_slice(self.open_piece(bucket, at, piece)?);
        }
        Ok(room)
    }

    /// How many entries a row has.
    pub(crate) fn count(&self, row: &[u8]) -> Result<u64, DecodeError> {
        let mut entries = self.entries(0, row);
        if let Some(content) = self.content_bytes {
            return Ok((row.len() / (N - self.skipped() + content)) as u64);
        }
        let mut count = 0;
        while entries.step()?.is_some() {
            count += 1;
        }
        Ok(count)
    }

    /// Appends an entry to a row. Entries come in the order of their keys.
    pub(crate) fn put(&self, row: &mut Vec<u8>, key: &[u8; N], content: &[u8]) {
        row.extend_from_slice(&key[self.skipped()..]);
        if self.content_bytes.is_none() {
            put_varint(row, content.len() as u64);
        }
        row.extend_from_slice(content);
    }

    /// The entries of a bucket's row.
    pub(crate) fn entries<'a>(&self, bucket: u32, row: &'a [u8]) -> Entries<'a, N> {
        let start = u64::from(bucket) << (MAX_BITS - self.bits);
        let mut head = [0; N];
        let start = (start as u32).to_be_bytes();
        for (byte, known) in head.iter_mut().zip(start).take(self.skipped()) {
            *byte = known;
        }
        Entries { shape: *self, head, row, at: 0 }
    }

    /// The entries of a bucket's row from a place on where one begins.
    pub(crate) fn entries_at<'a>(&self, bucket: u32, row: &'a [u8], at: usize) -> Entries<'a, N> {
        Entries { at: at.min(row.len()), ..self.entries(bucket, row) }
    }

    /// The entries of a bucket's row from a key on. Where all are of one size they are not walked through.
    pub(crate) fn entries_from<'a>(
        &self,
        row: &'a [u8],
        key: &[u8; N],
    ) -> Result<Entries<'a, N>, DecodeError> {
        let wanted = &key[self.skipped()..];
        let mut entries = self.entries(self.bucket(key), row);
        if let Some(content) = self.content_bytes {
            let size = wanted.len() + content;
            let (mut low, mut high) = (0, row.len() / size);
            while low < high {
                let middle = (low + high) / 2;
                let tail = &row[middle * size..middle * size + wanted.len()];
                if tail < wanted { low = middle + 1 } else { high = middle }
            }
            entries.at = low * size;
            return Ok(entries);
        }
        loop {
            let at = entries.at;
            match entries.step()? {
                Some((tail, _)) if tail < wanted => {}
                _ => {
                    entries.at = at;
                    return Ok(entries);
                }
            }
        }
    }

    /// Whether all entries of a piece have lower keys, where all are of one size.
    pub(crate) fn ends_before(&self, piece: &[u8], key: &[u8; N]) -> bool {
        let wanted = &key[self.skipped()..];
        let last = piece.len().saturating_sub(wanted.len() + self.content_bytes.unwrap_or(0));
        piece.get(last..last + wanted.len()).is_some_and(|tail| tail < wanted)
    }

    /// The content of one entry.
    #[cfg(test)]
    pub(crate) fn find<'a>(&self, row: &'a [u8], key: &[u8; N]) -> Result<Option<&'a [u8]>, DecodeError> {
        let found = self.entries_from(row, key)?.next()?;
        Ok(found.filter(|(at, _)| at == key).map(|(_, content)| content))
    }
}

/// A key, or what of it is stored, and the content.
type Entry<'a, K> = (K, &'a [u8]);

/// Walks a row.
#[derive(Debug)]
pub(crate) struct Entries<'a, const N: usize> {
    shape: Shape<N>,
    head: [u8; N],
    row: &'a [u8],
    at: usize,
}

impl<'a, const N: usize> Entries<'a, N> {
    /// The next entry: the stored part of its key, and its content.
    fn step(&mut self) -> Result<Option<Entry<'a, &'a [u8]>>, DecodeError> {
        let rest = &self.row[self.at..];
        if rest.is_empty() {
            return Ok(None);
        }
        let short = DecodeError { what: "row ends early", at: self.at };
        let (tail, rest) = rest.split_at_checked(N - self.shape.skipped()).ok_or(short)?;
        let (length, prefix) = match self.shape.content_bytes {
            Some(length) => (length, 0),
            None => {
                let mut reader = Reader::new(rest);
                let length = reader.count(1)?;
                (length, reader.position())
            }
        };
        let content = rest.get(prefix..prefix + length).ok_or(short)?;
        self.at += tail.len() + prefix + length;
        Ok(Some((tail, content)))
    }

    /// Where the next entry begins.
    pub(crate) fn position(&self) -> usize {
        self.at
    }

    /// The next entry: its key, and its content.
    pub(crate) fn next(&mut self) -> Result<Option<Entry<'a, [u8; N]>>, DecodeError> {
        let Some((tail, content)) = self.step()? else { return Ok(None) };
        let mut key = self.head;
        key[N - tail.len()..].copy_from_slice(tail);
        Ok(Some((key, content)))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn decode(shape: Shape<12>, number: u32, row: &[u8]) -> Result<BTreeMap<[u8; 12], Vec<u8>>, DecodeError> {
        let mut found = BTreeMap::new();
        let mut walk = shape.entries(number, row);
        while let Some((key, content)) = walk.next()? {
            found.insert(key, content.to_vec());
        }
        Ok(found)
    }

    proptest! {
        #[test]
        fn entries_come_back_whatever_the_shape(
            keys in proptest::collection::btree_map(any::<[u8; 12]>(), proptest::collection::vec(any::<u8>(), 0..200), 0..50),
            bits in 0..=MAX_BITS,
        ) {
            let shape = Shape::<12> { bits, content_bytes: None };
            let mut rows: BTreeMap<u32, Vec<u8>> = BTreeMap::new();
            for (key, content) in &keys {
                shape.put(rows.entry(shape.bucket(key)).or_default(), key, content);
            }
            let mut found = BTreeMap::new();
            for (number, row) in &rows {
                let entries = decode(shape, *number, row).unwrap();
                for (key, content) in &entries {
                    prop_assert_eq!(shape.find(row, key).unwrap(), Some(content.as_slice()));
                }
                found.extend(entries);
            }
            prop_assert_eq!(found, keys);
        }

        #[test]
        fn any_bytes_are_a_row_or_an_error(row in proptest::collection::vec(any::<u8>(), 0..300), key: [u8; 12]) {
            for content_bytes in [None, Some(0), Some(25)] {
                let shape = Shape::<12> { bits: 16, content_bytes };
                let _ = shape.find(&row, &key);
                if let Ok(entries) = decode(shape, 0, &row) {
                    prop_assert!(entries.len() <= row.len());
                }
            }
        }
    }
}
