//! What undone blocks give back to parts that still have their rows.
//!
//! A deep undo writes no part anew. It names the parts short, so that their rows of the undone blocks are void, and
//! keeps the deltas of those blocks: what they took from the chain below them is there again. When a merge has
//! written all parts anew, none is cut any more, and this is forgotten.
//!
//! Every undone block has a number, counted up for ever. A part that was cut believes those from the number at which
//! it was cut; earlier ones were undone before the part was written.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::rows::{COIN_KEY, CoinKey, coin_key};
use crate::delta::{CoinValue, Delta, TxPrefix};
use crate::group::{Group, GroupCoin};
use crate::types::{ScriptKey, TxNum};

/// See the module.
#[derive(Clone, Debug, Default)]
pub(crate) struct Undone {
    deltas: BTreeMap<u32, Arc<Delta>>,
    /// Keys with whole prefixes, and the numbers of the undone blocks that spent the coin.
    coins: BTreeMap<CoinKey, (CoinValue, u32)>,
    scripts: BTreeMap<ScriptKey, Vec<u32>>,
}

impl Undone {
    /// The number of the next.
    pub(crate) fn next(&self) -> u32 {
        self.deltas.last_key_value().map_or(0, |(number, _)| number + 1)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.deltas.is_empty()
    }

    /// By number.
    pub(crate) fn deltas(&self) -> impl Iterator<Item = (u32, &Arc<Delta>)> {
        self.deltas.iter().map(|(number, delta)| (*number, delta))
    }

    pub(crate) fn push(&mut self, number: u32, delta: Arc<Delta>) {
        for rows in delta.scripts() {
            if !rows.spent.is_empty() || !rows.replaced.is_empty() {
                self.scripts.entry(rows.key).or_default().push(number);
            }
            for spent in rows.spent {
                let value = CoinValue { value: spent.value, class: spent.class, script_key: rows.key };
                // The latest of the blocks that spent it: a part that believes an earlier one believes that too.
                self.coins.insert(coin_key(spent.prefix, spent.vout, spent.tx_num), (value, number));
            }
        }
        self.deltas.insert(number, delta);
    }

    /// Coins that parts cut at `from` and reaching to the transaction `end` have again, by key.
    pub(crate) fn coins(
        &self,
        from: u32,
        end: u32,
        prefixes: impl std::ops::RangeBounds<CoinKey>,
    ) -> impl Iterator<Item = (&CoinKey, &CoinValue)> {
        let valid = move |(key, (_, number)): &(&CoinKey, &(CoinValue, u32))| {
            *number >= from && super::rows::coin_place(key).1.0 < end
        };
        self.coins.range(prefixes).filter(valid).map(|(key, (coin, _))| (key, coin))
    }

    /// Scripts to which something is given back, in a range of keys.
    pub(crate) fn scripts(
        &self,
        keys: impl std::ops::RangeBounds<ScriptKey>,
    ) -> impl Iterator<Item = &ScriptKey> {
        self.scripts.range(keys).map(|(key, _)| key)
    }

    /// A script's group as a part cut at `from` and reaching to the transaction `end` has it.
    pub(crate) fn restore(&self, key: &ScriptKey, group: &mut Group, from: u32, end: u32) {
        group.history.retain(|number| number.0 < end);
        group.unspent.retain(|coin| coin.tx_num.0 < end);
        let numbers = self.scripts.get(key).map_or(&[][..], Vec::as_slice);
        let rows = numbers.iter().filter(|number| **number >= from).filter_map(|number| {
            let delta = self.deltas.get(number)?;
            delta.script(key)
        });
        for rows in rows {
            group.history.extend(rows.replaced.iter().filter(|number| number.0 < end));
            let coins = rows.spent.iter().filter(|spent| spent.tx_num.0 < end);
            group.unspent.extend(coins.map(|spent| GroupCoin {
                tx_num: spent.tx_num,
                vout: spent.vout,
                value: spent.value,
            }));
        }
        group.history.sort_unstable();
        group.history.dedup();
        group.unspent.sort_unstable();
        group.unspent.dedup();
    }

    /// All keys of coins of one prefix and output.
    pub(crate) fn keys_of(prefix: TxPrefix, vout: Option<u32>) -> std::ops::RangeInclusive<CoinKey> {
        let first: [u8; COIN_KEY] = coin_key(prefix, vout.unwrap_or(0), TxNum(0));
        first..=coin_key(prefix, vout.unwrap_or(u32::MAX), TxNum(u32::MAX))
    }
}
