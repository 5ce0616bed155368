//! Many small rows as one: what redb keeps under a bucket's number.
//!
//! A bucket is all keys that share their first bits. Its entries stand in key order, each without the whole bytes
//! that the number says already. A dozen small rows in one cost redb a tenth of the work and half of the space that
//! as many rows of its own would take.
//!
//! ```text
//! row   | entry, for each |
//! entry | key, without its first ⌊bits / 8⌋ bytes | length of what follows, varint, where that differs | content |
//! ```

use std::collections::BTreeMap;

use crate::codec::{DecodeError, Reader, put_varint};

/// Buckets are never fewer than this (as a power of two): in a small index each row is a bucket of its own.
pub(crate) const MIN_BITS: u8 = 16;
/// And never more.
pub(crate) const MAX_BITS: u8 = 32;
/// Entries that a bucket has on the average, where there are many.
const ENTRIES: u64 = 16;

/// How a table's rows are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape<const N: usize> {
    /// Bits of a key that make the number of its bucket.
    pub(crate) bits: u8,
    /// Bytes of an entry's content, where all have the same.
    pub(crate) content_bytes: Option<usize>,
}

/// The bits for a table of so many entries.
pub(crate) fn bits_for(entries: u64) -> u8 {
    let buckets = entries / ENTRIES;
    (buckets.checked_ilog2().unwrap_or(0) as u8).clamp(MIN_BITS, MAX_BITS)
}

impl<const N: usize> Shape<N> {
    /// The bucket of a key.
    pub(crate) fn bucket(&self, key: &[u8; N]) -> u32 {
        let start = key.iter().take(4).fold(0u32, |start, byte| start << 8 | u32::from(*byte));
        start >> (MAX_BITS - self.bits)
    }

    fn skipped(&self) -> usize {
        usize::from(self.bits / 8)
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

    /// The entries of a bucket's row from a key on. Where all are of one size they are not walked through: the
    /// outputs of one transaction are in one bucket, and may be a hundred thousand.
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

    /// The content of one entry.
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

    /// The next entry: its key, and its content.
    pub(crate) fn next(&mut self) -> Result<Option<Entry<'a, [u8; N]>>, DecodeError> {
        let Some((tail, content)) = self.step()? else { return Ok(None) };
        let mut key = self.head;
        key[N - tail.len()..].copy_from_slice(tail);
        Ok(Some((key, content)))
    }
}

/// A bucket to be changed.
#[derive(Debug)]
pub(crate) struct Open<const N: usize> {
    shape: Shape<N>,
    pub(crate) number: u32,
    entries: BTreeMap<[u8; N], Vec<u8>>,
}

impl<const N: usize> Open<N> {
    pub(crate) fn decode(shape: Shape<N>, number: u32, row: &[u8]) -> Result<Self, DecodeError> {
        let mut entries = BTreeMap::new();
        let mut walk = shape.entries(number, row);
        while let Some((key, content)) = walk.next()? {
            entries.insert(key, content.to_vec());
        }
        Ok(Self { shape, number, entries })
    }

    pub(crate) fn get(&self, key: &[u8; N]) -> Option<&[u8]> {
        self.entries.get(key).map(Vec::as_slice)
    }

    /// Puts or removes an entry; back comes whether there was one.
    pub(crate) fn set(&mut self, key: [u8; N], content: Option<Vec<u8>>) -> bool {
        match content {
            Some(content) => self.entries.insert(key, content).is_some(),
            None => self.entries.remove(&key).is_some(),
        }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut row = Vec::new();
        for (key, content) in &self.entries {
            self.shape.put(&mut row, key, content);
        }
        row
    }
}

/// Gathers entries in key order into rows.
#[derive(Debug)]
pub(crate) struct RowMaker<const N: usize> {
    shape: Shape<N>,
    current: Option<u32>,
    rows: Rows,
}

/// Rows one behind the other: the number of each, and where it ends.
#[derive(Debug, Default)]
pub(crate) struct Rows {
    pub(crate) bytes: Vec<u8>,
    pub(crate) ends: Vec<(u32, usize)>,
}

impl<const N: usize> RowMaker<N> {
    pub(crate) fn new(shape: Shape<N>) -> Self {
        Self { shape, current: None, rows: Rows::default() }
    }

    /// Adds an entry; `true` when enough rows are complete to be taken.
    pub(crate) fn push(&mut self, key: &[u8; N], content: &[u8]) -> Option<Rows> {
        const TAKE_BYTES: usize = 256 * 1024;
        let bucket = self.shape.bucket(key);
        let mut taken = None;
        if self.current != Some(bucket) {
            self.close();
            if self.rows.bytes.len() >= TAKE_BYTES {
                taken = Some(std::mem::take(&mut self.rows));
            }
            self.current = Some(bucket);
        }
        self.shape.put(&mut self.rows.bytes, key, content);
        taken
    }

    /// What is left.
    pub(crate) fn finish(mut self) -> Rows {
        self.close();
        self.rows
    }

    fn close(&mut self) {
        if let Some(bucket) = self.current.take() {
            self.rows.ends.push((bucket, self.rows.bytes.len()));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn entries_come_back_whatever_the_shape(
            keys in proptest::collection::btree_map(any::<[u8; 12]>(), proptest::collection::vec(any::<u8>(), 0..200), 0..50),
            bits in MIN_BITS..=MAX_BITS,
        ) {
            let shape = Shape::<12> { bits, content_bytes: None };
            let mut maker = RowMaker::new(shape);
            for (key, content) in &keys {
                prop_assert!(maker.push(key, content).is_none());
            }
            let rows = maker.finish();
            let mut found = BTreeMap::new();
            let mut start = 0;
            for (number, end) in &rows.ends {
                let row = &rows.bytes[start..*end];
                let open = Open::decode(shape, *number, row).unwrap();
                prop_assert_eq!(open.encode(), row);
                for (key, content) in &open.entries {
                    prop_assert_eq!(shape.find(row, key).unwrap(), Some(content.as_slice()));
                }
                found.extend(open.entries);
                start = *end;
            }
            prop_assert_eq!(found, keys);
        }

        #[test]
        fn any_bytes_are_a_row_or_an_error(row in proptest::collection::vec(any::<u8>(), 0..300), key: [u8; 16]) {
            for content_bytes in [None, Some(0), Some(25)] {
                let shape = Shape::<16> { bits: MIN_BITS, content_bytes };
                let _ = shape.find(&row, &key);
                if let Ok(open) = Open::decode(shape, 0, &row) {
                    prop_assert!(open.entries.len() <= row.len());
                }
            }
        }
    }
}
