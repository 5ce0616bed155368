//! Real wallets against peerdex on regtest: Debian's Electrum, which speaks 1.4, and the client of BDK's
//! wallets, which speaks 1.6 and asks in batches.

#![allow(clippy::unwrap_used)]

mod support;

use std::collections::HashSet;
use std::time::Duration;

use bitcoin::{Script, Txid};
use electrum_client::{ElectrumApi, Param};
use serde_json::{Value, json};

use support::compare::merkle_root;
use support::naive::script_hash;
use support::node::{Node, text};
use support::payments;
use support::server::{Options, Server};
use support::wait_for;
use support::wallet::Wallet;

const PEERDEX: &str = env!("CARGO_BIN_EXE_peerdex");
/// Longest wait for a sync, or for word to get from the node through peerdex to a wallet.
const PATIENCE: Duration = Duration::from_secs(60);

fn synced(node: &Node) -> Server {
    let mut server = Options::new(PEERDEX, "regtest").connect(node.address()).start();
    server.wait_synced(&node.tip(), PATIENCE);
    server
}

/// Mines what waits, and a coin for `address`; the payment's txid.
fn pay(node: &Node, address: &str, bitcoins: f64) -> String {
    let txid = text(&node.rpc("sendtoaddress", json!([address, bitcoins])));
    node.generate(1);
    txid
}

/// Where Electrum sees each of its transactions: txid and height.
fn heights(history: &Value) -> Vec<(String, i64)> {
    let transactions = history["transactions"].as_array().expect("a list");
    transactions.iter().map(|tx| (text(&tx["txid"]), tx["height"].as_i64().expect("a height"))).collect()
}

fn wait_for_balance(wallet: &Wallet, confirmed: &str) {
    wallet.wait_for(&["getbalance"], PATIENCE, |balance| {
        balance["confirmed"] == json!(confirmed) && balance.get("unconfirmed").is_none()
    });
}

#[test]
fn debians_electrum_receives_sends_and_sees_it_confirmed() {
    let (Some(node), Some(wallet)) = (payments::node(), Wallet::create()) else { return };
    let addresses = wallet.addresses();
    let before = [pay(&node, &addresses[0], 1.5), pay(&node, &addresses[1], 2.25)];
    let server = synced(&node);

    // What happened before it came.
    wallet.connect(server.address());
    wallet.wait_for(&["getinfo"], PATIENCE, |info| {
        info["connected"] == json!(true) && info["blockchain_height"] == json!(node.height())
    });
    wait_for_balance(&wallet, "3.75");
    let history = wallet.wait_for(&["onchain_history"], PATIENCE, |history| heights(history).len() == 2);
    assert_eq!(heights(&history), [(before[0].clone(), 301), (before[1].clone(), 302)]);

    // What happens while it looks.
    let address = text(&wallet.ask(&["getunusedaddress"]));
    let received = pay(&node, &address, 4.0);
    wait_for_balance(&wallet, "7.75");
    let history = wallet.ask(&["onchain_history"]);
    assert_eq!(heights(&history).last(), Some(&(received, 303)));

    // What it does itself: its transaction reaches the node's mempool through peerdex, and its block comes back.
    let payee = text(&node.rpc("getnewaddress", json!([])));
    let signed = text(&wallet.ask(&["payto", &payee, "5", "-f", "0.001"]));
    let sent = text(&wallet.ask(&["broadcast", &signed]));
    wait_for("the transaction to reach the node", PATIENCE, || {
        node.rpc("getrawmempool", json!([])).as_array().unwrap().contains(&json!(sent)).then_some(())
    });
    node.generate(1);
    wait_for_balance(&wallet, "2.749");
    let history = wallet.ask(&["onchain_history"]);
    assert_eq!(heights(&history).last(), Some(&(sent.clone(), 304)));
    assert_eq!(node.rpc("getreceivedbyaddress", json!([payee])), json!(5.0));

    // A reorg moves it up by one block. (Not down: Electrum's lock time forbids an earlier block.)
    node.invalidate(1);
    node.generate_block(&[]);
    node.generate(1);
    wallet.wait_for(&["onchain_history"], PATIENCE, |history| {
        heights(history).into_iter().any(|place| place == (sent.clone(), 305))
    });
    wait_for_balance(&wallet, "2.749");

    // A transaction that nobody can accept is refused in words that Electrum knows.
    let again = wallet.try_ask(&["broadcast", &spoiled(&signed)]);
    assert!(again.is_err(), "{again:?}");
}

