//! One output of a transaction that is kept as bytes, without reading the rest.

use bitcoin::consensus::Decodable;
use bitcoin::{TxOut, VarInt};

use super::entry::Entry;

const VERSION_BYTES: usize = 4;
/// Marker and flag of a transaction with a witness (BIP144): no transaction without has zero inputs.
const WITNESS_MARKER: [u8; 2] = [0, 1];
const OUTPOINT_BYTES: usize = 36;
const SEQUENCE_BYTES: usize = 4;
const VALUE_BYTES: usize = 8;

impl Entry {
    /// The output with that number; `None` where there are fewer.
    pub fn output(&self, vout: u32) -> Option<TxOut> {
        output(&self.raw, vout)
    }
}

fn output(raw: &[u8], vout: u32) -> Option<TxOut> {
    let mut rest = raw.get(VERSION_BYTES..)?;
    rest = rest.strip_prefix(&WITNESS_MARKER).unwrap_or(rest);
    for _ in 0..number(&mut rest)? {
        rest = rest.get(OUTPOINT_BYTES..)?;
        skip_script(&mut rest)?;
        rest = rest.get(SEQUENCE_BYTES..)?;
    }
    if u64::from(vout) >= number(&mut rest)? {
        return None;
    }
    for _ in 0..vout {
        rest = rest.get(VALUE_BYTES..)?;
        skip_script(&mut rest)?;
    }
    TxOut::consensus_decode(&mut rest).ok()
}

fn skip_script(rest: &mut &[u8]) -> Option<()> {
    let bytes = usize::try_from(number(rest)?).ok()?;
    *rest = rest.get(bytes..)?;
    Some(())
}

fn number(rest: &mut &[u8]) -> Option<u64> {
    VarInt::consensus_decode(rest).ok().map(|number| number.0)
}

#[cfg(test)]
mod tests {
    use bitcoin::absolute::LockTime;
    use bitcoin::consensus::encode::serialize;
    use bitcoin::transaction::Version;
    use bitcoin::{Amount, ScriptBuf, Transaction, TxIn, Witness};

    use super::*;

    fn transaction(witness: Witness) -> Transaction {
        let input = |script: usize| TxIn {
            script_sig: ScriptBuf::from_bytes(vec![0x51; script]),
            witness: witness.clone(),
            ..TxIn::default()
        };
        let output = |script: usize| TxOut {
            value: Amount::from_sat(script as u64),
            script_pubkey: ScriptBuf::from_bytes(vec![0x6a; script]),
        };
        Transaction {
            version: Version::TWO,
            lock_time: LockTime::ZERO,
            input: vec![input(0), input(300), input(70_000)],
            output: [0, 25, 253, 66_000].map(output).to_vec(),
        }
    }

    #[test]
    fn each_output_is_found_with_a_witness_and_without() {
        for witness in [Witness::new(), Witness::from_slice(&[[7; 300]])] {
            let tx = transaction(witness);
            let raw = serialize(&tx);
            for (vout, expected) in (0..).zip(&tx.output) {
                assert_eq!(output(&raw, vout).as_ref(), Some(expected));
            }
            assert_eq!(output(&raw, 4), None);
            assert_eq!(output(&raw, u32::MAX), None);
        }
    }

    #[test]
    fn bytes_that_end_early_have_no_output() {
        let raw = serialize(&transaction(Witness::new()));
        for len in (0..raw.len()).step_by(97) {
            assert_eq!(output(&raw[..len], 3), None, "{len} bytes");
        }
    }
}
