//! A Bitcoin peer that serves forged blocks, follows whatever chain it is told to, and announces what is new.
//!
//! Blocks go from the file to the socket without passing through here; their checksums are reckoned beforehand. So
//! it takes little of the processor that peerdex needs.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

use super::chain::Chain;
use super::wire;

const MSG_WITNESS_BLOCK: u32 = 0x4000_0002;
const MAX_HEADERS: usize = 2_000;
/// A longer branch is announced by its tip alone, as Core does.
const MAX_ANNOUNCED: usize = 8;
/// Who takes nothing for so long is not talked to any more.
const PATIENCE: Duration = Duration::from_secs(60);

/// A block that can be sent.
#[derive(Clone, Debug)]
pub struct Served {
    pub path: Arc<PathBuf>,
    pub offset: u64,
    pub length: u32,
    pub header: [u8; 80],
    pub hash: [u8; 32],
    /// First bytes of the double SHA-256 of all of it.
    pub checksum: [u8; 4],
}

impl Served {
    pub fn read(&self) -> io::Result<Vec<u8>> {
        let mut raw = vec![0; self.length as usize];
        File::open(&*self.path)?.read_exact_at(&mut raw, self.offset)?;
        Ok(raw)
    }
}

/// The blocks of a folder that the forge wrote, by height.
pub fn served(folder: &Path) -> anyhow::Result<Vec<Served>> {
    let chain = Chain::open(folder)?;
    let checksums = chain.checksums(folder)?;
    let path = Arc::new(folder.join("blocks.dat"));
    let blocks = chain.blocks.iter().zip(checksums);
    Ok(blocks
        .map(|(place, checksum)| Served {
            path: path.clone(),
            offset: place.offset,
            length: place.length,
            header: place.header,
            hash: place.hash(),
            checksum,
        })
        .collect())
}

/// Serves a folder's chain until standard input ends; the first line on standard output is the address.
pub fn serve(folder: &Path) -> anyhow::Result<()> {
    Chain::open(folder)?.warm()?;
    let peer = Peer::start(served(folder)?)?;
    println!("{}", peer.address);
    io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

/// Listens until the process ends.
#[derive(Debug)]
pub struct Peer {
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// What the peer follows, by height.
    chain: Vec<Served>,
    /// All that it ever followed: off the chain too, blocks are served to who asks.
    blocks: HashMap<[u8; 32], (usize, Served)>,
    connections: Vec<Weak<Mutex<TcpStream>>>,
    /// When the last byte of a block was handed to the system.
    sent: HashMap<[u8; 32], Instant>,
}

impl State {
    /// Whether the block is part of the chain that is followed, and where.
    fn height(&self, hash: &[u8; 32]) -> Option<usize> {
        let (height, _) = self.blocks.get(hash)?;
        (self.chain.get(*height)?.hash == *hash).then_some(*height)
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Peer {
    /// Follows this chain, which begins with genesis.
    pub fn start(chain: Vec<Served>) -> anyhow::Result<Self> {
        ensure!(!chain.is_empty(), "a chain has a genesis");
        let blocks = chain.iter().cloned().enumerate();
        let state = State {
            blocks: blocks.map(|(height, block)| (block.hash, (height, block))).collect(),
            chain,
            connections: Vec::new(),
            sent: HashMap::new(),
        };
        let shared = Arc::new(Shared { state: Mutex::new(state) });
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let accepting = shared.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = accepting.clone();
                std::thread::spawn(move || {
                    if let Err(error) = converse(&shared, stream)
                        && !is_goodbye(&error)
                    {
                        eprintln!("peer: {error:#}");
                    }
                });
            }
        });
        Ok(Self { address, shared })
    }

    /// Follows from now on its chain up to the height of `fork`, and then these; tells everybody connected.
    pub fn follow(&self, fork: usize, blocks: Vec<Served>) {
        let mut state = self.shared.state();
        let state = &mut *state;
        state.chain.truncate(fork + 1);
        for block in blocks {
            state.blocks.insert(block.hash, (state.chain.len(), block.clone()));
            state.chain.push(block);
        }
        let new = &state.chain[(fork + 1).min(state.chain.len())..];
        let announcement = if new.len() <= MAX_ANNOUNCED {
            ("headers", wire::headers(new.iter().map(|block| &block.header)))
        } else {
            ("inv", wire::announcement(&new[new.len() - 1].hash))
        };
        let connections: Vec<_> = state.connections.iter().filter_map(Weak::upgrade).collect();
        state.connections.retain(|connection| connection.strong_count() > 1);
        // A connection that is busy sending a block must not hold up the others.
        std::thread::spawn(move || {
            for connection in connections {
                let mut to = connection.lock().unwrap_or_else(PoisonError::into_inner);
                // Who is gone needs no news.
                let _ = wire::send(&mut *to, announcement.0, &announcement.1);
            }
        });
    }

    /// When the block's last byte was handed to the socket, the last time that somebody asked for it.
    pub fn sent(&self, hash: &[u8; 32]) -> Option<Instant> {
        self.shared.state().sent.get(hash).copied()
    }
}

