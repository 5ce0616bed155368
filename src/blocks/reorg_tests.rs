//! Which chain is connected: forks, withheld branches, invalid ones, and chains that are on disk already.
//!
//! Numbers in brackets are those of the test plan in the notes on the wire protocol.

use std::time::Duration;

use bitcoin::BlockHash;

use super::patience::STALL_TIMEOUT;
use super::testing::{ENOUGH_BYTES, Harness};
use super::testing_forge::{Fault, Forge};

/// A common part, and two branches on top of it.
struct Fork {
    sync: Harness,
    common: BlockHash,
    old: Vec<BlockHash>,
    new: Vec<BlockHash>,
}

impl Fork {
    /// The old branch is connected, and no peer is.
    fn new(old: usize, new: usize) -> Self {
        Self::after(10, old, new)
    }

    fn after(common: usize, old: usize, new: usize) -> Self {
        let mut forge = Forge::new();
        let common = last(&forge.mine(forge.genesis(), common));
        let old = forge.mine(common, old);
        let new = forge.mine(common, new);
        let sync = Harness::standing_on(forge, ENOUGH_BYTES, last(&old), &[]);
        Self { sync, common, old, new }
    }
}

fn last(chain: &[BlockHash]) -> BlockHash {
    *chain.last().unwrap()
}

#[test]
fn a_longer_branch_is_kept_on_disk_until_it_has_more_work_and_then_switched_to() {
    let Fork { mut sync, old, new, .. } = Fork::new(3, 6);
    let alice = sync.connect(last(&new));
    assert_eq!(sync.asked(alice), new);

    for hash in &new[..3] {
        sync.deliver(alice, *hash);
        assert_eq!(sync.connected(), last(&old), "no more work than ours yet");
    }
    assert_eq!(sync.writer.disk, new[..3].iter().copied().collect());
    sync.deliver(alice, new[3]);
    assert_eq!((sync.connected(), sync.writer.switches), (new[3], 1));

    // The rest extends the tip.
    sync.serve(&[alice]);
    assert_eq!((sync.connected(), sync.writer.switches), (last(&new), 1));
    assert_eq!(sync.writer.disk, old.into_iter().collect(), "and the old branch can be had back");
}

#[test]
fn a_reorg_in_the_middle_of_the_sync_ends_on_the_new_chain() {
    // [42]
    let mut sync = Harness::new();
    let common = sync.forge.mine(sync.forge.genesis(), 50);
    let old = sync.forge.mine(last(&common), 3);
    let new = sync.forge.mine(last(&common), 4);
    let alice = sync.connect(last(&old));
    let bob = sync.connect(common[20]);
    for _ in 0..10 {
        let hash = sync.owes(alice)[0];
        sync.deliver(alice, hash);
    }

    sync.announce(alice, last(&new));
    sync.announce(bob, last(&new));
    sync.serve(&[alice, bob]);

    assert_eq!(sync.connected(), last(&new));
    assert!(sync.writer.disk.is_empty(), "nothing of the old branch was fetched");
    assert!(sync.sync.is_idle());
}

#[test]
fn a_peer_that_never_sends_what_it_found_invalid_is_asked_for_its_new_chain() {
    // `invalidateblock` on a node that everything is being downloaded from: silence for the old branch.
    let mut sync = Harness::new();
    let common = last(&sync.forge.mine(sync.forge.genesis(), 5));
    let old = sync.forge.mine(common, 30);
    let new = sync.forge.mine(common, 31);
    let alice = sync.connect(last(&old));
    while sync.connected() != common {
        let hash = sync.owes(alice)[0];
        sync.deliver(alice, hash);
    }
    assert_eq!(sync.owes(alice), old[..16], "nothing more can be asked of it");

    sync.asked(alice);
    sync.announce(alice, last(&new));
    assert_eq!(sync.asked(alice), new[..16]);
    // What was on its way all the same does no harm.
    sync.deliver(alice, old[0]);
    sync.serve(&[alice]);
    assert_eq!(sync.connected(), last(&new));
    assert!(sync.sync.is_idle());
}

#[test]
fn a_reorg_while_blocks_of_the_old_branch_wait_and_are_being_connected() {
    let Fork { mut sync, common, old, new } = Fork::after(5, 2, 8);
    let more = sync.forge.mine(last(&old), 4);
    sync.writer.paused = true;
    let alice = sync.connect(last(&more));
    // The first waits for the writer, the third for the second.
    sync.deliver(alice, more[0]);
    sync.deliver(alice, more[2]);
    let bob = sync.connect(last(&new));
    sync.serve(&[bob]);

    // What is under way is finished first; the harness refuses a switch from anywhere else.
    assert_eq!(sync.connected(), last(&old));
    while sync.write_one() {}
    assert_eq!(sync.connected(), last(&new));
    assert_eq!(sync.writer.chain[5], common);
    assert!(sync.writer.disk.contains(&more[0]));
}

