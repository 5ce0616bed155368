//! All that the base knows of one script: its history and its unspent outputs, as one row.
//!
//! ```text
//! group | count varint | for each transaction: number minus the one before, varint
//!       | count varint | for each unspent output: number minus the one before, vout, value, varints |
//! ```
//! Both lists ascend. Balance and unspent outputs are one read, and an empty group is no row.

use bitcoin::Amount;

use crate::codec::{DecodeError, Reader, put_varint};
use crate::delta::ScriptRows;
use crate::types::TxNum;

/// An unspent output of a script.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct GroupCoin {
    pub(crate) tx_num: TxNum,
    pub(crate) vout: u32,
    pub(crate) value: Amount,
}

/// History and unspent outputs of a script.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Group {
    pub(crate) history: Vec<TxNum>,
    pub(crate) unspent: Vec<GroupCoin>,
}

impl Group {
    #[cfg(test)]
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.history.len() * 3 + self.unspent.len() * 8 + 2);
        self.encode_to(&mut out);
        out
    }

    /// Appends the row to `out`.
    pub(crate) fn encode_to(&self, out: &mut Vec<u8>) {
        put_varint(out, self.history.len() as u64);
        let mut before = 0;
        for number in &self.history {
            put_varint(out, u64::from(number.0 - before));
            before = number.0;
        }
        put_varint(out, self.unspent.len() as u64);
        let mut before = 0;
        for coin in &self.unspent {
            put_varint(out, u64::from(coin.tx_num.0 - before));
            before = coin.tx_num.0;
            put_varint(out, u64::from(coin.vout));
            put_varint(out, coin.value.to_sat());
        }
    }

    pub(crate) fn decode(row: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(row);
        let mut group = Self::default();
        let mut before = 0;
        for at in 0..reader.count(1)? {
            let number = reader.add(before)?;
            if at > 0 && number == before {
                return reader.fail("history out of order");
            }
            before = number;
            group.history.push(TxNum(number));
        }
        let mut before = 0;
        for _ in 0..reader.count(3)? {
            before = reader.add(before)?;
            let (vout, value) = (reader.varint32()?, reader.varint()?);
            let coin = GroupCoin { tx_num: TxNum(before), vout, value: Amount::from_sat(value) };
            if group.unspent.last().is_some_and(|last| place(last) >= place(&coin)) {
                return reader.fail("coins out of order");
            }
            group.unspent.push(coin);
        }
        reader.finish()?;
        Ok(group)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.history.is_empty() && self.unspent.is_empty()
    }

    /// Does what a block does to this script; `first_tx` is the number of its coinbase.
    pub(crate) fn apply(&mut self, rows: &ScriptRows<'_>, first_tx: u32) -> Result<(), &'static str> {
        for replaced in rows.replaced {
            let at = self
                .history
                .binary_search(replaced)
                .map_err(|_| "replaced transaction not in the history")?;
            self.history.remove(at);
        }
        self.history.extend(rows.history.iter().map(|at| TxNum(first_tx + at)));
        for spent in rows.spent {
            self.remove(spent.tx_num, spent.vout)?;
        }
        let made = rows.made.iter();
        self.unspent.extend(made.map(|made| GroupCoin {
            tx_num: TxNum(first_tx + made.tx),
            vout: made.vout,
            value: made.value,
        }));
        Ok(())
    }

    /// Takes a coin.
    pub(crate) fn remove(&mut self, tx_num: TxNum, vout: u32) -> Result<(), &'static str> {
        let at = self.unspent.binary_search_by_key(&(tx_num, vout), place);
        self.unspent.remove(at.map_err(|_| "a coin to remove is not there")?);
        Ok(())
    }
}

fn place(coin: &GroupCoin) -> (TxNum, u32) {
    (coin.tx_num, coin.vout)
}
