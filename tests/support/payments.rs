//! A regtest chain on which every kind of output is paid and spent.
//!
//! The node's wallet does what wallets do; what its policy would not relay is signed by it and mined by
//! `generateblock`, which asks for consensus alone.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use bitcoin::absolute::LockTime;
use bitcoin::consensus::encode::serialize_hex;
use bitcoin::hex::FromHex;
use bitcoin::opcodes::all::{OP_CHECKMULTISIG, OP_PUSHNUM_1, OP_PUSHNUM_2, OP_RETURN};
use bitcoin::script::{Builder, ScriptBuf};
use bitcoin::secp256k1::{Secp256k1, SecretKey};
use bitcoin::transaction::Version;
use bitcoin::{
    Amount, Network, OutPoint, PrivateKey, PublicKey, Sequence, Transaction, TxIn, TxOut, Witness,
};
use serde_json::{Value, json};

use super::node::{Node, text};

/// Height of the chain that the tests start from.
pub const HEIGHT: u32 = 300;
/// Blocks until the wallet has coins to pay with: 100 for maturity, and some.
const FIRST_COINS: usize = 110;
/// The four kinds of address that Core's wallet makes.
const KINDS: [&str; 4] = ["legacy", "p2sh-segwit", "bech32", "bech32m"];

/// A node at height 300 with every kind of output on its chain; `None` where there is no bitcoind with wallets.
///
/// The chain is made once a process; each node starts on a copy of its own. Block files are tiny, so that
/// a test can prune.
pub fn node() -> Option<Node> {
    static TEMPLATE: OnceLock<PathBuf> = OnceLock::new();
    super::node::bitcoind_with_wallets()?;
    Node::start_on_copy(TEMPLATE.get_or_init(template), &["-fastprune"])
}

fn template() -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    // What earlier processes left behind.
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if let Some(owner) = name.strip_prefix("regtest-")
            && !Path::new("/proc").join(owner).exists()
        {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
    let folder = folder.join(format!("regtest-{}", std::process::id()));
    let node = Node::start(&["-fastprune"]).expect("it was found before");
    let keys = Keys::imported_into(&node);
    node.generate(FIRST_COINS);
    while node.height() < HEIGHT {
        match node.height() % 24 {
            3 => in_two_blocks(&node, &keys),
            9 => in_one_block(&node, &keys),
            15 => {
                let key = format!("pk({})", keys.public[0]);
                node.rpc("generatetodescriptor", json!([1, checked(&node, &key)]));
            }
            n => {
                // Not in every block: the wallet's choice of coins takes most of the time.
                if n % 3 == 0 {
                    everyday(&node);
                }
                node.generate(1);
            }
        }
    }
    assert_eq!(node.height(), HEIGHT);
    node.stop_and_copy(&folder);
    folder
}

/// Payments as a wallet makes them, of every address type; they wait for a block.
pub fn everyday(node: &Node) {
    let addresses: Vec<Value> =
        KINDS.iter().map(|kind| node.rpc("getnewaddress", json!(["", kind]))).collect();
    for address in &addresses[..2] {
        node.rpc("sendtoaddress", json!([address, 1.25]));
    }
    let several: serde_json::Map<String, Value> =
        addresses.iter().map(|address| (text(address), json!(0.5))).collect();
    node.rpc("sendmany", json!(["", several]));
    // Data of up to 80 bytes is what policy lets pass.
    let data = json!([{"data": "706565726465780a"}, {addresses[3].as_str().unwrap(): 0.1}]);
    let raw = node.rpc("createrawtransaction", json!([[], data]));
    let funded = node.rpc("fundrawtransaction", json!([raw]));
    let signed = node.rpc("signrawtransactionwithwallet", json!([funded["hex"]]));
    node.rpc("sendrawtransaction", json!([signed["hex"]]));
}

/// Keys of the tests, known to the node's wallet too.
pub struct Keys {
    public: [PublicKey; 2],
    /// Addresses that pay to scripts of these keys: P2SH, P2WSH, P2WSH in P2SH, taproot.
    addresses: Vec<ScriptBuf>,
}

