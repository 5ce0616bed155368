//! Compact blocks: a new block, put together from transactions that are here already (BIP152, version 2).
//!
//! In: `cmpctblock` and `blocktxn` from peers that were asked, and the transactions that may be in the block. Out: the
//! serialized block, which goes the way of any block from there on, or what to ask for instead. Only one block at the
//! tip is worth it: its parent is the tip, and the mempool has most of what is mined.
//! Two transactions may have the same short id, so what comes out wrong is nobody's fault, and the whole block is
//! asked for. Whether a block is valid is not judged here.
//! Source: Bitcoin Core `blockencodings.cpp` (`InitData`, `FillBlock`), `net_processing.cpp`
//! (`ProcessCompactBlockTxns`).

use std::collections::{BTreeMap, HashMap};

use bitcoin::consensus::{deserialize, serialize};
use bitcoin::hashes::{Hash, HashEngine, sha256, siphash24};
use bitcoin::{Block, BlockHash, VarInt, Wtxid};
use bytes::Bytes;

use crate::peer::{CompactBlock, Inventory, Message, Misbehavior, PeerId, WireBlock};

/// Short ids have 48 bits.
const SHORT_ID_MASK: u64 = (1 << 48) - 1;
/// Transactions that a compact block may announce: the weight of a block over that of the least one (Core:
/// MAX_BLOCK_WEIGHT / MIN_SERIALIZABLE_TRANSACTION_WEIGHT).
const MAX_TRANSACTIONS: usize = 4_000_000 / 40;
/// Bytes of a block without witnesses never reach this, nor with them.
const MAX_BLOCK_LEN: usize = 4_000_000;

/// What to do next for a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nobody asked for it; nothing happens.
    Ignored,
    /// Send this to the peer: the transactions that are missing.
    Ask(Message),
    /// It is whole.
    Done { hash: BlockHash, block: WireBlock },
    /// It cannot be had this way, and nobody is to blame: ask for the whole block.
    FetchWhole { hash: BlockHash },
    /// The peer broke the protocol; ask another for the whole block.
    Drop { hash: BlockHash, why: Misbehavior },
}

/// The compact blocks that are on their way, one a peer.
#[derive(Debug, Default)]
pub struct CompactFetch {
    asked: BTreeMap<PeerId, Waiting>,
}

/// What a peer owes us.
#[derive(Debug)]
enum Waiting {
    Block(BlockHash),
    Transactions(Partial),
}

impl CompactFetch {
    /// How to ask `peer` for a new block; `None` if the whole block is to be asked for. It is worth it only for the
    /// block after the tip, with a pool that has most of what is mined, and one at a time.
    pub fn ask(
        &mut self,
        peer: PeerId,
        hash: BlockHash,
        follows_tip: bool,
        is_warm: bool,
    ) -> Option<Inventory> {
        if !follows_tip || !is_warm || self.asked.contains_key(&peer) {
            return None;
        }
        self.asked.insert(peer, Waiting::Block(hash));
        Some(Inventory::compact_block(hash))
    }

    /// Whether that peer owes a part of the block.
    pub fn is_asked(&self, peer: PeerId, hash: &BlockHash) -> bool {
        self.asked.get(&peer).is_some_and(|waiting| waiting.hash() == *hash)
    }

    /// The peer is gone, took too long, or sent the whole block instead, as it may.
    pub fn forget(&mut self, peer: PeerId) {
        self.asked.remove(&peer);
    }

    /// A peer sent a compact block. `candidates` has what may be in it, serialized: the pool, and what left it lately.
    pub fn handle_block<'a>(
        &mut self,
        peer: PeerId,
        block: &CompactBlock,
        candidates: impl Iterator<Item = (Wtxid, &'a Bytes)>,
    ) -> Step {
        let hash = block.header.block_hash();
        if !matches!(self.asked.get(&peer), Some(Waiting::Block(asked)) if *asked == hash) {
            return Step::Ignored;
        }
        self.asked.remove(&peer);
        let partial = match Partial::new(block, candidates) {
            Ok(partial) => partial,
            Err(fault) => return fault.step(hash),
        };
        let missing = partial.missing();
        if missing.is_empty() {
            return finish(hash, partial.fill(&[]));
        }
        self.asked.insert(peer, Waiting::Transactions(partial));
        Step::Ask(Message::GetBlockTxn { block: hash, positions: missing })
    }

    /// A peer sent transactions of a block. Only the first answer to a question counts.
    pub fn handle_transactions(&mut self, peer: PeerId, block: BlockHash, transactions: &[Bytes]) -> Step {
        match self.asked.remove(&peer) {
            Some(Waiting::Transactions(partial)) if partial.hash == block => {
                finish(block, partial.fill(transactions))
            }
            Some(other) => {
                self.asked.insert(peer, other);
                Step::Ignored
            }
            None => Step::Ignored,
        }
    }
}

impl Waiting {
    fn hash(&self) -> BlockHash {
        match self {
            Self::Block(hash) => *hash,
            Self::Transactions(partial) => partial.hash,
        }
    }
}

