//! Thousands of payments of a wallet of the test's own, with real signatures: chains, replacements, blocks that take some,
//! reorganisations and restarts of both sides. After each thousand peerdex holds what the node holds.
//!
//! `PEERDEX_MANY=20000` makes so many, `PEERDEX_SEED=n` others. What leaves for want of room is not compared: a node counts
//! the bytes of its own structures, and ours are others.
//!
//! A node announces what came within a tenth of a second with the shortest families first, not as it came. Where the
//! order decides, two mempools differ by right, two nodes' too, so the wallet sees to it that it does not: it waits before
//! and after it replaces some that do not hang together, and adds nothing to a family that only the carve-out would let
//! grow (a node that is started again forgets one of such a family itself).
//!
//! The node needs no wallet, so it may be Core's development branch as `tests/compare/servers` builds it.

use std::collections::{BTreeMap, BTreeSet};

use bitcoin::consensus::encode::serialize_hex;
use bitcoin::{Address, Network, OutPoint, Transaction, Txid};
use fastrand::Rng;
use serde_json::json;

use super::same::wait_same;
use super::support::node::Node;
use super::support::purse::{Purse, output, replaceable, transaction};
use super::{PATIENCE, is_knots, node_options, options, pool_of};

/// Payments, if nobody asks for more.
const FEW: usize = 1_200;
/// Outputs of a transaction that cuts a reward into coins.
const CUT: u64 = 400;
/// Most transactions that hang on another, itself included, without the carve-out.
const FAMILY: u64 = 25;
/// Most transactions that are replaced between two waits.
const REPLACED_AT_ONCE: usize = 12;
/// Virtual bytes of an input, of an output, and of what is around them.
const SIZES: [u64; 3] = [68, 31, 11];

/// A wallet, and what it has to spend.
struct Wallet {
    purse: Purse,
    /// Of the purse: whoever mines is paid there.
    address: String,
    rng: Rng,
    /// Outputs that nothing spends yet, as far as the wallet knows, and what each is worth.
    coins: Vec<(OutPoint, u64)>,
    /// What was sent and may still be waiting, with what it spends.
    sent: BTreeMap<Txid, Sent>,
    taken: usize,
    replaced: usize,
    refused: usize,
}

struct Sent {
    tx: Transaction,
    spends: Vec<u64>,
    fee: u64,
}

impl Wallet {
    /// Gets the rewards of some blocks and cuts them into coins.
    fn paid_by(node: &Node, seed: u64) -> Self {
        let purse = Purse::new();
        let address = Address::from_script(purse.script(), Network::Regtest).unwrap().to_string();
        let blocks = node.generate_to(12, &address);
        node.generate_to(100, &address);
        let mut wallet = Self {
            purse,
            address,
            rng: Rng::with_seed(seed),
            coins: Vec::new(),
            sent: BTreeMap::new(),
            taken: 0,
            replaced: 0,
            refused: 0,
        };
        let mut cuts = Vec::new();
        for block in blocks {
            let coinbase = &node.rpc("getblock", json!([block, 2]))["tx"][0];
            let worth = super::support::naive::satoshi(&coinbase["vout"][0]["value"]);
            let txid: Txid = coinbase["txid"].as_str().unwrap().parse().unwrap();
            let each = (worth - 100_000) / CUT;
            let outputs = vec![output(each, wallet.purse.script().clone()); CUT as usize];
            let mut cut = transaction(vec![replaceable(OutPoint::new(txid, 0))], outputs);
            wallet.purse.sign(&mut cut, &[worth]);
            wallet.coins.extend((0..CUT as u32).map(|vout| (OutPoint::new(cut.compute_txid(), vout), each)));
            cuts.push(serialize_hex(&cut));
        }
        node.generate_block_to(&wallet.address, &cuts);
        wallet
    }

    /// Sends one more payment.
    fn pay(&mut self, node: &Node) {
        // Newest coins first, mostly: that makes chains.
        let young = self.rng.u8(..3) > 0;
        let mut inputs = Vec::new();
        for _ in 0..self.rng.choice([1, 1, 1, 2, 3]).unwrap() {
            let from = if young { self.coins.len().saturating_sub(40) } else { 0 };
            if from < self.coins.len() {
                inputs.push(self.coins.swap_remove(self.rng.usize(from..self.coins.len())));
            }
        }
        if inputs.iter().any(|(coin, _)| self.is_full(node, coin.txid)) {
            self.refused += 1;
            return;
        }
        let outputs = self.rng.choice([1, 2, 2, 2, 3, 9]).unwrap();
        let rate = self.fee_rate(2..40);
        self.send(node, inputs, outputs, rate);
    }

