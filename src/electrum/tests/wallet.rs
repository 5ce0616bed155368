//! A wallet with a session and a chain of its own.

use std::sync::Arc;
use std::time::Duration;

use bitcoin::hashes::Hash as _;
use bitcoin::{Script, Txid};
use chainstore::ScriptHash;
use serde_json::Value;

use crate::electrum::{Output, Server, Session, SubmissionId};
use crate::mempool::{Outcome, Submission, Unconfirmed};
use crate::query::testing::Chain;
use crate::query::{SyncState, Touched, View};
use crate::time::Now;

/// One connection, and the chain behind it.
#[derive(Debug)]
pub(super) struct Wallet {
    pub(super) chain: Chain,
    pub(super) session: Session,
    pub(super) view: Arc<View>,
    pub(super) closed: bool,
    /// Broadcasts that the session asked for and that have no result yet, oldest first.
    pub(super) submissions: Vec<(SubmissionId, Vec<Txid>)>,
}

impl Wallet {
    /// Connected to a synced server on mainnet, at this height.
    pub(super) fn at(height: u32) -> Self {
        let mut chain = Chain::mainnet(height);
        let (view, _) = chain.commit();
        let session = new_session(&view);
        Self { chain, session, view, closed: false, submissions: Vec::new() }
    }

    /// The same with other settings of the server.
    pub(super) fn with(height: u32, set: impl FnOnce(&mut Server)) -> Self {
        let mut wallet = Self::at(height);
        let mut server = new_server();
        set(&mut server);
        wallet.session = Session::new(Arc::new(server), Arc::clone(&wallet.view), Now::default(), 1);
        wallet
    }

    /// The connection ends, another begins.
    pub(super) fn reconnect(&mut self) {
        self.session = new_session(&self.view);
        self.closed = false;
        self.submissions.clear();
    }

    /// Sends a line; what comes back, as text.
    pub(super) fn send(&mut self, line: &[u8]) -> Vec<String> {
        self.session.handle_line(Now::default(), line);
        while self.session.has_more() {
            self.session.handle_turn(Now::default());
        }
        self.outputs()
    }

    /// The chain as it was changed becomes what the session sees.
    pub(super) fn commit(&mut self) -> Vec<String> {
        let (view, touched) = self.chain.commit();
        self.show(view, &touched)
    }

    /// The server falls behind its headers, and says so.
    pub(super) fn commit_syncing(&mut self, percent: u8, left_secs: u64) -> Vec<String> {
        let left = Some(Duration::from_secs(left_secs));
        let (view, touched) = self.chain.commit_as(SyncState::Syncing { percent, left });
        self.show(view, &touched)
    }

    fn show(&mut self, view: Arc<View>, touched: &Touched) -> Vec<String> {
        self.view = Arc::clone(&view);
        self.session.handle_view(Now::default(), view, touched);
        self.outputs()
    }

    /// What became of the oldest submission, given the ids of its transactions.
    pub(super) fn comes_of_it(&mut self, outcome: impl FnOnce(&[Txid]) -> Outcome) -> Vec<String> {
        let (id, txids) = self.submissions.remove(0);
        self.session.handle_submitted(Now::default(), id, outcome(&txids));
        self.outputs()
    }

    /// Peers took the oldest one.
    pub(super) fn peers_take_it(&mut self) -> Vec<String> {
        self.comes_of_it(|txids| Outcome::Sent(txids[0]))
    }

    /// Lines that the session sent, without their newlines, and other instructions in words.
    pub(super) fn outputs(&mut self) -> Vec<String> {
        let mut seen = Vec::new();
        while let Some(output) = self.session.poll() {
            assert!(!self.closed, "closing is the last instruction: {output:?}");
            seen.push(match output {
                Output::Send(line) => {
                    let text = std::str::from_utf8(&line).unwrap();
                    let text = text.strip_suffix('\n').unwrap();
                    assert!(!text.contains('\n'), "one line is one message");
                    format!("< {text}")
                }
                Output::Submit { id, what } => {
                    let (how, list) = match what {
                        Submission::Transaction(raw) => ("transaction", vec![raw]),
                        Submission::Package(list) => ("package", list),
                        Submission::Test(list) => ("test", list),
                    };
                    let txids = list.iter().filter_map(|raw| Some(Unconfirmed::parse(raw).ok()?.txid()));
                    let txids: Vec<Txid> = txids.collect();
                    let shown: Vec<String> = txids.iter().map(Txid::to_string).collect();
                    self.submissions.push((id, txids));
                    format!("! submit {how} {}", shown.join(" ")).trim_end().to_owned()
                }
                Output::Interest(_) => continue,
                Output::Fault(error) => format!("! fault {error}"),
                Output::Close => {
                    self.closed = true;
                    "! close".to_owned()
                }
            });
        }
        seen
    }

    /// Calls a method and takes its answer, which must be the only thing that comes back.
    pub(super) fn call(&mut self, method: &str, params: Value) -> Result<Value, Value> {
        let request = serde_json::json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
        let seen = self.send(request.to_string().as_bytes());
        let [answer] = &seen[..] else { panic!("{method} is answered by {seen:?}") };
        let mut answer: Value = serde_json::from_str(answer.strip_prefix("< ").unwrap()).unwrap();
        match answer.get_mut("result") {
            Some(result) => Ok(result.take()),
            None => Err(answer["error"].take()),
        }
    }
}

fn new_server() -> Server {
    let network = bitcoin::Network::Bitcoin;
    let genesis = bitcoin::constants::genesis_block(network).block_hash();
    Server::new(network, genesis, "0.1.0")
}

fn new_session(view: &Arc<View>) -> Session {
    Session::new(Arc::new(new_server()), Arc::clone(view), Now::default(), 1)
}

/// A script hash as wallets write it.
pub(super) fn hash_of(script: &Script) -> String {
    format!("{:?}", ScriptHash::of(script))
}

/// What a wallet computes from a history.
pub(super) fn status_of(history: &Value) -> Value {
    let history = history.as_array().unwrap();
    if history.is_empty() {
        return Value::Null;
    }
    let entry = |entry: &Value| format!("{}:{}:", entry["tx_hash"].as_str().unwrap(), entry["height"]);
    let text: String = history.iter().map(entry).collect();
    Value::from(bitcoin::hashes::sha256::Hash::hash(text.as_bytes()).to_string())
}
