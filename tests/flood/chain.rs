//! A regtest chain of the test's own, and payments with real signatures from its coins.
//!
//! One coinbase is cut into many transactions of a hundred outputs each, as a payment service would make them: what a
//! coin costs to read depends on the size of the transaction that made it.

use std::time::{SystemTime, UNIX_EPOCH};

use bitcoin::consensus::serialize;
use bitcoin::hashes::{Hash, hash160};
use bitcoin::script::PushBytesBuf;
use bitcoin::{Block, OutPoint, ScriptBuf, Transaction, TxIn, TxOut, WPubkeyHash, Witness};

use super::support::mine;
use super::support::purse::{Purse, output, replaceable, transaction};

/// Coins that one transaction makes.
const COINS_EACH: usize = 100;
/// Transactions of a block of them: some three quarters of what it may weigh.
const A_BLOCK: usize = 240;
/// Height of the first block that spends: coinbases ripen for so long.
const RIPE: usize = 101;
/// Satoshi of each coin.
const COIN: u64 = 18_000;
/// Satoshi that a payment of [`pay`] leaves to the miner: some 10 for each virtual byte.
const FEE: u64 = 2_090;
/// Longest that the chain pretends to have taken.
const AGE: u64 = 3_600;

/// Blocks from genesis on.
pub struct Chain {
    blocks: Vec<Block>,
}

impl Chain {
    /// A chain that pays the purse at least so many coins.
    pub fn with_coins(count: usize, purse: &Purse) -> (Self, Vec<OutPoint>) {
        let genesis = bitcoin::constants::genesis_block(bitcoin::Network::Regtest);
        let mut chain = Self { blocks: vec![genesis] };
        let first = chain.mine(&[]).txdata[0].compute_txid();
        while chain.blocks.len() < RIPE {
            chain.mine(&[]);
        }
        let parts = count.div_ceil(COINS_EACH);
        let part = COIN * (COINS_EACH as u64 + 1);
        let anyone = ScriptBuf::from_bytes(vec![0x51]);
        let split = spend(OutPoint::new(first, 0), vec![output(part, anyone); parts]);
        let split_id = split.compute_txid();
        chain.mine(&[split]);
        let coins = vec![output(COIN, purse.script().clone()); COINS_EACH];
        let paying = |vout: usize| spend(OutPoint::new(split_id, vout as u32), coins.clone());
        let paying: Vec<Transaction> = (0..parts).map(paying).collect();
        for block in paying.chunks(A_BLOCK) {
            chain.mine(block);
        }
        let outpoints = |tx: &Transaction| {
            let txid = tx.compute_txid();
            (0..COINS_EACH).map(move |vout| OutPoint::new(txid, vout as u32))
        };
        (chain, paying.iter().flat_map(outpoints).take(count).collect())
    }

    /// One more block with these, and its commitment to their witnesses.
    pub fn mine(&mut self, transactions: &[Transaction]) -> &Block {
        let height = self.blocks.len();
        let reward = output(5_000_000_000, ScriptBuf::from_bytes(vec![0x51]));
        let mut coinbase = mine::coinbase(height as u32, 0, vec![reward]);
        coinbase.input[0].witness = Witness::from_slice(&[[0; 32]]);
        let mut txdata = vec![coinbase];
        txdata.extend_from_slice(transactions);
        let parent = self.blocks[height - 1].header;
        let time = (unix_now() - AGE) as u32 + height as u32;
        let mut block = Block { header: parent, txdata };
        let root = block.witness_root().expect("a block has a coinbase");
        let commitment = Block::compute_witness_commitment(&root, &[0; 32]);
        let mut data = vec![0xaa, 0x21, 0xa9, 0xed];
        data.extend(commitment.to_byte_array());
        let data = PushBytesBuf::try_from(data).expect("short enough");
        block.txdata[0].output.push(output(0, ScriptBuf::new_op_return(data)));
        let block = mine::block(&parent, time, block.txdata);
        self.blocks.push(block);
        &self.blocks[height]
    }

    pub fn tip(&self) -> String {
        self.blocks[self.blocks.len() - 1].block_hash().to_string()
    }

    /// All blocks as they go over the wire.
    pub fn raw(&self) -> Vec<Vec<u8>> {
        self.blocks.iter().map(serialize).collect()
    }
}

/// A payment of two coins to two scripts that nobody else is paid to: those of `number`.
pub fn pay(purse: &Purse, coins: [OutPoint; 2], number: u64) -> Transaction {
    let mut tx = unsigned(&coins, number, FEE);
    purse.sign(&mut tx, &[COIN; 2]);
    tx
}

/// The same without a signature, and with another fee.
pub fn unsigned(coins: &[OutPoint], number: u64, fee: u64) -> Transaction {
    let half = (COIN * coins.len() as u64 - fee) / 2;
    let rest = COIN * coins.len() as u64 - fee - half;
    let outputs = vec![output(half, payee(number, 0)), output(rest, payee(number, 1))];
    transaction(coins.iter().map(|coin| replaceable(*coin)).collect(), outputs)
}

/// To whom the payment of that number goes.
pub fn payee(number: u64, vout: u8) -> ScriptBuf {
    let mut seed = number.to_le_bytes().to_vec();
    seed.push(vout);
    ScriptBuf::new_p2wpkh(&WPubkeyHash::from_raw_hash(hash160::Hash::hash(&seed)))
}

fn spend(previous_output: OutPoint, outputs: Vec<TxOut>) -> Transaction {
    transaction(vec![TxIn { previous_output, ..TxIn::default() }], outputs)
}

fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
