//! Finds the records of a file of blocks: `magic 4 | length 4 | block`, with anything in between.
//!
//! A record counts when its length is one that a block can have, its header has proof of work, and the file goes as far
//! as it says. The block itself is jumped over, so most of a file is never read. Where no other record follows at once,
//! the length may have been a lie: then its inside is searched too, as a record that was cut off hides those behind it.
//! So each last record of a file is read whole, which costs little.
//! What a block holds is not looked at: that is checked when it is read again, whole.
//! Source: Bitcoin Core `LoadExternalBlockFile`.

use std::sync::Arc;

use bitcoin::BlockHash;
use bitcoin::block::Header;
use bitcoin::consensus::deserialize;

use crate::validate::{Params, check_proof_of_work};

/// The longest block that there is, in bytes: all of its weight in witnesses.
const MAX_BLOCK_BYTES: u32 = 4_000_000;
/// Header, transaction count, no transaction.
const MIN_BLOCK_BYTES: u32 = 81;
/// Magic and length.
const PREFIX_BYTES: usize = 8;
const HEADER_BYTES: usize = 80;
/// What must be seen of a record to know it.
const HEAD_BYTES: usize = PREFIX_BYTES + HEADER_BYTES;

/// A block in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    pub header: Header,
    pub hash: BlockHash,
    /// Where the block begins: behind magic and length.
    pub offset: u64,
    /// Of the block, in bytes.
    pub length: u32,
}

/// Reads one file: give it the bytes at [`Self::wants`] until that is `None`.
#[derive(Debug)]
pub struct Scanner {
    params: Arc<Params>,
    /// Bytes behind this do not exist: a file may grow while it is read.
    file_len: u64,
    /// Bytes that were given and are still of use, from `start` on.
    buffer: Vec<u8>,
    start: u64,
    /// All of the buffer before this is done with.
    cursor: usize,
    /// A record was jumped over, and its inside, if it is to be searched, begins here.
    inside: Option<u64>,
    cut_off: u64,
}

impl Scanner {
    /// For a file of `file_len` bytes on the network of `params`.
    pub fn new(params: Arc<Params>, file_len: u64) -> Self {
        Self { params, file_len, buffer: Vec::new(), start: 0, cursor: 0, inside: None, cut_off: 0 }
    }

    /// Where the next bytes are to be read; `None` at the end.
    pub fn wants(&self) -> Option<u64> {
        let end = self.start + self.buffer.len() as u64;
        (end < self.file_len).then_some(end)
    }

    /// Takes the bytes at [`Self::wants`], as many as there are, and adds the records that they complete to `found`.
    pub fn push(&mut self, bytes: &[u8], found: &mut Vec<Record>) {
        let left = self.file_len.saturating_sub(self.start + self.buffer.len() as u64);
        let usable = usize::try_from(left).map_or(bytes.len(), |left| left.min(bytes.len()));
        self.buffer.extend_from_slice(&bytes[..usable]);
        while self.step(found) {}
        self.buffer.drain(..self.cursor);
        self.start += self.cursor as u64;
        self.cursor = 0;
    }

    /// Records that claim more than the file has.
    pub fn cut_off(&self) -> u64 {
        self.cut_off
    }

    /// Moves on; `false` when that takes more bytes.
    fn step(&mut self, found: &mut Vec<Record>) -> bool {
        match self.inside {
            Some(inside) => self.look_behind(inside),
            None => self.search(found),
        }
    }

    /// Behind a record: was its length true?
    fn look_behind(&mut self, inside: u64) -> bool {
        let left = usize::try_from(self.file_len - self.at()).map_or(HEAD_BYTES, |left| left.min(HEAD_BYTES));
        let Some(next) = self.rest().get(..left) else { return false };
        let is_true = next.starts_with(&self.params.magic) && self.record(next).is_some();
        self.inside = None;
        if !is_true {
            self.jump(inside);
        }
        true
    }

    fn search(&mut self, found: &mut Vec<Record>) -> bool {
        let magic = self.params.magic;
        let Some(skipped) = self.rest().windows(magic.len()).position(|window| window == magic) else {
            // The magic may have begun in the last bytes.
            self.cursor += (self.rest().len()).saturating_sub(magic.len() - 1);
            return false;
        };
        self.cursor += skipped;
        if self.file_len - self.at() < HEAD_BYTES as u64 {
            self.cursor += 1;
            return true;
        }
        let Some(head) = self.rest().get(..HEAD_BYTES) else { return false };
        match self.record(head) {
            Some(record) if self.file_len - record.offset >= u64::from(record.length) => {
                found.push(record);
                self.inside = Some(record.offset + HEADER_BYTES as u64);
                self.jump(record.offset + u64::from(record.length));
            }
            Some(_) => {
                self.cut_off += 1;
                self.cursor += HEAD_BYTES;
            }
            None => self.cursor += 1,
        }
        true
    }

    /// The record that begins with these bytes, if it is one.
    fn record(&self, head: &[u8]) -> Option<Record> {
        let (prefix, header) = head.split_at_checked(PREFIX_BYTES)?;
        let length = u32::from_le_bytes(prefix.get(4..)?.try_into().ok()?);
        if !(MIN_BLOCK_BYTES..=MAX_BLOCK_BYTES).contains(&length) {
            return None;
        }
        let header: Header = deserialize(header).ok()?;
        let hash = header.block_hash();
        check_proof_of_work(&header, hash, &self.params).ok()?;
        Some(Record { header, hash, offset: self.at() + PREFIX_BYTES as u64, length })
    }

    /// Goes on at `to`, in the buffer if that has it.
    fn jump(&mut self, to: u64) {
        match to.checked_sub(self.start).and_then(|index| usize::try_from(index).ok()) {
            Some(index) if index <= self.buffer.len() => self.cursor = index,
            Some(_) | None => {
                self.buffer.clear();
                (self.start, self.cursor) = (to, 0);
            }
        }
    }

    fn at(&self) -> u64 {
        self.start + self.cursor as u64
    }

    fn rest(&self) -> &[u8] {
        &self.buffer[self.cursor..]
    }
}

#[cfg(test)]
#[path = "scan_tests.rs"]
mod tests;
