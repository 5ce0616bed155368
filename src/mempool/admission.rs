//! Whether a transaction comes in, asked in Bitcoin Core's order: by itself, with its coins, beside what is here, and
//! last its scripts.
//!
//! Nothing waits here. Where scripts have yet to be run, the answer is a job for whoever runs them; the result is
//! told to `Mempool::scripts_done`, and the same question asked again goes on from there.
//! Source: Bitcoin Core `validation.cpp` (`MemPoolAccept::PreChecks`, `AcceptSingleTransactionInternal`).

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use bitcoin::{OutPoint, TxOut, Txid, Wtxid};

use crate::time::Now;

use super::checks::{check_alone, check_feerate, check_spending};
use super::coins::{ChainState, CoinSource, SpentCoin};
use super::entry::Entry;
use super::machine::Mempool;
use super::policy::FeeRate;
use super::pool::Plan;
use super::reject::{Reject, RejectKind};
use super::transaction::Unconfirmed;
use super::witness::spends_witness_program;

/// What holds while something is decided.
#[derive(Clone, Copy)]
pub struct Moment<'a> {
    pub chain: &'a dyn ChainState,
    pub now: Now,
    pub scripts: ScriptCheck,
}

impl fmt::Debug for Moment<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Moment")
            .field("now", &self.now)
            .field("scripts", &self.scripts)
            .finish_non_exhaustive()
    }
}

/// Whether scripts have to be run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScriptCheck {
    Run,
    /// Whoever gave the transaction is believed, as the own node, or a block that had it.
    Trusted,
}

/// Scripts to run, on any thread.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScriptJob {
    pub tx: Arc<Unconfirmed>,
    /// The output that each input spends.
    pub spent: Vec<TxOut>,
}

/// What became of a transaction.
#[derive(Clone, Debug)]
pub enum Admission {
    /// It is in. What changed with it, `Mempool::take_changes` says.
    Accepted(Arc<Entry>),
    /// It would come in if its scripts are good.
    NeedsScripts(Vec<ScriptJob>),
    /// Transactions with these ids are not known, or have no such output left. Perhaps it came before its parents.
    MissingInputs {
        parents: Vec<Txid>,
    },
    Rejected(Reject),
}

/// Why not, for now.
pub(super) enum Refusal {
    Missing(Vec<Txid>),
    NeedsScripts(Vec<ScriptJob>),
    Rejected(Reject),
}

impl From<Reject> for Refusal {
    fn from(reject: Reject) -> Self {
        Self::Rejected(reject)
    }
}

impl Refusal {
    /// The answer, or the scripts to run before there is one.
    pub(super) fn into_reject(self) -> Result<Reject, Vec<ScriptJob>> {
        match self {
            Self::Missing(_) => Ok(Reject::missing_inputs()),
            Self::NeedsScripts(jobs) => Err(jobs),
            Self::Rejected(reject) => Ok(reject),
        }
    }
}

/// One that passed all that needs no comparison with others.
pub(super) struct Candidate {
    pub(super) tx: Arc<Unconfirmed>,
    pub(super) entry: Arc<Entry>,
    spent: Vec<TxOut>,
}

/// What is asked of a candidate, and what it may do.
#[derive(Clone, Copy)]
pub(super) struct Terms {
    /// Its own fee must suffice.
    pub(super) pays_alone: bool,
    /// It may take the place of others.
    pub(super) may_replace: bool,
    /// Whoever hands it in does not mean to pay more.
    pub(super) max_feerate: Option<FeeRate>,
}

impl Terms {
    pub(super) const ALONE: Self = Self { pays_alone: true, may_replace: true, max_feerate: None };
}

impl Mempool {
    /// Takes a transaction in, or says why not, or which scripts to run first.
    pub fn admit(&mut self, tx: &Arc<Unconfirmed>, moment: Moment<'_>) -> Admission {
        match self.evaluate(tx, moment, Terms::ALONE) {
            Err(Refusal::Missing(parents)) => Admission::MissingInputs { parents },
            Err(Refusal::NeedsScripts(jobs)) => Admission::NeedsScripts(jobs),
            Err(Refusal::Rejected(reject)) => Admission::Rejected(reject),
            Ok(plan) => match self.take(plan, moment.now) {
                Ok(entry) => Admission::Accepted(entry),
                Err(reject) => Admission::Rejected(reject),
            },
        }
    }

    /// The scripts of a job were run. What failed is not asked about again; a transaction that lacks the witness which
    /// its coins ask for is refused as such, since another one with the same id may be good.
    pub fn scripts_done(&mut self, job: &ScriptJob, result: Result<(), Reject>) {
        let is_stripped = || !job.tx.has_witness() && spends_witness_program(&job.tx, &job.spent);
        let result = result.map_err(|reject| match is_stripped() {
            true => Reject { kind: RejectKind::WitnessStripped, ..reject },
            false => reject,
        });
        self.scripts.insert(job.tx.wtxid(), result);
    }

    /// Everything that is asked of one transaction. Nothing changes.
    pub(super) fn evaluate(
        &self,
        tx: &Arc<Unconfirmed>,
        moment: Moment<'_>,
        terms: Terms,
    ) -> Result<Plan, Refusal> {
        let candidate = self.candidate(tx, &[], moment, terms)?;
        let plan = self.pool.plan(Arc::clone(&candidate.entry), &self.policy)?;
        check_max_feerate(&candidate.entry, terms)?;
        match self.check_scripts(vec![candidate], moment) {
            Ok(()) => Ok(plan),
            Err(ScriptRefusal::NotRun(jobs)) => Err(Refusal::NeedsScripts(jobs)),
            Err(ScriptRefusal::Bad(_, reject)) => Err(Refusal::Rejected(reject)),
        }
    }

