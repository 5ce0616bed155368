//! What a transaction must satisfy by itself, and whether it may be in a block yet.
//!
//! Source: Bitcoin Core `consensus/tx_check.cpp` (`CheckTransaction`), `consensus/tx_verify.cpp` (`IsFinalTx`).

use bitcoin::absolute::LOCK_TIME_THRESHOLD;
use bitcoin::{Amount, OutPoint, Script, Transaction};
use chainstore::Height;

/// Weight of a block at most (BIP141).
pub(super) const MAX_BLOCK_WEIGHT: u64 = 4_000_000;
/// Bytes of a coinbase's script.
const COINBASE_SCRIPT_BYTES: std::ops::RangeInclusive<usize> = 2..=100;
const SEQUENCE_FINAL: u32 = 0xffff_ffff;

/// Of so few inputs each is compared with each.
const FEW_INPUTS: usize = 8;

/// What the rules read of a transaction, whether it was decoded or lies in its block's bytes.
pub trait TransactionParts {
    fn inputs(&self) -> impl ExactSizeIterator<Item = InputParts<'_>>;
    fn outputs(&self) -> impl ExactSizeIterator<Item = OutputParts<'_>>;
    /// As the rules compare it: without a sign.
    fn version(&self) -> u32;
    fn lock_time(&self) -> u32;
    /// Bytes without witnesses.
    fn base_size(&self) -> usize;
}

/// An input without its witness.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InputParts<'a> {
    pub previous_output: OutPoint,
    pub script_sig: &'a Script,
    pub sequence: u32,
}

impl Default for InputParts<'_> {
    fn default() -> Self {
        Self { previous_output: OutPoint::null(), script_sig: Script::new(), sequence: 0 }
    }
}

/// An output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutputParts<'a> {
    /// Satoshi, perhaps more than there are.
    pub value: u64,
    pub script: &'a Script,
}

impl Default for OutputParts<'_> {
    fn default() -> Self {
        Self { value: 0, script: Script::new() }
    }
}

impl TransactionParts for Transaction {
    fn inputs(&self) -> impl ExactSizeIterator<Item = InputParts<'_>> {
        self.input.iter().map(|input| InputParts {
            previous_output: input.previous_output,
            script_sig: &input.script_sig,
            sequence: input.sequence.to_consensus_u32(),
        })
    }

    fn outputs(&self) -> impl ExactSizeIterator<Item = OutputParts<'_>> {
        self.output
            .iter()
            .map(|output| OutputParts { value: output.value.to_sat(), script: &output.script_pubkey })
    }

    fn version(&self) -> u32 {
        self.version.0 as u32
    }

    fn lock_time(&self) -> u32 {
        self.lock_time.to_consensus_u32()
    }

    fn base_size(&self) -> usize {
        Self::base_size(self)
    }
}

/// The rules that need nothing but the transaction; the error is Core's reject reason.
pub fn check_transaction(tx: &impl TransactionParts) -> Result<(), &'static str> {
    if tx.inputs().len() == 0 {
        return Err("bad-txns-vin-empty");
    }
    if tx.outputs().len() == 0 {
        return Err("bad-txns-vout-empty");
    }
    if tx.base_size() as u64 * 4 > MAX_BLOCK_WEIGHT {
        return Err("bad-txns-oversize");
    }
    let mut total = 0;
    for OutputParts { value, .. } in tx.outputs() {
        if value > i64::MAX as u64 {
            return Err("bad-txns-vout-negative");
        }
        if value > Amount::MAX_MONEY.to_sat() {
            return Err("bad-txns-vout-toolarge");
        }
        // Both are at most MAX_MONEY here, so the sum cannot overflow.
        total += value;
        if total > Amount::MAX_MONEY.to_sat() {
            return Err("bad-txns-txouttotal-toolarge");
        }
    }
    if spends_twice(tx) {
        return Err("bad-txns-inputs-duplicate");
    }
    if is_coinbase(tx) {
        if !tx.inputs().all(|input| COINBASE_SCRIPT_BYTES.contains(&input.script_sig.len())) {
            return Err("bad-cb-length");
        }
    } else if tx.inputs().any(|input| input.previous_output == OutPoint::null()) {
        return Err("bad-txns-prevout-null");
    }
    Ok(())
}

fn spends_twice(tx: &impl TransactionParts) -> bool {
    let count = tx.inputs().len();
    if count < 2 {
        return false;
    }
    let mut spent = [OutPoint::null(); FEW_INPUTS];
    if count <= FEW_INPUTS {
        return tx.inputs().enumerate().any(|(number, input)| {
            spent[number] = input.previous_output;
            spent[..number].contains(&input.previous_output)
        });
    }
    let mut spent: Vec<OutPoint> = tx.inputs().map(|input| input.previous_output).collect();
    spent.sort_unstable();
    spent.windows(2).any(|pair| pair[0] == pair[1])
}

/// One input, which spends nothing.
pub fn is_coinbase(tx: &impl TransactionParts) -> bool {
    let mut inputs = tx.inputs();
    inputs.len() == 1 && inputs.all(|input| input.previous_output == OutPoint::null())
}

/// Whether the lock time allows the transaction in a block at `height`, where `cutoff` is the block's time or,
/// since BIP113, the median time past of its parent.
pub fn is_final(tx: &impl TransactionParts, height: Height, cutoff: u32) -> bool {
    let lock_time = tx.lock_time();
    let reached = if lock_time < LOCK_TIME_THRESHOLD { height.0 } else { cutoff };
    lock_time == 0 || lock_time < reached || tx.inputs().all(|input| input.sequence == SEQUENCE_FINAL)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{input, outpoint, output, transaction};
    use super::*;

    #[test]
    fn a_repeated_input_is_seen_however_many_there_are() {
        for count in [1, 2, 3, FEW_INPUTS, FEW_INPUTS + 1, 40] {
            let inputs: Vec<_> = (1..=count as u8).map(|of| input(outpoint(of))).collect();
            let tx = transaction(inputs, vec![output(1)]);
            assert_eq!(check_transaction(&tx), Ok(()), "{count}");
            for (from, to) in [(0, count - 1), (count / 2, count - 1), (0, 1.min(count - 1))] {
                let mut repeated = tx.clone();
                repeated.input[to].previous_output = repeated.input[from].previous_output;
                let expected = if from == to { Ok(()) } else { Err("bad-txns-inputs-duplicate") };
                assert_eq!(check_transaction(&repeated), expected, "{count}: {from} again at {to}");
            }
        }
    }
}
