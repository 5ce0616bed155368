//! Wallets' transactions over private connections, and what peers can find out meanwhile.

use std::time::Duration;

use super::super::super::testing::*;
use super::super::super::types::*;
use super::*;
use crate::mempool::Removal;
use crate::peer::Message;

const ID: BroadcastId = BroadcastId(1);
/// What a wallet is answered within, longer than any `inv` of ours waits, and longer than any check of stale ones.
const ANSWERED: Duration = Duration::from_secs(8);
const MINUTE: Duration = Duration::from_secs(60);

fn harness(peers: &[PeerId]) -> Harness {
    let mut net = Harness::new(peers);
    net.relay.set_private(net.now, PrivateState::Ready);
    net.collect();
    net
}

/// Hands it in, and the disk takes it. What is to be dialled.
fn broadcast(net: &mut Harness, transactions: &[&Unconfirmed]) -> Vec<PrivateId> {
    let entries: Vec<_> = transactions.iter().map(|tx| entry(tx)).collect();
    let wtxid = entries.last().unwrap().wtxid;
    net.relay.broadcast(net.now, ID, &entries);
    net.collect();
    let mut told = net.told();
    assert_eq!(told.remove(0), Output::Keep { wtxid, transactions: entries });
    let kept = KeptState { is_private: true, is_echoed: false };
    assert_eq!(told.remove(0), Output::Note { wtxid, kept });
    net.relay.handle_kept(net.now, wtxid);
    dials(told)
}

fn dials(told: Vec<Output>) -> Vec<PrivateId> {
    told.into_iter()
        .filter_map(|output| if let Output::Dial(id) = output { Some(id) } else { None })
        .collect()
}

fn answers(net: &mut Harness) -> Vec<Result<Evidence, BroadcastError>> {
    let answer = |output| if let Output::Broadcast { result, .. } = output { Some(result) } else { None };
    net.told().into_iter().filter_map(answer).collect()
}

fn happens(net: &mut Harness, id: PrivateId, event: PrivateEvent) {
    net.relay.handle_private(net.now, id, event);
    net.collect();
}

/// The handshake is done: what is handed over.
fn gets_ready(net: &mut Harness, id: PrivateId) -> Vec<bitcoin::Wtxid> {
    happens(net, id, PrivateEvent::Opened);
    happens(net, id, PrivateEvent::Ready);
    let Some(Output::Give { connection, transactions }) = net.told().pop() else { panic!("nothing given") };
    assert_eq!(connection, id);
    transactions.iter().map(|entry| entry.wtxid).collect()
}

fn asks(net: &mut Harness, peer: PeerId, wanted: Inventory) -> Vec<Message> {
    net.sent(peer);
    net.relay.handle_get_data(net.now, peer, &[wanted]);
    net.collect();
    net.sent(peer)
}

fn is_about(message: &Message, tx: &Unconfirmed) -> bool {
    match message {
        Message::Tx(raw) => raw == tx.raw(),
        Message::Inv(entries) => entries
            .iter()
            .any(|entry| entry.hash == tx.wtxid().to_raw_hash() || entry.hash == tx.txid().to_raw_hash()),
        _ => false,
    }
}

