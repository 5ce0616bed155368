//! The tree against a map that knows everything and does everything the slow way.

use std::collections::BTreeMap;

use bitcoin::block::Header;
use bitcoin::{BlockHash, Work};
use chainstore::Height;
use fastrand::Rng;

use super::testing::{NOW, child_at, genesis, regtest};
use super::tree::{HeaderTree, InsertError, Inserted};

#[derive(Clone, Debug)]
struct Entry {
    header: Header,
    height: u32,
    work: Work,
    invalid: bool,
    /// Order among equal work: lower is better.
    rank: i64,
}

struct Model {
    entries: BTreeMap<BlockHash, Entry>,
    best: BlockHash,
    next_rank: i64,
    next_demoted: i64,
}

impl Model {
    fn new() -> Self {
        let header = genesis();
        let entry = Entry { header, height: 0, work: header.work(), invalid: false, rank: 0 };
        let best = header.block_hash();
        Self { entries: BTreeMap::from([(best, entry)]), best, next_rank: 1, next_demoted: -1 }
    }

    /// The chain down from `hash` to genesis.
    fn chain(&self, hash: BlockHash) -> Vec<BlockHash> {
        let mut chain = vec![hash];
        while let Some(entry) = self.entries.get(&chain[chain.len() - 1])
            && entry.height > 0
        {
            chain.push(entry.header.prev_blockhash);
        }
        chain
    }

    fn insert(&mut self, header: Header) {
        let parent = &self.entries[&header.prev_blockhash];
        let (height, work) = (parent.height + 1, parent.work + header.work());
        let entry = Entry { header, height, work, invalid: false, rank: self.next_rank };
        self.next_rank += 1;
        self.entries.insert(header.block_hash(), entry);
        self.choose();
    }

    fn mark_invalid(&mut self, root: BlockHash) {
        let doomed: Vec<_> =
            self.entries.keys().copied().filter(|&hash| self.chain(hash).contains(&root)).collect();
        for hash in doomed {
            self.entries.get_mut(&hash).unwrap().invalid = true;
        }
        self.choose();
    }

    fn choose(&mut self) {
        let old = self.chain(self.best);
        // What is left of the best chain is best, unless another has more work.
        let mut best = *old.iter().find(|hash| !self.entries[*hash].invalid).unwrap();
        // A header that leaves the best chain goes before those that never were in it: first as it is invalid...
        self.demote(&old, best);
        let mut work = self.entries[&best].work;
        let mut rank = i64::MIN;
        for (&hash, entry) in &self.entries {
            let better = entry.work > work || (entry.work == work && entry.rank < rank);
            if !entry.invalid && better {
                (best, work, rank) = (hash, entry.work, entry.rank);
            }
        }
        // ... then as it is left behind.
        let (from, new) =
            (old.iter().position(|hash| !self.entries[hash].invalid).unwrap(), self.chain(best));
        let fork = *old[from..].iter().find(|hash| new.contains(hash)).unwrap();
        self.demote(&old[from..], fork);
        self.best = best;
    }

    /// Gives the headers above `keep` the ranks of such as were best.
    fn demote(&mut self, chain: &[BlockHash], keep: BlockHash) {
        for hash in chain.iter().take_while(|&&hash| hash != keep) {
            self.entries.get_mut(hash).unwrap().rank = self.next_demoted;
            self.next_demoted -= 1;
        }
    }

