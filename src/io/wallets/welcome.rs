//! What happens before the first line: the PROXY header, the TLS handshake, the websocket's.
//!
//! All in the connection's own task, so nobody waits for another's handshake, and each within its time.

use std::io;
use std::net::{SocketAddr, TcpStream as StdTcpStream};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tracing::debug;

use super::Shared;
use super::accounts::Account;
use super::sessions::Seat;
use super::talk::Talk;
use super::websocket::{self, WebSocket};
use super::wire::{Lines, Wire};
use crate::electrum::transport::{Proxied, ProxyHeader, Transport};

/// A balancer sends its header at once.
const PROXY_WITHIN: Duration = Duration::from_secs(5);
/// For a wallet behind Tor that is slow, and no longer.
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(10);

/// One connection from its first byte to its last, or until the thread that serves it ends.
pub async fn attend(shared: Shared, seat: Seat, stream: StdTcpStream) {
    let why = tokio::select! {
        why = serve(&shared, &seat, stream) => why.unwrap_or_else(|error| error.to_string()),
        () = seat.unwanted() => "disconnected by the operator".into(),
    };
    debug!(session = seat.id().0, wallet = %seat.origin(), %why, "session closed");
}

/// Why it ended well, or ill.
async fn serve(shared: &Shared, seat: &Seat, stream: StdTcpStream) -> io::Result<String> {
    let mut stream = TcpStream::from_std(stream)?;
    // An answer is written as a whole: nothing is won by waiting for more.
    stream.set_nodelay(true)?;
    if let Some(address) = seat.origin().address.filter(|address| shared.is_proxy(address.ip())) {
        let header = Box::pin(read_proxy_header(&mut stream, address));
        let wallet = within(PROXY_WITHIN, "PROXY header", header).await?;
        seat.learn(|known| known.origin.address = Some(wallet));
    }
    // Before the handshakes, which cost too.
    let address = seat.origin().address.map(|address| address.ip());
    let Some(account) = shared.accounts.open(seat.id(), address, shared.clock.now().instant) else {
        return Ok("its subnet has as many sessions as it may".into());
    };
    match seat.origin().transport {
        Transport::Tcp => talk(shared, seat, account, Box::new(Lines::new(stream))).await,
        Transport::Ssl => {
            let handshake = async { shared.tls()?.accept(stream).await };
            let stream = within(HANDSHAKE_WITHIN, "TLS handshake", Box::pin(handshake)).await?;
            talk(shared, seat, account, Box::new(Lines::new(stream))).await
        }
        Transport::Ws => {
            let handshake = Box::pin(upgrade(shared, stream));
            let socket = within(HANDSHAKE_WITHIN, "websocket handshake", handshake).await?;
            talk(shared, seat, account, Box::new(socket)).await
        }
        Transport::Wss => {
            let handshakes = async { upgrade(shared, shared.tls()?.accept(stream).await?).await };
            let socket =
                within(HANDSHAKE_WITHIN, "TLS and websocket handshake", Box::pin(handshakes)).await?;
            talk(shared, seat, account, Box::new(socket)).await
        }
        Transport::Rpc => Err(io::ErrorKind::Unsupported.into()),
    }
}

/// In a box of its own: a task is as large as the largest that it may ever do, for all its life.
async fn talk(
    shared: &Shared,
    seat: &Seat,
    account: Account,
    mut wire: Box<impl Wire>,
) -> io::Result<String> {
    let mut talk = Box::new(Talk::new(shared, seat, account));
    Ok(Box::pin(talk.run(&mut *wire)).await)
}

async fn upgrade<S>(shared: &Shared, stream: S) -> io::Result<WebSocket<S>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let max_request_bytes = shared.server.limits.request_bytes;
    websocket::accept(stream, max_request_bytes).await.map_err(io::Error::other)
}

/// Whom the header names; the socket's own address where it names nobody.
async fn read_proxy_header(stream: &mut TcpStream, address: SocketAddr) -> io::Result<SocketAddr> {
    let mut header = ProxyHeader::default();
    let mut space = [0; 512];
    loop {
        // Not a byte more: what follows is the wallet's.
        let wanted = header.missing().min(space.len());
        let count = stream.read(&mut space[..wanted]).await?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        match header.push(&space[..count]).map_err(io::Error::other)? {
            Some(Proxied::From(wallet)) => return Ok(wallet),
            Some(Proxied::Local) => return Ok(address),
            None => {}
        }
    }
}

async fn within<T>(limit: Duration, what: &str, work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    let failed = |why: String| io::Error::other(format!("{what}: {why}"));
    match timeout(limit, work).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(error)) => Err(failed(error.to_string())),
        Err(_) => Err(failed(format!("not within {} s", limit.as_secs()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a future takes while it waits.
    fn bytes_of<A, B, C, F: Future>(_: impl FnOnce(A, B, C) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn a_connection_is_small() {
        let task = bytes_of(attend);
        assert!(task <= 2048, "{task} bytes");
    }
}
