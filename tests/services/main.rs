//! Services from outside, against the real program: TLS, websockets, PROXY headers, the session limit, the
//! operator's lines; and those who mean harm to each.
//!
//! No node and no chain: what is asked is answered by a server that has synced nothing.

#![allow(clippy::unwrap_used, reason = "helpers of tests, which may fail")]

#[path = "../support/mod.rs"]
mod support;

mod clients;
mod limit;
mod operator;
mod proxy;
mod tls;
mod websocket;

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use tempfile::TempDir;

use support::free_address;
use support::server::{Options, Server};

const PEERDEX: &str = env!("CARGO_BIN_EXE_peerdex");
/// What is done "at once" on a busy machine.
const SOON: Duration = Duration::from_secs(10);

/// A server on regtest whose only peer is nobody, with one more service and other arguments.
struct Served {
    server: Server,
    /// Where the service is.
    at: SocketAddr,
}

fn options(at: SocketAddr, protocol: &str, arguments: &[&str]) -> Options {
    let mut options = Options::new(PEERDEX, "regtest").connect(free_address());
    options.extra.extend(["--service".to_string(), format!("{protocol}://{at}")]);
    options.extra.extend(arguments.iter().map(ToString::to_string));
    options
}

fn serve(protocol: &str, arguments: &[&str]) -> Served {
    let at = free_address();
    let mut server = options(at, protocol, arguments).start();
    server.client();
    Served { server, at }
}

/// Starts it again on the folder of before, at the same address.
fn serve_again(at: SocketAddr, protocol: &str, folder: TempDir) -> Served {
    let mut server = options(at, protocol, &[]).start_in(folder);
    server.client();
    Served { server, at }
}

fn text_of(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
