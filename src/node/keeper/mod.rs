//! The mempool's only writer: joins transactions with their coins, lets `mempool` decide, and follows the chain.
//!
//! In: commands, in the order in which they are to take effect. Out: what became of each, scripts to be run, and from
//! time to time what wallets should see. The shell gives it a thread of its own; the simulation calls it directly. Who
//! is asked for a transaction and who is told of it is decided elsewhere (`relay`).
//!
//! `judge` has what waits for a verdict, `reader` is the chain as admission asks for it, `follow` goes along with the
//! chain, by the `way` from one tip to another.

mod follow;
mod judge;
mod reader;
mod way;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bitcoin::{Txid, Wtxid};
use bytes::Bytes;
use chainstore::{Error, Snapshot, Tip};

use super::{SubmissionId, tip_of};
use crate::mempool::{
    BlockFees, Changes, Dumped, Entry, FeeBoard, FeeEstimator, FeeRate, Mempool, MempoolView, Outcome,
    Package, Policy, Reject, Removal, Request, ScriptJob, Submission, Unconfirmed, histogram,
};
use crate::query::Touched;
use crate::relay::{Job, JobId, Verdict};
use crate::time::{Instant, Now};
use follow::OpenBlock;
use judge::{Kept, Restored, Task, Trust};
use reader::Reader;
pub use way::KnownBlock;

/// How often wallets are shown what changed; a new tip is shown at once.
const PUBLISH_EVERY: Duration = Duration::from_millis(100);
/// How often old transactions are looked for, and wallets are shown a fee that fell by itself.
const LOOK_EVERY: Duration = Duration::from_secs(20);
/// Transactions of a dump that are judged before somebody else has his turn.
const RESTORED_AT_ONCE: usize = 32;
/// Transactions that left with a block and are swept out before somebody else has his turn: some milliseconds.
const SWEPT_AT_ONCE: usize = 128;

/// What the keeper is told.
#[derive(Debug)]
pub enum Command {
    /// The chain's readers see this from now on. With it come the fees of its newest blocks, as far as they are known.
    Chain(Arc<Snapshot>, Vec<BlockFees>),
    /// This block is being connected, and may be the next tip: it is read before it is.
    Coming { at: Tip, raw: Bytes, txids: Vec<Txid> },
    /// The chain is in step with the peers: from now on transactions can be judged.
    Start,
    /// A peer's transaction, and whether the peer is trusted.
    Admit(Job, bool),
    /// A wallet's.
    Submit { id: SubmissionId, what: Submission },
    /// The scripts of this job were run.
    Scripts(ScriptJob, Result<(), Reject>),
    /// What the peers ask for at least, by their `feefilter`s.
    PeersFloor(FeeRate),
    /// Transactions that were here before the last stop, parents first.
    Restore(Vec<Dumped>),
    /// A wallet's transaction that the network had not shown before the last stop, by the id under which it is kept,
    /// parents first.
    RestoreBroadcast(Wtxid, Vec<Arc<Unconfirmed>>),
}

/// What became of it.
#[derive(Debug)]
pub enum Event {
    Verdict {
        id: JobId,
        verdict: Verdict,
        child: Option<Verdict>,
    },
    /// A peer's transaction, or one of before the last stop, was not taken by itself; it may be in a block all the same.
    Refused(Arc<Unconfirmed>, Reject),
    /// These are in the mempool and shall be shown to peers, parents first; then the outcome is true.
    Passed {
        id: SubmissionId,
        entries: Vec<Arc<Entry>>,
        outcome: Outcome,
    },
    Submitted {
        id: SubmissionId,
        outcome: Outcome,
    },
    /// The chain went this way.
    Followed {
        /// Newest first.
        left: Vec<Arc<KnownBlock>>,
        /// Oldest first.
        connected: Vec<Arc<KnownBlock>>,
    },
    /// What came and went.
    Changed(Arc<Changes>),
    /// Whether transactions are still to be judged that were here before: what a peer announces may be one of them.
    Restoring(bool),
    /// A wallet's transaction of before the last stop is in the mempool again, with what was kept with it.
    Restored(Vec<Arc<Entry>>),
    /// What was kept under this id is good no more.
    Void(Wtxid),
    /// What wallets should see.
    View(MempoolNews),
    /// The store could not be read.
    Failed(Error),
}

/// The mempool on a tip.
#[derive(Clone, Debug)]
pub struct MempoolNews {
    pub tip: Tip,
    pub mempool: MempoolView,
    pub fees: Arc<FeeBoard>,
    /// What changed since the last news, beside what the chain's change touched by itself.
    pub touched: Touched,
    /// Share of the last blocks, by weight, that was here before they came.
    pub coverage: Option<f64>,
}

