//! The coins while a chain is indexed in bulk: the young in a table of bounded size, the others in sorted runs.
//!
//! Most coins are spent soon after they were made, and leave the table without a trace on disk. When the table is
//! full, what no run has yet goes to a new run, and the older half leaves the table; a spend of a coin that has
//! left it finds the coin in its run, and stays in the table as the mark that it is gone. Runs of one level are
//! merged when there are four, so few have to be asked, and all but the oldest answer most questions from a filter.

use std::sync::Arc;

use bitcoin::OutPoint;
use bitcoin::hashes::{Hash, siphash24};
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use super::rows::{CoinKey, CoinRow, Row};
use super::run::{Heads, Kind, Merge, RunInfo, RunReader, RunWriter, page_rows, read_page, write_sorted};
use crate::delta::tx_prefix;
use crate::disk::{Disk, NamedFile};
use crate::error::Error;
use crate::filter::Filter;

/// Runs of one level that become one of the next.
const FAN_IN: usize = 4;
const MERGE_BYTES: usize = 1024 * 1024;

/// The secret by which outpoints are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Secret(pub(crate) [u64; 2]);

impl Secret {
    pub(crate) fn key(&self, outpoint: &OutPoint) -> CoinKey {
        let mut bytes = [0; 36];
        bytes[..32].copy_from_slice(outpoint.txid.as_byte_array());
        bytes[32..].copy_from_slice(&outpoint.vout.to_le_bytes());
        let hash = siphash24::Hash::hash_to_u64_with_keys(self.0[0], self.0[1], &bytes);
        CoinKey::new(tx_prefix(&outpoint.txid), outpoint.vout, hash)
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Coins {
    secret: Secret,
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
        secret: Secret,
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
            secret,
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

    pub(crate) fn secret(&self) -> Secret {
        self.secret
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

    /// The same for a coin that will be spent: what was found in a run is in the table from then on.
    pub(crate) fn fetch(&mut self, key: &CoinKey) -> Result<Option<CoinRow>, Error> {
        if let Some(row) = self.in_table(key) {
            return Ok(Some(row));
        }
        let row = self.in_runs(key)?;
        row.iter().filter(|row| !row.is_gone()).for_each(|row| self.put(*row));
        Ok(row)
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

    /// Puts a coin. That of a coinbase may be put over an older one of its outpoint (BIP30), others never are.
    pub(crate) fn make(&mut self, row: CoinRow) -> Result<(), Error> {
        let older = match self.in_table(&row.key) {
            Some(older) => Some(older),
            None if row.is_coinbase() => self.in_runs(&row.key)?,
            None => None,
        };
        self.put(older.map_or(row, |older| row.over(&older)));
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
            let info = write_sorted(&**disk, Kind::Coins, take(next), &mut rows)?;
            drop(rows);
            self.open_run(disk, info)?;
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
            self.open_run(disk, merged)?;
        }
        Ok(removed)
    }

    fn open_run(&mut self, disk: &Arc<dyn Disk>, info: RunInfo) -> Result<(), Error> {
        let filter = self.has_base || !self.runs.is_empty() || info.records <= self.filtered;
        self.runs.push(CoinRun::open(&**disk, info, filter)?);
        Ok(())
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

    fn merge(&self, disk: &Arc<dyn Disk>, from: usize, number: u32) -> Result<RunInfo, Error> {
        let runs: Vec<RunInfo> = self.runs[from..].iter().map(|run| run.info).collect();
        let level = runs.last().map_or(0, |run| run.level).saturating_add(1);
        let mut writer = RunWriter::new(&**disk, Kind::Coins, level, number)?;
        newest(disk, &runs, Heads::ALL, MERGE_BYTES, |row| {
            // Below the oldest run there is nothing that could be gone.
            if from == 0 && row.is_gone() && !self.has_base { Ok(()) } else { writer.push(&row) }
        })?;
        writer.finish()
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
    fn open(disk: &dyn Disk, info: RunInfo, filter: bool) -> Result<Self, Error> {
        let mut reader: RunReader<CoinRow> = RunReader::new(disk, info, Heads::ALL, MERGE_BYTES)?;
        let records = info.records as usize;
        let mut fences = Vec::with_capacity(records.div_ceil(page_rows::<CoinRow>()));
        let mut filter = filter.then(|| Filter::with_capacity(records));
        let mut at = 0usize;
        while let Some(row) = reader.next()? {
            if at.is_multiple_of(page_rows::<CoinRow>()) {
                fences.push(row.key);
            }
            if let Some(filter) = &mut filter {
                filter.add(row.key.hash);
            }
            at += 1;
        }
        Ok(Self { info, file: NamedFile::open(disk, &info.name())?, fences, filter })
    }

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
