//! Every way in which a block can break rung 5, one at a time.

use std::collections::{BTreeMap, BTreeSet};

use bitcoin::script::{Builder, PushBytesBuf};
use bitcoin::{
    Amount, Block, BlockHash, Network, OutPoint, ScriptBuf, Sequence, Transaction, Txid, Witness, transaction,
};
use chainstore::{Coin, Height, ScriptClass, ScriptHash, TxNum};

use super::connect::{ConnectedBlock, SpendContext, connect_block, subsidy};
use super::error::{BlockError, Verdict};
use super::params::Params;
use super::testing::{
    HEIGHT, PAID, PARENT_MTP, SUBSIDY, block, check, input, outpoint, output, paying, seal, spend,
    transaction,
};

/// What every coin is worth, unless a test says otherwise.
const COIN: u64 = 1_500;
/// Of the two spends of [`block`].
const FEES: u64 = 2 * (COIN - PAID);
/// Height of every coin, unless a test says otherwise.
const COIN_HEIGHT: Height = Height(90);
const MAX_MONEY: u64 = 2_100_000_000_000_000;

/// A block and the chain below it.
struct Case {
    block: Block,
    coins: BTreeMap<OutPoint, Coin>,
    params: Params,
    /// Median times past that are not [`PARENT_MTP`].
    mtps: BTreeMap<Height, u32>,
    unspent: BTreeSet<Txid>,
    at_bip34_height: Option<BlockHash>,
}

impl Case {
    fn new() -> Self {
        Self {
            block: block(),
            coins: (1..=9).map(|of| (outpoint(of), coin(COIN, &[0x51]))).collect(),
            params: Params::of(Network::Regtest),
            mtps: BTreeMap::new(),
            unspent: BTreeSet::new(),
            at_bip34_height: None,
        }
    }

    fn connect(mut self) -> Result<ConnectedBlock, BlockError> {
        seal(&mut self.block);
        let checked = check(&self.block, HEIGHT, &self.params).expect("the block is right in itself");
        let inputs = self.block.txdata[1..].iter().flat_map(|tx| &tx.input);
        let coins: Vec<_> = inputs.map(|input| self.coins.get(&input.previous_output).copied()).collect();
        let context = SpendContext {
            params: &self.params,
            parent_mtp: PARENT_MTP,
            mtp_at: &|height| self.mtps.get(&height).copied().unwrap_or(PARENT_MTP),
            at_bip34_height: self.at_bip34_height,
            has_unspent: &|txid, _| self.unspent.contains(txid),
        };
        connect_block(checked, &coins, &context)
    }

    fn coin(&mut self, of: u8) -> &mut Coin {
        self.coins.get_mut(&outpoint(of)).unwrap()
    }

    /// Has the first spend wait for its coin as `sequence` says.
    fn wait(&mut self, sequence: u32) {
        self.block.txdata[1].input[0].sequence = Sequence(sequence);
    }

    fn add(&mut self, tx: Transaction) {
        self.block.txdata.push(tx);
    }

    /// A transaction that spends the first output of the one at `position`.
    fn spend_own(&self, position: usize) -> Transaction {
        let outpoint = OutPoint { txid: self.block.txdata[position].compute_txid(), vout: 0 };
        transaction(vec![input(outpoint)], vec![output(1)])
    }

    /// Signature operations whose cost is `cost`, a multiple of four, in outputs: legacy ones.
    fn add_legacy_sigops(&mut self, cost: usize) {
        self.block.txdata[1].output.push(paying(0, vec![0xac; cost / 4]));
    }

    /// Spends a coin of a P2SH output whose redeem script has `operations`.
    fn spend_p2sh(&mut self, redeem_script: &[u8]) {
        let script = ScriptBuf::from_bytes(redeem_script.to_vec());
        self.coins.insert(outpoint(3), coin(COIN, script.to_p2sh().as_bytes()));
        let mut tx = spend(3);
        tx.input[0].script_sig = push(redeem_script);
        self.add(tx);
    }

    fn spend_p2wsh(&mut self, witness_script: &[u8]) {
        let script = ScriptBuf::from_bytes(witness_script.to_vec());
        self.coins.insert(outpoint(3), coin(COIN, script.to_p2wsh().as_bytes()));
        let mut tx = spend(3);
        tx.input[0].witness = Witness::from_slice(&[&[][..], witness_script]);
        self.add(tx);
    }

    fn spend_p2wpkh(&mut self) {
        let program = [&[0x00, 0x14][..], &[5; 20]].concat();
        self.coins.insert(outpoint(4), coin(COIN, &program));
        self.add(spend(4));
    }
}

