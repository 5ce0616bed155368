//! A block in its bytes: its transactions, inputs and outputs are looked at where they lie.
//!
//! Nothing is decoded into structures of its own, of which a chain has thousands of millions. What is accepted here is
//! exactly what the library's decoder accepts, and the same is read out of it. Every count is held against the bytes
//! behind it first, so nothing is set aside for what is only announced.
//! Source: Bitcoin Core `serialize.h`, `primitives/transaction.h`; BIP144.

use bitcoin::block::Header;
use bitcoin::consensus::deserialize;
use bitcoin::hashes::{Hash, HashEngine, sha256d};
use bitcoin::{OutPoint, Script, Txid};

use super::transaction::{InputParts, OutputParts, TransactionParts};

/// Bytes of the header.
const HEADER: usize = 80;
/// Bytes of the least transaction: version, no inputs, no outputs, lock time.
const LEAST_TRANSACTION: u64 = 10;
/// Outpoint, an empty script, sequence.
const LEAST_INPUT: u64 = 41;
/// Value, an empty script.
const LEAST_OUTPUT: u64 = 9;
/// An empty one is its length alone.
const LEAST_WITNESS_ITEM: u64 = 1;
/// Stands after the 0 where the count of inputs would, in a transaction with witnesses (BIP144).
const WITNESS_FLAG: u8 = 1;
/// Transactions for which room is made at once.
const ROOM: usize = 4_096;

const ENDS_EARLY: &str = "the bytes end early";
const MORE_THAN_FOLLOWS: &str = "more is announced than follows";
const UNKNOWN_FLAG: &str = "a transaction's flag is unknown";
const NO_WITNESS: &str = "a transaction's flag announces witnesses, and there are none";
const LONG_NUMBER: &str = "a number is written longer than it need be";
const TOO_LONG: &str = "bytes follow the last transaction";

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct RawBlock<'a> {
    pub header: Header,
    pub txs: Vec<RawTx<'a>>,
}

/// A transaction in its bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct RawTx<'a> {
    /// All of it.
    pub bytes: &'a [u8],
    /// From the count of inputs to the last output.
    body: &'a [u8],
    /// The inputs, and the outputs, without their counts.
    inputs: &'a [u8],
    outputs: &'a [u8],
    input_count: usize,
    output_count: usize,
    /// Of each input its witness; empty in a transaction that is written without.
    witnesses: &'a [u8],
    /// Where it starts in the block.
    pub offset: u32,
    lock_time: u32,
}

impl<'a> RawBlock<'a> {
    /// Finds everything in the bytes; the error says in words what is amiss.
    pub fn parse(raw: &'a [u8]) -> Result<Self, &'static str> {
        let mut rest = Rest(raw);
        let header = deserialize(rest.take(HEADER)?).map_err(|_| ENDS_EARLY)?;
        let count = rest.count(LEAST_TRANSACTION)?;
        let mut txs = Vec::with_capacity(count.min(ROOM));
        for _ in 0..count {
            let offset = (raw.len() - rest.0.len()) as u32;
            txs.push(rest.transaction(offset)?);
        }
        if rest.0.is_empty() { Ok(Self { header, txs }) } else { Err(TOO_LONG) }
    }
}

impl<'a> RawTx<'a> {
    /// Whether any of its inputs has a witness.
    pub fn has_witness(&self) -> bool {
        !self.witnesses.is_empty()
    }

    /// Double SHA-256 of it without witnesses, in the order in which it is computed.
    pub fn txid(&self) -> Txid {
        let end = self.bytes.len().saturating_sub(4);
        // Without the flag, version and lock time stand directly around the body.
        if self.bytes.len() == self.body.len() + 8 {
            return Txid::from_raw_hash(sha256d::Hash::hash(self.bytes));
        }
        let mut engine = sha256d::Hash::engine();
        engine.input(self.bytes.get(..4).unwrap_or_default());
        engine.input(self.body);
        engine.input(self.bytes.get(end..).unwrap_or_default());
        Txid::from_raw_hash(sha256d::Hash::from_engine(engine))
    }

