//! Long sequences of what wallets and miners do to a node and to our mempool alike: after each step both gave the same
//! answer and hold the same transactions.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bitcoin::absolute::LockTime;
use bitcoin::consensus::encode::{serialize, serialize_hex};
use bitcoin::hashes::Hash;
use bitcoin::transaction::Version;
use bitcoin::{Amount, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Txid};
use bytes::Bytes;
use fastrand::Rng;
use peerdex::mempool::{
    ChainLimits, ChainState, Mempool, Moment, Outcome, Policy, Request, RequestStep, ScriptCheck, Submission,
    TestResult, Unconfirmed,
};
use peerdex::time::{Instant, Now};
use serde_json::{Value, json};

use super::chain::Chain;
use super::coins::{Clock, anyone, anyone_witness, miner, spend_reward};
use super::support::naive::satoshi;
use super::support::node::{Node, NodeError, text};

const STEPS: usize = 400;
/// Coins that the sequences spend, and what each is worth.
const COINS: usize = 150;
const WORTH: u64 = 200_000;
/// So that clusters are soon too large.
const CLUSTER: usize = 7;
const CLUSTER_KVB: u64 = 12;

/// Some of what is said, first what Knots says too.
const SAID: &[&str] = &[
    "sent",
    "bad-txns-inputs-missingorspent",
    "min relay fee not met",
    "dust",
    "TRUC-violation",
    "insufficient fee",
    "reorganised",
    "member: insufficient fee",
    "member: package-not-validated",
    "package: TRUC-violation",
    "package: replaced",
    "package: success",
    "package: transaction failed",
    "test: bip125-replacement-disallowed",
    "test: conflict-in-package",
    "test: taken",
];
const SAID_BY_KNOTS: usize = 4;

/// A node, our mempool, and who acts on both.
struct World {
    node: Node,
    is_core: bool,
    mempool: Mempool,
    chain: Chain,
    clock: Clock,
    rng: Rng,
    now: Now,
    /// What was said, how often.
    seen: BTreeMap<String, usize>,
}

impl World {
    fn start(seed: u64) -> Option<Self> {
        let limits = [format!("-limitclustercount={CLUSTER}"), format!("-limitclustersize={CLUSTER_KVB}")];
        let limits: Vec<&str> = limits.iter().map(String::as_str).collect();
        let (node, mut policy) = super::node(&[], &limits)?;
        let is_core = policy == Policy::core();
        if is_core {
            policy.limits = ChainLimits::Cluster { count: CLUSTER, vsize: CLUSTER_KVB * 1_000 };
        }
        let mut clock = Clock::of(&node);
        clock.mine(&node, 101);
        let coin = TxOut { value: Amount::from_sat(WORTH), script_pubkey: anyone() };
        let payment = spend_reward(&node, 1, vec![coin; COINS]);
        node.generate_block_to(&miner(), &[serialize_hex(&payment)]);
        clock.mine(&node, 5);
        let chain = Chain::of(&node);
        let now = Now { instant: Instant::default(), unix: u64::from(clock.time) };
        Some(Self {
            node,
            is_core,
            mempool: Mempool::new(policy),
            chain,
            clock,
            rng: Rng::with_seed(seed),
            now,
            seen: BTreeMap::new(),
        })
    }

    fn step(&mut self) {
        match self.rng.u8(..100) {
            0..55 => self.send(),
            // Knots follows an older Core in what concerns packages, version 3 and reorganisations.
            55..92 if !self.is_core => self.send(),
            98.. if !self.is_core => self.mine(),
            55..78 => self.send_package(),
            78..92 => self.test_several(),
            92..98 => self.mine(),
            _ => self.reorganise(),
        }
        self.compare();
    }

    /// Both hold the same.
    fn compare(&self) {
        let said = self.node.rpc("getrawmempool", json!([]));
        let theirs: BTreeSet<String> = said.as_array().unwrap().iter().map(text).collect();
        let pool = self.mempool.pool();
        let ours: BTreeSet<String> = pool.entries().map(|entry| entry.txid.to_string()).collect();
        let family = |txid: &String| {
            let txid: Txid = txid.parse().unwrap();
            let (parents, children) = (pool.parents(&txid).len(), pool.children(&txid).len());
            format!("{txid}: {parents} parents, {children} children")
        };
        let only_ours: Vec<String> = ours.difference(&theirs).map(family).collect();
        let only_theirs: Vec<String> = theirs.difference(&ours).map(family).collect();
        assert!(only_ours.is_empty() && only_theirs.is_empty(), "ours {only_ours:?}, theirs {only_theirs:?}");
    }

    fn note(&mut self, what: &str) {
        // Without ids and amounts.
        let what: Vec<&str> = what.split(", ").take(1).collect();
        *self.seen.entry(what.concat()).or_default() += 1;
    }

