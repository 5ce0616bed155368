//! A transaction's id, and one of its outputs, found in its bytes where they lie.
//!
//! To decode one into structures of its own costs twice what its hash does. What has an id here is what the library's
//! decoder accepts.
//! Source: Bitcoin Core `serialize.h`, `primitives/transaction.h`; BIP144.

use bitcoin::Txid;
use bitcoin::hashes::{Hash, HashEngine, sha256d};

/// Version, and lock time.
const END_BYTES: usize = 4;
/// Stands after the 0 where the count of inputs would, in a transaction with witnesses.
const WITNESS_FLAG: u8 = 1;

/// The id of the transaction that `raw` is, or `None` where it is none.
pub(crate) fn txid_of(raw: &[u8]) -> Option<Txid> {
    let mut rest = Rest(raw);
    let version = rest.take(END_BYTES as u64)?;
    let mut body = rest.0;
    let mut inputs = rest.number()?;
    let has_witnesses = inputs == 0;
    if has_witnesses {
        if rest.take(1)? != [WITNESS_FLAG] {
            return None;
        }
        body = rest.0;
        inputs = rest.number()?;
    }
    for _ in 0..inputs {
        rest.input()?;
    }
    for _ in 0..rest.number()? {
        rest.output()?;
    }
    let body = &body[..body.len() - rest.0.len()];
    if has_witnesses {
        let mut items = 0;
        for _ in 0..inputs {
            let count = rest.number()?;
            for _ in 0..count {
                rest.string()?;
            }
            items |= count;
        }
        // Then it would be written without the flag.
        if items == 0 && inputs > 0 {
            return None;
        }
    }
    let lock_time = rest.take(END_BYTES as u64)?;
    if !rest.0.is_empty() {
        return None;
    }
    let mut engine = sha256d::Hash::engine();
    [version, body, lock_time].into_iter().for_each(|part| engine.input(part));
    Some(Txid::from_raw_hash(sha256d::Hash::from_engine(engine)))
}

/// Value in satoshi and script of the output `vout` of the transaction that begins with `raw`; `None` where that is not
/// enough of it, or no such transaction.
pub(crate) fn output_of(raw: &[u8], vout: u32) -> Option<(u64, &[u8])> {
    let mut rest = Rest(raw);
    rest.take(END_BYTES as u64)?;
    let mut inputs = rest.number()?;
    if inputs == 0 {
        rest.take(1)?;
        inputs = rest.number()?;
    }
    for _ in 0..inputs {
        rest.input()?;
    }
    let outputs = rest.number()?;
    if u64::from(vout) >= outputs {
        return None;
    }
    for _ in 0..vout {
        rest.output()?;
    }
    let (value, script) = rest.output()?;
    Some((u64::from_le_bytes(*value.first_chunk()?), script))
}

/// What is not yet read. A count may promise more than follows: then the first thing that is missing ends the walk, as
/// nothing takes no bytes.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn take(&mut self, bytes: u64) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(usize::try_from(bytes).ok()?)?;
        self.0 = rest;
        Some(taken)
    }

    /// Outpoint, script, sequence.
    fn input(&mut self) -> Option<()> {
        self.take(36)?;
        self.string()?;
        self.take(4)?;
        Some(())
    }

    /// Value and script.
    fn output(&mut self) -> Option<(&'a [u8], &'a [u8])> {
        Some((self.take(8)?, self.string()?))
    }

    /// Bytes behind their length.
    fn string(&mut self) -> Option<&'a [u8]> {
        let length = self.number()?;
        self.take(length)
    }

    /// A compact size, written the short way.
    fn number(&mut self) -> Option<u64> {
        let (length, least) = match self.take(1)?[0] {
            0xfd => (2, 0xfd),
            0xfe => (4, 0x1_0000),
            0xff => (8, 0x1_0000_0000),
            small => return Some(small.into()),
        };
        let bytes = self.take(length)?;
        let number = bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte));
        (number >= least).then_some(number)
    }
}