/// See the module.
#[derive(Debug)]
pub struct Keeper {
    mempool: Mempool,
    reader: Reader,
    snapshot: Arc<Snapshot>,
    /// The block that is being connected.
    coming: Option<Arc<KnownBlock>>,
    /// The newest block, as long as all that it means here is not done.
    open_block: Option<OpenBlock>,
    estimator: FeeEstimator,
    board: Arc<FeeBoard>,
    peers_floor: FeeRate,
    /// Whether scripts can be run here; if not, only what trusted peers send is taken.
    runs_scripts: bool,
    started: bool,
    /// By the transaction whose scripts are being run.
    waiting: HashMap<Wtxid, Vec<Task>>,
    /// Transactions of before the last stop that are still to be judged.
    restored: VecDeque<Task>,
    /// Those of them whose parents are not here yet: they may be among those that are still to be judged.
    fatherless: Vec<Task>,
    /// What wallets handed in before the last stop and what has no parents yet: looked at now and then.
    kept_fatherless: Vec<Kept>,
    /// Whether any transaction was taken since the fatherless were last judged.
    some_came: bool,
    /// What [`Event::Restoring`] said last.
    told_restoring: bool,
    touched: Touched,
    /// Whether wallets should be shown something, and whether at once.
    is_news: bool,
    is_urgent: bool,
    published_at: Instant,
    next_look: Instant,
    events: VecDeque<Event>,
    scripts: VecDeque<ScriptJob>,
}

impl Keeper {
    /// An empty mempool on the chain of `snapshot`.
    pub fn new(now: Now, policy: Policy, snapshot: Arc<Snapshot>, runs_scripts: bool) -> Self {
        Self::with_fees(now, policy, snapshot, runs_scripts, FeeEstimator::new(now.instant))
    }

    /// The same with what was learnt of fees before.
    pub fn with_fees(
        now: Now,
        policy: Policy,
        snapshot: Arc<Snapshot>,
        runs_scripts: bool,
        mut estimator: FeeEstimator,
    ) -> Self {
        // Blocks that the chain has left meanwhile tell nothing.
        while let Some((height, hash)) = estimator.tip()
            && snapshot.header(height).ok().flatten().is_none_or(|header| header.block_hash() != hash)
        {
            estimator.block_disconnected(&hash);
        }
        let board = FeeBoard::new(policy.min_relay, policy.min_relay, policy.incremental);
        Self {
            mempool: Mempool::new(policy),
            reader: Reader::new(snapshot.clone()),
            snapshot,
            coming: None,
            open_block: None,
            estimator,
            board: Arc::new(board),
            peers_floor: FeeRate::default(),
            runs_scripts,
            started: false,
            waiting: HashMap::new(),
            restored: VecDeque::new(),
            fatherless: Vec::new(),
            kept_fatherless: Vec::new(),
            some_came: false,
            told_restoring: false,
            touched: Touched::default(),
            is_news: true,
            is_urgent: true,
            published_at: now.instant,
            next_look: now.instant + LOOK_EVERY,
            events: VecDeque::new(),
            scripts: VecDeque::new(),
        }
    }

    /// Does what is told; call `poll` until `None` afterwards.
    pub fn execute(&mut self, now: Now, command: Command) {
        self.finish_block(now);
        match command {
            Command::Chain(snapshot, fees) => self.follow(now, snapshot, fees),
            Command::Coming { at, raw, txids } => self.prepare(at, &raw, txids),
            Command::Start => self.started = true,
            Command::Admit(job, is_trusted) => {
                let trust = if is_trusted && !self.runs_scripts { Trust::Trusted } else { Trust::Run };
                match &job.child {
                    None => self.run(now, Task::One(job, trust)),
                    Some(child) => {
                        let package = Package::new(vec![job.tx.clone(), child.clone()], None);
                        self.run(now, Task::Pair(job.id, package, trust));
                    }
                }
            }
            Command::Submit { id, what } => match Request::new(&what) {
                Ok(request) => self.run(now, Task::Request(id, request)),
                Err(outcome) => self.events.push_back(Event::Submitted { id, outcome }),
            },
            Command::Scripts(job, result) => {
                self.mempool.scripts_done(&job, result);
                for task in self.waiting.remove(&job.tx.wtxid()).unwrap_or_default() {
                    self.run(now, task);
                }
            }
            Command::PeersFloor(floor) => {
                self.peers_floor = floor;
                self.is_news = true;
            }
            Command::Restore(transactions) => {
                self.restored
                    .extend(transactions.into_iter().map(|dumped| Task::Restored(Restored::of(dumped))));
            }
            Command::RestoreBroadcast(wtxid, transactions) => {
                self.restored.push_back(Task::Kept(Kept::new(wtxid, transactions, now.instant)));
            }
        }
        self.settle(now, true);
    }

    /// What is due by the clock.
    pub fn handle_timeout(&mut self, now: Now) {
        if self.next_look <= now.instant && self.open_block.is_none() {
            self.next_look = now.instant + LOOK_EVERY;
            self.mempool.trim(now);
            self.look_for_parents();
            self.is_news = true;
        }
        self.settle(now, true);
    }

    /// When `handle_timeout` is next due.
    pub fn next_timeout(&self) -> Instant {
        if self.is_news { self.next_look.min(self.published_at + PUBLISH_EVERY) } else { self.next_look }
    }

    /// Whether there is work that can wait, for [`Self::work_off`]: what a block left behind, and transactions of
    /// before the last stop that are still to be judged.
    pub fn has_backlog(&self) -> bool {
        self.has_open_block() || self.mempool.has_leftovers() || self.has_restored()
    }