    fn submit(&mut self, submission: &Submission) -> Outcome {
        let mut request = match Request::new(submission) {
            Ok(request) => request,
            Err(outcome) => return outcome,
        };
        let moment = Moment { chain: &self.chain, now: self.now, scripts: ScriptCheck::Run };
        // Every script is good; the first answer asks for them.
        loop {
            match self.mempool.submit(&mut request, moment) {
                RequestStep::Done { outcome, .. } => return outcome,
                RequestStep::NeedsScripts(jobs) => {
                    for job in jobs {
                        assert_eq!(job.spent.len(), job.tx.tx().input.len());
                        self.mempool.scripts_done(&job, Ok(()));
                    }
                }
            }
        }
    }

    fn send(&mut self) {
        let tx = self.transaction(&[]);
        let said = self.node.try_rpc("sendrawtransaction", json!([serialize_hex(&tx)]));
        let ours = self.submit(&Submission::Transaction(raw(&tx)));
        match (said, ours) {
            (Ok(txid), Outcome::Sent(ours)) => {
                assert_eq!(text(&txid), ours.to_string());
                self.note("sent");
            }
            (Err(NodeError { message, .. }), Outcome::Rejected(ours)) => {
                assert_eq!(ours, message);
                self.note(&ours);
            }
            (said, ours) => panic!("node {said:?}, ours {ours:?}: {tx:?}"),
        }
    }

    /// A child with one to three parents; sometimes they do not belong together.
    fn send_package(&mut self) {
        let count = self.rng.choice([1, 1, 1, 2, 3]).unwrap();
        let mut txs: Vec<Transaction> = Vec::new();
        for _ in 0..count {
            let above = if self.rng.u8(..8) == 0 { txs.clone() } else { Vec::new() };
            txs.push(self.transaction(&above));
        }
        let mut child = self.transaction(&txs);
        for tx in &txs {
            let txid = tx.compute_txid();
            let vout = self.rng.usize(..tx.output.len()) as u32;
            let is_missing = child.input.iter().all(|input| input.previous_output.txid != txid);
            if is_missing && self.rng.u8(..12) > 0 {
                child.input.push(self.input(OutPoint { txid, vout }));
                child.output[0].value += tx.output[vout as usize].value;
            }
        }
        txs.push(child);
        if self.rng.u8(..25) == 0 {
            txs.reverse();
        }
        let hex: Vec<String> = txs.iter().map(serialize_hex).collect();
        let said = self.node.try_rpc("submitpackage", json!([hex]));
        let ours = self.submit(&Submission::Package(txs.iter().map(raw).collect()));
        match (said, ours) {
            (Ok(said), Outcome::Package(ours)) => {
                assert_eq!(ours.message, text(&said["package_msg"]), "{said}");
                for member in &ours.transactions {
                    let wtxid = member.wtxid.to_string();
                    let said = &said["tx-results"][&wtxid];
                    assert_eq!(member_as_json(member), as_sats(said), "{said}, {ours:?}");
                    if let Err(error) = &member.result {
                        self.note(&format!("member: {error}"));
                    }
                }
                let replaced: BTreeSet<String> = ours.replaced.iter().map(Txid::to_string).collect();
                let theirs: BTreeSet<String> =
                    said["replaced-transactions"].as_array().unwrap().iter().map(text).collect();
                assert_eq!(replaced, theirs);
                if !replaced.is_empty() {
                    self.note("package: replaced");
                }
                self.note(&format!("package: {}", ours.message));
            }
            (Err(NodeError { message, .. }), Outcome::Rejected(ours)) => {
                assert_eq!(ours, message);
                self.note(&format!("package: {message}"));
            }
            (said, ours) => panic!("node {said:?}, ours {ours:?}"),
        }
    }

    fn test_several(&mut self) {
        let mut txs: Vec<Transaction> = Vec::new();
        for _ in 0..self.rng.usize(1..5) {
            let above = if self.rng.bool() { txs.clone() } else { Vec::new() };
            txs.push(self.transaction(&above));
        }
        let hex: Vec<String> = txs.iter().map(serialize_hex).collect();
        let said = self.node.rpc("testmempoolaccept", json!([hex]));
        let txs: Vec<_> =
            txs.iter().map(|tx| Arc::new(Unconfirmed::parse(&serialize(tx)).unwrap())).collect();
        let moment = Moment { chain: &self.chain, now: self.now, scripts: ScriptCheck::Trusted };
        let ours = self.mempool.test_accept(&txs, moment).unwrap();
        for (said, ours) in said.as_array().unwrap().iter().zip(&ours) {
            assert_eq!(tested_as_json(ours), as_tested(said), "{said}");
            let what = said.get("package-error").or(said.get("reject-reason")).map_or("taken".into(), text);
            self.note(&format!("test: {what}"));
        }
    }

