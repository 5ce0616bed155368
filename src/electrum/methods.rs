//! What can be asked, in which protocol version, with which arguments.
//!
//! The table drives the dispatch and is printed into `docs/protocol.md`, so neither can lag behind. How a
//! question is answered stands in the `answer_*` files. Source: electrum-protocol, "Protocol Methods".

use std::fmt::Write as _;

use super::error::RpcError;
use super::json::Json;
use super::params::Args;
use super::session::Context;
use super::version::ProtocolVersion::{self, V1_4, V1_4_2, V1_4_3, V1_6};
use super::{answer_block, answer_fees, answer_script, answer_server, answer_transaction};

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
    /// The result in words, for the documentation.
    pub result: &'static str,
    pub(super) answer: fn(&mut Context<'_>, &Args<'_>) -> Result<Reply, Failure>,
}

/// An argument of a method.
#[derive(Debug)]
pub struct Param {
    pub name: &'static str,
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
    /// Answered when the peers have been told, or could not be.
    Broadcast(super::broadcast::Checked),
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

const fn needs(name: &'static str) -> Param {
    Param { name, default: None }
}

const fn takes(name: &'static str, default: &'static str) -> Param {
    Param { name, default: Some(default) }
}

/// A method of all versions that needs no block; rows change what differs.
const fn method(
    name: &'static str,
    params: &'static [Param],
    result: &'static str,
    answer: fn(&mut Context<'_>, &Args<'_>) -> Result<Reply, Failure>,
) -> Method {
    let (since, until) = (ProtocolVersion::MIN, ProtocolVersion::MAX);
    Method { name, since, until, params, extra: Extra::Refused, serves: Serves::Always, result, answer }
}

/// The same, but not before all blocks are there.
const fn synced(
    name: &'static str,
    params: &'static [Param],
    result: &'static str,
    answer: fn(&mut Context<'_>, &Args<'_>) -> Result<Reply, Failure>,
) -> Method {
    Method { serves: Serves::Synced, ..method(name, params, result, answer) }
}

const SCRIPT: &[Param] = &[needs("scripthash")];
const HEADERS: &[Param] = &[needs("start_height"), needs("count"), takes("cp_height", "0")];

static METHODS: &[Method] = &[
    Method {
        extra: Extra::Ignored,
        ..method(
            "server.version",
            &[takes("client_name", "\"\""), takes("protocol_version", "\"1.4\"")],
            "`[software, protocol version]`",
            answer_server::version,
        )
    },
    method("server.features", &[], "what the server is, as an object", answer_server::features),
    method("server.banner", &[], "a greeting", answer_server::banner),
    method("server.donation_address", &[], "`\"\"`", answer_server::donation_address),
    method("server.ping", &[], "`null`", answer_server::ping),
    method("server.peers.subscribe", &[], "`[]`: no other servers are known yet", answer_server::peers),
    method(
        "blockchain.headers.subscribe",
        &[],
        "`{height, hex}` of the tip; notifies of each new tip",
        answer_block::subscribe,
    ),
    method(
        "blockchain.block.header",
        &[needs("height"), takes("cp_height", "0")],
        "the header in hex; with *cp_height* `{header, branch, root}`",
        answer_block::header,
    ),
    Method {
        until: V1_4_3,
        ..method(
            "blockchain.block.headers",
            HEADERS,
            "`{hex, count, max}`, and `branch` and `root` of the last with *cp_height*",
            answer_block::headers_joined,
        )
    },
    Method {
        since: V1_6,
        ..method(
            "blockchain.block.headers",
            HEADERS,
            "`{headers, count, max}`, and `branch` and `root` of the last with *cp_height*",
            answer_block::headers_listed,
        )
    },
    synced(
        "blockchain.scripthash.get_balance",
        SCRIPT,
        "`{confirmed, unconfirmed}` in satoshi",
        answer_script::balance,
    ),
    synced(
        "blockchain.scripthash.get_history",
        SCRIPT,
        "list of `{height, tx_hash}` in chain order",
        answer_script::history,
    ),
    synced(
        "blockchain.scripthash.get_mempool",
        SCRIPT,
        "`[]`: there is no mempool yet",
        answer_script::mempool,
    ),
    synced(
        "blockchain.scripthash.listunspent",
        SCRIPT,
        "list of `{tx_hash, tx_pos, height, value}` in chain order, values in satoshi",
        answer_script::unspent,
    ),
    synced(
        "blockchain.scripthash.subscribe",
        SCRIPT,
        "the status, `null` for an empty history; notifies of each change",
        answer_script::subscribe,
    ),
    Method {
        since: V1_4_2,
        ..synced(
            "blockchain.scripthash.unsubscribe",
            SCRIPT,
            "whether there was a subscription",
            answer_script::unsubscribe,
        )
    },
    synced(
        "blockchain.transaction.get",
        &[needs("tx_hash"), takes("verbose", "false")],
        "the transaction in hex; with *verbose* as an object, in Bitcoin Core's words",
        answer_transaction::get,
    ),
    synced(
        "blockchain.transaction.get_merkle",
        &[needs("tx_hash"), needs("height")],
        "`{block_height, merkle, pos}`",
        answer_transaction::merkle,
    ),
    synced(
        "blockchain.transaction.id_from_pos",
        &[needs("height"), needs("tx_pos"), takes("merkle", "false")],
        "the txid; with *merkle* `{tx_hash, merkle}`",
        answer_transaction::id_from_pos,
    ),
    synced(
        "blockchain.transaction.broadcast",
        &[needs("raw_tx")],
        "the txid, once peers were told",
        answer_transaction::broadcast,
    ),
    Method {
        until: V1_4_3,
        ..method("blockchain.estimatefee", &[needs("number")], "`-1`: no data", answer_fees::estimate)
    },
    Method {
        since: V1_6,
        ..method(
            "blockchain.estimatefee",
            &[needs("number"), takes("mode", "null")],
            "`-1`: no data",
            answer_fees::estimate_with_mode,
        )
    },
    method(
        "blockchain.relayfee",
        &[],
        "lowest relayed feerate in BTC/kvB; also in 1.6, where wallets still ask",
        answer_fees::relay_fee,
    ),
    method("mempool.get_fee_histogram", &[], "`[]`: there is no mempool yet", answer_fees::histogram),
    Method {
        since: V1_6,
        ..method(
            "mempool.get_info",
            &[],
            "`{mempoolminfee, minrelaytxfee, incrementalrelayfee}` in BTC/kvB",
            answer_fees::mempool_info,
        )
    },
];

/// All methods of all versions; a name comes once for each meaning it has had.
pub fn methods() -> &'static [Method] {
    METHODS
}

/// The method of that name in a version of the protocol.
pub(super) fn find(name: &str, version: ProtocolVersion) -> Option<&'static Method> {
    METHODS.iter().find(|method| method.name == name && (method.since..=method.until).contains(&version))
}

/// The table as Markdown, for `docs/protocol.md`.
pub fn document() -> String {
    let mut out = String::from("| method | versions | while syncing | result |\n|---|---|---|---|\n");
    for method in METHODS {
        let params: Vec<String> = method
            .params
            .iter()
            .map(|param| match param.default {
                None => param.name.to_owned(),
                Some(default) => format!("{}={default}", param.name),
            })
            .collect();
        let until = if method.until == V1_6 { String::new() } else { format!(" to {}", method.until) };
        let since = if method.since == V1_4 && until.is_empty() {
            "all".to_owned()
        } else {
            method.since.to_string()
        };
        let since = if method.since != V1_4 && until.is_empty() { format!("from {since}") } else { since };
        let syncing = match method.serves {
            Serves::Always => "yes",
            Serves::Synced => "error 2",
        };
        // Writing to a string cannot fail.
        let _ = writeln!(
            out,
            "| `{}({})` | {since}{until} | {syncing} | {} |",
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
