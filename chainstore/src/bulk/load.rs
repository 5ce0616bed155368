//! Runs become the base: each table is written once, in its order.
//!
//! One thread merges and makes rows, another puts them into redb. The file is the base only once it was renamed;
//! interrupted, it is begun anew from the same runs.

use std::collections::BTreeSet;
use std::iter::Peekable;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};

use redb::Database;

use super::coins::newest;
use super::rows::{CoinRow, HistoryRow, Row, TxRow, UnspentRow};
use super::run::{Kind, Merge, RunInfo, write_sorted};
use super::state::BulkState;
use crate::base::{self, Shapes, Table};
use crate::base_rows;
use crate::bucket::{RowMaker, Rows};
use crate::delta::CoinValue;
use crate::disk::Disk;
use crate::error::Error;
use crate::files::Files;
use crate::group::{Group, GroupCoin};
use crate::types::{ScriptKey, TxNum};

/// Packets of rows that may wait to be put.
const WAITING_CHUNKS: usize = 4;

/// Fills a new base file from the runs of `state`, with the arrays as they are.
pub(crate) fn load(
    disk: &Arc<dyn Disk>,
    files: &Files,
    state: &BulkState,
    db: &Database,
    prefix_len: u8,
    memory_bytes: usize,
) -> Result<(), Error> {
    let records = |kind| state.runs_of(kind).iter().map(|run| run.records).sum::<u64>();
    // Most scripts are in two transactions.
    let shapes = Shapes::for_entries(records(Kind::History) / 2, records(Kind::Coins), records(Kind::Txs));
    base::create(db, &shapes)?;
    let (sender, chunks) = sync_channel(WAITING_CHUNKS);
    std::thread::scope(|scope| {
        let maker = scope.spawn(move || {
            Maker { disk, files, state, shapes, chunks: sender, prefix_len, memory_bytes }.run()
        });
        let loaded = base::load(db, chunks, &state.mark);
        let made = maker.join().unwrap_or_else(|_| Err(Error::corrupt(super::DIR, "a thread panicked")));
        // The maker stops early when nobody takes its rows: then the other error is the cause.
        loaded.and(made)
    })
}

struct Maker<'a> {
    disk: &'a Arc<dyn Disk>,
    files: &'a Files,
    state: &'a BulkState,
    shapes: Shapes,
    chunks: SyncSender<(Table, Rows)>,
    prefix_len: u8,
    memory_bytes: usize,
}

