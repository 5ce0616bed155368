//! What can be asked, in which protocol version, with which arguments.
//!
//! `table` has one row for each meaning a name has had. It drives the dispatch and is printed into
//! `docs/protocol.md`, so neither can lag behind. How a question is answered stands in the `answer_*` files.
//! Source: electrum-protocol, "Protocol Methods", "Protocol Changes" and "Removed Methods".

mod table;

use std::fmt::Write as _;

use crate::mempool::Submission;

use super::error::RpcError;
use super::json::Json;
use super::params::Args;
use super::session::Context;
use super::version::ProtocolVersion;
use table::METHODS;

/// A question that a wallet can ask.
#[derive(Debug)]
pub struct Method {
    pub name: &'static str,
    /// First and last protocol version that knows it.
    pub since: ProtocolVersion,
    pub until: ProtocolVersion,
    pub params: &'static [Param],
    pub extra: Extra,
    pub serves: Serves,
    pub cost: Cost,
    /// The result in words, for the documentation.
    pub result: &'static str,
    pub(super) answer: fn(&mut Context<'_>, &Args<'_>) -> Result<Reply, Failure>,
}

/// What an answer costs its session, in ElectrumX's units: about what a hundredth of a second of its server was.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cost {
    pub base: f64,
    /// For each unit that the answer counts.
    pub each: f64,
    /// What is counted, in words; empty where nothing is.
    pub unit: &'static str,
}

impl Cost {
    pub(super) fn of(&self, units: usize) -> f64 {
        self.base + self.each * units as f64
    }
}

/// An argument of a method.
#[derive(Debug)]
pub struct Param {
    pub name: &'static str,
    /// Another name that is understood.
    pub alias: Option<&'static str>,
    /// JSON text of what an absent argument means; `None` when it may not be absent.
    pub default: Option<&'static str>,
}

/// What happens to arguments that a method does not take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extra {
    Refused,
    /// Later versions may add some to `server.version`, before the version is known.
    Ignored,
}

/// When a method is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Serves {
    /// From the start: needs headers at most.
    Always,
    /// Once all blocks are there; until then it is error 2.
    Synced,
}

/// What becomes of a request.
#[derive(Debug)]
pub(super) enum Reply {
    Now(Json),
    /// Answered when the mempool and the peers have seen it, or could not.
    Submit(Submission, super::broadcast::Form),
    /// The error is answered, and the connection closed.
    Last(RpcError),
}

impl From<Json> for Reply {
    fn from(result: Json) -> Self {
        Self::Now(result)
    }
}

/// Why a request is not answered.
#[derive(Debug)]
pub(super) enum Failure {
    /// The wallet's to know.
    Refused(RpcError),
    /// The operator's to know.
    Store(crate::query::Error),
}

impl From<RpcError> for Failure {
    fn from(error: RpcError) -> Self {
        Self::Refused(error)
    }
}

impl From<crate::query::Error> for Failure {
    fn from(error: crate::query::Error) -> Self {
        Self::Store(error)
    }
}

/// All methods of all versions; a name comes once for each meaning it has had.
pub fn methods() -> &'static [Method] {
    METHODS
}

/// The method of that name in a version of the protocol.
pub(super) fn find(name: &str, version: ProtocolVersion) -> Option<&'static Method> {
    METHODS.get(place_of(name, version)?)
}

/// Its place among [`methods`].
pub(super) fn place_of(name: &str, version: ProtocolVersion) -> Option<usize> {
    METHODS.iter().position(|method| method.name == name && (method.since..=method.until).contains(&version))
}

