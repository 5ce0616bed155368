//! What a server says over its port, and what is in the folder of a stopped one, against the model.

use std::fmt::Debug;
use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Context, bail, ensure};
use bitcoin::hashes::Hash;
use bitcoin::{Network, Txid};
use chainstore::{Height, Options, Snapshot, Store};
use serde_json::{Value, json};

use super::model::{Model, ScriptHash, Universe};
use crate::forge::assembly::merkle_root;
use crate::sync::watch::Wallet;

/// Electrum's error for what does not exist; others mean that something went wrong.
const NOT_FOUND: [i64; 2] = [2, 1];

/// Everything that was ever in any branch is asked of the store: what is in the chain must be there as the model has
/// it, anything else must be gone. Rows are compared as what they say at the tip, wherever the store keeps them.
pub fn folder(folder: &Path, model: &Model, universe: &Universe) -> anyhow::Result<()> {
    let store = Store::open(folder, Options::new(Network::Regtest)).context("the store does not open")?;
    ensure!(!store.is_bulk(), "a bulk goes on at the tip");
    let headers = store.headers()?;
    ensure!(headers.invalid.is_empty(), "valid blocks were marked invalid: {:?}", headers.invalid);
    let snapshot = store.snapshot();
    let tip = snapshot.tip().context("the store is empty")?;
    same("tip", &"", &tip.height.0, &model.height())?;
    blocks(&snapshot, model)?;
    transactions(&snapshot, model, universe)?;
    coins(&snapshot, model, universe)?;
    scripts(&snapshot, model, universe)
}

fn same<T: PartialEq + Debug>(what: &str, of: &dyn Debug, found: &T, wanted: &T) -> anyhow::Result<()> {
    if found == wanted {
        return Ok(());
    }
    let short = |value: &T| {
        let mut text = format!("{value:?}");
        if text.len() > 2_000 {
            text.truncate((0..=2_000).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0));
            text.push_str(" ...");
        }
        text
    };
    bail!("{what} of {of:02x?}: found {}, true is {}", short(found), short(wanted));
}

fn blocks(snapshot: &Snapshot, model: &Model) -> anyhow::Result<()> {
    for (block, height) in model.blocks.iter().zip(0..) {
        let at = Height(height);
        same("header", &height, &snapshot.header(at)?, &Some(block.header))?;
        let txids: Vec<Txid> = block.txdata.iter().map(bitcoin::Transaction::compute_txid).collect();
        same("txids", &height, &snapshot.block_txids(at)?, &Some(txids))?;
        let raw = bitcoin::consensus::serialize(block);
        ensure!(snapshot.raw_block(at)? == Some(raw), "the bytes of block {height} are others");
    }
    let tip = Height(model.height());
    let proof = snapshot.header_proof(Height(tip.0 / 2), tip)?.context("no header proof")?;
    let mut leaves = model.blocks.iter().map(|block| block.block_hash().to_byte_array()).collect();
    ensure!(proof.root.to_byte_array() == merkle_root(&mut leaves), "the headers' merkle root is another");
    Ok(())
}

fn transactions(snapshot: &Snapshot, model: &Model, universe: &Universe) -> anyhow::Result<()> {
    let genesis = model.blocks[0].txdata[0].compute_txid();
    for txid in universe.txids.iter().filter(|txid| **txid != genesis) {
        let place = model.txids.get(txid).copied();
        let found = snapshot.tx_location(txid)?;
        same("place", txid, &found.map(|at| (at.height.0, at.pos)), &place)?;
        let raw = snapshot.raw_tx(txid)?.map(|raw| raw.bytes);
        let wanted = place.map(|(height, position)| {
            bitcoin::consensus::serialize(&model.blocks[height as usize].txdata[position as usize])
        });
        same("bytes", txid, &raw, &wanted)?;
    }
    Ok(())
}

fn coins(snapshot: &Snapshot, model: &Model, universe: &Universe) -> anyhow::Result<()> {
    for outpoint in &universe.outpoints {
        let coin = snapshot.coin(outpoint)?;
        let found = coin.map(|coin| (coin.value.to_sat(), coin.height.0, coin.is_coinbase));
        let wanted = model.coins.get(outpoint).map(|coin| (coin.value, coin.place.0, coin.place.1 == 0));
        same("coin", outpoint, &found, &wanted)?;
    }
    Ok(())
}

