//! What wallets are told, and what peers are sent.

use super::super::testing::*;
use super::super::types::{Evidence, Role};
use super::*;
use crate::mempool::{Removal, Unconfirmed};

const ID: BroadcastId = BroadcastId(1);

fn hand_in(net: &mut Harness, id: BroadcastId, transactions: &[&Unconfirmed]) {
    let entries: Vec<_> = transactions.iter().map(|tx| entry(tx)).collect();
    net.relay.broadcast(net.now, id, &entries);
    net.collect();
}

/// Hands it in, and the disk takes it.
fn broadcast(net: &mut Harness, tx: &Unconfirmed) {
    hand_in(net, ID, &[tx]);
    let keep = Output::Keep { wtxid: tx.wtxid(), transactions: vec![entry(tx)] };
    assert_eq!(net.told(), [keep]);
    net.relay.handle_kept(net.now, tx.wtxid());
    net.collect();
}

fn answers(net: &mut Harness) -> Vec<Result<Evidence, BroadcastError>> {
    let answer = |output| if let Output::Broadcast { result, .. } = output { Some(result) } else { None };
    net.told().into_iter().filter_map(answer).collect()
}

/// Who was sent a transaction, with the nonce of the ping after it, since this was last asked.
fn pushed(net: &mut Harness, peers: &[PeerId], tx: &Unconfirmed) -> Vec<(PeerId, u64)> {
    let mut pushed = Vec::new();
    for peer in peers {
        let sent = net.sent(*peer);
        if let Some(at) = sent.iter().position(|message| *message == Message::Tx(tx.raw().clone())) {
            let Some(Message::Ping(nonce)) = sent.get(at + 1) else { panic!("no ping behind it") };
            pushed.push((*peer, *nonce));
        }
    }
    pushed
}

fn pong(net: &mut Harness, peer: PeerId, nonce: u64) {
    net.relay.handle_pong(net.now, peer, nonce);
    net.collect();
}

fn peers(count: u64) -> Vec<PeerId> {
    (1..=count).map(PeerId).collect()
}

#[test]
fn two_strangers_are_sent_it_and_two_more_when_they_do_not_show_it() {
    let peers = peers(8);
    let mut net = Harness::new(&peers);
    let tx = spend(&[coin(1)]);
    broadcast(&mut net, &tx);
    let first = pushed(&mut net, &peers, &tx);
    assert_eq!(first.len(), FIRST_PEERS);
    net.advance(MORE_AFTER);
    let more = pushed(&mut net, &peers, &tx);
    assert_eq!(more.len(), MORE_PEERS);
    assert!(more.iter().all(|(peer, _)| first.iter().all(|(other, _)| peer != other)));
    net.advance(PROBE_FOR);
    assert_eq!(pushed(&mut net, &peers, &tx), []);
}

#[test]
fn an_echo_of_a_peer_that_was_not_sent_it_is_success_at_once_and_the_others_hear_of_it() {
    let peers = peers(6);
    let mut net = Harness::new(&peers);
    let tx = spend(&[coin(1)]);
    broadcast(&mut net, &tx);
    let sent = pushed(&mut net, &peers, &tx);
    net.announces(sent[0].0, &tx);
    assert_eq!(answers(&mut net), [], "who was sent it proves nothing by announcing it");
    let rest: Vec<PeerId> =
        peers.iter().copied().filter(|peer| sent.iter().all(|(to, _)| to != peer)).collect();
    net.announces(rest[0], &tx);
    assert_eq!(answers(&mut net), [Ok(Evidence::Echo)]);
    assert_eq!(net.asked(rest[0]), []);

    net.advance(SECOND * 60);
    for peer in &rest[1..] {
        assert!(net.sent(*peer).contains(&Message::Inv(vec![wtxid_of(&tx)])));
    }
    let report = net.relay.report()[0];
    assert_eq!((report.sent, report.announced, report.accepted, report.is_unseen), (2, 1, 0, false));
}

/// Test 74.
#[test]
fn what_a_peer_gives_back_when_asked_it_has_taken() {
    let peers = peers(2);
    let mut net = Harness::new(&peers);
    let tx = spend(&[coin(1)]);
    broadcast(&mut net, &tx);
    pushed(&mut net, &peers, &tx);
    net.sends(ALICE, &tx);
    assert_eq!(answers(&mut net), [], "sent back before it was asked, it proves nothing");

    net.advance(FIRST_PROBE);
    assert_eq!(net.asked(ALICE), [wtxid_of(&tx)]);
    net.has_not(ALICE, wtxid_of(&tx));
    net.advance(SECOND);
    assert_eq!(net.asked(ALICE), [wtxid_of(&tx)]);
    net.sends(ALICE, &with_witness(&tx, &[7; 30]));
    assert_eq!(answers(&mut net), [], "another witness is another transaction");
    net.sends(ALICE, &tx);
    assert_eq!(answers(&mut net), [Ok(Evidence::Probe)]);
    net.asked(BOB);
    net.advance(PROBE_FOR);
    assert_eq!(net.asked(ALICE), [], "it is not asked again");
    assert!((40..50).contains(&net.asked(BOB).len()), "the other still is");
}

