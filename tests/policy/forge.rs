//! Makes transactions with nothing, one thing or several things wrong, by a seed.

use bitcoin::absolute::LockTime;
use bitcoin::transaction::Version;
use bitcoin::{Amount, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut};
use fastrand::Rng;

use peerdex::mempool::ChainState;

use super::chain::Chain;
use super::coins::{Coins, Spendable, WORTH, push};

/// What a node says of some of the cases.
pub const REASONS: &[&str] = &[
    "taken",
    "script",
    "bad-cb-length",
    "bad-txns-in-belowout",
    "bad-txns-inputs-duplicate",
    "bad-txns-nonstandard-inputs",
    "bad-txns-premature-spend-of-coinbase",
    "bad-txns-prevout-null",
    "bad-txns-too-many-sigops",
    "bad-txns-txouttotal-toolarge",
    "bad-txns-vout-empty",
    "bad-txns-vout-negative",
    "bad-txns-vout-toolarge",
    "bad-witness-nonstandard",
    "coinbase",
    "dust",
    "min relay fee not met",
    "non-BIP68-final",
    "non-final",
    "scriptpubkey",
    "scriptsig-not-pushonly",
    "scriptsig-size",
    "tx-size",
    "tx-size-small",
    "version",
];

/// Scripts of outputs; the most are standard.
fn output_scripts() -> Vec<Vec<u8>> {
    let key = [&[3][..], &[9; 32]].concat();
    let program = |version: u8, len: u8| [&[version, len][..], &vec![7; len.into()]].concat();
    let multisig = |required: u8, keys: u8| {
        [vec![0x50 + required], push(&key).repeat(keys.into()), vec![0x50 + keys, 0xae]].concat()
    };
    let data = |len: usize| [vec![0x6a], push(&vec![1; len])].concat();
    vec![
        program(0, 20),
        program(0, 20),
        program(0, 32),
        program(0x51, 32),
        program(0x51, 20),
        program(0x52, 40),
        vec![0x51, 2, 0x4e, 0x73],
        [&[0xa9, 20][..], &[5; 20], &[0x87]].concat(),
        [&[0x76, 0xa9, 20][..], &[5; 20], &[0x88, 0xac]].concat(),
        [push(&key), vec![0xac]].concat(),
        multisig(1, 1),
        multisig(2, 3),
        data(20),
        data(75),
        // What stands here or behind is not standard, or not everywhere.
        data(80),
        data(81),
        [vec![0x6a], vec![0x51; 60]].concat(),
        vec![0x6a],
        multisig(4, 4),
        program(0, 21),
        vec![0x51],
        vec![0x6a, 0x61],
        vec![],
    ]
}

/// What is wrong with a case.
type Flaw = (&'static str, fn(&mut Case<'_>));

const FLAWS: &[Flaw] = &[
    ("version", |case| case.tx.version = Version(case.rng.choice([-1, 0, 4, i32::MAX]).unwrap())),
    ("large", |case| {
        let size = case.rng.usize(90_000..110_000);
        case.tx
            .output
            .push(paying(0, [&[0x6a, 0x4e][..], &(size as u32).to_le_bytes(), &vec![0; size]].concat()));
    }),
    ("small", |case| {
        let input = case.input_of("p2wsh");
        case.tx.input = vec![input];
        // 4 version, 1 + 41 input, 1 + 8 + 1 output, 4 lock time: 60 without the script.
        let len = case.rng.usize(1..8);
        case.tx.output = vec![paying(0, [&[0x6a][..], &vec![0x51; len - 1]].concat())];
        case.keep_outputs = true;
    }),
    ("not push", |case| case.add("not only pushes")),
    ("many outputs", |case| {
        for _ in 0..case.rng.usize(1..5) {
            let script = case.output_script();
            case.tx.output.push(paying(10_000, script));
        }
    }),
    ("dust", |case| {
        for _ in 0..case.rng.usize(1..3) {
            let script = case.output_script();
            let dust = case
                .rng
                .choice([0, 1, 239, 240, 241, 293, 294, 329, 330, 539, 540, 545, 546, 1_000])
                .unwrap();
            case.tx.output.push(paying(dust, script));
        }
    }),
    ("no fee", |case| case.fee = 0),
    ("some fee", |case| case.fee = case.rng.u64(0..400)),
    ("lock by height", |case| {
        let height = case.chain_height();
        case.tx.lock_time = LockTime::from_consensus(height + case.rng.u32(0..4) - 1);
        case.tx.input[0].sequence =
            case.rng.choice([Sequence::MAX, Sequence(u32::MAX - 1), Sequence::ZERO]).unwrap();
    }),
    ("lock by time", |case| {
        let mtp = case.mtp();
        case.tx.lock_time = LockTime::from_consensus(mtp + case.rng.u32(0..4) - 1);
        case.tx.input[0].sequence = case.rng.choice([Sequence::MAX, Sequence(u32::MAX - 1)]).unwrap();
    }),
    ("relative height", |case| case.tx.input[0].sequence = Sequence(case.rng.u32(18..25))),
    ("relative time", |case| {
        case.tx.input[0].sequence = Sequence(1 << 22 | case.rng.u32(0..50) | case.rng.u32(0..2) << 31);
    }),
    ("coinbase spent", |case| {
        let coins = &case.coins.coinbases;
        let coin = coins[case.rng.usize(..coins.len())].clone();
        case.spend(&coin);
    }),
    ("more out than in", |case| case.fee = 0u64.wrapping_sub(case.rng.u64(1..200_000_000))),
    ("null", |case| case.tx.input.push(TxIn { previous_output: OutPoint::null(), ..TxIn::default() })),
    ("coinbase", |case| {
        let script_sig = ScriptBuf::from_bytes(vec![1; case.rng.choice([1, 2, 100, 101]).unwrap()]);
        case.tx.input = vec![TxIn { previous_output: OutPoint::null(), script_sig, ..TxIn::default() }];
    }),
    ("twice", |case| {
        let input = case.tx.input[0].clone();
        case.tx.input.push(input);
    }),
    ("no output", |case| {
        case.tx.output.clear();
        case.keep_outputs = true;
    }),
    ("huge value", |case| {
        let values = [u64::MAX, 1 << 63, 2_100_000_000_000_001, 2_100_000_000_000_000, (1 << 63) - 1];
        let huge = case.rng.choice(values).unwrap();
        case.tx.output.push(paying(huge, vec![0x51, 2, 0x4e, 0x73]));
        case.tx.output.push(paying(10_000, vec![0x51, 2, 0x4e, 0x73]));
        case.keep_outputs = true;
    }),
    ("many sigops", |case| {
        let key = [&[3][..], &[9; 32]].concat();
        let script = [vec![0x51], push(&key), vec![0x51, 0xae]].concat();
        for _ in 0..case.rng.usize(195..206) {
            case.tx.output.push(paying(1_000, script.clone()));
        }
    }),
    ("cut witness", |case| case.tx.input[0].witness.clear()),
];

