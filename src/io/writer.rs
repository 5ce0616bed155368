//! The thread that owns the chain's writer: when it commits, and what it does on a full disk.
//!
//! It takes commands from a channel and answers to the node's loop; `node::chain` decides what becomes of them.
//! On a full disk it opens the store again as soon as that can be done, so that wallets are served what is durable,
//! and writes nothing before there is space. Blocks that it was given until then are lost and the node is told so;
//! only headers are kept, as nobody sends them twice.

use std::collections::VecDeque;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use chainstore::{Commit, Error, MergeJob, MergeResult, Tip};
use tokio::sync::mpsc::UnboundedSender;
use tracing::{debug, error, info};

use super::threads::ThreadEvent;
use crate::node::Input;
use crate::node::chain::{Chain, Command, Event, StoppedChain};

/// In bulk sync, what a power cut may cost: so many bytes of blocks, or so long.
const COMMIT_BYTES: u64 = 64 * 1024 * 1024;
const COMMIT_EVERY: Duration = Duration::from_secs(5);
/// The same while blocks are indexed in bulk.
const FLUSH_EVERY: Duration = Duration::from_secs(3 * 60);
/// How often it is looked whether a piece of a merge is done.
const LOOK_AT_MERGE: Duration = Duration::from_millis(50);
/// As `nice` counts: of two threads that want one core this gets a seventieth.
#[cfg(target_os = "linux")]
const LEAST_PRIORITY: i32 = 19;
/// How often a full disk is measured.
const MEASURE_EVERY: Duration = Duration::from_secs(3);

/// Starts it. Dropping the sender of commands makes it commit and end, and give back the chain unless that failed.
pub fn start(
    chain: Chain,
    commands: mpsc::Receiver<Command>,
    events: UnboundedSender<ThreadEvent>,
    on_full: OnFull,
) -> std::io::Result<JoinHandle<Option<Chain>>> {
    let (jobs, queue) = mpsc::channel::<MergeJob>();
    let (results, merges) = mpsc::channel();
    thread::Builder::new().name("merge".into()).spawn(move || {
        give_way();
        // Cut off by the end of the process, a piece is begun anew when it starts again.
        while let Ok(job) = queue.recv() {
            if results.send(job.run()).is_err() {
                return;
            }
        }
    })?;
    let link = Link { commands, events: events.clone(), jobs, merges };
    thread::Builder::new().name("chain".into()).spawn(move || match run(chain, &link, on_full) {
        Ok(chain) => chain,
        Err(failure) => {
            // The loop may be gone already when we stop.
            let _ = events.send(ThreadEvent::Fatal(failure.to_string()));
            None
        }
    })
}

/// From now on this thread runs when no other of the machine has anything to do: a merge takes the better part of a
/// core for as long as it writes the base, and blocks and wallets are not to wait for it.
fn give_way() {
    // Elsewhere it would be the whole process. That it fails costs only that.
    #[cfg(target_os = "linux")]
    let _ = rustix::process::setpriority_process(None, LEAST_PRIORITY);
}

/// What to do when the disk is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnFull {
    /// Go on when there is space again.
    Wait,
    /// End with that error.
    Fail,
}

/// Until the sender of commands is gone.
fn run(chain: Chain, link: &Link, on_full: OnFull) -> Result<Option<Chain>, Error> {
    let mut writer =
        Writer { chain, backlog: VecDeque::new(), is_resumed: true, is_merging: false, told_merge: false };
    loop {
        match writer.write(link) {
            Err(full @ Error::StorageFull { .. }) if on_full == OnFull::Wait => {
                match writer.wait_for_space(link, &full)? {
                    Some(next) => writer = next,
                    None => return Ok(None),
                }
            }
            result => return result.map(|()| Some(writer.chain)),
        }
    }
}

/// Both ways to the node's loop.
struct Link {
    commands: mpsc::Receiver<Command>,
    events: UnboundedSender<ThreadEvent>,
    /// Pieces of merges go to their thread, and come back done.
    jobs: mpsc::Sender<MergeJob>,
    merges: mpsc::Receiver<MergeResult>,
}

impl Link {
    fn tell(&self, event: Event) {
        // The loop is gone only when we stop, and then nobody asks.
        let _ = self.events.send(ThreadEvent::Input(Input::Chain(event)));
    }
}

struct Writer {
    chain: Chain,
    /// Commands that came while nothing could be written.
    backlog: VecDeque<Command>,
    /// Whether the node knows where the chain stands; until then what it says of blocks is void.
    is_resumed: bool,
    /// A piece of a merge is out.
    is_merging: bool,
    /// The operator was told that a merge goes on.
    told_merge: bool,
}

/// The chain while the disk is full.
enum Waiting {
    Stopped(StoppedChain),
    Open(Chain),
}

