//! The world outside the node: all blocks that anyone mined, and what a naive reader makes of them.
//!
//! Knows which blocks are valid because it made them so; keeps everything in maps and recomputes whole chains
//! from genesis, so that it shares no idea with the code under test.

use std::collections::{BTreeMap, BTreeSet};

use bitcoin::absolute::LockTime;
use bitcoin::block::{Header, Version};
use bitcoin::hashes::Hash;
use bitcoin::script::Builder;
use bitcoin::{
    Amount, Block, BlockHash, CompactTarget, Network, OutPoint, ScriptBuf, Sequence, Transaction, TxIn,
    TxMerkleNode, TxOut, Txid, Witness, opcodes, transaction,
};

/// How many different scripts are paid.
pub const SCRIPTS: u32 = 12;
/// Where the world's clock starts, in Unix seconds.
pub const START: u64 = 1_700_000_000;

#[derive(Clone, Debug)]
pub struct Mined {
    pub block: Block,
    pub height: u32,
    /// Whether the block and all below it keep the rules.
    pub valid: bool,
}

#[derive(Debug)]
pub struct World {
    pub genesis: BlockHash,
    pub blocks: BTreeMap<BlockHash, Mined>,
    serial: u32,
}

/// What the naive reader says of one script on one chain.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// Transactions in chain order, with heights.
    pub history: Vec<(u32, Txid)>,
    /// Outpoints with values and heights, in chain order.
    pub unspent: Vec<(u32, OutPoint, u64)>,
}

/// Pays to anyone, in `SCRIPTS` different ways.
pub fn script(number: u32) -> ScriptBuf {
    Builder::new()
        .push_int(i64::from(number % SCRIPTS) + 100)
        .push_opcode(opcodes::all::OP_DROP)
        .push_opcode(opcodes::OP_TRUE)
        .into_script()
}

impl World {
    pub fn new() -> Self {
        let block = bitcoin::constants::genesis_block(Network::Regtest);
        let genesis = block.block_hash();
        let blocks = BTreeMap::from([(genesis, Mined { block, height: 0, valid: true })]);
        Self { genesis, blocks, serial: 0 }
    }

    /// Mines on `parent`. `greedy`: the coinbase takes a satoshi too much.
    pub fn mine(&mut self, parent: BlockHash, rng: &mut fastrand::Rng, greedy: bool) -> BlockHash {
        self.serial += 1;
        let below = &self.blocks[&parent];
        let height = below.height + 1;
        let (below_time, below_valid) = (below.block.header.time, below.valid);
        let spends = self.spends(parent, height, rng);
        let subsidy = (50 * 100_000_000u64) >> (height / 150);
        let coinbase = Transaction {
            version: transaction::Version::ONE,
            lock_time: LockTime::ZERO,
            input: vec![TxIn {
                previous_output: OutPoint::null(),
                script_sig: Builder::new()
                    .push_int(i64::from(height))
                    .push_int(i64::from(self.serial) + 1_000_000)
                    .into_script(),
                sequence: Sequence::MAX,
                witness: Witness::new(),
            }],
            output: vec![TxOut {
                value: Amount::from_sat(subsidy + u64::from(greedy)),
                script_pubkey: script(rng.u32(..)),
            }],
        };
        let mut txdata = vec![coinbase];
        txdata.extend(spends);
        let mut block = Block {
            header: Header {
                version: Version::from_consensus(4),
                prev_blockhash: parent,
                merkle_root: TxMerkleNode::all_zeros(),
                time: (below_time + rng.u32(1..5)).max(START as u32 - 100_000),
                bits: CompactTarget::from_consensus(0x207f_ffff),
                nonce: 0,
            },
            txdata,
        };
        block.header.merkle_root = block.compute_merkle_root().expect("there is a coinbase");
        while !block.header.target().is_met_by(block.block_hash()) {
            block.header.nonce += 1;
        }
        let hash = block.block_hash();
        self.blocks.insert(hash, Mined { block, height, valid: below_valid && !greedy });
        hash
    }