fn coin(sat: u64, script: &[u8]) -> Coin {
    let script = ScriptBuf::from_bytes(script.to_vec());
    Coin {
        value: Amount::from_sat(sat),
        tx_num: TxNum(7),
        height: COIN_HEIGHT,
        is_coinbase: false,
        class: ScriptClass::of(&script),
        script_key: ScriptHash::of(&script).key(),
    }
}

fn push(bytes: &[u8]) -> ScriptBuf {
    Builder::new().push_slice(PushBytesBuf::try_from(bytes.to_vec()).unwrap()).into_script()
}

/// BIP68: a wait in units of 512 seconds.
fn units(count: u32) -> u32 {
    1 << 22 | count
}

/// Name, what is done, the reject reason or that there is none.
type Row = (&'static str, fn(&mut Case), Option<&'static str>);

const MISSING: Option<&str> = Some("bad-txns-inputs-missingorspent");
const PREMATURE: Option<&str> = Some("bad-txns-premature-spend-of-coinbase");
const NONFINAL: Option<&str> = Some("bad-txns-nonfinal");
const SIGOPS: Option<&str> = Some("bad-blk-sigops");

const ROWS: &[Row] = &[
    ("as it is", |_| (), None),
    ("unknown coin", |c| c.coins.retain(|known, _| *known != outpoint(1)), MISSING),
    ("other output of a known one", |c| c.block.txdata[1].input[0].previous_output.vout = 1, MISSING),
    ("double spend", |c| c.add(transaction(vec![input(outpoint(1))], vec![output(1)])), MISSING),
    ("own coin", |c| c.add(c.spend_own(1)), None),
    ("own coin twice", own_coin_twice, MISSING),
    ("own coin twice, and given", own_coin_twice_and_given, MISSING),
    ("coin of a later transaction", |c| c.block.txdata.insert(1, c.spend_own(2)), MISSING),
    ("own OP_RETURN", |c| spend_unspendable(c, vec![0x6a]), MISSING),
    ("own script of 10001", |c| spend_unspendable(c, vec![0x51; 10_001]), MISSING),
    ("own script of 10000", |c| spend_unspendable(c, vec![0x51; 10_000]), None),
    ("own coinbase", own_coinbase, PREMATURE),
    ("coinbase of 99 ago", |c| coinbase_coin(c, HEIGHT.0 - 99), PREMATURE),
    ("coinbase of 100 ago", |c| coinbase_coin(c, HEIGHT.0 - 100), None),
    ("payment of 1 ago", |c| c.coin(1).height = Height(HEIGHT.0 - 1), None),
    ("coin over 21 million", |c| worth(c, &[MAX_MONEY + 1]), Some("bad-txns-inputvalues-outofrange")),
    ("coins over 21 million", |c| worth(c, &[MAX_MONEY, 1]), Some("bad-txns-inputvalues-outofrange")),
    ("coins of 21 million", |c| worth(c, &[MAX_MONEY - 500, 500]), None),
    ("fees over 21 million", fees_over_all_money, Some("bad-txns-accumulated-fee-outofrange")),
    ("fees of 21 million", fees_of_all_money, None),
    ("paying all", |c| c.coin(1).value = Amount::from_sat(PAID), None),
    ("paying more", |c| c.coin(1).value = Amount::from_sat(PAID - 1), Some("bad-txns-in-belowout")),
    // A coin at 90 in a block at 200.
    ("110 blocks", |c| c.wait(110), None),
    ("111 blocks", |c| c.wait(111), NONFINAL),
    ("111 blocks, disabled", |c| c.wait(1 << 31 | 111), None),
    ("111 blocks, bits that mean nothing", |c| c.wait(1 << 21 | 1 << 16 | 110), None),
    ("111 blocks, version 1", |c| versioned(c, 1), None),
    ("111 blocks, version 0", |c| versioned(c, 0), None),
    ("111 blocks, version -1", |c| versioned(c, -1), NONFINAL),
    ("111 blocks, before BIP68", |c| bip68_from(c, HEIGHT.0 + 1), None),
    ("111 blocks, first of BIP68", |c| bip68_from(c, HEIGHT.0), NONFINAL),
    ("own coin, 0 blocks", |c| own_coin_waits(c, 0), None),
    ("own coin, 1 block", |c| own_coin_waits(c, 1), NONFINAL),
    ("own coin, 0 seconds", |c| own_coin_waits(c, units(0)), None),
    ("own coin, 512 seconds", |c| own_coin_waits(c, units(1)), NONFINAL),
    // The clock starts at the median of the block below the coin's.
    ("1024 seconds", |c| waits_since(c, PARENT_MTP - 1_024, 2), None),
    ("1024 seconds, one is left", |c| waits_since(c, PARENT_MTP - 1_023, 2), NONFINAL),
    ("most seconds", |c| waits_since(c, PARENT_MTP - 0xffff * 512, 0xffff), None),
    ("most seconds, one is left", |c| waits_since(c, PARENT_MTP - 0xffff * 512 + 1, 0xffff), NONFINAL),
    ("second input waits", second_input_waits, NONFINAL),
    ("legacy and P2SH 80000", |c| (c.add_legacy_sigops(79_992), c.spend_p2sh(&[0x52, 0xae])).1, None),
    ("legacy and P2SH 80004", |c| (c.add_legacy_sigops(79_992), c.spend_p2sh(&[0x53, 0xae])).1, SIGOPS),
    (
        "P2SH, number far from multisig",
        |c| (c.add_legacy_sigops(79_916), c.spend_p2sh(&[0x52, 0xac, 0xae])).1,
        None,
    ),
    ("the same, 80004", |c| (c.add_legacy_sigops(79_920), c.spend_p2sh(&[0x52, 0xac, 0xae])).1, SIGOPS),
    ("legacy and P2WSH 80000", |c| (c.add_legacy_sigops(79_984), c.spend_p2wsh(&[0x60, 0xae])).1, None),
    (
        "legacy and P2WSH 80001",
        |c| (c.add_legacy_sigops(79_984), c.spend_p2wsh(&[0x60, 0xae, 0xac])).1,
        SIGOPS,
    ),
    ("legacy, P2WSH and P2WPKH 80000", |c| (legacy_and_p2wsh(c, &[0x5f, 0xae]), c.spend_p2wpkh()).1, None),
    ("legacy, P2WSH and P2WPKH 80001", |c| (legacy_and_p2wsh(c, &[0x60, 0xae]), c.spend_p2wpkh()).1, SIGOPS),
    ("all due", |c| c.block.txdata[0].output[0] = output(SUBSIDY + FEES), None),
    ("one more", |c| c.block.txdata[0].output[0] = output(SUBSIDY + FEES + 1), Some("bad-cb-amount")),
    (
        "one more in another output",
        |c| c.block.txdata[0].output.push(output(FEES + 1)),
        Some("bad-cb-amount"),
    ),
    ("nothing", |c| c.block.txdata[0].output[0] = output(0), None),
    ("not yet halved", |c| subsidy_of_before(c, 201), None),
    ("halved", |c| subsidy_of_before(c, 200), Some("bad-cb-amount")),
    ("repeats a payment", |c| repeat(c, 1), Some("bad-txns-BIP30")),
    ("repeats a coinbase", |c| repeat(c, 0), Some("bad-txns-BIP30")),
    (
        "repeats, but BIP34 forbids that",
        |c| {
            repeat(c, 0);
            c.params.bip34_hash = Some(c.params.genesis_hash());
            c.at_bip34_height = c.params.bip34_hash;
        },
        None,
    ),
];

