//! Real regtest blocks, good and bad, for the tests of this folder and of `import`.

use std::collections::BTreeMap;

use bitcoin::absolute::LockTime;
use bitcoin::bip152::ShortId;
use bitcoin::block::{Header, Version};
use bitcoin::consensus::{deserialize, serialize};
use bitcoin::hashes::Hash;
use bitcoin::script::Builder;
use bitcoin::{
    Amount, Block, BlockHash, Network, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxMerkleNode, TxOut,
    Txid, Witness, Wtxid, transaction,
};
use bytes::Bytes;
use chainstore::{Height, Tip};

use crate::peer::CompactBlock;
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
        self.mine_block(parent, padding, fault, 0)
    }

    /// One block with so many transactions that spend what nobody knows: rung 5 is not asked here.
    pub fn mine_with(&mut self, parent: BlockHash, transactions: usize, fault: Fault) -> BlockHash {
        self.mine_block(parent, 0, fault, transactions)
    }

    fn mine_block(
        &mut self,
        parent: BlockHash,
        padding: usize,
        fault: Fault,
        transactions: usize,
    ) -> BlockHash {
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
        let header = Header {
            version: Version::from_consensus(0x2000_0000),
            prev_blockhash: parent,
            merkle_root: TxMerkleNode::all_zeros(),
            time: below.header.time + 600,
            bits: below.header.bits,
            nonce: 0,
        };
        let spends = (0..transactions as u32).map(|number| Transaction {
            version: transaction::Version::TWO,
            lock_time: LockTime::ZERO,
            input: vec![TxIn {
                previous_output: OutPoint::new(Txid::hash(&self.serial.to_le_bytes()), number),
                ..TxIn::default()
            }],
            output: vec![TxOut { value: Amount::ONE_SAT, script_pubkey: ScriptBuf::from(vec![0x51; 40]) }],
        });
        let mut block = Block { header, txdata: std::iter::once(coinbase).chain(spends).collect() };
        block.header.merkle_root = block.compute_merkle_root().unwrap();
        while !block.header.target().is_met_by(block.block_hash()) {
            block.header.nonce += 1;
        }
        let (header, raw) = (block.header, serialize(&block).into());
        self.blocks.insert(header.block_hash(), Mined { header, raw, height, fault });
        header.block_hash()
    }

    pub fn raw(&self, hash: BlockHash) -> Bytes {
        self.blocks[&hash].raw.clone()
    }

    /// The transactions of a block, serialized, with their ids.
    pub fn transactions(&self, hash: BlockHash) -> Vec<(Wtxid, Bytes)> {
        let block: Block = deserialize(&self.raw(hash)).unwrap();
        block.txdata.iter().map(|tx| (tx.compute_wtxid(), serialize(tx).into())).collect()
    }

    /// As BIP152 writes it, by another library's short ids; the transactions at these positions come with it.
    pub fn compact(&self, hash: BlockHash, prefilled: &[usize]) -> CompactBlock {
        let (header, nonce) = (self.header(hash), 7);
        let keys = ShortId::calculate_siphash_keys(&header, nonce);
        let mut compact = CompactBlock { header, nonce, short_ids: vec![], prefilled: vec![] };
        for (position, (wtxid, raw)) in self.transactions(hash).into_iter().enumerate() {
            if prefilled.contains(&position) {
                compact.prefilled.push((position as u16, raw));
            } else {
                let mut id = [0; 8];
                id[..6].copy_from_slice(ShortId::with_siphash_keys(&wtxid, keys).as_ref());
                compact.short_ids.push(u64::from_le_bytes(id));
            }
        }
        compact
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
