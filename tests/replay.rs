//! Real chains from genesis on, served by a replay peer over the wire protocol: whatever a wallet may ask
//! of them afterwards is compared with an index made in the plainest way from the same blocks.

#![allow(clippy::unwrap_used)]

mod support;

use std::time::Duration;

use bitcoin::{Block, Network};
use serde_json::json;

use support::compare::{assert_merkle_proofs, assert_same_scripts, merkle_root, served_headers};
use support::fixtures;
use support::naive::NaiveIndex;
use support::replay::{Announce, Manners, ReplayPeer};
use support::server::{Options, Server};

const PEERDEX: &str = env!("CARGO_BIN_EXE_peerdex");
/// Longest wait for a sync; they take seconds, but the machine may be busy.
const SYNC: Duration = Duration::from_secs(120);

/// Transaction of the first payment, Satoshi Nakamoto to Hal Finney, in block 170.
const FIRST_PAYMENT: &str = "f4184fc596403b9d638783cf57adfe4c75c605f6356fbc91338530e9831e9e16";
/// The key that received the reward of block 9 and made the first payment from it.
const SATOSHIS_KEY: &str = "0411db93e1dcdb8a016b49840f8c53bc1eb68a382e97b1482ecad7b148a6909a5cb2e0eaddfb84ccf97\
                            44464f82e160bfa9b8b64f9d4c03f999b8643f656b412a3";

fn hash_of(block: &[u8]) -> String {
    bitcoin::consensus::deserialize::<Block>(block).unwrap().block_hash().to_string()
}

fn p2pk(key: &str) -> Vec<u8> {
    let key: Vec<u8> = bitcoin::hex::FromHex::from_hex(key).unwrap();
    [&[key.len() as u8], &key[..], &[0xac]].concat()
}

/// What a sync cost, for the log of the tests.
fn report(what: &str, blocks: &[Vec<u8>], took: Duration, server: &Server) {
    let megabytes = blocks.iter().map(Vec::len).sum::<usize>() as f64 / 1e6;
    let peak = server.peak_memory_bytes() as f64 / 1e6;
    println!("{what}: {} blocks, {megabytes:.1} MB in {took:.2?}, peak memory {peak:.0} MB", blocks.len());
}

#[test]
fn mainnet_from_genesis_answers_as_a_naive_index() {
    let blocks = fixtures::run_from_genesis(Network::Bitcoin);
    let peer = ReplayPeer::start(Network::Bitcoin, blocks.clone());
    let mut server = Options::new(PEERDEX, "mainnet").connect(peer.address()).start();

    let took = server.wait_synced(&hash_of(&blocks[4521]), SYNC);
    report("mainnet 0 to 4521", &blocks, took, &server);

    let index = NaiveIndex::of_raw(&blocks);
    let mut alice = server.client();
    assert_same_scripts(&mut alice, &index);
    let headers = served_headers(&mut alice);
    assert_eq!(headers.len(), 4522);
    assert_merkle_proofs(&mut alice, &index, &headers);
    assert_eq!(peer.violations(), Vec::<String>::new());
    assert!(peer.served().values().all(|times| *times == 1), "each block is fetched once");
    server.stop();
}

