//! Who keeps how much, and who loses it.

use super::super::testing::{ALICE, BOB, CAROL, build, coin, output, spend};
use super::*;

fn orphan(number: u32, inputs: u32) -> Arc<Unconfirmed> {
    let coins: Vec<OutPoint> = (0..inputs).map(|input| coin(number * 1_000 + input)).collect();
    build(&coins, &[])
}

#[test]
fn the_oldest_of_who_has_too_many_go_and_nobody_elses() {
    let mut orphans = Orphans::default();
    let honest = orphan(1, 1);
    orphans.add(BOB, &honest, &[]);
    let flood: Vec<_> = (10..4_010).map(|number| orphan(number, 1)).collect();
    for tx in &flood {
        orphans.add(ALICE, tx, &[]);
    }
    orphans.hold_invariants();
    assert!(orphans.contains(honest.wtxid()));
    assert!(!orphans.contains(flood[0].wtxid()));
    assert!(orphans.contains(flood[3_999].wtxid()));
    assert!(orphans.score() <= MAX_SCORE && orphans.weight <= 2 * RESERVED_WEIGHT);
}

#[test]
fn many_inputs_count_as_many_announcements() {
    let mut orphans = Orphans::default();
    for number in 0..400 {
        // 100 inputs are ten more on the score; their weight would let in more.
        orphans.add(PeerId(u64::from(number % 100)), &orphan(number, 100), &[]);
    }
    orphans.hold_invariants();
    assert_eq!(orphans.len() as u64, MAX_SCORE / 11);
}

#[test]
fn nobody_pushes_out_what_is_within_anothers_share() {
    for seed in 0..4 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut orphans = Orphans::default();
        // A third of the work each, and each weight within its own share.
        let honest: Vec<_> = (0..100).map(|number| orphan(number, 3)).collect();
        for tx in &honest {
            orphans.add(BOB, tx, &[]);
        }
        for number in 0..400 {
            let peer = if rng.bool() { ALICE } else { CAROL };
            orphans.add(peer, &orphan(1_000 + number, rng.u32(1..200)), &[]);
            if rng.u32(..5) == 0 {
                orphans.add_announcer(peer, honest[rng.usize(..honest.len())].wtxid());
            }
        }
        orphans.hold_invariants();
        assert!(honest.iter().all(|tx| orphans.has_from(tx.wtxid(), BOB)), "seed {seed}");
    }
}

#[test]
fn one_that_is_too_large_is_not_kept() {
    let mut orphans = Orphans::default();
    let large = orphan(1, 3_000);
    assert!(large.weight() > MAX_WEIGHT);
    orphans.add(ALICE, &large, &[]);
    assert_eq!(orphans.len(), 0);
}

#[test]
fn it_stays_while_somebody_who_announced_it_does() {
    let mut orphans = Orphans::default();
    let tx = orphan(1, 1);
    orphans.add(ALICE, &tx, &[]);
    orphans.add_announcer(BOB, tx.wtxid());
    orphans.remove_peer(ALICE);
    assert!(orphans.has_from(tx.wtxid(), BOB));
    orphans.remove_peer(BOB);
    orphans.hold_invariants();
    assert_eq!((orphans.len(), orphans.weight, orphans.score()), (0, 0, 0));
}

#[test]
fn a_parent_that_came_wakes_its_children_once() {
    let mut rng = fastrand::Rng::with_seed(1);
    let mut orphans = Orphans::default();
    let parent = spend(&[coin(1)]);
    let child = spend(&[output(&parent)]);
    orphans.add(ALICE, &child, &[parent.txid()]);
    orphans.add(ALICE, &orphan(5, 1), &[]);
    assert!(orphans.next_retry(ALICE).is_none());
    orphans.parent_came(parent.txid(), &mut rng);
    orphans.parent_came(parent.txid(), &mut rng);
    assert_eq!(orphans.next_retry(ALICE).unwrap().wtxid(), child.wtxid());
    assert!(orphans.next_retry(ALICE).is_none());
    orphans.hold_invariants();
}

#[test]
fn children_are_found_newest_first_and_only_of_that_peer() {
    let mut orphans = Orphans::default();
    let parent = spend(&[coin(1)]);
    let children = [2, 3, 4].map(|number| spend(&[output(&parent), coin(number)]));
    orphans.add(ALICE, &children[0], &[]);
    orphans.add(BOB, &children[1], &[]);
    orphans.add(ALICE, &children[2], &[]);
    let of_alice: Vec<Wtxid> = orphans.children(parent.txid(), ALICE).map(|tx| tx.wtxid()).collect();
    assert_eq!(of_alice, [children[2].wtxid(), children[0].wtxid()]);
}
