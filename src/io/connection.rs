//! Keeps a connection to one Bitcoin peer: dials, moves bytes between socket and `peer::Session`, dials again.
//!
//! What the session makes of the bytes goes to the node; what the node wants sent comes through `PeerLink`.
//! A peer that does not read what we send is dropped when a megabyte waits for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::sleep_until;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::clock::Clock;
use super::dialer::Dialer;
use crate::config::HostPort;
use crate::node::Input;
use bitcoin::p2p::ServiceFlags;

use crate::peer::{
    Backoff, CloseReason, Local, Message, Output as SessionOutput, PeerId, PeerInfo, Session, USER_AGENT,
};

/// What may wait to be written to one peer (Core: `DEFAULT_MAXSENDBUFFER`).
const MAX_SEND_QUEUE_BYTES: usize = 1_000_000;
/// Messages that the node may have handed over before the connection took them.
const MAX_COMMANDS: usize = 1024;
/// What one read takes from the socket.
const READ_BYTES: usize = 64 * 1024;

/// What the node tells a connection.
#[derive(Debug)]
pub enum PeerCommand {
    Send(Message),
    Close(CloseReason),
}

/// What a connection tells the node, beside the inputs that it understands by itself.
#[derive(Debug)]
pub enum PeerEvent {
    Ready { peer: PeerId, target: HostPort, info: PeerInfo, link: PeerLink },
    Input(Input),
}

/// The node's end of a connection.
#[derive(Clone, Debug)]
pub struct PeerLink(mpsc::Sender<PeerCommand>);

impl PeerLink {
    /// Hands a command over; `false` where the connection is gone or takes nothing more.
    pub fn send(&self, command: PeerCommand) -> bool {
        self.0.try_send(command).is_ok()
    }
}

/// What all connections share.
#[derive(Clone, Debug)]
pub struct Connections {
    pub clock: Clock,
    pub magic: [u8; 4],
    pub dialer: Dialer,
    pub next_peer: Arc<AtomicU64>,
    /// Height that `version` announces.
    pub height: Arc<AtomicI32>,
    pub events: mpsc::Sender<PeerEvent>,
    pub stop: CancellationToken,
}

impl Connections {
    /// Connects to `target` for ever, waiting longer after each failure.
    pub async fn keep(self, target: HostPort) {
        let mut rng = fastrand::Rng::new();
        let mut backoff = Backoff::new();
        // A peer that cannot be reached is said once, not at each attempt.
        let mut reported = false;
        loop {
            let (reason, was_ready) = match self.dialer.dial(&target).await {
                Ok(stream) => self.talk(&target, stream, &mut backoff).await,
                Err(error) => (CloseReason::Gone(format!("cannot connect: {error}")), false),
            };
            if self.stop.is_cancelled() {
                return;
            }
            let now = self.clock.now().instant;
            let again = backoff.handle_closed(now, &reason, &mut rng);
            let wait_s = (again - now).as_secs();
            if was_ready {
                // The node has said it.
                reported = false;
            } else if reported {
                debug!(peer = %target, %reason, wait_s, "not connected");
            } else {
                warn!(peer = %target, %reason, "not connected, will try again");
                reported = true;
            }
            tokio::select! {
                () = sleep_until(self.clock.deadline(again)) => {}
                () = self.stop.cancelled() => return,
            }
        }
    }

