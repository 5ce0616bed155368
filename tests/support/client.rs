//! A small Electrum client: one JSON text a line over TCP, as a wallet would talk.

use std::collections::{BTreeMap, VecDeque};
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::naive::script_hash;

/// Longest wait for an answer; long, as the machine may be busy with other tests.
const ANSWER: Duration = Duration::from_secs(30);

/// What a server may answer instead of a result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RpcError {
    pub code: i64,
    pub message: String,
}

/// One connection to a server.
pub struct Client {
    reader: BufReader<TcpStream>,
    stream: TcpStream,
    next_id: u64,
    /// Notifications that came while an answer was awaited: method and parameters.
    notifications: VecDeque<(String, Value)>,
    /// Bytes of a line that has not ended yet.
    partial: Vec<u8>,
}

impl Client {
    /// Connects, and says `server.version` with `protocol` (one version, or lowest and highest).
    pub fn connect(server: SocketAddr, protocol: Value) -> Self {
        let mut client = Self::dial(server).unwrap_or_else(|error| panic!("{server}: {error}"));
        client.call("server.version", json!(["test", protocol])).expect("the version is offered");
        client
    }

    /// Connects and says nothing.
    pub fn dial(server: SocketAddr) -> std::io::Result<Self> {
        let stream = super::connect(server)?;
        stream.set_nodelay(true)?;
        let reader = BufReader::new(stream.try_clone()?);
        Ok(Self { reader, stream, next_id: 0, notifications: VecDeque::new(), partial: Vec::new() })
    }

    /// Asks and waits for the answer; notifications that come first are kept.
    pub fn call(&mut self, method: &str, params: Value) -> Result<Value, RpcError> {
        self.try_call(method, params).unwrap_or_else(|error| panic!("{method}: {error}"))
    }

