//! The end of a bulk: parts of the base are written anew from what they were and the runs.
//!
//! Some threads write parts side by side, each in the order of its keys. First coins, and transactions; of coins fall
//! off runs of the same by script, which the parts of scripts need. Each part that is written is told at once, so that
//! a crash costs one part.

use std::collections::{BTreeSet, VecDeque};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::thread;

use super::rows::{CoinRow, HistoryRow, Row, TxRow, UnspentRow};
use super::run::{Heads, Kind, Merge, RunInfo, write_sorted};
use super::state::BulkState;
use crate::base::{
    self, Base, Change, CoinContent, CoinKey, KeyRange, PartInfo, Placed, Plan, Table, TxKey, coin_content,
    coin_key, cut, rewrite, tx_key,
};
use crate::delta::CoinValue;
use crate::disk::{Disk, sync_dir};
use crate::error::Error;
use crate::files::Files;
use crate::group::{Group, GroupCoin};
use crate::types::TxNum;

/// Bytes that an entry of a table takes, about, before its part is written.
const SCRIPT_BYTES: u64 = 20;
const COIN_BYTES: u64 = 32;
const TX_BYTES: u64 = 8;
/// Fewer bytes are not worth a file of their own.
const LEAST_BYTES: u64 = 4 << 20;
const THREADS: usize = 4;

/// What parts are written from.
pub(crate) struct Load<'a> {
    pub(crate) disk: &'a Arc<dyn Disk>,
    pub(crate) files: &'a Files,
    /// The base as it was.
    pub(crate) old: &'a Base,
    pub(crate) part_bytes: u64,
    /// For all buffers together.
    pub(crate) memory_bytes: usize,
}

/// One part, or what is left of it to do.
#[derive(Debug)]
struct Job {
    plan: Plan,
    old: Option<Placed>,
}

#[derive(Debug)]
struct Done {
    parts: Vec<PartInfo>,
    unspent: Vec<RunInfo>,
    repeated: BTreeSet<u32>,
}

/// Writes all parts. `tell` is called with what is durable, after each.
pub(crate) fn load(
    load: &Load<'_>,
    mut state: BulkState,
    mut tell: impl FnMut(&BulkState) -> Result<(), Error>,
) -> Result<BulkState, Error> {
    for tables in [&[Table::Coins, Table::Txs][..], &[Table::Scripts]] {
        let mut jobs: VecDeque<Job> = VecDeque::new();
        for table in tables {
            jobs.extend(load.jobs(*table, &mut state));
        }
        let next_run = AtomicU32::new(state.next_run);
        let threads = thread::available_parallelism().map_or(1, usize::from).min(THREADS).min(jobs.len());
        let memory_bytes = load.memory_bytes / threads.max(1);
        let jobs = Mutex::new(jobs);
        let from = state.clone();
        let (sender, done) = channel();
        thread::scope(|scope| {
            for _ in 0..threads {
                let (sender, jobs, from, next_run) = (sender.clone(), &jobs, &from, &next_run);
                scope.spawn(move || {
                    while let Ok(Some(job)) = jobs.lock().map(|mut jobs| jobs.pop_front()) {
                        let work = Worker { load, state: from, next_run, memory_bytes };
                        // Nobody listens any more once another part failed.
                        if sender.send(work.run(&job)).is_err() {
                            return;
                        }
                    }
                });
            }
            drop(sender);
            for done in done {
                let Done { parts, unspent, repeated } = done?;
                sync_dir(&**load.disk, base::DIR)?;
                sync_dir(&**load.disk, super::DIR)?;
                state.parts.extend(parts);
                state.runs.extend(unspent);
                state.repeated.extend(repeated);
                state.next_run = next_run.load(Ordering::SeqCst);
                tell(&state)?;
            }
            Ok(())
        })?;
    }
    Ok(state)
}

