//! One part of the base: an immutable file with the rows of one table over a range of keys.
//!
//! ```text
//! file    | "pdxpart" and 1 | table 1 | depth 1 | the bits 4 | bits of a bucket 1 | entries 8 | bytes of rows 8
//!         | crc32c of all before 4 | rows | zeros up to a multiple of 128 | stretch, for each |
//! stretch | offset of the first row 5 | kind 0: 1 | length of a row 2, for each | crc32c 4 |
//! stretch | offset of its long form 5 | kind 1: 1 | zeros 118 | crc32c 4 |
//! long    | offset of the first row 8 | length of a row 4, for each | crc32c 4 |
//! ```
//! Rows stand in the order of their buckets, one after another (`bucket` says what they are). The directory at the end
//! has a stretch for every 59 buckets of the range; where a row has 65,536 bytes or more the lengths are among the
//! rows. The checksum of a stretch is that of its number 4, and of its bytes.
//!
//! To look for a key are two short reads, which the system's memory answers: nothing is kept here but, where that is
//! little, the directory. Nothing is believed before its checksum was compared, and no place before it was seen to be in
//! the file.
//! A part is written once, in the order of its keys ([`super::write`]), and never changed.

use std::sync::Arc;

use super::bucket::{MAX_BITS, Shape};
use super::list::PartInfo;
use super::rows::{COIN_CONTENT, COIN_KEY, SCRIPT_KEY, TX_KEY};
use crate::codec::{DecodeError, put_crc, put_u32};
use crate::disk::{Disk, NamedFile};
use crate::error::Error;

const MAGIC: [u8; 8] = *b"pdxpart\x01";
pub(super) const HEAD_BYTES: usize = 35;
/// Bytes of a stretch of the directory: an even share of a page, so none lies in two.
pub(super) const STRETCH_BYTES: usize = 128;
const START_BYTES: usize = 5;
const LENGTHS_AT: usize = START_BYTES + 1;
const CRC_AT: usize = STRETCH_BYTES - 4;
/// Buckets of a stretch.
pub(super) const BUCKETS: usize = (CRC_AT - LENGTHS_AT) / 2;
const LONG_BYTES: usize = 8 + 4 * BUCKETS + 4;

/// How the keys of a table make buckets.
pub(crate) fn script_shape(bits: u8) -> Shape<SCRIPT_KEY> {
    Shape { bits, content_bytes: None }
}

pub(crate) fn coin_shape(bits: u8) -> Shape<COIN_KEY> {
    Shape { bits, content_bytes: Some(COIN_CONTENT) }
}

pub(crate) fn tx_shape(bits: u8) -> Shape<TX_KEY> {
    Shape { bits, content_bytes: Some(0) }
}

/// The start of a part's file.
pub(super) fn put_head(out: &mut Vec<u8>, info: &PartInfo) {
    out.extend_from_slice(&MAGIC);
    out.push(info.table.code());
    out.push(info.range.depth());
    put_u32(out, info.range.index());
    out.push(info.bits);
    out.extend_from_slice(&info.entries.to_le_bytes());
    out.extend_from_slice(&info.bytes.to_le_bytes());
    put_crc(out);
}

/// Where things stand in a part's file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    /// Number of the first bucket, and how many there are.
    pub(super) first: u32,
    pub(super) buckets: u64,
    /// Where the rows end and the directory begins, in bytes of the file.
    pub(super) rows_end: u64,
    pub(super) directory: u64,
}

impl Layout {
    pub(super) fn of(info: &PartInfo) -> Self {
        let first = u64::from(info.range.first()) >> MAX_BITS.saturating_sub(info.bits);
        let rows_end = info.bytes.saturating_add(HEAD_BYTES as u64);
        Self {
            first: first as u32,
            buckets: 1 << info.bits.saturating_sub(info.range.depth()).min(MAX_BITS),
            rows_end,
            directory: rows_end.checked_next_multiple_of(STRETCH_BYTES as u64).unwrap_or(u64::MAX),
        }
    }

    pub(super) fn stretches(&self) -> u64 {
        self.buckets.div_ceil(BUCKETS as u64)
    }

    pub(super) fn file_bytes(&self) -> u64 {
        self.directory.saturating_add(self.directory_bytes())
    }

    pub(super) fn directory_bytes(&self) -> u64 {
        self.stretches() * STRETCH_BYTES as u64
    }
}

/// Where the rows of some buckets in a row stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stretch {
    /// Of the first row, in bytes of the file.
    pub(super) start: u64,
    /// On disk.
    pub(super) lengths: [u32; BUCKETS],
}

/// What is found in a stretch of the directory.
pub(super) enum Found {
    Here(Stretch),
    /// Its long form stands there.
    Long(u64),
}

fn checksum(number: u32, bytes: &[u8]) -> [u8; 4] {
    crc32c::crc32c_append(crc32c::crc32c(&number.to_le_bytes()), bytes).to_le_bytes()
}

