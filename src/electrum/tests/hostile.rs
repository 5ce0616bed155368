//! Wallets that mean harm, or were badly written: whatever comes in, a bounded answer comes out.

use serde_json::Value;

use crate::electrum::Limits;
use crate::electrum::methods::methods;
use crate::electrum::transport::MAX_REQUEST_BYTES;

use super::wallet::Wallet;

/// Lines that make sense, to be spoilt.
fn seeds() -> Vec<String> {
    let hash = "ab".repeat(32);
    let mut lines: Vec<String> = methods()
        .iter()
        .map(|method| {
            let params: Vec<_> = method.params.iter().map(|param| param.default.unwrap_or("5")).collect();
            format!(
                r#"{{"jsonrpc":"2.0","id":1,"method":"{}","params":[{}]}}"#,
                method.name,
                params.join(",")
            )
        })
        .collect();
    for method in
        ["scripthash.subscribe", "scripthash.get_history", "transaction.get", "transaction.broadcast"]
    {
        lines.push(format!(r#"{{"id":"x","method":"blockchain.{method}","params":["{hash}"]}}"#));
    }
    lines.push(
        r#"{"id":2,"method":"server.version","params":{"client_name":"x","protocol_version":["1.4","1.6"]}}"#
            .into(),
    );
    lines.push(format!("[{}]", lines.join(",")));
    lines
}

fn spoilt(line: &str, random: &mut fastrand::Rng) -> Vec<u8> {
    let mut bytes = line.as_bytes().to_vec();
    for _ in 0..random.usize(1..6) {
        let at = random.usize(0..=bytes.len());
        let end = random.usize(at..=bytes.len().min(at + 20));
        match random.u8(0..6) {
            0 => bytes.truncate(at),
            1 => bytes.insert(at, random.u8(..)),
            2 => drop(bytes.drain(at..end)),
            3 => {
                let copy = bytes[at..end].to_vec();
                bytes.splice(at..at, copy);
            }
            4 => {
                let token = random.choice(TOKENS).unwrap();
                bytes.splice(at..end, token.bytes());
            }
            _ => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = random.u8(b' '..=b'~');
                }
            }
        }
    }
    bytes.retain(|byte| *byte != b'\n');
    bytes
}

const TOKENS: &[&str] = &[
    "null",
    "true",
    "[",
    "]",
    "{",
    "}",
    "\"",
    "\\",
    "\\u0000",
    "\\ud800",
    "-1",
    "1e999",
    "99999999999999999999",
    ":",
    ",",
    "{\"id\":1}",
    "[[]]",
    "\u{feff}",
    "é",
    "18446744073709551615",
    "4294967295",
    "4294967296",
    "0.1",
];

/// Every answer is JSON with a result or an error, and answers no more than was asked.
fn check(seen: &[String], line: &[u8]) {
    let shown = String::from_utf8_lossy(&line[..line.len().min(200)]);
    for output in seen {
        let Some(text) = output.strip_prefix("< ") else { continue };
        assert!(text.len() <= Limits::default().response_bytes, "{} bytes for {shown}", text.len());
        let answer: Value =
            serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text} for {shown}"));
        let answers = answer.as_array().map_or(std::slice::from_ref(&answer), Vec::as_slice);
        assert!(!answers.is_empty(), "an empty batch of answers to {shown}");
        for answer in answers {
            assert_ne!(answer.get("result").is_some(), answer.get("error").is_some(), "{answer} for {shown}");
        }
    }
}

#[test]
fn spoilt_requests_get_an_answer_or_none_but_never_a_panic() {
    let seeds = seeds();
    let mut wallet = Wallet::at(3);
    let mut answered = 0;
    for seed in 0..20_000 {
        let mut random = fastrand::Rng::with_seed(seed);
        let line = spoilt(random.choice(&seeds).unwrap(), &mut random);
        let seen = wallet.send(&line);
        check(&seen, &line);
        answered += seen.len();
        if wallet.closed {
            wallet.reconnect();
        }
    }
    assert!(answered > 10_000, "only {answered} were answered: the seeds are spoilt too much");
}

