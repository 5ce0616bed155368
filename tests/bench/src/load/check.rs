//! Compares a whole answer with the truth.

use anyhow::{Context, bail, ensure};
use bitcoin::Txid;
use bitcoin::hashes::{Hash, HashEngine, sha256, sha256d};
use bitcoin::hex::{DisplayHex, FromHex};
use serde::Deserialize;
use serde_json::Value;

use super::known::Known;
use super::question::{Method, Question};
use crate::truth::{Script, Transaction};

#[derive(Deserialize)]
struct Entry<'a> {
    height: u32,
    tx_hash: &'a str,
}

#[derive(Deserialize)]
struct Unspent<'a> {
    tx_hash: &'a str,
    tx_pos: u32,
    height: u32,
    value: u64,
}

#[derive(Deserialize)]
struct Balance {
    confirmed: u64,
    unconfirmed: i64,
}

/// What `get_merkle` answers.
#[derive(Debug, Deserialize)]
pub struct Proof<'a> {
    block_height: u32,
    #[serde(borrow)]
    merkle: Vec<&'a str>,
    pos: u32,
}

#[derive(Deserialize)]
struct Answer<R> {
    result: R,
}

/// Whether the line answers the question as the forge would.
pub fn check(known: &Known, question: &Question, line: &[u8]) -> anyhow::Result<()> {
    let subject = question.subject;
    match question.method {
        Method::History => history(&known.scripts[subject], result(line)?),
        Method::Balance => balance(&known.scripts[subject], &result(line)?),
        Method::Unspent => unspent(&known.scripts[subject], result(line)?),
        Method::Subscribe => status(&known.scripts[subject], result(line)?),
        Method::Transaction => transaction(known, &known.transactions[subject], result(line)?),
        Method::Merkle => proof(known, &known.transactions[subject], &result(line)?),
        Method::Header => {
            let header: &str = result(line)?;
            ensure!(header == known.header(subject).to_lower_hex_string(), "{header} is not the header");
            Ok(())
        }
    }
}

fn result<'a, R: Deserialize<'a>>(line: &'a [u8]) -> anyhow::Result<R> {
    serde_json::from_slice::<Answer<R>>(line).map(|answer| answer.result).map_err(|error| {
        // An error of the server's says more than that there is no result.
        let answer: Value = serde_json::from_slice(line).unwrap_or_default();
        let start = String::from_utf8_lossy(&line[..line.len().min(200)]);
        match answer.get("error") {
            Some(refusal) => anyhow::anyhow!("refused: {refusal}"),
            None => anyhow::anyhow!("{error}: {start}"),
        }
    })
}

fn history(script: &Script, answer: Vec<Entry<'_>>) -> anyhow::Result<()> {
    let (count, known) = (answer.len(), script.history.len());
    ensure!(count == known, "{count} entries instead of {known}");
    for (place, (entry, (height, txid))) in answer.iter().zip(&script.history).enumerate() {
        ensure!(
            entry.height == *height && entry.tx_hash == txid,
            "entry {place} is {} at {} instead of {txid} at {height}",
            entry.tx_hash,
            entry.height
        );
    }
    Ok(())
}

fn balance(script: &Script, answer: &Balance) -> anyhow::Result<()> {
    let known: u64 = script.unspent.iter().map(|(.., value)| value).sum();
    ensure!(answer.confirmed == known, "{} confirmed instead of {known}", answer.confirmed);
    ensure!(answer.unconfirmed == 0, "{} unconfirmed", answer.unconfirmed);
    Ok(())
}

fn unspent(script: &Script, answer: Vec<Unspent<'_>>) -> anyhow::Result<()> {
    let (count, known) = (answer.len(), script.unspent.len());
    ensure!(count == known, "{count} outputs instead of {known}");
    for (place, (output, known)) in answer.iter().zip(&script.unspent).enumerate() {
        let (txid, vout, height, value) = known;
        ensure!(
            output.tx_hash == txid
                && output.tx_pos == *vout
                && output.height == *height
                && output.value == *value,
            "output {place} is {}:{} at {} with {} instead of {txid}:{vout} at {height} with {value}",
            output.tx_hash,
            output.tx_pos,
            output.height,
            output.value
        );
    }
    Ok(())
}

fn status(script: &Script, answer: Option<&str>) -> anyhow::Result<()> {
    let known = known_status(script);
    ensure!(answer == known.as_deref(), "{answer:?} instead of {known:?}");
    Ok(())
}

/// SHA-256 of `txid:height:` for each entry.
pub fn known_status(script: &Script) -> Option<String> {
    if script.history.is_empty() {
        return None;
    }
    let mut engine = sha256::Hash::engine();
    for (height, txid) in &script.history {
        engine.input(format!("{txid}:{height}:").as_bytes());
    }
    Some(sha256::Hash::from_engine(engine).to_byte_array().to_lower_hex_string())
}

fn transaction(known: &Known, transaction: &Transaction, answer: &str) -> anyhow::Result<()> {
    let raw = known.raw(transaction)?;
    ensure!(answer == raw.to_lower_hex_string(), "other bytes than in the chain");
    let hashed = bitcoin::consensus::deserialize::<bitcoin::Transaction>(&raw)?.compute_txid();
    ensure!(hashed.to_string() == transaction.txid, "the bytes in the chain are of {hashed}");
    Ok(())
}

fn proof(known: &Known, transaction: &Transaction, answer: &Proof<'_>) -> anyhow::Result<()> {
    ensure!(answer.pos == transaction.position, "a proof for position {}", answer.pos);
    proof_of(known, &transaction.txid, transaction.height, answer)
}

/// Whether a proof shows that the transaction is in the block, wherever in it.
pub fn proof_of(known: &Known, txid: &str, height: u32, answer: &Proof<'_>) -> anyhow::Result<()> {
    ensure!(answer.block_height == height, "a proof for height {}", answer.block_height);
    let mut node = txid.parse::<Txid>()?.to_byte_array();
    let mut place = answer.pos;
    for sibling in &answer.merkle {
        let mut sibling = <[u8; 32]>::from_hex(sibling).with_context(|| sibling.to_string())?;
        // As people see hashes.
        sibling.reverse();
        let (left, right) = if place & 1 == 0 { (node, sibling) } else { (sibling, node) };
        node = sha256d::Hash::hash(&[left, right].concat()).to_byte_array();
        place >>= 1;
    }
    if place != 0 || node != known.header(height as usize)[36..68] {
        bail!("the proof does not lead to the block's Merkle root");
    }
    Ok(())
}
