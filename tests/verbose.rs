//! A real bitcoind on regtest: `transaction.get` with *verbose* answers what its `getrawtransaction` does, to
//! the character.

#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use ruzstd::encoding::{CompressionLevel, compress_to_vec};
use serde_json::{Value, json};

use support::client::{Client, results_as_written};
use support::node::{Node, text};
use support::payments::{self, Keys};
use support::server::{Options, Server};
use support::{oddities, wait_for};

const PEERDEX: &str = env!("CARGO_BIN_EXE_peerdex");
/// Longest wait for a sync or for the node's own index; they take seconds, but the machine may be busy.
const SYNC: Duration = Duration::from_secs(120);
/// Transactions that BlueWallet asks for at once.
const BATCH: usize = 45;

/// A chain with a wallet's payments and every oddity, and a node that finds any transaction.
fn node() -> Option<Node> {
    let node = Node::start(&["-txindex=1"])?;
    let keys = Keys::imported_into(&node);
    node.generate(110);
    oddities::mine(&node);
    payments::in_two_blocks(&node, &keys);
    payments::in_one_block(&node, &keys);
    for _ in 0..2 {
        payments::everyday(&node);
        node.generate(1);
    }
    wait_for("the node's index of transactions", SYNC, || {
        let synced = node.rpc("getindexinfo", json!(["txindex"]))["txindex"]["synced"].clone();
        (synced == json!(true)).then_some(())
    });
    Some(node)
}

/// Every transaction but the genesis coinbase, which is none.
fn txids(node: &Node) -> Vec<Value> {
    let calls: Vec<_> = node.hashes_from(1).into_iter().map(|hash| ("getblock", json!([hash, 1]))).collect();
    let blocks = node.rpc_batch(&calls);
    blocks.iter().flat_map(|block| block["tx"].as_array().unwrap().clone()).collect()
}

/// What the node says of each transaction, as it writes it.
fn said_by_node(node: &Node, txids: &[Value]) -> Vec<String> {
    let calls: Vec<_> = txids.iter().map(|txid| ("getrawtransaction", json!([txid, true]))).collect();
    node.rpc_texts(&calls)
}

/// What the server says of each transaction, as it writes it, asked as BlueWallet asks.
fn said_by_server(client: &mut Client, txids: &[Value]) -> Vec<String> {
    let calls: Vec<_> =
        txids.iter().map(|txid| ("blockchain.transaction.get", json!([txid, true]))).collect();
    calls.chunks(BATCH).flat_map(|batch| results_as_written(&client.batch_for_text(batch))).collect()
}

fn assert_same(node: &Node, server: &mut Server) -> Vec<String> {
    server.wait_synced(&node.tip(), SYNC);
    let txids = txids(node);
    let expected = said_by_node(node, &txids);
    let answers = said_by_server(&mut server.client(), &txids);
    assert_eq!(answers.len(), expected.len());
    for (answer, expected) in answers.iter().zip(&expected) {
        if answer != expected {
            let [answer, expected]: [Value; 2] =
                [answer, expected].map(|text| serde_json::from_str(text).unwrap());
            assert_eq!(answer, expected, "{}", expected["txid"]);
            panic!("{}: the same values, but written otherwise", expected["txid"]);
        }
    }
    expected
}

#[test]
fn every_transaction_reads_as_the_node_writes_it() {
    let Some(node) = node() else { return };
    let mut server = Options::new(PEERDEX, "regtest").connect(node.address()).start();

    let said = assert_same(&node, &mut server);

    let parsed: Vec<Value> = said.iter().map(|text| serde_json::from_str(text).unwrap()).collect();
    let outputs = || parsed.iter().flat_map(|tx| tx["vout"].as_array().unwrap());
    let types: BTreeSet<String> = outputs().map(|output| text(&output["scriptPubKey"]["type"])).collect();
    println!("{} transactions, {} outputs, types: {types:?}", parsed.len(), outputs().count());
    let all = [
        "anchor",
        "multisig",
        "nonstandard",
        "nulldata",
        "pubkey",
        "pubkeyhash",
        "scripthash",
        "witness_unknown",
        "witness_v0_keyhash",
        "witness_v0_scripthash",
        "witness_v1_taproot",
    ];
    assert_eq!(types, all.map(str::to_owned).into());
    record(&said);

    // One more block is one more confirmation, and another branch is another block.
    node.generate(1);
    assert_same(&node, &mut server);
    node.invalidate(2);
    node.generate(3);
    assert_same(&node, &mut server);
    server.stop();
}

