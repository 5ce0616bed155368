//! One wallet's connection: moves lines between a wire and `electrum::Session`.
//!
//! A session answers from the view that it holds and is given the next ones as they come. A wallet that does not
//! read is paused, then dropped: what waits for it is bounded, a megabyte and one answer.

use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bitcoin::Txid;
use bytes::{Bytes, BytesMut};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};
use tracing::error;

use super::super::clock::Clock;
use super::Shared;
use super::sessions::Seat;
use super::views::Subscriber;
use super::wire::Wire;
use crate::electrum::transport::LineDecoder;
use crate::electrum::{self, BroadcastId, Output, Session};
use crate::node::{BroadcastError, Publication};
use crate::query::Touched;

/// What may wait for one wallet before it is neither read from nor given news; an answer may still pass it.
const PAUSE_AT_BYTES: usize = 1024 * 1024;
/// How long a wallet may take no byte of what waits for it.
const SLOW_READER: Duration = Duration::from_secs(60);
/// An empty buffer that grew past this is given back.
const KEEP_BYTES: usize = 16 * 1024;

/// What the node says about a broadcast.
pub type BroadcastReply = oneshot::Sender<Result<(), BroadcastError>>;

/// A wallet's transaction on its way to the node.
#[derive(Debug)]
pub struct BroadcastRequest {
    pub raw: Bytes,
    pub reply: BroadcastReply,
}

/// One wallet's connection.
#[derive(Debug)]
pub struct Talk<'a> {
    clock: Clock,
    seat: &'a Seat,
    session: Session,
    views: Subscriber,
    updates: broadcast::Receiver<Publication>,
    broadcasts: mpsc::Sender<BroadcastRequest>,
    replies: JoinSet<Reply>,
    lines: LineDecoder,
    /// Until the wallet closes its side.
    input_open: bool,
    /// Lines that the wire has not taken yet.
    outgoing: BytesMut,
    /// When the wire last took some, or had nothing to take.
    moved_at: Instant,
    /// Requests of which the register of sessions knows.
    told_requests: u64,
}

/// Bytes that the wire took, or brought.
enum Moved {
    Out(usize),
    In(usize),
}

/// What comes back of a broadcast.
type Reply = (BroadcastId, Result<Txid, electrum::BroadcastError>);

impl<'a> Talk<'a> {
    /// A session with the view of now; `None` when the node has failed.
    pub fn new(shared: &Shared, seat: &'a Seat) -> Option<Self> {
        let (view, updates) = shared.views.subscribe()?;
        Some(Self {
            clock: shared.clock,
            seat,
            session: Session::new(shared.views.server.clone(), view, shared.clock.now(), fastrand::u64(..)),
            lines: LineDecoder::new(shared.views.server.limits.request_bytes),
            views: shared.views.clone(),
            updates,
            broadcasts: shared.broadcasts.clone(),
            replies: JoinSet::new(),
            input_open: true,
            outgoing: BytesMut::new(),
            moved_at: Instant::now(),
            told_requests: 0,
        })
    }

    /// Until either side has enough; says why.
    pub async fn run(mut self, mut wire: impl Wire) -> String {
        match self.converse(&mut wire).await {
            Ok(why) => {
                // Whoever does not read what is left for him loses it.
                let _ = timeout(SLOW_READER, self.finish(&mut wire)).await;
                why.into()
            }
            Err(error) => error.to_string(),
        }
    }

