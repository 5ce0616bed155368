//! The threads for what is not waiting: one that writes the chain, and some that check blocks.
//!
//! Both take work from a channel and answer to the node's loop; the pure code that they call decides.

use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use bitcoin::BlockHash;
use chainstore::{MergeJob, MergeResult};
use tokio::sync::mpsc::UnboundedSender;
use tracing::{error, info};

use crate::blocks::check_received;
use crate::node::Input;
use crate::node::chain::{Chain, Command, Event};
use crate::peer::WireBlock;
use crate::validate::{BlockContext, Params};

/// In bulk sync, what a power cut may cost: so many bytes of blocks, or so long.
const COMMIT_BYTES: u64 = 64 * 1024 * 1024;
const COMMIT_EVERY: Duration = Duration::from_secs(5);
/// How often it is looked whether a piece of a merge is done.
const LOOK_AT_MERGE: Duration = Duration::from_millis(50);
/// The same while blocks are indexed in bulk.
const FLUSH_EVERY: Duration = Duration::from_secs(3 * 60);

/// What the threads tell the node's loop.
#[derive(Debug)]
pub enum ThreadEvent {
    Input(Input),
    /// The disk is full: what is there can be read, nothing more is written.
    Full(String),
    /// The store can no longer be trusted; the process must end and say this.
    Fatal(String),
}

/// A block to check.
#[derive(Debug)]
pub struct CheckJob {
    pub hash: BlockHash,
    pub block: WireBlock,
    pub context: BlockContext,
}

/// Starts the checkers. They end when the sender is dropped.
pub fn start_checkers(
    count: usize,
    params: &Arc<Params>,
    events: &UnboundedSender<ThreadEvent>,
) -> std::io::Result<mpsc::Sender<CheckJob>> {
    let (jobs, queue) = mpsc::channel::<CheckJob>();
    let queue = Arc::new(Mutex::new(queue));
    for number in 0..count {
        let (queue, params, events) = (queue.clone(), params.clone(), events.clone());
        thread::Builder::new().name(format!("check-{number}")).spawn(move || {
            loop {
                let job = match queue.lock() {
                    Ok(queue) => queue.recv(),
                    Err(_) => return,
                };
                let Ok(CheckJob { hash, block, context }) = job else { return };
                let result = check_received(block, &context, &params);
                if events.send(ThreadEvent::Input(Input::Checked { hash, result })).is_err() {
                    return;
                }
            }
        })?;
    }
    Ok(jobs)
}

/// The chain's writer. Dropping the sender of commands makes it commit and end, and give back the chain unless that
/// failed.
pub fn start_chain(
    chain: Chain,
    commands: mpsc::Receiver<Command>,
    events: UnboundedSender<ThreadEvent>,
) -> std::io::Result<JoinHandle<Option<Chain>>> {
    let (jobs, queue) = mpsc::channel::<MergeJob>();
    let (results, merges) = mpsc::channel();
    thread::Builder::new().name("merge".into()).spawn(move || {
        // Cut off by the end of the process, a piece is begun anew when it starts again.
        while let Ok(job) = queue.recv() {
            if results.send(job.run()).is_err() {
                return;
            }
        }
    })?;
    thread::Builder::new().name("chain".into()).spawn(move || {
        let mut writer = Writer { chain, jobs, merges, is_merging: false, commands, events };
        match writer.run() {
            Ok(()) => Some(writer.chain),
            Err(failure) => {
                // The loop may be gone already when we stop.
                let _ = writer.events.send(ThreadEvent::Fatal(failure.to_string()));
                None
            }
        }
    })
}

struct Writer {
    chain: Chain,
    jobs: mpsc::Sender<MergeJob>,
    merges: mpsc::Receiver<MergeResult>,
    /// A job is out.
    is_merging: bool,
    commands: mpsc::Receiver<Command>,
    events: UnboundedSender<ThreadEvent>,
}

impl Writer {
    /// Until the sender of commands is gone. On a full disk nothing is written any more, but wallets are still
    /// served from what is there.
    fn run(&mut self) -> Result<(), chainstore::Error> {
        match self.write() {
            Err(failure @ chainstore::Error::StorageFull { .. }) => {
                error!(
                    %failure,
                    "disk full: wallets are served what is there, nothing new is stored; \
                     free some space and start again"
                );
                let _ = self.events.send(ThreadEvent::Full(failure.to_string()));
                while self.commands.recv().is_ok() {}
                Ok(())
            }
            result => result,
        }
    }

    fn write(&mut self) -> Result<(), chainstore::Error> {
        let mut committed_at = Instant::now();
        let mut flushed_at = Instant::now();
        loop {
            let mut wait = COMMIT_EVERY.saturating_sub(committed_at.elapsed());
            if self.is_merging {
                wait = wait.min(LOOK_AT_MERGE);
            }
            match self.commands.recv_timeout(wait) {
                Ok(command) => {
                    let was_bulk = self.chain.is_bulk();
                    for event in self.chain.execute(command)? {
                        self.tell(event);
                    }
                    match (was_bulk, self.chain.is_bulk()) {
                        (false, true) => info!("indexing in bulk: the index is written when that ends"),
                        (true, false) => info!("the index is written"),
                        (_, _) => {}
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    return self.chain.close();
                }
            }
            if self.chain.staged_bytes() >= COMMIT_BYTES || committed_at.elapsed() >= COMMIT_EVERY {
                let event = self.chain.commit()?;
                event.into_iter().for_each(|event| self.tell(event));
                committed_at = Instant::now();
            }
            if flushed_at.elapsed() >= FLUSH_EVERY {
                self.chain.flush()?;
                flushed_at = Instant::now();
            }
            self.merge()?;
        }
    }

    /// Hands the next piece of a merge to its thread, and takes what that has done.
    fn merge(&mut self) -> Result<(), chainstore::Error> {
        match self.merges.try_recv() {
            Ok(result) => {
                self.is_merging = false;
                self.chain.merge_done(result)?;
            }
            Err(_) if self.is_merging => return Ok(()),
            Err(_) => {}
        }
        if let Some(job) = self.chain.merge_job()? {
            // The thread lives as long as this end of its channel.
            self.is_merging = self.jobs.send(job).is_ok();
        }
        Ok(())
    }

    fn tell(&self, event: Event) {
        // The loop is gone only when we stop, and then nobody asks.
        let _ = self.events.send(ThreadEvent::Input(Input::Chain(event)));
    }
}
