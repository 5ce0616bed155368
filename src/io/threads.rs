//! The threads for what is not waiting: one that writes the chain, and some that check blocks.
//!
//! Both take work from a channel and answer to the node's loop; the pure code that they call decides.

use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use bitcoin::BlockHash;
use bytes::Bytes;
use tokio::sync::mpsc::UnboundedSender;
use tracing::{debug, error, info};

use crate::node::Input;
use crate::node::chain::{Chain, Command, Event};
use crate::validate::{BlockContext, Params, check_block};

/// In bulk sync, what a power cut may cost: so many bytes of blocks, or so long.
const COMMIT_BYTES: u64 = 64 * 1024 * 1024;
const COMMIT_EVERY: Duration = Duration::from_secs(5);
/// The same while blocks are indexed in bulk.
const FLUSH_EVERY: Duration = Duration::from_secs(3 * 60);

/// What the threads tell the node's loop.
#[derive(Debug)]
pub enum ThreadEvent {
    Input(Input),
    /// The store can no longer be trusted; the process must end and say this.
    Fatal(String),
}

/// A block to check.
#[derive(Debug)]
pub struct CheckJob {
    pub hash: BlockHash,
    pub raw: Bytes,
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
                let Ok(CheckJob { hash, raw, context }) = job else { return };
                let result = check_block(raw, &context, &params);
                if events.send(ThreadEvent::Input(Input::Checked { hash, result })).is_err() {
                    return;
                }
            }
        })?;
    }
    Ok(jobs)
}

/// The chain's writer. Dropping the sender of commands makes it commit and end.
pub fn start_chain(
    chain: Chain,
    commands: mpsc::Receiver<Command>,
    events: UnboundedSender<ThreadEvent>,
) -> std::io::Result<JoinHandle<()>> {
    thread::Builder::new().name("chain".into()).spawn(move || {
        if let Err(failure) = (Writer { chain, commands, events: events.clone() }).run() {
            // The loop may be gone already when we stop.
            let _ = events.send(ThreadEvent::Fatal(failure.to_string()));
        }
    })
}

struct Writer {
    chain: Chain,
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
                while self.commands.recv().is_ok() {}
                Ok(())
            }
            result => result,
        }
    }

    fn write(&mut self) -> Result<(), chainstore::Error> {
        let mut committed_at = Instant::now();
        let mut flushed_at = Instant::now();
        if self.chain.is_bulk() {
            info!("indexing in bulk goes on where it was cut off");
        }
        loop {
            let wait = COMMIT_EVERY.saturating_sub(committed_at.elapsed());
            match self.commands.recv_timeout(wait) {
                Ok(command) => {
                    let was_bulk = self.chain.is_bulk();
                    match &command {
                        Command::Connect(_) | Command::HeadersComplete if self.chain.ends_bulk(&command) => {
                            info!("the bulk ends: writing the index");
                        }
                        Command::Switch { fork, connect } => {
                            info!(
                                fork = fork.height.0,
                                blocks = connect.len(),
                                "going over to another branch"
                            );
                        }
                        _ => {}
                    }
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
            if self.chain.merge_is_due() {
                debug!("merging old deltas into the base");
            }
            if self.chain.merge_if_due()? {
                debug!("merged");
            }
        }
    }

    fn tell(&self, event: Event) {
        // The loop is gone only when we stop, and then nobody asks.
        let _ = self.events.send(ThreadEvent::Input(Input::Chain(event)));
    }
}
