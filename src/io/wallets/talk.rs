//! One wallet's connection: moves lines between a wire and `electrum::Session`.
//!
//! A session answers from the newest view, and is woken when a change concerns it. What it asks for is charged, and
//! its next request waits where that was much. A wallet that does not read is paused, then dropped: what waits for it
//! is bounded, a megabyte and one answer.

use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::BytesMut;
use futures_util::FutureExt as _;
use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinSet, yield_now};
use tokio::time::{Instant, sleep_until, timeout};
use tracing::error;

use super::super::clock::Clock;
use super::Shared;
use super::accounts::Account;
use super::hub::{Hub, Mailbox, News};
use super::sessions::Seat;
use super::wire::Wire;
use crate::electrum::transport::{Framing, LineDecoder, Padder};
use crate::electrum::{Output, Session, SubmissionId};
use crate::mempool::{Outcome, Submission};
use crate::time::Now;

/// What may wait for one wallet before it is neither read from nor given news; an answer may still pass it.
const PAUSE_AT_BYTES: usize = 1024 * 1024;
/// How long a wallet may take no byte of what waits for it.
const SLOW_READER: Duration = Duration::from_secs(60);
/// What the requests that a session answers may cost before others have their turn on its thread: some ten of the usual
/// ones, or one that is dear. By the clock alone, whoever the system interrupts would lose his turn.
const TURN_COST: f64 = 10.0;
/// How long it may take in any case: blocks may lie on a slow disk.
const TURN: Duration = Duration::from_millis(10);
/// An empty buffer that grew past this is given back.
const KEEP_BYTES: usize = 16 * 1024;

/// Where what became of a submission is awaited.
pub type SubmissionReply = oneshot::Sender<Outcome>;

/// What a wallet handed in, on its way to the node.
#[derive(Debug)]
pub struct SubmissionRequest {
    pub what: Submission,
    pub reply: SubmissionReply,
}

/// One wallet's connection.
#[derive(Debug)]
pub struct Talk<'a> {
    clock: Clock,
    seat: &'a Seat,
    account: Account,
    session: Session,
    hub: Arc<Hub>,
    mailbox: Arc<Mailbox>,
    /// Number of the view that the session answers from.
    seen: u64,
    submissions: mpsc::Sender<SubmissionRequest>,
    replies: JoinSet<Reply>,
    lines: LineDecoder,
    /// Until the wallet closes its side.
    input_open: bool,
    /// The next request waits until then, as those before it cost so much.
    turn: Option<Instant>,
    /// Fills up what is sent, where the operator wants that.
    padder: Option<Padder>,
    /// Lines that the wire has not taken yet.
    outgoing: BytesMut,
    /// When the wire last took some, or had nothing to take.
    moved_at: Instant,
    /// When others last had their turn on this thread, and what was answered since has cost.
    yielded_at: Instant,
    turn_cost: f64,
    /// Requests of which the register of sessions knows.
    told_requests: u64,
}

/// Bytes that the wire took, or brought.
enum Moved {
    Out(usize),
    In(usize),
}

/// What comes back of a submission.
type Reply = (SubmissionId, Outcome);

impl<'a> Talk<'a> {
    /// A session with the view of now.
    pub fn new(shared: &Shared, seat: &'a Seat, account: Account) -> Self {
        let now = shared.clock.now();
        let (mailbox, News { number, view, .. }) = shared.hub.join(seat.id());
        let framing =
            if seat.origin().transport.is_websocket() { Framing::Websocket } else { Framing::Lines };
        Self {
            clock: shared.clock,
            seat,
            account,
            session: Session::new(shared.server.clone(), view, now, fastrand::u64(..)),
            hub: shared.hub.clone(),
            mailbox,
            seen: number,
            submissions: shared.submissions.clone(),
            replies: JoinSet::new(),
            lines: LineDecoder::new(shared.server.limits.request_bytes),
            input_open: true,
            turn: None,
            padder: shared.pads.then(|| Padder::new(framing, now.instant)),
            outgoing: BytesMut::new(),
            moved_at: Instant::now(),
            yielded_at: Instant::now(),
            turn_cost: 0.0,
            told_requests: 0,
        }
    }

    /// Until either side has enough; says why.
    ///
    /// Both are borrowed: a future keeps what it is given twice, and there are ten thousand of them.
    pub async fn run(&mut self, wire: &mut impl Wire) -> String {
        let ended = self.converse(wire).await;
        // Its last requests count too.
        self.tell();
        match ended {
            Ok(why) => {
                if let Some(padder) = &mut self.padder {
                    padder.flush_all(self.clock.now().instant, &mut self.outgoing);
                }
                // Whoever does not read what is left for him loses it.
                let _ = timeout(SLOW_READER, self.finish(wire)).await;
                why.into()
            }
            Err(error) => error.to_string(),
        }
    }

