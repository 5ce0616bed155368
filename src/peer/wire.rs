//! Cuts the bytes of a connection into frames, and puts frames together (v1 transport).
//!
//! In: bytes in pieces of any size. Out: frames whose length is within the limit of their command; a payload that
//! nobody here reads is counted and thrown away as it arrives.
//! It never reserves memory because a header announces bytes: it grows as they come, at most twice what came and
//! at most 256 KiB ahead. It does not look into payloads; `message` does, and checks the checksum there.
//!
//! ```text
//! frame | magic 4 | command 12, padded with NUL | length 4 LE | checksum 4: sha256d(payload)[..4] | payload, `length` bytes |
//! ```
//! Source: Bitcoin Core `net.cpp` (V1Transport::readHeader, readData), `protocol.cpp` (CMessageHeader).

use bitcoin::hashes::{Hash, sha256d};
use bytes::Bytes;

const MAGIC_LEN: usize = 4;
const COMMAND_LEN: usize = 12;
const LENGTH_LEN: usize = 4;
/// Bytes of a checksum.
pub const CHECKSUM_LEN: usize = 4;
/// Bytes before the payload of a frame.
pub const HEADER_LEN: usize = MAGIC_LEN + COMMAND_LEN + LENGTH_LEN + CHECKSUM_LEN;

/// Longest payload of any command (Core: MAX_PROTOCOL_MESSAGE_LENGTH).
pub const MAX_PAYLOAD_LEN: usize = 4_000_000;
/// Bytes that memory may be ahead of what was received (Core: MAX_RESERVE_AHEAD).
const MAX_AHEAD: usize = 256 * 1024;

/// Entries of one `inv`, `getdata` or `notfound` (Core: MAX_INV_SZ).
pub const MAX_INVENTORY: usize = 50_000;
/// Bytes of one such entry: its kind and its hash.
pub const INVENTORY_LEN: usize = 4 + 32;
/// Entries of one `headers` (Core: MAX_HEADERS_RESULTS).
pub const MAX_HEADERS: usize = 2_000;
/// Bytes of one such entry: a header and a transaction count, which is zero.
pub const HEADERS_ENTRY_LEN: usize = 80 + 1;
/// Transactions of a block that have a position of 16 bits (BIP152).
pub const MAX_POSITIONS: usize = 65_536;
/// Bytes that a compact size below 65,536 may take.
const COUNT_LEN: usize = 3;

/// The name of a message, as it stands in the header of a frame.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Command([u8; COMMAND_LEN]);

impl Command {
    pub const ADDR: Self = Self::new("addr");
    pub const ADDR_V2: Self = Self::new("addrv2");
    pub const BLOCK: Self = Self::new("block");
    pub const BLOCK_TXN: Self = Self::new("blocktxn");
    pub const CMPCT_BLOCK: Self = Self::new("cmpctblock");
    pub const FEATURE: Self = Self::new("feature");
    pub const FEE_FILTER: Self = Self::new("feefilter");
    pub const GET_ADDR: Self = Self::new("getaddr");
    pub const GET_BLOCK_TXN: Self = Self::new("getblocktxn");
    pub const GET_DATA: Self = Self::new("getdata");
    pub const GET_HEADERS: Self = Self::new("getheaders");
    pub const HEADERS: Self = Self::new("headers");
    pub const INV: Self = Self::new("inv");
    pub const MEMPOOL: Self = Self::new("mempool");
    pub const NOT_FOUND: Self = Self::new("notfound");
    pub const PING: Self = Self::new("ping");
    pub const PONG: Self = Self::new("pong");
    pub const SEND_ADDR_V2: Self = Self::new("sendaddrv2");
    pub const SEND_CMPCT: Self = Self::new("sendcmpct");
    pub const SEND_HEADERS: Self = Self::new("sendheaders");
    pub const TX: Self = Self::new("tx");
    pub const VERACK: Self = Self::new("verack");
    pub const VERSION: Self = Self::new("version");
    pub const WTXID_RELAY: Self = Self::new("wtxidrelay");

    /// The command of this name; what is over twelve bytes is cut off.
    pub const fn new(name: &str) -> Self {
        let name = name.as_bytes();
        let mut bytes = [0; COMMAND_LEN];
        let mut at = 0;
        while at < name.len() && at < COMMAND_LEN {
            bytes[at] = name[at];
            at += 1;
        }
        Self(bytes)
    }