    fn mine(&mut self) {
        self.clock.mine(&self.node, 1);
        self.follow();
    }

    fn reorganise(&mut self) {
        let depth = self.rng.u32(1..4);
        self.node.invalidate(depth);
        self.follow();
        self.compare();
        self.note("reorganised");
        self.clock.mine(&self.node, depth + 1);
        self.follow();
    }

    fn follow(&mut self) {
        self.now = Now { unix: u64::from(self.clock.time), ..self.now.after(Duration::from_secs(1)) };
        self.chain.follow(&self.node, &mut self.mempool, self.now);
    }

    /// Spends what is there, what is spent already, or nothing that anyone knows.
    fn transaction(&mut self, above: &[Transaction]) -> Transaction {
        let count = self.rng.choice([1, 1, 1, 2, 3]).unwrap();
        let mut tx = Transaction {
            version: Version(if self.is_core && self.rng.u8(..5) == 0 { 3 } else { 2 }),
            lock_time: LockTime::ZERO,
            input: Vec::new(),
            output: Vec::new(),
        };
        let mut worth = 0;
        for _ in 0..count {
            let Some((outpoint, value)) = self.coin(above) else { continue };
            if tx.input.iter().all(|input| input.previous_output != outpoint) {
                worth += value;
                tx.input.push(self.input(outpoint));
            }
        }
        if tx.input.is_empty() {
            tx.input.push(self.input(OutPoint { txid: Txid::hash(&[9]), vout: 0 }));
        }
        let outputs = self.rng.u64(1..4);
        for _ in 0..outputs {
            tx.output.push(TxOut { value: Amount::ZERO, script_pubkey: anyone() });
        }
        if self.rng.u8(..5) == 0 {
            let script_pubkey = ScriptBuf::from_bytes(vec![0x51, 2, 0x4e, 0x73]);
            let value = Amount::from_sat(self.rng.choice([0, 100, 240]).unwrap());
            tx.output.push(TxOut { value, script_pubkey });
        }
        if self.rng.u8(..12) == 0 {
            let size = self.rng.choice([900, 4_000, 9_900]).unwrap();
            let len = if self.is_core { size } else { 70 };
            let script = [&[0x6a, 0x4d][..], &(len as u16).to_le_bytes(), &vec![1; len]].concat();
            tx.output.push(TxOut { value: Amount::ZERO, script_pubkey: script.into() });
        }
        let vsize = tx.vsize() as u64;
        let fee = match self.rng.u8(..10) {
            0..2 => 0,
            2 => vsize / 20,
            3 => vsize.div_ceil(10),
            4..6 => self.rng.u64(vsize / 10..vsize),
            6..9 => self.rng.u64(0..3_000),
            _ => self.rng.u64(3_000..30_000),
        };
        let fixed: u64 = tx.output.iter().map(|output| output.value.to_sat()).sum();
        let each = worth.saturating_sub(fee + fixed) / outputs;
        let rest = worth.saturating_sub(fee + fixed) % outputs;
        for output in tx.output.iter_mut().take(outputs as usize) {
            output.value = Amount::from_sat(each);
        }
        tx.output[0].value += Amount::from_sat(rest);
        tx
    }

    fn input(&mut self, previous_output: OutPoint) -> TxIn {
        // An anchor is spent without a witness.
        let is_anchor = self
            .output(&previous_output)
            .is_some_and(|output| output.script_pubkey.as_bytes() == [0x51, 2, 0x4e, 0x73]);
        let witness = if is_anchor { bitcoin::Witness::new() } else { anyone_witness() };
        // Of unconfirmed coins a node remembers a lock of no time as one until the height at which it came, and drops
        // the spender when the chain is lower for a moment.
        let is_confirmed = self.chain.coin(&previous_output).is_some();
        let sequence = match self.rng.u8(..20) {
            0 if is_confirmed => Sequence::ZERO,
            1 if is_confirmed => Sequence(1),
            2 => Sequence(u32::MAX - 1),
            _ => Sequence::MAX,
        };
        TxIn { previous_output, sequence, witness, ..TxIn::default() }
    }

    fn output(&self, outpoint: &OutPoint) -> Option<TxOut> {
        let unconfirmed = self.mempool.get(&outpoint.txid).and_then(|entry| entry.output(outpoint.vout));
        unconfirmed.or_else(|| self.chain.coin(outpoint).map(|coin| coin.output))
    }

