//! Transactions that no wallet makes and consensus takes: every kind of output script and input script, and
//! the edges of each number.
//!
//! The node's wallet signs the one input that pays for all; what the oddities are spent with needs no signature,
//! so an input script may hold whatever runs through.

use bitcoin::absolute::LockTime;
use bitcoin::consensus::encode::serialize_hex;
use bitcoin::secp256k1::{Secp256k1, SecretKey};
use bitcoin::transaction::Version;
use bitcoin::{Amount, OutPoint, PublicKey, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Witness};
use serde_json::{Value, json};

use super::node::{Node, text};

const OP_RETURN: u8 = 0x6a;
const OP_CHECKSIG: u8 = 0xac;
const OP_CHECKMULTISIG: u8 = 0xae;
/// What each odd output is paid, in satoshi.
const PAID: u64 = 1_000;
/// What a spender gives to the miner, in satoshi.
const FEE: u64 = 100_000;

/// Mines them in as few blocks as they need. The node has a wallet with a ripe reward.
pub fn mine(node: &Node) {
    let scripts = output_scripts();
    let values = [0, 1, 10_000_000, 2_099_999_999, 100_000_000, 99_999_999];
    let (any, next_version) = (vec![0x51], witness_program(0x52, 32));
    let spenders = input_scripts();
    let numbers = numbers();

    let mut output: Vec<TxOut> = scripts.into_iter().map(|script| paid(PAID, script)).collect();
    output.extend(values.map(|value| paid(value, any.clone())));
    let first_any = output.len() as u32;
    // One for each input script, and one of each form for each line of numbers.
    output.extend(spenders.iter().map(|_| paid(PAID, any.clone())));
    let first_number = output.len() as u32;
    output.extend(numbers.iter().map(|_| paid(PAID, any.clone())));
    let first_witness = output.len() as u32;
    output.extend(witnesses().iter().map(|_| paid(PAID, next_version.clone())));
    let payment = fund(node, output);
    let txid = payment.compute_txid();
    node.generate_block(&[serialize_hex(&payment)]);

    let of = |vout, script_sig: Vec<u8>, sequence, witness: Witness| TxIn {
        previous_output: OutPoint::new(txid, vout),
        script_sig: ScriptBuf::from(script_sig),
        sequence: Sequence(sequence),
        witness,
    };
    let burnt = || vec![paid(0, vec![OP_RETURN])];
    let mut spending = Vec::new();
    let inputs = (first_any..).zip(spenders);
    spending.push(Transaction {
        version: Version::ONE,
        lock_time: LockTime::ZERO,
        input: inputs.map(|(vout, script)| of(vout, script, u32::MAX, Witness::new())).collect(),
        output: burnt(),
    });
    for (vout, (version, sequence, lock_time)) in (first_number..).zip(numbers) {
        spending.push(Transaction {
            version: Version(version),
            lock_time: LockTime::from_consensus(lock_time),
            input: vec![of(vout, Vec::new(), sequence, Witness::new())],
            output: burnt(),
        });
    }
    let inputs = (first_witness..).zip(witnesses());
    spending.push(Transaction {
        version: Version::TWO,
        lock_time: LockTime::ZERO,
        input: inputs.map(|(vout, witness)| of(vout, Vec::new(), u32::MAX - 1, witness)).collect(),
        output: burnt(),
    });
    let spending: Vec<String> = spending.iter().map(serialize_hex).collect();
    node.generate_block(&spending);
}

fn paid(satoshi: u64, script: Vec<u8>) -> TxOut {
    TxOut { value: Amount::from_sat(satoshi), script_pubkey: ScriptBuf::from(script) }
}

