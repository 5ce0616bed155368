//! Whom blocks are asked of, when they are asked of somebody else, and what becomes of bad ones.
//!
//! Numbers in brackets are those of the test plan in the notes on the wire protocol.

use std::time::Duration;

use bitcoin::BlockHash;
use bitcoin::p2p::ServiceFlags;
use bytes::Bytes;
use chainstore::Height;

use super::check::Refusal;
use super::patience::STALL_TIMEOUT;
use super::peers::MAX_IN_FLIGHT;
use super::testing::{ENOUGH_BYTES, Harness};
use super::testing_forge::{Fault, Forge};
use super::types::Output;
use crate::peer::{Misbehavior, PeerId, WireBlock};
use crate::validate::BlockError;

/// A harness that stands on genesis, and a chain of so many blocks.
fn chain_of(count: usize) -> (Harness, Vec<BlockHash>) {
    let mut sync = Harness::new();
    let chain = sync.forge.mine(sync.forge.genesis(), count);
    (sync, chain)
}

fn last(chain: &[BlockHash]) -> BlockHash {
    *chain.last().unwrap()
}

fn was_dropped(dropped: &[(PeerId, Misbehavior)], peer: PeerId, reason: &str) -> bool {
    dropped.iter().any(|(id, why)| *id == peer && why.to_string().contains(reason))
}

#[test]
fn all_peers_are_asked_and_blocks_connect_in_chain_order_however_they_arrive() {
    let (mut sync, chain) = chain_of(40);
    let (alice, bob) = (sync.connect(last(&chain)), sync.connect(last(&chain)));

    let (from_alice, from_bob) = (sync.asked(alice), sync.asked(bob));
    assert_eq!(from_alice, chain[..16], "lowest blocks first, sixteen at most");
    assert_eq!(from_bob, chain[16..32]);

    // The writer of the harness refuses what does not follow.
    for hash in from_bob.into_iter().rev().chain(from_alice.into_iter().rev()) {
        let from = if sync.owes(alice).contains(&hash) { alice } else { bob };
        sync.deliver(from, hash);
    }
    assert_eq!(sync.connected(), chain[31]);
    sync.serve(&[alice, bob]);
    assert_eq!(sync.connected(), last(&chain));
    assert_eq!((sync.progress().in_flight, sync.progress().held_bytes), (0, 0));
    assert_eq!(sync.sync.next_timeout(), None);
    assert!(sync.sync.is_idle());
}

#[test]
fn blocks_of_a_peer_that_left_are_asked_elsewhere_at_once() {
    let (mut sync, chain) = chain_of(20);
    let alice = sync.connect(last(&chain));
    let asked = sync.asked(alice);
    assert_eq!(asked, chain[..16]);
    let bob = sync.connect(last(&chain));
    assert_eq!(sync.asked(bob), chain[16..]);

    sync.disconnect(alice);

    assert_eq!(sync.asked(bob), asked[..12], "as far as he has room");
    sync.serve(&[bob]);
    assert_eq!(sync.connected(), last(&chain));
}

#[test]
fn the_first_missing_block_is_asked_of_a_second_peer_and_the_first_answer_wins() {
    // [24]: a peer that stalls half way through a block looks the same from here.
    let (mut sync, chain) = chain_of(2);
    let alice = sync.connect(last(&chain));
    let bob = sync.connect(last(&chain));
    assert_eq!((sync.asked(alice), sync.asked(bob)), (chain.clone(), vec![]));

    sync.advance(STALL_TIMEOUT - Duration::from_millis(1));
    assert_eq!(sync.asked(bob), []);
    sync.advance(Duration::from_millis(1));
    assert_eq!(sync.asked(bob), chain[..1], "the first one only");

    sync.deliver(bob, chain[0]);
    assert_eq!(sync.connected(), chain[0]);
    assert_eq!(sync.asked(bob), chain[1..], "the next one is overdue already");

    // Alice was merely slow.
    let checks = sync.checks;
    sync.deliver(alice, chain[0]);
    sync.deliver(alice, chain[1]);
    sync.deliver(bob, chain[1]);
    assert_eq!(sync.checks, checks + 1, "a second copy is not looked at");
    assert_eq!(sync.connected(), last(&chain));
    assert_eq!((sync.dropped(), sync.progress().unasked), (vec![], 0));
}

