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

/// So many distinct scripts of all ages; only ones that are recognised when they are spent from.
pub fn existing(chain: &[Served], count: usize, except: &HashSet<Hash>) -> anyhow::Result<Vec<Hash>> {
    let mut rng = fastrand::Rng::with_seed(1);
    let mut found = Vec::with_capacity(count);
    let mut seen = HashSet::with_capacity(count);
    // The genesis block's cannot be asked for. The first blocks have few, and the later ones make up for them.
    for (left, block) in (1..chain.len()).rev().zip(&chain[1..]) {
        let quota = (count - found.len()).div_ceil(left);
        if quota == 0 {
            break;
        }
        let block: Block = bitcoin::consensus::deserialize(&block.read()?)?;
        let scripts = block.txdata.iter().flat_map(|tx| &tx.output).map(|output| &output.script_pubkey);
        let mut scripts: Vec<_> = scripts.filter(|script| touched::is_shown(script)).collect();
        rng.shuffle(&mut scripts);
        let hashes = scripts.into_iter().map(|script| touched::hash(script.as_bytes()));
        let new = hashes.filter(|hash| !except.contains(hash) && seen.insert(*hash));
        found.extend(new.take(quota));
    }
    ensure!(found.len() >= count, "{} scripts were found, and {count} are wanted", found.len());
    // Each wallet has some of all ages.
    rng.shuffle(&mut found);
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
