//! What leaves when there is no room, and what blocks and reorganisations do.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use bitcoin::{OutPoint, Txid};

use super::testing::{Draft, at, coin, draft, output};
use super::{Pool, Removal};
use crate::mempool::{ChainLimits, Entry, FeeRate, Policy};

fn add(pool: &mut Pool, policy: &Policy, draft: Draft) -> Arc<Entry> {
    let entry = draft.entry();
    let plan = pool.plan(Arc::clone(&entry), policy).unwrap();
    let _ = pool.commit(plan);
    entry
}

fn outpoints(entry: &Entry) -> Vec<OutPoint> {
    entry.inputs.iter().map(|input| input.outpoint).collect()
}

/// Of three, the one that pays least leaves, and nobody comes in below it for a while.
#[test]
fn the_worst_leaves_and_the_floor_rises() {
    for policy in [Policy::core(), Policy::knots()] {
        let mut pool = Pool::new(&policy);
        let fees = [4_000, 2_000, 3_000];
        for (number, fee) in fees.into_iter().enumerate() {
            add(&mut pool, &policy, draft(number as u64, &[coin(number as u64)]).fee(fee));
        }
        let policy = Policy { max_bytes: pool.bytes() - 1, ..policy };
        let mut pool = Pool::new(&policy);
        for (number, fee) in fees.into_iter().enumerate() {
            add(&mut pool, &policy, draft(number as u64, &[coin(number as u64)]).fee(fee));
        }
        assert_eq!(pool.min_fee(at(0)), FeeRate(0));
        let changes = pool.trim(at(0));
        let left: Vec<_> = changes.removed.iter().map(|(entry, why)| (entry.fee.to_sat(), *why)).collect();
        assert_eq!(left, [(2_000, Removal::Evicted)]);
        // 10,000 satoshi a 1,000 virtual bytes, and the margin.
        assert_eq!(pool.min_fee(at(100_000)), FeeRate(10_100), "it does not fall before a block");
        let _ = pool.connect_block(at(100_000), std::iter::empty::<(_, Vec<_>)>());
        let hours = |hours: u64| pool.min_fee(at(100_000 + hours * 3_600));
        assert_eq!(hours(0), FeeRate(10_100));
        // Two thirds of the room are in use.
        assert_eq!([hours(12), hours(24)], [FeeRate(5_050), FeeRate(2_525)]);
        assert_eq!(hours(12 * 6 + 11), FeeRate(100), "not below the margin");
        assert_eq!(hours(12 * 8), FeeRate(0));
    }
}

/// With less than a quarter of the room in use, the floor falls four times as fast.
#[test]
fn the_floor_falls_faster_in_an_empty_pool() {
    let policy = Policy { max_bytes: 1_000, ..Policy::core() };
    let mut pool = Pool::new(&policy);
    add(&mut pool, &policy, draft(1, &[coin(1)]).fee(2_000));
    let _ = pool.trim(at(0));
    assert_eq!((pool.len(), pool.bytes()), (0, 0));
    let _ = pool.connect_block(at(0), std::iter::empty::<(_, Vec<_>)>());
    assert_eq!(pool.min_fee(at(10)), FeeRate(10_100), "looked at after more than ten seconds");
    assert_eq!(pool.min_fee(at(3 * 3_600)), FeeRate(5_050));
}

#[test]
fn a_child_that_pays_keeps_its_parent() {
    for policy in [Policy::core(), Policy::knots()] {
        let policy = Policy { max_bytes: 3_800, ..policy };
        let mut pool = Pool::new(&policy);
        let parent = add(&mut pool, &policy, draft(1, &[coin(1)]).fee(100));
        let child = add(&mut pool, &policy, draft(2, &[output(&parent, 0)]).fee(9_000));
        let middle = add(&mut pool, &policy, draft(3, &[coin(3)]).fee(2_000));
        assert!(pool.bytes() > policy.max_bytes);
        let changes = pool.trim(at(0));
        assert_eq!(changes.removed, [(middle, Removal::Evicted)]);
        assert!(pool.get(&parent.txid).is_some() && pool.get(&child.txid).is_some());
    }
}

#[test]
fn what_waited_too_long_leaves_with_its_children() {
    let policy = Policy { expiry: Duration::from_secs(1_000), ..Policy::core() };
    let mut pool = Pool::new(&policy);
    let old = add(&mut pool, &policy, draft(1, &[coin(1)]).at(at(0)));
    let child = add(&mut pool, &policy, draft(2, &[output(&old, 0)]).at(at(900)));
    let new = add(&mut pool, &policy, draft(3, &[coin(3)]).at(at(1)));
    assert!(pool.expire(at(1_000)).is_empty());
    let changes = pool.expire(at(1_001));
    assert_eq!(changes.removed, [(old, Removal::Expired), (child, Removal::Expired)]);
    assert_eq!(pool.view(at(1_001)).recent(), [new]);
}

