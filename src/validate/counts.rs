//! Whether the bytes of a block can hold all that they announce.
//!
//! The library's decoder sets room aside for what a count promises before any of it has come: for the items of a
//! witness up to 16 MB, out of a hundred bytes. So every count is held against the bytes behind it first.
//! Never says that a block can be decoded: what lies between the counts, and that numbers are written the short
//! way, is for the decoder to see.
//! Source: Bitcoin Core `serialize.h`, `primitives/transaction.h`; BIP144.

/// Bytes of the header.
const HEADER: u64 = 80;
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

const ENDS_EARLY: &str = "the bytes end early";
const MORE_THAN_FOLLOWS: &str = "more is announced than follows";
const UNKNOWN_FLAG: &str = "a transaction's flag is unknown";

/// Refuses a block that announces more than it has; the error says in words what is amiss.
pub(super) fn check_counts(raw: &[u8]) -> Result<(), &'static str> {
    let mut rest = Rest(raw);
    rest.skip(HEADER)?;
    for _ in 0..rest.count(LEAST_TRANSACTION)? {
        rest.transaction()?;
    }
    Ok(())
}

/// What is not yet read.
struct Rest<'a>(&'a [u8]);

impl Rest<'_> {
    fn transaction(&mut self) -> Result<(), &'static str> {
        self.skip(4)?;
        let mut inputs = self.count(LEAST_INPUT)?;
        let has_witnesses = inputs == 0;
        if has_witnesses {
            if self.byte()? != WITNESS_FLAG {
                return Err(UNKNOWN_FLAG);
            }
            inputs = self.count(LEAST_INPUT)?;
        }
        for _ in 0..inputs {
            self.skip(36)?;
            self.string()?;
            self.skip(4)?;
        }
        for _ in 0..self.count(LEAST_OUTPUT)? {
            self.skip(8)?;
            self.string()?;
        }
        if has_witnesses {
            for _ in 0..inputs {
                for _ in 0..self.count(LEAST_WITNESS_ITEM)? {
                    self.string()?;
                }
            }
        }
        self.skip(4)
    }

    /// A count of things that take at least `least` bytes each.
    fn count(&mut self, least: u64) -> Result<u64, &'static str> {
        let count = self.number()?;
        match count.checked_mul(least) {
            Some(bytes) if bytes <= self.0.len() as u64 => Ok(count),
            Some(_) | None => Err(MORE_THAN_FOLLOWS),
        }
    }

    /// Bytes behind their length.
    fn string(&mut self) -> Result<(), &'static str> {
        let length = self.count(1)?;
        self.skip(length)
    }

    /// A compact size, written the short way or not.
    fn number(&mut self) -> Result<u64, &'static str> {
        let bytes = match self.byte()? {
            0xfd => 2,
            0xfe => 4,
            0xff => 8,
            small => return Ok(u64::from(small)),
        };
        let (number, rest) = self.0.split_at_checked(bytes).ok_or(ENDS_EARLY)?;
        self.0 = rest;
        Ok(number.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    fn byte(&mut self) -> Result<u8, &'static str> {
        let (byte, rest) = self.0.split_first().ok_or(ENDS_EARLY)?;
        self.0 = rest;
        Ok(*byte)
    }

    fn skip(&mut self, bytes: u64) -> Result<(), &'static str> {
        let bytes = usize::try_from(bytes).map_err(|_| ENDS_EARLY)?;
        self.0 = self.0.get(bytes..).ok_or(ENDS_EARLY)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use bitcoin::Block;
    use bitcoin::consensus::encode::{deserialize, serialize};

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
            assert_eq!(check_counts(&huge), Err(MORE_THAN_FOLLOWS), "{what}");
        }
        let largest = [&raw[..80], &[0xff; 9], &raw[81..]].concat();
        assert_eq!(check_counts(&largest), Err(MORE_THAN_FOLLOWS));
        assert_eq!(check_counts(&raw), Ok(()));
    }

    #[test]
    fn a_count_is_right_up_to_the_last_byte_that_follows() {
        // No block, but a count of witness items that could be: the decoder is asked, and refuses it.
        let mut raw = sealed();
        let witness = raw.len() - 4 - 70 - 2;
        let follow = raw.len() - witness - 1;
        for (items, expected) in [(follow, ENDS_EARLY), (follow + 1, MORE_THAN_FOLLOWS)] {
            raw[witness] = items as u8;
            raw[witness + 1..].fill(0);
            assert_eq!(check_counts(&raw), Err(expected), "{items} items");
        }
    }

    #[test]
    fn what_is_refused_here_the_decoder_refuses_too() {
        let sealed = sealed();
        let (mut refused, mut passed) = (0, 0);
        for seed in 0..20_000 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let mut raw = sealed.clone();
            for _ in 0..rng.usize(1..3) {
                let at = rng.usize(80..raw.len());
                match rng.u8(..4) {
                    0 => raw[at] = rng.u8(..),
                    1 => raw[at] = *rng.choice(&[0, 1, 2, 0xfc, 0xfd, 0xfe, 0xff]).unwrap(),
                    2 => raw.insert(at, rng.u8(..)),
                    _ => raw.truncate(at.max(81)),
                }
            }
            match check_counts(&raw) {
                Ok(()) => passed += 1,
                Err(reason) => {
                    assert!(deserialize::<Block>(&raw).is_err(), "seed {seed}: {reason}");
                    refused += 1;
                }
            }
        }
        assert!(refused > 1_000 && passed > 1_000, "{refused} refused, {passed} passed");
    }
}