/// Test 74.
#[test]
fn what_nobody_shows_is_a_success_only_if_it_arrived_and_is_told_to_the_operator() {
    for arrives in [true, false] {
        let peers = peers(5);
        let mut net = Harness::new(&peers);
        let tx = spend(&[coin(1)]);
        broadcast(&mut net, &tx);
        let sent = pushed(&mut net, &peers, &tx);
        pong(&mut net, sent[0].0, sent[0].1 ^ 1);
        if arrives {
            pong(&mut net, sent[0].0, sent[0].1);
        }
        net.advance(ANSWER_WITHIN - SECOND);
        assert_eq!(answers(&mut net), []);
        net.advance(SECOND);
        let expected = if arrives { Ok(Evidence::Delivery) } else { Err(BroadcastError::NotDelivered) };
        assert_eq!(answers(&mut net), [expected]);

        net.advance(PROBE_FOR);
        let Output::Unseen(report) = net.told().remove(0) else { panic!("not told") };
        assert_eq!((report.sent, report.delivered, report.accepted), (4, u32::from(arrives), 0));
        net.advance(RETRY_AFTER + RETRY_SPREAD);
        assert!(!pushed(&mut net, &peers, &tx).is_empty(), "it is handed out again");
    }
}

#[test]
fn the_own_node_is_the_only_one_at_first_and_its_word_comes_within_two_seconds() {
    let mut net = Harness::new(&peers(5));
    let own = PeerId(50);
    net.connect(own, Role::Trusted { ask_mempool: false }, true);
    let tx = spend(&[coin(1)]);
    broadcast(&mut net, &tx);
    assert_eq!(pushed(&mut net, &peers(5), &tx), []);
    assert_eq!(pushed(&mut net, &[own], &tx).len(), 1);
    net.advance(FIRST_PROBE);
    net.sends(own, &tx);
    assert_eq!(answers(&mut net), [Ok(Evidence::Probe)]);
    net.advance(MORE_AFTER);
    assert_eq!(pushed(&mut net, &peers(5), &tx), []);

    // Where it stays silent, strangers are sent it too.
    let other = spend(&[coin(2)]);
    broadcast(&mut net, &other);
    net.advance(MORE_AFTER);
    assert_eq!(pushed(&mut net, &peers(5), &other).len(), MORE_PEERS);
}

/// Test 75.
#[test]
fn a_node_that_takes_no_transactions_or_syncs_or_lags_is_sent_none() {
    for case in 0..3 {
        let mut net = Harness::new(&[]);
        let mut own = info(true);
        own.relay = case != 0;
        net.relay.handle_peer_ready(net.now, ALICE, &own, Role::Trusted { ask_mempool: false });
        match case {
            1 => net.relay.handle_fee_filter(ALICE, 9_936_506),
            2 => net.relay.set_behind(ALICE, true),
            _ => {}
        }
        assert!(!net.relay.can_broadcast());
        net.connect(BOB, Role::Stranger, true);
        let tx = spend(&[coin(1)]);
        broadcast(&mut net, &tx);
        net.advance(PROBE_FOR);
        assert_eq!(pushed(&mut net, &[ALICE], &tx), [], "case {case}");
        assert_eq!(pushed(&mut net, &[BOB], &tx).len(), 1, "case {case}");
    }
}

/// Test 77.
#[test]
fn without_a_peer_the_wallet_is_told_and_nothing_is_kept() {
    let mut net = Harness::new(&[]);
    net.connect(ALICE, Role::BlocksOnly, true);
    let tx = spend(&[coin(1)]);
    hand_in(&mut net, ID, &[&tx]);
    assert_eq!(net.told(), [Output::Broadcast { id: ID, result: Err(BroadcastError::NoPeers) }]);
    assert_eq!(BroadcastError::NoPeers.to_string(), "no peers to broadcast to");
    assert_eq!(net.relay.report(), []);
    assert_eq!(net.relay.next_timeout().filter(|at| *at < net.now.instant + PROBE_FOR), None);
}

#[test]
fn no_answer_goes_out_before_it_is_on_disk() {
    let mut net = Harness::new(&peers(4));
    let tx = spend(&[coin(1)]);
    hand_in(&mut net, ID, &[&tx]);
    let sent = pushed(&mut net, &peers(4), &tx);
    let echo = peers(4).into_iter().find(|peer| sent.iter().all(|(to, _)| to != peer)).unwrap();
    net.announces(echo, &tx);
    assert_eq!(answers(&mut net), []);
    net.relay.handle_kept(net.now, tx.wtxid());
    net.collect();
    assert_eq!(answers(&mut net), [Ok(Evidence::Echo)]);

    let late = spend(&[coin(2)]);
    hand_in(&mut net, ID, &[&late]);
    net.advance(ANSWER_WITHIN);
    assert_eq!(answers(&mut net), [Err(BroadcastError::NotKept)]);
}