fn finish(hash: BlockHash, filled: Result<WireBlock, Fault>) -> Step {
    match filled {
        Ok(block) => Step::Done { hash, block },
        Err(fault) => fault.step(hash),
    }
}

/// Why a block cannot be put together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// No honest peer sends this.
    Forbidden(&'static str),
    /// Short ids were not unique, or the transactions are others.
    Unlucky,
}

impl Fault {
    fn step(self, hash: BlockHash) -> Step {
        match self {
            Self::Forbidden(what) => Step::Drop { hash, why: Misbehavior::BadMessage(what.to_owned()) },
            Self::Unlucky => Step::FetchWhole { hash },
        }
    }
}

/// A block of which some transactions are known.
#[derive(Debug)]
struct Partial {
    hash: BlockHash,
    /// Serialized.
    header: Vec<u8>,
    transactions: Vec<Option<Bytes>>,
}

impl Partial {
    fn new<'a>(
        block: &CompactBlock,
        candidates: impl Iterator<Item = (Wtxid, &'a Bytes)>,
    ) -> Result<Self, Fault> {
        let count = block.count();
        if count == 0 || count > MAX_TRANSACTIONS {
            return Err(Fault::Forbidden("cmpctblock with no transactions, or too many"));
        }
        let mut transactions: Vec<Option<Bytes>> = vec![None; count];
        for (position, transaction) in &block.prefilled {
            let place = transactions.get_mut(usize::from(*position));
            let place = place.ok_or(Fault::Forbidden("cmpctblock with a position behind its end"))?;
            if place.replace(transaction.clone()).is_some() {
                return Err(Fault::Forbidden("cmpctblock with a position twice"));
            }
        }
        let free = transactions.iter().enumerate().filter(|(_, known)| known.is_none());
        // The table has a key of its own, so whoever chooses the ids cannot fill one of its buckets (Core looks for
        // buckets of more than twelve).
        let by_id: HashMap<u64, usize> =
            block.short_ids.iter().copied().zip(free.map(|(at, _)| at)).collect();
        if by_id.len() < block.short_ids.len() {
            return Err(Fault::Unlucky);
        }
        let key = ShortIdKey::of(block);
        let mut found: HashMap<usize, Option<Wtxid>> = HashMap::new();
        for (wtxid, raw) in candidates {
            let Some(place) = by_id.get(&key.short_id(&wtxid)) else { continue };
            let Some(transaction) = transactions.get_mut(*place) else { continue };
            match found.get(place) {
                None => {
                    found.insert(*place, Some(wtxid));
                    *transaction = Some(raw.clone());
                }
                Some(Some(other)) if *other == wtxid => {}
                // Two have the id, so neither is taken: the peer says which it is.
                Some(_) => {
                    found.insert(*place, None);
                    *transaction = None;
                }
            }
        }
        Ok(Self { hash: block.header.block_hash(), header: serialize(&block.header), transactions })
    }

    /// The positions that nobody could fill. There are no more of them than 16 bits count.
    fn missing(&self) -> Vec<u16> {
        let missing = self.transactions.iter().enumerate().filter(|(_, known)| known.is_none());
        missing.filter_map(|(at, _)| u16::try_from(at).ok()).collect()
    }

    /// The block with these in the missing places, in their order.
    fn fill(self, missing: &[Bytes]) -> Result<WireBlock, Fault> {
        let mut missing = missing.iter();
        let mut bytes = self.header;
        bytes.extend_from_slice(&serialize(&VarInt::from(self.transactions.len())));
        for known in &self.transactions {
            let transaction = match known {
                Some(transaction) => transaction,
                None => missing.next().ok_or(Fault::Forbidden("blocktxn with too few transactions"))?,
            };
            if bytes.len() + transaction.len() > MAX_BLOCK_LEN {
                return Err(Fault::Unlucky);
            }
            bytes.extend_from_slice(transaction);
        }
        if missing.next().is_some() {
            return Err(Fault::Forbidden("blocktxn with too many transactions"));
        }
        // Every count was held against the bytes behind it where the transactions were read.
        let block: Block = deserialize(&bytes).map_err(|_| Fault::Unlucky)?;
        if !block.check_merkle_root() || !block.check_witness_commitment() {
            return Err(Fault::Unlucky);
        }
        Ok(WireBlock::unsummed(bytes.into()))
    }
}

/// What short ids are salted with.
struct ShortIdKey(u64, u64);

impl ShortIdKey {
    fn of(block: &CompactBlock) -> Self {
        let mut engine = sha256::Hash::engine();
        engine.input(&serialize(&block.header));
        engine.input(&block.nonce.to_le_bytes());
        let hash = sha256::Hash::from_engine(engine).to_byte_array();
        let word =
            |at: usize| hash.iter().skip(at).take(8).rev().fold(0, |word, byte| word << 8 | u64::from(*byte));
        Self(word(0), word(8))
    }

    fn short_id(&self, wtxid: &Wtxid) -> u64 {
        siphash24::Hash::hash_to_u64_with_keys(self.0, self.1, wtxid.as_byte_array()) & SHORT_ID_MASK
    }
}

#[cfg(test)]
#[path = "compact_tests.rs"]
mod tests;
