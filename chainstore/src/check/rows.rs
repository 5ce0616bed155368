//! The base as a check walks it: three tables, each once and in any order of rows.
//!
//! This is all that a check knows of how the base is stored.

use crate::base::{Base, Table, decode_coin};
use crate::codec::{DecodeError, Reader};
use crate::delta::{CoinValue, TxPrefix};
use crate::error::Error;
use crate::group::Group;
use crate::types::{ScriptKey, TxNum};

/// A row of the coins table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BaseCoin {
    pub(crate) prefix: TxPrefix,
    pub(crate) vout: u32,
    pub(crate) tx_num: TxNum,
    pub(crate) coin: CoinValue,
}

/// Errors are those of reading the base, or what `each` gave back.
pub(crate) trait BaseRows {
    fn each_group(&self, each: &mut dyn FnMut(ScriptKey, Group) -> Result<(), Error>) -> Result<(), Error>;
    fn each_coin(&self, each: &mut dyn FnMut(BaseCoin) -> Result<(), Error>) -> Result<(), Error>;
    fn each_tx(&self, each: &mut dyn FnMut(TxPrefix, TxNum) -> Result<(), Error>) -> Result<(), Error>;
}

fn fault(fault: DecodeError) -> Error {
    Error::corrupt(crate::base::DIR, fault.to_string())
}

impl BaseRows for Base {
    fn each_group(&self, each: &mut dyn FnMut(ScriptKey, Group) -> Result<(), Error>) -> Result<(), Error> {
        self.walk(Table::Scripts, &mut |key, content| {
            let key = ScriptKey(Reader::new(key).array().map_err(fault)?);
            each(key, Group::decode(content).map_err(fault)?)
        })
    }

    fn each_coin(&self, each: &mut dyn FnMut(BaseCoin) -> Result<(), Error>) -> Result<(), Error> {
        self.walk(Table::Coins, &mut |key, content| {
            let mut reader = Reader::new(key);
            let prefix = reader.array().map_err(fault)?;
            let mut number = || reader.array().map(u32::from_be_bytes).map_err(fault);
            let (vout, tx_num) = (number()?, TxNum(number()?));
            each(BaseCoin { prefix, vout, tx_num, coin: decode_coin(content).map_err(fault)? })
        })
    }

    fn each_tx(&self, each: &mut dyn FnMut(TxPrefix, TxNum) -> Result<(), Error>) -> Result<(), Error> {
        self.walk(Table::Txs, &mut |key, _| {
            let mut reader = Reader::new(key);
            let prefix = reader.array().map_err(fault)?;
            let number = reader.array().map(u32::from_be_bytes).map_err(fault)?;
            each(prefix, TxNum(number))
        })
    }
}
