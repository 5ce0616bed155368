//! The least that any index has to do with a chain: hash it.
//!
//! Txids, wtxids, hashes of all locking scripts, merkle roots and witness roots; nothing is kept.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use bitcoin::hashes::{Hash, HashEngine, sha256, sha256d};

use super::chain::Chain;
use crate::forge::assembly::merkle_root;

/// How long it takes on this many threads, and how many transactions there were.
pub fn time(chain: &Chain, threads: usize) -> anyhow::Result<(Duration, u64)> {
    let next = AtomicUsize::new(0);
    let transactions = AtomicU64::new(0);
    let start = Instant::now();
    std::thread::scope(|scope| {
        let worker = || -> anyhow::Result<()> {
            let mut buffer = Vec::new();
            let (mut txids, mut wtxids) = (Vec::new(), Vec::new());
            while let Some(place) = chain.blocks.get(next.fetch_add(1, Ordering::Relaxed)) {
                chain.read(place, &mut buffer)?;
                block(&buffer, &mut txids, &mut wtxids).context("a block that can't be read")?;
                transactions.fetch_add(txids.len() as u64, Ordering::Relaxed);
                std::hint::black_box(sha256d::Hash::hash(&place.header));
                ensure!(merkle_root(&mut txids) == place.header[36..68], "a merkle root is wrong");
                std::hint::black_box(merkle_root(&mut wtxids));
            }
            Ok(())
        };
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(worker)).collect();
        workers.into_iter().try_for_each(|worker| worker.join().expect("workers don't panic"))
    })?;
    Ok((start.elapsed(), transactions.into_inner()))
}

/// Replaces both lists by the block's.
fn block(raw: &[u8], txids: &mut Vec<[u8; 32]>, wtxids: &mut Vec<[u8; 32]>) -> Option<()> {
    txids.clear();
    wtxids.clear();
    let mut walk = Walk { raw, at: 80 };
    for number in 0..walk.compact()? {
        let (txid, wtxid) = transaction(&mut walk)?;
        txids.push(txid);
        wtxids.push(if number == 0 { [0; 32] } else { wtxid });
    }
    (walk.at == raw.len()).then_some(())
}

fn transaction(walk: &mut Walk<'_>) -> Option<([u8; 32], [u8; 32])> {
    let start = walk.at;
    walk.skip(4)?;
    let has_witness = walk.raw.get(walk.at..walk.at + 2)? == [0, 1];
    if has_witness {
        walk.skip(2)?;
    }
    let body = walk.at;
    let inputs = walk.compact()?;
    for _ in 0..inputs {
        walk.skip(36)?;
        walk.script()?;
        walk.skip(4)?;
    }
    for _ in 0..walk.compact()? {
        walk.skip(8)?;
        std::hint::black_box(sha256::Hash::hash(walk.script()?));
    }
    let end = walk.at;
    if has_witness {
        for _ in 0..inputs {
            for _ in 0..walk.compact()? {
                walk.script()?;
            }
        }
    }
    walk.skip(4)?;
    let raw = walk.raw;
    let wtxid = sha256d::Hash::hash(&raw[start..walk.at]).to_byte_array();
    if !has_witness {
        return Some((wtxid, wtxid));
    }
    let mut engine = sha256d::Hash::engine();
    engine.input(&raw[start..start + 4]);
    engine.input(&raw[body..end]);
    engine.input(&raw[walk.at - 4..walk.at]);
    Some((sha256d::Hash::from_engine(engine).to_byte_array(), wtxid))
}

struct Walk<'a> {
    raw: &'a [u8],
    at: usize,
}

impl<'a> Walk<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let taken = self.raw.get(self.at..self.at.checked_add(count)?)?;
        self.at += count;
        Some(taken)
    }

    fn skip(&mut self, count: usize) -> Option<()> {
        self.take(count).map(|_| ())
    }

    fn compact(&mut self) -> Option<usize> {
        match self.take(1)?[0] {
            0xfd => Some(usize::from(u16::from_le_bytes(self.take(2)?.try_into().ok()?))),
            0xfe => Some(u32::from_le_bytes(self.take(4)?.try_into().ok()?) as usize),
            0xff => None,
            small => Some(usize::from(small)),
        }
    }

    /// Bytes with their length before them.
    fn script(&mut self) -> Option<&'a [u8]> {
        let length = self.compact()?;
        self.take(length)
    }
}
