//! Limits of a session: what is refused, in which words, and what it costs.

use std::time::Duration;

use bitcoin::ScriptBuf;
use serde_json::{Value, json};

use crate::electrum::Token;
use crate::time::Now;

use super::wallet::{Wallet, hash_of};

fn later(secs: u64) -> Now {
    Now::default().after(Duration::from_secs(secs))
}

fn error(code: i64, message: &str) -> Value {
    json!({"code": code, "message": message})
}

/// A server that answers histories of three entries, and a script with so many.
fn with_history(entries: u32) -> (Wallet, String) {
    let mut wallet = Wallet::with(1, |server| server.limits.response_bytes = 100 + 3 * 99);
    let script = ScriptBuf::from_bytes(vec![0x51]);
    let hash = hash_of(&script);
    wallet.chain.forge(ScriptBuf::new(), &[]);
    for _ in 0..entries {
        wallet.chain.forge(script.clone(), &[]);
    }
    wallet.commit();
    (wallet, hash)
}

#[test]
fn pitfall_11_a_history_that_is_too_long_is_an_error_and_never_empty() {
    let too_large = error(10001, "history too large");
    for (version, family, script) in
        [("1.6", "blockchain.scripthash", None), ("1.7", "blockchain.scriptpubkey", Some("51"))]
    {
        let (mut wallet, hash) = with_history(4);
        let script = script.unwrap_or(&hash);
        wallet.call("server.version", json!(["", version])).unwrap();
        for method in ["get_history", "subscribe"] {
            let answer = wallet.call(&format!("{family}.{method}"), json!([script]));
            assert_eq!(answer, Err(too_large.clone()), "{method}");
        }
        assert_eq!(wallet.session.subscriptions(), 0);
        let balance = wallet.call(&format!("{family}.get_balance"), json!([script])).unwrap();
        assert_eq!(balance["confirmed"], 200_0000_0000_u64);
    }
    let (mut wallet, hash) = with_history(3);
    assert!(wallet.call("blockchain.scripthash.get_history", json!([hash])).is_ok());
    assert!(wallet.call("blockchain.scripthash.subscribe", json!([hash])).is_ok());
    // One entry more, and it can no longer be told: the wallet has to come again, and is told why then.
    wallet.chain.forge(ScriptBuf::from_bytes(vec![0x51]), &[]);
    assert_eq!(wallet.commit(), ["! close"]);
}

#[test]
fn a_session_has_so_many_subscriptions() {
    let mut wallet = Wallet::with(1, |server| server.limits.session_subscriptions = 2);
    wallet.call("server.version", json!(["", "1.7"])).unwrap();
    let refused = error(-101, "excessive resource usage: this session has as many subscriptions as it may");
    let outpoint = "ab".repeat(32);
    wallet.call("blockchain.scriptpubkey.subscribe", json!(["51"])).unwrap();
    wallet.call("blockchain.outpoint.subscribe", json!([outpoint, 0])).unwrap();
    let third = wallet.call("blockchain.scriptpubkey.subscribe", json!(["52"]));
    assert_eq!(third, Err(refused.clone()));
    assert_eq!(wallet.call("blockchain.outpoint.subscribe", json!([outpoint, 1])), Err(refused));
    // What is there can be asked for again, and the tip does not count.
    wallet.call("blockchain.scriptpubkey.subscribe", json!(["51"])).unwrap();
    wallet.call("blockchain.headers.subscribe", json!([])).unwrap();
    wallet.call("blockchain.scriptpubkey.unsubscribe", json!(["51"])).unwrap();
    wallet.call("blockchain.scriptpubkey.subscribe", json!(["52"])).unwrap();
    assert!(!wallet.closed);
}

#[test]
fn a_batch_over_the_limit_is_an_error_for_each_request_too_many() {
    let mut wallet = Wallet::with(1, |server| server.limits.batch = 2);
    let ping = |id: u32| json!({"id": id, "method": "server.ping"});
    let heard = wallet.send(json!([ping(1), ping(2), ping(3)]).to_string().as_bytes());
    let answers: Value = serde_json::from_str(heard[0].strip_prefix("< ").unwrap()).unwrap();
    assert_eq!(answers[1], json!({"result": null, "id": 2}));
    assert_eq!(answers[2], json!({"error": error(-32600, "batch too long"), "id": 3}));
}

