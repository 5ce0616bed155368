//! Moving old deltas into the base, one part after another, without a block or a query waiting for it.
//!
//! A merge is a row of jobs. A job reads what never changes (an old part, deltas) and writes a file that nobody knows
//! yet, so any thread may run it while the writer goes on; taking its result is one small commit of `tip.redb`.
//! When all parts go as far as the merge, its deltas go. Cut off at any moment, it is gone on with: parts that were
//! written anew say how far they go, and the deltas are all still there.
//! The same jobs write those parts anew of which a deep undo made rows void.

use std::sync::{Arc, Mutex};

use crate::base::{
    self, BaseMark, Change, DeltaChanges, KeyRange, Part, PartInfo, Placed, Plan, Table, Undone, Valid,
    rewrite,
};
use crate::delta::Delta;
use crate::disk::{Disk, remove, sync_dir};
use crate::error::Error;
use crate::files::{BlockRow, Files};
use crate::snapshot::Snapshot;
use crate::store::{Staged, Store};
use crate::types::Height;

/// A merge that goes on.
#[derive(Debug)]
pub(crate) struct Merging {
    /// Tells results of a merge that was given up.
    number: u64,
    target: BaseMark,
    deltas: Arc<Vec<Arc<Delta>>>,
    arrays_done: bool,
    /// A job is out.
    is_out: bool,
    done: Option<MergeResult>,
    /// Whoever writes arrays holds it; `true` once the merge was given up.
    given_up: Arc<Mutex<bool>>,
}

/// A piece of a merge, to be run on any thread.
#[derive(Debug)]
pub struct MergeJob {
    number: u64,
    work: Work,
}

#[derive(Debug)]
enum Work {
    /// Append the deltas' records to the arrays.
    Arrays { files: Arc<Files>, from: BaseMark, deltas: Arc<Vec<Arc<Delta>>>, given_up: Arc<Mutex<bool>> },
    /// Write a part anew.
    Part {
        disk: Arc<dyn Disk>,
        old: Option<Placed>,
        undone: Arc<Undone>,
        deltas: Arc<Vec<Arc<Delta>>>,
        plan: Plan,
        prefix_len: u8,
        keeps_directory: bool,
    },
}

/// What became of a [`MergeJob`].
#[derive(Debug)]
pub struct MergeResult {
    number: u64,
    made: Result<Made, Error>,
}

#[derive(Debug)]
enum Made {
    Arrays,
    Parts { old: Option<u32>, new: Vec<Placed> },
}

impl MergeJob {
    /// Whether a merge begins with it.
    pub fn is_first(&self) -> bool {
        matches!(self.work, Work::Arrays { .. })
    }

    /// Does the work. It may take seconds; nobody waits for it.
    pub fn run(self) -> MergeResult {
        let number = self.number;
        let made = match self.work {
            Work::Arrays { files, from, deltas, given_up } => match given_up.lock() {
                Ok(given_up) if *given_up => Ok(Made::Arrays),
                _guard => append_arrays(&files, &from, &deltas).map(|()| Made::Arrays),
            },
            Work::Part { disk, old, undone, deltas, plan, prefix_len, keeps_directory } => {
                let part = Job { disk: &*disk, old: old.as_ref(), undone: &undone, prefix_len };
                part.run(&plan, &deltas).and_then(|infos| {
                    let open = |info| Ok(Placed { info, part: Part::open(&*disk, &info, keeps_directory)? });
                    let new = infos.into_iter().map(open).collect::<Result<_, Error>>()?;
                    Ok(Made::Parts { old: old.map(|old| old.info.file), new })
                })
            }
        };
        MergeResult { number, made }
    }
}

/// What a part is made of.
struct Job<'a> {
    disk: &'a dyn Disk,
    old: Option<&'a Placed>,
    undone: &'a Undone,
    prefix_len: u8,
}

