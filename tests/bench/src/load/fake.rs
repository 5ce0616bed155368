//! A server for the client's tests: it answers from the forge's truth, and lies once when told to.

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bitcoin::hashes::{Hash, sha256d};
use bitcoin::hex::DisplayHex;
use serde_json::{Value, json};

use super::check::known_status;
use super::known::Known;

/// What is wrong with an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lie {
    Result,
    Error,
    Id,
}

/// Listens on threads of its own until the test ends. The answer of the number given, counted over all connections
/// from 0 and without greetings, is a lie.
pub fn serve(known: Arc<Known>, lie: Option<(usize, Lie)>) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let count = Arc::new(AtomicUsize::new(0));
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (known, count) = (known.clone(), count.clone());
            std::thread::spawn(move || converse(&known, &count, lie, stream.unwrap()));
        }
    });
    address
}

/// Until the client goes.
fn converse(known: &Known, count: &AtomicUsize, lie: Option<(usize, Lie)>, mut stream: TcpStream) {
    for line in BufReader::new(stream.try_clone().unwrap()).lines() {
        let Ok(line) = line else { return };
        let request: Value = serde_json::from_str(&line).unwrap();
        let mut id = request["id"].clone();
        let mut result = answer(known, request["method"].as_str().unwrap(), &request["params"]);
        let number = if request["method"] == "server.version" {
            None
        } else {
            Some(count.fetch_add(1, Ordering::Relaxed))
        };
        let lie = lie.filter(|(at, _)| Some(*at) == number).map(|(_, lie)| lie);
        match lie {
            Some(Lie::Result) => twist(&mut result),
            Some(Lie::Id) => id = json!(u64::MAX),
            _ => {}
        }
        // Servers differ in where they write the id.
        let notification = json!({"jsonrpc": "2.0", "method": "blockchain.headers.subscribe", "params": []});
        let text = match lie {
            Some(Lie::Error) => format!(r#"{{"id":{id},"error":{{"code":1,"message":"busy"}}}}"#),
            _ if number.is_some_and(|number| number % 2 == 1) => {
                format!(r#"{{"id": {id}, "result":{result}}}"#)
            }
            _ => format!("{notification}\n{{\"result\":{result},\"id\":{id}}}"),
        };
        if stream.write_all(format!("{text}\n").as_bytes()).is_err() {
            return;
        }
    }
}

fn answer(known: &Known, method: &str, params: &Value) -> Value {
    let first = params[0].as_str().unwrap_or_default();
    if method == "server.version" {
        return json!(["fake", "1.4"]);
    }
    if method == "blockchain.block.header" {
        return json!(known.header(params[0].as_u64().unwrap() as usize).to_lower_hex_string());
    }
    if let Some(method) = method.strip_prefix("blockchain.transaction.") {
        let transaction = known.transactions.iter().find(|transaction| transaction.txid == first).unwrap();
        if method == "get" {
            return json!(known.raw(transaction).unwrap().to_lower_hex_string());
        }
        let merkle = branch(known, transaction.height, transaction.position as usize);
        return json!({"block_height": transaction.height, "merkle": merkle, "pos": transaction.position});
    }
    let script = known.scripts.iter().find(|script| script.scripthash == first).unwrap();
    match method.strip_prefix("blockchain.scripthash.").unwrap() {
        "get_history" => {
            script.history.iter().map(|(height, txid)| json!({"height": height, "tx_hash": txid})).collect()
        }
        "get_balance" => {
            let confirmed: u64 = script.unspent.iter().map(|(.., value)| value).sum();
            json!({"confirmed": confirmed, "unconfirmed": 0})
        }
        "listunspent" => (script.unspent.iter())
            .map(|(txid, vout, height, value)| {
                json!({"tx_hash": txid, "tx_pos": vout, "height": height, "value": value})
            })
            .collect(),
        "subscribe" => json!(known_status(script)),
        other => panic!("{other}"),
    }
}

/// The hashes beside the way to the Merkle root.
fn branch(known: &Known, height: u32, mut place: usize) -> Vec<String> {
    let block = known.block(height as usize);
    let mut row: Vec<[u8; 32]> =
        block.txdata.iter().map(|transaction| transaction.compute_txid().to_byte_array()).collect();
    let mut branch = Vec::new();
    while row.len() > 1 {
        if row.len() % 2 == 1 {
            row.push(*row.last().unwrap());
        }
        branch.push(sha256d::Hash::from_byte_array(row[place ^ 1]).to_string());
        row = row.chunks(2).map(|pair| sha256d::Hash::hash(&pair.concat()).to_byte_array()).collect();
        place /= 2;
    }
    branch
}

/// Makes the smallest difference.
fn twist(result: &mut Value) {
    match result {
        Value::Null => *result = json!("00"),
        Value::String(text) => {
            let last = if text.pop() == Some('0') { '1' } else { '0' };
            text.push(last);
        }
        Value::Array(list) => match list.last_mut() {
            Some(last) => twist(last),
            None => list.push(json!({"tx_hash": "", "tx_pos": 0, "height": 0, "value": 0})),
        },
        Value::Object(fields) => {
            let number = fields.values_mut().rfind(|value| value.as_u64().is_some_and(|number| number > 0));
            match number {
                Some(number) => *number = json!(number.as_u64().unwrap() - 1),
                None => *fields.values_mut().next().unwrap() = json!(1),
            }
        }
        _ => panic!("{result}"),
    }
}
