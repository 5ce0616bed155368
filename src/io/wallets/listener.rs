//! Listening sockets: accepts wallets and gives each a task of its own.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::super::clock::Clock;
use super::talk::{BroadcastRequest, Talk};
use super::views::Subscriber;
use super::wire;
use crate::config::Service;
use crate::electrum::transport::{Origin, Transport};

/// After a failed accept (out of file descriptors, mostly).
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// What all connections share.
#[derive(Clone, Debug)]
pub struct Shared {
    pub clock: Clock,
    pub views: Subscriber,
    pub broadcasts: mpsc::Sender<BroadcastRequest>,
    pub stop: CancellationToken,
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
    /// Accepts until told to stop.
    pub async fn serve(self, shared: Shared) {
        loop {
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                () = shared.stop.cancelled() => return,
            };
            match accepted {
                Ok((stream, address)) => {
                    tokio::spawn(attend(shared.clone(), stream, address));
                }
                Err(error) => {
                    warn!(%error, "cannot accept a wallet");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

/// One connection from its first byte to its last.
async fn attend(shared: Shared, stream: TcpStream, address: SocketAddr) {
    let origin = Origin { address: Some(address), transport: Transport::Tcp };
    let Some(talk) = Talk::new(&shared, origin) else { return };
    // An answer is written as a whole: nothing is won by waiting for more.
    let _ = stream.set_nodelay(true);
    let (reader, writer) = stream.into_split();
    let (reader, writer) = wire::lines(reader, writer);
    let why = tokio::select! {
        why = talk.run(reader, writer) => why,
        () = shared.stop.cancelled() => "shutting down".into(),
    };
    debug!(wallet = %origin, %why, "session closed");
}
