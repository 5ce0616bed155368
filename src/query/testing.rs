//! A chain to ask questions of: real mainnet blocks from genesis, then blocks of the test's own, and the mempool on it.
//!
//! Nothing is validated: the store is given what a checked chain would give it, and `waiting` the pool.

mod waiting;

use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;

use bitcoin::absolute::LockTime;
use bitcoin::block::{Header, Version};
use bitcoin::consensus::{deserialize, serialize};
use bitcoin::{
    Amount, Block, Network, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Txid, Witness,
    transaction,
};
use chainstore::{Coin, Height, NewBlock, Options, Outline, ScriptClass, ScriptKey, Snapshot, Store, TxNum};

use super::{SyncState, Touched, View};
use crate::mempool::{Changes, FeeEstimator, Policy, Pool};

/// A store in a folder of its own, and the views of it.
#[derive(Debug)]
pub(crate) struct Chain {
    store: Store,
    /// Real blocks above those connected, the next one last.
    unmined: Vec<Vec<u8>>,
    /// Makes blocks of equal height differ.
    forged: u64,
    /// From genesis on.
    blocks: Vec<Block>,
    pool: Pool,
    /// What changed there since the last commit.
    changes: Changes,
    estimator: FeeEstimator,
    _folder: tempfile::TempDir,
}

impl Chain {
    /// The real mainnet up to a height; [`mine`](Self::mine) goes on with the real blocks above.
    pub(crate) fn mainnet(tip: u32) -> Self {
        let folder = tempfile::tempdir().unwrap();
        // Wallets are served from the first block on.
        let options = Options { bulk_blocks: u32::MAX / 2, ..Options::new(Network::Bitcoin) };
        let store = Store::open(folder.path(), options).unwrap();
        let mut unmined = real_blocks(300);
        unmined.reverse();
        let mut chain = Self {
            store,
            unmined,
            forged: 0,
            blocks: Vec::new(),
            pool: Pool::new(&Policy::core()),
            changes: Changes::default(),
            estimator: FeeEstimator::new(Default::default()),
            _folder: folder,
        };
        for _ in 0..=tip {
            chain.mine();
        }
        chain
    }

    /// Connects the next real block.
    pub(crate) fn mine(&mut self) {
        let raw = self.unmined.pop().unwrap();
        let block: Block = deserialize(&raw).unwrap();
        assert_eq!(
            self.store.tip().map_or(block.header.prev_blockhash, |tip| tip.hash),
            block.header.prev_blockhash
        );
        self.connect(&block);
    }

    /// Connects a block of the test's own, which pays its subsidy to `script`.
    pub(crate) fn forge(&mut self, script: ScriptBuf, transactions: &[Transaction]) -> Txid {
        self.forged += 1;
        let mut tag = b"forged".to_vec();
        tag.extend(self.forged.to_le_bytes());
        let coinbase = transaction(
            &[(OutPoint::null(), ScriptBuf::from_bytes(tag))],
            &[(Amount::from_int_btc(50), script)],
        );
        self.forge_with(coinbase, transactions)
    }

    /// The same with a given coinbase, such as one that was there before.
    pub(crate) fn forge_with(&mut self, coinbase: Transaction, transactions: &[Transaction]) -> Txid {
        let tip = self.store.tip().unwrap();
        let txid = coinbase.compute_txid();
        let txdata: Vec<_> = std::iter::once(coinbase).chain(transactions.iter().cloned()).collect();
        let leaves = txdata.iter().map(|transaction| transaction.compute_txid().to_raw_hash());
        let header = Header {
            version: Version::ONE,
            prev_blockhash: tip.hash,
            merkle_root: bitcoin::TxMerkleNode::from_raw_hash(
                bitcoin::merkle_tree::calculate_root(leaves).unwrap(),
            ),
            time: 1_300_000_000 + tip.height.0,
            bits: bitcoin::CompactTarget::from_consensus(0x207f_ffff),
            nonce: self.forged as u32,
        };
        self.connect(&Block { header, txdata });
        txid
    }

    /// Takes the newest block off. Its transactions are gone, and what spends from them.
    pub(crate) fn undo(&mut self) {
        let block = self.take_off();
        self.forget(&block);
    }

