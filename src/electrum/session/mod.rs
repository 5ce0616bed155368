//! One wallet's connection: lines in, lines out.
//!
//! Answers from the view that it holds and notifies when it is given a new one (`notify`): first of the tip, then of
//! scripts, then of outpoints, never before the answer that made the subscription, and all from the one view.
//! Submissions are answered later, while other requests go on. `context` is what a method sees of it all. No socket
//! here, and no clock: the shell hands in lines and the time, and takes instructions.

mod context;
mod notify;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::mempool::{Outcome as Submitted, Submission};
use crate::query::{Error, SyncState, Touched, View};
use crate::time::{Instant, Now};

use super::answer_server::syncing;
use super::batch::{self, Batch};
use super::broadcast::{self, Form};
use super::client::Client;
use super::error::RpcError;
use super::json::Json;
use super::jsonrpc::{self, Envelope, Incoming, Item, Request};
use super::methods::{self, Failure, Reply, Serves};
use super::params::Args;
use super::server::Server;
use super::subscriptions::{Interest, InterestChange, Subscriptions};
use super::version::ProtocolVersion;
pub(super) use context::Context;

/// Submissions of one session that wait for peers.
const MAX_WAITING: usize = 32;

/// What a connection costs, in the units of requests.
const CONNECTION_COST: f64 = 5.0;
/// What a wallet's error costs beside the request.
const ERROR_COST: f64 = 100.0;

/// What a part of a batch may cost before others have their turn; some milliseconds.
const PART_COST: f64 = 5.0;

/// One submission of one session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SubmissionId(u64);

/// What the shell has to do.
#[derive(Debug)]
pub enum Output {
    /// A line to send, its newline included.
    Send(Bytes),
    /// Hand this in, then call [`Session::handle_submitted`].
    Submit { id: SubmissionId, what: Submission },
    /// From now on a change concerns the session, or no longer.
    Interest(InterestChange),
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
    client: Client,
    subscriptions: Subscriptions,
    /// Submissions on their way.
    waiting: BTreeMap<SubmissionId, Waiting>,
    next_submission: u64,
    /// Batches of which an answer is still missing.
    batches: BTreeMap<u64, Batch>,
    next_batch: u64,
    /// The batch whose requests are being answered, part by part.
    rest: Option<Rest>,
    /// Changes that were not looked at yet.
    held_back: Option<Touched>,
    counts: Counts,
    /// What was asked for since the shell last took account.
    cost: f64,
    /// Showed a token: no limit of cost holds.
    exempt: bool,
    /// Asked for too much: the next request is its last.
    excessive: bool,
    last_line: Instant,
    next_noise: Option<Instant>,
    random: fastrand::Rng,
    stage: Stage,
    outputs: VecDeque<Output>,
}

/// What a session has done, for the operator.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub requests: u64,
    pub errors: u64,
    /// Transactions that peers were shown.
    pub broadcasts: u64,
    /// Notifications that mean nothing, and are not answered.
    pub ignored: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Open,
    /// The wallet says no more; what it asked is still answered.
    InputEnded,
    Closed,
}

/// A request whose answer depends on the mempool and on peers.
#[derive(Debug)]
struct Waiting {
    envelope: Envelope<'static>,
    form: Form,
    /// The batch that it is part of, and its place there.
    batch: Option<(u64, usize)>,
    since: Instant,
}

/// Requests of a batch that have not had their turn.
#[derive(Debug)]
struct Rest {
    id: u64,
    batch: Batch,
    items: VecDeque<Item<'static>>,
}