    fn compare(&self, tree: &HeaderTree, rng: &mut Rng, seed: u64, step: usize) {
        let context = format!("seed {seed}, step {step}");
        let best = &self.entries[&self.best];
        assert_eq!(tree.best().hash, self.best, "{context}");
        assert_eq!(tree.best().work, best.work, "{context}");
        let trunk = self.chain(self.best);
        assert_eq!(tree.branch_headers(), self.entries.len() - trunk.len(), "{context}");
        for (height, &hash) in trunk.iter().rev().enumerate() {
            assert_eq!(tree.hash_at(Height(height as u32)), Some(hash), "{context}");
        }
        assert_eq!(tree.hash_at(Height(best.height + 1)), None, "{context}");
        for (&hash, entry) in &self.entries {
            let info = tree.info(hash).unwrap_or_else(|| panic!("{context}: {hash} is missing"));
            assert_eq!(info.height.0, entry.height, "{context}");
            assert_eq!(info.prev, entry.header.prev_blockhash, "{context}");
            assert_eq!((info.time, info.bits), (entry.header.time, entry.header.bits), "{context}");
            assert_eq!(info.work, entry.work, "{context}");
            assert_eq!((info.invalid, tree.is_invalid(hash)), (entry.invalid, entry.invalid), "{context}");
            assert_eq!(tree.is_best(hash), trunk.contains(&hash), "{context}");
        }
        let (a, b) = (self.any(rng), self.any(rng));
        let (chain_a, chain_b) = (self.chain(a), self.chain(b));
        let fork = *chain_a.iter().find(|hash| chain_b.contains(hash)).unwrap();
        assert_eq!(tree.fork_point(a, b).map(|tip| tip.hash), Some(fork), "{context}");
        let mut path: Vec<_> = chain_b.iter().copied().take_while(|&hash| hash != a).collect();
        path.reverse();
        let path = chain_b.contains(&a).then_some(path);
        assert_eq!(tree.path(a, b), path, "{context}");
        for (height, &hash) in chain_a.iter().rev().enumerate() {
            assert_eq!(tree.ancestor(a, Height(height as u32)), Some(hash), "{context}");
        }
        let mut times: Vec<_> = chain_a.iter().take(11).map(|hash| self.entries[hash].header.time).collect();
        times.sort();
        assert_eq!(tree.median_time_past(a), Some(times[times.len() / 2]), "{context}");
    }

    fn any(&self, rng: &mut Rng) -> BlockHash {
        *self.entries.keys().nth(rng.usize(..self.entries.len())).unwrap()
    }

    /// A block to build on: often the tip, or else near it, or else anywhere.
    fn parent(&self, rng: &mut Rng) -> BlockHash {
        let chain = self.chain(self.best);
        match rng.u8(..10) {
            0..4 => self.best,
            4..7 => chain[rng.usize(..chain.len().min(6))],
            _ => self.any(rng),
        }
    }
}

#[test]
fn a_tree_and_a_full_map_agree_after_each_step() {
    for seed in 0..12 {
        let mut rng = Rng::with_seed(seed);
        let (mut tree, mut model) = (regtest(), Model::new());
        for step in 0..250 {
            let context = format!("seed {seed}, step {step}");
            let parent = model.parent(&mut rng);
            if rng.u8(..30) == 0 && model.entries[&parent].height > 0 {
                model.mark_invalid(parent);
                tree.mark_invalid(parent);
            } else {
                let (salt, time) = (rng.u32(..), rng.u32(601..3_000));
                let on = model.entries[&parent].clone();
                let header = child_at(&on.header, salt, on.header.time + time);
                let before = tree.best().hash;
                let result = tree.insert(header, NOW);
                if on.invalid {
                    let refused = Err(InsertError::InvalidChain { hash: header.block_hash() });
                    assert_eq!(result, refused, "{context}");
                } else {
                    model.insert(header);
                    let said = match result {
                        Ok(Inserted::Extended) => header.prev_blockhash == before,
                        Ok(Inserted::SideBranch) => before == model.best,
                        Ok(Inserted::Reorganized { fork }) => {
                            fork.hash != before && model.chain(before).contains(&fork.hash)
                        }
                        Ok(Inserted::Known) | Err(_) => false,
                    };
                    assert!(said, "{context}: {result:?}");
                    assert_eq!(tree.insert(header, NOW), Ok(Inserted::Known), "{context}");
                }
            }
            model.compare(&tree, &mut rng, seed, step);
        }
    }
}
