//! A real bitcoind on regtest: its `testmempoolaccept` and our rules say the same of thousands of transactions, the
//! reason and its details to the character.
//!
//! Bitcoin Knots is started with the rules of Core that it has; which preset of ours is compared goes by the program.
//! `PEERDEX_SEED=n` makes other transactions.

#![allow(clippy::unwrap_used)]

mod chain;
mod coins;
mod forge;
mod room;
mod sequence;
#[path = "../support/mod.rs"]
mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bitcoin::Transaction;
use bitcoin::consensus::encode::serialize;
use bitcoin::hex::DisplayHex;
use serde_json::{Value, json};

use peerdex::mempool::{Mempool, Moment, Policy, ScriptCheck, Unconfirmed};
use peerdex::time::{Instant, Now};

use chain::Chain;
use coins::Coins;
use forge::Forge;
use support::naive::satoshi;
use support::node::{Node, text};

/// Reasons of Core that the cases do not meet there, as the same transactions break another rule first.
const HIDDEN_BY_KNOTS: &[&str] = &["bad-txns-too-many-sigops"];
/// Transactions that each seed makes.
const CASES: usize = 3_000;

/// What is said of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Verdict {
    /// Taken, or refused for a script that failed: those are run elsewhere.
    Passed(Option<Paid>),
    /// The reason, and the reason with its details.
    Refused(String, String),
}

/// Of a transaction that was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Paid {
    fee: u64,
    vsize: u64,
}

/// A node that plays by rules that we have too, and those rules. `of_core` are options that Knots does not have.
fn node(options: &[&str], of_core: &[&str]) -> Option<(Node, Policy)> {
    let program = support::node::bitcoind()?;
    let (more, policy) = if support::node::is_knots(&program) {
        (support::node::KNOTS_OPTIONS, Policy::knots())
    } else {
        (of_core, Policy::core())
    };
    Some((Node::start_without_wallet(&[options, more].concat())?, policy))
}

/// What the node says of each, asked one by one.
fn said_by_node(node: &Node, txs: &[Transaction]) -> Vec<Verdict> {
    let calls: Vec<_> =
        txs.iter().map(|tx| ("testmempoolaccept", json!([[serialize(tx).to_lower_hex_string()]]))).collect();
    let answers = node.rpc_batch(&calls);
    answers.iter().map(|answer| verdict(&answer[0])).collect()
}

fn verdict(answer: &Value) -> Verdict {
    if answer["allowed"] == json!(true) {
        let vsize = answer["vsize"].as_u64().unwrap();
        return Verdict::Passed(Some(Paid { fee: satoshi(&answer["fees"]["base"]), vsize }));
    }
    let reason = text(&answer["reject-reason"]);
    if reason.contains("script-verify-flag") {
        return Verdict::Passed(None);
    }
    // Of missing inputs the node keeps its own word to itself.
    let details = answer.get("reject-details").map_or(reason.clone(), text);
    Verdict::Refused(reason, details)
}

fn said_by_us(mempool: &Mempool, moment: Moment<'_>, tx: &Transaction) -> Verdict {
    let tx = Arc::new(Unconfirmed::parse(&serialize(tx)).unwrap());
    let mut results = mempool.test_accept(&[tx], moment).unwrap();
    match results.remove(0).verdict.unwrap() {
        Ok(taken) => Verdict::Passed(Some(Paid { fee: taken.fee.to_sat(), vsize: taken.vsize })),
        Err(reject) => Verdict::Refused(reject.reason.to_string(), reject.to_string()),
    }
}

/// Both said the same; a node that ran into a bad script has let the rest pass.
fn agree(node: &Verdict, ours: &Verdict) -> bool {
    match (node, ours) {
        (Verdict::Passed(None), Verdict::Passed(_)) => true,
        // That is asked last.
        (Verdict::Passed(None), Verdict::Refused(reason, _)) => reason == "max-fee-exceeded",
        (Verdict::Refused(said, _), Verdict::Refused(reason, _)) if core_word(said) != said => {
            core_word(said) == reason
        }
        // Knots has this one as a rule for blocks.
        (Verdict::Refused(said, _), _) if said == "bad-txns-vout-script-toolarge" => true,
        _ => node == ours,
    }
}

/// Where Knots has words of its own for a rule of Core, those of Core.
fn core_word(reason: &str) -> &str {
    match reason {
        _ if reason.starts_with("bad-txns-input-") => "bad-txns-nonstandard-inputs",
        _ if reason.starts_with("bad-witness-") => "bad-witness-nonstandard",
        _ => reason,
    }
}

#[test]
fn a_transaction_is_refused_for_the_reason_that_the_node_gives() {
    let Some((node, policy)) = node(&[], &[]) else { return };
    let coins = Coins::mined_by(&node);
    let chain = Chain::of(&node);
    let mempool = Mempool::new(policy.clone());
    let now = Now { instant: Instant::default(), unix: 0 };
    let moment = Moment { chain: &chain, now, scripts: ScriptCheck::Trusted };
    let seed = std::env::var("PEERDEX_SEED").map_or(1, |seed| seed.parse().unwrap());
    let mut forge = Forge::new(&chain, &coins, seed);
    let (names, txs): (Vec<_>, Vec<_>) = (0..CASES).map(|_| forge.next()).unzip();

    let said = said_by_node(&node, &txs);

    let mut reasons: BTreeMap<String, usize> = BTreeMap::new();
    let mut differences = Vec::new();
    for ((name, tx), said) in names.iter().zip(&txs).zip(&said) {
        let ours = said_by_us(&mempool, moment, tx);
        if !agree(said, &ours) {
            differences.push(format!("seed {seed}, {name}: node {said:?}, ours {ours:?}"));
        }
        let reason = match said {
            Verdict::Passed(Some(_)) => "taken",
            Verdict::Passed(None) => "script",
            Verdict::Refused(reason, _) => core_word(reason),
        };
        *reasons.entry(reason.to_owned()).or_default() += 1;
    }
    println!("{reasons:#?}");
    let some: Vec<_> = differences.iter().take(20).collect();
    assert!(differences.is_empty(), "{} differ: {some:#?}", differences.len());
    let seen: BTreeSet<&str> = reasons.keys().map(String::as_str).collect();
    let hidden = if policy == Policy::core() { &[][..] } else { HIDDEN_BY_KNOTS };
    let missing: Vec<_> =
        forge::REASONS.iter().filter(|reason| !seen.contains(*reason) && !hidden.contains(reason)).collect();
    assert!(missing.is_empty(), "never seen: {missing:?}");
}
