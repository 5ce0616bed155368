//! The coins while a chain is indexed in bulk: the young in a table of bounded size, the others in sorted runs.
//!
//! Most coins are spent soon after they were made, and leave the table without a trace on disk. When the table is
//! full, what no run has yet goes to a new run, and the older half leaves the table; a spend of a coin that has
//! left it finds the coin in its run, and stays in the table as the mark that it is gone. Runs of one level are
//! merged when there are four, so few have to be asked, and all but the oldest answer most questions from a filter.

use std::sync::Arc;

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use super::rows::{CoinKey, CoinRow, Row};
use super::run::{
    Heads, Kind, Merge, RunInfo, RunReader, RunWriter, page_rows, read_page, write_sorted_with,
};
use crate::disk::{Disk, NamedFile};
use crate::error::Error;
use crate::filter::Filter;

/// Runs of one level that become one of the next.
const FAN_IN: usize = 4;
const MERGE_BYTES: usize = 1024 * 1024;
/// Coins whose places in memory are waited for together: as many as a processor's nearest cache holds.
const AHEAD: usize = 128;

/// See the module.
#[derive(Debug)]
pub(crate) struct Coins {
    /// By the keyed hash in each row's key.
    table: HashTable<CoinRow>,
    /// Coins that the table may have.
    capacity: usize,
    /// Records of the oldest run up to which it has a filter.
    filtered: u64,
    /// Oldest first.
    runs: Vec<CoinRun>,
    /// Below the oldest run there is a base, whose coins may be gone.
    has_base: bool,
}

#[derive(Debug)]
struct CoinRun {
    info: RunInfo,
    file: NamedFile,
    /// First key of each page.
    fences: Vec<CoinKey>,
    /// What may be in it. The oldest run may do without: whoever is asked for is there, but for BIP30's questions.
    filter: Option<Filter>,
}

impl Coins {
    /// An empty table of at most `memory_bytes`, and the runs that are there, oldest first.
    pub(crate) fn open(
        disk: &Arc<dyn Disk>,
        memory_bytes: usize,
        runs: &[RunInfo],
        has_base: bool,
    ) -> Result<Self, Error> {
        // A power of two of slots, of which seven eighths are used.
        let slot = size_of::<CoinRow>() + 1;
        let slots = (memory_bytes / slot).max(64);
        let slots = 1usize << slots.ilog2();
        let filtered = memory_bytes as u64 / 16;
        let mut coins = Self {
            table: HashTable::new(),
            capacity: slots / 8 * 7 - 1,
            filtered,
            runs: Vec::new(),
            has_base,
        };
        for info in runs {
            coins.open_run(disk, *info)?;
        }
        Ok(coins)
    }

    pub(crate) fn runs(&self) -> impl Iterator<Item = RunInfo> {
        self.runs.iter().map(|run| run.info)
    }

    /// Whether `more` coins may not fit.
    pub(crate) fn is_full(&self, more: usize) -> bool {
        self.table.len() + more > self.capacity
    }

    /// What is known of a key: a coin, or that there is none any more.
    pub(crate) fn get(&self, key: &CoinKey) -> Result<Option<CoinRow>, Error> {
        match self.in_table(key) {
            Some(row) => Ok(Some(row)),
            None => self.in_runs(key),
        }
    }

    fn in_table(&self, key: &CoinKey) -> Option<CoinRow> {
        self.table.find(key.hash, |row| row.key == *key).copied()
    }

    pub(crate) fn put(&mut self, row: CoinRow) {
        match self.table.entry(row.key.hash, |other| other.key == row.key, |row| row.key.hash) {
            Entry::Occupied(mut entry) => *entry.get_mut() = row,
            Entry::Vacant(entry) => drop(entry.insert(row)),
        }
    }

    fn in_runs(&self, key: &CoinKey) -> Result<Option<CoinRow>, Error> {
        for run in self.runs.iter().rev() {
            if let Some(row) = run.get(key)? {
                return Ok(Some(row));
            }
        }
        Ok(None)
    }

