//! Accepts wallets over TCP and moves bytes between their sockets and `electrum::Session`.
//!
//! One task a connection. A session answers from the view it holds; views come through a broadcast channel, and
//! a session that was too slow to see each of them is told that anything may have changed.
//! A wallet that does not read is paused, then dropped: what waits for it is bounded: a megabyte and one answer.

use std::sync::{Arc, RwLock};
use std::time::Duration;

use anyhow::Context;
use bitcoin::Txid;
use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use super::clock::Clock;
use crate::config::Service;
use crate::electrum::transport::LineDecoder;
use crate::electrum::{self, BroadcastId, Output, Server, Session};
use crate::node::{BroadcastError, Publication};
use crate::query::{Touched, View};

/// Views that a session may be behind before it is told that anything may have changed.
const VIEWS: usize = 64;
/// What may wait for one wallet before it is neither read from nor given news; an answer may still pass it.
const PAUSE_AT_BYTES: usize = 1024 * 1024;
/// How long a wallet may take no byte of what waits for it.
const SLOW_READER: Duration = Duration::from_secs(60);
/// What one read takes from a socket.
const READ_BYTES: usize = 16 * 1024;
/// After a failed accept (out of file descriptors, mostly).
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// What the node says about a broadcast.
pub type BroadcastReply = oneshot::Sender<Result<(), BroadcastError>>;

/// A wallet's transaction on its way to the node.
#[derive(Debug)]
pub struct BroadcastRequest {
    pub raw: Bytes,
    pub reply: BroadcastReply,
}

/// The node's end: gives every session the next view.
#[derive(Debug)]
pub struct Publisher {
    current: Arc<RwLock<Arc<View>>>,
    updates: broadcast::Sender<Publication>,
}

/// The listeners' end.
#[derive(Clone, Debug)]
pub struct Subscriber {
    current: Arc<RwLock<Arc<View>>>,
    updates: broadcast::Sender<Publication>,
    server: Arc<Server>,
}

/// The two ends, with the view to begin with.
pub fn channel(view: Arc<View>, server: Server) -> (Publisher, Subscriber) {
    let current = Arc::new(RwLock::new(view));
    let updates = broadcast::Sender::new(VIEWS);
    let subscriber =
        Subscriber { current: current.clone(), updates: updates.clone(), server: Arc::new(server) };
    (Publisher { current, updates }, subscriber)
}

impl Publisher {
    pub fn publish(&self, publication: Publication) {
        // Under the lock, so that a new session sees each view either as its first or as an update, never neither.
        if let Ok(mut current) = self.current.write() {
            *current = publication.view.clone();
            // Nobody listens while no wallet is connected.
            let _ = self.updates.send(publication);
        }
    }
}

impl Subscriber {
    fn subscribe(&self) -> Option<(Arc<View>, broadcast::Receiver<Publication>)> {
        let current = self.current.read().ok()?;
        Some((current.clone(), self.updates.subscribe()))
    }
}

/// A bound address that wallets may connect to.
#[derive(Debug)]
pub struct Listener {
    listener: TcpListener,
}

/// Binds all services, or says which address cannot be had and why.
pub async fn bind(services: &[Service]) -> anyhow::Result<Vec<Listener>> {
    let mut listeners = Vec::with_capacity(services.len());
    for service in services {
        let Service::Tcp(address) = service;
        let listener = TcpListener::bind(address)
            .await
            .with_context(|| format!("cannot serve {service}: give another address with --service"))?;
        info!(service = %format_args!("tcp://{}", listener.local_addr()?), "listening for wallets");
        listeners.push(Listener { listener });
    }
    Ok(listeners)
}

