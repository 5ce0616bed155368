//! The threads for what is not waiting: some that check blocks. The one that writes the chain is in `writer`.
//!
//! They take work from a channel and answer to the node's loop; the pure code that they call decides.

use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::thread;

use bitcoin::BlockHash;
use tokio::sync::mpsc::UnboundedSender;

use super::keeper::Order;
use super::scripts::Verified;
use crate::blocks::check_received;
use crate::mempool::{Reject, RejectKind, ScriptJob};
use crate::node::keeper::Command;
use crate::node::{Fill, Input};
use crate::peer::WireBlock;
use crate::scripts::{self, Flags, VerifyError};
use crate::validate::{BlockContext, Params};

/// What the threads tell the node's loop.
#[derive(Debug)]
pub enum ThreadEvent {
    Input(Input),
    /// The store can no longer be trusted; the process must end and say this.
    Fatal(String),
}

/// What is to be checked.
#[derive(Debug)]
pub enum CheckJob {
    Block {
        hash: BlockHash,
        block: WireBlock,
        context: BlockContext,
    },
    /// An unconfirmed transaction's.
    Scripts(ScriptJob),
    /// A compact block, which is filled first.
    Fill(Fill),
}

/// Starts the checkers. They end when the sender is dropped. What came of scripts goes to the mempool's keeper.
pub fn start_checkers(
    count: usize,
    params: &Arc<Params>,
    keeper: Option<(&mpsc::Sender<Order>, &Arc<Verified>)>,
    events: &UnboundedSender<ThreadEvent>,
) -> std::io::Result<mpsc::Sender<CheckJob>> {
    let (jobs, queue) = mpsc::channel::<CheckJob>();
    let queue = Arc::new(Mutex::new(queue));
    for number in 0..count {
        let (queue, params) = (queue.clone(), params.clone());
        let keeper = keeper.map(|(orders, verified)| (orders.clone(), Arc::clone(verified)));
        let events = events.clone();
        thread::Builder::new().name(format!("check-{number}")).spawn(move || {
            loop {
                let job = match queue.lock() {
                    Ok(queue) => queue.recv(),
                    Err(_) => return,
                };
                let is_heard = match job {
                    Err(_) => false,
                    Ok(CheckJob::Block { hash, block, context }) => {
                        let result = check_received(block, &context, &params);
                        events.send(ThreadEvent::Input(Input::Checked { hash, result })).is_ok()
                    }
                    Ok(CheckJob::Fill(fill)) => events.send(ThreadEvent::Input(fill.run())).is_ok(),
                    Ok(CheckJob::Scripts(job)) => {
                        let result = run_scripts(&job);
                        keeper.as_ref().is_some_and(|(orders, verified)| {
                            if result.is_ok() {
                                verified.insert(job.tx.wtxid(), Flags::ALL);
                            }
                            orders.send(Order::Do(Command::Scripts(job, result))).is_ok()
                        })
                    }
                };
                if !is_heard {
                    return;
                }
            }
        })?;
    }
    Ok(jobs)
}

/// All scripts of an unconfirmed transaction.
fn run_scripts(job: &ScriptJob) -> Result<(), Reject> {
    scripts::verify_standard(job.tx.tx(), job.tx.raw(), &job.spent).map_err(|error| match error {
        VerifyError::Script(error) => {
            Reject::new(RejectKind::NotStandard, error.mempool_reason()).with(error.details(job.tx.tx()))
        }
        VerifyError::Unavailable => Reject::new(RejectKind::Unknown, error.to_string()),
    })
}
