//! Making staged work durable, and moving deltas into the base.
//!
//! Order of a commit: flat files behind what the state row names, fsync; then the row. When the header array must
//! be cut, the row names less first; the headers of the deltas fill the gap should a crash come between. When the
//! base goes back, what will be true is announced, then the base is committed, and that decides; then it is true.
//!
//! A full disk met by the appends leaves the store as it was. Met by redb, it stops the store ([`Error::Dead`]
//! from then on; reopening recovers), and so does every other failure.

use std::sync::Arc;

use crate::base::BaseMark;
use crate::error::Error;
use crate::files::BlockRow;
use crate::snapshot::Snapshot;
use crate::store::{Commit, Staged, Store};
use crate::tip::{AsideChange, State};
use crate::types::ScriptKey;

impl Store {
    /// Makes all that is staged durable at once, then visible.
    pub fn commit(&mut self) -> Result<Commit, Error> {
        self.alive()?;
        if !self.staged.any {
            return Ok(self.committed(Vec::new()));
        }
        self.room_to_commit()?;
        let cut = self.staged.headers.keep < self.state.headers;
        if !cut {
            let appended = self.files.append_headers(self.state.headers, &self.staged.headers.new);
            appended.map_err(|error| self.kill_unless_full(error))?;
        }
        let (keep, all) = (self.staged.headers.keep, self.staged.headers.len());
        let mut aside = self.staged.aside.clone();
        let lifted = if cut { self.lift_headers(&mut aside) } else { AsideChange::default() };
        let view = &self.staged.view;
        let mut state = State {
            blocks: view.blocks(),
            tip: view.tip().map_or(State::empty().tip, |tip| tip.hash),
            end: self.segments.end(),
            headers: if cut { keep } else { all },
            base: view.base,
        };
        let deep = self.staged.change.is_some();
        let written = self.write(&state, &aside);
        written.map_err(|error| self.kill(error))?;
        if cut {
            state.headers = all;
            let written = self.rewrite_headers(keep, &state, &lifted);
            written.map_err(|error| self.kill(error))?;
        }
        if deep {
            let cut = self.files.cut_base(&state.base).and_then(|()| self.base.reader());
            self.reader = cut.map_err(|error| self.kill(error))?;
        }
        aside.apply(&mut self.aside);
        lifted.apply(&mut self.aside);
        self.state = state;
        let staged = std::mem::replace(&mut self.staged, Staged::nothing(&self.view, &state));
        self.view = staged.view;
        self.publish();
        Ok(self.committed(staged.touched.into_iter().collect()))
    }

    fn committed(&mut self, touched: Vec<ScriptKey>) -> Commit {
        let everything = self.bulk.is_none() && std::mem::take(&mut self.bulk_ended);
        Commit { snapshot: self.snapshot.clone(), touched, everything }
    }

    /// Puts new headers above the tip aside for the time in which the array is short; returns how to take them back.
    fn lift_headers(&self, aside: &mut AsideChange) -> AsideChange {
        let mut back = AsideChange::default();
        let headers = &self.staged.headers;
        let above = headers.new.iter().zip(headers.keep..).filter(|(_, at)| *at >= self.blocks());
        for (header, height) in above {
            let hash = header.block_hash();
            aside.side.insert(hash, Some((crate::types::Height(height), *header)));
            back.side.insert(hash, None);
        }
        back
    }

    /// Blocks, then the state row with deltas and what is put aside; through the base when that goes back.
    fn write(&mut self, state: &State, aside: &AsideChange) -> Result<(), Error> {
        self.segments.sync()?;
        let view = &self.staged.view;
        if let Some(base) = self.staged.change.take() {
            let change = self.tip.change()?;
            change.set_state(&State { end: state.end, ..self.state })?;
            change.set_next(state, view.deltas.iter().map(|delta| &**delta))?;
            change.put_aside(&additions(aside))?;
            change.commit()?;
            base.commit(&view.base)?;
            let change = self.tip.change()?;
            change.end_next(true)?;
            change.put_aside(aside)?;
            change.set_state(state)?;
            return change.commit();
        }
        let change = self.tip.change()?;
        let kept = view
            .deltas
            .iter()
            .zip(self.view.deltas.iter())
            .take_while(|(new, old)| Arc::ptr_eq(new, old))
            .count();
        change.remove_deltas(view.base.blocks + kept as u32..self.state.blocks)?;
        for delta in &view.deltas[kept..] {
            change.put_delta(delta)?;
        }
        if !aside.is_empty() {
            change.put_aside(aside)?;
        }
        change.set_state(state)?;
        change.commit()
    }

