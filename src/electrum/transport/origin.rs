//! Where a connection comes from: what limits and the operator know a wallet by before it has said anything.
//!
//! Addresses are `core`'s: values to compare and print, nothing here opens a socket.

use core::net::SocketAddr;
use std::fmt;

/// The other side of a connection, as it was accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The wallet's own address, also behind a proxy that tells it; `None` for a Unix socket.
    pub address: Option<SocketAddr>,
    pub transport: Transport,
}

/// What carries the lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Transport {
    Tcp,
    /// TLS over TCP; wallets and the protocol's documents say SSL.
    Ssl,
    /// Websocket.
    Ws,
    /// Websocket over TLS.
    Wss,
    /// The operator's own lines.
    Rpc,
}

impl Transport {
    pub const ALL: [Self; 5] = [Self::Tcp, Self::Ssl, Self::Ws, Self::Wss, Self::Rpc];

    /// The name as it stands in a service: `ssl` of `ssl://:50002`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Ssl => "ssl",
            Self::Ws => "ws",
            Self::Wss => "wss",
            Self::Rpc => "rpc",
        }
    }

    pub const fn is_encrypted(self) -> bool {
        matches!(self, Self::Ssl | Self::Wss)
    }

    pub const fn is_websocket(self) -> bool {
        matches!(self, Self::Ws | Self::Wss)
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// `203.0.113.7:4711 (ssl)`.
impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address {
            Some(address) => write!(f, "{address} ({})", self.transport),
            None => write!(f, "a local socket ({})", self.transport),
        }
    }
}
