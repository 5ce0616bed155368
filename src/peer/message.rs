//! Frames to messages and back.
//!
//! In: a frame. Out: a `Message`, or why there is none; only what the protocol forbids costs the peer its
//! connection, what cannot be read is dropped. A list is allocated once its bytes are known to be there.
//! It keeps no state: whether a message is welcome now, `session` knows. Blocks and transactions stay bytes.
//! Source: Bitcoin Core `net_processing.cpp` (ProcessMessage), `protocol.h`; BIP130, 133, 144, 152, 155, 339.

use bitcoin::BlockHash;
use bitcoin::block::Header;
use bitcoin::hashes::Hash;
use bitcoin::p2p::ServiceFlags;
use bytes::Bytes;

use super::address;
use super::codec::{Malformed, Reader, put_compact_size, put_header};
use super::compact;
use super::types::{Inventory, InventoryKind, Message, Misbehavior, Version, WireBlock};
use super::wire::{Command, Frame, HEADERS_ENTRY_LEN, INVENTORY_LEN, MAX_HEADERS, MAX_INVENTORY, frame};

/// What we speak (BIP339). 70017 would announce `feature` (BIP434), which defines nothing yet.
pub const PROTOCOL_VERSION: u32 = 70016;
/// Hashes of one locator (Core: MAX_LOCATOR_SZ).
const MAX_LOCATOR: usize = 101;
/// Bytes of a network address in `version`: services, address, port.
const ADDRESS_LEN: usize = 8 + 16 + 2;
/// Bytes of a block header, the least that a `block` can hold.
const BLOCK_HEADER_LEN: usize = 80;

const MSG_TX: u32 = 1;
const MSG_BLOCK: u32 = 2;
const MSG_CMPCT_BLOCK: u32 = 4;
const MSG_WTX: u32 = 5;
/// BIP144: with witness.
const MSG_WITNESS_FLAG: u32 = 1 << 30;
const MSG_WITNESS_TX: u32 = MSG_TX | MSG_WITNESS_FLAG;
const MSG_WITNESS_BLOCK: u32 = MSG_BLOCK | MSG_WITNESS_FLAG;

/// Why a frame is no message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The peer is kept.
    #[error("command {0} is not printable")]
    BadCommand(Command),
    /// The peer is kept.
    #[error("{0}: checksum does not match")]
    BadChecksum(Command),
    /// The peer is kept.
    #[error("{0}: {1}")]
    Malformed(Command, &'static str),
    /// The peer is sent away.
    #[error("{0}")]
    Forbidden(Misbehavior),
}

