//! Damaged blocks: which ones were met, and where those lie that were fetched again.
//!
//! A block file may be damaged from outside: a bit turns, a sector dies, a file is cut or lost. Whoever reads the
//! block says so with [`Error::DamagedBlock`], and what a snapshot met is listed here until the block is there again.
//! The block, fetched anew, is appended like any other, and one row in `tip.redb` leads from the place that the other
//! files name to the new one. They name places in arrays and rows that cannot be changed at once; the one row can.
//! The row goes by place and not by height, so it is right whoever names the place: the arrays, a delta, a kept
//! block, and it stays right when a reorg moves the block from one of them to another.

use std::collections::BTreeMap;
use std::io;
use std::ops::Bound;
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};

use bitcoin::BlockHash;
use bitcoin::hashes::{Hash, sha256d};

use crate::error::Error;
use crate::segments::{BlockPos, Lost};
use crate::store::Store;
use crate::types::{Height, Tip};

/// Damaged blocks that are remembered of what readers met. Others are met again.
const MAX_MET: usize = 64;
/// How many of them are told at once.
const MAX_TOLD: usize = 16;
/// Linux and all BSDs: the drive could not read it.
const EIO: i32 = 5;

/// Segment and offset of a record.
pub(crate) type Place = (u32, u32);

/// A block that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damaged {
    pub block: Tip,
    /// The file, the place in it, and what is wrong there.
    pub what: String,
}

/// What readers and the writer share about damaged blocks.
#[derive(Debug, Default)]
pub(crate) struct Repairs {
    moved: RwLock<BTreeMap<Place, Place>>,
    met: Mutex<Met>,
}

#[derive(Debug, Default)]
struct Met {
    blocks: BTreeMap<BlockHash, (Height, String)>,
    /// The last that was told: the others come first the next time.
    told: Option<BlockHash>,
    /// How many blocks were put in place.
    moves: u64,
}

impl Repairs {
    /// As `tip.redb` has them.
    pub(crate) fn load(&self, moved: BTreeMap<Place, Place>) {
        *self.moved.write().unwrap_or_else(PoisonError::into_inner) = moved;
    }

    /// Where the block lies that was written at `pos` first. The lock is held for a look into a map.
    pub(crate) fn place(&self, pos: BlockPos) -> BlockPos {
        let moved = self.moved.read().unwrap_or_else(PoisonError::into_inner);
        match moved.get(&(pos.segment, pos.offset)) {
            Some(&(segment, offset)) => BlockPos { segment, offset, ..pos },
            None => pos,
        }
    }

    /// How many blocks were put in place so far.
    pub(crate) fn moves(&self) -> u64 {
        self.met().moves
    }

    /// Remembers what an answer says is damaged; `moves` is from before the block was read. If one was put in place
    /// since, it may be this one: who asks again will see.
    pub(crate) fn note<T>(&self, answer: &Result<T, Error>, moves: u64) {
        if let Err(Error::DamagedBlock { height, hash, what }) = answer {
            let mut met = self.met();
            if met.moves == moves && met.blocks.len() < MAX_MET {
                met.blocks.insert(*hash, (*height, what.clone()));
            }
        }
    }

    /// Some of those that were met, others each time.
    pub(crate) fn tell(&self) -> Vec<Damaged> {
        let mut met = self.met();
        let after = met.told.map_or(Bound::Unbounded, Bound::Excluded);
        let up_to = met.told.map_or(Bound::Excluded(BlockHash::all_zeros()), Bound::Included);
        let (later, earlier) =
            (met.blocks.range((after, Bound::Unbounded)), met.blocks.range((Bound::Unbounded, up_to)));
        let told = later.chain(earlier).take(MAX_TOLD).map(|(hash, (height, what))| Damaged {
            block: Tip { height: *height, hash: *hash },
            what: what.clone(),
        });
        let told: Vec<Damaged> = told.collect();
        met.told = told.last().map(|last| last.block.hash);
        told
    }

