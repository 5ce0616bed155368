//! Which transactions are fetched, and what becomes of them.
//!
//! In: announcements, transactions, verdicts, blocks. Out: requests, and jobs for the mempool, in turns. What was
//! refused is not fetched again until the tip changes, what lacks parents waits for them, and what is too cheap alone
//! is judged again with a child of the same peer.
//! Source: Bitcoin Core `node/txdownloadman.h`, `node/txdownloadman_impl.cpp`, `net_processing.cpp` (ProcessInvalidTx,
//! ProcessPackageResult, ProcessOrphanTx).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bitcoin::hashes::{Hash, sha256d};
use bitcoin::{Txid, Wtxid};

use super::filter::{Key, Recent};
use super::holdings::Holdings;
use super::orphans::Orphans;
use super::requests::Requests;
use super::types::{Confirmed, Job, JobId, Load, Role, Verdict};
use super::waiting::{Waiter, Waiting};
use crate::mempool::{Entry, RejectKind, Unconfirmed};
use crate::peer::{Inventory, PeerId};
use crate::time::Instant;

/// Announcements of one peer that are remembered (Core: MAX_PEER_TX_ANNOUNCEMENTS).
pub(super) const MAX_ANNOUNCEMENTS: usize = 5_000;
/// The same for the operator's own node, which announces its whole mempool. Core has no limit for such peers.
const MAX_TRUSTED_ANNOUNCEMENTS: usize = 500_000;
/// A peer that owes more answers is overloaded (Core: MAX_PEER_TX_REQUEST_IN_FLIGHT).
pub(super) const OVERLOADED_ABOVE: usize = 100;
/// What is announced by txid waits while others announce by wtxid (Core: TXID_RELAY_DELAY).
pub(super) const TXID_DELAY: Duration = Duration::from_secs(2);
/// An overloaded peer is asked that much later (Core: OVERLOADED_PEER_TX_DELAY).
pub(super) const OVERLOADED_DELAY: Duration = Duration::from_secs(2);
/// Core: m_lazy_recent_rejects, and the same number for those that a child may pay for.
const REJECTS: usize = 120_000;
/// Core: m_lazy_recent_confirmed_transactions.
const CONFIRMED: usize = 48_000;
/// Jobs that the mempool has at once: enough for the threads that run scripts, few enough for turns to be fair.
pub(super) const MAX_JOBS: usize = 32;

/// See the module.
#[derive(Debug)]
pub(super) struct Download {
    peers: BTreeMap<PeerId, Announcer>,
    requests: Requests,
    orphans: Orphans,
    waiting: Waiting,
    /// Refused: wtxids, and txids only where no other witness could help.
    rejects: Recent,
    /// Too cheap alone: wtxids, and the ids of packages that were refused.
    reconsiderable: Recent,
    confirmed: Recent,
    jobs: BTreeMap<JobId, Judged>,
    last_job: u64,
    /// What peers announce may be here soon, without being asked for.
    is_restoring: bool,
}

#[derive(Clone, Copy, Debug)]
struct Announcer {
    role: Role,
    wtxid_relay: bool,
}

/// What the mempool is judging.
#[derive(Debug)]
struct Judged {
    peer: PeerId,
    waiter: Waiter,
    /// Whether it was never judged before.
    is_first: bool,
}

impl Download {
    pub fn new(key: Key) -> Self {
        Self {
            peers: BTreeMap::new(),
            requests: Requests::default(),
            orphans: Orphans::default(),
            waiting: Waiting::default(),
            rejects: Recent::new(key, REJECTS),
            reconsiderable: Recent::new(key, REJECTS),
            confirmed: Recent::new(key, CONFIRMED),
            jobs: BTreeMap::new(),
            last_job: 0,
            is_restoring: false,
        }
    }

    pub fn add_peer(&mut self, peer: PeerId, role: Role, wtxid_relay: bool) {
        self.peers.insert(peer, Announcer { role, wtxid_relay });
        self.requests.add_peer(peer);
        self.waiting.add_peer(peer);
    }

    /// What it owes is asked of others; what it gave and still waits is forgotten.
    pub fn remove_peer(&mut self, peer: PeerId) {
        if self.peers.remove(&peer).is_none() {
            return;
        }
        self.requests.remove_peer(peer);
        self.orphans.remove_peer(peer);
        for waiter in self.waiting.remove_peer(peer) {
            self.release(&waiter);
        }
    }

