//! Sorted runs: files of records in order, written once, read in order, merged.
//!
//! ```text
//! run  | page, for each |
//! page | records, as many as fit 4,092 bytes | zeros up to there | crc32c of all before 4 |
//! ```
//! A run counts once the bulk row names it, with its length; others are leftovers of a crash, and go when the folder
//! is opened. No record is believed before its page's checksum was compared.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;
use std::marker::PhantomData;

use super::rows::Row;
use crate::disk::{Disk, NamedFile};
use crate::error::Error;

pub(crate) const DIR: &str = "bulk";
/// Bytes of a page, and of the records in it.
pub(crate) const PAGE: usize = 4096;
const BODY: usize = PAGE - 4;
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
}

impl RunInfo {
    pub(crate) fn name(&self) -> String {
        name(self.number)
    }
}

fn name(number: u32) -> String {
    format!("{DIR}/{number:06}.run")
}

/// Records of a page.
pub(crate) const fn page_rows<R: Row>() -> usize {
    BODY / R::LEN
}

/// Reads a page and compares its checksum; the records of it are `rows`.
pub(crate) fn read_page<R: Row>(
    file: &NamedFile,
    info: &RunInfo,
    page: u64,
) -> Result<(Vec<u8>, usize), Error> {
    let mut bytes = vec![0; PAGE];
    file.read(&mut bytes, page * PAGE as u64)?;
    check_page(&file.name, &bytes)?;
    let first = page * page_rows::<R>() as u64;
    Ok((bytes, (info.records.saturating_sub(first)).min(page_rows::<R>() as u64) as usize))
}

fn check_page(name: &str, page: &[u8]) -> Result<(), Error> {
    match page.split_last_chunk::<4>() {
        Some((body, crc)) if crc32c::crc32c(body) == u32::from_le_bytes(*crc) => Ok(()),
        _ => Err(Error::corrupt(name, "checksum does not match")),
    }
}

/// Writes one run, records in ascending order.
#[derive(Debug)]
pub(crate) struct RunWriter<R> {
    file: NamedFile,
    info: RunInfo,
    /// Whole pages, and the one that is being filled.
    buffer: Vec<u8>,
    page_start: usize,
    written: u64,
    row: PhantomData<R>,
}

impl<R: Row> RunWriter<R> {
    pub(crate) fn new(disk: &dyn Disk, kind: Kind, level: u8, number: u32) -> Result<Self, Error> {
        let file = NamedFile::create(disk, &name(number))?;
        file.set_len(0)?;
        let info = RunInfo { kind, level, number, records: 0 };
        let buffer = Vec::with_capacity(BUFFER_BYTES + PAGE);
        Ok(Self { file, info, buffer, page_start: 0, written: 0, row: PhantomData })
    }

    pub(crate) fn push(&mut self, row: &R) -> Result<(), Error> {
        if self.buffer.len() - self.page_start + R::LEN > BODY {
            self.end_page();
            if self.buffer.len() >= BUFFER_BYTES {
                self.flush()?;
            }
        }
        row.put(&mut self.buffer);
        self.info.records += 1;
        Ok(())
    }

    fn end_page(&mut self) {
        self.buffer.resize(self.page_start + BODY, 0);
        let crc = crc32c::crc32c(&self.buffer[self.page_start..]);
        self.buffer.extend_from_slice(&crc.to_le_bytes());
        self.page_start = self.buffer.len();
    }

    fn flush(&mut self) -> Result<(), Error> {
        self.file.write(&self.buffer, self.written)?;
        self.written += self.buffer.len() as u64;
        self.buffer.clear();
        self.page_start = 0;
        Ok(())
    }

    /// Makes the records durable; their name is when the folder is synced.
    pub(crate) fn finish(mut self) -> Result<RunInfo, Error> {
        if self.buffer.len() > self.page_start {
            self.end_page();
        }
        self.flush()?;
        self.file.sync()?;
        Ok(self.info)
    }
}

/// Heads of keys, as far as the index keeps them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Heads {
    pub(crate) first: u32,
    pub(crate) last: u32,
    pub(crate) mask: u32,
}

impl Heads {
    pub(crate) const ALL: Self = Self { first: 0, last: u32::MAX, mask: u32::MAX };
}