    /// A few spends of mature coinbases and of each other, without fees.
    fn spends(&self, parent: BlockHash, height: u32, rng: &mut fastrand::Rng) -> Vec<Transaction> {
        if height < 105 || rng.u8(..4) == 0 {
            return vec![];
        }
        let coins = self.coins(parent);
        let mature: Vec<_> = coins
            .iter()
            .filter(|(_, coin)| !coin.coinbase || height - coin.height >= 100)
            .map(|(outpoint, coin)| (*outpoint, coin.value))
            .collect();
        let mut used = BTreeSet::new();
        let mut made = Vec::new();
        for _ in 0..rng.usize(..3) {
            let Some(&(outpoint, value)) = rng.choice(&mature) else { break };
            if !used.insert(outpoint) {
                continue;
            }
            let parts = if value > 4 { rng.u64(1..4) } else { 1 };
            let tx = spend(
                outpoint,
                (0..parts).map(|part| value / parts + if part == 0 { value % parts } else { 0 }),
                rng,
            );
            // Now and then somebody spends it in the same block.
            if rng.bool() {
                let next = OutPoint { txid: tx.compute_txid(), vout: 0 };
                let child = spend(next, std::iter::once(tx.output[0].value.to_sat()), rng);
                made.push(tx);
                made.push(child);
            } else {
                made.push(tx);
            }
        }
        made
    }

    /// Hashes from the block above genesis up to `tip`.
    pub fn chain(&self, tip: BlockHash) -> Vec<BlockHash> {
        let mut chain = Vec::new();
        let mut at = tip;
        while at != self.genesis {
            chain.push(at);
            at = self.blocks[&at].block.header.prev_blockhash;
        }
        chain.reverse();
        chain
    }

    fn coins(&self, tip: BlockHash) -> BTreeMap<OutPoint, NaiveCoin> {
        let mut coins = BTreeMap::new();
        for (height, hash) in (1..).zip(self.chain(tip)) {
            for (position, tx) in self.blocks[&hash].block.txdata.iter().enumerate() {
                for input in &tx.input {
                    coins.remove(&input.previous_output);
                }
                let txid = tx.compute_txid();
                for (vout, output) in (0..).zip(&tx.output) {
                    let coin = NaiveCoin {
                        height,
                        coinbase: position == 0,
                        value: output.value.to_sat(),
                        order: (height, position, vout),
                        script: output.script_pubkey.clone(),
                    };
                    coins.insert(OutPoint { txid, vout }, coin);
                }
            }
        }
        coins
    }

    /// What the chain that ends at `tip` says of every script.
    pub fn accounts(&self, tip: BlockHash) -> BTreeMap<ScriptBuf, Account> {
        let mut accounts: BTreeMap<ScriptBuf, Account> = BTreeMap::new();
        let mut owner: BTreeMap<OutPoint, ScriptBuf> = BTreeMap::new();
        for (height, hash) in (1..).zip(self.chain(tip)) {
            for tx in &self.blocks[&hash].block.txdata {
                let txid = tx.compute_txid();
                let mut touched = BTreeSet::new();
                touched
                    .extend(tx.input.iter().filter_map(|input| owner.get(&input.previous_output).cloned()));
                for (vout, output) in (0..).zip(&tx.output) {
                    owner.insert(OutPoint { txid, vout }, output.script_pubkey.clone());
                    touched.insert(output.script_pubkey.clone());
                }
                for script in touched {
                    accounts.entry(script).or_default().history.push((height, txid));
                }
            }
        }
        let mut coins: Vec<_> = self.coins(tip).into_iter().collect();
        coins.sort_by_key(|(_, coin)| coin.order);
        for (outpoint, coin) in coins {
            accounts.entry(coin.script).or_default().unspent.push((coin.height, outpoint, coin.value));
        }
        accounts
    }
}

#[derive(Clone, Debug)]
struct NaiveCoin {
    height: u32,
    coinbase: bool,
    value: u64,
    order: (u32, usize, u32),
    script: ScriptBuf,
}

fn spend(
    previous_output: OutPoint,
    values: impl Iterator<Item = u64>,
    rng: &mut fastrand::Rng,
) -> Transaction {
    Transaction {
        version: transaction::Version::TWO,
        lock_time: LockTime::ZERO,
        input: vec![TxIn {
            previous_output,
            script_sig: ScriptBuf::new(),
            sequence: Sequence::MAX,
            witness: Witness::new(),
        }],
        output: values
            .map(|value| TxOut { value: Amount::from_sat(value), script_pubkey: script(rng.u32(..)) })
            .collect(),
    }
}