#[test]
fn back_to_a_chain_that_is_on_disk_needs_no_peer() {
    // [43]
    let Fork { mut sync, old, new, .. } = Fork::new(3, 4);
    let alice = sync.connect(last(&new));
    sync.serve(&[alice]);
    assert_eq!(sync.connected(), last(&new));

    sync.mark_invalid(new[1]);
    assert_eq!(sync.connected(), last(&old));
    assert_eq!(sync.progress().in_flight, 0);
}

#[test]
fn blocks_on_disk_from_before_a_restart_are_not_fetched_again() {
    let mut forge = Forge::new();
    let chain = forge.mine(forge.genesis(), 600);
    let mut stored = chain[10..500].to_vec();
    stored.remove(100);
    let mut sync = Harness::standing_on(forge, ENOUGH_BYTES, chain[9], &stored);

    assert_eq!(sync.connected(), chain[109], "as far as they reach without a gap");
    let alice = sync.connect(last(&chain));
    assert_eq!(sync.asked(alice), [vec![chain[110]], chain[500..515].to_vec()].concat());
    sync.serve(&[alice]);
    assert_eq!(sync.connected(), last(&chain));
    assert_eq!(sync.checks, 101);
}

#[test]
fn a_switch_is_one_transaction_and_no_larger_than_it_must() {
    let mut forge = Forge::new();
    let old = forge.mine(forge.genesis(), 300);
    let new = forge.mine(forge.genesis(), 1_000);
    let sync = Harness::standing_on(forge, ENOUGH_BYTES, last(&old), &new);
    assert_eq!(sync.connected(), last(&new));
    // 301 to beat the old branch, then 256 at a time.
    assert_eq!(sync.writer.switches, 4);
}

#[test]
fn while_the_blocks_of_a_better_chain_are_withheld_the_old_tip_stays_and_grows() {
    // [44]
    let Fork { mut sync, old, new, .. } = Fork::new(3, 8);
    let liar = sync.connect(last(&new));
    let bob = sync.connect(last(&old));
    sync.advance(STALL_TIMEOUT);
    assert_eq!(sync.connected(), last(&old));

    // What honest peers mine on our tip is followed, although the headers elsewhere have more work.
    let next = sync.forge.mine(last(&old), 2);
    sync.announce(bob, last(&next));
    assert_eq!(sync.asked(bob), next);
    sync.serve(&[bob]);
    assert_eq!(sync.connected(), last(&next));

    // And should the blocks come after all, the better chain is taken.
    sync.serve(&[liar]);
    assert_eq!(sync.connected(), last(&new));
}

#[test]
fn blocks_that_wait_for_a_withheld_one_go_to_disk_when_another_chain_is_followed() {
    let mut sync = Harness::new();
    let new = sync.forge.mine(sync.forge.genesis(), 8);
    let honest = sync.forge.mine(sync.forge.genesis(), 3);
    let liar = sync.connect(last(&new));
    for hash in &new[1..] {
        sync.deliver(liar, *hash);
    }
    assert_eq!((sync.writer.disk.len(), sync.progress().in_memory), (0, 7));

    let bob = sync.connect(last(&honest));
    sync.advance(STALL_TIMEOUT);
    sync.serve(&[bob]);
    assert_eq!(sync.connected(), last(&honest));
    assert_eq!((sync.writer.disk.len(), sync.progress().in_memory), (7, 0));

    sync.deliver(liar, new[0]);
    assert_eq!(sync.connected(), last(&new));
}

#[test]
fn a_withheld_chain_that_fills_memory_does_not_starve_the_chain_that_can_be_had() {
    let mut sync = Harness::with_memory(Forge::new(), 60_000);
    // So many that the size of blocks is known.
    let common = sync.forge.mine(sync.forge.genesis(), 200);
    let mut large = |count| {
        let mut tip = last(&common);
        std::iter::repeat_with(|| {
            tip = sync.forge.mine_one(tip, 9_000, Fault::None);
            tip
        })
        .take(count)
        .collect::<Vec<_>>()
    };
    let (new, honest) = (large(40), large(10));
    let liar = sync.connect(last(&common));
    sync.serve(&[liar]);
    sync.announce(liar, last(&new));
    while let Some(hash) = sync.owes(liar).into_iter().find(|hash| *hash != new[0]) {
        sync.deliver(liar, hash);
    }
    assert_eq!(sync.connected(), last(&common));
    assert!(sync.progress().held_bytes > 50_000, "{:?}", sync.progress());

    let bob = sync.connect(last(&honest));
    for _ in 0..5 {
        sync.advance(STALL_TIMEOUT);
        sync.serve(&[bob]);
    }
    assert_eq!(sync.connected(), last(&honest));
    assert_eq!(sync.dropped(), []);

    sync.serve(&[liar]);
    assert_eq!(sync.connected(), last(&new));
}

