//! Limits against the program: what costs too much waits, then ends, and others notice nothing of it.

mod support;

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use bitcoin::Network;
use serde_json::{Value, json};

use support::replay::ReplayPeer;
use support::server::{Options, Server};
use support::{connect, fixtures};

const PEERDEX: &str = env!("CARGO_BIN_EXE_peerdex");
const SOON: Duration = Duration::from_secs(30);
const BLOCKS: usize = 200;

/// A synced server whose wallets pay for what they ask.
fn served(extra: &[&str]) -> (ReplayPeer, Server) {
    let mut blocks = fixtures::run_from_genesis(Network::Bitcoin);
    blocks.truncate(BLOCKS);
    let tip: bitcoin::Block = bitcoin::consensus::deserialize(&blocks[BLOCKS - 1]).expect("a recorded block");
    let peer = ReplayPeer::start(Network::Bitcoin, blocks);
    let mut options = Options::new(PEERDEX, "mainnet").connect(peer.address());
    options.limited = true;
    options.extra = extra.iter().map(ToString::to_string).collect();
    let mut server = options.start();
    server.wait_synced(&tip.block_hash().to_string(), SOON);
    (peer, server)
}

struct Wallet {
    writer: TcpStream,
    reader: BufReader<TcpStream>,
}

impl Wallet {
    fn connect(server: &Server) -> Self {
        let writer = connect(server.address()).expect("it listens");
        writer.set_read_timeout(Some(SOON)).expect("a socket");
        let reader = BufReader::new(writer.try_clone().expect("a socket"));
        Self { writer, reader }
    }

    fn say(&mut self, request: &Value) {
        let _ = self.writer.write_all(format!("{request}\n").as_bytes());
    }

    /// The next line; `None` at the end.
    fn hear(&mut self) -> Option<Value> {
        let mut line = String::new();
        let count = self.reader.read_line(&mut line).unwrap_or(0);
        (count > 0).then(|| serde_json::from_str(&line).expect("an answer is JSON"))
    }

    fn ask(&mut self, method: &str, params: Value) -> Option<Value> {
        self.say(&json!({"id": 1, "method": method, "params": params}));
        self.hear()
    }
}

#[test]
fn who_asks_too_much_waits_and_then_is_closed() {
    let (_peer, server) =
        served(&["--cost-soft-limit", "10", "--cost-hard-limit", "40", "--request-sleep", "200"]);
    let (mut greedy, mut other) = (Wallet::connect(&server), Wallet::connect(&server));
    let start = Instant::now();
    let (mut answered, mut error) = (0, Value::Null);
    while let Some(answer) = greedy.ask("blockchain.relayfee", json!([])) {
        if answer.get("error").is_some() {
            error = answer["error"].clone();
            break;
        }
        answered += 1;
        assert!(answered < 1_000, "it was never stopped");
    }
    assert_eq!(error, json!({"code": -101, "message": "excessive resource usage"}));
    assert!(greedy.hear().is_none(), "it is closed");
    // 5 for the connection, 1 and a little for each.
    assert!((25..=36).contains(&answered), "{answered} were answered");
    assert!(start.elapsed() > Duration::from_millis(300), "it waited {:?}", start.elapsed());
    let start = Instant::now();
    assert_eq!(other.ask("server.ping", json!([])).unwrap()["result"], Value::Null);
    assert!(start.elapsed() < Duration::from_secs(1), "another waited {:?}", start.elapsed());
    server.stop();
}

#[test]
fn the_operators_own_wallets_are_not_limited() {
    let limits =
        ["--cost-soft-limit", "10", "--cost-hard-limit", "40", "--exempt-token", "a long secret word"];
    let (_peer, server) = served(&limits);
    let mut own = Wallet::connect(&server);
    let ping = json!({"id": 1, "method": "server.ping", "authorization": "Bearer a long secret word"});
    own.say(&ping);
    own.hear().unwrap();
    for _ in 0..500 {
        let answer = own.ask("blockchain.relayfee", json!([])).unwrap();
        assert!(answer.get("result").is_some(), "{answer}");
    }
    server.stop();
}

#[test]
fn a_silent_session_and_an_unwanted_client_are_closed() {
    let (_peer, server) = served(&["--session-timeout", "1", "--drop-client", "^bad"]);
    let mut silent = Wallet::connect(&server);
    let start = Instant::now();
    assert!(silent.hear().is_none());
    assert!(start.elapsed() >= Duration::from_millis(900), "{:?}", start.elapsed());
    let mut bad = Wallet::connect(&server);
    let answer = bad.ask("server.version", json!(["bad client", "1.4"])).unwrap();
    assert_eq!(answer["error"]["message"], "unsupported client: bad client");
    assert!(bad.hear().is_none());
    server.stop();
}

#[test]
fn what_is_sent_is_padded_where_that_is_set() {
    let (_peer, server) = served(&["--padding"]);
    let mut wallet = Wallet::connect(&server);
    let mut lengths = Vec::new();
    for height in 0..4 {
        wallet.say(&json!({"id": height, "method": "blockchain.block.header", "params": [height]}));
        let mut line = String::new();
        wallet.reader.read_line(&mut line).unwrap();
        let answer: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(answer["id"], height);
        lengths.push(line.len());
    }
    assert_eq!(lengths, [1024; 4]);
    server.stop();
}

/// An answer of more than may wait is sometimes taken by the system in one piece. Nothing waits then, and the wallet is
/// heard again.
#[test]
fn who_was_not_read_from_for_a_long_answer_is_heard_again() {
    let (_peer, server) = served(&["--exempt-token", "a long secret word"]);
    let mut wallet = Wallet::connect(&server);
    wallet.say(
        &json!({"id": 0, "method": "server.ping", "params": [], "authorization": "Bearer a long secret word"}),
    );
    wallet.hear().unwrap();
    let headers = |id| json!({"id": id, "method": "blockchain.block.headers", "params": [0, BLOCKS]});
    let batch: Vec<Value> = (0..80).map(headers).collect();
    for _ in 0..20 {
        wallet.say(&json!(batch));
        let answers = wallet.hear().expect("the answers");
        assert_eq!(answers.as_array().map(Vec::len), Some(batch.len()), "{answers}");
        let pong = wallet.ask("server.ping", json!([])).expect("an answer to what was asked after them");
        assert_eq!(pong["result"], Value::Null);
    }
    server.stop();
}
