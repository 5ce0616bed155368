//! Bitcoin's wire protocol as far as a peer that only serves blocks needs it, v1 transport.

use std::io::{self, Read, Write};

use bitcoin::hashes::{Hash, sha256d};

use crate::forge::{MAGIC, put_compact};

/// Longest payload that Core takes.
const MAX_PAYLOAD_BYTES: usize = 4_000_000;
const PROTOCOL: u32 = 70_016;
/// NODE_NETWORK and NODE_WITNESS.
const SERVICES: u64 = 1 | 8;

/// What stands before a payload.
pub fn head(command: &str, length: usize, checksum: [u8; 4]) -> [u8; 24] {
    let mut head = [0; 24];
    head[..4].copy_from_slice(&MAGIC);
    head[4..4 + command.len()].copy_from_slice(command.as_bytes());
    head[16..20].copy_from_slice(&(length as u32).to_le_bytes());
    head[20..].copy_from_slice(&checksum);
    head
}

fn checksum(payload: &[u8]) -> [u8; 4] {
    let hash = sha256d::Hash::hash(payload).to_byte_array();
    [hash[0], hash[1], hash[2], hash[3]]
}

pub fn send(to: &mut impl Write, command: &str, payload: &[u8]) -> io::Result<()> {
    let mut message = head(command, payload.len(), checksum(payload)).to_vec();
    message.extend(payload);
    to.write_all(&message)
}

/// Reads a message: its command, and its payload into the buffer.
pub fn receive(from: &mut impl Read, payload: &mut Vec<u8>) -> io::Result<String> {
    let wrong = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what);
    let mut head = [0; 24];
    from.read_exact(&mut head)?;
    let length = u32::from_le_bytes([head[16], head[17], head[18], head[19]]) as usize;
    if head[..4] != MAGIC || length > MAX_PAYLOAD_BYTES {
        return Err(wrong("no message of regtest's"));
    }
    payload.resize(length, 0);
    from.read_exact(payload)?;
    if checksum(payload) != head[20..] {
        return Err(wrong("checksum"));
    }
    let name = head[4..16].split(|byte| *byte == 0).next().unwrap_or_default();
    Ok(String::from_utf8_lossy(name).into_owned())
}

/// Our `version`.
pub fn version(height: u32) -> Vec<u8> {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let mut payload = Vec::new();
    payload.extend(PROTOCOL.to_le_bytes());
    payload.extend(SERVICES.to_le_bytes());
    payload.extend(now.map_or(0, |now| now.as_secs()).to_le_bytes());
    payload.extend([0; 26]);
    payload.extend(SERVICES.to_le_bytes());
    payload.extend([0; 18]);
    payload.extend(0x666f_7267_u64.to_le_bytes());
    let agent = b"/forge:0.1.0/";
    payload.push(agent.len() as u8);
    payload.extend(agent);
    payload.extend(height.to_le_bytes());
    payload.push(1);
    payload
}

/// A `headers` message.
pub fn headers<'a>(headers: impl ExactSizeIterator<Item = &'a [u8; 80]>) -> Vec<u8> {
    let mut payload = Vec::with_capacity(3 + headers.len() * 81);
    put_compact(&mut payload, headers.len());
    for header in headers {
        payload.extend(header);
        payload.push(0); // Number of transactions, always none.
    }
    payload
}

/// An `inv` of one block.
pub fn announcement(hash: &[u8; 32]) -> Vec<u8> {
    const MSG_BLOCK: u32 = 2;
    let mut payload = vec![1];
    payload.extend(MSG_BLOCK.to_le_bytes());
    payload.extend(hash);
    payload
}

/// Takes a number of one or three bytes; longer ones count more than a message of ours holds.
fn compact(payload: &mut &[u8]) -> Option<usize> {
    match bytes::<1>(payload)? {
        [0xfd] => Some(usize::from(u16::from_le_bytes(bytes(payload)?))),
        [0xfe | 0xff] => None,
        [small] => Some(usize::from(small)),
    }
}

fn bytes<const N: usize>(payload: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, rest) = payload.split_first_chunk()?;
    *payload = rest;
    Some(*taken)
}

/// The locator of a `getheaders`.
pub fn locator(mut payload: &[u8]) -> Option<Vec<[u8; 32]>> {
    bytes::<4>(&mut payload)?;
    let count = compact(&mut payload)?;
    (0..count).map(|_| bytes(&mut payload)).collect()
}

/// Types and hashes of a `getdata`.
pub fn inventory(mut payload: &[u8]) -> Option<Vec<(u32, [u8; 32])>> {
    let count = compact(&mut payload)?;
    (0..count).map(|_| Some((u32::from_le_bytes(bytes(&mut payload)?), bytes(&mut payload)?))).collect()
}
