//! The node's loop: one task that feeds the node and does what it puts out.
//!
//! Peers, threads, wallets' submissions and timers come in through channels; nothing here decides anything.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::mpsc as std_mpsc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::sleep_until;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::broadcasts;
use super::clock::Clock;
use super::connection::{PeerCommand, PeerEvent, PeerLink};
use super::dump;
use super::keeper::Order;
use super::operator::Operator;
use super::private::{Load, PrivateConnections};
use super::rpc::Relayed;
use super::threads::{CheckJob, ThreadEvent};
use super::wallets::{Hub, SubmissionReply, SubmissionRequest};
use crate::addresses::Source;
use crate::config::HostPort;
use crate::node::chain::Command;
use crate::node::{Input, Node, Output, SubmissionId};
use crate::peer::{CloseReason, Message, PeerId};
use crate::relay::{PrivateEvent, PrivateId, Role};
use crate::time::Instant;

/// Who hangs up so soon after he was asked for his mempool does so for that.
const HANGS_UP_WITHIN: Duration = Duration::from_secs(2);
/// Addresses of peers that a kill may cost.
const WRITE_ADDRESSES_EVERY: Duration = Duration::from_secs(5 * 60);
/// Once may be chance: the node was stopped.
const REFUSALS: u32 = 2;

/// All ends of the node's loop.
#[derive(Debug)]
pub struct Runtime {
    pub clock: Clock,
    pub node: Node,
    pub operator: Operator,
    pub peers: mpsc::Receiver<PeerEvent>,
    pub threads: mpsc::UnboundedReceiver<ThreadEvent>,
    pub submissions: mpsc::Receiver<SubmissionRequest>,
    pub checks: std_mpsc::Sender<CheckJob>,
    pub chain: std_mpsc::Sender<Command>,
    pub keeper: std_mpsc::Sender<Order>,
    /// Wallets' transactions on disk.
    pub kept: std_mpsc::Sender<broadcasts::Order>,
    pub hub: Arc<Hub>,
    /// Height that new connections announce.
    pub height: Arc<AtomicI32>,
    pub stop: CancellationToken,
    pub links: Links,
    /// `None` where wallets' transactions do not go over connections of their own.
    pub private: Option<PrivateConnections>,
    pub data_dir: PathBuf,
    /// When addresses of peers are written.
    pub next_addresses: Instant,
    /// The operator's own nodes.
    pub trust: Vec<HostPort>,
    /// For whoever asks as the operator.
    pub relayed: Arc<Mutex<Relayed>>,
}

/// Whom the loop can answer.
#[derive(Debug, Default)]
pub struct Links {
    targets: BTreeMap<PeerId, HostPort>,
    asked_mempool: BTreeMap<PeerId, Instant>,
    /// How often in a row each hung up for that.
    refusals: BTreeMap<HostPort, u32>,
    peers: BTreeMap<PeerId, PeerLink>,
    /// Connections that wait for what they shall carry.
    private: BTreeMap<PrivateId, oneshot::Sender<Load>>,
    submissions: BTreeMap<SubmissionId, SubmissionReply>,
    next_submission: u64,
}

impl Runtime {
    /// Runs until `stop`; an error when the store failed. Dropping the senders lets the threads end.
    pub async fn run(mut self) -> anyhow::Result<()> {
        loop {
            self.perform();
            let timer = self.clock.deadline(self.node.next_timeout());
            tokio::select! {
                // The threads come first: what they say frees memory.
                biased;
                () = self.stop.cancelled() => {
                    self.write_addresses();
                    return Ok(());
                }
                Some(event) = self.threads.recv() => match event {
                    ThreadEvent::Input(input) => self.node.handle(self.clock.now(), input),
                    ThreadEvent::Fatal(failure) => anyhow::bail!("{failure}"),
                },
                () = sleep_until(timer) => self.timeout(),
                Some(SubmissionRequest { what, reply }) = self.submissions.recv() => {
                    let id = SubmissionId(self.links.next_submission);
                    self.links.next_submission += 1;
                    self.links.submissions.insert(id, reply);
                    self.node.handle(self.clock.now(), Input::Submit { id, what });
                }
                Some(event) = self.peers.recv() => self.peer_event(event),
            }
        }
    }

    fn timeout(&mut self) {
        self.node.handle_timeout(self.clock.now());
        self.operator.progress(&self.node.progress());
        let relayed = Relayed {
            coverage: self.node.coverage(),
            compact: self.node.compact_figures(),
            broadcasts: self.node.broadcasts(),
        };
        *self.relayed.lock().unwrap_or_else(PoisonError::into_inner) = relayed;
        let now = self.clock.now().instant;
        if self.next_addresses <= now {
            self.next_addresses = now + WRITE_ADDRESSES_EVERY;
            self.write_addresses();
        }
    }

    /// They are worth little, and a few hundred kilobytes.
    fn write_addresses(&self) {
        if self.private.is_none() {
            return;
        }
        let addresses = self.node.addresses();
        if !addresses.is_empty()
            && let Err(error) = dump::write_addresses(&self.data_dir, &addresses)
        {
            warn!(%error, "addresses of peers cannot be written");
        }
    }