    /// One connection from beginning to end: why it ended, and whether its handshake was done.
    async fn talk(&self, target: &HostPort, stream: TcpStream, backoff: &mut Backoff) -> (CloseReason, bool) {
        let peer = PeerId(self.next_peer.fetch_add(1, Ordering::Relaxed));
        let (link, commands) = mpsc::channel(MAX_COMMANDS);
        let local = Local {
            magic: self.magic,
            services: ServiceFlags::WITNESS,
            user_agent: USER_AGENT.into(),
            start_height: self.height.load(Ordering::Relaxed),
            // Another for each connection: peers must not find out by it that they talk to the same server.
            nonce: fastrand::u64(1..),
            // Until there is a mempool.
            relay: true,
        };
        let mut talk = Talk {
            connections: self,
            peer,
            target,
            session: Session::new(self.clock.now(), local, fastrand::Rng::new()),
            link: Some(PeerLink(link)),
            ready: false,
            outgoing: BytesMut::new(),
        };
        let reason = talk.run(stream, commands, backoff).await;
        if talk.ready {
            let gone = PeerEvent::Input(Input::PeerGone(peer, reason.clone()));
            // The node is gone only when the process stops.
            let _ = self.events.send(gone).await;
        }
        (reason, talk.ready)
    }
}

struct Talk<'a> {
    connections: &'a Connections,
    peer: PeerId,
    target: &'a HostPort,
    session: Session,
    /// Given to the node when the handshake is done.
    link: Option<PeerLink>,
    ready: bool,
    outgoing: BytesMut,
}

impl Talk<'_> {
    async fn run(
        &mut self,
        mut stream: TcpStream,
        mut commands: mpsc::Receiver<PeerCommand>,
        backoff: &mut Backoff,
    ) -> CloseReason {
        let (mut reader, mut writer) = stream.split();
        let mut incoming = vec![0; READ_BYTES];
        let clock = self.connections.clock;
        loop {
            if let Some(reason) = self.drain(backoff).await {
                // What was said before closing is worth one try; a peer that does not read must not hold us.
                let _ = writer.try_write(&self.outgoing);
                return reason;
            }
            if self.outgoing.len() > MAX_SEND_QUEUE_BYTES {
                return CloseReason::Gone("does not read what we send".into());
            }
            let timer = self.session.next_timeout().map(|at| clock.deadline(at));
            tokio::select! {
                read = reader.read(&mut incoming) => match read {
                    Ok(0) => return CloseReason::Gone("closed by the peer".into()),
                    Ok(count) => self.session.handle_bytes(clock.now(), &incoming[..count]),
                    Err(error) => return CloseReason::Gone(error.to_string()),
                },
                written = writer.write(&self.outgoing), if !self.outgoing.is_empty() => match written {
                    Ok(count) => self.outgoing.advance(count),
                    Err(error) => return CloseReason::Gone(error.to_string()),
                },
                command = commands.recv() => match command {
                    Some(PeerCommand::Send(message)) => self.session.send(&message),
                    Some(PeerCommand::Close(reason)) => return reason,
                    None => return CloseReason::Shutdown,
                },
                () = sleep_until(timer.unwrap_or_else(tokio::time::Instant::now)), if timer.is_some() => {
                    self.session.handle_timeout(clock.now());
                }
                () = self.connections.stop.cancelled() => return CloseReason::Shutdown,
            }
        }
    }

    /// Takes what the session put out; the reason once it wants to close.
    async fn drain(&mut self, backoff: &mut Backoff) -> Option<CloseReason> {
        while let Some(output) = self.session.poll() {
            let event = match output {
                SessionOutput::Send(bytes) => {
                    self.outgoing.extend_from_slice(&bytes);
                    continue;
                }
                SessionOutput::Ready(info) => {
                    self.ready = true;
                    backoff.handle_ready(self.connections.clock.now().instant);
                    let link = self.link.take().expect("a session is ready once");
                    PeerEvent::Ready { peer: self.peer, target: self.target.clone(), info, link }
                }
                SessionOutput::Message(message) => PeerEvent::Input(Input::PeerMessage(self.peer, message)),
                SessionOutput::Close(reason) => return Some(reason),
            };
            // Waiting here is how a busy node slows its peers down; what is late then is not the peer's fault.
            tokio::select! {
                sent = self.connections.events.send(event) => if sent.is_err() {
                    return Some(CloseReason::Shutdown);
                },
                () = self.connections.stop.cancelled() => return Some(CloseReason::Shutdown),
            }
            self.session.handle_resume(self.connections.clock.now());
        }
        None
    }
}