#[cfg(test)]
mod tests {
    use bitcoin::absolute::LockTime;
    use bitcoin::consensus::{deserialize, serialize};
    use bitcoin::transaction::Version;
    use bitcoin::{Amount, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Witness};

    use super::*;

    fn decoded(raw: &[u8]) -> Option<Txid> {
        deserialize::<Transaction>(raw).ok().map(|transaction| transaction.compute_txid())
    }

    fn some(rng: &mut fastrand::Rng) -> Transaction {
        let mut bytes = |most: usize| (0..rng.usize(..=most)).map(|_| rng.u8(..)).collect::<Vec<u8>>();
        let (scripts, items) = ([bytes(300), bytes(3)], [bytes(80), bytes(600)]);
        let input = |at: usize| TxIn {
            previous_output: OutPoint::new(Txid::hash(&[at as u8]), at as u32),
            script_sig: ScriptBuf::from_bytes(scripts[at % 2].clone()),
            sequence: Sequence::MAX,
            witness: Witness::from_slice(&items[..at % 3]),
        };
        let output = |at: usize| TxOut {
            value: Amount::from_sat(at as u64),
            script_pubkey: ScriptBuf::from_bytes(scripts[at % 2].clone()),
        };
        Transaction {
            version: Version::TWO,
            lock_time: LockTime::from_consensus(rng.u32(..)),
            input: (0..rng.usize(..4)).map(input).collect(),
            output: (0..rng.usize(..300)).map(output).collect(),
        }
    }

    #[test]
    fn it_is_what_decoding_finds_in_whole_and_in_damaged_bytes() {
        let mut rng = fastrand::Rng::with_seed(1);
        let mut found = [0; 2];
        for _ in 0..3_000 {
            let mut raw = serialize(&some(&mut rng));
            assert_eq!(txid_of(&raw), decoded(&raw));
            // Most in the numbers at the start, where they mean something.
            for _ in 0..rng.usize(1..4) {
                let near = if rng.bool() { raw.len().min(60) } else { raw.len() };
                let at = rng.usize(..near);
                raw[at] = if rng.bool() { rng.u8(..) } else { rng.u8(0xfc..) };
            }
            raw.truncate(raw.len() - rng.usize(0..2));
            let expected = decoded(&raw);
            assert_eq!(txid_of(&raw), expected, "{raw:02x?}");
            found[usize::from(expected.is_some())] += 1;
        }
        assert!(found.iter().all(|count| *count > 300), "{found:?}");
    }

    #[test]
    fn numbers_are_written_the_short_way_and_nothing_follows() {
        let raw = serialize(&some(&mut fastrand::Rng::with_seed(5)));
        assert!(txid_of(&raw).is_some());
        assert_eq!(txid_of(&[&raw[..], &[0]].concat()), None);
        assert_eq!(txid_of(&[]), None);
        let huge = [&[2, 0, 0, 0][..], &[0xff; 9], &raw[5..]].concat();
        assert_eq!(txid_of(&huge), None);
    }

    #[test]
    fn an_output_is_found_in_as_much_as_has_it() {
        let mut rng = fastrand::Rng::with_seed(2);
        let mut found = 0;
        for _ in 0..200 {
            let transaction = some(&mut rng);
            let raw = serialize(&transaction);
            let wanted = rng.u32(..310);
            let output = transaction.output.get(wanted as usize);
            let output = output.map(|output| (output.value.to_sat(), output.script_pubkey.as_bytes()));
            // Without inputs it would begin as one with witnesses does.
            if transaction.input.is_empty() {
                continue;
            }
            assert_eq!(output_of(&raw, wanted), output);
            let Some(output) = output else { continue };
            found += 1;
            let least = (0..raw.len()).find(|length| output_of(&raw[..*length], wanted).is_some()).unwrap();
            assert!(raw[..least].ends_with(output.1));
            assert_eq!(output_of(&raw[..least], wanted), Some(output));
        }
        assert!(found > 50, "{found}");
    }
}
