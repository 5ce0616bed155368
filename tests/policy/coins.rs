//! What the cases spend: a coin of every kind that policy tells apart, with what spends it.

use bitcoin::absolute::LockTime;
use bitcoin::consensus::encode::serialize_hex;
use bitcoin::key::UntweakedPublicKey;
use bitcoin::secp256k1::Secp256k1;
use bitcoin::taproot::{LeafVersion, TaprootBuilder};
use bitcoin::transaction::Version;
use bitcoin::{Address, Amount, Network, OutPoint, ScriptBuf, Transaction, TxIn, TxOut, Txid, Witness};
use serde_json::json;

use super::support::node::{Node, text};

/// What each coin is worth, in satoshi.
pub const WORTH: u64 = 1_000_000;
/// Coins of each kind.
const COPIES: u32 = 3;
/// Blocks on top of the coins, ten minutes apart.
const ON_TOP: u32 = 20;
const TEN_MINUTES: u32 = 600;

/// A coin and how it is spent; where signatures would be needed, it can't be.
#[derive(Clone, Debug)]
pub struct Spendable {
    pub name: &'static str,
    pub outpoint: OutPoint,
    pub script_sig: ScriptBuf,
    pub witness: Witness,
}

/// What the cases spend.
pub struct Coins {
    pub spendable: Vec<Spendable>,
    /// Coinbases that are not ripe, and one that is as of the next block.
    pub coinbases: Vec<Spendable>,
}

impl Coins {
    /// Of a node whose chain is empty.
    pub fn mined_by(node: &Node) -> Self {
        let mut clock = Clock::of(node);
        clock.mine(node, 101);
        let kinds = kinds();
        let outputs = kinds.iter().flat_map(|(_, script, _, _)| {
            let output = TxOut { value: Amount::from_sat(WORTH), script_pubkey: script.clone() };
            std::iter::repeat_n(output, COPIES as usize)
        });
        let payment = spend_reward(node, 1, outputs.collect());
        node.generate_block_to(&miner(), &[serialize_hex(&payment)]);
        clock.mine(node, ON_TOP);

        let txid = payment.compute_txid();
        let mut spendable = Vec::new();
        for (number, (name, _, script_sig, witness)) in (0..).zip(kinds) {
            for vout in number * COPIES..(number + 1) * COPIES {
                let outpoint = OutPoint { txid, vout };
                let (script_sig, witness) = (script_sig.clone(), witness.clone());
                spendable.push(Spendable { name, outpoint, script_sig, witness });
            }
        }
        let coinbases = [1, 50, 99, 100].map(|depth| coinbase(node, depth)).to_vec();
        Self { spendable, coinbases }
    }

    /// Of that name.
    pub fn kind<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a Spendable> {
        let coins: Vec<_> = self.spendable.iter().filter(|coin| coin.name == name).collect();
        assert!(!coins.is_empty(), "{name}");
        coins.into_iter()
    }
}

/// The node's clock, which moves by hand.
pub struct Clock {
    pub time: u32,
}

impl Clock {
    pub fn of(node: &Node) -> Self {
        let tip = node.rpc("getblockheader", json!([node.tip()]));
        Self { time: tip["time"].as_u64().unwrap() as u32 + 1_000_000 }
    }

    /// Blocks for anyone to spend, ten minutes apart.
    pub fn mine(&mut self, node: &Node, count: u32) {
        for _ in 0..count {
            self.time += TEN_MINUTES;
            node.rpc("setmocktime", json!([self.time]));
            node.generate_to(1, &miner());
        }
    }
}

/// What anyone can spend, with [`anyone_witness`].
pub fn anyone() -> ScriptBuf {
    ScriptBuf::from_bytes(vec![OP_TRUE]).to_p2wsh()
}

pub fn anyone_witness() -> Witness {
    Witness::from_slice(&[[OP_TRUE]])
}

pub fn miner() -> String {
    Address::from_script(&anyone(), Network::Regtest).unwrap().to_string()
}

/// Pays the coinbase of a height to these outputs.
pub fn spend_reward(node: &Node, height: u32, output: Vec<TxOut>) -> Transaction {
    let block = node.rpc("getblock", json!([node.hash_at(height)]));
    let reward = OutPoint { txid: text(&block["tx"][0]).parse().unwrap(), vout: 0 };
    Transaction {
        version: Version::TWO,
        lock_time: LockTime::ZERO,
        input: vec![TxIn { previous_output: reward, witness: anyone_witness(), ..TxIn::default() }],
        output,
    }
}

