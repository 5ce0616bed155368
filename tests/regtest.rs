//! A real bitcoind on regtest: what peerdex answers is what bitcoind says, through reorgs, restarts, pruning
//! and power cuts.

#![allow(clippy::unwrap_used)]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use bitcoin::Network;
use serde_json::{Value, json};
use tempfile::TempDir;

use support::client::Client;
use support::compare::{assert_merkle_proofs, assert_same_coins, assert_same_scripts, served_headers};
use support::naive::{NaiveIndex, script_hash};
use support::node::{Node, text};
use support::payments;
use support::replay::{Manners, ReplayPeer};
use support::server::{Options, STOP, Server, is_syncing};
use support::slow_link::SlowLink;

const PEERDEX: &str = env!("CARGO_BIN_EXE_peerdex");
/// Longest wait for a sync; they take seconds, but the machine may be busy.
const SYNC: Duration = Duration::from_secs(120);
/// Silence after which no more notifications are awaited.
const QUIET: Duration = Duration::from_secs(2);

fn peerdex_at(node: &Node) -> Options {
    Options::new(PEERDEX, "regtest").connect(node.address())
}

/// Compares all that wallets can ask with what bitcoind's blocks say.
fn assert_same_as(node: &Node, server: &mut Server) {
    let mut alice = server.client();
    let index = node.index();
    assert_same_scripts(&mut alice, &index);
    let headers = served_headers(&mut alice);
    assert_eq!(headers.len() as u32, node.height() + 1);
    assert_merkle_proofs(&mut alice, &index, &headers);
}

#[test]
fn three_hundred_blocks_of_every_script_type() {
    let Some(node) = payments::node() else { return };
    let mut server = peerdex_at(&node).start();

    let took = server.wait_synced(&node.tip(), SYNC);
    let peak = server.peak_memory_bytes() as f64 / 1e6;
    println!("regtest: {} blocks in {took:.2?}, peak memory {peak:.0} MB", node.height());

    assert_same_as(&node, &mut server);
    let index = node.index();
    assert_same_coins(&node, &index);
    server.stop();
}

/// A wallet that is subscribed to everything, and what it was last told.
struct Watcher {
    client: Client,
    statuses: BTreeMap<Vec<u8>, Value>,
}

impl Watcher {
    fn of(server: &mut Server, index: &NaiveIndex) -> Self {
        let mut client = server.client();
        client.tip().unwrap();
        let statuses = index.scripts().map(|script| (script.clone(), client.subscribe(script).unwrap()));
        let statuses: BTreeMap<_, _> = statuses.collect();
        Self { client, statuses }
    }

    /// Awaits the tip, then silence; each change came once and nothing else did. Returns how many scripts changed.
    fn assert_told_once(&mut self, index: &NaiveIndex) -> usize {
        let mut tips = Vec::new();
        let mut told: BTreeMap<String, Vec<Value>> = BTreeMap::new();
        let start = Instant::now();
        let is_there = |tips: &[u64]| tips.last() == Some(&u64::from(index.height()));
        loop {
            match self.client.notification(QUIET) {
                Some((method, params)) if method == "blockchain.headers.subscribe" => {
                    assert!(told.is_empty() || !is_there(&tips), "headers are told before scripts");
                    tips.push(params[0]["height"].as_u64().unwrap());
                }
                Some((method, params)) => {
                    assert_eq!(method, "blockchain.scripthash.subscribe");
                    told.entry(text(&params[0])).or_default().push(params[1].clone());
                }
                None if is_there(&tips) => break,
                None => assert!(start.elapsed() < SYNC, "no word of block {}; told {tips:?}", index.height()),
            }
        }
        assert_eq!(tips, [u64::from(index.height())], "one change of the tip");
        let mut changed = 0;
        for (script, before) in &mut self.statuses {
            let after = index.status(script);
            let expected = if after == *before { Vec::new() } else { vec![after.clone()] };
            changed += expected.len();
            let script_hash = script_hash(script);
            assert_eq!(
                told.remove(&script_hash).unwrap_or_default(),
                expected,
                "{script_hash}, before {before}"
            );
            *before = after;
        }
        assert!(told.is_empty(), "told of scripts that were not asked for: {told:?}");
        changed
    }
}

