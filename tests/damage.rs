//! Block files that were damaged while the program was down: wallets are told, the blocks are fetched again, and stay.

#![allow(clippy::unwrap_used, reason = "helpers of tests, which may fail")]

mod support;

use std::fs;
use std::path::Path;
use std::time::Duration;

use bitcoin::{Block, Network};
use serde_json::{Value, json};

use support::client::Client;
use support::compare::assert_same_scripts;
use support::fixtures;
use support::naive::NaiveIndex;
use support::replay::{Announce, ReplayPeer};
use support::server::{Options, Server};

const PEERDEX: &str = env!("CARGO_BIN_EXE_peerdex");
const SYNC: Duration = Duration::from_secs(120);
/// What a repair may take on a busy machine.
const REPAIR: Duration = Duration::from_secs(30);

fn block(raw: &[u8]) -> Block {
    bitcoin::consensus::deserialize(raw).unwrap()
}

fn hash_of(raw: &[u8]) -> String {
    block(raw).block_hash().to_string()
}

/// The last transaction of a block: its id, and its bytes in hex.
fn last_tx(raw: &[u8]) -> (String, String) {
    let tx = block(raw).txdata.pop().unwrap();
    (tx.compute_txid().to_string(), bitcoin::consensus::encode::serialize_hex(&tx))
}

fn block_file(folder: &Path) -> std::path::PathBuf {
    folder.join("blocks/00000.blk")
}

/// Turns the last bit of a block's bytes in the block file.
fn turn_a_bit(folder: &Path, raw: &[u8]) {
    let mut bytes = fs::read(block_file(folder)).unwrap();
    let at = bytes.windows(raw.len()).position(|window| window == raw).unwrap();
    bytes[at + raw.len() - 1] ^= 1;
    fs::write(block_file(folder), bytes).unwrap();
}

fn ask(client: &mut Client, txid: &str) -> Result<Value, String> {
    client.call("blockchain.transaction.get", json!([txid])).map_err(|error| error.message)
}

/// Asks until there is an answer. What was said in place of it must be that the wallet is to ask again.
fn ask_until_answered(server: &mut Server, txid: &str) -> Value {
    let mut client = server.client();
    server.wait_for(&format!("transaction {txid}"), REPAIR, |_| match ask(&mut client, txid) {
        Ok(answer) => Some(answer),
        Err(message) => {
            assert!(
                message.contains("is damaged on this server") && message.contains("ask again"),
                "{message}"
            );
            None
        }
    })
}

#[test]
fn a_damaged_block_is_fetched_again_when_a_wallet_asks_for_it() {
    let blocks = fixtures::run_from_genesis(Network::Bitcoin);
    let tip = hash_of(&blocks[4521]);
    let peer = ReplayPeer::start(Network::Bitcoin, blocks.clone());
    let options = Options::new(PEERDEX, "mainnet").connect(peer.address());
    let mut server = options.start();
    server.wait_synced(&tip, SYNC);
    let folder = server.stop();
    // In the base, and among the newest.
    for height in [170, 4500] {
        turn_a_bit(folder.path(), &blocks[height]);
    }

    let mut server = options.start_in(folder);
    server.wait_synced(&tip, SYNC);
    for height in [170, 4500] {
        let (txid, raw) = last_tx(&blocks[height]);
        let message = ask(&mut server.client(), &txid).unwrap_err();
        assert!(message.starts_with(&format!("block {height} is damaged")), "{message}");
        assert_eq!(ask_until_answered(&mut server, &txid), json!(raw), "block {height}");
        let height_is = format!("height={height}");
        server.wait_for_log(&["warn", "damaged", "block file 00000", &height_is], REPAIR);
        server.wait_for_log(&["fetched again", &height_is], REPAIR);
    }
    assert_eq!(peer.served()[&170], 2);
    assert_eq!(peer.violations(), Vec::<String>::new());
    let folder = server.kill();

    // What was repaired is durable, and needs no peer.
    drop(peer);
    let peer = ReplayPeer::start(Network::Bitcoin, blocks.clone());
    let mut server = Options::new(PEERDEX, "mainnet").connect(peer.address()).start_in(folder);
    server.wait_synced(&tip, SYNC);
    for height in [170, 4500] {
        let (txid, raw) = last_tx(&blocks[height]);
        assert_eq!(ask(&mut server.client(), &txid), Ok(json!(raw)));
    }
    assert_eq!(peer.served().len(), 0);
    assert_same_scripts(&mut server.client(), &NaiveIndex::of_raw(&blocks));
    server.stop();
}

#[test]
fn a_block_file_that_was_cut_short_is_filled_again_and_the_chain_goes_on() {
    let blocks = fixtures::run_from_genesis(Network::Bitcoin)[..=300].to_vec();
    let peer = ReplayPeer::start(Network::Bitcoin, blocks[..300].to_vec());
    let options = Options::new(PEERDEX, "mainnet").connect(peer.address());
    let mut server = options.start();
    server.wait_synced(&hash_of(&blocks[299]), SYNC);
    let folder = server.stop();
    // Ten blocks and a part of one.
    let lost: usize = blocks[290..300].iter().map(|raw| raw.len() + 12).sum();
    let file = fs::File::options().write(true).open(block_file(folder.path())).unwrap();
    file.set_len(file.metadata().unwrap().len() - lost as u64 - 50).unwrap();
    drop(file);

    // Nobody asks: what is missing is known at the start.
    let mut server = options.start_in(folder);
    server.wait_for("the blocks to be fetched again", REPAIR, |_| {
        (289..300).all(|height| peer.served().get(&height) == Some(&2)).then_some(())
    });
    assert_eq!(peer.served()[&288], 1);
    server.wait_for_log(&["fetched again", "height=289"], REPAIR);
    peer.set_chain(blocks.clone(), Announce::Headers);
    server.wait_synced(&hash_of(&blocks[300]), SYNC);
    for height in [288, 289, 295, 299, 300] {
        let (txid, raw) = last_tx(&blocks[height]);
        assert_eq!(ask_until_answered(&mut server, &txid), json!(raw), "block {height}");
    }
    let folder = server.kill();
    let mut server = options.start_in(folder);
    server.wait_synced(&hash_of(&blocks[300]), SYNC);
    assert_same_scripts(&mut server.client(), &NaiveIndex::of_raw(&blocks));
    server.stop();
}
