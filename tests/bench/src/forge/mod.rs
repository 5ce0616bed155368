//! Makes regtest chains of mainnet's shape that every node accepts, without a signature in them.
//!
//! The same size and seed give the same bytes. Shape: 608 KB and 1,300 transactions a block, most scripts funded
//! once and spent once, a few with histories of tens of thousands, coins spent young with a long tail.

pub mod assembly;
mod coins;
mod ledger;
mod scripts;

use std::collections::VecDeque;
use std::io::Write;

use bitcoin::constants::genesis_block;
use bitcoin::hashes::{Hash, sha256d};
use bitcoin::{BlockHash, Network};

use self::coins::{Coin, Coins};
use self::ledger::{Ledger, Placed};
use self::scripts::{Scripts, push};
use crate::truth::Summary;

/// Regtest's, before every block in Core's files.
pub const MAGIC: [u8; 4] = [0xfa, 0xbf, 0xb5, 0xda];
/// First blocks, which only fund what comes after; also the depth at which coinbases can be spent.
const MATURITY: u32 = 100;
/// Outputs of each of their coinbases.
const FUNDING_OUTPUTS: usize = 200;
/// Bytes of the blocks after them.
const BLOCK_BYTES: std::ops::Range<usize> = 416_000..800_000;
/// Bytes of an average transaction, for what is reckoned beforehand.
const TX_BYTES: u64 = 462;
/// Weight at which a block has no room for the largest transaction that may come, and a coinbase.
const FULL: usize = 3_880_000;
/// Scripts with the longest histories: exchanges, services, pools.
const HOT: u32 = 8;
/// Outputs of a hundred that stay unspent, and how many there are in any chain.
const UNSPENT_PERCENT: u64 = 8;
const LEAST_UNSPENT: u64 = 4_000;

/// Writes a chain of at least `size` bytes in the format of Core's block files.
///
/// `truth` gets what is known of it.
pub fn forge(
    size: u64,
    seed: u64,
    blocks: &mut impl Write,
    truth: &mut impl Write,
) -> anyhow::Result<Summary> {
    let mut forge = Forge::new(size, seed);
    let mut offset = 0;
    let mut tip = [0; 32];
    let mut raw = Vec::new();
    while forge.ledger.bytes < size {
        tip = forge.next_block(offset + 8, &mut raw);
        blocks.write_all(&MAGIC)?;
        blocks.write_all(&(raw.len() as u32).to_le_bytes())?;
        blocks.write_all(&raw)?;
        offset += 8 + raw.len() as u64;
    }
    let tip = BlockHash::from_byte_array(tip).to_string();
    let immature = forge.maturing.iter().flatten();
    forge.ledger.write(truth, tip, forge.scripts, forge.coins.iter().chain(immature))
}

/// When a block is full.
#[derive(Clone, Debug)]
pub enum Fill {
    /// At a number of bytes in this range.
    Bytes(std::ops::Range<usize>),
    /// At so many transactions, the coinbase among them, or at the weight that no block may pass.
    Transactions(usize),
}

/// A chain in the making. A clone goes on by itself: that is how branches are made.
#[derive(Clone, Debug)]
pub struct Forge {
    rng: fastrand::Rng,
    fill: Fill,
    /// In every coinbase.
    tag: [u8; 5],
    scripts: Scripts,
    next_script: u32,
    coins: Coins,
    ledger: Ledger,
    height: u32,
    previous: [u8; 32],
    /// Coinbase outputs by block, oldest first.
    maturing: VecDeque<Vec<Coin>>,
    /// Transactions of the block in the making but the coinbase, one after the other.
    body: Vec<u8>,
    /// Weight of all that is in `body`.
    weight: usize,
    /// Where they are, the coinbase's place kept free.
    placed: Vec<Placed>,
    wtxids: Vec<[u8; 32]>,
    spent: Vec<Coin>,
    stripped: Vec<u8>,
    witness: Vec<u8>,
    script: Vec<u8>,
}

