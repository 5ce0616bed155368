//! The records of sorted runs: fixed sizes, ordered as the tables that they end in.
//!
//! ```text
//! history | script key 12 | number 4 BE |
//! txs     | txid's first 6 | number 4 BE |
//! unspent | script key 12 | number 4 BE | output 4 BE | word 8 BE |
//! coin    | txid's first 6 | output's low 2 BE | keyed hash of the outpoint 8 BE | word 8 BE | number 4 BE | script key 12 |
//! ```
//! A coin's word: value in the lowest 51 bits, class above it in two, then bits for "of a coinbase", "gone", and two
//! that only memory uses; in the highest seven bits those of the output that are left. That of an unspent output has
//! the value, and the bit for "gone".

use std::cmp::Ordering;
use std::fmt::Debug;

use bitcoin::Amount;

use crate::delta::TxPrefix;
use crate::delta_row::{class_code, class_of_code};
use crate::types::{ScriptClass, ScriptKey};

/// A record of a run. Equal ones are one.
pub(crate) trait Row: Copy + Ord + Debug + Send + Sync {
    const LEN: usize;
    fn put(&self, out: &mut Vec<u8>);
    /// From exactly `LEN` bytes.
    fn get(bytes: &[u8]) -> Self;
    /// First four bytes of the key that it ends under.
    fn head(&self) -> u32;
}

/// A transaction in the history of a script: key, then number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct HistoryRow(u128);

/// A transaction by the start of its id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct TxRow {
    /// In the lowest six bytes.
    prefix: u64,
    pub(crate) number: u32,
}

/// An output that became, or is no longer, unspent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct UnspentRow {
    /// Key, then number.
    place: HistoryRow,
    pub(crate) vout: u32,
    word: u64,
}

/// What tells an outpoint from all others.
///
/// The start of the txid orders coins as the index wants them; the hash, by a secret of this folder, is what an
/// attacker cannot make collide. So no coin has to be checked against its full txid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct CoinKey {
    /// The txid's first six bytes, then the two low ones of the output.
    pub(crate) place: u64,
    pub(crate) hash: u64,
}

/// A coin, or that there is none any more.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CoinRow {
    pub(crate) key: CoinKey,
    word: u64,
    pub(crate) number: u32,
    pub(crate) script_key: ScriptKey,
}

const VALUE: u64 = (1 << 51) - 1;
const CLASS_SHIFT: u32 = 51;
const COINBASE: u64 = 1 << 53;
const GONE: u64 = 1 << 54;
const STORED: u64 = 1 << 55;
const DIRTY: u64 = 1 << 56;
const VOUT_SHIFT: u32 = 57;
/// No transaction of four million bytes has so many.
pub(crate) const MAX_OUTPUTS: u32 = 1 << 23;

/// The big-endian number at `at`; past the end there are zeros.
fn be(bytes: &[u8], at: usize, len: usize) -> u64 {
    bytes.iter().skip(at).take(len).fold(0, |word, byte| word << 8 | u64::from(*byte))
}

fn be32(bytes: &[u8], at: usize) -> u32 {
    be(bytes, at, 4) as u32
}

fn script_key(bytes: &[u8], at: usize) -> ScriptKey {
    let mut key = [0; ScriptKey::LEN];
    key.iter_mut().zip(bytes.iter().skip(at)).for_each(|(byte, found)| *byte = *found);
    ScriptKey(key)
}

/// A prefix as a number.
pub(crate) fn prefix_word(prefix: TxPrefix) -> u64 {
    be(&prefix, 0, prefix.len())
}

/// The other way.
fn prefix_of(word: u64) -> TxPrefix {
    let [_, _, prefix @ ..] = word.to_be_bytes();
    prefix
}

impl HistoryRow {
    pub(crate) fn new(key: &ScriptKey, number: u32) -> Self {
        let mut bytes = [0; 16];
        bytes[..ScriptKey::LEN].copy_from_slice(&key.0);
        bytes[ScriptKey::LEN..].copy_from_slice(&number.to_be_bytes());
        Self(u128::from_be_bytes(bytes))
    }

    pub(crate) fn number(&self) -> u32 {
        self.0 as u32
    }

    pub(crate) fn script_key(&self) -> ScriptKey {
        script_key(&self.0.to_be_bytes(), 0)
    }

    pub(crate) fn has_key_of(&self, other: &Self) -> bool {
        self.0 >> 32 == other.0 >> 32
    }
}

impl Row for HistoryRow {
    const LEN: usize = 16;

    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.0.to_be_bytes());
    }

    fn get(bytes: &[u8]) -> Self {
        Self(bytes.first_chunk().map_or(0, |bytes| u128::from_be_bytes(*bytes)))
    }

    fn head(&self) -> u32 {
        (self.0 >> 96) as u32
    }
}

impl TxRow {
    pub(crate) fn new(prefix: TxPrefix, number: u32) -> Self {
        Self { prefix: prefix_word(prefix), number }
    }

    pub(crate) fn prefix(&self) -> TxPrefix {
        prefix_of(self.prefix)
    }
}

impl Row for TxRow {
    const LEN: usize = 10;

    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.prefix());
        out.extend_from_slice(&self.number.to_be_bytes());
    }

    fn get(bytes: &[u8]) -> Self {
        Self { prefix: be(bytes, 0, 6), number: be32(bytes, 6) }
    }

    fn head(&self) -> u32 {
        (self.prefix >> 16) as u32
    }
}

impl UnspentRow {
    /// Of a coin of the index: it is there from now on, or it is gone.
    pub(crate) fn new(coin: &CoinRow) -> Self {
        let place = HistoryRow::new(&coin.script_key, coin.number);
        Self { place, vout: coin.vout(), word: coin.word & (VALUE | GONE) }
    }