/// A transaction of these outputs and a change, signed by the wallet.
fn fund(node: &Node, mut output: Vec<TxOut>) -> Transaction {
    let spent: u64 = output.iter().map(|output| output.value.to_sat()).sum();
    let least = Amount::from_sat(spent + FEE).to_btc();
    let coins = node.rpc("listunspent", json!({"minconf": 1, "query_options": {"minimumAmount": least}}));
    let coin = coins.as_array().and_then(|coins| coins.first()).expect("a coin that pays for all");
    let change = node.rpc("getrawchangeaddress", json!(["bech32"]));
    let change: bitcoin::Address<_> = text(&change).parse().expect("an address");
    let value = super::naive::satoshi(&coin["amount"]) - spent - FEE;
    output.push(TxOut {
        value: Amount::from_sat(value),
        script_pubkey: change.assume_checked().script_pubkey(),
    });
    let outpoint = OutPoint::new(text(&coin["txid"]).parse().unwrap(), coin["vout"].as_u64().unwrap() as u32);
    let input = TxIn { previous_output: outpoint, ..TxIn::default() };
    let tx = Transaction { version: Version::TWO, lock_time: LockTime::ZERO, input: vec![input], output };
    let signed = node.rpc("signrawtransactionwithwallet", json!([serialize_hex(&tx)]));
    assert_eq!(signed["complete"], Value::from(true), "{signed}");
    bitcoin::consensus::encode::deserialize_hex(&text(&signed["hex"])).expect("a transaction")
}

fn push(data: &[u8]) -> Vec<u8> {
    assert!(data.len() < 0x4c);
    [&[data.len() as u8], data].concat()
}

fn witness_program(version: u8, len: u8) -> Vec<u8> {
    [&[version, len][..], &vec![7; len.into()]].concat()
}

/// Every form of output script that Bitcoin Core tells apart, and what looks like one and is none.
fn output_scripts() -> Vec<Vec<u8>> {
    let mut scripts = keys_and_hashes();
    scripts.extend(multisigs());
    scripts.extend(witness_programs());
    scripts.extend(data_carriers());
    scripts.extend(numbers_and_opcodes());
    scripts
}

fn keys_and_hashes() -> Vec<Vec<u8>> {
    let [compressed, uncompressed] = key();
    let key_with = |first: u8, len: usize| [&[first][..], &vec![0xff; len - 1]].concat();
    let hybrid = [&[6 | uncompressed[64] & 1][..], &uncompressed[1..]].concat();
    let keys = [
        compressed.clone(),
        uncompressed,
        hybrid,
        // No points of the curve: nobody looks.
        key_with(2, 33),
        key_with(3, 33),
        key_with(4, 65),
        // No keys.
        key_with(5, 33),
        key_with(4, 33),
        key_with(2, 65),
        key_with(0, 65),
        key_with(2, 32),
        key_with(2, 34),
    ];
    let mut scripts: Vec<_> = keys.iter().map(|key| [push(key), vec![OP_CHECKSIG]].concat()).collect();
    let hash = [0x33; 20];
    scripts.extend([
        [&[0x4c, 33][..], &compressed, &[OP_CHECKSIG]].concat(),
        [push(&compressed), vec![OP_CHECKSIG, 0x61]].concat(),
        [&[0x76, 0xa9, 20][..], &hash, &[0x88, 0xac]].concat(),
        [&[0x76, 0xa9, 20][..], &hash, &[0x87, 0xac]].concat(),
        [&[0x76, 0xa9, 0x4c, 20][..], &hash, &[0x88, 0xac]].concat(),
        [&[0x76, 0xa9, 19][..], &hash[1..], &[0x88, 0xac]].concat(),
        [&[0xa9, 20][..], &hash, &[0x87]].concat(),
        [&[0xa9, 20][..], &hash, &[0x88]].concat(),
        [&[0xa9, 0x4c, 20][..], &hash, &[0x87]].concat(),
        [&[0xaa, 32][..], &[0x33; 32], &[0x87]].concat(),
    ]);
    scripts
}

