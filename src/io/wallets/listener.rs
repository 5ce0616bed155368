//! Listening sockets: accepts wallets while there is room for them, and gives each to a thread that serves it.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::sleep;
use tracing::{info, warn};

use super::Shared;
use super::welcome;
use crate::config::{Interface, Service};
use crate::electrum::transport::{Origin, Transport};

/// After a failed accept (out of file descriptors, mostly), or a failed try to listen again.
const PAUSE: Duration = Duration::from_millis(200);
/// Connections that the system keeps until we accept them.
const BACKLOG: i32 = 1024;

/// A bound address that wallets may connect to.
#[derive(Debug)]
pub struct Listener {
    transport: Transport,
    /// As bound, so that it is the same after closing and opening.
    address: SocketAddr,
    /// `None` while there is no room for more wallets.
    socket: Option<TcpListener>,
}

/// Binds a service on all its addresses, or says which cannot be had and why.
pub fn bind(
    service: &Service,
    interface: Interface,
    port: u16,
) -> anyhow::Result<Vec<(SocketAddr, TcpListener)>> {
    let mut sockets = Vec::new();
    for ip in interface.addresses() {
        let bound = listen(SocketAddr::new(ip, port)).and_then(|socket| Ok((socket.local_addr()?, socket)));
        let (address, socket) = match bound {
            Ok(bound) => bound,
            // A machine without IPv6 has done all it can.
            Err(error) if !sockets.is_empty() && error.kind() != io::ErrorKind::AddrInUse => continue,
            Err(error) => {
                return Err(error)
                    .with_context(|| format!("cannot serve {service}: give another address with --service"));
            }
        };
        let whom = if service.transport == Transport::Rpc { "you" } else { "wallets" };
        info!(service = %format_args!("{}://{address}", service.transport), "listening for {whom}");
        sockets.push((address, socket));
    }
    Ok(sockets)
}

/// The register of sessions lives as long as any listener, so there is always somebody who says.
async fn has_become(room: &mut watch::Receiver<bool>, wanted: bool) {
    let _ = room.wait_for(|has_room| *has_room == wanted).await;
}

/// An IPv6 socket takes IPv6 alone: each address has its own, and wallets have theirs as they are.
fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

impl Listener {
    pub fn new(transport: Transport, (address, socket): (SocketAddr, TcpListener)) -> Self {
        Self { transport, address, socket: Some(socket) }
    }

    /// Accepts until told to stop. While there is no room for more wallets it does not listen, so that they go
    /// elsewhere at once.
    pub async fn serve(mut self, shared: Shared) {
        let mut room = shared.sessions.room();
        let mut failing = false;
        loop {
            let Some(socket) = &self.socket else {
                tokio::select! {
                    () = has_become(&mut room, true) => {}
                    () = shared.stop.cancelled() => return,
                }
                match listen(self.address) {
                    Ok(socket) => (self.socket, failing) = (Some(socket), false),
                    Err(error) => self.failed(&mut failing, &error).await,
                }
                continue;
            };
            tokio::select! {
                // No room counts first, or a flood would be accepted and dropped.
                biased;
                () = shared.stop.cancelled() => return,
                () = has_become(&mut room, false) => self.socket = None,
                accepted = socket.accept() => match accepted {
                    Ok((stream, address)) => {
                        failing = false;
                        self.accepted(&shared, stream, address);
                    }
                    Err(error) => self.failed(&mut failing, &error).await,
                },
            }
        }
    }

    fn accepted(&self, shared: &Shared, stream: TcpStream, address: SocketAddr) {
        let origin = Origin { address: Some(address), transport: self.transport };
        let Some(seat) = shared.sessions.admit(origin) else { return };
        // Whoever serves it is told by the system when there is something to read, and not who accepts.
        match stream.into_std() {
            Ok(stream) => shared.turns.serve(seat.id(), welcome::attend(shared.clone(), seat, stream)),
            Err(error) => warn!(wallet = %seat.origin(), %error, "cannot hand a wallet over"),
        }
    }

    /// Tells once, and waits before the next try.
    async fn failed(&self, failing: &mut bool, error: &io::Error) {
        if !*failing {
            warn!(service = %format_args!("{}://{}", self.transport, self.address), %error, "cannot accept wallets");
        }
        *failing = true;
        sleep(PAUSE).await;
    }
}
