//! The unconfirmed, from outside: what wallets of peerdex see of a real node's mempool, what becomes of their own
//! transactions, and whether the two mempools are the same.

#![allow(clippy::unwrap_used, reason = "helpers of tests, which may fail")]

#[path = "../support/mod.rs"]
mod support;

mod broadcast;
mod compact;
mod many;
mod private;
mod same;
mod seen;
mod wallets;

use std::time::Duration;

use serde_json::{Value, json};

use support::client::Client;
use support::node::{Node, text};
use support::server::{Options, Server};

const PEERDEX: &str = env!("CARGO_BIN_EXE_peerdex");
/// Longest wait for a sync, or for anything on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// Within which a wallet hears of a transaction that a node of the operator's own has.
const SOON: Duration = Duration::from_secs(2);

/// What makes a node answer at once, as the documentation tells operators.
const OWN_NODE: [&str; 1] = ["-whitelist=noban,mempool,download@127.0.0.1"];

/// A node that plays by rules that peerdex has too, at height 300; `None` where there is no bitcoind.
fn node() -> Option<Node> {
    let mut node = support::payments::node()?;
    node.stop();
    node.start_again(&node_options());
    Some(node)
}

fn is_knots() -> bool {
    support::node::bitcoind().is_some_and(|program| support::node::is_knots(&program))
}

/// Regtest relays what is not standard, unless it is told not to.
fn node_options() -> Vec<&'static str> {
    let near_core = if is_knots() { support::node::KNOTS_OPTIONS } else { &[] };
    [
        &OWN_NODE[..],
        &[
            "-fastprune",
            "-acceptnonstdtxn=0",
            // It would look through all of it for each newcomer.
            "-checkmempool=0",
            "-debug=net",
            "-debug=mempool",
            "-debug=mempoolrej",
            "-debug=txpackages",
        ],
        near_core,
    ]
    .concat()
}

/// A server that trusts the node, with an rpc service for its operator.
fn options(node: &Node) -> (Options, String) {
    let rpc = support::free_address().to_string();
    let mut options = Options::new(PEERDEX, "regtest");
    options.extra =
        vec!["--trust".into(), node.address().to_string(), "--service".into(), format!("rpc://{rpc}")];
    if is_knots() {
        options.extra.push("--relay-as-knots".into());
    }
    (options, rpc)
}

fn synced(node: &Node) -> (Server, String) {
    let (options, rpc) = options(node);
    let mut server = options.start();
    server.wait_synced(&node.tip(), PATIENCE);
    (server, rpc)
}

/// Asks the running server as its operator; without the program, as a process for each question would take most of
/// the time.
fn rpc(at: &str, arguments: &[&str]) -> Value {
    let (method, params) = arguments.split_first().expect("a method");
    let mut client = Client::dial(at.parse().unwrap()).unwrap();
    client.call(method, json!(params)).unwrap_or_else(|error| panic!("{arguments:?}: {error:?}"))
}

/// The txids of a list, in order.
fn sorted(list: &Value) -> Vec<String> {
    let mut txids: Vec<String> = list.as_array().expect("a list").iter().map(text).collect();
    txids.sort();
    txids
}

fn pool_of(node: &Node) -> Vec<String> {
    sorted(&node.rpc("getrawmempool", json!([])))
}

/// The script of an address of the node's wallet, as bytes.
fn script_of(node: &Node, address: &str) -> Vec<u8> {
    let info = node.rpc("getaddressinfo", json!([address]));
    bitcoin::hex::FromHex::from_hex(info["scriptPubKey"].as_str().unwrap()).unwrap()
}

/// A transaction of the node's wallet that it does not send: hex.
fn signed(node: &Node, inputs: Value, outputs: Value, options: Value) -> String {
    let raw = node.rpc("createrawtransaction", json!([inputs, outputs]));
    let funded = match options {
        Value::Null => raw,
        options => node.rpc("fundrawtransaction", json!([raw, options]))["hex"].clone(),
    };
    let signed = node.rpc("signrawtransactionwithwallet", json!([funded]));
    assert_eq!(signed["complete"], json!(true), "{signed}");
    text(&signed["hex"])
}

fn txid_of(hex: &str) -> String {
    let tx: bitcoin::Transaction = bitcoin::consensus::encode::deserialize_hex(hex).unwrap();
    tx.compute_txid().to_string()
}
