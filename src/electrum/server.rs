//! What all sessions of a server have in common: what it says of itself, its limits, and what is kept for all.

use std::collections::BTreeMap;
use std::fmt;

use bitcoin::constants::genesis_block;
use bitcoin::{BlockHash, Network, Txid};
use chainstore::ScriptHash;

use crate::query::Known;

use super::limits::Limits;

/// What all sessions of a server say alike.
#[derive(Debug)]
pub struct Server {
    pub network: Network,
    pub genesis_hash: BlockHash,
    /// It is in a block, but never was a transaction to spend or to ask for. The same for every signet.
    pub genesis_coinbase: Txid,
    /// Name and version. The suffix makes Sparrow send batches: it knows servers by name.
    pub software: String,
    pub banner: String,
    /// Where others reach this server: for each name or address its ports, by what they are called
    /// (`ssl_port`).
    pub hosts: BTreeMap<String, BTreeMap<String, u16>>,
    /// Where users may thank the operator; empty if nowhere.
    pub donation_address: String,
    /// Names of clients that are not served.
    pub drop_client: Option<regex::Regex>,
    /// Whoever shows one of these is not limited.
    pub tokens: Vec<Token>,
    pub limits: Limits,
    pub commons: Box<dyn Commons>,
}

impl Server {
    /// A server of a network, with all settings at their defaults.
    pub fn new(network: Network, genesis_hash: BlockHash, version: &str) -> Self {
        Self {
            network,
            genesis_hash,
            genesis_coinbase: genesis_block(network).txdata[0].compute_txid(),
            software: format!("peerdex/{version} (electrumx-compatible)"),
            banner: format!("peerdex {version}: an Electrum server that needs no Bitcoin node"),
            hosts: BTreeMap::new(),
            donation_address: String::new(),
            drop_client: None,
            tokens: Vec::new(),
            limits: Limits::default(),
            commons: Box::new(NothingShared),
        }
    }

    /// Whether what a request carries (`Bearer TOKEN`) is one of the tokens.
    pub(super) fn knows(&self, authorization: &str) -> bool {
        let given = authorization.strip_prefix("Bearer ").unwrap_or(authorization);
        self.tokens.iter().any(|token| token.is(given))
    }
}

/// What sessions share. The shell keeps it, as it needs locks.
pub trait Commons: fmt::Debug + Send + Sync {
    /// What is known of a script's history.
    fn recall(&self, script: &ScriptHash) -> Option<Known>;

    /// Keeps it for the next who asks, for as long as there is room.
    fn learn(&self, script: &ScriptHash, known: &Known);

    /// Whether there is room for one more subscription in the server.
    fn has_room_to_subscribe(&self) -> bool;

    /// The method at this place of [`methods`](super::methods()) was asked for.
    fn count(&self, place: usize);

    /// How often each was, by name; of those that were asked for.
    fn counts(&self) -> BTreeMap<&'static str, u64>;
}

/// A session that is alone.
#[derive(Debug)]
struct NothingShared;

impl Commons for NothingShared {
    fn recall(&self, _: &ScriptHash) -> Option<Known> {
        None
    }

    fn learn(&self, _: &ScriptHash, _: &Known) {}

    fn has_room_to_subscribe(&self) -> bool {
        true
    }

    fn count(&self, _: usize) {}

    fn counts(&self) -> BTreeMap<&'static str, u64> {
        BTreeMap::new()
    }
}

/// A secret word by which the operator's own wallets are known.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    pub fn new(word: String) -> Self {
        Self(word)
    }

    /// Takes as long whatever the two have in common.
    fn is(&self, given: &str) -> bool {
        let (ours, given) = (self.0.as_bytes(), given.as_bytes());
        ours.len() == given.len() && ours.iter().zip(given).fold(0, |all, (a, b)| all | (a ^ b)) == 0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(secret)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_known_with_or_without_its_scheme() {
        let genesis = genesis_block(Network::Regtest).block_hash();
        let mut server = Server::new(Network::Regtest, genesis, "0");
        assert!(!server.knows("Bearer secret"));
        server.tokens = vec![Token::new("other".into()), Token::new("secret".into())];
        assert!(server.knows("Bearer secret") && server.knows("secret"));
        for wrong in ["", "Bearer ", "Bearer secreT", "Bearer secret ", "Bearer secre", "bearer"] {
            assert!(!server.knows(wrong), "{wrong}");
        }
        assert!(!format!("{:?}", server.tokens).contains("other"));
    }
}