fn multisigs() -> Vec<Vec<u8>> {
    let [compressed, uncompressed] = key();
    let small = |number: u8| if number <= 16 { vec![0x50 + number] } else { vec![1, number] };
    let multisig = |required: Vec<u8>, keys: Vec<u8>, total: Vec<u8>| {
        [required, keys, total, vec![OP_CHECKMULTISIG]].concat()
    };
    let of = |required: u8, total: u8| {
        multisig(small(required), push(&compressed).repeat(total.into()), small(total))
    };
    let hybrid = [&[7 ^ uncompressed[64] & 1][..], &uncompressed[1..]].concat();
    let mut scripts: Vec<_> =
        [(1, 1), (1, 2), (2, 3), (3, 3), (15, 15), (3, 16), (3, 17), (3, 20), (17, 17), (20, 20)]
            .map(|(required, total)| of(required, total))
            .into();
    let two = push(&compressed).repeat(2);
    scripts.extend([
        // More asked for than there are, none, more than may be, and a number of keys that is none.
        of(3, 2),
        multisig(vec![0], two.clone(), small(2)),
        multisig(small(1), Vec::new(), vec![0]),
        multisig(small(1), push(&compressed).repeat(21), vec![1, 21]),
        multisig(small(1), two.clone(), small(1)),
        // Numbers written at length.
        multisig(vec![1, 1], two.clone(), small(2)),
        multisig(small(1), two.clone(), vec![1, 2]),
        multisig(small(1), push(&compressed).repeat(17), vec![0x4c, 1, 17]),
        multisig(small(1), push(&compressed).repeat(17), vec![2, 17, 0]),
        // Keys of every form, pushed in every way, and one that is none.
        multisig(small(1), [push(&compressed), push(&uncompressed)].concat(), small(2)),
        multisig(small(1), [push(&compressed), push(&hybrid)].concat(), small(2)),
        multisig(small(1), [&[0x4c, 33][..], &compressed].concat(), small(1)),
        multisig(small(1), [&[0x4d, 33, 0][..], &compressed].concat(), small(1)),
        multisig(small(1), push(&[2; 33]), small(1)),
        multisig(small(1), push(&[9; 33]), small(1)),
        // Something before, between and after.
        [vec![0x61], of(1, 1)].concat(),
        [of(1, 1), vec![0x61]].concat(),
        multisig(small(1), two.clone(), [small(2), vec![0x61]].concat()),
        multisig(small(1), two.clone(), vec![2, 2]),
        [small(1), two, small(2), vec![0xaf]].concat(),
        vec![OP_CHECKMULTISIG],
        vec![0x51, OP_CHECKMULTISIG],
        vec![0x51, 0x51, OP_CHECKMULTISIG],
    ]);
    scripts
}

fn witness_programs() -> Vec<Vec<u8>> {
    let [compressed, _] = key();
    let mut scripts: Vec<_> =
        [2, 19, 20, 21, 31, 32, 33, 40].map(|len| witness_program(0, len)).into_iter().collect();
    scripts.extend([2, 20, 31, 33, 40].map(|len| witness_program(0x51, len)));
    scripts.extend((0x52..=0x60).map(|version| witness_program(version, 32)));
    scripts.extend([2, 3, 20, 39, 40].map(|len| witness_program(0x60, len)));
    scripts.extend([
        // Taproot: a point of the curve, no point, and zero.
        [&[0x51, 32][..], &compressed[1..]].concat(),
        [&[0x51, 32][..], &[0xff; 32]].concat(),
        [&[0x51, 32][..], &[0; 32]].concat(),
        // Pay to anchor, and beside it.
        vec![0x51, 2, 0x4e, 0x73],
        vec![0x51, 2, 0x73, 0x4e],
        vec![0x52, 2, 0x4e, 0x73],
        vec![0, 2, 0x4e, 0x73],
        // No witness programs.
        witness_program(0x51, 1),
        witness_program(0x51, 41),
        witness_program(0, 1),
        witness_program(0x4f, 32),
        witness_program(0x50, 32),
        witness_program(0x61, 32),
        [&[0x51, 0x4c, 32][..], &[7; 32]].concat(),
        [&[1, 1, 32][..], &[7; 32]].concat(),
        [witness_program(0x51, 32), vec![0x61]].concat(),
        [&[0x51, 32][..], &[7; 31]].concat(),
    ]);
    scripts
}

