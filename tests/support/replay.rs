//! A Bitcoin peer that serves a given list of blocks, as Bitcoin Core would, over real sockets on loopback.
//!
//! It checks nothing of the blocks; what it checks is the other side: whatever Core would disconnect or
//! that the protocol forbids is written down in `violations`, which a test asserts to be empty.
//! Knobs make it stall, hang up, lie or dawdle. Sources: `net_processing.cpp` of Core, BIP130, BIP144, BIP159,
//! BIP339.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io;
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bitcoin::hashes::{Hash, sha256d};
use bitcoin::{Block, BlockHash, Network};

use super::wire::{self, MSG_BLOCK, MSG_CMPCT_BLOCK, MSG_WITNESS_BLOCK, Version};

/// The peer has the whole chain.
pub const NODE_NETWORK: u64 = 1;
/// The peer serves witnesses.
pub const NODE_WITNESS: u64 = 1 << 3;
/// The peer has at least the newest 288 blocks (BIP159).
pub const NODE_NETWORK_LIMITED: u64 = 1 << 10;

const MAX_HEADERS: usize = 2000;
const MAX_LOCATOR: usize = 101;
/// Core's `MAX_BLOCKS_IN_TRANSIT_PER_PEER`, which we promise to keep.
const MAX_IN_FLIGHT: usize = 16;
/// A node without NODE_NETWORK hangs up on who asks for a block deeper than this (`ProcessGetBlockData`).
const PRUNED_DEPTH: usize = 290;
/// Announcements of more blocks than this go out as `inv` (BIP130, `MAX_BLOCKS_TO_ANNOUNCE`).
const MAX_ANNOUNCED_HEADERS: usize = 8;
/// How often an idle connection looks for announcements and for the end.
const TICK: Duration = Duration::from_millis(10);

/// How the peer behaves, beyond serving.
#[derive(Clone, Debug)]
pub struct Manners {
    pub services: u64,
    pub user_agent: String,
    /// `getdata` for the block at this height is never answered, nor any after it on that connection.
    pub stall_at: Option<usize>,
    /// The connection ends after it served so many blocks.
    pub hang_up_after: Option<usize>,
    /// The block at this height is sent with one bit of its last transaction turned.
    pub corrupt: Option<usize>,
    /// A pause before each block.
    pub pause: Duration,
}

impl Default for Manners {
    fn default() -> Self {
        Self {
            services: NODE_NETWORK | NODE_WITNESS | NODE_NETWORK_LIMITED,
            user_agent: "/replay:0.1/".into(),
            stall_at: None,
            hang_up_after: None,
            corrupt: None,
            pause: Duration::ZERO,
        }
    }
}

/// How new blocks are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Announce {
    /// By `headers` to who asked for that with `sendheaders`, by `inv` to others.
    Headers,
    /// By an `inv` of the new tip.
    Inv,
    /// Not at all: found at the next `getheaders`.
    Silent,
}

/// A running peer; it stops when dropped.
pub struct ReplayPeer {
    address: SocketAddr,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

struct Shared {
    magic: [u8; 4],
    state: Mutex<State>,
    served_bytes: AtomicU64,
    stop: AtomicBool,
}

struct State {
    chain: Arc<Chain>,
    manners: Manners,
    connections: BTreeMap<u64, Connection>,
    next_connection: u64,
    violations: Vec<String>,
    versions: Vec<Version>,
    /// How often the block of each height was sent.
    served: BTreeMap<usize, usize>,
}

/// What others may do to a connection; its own thread does the rest.
struct Connection {
    stream: TcpStream,
    /// Fork height with the chain before, and manner, of each announcement not yet sent.
    announcements: VecDeque<(usize, Announce)>,
}

/// The blocks that are served, from genesis on.
struct Chain {
    blocks: Vec<Arc<Vec<u8>>>,
    headers: Vec<[u8; 80]>,
    hashes: Vec<BlockHash>,
    heights: HashMap<BlockHash, usize>,
}

impl Chain {
    fn new(blocks: Vec<Arc<Vec<u8>>>) -> Self {
        let headers: Vec<[u8; 80]> = blocks
            .iter()
            .map(|block| block[..80].try_into().expect("a block starts with a header"))
            .collect();
        let hashes: Vec<BlockHash> =
            headers.iter().map(|header| BlockHash::from_raw_hash(sha256d::Hash::hash(header))).collect();
        for (height, pair) in hashes.windows(2).enumerate() {
            assert_eq!(
                headers[height + 1][4..36],
                *pair[0].as_byte_array(),
                "block {} links down",
                height + 1
            );
        }
        let heights = hashes.iter().enumerate().map(|(height, hash)| (*hash, height)).collect();
        Self { blocks, headers, hashes, heights }
    }

    fn tip(&self) -> usize {
        self.blocks.len() - 1
    }
}

impl ReplayPeer {
    /// Serves `blocks`, which start at genesis, on a free port.
    pub fn start(network: Network, blocks: Vec<Vec<u8>>) -> Self {
        Self::with_manners(network, blocks, Manners::default())
    }

    /// The same with manners of its own.
    pub fn with_manners(network: Network, blocks: Vec<Vec<u8>>, manners: Manners) -> Self {
        Self::start_at((Ipv4Addr::LOCALHOST, 0).into(), network, blocks, manners)
    }