    fn take_off(&mut self) -> Block {
        self.store.disconnect().unwrap();
        self.blocks.pop().unwrap()
    }

    /// Makes the headers of the next real blocks known, without their blocks.
    pub(crate) fn learn_headers(&mut self, count: u32) {
        let first = self.store.tip().map_or(0, |tip| tip.height.0 + 1);
        let headers: Vec<_> = (first..)
            .zip(self.unmined.iter().rev())
            .map(|(height, raw)| (Height(height), deserialize(&raw[..80]).unwrap()))
            .take(count as usize)
            .collect();
        self.store.put_headers(&headers).unwrap();
    }

    /// What all that was done adds up to: the view of a synced node, and what changed.
    pub(crate) fn commit(&mut self) -> (Arc<View>, Touched) {
        self.commit_as(SyncState::Synced)
    }

    /// The chain alone.
    pub(crate) fn snapshot(&mut self) -> Arc<Snapshot> {
        self.commit().0.snapshot.clone()
    }

    pub(crate) fn commit_as(&mut self, sync: SyncState) -> (Arc<View>, Touched) {
        let commit = self.store.commit().unwrap();
        let view = View::new(commit.snapshot.clone(), sync).unwrap();
        let mut touched = Touched::from(commit);
        touched.merge(&Touched::from(&std::mem::take(&mut self.changes)));
        let (mempool, fees) = (self.pool.view(Default::default()), self.board());
        (Arc::new(view.with_mempool(mempool, Arc::new(fees))), touched)
    }

    fn connect(&mut self, block: &Block) {
        let spent: Vec<OutPoint> =
            block.txdata[1..].iter().flat_map(|tx| &tx.input).map(|input| input.previous_output).collect();
        // Outputs of the block itself are not found, and not looked at.
        let unknown = Coin {
            value: Amount::ZERO,
            tx_num: TxNum(0),
            height: Height::GENESIS,
            is_coinbase: false,
            class: ScriptClass::Other,
            script_key: ScriptKey([0; ScriptKey::LEN]),
        };
        let coins = self.store.coins(&spent).unwrap();
        let coins: Vec<Coin> = coins.into_iter().map(|coin| coin.unwrap_or(unknown)).collect();
        let (raw, hash, outline) = (serialize(block), block.block_hash(), Outline::of(block));
        let new = NewBlock { raw: &raw, header: &block.header, hash, outline: &outline, spent: &coins };
        self.store.connect(&new).unwrap();
        self.confirm(block);
        self.blocks.push(block.clone());
    }
}

/// A transaction of these inputs (with their script signatures) and outputs.
pub(crate) fn transaction(inputs: &[(OutPoint, ScriptBuf)], outputs: &[(Amount, ScriptBuf)]) -> Transaction {
    let input = |(previous_output, script_sig): &(OutPoint, ScriptBuf)| TxIn {
        previous_output: *previous_output,
        script_sig: script_sig.clone(),
        sequence: Sequence::MAX,
        witness: Witness::new(),
    };
    let output = |(value, script_pubkey): &(Amount, ScriptBuf)| TxOut {
        value: *value,
        script_pubkey: script_pubkey.clone(),
    };
    Transaction {
        version: transaction::Version::ONE,
        lock_time: LockTime::ZERO,
        input: inputs.iter().map(input).collect(),
        output: outputs.iter().map(output).collect(),
    }
}

/// Mainnet from genesis on, up to `count` blocks.
fn real_blocks(count: usize) -> Vec<Vec<u8>> {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/blocks/mainnet/blocks-000000-004521.blk.zst");
    let packed = std::fs::read(path).unwrap();
    let mut run = ruzstd::decoding::StreamingDecoder::new(&packed[..]).unwrap();
    let mut blocks = Vec::new();
    while blocks.len() < count {
        let mut head = [0; 8];
        run.read_exact(&mut head).unwrap();
        let mut block = vec![0; u32::from_le_bytes([head[4], head[5], head[6], head[7]]) as usize];
        run.read_exact(&mut block).unwrap();
        blocks.push(block);
    }
    blocks
}
