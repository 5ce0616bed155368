//! The index in its plainest form: what peerdex's answers are compared with.
//!
//! Maps and vectors, rebuilt from nothing for each question about a chain, with no thought for size or speed.
//! It takes transactions from raw blocks or from what bitcoind says of a block, so that the two can be
//! compared too. Blocks are only added; a reorg is a new index.

use std::collections::{BTreeMap, BTreeSet};

use bitcoin::hashes::{Hash, sha256};
use bitcoin::{Block, Txid};
use serde_json::{Value, json};

/// A transaction as far as the index looks at it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tx {
    pub txid: Txid,
    /// The outputs that it spends; empty for a coinbase.
    pub spends: Vec<(Txid, u32)>,
    /// Script and satoshi of each output.
    pub outputs: Vec<(Vec<u8>, u64)>,
}

impl Tx {
    /// The transactions of a block, in its order.
    pub fn all_of(block: &Block) -> Vec<Self> {
        let tx = |tx: &bitcoin::Transaction| Self {
            txid: tx.compute_txid(),
            spends: match tx.is_coinbase() {
                true => Vec::new(),
                false => {
                    tx.input.iter().map(|input| input.previous_output).map(|o| (o.txid, o.vout)).collect()
                }
            },
            outputs: tx.output.iter().map(|o| (o.script_pubkey.to_bytes(), o.value.to_sat())).collect(),
        };
        block.txdata.iter().map(tx).collect()
    }

    /// The transactions of a block as bitcoind's `getblock HASH 2` shows it.
    pub fn all_of_json(block: &Value) -> Vec<Self> {
        let txid = |value: &Value| value.as_str().unwrap().parse::<Txid>().unwrap();
        let spent = |input: &Value| (txid(&input["txid"]), input["vout"].as_u64().unwrap() as u32);
        let output = |output: &Value| {
            let script =
                bitcoin::hex::FromHex::from_hex(output["scriptPubKey"]["hex"].as_str().unwrap()).unwrap();
            (script, satoshi(&output["value"]))
        };
        let tx = |tx: &Value| Self {
            txid: txid(&tx["txid"]),
            spends: tx["vin"]
                .as_array()
                .unwrap()
                .iter()
                .filter(|i| i.get("coinbase").is_none())
                .map(spent)
                .collect(),
            outputs: tx["vout"].as_array().unwrap().iter().map(output).collect(),
        };
        block["tx"].as_array().unwrap().iter().map(tx).collect()
    }
}

/// Bitcoin as bitcoind shows them, in satoshi. Exact, as 21 million coins are below 2^53 satoshi.
pub fn satoshi(bitcoins: &Value) -> u64 {
    (bitcoins.as_f64().expect("an amount is a number") * 1e8).round() as u64
}

/// An unspent output.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Coin {
    script: Vec<u8>,
    value: u64,
    height: u32,
    /// Position of its transaction in its block.
    position: usize,
}

/// Every script's history and coins at the tip of a chain.
#[derive(Clone, Debug, Default)]
pub struct NaiveIndex {
    blocks: u32,
    /// The txids of each block.
    txids: Vec<Vec<Txid>>,
    /// Of each script, the transactions that pay it or spend from it: height, position in the block, txid.
    histories: BTreeMap<Vec<u8>, BTreeSet<(u32, usize, Txid)>>,
    coins: BTreeMap<(Txid, u32), Coin>,
    /// Every script that was ever paid, those without a history too.
    scripts: BTreeSet<Vec<u8>>,
}

impl NaiveIndex {
    /// The index of a chain of raw blocks from genesis on.
    pub fn of_raw(blocks: &[Vec<u8>]) -> Self {
        let mut index = Self::default();
        for raw in blocks {
            let block: Block = bitcoin::consensus::deserialize(raw).expect("a block of the test decodes");
            index.add(&Tx::all_of(&block));
        }
        index
    }

