//! Writes a part anew: what it has, with changes, in the order of the keys, into one file or several.
//!
//! Nothing is inserted at random: rows come in their order and go to the end of a file that nobody reads yet. It
//! counts once the row of parts names it. Rows that nothing changes are copied as they stand on disk, which is nearly
//! all of them where a long chain's base gets some hundred blocks.

use std::ops::Range;

use super::bucket::{Shape, bits_for};
use super::changes::{Change, keep};
use super::list::{DIR, KeyRange, PartInfo, Reach, Table};
use super::walk::Walk;
use super::write::PartWriter;
use super::{Placed, Undone};
use crate::disk::Disk;
use crate::error::Error;

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
struct Old<'a, const N: usize> {
    walk: Option<Walk<'a>>,
    table: Table,
    shape: Shape<N>,
    valid: Option<&'a Valid<'a>>,
    /// The row that is walked through, and where its next entry begins; no row at first.
    row: Vec<u8>,
    at: usize,
    /// All entries of the row are valid, and none was taken.
    is_whole: bool,
    /// The entry, by its key and the place of its content in `row`, or in `kept` where not all of it is valid.
    entry: Option<([u8; N], Range<usize>)>,
    kept: Vec<u8>,
}

impl<'a, const N: usize> Old<'a, N> {
    fn new(part: Option<&'a Placed>, table: Table, shape: Shape<N>, valid: Option<&'a Valid<'a>>) -> Self {
        Self {
            walk: part.map(|placed| Walk::new(&placed.part)),
            table,
            shape,
            valid,
            row: Vec::new(),
            at: 0,
            is_whole: false,
            entry: None,
            kept: Vec::new(),
        }
    }

    /// Goes to the next entry that is valid, if none is looked at, and gives its key.
    fn key(&mut self) -> Result<Option<[u8; N]>, Error> {
        let Some(walk) = &mut self.walk else { return Ok(None) };
        while self.entry.is_none() {
            if self.at >= self.row.len() {
                if !walk.step()? {
                    return Ok(None);
                }
                walk.open(self.shape, &mut self.row)?;
                (self.at, self.is_whole) = (0, self.valid.is_none());
            }
            let bucket = walk.bucket().unwrap_or_default();
            let mut entries = self.shape.entries_at(bucket, &self.row, self.at);
            let Some((key, content)) = entries.next().map_err(|fault| walk.fault(fault))? else { continue };
            let length = content.len();
            let end = entries.position();
            self.at = end;
            match self.valid {
                None => self.entry = Some((key, end - length..end)),
                Some(valid) => {
                    self.kept.clear();
                    let content = &self.row[end - length..end];
                    let kept = keep(self.table, valid, &key, content, &mut self.kept);
                    if kept.map_err(|fault| walk.fault(fault))? {
                        self.entry = Some((key, 0..self.kept.len()));
                    }
                }
            }
        }
        Ok(self.entry.as_ref().map(|(key, _)| *key))
    }

    /// The content of the entry.
    fn content(&self) -> &[u8] {
        let bytes = if self.valid.is_some() { &self.kept } else { &self.row };
        self.entry.as_ref().and_then(|(_, place)| bytes.get(place.clone())).unwrap_or_default()
    }

    /// The entry was taken.
    fn pass(&mut self) {
        self.entry = None;
        self.is_whole = false;
    }

    /// The row of the entry as it stands on disk; it was verified.
    fn on_disk(&self) -> &[u8] {
        self.walk.as_ref().map_or(&[], |walk| walk.on_disk())
    }

    /// How many entries the row has.
    fn count(&self) -> Result<u64, Error> {
        self.shape.count(&self.row).map_err(|fault| Error::corrupt(DIR, fault.to_string()))
    }

    /// The whole row was taken.
    fn pass_row(&mut self) {
        self.pass();
        self.at = self.row.len();
    }
}

/// Shows all entries of a part in order.
pub(super) fn walk<const N: usize>(
    part: &Placed,
    shape: Shape<N>,
    mut each: impl FnMut([u8; N], &[u8]) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut entries = Old::new(Some(part), part.info.table, shape, None);
    let mut count = 0;
    while let Some(key) = entries.key()? {
        each(key, entries.content())?;
        entries.pass();
        count += 1;
    }
    if count == part.info.entries {
        return Ok(());
    }
    Err(Error::corrupt(&part.info.name(), format!("has {count} entries, not {}", part.info.entries)))
}

/// Merges the entries of `old` with changes into new files, and makes those durable.
pub(crate) fn rewrite<const N: usize>(
    disk: &dyn Disk,
    plan: &Plan,
    old: Option<&Placed>,
    shape: impl Fn(u8) -> Shape<N>,
    valid: Option<&Valid<'_>>,
    changes: &mut impl Change<N>,
) -> Result<Vec<PartInfo>, Error> {
    let old_shape = shape(old.map_or(0, |placed| placed.info.bits));
    let mut old = Old::new(old, plan.table, old_shape, valid);
    let mut parts = Vec::with_capacity(plan.ranges.len());
    for (range, file) in plan.ranges.iter().zip(plan.file..) {
        let bits = bits_for(plan.entries / plan.ranges.len() as u64, range.depth());
        let (table, reach) = (plan.table, plan.reach);
        let info = PartInfo { table, range: *range, file, bits, entries: 0, bytes: 0, reach, cut: None };
        let mut rows = PartWriter::create(disk, info, shape(bits))?;
        match fill(&mut rows, *range, shape(bits), &mut old, changes) {
            Ok(()) => parts.push(rows.finish(disk)?),
            Err(error) => {
                rows.give_up(disk)?;
                return Err(error);
            }
        }
    }
    if old.key()?.is_some() || changes.peek()?.is_some() {
        return Err(Error::corrupt(DIR, "entries outside of the keys of their part"));
    }
    Ok(parts)
}

/// Puts all rows of a range.
fn fill<const N: usize>(
    rows: &mut PartWriter<N>,
    range: KeyRange,
    shape: Shape<N>,
    old: &mut Old<'_, N>,
    changes: &mut impl Change<N>,
) -> Result<(), Error> {
    let mut content = Vec::new();
    loop {
        let found = old.key()?.filter(|key| range.has(key));
        let changed = changes.peek()?.filter(|key| range.has(key));
        let (key, is_new) = match (found, changed) {
            (None, None) => return Ok(()),
            (Some(key), changed) if changed.is_none_or(|changed| key < changed) => {
                let bucket = shape.bucket(&key);
                let untouched = changed.is_none_or(|changed| bucket < shape.bucket(&changed));
                let whole = old.is_whole && old.shape == shape && untouched && !rows.is_at(bucket);
                if whole {
                    rows.copy(bucket, old.on_disk(), old.count()?)?;
                    old.pass_row();
                } else {
                    rows.put(&key, old.content())?;
                    old.pass();
                }
                continue;
            }
            (found, Some(key)) => (key, found != Some(key)),
            (Some(_), None) => return Ok(()),
        };
        content.clear();
        let present = changes.apply((!is_new).then(|| old.content()), &mut content)?;
        if !is_new {
            old.pass();
        }
        if present {
            rows.put(&key, &content)?;
        }
    }
}
