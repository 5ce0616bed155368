//! Every way in which a block can break rungs 3 and 4, one at a time.

use bitcoin::absolute::LockTime;
use bitcoin::consensus::encode::serialize;
use bitcoin::{Amount, Block, Network, OutPoint, ScriptBuf, Sequence, Transaction, Witness};
use chainstore::Height;

use super::block::{BlockContext, check_block};
use super::error::{BlockError, Verdict};
use super::params::Params;
use super::testing::{
    HEIGHT, PARENT_MTP, TIME, block, check, coinbase, input, outpoint, output, paying, seal, set_merkle_root,
    spend, transaction,
};
use super::transaction::check_transaction;

fn regtest() -> Params {
    Params::of(Network::Regtest)
}

/// Who changed the block: its miner, before it was sealed, or whoever passed it on.
#[derive(Clone, Copy, Debug)]
enum By {
    Miner,
    Sender,
}

type Change = fn(&mut Block);

/// Name, who does what, the reject reason, whose fault it is.
type Row = (&'static str, By, Change, &'static str, Verdict);

const MUTATIONS: &[Row] = &[
    ("order", By::Sender, |b| b.txdata.swap(1, 2), "bad-txnmrklroot", Verdict::Mutated),
    (
        "value",
        By::Sender,
        |b| b.txdata[1].output[0].value = Amount::ONE_SAT,
        "bad-txnmrklroot",
        Verdict::Mutated,
    ),
    ("no coinbase left", By::Sender, |b| drop(b.txdata.remove(0)), "bad-txnmrklroot", Verdict::Mutated),
    (
        "CVE-2012-2459",
        By::Sender,
        |b| b.txdata.push(b.txdata[2].clone()),
        "bad-txns-duplicate",
        Verdict::Mutated,
    ),
    ("same twice", By::Miner, |b| b.txdata.push(b.txdata[2].clone()), "bad-txns-duplicate", Verdict::Mutated),
    ("inner node", By::Miner, |b| b.txdata = vec![of_size(64)], "bad-txns-inner-nodes", Verdict::Mutated),
    ("no inner node", By::Miner, |b| b.txdata = vec![of_size(65)], "bad-cb-missing", Verdict::Invalid),
    (
        "other witness",
        By::Sender,
        |b| witness(b, 2, &[&[8; 70]]),
        "bad-witness-merkle-match",
        Verdict::Mutated,
    ),
    ("more witness", By::Sender, |b| witness(b, 1, &[&[1]]), "bad-witness-merkle-match", Verdict::Mutated),
    ("other nonce", By::Sender, |b| witness(b, 0, &[&[1; 32]]), "bad-witness-merkle-match", Verdict::Mutated),
    (
        "no witness but the nonce",
        By::Sender,
        |b| witness(b, 2, &[]),
        "bad-witness-merkle-match",
        Verdict::Mutated,
    ),
    ("nonce of 31", By::Sender, |b| witness(b, 0, &[&[0; 31]]), "bad-witness-nonce-size", Verdict::Mutated),
    ("nonce of 33", By::Sender, |b| witness(b, 0, &[&[0; 33]]), "bad-witness-nonce-size", Verdict::Mutated),
    (
        "two nonces",
        By::Sender,
        |b| witness(b, 0, &[&[0; 32], &[]]),
        "bad-witness-nonce-size",
        Verdict::Mutated,
    ),
    ("all stripped", By::Sender, strip, "bad-witness-nonce-size", Verdict::Mutated),
    ("no commitment", By::Miner, uncommitted, "unexpected-witness", Verdict::Mutated),
    ("commitment of 37", By::Miner, short_commitment, "unexpected-witness", Verdict::Mutated),
    ("nothing", By::Miner, |b| b.txdata.clear(), "bad-blk-length", Verdict::Invalid),
    ("1000001 bytes", By::Miner, |b| pad_base(b, 1_000_001), "bad-blk-length", Verdict::Invalid),
    ("weight 4000001", By::Miner, |b| pad_weight(b, 4_000_001), "bad-blk-weight", Verdict::Invalid),
    ("coinbase missing", By::Miner, without_coinbase, "bad-cb-missing", Verdict::Invalid),
    (
        "coinbase missing, witnesses left",
        By::Miner,
        |b| drop(b.txdata.remove(0)),
        "bad-cb-missing",
        Verdict::Invalid,
    ),
    ("two coinbases", By::Miner, |b| b.txdata.push(coinbase(Height(7))), "bad-cb-multiple", Verdict::Invalid),
    ("height above", By::Miner, |b| cb_script(b, &[2, 201, 0, 0]), "bad-cb-height", Verdict::Invalid),
    ("height of one byte", By::Miner, |b| cb_script(b, &[1, 200, 0, 0]), "bad-cb-height", Verdict::Invalid),
    ("height of three", By::Miner, |b| cb_script(b, &[3, 200, 0, 0]), "bad-cb-height", Verdict::Invalid),
    ("height cut short", By::Miner, |b| cb_script(b, &[2, 200]), "bad-cb-height", Verdict::Invalid),
    ("script of 1", By::Miner, |b| cb_script(b, &[2]), "bad-cb-length", Verdict::Invalid),
    ("script of 101", By::Miner, |b| cb_script(b, &long_script(101)), "bad-cb-length", Verdict::Invalid),
    ("no input", By::Miner, |b| b.txdata[1].input.clear(), "bad-txns-vin-empty", Verdict::Invalid),
    ("no output", By::Miner, |b| b.txdata[1].output.clear(), "bad-txns-vout-empty", Verdict::Invalid),
    ("minus one", By::Miner, |b| pays(b, &[u64::MAX]), "bad-txns-vout-negative", Verdict::Invalid),
    ("least negative", By::Miner, |b| pays(b, &[1 << 63]), "bad-txns-vout-negative", Verdict::Invalid),
    ("over 21 million", By::Miner, |b| pays(b, &[MAX_MONEY + 1]), "bad-txns-vout-toolarge", Verdict::Invalid),
    ("together", By::Miner, |b| pays(b, &[MAX_MONEY, 1]), "bad-txns-txouttotal-toolarge", Verdict::Invalid),
    ("CVE-2018-17144", By::Miner, twice_the_input, "bad-txns-inputs-duplicate", Verdict::Invalid),
    ("null prevout", By::Miner, |b| spends(b, OutPoint::null()), "bad-txns-prevout-null", Verdict::Invalid),
    ("80004 sigops", By::Miner, |b| sigops(b, 20_001), "bad-blk-sigops", Verdict::Invalid),
    ("coinbase sigops", By::Miner, coinbase_sigops, "bad-blk-sigops", Verdict::Invalid),
    ("locked to now", By::Miner, |b| lock(&mut b.txdata[1], HEIGHT.0), "bad-txns-nonfinal", Verdict::Invalid),
    (
        "locked to the median",
        By::Miner,
        |b| lock(&mut b.txdata[1], PARENT_MTP),
        "bad-txns-nonfinal",
        Verdict::Invalid,
    ),
    (
        "locked coinbase",
        By::Miner,
        |b| lock(&mut b.txdata[0], HEIGHT.0),
        "bad-txns-nonfinal",
        Verdict::Invalid,
    ),
];