impl Job<'_> {
    fn run(&self, plan: &Plan, deltas: &[Arc<Delta>]) -> Result<Vec<PartInfo>, Error> {
        let reach = self.old.map_or(0, |old| old.info.reach.blocks);
        let deltas = &deltas[deltas.partition_point(|delta| delta.head.height.0 < reach)..];
        let whole = KeyRange::split_all(0).next();
        let range =
            self.old.map(|old| old.info.range).or(whole).ok_or_else(|| Error::corrupt("base", "no keys"))?;
        let changes = DeltaChanges { deltas, range, valid: self.valid(), prefix_len: self.prefix_len };
        match plan.table {
            Table::Scripts => self.write(plan, base::script_shape, &mut changes.scripts()),
            Table::Coins => self.write(plan, base::coin_shape, &mut changes.coins()),
            Table::Txs => self.write(plan, base::tx_shape, &mut changes.txs()),
        }
    }

    /// What of the old part is valid, where not all of it is.
    fn valid(&self) -> Option<Valid<'_>> {
        let info = self.old?.info;
        Some(Valid { undone: self.undone, from: info.cut?, end: info.reach.txs })
    }

    fn write<const N: usize>(
        &self,
        plan: &Plan,
        shape: impl Fn(u8) -> base::Shape<N>,
        changes: &mut impl Change<N>,
    ) -> Result<Vec<PartInfo>, Error> {
        let made = rewrite(self.disk, plan, self.old, shape, self.valid().as_ref(), changes)?;
        sync_dir(self.disk, base::DIR)?;
        Ok(made)
    }
}

/// Array records of deltas, durable.
fn append_arrays(files: &Files, from: &BaseMark, deltas: &[Arc<Delta>]) -> Result<(), Error> {
    let (mut blocks, mut txids, mut txpos) = (Vec::new(), Vec::new(), Vec::new());
    for delta in deltas {
        blocks.push(BlockRow { pos: delta.head.pos, end_tx: delta.end_tx() }.encode());
        txids.extend(delta.head.txids.iter().map(|txid| *bitcoin::hashes::Hash::as_byte_array(txid)));
        txpos.extend(delta.head.offsets.iter().map(|offset| offset.to_le_bytes()));
    }
    files.blockpos.append(from.blocks, &blocks)?;
    files.txids.append(from.txs, &txids)?;
    files.txpos.append(from.txs, &txpos)?;
    files.blockpos.sync()?;
    files.txids.sync()?;
    files.txpos.sync()
}

impl Store {
    /// Whether there is something to merge: enough deltas deeper than `keep_deltas`, or a merge that was begun.
    pub fn merge_due(&self) -> bool {
        let enough = self.options.keep_deltas + self.options.merge_batch.max(1);
        self.bulk.is_none()
            && (self.view.deltas.len() >= enough || !self.view.index.is_level(self.view.base.blocks))
    }

    /// The next job of a merge that is due; `None` where there is none, or one is out, or work waits for its commit.
    pub fn merge_job(&mut self) -> Result<Option<MergeJob>, Error> {
        self.alive()?;
        self.take_result()?;
        if self.merging.is_none() && self.merge_due() {
            self.begin_merge();
        }
        self.next_job()
    }

    /// Takes what became of a job.
    pub fn merge_done(&mut self, result: MergeResult) -> Result<(), Error> {
        self.alive()?;
        match &mut self.merging {
            Some(merging) if merging.number == result.number => merging.done = Some(result),
            _ => remove_unused(&*self.disk, result)?,
        }
        self.take_result()
    }

    /// Moves the deltas deeper than `keep_deltas` into the base, here and now; the tip stays.
    ///
    /// [`Error::Staged`] when work waits for its commit.
    pub fn merge(&mut self) -> Result<Arc<Snapshot>, Error> {
        self.alive()?;
        if self.staged.any || self.bulk.is_some() {
            return Err(Error::Staged);
        }
        self.take_result()?;
        if self.merging.as_ref().is_some_and(|merging| merging.is_out) {
            self.give_up_merge();
        }
        if self.merging.is_none() {
            self.begin_merge();
        }
        while let Some(job) = self.next_job()? {
            self.merge_done(job.run())?;
        }
        Ok(self.snapshot.clone())
    }

