//! A child with its parents, where the child may pay for them.
//!
//! Each is tried alone first; those that fail for their fee, or for want of a parent that did, are tried together.
//! Scripts are run elsewhere, so a package is handed back and forth until it is done.
//! Source: Bitcoin Core `validation.cpp` (`AcceptPackage`, `AcceptMultipleTransactionsInternal`).

use std::collections::BTreeMap;
use std::sync::Arc;

use bitcoin::{Txid, Wtxid};

use super::admission::{Candidate, Moment, ScriptJob, ScriptRefusal, Terms, check_max_feerate};
use super::entry::Entry;
use super::machine::Mempool;
use super::policy::FeeRate;
use super::pool::{PackageRefusal, Plan};
use super::reject::{Reject, RejectKind};
use super::submission::Taken;
use super::topology::{check_well_formed, is_child_with_parents};
use super::transaction::Unconfirmed;

/// What is said of a package for one of its transactions.
const FAILED: &str = "transaction failed";

/// A package on its way in.
#[derive(Clone, Debug)]
pub struct Package {
    txs: Vec<Arc<Unconfirmed>>,
    max_feerate: Option<FeeRate>,
    /// Why it is not looked at.
    malformed: Option<Reject>,
    /// What went wrong, as it is said of the whole.
    reject: Option<Reject>,
    /// Of those that were tried alone and of those that were here.
    results: BTreeMap<Wtxid, Member>,
    replaced: Vec<Txid>,
    /// How many were tried alone.
    tried: usize,
    /// Those that may come in with others.
    together: Vec<Arc<Unconfirmed>>,
}

/// What became of one transaction of a package.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Member {
    /// It is in, now or since before.
    Taken(Taken),
    /// Another one is here that differs in its witness alone.
    OtherWitness(Wtxid, Taken),
    Rejected(Reject),
}

/// What became of a package, or what there is to do first.
#[derive(Clone, Debug)]
pub enum PackageStep {
    NeedsScripts(Vec<ScriptJob>),
    Done(PackageResult),
}

/// See [`PackageStep`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackageResult {
    /// Why it did not come in as a whole.
    pub reject: Option<Reject>,
    /// In the order of the package; `None` for all where the package was not looked at.
    pub members: Vec<(Arc<Unconfirmed>, Option<Member>)>,
    /// Transactions whose place was taken.
    pub replaced: Vec<Txid>,
}

impl Package {
    /// The child stands last. Nobody means to pay more than `max_feerate` for any of them.
    pub fn new(txs: Vec<Arc<Unconfirmed>>, max_feerate: Option<FeeRate>) -> Self {
        let mut malformed = check_well_formed(&txs).err();
        if malformed.is_none() && txs.len() > 1 && !is_child_with_parents(&txs) {
            malformed = Some(Reject::new(RejectKind::MempoolPolicy, "package-not-child-with-parents"));
        }
        Self {
            txs,
            max_feerate,
            malformed,
            reject: None,
            results: BTreeMap::new(),
            replaced: Vec::new(),
            tried: 0,
            together: Vec::new(),
        }
    }

    fn terms(&self) -> Terms {
        Terms { max_feerate: self.max_feerate, ..Terms::ALONE }
    }

    fn taken(&mut self, plan: &Plan, package: Option<FeeRate>) {
        let wtxids: Vec<Wtxid> = plan.entries().iter().map(|entry| entry.wtxid).collect();
        for entry in plan.entries() {
            let rate = package.unwrap_or_else(|| FeeRate::of(entry.fee.to_sat(), entry.vsize));
            let taken = Taken { effective: Some((rate, wtxids.clone())), ..already(entry) };
            self.results.insert(entry.wtxid, Member::Taken(taken));
        }
        self.replaced.extend(plan.replaced().iter().map(|entry| entry.txid));
    }
}

/// One that is here.
fn already(entry: &Entry) -> Taken {
    Taken { vsize: entry.vsize, fee: entry.fee, effective: None }
}

