//! Blocks that are damaged on disk: of whom they are asked, and what becomes of the answers.

use std::time::Duration;

use bitcoin::BlockHash;

use super::patience::STALL_TIMEOUT;
use super::repair::MAX_REPAIRS;
use super::testing::Harness;
use crate::peer::Misbehavior;

/// A harness with a connected chain of so many blocks.
fn connected(count: usize) -> (Harness, Vec<BlockHash>) {
    let mut sync = Harness::new();
    let chain = sync.forge.mine(sync.forge.genesis(), count);
    let alice = sync.connect(chain[count - 1]);
    sync.serve(&[alice]);
    sync.disconnect(alice);
    assert_eq!(sync.connected(), chain[count - 1]);
    (sync, chain)
}

#[test]
fn a_damaged_block_is_asked_of_a_peer_and_put_in_place_and_the_tip_stays() {
    let (mut sync, chain) = connected(5);
    assert!(sync.find_damaged(chain[1]), "also where nobody can be asked yet");
    assert_eq!(sync.sync.unrepairable(&sync.tree), Some(sync.forge.height(chain[1])));
    assert!(!sync.find_damaged(chain[1]), "it is known");

    let alice = sync.connect(chain[4]);
    assert_eq!(sync.owes(alice), [chain[1]]);
    assert_eq!(sync.sync.unrepairable(&sync.tree), None);
    sync.deliver(alice, chain[1]);
    assert_eq!(sync.writer.repaired, [chain[1]]);
    assert_eq!((sync.connected(), sync.dropped()), (chain[4], vec![]));
    assert!(sync.sync.is_idle());
}

#[test]
fn one_that_is_silent_lies_or_hangs_up_is_gone_round() {
    let (mut sync, chain) = connected(5);
    let silent = sync.connect(chain[4]);
    assert!(sync.find_damaged(chain[2]));
    assert_eq!(sync.owes(silent), [chain[2]]);
    let fickle = sync.connect(chain[4]);
    sync.advance(STALL_TIMEOUT);
    assert_eq!(sync.owes(fickle), [chain[2]], "hedged");
    sync.disconnect(fickle);
    let liar = sync.connect(chain[4]);
    sync.advance(STALL_TIMEOUT * 4);
    assert_eq!(sync.owes(liar), [chain[2]]);
    sync.deliver_raw(liar, chain[2], sync.forge.mutated(chain[2]));
    assert!(matches!(&sync.dropped()[..], [(peer, Misbehavior::BadBlock(_))] if *peer == liar));

    let honest = sync.connect(chain[4]);
    sync.advance(STALL_TIMEOUT * 8);
    assert!(sync.writer.repaired.is_empty());
    sync.deliver_damaged(honest, chain[2]);
    assert_eq!(sync.damaged, [(honest, chain[2])]);
    sync.advance(STALL_TIMEOUT * 8);
    sync.deliver(honest, chain[2]);
    assert_eq!(sync.writer.repaired, [chain[2]]);
    assert_eq!(sync.condemned, []);
}

#[test]
fn few_are_wanted_at_once_and_unasked_copies_are_nobodys() {
    let (mut sync, chain) = connected(40);
    let alice = sync.connect(chain[39]);
    let wanted = chain.iter().filter(|hash| sync.find_damaged(**hash)).count();
    assert_eq!(wanted, MAX_REPAIRS);
    assert_eq!(sync.owes(alice).len(), MAX_REPAIRS);
    let checks = sync.checks;
    sync.deliver(alice, chain[30]);
    assert_eq!(sync.checks, checks, "nobody asked for it");
    sync.serve(&[alice]);
    assert_eq!(sync.writer.repaired.len(), MAX_REPAIRS);
    assert!(sync.find_damaged(chain[30]), "there is room again");
}

#[test]
fn a_pruned_peer_is_not_asked_for_what_it_has_not_got() {
    let (mut sync, chain) = connected(400);
    let pruned = sync.connect_pruned(chain[399]);
    assert!(sync.find_damaged(chain[3]));
    assert_eq!(sync.owes(pruned), []);
    assert!(sync.sync.unrepairable(&sync.tree).is_some());
    assert!(sync.find_damaged(chain[390]));
    assert_eq!(sync.owes(pruned), [chain[390]]);
}

#[test]
fn what_nobody_can_be_asked_for_gives_way_to_what_somebody_can() {
    let (mut sync, chain) = connected(400);
    let pruned = sync.connect_pruned(chain[399]);
    assert!(chain[..MAX_REPAIRS].iter().all(|hash| sync.find_damaged(*hash)));
    sync.advance(Duration::from_secs(59));
    assert!(!sync.find_damaged(chain[390]));
    sync.advance(Duration::from_secs(1));
    assert!(sync.find_damaged(chain[390]));
    sync.serve(&[pruned]);
    assert_eq!(sync.writer.repaired, [chain[390]]);
}

#[test]
fn a_block_that_does_not_stay_whole_is_not_fetched_all_the_time() {
    let (mut sync, chain) = connected(3);
    let alice = sync.connect(chain[2]);
    assert!(sync.find_damaged(chain[0]));
    sync.serve(&[alice]);
    assert_eq!(sync.writer.repaired.len(), 1);

    sync.advance(Duration::from_secs(10 * 60 - 1));
    assert!(!sync.find_damaged(chain[0]));
    assert!(sync.find_damaged(chain[1]), "the others are");
    sync.serve(&[alice]);
    sync.advance(Duration::from_secs(1));
    assert!(sync.find_damaged(chain[0]));
    assert_eq!(sync.owes(alice), [chain[0]]);
    sync.serve(&[alice]);
    assert_eq!(sync.writer.repaired, [chain[0], chain[1], chain[0]]);
}

#[test]
fn a_switch_that_needs_a_damaged_block_is_made_once_it_is_there() {
    let (mut sync, chain) = connected(5);
    let side = sync.forge.mine(chain[1], 4);
    let alice = sync.connect(chain[4]);
    sync.writer.damaged.insert(chain[3]);
    let bob = sync.connect(side[3]);
    sync.serve(&[bob]);

    assert_eq!(sync.connected(), chain[4], "wallets see the old chain until then");
    assert_eq!(sync.owes(alice), [chain[3]], "bob has not got it");
    sync.deliver(alice, chain[3]);
    assert_eq!(sync.connected(), side[3]);
    assert_eq!((sync.writer.switches, sync.dropped()), (1, vec![]));
}

#[test]
fn a_damaged_block_of_a_branch_that_all_have_left_is_asked_of_whoever_may_have_kept_it() {
    let (mut sync, chain) = connected(5);
    let side = sync.forge.mine(chain[1], 4);
    sync.writer.damaged.insert(chain[3]);
    let bob = sync.connect(side[3]);
    for hash in &side {
        sync.deliver(bob, *hash);
    }
    assert_eq!((sync.connected(), sync.owes(bob)), (chain[4], vec![chain[3]]));
    sync.not_found(bob, chain[3]);
    let carol = sync.connect(side[3]);
    assert_eq!((sync.owes(bob), sync.owes(carol)), (vec![], vec![chain[3]]));
    sync.deliver(carol, chain[3]);
    assert_eq!(sync.connected(), side[3]);
}