impl Writer {
    fn write(&mut self, link: &Link) -> Result<(), Error> {
        let mut committed_at = Instant::now();
        let mut flushed_at = Instant::now();
        if self.chain.is_bulk() {
            info!("indexing in bulk goes on where it was cut off");
        }
        while let Some(command) = self.backlog.pop_front() {
            self.execute(link, command)?;
        }
        loop {
            let mut wait = COMMIT_EVERY.saturating_sub(committed_at.elapsed());
            if self.is_merging {
                wait = wait.min(LOOK_AT_MERGE);
            }
            match link.commands.recv_timeout(wait) {
                Ok(command) => self.execute(link, command)?,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return self.chain.close(),
            }
            if self.chain.staged_bytes() >= COMMIT_BYTES || committed_at.elapsed() >= COMMIT_EVERY {
                let event = self.chain.commit()?;
                event.into_iter().for_each(|event| link.tell(event));
                committed_at = Instant::now();
            }
            if flushed_at.elapsed() >= FLUSH_EVERY {
                self.chain.flush()?;
                flushed_at = Instant::now();
            }
            self.merge(link)?;
        }
    }

    /// Hands the next piece of a merge to its thread, and takes what that has done.
    fn merge(&mut self, link: &Link) -> Result<(), Error> {
        match link.merges.try_recv() {
            Ok(result) => {
                self.is_merging = false;
                self.chain.merge_done(result)?;
            }
            Err(_) if self.is_merging => return Ok(()),
            Err(_) => {}
        }
        if let Some(job) = self.chain.merge_job()? {
            if job.is_first() {
                debug!("merging old deltas into the base");
                self.told_merge = true;
            }
            // The thread lives as long as this end of its channel.
            self.is_merging = link.jobs.send(job).is_ok();
        } else if self.told_merge && !self.chain.merge_is_due() {
            self.told_merge = false;
            debug!("merged");
        }
        Ok(())
    }

    fn execute(&mut self, link: &Link, command: Command) -> Result<(), Error> {
        self.is_resumed |= matches!(command, Command::Resume);
        if !self.is_resumed && !outlives_a_full_disk(&command) {
            return Ok(());
        }
        let was_bulk = self.chain.is_bulk();
        match &command {
            Command::Connect(..) | Command::HeadersComplete if self.chain.ends_bulk(&command) => {
                info!("the bulk ends: writing the index");
            }
            Command::Switch { fork, connect } => {
                info!(fork = fork.height.0, blocks = connect.len(), "going over to another branch");
            }
            _ => {}
        }
        for event in self.chain.execute(command)? {
            link.tell(event);
        }
        match (was_bulk, self.chain.is_bulk()) {
            (false, true) => info!("indexing in bulk: the index is written when that ends"),
            (true, false) => info!("the index is written"),
            (_, _) => {}
        }
        Ok(())
    }

    /// Opens the store again, and waits until there is space. `None` when the sender of commands is gone.
    fn wait_for_space(self, link: &Link, full: &Error) -> Result<Option<Self>, Error> {
        error!(
            failure = %full,
            "disk full: wallets are served what is there, nothing new is stored until there is space again"
        );
        let needed = match full {
            Error::StorageFull { needed, .. } => *needed,
            _ => 0,
        };
        let mut backlog = self.backlog;
        let before = self.chain.snapshot().tip();
        let mut waiting = Waiting::Stopped(self.chain.stop());
        loop {
            waiting = match waiting {
                Waiting::Stopped(stopped) => match stopped.open() {
                    Ok(chain) => {
                        link.tell(reopened(&chain, before));
                        Waiting::Open(chain)
                    }
                    Err((stopped, Error::StorageFull { .. })) => Waiting::Stopped(stopped),
                    Err((_, failure)) => return Err(failure),
                },
                Waiting::Open(chain) if chain.has_room(needed) => {
                    let restored = chain.restored()?;
                    info!(height = restored.tip.height.0, "there is space on the disk again: going on");
                    link.tell(Event::Restored(restored));
                    return Ok(Some(Self {
                        chain,
                        backlog,
                        is_resumed: false,
                        is_merging: self.is_merging,
                        told_merge: false,
                    }));
                }
                open => open,
            };
            if link.gather(&mut backlog, MEASURE_EVERY).is_none() {
                return Ok(None);
            }
        }
    }
}

impl Link {
    /// Takes commands for so long, and keeps those that count. `None` when the sender is gone.
    fn gather(&self, backlog: &mut VecDeque<Command>, how_long: Duration) -> Option<()> {
        let end = Instant::now() + how_long;
        loop {
            match self.commands.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(command) if outlives_a_full_disk(&command) => backlog.push_back(command),
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout) => return Some(()),
                Err(RecvTimeoutError::Disconnected) => return None,
            }
        }
    }
}

/// Whether a command is of use though the blocks that came before it are lost.
fn outlives_a_full_disk(command: &Command) -> bool {
    matches!(command, Command::PutHeaders(_) | Command::MarkInvalid(_))
}

/// What readers see of a store that was opened again.
fn reopened(chain: &Chain, before: Option<Tip>) -> Event {
    let snapshot = chain.snapshot();
    // What the commit in which the disk became full touched is not known.
    let everything = snapshot.tip() != before;
    let commit = Commit { snapshot, touched: Vec::new(), transactions: Vec::new(), everything };
    Event::Committed(commit, Vec::new())
}
