//! The interpreter itself: Bitcoin Core's, through its kernel library.
//!
//! The kernel says valid or not and no more, so why an input failed is found out by `template`, or guessed where
//! the script is no usual one. What an own interpreter would get wrong splits the chain; what this guesses wrong is a
//! word in a log.

use bitcoin::{Transaction, TxOut};

use super::error::VerifyError;
use super::flags::Flags;

/// Whether scripts can be verified at all.
pub const fn is_available() -> bool {
    cfg!(feature = "kernel")
}

/// Runs the scripts of every input by the rules `flags`.
///
/// `raw` is `tx` as it is serialized, witness included; `spent` has the output that each input spends. The first
/// input that fails is named.
pub fn verify(tx: &Transaction, raw: &[u8], spent: &[TxOut], flags: Flags) -> Result<(), VerifyError> {
    let prepared = Prepared::new(tx, raw, spent)?;
    (0..tx.input.len()).try_for_each(|input| prepared.verify_input(input, flags))
}

/// A transaction whose hashes are made once for all of its inputs.
#[cfg(feature = "kernel")]
pub(super) struct Prepared<'a> {
    tx: &'a Transaction,
    spent: &'a [TxOut],
    inner: bitcoinkernel::Transaction,
    outputs: Vec<bitcoinkernel::TxOut>,
    hashes: bitcoinkernel::PrecomputedTransactionData,
}

#[cfg(feature = "kernel")]
impl<'a> Prepared<'a> {
    pub(super) fn new(tx: &'a Transaction, raw: &[u8], spent: &'a [TxOut]) -> Result<Self, VerifyError> {
        use bitcoinkernel::prelude::*;

        use super::error::{Reason, ScriptError};
        let unknown = ScriptError { input: 0, reason: Reason::Unknown };
        // The kernel asserts what it is told of lengths, and an assertion there ends the process.
        let inner = bitcoinkernel::Transaction::new(raw).map_err(|_| unknown)?;
        if tx.input.len() != spent.len() || inner.input_count() != spent.len() {
            return Err(unknown.into());
        }
        let output = |output: &TxOut| {
            let script = bitcoinkernel::ScriptPubkey::new(output.script_pubkey.as_bytes()).ok()?;
            let value = i64::try_from(output.value.to_sat()).ok()?;
            Some(bitcoinkernel::TxOut::new(&script, value))
        };
        let outputs: Vec<_> = spent.iter().map(output).collect::<Option<_>>().ok_or(unknown)?;
        let hashes = bitcoinkernel::PrecomputedTransactionData::new(&inner, &outputs).map_err(|_| unknown)?;
        Ok(Self { tx, spent, inner, outputs, hashes })
    }

    pub(super) fn verify_input(&self, input: usize, flags: Flags) -> Result<(), VerifyError> {
        use super::error::ScriptError;
        use super::template::{self, Rules};
        self.run(input, flags).map_err(|()| {
            let reason = template::why(self.tx, self.spent, input, Rules::consensus(flags));
            VerifyError::Script(ScriptError { input, reason })
        })
    }

    /// Valid or not.
    pub(super) fn run(&self, input: usize, flags: Flags) -> Result<(), ()> {
        use bitcoinkernel::prelude::*;
        let output = self.outputs.get(input).ok_or(())?;
        let (script, amount) = (output.script_pubkey(), Some(output.value()));
        bitcoinkernel::verify(&script, amount, &self.inner, input, Some(flags.bits()), &self.hashes)
            .map_err(|_| ())
    }
}

/// There is no interpreter.
#[cfg(not(feature = "kernel"))]
pub(super) struct Prepared;

#[cfg(not(feature = "kernel"))]
impl Prepared {
    pub(super) fn new(_: &Transaction, _: &[u8], _: &[TxOut]) -> Result<Self, VerifyError> {
        Err(VerifyError::Unavailable)
    }

    pub(super) fn verify_input(&self, _: usize, _: Flags) -> Result<(), VerifyError> {
        Err(VerifyError::Unavailable)
    }

    pub(super) fn run(&self, _: usize, _: Flags) -> Result<(), ()> {
        Err(())
    }
}
