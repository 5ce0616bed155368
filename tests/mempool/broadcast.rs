//! What a wallet is told of its broadcast, against what the node says to the same transaction.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::support::node::{Node, text};
use super::support::server::Options;
use super::support::{free_address, wait_for};
use super::{PATIENCE, PEERDEX, is_knots, node_options, pool_of, script_of, signed, synced, txid_of};

/// A wallet's transaction that no peer shows is brought to the operator's notice after 90 s.
const UNSEEN_WITHIN: Duration = Duration::from_secs(100);

/// Core's words within ElectrumX's.
fn reason(message: &str) -> &str {
    let words = message.strip_prefix("the transaction was rejected by network rules.\n\n").expect(message);
    words.rsplit_once("\n[").expect(message).0
}

/// The wallet's richest confirmed coins.
fn coins(node: &Node, count: usize) -> Vec<Value> {
    let list = node.rpc("listunspent", json!([6, 9_999_999, [], true, {"minimumAmount": 0.5}]));
    list.as_array().unwrap().iter().take(count).cloned().collect()
}

fn input(coin: &Value) -> Value {
    json!({"txid": coin["txid"], "vout": coin["vout"], "sequence": 0xffff_fffd_u32})
}

#[test]
fn a_broadcast_is_answered_as_the_node_answers_it() {
    let Some(node) = super::node() else { return };
    let (mut server, at) = synced(&node);
    let mut client = server.client();
    let address = text(&node.rpc("getnewaddress", json!(["", "bech32"])));
    let coin = coins(&node, 8);
    let amount = |coin: &Value| coin["amount"].as_f64().unwrap();
    let left = |coin: &Value, fee: f64| ((amount(coin) - fee) * 1e8).round() / 1e8;
    let pay = |coin: &Value, fee: f64| {
        signed(&node, json!([input(coin)]), json!([{ &address: left(coin, fee) }]), Value::Null)
    };
    let changed = |hex: &str, change: &dyn Fn(&mut bitcoin::Transaction)| {
        let mut tx: bitcoin::Transaction = bitcoin::consensus::encode::deserialize_hex(hex).unwrap();
        change(&mut tx);
        bitcoin::consensus::encode::serialize_hex(&tx)
    };

    let mut refused: Vec<(&str, String)> = Vec::new();
    let good = pay(&coin[0], 0.0001);
    refused.push(("nonsense", "00".into()));
    refused.push(("a fee too low", pay(&coin[1], 0.000_000_01)));
    refused.push(("no fee", pay(&coin[1], 0.0)));
    let dust = json!([{ &address: left(&coin[1], 0.0001) }, {text(&node.rpc("getnewaddress", json!([]))): 0.000_001}]);
    refused.push(("dust", signed(&node, json!([input(&coin[1])]), dust, Value::Null)));
    refused.push(("a missing input", changed(&good, &|tx| tx.input[0].previous_output.vout = 77)));
    let unknown = "77".repeat(32);
    refused.push((
        "an unknown input",
        changed(&good, &|tx| tx.input[0].previous_output.txid = unknown.parse().unwrap()),
    ));
    let raw =
        node.rpc("createrawtransaction", json!([[input(&coin[1])], [{ &address: 0.1 }], node.height() + 20]));
    let not_final = text(&node.rpc("signrawtransactionwithwallet", json!([raw]))["hex"]);
    refused.push(("not final", not_final));
    refused.push(("more out than in", changed(&good, &|tx| tx.output[0].value *= 2)));
    refused.push(("nothing out", changed(&good, &|tx| tx.output.clear())));
    refused.push(("twice the same input", changed(&good, &|tx| tx.input.push(tx.input[0].clone()))));
    refused.push(("an unknown version", changed(&good, &|tx| tx.version.0 = 9)));
    let spoilt = changed(&good, &|tx| {
        let mut items = tx.input[0].witness.to_vec();
        if let Some(signature) = items.first_mut() {
            let middle = signature.len() / 2;
            signature[middle] ^= 1;
        } else {
            let mut script = tx.input[0].script_sig.to_bytes();
            script[20] ^= 1;
            tx.input[0].script_sig = script.into();
        }
        tx.input[0].witness = bitcoin::Witness::from_slice(&items);
    });
    refused.push(("a bad signature", spoilt));
    let young = node.rpc("listunspent", json!([1, 99, [], true, {"include_immature_coinbase": true}]));
    if let Some(young) =
        young.as_array().unwrap().iter().find(|coin| coin["confirmations"].as_u64() < Some(90))
    {
        let young = signed(&node, json!([input(young)]), json!([{ &address: 0.1 }]), Value::Null);
        refused.push(("too young a coinbase", young));
    }

    for (what, hex) in &refused {
        let theirs = node.try_rpc("sendrawtransaction", json!([hex])).expect_err(what).message;
        let began = Instant::now();
        let ours = client.call("blockchain.transaction.broadcast", json!([hex])).expect_err(what);
        assert_eq!((ours.code, reason(&ours.message)), (1, theirs.as_str()), "{what}");
        assert!(began.elapsed().as_secs() < 8, "{what} took {:?}", began.elapsed());
    }

    // A good one: the txid, once the node has it.
    let began = Instant::now();
    let sent = client.call("blockchain.transaction.broadcast", json!([good])).unwrap();
    assert_eq!(sent, json!(txid_of(&good)));
    assert!(
        began.elapsed().as_secs() < 2,
        "a trusted node is asked whether it has it: {:?}",
        began.elapsed()
    );
    assert!(pool_of(&node).contains(&txid_of(&good)));

    // The operator's figures are a second old at most.
    wait_for("the operator to be told", PATIENCE, || {
        let report = super::rpc(&at, &["broadcasts"]);
        let row = report.as_array().unwrap().iter().find(|row| row["txid"] == sent)?;
        let seen = (&row["sent"], &row["accepted"], &row["unseen"]);
        (seen == (&json!(1), &json!(1), &json!(false))).then_some(())
    });

    // Once more it is no error, as `sendrawtransaction` has it; in conflict, and mined, it is.
    assert_eq!(client.call("blockchain.transaction.broadcast", json!([good])).unwrap(), sent);
    let poorer = pay(&coin[0], 0.000_1);
    let rival = changed(&poorer, &|tx| tx.lock_time = bitcoin::absolute::LockTime::from_consensus(1));
    let rival = text(&node.rpc("signrawtransactionwithwallet", json!([rival]))["hex"]);
    let theirs = node.try_rpc("sendrawtransaction", json!([rival])).expect_err("the same fee").message;
    let ours = client.call("blockchain.transaction.broadcast", json!([rival])).expect_err("the same fee");
    assert_eq!(reason(&ours.message), theirs);
    node.generate(1);
    server.wait_synced(&node.tip(), PATIENCE);
    let theirs = node.try_rpc("sendrawtransaction", json!([good])).expect_err("mined").message;
    let ours = client.call("blockchain.transaction.broadcast", json!([good])).expect_err("mined");
    assert_eq!(reason(&ours.message), theirs);

    // A chain of two at once, where the child pays for its parent. Knots takes no parent that does not pay for its relay.
    let fee = if is_knots() { 0.000_001 } else { 0.0 };
    let parent = pay(&coin[2], fee);
    let script = script_of(&node, &address);
    let previous = json!([{"txid": txid_of(&parent), "vout": 0, "scriptPubKey": hex_of(&script), "amount": left(&coin[2], fee)}]);
    let raw = node.rpc(
        "createrawtransaction",
        json!([[{"txid": txid_of(&parent), "vout": 0}], [{ &address: left(&coin[2], 0.0005) }]]),
    );
    let child = text(&node.rpc("signrawtransactionwithwallet", json!([raw, previous]))["hex"]);
    let mut modern = server.client_of(json!("1.6"));
    let answer = modern.call("blockchain.transaction.broadcast_package", json!([[parent, child]])).unwrap();
    assert_eq!(answer, json!({"success": true}));
    wait_for("the node to have both", PATIENCE, || {
        let pool = pool_of(&node);
        (pool.contains(&txid_of(&parent)) && pool.contains(&txid_of(&child))).then_some(())
    });
}

