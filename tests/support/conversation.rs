//! One connection of a replay peer: what it answers, and what it holds against the other side.
//!
//! It knows the chain that is served and its manners now, and nothing of other connections. An error of kind
//! `InvalidData` says what the other side did that Core would hang up on.
//! Sources: `net_processing.cpp` of Core, BIP130, BIP144, BIP159, BIP339.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{SystemTime, UNIX_EPOCH};

use bitcoin::Block;
use bitcoin::hashes::Hash;

use super::replay::{Announce, NODE_NETWORK, Shared, TICK};
use super::wire::{self, MSG_BLOCK, MSG_CMPCT_BLOCK, MSG_WITNESS_BLOCK, Version};

const MAX_HEADERS: usize = 2000;
const MAX_LOCATOR: usize = 101;
/// Core's `MAX_BLOCKS_IN_TRANSIT_PER_PEER`, which we promise to keep.
const MAX_IN_FLIGHT: usize = 16;
/// A node without NODE_NETWORK hangs up on who asks for a block deeper than this (`ProcessGetBlockData`).
const PRUNED_DEPTH: usize = 290;
/// Announcements of more blocks than this go out as `inv` (BIP130, `MAX_BLOCKS_TO_ANNOUNCE`).
const MAX_ANNOUNCED_HEADERS: usize = 8;

/// One connection, from our side.
pub(super) struct Conversation<'a> {
    id: u64,
    shared: Arc<Shared>,
    stream: &'a TcpStream,
    /// What the other side said of itself, once it has.
    version: Option<Version>,
    got_verack: bool,
    wants_headers: bool,
    served_blocks: usize,
    /// Whether it was asked for the block at which it stalls.
    stalled: bool,
}

fn forbidden<T>(what: impl Into<String>) -> io::Result<T> {
    Err(io::Error::new(io::ErrorKind::InvalidData, what.into()))
}

impl<'a> Conversation<'a> {
    pub(super) fn new(id: u64, shared: Arc<Shared>, stream: &'a TcpStream) -> Self {
        Self {
            id,
            shared,
            stream,
            version: None,
            got_verack: false,
            wants_headers: false,
            served_blocks: 0,
            stalled: false,
        }
    }

    /// Answers until one side ends it. `Ok` means that we did.
    pub(super) fn run(&mut self) -> io::Result<()> {
        let mut backlog = VecDeque::new();
        while !self.shared.stop.load(Ordering::Relaxed) {
            self.announce()?;
            if self.is_readable()? {
                backlog.push_back(wire::receive(&mut self.stream, self.shared.magic)?);
            }
            if let Some((command, payload)) = backlog.pop_front()
                && !self.handle(&command, &payload)?
            {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Whether a message has begun to arrive; waits a tick for it.
    fn is_readable(&self) -> io::Result<bool> {
        self.stream.set_read_timeout(Some(TICK))?;
        let seen = match self.stream.peek(&mut [0]) {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) => Ok(true),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                Ok(false)
            }
            Err(error) => Err(error),
        };
        self.stream.set_read_timeout(None)?;
        seen
    }

    fn send(&mut self, command: &str, payload: &[u8]) -> io::Result<()> {
        wire::send(&mut self.stream, self.shared.magic, command, payload)
    }

    /// Acts on one message. `false` ends the connection.
    fn handle(&mut self, command: &str, payload: &[u8]) -> io::Result<bool> {
        match (command, &self.version, self.got_verack) {
            ("version", None, _) => self.handle_version(payload)?,
            ("version", Some(_), _) => return forbidden("a second version"),
            (_, None, _) => return forbidden(format!("{command} before version")),
            ("wtxidrelay" | "sendaddrv2", _, true) => return forbidden(format!("{command} after verack")),
            ("wtxidrelay" | "sendaddrv2", _, false) => {}
            ("verack", _, true) => return forbidden("a second verack"),
            ("verack", _, false) => self.handle_verack()?,
            (_, _, false) => return forbidden(format!("{command} before verack")),
            ("ping", ..) if payload.len() == 8 => self.send("pong", payload)?,
            ("ping", ..) => return forbidden(format!("ping of {} bytes", payload.len())),
            ("sendheaders", ..) => self.wants_headers = true,
            ("getheaders", ..) => self.handle_getheaders(payload)?,
            ("getdata", ..) => return self.handle_getdata(payload),
            ("pong" | "sendcmpct" | "feefilter" | "getaddr" | "headers", ..) => {}
            (other, ..) => self.shared.violation(format!("{other} is of no use here")),
        }
        Ok(true)
    }

    fn handle_version(&mut self, payload: &[u8]) -> io::Result<()> {
        let Some(version) = Version::decode(payload) else { return forbidden("version that can't be read") };
        let (ours, tip) = {
            let mut state = self.shared.lock();
            state.versions.push(version.clone());
            (state.manners.clone(), state.chain.tip())
        };
        let modern = version.protocol >= 70016;
        self.version = Some(version);
        let ours = Version {
            protocol: 70016,
            services: ours.services,
            user_agent: ours.user_agent.into_bytes(),
            start_height: tip as u32,
            relay: true,
        };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs());
        self.send("version", &ours.encode(now, 0x7265_706c_6179 + self.id))?;
        if modern {
            self.send("wtxidrelay", &[])?;
        }
        self.send("sendaddrv2", &[])?;
        self.send("verack", &[])
    }

