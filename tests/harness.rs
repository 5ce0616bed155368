//! The instruments themselves: a test can only be believed if what it measures with is right.

#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use bitcoin::Network;
use serde_json::json;

use support::compare::assert_same_coins;
use support::node::{Node, text};
use support::payments;
use support::replay::{Announce, Manners, ReplayPeer};
use support::slow_link::SlowLink;
use support::{fixtures, naive::NaiveIndex, wait_for};

const SYNC: Duration = Duration::from_secs(60);

/// A node that dials `peer` and speaks the transport that the replay peer has.
fn dialler(peer: std::net::SocketAddr) -> Option<Node> {
    Node::start(&[&format!("-connect={peer}"), "-v2transport=0"])
}

fn wait_for_tip(node: &Node, tip: &str) {
    wait_for("bitcoind to follow", SYNC, || (node.tip() == tip).then_some(()));
}

#[test]
fn the_naive_index_knows_every_coin() {
    let index = NaiveIndex::of_raw(&fixtures::run_from_genesis(Network::Bitcoin));

    // Fifty coins a block, the genesis block's excepted; nobody had lost any to a careless coinbase yet.
    assert_eq!(index.total(), 4521 * 50 * 100_000_000);
    assert_eq!(index.transactions().count(), 4583 - 1);
}

#[test]
fn raw_blocks_and_bitcoinds_view_give_the_same_index() {
    let Some(node) = Node::start(&[]) else { return };
    node.generate(103);
    for kind in ["legacy", "p2sh-segwit", "bech32", "bech32m"] {
        let address = node.rpc("getnewaddress", json!(["", kind]));
        node.rpc("sendtoaddress", json!([address, 1.5]));
    }
    node.generate(1);

    let (said, own) = (node.index(), NaiveIndex::of_raw(&node.raw_blocks_from(0)));

    assert_eq!(said.coins().collect::<Vec<_>>(), own.coins().collect::<Vec<_>>());
    assert!(said.scripts().all(|script| said.history(script) == own.history(script)));
    let total = node.rpc("gettxoutsetinfo", json!(["none"]));
    assert_eq!(own.total(), support::naive::satoshi(&total["total_amount"]));
    assert_eq!(own.coin_count() as u64, total["txouts"].as_u64().unwrap());
}

#[test]
fn bitcoind_takes_the_replay_peer_for_a_node() {
    let Some(miner) = Node::start(&[]) else { return };
    miner.generate(110);
    let address = miner.rpc("getnewaddress", json!([]));
    miner.rpc("sendtoaddress", json!([address, 2]));
    miner.generate(5);
    let blocks = miner.raw_blocks_from(0);
    let peer = ReplayPeer::start(Network::Regtest, blocks[..=112].to_vec());
    let Some(node) = dialler(peer.address()) else { return };
    wait_for_tip(&node, &miner.hash_at(112));

    // New blocks, told in each way, and another branch.
    peer.set_chain(blocks[..=114].to_vec(), Announce::Headers);
    wait_for_tip(&node, &miner.hash_at(114));
    peer.set_chain(blocks.clone(), Announce::Inv);
    wait_for_tip(&node, &miner.tip());
    miner.invalidate(3);
    miner.generate(4);
    peer.set_chain(miner.raw_blocks_from(0), Announce::Headers);
    wait_for_tip(&node, &miner.tip());

    // A block with a turned bit is refused, and asked for again: a peer that was chosen by hand is not punished.
    peer.set_manners(|manners| manners.corrupt = Some(117));
    miner.generate(1);
    peer.set_chain(miner.raw_blocks_from(0), Announce::Headers);
    wait_for("the block to be asked for", SYNC, || peer.served().get(&117).copied());
    assert_eq!(node.height(), 116);
    peer.set_manners(|manners| manners.corrupt = None);
    wait_for_tip(&node, &miner.tip());
}

#[test]
fn a_slow_link_is_slow() {
    let Some(miner) = Node::start(&[]) else { return };
    miner.generate(60);
    let link = SlowLink::to(miner.address(), 20_000);
    let Some(node) = dialler(link.address()) else { return };

    let start = Instant::now();
    wait_for_tip(&node, &miner.tip());

    let expected = Duration::from_secs_f64(link.passed_bytes() as f64 / 20_000.0);
    assert!(start.elapsed() > expected / 4, "{:?} for {} bytes", start.elapsed(), link.passed_bytes());
}

#[test]
fn a_replay_peer_that_hangs_up_takes_the_next_call() {
    let Some(miner) = Node::start(&[]) else { return };
    miner.generate(40);
    // Bitcoind forgets what it has received but not read when a connection ends: give it time to read.
    let pause = Duration::from_millis(20);
    let manners = Manners { hang_up_after: Some(15), pause, ..Manners::default() };
    let peer = ReplayPeer::with_manners(Network::Regtest, miner.raw_blocks_from(0), manners);
    let Some(node) = dialler(peer.address()) else { return };

    wait_for_tip(&node, &miner.tip());

    assert!(peer.versions().len() >= 2);
}

#[test]
fn the_chain_of_payments_has_every_kind_of_output() {
    let Some(node) = payments::node() else { return };

    assert_eq!(node.height(), payments::HEIGHT);
    assert_same_coins(&node, &node.index());
    let kinds = script_types(&node);
    for kind in [
        "pubkey",
        "pubkeyhash",
        "scripthash",
        "multisig",
        "nulldata",
        "nonstandard",
        "anchor",
        "witness_v0_keyhash",
        "witness_v0_scripthash",
        "witness_v1_taproot",
        "witness_unknown",
    ] {
        assert!(kinds.contains(kind), "{kind} is missing among {kinds:?}");
    }
}

fn script_types(node: &Node) -> BTreeSet<String> {
    let calls: Vec<_> = node.hashes_from(0).into_iter().map(|hash| ("getblock", json!([hash, 2]))).collect();
    let blocks = node.rpc_batch(&calls);
    let txs = blocks.iter().flat_map(|block| block["tx"].as_array().unwrap());
    let outputs = txs.flat_map(|tx| tx["vout"].as_array().unwrap());
    outputs.map(|output| text(&output["scriptPubKey"]["type"])).collect()
}
