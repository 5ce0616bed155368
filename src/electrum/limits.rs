//! What one session, and all together, may ask for: sizes and counts.
//!
//! Meanings and defaults are ElectrumX's where it has such a setting. What requests cost and who is made to wait is
//! `cost`'s part.

use std::time::Duration;

/// The settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Longest answer, newline included (`MAX_SEND`). Electrum takes 8.1 MB.
    pub response_bytes: usize,
    /// Longest request, newline included (`MAX_RECV`).
    pub request_bytes: usize,
    /// Requests of one batch that are answered.
    pub batch: usize,
    /// Scripts, addresses and outpoints that one session may subscribe to.
    pub session_subscriptions: usize,
    /// How long a request may wait for others, such as a broadcast for peers (`REQUEST_TIMEOUT`).
    pub request_time: Duration,
    /// How long a session may say nothing (`SESSION_TIMEOUT`).
    pub session_time: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            response_bytes: 8_100_000,
            request_bytes: 1_000_000,
            batch: 1_000,
            session_subscriptions: 100_000,
            request_time: Duration::from_secs(30),
            session_time: Duration::from_secs(600),
        }
    }
}

impl Limits {
    /// The least that an answer may be allowed, as in ElectrumX.
    pub const MIN_RESPONSE_BYTES: usize = 350_000;

    /// Entries of a history that is still answered: one takes some 99 bytes, and the envelope 100.
    pub fn history_entries(&self) -> usize {
        self.response_bytes.saturating_sub(100) / 99
    }

    /// What of an answer's bytes, or a batch's, is left for it: its newline, and the brackets of a batch, are not.
    pub(super) fn message_bytes(&self) -> usize {
        self.response_bytes.saturating_sub(10)
    }
}
