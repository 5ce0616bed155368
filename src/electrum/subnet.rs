//! Addresses in a row: `10.0.0.0/8`, `2001:db8::/32`, or one address alone.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::fmt;
use std::str::FromStr;

/// All addresses that begin with the same bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Subnet {
    /// The bits behind the prefix are zero.
    address: IpAddr,
    prefix: u32,
}

impl Subnet {
    /// The one of an address, by its first `v4` or `v6` bits; an IPv4 address that is written as IPv6 counts as what it
    /// is.
    pub fn of(address: IpAddr, v4: u8, v6: u8) -> Self {
        let address = address.to_canonical();
        let (number, width) = bits(address);
        let prefix = u32::from(if address.is_ipv4() { v4 } else { v6 }).min(width);
        let first = masked(number, prefix, width);
        let address = match address {
            IpAddr::V4(_) => Ipv4Addr::from_bits(first as u32).into(),
            IpAddr::V6(_) => Ipv6Addr::from_bits(first).into(),
        };
        Self { address, prefix }
    }

    /// Whether the address is one of them; an IPv4 address that is written as IPv6 counts as what it is.
    pub fn contains(&self, address: IpAddr) -> bool {
        let (address, width) = bits(address.to_canonical());
        let (ours, our_width) = bits(self.address);
        width == our_width && masked(address, self.prefix, width) == ours
    }
}

/// The address as a number, and how many bits that has.
fn bits(address: IpAddr) -> (u128, u32) {
    match address {
        IpAddr::V4(address) => (u128::from(address.to_bits()), 32),
        IpAddr::V6(address) => (address.to_bits(), 128),
    }
}

fn masked(bits: u128, prefix: u32, width: u32) -> u128 {
    let behind = width - prefix;
    // All 128 bits cannot be shifted out at once.
    bits.checked_shr(behind).map_or(0, |kept| kept << behind)
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl FromStr for Subnet {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            || "is no address or subnet: give for example 127.0.0.1, 10.0.0.0/8 or fd00::/8".to_string();
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let (number, width) = bits(address);
        let prefix: u32 = prefix.map_or(Ok(width), str::parse).map_err(|_| wrong())?;
        if prefix > width {
            return Err(wrong());
        }
        if masked(number, prefix, width) != number {
            return Err(format!("has bits behind its first {prefix}: give the first address of the subnet"));
        }
        Ok(Self { address, prefix })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subnet_holds_what_begins_like_it() {
        for (net, inside, outside) in [
            ("10.0.0.0/8", &["10.0.0.0", "10.255.255.255", "::ffff:10.1.2.3"][..], &["11.0.0.0", "::1"][..]),
            ("127.0.0.1", &["127.0.0.1"], &["127.0.0.2", "::1"]),
            ("0.0.0.0/0", &["1.2.3.4"], &["::"]),
            ("::/0", &["::1", "2001:db8::"], &["1.2.3.4"]),
            ("fd00::/8", &["fd12::1"], &["fe00::"]),
            ("192.0.2.128/25", &["192.0.2.128"], &["192.0.2.127"]),
        ] {
            let subnet: Subnet = net.parse().unwrap();
            assert!(inside.iter().all(|ip| subnet.contains(ip.parse().unwrap())), "{net}");
            assert!(!outside.iter().any(|ip| subnet.contains(ip.parse().unwrap())), "{net}");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["", "localhost", "10.0.0.0/33", "::/129", "10.0.0.0/", "10.0.0.0/-1", "10.0.0/8", "/8"] {
            assert!(text.parse::<Subnet>().unwrap_err().contains("10.0.0.0/8"), "{text}");
        }
        assert!("10.0.0.1/8".parse::<Subnet>().unwrap_err().contains("first address"));
        assert_eq!("10.0.0.0/8".parse::<Subnet>().unwrap().to_string(), "10.0.0.0/8");
    }

    #[test]
    fn an_address_is_in_its_own_subnet() {
        for (address, subnet) in [
            ("192.0.2.129", "192.0.2.0/24"),
            ("::ffff:192.0.2.129", "192.0.2.0/24"),
            ("2001:db8:1:2::3", "2001:db8:1::/48"),
        ] {
            let of = Subnet::of(address.parse().unwrap(), 24, 48);
            assert_eq!(of.to_string(), subnet);
            assert!(of.contains(address.parse().unwrap()));
        }
        assert_eq!(Subnet::of("1.2.3.4".parse().unwrap(), 200, 0).to_string(), "1.2.3.4/32");
        assert_eq!(Subnet::of("fd00::1".parse().unwrap(), 0, 0).to_string(), "::/0");
    }
}
