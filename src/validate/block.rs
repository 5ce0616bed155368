//! Rungs 3 and 4 of the validation ladder: what a block must satisfy by itself and at its height.
//!
//! What a tampering sender could cause (merkle root, repeated tail, witnesses) is checked before anything that
//! could mark the header invalid. Coins are rung 5, in `connect`.
//! Source: Bitcoin Core `validation.cpp` (`IsBlockMutated`, `CheckBlock`, `ContextualCheckBlock`,
//! `CheckWitnessMalleation`); BIP34, BIP113, BIP141.

use std::fmt;

use bitcoin::block::Header;
use bitcoin::consensus::deserialize;
use bitcoin::hashes::{Hash, HashEngine, sha256d};
use bitcoin::script::Builder;
use bitcoin::{Block, BlockHash, OutPoint, Txid};
use bytes::Bytes;
use chainstore::{Height, Outline};

use super::error::BlockError;
use super::params::Params;
use super::raw::{RawBlock, RawTx};
use super::sigops::{self, Counted, MAX_BLOCK_SIGOPS_COST, WITNESS_SCALE};
use super::spends::Spends;
use super::transaction::{MAX_BLOCK_WEIGHT, TransactionParts, check_transaction, is_coinbase, is_final};
use super::{merkle, signet};
use crate::scripts::Flags;

/// Begins the coinbase output that commits to the witnesses: OP_RETURN, a push of 36 bytes, four of magic.
const COMMITMENT_HEADER: [u8; 6] = [0x6a, 0x24, 0xaa, 0x21, 0xa9, 0xed];
/// With the 32 bytes of the commitment.
const COMMITMENT_BYTES: usize = 38;
/// A transaction of this size reads as an inner node of the merkle tree.
const INNER_NODE_BYTES: usize = 64;
/// Header, transaction count and no transaction.
const MIN_BLOCK_BYTES: usize = 81;

/// Where in the chain a block stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockContext {
    pub height: Height,
    /// Median time past of the parent, in Unix seconds.
    pub parent_mtp: u32,
}

/// A block that passed rungs 3 and 4; only [`check_block`] makes one.
#[derive(Clone)]
pub struct CheckedBlock {
    raw: Bytes,
    header: Header,
    hash: BlockHash,
    height: Height,
    outline: Outline,
    spends: Spends,
}

/// Its name only: a block is megabytes.
impl fmt::Debug for CheckedBlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CheckedBlock")
            .field("height", &self.height)
            .field("hash", &self.hash)
            .finish_non_exhaustive()
    }
}

impl CheckedBlock {
    /// The bytes as they came.
    pub fn raw(&self) -> &Bytes {
        &self.raw
    }

    pub fn header(&self) -> &Header {
        &self.header
    }

    /// All of it in the library's types, for what needs the scripts. An error only if the library reads blocks in
    /// another way than they were checked.
    pub fn decode(&self) -> Result<Block, BlockError> {
        deserialize(&self.raw).map_err(|error| BlockError::Undecodable(error.to_string()))
    }

    pub fn hash(&self) -> BlockHash {
        self.hash
    }

    /// The height at which it was checked.
    pub fn height(&self) -> Height {
        self.height
    }

    /// In block order.
    pub fn txids(&self) -> impl ExactSizeIterator<Item = &Txid> {
        self.outline.txids()
    }

    /// Ids, inputs and outputs, as the store keeps them. Made here, as blocks are checked by many threads and connected
    /// by one.
    pub fn outline(&self) -> &Outline {
        &self.outline
    }

    /// What rung 5 asks beside coins.
    pub(super) fn spends(&self) -> &Spends {
        &self.spends
    }

    /// Satoshi that each transaction pays out, and its weight; in block order.
    pub fn sums(&self) -> impl Iterator<Item = (u64, u64)> {
        let starts = self.outline.txs().iter().map(|tx| tx.offset);
        let ends = starts.clone().skip(1).chain([self.outline.length()]);
        let sizes = starts.zip(ends).map(|(start, end)| u64::from(end - start));
        self.spends.txs.iter().zip(sizes).map(|(tx, size)| (tx.paid_out, u64::from(tx.base_size) * 3 + size))
    }

