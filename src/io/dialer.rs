//! The only code that resolves names and opens connections outward.
//!
//! Proxies and peer discovery will come through here; `.clippy.toml` forbids the calls below anywhere else,
//! so that no later line can leak a name or an address past a proxy.

use std::io;
use std::time::Duration;

use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;

use crate::config::HostPort;

/// Resolving and connecting together; the handshake has its own deadline (Core: `DEFAULT_CONNECT_TIMEOUT`, and
/// room for slow name servers).
const DIAL_TIMEOUT: Duration = Duration::from_secs(10);

/// Opens a TCP connection to `target`, trying each of its addresses in turn.
///
/// Fails with what the last address answered, with `TimedOut` after ten seconds, and with `NotFound` where the
/// name has no address.
#[expect(clippy::disallowed_methods, reason = "this is the dialer")]
pub async fn dial(target: &HostPort) -> io::Result<TcpStream> {
    let attempt = async {
        let mut last = io::Error::new(io::ErrorKind::NotFound, format!("{} has no address", target.host));
        for address in lookup_host((target.host.as_str(), target.port)).await? {
            match TcpStream::connect(address).await {
                Ok(stream) => {
                    stream.set_nodelay(true)?;
                    return Ok(stream);
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    };
    timeout(DIAL_TIMEOUT, attempt)
        .await
        .unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, "no answer within 10 s")))
}