    /// The same with witnesses.
    pub fn wtxid(&self) -> sha256d::Hash {
        sha256d::Hash::hash(self.bytes)
    }

    /// The items of each input's witness; of a transaction without witnesses none of any.
    pub fn witnesses(&self) -> impl Iterator<Item = RawWitness<'a>> + use<'a> {
        let mut rest = Rest(self.witnesses);
        (0..self.input_count).map(move |_| rest.witness().unwrap_or_default())
    }
}

impl TransactionParts for RawTx<'_> {
    fn inputs(&self) -> impl ExactSizeIterator<Item = InputParts<'_>> {
        let mut rest = Rest(self.inputs);
        (0..self.input_count).map(move |_| rest.input().unwrap_or_default())
    }

    fn outputs(&self) -> impl ExactSizeIterator<Item = OutputParts<'_>> {
        let mut rest = Rest(self.outputs);
        (0..self.output_count).map(move |_| rest.output().unwrap_or_default())
    }

    fn version(&self) -> u32 {
        self.bytes.first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes))
    }

    fn lock_time(&self) -> u32 {
        self.lock_time
    }

    fn base_size(&self) -> usize {
        self.body.len() + 8
    }
}

/// One input's witness.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct RawWitness<'a> {
    pub len: usize,
    items: &'a [u8],
}

impl<'a> RawWitness<'a> {
    pub fn items(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let mut rest = Rest(self.items);
        (0..self.len).map(move |_| rest.string().unwrap_or_default())
    }
}

/// What is not yet read.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn transaction(&mut self, offset: u32) -> Result<RawTx<'a>, &'static str> {
        let (all, mut body_from) = (self.0, 4);
        self.take(4)?;
        let mut input_count = self.count(LEAST_INPUT)?;
        let has_flag = input_count == 0;
        if has_flag {
            if self.take(1)? != [WITNESS_FLAG] {
                return Err(UNKNOWN_FLAG);
            }
            body_from += 2;
            input_count = self.count(LEAST_INPUT)?;
        }
        let inputs_from = self.0;
        for _ in 0..input_count {
            self.take(36)?;
            self.string()?;
            self.take(4)?;
        }
        let inputs = read(inputs_from, self.0);
        let output_count = self.count(LEAST_OUTPUT)?;
        let outputs_from = self.0;
        for _ in 0..output_count {
            self.take(8)?;
            self.string()?;
        }
        let outputs = read(outputs_from, self.0);
        let body = read(all, self.0).get(body_from..).ok_or(ENDS_EARLY)?;
        let witnesses_from = self.0;
        if has_flag {
            let mut items = 0;
            for _ in 0..input_count {
                items += self.witness()?.len;
            }
            if items == 0 && input_count > 0 {
                return Err(NO_WITNESS);
            }
        }
        let witnesses = read(witnesses_from, self.0);
        let lock_time = u32::from_le_bytes(*self.array()?);
        let bytes = read(all, self.0);
        Ok(RawTx { bytes, body, inputs, outputs, input_count, output_count, witnesses, offset, lock_time })
    }

    fn input(&mut self) -> Result<InputParts<'a>, &'static str> {
        let txid = Txid::from_byte_array(*self.array()?);
        let previous_output = OutPoint { txid, vout: u32::from_le_bytes(*self.array()?) };
        let script_sig = Script::from_bytes(self.string()?);
        Ok(InputParts { previous_output, script_sig, sequence: u32::from_le_bytes(*self.array()?) })
    }

    fn output(&mut self) -> Result<OutputParts<'a>, &'static str> {
        let value = u64::from_le_bytes(*self.array()?);
        Ok(OutputParts { value, script: Script::from_bytes(self.string()?) })
    }

    fn witness(&mut self) -> Result<RawWitness<'a>, &'static str> {
        let len = self.count(LEAST_WITNESS_ITEM)?;
        let from = self.0;
        for _ in 0..len {
            self.string()?;
        }
        Ok(RawWitness { len, items: read(from, self.0) })
    }

    /// A count of things that take at least `least` bytes each.
    fn count(&mut self, least: u64) -> Result<usize, &'static str> {
        let count = self.number()?;
        match count.checked_mul(least) {
            Some(bytes) if bytes <= self.0.len() as u64 => Ok(count as usize),
            Some(_) | None => Err(MORE_THAN_FOLLOWS),
        }
    }

    /// Bytes behind their length.
    #[inline]
    fn string(&mut self) -> Result<&'a [u8], &'static str> {
        let length = self.count(1)?;
        self.take(length)
    }

    /// A compact size, written the short way.
    #[inline]
    fn number(&mut self) -> Result<u64, &'static str> {
        let (number, least) = match self.array::<1>()?[0] {
            0xfd => (u64::from(u16::from_le_bytes(*self.array()?)), 0xfd),
            0xfe => (u64::from(u32::from_le_bytes(*self.array()?)), 0x1_0000),
            0xff => (u64::from_le_bytes(*self.array()?), 0x1_0000_0000),
            small => (u64::from(small), 0),
        };
        if number < least { Err(LONG_NUMBER) } else { Ok(number) }
    }

    #[inline]
    fn array<const N: usize>(&mut self) -> Result<&'a [u8; N], &'static str> {
        let (array, rest) = self.0.split_first_chunk().ok_or(ENDS_EARLY)?;
        self.0 = rest;
        Ok(array)
    }

    #[inline]
    fn take(&mut self, bytes: usize) -> Result<&'a [u8], &'static str> {
        let (taken, rest) = self.0.split_at_checked(bytes).ok_or(ENDS_EARLY)?;
        self.0 = rest;
        Ok(taken)
    }
}

