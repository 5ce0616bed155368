//! The mempool is the node's own, after chains, replacements, blocks, reorgs and restarts of both.

use serde_json::{Value, json};

use super::support::node::{Node, text};
use super::support::wait_for;
use super::{PATIENCE, node_options, options, pool_of, rpc, signed, sorted};

fn wait_same(node: &Node, at: &str, after: &str) {
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    let same = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        wait_for("the same mempool", PATIENCE, || {
            theirs = pool_of(node);
            ours = sorted(&rpc(at, &["getrawmempool"]));
            (ours == theirs).then_some(())
        });
    }));
    if same.is_err() {
        let missing: Vec<_> = theirs.iter().filter(|txid| !ours.contains(txid)).collect();
        let more: Vec<_> = ours.iter().filter(|txid| !theirs.contains(txid)).collect();
        panic!("after {after}: {} transactions; missing {missing:?}, too many {more:?}", theirs.len());
    }
}

/// One of several things that wallets do; the node's wallet picks its coins, unconfirmed change among them.
fn something(node: &Node, random: &mut fastrand::Rng) {
    let kinds = ["legacy", "p2sh-segwit", "bech32", "bech32m"];
    let address = node.rpc("getnewaddress", json!(["", kinds[random.usize(..4)]]));
    let rate = random.u64(2..60);
    match random.u8(..10) {
        0..6 => {
            let amount = format!("0.{:04}", random.u32(50..2_000)).parse::<f64>().unwrap();
            let options = json!([address, amount, "", "", false, true, null, "unset", false, rate]);
            // The wallet may have no coin that is not in a chain of 25.
            let _ = node.try_rpc("sendtoaddress", options);
        }
        6..8 => {
            let several: serde_json::Map<String, Value> = (0..random.usize(2..12))
                .map(|_| (text(&node.rpc("getnewaddress", json!([]))), json!(0.01)))
                .collect();
            let _ = node.try_rpc("sendmany", json!(["", several]));
        }
        _ => {
            let pool = pool_of(node);
            if !pool.is_empty() {
                let txid = &pool[random.usize(..pool.len())];
                // Not every one can be bumped: it has children, or was bumped before.
                let _ = node.try_rpc("bumpfee", json!([txid, {"fee_rate": rate + 40}]));
            }
        }
    }
}

#[test]
fn the_mempool_is_the_nodes_after_blocks_replacements_reorgs_and_restarts() {
    let Some(mut node) = super::node() else { return };
    let (options, at) = options(&node);
    let mut server = options.start();
    server.wait_synced(&node.tip(), PATIENCE);
    let mut random = fastrand::Rng::with_seed(5);

    // What was there before peerdex came is asked for (BIP35), what comes later is announced.
    for round in 0..12 {
        for _ in 0..25 {
            something(&node, &mut random);
        }
        wait_same(&node, &at, &format!("payments of round {round}"));
        match round % 6 {
            1 | 4 => {
                node.generate(1);
                wait_same(&node, &at, "a block");
            }
            2 => {
                // A block of a few, which leaves children behind.
                let pool = pool_of(&node);
                let first = node.rpc("getmempoolancestors", json!([pool[0]]));
                let txs: Vec<String> = sorted(&first).into_iter().chain([pool[0].clone()]).collect();
                if node.try_rpc("generateblock", json!([node.rpc("getnewaddress", json!([])), txs])).is_ok() {
                    wait_same(&node, &at, "a block of a few");
                }
            }
            3 => {
                node.invalidate(1 + round / 6);
                for _ in 0..3 + round / 6 {
                    node.generate_block(&[]);
                }
                wait_same(&node, &at, "a reorg");
            }
            5 => {
                let folder = server.stop();
                something(&node, &mut random);
                server = options.start_in(folder);
                server.wait_synced(&node.tip(), PATIENCE);
                wait_same(&node, &at, "a restart of peerdex");
                node.stop();
                node.start_again(&node_options());
                something(&node, &mut random);
                wait_same(&node, &at, "a restart of the node");
            }
            _ => {}
        }
    }

    // A block that conflicts with what waits.
    let coin = node.rpc("listunspent", json!([1]))[0].clone();
    let input = json!([{"txid": coin["txid"], "vout": coin["vout"], "sequence": 0xffff_fffd_u32}]);
    let amount = coin["amount"].as_f64().unwrap();
    let pay = |fee: f64| {
        let address = text(&node.rpc("getnewaddress", json!([])));
        let left = (amount - fee) * 1e8;
        signed(&node, input.clone(), json!([{ address: left.round() / 1e8 }]), Value::Null)
    };
    let (waits, mined) = (pay(0.0002), pay(0.0001));
    node.rpc("sendrawtransaction", json!([waits]));
    wait_same(&node, &at, "one of two conflicting payments");
    node.rpc("generateblock", json!([node.rpc("getnewaddress", json!([])), [mined]]));
    wait_same(&node, &at, "a block that has the other");
}
