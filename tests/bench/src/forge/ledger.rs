//! What the forge remembers of the chain for `truth.jsonl`: samples only, so that memory stays bounded.

use std::collections::HashMap;
use std::io::Write;

use anyhow::ensure;
use bitcoin::Txid;
use bitcoin::hashes::{Hash, sha256};

use super::coins::Coin;
use super::scripts::Scripts;
use crate::truth::{Line, Script, Summary, Transaction};

/// Histories longer than this are all told.
const LONG_HISTORY: usize = 1_000;
/// Other scripts are told of only with histories up to this.
const SHORT_HISTORY: usize = 100;
/// Scripts with the lowest numbers are reused the most; all long histories are among them.
const FOLLOWED: u32 = 4_096;
/// Transactions, and scripts with short histories, that are told of.
const SAMPLES: u64 = 20_000;

/// A transaction in the block in the making.
#[derive(Clone, Copy, Debug)]
pub struct Placed {
    pub txid: [u8; 32],
    /// Offset in the block, and length.
    pub offset: u64,
    pub length: u32,
}

#[derive(Clone, Debug)]
pub struct Ledger {
    pub outputs: u64,
    pub inputs: u64,
    pub bytes: u64,
    script_stride: u32,
    tx_stride: u64,
    /// Times that each script was funded or spent; stops at the maximum.
    uses: Vec<u16>,
    /// Height, number and txid of the transactions of a script that is followed.
    histories: HashMap<u32, Vec<(u32, u32, [u8; 32])>>,
    /// Number of the first transaction of each block.
    firsts: Vec<u32>,
    next_tx: u32,
    samples: Vec<Transaction>,
    /// Script and position of this block's transactions that touch one that is followed.
    touched: Vec<(u32, u32)>,
}

impl Ledger {
    /// For a chain of about this many transactions and scripts.
    pub fn new(transactions: u64, scripts: u64) -> Self {
        Self {
            outputs: 0,
            inputs: 0,
            bytes: 0,
            script_stride: (scripts / SAMPLES).max(1) as u32,
            tx_stride: transactions.div_ceil(SAMPLES).max(1),
            uses: Vec::new(),
            histories: HashMap::new(),
            firsts: Vec::new(),
            next_tx: 0,
            samples: Vec::new(),
            touched: Vec::new(),
        }
    }

    /// Number of the coinbase of the block in the making.
    pub fn first_tx(&self) -> u32 {
        self.next_tx
    }

    /// The transaction at this position of the block in the making funds or spends the script.
    pub fn touch(&mut self, script: u32, position: u32) {
        let place = script as usize;
        if self.uses.len() <= place {
            self.uses.resize(place + 1, 0);
        }
        self.uses[place] = self.uses[place].saturating_add(1);
        if script < FOLLOWED || script.is_multiple_of(self.script_stride) {
            self.touched.push((script, position));
        }
    }

    /// Ends a block that begins at `offset` of the file.
    pub fn close(&mut self, offset: u64, length: u64, placed: &[Placed]) {
        let height = self.firsts.len() as u32;
        self.firsts.push(self.next_tx);
        self.bytes += length;
        // The coinbase is made last.
        self.touched.sort_by_key(|(_, position)| *position);
        for (script, position) in self.touched.drain(..) {
            let number = self.next_tx + position;
            let history = self.histories.entry(script).or_default();
            if history.last().is_none_or(|(_, last, _)| *last != number) {
                history.push((height, number, placed[position as usize].txid));
            }
        }
        for (position, tx) in (0..).zip(placed) {
            if (u64::from(self.next_tx + position)).is_multiple_of(self.tx_stride)
                && (self.samples.len() as u64) < SAMPLES
            {
                self.samples.push(Transaction {
                    txid: Txid::from_byte_array(tx.txid).to_string(),
                    height,
                    position,
                    offset: offset + tx.offset,
                    length: tx.length,
                });
            }
        }
        self.next_tx += placed.len() as u32;
    }

    /// Writes all lines, and gives the first.
    pub fn write<'a>(
        self,
        to: &mut impl Write,
        tip: String,
        scripts: Scripts,
        unspent: impl Iterator<Item = &'a Coin>,
    ) -> anyhow::Result<Summary> {
        let mut count = 0;
        let mut coins: HashMap<u32, Vec<&Coin>> = HashMap::new();
        for coin in unspent {
            count += 1;
            if self.histories.contains_key(&coin.script) {
                coins.entry(coin.script).or_default().push(coin);
            }
        }
        let unseen =
            self.uses.iter().skip(FOLLOWED as usize).filter(|uses| usize::from(**uses) > LONG_HISTORY);
        ensure!(unseen.count() == 0, "a script that is not followed has a long history");
        let summary = Summary {
            height: self.firsts.len() as u32 - 1,
            tip,
            bytes: self.bytes,
            transactions: u64::from(self.next_tx),
            outputs: self.outputs,
            inputs: self.inputs,
            // And genesis's.
            scripts: self.uses.iter().filter(|uses| **uses > 0).count() as u64 + 1,
            unspent: count,
        };
        let mut line = |line: &Line| -> anyhow::Result<()> {
            serde_json::to_writer(&mut *to, line)?;
            Ok(to.write_all(b"\n")?)
        };
        line(&Line::Summary(summary.clone()))?;
        let mut numbers: Vec<u32> = self.histories.keys().copied().collect();
        numbers.sort_unstable();
        for number in numbers {
            let history = &self.histories[&number];
            let is_sample = number.is_multiple_of(self.script_stride) && history.len() <= SHORT_HISTORY;
            if !is_sample && history.len() <= LONG_HISTORY {
                continue;
            }
            let mut coins = coins.remove(&number).unwrap_or_default();
            coins.sort_by_key(|coin| (coin.tx, coin.vout));
            let height = |tx: u32| self.firsts.partition_point(|first| *first <= tx) as u32 - 1;
            let text = |txid| Txid::from_byte_array(txid).to_string();
            let mut script = Vec::new();
            scripts.spell(number).lock(&mut script);
            let mut hash = sha256::Hash::hash(&script).to_byte_array();
            hash.reverse();
            line(&Line::Script(Script {
                scripthash: hash.iter().map(|byte| format!("{byte:02x}")).collect(),
                history: history.iter().map(|(height, _, txid)| (*height, text(*txid))).collect(),
                unspent: coins
                    .iter()
                    .map(|coin| (text(coin.txid), coin.vout, height(coin.tx), coin.value))
                    .collect(),
            }))?;
        }
        for sample in self.samples {
            line(&Line::Transaction(sample))?;
        }
        Ok(summary)
    }
}
