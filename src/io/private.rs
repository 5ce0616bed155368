//! Connections that are made for one transaction each: dials through the proxy, and moves bytes between socket and
//! `peer::PrivateSession`.
//!
//! Whom to dial and what to hand over says the node. Nothing of this is in the log but at the level of debug: who reads
//! it must not learn which transactions are ours.

use bitcoin::Txid;
use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::time::sleep_until;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::clock::Clock;
use super::connection::PeerEvent;
use super::dialer::{Dialer, ProxyError};
use crate::node::Input;
use crate::peer::{Address, CloseReason, PrivateOutput, PrivateSession};
use crate::relay::{PrivateEvent, PrivateId};

/// What one read takes from the socket.
const READ_BYTES: usize = 16 * 1024;

/// What is handed over: parents before their child; nothing means to hang up.
pub type Load = Vec<(Txid, Bytes)>;

/// What all such connections share.
#[derive(Clone, Debug)]
pub struct PrivateConnections {
    pub clock: Clock,
    pub magic: [u8; 4],
    pub dialer: Dialer,
    pub events: mpsc::Sender<PeerEvent>,
    pub stop: CancellationToken,
}

impl PrivateConnections {
    /// Begins a connection. What it carries is sent through what comes back, once it is ready.
    pub fn start(&self, connection: PrivateId, address: Address) -> oneshot::Sender<Load> {
        let (give, load) = oneshot::channel();
        let connections = self.clone();
        tokio::spawn(async move { connections.run(connection, address, load).await });
        give
    }

    async fn run(self, connection: PrivateId, address: Address, load: oneshot::Receiver<Load>) {
        let dialled = tokio::select! {
            dialled = self.dialer.dial_stranger(&address) => dialled,
            () = self.stop.cancelled() => return,
        };
        let stream = match dialled {
            Ok(stream) => stream,
            Err(error) => {
                debug!(%error, "private connection not made");
                let by_proxy = matches!(error, ProxyError::Proxy(_));
                return self.tell(connection, PrivateEvent::Failed { by_proxy }).await;
            }
        };
        self.tell(connection, PrivateEvent::Opened).await;
        let reason = match numbers() {
            Ok((nonce, seed)) => {
                let rng = fastrand::Rng::with_seed(seed);
                let session = PrivateSession::new(self.clock.now(), self.magic, nonce, rng);
                self.talk(connection, stream, session, load).await
            }
            Err(error) => CloseReason::Gone(error.to_string()),
        };
        debug!(%reason, "private connection ended");
        self.tell(connection, PrivateEvent::Closed).await;
    }

    async fn talk(
        &self,
        connection: PrivateId,
        mut stream: TcpStream,
        mut session: PrivateSession,
        load: oneshot::Receiver<Load>,
    ) -> CloseReason {
        let (mut reader, mut writer) = stream.split();
        let mut load = Some(load);
        let mut incoming = vec![0; READ_BYTES];
        let mut outgoing = BytesMut::new();
        loop {
            while let Some(output) = session.poll() {
                let event = match output {
                    PrivateOutput::Send(bytes) => {
                        outgoing.extend_from_slice(&bytes);
                        continue;
                    }
                    PrivateOutput::Close(reason) => return reason,
                    PrivateOutput::Ready => PrivateEvent::Ready,
                    PrivateOutput::Asked => PrivateEvent::Asked,
                    PrivateOutput::Delivered => PrivateEvent::Delivered,
                };
                self.tell(connection, event).await;
                if event == PrivateEvent::Ready
                    && let Some(load) = load.take()
                {
                    // The node answers at once, unless it stops.
                    session.give(load.await.unwrap_or_default());
                }
            }
            let timer = session.next_timeout().map(|at| self.clock.deadline(at));
            tokio::select! {
                // Who does not read what he asked for is not heard meanwhile.
                read = reader.read(&mut incoming), if outgoing.is_empty() => match read {
                    Ok(0) => return CloseReason::Gone("closed by the peer".into()),
                    Ok(count) => session.handle_bytes(self.clock.now(), &incoming[..count]),
                    Err(error) => return CloseReason::Gone(error.to_string()),
                },
                written = writer.write(&outgoing), if !outgoing.is_empty() => match written {
                    Ok(count) => outgoing.advance(count),
                    Err(error) => return CloseReason::Gone(error.to_string()),
                },
                () = sleep_until(timer.unwrap_or_else(tokio::time::Instant::now)), if timer.is_some() => {
                    session.handle_timeout(self.clock.now());
                }
                () = self.stop.cancelled() => return CloseReason::Shutdown,
            }
        }
    }

    async fn tell(&self, connection: PrivateId, event: PrivateEvent) {
        tokio::select! {
            // The node is gone only when the process stops.
            _ = self.events.send(PeerEvent::Input(Input::Private(connection, event))) => {}
            () = self.stop.cancelled() => {}
        }
    }
}

/// The nonce of the `version`, and the seed of those of pings: from the system, so that neither tells of the other.
fn numbers() -> Result<(u64, u64), getrandom::Error> {
    Ok((getrandom::u64()?, getrandom::u64()?))
}