fn is_goodbye(error: &anyhow::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, TimedOut, UnexpectedEof, WouldBlock};
    error.downcast_ref::<io::Error>().is_some_and(|error| {
        matches!(error.kind(), UnexpectedEof | ConnectionReset | BrokenPipe | TimedOut | WouldBlock)
    })
}

/// One connection.
fn converse(shared: &Shared, stream: TcpStream) -> anyhow::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut from = BufReader::new(stream.try_clone()?);
    let to = Arc::new(Mutex::new(stream));
    // With positions of their own.
    let mut files = HashMap::new();
    let mut payload = Vec::new();
    let send = |command: &str, payload: &[u8]| -> io::Result<()> {
        wire::send(&mut *to.lock().unwrap_or_else(PoisonError::into_inner), command, payload)
    };
    loop {
        let command = wire::receive(&mut from, &mut payload)?;
        match command.as_str() {
            "version" => {
                let height = shared.state().chain.len() as u32 - 1;
                send("version", &wire::version(height))?;
                send("wtxidrelay", &[])?;
                send("sendaddrv2", &[])?;
                send("verack", &[])?;
            }
            "verack" => shared.state().connections.push(Arc::downgrade(&to)),
            "ping" => send("pong", &payload)?,
            "getheaders" => {
                let locator = wire::locator(&payload).context("getheaders that can't be read")?;
                let state = shared.state();
                let known = locator.iter().find_map(|hash| state.height(hash)).unwrap_or(0);
                let end = state.chain.len().min(known + 1 + MAX_HEADERS);
                let message = wire::headers(state.chain[known + 1..end].iter().map(|block| &block.header));
                drop(state);
                send("headers", &message)?;
            }
            "getdata" => {
                for (kind, hash) in wire::inventory(&payload).context("getdata that can't be read")? {
                    let block = shared.state().blocks.get(&hash).map(|(_, block)| block.clone());
                    let Some(block) = block.filter(|_| kind == MSG_WITNESS_BLOCK) else {
                        eprintln!("peer: getdata of type {kind:#x} is not served");
                        continue;
                    };
                    send_block(&mut to.lock().unwrap_or_else(PoisonError::into_inner), &block, &mut files)?;
                    shared.state().sent.insert(hash, Instant::now());
                }
            }
            _ => {}
        }
    }
}

fn send_block(
    to: &mut TcpStream,
    block: &Served,
    files: &mut HashMap<Arc<PathBuf>, File>,
) -> anyhow::Result<()> {
    let file = match files.entry(block.path.clone()) {
        std::collections::hash_map::Entry::Occupied(entry) => entry.into_mut(),
        std::collections::hash_map::Entry::Vacant(entry) => entry.insert(File::open(&*block.path)?),
    };
    to.write_all(&wire::head("block", block.length as usize, block.checksum))?;
    file.seek(SeekFrom::Start(block.offset))?;
    // From file to socket the system does this by itself.
    let sent = io::copy(&mut file.take(u64::from(block.length)), to)?;
    ensure!(sent == u64::from(block.length), "the chain's file became shorter");
    Ok(())
}