    /// Has the processor fetch what these keys lead to, for many at once: nothing else is done between, so it waits for
    /// them side by side.
    fn touch<'a>(&self, keys: impl Iterator<Item = &'a CoinKey>) {
        std::hint::black_box(keys.filter(|key| self.in_table(key).is_some()).count());
    }

    /// [`Coins::make`] for each.
    pub(crate) fn make_all(&mut self, rows: &[CoinRow]) -> Result<(), Error> {
        for rows in rows.chunks(AHEAD) {
            self.touch(rows.iter().map(|row| &row.key));
            rows.iter().try_for_each(|row| self.make(*row))?;
        }
        Ok(())
    }

    /// [`Coins::spend`] for each, in their order, up to the first error.
    pub(crate) fn spend_all(
        &mut self,
        keys: &[CoinKey],
        mut each: impl FnMut(Option<CoinRow>),
    ) -> Result<(), Error> {
        for keys in keys.chunks(AHEAD) {
            self.touch(keys.iter());
            for key in keys {
                each(self.spend(key)?);
            }
        }
        Ok(())
    }

    /// Puts a coin. That of a coinbase may be put over an older one of its outpoint (BIP30), others never are.
    pub(crate) fn make(&mut self, row: CoinRow) -> Result<(), Error> {
        let is_in_run = row.is_coinbase() && self.in_table(&row.key).is_none();
        let in_run = if is_in_run { self.in_runs(&row.key)? } else { None };
        let row = in_run.map_or(row, |older| row.over(&older));
        match self.table.entry(row.key.hash, |other| other.key == row.key, |row| row.key.hash) {
            Entry::Occupied(mut entry) => *entry.get_mut() = row.over(entry.get()),
            Entry::Vacant(entry) => drop(entry.insert(row)),
        }
        Ok(())
    }

    /// Takes a coin, if it is there and not gone.
    pub(crate) fn spend(&mut self, key: &CoinKey) -> Result<Option<CoinRow>, Error> {
        match self.table.find_entry(key.hash, |row| row.key == *key) {
            Ok(mut entry) => {
                let row = *entry.get();
                if row.is_gone() {
                    return Ok(None);
                }
                if row.is_stored() {
                    *entry.get_mut() = row.gone();
                } else {
                    entry.remove();
                }
                Ok(Some(row))
            }
            Err(_) => {
                let row = self.in_runs(key)?.filter(|row| !row.is_gone());
                if let Some(row) = row {
                    self.put(row.gone());
                }
                Ok(row)
            }
        }
    }

    /// Writes what no run has into a new one, makes room, and merges runs. `next` numbers new files. Files that
    /// are of no more use come back, to be removed once the row does not name them.
    pub(crate) fn flush(&mut self, disk: &Arc<dyn Disk>, next: &mut u32) -> Result<Vec<RunInfo>, Error> {
        let oldest = self.runs.is_empty() && !self.has_base;
        let mut rows: Vec<CoinRow> = Vec::new();
        rows.extend(self.table.iter().filter(|row| row.is_dirty() && !(oldest && row.is_gone())));
        if !rows.is_empty() {
            let mut found = self.finder(rows.len() as u64);
            let info =
                write_sorted_with(&**disk, Kind::Coins, take(next), &mut rows, |row| found.add(&row.key))?;
            drop(rows);
            self.runs.push(found.of_run(&**disk, info)?);
        }
        let keep_from = self.newer_half();
        self.table.retain(|row| {
            *row = row.stored();
            !row.is_gone() && row.number >= keep_from
        });
        let mut removed = Vec::new();
        while let Some(from) = self.mergeable() {
            removed.extend(self.runs[from..].iter().map(|run| run.info));
            let merged = self.merge(disk, from, take(next))?;
            self.runs.truncate(from);
            self.runs.push(merged);
        }
        Ok(removed)
    }

    fn open_run(&mut self, disk: &Arc<dyn Disk>, info: RunInfo) -> Result<(), Error> {
        let mut found = self.finder(info.records);
        let mut reader: RunReader<CoinRow> = RunReader::new(&**disk, info, Heads::ALL, MERGE_BYTES)?;
        while let Some(row) = reader.next()? {
            found.add(&row.key);
        }
        self.runs.push(found.of_run(&**disk, info)?);
        Ok(())
    }

    /// For the next run, of about so many records.
    fn finder(&self, records: u64) -> Finder {
        self.finder_above(self.runs.len(), records)
    }

    /// For one of about so many records that lies upon the first `below` runs.
    fn finder_above(&self, below: usize, records: u64) -> Finder {
        let is_filtered = self.has_base || below > 0 || records <= self.filtered;
        let filter = is_filtered.then(|| Filter::with_capacity(records as usize));
        Finder { at: 0, fences: Vec::new(), filter }
    }

    /// The transaction number from which on half a full table would be.
    fn newer_half(&self) -> u32 {
        if self.table.len() < self.capacity / 2 {
            return 0;
        }
        let mut sample: Vec<u32> = self.table.iter().step_by(64).map(|row| row.number).collect();
        sample.sort_unstable();
        let keep = sample.len() * self.capacity / 2 / self.table.len();
        sample.get(sample.len().saturating_sub(keep)).copied().unwrap_or(0)
    }

    /// From where on the runs are enough of one level.
    fn mergeable(&self) -> Option<usize> {
        let level = self.runs.last()?.info.level;
        let from = self.runs.iter().rposition(|run| run.info.level != level).map_or(0, |at| at + 1);
        (self.runs.len() - from >= FAN_IN).then_some(from)
    }

    fn merge(&self, disk: &Arc<dyn Disk>, from: usize, number: u32) -> Result<CoinRun, Error> {
        let runs: Vec<RunInfo> = self.runs[from..].iter().map(|run| run.info).collect();
        let level = runs.last().map_or(0, |run| run.level).saturating_add(1);
        let mut writer = RunWriter::new(&**disk, Kind::Coins, level, number)?;
        let mut found = self.finder_above(from, runs.iter().map(|run| run.records).sum());
        newest(disk, &runs, Heads::ALL, MERGE_BYTES, |row| {
            // Below the oldest run there is nothing that could be gone.
            if from == 0 && row.is_gone() && !self.has_base {
                return Ok(());
            }
            found.add(&row.key);
            writer.push(&row)
        })?;
        found.of_run(&**disk, writer.finish()?)
    }
}