    /// For each input after the coinbase, in block order, the outpoint that it spends if an earlier block made it.
    pub fn inputs_from_chain(&self) -> impl Iterator<Item = Option<OutPoint>> {
        self.outline.inputs().iter().map(|input| input.maker().is_none().then_some(input.outpoint))
    }
}

/// Reads and checks a block. That its header has proof of work and a place in the chain is not looked at here.
pub fn check_block(raw: Bytes, context: &BlockContext, params: &Params) -> Result<CheckedBlock, BlockError> {
    if raw.len() < MIN_BLOCK_BYTES || raw.len() as u64 > MAX_BLOCK_WEIGHT {
        return Err(BlockError::Undecodable(format!("{} bytes", raw.len())));
    }
    let block = RawBlock::parse(&raw).map_err(|reason| BlockError::Undecodable(reason.into()))?;
    let txids: Vec<Txid> = block.txs.iter().map(RawTx::txid).collect();
    check_merkle_root(&block, &txids)?;
    let segwit = context.height.0 >= params.segwit_height;
    check_witnesses(&block, &txids, segwit)?;

    let base_size = base_size(&block);
    check_size(&block, base_size)?;
    let legacy_sigops = check_transactions(&block, &txids)?;
    if let Some(challenge) = &params.signet_challenge
        && context.height != Height::GENESIS
    {
        let block = deserialize(&raw).map_err(|error| BlockError::Undecodable(error.to_string()))?;
        signet::check_solution(&block, &txids, challenge)?;
    }
    check_at_height(&block, &txids, context, params)?;
    let weight = (base_size * 3 + raw.len()) as u64;
    if weight > MAX_BLOCK_WEIGHT {
        return Err(BlockError::BadWeight { weight });
    }
    let (header, hash) = (block.header, block.header.block_hash());
    let flags = params.script_flags(context.height, hash);
    let counted = Counted { p2sh: flags.contains(Flags::P2SH), witness: flags.contains(Flags::WITNESS) };
    let (spends, outline) = Spends::of(&block, &txids, &legacy_sigops, raw.len() as u32, counted);
    Ok(CheckedBlock { raw, header, hash, height: context.height, outline, spends })
}

fn check_merkle_root(block: &RawBlock<'_>, txids: &[Txid]) -> Result<(), BlockError> {
    let (root, mutated) = merkle::root(txids.iter().map(|txid| txid.to_raw_hash()).collect());
    if root != block.header.merkle_root.to_raw_hash() {
        return Err(BlockError::BadMerkleRoot);
    }
    if mutated {
        return Err(BlockError::DuplicateTail);
    }
    // Without a coinbase the list may be a row of inner nodes of another block's tree. With one, nobody can have
    // made it so: that would take a coinbase whose bytes hash to chosen values.
    let has_coinbase = block.txs.first().is_some_and(is_coinbase);
    if !has_coinbase && block.txs.iter().any(|tx| tx.base_size() == INNER_NODE_BYTES) {
        return Err(BlockError::InnerNodes);
    }
    Ok(())
}

/// The commitment to the witnesses, or that there are none.
fn check_witnesses(block: &RawBlock<'_>, txids: &[Txid], segwit: bool) -> Result<(), BlockError> {
    let Some(coinbase) = block.txs.first().filter(|tx| is_coinbase(*tx)) else {
        // The merkle root has shown that the miner left it out, so whatever the witnesses are, the header is bad.
        return Ok(());
    };
    let commitment = if segwit { commitment(coinbase) } else { None };
    if let Some(commitment) = commitment {
        let mut items = coinbase.witnesses().next().unwrap_or_default().items();
        let reserved = match (items.next(), items.next()) {
            (Some(reserved), None) if reserved.len() == 32 => reserved,
            (_, _) => return Err(BlockError::BadWitnessNonce),
        };
        let mut engine = sha256d::Hash::engine();
        engine.input(witness_root(block, txids).as_byte_array());
        engine.input(reserved);
        if sha256d::Hash::from_engine(engine).as_byte_array() != commitment {
            return Err(BlockError::BadWitnessMerkle);
        }
        return Ok(());
    }
    if block.txs.iter().any(RawTx::has_witness) { Err(BlockError::UnexpectedWitness) } else { Ok(()) }
}

