//! The rows of a part one after another, read in long pieces.

use super::bucket::Shape;
use super::part::{BUCKETS, Part, STRETCH_BYTES, Stretch};
use crate::codec::DecodeError;
use crate::error::Error;

/// Bytes of rows, and stretches of the directory, that are read at once.
const BUFFER_BYTES: u64 = 256 * 1024;
const STRETCHES: u64 = 64;

/// Walks through the rows of a part.
pub(super) struct Walk<'a> {
    part: &'a Part,
    /// Stretches of the directory from this number on, to be looked at from the first on.
    stretches: Vec<u8>,
    next_stretch: u64,
    at: usize,
    /// The stretch that is walked through, and the next of its buckets.
    stretch: Option<(u32, Stretch)>,
    slot: usize,
    /// Bytes of the file from a place on.
    buffer: Vec<u8>,
    start: u64,
    /// The row, by its bucket and its place in `buffer`.
    row: Option<(u32, std::ops::Range<usize>)>,
}

impl<'a> Walk<'a> {
    pub(super) fn new(part: &'a Part) -> Self {
        Self {
            part,
            stretches: Vec::new(),
            next_stretch: 0,
            at: 0,
            stretch: None,
            slot: 0,
            buffer: Vec::new(),
            start: 0,
            row: None,
        }
    }

    /// Goes to the next row; `false` at the end.
    pub(super) fn step(&mut self) -> Result<bool, Error> {
        self.row = None;
        loop {
            let (number, stretch) = match &self.stretch {
                Some((number, stretch)) => (*number, stretch),
                None => match self.read_stretch()? {
                    Some(stretch) => {
                        self.slot = 0;
                        let (number, stretch) = self.stretch.insert(stretch);
                        (*number, &*stretch)
                    }
                    None => return Ok(false),
                },
            };
            let rest = stretch.lengths.iter().skip(self.slot);
            let Some(empty) = rest.clone().position(|length| *length > 0) else {
                self.stretch = None;
                continue;
            };
            let slot = self.slot + empty;
            let (start, length) = stretch.place(slot);
            let bucket = u64::from(number) * BUCKETS as u64 + slot as u64;
            if bucket >= self.part.layout.buckets {
                return Err(Error::corrupt(&self.part.file.name, "a row of a bucket beyond its range"));
            }
            self.slot = slot + 1;
            let row = self.read(start, length)?;
            self.row = Some((self.part.layout.first + bucket as u32, row));
            return Ok(true);
        }
    }

    fn read_stretch(&mut self) -> Result<Option<(u32, Stretch)>, Error> {
        if self.at == self.stretches.len() {
            let layout = &self.part.layout;
            let count = (layout.stretches() - self.next_stretch).min(STRETCHES);
            self.stretches.resize(count as usize * STRETCH_BYTES, 0);
            self.at = 0;
            if count == 0 {
                return Ok(None);
            }
            let from = layout.directory + self.next_stretch * STRETCH_BYTES as u64;
            self.part.file.read(&mut self.stretches, from)?;
        }
        let Some(bytes) = self.stretches.get(self.at..).and_then(|bytes| bytes.first_chunk()) else {
            return Ok(None);
        };
        let number = self.next_stretch as u32;
        let stretch = self.part.stretch(number, bytes)?;
        self.at += STRETCH_BYTES;
        self.next_stretch += 1;
        Ok(Some((number, stretch)))
    }

    /// Where in the buffer so many bytes of the file are.
    fn read(&mut self, start: u64, length: u32) -> Result<std::ops::Range<usize>, Error> {
        self.part.within(start, u64::from(length))?;
        let is_there =
            start >= self.start && start - self.start + u64::from(length) <= self.buffer.len() as u64;
        if !is_there {
            let most = self.part.layout.rows_end - start;
            let bytes = most.min(u64::from(length).max(BUFFER_BYTES));
            self.buffer.resize(bytes as usize, 0);
            self.part.file.read(&mut self.buffer, start)?;
            self.start = start;
        }
        let from = (start - self.start) as usize;
        Ok(from..from + length as usize)
    }

    /// The bucket of the row.
    pub(super) fn bucket(&self) -> Option<u32> {
        self.row.as_ref().map(|(bucket, _)| *bucket)
    }

    /// The row as it stands on disk; nothing of it is verified.
    pub(super) fn on_disk(&self) -> &[u8] {
        self.row.as_ref().and_then(|(_, place)| self.buffer.get(place.clone())).unwrap_or_default()
    }

    /// The row, its checksums verified, in the place of what `row` had.
    pub(super) fn open<const N: usize>(&self, shape: Shape<N>, row: &mut Vec<u8>) -> Result<(), Error> {
        row.clear();
        let Some(bucket) = self.bucket() else { return Ok(()) };
        let mut room = Vec::new();
        let opened = shape.open_row(bucket, self.on_disk(), &mut room);
        row.extend_from_slice(opened.map_err(|fault| self.fault(fault))?);
        Ok(())
    }

    pub(super) fn fault(&self, fault: DecodeError) -> Error {
        self.part.fault(fault)
    }
}