/// The same, just inside the rule.
const INSIDE: &[(&str, Change)] = &[
    ("as it is", |_| ()),
    ("64 bytes under a coinbase", |b| b.txdata.push(of_size(64))),
    ("neither commitment nor witness", |b| {
        strip(b);
        b.txdata[0].output.truncate(1);
    }),
    ("two commitments, the last is right", |b| {
        let first = paying(0, [&[0x6a, 0x24, 0xaa, 0x21, 0xa9, 0xed][..], &[9; 32]].concat());
        b.txdata[0].output.insert(0, first);
    }),
    ("1000000 bytes", |b| pad_base(b, 1_000_000)),
    ("weight 4000000", |b| pad_weight(b, 4_000_000)),
    ("as many witness items as fit", |b| witness(b, 2, &vec![&[][..]; 3_998_697])),
    ("script of 100", |b| cb_script(b, &long_script(100))),
    ("21 million", |b| pays(b, &[MAX_MONEY - 1, 1])),
    ("other output of the same", |b| spends(b, OutPoint { vout: 1, ..outpoint(1) })),
    ("null txid, but an output", |b| spends(b, OutPoint { vout: 0, ..OutPoint::null() })),
    ("80000 sigops", |b| sigops(b, 20_000)),
    ("locked to the height below", |b| lock(&mut b.txdata[1], HEIGHT.0 - 1)),
    ("locked to before the median", |b| lock(&mut b.txdata[1], PARENT_MTP - 1)),
    ("locked, but final", |b| {
        lock(&mut b.txdata[1], HEIGHT.0);
        b.txdata[1].input[0].sequence = Sequence::MAX;
    }),
];

