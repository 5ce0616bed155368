//! The scripts of all that a block spends, as work that may be shared out among threads.
//!
//! Who runs it is given from outside, as threads are not for the pure stages; [`InTurn`] runs it where it stands.

use std::fmt;

use bitcoin::{Transaction, TxOut};

use super::error::{ScriptError, VerifyError};
use super::flags::Flags;
use super::verifier::verify;

/// A transaction with the output that each of its inputs spends.
#[derive(Clone, Debug)]
pub struct SpendingTx<'a> {
    pub tx: &'a Transaction,
    pub spent: Vec<TxOut>,
}

/// What a block spends: its transactions after the coinbase, in its order.
#[derive(Clone, Debug)]
pub struct BlockSpends<'a> {
    pub txs: Vec<SpendingTx<'a>>,
    pub flags: Flags,
}

/// Runs the scripts of a block.
pub trait RunScripts: fmt::Debug + Send {
    /// Runs them all. With the error comes the position in `txs` of the first transaction that failed.
    fn run(&self, spends: &BlockSpends<'_>) -> Result<(), (usize, ScriptError)>;
}

/// One after another. A build without the interpreter takes everything.
#[derive(Clone, Copy, Debug, Default)]
pub struct InTurn;

impl RunScripts for InTurn {
    fn run(&self, spends: &BlockSpends<'_>) -> Result<(), (usize, ScriptError)> {
        spends.txs.iter().enumerate().try_for_each(|(position, spending)| {
            verify_one(spending, spends.flags).map_err(|error| (position, error))
        })
    }
}

/// One transaction of a block. A build without the interpreter takes it: its operator was told.
pub fn verify_one(spending: &SpendingTx<'_>, flags: Flags) -> Result<(), ScriptError> {
    let raw = bitcoin::consensus::serialize(spending.tx);
    match verify(spending.tx, &raw, &spending.spent, flags) {
        Ok(()) | Err(VerifyError::Unavailable) => Ok(()),
        Err(VerifyError::Script(error)) => Err(error),
    }
}
