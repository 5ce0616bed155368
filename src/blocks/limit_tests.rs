//! The bounds of the download: window, memory, and how long a peer may take.
//!
//! Numbers in brackets are those of the test plan in the notes on the wire protocol.

use std::time::Duration;

use bitcoin::BlockHash;
use chainstore::Height;

use super::patience::STALL_TIMEOUT;
use super::testing::Harness;
use super::testing_forge::{Fault, Forge};
use super::window::WINDOW;
use crate::peer::Misbehavior;

/// A harness that stands on genesis, and a chain of so many blocks.
fn chain_of(count: usize) -> (Harness, Vec<BlockHash>) {
    let mut sync = Harness::new();
    let chain = sync.forge.mine(sync.forge.genesis(), count);
    (sync, chain)
}

fn last(chain: &[BlockHash]) -> BlockHash {
    *chain.last().unwrap()
}

#[test]
fn nothing_is_asked_past_the_window() {
    let (mut sync, chain) = chain_of(WINDOW as usize + 100);
    let peers: Vec<_> = (0..70).map(|_| sync.connect(last(&chain))).collect();

    let asked: Vec<_> = peers.iter().flat_map(|peer| sync.owes(*peer)).collect();
    assert_eq!(asked.len(), WINDOW as usize);
    assert!(asked.iter().all(|hash| sync.forge.height(*hash).0 <= WINDOW));

    // It moves with the connected tip.
    sync.deliver(peers[0], chain[0]);
    let highest = peers.iter().flat_map(|peer| sync.owes(*peer)).map(|hash| sync.forge.height(hash)).max();
    assert_eq!(highest, Some(Height(WINDOW + 1)));
}

#[test]
fn a_slow_writer_holds_the_window_and_is_given_few_blocks_at_once() {
    let (mut sync, chain) = chain_of(300);
    sync.writer.paused = true;
    let alice = sync.connect(last(&chain));
    sync.serve(&[alice]);
    assert_eq!(sync.connected(), sync.forge.genesis());
    assert_eq!(sync.progress().in_memory, 300);

    let mut answered = 0;
    while sync.write_one() {
        answered += 1;
    }
    assert_eq!((answered, sync.connected()), (300, last(&chain)));
}

#[test]
fn a_peer_that_holds_the_full_window_is_dropped_and_the_timeout_doubles_and_decays() {
    // [40]
    let (mut sync, chain) = chain_of(WINDOW as usize + 200);
    let alice = sync.connect(last(&chain));
    assert_eq!(sync.owes(alice).len(), 16);
    let bob = sync.connect(last(&chain));
    // Bob delivers all but what alice owes, and what he is asked for in her place.
    while let Some(hash) = sync.owes(bob).into_iter().find(|hash| sync.forge.height(*hash).0 > 16) {
        sync.deliver(bob, hash);
    }
    assert_eq!(sync.connected(), sync.forge.genesis());
    assert_eq!(sync.progress().in_memory, WINDOW as usize - 16);

    sync.advance(STALL_TIMEOUT - Duration::from_millis(1));
    assert_eq!(sync.dropped(), []);
    sync.advance(Duration::from_millis(1));

    assert_eq!(sync.dropped(), [(alice, Misbehavior::Stalled)]);
    assert_eq!(sync.progress().stall_timeout, STALL_TIMEOUT * 2);
    assert_eq!(sync.owes(bob), chain[..16], "what she owed is asked of the next");

    // The next one has twice the time.
    let carol = sync.connect(last(&chain));
    sync.advance(STALL_TIMEOUT * 2 - Duration::from_millis(1));
    assert_eq!(sync.dropped(), []);
    sync.advance(Duration::from_millis(1));
    assert_eq!(sync.dropped(), [(bob, Misbehavior::Stalled)]);
    assert_eq!(sync.progress().stall_timeout, STALL_TIMEOUT * 4);

    // Alone, carol is not dropped: nobody else could be asked.
    sync.advance(Duration::from_secs(60));
    assert_eq!(sync.dropped(), []);
    sync.serve(&[carol]);
    assert_eq!(sync.connected(), last(&chain));
    assert!(sync.progress().stall_timeout < STALL_TIMEOUT * 16, "{:?}", sync.progress().stall_timeout);
}

#[test]
fn a_slow_writer_is_nobodys_stall() {
    let (mut sync, chain) = chain_of(WINDOW as usize + 200);
    sync.writer.paused = true;
    let alice = sync.connect(last(&chain));
    let bob = sync.connect(last(&chain));
    while let Some(hash) = sync.owes(bob).into_iter().find(|hash| sync.forge.height(*hash).0 > 16) {
        sync.deliver(bob, hash);
    }
    sync.deliver(alice, chain[0]);
    assert_eq!(sync.owes(alice)[0], chain[1]);
    // Block 1 is with the writer, so the window may move without anybody's help.
    sync.advance(STALL_TIMEOUT);
    assert_eq!(sync.dropped(), []);
}

