//! Answers that go out together, and what becomes of one that is too long.
//!
//! Knows sizes and order; which requests are answered by what, `session` knows.

use super::error::RpcError;
use super::json::Json;
use super::jsonrpc::{Envelope, Item, Request};

/// The answers of one batch, in the order of its requests.
#[derive(Debug)]
pub(super) struct Batch {
    /// `None` is one that is still missing.
    answers: Vec<Option<String>>,
    missing: usize,
    /// Answers to the requests past the limit, which come last.
    refusals: Vec<String>,
    /// What is left beyond the least that each answer takes.
    room_bytes: usize,
    max_bytes: usize,
}

impl Batch {
    /// A batch that will answer `items` in at most `max_bytes` less its brackets, and refuses `excess`.
    pub(super) fn new(items: &[Item<'_>], excess: &[Envelope<'_>], max_bytes: usize) -> Self {
        let least = |item: &Item<'_>| match item {
            Item::Request(Request { envelope, .. }) | Item::Refused(envelope, _) => {
                least_bytes(envelope, max_bytes)
            }
            Item::Notification(_) => 0,
        };
        let too_long = Err(RpcError::invalid_request("batch too long"));
        let refusals: Vec<String> = excess.iter().map(|envelope| envelope.answer(&too_long)).collect();
        let refused_bytes: usize = refusals.iter().map(|refusal| refusal.len() + 1).sum();
        let spoken_for = refused_bytes + items.iter().map(least).sum::<usize>();
        let room_bytes = max_bytes.saturating_sub(spoken_for);
        Self { answers: Vec::new(), missing: 0, refusals, room_bytes, max_bytes }
    }

    /// The answer to the next request.
    pub(super) fn push(&mut self, envelope: &Envelope<'_>, answer: &Result<Json, RpcError>) {
        let index = self.push_missing();
        self.fill(index, envelope, answer);
    }

    /// The next request is answered later; its place.
    pub(super) fn push_missing(&mut self) -> usize {
        self.missing += 1;
        self.answers.push(None);
        self.answers.len() - 1
    }

    /// The answer that was missing at `index`.
    pub(super) fn fill(&mut self, index: usize, envelope: &Envelope<'_>, answer: &Result<Json, RpcError>) {
        let Some(slot @ None) = self.answers.get_mut(index) else { return };
        let room_bytes = self.room_bytes + least_bytes(envelope, self.max_bytes);
        let text = bounded(envelope, answer, room_bytes - 1, self.max_bytes);
        self.room_bytes = room_bytes.saturating_sub(text.len() + 1);
        self.missing -= 1;
        *slot = Some(text);
    }

    pub(super) fn is_whole(&self) -> bool {
        self.missing == 0
    }

    /// All answers as one list; `None` for a batch of notifications, which gets not even an empty one.
    pub(super) fn into_line(self) -> Option<String> {
        let answers: Vec<String> = self.answers.into_iter().flatten().chain(self.refusals).collect();
        (!answers.is_empty()).then(|| format!("[{}]", answers.join(",")))
    }
}

/// A single answer, or an error in its place when it is too long.
pub(super) fn single(envelope: &Envelope<'_>, answer: &Result<Json, RpcError>, max_bytes: usize) -> String {
    bounded(envelope, answer, max_bytes, max_bytes)
}

/// The answer, or where it has no room an error that names the limit.
fn bounded(
    envelope: &Envelope<'_>,
    answer: &Result<Json, RpcError>,
    room_bytes: usize,
    max_bytes: usize,
) -> String {
    let text = envelope.answer(answer);
    if text.len() > room_bytes { too_large(envelope, max_bytes) } else { text }
}

fn too_large(envelope: &Envelope<'_>, max_bytes: usize) -> String {
    envelope.answer(&Err(too_large_error(max_bytes)))
}

/// What is said in the place of an answer that is too long.
pub(super) fn too_large_error(max_bytes: usize) -> RpcError {
    RpcError::invalid_request(format!("response too large (over {max_bytes} bytes)"))
}

/// What the shortest answer in a batch takes, with the comma after it.
fn least_bytes(envelope: &Envelope<'_>, max_bytes: usize) -> usize {
    too_large(envelope, max_bytes).len() + 1
}
