//! Peers and wallets that mean harm, against the real program: whatever they do, an honest wallet is served from
//! the honest chain, memory stays flat, and the program stops when told.

#![allow(clippy::unwrap_used, reason = "helpers of tests, which may fail")]

#[path = "../support/mod.rs"]
mod support;

mod compact;
mod floods;
mod peers;
mod wallets;

use std::io::{ErrorKind, Read};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use bitcoin::Network;
use bitcoin::hashes::{Hash, sha256d};

use support::fixtures;
use support::replay::ReplayPeer;
use support::server::{Options, Server};

const PEERDEX: &str = env!("CARGO_BIN_EXE_peerdex");
const SYNC: Duration = Duration::from_secs(60);
/// What closes "at once" may take on a busy machine.
const SOON: Duration = Duration::from_secs(10);

/// The first blocks of mainnet, the first payment among them.
fn chain() -> Vec<Vec<u8>> {
    let mut blocks = fixtures::run_from_genesis(Network::Bitcoin);
    blocks.truncate(200);
    blocks
}

fn tip_of(chain: &[Vec<u8>]) -> String {
    sha256d::Hash::hash(&chain.last().unwrap()[..80]).to_string()
}

/// A server that has synced from an honest peer, which must be kept.
fn synced() -> (ReplayPeer, Server) {
    let chain = chain();
    let honest = ReplayPeer::start(Network::Bitcoin, chain.clone());
    let mut server = Options::new(PEERDEX, "mainnet").connect(honest.address()).start();
    server.wait_synced(&tip_of(&chain), SYNC);
    (honest, server)
}

/// How long until the other side closed; `None` when it did not within `limit`.
fn closed_after(stream: &mut TcpStream, limit: Duration) -> Option<Duration> {
    let start = Instant::now();
    let mut buffer = [0; 64 * 1024];
    while let Some(left) = limit.checked_sub(start.elapsed()).filter(|left| !left.is_zero()) {
        stream.set_read_timeout(Some(left)).unwrap();
        match stream.read(&mut buffer) {
            Ok(0) => return Some(start.elapsed()),
            Ok(_) => {}
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => return None,
            Err(_) => return Some(start.elapsed()),
        }
    }
    None
}