impl Load<'_> {
    /// The parts of a table that are not written yet.
    fn jobs(&self, table: Table, state: &mut BulkState) -> Vec<Job> {
        let kind = match table {
            Table::Scripts => Kind::History,
            Table::Coins => Kind::Coins,
            Table::Txs => Kind::Txs,
        };
        let records: u64 = state.runs_of(kind).iter().map(|run| run.records).sum();
        // Most scripts are in two transactions.
        let records = if table == Table::Scripts { records / 2 } else { records };
        let old: Vec<&Placed> = self.old.parts().iter().filter(|placed| placed.info.table == table).collect();
        let written = |range: KeyRange| {
            state.parts.iter().any(|part| part.table == table && range.has(&part.range.first().to_be_bytes()))
        };
        let mut jobs = Vec::new();
        let mut file = state.next_file;
        let mut plan = |ranges: Vec<KeyRange>, entries: u64| {
            let plan = Plan { table, file, entries, reach: state.mark.reach(), ranges };
            file += plan.ranges.len() as u32;
            plan
        };
        if old.is_empty() {
            let depth = match state.parts.iter().find(|part| part.table == table) {
                Some(part) => part.range.depth(),
                None => self.depth(table, records),
            };
            let ranges: Vec<KeyRange> = KeyRange::split_all(depth).collect();
            let entries = records / ranges.len() as u64;
            for range in ranges.into_iter().filter(|range| !written(*range)) {
                jobs.push(Job { plan: plan(vec![range], entries), old: None });
            }
        } else {
            let added = records / old.len() as u64;
            for placed in old.iter().filter(|placed| !written(placed.info.range)) {
                let more = u8::from(placed.info.bytes > self.part_bytes);
                let ranges = placed.info.range.split(more).collect();
                jobs.push(Job {
                    plan: plan(ranges, placed.info.entries + added),
                    old: Some((*placed).clone()),
                });
            }
        }
        state.next_file = file;
        jobs
    }

    /// Into how many parts a new table is divided, as a power of two: a few even if it is small, to be written side by
    /// side.
    fn depth(&self, table: Table, records: u64) -> u8 {
        let each = match table {
            Table::Scripts => SCRIPT_BYTES,
            Table::Coins => COIN_BYTES,
            Table::Txs => TX_BYTES,
        };
        let bytes = records.saturating_mul(each);
        let part = (bytes / 4).max(LEAST_BYTES).min(self.part_bytes / 2).max(1);
        (bytes / part).checked_ilog2().map_or(0, |depth| depth as u8)
    }
}

struct Worker<'a> {
    load: &'a Load<'a>,
    state: &'a BulkState,
    next_run: &'a AtomicU32,
    memory_bytes: usize,
}

