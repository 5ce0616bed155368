//! Accepts wallets over TCP and moves bytes between their sockets and `electrum::Session`.
//!
//! One task a connection. A session answers from the view it holds; views come through a broadcast channel, and
//! a session that was too slow to see each of them is told that anything may have changed.
//! A wallet that does not read is paused, then dropped: at most `MAX_SEND_QUEUE_BYTES` wait for it.

use std::net::SocketAddr;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use anyhow::Context;
use bytes::{Buf, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, mpsc, oneshot};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::clock::Clock;
use crate::config::Service;
use crate::electrum::transport::LineDecoder;
use crate::electrum::{self, Server, Session, Touched};
use crate::node::{BroadcastError, Publication};
use crate::query::View;

/// Views that a session may be behind before it is told that anything may have changed.
const VIEWS: usize = 64;
/// What may wait to be written to one wallet; the largest answer must fit.
const MAX_SEND_QUEUE_BYTES: usize = 16 * 1024 * 1024;
/// What one read takes from a socket.
const READ_BYTES: usize = 16 * 1024;
/// After a failed accept (out of file descriptors, mostly).
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// What the node says about a broadcast.
pub type BroadcastReply = oneshot::Sender<Result<(), BroadcastError>>;

/// A wallet's transaction on its way to the node.
#[derive(Debug)]
pub struct BroadcastRequest {
    pub tx: bitcoin::Transaction,
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
pub fn publisher(view: Arc<View>, server: Server) -> (Publisher, Subscriber) {
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
                    let (subscriber, broadcasts, stop) = (subscriber.clone(), broadcasts.clone(), stop.clone());
                    tokio::spawn(async move {
                        let why = talk(clock, stream, &subscriber, broadcasts, stop).await;
                        debug!(wallet = %address, why, "session closed");
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
