//! The Bitcoin wire protocol as far as a peer that serves blocks needs it, v1 transport.
//!
//! Written from the protocol's description and not from `src/peer`, so that each tests the other.
//! A message: `magic 4 | command 12, padded with zeros | length 4 LE | checksum 4 | payload`.

use std::io::{self, Read, Write};

use bitcoin::hashes::{Hash, sha256d};
use bitcoin::{BlockHash, Network};

/// Longest payload that Core takes (`MAX_PROTOCOL_MESSAGE_LENGTH`).
const MAX_PAYLOAD_BYTES: usize = 4_000_000;

/// Inventory type of a block without witnesses.
pub const MSG_BLOCK: u32 = 2;
/// Inventory type of a block as `cmpctblock` (BIP152); a full `block` is an answer too.
pub const MSG_CMPCT_BLOCK: u32 = 4;
/// Inventory type of a block with witnesses (BIP144).
pub const MSG_WITNESS_BLOCK: u32 = 0x4000_0002;

/// The four bytes that every message of a network starts with.
pub fn magic(network: Network) -> [u8; 4] {
    match network {
        Network::Bitcoin => [0xf9, 0xbe, 0xb4, 0xd9],
        Network::Testnet => [0x0b, 0x11, 0x09, 0x07],
        Network::Testnet4 => [0x1c, 0x16, 0x3f, 0x28],
        Network::Signet => [0x0a, 0x03, 0xcf, 0x40],
        Network::Regtest => [0xfa, 0xbf, 0xb5, 0xda],
    }
}

/// Writes one message.
pub fn send(to: &mut impl Write, magic: [u8; 4], command: &str, payload: &[u8]) -> io::Result<()> {
    to.write_all(&frame(magic, command, payload))
}

/// One message as its bytes.
pub fn frame(magic: [u8; 4], command: &str, payload: &[u8]) -> Vec<u8> {
    let mut message = Vec::with_capacity(24 + payload.len());
    message.extend(magic);
    let mut name = [0; 12];
    name[..command.len()].copy_from_slice(command.as_bytes());
    message.extend(name);
    message.extend((payload.len() as u32).to_le_bytes());
    message.extend(&sha256d::Hash::hash(payload).to_byte_array()[..4]);
    message.extend(payload);
    message
}

/// Reads one message; what is wrong with its frame is an error that says so.
pub fn receive(from: &mut impl Read, magic: [u8; 4]) -> io::Result<(String, Vec<u8>)> {
    let wrong = |what: String| io::Error::new(io::ErrorKind::InvalidData, what);
    let mut head = [0; 24];
    from.read_exact(&mut head)?;
    if head[..4] != magic {
        return Err(wrong(format!("magic {:02x?}", &head[..4])));
    }
    let name: Vec<u8> = head[4..16].iter().copied().take_while(|byte| *byte != 0).collect();
    if head[4 + name.len()..16].iter().any(|byte| *byte != 0) {
        return Err(wrong(format!("command {:02x?} is not padded with zeros", &head[4..16])));
    }
    let command = String::from_utf8(name).map_err(|_| wrong("command is no ASCII".into()))?;
    let length = u32::from_le_bytes([head[16], head[17], head[18], head[19]]) as usize;
    if length > MAX_PAYLOAD_BYTES {
        return Err(wrong(format!("{command} of {length} bytes")));
    }
    let mut payload = vec![0; length];
    from.read_exact(&mut payload)?;
    if sha256d::Hash::hash(&payload).to_byte_array()[..4] != head[20..24] {
        return Err(wrong(format!("checksum of {command}")));
    }
    Ok((command, payload))
}

/// Reads fields off a payload; `None` once it is too short.
pub struct Fields<'a>(pub &'a [u8]);

impl<'a> Fields<'a> {
    pub fn bytes(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    pub fn u8(&mut self) -> Option<u8> {
        Some(self.bytes(1)?[0])
    }

    pub fn u32(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(self.bytes(4)?.try_into().ok()?))
    }

