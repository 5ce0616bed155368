//! A mempool without room, in which time passes: what leaves is what the node lets go, and newcomers must pay what the
//! node asks of them.
//!
//! A node counts the bytes of its own structures and we those of ours, so all transactions here are of one size: then
//! both hold the same number.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bitcoin::absolute::LockTime;
use bitcoin::consensus::encode::{serialize, serialize_hex};
use bitcoin::transaction::Version;
use bitcoin::{Amount, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut};
use fastrand::Rng;
use peerdex::mempool::{Admission, FeeRate, Mempool, Moment, Policy, ScriptCheck, Unconfirmed};
use peerdex::time::{Instant, Now};
use serde_json::json;

use super::chain::Chain;
use super::coins::{Clock, anyone, anyone_witness, miner, spend_reward};
use super::support::naive::satoshi;
use super::support::node::{Node, NodeError, text};

const STEPS: usize = 200;
/// Coins of a reward, each worth some million satoshi.
const COINS: u64 = 100;
/// Blocks whose rewards are cut into coins.
const REWARDS: u32 = 6;
/// What the node takes at least (`-maxmempool`), in megabytes.
const ROOM: &str = "-maxmempool=5";

struct Room {
    node: Node,
    mempool: Mempool,
    chain: Chain,
    clock: Clock,
    now: Now,
    rng: Rng,
    coins: Vec<(OutPoint, u64)>,
    /// What makes a transaction large.
    ballast: Vec<TxOut>,
    /// Newcomers that were the worst, and those that paid less than a full mempool asks for.
    full: usize,
    cheap: usize,
}

impl Room {
    /// Both hold what they can.
    fn start(seed: u64) -> Option<Self> {
        let (node, policy) = super::node(&[ROOM], &[])?;
        let ballast = if policy == Policy::core() {
            let script = [&[0x6a, 0x4e][..], &30_000_u32.to_le_bytes(), &[1; 30_000]].concat();
            vec![TxOut { value: Amount::ZERO, script_pubkey: ScriptBuf::from_bytes(script) }]
        } else {
            vec![TxOut { value: Amount::from_sat(400), script_pubkey: anyone() }; 700]
        };
        let mut clock = Clock::of(&node);
        clock.mine(&node, 100 + REWARDS);
        let mut coins = Vec::new();
        for height in 1..=REWARDS {
            let each = 4_900_000_000 / COINS;
            let coin = TxOut { value: Amount::from_sat(each), script_pubkey: anyone() };
            let payment = spend_reward(&node, height, vec![coin; COINS as usize]);
            node.generate_block_to(&miner(), &[serialize_hex(&payment)]);
            coins.extend(
                (0..COINS as u32).map(|vout| (OutPoint { txid: payment.compute_txid(), vout }, each)),
            );
        }
        let now = Now { instant: Instant::default(), unix: u64::from(clock.time) };
        let chain = Chain::of(&node);
        let mempool = Mempool::new(policy.clone());
        let rng = Rng::with_seed(seed);
        let (full, cheap) = (0, 0);
        let mut room = Self { node, mempool, chain, clock, now, rng, coins, ballast, full, cheap };

        // Until one has to go.
        let mut sent = Vec::new();
        while room.held_by_node().len() == sent.len() {
            let tx = room.of_chain();
            let _ = room.node.try_rpc("sendrawtransaction", json!([serialize_hex(&tx)]));
            sent.push(tx);
        }
        let (last, before) = sent.split_last().unwrap();
        for tx in before {
            room.take(tx).unwrap();
        }
        let bytes = room.mempool.pool().bytes();
        room.mempool = Mempool::new(Policy { max_bytes: bytes + bytes / before.len() / 2, ..policy });
        for tx in before {
            room.take(tx).unwrap();
        }
        let _ = room.take(last);
        room.compare();
        Some(room)
    }

    fn held_by_node(&self) -> BTreeSet<String> {
        self.node.rpc("getrawmempool", json!([])).as_array().unwrap().iter().map(text).collect()
    }

    fn compare(&mut self) {
        self.mempool.trim(self.now);
        let ours: BTreeSet<String> =
            self.mempool.pool().entries().map(|entry| entry.txid.to_string()).collect();
        assert_eq!(ours, self.held_by_node());
        let floor = satoshi(&self.node.rpc("getmempoolinfo", json!([]))["mempoolminfee"]);
        assert_eq!(self.mempool.min_fee(self.now), FeeRate(floor));
    }

