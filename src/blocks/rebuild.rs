//! A new block, put together from a compact one and the transactions that are here already (BIP152, version 2).
//!
//! In: a `cmpctblock`, what may be in the block, and later what a `blocktxn` brought. Out: which transactions are
//! missing, and at last the serialized block. Nothing is hashed but short ids: whether the parts make up the block
//! that the header's work was done for, its check finds out, as of any block. Two transactions may have the same
//! short id, so what comes out wrong is nobody's fault.
//! Who is asked for what is `compact`'s matter.
//! Source: Bitcoin Core `blockencodings.cpp` (`InitData`, `FillBlock`).

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use bitcoin::consensus::serialize;
use bitcoin::{BlockHash, VarInt, Wtxid};
use bytes::Bytes;

use super::short_id::ShortIdKey;
use crate::peer::{CompactBlock, WireBlock};

/// Transactions that a compact block may announce: the weight of a block over that of the least one (Core:
/// MAX_BLOCK_WEIGHT / MIN_SERIALIZABLE_TRANSACTION_WEIGHT).
const MAX_TRANSACTIONS: usize = 4_000_000 / 40;
/// Bytes of a block without witnesses never reach this, nor with them.
const MAX_BLOCK_LEN: usize = 4_000_000;

/// Why a block cannot be put together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unfit {
    /// No honest peer sends this.
    Forbidden(&'static str),
    /// Short ids are not unique, or too much stands behind them: the whole block is to be asked for.
    Unlucky,
}

/// What a block was made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rebuilt {
    pub hash: BlockHash,
    /// Transactions that came with the compact block.
    pub prefilled: usize,
    /// Transactions that were here.
    pub had: usize,
    /// Transactions that were asked for.
    pub asked: usize,
    /// Bytes of the whole block.
    pub bytes: usize,
    /// Bytes that came for it.
    pub received_bytes: usize,
}

/// A block of which some transactions are known.
#[derive(Debug)]
pub struct Partial {
    hash: BlockHash,
    /// Serialized.
    header: Vec<u8>,
    transactions: Vec<Option<Bytes>>,
    prefilled: usize,
    received_bytes: usize,
}

impl Partial {
    /// Fills in what of a compact block is among `candidates`: the pool, and what left it lately, serialized.
    ///
    /// Of a full pool each transaction is hashed, so it takes some milliseconds.
    pub fn of<'a>(
        block: &CompactBlock,
        candidates: impl Iterator<Item = (Wtxid, &'a Bytes)>,
    ) -> Result<Self, Unfit> {
        let count = block.count();
        if count == 0 || count > MAX_TRANSACTIONS {
            return Err(Unfit::Forbidden("cmpctblock with no transactions, or too many"));
        }
        let mut transactions: Vec<Option<Bytes>> = vec![None; count];
        for (position, transaction) in &block.prefilled {
            let place = transactions.get_mut(usize::from(*position));
            let place = place.ok_or(Unfit::Forbidden("cmpctblock with a position behind its end"))?;
            if place.replace(transaction.clone()).is_some() {
                return Err(Unfit::Forbidden("cmpctblock with a position twice"));
            }
        }
        let key = ShortIdKey::of(block);
        fill_in(&mut transactions, &block.short_ids, |wtxid| key.short_id(wtxid), candidates)?;
        Ok(Self {
            hash: block.header.block_hash(),
            header: serialize(&block.header),
            transactions,
            prefilled: block.prefilled.len(),
            received_bytes: block.encoded_len(),
        })
    }

    pub(super) fn hash(&self) -> BlockHash {
        self.hash
    }

    /// The positions that nobody could fill. There are no more of them than 16 bits count.
    pub(super) fn missing(&self) -> Vec<u16> {
        let missing = self.transactions.iter().enumerate().filter(|(_, known)| known.is_none());
        missing.filter_map(|(at, _)| u16::try_from(at).ok()).collect()
    }

    /// The block with these in the missing places, in their order.
    pub(super) fn fill(self, missing: &[Bytes]) -> Result<(WireBlock, Rebuilt), Unfit> {
        let mut next = missing.iter();
        let mut bytes = self.header;
        bytes.extend_from_slice(&serialize(&VarInt::from(self.transactions.len())));
        for known in &self.transactions {
            let transaction = match known {
                Some(transaction) => transaction,
                None => next.next().ok_or(Unfit::Forbidden("blocktxn with too few transactions"))?,
            };
            if bytes.len() + transaction.len() > MAX_BLOCK_LEN {
                return Err(Unfit::Unlucky);
            }
            bytes.extend_from_slice(transaction);
        }
        if next.next().is_some() {
            return Err(Unfit::Forbidden("blocktxn with too many transactions"));
        }
        let rebuilt = Rebuilt {
            hash: self.hash,
            prefilled: self.prefilled,
            had: self.transactions.len() - self.prefilled - missing.len(),
            asked: missing.len(),
            bytes: bytes.len(),
            received_bytes: self.received_bytes + missing.iter().map(Bytes::len).sum::<usize>(),
        };
        Ok((WireBlock::unsummed(bytes.into()), rebuilt))
    }
}

/// Puts candidates where the short ids say.
fn fill_in<'a>(
    transactions: &mut [Option<Bytes>],
    short_ids: &[u64],
    id_of: impl Fn(&Wtxid) -> u64,
    candidates: impl Iterator<Item = (Wtxid, &'a Bytes)>,
) -> Result<(), Unfit> {
    let free = transactions.iter().enumerate().filter(|(_, known)| known.is_none());
    // The table has a key of its own, so whoever chooses the ids cannot fill one of its buckets (Core looks for
    // buckets of more than twelve).
    let by_id: HashMap<u64, usize> = short_ids.iter().copied().zip(free.map(|(at, _)| at)).collect();
    if by_id.len() < short_ids.len() {
        return Err(Unfit::Unlucky);
    }
    let mut found: HashMap<usize, Wtxid> = HashMap::new();
    for (wtxid, raw) in candidates {
        let Some(&at) = by_id.get(&id_of(&wtxid)) else { continue };
        let Some(place) = transactions.get_mut(at) else { continue };
        match found.entry(at) {
            Entry::Vacant(first) => {
                first.insert(wtxid);
                *place = Some(raw.clone());
            }
            Entry::Occupied(first) if *first.get() == wtxid => {}
            // Two have the id, so neither is taken: the peer says which it is.
            Entry::Occupied(_) => *place = None,
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "rebuild_tests.rs"]
mod tests;
