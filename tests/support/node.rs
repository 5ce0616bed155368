//! A real bitcoind on regtest, with a wallet.
//!
//! Its folder is `PEERDEX_BITCOIND`, else `~/.cache/test-node/bin` (where `.ci/bitcoind` puts it), else the
//! PATH. Without one a test says loudly that it did nothing, unless `PEERDEX_REQUIRE_BITCOIND` is set.
//! Questions go over JSON-RPC and not through `bitcoin-cli`: a process for each would take most of the time.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::naive::{NaiveIndex, Tx};
use super::{free_address, wait_for};

/// `u:p` in base64, what `-rpcuser=u -rpcpassword=p` asks for.
const RPC_AUTHORIZATION: &str = "dTpw";
/// Longest wait for a node to start, answer or stop.
const PATIENCE: Duration = Duration::from_secs(60);

/// The program, or `None` with a loud word when this machine has none.
pub fn bitcoind() -> Option<PathBuf> {
    let folder = std::env::var_os("PEERDEX_BITCOIND").map(PathBuf::from);
    if let Some(folder) = &folder {
        assert!(folder.join("bitcoind").is_file(), "PEERDEX_BITCOIND: there is no bitcoind in {folder:?}");
    }
    let cache = std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache/test-node/bin"));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = folder.into_iter().chain(cache).chain(std::env::split_paths(&path).collect::<Vec<_>>());
    let found = folders.map(|folder| folder.join("bitcoind")).find(|program| program.is_file());
    if found.is_none() {
        missing(
            "no bitcoind: `.ci/bitcoind` installs one, or set PEERDEX_BITCOIND to the folder that holds it",
        );
    }
    found
}

/// The program, if it was built with wallets.
pub fn bitcoind_with_wallets() -> Option<PathBuf> {
    let program = bitcoind()?;
    let help = Command::new(&program).arg("-help").output().expect("bitcoind has a help");
    if !String::from_utf8_lossy(&help.stdout).contains("-disablewallet") {
        missing("this bitcoind was built without wallets");
        return None;
    }
    Some(program)
}

fn missing(what: &str) {
    assert!(std::env::var_os("PEERDEX_REQUIRE_BITCOIND").is_none(), "{what}");
    super::skipped(what);
}

/// What brings Bitcoin Knots near Core; the rest is `Policy::knots`.
pub const KNOTS_OPTIONS: &[&str] = &["-corepolicy=1"];

/// Whether a program is Bitcoin Knots, whose rules of relay are others than Core's.
pub fn is_knots(program: &Path) -> bool {
    let output = Command::new(program).arg("-version").output().expect("bitcoind says its version");
    String::from_utf8_lossy(&output.stdout).contains("Knots")
}

/// An error of the node: Core's code and words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeError {
    pub code: i64,
    pub message: String,
}

/// A node; it is killed when dropped.
pub struct Node {
    program: PathBuf,
    folder: TempDir,
    p2p: SocketAddr,
    rpc: SocketAddr,
    child: Option<Child>,
}

impl Node {
    /// Starts a node with an empty chain and a loaded wallet; `None` where there is no bitcoind that has wallets.
    pub fn start(extra: &[&str]) -> Option<Self> {
        bitcoind_with_wallets()?;
        let node = Self::start_without_wallet(extra)?;
        node.rpc("createwallet", json!(["w"]));
        Some(node)
    }

    /// Starts a node with an empty chain, which may be a program that was built without wallets.
    pub fn start_without_wallet(extra: &[&str]) -> Option<Self> {
        Self::start_in(TempDir::new().expect("a temporary folder"), extra)
    }

    /// Starts a node on a copy of the folder that another left behind.
    pub fn start_on_copy(of: &Path, extra: &[&str]) -> Option<Self> {
        let folder = TempDir::new().expect("a temporary folder");
        copy_folder(of, folder.path());
        Self::start_in(folder, extra)
    }

    fn start_in(folder: TempDir, extra: &[&str]) -> Option<Self> {
        let program = bitcoind()?;
        let mut node = Self { program, folder, p2p: free_address(), rpc: free_address(), child: None };
        node.start_again(extra);
        Some(node)
    }

    /// Stops it and leaves a copy of its folder.
    pub fn stop_and_copy(mut self, to: &Path) {
        self.stop();
        copy_folder(self.folder.path(), to);
    }