#[test]
fn a_block_takes_its_own_and_throws_out_what_contradicts_it() {
    let policy = Policy::core();
    let mut pool = Pool::new(&policy);
    let parent = add(&mut pool, &policy, draft(1, &[coin(1)]));
    let child = add(&mut pool, &policy, draft(2, &[output(&parent, 0)]));
    let double = add(&mut pool, &policy, draft(3, &[coin(3)]));
    let below = add(&mut pool, &policy, draft(4, &[output(&double, 0)]));
    let stranger = draft(5, &[coin(3)]).entry();
    let before = pool.view(at(0));
    let block = [&parent, &stranger].map(|entry| (entry.txid, outpoints(entry)));
    let changes = pool.connect_block(at(0), block);
    let expected =
        [(Arc::clone(&parent), Removal::Confirmed), (double, Removal::Conflict), (below, Removal::Conflict)];
    assert_eq!(changes.removed, expected);
    assert_eq!(changes.flipped, [Arc::clone(&child)]);
    // The block's own are told of by its commit.
    let told: Vec<&Arc<Entry>> = changes.unconfirmed().collect();
    assert_eq!(told, [&changes.removed[1].0, &changes.removed[2].0, &child]);
    // Who reads the state before still sees it whole.
    assert_eq!((before.len(), pool.view(at(0)).len()), (4, 1));
    assert!(before.has_unconfirmed_parent(&child) && !pool.view(at(0)).has_unconfirmed_parent(&child));
    assert_eq!(before.spender(&coin(1)), Some(&parent));
}

/// Each of a hundred children was alone; their parent comes back from a block and ties them together.
#[test]
fn too_much_that_comes_together_is_cut_to_size() {
    let policy = Policy::core();
    let mut pool = Pool::new(&policy);
    let parent = draft(500, &[coin(500)]).outputs(100).entry();
    for number in 0..100 {
        let child = draft(number, &[output(&parent, number as u32)]).fee(1_000 + number);
        add(&mut pool, &policy, child);
    }
    let _ = pool.insert_from_block(Arc::clone(&parent)).unwrap();
    let changes = pool.settle_reorg();
    assert_eq!(changes.removed.len(), 37);
    assert!(
        changes.removed.iter().all(|(entry, why)| entry.fee.to_sat() < 1_037 && *why == Removal::Evicted)
    );
    assert_eq!((changes.flipped.len(), pool.children(&parent.txid).len(), pool.len()), (63, 63, 64));
}

/// The same with limits on ancestors: a chain grows at its head.
#[test]
fn a_chain_that_grew_too_long_is_cut() {
    let policy = Policy::knots();
    let mut pool = Pool::new(&policy);
    let first = draft(500, &[coin(500)]).entry();
    let second = draft(501, &[output(&first, 0)]).entry();
    let mut last = Arc::clone(&second);
    for number in 0..25 {
        last = add(&mut pool, &policy, draft(number, &[output(&last, 0)]));
    }
    for entry in [first, second] {
        let _ = pool.insert_from_block(entry).unwrap();
    }
    let changes = pool.settle_reorg();
    assert_eq!((changes.removed.len(), changes.flipped.len(), pool.len()), (2, 1, 25));
    assert_eq!(pool.get(&last.txid), None);
}

/// Five are one chunk, and what comes back above one of them leaves no room for all: the order within the chunk decides
/// who leaves. Expected is what Core's `TxGraph` removes (`Trim`, by the order that `PostLinearize` left).
#[test]
fn within_a_chunk_that_is_cut_those_stay_that_pay_more_together() {
    for (above, expected) in [(1, &[2][..]), (3, &[1, 5, 2])] {
        let policy = Policy { limits: ChainLimits::Cluster { count: 5, vsize: 101_000 }, ..Policy::core() };
        let mut pool = Pool::new(&policy);
        let mut block: Vec<Arc<Entry>> = Vec::new();
        for number in 0..above {
            let coin = block.last().map_or(coin(10), |last| output(last, 0));
            block.push(draft(10 + number, &[coin]).fee(22_000 - 1_000 * number).entry());
        }
        let last = &block[block.len() - 1];
        let one = add(&mut pool, &policy, draft(1, &[output(last, 0)]).fee(3_000));
        let two = add(&mut pool, &policy, draft(2, &[output(&one, 0)]).fee(6_000));
        let three = add(&mut pool, &policy, draft(3, &[coin(3)]).fee(1_000));
        let four = add(&mut pool, &policy, draft(4, &[output(&three, 0)]).fee(10_000));
        let five = add(&mut pool, &policy, draft(5, &[output(&one, 1), output(&four, 0)]).fee(8_000));
        for entry in block {
            let _ = pool.insert_from_block(entry).unwrap();
        }
        let changes = pool.settle_reorg();
        let five = [one, two, three, four, five];
        let expected: HashSet<Txid> = expected.iter().map(|number| five[number - 1].txid).collect();
        let removed: HashSet<Txid> = changes.removed.iter().map(|(entry, _)| entry.txid).collect();
        assert_eq!(removed, expected, "{above} above");
    }
}

#[test]
fn what_did_not_come_back_takes_its_children_along() {
    let policy = Policy::core();
    let mut pool = Pool::new(&policy);
    let gone = draft(500, &[coin(500)]).entry();
    let child = add(&mut pool, &policy, draft(1, &[output(&gone, 1)]));
    let below = add(&mut pool, &policy, draft(2, &[output(&child, 0)]));
    add(&mut pool, &policy, draft(3, &[coin(3)]));
    let changes = pool.remove_spenders(gone.txid, 2, Removal::Reorg);
    assert_eq!(changes.removed, [(child, Removal::Reorg), (below, Removal::Reorg)]);
    assert_eq!(pool.len(), 1);
}
