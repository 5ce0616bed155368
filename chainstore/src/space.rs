//! The disk that the folder lies on: what the folder takes of it by part, what is free, and whether that is enough
//! for the next step.
//!
//! Each step that writes asks before it has written anything. What it may write is reckoned, not known; the reserve
//! makes up for what is reckoned too low, and for others who write to the same disk.
//! What a chain will yet need is [`crate::forecast()`]'s matter.

use crate::base::PartInfo;
use crate::disk::Disk;
use crate::error::Error;
use crate::forecast::Progress;
use crate::store::Store;
use crate::{bulk, tip};

/// What a transaction of redb may take beyond its rows.
const INDEX_STEP_BYTES: u64 = 4 << 20;
/// A header with its node of the merkle tree, also among those put aside.
const HEADER_BYTES: u64 = 256;
/// What a transaction of a bulk may put into runs and arrays.
const BULK_TX_BYTES: u64 = 400;
/// An entry of the index, with what it costs beside its bytes.
const ENTRY_BYTES: u64 = 100;

/// Bytes that each part of a folder really takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    pub raw_blocks: u64,
    /// Headers, and the merkle tree over their hashes.
    pub headers: u64,
    pub txids: u64,
    pub txpos: u64,
    pub blockpos: u64,
    pub base: u64,
    pub tip: u64,
    /// Sorted runs of a first sync that goes on.
    pub runs: u64,
}

impl Usage {
    /// Measures a folder; what is missing takes nothing.
    pub fn of(disk: &dyn Disk) -> Result<Self, Error> {
        let file = |name: &str| disk.taken_bytes(name).map_err(|error| Error::io(name, "measure", error));
        let folder = |dir: &str| {
            let names = disk.list(dir).map_err(|error| Error::io(dir, "list", error))?;
            names.iter().try_fold(0, |sum: u64, name| Ok(sum + file(&format!("{dir}/{name}"))?))
        };
        Ok(Self {
            raw_blocks: folder("blocks")?,
            headers: file("headers")? + file("hashes")?,
            txids: file("txids")?,
            txpos: file("txpos")?,
            blockpos: file("blockpos")?,
            base: folder("base")?,
            tip: file(tip::FILE)?,
            runs: folder(bulk::DIR)?,
        })
    }

    /// Everything but raw blocks and runs.
    pub fn index(&self) -> u64 {
        self.headers + self.txids + self.txpos + self.blockpos + self.base + self.tip
    }

    /// The whole folder.
    pub fn total(&self) -> u64 {
        self.raw_blocks + self.index() + self.runs
    }
}

impl Store {
    /// How far the folder is, and what it takes, as committed.
    pub fn progress(&self) -> Result<Progress, Error> {
        let (blocks, txs) = match &self.bulk {
            Some(bulk) => (bulk.mark().blocks, bulk.mark().txs),
            None => (self.view.blocks(), self.view.end_tx()),
        };
        Ok(Progress {
            headers: self.staged.headers.len(),
            blocks,
            txs: u64::from(txs),
            first_sync: self.state.base.blocks == 0,
            usage: Usage::of(&*self.disk)?,
        })
    }

    /// Bytes that the file system of the folder has free.
    pub fn free_bytes(&self) -> Result<u64, Error> {
        self.disk.free_bytes().map_err(|error| Error::io("data folder", "measure", error))
    }

    /// Whether the disk has `needed` bytes, or, where that is not known, the reserve and a little.
    pub fn has_room(&self, needed: u64) -> bool {
        self.free_bytes()
            .is_ok_and(|free| free >= needed.max(self.options.reserve_bytes + 4 * INDEX_STEP_BYTES))
    }

    /// Refuses a step that may write so many bytes. A file system that does not say what it has is not held to it.
    fn ensure_room(&self, bytes: u64) -> Result<(), Error> {
        let needed = bytes.saturating_add(self.options.reserve_bytes);
        match self.disk.free_bytes() {
            Ok(free) if free < needed => Err(Error::StorageFull { file: "data folder".to_owned(), needed }),
            _ => Ok(()),
        }
    }

    /// Before a commit: a delta's row is smaller than its block.
    pub(crate) fn room_to_commit(&self) -> Result<(), Error> {
        let headers = self.staged.headers.new.len() + self.staged.aside.side.len();
        let deltas = self.staged.view.deltas.iter().rev();
        let new = deltas.take_while(|delta| delta.head.height.0 >= self.view.blocks());
        let rows: u64 = new.map(|delta| u64::from(delta.head.pos.length)).sum();
        self.ensure_room(INDEX_STEP_BYTES + headers as u64 * HEADER_BYTES + rows)
    }

    /// Before a part of the base is written anew: it is not much larger than it was, and than its new entries.
    pub(crate) fn room_for_part(&self, part: Option<&PartInfo>, new_entries: u64) -> Result<(), Error> {
        let old = part.map_or(0, |part| part.bytes + part.bytes / 4);
        self.ensure_room(INDEX_STEP_BYTES + old + new_entries * ENTRY_BYTES)
    }

    /// Before a bulk is flushed: what is new, and all runs of coins merged into one.
    pub(crate) fn room_to_flush(&self) -> Result<(), Error> {
        let Some(bulk) = &self.bulk else { return Ok(()) };
        let txs = u64::from(bulk.mark().txs - bulk.state().mark.txs);
        let coins = self.runs_bytes(bulk.state().runs_of(bulk::Kind::Coins));
        self.ensure_room(INDEX_STEP_BYTES + txs * BULK_TX_BYTES + coins)
    }

    /// Before a bulk becomes the base, which is smaller than the runs that it is made of and what it was before.
    pub(crate) fn room_to_end_bulk(&self) -> Result<(), Error> {
        let Some(bulk) = &self.bulk else { return Ok(()) };
        let base: u64 = self.view.index.parts().iter().map(|placed| placed.info.bytes).sum();
        self.ensure_room(INDEX_STEP_BYTES + base + base / 4 + self.runs_bytes(bulk.state().runs.clone()))
    }

    fn runs_bytes(&self, runs: Vec<bulk::RunInfo>) -> u64 {
        runs.iter().map(|run| self.disk.taken_bytes(&run.name()).unwrap_or(0)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::RealDisk;

    #[test]
    fn a_file_takes_its_blocks_and_holes_take_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let disk = RealDisk::new(folder.path());
        let file = std::fs::File::create(folder.path().join("txids")).unwrap();
        file.set_len(1 << 30).unwrap();
        assert!(disk.taken_bytes("txids").unwrap() < 1 << 20, "a hole");
        std::fs::write(folder.path().join("txpos"), vec![1; 1 << 20]).unwrap();
        file.sync_all().unwrap();
        std::fs::File::open(folder.path().join("txpos")).unwrap().sync_all().unwrap();
        assert!(disk.taken_bytes("txpos").unwrap() >= 1 << 20);
        assert_eq!(disk.taken_bytes("missing").unwrap(), 0);
    }

    #[test]
    fn free_space_is_that_of_the_nearest_folder_that_is_there() {
        let folder = tempfile::tempdir().unwrap();
        let there = RealDisk::new(folder.path()).free_bytes().unwrap();
        let not_yet = RealDisk::new(&folder.path().join("a/b/c")).free_bytes().unwrap();
        assert!(there > 0 && not_yet > 0);
        assert!(there.abs_diff(not_yet) < 1 << 30, "the same file system: {there} and {not_yet}");
    }
}
