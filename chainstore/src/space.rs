//! The disk that the folder lies on: what the folder takes of it by part, and what is free.
//!
//! What a chain will yet need is [`crate::forecast()`]'s matter.

use crate::disk::Disk;
use crate::error::Error;
use crate::forecast::Progress;
use crate::store::Store;
use crate::{bulk, tip};

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