impl Worker<'_> {
    fn run(&self, job: &Job) -> Result<Done, Error> {
        let disk = &**self.load.disk;
        let old = job.old.as_ref();
        let mut done = Done { parts: Vec::new(), unspent: Vec::new(), repeated: BTreeSet::new() };
        let heads = self.heads(&job.plan);
        match job.plan.table {
            Table::Coins => {
                let unspent = Unspent {
                    disk,
                    next_run: self.next_run,
                    rows: Vec::new(),
                    limit: (self.memory_bytes / 2 / size_of::<UnspentRow>()).max(16),
                    runs: Vec::new(),
                };
                let mut coins = RunCoins {
                    rows: Ahead::new(self.merge(Kind::Coins, heads, self.memory_bytes / 4)?)?,
                    base_txs: job.old.as_ref().map_or(0, |placed| placed.info.reach.txs),
                    prefix_len: self.load.old.prefix_len(),
                    group: Vec::new(),
                    unspent,
                };
                done.parts = rewrite(disk, &job.plan, old, base::coin_shape, None, &mut coins)?;
                coins.unspent.spill()?;
                done.unspent = coins.unspent.runs;
            }
            Table::Txs => {
                let mut txs = RunTxs {
                    rows: Ahead::new(self.merge(Kind::Txs, heads, self.memory_bytes / 4)?)?,
                    files: self.load.files,
                    prefix_len: self.load.old.prefix_len(),
                    group: Vec::new(),
                    repeated: BTreeSet::new(),
                };
                done.parts = rewrite(disk, &job.plan, old, base::tx_shape, None, &mut txs)?;
                done.repeated = txs.repeated;
            }
            Table::Scripts => {
                let mut scripts = RunScripts {
                    history: Ahead::new(self.merge(Kind::History, heads, self.memory_bytes / 4)?)?,
                    unspent: Ahead::new(self.merge(Kind::Unspent, heads, self.memory_bytes / 4)?)?,
                    repeated: &self.state.repeated,
                    group: Group::default(),
                };
                done.parts = rewrite(disk, &job.plan, old, base::script_shape, None, &mut scripts)?;
            }
        }
        Ok(done)
    }

    /// The keys of a job, as far as the index keeps them.
    fn heads(&self, plan: &Plan) -> Heads {
        let kept = match plan.table {
            Table::Scripts => 4,
            Table::Coins | Table::Txs => u32::from(self.load.old.prefix_len()).min(4),
        };
        let mask = u32::MAX.checked_shl(32 - kept * 8).unwrap_or(0);
        let first = plan.ranges.first().map_or(0, |range| range.first());
        let last = plan.ranges.last().map_or(0, |range| range.last());
        Heads { first, last, mask }
    }

    fn merge<R: Row>(&self, kind: Kind, heads: Heads, memory_bytes: usize) -> Result<Merge<R>, Error> {
        Merge::new(&**self.load.disk, &self.state.runs_of(kind), heads, memory_bytes)
    }
}

/// A merge whose next record can be looked at.
struct Ahead<R: Row> {
    merge: Merge<R>,
    next: Option<R>,
}

impl<R: Row> Ahead<R> {
    fn new(mut merge: Merge<R>) -> Result<Self, Error> {
        let next = merge.next()?.map(|(row, _)| row);
        Ok(Self { merge, next })
    }

    /// The next record if it is wanted.
    fn take_if(&mut self, wanted: impl Fn(&R) -> bool) -> Result<Option<R>, Error> {
        match self.next {
            Some(row) if wanted(&row) => {
                self.next = self.merge.next()?.map(|(row, _)| row);
                Ok(Some(row))
            }
            _ => Ok(None),
        }
    }
}

/// Coins that came and went, by script, for the parts of scripts.
struct Unspent<'a> {
    disk: &'a dyn Disk,
    next_run: &'a AtomicU32,
    rows: Vec<UnspentRow>,
    limit: usize,
    runs: Vec<RunInfo>,
}

impl Unspent<'_> {
    fn push(&mut self, row: UnspentRow) -> Result<(), Error> {
        self.rows.push(row);
        if self.rows.len() >= self.limit { self.spill() } else { Ok(()) }
    }

    fn spill(&mut self) -> Result<(), Error> {
        if !self.rows.is_empty() {
            let number = self.next_run.fetch_add(1, Ordering::SeqCst);
            self.runs.push(write_sorted(self.disk, Kind::Unspent, number, &mut self.rows)?);
            self.rows.clear();
        }
        Ok(())
    }
}

/// What became of coins, by key: of each outpoint the newest row holds.
struct RunCoins<'a> {
    rows: Ahead<CoinRow>,
    /// Coins of transactions below this number are in the base.
    base_txs: u32,
    prefix_len: u8,
    /// Rows of one prefix, which come in another order than they go.
    group: Vec<(CoinKey, Option<CoinContent>)>,
    unspent: Unspent<'a>,
}

