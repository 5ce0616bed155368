//! The PROXY protocol: what a balancer says of the wallet before the wallet's own bytes.
//!
//! Versions 1 (a line of text) and 2 (binary). Asks for no byte behind the header, as that is the wallet's: perhaps
//! the start of a TLS handshake. Only to be used for connections from addresses that are trusted to tell the truth.
//! Source: haproxy, `doc/proxy-protocol.txt`.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The shortest header of either version is no shorter: `PROXY UNKNOWN` and a line's end.
const FIRST_BYTES: usize = 15;
const V1_START: &[u8] = b"PROXY ";
/// Line's end included.
const V1_MAX_BYTES: usize = 107;
const V2_START: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// The start, version and command, family and protocol, and the length of what follows.
const V2_HEADER_BYTES: usize = V2_START.len() + 4;
/// Behind its 16 bytes: addresses, and notes that nobody here reads. The largest in use are some hundred bytes.
const V2_MAX_BYTES: usize = 2048;

/// Who is behind the balancer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proxied {
    /// The wallet's own address.
    From(SocketAddr),
    /// Nobody: the balancer looks whether we are there, or does not know.
    Local,
}

/// What was sent is no PROXY header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProxyError {
    #[error("no PROXY header from an address whose connections begin with one")]
    Missing,
    #[error("a malformed PROXY header")]
    Malformed,
    #[error("a PROXY header that is too long")]
    TooLong,
}

/// A header on its way in.
///
/// Read [`missing`](Self::missing) bytes at most and give them to [`push`](Self::push), until that says who it is.
#[derive(Debug, Default)]
pub struct ProxyHeader {
    bytes: Vec<u8>,
}

impl ProxyHeader {
    /// So many bytes may be read without reading more than the header.
    pub fn missing(&self) -> usize {
        let have = self.bytes.len();
        if have < FIRST_BYTES {
            FIRST_BYTES - have
        } else if self.bytes.starts_with(V2_START) {
            let whole = V2_HEADER_BYTES + self.v2_length().unwrap_or(0);
            whole.saturating_sub(have)
        } else {
            1
        }
    }

    /// `None` until the header is whole.
    pub fn push(&mut self, bytes: &[u8]) -> Result<Option<Proxied>, ProxyError> {
        self.bytes.extend_from_slice(bytes);
        let begins_like = |start: &[u8]| self.bytes.iter().zip(start).all(|(a, b)| a == b);
        if begins_like(V2_START) {
            self.v2()
        } else if begins_like(V1_START) {
            self.v1()
        } else {
            Err(ProxyError::Missing)
        }
    }

    fn v1(&self) -> Result<Option<Proxied>, ProxyError> {
        match self.bytes.strip_suffix(b"\r\n") {
            Some(line) if self.bytes.len() <= V1_MAX_BYTES => v1_line(line).map(Some),
            None if self.bytes.len() < V1_MAX_BYTES => Ok(None),
            Some(_) | None => Err(ProxyError::TooLong),
        }
    }

    /// What the header says of its length, once it is there.
    fn v2_length(&self) -> Option<usize> {
        let length = self.bytes.get(V2_HEADER_BYTES - 2..V2_HEADER_BYTES)?;
        Some(usize::from(u16::from_be_bytes(length.try_into().ok()?)))
    }

    fn v2(&self) -> Result<Option<Proxied>, ProxyError> {
        let Some(length) = self.v2_length() else { return Ok(None) };
        if length > V2_MAX_BYTES {
            return Err(ProxyError::TooLong);
        }
        let Some(rest) = self.bytes.get(V2_HEADER_BYTES..V2_HEADER_BYTES + length) else { return Ok(None) };
        let (command, family) = (self.bytes[V2_START.len()], self.bytes[V2_START.len() + 1]);
        match (command, family) {
            (0x20, _) => Ok(Some(Proxied::Local)),
            (0x21, 0x11) => v2_addresses::<4>(rest).map(|(ip, port)| Some(from(Ipv4Addr::from(ip), port))),
            (0x21, 0x21) => v2_addresses::<16>(rest).map(|(ip, port)| Some(from(Ipv6Addr::from(ip), port))),
            // Unspecified, UDP, Unix sockets: nothing that a limit could count.
            (0x21, 0x00 | 0x12 | 0x22 | 0x31 | 0x32) => Ok(Some(Proxied::Local)),
            _ => Err(ProxyError::Malformed),
        }
    }
}