    fn begin_merge(&mut self) {
        let view = &self.view;
        // Parts that went ahead of a crash say where the merge went.
        let ahead = view.index.parts().iter().map(|placed| placed.info.reach.blocks).max().unwrap_or(0);
        let ahead = ahead.saturating_sub(view.base.blocks) as usize;
        let count = view.deltas.len().saturating_sub(self.options.keep_deltas).max(ahead);
        let target = match count.checked_sub(1).and_then(|at| view.deltas.get(at)) {
            Some(top) => {
                BaseMark { blocks: view.base.blocks + count as u32, txs: top.end_tx(), hash: top.hash }
            }
            None => view.base,
        };
        if target == view.base && view.index.is_level(target.blocks) {
            return;
        }
        self.merges += 1;
        self.merging = Some(Merging {
            number: self.merges,
            target,
            deltas: Arc::new(view.deltas.iter().take(count).cloned().collect()),
            arrays_done: false,
            is_out: false,
            done: None,
            given_up: Arc::default(),
        });
    }

    /// Whether the staged chain still has what a merge moves.
    pub(crate) fn merge_stands(&self) -> bool {
        let Some(merging) = &self.merging else { return true };
        let top = merging.deltas.len().checked_sub(1);
        let staged = top.map(|at| self.staged.view.deltas.get(at));
        staged
            .zip(merging.deltas.last())
            .is_none_or(|(staged, last)| staged.is_some_and(|staged| Arc::ptr_eq(staged, last)))
    }

    /// A merge whose deltas, or whose parts, are no longer those of the chain.
    pub(crate) fn give_up_merge(&mut self) {
        if let Some(merging) = self.merging.take()
            && let Ok(mut given_up) = merging.given_up.lock()
        {
            *given_up = true;
        }
    }

    fn next_job(&mut self) -> Result<Option<MergeJob>, Error> {
        if self.staged.any || self.bulk.is_some() {
            return Ok(None);
        }
        let Some(merging) = self.merging.as_mut().filter(|merging| !merging.is_out) else { return Ok(None) };
        let (number, deltas) = (merging.number, merging.deltas.clone());
        if !merging.arrays_done {
            let given_up = merging.given_up.clone();
            let largest =
                self.view.index.parts().iter().map(|placed| &placed.info).max_by_key(|info| info.bytes);
            let txs: usize = deltas.iter().map(|delta| delta.head.txids.len()).sum();
            self.room_for_part(largest, txs as u64)?;
            self.merging.iter_mut().for_each(|merging| merging.is_out = true);
            let work = Work::Arrays { files: self.files.clone(), from: self.view.base, deltas, given_up };
            return Ok(Some(MergeJob { number, work }));
        }
        let index = &self.view.index;
        let reach = merging.target.reach();
        let behind = |placed: &&Placed| placed.info.reach != reach || placed.info.cut.is_some();
        let missing = |table: &Table| !index.parts().iter().any(|placed| placed.info.table == *table);
        let old = index.parts().iter().find(behind).cloned();
        let table = match &old {
            Some(old) => Some(old.info.table),
            None => Table::ALL.into_iter().find(missing),
        };
        let Some(table) = table else {
            return self.end_merge().map(|()| None);
        };
        merging.is_out = true;
        let more = old.as_ref().map_or(0, |old| splits(old.info.bytes, self.options.part_bytes));
        let ranges: Vec<KeyRange> = match &old {
            Some(old) => old.info.range.split(more).collect(),
            None => KeyRange::split_all(0).collect(),
        };
        let added: usize = deltas.iter().map(|delta| delta.entries(table)).sum();
        let entries = old.as_ref().map_or(0, |old| old.info.entries) + added as u64 / parts_of(index, table);
        if let Err(full) = self.room_for_part(old.as_ref().map(|old| &old.info), added as u64) {
            self.merging.iter_mut().for_each(|merging| merging.is_out = false);
            return Err(full);
        }
        let index = &self.view.index;
        let plan = Plan { table, file: self.next_file, entries, reach, ranges };
        self.next_file += plan.ranges.len() as u32;
        let work = Work::Part {
            disk: self.disk.clone(),
            old,
            undone: index.undone().clone(),
            deltas,
            plan,
            prefix_len: index.prefix_len(),
            keeps_directory: index.keeps_directory(table, self.options.directory_bytes),
        };
        Ok(Some(MergeJob { number, work }))
    }