fn own_coin_twice(case: &mut Case) {
    let first = case.spend_own(1);
    let mut second = first.clone();
    second.output.push(output(1));
    case.add(first);
    case.add(second);
}

fn own_coin_twice_and_given(case: &mut Case) {
    own_coin_twice(case);
    let own = case.spend_own(1).input[0].previous_output;
    case.coins.insert(own, coin(COIN, &[0x51]));
}

fn spend_unspendable(case: &mut Case, script: Vec<u8>) {
    case.block.txdata[1].output[0] = paying(PAID, script);
    let spend = case.spend_own(1);
    case.add(spend);
}

fn own_coinbase(case: &mut Case) {
    // Without a commitment, which would be to the spend of what holds it.
    case.block.txdata.iter_mut().for_each(|tx| tx.input[0].witness.clear());
    case.block.txdata[0].output.truncate(1);
    case.add(case.spend_own(0));
}

fn coinbase_coin(case: &mut Case, height: u32) {
    let coin = case.coin(1);
    coin.is_coinbase = true;
    coin.height = Height(height);
}

/// The first spend has coins of these values.
fn worth(case: &mut Case, values: &[u64]) {
    let inputs = (5..).zip(values).map(|(of, value)| {
        case.coins.insert(outpoint(of), coin(*value, &[0x51]));
        input(outpoint(of))
    });
    case.block.txdata[1].input = inputs.collect();
    // All but the fee goes on, so that the fees of the block stay in range.
    let total: u64 = values.iter().sum();
    case.block.txdata[1].output[0] = output(total.min(MAX_MONEY) - 1);
}

fn fees_over_all_money(case: &mut Case) {
    case.coin(1).value = Amount::from_sat(MAX_MONEY);
    case.coin(2).value = Amount::from_sat(2 * PAID + 1);
}

