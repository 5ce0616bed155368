//! The thread that owns the mempool's keeper.
//!
//! It takes commands from a channel, hands scripts to the threads that run them, and answers to the node's loop. What
//! was here before the last stop it judges when there is nothing better to do.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::sync::mpsc::UnboundedSender;
use tracing::{debug, warn};

use super::clock::Clock;
use super::dump;
use super::threads::{CheckJob, ThreadEvent};
use crate::mempool::Removal;
use crate::node::Input;
use crate::node::keeper::{Command, Event, Keeper};
use crate::time::Now;

/// How often what it keeps is written down.
const DUMP_EVERY: Duration = Duration::from_secs(600);
/// Commands that are done before what they changed is told.
const AT_ONCE: usize = 64;

/// What it is told. The threads that run scripts answer by the same channel, so it does not end by itself.
#[derive(Debug)]
pub enum Order {
    Do(Command),
    Stop,
}

/// Writes down what is kept, by `run`.
pub fn dump(keeper: &Keeper, now: Now, data_dir: &Path, run: impl FnOnce(Box<dyn FnOnce() + Send>)) {
    let (view, tip) = keeper.view(now);
    let (expiry, folder) = (keeper.policy().expiry, data_dir.to_owned());
    let fees = keeper.estimator().to_bytes();
    run(Box::new(move || {
        let written = dump::write_mempool(&folder, &view, tip.hash, now, expiry);
        let written = written.and(dump::write_fees(&folder, &fees));
        if let Err(error) = written {
            warn!(%error, "the mempool cannot be kept on disk for the next start");
        }
    }));
}

/// What the operator may want to know who misses a transaction.
fn log(event: &Event) {
    match event {
        Event::Refused(tx, why) => debug!(txid = %tx.txid(), %why, "transaction not taken"),
        Event::Changed(changes) => {
            for (entry, why) in changes.removed.iter().filter(|(_, why)| *why != Removal::Confirmed) {
                debug!(txid = %entry.txid, ?why, "transaction left the mempool");
            }
        }
        _ => {}
    }
}

/// Starts it. It ends when it is told so, and gives back what it kept.
pub fn start(
    clock: Clock,
    mut keeper: Keeper,
    data_dir: PathBuf,
    orders: mpsc::Receiver<Order>,
    checks: mpsc::Sender<CheckJob>,
    events: UnboundedSender<ThreadEvent>,
) -> std::io::Result<JoinHandle<Keeper>> {
    thread::Builder::new().name("mempool".into()).spawn(move || {
        let mut next_dump = clock.now().instant + DUMP_EVERY;
        loop {
            while let Some(job) = keeper.next_scripts() {
                // The checkers live as long as this end of their channel.
                let _ = checks.send(CheckJob::Scripts(job));
            }
            while let Some(event) = keeper.poll() {
                log(&event);
                if events.send(ThreadEvent::Input(Input::Mempool(event))).is_err() {
                    return keeper;
                }
            }
            let wait = keeper.next_timeout() - clock.now().instant;
            let wait = if keeper.has_backlog() { Duration::ZERO } else { wait };
            let mut next = match orders.recv_timeout(wait) {
                Ok(order) => Some(order),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return keeper,
            };
            if next.is_none() {
                keeper.work_off(clock.now());
            }
            for _ in 0..AT_ONCE {
                match next {
                    Some(Order::Do(command)) => keeper.execute(clock.now(), command),
                    Some(Order::Stop) => return keeper,
                    None => break,
                }
                // Wallets hear of a new tip first.
                next = if keeper.has_open_block() { None } else { orders.try_recv().ok() };
            }
            keeper.handle_timeout(clock.now());
            if next_dump <= clock.now().instant {
                next_dump = clock.now().instant + DUMP_EVERY;
                // It takes a while, and the keeper does not wait: what is written is as it was now.
                dump(&keeper, clock.now(), &data_dir, |write| drop(thread::spawn(write)));
            }
        }
    })
}
