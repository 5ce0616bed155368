//! Plays the dialogues of `fixtures/electrum/`, which `fixtures/electrum/README.md` explains.
//!
//! `UPDATE_TRANSCRIPTS=1 cargo test --lib transcripts` writes down what comes now: read the difference.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use bitcoin::{Amount, ScriptBuf, Transaction, Txid, Wtxid};
use serde_json::Value;

use crate::electrum::ProtocolVersion;
use crate::electrum::methods::methods;
use crate::mempool::{FeeRate, Outcome, PackageMember, PackageOutcome, Taken, Tested};
use crate::query::testing::transaction;
use crate::time::Now;

use super::wallet::Wallet;

fn dialogues() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/electrum");
    let mut paths: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "jsonl"));
    paths.sort();
    assert!(paths.len() >= 16, "transcripts are missing");
    paths
}

/// A method in a version of its row, answered with a result, and with an error.
#[test]
fn every_row_of_the_table_is_in_a_dialogue_with_an_answer_and_an_error() {
    let mut heard = BTreeSet::new();
    for path in dialogues() {
        let text = std::fs::read_to_string(path).unwrap();
        let (mut version, mut asked) = (ProtocolVersion::UNSAID, None);
        for line in text.lines() {
            match line.split_once(' ') {
                Some(("@", what)) if what == "connect" || what.starts_with("mainnet") => {
                    version = ProtocolVersion::UNSAID;
                }
                Some((">", request)) => {
                    let request: Option<Value> = serde_json::from_str(request).ok();
                    asked = request.and_then(|request| Some(request.get("method")?.as_str()?.to_owned()));
                }
                Some(("<", answer)) => {
                    let answer: Value = serde_json::from_str(answer).unwrap_or_default();
                    let Some(method) = asked.take() else { continue };
                    let is_error = answer.get("error").is_some();
                    if method == "server.version" && !is_error {
                        let said = &answer["result"];
                        let said = said.get(1).and_then(Value::as_str).unwrap_or("1.0");
                        version = ProtocolVersion::negotiate(said, said).unwrap();
                    }
                    heard.insert((method, version, is_error));
                }
                _ => {}
            }
        }
    }
    // What takes no arguments and cannot fail has no error of its own beside theirs, and that of a broadcast in 1.0
    // is a result.
    for method in methods() {
        for is_error in [false, true] {
            let is_heard = heard.iter().any(|(name, version, failed)| {
                name == method.name
                    && (method.since..=method.until).contains(version)
                    && (*failed == is_error || method.until == ProtocolVersion::V1_0)
            });
            let (since, until) = (method.since, method.until);
            assert!(is_heard, "{} of {since} to {until}: no dialogue, error {is_error}", method.name);
        }
    }
}

#[test]
fn dialogues_go_as_written() {
    let paths = dialogues();
    let mut played = Vec::new();
    for path in &paths {
        let written = std::fs::read_to_string(path).unwrap();
        played.push((path, play(&written), written));
    }
    if std::env::var_os("UPDATE_TRANSCRIPTS").is_some() {
        for (path, heard, _) in &played {
            std::fs::write(path, heard).unwrap();
        }
        return;
    }
    for (path, heard, written) in &played {
        for (number, (heard, written)) in heard.lines().zip(written.lines()).enumerate() {
            assert_eq!(heard, written, "{} line {}", path.display(), number + 1);
        }
        assert_eq!(heard, written, "{}", path.display());
    }
}

/// The dialogue with what really came back in the place of what is written.
fn play(written: &str) -> String {
    let mut wallet: Option<Wallet> = None;
    let mut heard = String::new();
    for line in written.lines() {
        let (kind, rest) = line.split_once(' ').unwrap_or((line, ""));
        let outputs = match kind {
            "<" | "!" => continue,
            "#" | "" => Vec::new(),
            ">" => wallet.as_mut().unwrap().send(rest.as_bytes()),
            "@" => happens(&mut wallet, rest),
            _ => panic!("what is {line}?"),
        };
        heard.push_str(line);
        heard.push('\n');
        for output in outputs {
            heard.push_str(&output);
            heard.push('\n');
        }
    }
    heard
}