#[test]
fn with_two_silent_peers_a_third_finishes() {
    // [26]
    let (mut sync, chain) = chain_of(30);
    let (silent, mute) = (sync.connect(last(&chain)), sync.connect(last(&chain)));
    let carol = sync.connect(last(&chain));
    assert_eq!(sync.owes(carol), []);

    for _ in 0..60 {
        sync.serve(&[carol]);
        sync.advance(Duration::from_secs(1));
    }

    assert_eq!(sync.connected(), last(&chain));
    assert!(!sync.owes(silent).is_empty() && !sync.owes(mute).is_empty());

    // Later blocks are not asked of them while somebody else has them.
    let more = sync.forge.mine(last(&chain), 40);
    let (before_silent, before_mute) = (sync.owes(silent).len(), sync.owes(mute).len());
    for peer in [carol, silent, mute] {
        sync.announce(peer, last(&more));
    }
    assert_eq!(sync.owes(carol).len(), MAX_IN_FLIGHT);
    sync.serve(&[carol]);
    assert_eq!(sync.connected(), last(&more));
    assert!(sync.owes(silent).len() <= before_silent + MAX_IN_FLIGHT);
    assert_eq!(sync.owes(mute).len(), before_mute);
}

#[test]
fn unasked_blocks_are_dropped_unread() {
    // [27]
    let (mut sync, chain) = chain_of(3);
    let alice = sync.connect(chain[0]);
    let stranger = sync.forge.mine_one(sync.forge.genesis(), 100_000, Fault::None);
    for _ in 0..1_000 {
        sync.deliver(alice, stranger);
        sync.deliver(alice, chain[2]);
        sync.deliver_raw(alice, stranger, sync.forge.mutated(stranger));
    }
    assert_eq!((sync.checks, sync.progress().held_bytes, sync.progress().unasked), (0, 0, 3_000));
    assert_eq!(sync.dropped(), []);

    sync.deliver_raw(alice, stranger, Bytes::from_static(&[0; 79]));
    assert!(was_dropped(&sync.dropped(), alice, "block of 79 bytes"));
}

#[test]
fn a_block_with_other_transactions_costs_its_sender_and_is_asked_elsewhere() {
    // [28]; what counts as such a block ([29] to [31]) is tested in `validate`.
    let (mut sync, chain) = chain_of(3);
    let alice = sync.connect(last(&chain));
    let bob = sync.connect(last(&chain));

    sync.deliver_raw(alice, chain[1], sync.forge.mutated(chain[1]));

    assert!(was_dropped(&sync.dropped(), alice, "bad-txnmrklroot"));
    assert_eq!(sync.asked(bob), chain);
    sync.serve(&[bob]);
    assert_eq!(sync.connected(), last(&chain));
    assert_eq!(sync.condemned, []);
}

#[test]
fn a_block_that_was_damaged_on_the_way_is_asked_again_and_costs_nobody() {
    let (mut sync, chain) = chain_of(3);
    let alice = sync.connect(last(&chain));
    let bob = sync.connect(last(&chain));
    assert_eq!((sync.asked(alice), sync.asked(bob)), (chain.clone(), vec![]));

    sync.deliver_damaged(alice, chain[0]);

    assert_eq!(sync.damaged, [(alice, chain[0])]);
    assert_eq!(sync.asked(bob), [chain[0]], "of somebody else, where there is one");
    sync.serve(&[alice, bob]);
    assert_eq!(sync.connected(), last(&chain));
    assert_eq!((sync.dropped(), sync.condemned.as_slice()), (vec![], [].as_slice()));
}

#[test]
fn a_damaged_block_is_asked_of_the_same_peer_where_there_is_no_other() {
    let (mut sync, chain) = chain_of(1);
    let alice = sync.connect(chain[0]);
    sync.deliver_damaged(alice, chain[0]);
    assert_eq!(sync.asked(alice), [chain[0], chain[0]]);
    sync.deliver(alice, chain[0]);
    assert_eq!((sync.connected(), sync.dropped()), (chain[0], vec![]));
}

