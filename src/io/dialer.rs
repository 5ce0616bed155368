//! The only code that resolves names and opens connections outward.
//!
//! `.clippy.toml` forbids the calls below anywhere else, so that no later line can leak a name or an address past the
//! proxy. With a proxy nothing is dialled without it but what it could not reach: addresses of this machine and of the
//! networks around it. Names are resolved by the proxy; when it is down there is no way around it.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bitcoin::hex::DisplayHex as _;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;
use tokio_socks::tcp::Socks5Stream;
use tokio_socks::{Error as SocksError, TargetAddr};

use crate::config::HostPort;
use crate::peer::{Address, Host};

/// Resolving and connecting together; the handshake has its own deadline (Core: `DEFAULT_CONNECT_TIMEOUT`, and
/// room for slow name servers).
const DIAL_TIMEOUT: Duration = Duration::from_secs(10);
/// For all that is said with the proxy, which answers when it has reached the target (Core: `g_socks5_recv_timeout`).
const SOCKS_TIMEOUT: Duration = Duration::from_secs(20);
/// Random bytes in the names under which connections are made (Core: TorStreamIsolationCredentialsGenerator).
const PREFIX_BYTES: usize = 8;

/// Why a connection through the proxy was not made.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// The proxy is not there, or says what no proxy says.
    #[error("the proxy: {0}")]
    Proxy(io::Error),
    /// The proxy could not reach the target.
    #[error("{0}")]
    Target(String),
}

/// Makes connections, through the proxy where there is one.
#[derive(Clone, Debug)]
pub struct Dialer(Option<Arc<Proxy>>);

#[derive(Debug)]
struct Proxy {
    at: HostPort,
    prefix: String,
    connections: AtomicU64,
}

impl Dialer {
    pub fn new(proxy: Option<HostPort>) -> io::Result<Self> {
        let Some(at) = proxy else { return Ok(Self(None)) };
        let mut prefix = [0; PREFIX_BYTES];
        getrandom::fill(&mut prefix).map_err(|error| io::Error::other(error.to_string()))?;
        let prefix = prefix.to_lower_hex_string();
        Ok(Self(Some(Arc::new(Proxy { at, prefix, connections: AtomicU64::new(0) }))))
    }

    /// Whether it is dialled through the proxy.
    pub fn is_proxied(&self, target: &HostPort) -> bool {
        self.0.is_some() && !is_near(&target.host)
    }

    /// Opens a TCP connection to `target`, trying each of its addresses in turn.
    ///
    /// Fails with what the last address answered, with `TimedOut` after ten seconds (twenty through the proxy), and
    /// with `NotFound` where the name has no address.
    pub async fn dial(&self, target: &HostPort) -> io::Result<TcpStream> {
        match &self.0 {
            Some(proxy) if self.is_proxied(target) => {
                proxy.dial(&target.host, target.port).await.map_err(io::Error::other)
            }
            Some(_) | None => dial_directly(target).await,
        }
    }

    /// The same through the proxy in any case; nothing is dialled where there is none.
    pub async fn dial_stranger(&self, target: &Address) -> Result<TcpStream, ProxyError> {
        let Some(proxy) = &self.0 else {
            return Err(ProxyError::Proxy(io::Error::new(io::ErrorKind::Unsupported, "there is none")));
        };
        proxy.dial(&target.host.to_string(), target.port).await
    }
}

impl Proxy {
    /// Each connection has a name of its own, so that Tor makes each over a circuit of its own.
    async fn dial(&self, host: &str, port: u16) -> Result<TcpStream, ProxyError> {
        let number = self.connections.fetch_add(1, Ordering::Relaxed);
        let name = format!("{}-{number}", self.prefix);
        let proxy = dial_directly(&self.at).await.map_err(ProxyError::Proxy)?;
        // Always as a name, numbers too, as Core does: it is the proxy that reads it.
        let target = TargetAddr::Domain(host.into(), port);
        let dialogue = Socks5Stream::connect_with_password_and_socket(proxy, target, &name, &name);
        let late = || ProxyError::Target("no answer through the proxy within 20 s".into());
        let stream = timeout(SOCKS_TIMEOUT, dialogue).await.map_err(|_| late())?;
        Ok(stream.map_err(of_socks)?.into_inner())
    }
}

fn of_socks(error: SocksError) -> ProxyError {
    match error {
        SocksError::GeneralSocksServerFailure
        | SocksError::NetworkUnreachable
        | SocksError::HostUnreachable
        | SocksError::ConnectionRefused
        | SocksError::TtlExpired => ProxyError::Target(error.to_string()),
        // So the library calls all codes that it does not know; Tor has its own for what goes wrong with onion
        // services.
        SocksError::UnknownAuthMethod => {
            ProxyError::Target("the proxy could not reach it, for a reason of its own".into())
        }
        SocksError::Io(error) => ProxyError::Proxy(error),
        other => ProxyError::Proxy(io::Error::other(other.to_string())),
    }
}

/// Whether it is a number of this machine, or of a network that nobody outside can reach. No other name is looked up.
fn is_near(host: &str) -> bool {
    match host.parse() {
        Ok(IpAddr::V4(address)) => !Host::V4(address).is_routable(),
        Ok(IpAddr::V6(address)) => !Host::V6(address).is_routable(),
        Err(_) => host.eq_ignore_ascii_case("localhost"),
    }
}

