//! When the store goes over to bulk indexing, and back.
//!
//! It begins where the header chain is far ahead of the chain, and ends so far below the best header that the newest
//! blocks are deltas. What ends it early, a block to be undone below all of it, is answered from the base that it
//! leaves behind.
//!
//! Order of the end: everything is flushed, the parts of the base are written anew, each named by the bulk row as soon
//! as it is whole, and then one commit makes them the base. Cut off, it is gone on with where it was.

use std::sync::Arc;

use crate::base::{Base, PartList, Undone};
use crate::bulk::{self, Bulk, BulkState, Load, Secret};
use crate::deltas::Deltas;
use crate::disk::remove;
use crate::error::Error;
use crate::store::{NewBlock, Staged, Store};
use crate::tip::State;
use crate::types::{Height, Tip};

impl Store {
    /// Says that the header chain is as long as anybody knows it, so that the end of a bulk can be seen.
    pub fn set_headers_complete(&mut self) -> Result<(), Error> {
        self.alive()?;
        self.headers_complete = true;
        self.end_bulk_if_due()
    }

    /// Whether blocks are being indexed in bulk: until it ends, readers see the chain as it was before.
    pub fn is_bulk(&self) -> bool {
        self.bulk.is_some()
    }

    /// Blocks of the staged chain, those of a bulk included.
    pub(crate) fn blocks(&self) -> u32 {
        self.bulk.as_ref().map_or(self.staged.view.blocks(), |bulk| bulk.mark().blocks)
    }

    /// Goes over to bulk indexing if that pays.
    pub(crate) fn begin_bulk_if_due(&mut self) -> Result<(), Error> {
        let view = &self.staged.view;
        let batch = self.options.merge_batch as u32;
        // The whole base is written anew for it: that must spare some merges.
        let least = if view.base.blocks > 0 { batch.saturating_mul(2) } else { 0 };
        let least = self.options.bulk_blocks.max(least);
        let far = view.blocks().saturating_add(self.keep_deltas() + least);
        let is_repeated =
            || view.deltas.iter().any(|delta| delta.scripts().any(|rows| !rows.replaced.is_empty()));
        if self.bulk.is_some()
            || self.staged.headers.len() < far
            || !Arc::ptr_eq(&view.index, &self.view.index)
            || !view.index.is_level(view.base.blocks)
            || self.merging.is_some()
            || is_repeated()
        {
            return Ok(());
        }
        self.commit()?;
        let secret = Secret([self.random(), self.random()]);
        let state = BulkState::new(self.view.base, secret, self.next_file);
        let memory_bytes = self.options.bulk_memory_bytes;
        let mut bulk = Bulk::open(self.disk.clone(), self.view.clone(), state, memory_bytes)?;
        for delta in self.view.deltas.iter() {
            bulk.absorb(delta)?;
        }
        self.bulk = Some(Box::new(bulk));
        Ok(())
    }

    /// What no attacker can know.
    fn random(&self) -> u64 {
        use std::hash::{BuildHasher, Hasher, RandomState};
        self.options.bulk_secret.unwrap_or_else(|| RandomState::new().build_hasher().finish())
    }

    fn keep_deltas(&self) -> u32 {
        self.options.keep_deltas as u32
    }

    /// Takes the next block into the bulk; `height` is its.
    pub(crate) fn connect_bulk(&mut self, new: &NewBlock<'_>, height: Height) -> Result<(), Error> {
        if self.bulk.as_ref().is_some_and(|bulk| bulk.is_full()) {
            self.flush()?;
        }
        // Looked at before anything is written.
        if new.outline.length() as usize != new.raw.len() {
            return Err(Error::BadInput { hash: new.hash, what: "the raw bytes are not those of the block" });
        }
        let pos = match self.stored(&new.hash) {
            Some(stored) => {
                self.staged.any = true;
                self.staged.aside.stored.insert(new.hash, None);
                stored.pos
            }
            None => self.append(new.raw)?,
        };
        if self.staged.headers.hash(&self.files, height.0)? != Some(new.hash) {
            self.replace_headers(height, &[*new.header])?;
        }
        let Some(bulk) = &mut self.bulk else { return Err(Error::NoTip) };
        // Half a block in the tables is none that could be taken back.
        let connected = bulk.connect(new, pos);
        connected.map_err(|error| self.kill(error))
    }

