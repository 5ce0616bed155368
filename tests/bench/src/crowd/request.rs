//! Requests as bytes, and what answers say at a glance.

use std::io::Write;

use anyhow::{Context, anyhow};
use bitcoin::hashes::{Hash as _, HashEngine, sha256};
use bitcoin::hex::{DisplayHex, FromHex};
use serde::Deserialize;

use super::scripts::Hash;
use crate::load::connection::{id, is_result};

/// The version of the protocol that the crowd speaks: the first in which one can unsubscribe.
pub const VERSION: &str = "[\"crowd\",\"1.4.2\"]";

/// Appends a request; the parameters are JSON.
pub fn write(out: &mut Vec<u8>, id: u64, method: &str, parameters: &str) {
    writeln!(out, r#"{{"jsonrpc":"2.0","id":{id},"method":"{method}","params":{parameters}}}"#)
        .expect("memory takes all");
}

/// The only parameter.
pub fn one(hash: &Hash) -> String {
    format!("[\"{}\"]", hash.to_lower_hex_string())
}

/// What a line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    Result(u64),
    Refusal(u64),
    Notification,
}

pub fn said(line: &[u8]) -> Said {
    match id(line) {
        Some(id) if is_result(line) => Said::Result(id),
        Some(id) => Said::Refusal(id),
        None => Said::Notification,
    }
}

/// The start of a line, for messages.
pub fn start(line: &[u8]) -> String {
    String::from_utf8_lossy(&line[..line.len().min(200)]).into_owned()
}

#[derive(Deserialize)]
struct Answer<R> {
    result: R,
}

pub fn result<'a, R: Deserialize<'a>>(line: &'a [u8]) -> anyhow::Result<R> {
    let answer = serde_json::from_slice::<Answer<R>>(line);
    answer.map(|answer| answer.result).map_err(|error| anyhow!("{error}: {}", start(line)))
}

/// The status that a subscription was answered with.
pub fn status(line: &[u8]) -> anyhow::Result<Option<Hash>> {
    let text: Option<&str> = result(line)?;
    text.map(|text| <[u8; 32]>::from_hex(text).with_context(|| start(line))).transpose()
}

/// One entry of a history.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct Entry<'a> {
    pub height: i64,
    pub tx_hash: &'a str,
}

/// The status that a history stands for.
pub fn status_of<'a>(history: impl IntoIterator<Item = Entry<'a>>) -> Option<Hash> {
    let mut engine = sha256::Hash::engine();
    for entry in history {
        engine.input(format!("{}:{}:", entry.tx_hash, entry.height).as_bytes());
    }
    (engine.n_bytes_hashed() > 0).then(|| sha256::Hash::from_engine(engine).to_byte_array())
}