/// Something in the world that is not said by the wallet.
fn happens(slot: &mut Option<Wallet>, what: &str) -> Vec<String> {
    let words: Vec<&str> = what.split(' ').collect();
    if let ["mainnet", height] = words[..] {
        *slot = Some(Wallet::at(height.parse().unwrap()));
        return Vec::new();
    }
    let wallet = slot.as_mut().unwrap();
    match words[..] {
        ["connect"] => {
            wallet.reconnect();
            Vec::new()
        }
        ["mine", count] => {
            (0..count.parse().unwrap()).for_each(|_: u32| wallet.chain.mine());
            wallet.commit()
        }
        ["reorg", depth] => {
            let depth: u32 = depth.parse().unwrap();
            (0..depth).for_each(|_| wallet.chain.undo());
            (0..=depth).for_each(|_| {
                wallet.chain.forge(ScriptBuf::new(), &[]);
            });
            wallet.commit()
        }
        ["reorg", depth, "to", "mempool"] => {
            let depth: u32 = depth.parse().unwrap();
            (0..depth).for_each(|_| wallet.chain.undo_to_mempool());
            (0..=depth).for_each(|_| {
                wallet.chain.forge(ScriptBuf::new(), &[]);
            });
            wallet.commit()
        }
        ["unconfirmed", txid] => {
            let transaction = wallet.chain.upcoming(&txid.parse().unwrap());
            wallet.chain.receive(&transaction);
            wallet.commit()
        }
        ["spend", coins, "to", outputs] => {
            let txid = wallet.chain.receive(&made_up(coins, outputs));
            let mut heard = vec![format!("! unconfirmed {txid}")];
            heard.extend(wallet.commit());
            heard
        }
        ["evict", txid] => {
            wallet.chain.evict(&txid.parse().unwrap());
            wallet.commit()
        }
        ["block", "of", ref txids @ ..] => {
            let txids: Vec<Txid> = txids.iter().map(|txid| txid.parse().unwrap()).collect();
            wallet.chain.forge_of(ScriptBuf::new(), &txids);
            wallet.commit()
        }
        ["blocks", "paid", ref rates @ ..] => {
            let rates = rates.iter().flat_map(|rate| {
                let (count, rate) = rate.split_once('x').unwrap();
                vec![rate.parse().unwrap(); count.parse().unwrap()]
            });
            wallet.chain.blocks_paid(&rates.collect::<Vec<u64>>());
            wallet.commit()
        }
        ["headers", count] => {
            wallet.chain.learn_headers(count.parse().unwrap());
            wallet.commit()
        }
        ["syncing", percent, secs] => wallet.commit_syncing(percent.parse().unwrap(), secs.parse().unwrap()),
        ["synced"] => wallet.commit(),
        ["peers", "take", "it"] => wallet.peers_take_it(),
        ["refused:", ..] => wallet.comes_of_it(|_| Outcome::Rejected(after_colon(what))),
        ["nobody", "hears:", ..] => wallet.comes_of_it(|_| Outcome::Unavailable(after_colon(what))),
        ["package", "taken"] => wallet.comes_of_it(|txids| package(txids, None)),
        ["package", "refused:", ..] => wallet.comes_of_it(|txids| package(txids, Some(after_colon(what)))),
        ["tested:", ..] => wallet.comes_of_it(|txids| tested(txids, &after_colon(what))),
        ["end", "of", "input"] => {
            wallet.session.handle_end_of_input(Now::default());
            wallet.outputs()
        }
        ["line", "too", "long"] => {
            wallet.session.handle_line_too_long(Now::default());
            wallet.outputs()
        }
        ["repeat", count, ref request @ ..] => {
            let request = request.join(" ");
            let batch = format!("[{}]", vec![request; count.parse().unwrap()].join(","));
            let seen = wallet.send(batch.as_bytes());
            // Too long to write down: the number of bytes, and how it ends.
            seen.iter()
                .map(|seen| format!("< {} bytes, ending in {}", seen.len(), &seen[seen.len() - 90..]))
                .collect()
        }
        _ => panic!("what is {what}?"),
    }
}

/// A transaction that spends `TXID:VOUT,...` to `SCRIPT=SATOSHI,...`.
fn made_up(coins: &str, outputs: &str) -> Transaction {
    let coins = coins.split(',').map(|coin| (coin.parse().unwrap(), ScriptBuf::new()));
    let outputs = outputs.split(',').map(|output| {
        let (script, value) = output.split_once('=').unwrap();
        (Amount::from_sat(value.parse().unwrap()), ScriptBuf::from_hex(script).unwrap())
    });
    transaction(&coins.collect::<Vec<_>>(), &outputs.collect::<Vec<_>>())
}

fn after_colon(what: &str) -> String {
    what.split_once(": ").unwrap().1.to_owned()
}

/// A package of which all was taken, or the last was refused.
fn package(txids: &[Txid], refused: Option<String>) -> Outcome {
    let member = |txid: &Txid| PackageMember {
        txid: *txid,
        wtxid: Wtxid::from_raw_hash(txid.to_raw_hash()),
        other_wtxid: None,
        result: Ok(Taken {
            vsize: 110,
            fee: Amount::from_sat(220),
            effective: Some((FeeRate(2_000), vec![Wtxid::from_raw_hash(txid.to_raw_hash())])),
        }),
    };
    let mut transactions: Vec<PackageMember> = txids.iter().map(member).collect();
    let mut message = "success".to_owned();
    if let Some(reason) = refused {
        transactions.last_mut().unwrap().result = Err(reason);
        message = "transaction failed".to_owned();
    }
    Outcome::Package(PackageOutcome { message, transactions, replaced: vec![txids[0]] })
}

/// The first is allowed if nothing is said of it, the others were not judged.
fn tested(txids: &[Txid], reason: &str) -> Outcome {
    let reason = (reason != "good").then(|| reason.to_owned());
    let first = |at: usize| (at == 0).then_some(reason.is_none());
    Outcome::Tested(
        txids
            .iter()
            .enumerate()
            .map(|(at, txid)| Tested {
                txid: *txid,
                wtxid: Wtxid::from_raw_hash(txid.to_raw_hash()),
                allowed: first(at),
                reason: reason.clone().filter(|_| at == 0),
            })
            .collect(),
    )
}
