//! What the tests and the demo share: peers, wallets and nodes around a running peerdex.
//!
//! Threads and blocking sockets only, and nothing of the server's own code: it is tested from outside, by
//! programs that could have been written by others.

// Each test is a program of its own and uses a part of this.
#![allow(dead_code, unused_imports)]
// A test that can't go on stops; its message says where.
#![allow(clippy::unwrap_used)]

// The chain.
pub mod fixtures;
pub mod mine;
pub mod naive;
// Who gives it to peerdex.
pub mod conversation;
pub mod node;
pub mod oddities;
pub mod payments;
pub mod purse;
pub mod replay;
pub mod slow_link;
pub mod wire;
// peerdex itself.
pub mod server;
pub mod socks;
// Who asks peerdex.
pub mod client;
pub mod compare;
pub mod wallet;

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

/// An address on loopback that nobody listened on a moment ago.
pub fn free_address() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback has a free port");
    listener.local_addr().expect("a bound listener has an address")
}

/// Connects to a program of the test on loopback.
// The server's dialer is not ours to use: we are the other side.
#[allow(clippy::disallowed_methods)]
pub fn connect(to: SocketAddr) -> std::io::Result<TcpStream> {
    assert!(to.ip().is_loopback(), "nothing leaves the machine");
    TcpStream::connect_timeout(&to, Duration::from_secs(5))
}

/// Asks until the answer is there; panics with `what` after `limit`.
pub fn wait_for<T>(what: &str, limit: Duration, mut ask: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(start.elapsed() < limit, "waited {limit:?} for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Says on stderr that a test did nothing, past the capture of `cargo test`.
pub fn skipped(why: &str) {
    use std::io::Write;
    // `eprintln!` is captured when the test passes; a handle on stderr is not.
    let mut stderr = std::io::stderr().lock();
    let test = std::thread::current().name().unwrap_or("a test").to_string();
    let _ = writeln!(stderr, "\nSKIPPED: {why} ({test})");
}
