//! Who is asked for a compact block, and what becomes of what comes.

use std::time::Duration;

use super::super::patience::STALL_TIMEOUT;
use super::super::testing::Harness;
use super::super::testing_forge::Fault;
use super::*;

/// A harness that stands on the first of two blocks with alice, who gives compact blocks; the second has five
/// transactions beside its coinbase, and nobody told of it.
fn at_the_tip() -> (Harness, PeerId, BlockHash) {
    let mut sync = Harness::new();
    let tip = sync.forge.mine_one(sync.forge.genesis(), 0, Fault::None);
    let alice = sync.connect_compact(tip);
    sync.serve(&[alice]);
    assert_eq!(sync.connected(), tip);
    sync.want_compact(tip);
    sync.asked(alice);
    let block = sync.forge.mine_with(tip, 5, Fault::None);
    (sync, alice, block)
}

/// The same with bob, who has the block too and was not asked for it.
fn asked_of_alice() -> (Harness, PeerId, PeerId, BlockHash) {
    let (mut sync, alice, block) = at_the_tip();
    sync.announce(alice, block);
    assert_eq!((sync.asked_compact(alice), sync.asked(alice)), (vec![block], vec![]));
    let bob = sync.connect_compact(block);
    assert_eq!((sync.asked_compact(bob), sync.asked(bob)), (vec![], vec![]));
    (sync, alice, bob, block)
}

/// Alice sent the compact block and was asked for what is not here: all but the coinbase and the first two.
fn asked_for_the_rest() -> (Harness, PeerId, PeerId, BlockHash) {
    let (mut sync, alice, bob, block) = asked_of_alice();
    sync.pool = sync.forge.transactions(block).drain(1..3).collect();
    assert!(sync.deliver_compact(alice, sync.forge.compact(block, &[0])));
    assert_eq!(sync.positions(alice), Some((block, vec![3, 4, 5])));
    (sync, alice, bob, block)
}

fn raw(sync: &Harness, block: BlockHash, positions: &[usize]) -> Vec<Bytes> {
    let all = sync.forge.transactions(block);
    positions.iter().map(|at| all[*at].1.clone()).collect()
}

#[test]
fn the_block_after_the_tip_is_filled_from_the_pool() {
    let (mut sync, alice, block) = at_the_tip();
    sync.pool = sync.forge.transactions(block);
    sync.announce(alice, block);
    assert_eq!((sync.asked_compact(alice), sync.asked(alice)), (vec![block], vec![]));
    assert!(sync.deliver_compact(alice, sync.forge.compact(block, &[0])));
    assert_eq!(sync.connected(), block);
    assert_eq!(sync.sync.next_timeout(), None);
    let made = sync.rebuilt.remove(0);
    assert_eq!((made.hash, made.prefilled, made.had, made.asked), (block, 1, 5, 0));
    let figures = sync.sync.compact_figures();
    assert_eq!((figures.asked, figures.rebuilt, figures.unfit, figures.last), (1, 1, 0, Some(made)));
    let saved = made.bytes - made.received_bytes;
    assert_eq!((figures.received_bytes, figures.saved_bytes), (made.received_bytes as u64, saved as u64));
    assert!(saved > 300, "five transactions against six bytes each");
}

#[test]
fn what_is_missing_is_asked_for_once_and_comes_once() {
    let (mut sync, alice, bob, block) = asked_for_the_rest();
    let rest = raw(&sync, block, &[3, 4, 5]);
    // Of somebody else, of another block, and again.
    sync.deliver_transactions(bob, block, &rest);
    sync.deliver_transactions(alice, sync.forge.genesis(), &rest);
    assert!(!sync.deliver_compact(alice, sync.forge.compact(block, &[0])));
    assert_eq!(sync.checks, 1, "the tip's");
    sync.deliver_transactions(alice, block, &rest);
    sync.deliver_transactions(alice, block, &rest);
    assert_eq!((sync.connected(), sync.checks), (block, 2));
    assert_eq!((sync.rebuilt[0].prefilled, sync.rebuilt[0].had, sync.rebuilt[0].asked), (1, 2, 3));
    assert_eq!((sync.dropped(), sync.asked(alice), sync.asked(bob)), (vec![], vec![], vec![]));
}