    /// Whether the newest blocks come next, so that the next block ends the bulk; or, where it is not yet known
    /// that the headers are complete, that this would.
    pub fn bulk_is_due_to_end(&self, headers_complete: bool) -> bool {
        let near = self.blocks().saturating_add(self.keep_deltas()) >= self.staged.headers.len();
        self.bulk.is_some() && (self.headers_complete || headers_complete) && near
    }

    /// Ends the bulk if the newest blocks come next, or if the tip was reached.
    pub(crate) fn end_bulk_if_due(&mut self) -> Result<(), Error> {
        let is_ending = self.bulk.as_ref().is_some_and(|bulk| bulk.state().is_ending());
        if is_ending || self.bulk_is_due_to_end(false) { self.end_bulk() } else { Ok(()) }
    }

    /// Makes what a bulk has so far durable; does nothing where there is none.
    pub fn flush(&mut self) -> Result<(), Error> {
        self.alive()?;
        if self.bulk.is_none() {
            return Ok(());
        }
        self.room_to_flush()?;
        // The headers of its blocks first.
        self.commit()?;
        let flushed = self.flush_bulk();
        flushed.map_err(|error| self.kill(error))
    }

    /// The last thing before the store is dropped: everything durable, and no more space taken than needed. What is
    /// staged must have been committed; a store that is not closed loses nothing either.
    pub fn close(&mut self) -> Result<(), Error> {
        self.flush()?;
        let compacted = self.tip.compact();
        compacted.map_err(|error| self.kill(error))
    }

    fn flush_bulk(&mut self) -> Result<(), Error> {
        let Some(bulk) = &mut self.bulk else { return Ok(()) };
        if bulk.mark() == bulk.state().mark {
            return Ok(());
        }
        self.segments.sync()?;
        let (state, removed) = bulk.flush()?;
        self.state.end = self.segments.end();
        let change = self.tip.change()?;
        change.set_state(&self.state)?;
        change.set_bulk(Some(&state))?;
        change.commit()?;
        bulk.flushed(state);
        for run in removed {
            remove(&*self.disk, &run.name())?;
        }
        Ok(())
    }

    /// Turns what a bulk has into the base.
    pub(crate) fn end_bulk(&mut self) -> Result<(), Error> {
        self.flush()?;
        self.room_to_end_bulk()?;
        let Some(bulk) = self.bulk.take() else { return Ok(()) };
        let ended = self.replace_base(*bulk);
        ended.map_err(|error| self.kill(error))
    }

    fn replace_base(&mut self, bulk: Bulk) -> Result<(), Error> {
        // All of it is in runs; what it takes in memory is wanted for the parts.
        let (state, tx_ends) = bulk.end();
        let load = Load {
            disk: &self.disk,
            files: &self.files,
            old: &self.view.index,
            part_bytes: self.options.part_bytes,
            memory_bytes: self.options.bulk_memory_bytes,
        };
        let state = bulk::load(&load, state, |state| {
            let change = self.tip.change()?;
            change.set_bulk(Some(state))?;
            change.commit()
        })?;
        let mut parts = state.parts.clone();
        parts.sort_unstable_by_key(|part| (part.table, part.range));
        let list = PartList { next_file: state.next_file, parts };
        let (directory_bytes, prefix_len) = (self.options.directory_bytes, self.options.txid_prefix);
        let index = Base::open(&*self.disk, &list, Undone::default(), directory_bytes, prefix_len, None)?;
        let mark = state.mark;
        self.state = State { blocks: mark.blocks, tip: mark.hash, base: mark, ..self.state };
        let change = self.tip.change()?;
        change.remove_all_deltas()?;
        change.set_parts(&list)?;
        change.set_state(&self.state)?;
        change.set_bulk(None)?;
        change.commit()?;
        bulk::remove_leftovers(&*self.disk, None)?;
        for placed in self.view.index.parts() {
            remove(&*self.disk, &placed.info.name())?;
        }
        self.next_file = list.next_file;
        self.bulk_ended = true;
        self.view.base = mark;
        self.view.index = Arc::new(index);
        self.view.tx_ends = Arc::new(tx_ends);
        self.view.deltas = Deltas::default();
        self.staged = Staged::nothing(&self.view, &self.state);
        self.publish();
        Ok(())
    }

    /// Where a bulk stands.
    pub(crate) fn bulk_tip(&self) -> Option<Tip> {
        self.bulk.as_ref().and_then(|bulk| bulk.tip())
    }
}