    /// Why there is nothing more to say, or what broke the connection.
    async fn converse(&mut self, wire: &mut impl Wire) -> io::Result<&'static str> {
        // Whether lines may have arrived that are not answered.
        let mut unanswered = false;
        // One for all turns: to make a timer, and to take it back, costs more than what is mostly done between.
        let mut timer = pin!(sleep_until(self.deadline(false, false)));
        loop {
            // A wallet that does not read is not read from either, and gets no news until it does.
            let has_room = self.waiting_bytes() < PAUSE_AT_BYTES;
            if has_room {
                self.take_news();
            }
            if self.take_outputs() {
                return Ok("done");
            }
            let now = Instant::now();
            if unanswered && (self.turn_cost > TURN_COST || now - self.yielded_at > TURN) {
                self.write_at_once(wire)?;
                yield_now().await;
                self.begin_turn();
                continue;
            }
            let is_its_turn = self.turn.is_none_or(|turn| turn <= now);
            // A burst of requests is answered one by one, so that no more waits than the last answer over the limit.
            if unanswered && has_room && is_its_turn {
                unanswered = self.take_line();
                continue;
            }
            self.tell();
            if self.write_at_once(wire)? && !has_room {
                // There may be room now, so it is read from again: nothing else would wake this.
                continue;
            }
            let waits = !self.outgoing.is_empty() || wire.holds_some();
            if !waits {
                self.moved_at = now;
            }
            let listens = has_room && !unanswered && self.input_open;
            let deadline = self.deadline(waits, !is_its_turn);
            if timer.deadline() != deadline {
                timer.as_mut().reset(deadline);
            }
            let (outgoing, lines) = (waits.then_some(&mut self.outgoing), listens.then_some(&mut self.lines));
            let mut halves = (outgoing, lines);
            tokio::select! {
                moved = poll_fn(|cx| poll(cx, wire, &mut halves)), if waits || listens => match moved? {
                    Moved::Out(count) => self.moved_out(count),
                    Moved::In(0) => {
                        self.input_open = false;
                        self.session.handle_end_of_input(self.clock.now());
                    }
                    Moved::In(count) => {
                        self.seat.received(count);
                        unanswered = true;
                    }
                },
                () = self.mailbox.woken(), if has_room => {}
                () = &mut timer => {
                    if waits && self.moved_at + SLOW_READER <= Instant::now() {
                        return Err(io::Error::new(io::ErrorKind::TimedOut, "does not read its answers"));
                    }
                    self.session.handle_timeout(self.clock.now());
                }
                Some(reply) = self.replies.join_next(), if !self.replies.is_empty() => {
                    if let Ok((id, outcome)) = reply {
                        self.session.handle_submitted(self.clock.now(), id, outcome);
                    }
                }
            }
            self.begin_turn();
        }
    }

    /// Writes what the wire takes without waiting, which mostly is all of it; whether it took some.
    fn write_at_once(&mut self, wire: &mut impl Wire) -> io::Result<bool> {
        if self.outgoing.is_empty() {
            return Ok(false);
        }
        let Some(written) = poll_fn(|cx| wire.poll_write(cx, &mut self.outgoing)).now_or_never() else {
            return Ok(false);
        };
        self.moved_out(written?);
        Ok(true)
    }

    /// From now on nobody waits for this session.
    fn begin_turn(&mut self) {
        self.yielded_at = Instant::now();
        self.turn_cost = 0.0;
    }

    /// When something is due although nothing happens.
    fn deadline(&self, waits: bool, throttled: bool) -> Instant {
        let mut deadline = self.clock.deadline(self.session.next_timeout());
        if waits {
            deadline = deadline.min(self.moved_at + SLOW_READER);
        }
        if let Some(turn) = self.turn.filter(|_| throttled) {
            deadline = deadline.min(turn);
        }
        if let Some(due) = self.padder.as_ref().and_then(Padder::next_timeout) {
            deadline = deadline.min(self.clock.deadline(due));
        }
        deadline
    }

    /// What is on its way to the wallet.
    fn waiting_bytes(&self) -> usize {
        self.outgoing.len() + self.padder.as_ref().map_or(0, Padder::held_bytes)
    }

    /// Gives the session what has come since, so that requests are answered from the newest view.
    fn take_news(&mut self) {
        if let Some(News { number, view, touched }) = self.mailbox.take() {
            self.seen = number;
            self.session.handle_view(self.clock.now(), view, &touched);
        }
    }

    /// Writes down for the operator what the session has become.
    fn tell(&mut self) {
        let requests = self.session.counts().requests;
        if requests == self.told_requests {
            return;
        }
        self.told_requests = requests;
        self.seat.learn(|known| {
            if known.client.is_empty() {
                known.client = self.session.client_name().into();
                known.protocol = self.session.version().to_string();
            }
            known.requests = requests;
            known.subscriptions = self.session.subscriptions() as u64;
            known.cost = self.account.owes();
        });
    }

    /// Sends what is left, then says goodbye.
    async fn finish(&mut self, wire: &mut impl Wire) -> io::Result<()> {
        poll_fn(|cx| {
            while !self.outgoing.is_empty() || wire.holds_some() {
                ready!(wire.poll_write(cx, &mut self.outgoing))?;
            }
            wire.poll_close(cx)
        })
        .await
    }

    /// Answers the next line that has arrived, or the next part of a batch; `false` when there is none.
    fn take_line(&mut self) -> bool {
        let now = self.clock.now();
        let before = self.session.counts().requests;
        let mut bytes = 0;
        if self.session.has_more() {
            self.session.handle_turn(now);
        } else {
            match self.lines.next_line() {
                Ok(Some(line)) => {
                    self.seat.show(line);
                    self.session.handle_line(now, line);
                    bytes = line.len();
                }
                Ok(None) => return false,
                Err(_) => {
                    self.session.handle_line_too_long(now);
                    return false;
                }
            }
        }
        self.charge(now, self.account.of_bytes(bytes), self.session.counts().requests - before);
        true
    }

    /// Charges what the session asked for, and lets it wait where that is due.
    fn charge(&mut self, now: Now, bandwidth: f64, requests: u64) {
        if self.session.is_exempt() {
            self.account.exempt();
        }
        let cost = self.session.take_cost() + bandwidth;
        self.turn_cost += cost;
        let standing = self.account.charge(now.instant, cost, self.session.subscriptions());
        if standing.is_excessive {
            self.session.handle_excess();
        }
        let wait = standing.wait.saturating_mul(requests.try_into().unwrap_or(u32::MAX));
        self.turn = (!wait.is_zero()).then(|| Instant::now() + wait);
    }

    /// `true` once the session wants to close.
    fn take_outputs(&mut self) -> bool {
        let mut sent = 0;
        while let Some(output) = self.session.poll() {
            match output {
                Output::Send(line) => {
                    sent += line.len();
                    match &mut self.padder {
                        None => self.outgoing.extend_from_slice(&line),
                        Some(padder) => padder.push(line),
                    }
                }
                Output::Submit { id, what } => {
                    let submissions = self.submissions.clone();
                    self.replies.spawn(async move { (id, submit(submissions, what).await) });
                }
                Output::Interest(change) => {
                    self.hub.change(self.seat.id(), &self.mailbox, self.seen, change);
                }
                Output::Fault(fault) => {
                    error!(wallet = %self.seat.origin(), %fault, "the store failed while answering a wallet");
                }
                Output::Close => return true,
            }
        }
        if sent > 0 {
            let (now, cost) = (self.clock.now(), self.account.of_bytes(sent));
            self.turn_cost += cost;
            self.account.charge(now.instant, cost, self.session.subscriptions());
        }
        if let Some(padder) = &mut self.padder {
            padder.flush(self.clock.now().instant, &mut self.outgoing);
        }
        false
    }

    /// The wire took some bytes.
    fn moved_out(&mut self, count: usize) {
        self.seat.sent(count);
        self.moved_at = Instant::now();
        self.give_back_buffer();
    }

    /// One large answer must not cost memory for as long as the wallet stays.
    fn give_back_buffer(&mut self) {
        if self.outgoing.is_empty() && self.outgoing.capacity() > KEEP_BYTES {
            self.outgoing = BytesMut::new();
        }
    }
}