/// The bytes before a checksum, which must be right.
fn checked(number: u32, bytes: &[u8]) -> Result<&[u8], DecodeError> {
    match bytes.split_last_chunk::<4>() {
        Some((body, crc)) if checksum(number, body) == *crc => Ok(body),
        _ => Err(DecodeError { what: "checksum of the directory does not match", at: bytes.len() }),
    }
}

fn le(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

impl Stretch {
    /// The bytes for the directory; where that needs the long form it is put at the end of `rows`, which are at `end`.
    pub(super) fn encode(
        &self,
        number: u32,
        rows: &mut Vec<u8>,
        end: u64,
    ) -> Result<[u8; STRETCH_BYTES], DecodeError> {
        let is_long = self.lengths.iter().any(|length| *length > u32::from(u16::MAX));
        let mut bytes = [0; STRETCH_BYTES];
        let start = if is_long { end } else { self.start };
        let [low @ .., 0, 0, 0] = start.to_le_bytes() else {
            return Err(DecodeError { what: "more rows than a part may have", at: 0 });
        };
        bytes[..START_BYTES].copy_from_slice(&low);
        bytes[START_BYTES] = u8::from(is_long);
        if is_long {
            let before = rows.len();
            rows.extend_from_slice(&self.start.to_le_bytes());
            self.lengths.iter().for_each(|length| put_u32(rows, *length));
            let crc = checksum(number, &rows[before..]);
            rows.extend_from_slice(&crc);
        } else {
            for (place, length) in
                bytes[LENGTHS_AT..CRC_AT].as_chunks_mut::<2>().0.iter_mut().zip(self.lengths)
            {
                *place = (length as u16).to_le_bytes();
            }
        }
        let crc = checksum(number, &bytes[..CRC_AT]);
        bytes[CRC_AT..].copy_from_slice(&crc);
        Ok(bytes)
    }

    pub(super) fn decode(number: u32, bytes: &[u8; STRETCH_BYTES]) -> Result<Found, DecodeError> {
        let body = checked(number, bytes)?;
        let start = le(&body[..START_BYTES]);
        match body[START_BYTES] {
            0 => {
                let mut lengths = [0; BUCKETS];
                for (length, bytes) in lengths.iter_mut().zip(body[LENGTHS_AT..].as_chunks::<2>().0) {
                    *length = u32::from(u16::from_le_bytes(*bytes));
                }
                Ok(Found::Here(Self { start, lengths }))
            }
            1 => Ok(Found::Long(start)),
            _ => Err(DecodeError { what: "unknown kind of a stretch of the directory", at: START_BYTES }),
        }
    }

    fn decode_long(number: u32, bytes: &[u8; LONG_BYTES]) -> Result<Self, DecodeError> {
        let body = checked(number, bytes)?;
        let mut lengths = [0; BUCKETS];
        for (length, bytes) in lengths.iter_mut().zip(body[8..].as_chunks::<4>().0) {
            *length = u32::from_le_bytes(*bytes);
        }
        Ok(Self { start: le(&body[..8]), lengths })
    }

    /// Where the row of one of its buckets begins, and its length.
    pub(super) fn place(&self, at: usize) -> (u64, u32) {
        let before: u64 = self.lengths.iter().take(at).map(|length| u64::from(*length)).sum();
        (self.start.saturating_add(before), self.lengths.get(at).copied().unwrap_or(0))
    }
}

/// A part that is open.
#[derive(Debug)]
pub(crate) struct Part {
    /// The file's number.
    pub(crate) number: u32,
    pub(super) file: NamedFile,
    pub(super) layout: Layout,
    /// Its directory, where it is kept; no part of it is verified.
    directory: Option<Vec<u8>>,
}

impl Part {
    /// Opens the file of a part and holds its head and its length against what the row of parts says. The directory is
    /// kept in memory if that is wanted.
    pub(crate) fn open(disk: &dyn Disk, info: &PartInfo, keep: bool) -> Result<Arc<Self>, Error> {
        let file = NamedFile::open(disk, &info.name())?;
        let mut part = Self { number: info.file, layout: Layout::of(info), file, directory: None };
        let corrupt = |what: String| Err(Error::corrupt(&part.file.name, what));
        let (found, wanted) = (part.file.len()?, part.layout.file_bytes());
        if found != wanted {
            return corrupt(format!("{found} bytes long, but {wanted} were written"));
        }
        let mut head = [0; HEAD_BYTES];
        part.file.read(&mut head, 0)?;
        let mut expected = Vec::with_capacity(HEAD_BYTES);
        put_head(&mut expected, info);
        if head[..MAGIC.len()] != MAGIC {
            return corrupt("is no part of an index".to_owned());
        }
        if head[..] != expected[..] {
            return corrupt("its head is not that of the part that the row of parts names".to_owned());
        }
        if keep {
            // As long as the end of the file, which is there.
            let mut directory = vec![0; part.layout.directory_bytes() as usize];
            part.file.read(&mut directory, part.layout.directory)?;
            part.directory = Some(directory);
        }
        Ok(Arc::new(part))
    }

    pub(crate) fn fault(&self, fault: DecodeError) -> Error {
        Error::corrupt(&self.file.name, fault.to_string())
    }

    /// A stretch of the directory from its bytes there.
    pub(super) fn stretch(&self, number: u32, bytes: &[u8; STRETCH_BYTES]) -> Result<Stretch, Error> {
        match Stretch::decode(number, bytes).map_err(|fault| self.fault(fault))? {
            Found::Here(stretch) => Ok(stretch),
            Found::Long(at) => {
                let mut bytes = [0; LONG_BYTES];
                self.within(at, LONG_BYTES as u64)?;
                self.file.read(&mut bytes, at)?;
                Stretch::decode_long(number, &bytes).map_err(|fault| self.fault(fault))
            }
        }
    }

    /// Refuses a place that is not among the rows.
    pub(super) fn within(&self, at: u64, bytes: u64) -> Result<(), Error> {
        let ends = at.checked_add(bytes).is_some_and(|end| end <= self.layout.rows_end);
        if ends && at >= HEAD_BYTES as u64 {
            return Ok(());
        }
        Err(Error::corrupt(&self.file.name, format!("{bytes} bytes at {at} are not among its rows")))
    }

    /// Where the row of a bucket stands, and its length on disk, 0 where there is none.
    fn place(&self, bucket: u32) -> Result<(u64, u32), Error> {
        let at = bucket.checked_sub(self.layout.first).filter(|at| u64::from(*at) < self.layout.buckets);
        let Some(at) = at else { return Ok((HEAD_BYTES as u64, 0)) };
        let (number, slot) = (at / BUCKETS as u32, at as usize % BUCKETS);
        let from = u64::from(number) * STRETCH_BYTES as u64;
        let kept =
            self.directory.as_ref().and_then(|directory| directory.get(from as usize..)?.first_chunk());
        let (at, length) = match kept {
            Some(bytes) => self.stretch(number, bytes)?.place(slot),
            None => {
                let mut bytes = [0; STRETCH_BYTES];
                self.file.read(&mut bytes, self.layout.directory + from)?;
                self.stretch(number, &bytes)?.place(slot)
            }
        };
        self.within(at, u64::from(length))?;
        Ok((at, length))
    }

    /// Shows the entries from one key to another of the same bucket, in order.
    pub(crate) fn each<const N: usize>(
        &self,
        shape: Shape<N>,
        first: &[u8; N],
        last: &[u8; N],
        mut each: impl FnMut(&[u8; N], &[u8]) -> Result<(), DecodeError>,
    ) -> Result<(), Error> {
        let bucket = shape.bucket(first);
        let (start, length) = self.place(bucket)?;
        if length == 0 {
            return Ok(());
        }
        let mut row = Row { part: self, bucket, start, length, shape, bytes: Vec::new(), room: Vec::new() };
        let pieces = shape.pieces(length);
        // Entries of one size are whole in their pieces.
        let (mut at, end) = match shape.content_bytes {
            Some(_) => (row.piece_of(pieces, first)?, pieces),
            None => (0, 1),
        };
        while at < end {
            let bytes = match shape.content_bytes {
                Some(_) => row.piece(at)?,
                None => row.whole()?,
            };
            let mut entries = shape.entries_from(bytes, first).map_err(|fault| self.fault(fault))?;
            while let Some((key, content)) = entries.next().map_err(|fault| self.fault(fault))? {
                if key > *last {
                    return Ok(());
                }
                each(&key, content).map_err(|fault| self.fault(fault))?;
            }
            at += 1;
        }
        Ok(())
    }
}

/// The row of a bucket, on disk.
struct Row<'a, const N: usize> {
    part: &'a Part,
    bucket: u32,
    start: u64,
    length: u32,
    shape: Shape<N>,
    bytes: Vec<u8>,
    room: Vec<u8>,
}

