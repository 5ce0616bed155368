//! A connection that is made for one transaction of a wallet, and says nothing else.
//!
//! In: bytes of the peer, what to hand it, time. Out: bytes to send, how far it got, why to close. What it says, and when
//! it hangs up, is the same to the byte as what Bitcoin Core says on its connections of private broadcast, so that
//! nobody can tell the two apart, or one server from another: nothing in it is of ours but the transaction and two
//! random numbers. The peer's pings are not answered, and nothing else that it says is read.
//!
//! ```text
//! we    | version |         | verack |        | inv |         | tx, ping |      | close
//! peer  |         | version |        | verack |     | getdata |          | pong |
//! ```
//! A package is beyond what Core does: its last is announced, and its parents are given to who asks for them.
//! Source: Bitcoin Core `net_processing.cpp` (PushNodeVersion, PushPrivateBroadcastTx, ProcessMessage).

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use bitcoin::Txid;
use bitcoin::p2p::ServiceFlags;
use bytes::Bytes;

use super::message::{DecodeError, decode, encode};
use super::types::{CloseReason, Inventory, InventoryKind, Message, Misbehavior, Version, serves_witnesses};
use super::wire::{Command, Frame, FrameDecoder};
use crate::time::{Instant, Now};

/// The same for everybody (Core: AdvertisedVersion).
const VERSION: u32 = 70016;
/// The same for everybody, and of no real program (Core: PushNodeVersion).
const USER_AGENT: &[u8] = b"/pynode:0.0.1/";
/// Core: MIN_PEER_PROTO_VERSION is lower, but such a peer answers no ping (BIP31).
const MIN_PEER_VERSION: u32 = 60_001;
/// Core: MAX_SUBVERSION_LENGTH.
const MAX_USER_AGENT_LEN: usize = 256;
/// Core: DEFAULT_PEER_CONNECT_TIMEOUT.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(60);
/// Core: PRIVATE_BROADCAST_MAX_CONNECTION_LIFETIME.
pub const LIFETIME: Duration = Duration::from_secs(3 * 60);
/// How long a peer has to ask for a child's parents, once it has the child. Core waits four seconds.
const PARENTS_WITHIN: Duration = Duration::from_secs(10);
/// What we read here is small. Who sends more is not worth its memory.
const MAX_BUFFERED: usize = 128 * 1024;

/// How far a connection got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PrivateOutput {
    /// Send these bytes.
    Send(Bytes),
    /// The handshake is done: [`PrivateSession::give`] is called for, or `close`.
    Ready,
    /// The peer asked for the first time, and was sent it.
    Asked,
    /// The peer answered the ping behind it. The connection closes.
    Delivered,
    /// Nothing comes after this.
    Close(CloseReason),
}

#[derive(Debug)]
enum Stage {
    AwaitVersion,
    AwaitVerack,
    AwaitTransaction,
    Offered(Offer),
    Closed,
}

/// What the peer was told of.
#[derive(Debug)]
struct Offer {
    /// Parents before the child, which was announced.
    transactions: Vec<(Txid, Bytes)>,
    given: BTreeSet<Txid>,
    /// The nonce of the last ping.
    ping: Option<u64>,
    /// When a peer that asked for no parents has them.
    ping_at: Option<Instant>,
}

/// The protocol of one connection; see the module.
#[derive(Debug)]
pub struct PrivateSession {
    magic: [u8; 4],
    rng: fastrand::Rng,
    stage: Stage,
    decoder: FrameDecoder,
    started: Instant,
    outputs: VecDeque<PrivateOutput>,
}

impl PrivateSession {
    /// Begins on a connection that is open. `nonce` and the seed of `rng` must come from a good source, and not from one
    /// another: they are shown to a stranger, who must not learn from them which other numbers are ours.
    pub fn new(now: Now, magic: [u8; 4], nonce: u64, rng: fastrand::Rng) -> Self {
        let version = Version {
            version: VERSION,
            services: ServiceFlags::NONE,
            timestamp: 0,
            nonce,
            user_agent: USER_AGENT.to_vec(),
            start_height: 0,
            relay: false,
        };
        let mut session = Self {
            magic,
            rng,
            stage: Stage::AwaitVersion,
            decoder: FrameDecoder::new(magic),
            started: now.instant,
            outputs: VecDeque::new(),
        };
        session.write(&Message::Version(version));
        session
    }