    /// Makes what a job did count, unless work waits for its commit.
    fn take_result(&mut self) -> Result<(), Error> {
        if self.staged.any {
            return Ok(());
        }
        let Some(merging) = &mut self.merging else { return Ok(()) };
        let Some(result) = merging.done.take() else { return Ok(()) };
        merging.is_out = false;
        match result.made {
            Ok(Made::Arrays) => merging.arrays_done = true,
            Ok(Made::Parts { old, new }) => {
                let taken = self.take_parts(old, new);
                return taken.map_err(|error| self.kill(error));
            }
            // The writer can go on when there is space again; the job is given out anew.
            Err(error) => return Err(self.kill_unless_full(error)),
        }
        Ok(())
    }

    fn take_parts(&mut self, old: Option<u32>, new: Vec<Placed>) -> Result<(), Error> {
        let mut index = (*self.view.index).clone();
        index.replace(old, new);
        let change = self.tip.change()?;
        change.set_parts(&index.list(self.next_file))?;
        if index.forget_undone() {
            change.set_undone(index.undone(), 0)?;
        }
        change.commit()?;
        self.view.index = Arc::new(index);
        self.publish();
        if let Some(old) = old {
            // Snapshots that still read it keep it open.
            remove(&*self.disk, &base::file_name(old))?;
        }
        Ok(())
    }

    /// All parts go as far as the merge: its deltas go.
    fn end_merge(&mut self) -> Result<(), Error> {
        let Some(Merging { target, .. }) = self.merging.take() else { return Ok(()) };
        let count = (target.blocks - self.view.base.blocks) as usize;
        if count == 0 {
            return Ok(());
        }
        let ended = self.drop_deltas(target);
        ended.map_err(|error| self.kill(error))?;
        let moved = self.view.deltas.take_lowest(count);
        let ends = moved.iter().map(|delta| delta.end_tx());
        Arc::make_mut(&mut self.view.tx_ends).extend(ends);
        self.view.base = target;
        self.staged = Staged::nothing(&self.view, &self.state);
        self.publish();
        Ok(())
    }

    fn drop_deltas(&mut self, target: BaseMark) -> Result<(), Error> {
        let change = self.tip.change()?;
        change.remove_deltas(self.state.base.blocks..target.blocks)?;
        self.state.base = target;
        change.set_state(&self.state)?;
        change.commit()
    }
}

/// By how many bits the keys of a part of so many bytes are to be split.
fn splits(bytes: u64, part_bytes: u64) -> u8 {
    let times = bytes / part_bytes.max(1);
    times.checked_ilog2().map_or(0, |more| more as u8 + 1)
}

fn parts_of(index: &base::Base, table: Table) -> u64 {
    (index.parts().iter().filter(|placed| placed.info.table == table).count() as u64).max(1)
}

/// Files of a job whose merge was given up.
fn remove_unused(disk: &dyn Disk, result: MergeResult) -> Result<(), Error> {
    if let Ok(Made::Parts { new, .. }) = result.made {
        for placed in new {
            remove(disk, &placed.info.name())?;
        }
    }
    Ok(())
}

impl Store {
    /// Undoes the block of a delta in the staged base, if that has it.
    pub(crate) fn undo_in_base(&mut self, delta: &Arc<Delta>) {
        if self.staged.view.index.covers(delta.head.height.0) {
            Arc::make_mut(&mut self.staged.view.index).undo(delta);
        }
    }

    /// Makes the delta of the top block of the staged base again, and names the arrays shorter.
    pub(crate) fn undo_arrays(&mut self, height: Height) -> Result<Arc<Delta>, Error> {
        let view = &mut self.staged.view;
        let delta = crate::undo::rebuild(view, height)?;
        let below = match height.prev() {
            Some(below) => view.hash_of(below)?,
            None => None,
        };
        let hash = below.unwrap_or(BaseMark::empty().hash);
        view.base = BaseMark { blocks: view.base.blocks - 1, txs: delta.head.first_tx, hash };
        Arc::make_mut(&mut view.tx_ends).truncate(view.base.blocks as usize);
        Ok(Arc::new(delta))
    }
}
