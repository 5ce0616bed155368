//! A whole peerdex on one machine, with nothing but this checkout: real mainnet blocks, a peer, and wallets.
//!
//! A replay peer serves blocks 0 to 4521 of `fixtures/` over loopback, peerdex syncs them from it as from any
//! other peer and serves them to wallets, until Ctrl-C. Nothing leaves the machine.
//! `cargo run --release --example demo [-- SETTINGS OF PEERDEX]`

#![allow(clippy::unwrap_used)]

// Of the tests' support what serves blocks; it finds its neighbours as `super`.
#[path = "conversation.rs"]
#[allow(dead_code)]
mod conversation;
#[path = "fixtures.rs"]
#[allow(dead_code)]
mod fixtures;
#[path = "replay.rs"]
#[allow(dead_code)]
mod replay;
#[path = "wire.rs"]
#[allow(dead_code)]
mod wire;

use std::ffi::OsString;
use std::process::ExitCode;

use bitcoin::Network;
use peerdex::config::{self, Command};
use peerdex::io;

use replay::ReplayPeer;

/// Where wallets connect unless an argument says otherwise: mainnet's usual port.
const SERVICE: &str = "tcp://127.0.0.1:50001";

fn main() -> ExitCode {
    let blocks = fixtures::run_from_genesis(Network::Bitcoin);
    let newest = blocks.len() - 1;
    let peer = ReplayPeer::start(Network::Bitcoin, blocks);
    let folder = tempfile::tempdir().expect("a temporary folder");

    let own = std::env::args().skip(1).collect::<Vec<_>>();
    let service = own.iter().skip_while(|arg| *arg != "--service").nth(1);
    let service = service.map_or(SERVICE, String::as_str).to_string();
    let mut arguments: Vec<String> = vec!["peerdex".into()];
    arguments.extend(
        ["--network", "mainnet", "--min-chain-work", "0", "--ignore-disk-space", "--connect"]
            .map(String::from),
    );
    arguments.extend([peer.address().to_string(), "--data-dir".into(), folder.path().display().to_string()]);
    if !own.iter().any(|argument| argument == "--service") {
        arguments.extend(["--service".into(), SERVICE.into()]);
    }
    arguments.extend(own);

    println!(
        "A peer on {peer} serves the real mainnet blocks 0 to {newest}; peerdex fetches them now.\n\
         Wallets connect to {host} over plain TCP: Sparrow, or what is built on BDK. (Electrum wants a chain \
         that is longer than its built-in checkpoints: show it a server beside your own node.)\n\n\
         Or ask by hand, here for the proof of the first payment between two people, in block 170:\n\n    \
         echo '{{\"id\": 0, \"method\": \"blockchain.transaction.id_from_pos\", \"params\": [170, 1, true]}}' \
         | nc -N {nc}\n\n\
         Against a node of your own:  peerdex --connect 127.0.0.1:8333\n\
         Ctrl-C ends it and leaves nothing behind.\n",
        peer = peer.address(),
        host = service.trim_start_matches("tcp://"),
        nc = service.trim_start_matches("tcp://").replace(':', " "),
    );

    run(arguments)
}

/// Runs the server on this thread until Ctrl-C.
fn run(arguments: Vec<String>) -> ExitCode {
    let arguments = arguments.into_iter().map(OsString::from);
    let command = config::load(arguments, std::env::vars_os(), |path| std::fs::read_to_string(path));
    let outcome = match command {
        Ok(Command::Run(config)) => io::run(&config).map_err(|error| format!("{error:#}")),
        Ok(Command::Print(text)) => Err(text),
        Ok(_) => Err("the demo only runs".into()),
        Err(error) => Err(error.to_string()),
    };
    outcome.map_or_else(
        |error| {
            eprintln!("{error}");
            ExitCode::FAILURE
        },
        |()| ExitCode::SUCCESS,
    )
}