    /// The name; `None` when it is not printable ASCII or something stands in the padding.
    pub fn name(&self) -> Option<&str> {
        let len = self.0.iter().position(|&byte| byte == 0).unwrap_or(COMMAND_LEN);
        let (name, padding) = self.0.split_at(len);
        let well_formed =
            name.iter().all(|byte| (0x20..=0x7e).contains(byte)) && padding.iter().all(|&byte| byte == 0);
        if well_formed { std::str::from_utf8(name).ok() } else { None }
    }

    /// Longest payload in bytes.
    pub fn limit(&self) -> usize {
        self.rule().0
    }

    /// The limit of the payload in bytes, and whether it is kept to be read.
    fn rule(&self) -> (usize, Payload) {
        match *self {
            Self::VERSION => (1024, Payload::Kept),
            Self::VERACK | Self::SEND_HEADERS | Self::WTXID_RELAY | Self::SEND_ADDR_V2 => (0, Payload::Kept),
            Self::PING | Self::PONG | Self::FEE_FILTER => (8, Payload::Kept),
            Self::SEND_CMPCT => (9, Payload::Kept),
            Self::INV | Self::GET_DATA | Self::NOT_FOUND => {
                (COUNT_LEN + MAX_INVENTORY * INVENTORY_LEN, Payload::Kept)
            }
            Self::HEADERS => (COUNT_LEN + MAX_HEADERS * HEADERS_ENTRY_LEN, Payload::Kept),
            // A locator of 101 hashes takes 3,269 bytes; a little more room lets `message` name the fault.
            Self::GET_HEADERS => (4096, Payload::Kept),
            // A block hash, and positions of which none is over 65,535.
            Self::GET_BLOCK_TXN => (32 + 5 + MAX_POSITIONS * COUNT_LEN, Payload::Kept),
            Self::TX | Self::BLOCK | Self::CMPCT_BLOCK | Self::BLOCK_TXN => (MAX_PAYLOAD_LEN, Payload::Kept),
            // A thousand addresses; 550 kB hold the longest that BIP155 allows.
            Self::ADDR => (COUNT_LEN + 1000 * 30, Payload::Kept),
            Self::ADDR_V2 => (550_000, Payload::Kept),
            _ => (MAX_PAYLOAD_LEN, Payload::Skipped),
        }
    }
}

impl std::fmt::Debug for Command {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Command({self})")
    }
}

impl std::fmt::Display for Command {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let len = self.0.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
        write!(f, "{}", self.0[..len].escape_ascii())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Payload {
    Kept,
    Skipped,
}

/// One message as it came, not yet looked into.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub command: Command,
    /// Length of the payload in bytes.
    pub len: usize,
    /// `None` for a command that nobody here reads.
    pub payload: Option<Bytes>,
    /// As announced; nothing has been compared with it.
    pub checksum: [u8; CHECKSUM_LEN],
}

impl Frame {
    /// Whether the payload is the one that the checksum was made of; true for a payload that was not kept.
    pub fn checksum_matches(&self) -> bool {
        self.payload.as_ref().is_none_or(|payload| checksum_of(payload) == self.checksum)
    }
}

/// Why a connection cannot go on: where the next frame begins is not known, or not worth waiting for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    #[error("frame begins with {}, not with the network's {}", hex(.got), hex(.expected))]
    WrongMagic {
        /// The bytes seen, one to four.
        got: Vec<u8>,
        expected: [u8; MAGIC_LEN],
    },
    #[error("{command} of {len} bytes, over the limit of {limit}")]
    TooLong { command: Command, len: usize, limit: usize },
}

/// A frame that has begun and not ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pending {
    /// `None` while the header is not complete.
    pub command: Option<Command>,
    /// Bytes of the payload that are here.
    pub received: usize,
}

/// What a complete header says, and how much of its payload has come.
#[derive(Clone, Copy, Debug)]
struct Body {
    command: Command,
    len: usize,
    checksum: [u8; CHECKSUM_LEN],
    payload: Payload,
    received: usize,
}

/// Cuts bytes into frames; holds at most one unfinished frame.
#[derive(Debug)]
pub struct FrameDecoder {
    magic: [u8; MAGIC_LEN],
    header: [u8; HEADER_LEN],
    header_len: usize,
    body: Option<Body>,
    payload: Vec<u8>,
}

impl FrameDecoder {
    pub fn new(magic: [u8; MAGIC_LEN]) -> Self {
        Self { magic, header: [0; HEADER_LEN], header_len: 0, body: None, payload: Vec::new() }
    }

