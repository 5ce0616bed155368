//! A client sees each step of a transaction's life: 0, -1, confirmed, replaced, taken back by a reorg.

use std::time::Instant;

use bitcoin::consensus::encode::serialize_hex;
use bitcoin::{Address, Network, OutPoint, ScriptBuf};
use serde_json::{Value, json};

use super::support::client::Client;
use super::support::naive::{satoshi, script_hash};
use super::support::node::{Node, text};
use super::support::purse::{Purse, output, replaceable, transaction};
use super::support::wait_for;
use super::{PATIENCE, SOON, is_knots, node_options, script_of, signed, synced, txid_of};

/// What a wallet computes from a history.
fn status_of(history: &Value) -> Value {
    use bitcoin::hashes::Hash as _;
    let entry = |entry: &Value| format!("{}:{}:", entry["tx_hash"].as_str().unwrap(), entry["height"]);
    let words: String = history.as_array().unwrap().iter().map(entry).collect();
    if words.is_empty() {
        return Value::Null;
    }
    json!(bitcoin::hashes::sha256::Hash::hash(words.as_bytes()).to_string())
}

/// The next notice of the script, which must be of the history that is served: how it looks now.
fn news(client: &mut Client, script: &[u8]) -> Vec<(String, i64)> {
    let began = Instant::now();
    let status = loop {
        let left = PATIENCE.checked_sub(began.elapsed()).expect("no news of the script came");
        match client.notification(left) {
            Some((method, params)) if method == "blockchain.scripthash.subscribe" => {
                assert_eq!(params[0], json!(script_hash(script)));
                break params[1].clone();
            }
            _ => {}
        }
    };
    let history = client.history(script).unwrap();
    assert_eq!(status, status_of(&history), "the status is that of {history}");
    let entry = |entry: &Value| (text(&entry["tx_hash"]), entry["height"].as_i64().unwrap());
    history.as_array().unwrap().iter().map(entry).collect()
}