impl Maker<'_> {
    fn run(self) -> Result<(), Error> {
        let unspent = self.coins()?;
        let repeated = self.txs()?;
        self.scripts(&unspent, &repeated)?;
        for run in unspent {
            self.disk.remove(&run.name()).map_err(|error| Error::io(&run.name(), "remove", error))?;
        }
        Ok(())
    }

    /// A loader that is gone has its own error to tell.
    fn send(&self, table: Table, rows: Option<Rows>) -> Result<(), Error> {
        let Some(rows) = rows else { return Ok(()) };
        self.chunks.send((table, rows)).map_err(|_| Error::corrupt(super::DIR, "nobody takes the rows"))
    }

    /// Coins by txid; back come runs of the same by script.
    fn coins(&self) -> Result<Vec<RunInfo>, Error> {
        let limit = (self.memory_bytes / 2 / size_of::<UnspentRow>()).max(16);
        let (mut runs, mut next) = (Vec::new(), self.state.next_run);
        let mut unspent: Vec<UnspentRow> = Vec::new();
        let mut spill = |unspent: &mut Vec<UnspentRow>| -> Result<(), Error> {
            runs.push(write_sorted(&**self.disk, Kind::Unspent, next, unspent)?);
            next += 1;
            unspent.clear();
            Ok(())
        };
        let mut maker = RowMaker::new(self.shapes.coins);
        // Rows of one prefix, which come in the order of a hash and go in that of the outputs.
        let mut group: Vec<CoinRow> = Vec::new();
        let mut take = |group: &mut Vec<CoinRow>| -> Result<(), Error> {
            group.sort_unstable_by_key(|row| (row.vout, row.number));
            for row in group.drain(..) {
                let value = CoinValue { value: row.value(), class: row.class(), script_key: row.script_key };
                let prefix = base_rows::cut(row.key.prefix.to_be_bytes(), self.prefix_len);
                let key = base_rows::coin_key(prefix, row.vout, TxNum(row.number));
                self.send(Table::Coins, maker.push(&key, &base_rows::coin_row(&value)))?;
            }
            Ok(())
        };
        newest(self.disk, &self.state.runs_of(Kind::Coins), |row| {
            if row.is_gone() {
                return Ok(());
            }
            unspent.push(UnspentRow::new(&row));
            if unspent.len() >= limit {
                spill(&mut unspent)?;
            }
            let prefix = |row: &CoinRow| base_rows::cut(row.key.prefix.to_be_bytes(), self.prefix_len);
            if group.last().is_some_and(|last| prefix(last) != prefix(&row)) {
                take(&mut group)?;
            }
            group.push(row);
            Ok(())
        })?;
        take(&mut group)?;
        self.send(Table::Coins, Some(maker.finish()))?;
        spill(&mut unspent)?;
        Ok(runs)
    }

    /// Transactions by id; back come the numbers of those whose id a later one has.
    fn txs(&self) -> Result<BTreeSet<u32>, Error> {
        let mut repeated = BTreeSet::new();
        let mut merge: Merge<TxRow> = self.merge(Kind::Txs)?;
        let mut maker = RowMaker::new(self.shapes.txs);
        let mut group: Vec<TxRow> = Vec::new();
        let cut = |row: &TxRow| base_rows::cut(row.prefix(), self.prefix_len);
        loop {
            let next = merge.next()?.map(|(row, _)| row);
            if group.last().is_some_and(|last| next.is_none_or(|next| cut(&next) != cut(last))) {
                self.find_repeated(&group, &mut repeated)?;
                group.sort_unstable_by_key(|row| row.number);
                for row in group.drain(..) {
                    self.send(Table::Txs, maker.push(&base_rows::tx_key(cut(&row), row.number), &[]))?;
                }
            }
            let Some(next) = next else {
                self.send(Table::Txs, Some(maker.finish()))?;
                return Ok(repeated);
            };
            group.push(next);
        }
    }

    /// Of rows in order, those that share their prefix may share their id.
    fn find_repeated(&self, group: &[TxRow], repeated: &mut BTreeSet<u32>) -> Result<(), Error> {
        for rows in group.chunk_by(|one, other| one.prefix() == other.prefix()) {
            for (at, row) in rows.iter().enumerate().filter(|_| rows.len() > 1) {
                let txid = self.files.txids.read(row.number)?;
                for later in &rows[at + 1..] {
                    if self.files.txids.read(later.number)? == txid {
                        repeated.insert(row.number);
                    }
                }
            }
        }
        Ok(())
    }

    /// History and unspent outputs by script.
    fn scripts(&self, unspent: &[RunInfo], repeated: &BTreeSet<u32>) -> Result<(), Error> {
        let mut history = Stream::new(self.merge::<HistoryRow>(Kind::History)?);
        let coins = Merge::<UnspentRow>::new(&**self.disk, unspent, self.memory_bytes / 8)?;
        let mut coins = Stream::new(coins);
        let mut maker = RowMaker::new(self.shapes.scripts);
        let (mut group, mut content) = (Group::default(), Vec::new());
        while let Some(row) = history.next() {
            let row = row?;
            let key = row.script_key();
            group.history.clear();
            group.unspent.clear();
            let mut more = Some(row.number);
            while let Some(number) = more {
                if !repeated.contains(&number) {
                    group.history.push(TxNum(number));
                }
                more = history.take_if(|row| row.script_key() == key)?.map(|row| row.number);
            }
            while let Some(row) = coins.take_if(|row| row.script_key() == key)? {
                let value = bitcoin::Amount::from_sat(row.value);
                group.unspent.push(GroupCoin { tx_num: TxNum(row.number), vout: row.vout, value });
            }
            if group.is_empty() {
                continue;
            }
            content.clear();
            group.encode_to(&mut content);
            self.send(Table::Scripts, maker.push(&key.0, &content))?;
        }
        if let Some(row) = coins.next() {
            let key: ScriptKey = row?.script_key();
            return Err(Error::corrupt(super::DIR, format!("a coin of {key:02x?} has no history")));
        }
        self.send(Table::Scripts, Some(maker.finish()))
    }

    fn merge<R: Row>(&self, kind: Kind) -> Result<Merge<R>, Error> {
        Merge::new(&**self.disk, &self.state.runs_of(kind), self.memory_bytes / 4)
    }
}

/// A merge whose next record can be looked at.
struct Stream<I: Iterator>(Peekable<I>);

impl<R: Row> Stream<Records<R>> {
    fn new(merge: Merge<R>) -> Self {
        Self(Records(merge).peekable())
    }

    fn next(&mut self) -> Option<Result<R, Error>> {
        self.0.next()
    }

    /// The next record if it is wanted.
    fn take_if(&mut self, wanted: impl Fn(&R) -> bool) -> Result<Option<R>, Error> {
        self.0.next_if(|row| row.as_ref().map_or(true, &wanted)).transpose()
    }
}

struct Records<R: Row>(Merge<R>);

impl<R: Row> Iterator for Records<R> {
    type Item = Result<R, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next().map(|row| row.map(|(row, _)| row)).transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::SimDisk;

    #[test]
    fn a_damaged_run_is_found_before_it_is_believed() {
        let disk = SimDisk::new();
        disk.create_dir(super::super::DIR).unwrap();
        let mut rows: Vec<TxRow> = (0..1000u32).map(|n| TxRow::new([(n % 251) as u8; 8], n)).collect();
        let info = write_sorted(&disk, Kind::Txs, 0, &mut rows).unwrap();
        let all = |disk: &SimDisk| {
            let stream = Records(Merge::<TxRow>::new(disk, &[info], 4096).unwrap());
            stream.collect::<Result<Vec<_>, _>>()
        };
        assert_eq!(
            all(&disk).unwrap(),
            rows.iter().copied().collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>()
        );
        disk.tamper(&info.name(), |bytes| bytes[777] ^= 1);
        assert!(all(&disk).unwrap_err().to_string().contains("checksum"));
    }
}
