//! The records of sorted runs: fixed sizes, ordered as the tables that they end in.
//!
//! ```text
//! history | script key 16 | number 4 BE |
//! txs     | txid's first 8 | number 4 BE |
//! unspent | script key 16 | number 4 BE | output 4 BE | value 8 LE |
//! coin    | txid's first 8 | keyed hash of the outpoint 8 BE | number 4 BE | output 4 BE | word 8 LE | script key 16 |
//! ```

use std::cmp::Ordering;
use std::fmt::Debug;

use bitcoin::Amount;

use crate::delta::TxPrefix;
use crate::types::{ScriptClass, ScriptKey};

/// A record of a run. Equal ones are one.
pub(crate) trait Row: Copy + Ord + Debug + Send + Sync {
    const LEN: usize;
    fn put(&self, out: &mut Vec<u8>);
    /// From exactly `LEN` bytes.
    fn get(bytes: &[u8]) -> Self;
}

/// A transaction in the history of a script.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct HistoryRow {
    key: [u64; 2],
    pub(crate) number: u32,
}

/// A transaction by the start of its id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct TxRow {
    prefix: u64,
    pub(crate) number: u32,
}

/// An unspent output of a script.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct UnspentRow {
    key: [u64; 2],
    pub(crate) number: u32,
    pub(crate) vout: u32,
    pub(crate) value: u64,
}

/// What tells an outpoint from all others.
///
/// The start of the txid orders coins as the index wants them; the hash, by a secret of this folder, is what an
/// attacker cannot make collide. So no coin has to be checked against its full txid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct CoinKey {
    pub(crate) prefix: u64,
    pub(crate) hash: u64,
}

/// A coin, or that there is none any more.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CoinRow {
    pub(crate) key: CoinKey,
    pub(crate) number: u32,
    pub(crate) vout: u32,
    word: u64,
    pub(crate) script_key: ScriptKey,
}

/// Bits of a coin's word above its value, which is below 2^51.
const CLASS_SHIFT: u32 = 56;
const COINBASE: u64 = 1 << 58;
const GONE: u64 = 1 << 59;
const STORED: u64 = 1 << 60;
const DIRTY: u64 = 1 << 61;
const VALUE: u64 = (1 << CLASS_SHIFT) - 1;

fn words(key: &ScriptKey) -> [u64; 2] {
    let (high, low) = key.0.split_at(8);
    [high, low].map(|half| half.iter().fold(0, |word, byte| word << 8 | u64::from(*byte)))
}

fn script_key(words: [u64; 2]) -> ScriptKey {
    let mut key = [0; 16];
    key.copy_from_slice(words.map(u64::to_be_bytes).as_flattened());
    ScriptKey(key)
}

/// The big-endian number at `at`; past the end there are zeros.
fn be64(bytes: &[u8], at: usize) -> u64 {
    bytes.iter().skip(at).take(8).fold(0, |word, byte| word << 8 | u64::from(*byte))
}

fn be32(bytes: &[u8], at: usize) -> u32 {
    bytes.iter().skip(at).take(4).fold(0, |word, byte| word << 8 | u32::from(*byte))
}

impl HistoryRow {
    pub(crate) fn new(key: &ScriptKey, number: u32) -> Self {
        Self { key: words(key), number }
    }

    pub(crate) fn script_key(&self) -> ScriptKey {
        script_key(self.key)
    }
}

impl Row for HistoryRow {
    const LEN: usize = 20;

    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.key.map(u64::to_be_bytes).as_flattened());
        out.extend_from_slice(&self.number.to_be_bytes());
    }

    fn get(bytes: &[u8]) -> Self {
        Self { key: [be64(bytes, 0), be64(bytes, 8)], number: be32(bytes, 16) }
    }
}

impl TxRow {
    pub(crate) fn new(prefix: TxPrefix, number: u32) -> Self {
        Self { prefix: u64::from_be_bytes(prefix), number }
    }

    pub(crate) fn prefix(&self) -> TxPrefix {
        self.prefix.to_be_bytes()
    }
}

impl Row for TxRow {
    const LEN: usize = 12;

    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.prefix.to_be_bytes());
        out.extend_from_slice(&self.number.to_be_bytes());
    }

    fn get(bytes: &[u8]) -> Self {
        Self { prefix: be64(bytes, 0), number: be32(bytes, 8) }
    }
}

impl UnspentRow {
    pub(crate) fn new(coin: &CoinRow) -> Self {
        Self {
            key: words(&coin.script_key),
            number: coin.number,
            vout: coin.vout,
            value: coin.value().to_sat(),
        }
    }

    pub(crate) fn script_key(&self) -> ScriptKey {
        script_key(self.key)
    }
}

