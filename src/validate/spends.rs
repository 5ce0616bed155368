//! What of a block's transactions rung 5 needs beside their coins, read out where blocks are checked, by many threads,
//! for the one that connects them.

use chainstore::{Outline, OutlineOutput};

use super::inputs::has_locks;
use super::raw::{RawBlock, RawWitness};
use super::sigops::{Counted, SpendingCosts};
use super::transaction::TransactionParts;

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Spends {
    /// In block order.
    pub(super) txs: Vec<TxSpends>,
    /// Of each input after the coinbase, in block order.
    pub(super) inputs: Vec<InputSpends>,
}

/// Of a transaction.
#[derive(Clone, Copy, Debug)]
pub(super) struct TxSpends {
    /// Satoshi.
    pub(super) paid_out: u64,
    /// Signature operations that it shows by itself.
    pub(super) legacy_sigops: u64,
    /// Bytes without witnesses.
    pub(super) base_size: u32,
    /// Whether any input has a relative lock (BIP68).
    pub(super) has_locks: bool,
}

/// Of an input.
#[derive(Clone, Copy, Debug)]
pub(super) struct InputSpends {
    pub(super) sequence: u32,
    pub(super) sigops: SpendingCosts,
}

impl Spends {
    /// Of a block that passed the rules that it can be held to by itself, with its outline.
    pub(super) fn of(
        block: &RawBlock<'_>,
        txids: &[bitcoin::Txid],
        legacy_sigops: &[u64],
        length: u32,
        counted: Counted,
    ) -> (Self, Outline) {
        let mut outline = Outline::with_capacity(block.txs.len());
        let mut txs = Vec::with_capacity(block.txs.len());
        let mut inputs = Vec::with_capacity(2 * block.txs.len());
        for (position, ((tx, txid), sigops)) in block.txs.iter().zip(txids).zip(legacy_sigops).enumerate() {
            outline.begin(*txid, tx.offset);
            // The coinbase spends nothing.
            for (input, witness) in tx.inputs().zip(tx.witnesses()).filter(|_| position > 0) {
                outline.spend(input.previous_output);
                let sigops = SpendingCosts::of(input.script_sig, last_item(&witness), counted);
                inputs.push(InputSpends { sequence: input.sequence, sigops });
            }
            let mut paid_out = 0;
            for output in tx.outputs() {
                paid_out += output.value;
                outline.make(OutlineOutput::new(bitcoin::Amount::from_sat(output.value), output.script));
            }
            txs.push(TxSpends {
                paid_out,
                legacy_sigops: *sigops,
                base_size: tx.base_size() as u32,
                has_locks: has_locks(tx),
            });
        }
        outline.finish(length);
        (Self { txs, inputs }, outline)
    }
}

fn last_item<'a>(witness: &RawWitness<'a>) -> Option<&'a [u8]> {
    witness.items().last()
}
