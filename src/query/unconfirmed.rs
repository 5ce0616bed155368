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

#[cfg(test)]
mod tests {
    use bitcoin::{ScriptBuf, Transaction};

    use super::*;
    use crate::query::testing::{Chain, transaction};

    fn script(name: u8) -> ScriptBuf {
        ScriptBuf::from_bytes(vec![name])
    }

    fn hash(name: u8) -> ScriptHash {
        ScriptHash::of(&script(name))
    }

    /// Pays whole coins to scripts of one byte.
    fn pay(coins: &[OutPoint], outputs: &[(u64, u8)]) -> Transaction {
        let inputs: Vec<_> = coins.iter().map(|coin| (*coin, ScriptBuf::new())).collect();
        let outputs = outputs.iter().map(|(btc, name)| (Amount::from_int_btc(*btc), script(*name)));
        transaction(&inputs, &outputs.collect::<Vec<_>>())
    }

    /// As many confirmed coins of 50 bitcoin, each of the script `0x51`.
    fn chain_with_coins(count: u32) -> (Chain, Vec<OutPoint>) {
        let mut chain = Chain::mainnet(3);
        let coins = (0..count).map(|_| OutPoint::new(chain.forge(script(0x51), &[]), 0)).collect();
        (chain, coins)
    }

    #[test]
    fn what_has_no_unconfirmed_parent_comes_first_then_txids_as_shown() {
        let (mut chain, coins) = chain_with_coins(6);
        let mut expected = Vec::new();
        for coin in coins {
            let parent = chain.receive(&pay(&[coin], &[(20, 0x52), (29, 0x53)]));
            let child = chain.receive(&pay(&[OutPoint::new(parent, 0)], &[(10, 0x52)]));
            expected.push((0, parent.to_string(), Amount::ONE_BTC));
            expected.push((-1, child.to_string(), Amount::from_int_btc(10)));
        }
        expected.sort_by_key(|(height, txid, _)| (-height, txid.clone()));
        let (view, _) = chain.commit();
        let list = view.unconfirmed(&hash(0x52));
        let heard: Vec<_> =
            list.iter().map(|entry| (entry.height.number(), entry.txid.to_string(), entry.fee)).collect();
        assert_eq!(heard, expected);
        assert_eq!(view.unconfirmed_count(&hash(0x52)), 12);
        // The script that is spent from has only the parents, another has nothing.
        assert_eq!(view.unconfirmed(&hash(0x51)).len(), 6);
        assert_eq!(view.unconfirmed(&hash(0x54)), []);
    }

    #[test]
    fn a_balance_is_what_comes_less_what_goes_and_may_be_negative() {
        let (mut chain, coins) = chain_with_coins(2);
        let parent = chain.receive(&pay(&coins, &[(60, 0x52), (30, 0x51), (9, 0x52)]));
        let balance = |chain: &mut Chain, name| chain.commit().0.unconfirmed_balance(&hash(name));
        let btc = |btc: i64| SignedAmount::from_sat(btc * 100_000_000);
        assert_eq!(balance(&mut chain, 0x51), btc(30 - 100));
        assert_eq!(balance(&mut chain, 0x52), btc(69));
        // What comes and goes without a block adds up to nothing.
        chain.receive(&pay(&[OutPoint::new(parent, 0), OutPoint::new(parent, 2)], &[(68, 0x53)]));
        assert_eq!(balance(&mut chain, 0x52), btc(0));
        assert_eq!(balance(&mut chain, 0x53), btc(68));
        assert_eq!(chain.commit().0.balance(&hash(0x51)).unwrap(), (Amount::from_int_btc(100), 2));
        chain.forge_of(script(0x55), &[parent]);
        assert_eq!(balance(&mut chain, 0x51), btc(0));
        assert_eq!(balance(&mut chain, 0x52), btc(-69));
    }