    /// Connects the next block, which must have been checked by somebody else.
    pub fn add(&mut self, txs: &[Tx]) {
        let height = self.blocks;
        self.blocks += 1;
        self.txids.push(txs.iter().map(|tx| tx.txid).collect());
        for (position, tx) in txs.iter().enumerate() {
            // The genesis block's coinbase is no transaction that a node knows.
            if height == 0 {
                continue;
            }
            for spent in &tx.spends {
                let coin = self.coins.remove(spent).expect("a valid block spends coins that exist");
                self.histories.entry(coin.script).or_default().insert((height, position, tx.txid));
            }
            for (vout, (script, value)) in tx.outputs.iter().enumerate() {
                self.scripts.insert(script.clone());
                let is_data = script.first() == Some(&0x6a);
                if !is_data {
                    self.histories.entry(script.clone()).or_default().insert((height, position, tx.txid));
                }
                if !is_data && script.len() <= 10_000 {
                    let coin = Coin { script: script.clone(), value: *value, height, position };
                    self.coins.insert((tx.txid, vout as u32), coin);
                }
            }
        }
    }

    /// Height of the newest block.
    pub fn height(&self) -> u32 {
        self.blocks.checked_sub(1).expect("an index has at least the genesis block")
    }

    /// Every script that a block ever paid.
    pub fn scripts(&self) -> impl Iterator<Item = &Vec<u8>> {
        self.scripts.iter()
    }

    /// The txids of a block, in its order.
    pub fn txids(&self, height: u32) -> &[Txid] {
        &self.txids[height as usize]
    }

    /// Height and position of each transaction, in chain order, the genesis block's left out.
    pub fn transactions(&self) -> impl Iterator<Item = (u32, usize, Txid)> {
        let blocks = self.txids.iter().enumerate().skip(1);
        blocks.flat_map(|(height, txids)| {
            txids.iter().enumerate().map(move |(n, txid)| (height as u32, n, *txid))
        })
    }

    /// What `get_history` answers.
    pub fn history(&self, script: &[u8]) -> Value {
        let history = self.histories.get(script);
        let entry =
            |(height, _, txid): &(u32, usize, Txid)| json!({"height": height, "tx_hash": txid.to_string()});
        history.map_or(json!([]), |history| history.iter().map(entry).collect())
    }

    /// What `listunspent` answers: in chain order, then by output number.
    pub fn unspent(&self) -> BTreeMap<Vec<u8>, Value> {
        let mut coins: Vec<_> = self.coins.iter().collect();
        coins.sort_by_key(|((_, vout), coin)| (coin.height, coin.position, *vout));
        let mut lists: BTreeMap<Vec<u8>, Vec<Value>> = BTreeMap::new();
        for ((txid, vout), coin) in coins {
            lists.entry(coin.script.clone()).or_default().push(json!({
                "tx_hash": txid.to_string(), "tx_pos": vout, "height": coin.height, "value": coin.value,
            }));
        }
        lists.into_iter().map(|(script, list)| (script, Value::Array(list))).collect()
    }

    /// What `subscribe` answers: `null`, or the hash of the history (Electrum protocol basics, "Status").
    pub fn status(&self, script: &[u8]) -> Value {
        let Some(history) = self.histories.get(script) else { return Value::Null };
        let text: String = history.iter().map(|(height, _, txid)| format!("{txid}:{height}:")).collect();
        json!(sha256::Hash::hash(text.as_bytes()).to_string())
    }

    /// Sum of all coins in satoshi.
    pub fn total(&self) -> u64 {
        self.coins.values().map(|coin| coin.value).sum()
    }

    /// How many coins there are.
    pub fn coin_count(&self) -> usize {
        self.coins.len()
    }

    /// Each coin: txid, output number, script, satoshi, height.
    pub fn coins(&self) -> impl Iterator<Item = (Txid, u32, &[u8], u64, u32)> {
        self.coins.iter().map(|((txid, vout), c)| (*txid, *vout, &c.script[..], c.value, c.height))
    }
}

/// How Electrum names a script: SHA-256 of it, bytes reversed, in hex.
pub fn script_hash(script: &[u8]) -> String {
    let mut hash = sha256::Hash::hash(script).to_byte_array();
    hash.reverse();
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}
