//! One connection that we made: handshake, keeping it alive, handing on what later stages need.
//!
//! In: bytes of the peer, messages to send, time. Out: bytes to send, messages for the node, why to close.
//! What the protocol forbids closes the connection; what cannot be read or is not known is passed over.
//! It has no opinion about headers, blocks or transactions, and asks for none. It listens to nobody: there is no
//! inbound side. It never holds more than one unfinished frame, but answers each ping: the shell stops reading
//! while much is still to be sent. Whether the peer is alive, `liveness` watches.
//!
//! ```text
//! we    | version |                               wtxidrelay, sendaddrv2, verack |        sendcmpct, feefilter
//! peer  |         | version, wtxidrelay, sendaddrv2                              | verack
//! ```
//! Source: Bitcoin Core `net_processing.cpp` (ProcessMessage, PushNodeVersion).

use std::collections::VecDeque;
use std::time::Duration;

use bitcoin::Amount;
use bitcoin::p2p::ServiceFlags;
use bytes::Bytes;

use crate::time::{Instant, Now};

use super::liveness::{Due, Liveness};
use super::message::{DecodeError, PROTOCOL_VERSION, decode, encode, name_of};
use super::types::{CloseReason, Inventory, InventoryKind, Message, Misbehavior, PeerInfo, Version};
use super::wire::{Command, Frame, FrameDecoder};

/// What we call ourselves to peers.
pub const USER_AGENT: &str = concat!("/peerdex:", env!("CARGO_PKG_VERSION"), "/");

/// Oldest version that we talk to: what Core has spoken since 2017, with witnesses in blocks and compact blocks.
const MIN_PEER_VERSION: u32 = 70015;
/// The version that knows `wtxidrelay` and may be told `sendaddrv2` (BIP339, BIP155).
const WTXID_RELAY_VERSION: u32 = 70016;
/// The compact blocks with witnesses (BIP152).
const COMPACT_BLOCKS_VERSION: u64 = 2;
/// Core closes the connection on more (MAX_SUBVERSION_LENGTH).
const MAX_USER_AGENT_LEN: usize = 256;
/// A `notfound` with more answers nothing that we can have asked (Core: MAX_PEER_TX_ANNOUNCEMENTS + 16 blocks).
const MAX_NOT_FOUND: usize = 5_016;

/// Core: DEFAULT_PEER_CONNECT_TIMEOUT.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(60);
/// We have no headers to give; a peer that asks more often gets no answer.
const HEADERS_ANSWER_INTERVAL: Duration = Duration::from_secs(10);

/// What we say of ourselves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Local {
    /// First bytes of every frame of the network.
    pub magic: [u8; 4],
    /// NODE_WITNESS alone: we serve no blocks, but want to be asked for transactions with their witnesses.
    pub services: ServiceFlags,
    /// At most 256 bytes.
    pub user_agent: String,
    /// Height of our tip.
    pub start_height: i32,
    /// Random, new for each connection; hearing it from the peer means that we talk to ourselves.
    pub nonce: u64,
    /// Whether we want transactions to be announced.
    pub relay: bool,
}

/// What the shell and the node shall do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Send these bytes.
    Send(Bytes),
    /// The handshake is done; `Message` follows only after this.
    Ready(PeerInfo),
    /// For the node: headers, inv, notfound, block, cmpctblock, blocktxn, tx, getdata (of transactions), feefilter,
    /// sendheaders, sendcmpct (version 2), addresses, or the pong to a ping of the node's.
    Message(Message),
    /// Close the connection. Nothing comes after this.
    Close(CloseReason),
}

#[derive(Debug)]
enum Stage {
    /// Our `version` is sent, theirs has not come.
    AwaitVersion,
    /// Their `version` was good and ours is acknowledged; their `verack` has not come.
    AwaitVerack(PeerInfo),
    Ready {
        wtxid_relay: bool,
        liveness: Liveness,
    },
    Closed,
}

/// The protocol of one connection; see the module.
#[derive(Debug)]
pub struct Session {
    local: Local,
    rng: fastrand::Rng,
    stage: Stage,
    decoder: FrameDecoder,
    /// When the handshake began.
    started: Instant,
    last_headers_answer: Option<Instant>,
    outputs: VecDeque<Output>,
}

impl Session {
    /// Begins the handshake on a connection that is open. Time runs from `now`: a minute until it must be done.
    pub fn new(now: Now, local: Local, rng: fastrand::Rng) -> Self {
        let mut session = Self {
            decoder: FrameDecoder::new(local.magic),
            rng,
            stage: Stage::AwaitVersion,
            started: now.instant,
            last_headers_answer: None,
            outputs: VecDeque::new(),
            local,
        };
        let version = Version {
            version: PROTOCOL_VERSION,
            services: session.local.services,
            timestamp: i64::try_from(now.unix).unwrap_or(0),
            nonce: session.local.nonce,
            user_agent: session.local.user_agent.clone().into_bytes(),
            start_height: session.local.start_height,
            relay: session.local.relay,
        };
        session.write(&Message::Version(version));
        session
    }