fn scripts(snapshot: &Snapshot, model: &Model, universe: &Universe) -> anyhow::Result<()> {
    for hash in &universe.scripts {
        let facts = model.script(hash);
        let script = chainstore::ScriptHash(*hash);
        let history = snapshot.history(&script)?;
        let history: Vec<_> = history.iter().map(|entry| (entry.height.0, entry.txid)).collect();
        let wanted: Vec<_> = facts.history.iter().map(|((height, _), txid)| (*height, *txid)).collect();
        same("history", hash, &history, &wanted)?;
        let unspent = snapshot.unspent(&script)?;
        let unspent: Vec<_> =
            unspent.iter().map(|coin| (coin.height.0, coin.txid, coin.vout, coin.value.to_sat())).collect();
        let wanted: Vec<_> = facts
            .unspent
            .iter()
            .map(|(((height, _), vout), (txid, value))| (*height, *txid, *vout, *value))
            .collect();
        same("unspent", hash, &unspent, &wanted)?;
    }
    Ok(())
}

/// A sample of what wallets ask.
#[derive(Debug, Default)]
pub struct Sample {
    pub scripts: Vec<ScriptHash>,
    pub txids: Vec<Txid>,
}

/// Asks a server at the tip for the sample.
pub fn wallet(server: SocketAddr, model: &Model, sample: &Sample) -> anyhow::Result<()> {
    let mut wallet = Wallet::connect(server)?;
    let tip = model.blocks[model.height() as usize].block_hash().to_string();
    same("tip", &"the server", &wallet.synced_tip()?, &Some(tip))?;
    for hash in &sample.scripts {
        let mut reversed = *hash;
        reversed.reverse();
        let hex: String = reversed.iter().map(|byte| format!("{byte:02x}")).collect();
        let mut ask = |method: &str| -> anyhow::Result<Value> {
            let answer = wallet.call(method, &json!([hex]))?;
            ensure!(answer["error"].is_null(), "{method} of {hex}: {answer}");
            Ok(answer["result"].clone())
        };
        let facts = model.script(hash);
        let history: Vec<Value> = facts
            .history
            .iter()
            .map(|((height, _), txid)| json!({"tx_hash": txid.to_string(), "height": height}))
            .collect();
        same("get_history", &hex, &ask("blockchain.scripthash.get_history")?, &Value::Array(history))?;
        let unspent: Vec<Value> = facts
            .unspent
            .iter()
            .map(|(((height, _), vout), (txid, value))| {
                json!({"tx_hash": txid.to_string(), "tx_pos": vout, "height": height, "value": value})
            })
            .collect();
        same("listunspent", &hex, &ask("blockchain.scripthash.listunspent")?, &Value::Array(unspent))?;
        let balance: u64 = facts.unspent.values().map(|(_, value)| value).sum();
        let balance = json!({"confirmed": balance, "unconfirmed": 0});
        same("get_balance", &hex, &ask("blockchain.scripthash.get_balance")?, &balance)?;
    }
    for txid in &sample.txids {
        let answer = wallet.call("blockchain.transaction.get", &json!([txid.to_string()]))?;
        let Some((height, position)) = model.txids.get(txid) else {
            let code = answer["error"]["code"].as_i64();
            ensure!(
                code.is_some_and(|code| NOT_FOUND.contains(&code)),
                "transaction {txid} is gone: {answer}"
            );
            continue;
        };
        let tx = &model.blocks[*height as usize].txdata[*position as usize];
        let hex = bitcoin::consensus::encode::serialize_hex(tx);
        same("transaction.get", txid, &answer["result"], &json!(hex))?;
        let answer = wallet.call("blockchain.transaction.get_merkle", &json!([txid.to_string(), height]))?;
        same("get_merkle", txid, &answer["result"]["pos"], &json!(position))?;
    }
    Ok(())
}