/// What is wrong with a payload, before its command is named.
pub(super) enum Fault {
    Malformed(&'static str),
    Forbidden(String),
}

impl From<Malformed> for Fault {
    fn from(reason: Malformed) -> Self {
        Self::Malformed(reason)
    }
}

/// The message in a frame.
///
/// The checksum of a `block` is not compared: hashing two megabytes costs more than all else that happens here,
/// and it binds nothing that is not bound later. A block is read to its last byte with canonical lengths, and its
/// merkle root and witness commitment cover every byte of it, against forgery too. When that check fails, the
/// checksum tells whether the damage happened on the way, so it goes with the block.
/// Only a damaged header is not noticed so: it reads as a block that nobody asked for, as if none had come.
pub fn decode(frame: &Frame) -> Result<Message, DecodeError> {
    let command = frame.command;
    let name = command.name().ok_or(DecodeError::BadCommand(command))?;
    let Some(payload) = &frame.payload else {
        return Ok(match command {
            Command::GET_ADDR => Message::GetAddr,
            Command::MEMPOOL => Message::Mempool,
            _ => Message::Unknown(name.to_owned()),
        });
    };
    if command != Command::BLOCK && !frame.checksum_matches() {
        return Err(DecodeError::BadChecksum(command));
    }
    decode_payload(frame, name, payload).map_err(|fault| match fault {
        Fault::Malformed(reason) => DecodeError::Malformed(command, reason),
        Fault::Forbidden(reason) => DecodeError::Forbidden(Misbehavior::BadMessage(reason)),
    })
}

fn decode_payload(frame: &Frame, name: &str, payload: &Bytes) -> Result<Message, Fault> {
    let mut reader = Reader::new(payload);
    Ok(match frame.command {
        Command::VERSION => Message::Version(read_version(&mut reader)?),
        Command::VERACK => Message::Verack,
        Command::WTXID_RELAY => Message::WtxidRelay,
        Command::SEND_ADDR_V2 => Message::SendAddrV2,
        Command::SEND_HEADERS => Message::SendHeaders,
        Command::SEND_CMPCT => read_send_cmpct(&mut reader)?,
        Command::FEE_FILTER => Message::FeeFilter(reader.u64()?),
        Command::PING => Message::Ping(reader.u64()?),
        Command::PONG => Message::Pong(reader.u64()?),
        Command::GET_HEADERS => read_get_headers(&mut reader)?,
        Command::HEADERS => Message::Headers(read_headers(&mut reader)?),
        Command::INV => Message::Inv(read_inventory(name, &mut reader)?),
        Command::GET_DATA => Message::GetData(read_inventory(name, &mut reader)?),
        Command::NOT_FOUND => Message::NotFound(read_inventory(name, &mut reader)?),
        Command::BLOCK if payload.len() <= BLOCK_HEADER_LEN => return Err("ends too early".into()),
        Command::BLOCK => {
            Message::Block(WireBlock { bytes: payload.clone(), checksum: Some(frame.checksum) })
        }
        Command::TX => Message::Tx(payload.clone()),
        Command::CMPCT_BLOCK => Message::CompactBlock(compact::read_block(&mut reader, payload)?),
        Command::GET_BLOCK_TXN => compact::read_request(&mut reader)?,
        Command::BLOCK_TXN => compact::read_transactions(&mut reader, payload)?,
        Command::ADDR => Message::Addresses(address::read_addr(&mut reader)?),
        Command::ADDR_V2 => Message::Addresses(address::read_addr_v2(&mut reader)?),
        _ => Message::Unknown(name.to_owned()),
    })
}

/// As Core reads it: what follows the receiver's address may be missing from there on.
fn read_version(reader: &mut Reader) -> Result<Version, Fault> {
    // A negative version is older than any.
    let version = u32::try_from(reader.i32()?).unwrap_or(0);
    let services = ServiceFlags::from(reader.u64()?);
    let timestamp = reader.i64()?;
    reader.slice(ADDRESS_LEN)?;

    let mut nonce = 0;
    if !reader.is_empty() {
        reader.slice(ADDRESS_LEN)?;
        nonce = reader.u64()?;
    }
    let mut user_agent = Vec::new();
    if !reader.is_empty() {
        let len = reader.compact_size()?;
        user_agent = reader.slice(len)?.to_vec();
    }
    let start_height = if reader.is_empty() { -1 } else { reader.i32()? };
    let relay = reader.is_empty() || reader.u8()? != 0;
    Ok(Version { version, services, timestamp, nonce, user_agent, start_height, relay })
}

fn read_send_cmpct(reader: &mut Reader) -> Result<Message, Fault> {
    let high_bandwidth = match reader.u8()? {
        0 => false,
        1 => true,
        other => return Err(Fault::Forbidden(format!("sendcmpct with {other} for a flag"))),
    };
    Ok(Message::SendCmpct { high_bandwidth, version: reader.u64()? })
}

fn read_get_headers(reader: &mut Reader) -> Result<Message, Fault> {
    reader.u32()?; // The sender's version; nobody reads it.
    let count = read_count("locator", MAX_LOCATOR, 32, reader)?;
    let locator = (0..count).map(|_| reader.block_hash()).collect::<Result<Vec<BlockHash>, _>>()?;
    Ok(Message::GetHeaders { locator, stop: reader.block_hash()? })
}

fn read_headers(reader: &mut Reader) -> Result<Vec<Header>, Fault> {
    let count = read_count("headers", MAX_HEADERS, HEADERS_ENTRY_LEN, reader)?;
    let mut headers = Vec::with_capacity(count);
    for _ in 0..count {
        headers.push(reader.header()?);
        // The transaction count: always zero, and Core skips whatever it is.
        reader.compact_size()?;
    }
    Ok(headers)
}

fn read_inventory(name: &str, reader: &mut Reader) -> Result<Vec<Inventory>, Fault> {
    let count = read_count(name, MAX_INVENTORY, INVENTORY_LEN, reader)?;
    let mut entries = Vec::with_capacity(count);
    for _ in 0..count {
        entries.push(Inventory { kind: kind_of(reader.u32()?), hash: reader.hash()? });
    }
    Ok(entries)
}

/// How many entries follow; `entry_len` is what one takes at least, so that the bytes of all are there.
pub(super) fn read_count(
    name: &str,
    limit: usize,
    entry_len: usize,
    reader: &mut Reader,
) -> Result<usize, Fault> {
    let count = reader.compact_size()?;
    if count > limit {
        return Err(Fault::Forbidden(format!("{name} with {count} entries, over the limit of {limit}")));
    }
    if count * entry_len > reader.remaining() {
        return Err("ends too early".into());
    }
    Ok(count)
}

/// The message as a frame, ready to be sent.
///
/// `Unknown` gives a frame without payload; it is there for tests.
pub fn encode(magic: [u8; 4], message: &Message) -> Bytes {
    frame(magic, command_of(message), |out| write_payload(out, message))
}

/// The name that the message has on the wire.
pub fn name_of(message: &Message) -> String {
    command_of(message).to_string()
}

fn command_of(message: &Message) -> Command {
    match message {
        Message::Version(_) => Command::VERSION,
        Message::Verack => Command::VERACK,
        Message::WtxidRelay => Command::WTXID_RELAY,
        Message::SendAddrV2 => Command::SEND_ADDR_V2,
        Message::SendHeaders => Command::SEND_HEADERS,
        Message::SendCmpct { .. } => Command::SEND_CMPCT,
        Message::FeeFilter(_) => Command::FEE_FILTER,
        Message::Ping(_) => Command::PING,
        Message::Pong(_) => Command::PONG,
        Message::GetHeaders { .. } => Command::GET_HEADERS,
        Message::Headers(_) => Command::HEADERS,
        Message::Inv(_) => Command::INV,
        Message::GetData(_) => Command::GET_DATA,
        Message::NotFound(_) => Command::NOT_FOUND,
        Message::Block(_) => Command::BLOCK,
        Message::Tx(_) => Command::TX,
        Message::CompactBlock(_) => Command::CMPCT_BLOCK,
        Message::GetBlockTxn { .. } => Command::GET_BLOCK_TXN,
        Message::BlockTxn { .. } => Command::BLOCK_TXN,
        Message::GetAddr => Command::GET_ADDR,
        Message::Addresses(_) => Command::ADDR_V2,
        Message::Mempool => Command::MEMPOOL,
        Message::Unknown(name) => Command::new(name),
    }
}

fn write_payload(out: &mut Vec<u8>, message: &Message) {
    match message {
        Message::Version(version) => write_version(out, version),
        Message::Verack
        | Message::WtxidRelay
        | Message::SendAddrV2
        | Message::SendHeaders
        | Message::GetAddr
        | Message::Mempool
        | Message::Unknown(_) => {}
        Message::SendCmpct { high_bandwidth, version } => {
            out.push(u8::from(*high_bandwidth));
            out.extend_from_slice(&version.to_le_bytes());
        }
        Message::FeeFilter(number) | Message::Ping(number) | Message::Pong(number) => {
            out.extend_from_slice(&number.to_le_bytes());
        }
        Message::GetHeaders { locator, stop } => {
            out.extend_from_slice(&PROTOCOL_VERSION.to_le_bytes());
            put_compact_size(out, locator.len());
            for hash in locator.iter().chain([stop]) {
                out.extend_from_slice(hash.as_byte_array());
            }
        }
        Message::Headers(headers) => {
            put_compact_size(out, headers.len());
            for header in headers {
                put_header(out, header);
                out.push(0);
            }
        }
        Message::Inv(entries) | Message::GetData(entries) | Message::NotFound(entries) => {
            put_compact_size(out, entries.len());
            for entry in entries {
                out.extend_from_slice(&number_of(entry.kind).to_le_bytes());
                out.extend_from_slice(entry.hash.as_byte_array());
            }
        }
        Message::Addresses(entries) => address::write_addr_v2(out, entries),
        Message::Block(block) => out.extend_from_slice(&block.bytes),
        Message::Tx(bytes) => out.extend_from_slice(bytes),
        Message::CompactBlock(block) => compact::write_block(out, block),
        Message::GetBlockTxn { block, positions } => compact::write_request(out, block, positions),
        Message::BlockTxn { block, transactions } => compact::write_transactions(out, block, transactions),
    }
}

fn write_version(out: &mut Vec<u8>, version: &Version) {
    out.extend_from_slice(&version.version.to_le_bytes());
    out.extend_from_slice(&version.services.to_u64().to_le_bytes());
    out.extend_from_slice(&version.timestamp.to_le_bytes());
    // Both addresses stay empty, as Core sends them through a proxy: nobody learns where we think we are.
    out.extend_from_slice(&[0; ADDRESS_LEN]);
    out.extend_from_slice(&version.services.to_u64().to_le_bytes());
    out.extend_from_slice(&[0; ADDRESS_LEN - 8]);
    out.extend_from_slice(&version.nonce.to_le_bytes());
    put_compact_size(out, version.user_agent.len());
    out.extend_from_slice(&version.user_agent);
    out.extend_from_slice(&version.start_height.to_le_bytes());
    out.push(u8::from(version.relay));
}

fn kind_of(number: u32) -> InventoryKind {
    match number {
        MSG_TX => InventoryKind::Tx,
        MSG_BLOCK => InventoryKind::Block,
        MSG_CMPCT_BLOCK => InventoryKind::CompactBlock,
        MSG_WTX => InventoryKind::WtxidTx,
        MSG_WITNESS_TX => InventoryKind::WitnessTx,
        MSG_WITNESS_BLOCK => InventoryKind::WitnessBlock,
        other => InventoryKind::Other(other),
    }
}

fn number_of(kind: InventoryKind) -> u32 {
    match kind {
        InventoryKind::Tx => MSG_TX,
        InventoryKind::Block => MSG_BLOCK,
        InventoryKind::CompactBlock => MSG_CMPCT_BLOCK,
        InventoryKind::WtxidTx => MSG_WTX,
        InventoryKind::WitnessTx => MSG_WITNESS_TX,
        InventoryKind::WitnessBlock => MSG_WITNESS_BLOCK,
        InventoryKind::Other(number) => number,
    }
}

#[cfg(test)]
mod tests;
