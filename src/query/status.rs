//! The status of a script: the digest of its history by which wallets see that something changed.
//!
//! A long history is hashed once: what is [`Known`] of it holds the state of the hash at its end, and only what came
//! later is read and hashed. Who keeps what is known, and for how many scripts, is for the caller to say.
//! Source: electrum-protocol, "Status" (protocol basics).

use std::fmt::{self, Write as _};

use bitcoin::hashes::{Hash as _, HashEngine as _, sha256};
use bitcoin::{BlockHash, Txid};
use chainstore::{Height, ScriptHash, TxNum};

use super::history::push_txid;
use super::{Error, UnconfirmedEntry, View};

/// Digest of a script's history: two of them are equal when the histories are.
pub type Status = sha256::Hash;

/// The confirmed part of a history as far as it was hashed.
#[derive(Clone)]
pub struct Known {
    /// The tip at which it was taken.
    tip: BlockHash,
    height: u32,
    /// The number that the first transaction above that tip had.
    end: TxNum,
    entries: usize,
    engine: sha256::HashEngine,
}

impl fmt::Debug for Known {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Known({} entries at {})", self.entries, self.tip)
    }
}

impl Known {
    /// The status at that time with `unconfirmed` after it; `None` where both are empty.
    pub fn status(&self, unconfirmed: &[UnconfirmedEntry]) -> Option<Status> {
        if self.entries == 0 && unconfirmed.is_empty() {
            return None;
        }
        let (mut engine, mut text) = (self.engine.clone(), String::new());
        for entry in unconfirmed {
            push_entry(&mut text, &mut engine, &entry.txid, entry.height.number());
        }
        Some(Status::from_engine(engine))
    }

    /// Entries of the history.
    pub fn entries(&self) -> usize {
        self.entries
    }
}

/// A script's history is longer than is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLong;

impl View {
    /// The confirmed part of the script's history, beginning with what was known of it.
    ///
    /// Refused where it has more than `limit` entries.
    pub fn known(
        &self,
        script: &ScriptHash,
        before: Option<Known>,
        limit: usize,
    ) -> Result<Result<Known, TooLong>, Error> {
        let Some(tip) = self.snapshot.tip() else { return Ok(Err(TooLong)) };
        if let Some(known) = &before
            && known.tip == tip.hash
        {
            return Ok(if known.entries > limit { Err(TooLong) } else { Ok(known.clone()) });
        }
        let before = match before {
            Some(before) if self.has_block(before.height, before.tip)? => Some(before),
            _ => None,
        };
        // Mostly a block or two came since, and nothing else needs to be looked at.
        let added = match &before {
            Some(before) => self.snapshot.history_numbers_above(script, Height(before.height))?,
            None => None,
        };
        let (before, numbers) = match (before, added) {
            (Some(before), Some(added)) => (Some(before), added),
            (before, _) => {
                let mut numbers = self.snapshot.history_numbers(script)?;
                // Equal coinbases (BIP30) take an entry away without a reorg: then the count differs.
                let end = before.as_ref().map_or(TxNum(0), |before| before.end);
                let below = numbers.partition_point(|number| *number < end);
                let before = before.filter(|before| before.entries == below);
                if before.is_some() {
                    numbers.drain(..below);
                }
                (before, numbers)
            }
        };
        let (entries, mut engine) =
            before.map_or_else(Default::default, |before| (before.entries, before.engine));
        let entries = entries + numbers.len();
        if entries > limit {
            return Ok(Err(TooLong));
        }
        let mut text = String::new();
        for entry in self.snapshot.history_entries(&numbers)? {
            push_entry(&mut text, &mut engine, &entry.txid, i64::from(entry.height.0));
        }
        let end = self.snapshot.end_tx();
        Ok(Ok(Known { tip: tip.hash, height: tip.height.0, end, entries, engine }))
    }
}

