//! Raw blocks in numbered files that only grow.
//!
//! ```text
//! record | magic 4 | length 4 LE | crc32c of the block 4 LE | block, `length` bytes |
//! ```
//! A position counts once the state row names an end beyond it; what lies behind that end is cut on opening.
//! What is missing before that end is damage of the blocks that lay there, and `repair` says where they are now.
//! The files that were read last are kept open, and only those: a full chain has more files than a process may hold
//! open.

use std::sync::{Arc, Mutex, PoisonError};

use crate::disk::{Disk, NamedFile, remove};
use crate::error::Error;
use crate::repair::Repairs;

/// Bytes before the block in a record.
pub(crate) const RECORD_HEAD: u32 = 12;

/// Where a block's record starts, and how long the block is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BlockPos {
    pub(crate) segment: u32,
    pub(crate) offset: u32,
    pub(crate) length: u32,
}

/// Where the next record goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct SegmentEnd {
    pub(crate) segment: u32,
    pub(crate) offset: u32,
}

/// Files that stay open.
const KEPT_OPEN: usize = 32;

/// A file by its number.
type Opened = (u32, Arc<NamedFile>);

/// Reads blocks.
#[derive(Clone, Debug)]
pub(crate) struct Segments {
    disk: Arc<dyn Disk>,
    magic: [u8; 4],
    repairs: Arc<Repairs>,
    /// The one that was read last stands last.
    opened: Arc<Mutex<Vec<Opened>>>,
}

/// Bytes that the state row names and that are not there.
#[derive(Clone, Debug)]
pub(crate) struct Lost {
    segment: u32,
    /// From here to the end of the file.
    from: u64,
    pub(crate) what: String,
}

impl Lost {
    /// Whether the record at `pos` reaches into it.
    pub(crate) fn holds(&self, pos: BlockPos) -> bool {
        let end = u64::from(pos.offset) + u64::from(RECORD_HEAD) + u64::from(pos.length);
        pos.segment == self.segment && end > self.from
    }
}

pub(crate) fn file_name(segment: u32) -> String {
    format!("blocks/{segment:05}.blk")
}

/// The record of `block`.
#[cfg(test)]
pub(crate) fn record(magic: [u8; 4], block: &[u8]) -> Vec<u8> {
    let mut record = Vec::new();
    put_record(&mut record, magic, block);
    record
}

/// Appends the record of `block`.
fn put_record(record: &mut Vec<u8>, magic: [u8; 4], block: &[u8]) {
    record.reserve(block.len() + RECORD_HEAD as usize);
    record.extend_from_slice(&magic);
    record.extend_from_slice(&(block.len() as u32).to_le_bytes());
    record.extend_from_slice(&crc32c::crc32c(block).to_le_bytes());
    record.extend_from_slice(block);
}

/// Takes the block out of a record read at `pos`.
pub(crate) fn open_record(magic: [u8; 4], pos: BlockPos, mut record: Vec<u8>) -> Result<Vec<u8>, Error> {
    let corrupt = |what| Error::corrupt(&file_name(pos.segment), format!("byte {}: {what}", pos.offset));
    let Some((head, block)) = record.split_at_checked(RECORD_HEAD as usize) else {
        return Err(corrupt("record ends early".to_owned()));
    };
    if head[..4] != magic {
        return Err(corrupt(format!("magic {:02x?} is not {magic:02x?}", &head[..4])));
    }
    let number = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    if number(4) != pos.length || block.len() != pos.length as usize {
        return Err(corrupt(format!("length {} is not {}", number(4), pos.length)));
    }
    let found = crc32c::crc32c(block);
    if found != number(8) {
        return Err(Error::Checksum { segment: pos.segment, offset: pos.offset, found, wanted: number(8) });
    }
    record.drain(..RECORD_HEAD as usize);
    Ok(record)
}

impl Segments {
    pub(crate) fn new(disk: Arc<dyn Disk>, magic: [u8; 4]) -> Self {
        Self { disk, magic, repairs: Arc::default(), opened: Arc::default() }
    }

    /// Removes a file. Its name may be another file's later.
    fn remove(&self, segment: u32) -> Result<(), Error> {
        remove(&*self.disk, &file_name(segment))?;
        self.opened.lock().unwrap_or_else(PoisonError::into_inner).retain(|(other, _)| *other != segment);
        Ok(())
    }

    fn file(&self, segment: u32) -> Result<Arc<NamedFile>, Error> {
        let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        let file = match opened.iter().rposition(|(other, _)| *other == segment) {
            Some(at) => opened.remove(at).1,
            None => {
                let file = Arc::new(NamedFile::open(&*self.disk, &file_name(segment))?);
                if opened.len() >= KEPT_OPEN {
                    opened.remove(0);
                }
                file
            }
        };
        opened.push((segment, file.clone()));
        Ok(file)
    }

    /// What is known of damaged blocks.
    pub(crate) fn repairs(&self) -> &Repairs {
        &self.repairs
    }

    /// The block at `pos`, its checksum verified.
    pub(crate) fn read(&self, pos: BlockPos) -> Result<Vec<u8>, Error> {
        let pos = self.repairs.place(pos);
        let file = self.file(pos.segment)?;
        let mut record = vec![0; RECORD_HEAD as usize + pos.length as usize];
        file.read(&mut record, u64::from(pos.offset))?;
        open_record(self.magic, pos, record)
    }

