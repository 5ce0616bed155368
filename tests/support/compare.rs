//! Every answer of a server beside what the naive index says.

use std::collections::BTreeSet;

use bitcoin::hashes::{Hash, sha256d};
use serde_json::{Value, json};

use super::client::Client;
use super::naive::{NaiveIndex, satoshi, script_hash};
use super::node::{Node, text};

/// Headers per `block.headers`; every server gives as many.
const HEADERS: u32 = 2016;

/// Of every script that was ever paid: history, unspent outputs, balance and status are as they should be.
pub fn assert_same_scripts(client: &mut Client, index: &NaiveIndex) {
    let unspent = index.unspent();
    let scripts: Vec<&Vec<u8>> = index.scripts().collect();
    let ask = |client: &mut Client, method: &str| {
        let calls: Vec<_> = scripts.iter().map(|script| (method, json!([script_hash(script)]))).collect();
        let answers = client.pipeline(&calls);
        let named = scripts.iter().map(|script| bitcoin::Script::from_bytes(script)).zip(answers);
        named
            .map(|(script, answer)| {
                let answer = answer.unwrap_or_else(|error| panic!("{method} of {script:?}: {error:?}"));
                (script, answer)
            })
            .collect::<Vec<_>>()
    };
    for (script, history) in ask(client, "blockchain.scripthash.get_history") {
        assert_eq!(history, index.history(script.as_bytes()), "history of {script:?}");
    }
    for (script, list) in ask(client, "blockchain.scripthash.listunspent") {
        let expected = unspent.get(script.as_bytes()).cloned().unwrap_or(json!([]));
        assert_eq!(list, expected, "unspent outputs of {script:?}");
    }
    for (script, balance) in ask(client, "blockchain.scripthash.get_balance") {
        let coins = unspent.get(script.as_bytes()).and_then(Value::as_array);
        let sum: u64 = coins.into_iter().flatten().filter_map(|coin| coin["value"].as_u64()).sum();
        assert_eq!(balance, json!({"confirmed": sum, "unconfirmed": 0}), "balance of {script:?}");
    }
    for (script, status) in ask(client, "blockchain.scripthash.subscribe") {
        assert_eq!(status, index.status(script.as_bytes()), "status of {script:?}");
    }
    for (script, was_subscribed) in ask(client, "blockchain.scripthash.unsubscribe") {
        assert_eq!(was_subscribed, json!(true), "subscription to {script:?}");
    }
}

/// Every header from genesis to the tip is served, and each is built on the one below. Their 80 bytes.
pub fn served_headers(client: &mut Client) -> Vec<Vec<u8>> {
    let (tip, tip_header) = client.tip().expect("the tip is always served");
    let mut headers: Vec<Vec<u8>> = Vec::new();
    while headers.len() <= tip as usize {
        let wanted = HEADERS.min(tip + 1 - headers.len() as u32);
        let answer = client.call("blockchain.block.headers", json!([headers.len(), wanted])).unwrap();
        assert_eq!(answer["count"], json!(wanted), "headers from {}", headers.len());
        assert!(answer["max"].as_u64().is_some_and(|max| max >= 2016), "wallets ask for 2016 at once");
        let bytes: Vec<u8> = bitcoin::hex::FromHex::from_hex(answer["hex"].as_str().unwrap()).unwrap();
        headers.extend(bytes.chunks_exact(80).map(<[u8]>::to_vec));
    }
    assert_eq!(headers.last(), Some(&tip_header), "the last header is the tip's");
    for (height, pair) in headers.windows(2).enumerate() {
        assert_eq!(
            pair[1][4..36],
            *sha256d::Hash::hash(&pair[0]).as_byte_array(),
            "parent of {}",
            height + 1
        );
    }
    headers
}

/// Of every transaction but the genesis block's, `get_merkle` proves its place under its block's header.
pub fn assert_merkle_proofs(client: &mut Client, index: &NaiveIndex, headers: &[Vec<u8>]) {
    let transactions: Vec<_> = index.transactions().collect();
    let calls: Vec<_> = transactions
        .iter()
        .map(|(height, _, txid)| ("blockchain.transaction.get_merkle", json!([txid.to_string(), height])))
        .collect();
    for ((height, position, txid), proof) in transactions.into_iter().zip(client.pipeline(&calls)) {
        let proof = proof.unwrap_or_else(|error| panic!("proof of {txid}: {error:?}"));
        assert_eq!(
            (&proof["block_height"], &proof["pos"]),
            (&json!(height), &json!(position)),
            "place of {txid}"
        );
        let root =
            merkle_root(sha256d::Hash::from_byte_array(txid.to_byte_array()), position, &proof["merkle"]);
        assert_eq!(
            headers[height as usize][36..68],
            *root.as_byte_array(),
            "proof of {txid} in block {height}"
        );
    }
}

/// The root that a branch leads to from the hash at `position`.
pub fn merkle_root(leaf: sha256d::Hash, position: usize, branch: &Value) -> sha256d::Hash {
    let (mut hash, mut position) = (leaf, position);
    for sibling in branch.as_array().expect("a branch is a list") {
        let sibling: sha256d::Hash = sibling.as_str().expect("hashes in hex").parse().expect("hashes in hex");
        let (left, right) = if position & 1 == 0 { (hash, sibling) } else { (sibling, hash) };
        hash = sha256d::Hash::hash(&[left.to_byte_array(), right.to_byte_array()].concat());
        position >>= 1;
    }
    assert_eq!(position, 0, "the branch is as long as the tree is high");
    hash
}

/// The naive index has the coins that bitcoind has, by three of its own ways to say so.
pub fn assert_same_coins(node: &Node, index: &NaiveIndex) {
    let total = node.rpc("gettxoutsetinfo", json!(["none"]));
    assert_eq!(index.coin_count() as u64, total["txouts"].as_u64().unwrap());
    assert_eq!(index.total(), satoshi(&total["total_amount"]));

    let coins: Vec<_> = index.coins().collect();
    let calls: Vec<_> =
        coins.iter().map(|(txid, vout, ..)| ("gettxout", json!([txid.to_string(), vout, false]))).collect();
    for ((txid, vout, script, value, height), said) in coins.iter().zip(node.rpc_batch(&calls)) {
        let hex = bitcoin::Script::from_bytes(script).to_hex_string();
        assert_eq!(said["scriptPubKey"]["hex"], json!(hex), "{txid}:{vout}");
        assert_eq!(satoshi(&said["value"]), *value, "{txid}:{vout}");
        assert_eq!(said["confirmations"], json!(index.height() + 1 - height), "{txid}:{vout}");
    }

    // A descriptor can't name the empty script; the others are looked for all at once.
    let scripts = index.scripts().filter(|script| !script.is_empty());
    let descriptors: Vec<String> = scripts
        .map(|script| format!("raw({})", bitcoin::Script::from_bytes(script).to_hex_string()))
        .collect();
    let found = node.rpc("scantxoutset", json!(["start", descriptors]));
    let found: BTreeSet<(String, u64, u64)> = found["unspents"]
        .as_array()
        .unwrap()
        .iter()
        .map(|coin| (text(&coin["txid"]), coin["vout"].as_u64().unwrap(), satoshi(&coin["amount"])))
        .collect();
    let own = coins.iter().filter(|(_, _, script, ..)| !script.is_empty());
    let own = own.map(|(txid, vout, _, value, _)| (txid.to_string(), u64::from(*vout), *value)).collect();
    assert_eq!(found, own);
}