#[test]
fn reorgs_of_depth_1_6_and_100_are_told_once_and_leave_no_trace() {
    let Some(node) = payments::node() else { return };
    let mut server = peerdex_at(&node).start();
    server.wait_synced(&node.tip(), SYNC);
    let mut alice = Watcher::of(&mut server, &node.index());

    for depth in [1, 6, 100] {
        let before = node.index();
        node.invalidate(depth);
        // One block more than before, so the last of them makes the change.
        node.generate(depth as usize + 1);
        server.wait_synced(&node.tip(), SYNC);

        let changed = alice.assert_told_once(&node.index());
        assert!(
            changed >= depth as usize,
            "the rewards of {depth} blocks are gone, {changed} scripts changed"
        );
        assert_same_as(&node, &mut server);
        // Scripts that only the old branch paid are forgotten.
        let gone = before.scripts().find(|script| node.index().status(script).is_null()).unwrap();
        assert_eq!(server.client().history(gone), Ok(json!([])), "after a reorg of depth {depth}");
    }
    server.stop();
}

#[test]
fn back_to_the_first_branch_is_as_if_nothing_had_happened() {
    let Some(node) = payments::node() else { return };
    let mut server = peerdex_at(&node).start();
    server.wait_synced(&node.tip(), SYNC);
    let first = node.hash_at(node.height() - 2);
    let before = node.index();
    let mut alice = Watcher::of(&mut server, &before);
    let there = alice.statuses.clone();

    node.rpc("invalidateblock", json!([first]));
    node.generate(4);
    alice.assert_told_once(&node.index());
    // The old branch is three blocks long and wins again with two more.
    node.rpc("invalidateblock", json!([node.hash_at(payments::HEIGHT - 2)]));
    node.rpc("reconsiderblock", json!([first]));
    node.generate(2);
    alice.assert_told_once(&node.index());

    assert_same_as(&node, &mut server);
    let new: BTreeSet<Vec<u8>> = node.index().scripts().cloned().collect();
    let untouched = there.iter().filter(|(script, _)| new.contains(*script));
    let same = untouched.filter(|(script, status)| alice.statuses[*script] == **status).count();
    assert!(same > there.len() / 2, "{same} of {} are as before", there.len());
}

#[test]
fn a_reorg_while_syncing() {
    let Some(node) = payments::node() else { return };
    let link = SlowLink::to(node.address(), 60_000);
    let mut server = Options::new(PEERDEX, "regtest").connect(link.address()).start();
    // The headers of 300 blocks are 24 kB: now blocks are coming.
    server.wait_for("the sync to be under way", SYNC, |_| (link.passed_bytes() > 60_000).then_some(()));

    node.invalidate(120);
    node.generate(125);
    let is_early = server.client().history(&[]).is_err_and(|error| is_syncing(&error));
    link.set_speed(10_000_000);

    server.wait_synced(&node.tip(), SYNC);
    assert!(is_early, "the sync was over before the reorg");
    assert_same_as(&node, &mut server);
    server.stop();
}

#[test]
fn sigterm_in_the_middle_of_a_sync_stops_it_and_a_restart_goes_on() {
    let Some(node) = payments::node() else { return };
    let link = SlowLink::to(node.address(), 60_000);
    let options = Options::new(PEERDEX, "regtest").connect(link.address());
    let mut server = options.start();
    server.wait_for("the sync to be under way", SYNC, |_| (link.passed_bytes() > 60_000).then_some(()));

    let folder = server.stop();

    link.set_speed(10_000_000);
    let mut server = options.start_in(folder);
    server.wait_synced(&node.tip(), SYNC);
    assert_same_as(&node, &mut server);
    server.stop();
}

#[test]
fn a_node_that_restarts_is_found_again() {
    let Some(mut node) = payments::node() else { return };
    let mut server = peerdex_at(&node).start();
    server.wait_synced(&node.tip(), SYNC);

    for _ in 0..2 {
        node.stop();
        // Wallets are served while no peer is there.
        assert!(server.client().history(&[]).is_ok());
        node.start_again(&["-fastprune"]);
        payments::everyday(&node);
        node.generate(2);
        server.wait_synced(&node.tip(), SYNC);
    }

    assert_same_as(&node, &mut server);
    server.stop();
}

