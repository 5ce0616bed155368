//! Making staged work durable.
//!
//! Order of a commit: flat files behind what the state row names, fsync; then the row. When the header array must
//! be cut, the row names less first; the headers of the deltas fill the gap should a crash come between. An undo below
//! the deltas changes no part of the base: the same transaction says which of their rows are void.
//!
//! A full disk met by the appends leaves the store as it was. Met by redb, it stops the store ([`Error::Dead`]
//! from then on; reopening recovers), and so does every other failure.

use std::sync::Arc;

use bitcoin::Txid;

use crate::error::Error;
use crate::snapshot::Snapshot;
use crate::store::{Commit, Staged, Store};
use crate::tip::{AsideChange, State};
use crate::types::ScriptKey;

impl Store {
    /// Makes all that is staged durable at once, then visible.
    pub fn commit(&mut self) -> Result<Commit, Error> {
        self.alive()?;
        if !self.staged.any {
            return Ok(self.committed(Vec::new(), Vec::new()));
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
        let shorter = view.base.blocks < self.view.base.blocks;
        let undone = !Arc::ptr_eq(&view.index, &self.view.index) || !self.merge_stands();
        let written = self.write(&state, &aside);
        written.map_err(|error| self.kill(error))?;
        if cut {
            state.headers = all;
            let written = self.rewrite_headers(keep, &state, &lifted);
            written.map_err(|error| self.kill(error))?;
        }
        if undone || shorter {
            self.give_up_merge();
        }
        if shorter {
            let cut = self.files.cut_base(&state.base);
            cut.map_err(|error| self.kill(error))?;
        }
        aside.apply(&mut self.aside);
        lifted.apply(&mut self.aside);
        self.state = state;
        let staged = std::mem::replace(&mut self.staged, Staged::nothing(&self.view, &state));
        self.view = staged.view;
        self.publish();
        let mut touched = staged.touched;
        touched.sort();
        touched.dedup();
        Ok(self.committed(touched, staged.transactions))
    }

    fn committed(&mut self, touched: Vec<ScriptKey>, transactions: Vec<Txid>) -> Commit {
        let everything = self.bulk.is_none() && std::mem::take(&mut self.bulk_ended);
        Commit { snapshot: self.snapshot.clone(), touched, transactions, everything }
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

    /// Blocks, then the state row with deltas, what is put aside, and what of the base is void from now on.
    fn write(&mut self, state: &State, aside: &AsideChange) -> Result<(), Error> {
        self.segments.sync()?;
        let view = &self.staged.view;
        let change = self.tip.change()?;
        let kept = view
            .deltas
            .iter()
            .zip(self.view.deltas.iter())
            .take_while(|(new, old)| Arc::ptr_eq(new, old))
            .count();
        // Those of the base were undone if it is shorter now.
        change.remove_deltas(view.base.blocks + kept as u32..self.state.blocks)?;
        for delta in &view.deltas[kept..] {
            change.put_delta(delta)?;
        }
        if !aside.is_empty() {
            change.put_aside(aside)?;
        }
        if !Arc::ptr_eq(&view.index, &self.view.index) {
            change.set_parts(&view.index.list(self.next_file))?;
            change.set_undone(view.index.undone(), self.view.index.undone().next())?;
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

    pub(crate) fn publish(&mut self) {
        self.staged = Staged::nothing(&self.view, &self.state);
        self.snapshot = Arc::new(Snapshot::new(self.view.clone(), self.state.headers));
    }

    /// A full disk met before anything was committed leaves the store alive; a failed fsync does not.
    pub(crate) fn kill_unless_full(&mut self, error: Error) -> Error {
        if matches!(error, Error::StorageFull { .. }) { error } else { self.kill(error) }
    }
}
