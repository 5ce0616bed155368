//! Whether an entry, or a parent with its child, can come in beside what is there.
//!
//! The order of the questions is Bitcoin Core's, as the first that fails is the answer. What `admission` asks before
//! (coins, fees against the floor) and after (scripts) is not asked here.
//! Source: Bitcoin Core `validation.cpp` (`PreChecks`, `ReplacementChecks`, `AcceptSingleTransactionInternal`).

use std::sync::Arc;

use bitcoin::OutPoint;

use super::graph::{Found, Slot};
use super::packages::Limits;
use super::stage::Stage;
use super::{Changes, Pool, Removal, replace, truc};
use crate::mempool::{ChainLimits, Entry, Policy, Reject, RejectKind, ReplacementRule};

/// Virtual bytes of the one child more that a parent may have (`EXTRA_DESCENDANT_TX_SIZE_LIMIT`).
const EXTRA_DESCENDANT_VSIZE: u64 = 10_000;

/// What would come in, and whose place it takes. Only for the state on which it was made.
#[derive(Clone, Debug)]
pub struct Plan {
    pub(super) generation: u64,
    pub(super) entries: Vec<Arc<Entry>>,
    pub(super) replaced: Vec<Arc<Entry>>,
}

impl Plan {
    /// Who comes, parents first.
    pub fn entries(&self) -> &[Arc<Entry>] {
        &self.entries
    }

    /// Who leaves for them.
    pub fn replaced(&self) -> &[Arc<Entry>] {
        &self.replaced
    }
}

/// One newcomer, with what it meets.
pub(super) struct Candidate {
    pub entry: Arc<Entry>,
    pub parents: Vec<Slot>,
    /// Who spends what it spends.
    pub conflicts: Vec<Slot>,
}

impl Pool {
    /// Whether `entry` can come in alone. Nothing changes.
    ///
    /// The errors are Core's: a conflict that does not pay enough, too much that hangs together, a rule of BIP431.
    pub fn plan(&self, entry: impl Into<Arc<Entry>>, policy: &Policy) -> Result<Plan, Reject> {
        let mut candidate = self.candidate(entry.into())?;
        self.check_families(&candidate, Some(&candidate.conflicts), policy)?;
        let evicts_sibling = match truc::check(self, &candidate) {
            Ok(()) => false,
            Err(truc::Violation { sibling: Some(sibling), .. }) => {
                candidate.conflicts.push(sibling);
                true
            }
            Err(violation) => return Err(violation.reject()),
        };
        let mut stage = Stage::of(&self.graph);
        let mut replaced = Vec::new();
        if !candidate.conflicts.is_empty() {
            if matches!(policy.replacement, ReplacementRule::Bip125 { .. }) {
                check_disjoint(self, &candidate)?;
            }
            replaced = replace::evicted(self, &candidate, evicts_sibling, policy)?;
            stage.without = Found::from_iter(replaced.iter().copied());
        }
        let slot = stage.add(&candidate.entry, self.frac(&candidate.entry));
        self.check_limits(&stage, slot, policy)?;
        if !replaced.is_empty() && matches!(policy.replacement, ReplacementRule::Diagram { .. }) {
            replace::check_diagram(self, &stage, &candidate.parents, &replaced)?;
        }
        check_disjoint(self, &candidate)?;
        check_dust_spent(self, &candidate.entry, &[])?;
        Ok(self.plan_of(vec![candidate.entry], &replaced))
    }

    /// Whether a member of a package keeps the rules of version 3 beside what is here: what each would be told alone,
    /// but that nobody leaves for it.
    pub fn check_truc(&self, entry: Arc<Entry>) -> Result<(), Reject> {
        truc::check(self, &self.candidate(entry)?).map_err(truc::Violation::reject)
    }

    /// Takes in what was planned, and takes out what makes place for it.
    ///
    /// A plan that was made on another state is not carried out: nothing changes then, and `added` is empty.
    pub fn commit(&mut self, plan: Plan) -> Changes {
        if plan.generation != self.generation || !self.unlinked.is_empty() {
            return Changes::default();
        }
        let replaced = plan.replaced.iter().filter_map(|entry| self.graph.by_txid(&entry.txid));
        let replaced: Vec<(Slot, Removal)> = replaced.map(|slot| (slot, Removal::Replaced)).collect();
        self.change(&replaced, plan.entries)
    }

    pub(super) fn plan_of(&self, entries: Vec<Arc<Entry>>, replaced: &[Slot]) -> Plan {
        let replaced = replaced.iter().map(|&slot| Arc::clone(&self.graph.node(slot).entry)).collect();
        Plan { generation: self.generation, entries, replaced }
    }

    /// What a newcomer meets; fails where it is here already.
    pub(super) fn candidate(&self, entry: Arc<Entry>) -> Result<Candidate, Reject> {
        if self.graph.by_wtxid(&entry.wtxid).is_some() {
            return Err(Reject::new(RejectKind::Conflict, "txn-already-in-mempool"));
        }
        if self.graph.by_txid(&entry.txid).is_some() {
            return Err(Reject::new(RejectKind::Conflict, "txn-same-nonwitness-data-in-mempool"));
        }
        // In the order in which Core looks at them, as the first that breaks a rule is named.
        let mut parents = self.graph.parents_of(&entry);
        parents.sort_unstable_by_key(|&slot| self.graph.node(slot).entry.txid);
        let spenders = entry.inputs.iter().filter_map(|input| self.graph.spender(&input.outpoint));
        let mut conflicts: Vec<Slot> = spenders.collect();
        conflicts.sort_unstable();
        conflicts.dedup();
        Ok(Candidate { entry, parents, conflicts })
    }