    /// Takes bytes off the front of `input` until a frame is complete; `None` once all are taken.
    ///
    /// An error is final: the same is returned from then on.
    pub fn next_frame(&mut self, input: &mut &[u8]) -> Result<Option<Frame>, FrameError> {
        let mut body = match self.body {
            Some(body) => body,
            None => {
                let Some(body) = self.read_header(input)? else { return Ok(None) };
                body
            }
        };

        let chunk = take(input, body.len - body.received);
        body.received += chunk.len();
        if body.payload == Payload::Kept {
            self.reserve(chunk.len(), body.len);
            self.payload.extend_from_slice(chunk);
        }
        if body.received < body.len {
            self.body = Some(body);
            return Ok(None);
        }

        self.body = None;
        self.header_len = 0;
        let payload = std::mem::take(&mut self.payload);
        Ok(Some(Frame {
            command: body.command,
            len: body.len,
            payload: (body.payload == Payload::Kept).then(|| Bytes::from(payload)),
            checksum: body.checksum,
        }))
    }

    /// The frame that has begun; `None` between two frames.
    pub fn pending(&self) -> Option<Pending> {
        match self.body {
            Some(body) => Some(Pending { command: Some(body.command), received: body.received }),
            None => (self.header_len > 0).then_some(Pending { command: None, received: 0 }),
        }
    }

    /// Bytes of memory held for the unfinished payload.
    pub fn capacity(&self) -> usize {
        self.payload.capacity()
    }

    /// Fills the header from `input`; `None` while it is not complete.
    fn read_header(&mut self, input: &mut &[u8]) -> Result<Option<Body>, FrameError> {
        let chunk = take(input, HEADER_LEN - self.header_len);
        self.header[self.header_len..self.header_len + chunk.len()].copy_from_slice(chunk);
        self.header_len += chunk.len();

        // A wrong first byte is enough: who speaks another protocol may be waiting for us to answer.
        let seen = self.header_len.min(MAGIC_LEN);
        if self.header[..seen] != self.magic[..seen] {
            return Err(FrameError::WrongMagic { got: self.header[..seen].to_vec(), expected: self.magic });
        }
        if self.header_len < HEADER_LEN {
            return Ok(None);
        }

        let mut fields = &self.header[MAGIC_LEN..];
        let command = Command(take_array(&mut fields));
        let len = u32::from_le_bytes(take_array(&mut fields)) as usize;
        let checksum = take_array(&mut fields);
        let (limit, payload) = command.rule();
        if len > limit {
            return Err(FrameError::TooLong { command, len, limit });
        }
        Ok(Some(Body { command, len, checksum, payload, received: 0 }))
    }

    /// Makes room for `chunk` more bytes and, so that growing does not copy too often, some after them.
    fn reserve(&mut self, chunk: usize, announced: usize) {
        let needed = self.payload.len() + chunk;
        if needed > self.payload.capacity() {
            let ahead = needed.min(MAX_AHEAD);
            let target = announced.min(needed + ahead);
            self.payload.reserve_exact(target - self.payload.len());
        }
    }
}

/// A frame of `command` with the payload that `write` appends.
pub(super) fn frame(magic: [u8; MAGIC_LEN], command: Command, write: impl FnOnce(&mut Vec<u8>)) -> Bytes {
    let mut out = vec![0; HEADER_LEN];
    write(&mut out);
    let length = u32::try_from(out.len() - HEADER_LEN).expect("what we send is far below 4 GiB");
    let checksum = checksum_of(&out[HEADER_LEN..]);
    let mut at = 0;
    for field in [&magic[..], &command.0, &length.to_le_bytes(), &checksum] {
        out[at..at + field.len()].copy_from_slice(field);
        at += field.len();
    }
    Bytes::from(out)
}

/// What the frame of a payload announces.
pub(super) fn checksum_of(payload: &[u8]) -> [u8; CHECKSUM_LEN] {
    take_array(&mut &sha256d::Hash::hash(payload).as_byte_array()[..])
}

/// Takes up to `len` bytes off the front of `input`.
fn take<'a>(input: &mut &'a [u8], len: usize) -> &'a [u8] {
    let (taken, rest) = input.split_at(len.min(input.len()));
    *input = rest;
    taken
}

/// Takes a field off the front of a buffer whose length is known here.
fn take_array<const N: usize>(input: &mut &[u8]) -> [u8; N] {
    let (field, rest) = input.split_first_chunk().expect("the fields of a header add up to its length");
    *input = rest;
    *field
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
pub(super) mod tests;