fn fees_of_all_money(case: &mut Case) {
    case.coin(1).value = Amount::from_sat(MAX_MONEY);
    case.coin(2).value = Amount::from_sat(2 * PAID);
}

fn versioned(case: &mut Case, version: i32) {
    case.block.txdata[1].version = transaction::Version(version);
    case.wait(111);
}

fn bip68_from(case: &mut Case, height: u32) {
    case.params.csv_height = height;
    case.wait(111);
}

fn own_coin_waits(case: &mut Case, sequence: u32) {
    let mut spend = case.spend_own(1);
    spend.input[0].sequence = Sequence(sequence);
    case.add(spend);
}

/// The first spend waits for a coin above a block whose median time past is `since`.
fn waits_since(case: &mut Case, since: u32, count: u32) {
    case.mtps.insert(Height(COIN_HEIGHT.0 - 1), since);
    case.wait(units(count));
}

fn second_input_waits(case: &mut Case) {
    let mut second = input(outpoint(5));
    second.sequence = Sequence(111);
    case.block.txdata[1].input.push(second);
}

fn legacy_and_p2wsh(case: &mut Case, witness_script: &[u8]) {
    case.add_legacy_sigops(79_984);
    case.spend_p2wsh(witness_script);
}

/// Takes 50 coins and the fees where the first halving is at `halving`.
fn subsidy_of_before(case: &mut Case, halving: u32) {
    case.params.halving_interval = halving;
    case.block.txdata[0].output[0] = output(50 * 100_000_000 + FEES);
}

/// The chain has this transaction already, which spent its coins.
fn repeat(case: &mut Case, position: usize) {
    seal(&mut case.block);
    let repeated = &case.block.txdata[position];
    case.unspent.insert(repeated.compute_txid());
    for input in &repeated.input {
        case.coins.remove(&input.previous_output);
    }
}

#[test]
fn a_block_connects_or_fails_for_the_one_rule_that_it_breaks() {
    let mut wrong = Vec::new();
    for (name, change, expected) in ROWS {
        let mut case = Case::new();
        change(&mut case);
        let error = case.connect().err();
        if error.as_ref().map(BlockError::reject_reason) != *expected {
            wrong.push(format!("{name}: {error:?} and not {expected:?}"));
        }
        if let Some(error) = error {
            assert_eq!(error.verdict(), Verdict::Invalid, "{name}");
            assert!(error.to_string().starts_with(error.reject_reason()), "{name}: {error}");
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_connected_block_says_what_it_spent_and_what_it_earned() {
    let mut case = Case::new();
    let own = case.spend_own(1);
    case.add(own);
    let connected = case.connect().unwrap();
    let made = Coin { tx_num: TxNum(0), height: HEIGHT, ..coin(PAID, &[0x51]) };
    assert_eq!(connected.spent(), [coin(COIN, &[0x51]), coin(COIN, &[0x51]), made]);
    assert_eq!(connected.fees().to_sat(), FEES + PAID - 1);
    assert_eq!(connected.checked().height(), HEIGHT);
}

#[test]
fn fewer_coins_than_inputs_are_missing_coins() {
    let mut block = block();
    seal(&mut block);
    let params = Params::of(Network::Regtest);
    let context = SpendContext {
        params: &params,
        parent_mtp: PARENT_MTP,
        mtp_at: &|_| PARENT_MTP,
        at_bip34_height: None,
        has_unspent: &|_, _| false,
    };
    let connect = |coins: &[Option<Coin>]| {
        connect_block(check(&block, HEIGHT, &params).unwrap(), coins, &context)
            .map_err(|error| error.reject_reason())
    };
    let some = Some(coin(COIN, &[0x51]));
    assert_eq!(connect(&[some]).err(), MISSING);
    assert_eq!(connect(&[some, None]).err(), MISSING);
    assert!(connect(&[some, some]).is_ok());
}

#[test]
fn the_subsidy_halves_until_nothing_is_left() {
    let params = Params::of(Network::Bitcoin);
    let at = |height| subsidy(Height(height), &params);
    assert_eq!((at(0), at(209_999), at(210_000)), (5_000_000_000, 5_000_000_000, 2_500_000_000));
    assert_eq!((at(839_999), at(840_000)), (625_000_000, 312_500_000));
    assert_eq!((at(33 * 210_000 - 1), at(33 * 210_000)), (1, 0));
    assert_eq!((at(63 * 210_000), at(64 * 210_000), at(u32::MAX)), (0, 0, 0));
    let all: u64 = (0..64).map(|halving| at(halving * 210_000) * 210_000).sum();
    assert_eq!(all, 2_099_999_997_690_000);
    assert_eq!(subsidy(HEIGHT, &Params::of(Network::Regtest)), SUBSIDY);
}