    pub fn u64(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.bytes(8)?.try_into().ok()?))
    }

    pub fn hash(&mut self) -> Option<BlockHash> {
        BlockHash::from_slice(self.bytes(32)?).ok()
    }

    /// A number of one, three, five or nine bytes.
    pub fn compact(&mut self) -> Option<u64> {
        match self.u8()? {
            0xfd => Some(u64::from(u16::from_le_bytes(self.bytes(2)?.try_into().ok()?))),
            0xfe => Some(u64::from(self.u32()?)),
            0xff => self.u64(),
            small => Some(u64::from(small)),
        }
    }

    /// Whether all was read.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Appends a number of one, three, five or nine bytes.
pub fn put_compact(to: &mut Vec<u8>, number: usize) {
    match number {
        0..=0xfc => to.push(number as u8),
        0xfd..=0xffff => {
            to.push(0xfd);
            to.extend((number as u16).to_le_bytes());
        }
        _ => {
            to.push(0xfe);
            to.extend((number as u32).to_le_bytes());
        }
    }
}

/// What a `version` message says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    pub protocol: u32,
    pub services: u64,
    pub user_agent: Vec<u8>,
    pub start_height: u32,
    pub relay: bool,
}

impl Version {
    pub fn decode(payload: &[u8]) -> Option<Self> {
        let mut fields = Fields(payload);
        let protocol = fields.u32()?;
        let services = fields.u64()?;
        fields.bytes(8 + 26 + 26 + 8)?; // Time, the two addresses, nonce.
        let length = fields.compact()?;
        let user_agent = fields.bytes(usize::try_from(length).ok()?)?.to_vec();
        let start_height = fields.u32()?;
        let relay = fields.u8()? == 1;
        fields.is_empty().then_some(Self { protocol, services, user_agent, start_height, relay })
    }

    pub fn encode(&self, unix_seconds: u64, nonce: u64) -> Vec<u8> {
        let mut payload = Vec::new();
        payload.extend(self.protocol.to_le_bytes());
        payload.extend(self.services.to_le_bytes());
        payload.extend(unix_seconds.to_le_bytes());
        // Core leaves both addresses empty but for the services in its own.
        payload.extend([0; 26]);
        payload.extend(self.services.to_le_bytes());
        payload.extend([0; 18]);
        payload.extend(nonce.to_le_bytes());
        put_compact(&mut payload, self.user_agent.len());
        payload.extend(&self.user_agent);
        payload.extend(self.start_height.to_le_bytes());
        payload.push(u8::from(self.relay));
        payload
    }
}

/// `inv` and `getdata` entries: type and hash.
pub fn decode_inventory(payload: &[u8]) -> Option<Vec<(u32, BlockHash)>> {
    let mut fields = Fields(payload);
    let count = fields.compact()?;
    let entries = (0..count).map(|_| Some((fields.u32()?, fields.hash()?))).collect::<Option<Vec<_>>>()?;
    fields.is_empty().then_some(entries)
}

/// Locator and stop hash of a `getheaders`.
pub fn decode_getheaders(payload: &[u8]) -> Option<(Vec<BlockHash>, BlockHash)> {
    let mut fields = Fields(payload);
    fields.u32()?;
    let count = fields.compact()?;
    let locator = (0..count).map(|_| fields.hash()).collect::<Option<Vec<_>>>()?;
    let stop = fields.hash()?;
    fields.is_empty().then_some((locator, stop))
}

/// A `headers` message of serialized headers.
pub fn encode_headers(headers: &[[u8; 80]]) -> Vec<u8> {
    let mut payload = Vec::with_capacity(3 + headers.len() * 81);
    put_compact(&mut payload, headers.len());
    for header in headers {
        payload.extend(header);
        payload.push(0); // Number of transactions, always none.
    }
    payload
}
