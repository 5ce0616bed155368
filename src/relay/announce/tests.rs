//! Who hears of what, when, and who is given what.

use super::super::testing::*;
use super::super::types::Role;
use super::*;
use crate::mempool::{RejectKind, Removal, Unconfirmed};

/// What the peer was told of since this was last asked.
fn told(net: &mut Harness, peer: PeerId) -> Vec<Inventory> {
    let inv = |message| if let Message::Inv(entries) = message { Some(entries) } else { None };
    net.sent(peer).into_iter().filter_map(inv).flatten().collect()
}

/// Alice gives it and the mempool takes it.
fn alice_gives(net: &mut Harness, tx: &Unconfirmed) {
    net.sends(ALICE, tx);
    net.judge(tx, accepted(tx));
}

fn asks(net: &mut Harness, peer: PeerId, entries: &[Inventory]) -> Vec<Message> {
    net.sent(peer);
    net.relay.handle_get_data(net.now, peer, entries);
    net.collect();
    net.sent(peer)
}

#[test]
fn what_was_taken_is_announced_to_all_who_do_not_have_it_once() {
    let mut net = Harness::new(&[ALICE, BOB, CAROL]);
    let (tx, refused) = (spend(&[coin(1)]), spend(&[coin(2)]));
    net.announces(CAROL, &tx);
    alice_gives(&mut net, &tx);
    net.sends(ALICE, &refused);
    net.judge(&refused, rejected(RejectKind::NotStandard));
    assert_eq!(told(&mut net, BOB), [], "not at once");
    net.advance(MEAN_WAIT * 30);
    assert_eq!(told(&mut net, BOB), [wtxid_of(&tx)]);
    assert_eq!((told(&mut net, ALICE), told(&mut net, CAROL)), (vec![], vec![]));
    net.mempool(&[&tx], &[]);
    net.advance(MEAN_WAIT * 30);
    assert_eq!(told(&mut net, BOB), []);
}

#[test]
fn who_did_not_agree_on_wtxids_hears_txids_and_who_wants_nothing_hears_nothing() {
    let mut net = Harness::new(&[ALICE]);
    net.connect(BOB, Role::Stranger, false);
    let mut quiet = info(true);
    quiet.relay = false;
    net.relay.handle_peer_ready(net.now, CAROL, &quiet, Role::Stranger);
    let tx = spend(&[coin(1)]);
    alice_gives(&mut net, &tx);
    net.advance(MEAN_WAIT * 30);
    assert_eq!(told(&mut net, BOB), [Inventory::txid(tx.txid())]);
    assert_eq!(told(&mut net, CAROL), []);
    assert_eq!(asks(&mut net, CAROL, &[wtxid_of(&tx)]), []);
}

#[test]
fn a_feefilter_is_respected_and_what_left_the_mempool_is_not_announced() {
    let mut net = Harness::new(&[ALICE, BOB]);
    let (cheap, gone) = (spend(&[coin(1)]), spend(&[coin(2)]));
    // These pay four satoshi a virtual byte.
    net.relay.handle_fee_filter(BOB, 4_100);
    alice_gives(&mut net, &cheap);
    net.advance(MEAN_WAIT * 30);
    net.relay.handle_fee_filter(BOB, 3_900);
    alice_gives(&mut net, &gone);
    net.mempool(&[], &[(&gone, Removal::Evicted)]);
    net.advance(MEAN_WAIT * 30);
    assert_eq!(told(&mut net, BOB), []);
}

#[test]
fn an_inv_is_short_and_its_moment_random() {
    let mut net = Harness::new(&[ALICE, BOB]);
    net.compares = false;
    for number in 0..1_000 {
        alice_gives(&mut net, &spend(&[coin(number)]));
    }
    let mut waits = Vec::new();
    let began = net.now.instant;
    while let Some(due) = net.relay.announcements.next_timeout() {
        net.advance(due - net.now.instant);
        let entries = told(&mut net, BOB);
        assert!(entries.len() <= TARGET + PER_THOUSAND);
        waits.push((due - began).as_millis());
    }
    assert!((14..=40).contains(&waits.len()), "{waits:?}");
    waits.dedup();
    assert!(waits.len() >= 14);
}

#[test]
fn parents_are_announced_before_their_children() {
    let mut net = Harness::new(&[ALICE, BOB]);
    let mut chain = vec![spend(&[coin(1)])];
    for number in 0..20 {
        let last = output(chain.last().unwrap());
        // Children that pay more would go first.
        chain.push(if number % 2 == 0 { build(&[last], &[]) } else { spend(&[last, coin(100 + number)]) });
    }
    chain.iter().for_each(|tx| alice_gives(&mut net, tx));
    net.advance(MEAN_WAIT * 60);
    assert_eq!(told(&mut net, BOB), chain.iter().map(|tx| wtxid_of(tx)).collect::<Vec<_>>());
}

#[test]
fn only_what_was_announced_to_a_peer_and_its_parents_are_given_to_it_once() {
    let mut net = Harness::new(&[ALICE, BOB]);
    let (parent, other) = (spend(&[coin(1)]), spend(&[coin(2)]));
    let child = spend(&[output(&parent)]);
    net.mempool(&[&parent, &other], &[]);
    alice_gives(&mut net, &child);
    assert_eq!(
        asks(&mut net, BOB, &[wtxid_of(&child)]),
        [Message::NotFound(vec![wtxid_of(&child)])],
        "not before it was announced"
    );
    net.advance(MEAN_WAIT * 30);

    let tx = |tx: &Unconfirmed| Message::Tx(tx.raw().clone());
    let missing = Message::NotFound(vec![wtxid_of(&other), txid_of(&other)]);
    let asked = [wtxid_of(&child), wtxid_of(&other), txid_of(&other), txid_of(&parent)];
    assert_eq!(asks(&mut net, BOB, &asked), [tx(&child), tx(&parent), missing]);
    let again = vec![wtxid_of(&child); 50_000];
    assert_eq!(asks(&mut net, BOB, &again), [Message::NotFound(again.clone())]);
    let without = with_witness(&child, &[]);
    assert_eq!(asks(&mut net, BOB, &[Inventory::txid(child.txid())]), [tx(&without)]);
}

#[test]
fn only_a_node_that_permits_it_is_asked_for_its_mempool_and_only_once_we_are_synced() {
    let mut net = Harness::syncing();
    net.connect(ALICE, Role::Trusted { ask_mempool: true }, true);
    net.connect(BOB, Role::Trusted { ask_mempool: false }, true);
    assert_eq!(net.sent(ALICE), []);
    net.relay.set_synced(net.now, true);
    net.relay.set_synced(net.now, true);
    net.collect();
    assert_eq!(net.sent(ALICE).iter().filter(|message| **message == Message::Mempool).count(), 1);
    assert!(!net.sent(BOB).contains(&Message::Mempool));
    net.connect(CAROL, Role::Trusted { ask_mempool: true }, true);
    assert!(net.sent(CAROL).contains(&Message::Mempool));
}