    /// What is asked before anything is compared. `above` are transactions of the same package, which come first.
    pub(super) fn candidate(
        &self,
        tx: &Arc<Unconfirmed>,
        above: &[Candidate],
        moment: Moment<'_>,
        terms: Terms,
    ) -> Result<Candidate, Refusal> {
        check_alone(tx, moment.chain, &self.policy)?;
        self.check_new(tx)?;
        let is_spent = |outpoint: &OutPoint| self.pool.spender(outpoint).is_some();
        if !terms.may_replace && tx.tx().input.iter().any(|input| is_spent(&input.previous_output)) {
            return Err(Reject::new(RejectKind::MempoolPolicy, "bip125-replacement-disallowed").into());
        }
        let coins = self.coins(tx, above, moment.chain)?;
        let entry = check_spending(tx, &coins, moment.chain, &self.policy, moment.now)?;
        if terms.pays_alone {
            check_feerate(entry.fee, entry.vsize, self.pool.min_fee(moment.now), &self.policy)?;
        }
        let spent = coins.into_iter().map(|coin| coin.output).collect();
        Ok(Candidate { tx: Arc::clone(tx), entry: Arc::new(entry), spent })
    }

    fn check_new(&self, tx: &Unconfirmed) -> Result<(), Reject> {
        if self.pool.by_wtxid(&tx.wtxid()).is_some() {
            return Err(Reject::new(RejectKind::Conflict, "txn-already-in-mempool"));
        }
        if self.pool.get(&tx.txid()).is_some() {
            return Err(Reject::new(RejectKind::Conflict, "txn-same-nonwitness-data-in-mempool"));
        }
        Ok(())
    }

    /// The coin of each input.
    fn coins(
        &self,
        tx: &Unconfirmed,
        above: &[Candidate],
        chain: &dyn ChainState,
    ) -> Result<Vec<SpentCoin>, Refusal> {
        let outpoints = || tx.tx().input.iter().map(|input| input.previous_output);
        let coins: Vec<SpentCoin> =
            outpoints().map_while(|outpoint| self.coin(&outpoint, above, chain)).collect();
        if coins.len() == tx.tx().input.len() {
            return Ok(coins);
        }
        if chain.has_unspent(&tx.txid(), tx.tx().output.len() as u32) {
            return Err(Reject::new(RejectKind::Conflict, "txn-already-known").into());
        }
        // Those before the first that is missing were found.
        let unknown = outpoints().skip(coins.len());
        let unknown = unknown.filter(|outpoint| self.coin(outpoint, above, chain).is_none());
        let parents: BTreeSet<Txid> = unknown.map(|outpoint| outpoint.txid).collect();
        Err(Refusal::Missing(parents.into_iter().collect()))
    }

    pub(super) fn coin(
        &self,
        outpoint: &OutPoint,
        above: &[Candidate],
        chain: &dyn ChainState,
    ) -> Option<SpentCoin> {
        let unconfirmed = |output| SpentCoin { output, source: CoinSource::Mempool };
        if let Some(above) = above.iter().find(|above| above.tx.txid() == outpoint.txid) {
            return above.tx.tx().output.get(outpoint.vout as usize).cloned().map(unconfirmed);
        }
        if let Some(parent) = self.pool.get(&outpoint.txid) {
            return parent.output(outpoint.vout).map(unconfirmed);
        }
        let coin = chain.coin(outpoint)?;
        let source = CoinSource::Block { height: coin.height, is_coinbase: coin.is_coinbase };
        Some(SpentCoin { output: coin.output, source })
    }

    /// Fails where one is known to be bad, or with all that have to be run.
    pub(super) fn check_scripts(
        &self,
        candidates: Vec<Candidate>,
        moment: Moment<'_>,
    ) -> Result<(), ScriptRefusal> {
        if moment.scripts == ScriptCheck::Trusted {
            return Ok(());
        }
        let mut jobs = Vec::new();
        for candidate in candidates {
            let wtxid = candidate.entry.wtxid;
            match self.scripts.get(&wtxid) {
                Some(Ok(())) => {}
                Some(Err(reject)) if jobs.is_empty() => {
                    return Err(ScriptRefusal::Bad(wtxid, reject.clone()));
                }
                // Others come first; this one is asked about again after them.
                Some(Err(_)) => break,
                None => jobs.push(ScriptJob { tx: candidate.tx, spent: candidate.spent }),
            }
        }
        if jobs.is_empty() { Ok(()) } else { Err(ScriptRefusal::NotRun(jobs)) }
    }
}

/// Why scripts are not known to be good.
pub(super) enum ScriptRefusal {
    NotRun(Vec<ScriptJob>),
    Bad(Wtxid, Reject),
}

/// Whoever hands a transaction in may have set a limit.
pub(super) fn check_max_feerate(entry: &Entry, terms: Terms) -> Result<(), Reject> {
    let exceeds =
        |max: FeeRate| u128::from(entry.fee.to_sat()) * 1_000 > u128::from(max.0) * u128::from(entry.vsize);
    if terms.max_feerate.is_some_and(exceeds) {
        return Err(Reject::new(RejectKind::MempoolPolicy, "max feerate exceeded"));
    }
    Ok(())
}
