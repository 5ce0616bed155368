//! Writes the file of a part from its start to its end, once.
//!
//! Rows go to a buffer and from there to the end of the file; the directory is kept until all rows are there (two
//! bytes a bucket), and the head comes last. The file is durable after [`PartWriter::finish`], its name when the folder
//! is synced; it counts once the row of parts names it.

use super::bucket::Shape;
use super::list::{DIR, PartInfo};
use super::part::{BUCKETS, HEAD_BYTES, Layout, Stretch, put_head};
use crate::codec::DecodeError;
use crate::disk::{Disk, NamedFile, remove};
use crate::error::Error;

/// Bytes that are written at once.
const BUFFER_BYTES: usize = 1 << 20;

/// See the module.
pub(super) struct PartWriter<const N: usize> {
    file: NamedFile,
    shape: Shape<N>,
    info: PartInfo,
    layout: Layout,
    /// The row that is gathered, and its bucket.
    row: Vec<u8>,
    bucket: Option<u32>,
    /// What is not written yet, and where it goes.
    buffer: Vec<u8>,
    written: u64,
    /// The stretch that is gathered, its number, and those before it.
    stretch: Stretch,
    number: u32,
    directory: Vec<u8>,
}

impl<const N: usize> PartWriter<N> {
    /// Begins the file of `info`, whose entries and bytes are counted here.
    pub(super) fn create(disk: &dyn Disk, info: PartInfo, shape: Shape<N>) -> Result<Self, Error> {
        let file = NamedFile::create(disk, &info.name())?;
        file.set_len(0)?;
        let info = PartInfo { entries: 0, bytes: 0, ..info };
        let start = HEAD_BYTES as u64;
        Ok(Self {
            file,
            shape,
            info,
            layout: Layout::of(&info),
            row: Vec::new(),
            bucket: None,
            buffer: Vec::with_capacity(BUFFER_BYTES + BUFFER_BYTES / 16),
            written: start,
            stretch: Stretch { start, lengths: [0; BUCKETS] },
            number: 0,
            directory: Vec::new(),
        })
    }

    fn fault(&self, fault: DecodeError) -> Error {
        Error::corrupt(&self.file.name, fault.to_string())
    }

    /// Puts an entry behind all others.
    pub(super) fn put(&mut self, key: &[u8; N], content: &[u8]) -> Result<(), Error> {
        let bucket = self.shape.bucket(key);
        if self.bucket != Some(bucket) {
            self.end_row()?;
            self.bucket = Some(bucket);
        }
        self.shape.put(&mut self.row, key, content);
        self.info.entries += 1;
        Ok(())
    }

    /// Whether the last entry is of this bucket.
    pub(super) fn is_at(&self, bucket: u32) -> bool {
        self.bucket == Some(bucket)
    }

    /// Puts a whole row of a part of the same shape behind all others, as it stands on disk.
    pub(super) fn copy(&mut self, bucket: u32, on_disk: &[u8], entries: u64) -> Result<(), Error> {
        self.end_row()?;
        self.seek(bucket)?;
        self.buffer.extend_from_slice(on_disk);
        self.info.entries += entries;
        self.note(bucket, on_disk.len())
    }

    fn end_row(&mut self) -> Result<(), Error> {
        let Some(bucket) = self.bucket.take() else { return Ok(()) };
        self.seek(bucket)?;
        let before = self.buffer.len();
        self.shape.put_pieces(&mut self.buffer, bucket, &self.row);
        self.row.clear();
        self.note(bucket, self.buffer.len() - before)
    }

    /// Goes to the stretch of a bucket.
    fn seek(&mut self, bucket: u32) -> Result<(), Error> {
        let at = bucket.checked_sub(self.layout.first).filter(|at| u64::from(*at) < self.layout.buckets);
        let stretch = at.map(|at| at / BUCKETS as u32).filter(|stretch| *stretch >= self.number);
        let Some(stretch) = stretch else {
            return Err(Error::corrupt(DIR, format!("rows of bucket {bucket} come out of order")));
        };
        while self.number < stretch {
            self.end_stretch()?;
        }
        Ok(())
    }

    /// A row of so many bytes was put.
    fn note(&mut self, bucket: u32, bytes: usize) -> Result<(), Error> {
        let slot = (bucket - self.layout.first) as usize % BUCKETS;
        let is_last = self.stretch.lengths[slot..].iter().all(|length| *length == 0);
        match u32::try_from(bytes) {
            Ok(bytes) if is_last => self.stretch.lengths[slot] = bytes,
            _ => {
                return Err(Error::corrupt(
                    DIR,
                    format!("row of {bytes} bytes of bucket {bucket} has no place"),
                ));
            }
        }
        if self.buffer.len() >= BUFFER_BYTES { self.flush() } else { Ok(()) }
    }

    fn end_stretch(&mut self) -> Result<(), Error> {
        let end = self.end();
        let bytes = self.stretch.encode(self.number, &mut self.buffer, end);
        let bytes = bytes.map_err(|fault| self.fault(fault))?;
        self.directory.extend_from_slice(&bytes);
        self.number += 1;
        self.stretch = Stretch { start: self.end(), lengths: [0; BUCKETS] };
        Ok(())
    }

    fn end(&self) -> u64 {
        self.written + self.buffer.len() as u64
    }

    fn flush(&mut self) -> Result<(), Error> {
        self.file.write(&self.buffer, self.written)?;
        self.written += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    /// Writes the directory and the head, and makes all durable.
    pub(super) fn finish(mut self, disk: &dyn Disk) -> Result<PartInfo, Error> {
        match self.write_end() {
            Ok(()) => Ok(self.info),
            Err(error) => {
                self.give_up(disk)?;
                Err(error)
            }
        }
    }

    fn write_end(&mut self) -> Result<(), Error> {
        self.end_row()?;
        while u64::from(self.number) < self.layout.stretches() {
            self.end_stretch()?;
        }
        self.info.bytes = self.end() - HEAD_BYTES as u64;
        let zeros = Layout::of(&self.info).directory - self.end();
        self.buffer.resize(self.buffer.len() + zeros as usize, 0);
        if self.buffer.len() + self.directory.len() > BUFFER_BYTES {
            self.flush()?;
        }
        self.buffer.append(&mut self.directory);
        self.flush()?;
        let mut head = Vec::with_capacity(HEAD_BYTES);
        put_head(&mut head, &self.info);
        self.file.write(&head, 0)?;
        self.file.sync()
    }

    /// Removes what was written: on a full disk what is of no use must not stay.
    pub(super) fn give_up(self, disk: &dyn Disk) -> Result<(), Error> {
        remove(disk, &self.file.name)
    }
}
