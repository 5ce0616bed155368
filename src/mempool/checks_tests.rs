//! Every rule that needs no other transaction, broken one at a time.
//!
//! `tests/policy` compares the same rules with a real node; here are also those that it cannot be brought to.

use std::collections::BTreeMap;

use bitcoin::absolute::LockTime;
use bitcoin::consensus::encode::serialize;
use bitcoin::hashes::Hash;
use bitcoin::transaction::Version;
use bitcoin::{Amount, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Txid, Witness};
use chainstore::Height;

use crate::time::Now;

use super::checks::{check_alone, check_feerate, check_spending};
use super::coins::{ChainCoin, ChainState, CoinSource, SpentCoin};
use super::entry::Entry;
use super::policy::{DataCarrier, FeeRate, Policy};
use super::reject::{Reject, RejectKind};
use super::transaction::Unconfirmed;

const TIP: Height = Height(500);
const MTP: u32 = 1_700_000_000;
const WORTH: u64 = 100_000;
/// Of the standard case, which weighs 4 * 82 + 2 + 3.
const VSIZE: u64 = 84;

/// A chain whose blocks stand ten minutes apart.
struct Chain;

impl ChainState for Chain {
    fn coin(&self, _: &OutPoint) -> Option<ChainCoin> {
        None
    }

    fn has_unspent(&self, _: &Txid, _: u32) -> bool {
        false
    }

    fn median_time_past(&self, height: Height) -> u32 {
        MTP - (TIP.0 - height.0) * 600
    }

    fn height(&self) -> Height {
        TIP
    }
}

/// A transaction and what it spends.
struct Case {
    tx: Transaction,
    coins: BTreeMap<OutPoint, SpentCoin>,
    policy: Policy,
    min: FeeRate,
}

impl Case {
    /// One input that anyone can spend, one output, a fee of a hundred satoshi.
    fn new() -> Self {
        let mut case = Self {
            tx: Transaction {
                version: Version::TWO,
                lock_time: LockTime::ZERO,
                input: Vec::new(),
                output: vec![paying(WORTH - 100, &program(0, 20))],
            },
            coins: BTreeMap::new(),
            policy: Policy::core(),
            min: FeeRate(0),
        };
        let anyone = ScriptBuf::from_bytes(vec![0x51]);
        case.spend(anyone.to_p2wsh(), &[], &[anyone.as_bytes()]);
        case
    }

    /// Spends a coin of [`WORTH`] made ten blocks ago.
    fn spend(&mut self, script: ScriptBuf, script_sig: &[u8], witness: &[&[u8]]) {
        let outpoint = OutPoint { txid: Txid::hash(&[self.tx.input.len() as u8]), vout: 0 };
        self.tx.input.push(TxIn {
            previous_output: outpoint,
            script_sig: script_sig.to_vec().into(),
            sequence: Sequence::MAX,
            witness: Witness::from_slice(witness),
        });
        let output = TxOut { value: Amount::from_sat(WORTH), script_pubkey: script };
        let source = CoinSource::Block { height: Height(TIP.0 - 10), is_coinbase: false };
        self.coins.insert(outpoint, SpentCoin { output, source });
    }

    fn spend_p2sh(&mut self, redeem_script: &[u8], script_sig: &[u8]) {
        self.spend(ScriptBuf::from_bytes(redeem_script.to_vec()).to_p2sh(), script_sig, &[]);
    }

    fn check(&self) -> Result<Entry, Reject> {
        let tx = Unconfirmed::parse(&serialize(&self.tx)).unwrap();
        check_alone(&tx, &Chain, &self.policy)?;
        let coins: Vec<_> =
            self.tx.input.iter().map(|input| self.coins[&input.previous_output].clone()).collect();
        let entry = check_spending(&tx, &coins, &Chain, &self.policy, Now::default())?;
        check_feerate(entry.fee, entry.vsize, self.min, &self.policy)?;
        Ok(entry)
    }
}

fn paying(satoshi: u64, script: &[u8]) -> TxOut {
    TxOut { value: Amount::from_sat(satoshi), script_pubkey: script.to_vec().into() }
}

fn program(version: u8, len: u8) -> Vec<u8> {
    [&[version, len][..], &vec![7; len.into()]].concat()
}

