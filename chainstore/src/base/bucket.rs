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

/// The bits for so many entries whose keys have their first `depth` bits in common.
pub(crate) fn bits_for(entries: u64, depth: u8) -> u8 {
    let buckets = entries / ENTRIES;
    let bits = buckets.checked_ilog2().unwrap_or(0) as u8 + depth;
    bits.clamp(MIN_BITS, MAX_BITS)
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

    /// The entries of a bucket's row from a place on where one begins.
    pub(crate) fn entries_at<'a>(&self, bucket: u32, row: &'a [u8], at: usize) -> Entries<'a, N> {
        Entries { at: at.min(row.len()), ..self.entries(bucket, row) }
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
            bits in MIN_BITS..=MAX_BITS,
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
                let shape = Shape::<12> { bits: MIN_BITS, content_bytes };
                let _ = shape.find(&row, &key);
                if let Ok(entries) = decode(shape, 0, &row) {
                    prop_assert!(entries.len() <= row.len());
                }
            }
        }
    }
}