    /// Whether a newcomer has few enough ancestors, and they few enough descendants with it.
    ///
    /// Alone (with its `conflicts`) it may do a little more: take the place of one, or be the one small child more that
    /// a parent may have (the carve-out for channels).
    pub(super) fn check_families(
        &self,
        candidate: &Candidate,
        conflicts: Option<&[Slot]>,
        policy: &Policy,
    ) -> Result<(), Reject> {
        let (Some(packages), Some(mut limits)) = (&self.packages, limits(policy)) else { return Ok(()) };
        if let Some(&[conflict]) = conflicts {
            limits.descendants += 1;
            limits.descendant_vsize += packages.family_vsize(conflict);
        }
        let entry = &candidate.entry;
        let newcomer = (1, entry.vsize);
        let Err(details) = packages.check(&self.graph, &candidate.parents, newcomer, limits) else {
            return Ok(());
        };
        let carved_out = Limits {
            ancestors: 2,
            descendants: limits.descendants + 1,
            descendant_vsize: limits.descendant_vsize + EXTRA_DESCENDANT_VSIZE,
            ..limits
        };
        let may = conflicts.is_some() && entry.vsize <= EXTRA_DESCENDANT_VSIZE && !entry.is_truc;
        if may && packages.check(&self.graph, &candidate.parents, newcomer, carved_out).is_ok() {
            return Ok(());
        }
        Err(Reject::new(RejectKind::MempoolPolicy, "too-long-mempool-chain").with(details))
    }

    /// The same for a parent and its child, as if each were a descendant of all that either has above it.
    pub(super) fn check_package_families(
        &self,
        parent: &Candidate,
        child: &Candidate,
        policy: &Policy,
    ) -> Result<(), Reject> {
        let (Some(packages), Some(limits)) = (&self.packages, limits(policy)) else { return Ok(()) };
        let mut parents: Vec<Slot> = parent.parents.iter().chain(&child.parents).copied().collect();
        parents.sort_unstable();
        parents.dedup();
        let vsize = parent.entry.vsize + child.entry.vsize;
        let reject = |details| Reject::new(RejectKind::MempoolPolicy, "package-mempool-limits").with(details);
        for (what, limit) in [("ancestor", limits.ancestor_vsize), ("descendant", limits.descendant_vsize)] {
            if vsize > limit {
                return Err(reject(format!(
                    "package size {vsize} exceeds {what} size limit [limit: {limit}]"
                )));
            }
        }
        packages
            .check(&self.graph, &parents, (2, vsize), limits)
            .map_err(|details| reject(format!("possibly {details}")))
    }

    /// Whether what hangs together with a newcomer is small enough.
    pub(super) fn check_limits(&self, stage: &Stage<'_>, slot: Slot, policy: &Policy) -> Result<(), Reject> {
        let ChainLimits::Cluster { count, vsize } = policy.limits else { return Ok(()) };
        let count = count.min(super::linearize::MAX_CLUSTER);
        let weight = vsize.saturating_mul(4);
        let (found, total) = stage.component(slot, count, weight);
        if found > count || total.size > weight {
            return Err(Reject::new(RejectKind::MempoolPolicy, "too-large-cluster"));
        }
        Ok(())
    }
}

fn limits(policy: &Policy) -> Option<Limits> {
    match policy.limits {
        ChainLimits::Cluster { .. } => None,
        ChainLimits::Ancestors { count, vsize } => Some(Limits {
            ancestors: count,
            ancestor_vsize: vsize,
            descendants: count,
            descendant_vsize: vsize,
        }),
    }
}

/// A transaction cannot spend what it would throw out.
pub(super) fn check_disjoint(pool: &Pool, candidate: &Candidate) -> Result<(), Reject> {
    if candidate.conflicts.is_empty() {
        return Ok(());
    }
    let ancestors = pool.graph.ancestors(&candidate.parents);
    let both = ancestors.into_iter().filter(|slot| candidate.conflicts.contains(slot));
    match both.map(|slot| pool.graph.node(slot).entry.txid).min() {
        None => Ok(()),
        Some(ancestor) => {
            let details = format!("{} spends conflicting transaction {ancestor}", candidate.entry.txid);
            Err(Reject::new(RejectKind::Consensus, "bad-txns-spends-conflicting-tx").with(details))
        }
    }
}

/// Who spends a transaction spends its dust too: for that alone it was let in (`CheckEphemeralSpends`). `package` is
/// what comes in with it.
pub(super) fn check_dust_spent(pool: &Pool, entry: &Entry, package: &[Arc<Entry>]) -> Result<(), Reject> {
    let spends = |outpoint: OutPoint| entry.inputs.iter().any(|input| input.outpoint == outpoint);
    for input in &entry.inputs {
        let txid = input.outpoint.txid;
        let parent = package.iter().find(|other| other.txid == txid).or_else(|| pool.get(&txid));
        let dust = parent.and_then(|parent| parent.dust);
        if dust.is_some_and(|vout| !spends(OutPoint { txid, vout })) {
            let details =
                format!("tx {} (wtxid={}) did not spend parent's ephemeral dust", entry.txid, entry.wtxid);
            return Err(Reject::new(RejectKind::MempoolPolicy, "missing-ephemeral-spends").with(details));
        }
    }
    Ok(())
}
