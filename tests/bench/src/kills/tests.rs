//! The harness itself: what it forges are branches, what it calls true is, and it reads the log right.

use std::collections::HashSet;
use std::time::Instant;

use tempfile::TempDir;

use super::model::Model;
use super::server::{Phase, Seen};
use super::world::World;

#[test]
fn a_branch_shares_what_is_below_its_fork_and_nothing_above() {
    let folder = TempDir::new().unwrap();
    let mut world = World::new(3, 130, folder.path()).unwrap();
    let old = world.chain.clone();
    for (depth, seed) in [(12, Some(9)), (5, None), (40, None)] {
        let before = world.chain.clone();
        world.fork(depth, seed).unwrap();
        world.grow(depth + 2).unwrap();
        let fork = before.len() - depth;
        assert_eq!(world.chain.len(), before.len() + 2);
        let same = |at: usize| world.chain[at].hash == before[at].hash;
        assert!((0..fork).all(same) && !(fork..before.len()).any(same));
        // Spends only what is there, or the model would say so.
        Model::of(&world.chain).unwrap();
    }
    assert!(old.iter().all(|block| !block.read().unwrap().is_empty()), "dead branches can be served still");
}

#[test]
fn a_branch_without_a_seed_has_the_same_transactions_at_first() {
    let folder = TempDir::new().unwrap();
    let mut world = World::new(4, 120, folder.path()).unwrap();
    let txids = |model: &Model| -> HashSet<_> { model.txids.keys().copied().collect() };
    let before = txids(&Model::of(&world.chain).unwrap());
    let all = before.len();
    world.fork(10, None).unwrap();
    world.grow(10).unwrap();
    let after = txids(&Model::of(&world.chain).unwrap());
    assert_eq!(before.intersection(&after).count(), all - 10, "all but the coinbases");
    world.fork(10, Some(1)).unwrap();
    world.grow(10).unwrap();
    let other = txids(&Model::of(&world.chain).unwrap());
    assert!(before.intersection(&other).count() < all - 10);
}

#[test]
fn the_model_is_what_the_forge_knows() {
    let (mut blocks, mut truth) = (Vec::new(), Vec::new());
    let summary = crate::forge::forge(3_000_000, 2, &mut blocks, &mut truth).unwrap();
    let folder = TempDir::new().unwrap();
    std::fs::write(folder.path().join("blocks.dat"), &blocks).unwrap();
    let model = Model::of(&crate::sync::peer::served(folder.path()).unwrap()).unwrap();
    assert_eq!(model.height(), summary.height);
    assert_eq!(model.coins.len() as u64, summary.unspent);
    // Genesis's script counts there.
    assert_eq!(model.scripts.len() as u64 + 1, summary.scripts);
    assert_eq!(model.txids.len() as u64 + 1, summary.transactions);
}

#[test]
fn phases_are_read_from_the_log() {
    let now = Instant::now();
    let mut seen = Seen::new(now);
    let mut after = |line: &str| {
        seen.line(line, now);
        seen.phase
    };
    assert_eq!(after("INFO peerdex version"), Phase::Opening);
    assert_eq!(after("INFO store opened height=0 headers=0"), Phase::Started);
    assert_eq!(after("INFO indexing in bulk: the index is written when that ends"), Phase::Bulk);
    assert_eq!(after("INFO the bulk ends: writing the index"), Phase::BulkEnd);
    assert_eq!(after("INFO the index is written"), Phase::CatchingUp);
    assert_eq!(after("DEBUG merging old deltas into the base"), Phase::Merging);
    assert_eq!(after("INFO tip changed height=5 hash=aa"), Phase::Merging);
    assert_eq!(after("DEBUG merged"), Phase::CatchingUp);
    assert_eq!(after("INFO synced, wallets are served height=5 hash=aa"), Phase::Tip);
    assert_eq!(after("INFO going over to another branch fork=3 blocks=4"), Phase::Switching);
    assert_eq!(after("WARN reorg from_height=5 from=aa to_height=7 to=bb"), Phase::Tip);
    assert_eq!(after("DEBUG merging old deltas into the base"), Phase::Merging);
    assert_eq!(after("DEBUG merged"), Phase::Tip);
}
