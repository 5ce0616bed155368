//! Where other peers are said to be: the entries of `addr` and `addrv2`.
//!
//! ```text
//! addr    | count, each: time 4 | services 8 | address 16 | port 2 BE |
//! addrv2  | count, each: time 4 | services compact | network 1 | length, address | port 2 BE |
//! ```
//! What nothing here can reach is passed over, and what stands where it does not belong (IPv4 within IPv6). Whether a
//! word about an address is believed, `addresses` decides.
//! Source: BIP155; Bitcoin Core `netaddress.cpp` (SetNetFromBIP155Network, IsRoutable, OnionToString).

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::fmt;
use std::str::FromStr;

use bitcoin::p2p::ServiceFlags;
use data_encoding::BASE32_NOPAD;
use sha3::{Digest, Sha3_256};

use super::codec::{Reader, put_compact_size};
use super::message::{Fault, read_count};

/// Entries of one message (Core: MAX_ADDR_TO_SEND).
pub(super) const MAX_ADDRESSES: usize = 1_000;
/// Bytes of an entry of `addr`.
const ENTRY_LEN: usize = 4 + 8 + 16 + 2;
/// The least that an entry of `addrv2` takes: an address of no bytes.
const LEAST_ENTRY_LEN: usize = 4 + 1 + 1 + 1 + 2;
/// Bytes of the longest address that may be announced (BIP155).
const MAX_ADDRESS_LEN: usize = 512;

/// Networks by their number, with the bytes of an address there (BIP155).
const IPV4: (u8, usize) = (1, 4);
const IPV6: (u8, usize) = (2, 16);
const TOR_V3: (u8, usize) = (4, 32);
const I2P: (u8, usize) = (5, 32);
const CJDNS: (u8, usize) = (6, 16);

/// What Core and Tor version 2 were written as within IPv6.
const INTERNAL_PREFIX: [u8; 6] = [0xfd, 0x6b, 0x88, 0xc0, 0x87, 0x24];
const TOR_V2_PREFIX: [u8; 6] = [0xfd, 0x87, 0xd8, 0x7e, 0xeb, 0x43];
/// The version of onion services, the last byte of their names.
const ONION_VERSION: u8 = 3;
const ONION: &str = ".onion";

/// A machine that a proxy of Tor can reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Host {
    V4(Ipv4Addr),
    V6(Ipv6Addr),
    /// The public key of an onion service.
    Onion([u8; 32]),
}

impl Host {
    /// Whether strangers can reach it (Core: IsRoutable).
    pub fn is_routable(&self) -> bool {
        match self {
            Self::V4(address) => {
                let [a, b, ..] = address.octets();
                let is_shared = a == 100 && b & 0xc0 == 64;
                let is_for_benches = a == 198 && b & 0xfe == 18;
                !(a == 0
                    || is_shared
                    || is_for_benches
                    || address.is_loopback()
                    || address.is_private()
                    || address.is_link_local()
                    || address.is_documentation()
                    || address.is_broadcast())
            }
            Self::V6(address) => {
                let [a, b, c, d, ..] = address.segments();
                let is_unique_local = a & 0xfe00 == 0xfc00;
                let is_link_local = (a, b, c, d) == (0xfe80, 0, 0, 0);
                let is_documentation = (a, b) == (0x2001, 0x0db8);
                let is_orchid = a == 0x2001 && matches!(b & 0xfff0, 0x0010 | 0x0020);
                !(address.is_unspecified()
                    || address.is_loopback()
                    || is_unique_local
                    || is_link_local
                    || is_documentation
                    || is_orchid)
            }
            Self::Onion(_) => true,
        }
    }

    pub fn is_onion(&self) -> bool {
        matches!(self, Self::Onion(_))
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::V4(address) => address.fmt(f),
            Self::V6(address) => address.fmt(f),
            Self::Onion(key) => {
                let name = [&key[..], &onion_checksum(key), &[ONION_VERSION]].concat();
                write!(f, "{}{ONION}", BASE32_NOPAD.encode(&name).to_ascii_lowercase())
            }
        }
    }
}

/// A text that is no address, or the name of an onion service with an error in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("neither an IP address nor the name of an onion service")]
pub struct NoHost;

impl FromStr for Host {
    type Err = NoHost;

