//! What a wallet asks of a script, the chain's part of it: history, balance, unspent outputs.

use bitcoin::hashes::Hash as _;
use bitcoin::{Amount, OutPoint, Txid};
use chainstore::{HistoryEntry, ScriptHash, Unspent};

use super::{Error, TooLong, View};

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

    /// The same, refused where it has more than `limit` entries.
    pub fn history_within(
        &self,
        script: &ScriptHash,
        limit: usize,
    ) -> Result<Result<Vec<HistoryEntry>, TooLong>, Error> {
        let numbers = self.snapshot.history_numbers(script)?;
        if numbers.len() > limit {
            return Ok(Err(TooLong));
        }
        Ok(Ok(self.snapshot.history_entries(&numbers)?))
    }

    /// What the script's confirmed outputs are worth, and how many there are.
    pub fn balance(&self, script: &ScriptHash) -> Result<(Amount, usize), Error> {
        Ok(self.snapshot.balance(script)?)
    }

    /// The script's confirmed outputs in chain order that nothing spends, confirmed or not.
    pub fn unspent(&self, script: &ScriptHash) -> Result<Vec<Unspent>, Error> {
        let mut unspent = self.snapshot.unspent(script)?;
        if self.unconfirmed_count(script) > 0 {
            unspent.retain(|output| {
                let outpoint = OutPoint::new(output.txid, output.vout);
                self.mempool.spender(&outpoint).is_none()
            });
        }
        Ok(unspent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_txid_is_written_as_it_is_shown() {
        let txid = Txid::hash(b"any");
        let mut text = String::from(">");
        push_txid(&mut text, &txid);
        assert_eq!(text, format!(">{txid}"));
    }
}