    /// An outpoint to spend, and what it is worth.
    fn coin(&mut self, above: &[Transaction]) -> Option<(OutPoint, u64)> {
        let entries: Vec<_> = self.mempool.pool().entries().cloned().collect();
        let kind = self.rng.u8(..100);
        if !above.is_empty() && kind < 60 {
            let tx = self.rng.choice(above).unwrap();
            let vout = self.rng.usize(..tx.output.len());
            return Some((
                OutPoint { txid: tx.compute_txid(), vout: vout as u32 },
                tx.output[vout].value.to_sat(),
            ));
        }
        let mut found: Vec<(OutPoint, u64)> = match kind {
            // What nobody made.
            0..2 => vec![(OutPoint { txid: Txid::hash(&[kind]), vout: 0 }, WORTH)],
            // What an unconfirmed transaction made, spent or not.
            2..40 => entries
                .iter()
                .flat_map(|entry| {
                    let outputs = (0..).zip(&entry.outputs).filter(|(_, output)| !output.is_unspendable);
                    outputs.map(|(vout, output)| (OutPoint { txid: entry.txid, vout }, output.value.to_sat()))
                })
                .collect(),
            // What one spends already.
            40..60 if self.is_core => {
                let inputs = entries.iter().flat_map(|entry| &entry.inputs);
                inputs.map(|input| (input.outpoint, input.value.to_sat())).collect()
            }
            _ => {
                let script = anyone();
                let coins = self.chain.coins().filter(|(_, coin)| {
                    coin.output.script_pubkey == script && !coin.is_coinbase && coin.output.value.to_sat() > 0
                });
                coins.map(|(outpoint, coin)| (*outpoint, coin.output.value.to_sat())).collect()
            }
        };
        if !self.is_core {
            found.retain(|(outpoint, _)| self.mempool.pool().spender(outpoint).is_none());
        }
        found.sort_unstable();
        self.rng.choice(found)
    }
}

fn raw(tx: &Transaction) -> Bytes {
    serialize(tx).into()
}

/// As the node writes it, with amounts in satoshi.
fn member_as_json(member: &peerdex::mempool::PackageMember) -> Value {
    let mut json = json!({"txid": member.txid.to_string()});
    match (&member.other_wtxid, &member.result) {
        (Some(other), _) => json["other-wtxid"] = json!(other.to_string()),
        (None, Err(error)) => json["error"] = json!(error),
        (None, Ok(taken)) => {
            json["vsize"] = json!(taken.vsize);
            json["base"] = json!(taken.fee.to_sat());
            if let Some((rate, wtxids)) = &taken.effective {
                json["effective"] =
                    json!([rate.0, wtxids.iter().map(|id| id.to_string()).collect::<Vec<_>>()]);
            }
        }
    }
    json
}

fn as_sats(said: &Value) -> Value {
    let mut json = json!({"txid": said["txid"]});
    for key in ["other-wtxid", "error", "vsize"] {
        if let Some(value) = said.get(key) {
            json[key] = value.clone();
        }
    }
    if let Some(fees) = said.get("fees") {
        json["base"] = json!(satoshi(&fees["base"]));
        if let Some(rate) = fees.get("effective-feerate") {
            json["effective"] = json!([satoshi(rate), fees["effective-includes"]]);
        }
    }
    json
}

fn tested_as_json(result: &TestResult) -> Value {
    let mut json = json!({"txid": result.tx.txid().to_string()});
    if let Some(package) = &result.package {
        json["package-error"] = json!(package.to_string());
    }
    match &result.verdict {
        None => {}
        Some(Ok(taken)) => {
            json["allowed"] = json!(true);
            json["paid"] = json!([taken.vsize, taken.fee.to_sat()]);
        }
        Some(Err(reject)) => {
            json["allowed"] = json!(false);
            json["reason"] = json!(reject.to_string());
        }
    }
    json
}

fn as_tested(said: &Value) -> Value {
    let mut json = json!({"txid": said["txid"]});
    for key in ["package-error", "allowed"] {
        if let Some(value) = said.get(key) {
            json[key] = value.clone();
        }
    }
    if said["allowed"] == json!(true) {
        json["paid"] = json!([said["vsize"], satoshi(&said["fees"]["base"])]);
    }
    if let Some(reason) = said.get("reject-details").or(said.get("reject-reason")) {
        let missing = "bad-txns-inputs-missingorspent";
        json["reason"] = if *reason == json!("missing-inputs") { json!(missing) } else { reason.clone() };
    }
    json
}

#[test]
fn the_same_steps_leave_the_same_mempool() {
    let seed = std::env::var("PEERDEX_SEED").map_or(1, |seed| seed.parse().unwrap());
    let Some(mut world) = World::start(seed) else { return };
    for step in 0..STEPS {
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| world.step()));
        assert!(result.is_ok(), "seed {seed}, step {step}");
    }
    println!("{:#?}", world.seen);
    let all: &[&str] = if world.is_core { SAID } else { &SAID[..SAID_BY_KNOTS] };
    let missing: Vec<_> = all.iter().filter(|what| !world.seen.contains_key(**what)).collect();
    assert!(missing.is_empty(), "never said: {missing:?}");
}