    /// A peer says that it has a transaction. Says whether more can be remembered of it.
    pub fn announced(&mut self, now: Instant, peer: PeerId, entry: Inventory, holdings: &Holdings) -> bool {
        let Some(announcer) = self.peers.get(&peer).copied() else { return false };
        if let Some(wtxid) = entry.by_wtxid()
            && let Some(missing) = self.orphans.missing(wtxid)
        {
            let missing = self.still_missing(missing, holdings);
            if !missing.is_empty() && self.ask_for_parents(now, peer, wtxid, &missing) {
                self.orphans.add_announcer(peer, wtxid);
            }
            return true;
        }
        if self.requests.announcements(peer) >= max_announcements(announcer.role) {
            return false;
        }
        if !self.is_known(&entry, holdings) && !self.reconsiderable.contains(entry.hash.as_byte_array()) {
            let by_txid = entry.by_wtxid().is_none();
            self.requests.announced(peer, entry, now + self.delay(peer, announcer, by_txid));
        }
        true
    }

    /// A peer has not got what it was asked for.
    pub fn not_found(&mut self, peer: PeerId, hash: sha256d::Hash) {
        self.requests.answered(peer, hash);
    }

    /// A peer sent a transaction, asked for or not.
    pub fn received(&mut self, peer: PeerId, tx: Arc<Unconfirmed>, holdings: &Holdings) {
        let mut ids = vec![tx.txid().to_raw_hash(), tx.wtxid().to_raw_hash()];
        ids.dedup();
        ids.retain(|id| self.requests.answered(peer, *id));
        let wtxid = Inventory::wtxid(tx.wtxid());
        if self.is_known(&wtxid, holdings) {
            return;
        }
        let child = if self.reconsiderable.contains(wtxid.hash.as_byte_array()) {
            let Some(child) = self.paying_child(peer, &tx) else { return };
            Some(child)
        } else {
            None
        };
        ids.iter().for_each(|id| self.requests.hold(*id));
        if let Err(waiter) = self.waiting.push(peer, Waiter { tx, child, holds: ids }) {
            self.release(&waiter);
        }
    }

    /// Who sent what this job judges.
    pub fn sender(&self, id: JobId) -> Option<PeerId> {
        self.jobs.get(&id).map(|job| job.peer)
    }

    /// What the mempool said of a job, and of the child if there was one. Gives back what was taken.
    pub fn judged(
        &mut self,
        now: Instant,
        id: JobId,
        verdict: Verdict,
        child: Option<Verdict>,
        holdings: &mut Holdings,
        rng: &mut fastrand::Rng,
    ) -> Vec<Arc<Entry>> {
        let Some(job) = self.jobs.remove(&id) else { return Vec::new() };
        let mut verdicts = vec![(&job.waiter.tx, verdict)];
        if let Some(tx) = &job.waiter.child {
            let child = child.unwrap_or(Verdict::MissingInputs { parents: Vec::new() });
            // The child goes first, so that it is no orphan any more when its parent is taken.
            verdicts.insert(0, (tx, child));
            if verdicts.iter().any(|(_, verdict)| !matches!(verdict, Verdict::Accepted(_))) {
                self.reconsiderable.insert(&package_id(&job.waiter.tx, tx));
            }
        }
        let mut accepted = Vec::new();
        for (tx, verdict) in verdicts {
            match verdict {
                Verdict::Accepted(entry) => {
                    holdings.add(&entry);
                    self.accepted(&entry, rng);
                    accepted.push(entry);
                }
                Verdict::MissingInputs { parents } => {
                    if job.is_first {
                        self.orphaned(now, job.peer, tx, &parents, holdings, rng);
                    }
                }
                Verdict::Rejected(reject) => self.rejected(job.peer, tx, reject.kind, job.is_first, holdings),
            }
        }
        self.release(&job.waiter);
        accepted
    }

