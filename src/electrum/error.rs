//! What a wallet is told when it cannot have what it asked for.
//!
//! Codes and texts are those that wallets know: they match some by their words, so a text here is part of the
//! protocol. Source: ElectrumX and aiorpcX, as listed in `docs/protocol.md`.

/// An error as the wallet sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RpcError {
    pub code: i32,
    pub message: String,
}

/// Not JSON, or not UTF-8.
const PARSE_ERROR: i32 = -32700;
/// JSON, but no request; or one over a limit.
const INVALID_REQUEST: i32 = -32600;
/// No such method in the session's protocol version.
const METHOD_NOT_FOUND: i32 = -32601;
/// Wrong number or names of parameters.
const INVALID_PARAMS: i32 = -32602;
/// A parameter has a bad value, or the network's rules forbid what was asked.
const BAD_REQUEST: i32 = 1;
/// What lies behind the server cannot answer: syncing, unknown transaction, no peers.
const UNAVAILABLE: i32 = 2;
/// The session, or those of its neighbours, asked for more than it may.
const EXCESSIVE: i32 = -101;
/// Too much at once.
const BUSY: i32 = -102;
/// A history with more entries than are answered.
const HISTORY_TOO_LARGE: i32 = 10001;

impl RpcError {
    fn new(code: i32, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    pub(super) fn parse(message: &str) -> Self {
        Self::new(PARSE_ERROR, message)
    }

    pub(super) fn invalid_request(message: impl Into<String>) -> Self {
        Self::new(INVALID_REQUEST, message)
    }

    pub(super) fn unknown_method(method: &str) -> Self {
        Self::new(METHOD_NOT_FOUND, format!("unknown method \"{}\"", shortened(method)))
    }

    pub(super) fn invalid_params(message: impl Into<String>) -> Self {
        Self::new(INVALID_PARAMS, message)
    }

    pub(super) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(BAD_REQUEST, message)
    }

    pub(super) fn unavailable(message: impl Into<String>) -> Self {
        Self::new(UNAVAILABLE, message)
    }

    pub(super) fn busy(message: &str) -> Self {
        Self::new(BUSY, message)
    }

    /// The connection is closed after it.
    pub(super) fn excessive() -> Self {
        Self::new(EXCESSIVE, "excessive resource usage")
    }

    pub(super) fn too_many_subscriptions(message: &str) -> Self {
        Self::new(EXCESSIVE, format!("excessive resource usage: {message}"))
    }

    /// Electrum knows these words, and leaves the server.
    pub(super) fn history_too_large() -> Self {
        Self::new(HISTORY_TOO_LARGE, "history too large")
    }

    /// Whether it is the wallet that did something wrong.
    pub(super) fn is_the_wallets(&self) -> bool {
        !matches!(self.code, UNAVAILABLE | BUSY)
    }
}

/// `text`, cut where it would only fill the wallet's log.
pub(super) fn shortened(text: &str) -> String {
    /// A script hash or txid and some more.
    const MAX_CHARS: usize = 100;
    match text.char_indices().nth(MAX_CHARS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_does_not_repeat_a_megabyte_of_nonsense() {
        assert_eq!(shortened("short"), "short");
        assert_eq!(shortened(&"é".repeat(500_000)), format!("{}…", "é".repeat(100)));
    }
}