    /// What to hand over, once [`PrivateOutput::Ready`] has come: a transaction, or parents before their child.
    pub fn give(&mut self, transactions: Vec<(Txid, Bytes)>) {
        let Some((last, _)) = transactions.last() else { return self.close(done("nothing to hand over")) };
        if matches!(self.stage, Stage::AwaitTransaction) {
            self.write(&Message::Inv(vec![Inventory::txid(*last)]));
            let given = BTreeSet::new();
            self.stage = Stage::Offered(Offer { transactions, given, ping: None, ping_at: None });
        }
    }

    /// Bytes came from the peer, cut anywhere.
    pub fn handle_bytes(&mut self, now: Now, mut bytes: &[u8]) {
        while !matches!(self.stage, Stage::Closed) {
            match self.decoder.next_frame(&mut bytes) {
                Ok(Some(frame)) => self.handle_frame(now, &frame),
                Ok(None) if self.decoder.capacity() > MAX_BUFFERED => {
                    self.misbehaved("a message that is too long here".to_owned());
                }
                Ok(None) => return,
                Err(error) => self.misbehaved(error.to_string()),
            }
        }
    }

    pub fn handle_timeout(&mut self, now: Now) {
        match &mut self.stage {
            Stage::Closed => {}
            Stage::AwaitVersion | Stage::AwaitVerack if now.instant >= self.started + HANDSHAKE_TIMEOUT => {
                self.close(CloseReason::HandshakeTimeout);
            }
            _ if now.instant >= self.started + LIFETIME => {
                self.close(done("it was not delivered within three minutes"));
            }
            Stage::Offered(offer) if offer.ping_at.is_some_and(|at| now.instant >= at) => {
                offer.ping_at = None;
                self.ping();
            }
            _ => {}
        }
    }

    /// When `handle_timeout` is next due; `None` once closed.
    pub fn next_timeout(&self) -> Option<Instant> {
        match &self.stage {
            Stage::Closed => None,
            Stage::AwaitVersion | Stage::AwaitVerack => Some(self.started + HANDSHAKE_TIMEOUT),
            Stage::AwaitTransaction => Some(self.started + LIFETIME),
            Stage::Offered(offer) => {
                let end = self.started + LIFETIME;
                Some(offer.ping_at.map_or(end, |at| at.min(end)))
            }
        }
    }

    /// Call until `None` after each of the above.
    pub fn poll(&mut self) -> Option<PrivateOutput> {
        self.outputs.pop_front()
    }

    /// Ends the connection, for want of a transaction.
    pub fn close(&mut self, reason: CloseReason) {
        if !matches!(self.stage, Stage::Closed) {
            self.stage = Stage::Closed;
            self.outputs.push_back(PrivateOutput::Close(reason));
        }
    }

    fn handle_frame(&mut self, now: Now, frame: &Frame) {
        let knows_version = !matches!(self.stage, Stage::AwaitVersion);
        let is_ready = matches!(self.stage, Stage::AwaitTransaction | Stage::Offered(_));
        match frame.command {
            Command::VERSION if !knows_version => {
                if let Ok(Message::Version(version)) = decode(frame) {
                    self.handle_version(&version);
                }
            }
            Command::VERACK if knows_version && !is_ready && frame.checksum_matches() => {
                self.stage = Stage::AwaitTransaction;
                self.outputs.push_back(PrivateOutput::Ready);
            }
            Command::WTXID_RELAY | Command::SEND_ADDR_V2 if is_ready => {
                self.misbehaved(format!("{} after verack", frame.command));
            }
            // We speak no version that has it.
            Command::FEATURE if knows_version => self.misbehaved("feature, which we do not speak".to_owned()),
            Command::SEND_CMPCT if knows_version => {
                if let Err(DecodeError::Forbidden(misbehavior)) = decode(frame) {
                    self.close(CloseReason::Misbehaved(misbehavior));
                }
            }
            Command::GET_DATA if is_ready => match decode(frame) {
                Ok(Message::GetData(entries)) => self.handle_get_data(now, &entries),
                Err(DecodeError::Forbidden(misbehavior)) => self.close(CloseReason::Misbehaved(misbehavior)),
                Ok(_) | Err(_) => {}
            },
            Command::PONG if is_ready => match decode(frame) {
                Ok(Message::Pong(nonce)) => self.handle_pong(nonce),
                // As in Core, one that cannot be read is the answer to the ping, and no receipt.
                Err(DecodeError::Malformed(..)) => self.handle_pong(0),
                Ok(_) | Err(_) => {}
            },
            _ => {}
        }
    }

