//! The mempool is the node's own, after chains, replacements, blocks, reorgs and restarts of both.

use serde_json::{Value, json};

use super::support::node::{Node, text};
use super::support::wait_for;
use super::{PATIENCE, node_options, options, pool_of, rpc, signed, sorted};

pub fn wait_same(node: &Node, at: &str, after: &str) {
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
        let first = missing.first().map(|txid| node.rpc("getmempoolentry", json!([txid])));
        let said = first.as_ref().map_or_else(String::new, |first| said_of(node, &text(&first["wtxid"])));
        panic!(
            "after {after}: {} transactions; first missing {first:?}; missing {missing:?}, too many {more:?}; block {} of \
             {}; the node on the first:\n{said}",
            theirs.len(),
            rpc(at, &["getinfo"])["db height"],
            node.height()
        );
    }
}

/// What the node's log says of a transaction.
fn said_of(node: &Node, wtxid: &str) -> String {
    let log = std::fs::read_to_string(node.folder().join("regtest/debug.log")).unwrap_or_default();
    log.lines().filter(|line| line.contains(wtxid)).collect::<Vec<_>>().join("\n")
}

/// A payment of the node's wallet. It has no lock time: the wallet would forbid it any earlier block than the next, so the
/// node would drop it as long as a reorganisation's chain is shorter, which we never see.
fn pay(node: &Node, outputs: Value, rate: u64) {
    let raw = node.rpc("createrawtransaction", json!([[], outputs, 0]));
    // The wallet may have no coin that is not in a chain of 25.
    let Ok(funded) = node.try_rpc("fundrawtransaction", json!([raw, {"fee_rate": rate}])) else { return };
    let signed = node.rpc("signrawtransactionwithwallet", json!([funded["hex"]]));
    let _ = node.try_rpc("sendrawtransaction", json!([signed["hex"]]));
}

/// Sends a payment again that pays `more` satoshi to the miner, out of its largest output. (`bumpfee` sets a lock time.)
fn bump(node: &Node, txid: &str, more: u64) {
    let hex = text(&node.rpc("gettransaction", json!([txid]))["hex"]);
    let mut tx: bitcoin::Transaction = bitcoin::consensus::encode::deserialize_hex(&hex).unwrap();
    for input in &mut tx.input {
        input.script_sig = bitcoin::ScriptBuf::new();
        input.witness = bitcoin::Witness::new();
    }
    let output = tx.output.iter_mut().max_by_key(|output| output.value).unwrap();
    let Some(value) = output.value.checked_sub(bitcoin::Amount::from_sat(more + 1_000)) else { return };
    output.value = value;
    let raw = bitcoin::consensus::encode::serialize_hex(&tx);
    let signed = node.rpc("signrawtransactionwithwallet", json!([raw]));
    // Not every one can be replaced: what hangs on it may pay more.
    let _ = node.try_rpc("sendrawtransaction", json!([signed["hex"]]));
}

/// One of several things that wallets do; the node's wallet picks its coins, unconfirmed change among them.
fn something(node: &Node, random: &mut fastrand::Rng) {
    let kinds = ["legacy", "p2sh-segwit", "bech32", "bech32m"];
    let address = node.rpc("getnewaddress", json!(["", kinds[random.usize(..4)]]));
    let rate = random.u64(2..60);
    match random.u8(..10) {
        0..6 => {
            let amount = format!("0.{:04}", random.u32(50..2_000)).parse::<f64>().unwrap();
            pay(node, json!([{ text(&address): amount }]), rate);
        }
        6..8 => {
            let several =
                (0..random.usize(2..12)).map(|_| json!({text(&node.rpc("getnewaddress", json!([]))): 0.01}));
            pay(node, several.collect(), rate);
        }
        _ => {
            let pool = pool_of(node);
            if !pool.is_empty() {
                bump(node, &pool[random.usize(..pool.len())], (rate + 40) * 1_000);
            }
        }
    }
}

/// Keeps the wallet from coins that a short chain would make unripe: while it is reorganised the node drops whoever
/// spends those, and we see the chain only when it is longer again.
fn lock_young(node: &Node) {
    let young = node.rpc("listunspent", json!([99, 115]));
    let outpoint = |coin: &Value| json!({"txid": coin["txid"], "vout": coin["vout"]});
    let young: Vec<Value> = young.as_array().unwrap().iter().map(outpoint).collect();
    if !young.is_empty() {
        node.rpc("lockunspent", json!([false, young]));
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
        lock_young(&node);
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
                // Locks do not outlive the node.
                lock_young(&node);
                something(&node, &mut random);
                wait_same(&node, &at, "a restart of the node");
            }
            _ => {}
        }
    }
}

#[test]
fn a_block_takes_the_place_of_what_it_contradicts() {
    let Some(node) = super::node() else { return };
    let (options, at) = options(&node);
    let mut server = options.start();
    server.wait_synced(&node.tip(), PATIENCE);
    let coin = node.rpc("listunspent", json!([1]))[0].clone();
    let input = json!([{"txid": coin["txid"], "vout": coin["vout"], "sequence": 0xffff_fffd_u32}]);
    let amount = coin["amount"].as_f64().unwrap();
    let pay = |fee: f64| {
        let address = text(&node.rpc("getnewaddress", json!([])));
        let left = (amount - fee) * 1e8;
        signed(&node, input.clone(), json!([{ address: left.round() / 1e8 }]), Value::Null)
    };
    let (waits, mined) = (pay(0.0002), pay(0.0001));
    println!("{} waits, {} is mined", super::txid_of(&waits), super::txid_of(&mined));
    node.rpc("sendrawtransaction", json!([waits]));
    wait_same(&node, &at, "one of two conflicting payments");
    node.rpc("generateblock", json!([node.rpc("getnewaddress", json!([])), [mined]]));
    wait_same(&node, &at, "a block that has the other");
}
