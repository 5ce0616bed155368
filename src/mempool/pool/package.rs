//! Several that come in together, as a parent that pays too little and the child that pays for both.
//!
//! Source: Bitcoin Core `validation.cpp` (`AcceptMultipleTransactionsInternal`, `PackageRBFChecks`).

use std::sync::Arc;

use bitcoin::Wtxid;

use super::graph::{Found, Slot};
use super::plan::{Candidate, check_dust_spent};
use super::stage::Stage;
use super::{Plan, Pool, replace, truc};
use crate::mempool::checks::check_feerate;
use crate::mempool::{Entry, FeeRate, Policy, Reject, RejectKind};

/// Why several do not come in together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PackageRefusal {
    /// For what they are together.
    Package(Reject),
    /// All their fees do not suffice.
    Fee(Reject),
    /// This one does not spend its parent's dust.
    Dust(Wtxid, Reject),
}

impl Pool {
    /// Whether `entries`, parents before children, can come in together. Nothing changes.
    ///
    /// None of them conflicts with another. Their fees together must be above `floor`, where there is one; where each
    /// pays for itself there is none.
    pub fn plan_package(
        &self,
        entries: Vec<Arc<Entry>>,
        floor: Option<FeeRate>,
        policy: &Policy,
    ) -> Result<Plan, PackageRefusal> {
        let candidates = entries.into_iter().map(|entry| self.candidate(entry));
        let candidates: Vec<Candidate> =
            candidates.collect::<Result<_, _>>().map_err(PackageRefusal::Package)?;
        for candidate in &candidates {
            self.check_families(candidate, None, policy).map_err(PackageRefusal::Package)?;
        }
        truc::check_package(self, &candidates)
            .map_err(|violation| PackageRefusal::Package(violation.reject()))?;
        let fee = candidates.iter().map(|candidate| candidate.entry.fee).sum();
        let vsize = candidates.iter().map(|candidate| candidate.entry.vsize).sum();
        if let Some(floor) = floor {
            check_feerate(fee, vsize, floor, policy).map_err(PackageRefusal::Fee)?;
        }
        if let [parent, child] = &candidates[..] {
            self.check_package_families(parent, child, policy).map_err(PackageRefusal::Package)?;
        }
        let mut stage = Stage::of(&self.graph);
        let mut replaced = Vec::new();
        if candidates.iter().any(|candidate| !candidate.conflicts.is_empty()) {
            replaced = self
                .replaced_by_package(&candidates, (fee.to_sat(), vsize), policy)
                .map_err(PackageRefusal::Package)?;
            stage.without = Found::from_iter(replaced.iter().copied());
        }
        for candidate in &candidates {
            stage.add(&candidate.entry, self.frac(&candidate.entry));
        }
        for slot in stage.new_slots() {
            self.check_limits(&stage, slot, policy).map_err(PackageRefusal::Package)?;
        }
        if !replaced.is_empty() && !replace::improves(self, &stage, &[], &replaced) {
            let reason = "package RBF failed: insufficient feerate: does not improve feerate diagram";
            return Err(PackageRefusal::Package(failed(reason)));
        }
        let entries: Vec<Arc<Entry>> = candidates.into_iter().map(|candidate| candidate.entry).collect();
        for entry in &entries {
            check_dust_spent(self, entry, &entries)
                .map_err(|reject| PackageRefusal::Dust(entry.wtxid, reject))?;
        }
        Ok(self.plan_of(entries, &replaced))
    }

    /// Who leaves for a package that pays `paid`: a fee and a virtual size.
    fn replaced_by_package(
        &self,
        candidates: &[Candidate],
        paid: (u64, u64),
        policy: &Policy,
    ) -> Result<Vec<Slot>, Reject> {
        let [parent, child] = candidates else {
            return Err(failed("package RBF failed: package must be 1-parent-1-child"));
        };
        if !parent.parents.is_empty() || !child.parents.is_empty() {
            return Err(failed("package RBF failed: new transaction cannot have mempool ancestors"));
        }
        let conflicts = [&parent.conflicts[..], &child.conflicts].concat();
        let replaced = replace::all_conflicts(self, child.entry.txid, &conflicts, policy)
            .map_err(|details| failed("package RBF failed: too many potential replacements").with(details))?;
        let original = replace::fees(self, &replaced);
        replace::pays_for(original, paid, policy.incremental, child.entry.txid)
            .map_err(|details| failed("package RBF failed: insufficient anti-DoS fees").with(details))?;
        check_child_pays(&parent.entry, paid.0, paid.1)?;
        Ok(replaced)
    }
}

fn failed(reason: &'static str) -> Reject {
    Reject::new(RejectKind::MempoolPolicy, reason)
}

/// The child must lift its parent, not only pay for what both throw out.
fn check_child_pays(parent: &Entry, fee: u64, vsize: u64) -> Result<(), Reject> {
    let alone = u128::from(parent.fee.to_sat()) * u128::from(vsize);
    if u128::from(fee) * u128::from(parent.vsize) > alone {
        return Ok(());
    }
    let package = replace::feerate(FeeRate::of(fee, vsize));
    let parent = replace::feerate(FeeRate::of(parent.fee.to_sat(), parent.vsize));
    let details = format!("package feerate {package} <= parent feerate is {parent}");
    Err(failed("package RBF failed: package feerate is less than or equal to parent feerate").with(details))
}