impl Keys {
    pub fn imported_into(node: &Node) -> Self {
        let secp = Secp256k1::new();
        let secret = [1, 2].map(|byte| SecretKey::from_slice(&[byte; 32]).expect("a small number is a key"));
        let private = secret.map(|key| PrivateKey::new(key, Network::Regtest));
        let public = private.map(|key| key.public_key(&secp));
        let [a, b] = private.map(|key| key.to_wif());
        let multi = format!("multi(1,{a},{b})");
        let with_address = [
            format!("sh({multi})"),
            format!("wsh({multi})"),
            format!("sh(wsh({multi}))"),
            format!("tr({a})"),
        ];
        for descriptor in [format!("pk({a})"), multi].iter().chain(&with_address) {
            let request = json!([[{"desc": checked(node, descriptor), "timestamp": "now"}]]);
            let done = node.rpc("importdescriptors", request);
            assert_eq!(done[0]["success"], json!(true), "{descriptor}: {done}");
        }
        let address = |descriptor: &String| {
            let info = node.rpc("getdescriptorinfo", json!([descriptor]));
            let address = &node.rpc("deriveaddresses", json!([info["descriptor"]]))[0];
            let address: bitcoin::Address<_> = text(address).parse().expect("an address");
            address.assume_checked().script_pubkey()
        };
        Self { public, addresses: with_address.iter().map(address).collect() }
    }

    fn p2pk(&self) -> ScriptBuf {
        ScriptBuf::new_p2pk(&self.public[0])
    }

    fn bare_multisig(&self) -> ScriptBuf {
        let [a, b] = &self.public;
        let keys = Builder::new().push_opcode(OP_PUSHNUM_1).push_key(a).push_key(b);
        keys.push_opcode(OP_PUSHNUM_2).push_opcode(OP_CHECKMULTISIG).into_script()
    }
}

/// The descriptor with its checksum, private keys kept.
fn checked(node: &Node, descriptor: &str) -> String {
    let info = node.rpc("getdescriptorinfo", json!([descriptor]));
    format!("{descriptor}#{}", text(&info["checksum"]))
}

/// Pays to every odd script in a block, and spends all that can be spent in the next.
pub fn in_two_blocks(node: &Node, keys: &Keys) {
    let payment = pay(node, keys);
    node.generate_block(&[serialize_hex(&payment)]);
    let spending = spend(node, &payment, |_| true);
    node.generate_block(&[serialize_hex(&spending)]);
}

/// Pays to every odd script and spends from it in one block.
pub fn in_one_block(node: &Node, keys: &Keys) {
    let payment = pay(node, keys);
    // A taproot signature covers all scripts that are spent, and the wallet can't be told of an empty one.
    let spending = spend(node, &payment, |output| !output.script_pubkey.is_empty());
    node.generate_block(&[serialize_hex(&payment), serialize_hex(&spending)]);
}