    /// Whether a transaction has all the descendants that it may have, or one has from which it descends.
    fn is_full(&self, node: &Node, txid: Txid) -> bool {
        // Core has limits for clusters, which grow the same in any order.
        if !is_knots() || !self.sent.contains_key(&txid) {
            return false;
        }
        let txid = txid.to_string();
        // One that was replaced is found out when its coin is spent.
        let Ok(own) = node.try_rpc("getmempoolentry", json!([txid])) else { return false };
        let ancestors = node.rpc("getmempoolancestors", json!([txid, true]));
        let mut family = ancestors.as_object().unwrap().values().chain([&own]);
        family.any(|entry| entry["descendantcount"].as_u64().unwrap() >= FAMILY)
    }

    /// A fee by virtual bytes: so many satoshi for each, and some odd ones, so that no two transactions pay the same
    /// rate. Which of two equals leaves a cluster that is too large depends in Core on what came and went before.
    fn fee_rate(&mut self, satoshi: std::ops::Range<u64>) -> impl FnOnce(u64) -> u64 + use<> {
        let (rate, odd) = (self.rng.u64(satoshi), self.rng.f64());
        move |vsize| vsize * rate + (vsize as f64 * odd) as u64
    }

    /// Pays more for what some other transactions spend; not every one can be replaced. No two of them hang together
    /// with the same third, so their order does not matter.
    fn replace_some(&mut self, node: &Node) {
        let mut clusters = Clusters::of(&self.sent);
        let mut chosen = BTreeMap::new();
        for _ in 0..self.sent.len().min(REPLACED_AT_ONCE) {
            let at = self.rng.usize(..self.sent.len());
            chosen.insert(clusters.root(at), at);
        }
        let txids: Vec<Txid> = self.sent.keys().copied().collect();
        for at in chosen.into_values() {
            self.replace(node, txids[at]);
        }
    }

    fn replace(&mut self, node: &Node, txid: Txid) {
        let more = self.fee_rate(1..30);
        let Sent { tx, spends, fee } = &self.sent[&txid];
        let inputs = tx.input.iter().map(|input| input.previous_output).zip(spends.iter().copied()).collect();
        let (fee, before) = (*fee, self.taken);
        self.send(node, inputs, 2, |vsize| fee + more(vsize));
        self.replaced += self.taken - before;
    }

    fn send(
        &mut self,
        node: &Node,
        inputs: Vec<(OutPoint, u64)>,
        outputs: u64,
        fee: impl FnOnce(u64) -> u64,
    ) {
        let spends: Vec<u64> = inputs.iter().map(|(_, value)| *value).collect();
        let [input, out, rest] = SIZES;
        let fee = fee(inputs.len() as u64 * input + outputs * out + rest);
        let each = spends.iter().sum::<u64>().saturating_sub(fee) / outputs;
        if each < 1_000 {
            // Dust.
            return;
        }
        let outputs = vec![output(each, self.purse.script().clone()); outputs as usize];
        let inputs = inputs.iter().map(|(outpoint, _)| replaceable(*outpoint)).collect();
        let mut tx = transaction(inputs, outputs);
        let paid = spends.iter().sum::<u64>() - each * tx.output.len() as u64;
        self.purse.sign(&mut tx, &spends);
        match node.try_rpc("sendrawtransaction", json!([serialize_hex(&tx)])) {
            Ok(_) => {
                let txid = tx.compute_txid();
                self.coins.extend((0..tx.output.len() as u32).map(|vout| (OutPoint::new(txid, vout), each)));
                self.sent.insert(txid, Sent { tx, spends, fee: paid });
                self.taken += 1;
            }
            // Too long a chain, or it does not pay enough for what it would replace.
            Err(_) => self.refused += 1,
        }
    }

    /// Forgets what was replaced and what a block took, and the coins of what was replaced.
    fn look(&mut self, node: &Node) {
        let pool: BTreeSet<Txid> = pool_of(node).iter().map(|txid| txid.parse().unwrap()).collect();
        // Of what waits no longer, some was mined and some replaced.
        let is_there = |outpoint: &OutPoint| {
            let coin = json!([outpoint.txid.to_string(), outpoint.vout, false]);
            pool.contains(&outpoint.txid) || !node.rpc("gettxout", coin).is_null()
        };
        self.coins.retain(|(coin, _)| !self.sent.contains_key(&coin.txid) || is_there(coin));
        self.sent.retain(|txid, _| pool.contains(txid));
    }
}

