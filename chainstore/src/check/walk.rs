//! What the blocks say of the scripts of a range, in chain order.
//!
//! In memory are the coins of the range that are unspent, and where each coinbase is: one may be repeated (BIP30).

use std::collections::HashMap;

use bitcoin::{OutPoint, Txid};

use super::blocks;
use crate::delta::CoinValue;
use crate::error::Error;
use crate::types::{Height, ScriptClass, ScriptHash, ScriptKey, TxNum, has_history, is_unspendable};
use crate::view::View;

/// What a coin takes in memory, in bytes, with what the table leaves empty.
pub(super) const COIN_BYTES: usize = 160;

/// A range of script keys, by their first four bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Range {
    number: u32,
    of: u32,
}

impl Range {
    /// All keys in `of` ranges of about one size.
    pub(super) fn all(of: u32) -> impl Iterator<Item = Self> {
        (0..of).map(move |number| Self { number, of })
    }

    pub(super) fn has(&self, key: &ScriptKey) -> bool {
        let start = u32::from_be_bytes([key.0[0], key.0[1], key.0[2], key.0[3]]);
        (u64::from(start) * u64::from(self.of)) >> 32 == u64::from(self.number)
    }
}

/// Who is told what the blocks say.
pub(super) trait Sink {
    /// The transaction is in the script's history.
    fn history(&mut self, key: &ScriptKey, number: TxNum);
    /// It is not any more: a later transaction has its txid.
    fn replaced(&mut self, key: &ScriptKey, number: TxNum);
    /// The transaction is found by its id.
    fn tx(&mut self, txid: &Txid, number: TxNum);
    /// The coin is unspent in the end.
    fn unspent(&mut self, txid: &Txid, vout: u32, number: TxNum, coin: &CoinValue);
}

/// How a walk ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Walked {
    Whole,
    /// More coins were unspent at a time than may be held.
    TooMany,
}

/// Walks through the first `count` blocks, with at most `most` coins in memory.
pub(super) fn walk(
    view: &View,
    count: u32,
    wanted: &dyn Fn(&ScriptKey) -> bool,
    most: usize,
    sink: &mut dyn Sink,
    progress: &mut dyn FnMut(u32),
) -> Result<Walked, Error> {
    let mut coins: HashMap<OutPoint, (TxNum, CoinValue)> = HashMap::new();
    let mut coinbases: HashMap<Txid, TxNum> = HashMap::new();
    // The genesis coinbase is in no index.
    for height in 1..count {
        let (block, txids) = blocks::read(view, Height(height))?;
        let first = view.txs_of(Height(height)).map_or(0, |numbers| numbers.start);
        for ((tx, txid), number) in block.txdata.iter().zip(&txids).zip(first..) {
            let number = TxNum(number);
            sink.tx(txid, number);
            let mut keys: Vec<ScriptKey> = Vec::new();
            if number.0 > first {
                let spent = tx.input.iter().filter_map(|input| coins.remove(&input.previous_output));
                keys.extend(spent.map(|(_, coin)| coin.script_key));
            }
            let older = if number.0 == first { coinbases.insert(*txid, number) } else { None };
            let mut replaced: Vec<ScriptKey> = Vec::new();
            for (output, vout) in tx.output.iter().zip(0u32..) {
                let script = &output.script_pubkey;
                let key = ScriptHash::of(script).key();
                if !has_history(script) || !wanted(&key) {
                    continue;
                }
                keys.push(key);
                if older.is_some() {
                    replaced.push(key);
                }
                if !is_unspendable(script) {
                    let class = ScriptClass::of(script);
                    let coin = CoinValue { value: output.value, class, script_key: key };
                    coins.insert(OutPoint::new(*txid, vout), (number, coin));
                }
            }
            if let Some(older) = older {
                each_once(replaced, |key| sink.replaced(key, older));
            }
            each_once(keys, |key| sink.history(key, number));
        }
        if coins.len() > most {
            return Ok(Walked::TooMany);
        }
        progress(height);
    }
    for (outpoint, (number, coin)) in &coins {
        sink.unspent(&outpoint.txid, outpoint.vout, *number, coin);
    }
    Ok(Walked::Whole)
}

fn each_once(mut keys: Vec<ScriptKey>, each: impl FnMut(&ScriptKey)) {
    keys.sort_unstable();
    keys.dedup();
    keys.iter().for_each(each);
}