const MAX_MONEY: u64 = 2_100_000_000_000_000;

fn of_size(bytes: usize) -> Transaction {
    let tx = transaction(vec![input(outpoint(9))], vec![paying(0, vec![0x51; bytes - 60])]);
    assert_eq!(tx.base_size(), bytes);
    tx
}

fn witness(block: &mut Block, position: usize, items: &[&[u8]]) {
    block.txdata[position].input[0].witness = Witness::from_slice(items);
}

fn strip(block: &mut Block) {
    block.txdata.iter_mut().for_each(|tx| tx.input[0].witness.clear());
}

/// Only the coinbase's reserved value is left of the witnesses.
fn uncommitted(block: &mut Block) {
    block.txdata[0].output.truncate(1);
    witness(block, 2, &[]);
}

fn short_commitment(block: &mut Block) {
    let output = &mut block.txdata[0].output[1];
    output.script_pubkey =
        ScriptBuf::from_bytes([&[0x6a, 0x23, 0xaa, 0x21, 0xa9, 0xed][..], &[0; 31]].concat());
}

fn without_coinbase(block: &mut Block) {
    strip(block);
    block.txdata.remove(0);
}

fn cb_script(block: &mut Block, script: &[u8]) {
    block.txdata[0].input[0].script_sig = ScriptBuf::from_bytes(script.to_vec());
}

fn long_script(bytes: usize) -> Vec<u8> {
    let mut script = vec![2, 200, 0];
    script.resize(bytes, 0);
    script
}

fn pays(block: &mut Block, values: &[u64]) {
    block.txdata[1].output = values.iter().map(|value| output(*value)).collect();
}

fn spends(block: &mut Block, another: OutPoint) {
    block.txdata[1].input.push(input(another));
}

fn twice_the_input(block: &mut Block) {
    spends(block, outpoint(7));
    spends(block, outpoint(1));
}

fn sigops(block: &mut Block, operations: usize) {
    // OP_CHECKSIG in an output, and one multisig, which counts as twenty, in an input.
    block.txdata[1].output.push(paying(0, vec![0xac; operations - 20]));
    block.txdata[2].input[0].script_sig = ScriptBuf::from_bytes(vec![0x51, 0xae]);
}

fn coinbase_sigops(block: &mut Block) {
    sigops(block, 20_000);
    cb_script(block, &[2, 200, 0, 0xac]);
}

fn lock(tx: &mut Transaction, to: u32) {
    tx.lock_time = LockTime::from_consensus(to);
    tx.input[0].sequence = Sequence::ZERO;
}