/// Where in a run a key is: made of its keys, in their order.
struct Finder {
    at: usize,
    fences: Vec<CoinKey>,
    filter: Option<Filter>,
}

impl Finder {
    fn add(&mut self, key: &CoinKey) {
        if self.at.is_multiple_of(page_rows::<CoinRow>()) {
            self.fences.push(*key);
        }
        if let Some(filter) = &mut self.filter {
            filter.add(key.hash);
        }
        self.at += 1;
    }

    fn of_run(self, disk: &dyn Disk, info: RunInfo) -> Result<CoinRun, Error> {
        let Self { fences, filter, .. } = self;
        Ok(CoinRun { info, file: NamedFile::open(disk, &info.name())?, fences, filter })
    }
}

/// Of each key what the newest of the runs, oldest first, says.
pub(crate) fn newest(
    disk: &Arc<dyn Disk>,
    runs: &[RunInfo],
    heads: Heads,
    memory_bytes: usize,
    mut each: impl FnMut(CoinRow) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut merge: Merge<CoinRow> = Merge::new(&**disk, runs, heads, memory_bytes)?;
    let mut last: Option<CoinRow> = None;
    while let Some((row, _)) = merge.next()? {
        if let Some(last) = last.replace(row).filter(|last| last.key != row.key) {
            each(last)?;
        }
    }
    last.map_or(Ok(()), each)
}

fn take(next: &mut u32) -> u32 {
    *next += 1;
    *next - 1
}

impl CoinRun {
    fn get(&self, key: &CoinKey) -> Result<Option<CoinRow>, Error> {
        if self.filter.as_ref().is_some_and(|filter| !filter.may_have(key.hash)) {
            return Ok(None);
        }
        let Some(page) = self.fences.partition_point(|first| first <= key).checked_sub(1) else {
            return Ok(None);
        };
        let (bytes, rows) = read_page::<CoinRow>(&self.file, &self.info, page as u64)?;
        let row = |at: usize| CoinRow::get(&bytes[at * CoinRow::LEN..(at + 1) * CoinRow::LEN]);
        let (mut low, mut high) = (0, rows);
        while low < high {
            let middle = (low + high) / 2;
            let found = row(middle);
            match found.key.cmp(key) {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
                std::cmp::Ordering::Equal => return Ok(Some(found.stored())),
            }
        }
        Ok(None)
    }
}