#[test]
fn whole_blocks_are_asked_for_where_a_compact_one_is_not_worth_it() {
    type Case = (&'static str, fn(&mut Harness, PeerId, BlockHash) -> BlockHash);
    let cases: [Case; 6] = [
        ("the mempool has little of what is mined", |sync, _, block| {
            sync.sync.want_compact(false);
            block
        }),
        ("the tip is old", |sync, _, block| {
            sync.now.unix += RECENT;
            block
        }),
        ("two blocks at once", |sync, _, block| sync.forge.mine_one(block, 0, Fault::None)),
        ("its parent is not connected yet", |sync, alice, block| {
            sync.writer.paused = true;
            sync.sync.want_compact(false);
            sync.announce(alice, block);
            sync.deliver(alice, block);
            sync.asked(alice);
            sync.sync.want_compact(true);
            sync.forge.mine_one(block, 0, Fault::None)
        }),
        ("another block is on its way", |sync, alice, block| {
            let other = sync.connect(block);
            assert_eq!(sync.asked(other).len() + sync.asked_compact(alice).len(), 1);
            sync.forge.mine_one(block, 0, Fault::None)
        }),
        ("it is not the best chain's", |sync, alice, block| {
            sync.announce(alice, block);
            sync.deliver(alice, block);
            sync.asked_compact(alice);
            let fork = sync.forge.genesis();
            *sync.forge.mine(fork, 3).last().unwrap()
        }),
    ];
    for (why, prepare) in cases {
        let (mut sync, alice, block) = at_the_tip();
        let best = prepare(&mut sync, alice, block);
        sync.announce(alice, best);
        assert!(!sync.asked(alice).is_empty(), "{why}");
        assert_eq!(sync.asked_compact(alice), [], "{why}");
    }
    let (mut sync, _, block) = at_the_tip();
    let bob = sync.connect(block);
    assert_eq!((sync.asked(bob), sync.asked_compact(bob)), (vec![block], vec![]), "bob gives none");
}

#[test]
fn the_whole_block_is_an_answer_too() {
    let (mut sync, alice, bob, block) = asked_of_alice();
    sync.deliver(alice, block);
    assert_eq!(sync.connected(), block);
    assert!(sync.rebuilt.is_empty());
    assert!(!sync.deliver_compact(alice, sync.forge.compact(block, &[0])), "it is not owed any more");
    // The next one may come so again.
    let next = sync.forge.mine_one(block, 0, Fault::None);
    sync.announce(bob, next);
    assert_eq!(sync.asked_compact(bob), [next]);
}

#[test]
fn where_short_ids_are_equal_the_whole_block_is_asked_of_the_same_peer() {
    let (mut sync, alice, bob, block) = asked_of_alice();
    let mut compact = sync.forge.compact(block, &[0]);
    compact.short_ids[1] = compact.short_ids[0];
    assert!(sync.deliver_compact(alice, compact));
    assert_eq!((sync.asked(alice), sync.asked(bob)), (vec![block], vec![]));
    // Alice has the time that was left of her first question.
    sync.advance(STALL_TIMEOUT);
    assert_eq!(sync.asked(bob), [block]);
    sync.deliver(alice, block);
    assert_eq!((sync.connected(), sync.dropped()), (block, vec![]));
    assert_eq!(sync.sync.compact_figures().unfit, 1);
}

#[test]
fn parts_that_are_not_the_block_are_nobodys_fault_and_the_whole_block_is_asked_for() {
    // By short ids of others that are in the pool, and by other transactions than were asked for.
    for lies in [false, true] {
        let (mut sync, alice, bob, block) = asked_of_alice();
        let parent = sync.connected();
        let other = sync.forge.mine_with(parent, 5, Fault::None);
        if lies {
            assert!(sync.deliver_compact(alice, sync.forge.compact(block, &[0])));
            let others = raw(&sync, other, &[1, 2, 3, 4, 5]);
            sync.deliver_transactions(alice, block, &others);
        } else {
            sync.pool = sync.forge.transactions(block);
            let mut compact = sync.forge.compact(block, &[0]);
            compact.short_ids.swap(2, 3);
            assert!(sync.deliver_compact(alice, compact));
        }
        assert_eq!(sync.connected(), parent);
        assert_eq!([sync.asked(alice), sync.asked(bob)].concat(), [block], "once, and whole");
        let owing = if sync.owes(alice).is_empty() { bob } else { alice };
        sync.deliver(owing, block);
        assert_eq!((sync.connected(), sync.dropped(), sync.damaged.len()), (block, vec![], 0));
        assert_eq!((sync.sync.compact_figures().unfit, sync.rebuilt.len()), (1, 0));
    }
}

#[test]
fn what_the_protocol_forbids_costs_the_connection_and_another_is_asked_at_once() {
    let (mut sync, alice, bob, block) = asked_of_alice();
    let empty = CompactBlock { short_ids: vec![], prefilled: vec![], ..sync.forge.compact(block, &[0]) };
    sync.deliver_compact(alice, empty);
    assert!(matches!(&sync.dropped()[..], [(peer, Misbehavior::BadMessage(_))] if *peer == alice));
    assert_eq!((sync.asked(bob), sync.asked_compact(bob)), (vec![block], vec![]));

    let (mut sync, alice, bob, block) = asked_for_the_rest();
    let too_few = raw(&sync, block, &[3, 4]);
    sync.deliver_transactions(alice, block, &too_few);
    assert!(matches!(&sync.dropped()[..], [(peer, Misbehavior::BadMessage(_))] if *peer == alice));
    sync.serve(&[bob]);
    assert_eq!(sync.connected(), block);
}

#[test]
fn a_peer_that_keeps_silent_at_any_step_is_hedged_by_the_whole_block_of_another() {
    for (mut sync, alice, bob, block) in [asked_of_alice(), asked_for_the_rest()] {
        sync.advance(STALL_TIMEOUT - Duration::from_millis(1));
        assert_eq!(sync.asked(bob), []);
        sync.advance(Duration::from_millis(1));
        assert_eq!((sync.asked(bob), sync.asked_compact(bob)), (vec![block], vec![]));
        sync.deliver(bob, block);
        assert_eq!(sync.connected(), block);
        // Alice was merely slow, and nobody waits for her.
        assert!(!sync.deliver_compact(alice, sync.forge.compact(block, &[0])));
        let rest = raw(&sync, block, &[3, 4, 5]);
        sync.deliver_transactions(alice, block, &rest);
        assert_eq!((sync.checks, sync.dropped(), sync.sync.next_timeout()), (2, vec![], None));
    }
}

#[test]
fn the_slow_peer_may_still_be_first() {
    let (mut sync, alice, bob, block) = asked_for_the_rest();
    sync.advance(STALL_TIMEOUT);
    assert_eq!(sync.asked(bob), [block]);
    let rest = raw(&sync, block, &[3, 4, 5]);
    sync.deliver_transactions(alice, block, &rest);
    assert_eq!((sync.connected(), sync.rebuilt.len()), (block, 1));
    sync.deliver(bob, block);
    assert_eq!((sync.checks, sync.progress().unasked, sync.dropped()), (2, 0, vec![]));
}

#[test]
fn what_was_not_waited_for_is_asked_for_anew() {
    let (mut sync, alice, bob, block) = asked_for_the_rest();
    sync.advance(STALL_TIMEOUT);
    assert_eq!((sync.asked(alice), sync.asked(bob)), (vec![], vec![block]));
    // What was begun with alice is gone with this, and it is of no use.
    sync.deliver_damaged(bob, block);
    sync.disconnect(bob);
    assert_eq!(sync.asked(alice), [block]);
    sync.deliver(alice, block);
    assert_eq!(sync.connected(), block);
}

#[test]
fn a_peer_that_leaves_or_has_it_not_is_followed_by_another() {
    for (mut sync, alice, bob, block) in [asked_of_alice(), asked_for_the_rest()] {
        sync.disconnect(alice);
        assert_eq!((sync.asked(bob), sync.asked_compact(bob)), (vec![block], vec![]));
        sync.serve(&[bob]);
        assert_eq!(sync.connected(), block);
    }
    let (mut sync, alice, bob, block) = asked_of_alice();
    sync.not_found(alice, block);
    assert_eq!(sync.asked(bob), [block]);
    assert!(!sync.deliver_compact(alice, sync.forge.compact(block, &[0])));
}

#[test]
fn a_peer_that_leaves_the_branch_is_not_waited_for() {
    let (mut sync, alice, block) = at_the_tip();
    sync.announce(alice, block);
    assert_eq!(sync.asked_compact(alice), [block]);
    // Its node found the block invalid, and never says so.
    let parent = sync.connected();
    let other = sync.forge.mine(parent, 2);
    sync.announce(alice, other[1]);
    sync.serve(&[alice]);
    assert_eq!(sync.connected(), other[1]);
    let next = sync.forge.mine_with(other[1], 2, Fault::None);
    sync.announce(alice, next);
    assert_eq!(sync.asked_compact(alice), [next]);
    assert!(!sync.deliver_compact(alice, sync.forge.compact(block, &[0])), "that was waived");
    assert!(sync.deliver_compact(alice, sync.forge.compact(next, &[0, 1, 2])));
    assert_eq!((sync.connected(), sync.dropped()), (next, vec![]));
}

#[test]
fn an_invalid_block_is_not_held_against_who_gave_its_parts() {
    let (mut sync, alice, _) = at_the_tip();
    let bad = sync.forge.mine_with(sync.connected(), 2, Fault::Height);
    sync.pool = sync.forge.transactions(bad);
    sync.announce(alice, bad);
    assert_eq!(sync.asked_compact(alice), [bad]);
    sync.deliver_compact(alice, sync.forge.compact(bad, &[0]));
    assert_eq!(sync.condemned, [bad]);
    // Who follows its header is left, whoever delivered it.
    assert_eq!(sync.dropped(), [(alice, Misbehavior::InvalidChain)]);
    assert_eq!(sync.rebuilt, []);
}

#[test]
fn what_nobody_asked_for_changes_nothing() {
    let (mut sync, alice, block) = at_the_tip();
    let compact = sync.forge.compact(block, &[0]);
    for _ in 0..100 {
        assert!(!sync.deliver_compact(alice, compact.clone()));
        sync.deliver_transactions(alice, block, &[]);
    }
    assert_eq!((sync.checks, sync.progress().in_flight, sync.dropped()), (1, 0, vec![]));
    assert_eq!(sync.sync.compact_figures(), CompactFigures::default());
}
