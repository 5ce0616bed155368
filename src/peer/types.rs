//! The words that peers and the later stages share.

use bitcoin::block::Header;
use bitcoin::hashes::sha256d;
use bitcoin::p2p::ServiceFlags;
use bitcoin::{BlockHash, Txid, VarInt, Wtxid};
use bytes::Bytes;

use super::address::Gossip;
use super::wire::{CHECKSUM_LEN, checksum_of};

/// One connection, numbered in the order of dialling; never reused while the process runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId(pub u64);

impl std::fmt::Display for PeerId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// What is known of a peer once its handshake is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerInfo {
    /// Protocol version that both sides speak: the lower of the two announced.
    pub version: u32,
    pub services: ServiceFlags,
    /// Sanitized: printable ASCII only, at most 256 bytes.
    pub user_agent: String,
    /// Announced height. Never acted upon: only headers with work count.
    pub start_height: i32,
    /// Whether the peer wants transaction announcements.
    pub relay: bool,
    /// BIP339: transactions are announced by wtxid.
    pub wtxid_relay: bool,
}

impl PeerInfo {
    /// Whether the peer serves the whole chain (NODE_NETWORK).
    pub fn serves_history(&self) -> bool {
        self.services.has(ServiceFlags::NETWORK)
    }

    /// Whether the peer serves at least its newest 288 blocks (BIP159).
    pub fn serves_recent(&self) -> bool {
        serves_recent(self.services)
    }
}

fn serves_recent(services: ServiceFlags) -> bool {
    services.has(ServiceFlags::NETWORK) || services.has(ServiceFlags::NETWORK_LIMITED)
}

/// Whether a peer of these services serves at least its newest 288 blocks, with witnesses (BIP159, BIP144).
pub fn serves_witnesses(services: ServiceFlags) -> bool {
    serves_recent(services) && services.has(ServiceFlags::WITNESS)
}

/// What an `inv`, `getdata` or `notfound` entry names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum InventoryKind {
    /// A transaction by txid (MSG_TX, 1).
    Tx,
    /// A block (MSG_BLOCK, 2).
    Block,
    /// A transaction by wtxid (MSG_WTX, 5; BIP339).
    WtxidTx,
    /// A transaction by txid, with its witness (BIP144).
    WitnessTx,
    /// A block with witnesses (BIP144).
    WitnessBlock,
    /// A block as BIP152 writes it (MSG_CMPCT_BLOCK, 4).
    CompactBlock,
    /// Anything else: kept so that it can be skipped, never acted upon.
    Other(u32),
}

/// One inventory entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Inventory {
    pub kind: InventoryKind,
    /// Hash in wire byte order; what it is of, `kind` says.
    pub hash: sha256d::Hash,
}

impl Inventory {
    /// Asks for a block with its witnesses.
    pub fn witness_block(hash: BlockHash) -> Self {
        Self { kind: InventoryKind::WitnessBlock, hash: hash.to_raw_hash() }
    }

    /// Asks for a block as BIP152 writes it.
    pub fn compact_block(hash: BlockHash) -> Self {
        Self { kind: InventoryKind::CompactBlock, hash: hash.to_raw_hash() }
    }

    /// Announces a transaction by wtxid.
    pub fn wtxid(wtxid: Wtxid) -> Self {
        Self { kind: InventoryKind::WtxidTx, hash: wtxid.to_raw_hash() }
    }

    /// Announces a transaction by txid, to a peer that did not agree on wtxids.
    pub fn txid(txid: Txid) -> Self {
        Self { kind: InventoryKind::Tx, hash: txid.to_raw_hash() }
    }

    /// Asks for a transaction by txid, with its witness.
    pub fn witness_tx(txid: Txid) -> Self {
        Self { kind: InventoryKind::WitnessTx, hash: txid.to_raw_hash() }
    }

    /// The transaction that this entry names by wtxid, if it does.
    pub fn by_wtxid(&self) -> Option<Wtxid> {
        (self.kind == InventoryKind::WtxidTx).then(|| Wtxid::from_raw_hash(self.hash))
    }

    /// The transaction that this entry names by txid, if it does.
    pub fn by_txid(&self) -> Option<Txid> {
        matches!(self.kind, InventoryKind::Tx | InventoryKind::WitnessTx)
            .then(|| Txid::from_raw_hash(self.hash))
    }

    /// Whether this entry names a transaction.
    pub fn is_transaction(&self) -> bool {
        self.by_wtxid().is_some() || self.by_txid().is_some()
    }

    /// The block that this entry names, if it names one.
    pub fn block(&self) -> Option<BlockHash> {
        match self.kind {
            InventoryKind::Block | InventoryKind::WitnessBlock | InventoryKind::CompactBlock => {
                Some(BlockHash::from_raw_hash(self.hash))
            }
            InventoryKind::Tx
            | InventoryKind::WtxidTx
            | InventoryKind::WitnessTx
            | InventoryKind::Other(_) => None,
        }
    }
}

/// The `version` message (protocol version 70001 and later).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    pub version: u32,
    pub services: ServiceFlags,
    /// Unix time in seconds.
    pub timestamp: i64,
    pub nonce: u64,
    /// As received; may be no UTF-8.
    pub user_agent: Vec<u8>,
    pub start_height: i32,
    pub relay: bool,
}

