//! What a wallet asks of a script: history, status, balance, unspent outputs.
//!
//! Source: electrum-protocol, "Status" (protocol basics).

use std::fmt::Write as _;

use bitcoin::hashes::{Hash as _, HashEngine as _, sha256};
use bitcoin::{Amount, Txid};
use chainstore::{HistoryEntry, ScriptHash, Unspent};

use super::{Error, View};

/// Digest of a script's history: two of them are equal when the histories are.
pub type Status = sha256::Hash;

/// The status of a history in its order: SHA-256 of `txid:height:` for each entry; `None` for an empty one.
///
/// An unconfirmed transaction has height 0, or -1 with an unconfirmed input.
pub fn status_of(history: impl IntoIterator<Item = (Txid, i64)>) -> Option<Status> {
    let mut history = history.into_iter().peekable();
    history.peek()?;
    let mut engine = sha256::Hash::engine();
    let mut text = String::new();
    for (txid, height) in history {
        text.clear();
        push_txid(&mut text, &txid);
        // Writing to a string does not fail.
        let _ = write!(text, ":{height}:");
        engine.input(text.as_bytes());
    }
    Some(sha256::Hash::from_engine(engine))
}

/// Appends a txid as people see it. Histories are made of them: this takes a third of the time of their `Display`.
pub fn push_txid(out: &mut String, txid: &Txid) {
    const DIGITS: [char; 16] =
        ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f'];
    for byte in txid.as_byte_array().iter().rev() {
        out.push(DIGITS[usize::from(byte >> 4)]);
        out.push(DIGITS[usize::from(byte & 15)]);
    }
}

impl View {
    /// Transactions that pay to or spend from a script, each once, in chain order.
    pub fn history(&self, script: &ScriptHash) -> Result<Vec<HistoryEntry>, Error> {
        Ok(self.snapshot.history(script)?)
    }

    /// Digest of the same history; `None` when it is empty.
    pub fn status(&self, script: &ScriptHash) -> Result<Option<Status>, Error> {
        let history = self.history(script)?;
        Ok(status_of(history.iter().map(|entry| (entry.txid, i64::from(entry.height.0)))))
    }

    /// What the script's confirmed outputs are worth.
    pub fn balance(&self, script: &ScriptHash) -> Result<Amount, Error> {
        Ok(self.snapshot.balance(script)?)
    }

    /// The script's unspent outputs in chain order.
    pub fn unspent(&self, script: &ScriptHash) -> Result<Vec<Unspent>, Error> {
        Ok(self.snapshot.unspent(script)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(history: &[(&str, i64)]) -> Option<String> {
        status_of(history.iter().map(|(txid, height)| (txid.parse().unwrap(), *height)))
            .map(|status| status.to_string())
    }

    #[test]
    fn a_txid_is_written_as_it_is_shown() {
        let txid = Txid::hash(b"any");
        let mut text = String::from(">");
        push_txid(&mut text, &txid);
        assert_eq!(text, format!(">{txid}"));
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
}