#[test]
fn of_two_chains_with_equal_work_the_first_stays_until_one_grows() {
    // [45]
    let Fork { mut sync, old, new, .. } = Fork::new(3, 3);
    let alice = sync.connect(last(&new));
    sync.serve(&[alice]);
    sync.advance(Duration::from_secs(60));
    assert_eq!((sync.connected(), sync.asked(alice)), (last(&old), vec![]));

    let next = sync.forge.mine_one(last(&new), 0, Fault::None);
    sync.announce(alice, next);
    sync.serve(&[alice]);
    assert_eq!((sync.connected(), sync.writer.switches), (next, 1));
}

#[test]
fn our_own_node_drops_its_tip_and_we_follow_when_it_has_mined_more() {
    // [46]: the node leaves two blocks and mines three others.
    let Fork { mut sync, old, new, .. } = Fork::new(2, 3);
    let node = sync.connect(last(&old));
    for tip in &new {
        sync.announce(node, *tip);
        sync.serve(&[node]);
    }
    assert_eq!(sync.connected(), last(&new));
}

#[test]
fn a_fork_that_is_invalid_in_the_middle_ends_on_the_best_valid_chain() {
    // [47]: five blocks, the third is bad; found by its check or by connecting it.
    for fault in [Fault::Height, Fault::Spend] {
        for old_blocks in 1..=4 {
            let mut forge = Forge::new();
            let common = last(&forge.mine(forge.genesis(), 5));
            let old = forge.mine(common, old_blocks);
            let mut new = forge.mine(common, 2);
            let bad = forge.mine_one(last(&new), 0, fault);
            new.push(bad);
            new.extend(forge.mine(bad, 2));
            let mut sync = Harness::standing_on(forge, ENOUGH_BYTES, last(&old), &[]);

            let liar = sync.connect(last(&new));
            // All of it is on disk before any of it is tried.
            for hash in new.iter().rev() {
                sync.deliver(liar, *hash);
            }
            let bob = sync.connect(new[1]);
            sync.serve(&[bob]);

            let expected = if old_blocks == 1 { new[1] } else { last(&old) };
            assert_eq!(sync.connected(), expected, "{fault:?} {old_blocks}");
            assert_eq!(sync.condemned, [bad], "{fault:?} {old_blocks}");
            assert_eq!(sync.dropped().len(), 1);
            let carol = sync.connect(last(&new));
            assert_eq!(sync.owes(carol), []);
        }
    }
}

#[test]
fn what_was_on_its_way_behind_a_bad_block_is_void() {
    let mut sync = Harness::new();
    let good = sync.forge.mine(sync.forge.genesis(), 2);
    let bad = sync.forge.mine_one(last(&good), 0, Fault::Spend);
    let above = sync.forge.mine(bad, 5);
    let honest = sync.forge.mine(last(&good), 2);
    sync.writer.paused = true;
    let liar = sync.connect(last(&above));
    let bob = sync.connect(last(&honest));
    sync.serve(&[liar, bob]);

    while sync.write_one() {}

    assert_eq!(sync.condemned, [bad]);
    sync.serve(&[bob]);
    while sync.write_one() {}
    sync.serve(&[bob]);
    while sync.write_one() {}
    assert_eq!(sync.connected(), last(&honest));
    assert_eq!(sync.progress().held_bytes, 0, "void blocks take no room");
}

#[test]
fn a_chain_that_turns_out_invalid_below_our_tip_is_left() {
    // Nothing finds that today, as blocks are connected one by one; a store that joins late will.
    let mut forge = Forge::new();
    let chain = forge.mine(forge.genesis(), 5);
    let mut sync = Harness::standing_on(forge, ENOUGH_BYTES, last(&chain), &[]);
    sync.mark_invalid(chain[3]);
    assert_eq!(sync.connected(), chain[2]);
    let next = sync.forge.mine(chain[2], 1);
    let alice = sync.connect(last(&next));
    sync.serve(&[alice]);
    assert_eq!(sync.connected(), last(&next));
}
