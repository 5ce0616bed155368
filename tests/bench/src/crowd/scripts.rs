//! Scripts to subscribe to: those of the chain, and ones that nobody ever paid.

use std::collections::HashSet;

use anyhow::ensure;
use bitcoin::Block;
use bitcoin::hex::FromHex;

use crate::load::known::Known;
use crate::sync::peer::Served;
use crate::tip::touched;

/// As in the Electrum protocol, in the order in which it is shown.
pub type Hash = [u8; 32];

/// Histories longer than this are no normal wallet's.
const LONG: usize = 100;

/// So many distinct scripts, the newest first; only ones that are recognised when they are spent from.
pub fn existing(chain: &[Served], count: usize, except: &HashSet<Hash>) -> anyhow::Result<Vec<Hash>> {
    let mut found = Vec::with_capacity(count);
    let mut seen = HashSet::with_capacity(count);
    // The genesis block's cannot be asked for.
    for block in chain.iter().skip(1).rev() {
        if found.len() >= count {
            break;
        }
        let block: Block = bitcoin::consensus::deserialize(&block.read()?)?;
        for output in block.txdata.iter().flat_map(|tx| &tx.output) {
            let script = &output.script_pubkey;
            let hash = touched::hash(script.as_bytes());
            if touched::is_shown(script) && !except.contains(&hash) && seen.insert(hash) {
                found.push(hash);
            }
        }
    }
    ensure!(found.len() >= count, "the chain has {} scripts, and {count} are wanted", found.len());
    found.truncate(count);
    Ok(found)
}

/// Scripts whose histories are no normal wallet's.
pub fn long(known: &Known) -> HashSet<Hash> {
    let long = known.scripts.iter().filter(|script| script.history.len() > LONG);
    long.filter_map(|script| Hash::from_hex(&script.scripthash).ok()).collect()
}

pub fn unseen(rng: &mut fastrand::Rng) -> Hash {
    let mut hash = [0; 32];
    rng.fill(&mut hash);
    hash
}