    #[test]
    fn unspent_is_what_neither_a_block_nor_the_mempool_spends() {
        let (mut chain, coins) = chain_with_coins(2);
        let confirmed = |chain: &mut Chain| -> Vec<Txid> {
            chain.commit().0.unspent(&hash(0x51)).unwrap().iter().map(|output| output.txid).collect()
        };
        let unconfirmed = |chain: &mut Chain| -> Vec<(OutPoint, u64)> {
            let unspent = chain.commit().0.unconfirmed_unspent(&hash(0x51));
            unspent.iter().map(|output| (output.outpoint, output.value.to_sat() / 100_000_000)).collect()
        };
        assert_eq!(confirmed(&mut chain), [coins[0].txid, coins[1].txid]);
        let parent = chain.receive(&pay(&coins[..1], &[(20, 0x51), (5, 0x52), (24, 0x51)]));
        let [first, third] = [0, 2].map(|vout| OutPoint::new(parent, vout));
        assert_eq!(confirmed(&mut chain), [coins[1].txid]);
        assert_eq!(unconfirmed(&mut chain), [(first, 20), (third, 24)]);
        let child = chain.receive(&pay(&[first], &[(19, 0x51)]));
        let mut expected = [(OutPoint::new(child, 0), 19), (third, 24)];
        expected.sort_by_key(|(outpoint, _)| outpoint.txid.to_string());
        assert_eq!(unconfirmed(&mut chain), expected);
        chain.forge_of(script(0x55), &[parent]);
        assert_eq!(confirmed(&mut chain), [coins[1].txid, parent]);
        assert_eq!(unconfirmed(&mut chain), [(OutPoint::new(child, 0), 19)]);
        chain.evict(&child);
        assert_eq!(confirmed(&mut chain), [coins[1].txid, parent, parent]);
        assert_eq!(unconfirmed(&mut chain), []);
    }

    #[test]
    fn outputs_that_nobody_can_spend_are_neither_coins_nor_history() {
        let (mut chain, coins) = chain_with_coins(1);
        let note = ScriptBuf::new_op_return([1, 2, 3]);
        let outputs = [(Amount::from_sat(7), note.clone()), (Amount::from_int_btc(49), script(0x52))];
        chain.receive(&transaction(&[(coins[0], ScriptBuf::new())], &outputs));
        let (view, touched) = chain.commit();
        let note = ScriptHash::of(&note);
        assert_eq!(view.unconfirmed_unspent(&note), []);
        assert_eq!(view.unconfirmed(&note), []);
        assert_eq!(view.unconfirmed_count(&note), 0);
        assert_eq!(view.unconfirmed_balance(&note), SignedAmount::ZERO);
        assert!(!touched.has_script(&note.key()) && touched.has_script(&hash(0x52).key()));
    }

    #[test]
    fn what_is_replaced_is_gone_with_all_that_spent_from_it() {
        let (mut chain, coins) = chain_with_coins(1);
        let parent = chain.receive(&pay(&coins, &[(49, 0x52)]));
        let child = chain.receive(&pay(&[OutPoint::new(parent, 0)], &[(48, 0x53)]));
        chain.commit();
        let other = chain.receive(&pay(&coins, &[(40, 0x54)]));
        let (view, touched) = chain.commit();
        for name in [0x52, 0x53] {
            assert_eq!(view.unconfirmed(&hash(name)), []);
        }
        for name in 0x51..=0x54 {
            assert!(touched.has_script(&hash(name).key()), "{name:x}");
        }
        assert_eq!(view.unconfirmed(&hash(0x51)).len(), 1);
        for txid in [parent, child, other] {
            assert!(touched.has_transaction(&txid));
            assert_eq!(view.mempool().entry(&txid).is_some(), txid == other);
        }
    }

    #[test]
    fn the_newest_ten_are_recent() {
        let (mut chain, coins) = chain_with_coins(12);
        let txids: Vec<Txid> =
            coins.iter().map(|coin| chain.receive(&pay(&[*coin], &[(49, 0x52)]))).collect();
        let (view, _) = chain.commit();
        let recent: Vec<Txid> = view.recent().map(|entry| entry.txid).collect();
        assert_eq!(recent, txids.iter().rev().take(10).copied().collect::<Vec<_>>());
    }
}