#[test]
fn the_first_payment_is_where_everybody_knows_it() {
    let blocks = fixtures::run_from_genesis(Network::Bitcoin);
    let peer = ReplayPeer::start(Network::Bitcoin, blocks.clone());
    let mut server = Options::new(PEERDEX, "mainnet").connect(peer.address()).start();
    server.wait_synced(&hash_of(&blocks[4521]), SYNC);
    let mut alice = server.client();

    // Ten coins of block 9's fifty went to Hal Finney; the change came back to the same key.
    let satoshi = p2pk(SATOSHIS_KEY);
    let history = alice.history(&satoshi).unwrap();
    let heights: Vec<u64> =
        history.as_array().unwrap().iter().map(|tx| tx["height"].as_u64().unwrap()).collect();
    assert_eq!(heights, [9, 170, 181, 182, 183, 248]);
    assert_eq!(history[1]["tx_hash"], json!(FIRST_PAYMENT));
    assert_eq!(alice.balance(&satoshi), Ok((18_0000_0000, 0)));

    let proof = alice.call("blockchain.transaction.get_merkle", json!([FIRST_PAYMENT, 170])).unwrap();
    assert_eq!((&proof["block_height"], &proof["pos"]), (&json!(170), &json!(1)));
    assert_eq!(proof["merkle"], json!(["b1fea52486ce0c62bb442b530a3f0132b826c74e473d1f2c220bfa78111c5082"]));
    let header = alice.call("blockchain.block.header", json!([170])).unwrap();
    let header: Vec<u8> = bitcoin::hex::FromHex::from_hex(header.as_str().unwrap()).unwrap();
    let root = merkle_root(FIRST_PAYMENT.parse().unwrap(), 1, &proof["merkle"]);
    assert_eq!(header[36..68], *AsRef::<[u8]>::as_ref(&root));

    let raw = alice.call("blockchain.transaction.get", json!([FIRST_PAYMENT])).unwrap();
    let tx: bitcoin::Transaction =
        bitcoin::consensus::encode::deserialize_hex(raw.as_str().unwrap()).unwrap();
    assert_eq!(tx.compute_txid().to_string(), FIRST_PAYMENT);
    assert_eq!(
        tx.output.iter().map(|output| output.value.to_sat()).collect::<Vec<_>>(),
        [10_0000_0000, 40_0000_0000]
    );
    let found = alice.call("blockchain.transaction.id_from_pos", json!([170, 1, false])).unwrap();
    assert_eq!(found, json!(FIRST_PAYMENT));

    // The genesis block's coinbase was never a coin, and no node gives it away.
    let genesis: Block = bitcoin::consensus::deserialize(&blocks[0]).unwrap();
    let coinbase = &genesis.txdata[0];
    assert_eq!(alice.history(coinbase.output[0].script_pubkey.as_bytes()), Ok(json!([])));
    let refused = alice.call("blockchain.transaction.get", json!([coinbase.compute_txid().to_string()]));
    let words =
        "The genesis block coinbase is not considered an ordinary transaction and cannot be retrieved";
    assert!(refused.is_err_and(|error| error.message.contains(words)));
}

#[test]
fn testnet3_from_genesis_answers_as_a_naive_index() {
    let blocks = fixtures::run_from_genesis(Network::Testnet);
    let peer = ReplayPeer::start(Network::Testnet, blocks.clone());
    let mut server = Options::new(PEERDEX, "testnet3").connect(peer.address()).start();

    let took = server.wait_synced(&hash_of(&blocks[4000]), SYNC);
    report("testnet3 0 to 4000", &blocks, took, &server);

    let index = NaiveIndex::of_raw(&blocks);
    let mut alice = server.client();
    assert_same_scripts(&mut alice, &index);
    let headers = served_headers(&mut alice);
    assert_eq!(headers.len(), 4001);
    assert_merkle_proofs(&mut alice, &index, &headers);
    assert_eq!(peer.violations(), Vec::<String>::new());
    server.stop();
}

#[test]
fn signet_from_genesis_passes_its_challenge() {
    let blocks = fixtures::run_from_genesis(Network::Signet);
    let peer = ReplayPeer::start(Network::Signet, blocks.clone());
    let mut server = Options::new(PEERDEX, "signet").connect(peer.address()).start();

    server.wait_synced(&hash_of(&blocks[120]), SYNC);

    assert_same_scripts(&mut server.client(), &NaiveIndex::of_raw(&blocks));
    server.stop();
}

#[test]
fn the_handshake_is_as_core_expects_it() {
    let blocks = fixtures::run_from_genesis(Network::Signet);
    let peer = ReplayPeer::start(Network::Signet, blocks.clone());
    let mut server = Options::new(PEERDEX, "signet").connect(peer.address()).start();
    server.wait_synced(&hash_of(&blocks[120]), SYNC);

    let versions = peer.versions();
    assert_eq!(versions.len(), 1, "one connection is enough");
    assert_eq!(versions[0].services, 1 << 3, "NODE_WITNESS and nothing that is not served");
    assert!(versions[0].relay, "unconfirmed transactions are followed");
    assert!((70015..=70016).contains(&versions[0].protocol));
    assert!(versions[0].user_agent.starts_with(b"/peerdex:"));
    assert_eq!(peer.violations(), Vec::<String>::new());
}

#[test]
fn an_announced_block_is_served_at_once() {
    for announce in [Announce::Headers, Announce::Inv] {
        let blocks = fixtures::run_from_genesis(Network::Bitcoin);
        let peer = ReplayPeer::start(Network::Bitcoin, blocks[..=1000].to_vec());
        let mut server = Options::new(PEERDEX, "mainnet").connect(peer.address()).start();
        server.wait_synced(&hash_of(&blocks[1000]), SYNC);
        let mut alice = server.client();
        assert_eq!(alice.tip().unwrap().0, 1000);

        peer.set_chain(blocks[..=1003].to_vec(), announce);

        let heights = std::iter::from_fn(|| alice.notification(Duration::from_secs(5)));
        let heights: Vec<_> = heights
            .inspect(|(method, _)| assert_eq!(method, "blockchain.headers.subscribe"))
            .map(|(_, params)| params[0]["height"].as_u64().unwrap())
            .take_while(|height| *height != 1003)
            .collect();
        assert!(heights.iter().all(|height| (1001..1003).contains(height)), "{announce:?}: {heights:?}");
        assert_eq!(alice.tip().unwrap().0, 1003, "{announce:?}");
        assert_eq!(peer.violations(), Vec::<String>::new());
    }
}

