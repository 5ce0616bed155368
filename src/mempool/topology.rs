//! How the transactions of a package may depend on each other.
//!
//! Source: Bitcoin Core `policy/packages.cpp`.

use std::collections::BTreeSet;
use std::sync::Arc;

use bitcoin::{OutPoint, Txid};

use super::reject::{Reject, RejectKind};
use super::submission::MAX_PACKAGE;
use super::transaction::Unconfirmed;

/// Weight units of a package.
const MAX_PACKAGE_WEIGHT: u64 = 404_000;

/// A package that could be looked at at all: not too large, in order, without conflicts (`IsWellFormedPackage`).
pub(super) fn check_well_formed(txs: &[Arc<Unconfirmed>]) -> Result<(), Reject> {
    let failed = |reason| Err(Reject::new(RejectKind::MempoolPolicy, reason));
    if txs.len() > MAX_PACKAGE {
        return failed("package-too-many-transactions");
    }
    if txs.len() > 1 && txs.iter().map(|tx| tx.weight()).sum::<u64>() > MAX_PACKAGE_WEIGHT {
        return failed("package-too-large");
    }
    let mut later: BTreeSet<Txid> = txs.iter().map(|tx| tx.txid()).collect();
    if later.len() != txs.len() {
        return failed("package-contains-duplicates");
    }
    for tx in txs {
        if parents(tx).any(|parent| later.contains(&parent)) {
            return failed("package-not-sorted");
        }
        later.remove(&tx.txid());
    }
    let mut spent: BTreeSet<OutPoint> = BTreeSet::new();
    for tx in txs {
        let outpoints = || tx.tx().input.iter().map(|input| input.previous_output);
        if outpoints().any(|outpoint| spent.contains(&outpoint)) {
            return failed("conflict-in-package");
        }
        // One that spends twice itself is told so by a rule of its own.
        spent.extend(outpoints());
    }
    Ok(())
}

/// All but the last are parents of the last (`IsChildWithParents`).
pub(super) fn is_child_with_parents(txs: &[Arc<Unconfirmed>]) -> bool {
    let Some((child, others)) = txs.split_last() else { return false };
    let spent: BTreeSet<Txid> = parents(child).collect();
    !others.is_empty() && others.iter().all(|tx| spent.contains(&tx.txid()))
}

/// The same, and none of the parents depends on another (`IsChildWithParentsTree`).
pub(super) fn is_child_with_parents_tree(txs: &[Arc<Unconfirmed>]) -> bool {
    let Some((_, others)) = txs.split_last() else { return false };
    let ids: BTreeSet<Txid> = others.iter().map(|tx| tx.txid()).collect();
    is_child_with_parents(txs) && others.iter().all(|tx| parents(tx).all(|parent| !ids.contains(&parent)))
}

fn parents(tx: &Unconfirmed) -> impl Iterator<Item = Txid> {
    tx.tx().input.iter().map(|input| input.previous_output.txid)
}