/// A decoded message. What we neither send nor act upon is `Unknown`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    Version(Version),
    Verack,
    WtxidRelay,
    SendAddrV2,
    SendHeaders,
    /// BIP152: whether blocks shall be announced by `cmpctblock`, and the version of the encoding.
    SendCmpct {
        high_bandwidth: bool,
        version: u64,
    },
    /// BIP133, in satoshi per 1,000 vB.
    FeeFilter(u64),
    Ping(u64),
    Pong(u64),
    GetHeaders {
        locator: Vec<BlockHash>,
        stop: BlockHash,
    },
    Headers(Vec<Header>),
    Inv(Vec<Inventory>),
    GetData(Vec<Inventory>),
    NotFound(Vec<Inventory>),
    /// A whole serialized block, undecoded: it is parsed where it is checked.
    Block(WireBlock),
    /// A serialized transaction, undecoded.
    Tx(Bytes),
    /// BIP152.
    CompactBlock(CompactBlock),
    /// BIP152: asks for transactions of a block by their positions, which rise.
    GetBlockTxn {
        block: BlockHash,
        positions: Vec<u16>,
    },
    /// BIP152: the transactions that were asked for, serialized.
    BlockTxn {
        block: BlockHash,
        transactions: Vec<Bytes>,
    },
    GetAddr,
    /// Where other peers are, as far as they can be reached: an `addr` or an `addrv2`.
    Addresses(Vec<Gossip>),
    /// BIP35: announce all that your mempool holds.
    Mempool,
    /// A command that is known or unknown but means nothing to us; its payload is dropped.
    Unknown(String),
}

/// A block without the transactions that its receiver is likely to have (BIP152, version 2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompactBlock {
    pub header: Header,
    /// Salts the short ids, together with the header.
    pub nonce: u64,
    /// The low 48 bits of the keyed hash of each wtxid that is not prefilled, in block order.
    pub short_ids: Vec<u64>,
    /// Positions in the block, which rise, and the serialized transactions there.
    pub prefilled: Vec<(u16, Bytes)>,
}

impl CompactBlock {
    /// How many transactions the block has.
    pub fn count(&self) -> usize {
        self.short_ids.len() + self.prefilled.len()
    }

    /// Bytes of the message, to within one for each position.
    pub fn encoded_len(&self) -> usize {
        let prefilled: usize = self.prefilled.iter().map(|(_, transaction)| 1 + transaction.len()).sum();
        let counts = VarInt::from(self.short_ids.len()).size() + VarInt::from(self.prefilled.len()).size();
        Header::SIZE + 8 + counts + 6 * self.short_ids.len() + prefilled
    }
}

/// The payload of a `block` with the checksum that its frame announced. The two are compared only where the block
/// turns out to be damaged: see `message::decode`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WireBlock {
    pub bytes: Bytes,
    /// `None` for a block that came without.
    pub checksum: Option<[u8; CHECKSUM_LEN]>,
}

impl WireBlock {
    /// A block as an honest peer sends it.
    pub fn new(bytes: Bytes) -> Self {
        Self { checksum: Some(checksum_of(&bytes)), bytes }
    }

    /// A block that came without a checksum, from a file or in parts.
    pub fn unsummed(bytes: Bytes) -> Self {
        Self { checksum: None, bytes }
    }

    /// Whether these are the bytes that were sent. Hashes all of them.
    pub fn is_as_sent(&self) -> bool {
        self.checksum.is_none_or(|checksum| checksum_of(&self.bytes) == checksum)
    }
}

/// Why a peer is sent away. Core has no score: one of these is enough (`MaybeDiscourageAndDisconnect`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Misbehavior {
    /// A header that breaks a rule, with Core's reject reason.
    BadHeader(String),
    /// A block that breaks a rule or was tampered with, with Core's reject reason.
    BadBlock(String),
    /// A message over its limit, or one that the protocol forbids here.
    BadMessage(String),
    /// The peer follows a chain that was found to be invalid.
    InvalidChain,
    /// Asked for something, the peer stayed silent for too long.
    Stalled,
}

impl std::fmt::Display for Misbehavior {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::BadHeader(reason) => write!(f, "bad header: {reason}"),
            Self::BadBlock(reason) => write!(f, "bad block: {reason}"),
            Self::BadMessage(reason) => write!(f, "bad message: {reason}"),
            Self::InvalidChain => write!(f, "follows an invalid chain"),
            Self::Stalled => write!(f, "did not deliver in time"),
        }
    }
}

/// Why a connection ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// The other side closed it, or the network did.
    Gone(String),
    /// It broke the protocol, or a rule of a later stage.
    Misbehaved(Misbehavior),
    /// The handshake was not done within 60 seconds.
    HandshakeTimeout,
    /// Nothing was received, or a ping not answered, for 20 minutes.
    Inactive,
    /// Not a peer that we can use, said in words: too old, no witnesses, ourselves.
    Useless(String),
    /// We stop.
    Shutdown,
}

impl CloseReason {
    /// Whether the next dial should wait ten times as long.
    pub fn is_misbehavior(&self) -> bool {
        matches!(self, Self::Misbehaved(_))
    }
}

impl std::fmt::Display for CloseReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Gone(why) | Self::Useless(why) => f.write_str(why),
            Self::Misbehaved(misbehavior) => misbehavior.fmt(f),
            Self::HandshakeTimeout => write!(f, "handshake not done within 60 s"),
            Self::Inactive => write!(f, "silent for 20 min"),
            Self::Shutdown => write!(f, "shutting down"),
        }
    }
}