    /// Why there is nothing more to say, or what broke the connection.
    async fn converse(&mut self, wire: &mut impl Wire) -> io::Result<&'static str> {
        // Whether lines may have arrived that are not answered.
        let mut unanswered = false;
        loop {
            if self.take_outputs() {
                return Ok("done");
            }
            // A wallet that does not read is not read from either, and gets no news until it does.
            let has_room = self.outgoing.len() < PAUSE_AT_BYTES;
            // A burst of requests is answered one by one, so that no more waits than the last answer over the limit.
            if unanswered && has_room {
                unanswered = self.take_line();
                continue;
            }
            self.tell();
            let waits = !self.outgoing.is_empty() || wire.holds_some();
            if !waits {
                self.moved_at = Instant::now();
            }
            let listens = has_room && !unanswered && self.input_open;
            tokio::select! {
                moved = poll_fn(|cx| poll(cx, wire, waits.then_some(&mut self.outgoing), listens.then_some(&mut self.lines))), if waits || listens => match moved? {
                    Moved::Out(count) => {
                        self.seat.sent(count);
                        self.moved_at = Instant::now();
                        self.give_back_buffer();
                    }
                    Moved::In(0) => {
                        self.input_open = false;
                        self.session.handle_end_of_input(self.clock.now());
                    }
                    Moved::In(count) => {
                        self.seat.received(count);
                        unanswered = true;
                    }
                },
                () = sleep_until(self.moved_at + SLOW_READER), if waits => {
                    return Err(io::Error::new(io::ErrorKind::TimedOut, "does not read its answers"));
                }
                update = self.updates.recv(), if has_room => match update {
                    Ok(Publication { view, touched }) => {
                        self.session.handle_view(self.clock.now(), view, &touched);
                    }
                    // Nobody kept count of what changed in between.
                    Err(RecvError::Lagged(_)) => self.missed_views(),
                    Err(RecvError::Closed) => return Ok("shutting down"),
                },
                Some(reply) = self.replies.join_next(), if !self.replies.is_empty() => {
                    if let Ok((id, result)) = reply {
                        self.session.handle_broadcast_result(self.clock.now(), id, result);
                    }
                }
            }
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

    /// Answers the next line that has arrived; `false` when there is none.
    fn take_line(&mut self) -> bool {
        match self.lines.next_line() {
            Ok(Some(line)) => self.session.handle_line(self.clock.now(), line),
            Ok(None) => return false,
            Err(_) => {
                self.session.handle_line_too_long(self.clock.now());
                return false;
            }
        }
        true
    }

    fn missed_views(&mut self) {
        if let Some((view, updates)) = self.views.subscribe() {
            self.updates = updates;
            self.session.handle_view(self.clock.now(), view, &Touched::Everything);
        }
    }

    /// `true` once the session wants to close.
    fn take_outputs(&mut self) -> bool {
        while let Some(output) = self.session.poll() {
            match output {
                Output::Send(line) => self.outgoing.extend_from_slice(&line),
                Output::Broadcast { id, txid, raw } => {
                    let broadcasts = self.broadcasts.clone();
                    self.replies.spawn(async move { (id, broadcast(broadcasts, txid, raw).await) });
                }
                Output::Interest(_) => {}
                Output::Fault(fault) => {
                    error!(wallet = %self.seat.origin(), %fault, "the store failed while answering a wallet");
                }
                Output::Close => return true,
            }
        }
        false
    }

    /// One large answer must not cost memory for as long as the wallet stays.
    fn give_back_buffer(&mut self) {
        if self.outgoing.is_empty() && self.outgoing.capacity() > KEEP_BYTES {
            self.outgoing = BytesMut::new();
        }
    }
}

/// Writes before it reads: what was answered makes room for the next request.
fn poll(
    context: &mut Context<'_>,
    wire: &mut impl Wire,
    outgoing: Option<&mut BytesMut>,
    lines: Option<&mut LineDecoder>,
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

async fn broadcast(
    broadcasts: mpsc::Sender<BroadcastRequest>,
    txid: Txid,
    raw: Bytes,
) -> Result<Txid, electrum::BroadcastError> {
    let (reply, answer) = oneshot::channel();
    let stopping = || electrum::BroadcastError::Unavailable("shutting down".into());
    broadcasts.send(BroadcastRequest { raw, reply }).await.map_err(|_| stopping())?;
    match answer.await {
        Ok(Ok(())) => Ok(txid),
        Ok(Err(error @ BroadcastError::NoPeers)) => {
            Err(electrum::BroadcastError::Unavailable(error.to_string()))
        }
        Err(_) => Err(stopping()),
    }
}
