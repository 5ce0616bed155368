//! Scripts that a forged block touches, read from the block alone.

use bitcoin::hashes::{Hash, sha256};
use bitcoin::hex::DisplayHex;
use bitcoin::{Block, Script, ScriptBuf, Transaction, TxIn};

/// As in the Electrum protocol: SHA-256 of the script, reversed.
pub fn hash(script: &[u8]) -> [u8; 32] {
    let mut hash = sha256::Hash::hash(script).to_byte_array();
    hash.reverse();
    hash
}

/// The same in hex.
pub fn scripthash(script: &[u8]) -> String {
    hash(script).to_lower_hex_string()
}

/// Scripthashes of some outputs and inputs of the block, about as many of each, distinct.
pub fn some(block: &Block, count: usize, rng: &mut fastrand::Rng) -> Vec<String> {
    let (funded, spent) = scripts(block);
    let mut found = Vec::new();
    for number in 0..count * 4 {
        let from = if number % 2 == 0 || spent.is_empty() { &funded } else { &spent };
        let hash = scripthash(from[rng.usize(..from.len())].as_bytes());
        if found.len() < count && !found.contains(&hash) {
            found.push(hash);
        }
    }
    found
}

/// Scripts that the block's outputs pay, and those that its inputs show.
pub fn scripts(block: &Block) -> (Vec<ScriptBuf>, Vec<ScriptBuf>) {
    let funded = block.txdata.iter().flat_map(funded).collect();
    (funded, block.txdata.iter().flat_map(spent).collect())
}

pub fn funded(transaction: &Transaction) -> impl Iterator<Item = ScriptBuf> {
    let scripts = transaction.output.iter().map(|output| &output.script_pubkey);
    scripts.filter(|script| !script.is_op_return()).cloned()
}

pub fn spent(transaction: &Transaction) -> impl Iterator<Item = ScriptBuf> {
    let inputs = transaction.input.iter().filter(|_| !transaction.is_coinbase());
    inputs.filter_map(spent_script)
}

/// Whether who spends from a script shows it, so that `scripts` finds it again.
pub fn is_shown(script: &Script) -> bool {
    script.is_p2sh() || script.is_p2wsh()
}

/// The locking script that an input shows what hashes to; nothing for bare scripts, which show nothing.
fn spent_script(input: &TxIn) -> Option<ScriptBuf> {
    if let Some(inner) = input.witness.last() {
        return Some(ScriptBuf::from_bytes(inner.to_vec()).to_p2wsh());
    }
    let first = input.script_sig.instructions().next()?.ok()?;
    let inner = first.push_bytes()?.as_bytes();
    // Those of bare scripts are padding, and no script of the forge's ends like that.
    inner.ends_with(&[0x75, 0x51]).then(|| ScriptBuf::from_bytes(inner.to_vec()).to_p2sh())
}
