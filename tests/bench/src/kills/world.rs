//! A chain that grows and forks: what the peer of the harness serves.
//!
//! The forge has no way back, so a branch is made by forging the chain again up to its fork. All blocks lie in one
//! file, those of dead branches too.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::ensure;
use bitcoin::hashes::{Hash, sha256d};

use super::model::Universe;
use crate::forge::{Fill, Forge, MAGIC};
use crate::sync::peer::Served;

/// Small blocks: a reorg of some hundred of them is a matter of seconds.
const BLOCK_BYTES: std::ops::Range<usize> = 5_000..90_000;
/// So large a chain that the forge follows next to no script for its truth, which is not wanted here.
const NO_TRUTH: u64 = 1 << 50;

/// A change of what is forged, from a height on.
#[derive(Clone, Debug)]
struct Turn {
    height: u32,
    tag: [u8; 5],
    seed: Option<u64>,
}

#[derive(Debug)]
pub struct World {
    seed: u64,
    path: Arc<PathBuf>,
    file: File,
    end: u64,
    turns: Vec<Turn>,
    forge: Forge,
    forks: u32,
    /// By height.
    pub chain: Vec<Served>,
    /// All that any branch had.
    pub universe: Universe,
    /// Height of the last fork, and what was above it.
    pub last_fork: usize,
    pub removed: Vec<Served>,
}

impl World {
    /// Genesis and so many blocks.
    pub fn new(seed: u64, blocks: usize, folder: &Path) -> anyhow::Result<Self> {
        let path = folder.join("blocks.dat");
        let mut world = Self {
            seed,
            file: File::create(&path)?,
            path: Arc::new(path),
            end: 0,
            turns: Vec::new(),
            forge: forge(seed),
            forks: 0,
            chain: Vec::new(),
            universe: Universe::default(),
            last_fork: 0,
            removed: Vec::new(),
        };
        world.grow(blocks + 1)?;
        Ok(world)
    }

    pub fn height(&self) -> usize {
        self.chain.len() - 1
    }

    /// So many blocks more; those blocks.
    pub fn grow(&mut self, blocks: usize) -> anyhow::Result<&[Served]> {
        let first = self.chain.len();
        let mut raw = Vec::new();
        for _ in 0..blocks {
            let hash = self.forge.next_block(0, &mut raw);
            self.file.write_all(&MAGIC)?;
            self.file.write_all(&(raw.len() as u32).to_le_bytes())?;
            self.file.write_all(&raw)?;
            self.universe.add(&bitcoin::consensus::deserialize(&raw)?);
            let sum = sha256d::Hash::hash(&raw).to_byte_array();
            self.chain.push(Served {
                path: self.path.clone(),
                offset: self.end + 8,
                length: raw.len() as u32,
                header: raw[..80].try_into()?,
                hash,
                checksum: [sum[0], sum[1], sum[2], sum[3]],
            });
            self.end += 8 + raw.len() as u64;
        }
        Ok(&self.chain[first..])
    }

    /// Takes the newest `depth` blocks away. What is forged next differs: in all with a seed, else in no more than
    /// the coinbases and what spends them.
    pub fn fork(&mut self, depth: usize, seed: Option<u64>) -> anyhow::Result<()> {
        ensure!(depth < self.chain.len(), "genesis stays");
        let next = (self.chain.len() - depth) as u32;
        self.turns.retain(|turn| turn.height < next);
        self.forks += 1;
        let digits = format!("{:05x}", self.forks);
        let tag = digits.as_bytes().try_into()?;
        self.turns.push(Turn { height: next, tag, seed });
        self.forge = forge(self.seed);
        let mut raw = Vec::new();
        loop {
            let height = self.forge.height();
            for turn in self.turns.iter().filter(|turn| turn.height == height) {
                self.forge.tag(turn.tag);
                turn.seed.into_iter().for_each(|seed| self.forge.reseed(seed));
            }
            if height == next {
                break;
            }
            let hash = self.forge.next_block(0, &mut raw);
            ensure!(hash == self.chain[height as usize].hash, "the forge made another block {height}");
        }
        self.removed = self.chain.split_off(next as usize);
        self.last_fork = self.chain.len() - 1;
        Ok(())
    }
}

fn forge(seed: u64) -> Forge {
    let mut forge = Forge::new(NO_TRUTH, seed);
    forge.fill(Fill::Bytes(BLOCK_BYTES));
    forge
}