    pub(crate) fn place(&self) -> &HistoryRow {
        &self.place
    }

    pub(crate) fn value(&self) -> Amount {
        Amount::from_sat(self.word & VALUE)
    }

    pub(crate) fn is_gone(&self) -> bool {
        self.word & GONE != 0
    }
}

impl Row for UnspentRow {
    const LEN: usize = 28;

    fn put(&self, out: &mut Vec<u8>) {
        self.place.put(out);
        out.extend_from_slice(&self.vout.to_be_bytes());
        out.extend_from_slice(&self.word.to_be_bytes());
    }

    fn get(bytes: &[u8]) -> Self {
        Self { place: HistoryRow::get(bytes), vout: be32(bytes, 16), word: be(bytes, 20, 8) }
    }

    fn head(&self) -> u32 {
        self.place.head()
    }
}

impl CoinKey {
    pub(crate) fn new(prefix: TxPrefix, vout: u32, hash: u64) -> Self {
        Self { place: prefix_word(prefix) << 16 | u64::from(vout & 0xffff), hash }
    }

    pub(crate) fn prefix(&self) -> TxPrefix {
        prefix_of(self.place >> 16)
    }
}

/// What a [`CoinRow`] is made of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NewCoin {
    pub(crate) number: u32,
    pub(crate) vout: u32,
    pub(crate) value: Amount,
    pub(crate) class: ScriptClass,
    pub(crate) is_coinbase: bool,
    pub(crate) script_key: ScriptKey,
}

impl CoinRow {
    /// A coin that no run has yet.
    pub(crate) fn made(key: CoinKey, coin: &NewCoin) -> Self {
        let class = u64::from(class_code(coin.class)) << CLASS_SHIFT;
        let coinbase = if coin.is_coinbase { COINBASE } else { 0 };
        let vout = u64::from(coin.vout >> 16) << VOUT_SHIFT;
        let word = (coin.value.to_sat() & VALUE) | class | coinbase | vout | DIRTY;
        Self { key, number: coin.number, word, script_key: coin.script_key }
    }

    pub(crate) fn vout(&self) -> u32 {
        (self.key.place & 0xffff) as u32 | ((self.word >> VOUT_SHIFT) as u32) << 16
    }

    pub(crate) fn value(&self) -> Amount {
        Amount::from_sat(self.word & VALUE)
    }

    pub(crate) fn class(&self) -> ScriptClass {
        class_of_code((self.word >> CLASS_SHIFT & 3) as u8).unwrap_or(ScriptClass::Other)
    }

    pub(crate) fn is_coinbase(&self) -> bool {
        self.word & COINBASE != 0
    }

    /// Whether this says that there is no such coin.
    pub(crate) fn is_gone(&self) -> bool {
        self.word & GONE != 0
    }

    /// Whether a run, or the base below, has something of that key.
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
    const LEN: usize = 40;

    fn put(&self, out: &mut Vec<u8>) {
        for word in [self.key.place, self.key.hash, self.word] {
            out.extend_from_slice(&word.to_be_bytes());
        }
        out.extend_from_slice(&self.number.to_be_bytes());
        out.extend_from_slice(&self.script_key.0);
    }

    fn get(bytes: &[u8]) -> Self {
        let key = CoinKey { place: be(bytes, 0, 8), hash: be(bytes, 8, 8) };
        let (word, number) = (be(bytes, 16, 8), be32(bytes, 24));
        Self { key, number, word, script_key: script_key(bytes, 28) }
    }

    fn head(&self) -> u32 {
        (self.key.place >> 32) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip<R: Row>(row: R) -> R {
        let mut bytes = Vec::new();
        row.put(&mut bytes);
        assert_eq!(bytes.len(), R::LEN);
        let back = R::get(&bytes);
        assert_eq!(back.head().to_be_bytes(), bytes[..4], "the head is what the key begins with");
        back
    }

    #[test]
    fn rows_come_back_and_are_ordered_as_their_bytes() {
        let key = ScriptKey([7, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 255]);
        let history = HistoryRow::new(&key, 0x01020304);
        assert_eq!(round_trip(history), history);
        assert_eq!((history.script_key(), history.number()), (key, 0x01020304));
        let tx = TxRow::new([9; 6], 3);
        assert_eq!(round_trip(tx), tx);
        assert_eq!(tx.prefix(), [9; 6]);
        let value = Amount::from_sat(21_000_000 * 100_000_000);
        for vout in [2, 0x1_0002, MAX_OUTPUTS - 1] {
            let place = CoinKey::new([5; 6], vout, u64::MAX);
            assert_eq!(place.prefix(), [5; 6]);
            let made = NewCoin {
                number: 9,
                vout,
                value,
                class: ScriptClass::P2wsh,
                is_coinbase: true,
                script_key: key,
            };
            let coin = CoinRow::made(place, &made);
            let back = round_trip(coin);
            assert_eq!((back.key, back.value(), back.class()), (place, value, ScriptClass::P2wsh));
            assert_eq!((back.vout(), back.number, back.script_key), (vout, 9, key));
            assert!(back.is_coinbase() && back.is_dirty() && !back.is_gone() && !back.is_stored());
            assert!(back.stored().gone().is_stored());
            let unspent = UnspentRow::new(&coin.gone());
            assert_eq!(round_trip(unspent), unspent);
            assert!(unspent.is_gone() && unspent.value() == value && unspent.vout == vout);
        }
        let mut bytes = [Vec::new(), Vec::new()];
        for (out, number) in bytes.iter_mut().zip([255, 256]) {
            HistoryRow::new(&key, number).put(out);
        }
        assert!(bytes[0] < bytes[1]);
    }
}