impl View {
    /// Whether a block is part of the connected chain. Mostly it is the one below the tip, which needs no hashing.
    fn has_block(&self, height: u32, hash: BlockHash) -> Result<bool, Error> {
        if let (Some(connected), Some(tip)) = (self.snapshot.tip(), self.tip())
            && tip.hash == connected.hash
            && height.checked_add(1) == Some(tip.height.0)
        {
            return Ok(tip.header.prev_blockhash == hash);
        }
        if self.snapshot.tip().is_none_or(|tip| height > tip.height.0) {
            return Ok(false);
        }
        let header = self.snapshot.header(Height(height))?;
        Ok(header.is_some_and(|header| header.block_hash() == hash))
    }
}

/// The status of a history in its order: SHA-256 of `txid:height:` for each entry; `None` for an empty one.
///
/// An unconfirmed transaction has height 0, or -1 with an unconfirmed input.
pub fn status_of(history: impl IntoIterator<Item = (Txid, i64)>) -> Option<Status> {
    let mut history = history.into_iter().peekable();
    history.peek()?;
    let mut engine = sha256::Hash::engine();
    let mut text = String::new();
    for (txid, height) in history {
        push_entry(&mut text, &mut engine, &txid, height);
    }
    Some(sha256::Hash::from_engine(engine))
}