    fn handle_verack(&mut self) -> io::Result<()> {
        self.got_verack = true;
        self.send("sendcmpct", &[0, 2, 0, 0, 0, 0, 0, 0, 0])?;
        self.send("ping", &(0x70_696e_6700 + self.id).to_le_bytes())?;
        self.send("feefilter", &1000_u64.to_le_bytes())
    }

    fn handle_getheaders(&mut self, payload: &[u8]) -> io::Result<()> {
        let Some((locator, stop)) = wire::decode_getheaders(payload) else {
            return forbidden("getheaders that can't be read");
        };
        if locator.len() > MAX_LOCATOR {
            return forbidden(format!("locator of {} hashes", locator.len()));
        }
        let chain = self.shared.lock().chain.clone();
        let first = match locator.is_empty() {
            // Without a locator the stop hash alone is asked for.
            true => match chain.heights.get(&stop) {
                Some(height) => *height,
                None => return Ok(()),
            },
            false => locator.iter().find_map(|hash| chain.heights.get(hash)).map_or(1, |height| height + 1),
        };
        let last = chain.heights.get(&stop).map_or(chain.tip(), |stop| *stop);
        let end = (last + 1).min(first + MAX_HEADERS).max(first.min(chain.headers.len()));
        let headers = chain.headers.get(first..end).unwrap_or_default();
        self.send("headers", &wire::encode_headers(headers))
    }

    fn handle_getdata(&mut self, payload: &[u8]) -> io::Result<bool> {
        let Some(entries) = wire::decode_inventory(payload) else {
            return forbidden("getdata that can't be read");
        };
        if entries.len() > MAX_IN_FLIGHT {
            return forbidden(format!("getdata of {} blocks", entries.len()));
        }
        for (kind, hash) in entries {
            if ![MSG_BLOCK, MSG_CMPCT_BLOCK, MSG_WITNESS_BLOCK].contains(&kind) {
                self.shared.violation(format!("getdata of type {kind:#x}"));
                continue;
            }
            let (chain, manners) = {
                let state = self.shared.lock();
                (state.chain.clone(), state.manners.clone())
            };
            // Core says nothing of blocks that it doesn't know; after a reorg they may be asked for in good faith.
            let Some(&height) = chain.heights.get(&hash) else { continue };
            if manners.services & NODE_NETWORK == 0 && chain.tip() - height > PRUNED_DEPTH {
                return forbidden(format!("block {height} of a pruned peer at {}", chain.tip()));
            }
            if manners.stall_at == Some(height) {
                self.stalled = true;
            }
            if self.stalled {
                continue;
            }
            std::thread::sleep(manners.pause);
            let block = match kind {
                MSG_BLOCK => without_witnesses(&chain.blocks[height]),
                _ => chain.blocks[height].to_vec(),
            };
            let block = if manners.corrupt == Some(height) { corrupted(block) } else { block };
            let mut message = wire::frame(self.shared.magic, "block", &block);
            if self.takes_damage()
                && let Some(last) = message.last_mut()
            {
                *last ^= 1;
            }
            self.stream.write_all(&message)?;
            self.served_blocks += 1;
            self.shared.served_bytes.fetch_add(block.len() as u64, Ordering::Relaxed);
            *self.shared.lock().served.entry(height).or_default() += 1;
            if manners.hang_up_after.is_some_and(|most| self.served_blocks >= most) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether the message that comes now is to be damaged.
    fn takes_damage(&self) -> bool {
        let damage = &mut self.shared.lock().manners.damage;
        let takes = *damage > 0;
        *damage = damage.saturating_sub(1);
        takes
    }

    /// Sends the announcements that are due.
    fn announce(&mut self) -> io::Result<()> {
        if !self.got_verack {
            return Ok(());
        }
        loop {
            let (chain, (fork, manner)) = {
                let mut state = self.shared.lock();
                let chain = state.chain.clone();
                let Some(connection) = state.connections.get_mut(&self.id) else { return Ok(()) };
                let Some(announcement) = connection.announcements.pop_front() else { return Ok(()) };
                (chain, announcement)
            };
            let new = chain.headers.get(fork + 1..).unwrap_or_default();
            match manner {
                Announce::Silent => {}
                Announce::Headers
                    if self.wants_headers && (1..=MAX_ANNOUNCED_HEADERS).contains(&new.len()) =>
                {
                    self.send("headers", &wire::encode_headers(new))?;
                }
                Announce::Headers | Announce::Inv => {
                    let mut payload = vec![1];
                    payload.extend(MSG_BLOCK.to_le_bytes());
                    payload.extend(chain.hashes[chain.tip()].as_byte_array());
                    self.send("inv", &payload)?;
                }
            }
        }
    }
}

/// The block as it was before BIP144.
fn without_witnesses(raw: &[u8]) -> Vec<u8> {
    let mut block: Block = bitcoin::consensus::deserialize(raw).expect("blocks that are served decode");
    for input in block.txdata.iter_mut().flat_map(|tx| &mut tx.input) {
        input.witness.clear();
    }
    bitcoin::consensus::serialize(&block)
}

/// The block with one bit of its last lock time turned: it decodes, but its merkle root is another.
fn corrupted(mut block: Vec<u8>) -> Vec<u8> {
    *block.last_mut().expect("a block is not empty") ^= 1;
    block
}