fn hex_of(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn without_a_peer_nothing_is_broadcast_and_the_wallet_is_told() {
    let Some(node) = super::node() else { return };
    let (server, _) = synced(&node);
    let folder = server.stop();
    let coin = coins(&node, 1).remove(0);
    let address = text(&node.rpc("getnewaddress", json!([])));
    let hex = signed(&node, json!([input(&coin)]), json!([{ address: 0.4 }]), Value::Null);
    // Nobody listens there; the chain is complete as far as it goes, but no peer says so.
    let mut alone = Options::new(PEERDEX, "regtest").connect(free_address()).start_in(folder);
    let error = alone.client().call("blockchain.transaction.broadcast", json!([hex])).unwrap_err();
    assert_eq!(error.code, 2, "{error:?}");
}

/// The node takes no OP_RETURN, which other nodes do, and says nothing when it refuses.
#[test]
fn what_the_only_peer_refuses_is_sent_and_soon_shown_to_the_operator() {
    let Some(mut node) = super::node() else { return };
    node.stop();
    node.start_again(&[&node_options()[..], &["-datacarrier=0"]].concat());
    let (mut server, at) = synced(&node);
    let coin = coins(&node, 1).remove(0);
    let address = text(&node.rpc("getnewaddress", json!([])));
    let outputs = json!([{ address: 0.4 }, {"data": "00112233"}]);
    let change = json!({"add_inputs": false});
    let hex = signed(&node, json!([input(&coin)]), outputs, change);
    node.try_rpc("sendrawtransaction", json!([hex])).expect_err("it has no room for data");

    let began = Instant::now();
    let sent = server.client().call("blockchain.transaction.broadcast", json!([hex])).unwrap();
    assert_eq!(sent, json!(txid_of(&hex)), "our own rules are what can be answered by");
    assert!((7..10).contains(&began.elapsed().as_secs()), "not before all time is up: {:?}", began.elapsed());
    server.wait_for_log(&["no peer shows this transaction", &txid_of(&hex)], UNSEEN_WITHIN);
    let report = super::rpc(&at, &["broadcasts"]);
    let row = report.as_array().unwrap().iter().find(|row| row["txid"] == sent).unwrap();
    assert_eq!((&row["sent"], &row["accepted"], &row["unseen"]), (&json!(1), &json!(0), &json!(true)));
}