    /// Whether a block's news should be told before the next command: what it means here is only half done.
    pub fn has_open_block(&self) -> bool {
        self.open_block.is_some()
    }

    fn has_restored(&self) -> bool {
        // No more than are being judged already: scripts take longer than this.
        self.started
            && self.waiting.len() < RESTORED_AT_ONCE
            && (!self.restored.is_empty() || (!self.fatherless.is_empty() && self.waiting.is_empty()))
    }

    /// Whether some that were here before are still to be judged, or wait for their scripts.
    fn is_restoring(&self) -> bool {
        let waits = || self.waiting.values().flatten().any(Task::is_of_before);
        !self.restored.is_empty() || !self.fatherless.is_empty() || waits()
    }

    /// Does some of it, when there is nothing better to do.
    pub fn work_off(&mut self, now: Now) {
        if self.has_open_block() {
            self.finish_block(now);
            return;
        }
        if self.mempool.has_leftovers() {
            self.mempool.sweep(SWEPT_AT_ONCE);
            return;
        }
        if !self.has_restored() {
            return;
        }
        if self.restored.is_empty() {
            self.judge_fatherless(now);
        }
        for task in self.restored.drain(..RESTORED_AT_ONCE.min(self.restored.len())).collect::<Vec<_>>() {
            self.run(now, task);
        }
        self.settle(now, false);
    }

    /// What became of the commands; call until `None`.
    pub fn poll(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Scripts to run; the answer comes back as [`Command::Scripts`]. Call until `None`.
    pub fn next_scripts(&mut self) -> Option<ScriptJob> {
        self.scripts.pop_front()
    }

    /// What was learnt of fees, to be kept.
    pub fn estimator(&self) -> &FeeEstimator {
        &self.estimator
    }

    pub fn policy(&self) -> &Policy {
        self.mempool.policy()
    }

    /// The mempool as it is now, for a dump, and the tip on which it stands.
    pub fn view(&self, now: Now) -> (MempoolView, Tip) {
        (self.mempool.view(now), tip_of(&self.snapshot))
    }

    /// Takes account of what changed, and shows it when it is time. What comes back is no demand.
    fn settle(&mut self, now: Now, is_demand: bool) {
        let changes = self.mempool.take_changes();
        if !changes.is_empty() {
            self.is_news = true;
            self.some_came |= !changes.added.is_empty();
            let rate = |entry: &Entry| FeeRate::of(entry.fee.to_sat(), entry.vsize);
            let replaces = changes.removed.iter().any(|(_, why)| *why == Removal::Replaced);
            for entry in changes.added.iter().filter(|_| is_demand && !replaces) {
                self.estimator.admitted(now.instant, rate(entry), entry.vsize);
            }
            for (entry, why) in &changes.removed {
                if matches!(why, Removal::Conflict | Removal::Evicted | Removal::Expired) {
                    self.estimator.dropped(rate(entry), entry.vsize);
                }
            }
            self.touched.merge(&Touched::from(&changes));
            self.events.push_back(Event::Changed(Arc::new(changes)));
        }
        let is_restoring = self.is_restoring();
        if std::mem::replace(&mut self.told_restoring, is_restoring) != is_restoring {
            self.events.push_back(Event::Restoring(is_restoring));
        }
        if self.is_urgent || (self.is_news && now.instant >= self.published_at + PUBLISH_EVERY) {
            self.publish(now);
        }
    }

    fn publish(&mut self, now: Now) {
        let is_urgent = self.is_urgent;
        (self.is_news, self.is_urgent, self.published_at) = (false, false, now.instant);
        let policy = self.mempool.policy();
        let relay = policy.min_relay.max(self.peers_floor);
        let (min, incremental) = (self.mempool.min_fee(now), policy.incremental);
        // A new tip does not wait for what its fees say.
        if self.open_block.is_some() {
            self.is_news = true;
        } else if self.estimator.is_stale(now.instant) {
            let mempool = &self.mempool;
            let chunks = || mempool.pool().chunk_fees();
            self.estimator.refresh(now.instant, chunks);
            let mut board = FeeBoard::new(min, relay, incremental);
            board.note(&self.estimator);
            board.histogram = histogram(chunks());
            self.board = Arc::new(board);
        } else if (self.board.min, self.board.relay) != (min, relay) {
            // A floor that falls is another one each time; estimates and histogram are good for some seconds.
            let board = Arc::make_mut(&mut self.board);
            (board.min, board.relay) = (min, relay);
        }
        let (mempool, tip) = self.view(now);
        let news = Event::View(MempoolNews {
            tip,
            mempool,
            fees: self.board.clone(),
            touched: std::mem::take(&mut self.touched),
            coverage: self.estimator.coverage(),
        });
        // A new tip goes before all that it means for peers, but not before what wallets were shown earlier.
        let earlier = self.events.iter().rposition(|event| matches!(event, Event::View(_)));
        let at = if is_urgent { earlier.map_or(0, |at| at + 1) } else { self.events.len() };
        self.events.insert(at, news);
    }
}

#[cfg(test)]
mod tests;