/// Fills an output until the block has `bytes` without witnesses.
fn pad_base(block: &mut Block, bytes: usize) {
    strip(block);
    block.txdata[0].output.truncate(1);
    // OP_RETURN alone, so that the length of the script's length is the final one.
    block.txdata[1].output.push(paying(0, vec![0x6a; 100_000]));
    let more = bytes - block.total_size();
    block.txdata[1].output[1] = paying(0, vec![0x6a; 100_000 + more]);
    assert_eq!(block.total_size(), bytes);
}

fn pad_weight(block: &mut Block, weight: usize) {
    witness(block, 2, &[&vec![0; 100_000]]);
    let more = weight - block.weight().to_wu() as usize;
    witness(block, 2, &[&vec![0; 100_000 + more]]);
    assert_eq!(block.weight().to_wu() as usize, weight);
}

#[test]
fn a_block_fails_for_the_one_rule_that_it_breaks() {
    for (name, by, change, reason, verdict) in MUTATIONS {
        let mut block = block();
        match by {
            By::Miner => {
                change(&mut block);
                seal(&mut block);
            }
            By::Sender => {
                seal(&mut block);
                change(&mut block);
            }
        }
        let error = check(&block, HEIGHT, &regtest()).expect_err(name);
        assert_eq!((error.reject_reason(), error.verdict()), (*reason, *verdict), "{name}: {error}");
        // What the operator reads begins with what Core would say.
        assert!(error.to_string().starts_with(reason), "{name}: {error}");
    }
}

#[test]
fn a_block_just_inside_the_rules_passes() {
    for (name, change) in INSIDE {
        let mut block = block();
        change(&mut block);
        seal(&mut block);
        let checked = check(&block, HEIGHT, &regtest()).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(checked.decode().as_ref(), Ok(&block), "{name}");
        let txids: Vec<_> = block.txdata.iter().map(Transaction::compute_txid).collect();
        assert!(checked.txids().eq(&txids), "{name}");
        assert_eq!((checked.hash(), checked.header()), (block.block_hash(), &block.header), "{name}");
        assert_eq!(checked.outline(), &chainstore::Outline::of(&block), "{name}");
        let paid = |tx: &Transaction| tx.output.iter().map(|output| output.value.to_sat()).sum();
        assert!(checked.sums().eq(block.txdata.iter().map(|tx| (paid(tx), tx.weight().to_wu()))), "{name}");
    }
}

#[test]
fn before_segwit_a_commitment_commits_to_nothing() {
    let params = Params { segwit_height: HEIGHT.0 + 1, ..regtest() };
    let mut block = block();
    seal(&mut block);
    let error = check(&block, HEIGHT, &params).unwrap_err();
    assert_eq!((error.reject_reason(), error.verdict()), ("unexpected-witness", Verdict::Mutated));
    strip(&mut block);
    check(&block, HEIGHT, &params).unwrap();
    let from_here = Params { segwit_height: HEIGHT.0, ..regtest() };
    assert_eq!(check(&block, HEIGHT, &from_here).unwrap_err().reject_reason(), "bad-witness-nonce-size");
}

#[test]
fn tampering_is_found_before_what_would_condemn_the_header() {
    // Each of these the miner could not have made: the block must stay askable elsewhere.
    let mut invalid = block();
    pays(&mut invalid, &[u64::MAX]);
    seal(&mut invalid);
    assert_eq!(check(&invalid, HEIGHT, &regtest()).unwrap_err().verdict(), Verdict::Invalid);
    let tampers: [Change; 3] = [|b| witness(b, 0, &[]), |b| witness(b, 2, &[&[1]]), |b| b.txdata.swap(1, 2)];
    for tamper in tampers {
        let mut tampered = invalid.clone();
        tamper(&mut tampered);
        assert_eq!(check(&tampered, HEIGHT, &regtest()).unwrap_err().verdict(), Verdict::Mutated);
    }
}