impl Drop for Talk<'_> {
    fn drop(&mut self) {
        // What it had not told the hub yet: it may end between any two steps.
        while let Some(output) = self.session.poll() {
            if let Output::Interest(change) = output {
                self.hub.change(self.seat.id(), &self.mailbox, self.seen, change);
            }
        }
        self.hub.leave(self.seat.id(), self.session.interests());
    }
}

/// Writes before it reads: what was answered makes room for the next request.
fn poll(
    context: &mut Context<'_>,
    wire: &mut impl Wire,
    (outgoing, lines): &mut (Option<&mut BytesMut>, Option<&mut LineDecoder>),
) -> Poll<io::Result<Moved>> {
    if let Some(outgoing) = outgoing
        && let Poll::Ready(written) = wire.poll_write(context, outgoing)
    {
        return Poll::Ready(written.map(Moved::Out));
    }
    match lines {
        Some(lines) => wire.poll_read(context, lines).map_ok(Moved::In),
        None => Poll::Pending,
    }
}

async fn submit(submissions: mpsc::Sender<SubmissionRequest>, what: Submission) -> Outcome {
    let (reply, answer) = oneshot::channel();
    let outcome = match submissions.send(SubmissionRequest { what, reply }).await {
        Ok(()) => answer.await.ok(),
        Err(_) => None,
    };
    outcome.unwrap_or_else(|| Outcome::Unavailable("shutting down".into()))
}
