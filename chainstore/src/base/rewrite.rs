//! Writes a part anew: what it has, with changes, in the order of the keys, into one file or several.
//!
//! Nothing is inserted at random: rows come in their order and go to the end of a file that nobody reads yet. It
//! counts once the row of parts names it.

use redb::{Database, Table as RedbTable};

use super::bucket::{Shape, bits_for};
use super::changes::{Change, keep};
use super::part::{DIR, KeyRange, PartInfo, ROWS, Reach, Table, file_name, head};
use super::{Placed, Undone};
use crate::disk::Disk;
use crate::error::Error;
use crate::open::create_db_file;

/// Bytes of rows that one transaction puts: more would cost memory.
const COMMIT_BYTES: u64 = 512 << 20;

/// What is to be made.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) table: Table,
    /// One new file each.
    pub(crate) ranges: Vec<KeyRange>,
    /// The number of the first new file; the others follow.
    pub(crate) file: u32,
    /// About how many entries there will be in all of them.
    pub(crate) entries: u64,
    pub(crate) reach: Reach,
}

/// What of an old part is valid, where not all of it is.
#[derive(Clone, Copy)]
pub(crate) struct Valid<'a> {
    pub(crate) undone: &'a Undone,
    pub(crate) from: u32,
    pub(crate) end: u32,
}

/// The entries of an old part in their order, or none.
pub(crate) struct Old<'a> {
    part: Option<&'a Placed>,
    rows: Option<redb::Range<'static, u32, &'static [u8]>>,
    /// The row that is walked through.
    bucket: u32,
    row: Vec<u8>,
    at: usize,
}

/// A key and a content.
type Entry<'a, const N: usize> = ([u8; N], &'a [u8]);

impl<'a> Old<'a> {
    pub(crate) fn new(part: &'a Placed) -> Self {
        Self { part: Some(part), ..Self::none() }
    }

    pub(crate) fn none() -> Self {
        Self { part: None, rows: None, bucket: 0, row: Vec::new(), at: 0 }
    }

    fn next<const N: usize>(&mut self, shape: Shape<N>) -> Result<Option<Entry<'_, N>>, Error> {
        let Some(Placed { part, .. }) = self.part else { return Ok(None) };
        while self.at >= self.row.len() {
            let rows = match &mut self.rows {
                Some(rows) => rows,
                None => self.rows.insert(part.rows.range::<u32>(..).map_err(|error| part.error(error))?),
            };
            let Some(row) = rows.next() else { return Ok(None) };
            let (bucket, row) = row.map_err(|error| part.error(error))?;
            self.bucket = bucket.value();
            self.row.clear();
            self.row.extend_from_slice(row.value());
            self.at = 0;
        }
        let mut entries = shape.entries_at(self.bucket, &self.row, self.at);
        let entry = entries.next().map_err(|fault| part.fault(fault))?;
        self.at = entries.position();
        Ok(entry)
    }

    /// All entries.
    pub(crate) fn walk<const N: usize>(
        &mut self,
        shape: Shape<N>,
        mut each: impl FnMut([u8; N], &[u8]) -> Result<(), Error>,
    ) -> Result<(), Error> {
        while let Some((key, content)) = self.next(shape)? {
            each(key, content)?;
        }
        Ok(())
    }
}