    fn handle_version(&mut self, theirs: &Version) {
        if theirs.user_agent.len() > MAX_USER_AGENT_LEN {
            return;
        }
        if !serves_witnesses(theirs.services) {
            return self.useless("serves no blocks with witnesses");
        }
        if theirs.version < MIN_PEER_VERSION {
            return self.useless("speaks a version that is too old");
        }
        if !theirs.relay {
            return self.useless("takes no transactions");
        }
        self.write(&Message::Verack);
        self.stage = Stage::AwaitVerack;
    }

    /// Only what was announced is given, and to who asks for it as we asked him to.
    fn handle_get_data(&mut self, now: Now, entries: &[Inventory]) {
        let Stage::Offered(offer) = &mut self.stage else { return self.misbehaved(UNEXPECTED.to_owned()) };
        let find = |entry: &Inventory| {
            let is_offered = |(txid, _): &&(Txid, Bytes)| txid.to_raw_hash() == entry.hash;
            let by_txid = entry.kind == InventoryKind::Tx;
            offer.transactions.iter().find(is_offered).filter(|_| by_txid).cloned()
        };
        let asked: Option<Vec<(Txid, Bytes)>> = entries.iter().map(find).collect();
        let asked = asked.filter(|asked| (1..=offer.transactions.len()).contains(&asked.len()));
        let Some(asked) = asked else { return self.misbehaved(UNEXPECTED.to_owned()) };
        let is_first = offer.given.is_empty();
        offer.given.extend(asked.iter().map(|(txid, _)| *txid));
        let has_all = offer.given.len() == offer.transactions.len();
        offer.ping_at = (!has_all).then(|| offer.ping_at.unwrap_or(now.instant + PARENTS_WITHIN));
        for (_, raw) in asked {
            self.write(&Message::Tx(raw));
        }
        if has_all {
            self.ping();
        }
        if is_first {
            self.outputs.push_back(PrivateOutput::Asked);
        }
    }

    fn ping(&mut self) {
        let nonce = self.rng.u64(1..);
        if let Stage::Offered(offer) = &mut self.stage {
            offer.ping = Some(nonce);
        }
        self.write(&Message::Ping(nonce));
    }

    fn handle_pong(&mut self, nonce: u64) {
        let Stage::Offered(offer) = &mut self.stage else { return };
        if offer.ping == Some(nonce) {
            self.outputs.push_back(PrivateOutput::Delivered);
            self.close(done("it was delivered"));
        } else if nonce == 0 {
            offer.ping = None;
        }
    }

    fn write(&mut self, message: &Message) {
        self.outputs.push_back(PrivateOutput::Send(encode(self.magic, message)));
    }

    fn misbehaved(&mut self, what: String) {
        self.close(CloseReason::Misbehaved(Misbehavior::BadMessage(what)));
    }

    fn useless(&mut self, why: &str) {
        self.close(CloseReason::Useless(why.to_owned()));
    }
}

const UNEXPECTED: &str = "getdata for what was not announced";

fn done(why: &str) -> CloseReason {
    CloseReason::Gone(why.to_owned())
}

#[cfg(test)]
mod tests;
