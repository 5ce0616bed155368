//! Sorted runs: files of records in order, written once, read in order, merged.
//!
//! A run counts once the bulk row names it, with its length and checksum; others are leftovers of a crash, and go
//! when the folder is opened.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;
use std::marker::PhantomData;

use super::rows::Row;
use crate::disk::{Disk, NamedFile};
use crate::error::Error;

pub(crate) const DIR: &str = "bulk";
/// Bytes that a writer gathers, and a reader of few runs reads at once.
const BUFFER_BYTES: usize = 256 * 1024;

/// Which table a run ends in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    History,
    Txs,
    Coins,
    Unspent,
}

/// A run as the bulk row names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RunInfo {
    pub(crate) kind: Kind,
    /// How often its records were merged.
    pub(crate) level: u8,
    pub(crate) number: u32,
    pub(crate) records: u64,
    pub(crate) crc: u32,
}

impl RunInfo {
    pub(crate) fn name(&self) -> String {
        name(self.number)
    }
}

fn name(number: u32) -> String {
    format!("{DIR}/{number:06}.run")
}

/// Writes one run, records in ascending order.
#[derive(Debug)]
pub(crate) struct RunWriter<R> {
    file: NamedFile,
    info: RunInfo,
    buffer: Vec<u8>,
    written: u64,
    row: PhantomData<R>,
}

impl<R: Row> RunWriter<R> {
    pub(crate) fn new(disk: &dyn Disk, kind: Kind, level: u8, number: u32) -> Result<Self, Error> {
        let file = NamedFile::create(disk, &name(number))?;
        file.set_len(0)?;
        let info = RunInfo { kind, level, number, records: 0, crc: 0 };
        Ok(Self {
            file,
            info,
            buffer: Vec::with_capacity(BUFFER_BYTES + R::LEN),
            written: 0,
            row: PhantomData,
        })
    }

    pub(crate) fn push(&mut self, row: &R) -> Result<(), Error> {
        row.put(&mut self.buffer);
        self.info.records += 1;
        if self.buffer.len() >= BUFFER_BYTES { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), Error> {
        self.file.write(&self.buffer, self.written)?;
        self.info.crc = crc32c::crc32c_append(self.info.crc, &self.buffer);
        self.written += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    /// Makes the records durable; their name is when the folder is synced.
    pub(crate) fn finish(mut self) -> Result<RunInfo, Error> {
        self.flush()?;
        self.file.sync()?;
        Ok(self.info)
    }
}

/// Reads one run from its start.
#[derive(Debug)]
pub(crate) struct RunReader<R> {
    file: NamedFile,
    info: RunInfo,
    buffer: Vec<u8>,
    buffer_bytes: usize,
    /// Of the buffer, what was handed out.
    at: usize,
    /// Bytes read from the file.
    read: u64,
    crc: u32,
    row: PhantomData<R>,
}

impl<R: Row> RunReader<R> {
    pub(crate) fn new(disk: &dyn Disk, info: RunInfo, buffer_bytes: usize) -> Result<Self, Error> {
        let file = NamedFile::open(disk, &info.name())?;
        file.cut_to(info.records * R::LEN as u64)?;
        let buffer_bytes = (buffer_bytes / R::LEN).max(1) * R::LEN;
        Ok(Self { file, info, buffer: Vec::new(), buffer_bytes, at: 0, read: 0, crc: 0, row: PhantomData })
    }

    pub(crate) fn next(&mut self) -> Result<Option<R>, Error> {
        if self.at == self.buffer.len() && !self.fill()? {
            return Ok(None);
        }
        let row = R::get(&self.buffer[self.at..self.at + R::LEN]);
        self.at += R::LEN;
        Ok(Some(row))
    }

    /// `false` at the end, where the checksum must be right.
    fn fill(&mut self) -> Result<bool, Error> {
        let left = self.info.records * R::LEN as u64 - self.read;
        if left == 0 {
            if self.crc != self.info.crc {
                return Err(Error::corrupt(&self.info.name(), "checksum does not match"));
            }
            return Ok(false);
        }
        self.buffer.resize((self.buffer_bytes as u64).min(left) as usize, 0);
        self.file.read(&mut self.buffer, self.read)?;
        self.crc = crc32c::crc32c_append(self.crc, &self.buffer);
        self.read += self.buffer.len() as u64;
        self.at = 0;
        Ok(true)
    }
}

/// Several runs of one kind as one, in order. Of equal records those of earlier runs come first.
#[derive(Debug)]
pub(crate) struct Merge<R: Row> {
    readers: Vec<RunReader<R>>,
    heads: BinaryHeap<Reverse<(R, usize)>>,
}

impl<R: Row> Merge<R> {
    /// `memory_bytes` for all buffers.
    pub(crate) fn new(disk: &dyn Disk, runs: &[RunInfo], memory_bytes: usize) -> Result<Self, Error> {
        let buffer_bytes = (memory_bytes / runs.len().max(1)).clamp(16 * 1024, 1024 * 1024);
        let mut readers = Vec::with_capacity(runs.len());
        let mut heads = BinaryHeap::with_capacity(runs.len());
        for (at, info) in runs.iter().enumerate() {
            let mut reader = RunReader::new(disk, *info, buffer_bytes)?;
            heads.extend(reader.next()?.map(|row| Reverse((row, at))));
            readers.push(reader);
        }
        Ok(Self { readers, heads })
    }

    /// The next record, and which run it is of.
    pub(crate) fn next(&mut self) -> Result<Option<(R, usize)>, Error> {
        let Some(mut head) = self.heads.peek_mut() else { return Ok(None) };
        let Reverse((row, at)) = *head;
        match self.readers[at].next()? {
            Some(next) => *head = Reverse((next, at)),
            None => drop(PeekMut::pop(head)),
        }
        Ok(Some((row, at)))
    }
}

/// Sorts on two threads and writes a run.
pub(crate) fn write_sorted<R: Row>(
    disk: &dyn Disk,
    kind: Kind,
    number: u32,
    rows: &mut [R],
) -> Result<RunInfo, Error> {
    let middle = rows.len() / 2;
    let (low, high) = rows.split_at_mut(middle);
    std::thread::scope(|scope| {
        scope.spawn(|| low.sort_unstable());
        high.sort_unstable();
    });
    let mut writer = RunWriter::new(disk, kind, 0, number)?;
    let (mut low, mut high) = (&*low, &*high);
    loop {
        let next = match (low.split_first(), high.split_first()) {
            (Some((one, rest)), Some((other, _))) if one <= other => {
                low = rest;
                one
            }
            (_, Some((other, rest))) => {
                high = rest;
                other
            }
            (Some((one, rest)), None) => {
                low = rest;
                one
            }
            (None, None) => return writer.finish(),
        };
        writer.push(next)?;
    }
}