impl Row for UnspentRow {
    const LEN: usize = 32;

    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.key.map(u64::to_be_bytes).as_flattened());
        out.extend_from_slice(&self.number.to_be_bytes());
        out.extend_from_slice(&self.vout.to_be_bytes());
        out.extend_from_slice(&self.value.to_be_bytes());
    }

    fn get(bytes: &[u8]) -> Self {
        Self {
            key: [be64(bytes, 0), be64(bytes, 8)],
            number: be32(bytes, 16),
            vout: be32(bytes, 20),
            value: be64(bytes, 24),
        }
    }
}

impl CoinRow {
    /// A coin that no run has yet.
    pub(crate) fn made(
        key: CoinKey,
        number: u32,
        vout: u32,
        value: Amount,
        class: ScriptClass,
        is_coinbase: bool,
        script_key: ScriptKey,
    ) -> Self {
        let class = match class {
            ScriptClass::Other => 0,
            ScriptClass::P2sh => 1,
            ScriptClass::P2wpkh => 2,
            ScriptClass::P2wsh => 3,
        };
        let coinbase = if is_coinbase { COINBASE } else { 0 };
        let word = (value.to_sat() & VALUE) | class << CLASS_SHIFT | coinbase | DIRTY;
        Self { key, number, vout, word, script_key }
    }

    pub(crate) fn value(&self) -> Amount {
        Amount::from_sat(self.word & VALUE)
    }

    pub(crate) fn class(&self) -> ScriptClass {
        match self.word >> CLASS_SHIFT & 3 {
            1 => ScriptClass::P2sh,
            2 => ScriptClass::P2wpkh,
            3 => ScriptClass::P2wsh,
            _ => ScriptClass::Other,
        }
    }

    pub(crate) fn is_coinbase(&self) -> bool {
        self.word & COINBASE != 0
    }

    /// Whether this says that there is no such coin.
    pub(crate) fn is_gone(&self) -> bool {
        self.word & GONE != 0
    }

    /// Whether a run has something of that key.
    pub(crate) fn is_stored(&self) -> bool {
        self.word & STORED != 0
    }

    /// Whether no run says what this says.
    pub(crate) fn is_dirty(&self) -> bool {
        self.word & DIRTY != 0
    }

    /// The same as a run has it.
    pub(crate) fn stored(mut self) -> Self {
        self.word = (self.word | STORED) & !DIRTY;
        self
    }

    /// Keeps the mark of an older row of that key.
    pub(crate) fn over(mut self, older: &Self) -> Self {
        self.word |= older.word & STORED;
        self
    }

    /// That the coin is spent, for the next run.
    pub(crate) fn gone(mut self) -> Self {
        self.word |= GONE | DIRTY;
        self
    }
}

impl PartialEq for CoinRow {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key
    }
}

impl Eq for CoinRow {}

impl PartialOrd for CoinRow {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for CoinRow {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key.cmp(&other.key)
    }
}

impl Row for CoinRow {
    const LEN: usize = 48;

    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.key.prefix.to_be_bytes());
        out.extend_from_slice(&self.key.hash.to_be_bytes());
        out.extend_from_slice(&self.number.to_be_bytes());
        out.extend_from_slice(&self.vout.to_be_bytes());
        out.extend_from_slice(&self.word.to_be_bytes());
        out.extend_from_slice(&self.script_key.0);
    }

    fn get(bytes: &[u8]) -> Self {
        let key = CoinKey { prefix: be64(bytes, 0), hash: be64(bytes, 8) };
        let (number, vout, word) = (be32(bytes, 16), be32(bytes, 20), be64(bytes, 24));
        Self { key, number, vout, word, script_key: script_key([be64(bytes, 32), be64(bytes, 40)]) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip<R: Row>(row: R) -> R {
        let mut bytes = Vec::new();
        row.put(&mut bytes);
        assert_eq!(bytes.len(), R::LEN);
        R::get(&bytes)
    }

    #[test]
    fn rows_come_back_and_are_ordered_as_their_bytes() {
        let key = ScriptKey([7, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 255]);
        let history = HistoryRow::new(&key, 0x01020304);
        assert_eq!(round_trip(history), history);
        assert_eq!(history.script_key(), key);
        let tx = TxRow::new([9; 8], 3);
        assert_eq!(round_trip(tx), tx);
        let place = CoinKey { prefix: 5, hash: u64::MAX };
        let value = Amount::from_sat(21_000_000 * 100_000_000);
        let coin = CoinRow::made(place, 9, 2, value, ScriptClass::P2wsh, true, key);
        let back = round_trip(coin);
        assert_eq!((back.key, back.value(), back.class()), (place, value, ScriptClass::P2wsh));
        assert!(back.is_coinbase() && back.is_dirty() && !back.is_gone() && !back.is_stored());
        assert!(back.stored().gone().is_stored());
        let unspent = UnspentRow::new(&coin);
        assert_eq!(round_trip(unspent), unspent);
        let mut bytes = [Vec::new(), Vec::new()];
        for (out, number) in bytes.iter_mut().zip([255, 256]) {
            HistoryRow::new(&key, number).put(out);
        }
        assert!(bytes[0] < bytes[1]);
    }
}