/// Test 76: one transaction to a connection, nothing of it on others before the echo, none after it.
#[test]
fn no_peer_learns_of_it_before_the_network_has_it() {
    let mut net = harness(&[ALICE, BOB, CAROL]);
    let tx = spend(&[coin(1)]);
    let dialled = broadcast(&mut net, &[&tx]);
    assert_eq!(dialled.len(), 3);
    for id in &dialled[..2] {
        assert_eq!(gets_ready(&mut net, *id), [tx.wtxid()]);
    }
    happens(&mut net, dialled[0], PrivateEvent::Asked);
    happens(&mut net, dialled[0], PrivateEvent::Delivered);
    happens(&mut net, dialled[0], PrivateEvent::Closed);
    net.advance(ANSWERED);
    assert_eq!(answers(&mut net), [Ok(Evidence::Delivery)]);

    // Asked for by its ids, it is not there.
    net.advance(MINUTE);
    for wanted in [wtxid_of(&tx), txid_of(&tx)] {
        assert_eq!(asks(&mut net, BOB, wanted), [Message::NotFound(vec![wanted])]);
    }
    // Announced, it is asked for as by anybody, and that is no echo.
    net.announces(ALICE, &tx);
    assert_eq!(net.asked(ALICE), [wtxid_of(&tx)]);
    assert!(!net.relay.report()[0].is_echoed);
    assert!(
        [ALICE, BOB, CAROL].iter().all(|peer| !net.sent(*peer).iter().any(|message| is_about(message, &tx)))
    );

    // Sent, it is.
    net.sends(ALICE, &tx);
    let report = net.relay.report()[0];
    assert_eq!((report.way, report.is_echoed), (Some(Way::Private), true));
    assert_eq!((report.sent, report.asked, report.delivered, report.announced), (2, 1, 1, 1));
    let kept = KeptState { is_private: true, is_echoed: true };
    assert!(net.told().contains(&Output::Note { wtxid: tx.wtxid(), kept }));
    assert!(net.jobs.is_empty(), "the mempool has it");
    net.advance(MINUTE);
    for peer in [BOB, CAROL] {
        assert!(
            net.sent(peer).iter().any(|message| is_about(message, &tx)),
            "now it is relayed like any other"
        );
    }
    assert!(!net.sent(ALICE).iter().any(|message| is_about(message, &tx)), "who gave it has it");
    assert_eq!(asks(&mut net, BOB, wtxid_of(&tx)), [Message::Tx(tx.raw().clone())]);

    // The third was dialled in vain, and nobody else is.
    assert_eq!(gets_ready(&mut net, dialled[2]), []);
    happens(&mut net, dialled[2], PrivateEvent::Closed);
    happens(&mut net, dialled[1], PrivateEvent::Closed);
    net.compares = false;
    net.advance(MINUTE * 60 * 48);
    assert_eq!(dials(net.told()), []);
}

#[test]
fn the_wallet_is_told_what_is_known_after_eight_seconds() {
    for (last, expected) in [
        (None, Err(BroadcastError::NotDelivered)),
        (Some(PrivateEvent::Opened), Err(BroadcastError::NotDelivered)),
        (Some(PrivateEvent::Ready), Ok(Evidence::Offer)),
        (Some(PrivateEvent::Asked), Ok(Evidence::Delivery)),
        (Some(PrivateEvent::Delivered), Ok(Evidence::Delivery)),
    ] {
        let mut net = harness(&[ALICE]);
        let tx = spend(&[coin(1)]);
        let dialled = broadcast(&mut net, &[&tx]);
        use PrivateEvent::{Asked, Delivered, Opened, Ready};
        for event in [Opened, Ready, Asked, Delivered] {
            if last.is_some() {
                happens(&mut net, dialled[0], event);
            }
            if last.is_none_or(|last| last == event) {
                break;
            }
        }
        net.advance(ANSWERED - SECOND);
        assert_eq!(answers(&mut net), []);
        net.advance(SECOND);
        assert_eq!(answers(&mut net), [expected], "{last:?}");
    }
}

/// Whoever is paid, and is also a peer of ours, may send a child to see who does not need its parent.
#[test]
fn a_child_that_a_peer_sends_does_not_show_that_we_have_the_parent() {
    let mut net = harness(&[ALICE, BOB]);
    let parent = spend(&[coin(1)]);
    let child = spend(&[output(&parent)]);
    let grandchild = spend(&[output(&child)]);
    broadcast(&mut net, &[&parent]);
    for tx in [&child, &grandchild] {
        net.sends(ALICE, tx);
        net.judge(tx, accepted(tx));
    }
    net.advance(MINUTE);
    assert_eq!(net.asked(ALICE), [txid_of(&parent)], "as of any orphan");
    assert!(!net.sent(BOB).iter().any(|message| is_about(message, &child)));
    for tx in [&child, &grandchild] {
        assert_eq!(asks(&mut net, BOB, wtxid_of(tx)), [Message::NotFound(vec![wtxid_of(tx)])]);
    }
    net.sends(ALICE, &parent);
    net.advance(MINUTE);
    let invs: Vec<Inventory> = net
        .sent(BOB)
        .into_iter()
        .filter_map(|message| if let Message::Inv(entries) = message { Some(entries) } else { None })
        .flatten()
        .collect();
    assert_eq!(invs, [wtxid_of(&parent), wtxid_of(&child), wtxid_of(&grandchild)]);
}