impl Listener {
    /// Accepts until `stop`.
    pub async fn serve(
        self,
        clock: Clock,
        subscriber: Subscriber,
        broadcasts: mpsc::Sender<BroadcastRequest>,
        stop: CancellationToken,
    ) {
        loop {
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                () = stop.cancelled() => return,
            };
            match accepted {
                Ok((stream, address)) => {
                    let (subscriber, broadcasts, stop) =
                        (subscriber.clone(), broadcasts.clone(), stop.clone());
                    tokio::spawn(async move {
                        let Some((view, updates)) = subscriber.subscribe() else { return };
                        let session = Session::new(subscriber.server.clone(), view);
                        let talk = Talk {
                            clock,
                            session,
                            subscriber,
                            updates,
                            broadcasts,
                            replies: JoinSet::new(),
                            outgoing: BytesMut::new(),
                            input_open: true,
                            lines: LineDecoder::default(),
                        };
                        let why = tokio::select! {
                            why = talk.run(stream) => why,
                            () = stop.cancelled() => "shutting down".into(),
                        };
                        debug!(wallet = %address, %why, "session closed");
                    });
                }
                Err(error) => {
                    warn!(%error, "cannot accept a wallet");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

/// One wallet's connection.
struct Talk {
    clock: Clock,
    session: Session,
    subscriber: Subscriber,
    updates: broadcast::Receiver<Publication>,
    broadcasts: mpsc::Sender<BroadcastRequest>,
    replies: JoinSet<Reply>,
    /// Lines that the socket has not taken yet.
    outgoing: BytesMut,
    /// Until the wallet closes its side.
    input_open: bool,
    lines: LineDecoder,
}

/// What comes back of a broadcast.
type Reply = (BroadcastId, Result<Txid, electrum::BroadcastError>);

impl Talk {
    /// Until either side closes; says why.
    async fn run(mut self, mut stream: TcpStream) -> String {
        let (mut reader, mut writer) = stream.split();
        let mut incoming = vec![0; READ_BYTES];
        // Whether lines may have arrived that are not answered.
        let mut unanswered = false;
        loop {
            if self.take_outputs() {
                // Whoever does not read what is left for him loses it.
                let _ = timeout(SLOW_READER, writer.write_all(&self.outgoing)).await;
                return "done".into();
            }
            // A wallet that does not read is not read from either, and gets no news until it does.
            let has_room = self.outgoing.len() < PAUSE_AT_BYTES;
            // A burst of requests is answered one by one, so that no more waits than the last answer over the limit.
            if unanswered && has_room {
                unanswered = self.take_line();
                continue;
            }
            let stuck = !self.outgoing.is_empty();
            tokio::select! {
                written = writer.write(&self.outgoing), if stuck => match written {
                    Ok(count) => self.outgoing.advance(count),
                    Err(error) => return error.to_string(),
                },
                () = sleep(SLOW_READER), if stuck => return "does not read its answers".into(),
                read = reader.read(&mut incoming), if has_room && !unanswered && self.input_open => match read {
                    Ok(0) => {
                        self.input_open = false;
                        self.session.handle_end_of_input(self.clock.now());
                    }
                    Ok(count) => {
                        self.lines.push(&incoming[..count]);
                        unanswered = true;
                    }
                    Err(error) => return error.to_string(),
                },
                update = self.updates.recv(), if has_room => match update {
                    Ok(Publication { view, touched }) => {
                        self.session.handle_view(self.clock.now(), view, &touched);
                    }
                    // Nobody kept count of what changed in between.
                    Err(RecvError::Lagged(_)) => self.missed_views(),
                    Err(RecvError::Closed) => return "shutting down".into(),
                },
                Some(reply) = self.replies.join_next(), if !self.replies.is_empty() => {
                    if let Ok((id, result)) = reply {
                        self.session.handle_broadcast_result(self.clock.now(), id, result);
                    }
                }
            }
        }
    }

    /// Answers the next line that has arrived; `false` when there is none.
    fn take_line(&mut self) -> bool {
        match self.lines.next_line() {
            Ok(Some(line)) => self.session.handle_line(self.clock.now(), line),
            Ok(None) => return false,
            Err(_) => {
                self.session.handle_line_too_long(self.clock.now());
                return false;
            }
        }
        true
    }

    fn missed_views(&mut self) {
        if let Some((view, updates)) = self.subscriber.subscribe() {
            self.updates = updates;
            self.session.handle_view(self.clock.now(), view, &Touched::Everything);
        }
    }

    /// `true` once the session wants to close.
    fn take_outputs(&mut self) -> bool {
        while let Some(output) = self.session.poll() {
            match output {
                Output::Send(line) => self.outgoing.extend_from_slice(&line),
                Output::Broadcast { id, txid, raw } => {
                    let broadcasts = self.broadcasts.clone();
                    self.replies.spawn(async move { (id, broadcast(broadcasts, txid, raw).await) });
                }
                Output::Fault(fault) => error!(%fault, "the store failed while answering a wallet"),
                Output::Close => return true,
            }
        }
        false
    }
}

async fn broadcast(
    broadcasts: mpsc::Sender<BroadcastRequest>,
    txid: Txid,
    raw: Bytes,
) -> Result<Txid, electrum::BroadcastError> {
    let (reply, answer) = oneshot::channel();
    let stopping = || electrum::BroadcastError::Unavailable("shutting down".into());
    broadcasts.send(BroadcastRequest { raw, reply }).await.map_err(|_| stopping())?;
    match answer.await {
        Ok(Ok(())) => Ok(txid),
        Ok(Err(error @ BroadcastError::NoPeers)) => {
            Err(electrum::BroadcastError::Unavailable(error.to_string()))
        }
        Err(_) => Err(stopping()),
    }
}