/// Which of what was sent hangs together or spends the same, by position (union-find).
struct Clusters {
    parents: Vec<usize>,
}

impl Clusters {
    fn of(sent: &BTreeMap<Txid, Sent>) -> Self {
        let mut clusters = Self { parents: (0..sent.len()).collect() };
        let places: BTreeMap<&Txid, usize> = sent.keys().zip(0..).collect();
        // Two that spend the same coin: one is in the place of the other.
        let mut spenders: BTreeMap<OutPoint, usize> = BTreeMap::new();
        for (one, at) in sent.values().zip(0..) {
            for OutPoint { txid, vout } in one.tx.input.iter().map(|input| input.previous_output) {
                let spender = *spenders.entry(OutPoint { txid, vout }).or_insert(at);
                clusters.join(at, spender);
                if let Some(&parent) = places.get(&txid) {
                    clusters.join(at, parent);
                }
            }
        }
        clusters
    }

    fn join(&mut self, a: usize, b: usize) {
        let (a, b) = (self.root(a), self.root(b));
        self.parents[a] = b;
    }

    fn root(&mut self, mut at: usize) -> usize {
        while self.parents[at] != at {
            self.parents[at] = self.parents[self.parents[at]];
            at = self.parents[at];
        }
        at
    }
}

#[test]
fn thousands_of_payments_leave_the_same_mempool() {
    let Some(mut node) = Node::start_without_wallet(&node_options()) else { return };
    let number = |name: &str| std::env::var(name).ok().map(|number| number.parse().unwrap());
    let many = number("PEERDEX_MANY").map_or(FEW, |many: u64| many as usize);
    let mut wallet = Wallet::paid_by(&node, number("PEERDEX_SEED").unwrap_or(1));
    let (mut options, at) = options(&node);
    // What was not taken, and why.
    options.extra.extend(["--log".into(), "debug".into()]);
    let mut server = options.start();
    server.wait_synced(&node.tip(), PATIENCE);
    let (part, mut largest, mut blocks, mut reorgs) = ((many / 20).clamp(100, 1_000), 0, 0, 0);

    let mut part_number = 0;
    while wallet.taken < many {
        let goal = (wallet.taken + part).min(many);
        while wallet.taken < goal {
            if wallet.rng.usize(..5 * REPLACED_AT_ONCE) > 0 {
                wallet.pay(&node);
            } else if !wallet.sent.is_empty() {
                wait_same(&node, &at, "what came before replacements");
                wallet.replace_some(&node);
                wait_same(&node, &at, "replacements");
            }
        }
        part_number += 1;
        wait_same(&node, &at, &format!("{} payments", wallet.taken));
        largest = largest.max(pool_of(&node).len());
        match part_number % 8 {
            3 => {
                // What pays most, and only some of it.
                let pool = pool_of(&node);
                let template = node.rpc("getblocktemplate", json!([{"rules": ["segwit"]}]));
                let best = template["transactions"].as_array().unwrap();
                let some: Vec<String> =
                    best.iter().take(pool.len() / 3).map(|tx| tx["data"].as_str().unwrap().into()).collect();
                node.generate_block_to(&wallet.address, &some);
                blocks += 1;
            }
            5 => {
                node.generate_to(1, &wallet.address);
                blocks += 1;
            }
            6 => {
                // Of one block: `invalidateblock` takes back what each block had before it goes to the next, a
                // reorganisation all of it at the end; so another of a long chain comes back.
                node.invalidate(1);
                node.generate_block_to(&wallet.address, &[]);
                node.generate_block_to(&wallet.address, &[]);
                wait_same(&node, &at, "a reorganisation");
                // What came back may have more descendants than a newcomer may, which no mempool keeps over a restart.
                node.generate_to(1, &wallet.address);
                reorgs += 1;
            }
            7 => {
                let folder = server.stop();
                wallet.pay(&node);
                server = options.start_in(folder);
                server.wait_synced(&node.tip(), PATIENCE);
                wait_same(&node, &at, "a restart of peerdex");
                node.stop();
                node.start_again(&node_options());
            }
            _ => continue,
        }
        wait_same(&node, &at, &format!("what followed part {part_number}"));
        wallet.look(&node);
    }
    println!(
        "{} payments, {} of them in the place of others, {} refused; {blocks} blocks, {reorgs} reorganisations; at most \
         {largest} in the mempool",
        wallet.taken, wallet.replaced, wallet.refused
    );
    assert!(wallet.replaced > many / 100 && blocks > 0 && reorgs > 0, "too little happened");
}