#[test]
fn before_bip34_the_coinbase_says_what_it_likes() {
    let mut block = block();
    cb_script(&mut block, &[1, 2]);
    seal(&mut block);
    let params = Params { bip34_height: HEIGHT.0 + 1, ..regtest() };
    check(&block, HEIGHT, &params).unwrap();
    assert_eq!(check(&block, HEIGHT, &regtest()).unwrap_err().reject_reason(), "bad-cb-height");
}

#[test]
fn low_heights_are_opcodes_and_too_short_alone() {
    for (height, script, expected) in [
        (1, &[0x51, 0x00][..], None),
        (1, &[0x01, 0x01], Some("bad-cb-height")),
        (16, &[0x60, 0x00], None),
        (16, &[0x60], Some("bad-cb-length")),
        (17, &[0x01, 0x11], None),
        (127, &[0x01, 0x7f], None),
        // A sign bit needs a byte of its own.
        (128, &[0x02, 0x80, 0x00], None),
        (128, &[0x01, 0x80], Some("bad-cb-height")),
    ] {
        let mut block = block();
        cb_script(&mut block, script);
        seal(&mut block);
        let reason = check(&block, Height(height), &regtest()).map_err(|error| error.reject_reason()).err();
        assert_eq!(reason, expected, "{height} {script:?}");
    }
}

#[test]
fn lock_times_meet_the_blocks_time_before_bip113_and_the_median_after() {
    for (to, before, after) in [
        (PARENT_MTP - 1, true, true),
        (PARENT_MTP, true, false),
        (TIME - 1, true, false),
        (TIME, false, false),
    ] {
        let mut block = block();
        lock(&mut block.txdata[1], to);
        seal(&mut block);
        for (csv_height, expected) in [(HEIGHT.0 + 1, before), (HEIGHT.0, after)] {
            let params = Params { csv_height, ..regtest() };
            let reason = check(&block, HEIGHT, &params).map_err(|error| error.reject_reason()).err();
            let expected = (!expected).then_some("bad-txns-nonfinal");
            assert_eq!(reason, expected, "{to} with {csv_height}");
        }
    }
}

#[test]
fn a_lone_transaction_may_not_outweigh_a_block() {
    let padded = |bytes: usize| {
        let tx = |length| transaction(vec![input(outpoint(1))], vec![paying(0, vec![0; length])]);
        let tx = tx(100_000 + bytes - tx(100_000).base_size());
        assert_eq!(tx.base_size(), bytes);
        tx
    };
    assert_eq!(check_transaction(&padded(1_000_000)), Ok(()));
    assert_eq!(check_transaction(&padded(1_000_001)), Err("bad-txns-oversize"));
}

#[test]
fn a_commitment_must_be_of_the_last_output_that_looks_like_one() {
    let mut block = block();
    seal(&mut block);
    block.txdata[0].output.push(paying(0, [&[0x6a, 0x24, 0xaa, 0x21, 0xa9, 0xed][..], &[9; 32]].concat()));
    set_merkle_root(&mut block);
    assert_eq!(check(&block, HEIGHT, &regtest()).unwrap_err().reject_reason(), "bad-witness-merkle-match");
    assert_eq!(spend(1), block.txdata[1], "nothing else was touched");
}

#[test]
fn what_is_announced_is_held_against_what_follows_before_it_is_decoded() {
    let mut block = block();
    seal(&mut block);
    let raw = serialize(&block);
    // One item of 70 bytes and the lock time end the block. The library would set 16 MB aside for these items.
    let items = raw.len() - 4 - 70 - 2;
    let raw = [&raw[..items], &[0xfe, 0x00, 0x09, 0x3d, 0x00], &raw[items + 1..]].concat();
    let context = BlockContext { height: HEIGHT, parent_mtp: PARENT_MTP };
    let error = check_block(raw.into(), &context, &regtest()).unwrap_err();
    assert_eq!(error, BlockError::Undecodable("more is announced than follows".into()));
}