impl Forge {
    /// For a chain of about this many bytes, which only `truth.jsonl` depends on.
    pub fn new(size: u64, seed: u64) -> Self {
        Self {
            rng: fastrand::Rng::with_seed(seed),
            fill: Fill::Bytes(BLOCK_BYTES),
            tag: *b"forge",
            scripts: Scripts::new(seed),
            next_script: HOT,
            coins: Coins::default(),
            ledger: Ledger::new(size / TX_BYTES, size / TX_BYTES * 2),
            height: 0,
            previous: [0; 32],
            maturing: VecDeque::new(),
            body: Vec::new(),
            weight: 0,
            placed: Vec::new(),
            wtxids: Vec::new(),
            spent: Vec::new(),
            stripped: Vec::new(),
            witness: Vec::new(),
            script: Vec::new(),
        }
    }

    /// Height of the block that comes next.
    pub fn height(&self) -> u32 {
        self.height
    }

    /// Bytes of all blocks so far.
    pub fn bytes(&self) -> u64 {
        self.ledger.bytes
    }

    /// Blocks are full at this from now on.
    pub fn fill(&mut self, fill: Fill) {
        self.fill = fill;
    }

    /// Coinbases differ from here on. The transactions stay those that would have come, until one spends such a
    /// coinbase or blocks end elsewhere.
    pub fn tag(&mut self, tag: [u8; 5]) {
        self.tag = tag;
    }

    /// All differs from here on.
    pub fn reseed(&mut self, seed: u64) {
        self.rng.seed(seed);
    }

    /// Makes the next block, which will be at `offset` of the file; its hash.
    pub fn next_block(&mut self, offset: u64, raw: &mut Vec<u8>) -> [u8; 32] {
        raw.clear();
        let height = self.height;
        self.height += 1;
        if height == 0 {
            return self.genesis(offset, raw);
        }
        if self.maturing.len() == MATURITY as usize {
            for coin in self.maturing.pop_front().into_iter().flatten() {
                self.coins.add_aged(coin);
            }
        }
        let free = Placed { txid: [0; 32], offset: 0, length: 0 };
        self.body.clear();
        self.weight = 0;
        self.placed.clear();
        self.placed.push(free);
        self.wtxids.clear();
        self.wtxids.push([0; 32]);
        if height > MATURITY {
            let (bytes, transactions) = match &self.fill {
                Fill::Bytes(range) => (self.rng.usize(range.clone()), usize::MAX),
                Fill::Transactions(count) => (usize::MAX, *count),
            };
            while self.body.len() < bytes
                && self.placed.len() < transactions
                && self.weight < FULL
                && self.transaction()
            {}
        }
        let has_transactions = self.placed.len() > 1;
        let witness_root = has_transactions.then(|| assembly::merkle_root(&mut self.wtxids));
        let coinbase = self.coinbase(height, witness_root);
        let mut txids: Vec<[u8; 32]> = self.placed.iter().map(|placed| placed.txid).collect();
        let (header, hash) = assembly::header(height, self.previous, assembly::merkle_root(&mut txids));
        raw.extend(header);
        put_compact(raw, self.placed.len());
        self.placed[0].offset = raw.len() as u64;
        raw.extend(&coinbase);
        for placed in &mut self.placed[1..] {
            placed.offset += raw.len() as u64;
        }
        raw.extend(&self.body);
        self.ledger.close(offset, raw.len() as u64, &self.placed);
        self.coins.age(&mut self.rng);
        self.previous = hash;
        hash
    }

    /// Nobody can spend its output, and no set of unspent outputs has it.
    fn genesis(&mut self, offset: u64, raw: &mut Vec<u8>) -> [u8; 32] {
        let block = genesis_block(Network::Regtest);
        raw.extend(bitcoin::consensus::serialize(&block));
        self.previous = block.block_hash().to_byte_array();
        let tx = &block.txdata[0];
        let length = tx.total_size() as u32;
        let placed = Placed { txid: tx.compute_txid().to_byte_array(), offset: 81, length };
        self.ledger.inputs += 1;
        self.ledger.outputs += 1;
        self.ledger.close(offset, raw.len() as u64, &[placed]);
        self.previous
    }

