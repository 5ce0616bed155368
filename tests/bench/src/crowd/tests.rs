//! The parts by themselves; `tests/end_to_end.rs` has all of it against the server.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::gathering::{Gathering, Heard};
use super::request;
use super::wallet::{Kind, Wallet};
use super::wire::From;

/// What the wallet asks next, as JSON.
fn asked(wallet: &mut Wallet) -> Vec<Value> {
    let mut out = Vec::new();
    wallet.go_on(Instant::now(), &mut out);
    out.lines().map(|line| serde_json::from_str(&line.unwrap()).unwrap()).collect()
}

fn answer(wallet: &mut Wallet, request: &Value, result: &Value) {
    let line = json!({"id": request["id"], "result": result}).to_string();
    let answered = wallet.hear(line.as_bytes(), Instant::now()).unwrap().unwrap();
    assert!(!answered.is_refusal);
}

#[test]
fn a_wallet_asks_for_what_follows_from_the_answers_and_then_is_done() {
    let mut wallet = Wallet::new(&[[1; 32], [2; 32]], 1);
    let mut methods = Vec::new();
    let txid = "ab".repeat(32);
    while let [request] = &asked(&mut wallet)[..] {
        let method = request["method"].as_str().unwrap().to_owned();
        let used = request["params"][0].as_str().is_some_and(|script| script.starts_with("02"));
        let result = match method.as_str() {
            "blockchain.scripthash.subscribe" if used => json!("cd".repeat(32)),
            "blockchain.scripthash.subscribe" => Value::Null,
            "blockchain.scripthash.get_history" => {
                assert!(used);
                json!([{"height": 7, "tx_hash": txid}, {"height": 7, "tx_hash": txid}])
            }
            _ => json!("whatever"),
        };
        if method.starts_with("blockchain.transaction") {
            assert_eq!(request["params"][0], json!(txid));
        }
        answer(&mut wallet, request, &result);
        methods.push(method);
    }
    let mut expected: Vec<&str> = Kind::ALL.iter().map(|kind| kind.method()).collect();
    expected.insert(4, Kind::Subscribe.method());
    assert_eq!(methods, expected);
    assert!(wallet.finished.is_some());
    assert_eq!(wallet.told, [([2; 32], [0xcd; 32])]);
}

#[test]
fn a_wallet_keeps_as_much_in_flight_as_it_may() {
    let mut wallet = Wallet::new(&[[1; 32]; 50], 10);
    let first = asked(&mut wallet);
    assert_eq!(first.len(), 10);
    assert_eq!(asked(&mut wallet).len(), 0);
    answer(&mut wallet, &first[3], &Value::Null);
    assert_eq!(asked(&mut wallet).len(), 1);
    let line = json!({"id": first[3]["id"], "result": null}).to_string();
    assert!(wallet.hear(line.as_bytes(), Instant::now()).is_err(), "nobody asked that");
    let refusal = br#"{"id":0,"error":{"code":-102,"message":"busy"}}"#;
    assert!(wallet.hear(refusal, Instant::now()).unwrap().unwrap().is_refusal);
    let news = br#"{"jsonrpc":"2.0","method":"blockchain.headers.subscribe","params":[{}]}"#;
    assert!(wallet.hear(news, Instant::now()).unwrap().is_none());
}

#[test]
fn lines_are_whole_however_they_come_and_the_header_is_said_first() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let mut crowd = Gathering::new(Duration::from_millis(1)).unwrap();
    let address = listener.local_addr().unwrap();
    let number = crowd.join(address, From::subnet(300), Vec::new()).unwrap();
    crowd.say(number, |_: &mut Vec<Vec<u8>>, out| out.extend(b"hello\n"));
    let (stream, from) = listener.accept().unwrap();
    assert_eq!(from.ip(), IpAddr::from([127, 77, 1, 44]));
    let mut stream = BufReader::new(stream);
    let mut said = String::new();
    stream.read_line(&mut said).unwrap();
    assert_eq!(said, "PROXY TCP4 11.1.44.7 203.0.113.1 40000 50001\r\n");
    said.clear();
    stream.read_line(&mut said).unwrap();
    assert_eq!(said, "hello\n");

    let long = "x".repeat(1 << 20);
    let mut to = stream.into_inner();
    let text = format!("one\ntwo\n{long}\nth");
    let writer = std::thread::spawn(move || {
        to.write_all(text.as_bytes()).unwrap();
        std::thread::sleep(Duration::from_millis(20));
        to.write_all(b"ree\nlost").unwrap();
        // What the crowd answers must be taken, or closing looks like an accident.
        to.shutdown(std::net::Shutdown::Write).unwrap();
        to.read_to_end(&mut Vec::new()).unwrap();
    });
    while crowd.is_open(number) {
        crowd
            .turn(Duration::from_secs(5), |_, lines, heard, _, _| {
                if let Heard::Line(line) = heard {
                    lines.push(line.to_vec());
                }
            })
            .unwrap();
    }
    let heard: Vec<&[u8]> = crowd.member(number).iter().map(Vec::as_slice).collect();
    assert_eq!(heard, [b"one".as_slice(), b"two", long.as_bytes(), b"three"]);
    writer.join().unwrap();
}

#[test]
fn a_status_is_the_hash_of_the_history() {
    let entry = |height, tx_hash| request::Entry { height, tx_hash };
    let (a, b) = ("aa".repeat(32), "bb".repeat(32));
    assert_eq!(request::status_of([]), None);
    let two = request::status_of([entry(1, a.as_str()), entry(2, b.as_str())]).unwrap();
    let text = format!("{a}:1:{b}:2:");
    assert_eq!(two, bitcoin::hashes::Hash::to_byte_array(sha256(text.as_bytes())));
}

fn sha256(bytes: &[u8]) -> bitcoin::hashes::sha256::Hash {
    bitcoin::hashes::Hash::hash(bytes)
}