#[test]
fn debians_electrum_remembers_our_certificate_and_meets_it_again() {
    let (Some(node), Some(wallet)) = (payments::node(), Wallet::create()) else { return };
    let paid = pay(&node, &wallet.addresses()[0], 1.5);
    let ssl = support::free_address();
    let mut options = Options::new(PEERDEX, "regtest").connect(node.address());
    options.extra = vec!["--service".into(), format!("ssl://{ssl}")];
    let mut server = options.start();
    server.wait_synced(&node.tip(), PATIENCE);

    wallet.connect_by_ssl(ssl);
    wait_for_balance(&wallet, "1.5");
    let ours = std::fs::read_to_string(server.folder().join("ssl.pem")).unwrap();
    let end = ours.find("-----BEGIN PRIVATE KEY").unwrap();
    let certificate = |pem: &str| pem.split_whitespace().collect::<String>();
    let remembered = wallet.remembered_certificate().expect("it pins what nobody signed");
    assert_eq!(certificate(&remembered), certificate(&ours[..end]));

    // After a restart it is the same, so Electrum comes back by itself.
    let mut server = options.start_in(server.stop());
    server.wait_synced(&node.tip(), PATIENCE);
    let received = pay(&node, &wallet.addresses()[1], 2.0);
    // It may see the second unconfirmed first.
    let places = [(paid, 301), (received, 302)];
    wallet.wait_for(&["onchain_history"], 3 * PATIENCE, |history| heights(history) == places);
}

/// The transaction with an input that does not exist.
fn spoiled(hex: &str) -> String {
    let mut tx: bitcoin::Transaction = bitcoin::consensus::encode::deserialize_hex(hex).unwrap();
    tx.input[0].previous_output.txid = "77".repeat(32).parse().unwrap();
    bitcoin::consensus::encode::serialize_hex(&tx)
}

#[test]
fn the_client_of_bdk_speaks_1_6_in_batches() {
    let Some(node) = payments::node() else { return };
    let server = synced(&node);
    let index = node.index();
    let client = electrum_client::Client::new(&format!("tcp://{}", server.address())).unwrap();
    assert_eq!(client.protocol_version().unwrap(), "1.6");

    let features = client.server_features().unwrap();
    assert_eq!(
        features.genesis_hash.to_vec(),
        <Vec<u8> as bitcoin::hex::FromHex>::from_hex(&node.hash_at(0)).unwrap()
    );
    assert!(features.server_version.starts_with("peerdex/"));
    let tip = client.block_headers_subscribe().unwrap();
    assert_eq!((tip.height as u32, tip.header.block_hash().to_string()), (node.height(), node.tip()));
    let headers = client.block_headers(0, 2016).unwrap();
    assert_eq!((headers.count as u32, headers.headers.len() as u32), (node.height() + 1, node.height() + 1));

    // All scripts, forty a batch.
    let scripts: Vec<&Script> = index.scripts().map(|script| Script::from_bytes(script)).collect();
    for batch in scripts.chunks(40) {
        let histories = client.batch_script_get_history(batch).unwrap();
        let unspent = client.batch_script_list_unspent(batch).unwrap();
        let balances = client.batch_script_get_balance(batch).unwrap();
        let statuses = client.batch_script_subscribe(batch).unwrap();
        for (n, script) in batch.iter().enumerate() {
            let history: Vec<Value> = histories[n]
                .iter()
                .map(|entry| json!({"height": entry.height, "tx_hash": entry.tx_hash.to_string()}))
                .collect();
            assert_eq!(json!(history), index.history(script.as_bytes()));
            let sum: u64 = unspent[n].iter().map(|coin| coin.value).sum();
            assert_eq!((balances[n].confirmed, balances[n].unconfirmed), (sum, 0));
            let status = statuses[n].as_ref().map_or(Value::Null, |status| json!(hex(&status[..])));
            assert_eq!(status, index.status(script.as_bytes()));
        }
    }
    let coins: u64 = index.total();
    let listed: u64 = index.unspent().values().flat_map(|list| list.as_array().unwrap()).count() as u64;
    assert!(coins > 0 && listed as usize == index.coin_count());

    // Transactions and their proofs, by batch.
    let places: Vec<(Txid, usize)> =
        index.transactions().map(|(height, _, txid)| (txid, height as usize)).collect();
    for batch in places.chunks(40) {
        let txs = client.batch_transaction_get(batch.iter().map(|(txid, _)| txid)).unwrap();
        assert!(txs.iter().zip(batch).all(|(tx, (txid, _))| tx.compute_txid() == *txid));
        for (proof, (txid, height)) in client.batch_transaction_get_merkle(batch).unwrap().iter().zip(batch) {
            let branch: Vec<String> = proof.merkle.iter().map(|hash| hex(hash)).collect();
            let root = merkle_root(txid.to_raw_hash(), proof.pos, &json!(branch));
            assert_eq!(root, headers.headers[*height].merkle_root.to_raw_hash(), "{txid}");
        }
    }

    // What it polls; so far there was nothing to learn fees from.
    client.ping().unwrap();
    assert!(client.estimate_fee(6, None).unwrap() < 1.0);
    assert!(client.mempool_get_info().unwrap().minrelaytxfee > 0.0);
    assert!(client.relay_fee().unwrap() > 0.0);
}