/// What was read since `from` was all that was left.
fn read<'a>(from: &'a [u8], rest: &[u8]) -> &'a [u8] {
    from.get(..from.len().saturating_sub(rest.len())).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use bitcoin::consensus::encode::serialize;
    use bitcoin::{Block, Transaction};

    use super::super::testing::{block, seal};
    use super::*;

    fn sealed() -> Vec<u8> {
        let mut block = block();
        seal(&mut block);
        serialize(&block)
    }

    /// Four million, written the long way, in the place of the one byte at `at`.
    fn with_huge_number_at(raw: &[u8], at: usize) -> Vec<u8> {
        [&raw[..at], &[0xfe, 0x00, 0x09, 0x3d, 0x00], &raw[at + 1..]].concat()
    }

    fn refusal(raw: &[u8]) -> Option<&'static str> {
        RawBlock::parse(raw).err()
    }

    #[test]
    fn no_count_may_promise_more_than_follows() {
        let raw = sealed();
        let coinbase = 80 + 1;
        let coinbase_script = coinbase + 4 + 2 + 1 + 36;
        // The last transaction ends with a witness of one item of 70 bytes, and its lock time.
        let witness = raw.len() - 4 - 70 - 2;
        assert_eq!(raw[witness..witness + 2], [1, 70]);
        for (what, at) in [
            ("transactions", 80),
            ("inputs", coinbase + 4 + 2),
            ("bytes of a script", coinbase_script),
            ("witness items", witness),
            ("bytes of a witness item", witness + 1),
        ] {
            let huge = with_huge_number_at(&raw, at);
            assert_eq!(refusal(&huge), Some(MORE_THAN_FOLLOWS), "{what}");
        }
        let largest = [&raw[..80], &[0xff; 9], &raw[81..]].concat();
        assert_eq!(refusal(&largest), Some(MORE_THAN_FOLLOWS));
        assert_eq!(refusal(&raw), None);
    }

    #[test]
    fn a_count_is_right_up_to_the_last_byte_that_follows() {
        let mut raw = sealed();
        let witness = raw.len() - 4 - 70 - 2;
        let follow = raw.len() - witness - 1;
        for (items, expected) in [(follow, ENDS_EARLY), (follow + 1, MORE_THAN_FOLLOWS)] {
            raw[witness] = items as u8;
            raw[witness + 1..].fill(0);
            assert_eq!(refusal(&raw), Some(expected), "{items} items");
        }
    }

    #[test]
    fn numbers_are_written_the_short_way_and_nothing_follows() {
        let raw = sealed();
        assert_eq!(raw[80], 3);
        for long in [&[0xfd, 3, 0][..], &[0xfe, 3, 0, 0, 0], &[0xff, 3, 0, 0, 0, 0, 0, 0, 0]] {
            assert_eq!(refusal(&[&raw[..80], long, &raw[81..]].concat()), Some(LONG_NUMBER));
        }
        assert_eq!(refusal(&[&raw[..], &[0]].concat()), Some(TOO_LONG));
    }

    /// Whatever is read is what the library reads.
    fn compare(raw: &RawTx<'_>, tx: &Transaction, what: &str) {
        assert_eq!(raw.txid(), tx.compute_txid(), "{what}");
        assert_eq!(raw.wtxid(), tx.compute_wtxid().to_raw_hash(), "{what}");
        assert_eq!((raw.bytes.len(), raw.base_size()), (tx.total_size(), tx.base_size()), "{what}");
        assert_eq!((raw.version(), raw.lock_time()), (tx.version(), tx.lock_time()), "{what}");
        assert!(raw.inputs().eq(tx.inputs()) && raw.outputs().eq(tx.outputs()), "{what}");
        assert_eq!(raw.has_witness(), tx.input.iter().any(|input| !input.witness.is_empty()), "{what}");
        let witnesses = raw.witnesses().map(|witness| witness.items().collect::<Vec<_>>());
        assert!(
            witnesses.eq(tx.input.iter().map(|input| input.witness.iter().collect::<Vec<_>>())),
            "{what}"
        );
    }

    #[test]
    fn what_the_decoder_takes_is_taken_and_reads_the_same() {
        let sealed = sealed();
        // With the flag, no inputs and an output: the decoder takes it.
        let odd = [&[2, 0, 0, 0, 0, 1, 0, 1][..], &[7; 8], &[1, 0x51], &[9, 0, 0, 0]].concat();
        let with_odd = [&sealed[..80], &[4], &sealed[81..], &odd].concat();
        let (mut refused, mut taken) = (0, 0);
        for seed in 0..60_000 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let mut raw = if seed % 2 == 0 { sealed.clone() } else { with_odd.clone() };
            for _ in 0..if seed < 2 { 0 } else { rng.usize(1..3) } {
                let at = rng.usize(80..raw.len());
                match rng.u8(..5) {
                    0 => raw[at] = rng.u8(..),
                    1 => raw[at] = *rng.choice(&[0, 1, 2, 0xfc, 0xfd, 0xfe, 0xff]).unwrap(),
                    2 => raw.insert(at, rng.u8(..)),
                    3 => drop(raw.remove(at)),
                    _ => raw.truncate(at.max(81)),
                }
            }
            let what = format!("seed {seed}");
            match (RawBlock::parse(&raw), deserialize::<Block>(&raw)) {
                (Ok(found), Ok(wanted)) => {
                    assert_eq!(
                        (found.header, found.txs.len()),
                        (wanted.header, wanted.txdata.len()),
                        "{what}"
                    );
                    let mut offset = 81;
                    for (tx, wanted) in found.txs.iter().zip(&wanted.txdata) {
                        compare(tx, wanted, &what);
                        assert_eq!(tx.offset as usize, offset, "{what}");
                        offset += tx.bytes.len();
                    }
                    taken += 1;
                }
                (Err(_), Err(_)) => refused += 1,
                (found, wanted) => panic!("{what}: {:?}, the library: {:?}", found.err(), wanted.err()),
            }
        }
        assert!(refused > 3_000 && taken > 3_000, "{refused} refused, {taken} taken");
    }
}