/// Reads records of one run in their order.
#[derive(Debug)]
pub(crate) struct RunReader<R> {
    file: NamedFile,
    info: RunInfo,
    heads: Heads,
    buffer: Vec<u8>,
    buffer_pages: u64,
    /// Of the buffer, the record to be handed out next.
    at: usize,
    rows: usize,
    /// Next page to be read.
    page: u64,
    row: PhantomData<R>,
}

impl<R: Row> RunReader<R> {
    pub(crate) fn new(
        disk: &dyn Disk,
        info: RunInfo,
        heads: Heads,
        buffer_bytes: usize,
    ) -> Result<Self, Error> {
        let file = NamedFile::open(disk, &info.name())?;
        let pages = info.records.div_ceil(page_rows::<R>() as u64);
        file.cut_to(pages * PAGE as u64)?;
        let buffer_pages = (buffer_bytes / PAGE).max(1) as u64;
        let mut reader = Self {
            file,
            info,
            heads,
            buffer: Vec::new(),
            buffer_pages,
            at: 0,
            rows: 0,
            page: 0,
            row: PhantomData,
        };
        reader.seek()?;
        Ok(reader)
    }

    /// Goes to the first record in the range.
    fn seek(&mut self) -> Result<(), Error> {
        let (mut low, mut high) = (0, self.info.records);
        let wanted = |row: &R| row.head() & self.heads.mask >= self.heads.first;
        if self.heads.first > 0 {
            while low < high {
                let middle = (low + high) / 2;
                let (page, at) = (middle / page_rows::<R>() as u64, middle as usize % page_rows::<R>());
                let (bytes, _) = read_page::<R>(&self.file, &self.info, page)?;
                let row = R::get(&bytes[at * R::LEN..(at + 1) * R::LEN]);
                if wanted(&row) { high = middle } else { low = middle + 1 }
            }
        }
        self.page = low / page_rows::<R>() as u64;
        if low < self.info.records {
            self.fill()?;
            self.at = low as usize % page_rows::<R>();
        } else {
            self.page = self.pages();
        }
        Ok(())
    }

    fn pages(&self) -> u64 {
        self.info.records.div_ceil(page_rows::<R>() as u64)
    }

    pub(crate) fn next(&mut self) -> Result<Option<R>, Error> {
        if self.at == self.rows && !self.fill()? {
            return Ok(None);
        }
        let (page, at) = (self.at / page_rows::<R>(), self.at % page_rows::<R>());
        let start = page * PAGE + at * R::LEN;
        let row = R::get(&self.buffer[start..start + R::LEN]);
        self.at += 1;
        Ok((row.head() & self.heads.mask <= self.heads.last).then_some(row))
    }

    /// `false` at the end.
    fn fill(&mut self) -> Result<bool, Error> {
        let pages = (self.pages() - self.page).min(self.buffer_pages);
        if pages == 0 {
            return Ok(false);
        }
        self.buffer.resize(pages as usize * PAGE, 0);
        self.file.read(&mut self.buffer, self.page * PAGE as u64)?;
        for page in self.buffer.chunks_exact(PAGE) {
            check_page(&self.file.name, page)?;
        }
        let first = self.page * page_rows::<R>() as u64;
        self.rows = (self.info.records - first).min(pages * page_rows::<R>() as u64) as usize;
        self.page += pages;
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
    pub(crate) fn new(
        disk: &dyn Disk,
        runs: &[RunInfo],
        range: Heads,
        memory_bytes: usize,
    ) -> Result<Self, Error> {
        let buffer_bytes = (memory_bytes / runs.len().max(1)).clamp(16 * 1024, 1024 * 1024);
        let mut readers = Vec::with_capacity(runs.len());
        let mut heads = BinaryHeap::with_capacity(runs.len());
        for (at, info) in runs.iter().enumerate() {
            let mut reader = RunReader::new(disk, *info, range, buffer_bytes)?;
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
    write_sorted_with(disk, kind, number, rows, |_| {})
}

/// The same; `each` is shown the records in their order.
pub(crate) fn write_sorted_with<R: Row>(
    disk: &dyn Disk,
    kind: Kind,
    number: u32,
    rows: &mut [R],
    mut each: impl FnMut(&R),
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
        each(next);
        writer.push(next)?;
    }
}
