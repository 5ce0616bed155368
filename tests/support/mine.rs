//! Blocks of a regtest chain of the test's own, with proof of work.

use bitcoin::absolute::LockTime;
use bitcoin::block::{Header, Version};
use bitcoin::hashes::Hash;
use bitcoin::script::Builder;
use bitcoin::{
    Block, CompactTarget, OutPoint, Sequence, Transaction, TxIn, TxMerkleNode, TxOut, Witness, transaction,
};

/// The easiest target that regtest allows.
const BITS: u32 = 0x207f_ffff;

/// Pays the miner; coinbases of one height differ by their serial number.
pub fn coinbase(height: u32, serial: u32, output: Vec<TxOut>) -> Transaction {
    let input = TxIn {
        previous_output: OutPoint::null(),
        // BIP34.
        script_sig: Builder::new().push_int(i64::from(height)).push_int(i64::from(serial)).into_script(),
        sequence: Sequence::MAX,
        witness: Witness::new(),
    };
    Transaction { version: transaction::Version::TWO, lock_time: LockTime::ZERO, input: vec![input], output }
}

/// A block of these transactions, the coinbase first, of `time` in Unix seconds.
pub fn block(parent: &Header, time: u32, txdata: Vec<Transaction>) -> Block {
    let header = Header {
        version: Version::from_consensus(0x2000_0000),
        prev_blockhash: parent.block_hash(),
        merkle_root: TxMerkleNode::all_zeros(),
        time,
        bits: CompactTarget::from_consensus(BITS),
        nonce: 0,
    };
    let mut block = Block { header, txdata };
    block.header.merkle_root = block.compute_merkle_root().expect("a block has a coinbase");
    while !block.header.target().is_met_by(block.block_hash()) {
        block.header.nonce += 1;
    }
    block
}
