//! Who may take the place of whom.
//!
//! Source: Bitcoin Core `policy/rbf.cpp`, and `ReplacementChecks` of `validation.cpp`.

use bitcoin::Txid;

use super::Pool;
use super::clusters::Cluster;
use super::diagram;
use super::feefrac::FeeFrac;
use super::graph::Slot;
use super::plan::Candidate;
use super::stage::{Stage, regroup};
use crate::mempool::reject::money;
use crate::mempool::{FeeRate, Policy, Reject, RejectKind, ReplacementRule};

/// All that would have to leave for the candidate, if it pays for them.
pub(super) fn evicted(
    pool: &Pool,
    candidate: &Candidate,
    evicts_sibling: bool,
    policy: &Policy,
) -> Result<Vec<Slot>, Reject> {
    let suffix = if evicts_sibling { " (including sibling eviction)" } else { "" };
    let txid = candidate.entry.txid;
    let all = all_conflicts(pool, txid, &candidate.conflicts, policy).map_err(|details| {
        let reason = format!("too many potential replacements{suffix}");
        Reject::new(RejectKind::MempoolPolicy, reason).with(details)
    })?;
    let paid = (candidate.entry.fee.to_sat(), candidate.entry.vsize);
    pays_for(fees(pool, &all), paid, policy.incremental, txid).map_err(|details| {
        let reason = format!("insufficient fee{suffix}");
        Reject::new(RejectKind::Reconsiderable, reason).with(details)
    })?;
    Ok(all)
}

/// The conflicts with their descendants; fails where there are too many (`GetEntriesForConflicts`).
pub(super) fn all_conflicts(
    pool: &Pool,
    txid: Txid,
    conflicts: &[Slot],
    policy: &Policy,
) -> Result<Vec<Slot>, String> {
    if let ReplacementRule::Diagram { max_clusters } = policy.replacement {
        let clusters = pool.clusters.of(&pool.graph, conflicts.iter().copied()).len();
        if clusters > max_clusters {
            return Err(format!(
                "rejecting replacement {txid}; too many conflicting clusters ({clusters} > {max_clusters})"
            ));
        }
    }
    Ok(pool.graph.descendants(conflicts))
}

pub(super) fn fees(pool: &Pool, slots: &[Slot]) -> u64 {
    slots.iter().map(|&slot| pool.graph.node(slot).entry.fee.to_sat()).sum()
}

/// Rules 3 and 4 of BIP125: at least the fees of what is evicted, and its own relay on top (`PaysForRBF`).
/// `paid` is the fee and the virtual size of the replacement.
pub(super) fn pays_for(original: u64, paid: (u64, u64), relay: FeeRate, txid: Txid) -> Result<(), String> {
    let (fee, vsize) = paid;
    let Some(additional) = fee.checked_sub(original) else {
        let (fee, original) = (money(fee), money(original));
        return Err(format!(
            "rejecting replacement {txid}, less fees than conflicting txs; {fee} < {original}"
        ));
    };
    let needed = relay.fee(vsize);
    if additional < needed {
        let (additional, needed) = (money(additional), money(needed));
        return Err(format!(
            "rejecting replacement {txid}, not enough additional fees to relay; {additional} < {needed}"
        ));
    }
    Ok(())
}

/// Whether miners collect more at every size after the change (`ImprovesFeerateDiagram`).
pub(super) fn check_diagram(
    pool: &Pool,
    stage: &Stage<'_>,
    parents: &[Slot],
    evicted: &[Slot],
) -> Result<(), Reject> {
    if improves(pool, stage, parents, evicted) {
        return Ok(());
    }
    let details = "insufficient feerate: does not improve feerate diagram";
    Err(Reject::new(RejectKind::Reconsiderable, "replacement-failed").with(details))
}

/// See [`check_diagram`].
pub(super) fn improves(pool: &Pool, stage: &Stage<'_>, parents: &[Slot], evicted: &[Slot]) -> bool {
    let touched = evicted.iter().chain(parents).copied();
    let clusters = pool.clusters.of(&pool.graph, touched);
    let old: Vec<&Cluster> = clusters.into_iter().map(|cluster| pool.clusters.get(cluster)).collect();
    let new = regroup(stage, &old, &stage.new_slots());
    let fracs = |cluster: &Cluster| cluster.chunks.iter().map(|chunk| chunk.frac).collect::<Vec<FeeFrac>>();
    let old: Vec<FeeFrac> = old.into_iter().flat_map(fracs).collect();
    let new: Vec<FeeFrac> = new.iter().flat_map(fracs).collect();
    diagram::improves(&old, &new)
}
