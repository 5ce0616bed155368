//! Where wallets and the operator are served, and what others are told of it.
//!
//! `PROTOCOL://HOST:PORT` as in ElectrumX's `SERVICES` and `REPORT_SERVICES`, with its defaults for what is left
//! out. Nothing is resolved here: a service is an address of this machine.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use bitcoin::Network;

use crate::electrum::Subnet;
use crate::electrum::transport::Transport;

/// All that is said about serving.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Services {
    /// Where to listen.
    pub listen: Vec<Service>,
    /// What wallets and other servers are told.
    pub report: Vec<Reported>,
    /// `None`: a self-signed pair in the data folder.
    pub certificate: Option<CertificateFiles>,
    /// Connections from here begin with a PROXY header.
    pub proxies: Vec<Subnet>,
    /// At so many sessions the listeners close.
    pub max_sessions: usize,
}

impl Services {
    /// What is reported, as `server.features` has it: for each host its ports by name (`ssl_port`).
    pub fn reported_hosts(&self) -> BTreeMap<String, BTreeMap<String, u16>> {
        let mut hosts: BTreeMap<String, BTreeMap<String, u16>> = BTreeMap::new();
        for Reported { transport, host, port } in &self.report {
            hosts.entry(host.clone()).or_default().insert(format!("{transport}_port"), *port);
        }
        hosts
    }
}

/// The operator's own certificate, PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The certificate, and those that lead to the root, in this order.
    pub certificates: PathBuf,
    pub key: PathBuf,
}

/// One listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    pub transport: Transport,
    pub at: Place,
}

/// Where a service can be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    Tcp(Interface, u16),
    /// For the operator alone.
    Unix(PathBuf),
}

/// Addresses of this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interface {
    All,
    Localhost,
    One(IpAddr),
}

impl Interface {
    /// The addresses to bind. Only the first must be there: a machine may be without IPv6.
    pub fn addresses(self) -> Vec<IpAddr> {
        match self {
            Self::All => vec![Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()],
            Self::Localhost => vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()],
            Self::One(address) => vec![address],
        }
    }

    /// Where a program on this machine finds what was bound there.
    pub fn addresses_to_dial(self) -> Vec<IpAddr> {
        match self {
            Self::All | Self::Localhost => Self::Localhost.addresses(),
            Self::One(address) if address.is_unspecified() => Self::Localhost.addresses(),
            Self::One(address) => vec![address],
        }
    }

    /// Whether only programs on this machine can connect.
    pub fn is_local(self) -> bool {
        match self {
            Self::All => false,
            Self::Localhost => true,
            Self::One(address) => address.is_loopback(),
        }
    }
}

/// A service as others reach it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reported {
    pub transport: Transport,
    pub host: String,
    pub port: u16,
}

/// The port of plain TCP on each network; those of ssl, ws and wss follow it.
const FIRST_PORTS: [(Network, u16); 5] = [
    (Network::Bitcoin, 50001),
    (Network::Testnet, 60001),
    (Network::Testnet4, 60001),
    (Network::Signet, 60001),
    (Network::Regtest, 60401),
];
const RPC_PORT: u16 = 8000;
const PROTOCOLS: &str = "tcp://, ssl://, ws://, wss:// or rpc://";

/// The port of a service that names none.
pub(super) fn default_port(network: Network, transport: Transport) -> u16 {
    let first =
        FIRST_PORTS.iter().find(|(candidate, _)| *candidate == network).map_or(50001, |entry| entry.1);
    match transport {
        Transport::Tcp => first,
        Transport::Ssl => first + 1,
        Transport::Ws => first + 2,
        Transport::Wss => first + 3,
        Transport::Rpc => RPC_PORT,
    }
}

impl Service {
    /// What is served when nothing is asked for: TCP on this machine alone.
    pub fn default_for(network: Network) -> Self {
        let at =
            Place::Tcp(Interface::One(Ipv4Addr::LOCALHOST.into()), default_port(network, Transport::Tcp));
        Self { transport: Transport::Tcp, at }
    }

    /// Where the operator's service is when nobody says.
    pub(super) fn default_rpc() -> Self {
        Self { transport: Transport::Rpc, at: Place::Tcp(Interface::Localhost, RPC_PORT) }
    }
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://", self.transport)?;
        match &self.at {
            Place::Unix(path) => write!(f, "{}", path.display()),
            Place::Tcp(interface, port) => {
                match interface {
                    Interface::All => {}
                    Interface::Localhost => f.write_str("localhost")?,
                    Interface::One(IpAddr::V4(address)) => write!(f, "{address}")?,
                    Interface::One(IpAddr::V6(address)) => write!(f, "[{address}]")?,
                }
                write!(f, ":{port}")
            }
        }
    }
}

impl fmt::Display for Reported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { transport, host, port } = self;
        match host.contains(':') {
            true => write!(f, "{transport}://[{host}]:{port}"),
            false => write!(f, "{transport}://{host}:{port}"),
        }
    }
}