    fn coinbase(&mut self, height: u32, witness_root: Option<[u8; 32]>) -> Vec<u8> {
        let count = if height <= MATURITY { FUNDING_OUTPUTS } else { 1 };
        let value = assembly::subsidy(height) / count as u64;
        let numbers: Vec<u32> = (0..count)
            .map(|_| match height {
                ..=MATURITY => self.new_script(),
                _ => self.rng.u32(..HOT),
            })
            .collect();
        let outputs: Vec<(u64, Vec<u8>)> = numbers
            .iter()
            .map(|number| {
                let mut script = Vec::new();
                self.scripts.spell(*number).lock(&mut script);
                (value, script)
            })
            .collect();
        let (raw, txid) = assembly::coinbase(height, self.tag, &outputs, witness_root);
        let tx = self.ledger.first_tx();
        let coins = (0..).zip(&numbers).map(|(vout, script)| Coin { txid, value, script: *script, tx, vout });
        self.maturing.push_back(coins.collect());
        for number in numbers {
            self.ledger.touch(number, 0);
        }
        self.ledger.inputs += 1;
        self.ledger.outputs += (count + usize::from(witness_root.is_some())) as u64;
        self.placed[0] = Placed { txid, offset: 0, length: raw.len() as u32 };
        raw
    }

    /// Appends a transaction to the block; `false` if there is nothing to spend.
    fn transaction(&mut self) -> bool {
        let inputs = self.input_count();
        let position = self.placed.len() as u32;
        self.spent.clear();
        while self.spent.len() < inputs {
            let Some(coin) = self.coins.take(&mut self.rng) else { break };
            self.ledger.touch(coin.script, position);
            self.spent.push(coin);
        }
        if self.spent.is_empty() {
            return false;
        }
        self.ledger.inputs += self.spent.len() as u64;
        self.write_inputs();
        let made = self.write_outputs(position);
        self.stripped.extend(0_u32.to_le_bytes());
        let txid = sha256d::Hash::hash(&self.stripped).to_byte_array();
        let start = self.body.len();
        let wtxid = if self.witness.is_empty() {
            self.body.extend(&self.stripped);
            txid
        } else {
            let (head, rest) = self.stripped.split_at(4);
            let (rest, lock_time) = rest.split_at(rest.len() - 4);
            for part in [head, &[0, 1], rest, &self.witness, lock_time] {
                self.body.extend(part);
            }
            sha256d::Hash::hash(&self.body[start..]).to_byte_array()
        };
        for coin in made {
            self.coins.add(Coin { txid, ..coin });
        }
        let length = (self.body.len() - start) as u32;
        self.weight += self.stripped.len() * 3 + length as usize;
        self.placed.push(Placed { txid, offset: start as u64, length });
        self.wtxids.push(wtxid);
        true
    }

    /// Mostly one or two; consolidations keep the number of coins at its share.
    fn input_count(&mut self) -> usize {
        let coins = self.coins.len() as u64;
        let wanted = LEAST_UNSPENT + self.ledger.outputs * UNSPENT_PERCENT / 100;
        // So many transactions would be too heavy for a block with more of them.
        let has_room = matches!(self.fill, Fill::Bytes(_));
        let consolidations = if has_room && coins > wanted { 25 } else { 2 };
        if coins < wanted / 2 {
            return 1;
        }
        match self.rng.u32(..1_000) {
            share if share < consolidations => self.rng.usize(50..120),
            share if share < 160 => self.rng.usize(3..9),
            share if share < 380 => 2,
            _ => 1,
        }
    }

    fn output_count(&mut self) -> usize {
        match self.rng.u32(..1_000) {
            0..3 => self.rng.usize(100..200),
            3..110 => self.rng.usize(3..9),
            110..230 => 1,
            _ => 2,
        }
    }

