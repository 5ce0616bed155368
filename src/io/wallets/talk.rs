//! One wallet's connection: moves lines between a wire and `electrum::Session`.
//!
//! A session answers from the view that it holds and is given the next ones as they come. A wallet that does not
//! read is paused, then dropped: what waits for it is bounded, a megabyte and one answer.

use std::future::poll_fn;
use std::io;
use std::task::ready;
use std::time::Duration;

use bitcoin::Txid;
use bytes::{Bytes, BytesMut};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};
use tracing::error;

use super::super::clock::Clock;
use super::listener::Shared;
use super::views::Subscriber;
use super::wire::{WireReader, WireWriter};
use crate::electrum::transport::{LineDecoder, Origin};
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
pub struct Talk {
    clock: Clock,
    origin: Origin,
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
}

/// What comes back of a broadcast.
type Reply = (BroadcastId, Result<Txid, electrum::BroadcastError>);

impl Talk {
    /// A session with the view of now; `None` when the node has failed.
    pub fn new(shared: &Shared, origin: Origin) -> Option<Self> {
        let (view, updates) = shared.views.subscribe()?;
        Some(Self {
            clock: shared.clock,
            origin,
            session: Session::new(shared.views.server.clone(), view, shared.clock.now(), fastrand::u64(..)),
            views: shared.views.clone(),
            updates,
            broadcasts: shared.broadcasts.clone(),
            replies: JoinSet::new(),
            lines: LineDecoder::default(),
            input_open: true,
            outgoing: BytesMut::new(),
            moved_at: Instant::now(),
        })
    }

    /// Until either side has enough; says why.
    pub async fn run(mut self, mut reader: impl WireReader, mut writer: impl WireWriter) -> String {
        match self.converse(&mut reader, &mut writer).await {
            Ok(why) => {
                // Whoever does not read what is left for him loses it.
                let _ = timeout(SLOW_READER, self.finish(&mut writer)).await;
                why.into()
            }
            Err(error) => error.to_string(),
        }
    }

    /// Why there is nothing more to say, or what broke the connection.
    async fn converse(
        &mut self,
        reader: &mut impl WireReader,
        writer: &mut impl WireWriter,
    ) -> io::Result<&'static str> {
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
            let waits = !self.outgoing.is_empty() || writer.holds_some();
            if !waits {
                self.moved_at = Instant::now();
            }
            tokio::select! {
                written = poll_fn(|cx| writer.poll_write(cx, &mut self.outgoing)), if waits => {
                    written?;
                    self.moved_at = Instant::now();
                    self.give_back_buffer();
                }
                () = sleep_until(self.moved_at + SLOW_READER), if waits => {
                    return Err(io::Error::new(io::ErrorKind::TimedOut, "does not read its answers"));
                }
                read = poll_fn(|cx| reader.poll_read(cx, &mut self.lines)),
                    if has_room && !unanswered && self.input_open => match read? {
                    0 => {
                        self.input_open = false;
                        self.session.handle_end_of_input(self.clock.now());
                    }
                    _ => unanswered = true,
                },
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

    /// Sends what is left, then says goodbye.
    async fn finish(&mut self, writer: &mut impl WireWriter) -> io::Result<()> {
        poll_fn(|cx| {
            while !self.outgoing.is_empty() || writer.holds_some() {
                ready!(writer.poll_write(cx, &mut self.outgoing))?;
            }
            writer.poll_close(cx)
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
                    error!(wallet = %self.origin, %fault, "the store failed while answering a wallet");
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