    /// A large one that pays what is asked for, or less, or much more.
    fn large(&mut self, (outpoint, worth): (OutPoint, u64)) -> Transaction {
        let input = TxIn {
            previous_output: outpoint,
            sequence: Sequence::MAX,
            witness: anyone_witness(),
            ..TxIn::default()
        };
        let own = TxOut { value: Amount::ZERO, script_pubkey: anyone() };
        let output = std::iter::once(own).chain(self.ballast.iter().cloned()).collect();
        let mut tx =
            Transaction { version: Version::TWO, lock_time: LockTime::ZERO, input: vec![input], output };
        let floor = self.mempool.min_fee(self.now).0;
        let rate = self.rng.choice([floor, 150, 300, 600, 1_200, 3_000]).unwrap() + self.rng.u64(..50);
        let spent = FeeRate(rate).fee(tx.vsize() as u64)
            + self.ballast.iter().map(|output| output.value.to_sat()).sum::<u64>();
        tx.output[0].value = Amount::from_sat(worth - spent);
        tx
    }

    fn of_chain(&mut self) -> Transaction {
        let at = self.rng.usize(..self.coins.len());
        let coin = self.coins.swap_remove(at);
        self.large(coin)
    }

    /// Spends what an unconfirmed one made; `None` where that is spent or nearly worthless.
    fn child(&mut self) -> Option<Transaction> {
        let entries: BTreeSet<_> = self
            .mempool
            .pool()
            .entries()
            .map(|entry| (entry.txid, entry.outputs[0].value.to_sat()))
            .collect();
        let (txid, worth) = self.rng.choice(entries)?;
        let outpoint = OutPoint { txid, vout: 0 };
        let is_free = self.mempool.pool().spender(&outpoint).is_none() && worth > 2_000_000;
        is_free.then(|| self.large((outpoint, worth)))
    }

    fn take(&mut self, tx: &Transaction) -> Result<(), String> {
        let tx = Arc::new(Unconfirmed::parse(&serialize(tx)).unwrap());
        let moment = Moment { chain: &self.chain, now: self.now, scripts: ScriptCheck::Trusted };
        match self.mempool.admit(&tx, moment) {
            Admission::Accepted(_) => Ok(()),
            Admission::Rejected(reject) => Err(reject.to_string()),
            other => panic!("{other:?}"),
        }
    }

    /// Whether both took it.
    fn send(&mut self, tx: &Transaction) -> bool {
        let said = self.node.try_rpc("sendrawtransaction", json!([serialize_hex(tx)]));
        let ours = self.take(tx);
        let is_taken = said.is_ok();
        match said {
            Ok(_) => assert_eq!(ours, Ok(())),
            Err(NodeError { message, .. }) => {
                self.full += usize::from(message.starts_with("mempool full"));
                self.cheap += usize::from(message.starts_with("mempool min fee not met"));
                assert_eq!(ours, Err(message));
            }
        }
        is_taken
    }

    fn pass(&mut self, hours: u32) {
        self.clock.time += hours * 3_600;
        self.node.rpc("setmocktime", json!([self.clock.time]));
        self.tell_time();
    }

    /// A block of the best, or one that has nothing and lets the floor fall all the same.
    fn mine(&mut self) {
        if self.rng.u8(..4) == 0 {
            self.clock.mine(&self.node, 1);
            self.tell_time();
        } else {
            self.pass(1);
            self.node.generate_block_to(&miner(), &[]);
        }
        self.chain.follow(&self.node, &mut self.mempool, self.now);
    }

    fn tell_time(&mut self) {
        let passed = u64::from(self.clock.time) - self.now.unix;
        self.now = self.now.after(Duration::from_secs(passed));
    }

    fn step(&mut self) {
        match self.rng.u8(..100) {
            0..60 => {
                let tx = self.of_chain();
                self.send(&tx);
            }
            60..85 => {
                if let Some(tx) = self.child() {
                    self.send(&tx);
                }
            }
            85..95 => {
                let hours = self.rng.u32(1..8);
                self.pass(hours);
            }
            _ => self.mine(),
        }
        self.compare();
    }

    /// Two weeks later: the next that comes in drives out what waited too long.
    fn expire(&mut self) {
        let before = self.held_by_node();
        for hours in [200, 137] {
            self.pass(hours);
            loop {
                let tx = self.of_chain();
                if self.send(&tx) {
                    break;
                }
            }
        }
        self.compare();
        let after = self.held_by_node();
        assert!(before.is_disjoint(&after) && after.len() == 2, "{} of {}", after.len(), before.len());
    }
}

#[test]
fn a_full_mempool_lets_go_what_the_node_lets_go() {
    let seed = std::env::var("PEERDEX_SEED").map_or(1, |seed| seed.parse().unwrap());
    let Some(mut room) = Room::start(seed) else { return };
    let most = room.mempool.pool().len();
    for step in 0..STEPS {
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| room.step()));
        assert!(result.is_ok(), "seed {seed}, step {step}");
    }
    room.expire();
    println!("{most} fit in, {} found it full, {} paid too little", room.full, room.cheap);
    assert!(room.cheap > 10, "there was room");
}