struct Case<'a> {
    rng: &'a mut Rng,
    chain: &'a Chain,
    coins: &'a Coins,
    tx: Transaction,
    /// Satoshi; the first output takes what is left.
    fee: u64,
    keep_outputs: bool,
    spent: Vec<OutPoint>,
}

/// See the module.
pub struct Forge<'a> {
    rng: Rng,
    chain: &'a Chain,
    coins: &'a Coins,
    scripts: Vec<Vec<u8>>,
    made: usize,
}

impl<'a> Forge<'a> {
    pub fn new(chain: &'a Chain, coins: &'a Coins, seed: u64) -> Self {
        Self { rng: Rng::with_seed(seed), chain, coins, scripts: output_scripts(), made: 0 }
    }

    /// One more, and what was done to it. First every kind of coin by itself, then each with flaws.
    pub fn next(&mut self) -> (String, Transaction) {
        let number = self.made;
        self.made += 1;
        let kinds = &self.coins.spendable;
        let inputs = if number < kinds.len() { vec![number] } else { self.some_inputs() };
        let tx = Transaction {
            version: Version(self.rng.i32(1..4)),
            lock_time: LockTime::ZERO,
            input: Vec::new(),
            output: vec![paying(0, self.scripts[0].clone())],
        };
        let mut case = Case {
            rng: &mut self.rng,
            chain: self.chain,
            coins: self.coins,
            tx,
            fee: 20_000,
            keep_outputs: false,
            spent: Vec::new(),
        };
        let mut name = String::new();
        for input in inputs {
            name += kinds[input].name;
            name += ", ";
            case.spend(&kinds[input]);
        }
        let flaws = if number < kinds.len() { 0 } else { case.rng.usize(1..4) };
        for _ in 0..flaws {
            let (what, apply) = FLAWS[case.rng.usize(..FLAWS.len())];
            name += what;
            name += ", ";
            apply(&mut case);
        }
        (name, case.finish())
    }

    fn some_inputs(&mut self) -> Vec<usize> {
        let count = self.coins.spendable.len();
        match self.rng.u8(..4) {
            0 => vec![self.rng.usize(..count)],
            1 => (0..self.rng.usize(2..4)).map(|_| self.rng.usize(..count)).collect(),
            // One of the first kinds, which anyone can spend.
            _ => vec![self.rng.usize(..12)],
        }
    }
}

impl Case<'_> {
    fn spend(&mut self, coin: &Spendable) {
        if self.spent.contains(&coin.outpoint) {
            return;
        }
        self.spent.push(coin.outpoint);
        self.tx.input.push(input(coin));
    }

    fn input_of(&self, name: &str) -> TxIn {
        input(self.coins.kind(name).next().unwrap())
    }

    fn add(&mut self, name: &str) {
        let coin = self.coins.kind(name).next().unwrap().clone();
        self.spend(&coin);
    }

    fn output_script(&mut self) -> Vec<u8> {
        let scripts = output_scripts();
        scripts[self.rng.usize(..scripts.len())].clone()
    }

    fn chain_height(&self) -> u32 {
        self.chain.height().0
    }

    fn mtp(&self) -> u32 {
        self.chain.median_time_past(self.chain.height())
    }

    /// Pays what is left to the first output.
    fn finish(mut self) -> Transaction {
        if !self.keep_outputs {
            let coins = self.tx.input.iter().filter_map(|input| self.chain.coin(&input.previous_output));
            let paid_in: u64 = coins.map(|coin| coin.output.value.to_sat()).sum();
            let others: u64 = self.tx.output.iter().skip(1).map(|output| output.value.to_sat()).sum();
            let left = paid_in.saturating_sub(others).wrapping_sub(self.fee);
            let left = if left > 1 << 62 { WORTH } else { left };
            self.tx.output[0].value = Amount::from_sat(left);
        }
        self.tx
    }
}

fn input(coin: &Spendable) -> TxIn {
    TxIn {
        previous_output: coin.outpoint,
        script_sig: coin.script_sig.clone(),
        sequence: Sequence::MAX,
        witness: coin.witness.clone(),
    }
}

fn paying(satoshi: u64, script: Vec<u8>) -> TxOut {
    TxOut { value: Amount::from_sat(satoshi), script_pubkey: ScriptBuf::from_bytes(script) }
}