    /// Bytes came from the peer, cut anywhere. They go before a timeout that is due at the same time.
    pub fn handle_bytes(&mut self, now: Now, mut bytes: &[u8]) {
        if bytes.is_empty() || self.is_closed() {
            return;
        }
        let mut completed = false;
        loop {
            match self.decoder.next_frame(&mut bytes) {
                Ok(Some(frame)) => {
                    completed = true;
                    self.handle_frame(now, &frame);
                    if self.is_closed() {
                        return;
                    }
                }
                Ok(None) => break,
                Err(error) => return self.misbehaved(error.to_string()),
            }
        }
        if let Stage::Ready { liveness, .. } = &mut self.stage {
            liveness.handle_bytes(now.instant, completed, self.decoder.pending());
        }
    }

    /// Sends a message of the node; it is dropped unless the handshake is done.
    pub fn send(&mut self, message: &Message) {
        if matches!(self.stage, Stage::Ready { .. }) {
            self.write(message);
        }
    }

    /// We did not read for a while, because we were busy: what is late is not the peer's fault.
    pub fn handle_resume(&mut self, now: Now) {
        if let Stage::Ready { liveness, .. } = &mut self.stage {
            liveness.handle_resume(now.instant, self.decoder.pending());
        }
    }

    /// Ends the connection for a reason of a later stage.
    pub fn close(&mut self, reason: CloseReason) {
        if !self.is_closed() {
            self.stage = Stage::Closed;
            self.outputs.push_back(Output::Close(reason));
        }
    }

    pub fn handle_timeout(&mut self, now: Now) {
        let due = match &mut self.stage {
            Stage::Closed => None,
            Stage::AwaitVersion | Stage::AwaitVerack(_) => (now.instant >= self.started + HANDSHAKE_TIMEOUT)
                .then_some(Due::Close(CloseReason::HandshakeTimeout)),
            Stage::Ready { liveness, .. } => {
                liveness.handle_timeout(now.instant, self.decoder.pending(), &mut self.rng)
            }
        };
        match due {
            Some(Due::Ping(nonce)) => self.write(&Message::Ping(nonce)),
            Some(Due::Close(reason)) => self.close(reason),
            None => {}
        }
    }

    /// When `handle_timeout` is next due; `None` once closed.
    pub fn next_timeout(&self) -> Option<Instant> {
        match &self.stage {
            Stage::Closed => None,
            Stage::AwaitVersion | Stage::AwaitVerack(_) => Some(self.started + HANDSHAKE_TIMEOUT),
            Stage::Ready { liveness, .. } => Some(liveness.next_timeout(self.decoder.pending())),
        }
    }

