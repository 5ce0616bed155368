//! A parent that pays too little, and the child that pays for both.
//!
//! Source: Bitcoin Core `validation.cpp` (`AcceptMultipleTransactionsInternal`, `PackageRBFChecks`).

use std::sync::Arc;

use super::graph::Found;
use super::plan::check_dust_spent;
use super::stage::Stage;
use super::{Plan, Pool, replace, truc};
use crate::mempool::{Entry, FeeRate, Policy, Reject, RejectKind};

impl Pool {
    /// Whether `parent` and `child`, which spends it, can come in together. Nothing changes.
    ///
    /// Both were tried alone before: whoever can come in alone is no part of a package.
    pub fn plan_package(
        &self,
        parent: impl Into<Arc<Entry>>,
        child: impl Into<Arc<Entry>>,
        policy: &Policy,
    ) -> Result<Plan, Reject> {
        let parent = self.candidate(parent.into())?;
        let child = self.candidate(child.into())?;
        let spends_parent =
            |entry: &Entry| entry.inputs.iter().any(|input| input.outpoint.txid == parent.entry.txid);
        if !spends_parent(&child.entry) {
            return Err(failed("package-not-child-with-parents"));
        }
        let shares_input = child
            .entry
            .inputs
            .iter()
            .any(|input| parent.entry.inputs.iter().any(|other| other.outpoint == input.outpoint));
        if shares_input {
            return Err(failed("conflict-in-package"));
        }
        self.check_families(&parent, None, policy)?;
        self.check_families(&child, None, policy)?;
        truc::check_package(self, &parent, &child).map_err(truc::Violation::reject)?;

        self.check_package_families(&parent, &child, policy)?;
        let mut stage = Stage::of(&self.graph);
        let mut replaced = Vec::new();
        if !parent.conflicts.is_empty() || !child.conflicts.is_empty() {
            if !parent.parents.is_empty() || !child.parents.is_empty() {
                return Err(failed("package RBF failed: new transaction cannot have mempool ancestors"));
            }
            let mut conflicts = parent.conflicts.clone();
            conflicts.extend(&child.conflicts);
            replaced =
                replace::all_conflicts(self, child.entry.txid, &conflicts, policy).map_err(|details| {
                    failed("package RBF failed: too many potential replacements").with(details)
                })?;
            let fee = parent.entry.fee.to_sat() + child.entry.fee.to_sat();
            let vsize = parent.entry.vsize + child.entry.vsize;
            let original = replace::fees(self, &replaced);
            replace::pays_for(original, (fee, vsize), policy.incremental, child.entry.txid)
                .map_err(|details| failed("package RBF failed: insufficient anti-DoS fees").with(details))?;
            check_child_pays(&parent.entry, fee, vsize)?;
            stage.without = Found::from_iter(replaced.iter().copied());
        }
        stage.add(&parent.entry, self.frac(&parent.entry));
        let slot = stage.add(&child.entry, self.frac(&child.entry));
        self.check_limits(&stage, slot, policy)?;
        if !replaced.is_empty() && !replace::improves(self, &stage, &[], &replaced) {
            return Err(failed("package RBF failed: insufficient feerate: does not improve feerate diagram"));
        }
        check_dust_spent(self, &parent.entry, None)?;
        check_dust_spent(self, &child.entry, Some(&parent.entry))?;
        Ok(self.plan_of(vec![parent.entry, child.entry], &replaced))
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
