//! Where the blocks of the files lie, and what chain their headers make.
//!
//! `Collector` takes the records in the order in which the files have them, which is any order. Then they are put into
//! the header tree, parents first, by the rules that headers of peers must pass too, but whatever their work: the
//! minimum chain work protects our memory from strangers, and files on our own disk are bounded by that disk. Wallets
//! are served nothing before a chain of that work was had, wherever its blocks came from.
//! What remains is a `Catalog`: 24 bytes a block.
//! Source: Bitcoin Core `LoadExternalBlockFile` (`blocks_with_unknown_parent`, `min_pow_checked`).

use std::collections::VecDeque;

use bitcoin::BlockHash;
use bitcoin::block::Header;
use bitcoin::hashes::Hash;
use chainstore::Height;

use super::scan::Record;
use crate::headers::{HeaderTree, Inserted};

/// Records that are remembered, some 110 bytes each until they are ordered: testnet3 has five million blocks.
pub const MAX_RECORDS: usize = 8_000_000;

/// A block's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Number of the file, in the order in which they were read.
    pub file: u32,
    /// Where the block begins.
    pub offset: u64,
    /// Of the block, in bytes.
    pub length: u32,
}

/// A record without what can be worked out again.
#[derive(Clone, Copy, Debug)]
struct Found {
    header: Header,
    key: u64,
    place: Place,
}

/// What became of the records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub records: usize,
    /// Blocks whose header was known before, and second copies.
    pub known: usize,
    /// Headers that were new and passed.
    pub new: usize,
    /// Headers that broke a rule, or are on a chain that did.
    pub refused: usize,
    /// Nothing leads from genesis to these.
    pub orphans: usize,
    /// Blocks that passed and are not in the best chain.
    pub stale: usize,
}

/// The records of all files, as they are found.
#[derive(Debug, Default)]
pub struct Collector {
    found: Vec<Found>,
    overflow: usize,
}

/// What the records led to; still with their headers.
#[derive(Debug)]
pub struct Ordered {
    pub tally: Tally,
    /// Why the first header was refused.
    pub first_refusal: Option<String>,
    /// Above this block of the best chain, headers may be new.
    pub fork: Height,
    /// By key.
    found: Vec<Found>,
}

impl Collector {
    /// Takes a record of the file with this number. More than [`MAX_RECORDS`] are not remembered.
    pub fn add(&mut self, file: u32, record: &Record) {
        if self.found.len() >= MAX_RECORDS {
            self.overflow = self.overflow.saturating_add(1);
            return;
        }
        let place = Place { file, offset: record.offset, length: record.length };
        self.found.push(Found { header: record.header, key: key(&record.hash), place });
    }

    /// Records so far.
    pub fn len(&self) -> usize {
        self.found.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// Records that were left out.
    pub fn overflow(&self) -> usize {
        self.overflow
    }

    /// Puts all headers into the tree that fit. `now_unix` is our clock, in seconds.
    pub fn order(self, tree: &mut HeaderTree, now_unix: u64) -> Ordered {
        let Self { mut found, .. } = self;
        let before = tree.best().hash;
        let mut tally = Tally { records: found.len(), ..Tally::default() };
        let first_refusal = insert_all(&found, tree, now_unix, &mut tally);
        tally.orphans = tally.records - tally.known - tally.new - tally.refused;
        found.sort_unstable_by_key(|found| (found.key, found.place.file, found.place.offset));

        let fork = tree.fork_point(before, tree.best().hash).map_or(Height::GENESIS, |fork| fork.height);
        let hashes = found.iter().map(|found| found.header.block_hash());
        tally.stale = hashes.filter(|hash| tree.contains(*hash) && !tree.is_best(*hash)).count();
        Ordered { tally, first_refusal, fork, found }
    }
}

impl Ordered {
    /// Headers of the best chain from `from` on, at most `count`; they end where the files have none.
    pub fn headers(&self, tree: &HeaderTree, from: Height, count: usize) -> Vec<(Height, Header)> {
        let heights = (from.0..).map(Height).take(count);
        heights.map_while(|height| Some((height, self.header(&tree.hash_at(height)?)?))).collect()
    }

    /// Forgets the headers.
    pub fn into_catalog(self) -> Catalog {
        let entries = self.found.into_iter().map(|found| Entry { key: found.key, place: found.place });
        Catalog { entries: entries.collect() }
    }

    fn header(&self, hash: &BlockHash) -> Option<Header> {
        let at = self.found.partition_point(|found| found.key < key(hash));
        let same = self.found[at..].iter().take_while(|found| found.key == key(hash));
        same.map(|found| found.header).find(|header| header.block_hash() == *hash)
    }
}

/// Parents first, from the headers that the tree has.
fn insert_all(found: &[Found], tree: &mut HeaderTree, now_unix: u64, tally: &mut Tally) -> Option<String> {
    let mut by_parent: Vec<u32> = (0..found.len() as u32).collect();
    let parent_key = |index: &u32| found.get(*index as usize).map(|found| key(&found.header.prev_blockhash));
    by_parent.sort_unstable_by_key(|index| (parent_key(index), *index));
    let mut queue = VecDeque::new();
    for (index, found) in (0_u32..).zip(found) {
        if tree.contains(found.header.block_hash()) {
            tally.known += 1;
        } else if tree.contains(found.header.prev_blockhash) {
            queue.push_back(index);
        }
    }
    let mut first_refusal = None;
    while let Some(Found { header, key: own, .. }) =
        queue.pop_front().and_then(|index| found.get(index as usize))
    {
        match tree.insert(*header, now_unix) {
            Ok(Inserted::Known) => tally.known += 1,
            Ok(Inserted::SideBranch | Inserted::Extended | Inserted::Reorganized { .. }) => {
                tally.new += 1;
                let hash = header.block_hash();
                let at = by_parent.partition_point(|index| parent_key(index) < Some(*own));
                let same_key = by_parent[at..].iter().take_while(|index| parent_key(index) == Some(*own));
                let is_child = |index: &&u32| {
                    found.get(**index as usize).is_some_and(|found| found.header.prev_blockhash == hash)
                };
                queue.extend(same_key.filter(is_child));
            }
            Err(error) => {
                tally.refused += 1;
                first_refusal.get_or_insert_with(|| format!("{}: {error}", header.block_hash()));
            }
        }
    }
    first_refusal
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    key: u64,
    place: Place,
}

/// Where each block lies. Hashes are known by eight of their bytes: whoever reads must compare the header.
#[derive(Clone, Debug, Default)]
pub struct Catalog {
    entries: Vec<Entry>,
}

impl Catalog {
    /// Where to read the block; the first place that was not struck out.
    pub fn place(&self, hash: &BlockHash) -> Option<Place> {
        let at = self.entries.partition_point(|entry| entry.key < key(hash));
        let same = self.entries[at..].iter().take_while(|entry| entry.key == key(hash));
        same.map(|entry| entry.place).find(|place| place.length > 0)
    }

    /// The block is not there, or not as it should be: the place is never given again.
    pub fn strike_out(&mut self, hash: &BlockHash, place: Place) {
        let at = self.entries.partition_point(|entry| entry.key < key(hash));
        let same = self.entries[at..].iter_mut().take_while(|entry| entry.key == key(hash));
        same.filter(|entry| entry.place == place).for_each(|entry| entry.place.length = 0);
    }
}

/// The bytes of a hash that no proof of work makes zero.
fn key(hash: &BlockHash) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = hash.to_byte_array();
    u64::from_be_bytes([a, b, c, d, e, f, g, h])
}

#[cfg(test)]
#[path = "catalog_tests.rs"]
mod tests;
