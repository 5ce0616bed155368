//! The mempool of a test's chain. Only the pool judges what comes: whether it fits beside the others.

use std::sync::Arc;

use bitcoin::consensus::{deserialize, serialize};
use bitcoin::{Amount, Block, BlockHash, OutPoint, ScriptBuf, Transaction, Txid};
use chainstore::{Height, ScriptHash, ScriptKey, is_unspendable};

use super::Chain;
use crate::mempool::{
    BlockFees, BlockTransaction, Covered, Entry, FeeBoard, Input, Output, Policy, Removal, histogram,
};

impl Chain {
    /// An unconfirmed transaction comes, and what it replaces goes.
    pub(crate) fn receive(&mut self, transaction: &Transaction) -> Txid {
        let entry = self.entry(transaction);
        let plan = self.pool.plan(entry, &Policy::core()).unwrap();
        let changes = self.pool.commit(plan);
        self.changes.merge(changes);
        transaction.compute_txid()
    }

    /// An unconfirmed transaction goes, with all that spends from it.
    pub(crate) fn evict(&mut self, txid: &Txid) {
        assert!(self.pool.get(txid).is_some(), "{txid} is not here");
        let changes = self.pool.remove([txid], Removal::Evicted);
        self.changes.merge(changes);
    }

    /// Connects a block of the test's own that holds these unconfirmed transactions.
    pub(crate) fn forge_of(&mut self, script: ScriptBuf, txids: &[Txid]) -> Txid {
        let raw = txids.iter().map(|txid| self.pool.get(txid).unwrap().raw.clone());
        let transactions: Vec<Transaction> = raw.map(|raw| deserialize(&raw).unwrap()).collect();
        self.forge(script, &transactions)
    }

    /// A transaction of a real block that is still to come.
    pub(crate) fn upcoming(&self, txid: &Txid) -> Transaction {
        let blocks = self.unmined.iter().rev().map(|raw| deserialize::<Block>(raw).unwrap());
        let mut transactions = blocks.flat_map(|block| block.txdata);
        transactions.find(|transaction| transaction.compute_txid() == *txid).unwrap()
    }

    /// Takes the newest block off; its transactions are unconfirmed again, and stand before what spends them.
    pub(crate) fn undo_to_mempool(&mut self) {
        let block = self.take_off();
        for transaction in &block.txdata[1..] {
            let entry = self.entry(transaction);
            let changes = self.pool.insert_from_block(entry).unwrap();
            self.changes.merge(changes);
        }
        let changes = self.pool.settle_reorg();
        self.changes.merge(changes);
        self.remove_spenders(&block.txdata[0]);
    }

    /// Blocks that were full paid so much: satoshi per 1,000 virtual bytes.
    pub(crate) fn blocks_paid(&mut self, rates: &[u64]) {
        for (rate, height) in rates.iter().zip(0..) {
            let transaction = BlockTransaction { fee: rate * 1_000, weight: 4_000_000, parents: Vec::new() };
            let hash = BlockHash::from_raw_hash(bitcoin::hashes::Hash::hash(&[height]));
            let fees = BlockFees::of_transactions(hash, Height(u32::from(height)), &[transaction]);
            let nothing = Covered::default();
            self.estimator.block_connected(Default::default(), fees, nothing, std::iter::empty());
        }
        self.estimator.refresh(Default::default(), std::iter::empty);
    }

    pub(super) fn confirm(&mut self, block: &Block) {
        let spent = |transaction: &Transaction| -> Vec<OutPoint> {
            transaction.input.iter().map(|input| input.previous_output).collect()
        };
        let transactions = block.txdata[1..].iter();
        let transactions = transactions.map(|transaction| (transaction.compute_txid(), spent(transaction)));
        let changes = self.pool.connect_block(Default::default(), transactions);
        self.changes.merge(changes);
    }

    /// What spends from a block that was taken off goes too.
    pub(super) fn forget(&mut self, block: &Block) {
        block.txdata.iter().for_each(|transaction| self.remove_spenders(transaction));
    }

    fn remove_spenders(&mut self, transaction: &Transaction) {
        let (txid, outputs) = (transaction.compute_txid(), transaction.output.len() as u32);
        let changes = self.pool.remove_spenders(txid, outputs, Removal::Reorg);
        self.changes.merge(changes);
    }

    pub(super) fn board(&self) -> FeeBoard {
        let policy = Policy::core();
        let mut board = FeeBoard::new(policy.min_relay, policy.min_relay, policy.incremental);
        board.note(&self.estimator);
        board.histogram = histogram(self.pool.chunks().map(|chunk| (chunk.fee, chunk.vsize())));
        board
    }

    fn entry(&mut self, transaction: &Transaction) -> Arc<Entry> {
        let inputs = transaction.input.iter().map(|input| self.input(input.previous_output));
        let inputs: Box<[Input]> = inputs.collect();
        let paid_in: Amount = inputs.iter().map(|input| input.value).sum();
        let paid_out: Amount = transaction.output.iter().map(|output| output.value).sum();
        let outputs = transaction.output.iter().map(|output| Output {
            value: output.value,
            script: ScriptHash::of(&output.script_pubkey).key(),
            is_unspendable: is_unspendable(&output.script_pubkey),
        });
        Arc::new(Entry {
            txid: transaction.compute_txid(),
            wtxid: transaction.compute_wtxid(),
            raw: serialize(transaction).into(),
            inputs,
            outputs: outputs.collect(),
            fee: paid_in - paid_out,
            weight: transaction.weight().to_wu(),
            vsize: transaction.vsize() as u64,
            sigops_cost: 0,
            dust: None,
            is_truc: false,
            spends_coinbase: false,
            at: Default::default(),
            unix: 0,
            height: Height(self.blocks.len() as u32 - 1),
        })
    }

    fn input(&mut self, outpoint: OutPoint) -> Input {
        let waiting = self.pool.get(&outpoint.txid).map(|entry| entry.outputs[outpoint.vout as usize]);
        let (value, script): (Amount, ScriptKey) = match waiting {
            Some(output) => (output.value, output.script),
            None => {
                let coin = self.store.coins(&[outpoint]).unwrap()[0].expect("a coin");
                (coin.value, coin.script_key)
            }
        };
        Input { outpoint, value, script }
    }
}
