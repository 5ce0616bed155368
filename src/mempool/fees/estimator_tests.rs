use std::time::Duration;

use bitcoin::BlockHash;
use bitcoin::hashes::Hash;
use chainstore::Height;

use super::super::policy::FeeRate;
use super::{BlockFees, BlockTransaction, Covered, FeeEstimator, MAX_TARGET, Mode};
use crate::time::Instant;

const FLOOR: FeeRate = FeeRate(100);
const ALL: Covered = Covered { had: 100, all: 100 };
const HALF: Covered = Covered { had: 50, all: 100 };

/// A full block, all of one feerate.
fn full(height: u32, rate: u64) -> BlockFees {
    block(height, rate, 998)
}

fn block(height: u32, rate: u64, count: usize) -> BlockFees {
    let transactions = vec![BlockTransaction { fee: rate, weight: 4_000, parents: vec![] }; count];
    BlockFees::of_transactions(BlockHash::hash(&height.to_le_bytes()), Height(height), &transactions)
}

fn at(seconds: u64) -> Instant {
    Instant::from_start(Duration::from_secs(seconds))
}

/// After so many full blocks of 5 sat/vB, ten minutes each.
fn after(blocks: u32, covered: Covered) -> (FeeEstimator, Instant) {
    let mut estimator = FeeEstimator::new(at(0));
    for height in 1..=blocks {
        estimator.block_connected(
            at(600 * u64::from(height)),
            full(height, 5_000),
            covered,
            std::iter::empty(),
        );
    }
    (estimator, at(600 * u64::from(blocks)))
}

/// Refreshed with such a pool: feerates and sizes.
fn ask(estimator: &mut FeeEstimator, now: Instant, pool: &[(u64, u64)], target: u16) -> Option<FeeRate> {
    estimator.refresh(now, || chunks(pool));
    estimator.estimate(target, Mode::Economical, FLOOR)
}

fn chunks(pool: &[(u64, u64)]) -> impl Iterator<Item = (u64, u64)> {
    pool.iter().map(|(rate, vsize)| (FeeRate(*rate).fee(*vsize), *vsize))
}

#[test]
fn there_is_no_estimate_before_the_sixth_block() {
    let (mut estimator, now) = after(5, HALF);
    assert_eq!(ask(&mut estimator, now, &[], 2), None);
    estimator.block_connected(now, full(6, 5_000), HALF, std::iter::empty());
    assert_eq!(ask(&mut estimator, now, &[], 2), Some(FeeRate(5_000)));
    // A complete pool needs no history.
    let (mut estimator, now) = after(3, ALL);
    assert_eq!(ask(&mut estimator, now, &[], 2), Some(FLOOR));
}

#[test]
fn a_pool_that_lacks_much_is_not_asked() {
    let (mut estimator, now) = after(8, HALF);
    estimator.refresh(now, || -> std::iter::Empty<(u64, u64)> { panic!("asked") });
    assert_eq!((estimator.coverage(), estimator.is_warm()), (Some(0.5), false));
    assert_eq!(estimator.estimate(2, Mode::Economical, FLOOR), Some(FeeRate(5_000)));
}

#[test]
fn a_pool_is_warm_when_it_had_nine_tenths_of_three_blocks() {
    let (mut estimator, now) = after(8, HALF);
    for (height, had, warm) in [(9, 90, false), (10, 90, false), (11, 90, true), (12, 80, false)] {
        let covered = Covered { had, all: 100 };
        estimator.block_connected(now, full(height, 5_000), covered, std::iter::empty());
        assert_eq!(estimator.is_warm(), warm, "block {height}");
    }
    // A block without transactions tells nothing of it.
    estimator.block_connected(now, block(13, 0, 0), Covered::default(), std::iter::empty());
    assert!(estimator.coverage().is_some_and(|share| (share - 0.866).abs() < 0.001));
}

#[test]
fn the_pool_decides_for_short_waits_within_bounds() {
    let (mut estimator, now) = after(8, ALL);
    // Nothing waits, but five minutes ago room cost five.
    assert_eq!(ask(&mut estimator, now, &[], 2), Some(FeeRate(2_500)));
    let later = now + Duration::from_secs(6);
    let rate = ask(&mut estimator, later, &[(8_000, 3_000_000)], 2).unwrap();
    assert!(rate > FeeRate(8_000) && rate < FeeRate(8_900), "{rate:?}");
    let much_later = now + Duration::from_secs(12);
    assert_eq!(ask(&mut estimator, much_later, &[(90_000, 3_000_000)], 2), Some(FeeRate(10_000)));
    assert_eq!(estimator.estimate(144, Mode::Economical, FLOOR), Some(FeeRate(2_500)));
}

#[test]
fn after_some_blocks_with_room_the_least_is_enough() {
    let (mut estimator, now) = after(8, ALL);
    for height in 9..=12 {
        estimator.block_connected(now, block(height, 5_000, 400), ALL, std::iter::empty());
    }
    assert_eq!(ask(&mut estimator, now, &[(5_000, 200_000)], 2), Some(FLOOR));
}