#[test]
fn a_package_is_sent_parents_first_and_its_parents_can_be_asked_for() {
    let mut net = Harness::new(&[ALICE]);
    let parent = spend(&[coin(1)]);
    let child = spend(&[output(&parent)]);
    net.sent(ALICE);
    hand_in(&mut net, ID, &[&parent, &child]);
    let kept = vec![entry(&parent), entry(&child)];
    assert_eq!(net.told(), [Output::Keep { wtxid: child.wtxid(), transactions: kept }]);
    let sent = net.sent(ALICE);
    assert_eq!(sent[..2], [Message::Tx(parent.raw().clone()), Message::Tx(child.raw().clone())]);
    net.relay.handle_get_data(net.now, ALICE, &[txid_of(&parent)]);
    net.collect();
    assert_eq!(net.sent(ALICE), [Message::Tx(parent.raw().clone())]);
    net.advance(FIRST_PROBE);
    assert_eq!(net.asked(ALICE), [wtxid_of(&child)]);

    // Once the parent is mined, the child goes alone.
    net.mempool(&[], &[(&parent, Removal::Confirmed)]);
    assert_eq!(net.told(), []);
    net.advance(RETRY_AFTER + RETRY_SPREAD);
    let again = net.sent(ALICE);
    assert!(again.contains(&Message::Tx(child.raw().clone())));
    assert!(!again.contains(&Message::Tx(parent.raw().clone())));
}

#[test]
fn it_is_handed_out_again_until_an_echo_and_then_rarely_until_it_leaves_the_mempool() {
    let peers = peers(4);
    let mut net = Harness::new(&peers);
    net.compares = false;
    let tx = spend(&[coin(1)]);
    broadcast(&mut net, &tx);
    net.advance(PROBE_FOR);
    pushed(&mut net, &peers, &tx);
    net.advance(RETRY_AFTER - PROBE_FOR);
    assert_eq!(pushed(&mut net, &peers, &tx), []);
    net.advance(RETRY_SPREAD);
    assert!(!pushed(&mut net, &peers, &tx).is_empty());

    let dave = PeerId(9);
    net.connect(dave, Role::Stranger, true);
    net.announces(dave, &tx);
    net.advance(REMIND_AFTER);
    assert_eq!(pushed(&mut net, &peers, &tx), []);
    net.advance(REMIND_SPREAD);
    assert!(!pushed(&mut net, &[peers, vec![dave]].concat(), &tx).is_empty());

    net.told();
    net.mempool(&[], &[(&tx, Removal::Confirmed)]);
    assert_eq!(net.told(), [Output::Forget { wtxid: tx.wtxid() }]);
    assert_eq!(net.relay.report(), []);
    assert_eq!(net.relay.broadcasts.next_timeout(), None);
}

#[test]
fn what_was_kept_is_handed_out_after_a_restart_without_a_wallet() {
    let mut net = Harness::new(&peers(4));
    let tx = spend(&[coin(1)]);
    net.relay.restore_broadcast(net.now, &[entry(&tx)], KeptState::default());
    net.collect();
    assert_eq!(pushed(&mut net, &peers(4), &tx), []);
    net.advance(RETRY_AFTER + RETRY_SPREAD);
    assert_eq!(pushed(&mut net, &peers(4), &tx).len(), FIRST_PEERS + MORE_PEERS);
    assert!(net.told().iter().all(|output| matches!(output, Output::Unseen(_))));
}

#[test]
fn what_a_peer_took_along_when_it_left_goes_to_another() {
    let mut net = Harness::new(&[ALICE]);
    let tx = spend(&[coin(1)]);
    broadcast(&mut net, &tx);
    assert_eq!(pushed(&mut net, &[ALICE], &tx).len(), 1);
    net.connect(BOB, Role::Stranger, true);
    net.leaves(ALICE);
    let sent = pushed(&mut net, &[BOB], &tx);
    pong(&mut net, BOB, sent[0].1);
    net.advance(ANSWER_WITHIN);
    assert_eq!(answers(&mut net), [Ok(Evidence::Delivery)]);
}

#[test]
fn a_wallet_that_asks_twice_is_answered_twice_and_peers_are_not_bothered() {
    let mut net = Harness::new(&[ALICE, BOB, CAROL]);
    let tx = spend(&[coin(1)]);
    broadcast(&mut net, &tx);
    let sent = pushed(&mut net, &[ALICE, BOB, CAROL], &tx);
    hand_in(&mut net, BroadcastId(2), &[&tx]);
    assert_eq!(pushed(&mut net, &[ALICE, BOB, CAROL], &tx), []);
    pong(&mut net, sent[0].0, sent[0].1);
    net.advance(ANSWER_WITHIN);
    assert_eq!(answers(&mut net), [Ok(Evidence::Delivery); 2]);
}
