//! A wallet that subscribes once and then only listens, while blocks and the mempool change at random.

use std::collections::{BTreeMap, BTreeSet};

use bitcoin::{Amount, OutPoint, ScriptBuf, Txid};
use serde_json::{Value, json};

use crate::query::testing::transaction;

use super::wallet::{Wallet, hash_of, status_of};

const SCRIPTS: u8 = 6;
/// Height below which nothing is undone.
const ROOT: u32 = 20;

fn script(name: u8) -> ScriptBuf {
    ScriptBuf::from_bytes(vec![0x51 + name])
}

/// The world, as far as it is needed to think of the next change.
struct Walk {
    wallet: Wallet,
    random: fastrand::Rng,
    height: u32,
}

impl Walk {
    /// Coins of all scripts, confirmed or not, that nothing spends.
    fn unspent(&mut self) -> Vec<(OutPoint, u64)> {
        let mut coins = Vec::new();
        for name in 0..SCRIPTS {
            let hash = json!([hash_of(&script(name))]);
            let list = self.wallet.call("blockchain.scripthash.listunspent", hash).unwrap();
            coins.extend(list.as_array().unwrap().iter().map(|coin| {
                let txid: Txid = coin["tx_hash"].as_str().unwrap().parse().unwrap();
                let vout = coin["tx_pos"].as_u64().unwrap() as u32;
                (OutPoint::new(txid, vout), coin["value"].as_u64().unwrap())
            }));
        }
        coins
    }

    fn waiting(&self) -> Vec<Txid> {
        let mut txids: Vec<Txid> = self.wallet.view.mempool().entries().map(|entry| entry.txid).collect();
        txids.sort_unstable();
        txids
    }

    fn any_script(&mut self) -> ScriptBuf {
        script(self.random.u8(..SCRIPTS))
    }

    fn receive(&mut self) {
        let coins = self.unspent();
        let Some((coin, value)) = self.random.choice(&coins).copied() else { return };
        let Some(left) = value.checked_sub(100_000) else { return };
        let first = self.random.u64(1..left);
        let outputs = [(first, self.any_script()), (left - first, self.any_script())];
        let outputs = outputs.map(|(value, script)| (Amount::from_sat(value), script));
        self.wallet.chain.receive(&transaction(&[(coin, ScriptBuf::new())], &outputs));
    }

    /// What something that is waiting spends is spent once more, for more than all that wait pay together.
    fn replace(&mut self) {
        let waiting: Vec<_> = self.wallet.view.mempool().entries().cloned().collect();
        let Some(entry) = waiting.iter().min_by_key(|entry| entry.txid) else { return };
        let input = entry.inputs[0];
        let fee = Amount::from_sat(self.wallet.view.mempool().figures().fees + 100_000);
        let Some(left) = input.value.checked_sub(fee) else { return };
        let script = self.any_script();
        self.wallet.chain.receive(&transaction(&[(input.outpoint, ScriptBuf::new())], &[(left, script)]));
    }

    fn mine(&mut self) {
        // Parents come before their children: those of which every parent is confirmed or chosen.
        let (mut left, mut chosen) = (self.waiting(), Vec::new());
        let view = self.wallet.view.clone();
        while let Some(at) = left.iter().position(|txid| {
            let entry = view.mempool().entry(txid).unwrap();
            let is_waiting = |parent: &Txid| view.mempool().entry(parent).is_some();
            let mut parents = entry.inputs.iter().map(|input| input.outpoint.txid);
            parents.all(|parent| !is_waiting(&parent) || chosen.contains(&parent))
        }) {
            let txid = left.remove(at);
            if self.random.bool() {
                chosen.push(txid);
            }
        }
        let script = self.any_script();
        self.wallet.chain.forge_of(script, &chosen);
        self.height += 1;
    }

    fn change(&mut self) {
        match self.random.u8(..10) {
            0..=4 => self.receive(),
            5 => self.replace(),
            6 => {
                if let Some(txid) = self.random.choice(&self.waiting()) {
                    self.wallet.chain.evict(txid);
                }
            }
            7 | 8 => self.mine(),
            _ => {
                let depth = self.random.u32(1..4).min(self.height - ROOT);
                for _ in 0..depth {
                    self.wallet.chain.undo_to_mempool();
                }
                for _ in 0..=depth {
                    let script = self.any_script();
                    self.wallet.chain.forge(script, &[]);
                }
                self.height += 1;
            }
        }
    }
}

#[test]
fn what_a_listening_wallet_was_told_is_what_it_would_be_answered() {
    for seed in 0..4 {
        let mut walk =
            Walk { wallet: Wallet::at(ROOT), random: fastrand::Rng::with_seed(seed), height: ROOT };
        let mut told = BTreeMap::new();
        for name in 0..SCRIPTS {
            let hash = hash_of(&script(name));
            walk.wallet.call("blockchain.scripthash.subscribe", json!([hash])).unwrap();
            told.insert(hash, Value::Null);
        }
        let mut flips = 0;
        for step in 0..120 {
            walk.change();
            for line in walk.wallet.commit() {
                let message: Value = serde_json::from_str(line.strip_prefix("< ").unwrap()).unwrap();
                let hash = message["params"][0].as_str().unwrap();
                let before = told.insert(hash.to_owned(), message["params"][1].clone()).unwrap();
                assert_ne!(before, message["params"][1], "seed {seed}, step {step}: told twice");
            }
            for (hash, status) in &told {
                flips +=
                    u32::from(agrees(&mut walk.wallet, hash, status, &format!("seed {seed}, step {step}")));
            }
        }
        assert!(flips > 0, "seed {seed}: nothing ever had an unconfirmed parent");
    }
}

/// Whether something of the script has an unconfirmed parent, after all that is answered was compared.
fn agrees(wallet: &mut Wallet, hash: &str, status: &Value, place: &str) -> bool {
    let mut ask = |what: &str| wallet.call(&format!("blockchain.scripthash.{what}"), json!([hash])).unwrap();
    let history = ask("get_history");
    assert_eq!(status_of(&history), *status, "{place}");
    let entries = history.as_array().unwrap();
    let height = |entry: &Value| entry["height"].as_i64().unwrap();
    let (confirmed, waiting) = entries.split_at(entries.partition_point(|entry| height(entry) > 0));
    assert!(confirmed.is_sorted_by_key(height) && confirmed.iter().all(|entry| entry.get("fee").is_none()));
    assert_eq!(ask("get_mempool"), json!(waiting), "{place}");
    let order = |entry: &Value| (-height(entry), entry["tx_hash"].as_str().unwrap().to_owned());
    assert!(waiting.is_sorted_by_key(order) && waiting.iter().all(|entry| height(entry) <= 0), "{place}");
    let txids: BTreeSet<&str> = entries.iter().map(|entry| entry["tx_hash"].as_str().unwrap()).collect();
    assert_eq!(txids.len(), entries.len(), "{place}: a transaction twice");
    // Wallets add up what is unspent, whatever its height.
    let unspent = ask("listunspent");
    let sum: i64 = unspent.as_array().unwrap().iter().map(|coin| coin["value"].as_i64().unwrap()).sum();
    let balance = ask("get_balance");
    assert_eq!(
        balance["confirmed"].as_i64().unwrap() + balance["unconfirmed"].as_i64().unwrap(),
        sum,
        "{place}"
    );
    waiting.iter().any(|entry| height(entry) == -1)
}
