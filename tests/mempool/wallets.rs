//! Debian's Electrum with payments that wait: received, bumped, spent again, and replaced by a double spend.

use std::time::Instant;

use serde_json::{Value, json};

use super::support::node::text;
use super::support::wallet::Wallet;
use super::{PATIENCE, pool_of, signed, synced, txid_of};

fn unconfirmed(history: &Value) -> Vec<(String, i64)> {
    let transactions = history["transactions"].as_array().expect("a list");
    let place = |tx: &Value| (text(&tx["txid"]), tx["height"].as_i64().expect("a height"));
    // -2 is what Electrum keeps for itself although no server knows it any more.
    transactions.iter().map(place).filter(|(_, height)| [0, -1].contains(height)).collect()
}

#[test]
fn debians_electrum_receives_bumps_spends_and_sees_a_double_spend() {
    let (Some(node), Some(wallet)) = (super::node(), Wallet::create()) else { return };
    let addresses = wallet.addresses();
    node.rpc("sendtoaddress", json!([addresses[0], 2.0]));
    node.generate(1);
    let (server, _) = synced(&node);
    wallet.connect(server.address());
    wallet.wait_for(&["getbalance"], PATIENCE, |balance| balance["confirmed"] == json!("2"));

    // It receives what no block has.
    let began = Instant::now();
    let received = text(&node.rpc("sendtoaddress", json!([addresses[1], 1.0])));
    wallet.wait_for(&["getbalance"], PATIENCE, |balance| balance["unconfirmed"] == json!("1"));
    println!("an unconfirmed payment took {:?} to the wallet", began.elapsed());
    let history = wallet.ask(&["onchain_history"]);
    assert_eq!(unconfirmed(&history), [(received.clone(), 0)]);

    // It sends, and bumps the fee of what it sent.
    let payee = text(&node.rpc("getnewaddress", json!([])));
    let first = text(&wallet.ask(&["payto", &payee, "0.5", "--feerate", "2"]));
    let sent = text(&wallet.ask(&["broadcast", &first]));
    assert!(pool_of(&node).contains(&sent), "the answer comes when the node has it");
    wallet.wait_for(&["onchain_history"], PATIENCE, |history| {
        unconfirmed(history).iter().any(|(txid, _)| *txid == sent)
    });
    let bumped = text(&wallet.ask(&["bumpfee", &first, "20"]));
    let bumped = text(&wallet.ask(&["broadcast", &bumped]));
    assert_ne!(bumped, sent);
    let pool = pool_of(&node);
    assert!(pool.contains(&bumped) && !pool.contains(&sent), "{pool:?}");
    wallet.wait_for(&["onchain_history"], PATIENCE, |history| {
        let txids: Vec<String> = unconfirmed(history).into_iter().map(|(txid, _)| txid).collect();
        txids.contains(&bumped) && !txids.contains(&sent)
    });

    // It spends its own unconfirmed change: height -1.
    let second = text(&wallet.ask(&["payto", &payee, "1.2", "--feerate", "30"]));
    let second = text(&wallet.ask(&["broadcast", &second]));
    assert!(pool_of(&node).contains(&second));
    wallet.wait_for(&["onchain_history"], PATIENCE, |history| {
        unconfirmed(history).contains(&(second.clone(), -1))
    });

    // A payment to it is replaced by one to somebody else.
    let coin = node.rpc("listunspent", json!([6, 9_999_999, [], true, {"minimumAmount": 1.0}]))[0].clone();
    let input = json!([{"txid": coin["txid"], "vout": coin["vout"], "sequence": 0xffff_fffd_u32}]);
    let change = text(&node.rpc("getnewaddress", json!([])));
    let left = |fee: f64| ((coin["amount"].as_f64().unwrap() - 0.25 - fee) * 1e8).round() / 1e8;
    let honest =
        signed(&node, input.clone(), json!([{&addresses[2]: 0.25}, {&change: left(0.0001)}]), Value::Null);
    let thief = signed(&node, input, json!([{&payee: 0.25}, {&change: left(0.0005)}]), Value::Null);
    node.rpc("sendrawtransaction", json!([honest]));
    wallet.wait_for(&["onchain_history"], PATIENCE, |history| {
        unconfirmed(history).iter().any(|(txid, _)| *txid == txid_of(&honest))
    });
    let began = Instant::now();
    node.rpc("sendrawtransaction", json!([thief]));
    wallet.wait_for(&["onchain_history"], PATIENCE, |history| {
        unconfirmed(history).iter().all(|(txid, _)| *txid != txid_of(&honest))
    });
    println!("a double spend took {:?} to the wallet", began.elapsed());

    node.generate(1);
    wallet.wait_for(&["onchain_history"], PATIENCE, |history| unconfirmed(history).is_empty());
}