fn failed() -> Reject {
    Reject::new(RejectKind::Unknown, FAILED)
}

impl Mempool {
    /// Goes on with a package: to its end, or to scripts that have to be run before.
    pub fn admit_package(&mut self, package: &mut Package, moment: Moment<'_>) -> PackageStep {
        if package.malformed.is_none() {
            if let Err(jobs) = self.try_all(package, moment) {
                return PackageStep::NeedsScripts(jobs);
            }
            self.trim(moment.now);
        }
        PackageStep::Done(self.finish(package))
    }

    fn try_all(&mut self, package: &mut Package, moment: Moment<'_>) -> Result<(), Vec<ScriptJob>> {
        self.try_alone(package, moment)?;
        if package.reject.is_none() && !package.together.is_empty() {
            self.try_together(package, moment)?;
        }
        Ok(())
    }

    fn try_alone(&mut self, package: &mut Package, moment: Moment<'_>) -> Result<(), Vec<ScriptJob>> {
        while let Some(tx) = package.txs.get(package.tried).map(Arc::clone) {
            if let Some(entry) = self.pool.by_wtxid(&tx.wtxid()) {
                package.results.insert(tx.wtxid(), Member::Taken(already(entry)));
            } else if let Some(entry) = self.pool.get(&tx.txid()) {
                package.results.insert(tx.wtxid(), Member::OtherWitness(entry.wtxid, already(entry)));
            } else {
                self.try_one(package, &tx, moment)?;
            }
            package.tried += 1;
        }
        Ok(())
    }

    fn try_one(
        &mut self,
        package: &mut Package,
        tx: &Arc<Unconfirmed>,
        moment: Moment<'_>,
    ) -> Result<(), Vec<ScriptJob>> {
        let refusal = match self.evaluate(tx, moment, package.terms()) {
            Ok(plan) => {
                package.taken(&plan, None);
                self.commit(plan);
                return Ok(());
            }
            Err(refusal) => refusal,
        };
        let reject = refusal.into_reject()?;
        // Only fees, and what is missing, can look otherwise in company.
        let may_come_with_others = package.txs.len() > 1
            && matches!(reject.kind, RejectKind::Reconsiderable | RejectKind::MissingInputs);
        if may_come_with_others {
            package.together.push(Arc::clone(tx));
        } else {
            package.reject = Some(failed());
        }
        package.results.insert(tx.wtxid(), Member::Rejected(reject));
        Ok(())
    }

    fn try_together(&mut self, package: &mut Package, moment: Moment<'_>) -> Result<(), Vec<ScriptJob>> {
        let txs = package.together.clone();
        if let [tx] = &txs[..] {
            // Another one may have come in after it.
            self.try_one(package, tx, moment)?;
            if matches!(package.results.get(&tx.wtxid()), Some(Member::Rejected(_))) {
                package.reject = Some(failed());
            }
            return Ok(());
        }
        match self.evaluate_package(&txs, moment, package.max_feerate) {
            Ok((plan, rate)) => {
                package.taken(&plan, Some(rate));
                self.commit(plan);
            }
            Err(PackageFailure::NeedsScripts(jobs)) => return Err(jobs),
            Err(PackageFailure::Package(reject)) => package.reject = Some(reject),
            Err(PackageFailure::Member(wtxid, reject, reason)) => {
                package.results.insert(wtxid, Member::Rejected(reject));
                package.reject = Some(Reject::new(RejectKind::Unknown, reason));
            }
        }
        Ok(())
    }

    /// Several that only come in together, with the feerate of all. Nothing changes.
    fn evaluate_package(
        &self,
        txs: &[Arc<Unconfirmed>],
        moment: Moment<'_>,
        max_feerate: Option<FeeRate>,
    ) -> Result<(Plan, FeeRate), PackageFailure> {
        let terms = Terms { pays_alone: false, may_replace: true, max_feerate };
        let (candidates, plan) = self.plan_together(txs, moment, terms)?;
        let rate = package_rate(&candidates);
        self.check_scripts(candidates, moment)?;
        Ok((plan, rate))
    }

