//! The threads that run a block's scripts: one for each core, for as long as the block takes.
//!
//! What the mempool has verified is remembered here for the block that has it.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use bitcoin::Wtxid;

use crate::scripts::{BlockSpends, Flags, RunScripts, ScriptError, VerifiedScripts, verify_one};

/// Inputs that are worth another thread: each takes some 50 us, and so does starting one.
const INPUTS_OF_A_THREAD: usize = 8;

/// Shared by the chain's writer, which asks, and by whoever verifies unconfirmed transactions, who tells.
#[derive(Debug, Default)]
pub struct Verified(Mutex<VerifiedScripts>);

impl Verified {
    /// All scripts of this transaction are good by these rules.
    pub fn insert(&self, wtxid: Wtxid, flags: Flags) {
        self.lock().insert(wtxid, flags);
    }

    fn lock(&self) -> MutexGuard<'_, VerifiedScripts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs scripts on all cores.
#[derive(Debug)]
pub struct ScriptThreads {
    verified: Arc<Verified>,
    cores: usize,
}

impl ScriptThreads {
    pub fn new(verified: Arc<Verified>) -> Self {
        let cores = thread::available_parallelism().map_or(1, NonZeroUsize::get);
        Self { verified, cores }
    }
}

impl RunScripts for ScriptThreads {
    fn run(&self, spends: &BlockSpends<'_>) -> Result<(), (usize, ScriptError)> {
        let todo = self.unverified(spends);
        let inputs: usize = todo.iter().map(|at| spends.txs[*at].spent.len()).sum();
        let (next, failed) = (AtomicUsize::new(0), AtomicBool::new(false));
        let work = || {
            let mut first = None;
            while !failed.load(Ordering::Relaxed)
                && let Some(&at) = todo.get(next.fetch_add(1, Ordering::Relaxed))
            {
                if let Err(error) = verify_one(&spends.txs[at], spends.flags) {
                    failed.store(true, Ordering::Relaxed);
                    first = Some((at, error));
                }
            }
            first
        };
        // Transactions are taken in order, so of those that fail the first is always among what was begun.
        let failures: Vec<Option<(usize, ScriptError)>> = thread::scope(|scope| {
            let others = (inputs / INPUTS_OF_A_THREAD).clamp(1, self.cores) - 1;
            let others: Vec<_> = (0..others).map(|_| scope.spawn(work)).collect();
            let mut failures = vec![work()];
            failures.extend(others.into_iter().map(|other| match other.join() {
                Ok(failure) => failure,
                Err(panic) => std::panic::resume_unwind(panic),
            }));
            failures
        });
        match failures.into_iter().flatten().min_by_key(|(at, _)| *at) {
            Some(failure) => Err(failure),
            None => Ok(()),
        }
    }
}

impl ScriptThreads {
    /// The transactions that nobody has verified yet, in order.
    fn unverified(&self, spends: &BlockSpends<'_>) -> Vec<usize> {
        let wtxids: Vec<Wtxid> = spends.txs.iter().map(|spending| spending.tx.compute_wtxid()).collect();
        let verified = self.verified.lock();
        let unverified =
            wtxids.iter().enumerate().filter(|(_, wtxid)| !verified.contains(**wtxid, spends.flags));
        unverified.map(|(at, _)| at).collect()
    }
}

#[cfg(test)]
mod tests {
    use bitcoin::absolute::LockTime;
    use bitcoin::transaction::Version;
    use bitcoin::{Amount, Script, ScriptBuf, Sequence, Transaction, TxIn, TxOut};

    use super::*;
    use crate::scripts::{InTurn, Reason, SpendingTx, is_available};

    /// Spends of nothing but OP_TRUE or OP_FALSE.
    fn transaction(number: u32, inputs: usize) -> Transaction {
        let input = TxIn { sequence: Sequence(number), ..TxIn::default() };
        let output = vec![TxOut { value: Amount::ONE_SAT, script_pubkey: ScriptBuf::new() }];
        Transaction { version: Version::TWO, lock_time: LockTime::ZERO, input: vec![input; inputs], output }
    }

    fn spent(good: bool) -> TxOut {
        let script: &[u8] = if good { &[0x51] } else { &[0x00] };
        TxOut { value: Amount::ONE_SAT, script_pubkey: Script::from_bytes(script).to_owned() }
    }

    #[test]
    fn all_cores_find_what_one_finds_and_the_verified_are_left_out() {
        let txs: Vec<Transaction> = (0..200).map(|number| transaction(number, 3)).collect();
        let block = |bad: &[usize]| BlockSpends {
            txs: txs
                .iter()
                .enumerate()
                .map(|(at, tx)| {
                    let outputs = (0..3).map(|input| spent(input < 2 || !bad.contains(&at)));
                    SpendingTx { tx, spent: outputs.collect() }
                })
                .collect(),
            flags: Flags::ALL,
        };
        let verified = Arc::new(Verified::default());
        let threads = ScriptThreads { verified: verified.clone(), cores: 4 };
        assert_eq!(threads.run(&block(&[])), Ok(()));
        if !is_available() {
            return;
        }
        for bad in [&[0][..], &[199], &[77, 78, 150], &[50, 51, 52, 53, 54]] {
            let failure = Err((bad[0], ScriptError { input: 2, reason: Reason::EvalFalse }));
            for _ in 0..20 {
                assert_eq!(threads.run(&block(bad)), failure);
            }
            assert_eq!(InTurn.run(&block(bad)), failure);
        }
        verified.insert(txs[77].compute_wtxid(), Flags::ALL);
        assert_eq!(threads.run(&block(&[77])), Ok(()), "it is not run again");
        verified.insert(txs[78].compute_wtxid(), Flags::P2SH);
        assert!(threads.run(&block(&[78])).is_err(), "by other rules it is");
    }
}