/// Mines until there is something to prune, restarts the node as a pruned one and prunes. The index before.
fn prune(node: &mut Node) -> NaiveIndex {
    let index = node.index();
    node.stop();
    node.start_again(&["-prune=1", "-fastprune"]);
    node.rpc("pruneblockchain", json!([node.height() - 288]));
    let info = node.rpc("getblockchaininfo", json!([]));
    assert!(info["pruneheight"].as_u64().is_some_and(|height| height > 100), "{info}");
    let services = node.rpc("getnetworkinfo", json!([]))["localservicesnames"].clone();
    assert!(!services.as_array().unwrap().contains(&json!("NETWORK")), "{services}");
    index
}

#[test]
fn a_node_that_was_pruned_after_the_sync_is_followed_on() {
    let Some(mut node) = payments::node() else { return };
    node.generate(400);
    let mut server = peerdex_at(&node).start();
    server.wait_synced(&node.tip(), SYNC);

    let mut index = prune(&mut node);
    let height = node.height();
    for _ in 0..20 {
        payments::everyday(&node);
        node.generate(1);
    }
    node.extend(&mut index, height + 1);

    server.wait_synced(&node.tip(), SYNC);
    let mut alice = server.client();
    assert_same_scripts(&mut alice, &index);
    let headers = served_headers(&mut alice);
    assert_merkle_proofs(&mut alice, &index, &headers);
    server.stop();
}

#[test]
fn a_pruned_peer_alone_is_not_enough_and_another_is_looked_for() {
    let Some(mut node) = payments::node() else { return };
    node.generate(400);
    let blocks = node.raw_blocks_from(0);
    let index = prune(&mut node);
    let archive = support::free_address();
    let options = peerdex_at(&node).connect(archive);
    let mut server = options.start();

    server.wait_for_log(&["no peer", "block 1"], SYNC);
    let answer = server.client().history(&[]).unwrap_err();
    assert!(is_syncing(&answer), "{answer:?}");
    // The best header chain is known and served.
    assert_eq!(server.client().tip().unwrap().0, node.height());

    // It stops when it is told to, and looks again after a restart.
    let mut server = options.start_in(server.stop());
    server.wait_for_log(&["no peer", "block 1"], SYNC);

    // It kept dialling the address at which somebody has all blocks now.
    let archive = ReplayPeer::start_at(archive, Network::Regtest, blocks, Manners::default());
    server.wait_synced(&node.tip(), SYNC);
    assert_same_scripts(&mut server.client(), &index);
    assert_eq!(archive.violations(), Vec::<String>::new());
    server.stop();
}

#[test]
fn killed_at_random_moments_it_gives_the_same_answers() {
    let Some(node) = payments::node() else { return };
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let kills = number("PEERDEX_KILLS").unwrap_or(10);
    let seed = number("PEERDEX_SEED").unwrap_or_else(|| fastrand::u64(..));
    println!("{kills} kills, PEERDEX_SEED={seed}");
    let mut rng = fastrand::Rng::with_seed(seed);
    // Slow enough that most kills come in the middle of something.
    let link = SlowLink::to(node.address(), 120_000);
    let options = Options::new(PEERDEX, "regtest").connect(link.address());
    let mut folder = TempDir::new().unwrap();
    for kill in 1..=kills {
        let server = options.start_in(folder);
        std::thread::sleep(Duration::from_millis(rng.u64(0..1500)));
        match rng.u8(0..4) {
            0 => {
                let depth = rng.u32(1..=8);
                node.invalidate(depth);
                node.generate(depth as usize + 1);
            }
            1 => {
                payments::everyday(&node);
                node.generate(1);
            }
            _ => {}
        }
        std::thread::sleep(Duration::from_millis(rng.u64(0..200)));
        folder = server.kill();
        if kill % 5 == 0 || kill == kills {
            link.set_speed(10_000_000);
            let mut server = options.start_in(folder);
            server.wait_synced(&node.tip(), SYNC);
            assert_same_as(&node, &mut server);
            link.set_speed(120_000);
            // From the beginning, so that a first sync is killed too, or from where it was.
            folder = if rng.bool() { TempDir::new().unwrap() } else { server.kill() };
        }
    }
}

#[test]
fn sigint_stops_it_too() {
    let Some(node) = payments::node() else { return };
    let mut server = peerdex_at(&node).start();
    server.wait_synced(&node.tip(), SYNC);
    let _idle_wallet = server.client();

    server.signal("INT");

    assert!(server.wait_for_end(STOP).success());
}
