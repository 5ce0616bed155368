//! One wallet's connection: lines in, lines out.
//!
//! Answers from the view that it holds and notifies when it is given a new one: first of the tip, then of
//! scripts, never before the answer that made the subscription, and all from the one view. Broadcasts are
//! answered later, while other requests go on. No socket here, and no clock: the shell hands in lines and takes
//! instructions.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bitcoin::{BlockHash, Network, Txid};
use bytes::Bytes;

use crate::query::{Error, SyncState, Touched, View};
use crate::time::Now;

use super::answer_block::tip_object;
use super::answer_script::status_value;
use super::answer_server::syncing;
use super::batch::{self, Batch};
use super::broadcast::{self, Checked};
use super::error::RpcError;
use super::json::Json;
use super::jsonrpc::{self, Envelope, Incoming, Item, Request};
use super::methods::{self, Failure, Reply, Serves};
use super::params::Args;
use super::subscriptions::Subscriptions;
use super::version::ProtocolVersion;

/// Broadcasts of one session that wait for peers.
const MAX_WAITING_BROADCASTS: usize = 32;

/// What all sessions of a server say alike.
#[derive(Clone, Debug)]
pub struct Server {
    /// How addresses are written.
    pub network: Network,
    pub genesis_hash: BlockHash,
    /// Name and version. The suffix makes Sparrow send batches: it knows servers by name.
    pub software: String,
    pub banner: String,
}

impl Server {
    /// A server of `network`, which begins with `genesis_hash`.
    pub fn new(network: Network, genesis_hash: BlockHash, version: &str) -> Self {
        Self {
            network,
            genesis_hash,
            software: format!("peerdex/{version} (electrumx-compatible)"),
            banner: format!("peerdex {version}: an Electrum server that needs no Bitcoin node"),
        }
    }
}

/// One broadcast of one session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BroadcastId(u64);

/// Why a broadcast failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BroadcastError {
    /// The network's rules forbid it, in Bitcoin Core's words.
    Rejected(String),
    /// It could not be sent, in words for a person: no peers.
    Unavailable(String),
}

/// What the shell has to do.
#[derive(Debug)]
pub enum Output {
    /// A line to send, its newline included.
    Send(Bytes),
    /// Show this transaction to peers, then call [`Session::handle_broadcast_result`].
    Broadcast { id: BroadcastId, txid: Txid, raw: Bytes },
    /// The store failed while answering: for the log.
    Fault(Error),
    /// Close the connection, once what was sent before is on its way. The last instruction.
    Close,
}

/// The protocol state of one connection.
#[derive(Debug)]
pub struct Session {
    server: Arc<Server>,
    view: Arc<View>,
    /// `None` until the wallet has said; it is answered in the oldest version until then.
    negotiated: Option<ProtocolVersion>,
    subscriptions: Subscriptions,
    /// Broadcasts on their way.
    waiting: BTreeMap<BroadcastId, Waiting>,
    next_broadcast: u64,
    /// Batches of which an answer is still missing.
    batches: BTreeMap<u64, Batch>,
    next_batch: u64,
    /// Changes that were not looked at yet.
    held_back: Option<Touched>,
    ignored_notifications: u64,
    stage: Stage,
    outputs: VecDeque<Output>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Open,
    /// The wallet says no more; what it asked is still answered.
    InputEnded,
    Closed,
}

/// What a method sees of its session.
#[derive(Debug)]
pub(super) struct Context<'a> {
    pub(super) server: &'a Server,
    pub(super) view: &'a View,
    pub(super) negotiated: &'a mut Option<ProtocolVersion>,
    pub(super) subscriptions: &'a mut Subscriptions,
}

/// A request whose answer depends on peers.
#[derive(Debug)]
struct Waiting {
    envelope: Envelope<'static>,
    raw: Bytes,
    /// The batch that it is part of, and its place there.
    batch: Option<(u64, usize)>,
}

