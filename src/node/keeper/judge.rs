//! What is judged, and waits while its scripts are run.

use std::collections::hash_map;
use std::sync::Arc;

use bitcoin::Wtxid;
use bytes::Bytes;

use super::{Event, Keeper};
use crate::mempool::{
    Admission, Dumped, Entry, Member, Moment, Outcome, Package, PackageResult, PackageStep, Reject,
    RejectKind, Request, RequestStep, ScriptCheck, ScriptJob, Unconfirmed,
};
use crate::node::SubmissionId;
use crate::relay::{Job, JobId, Verdict};
use crate::time::{Instant, Now};

/// What is to be judged, and is asked about again once scripts were run.
#[derive(Debug)]
pub(super) enum Task {
    One(Job, Trust),
    Pair(JobId, Package, Trust),
    Request(SubmissionId, Request),
    Restored(Restored),
    Kept(Kept),
}

/// A transaction that was here before.
#[derive(Debug)]
pub(super) struct Restored {
    raw: Bytes,
    /// Read when its turn comes: there may be many.
    tx: Option<Arc<Unconfirmed>>,
    /// When it came first, Unix time in seconds.
    first_seen: u64,
}

impl Restored {
    pub(super) fn of(dumped: Dumped) -> Self {
        Self::new(dumped.raw, dumped.first_seen)
    }

    pub(super) fn new(raw: Bytes, first_seen: u64) -> Self {
        Self { raw, tx: None, first_seen }
    }
}

/// What a wallet handed in before the last stop: the transaction, below the parents that were sent with it.
#[derive(Debug)]
pub(super) struct Kept {
    wtxid: Wtxid,
    package: Package,
    since: Instant,
}

impl Kept {
    pub(super) fn new(wtxid: Wtxid, transactions: Vec<Arc<Unconfirmed>>, since: Instant) -> Self {
        Self { wtxid, package: Package::new(transactions, None), since }
    }
}

impl Task {
    /// Whether it was here before the last stop, and nobody waits for the verdict.
    pub(super) fn is_of_before(&self) -> bool {
        matches!(self, Self::Restored(_) | Self::Kept(_))
    }
}

/// Whether its scripts are good because of who sent it.
pub(super) type Trust = ScriptCheck;

impl Keeper {
    /// Takes a task as far as it can go; it waits where scripts have to be run first.
    pub(super) fn run(&mut self, now: Now, task: Task) {
        if let Some((jobs, task)) = self.judge(now, task) {
            self.wait(jobs, task);
        }
        if let Some(error) = self.reader.take_failure() {
            self.events.push_back(Event::Failed(error));
        }
    }

    /// The task comes back with the scripts that have to be run before there is a verdict.
    fn judge(&mut self, now: Now, task: Task) -> Option<(Vec<ScriptJob>, Task)> {
        let own = Moment { chain: &self.reader, now, scripts: Trust::Run };
        match task {
            Task::One(job, scripts) => {
                let verdict = match self.mempool.admit(&job.tx, Moment { scripts, ..own }) {
                    Admission::NeedsScripts(wanted) => {
                        return self.unless_without(wanted, Task::One(job, scripts));
                    }
                    Admission::Accepted(entry) => Verdict::Accepted(entry),
                    Admission::MissingInputs { parents } => Verdict::MissingInputs { parents },
                    Admission::Rejected(reject) => Verdict::Rejected(reject),
                };
                match &verdict {
                    Verdict::Accepted(_) => {}
                    Verdict::MissingInputs { .. } => self.refused(&job.tx, &Reject::missing_inputs()),
                    Verdict::Rejected(why) => self.refused(&job.tx, why),
                }
                self.events.push_back(Event::Verdict { id: job.id, verdict, child: None });
            }
            Task::Pair(id, mut package, scripts) => {
                match self.mempool.admit_package(&mut package, Moment { scripts, ..own }) {
                    PackageStep::NeedsScripts(jobs) => {
                        return self.unless_without(jobs, Task::Pair(id, package, scripts));
                    }
                    PackageStep::Done(result) => {
                        let mut verdicts =
                            result.members.into_iter().map(|(tx, member)| self.verdict(&tx, member));
                        let verdict = verdicts.next().unwrap_or_else(not_judged);
                        let child = verdicts.next();
                        self.events.push_back(Event::Verdict { id, verdict, child });
                    }
                }
            }
            Task::Request(id, mut request) => match self.mempool.submit(&mut request, own) {
                RequestStep::NeedsScripts(jobs) => {
                    return self.unless_without(jobs, Task::Request(id, request));
                }
                RequestStep::Done { outcome, relay } if relay.is_empty() => {
                    self.events.push_back(Event::Submitted { id, outcome });
                }
                RequestStep::Done { outcome, relay } => {
                    let entries =
                        relay.iter().filter_map(|wtxid| self.mempool.by_wtxid(wtxid)).cloned().collect();
                    self.events.push_back(Event::Passed { id, entries, outcome });
                }
            },
            Task::Kept(mut kept) => match self.mempool.admit_package(&mut kept.package, own) {
                PackageStep::NeedsScripts(jobs) => return self.unless_without(jobs, Task::Kept(kept)),
                PackageStep::Done(result) => self.judged_kept(kept, result),
            },
            Task::Restored(mut restored) => {
                let parsed =
                    restored.tx.take().or_else(|| Unconfirmed::parse(&restored.raw).ok().map(Arc::new))?;
                let now = Now { unix: restored.first_seen, ..now };
                match self.mempool.admit(&parsed, Moment { now, ..own }) {
                    Admission::NeedsScripts(wanted) => {
                        restored.tx = Some(parsed);
                        return self.unless_without(wanted, Task::Restored(restored));
                    }
                    // Its parents wait for their scripts, or come after it, as a reorganisation brought them.
                    Admission::MissingInputs { .. } => {
                        restored.tx = Some(parsed);
                        self.fatherless.push(Task::Restored(restored));
                    }
                    Admission::Accepted(_) => {}
                    // What is no longer good is forgotten.
                    Admission::Rejected(why) => self.refused(&parsed, &why),
                }
            }
        }
        None
    }

