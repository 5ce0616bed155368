//! The mempool's only writer: joins transactions with their coins, lets `mempool` decide, and follows the chain.
//!
//! In: commands, in the order in which they are to take effect. Out: what became of each, scripts to be run, and from
//! time to time what wallets should see. The shell gives it a thread of its own; the simulation calls it directly. Who
//! is asked for a transaction and who is told of it is decided elsewhere (`relay`).

use std::collections::{HashMap, VecDeque, hash_map};
use std::sync::Arc;
use std::time::Duration;

use bitcoin::Wtxid;
use bytes::Bytes;
use chainstore::{Error, Snapshot, Tip};

use super::follow::{KnownBlock, Way};
use super::reader::Reader;
use super::{SubmissionId, tip_of};
use crate::mempool::{
    Admission, BlockFees, Changes, Covered, Dumped, Entry, FeeBoard, FeeEstimator, FeeRate, Member, Mempool,
    MempoolView, Moment, Outcome, Package, PackageStep, Policy, Reject, RejectKind, Removal, Request,
    RequestStep, ScriptCheck, ScriptJob, Submission, Unconfirmed, histogram,
};
use crate::query::Touched;
use crate::relay::{Job, JobId, Verdict};
use crate::time::{Instant, Now};

/// How often wallets are shown what changed; a new tip is shown at once.
const PUBLISH_EVERY: Duration = Duration::from_millis(100);
/// How often old transactions are looked for, and wallets are shown a fee that fell by itself.
const LOOK_EVERY: Duration = Duration::from_secs(20);
/// A way of more blocks is not followed block by block: what waits is judged anew on the new tip.
const MAX_WAY: u32 = 30;
/// Transactions of a dump that are judged before somebody else has his turn.
const RESTORED_AT_ONCE: usize = 32;