/// A signed transaction with an output of each kind that wallets don't make.
fn pay(node: &Node, keys: &Keys) -> Transaction {
    let coins = node.rpc("listunspent", json!({"minconf": 1, "query_options": {"minimumAmount": 20}}));
    let coin = &coins[0];
    let value = super::naive::satoshi(&coin["amount"]);
    let outpoint = OutPoint::new(text(&coin["txid"]).parse().unwrap(), coin["vout"].as_u64().unwrap() as u32);
    let hex = |hex: &str| ScriptBuf::from(Vec::<u8>::from_hex(hex).unwrap());

    let mut scripts = keys.addresses.clone();
    scripts.extend([
        keys.p2pk(),
        keys.bare_multisig(),
        // Anyone's: OP_TRUE twice, an empty script, a witness program of version 2, pay to anchor.
        hex("51"),
        hex("51"),
        ScriptBuf::new(),
        hex(&format!("5220{}", "ab".repeat(32))),
        hex("51024e73"),
    ]);
    let million = Amount::from_sat(1_000_000);
    let mut output: Vec<TxOut> =
        scripts.into_iter().map(|script_pubkey| TxOut { value: million, script_pubkey }).collect();
    let data = Builder::new().push_opcode(OP_RETURN).push_slice(*b"not a coin").into_script();
    output.extend([
        TxOut { value: Amount::ZERO, script_pubkey: data.clone() },
        TxOut { value: Amount::from_sat(1000), script_pubkey: data },
        // A coin of nothing, and one that its length makes unspendable.
        TxOut { value: Amount::ZERO, script_pubkey: keys.p2pk() },
        TxOut { value: Amount::from_sat(1), script_pubkey: ScriptBuf::from(vec![0x61; 10_001]) },
    ]);
    let paid: u64 = output.iter().map(|output| output.value.to_sat()).sum();
    let change = node.rpc("getrawchangeaddress", json!(["bech32"]));
    let change: bitcoin::Address<_> = text(&change).parse().expect("an address");
    output.push(TxOut {
        value: Amount::from_sat(value - paid - 50_000),
        script_pubkey: change.assume_checked().script_pubkey(),
    });
    sign(node, transaction(vec![outpoint], output), &[])
}

/// A signed transaction that spends the chosen outputs of `payment`, the change and what can't be spent left out.
fn spend(node: &Node, payment: &Transaction, is_chosen: fn(&TxOut) -> bool) -> Transaction {
    let txid = payment.compute_txid();
    let is_coin = |output: &TxOut| {
        !output.script_pubkey.is_op_return() && output.script_pubkey.len() <= 10_000 && is_chosen(output)
    };
    let spent: Vec<u32> = (0..payment.output.len() as u32 - 1)
        .filter(|vout| is_coin(&payment.output[*vout as usize]))
        .collect();
    let value: u64 = spent.iter().map(|vout| payment.output[*vout as usize].value.to_sat()).sum();
    let address = node.rpc("getnewaddress", json!(["", "bech32m"]));
    let address: bitcoin::Address<_> = text(&address).parse().expect("an address");
    let output = TxOut {
        value: Amount::from_sat(value - 50_000),
        script_pubkey: address.assume_checked().script_pubkey(),
    };
    let inputs = spent.iter().map(|vout| OutPoint::new(txid, *vout)).collect();
    let mut signed = sign(node, transaction(inputs, vec![output]), &prevouts(payment, txid));
    for (input, vout) in signed.input.iter_mut().zip(&spent) {
        // An empty script passes when its spender pushes a truth.
        if payment.output[*vout as usize].script_pubkey.is_empty() {
            input.script_sig = Builder::new().push_opcode(OP_PUSHNUM_1).into_script();
        }
    }
    signed
}

fn transaction(inputs: Vec<OutPoint>, output: Vec<TxOut>) -> Transaction {
    let input = |previous_output| TxIn {
        previous_output,
        script_sig: ScriptBuf::new(),
        sequence: Sequence::MAX,
        witness: Witness::new(),
    };
    let input = inputs.into_iter().map(input).collect();
    Transaction { version: Version::TWO, lock_time: LockTime::ZERO, input, output }
}

/// Signs what the wallet can; what it can't must need no signature.
fn sign(node: &Node, tx: Transaction, prevouts: &[Value]) -> Transaction {
    let signed = node.rpc("signrawtransactionwithwallet", json!([serialize_hex(&tx), prevouts]));
    bitcoin::consensus::encode::deserialize_hex(&text(&signed["hex"])).expect("a transaction")
}

/// What the wallet must be told of outputs that are in no block yet; it takes no empty script.
fn prevouts(payment: &Transaction, txid: bitcoin::Txid) -> Vec<Value> {
    let outputs = payment.output.iter().enumerate();
    outputs
        .filter(|(_, output)| !output.script_pubkey.is_empty())
        .map(|(vout, output)| {
            json!({
                "txid": txid.to_string(),
                "vout": vout,
                "scriptPubKey": output.script_pubkey.to_hex_string(),
                "amount": output.value.to_btc(),
            })
        })
        .collect()
}