#[test]
fn the_own_node_goes_before_and_private_connections_follow_when_it_stays_silent() {
    let own = PeerId(50);
    let mut net = harness(&[ALICE]);
    net.connect(own, Role::Trusted { ask_mempool: false }, true);
    net.sent(own);
    let tx = spend(&[coin(1)]);
    net.relay.broadcast(net.now, ID, &[entry(&tx)]);
    net.collect();
    assert_eq!(net.relay.report()[0].way, Some(Way::Trusted));
    assert_eq!(dials(net.told()), []);
    assert!(net.sent(own).iter().any(|message| is_about(message, &tx)));
    net.advance(SECOND * 4);
    assert_eq!(net.relay.report()[0].way, Some(Way::Private));
    assert_eq!(dials(net.told()).len(), 3);
    net.advance(MINUTE);
    assert!(!net.sent(ALICE).iter().any(|message| is_about(message, &tx)));
}

#[test]
fn without_addresses_it_is_relayed_and_that_is_said() {
    let mut net = harness(&[ALICE]);
    net.relay.set_private(net.now, PrivateState::NoAddresses);
    let tx = spend(&[coin(1)]);
    net.relay.broadcast(net.now, ID, &[entry(&tx)]);
    net.collect();
    assert_eq!(net.relay.report()[0].way, Some(Way::Relay { no_addresses: true }));
    assert!(net.sent(ALICE).iter().any(|message| is_about(message, &tx)));
    // What strangers have seen already is not worth private connections.
    net.relay.set_private(net.now, PrivateState::Ready);
    net.advance(MINUTE * 20);
    assert_eq!(dials(net.told()), []);

    // Without any peer the wallet is told, unless there are private connections.
    let mut net = harness(&[]);
    assert!(net.relay.can_broadcast());
    net.relay.set_private(net.now, PrivateState::NoAddresses);
    assert!(!net.relay.can_broadcast());
}

#[test]
fn what_was_private_before_a_restart_stays_so_and_what_had_an_echo_is_left_alone() {
    for is_echoed in [false, true] {
        let mut net = harness(&[ALICE]);
        let tx = spend(&[coin(1)]);
        let kept = KeptState { is_private: true, is_echoed };
        net.relay.restore_broadcast(net.now, &[entry(&tx)], kept);
        net.relay.set_private(net.now, PrivateState::NoAddresses);
        net.collect();
        net.announces(ALICE, &tx);
        assert_eq!(!net.asked(ALICE).is_empty(), !is_echoed, "a secret is asked for");
        net.advance(MINUTE * 20);
        assert!(!net.sent(ALICE).iter().any(|message| is_about(message, &tx)), "not even without addresses");
        net.relay.set_private(net.now, PrivateState::Ready);
        net.collect();
        assert_eq!(dials(net.told()).len(), if is_echoed { 0 } else { 3 });
    }

    // Unless the operator took the proxy away.
    let mut net = Harness::new(&[ALICE]);
    let tx = spend(&[coin(1)]);
    let kept = KeptState { is_private: true, is_echoed: false };
    net.relay.restore_broadcast(net.now, &[entry(&tx)], kept);
    net.advance(MINUTE * 15);
    assert!(net.sent(ALICE).iter().any(|message| is_about(message, &tx)));
    assert_eq!(net.relay.report()[0].way, Some(Way::Relay { no_addresses: false }));
    assert_eq!(asks(&mut net, ALICE, wtxid_of(&tx)), [Message::Tx(tx.raw().clone())]);
}

#[test]
fn a_package_goes_over_one_connection_and_its_parent_is_a_secret_too() {
    let mut net = harness(&[ALICE]);
    let parent = spend(&[coin(1)]);
    let child = spend(&[output(&parent)]);
    let dialled = broadcast(&mut net, &[&parent, &child]);
    assert_eq!(gets_ready(&mut net, dialled[0]), [parent.wtxid(), child.wtxid()]);
    assert_eq!(asks(&mut net, ALICE, txid_of(&parent)), [Message::NotFound(vec![txid_of(&parent)])]);
    net.sends(ALICE, &parent);
    assert!(!net.relay.report()[0].is_echoed, "the child is still to come");
    net.sends(ALICE, &child);
    assert!(net.relay.report()[0].is_echoed);
}

#[test]
fn what_leaves_the_mempool_is_sent_no_more() {
    let mut net = harness(&[ALICE]);
    let tx = spend(&[coin(1)]);
    let dialled = broadcast(&mut net, &[&tx]);
    net.mempool(&[], &[(&tx, Removal::Confirmed)]);
    assert_eq!(gets_ready(&mut net, dialled[0]), []);
    for id in dialled {
        happens(&mut net, id, PrivateEvent::Closed);
    }
    net.advance(MINUTE * 10);
    assert_eq!(dials(net.told()), []);
    assert_eq!(net.relay.next_timeout().filter(|at| *at < net.now.instant + MINUTE), None);
}