/// The coinbase that the next block would spend at that depth.
fn coinbase(node: &Node, depth: u32) -> Spendable {
    let block = node.rpc("getblock", json!([node.hash_at(node.height() + 1 - depth)]));
    let txid: Txid = text(&block["tx"][0]).parse().unwrap();
    Spendable {
        name: "coinbase",
        outpoint: OutPoint { txid, vout: 0 },
        script_sig: ScriptBuf::new(),
        witness: Witness::new(),
    }
}

type Kind = (&'static str, ScriptBuf, ScriptBuf, Witness);

const OP_TRUE: u8 = 0x51;
const OP_DROP: u8 = 0x75;
const OP_2DROP: u8 = 0x6d;
const OP_NOP: u8 = 0x61;
const OP_CHECKSIG: u8 = 0xac;
const OP_CHECKMULTISIG: u8 = 0xae;

pub fn push(data: &[u8]) -> Vec<u8> {
    match data.len() {
        len @ 0..0x4c => [&[len as u8], data].concat(),
        len @ 0x4c..=0xff => [&[0x4c, len as u8], data].concat(),
        len => [&[0x4d], &(len as u16).to_le_bytes()[..], data].concat(),
    }
}

/// A script that is true, with operations that are never reached before.
fn unreached(ops: &[u8]) -> Vec<u8> {
    [&[0, 0x63][..], ops, &[0x68, OP_TRUE]].concat()
}

fn p2sh(name: &'static str, redeem_script: &[u8], before: &[u8]) -> Kind {
    let script = ScriptBuf::from_bytes(redeem_script.to_vec());
    let script_sig = ScriptBuf::from_bytes([before, &push(redeem_script)].concat());
    (name, script.to_p2sh(), script_sig, Witness::new())
}

fn p2wsh(name: &'static str, script: Vec<u8>, items: &[Vec<u8>]) -> Kind {
    let script = ScriptBuf::from_bytes(script);
    let mut witness = Witness::from_slice(items);
    witness.push(script.as_bytes());
    (name, script.to_p2wsh(), ScriptBuf::new(), witness)
}

fn nested(name: &'static str, script: &[u8], items: &[Vec<u8>]) -> Kind {
    let (name, program, _, witness) = p2wsh(name, script.to_vec(), items);
    (name, program.to_p2sh(), push(program.as_bytes()).into(), witness)
}

/// A script path; what stands behind the control block is `last`.
fn taproot(name: &'static str, script: &[u8], version: u8, items: &[Vec<u8>], last: &[&[u8]]) -> Kind {
    let secp = Secp256k1::verification_only();
    // The point that nobody knows the key of (BIP341).
    let point = "50929b74c1a04954b78b4b6035e97a5e078a5a0f28ec96d547bfee9ace803ac0";
    let internal: UntweakedPublicKey = point.parse().unwrap();
    let leaf = (ScriptBuf::from_bytes(script.to_vec()), LeafVersion::from_consensus(version).unwrap());
    let builder = TaprootBuilder::new().add_leaf_with_ver(0, leaf.0.clone(), leaf.1).unwrap();
    let spend = builder.finalize(&secp, internal).unwrap();
    let control = spend.control_block(&leaf).unwrap().serialize();
    let mut witness = Witness::from_slice(items);
    witness.push(script);
    witness.push(control);
    for item in last {
        witness.push(item);
    }
    (name, ScriptBuf::new_p2tr_tweaked(spend.output_key()), ScriptBuf::new(), witness)
}

fn plain(name: &'static str, script: Vec<u8>) -> Kind {
    (name, script.into(), ScriptBuf::new(), Witness::new())
}

fn program(version: u8, len: u8) -> Vec<u8> {
    [&[version, len][..], &vec![7; len.into()]].concat()
}

fn kinds() -> Vec<Kind> {
    let key = [&[2][..], &[9; 32]].concat();
    let dropping =
        |items: usize| [vec![OP_2DROP; items / 2], vec![OP_DROP; items % 2], vec![OP_TRUE]].concat();
    let items = |count: usize, len: usize| vec![vec![1; len]; count];
    // Long scripts push and drop, as operations are limited.
    let long = |len: usize| {
        let mut script = Vec::new();
        while script.len() + 504 + 1 < len {
            script.extend(push(&[1; 500]));
            script.push(OP_DROP);
        }
        script.extend(std::iter::repeat_n(OP_NOP, len - 1 - script.len()));
        script.push(OP_TRUE);
        script
    };
    let mut kinds = vec![
        p2wsh("p2wsh", vec![OP_TRUE], &[]),
        p2sh("p2sh", &[OP_TRUE], &[]),
        nested("nested p2wsh", &[OP_TRUE], &[]),
        plain("anchor", vec![OP_TRUE, 2, 0x4e, 0x73]),
        plain("bare true", vec![OP_TRUE]),
        plain("witness version 2", program(0x52, 32)),
        plain("witness version 1 of 20 bytes", program(0x51, 20)),
        plain("witness version 0 of 21 bytes", program(0, 21)),
        plain("pubkey", [push(&key), vec![OP_CHECKSIG]].concat()),
        plain("pubkey hash", [&[0x76, 0xa9, 20][..], &[5; 20], &[0x88, OP_CHECKSIG]].concat()),
        plain("p2wpkh", program(0, 20)),
        plain("1 of 1", [vec![0x51], push(&key), vec![0x51, OP_CHECKMULTISIG]].concat()),
        plain("2,520 sigops", vec![OP_CHECKMULTISIG; 126]),
        p2sh("15 sigops", &unreached(&[OP_CHECKSIG; 15]), &[]),
        p2sh("16 sigops", &unreached(&[OP_CHECKSIG; 16]), &[]),
        p2sh("16 sigops of a multisig", &unreached(&[0x60, OP_CHECKMULTISIG]), &[]),
        p2sh("reserved", &[OP_TRUE], &[0x50]),
        p2sh("520 bytes", &[OP_DROP, OP_TRUE], &push(&[1; 520])),
        p2sh("521 bytes", &[OP_DROP, OP_TRUE], &push(&[1; 521])),
        p2sh("1,001 items", &[OP_TRUE], &[OP_TRUE; 1_000]),
        p2sh("1,000 items", &[OP_TRUE], &[0x4f; 999]),
        p2sh("1,651 bytes", &[OP_TRUE], &[0; 1_649]),
        p2wsh("script of 3,600 bytes", long(3_600), &[]),
        p2wsh("script of 3,601 bytes", long(3_601), &[]),
        p2wsh("item of 80 bytes", dropping(1), &items(1, 80)),
        p2wsh("item of 81 bytes", dropping(1), &items(1, 81)),
        p2wsh("100 items", dropping(100), &items(100, 1)),
        p2wsh("101 items", dropping(101), &items(101, 1)),
        nested("nested item of 81 bytes", &dropping(1), &items(1, 81)),
        p2wsh("sigops in the witness", unreached(&[OP_CHECKSIG; 190]), &[]),
        taproot("taproot", &[OP_TRUE], 0xc0, &[], &[]),
        taproot("taproot item of 80 bytes", &dropping(1), 0xc0, &items(1, 80), &[]),
        taproot("taproot item of 81 bytes", &dropping(1), 0xc0, &items(1, 81), &[]),
        taproot("leaf version item of 81 bytes", &dropping(1), 0xc2, &items(1, 81), &[]),
        taproot("annex", &[OP_TRUE], 0xc0, &[], &[&[0x50, 1]]),
        taproot("empty control block", &[OP_TRUE], 0xc0, &[], &[&[]]),
    ];
    let sneaked = |(name, script, script_sig, _): Kind, new_name, witness: &[&[u8]]| {
        let _: &str = name;
        (new_name, script, script_sig, Witness::from_slice(witness))
    };
    kinds.push(sneaked(p2sh("", &[OP_TRUE], &[]), "p2sh with a witness", &[&[1]]));
    kinds.push(sneaked(plain("", vec![OP_TRUE, 2, 0x4e, 0x73]), "anchor with a witness", &[&[1]]));
    kinds.push(sneaked(plain("", program(0x51, 32)), "key path", &[&[1; 64]]));
    let nested_v0 = program(0, 21);
    let nested_taproot = program(0x51, 32);
    kinds.push(sneaked(p2sh("", &nested_v0, &[]), "nested version 0 of 21 bytes", &[&[1; 81], &[1]]));
    kinds.push(sneaked(p2sh("", &nested_taproot, &[]), "nested taproot", &[&[1; 81], &[2], &[0xc0]]));
    kinds.push((
        "p2sh without a push",
        ScriptBuf::new_p2sh(&ScriptBuf::new().script_hash()),
        ScriptBuf::new(),
        Witness::new(),
    ));
    let not_push = ScriptBuf::from_bytes([&[OP_NOP][..], &push(&[OP_TRUE])].concat());
    kinds.push(("not only pushes", ScriptBuf::from_bytes(vec![OP_TRUE]).to_p2sh(), not_push, Witness::new()));
    kinds
}
