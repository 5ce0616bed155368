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
use std::time::Duration;

use bitcoin::hashes::{Hash, sha256d};
use bitcoin::{BlockHash, Network};

use super::conversation::Conversation;
use super::wire::{self, Version};

/// The peer has the whole chain.
pub const NODE_NETWORK: u64 = 1;
/// The peer serves witnesses.
pub const NODE_WITNESS: u64 = 1 << 3;
/// The peer has at least the newest 288 blocks (BIP159).
pub const NODE_NETWORK_LIMITED: u64 = 1 << 10;

/// How often an idle connection looks for announcements and for the end.
pub(super) const TICK: Duration = Duration::from_millis(10);

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
    /// So many of the next blocks have a bit turned after their checksum was made, as a bad line would.
    pub damage: usize,
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
            damage: 0,
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

pub(super) struct Shared {
    pub(super) magic: [u8; 4],
    pub(super) state: Mutex<State>,
    pub(super) served_bytes: AtomicU64,
    pub(super) stop: AtomicBool,
}

pub(super) struct State {
    pub(super) chain: Arc<Chain>,
    pub(super) manners: Manners,
    pub(super) connections: BTreeMap<u64, Connection>,
    pub(super) next_connection: u64,
    pub(super) violations: Vec<String>,
    pub(super) versions: Vec<Version>,
    /// How often the block of each height was sent.
    pub(super) served: BTreeMap<usize, usize>,
}

/// What others may do to a connection; its own thread does the rest.
pub(super) struct Connection {
    pub(super) stream: TcpStream,
    /// Fork height with the chain before, and manner, of each announcement not yet sent.
    pub(super) announcements: VecDeque<(usize, Announce)>,
}

/// The blocks that are served, from genesis on.
pub(super) struct Chain {
    pub(super) blocks: Vec<Arc<Vec<u8>>>,
    pub(super) headers: Vec<[u8; 80]>,
    pub(super) hashes: Vec<BlockHash>,
    pub(super) heights: HashMap<BlockHash, usize>,
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

    pub(super) fn tip(&self) -> usize {
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
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        // A thread that panicked has said why; the others can go on.
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    pub(super) fn violation(&self, what: String) {
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
