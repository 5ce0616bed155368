//! Makes a delta from a block and the coins that it spends.

use std::collections::HashMap;

use bitcoin::consensus::encode::VarInt;
use bitcoin::{Block, BlockHash, OutPoint, Txid};

use crate::delta::{Delta, DeltaHead, LooseRows, Made, Spent, tx_prefix};
use crate::error::Error;
use crate::segments::BlockPos;
use crate::types::{Coin, Height, ScriptClass, ScriptKey, TxNum, has_history, is_unspendable};

/// A block at its place in the chain.
pub(crate) struct Source<'a> {
    pub(crate) height: Height,
    pub(crate) hash: BlockHash,
    pub(crate) block: &'a Block,
    pub(crate) txids: &'a [Txid],
    /// Of each output of each transaction.
    pub(crate) script_keys: &'a [ScriptKey],
    /// Bytes of the raw block.
    pub(crate) length: u32,
    pub(crate) first_tx: u32,
    /// One for each input after the coinbase; not looked at where the output is of this block.
    pub(crate) spent: &'a [Coin],
    /// The earlier transaction with the coinbase's id, and its coins that are unspent below this block.
    pub(crate) older: Option<(TxNum, Vec<(u32, Coin)>)>,
}

/// What the inputs of all transactions but the coinbase spend.
pub(crate) fn spending_inputs(block: &Block) -> impl Iterator<Item = OutPoint> {
    block.txdata.iter().skip(1).flat_map(|tx| tx.input.iter().map(|input| input.previous_output))
}

/// The rows of a block that lies, or will lie, at `pos`.
pub(crate) fn build(source: Source<'_>, pos: BlockPos) -> Result<Delta, Error> {
    let Source { height, hash, block, txids, .. } = source;
    let bad = |what| Error::BadInput { hash, what };
    if txids.len() != block.txdata.len() || txids.is_empty() {
        return Err(bad("not one txid for each transaction"));
    }
    if spending_inputs(block).count() != source.spent.len() {
        return Err(bad("not one coin for each input"));
    }
    if block.txdata.iter().map(|tx| tx.output.len()).sum::<usize>() != source.script_keys.len() {
        return Err(bad("not one script key for each output"));
    }
    let count = u32::try_from(txids.len()).map_err(|_| Error::TxNumOverflow { height })?;
    source.first_tx.checked_add(count).ok_or(Error::TxNumOverflow { height })?;

    let mut rows = LooseRows::default();
    // Coins of this block that are not spent yet, by outpoint.
    let mut fresh: HashMap<OutPoint, (ScriptKey, Made)> = HashMap::new();
    let mut position: HashMap<Txid, u32> = HashMap::with_capacity(txids.len());
    let mut spent = source.spent.iter();
    let mut script_keys = source.script_keys.iter();
    let mut coinbase_scripts = Vec::new();
    for ((tx, txid), at) in block.txdata.iter().zip(txids).zip(0u32..) {
        if at > 0 {
            for (input, coin) in tx.input.iter().zip(&mut spent) {
                let outpoint = input.previous_output;
                if position.contains_key(&outpoint.txid) {
                    let (key, _) =
                        fresh.remove(&outpoint).ok_or(bad("coin of this block missing or spent twice"))?;
                    rows.history.push((key, at));
                    continue;
                }
                if coin.tx_num.0 >= source.first_tx {
                    return Err(bad("coin of a later block"));
                }
                rows.history.push((coin.script_key, at));
                rows.spent.push((coin.script_key, spent_row(&outpoint, coin)));
            }
        } else if height == Height::GENESIS {
            // Its output never was a coin, and Core does not know the transaction.
            continue;
        }
        position.insert(*txid, at);
        for ((output, vout), &key) in tx.output.iter().zip(0u32..).zip(&mut script_keys) {
            if !has_history(&output.script_pubkey) {
                continue;
            }
            rows.history.push((key, at));
            if at == 0 {
                coinbase_scripts.push(key);
            }
            if !is_unspendable(&output.script_pubkey) {
                let class = ScriptClass::of(&output.script_pubkey);
                let made = Made { tx: at, vout, value: output.value, class };
                fresh.insert(OutPoint::new(*txid, vout), (key, made));
            }
        }
    }
    rows.made.extend(fresh.into_values());
    if let Some((older, coins)) = &source.older {
        rows.replaced.extend(coinbase_scripts.into_iter().map(|key| (key, *older)));
        for (vout, coin) in coins {
            rows.spent.push((coin.script_key, spent_row(&OutPoint::new(txids[0], *vout), coin)));
        }
    }
    let (offsets, length) = tx_offsets(block);
    if length != source.length {
        return Err(bad("the raw bytes are not those of the block"));
    }
    let first_tx = source.first_tx;
    let head = DeltaHead { height, header: block.header, pos, first_tx, txids: txids.to_vec(), offsets };
    let delta = Delta::new(head, rows);
    if delta.hash != hash {
        return Err(bad("not the hash of its header"));
    }
    if delta.spends_twice() {
        return Err(bad("a coin is spent twice"));
    }
    Ok(delta)
}

fn spent_row(outpoint: &OutPoint, coin: &Coin) -> Spent {
    let Coin { value, tx_num, class, .. } = *coin;
    Spent { tx_num, vout: outpoint.vout, prefix: tx_prefix(&outpoint.txid), value, class }
}

/// Where each transaction starts within the block's bytes, and how many those are.
pub(crate) fn tx_offsets(block: &Block) -> (Vec<u32>, u32) {
    let mut at = 80 + VarInt::from(block.txdata.len()).size() as u32;
    let offsets = block.txdata.iter().map(|tx| {
        let start = at;
        at += tx.total_size() as u32;
        start
    });
    (offsets.collect(), at)
}