/// The table as Markdown, for `docs/protocol.md`.
pub fn document() -> String {
    let mut out =
        String::from("| method | versions | while syncing | cost | result |\n|---|---|---|---|---|\n");
    for method in METHODS {
        let params: Vec<String> = method
            .params
            .iter()
            .map(|param| match param.default {
                None => param.name.to_owned(),
                Some(default) => format!("{}={default}", param.name),
            })
            .collect();
        let versions = match (method.since, method.until) {
            (ProtocolVersion::MIN, ProtocolVersion::MAX) => "all".to_owned(),
            (since, ProtocolVersion::MAX) => format!("from {since}"),
            (ProtocolVersion::MIN, until) => format!("to {until}"),
            (since, until) if since == until => since.to_string(),
            (since, until) => format!("{since} to {until}"),
        };
        let syncing = match method.serves {
            Serves::Always => "yes",
            Serves::Synced => "error 2",
        };
        let Cost { base, each, unit } = method.cost;
        let cost = if unit.is_empty() { base.to_string() } else { format!("{base} + {each} per {unit}") };
        // Writing to a string cannot fail.
        let _ = writeln!(
            out,
            "| `{}({})` | {versions} | {syncing} | {cost} | {} |",
            method.name,
            params.join(", "),
            method.result
        );
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_one_meaning_in_a_version() {
        for version in ProtocolVersion::ALL {
            for method in METHODS {
                let known = |other: &&Method| {
                    other.name == method.name && (other.since..=other.until).contains(&version)
                };
                assert!(METHODS.iter().filter(known).count() <= 1, "{} in {version}", method.name);
            }
        }
    }

    #[test]
    fn versions_know_different_methods() {
        let known = |name, version| find(name, version).is_some();
        use ProtocolVersion::{V1_0, V1_1, V1_2, V1_3, V1_4, V1_4_2, V1_4_3, V1_6, V1_7};
        for (name, first, last) in [
            ("blockchain.numblocks.subscribe", V1_0, V1_0),
            ("blockchain.utxo.get_address", V1_0, V1_0),
            ("blockchain.address.get_history", V1_0, V1_2),
            ("blockchain.block.get_chunk", V1_0, V1_3),
            ("blockchain.block.get_header", V1_0, V1_3),
            ("blockchain.headers.subscribe", V1_0, V1_7),
            ("server.features", V1_1, V1_7),
            ("blockchain.scripthash.get_history", V1_1, V1_6),
            ("server.ping", V1_2, V1_7),
            ("blockchain.block.headers", V1_2, V1_7),
            ("blockchain.block.header", V1_3, V1_7),
            ("blockchain.transaction.id_from_pos", V1_4, V1_7),
            ("blockchain.scriptpubkey.subscribe", V1_7, V1_7),
            ("blockchain.outpoint.get_status", V1_7, V1_7),
            ("mempool.recent", V1_7, V1_7),
        ] {
            for version in ProtocolVersion::ALL {
                assert_eq!(known(name, version), (first..=last).contains(&version), "{name} in {version}");
            }
        }
        assert!(!known("blockchain.scripthash.unsubscribe", V1_4));
        assert!(known("blockchain.scripthash.unsubscribe", V1_4_2));
        assert!(!known("mempool.get_info", V1_4_3));
        assert!(known("mempool.get_info", V1_6));
        assert!(!known("no.such.method", V1_6));
    }

    #[test]
    fn pitfall_12_relayfee_is_answered_in_every_version() {
        for version in ProtocolVersion::ALL {
            assert!(find("blockchain.relayfee", version).is_some(), "{version}");
        }
    }

    /// `UPDATE_DOCS=1 cargo test --lib docs_show` writes the table anew.
    #[test]
    fn the_docs_show_this_table() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/protocol.md");
        let page = std::fs::read_to_string(path).unwrap();
        let (head, rest) = page.split_once("<!-- methods -->\n").unwrap();
        let (table, tail) = rest.split_once("<!-- end of methods -->\n").unwrap();
        if std::env::var_os("UPDATE_DOCS").is_some() {
            let table = document();
            std::fs::write(path, format!("{head}<!-- methods -->\n{table}<!-- end of methods -->\n{tail}"))
                .unwrap();
            return;
        }
        assert_eq!(table, document(), "docs/protocol.md is old: run with UPDATE_DOCS=1");
    }
}
