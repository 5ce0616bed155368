//! What a wallet asks of a script, the mempool's part of it.
//!
//! Both parts are taken from one view, whose mempool was made on its tip: a transaction is in a block or here, never
//! in both. Source: electrum-protocol, "Status" and "blockchain.scripthash.get_mempool"; ElectrumX `mempool.py`.

use std::cmp::Reverse;
use std::sync::Arc;

use bitcoin::hashes::Hash as _;
use bitcoin::{Amount, OutPoint, SignedAmount, Txid};
use chainstore::ScriptHash;

use super::View;
use crate::mempool::Entry;

/// What stands for the height of a transaction that no block has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MempoolHeight {
    /// Spends an unconfirmed output: -1.
    OnUnconfirmed,
    /// All that it spends is confirmed: 0.
    OnConfirmed,
}

impl MempoolHeight {
    /// As the protocol writes it.
    pub fn number(self) -> i64 {
        match self {
            Self::OnUnconfirmed => -1,
            Self::OnConfirmed => 0,
        }
    }
}

/// One entry of a script's unconfirmed history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnconfirmedEntry {
    pub txid: Txid,
    pub height: MempoolHeight,
    pub fee: Amount,
}

/// An unconfirmed output that nothing spends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnconfirmedOutput {
    pub outpoint: OutPoint,
    pub value: Amount,
}

impl View {
    /// Unconfirmed transactions that pay to or spend from a script, in the order that a status has them: first those
    /// of height 0, each group by txid as it is shown.
    pub fn unconfirmed(&self, script: &ScriptHash) -> Vec<UnconfirmedEntry> {
        let key = script.key();
        let entries = self.mempool.of_script(&key);
        let mut entries: Vec<_> = entries
            .map(|entry| UnconfirmedEntry {
                txid: entry.txid,
                height: self.mempool_height(entry),
                fee: entry.fee,
            })
            .collect();
        entries.sort_unstable_by_key(|entry| (Reverse(entry.height), as_shown(&entry.txid)));
        entries
    }

    /// How many there are.
    pub fn unconfirmed_count(&self, script: &ScriptHash) -> usize {
        self.mempool.of_script(&script.key()).count()
    }

    /// What the mempool adds to the script's confirmed balance, or takes from it.
    pub fn unconfirmed_balance(&self, script: &ScriptHash) -> SignedAmount {
        let key = script.key();
        let mut balance = 0_i64;
        for entry in self.mempool.of_script(&key) {
            // Each is at most MAX_MONEY, which was checked when it came; their number is bounded by the mempool's.
            for output in entry.outputs.iter().filter(|output| output.script == key) {
                balance = balance.saturating_add(signed(output.value));
            }
            for input in entry.inputs.iter().filter(|input| input.script == key) {
                balance = balance.saturating_sub(signed(input.value));
            }
        }
        SignedAmount::from_sat(balance)
    }

    /// The script's unconfirmed outputs that no other unconfirmed transaction spends, by txid as it is shown.
    pub fn unconfirmed_unspent(&self, script: &ScriptHash) -> Vec<UnconfirmedOutput> {
        let key = script.key();
        let mut unspent = Vec::new();
        for entry in self.mempool.of_script(&key) {
            for (output, vout) in entry.outputs.iter().zip(0..) {
                let outpoint = OutPoint::new(entry.txid, vout);
                if output.script == key && !output.is_unspendable && self.mempool.spender(&outpoint).is_none()
                {
                    unspent.push(UnconfirmedOutput { outpoint, value: output.value });
                }
            }
        }
        unspent.sort_unstable_by_key(|output| (as_shown(&output.outpoint.txid), output.outpoint.vout));
        unspent
    }

    /// An unconfirmed transaction.
    pub fn unconfirmed_transaction(&self, txid: &Txid) -> Option<&Arc<Entry>> {
        self.mempool.entry(txid)
    }

    /// The newest unconfirmed transactions, newest first.
    pub fn recent(&self) -> impl Iterator<Item = &Arc<Entry>> {
        self.mempool.recent().iter()
    }

    pub(super) fn mempool_height(&self, entry: &Entry) -> MempoolHeight {
        if self.mempool.has_unconfirmed_parent(entry) {
            MempoolHeight::OnUnconfirmed
        } else {
            MempoolHeight::OnConfirmed
        }
    }
}

fn signed(amount: Amount) -> i64 {
    i64::try_from(amount.to_sat()).unwrap_or(i64::MAX)
}

/// The bytes of a txid in the order in which people see them.
fn as_shown(txid: &Txid) -> [u8; 32] {
    let mut bytes = txid.to_byte_array();
    bytes.reverse();
    bytes
}