#[test]
fn noise_gets_an_error_and_the_connection_goes_on() {
    let mut wallet = Wallet::at(3);
    for seed in 0..5_000 {
        let mut random = fastrand::Rng::with_seed(seed);
        let line: Vec<u8> =
            (0..random.usize(0..200)).map(|_| random.u8(..)).filter(|byte| *byte != b'\n').collect();
        let seen = wallet.send(&line);
        check(&seen, &line);
        assert_eq!(seen.len(), 1, "seed {seed}");
        assert!(!wallet.closed, "seed {seed}");
    }
    assert!(wallet.call("server.ping", Value::Null).is_ok());
}

#[test]
fn the_largest_lines_are_answered_within_bounds() {
    let mut wallet = Wallet::at(3);
    let room = MAX_REQUEST_BYTES - 1;
    let fill = |unit: &str, open: &str, close: &str| {
        let mut line = open.to_owned();
        while line.len() + unit.len() + 1 + close.len() <= room {
            line.push_str(unit);
            line.push(',');
        }
        line.pop();
        line + close
    };
    let lines = [
        // Batches: of requests, of nothing, of the longest answers, of the longest errors.
        fill(r#"{"method":"","id":1}"#, "[", "]"),
        fill("0", "[", "]"),
        fill("[]", "[", "]"),
        fill(r#"{"id":1,"method":"blockchain.block.headers","params":[0,9]}"#, "[", "]"),
        fill(&format!(r#"{{"id":1,"method":"{}"}}"#, "\\u0001".repeat(150)), "[", "]"),
        // Arguments: many, deep, long.
        fill("0", r#"{"id":1,"method":"blockchain.block.header","params":["#, "]}"),
        fill(r#""a":0"#, r#"{"id":1,"method":"blockchain.block.header","params":{"#, "}}"),
        fill("[[[[]]]]", r#"{"id":1,"method":"server.version","params":["x",["#, "]]}"),
        format!(
            r#"{{"id":1,"method":"server.version","params":["x",{}{}]}}"#,
            "[".repeat(400_000),
            "]".repeat(400_000)
        ),
        format!(r#"{{"id":"{}","method":"server.ping"}}"#, "\\u0001".repeat(160_000)),
        format!(r#"{{"id":1,"method":"{}"}}"#, "x".repeat(900_000)),
        format!(r#"{{"id":1,"method":"blockchain.transaction.get","params":["{}"]}}"#, "x".repeat(900_000)),
        format!(
            r#"{{"id":1,"method":"blockchain.transaction.broadcast","params":["{}"]}}"#,
            "0".repeat(900_000)
        ),
    ];
    for line in lines {
        assert!(line.len() <= room);
        let seen = wallet.send(line.as_bytes());
        assert!(!seen.is_empty(), "{}", &line[..60]);
        check(&seen, line.as_bytes());
        if wallet.closed {
            wallet.reconnect();
        }
    }
}

#[test]
fn a_batch_that_asks_for_too_much_gets_what_fits_and_errors_for_the_rest() {
    let mut wallet = Wallet::at(250);
    let request = r#"{"id":1,"method":"blockchain.block.headers","params":[0,2016]}"#;
    let batch = format!("[{}]", vec![request; 1_000].join(","));
    let seen = wallet.send(batch.as_bytes());
    check(&seen, batch.as_bytes());
    let answers: Vec<Value> = serde_json::from_str(seen[0].strip_prefix("< ").unwrap()).unwrap();
    let refused = answers.iter().filter(|answer| answer["error"]["code"] == -32600).count();
    assert_eq!(answers.len(), 1_000);
    assert!((700..900).contains(&refused), "{refused} refused");
}