fn push_entry(text: &mut String, engine: &mut sha256::HashEngine, txid: &Txid, height: i64) {
    text.clear();
    push_txid(text, txid);
    // Writing to a string does not fail.
    let _ = write!(text, ":{height}:");
    engine.input(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use bitcoin::{Amount, OutPoint, ScriptBuf};

    use super::*;
    use crate::query::testing::{Chain, transaction};

    fn status(history: &[(&str, i64)]) -> Option<String> {
        status_of(history.iter().map(|(txid, height)| (txid.parse().unwrap(), *height)))
            .map(|status| status.to_string())
    }

    #[test]
    fn an_empty_history_has_no_status() {
        assert_eq!(status(&[]), None);
    }

    #[test]
    fn statuses_are_those_of_the_vectors() {
        let vectors = include_str!("../../fixtures/electrum/script-status.json");
        let vectors: serde_json::Value = serde_json::from_str(vectors).unwrap();
        let vectors = vectors.as_array().unwrap();
        assert_eq!(vectors.len(), 3);
        for vector in vectors {
            let entry = |entry: &serde_json::Value| {
                let txid = entry["txid"].as_str().unwrap().to_owned();
                (txid, entry["height"].as_i64().unwrap())
            };
            let history: Vec<_> = vector["input"].as_array().unwrap().iter().map(entry).collect();
            let history: Vec<_> = history.iter().map(|(txid, height)| (txid.as_str(), *height)).collect();
            assert_eq!(status(&history).as_deref(), vector["expected"].as_str());
        }
    }

    #[test]
    fn the_worked_example_of_the_protocol_has_its_status() {
        let history = [
            ("a6c9c361bd0bc536d6a22648efbf8f9b200e425ef6c3a7a9669dc444c532a347", 2472),
            ("9c42f84b2fcdaff676ba25d9d4941741cc0d1a01cce0c23fdc4c0b2afa38431c", 2473),
            ("770f2d4371b3fabb902dd9a103e2dd005fcd3971181078fca4a2a1d6ff127b30", 2473),
            ("80b19848aed792565ab7c5a79b7c2a00fbf985741579396ebe0ab6098e607311", 0),
            ("e02a1dadfa83b996b24175df807b271ea5d02937ef5b35c195fac1e1bdc3198f", 0),
            ("bb4c8ab438c13b89ca80d1d5bee25b0b6b7f55673f4d801998ba97db161d9e85", -1),
        ];
        let expected = "78e96c6562cafa71c115503b9411fdfdc595a45031e2ab76ff75162fe1b0590d";
        assert_eq!(status(&history).as_deref(), Some(expected));
    }

    #[test]
    fn what_is_known_is_gone_on_with_and_dropped_after_a_reorg() {
        let mut chain = Chain::mainnet(3);
        let script = ScriptBuf::from_bytes(vec![0x51]);
        let hash = ScriptHash::of(&script);
        let mut known: Option<Known> = None;
        let mut random = fastrand::Rng::with_seed(7);
        let mut height: u32 = 3;
        for step in 0..60 {
            if random.u8(..).is_multiple_of(4) && height > 4 {
                for _ in 0..random.u32(1..3) {
                    chain.undo();
                    height -= 1;
                }
            }
            let coinbase = chain.forge(if random.bool() { script.clone() } else { ScriptBuf::new() }, &[]);
            height += 1;
            if random.bool() {
                let spend = transaction(
                    &[(OutPoint::new(coinbase, 0), ScriptBuf::new())],
                    &[(Amount::ONE_BTC, script.clone())],
                );
                chain.forge(ScriptBuf::new(), &[spend]);
                height += 1;
            }
            let (view, _) = chain.commit();
            let fresh = view.known(&hash, None, 1_000).unwrap().unwrap();
            let history = view.history(&hash).unwrap();
            let expected = status_of(history.iter().map(|entry| (entry.txid, i64::from(entry.height.0))));
            assert_eq!(fresh.status(&[]), expected, "step {step}");
            let gone_on = view.known(&hash, known.take(), 1_000).unwrap().unwrap();
            assert_eq!(gone_on.status(&[]), expected, "step {step}, gone on");
            assert_eq!(gone_on.entries(), history.len());
            assert_eq!(
                view.known(&hash, Some(gone_on.clone()), history.len()).unwrap().unwrap().status(&[]),
                expected
            );
            if !history.is_empty() {
                for before in [None, Some(gone_on.clone())] {
                    assert_eq!(view.known(&hash, before, history.len() - 1).unwrap().err(), Some(TooLong));
                }
            }
            // Sometimes what is known is older than the last view.
            if !random.u8(..).is_multiple_of(3) {
                known = Some(gone_on);
            }
        }
    }

    #[test]
    fn what_is_known_ends_in_what_no_block_has() {
        let mut chain = Chain::mainnet(3);
        let script = ScriptBuf::from_bytes(vec![0x51]);
        let hash = ScriptHash::of(&script);
        let pay = |coin, btc| {
            transaction(&[(coin, ScriptBuf::new())], &[(Amount::from_int_btc(btc), script.clone())])
        };
        let coins = [0; 2].map(|_| OutPoint::new(chain.forge(script.clone(), &[]), 0));
        let parents = coins.map(|coin| chain.receive(&pay(coin, 49)));
        let child = chain.receive(&pay(OutPoint::new(parents[0], 0), 48));
        let mut waiting = parents.map(|txid| (txid.to_string(), 0));
        waiting.sort();
        let status_of_it = |chain: &mut Chain| {
            let (view, _) = chain.commit();
            let known = view.known(&hash, None, 100).unwrap().unwrap();
            known.status(&view.unconfirmed(&hash)).map(|status| status.to_string())
        };

        let [first, second] = coins.map(|coin| coin.txid.to_string());
        let child = child.to_string();
        let history = [(&*first, 4), (&*second, 5), (&*waiting[0].0, 0), (&*waiting[1].0, 0), (&*child, -1)];
        assert_eq!(status_of_it(&mut chain), status(&history));

        chain.forge_of(ScriptBuf::new(), &[parents[0]]);
        let (mined, left) = (parents[0].to_string(), parents[1].to_string());
        let mut waiting = [(&*child, 0), (&*left, 0)];
        waiting.sort();
        let history = [(&*first, 4), (&*second, 5), (&*mined, 6), waiting[0], waiting[1]];
        assert_eq!(status_of_it(&mut chain), status(&history));
    }

    #[test]
    fn a_script_that_only_the_mempool_knows_has_a_status() {
        let mut chain = Chain::mainnet(3);
        let (alice, bob) = (ScriptBuf::from_bytes(vec![0x51]), ScriptBuf::from_bytes(vec![0x52]));
        let coin = OutPoint::new(chain.forge(alice, &[]), 0);
        let txid =
            chain.receive(&transaction(&[(coin, ScriptBuf::new())], &[(Amount::ONE_BTC, bob.clone())]));
        let (view, _) = chain.commit();
        let hash = ScriptHash::of(&bob);
        let known = view.known(&hash, None, 100).unwrap().unwrap();
        let heard = known.status(&view.unconfirmed(&hash)).map(|status| status.to_string());
        assert_eq!((known.entries(), heard), (0, status(&[(&txid.to_string(), 0)])));
        assert_eq!(known.status(&[]), None);
    }
}