    /// The array has been named short: now it may be cut and continued.
    fn rewrite_headers(&mut self, keep: u32, state: &State, lifted: &AsideChange) -> Result<(), Error> {
        self.files.cut_headers(keep)?;
        self.files.append_headers(keep, &self.staged.headers.new)?;
        let change = self.tip.change()?;
        change.put_aside(lifted)?;
        change.set_state(state)?;
        change.commit()
    }

    /// Moves the deltas deeper than `keep_deltas` into the base; the tip stays.
    ///
    /// [`Error::Staged`] when work waits for its commit.
    pub fn merge(&mut self) -> Result<Arc<Snapshot>, Error> {
        self.alive()?;
        if self.staged.any || self.bulk.is_some() {
            return Err(Error::Staged);
        }
        let count = self.view.deltas.len().saturating_sub(self.options.keep_deltas);
        let Some(top) = count.checked_sub(1).map(|at| self.view.deltas[at].clone()) else {
            return Ok(self.snapshot.clone());
        };
        self.room_to_merge(count)?;
        let appended = self.append_arrays(count);
        appended.map_err(|error| self.kill_unless_full(error))?;
        let base =
            BaseMark { blocks: self.view.base.blocks + count as u32, txs: top.end_tx(), hash: top.hash };
        let merged = self.move_deltas(count, base);
        merged.map_err(|error| self.kill(error))?;
        let moved = self.view.deltas.take_lowest(count);
        let ends = moved.iter().map(|delta| delta.end_tx());
        Arc::make_mut(&mut self.view.tx_ends).extend(ends);
        self.view.base = base;
        self.staged = Staged::nothing(&self.view, &self.state);
        self.publish();
        Ok(self.snapshot.clone())
    }

    /// Array records of the lowest `count` deltas, durable.
    fn append_arrays(&self, count: usize) -> Result<(), Error> {
        let (mut blocks, mut txids, mut txpos) = (Vec::new(), Vec::new(), Vec::new());
        for delta in &self.view.deltas[..count] {
            blocks.push(BlockRow { pos: delta.head.pos, end_tx: delta.end_tx() }.encode());
            txids.extend(delta.head.txids.iter().map(|txid| *bitcoin::hashes::Hash::as_byte_array(txid)));
            txpos.extend(delta.head.offsets.iter().map(|offset| offset.to_le_bytes()));
        }
        self.files.blockpos.append(self.state.base.blocks, &blocks)?;
        self.files.txids.append(self.state.base.txs, &txids)?;
        self.files.txpos.append(self.state.base.txs, &txpos)?;
        self.files.blockpos.sync()?;
        self.files.txids.sync()?;
        self.files.txpos.sync()
    }

    /// Base first, then the state row without the deltas: found ahead on opening, the base is right.
    fn move_deltas(&mut self, count: usize, mark: BaseMark) -> Result<(), Error> {
        let base = self.base.change()?;
        base.apply(&self.view.deltas[..count])?;
        base.commit(&mark)?;
        let change = self.tip.change()?;
        change.remove_deltas(self.state.base.blocks..mark.blocks)?;
        self.state.base = mark;
        change.set_state(&self.state)?;
        change.commit()?;
        self.reader = self.base.reader()?;
        Ok(())
    }

    pub(crate) fn publish(&mut self) {
        self.staged = Staged::nothing(&self.view, &self.state);
        self.snapshot = Arc::new(Snapshot::new(self.view.clone(), self.reader.clone(), self.state.headers));
    }

    /// A full disk met before anything was committed leaves the store alive; a failed fsync does not.
    fn kill_unless_full(&mut self, error: Error) -> Error {
        if matches!(error, Error::StorageFull { .. }) { error } else { self.kill(error) }
    }
}

/// What may be put aside before it is known whether the base follows: more, but nothing less.
fn additions(aside: &AsideChange) -> AsideChange {
    let mut added = aside.clone();
    added.side.retain(|_, header| header.is_some());
    added.stored.retain(|_, stored| stored.is_some());
    added
}
