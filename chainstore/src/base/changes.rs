//! Changes to a part, in the order of its keys: from the deltas that a merge moves, and what a deep undo left void.
//!
//! Those of a bulk sync come from its runs (`bulk::load`) through the same trait.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::vec::IntoIter;

use super::list::{KeyRange, Table};
use super::rewrite::Valid;
use super::rows::{
    COIN_KEY, CoinContent, CoinKey, SCRIPT_KEY, TX_KEY, TxKey, coin_content, coin_key, cut, tx_key,
};
use crate::codec::DecodeError;
use crate::delta::{CoinValue, Delta, PREFIX_LEN, ScriptRows, tx_prefix};
use crate::error::Error;
use crate::group::Group;
use crate::types::ScriptKey;

/// Changes by key, ascending, one for each key.
pub(crate) trait Change<const N: usize> {
    /// The key of the next change.
    fn peek(&mut self) -> Result<Option<[u8; N]>, Error>;
    /// Does the next change to what is under its key; `false` where nothing is there afterwards.
    fn apply(&mut self, content: Option<&[u8]>, out: &mut Vec<u8>) -> Result<bool, Error>;
}

fn wrong(what: impl std::fmt::Display) -> Error {
    Error::corrupt(super::DIR, what.to_string())
}

/// What of an entry is left in a part that was cut; `false` when nothing is.
pub(crate) fn keep(
    table: Table,
    valid: &Valid<'_>,
    key: &[u8],
    content: &[u8],
    out: &mut Vec<u8>,
) -> Result<bool, DecodeError> {
    let number = || key.last_chunk::<4>().map_or(u32::MAX, |number| u32::from_be_bytes(*number));
    match table {
        Table::Coins | Table::Txs => out.extend_from_slice(content),
        Table::Scripts => {
            let mut group = Group::decode(content)?;
            group.history.retain(|number| number.0 < valid.end);
            group.unspent.retain(|coin| coin.tx_num.0 < valid.end);
            group.encode_to(out);
            return Ok(!group.is_empty());
        }
    }
    Ok(number() < valid.end)
}

/// The deltas of a merge, and for a part that was cut what it gets back.
pub(crate) struct DeltaChanges<'a> {
    pub(crate) deltas: &'a [Arc<Delta>],
    pub(crate) range: KeyRange,
    pub(crate) valid: Option<Valid<'a>>,
    pub(crate) prefix_len: u8,
}

impl<'a> DeltaChanges<'a> {
    fn script_keys(&self) -> std::ops::RangeInclusive<ScriptKey> {
        let (mut first, mut last) = ([0; SCRIPT_KEY], [255; SCRIPT_KEY]);
        first[..4].copy_from_slice(&self.range.first().to_be_bytes());
        last[..4].copy_from_slice(&self.range.last().to_be_bytes());
        ScriptKey(first)..=ScriptKey(last)
    }

    pub(crate) fn scripts(&self) -> ScriptChanges<'a> {
        let keys = self.script_keys();
        let mut changes: Vec<(ScriptKey, u32, u32)> = Vec::new();
        for (delta, number) in self.deltas.iter().zip(0u32..) {
            let from = delta.keys().partition_point(|key| key < keys.start());
            let until = delta.keys().partition_point(|key| key <= keys.end());
            let places = delta.keys()[from..until].iter().zip(from as u32..);
            changes.extend(places.map(|(key, at)| (*key, number, at)));
        }
        let restored: Vec<ScriptKey> =
            self.valid.iter().flat_map(|valid| valid.undone.scripts(keys.clone()).copied()).collect();
        changes.sort_unstable();
        ScriptChanges {
            deltas: self.deltas,
            changes,
            at: 0,
            restored: restored.into_iter(),
            next: None,
            valid: self.valid,
        }
    }

    pub(crate) fn coins(&self) -> CoinChanges {
        let mut changes: BTreeMap<CoinKey, Option<CoinContent>> = BTreeMap::new();
        let prefix = |prefix| cut(prefix, self.prefix_len);
        if let Some(valid) = &self.valid {
            for (key, coin) in valid.undone.coins(valid.from, valid.end, ..) {
                let mut key = *key;
                key[..PREFIX_LEN][usize::from(self.prefix_len).min(PREFIX_LEN)..].fill(0);
                if self.range.has(&key) {
                    changes.insert(key, Some(coin_content(coin)));
                }
            }
        }
        let strict = self.valid.is_none();
        for delta in self.deltas {
            for rows in delta.scripts() {
                for spent in rows.spent {
                    let key = coin_key(prefix(spent.prefix), spent.vout, spent.tx_num);
                    if !self.range.has(&key) {
                        continue;
                    }
                    // Made by one of these blocks and spent by a later one: it never reaches the table.
                    if changes.remove(&key).is_none() || !strict {
                        changes.insert(key, None);
                    }
                }
                changes.extend(self.made(delta, &rows).filter(|(key, _)| self.range.has(key)));
            }
        }
        CoinChanges { changes: changes.into_iter().collect::<Vec<_>>().into_iter(), next: None, strict }
    }

    fn made(
        &self,
        delta: &'a Delta,
        rows: &ScriptRows<'a>,
    ) -> impl Iterator<Item = (CoinKey, Option<CoinContent>)> {
        let (len, script_key) = (self.prefix_len, rows.key);
        rows.made.iter().map(move |made| {
            let prefix = tx_prefix(&delta.head.txids[made.tx as usize]);
            let number = crate::types::TxNum(delta.head.first_tx + made.tx);
            let value = CoinValue { value: made.value, class: made.class, script_key };
            (coin_key(cut(prefix, len), made.vout, number), Some(coin_content(&value)))
        })
    }

    pub(crate) fn txs(&self) -> TxChanges {
        let mut keys: Vec<TxKey> = Vec::new();
        for delta in self.deltas {
            // The genesis coinbase, number 0, is not found by its id.
            let numbered =
                delta.head.txids.iter().zip(delta.head.first_tx..).filter(|(_, number)| *number > 0);
            let rows = numbered.map(|(txid, number)| tx_key(cut(tx_prefix(txid), self.prefix_len), number));
            keys.extend(rows.filter(|key| self.range.has(key)));
        }
        keys.sort_unstable();
        TxChanges { keys: keys.into_iter(), next: None }
    }
}

