//! Keys and contents of the base's tables.
//!
//! Whether a txid that begins as a key does is the right one is the caller's to check.

use bitcoin::Amount;

use crate::codec::{DecodeError, Reader};
use crate::delta::{CoinValue, PREFIX_LEN, TxPrefix};
use crate::delta_row::{class_code, class_of_code};
use crate::types::{ScriptKey, TxNum};

pub(crate) const SCRIPT_KEY: usize = ScriptKey::LEN;
pub(crate) const COIN_KEY: usize = PREFIX_LEN + 8;
pub(crate) const TX_KEY: usize = PREFIX_LEN + 4;
pub(crate) const COIN_CONTENT: usize = 8 + ScriptKey::LEN;

/// Txid's first bytes ‖ vout 4 BE ‖ tx number 4 BE.
pub(crate) type CoinKey = [u8; COIN_KEY];
/// Word 8 LE: the value, and in the highest byte the class ‖ script key.
pub(crate) type CoinContent = [u8; COIN_CONTENT];
/// Txid's first bytes ‖ tx number 4 BE.
pub(crate) type TxKey = [u8; TX_KEY];

const CLASS_SHIFT: u32 = 56;

/// The bytes of a txid that keys keep; the others are zero.
pub(crate) fn cut(mut prefix: TxPrefix, len: u8) -> TxPrefix {
    prefix[usize::from(len).min(PREFIX_LEN)..].fill(0);
    prefix
}

pub(crate) fn tx_key(prefix: TxPrefix, number: u32) -> TxKey {
    let mut key = [0; TX_KEY];
    key[..PREFIX_LEN].copy_from_slice(&prefix);
    key[PREFIX_LEN..].copy_from_slice(&number.to_be_bytes());
    key
}

pub(crate) fn coin_key(prefix: TxPrefix, vout: u32, tx_num: TxNum) -> CoinKey {
    let mut key = [0; COIN_KEY];
    key[..PREFIX_LEN].copy_from_slice(&prefix);
    key[PREFIX_LEN..PREFIX_LEN + 4].copy_from_slice(&vout.to_be_bytes());
    key[PREFIX_LEN + 4..].copy_from_slice(&tx_num.0.to_be_bytes());
    key
}

/// Output index and transaction number of a coin's key.
pub(crate) fn coin_place(key: &CoinKey) -> (u32, TxNum) {
    let number = |at: usize| key[at..at + 4].iter().fold(0u32, |number, byte| number << 8 | u32::from(*byte));
    (number(PREFIX_LEN), TxNum(number(PREFIX_LEN + 4)))
}

/// Number of a transaction's key.
pub(crate) fn tx_number(key: &TxKey) -> TxNum {
    TxNum(key[PREFIX_LEN..].iter().fold(0u32, |number, byte| number << 8 | u32::from(*byte)))
}

pub(crate) fn coin_content(coin: &CoinValue) -> CoinContent {
    let mut content = [0; COIN_CONTENT];
    let word = coin.value.to_sat() | u64::from(class_code(coin.class)) << CLASS_SHIFT;
    content[..8].copy_from_slice(&word.to_le_bytes());
    content[8..].copy_from_slice(&coin.script_key.0);
    content
}

pub(crate) fn decode_coin(content: &[u8]) -> Result<CoinValue, DecodeError> {
    let mut reader = Reader::new(content);
    let word = u64::from_le_bytes(reader.array()?);
    let Some(class) = class_of_code((word >> CLASS_SHIFT) as u8) else {
        return reader.fail("unknown script class");
    };
    let value = Amount::from_sat(word & ((1 << CLASS_SHIFT) - 1));
    Ok(CoinValue { value, class, script_key: ScriptKey(reader.array()?) })
}