impl RunCoins<'_> {
    fn fill(&mut self) -> Result<(), Error> {
        let len = self.prefix_len;
        let prefix = |row: &CoinRow| cut(row.key.prefix(), len);
        while self.group.is_empty()
            && let Some(first) = self.rows.next
        {
            while let Some(mut row) = self.rows.take_if(|row| prefix(row) == prefix(&first))? {
                while let Some(newer) = self.rows.take_if(|newer| *newer == row)? {
                    row = newer;
                }
                // It came and went since.
                if row.is_gone() && row.number >= self.base_txs {
                    continue;
                }
                self.unspent.push(UnspentRow::new(&row))?;
                let CoinRow { number, script_key, .. } = row;
                let value = CoinValue { value: row.value(), class: row.class(), script_key };
                let key = coin_key(prefix(&row), row.vout(), TxNum(number));
                self.group.push((key, (!row.is_gone()).then(|| coin_content(&value))));
            }
            // From the end they are taken.
            self.group.sort_unstable_by_key(|(key, _)| std::cmp::Reverse(*key));
        }
        Ok(())
    }
}

impl Change<{ base::COIN_KEY }> for RunCoins<'_> {
    fn peek(&mut self) -> Result<Option<CoinKey>, Error> {
        self.fill()?;
        Ok(self.group.last().map(|(key, _)| *key))
    }

    fn apply(&mut self, content: Option<&[u8]>, out: &mut Vec<u8>) -> Result<bool, Error> {
        self.fill()?;
        let Some((key, coin)) = self.group.pop() else { return Ok(false) };
        if content.is_some() == coin.is_some() {
            let what = if content.is_some() { "is there already" } else { "is missing" };
            return Err(Error::corrupt(base::DIR, format!("coin {key:02x?} {what}")));
        }
        coin.iter().for_each(|coin| out.extend_from_slice(coin));
        Ok(coin.is_some())
    }
}

/// New transactions by id; on the way it is found which ids are repeated.
struct RunTxs<'a> {
    rows: Ahead<TxRow>,
    files: &'a Files,
    prefix_len: u8,
    group: Vec<TxKey>,
    repeated: BTreeSet<u32>,
}

impl RunTxs<'_> {
    fn fill(&mut self) -> Result<(), Error> {
        let len = self.prefix_len;
        if !self.group.is_empty() {
            return Ok(());
        }
        let Some(first) = self.rows.next else { return Ok(()) };
        let mut alike: Vec<TxRow> = Vec::new();
        while let Some(row) = self.rows.take_if(|row| cut(row.prefix(), len) == cut(first.prefix(), len))? {
            alike.push(row);
        }
        for rows in alike.chunk_by(|one, other| one.prefix() == other.prefix()) {
            self.find_repeated(rows)?;
        }
        self.group.extend(alike.iter().map(|row| tx_key(cut(row.prefix(), len), row.number)));
        self.group.sort_unstable_by(|one, other| other.cmp(one));
        Ok(())
    }

    /// Rows that share their prefix may share their id.
    fn find_repeated(&mut self, rows: &[TxRow]) -> Result<(), Error> {
        for (at, row) in rows.iter().enumerate().filter(|_| rows.len() > 1) {
            let txid = self.files.txids.read(row.number)?;
            for later in &rows[at + 1..] {
                if self.files.txids.read(later.number)? == txid {
                    self.repeated.insert(row.number);
                }
            }
        }
        Ok(())
    }
}

impl Change<{ base::TX_KEY }> for RunTxs<'_> {
    fn peek(&mut self) -> Result<Option<TxKey>, Error> {
        self.fill()?;
        Ok(self.group.last().copied())
    }

    fn apply(&mut self, _: Option<&[u8]>, _: &mut Vec<u8>) -> Result<bool, Error> {
        self.fill()?;
        Ok(self.group.pop().is_some())
    }
}

/// What happened to scripts.
struct RunScripts<'a> {
    history: Ahead<HistoryRow>,
    unspent: Ahead<UnspentRow>,
    repeated: &'a BTreeSet<u32>,
    group: Group,
}