/// `PROTOCOL://HOST:PORT`; without a host all of this machine's addresses, but localhost for rpc. `rpc:///PATH` is
/// a Unix socket.
pub(super) fn service(text: &str, network: Network) -> Result<Service, String> {
    let (transport, rest) = protocol(text)?;
    if rest.starts_with('/') {
        return match transport {
            Transport::Rpc => Ok(Service { transport, at: Place::Unix(rest.into()) }),
            _ => Err("is a Unix socket, which only rpc can be: rpc:///run/peerdex.sock".into()),
        };
    }
    let example = example(network, transport);
    let (host, port) = host_and_port(rest, &example)?;
    let interface = match host {
        "" if transport == Transport::Rpc => Interface::Localhost,
        "" => Interface::All,
        "localhost" => Interface::Localhost,
        host => host.parse().map(Interface::One).map_err(|_| {
            format!(
                "names no address of this machine: give its IP address (IPv6 in brackets), localhost, or \
                 nothing for all it has, for example {example}"
            )
        })?,
    };
    let port = port.unwrap_or_else(|| default_port(network, transport));
    Ok(Service { transport, at: Place::Tcp(interface, port) })
}

/// The operator's service, with or without `rpc://` before it: `localhost:8000`, `/run/peerdex.sock`, a port alone.
pub(super) fn rpc(text: &str, network: Network) -> Result<Service, String> {
    let text = match text.contains("://") {
        true => text.to_string(),
        false if text.parse::<u16>().is_ok() => format!("rpc://:{text}"),
        false => format!("rpc://{text}"),
    };
    let service = service(&text, network)?;
    match service.transport {
        Transport::Rpc => Ok(service),
        _ => Err("is a service for wallets: give rpc://HOST:PORT or rpc:///PATH".into()),
    }
}

/// `PROTOCOL://HOST:PORT` as somebody far away can use it.
pub(super) fn reported(text: &str, network: Network) -> Result<Reported, String> {
    let (transport, rest) = protocol(text)?;
    if transport == Transport::Rpc {
        return Err("is the operator's own service: nobody else is told of it".into());
    }
    let example = format!("{transport}://electrum.example.org:{}", default_port(network, transport));
    let (host, port) = host_and_port(rest, &example)?;
    let port = port.unwrap_or_else(|| default_port(network, transport));
    let host = host.to_ascii_lowercase();
    let is_reachable = match host.parse::<IpAddr>() {
        Ok(address) => is_public(address),
        Err(_) => is_name(&host) && host != "localhost" && !host.ends_with(".localhost"),
    };
    match is_reachable {
        true => Ok(Reported { transport, host, port }),
        false => Err(format!(
            "is nothing that others can reach: give the name, the .onion or the public address of this server, \
             for example {example}"
        )),
    }
}

/// The protocol, and what stands behind `://`.
fn protocol(text: &str) -> Result<(Transport, &str), String> {
    let found = text.split_once("://").and_then(|(name, rest)| {
        let transport = Transport::ALL.into_iter().find(|transport| transport.name() == name)?;
        Some((transport, rest))
    });
    found.ok_or_else(|| format!("is no service: begin with {PROTOCOLS}, for example tcp://127.0.0.1:50001"))
}

fn example(network: Network, transport: Transport) -> String {
    format!("{transport}://127.0.0.1:{}", default_port(network, transport))
}

/// Cuts at the colon; an IPv6 address loses its brackets.
fn host_and_port<'a>(text: &'a str, example: &str) -> Result<(&'a str, Option<u16>), String> {
    let brackets = || {
        format!(
            "has an IPv6 address without brackets around it, or half of them: [::1], for example {example}"
        )
    };
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, rest) = rest.split_once(']').ok_or_else(brackets)?;
            if host.parse::<Ipv6Addr>().is_err() || !(rest.is_empty() || rest.starts_with(':')) {
                return Err(brackets());
            }
            (host, rest.strip_prefix(':'))
        }
        None if text.matches(':').count() > 1 => return Err(brackets()),
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    let port = port.map(|port| match port.parse() {
        Ok(port) if port > 0 => Ok(port),
        Ok(_) | Err(_) => Err(format!("has no port from 1 to 65535, for example {example}")),
    });
    Ok((host, port.transpose()?))
}

/// Whether strangers can reach it.
fn is_public(address: IpAddr) -> bool {
    let special = match address.to_canonical() {
        IpAddr::V4(address) => {
            // 100.64.0.0/10 is between a provider and its customers (RFC 6598).
            let is_shared = address.octets()[0] == 100 && address.octets()[1] & 0xc0 == 64;
            address.is_private() || address.is_link_local() || address.is_broadcast() || is_shared
        }
        IpAddr::V6(address) => address.is_unique_local() || address.is_unicast_link_local(),
    };
    !(special || address.is_loopback() || address.is_unspecified() || address.is_multicast())
}

/// Labels of letters, digits and hyphens (RFC 1123). What is all digits and dots is a broken address.
fn is_name(host: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    host.len() <= 253 && host.split('.').all(is_label) && host.bytes().any(|byte| byte.is_ascii_alphabetic())
}

#[cfg(test)]
#[path = "services_tests.rs"]
mod tests;