/// See [`DeltaChanges::scripts`].
pub(crate) struct ScriptChanges<'a> {
    deltas: &'a [Arc<Delta>],
    /// Key, place of the delta, place of the script in it.
    changes: Vec<(ScriptKey, u32, u32)>,
    at: usize,
    restored: IntoIter<ScriptKey>,
    next: Option<ScriptKey>,
    valid: Option<Valid<'a>>,
}

impl Change<SCRIPT_KEY> for ScriptChanges<'_> {
    fn peek(&mut self) -> Result<Option<[u8; SCRIPT_KEY]>, Error> {
        if self.next.is_none() {
            self.next = self.restored.next();
        }
        let changed = self.changes.get(self.at).map(|change| change.0);
        let next = match (self.next, changed) {
            (Some(restored), Some(changed)) => Some(restored.min(changed)),
            (restored, changed) => restored.or(changed),
        };
        Ok(next.map(|key| key.0))
    }

    fn apply(&mut self, content: Option<&[u8]>, out: &mut Vec<u8>) -> Result<bool, Error> {
        let Some(key) = self.peek()?.map(ScriptKey) else { return Ok(false) };
        self.next = self.next.filter(|restored| *restored != key);
        let mut group = content.map_or_else(|| Ok(Group::default()), Group::decode).map_err(wrong)?;
        if let Some(valid) = &self.valid {
            valid.undone.restore(&key, &mut group, valid.from, valid.end);
        }
        while let Some((_, delta, at)) = self.changes.get(self.at).filter(|change| change.0 == key) {
            let delta = &self.deltas[*delta as usize];
            let applied = group.apply(&delta.script_at(*at as usize), delta.head.first_tx);
            applied.map_err(|what| wrong(format!("{key:02x?}: {what}")))?;
            self.at += 1;
        }
        group.encode_to(out);
        Ok(!group.is_empty())
    }
}

/// See [`DeltaChanges::coins`].
pub(crate) struct CoinChanges {
    changes: IntoIter<(CoinKey, Option<CoinContent>)>,
    next: Option<(CoinKey, Option<CoinContent>)>,
    /// What is put must not be there, and what is removed must.
    strict: bool,
}

impl Change<COIN_KEY> for CoinChanges {
    fn peek(&mut self) -> Result<Option<CoinKey>, Error> {
        if self.next.is_none() {
            self.next = self.changes.next();
        }
        Ok(self.next.map(|(key, _)| key))
    }

    fn apply(&mut self, content: Option<&[u8]>, out: &mut Vec<u8>) -> Result<bool, Error> {
        let Some((key, coin)) = self.next.take() else { return Ok(false) };
        if self.strict && content.is_some() == coin.is_some() {
            let what = if content.is_some() { "is there already" } else { "is missing" };
            return Err(wrong(format!("coin {key:02x?} {what}")));
        }
        coin.iter().for_each(|coin| out.extend_from_slice(coin));
        Ok(coin.is_some())
    }
}

/// See [`DeltaChanges::txs`].
pub(crate) struct TxChanges {
    keys: IntoIter<TxKey>,
    next: Option<TxKey>,
}

impl Change<TX_KEY> for TxChanges {
    fn peek(&mut self) -> Result<Option<[u8; TX_KEY]>, Error> {
        if self.next.is_none() {
            self.next = self.keys.next();
        }
        Ok(self.next)
    }

    fn apply(&mut self, _: Option<&[u8]>, _: &mut Vec<u8>) -> Result<bool, Error> {
        Ok(self.next.take().is_some())
    }
}