impl Change<{ base::SCRIPT_KEY }> for RunScripts<'_> {
    fn peek(&mut self) -> Result<Option<[u8; base::SCRIPT_KEY]>, Error> {
        let next = self.history.next;
        if let Some(coin) = self.unspent.next
            && next.is_none_or(|next| coin.place().script_key() < next.script_key())
        {
            let what = format!("a coin of {:02x?} has no history", coin.place().script_key());
            return Err(Error::corrupt(super::DIR, what));
        }
        Ok(next.map(|row| row.script_key().0))
    }

    fn apply(&mut self, content: Option<&[u8]>, out: &mut Vec<u8>) -> Result<bool, Error> {
        let Some(first) = self.history.next else { return Ok(false) };
        let group = &mut self.group;
        group.history.clear();
        group.unspent.clear();
        if let Some(content) = content {
            let decoded = Group::decode(content);
            *group = decoded.map_err(|fault| Error::corrupt(base::DIR, fault.to_string()))?;
        }
        let mut last = None;
        while let Some(row) = self.history.take_if(|row| row.has_key_of(&first))? {
            if last.replace(row) != Some(row) && !self.repeated.contains(&row.number()) {
                group.history.push(TxNum(row.number()));
            }
        }
        while let Some(row) = self.unspent.take_if(|row| row.place().has_key_of(&first))? {
            let tx_num = TxNum(row.place().number());
            if row.is_gone() {
                let removed = group.remove(tx_num, row.vout);
                removed.map_err(|what| Error::corrupt(base::DIR, what))?;
            } else {
                group.unspent.push(GroupCoin { tx_num, vout: row.vout, value: row.value() });
            }
        }
        group.encode_to(out);
        Ok(!group.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::SimDisk;

    fn numbers(disk: &SimDisk, info: RunInfo, heads: Heads, bytes: usize) -> Result<Vec<u32>, Error> {
        let mut merge = Merge::<TxRow>::new(disk, &[info], heads, bytes)?;
        let mut found = Vec::new();
        while let Some((row, _)) = merge.next()? {
            found.push(row.number);
        }
        Ok(found)
    }

    #[test]
    fn a_damaged_run_is_found_before_it_is_believed() {
        let disk = SimDisk::new();
        disk.create_dir(super::super::DIR).unwrap();
        let mut rows: Vec<TxRow> = (0..1000u32).map(|n| TxRow::new([(n % 251) as u8; 6], n)).collect();
        let info = write_sorted(&disk, Kind::Txs, 0, &mut rows).unwrap();
        let mut wanted: Vec<TxRow> = rows.clone();
        wanted.sort_unstable();
        let wanted: Vec<u32> = wanted.iter().map(|row| row.number).collect();
        assert_eq!(numbers(&disk, info, Heads::ALL, 4096).unwrap(), wanted);
        disk.tamper(&info.name(), |bytes| bytes[777] ^= 1);
        assert!(numbers(&disk, info, Heads::ALL, 4096).unwrap_err().to_string().contains("checksum"));
    }

    #[test]
    fn ranges_of_a_run_together_are_the_run() {
        let disk = SimDisk::new();
        disk.create_dir(super::super::DIR).unwrap();
        for count in [0, 1, 408, 409, 410, 3000u32] {
            let mut rows: Vec<TxRow> =
                (0..count).map(|n| TxRow::new([(n * 7 % 256) as u8, n as u8, 1, 2, 3, 4], n)).collect();
            let info = write_sorted(&disk, Kind::Txs, 0, &mut rows).unwrap();
            for (depth, mask) in [(0, u32::MAX), (3, u32::MAX), (7, 0xff00_0000)] {
                let mut all = Vec::new();
                for range in KeyRange::split_all(depth) {
                    let heads = Heads { first: range.first(), last: range.last(), mask };
                    all.extend(numbers(&disk, info, heads, 5000).unwrap());
                }
                assert_eq!(all, numbers(&disk, info, Heads::ALL, 1 << 20).unwrap(), "{count} {depth}");
            }
        }
    }
}