/// What became of a member of a batch, or of a single request.
enum Outcome<'a> {
    Answered(Envelope<'a>, Result<Json, RpcError>),
    /// A notification: nothing to say.
    Silent,
    Waits(Envelope<'a>, Checked),
}

impl Session {
    /// A session that answers from `view`.
    pub fn new(server: Arc<Server>, view: Arc<View>) -> Self {
        Self {
            server,
            view,
            negotiated: None,
            subscriptions: Subscriptions::default(),
            waiting: BTreeMap::new(),
            next_broadcast: 0,
            batches: BTreeMap::new(),
            next_batch: 0,
            held_back: None,
            ignored_notifications: 0,
            stage: Stage::Open,
            outputs: VecDeque::new(),
        }
    }

    /// The wallet sent a line; its newline is cut off.
    pub fn handle_line(&mut self, _now: Now, line: &[u8]) {
        if self.stage != Stage::Open {
            return;
        }
        match jsonrpc::parse(line) {
            Incoming::Single(item) => match self.run(item) {
                Outcome::Answered(envelope, answer) => {
                    let text = batch::single(&envelope, &answer);
                    self.send(text);
                }
                Outcome::Silent => {}
                Outcome::Waits(envelope, checked) => self.broadcast(envelope, checked, None),
            },
            Incoming::Batch(items, excess) => self.run_batch(items, &excess),
        }
        self.close_if_done();
    }

    /// The wallet sent more than a request may have, without a newline.
    pub fn handle_line_too_long(&mut self, _now: Now) {
        if self.stage != Stage::Open {
            return;
        }
        let error = RpcError::invalid_request("request too large");
        self.send(Envelope::unknown().answer(&Err(error)));
        self.close();
    }

    /// The wallet closed its side; what it asked is still answered, then the session closes.
    pub fn handle_end_of_input(&mut self, _now: Now) {
        if self.stage == Stage::Open {
            self.stage = Stage::InputEnded;
            self.close_if_done();
        }
    }

    /// The chain moved. `touched` names at least every script that differs from the view given before.
    pub fn handle_view(&mut self, _now: Now, view: Arc<View>, touched: &Touched) {
        if self.stage == Stage::Closed {
            return;
        }
        self.view = view;
        if self.batches.is_empty() && self.held_back.is_none() {
            return self.notify(touched);
        }
        self.held_back.get_or_insert_default().merge(touched);
        self.notify_held_back();
    }

    /// The peers were shown a transaction, or could not be.
    pub fn handle_broadcast_result(
        &mut self,
        _now: Now,
        id: BroadcastId,
        result: Result<Txid, BroadcastError>,
    ) {
        let Some(waiting) = self.waiting.remove(&id) else { return };
        if self.stage == Stage::Closed {
            return;
        }
        let answer = match result {
            Ok(txid) => Ok(Json::hash(txid)),
            Err(BroadcastError::Rejected(reason)) => Err(broadcast::rejected(&reason, &waiting.raw)),
            Err(BroadcastError::Unavailable(why)) => Err(RpcError::unavailable(why)),
        };
        match waiting.batch {
            None => self.send(batch::single(&waiting.envelope, &answer)),
            Some((id, index)) => {
                if let Some(mut batch) = self.batches.remove(&id) {
                    batch.fill(index, &waiting.envelope, &answer);
                    self.send_or_keep(id, batch);
                }
            }
        }
        self.close_if_done();
    }

    /// What to do next. Call until `None` after each of the above.
    pub fn poll(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// The version that is spoken.
    pub fn version(&self) -> ProtocolVersion {
        self.negotiated.unwrap_or(ProtocolVersion::MIN)
    }

    /// Notifications that the wallet sent; none means anything, and they are not answered.
    pub fn ignored_notifications(&self) -> u64 {
        self.ignored_notifications
    }

    fn run<'a>(&mut self, item: Item<'a>) -> Outcome<'a> {
        match item {
            Item::Request(request) => {
                let result = self.answer(&request);
                let envelope = request.envelope;
                match result {
                    Ok(Reply::Now(result)) => Outcome::Answered(envelope, Ok(result)),
                    Ok(Reply::Broadcast(checked)) => Outcome::Waits(envelope, checked),
                    Ok(Reply::Last(error)) => {
                        self.stage = Stage::InputEnded;
                        Outcome::Answered(envelope, Err(error))
                    }
                    Err(Failure::Refused(error)) => Outcome::Answered(envelope, Err(error)),
                    Err(Failure::Store(error)) => Outcome::Answered(envelope, Err(self.fault(error))),
                }
            }
            Item::Notification => {
                self.ignored_notifications += 1;
                Outcome::Silent
            }
            Item::Refused(envelope, error) => Outcome::Answered(envelope, Err(error)),
        }
    }

    fn answer(&mut self, request: &Request<'_>) -> Result<Reply, Failure> {
        let method = methods::find(&request.method, self.version())
            .ok_or_else(|| RpcError::unknown_method(&request.method))?;
        if let (Serves::Synced, SyncState::Syncing { percent, left }) = (method.serves, self.view.sync()) {
            return Err(RpcError::unavailable(syncing(percent, left)).into());
        }
        let args = Args::match_with(method, request.params)?;
        let mut context = Context {
            server: &self.server,
            view: &self.view,
            negotiated: &mut self.negotiated,
            subscriptions: &mut self.subscriptions,
        };
        let reply = (method.answer)(&mut context, &args)?;
        match reply {
            Reply::Broadcast(_) if self.waiting.len() >= MAX_WAITING_BROADCASTS => {
                Err(RpcError::busy("server busy: too many broadcasts at once").into())
            }
            Reply::Broadcast(_) | Reply::Now(_) | Reply::Last(_) => Ok(reply),
        }
    }

    fn run_batch(&mut self, items: Vec<Item<'_>>, excess: &[Envelope<'_>]) {
        let id = self.next_batch;
        self.next_batch += 1;
        let mut batch = Batch::new(&items, excess);
        for item in items {
            match self.run(item) {
                Outcome::Answered(envelope, answer) => batch.push(&envelope, &answer),
                Outcome::Silent => {}
                Outcome::Waits(envelope, checked) => {
                    self.broadcast(envelope, checked, Some((id, batch.push_missing())));
                }
            }
        }
        self.send_or_keep(id, batch);
    }

    fn send_or_keep(&mut self, id: u64, batch: Batch) {
        if !batch.is_whole() {
            self.batches.insert(id, batch);
            return;
        }
        if let Some(line) = batch.into_line() {
            self.send(line);
        }
        self.notify_held_back();
    }

    /// An open batch may hold the answer to a subscription, which comes before its notifications.
    fn notify_held_back(&mut self) {
        if self.batches.is_empty()
            && let Some(touched) = self.held_back.take()
        {
            self.notify(&touched);
        }
    }

    fn broadcast(&mut self, envelope: Envelope<'_>, checked: Checked, batch: Option<(u64, usize)>) {
        let id = BroadcastId(self.next_broadcast);
        self.next_broadcast += 1;
        let Checked { txid, raw } = checked;
        self.waiting.insert(id, Waiting { envelope: envelope.into_owned(), raw: raw.clone(), batch });
        self.outputs.push_back(Output::Broadcast { id, txid, raw });
    }

    /// Tells what changed: the tip first, as wallets ask for heights they learn from scripts.
    fn notify(&mut self, touched: &Touched) {
        if let Some(tip) = self.view.tip()
            && self.subscriptions.tell_headers(tip.hash)
        {
            let params = Json::list([tip_object(tip)]);
            self.send(jsonrpc::notification("blockchain.headers.subscribe", params));
        }
        for script in self.subscriptions.touched(touched) {
            let status = match self.view.status(&script) {
                Ok(status) => status,
                // A deep reorg: the view that tells of it is on its way.
                Err(error) if error.is_outdated() => {
                    self.held_back = Some(touched.clone());
                    return;
                }
                Err(error) => {
                    // The wallet would wait for news for ever: better that it comes again.
                    self.fault(error);
                    return self.close();
                }
            };
            if self.subscriptions.tell_script(&script, status) {
                let params = Json::list([Json::text(&format!("{script:?}")), status_value(status)]);
                self.send(jsonrpc::notification("blockchain.scripthash.subscribe", params));
            }
        }
    }

    /// What the wallet is told of a failing store.
    fn fault(&mut self, error: Error) -> RpcError {
        if let Some(height) = error.damaged_block() {
            // The operator is told by who fetches it, once and not at each question.
            return RpcError::unavailable(format!(
                "block {height} is damaged on this server and is being fetched again, ask again in a minute"
            ));
        }
        let told = if error.is_outdated() {
            RpcError::unavailable("the chain was just reorganised, ask again")
        } else {
            RpcError::unavailable("the index cannot be read")
        };
        self.outputs.push_back(Output::Fault(error));
        told
    }

    fn send(&mut self, mut line: String) {
        line.push('\n');
        self.outputs.push_back(Output::Send(Bytes::from(line)));
    }

    fn close_if_done(&mut self) {
        if self.stage == Stage::InputEnded && self.waiting.is_empty() {
            self.close();
        }
    }

    fn close(&mut self) {
        self.stage = Stage::Closed;
        self.outputs.push_back(Output::Close);
    }
}
