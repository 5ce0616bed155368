//! Small blocks made in code, for the tests of the rules.
//!
//! A block is built, [`seal`]ed as a miner would, and perhaps tampered with afterwards. Proof of work is no
//! concern of rungs 3 to 5, so there is none.

use bitcoin::absolute::LockTime;
use bitcoin::block::{Header, Version};
use bitcoin::consensus::encode::serialize;
use bitcoin::hashes::{Hash, sha256d};
use bitcoin::script::Builder;
use bitcoin::{
    Amount, Block, BlockHash, CompactTarget, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxMerkleNode,
    TxOut, Txid, Witness, transaction,
};
use chainstore::Height;

use super::block::{BlockContext, CheckedBlock, check_block};
use super::error::BlockError;
use super::merkle;
use super::params::Params;
use super::transaction::is_coinbase;

/// Where the blocks stand, unless a test says otherwise. Regtest halves at 150.
pub(super) const HEIGHT: Height = Height(200);
pub(super) const SUBSIDY: u64 = 25 * 100_000_000;
/// What each spend of [`spend`] pays out.
pub(super) const PAID: u64 = 1_000;
pub(super) const PARENT_MTP: u32 = 1_600_000_000;
/// Ten minutes after the median.
pub(super) const TIME: u32 = PARENT_MTP + 600;

/// A coinbase, a spend without a witness and one with; not yet sealed.
pub(super) fn block() -> Block {
    let mut with_witness = spend(2);
    with_witness.input[0].witness = Witness::from_slice(&[[7; 70]]);
    let header = Header {
        version: Version::from_consensus(0x2000_0000),
        prev_blockhash: BlockHash::all_zeros(),
        merkle_root: TxMerkleNode::all_zeros(),
        time: TIME,
        bits: CompactTarget::from_consensus(0x207f_ffff),
        nonce: 0,
    };
    Block { header, txdata: vec![coinbase(HEIGHT), spend(1), with_witness] }
}

pub(super) fn coinbase(height: Height) -> Transaction {
    let script_sig = Builder::new().push_int(i64::from(height.0)).push_int(0).into_script();
    let witness = Witness::from_slice(&[[0; 32]]);
    let input = TxIn { previous_output: OutPoint::null(), script_sig, sequence: Sequence::MAX, witness };
    transaction(
        vec![input],
        vec![output(SUBSIDY), TxOut { value: Amount::ZERO, script_pubkey: commitment([0; 32]) }],
    )
}

/// Spends the first output of the transaction `of`, which nobody made.
pub(super) fn spend(of: u8) -> Transaction {
    transaction(vec![input(outpoint(of))], vec![output(PAID)])
}

pub(super) fn transaction(input: Vec<TxIn>, output: Vec<TxOut>) -> Transaction {
    Transaction { version: transaction::Version::TWO, lock_time: LockTime::ZERO, input, output }
}

pub(super) fn outpoint(of: u8) -> OutPoint {
    OutPoint { txid: Txid::hash(&[of]), vout: 0 }
}

pub(super) fn input(previous_output: OutPoint) -> TxIn {
    TxIn { previous_output, sequence: Sequence::MAX, ..TxIn::default() }
}

/// Anyone may spend it.
pub(super) fn output(sat: u64) -> TxOut {
    paying(sat, vec![0x51])
}

pub(super) fn paying(sat: u64, script: Vec<u8>) -> TxOut {
    TxOut { value: Amount::from_sat(sat), script_pubkey: ScriptBuf::from_bytes(script) }
}

fn commitment(hash: [u8; 32]) -> ScriptBuf {
    [&[0x6a, 0x24, 0xaa, 0x21, 0xa9, 0xed][..], &hash].concat().into()
}

fn is_commitment(output: &TxOut) -> bool {
    output.script_pubkey.as_bytes().starts_with(&[0x6a, 0x24, 0xaa, 0x21, 0xa9, 0xed])
}

/// Commits to the witnesses, where the coinbase has room for that, and to the transactions.
pub(super) fn seal(block: &mut Block) {
    let wtxids = block.txdata.iter().skip(1).map(|tx| match tx.input.is_empty() {
        // The library would put a witness flag into it.
        true => tx.compute_txid().to_raw_hash(),
        false => tx.compute_wtxid().to_raw_hash(),
    });
    let (root, _) = merkle::root(std::iter::once(sha256d::Hash::all_zeros()).chain(wtxids).collect());
    let hash = sha256d::Hash::hash(&[root.to_byte_array(), [0; 32]].concat());
    if let Some(coinbase) = block.txdata.first_mut().filter(|tx| is_coinbase(&**tx))
        && let Some(output) = coinbase.output.iter_mut().rfind(|output| is_commitment(output))
    {
        output.script_pubkey = commitment(hash.to_byte_array());
    }
    set_merkle_root(block);
}

pub(super) fn set_merkle_root(block: &mut Block) {
    let txids = block.txdata.iter().map(|tx| tx.compute_txid().to_raw_hash());
    block.header.merkle_root = TxMerkleNode::from_raw_hash(merkle::root(txids.collect()).0);
}

/// Checks the block as it stands, [`HEIGHT`] high unless `params` and `height` say otherwise.
pub(super) fn check(block: &Block, height: Height, params: &Params) -> Result<CheckedBlock, BlockError> {
    check_block(serialize(block).into(), &BlockContext { height, parent_mtp: PARENT_MTP }, params)
}