/// An IPv4 address is one, also where it is written as IPv6: limits must not take it for a stranger.
fn from(ip: impl Into<IpAddr>, port: u16) -> Proxied {
    Proxied::From(SocketAddr::new(ip.into().to_canonical(), port))
}

/// Source address, destination address, source port, destination port: the source of it.
fn v2_addresses<const N: usize>(bytes: &[u8]) -> Result<([u8; N], u16), ProxyError> {
    let field = |at: usize, length: usize| bytes.get(at..at + length).ok_or(ProxyError::Malformed);
    let ip = field(0, N)?.try_into().map_err(|_| ProxyError::Malformed)?;
    let port = field(2 * N, 2)?.try_into().map_err(|_| ProxyError::Malformed)?;
    field(2 * N + 2, 2)?;
    Ok((ip, u16::from_be_bytes(port)))
}

/// `PROXY TCP4 203.0.113.7 192.0.2.1 4711 50001`, or `PROXY UNKNOWN` and anything.
fn v1_line(line: &[u8]) -> Result<Proxied, ProxyError> {
    let text = str::from_utf8(line).map_err(|_| ProxyError::Malformed)?;
    if text.contains(['\r', '\n']) {
        return Err(ProxyError::Malformed);
    }
    let words: Vec<&str> = text.split(' ').collect();
    match words[..] {
        ["PROXY", "UNKNOWN", ..] => Ok(Proxied::Local),
        ["PROXY", family @ ("TCP4" | "TCP6"), source, target, source_port, target_port] => {
            let is_right = |ip: &IpAddr| ip.is_ipv4() == (family == "TCP4");
            let ip = |text: &str| text.parse().ok().filter(is_right).ok_or(ProxyError::Malformed);
            let (source, _) = (ip(source)?, ip(target)?);
            let (source_port, _) = (v1_port(source_port)?, v1_port(target_port)?);
            Ok(from(source, source_port))
        }
        _ => Err(ProxyError::Malformed),
    }
}

