//! Transactions of version 3: one parent or one child unconfirmed, and small ones.
//!
//! Source: BIP431, Bitcoin Core `policy/truc_policy.cpp`.

use super::Pool;
use super::graph::Slot;
use super::plan::Candidate;
use crate::mempool::{Entry, Reject, RejectKind};

/// A transaction and its unconfirmed ancestors, or its unconfirmed descendants.
const TRUC_LIMIT: usize = 2;
/// Virtual bytes of one of version 3.
const TRUC_MAX_VSIZE: u64 = 10_000;
/// Virtual bytes of one that spends an unconfirmed one.
const TRUC_CHILD_MAX_VSIZE: u64 = 1_000;

/// A rule that a newcomer breaks.
#[derive(Debug)]
pub(super) struct Violation {
    details: String,
    /// The other child, which may be replaced although nothing conflicts.
    pub sibling: Option<Slot>,
}

impl Violation {
    fn new(details: String) -> Self {
        Self { details, sibling: None }
    }

    pub fn reject(self) -> Reject {
        Reject::new(RejectKind::MempoolPolicy, "TRUC-violation").with(self.details)
    }
}

/// A transaction as Core names it.
fn name(entry: &Entry) -> String {
    format!("{} (wtxid={})", entry.txid, entry.wtxid)
}

/// Only the like may spend the like, of what is unconfirmed.
fn check_inheritance(child: &Entry, parent: &Entry) -> Result<(), Violation> {
    let (child_name, parent_name) = (name(child), name(parent));
    match (child.is_truc, parent.is_truc) {
        (false, true) => Err(Violation::new(format!(
            "non-version=3 tx {child_name} cannot spend from version=3 tx {parent_name}"
        ))),
        (true, false) => Err(Violation::new(format!(
            "version=3 tx {child_name} cannot spend from non-version=3 tx {parent_name}"
        ))),
        _ => Ok(()),
    }
}

fn check_vsize(entry: &Entry) -> Result<(), Violation> {
    let (name, vsize) = (name(entry), entry.vsize);
    if vsize > TRUC_MAX_VSIZE {
        let details = format!("version=3 tx {name} is too big: {vsize} > {TRUC_MAX_VSIZE} virtual bytes");
        return Err(Violation::new(details));
    }
    Ok(())
}

fn check_child_vsize(entry: &Entry) -> Result<(), Violation> {
    let (name, vsize) = (name(entry), entry.vsize);
    if vsize > TRUC_CHILD_MAX_VSIZE {
        return Err(Violation::new(format!(
            "version=3 child tx {name} is too big: {vsize} > {TRUC_CHILD_MAX_VSIZE} virtual bytes"
        )));
    }
    Ok(())
}

fn too_many_ancestors(entry: &Entry) -> Violation {
    Violation::new(format!("tx {} would have too many ancestors", name(entry)))
}

fn too_many_descendants(parent: &Entry) -> Violation {
    Violation::new(format!("tx {} would exceed descendant count limit", name(parent)))
}

/// The rules for one that comes alone (`SingleTRUCChecks`).
pub(super) fn check(pool: &Pool, candidate: &Candidate) -> Result<(), Violation> {
    let (graph, entry) = (&pool.graph, &candidate.entry);
    for &parent in &candidate.parents {
        check_inheritance(entry, &graph.node(parent).entry)?;
    }
    if !entry.is_truc {
        return Ok(());
    }
    check_vsize(entry)?;
    if candidate.parents.len() + 1 > TRUC_LIMIT {
        return Err(too_many_ancestors(entry));
    }
    let &[parent] = &candidate.parents[..] else { return Ok(()) };
    if graph.ancestors(&[parent]).len() + 1 > TRUC_LIMIT {
        return Err(too_many_ancestors(entry));
    }
    check_child_vsize(entry)?;
    let family = graph.descendants(&[parent]);
    let others: Vec<Slot> = family.iter().copied().filter(|&slot| slot != parent).collect();
    let is_replaced = others.iter().any(|other| candidate.conflicts.contains(other));
    if family.len() < TRUC_LIMIT || is_replaced {
        return Ok(());
    }
    // After a reorganisation there may be more children, or grandchildren: then it is not clear who should go.
    let sibling = match others[..] {
        [only] if graph.ancestors(&[only]).len() == 2 => Some(only),
        _ => None,
    };
    Err(Violation { sibling, ..too_many_descendants(&graph.node(parent).entry) })
}

/// The rules for several that come together, parents before children (`PackageTRUCChecks`).
pub(super) fn check_package(pool: &Pool, package: &[Candidate]) -> Result<(), Violation> {
    package.iter().enumerate().try_for_each(|(at, candidate)| check_member(pool, package, candidate, at))
}

/// The rules for the one at that place.
fn check_member(
    pool: &Pool,
    package: &[Candidate],
    candidate: &Candidate,
    at: usize,
) -> Result<(), Violation> {
    let (graph, entry) = (&pool.graph, &*candidate.entry);
    let spends = |txid| entry.inputs.iter().any(|input| input.outpoint.txid == txid);
    let before = package.iter().take(at).map(|other| &*other.entry);
    let above: Vec<&Entry> = before.filter(|other| spends(other.txid)).collect();
    let here = candidate.parents.iter().map(|&parent| &*graph.node(parent).entry);
    if !entry.is_truc {
        return here.chain(above).try_for_each(|parent| check_inheritance(entry, parent));
    }
    check_vsize(entry)?;
    if candidate.parents.len() + above.len() + 1 > TRUC_LIMIT {
        return Err(too_many_ancestors(entry));
    }
    let first = candidate.parents.first().copied();
    if first.is_some_and(|first| graph.ancestors(&[first]).len() + above.len() + 1 > TRUC_LIMIT) {
        return Err(too_many_ancestors(entry));
    }
    let parent = first.map(|first| &*graph.node(first).entry).or(above.first().copied());
    let Some(parent) = parent else { return Ok(()) };
    check_child_vsize(entry)?;
    check_inheritance(entry, parent)?;
    for other in package.iter().map(|other| &*other.entry).filter(|other| other.txid != entry.txid) {
        for input in &other.inputs {
            if input.outpoint.txid == parent.txid {
                return Err(too_many_descendants(parent));
            }
            if input.outpoint.txid == entry.txid {
                return Err(too_many_ancestors(other));
            }
        }
    }
    if first.is_some_and(|first| !graph.node(first).children.is_empty()) {
        return Err(too_many_descendants(parent));
    }
    Ok(())
}