#[test]
fn the_third_damaged_block_in_a_row_costs_the_connection() {
    let (mut sync, chain) = chain_of(9);
    let alice = sync.connect(last(&chain));
    // What passes its check in between shows that she and the line can do better.
    for at in [0, 2, 4] {
        sync.deliver_damaged(alice, chain[at]);
        sync.deliver_damaged(alice, chain[at]);
        sync.deliver(alice, chain[at + 1]);
    }
    assert_eq!((sync.dropped(), sync.damaged.len()), (vec![], 6));

    for at in [6, 7, 8] {
        sync.deliver_damaged(alice, chain[at]);
    }
    assert!(was_dropped(&sync.dropped(), alice, "does not match its checksum"));
    let bob = sync.connect(last(&chain));
    sync.serve(&[bob]);
    assert_eq!((sync.connected(), sync.condemned.as_slice()), (last(&chain), [].as_slice()));
}

#[test]
fn who_was_beaten_by_a_forged_copy_is_not_asked_twice() {
    let (mut sync, chain) = chain_of(1);
    let alice = sync.connect(chain[0]);
    let bob = sync.connect(chain[0]);
    sync.advance(STALL_TIMEOUT);
    assert_eq!((sync.asked(alice), sync.asked(bob)), (chain.clone(), chain.clone()));

    sync.deliver_raw(bob, chain[0], sync.forge.mutated(chain[0]));
    assert_eq!(sync.asked(alice), [], "she owes it still");
    sync.deliver(alice, chain[0]);
    assert_eq!(sync.connected(), chain[0]);
}

#[test]
fn a_block_that_breaks_a_rule_ends_its_chain() {
    let (mut sync, chain) = chain_of(3);
    let bad = sync.forge.mine_one(last(&chain), 0, Fault::Height);
    let above = sync.forge.mine(bad, 3);
    let alice = sync.connect(last(&above));
    let bob = sync.connect(last(&chain));

    sync.deliver(alice, bad);

    assert_eq!(sync.condemned, [bad]);
    assert!(was_dropped(&sync.dropped(), alice, "bad-cb-height"));
    sync.serve(&[bob]);
    assert_eq!(sync.connected(), last(&chain), "the best valid chain");
    let carol = sync.connect(last(&above));
    assert_eq!(sync.owes(carol), [], "nothing of it is asked for again");
}

#[test]
fn a_block_that_cannot_be_checked_here_is_not_followed_and_not_condemned() {
    let (mut sync, chain) = chain_of(1);
    let tip = chain[0];
    // By hand, as the harness would check it at once.
    let alice = sync.connect(tip);
    sync.sync.handle_block(sync.now, alice, WireBlock::new(sync.forge.raw(tip)), &sync.tree);
    assert!(matches!(sync.sync.poll(), Some(Output::Check { hash, .. }) if hash == tip));
    let refusal = Refusal::Refused(BlockError::UnsupportedChallenge);
    sync.sync.handle_checked(sync.now, tip, Err(refusal), &sync.tree);

    let Some(Output::Drop { peer, why: Misbehavior::BadBlock(why) }) = sync.sync.poll() else {
        panic!("nothing is said of it")
    };
    assert_eq!(peer, alice);
    assert!(why.contains("script verifier"), "{why}");
    assert!(sync.sync.poll().is_none());
    assert!(!sync.tree.is_invalid(tip));
    let bob = sync.connect(tip);
    assert_eq!(sync.owes(bob), [], "he would send the same");
}

#[test]
fn from_pruned_peers_only_we_cannot_begin_but_can_follow() {
    // [37]
    let mut forge = Forge::new();
    let chain = forge.mine(forge.genesis(), 1_000);

    let mut sync = Harness::with_memory(forge, ENOUGH_BYTES);
    assert_eq!(sync.missing_source(), None, "nothing is missed yet");
    let alice = sync.connect_pruned(last(&chain));
    assert_eq!(sync.missing_source(), Some(Height(1)));
    let history: Vec<_> = sync.owes(alice);
    assert!(
        history.iter().all(|hash| sync.forge.height(*hash).0 >= 1_000 - 286),
        "within the window, recent"
    );
    let bob = sync.connect_with(ServiceFlags::NETWORK);
    assert_eq!(sync.missing_source(), None, "he may have it: what he has is not known yet");
    sync.announce(bob, chain[500]);
    assert_eq!(sync.missing_source(), None);
    sync.disconnect(bob);
    assert_eq!(sync.missing_source(), Some(Height(1)), "and we keep looking");

    let forge = sync.forge;
    let mut sync = Harness::standing_on(forge, ENOUGH_BYTES, chain[799], &[]);
    let alice = sync.connect_pruned(last(&chain));
    sync.serve(&[alice]);
    assert_eq!(sync.connected(), last(&chain));
}

