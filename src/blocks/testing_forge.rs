//! Real regtest blocks, good and bad, for the tests of this folder and of `import`.

use std::collections::BTreeMap;

use bitcoin::absolute::LockTime;
use bitcoin::block::{Header, Version};
use bitcoin::consensus::serialize;
use bitcoin::script::Builder;
use bitcoin::{
    Amount, Block, BlockHash, Network, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxMerkleNode, TxOut,
    Witness, transaction,
};
use bytes::Bytes;
use chainstore::{Height, Tip};

use crate::validate::Params;

/// What is wrong with a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    /// Its coinbase begins with another height: rung 4 finds it.
    Height,
    /// The writer finds it: rung 5.
    Spend,
}

#[derive(Clone, Debug)]
struct Mined {
    header: Header,
    raw: Bytes,
    height: Height,
    fault: Fault,
}

/// All blocks that anyone mined.
#[derive(Debug)]
pub(crate) struct Forge {
    pub params: Params,
    blocks: BTreeMap<BlockHash, Mined>,
    serial: i64,
}

impl Forge {
    pub fn new() -> Self {
        let params = Params::of(Network::Regtest);
        let header = params.genesis.header;
        let raw = serialize(&params.genesis).into();
        let genesis = Mined { header, raw, height: Height::GENESIS, fault: Fault::None };
        Self { blocks: BTreeMap::from([(header.block_hash(), genesis)]), params, serial: 0 }
    }

    pub fn genesis(&self) -> BlockHash {
        self.params.genesis_hash()
    }

    /// `count` small blocks in a row on top of `parent`.
    pub fn mine(&mut self, parent: BlockHash, count: usize) -> Vec<BlockHash> {
        let mut tip = parent;
        std::iter::repeat_with(|| {
            tip = self.mine_one(tip, 0, Fault::None);
            tip
        })
        .take(count)
        .collect()
    }

    /// One block with an output of `padding` bytes.
    pub fn mine_one(&mut self, parent: BlockHash, padding: usize, fault: Fault) -> BlockHash {
        self.serial += 1;
        let below = &self.blocks[&parent];
        let height = below.height.next();
        let claimed = height.0 + if fault == Fault::Height { 1 } else { 0 };
        let script_sig =
            Builder::new().push_int(i64::from(claimed)).push_int(1_000_000 + self.serial).into_script();
        let coinbase = Transaction {
            version: transaction::Version::ONE,
            lock_time: LockTime::ZERO,
            input: vec![TxIn {
                previous_output: OutPoint::null(),
                script_sig,
                sequence: Sequence::MAX,
                witness: Witness::new(),
            }],
            output: vec![TxOut { value: Amount::ZERO, script_pubkey: ScriptBuf::from(vec![0x51; padding]) }],
        };
        let mut header = Header {
            version: Version::from_consensus(0x2000_0000),
            prev_blockhash: parent,
            merkle_root: TxMerkleNode::from_raw_hash(coinbase.compute_txid().to_raw_hash()),
            time: below.header.time + 600,
            bits: below.header.bits,
            nonce: 0,
        };
        while !header.target().is_met_by(header.block_hash()) {
            header.nonce += 1;
        }
        let raw = serialize(&Block { header, txdata: vec![coinbase] }).into();
        self.blocks.insert(header.block_hash(), Mined { header, raw, height, fault });
        header.block_hash()
    }

    pub fn raw(&self, hash: BlockHash) -> Bytes {
        self.blocks[&hash].raw.clone()
    }

    /// The same header over other transactions.
    pub fn mutated(&self, hash: BlockHash) -> Bytes {
        let mut raw = self.raw(hash).to_vec();
        // The last byte of the lock time of the last transaction.
        *raw.last_mut().unwrap() ^= 1;
        raw.into()
    }

    pub fn header(&self, hash: BlockHash) -> Header {
        self.blocks[&hash].header
    }

    pub fn fault(&self, hash: BlockHash) -> Fault {
        self.blocks[&hash].fault
    }

    /// Bytes of the largest block so far.
    pub fn largest(&self) -> usize {
        self.blocks.values().map(|block| block.raw.len()).max().unwrap_or(0)
    }

    pub fn height(&self, hash: BlockHash) -> Height {
        self.blocks[&hash].height
    }

    pub fn parent(&self, hash: BlockHash) -> BlockHash {
        self.blocks[&hash].header.prev_blockhash
    }

    pub fn tip(&self, hash: BlockHash) -> Tip {
        Tip { height: self.height(hash), hash }
    }

    /// Whether the block and all below it are good.
    pub fn is_valid(&self, hash: BlockHash) -> bool {
        self.chain(hash).iter().all(|hash| self.blocks[hash].fault == Fault::None)
    }

    /// The chain up to `tip`, lowest first, without genesis.
    pub fn chain(&self, tip: BlockHash) -> Vec<BlockHash> {
        let mut chain = Vec::new();
        let mut at = tip;
        while at != self.genesis() {
            chain.push(at);
            at = self.parent(at);
        }
        chain.reverse();
        chain
    }
}