    /// What is asked of several that depend on each other, but for their scripts.
    pub(super) fn plan_together(
        &self,
        txs: &[Arc<Unconfirmed>],
        moment: Moment<'_>,
        terms: Terms,
    ) -> Result<(Vec<Candidate>, Plan), PackageFailure> {
        check_well_formed(txs).map_err(PackageFailure::Package)?;
        let mut candidates: Vec<Candidate> = Vec::with_capacity(txs.len());
        for tx in txs {
            let of_member = |reject| PackageFailure::Member(tx.wtxid(), reject, FAILED);
            let candidate = self.candidate(tx, &candidates, moment, terms).and_then(|candidate| {
                self.pool.check_truc(Arc::clone(&candidate.entry))?;
                check_max_feerate(&candidate.entry, terms)?;
                Ok(candidate)
            });
            // Scripts are not asked about here.
            let candidate = candidate.map_err(|refusal| match refusal.into_reject() {
                Ok(reject) => of_member(reject),
                Err(jobs) => PackageFailure::NeedsScripts(jobs),
            })?;
            candidates.push(candidate);
        }
        let entries = candidates.iter().map(|candidate| Arc::clone(&candidate.entry)).collect();
        let floor = (!terms.pays_alone).then(|| self.pool.min_fee(moment.now));
        match self.pool.plan_package(entries, floor, &self.policy) {
            Ok(plan) => Ok((candidates, plan)),
            Err(PackageRefusal::Package(reject)) => Err(PackageFailure::Package(reject)),
            // Core names the child.
            Err(PackageRefusal::Fee(reject)) => Err(match txs.last() {
                Some(child) => PackageFailure::Member(child.wtxid(), reject, FAILED),
                None => PackageFailure::Package(reject),
            }),
            Err(PackageRefusal::Dust(wtxid, reject)) => {
                Err(PackageFailure::Member(wtxid, reject, "unspent-dust"))
            }
        }
    }

    fn finish(&self, package: &Package) -> PackageResult {
        let mut reject = package.malformed.clone().or_else(|| package.reject.clone());
        let members = package.txs.iter().map(|tx| {
            let member = package.results.get(&tx.wtxid()).cloned();
            // What came in may have been the first to go where there was no room.
            let is_in = !matches!(member, None | Some(Member::Rejected(_)));
            if is_in && self.pool.get(&tx.txid()).is_none() {
                reject = Some(failed());
                let full = Reject::new(RejectKind::MempoolPolicy, "mempool full");
                return (Arc::clone(tx), Some(Member::Rejected(full)));
            }
            (Arc::clone(tx), member)
        });
        let members = members.collect();
        PackageResult { reject, members, replaced: package.replaced.clone() }
    }
}

/// Why several do not come in together.
pub(super) enum PackageFailure {
    NeedsScripts(Vec<ScriptJob>),
    Package(Reject),
    /// One of them, and the reason that is given for the whole.
    Member(Wtxid, Reject, &'static str),
}

impl From<ScriptRefusal> for PackageFailure {
    fn from(refusal: ScriptRefusal) -> Self {
        match refusal {
            ScriptRefusal::NotRun(jobs) => Self::NeedsScripts(jobs),
            ScriptRefusal::Bad(wtxid, reject) => Self::Member(wtxid, reject, FAILED),
        }
    }
}

/// What all pay together.
fn package_rate(candidates: &[Candidate]) -> FeeRate {
    let fee = candidates.iter().map(|candidate| candidate.entry.fee.to_sat()).sum();
    let vsize = candidates.iter().map(|candidate| candidate.entry.vsize).sum();
    FeeRate::of(fee, vsize)
}