/// The last output of the coinbase that looks like a commitment.
fn commitment<'a>(coinbase: &'a RawTx<'_>) -> Option<&'a [u8]> {
    let scripts = coinbase.outputs().map(|output| output.script.as_bytes());
    let commitments =
        scripts.filter(|script| script.len() >= COMMITMENT_BYTES && script.starts_with(&COMMITMENT_HEADER));
    commitments.last().map(|script| &script[COMMITMENT_HEADER.len()..COMMITMENT_BYTES])
}

fn witness_root(block: &RawBlock<'_>, txids: &[Txid]) -> sha256d::Hash {
    let leaves = block.txs.iter().zip(txids).enumerate().map(|(position, (tx, txid))| match position {
        // The coinbase holds the commitment, so it cannot be part of it.
        0 => sha256d::Hash::all_zeros(),
        // Without a witness both ids are the same.
        _ if !tx.has_witness() => txid.to_raw_hash(),
        _ => tx.wtxid(),
    });
    // Equal neighbours would be equal neighbours among the txids, too.
    merkle::root(leaves.collect()).0
}

/// Bytes without witnesses.
fn base_size(block: &RawBlock<'_>) -> usize {
    let count = bitcoin::VarInt::from(block.txs.len()).size();
    80 + count + block.txs.iter().map(RawTx::base_size).sum::<usize>()
}

fn check_size(block: &RawBlock<'_>, base_size: usize) -> Result<(), BlockError> {
    if block.txs.is_empty() {
        return Err(BlockError::BadLength("no transactions"));
    }
    if base_size as u64 * 4 > MAX_BLOCK_WEIGHT || block.txs.len() as u64 * 4 > MAX_BLOCK_WEIGHT {
        return Err(BlockError::BadLength("over 1000000 bytes without witnesses"));
    }
    Ok(())
}

/// Gives the signature operations that each transaction shows by itself.
fn check_transactions(block: &RawBlock<'_>, txids: &[Txid]) -> Result<Vec<u64>, BlockError> {
    if !is_coinbase(&block.txs[0]) {
        return Err(BlockError::CoinbaseMissing);
    }
    if let Some(after) = block.txs[1..].iter().position(is_coinbase) {
        return Err(BlockError::CoinbaseRepeated { position: after + 1 });
    }
    for (tx, txid) in block.txs.iter().zip(txids) {
        check_transaction(tx).map_err(|reason| BlockError::BadTransaction { reason, txid: *txid })?;
    }
    let legacy: Vec<u64> = block.txs.iter().map(sigops::legacy).collect();
    let cost = legacy.iter().sum::<u64>() * WITNESS_SCALE;
    if cost > MAX_BLOCK_SIGOPS_COST {
        return Err(BlockError::TooManySigops { cost });
    }
    Ok(legacy)
}

fn check_at_height(
    block: &RawBlock<'_>,
    txids: &[Txid],
    context: &BlockContext,
    params: &Params,
) -> Result<(), BlockError> {
    let height = context.height;
    let cutoff = if height.0 >= params.csv_height { context.parent_mtp } else { block.header.time };
    for (tx, txid) in block.txs.iter().zip(txids) {
        if !is_final(tx, height, cutoff) {
            return Err(BlockError::BadTransaction { reason: "bad-txns-nonfinal", txid: *txid });
        }
    }
    if height.0 >= params.bip34_height {
        let expected = Builder::new().push_int(i64::from(height.0)).into_bytes();
        let begins =
            |tx: &RawTx<'_>| tx.inputs().all(|input| input.script_sig.as_bytes().starts_with(&expected));
        if !block.txs.first().is_some_and(begins) {
            return Err(BlockError::BadCoinbaseHeight { height: height.0 });
        }
    }
    Ok(())
}