#[test]
fn a_block_that_left_what_waited_had_its_price_all_the_same() {
    let (mut estimator, now) = after(8, ALL);
    // Miners who take nothing under 3 sat/vB.
    let cheap = [(500, 5_000_000)];
    for height in 9..=14 {
        estimator.block_connected(now, block(height, 3_000, 700), ALL, chunks(&cheap));
    }
    let rate = ask(&mut estimator, now, &cheap, 2).unwrap();
    assert!(rate >= FeeRate(1_500), "{rate:?}");
}

#[test]
fn what_two_blocks_passed_over_is_in_nobodys_way() {
    let (mut estimator, now) = after(8, ALL);
    let stuck = [(7_000, 4_000_000)];
    let in_the_way = ask(&mut estimator, now, &stuck, 3).unwrap();
    assert!(in_the_way > FeeRate(7_000));
    estimator.block_connected(now, full(9, 5_000), ALL, chunks(&stuck));
    assert_eq!(ask(&mut estimator, now, &stuck, 3), Some(in_the_way));
    estimator.block_connected(now, full(10, 5_000), ALL, chunks(&stuck));
    assert_eq!(ask(&mut estimator, now, &stuck, 3), Some(FeeRate(2_500)));
    // What comes on top of it is.
    let more = [(7_000, 4_000_000 + 4_000_000)];
    let later = now + Duration::from_secs(6);
    assert_eq!(ask(&mut estimator, later, &more, 3), Some(in_the_way));
}

#[test]
fn what_comes_in_is_reckoned_with() {
    let (mut estimator, now) = after(8, ALL);
    for second in 0..3_600 {
        estimator.admitted(now + Duration::from_secs(second), FeeRate(6_000), 2_500);
    }
    let later = now + Duration::from_secs(3_600);
    let rate = ask(&mut estimator, later, &[], 6).unwrap();
    assert!(rate > FeeRate(6_000), "{rate:?}");
}

#[test]
fn estimates_fall_with_the_target_and_never_below_the_floor() {
    let mut rng = fastrand::Rng::with_seed(5);
    for round in 0..60 {
        let mut estimator = FeeEstimator::new(at(0));
        let mut now = at(0);
        let mut pool: Vec<(u64, u64)> = Vec::new();
        for height in 1..=rng.u32(6..400) {
            now = now + Duration::from_secs(rng.u64(1..1_800));
            estimator.admitted(now, FeeRate(rng.u64(0..50_000)), rng.u64(100..200_000));
            estimator.dropped(FeeRate(rng.u64(0..50_000)), rng.u64(100..20_000));
            let fees = block(height, rng.u64(0..60_000), rng.usize(0..1_000));
            pool = (0..rng.usize(0..30)).map(|_| (rng.u64(0..60_000), rng.u64(100..400_000))).collect();
            let covered = Covered { had: rng.u64(80..=100), all: 100 };
            estimator.block_connected(now, fees, covered, chunks(&pool));
        }
        estimator.refresh(now, || chunks(&pool));
        let floor = FeeRate(rng.u64(0..5_000));
        for mode in [Mode::Economical, Mode::Conservative] {
            let estimates: Vec<FeeRate> =
                (0..=MAX_TARGET + 9).map(|target| estimator.estimate(target, mode, floor).unwrap()).collect();
            assert!(estimates.is_sorted_by(|one, other| one >= other), "round {round}: {estimates:?}");
            assert!(estimates.iter().all(|rate| *rate >= floor));
        }
        for target in 1..=MAX_TARGET {
            let economical = estimator.estimate(target, Mode::Economical, floor);
            assert!(estimator.estimate(target, Mode::Conservative, floor) >= economical);
        }
    }
}

#[test]
fn a_disconnected_block_takes_its_word_back() {
    let (mut estimator, now) = after(6, HALF);
    let before = estimator.to_bytes();
    let other = full(7, 90_000);
    estimator.block_connected(now, other.clone(), HALF, std::iter::empty());
    assert_eq!(estimator.tip(), Some((Height(7), other.hash)));
    estimator.block_disconnected(&BlockHash::all_zeros());
    assert_eq!(estimator.tip(), Some((Height(7), other.hash)));
    estimator.block_disconnected(&other.hash);
    assert_eq!(estimator.to_bytes(), before);
    assert_eq!(ask(&mut estimator, now, &[], 1), Some(FeeRate(5_000)));
}

#[test]
fn the_pool_is_asked_every_few_seconds_and_after_a_block() {
    let (mut estimator, now) = after(8, ALL);
    let asked = std::cell::Cell::new(0);
    let refresh = |estimator: &mut FeeEstimator, now| {
        estimator.refresh(now, || {
            asked.set(asked.get() + 1);
            std::iter::empty()
        });
        asked.get()
    };
    assert_eq!(refresh(&mut estimator, now), 1);
    assert_eq!(refresh(&mut estimator, now + Duration::from_secs(4)), 1);
    assert_eq!(refresh(&mut estimator, now + Duration::from_secs(5)), 2);
    estimator.block_connected(now, full(9, 5_000), ALL, std::iter::empty());
    assert_eq!(refresh(&mut estimator, now + Duration::from_secs(5)), 3);
}