#[test]
fn a_dear_batch_is_answered_in_turns_and_ends_where_it_is_too_dear() {
    let mut wallet = Wallet::at(1);
    let line = |id: u32| json!({"id": id, "method": "blockchain.relayfee"});
    let batch = json!((0..20).map(line).collect::<Vec<_>>()).to_string();
    wallet.session.handle_line(later(0), batch.as_bytes());
    // The connection has cost 5 too.
    assert_eq!(wallet.session.take_cost(), 10.0);
    // A new tip waits for the batch, as that may hold the answer to its subscription.
    wallet.chain.mine();
    assert_eq!(wallet.commit(), [""; 0]);
    wallet.session.handle_turn(later(0));
    assert_eq!(wallet.session.take_cost(), 5.0);
    assert!(wallet.session.has_more() && wallet.outputs().is_empty());
    wallet.session.handle_end_of_input(later(0));
    wallet.session.handle_excess();
    while wallet.session.has_more() {
        wallet.session.handle_turn(later(0));
    }
    let heard = wallet.outputs();
    assert_eq!(heard[1..], ["! close"]);
    let answers: Vec<Value> = serde_json::from_str(heard[0].strip_prefix("< ").unwrap()).unwrap();
    let answered = answers.iter().filter(|answer| answer.get("result").is_some()).count();
    let excessive = answers.iter().filter(|answer| answer["error"]["code"] == -101).count();
    assert_eq!((answered, excessive), (10, 10));
}

#[test]
fn a_silent_session_is_closed() {
    let mut wallet = Wallet::at(1);
    wallet.session.handle_line(later(100), br#"{"id":1,"method":"server.ping"}"#);
    wallet.outputs();
    assert_eq!(wallet.session.next_timeout(), later(700).instant);
    wallet.session.handle_timeout(later(699));
    assert!(wallet.outputs().is_empty());
    wallet.session.handle_timeout(later(700));
    assert_eq!(wallet.outputs(), ["! close"]);
}

#[test]
fn a_client_by_name_is_not_served() {
    let pattern = regex::Regex::new("^evil").unwrap();
    let mut wallet = Wallet::with(1, |server| server.drop_client = Some(pattern));
    let line = br#"{"id":1,"method":"server.version","params":["evil/1.0","1.4"]}"#;
    let refused = r#"< {"error":{"code":1,"message":"unsupported client: evil/1.0"},"id":1}"#;
    assert_eq!(wallet.send(line), [refused, "! close"]);
}

#[test]
fn what_is_asked_for_costs() {
    let mut wallet = Wallet::at(170);
    assert_eq!(wallet.session.take_cost(), 5.0, "the connection");
    let hash = "8131e31b9b2da6ddb7cca24c537869c94320f19e80fc2ee72c9558e5a9296978";
    let mut cost = |method: &str, params: Value| {
        let _ = wallet.call(method, params);
        (wallet.session.take_cost() * 1e6).round() / 1e6
    };
    assert_eq!(cost("server.ping", json!([])), 0.1);
    assert_eq!(cost("blockchain.headers.subscribe", json!([])), 0.25);
    assert_eq!(cost("blockchain.block.headers", json!([0, 100])), 2.0);
    assert_eq!(cost("blockchain.block.header", json!([0])), 0.25);
    assert_eq!(cost("blockchain.block.header", json!([0, 9])), 1.25);
    assert_eq!(cost("blockchain.scripthash.get_history", json!([hash])), 0.202);
    assert_eq!(cost("blockchain.scripthash.subscribe", json!([hash])), 0.3048);
    assert_eq!(cost("blockchain.scripthash.get_balance", json!([hash])), 1.02);
    // A wallet's error costs a hundred, ours nothing.
    assert_eq!(cost("blockchain.scripthash.get_balance", json!(["x"])), 101.0);
    assert_eq!(cost("no.such.method", json!([])), 100.0);
    let unknown = "ab".repeat(32);
    assert_eq!(cost("blockchain.transaction.get", json!([unknown])), 1.0);
}

#[test]
fn over_the_hard_limit_the_next_request_is_the_last() {
    let excessive = r#"< {"error":{"code":-101,"message":"excessive resource usage"},"id":1}"#;
    let ping = br#"{"id":1,"method":"server.ping"}"#;
    let mut wallet = Wallet::at(1);
    wallet.session.handle_excess();
    assert!(wallet.outputs().is_empty());
    assert_eq!(wallet.send(ping), [excessive, "! close"]);
    // In a batch too.
    let mut wallet = Wallet::at(1);
    wallet.session.handle_excess();
    let heard = wallet.send(format!("[{0},{0}]", std::str::from_utf8(ping).unwrap()).as_bytes());
    assert!(heard[0].matches("-101").count() == 2 && heard[1] == "! close", "{heard:?}");
}

#[test]
fn who_shows_a_token_is_never_over_it() {
    let set = |server: &mut crate::electrum::Server| server.tokens = vec![Token::new("open sesame".into())];
    let line = |word: &str| format!(r#"{{"id":1,"method":"server.ping","authorization":"Bearer {word}"}}"#);
    let mut wallet = Wallet::with(1, set);
    wallet.send(line("open sesamE").as_bytes());
    assert!(!wallet.session.is_exempt());
    wallet.send(line("open sesame").as_bytes());
    assert!(wallet.session.is_exempt());
    wallet.session.handle_excess();
    assert_eq!(wallet.send(br#"{"id":2,"method":"server.ping"}"#), [r#"< {"result":null,"id":2}"#]);
}