fn multisig(keys: u8) -> Vec<u8> {
    let key = [&[33, 2][..], &[9; 32]].concat();
    [vec![0x51], key.repeat(keys.into()), vec![0x50 + keys, 0xae]].concat()
}

fn data(bytes: usize) -> Vec<u8> {
    [vec![0x6a], vec![0x51; bytes - 1]].concat()
}

/// A case, and the kind and the text of what is said of it.
type Row = (fn(&mut Case), RejectKind, &'static str);

fn assert_rows(rows: &[Row]) {
    for (change, kind, text) in rows {
        let mut case = Case::new();
        change(&mut case);
        let reject = case.check().expect_err(text);
        assert_eq!((reject.kind, reject.to_string().as_str()), (*kind, *text));
    }
}

#[test]
fn a_standard_transaction_passes_and_is_measured() {
    let entry = Case::new().check().unwrap();

    assert_eq!((entry.fee, entry.vsize, entry.weight), (Amount::from_sat(100), VSIZE, 333));
    assert_eq!((entry.sigops_cost, entry.dust, entry.height), (0, None, TIP));
    assert!(!entry.is_truc && !entry.spends_coinbase);
    assert_eq!(entry.inputs[0].value, Amount::from_sat(WORTH));
}

#[test]
fn what_it_shows_by_itself() {
    use RejectKind::{Consensus, NotStandard, Premature};
    assert_rows(&[
        (|case| case.tx.output.clear(), Consensus, "bad-txns-vout-empty"),
        (|case| case.tx.input[0].previous_output = OutPoint::null(), Consensus, "bad-cb-length"),
        (
            |case| {
                case.tx.input[0].previous_output = OutPoint::null();
                case.tx.input[0].script_sig = vec![1; 2].into();
            },
            Consensus,
            "coinbase",
        ),
        (|case| case.tx.version = Version(0), NotStandard, "version"),
        (|case| case.tx.version = Version(4), NotStandard, "version"),
        (|case| case.tx.version = Version(-1), NotStandard, "version"),
        (|case| case.tx.output.push(paying(0, &data(99_990))), NotStandard, "tx-size"),
        (|case| case.tx.input[0].script_sig = vec![0; 1_651].into(), NotStandard, "scriptsig-size"),
        (|case| case.tx.input[0].script_sig = vec![0x61].into(), NotStandard, "scriptsig-not-pushonly"),
        (|case| case.tx.input[0].script_sig = vec![2, 1].into(), NotStandard, "scriptsig-not-pushonly"),
        (|case| case.tx.output.push(paying(0, &[0x51])), NotStandard, "scriptpubkey"),
        (|case| case.tx.output.push(paying(900, &multisig(4))), NotStandard, "scriptpubkey"),
        (
            |case| {
                case.policy.permit_bare_multisig = false;
                case.tx.output.push(paying(900, &multisig(3)));
            },
            NotStandard,
            "bare-multisig",
        ),
        (
            |case| {
                case.policy.data_carrier = DataCarrier::Together { bytes: 83 };
                case.tx.output.extend([paying(0, &data(80)), paying(0, &data(4))]);
            },
            NotStandard,
            "datacarrier",
        ),
        (
            |case| {
                case.policy.data_carrier = DataCarrier::One { bytes: 83 };
                case.tx.output.push(paying(0, &data(84)));
            },
            NotStandard,
            "scriptpubkey",
        ),
        (
            |case| {
                case.policy.data_carrier = DataCarrier::One { bytes: 83 };
                case.tx.output.extend([paying(0, &data(4)), paying(0, &data(4))]);
            },
            NotStandard,
            "multi-op-return",
        ),
        (
            |case| case.tx.output.extend([paying(293, &program(0, 20)), paying(329, &program(0x51, 32))]),
            NotStandard,
            "dust",
        ),
        (|case| case.tx.output[0].script_pubkey = data(4).into(), NotStandard, "tx-size-small"),
        (
            |case| {
                case.tx.lock_time = LockTime::from_consensus(TIP.0 + 1);
                case.tx.input[0].sequence = Sequence::ZERO;
            },
            Premature,
            "non-final",
        ),
        (
            |case| {
                case.tx.lock_time = LockTime::from_consensus(MTP);
                case.tx.input[0].sequence = Sequence(u32::MAX - 1);
            },
            Premature,
            "non-final",
        ),
    ]);
}

#[test]
fn what_it_spends() {
    use RejectKind::{Consensus, InputsNotStandard, NotStandard, Premature, Reconsiderable};
    assert_rows(&[
        (|case| case.tx.input[0].sequence = Sequence(12), Premature, "non-BIP68-final"),
        // The coin's clock began with the block below its own, eleven blocks ago: 6,600 seconds, twelve units.
        (|case| case.tx.input[0].sequence = Sequence(1 << 22 | 13), Premature, "non-BIP68-final"),
        (
            |case| {
                case.tx.input[0].sequence = Sequence(1);
                let coin = case.coins.values_mut().next().unwrap();
                coin.source = CoinSource::Mempool;
            },
            Premature,
            "non-BIP68-final",
        ),
        (
            |case| {
                let coin = case.coins.values_mut().next().unwrap();
                coin.source = CoinSource::Block { height: Height(TIP.0 - 98), is_coinbase: true };
            },
            Premature,
            "bad-txns-premature-spend-of-coinbase, tried to spend coinbase at depth 99",
        ),
        (
            |case| case.coins.values_mut().next().unwrap().output.value = Amount::from_sat(u64::MAX),
            Consensus,
            "bad-txns-inputvalues-outofrange",
        ),
        (
            |case| case.tx.output[0].value = Amount::from_sat(150_000_000),
            Consensus,
            "bad-txns-in-belowout, value in (0.001) < value out (1.50)",
        ),
        (
            |case| case.spend(vec![0xae; 126].into(), &[], &[]),
            InputsNotStandard,
            "bad-txns-nonstandard-inputs, non-witness sigops exceed bip54 limit",
        ),
        (
            |case| case.spend(vec![0x51].into(), &[], &[]),
            InputsNotStandard,
            "bad-txns-nonstandard-inputs, input 1 script unknown",
        ),
        (
            |case| case.spend(program(0x52, 32).into(), &[], &[]),
            InputsNotStandard,
            "bad-txns-nonstandard-inputs, input 1 witness program is undefined",
        ),
        (
            |case| case.spend_p2sh(&[0x51], &[0x50, 1, 0x51]),
            InputsNotStandard,
            "bad-txns-nonstandard-inputs, p2sh scriptsig malformed (input 1: Opcode missing or not understood)",
        ),
        (
            |case| case.spend_p2sh(&[0x51], &[&[0x4d, 9, 2][..], &[0; 521], &[1, 0x51]].concat()),
            InputsNotStandard,
            "bad-txns-nonstandard-inputs, p2sh scriptsig malformed (input 1: Push value size limit exceeded)",
        ),
        (
            |case| case.spend_p2sh(&[0x51], &[&[0x51; 1_000][..], &[1, 0x51]].concat()),
            InputsNotStandard,
            "bad-txns-nonstandard-inputs, p2sh scriptsig malformed (input 1: Stack size limit exceeded)",
        ),
        (
            |case| case.spend_p2sh(&[], &[]),
            InputsNotStandard,
            "bad-txns-nonstandard-inputs, input 1 P2SH redeemscript missing",
        ),
        (
            |case| case.spend_p2sh(&[0xac; 16], &[&[16][..], &[0xac; 16]].concat()),
            InputsNotStandard,
            "bad-txns-nonstandard-inputs, p2sh redeemscript sigops exceed limit (input 1: 16 > 15)",
        ),
        (
            |case| case.tx.output.push(paying(0, &program(0, 20))),
            NotStandard,
            "dust, tx with dust output must be 0-fee",
        ),
        (
            |case| {
                case.tx.output[0].value = Amount::from_sat(1_000);
                case.tx.output.extend(vec![paying(400, &multisig(1)); 201]);
                case.policy.dust_relay = FeeRate(0);
            },
            NotStandard,
            "bad-txns-too-many-sigops, 16080",
        ),
        (
            |case| case.tx.output[0].value = Amount::from_sat(WORTH - 8),
            Reconsiderable,
            "min relay fee not met, 8 < 9",
        ),
        (
            |case| {
                case.min = FeeRate(2_000);
                case.tx.output[0].value = Amount::from_sat(WORTH - 8);
            },
            Reconsiderable,
            "mempool min fee not met, 8 < 168",
        ),
    ]);
}

#[test]
fn a_witness_of_an_unusual_form() {
    const CHANGES: &[fn(&mut Case)] = &[
        |case| case.spend(vec![0x51, 2, 0x4e, 0x73].into(), &[], &[&[1]]),
        |case| case.spend(multisig(1).into(), &[], &[&[1]]),
        |case| case.spend(program(0, 32).into(), &[], &[&[0; 3_601]]),
        |case| case.spend(program(0, 32).into(), &[], &[&[0; 81], &[0x51]]),
        |case| case.spend(program(0, 32).into(), &[], &[&[0][..]; 102]),
        |case| case.spend(program(0x51, 32).into(), &[], &[&[1; 64], &[0x50]]),
        |case| case.spend(program(0x51, 32).into(), &[], &[&[0x51], &[]]),
        |case| case.spend(program(0x51, 32).into(), &[], &[&[0; 81], &[0x51], &[0xc1; 33]]),
    ];
    for (number, change) in CHANGES.iter().enumerate() {
        let mut case = Case::new();
        change(&mut case);
        let reject = case.check().expect_err("unusual");
        let expected = (RejectKind::WitnessMutated, "bad-witness-nonstandard".to_owned());
        assert_eq!((reject.kind, reject.to_string()), expected, "{number}");
    }
}

#[test]
fn the_edge_of_each_rule_still_passes() {
    const CHANGES: &[fn(&mut Case)] = &[
        |case| case.tx.version = Version(3),
        |case| case.tx.input[0].sequence = Sequence(11),
        |case| case.tx.input[0].sequence = Sequence(1 << 22 | 12),
        |case| {
            case.tx.version = Version(1);
            case.tx.input[0].sequence = Sequence(0xffff);
        },
        |case| {
            case.tx.input[0].sequence = Sequence::ZERO;
            case.coins.values_mut().next().unwrap().source = CoinSource::Mempool;
        },
        |case| {
            let coin = case.coins.values_mut().next().unwrap();
            coin.source = CoinSource::Block { height: Height(TIP.0 - 99), is_coinbase: true };
        },
        |case| {
            case.tx.lock_time = LockTime::from_consensus(TIP.0);
            case.tx.input[0].sequence = Sequence(u32::MAX - 1);
        },
        |case| case.tx.output[0].value = Amount::from_sat(WORTH - 9),
        |case| case.tx.output[0] = paying(WORTH - 100, &data(5)),
        |case| case.spend_p2sh(&[0xac; 15], &[&[15][..], &[0xac; 15]].concat()),
        |case| case.spend(program(0, 32).into(), &[], &[&[0; 3_600]]),
        |case| case.spend(program(0, 32).into(), &[], &[&[0; 80], &[0x51]]),
        |case| case.spend(program(0, 32).into(), &[], &[&[0][..]; 101]),
        |case| case.spend(program(0x51, 32).into(), &[], &[&[0; 80], &[0x51], &[0xc1; 33]]),
        |case| case.spend(program(0x51, 32).into(), &[], &[&[0; 81], &[0x51], &[0xc3; 33]]),
    ];
    for (number, change) in CHANGES.iter().enumerate() {
        let mut case = Case::new();
        change(&mut case);
        assert!(case.check().is_ok(), "{number}: {:?}", case.check());
    }
}

#[test]
fn dense_signature_operations_count_as_size() {
    let mut case = Case::new();
    case.tx.output[0].value = Amount::from_sat(1_000);
    case.tx.output.push(paying(1_000, &multisig(1)));

    let entry = case.check().unwrap();

    // Twenty operations outside the witness cost eighty; each counts for twenty bytes of weight.
    assert_eq!((entry.sigops_cost, entry.vsize), (80, 400));
}

#[test]
fn the_one_dust_output_of_a_free_transaction_is_remembered() {
    let mut case = Case::new();
    case.policy.min_relay = FeeRate(0);
    case.tx.output[0].value = Amount::from_sat(WORTH);
    case.tx.output.push(paying(0, &[0x51, 2, 0x4e, 0x73]));

    assert_eq!(case.check().unwrap().dust, Some(1));
}