#[test]
fn a_payment_is_seen_before_its_block_and_its_child_turns_from_minus_one_to_zero() {
    let Some(node) = super::node() else { return };
    let (mut server, _) = synced(&node);
    let mut client = server.client();
    let address = text(&node.rpc("getnewaddress", json!(["", "bech32"])));
    let script = script_of(&node, &address);
    assert_eq!(client.subscribe(&script).unwrap(), Value::Null);

    let began = Instant::now();
    let parent = text(&node.rpc("sendtoaddress", json!([address, 1.5])));
    assert_eq!(news(&mut client, &script), [(parent.clone(), 0)]);
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
    assert_eq!(client.balance(&script).unwrap(), (0, 150_000_000));
    let mempool = client.call("blockchain.scripthash.get_mempool", json!([script_hash(&script)])).unwrap();
    let fee = node.rpc("getmempoolentry", json!([parent]))["fees"]["base"].as_f64().unwrap();
    assert_eq!(mempool, json!([{"tx_hash": parent, "height": 0, "fee": (fee * 1e8).round() as u64}]));
    let unspent = client.unspent(&script).unwrap();
    assert_eq!((&unspent[0]["height"], &unspent[0]["value"]), (&json!(0), &json!(150_000_000)));
    let vout = unspent[0]["tx_pos"].as_u64().unwrap();
    let hex = client.call("blockchain.transaction.get", json!([parent])).unwrap();
    assert_eq!(hex, node.rpc("getrawtransaction", json!([parent])));
    let verbose = client.call("blockchain.transaction.get", json!([parent, true])).unwrap();
    assert_eq!(verbose, node.rpc("getrawtransaction", json!([parent, true])), "in Core's words");

    // A child that spends it: the script hears of it though it only spends.
    let payee = text(&node.rpc("getnewaddress", json!([])));
    let input = json!([{"txid": parent, "vout": vout, "sequence": 0xffff_fffd_u32}]);
    let child = signed(&node, input.clone(), json!([{&payee: 1.4999}]), Value::Null);
    node.rpc("sendrawtransaction", json!([child]));
    assert_eq!(news(&mut client, &script), [(parent.clone(), 0), (txid_of(&child), -1)]);
    assert_eq!(client.balance(&script).unwrap(), (0, 0));
    assert_eq!(client.unspent(&script).unwrap(), json!([]));
    let mut modern = server.client_of(json!("1.7"));
    let outpoint = json!([parent, vout, ""]);
    assert_eq!(
        modern.call("blockchain.outpoint.subscribe", outpoint).unwrap(),
        json!({"funder_height": 0, "spender_txhash": txid_of(&child), "spender_height": -1})
    );

    // The child is replaced.
    let richer = signed(&node, input, json!([{&payee: 1.499}]), Value::Null);
    node.rpc("sendrawtransaction", json!([richer]));
    assert_eq!(news(&mut client, &script), [(parent.clone(), 0), (txid_of(&richer), -1)]);
    let gone = client.call("blockchain.transaction.get", json!([txid_of(&child)])).unwrap_err();
    assert!(gone.message.starts_with("No such mempool or blockchain transaction"), "{gone:?}");

    // The parent alone is mined: the child's height is 0 now, and scripts that only the child touches hear of it.
    let payee_script = script_of(&node, &payee);
    let before = client.subscribe(&payee_script).unwrap();
    node.generate_block(std::slice::from_ref(&parent));
    let height = i64::from(node.height());
    let heights = wait_for("both to be told", PATIENCE, || {
        let history = client.history(&script).unwrap();
        (history[0]["height"] == json!(height)).then_some(history)
    });
    assert_eq!(heights[1], json!({"tx_hash": txid_of(&richer), "height": 0, "fee": 100_000}));
    let told: Vec<Value> = client
        .notifications(SOON)
        .into_iter()
        .filter(|(_, params)| params.get(1).is_some())
        .map(|(_, p)| p)
        .collect();
    let told_of =
        |script: &[u8]| told.iter().rev().find(|params| params[0] == json!(script_hash(script))).cloned();
    assert_eq!(told_of(&script).unwrap()[1], status_of(&heights));
    let after = told_of(&payee_script).expect("the flip from -1 to 0 is told")[1].clone();
    assert_ne!(after, before);
    assert_eq!(after, status_of(&client.history(&payee_script).unwrap()));
    let outpoint = modern.notifications(SOON);
    let last = outpoint.iter().rev().find(|(method, _)| method == "blockchain.outpoint.subscribe").unwrap();
    assert_eq!(
        last.1[2],
        json!({"funder_height": height, "spender_txhash": txid_of(&richer), "spender_height": 0})
    );

    // A reorg takes the block away: both are unconfirmed again.
    node.invalidate(1);
    node.generate_block(&[]);
    node.generate_block(&[]);
    wait_for("both to be unconfirmed again", PATIENCE, || {
        let history = client.history(&script).ok()?;
        let heights = [&history[0]["height"], &history[1]["height"]];
        (heights == [&json!(0), &json!(-1)]).then_some(())
    });
}

/// The node announces only the child: the parent is below what we ask of it. It is fetched for the child, and both are
/// judged together.
#[test]
fn a_parent_that_pays_nothing_comes_with_its_child() {
    let Some(node) = Node::start_without_wallet(&node_options()) else { return };
    let purse = Purse::new();
    let address = Address::from_script(purse.script(), Network::Regtest).unwrap().to_string();
    let block = node.generate_to(101, &address).remove(0);
    let coinbase = &node.rpc("getblock", json!([block, 2]))["tx"][0];
    let coin = OutPoint::new(text(&coinbase["txid"]).parse().unwrap(), 0);
    let worth = satoshi(&coinbase["vout"][0]["value"]);
    let (mut server, _) = synced(&node);
    let mut client = server.client();

    // Knots takes no parent that does not pay for its relay, so there it comes by itself.
    let fee = if is_knots() { 50 } else { 0 };
    let mut parent = transaction(vec![replaceable(coin)], vec![output(worth - fee, purse.script().clone())]);
    purse.sign(&mut parent, &[worth]);
    let made = OutPoint::new(parent.compute_txid(), 0);
    let payee = ScriptBuf::from_bytes([&[0, 20][..], &[9; 20]].concat());
    let mut child = transaction(vec![replaceable(made)], vec![output(worth - 10_000, payee.clone())]);
    purse.sign(&mut child, &[worth - fee]);
    client.subscribe(payee.as_bytes()).unwrap();
    let hex = [&parent, &child].map(serialize_hex);
    let said = node.rpc("submitpackage", json!([hex]));
    assert_eq!(said["package_msg"], json!("success"), "{said}");

    assert_eq!(news(&mut client, payee.as_bytes()), [(child.compute_txid().to_string(), -1)]);
    assert_eq!(
        client.call("blockchain.transaction.get", json!([parent.compute_txid().to_string()])).unwrap(),
        json!(hex[0])
    );
}