impl<const N: usize> Row<'_, N> {
    fn whole(&mut self) -> Result<&[u8], Error> {
        // No longer than the file: its place was looked at.
        self.bytes.resize(self.length as usize, 0);
        self.part.file.read(&mut self.bytes, self.start)?;
        let row = self.shape.open_row(self.bucket, &self.bytes, &mut self.room);
        row.map_err(|fault| self.part.fault(fault))
    }

    fn piece(&mut self, at: usize) -> Result<&[u8], Error> {
        let place = self.shape.piece(self.length, at);
        self.bytes.resize(place.len(), 0);
        self.part.file.read(&mut self.bytes, self.start + u64::from(place.start))?;
        let piece = self.shape.open_piece(self.bucket, at, &self.bytes);
        piece.map_err(|fault| self.part.fault(fault))
    }

    /// The first of its pieces that may have a key, by halves.
    fn piece_of(&mut self, pieces: usize, key: &[u8; N]) -> Result<usize, Error> {
        let (mut low, mut high) = (0, pieces.saturating_sub(1));
        while low < high {
            let middle = (low + high) / 2;
            let shape = self.shape;
            let ends_before = shape.ends_before(self.piece(middle)?, key);
            if ends_before { low = middle + 1 } else { high = middle }
        }
        Ok(low)
    }
}
