//! Scripts that a forged block touches, read from the block alone.

use bitcoin::hashes::{Hash, sha256};
use bitcoin::{Block, ScriptBuf, TxIn};

/// As in the Electrum protocol: SHA-256 of the script, reversed, hex.
pub fn scripthash(script: &[u8]) -> String {
    let mut hash = sha256::Hash::hash(script).to_byte_array();
    hash.reverse();
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Scripthashes of some outputs and inputs of the block, about as many of each, distinct.
pub fn some(block: &Block, count: usize, rng: &mut fastrand::Rng) -> Vec<String> {
    let outputs = block.txdata.iter().flat_map(|tx| &tx.output).map(|output| &output.script_pubkey);
    let funded: Vec<ScriptBuf> = outputs.filter(|script| !script.is_op_return()).cloned().collect();
    let inputs = block.txdata.iter().skip(1).flat_map(|tx| &tx.input);
    let spent: Vec<ScriptBuf> = inputs.filter_map(spent_script).collect();
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