/// What the keeper is told.
#[derive(Debug)]
pub enum Command {
    /// The chain's readers see this from now on. With it come the fees of its newest blocks, as far as they are known.
    Chain(Arc<Snapshot>, Vec<BlockFees>),
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

/// What is to be judged, and is asked about again once scripts were run.
#[derive(Debug)]
enum Task {
    One(Job, Trust),
    Pair(JobId, Package, Trust),
    Request(SubmissionId, Request),
    Restored(Restored),
    Kept(Wtxid, Package),
}

/// A transaction that was here before.
#[derive(Debug)]
struct Restored {
    raw: Bytes,
    /// Read when its turn comes: there may be many.
    tx: Option<Arc<Unconfirmed>>,
    /// When it came first, Unix time in seconds.
    first_seen: u64,
    /// Whether it waits for its parents for the second time.
    again: bool,
}

impl Restored {
    fn of(dumped: Dumped) -> Self {
        Self { raw: dumped.raw, tx: None, first_seen: dumped.first_seen, again: false }
    }
}

/// Whether its scripts are good because of who sent it.
type Trust = ScriptCheck;

/// See the module.
#[derive(Debug)]
pub struct Keeper {
    mempool: Mempool,
    reader: Reader,
    snapshot: Arc<Snapshot>,
    estimator: FeeEstimator,
    board: Arc<FeeBoard>,
    peers_floor: FeeRate,
    /// Whether scripts can be run here; if not, only what trusted peers send is taken.
    runs_scripts: bool,
    started: bool,
    /// By the transaction whose scripts are being run.
    waiting: HashMap<Wtxid, Vec<Task>>,
    restored: VecDeque<Task>,
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
            estimator,
            board: Arc::new(board),
            peers_floor: FeeRate::default(),
            runs_scripts,
            started: false,
            waiting: HashMap::new(),
            restored: VecDeque::new(),
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
        match command {
            Command::Chain(snapshot, fees) => self.follow(now, snapshot, fees),
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
                self.restored.push_back(Task::Kept(wtxid, Package::new(transactions, None)));
            }
        }
        self.settle(now, true);
    }

    /// What is due by the clock.
    pub fn handle_timeout(&mut self, now: Now) {
        if self.next_look <= now.instant {
            self.next_look = now.instant + LOOK_EVERY;
            self.mempool.trim(now);
            self.is_news = true;
        }
        self.settle(now, true);
    }

    /// When `handle_timeout` is next due.
    pub fn next_timeout(&self) -> Instant {
        if self.is_news { self.next_look.min(self.published_at + PUBLISH_EVERY) } else { self.next_look }
    }

    /// Whether transactions of before the last stop are still to be judged, by [`Self::restore_some`].
    pub fn has_backlog(&self) -> bool {
        // No more than are being judged already: scripts take longer than this.
        self.started && !self.restored.is_empty() && self.waiting.len() < RESTORED_AT_ONCE
    }

    /// Judges some of them, when there is nothing better to do.
    pub fn restore_some(&mut self, now: Now) {
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

    /// Takes a task as far as it can go; it waits where scripts have to be run first.
    fn run(&mut self, now: Now, task: Task) {
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
            Task::Kept(wtxid, mut package) => match self.mempool.admit_package(&mut package, own) {
                PackageStep::NeedsScripts(jobs) => {
                    return self.unless_without(jobs, Task::Kept(wtxid, package));
                }
                PackageStep::Done(result) => {
                    let here =
                        result.members.iter().map(|(tx, _)| self.mempool.by_wtxid(&tx.wtxid()).cloned());
                    let here: Vec<Arc<Entry>> = here.flatten().collect();
                    let is_here = here.last().is_some_and(|last| last.wtxid == wtxid);
                    self.events.push_back(if is_here { Event::Restored(here) } else { Event::Void(wtxid) });
                }
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
                    // Its parents may come after it, if a reorganisation brought them.
                    Admission::MissingInputs { .. } if !restored.again => {
                        self.restored.push_back(Task::Restored(Restored { again: true, ..restored }));
                    }
                    // What is no longer good is forgotten.
                    Admission::Accepted(_) | Admission::MissingInputs { .. } | Admission::Rejected(_) => {}
                }
            }
        }
        None
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
            Task::Restored(_) | Task::Kept(..) => {}
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

    fn verdict(&self, tx: &Unconfirmed, member: Option<Member>) -> Verdict {
        match (self.mempool.by_wtxid(&tx.wtxid()), member) {
            (Some(entry), _) => Verdict::Accepted(entry.clone()),
            (None, Some(Member::Rejected(reject))) => Verdict::Rejected(reject),
            (None, _) => not_judged(),
        }
    }

    /// The chain moved.
    fn follow(&mut self, now: Now, snapshot: Arc<Snapshot>, fees: Vec<BlockFees>) {
        let before = std::mem::replace(&mut self.snapshot, snapshot.clone());
        self.reader = Reader::new(snapshot.clone());
        self.is_urgent = true;
        if tip_of(&before) == tip_of(&snapshot) || !self.started {
            self.learn(now, &fees, &[]);
            return;
        }
        match Way::between(&before, &snapshot, MAX_WAY) {
            Ok(Some(way)) => self.follow_blocks(now, way, &fees),
            Ok(None) => self.judge_anew(now),
            Err(error) => {
                self.events.push_back(Event::Failed(error));
                self.judge_anew(now);
            }
        }
    }

    fn follow_blocks(&mut self, now: Now, way: Way, fees: &[BlockFees]) {
        for block in &way.left {
            let raw = block.block.txdata.iter().map(bitcoin::consensus::serialize);
            let transactions = raw.filter_map(|raw| Unconfirmed::parse(&raw).ok()).map(Arc::new);
            self.mempool.disconnect_block(transactions.collect());
            self.estimator.block_disconnected(&block.at.hash);
        }
        for block in &way.connected {
            let covered = self.covered(block);
            self.mempool.connect_block(now, block.txids.iter().copied().zip(&block.block.txdata));
            self.learn(now, fees, &[(block.at, covered)]);
        }
        self.mempool.tip_changed(&self.reader, now);
        self.events.push_back(Event::Followed { left: way.left, connected: way.connected });
    }

    /// Tells the estimator of blocks, as far as their fees are known.
    fn learn(&mut self, now: Now, fees: &[BlockFees], blocks: &[(Tip, Covered)]) {
        for fees in fees {
            let covered = blocks.iter().find(|(at, _)| at.hash == fees.hash);
            let covered = covered.map(|(_, covered)| *covered).unwrap_or_default();
            let chunks = self.mempool.pool().chunks().map(|chunk| (chunk.fee, chunk.vsize()));
            self.estimator.block_connected(now.instant, fees.clone(), covered, chunks);
        }
    }

    /// How much of a block was here before it came.
    fn covered(&self, block: &KnownBlock) -> Covered {
        let mut covered = Covered::default();
        for (tx, txid) in block.block.txdata.iter().zip(&block.txids).skip(1) {
            let weight = tx.weight().to_wu();
            covered.all += weight;
            covered.had += if self.mempool.get(txid).is_some() { weight } else { 0 };
        }
        covered
    }

    /// All transactions are judged again on the new tip: too many blocks lie between, or they cannot be read. Scripts are
    /// not run again.
    fn judge_anew(&mut self, now: Now) {
        let (view, _) = self.view(now);
        self.mempool.clear();
        let mut left: Vec<Arc<Entry>> = view.entries().cloned().collect();
        left.sort_by_key(|entry| entry.at);
        let anew = left.into_iter().map(|entry| {
            let (raw, first_seen) = (entry.raw.clone(), entry.unix);
            Task::Restored(Restored { raw, tx: None, first_seen, again: false })
        });
        let before = std::mem::take(&mut self.restored);
        self.restored = anew.chain(before).collect();
    }

    /// Takes account of what changed, and shows it when it is time. What comes back is no demand.
    fn settle(&mut self, now: Now, is_demand: bool) {
        let changes = self.mempool.take_changes();
        if !changes.is_empty() {
            self.is_news = true;
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
        if self.is_urgent || (self.is_news && now.instant >= self.published_at + PUBLISH_EVERY) {
            self.publish(now);
        }
    }

    fn publish(&mut self, now: Now) {
        (self.is_news, self.is_urgent, self.published_at) = (false, false, now.instant);
        let policy = self.mempool.policy();
        let relay = policy.min_relay.max(self.peers_floor);
        let (min, incremental) = (self.mempool.min_fee(now), policy.incremental);
        let is_stale = self.estimator.is_stale(now.instant);
        if is_stale || (self.board.min, self.board.relay) != (min, relay) {
            let mempool = &self.mempool;
            let chunks = || mempool.pool().chunks().map(|chunk| (chunk.fee, chunk.vsize()));
            self.estimator.refresh(now.instant, chunks);
            let mut board = FeeBoard::new(min, relay, incremental);
            board.note(&self.estimator);
            board.histogram = histogram(chunks());
            self.board = Arc::new(board);
        }
        let (mempool, tip) = self.view(now);
        self.events.push_back(Event::View(MempoolNews {
            tip,
            mempool,
            fees: self.board.clone(),
            touched: std::mem::take(&mut self.touched),
            coverage: self.estimator.coverage(),
        }));
    }
}

fn not_judged() -> Verdict {
    Verdict::Rejected(Reject::new(RejectKind::Unknown, "transaction failed"))
}