    /// What `Display` writes.
    fn from_str(text: &str) -> Result<Self, NoHost> {
        let Some(name) = text.strip_suffix(ONION) else {
            return match text.parse().map_err(|_| NoHost)? {
                IpAddr::V4(address) => Ok(Self::V4(address)),
                IpAddr::V6(address) => Ok(Self::V6(address)),
            };
        };
        let bytes = BASE32_NOPAD.decode(name.to_ascii_uppercase().as_bytes()).map_err(|_| NoHost)?;
        let (key, rest) = bytes.split_first_chunk::<32>().ok_or(NoHost)?;
        let [first, second] = onion_checksum(key);
        if rest == [first, second, ONION_VERSION] { Ok(Self::Onion(*key)) } else { Err(NoHost) }
    }
}

fn onion_checksum(key: &[u8; 32]) -> [u8; 2] {
    let mut hasher = Sha3_256::new();
    hasher.update(b".onion checksum");
    hasher.update(key);
    hasher.update([ONION_VERSION]);
    let [first, second, ..]: [u8; 32] = hasher.finalize().into();
    [first, second]
}

/// Where a peer listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    pub host: Host,
    pub port: u16,
}

/// What a peer says of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gossip {
    /// When it was last seen, it is said: Unix time in seconds.
    pub time: u32,
    pub services: ServiceFlags,
    pub address: Address,
}

/// The entries of an `addr`.
pub(super) fn read_addr(reader: &mut Reader) -> Result<Vec<Gossip>, Fault> {
    let count = read_count("addr", MAX_ADDRESSES, ENTRY_LEN, reader)?;
    let mut entries = Vec::with_capacity(count);
    for _ in 0..count {
        let time = reader.u32()?;
        let services = ServiceFlags::from(reader.u64()?);
        let address = Ipv6Addr::from(reader.array::<16>()?);
        let port = u16::from_be_bytes(reader.array()?);
        let host = match address.to_ipv4_mapped() {
            Some(address) => Some(Host::V4(address)),
            None => v6(address),
        };
        entries.extend(host.map(|host| Gossip { time, services, address: Address { host, port } }));
    }
    Ok(entries)
}

/// The entries of an `addrv2`. As in Core a known network with an address of a wrong length spoils the message.
pub(super) fn read_addr_v2(reader: &mut Reader) -> Result<Vec<Gossip>, Fault> {
    let count = read_count("addrv2", MAX_ADDRESSES, LEAST_ENTRY_LEN, reader)?;
    let mut entries = Vec::with_capacity(count);
    for _ in 0..count {
        let time = reader.u32()?;
        let services = ServiceFlags::from(reader.compact_u64()?);
        let network = reader.u8()?;
        let len = reader.compact_size()?;
        if len > MAX_ADDRESS_LEN {
            return Err("address over 512 bytes".into());
        }
        let bytes = reader.slice(len)?;
        let port = u16::from_be_bytes(reader.array()?);
        let known = [IPV4, IPV6, TOR_V3, I2P, CJDNS];
        if known.iter().any(|(number, expected)| *number == network && *expected != len) {
            return Err("address of a wrong length".into());
        }
        let host = match network {
            1 => <[u8; 4]>::try_from(bytes).ok().map(|bytes| Host::V4(bytes.into())),
            2 => <[u8; 16]>::try_from(bytes).ok().and_then(|bytes| v6(bytes.into())),
            4 => bytes.try_into().ok().map(Host::Onion),
            _ => None,
        };
        entries.extend(host.map(|host| Gossip { time, services, address: Address { host, port } }));
    }
    Ok(entries)
}

/// Appends the payload of an `addrv2`; we send none but in tests.
pub(super) fn write_addr_v2(out: &mut Vec<u8>, entries: &[Gossip]) {
    put_compact_size(out, entries.len());
    for Gossip { time, services, address } in entries {
        out.extend_from_slice(&time.to_le_bytes());
        put_compact_size(out, services.to_u64() as usize);
        let (network, bytes) = match &address.host {
            Host::V4(address) => (IPV4, address.octets().to_vec()),
            Host::V6(address) => (IPV6, address.octets().to_vec()),
            Host::Onion(key) => (TOR_V3, key.to_vec()),
        };
        out.push(network.0);
        put_compact_size(out, bytes.len());
        out.extend_from_slice(&bytes);
        out.extend_from_slice(&address.port.to_be_bytes());
    }
}

/// What is IPv6 and nothing else that was written so.
fn v6(address: Ipv6Addr) -> Option<Host> {
    let octets = address.octets();
    let is_other = address.to_ipv4_mapped().is_some()
        || octets.starts_with(&INTERNAL_PREFIX)
        || octets.starts_with(&TOR_V2_PREFIX);
    (!is_other).then_some(Host::V6(address))
}

#[cfg(test)]
mod tests;