fn v1_port(text: &str) -> Result<u16, ProxyError> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|_| is_plain).ok_or(ProxyError::Malformed)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Reads from a stream in pieces of `piece` at most; what it says, and what is left for the wallet.
    fn read(stream: &[u8], piece: usize) -> (Result<Option<Proxied>, ProxyError>, &[u8]) {
        let (mut header, mut rest) = (ProxyHeader::default(), stream);
        loop {
            let count = header.missing().min(piece).min(rest.len());
            if count == 0 {
                return (Ok(None), rest);
            }
            let (taken, left) = rest.split_at(count);
            rest = left;
            match header.push(taken) {
                Ok(None) => {}
                done => return (done, rest),
            }
        }
    }

    fn v2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let length = (body.len() as u16).to_be_bytes();
        [V2_START, &[command, family], &length, body].concat()
    }

    fn says(header: &[u8]) -> Result<Option<Proxied>, ProxyError> {
        let stream = [header, b"\x16\x03\x01 the wallet's"].concat();
        let (said, rest) = read(&stream, usize::MAX);
        for piece in [1, 2, 7, 16] {
            assert_eq!(read(&stream, piece).0, said, "in pieces of {piece}");
        }
        if said.is_ok_and(|said| said.is_some()) {
            assert_eq!(rest, b"\x16\x03\x01 the wallet's", "{header:?}");
        }
        said
    }

    #[test]
    fn version_1_tells_the_address() {
        let who = |text: &str| Ok(Some(Proxied::From(text.parse().unwrap())));
        for (line, expected) in [
            ("PROXY TCP4 203.0.113.7 192.0.2.1 4711 50001\r\n", who("203.0.113.7:4711")),
            ("PROXY TCP6 2001:db8::7 2001:db8::1 0 65535\r\n", who("[2001:db8::7]:0")),
            ("PROXY TCP6 ::ffff:203.0.113.7 ::1 4711 1\r\n", who("203.0.113.7:4711")),
            ("PROXY UNKNOWN\r\n", Ok(Some(Proxied::Local))),
            ("PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n", Ok(Some(Proxied::Local))),
            ("PROXY TCP4 203.0.113.7 192.0.2.1 4711\r\n", Err(ProxyError::Malformed)),
            ("PROXY TCP4 203.0.113.7 192.0.2.1 4711 65536\r\n", Err(ProxyError::Malformed)),
            ("PROXY TCP4 203.0.113.7 192.0.2.1 04711 1\r\n", Err(ProxyError::Malformed)),
            ("PROXY TCP4 203.0.113.7 192.0.2.1 +1 1\r\n", Err(ProxyError::Malformed)),
            ("PROXY TCP4 2001:db8::7 2001:db8::1 1 1\r\n", Err(ProxyError::Malformed)),
            ("PROXY TCP4  203.0.113.7 192.0.2.1 4711 1\r\n", Err(ProxyError::Malformed)),
            ("PROXY UDP4 203.0.113.7 192.0.2.1 4711 1\r\n", Err(ProxyError::Malformed)),
            ("PROXY UNKNOWN x\ny\r\n", Err(ProxyError::Malformed)),
            ("PROXY \r\nTCP4 203.0.113.7\r\n", Err(ProxyError::Malformed)),
        ] {
            assert_eq!(says(line.as_bytes()), expected, "{line}");
        }
        let longest = |total: usize| format!("PROXY UNKNOWN {}\r\n", "x".repeat(total - 16)).into_bytes();
        assert_eq!(says(&longest(V1_MAX_BYTES)), Ok(Some(Proxied::Local)));
        assert_eq!(says(&longest(V1_MAX_BYTES + 1)), Err(ProxyError::TooLong));
    }

    #[test]
    fn version_2_tells_the_address() {
        let tcp4 = [203, 0, 113, 7, 192, 0, 2, 1, 0x12, 0x67, 0xc3, 0x51];
        let ip6: Ipv6Addr = "2001:db8::7".parse().unwrap();
        let tcp6 = [&ip6.octets()[..], &[0; 16], &[0x12, 0x67, 0xc3, 0x51]].concat();
        let who = |text: &str| Ok(Some(Proxied::From(text.parse().unwrap())));
        let noted = [&tcp4[..], &[0x03, 0, 4, 1, 2, 3, 4]].concat();
        for (header, expected) in [
            (v2(0x21, 0x11, &tcp4), who("203.0.113.7:4711")),
            (v2(0x21, 0x21, &tcp6), who("[2001:db8::7]:4711")),
            (v2(0x21, 0x11, &noted), who("203.0.113.7:4711")),
            (v2(0x20, 0x00, &[]), Ok(Some(Proxied::Local))),
            (v2(0x20, 0x11, &tcp4), Ok(Some(Proxied::Local))),
            (v2(0x21, 0x00, &[]), Ok(Some(Proxied::Local))),
            (v2(0x21, 0x31, &[0; 216]), Ok(Some(Proxied::Local))),
            (v2(0x21, 0x11, &tcp4[..11]), Err(ProxyError::Malformed)),
            (v2(0x21, 0x21, &tcp4), Err(ProxyError::Malformed)),
            (v2(0x11, 0x11, &tcp4), Err(ProxyError::Malformed)),
            (v2(0x22, 0x11, &tcp4), Err(ProxyError::Malformed)),
            (v2(0x21, 0x13, &tcp4), Err(ProxyError::Malformed)),
            (v2(0x20, 0x00, &[0; V2_MAX_BYTES]), Ok(Some(Proxied::Local))),
            (v2(0x20, 0x00, &[0; V2_MAX_BYTES + 1]), Err(ProxyError::TooLong)),
        ] {
            assert_eq!(says(&header), expected, "{header:?}");
        }
    }

    #[test]
    fn what_begins_otherwise_is_no_header() {
        for start in
            [&b"{\"id\":1}\n"[..], b"\x16\x03\x01", b"PROXX ", b"\r\n\r\n\0\r\nQUIT\r", b"proxy TCP4 "]
        {
            assert_eq!(says(start), Err(ProxyError::Missing), "{start:?}");
        }
        // Nothing is decided by what is not there yet.
        assert_eq!(read(b"PRO", 3).0, Ok(None));
        assert_eq!(read(b"\r\n\r\n", 3).0, Ok(None));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic_or_read_without_end(
            start in prop_oneof![Just(&b""[..]), Just(V1_START), Just(V2_START), Just(&b"PROXY TCP4 "[..])],
            bytes in proptest::collection::vec(any::<u8>(), 0..3000),
            piece in 1..200_usize,
        ) {
            let stream = [start, &bytes].concat();
            let (_, rest) = read(&stream, piece);
            prop_assert!(stream.len() - rest.len() <= V2_HEADER_BYTES + V2_MAX_BYTES);
        }
    }
}