/// What became of a member of a batch, or of a single request.
enum Outcome<'a> {
    Answered(Envelope<'a>, Result<Json, RpcError>),
    /// A notification: nothing to say.
    Silent,
    Waits(Envelope<'a>, Submission, Form),
}

impl Session {
    /// A session that answers from `view`. The seed decides about what is sent only as noise.
    pub fn new(server: Arc<Server>, view: Arc<View>, now: Now, seed: u64) -> Self {
        Self {
            server,
            view,
            client: Client::default(),
            subscriptions: Subscriptions::default(),
            waiting: BTreeMap::new(),
            next_submission: 0,
            batches: BTreeMap::new(),
            next_batch: 0,
            rest: None,
            held_back: None,
            counts: Counts::default(),
            cost: CONNECTION_COST,
            exempt: false,
            excessive: false,
            last_line: now.instant,
            next_noise: None,
            random: fastrand::Rng::with_seed(seed),
            stage: Stage::Open,
            outputs: VecDeque::new(),
        }
    }

    /// The wallet sent a line; its newline is cut off.
    pub fn handle_line(&mut self, now: Now, line: &[u8]) {
        if self.stage != Stage::Open {
            return;
        }
        self.last_line = now.instant;
        match jsonrpc::parse(line, self.server.limits.batch) {
            Incoming::Single(item) => match self.run(item) {
                Outcome::Answered(envelope, answer) => {
                    let text = batch::single(&envelope, &answer, self.server.limits.message_bytes());
                    self.send(text);
                }
                Outcome::Silent => {}
                Outcome::Waits(envelope, what, form) => self.submit(now, envelope, what, form, None),
            },
            Incoming::Batch(items, excess) => self.run_batch(now, items, &excess),
        }
        self.plan_noise(now);
        self.close_if_done();
    }

    /// Whether the last line is a batch of which only a part was answered: [`Session::handle_turn`] goes on with it, and
    /// no other line may come before.
    pub fn has_more(&self) -> bool {
        self.rest.is_some()
    }

    /// Answers the next part of a batch. So others have their turn, and what it costs is charged, before it goes on.
    pub fn handle_turn(&mut self, now: Now) {
        let Some(Rest { id, mut batch, mut items }) = self.rest.take() else { return };
        if self.stage == Stage::Closed {
            return;
        }
        self.run_part(now, id, &mut batch, || items.pop_front());
        if items.is_empty() {
            self.send_or_keep(id, batch);
        } else {
            self.rest = Some(Rest { id, batch, items });
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

    /// What became of a submission.
    pub fn handle_submitted(&mut self, _now: Now, id: SubmissionId, outcome: Submitted) {
        let Some(waiting) = self.waiting.remove(&id) else { return };
        if self.stage == Stage::Closed {
            return;
        }
        self.counts.broadcasts += u64::from(matches!(outcome, Submitted::Sent(_)));
        let answer = broadcast::answer(&waiting.form, outcome);
        self.submission_answered(waiting, answer);
    }

    fn submission_answered(&mut self, waiting: Waiting, answer: Result<Json, RpcError>) {
        let answer = match answer {
            // In 1.0 it is a result like a txid.
            Err(error) if self.version() == ProtocolVersion::V1_0 => Ok(Json::text(&error.message)),
            answer => answer,
        };
        match waiting.batch {
            None => {
                let text = batch::single(&waiting.envelope, &answer, self.server.limits.message_bytes());
                self.send(text);
            }
            Some((id, index)) => match &mut self.rest {
                Some(rest) if rest.id == id => rest.batch.fill(index, &waiting.envelope, &answer),
                _ => {
                    if let Some(mut batch) = self.batches.remove(&id) {
                        batch.fill(index, &waiting.envelope, &answer);
                        self.send_or_keep(id, batch);
                    }
                }
            },
        }
        self.close_if_done();
    }

    /// The session, or its neighbours, asked for too much: its next request is answered so, and is the last.
    pub fn handle_excess(&mut self) {
        self.excessive = true;
    }

    /// Something is due; see [`Session::next_timeout`].
    pub fn handle_timeout(&mut self, now: Now) {
        if self.stage == Stage::Closed {
            return;
        }
        let late: Vec<SubmissionId> = self
            .waiting
            .iter()
            .filter(|(_, waiting)| now.instant >= waiting.since + self.server.limits.request_time)
            .map(|(id, _)| *id)
            .collect();
        for id in late {
            if let Some(waiting) = self.waiting.remove(&id) {
                self.submission_answered(waiting, Err(RpcError::busy("server busy - request timed out")));
            }
        }
        if self.next_noise.is_some_and(|due| now.instant >= due) {
            self.make_noise();
            self.next_noise = None;
            self.plan_noise(now);
        }
        if now.instant >= self.last_line + self.server.limits.session_time {
            self.close();
        }
    }

    /// When [`Session::handle_timeout`] is to be called.
    pub fn next_timeout(&self) -> Instant {
        let idle = self.last_line + self.server.limits.session_time;
        let oldest =
            self.waiting.values().map(|waiting| waiting.since + self.server.limits.request_time).min();
        oldest.into_iter().chain(self.next_noise).fold(idle, Instant::min)
    }

    /// What to do next. Call until `None` after each of the above.
    pub fn poll(&mut self) -> Option<Output> {
        let interest = self.subscriptions.next_change().map(Output::Interest);
        interest.or_else(|| self.outputs.pop_front())
    }

    /// What was asked for since this was last called, in the units of [`methods`](super::methods); bandwidth apart.
    pub fn take_cost(&mut self) -> f64 {
        std::mem::take(&mut self.cost)
    }

    /// Whether it showed one of the operator's tokens.
    pub fn is_exempt(&self) -> bool {
        self.exempt
    }

    /// The version that is spoken.
    pub fn version(&self) -> ProtocolVersion {
        self.client.version()
    }

    /// What the wallet calls itself; empty before it has said.
    pub fn client_name(&self) -> &str {
        self.client.name()
    }

    /// Scripts, addresses and outpoints that it is subscribed to.
    pub fn subscriptions(&self) -> usize {
        self.subscriptions.count()
    }

    /// All that the session is interested in, each as often as it was said.
    pub fn interests(&self) -> impl Iterator<Item = Interest> {
        self.subscriptions.interests()
    }

    pub fn counts(&self) -> Counts {
        self.counts
    }

    fn run<'a>(&mut self, item: Item<'a>) -> Outcome<'a> {
        let (envelope, answer) = match item {
            Item::Request(request) => {
                self.counts.requests += 1;
                let result = self.answer(&request);
                let envelope = request.envelope;
                match result {
                    Ok(Reply::Now(result)) => (envelope, Ok(result)),
                    Ok(Reply::Submit(what, form)) => return Outcome::Waits(envelope, what, form),
                    Ok(Reply::Last(error)) => {
                        self.stage = Stage::InputEnded;
                        (envelope, Err(error))
                    }
                    Err(Failure::Refused(error)) => (envelope, Err(error)),
                    Err(Failure::Store(error)) => (envelope, Err(self.fault(error))),
                }
            }
            Item::Notification(method) => {
                self.hear(method.as_deref());
                return Outcome::Silent;
            }
            Item::Refused(envelope, error) => (envelope, Err(error)),
        };
        if let Err(error) = &answer {
            self.counts.errors += 1;
            self.cost += if error.is_the_wallets() { ERROR_COST } else { 0.0 };
        }
        Outcome::Answered(envelope, answer)
    }

    fn answer(&mut self, request: &Request<'_>) -> Result<Reply, Failure> {
        self.exempt |= request.authorization.as_deref().is_some_and(|given| self.server.knows(given));
        if self.excessive && !self.exempt {
            return Ok(Reply::Last(RpcError::excessive()));
        }
        let place = methods::place_of(&request.method, self.version())
            .ok_or_else(|| RpcError::unknown_method(&request.method))?;
        self.server.commons.count(place);
        let method = &methods::methods()[place];
        if let (Serves::Synced, SyncState::Syncing { percent, left }) = (method.serves, self.view.sync()) {
            return Err(RpcError::unavailable(syncing(percent, left)).into());
        }
        let args = Args::match_with(method, &request.params)?;
        let mut context = Context {
            server: &self.server,
            view: &self.view,
            client: &mut self.client,
            subscriptions: &mut self.subscriptions,
            units: 0,
        };
        let reply = (method.answer)(&mut context, &args);
        self.cost += method.cost.of(context.units);
        match reply? {
            Reply::Submit(..) if self.waiting.len() >= MAX_WAITING => {
                Err(RpcError::busy("server busy: too many broadcasts at once").into())
            }
            reply => Ok(reply),
        }
    }

    /// Of what a wallet says without waiting for an answer, only noise means anything, and that is nothing.
    fn hear(&mut self, method: Option<&str>) {
        if method == Some("server.ping") && self.version() >= ProtocolVersion::V1_7 {
            self.cost += methods::find("server.ping", self.version()).map_or(0.0, |ping| ping.cost.base);
        } else {
            self.counts.ignored += 1;
        }
    }

    fn run_batch(&mut self, now: Now, items: Vec<Item<'_>>, excess: &[Envelope<'_>]) {
        let id = self.next_batch;
        self.next_batch += 1;
        let mut batch = Batch::new(&items, excess, self.server.limits.message_bytes());
        let mut items = items.into_iter();
        self.run_part(now, id, &mut batch, || items.next());
        if items.len() == 0 {
            self.send_or_keep(id, batch);
        } else {
            let items = items.map(Item::into_owned).collect();
            self.rest = Some(Rest { id, batch, items });
        }
    }

    /// Runs members of a batch until they cost enough.
    fn run_part<'a>(
        &mut self,
        now: Now,
        id: u64,
        batch: &mut Batch,
        mut next: impl FnMut() -> Option<Item<'a>>,
    ) {
        let until = self.cost + PART_COST;
        while self.cost < until
            && let Some(item) = next()
        {
            match self.run(item) {
                Outcome::Answered(envelope, answer) => batch.push(&envelope, &answer),
                Outcome::Silent => {}
                Outcome::Waits(envelope, what, form) => {
                    let place = batch.push_missing();
                    self.submit(now, envelope, what, form, Some((id, place)));
                }
            }
        }
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

    fn submit(
        &mut self,
        now: Now,
        envelope: Envelope<'_>,
        what: Submission,
        form: Form,
        batch: Option<(u64, usize)>,
    ) {
        let id = SubmissionId(self.next_submission);
        self.next_submission += 1;
        let envelope = envelope.into_owned();
        self.waiting.insert(id, Waiting { envelope, form, batch, since: now.instant });
        self.outputs.push_back(Output::Submit { id, what });
    }

    /// What the wallet is told of a failing store.
    fn fault(&mut self, error: Error) -> RpcError {
        if let Some(height) = error.damaged_block() {
            // The operator is told by who fetches it, once and not at each question.
            return RpcError::unavailable(format!(
                "block {height} is damaged on this server and is being fetched again, ask again in a minute"
            ));
        }
        if error.is_outdated() {
            // The view that tells of it is on its way.
            return RpcError::unavailable("the chain was just reorganised, ask again");
        }
        self.outputs.push_back(Output::Fault(error));
        RpcError::unavailable("the index cannot be read")
    }

    fn send(&mut self, mut line: String) {
        line.push('\n');
        self.outputs.push_back(Output::Send(Bytes::from(line)));
    }

    fn close_if_done(&mut self) {
        if self.stage == Stage::InputEnded && self.waiting.is_empty() && self.rest.is_none() {
            self.close();
        }
    }

    fn close(&mut self) {
        self.stage = Stage::Closed;
        self.outputs.push_back(Output::Close);
    }
}