/// With `UPDATE_VERBOSE=1`: writes down what the node says, for the tests that have none, one transaction a line.
fn record(said: &[String]) {
    if std::env::var_os("UPDATE_VERBOSE").is_none() {
        return;
    }
    // Of many coinbases alike one is enough.
    let mut is_first = true;
    let lines: String = said
        .iter()
        .filter(|line| !line.contains("\"coinbase\"") || std::mem::take(&mut is_first))
        .map(|line| format!("{line}\n"))
        .collect();
    let packed = compress_to_vec(lines.as_bytes(), CompressionLevel::Fastest);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/verbose/regtest.jsonl.zst");
    std::fs::write(path, packed).unwrap();
}

#[test]
fn a_wallet_finds_what_it_reads_of_a_transaction() {
    let Some(node) = node() else { return };
    let mut server = Options::new(PEERDEX, "regtest").connect(node.address()).start();
    server.wait_synced(&node.tip(), SYNC);
    let txids = txids(&node);
    let newest = &txids[txids.len() - BATCH..];

    // BlueWallet: 45 at once, the answers found by their ids and the transactions by their txids.
    let calls: Vec<_> =
        newest.iter().map(|txid| ("blockchain.transaction.get", json!([txid, true]))).collect();
    let answers = server.client().batch(&calls);
    let answers = answers.as_array().unwrap();
    assert_eq!(answers.len(), BATCH);
    for (answer, txid) in answers.iter().zip(newest) {
        assert!(answer.get("error").is_none() && answer["id"].is_u64());
        let tx = &answer["result"];
        assert_eq!(tx["txid"], *txid);
        assert!(tx["confirmations"].as_u64().is_some_and(|count| count > 0));
        assert!(tx["blockhash"].is_string() && tx["time"].is_u64() && tx["blocktime"] == tx["time"]);
        for input in tx["vin"].as_array().unwrap() {
            assert!(input["coinbase"].is_string() || input["txid"].is_string() && input["vout"].is_u64());
            assert!(
                input.get("txinwitness").is_none_or(|stack| stack
                    .as_array()
                    .unwrap()
                    .iter()
                    .all(Value::is_string))
            );
        }
        for output in tx["vout"].as_array().unwrap() {
            assert!(output["value"].is_number() && output["n"].is_u64());
            let script = &output["scriptPubKey"];
            // Gone from Core since 22, and wallets read the one address since.
            assert!(script.get("addresses").is_none() && script.get("reqSigs").is_none());
            assert!(script.get("address").is_none_or(Value::is_string) && script["hex"].is_string());
        }
    }

    // In every version, by name and with 1 for true; what is unknown begins with the words that Sparrow knows.
    for protocol in ["1.4", "1.4.3", "1.6"] {
        let mut client = Client::connect(server.address(), json!(protocol));
        let by_name =
            client.call("blockchain.transaction.get", json!({"tx_hash": newest[0], "verbose": true}));
        assert_eq!(by_name.as_ref(), Ok(&answers[0]["result"]));
        assert_eq!(client.call("blockchain.transaction.get", json!([newest[0], 1])), by_name);
        let hex = client.call("blockchain.transaction.get", json!([newest[0], false])).unwrap();
        assert_eq!(hex, by_name.unwrap()["hex"]);
        let unknown = client.call("blockchain.transaction.get", json!(["00".repeat(32), true])).unwrap_err();
        assert!(unknown.message.starts_with("No such mempool or blockchain transaction"), "{unknown:?}");
    }
    server.stop();
}