    /// The same, with the end of the connection as an outer error.
    pub fn try_call(&mut self, method: &str, params: Value) -> std::io::Result<Result<Value, RpcError>> {
        let id = self.next_id;
        self.next_id += 1;
        self.send_line(&json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}).to_string())?;
        let deadline = Instant::now() + ANSWER;
        loop {
            let message = self.read(deadline)?;
            match message.get("id") {
                Some(answered) if *answered == json!(id) => return Ok(outcome(message)),
                Some(other) => panic!("answer to {other} while {id} ({method}) was asked: {message}"),
                None => self.keep(message),
            }
        }
    }

    /// Sends all requests before reading the first answer; answers in the order of the requests.
    pub fn pipeline(&mut self, requests: &[(&str, Value)]) -> Vec<Result<Value, RpcError>> {
        let mut answers: Vec<Option<Result<Value, RpcError>>> = vec![None; requests.len()];
        // A hundred at a time, so that neither side's buffers have to hold them all.
        for (part, chunk) in requests.chunks(100).enumerate() {
            let first = self.next_id;
            self.next_id += chunk.len() as u64;
            let mut text = String::new();
            for (id, (method, params)) in (first..).zip(chunk) {
                let request = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
                text.push_str(&request.to_string());
                text.push('\n');
            }
            self.stream.write_all(text.as_bytes()).expect("the server reads");
            let deadline = Instant::now() + ANSWER;
            let mut missing = chunk.len();
            while missing > 0 {
                let message =
                    self.read(deadline).unwrap_or_else(|error| panic!("{missing} answers missing: {error}"));
                let Some(id) = message.get("id") else {
                    self.keep(message);
                    continue;
                };
                let n =
                    id.as_u64().and_then(|id| id.checked_sub(first)).expect("an id that was asked") as usize;
                let answer = &mut answers[part * 100 + n];
                assert!(answer.is_none(), "a second answer to {id}");
                *answer = Some(outcome(message));
                missing -= 1;
            }
        }
        answers.into_iter().map(|answer| answer.expect("all were awaited")).collect()
    }

    /// Sends a JSON-RPC batch and waits for its one answer.
    pub fn batch(&mut self, requests: &[(&str, Value)]) -> Value {
        let answer = self.batch_for_text(requests);
        serde_json::from_str(&answer).unwrap_or_else(|error| panic!("{error}: {answer}"))
    }

    /// The same; the answer as the server wrote it.
    pub fn batch_for_text(&mut self, requests: &[(&str, Value)]) -> String {
        let ids = self.next_id..;
        self.next_id += requests.len() as u64;
        let requests = ids.zip(requests);
        let batch: Value = requests
            .map(|(id, (method, params))| json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}))
            .collect();
        self.send_line(&batch.to_string()).expect("the server reads");
        let deadline = Instant::now() + ANSWER;
        loop {
            let line = self.read_line(deadline).unwrap_or_else(|error| panic!("batch: {error}"));
            if line.starts_with('[') {
                return line;
            }
            self.keep(serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}")));
        }
    }

    /// The next notification: method and parameters. `None` when none comes within `limit`.
    pub fn notification(&mut self, limit: Duration) -> Option<(String, Value)> {
        if let Some(kept) = self.notifications.pop_front() {
            return Some(kept);
        }
        match self.read(Instant::now() + limit) {
            Ok(message) => {
                assert!(message.get("id").is_none(), "an answer that nobody asked for: {message}");
                self.keep(message);
                self.notifications.pop_front()
            }
            Err(error) if error.kind() == std::io::ErrorKind::TimedOut => None,
            Err(error) => panic!("the connection ended: {error}"),
        }
    }

    /// All notifications until none comes for `quiet`.
    pub fn notifications(&mut self, quiet: Duration) -> Vec<(String, Value)> {
        std::iter::from_fn(|| self.notification(quiet)).collect()
    }

    /// Sends a line as it stands.
    pub fn send_line(&mut self, line: &str) -> std::io::Result<()> {
        self.stream.write_all(format!("{line}\n").as_bytes())
    }

    /// The next message, whatever it is; an error of kind `TimedOut` when none ends before `deadline`.
    pub fn read(&mut self, deadline: Instant) -> std::io::Result<Value> {
        let text = self.read_line(deadline)?;
        Ok(serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}")))
    }

    fn read_line(&mut self, deadline: Instant) -> std::io::Result<String> {
        use std::io::ErrorKind::{Interrupted, TimedOut, UnexpectedEof, WouldBlock};
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(TimedOut.into());
            }
            self.stream.set_read_timeout(Some(left))?;
            match self.reader.read_until(b'\n', &mut self.partial) {
                Ok(_) if self.partial.last() == Some(&b'\n') => {
                    let line = std::mem::take(&mut self.partial);
                    return Ok(String::from_utf8_lossy(&line).into_owned());
                }
                Ok(_) => return Err(UnexpectedEof.into()),
                Err(error) if matches!(error.kind(), WouldBlock | TimedOut | Interrupted) => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn keep(&mut self, message: Value) {
        let method = message["method"].as_str().unwrap_or_else(|| panic!("no notification: {message}"));
        self.notifications.push_back((method.to_string(), message["params"].clone()));
    }

    // What wallets ask, by script.

    pub fn history(&mut self, script: &[u8]) -> Result<Value, RpcError> {
        self.call("blockchain.scripthash.get_history", json!([script_hash(script)]))
    }

    pub fn unspent(&mut self, script: &[u8]) -> Result<Value, RpcError> {
        self.call("blockchain.scripthash.listunspent", json!([script_hash(script)]))
    }

    /// Confirmed and unconfirmed satoshi.
    pub fn balance(&mut self, script: &[u8]) -> Result<(u64, i64), RpcError> {
        let balance = self.call("blockchain.scripthash.get_balance", json!([script_hash(script)]))?;
        let confirmed = balance["confirmed"].as_u64().expect("confirmed is satoshi");
        Ok((confirmed, balance["unconfirmed"].as_i64().expect("unconfirmed is satoshi")))
    }

    /// Subscribes and returns the status.
    pub fn subscribe(&mut self, script: &[u8]) -> Result<Value, RpcError> {
        self.call("blockchain.scripthash.subscribe", json!([script_hash(script)]))
    }

    /// Subscribes to headers and returns the tip's height and 80 bytes.
    pub fn tip(&mut self) -> Result<(u32, Vec<u8>), RpcError> {
        let tip = self.call("blockchain.headers.subscribe", json!([]))?;
        let header = bitcoin::hex::FromHex::from_hex(tip["hex"].as_str().expect("a header in hex"));
        Ok((tip["height"].as_u64().expect("a height") as u32, header.expect("a header in hex")))
    }
}

/// The results of a batch's answer, each as it was written: numbers keep all their digits, objects their order.
pub fn results_as_written(batch: &str) -> Vec<String> {
    let answers: Vec<BTreeMap<String, Box<RawValue>>> =
        serde_json::from_str(batch).unwrap_or_else(|error| panic!("{error}: {batch}"));
    let result = |answer: BTreeMap<String, Box<RawValue>>| match answer.get("result") {
        Some(result) if result.get() != "null" => result.get().to_owned(),
        _ => panic!("no result: {answer:?}"),
    };
    answers.into_iter().map(result).collect()
}

fn outcome(mut message: Value) -> Result<Value, RpcError> {
    match message.get("error") {
        None => Ok(message.get_mut("result").expect("an answer has a result or an error").take()),
        Some(error) => Err(RpcError {
            code: error["code"].as_i64().unwrap_or_else(|| panic!("error without a code: {message}")),
            message: error["message"]
                .as_str()
                .unwrap_or_else(|| panic!("error without text: {message}"))
                .into(),
        }),
    }
}