fn data_carriers() -> Vec<Vec<u8>> {
    let data = |rest: &[u8]| [&[OP_RETURN], rest].concat();
    let signature = signatures().remove(0);
    vec![
        data(&[]),
        data(&[0]),
        data(&push(b"not a coin")),
        data(&[push(b"one"), push(b"two"), push(b"three three")].concat()),
        data(&[0x51, 0x60, 0x4f, 0x50]),
        data(&[&[0x4c, 200][..], &[9; 200]].concat()),
        data(&[&[0x4d, 0x10, 0x27][..], &vec![9; 10_000]].concat()),
        data(&[0x4e, 2, 0, 0, 0, 8, 9]),
        data(&push(&signature)),
        // Not only pushes, or cut off.
        data(&[0x61]),
        data(&[OP_RETURN]),
        data(&[5, 1, 2]),
        data(&[0x4c]),
        data(&[0x4d, 1]),
        data(&[0x4e, 1, 0, 0]),
        [vec![0x00], data(&push(b"after"))].concat(),
    ]
}

fn numbers_and_opcodes() -> Vec<Vec<u8>> {
    let mut scripts: Vec<Vec<u8>> = vec![
        Vec::new(),
        // Numbers of one to five bytes, with both signs, and both zeros.
        [&[1, 0][..], &[1, 0x80], &[1, 1], &[1, 0x81], &[1, 0x7f], &[1, 0xff]].concat(),
        [&[2, 0, 1][..], &[2, 0xff, 0], &[2, 0xff, 0x80], &[2, 0, 0x80], &[2, 0xff, 0xff]].concat(),
        [&[3, 0, 0, 0x80][..], &[3, 0xff, 0xff, 0x7f], &[3, 1, 0, 0]].concat(),
        [&[4, 0xff, 0xff, 0xff, 0x7f][..], &[4, 0xff, 0xff, 0xff, 0xff], &[4, 0, 0, 0, 0x80]].concat(),
        [&[5, 0, 0, 0, 0, 0][..], &[5, 0xff, 0xff, 0xff, 0xff, 0xff]].concat(),
        // The same in every longer form.
        [&[0x4c, 0][..], &[0x4d, 0, 0], &[0x4e, 0, 0, 0, 0], &[0x4c, 1, 5], &[0x4d, 1, 0, 0x85]].concat(),
        [&[0x4c, 5][..], &[9; 5], &[0x4d, 5, 0], &[9; 5], &[0x4e, 5, 0, 0, 0], &[9; 5]].concat(),
        [&[0x4c, 0xff][..], &[9; 0xff], &[0x4d, 0, 1], &[9; 0x100]].concat(),
        [&[75][..], &[9; 75], &[0x4c, 76], &[9; 76]].concat(),
        // An element and a script that are too long to run.
        [&[0x4d, 0x09, 0x02][..], &[9; 521], &[0x75, 0x51]].concat(),
        vec![0x61; 10_001],
        // Cut off in every way.
        vec![1],
        vec![75, 1],
        vec![0x51, 0x4c],
        vec![0x51, 0x4c, 2, 1],
        vec![0x51, 0x4d, 2],
        vec![0x51, 0x4d, 2, 0, 1],
        vec![0x51, 0x4e, 2, 0, 0],
        vec![0x51, 0x4e, 2, 0, 0, 0, 1],
        vec![0x51, 0x4e, 0xff, 0xff, 0xff, 0xff, 1],
        // What a signature looks like stays as it is in an output.
        signatures().iter().flat_map(|signature| push(signature)).collect(),
    ];
    // All opcodes that are no pushes of data, ten a script: those that are disabled or unknown too.
    let opcodes: Vec<u8> = (0x4f..=0xff).collect();
    scripts.extend(opcodes.chunks(10).map(<[u8]>::to_vec));
    scripts
}

/// A compressed and an uncompressed key.
fn key() -> [Vec<u8>; 2] {
    let secret = SecretKey::from_slice(&[1; 32]).expect("a small number is a key");
    let key = PublicKey::new(secret.public_key(&Secp256k1::new()));
    [key.inner.serialize().to_vec(), key.inner.serialize_uncompressed().to_vec()]
}