    /// Version and inputs of the coins in `spent`; fills `witness`, which stays empty if no input has one.
    fn write_inputs(&mut self) {
        self.stripped.clear();
        self.witness.clear();
        self.stripped.extend(2_u32.to_le_bytes());
        put_compact(&mut self.stripped, self.spent.len());
        let mut has_witness = false;
        for coin in &self.spent {
            let mut spelled = self.scripts.spell(coin.script);
            self.stripped.extend(coin.txid);
            self.stripped.extend(coin.vout.to_le_bytes());
            self.script.clear();
            spelled.unlock(&mut self.script);
            put_compact(&mut self.stripped, self.script.len());
            self.stripped.extend(&self.script);
            self.stripped.extend(0xffff_fffd_u32.to_le_bytes());
            if spelled.kind == scripts::Kind::WitnessHash {
                has_witness = true;
                self.witness.push(1);
                put_compact(&mut self.witness, spelled.inner.len());
                self.witness.extend(&spelled.inner);
            } else {
                self.witness.push(0);
            }
        }
        if !has_witness {
            self.witness.clear();
        }
    }

    /// Outputs that share what the inputs have; the coins, their txid still to be filled in.
    fn write_outputs(&mut self, position: u32) -> Vec<Coin> {
        let count = self.output_count();
        let with_data = self.rng.u32(..100) < 4;
        put_compact(&mut self.stripped, count + usize::from(with_data));
        self.ledger.outputs += (count + usize::from(with_data)) as u64;
        let tx = self.ledger.first_tx() + position;
        let mut left: u64 = self.spent.iter().map(|coin| coin.value).sum();
        let mut made = Vec::with_capacity(count);
        for vout in 0..count {
            let rest = (count - vout) as u64;
            let value = if rest == 1 { left } else { self.rng.u64(..=left / rest * 2) };
            left -= value;
            let script = self.output_script();
            self.script.clear();
            self.scripts.spell(script).lock(&mut self.script);
            self.stripped.extend(value.to_le_bytes());
            put_compact(&mut self.stripped, self.script.len());
            self.stripped.extend(&self.script);
            self.ledger.touch(script, position);
            made.push(Coin { txid: [0; 32], value, script, tx, vout: vout as u32 });
        }
        if with_data {
            let mut data = [0; 80];
            let length = self.rng.usize(20..=80);
            self.rng.fill(&mut data[..length]);
            self.script.clear();
            self.script.push(0x6a);
            push(&mut self.script, &data[..length]);
            self.stripped.extend(0_u64.to_le_bytes());
            put_compact(&mut self.stripped, self.script.len());
            self.stripped.extend(&self.script);
        }
        made
    }

    fn new_script(&mut self) -> u32 {
        self.next_script += 1;
        self.next_script - 1
    }

    /// Mostly a new one; else change to where it came from, a busy one, or one seen before.
    fn output_script(&mut self) -> u32 {
        match self.rng.u32(..10_000) {
            0..7_300 => self.new_script(),
            7_300..7_900 => self.spent[0].script,
            7_900..7_944 => {
                // The second busiest has half of the busiest one's, and so on.
                let harmonic = |last: u32| (1..=last).map(|n| 1.0 / f64::from(n)).sum::<f64>();
                let share = self.rng.f64() * harmonic(HOT);
                (1..HOT).find(|last| harmonic(*last) > share).unwrap_or(HOT) - 1
            }
            7_944..9_450 => {
                let share = self.rng.f64();
                (f64::from(self.next_script) * share * share * share) as u32
            }
            _ => self.next_script - 1 - self.rng.u32(..self.next_script.min(5_000)),
        }
    }
}

/// Appends a number of one, three or five bytes.
pub fn put_compact(to: &mut Vec<u8>, number: usize) {
    match number {
        0..=0xfc => to.push(number as u8),
        0xfd..=0xffff => {
            to.push(0xfd);
            to.extend((number as u16).to_le_bytes());
        }
        _ => {
            to.push(0xfe);
            to.extend((number as u32).to_le_bytes());
        }
    }
}

#[cfg(test)]
mod tests;