/// Merges the entries of `old` with changes into new files.
pub(crate) fn rewrite<const N: usize>(
    disk: &dyn Disk,
    plan: &Plan,
    mut old: Old<'_>,
    shape: impl Fn(u8) -> Shape<N>,
    valid: Option<&Valid<'_>>,
    changes: &mut impl Change<N>,
) -> Result<Vec<PartInfo>, Error> {
    let old_shape = shape(old.part.map_or(super::bucket::MIN_BITS, |placed| placed.info.bits));
    let mut pending: Option<([u8; N], Vec<u8>)> = None;
    let take = |old: &mut Old<'_>, pending: &mut Option<([u8; N], Vec<u8>)>| -> Result<(), Error> {
        let mut content = pending.take().map_or_else(Vec::new, |(_, content)| content);
        while let Some((key, found)) = old.next(old_shape)? {
            content.clear();
            let kept = match valid {
                Some(valid) => keep(plan.table, valid, &key, found, &mut content)
                    .map_err(|fault| Error::corrupt(DIR, fault.to_string()))?,
                None => {
                    content.extend_from_slice(found);
                    true
                }
            };
            if kept {
                *pending = Some((key, content));
                break;
            }
        }
        Ok(())
    };
    take(&mut old, &mut pending)?;
    let mut parts = Vec::with_capacity(plan.ranges.len());
    let mut content = Vec::new();
    for (range, file) in plan.ranges.iter().zip(plan.file..) {
        let bits = bits_for(plan.entries / plan.ranges.len() as u64, range.depth());
        let shape = shape(bits);
        let mut info = PartInfo {
            table: plan.table,
            range: *range,
            file,
            bits,
            entries: 0,
            bytes: 0,
            reach: plan.reach,
            cut: None,
        };
        create_db_file(disk, &file_name(file), |db| {
            let mut rows = RowWriter::new(db, file, shape);
            rows.fill(&mut info, |rows, info| {
                let old_key = pending.as_ref().map(|(key, _)| *key).filter(|key| range.has(key));
                let changed = changes.peek()?.filter(|key| range.has(key));
                let (key, present) = match (old_key, changed) {
                    (None, None) => return Ok(false),
                    (Some(key), changed) if changed.is_none_or(|changed| key < changed) => {
                        if let Some((_, found)) = &pending {
                            rows.put(&key, found, info)?;
                        }
                        take(&mut old, &mut pending)?;
                        return Ok(true);
                    }
                    (old_key, Some(key)) => {
                        let there = pending.as_ref().filter(|_| old_key == Some(key));
                        content.clear();
                        let present =
                            changes.apply(there.map(|(_, content)| content.as_slice()), &mut content)?;
                        if there.is_some() {
                            take(&mut old, &mut pending)?;
                        }
                        (key, present)
                    }
                    (Some(_), None) => return Ok(false),
                };
                if present {
                    rows.put(&key, &content, info)?;
                }
                Ok(true)
            })
        })?;
        parts.push(info);
    }
    if pending.is_some() || changes.peek()?.is_some() {
        return Err(Error::corrupt(DIR, "entries outside of the keys of their part"));
    }
    Ok(parts)
}

/// Gathers entries into rows and puts those.
struct RowWriter<'db, const N: usize> {
    db: &'db Database,
    file: u32,
    shape: Shape<N>,
    bucket: Option<u32>,
    row: Vec<u8>,
    full: Vec<(u32, std::ops::Range<usize>)>,
    bytes: Vec<u8>,
}

/// Bytes of rows that are put together.
const BATCH_BYTES: usize = 256 * 1024;

impl<'db, const N: usize> RowWriter<'db, N> {
    fn new(db: &'db Database, file: u32, shape: Shape<N>) -> Self {
        Self { db, file, shape, bucket: None, row: Vec::new(), full: Vec::new(), bytes: Vec::new() }
    }

    fn error(&self, source: impl Into<redb::Error>) -> Error {
        Error::index(&file_name(self.file), source)
    }

    fn put(&mut self, key: &[u8; N], content: &[u8], info: &mut PartInfo) -> Result<(), Error> {
        let bucket = self.shape.bucket(key);
        debug_assert!(head(key) >= info.range.first());
        if self.bucket.is_some_and(|before| before != bucket) {
            self.close();
        }
        self.bucket = Some(bucket);
        self.shape.put(&mut self.row, key, content);
        info.entries += 1;
        Ok(())
    }

    fn close(&mut self) {
        if let Some(bucket) = self.bucket.take() {
            let start = self.bytes.len();
            self.bytes.extend_from_slice(&self.row);
            self.full.push((bucket, start..self.bytes.len()));
            self.row.clear();
        }
    }

    /// Calls `step` until it says that there is no more, and makes all durable.
    fn fill(
        &mut self,
        info: &mut PartInfo,
        mut step: impl FnMut(&mut Self, &mut PartInfo) -> Result<bool, Error>,
    ) -> Result<(), Error> {
        let mut more = true;
        while more {
            let mut txn = self.db.begin_write().map_err(|error| self.error(error))?;
            // The last commit must leave a file that opens at once.
            txn.set_quick_repair(true);
            let end = info.bytes + COMMIT_BYTES;
            let mut table = txn.open_table(ROWS).map_err(|error| self.error(error))?;
            while more && info.bytes < end {
                more = step(self, info)?;
                if !more {
                    self.close();
                }
                if !more || self.bytes.len() >= BATCH_BYTES {
                    self.insert(&mut table, info)?;
                }
            }
            drop(table);
            txn.commit().map_err(|error| self.error(error))?;
        }
        Ok(())
    }

    fn insert(
        &mut self,
        table: &mut RedbTable<'_, u32, &'static [u8]>,
        info: &mut PartInfo,
    ) -> Result<(), Error> {
        for (bucket, range) in &self.full {
            table.insert(bucket, &self.bytes[range.clone()]).map_err(|error| self.error(error))?;
        }
        info.bytes += self.bytes.len() as u64;
        self.full.clear();
        self.bytes.clear();
        Ok(())
    }
}