    fn judged_kept(&mut self, kept: Kept, result: PackageResult) {
        let members = &result.members;
        let here = members.iter().filter_map(|(tx, _)| self.mempool.by_wtxid(&tx.wtxid()).cloned());
        let here: Vec<Arc<Entry>> = here.collect();
        let is_mined =
            || members.last().is_some_and(|(tx, _)| !matches!(self.snapshot.tx_num(&tx.txid()), Ok(None)));
        let lacks_parents = |(_, member): &(_, Option<Member>)| match member {
            Some(Member::Rejected(reject)) => reject.kind == RejectKind::MissingInputs,
            _ => false,
        };
        if here.last().is_some_and(|last| last.wtxid == kept.wtxid) {
            self.events.push_back(Event::Restored(here));
        } else if members.iter().any(lacks_parents) && !is_mined() {
            let transactions = result.members.into_iter().map(|(tx, _)| tx).collect();
            self.fatherless.push(Task::Kept(Kept::new(kept.wtxid, transactions, kept.since)));
        } else {
            self.events.push_back(Event::Void(kept.wtxid));
        }
    }

    /// All that were here before were judged. Where some were taken, their children have another chance; the parents of
    /// the others are gone, and so are they.
    ///
    /// But what a wallet handed in is not given up: after a crash its parents come from peers again.
    pub(super) fn judge_fatherless(&mut self, now: Now) {
        let fatherless = std::mem::take(&mut self.fatherless);
        if std::mem::take(&mut self.some_came) {
            self.restored.extend(fatherless);
            return;
        }
        for task in fatherless {
            let Task::Kept(kept) = task else { continue };
            if now.instant.saturating_since(kept.since) < self.mempool.policy().expiry {
                self.kept_fatherless.push(kept);
            } else {
                self.events.push_back(Event::Void(kept.wtxid));
            }
        }
    }

    /// Parents of what wallets handed in before the last stop may have come from peers.
    pub(super) fn look_for_parents(&mut self) {
        self.restored.extend(self.kept_fatherless.drain(..).map(Task::Kept));
    }

    /// Where scripts cannot be run, nobody's word is taken for them.
    fn unless_without(&mut self, jobs: Vec<ScriptJob>, task: Task) -> Option<(Vec<ScriptJob>, Task)> {
        if self.runs_scripts {
            return Some((jobs, task));
        }
        let reject = || Reject::new(RejectKind::Unknown, "this server cannot run scripts");
        match task {
            Task::One(job, _) => {
                self.events.push_back(Event::Verdict {
                    id: job.id,
                    verdict: Verdict::Rejected(reject()),
                    child: None,
                });
            }
            Task::Pair(id, ..) => {
                let (verdict, child) = (Verdict::Rejected(reject()), Some(Verdict::Rejected(reject())));
                self.events.push_back(Event::Verdict { id, verdict, child });
            }
            Task::Request(id, _) => {
                let why = "this server was built without a script verifier and shows nothing to peers that it cannot judge";
                self.events.push_back(Event::Submitted { id, outcome: Outcome::Unavailable(why.into()) });
            }
            Task::Restored(_) | Task::Kept(_) => {}
        }
        None
    }

    fn wait(&mut self, jobs: Vec<ScriptJob>, task: Task) {
        // It is asked about again after the first of them; by then others may be done too.
        let Some(first) = jobs.first().map(|job| job.tx.wtxid()) else { return };
        for job in jobs {
            if let hash_map::Entry::Vacant(place) = self.waiting.entry(job.tx.wtxid()) {
                place.insert(Vec::new());
                self.scripts.push_back(job);
            }
        }
        self.waiting.entry(first).or_default().push(task);
    }

    fn refused(&mut self, tx: &Arc<Unconfirmed>, why: &Reject) {
        self.events.push_back(Event::Refused(Arc::clone(tx), why.clone()));
    }

    fn verdict(&self, tx: &Unconfirmed, member: Option<Member>) -> Verdict {
        match (self.mempool.by_wtxid(&tx.wtxid()), member) {
            (Some(entry), _) => Verdict::Accepted(entry.clone()),
            (None, Some(Member::Rejected(reject))) => Verdict::Rejected(reject),
            (None, _) => not_judged(),
        }
    }
}

fn not_judged() -> Verdict {
    Verdict::Rejected(Reject::new(RejectKind::Unknown, "transaction failed"))
}
