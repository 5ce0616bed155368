//! Who may take the place of whom.
//!
//! Source: Bitcoin Core `policy/rbf.cpp`, and `ReplacementChecks` of `validation.cpp`.

use bitcoin::Txid;

use super::clusters::Cluster;
use super::diagram;
use super::feefrac::FeeFrac;
use super::graph::Slot;
use super::plan::Candidate;
use super::stage::{Stage, regroup};
use super::{Pool, packages};
use crate::mempool::reject::money;
use crate::mempool::{Entry, FeeRate, Policy, Reject, RejectKind, ReplacementRule};

/// All that would have to leave for the candidate, if it pays for them.
pub(super) fn evicted(
    pool: &Pool,
    candidate: &Candidate,
    evicts_sibling: bool,
    policy: &Policy,
) -> Result<Vec<Slot>, Reject> {
    let suffix = if evicts_sibling { " (including sibling eviction)" } else { "" };
    let entry = &candidate.entry;
    let reject = |kind: RejectKind, reason: &str| Reject::new(kind, format!("{reason}{suffix}"));
    let is_bip125 = matches!(policy.replacement, ReplacementRule::Bip125 { .. });
    if is_bip125 {
        pays_more(pool, entry, &candidate.conflicts)
            .map_err(|details| reject(RejectKind::Reconsiderable, "insufficient fee").with(details))?;
    }
    let all = all_conflicts(pool, entry.txid, &candidate.conflicts, policy).map_err(|details| {
        reject(RejectKind::MempoolPolicy, "too many potential replacements").with(details)
    })?;
    if is_bip125 {
        adds_none(pool, entry, &all).map_err(|details| {
            reject(RejectKind::MempoolPolicy, "replacement-adds-unconfirmed").with(details)
        })?;
    }
    let paid = (entry.fee.to_sat(), entry.vsize);
    pays_for(fees(pool, &all), paid, policy.incremental, entry.txid)
        .map_err(|details| reject(RejectKind::Reconsiderable, "insufficient fee").with(details))?;
    Ok(all)
}

/// Rule 6, as Core numbers it: a better feerate than each direct conflict (`PaysMoreThanConflicts`).
fn pays_more(pool: &Pool, entry: &Entry, conflicts: &[Slot]) -> Result<(), String> {
    let rate_of = |entry: &Entry| FeeRate::of(entry.fee.to_sat(), entry.vsize);
    let ours = rate_of(entry);
    let theirs = conflicts.iter().map(|&slot| &pool.graph.node(slot).entry);
    let mut better = theirs.filter(|other| ours <= rate_of(other));
    let Some(other) = better.next() else { return Ok(()) };
    let (txid, new, old) = (entry.txid, feerate(ours), feerate(rate_of(other)));
    Err(format!("rejecting replacement {txid}; new feerate {new} <= old feerate {old}"))
}

/// Rule 2 of BIP125: no unconfirmed parent that what it replaces did not have (`HasNoNewUnconfirmed`).
fn adds_none(pool: &Pool, entry: &Entry, replaced: &[Slot]) -> Result<(), String> {
    let is_old = |txid: Txid| {
        let mut inputs = replaced.iter().flat_map(|&slot| &pool.graph.node(slot).entry.inputs);
        inputs.any(|input| input.outpoint.txid == txid)
    };
    for (index, input) in entry.inputs.iter().enumerate() {
        let parent = input.outpoint.txid;
        if pool.get(&parent).is_some() && !is_old(parent) {
            return Err(format!("replacement {} adds unconfirmed input, idx {index}", entry.txid));
        }
    }
    Ok(())
}

/// As Core writes feerates (`CFeeRate::ToString`).
pub(super) fn feerate(rate: FeeRate) -> String {
    format!("{}.{:08} BTC/kvB", rate.0 / 100_000_000, rate.0 % 100_000_000)
}

/// The conflicts with their descendants; fails where there are too many (`GetEntriesForConflicts`).
pub(super) fn all_conflicts(
    pool: &Pool,
    txid: Txid,
    conflicts: &[Slot],
    policy: &Policy,
) -> Result<Vec<Slot>, String> {
    match policy.replacement {
        ReplacementRule::Diagram { max_clusters } => {
            let clusters = match &pool.packages {
                None => pool.clusters.of(&pool.graph, conflicts.iter().copied()).len(),
                Some(_) => conflicts.len(),
            };
            if clusters > max_clusters {
                return Err(format!(
                    "rejecting replacement {txid}; too many conflicting clusters ({clusters} > {max_clusters})"
                ));
            }
        }
        ReplacementRule::Bip125 { max_evicted } => {
            // Whoever descends from two is counted twice, which is less work than to look.
            let mut count = 0;
            for &slot in conflicts {
                count += match &pool.packages {
                    None => pool.graph.descendants(&[slot]).len(),
                    Some(packages) => packages.family_count(slot),
                };
                if count > max_evicted {
                    return Err(format!(
                        "rejecting replacement {txid}; too many potential replacements ({count} > {max_evicted})"
                    ));
                }
            }
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
    let touched: Vec<Slot> = evicted.iter().chain(parents).copied().collect();
    let chunks = |clusters: &[&Cluster]| -> Vec<FeeFrac> {
        clusters.iter().flat_map(|cluster| cluster.chunks.iter().map(|chunk| chunk.frac)).collect()
    };
    if pool.packages.is_some() {
        let Some((old, slots)) = packages::components(&pool.graph, &touched) else { return false };
        let staying = slots.into_iter().filter(|&slot| stage.stays(slot));
        let members: Vec<Slot> = staying.chain(stage.new_slots()).collect();
        let new = regroup(stage, &[], &members);
        let refs = |clusters: &[Cluster]| chunks(&clusters.iter().collect::<Vec<_>>());
        return diagram::improves(&refs(&old), &refs(&new));
    }
    let clusters = pool.clusters_of(touched);
    let old: Vec<&Cluster> = clusters.into_iter().map(|cluster| pool.clusters.get(cluster)).collect();
    let new = regroup(stage, &old, &stage.new_slots());
    diagram::improves(&chunks(&old), &chunks(&new.iter().collect::<Vec<_>>()))
}