    /// The same at an address that the test chose.
    pub fn start_at(at: SocketAddr, network: Network, blocks: Vec<Vec<u8>>, manners: Manners) -> Self {
        assert!(!blocks.is_empty(), "a chain has a genesis block");
        let listener = TcpListener::bind(at).unwrap_or_else(|error| panic!("bind {at}: {error}"));
        listener.set_nonblocking(true).expect("a listener can be asked");
        let address = listener.local_addr().expect("a bound listener has an address");
        let shared = Arc::new(Shared {
            magic: wire::magic(network),
            state: Mutex::new(State {
                chain: Arc::new(Chain::new(blocks.into_iter().map(Arc::new).collect())),
                manners,
                connections: BTreeMap::new(),
                next_connection: 0,
                violations: Vec::new(),
                versions: Vec::new(),
                served: BTreeMap::new(),
            }),
            served_bytes: AtomicU64::new(0),
            stop: AtomicBool::new(false),
        });
        let acceptor = std::thread::spawn({
            let shared = shared.clone();
            move || accept(&listener, &shared)
        });
        Self { address, shared, acceptor: Some(acceptor) }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on serves `blocks` and tells the connected so, who may have to reorganize.
    pub fn set_chain(&self, blocks: Vec<Vec<u8>>, announce: Announce) {
        let mut state = self.shared.lock();
        let old = state.chain.clone();
        let shared_blocks =
            blocks.into_iter().enumerate().map(|(height, block)| match old.blocks.get(height) {
                Some(known) if **known == block => known.clone(),
                _ => Arc::new(block),
            });
        let chain = Chain::new(shared_blocks.collect());
        let fork = old.hashes.iter().zip(&chain.hashes).take_while(|(old, new)| old == new).count() - 1;
        state.chain = Arc::new(chain);
        for connection in state.connections.values_mut() {
            connection.announcements.push_back((fork, announce));
        }
    }

    /// Changes how it behaves from the next message on.
    pub fn set_manners(&self, change: impl FnOnce(&mut Manners)) {
        change(&mut self.shared.lock().manners);
    }

    /// Ends every connection; new ones are taken.
    pub fn hang_up(&self) {
        for connection in self.shared.lock().connections.values() {
            let _ = connection.stream.shutdown(Shutdown::Both);
        }
    }

    /// How many are connected now.
    pub fn connections(&self) -> usize {
        self.shared.lock().connections.len()
    }

    /// What the other side did that Core would not take.
    pub fn violations(&self) -> Vec<String> {
        self.shared.lock().violations.clone()
    }

    /// The `version` messages received, oldest first.
    pub fn versions(&self) -> Vec<Version> {
        self.shared.lock().versions.clone()
    }

    /// How often the block of each height was sent.
    pub fn served(&self) -> BTreeMap<usize, usize> {
        self.shared.lock().served.clone()
    }

    /// Bytes of all blocks sent.
    pub fn served_bytes(&self) -> u64 {
        self.shared.served_bytes.load(Ordering::Relaxed)
    }
}

impl Drop for ReplayPeer {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.hang_up();
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // A thread that panicked has said why; the others can go on.
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn violation(&self, what: String) {
        self.lock().violations.push(what);
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    let mut threads = Vec::new();
    while !shared.stop.load(Ordering::Relaxed) {
        let Ok((stream, _)) = listener.accept() else {
            std::thread::sleep(TICK);
            continue;
        };
        stream.set_nonblocking(false).expect("a stream can block");
        stream.set_nodelay(true).expect("a stream can do without delay");
        let shared = shared.clone();
        threads.push(std::thread::spawn(move || serve(stream, &shared)));
    }
    for connection in shared.lock().connections.values() {
        let _ = connection.stream.shutdown(Shutdown::Both);
    }
    for thread in threads {
        let _ = thread.join();
    }
}

fn serve(stream: TcpStream, shared: &Arc<Shared>) {
    let id = {
        let mut state = shared.lock();
        let id = state.next_connection;
        state.next_connection += 1;
        let Ok(stream) = stream.try_clone() else { return };
        state.connections.insert(id, Connection { stream, announcements: VecDeque::new() });
        id
    };
    let mut conversation = Conversation::new(id, shared.clone(), &stream);
    let end = conversation.run();
    if let Err(error) = end
        && error.kind() == io::ErrorKind::InvalidData
    {
        shared.violation(error.to_string());
    }
    let _ = stream.shutdown(Shutdown::Both);
    shared.lock().connections.remove(&id);
}

/// One connection, from our side.
struct Conversation<'a> {
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
    fn new(id: u64, shared: Arc<Shared>, stream: &'a TcpStream) -> Self {
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
    fn run(&mut self) -> io::Result<()> {
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
            self.send("block", &block)?;
            self.served_blocks += 1;
            self.shared.served_bytes.fetch_add(block.len() as u64, Ordering::Relaxed);
            *self.shared.lock().served.entry(height).or_default() += 1;
            if manners.hang_up_after.is_some_and(|most| self.served_blocks >= most) {
                return Ok(false);
            }
        }
        Ok(true)
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
