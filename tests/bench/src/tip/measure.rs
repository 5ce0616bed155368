//! Blocks announced one by one to a synced server, and the time until a wallet has heard of each.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use bitcoin::Block;
use serde_json::json;

use super::stand::Stand;
use super::touched;
use crate::sync::watch::Wallet;

/// Longest wait for a block's notifications.
const PATIENCE: Duration = Duration::from_secs(300);

/// The error of a script that cannot be subscribed to.
const HISTORY_TOO_LARGE: i64 = 10_001;

/// What one block took, from the moment its last byte was handed to the socket.
#[derive(Clone, Copy, Debug)]
pub struct Taken {
    pub height: usize,
    pub transactions: usize,
    /// Until the new header was told.
    pub header: Duration,
    /// Until the first of the touched scripts was told, and the last.
    pub first: Duration,
    pub last: Duration,
    /// From the announcement until the block was asked for and handed over.
    pub asked: Duration,
}

/// Announces the next block, and waits until the wallet was told of it and of `scripts` scripts.
pub fn announce(
    stand: &mut Stand,
    wallet: &mut Wallet,
    scripts: usize,
    rng: &mut fastrand::Rng,
) -> anyhow::Result<Taken> {
    let served = stand.coming.first().context("no more blocks are prepared")?;
    let block: Block = bitcoin::consensus::deserialize(&served.read()?)?;
    let found = touched::some(&block, scripts * 2, rng);
    let mut hashes: Vec<&str> = Vec::new();
    for hash in &found {
        if hashes.len() == scripts {
            break;
        }
        let answer = wallet.call("blockchain.scripthash.subscribe", &json!([hash]))?;
        // Of a few scripts the history is longer than any answer.
        if answer["error"]["code"] != json!(HISTORY_TOO_LARGE) {
            ensure!(answer["error"].is_null(), "{answer}");
            hashes.push(hash);
        }
    }
    let mut waiting: HashSet<&str> = hashes.iter().copied().collect();
    let announced = Instant::now();
    let (height, served) = stand.announce()?;
    let (mut header, mut first, mut last) = (None, None, announced);
    while header.is_none() || !waiting.is_empty() {
        let notice = wallet.notice(announced + PATIENCE)?;
        let notice = notice.with_context(|| format!("block {height} does not reach the wallet"))?;
        match notice.method.as_str() {
            "blockchain.headers.subscribe" if notice.parameters[0]["height"] == json!(height) => {
                header = Some(notice.at);
            }
            "blockchain.scripthash.subscribe"
                if notice.parameters[0].as_str().is_some_and(|hash| waiting.remove(hash)) =>
            {
                first.get_or_insert(notice.at);
                last = notice.at;
            }
            _ => {}
        }
    }
    for hash in &hashes {
        wallet.call("blockchain.scripthash.unsubscribe", &json!([hash]))?;
    }
    let sent = stand.peer.sent(&served.hash).context("a block that nobody asked for")?;
    let since =
        |moment: Option<Instant>| moment.map_or(Duration::ZERO, |at| at.saturating_duration_since(sent));
    Ok(Taken {
        height,
        transactions: block.txdata.len(),
        header: since(header),
        first: since(first),
        last: since(Some(last)),
        asked: sent.saturating_duration_since(announced),
    })
}

/// Of some times: the one below which so many of a thousand are, the largest at 1,000.
pub fn quantile(times: &mut [Duration], thousandths: usize) -> Duration {
    times.sort_unstable();
    let place = (times.len() * thousandths).div_ceil(1_000).clamp(1, times.len().max(1));
    times.get(place - 1).copied().unwrap_or_default()
}