#[expect(clippy::disallowed_methods, reason = "this is the dialer")]
async fn dial_directly(target: &HostPort) -> io::Result<TcpStream> {
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

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    #[test]
    fn only_what_is_near_is_dialled_without_the_proxy() {
        for (host, expected) in [
            ("127.0.0.1", true),
            ("10.1.2.3", true),
            ("192.168.1.1", true),
            ("::1", true),
            ("fd00::1", true),
            ("localhost", true),
            ("1.2.3.4", false),
            ("2a00::1", false),
            ("node.local", false),
            ("example.org", false),
            ("25njqamcweflpvkl73j4szahhihoc4xt3ktcgjnpaingr5yhkenl5sid.onion", false),
        ] {
            assert_eq!(is_near(host), expected, "{host}");
        }
    }

    /// The listener of a test, and where it is.
    async fn listener() -> (TcpListener, HostPort) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        (listener, HostPort { host: "127.0.0.1".into(), port })
    }

    /// Test 57.
    #[tokio::test]
    async fn when_the_proxy_is_down_nothing_goes_past_it() {
        let (gone, proxy) = listener().await;
        drop(gone);
        let dialer = Dialer::new(Some(proxy)).unwrap();
        for host in ["1.2.3.4", "example.org", "a.onion"] {
            let error = dialer.dial(&HostPort { host: host.into(), port: 8333 }).await.unwrap_err();
            assert!(error.to_string().starts_with("the proxy: "), "{error}");
        }
        let (_near, target) = listener().await;
        assert!(dialer.dial(&target).await.is_ok());
    }

    /// Test 59: but for the random part of the name the proxy is told what Bitcoin Core told it, byte for byte.
    #[tokio::test]
    async fn what_is_said_to_the_proxy_is_what_bitcoin_core_said() {
        let recorded = include_str!("../../fixtures/p2p/private-broadcast.txt");
        let steps = recorded.lines().filter_map(|line| line.strip_prefix("socks "));
        let steps: Vec<Vec<u8>> =
            steps.map(|hex| bitcoin::hex::FromHex::from_hex(hex).unwrap()).take(6).collect();
        let (proxy, at) = listener().await;
        let dialer = Dialer::new(Some(at)).unwrap();
        for [greeting, name, request] in steps.as_chunks::<3>().0 {
            let host = std::str::from_utf8(&request[5..request.len() - 2]).unwrap();
            let target = Address { host: host.parse().unwrap(), port: 18444 };
            let dialer = dialer.clone();
            let dial = tokio::spawn(async move { dialer.dial_stranger(&target).await.map(drop) });
            let (mut client, _) = proxy.accept().await.unwrap();
            let mut heard = Vec::new();
            for (expected, answer) in
                [(greeting, &[5, 2][..]), (name, &[1, 0]), (request, &[5, 0, 0, 1, 0, 0, 0, 0, 0, 0])]
            {
                let mut said = vec![0; expected.len()];
                client.read_exact(&mut said).await.unwrap();
                client.write_all(answer).await.unwrap();
                heard.push(said);
            }
            let prefix = String::from_utf8(heard[1][2..18].to_vec()).unwrap();
            assert!(u64::from_str_radix(&prefix, 16).is_ok() && prefix.as_bytes() != &name[2..18]);
            for at in [2, 21] {
                heard[1][at..at + 16].copy_from_slice(&name[2..18]);
            }
            assert_eq!(heard, [greeting.clone(), name.clone(), request.clone()]);
            dial.await.unwrap().unwrap();
        }
    }

    /// A proxy's own words for what it could not reach say nothing against the proxy.
    #[tokio::test]
    async fn who_cannot_be_reached_is_told_from_a_proxy_that_is_none() {
        for (answer, by_proxy) in [
            (&b"\x05\x02\x01\x00\x05\xf0\x00\x01\0\0\0\0\0\0"[..], false),
            (b"\x05\x02\x01\x00\x05\x05\x00\x01\0\0\0\0\0\0", false),
            (b"\x05\x02\x01\x01", true),
            (b"\x05\xff", true),
            (b"HTTP/1.1 400 Bad Request", true),
            (b"", true),
        ] {
            let (proxy, at) = listener().await;
            let dialer = Dialer::new(Some(at)).unwrap();
            let target = Address { host: Host::Onion([7; 32]), port: 8333 };
            let dial = tokio::spawn(async move { dialer.dial_stranger(&target).await.map(drop) });
            let (mut client, _) = proxy.accept().await.unwrap();
            client.write_all(answer).await.unwrap();
            client.shutdown().await.unwrap();
            // Who hangs up on what is left to read resets the connection.
            let _ = client.read_to_end(&mut Vec::new()).await;
            let error = dial.await.unwrap().unwrap_err();
            assert_eq!(matches!(error, ProxyError::Proxy(_)), by_proxy, "{error}: {answer:?}");
        }
    }

    #[tokio::test]
    async fn without_a_proxy_no_stranger_is_dialled() {
        let dialer = Dialer::new(None).unwrap();
        let stranger = Address { host: Host::V4([127, 0, 0, 1].into()), port: 9 };
        assert!(matches!(dialer.dial_stranger(&stranger).await, Err(ProxyError::Proxy(_))));
    }
}