#[test]
fn blocks_come_from_the_peer_that_delivers() {
    let blocks = fixtures::run_from_genesis(Network::Bitcoin);
    let with = |change: fn(&mut Manners)| {
        let mut manners = Manners::default();
        change(&mut manners);
        ReplayPeer::with_manners(Network::Bitcoin, blocks.clone(), manners)
    };
    let honest = with(|manners| manners.pause = Duration::from_millis(1));
    let silent = with(|manners| manners.stall_at = Some(40));
    let fickle = with(|manners| manners.hang_up_after = Some(30));
    let liar = with(|manners| manners.corrupt = Some(25));
    let mut options = Options::new(PEERDEX, "mainnet");
    for peer in [&silent, &fickle, &liar, &honest] {
        options = options.connect(peer.address());
    }
    let mut server = options.start();

    server.wait_synced(&hash_of(&blocks[4521]), SYNC);

    assert_same_scripts(&mut server.client(), &NaiveIndex::of_raw(&blocks));
    for peer in [&silent, &fickle, &liar, &honest] {
        assert_eq!(peer.violations(), Vec::<String>::new());
    }
    server.stop();
}

#[test]
fn blocks_that_a_bad_line_damages_are_fetched_again_from_the_same_peer() {
    let blocks = fixtures::run_from_genesis(Network::Bitcoin)[..300].to_vec();
    // Two in a row are forgiven, the third is not.
    let peer = ReplayPeer::with_manners(
        Network::Bitcoin,
        blocks.clone(),
        Manners { damage: 2, ..Manners::default() },
    );
    let mut server = Options::new(PEERDEX, "mainnet").connect(peer.address()).start();
    server.wait_synced(&hash_of(&blocks[299]), SYNC);
    assert_eq!(peer.versions().len(), 1, "the connection was kept; the log:\n{}", server.log());
    server.wait_for_log(&["warn", "damaged on its way"], SYNC);
    let sent: usize = peer.served().values().sum();
    assert_eq!(sent, 299 + 2, "each was asked again, once");
    assert_eq!(peer.violations(), Vec::<String>::new());
    assert_same_scripts(&mut server.client(), &NaiveIndex::of_raw(&blocks));
    server.stop();
}

#[test]
fn a_peer_that_sends_damaged_blocks_only_is_left() {
    let blocks = fixtures::run_from_genesis(Network::Bitcoin)[..300].to_vec();
    let bad = Manners { damage: usize::MAX, ..Manners::default() };
    let bad = ReplayPeer::with_manners(Network::Bitcoin, blocks.clone(), bad);
    let good = ReplayPeer::start(Network::Bitcoin, blocks.clone());
    let mut server = Options::new(PEERDEX, "mainnet").connect(bad.address()).connect(good.address()).start();
    server.wait_synced(&hash_of(&blocks[299]), SYNC);
    let line = server.wait_for_log(&["does not match its checksum"], SYNC);
    assert!(line.contains(&bad.address().to_string()), "{line}");
    assert_eq!(good.versions().len(), 1, "the log:\n{}", server.log());
    server.stop();
}

#[test]
fn a_sync_that_was_stopped_goes_on_where_it_was() {
    let blocks = fixtures::run_from_genesis(Network::Bitcoin);
    let slow = Manners { pause: Duration::from_millis(1), ..Manners::default() };
    let peer = ReplayPeer::with_manners(Network::Bitcoin, blocks.clone(), slow);
    let options = Options::new(PEERDEX, "mainnet").connect(peer.address());
    let mut server = options.start();
    server.wait_for("a quarter of the blocks", SYNC, |_| (peer.served().len() > 1100).then_some(()));
    let folder = server.stop();

    let mut server = options.start_in(folder);
    server.wait_synced(&hash_of(&blocks[4521]), SYNC);

    assert_same_scripts(&mut server.client(), &NaiveIndex::of_raw(&blocks));
    let twice = peer.served().values().filter(|times| **times > 1).count();
    // What was connected when SIGTERM came is kept; what was on its way may be fetched again.
    assert!(twice <= 1100, "{twice} blocks were fetched twice");
    server.stop();
}