    fn met(&self) -> MutexGuard<'_, Met> {
        self.met.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Turns an error of reading a block's bytes into one that names the block, where it is the bytes that are bad and
/// not the moment: too many open files, say, is no damage.
pub(crate) fn name_block(error: Error, height: Height, hash: BlockHash) -> Error {
    let is_damage = match &error {
        Error::Corrupt { .. } | Error::Checksum { .. } => true,
        Error::Io { source, .. } => {
            source.kind() == io::ErrorKind::UnexpectedEof || source.raw_os_error() == Some(EIO)
        }
        _ => false,
    };
    if is_damage { Error::DamagedBlock { height, hash, what: error.to_string() } } else { error }
}

impl Store {
    /// Puts a block in the place of its damaged bytes, durably. `raw` has been checked to be that block. Gives whether
    /// it was needed: not if the bytes can be read, or are none of ours.
    pub fn repair_block(&mut self, block: Tip, raw: &[u8]) -> Result<bool, Error> {
        self.alive()?;
        let header = raw.get(..80).map(|header| BlockHash::from_raw_hash(sha256d::Hash::hash(header)));
        if header != Some(block.hash) {
            return Err(Error::BadInput {
                hash: block.hash,
                what: "the raw bytes are not those of the block",
            });
        }
        let named = self.place_of(block)?;
        let needed =
            |named: &BlockPos| named.length as usize == raw.len() && self.files.blocks.read(*named).is_err();
        let Some(named) = named.filter(needed) else {
            self.files.blocks.repairs().met().blocks.remove(&block.hash);
            return Ok(false);
        };
        let new = self.append(raw)?;
        let moved = self.move_block((named.segment, named.offset), (new.segment, new.offset));
        moved.map_err(|error| self.kill(error))?;
        // Readers find the new place before they are told that one more was put there.
        let mut met = self.files.blocks.repairs().met();
        met.moves += 1;
        met.blocks.remove(&block.hash);
        drop(met);
        Ok(true)
    }

    /// Lists all connected blocks that lay in what was lost of the block files. Kept ones are read only if their
    /// branch should win, and then they are named.
    pub(crate) fn note_lost(&self) -> Result<(), Error> {
        let lost = self.segments.lost();
        if lost.is_empty() {
            return Ok(());
        }
        let repairs = self.files.blocks.repairs();
        for height in (0..self.view.blocks()).map(Height) {
            if let (Some(pos), Some(hash)) = (self.view.block_pos(height)?, self.view.hash_of(height)?) {
                repairs.note_if_lost(lost, pos, Tip { height, hash });
            }
        }
        Ok(())
    }

    /// The place that other files name for a block of the chain, or for a kept one.
    fn place_of(&self, Tip { height, hash }: Tip) -> Result<Option<BlockPos>, Error> {
        if let Some(bulk) = &self.bulk {
            // Readers do not see its blocks, but its own next ones spend from them.
            if let Some(pos) = bulk.block_pos(height)?
                && self.staged.headers.hash(&self.files, height.0)? == Some(hash)
            {
                return Ok(Some(pos));
            }
        } else if self.staged.view.hash_of(height)? == Some(hash) {
            return self.staged.view.block_pos(height);
        }
        Ok(self.stored(&hash).map(|stored| stored.pos))
    }

    /// The block first, then the row. The end goes with it: from now on nobody may cut the block away.
    fn move_block(&mut self, from: Place, to: Place) -> Result<(), Error> {
        self.segments.sync()?;
        let state = crate::tip::State { end: self.segments.end(), ..self.state };
        let change = self.tip.change()?;
        change.put_moved(from, to)?;
        change.set_state(&state)?;
        change.commit()?;
        self.state = state;
        let repairs = self.files.blocks.repairs();
        repairs.moved.write().unwrap_or_else(PoisonError::into_inner).insert(from, to);
        Ok(())
    }
}

impl Repairs {
    /// Not bounded as what readers meet is: only what is lost when the folder is opened comes here.
    fn note_if_lost(&self, lost: &[Lost], pos: BlockPos, block: Tip) {
        let place = self.place(pos);
        if let Some(lost) = lost.iter().find(|lost| lost.holds(place)) {
            self.met().blocks.insert(block.hash, (block.height, lost.what.clone()));
        }
    }
}

#[cfg(test)]
#[path = "tests/repair.rs"]
mod tests;
