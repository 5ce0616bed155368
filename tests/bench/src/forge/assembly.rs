//! A block from its transactions: coinbase, witness commitment, merkle root, nonce.

use bitcoin::hashes::{Hash, HashEngine, sha256d};

use super::put_compact;

/// Block version with BIP9's mark and no signal.
const VERSION: u32 = 0x2000_0000;
/// Regtest's only target.
const BITS: u32 = 0x207f_ffff;
/// Regtest's genesis, and the time between blocks.
const GENESIS_TIME: u32 = 1_296_688_602;
const SPACING: u32 = 600;
/// Regtest halves the subsidy this often.
const HALVING: u32 = 150;
const FIRST_SUBSIDY: u64 = 50 * 100_000_000;

/// What miners of this height may make.
pub fn subsidy(height: u32) -> u64 {
    FIRST_SUBSIDY.checked_shr(height / HALVING).unwrap_or(0)
}

/// A coinbase with these outputs (value and locking script), and its txid.
///
/// `tag` is in its script. With `witness_root` it commits to it (BIP141), with a reserved value of zeros.
pub fn coinbase(
    height: u32,
    tag: [u8; 5],
    outputs: &[(u64, Vec<u8>)],
    witness_root: Option<[u8; 32]>,
) -> (Vec<u8>, [u8; 32]) {
    let mut stripped = Vec::with_capacity(200 + outputs.len() * 45);
    stripped.extend(2_u32.to_le_bytes());
    stripped.push(1);
    stripped.extend([0; 32]);
    stripped.extend(u32::MAX.to_le_bytes());
    let mut script = height_push(height);
    script.push(tag.len() as u8);
    script.extend(tag);
    stripped.push(script.len() as u8);
    stripped.extend(script);
    stripped.extend(u32::MAX.to_le_bytes());
    put_compact(&mut stripped, outputs.len() + usize::from(witness_root.is_some()));
    for (value, script) in outputs {
        stripped.extend(value.to_le_bytes());
        put_compact(&mut stripped, script.len());
        stripped.extend(script);
    }
    if let Some(root) = witness_root {
        stripped.extend(0_u64.to_le_bytes());
        stripped.extend([38, 0x6a, 0x24, 0xaa, 0x21, 0xa9, 0xed]);
        stripped.extend(pair(root, [0; 32]));
    }
    let body = 4..stripped.len();
    stripped.extend(0_u32.to_le_bytes());
    let txid = sha256d::Hash::hash(&stripped).to_byte_array();
    if witness_root.is_none() {
        return (stripped, txid);
    }
    let mut full = Vec::with_capacity(stripped.len() + 36);
    full.extend(2_u32.to_le_bytes());
    full.extend([0, 1]);
    full.extend(&stripped[body]);
    full.extend([1, 32]);
    full.extend([0; 32]);
    full.extend(0_u32.to_le_bytes());
    (full, txid)
}

/// BIP34's push: small numbers have opcodes, others are signed and little-endian.
fn height_push(height: u32) -> Vec<u8> {
    if (1..=16).contains(&height) {
        return vec![0x50 + height as u8];
    }
    let mut bytes: Vec<u8> = height.to_le_bytes().to_vec();
    while bytes.last() == Some(&0) {
        bytes.pop();
    }
    if bytes.last().is_some_and(|last| last & 0x80 != 0) {
        bytes.push(0);
    }
    bytes.insert(0, bytes.len() as u8);
    bytes
}

/// A header that meets regtest's target.
pub fn header(height: u32, previous: [u8; 32], merkle_root: [u8; 32]) -> ([u8; 80], [u8; 32]) {
    let mut header = [0; 80];
    header[..4].copy_from_slice(&VERSION.to_le_bytes());
    header[4..36].copy_from_slice(&previous);
    header[36..68].copy_from_slice(&merkle_root);
    header[68..72].copy_from_slice(&(GENESIS_TIME + height * SPACING).to_le_bytes());
    header[72..76].copy_from_slice(&BITS.to_le_bytes());
    for nonce in 0_u32.. {
        header[76..].copy_from_slice(&nonce.to_le_bytes());
        let hash = sha256d::Hash::hash(&header).to_byte_array();
        // The target's first byte is 7f; a hash that begins with it could still be too high.
        if hash[31] < 0x7f {
            return (header, hash);
        }
    }
    unreachable!("every other nonce will do")
}

/// Merkle root; overwrites the hashes.
pub fn merkle_root(hashes: &mut Vec<[u8; 32]>) -> [u8; 32] {
    while hashes.len() > 1 {
        if hashes.len() % 2 == 1 {
            hashes.push(hashes[hashes.len() - 1]);
        }
        for place in 0..hashes.len() / 2 {
            hashes[place] = pair(hashes[2 * place], hashes[2 * place + 1]);
        }
        hashes.truncate(hashes.len() / 2);
    }
    hashes[0]
}

fn pair(left: [u8; 32], right: [u8; 32]) -> [u8; 32] {
    let mut engine = sha256d::Hash::engine();
    engine.input(&left);
    engine.input(&right);
    sha256d::Hash::from_engine(engine).to_byte_array()
}