/// Data of the form of signatures with every hash type, and what just misses the form.
fn signatures() -> Vec<Vec<u8>> {
    let der = [&[0x30, 0x44, 2, 32][..], &[0x11; 32], &[2, 32], &[0x22; 32]].concat();
    let with = |der: &[u8], hash_type: u8| [der, &[hash_type]].concat();
    let mut all: Vec<_> = [1, 2, 3, 0x81, 0x82, 0x83, 0, 4, 0x41, 0x80, 0x84, 0xff]
        .map(|hash_type| with(&der, hash_type))
        .into();
    let changed = |place: usize, value: u8| {
        let mut der = der.clone();
        der[place] = value;
        with(&der, 1)
    };
    all.extend([
        // The shortest and the longest, zero, and numbers that a zero keeps positive.
        with(&[0x30, 6, 2, 1, 1, 2, 1, 1], 1),
        with(&[0x30, 6, 2, 1, 0, 2, 1, 0], 1),
        with(&[&[0x30, 0x46, 2, 33, 0][..], &[0xff; 32], &[2, 33, 0], &[0xff; 32]].concat(), 1),
        // Not the form: other tags and lengths, negative, padded, empty, too long.
        changed(0, 0x31),
        changed(1, 0x43),
        changed(2, 3),
        changed(3, 31),
        changed(4, 0x80),
        changed(4, 0),
        changed(36, 3),
        changed(37, 33),
        changed(38, 0x80),
        changed(38, 0),
        with(&[0x30, 5, 2, 0, 2, 1, 1], 1),
        with(&[0x30, 5, 2, 1, 1, 2, 0], 1),
        with(&[&[0x30, 0x47, 2, 34][..], &[0x11; 34], &[2, 33], &[0x11; 33]].concat(), 1),
        der[..69].to_vec(),
    ]);
    all
}

/// Scripts that an input may have before `OP_TRUE`: all of them run through.
fn input_scripts() -> Vec<Vec<u8>> {
    let mut scripts: Vec<Vec<u8>> = signatures().iter().map(|signature| push(signature)).collect();
    let [compressed, uncompressed] = key();
    scripts.extend([
        Vec::new(),
        vec![0],
        [push(&signatures()[0]), push(&compressed)].concat(),
        [push(&signatures()[3]), push(&uncompressed)].concat(),
        [vec![0], push(&signatures()[1]), push(&signatures()[2]), vec![0x51]].concat(),
        // Numbers and pushes of every form.
        [&[1, 0x80][..], &[2, 0xff, 0xff], &[3, 1, 2, 3], &[4, 0xff, 0xff, 0xff, 0xff], &[5, 1, 2, 3, 4, 5]]
            .concat(),
        [&[0x4c, 1, 5][..], &[0x4d, 1, 0, 5], &[0x4e, 1, 0, 0, 0, 5], &[0x4c, 0]].concat(),
        [&[0x4d, 0x08, 0x02][..], &[9; 520]].concat(),
        vec![0x4f, 0x51, 0x60, 0x61, 0xb0, 0xb3, 0xb9],
        // Not run, so that it may be unknown or reserved.
        vec![0, 0x63, OP_RETURN, 0x50, 0x62, 0x89, 0x8a, 0xba, 0xbb, 0xfe, 0xff, 0xac, 0xb1, 0xb2, 0x68],
        vec![0x51, 0x52, 0x93, 0x53, 0x87, 0x69],
    ]);
    scripts
}

/// Version, sequence and lock time at their edges. Final at any height, and version 1 where the sequence would
/// ask for age.
fn numbers() -> Vec<(i32, u32, u32)> {
    vec![
        (0, u32::MAX, 0),
        (3, u32::MAX, 0),
        (-1, u32::MAX, 0),
        (i32::MIN, u32::MAX, 0),
        (i32::MAX, u32::MAX, 0),
        (1, 0, 0),
        (1, 1, 0),
        (1, u32::MAX - 1, 1),
        (1, u32::MAX, 499_999_999),
        (1, u32::MAX, 500_000_000),
        (1, u32::MAX, u32::MAX),
        (1, 0x0040_ffff, 0),
        (2, 0x8000_0000, 0),
        (2, 0, 0),
    ]
}

/// What may stand in the witness of a program that has no meaning yet; an input without one comes first.
fn witnesses() -> Vec<Witness> {
    vec![
        Witness::new(),
        Witness::from_slice(&[[0_u8; 0]]),
        Witness::from_slice(&[&[][..], &[1], &[0x80], &signatures()[0], &[]]),
        Witness::from_slice(&[vec![9; 5_000]]),
    ]
}