#[test]
fn the_client_of_bdk_is_told_and_sends() {
    let Some(node) = payments::node() else { return };
    let server = synced(&node);
    let client = electrum_client::Client::new(&format!("tcp://{}", server.address())).unwrap();
    client.block_headers_subscribe().unwrap();
    let address = text(&node.rpc("getnewaddress", json!([])));
    let info = node.rpc("getaddressinfo", json!([address]));
    let script: bitcoin::ScriptBuf = bitcoin::ScriptBuf::from_hex(&text(&info["scriptPubKey"])).unwrap();
    assert_eq!(client.script_subscribe(&script).unwrap(), None);

    // Made by the node's wallet, but sent by ours.
    let raw = node.rpc("createrawtransaction", json!([[], [{address: 0.7}]]));
    let funded = node.rpc("fundrawtransaction", json!([raw]));
    let signed = text(&node.rpc("signrawtransactionwithwallet", json!([funded["hex"]]))["hex"]);
    let tx: bitcoin::Transaction = bitcoin::consensus::encode::deserialize_hex(&signed).unwrap();
    assert_eq!(client.transaction_broadcast(&tx).unwrap(), tx.compute_txid());
    wait_for("the transaction to reach the node", PATIENCE, || {
        let pool = node.rpc("getrawmempool", json!([]));
        pool.as_array().unwrap().contains(&json!(tx.compute_txid().to_string())).then_some(())
    });
    node.generate(1);

    let header = wait_for("word of the block", PATIENCE, || {
        client.ping().unwrap();
        client.block_headers_pop().unwrap()
    });
    assert_eq!(header.header.block_hash().to_string(), node.tip());
    // First comes word of the payment unconfirmed.
    let confirmed = node.index().status(script.as_bytes());
    wait_for("word of the confirmation", PATIENCE, || {
        client.ping().unwrap();
        let status = client.script_pop(&script).unwrap()?;
        (json!(hex(&status[..])) == confirmed).then_some(())
    });
    let history = client.script_get_history(&script).unwrap();
    assert_eq!((history[0].tx_hash, history[0].height as u32), (tx.compute_txid(), node.height()));

    // Twice is an error, and the connection lives on.
    let nonsense = client.raw_call("blockchain.transaction.broadcast", [Param::String("00".into())]);
    assert!(nonsense.is_err());
    client.ping().unwrap();
}

#[test]
fn a_batch_is_answered_as_one_array() {
    let Some(node) = payments::node() else { return };
    let mut server = synced(&node);
    let index = node.index();
    let mut alice = server.client_of(json!(["1.4", "1.6"]));
    let scripts: Vec<&Vec<u8>> = index.scripts().take(50).collect();
    let requests: Vec<_> = scripts
        .iter()
        .map(|script| ("blockchain.scripthash.get_history", json!([script_hash(script)])))
        .collect();

    let answers = alice.batch(&requests);

    let answers = answers.as_array().unwrap();
    assert_eq!(answers.len(), 50);
    let ids: HashSet<u64> = answers.iter().map(|answer| answer["id"].as_u64().unwrap()).collect();
    let first = *ids.iter().min().unwrap();
    assert_eq!(ids.len(), 50);
    for answer in answers {
        let script = scripts[(answer["id"].as_u64().unwrap() - first) as usize];
        assert_eq!(answer["result"], index.history(script));
        assert!(answer.get("error").is_none(), "no error key on success");
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