    /// Call until `None` after each of the above.
    pub fn poll(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Bytes of memory held for an unfinished message.
    pub fn buffered(&self) -> usize {
        self.decoder.capacity()
    }

    fn is_closed(&self) -> bool {
        matches!(self.stage, Stage::Closed)
    }

    fn handle_frame(&mut self, now: Now, frame: &Frame) {
        // Before verack everything but the handshake is ignored, also what would be punished later.
        let is_ready = matches!(self.stage, Stage::Ready { .. });
        let is_handshake = matches!(
            frame.command,
            Command::VERSION | Command::VERACK | Command::WTXID_RELAY | Command::SEND_ADDR_V2
        );
        if !is_ready && !is_handshake {
            return;
        }
        match decode(frame) {
            Ok(message) if is_ready => self.handle_message(now, message),
            Ok(message) => self.handle_handshake(now, message),
            Err(DecodeError::Forbidden(misbehavior)) => self.close(CloseReason::Misbehaved(misbehavior)),
            Err(DecodeError::BadCommand(_) | DecodeError::BadChecksum(_) | DecodeError::Malformed(..)) => {}
        }
    }

    fn handle_handshake(&mut self, now: Now, message: Message) {
        match (&mut self.stage, message) {
            (Stage::AwaitVersion, Message::Version(version)) => self.handle_version(version),
            (Stage::AwaitVerack(info), Message::WtxidRelay) if info.version >= WTXID_RELAY_VERSION => {
                info.wtxid_relay = true;
            }
            (Stage::AwaitVerack(info), Message::Verack) => {
                let info = info.clone();
                self.stage =
                    Stage::Ready { wtxid_relay: info.wtxid_relay, liveness: Liveness::new(now.instant) };
                self.write(&Message::SendCmpct { high_bandwidth: false, version: COMPACT_BLOCKS_VERSION });
                // No transaction pays this: it asks for none, as Core does while it syncs.
                self.write(&Message::FeeFilter(Amount::MAX_MONEY.to_sat()));
                self.outputs.push_back(Output::Ready(info));
            }
            // A verack before version, a second version, sendaddrv2 that we do not need to remember.
            _ => {}
        }
    }

    fn handle_version(&mut self, theirs: Version) {
        if theirs.nonce == self.local.nonce {
            return self.useless("connected to ourselves");
        }
        if theirs.version < MIN_PEER_VERSION {
            return self.useless(&format!("speaks version {}, below {MIN_PEER_VERSION}", theirs.version));
        }
        if !theirs.services.has(ServiceFlags::WITNESS) {
            return self.useless("serves no witnesses");
        }
        if theirs.user_agent.len() > MAX_USER_AGENT_LEN {
            return self.misbehaved(format!("user agent of {} bytes", theirs.user_agent.len()));
        }
        let version = theirs.version.min(PROTOCOL_VERSION);
        if version >= WTXID_RELAY_VERSION {
            self.write(&Message::WtxidRelay);
            self.write(&Message::SendAddrV2);
        }
        self.write(&Message::Verack);
        self.stage = Stage::AwaitVerack(PeerInfo {
            version,
            services: theirs.services,
            user_agent: sanitize(&theirs.user_agent),
            start_height: theirs.start_height,
            relay: theirs.relay,
            wtxid_relay: false,
        });
    }

    fn handle_message(&mut self, now: Now, message: Message) {
        match message {
            Message::WtxidRelay | Message::SendAddrV2 => {
                self.misbehaved(format!("{} after verack", name_of(&message)));
            }
            Message::Ping(nonce) => self.write(&Message::Pong(nonce)),
            Message::Pong(nonce) => {
                if let Stage::Ready { liveness, .. } = &mut self.stage
                    && !liveness.handle_pong(nonce)
                {
                    self.outputs.push_back(Output::Message(message));
                }
            }
            Message::GetHeaders { .. } => self.answer_get_headers(now),
            Message::Inv(entries) => self.handle_inv(entries),
            Message::GetData(entries) => {
                // Blocks are not served and not refused: silence is Core's answer too.
                self.hand_on(entries, Inventory::is_transaction, Message::GetData);
            }
            Message::NotFound(entries) if entries.len() > MAX_NOT_FOUND => {}
            Message::FeeFilter(rate) if rate > Amount::MAX_MONEY.to_sat() => {}
            Message::NotFound(_)
            | Message::FeeFilter(_)
            | Message::Headers(_)
            | Message::Block(_)
            | Message::Tx(_)
            | Message::CompactBlock(_)
            | Message::BlockTxn { .. }
            | Message::SendCmpct { version: COMPACT_BLOCKS_VERSION, .. }
            | Message::Addresses(_)
            | Message::SendHeaders => self.outputs.push_back(Output::Message(message)),
            // Of other compact blocks we know nothing. We serve no blocks, give no addresses away, and tell nobody all that our mempool holds.
            Message::SendCmpct { .. } | Message::GetBlockTxn { .. } | Message::GetAddr | Message::Mempool => {
            }
            // Said a second time.
            Message::Version(_) | Message::Verack => {}
            Message::Unknown(_) => {}
        }
    }

    fn answer_get_headers(&mut self, now: Now) {
        let since = self.last_headers_answer.map(|at| now.instant.saturating_since(at));
        if since.is_none_or(|since| since >= HEADERS_ANSWER_INTERVAL) {
            self.last_headers_answer = Some(now.instant);
            self.write(&Message::Headers(Vec::new()));
        }
    }

    /// Hands on what may be announced here; transactions of the kind that was not agreed on are passed over.
    fn handle_inv(&mut self, entries: Vec<Inventory>) {
        if !self.local.relay && entries.iter().any(Inventory::is_transaction) {
            return self.misbehaved("inv of a transaction, although we asked for none".to_owned());
        }
        let agreed = if matches!(self.stage, Stage::Ready { wtxid_relay: true, .. }) {
            InventoryKind::WtxidTx
        } else {
            InventoryKind::Tx
        };
        self.hand_on(entries, |entry| entry.block().is_some() || entry.kind == agreed, Message::Inv);
    }

    fn hand_on(
        &mut self,
        mut entries: Vec<Inventory>,
        wanted: impl Fn(&Inventory) -> bool,
        message: fn(Vec<Inventory>) -> Message,
    ) {
        entries.retain(wanted);
        if !entries.is_empty() {
            self.outputs.push_back(Output::Message(message(entries)));
        }
    }

    fn write(&mut self, message: &Message) {
        self.outputs.push_back(Output::Send(encode(self.local.magic, message)));
    }

    fn misbehaved(&mut self, what: String) {
        self.close(CloseReason::Misbehaved(Misbehavior::BadMessage(what)));
    }

    fn useless(&mut self, why: &str) {
        self.close(CloseReason::Useless(why.to_owned()));
    }
}

/// What may be shown in a log line or a terminal: printable ASCII, the rest as question marks.
fn sanitize(user_agent: &[u8]) -> String {
    let printable = |byte: &u8| if (0x20..=0x7e).contains(byte) { char::from(*byte) } else { '?' };
    user_agent.iter().map(printable).collect()
}

#[cfg(test)]
mod tests;
