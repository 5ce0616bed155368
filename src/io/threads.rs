//! The threads for what is not waiting: some that check blocks. The one that writes the chain is in `writer`.
//!
//! They take work from a channel and answer to the node's loop; the pure code that they call decides.

use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::thread;

use bitcoin::BlockHash;
use tokio::sync::mpsc::UnboundedSender;

use crate::blocks::check_received;
use crate::node::Input;
use crate::peer::WireBlock;
use crate::validate::{BlockContext, Params};

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
