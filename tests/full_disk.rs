//! A disk that is really full, under the real program: wallets are served what is there, and when there is space again
//! the sync goes on by itself, to the answers of an index that never met it.

#![allow(clippy::unwrap_used)]

mod support;

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use bitcoin::constants::genesis_block;
use bitcoin::hashes::Hash;
use bitcoin::{Amount, Block, Network, OutPoint, ScriptBuf, TxOut, Txid};
use serde_json::json;

use support::compare::assert_same_scripts;
use support::naive::{NaiveIndex, script_hash};
use support::replay::{Announce, ReplayPeer};
use support::server::{Options, Server, can_mount};
use support::{mine, purse};

const PEERDEX: &str = env!("CARGO_BIN_EXE_peerdex");
const SYNC: Duration = Duration::from_secs(120);
/// The small disk, in megabytes.
const DISK_MB: u32 = 80;
/// Bytes of each block that nobody asks for: blocks are what fills the disk.
const PADDING_BYTES: usize = 60_000;

/// A regtest chain: in each block the coinbase pays scripts old and new, and a payment spends an older one.
fn chain(blocks: u32) -> Vec<Vec<u8>> {
    let mut chain = vec![genesis_block(Network::Regtest)];
    while chain.len() < blocks as usize {
        let next = block(&chain);
        chain.push(next);
    }
    chain.iter().map(bitcoin::consensus::serialize).collect()
}

/// Anyone can spend it: scripts are run.
fn script(n: u32) -> ScriptBuf {
    ScriptBuf::from([&[0x04][..], &n.to_le_bytes(), &[0x51]].concat())
}

fn block(chain: &[Block]) -> Block {
    let height = chain.len() as u32;
    let pay = |script_pubkey, value| TxOut { value: Amount::from_sat(value), script_pubkey };
    let mut output = vec![pay(script(height % 7), 5_000_000), pay(script(1_000 + height), 1_000)];
    output.push(pay(ScriptBuf::from([&[0x6a][..], &[0x51; PADDING_BYTES]].concat()), 0));
    let mut txdata = vec![mine::coinbase(height, 0, output)];
    if let Some(mature) = height.checked_sub(101).filter(|mature| *mature > 0) {
        let spent = OutPoint::new(chain[mature as usize].txdata[0].compute_txid(), 0);
        let output = vec![pay(script(height % 5), 2_000_000), pay(script(2_000 + height), 3_000_000)];
        txdata.push(purse::transaction(vec![purse::replaceable(spent)], output));
    }
    let parent = &chain[chain.len() - 1].header;
    mine::block(parent, parent.time + 600, txdata)
}

fn tip_of(chain: &[Vec<u8>]) -> String {
    bitcoin::hashes::sha256d::Hash::hash(&chain.last().unwrap()[..80]).to_string()
}

/// Fills the file system of `folder` but for so many bytes.
fn fill(folder: &Path, leave: u64) -> File {
    let path = folder.join("filler");
    let mut file = OpenOptions::new().create(true).truncate(true).write(true).open(path).unwrap();
    let chunk = [1; 64 * 1024];
    while file.write_all(&chunk).is_ok() {}
    let length = file.metadata().unwrap().len();
    file.set_len(length.checked_sub(leave).expect("the disk had that much")).unwrap();
    file
}

fn start(chain: &[Vec<u8>]) -> Option<(ReplayPeer, Server)> {
    if !can_mount() {
        support::skipped("no file system may be mounted here (unshare -rm)");
        return None;
    }
    let peer = ReplayPeer::start(Network::Regtest, chain.to_vec());
    let options = Options { disk_mb: Some(DISK_MB), ..Options::new(PEERDEX, "regtest") };
    let server = options.connect(peer.address()).start();
    Some((peer, server))
}

/// Every script's answers are those of the naive index, and no part of the program failed.
fn assert_whole(server: &mut Server, chain: &[Vec<u8>]) {
    let index = NaiveIndex::of_raw(chain);
    assert_same_scripts(&mut server.client(), &index);
    assert!(!server.log().contains("panicked"), "{}", server.log());
}

#[test]
fn full_at_the_tip_wallets_are_served_and_it_goes_on_by_itself() {
    let long = chain(500);
    let short = &long[..250];
    let Some((peer, mut server)) = start(short) else { return };
    server.wait_synced(&tip_of(short), SYNC);
    let index = NaiveIndex::of_raw(short);
    let known = script_hash(script(1_007).as_bytes());
    let folder = server.folder_inside();

    // Twice: what was once repaired must be repairable again.
    for (upto, leave) in [(380, 6 << 20), (500, 300_000)] {
        let filler = fill(&folder, leave);
        let said = server.log().matches("disk full").count();
        peer.set_chain(long[..upto].to_vec(), Announce::Headers);
        server.wait_for("the disk to be full", SYNC, |server| {
            (server.log().matches("disk full").count() > said).then_some(())
        });
        // Read-only, for longer than one measuring takes.
        for _ in 0..8 {
            let mut client = server.client();
            let history = client.call("blockchain.scripthash.get_history", json!([known])).unwrap();
            assert_eq!(history.as_array().unwrap().len(), 1, "{history}");
            let coins = client.call("blockchain.scripthash.listunspent", json!([known])).unwrap();
            assert_eq!(coins, index.unspent()[script(1_007).as_bytes()]);
            std::thread::sleep(Duration::from_millis(500));
        }
        assert_eq!(server.log().matches("disk full").count(), said + 1, "said once:\n{}", server.log());
        let txid: Txid = index.txids(7)[0];
        let raw = server.client().call("blockchain.transaction.get", json!([txid.to_string()])).unwrap();
        assert!(raw.as_str().unwrap().len() > 2 * PADDING_BYTES);

        filler.set_len(0).unwrap();
        server.wait_for_log(&["space on the disk again"], SYNC);
        server.wait_synced(&tip_of(&long[..upto]), SYNC);
    }
    assert_whole(&mut server, &long);
    assert_eq!(peer.violations(), Vec::<String>::new());
    server.stop();
}

#[test]
fn full_in_the_first_sync_it_waits_and_ends_whole() {
    let chain = chain(400);
    let Some((peer, mut server)) = start(&chain[..1]) else { return };
    server.wait_for_log(&["store opened"], SYNC);
    let filler = fill(&server.folder_inside(), 12 << 20);
    peer.set_chain(chain.clone(), Announce::Headers);
    server.wait_for_log(&["disk full"], SYNC);
    // Wallets hear that it is syncing, as before.
    let answer = server.client().history(&[]);
    assert!(answer.is_ok() || support::server::is_syncing(&answer.unwrap_err()));

    filler.set_len(0).unwrap();
    server.wait_for_log(&["space on the disk again"], SYNC);
    server.wait_synced(&tip_of(&chain), SYNC);
    assert_whole(&mut server, &chain);
    assert_eq!(peer.violations(), Vec::<String>::new());
    server.stop();
}

#[test]
fn a_disk_that_cannot_hold_the_chain_is_refused_unless_told_otherwise() {
    if !can_mount() {
        support::skipped("no file system may be mounted here (unshare -rm)");
        return;
    }
    let options = Options {
        disk_mb: Some(DISK_MB),
        ignore_disk_space: false,
        ..Options::new(PEERDEX, "mainnet").connect(support::free_address())
    };
    let mut server = options.start();
    let line = server.wait_for_end_with_log(&["too small"]);
    for word in ["1242.0 GB more", "MB are free", "--ignore-disk-space", "--data-dir"] {
        assert!(line.contains(word), "'{word}' is missing in: {line}");
    }
}
