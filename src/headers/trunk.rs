//! The best chain in as few bytes as its rules need: 40 a header, and about 6 to find its height by its hash.
//!
//! Hash, time and bits by height; total work only every 2,016 headers and at the tip, the rest is added up when
//! somebody asks. What makes a chain best is decided by `tree`, which pushes and pops here.

use bitcoin::hashes::Hash;
use bitcoin::{BlockHash, CompactTarget, Work};
use chainstore::Height;
use hashbrown::HashTable;

use crate::validate::work_of;

/// Headers between two kept totals of work: a sum of this many takes microseconds.
const WORK_INTERVAL: u32 = 2016;

/// A chain from genesis; it always has at least that.
#[derive(Debug)]
pub(super) struct Trunk {
    /// By height.
    hashes: Vec<BlockHash>,
    times: Vec<u32>,
    bits: Vec<CompactTarget>,
    /// Total work up to and including the heights that are multiples of `WORK_INTERVAL`.
    work: Vec<Work>,
    tip_work: Work,
    /// Heights, found by the hash at that height.
    by_hash: HashTable<u32>,
}

/// A header taken off the tip.
#[derive(Clone, Copy, Debug)]
pub(super) struct Popped {
    pub height: Height,
    pub hash: BlockHash,
    pub prev: BlockHash,
    pub time: u32,
    pub bits: CompactTarget,
    /// Total work up to and including it.
    pub work: Work,
}

impl Trunk {
    pub fn new(genesis: BlockHash, time: u32, bits: CompactTarget) -> Self {
        let mut trunk = Self {
            hashes: Vec::new(),
            times: Vec::new(),
            bits: Vec::new(),
            work: Vec::new(),
            tip_work: Work::from_be_bytes([0; 32]),
            by_hash: HashTable::new(),
        };
        trunk.push(genesis, time, bits);
        trunk
    }

    pub fn tip_height(&self) -> Height {
        Height(self.hashes.len() as u32 - 1)
    }

    pub fn tip_hash(&self) -> BlockHash {
        self.hashes[self.hashes.len() - 1]
    }

    pub fn tip_work(&self) -> Work {
        self.tip_work
    }

    pub fn hash(&self, height: Height) -> Option<BlockHash> {
        self.hashes.get(height.0 as usize).copied()
    }

    /// Panics above the tip.
    pub fn time(&self, height: Height) -> u32 {
        self.times[height.0 as usize]
    }

    /// Panics above the tip.
    pub fn bits(&self, height: Height) -> CompactTarget {
        self.bits[height.0 as usize]
    }

    /// Total work up to and including `height`. Panics above the tip.
    pub fn work(&self, height: Height) -> Work {
        if height == self.tip_height() {
            return self.tip_work;
        }
        let mark = height.0 / WORK_INTERVAL;
        let mut total = self.work[mark as usize];
        // Neighbours mostly claim the same difficulty, and working out a target's work is a long division.
        let mut last = None;
        for &bits in &self.bits[(mark * WORK_INTERVAL + 1) as usize..=height.0 as usize] {
            let work = match last {
                Some((same, work)) if same == bits => work,
                Some(_) | None => work_of(bits),
            };
            last = Some((bits, work));
            total = total + work;
        }
        total
    }

    pub fn height_of(&self, hash: &BlockHash) -> Option<Height> {
        self.by_hash
            .find(table_hash(hash), |&height| self.hashes[height as usize] == *hash)
            .map(|&h| Height(h))
    }

    /// Puts a header on the tip, which must be its parent.
    pub fn push(&mut self, hash: BlockHash, time: u32, bits: CompactTarget) {
        let height = self.hashes.len() as u32;
        grow(&mut self.hashes);
        grow(&mut self.times);
        grow(&mut self.bits);
        self.hashes.push(hash);
        self.times.push(time);
        self.bits.push(bits);
        self.tip_work = self.tip_work + work_of(bits);
        if height.is_multiple_of(WORK_INTERVAL) {
            self.work.push(self.tip_work);
        }
        let hashes = &self.hashes;
        self.by_hash.insert_unique(table_hash(&hash), height, |&height| table_hash(&hashes[height as usize]));
    }

    /// Takes the tip off; `None` when only genesis is left.
    pub fn pop(&mut self) -> Option<Popped> {
        let height = self.tip_height();
        let prev = self.hash(height.prev()?)?;
        let (hash, work) = (self.tip_hash(), self.tip_work);
        if let Ok(entry) = self.by_hash.find_entry(table_hash(&hash), |&h| h == height.0) {
            entry.remove();
        }
        self.hashes.pop();
        let time = self.times.pop()?;
        let bits = self.bits.pop()?;
        if height.0.is_multiple_of(WORK_INTERVAL) {
            self.work.pop();
        }
        self.tip_work = work - work_of(bits);
        Some(Popped { height, hash, prev, time, bits, work })
    }
}

/// The low bytes of a block hash are as good as random: it is the high ones that proof of work makes zero.
fn table_hash(hash: &BlockHash) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = hash.to_byte_array();
    u64::from_le_bytes([a, b, c, d, e, f, g, h])
}

/// Grows by an eighth and not to double, as this lives long and is most of what we hold.
fn grow<T>(list: &mut Vec<T>) {
    if list.len() == list.capacity() {
        list.reserve_exact((list.len() / 8).max(WORK_INTERVAL as usize));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(n: u32) -> BlockHash {
        BlockHash::hash(&n.to_le_bytes())
    }

    fn trunk(headers: u32) -> Trunk {
        let mut trunk = Trunk::new(hash(0), 0, bits(0));
        for n in 1..headers {
            trunk.push(hash(n), n, bits(n));
        }
        trunk
    }

    fn bits(n: u32) -> CompactTarget {
        CompactTarget::from_consensus(0x1d00_ffff - n / 1_000)
    }

    #[test]
    fn work_between_the_kept_totals_is_the_sum_of_what_lies_below() {
        let trunk = trunk(6_000);
        let mut total = Work::from_be_bytes([0; 32]);
        for n in 0..6_000 {
            total = total + work_of(bits(n));
            if n % 37 == 0 || n % WORK_INTERVAL < 3 || n > 5_990 {
                assert_eq!(trunk.work(Height(n)), total, "at {n}");
            }
        }
        assert_eq!(trunk.tip_work(), total);
    }

    #[test]
    fn popping_undoes_pushing() {
        let mut long = trunk(5_000);
        for n in (2_000..5_000).rev() {
            let popped = long.pop().unwrap();
            assert_eq!((popped.height, popped.hash, popped.prev), (Height(n), hash(n), hash(n - 1)));
            assert_eq!((popped.time, popped.bits), (n, bits(n)));
            assert_eq!(long.height_of(&hash(n)), None);
        }
        let short = trunk(2_000);
        assert_eq!(long.tip_work(), short.tip_work());
        assert_eq!(long.work, short.work);
        assert_eq!(long.hashes, short.hashes);
        assert!((0..2_000).all(|n| long.height_of(&hash(n)) == Some(Height(n))));
    }

    #[test]
    fn genesis_stays() {
        let mut trunk = trunk(2);
        assert!(trunk.pop().is_some());
        assert!(trunk.pop().is_none());
        assert_eq!(trunk.tip_hash(), hash(0));
    }
}
