//! Wallets: what they send, how slowly, and what they don't read.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use bitcoin::Network;
use serde_json::{Value, json};

use super::support::client::Client;
use super::support::naive::NaiveIndex;
use super::support::{connect, fixtures};
use super::{SOON, chain, closed_after, synced};

/// What a server may grow by under abuse, beside what a test names.
pub const SLACK_BYTES: u64 = 24 * 1024 * 1024;

/// An honest wallet gets an answer, soon.
pub fn assert_served(client: &mut Client) {
    let index = NaiveIndex::of_raw(&chain());
    let script = index.scripts().next().unwrap().to_vec();
    let start = Instant::now();
    let history = client.history(&script).unwrap();
    assert!(!history.as_array().unwrap().is_empty());
    assert!(start.elapsed() < SOON, "{:?} for a history", start.elapsed());
}

fn dial(server: &super::Server) -> TcpStream {
    connect(server.address()).unwrap()
}

/// The next line as JSON.
fn read_line(stream: &mut TcpStream) -> Value {
    stream.set_read_timeout(Some(SOON)).unwrap();
    let mut line = Vec::new();
    let mut byte = [0];
    while byte != *b"\n" {
        stream.read_exact(&mut byte).unwrap();
        line.push(byte[0]);
    }
    serde_json::from_slice(&line).unwrap()
}

#[test]
fn a_giant_line_is_refused_in_words_and_closed() {
    let (_peer, mut server) = synced();
    let before = server.peak_memory_bytes();
    for start in [&b"{\"id\":1,\"method\":\"server.ping\",\"params\":[\""[..], b"", b"["] {
        let mut stream = dial(&server);
        stream.write_all(start).unwrap();
        // The server may close before it has read all of this.
        let _ = stream.write_all(&vec![b'a'; 2_000_000]);
        assert_eq!(read_line(&mut stream)["error"]["code"], -32600);
        assert!(closed_after(&mut stream, SOON).is_some());
    }
    assert!(server.peak_memory_bytes() < before + SLACK_BYTES);
    assert_served(&mut server.client());
}

#[test]
fn deep_json_and_garbage_are_answered_and_kill_nothing() {
    let (_peer, mut server) = synced();
    let deep = "[".repeat(400_000);
    let deep_object = "{\"a\":".repeat(100_000);
    let inside = format!("{{\"id\":1,\"method\":\"server.ping\",\"params\":{deep}");
    for line in
        [&deep, &deep_object, &inside, "\u{0}\u{1}\u{2}", "{}", "[]", "null", "1e999999999", "\"\\ud800\""]
    {
        let mut stream = dial(&server);
        stream.write_all(line.as_bytes()).unwrap();
        stream.write_all(b"\n").unwrap();
        let code = read_line(&mut stream)["error"]["code"].as_i64().unwrap();
        assert!([-32700, -32600].contains(&code), "{code} for {}", &line[..line.len().min(40)]);
    }
    // A TLS hello on the plain port, and a web browser.
    for hello in
        [&b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\n"[..], b"GET / HTTP/1.1\r\nHost: peerdex\r\n\r\n"]
    {
        let mut stream = dial(&server);
        stream.write_all(hello).unwrap();
        assert_eq!(read_line(&mut stream)["error"]["code"], -32700);
    }
    assert_served(&mut server.client());
}

#[test]
fn a_batch_of_a_hundred_thousand_is_refused_one_by_one() {
    let (_peer, server) = synced();
    let before = server.peak_memory_bytes();
    let mut stream = dial(&server);
    let batch = format!("[{}1]\n", "1,".repeat(100_000));
    stream.write_all(batch.as_bytes()).unwrap();
    let answer = read_line(&mut stream);
    let answers = answer.as_array().unwrap();
    assert!(answers.iter().all(|answer| answer["error"]["code"] == -32600));
    // The connection is kept.
    stream.write_all(b"{\"id\":7,\"method\":\"server.version\",\"params\":[\"x\",\"1.4\"]}\n").unwrap();
    assert_eq!(read_line(&mut stream)["id"], 7);
    // The answers themselves are eight megabytes.
    assert!(server.peak_memory_bytes() < before + 2 * SLACK_BYTES);
}

#[test]
fn idle_and_slow_wallets_don_t_disturb_the_honest() {
    let (_peer, mut server) = synced();
    let before = server.peak_memory_bytes();
    let mut idle: Vec<TcpStream> = (0..200).map(|_| dial(&server)).collect();
    let mut client = server.client();
    // One byte of a request each, again and again.
    let request = b"{\"id\":1,\"method\":\"server.ping\",\"params\":[]}";
    for byte in request {
        for stream in &mut idle {
            stream.write_all(&[*byte]).unwrap();
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_served(&mut client);
    assert!(server.peak_memory_bytes() < before + SLACK_BYTES);
    // Half a minute later they would still be taken seriously: they are slow, not wrong.
    idle[0].write_all(b"\n").unwrap();
    assert_eq!(read_line(&mut idle[0])["id"], 1);
}

#[test]
fn a_wallet_that_never_reads_costs_bounded_memory() {
    let (_peer, mut server) = synced();
    let mut client = server.client();
    let before = server.peak_memory_bytes();
    let mut greedy: Vec<TcpStream> = (0..8).map(|_| dial(&server)).collect();
    let headers =
        json!({"id": 1, "method": "blockchain.block.headers", "params": [0, 2016]}).to_string() + "\n";
    let requests = headers.repeat(1_000);
    for stream in &mut greedy {
        stream.write_all(b"{\"id\":0,\"method\":\"server.version\",\"params\":[\"x\",\"1.4\"]}\n").unwrap();
        stream.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
        // Until the server takes no more: 200 headers an answer, 35 MB for each thousand requests.
        for _ in 0..20 {
            if stream.write_all(requests.as_bytes()).is_err() {
                break;
            }
        }
    }
    assert_served(&mut client);
    // A megabyte waits for each, and one answer more.
    let grown = server.peak_memory_bytes() - before;
    assert!(grown < 8 * 4 * 1024 * 1024 + SLACK_BYTES, "grew by {grown}");
}

#[test]
fn a_half_closed_wallet_gets_its_answers() {
    let (_peer, server) = synced();
    let mut stream = dial(&server);
    stream
        .write_all(b"{\"id\":0,\"method\":\"server.version\",\"params\":[\"x\",\"1.4\"]}\n{\"id\":1,\"method\":\"server.banner\"}\n")
        .unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_line(&mut stream)["id"], 0);
    assert_eq!(read_line(&mut stream)["id"], 1);
    assert!(closed_after(&mut stream, SOON).is_some());
}

#[test]
fn sigterm_ends_it_in_time_while_wallets_ask() {
    let (_peer, mut server) = synced();
    let index = NaiveIndex::of_raw(&fixtures::run_from_genesis(Network::Bitcoin)[..200]);
    let script = index.scripts().next().unwrap().to_vec();
    let mut threads = Vec::new();
    for _ in 0..4 {
        let mut client = server.client();
        let hash = super::support::naive::script_hash(&script);
        threads.push(std::thread::spawn(move || {
            let mut answers = 0_u64;
            while client.try_call("blockchain.scripthash.get_history", json!([hash])).is_ok() {
                answers += 1;
            }
            answers
        }));
    }
    std::thread::sleep(Duration::from_millis(500));
    let _folder = server.stop();
    for thread in threads {
        assert!(thread.join().unwrap() > 0);
    }
}