    /// Bytes `from..to` of the block at `pos`. Not covered by the checksum: the caller knows their hash.
    pub(crate) fn read_part(&self, pos: BlockPos, from: u32, to: u32) -> Result<Vec<u8>, Error> {
        let pos = self.repairs.place(pos);
        if from > to || to > pos.length {
            let what = format!("byte {}: bytes {from} to {to} of a block of {}", pos.offset, pos.length);
            return Err(Error::corrupt(&file_name(pos.segment), what));
        }
        let file = self.file(pos.segment)?;
        let mut bytes = vec![0; (to - from) as usize];
        file.read(&mut bytes, u64::from(pos.offset) + u64::from(RECORD_HEAD) + u64::from(from))?;
        Ok(bytes)
    }
}

/// Appends blocks. Nothing is durable before [`SegmentWriter::sync`].
#[derive(Debug)]
pub(crate) struct SegmentWriter {
    segments: Segments,
    segment_bytes: u32,
    end: SegmentEnd,
    current: NamedFile,
    /// Full files written since the last sync.
    filled: Vec<NamedFile>,
    dirty: bool,
    /// A file was made whose name is not durable.
    new_name: bool,
    lost: Vec<Lost>,
    /// What is written, kept for its room.
    record: Vec<u8>,
}

impl SegmentWriter {
    /// Cuts what lies behind `end` and continues there. What is missing before it is [`SegmentWriter::lost`]; only
    /// where nothing is left is the folder refused, as then it is likely that a disk is not mounted.
    pub(crate) fn open(segments: Segments, segment_bytes: u32, end: SegmentEnd) -> Result<Self, Error> {
        let disk = &*segments.disk;
        let mut found = Vec::new();
        for name in disk.list("blocks").map_err(|error| Error::io("blocks", "list", error))? {
            let number = name.strip_suffix(".blk").and_then(|digits| digits.parse::<u32>().ok());
            found.extend(number.filter(|number| file_name(*number) == format!("blocks/{name}")));
        }
        found.sort_unstable();
        for &segment in found.iter().filter(|segment| **segment > end.segment) {
            segments.remove(segment)?;
        }
        found.retain(|segment| *segment <= end.segment);
        if found.is_empty() && end != SegmentEnd::default() {
            return Err(Error::corrupt(&file_name(0), "no block file is left"));
        }
        let missing = (0..end.segment).filter(|segment| found.binary_search(segment).is_err());
        let lost_file = |segment| Lost { segment, from: 0, what: missing_file(segment) };
        let mut lost: Vec<Lost> = missing.map(lost_file).collect();
        let current = NamedFile::create(disk, &file_name(end.segment))?;
        let (length, named) = (current.len()?, u64::from(end.offset));
        if length < named {
            let what = format!("{length} bytes long, but {named} were committed");
            lost.push(Lost { segment: end.segment, from: length, what: format!("{}: {what}", current.name) });
        }
        if length != named {
            // A gap of zeros is no record.
            current.set_len(named)?;
        }
        let new_name = found.last() != Some(&end.segment) || named == 0;
        Ok(Self {
            segments,
            segment_bytes,
            end,
            current,
            filled: Vec::new(),
            dirty: false,
            new_name,
            lost,
            record: Vec::new(),
        })
    }

    /// What was missing on opening.
    pub(crate) fn lost(&self) -> &[Lost] {
        &self.lost
    }

    pub(crate) fn end(&self) -> SegmentEnd {
        self.end
    }

    /// Writes a block behind the last.
    pub(crate) fn append(&mut self, block: &[u8]) -> Result<BlockPos, Error> {
        let too_long =
            || Error::corrupt(&file_name(self.end.segment), format!("block of {} bytes", block.len()));
        let length = u32::try_from(block.len()).map_err(|_| too_long())?;
        let size = length.checked_add(RECORD_HEAD).ok_or_else(too_long)?;
        let fits = self.end.offset.checked_add(size).is_some_and(|end| end <= self.segment_bytes);
        if !fits && self.end.offset > 0 {
            let segment = self.end.segment + 1;
            let next = NamedFile::create(&*self.segments.disk, &file_name(segment))?;
            self.filled.push(std::mem::replace(&mut self.current, next));
            self.end = SegmentEnd { segment, offset: 0 };
            self.new_name = true;
        }
        self.dirty = true;
        self.record.clear();
        put_record(&mut self.record, self.segments.magic, block);
        self.current.write(&self.record, u64::from(self.end.offset))?;
        let pos = BlockPos { segment: self.end.segment, offset: self.end.offset, length };
        self.end.offset += size;
        Ok(pos)
    }

    /// Makes all appended blocks durable.
    pub(crate) fn sync(&mut self) -> Result<(), Error> {
        for file in self.filled.drain(..) {
            file.sync()?;
        }
        if self.dirty {
            self.current.sync()?;
            self.dirty = false;
        }
        if self.new_name {
            let synced = self.segments.disk.sync_dir("blocks");
            synced.map_err(|error| Error::io("blocks", "fsync", error))?;
            self.new_name = false;
        }
        Ok(())
    }

    /// Goes back to an earlier end that was durable then.
    pub(crate) fn rewind(&mut self, end: SegmentEnd) -> Result<(), Error> {
        for segment in end.segment + 1..=self.end.segment {
            self.segments.remove(segment)?;
        }
        if self.end.segment != end.segment {
            self.current = NamedFile::create(&*self.segments.disk, &file_name(end.segment))?;
        }
        self.filled.clear();
        self.end = end;
        self.current.set_len(u64::from(end.offset))?;
        Ok(())
    }
}

fn missing_file(segment: u32) -> String {
    Error::corrupt(&file_name(segment), "the file is missing").to_string()
}
