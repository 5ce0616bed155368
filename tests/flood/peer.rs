//! A peer that serves a chain, and transactions when it is asked for them; what else it says the test decides.

use std::collections::HashMap;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bitcoin::consensus::serialize;
use bitcoin::hashes::{Hash, sha256d};
use bitcoin::{Network, Transaction};

use super::support::wait_for;
use super::support::wire::{self, MSG_WITNESS_BLOCK, Version};

/// Inventory type of a transaction by its wtxid (BIP339).
const MSG_WTX: u32 = 5;
/// Entries of one `inv`, as Core sends them at most at once.
const AN_INV: usize = 1_000;
/// The whole chain with witnesses.
const SERVICES: u64 = 1 | 1 << 3 | 1 << 10;

/// See the module. Its threads end with their connection.
pub struct Peer {
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    /// The connection, once the handshake is done.
    stream: Mutex<Option<TcpStream>>,
    /// Connections so far.
    met: AtomicUsize,
}

#[derive(Default)]
struct State {
    headers: Vec<[u8; 80]>,
    heights: HashMap<[u8; 32], usize>,
    blocks: Vec<Vec<u8>>,
    offered: HashMap<[u8; 32], Vec<u8>>,
}

impl Peer {
    pub fn start(chain: &[Vec<u8>]) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback has a free port");
        let address = listener.local_addr().expect("a bound listener has an address");
        let shared = Arc::new(Shared::default());
        chain.iter().for_each(|block| shared.lock().add(block.clone()));
        let peer = Self { address, shared: shared.clone() };
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = shared.clone();
                std::thread::spawn(move || {
                    // How a connection ends is the other side's affair.
                    let _ = shared.serve(&stream);
                    shared.stream().take();
                });
            }
        });
        peer
    }

    /// Waits until the other side can be told of transactions.
    pub fn wait_met(&self, limit: Duration) {
        wait_for("the handshake", limit, || self.shared.stream().as_ref().map(|_| ()));
    }

    /// Connections so far.
    pub fn met(&self) -> usize {
        self.shared.met.load(Ordering::Relaxed)
    }

    /// Announces transactions, which are sent when they are asked for.
    pub fn offer<'a>(&self, transactions: impl IntoIterator<Item = &'a Transaction>) {
        let transactions = transactions.into_iter();
        let known = transactions.map(|tx| (tx.compute_wtxid().to_byte_array(), serialize(tx)));
        let known: Vec<([u8; 32], Vec<u8>)> = known.collect();
        let wtxids: Vec<[u8; 32]> = known.iter().map(|(wtxid, _)| *wtxid).collect();
        self.shared.lock().offered.extend(known);
        self.announce(&wtxids);
    }

    /// Announces ids of which it may have nothing.
    pub fn announce(&self, wtxids: &[[u8; 32]]) {
        for some in wtxids.chunks(AN_INV) {
            let mut payload = Vec::new();
            wire::put_compact(&mut payload, some.len());
            for wtxid in some {
                payload.extend(MSG_WTX.to_le_bytes());
                payload.extend(wtxid);
            }
            self.say("inv", &payload);
        }
    }

    /// Sends a message; nothing is sent while there is no connection.
    pub fn say(&self, command: &str, payload: &[u8]) {
        self.shared.write(&frame(command, payload));
    }

    /// Takes a block to the end of its chain and announces it by its header.
    pub fn extend(&self, block: &[u8]) {
        self.shared.lock().add(block.to_vec());
        let header = block[..80].try_into().expect("a block starts with a header");
        self.say("headers", &wire::encode_headers(&[header]));
    }
}

fn frame(command: &str, payload: &[u8]) -> Vec<u8> {
    wire::frame(wire::magic(Network::Regtest), command, payload)
}

impl State {
    fn add(&mut self, block: Vec<u8>) {
        let header: [u8; 80] = block[..80].try_into().expect("a block starts with a header");
        self.heights.insert(sha256d::Hash::hash(&header).to_byte_array(), self.headers.len());
        self.headers.push(header);
        self.blocks.push(block);
    }
}

impl Shared {
    // A thread that panicked has said why; the others can go on.

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stream(&self) -> MutexGuard<'_, Option<TcpStream>> {
        self.stream.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, bytes: &[u8]) {
        if let Some(stream) = &mut *self.stream() {
            // The reader notices the end.
            let _ = stream.write_all(bytes);
        }
    }

    fn serve(&self, mut stream: &TcpStream) -> std::io::Result<()> {
        stream.set_nodelay(true)?;
        let magic = wire::magic(Network::Regtest);
        loop {
            let (command, payload) = wire::receive(&mut stream, magic)?;
            match command.as_str() {
                "version" => {
                    let ours = Version {
                        protocol: 70016,
                        services: SERVICES,
                        user_agent: b"/flood:0.1/".to_vec(),
                        start_height: self.lock().headers.len() as u32 - 1,
                        relay: true,
                    };
                    let unix = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
                    let nonce = 0x666c_6f6f_6400 + self.met.fetch_add(1, Ordering::Relaxed) as u64;
                    let version = ours.encode(unix.map_or(0, |unix| unix.as_secs()), nonce);
                    for (command, payload) in
                        [("version", &version[..]), ("wtxidrelay", &[]), ("verack", &[])]
                    {
                        stream.write_all(&frame(command, payload))?;
                    }
                }
                "verack" => *self.stream() = Some(stream.try_clone()?),
                "ping" => self.write(&frame("pong", &payload)),
                "getheaders" => self.write(&frame("headers", &self.headers_after(&payload))),
                "getdata" => self.give(&payload),
                _ => {}
            }
        }
    }

    fn headers_after(&self, payload: &[u8]) -> Vec<u8> {
        let state = self.lock();
        let locator = wire::decode_getheaders(payload).map_or_else(Vec::new, |(locator, _)| locator);
        let known = locator.iter().find_map(|hash| state.heights.get(hash.as_byte_array()));
        let first = known.map_or(1, |height| height + 1);
        wire::encode_headers(state.headers.get(first..).unwrap_or_default())
    }

    fn give(&self, payload: &[u8]) {
        let entries = wire::decode_inventory(payload).unwrap_or_default();
        let state = self.lock();
        let mut answer = Vec::new();
        for (kind, hash) in entries {
            let id = hash.to_byte_array();
            if kind == MSG_WITNESS_BLOCK {
                let block = state.heights.get(&id).and_then(|height| state.blocks.get(*height));
                answer.extend(block.map(|block| frame("block", block)).unwrap_or_default());
            } else {
                answer.extend(state.offered.get(&id).map(|raw| frame("tx", raw)).unwrap_or_default());
            }
        }
        drop(state);
        self.write(&answer);
    }
}