#[test]
fn a_pruned_peer_is_asked_no_deeper_than_286_below_its_own_tip() {
    // [38]
    let mut forge = Forge::new();
    let chain = forge.mine(forge.genesis(), 1_000);
    let mut sync = Harness::standing_on(forge, ENOUGH_BYTES, chain[499], &[]);

    let alice = sync.connect_pruned(chain[989]);
    assert_eq!(sync.asked(alice), chain[703..719], "heights from 990 - 286 = 704 on");

    // Her tip moves, and with it what she is asked from then on.
    sync.announce(alice, last(&chain));
    sync.deliver(alice, chain[703]);
    assert_eq!(sync.asked(alice), chain[719..720]);
    let bob = sync.connect_pruned(last(&chain));
    assert_eq!(sync.asked(bob), chain[720..736]);
    let carol = sync.connect_pruned(last(&chain));
    sync.disconnect(bob);
    sync.disconnect(alice);
    assert!(sync.owes(carol).iter().all(|hash| sync.forge.height(*hash).0 >= 1_000 - 286));
    let nothing = sync.connect_with(ServiceFlags::WITNESS);
    sync.announce(nothing, last(&chain));
    assert_eq!(sync.owes(nothing), [], "serves no blocks");
}

#[test]
fn a_peer_that_lies_about_its_history_is_used_for_the_tip_only() {
    // [39]
    let mut forge = Forge::new();
    let chain = forge.mine(forge.genesis(), 400);
    let mut sync = Harness::with_memory(forge, ENOUGH_BYTES);
    let liar = sync.connect(last(&chain));
    let bob = sync.connect(last(&chain));
    let lies = sync.asked(liar);
    assert_eq!(lies, chain[..16]);

    sync.serve(&[bob]);
    sync.advance(STALL_TIMEOUT);
    sync.serve(&[bob]);

    assert_eq!(sync.connected(), last(&chain));
    assert_eq!(sync.dropped(), []);
    // She is asked for no history again, even where nobody else can be asked.
    let forge = sync.forge;
    let mut sync = Harness::with_memory(forge, ENOUGH_BYTES);
    let liar = sync.connect(last(&chain));
    let bob = sync.connect(chain[1]);
    sync.advance(STALL_TIMEOUT);
    sync.serve(&[bob]);
    sync.announce(bob, chain[2]);
    sync.disconnect(bob);
    sync.not_found(liar, chain[2]);
    assert_eq!(sync.missing_source(), Some(Height(3)));
    let bob = sync.connect(chain[199]);
    sync.serve(&[bob]);
    sync.advance(STALL_TIMEOUT);
    sync.serve(&[bob]);
    assert_eq!(sync.connected(), chain[199]);
    sync.disconnect(bob);
    assert!(
        sync.owes(liar)
            .iter()
            .all(|hash| sync.forge.height(*hash).0 <= 16 || sync.forge.height(*hash).0 >= 112)
    );
    assert!(
        sync.asked(liar).iter().any(|hash| sync.forge.height(*hash).0 >= 200),
        "recent ones she may be asked for"
    );

    // Whoever delivers history after all is believed again.
    sync.deliver(liar, chain[0]);
    assert_eq!(sync.missing_source(), None);
}

#[test]
fn a_block_that_a_peer_has_not_got_is_asked_of_another_and_not_of_it() {
    let (mut sync, chain) = chain_of(2);
    let alice = sync.connect(last(&chain));
    assert_eq!(sync.asked(alice), chain);
    sync.not_found(alice, chain[0]);
    assert_eq!(sync.asked(alice), []);
    assert_eq!(sync.missing_source(), Some(Height(1)));
    // Nothing was asked, so nothing is made of it.
    sync.not_found(alice, chain[0]);

    let bob = sync.connect(last(&chain));
    assert_eq!(sync.asked(bob), chain[..1]);
    sync.serve(&[alice, bob]);
    assert_eq!(sync.connected(), last(&chain));
}