    /// Starts the stopped node on its old folder and addresses.
    pub fn start_again(&mut self, extra: &[&str]) {
        assert!(self.child.is_none(), "the node runs already");
        let child = Command::new(&self.program)
            .args(["-regtest", "-listen=1", "-dnsseed=0", "-listenonion=0", "-printtoconsole=0"])
            .args([
                "-rpcuser=u",
                "-rpcpassword=p",
                "-fallbackfee=0.0001",
                "-wallet=w",
                "-server=1",
                "-unsafesqlitesync",
            ])
            .arg(format!("-datadir={}", self.folder.path().display()))
            .arg(format!("-bind={}", self.p2p))
            .arg(format!("-rpcport={}", self.rpc.port()))
            .args(extra.iter().all(|argument| !argument.starts_with("-connect=")).then_some("-connect=0"))
            .args(extra)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}", self.program.display()));
        self.child = Some(child);
        wait_for("bitcoind to answer", PATIENCE, || {
            let child = self.child.as_mut().expect("it was started above");
            if let Some(status) = child.try_wait().expect("a child can be asked") {
                let mut said = String::new();
                let _ = child.stderr.take().expect("it is piped").read_to_string(&mut said);
                panic!("bitcoind ended with {status}: {said}");
            }
            self.try_rpc("getblockcount", json!([])).ok()
        });
    }

    /// Stops it and waits until it is gone.
    pub fn stop(&mut self) {
        self.rpc("stop", json!([]));
        let mut child = self.child.take().expect("the node runs");
        wait_for("bitcoind to stop", PATIENCE, || child.try_wait().expect("a child can be asked"));
    }

    /// Its data folder.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Where peers dial it.
    pub fn address(&self) -> SocketAddr {
        self.p2p
    }

    /// Asks; parameters by position in an array or by name in an object. An error ends the test.
    pub fn rpc(&self, method: &str, params: Value) -> Value {
        self.try_rpc(method, params.clone())
            .unwrap_or_else(|error| panic!("{method}: {error:?}; asked with {params}"))
    }

    /// Asks.
    pub fn try_rpc(&self, method: &str, params: Value) -> Result<Value, NodeError> {
        let answer = self.post(&json!({"id": 0, "method": method, "params": params}));
        outcome(answer.map_err(|error| NodeError { code: 0, message: error.to_string() })?)
    }

    /// Asks many things at once; answers in the order of the questions.
    pub fn rpc_batch(&self, calls: &[(&str, Value)]) -> Vec<Value> {
        let mut answers = Vec::with_capacity(calls.len());
        for chunk in calls.chunks(500) {
            let batch: Value = chunk
                .iter()
                .map(|(method, params)| json!({"id": 0, "method": method, "params": params}))
                .collect();
            let Ok(Value::Array(list)) = self.post(&batch) else { panic!("bitcoind answers a batch") };
            assert_eq!(list.len(), chunk.len(), "an answer to each");
            for (answer, call) in list.into_iter().zip(chunk) {
                answers.push(outcome(answer).unwrap_or_else(|error| panic!("{call:?}: {error:?}")));
            }
        }
        answers
    }

    /// Asks many things at once; the results as the node wrote them.
    pub fn rpc_texts(&self, calls: &[(&str, Value)]) -> Vec<String> {
        let mut texts = Vec::with_capacity(calls.len());
        for chunk in calls.chunks(500) {
            let batch: Value = chunk
                .iter()
                .map(|(method, params)| json!({"id": 0, "method": method, "params": params}))
                .collect();
            let answer = self.post_for_text(&batch).expect("bitcoind answers a batch");
            texts.extend(super::client::results_as_written(&answer));
        }
        assert_eq!(texts.len(), calls.len(), "an answer to each");
        texts
    }

    /// Mines to the wallet; the hashes of the blocks.
    pub fn generate(&self, count: usize) -> Vec<String> {
        let address = self.rpc("getnewaddress", json!(["", "bech32"]));
        self.generate_to(count, &text(&address))
    }

    /// Mines to an address; the hashes of the blocks.
    pub fn generate_to(&self, count: usize, address: &str) -> Vec<String> {
        let hashes = self.rpc("generatetoaddress", json!([count, address]));
        hashes.as_array().expect("hashes").iter().map(text).collect()
    }

    /// Mines a block of these transactions (hex or txid) alone; policy has no say. The hash of the block.
    pub fn generate_block(&self, txs: &[String]) -> String {
        let address = self.rpc("getnewaddress", json!(["", "bech32"]));
        self.generate_block_to(&text(&address), txs)
    }

    /// The same, and who is paid for it.
    pub fn generate_block_to(&self, address: &str, txs: &[String]) -> String {
        text(&self.rpc("generateblock", json!([address, txs]))["hash"])
    }

    /// Height of the tip.
    pub fn height(&self) -> u32 {
        self.rpc("getblockcount", json!([])).as_u64().expect("a height") as u32
    }

    /// Hash of the tip.
    pub fn tip(&self) -> String {
        text(&self.rpc("getbestblockhash", json!([])))
    }

    /// Hash of the block at a height.
    pub fn hash_at(&self, height: u32) -> String {
        text(&self.rpc("getblockhash", json!([height])))
    }

    /// Gives up the newest `depth` blocks.
    pub fn invalidate(&self, depth: u32) {
        let lowest = self.hash_at(self.height() + 1 - depth);
        self.rpc("invalidateblock", json!([lowest]));
    }

    /// The hashes of the chain from a height to the tip.
    pub fn hashes_from(&self, height: u32) -> Vec<Value> {
        let calls: Vec<_> =
            (height..=self.height()).map(|height| ("getblockhash", json!([height]))).collect();
        self.rpc_batch(&calls)
    }

    /// The raw blocks from a height to the tip.
    pub fn raw_blocks_from(&self, height: u32) -> Vec<Vec<u8>> {
        let calls: Vec<_> =
            self.hashes_from(height).into_iter().map(|hash| ("getblock", json!([hash, 0]))).collect();
        let blocks = self.rpc_batch(&calls);
        blocks
            .iter()
            .map(|hex| bitcoin::hex::FromHex::from_hex(&text(hex)).expect("a block in hex"))
            .collect()
    }

    /// The index that follows from what the node says of every block.
    pub fn index(&self) -> NaiveIndex {
        let mut index = NaiveIndex::default();
        self.extend(&mut index, 0);
        index
    }

    /// Adds the blocks from `height`, the first that `index` lacks, to the tip.
    pub fn extend(&self, index: &mut NaiveIndex, height: u32) {
        let calls: Vec<_> =
            self.hashes_from(height).into_iter().map(|hash| ("getblock", json!([hash, 2]))).collect();
        // In parts, as a verbose block is many times its size.
        for part in calls.chunks(100) {
            for block in self.rpc_batch(part) {
                index.add(&Tx::all_of_json(&block));
            }
        }
    }

    fn post(&self, body: &Value) -> std::io::Result<Value> {
        serde_json::from_str(&self.post_for_text(body)?)
            .map_err(|error| std::io::Error::new(std::io::ErrorKind::InvalidData, error))
    }

    fn post_for_text(&self, body: &Value) -> std::io::Result<String> {
        let mut stream = super::connect((Ipv4Addr::LOCALHOST, self.rpc.port()).into())?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let body = body.to_string();
        // In one write, as several small ones would wait for each other's acknowledgement.
        let request = format!(
            "POST / HTTP/1.1\r\nHost: localhost\r\nAuthorization: Basic {RPC_AUTHORIZATION}\r\n\
             Connection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes())?;
        let mut reader = BufReader::new(stream);
        let mut line = String::new();
        while !matches!(line.as_str(), "\r\n" | "\n") {
            line.clear();
            if reader.read_line(&mut line)? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
        }
        let mut answer = String::new();
        reader.read_to_string(&mut answer)?;
        Ok(answer)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        match entry.file_type().unwrap() {
            kind if kind.is_dir() => copy_folder(&entry.path(), &target),
            kind if kind.is_file() => drop(std::fs::copy(entry.path(), target).unwrap()),
            // Locks and links mean nothing to a copy.
            _ => {}
        }
    }
}

fn outcome(mut answer: Value) -> Result<Value, NodeError> {
    match &answer["error"] {
        Value::Null => Ok(answer["result"].take()),
        error => Err(NodeError {
            code: error["code"].as_i64().unwrap_or_default(),
            message: error["message"].as_str().unwrap_or_default().to_string(),
        }),
    }
}

/// The text of a JSON string.
pub fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text")).to_string()
}
