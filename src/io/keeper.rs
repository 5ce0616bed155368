//! The thread that owns the mempool's keeper.
//!
//! It takes commands from a channel, hands scripts to the threads that run them, and answers to the node's loop. What
//! was here before the last stop it judges when there is nothing better to do.

use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::sync::mpsc::UnboundedSender;

use super::clock::Clock;
use super::threads::{CheckJob, ThreadEvent};
use crate::node::Input;
use crate::node::keeper::{Command, Keeper};

/// Commands that are done before what they changed is told.
const AT_ONCE: usize = 64;

/// What it is told. The threads that run scripts answer by the same channel, so it does not end by itself.
#[derive(Debug)]
pub enum Order {
    Do(Command),
    Stop,
}

/// Starts it. It ends when it is told so, and gives back what it kept.
pub fn start(
    clock: Clock,
    mut keeper: Keeper,
    orders: mpsc::Receiver<Order>,
    checks: mpsc::Sender<CheckJob>,
    events: UnboundedSender<ThreadEvent>,
) -> std::io::Result<JoinHandle<Keeper>> {
    thread::Builder::new().name("mempool".into()).spawn(move || {
        loop {
            while let Some(job) = keeper.next_scripts() {
                // The checkers live as long as this end of their channel.
                let _ = checks.send(CheckJob::Scripts(job));
            }
            while let Some(event) = keeper.poll() {
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
                keeper.restore_some(clock.now());
            }
            for _ in 0..AT_ONCE {
                match next {
                    Some(Order::Do(command)) => keeper.execute(clock.now(), command),
                    Some(Order::Stop) => return keeper,
                    None => break,
                }
                next = orders.try_recv().ok();
            }
            keeper.handle_timeout(clock.now());
        }
    })
}
