//! A store that met a full disk, until it can go on: its snapshots are read, nothing is written.
//!
//! A redb file that failed to write once refuses everything from then on, and what was staged hangs on it. So the
//! store is taken apart, and opened again as after a crash, but around what snapshots read: the flat files with the
//! counters by which a snapshot sees that it is gone, and the parts of the base, which nobody writes. Headers that
//! were staged are staged again; blocks are not.

use std::sync::Arc;

use bitcoin::BlockHash;
use bitcoin::block::Header;

use crate::disk::Disk;
use crate::error::Error;
use crate::open::Kept;
use crate::store::{Options, Store};
use crate::types::Height;

/// See the module.
pub struct Stopped(Box<Left>);

/// What is left of the store.
struct Left {
    disk: Arc<dyn Disk>,
    options: Options,
    kept: Kept,
    headers: Vec<(Height, Header)>,
    invalid: Vec<BlockHash>,
}

impl std::fmt::Debug for Stopped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stopped").finish_non_exhaustive()
    }
}

impl Store {
    /// Takes the store apart. The folder stays locked; what is staged is lost, but for headers and marks.
    pub fn stop(mut self) -> Stopped {
        self.give_up_merge();
        let Self { disk, options, files, lock, staged, view, next_file, merges, .. } = self;
        let mut headers: Vec<(Height, Header)> = staged.aside.side.values().copied().flatten().collect();
        let new = staged.headers.new.iter().zip(staged.headers.keep..);
        headers.extend(new.map(|(header, height)| (Height(height), *header)));
        headers.sort_by_key(|(height, _)| *height);
        let base = Some((*view.index).clone());
        let kept = Kept { lock: Some(lock), files: Some(files), base, next_file, merges };
        let invalid = staged.aside.invalid.into_iter().collect();
        Stopped(Box::new(Left { disk, options, kept, headers, invalid }))
    }
}

impl Stopped {
    /// Opens the store again, as far as it was committed. With the error comes what to try again with.
    pub fn open(mut self) -> Result<Store, (Self, Error)> {
        let left = &mut *self.0;
        let mut store = match Store::reopen(left.disk.clone(), left.options.clone(), &mut left.kept) {
            Ok(store) => store,
            Err(error) => return Err((self, error)),
        };
        match left.stage(&mut store) {
            Ok(()) => Ok(store),
            Err(error) => {
                left.kept = store.stop().0.kept;
                Err((self, error))
            }
        }
    }
}

impl Left {
    /// Stages again what needs no block.
    fn stage(&self, store: &mut Store) -> Result<(), Error> {
        store.put_headers(&self.headers)?;
        self.invalid.iter().try_for_each(|hash| store.mark_invalid(*hash))
    }
}
