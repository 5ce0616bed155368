//! The continuation is one, and what it touches is what its blocks say.

use std::collections::HashSet;
use std::fs::File;
use std::time::Duration;

use bitcoin::Block;
use tempfile::TempDir;

use super::measure::quantile;
use super::more::{More, more};
use super::touched;
use crate::forge::forge;

#[test]
fn a_chain_is_continued_and_the_same_seed_is_asked_for() {
    let folder = TempDir::new().unwrap();
    let file = |name| File::create(folder.path().join(name)).unwrap();
    let summary = forge(6_000_000, 4, &mut file("blocks.dat"), &mut file("truth.jsonl")).unwrap();
    let mut wanted = More { seed: 4, blocks: 3, transactions: 50 };
    let out = folder.path().join("more");
    let three = more(&summary, &wanted, &out).unwrap();
    wanted.blocks = 5;
    let five = more(&summary, &wanted, &out).unwrap();
    assert_eq!((three.len(), five.len()), (3, 5));
    assert!(three.iter().zip(&five).all(|(one, other)| one.hash == other.hash));
    wanted.blocks = 2;
    assert_eq!(more(&summary, &wanted, &out).unwrap().len(), 5, "what is there is taken again");
    wanted.seed = 5;
    assert!(more(&summary, &wanted, &out).is_err());

    let blocks: Vec<Block> =
        five.iter().map(|block| bitcoin::consensus::deserialize(&block.read().unwrap()).unwrap()).collect();
    assert_eq!(blocks[0].header.prev_blockhash.to_string(), summary.tip);
    assert!(blocks.iter().all(|block| block.txdata.len() == 50 && block.weight().to_wu() < 4_000_000));

    let mut known = HashSet::new();
    let scripts = std::fs::read(folder.path().join("blocks.dat")).unwrap();
    let mut rest = scripts.as_slice();
    while !rest.is_empty() {
        let length = u32::from_le_bytes(rest[4..8].try_into().unwrap()) as usize;
        let block: Block = bitcoin::consensus::deserialize(&rest[8..8 + length]).unwrap();
        known.extend(outputs(&block));
        rest = &rest[8 + length..];
    }
    known.extend(outputs(&blocks[0]));
    let some = touched::some(&blocks[0], 40, &mut fastrand::Rng::with_seed(1));
    assert_eq!(some.len(), 40);
    assert!(some.iter().all(|hash| known.contains(hash)));
    let funded: HashSet<String> = outputs(&blocks[0]).collect();
    assert!(some.iter().any(|hash| !funded.contains(hash)), "spent ones are among them");
}

fn outputs(block: &Block) -> impl Iterator<Item = String> {
    let outputs = block.txdata.iter().flat_map(|tx| &tx.output);
    outputs.map(|output| touched::scripthash(output.script_pubkey.as_bytes()))
}

#[test]
fn quantiles_are_times_that_were_met() {
    let mut times: Vec<Duration> = (1..=10).rev().map(Duration::from_millis).collect();
    let met = [0, 500, 900, 901, 1_000].map(|share| quantile(&mut times, share).as_millis());
    assert_eq!(met, [1, 5, 9, 10, 10]);
    assert_eq!(quantile(&mut [], 500), Duration::ZERO);
}
