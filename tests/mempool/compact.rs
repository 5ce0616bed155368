//! Blocks come without the transactions that are here already: from a real node, with what we had, and what we had not.

use serde_json::{Value, json};

use super::support::node::{Node, text};
use super::support::server::Server;
use super::support::wait_for;
use super::{PATIENCE, pool_of, rpc, signed, sorted, synced, txid_of};

/// What the operator is told of compact blocks once the node's tip is here.
fn figures(node: &Node, server: &mut Server, at: &str) -> Value {
    let tip = node.tip();
    server.wait_synced(&tip, PATIENCE);
    // A second old at most: the coverage is told with it.
    std::thread::sleep(std::time::Duration::from_millis(1_500));
    rpc(at, &["getmempoolinfo"])["compact_blocks"].clone()
}

fn last_of(node: &Node, figures: &Value) -> [u64; 3] {
    let last = &figures["last"];
    assert_eq!(last["hash"], json!(node.tip()), "{figures}");
    ["prefilled", "had", "asked"].map(|name| last[name].as_u64().unwrap())
}

fn wait_same_pool(node: &Node, at: &str) {
    wait_for("the same mempool", PATIENCE, || {
        (sorted(&rpc(at, &["getrawmempool"])) == pool_of(node)).then_some(())
    });
}

/// A payment that the node signs and nobody is told of.
fn hidden(node: &Node) -> String {
    let address = text(&node.rpc("getnewaddress", json!([])));
    signed(node, json!([]), json!([{ address: 0.3 }]), json!({"lockUnspents": true}))
}

#[test]
fn a_block_comes_without_what_is_here() {
    let Some(node) = super::node() else { return };
    let (mut server, at) = synced(&node);
    let address = text(&node.rpc("getnewaddress", json!(["", "bech32"])));

    // Five that are here, and one that nobody ever relayed.
    let mut block: Vec<String> =
        (0..5).map(|_| text(&node.rpc("sendtoaddress", json!([address, 0.1])))).collect();
    wait_same_pool(&node, &at);
    let secret = hidden(&node);
    block.push(secret.clone());
    node.generate_block(&block);
    let after = figures(&node, &mut server, &at);
    assert_eq!(last_of(&node, &after), [1, 5, 1], "{after}");
    assert_eq!((&after["asked"], &after["rebuilt"], &after["unfit"]), (&json!(1), &json!(1), &json!(0)));
    let last = &after["last"];
    let (bytes, received) = (last["bytes"].as_u64().unwrap(), last["received_bytes"].as_u64().unwrap());
    assert_eq!(bytes, node.rpc("getblock", json!([node.tip()]))["size"].as_u64().unwrap());
    assert!(received < bytes - 500 && received > secret.len() as u64 / 2, "{received} of {bytes}");
    assert_eq!(
        (&after["saved_bytes"], &after["received_bytes"]),
        (&json!(bytes - received), &json!(received))
    );
    println!("{received} of {bytes} bytes came for a block of six payments, five of them known");
    // All of it is on the chain: the wallet is answered from the block.
    let answer = server.client().call("blockchain.transaction.get", json!([txid_of(&secret), true])).unwrap();
    assert_eq!(answer["confirmations"], json!(1));
    // The node's wallet may have made something else meanwhile.
    let left = sorted(&rpc(&at, &["getrawmempool"]));
    assert_eq!(left, pool_of(&node));
    assert!(!left.iter().any(|txid| block.contains(txid) || *txid == txid_of(&secret)), "{left:?}");

    // One that was replaced here is mined all the same: it was kept.
    let coin = node.rpc("listunspent", json!([6, 9_999_999, [], true, {"minimumAmount": 0.5}]))[0].clone();
    let input = json!([{"txid": coin["txid"], "vout": coin["vout"], "sequence": 0xffff_fffd_u32}]);
    let left = |fee: f64| ((coin["amount"].as_f64().unwrap() - fee) * 1e8).round() / 1e8;
    let pay = |fee: f64| signed(&node, input.clone(), json!([{ &address: left(fee) }]), Value::Null);
    let (poorer, richer) = (pay(0.0001), pay(0.001));
    node.rpc("sendrawtransaction", json!([poorer]));
    wait_same_pool(&node, &at);
    node.rpc("sendrawtransaction", json!([richer]));
    wait_same_pool(&node, &at);
    let waits = sorted(&rpc(&at, &["getrawmempool"]));
    assert!(waits.contains(&txid_of(&richer)) && !waits.contains(&txid_of(&poorer)), "{waits:?}");
    node.generate_block(&[poorer]);
    let after = figures(&node, &mut server, &at);
    assert_eq!(last_of(&node, &after), [1, 1, 0], "{after}");

    // An empty block is whole as it comes.
    node.generate_block(&[]);
    let after = figures(&node, &mut server, &at);
    assert_eq!(last_of(&node, &after), [1, 0, 0], "{after}");
    assert_eq!((&after["asked"], &after["rebuilt"]), (&json!(3), &json!(3)));

    // Where blocks are full of what is not here, they are asked for whole: that takes one answer and not two.
    for _ in 0..3 {
        node.generate_block(&[hidden(&node)]);
        server.wait_synced(&node.tip(), PATIENCE);
    }
    let before = figures(&node, &mut server, &at);
    assert_eq!(rpc(&at, &["getmempoolinfo"])["coverage"], json!(0.0), "{before}");
    node.generate_block(&[]);
    assert_eq!(figures(&node, &mut server, &at), before);

    // And so are several at once, and those of another branch.
    node.invalidate(2);
    for _ in 0..3 {
        node.generate_block(&[]);
    }
    assert_eq!(figures(&node, &mut server, &at), before);
}