    fn peer_event(&mut self, event: PeerEvent) {
        let input = match event {
            PeerEvent::Ready { peer, target, info, link } => {
                let role = if self.trust.contains(&target) {
                    Role::Trusted {
                        ask_mempool: self.links.refusals.get(&target).is_none_or(|count| *count < REFUSALS),
                    }
                } else {
                    Role::Stranger
                };
                self.operator.met(peer, target.clone());
                self.links.peers.insert(peer, link);
                self.node.handle(self.clock.now(), Input::PeerReady(peer, info, role));
                let is_onion = target.host.to_ascii_lowercase().ends_with(".onion");
                let source = Source::of(&target.host);
                self.links.targets.insert(peer, target);
                Input::PeerFrom(peer, source, is_onion)
            }
            PeerEvent::Input(input) => {
                if let Input::PeerGone(peer, _) = &input {
                    self.links.peers.remove(peer);
                    self.peer_gone(*peer);
                }
                if let Input::Private(id, PrivateEvent::Failed { .. } | PrivateEvent::Closed) = &input {
                    self.links.private.remove(id);
                }
                input
            }
        };
        self.node.handle(self.clock.now(), input);
    }

    /// A node that does not permit its mempool to be asked for (BIP35) hangs up: it is not asked again.
    fn peer_gone(&mut self, peer: PeerId) {
        let Some(target) = self.links.targets.remove(&peer) else { return };
        let asked = self.links.asked_mempool.remove(&peer);
        let now = self.clock.now().instant;
        let Some(asked) = asked else { return };
        if now.saturating_since(asked) >= HANGS_UP_WITHIN {
            self.links.refusals.remove(&target);
            return;
        }
        let refusals = self.links.refusals.entry(target.clone()).or_default();
        *refusals += 1;
        if *refusals == REFUSALS {
            warn!(
                peer = %target,
                "this node hung up when it was asked for its mempool, and is asked no more: give peerdex the \
                 permission with -whitelist=noban,mempool,download@ADDRESS"
            );
        }
    }

    /// Does all that the node put out.
    fn perform(&mut self) {
        while let Some(output) = self.node.poll() {
            match output {
                Output::Send(peer, message) => {
                    if message == Message::Mempool {
                        self.links.asked_mempool.insert(peer, self.clock.now().instant);
                    }
                    self.send(peer, PeerCommand::Send(message));
                }
                Output::Drop(peer, why) => {
                    self.send(peer, PeerCommand::Close(CloseReason::Misbehaved(why)));
                }
                Output::Check { hash, block, context } => {
                    // The checkers live as long as this end of their channel.
                    let _ = self.checks.send(CheckJob::Block { hash, block, context });
                }
                Output::Fill(fill) => {
                    let _ = self.checks.send(CheckJob::Fill(fill));
                }
                Output::Chain(command) => {
                    // A writer that failed has said so; the loop ends with its next event.
                    let _ = self.chain.send(command);
                }
                Output::Mempool(command) => {
                    // The keeper lives as long as this end of its channel.
                    let _ = self.keeper.send(Order::Do(command));
                }
                Output::KeepBroadcast { wtxid, transactions } => {
                    let raw = transactions.iter().map(|entry| entry.raw.clone()).collect();
                    // It lives as long as this end of its channel.
                    let _ = self.kept.send(broadcasts::Order::Keep(wtxid, raw));
                }
                Output::NoteBroadcast { wtxid, kept } => {
                    let _ = self.kept.send(broadcasts::Order::Note(wtxid, kept));
                }
                Output::DialPrivate { connection, address } => {
                    if let Some(private) = &self.private {
                        self.links.private.insert(connection, private.start(connection, address));
                    }
                }
                Output::GivePrivate { connection, transactions } => {
                    if let Some(give) = self.links.private.remove(&connection) {
                        let load = transactions.iter().map(|entry| (entry.txid, entry.raw.clone())).collect();
                        // It may have ended meanwhile, and says so.
                        let _ = give.send(load);
                    }
                }
                Output::ForgetBroadcast { wtxid } => {
                    let _ = self.kept.send(broadcasts::Order::Forget(wtxid));
                }
                Output::Publish(publication) => {
                    let height = publication.view.tip().map_or(0, |tip| tip.height.0);
                    self.height.store(i32::try_from(height).unwrap_or(i32::MAX), Ordering::Relaxed);
                    self.hub.publish(publication);
                }
                Output::Submitted { id, outcome } => {
                    if let Some(reply) = self.links.submissions.remove(&id) {
                        // The wallet may have gone meanwhile.
                        let _ = reply.send(outcome);
                    }
                }
                Output::Notice(notice) => self.operator.notice(&notice),
            }
        }
    }

    /// A connection that takes nothing more is closed by dropping our end of it.
    fn send(&mut self, peer: PeerId, command: PeerCommand) {
        if self.links.peers.get(&peer).is_some_and(|link| !link.send(command)) {
            self.links.peers.remove(&peer);
        }
    }
}
