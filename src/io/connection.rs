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
use tokio::time::{sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::clock::Clock;
use super::dialer::dial;
use crate::config::HostPort;
use crate::node::Input;
use crate::peer::{Backoff, CloseReason, Local, Message, PeerId, PeerInfo, Session, SessionOutput};

/// What may wait to be written to one peer (Core: `DEFAULT_MAXSENDBUFFER`).
const MAX_SEND_QUEUE_BYTES: usize = 1_000_000;
/// Messages that the node may have handed over before the connection took them.
const MAX_COMMANDS: usize = 1024;
/// The most that one read takes from the socket; what comes before its announced length never exceeds this.
const READ_BYTES: usize = 256 * 1024;

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
    /// Nonce of our `version` messages: a peer that shows it is ourselves.
    pub nonce: u64,
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
        loop {
            let reason = match dial(&target).await {
                Ok(stream) => self.talk(&target, stream, &mut backoff).await,
                Err(error) => CloseReason::Gone(format!("cannot connect: {error}")),
            };
            if self.stop.is_cancelled() {
                return;
            }
            let wait = backoff.failed(&reason, &mut rng);
            debug!(peer = %target, %reason, wait_ms = wait.as_millis(), "not connected");
            tokio::select! {
                () = sleep(wait) => {}
                () = self.stop.cancelled() => return,
            }
        }
    }

    async fn talk(&self, target: &HostPort, stream: TcpStream, backoff: &mut Backoff) -> CloseReason {
        let peer = PeerId(self.next_peer.fetch_add(1, Ordering::Relaxed));
        let (link, commands) = mpsc::channel(MAX_COMMANDS);
        let local = Local::new(self.magic, self.nonce, self.height.load(Ordering::Relaxed));
        let mut talk = Talk {
            connections: self,
            peer,
            target,
            session: Session::new(self.clock.now(), local),
            link: Some(PeerLink(link)),
            ready: false,
            outgoing: BytesMut::new(),
        };
        let reason = talk.run(stream, commands).await;
        if talk.ready {
            backoff.succeeded();
            let gone = PeerEvent::Input(Input::PeerGone(peer, reason.clone()));
            // The node is gone only when the process stops.
            let _ = self.events.send(gone).await;
        }
        reason
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
    async fn run(&mut self, mut stream: TcpStream, mut commands: mpsc::Receiver<PeerCommand>) -> CloseReason {
        let (mut reader, mut writer) = stream.split();
        let mut incoming = BytesMut::new();
        let clock = self.connections.clock;
        loop {
            if let Some(reason) = self.drain().await {
                // What was said before closing is worth one try; a peer that does not read must not hold us.
                let _ = writer.try_write(&self.outgoing);
                return reason;
            }
            if self.outgoing.len() > MAX_SEND_QUEUE_BYTES {
                return CloseReason::Gone("does not read what we send".into());
            }
            incoming.reserve(READ_BYTES.min(self.session.read_ahead()));
            let timer = self.session.next_timeout().map(|at| clock.deadline(at));
            tokio::select! {
                read = reader.read_buf(&mut incoming) => match read {
                    Ok(0) => return CloseReason::Gone("closed by the peer".into()),
                    Ok(_) => self.session.handle_bytes(clock.now(), &mut incoming),
                    Err(error) => return CloseReason::Gone(error.to_string()),
                },
                written = writer.write(&self.outgoing), if !self.outgoing.is_empty() => match written {
                    Ok(count) => self.outgoing.advance(count),
                    Err(error) => return CloseReason::Gone(error.to_string()),
                },
                command = commands.recv() => match command {
                    Some(PeerCommand::Send(message)) => self.session.send(clock.now(), message),
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
    async fn drain(&mut self) -> Option<CloseReason> {
        while let Some(output) = self.session.poll() {
            let event = match output {
                SessionOutput::Send(bytes) => {
                    self.outgoing.extend_from_slice(&bytes);
                    continue;
                }
                SessionOutput::Ready(info) => {
                    self.ready = true;
                    let link = self.link.take().expect("a session is ready once");
                    PeerEvent::Ready { peer: self.peer, target: self.target.clone(), info, link }
                }
                SessionOutput::Message(message) => PeerEvent::Input(Input::PeerMessage(self.peer, message)),
                SessionOutput::Close(reason) => return Some(reason),
            };
            // Waiting here is how a busy node slows its peers down.
            if self.connections.events.send(event).await.is_err() {
                return Some(CloseReason::Shutdown);
            }
        }
        None
    }
}
