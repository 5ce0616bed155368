//! Times what a block costs the mempool by itself: made-up entries, no chain, no scripts, no peers. Each step is what
//! the mempool's thread does before wallets hear of the tip, or after it.

use std::collections::VecDeque;
use std::time::{Duration, Instant as Clock};

use bitcoin::hashes::Hash;
use bitcoin::{Amount, BlockHash, OutPoint, Txid, Wtxid};
use bytes::Bytes;
use chainstore::{Height, ScriptKey};
use clap::Parser;
use fastrand::Rng;
use peerdex::mempool::{
    BlockFees, BlockTransaction, Covered, Entry, FeeEstimator, Input, Output, Policy, Pool, histogram,
};
use peerdex::query::Touched;
use peerdex::time::{Instant, Now};

/// Virtual bytes of a payment of two inputs and two outputs.
const VSIZE: u64 = 208;

#[derive(Debug, Parser)]
#[command(about)]
struct Arguments {
    /// Entries in the mempool when a block comes.
    #[arg(long, default_value = "100000")]
    entries: usize,
    /// Of them in each block.
    #[arg(long, default_value = "3000")]
    block: usize,
    /// Blocks.
    #[arg(long, default_value = "9")]
    blocks: usize,
}

fn at(seconds: u64) -> Now {
    Now { instant: Instant::from_start(Duration::from_secs(seconds)), unix: 1_700_000_000 + seconds }
}

/// A payment of two coins; one of five spends what another entry made.
fn entry(number: u64, coins: [OutPoint; 2], rng: &mut Rng) -> Entry {
    let txid = Txid::hash(&number.to_le_bytes());
    let mut script = || {
        let mut key = ScriptKey([0; ScriptKey::LEN]);
        rng.fill(&mut key.0);
        key
    };
    let inputs = coins.map(|outpoint| Input { outpoint, value: Amount::from_sat(50_000), script: script() });
    let output = || Output { value: Amount::from_sat(49_000), script: script(), is_unspendable: false };
    let outputs = std::iter::repeat_with(output).take(2).collect();
    Entry {
        txid,
        wtxid: Wtxid::from_byte_array(*txid.as_byte_array()),
        raw: Bytes::from(vec![0; 370]),
        inputs: inputs.into(),
        outputs,
        fee: Amount::from_sat(VSIZE * rng.u64(1..200) + rng.u64(..VSIZE)),
        weight: VSIZE * 4,
        vsize: VSIZE,
        sigops_cost: 2,
        dust: None,
        is_truc: false,
        spends_coinbase: false,
        at: at(0).instant,
        unix: at(0).unix,
        height: Height(800_000),
    }
}

/// The steps of one block, in milliseconds.
type Steps = Vec<(&'static str, f64)>;

struct Bench {
    pool: Pool,
    estimator: FeeEstimator,
    rng: Rng,
    next: u64,
    /// Outputs that an entry may spend.
    free: VecDeque<OutPoint>,
}

impl Bench {
    fn fill(&mut self, policy: &Policy, entries: usize) {
        while self.pool.len() < entries {
            let number = self.next;
            self.next += 1;
            let mut coin = |nth: u64| {
                let young = if self.rng.u8(..10) == 0 { self.free.pop_front() } else { None };
                young.unwrap_or(OutPoint::new(Txid::hash(&(number | nth << 62).to_be_bytes()), 0))
            };
            let coins = [coin(1), coin(2)];
            let entry = entry(number, coins, &mut self.rng);
            self.free.push_back(OutPoint::new(entry.txid, 0));
            if self.free.len() > 2_000 {
                self.free.pop_front();
            }
            // Some are one too many for their cluster.
            if let Ok(plan) = self.pool.plan(entry, policy) {
                let _ = self.pool.commit(plan);
            }
        }
    }

    /// The best of the mempool is mined.
    fn block(&mut self, height: u32, size: usize) -> Steps {
        let now = at(600 * u64::from(height));
        // Wallets hold the view before.
        let before = self.pool.view(now);
        let txids: Vec<Txid> = self.pool.chunks().flat_map(|chunk| chunk.txids).take(size).collect();
        self.free.retain(|coin| !txids.contains(&coin.txid));
        let mined: Vec<(Txid, Vec<OutPoint>)> = txids
            .iter()
            .filter_map(|txid| before.entry(txid))
            .map(|entry| (entry.txid, entry.inputs.iter().map(|input| input.outpoint).collect()))
            .collect();
        let transaction = BlockTransaction { fee: 1_000, weight: VSIZE * 4, parents: Vec::new() };
        let hash = BlockHash::hash(&height.to_le_bytes());
        let fees = BlockFees::of_transactions(hash, Height(height), &vec![transaction; size]);

        let mut steps = Steps::new();
        let mut began = Clock::now();
        let mut step = |name| {
            steps.push((name, began.elapsed().as_secs_f64() * 1e3));
            began = Clock::now();
        };
        let changes = self.pool.begin_block(now, mined);
        step("views are without it");
        let touched = Touched::from(&changes);
        step("what wallets have of them");
        let view = self.pool.view(now);
        step("a view");
        self.pool.finish_block();
        step("what left is taken out");
        let weight = VSIZE * 4 * size as u64;
        let covered = Covered { all: weight, had: weight };
        self.estimator.block_connected(now.instant, fees, covered, self.pool.chunk_fees());
        step("fees: what the block left");
        self.estimator.refresh(now.instant, || self.pool.chunk_fees());
        step("fees: estimates");
        let bins = histogram(self.pool.chunk_fees());
        step("fees: histogram");
        while self.pool.has_leftovers() {
            self.pool.sweep(128);
        }
        step("sweep");
        assert!(
            changes.removed.len() == size && !touched.has_transaction(&txids[0]),
            "its commit tells of it"
        );
        drop((before, changes));
        step("the old view");
        assert_eq!(view.len(), self.pool.len());
        assert!(bins.len() > 1, "the rest is there");
        steps
    }
}

fn main() {
    let arguments = Arguments::parse();
    let policy = Policy::core();
    let mut bench = Bench {
        pool: Pool::new(&policy),
        estimator: FeeEstimator::new(at(0).instant),
        rng: Rng::with_seed(1),
        next: 0,
        free: VecDeque::new(),
    };
    let mut blocks: Vec<Steps> = Vec::new();
    for height in 0..arguments.blocks as u32 {
        bench.fill(&policy, arguments.entries);
        blocks.push(bench.block(height, arguments.block));
    }
    println!(
        "a block of {} with {} in the mempool, ms, median of {}:",
        arguments.block,
        arguments.entries,
        blocks.len()
    );
    for nth in 0..blocks[0].len() {
        let mut times: Vec<f64> = blocks.iter().map(|steps| steps[nth].1).collect();
        times.sort_by(f64::total_cmp);
        println!(
            "  {:<28}{:6.1}   (most {:.1})",
            blocks[0][nth].0,
            times[times.len() / 2],
            times[times.len() - 1]
        );
    }
}