#[test]
fn memory_is_bounded_and_the_first_missing_block_is_asked_for_all_the_same() {
    let mut forge = Forge::new();
    let chain: Vec<_> =
        std::iter::successors(Some(forge.genesis()), |tip| Some(forge.mine_one(*tip, 10_000, Fault::None)))
            .skip(1)
            .take(100)
            .collect();
    // The harness holds the bound after each step: the limit and one block.
    let mut sync = Harness::with_memory(forge, 100_000);
    let alice = sync.connect(last(&chain));
    let bob = sync.connect(last(&chain));
    assert_eq!(sync.progress().in_flight, 1, "as long as it is not known how large they are");

    sync.serve(&[alice, bob]);
    assert_eq!(sync.connected(), last(&chain));

    let more: Vec<_> =
        std::iter::successors(Some(last(&chain)), |tip| Some(sync.forge.mine_one(*tip, 10_000, Fault::None)))
            .skip(1)
            .take(100)
            .collect();
    sync.announce(alice, last(&more));
    let held = sync.owes(alice);
    sync.announce(bob, last(&more));
    assert!(held.len() >= 5 && held.len() <= 10, "{}", held.len());
    for hash in held[1..].iter().copied() {
        sync.deliver(alice, hash);
    }
    assert_eq!(sync.connected(), last(&chain));
    while let Some(hash) = sync.owes(bob).first().copied() {
        sync.deliver(bob, hash);
    }
    assert!(sync.progress().held_bytes > 80_000);
    assert_eq!(sync.owes(alice), more[..1]);

    // Memory is as good as a window: she stalls.
    sync.advance(STALL_TIMEOUT);
    assert_eq!(sync.dropped(), [(alice, Misbehavior::Stalled)]);
    sync.serve(&[bob]);
    assert_eq!(sync.connected(), last(&more));
    assert_eq!(sync.progress().held_bytes, 0);
}

#[test]
fn blocks_larger_than_expected_are_let_go_and_fetched_again() {
    let mut forge = Forge::new();
    let small = forge.mine(forge.genesis(), 200);
    let large: Vec<_> =
        std::iter::successors(Some(last(&small)), |tip| Some(forge.mine_one(*tip, 40_000, Fault::None)))
            .skip(1)
            .take(60)
            .collect();
    let mut sync = Harness::with_memory(forge, 200_000);
    let alice = sync.connect(last(&large));
    let bob = sync.connect(last(&large));
    sync.serve(&[alice, bob]);
    // Highest first, so that they must wait.
    let forge = sync.forge;
    let mut sync = Harness::with_memory(forge, 200_000);
    let alice = sync.connect(last(&large));
    while sync.connected() != last(&large) {
        let owed = sync.owes(alice);
        let next = owed.last().copied().expect("nothing is asked for");
        sync.deliver(alice, next);
    }
    assert_eq!(sync.dropped(), []);
}

#[test]
fn a_peer_that_delivers_nothing_is_dropped_after_ten_minutes_and_five_for_each_other() {
    let (mut sync, chain) = chain_of(1);
    let alice = sync.connect(chain[0]);
    sync.advance(Duration::from_secs(10 * 60 - 1));
    assert_eq!(sync.dropped(), []);
    sync.advance(Duration::from_secs(1));
    assert_eq!(sync.dropped(), [(alice, Misbehavior::Stalled)]);
    assert_eq!(sync.missing_source(), Some(Height(1)));

    let (alice, bob) = (sync.connect(chain[0]), sync.connect(chain[0]));
    sync.advance(Duration::from_secs(15 * 60 - 1));
    assert_eq!(sync.dropped(), []);
    assert_eq!((sync.owes(alice).len(), sync.owes(bob).len()), (1, 1));
    sync.advance(Duration::from_secs(1));
    assert_eq!(sync.dropped(), [(alice, Misbehavior::Stalled)]);
}

#[test]
fn each_block_delivered_gives_a_peer_its_ten_minutes_again() {
    let (mut sync, chain) = chain_of(3);
    let alice = sync.connect(last(&chain));
    for hash in chain {
        sync.advance(Duration::from_secs(9 * 60));
        sync.deliver(alice, hash);
    }
    assert_eq!(sync.dropped(), []);
    assert_eq!(sync.progress().first_missing, None);
}