    /// It is in the mempool, whoever gave it: nobody is asked for it, and its children are tried again.
    pub fn accepted(&mut self, entry: &Entry, rng: &mut fastrand::Rng) {
        self.requests.forget(entry.txid.to_raw_hash());
        self.requests.forget(entry.wtxid.to_raw_hash());
        self.orphans.parent_came(entry.txid, rng);
        self.orphans.remove(entry.wtxid);
    }

    /// A block was connected. Children of what it brought are tried again, which Core leaves to the next announcement.
    pub fn confirmed(&mut self, transactions: &[Confirmed<'_>], rng: &mut fastrand::Rng) {
        for Confirmed { tx, txid, wtxid } in transactions {
            self.orphans.confirmed(tx);
            for id in [txid.to_raw_hash(), wtxid.to_raw_hash()] {
                self.confirmed.insert(id.as_byte_array());
                self.requests.forget(id);
            }
        }
        for confirmed in transactions {
            self.orphans.parent_came(confirmed.txid, rng);
        }
    }

    /// A block was disconnected: what it confirmed may be relayed again.
    pub fn disconnected(&mut self) {
        self.confirmed.clear();
    }

    /// Another tip: what was refused may be good now.
    pub fn tip_changed(&mut self) {
        self.rejects.clear();
        self.reconsiderable.clear();
    }

    /// See [`super::Relay::set_restoring`].
    pub fn set_restoring(&mut self, is_restoring: bool) {
        self.is_restoring = is_restoring;
    }

    /// What is to be asked of whom now.
    pub fn requests(
        &mut self,
        now: Instant,
        holdings: &Holdings,
        rng: &mut fastrand::Rng,
    ) -> BTreeMap<PeerId, Vec<Inventory>> {
        let Self { requests, waiting, orphans, confirmed, rejects, is_restoring, .. } = self;
        let needless = |entry: &Inventory| is_known(entry, orphans, confirmed, rejects, holdings);
        requests.take(now, rng, |peer| *is_restoring || waiting.is_busy(peer), needless)
    }

    /// The next job, if the mempool has not got enough: one of each peer in turn.
    pub fn next_job(&mut self, holdings: &Holdings) -> Option<Job> {
        if self.jobs.len() >= MAX_JOBS {
            return None;
        }
        let turns: Vec<PeerId> = self.waiting.turns().collect();
        for peer in turns {
            while let Some(judged) = self.next_of(peer) {
                if !self.is_worth_a_job(&judged, holdings) {
                    self.release(&judged.waiter);
                    continue;
                }
                self.waiting.took_turn(peer);
                self.last_job += 1;
                let id = JobId(self.last_job);
                let Waiter { tx, child, .. } = judged.waiter.clone();
                self.jobs.insert(id, judged);
                return Some(Job { id, tx, child, from: peer });
            }
        }
        None
    }

    /// When `requests` has something new to say, if nothing else happens.
    pub fn next_timeout(&self) -> Option<Instant> {
        self.requests.next_timeout()
    }

    pub fn load(&self) -> Load {
        Load {
            wanted: self.requests.len(),
            orphans: self.orphans.len(),
            waiting: self.waiting.len(),
            judging: self.jobs.len(),
        }
    }

    /// What must always be true.
    #[cfg(test)]
    pub fn hold_invariants(&self) {
        self.requests.hold_invariants();
        self.orphans.hold_invariants();
    }

    #[cfg(test)]
    pub fn announcements(&self, peer: PeerId) -> usize {
        self.requests.announcements(peer)
    }

    /// What of this peer comes next: an orphan whose parent came goes before what it sent later.
    fn next_of(&mut self, peer: PeerId) -> Option<Judged> {
        if let Some(tx) = self.orphans.next_retry(peer) {
            return Some(Judged {
                peer,
                waiter: Waiter { tx, child: None, holds: Vec::new() },
                is_first: false,
            });
        }
        // A child is not judged before its parent was: it would be an orphan for nothing, and of those few are kept.
        if self.waiting.first(peer).is_some_and(|waiter| self.is_judging_parent(&waiter.tx)) {
            return None;
        }
        let waiter = self.waiting.pop(peer)?;
        let is_first = waiter.child.is_none();
        Some(Judged { peer, waiter, is_first })
    }

    fn is_judging_parent(&self, tx: &Unconfirmed) -> bool {
        let judged: BTreeSet<Txid> = self.jobs.values().map(|job| job.waiter.tx.txid()).collect();
        tx.tx().input.iter().any(|input| judged.contains(&input.previous_output.txid))
    }

    /// It may have been judged, for another peer, while it waited.
    fn is_worth_a_job(&self, judged: &Judged, holdings: &Holdings) -> bool {
        let wtxid = judged.waiter.tx.wtxid();
        if self.jobs.values().any(|job| job.waiter.tx.wtxid() == wtxid) {
            return false;
        }
        let id = Inventory::wtxid(wtxid);
        let bytes = id.hash.as_byte_array();
        match &judged.waiter.child {
            Some(child) => {
                let package = package_id(&judged.waiter.tx, child);
                !self.is_known(&id, holdings) && !self.reconsiderable.contains(&package)
            }
            None if judged.is_first => !self.is_known(&id, holdings) && !self.reconsiderable.contains(bytes),
            None => holdings.by_wtxid(&wtxid).is_none(),
        }
    }

    /// The first time that its parents were found missing.
    fn orphaned(
        &mut self,
        now: Instant,
        peer: PeerId,
        tx: &Arc<Unconfirmed>,
        parents: &[Txid],
        holdings: &Holdings,
        rng: &mut fastrand::Rng,
    ) {
        let (txid, wtxid) = (tx.txid().to_raw_hash(), tx.wtxid().to_raw_hash());
        if self.rejects.contains(wtxid.as_byte_array()) {
            return;
        }
        let parents: Vec<Txid> = parents.iter().copied().collect::<BTreeSet<_>>().into_iter().collect();
        let is_rejected = |parent: &Txid| self.rejects.contains(parent.as_byte_array());
        let too_cheap = |parent: &&Txid| {
            self.reconsiderable.contains(parent.as_byte_array()) && holdings.by_txid(parent).is_none()
        };
        // One parent that is too cheap alone may be paid for, two are never judged together.
        if parents.iter().any(is_rejected) || parents.iter().filter(too_cheap).count() > 1 {
            // The parents are named by txid, so no other witness can help this one either.
            self.rejects.insert(txid.as_byte_array());
            self.rejects.insert(wtxid.as_byte_array());
        } else {
            let missing = self.still_missing(&parents, holdings);
            let mut peers: BTreeSet<PeerId> = self.requests.candidates(txid).collect();
            peers.extend(self.requests.candidates(wtxid));
            peers.remove(&peer);
            for peer in std::iter::once(peer).chain(peers) {
                if self.ask_for_parents(now, peer, tx.wtxid(), &missing) {
                    self.orphans.add(peer, tx, &missing);
                }
            }
            // A parent came while this was being judged.
            if missing.len() < parents.len() {
                self.orphans.retry(tx.wtxid(), rng);
            }
        }
        self.requests.forget(txid);
        self.requests.forget(wtxid);
    }

    fn rejected(
        &mut self,
        peer: PeerId,
        tx: &Arc<Unconfirmed>,
        kind: RejectKind,
        is_first: bool,
        holdings: &Holdings,
    ) {
        let (txid, wtxid) = (tx.txid().to_raw_hash(), tx.wtxid().to_raw_hash());
        // It was taken while another copy was being judged.
        if holdings.by_wtxid(&tx.wtxid()).is_some() {
            return;
        }
        match kind {
            // What was not tried, or lacks what the next copy may have, says nothing.
            RejectKind::Unknown | RejectKind::MissingInputs => return,
            // Somebody on the way took the witness off: the whole one must be let in, under either id.
            RejectKind::WitnessStripped => {}
            RejectKind::Reconsiderable => {
                self.reconsiderable.insert(wtxid.as_byte_array());
                self.requests.forget(wtxid);
                if is_first && let Some(child) = self.paying_child(peer, tx) {
                    let waiter = Waiter { tx: tx.clone(), child: Some(child), holds: Vec::new() };
                    self.waiting.push_first(peer, waiter);
                }
            }
            // What it spends is the same under any witness, so its txid is refused too.
            RejectKind::InputsNotStandard => {
                self.rejects.insert(wtxid.as_byte_array());
                self.rejects.insert(txid.as_byte_array());
                self.requests.forget(wtxid);
                self.requests.forget(txid);
            }
            // Not the txid: whoever hung another witness on it would keep the true one out.
            RejectKind::Consensus
            | RejectKind::NotStandard
            | RejectKind::Premature
            | RejectKind::WitnessMutated
            | RejectKind::Conflict
            | RejectKind::MempoolPolicy => {
                self.rejects.insert(wtxid.as_byte_array());
                self.requests.forget(wtxid);
            }
        }
        self.orphans.remove(tx.wtxid());
    }

    /// A child of this peer with which the transaction was not judged yet, the newest first (`Find1P1CPackage`).
    /// Of this peer only, so that nobody can offer false children in its place.
    fn paying_child(&self, peer: PeerId, parent: &Arc<Unconfirmed>) -> Option<Arc<Unconfirmed>> {
        let mut children = self.orphans.children(parent.txid(), peer);
        let untried = |child: &&Arc<Unconfirmed>| {
            !self.reconsiderable.contains(&package_id(parent, child))
                && !self.rejects.contains(child.txid().as_byte_array())
        };
        children.find(untried).cloned()
    }

    /// Takes this peer for one that can give the parents (`MaybeAddOrphanResolutionCandidate`).
    fn ask_for_parents(&mut self, now: Instant, peer: PeerId, orphan: Wtxid, missing: &[Txid]) -> bool {
        let Some(announcer) = self.peers.get(&peer).copied() else { return false };
        let announcements = self.requests.announcements(peer) + missing.len();
        if self.orphans.has_from(orphan, peer) || announcements > max_announcements(announcer.role) {
            return false;
        }
        let at = now + self.delay(peer, announcer, true);
        for parent in missing {
            self.requests.announced(peer, Inventory::witness_tx(*parent), at);
        }
        true
    }

    /// Parents that were refused for their fee are missing: the orphan may pay for them.
    fn still_missing(&self, parents: &[Txid], holdings: &Holdings) -> Vec<Txid> {
        let missing = |parent: &&Txid| !self.is_known(&Inventory::witness_tx(**parent), holdings);
        parents.iter().filter(missing).copied().collect()
    }

    fn delay(&self, peer: PeerId, announcer: Announcer, by_txid: bool) -> Duration {
        let mut delay = Duration::ZERO;
        if by_txid && self.peers.values().any(|other| other.wtxid_relay) {
            delay += TXID_DELAY;
        }
        if announcer.role == Role::Stranger && self.requests.in_flight(peer) >= OVERLOADED_ABOVE {
            delay += OVERLOADED_DELAY;
        }
        delay
    }

    fn is_known(&self, entry: &Inventory, holdings: &Holdings) -> bool {
        is_known(entry, &self.orphans, &self.confirmed, &self.rejects, holdings)
    }

    fn release(&mut self, waiter: &Waiter) {
        waiter.holds.iter().for_each(|id| self.requests.release(*id));
    }
}

/// Whether it need not be fetched (`AlreadyHaveTx`).
fn is_known(
    entry: &Inventory,
    orphans: &Orphans,
    confirmed: &Recent,
    rejects: &Recent,
    holdings: &Holdings,
) -> bool {
    // Also where it is named by txid: the two are one where there is no witness. An orphan of that txid with another
    // witness is not meant, it may be a false one.
    orphans.contains(Wtxid::from_raw_hash(entry.hash))
        || confirmed.contains(entry.hash.as_byte_array())
        || rejects.contains(entry.hash.as_byte_array())
        || holdings.is_known(entry)
}

fn max_announcements(role: Role) -> usize {
    match role {
        Role::Stranger => MAX_ANNOUNCEMENTS,
        Role::Trusted { .. } => MAX_TRUSTED_ANNOUNCEMENTS,
        Role::BlocksOnly => 0,
    }
}

/// The same for the pair in whichever order (`GetPackageHash`).
fn package_id(one: &Unconfirmed, other: &Unconfirmed) -> [u8; 64] {
    let mut ids = [one.wtxid().to_byte_array(), other.wtxid().to_byte_array()];
    ids.sort_unstable();
    let mut package = [0; 64];
    let (first, second) = package.split_at_mut(32);
    first.copy_from_slice(&ids[0]);
    second.copy_from_slice(&ids[1]);
    package
}
